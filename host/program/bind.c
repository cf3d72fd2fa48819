/* argument structs from bindings and offsets */
#include <stdio.h>
#include <string.h>

#include "program/executor.h"
#include "program/inner.h"
#include "program/memory.h"

/* stands for memory that is not there while splits are probed */
static _Alignas(64) char nothing[64];

/* a root's wire: where it begins, and how its owner lays out tasks */
typedef struct place {
  char          *data;
  const int32_t *slot;
  int64_t        task_stride;  /* -1: dense */
  uint32_t       flags;
  int            shared;
} place;

static int is_whole_output(const mica_executor *x, int32_t value, int32_t root) {
  const micah_value *v = &x->program->values[value];
  return v->root == root && v->count == x->program->values[root].count;
}

static place outside(const mica_executor *x, const mica_wire *wire) {
  (void)x;
  return (place){ wire->data, wire->slot, wire->task_stride, wire->flags, !wire->slot && wire->task_stride == 0 };
}

static place place_of(const mica_executor *x, int32_t root, int bit) {
  const mica_program *p = x->program;
  const micah_value *v = &p->values[root];
  const micah_store *store = micah_store_of(x, root, bit);
  place none = { NULL, NULL, -1, 0, 0 };
  if (x->probing) {
    int there = bit == MICA_V || (x->active[root] && (bit & (x->probing)));
    if (x->probing & MICAH_PROBE_PLANNED) there = store->where != MICAH_NOWHERE;
    int shared = v->kind == MICA_VALUE_PARAM || v->kind == MICA_VALUE_CONSTANT;
    const int32_t *slot = NULL;
    if (v->kind == MICA_VALUE_PARAM && (x->probing & MICAH_PROBE_SLOTS)) slot = (void *)nothing, shared = 0;
    return there ? (place) { nothing, slot, -1, 0, shared } : none;
  }
  if (store->where == MICAH_NOWHERE) return none;
  if (store->where == MICAH_FIXED) return (place){ x->fixed + store->offset, NULL, 0, 0, 1 };
  if (v->entry >= 0 && (store->direct || !(bit & (MICA_D | MICA_TD))))
    for (int32_t i = 0; i < p->n_outputs; i++) {  /* the caller's memory for an output */
      int32_t value = p->outputs[i].value;
      if (micah_bound(x, value, bit)->set && is_whole_output(x, value, root))
        return outside(x, &micah_bound(x, value, bit)->wire);
    }
  if (store->where == MICAH_SCRATCH) return (place){ x->arena + store->offset, NULL, -1, 0, 0 };
  if (store->where == MICAH_SAVED_BLOCK) return (place){ x->saved ? x->saved + store->offset : NULL, NULL, -1, 0, 0 };
  const micah_binding *bound = micah_bound(x, root, bit);
  if (bound->set) return outside(x, &bound->wire);
  const mica_wire *all = &x->params[micah_wire_index(bit)];
  if (v->kind != MICA_VALUE_PARAM || !all->data) return none;
  place at = outside(x, all);
  at.data += v->offset * (int64_t)mica_dtype_size(micah_wire_dtype(x, root, bit));
  return at;
}

/* one wire of a port as the tasks of `level` see it */
static mica_status fill_wire(mica_executor *x, const micah_entry *entry, const micah_bind *bind, int bit,
                             mica_port *port) {
  const mica_program *p = x->program;
  const micah_value *v = &p->values[bind->value], *root = &p->values[v->root];
  mica_wire *wire = micak_wire(port, bit);
  place at = place_of(x, v->root, bit);
  if (!at.data) {
    if (bit == MICA_V && !x->probing && (root->kind == MICA_VALUE_PARAM || root->kind == MICA_VALUE_INPUT))
      return mica_error(MICA_ERR_STATE, "program %s: %s '%s' has no memory; bind it before run", p->name,
                        root->kind == MICA_VALUE_PARAM ? "parameter" : "input", root->name);
    return MICA_OK;
  }
  int32_t level = entry->level, above = micah_common(p, level, v->axis);
  int rows = v->axis != above;
  const micah_span *span = rows ? micah_span_of(x, above, v->axis) : NULL;
  wire->dtype = micah_wire_dtype(x, bind->value, bit);
  wire->data = x->probing ? at.data : at.data + v->start * (int64_t)mica_dtype_size(wire->dtype);
  wire->flags = at.flags;
  int64_t inner = 1;
  for (int d = bind->rank - 1; d >= 0; d--) {
    if (bind->dim[d] == MICAH_DIM_AXIS) wire->stride[d] = root->count;
    else {
      wire->stride[d] = inner;
      if (bind->dim[d] >= 0) inner *= v->shape[bind->dim[d]];
    }
  }
  int64_t dense = (rows ? span->length : 1) * root->count;
  if (rows) port->offsets = span->offsets;
  wire->task_stride = at.task_stride < 0 ? dense : at.task_stride;
  wire->slot = at.slot;
  if (at.shared) wire->task_stride = 0;
  if (level == MICA_NO_AXIS) return MICA_OK;
  int plain = !at.slot && (at.task_stride < 0 || at.task_stride == dense);
  if (v->axis != MICA_NO_AXIS && !plain && !at.shared && !(rows && span->offsets && !at.slot))
    return mica_error(MICA_ERR_UNSUPPORTED, "%s: '%s' enters a map over %s and must be bound dense", entry->path,
                      v->name, p->axes[level].name);
  if (above == level) {  /* rows of the level's own tasks */
    if (at.shared && !x->probing)
      return mica_error(MICA_ERR_UNSUPPORTED, "%s: '%s' enters a map over %s and must be bound dense", entry->path,
                        v->name, p->axes[level].name);
    wire->task_stride = dense;
    return MICA_OK;
  }
  if (at.shared) return MICA_OK;  /* all items see the same */
  if (rows && span->offsets)
    return mica_error(MICA_ERR_UNSUPPORTED,
                      "%s: '%s' enters a map over %s with ragged rows of %s; give that axis a fixed "
                      "length, or bring it under %s",
                      entry->path, v->name, p->axes[level].name, p->axes[v->axis].name, p->axes[level].name);
  return micah_slots_of(x, level, above, at.slot, &wire->slot);
}

int micah_seeds_bound(const mica_executor *x, int32_t root, int bit) {
  const mica_program *p = x->program;
  for (int32_t i = 0; i < p->n_outputs; i++)
    if (p->values[p->outputs[i].value].root == root && micah_bound(x, p->outputs[i].value, bit)->set) return 1;
  return 0;
}

mica_status micah_fill(mica_executor *x, int32_t e, int i) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_bind *bind = &entry->binds[i];
  mica_port *port = micak_port(&entry->op->operands[i], x->args[e]);
  memset(port, 0, sizeof *port);
  if (bind->value < 0) return MICA_OK;
  int32_t root = x->program->values[bind->value].root;
  uint8_t adds = x->adds ? x->adds[x->operand_base[e] + i] : 0;
  for (int bit = MICA_V; bit <= MICA_TD; bit <<= 1) {
    mica_status status = fill_wire(x, entry, bind, bit, port);
    if (status < 0) return status;
    mica_wire *wire = micak_wire(port, bit);
    if ((adds & bit) || (!x->probing && (bit & (MICA_D | MICA_TD)) && micah_store_of(x, root, bit)->seeded &&
                         micah_seeds_bound(x, root, bit)))
      wire->flags |= MICA_ADD;
  }
  /* kernels read slots and offsets as device data; entries that run programs hand them on as they are */
  mica_status status = MICA_OK;
  if (!x->upload || x->probing) return status;
  if (entry->inner && !(entry->inner->on_device && x->inner[e] && entry->inner->on_device(x->inner[e]))) return status;
  int64_t tasks = micah_rows(x, entry->level);
  for (int bit = MICA_V; bit <= MICA_TD; bit <<= 1) {
    mica_wire *wire = micak_wire(port, bit);
    wire->slot = micah_upload_list(x, wire->slot, tasks, &status);
  }
  port->offsets = micah_upload_list(x, port->offsets, tasks + 1, &status);
  return status;
}

mica_status micah_bind_all(mica_executor *x) {
  const mica_program *p = x->program;
  x->bind_number++;
  micah_upload_begin(x);
  mica_status status = micah_sizes_update(x);
  if (status < 0) return status;
  for (int32_t e = 0; e < p->n_entries; e++) {
    const micah_entry *entry = &p->entries[e];
    if (!p->live[e]) continue;
    void *args = x->args[e];
    memcpy(args, entry->args, entry->op->args_size);
    *micak_dim(&entry->op->dims[0], args) = micah_rows(x, entry->level);
    for (int d = 1; d < entry->op->n_dims; d++)
      if (entry->dim_axis[d] >= 0) {
        int32_t above = micah_common(p, entry->level, entry->dim_axis[d]);
        const micah_span *span = micah_span_of(x, above, entry->dim_axis[d]);
        *micak_dim(&entry->op->dims[d], args) = entry->inner ? span->length : span->bound;
      }
    for (int i = 0; i < entry->op->n_operands; i++)
      if ((status = micah_fill(x, e, i)) < 0) return status;
    if (entry->op->infer && !x->probing && (status = entry->op->infer(args)) < 0) {
      char cause[512];
      snprintf(cause, sizeof cause, "%s", mica_last_error());
      return mica_error(status, "program %s: %s: %s", p->name, entry->path, cause);
    }
  }
  for (int32_t s = 0; s < x->n_steps; s++) {
    micah_step *step = &x->steps[s];
    step->on = micah_rows(x, p->entries[step->entry].level) > 0;
    if (!step->on) continue;
    micah_step_split(step, x->args[step->entry]);
    if (micah_step_scratch(step) > x->kernel_scratch && !x->probing)
      return mica_error(MICA_ERR_INTERNAL, "program %s: %s %s asks for %zu bytes of scratch, %zu were planned", p->name,
                        p->entries[step->entry].path, mica_face_name(step->face), micah_step_scratch(step),
                        x->kernel_scratch);
  }
  return MICA_OK;
}

/* ---- what the caller sees ---- */

mica_status micah_value_wire(mica_executor *x, int32_t value, int bit, mica_wire *out) {
  const mica_program *p = x->program;
  const micah_value *v = &p->values[value], *root = &p->values[v->root];
  memset(out, 0, sizeof *out);
  place at = place_of(x, v->root, bit);
  if (!at.data) return MICA_OK;
  int rows = v->axis != MICA_NO_AXIS;
  out->dtype = micah_wire_dtype(x, value, bit);
  out->data = at.data + v->start * (int64_t)mica_dtype_size(out->dtype);
  out->slot = at.slot;
  out->flags = at.flags;
  int64_t inner = 1;
  for (int d = v->rank - 1; d >= 0; d--) {
    out->stride[d + rows] = inner;
    inner *= v->shape[d];
  }
  if (rows) out->stride[0] = root->count;
  int64_t dense = rows ? micah_span_of(x, MICA_NO_AXIS, v->axis)->length * root->count : root->count;
  out->task_stride = at.shared ? 0 : at.task_stride < 0 ? dense : at.task_stride;
  return MICA_OK;
}

/* run over the rows of a wire: clear them, or copy the rows of another there */
static mica_status each_row(mica_executor *x, const micah_value *v, const mica_wire *to, int64_t to_row, int64_t count,
                            const mica_wire *from, int64_t from_row) {
  const micah_span *span = v->axis == MICA_NO_AXIS ? NULL : micah_span_of(x, MICA_NO_AXIS, v->axis);
  int64_t size = (int64_t)mica_dtype_size(to->dtype);
  micah_mover mover = { .x = x, .bytes = (size_t)(count * size) };
  for (int64_t b = 0; b < x->tasks; b++) {
    int64_t rows = !span ? 1 : span->offsets ? span->offsets[b + 1] - span->offsets[b] : span->length;
    int64_t s = to->slot ? to->slot[b] : b, f = !from ? 0 : from->slot ? from->slot[b] : b;
    if (s < 0) continue;
    if (!to->slot && to->task_stride == 0 && !(span && span->offsets) && b > 0) break;
    int64_t at = span && span->offsets ? span->offsets[s] * to_row : s * to->task_stride;
    int64_t src = !from || f < 0 ? 0 : span && span->offsets ? span->offsets[f] * from_row : f * from->task_stride;
    for (int64_t r = 0; r < rows; r++)
      micah_move(&mover, (char *)to->data + (at + r * to_row) * size,
                 from && f >= 0 ? (const char *)from->data + (src + r * from_row) * size : NULL);
  }
  return micah_move_end(&mover);
}

mica_status micah_clear(mica_executor *x, int32_t index) {
  const mica_program *p = x->program;
  int32_t root = index / MICAH_WIRES;
  static const int bits[MICAH_WIRES] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  int bit = bits[index % MICAH_WIRES];
  const micah_store *store = &x->stores[index];
  const micah_value *v = &p->values[root];
  int seeds = store->seeded && micah_seeds_bound(x, root, bit);
  mica_wire wire;
  mica_status status = micah_value_wire(x, root, bit, &wire);
  if (status < 0) return status;
  if (!wire.data || (!store->zero && !seeds) || (wire.flags & MICA_ADD)) return MICA_OK;
  if (store->where == MICAH_OUTSIDE) return each_row(x, v, &wire, v->count, v->count, NULL, 0);
  status = x->device->ops->fill(x->device, x->stream, wire.data, 0,
                                (size_t)(micah_rows(x, v->axis) * v->count) * mica_dtype_size(wire.dtype));
  for (int32_t i = 0; status >= 0 && seeds && i < p->n_outputs; i++) {
    const micah_value *o = &p->values[p->outputs[i].value];
    const micah_binding *seed = micah_bound(x, p->outputs[i].value, bit);
    if (o->root != root || !seed->set) continue;
    mica_wire from = seed->wire, to = wire;
    const micah_span *span = o->axis == MICA_NO_AXIS ? NULL : micah_span_of(x, MICA_NO_AXIS, o->axis);
    if (from.task_stride < 0) from.task_stride = (span ? span->length : 1) * o->count;
    to.data = (char *)wire.data + o->start * (int64_t)mica_dtype_size(wire.dtype);
    status = each_row(x, o, &to, v->count, o->count, &from, o->count);
  }
  return status;
}
