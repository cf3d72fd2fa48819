#include "host/engine/runner.h"

#include <string.h>

#include "common/fill.h"
#include "host/device/context.h"

static size_t field_bytes(const micah_runner *r, int32_t i) {
  const micah_tasks *t = r->tasks;
  int64_t rows = t->field_axis[i] < 0 ? 1 : t->longest[t->field_axis[i]];
  return (size_t)(r->capacity * rows * t->field_count[i]) * mica_dtype_size(r->dtype);
}

static int converted(const micah_runner *r, int32_t i) {
  return r->dtype != MICA_F32 && r->tasks->fields[i].dtype == MICA_F32;
}

mica_status micah_runner_create(const micah_job *job, const micah_tasks *tasks, const micah_graph *graph, int backend,
                                int dtype, int32_t passes, int64_t capacity, micah_runner **out) {
  *out = NULL;
  micah_runner *r = micah_alloc(job->context, sizeof *r, "a runner");
  if (!r) return MICA_ERR_MEMORY;
  memset(r, 0, sizeof *r);
  r->job = job, r->tasks = tasks, r->graph = graph, r->backend = backend, r->dtype = dtype, r->capacity = capacity;
  int32_t axis = tasks->field_axis[tasks->target];
  r->rows = capacity * (axis < 0 ? 1 : tasks->longest[axis]);
  size_t size = mica_dtype_size(dtype);
  mica_status status = micah_view_create(tasks, capacity, &r->view);
  if (status >= 0 && (!(r->loss = micah_alloc(job->context, (size_t)r->rows * size, "losses")) ||
                      !(r->seed = micah_alloc(job->context, (size_t)r->rows * size, "cotangents of the losses")) ||
                      !(r->row_loss = micah_alloc(job->context, (size_t)r->rows * sizeof(double), "losses"))))
    status = MICA_ERR_MEMORY;
  for (int32_t i = 0; status >= 0 && i < tasks->n_fields; i++)
    if (converted(r, i) && !(r->data[i] = micah_alloc(job->context, field_bytes(r, i), "a field")))
      status = MICA_ERR_MEMORY;
  if (status >= 0) status = micah_graph_executor(job, tasks, graph, backend, dtype, passes, capacity, &r->executor);
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
  size_t size = mica_dtype_size(r->dtype);
  mica_executor_destroy(r->executor);
  for (int32_t i = 0; i < r->tasks->n_fields; i++) micah_free(context, r->data[i], field_bytes(r, i));
  micah_free(context, r->loss, (size_t)r->rows * size);
  micah_free(context, r->seed, (size_t)r->rows * size);
  micah_free(context, r->row_loss, (size_t)r->rows * sizeof(double));
  micah_view_destroy(r->tasks, &r->view);
  micah_free(context, r, sizeof *r);
}

mica_status micah_runner_set(micah_runner *r, const micah_feed *feed, int64_t first, int64_t count) {
  if (count > r->capacity || first < 0 || count < 0 || first > feed->count - count)
    return mica_error(MICA_ERR_INTERNAL, "tasks [%lld, %lld) of %lld in a runner for %lld", (long long)first,
                      (long long)(first + count), (long long)feed->count, (long long)r->capacity);
  micah_view_set(&r->view, feed, first, count);
  mica_status status = MICA_OK;
  void *data[MICAH_MAX_FIELDS];
  for (int32_t i = 0; status >= 0 && i < r->tasks->n_fields; i++) {
    data[i] = r->data[i] ? r->data[i] : r->view.data[i];
    if (r->data[i])
      status = micak_convert(r->dtype, r->data[i], MICA_F32, r->view.data[i],
                             micah_view_rows(&r->view, r->tasks->field_axis[i]) * r->tasks->field_count[i]);
  }
  if (status >= 0) status = micah_graph_bind(r->executor, r->graph, &r->view, r->dtype, data);
  if (status >= 0) status = micah_graph_bind_loss(r->executor, r->graph, MICA_V, r->loss, r->dtype);
  return status;
}

mica_status micah_runner_seed(micah_runner *r, double value) {
  micak_fill(r->dtype, r->seed, micah_view_rows(&r->view, r->tasks->field_axis[r->tasks->target]), value);
  return micah_graph_bind_loss(r->executor, r->graph, MICA_D, r->seed, r->dtype);
}

mica_status micah_runner_run(micah_runner *r, int32_t passes) {
  mica_status status = mica_executor_run(r->executor, passes, NULL);
  if (status < 0) return status;
  return micak_convert(MICA_F64, r->row_loss, r->dtype, r->loss,
                       micah_view_rows(&r->view, r->tasks->field_axis[r->tasks->target]));
}

double micah_runner_task_loss(const micah_runner *r, int64_t task) {
  int64_t first, count;
  double sum = 0;
  micah_view_target(&r->view, task, &first, &count);
  for (int64_t i = first; i < first + count; i++) sum += r->row_loss[i];
  return sum;
}
