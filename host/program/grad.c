/* grad entries: the gradient of a subprogram as values.
 *
 * F(x) is the sum of one output's rows. forward runs the subprogram down and up with cotangent 1 at that output, which
 * gives g = dF/dx. with tangents of x, its four passes give the tangent of g: g.t = H x.t, and by the symmetry of H the
 * cotangent of x is H g.d: the same sweep with g.d as the tangent. cotangents of the subprogram's own outputs ride
 * along as tangents of their cotangents. so jvp and backward are one sweep, and a third order is not there. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/op.h"
#include "program/inner.h"
#include "program/memory.h"

enum { IN, GRADIENT, RESULT };

/* shared by the programs that took the entry */
typedef struct gradient {
  micah_region  region;
  atomic_int    refs;
  mica_program *sub;
  mica_op       op;
  uint8_t      *kind;          /* [n_operands] */
  int32_t      *value;         /* [n_operands] in the subprogram */
  int32_t       n_in, n_gradients;
  mica_value    loss;
} gradient;

typedef struct state {
  mica_executor *inner;
  char          *saved;        /* of the outer executor's forwards; NULL: fused, forward is run again */
  int64_t        saved_bytes;  /* of each */
  void          *ones;         /* cotangent of the loss */
  int64_t        bytes;
} state;

static void release(void *own) {
  gradient *g = own;
  if (atomic_fetch_sub(&g->refs, 1) > 1) return;
  mica_program_destroy(g->sub);
  micah_region region = g->region;  /* g itself lies in it */
  micah_region_free(&region);
}

/* ---- running ---- */

static mica_status fill_ones(mica_executor *x, const gradient *g, state *s) {
  const micah_value *v = &g->sub->values[g->loss];
  int64_t rows = micah_capacity(s->inner, v->axis), n = rows * v->count;
  int64_t size = n * (int64_t)mica_dtype_size(x->dtype);
  void *ones = s->ones = micah_data_alloc(x, size);
  if (ones && x->backend == MICA_CUDA) ones = micah_region_raw(&x->region, size);
  if (!ones) return MICA_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) {
    if (x->dtype == MICA_F64) ((double *)ones)[i] = 1;
    else if (x->dtype == MICA_F32) ((float *)ones)[i] = 1;
    else ((uint16_t *)ones)[i] = 0x3f80;  /* bf16 */
  }
  return ones == s->ones ? MICA_OK : micah_data_put(x, s->ones, ones, size);
}

static mica_status create(mica_executor *x, int32_t e) {
  const micah_entry *entry = &x->program->entries[e];
  const gradient *g = entry->own;
  if (micah_face_runs(x, e, MICA_BACKWARD_JVP))
    return mica_error(MICA_ERR_UNSUPPORTED,
                      "program %s: %s: backward_jvp of a gradient is a third derivative, which is not supported; ask "
                      "for jvp or backward",
                      x->program->name, entry->path);
  int64_t before = x->region.bytes + x->data_bytes;
  state *s = x->inner[e] = micah_region_alloc(&x->region, 1, sizeof *s);
  mica_value *wants = micah_region_alloc(&x->region, g->n_in, sizeof *wants);
  if (!s || !wants) return MICA_ERR_MEMORY;
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  int second = micah_face_runs(x, e, MICA_JVP) || micah_face_runs(x, e, MICA_BACKWARD);
  options.passes = second ? 15 : MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  /* the outer executor runs backward after its own forward: what that left serves for the second sweep */
  options.fused = !second || !x->forwards;
  for (int i = 0; i < g->n_in; i++) {
    int wanted = second && x->active[x->program->values[entry->binds[i].value].root];
    for (int k = g->n_in; k < g->n_in + g->n_gradients; k++) wanted |= g->value[k] == g->value[i];
    if (wanted && g->sub->values[g->value[i]].dtype < MICA_I32) wants[options.n_wants++] = g->value[i];
  }
  options.wants = wants;
  mica_status status = micah_inner_executor(x, e, g->sub, &options, &s->inner);
  mica_memory memory;
  if (status >= 0) status = mica_executor_memory(s->inner, &memory);
  if (status >= 0 && !options.fused) {
    s->saved_bytes = (memory.saved + 63) / 64 * 64;
    x->kept_bytes += s->saved_bytes;
    if (!(s->saved = micah_data_alloc(x, x->forwards * s->saved_bytes))) status = MICA_ERR_MEMORY;
  }
  if (status >= 0) status = fill_ones(x, g, s);
  if (status < 0) return status;
  s->bytes = x->region.bytes + x->data_bytes - before + memory.scratch;
  return MICA_OK;
}

static void destroy(void *of) { mica_executor_destroy(((state *)of)->inner); }
static int64_t bytes(const void *of) { return ((const state *)of)->bytes; }

static mica_status bind(mica_executor *inner, mica_value value, int bit, const mica_wire *wire) {
  return micah_inner_bind(inner, value, bit, wire, 0);
}

/* bind all wires of one face: values are the entry's in each; what else is bound follows from the face */
static mica_status bind_face(const gradient *g, const state *s, const void *args, int face) {
  const mica_wire none = { .data = NULL }, ones = { .data = s->ones, .task_stride = -1 };
  mica_executor *inner = s->inner;
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < g->op.n_operands; i++) {
    const mica_port *p = micah_inner_port(args, i);
    mica_value value = g->value[i];
    int differs = g->sub->values[value].dtype < MICA_I32;
    if (g->kind[i] == IN) {
      status = bind(inner, value, MICA_V, &p->v);
      if (!differs || !inner->wanted[value]) continue;
      if (status >= 0) status = bind(inner, value, MICA_D, &none);
      if (inner->passes & MICA_PASS_JVP) {
        if (status >= 0) status = bind(inner, value, MICA_T, face == MICA_JVP ? &p->t : &none);
        if (status >= 0) status = bind(inner, value, MICA_TD, face == MICA_BACKWARD ? &p->d : &none);
      }
    } else if (g->kind[i] == GRADIENT) {
      /* after IN, so that these stay */
      if (face == MICA_FORWARD) status = bind(inner, value, MICA_D, &p->v);
      if (face == MICA_JVP) status = bind(inner, value, MICA_TD, &p->t);
      if (face == MICA_BACKWARD) status = bind(inner, value, MICA_T, &p->d);
    } else {
      status = bind(inner, value, MICA_V, face == MICA_FORWARD ? &p->v : &none);
      if (status >= 0) status = bind(inner, value, MICA_D, value == g->loss ? &ones : &none);
      if (inner->passes & MICA_PASS_JVP) {
        if (status >= 0) status = bind(inner, value, MICA_T, face == MICA_JVP ? &p->t : &none);
        if (status >= 0) status = bind(inner, value, MICA_TD, face == MICA_BACKWARD ? &p->d : &none);
      }
    }
  }
  return status;
}

static int any_cotangent(const gradient *g, const void *args) {
  int any = 0;
  for (int i = g->n_in; i < g->op.n_operands; i++) any |= micah_inner_port(args, i)->d.data != NULL;
  return any;
}

static mica_status run(mica_executor *x, int32_t e, int face) {
  const micah_entry *entry = &x->program->entries[e];
  const gradient *g = entry->own;
  state *s = x->inner[e];
  const int32_t first = MICA_PASS_FORWARD | MICA_PASS_BACKWARD, second = MICA_PASS_JVP | MICA_PASS_BACKWARD_JVP;
  if (face == MICA_BACKWARD && !any_cotangent(g, x->args[e])) {
    /* first-order methods stop here: no sweep for nothing */
    mica_status cleared = MICA_OK;
    for (int i = 0; cleared >= 0 && i < g->n_in; i++) {
      const micah_value *v = &g->sub->values[g->value[i]];
      if (v->dtype < MICA_I32) cleared = micah_inner_clear(x, e, i, v->count, v->axis, 0, 1);
    }
    return cleared;
  }
  mica_status status = micah_inner_sizes(x, e, s->inner);
  if (status >= 0) status = bind_face(g, s, x->args[e], face);
  if (status >= 0)
    status = mica_executor_run(s->inner, face == MICA_FORWARD ? first : s->saved ? second : first | second,
                               s->saved ? s->saved + x->forward * s->saved_bytes : NULL);
  if (status >= 0) return MICA_OK;
  char cause[700];
  snprintf(cause, sizeof cause, "%s", mica_last_error());
  return mica_error(status, "program %s: %s %s: %s", x->program->name, entry->path, mica_face_name(face), cause);
}

/* ---- building ---- */

static mica_value again(micah_replay *replay, const micah_entry *entry, const char *path, int32_t n,
                        const mica_bind *binds);
static const micah_inner inner_kind = { create, destroy, bytes, run, again, release, NULL, NULL };

static mica_value add(mica_program *program, const char *path, gradient *g, const int32_t *axes, int32_t n,
                      const mica_bind *binds) {
  mica_value first = micah_add_inner(program, path, &inner_kind, g, &g->op, axes, n, binds);
  if (first >= 0) atomic_fetch_add(&g->refs, 1);
  return first;
}

static mica_value again(micah_replay *replay, const micah_entry *entry, const char *path, int32_t n,
                        const mica_bind *binds) {
  int32_t axes[MICAH_INNER_DIMS];
  for (int32_t d = 1; d < entry->op->n_dims; d++) axes[d - 1] = micah_replay_axis(replay, entry->dim_axis[d]);
  return add(replay->program, path, entry->own, axes, n, binds);
}

static mica_status check_results(const mica_program *sub) {
  for (int32_t i = 0; i < sub->n_outputs; i++) {
    const micah_value *v = &sub->values[sub->outputs[i].value];
    int shared = v->count != sub->values[v->root].count;
    for (int32_t k = 0; k < i; k++) shared |= sub->values[sub->outputs[k].value].root == v->root;
    if (shared)
      return mica_error(MICA_ERR_UNSUPPORTED, "output '%s' of %s shares its memory with another value; give it a copy "
                        "by operation 'scale'", sub->outputs[i].name, sub->name);
  }
  return MICA_OK;
}

static mica_status describe(gradient *g, const char *loss, int32_t n_wrt, const char *const *wrt) {
  mica_program *sub = g->sub;
  int32_t n_in = g->n_in = sub->n_inputs + sub->n_params, n = n_in + n_wrt + sub->n_outputs;
  g->n_gradients = n_wrt;
  mica_operand *operands = micah_region_alloc(&g->region, n, sizeof *operands);
  g->kind = micah_region_alloc(&g->region, n, 1);
  g->value = micah_region_alloc(&g->region, n, sizeof *g->value);
  const mica_dim *dims = micah_inner_dims(sub);
  if (!dims) return MICA_ERR_UNSUPPORTED;
  if (!operands || !g->kind || !g->value) return MICA_ERR_MEMORY;
  g->loss = -1;
  for (int32_t i = 0; i < sub->n_outputs; i++)
    if (!strcmp(sub->outputs[i].name, loss)) g->loss = sub->outputs[i].value;
  if (g->loss < 0)
    return mica_error(MICA_ERR_NOT_FOUND, "program %s has no output '%s' to take the gradient of; its first is '%s'",
                      sub->name, loss, sub->outputs[0].name);
  for (int32_t i = 0; i < n; i++) {
    mica_operand *o = &operands[i];
    mica_status status;
    char name[300];
    if (i < n_in) {
      g->value[i] = i < sub->n_inputs ? sub->inputs[i] : sub->params[i - sub->n_inputs];
      const micah_value *v = &sub->values[g->value[i]];
      int index = v->dtype >= MICA_I32;
      uint32_t role = index ? MICA_INDEX : v->kind == MICA_VALUE_PARAM ? MICA_IN | MICA_PARAM : MICA_IN;
      status = micah_inner_operand(&g->region, sub, g->value[i], v->name, role, 0, i, o);
      static const uint8_t reads[MICA_NFACE] = MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T);
      static const uint8_t writes[MICA_NFACE] = MICA_WRITES_IN;
      for (int f = 0; f < MICA_NFACE; f++) {
        o->reads[f] = index ? MICA_V : reads[f];
        o->writes[f] = index ? 0 : writes[f];
      }
    } else {
      int gradients = i < n_in + n_wrt;
      g->kind[i] = gradients ? GRADIENT : RESULT;
      if (gradients) {
        snprintf(name, sizeof name, "grad.%s", wrt[i - n_in]);
        g->value[i] = -1;
        for (int32_t k = 0; k < n_in; k++)
          if (!strcmp(sub->values[g->value[k]].name, wrt[i - n_in])) g->value[i] = g->value[k];
        if (g->value[i] < 0 || sub->values[g->value[i]].dtype >= MICA_I32)
          return mica_error(MICA_ERR_NOT_FOUND, "program %s has no real input or parameter '%s' to differentiate by",
                            sub->name, wrt[i - n_in]);
        for (int32_t k = n_in; k < i; k++)
          if (g->value[k] == g->value[i])
            return mica_error(MICA_ERR_INVALID, "the gradient by '%s' is asked for twice", wrt[i - n_in]);
      } else {
        snprintf(name, sizeof name, "%s", sub->outputs[i - n_in - n_wrt].name);
        g->value[i] = sub->outputs[i - n_in - n_wrt].value;
      }
      status = micah_inner_operand(&g->region, sub, g->value[i], name, MICA_OUT, 0, i, o);
      static const uint8_t reads[MICA_NFACE] = MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD);
      static const uint8_t writes[MICA_NFACE] = MICA_WRITES_OUT;
      memcpy(o->reads, reads, sizeof o->reads);
      memcpy(o->writes, writes, sizeof o->writes);
    }
    if (status < 0) return status;
  }
  g->op = (mica_op) { .size = sizeof(mica_op), .name = "grad", .doc = "the gradient of a subprogram",
                      .args_size = offsetof(micah_inner_args, ports) + (size_t)n * sizeof(mica_port), .dims = dims,
                      .n_dims = 1 + sub->n_axes, .operands = operands, .n_operands = n, .budget = 2 };
  return MICA_OK;
}

mica_value mica_program_grad(mica_program *program, const char *name, const mica_program *sub, const char *loss,
                             int32_t n_wrt, const char *const *wrt, int32_t n, const mica_bind *binds) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  micah_replay r = { .program = program, .sub = sub, .name = name && *name ? name : "grad", .level = program->level };
  if (!loss || n_wrt < 1 || !wrt)
    return micah_fail(program, MICA_ERR_INVALID, "%s: no output, or nothing to differentiate by", r.name);
  if ((status = micah_replay_start(&r, n, binds)) < 0 || (status = micah_inner_dense(&r)) < 0) return status;
  micah_region region = { mica_context_get_allocator(program->context), NULL, 0 };
  gradient *g = micah_region_alloc(&region, 1, sizeof *g);
  if (!g) return micah_fail_last(program, MICA_ERR_MEMORY);
  g->region = region;
  atomic_init(&g->refs, 1);
  g->sub = (mica_program *)(uintptr_t)sub;
  atomic_fetch_add(&g->sub->refs, 1);
  mica_value first = -1;
  mica_bind *all = micah_region_alloc(&program->region, sub->n_inputs + sub->n_params, sizeof *all);
  if (!all) status = MICA_ERR_MEMORY;
  if (status >= 0) status = check_results(sub);
  if (status >= 0) status = describe(g, loss, n_wrt, wrt);
  if (status < 0) {
    char cause[700];
    snprintf(cause, sizeof cause, "%s", mica_last_error());
    micah_fail(program, status, "%s: %s", r.name, cause);
  } else {
    for (int32_t i = 0; i < g->n_in; i++)
      all[i] = (mica_bind){ g->op.operands[i].name, r.values[g->value[i]] };
    first = add(program, r.name, g, r.axes, g->n_in, all);
    status = first < 0 ? first : MICA_OK;
  }
  release(g);  /* the entry holds it now */
  return status < 0 ? status : micah_inner_results(program, r.name);
}
