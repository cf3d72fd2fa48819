#include "host/engine/runner.h"

#include <string.h>

#include "common/fill.h"
#include "host/device/context.h"

static size_t field_bytes(const micah_runner *r, int32_t i) {
  const micah_tasks *t = r->tasks;
  int64_t rows = t->field_axis[i] < 0 ? 1 : t->longest[t->field_axis[i]];
  return (size_t)(r->capacity * rows * t->field_count[i]) * mica_dtype_size(r->dtype);
}

/* the reference in other types reads converted fields, a GPU copies of its own */
static int converted(const micah_runner *r, int32_t i) {
  return r->dtype != MICA_F32 && r->tasks->fields[i].dtype == MICA_F32;
}

mica_status micah_runner_create(const micah_job *job, const micah_tasks *tasks, const micah_graph *graph, int backend,
                                int32_t place, int dtype, int32_t passes, int64_t capacity, micah_runner **out) {
  *out = NULL;
  micah_runner *r = micah_alloc(job->context, sizeof *r, "a runner");
  if (!r) return MICA_ERR_MEMORY;
  memset(r, 0, sizeof *r);
  r->job = job, r->tasks = tasks, r->graph = graph, r->backend = backend, r->dtype = dtype, r->capacity = capacity;
  int32_t axis = tasks->field_axis[tasks->target];
  r->rows = capacity * (axis < 0 ? 1 : tasks->longest[axis]);
  size_t bytes = (size_t)r->rows * mica_dtype_size(dtype);
  mica_status status = micah_context_device(job->context, backend, backend == MICA_CUDA ? place : 0, &r->device);
  if (status >= 0) r->stream = r->device->stream, status = micah_view_create(tasks, capacity, &r->view);
  if (status >= 0) status = micah_twin_create(r->device, bytes, "losses", &r->loss);
  if (status >= 0) status = micah_twin_create(r->device, bytes, "cotangents of the losses", &r->seed);
  if (status >= 0 && !(r->row_loss = micah_alloc(job->context, (size_t)r->rows * sizeof(double), "losses")))
    status = MICA_ERR_MEMORY;
  for (int32_t i = 0; status >= 0 && i < tasks->n_fields; i++)
    if (converted(r, i) || backend == MICA_CUDA)
      status = r->device->ops->alloc(r->device, field_bytes(r, i), "a field", &r->data[i]);
  if (status >= 0)
    status = micah_graph_executor(job, tasks, graph, backend, r->device->index, dtype, passes, capacity, &r->executor);
  if (status < 0) {
    micah_runner_destroy(r);
    return status;
  }
  *out = r;
  return MICA_OK;
}

void micah_runner_destroy(micah_runner *r) {
  if (!r) return;
  mica_context *context = r->job->context;
  mica_executor_destroy(r->executor);
  for (int32_t i = 0; i < r->tasks->n_fields; i++)
    if (r->data[i]) r->device->ops->free(r->device, r->data[i], field_bytes(r, i));
  micah_twin_destroy(&r->loss);
  micah_twin_destroy(&r->seed);
  micah_twin_destroy(&r->params);
  micah_twin_destroy(&r->output);
  micah_free(context, r->row_loss, (size_t)r->rows * sizeof(double));
  micah_view_destroy(r->tasks, &r->view);
  micah_free(context, r, sizeof *r);
}

mica_status micah_runner_hold(micah_runner *r, int output) {
  size_t size = mica_dtype_size(r->dtype);
  mica_status status = micah_twin_create(r->device, (size_t)r->graph->params * size, "parameters", &r->params);
  if (status >= 0) status = mica_executor_set_params(r->executor, MICA_V, r->params.device, 0, NULL, 0);
  if (status < 0 || !output) return status;
  status = micah_twin_create(r->device, (size_t)(r->rows * r->tasks->outputs) * size, "predictions", &r->output);
  mica_wire wire = { .data = r->output.device, .dtype = r->dtype, .task_stride = -1 };
  if (status >= 0) status = mica_executor_set_value(r->executor, r->graph->prediction, MICA_V, &wire);
  return status;
}

mica_status micah_runner_send_params(micah_runner *r) {
  return micah_twin_send(&r->params, r->stream, r->params.bytes);
}

static int64_t target_rows(const micah_runner *r) {
  return micah_view_rows(&r->view, r->tasks->field_axis[r->tasks->target]);
}

mica_status micah_runner_set(micah_runner *r, const micah_feed *feed, int64_t first, int64_t count) {
  if (count > r->capacity || first < 0 || count < 0 || first > feed->count - count)
    return mica_error(MICA_ERR_INTERNAL, "tasks [%lld, %lld) of %lld in a runner for %lld", (long long)first,
                      (long long)(first + count), (long long)feed->count, (long long)r->capacity);
  micah_view_set(&r->view, feed, first, count);
  mica_status status = MICA_OK;
  void *data[MICAH_MAX_FIELDS];
  for (int32_t i = 0; status >= 0 && i < r->tasks->n_fields; i++) {
    int64_t n = micah_view_rows(&r->view, r->tasks->field_axis[i]) * r->tasks->field_count[i];
    data[i] = r->data[i] ? r->data[i] : r->view.data[i];
    if (converted(r, i)) status = micak_convert(r->dtype, data[i], MICA_F32, r->view.data[i], n);
    else if (r->data[i])
      status = r->device->ops->copy(r->device, r->stream, data[i], r->view.data[i],
                                    (size_t)n * mica_dtype_size(r->tasks->fields[i].dtype));
  }
  if (status >= 0) status = micah_graph_bind(r->executor, r->graph, &r->view, r->dtype, data);
  if (status >= 0) status = micah_graph_bind_loss(r->executor, r->graph, MICA_V, r->loss.device, r->dtype);
  return status;
}

mica_status micah_runner_send_seed(micah_runner *r) {
  mica_status status = micah_twin_send(&r->seed, r->stream, (size_t)target_rows(r) * mica_dtype_size(r->dtype));
  return status < 0 ? status : micah_graph_bind_loss(r->executor, r->graph, MICA_D, r->seed.device, r->dtype);
}

mica_status micah_runner_seed(micah_runner *r, double value) {
  micak_fill(r->dtype, r->seed.host, target_rows(r), value);
  return micah_runner_send_seed(r);
}

mica_status micah_runner_start(micah_runner *r, int32_t passes) {
  size_t row = mica_dtype_size(r->dtype), rows = (size_t)target_rows(r);
  mica_status status = mica_executor_run(r->executor, passes, NULL);
  if (status >= 0) status = micah_twin_fetch(&r->loss, r->stream, rows * row);
  if (status >= 0 && r->output.owner)
    status = micah_twin_fetch(&r->output, r->stream, rows * (size_t)r->tasks->outputs * row);
  return status;
}

mica_status micah_runner_wait(micah_runner *r) {
  mica_status status = r->device->ops->stream_sync(r->device, r->stream);
  return status < 0 ? status : micak_convert(MICA_F64, r->row_loss, r->dtype, r->loss.host, target_rows(r));
}

mica_status micah_runner_run(micah_runner *r, int32_t passes) {
  mica_status status = micah_runner_start(r, passes);
  return status < 0 ? status : micah_runner_wait(r);
}

double micah_runner_task_loss(const micah_runner *r, int64_t task) {
  int64_t first, count;
  double sum = 0;
  micah_view_target(&r->view, task, &first, &count);
  for (int64_t i = first; i < first + count; i++) sum += r->row_loss[i];
  return sum;
}
