/* appending operations */
#include <stdio.h>
#include <string.h>

#include "common/names.h"
#include "common/op.h"
#include "program/call.h"

static const char *input_name(const void *list, int index) {
  const mica_op *op = list;
  for (int i = 0; i < op->n_operands; i++)
    if (!(op->operands[i].role & (MICA_OUT | MICA_SAVED)) && index-- == 0) return op->operands[i].name;
  return NULL;
}

static mica_status again(mica_program *program, const char *path, mica_status status) {
  char cause[700];
  snprintf(cause, sizeof cause, "%s", mica_last_error());
  return micah_fail(program, status, "%s: %s", path, cause);
}

static mica_status bind_one(mica_program *program, micah_entry *entry, const mica_bind *bind) {
  const mica_op *op = entry->op;
  const char *name = bind->port ? bind->port : "";
  const mica_operand *operand = micak_operand(op, name, strlen(name));
  if (!operand || (operand->role & (MICA_OUT | MICA_SAVED))) {
    const char *near = micak_nearest(name, input_name, op);
    return micah_fail(program, MICA_ERR_NOT_FOUND, "%s: %s has no input port '%s'%s%s%s", entry->path, op->name, name,
                      near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
  }
  if (bind->value == -1 && (operand->role & MICA_OPTIONAL)) return MICA_OK;
  if (!micah_valid(program, bind->value))
    return micah_fail(program, MICA_ERR_INVALID, "%s: port %s is bound to %d, which is no value of this program",
                      entry->path, name, bind->value);
  micah_bind *slot = &entry->binds[operand - op->operands];
  if (slot->value >= 0) return micah_fail(program, MICA_ERR_INVALID, "%s: port %s is bound twice", entry->path, name);
  const micah_value *value = &program->values[bind->value];
  int integer = value->dtype >= MICA_I32, index = !!(operand->role & MICA_INDEX);
  if (integer != index)
    return micah_fail(program, MICA_ERR_INVALID, "%s: %s port %s expected %s, got %s from '%s'", entry->path, op->name,
                      name, index ? "integers (i32, i64 or u8)" : "real numbers (f32)", mica_dtype_name(value->dtype),
                      value->name);
  slot->value = bind->value;
  return MICA_OK;
}

mica_value micah_copy_value(mica_program *program, const char *path, mica_value value) {
  micah_value kept = program->values[value];
  /* the copy runs over one long row, whatever the shape */
  mica_value flat = kept.rank <= 1 ? value : mica_program_reshape(program, value, 1, &kept.count);
  mica_bind bind = { "x", flat };
  mica_value copy = flat < 0 ? flat : mica_program_op(program, path, "scale", NULL, 1, &bind);
  if (copy >= 0 && kept.rank != program->values[copy].rank)
    copy = mica_program_reshape(program, copy, kept.rank, kept.shape);
  return copy;
}

/* two differentiable ports on the same memory would write one cotangent from one kernel: the second reads a copy. */
mica_status micah_part_ports(mica_program *program, micah_entry *entry) {
  const mica_op *op = entry->op;
  for (int i = 0; i < op->n_operands; i++) {
    if (entry->binds[i].value < 0 || (op->operands[i].role & MICA_INDEX)) continue;
    for (int j = 0; j < i; j++) {
      if (entry->binds[j].value < 0 || (op->operands[j].role & MICA_INDEX)) continue;
      const micah_value *a = &program->values[entry->binds[i].value], *b = &program->values[entry->binds[j].value];
      if (a->root != b->root || a->start + a->count <= b->start || b->start + b->count <= a->start) continue;
      if (program->values[a->root].kind == MICA_VALUE_CONSTANT) continue;
      char path[300];
      snprintf(path, sizeof path, "%s.%s.copy", entry->path, op->operands[i].name);
      mica_value copy = micah_copy_value(program, path, entry->binds[i].value);
      if (copy < 0) return copy;
      entry->binds[i].value = copy;
      break;
    }
  }
  return MICA_OK;
}

mica_value mica_program_op(mica_program *program, const char *name, const char *op_name, const char *settings,
                           int32_t n, const mica_bind *binds) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  if (n < 0 || (n && !binds)) return micah_fail(program, MICA_ERR_INVALID, "%s: no binds", name ? name : "?");
  const mica_op *op;
  micah_entry entry = { .level = program->level };
  entry.path = micah_region_text(&program->region, name && *name ? name : op_name ? op_name : "?");
  entry.settings = micah_region_text(&program->region, settings ? settings : "");
  if (!entry.path || !entry.settings) return micah_fail_last(program, MICA_ERR_MEMORY);
  if ((status = mica_find_op(program->context, op_name ? op_name : "", &op)) < 0)
    return again(program, entry.path, status);
  entry.op = op;
  entry.args = micah_region_alloc(&program->region, (int64_t)op->args_size, 1);
  entry.dim_axis = micah_region_alloc(&program->region, op->n_dims, sizeof *entry.dim_axis);
  entry.binds = micah_region_alloc(&program->region, op->n_operands, sizeof *entry.binds);
  if (!entry.args || !entry.dim_axis || !entry.binds) return micah_fail_last(program, MICA_ERR_MEMORY);
  for (int i = 0; i < op->n_dims; i++) entry.dim_axis[i] = MICA_NO_AXIS;
  for (int i = 0; i < op->n_operands; i++) entry.binds[i].value = -1;
  status = mica_args_init(op, entry.args);
  if (status >= 0) status = mica_args_set(op, entry.args, settings);
  if (status < 0) return again(program, entry.path, status);
  for (int32_t i = 0; i < n; i++)
    if ((status = bind_one(program, &entry, &binds[i])) < 0) return status;
  for (int i = 0; i < op->n_operands; i++) {
    const mica_operand *operand = &op->operands[i];
    if (entry.binds[i].value < 0 && !(operand->role & (MICA_OUT | MICA_SAVED | MICA_OPTIONAL)))
      return micah_fail(program, MICA_ERR_INVALID, "%s: %s port %s (%s) is not bound", entry.path, op->name,
                        operand->name, operand->doc ? operand->doc : operand->shape);
  }
  if ((status = micah_part_ports(program, &entry)) < 0) return status;
  if ((status = micah_unify(program, &entry)) < 0) return status;
  mica_value first = micah_make_outputs(program, &entry, program->n_entries);
  if (first < 0) return first;
  int32_t at = micah_add_entry(program, &entry);
  return at < 0 ? at : first;
}

mica_value mica_program_port(mica_program *program, mica_value value, const char *port) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  if (!port || !micah_valid(program, value))
    return micah_fail(program, MICA_ERR_INVALID, "port '%s' of %d, which is no value of this program", port ? port : "",
                      value);
  const micah_value *v = &program->values[value];
  if (v->call >= 0) {
    const micah_call *call = &program->calls[v->call];
    for (int32_t i = 0; i < call->n_outputs; i++)
      if (!strcmp(call->outputs[i].name, port)) return call->outputs[i].value;
    return micah_fail(program, MICA_ERR_NOT_FOUND, "%s has no output '%s'; its first is '%s'", call->path, port,
                      call->outputs[0].name);
  }
  const micah_entry *entry = v->entry >= 0 ? &program->entries[v->entry] : NULL;
  for (int i = 0; entry && i < entry->op->n_operands; i++)
    if ((entry->op->operands[i].role & MICA_OUT) && !strcmp(entry->op->operands[i].name, port))
      return entry->binds[i].value;
  return micah_fail(program, MICA_ERR_NOT_FOUND, "'%s' was made by %s, which has no output port '%s'", v->name,
                    entry ? entry->op->name : "no operation", port);
}
