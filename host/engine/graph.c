#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fill.h"
#include "host/engine/job.h"
#include "host/io/file.h"

/* an error while building the model belongs to the model's section of the configuration */
static mica_status blame(const micah_job *job, const char *section_name, mica_status status) {
  micah_section *section;
  if (micah_config_section(micah_config_root(job->config), section_name, 0, &section) < 0) return status;
  return micah_config_blame(section, NULL, status);
}

static const char average[] = MICAH_AVERAGE_PREFIX;

mica_value micah_graph_average(const micah_graph *graph, int32_t index, mica_value *next) {
  const char *name;
  for (int32_t i = 0; (name = mica_program_output_name(graph->program, i)); i++) {
    if (strncmp(name, average, sizeof average - 1) || index-- > 0) continue;
    *next = mica_program_get_output(graph->program, i);
    return mica_program_find(graph->program, name + sizeof average - 1);
  }
  return -1;
}

/* rows of loss with their values, and beside their gradient that of <parameter, next value>: its mean over the rows */
static mica_status add_averages(const micah_tasks *tasks, micah_graph *g) {
  mica_program *p = g->program;
  mica_value sum = -1, next, param;
  int64_t one = 1;
  for (int32_t i = 0; (param = micah_graph_average(g, i, &next)) >= 0; i++) {
    mica_value_info a, b;
    mica_status status = mica_program_info(p, param, &a);
    if (status >= 0) status = mica_program_info(p, next, &b);
    if (status < 0) return status;
    if (a.count != b.count || b.axis >= 0)
      return mica_error(MICA_ERR_SHAPE, "the next value of parameter '%s' does not have its shape", a.name);
    char path[200];
    snprintf(path, sizeof path, MICAH_AVERAGE_PREFIX "%.180s", a.name);
    next = micah_inner_op(p, path, "stop", NULL, mica_program_reshape(p, next, 1, &b.count), -1);
    next = micah_inner_op(p, path, "mul", NULL, mica_program_reshape(p, param, 1, &a.count), next);
    next = mica_program_reshape(p, micah_inner_op(p, path, "sum", "axis=all", next, -1), 1, &one);
    sum = sum < 0 ? next : micah_inner_op(p, path, "add", NULL, sum, next);
    if (sum < 0) return sum;
  }
  if (sum < 0) return MICA_OK;
  if (tasks->weight >= 0)
    return mica_error(MICA_ERR_UNSUPPORTED, "running averages are means over rows of equal weight; family %s weights "
                      "its rows", tasks->family->name);
  mica_value same = micah_inner_op(p, "average.stop", "stop", NULL, sum, -1);
  sum = micah_inner_op(p, "average", "sub", NULL, sum, same);
  g->loss = micah_inner_op(p, "average.loss", "add", NULL, g->loss, sum);
  return g->loss < 0 ? g->loss : MICA_OK;
}

mica_status micah_job_graph(const micah_job *job, const micah_tasks *tasks, int32_t outputs, micah_graph *out) {
  memset(out, 0, sizeof *out);
  mica_status status = mica_program_create(job->context, job->model->name, &out->program);
  if (status < 0) return status;
  mica_program *p = out->program;
  mica_program_set_phase(p, outputs & MICAH_EVALUATE ? MICA_PHASE_EVALUATE : MICA_PHASE_TRAIN);
  for (int32_t a = 0; a < tasks->n_axes; a++) out->axis[a] = mica_program_axis(p, tasks->axis_name[a], MICA_NO_AXIS);
  for (int32_t i = 0; i < tasks->n_fields; i++) {
    const mica_field *f = &tasks->fields[i];
    int32_t axis = tasks->field_axis[i];
    out->input[i] =
        mica_program_input(p, f->name, f->dtype, axis < 0 ? MICA_NO_AXIS : out->axis[axis], f->rank, f->shape);
  }
  const char *at_fault = "model";
  if (job->settings.inner.steps > 0) {
    at_fault = "inner";
    status = micah_inner_build(job, tasks, out);
  } else {
    int32_t target_axis = tasks->field_axis[tasks->target];
    int64_t longest = target_axis < 0 ? 1 : tasks->longest[target_axis];
    out->prediction = job->model->build(p, job->model_config, tasks->fields, out->input, tasks->n_fields, longest,
                                        tasks->outputs);
    status = out->prediction < 0 ? out->prediction : MICA_OK;
  }
  if (status >= 0 && job->settings.inner.steps == 0) {
    at_fault = "loss";
    out->loss = job->loss->build(p, job->loss_config, out->prediction, out->input[tasks->target],
                                 tasks->weight < 0 ? -1 : out->input[tasks->weight]);
    if (out->loss < 0) status = out->loss;
  }
  if (status >= 0 && (outputs & MICAH_AVERAGES)) status = add_averages(tasks, out);
  if (status >= 0 && (outputs & MICAH_OUT_PREDICTION)) {
    /* predictions of classes are given as probabilities */
    if (tasks->fields[tasks->target].dtype == MICA_I32)
      out->prediction =
          mica_program_op(p, "probability", "softmax", NULL, 1, (mica_bind[]) { { "x", out->prediction } });
    status = out->prediction < 0 ? out->prediction : mica_program_output(p, "prediction", out->prediction);
  }
  if (status >= 0 && (outputs & MICAH_OUT_LOSS)) status = mica_program_output(p, "loss", out->loss);
  if (status >= 0) status = mica_program_seal(p);
  if (status < 0) {
    status = blame(job, at_fault, status);
    micah_graph_destroy(out);
    return status;
  }
  out->params = mica_program_param_count(p);
  return MICA_OK;
}

void micah_graph_destroy(micah_graph *graph) {
  mica_program_destroy(graph->program);
  memset(graph, 0, sizeof *graph);
}

mica_status micah_graph_executor(const micah_job *job, const micah_tasks *tasks, const micah_graph *graph, int backend,
                                 int32_t device, int dtype, int32_t passes, int64_t capacity, mica_executor **out) {
  int64_t rows[MICAH_MAX_AXES], longest[MICAH_MAX_AXES];
  for (int32_t a = 0; a < tasks->n_axes; a++) {
    /* the program numbers axes in the order they were made */
    rows[graph->axis[a]] = capacity * tasks->longest[a];
    longest[graph->axis[a]] = tasks->longest[a];
  }
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.backend = backend, options.device = device, options.dtype = dtype, options.passes = passes;
  options.recompute = job->settings.recompute;
  options.tasks = capacity, options.rows = rows, options.longest = longest;
  return mica_executor_create(job->context, graph->program, &options, out);
}

mica_status micah_graph_bind(mica_executor *executor, const micah_graph *graph, const micah_view *view, int dtype,
                             void *const *data) {
  const micah_tasks *t = view->feed->tasks;
  mica_status status = mica_executor_set_tasks(executor, view->count);
  for (int32_t a = 0; status >= 0 && a < t->n_axes; a++) {
    /* equal lengths of the whole step take the dense form, in every launch of it */
    int32_t uniform = view->feed->uniform[a] && view->count > 0;
    int64_t length = uniform ? view->offsets[a][1] : 0;
    status = mica_executor_set_axis(executor, graph->axis[a], uniform ? NULL : view->offsets[a], length);
  }
  for (int32_t i = 0; status >= 0 && i < t->n_fields; i++) {
    mica_wire wire = { .data = data[i], .dtype = t->fields[i].dtype, .task_stride = -1 };
    if (t->fields[i].dtype == MICA_F32) wire.dtype = dtype;
    status = mica_executor_set_value(executor, graph->input[i], MICA_V, &wire);
  }
  return status;
}

mica_status micah_graph_bind_loss(mica_executor *executor, const micah_graph *graph, int wire, void *data, int dtype) {
  mica_wire binding = { .data = data, .dtype = dtype, .task_stride = -1 };
  return mica_executor_set_value(executor, graph->loss, wire, &binding);
}

int32_t micah_graph_n_params(const micah_graph *graph) {
  int32_t n = 0;
  while (mica_program_get_param(graph->program, n) >= 0) n++;
  return n;
}

mica_status micah_graph_param(const micah_graph *graph, int32_t index, mica_value_info *out) {
  mica_value value = mica_program_get_param(graph->program, index);
  return value < 0 ? (mica_status)value : mica_program_info(graph->program, value, out);
}

static void *at(void *block, int dtype, int64_t offset) {
  return (char *)block + (size_t)offset * mica_dtype_size(dtype);
}

mica_status micah_graph_init(const micah_job *job, const micah_graph *graph, int dtype, void *params) {
  mica_status status = MICA_OK;
  int32_t n = micah_graph_n_params(graph);
  for (int32_t i = 0; status >= 0 && i < n; i++) {
    mica_value_info info;
    status = micah_graph_param(graph, i, &info);
    if (status >= 0)
      status = micak_init_param(dtype, at(params, dtype, info.offset), 0, info.count, info.init,
                                (uint64_t)job->settings.seed, info.name);
  }
  return status;
}

mica_status micah_graph_load(const micah_graph *graph, const micah_safetensors *file, const char *prefix, int extra,
                             int dtype, void *params) {
  int32_t n = micah_graph_n_params(graph);
  for (int32_t i = 0; i < n; i++) {
    mica_value_info info;
    mica_status status = micah_graph_param(graph, i, &info);
    if (status < 0) return status;
    char name[512];
    snprintf(name, sizeof name, "%s%s", prefix, info.name);
    const micah_tensor *tensor;
    status = micah_safetensors_need(file, name, -1, info.rank, info.shape, &tensor);
    if (status < 0) return status;
    status = micak_convert(dtype, at(params, dtype, info.offset), tensor->dtype, tensor->data, info.count);
    if (status < 0)
      return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s' is %s, expected f32, f64 or bf16",
                        micah_safetensors_path(file), name, mica_dtype_name(tensor->dtype));
  }
  for (int64_t i = 0; !extra && i < micah_safetensors_count(file); i++) {
    const char *name = micah_safetensors_get(file, i)->name;
    size_t length = strlen(prefix);
    mica_value value = strncmp(name, prefix, length) == 0 ? mica_program_find(graph->program, name + length) : -1;
    mica_value_info info;
    if (value < 0 || mica_program_info(graph->program, value, &info) < 0 || info.kind != MICA_VALUE_PARAM)
      return mica_error(MICA_ERR_FORMAT,
                        "%s: tensor '%s' is no parameter of the model; these weights belong to another "
                        "configuration",
                        micah_safetensors_path(file), name);
  }
  return MICA_OK;
}

mica_status micah_list_add(micah_tensor_list *list, const char *prefix, const char *name, int dtype, int32_t rank,
                           const int64_t *shape, const void *data) {
  if (list->count == list->capacity) {
    int64_t capacity = list->capacity ? 2 * list->capacity : 64;
    micah_tensor *tensors = realloc(list->tensors, (size_t)capacity * sizeof *tensors);
    if (tensors) list->tensors = tensors;
    char **owned = realloc(list->owned, (size_t)capacity * sizeof *owned);
    if (owned) list->owned = owned;
    if (!tensors || !owned) return mica_error(MICA_ERR_MEMORY, "no memory for a list of tensors");
    list->capacity = capacity;
  }
  size_t length = strlen(prefix) + strlen(name) + 1;
  char *text = malloc(length);
  if (!text) return mica_error(MICA_ERR_MEMORY, "no memory for a tensor's name");
  snprintf(text, length, "%s%s", prefix, name);
  micah_tensor *t = &list->tensors[list->count];
  *t = (micah_tensor){ .name = text, .dtype = dtype, .rank = rank, .data = data };
  for (int32_t i = 0; i < rank; i++) t->shape[i] = shape[i];
  list->owned[list->count++] = text;
  return MICA_OK;
}

mica_status micah_list_params(micah_tensor_list *list, const micah_graph *graph, const char *prefix, int dtype,
                              const void *block) {
  mica_status status = MICA_OK;
  int32_t n = micah_graph_n_params(graph);
  for (int32_t i = 0; status >= 0 && i < n; i++) {
    mica_value_info info;
    status = micah_graph_param(graph, i, &info);
    if (status >= 0)
      status = micah_list_add(list, prefix, info.name, dtype, info.rank, info.shape,
                              (const char *)block + (size_t)info.offset * mica_dtype_size(dtype));
  }
  return status;
}

void micah_list_free(micah_tensor_list *list) {
  for (int64_t i = 0; i < list->count; i++) free(list->owned[i]);
  free(list->owned);
  free(list->tensors);
  memset(list, 0, sizeof *list);
}

mica_status micah_job_weights(const micah_job *job, const micah_graph *graph, const char *weights, int dtype,
                              void *params, char **from, int64_t *step) {
  *from = NULL, *step = -1;
  if (!weights && !job->run) {
    *step = 0;
    return micah_graph_init(job, graph, dtype, params);
  }
  char *path = weights ? micah_copy(weights, strlen(weights)) : micah_path_join(job->run, "last.safetensors");
  if (!path) return mica_error(MICA_ERR_MEMORY, "no memory for a path");
  micah_safetensors *file;
  mica_status status = micah_safetensors_open(path, &file);
  if (status >= 0) {
    /* a checkpoint serves too: its moments are left aside */
    int checkpoint = micah_safetensors_meta(file, "mica.kind") && strcmp(micah_safetensors_meta(file, "mica.kind"),
                                                                         "checkpoint") == 0;
    status = micah_graph_load(graph, file, "", checkpoint, dtype, params);
    const char *text = micah_safetensors_meta(file, "mica.step");
    if (status >= 0 && text && !micah_parse_int(text, strlen(text), step)) *step = -1;
    micah_safetensors_close(file);
  }
  if (status < 0) {
    free(path);
    return status;
  }
  *from = path;
  return MICA_OK;
}
