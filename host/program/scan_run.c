/* running scan entries: one step after another, each a run of the body over the tasks that still have a row.
 *
 * forward keeps every stride-th carry. backward goes from the last stretch between two checkpoints to the first: it
 * steps forward through the stretch again to have its carries, then runs each step forward and back, so a loop of T
 * steps holds about 2 sqrt(T) carries and the activations of one step. */
#include <math.h>
#include <string.h>

#include "program/memory.h"
#include "program/scan.h"

typedef struct micah_scan_state {
  mica_executor *inner;
  int64_t        capacity, stride;  /* tasks, steps between checkpoints */
  char         **ring;              /* [carry][v, t][2]: carry of an even and an odd step */
  char         **stretch;           /* [carry][v, t]: carries of the steps of one stretch */
  char         **back;              /* [carry][d, td][2] */
  int32_t       *active;            /* [tasks] that have this row */
  int32_t       *slots;             /* [operand][wire][tasks] */
  int64_t        bytes;
} state;

/* one face at work */
typedef struct loop {
  mica_executor         *x;
  const micah_scan      *scan;
  const micah_scan_args *args;
  state                 *s;
  const int32_t         *offsets;
  int64_t                T, n;      /* steps; tasks of this step */
  int                    face, all; /* all: every task has this row */
} loop;

int64_t micah_scan_stride(int64_t longest) {
  int64_t root = (int64_t)ceil(sqrt((double)longest));
  return root < 1 ? 1 : root;
}
int64_t micah_scan_checkpoints(int64_t longest) {
  int64_t stride = micah_scan_stride(longest), n = (longest + stride - 1) / stride;
  return n < 1 ? 1 : n;  /* the first carry is the caller's and takes no place */
}

mica_status micah_scan_create(mica_executor *x, int32_t e) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_scan *scan = entry->own;
  micah_region *region = &x->region;
  state *s = x->inner[e] = micah_region_alloc(region, 1, sizeof *s);
  mica_value *wants = micah_region_alloc(region, scan->op.n_operands, sizeof *wants);
  if (!s || !wants) return MICA_ERR_MEMORY;
  int64_t size = (int64_t)mica_dtype_size(x->dtype), before = region->bytes + x->data_bytes;
  int32_t n_wants = 0;
  s->capacity = micah_capacity(x, entry->level);
  s->stride = micah_scan_stride(x->capacity_longest[entry->dim_axis[1]]);
  for (int i = 0; i < scan->op.n_operands; i++) {
    const micah_scan_operand *o = &scan->operands[i];
    if (!(scan->op.operands[i].role & MICA_IN)) continue;
    if (o->kind == MICAH_CARRY || x->active[x->program->values[entry->binds[i].value].root])
      wants[n_wants++] = o->value;
  }
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.backend = x->backend;
  options.dtype = x->dtype;
  options.device = x->device->index;
  options.stream = x->stream;
  options.passes = x->passes;
  options.tasks = s->capacity;
  options.wants = wants;
  options.n_wants = n_wants;
  mica_status status = mica_executor_create(x->context, scan->body, &options, &s->inner);
  if (status < 0) return status;
  s->ring = micah_region_alloc(region, 4 * (int64_t)scan->n_carry, sizeof *s->ring);
  s->stretch = micah_region_alloc(region, 2 * (int64_t)scan->n_carry, sizeof *s->stretch);
  s->back = micah_region_alloc(region, 4 * (int64_t)scan->n_carry, sizeof *s->back);
  s->active = micah_region_alloc(region, s->capacity, sizeof *s->active);
  s->slots = micah_region_alloc(region, (int64_t)scan->op.n_operands * MICAH_WIRES * s->capacity, sizeof *s->slots);
  if (!s->ring || !s->stretch || !s->back || !s->active || !s->slots) return MICA_ERR_MEMORY;
  for (int32_t k = 0; k < scan->n_carry; k++) {
    int64_t bytes = s->capacity * scan->count[k] * size;
    for (int i = 0; i < 4; i++) {
      int tangent = i >= 2;
      if ((!tangent || (x->passes & MICA_PASS_JVP)) && !(s->ring[4 * k + i] = micah_data_alloc(x, bytes)))
        return MICA_ERR_MEMORY;
      if ((x->passes & (tangent ? MICA_PASS_BACKWARD_JVP : MICA_PASS_BACKWARD)) &&
          !(s->back[4 * k + i] = micah_data_alloc(x, bytes)))
        return MICA_ERR_MEMORY;
    }
    for (int t = 0; t < 2; t++)
      if ((x->passes & (t ? MICA_PASS_BACKWARD_JVP : MICA_PASS_BACKWARD)) &&
          !(s->stretch[2 * k + t] = micah_data_alloc(x, bytes * s->stride)))
        return MICA_ERR_MEMORY;
  }
  mica_memory memory;
  mica_executor_memory(s->inner, &memory);
  s->bytes = region->bytes + x->data_bytes - before + memory.scratch;
  return MICA_OK;
}

void micah_scan_destroy(void *of) { mica_executor_destroy(((state *)of)->inner); }

int64_t micah_scan_bytes(const void *of) { return ((const state *)of)->bytes; }

/* ---- places ---- */

static int64_t steps_of(const loop *l, int64_t b) { return l->offsets ? l->offsets[b + 1] - l->offsets[b] : l->T; }

/* the tasks that have row t */
static mica_status choose(loop *l, int64_t t) {
  l->n = 0;
  for (int64_t b = 0; b < l->args->B; b++)
    if (t < steps_of(l, b)) l->s->active[l->n++] = (int32_t)b;
  l->all = l->n == l->args->B;
  return mica_executor_set_tasks(l->s->inner, l->n);
}

static mica_status bind(loop *l, int32_t value, int bit, const mica_wire *wire) {
  return mica_executor_set_value(l->s->inner, value, bit, wire);
}

/* a buffer of one row a task */
static mica_wire buffer(const loop *l, char *data) {
  return (mica_wire){ .data = data, .slot = l->all ? NULL : l->s->active, .task_stride = -1 };
}

/* an outer wire of one row a task, as the tasks of this step see it; `row` >= 0: that row of each */
static mica_wire outer(const loop *l, int operand, int bit, int64_t row) {
  mica_port *port = (mica_port *)(uintptr_t)&l->args->ports[operand];
  const mica_wire *w = micak_wire(port, bit);
  mica_wire out = { .data = w->data, .slot = w->slot, .task_stride = w->task_stride, .flags = w->flags };
  if (!w->data) return out;
  int32_t *slot = l->s->slots + ((int64_t)operand * MICAH_WIRES + micah_wire_index(bit)) * l->s->capacity;
  int packed = row >= 0 && port->offsets;
  if (row >= 0 && !packed) out.data = (char *)w->data + row * w->stride[0] * (int64_t)mica_dtype_size(w->dtype);
  if (!packed && (l->all || (!w->slot && w->task_stride == 0))) return out;
  for (int64_t i = 0; i < l->n; i++) {
    int32_t b = l->s->active[i], s = w->slot ? w->slot[b] : b;
    slot[i] = s < 0 || !packed ? s : (int32_t)(port->offsets[s] + row);
  }
  out.slot = slot;
  if (packed) out.task_stride = w->stride[0];
  return out;
}

/* one task's row of an outer wire; NULL: none */
static char *outer_row(const loop *l, int operand, int bit, int64_t b) {
  mica_port *port = (mica_port *)(uintptr_t)&l->args->ports[operand];
  return micak_task(micak_wire(port, bit), NULL, b);
}

/* where the carry into step t lies, and the same for its tangent; inside a stretch: its place there, if it was stepped
 * through again */
static mica_wire carry_in(const loop *l, int32_t k, int in, int mark, int bit, int64_t t, int64_t stretch) {
  const state *s = l->s;
  int tangent = bit == MICA_T;
  if (t == 0) return outer(l, in, bit, -1);
  int64_t bytes = s->capacity * l->scan->count[k] * (int64_t)mica_dtype_size(l->x->dtype);
  char *kept = micak_wire((mica_port *)(uintptr_t)&l->args->ports[mark], bit)->data;
  if (t % s->stride == 0 && kept) return buffer(l, kept + (t / s->stride - 1) * bytes);
  if (stretch >= 0) return buffer(l, s->stretch[2 * k + tangent] + (t - stretch) * bytes);
  return buffer(l, s->ring[4 * k + 2 * tangent + t % 2]);
}

/* operands by what they are */
static int find(const micah_scan *scan, int kind, int32_t carry) {
  for (int i = 0; i < scan->op.n_operands; i++)
    if (scan->operands[i].kind == kind && scan->operands[i].carry == carry) return i;
  return -1;
}

/* ---- steps ---- */

/* bind what step t reads: inputs, parameters, carries; their tangents too */
static mica_status bind_inputs(loop *l, int64_t t, int64_t stretch, int tangents) {
  mica_status status = choose(l, t);
  for (int i = 0; status >= 0 && i < l->scan->op.n_operands; i++) {
    const micah_scan_operand *o = &l->scan->operands[i];
    if (o->kind > MICAH_CARRY) continue;
    for (int tangent = 0; status >= 0 && tangent <= tangents; tangent++) {
      int bit = tangent ? MICA_T : MICA_V;
      mica_wire wire = o->kind == MICAH_CARRY
                           ? carry_in(l, o->carry, i, find(l->scan, MICAH_CHECKPOINT, o->carry), bit, t, stretch)
                           : outer(l, i, bit, o->kind == MICAH_STEP ? t : -1);
      status = bind(l, o->value, bit, &wire);
    }
  }
  return status;
}

/* run step t down; rows: the row outputs are wanted. the carry out goes where step t + 1 reads it. */
static mica_status step_down(loop *l, int64_t t, int64_t stretch, int rows, int32_t passes) {
  int tangents = !!(passes & MICA_PASS_JVP);
  mica_status status = bind_inputs(l, t, stretch, tangents);
  for (int i = 0; status >= 0 && i < l->scan->op.n_operands; i++) {
    const micah_scan_operand *o = &l->scan->operands[i];
    if (o->kind != MICAH_ROW && o->kind != MICAH_CHECKPOINT) continue;
    for (int tangent = 0; status >= 0 && tangent <= tangents; tangent++) {
      int bit = tangent ? MICA_T : MICA_V;
      mica_wire wire = { .data = NULL };
      if (o->kind == MICAH_CHECKPOINT) wire = carry_in(l, o->carry, -1, i, bit, t + 1, stretch);
      else if (rows && bit == (l->face == MICA_JVP ? MICA_T : MICA_V)) wire = outer(l, i, bit, t);
      status = bind(l, o->value, bit, &wire);
    }
  }
  if (status >= 0) status = mica_executor_run(l->s->inner, passes, NULL);
  return status;
}

/* copy a carry's row of each task whose last step was t to where `last` is wanted */
static mica_status keep_last(loop *l, int64_t t, int bit) {
  int64_t size = (int64_t)mica_dtype_size(l->x->dtype);
  for (int32_t k = 0; k < l->scan->n_carry; k++) {
    int last = find(l->scan, MICAH_LAST, k), mark = find(l->scan, MICAH_CHECKPOINT, k);
    mica_wire from = carry_in(l, k, -1, mark, bit, t + 1, -1);
    size_t bytes = (size_t)(l->scan->count[k] * size);
    micah_mover mover = { .x = l->x, .bytes = bytes };
    for (int64_t i = 0; i < l->n; i++) {
      int64_t b = l->s->active[i];
      char *to = steps_of(l, b) == t + 1 ? outer_row(l, last, bit, b) : NULL;
      if (to) micah_move(&mover, to, (char *)from.data + b * (int64_t)bytes);
    }
    mica_status status = micah_move_end(&mover);
    if (status < 0) return status;
  }
  return MICA_OK;
}

static mica_status sweep_down(loop *l) {
  int tangents = l->face == MICA_JVP;
  int32_t passes = MICA_PASS_FORWARD | (tangents ? MICA_PASS_JVP : 0);
  for (int64_t t = 0; t < l->T; t++) {
    mica_status status = step_down(l, t, -1, 1, passes);
    if (status >= 0) status = keep_last(l, t, tangents ? MICA_T : MICA_V);
    if (status < 0) return status;
  }
  return MICA_OK;
}

/* a cotangent that steps add to: clear it first where the caller does not add, once for each place */
static mica_status clear_outer(loop *l, int operand, int bit) {
  mica_port *port = (mica_port *)(uintptr_t)&l->args->ports[operand];
  const mica_wire *w = micak_wire(port, bit);
  if (!w->data || (w->flags & MICA_ADD)) return MICA_OK;
  const micah_value *v = &l->scan->body->values[l->scan->operands[operand].value];
  micah_mover mover = { .x = l->x, .bytes = (size_t)v->count * mica_dtype_size(w->dtype) };
  for (int64_t b = 0; b < l->args->B; b++) {
    char *at = micak_same_slot(w, NULL, b) ? NULL : micak_task(w, NULL, b);
    if (at) micah_move(&mover, at, NULL);
  }
  return micah_move_end(&mover);
}

/* the cotangent of the carry out of step t: what step t + 1 left, or for tasks that end here, that of `last` */
static mica_status seed_last(loop *l, int64_t t, int bit) {
  int64_t size = (int64_t)mica_dtype_size(l->x->dtype);
  for (int32_t k = 0; k < l->scan->n_carry; k++) {
    int last = find(l->scan, MICAH_LAST, k);
    size_t bytes = (size_t)(l->scan->count[k] * size);
    char *to = l->s->back[4 * k + 2 * (bit == MICA_TD) + t % 2];
    micah_mover mover = { .x = l->x, .bytes = bytes };
    for (int64_t i = 0; i < l->n; i++) {
      int64_t b = l->s->active[i];
      if (steps_of(l, b) != t + 1) continue;
      micah_move(&mover, to + b * (int64_t)bytes, outer_row(l, last, bit, b));
    }
    mica_status status = micah_move_end(&mover);
    if (status < 0) return status;
  }
  return MICA_OK;
}

/* run step t down and up. wanted: MICA_D in backward, MICA_TD in backward_jvp; carries always hand on both. */
static mica_status step_up(loop *l, int64_t t, int64_t stretch) {
  int second = l->face == MICA_BACKWARD_JVP, wanted = second ? MICA_TD : MICA_D;
  mica_status status = bind_inputs(l, t, stretch, second);
  for (int bit = MICA_D; status >= 0 && bit <= (second ? MICA_TD : MICA_D); bit <<= 2) status = seed_last(l, t, bit);
  for (int i = 0; status >= 0 && i < l->scan->op.n_operands; i++) {
    const micah_scan_operand *o = &l->scan->operands[i];
    if (o->kind == MICAH_LAST || (l->scan->op.operands[i].role & MICA_INDEX)) continue;
    for (int bit = MICA_D; status >= 0 && bit <= (second ? MICA_TD : MICA_D); bit <<= 2) {
      int at = 4 * o->carry + 2 * (bit == MICA_TD);
      mica_wire wire = { .data = NULL };
      if (o->kind == MICAH_ROW) wire = outer(l, i, bit, t);
      else if (o->kind == MICAH_CHECKPOINT) wire = buffer(l, l->s->back[at + t % 2]);
      else if (o->kind == MICAH_CARRY && t > 0) wire = buffer(l, l->s->back[at + (t + 1) % 2]);
      else if (bit == wanted) wire = outer(l, i, bit, o->kind == MICAH_STEP ? t : -1);
      if (o->kind == MICAH_OUTER) wire.flags |= MICA_ADD;
      if (o->kind == MICAH_ROW || o->kind == MICAH_CHECKPOINT) {
        mica_wire none = { .data = NULL };  /* the step's own results stay inside */
        if ((status = bind(l, o->value, MICA_V, &none)) < 0 || (status = bind(l, o->value, MICA_T, &none)) < 0) break;
      } else if (wire.data == NULL || !l->s->inner->wanted[o->value]) wire.data = NULL;
      status = bind(l, o->value, bit, &wire);
    }
  }
  return status < 0 ? status
                    : mica_executor_run(l->s->inner, second ? 15 : MICA_PASS_FORWARD | MICA_PASS_BACKWARD, NULL);
}

static mica_status sweep_up(loop *l) {
  int second = l->face == MICA_BACKWARD_JVP;
  mica_status cleared = MICA_OK;
  for (int i = 0; cleared >= 0 && i < l->scan->op.n_operands; i++)
    if (l->scan->operands[i].kind == MICAH_OUTER) cleared = clear_outer(l, i, second ? MICA_TD : MICA_D);
  if (cleared < 0) return cleared;
  int64_t stride = l->s->stride;
  for (int64_t stretch = (l->T - 1) / stride * stride; stretch >= 0; stretch -= stride) {
    int64_t end = stretch + stride < l->T ? stretch + stride : l->T;
    mica_status status = MICA_OK;
    for (int64_t t = stretch; status >= 0 && t < end - 1; t++)
      status = step_down(l, t, stretch, 0, MICA_PASS_FORWARD | (second ? MICA_PASS_JVP : 0));
    for (int64_t t = end - 1; status >= 0 && t >= stretch; t--) status = step_up(l, t, stretch);
    if (status < 0) return status;
  }
  return MICA_OK;
}

mica_status micah_scan_run(mica_executor *x, int32_t e, int face) {
  const micah_entry *entry = &x->program->entries[e];
  loop l = { .x = x, .scan = entry->own, .args = x->args[e], .s = x->inner[e], .face = face };
  const micah_span *span = micah_span_of(x, entry->level, entry->dim_axis[1]);
  l.offsets = span->offsets;
  l.T = span->length;
  for (int64_t b = 0; b < l.args->B; b++)
    if (steps_of(&l, b) < 1)
      return mica_error(MICA_ERR_SHAPE,
                        "program %s: %s: task %lld has no row of axis %s to loop over, expected at least 1",
                        x->program->name, entry->path, (long long)b, x->program->axes[entry->dim_axis[1]].name);
  mica_status status = face == MICA_FORWARD || face == MICA_JVP ? sweep_down(&l) : sweep_up(&l);
  if (status >= 0) return MICA_OK;
  char cause[512];
  strncpy(cause, mica_last_error(), sizeof cause - 1);
  cause[sizeof cause - 1] = 0;
  return mica_error(status, "program %s: %s %s: %s", x->program->name, entry->path, mica_face_name(face), cause);
}
