/* step programs: the gradient of an inner loss, then an update of each adapted parameter; and the same gradient as the
 * optimality program of the implicit method. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "adapt/updates.h"
#include "adapt/fused.h"
#include "program/call.h"

typedef struct maker {
  mica_step          *step;
  micah_region       *region;
  const mica_program *loss;
  const char         *output;
  const mica_step_options *o;
  const micah_update *update;
  mica_program       *p;           /* being built */
  mica_bind          *binds;       /* [inputs and parameters of the loss] */
  int32_t             n_binds;
  const char        **names;       /* [n_trained] */
} maker;

/* what a step owns lies in one region, at its start */
typedef struct owned {
  mica_step    step;
  micah_region region;
} owned;

/* does a name fit a pattern in which * stands for any text? */
static int fits(const char *pattern, size_t length, const char *name) {
  if (!length) return !*name;
  if (*pattern == '*') {
    for (const char *rest = name;; rest++) {
      if (fits(pattern + 1, length - 1, rest)) return 1;
      if (!*rest) return 0;
    }
  }
  return *name == *pattern && fits(pattern + 1, length - 1, name + 1);
}

static mica_status choose(maker *m) {
  const mica_program *loss = m->loss;
  const char *list = m->o->trained && strcmp(m->o->trained, "all") ? m->o->trained : "*";
  uint8_t *taken = micah_region_alloc(m->region, loss->n_params, 1);
  mica_value *trained = micah_region_alloc(m->region, loss->n_params, sizeof *trained);
  m->names = micah_region_alloc(m->region, loss->n_params, sizeof *m->names);
  if (!taken || !trained || !m->names) return MICA_ERR_MEMORY;
  for (const char *at = list; *at;) {
    size_t length = strcspn(at, ","), found = 0;
    for (int32_t i = 0; i < loss->n_params; i++)
      if (fits(at, length, loss->values[loss->params[i]].name)) taken[i] = 1, found++;
    if (!found)
      return mica_error(MICA_ERR_NOT_FOUND, "trained: no parameter of %s fits '%.*s'; its first is '%s'", loss->name,
                        (int)length, at, loss->n_params ? loss->values[loss->params[0]].name : "none");
    at += length + (at[length] == ',');
  }
  for (int32_t i = 0; i < loss->n_params; i++) {
    if (!taken[i]) continue;
    m->names[m->step->n_trained] = loss->values[loss->params[i]].name;
    trained[m->step->n_trained++] = loss->params[i];
  }
  m->step->trained = trained;
  if (!m->step->n_trained) return mica_error(MICA_ERR_INVALID, "trained: %s has no parameters to adapt", loss->name);
  return MICA_OK;
}

/* a program with the loss's axes, inputs and parameters as its inputs */
static mica_status begin(maker *m, const char *name) {
  const mica_program *loss = m->loss;
  mica_status status = mica_program_create(loss->context, name, &m->p);
  m->n_binds = loss->n_inputs + loss->n_params;
  m->binds = micah_region_alloc(m->region, m->n_binds, sizeof *m->binds);
  if (status < 0 || !m->binds) return status < 0 ? status : MICA_ERR_MEMORY;
  for (int32_t a = 0; a < loss->n_axes; a++) mica_program_axis(m->p, loss->axes[a].name, loss->axes[a].parent);
  for (int32_t i = 0; i < m->n_binds; i++) {
    const micah_value *v = &loss->values[i < loss->n_inputs ? loss->inputs[i] : loss->params[i - loss->n_inputs]];
    m->binds[i] = (mica_bind){ v->name, mica_program_input(m->p, v->name, v->dtype, v->axis, v->rank, v->shape) };
    if (m->binds[i].value < 0) return m->binds[i].value;
  }
  return MICA_OK;
}

static mica_value bound(const maker *m, const char *name) {
  for (int32_t i = 0; i < m->n_binds; i++)
    if (!strcmp(m->binds[i].port, name)) return m->binds[i].value;
  return -1;
}

static mica_value input_like(maker *m, const char *prefix, int32_t trained, int scalar) {
  const micah_value *v = &m->loss->values[m->step->trained[trained]];
  char *name = micah_join(m->p, prefix, v->name);
  if (!name) return MICA_ERR_MEMORY;
  return mica_program_input(m->p, name, MICA_F32, MICA_NO_AXIS, scalar ? 0 : v->rank, v->shape);
}

static mica_value op2(mica_program *p, const char *name, const char *op, mica_value a, mica_value b) {
  mica_bind binds[] = { { "a", a }, { "b", b } };
  return mica_program_op(p, name, op, NULL, 2, binds);
}

/* operations run over matrices at most: longer shapes become one row */
static mica_value flat(mica_program *p, mica_value v) {
  if (v < 0 || p->values[v].rank <= 2) return v;
  return mica_program_reshape(p, v, 1, &p->values[v].count);
}

/* the gradients of the loss, with the proximal term; g: [n_trained], flat */
static mica_status gradients(maker *m, mica_value *g, mica_value *loss) {
  mica_program *p = m->p;
  mica_value all = mica_program_grad(p, "gradient", m->loss, m->output, m->step->n_trained, m->names, m->n_binds,
                                     m->binds);
  if (all < 0) return all;
  *loss = mica_program_port(p, all, m->output);
  mica_value proximal = m->o->proximal ? mica_program_input(p, "proximal", MICA_F32, MICA_NO_AXIS, 0, NULL) : -1;
  for (int32_t i = 0; i < m->step->n_trained; i++) {
    char *port = micah_join(p, "grad", m->names[i]), *path = micah_join(p, "proximal", m->names[i]);
    if (!port || !path) return MICA_ERR_MEMORY;
    g[i] = flat(p, mica_program_port(p, all, port));
    if (m->o->proximal) {
      mica_value away = op2(p, micah_join(p, path, "away"), "sub", flat(p, bound(m, m->names[i])),
                            flat(p, input_like(m, "anchor", i, 0)));
      g[i] = op2(p, path, "add", g[i], op2(p, micah_join(p, path, "pull"), "mul", away, proximal));
    }
    if (g[i] < 0) return g[i];
  }
  return MICA_OK;
}

static mica_value matmul(mica_program *p, const char *path, const char *set, mica_value a, mica_value b) {
  mica_bind binds[] = { { "a", a }, { "b", b } };
  return mica_program_op(p, path, "matmul", set, 2, binds);
}

/* left g right^T; a vector is one column */
static mica_value precondition(maker *m, int32_t trained, mica_value g) {
  mica_program *p = m->p;
  const micah_value *v = &m->loss->values[m->step->trained[trained]];
  if (v->rank < 1 || v->rank > 2)
    return micah_fail(p, MICA_ERR_SHAPE, "block: '%s' has rank %d, expected a matrix or a vector", v->name, v->rank);
  const char *ports[] = { "left", "right" };
  mica_value side[2] = { -1, -1 };
  for (int i = 0; i < v->rank; i++) {
    int64_t square[] = { v->shape[i], v->shape[i] };
    char *name = micah_join(p, ports[i], v->name);
    if (!name) return MICA_ERR_MEMORY;
    side[i] = mica_program_input(p, name, MICA_F32, MICA_NO_AXIS, 2, square);
  }
  int64_t matrix[] = { v->shape[0], v->rank > 1 ? v->shape[1] : 1 };
  g = matmul(p, micah_join(p, "left.product", v->name), NULL, side[0], mica_program_reshape(p, g, 2, matrix));
  if (v->rank > 1) g = matmul(p, micah_join(p, "right.product", v->name), "tb=1", g, side[1]);
  return flat(p, mica_program_reshape(p, g, v->rank, v->shape));
}

static mica_status output(maker *m, const char *prefix, const char *name, mica_value value, const micah_value *like) {
  if (like) value = mica_program_reshape(m->p, value, like->rank, like->shape);
  char *full = micah_join(m->p, prefix, name);
  return value < 0 ? value : full ? mica_program_output(m->p, full, value) : MICA_ERR_MEMORY;
}

/* ---- the two programs ---- */

static mica_status make_optimality(maker *m) {
  mica_value *g = micah_region_alloc(m->region, m->step->n_trained, sizeof *g), loss;
  mica_status status = g ? begin(m, "optimality") : MICA_ERR_MEMORY;
  if (status >= 0) status = gradients(m, g, &loss);
  for (int32_t i = 0; status >= 0 && i < m->step->n_trained; i++)
    status = output(m, "F", m->names[i], g[i], &m->loss->values[m->step->trained[i]]);
  return status < 0 ? status : mica_program_seal(m->p);
}

/* a carry of the step: input `name` exists already */
static mica_status carry(maker *m, const char *name, double start) {
  mica_step *s = m->step;
  char *in = micah_region_text(m->region, name), *next = micah_region_alloc(m->region, (int64_t)strlen(name) + 6, 1);
  if (!in || !next) return MICA_ERR_MEMORY;
  snprintf(next, strlen(name) + 6, "next.%s", name);
  ((mica_carry *)(uintptr_t)s->carry)[s->n_carry] = (mica_carry){ in, next };
  ((double *)(uintptr_t)s->start)[s->n_carry++] = start;
  return MICA_OK;
}

static mica_status make_step(maker *m) {
  mica_step *s = m->step;
  const micah_update *u = m->update;
  int32_t n = s->n_trained;
  mica_value *g = micah_region_alloc(m->region, n, sizeof *g), loss, rate = -1;
  mica_value task_in[MICAH_STATES] = { -1, -1, -1, -1 }, task_out[MICAH_STATES] = { -1, -1, -1, -1 };
  s->carry = micah_region_alloc(m->region, n * (1 + u->n_states) + u->n_states, sizeof *s->carry);
  s->start = micah_region_alloc(m->region, n * (1 + u->n_states) + u->n_states, sizeof *s->start);
  if (!g || !s->carry || !s->start) return MICA_ERR_MEMORY;
  mica_status status = begin(m, "step");
  if (status >= 0) status = gradients(m, g, &loss);
  if (status < 0) return status;
  mica_program *p = m->p;
  if (m->o->rates == MICA_RATE_ONE) rate = mica_program_input(p, "rate", MICA_F32, MICA_NO_AXIS, 0, NULL);
  for (int32_t i = 0; status >= 0 && i < n; i++) status = carry(m, m->names[i], NAN);
  for (int32_t k = 0; status >= 0 && k < u->n_states; k++) {
    if (!u->states[k].scalar) continue;
    char *name = micah_join(p, "state", u->states[k].name);
    if (!name) return MICA_ERR_MEMORY;
    task_in[k] = mica_program_input(p, name, MICA_F32, MICA_NO_AXIS, 0, NULL);
    status = task_in[k] < 0 ? task_in[k] : carry(m, name, u->states[k].start);
  }
  if (status >= 0 && u->task) status = u->task(p, m->o, task_in, task_out);
  for (int32_t k = 0; status >= 0 && k < u->n_states; k++)
    if (u->states[k].scalar) status = output(m, "next.state", u->states[k].name, task_out[k], NULL);
  for (int32_t i = 0; status >= 0 && i < n; i++) {
    const micah_value *v = &m->loss->values[s->trained[i]];
    mica_value in[MICAH_STATES] = { -1, -1, -1, -1 }, out[MICAH_STATES] = { -1, -1, -1, -1 };
    char *names[MICAH_STATES] = { NULL };
    if (m->o->every) {
      mica_bind x = { "x", flat(p, bound(m, v->name)) };
      mica_value copy = mica_program_op(p, micah_join(p, "theta", v->name), "scale", NULL, 1, &x);
      if ((status = output(m, "theta", v->name, copy, v)) < 0) return status;
    }
    if (m->o->block && (g[i] = precondition(m, i, g[i])) < 0) return g[i];
    if (m->o->first_order) {
      mica_bind x = { "x", g[i] };
      g[i] = mica_program_op(p, micah_join(p, "stop", v->name), "stop", NULL, 1, &x);
    }
    for (int32_t k = 0; status >= 0 && k < u->n_states; k++) {
      if (u->states[k].scalar) continue;
      char *state = micah_join(p, "state", u->states[k].name);
      if (!state || !(names[k] = micah_join(p, state, v->name))) return MICA_ERR_MEMORY;
      in[k] = mica_program_input(p, names[k], MICA_F32, MICA_NO_AXIS, v->rank, v->shape);
      status = in[k] < 0 ? in[k] : carry(m, names[k], u->states[k].start);
      in[k] = flat(p, in[k]);
    }
    int scalar = m->o->rates == MICA_RATE_TENSOR;
    mica_value of = m->o->rates == MICA_RATE_ONE ? rate : flat(p, input_like(m, "rate", i, scalar));
    char *path = micah_join(p, "update", v->name);
    if (status < 0 || of < 0 || !path) return status < 0 ? status : of < 0 ? of : MICA_ERR_MEMORY;
    mica_value theta = u->build(p, path, m->o, flat(p, bound(m, v->name)), g[i], of, in, task_out, out);
    status = output(m, "next", v->name, theta, v);
    for (int32_t k = 0; status >= 0 && k < u->n_states; k++)
      if (!u->states[k].scalar) status = output(m, "next", names[k], out[k], v);
  }
  if (status >= 0) status = mica_program_output(p, "loss", loss);
  return status < 0 ? status : mica_program_seal(p);
}

mica_status mica_step_create(mica_context *context, const mica_program *loss, const char *output_name,
                             const mica_step_options *options, mica_step **out) {
  if (!out) return mica_error(MICA_ERR_INVALID, "mica_step_create: no out");
  *out = NULL;
  if (!context || !loss || !loss->sealed || !output_name || !options || options->size != sizeof *options)
    return mica_error(MICA_ERR_INVALID, "mica_step_create: an argument is missing, the loss program is not sealed, or "
                      "options do not start from MICA_STEP_OPTIONS_INIT");
  maker m = { .loss = loss, .output = output_name, .o = options };
  if (!(m.update = micah_find_update(options->update))) return MICA_ERR_NOT_FOUND;
  mica_value value = -1;
  for (int32_t i = 0; i < loss->n_outputs; i++)
    if (!strcmp(loss->outputs[i].name, output_name)) value = loss->outputs[i].value;
  if (value < 0)
    return mica_error(MICA_ERR_NOT_FOUND, "program %s has no output '%s' to go down", loss->name, output_name);
  if (loss->values[value].axis >= 0 || loss->values[value].count != 1)
    return mica_error(MICA_ERR_SHAPE, "output '%s' of %s is not one number a task; reduce it by sum or mean",
                      output_name, loss->name);
  micah_region region = { mica_context_get_allocator(context), NULL, 0 };
  owned *own = micah_region_alloc(&region, 1, sizeof *own);
  if (!own) return MICA_ERR_MEMORY;
  own->region = region;
  m.step = &own->step;
  m.region = &own->region;
  mica_status status = choose(&m);
  if (status >= 0) {
    status = make_step(&m);
    own->step.program = m.p;
    m.p = NULL;
  }
  if (status >= 0) {
    status = make_optimality(&m);
    own->step.optimality = m.p;
  }
  if (status >= 0) status = micah_mlp_match(loss, output_name, options, &own->step);
  if (status < 0) {
    mica_step_destroy(&own->step);
    return status;
  }
  *out = &own->step;
  return MICA_OK;
}

void mica_step_destroy(mica_step *step) {
  if (!step) return;
  mica_program_destroy(step->program);
  mica_program_destroy(step->optimality);
  micah_region region = ((owned *)step)->region;  /* the step itself lies in it */
  micah_region_free(&region);
}

mica_value mica_program_adapt_step(mica_program *program, const char *name, const mica_step *step,
                                   const mica_adapt_options *options, int32_t n, const mica_bind *binds) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  if (!step || !options || n < 0 || (n && !binds))
    return micah_fail(program, MICA_ERR_INVALID, "%s: no step, options or binds", name ? name : "adapt");
  mica_adapt_options with = *options;
  if (with.method == MICA_ADAPT_IMPLICIT && !with.optimality) with.optimality = step->optimality;
  mica_bind *all = micah_region_alloc(&program->region, n + step->n_carry, sizeof *all);
  if (!all) return micah_fail_last(program, MICA_ERR_MEMORY);
  int32_t at = 0;
  for (; at < n; at++) all[at] = binds[at];
  for (int32_t k = 0; k < step->n_carry; k++) {
    if (isnan(step->start[k])) continue;
    mica_value_info info;
    status = mica_program_info(step->program, mica_program_find(step->program, step->carry[k].input), &info);
    if (status < 0) return micah_fail_last(program, status);
    mica_value start = mica_program_constant(program, step->start[k], info.rank, info.shape);
    all[at] = (mica_bind){ step->carry[k].input, start };
    if (all[at++].value < 0) return all[at - 1].value;
  }
  return mica_program_adapt(program, name, step->program, &with, at, all, step->n_carry, step->carry);
}
