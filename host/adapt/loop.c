/* running adapt entries: the steps down, and the sweep back through them.
 *
 * down: step k reads theta_k and writes theta_(k+1), for all tasks at once. theta_k are kept, step by step, for the way
 * back (all of them, or each stride-th). back: from the last step to the first, each step is run down again from its
 * theta_k, so that the activations of one step are all there ever is, unless all of them fit into what may be kept, and
 * then up; the gradient inside it turns its backward into a Hessian-vector sweep. cotangents of what every step shares add
 * up in the order of the sweep. */
#include <stdio.h>
#include <string.h>

#include "adapt/adapt.h"
#include "adapt/fused.h"
#include "common/op.h"
#include "program/memory.h"

/* steps that are gone back through */
static int64_t swept(const mica_adapt_options *o) { return o->method == MICA_ADAPT_TRUNCATED ? o->last : o->steps; }

/* the executor of a step: one whose entries and `saved` hold the activations of all steps, where they fit */
static mica_status create_step(mica_executor *x, int32_t e, mica_executor_options *options, int sweep) {
  const micah_adapt *a = x->program->entries[e].own;
  micah_adapt_state *s = x->inner[e];
  mica_memory memory;
  mica_status status = MICA_OK;
  if (sweep && a->options.keep > 0 && micah_adapt_stride(&a->options) == 1) {
    options->fused = MICAH_ONE_FORWARD;      /* how much is one of them? */
    if ((status = micah_inner_executor(x, e, a->step, options, &s->step)) < 0) return status;
    if ((status = mica_executor_memory(s->step, &memory)) < 0) return status;
    s->saved_bytes = (memory.saved + 63) / 64 * 64;
    int64_t n = swept(&a->options), one = s->saved_bytes + s->step->kept_bytes;
    mica_executor_destroy(s->step);
    s->step = NULL;
    options->fused = 1;
    if (n <= INT32_MAX && one <= a->options.keep / n) {
      options->fused = micah_forwards((int32_t)n);
      if (!(s->saved = micah_data_alloc(x, n * s->saved_bytes + 64))) return MICA_ERR_MEMORY;
    }
  }
  return micah_inner_executor(x, e, a->step, options, &s->step);
}

mica_status micah_adapt_create(mica_executor *x, int32_t e) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  if (micah_face_runs(x, e, MICA_JVP))
    return mica_error(MICA_ERR_UNSUPPORTED,
                      "program %s: %s: jvp of an inner loop is not supported; ask for backward, or make the steps part "
                      "of the program",
                      x->program->name, entry->path);
  micah_region *region = &x->region;
  int64_t before = region->bytes + x->data_bytes;
  micah_adapt_state *s = x->inner[e] = micah_region_alloc(region, 1, sizeof *s);
  mica_value *wants = micah_region_alloc(region, a->op.n_operands, sizeof *wants);
  if (!s || !wants) return MICA_ERR_MEMORY;
  int back = micah_face_runs(x, e, MICA_BACKWARD);
  mica_status status = micah_fused_create(x, e, s);
  if (status < 0 || s->fused) {
    s->bytes = region->bytes + x->data_bytes - before;
    return status;
  }
  int sweep = back && (a->options.method == MICA_ADAPT_UNROLLED || a->options.method == MICA_ADAPT_TRUNCATED);
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.passes = MICA_PASS_FORWARD | (sweep ? MICA_PASS_BACKWARD : 0);
  if (back && a->options.method == MICA_ADAPT_FORWARD) options.passes |= MICA_PASS_JVP;
  options.wants = wants;
  for (int i = 0; i < a->op.n_operands; i++) {
    const micah_adapt_operand *o = &a->operands[i];
    if (!(a->op.operands[i].role & MICA_IN)) continue;
    /* looking one step ahead, nothing is wanted of where it starts */
    int starts = o->kind == MICAH_ADAPT_CARRY && a->options.steps > 1;
    if (starts || x->active[x->program->values[entry->binds[i].value].root])
      wants[options.n_wants++] = o->value;
  }
  if ((status = create_step(x, e, &options, sweep)) < 0) return status;
  s->ring = micah_region_alloc(region, 2 * (int64_t)a->n_carry, sizeof *s->ring);
  s->stretch = micah_region_alloc(region, a->n_carry, sizeof *s->stretch);
  s->shown = micah_region_alloc(region, a->n_carry, sizeof *s->shown);
  if (!s->ring || !s->stretch || !s->shown) return MICA_ERR_MEMORY;
  int64_t tasks = micah_capacity(x, entry->level), size = (int64_t)mica_dtype_size(x->dtype);
  int64_t stride = micah_adapt_stride(&a->options);
  for (int32_t k = 0; k < a->n_carry; k++) {
    int64_t bytes = tasks * a->carry[k].count * size;
    for (int i = 0; i < 2; i++)
      if (!(s->ring[2 * k + i] = micah_data_alloc(x, bytes))) return MICA_ERR_MEMORY;
    if (sweep && stride > 1 && !(s->stretch[k] = micah_data_alloc(x, bytes * (stride - 1))))
      return MICA_ERR_MEMORY;
  }
  if (back && a->options.method == MICA_ADAPT_IMPLICIT && (status = micah_adapt_solve_create(x, e, s)) < 0)
    return status;
  if (back && a->options.method == MICA_ADAPT_FORWARD && (status = micah_adapt_tangent_create(x, e, s)) < 0)
    return status;
  if (back && a->options.method == MICA_ADAPT_ZERO_ORDER && (status = micah_adapt_trial_create(x, e, s)) < 0)
    return status;
  mica_memory memory;
  status = mica_executor_memory(s->step, &memory);
  s->bytes = region->bytes + x->data_bytes - before + memory.scratch;
  return status;
}

void micah_adapt_destroy(void *of) {
  micah_adapt_state *s = of;
  mica_executor_destroy(s->step);
  if (s->solve) micah_adapt_solve_destroy(s);
}

int64_t micah_adapt_bytes(const void *of) {
  const micah_adapt_state *s = of;
  return s->bytes + (s->solve ? micah_adapt_solve_bytes(s) : 0);
}

/* ---- places ---- */

mica_wire micah_adapt_wire(const micah_adapt_run *r, int operand, int bit, int64_t shift) {
  mica_wire wire = *micak_wire(micah_inner_port(r->args, operand), bit);
  if (wire.data) wire.data = (char *)wire.data + shift * (int64_t)mica_dtype_size(wire.dtype);
  return wire;
}

mica_status micah_adapt_clear(const micah_adapt_run *r, int operand, int64_t first, int64_t parts) {
  const micah_adapt_operand *o = &r->a->operands[operand];
  return micah_inner_clear(r->x, r->entry, operand, o->count, r->a->step->values[o->value].axis, first, parts);
}

static mica_wire buffer(char *data) { return (mica_wire){ .data = data, .task_stride = -1 }; }

/* where theta_k lies, k >= 1. `stretch` >= 0: theta_stretch is kept or the start, those after it are in the stretch */
static mica_wire theta(const micah_adapt_run *r, int32_t carry, int64_t k, int64_t stretch) {
  const micah_adapt_carry *c = &r->a->carry[carry];
  int64_t stride = micah_adapt_stride(&r->a->options), size = (int64_t)mica_dtype_size(r->x->dtype);
  int64_t bytes = micah_rows(r->x, r->x->program->entries[r->entry].level) * c->count * size;
  char *kept = micah_adapt_kept(&r->a->options) > 0 ? micah_inner_port(r->args, c->kept)->v.data : NULL;
  if (kept && k % stride == 0) return buffer(kept + (k / stride - 1) * bytes);
  if (stretch >= 0) return buffer(r->s->stretch[carry] + (k - stretch - 1) * bytes);
  return buffer(r->s->ring[2 * carry + k % 2]);
}

/* ---- steps ---- */

static mica_status bind(const micah_adapt_run *r, int32_t value, int bit, const mica_wire *wire) {
  return micah_inner_bind(r->s->step, value, bit, wire, 0);
}

static mica_status bind_inputs(const micah_adapt_run *r, int64_t k, int64_t stretch) {
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    const micah_adapt_operand *o = &r->a->operands[i];
    if (o->kind > MICAH_ADAPT_CARRY) continue;
    int64_t shift = o->kind == MICAH_ADAPT_STEPPED ? k * o->count : 0;
    mica_wire wire = o->kind == MICAH_ADAPT_CARRY && k > 0 ? theta(r, o->carry, k, stretch)
                                                           : micah_adapt_wire(r, i, MICA_V, shift);
    status = bind(r, o->value, MICA_V, &wire);
  }
  return status;
}

/* where a result of step k goes: a row of the results, theta_(k+1) */
static mica_wire step_result(const micah_adapt_run *r, int operand, int64_t k, int64_t stretch) {
  const micah_adapt_operand *o = &r->a->operands[operand];
  if (o->kind == MICAH_ADAPT_ROW) return micah_adapt_wire(r, operand, MICA_V, k * o->count);
  return k + 1 < r->a->options.steps ? theta(r, o->carry, k + 1, stretch) : micah_adapt_wire(r, operand, MICA_V, 0);
}

/* where step k leaves its activations; NULL: nowhere */
static char *activations(const micah_adapt_run *r, int64_t k) {
  int64_t at = k - (r->a->options.steps - swept(&r->a->options));
  if (!r->s->saved) return NULL;
  r->s->step->forward = (int32_t)(at < 0 ? 0 : at); /* steps that are not gone back through: overwritten */
  return r->s->saved + r->s->step->forward * r->s->saved_bytes;
}

/* run step k down; `rows`: results of the step are wanted too */
static mica_status step_down(const micah_adapt_run *r, int64_t k, int64_t stretch, int rows) {
  const mica_wire none = { .data = NULL };
  mica_status status = bind_inputs(r, k, stretch);
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    const micah_adapt_operand *o = &r->a->operands[i];
    if (o->kind != MICAH_ADAPT_ROW && o->kind != MICAH_ADAPT_LAST) continue;
    const mica_wire wire = o->kind == MICAH_ADAPT_LAST || rows ? step_result(r, i, k, stretch) : none;
    status = bind(r, o->value, MICA_V, &wire);
    if (status >= 0 && (r->s->step->passes & MICA_PASS_BACKWARD)) status = bind(r, o->value, MICA_D, &none);
  }
  return status < 0 ? status : mica_executor_run(r->s->step, MICA_PASS_FORWARD, activations(r, k));
}

/* run step k down, where its activations were not kept, and up; `first`: of the sweep, so nothing is there yet to add to */
static mica_status step_up(const micah_adapt_run *r, int64_t k, int64_t stretch, int first) {
  const mica_wire none = { .data = NULL };
  int64_t last = r->a->options.steps - 1;
  mica_status status = bind_inputs(r, k, stretch);
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    const micah_adapt_operand *o = &r->a->operands[i];
    mica_wire wire = none;
    uint32_t flags = 0;
    if (o->kind == MICAH_ADAPT_KEPT || (r->a->op.operands[i].role & MICA_INDEX)) continue;
    if (o->kind == MICAH_ADAPT_ROW || o->kind == MICAH_ADAPT_LAST) {
      /* the results lie where the step left them, or stay inside */
      if (r->s->saved) wire = step_result(r, i, k, stretch);
      if ((status = bind(r, o->value, MICA_V, &wire)) < 0) break;
      wire = none;
      if (o->kind == MICAH_ADAPT_ROW) wire = micah_adapt_wire(r, i, MICA_D, k * o->count);
      else if (k == last) wire = micah_adapt_wire(r, i, MICA_D, 0);
      else wire = buffer(r->s->ring[2 * o->carry + (k + 1) % 2]);
    } else if (o->kind == MICAH_ADAPT_CARRY && k > 0) wire = buffer(r->s->ring[2 * o->carry + k % 2]);
    else if (r->s->step->wanted[o->value]) {
      wire = micah_adapt_wire(r, i, MICA_D, o->kind == MICAH_ADAPT_STEPPED ? k * o->count : 0);
      if (o->kind == MICAH_ADAPT_OUTER && !first) flags = MICA_ADD;
    }
    status = micah_inner_bind(r->s->step, o->value, MICA_D, &wire, flags);
  }
  const int32_t down = r->s->saved ? 0 : MICA_PASS_FORWARD;
  return status < 0 ? status : mica_executor_run(r->s->step, down | MICA_PASS_BACKWARD, activations(r, k));
}

/* ---- faces ---- */

/* show theta_k to the caller's data */
static mica_status ask_data(const micah_adapt_run *r, int64_t k) {
  const mica_adapt_options *o = &r->a->options;
  if (!o->data) return MICA_OK;
  mica_wire *now = r->s->shown;
  for (int32_t j = 0; j < r->a->n_carry; j++) {
    now[j] = k ? theta(r, j, k, -1) : micah_adapt_wire(r, r->a->carry[j].in, MICA_V, 0);
    now[j].dtype = r->x->dtype, now[j].stride[0] = 1;
    if (now[j].task_stride < 0) now[j].task_stride = r->a->carry[j].count;
  }
  /* what it is shown has been computed */
  mica_status status = r->x->device->ops->stream_sync(r->x->device, r->x->stream);
  if (status < 0) return status;
  return o->data(o->data_user, k, micah_rows(r->x, r->x->program->entries[r->entry].level), r->a->n_carry, now);
}

static mica_status sweep_down(const micah_adapt_run *r) {
  mica_status status = MICA_OK;
  for (int64_t k = 0; status >= 0 && k < r->a->options.steps; k++)
    if ((status = ask_data(r, k)) >= 0) status = step_down(r, k, -1, 1);
  return status;
}

static mica_status sweep_up(const micah_adapt_run *r) {
  const mica_adapt_options *o = &r->a->options;
  int64_t steps = o->steps, stride = micah_adapt_stride(o);
  int64_t stop = o->method == MICA_ADAPT_TRUNCATED ? steps - o->last : 0;
  mica_status status = MICA_OK;
  for (int64_t stretch = (steps - 1) / stride * stride; status >= 0 && stretch + stride > stop && stretch >= 0;
       stretch -= stride) {
    int64_t end = stretch + stride < steps ? stretch + stride : steps;
    for (int64_t k = stretch; status >= 0 && k < end - 1 && stride > 1; k++) status = step_down(r, k, stretch, 0);
    for (int64_t k = end - 1; status >= 0 && k >= stretch && k >= stop; k--)
      status = step_up(r, k, stretch, k == steps - 1);
  }
  /* steps that were left out */
  for (int i = 0; status >= 0 && stop > 0 && i < r->a->op.n_operands; i++) {
    if (r->a->operands[i].kind == MICAH_ADAPT_CARRY) status = micah_adapt_clear(r, i, 0, 1);
    if (r->a->operands[i].kind == MICAH_ADAPT_STEPPED) status = micah_adapt_clear(r, i, 0, stop);
  }
  return status;
}

mica_status mica_adapt_get_path(const mica_executor *x, int32_t index, const char **out) {
  if (!x || !out || index < 0) return mica_error(MICA_ERR_INVALID, "mica_adapt_get_path: an argument is wrong");
  int32_t n = 0;
  for (int32_t e = 0; e < x->program->n_entries; e++) {
    if (x->program->entries[e].inner != &micah_adapt_inner || !x->inner[e] || n++ != index) continue;
    *out = micah_fused_path(x->inner[e]);
    return MICA_OK;
  }
  return mica_error(MICA_ERR_NOT_FOUND, "program %s has %d inner loops, there is none with index %d", x->program->name,
                    n, index);
}

mica_status micah_adapt_face(mica_executor *x, int32_t e, int face) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  micah_adapt_run r = { x, e, a, x->inner[e], x->args[e] };
  mica_status status = r.s->fused ? MICA_OK : micah_inner_sizes(x, e, r.s->step);
  if (status >= 0) {
    if (r.s->fused) status = face == MICA_FORWARD ? micah_fused_forward(&r) : micah_fused_back(&r);
    else if (face == MICA_FORWARD) status = sweep_down(&r);
    else if (a->options.method == MICA_ADAPT_IMPLICIT) status = micah_adapt_solve_back(&r);
    else if (a->options.method == MICA_ADAPT_FORWARD) status = micah_adapt_tangent_back(&r);
    else if (a->options.method == MICA_ADAPT_ZERO_ORDER) status = micah_adapt_trial_back(&r);
    else status = sweep_up(&r);
  }
  if (status >= 0) return MICA_OK;
  char cause[700];
  snprintf(cause, sizeof cause, "%s", mica_last_error());
  return mica_error(status, "program %s: %s %s: %s", x->program->name, entry->path, mica_face_name(face), cause);
}
