/* making executors and binding memory to them */
#include <string.h>

#include "program/executor.h"
#include "program/inner.h"
#include "program/memory.h"

static mica_status fill_constants(mica_executor *x) {
  const mica_program *p = x->program;
  int64_t bytes = 0, size = (int64_t)mica_dtype_size(x->dtype);
  for (int32_t v = 0; v < p->n_values; v++) {
    if (p->values[v].kind != MICA_VALUE_CONSTANT || p->values[v].root != v) continue;
    micah_store_of(x, v, MICA_V)->offset = bytes;
    bytes += (p->values[v].count * size + 63) / 64 * 64;
  }
  char *fixed = x->fixed = micah_data_alloc(x, bytes);
  if (fixed && x->backend == MICA_CUDA) fixed = micah_region_raw(&x->region, bytes);
  if (!fixed) return MICA_ERR_MEMORY;
  for (int32_t v = 0; v < p->n_values; v++) {
    if (p->values[v].kind != MICA_VALUE_CONSTANT || p->values[v].root != v) continue;
    char *at = fixed + micah_store_of(x, v, MICA_V)->offset;
    float f = (float)p->values[v].fill;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits += 0x7fffu + ((bits >> 16) & 1u);  /* bf16: round to nearest even */
    for (int64_t i = 0; i < p->values[v].count; i++) {
      if (x->dtype == MICA_F64) ((double *)(void *)at)[i] = p->values[v].fill;
      else if (x->dtype == MICA_F32) ((float *)(void *)at)[i] = f;
      else ((uint16_t *)(void *)at)[i] = (uint16_t)(bits >> 16);
    }
  }
  return fixed == x->fixed ? MICA_OK : micah_data_put(x, x->fixed, fixed, bytes);
}

static mica_status check_options(mica_context *context, const mica_program *program,
                                 const mica_executor_options *options) {
  if (!context || !program || !options)
    return mica_error(MICA_ERR_INVALID, "mica_executor_create: an argument is NULL");
  if (options->size != sizeof *options)
    return mica_error(MICA_ERR_INVALID, "executor of %s: options say %zu bytes, expected %zu; use "
                      "MICA_EXECUTOR_OPTIONS_INIT", program->name, options->size, sizeof *options);
  if (program->status < 0) return mica_error(program->status, "%s", program->message);
  if (!program->sealed) return mica_error(MICA_ERR_STATE, "program %s is not sealed", program->name);
  if (options->backend < 0 || options->backend >= MICA_NBACKEND)
    return mica_error(MICA_ERR_INVALID, "executor of %s: backend %d is not known", program->name, options->backend);
  if (options->dtype != MICA_F32 && options->dtype != MICA_F64 && options->dtype != MICA_BF16)
    return mica_error(MICA_ERR_INVALID, "executor of %s: dtype %s, expected f32, f64 or bf16", program->name,
                      mica_dtype_name(options->dtype));
  if (!options->passes || (options->passes & ~15))
    return mica_error(MICA_ERR_INVALID, "executor of %s: passes %d is no set of MICA_PASS_*", program->name,
                      options->passes);
  if (!(options->recompute >= 0) || options->recompute > 1)
    return mica_error(MICA_ERR_INVALID, "executor of %s: recompute is %g, expected 0 to 1", program->name,
                      options->recompute);
  return MICA_OK;
}

/* kernels on a device may want more scratch where a wire is absent, or where parameters lie apart: ask again with what
 * is planned. it must not look at slots, which are device data there */
static mica_status probe_scratch(mica_executor *x, int32_t wires) {
  mica_status status = MICA_OK;
  for (int slots = 0; slots < 2 && x->backend == MICA_CUDA && status >= 0; slots++) {
    x->probing = wires | MICAH_PROBE_PLANNED | (slots ? MICAH_PROBE_SLOTS : 0);
    status = micah_bind_all(x);
    for (int32_t s = 0; s < x->n_steps && status >= 0; s++)
      if (micah_step_scratch(&x->steps[s]) > x->kernel_scratch) x->kernel_scratch = micah_step_scratch(&x->steps[s]);
  }
  x->probing = 0;
  return status;
}

static mica_status build(mica_executor *x, const mica_executor_options *options) {
  micah_region *region = &x->region;
  int64_t wires = (int64_t)x->program->n_values * MICAH_WIRES;
  x->wanted = micah_region_alloc(region, x->program->n_values, 1);
  x->active = micah_region_alloc(region, x->program->n_values, 1);
  if (!x->wanted || !x->active) return MICA_ERR_MEMORY;
  mica_status status = micah_activity(x, options->wants, options->n_wants);
  for (int32_t e = 0; status >= 0 && e < x->program->n_entries; e++) {
    const micah_inner *inner = x->program->entries[e].inner;
    if (inner && inner->absorb && x->program->live[e]) status = inner->absorb(x, e);
  }
  if (status < 0) return status;
  const mica_program *p = x->program;
  x->again = micah_region_alloc(region, p->n_entries + 1, 1);
  x->stores = micah_region_alloc(region, wires, sizeof *x->stores);
  x->bound = micah_region_alloc(region, wires, sizeof *x->bound);
  x->args = micah_region_alloc(region, p->n_entries, sizeof *x->args);
  x->inner = micah_region_alloc(region, p->n_entries, sizeof *x->inner);
  x->operand_base = micah_region_alloc(region, p->n_entries + 1, sizeof *x->operand_base);
  if (!x->again || !x->stores || !x->bound || !x->args || !x->inner || !x->operand_base) return MICA_ERR_MEMORY;
  for (int32_t e = 0; e < p->n_entries; e++) {
    x->operand_base[e + 1] = x->operand_base[e] + p->entries[e].op->n_operands;
    x->args[e] = micah_region_alloc(region, (int64_t)p->entries[e].op->args_size, 1);
    if (!x->args[e]) return MICA_ERR_MEMORY;
  }
  x->adds = micah_region_alloc(region, x->operand_base[p->n_entries] + 1, 1);
  if (!x->adds) return MICA_ERR_MEMORY;
  if ((status = micah_sizes_create(x, options)) < 0) return status;
  /* ask every phase how it is cut at capacity: once with all that may be wanted */
  x->probing = MICA_D | MICA_T | MICA_TD;
  if (!(x->passes & MICA_PASS_JVP)) x->probing &= ~(MICA_T | MICA_TD);
  if ((status = micah_bind_all(x)) < 0 || (status = micah_choose_again(x, options->recompute)) < 0 ||
      (status = micah_make_steps(x)) < 0)
    return status;
  int32_t wires_of_passes = x->probing;
  x->probing = 0;
  if ((status = micah_plan(x)) < 0 || (status = probe_scratch(x, wires_of_passes)) < 0 ||
      (status = fill_constants(x)) < 0)
    return status;
  x->arena = micah_data_alloc(x, x->arena_bytes);
  x->exec = micah_region_alloc(region, x->workers, sizeof *x->exec);
  x->list = micah_region_alloc(region, x->n_steps, sizeof *x->list);
  if (!x->arena || !x->exec || !x->list) return MICA_ERR_MEMORY;
  if ((status = micah_upload_create(x)) < 0 || (status = micah_graphs_create(x)) < 0) return status;
  for (int32_t e = 0; e < p->n_entries; e++)
    if (p->entries[e].inner && p->live[e] && (status = p->entries[e].inner->create(x, e)) < 0) return status;
  x->kernel_scratch = (x->kernel_scratch + 63) / 64 * 64;
  for (int32_t w = 0; w < x->workers; w++) {
    x->exec[w] = (mica_exec){ .size = sizeof *x->exec, .scratch_bytes = x->kernel_scratch,
                              .isa = mica_context_get_isa(x->context), .stream = x->stream,
                              .device = x->device->index };
    if (!(x->exec[w].scratch = micah_data_alloc(x, (int64_t)x->kernel_scratch))) return MICA_ERR_MEMORY;
  }
  if (x->shared_bytes && !(x->shared = micah_data_alloc(x, (int64_t)x->shared_bytes))) return MICA_ERR_MEMORY;
  if (x->local_bytes && !(x->local = micah_data_alloc(x, x->local_bytes * x->workers))) return MICA_ERR_MEMORY;
  x->dirty = 1;
  return MICA_OK;
}

mica_status micah_executor_create(mica_context *context, const mica_program *program,
                                  const mica_executor_options *options, mica_executor **out) {
  *out = NULL;
  mica_status status = check_options(context, program, options);
  if (status < 0) return status;
  micah_device *device;
  status = micah_context_device(context, options->backend, options->device, &device);
  if (status < 0) return status;
  micah_region region = { mica_context_get_allocator(context), NULL, 0 };
  mica_executor *x = micah_region_alloc(&region, 1, sizeof *x);
  if (!x) return MICA_ERR_MEMORY;
  x->region = region;
  x->context = context;
  x->program = program;
  x->backend = options->backend;
  x->device = device;
  x->stream = options->stream ? options->stream : device->stream;
  x->dtype = options->dtype;
  x->passes = options->passes;
  /* a pass brings those that it builds on */
  if (x->passes & MICA_PASS_BACKWARD_JVP) x->passes |= MICA_PASS_JVP | MICA_PASS_BACKWARD;
  x->passes |= MICA_PASS_FORWARD;
  x->fused = options->fused > 0;
  x->forwards = x->fused ? 1 : -options->fused;
  const mica_threads *threads = mica_context_get_threads(context);
  x->workers = threads && threads->workers > 0 && x->backend != MICA_CUDA ? threads->workers : 1;
  if ((status = build(x, options)) < 0) {
    mica_executor_destroy(x);
    return status;
  }
  *out = x;
  return MICA_OK;
}

mica_status mica_executor_create(mica_context *context, const mica_program *program,
                                 const mica_executor_options *options, mica_executor **out) {
  if (!out) return mica_error(MICA_ERR_INVALID, "mica_executor_create: no out");
  *out = NULL;
  /* other values are for programs that run others */
  if (program && options && options->size == sizeof *options && (options->fused < 0 || options->fused > 1))
    return mica_error(MICA_ERR_INVALID, "executor of %s: fused is %d, expected 0 or 1", program->name, options->fused);
  return micah_executor_create(context, program, options, out);
}

void mica_executor_destroy(mica_executor *x) {
  if (!x) return;
  if (x->backend == MICA_CUDA) (void)x->device->ops->stream_sync(x->device, x->stream);  /* it may be in use */
  micah_inner_destroy(x);
  micah_graphs_destroy(x);
  micah_upload_destroy(x);
  micah_data_free(x);
  micah_region region = x->region;  /* the executor itself lies in it */
  micah_region_free(&region);
}

mica_status mica_executor_memory(const mica_executor *x, mica_memory *out) {
  if (!x || !out) return mica_error(MICA_ERR_INVALID, "mica_executor_memory: no executor or no out");
  int64_t kernels = (int64_t)(x->kernel_scratch * (size_t)x->workers + x->shared_bytes) + micah_inner_bytes(x) +
                    x->local_bytes * x->workers;
  *out = (mica_memory){ .saved = x->saved_bytes, .scratch = x->arena_bytes + kernels, .peak = x->peak_bytes + kernels };
  return MICA_OK;
}

/* ---- binding ---- */

static int wire_ok(int wire) { return wire == MICA_V || wire == MICA_D || wire == MICA_T || wire == MICA_TD; }

mica_status mica_executor_set_params(mica_executor *x, int wire, void *data, int64_t task_stride, const int32_t *slot,
                                     uint32_t flags) {
  if (!x || !wire_ok(wire))
    return mica_error(MICA_ERR_INVALID, "mica_executor_set_params: no executor, or wire %d", wire);
  if (task_stride < 0)
    return mica_error(MICA_ERR_INVALID, "executor of %s: task stride %lld of parameters, expected >= 0",
                      x->program->name, (long long)task_stride);
  x->params[micah_wire_index(wire)] =
      (mica_wire) { .data = data, .slot = slot, .task_stride = task_stride, .flags = flags };
  x->dirty = 1;
  return MICA_OK;
}

static int is_output(const mica_program *p, mica_value value) {
  for (int32_t i = 0; i < p->n_outputs; i++)
    if (p->outputs[i].value == value) return 1;
  return 0;
}

mica_status mica_executor_set_value(mica_executor *x, mica_value value, int wire, const mica_wire *binding) {
  if (!x || !wire_ok(wire))
    return mica_error(MICA_ERR_INVALID, "mica_executor_set_value: no executor, or wire %d", wire);
  const mica_program *p = x->program;
  if (!micah_valid(p, value)) return mica_error(MICA_ERR_INVALID, "executor of %s: %d is no value", p->name, value);
  const micah_value *v = &p->values[value];
  int output = is_output(p, value), given = binding && binding->data;
  if (!output && v->kind != MICA_VALUE_PARAM && v->kind != MICA_VALUE_INPUT)
    return mica_error(MICA_ERR_INVALID, "executor of %s: '%s' is no parameter, input or output", p->name, v->name);
  if (given && !output && wire != MICA_V && !x->wanted[value])
    return mica_error(MICA_ERR_INVALID, "executor of %s: derivatives of '%s' were not wanted when it was made", p->name,
                      v->name);
  if (given && output && (wire == MICA_V || wire == MICA_T) && v->count != p->values[v->root].count)
    return mica_error(MICA_ERR_UNSUPPORTED,
                      "executor of %s: output '%s' is a part of another value and cannot be written "
                      "elsewhere; take it with get_value",
                      p->name, v->name);
  if (given && binding->task_stride < -1)
    return mica_error(MICA_ERR_INVALID, "executor of %s: '%s' has task stride %lld", p->name, v->name,
                      (long long)binding->task_stride);
  micah_binding *bound = micah_bound(x, value, wire);
  bound->set = (uint8_t)given;
  if (given) bound->wire = *binding;
  x->dirty = 1;
  return MICA_OK;
}

mica_status mica_executor_get_value(const mica_executor *x, mica_value value, int wire, mica_wire *out) {
  if (!x || !out || !wire_ok(wire))
    return mica_error(MICA_ERR_INVALID, "mica_executor_get_value: no executor, no out, or wire %d", wire);
  const mica_program *p = x->program;
  if (!micah_valid(p, value) || (!is_output(p, value) && p->values[value].root == value && p->values[value].entry >= 0))
    return mica_error(MICA_ERR_INVALID, "executor of %s: %d is no parameter, input or output", p->name, value);
  return micah_value_wire((mica_executor *)(uintptr_t)x, value, wire, out);
}
