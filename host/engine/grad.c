/* grad.c: one batch with losses, gradient and Hessian-vector product, written so that anyone can recompute it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fill.h"
#include "host/device/context.h"
#include "host/engine/runner.h"

typedef struct work {
  micah_job        *job;
  micah_tasks       tasks;
  micah_graph       graph;
  micah_runner     *runner;
  micah_feed        feed;
  int               dtype, grad_dtype;   /* of the compute; of cotangents of parameters (f32 or wider) */
  micah_twin        params, direction, grad, hvp;
  double           *loss;                /* (tasks) means over weighted rows */
  void             *loss_out;
  micah_tensor_list list;
  micah_meta       *meta;
  int64_t           n_meta, room;
} work;

static mica_status add_meta(void *user, const char *key, const char *value) {
  work *w = user;
  if (w->n_meta == w->room) {
    int64_t room = 2 * w->room + 64;
    micah_meta *meta = realloc(w->meta, (size_t)room * sizeof *meta);
    if (!meta) return mica_error(MICA_ERR_MEMORY, "no memory for metadata");
    w->meta = meta, w->room = room;
  }
  char *k = micah_copy(key, strlen(key)), *v = micah_copy(value, strlen(value));
  if (!k || !v) {
    free(k);
    free(v);
    return mica_error(MICA_ERR_MEMORY, "no memory for metadata");
  }
  w->meta[w->n_meta++] = (micah_meta){ k, v };
  return MICA_OK;
}

static mica_status allocate(work *w, int with_direction) {
  const mica_context *c = w->job->context;
  size_t size = (size_t)w->graph.params * mica_dtype_size(w->dtype);
  size_t wide = (size_t)w->graph.params * mica_dtype_size(w->grad_dtype), tasks = (size_t)w->feed.capacity;
  micah_device *d = w->runner->device;
  mica_status status = micah_twin_create(d, size, "parameters", &w->params);
  if (status >= 0) status = micah_twin_create(d, wide, "gradients", &w->grad);
  if (status >= 0 && with_direction) status = micah_twin_create(d, size, "a direction", &w->direction);
  if (status >= 0 && with_direction) status = micah_twin_create(d, wide, "a Hessian-vector product", &w->hvp);
  if (status < 0) return status;
  w->loss = micah_alloc(c, tasks * sizeof *w->loss, "losses");
  w->loss_out = micah_alloc(c, tasks * mica_dtype_size(w->grad_dtype), "losses");
  return w->loss && w->loss_out ? MICA_OK : MICA_ERR_MEMORY;
}

static void close_work(work *w) {
  if (w->job) {
    const mica_context *c = w->job->context;
    size_t tasks = (size_t)w->feed.capacity;
    micah_twin_destroy(&w->params);
    micah_twin_destroy(&w->direction);
    micah_twin_destroy(&w->grad);
    micah_twin_destroy(&w->hvp);
    micah_free(c, w->loss, tasks * sizeof *w->loss);
    micah_free(c, w->loss_out, tasks * mica_dtype_size(w->grad_dtype));
    if (w->feed.tasks) micah_feed_destroy(&w->feed);
    micah_runner_destroy(w->runner);
    if (w->graph.program) micah_graph_destroy(&w->graph);
    micah_tasks_close(&w->tasks);
  }
  micah_job_close(w->job);
  micah_list_free(&w->list);
  for (int64_t i = 0; i < w->n_meta; i++) {
    free((char *)(uintptr_t)w->meta[i].key);
    free((char *)(uintptr_t)w->meta[i].value);
  }
  free(w->meta);
}

static mica_status open_work(const mica_grad_options *o, work *w) {
  mica_status status = micah_job_open(&o->source, 0, &w->job);
  if (status >= 0) status = micah_job_tasks(w->job, MICA_SPLIT_TRAIN, &w->tasks);
  if (status >= 0) status = micah_job_graph(w->job, &w->tasks, MICAH_OUT_LOSS, &w->graph);
  if (status < 0) return status;
  int32_t passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  if (o->direction) passes |= MICA_PASS_JVP | MICA_PASS_BACKWARD_JVP;
  int64_t batch = w->job->settings.batch;
  status = micah_runner_create(w->job, &w->tasks, &w->graph, o->dtype == MICA_F32 ? w->job->backend : MICA_REF, 0,
                               o->dtype, passes, batch, &w->runner);
  if (status >= 0) status = micah_feed_create(&w->tasks, batch, &w->feed);
  if (status >= 0) status = allocate(w, o->direction != NULL);
  if (status >= 0) status = micah_feed_fill(&w->feed, o->first, batch);
  char *from = NULL;
  int64_t step;
  /* weights of a run only where asked for: the first batch is looked at with the first weights */
  char *run = w->job->run;
  w->job->run = o->weights ? run : NULL;
  if (status >= 0) status = micah_job_weights(w->job, &w->graph, o->weights, o->dtype, w->params.host, &from, &step);
  w->job->run = run;
  free(from);
  if (status < 0 || !o->direction) return status;
  micah_safetensors *file;
  status = micah_safetensors_open(o->direction, &file);
  if (status < 0) return status;
  status = micah_graph_load(&w->graph, file, "dir/", 1, o->dtype, w->direction.host);
  micah_safetensors_close(file);
  return status;
}

/* the loss of a task is the mean over its weighted rows; the gradient is of the mean over tasks */
static mica_status run_passes(work *w, int with_direction) {
  micah_runner *r = w->runner;
  int64_t tasks = w->feed.count;
  mica_status status = micah_runner_set(r, &w->feed, 0, tasks);
  if (status < 0) return status;
  memset(r->seed.host, 0, r->seed.bytes);
  double *weight = w->loss;          /* the divisors first; losses take their place */
  for (int64_t i = 0; i < tasks; i++) {
    int64_t first, count;
    micah_view_target(&r->view, i, &first, &count);
    weight[i] = 0;
    for (int64_t k = first; k < first + count; k++) weight[i] += micah_view_weight(&r->view, k);
    if (!(weight[i] > 0))
      return mica_error(MICA_ERR_NUMERIC, "task %lld has no weighted row", (long long)w->feed.number[i]);
    micak_fill(w->dtype, (char *)r->seed.host + (size_t)first * mica_dtype_size(w->dtype), count,
               1 / (weight[i] * (double)tasks));
  }
  status = micah_runner_send_seed(r);
  if (status >= 0) status = micah_twin_send(&w->params, r->stream, w->params.bytes);
  if (status >= 0) status = mica_executor_set_params(r->executor, MICA_V, w->params.device, 0, NULL, 0);
  if (status >= 0) status = mica_executor_set_params(r->executor, MICA_D, w->grad.device, 0, NULL, 0);
  int32_t passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  if (status >= 0 && with_direction) {
    passes |= MICA_PASS_JVP | MICA_PASS_BACKWARD_JVP;
    status = micah_twin_send(&w->direction, r->stream, w->direction.bytes);
    if (status >= 0) status = mica_executor_set_params(r->executor, MICA_T, w->direction.device, 0, NULL, 0);
    if (status >= 0) status = mica_executor_set_params(r->executor, MICA_TD, w->hvp.device, 0, NULL, 0);
  }
  if (status >= 0) status = micah_runner_start(r, passes);
  if (status >= 0) status = micah_twin_fetch(&w->grad, r->stream, w->grad.bytes);
  if (status >= 0 && with_direction) status = micah_twin_fetch(&w->hvp, r->stream, w->hvp.bytes);
  if (status >= 0) status = micah_runner_wait(r);
  for (int64_t i = 0; status >= 0 && i < tasks; i++) w->loss[i] = micah_runner_task_loss(r, i) / weight[i];
  return status;
}

/* field i as (tasks, rows, ...) where all tasks are equally long, else (all rows, ...) with offsets/AXIS */
static mica_status list_fields(work *w) {
  const micah_tasks *t = &w->tasks;
  const micah_view *view = &w->runner->view;
  mica_status status = MICA_OK;
  for (int32_t a = 0; status >= 0 && a < t->n_axes; a++) {
    int64_t count = w->feed.count + 1;
    if (!w->feed.uniform[a])
      status = micah_list_add(&w->list, "offsets/", t->axis_name[a], MICA_I32, 1, &count, w->feed.offsets[a]);
  }
  for (int32_t i = 0; status >= 0 && i < t->n_fields; i++) {
    const mica_field *f = &t->fields[i];
    int32_t axis = t->field_axis[i], rank = 0;
    int64_t shape[8];
    if (axis < 0 || w->feed.uniform[axis]) shape[rank++] = w->feed.count;
    if (axis >= 0) shape[rank++] = w->feed.uniform[axis] ? view->offsets[axis][1] : micah_view_rows(view, axis);
    for (int32_t j = 0; j < f->rank; j++) shape[rank++] = f->shape[j];
    int converted = w->runner->data[i] && w->runner->device->ops->backend == MICA_CPU;
    status = micah_list_add(&w->list, "", f->name, converted ? w->dtype : f->dtype, rank, shape,
                            converted ? w->runner->data[i] : view->data[i]);
  }
  return status;
}

/* initial weights, and the other meta-parameters of an inner loop apart from them */
static mica_status list_values(work *w) {
  mica_status status = MICA_OK;
  int32_t n = micah_graph_n_params(&w->graph);
  for (int32_t i = 0; status >= 0 && i < n; i++) {
    mica_value_info info;
    status = micah_graph_param(&w->graph, i, &info);
    int meta = status >= 0 && !strncmp(info.name, MICAH_INNER_PREFIX, strlen(MICAH_INNER_PREFIX));
    if (status >= 0)
      status = micah_list_add(&w->list, meta ? "meta/" : "init/", info.name, w->dtype, info.rank, info.shape,
                              (const char *)w->params.host + (size_t)info.offset * mica_dtype_size(w->dtype));
  }
  return status;
}

static mica_status write_file(work *w, const mica_grad_options *o) {
  int64_t tasks = w->feed.count;
  char number[32];
  mica_status status = micak_convert(w->grad_dtype, w->loss_out, MICA_F64, w->loss, tasks);
  if (status >= 0) status = list_values(w);
  if (status >= 0) status = list_fields(w);
  if (status >= 0) status = micah_list_add(&w->list, "", "loss", w->grad_dtype, 1, &tasks, w->loss_out);
  if (status >= 0) status = micah_list_params(&w->list, &w->graph, "grad/", w->grad_dtype, w->grad.host);
  if (status >= 0 && o->direction) status = micah_list_params(&w->list, &w->graph, "hvp/", w->grad_dtype, w->hvp.host);
  if (status >= 0) status = micah_config_each(w->job->config, add_meta, w);
  snprintf(number, sizeof number, "%lld", (long long)o->first);
  if (status >= 0) status = add_meta(w, "mica.first", number);
  if (status >= 0) status = add_meta(w, "mica.dtype", mica_dtype_name(w->dtype));
  if (status >= 0) status = micah_safetensors_write(o->out, w->list.tensors, w->list.count, w->meta, w->n_meta);
  return status;
}

mica_status mica_grad(const mica_grad_options *options, double *loss) {
  if (!options || options->size != sizeof *options)
    return mica_error(MICA_ERR_INVALID, "mica_grad_options.size is %zu, expected %zu", options ? options->size : 0,
                      sizeof *options);
  if (!options->out && !loss)
    return mica_error(MICA_ERR_INVALID, "grad has nowhere to put its result: options.out is NULL");
  if (options->dtype != MICA_F32 && options->dtype != MICA_F64 && options->dtype != MICA_BF16)
    return mica_error(MICA_ERR_UNSUPPORTED, "dtype %s; grad computes in f32, f64 or bf16",
                      mica_dtype_name(options->dtype));
  work w = { .dtype = options->dtype, .grad_dtype = options->dtype == MICA_F64 ? MICA_F64 : MICA_F32 };
  mica_status status = open_work(options, &w);
  if (status >= 0) status = run_passes(&w, options->direction != NULL);
  if (status >= 0 && options->out) status = write_file(&w, options);
  if (status >= 0 && loss) {
    *loss = 0;
    for (int64_t i = 0; i < w.feed.count; i++) *loss += w.loss[i];
    *loss /= (double)w.feed.count;
  }
  close_work(&w);
  return status;
}
