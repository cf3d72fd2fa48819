/* call and map: a sealed subprogram's entries are appended again with its inputs and parameters replaced. map does the
 * same with another axis as the task axis: values inside it without axis have one row for each row of that axis. */
#include <stdio.h>
#include <string.h>

#include "common/names.h"
#include "program/call.h"
#include "program/inner.h"

char *micah_join(mica_program *program, const char *a, const char *b) {
  size_t n = strlen(a), m = strlen(b);
  char *text = micah_region_raw(&program->region, (int64_t)(n + m + 2));
  if (!text) {
    micah_fail_last(program, MICA_ERR_MEMORY);
    return NULL;
  }
  memcpy(text, a, n);
  text[n] = '.';
  memcpy(text + n + 1, b, m + 1);
  return text;
}

static const char *bindable(const void *list, int index) {
  const mica_program *sub = list;
  if (index < sub->n_inputs) return sub->values[sub->inputs[index]].name;
  index -= sub->n_inputs;
  return index < sub->n_params ? sub->values[sub->params[index]].name : NULL;
}

mica_value micah_find_bindable(mica_program *program, const char *name, const mica_program *sub, const char *port) {
  for (int32_t i = 0; i < sub->n_inputs; i++)
    if (!strcmp(sub->values[sub->inputs[i]].name, port)) return sub->inputs[i];
  for (int32_t i = 0; i < sub->n_params; i++)
    if (!strcmp(sub->values[sub->params[i]].name, port)) return sub->params[i];
  const char *near = micak_nearest(port, bindable, sub);
  return micah_fail(program, MICA_ERR_NOT_FOUND, "%s: %s has no input or parameter '%s'%s%s%s", name, sub->name, port,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static mica_status check_bind(micah_replay *r, mica_value inner, mica_value outer) {
  mica_program *program = r->program;
  const mica_program *sub = r->sub;
  if (!micah_valid(program, outer))
    return micah_fail(program, MICA_ERR_INVALID, "%s: '%s' is bound to %d, which is no value of this program", r->name,
                      sub->values[inner].name, outer);
  const micah_value *a = &sub->values[inner], *b = &program->values[outer];
  int rows = micah_sees_rows(program, r->level, b->axis), fits = a->rank == b->rank && rows == (a->axis >= 0);
  for (int32_t i = 0; fits && i < a->rank; i++) fits = a->shape[i] == b->shape[i];
  fits = fits && (a->dtype == b->dtype || (a->dtype >= MICA_I32 && b->dtype >= MICA_I32));
  if (fits && rows && r->axes[a->axis] < 0) r->axes[a->axis] = b->axis;
  if (fits && (!rows || r->axes[a->axis] == b->axis)) return MICA_OK;
  char expected[200], got[200];
  micah_shape_text(sub, a, expected, sizeof expected);
  micah_shape_text(program, b, got, sizeof got);
  return micah_fail(program, MICA_ERR_SHAPE, "%s: '%s' of %s expected %s %s, got %s %s from '%s'", r->name, a->name,
                    sub->name, mica_dtype_name(a->dtype), expected, mica_dtype_name(b->dtype), got, b->name);
}

mica_status micah_replay_start(micah_replay *r, int32_t n, const mica_bind *binds) {
  mica_program *program = r->program;
  const mica_program *sub = r->sub;
  if (!sub || !sub->sealed || sub == program)
    return micah_fail(program, MICA_ERR_STATE, "%s: the subprogram is not sealed", r->name);
  if (n < 0 || (n && !binds)) return micah_fail(program, MICA_ERR_INVALID, "%s: no binds", r->name);
  r->values = micah_region_alloc(&program->region, sub->n_values, sizeof *r->values);
  r->axes = micah_region_alloc(&program->region, sub->n_axes, sizeof *r->axes);
  if (!r->values || !r->axes) return micah_fail_last(program, MICA_ERR_MEMORY);
  for (int32_t i = 0; i < sub->n_values; i++) r->values[i] = -1;
  for (int32_t i = 0; i < sub->n_axes; i++) r->axes[i] = -1;
  for (int32_t i = 0; i < n; i++) {
    const char *port = binds[i].port ? binds[i].port : "";
    mica_value inner = micah_find_bindable(program, r->name, sub, port);
    if (inner < 0) return inner;
    if (r->values[inner] >= 0) return micah_fail(program, MICA_ERR_INVALID, "%s: '%s' is bound twice", r->name, port);
    mica_status status = check_bind(r, inner, binds[i].value);
    if (status < 0) return status;
    r->values[inner] = binds[i].value;
  }
  for (int32_t i = 0; i < sub->n_inputs; i++)
    if (r->values[sub->inputs[i]] < 0)
      return micah_fail(program, MICA_ERR_INVALID, "%s: input '%s' of %s is not bound", r->name,
                        sub->values[sub->inputs[i]].name, sub->name);
  for (int32_t i = 0; i < sub->n_axes; i++) {
    if (r->axes[i] >= 0) continue;
    int32_t parent = sub->axes[i].parent < 0 ? r->level : r->axes[sub->axes[i].parent];
    r->axes[i] = mica_program_axis(program, sub->axes[i].name, parent);
    if (r->axes[i] < 0) return r->axes[i];
  }
  for (int32_t i = 0; i < sub->n_params; i++) {
    const micah_value *v = &sub->values[sub->params[i]];
    if (r->values[sub->params[i]] >= 0) continue;
    const char *path = micah_join(program, r->name, v->name);
    if (!path) return MICA_ERR_MEMORY;
    mica_value made = mica_program_param(program, path, v->rank, v->shape, v->init, v->decay);
    if (made < 0) return made;
    r->values[sub->params[i]] = made;
  }
  return MICA_OK;
}

/* the value outside that stands for one inside; views and constants are made when first met */
mica_value micah_replay_value(micah_replay *r, mica_value inner) {
  const micah_value *v = &r->sub->values[inner];
  if (r->values[inner] >= 0) return r->values[inner];
  mica_value made;
  if (v->root != inner) {
    mica_value base = micah_replay_value(r, v->root);
    if (base < 0) return base;
    micah_value view = r->program->values[base];
    if (view.kind != MICA_VALUE_CONSTANT) view.kind = MICA_VALUE_VIEW;
    view.start += v->start;
    view.rank = v->rank;
    view.count = v->count;
    memcpy(view.shape, v->shape, sizeof view.shape);
    view.call = -1;
    made = micah_add_value(r->program, &view);
  } else if (v->kind == MICA_VALUE_CONSTANT) made = mica_program_constant(r->program, v->fill, v->rank, v->shape);
  else
    return micah_fail(r->program, MICA_ERR_INTERNAL, "%s: '%s' of %s was not made", r->name, v->name, r->sub->name);
  return r->values[inner] = made;
}

int32_t micah_replay_axis(const micah_replay *r, int32_t axis) { return axis < 0 ? r->level : r->axes[axis]; }

static mica_status replay_entry(micah_replay *r, const micah_entry *entry) {
  mica_program *program = r->program;
  const char *path = micah_join(program, r->name, entry->path);
  mica_bind *binds = micah_region_alloc(&program->region, entry->op->n_operands, sizeof *binds);
  if (!path || !binds) return micah_fail_last(program, MICA_ERR_MEMORY);
  int32_t n = 0;
  for (int i = 0; i < entry->op->n_operands; i++) {
    const mica_operand *operand = &entry->op->operands[i];
    if ((operand->role & (MICA_OUT | MICA_SAVED)) || entry->binds[i].value < 0) continue;
    binds[n].port = operand->name;
    binds[n].value = micah_replay_value(r, entry->binds[i].value);
    if (binds[n++].value < 0) return binds[n - 1].value;
  }
  int32_t level = program->level;
  program->level = micah_replay_axis(r, entry->level);
  mica_value made = entry->inner ? entry->inner->again(r, entry, path, n, binds)
                                : mica_program_op(program, path, entry->op->name, entry->settings, n, binds);
  program->level = level;
  if (made < 0) return made;
  const micah_entry *copy = &program->entries[program->n_entries - 1];
  for (int i = 0; i < entry->op->n_operands; i++)
    if ((entry->op->operands[i].role & MICA_OUT) && entry->binds[i].value >= 0)
      r->values[entry->binds[i].value] = copy->binds[i].value;
  return MICA_OK;
}

mica_value micah_add_call(mica_program *program, const char *path, int32_t n, const micah_output *outputs) {
  micah_call *calls =
      micah_region_grow(&program->region, program->calls, program->n_calls, &program->c_calls, sizeof *calls);
  if (!calls) return micah_fail_last(program, MICA_ERR_MEMORY);
  program->calls = calls;
  micah_call *call = &calls[program->n_calls];
  *call = (micah_call){ micah_region_text(&program->region, path),
                        micah_region_alloc(&program->region, n, sizeof *outputs), n };
  if (!call->path || !call->outputs) return micah_fail_last(program, MICA_ERR_MEMORY);
  memcpy(call->outputs, outputs, (size_t)n * sizeof *outputs);
  /* the value returned is a view of its own, by which the others are found */
  micah_value first = program->values[outputs[0].value];
  first.kind = first.kind == MICA_VALUE_CONSTANT ? MICA_VALUE_CONSTANT : MICA_VALUE_VIEW;
  first.call = program->n_calls++;
  return micah_add_value(program, &first);
}

static mica_value replay(mica_program *program, const char *name, const mica_program *sub, int32_t level, int32_t n,
                         const mica_bind *binds) {
  micah_replay r = { .program = program, .sub = sub, .name = name && *name ? name : "call", .level = level };
  mica_status status = micah_replay_start(&r, n, binds);
  for (int32_t e = 0; status >= 0 && e < sub->n_entries; e++)
    if (sub->live[e]) status = replay_entry(&r, &sub->entries[e]);
  if (status < 0) return status;
  micah_output *outputs = micah_region_alloc(&program->region, sub->n_outputs, sizeof *outputs);
  if (!outputs) return micah_fail_last(program, MICA_ERR_MEMORY);
  for (int32_t i = 0; i < sub->n_outputs; i++) {
    outputs[i] = (micah_output){ micah_region_text(&program->region, sub->outputs[i].name),
                                 micah_replay_value(&r, sub->outputs[i].value) };
    if (!outputs[i].name) return micah_fail_last(program, MICA_ERR_MEMORY);
    if (outputs[i].value < 0) return outputs[i].value;
  }
  return micah_add_call(program, r.name, sub->n_outputs, outputs);
}

mica_status micah_open(mica_program *program) {
  if (!program) return mica_error(MICA_ERR_INVALID, "no program");
  if (program->status < 0) return mica_error(program->status, "%s", program->message);
  if (program->sealed)
    return mica_error(MICA_ERR_STATE, "program %s is sealed and cannot be changed", program->name);
  return MICA_OK;
}

mica_value mica_program_call(mica_program *program, const char *name, const mica_program *sub, int32_t n,
                             const mica_bind *binds) {
  mica_status status = micah_open(program);
  return status < 0 ? status : replay(program, name, sub, program->level, n, binds);
}

mica_value mica_program_map(mica_program *program, const char *name, const mica_program *sub, int32_t axis, int32_t n,
                            const mica_bind *binds) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  if (axis < 0 || axis >= program->n_axes)
    return micah_fail(program, MICA_ERR_INVALID, "map %s: %d is no axis of this program", name ? name : "", axis);
  return replay(program, name, sub, axis, n, binds);
}
