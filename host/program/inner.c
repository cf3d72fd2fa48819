/* what entries that run programs of their own share */
#include "program/inner.h"

#include <stdio.h>
#include <string.h>

#include "common/op.h"
#include "program/memory.h"

void micah_inner_destroy(mica_executor *x) {
  for (int32_t e = 0; x->inner && e < x->program->n_entries; e++)
    if (x->inner[e]) x->program->entries[e].inner->destroy(x->inner[e]);
}

int64_t micah_inner_bytes(const mica_executor *x) {
  int64_t bytes = 0;
  for (int32_t e = 0; e < x->program->n_entries; e++)
    if (x->inner[e]) bytes += x->program->entries[e].inner->bytes(x->inner[e]);
  return bytes;
}

char *micah_port_shape(micah_region *region, const char *axis, int32_t rank, const int64_t *shape) {
  char text[160];
  int at = snprintf(text, sizeof text, "B%s%s", axis ? " " : "", axis ? axis : "");
  for (int32_t i = 0; i < rank; i++) at += snprintf(text + at, sizeof text - (size_t)at, " %lld", (long long)shape[i]);
  return micah_region_text(region, text);
}

mica_value micah_add_inner(mica_program *program, const char *path, const micah_inner *inner, void *own,
                           const mica_op *op, const int32_t *axes, int32_t n, const mica_bind *binds) {
  micah_entry entry = { .level = program->level, .op = op, .inner = inner, .own = own };
  entry.path = micah_region_text(&program->region, path);
  entry.settings = micah_region_text(&program->region, "");
  entry.args = micah_region_alloc(&program->region, (int64_t)op->args_size, 1);
  entry.dim_axis = micah_region_alloc(&program->region, op->n_dims, sizeof *entry.dim_axis);
  entry.binds = micah_region_alloc(&program->region, op->n_operands, sizeof *entry.binds);
  if (!entry.path || !entry.settings || !entry.args || !entry.dim_axis || !entry.binds)
    return micah_fail_last(program, MICA_ERR_MEMORY);
  mica_status status = mica_args_init(op, entry.args);
  if (status < 0) return micah_fail_last(program, status);
  entry.dim_axis[0] = MICA_NO_AXIS;
  for (int32_t d = 1; d < op->n_dims; d++) entry.dim_axis[d] = axes[d - 1];
  for (int i = 0; i < op->n_operands; i++) {
    entry.binds[i].value = -1;
    if (op->operands[i].role & (MICA_OUT | MICA_SAVED)) continue;
    for (int32_t k = 0; k < n; k++)
      if (!strcmp(binds[k].port, op->operands[i].name)) entry.binds[i].value = binds[k].value;
  }
  if ((status = micah_part_ports(program, &entry)) < 0 || (status = micah_unify(program, &entry)) < 0) return status;
  mica_value first = micah_make_outputs(program, &entry, program->n_entries);
  if (first < 0) return first;
  entry.row_dim = -1;
  int32_t at = micah_add_entry(program, &entry);
  return at < 0 ? at : first;
}

mica_value micah_inner_results(mica_program *program, const char *path) {
  const micah_entry *entry = &program->entries[program->n_entries - 1];
  micah_output *outputs = micah_region_alloc(&program->region, entry->op->n_operands, sizeof *outputs);
  if (!outputs) return micah_fail_last(program, MICA_ERR_MEMORY);
  int32_t n = 0;
  for (int i = 0; i < entry->op->n_operands; i++)
    if (entry->op->operands[i].role & MICA_OUT)
      outputs[n++] = (micah_output){ (char *)(uintptr_t)entry->op->operands[i].name, entry->binds[i].value };
  return micah_add_call(program, path, n, outputs);
}

/* ---- entries over a subprogram ---- */

#define DIM(i) { "T" #i, offsetof(micah_inner_args, dim) + (i + 1) * sizeof(int64_t) }
static const mica_dim dims[MICAH_INNER_DIMS] = {
  { "B", offsetof(micah_inner_args, dim) }, DIM(0), DIM(1), DIM(2), DIM(3), DIM(4), DIM(5), DIM(6), DIM(7),
};

const mica_dim *micah_inner_dims(const mica_program *sub) {
  if (sub->n_axes < MICAH_INNER_DIMS) return dims;
  mica_error(MICA_ERR_UNSUPPORTED, "program %s has %d axes, expected at most %d in a program that another runs",
             sub->name, sub->n_axes, MICAH_INNER_DIMS - 1);
  return NULL;
}

mica_status micah_inner_operand(micah_region *region, const mica_program *sub, mica_value value, const char *name,
                                uint32_t role, int64_t lead, int index, mica_operand *out) {
  const micah_value *v = &sub->values[value];
  int64_t shape[MICAH_RANK + 1];
  int32_t rank = 0;
  if (lead > 0) shape[rank++] = lead;
  for (int32_t i = 0; i < v->rank; i++) shape[rank++] = v->shape[i];
  if (rank + (v->axis >= 0) > MICAH_RANK)
    return mica_error(MICA_ERR_SHAPE, "'%s' of %s has rank %d, expected at most %d; reshape it", v->name, sub->name,
                      v->rank, MICAH_RANK - (rank - v->rank) - (v->axis >= 0));
  *out = (mica_operand){ .role = role };
  out->offset = offsetof(micah_inner_args, ports) + (size_t)index * sizeof(mica_port);
  out->name = micah_region_text(region, name);
  out->shape = micah_port_shape(region, v->axis < 0 ? NULL : dims[1 + v->axis].name, rank, shape);
  return out->name && out->shape ? MICA_OK : MICA_ERR_MEMORY;
}

mica_status micah_inner_executor(mica_executor *x, int32_t e, const mica_program *sub,
                                 const mica_executor_options *options, mica_executor **out) {
  const micah_entry *entry = &x->program->entries[e];
  int64_t rows[MICAH_INNER_DIMS], longest[MICAH_INNER_DIMS];
  mica_executor_options with = *options;
  with.backend = x->backend;
  with.device = x->device->index;
  with.stream = x->stream;
  with.dtype = x->dtype;
  with.tasks = micah_capacity(x, entry->level);
  with.rows = rows;
  with.longest = longest;
  for (int32_t a = 0; a < sub->n_axes; a++) {
    int32_t axis = entry->dim_axis[1 + a];
    rows[a] = micah_capacity(x, axis);
    longest[a] = sub->axes[a].parent < 0 ? micah_span_of(x, entry->level, axis)->length : x->capacity_longest[axis];
  }
  return micah_executor_create(x->context, sub, &with, out);
}

mica_status micah_inner_sizes(mica_executor *x, int32_t e, mica_executor *inner) {
  const micah_entry *entry = &x->program->entries[e];
  mica_status status = mica_executor_set_tasks(inner, micah_rows(x, entry->level));
  for (int32_t a = 0; status >= 0 && a < inner->program->n_axes; a++) {
    int32_t axis = entry->dim_axis[1 + a];
    if (inner->program->axes[a].parent < 0) {
      const micah_span *span = micah_span_of(x, entry->level, axis);
      status = mica_executor_set_axis(inner, a, span->offsets, span->length);
    } else status = mica_executor_set_axis(inner, a, x->axes[axis].offsets, x->axes[axis].length);
  }
  return status;
}

mica_status micah_inner_bind(mica_executor *inner, mica_value value, int bit, const mica_wire *wire, uint32_t flags) {
  mica_wire to = { .data = NULL };
  if (wire && wire->data)
    to = (mica_wire){ .data = wire->data, .slot = wire->slot, .task_stride = wire->task_stride,
                      .flags = wire->flags | flags };
  return mica_executor_set_value(inner, value, bit, &to);
}

mica_status micah_inner_dense(micah_replay *r) {
  mica_program *program = r->program;
  for (int32_t i = 0; i < r->sub->n_inputs; i++) {
    int32_t *value = &r->values[r->sub->inputs[i]];
    const micah_value *v = &program->values[*value];
    if (v->axis < 0 || v->count == program->values[v->root].count) continue;
    if (v->dtype >= MICA_I32)
      return micah_fail(program, MICA_ERR_UNSUPPORTED, "%s: '%s' is a slice of rows of integers; bind rows of its own",
                        r->name, v->name);
    char path[300];
    snprintf(path, sizeof path, "%s.%s.copy", r->name, r->sub->values[r->sub->inputs[i]].name);
    *value = micah_copy_value(program, path, *value);
    if (*value < 0) return *value;
  }
  return MICA_OK;
}

mica_status micah_inner_clear(mica_executor *x, int32_t e, int operand, int64_t count, int32_t axis, int64_t first,
                              int64_t parts) {
  const mica_port *port = micah_inner_port(x->args[e], operand);
  const mica_wire *w = &port->d;
  if (!w->data || (w->flags & MICA_ADD) || parts < 1) return MICA_OK;
  const int32_t *offsets = axis < 0 ? NULL : port->offsets;
  int64_t size = (int64_t)mica_dtype_size(w->dtype), tasks = micah_rows(x, x->program->entries[e].level);
  int64_t rows = axis < 0 ? parts : ((const micah_inner_args *)x->args[e])->dim[1 + axis];
  micah_mover mover = { .x = x, .bytes = (size_t)(count * size) };
  for (int64_t b = 0; b < tasks; b++) {
    char *at = micak_same_slot(w, offsets, b) ? NULL : micak_task(w, offsets, b);
    for (int64_t r = 0; at && r < micak_rows(offsets, b, rows); r++)
      micah_move(&mover, at + (first + r) * count * size, NULL);
  }
  return micah_move_end(&mover);
}
