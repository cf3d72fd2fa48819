#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/names.h"
#include "program/inner.h"

mica_status micah_fail_last(mica_program *program, mica_status status) {
  if (program->status >= 0) {
    program->status = status;
    snprintf(program->message, sizeof program->message, "%s", mica_last_error());
  }
  return status;
}

mica_status micah_fail(mica_program *program, mica_status status, const char *format, ...) {
  char text[1024];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  return micah_fail_last(program, mica_error(status, "program %s: %s", program->name, text));
}

mica_status mica_program_create(mica_context *context, const char *name, mica_program **out) {
  if (!context || !out) return mica_error(MICA_ERR_INVALID, "mica_program_create: no context or no out");
  *out = NULL;
  micah_region region = { mica_context_get_allocator(context), NULL, 0 };
  mica_program *program = micah_region_alloc(&region, 1, sizeof *program);
  if (!program) return MICA_ERR_MEMORY;
  program->name = micah_region_text(&region, name && *name ? name : "program");
  if (!program->name) {
    micah_region_free(&region);
    return MICA_ERR_MEMORY;
  }
  program->context = context;
  program->region = region;
  program->level = MICA_NO_AXIS;
  atomic_init(&program->refs, 1);
  *out = program;
  return MICA_OK;
}

void mica_program_destroy(mica_program *program) {
  if (!program || atomic_fetch_sub(&program->refs, 1) > 1) return;
  for (int32_t e = 0; e < program->n_entries; e++)
    if (program->entries[e].inner) program->entries[e].inner->release(program->entries[e].own);
  micah_region region = program->region;  /* the program itself lies in it */
  micah_region_free(&region);
}

mica_status mica_program_set_phase(mica_program *program, int32_t phase) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  if (phase < MICA_PHASE_STEP || phase > MICA_PHASE_EVALUATE)
    return micah_fail(program, MICA_ERR_INVALID, "%d is no phase", phase);
  program->phase = phase;
  return MICA_OK;
}

int32_t mica_program_get_phase(const mica_program *program) { return program ? program->phase : MICA_PHASE_STEP; }

int32_t mica_program_axis(mica_program *program, const char *name, int32_t parent) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  if (!name || !*name) return micah_fail(program, MICA_ERR_INVALID, "an axis needs a name");
  if (parent < MICA_NO_AXIS || parent >= program->n_axes)
    return micah_fail(program, MICA_ERR_INVALID, "axis %s: %d is no axis to be its parent", name, parent);
  for (int32_t i = 0; i < program->n_axes; i++) {
    if (strcmp(program->axes[i].name, name)) continue;
    if (program->axes[i].parent != parent)
      return micah_fail(program, MICA_ERR_INVALID, "axis %s exists already under another parent", name);
    return i;
  }
  micah_axis *axes =
      micah_region_grow(&program->region, program->axes, program->n_axes, &program->c_axes, sizeof *axes);
  char *copy = axes ? micah_region_text(&program->region, name) : NULL;
  if (!copy) return micah_fail_last(program, MICA_ERR_MEMORY);
  program->axes = axes;
  axes[program->n_axes] = (micah_axis){ copy, parent };
  return program->n_axes++;
}

int micah_valid(const mica_program *program, mica_value value) { return value >= 0 && value < program->n_values; }

int64_t micah_count(int32_t rank, const int64_t *shape) {
  int64_t count = 1;
  for (int32_t i = 0; i < rank; i++)
    if (shape[i] < 1 || __builtin_mul_overflow(count, shape[i], &count)) return -1;
  return count;
}

mica_value micah_add_value(mica_program *program, const micah_value *value) {
  micah_value *values =
      micah_region_grow(&program->region, program->values, program->n_values, &program->c_values, sizeof *values);
  char *name = values ? micah_region_text(&program->region, value->name ? value->name : "") : NULL;
  if (!name) return micah_fail_last(program, MICA_ERR_MEMORY);
  program->values = values;
  values[program->n_values] = *value;
  values[program->n_values].name = name;
  values[program->n_values].scan_axis = -1;
  if (value->root < 0) values[program->n_values].root = program->n_values;
  return program->n_values++;
}

int32_t micah_add_entry(mica_program *program, const micah_entry *entry) {
  micah_entry *entries =
      micah_region_grow(&program->region, program->entries, program->n_entries, &program->c_entries, sizeof *entries);
  if (!entries) return micah_fail_last(program, MICA_ERR_MEMORY);
  program->entries = entries;
  entries[program->n_entries] = *entry;
  return program->n_entries++;
}

/* a row's rank and shape, checked */
static mica_status check_row(mica_program *program, const char *what, const char *name, int32_t rank,
                             const int64_t *shape, int32_t most, micah_value *value) {
  if (rank < 0 || rank > most || (rank && !shape))
    return micah_fail(program, MICA_ERR_SHAPE, "%s '%s' has rank %d, expected 0 to %d", what, name, rank, most);
  value->rank = rank;
  for (int32_t i = 0; i < rank; i++) {
    if (shape[i] < 1)
      return micah_fail(program, MICA_ERR_SHAPE, "%s '%s': size %d of its shape is %lld, expected at least 1", what,
                        name, i, (long long)shape[i]);
    value->shape[i] = shape[i];
  }
  value->count = micah_count(rank, shape);
  if (value->count < 0)
    return micah_fail(program, MICA_ERR_SHAPE, "%s '%s' has more elements than fit 63 bits", what, name);
  return MICA_OK;
}

static mica_status check_name(mica_program *program, const char *what, const char *name) {
  if (!name || !*name) return micah_fail(program, MICA_ERR_INVALID, "a %s needs a name", what);
  if (mica_program_find(program, name) >= 0)
    return micah_fail(program, MICA_ERR_INVALID, "the name '%s' is taken; a %s needs its own", name, what);
  return MICA_OK;
}

static mica_status append(mica_program *program, int32_t **list, int32_t *count, int32_t *capacity, int32_t value) {
  int32_t *bigger = micah_region_grow(&program->region, *list, *count, capacity, sizeof *bigger);
  if (!bigger) return micah_fail_last(program, MICA_ERR_MEMORY);
  *list = bigger;
  bigger[(*count)++] = value;
  return MICA_OK;
}

mica_value mica_program_param(mica_program *program, const char *name, int32_t rank, const int64_t *shape,
                              mica_init init, int32_t decay) {
  mica_status status = micah_open(program);
  if (status < 0 || (status = check_name(program, "parameter", name)) < 0) return status;
  micah_value value = { .name = (char *)(uintptr_t)name, .dtype = MICA_F32, .kind = MICA_VALUE_PARAM,
                        .axis = MICA_NO_AXIS, .root = -1, .init = init, .decay = decay, .entry = -1, .operand = -1,
                        .call = -1 };
  int width = init.kind == MICA_INIT_NORMAL || init.kind == MICA_INIT_UNIFORM;
  if (init.kind < MICA_INIT_ZERO || init.kind > MICA_INIT_CONSTANT || !isfinite(init.scale) || (width && init.scale < 0))
    return micah_fail(program, MICA_ERR_INVALID, "parameter '%s': init kind %d scale %g is not known", name, init.kind,
                      init.scale);
  if ((status = check_row(program, "parameter", name, rank, shape, MICAH_RANK, &value)) < 0) return status;
  value.offset = program->param_count;
  if (__builtin_add_overflow(program->param_count, value.count, &program->param_count))
    return micah_fail(program, MICA_ERR_SHAPE, "parameter '%s': too many parameters in all", name);
  mica_value at = micah_add_value(program, &value);
  if (at < 0) return at;
  status = append(program, &program->params, &program->n_params, &program->c_params, at);
  return status < 0 ? status : at;
}

mica_value mica_program_input(mica_program *program, const char *name, int32_t dtype, int32_t axis, int32_t rank,
                              const int64_t *shape) {
  mica_status status = micah_open(program);
  if (status < 0 || (status = check_name(program, "input", name)) < 0) return status;
  if (dtype != MICA_F32 && dtype != MICA_I32 && dtype != MICA_I64 && dtype != MICA_U8)
    return micah_fail(program, MICA_ERR_INVALID,
                      "input '%s' has dtype %s; expected f32 (which follows the compute type), i32, i64 or u8", name,
                      mica_dtype_name(dtype));
  if (axis < MICA_NO_AXIS || axis >= program->n_axes)
    return micah_fail(program, MICA_ERR_INVALID, "input '%s': %d is no axis of this program", name, axis);
  micah_value value = { .name = (char *)(uintptr_t)name, .dtype = dtype, .kind = MICA_VALUE_INPUT, .axis = axis,
                        .root = -1, .entry = -1, .operand = -1, .call = -1 };
  if ((status = check_row(program, "input", name, rank, shape, axis < 0 ? MICAH_RANK : MICAH_RANK - 1, &value)) < 0)
    return status;
  mica_value at = micah_add_value(program, &value);
  if (at < 0) return at;
  status = append(program, &program->inputs, &program->n_inputs, &program->c_inputs, at);
  return status < 0 ? status : at;
}

mica_value mica_program_constant(mica_program *program, double fill, int32_t rank, const int64_t *shape) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  char name[32];
  snprintf(name, sizeof name, "constant %g", fill);
  micah_value value = { .name = name, .dtype = MICA_F32, .kind = MICA_VALUE_CONSTANT, .axis = MICA_NO_AXIS, .root = -1,
                        .fill = fill, .entry = -1, .operand = -1, .call = -1 };
  if ((status = check_row(program, "constant", name, rank, shape, MICAH_RANK, &value)) < 0) return status;
  return micah_add_value(program, &value);
}

/* ---- views ---- */

static mica_status check_value(mica_program *program, const char *what, mica_value value) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  if (micah_valid(program, value)) return MICA_OK;
  return micah_fail(program, MICA_ERR_INVALID, "%s: %d is no value of this program", what, value);
}

static mica_value add_view(mica_program *program, micah_value *view) {
  if (view->kind != MICA_VALUE_CONSTANT) view->kind = MICA_VALUE_VIEW;
  view->call = -1;
  return micah_add_value(program, view);
}

mica_value mica_program_reshape(mica_program *program, mica_value value, int32_t rank, const int64_t *shape) {
  mica_status status = check_value(program, "reshape", value);
  if (status < 0) return status;
  micah_value view = program->values[value];
  int64_t before = view.count;
  char text[160];
  micah_shape_text(program, &view, text, sizeof text);
  status = check_row(program, "reshape of", view.name, rank, shape, view.axis < 0 ? MICAH_RANK : MICAH_RANK - 1, &view);
  if (status < 0) return status;
  if (view.count != before)
    return micah_fail(program, MICA_ERR_SHAPE, "reshape of '%s' %s: the new row has %lld elements, expected %lld",
                      view.name, text, (long long)view.count, (long long)before);
  return add_view(program, &view);
}

mica_value mica_program_slice(mica_program *program, mica_value value, int64_t start, int64_t count) {
  mica_status status = check_value(program, "slice", value);
  if (status < 0) return status;
  micah_value view = program->values[value];
  char text[160];
  micah_shape_text(program, &view, text, sizeof text);
  if (view.rank < 1)
    return micah_fail(program, MICA_ERR_SHAPE, "slice of '%s' %s: its row is a scalar", view.name, text);
  if (start < 0 || count < 1 || start > view.shape[0] || count > view.shape[0] - start)
    return micah_fail(program, MICA_ERR_SHAPE, "slice of '%s' %s: [%lld, %lld) is outside its first row size %lld",
                      view.name, text, (long long)start, (long long)(start + count), (long long)view.shape[0]);
  int64_t each = view.count / view.shape[0];
  view.start += start * each;
  view.count = count * each;
  view.shape[0] = count;
  return add_view(program, &view);
}

mica_status mica_program_output(mica_program *program, const char *name, mica_value value) {
  mica_status status = check_value(program, "output", value);
  if (status < 0 || (status = check_name(program, "output", name)) < 0) return status;
  if (program->values[program->values[value].root].entry < 0)
    return micah_fail(program, MICA_ERR_INVALID, "output '%s' is '%s', which no operation of the program makes", name,
                      program->values[value].name);
  micah_output *outputs =
      micah_region_grow(&program->region, program->outputs, program->n_outputs, &program->c_outputs, sizeof *outputs);
  char *copy = outputs ? micah_region_text(&program->region, name) : NULL;
  if (!copy) return micah_fail_last(program, MICA_ERR_MEMORY);
  program->outputs = outputs;
  outputs[program->n_outputs++] = (micah_output){ copy, value };
  return MICA_OK;
}

/* entries that no output needs do not run: walk back from the outputs */
mica_status mica_program_seal(mica_program *program) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  if (!program->n_outputs) return micah_fail(program, MICA_ERR_INVALID, "it has no outputs; name them before seal");
  uint8_t *needed = micah_region_alloc(&program->region, program->n_values, 1);
  program->live = micah_region_alloc(&program->region, program->n_entries + 1, 1);
  if (!needed || !program->live) return micah_fail_last(program, MICA_ERR_MEMORY);
  for (int32_t i = 0; i < program->n_outputs; i++) needed[program->values[program->outputs[i].value].root] = 1;
  for (int32_t e = program->n_entries - 1; e >= 0; e--) {
    const micah_entry *entry = &program->entries[e];
    for (int32_t i = 0; i < entry->op->n_operands; i++)
      if ((entry->op->operands[i].role & MICA_OUT) && entry->binds[i].value >= 0 &&
          needed[program->values[entry->binds[i].value].root])
        program->live[e] = 1;
    for (int32_t i = 0; program->live[e] && i < entry->op->n_operands; i++)
      if (entry->binds[i].value >= 0) needed[program->values[entry->binds[i].value].root] = 1;
  }
  program->sealed = 1;
  return MICA_OK;
}
