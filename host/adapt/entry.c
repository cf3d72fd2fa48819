/* building adapt entries */
#include <stdio.h>
#include <string.h>

#include "adapt/adapt.h"
#include "adapt/fused.h"
#include "common/op.h"

static void release(void *own) {
  micah_adapt *a = own;
  if (atomic_fetch_sub(&a->refs, 1) > 1) return;
  mica_program_destroy(a->step);
  mica_program_destroy(a->optimality);
  micah_region region = a->region;  /* a itself lies in it */
  micah_region_free(&region);
}

static mica_value add(mica_program *program, const char *path, micah_adapt *a, const int32_t *axes, int32_t n,
                      const mica_bind *binds) {
  mica_value first = micah_add_inner(program, path, &micah_adapt_inner, a, &a->op, axes, n, binds);
  if (first >= 0) atomic_fetch_add(&a->refs, 1);
  return first;
}

static mica_value again(micah_replay *replay, const micah_entry *entry, const char *path, int32_t n,
                        const mica_bind *binds) {
  int32_t axes[MICAH_INNER_DIMS];
  for (int32_t d = 1; d < entry->op->n_dims; d++) axes[d - 1] = micah_replay_axis(replay, entry->dim_axis[d]);
  return add(replay->program, path, entry->own, axes, n, binds);
}

const micah_inner micah_adapt_inner = { micah_adapt_create, micah_adapt_destroy, micah_adapt_bytes, micah_adapt_face,
                                        again, release, micah_adapt_absorb, micah_adapt_on_device };

/* ---- checks ---- */

static mica_status check_options(const mica_adapt_options *o) {
  if (o->size != sizeof *o)
    return mica_error(MICA_ERR_INVALID, "options say %zu bytes, expected %zu; use MICA_ADAPT_OPTIONS_INIT", o->size,
                      sizeof *o);
  if (o->steps < 1 || o->steps > INT32_MAX)
    return mica_error(MICA_ERR_INVALID, "steps is %lld, expected at least 1", (long long)o->steps);
  if (o->method < MICA_ADAPT_UNROLLED || o->method > MICA_ADAPT_ZERO_ORDER)
    return mica_error(MICA_ERR_INVALID, "method %d is no MICA_ADAPT_*", o->method);
  if (o->method == MICA_ADAPT_TRUNCATED && (o->last < 1 || o->last > o->steps))
    return mica_error(MICA_ERR_INVALID, "last is %lld, expected 1 to %lld, the steps", (long long)o->last,
                      (long long)o->steps);
  if (o->method == MICA_ADAPT_ZERO_ORDER &&
      (o->directions < 1 || !(o->sigma > 0) || o->direction < 0 || o->direction > MICA_DIRECTION_SIGN))
    return mica_error(MICA_ERR_INVALID, "%lld directions, sigma %g, direction %d; expected at least 1, more than 0 and "
                      "MICA_DIRECTION_*", (long long)o->directions, o->sigma, o->direction);
  if (o->method != MICA_ADAPT_IMPLICIT) return MICA_OK;
  if (!o->optimality || !o->optimality->sealed)
    return mica_error(MICA_ERR_INVALID, "the implicit method needs a sealed optimality program");
  if (o->solver < MICA_SOLVE_CG || o->solver > MICA_SOLVE_NYSTROEM || o->iterations < 1)
    return mica_error(MICA_ERR_INVALID, "solver %d with %lld iterations, expected MICA_SOLVE_* and at least 1",
                      o->solver, (long long)o->iterations);
  if (!(o->tolerance >= 0) || !(o->damping >= 0) || !(o->rate > 0))
    return mica_error(MICA_ERR_INVALID, "tolerance %g, damping %g, rate %g; expected at least 0, the rate more",
                      o->tolerance, o->damping, o->rate);
  if (o->solver == MICA_SOLVE_NYSTROEM && !(o->damping > 0))
    return mica_error(MICA_ERR_INVALID, "damping is %g; Nystroem's method needs more than 0", o->damping);
  return MICA_OK;
}

static int32_t output_named(const mica_program *sub, const char *name) {
  for (int32_t i = 0; i < sub->n_outputs; i++)
    if (!strcmp(sub->outputs[i].name, name)) return i;
  return -1;
}

static mica_value bindable(const mica_program *sub, const char *name) {
  for (int32_t i = 0; i < sub->n_inputs + sub->n_params; i++) {
    int32_t v = i < sub->n_inputs ? sub->inputs[i] : sub->params[i - sub->n_inputs];
    if (!strcmp(sub->values[v].name, name)) return v;
  }
  return -1;
}

static int same_shape(const micah_value *a, const micah_value *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank);
}

static mica_status check_carries(const mica_program *step, int32_t n_carry, const mica_carry *carry) {
  if (n_carry < 1 || !carry) return mica_error(MICA_ERR_INVALID, "nothing is carried from step to step");
  for (int32_t k = 0; k < n_carry; k++) {
    mica_value in = bindable(step, carry[k].input);
    int32_t o = output_named(step, carry[k].output);
    if (in < 0 || o < 0)
      return mica_error(MICA_ERR_NOT_FOUND, "%s has no %s '%s' to carry", step->name,
                        in < 0 ? "input or parameter" : "output", in < 0 ? carry[k].input : carry[k].output);
    const micah_value *a = &step->values[in], *b = &step->values[step->outputs[o].value];
    if (a->dtype >= MICA_I32 || a->axis >= 0 || b->axis >= 0 || !same_shape(a, b)) {
      char expected[160], got[160];
      micah_shape_text(step, a, expected, sizeof expected);
      micah_shape_text(step, b, got, sizeof got);
      return mica_error(MICA_ERR_SHAPE, "carry '%s' is %s %s and its output '%s' %s; expected one shape of real "
                        "numbers, one row a task", carry[k].input, mica_dtype_name(a->dtype), expected, carry[k].output,
                        got);
    }
    for (int32_t j = 0; j < k; j++)
      if (!strcmp(carry[j].input, carry[k].input) || !strcmp(carry[j].output, carry[k].output))
        return mica_error(MICA_ERR_INVALID, "carry '%s' <- '%s' shares its input or output with another",
                          carry[k].input, carry[k].output);
  }
  for (int32_t i = 0; i < step->n_outputs; i++) {
    const micah_value *v = &step->values[step->outputs[i].value];
    int shared = v->count != step->values[v->root].count;
    for (int32_t k = 0; k < i; k++) shared |= step->values[step->outputs[k].value].root == v->root;
    if (shared)
      return mica_error(MICA_ERR_UNSUPPORTED, "output '%s' of %s shares its memory with another value; give it a copy "
                        "by operation 'scale'", step->outputs[i].name, step->name);
    if (v->axis >= 0)
      return mica_error(MICA_ERR_UNSUPPORTED, "output '%s' of %s has rows of axis %s, expected one row a task",
                        step->outputs[i].name, step->name, step->axes[v->axis].name);
  }
  return MICA_OK;
}

/* the optimality program's ports are the step program's, and its outputs fit the carries */
static mica_status match_optimality(micah_adapt *a, int32_t n_in) {
  const mica_program *f = a->optimality, *step = a->step;
  int32_t found = 0;
  for (int32_t i = 0; i < f->n_inputs + f->n_params; i++) {
    int32_t v = i < f->n_inputs ? f->inputs[i] : f->params[i - f->n_inputs], at = -1;
    for (int32_t k = 0; k < n_in; k++)
      if (!strcmp(a->op.operands[k].name, f->values[v].name)) at = k;
    if (at < 0)
      return mica_error(MICA_ERR_NOT_FOUND, "optimality program %s has '%s', which is no input or parameter of %s",
                        f->name, f->values[v].name, step->name);
    const micah_value *u = &step->values[a->operands[at].value], *w = &f->values[v];
    if (!same_shape(u, w) || u->dtype != w->dtype || u->axis != w->axis ||
        (u->axis >= 0 && strcmp(f->axes[w->axis].name, step->axes[u->axis].name)))
      return mica_error(MICA_ERR_SHAPE, "'%s' of optimality program %s differs from that of %s in shape, type or axis",
                        w->name, f->name, step->name);
    if (a->operands[at].kind == MICAH_ADAPT_STEPPED)
      return mica_error(MICA_ERR_UNSUPPORTED, "optimality program %s has '%s', which changes from step to step",
                        f->name, w->name);
    a->operands[at].optimality = v;
  }
  if (f->n_axes != step->n_axes)
    return mica_error(MICA_ERR_SHAPE, "optimality program %s has %d axes, %s has %d; declare the same, in one order",
                      f->name, f->n_axes, step->name, step->n_axes);
  for (int32_t k = 0; k < a->n_carry; k++) {
    char name[300];
    snprintf(name, sizeof name, "F.%s", a->op.operands[a->carry[k].in].name);
    int32_t o = output_named(f, name);
    a->carry[k].residual = o < 0 ? -1 : f->outputs[o].value;
    if (o < 0) continue;
    found++;
    if (a->operands[a->carry[k].in].optimality < 0 ||
        !same_shape(&f->values[f->outputs[o].value], &step->values[a->operands[a->carry[k].in].value]) ||
        f->values[f->outputs[o].value].axis >= 0)
      return mica_error(MICA_ERR_SHAPE, "output '%s' of %s does not have the shape of the carry", name, f->name);
  }
  if (!found || found != f->n_outputs)
    return mica_error(MICA_ERR_SHAPE, "optimality program %s has %d outputs, expected F.<carry> for adapted carries "
                      "alone; %d of them are", f->name, f->n_outputs, found);
  return MICA_OK;
}

/* ---- the descriptor ---- */

static void set_faces(mica_operand *o, uint8_t forward, uint8_t backward, uint8_t to_forward, uint8_t to_backward) {
  memset(o->reads, 0, sizeof o->reads);
  memset(o->writes, 0, sizeof o->writes);
  o->reads[MICA_FORWARD] = forward;
  o->reads[MICA_BACKWARD] = backward;
  o->writes[MICA_FORWARD] = to_forward;
  o->writes[MICA_BACKWARD] = to_backward;
}

static mica_status describe(micah_adapt *a, const uint8_t *stepped, const mica_carry *carry) {
  mica_program *step = a->step;
  const mica_adapt_options *opt = &a->options;
  const mica_dim *dims = micah_inner_dims(step);
  int32_t n_in = step->n_inputs + step->n_params, n_rows = step->n_outputs - a->n_carry, at = n_in;
  int32_t n = n_in + n_rows + a->n_carry * (micah_adapt_kept(opt) > 0 ? 2 : 1);
  mica_operand *operands = micah_region_alloc(&a->region, n, sizeof *operands);
  a->operands = micah_region_alloc(&a->region, n, sizeof *a->operands);
  a->carry = micah_region_alloc(&a->region, a->n_carry, sizeof *a->carry);
  if (!dims) return MICA_ERR_UNSUPPORTED;
  if (!operands || !a->operands || !a->carry) return MICA_ERR_MEMORY;
  a->op = (mica_op) { .size = sizeof(mica_op), .name = "adapt", .doc = "an inner loop of gradient steps",
                      .args_size = offsetof(micah_inner_args, ports) + (size_t)n * sizeof(mica_port), .dims = dims,
                      .n_dims = 1 + step->n_axes, .operands = operands, .n_operands = n, .budget = 2 };
  mica_status status = MICA_OK;
  for (int32_t i = 0; status >= 0 && i < n_in; i++) {
    micah_adapt_operand *o = &a->operands[i];
    o->value = i < step->n_inputs ? step->inputs[i] : step->params[i - step->n_inputs];
    o->optimality = -1;
    o->kind = stepped[i] ? MICAH_ADAPT_STEPPED : MICAH_ADAPT_OUTER;
    const micah_value *v = &step->values[o->value];
    o->count = v->count;
    int index = v->dtype >= MICA_I32;
    uint32_t role = index ? MICA_INDEX : v->kind == MICA_VALUE_PARAM ? MICA_IN | MICA_PARAM : MICA_IN;
    status = micah_inner_operand(&a->region, step, o->value, v->name, role, stepped[i] ? opt->steps : 0, i,
                                 &operands[i]);
    set_faces(&operands[i], MICA_V, MICA_V, 0, index ? 0 : MICA_D);
    for (int32_t k = 0; k < a->n_carry; k++)
      if (!strcmp(carry[k].input, v->name)) o->kind = MICAH_ADAPT_CARRY, o->carry = k, a->carry[k].in = i;
  }
  for (int32_t i = 0; status >= 0 && i < step->n_outputs; i++) {
    int is_carry = 0;
    for (int32_t k = 0; k < a->n_carry; k++) is_carry |= !strcmp(carry[k].output, step->outputs[i].name);
    if (is_carry) continue;
    int32_t value = step->outputs[i].value;
    a->operands[at] = (micah_adapt_operand){ MICAH_ADAPT_ROW, -1, value, step->values[value].count, -1 };
    status = micah_inner_operand(&a->region, step, value, step->outputs[i].name, MICA_OUT, opt->steps, at,
                                 &operands[at]);
    set_faces(&operands[at++], 0, MICA_D, MICA_V, 0);
  }
  for (int32_t k = 0; status >= 0 && k < a->n_carry; k++) {
    char name[300];
    int32_t value = step->outputs[output_named(step, carry[k].output)].value;
    const micah_value *v = &step->values[value];
    snprintf(name, sizeof name, "last.%s", carry[k].output);
    a->carry[k].last = at;
    a->carry[k].count = v->count;
    a->carry[k].residual = -1;
    a->operands[at] = (micah_adapt_operand){ MICAH_ADAPT_LAST, k, value, v->count, -1 };
    status = micah_inner_operand(&a->region, step, value, name, MICA_OUT, 0, at, &operands[at]);
    set_faces(&operands[at++], 0, opt->method == MICA_ADAPT_IMPLICIT ? MICA_V | MICA_D : MICA_D, MICA_V, 0);
  }
  /* kept theta_k lie step by step, all tasks of one step together: the shape says how much */
  for (int32_t k = 0; status >= 0 && k < a->n_carry && micah_adapt_kept(opt) > 0; k++) {
    char name[300];
    int64_t all = micah_adapt_kept(opt) * a->carry[k].count;
    snprintf(name, sizeof name, "kept.%s", carry[k].output);
    a->carry[k].kept = at;
    a->operands[at] = (micah_adapt_operand){ MICAH_ADAPT_KEPT, k, a->operands[a->carry[k].last].value,
                                             a->carry[k].count, -1 };
    operands[at] = (mica_operand){ .name = micah_region_text(&a->region, name), .role = MICA_SAVED,
                                   .shape = micah_port_shape(&a->region, NULL, 1, &all) };
    operands[at].offset = offsetof(micah_inner_args, ports) + (size_t)at * sizeof(mica_port);
    if (!operands[at].name || !operands[at].shape) return MICA_ERR_MEMORY;
    set_faces(&operands[at++], 0, MICA_V, MICA_V, 0);
  }
  return status < 0 || !a->optimality ? status : match_optimality(a, n_in);
}

/* ---- the public call ---- */

static mica_status make(mica_program *program, const mica_program *step, const mica_adapt_options *options,
                        const uint8_t *stepped, int32_t n_carry, const mica_carry *carry, micah_adapt **out) {
  micah_region region = { mica_context_get_allocator(program->context), NULL, 0 };
  micah_adapt *a = *out = micah_region_alloc(&region, 1, sizeof *a);
  if (!a) return MICA_ERR_MEMORY;
  a->region = region;
  atomic_init(&a->refs, 1);
  a->step = (mica_program *)(uintptr_t)step;
  atomic_fetch_add(&a->step->refs, 1);
  a->options = *options;
  a->n_carry = n_carry;
  if (options->method == MICA_ADAPT_IMPLICIT) {
    a->optimality = (mica_program *)(uintptr_t)options->optimality;
    atomic_fetch_add(&a->optimality->refs, 1);
  }
  return describe(a, stepped, carry);
}

/* a value that has its own part for every step: the shape of the input with the steps in front */
static int is_stepped(const mica_program *program, mica_value value, const micah_value *input, int64_t steps) {
  if (!micah_valid(program, value)) return 0;
  const micah_value *v = &program->values[value];
  return v->axis < 0 && input->axis < 0 && v->rank == input->rank + 1 && v->shape[0] == steps &&
         !memcmp(v->shape + 1, input->shape, sizeof *v->shape * (size_t)input->rank);
}

mica_value mica_program_adapt(mica_program *program, const char *name, const mica_program *step,
                              const mica_adapt_options *options, int32_t n, const mica_bind *binds, int32_t n_carry,
                              const mica_carry *carry) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  micah_replay r = { .program = program, .sub = step, .name = name && *name ? name : "adapt", .level = program->level };
  if (!options || n < 0 || (n && !binds))
    return micah_fail(program, MICA_ERR_INVALID, "%s: no options or binds", r.name);
  if (!step || !step->sealed || step == program)
    return micah_fail(program, MICA_ERR_STATE, "%s: the step program is not sealed", r.name);
  char cause[700];
  if ((status = check_options(options)) < 0 || (status = check_carries(step, n_carry, carry)) < 0) {
    snprintf(cause, sizeof cause, "%s", mica_last_error());
    return micah_fail(program, status, "%s: %s", r.name, cause);
  }
  /* the first part of what is different at every step stands for it while the ports are checked */
  int32_t n_in = step->n_inputs + step->n_params;
  mica_bind *all = micah_region_alloc(&program->region, n_in + n, sizeof *all);
  uint8_t *stepped = micah_region_alloc(&program->region, n_in, 1);
  if (!all || !stepped) return micah_fail_last(program, MICA_ERR_MEMORY);
  for (int32_t i = 0; i < n; i++) {
    all[i] = binds[i];
    mica_value inner = bindable(step, binds[i].port ? binds[i].port : "");
    if (inner < 0 || !is_stepped(program, binds[i].value, &step->values[inner], options->steps)) continue;
    mica_value part = mica_program_slice(program, binds[i].value, 0, 1);
    all[i].value = part < 0 ? part : mica_program_reshape(program, part, step->values[inner].rank,
                                                          step->values[inner].shape);
    if (all[i].value < 0) return all[i].value;
    for (int32_t k = 0; k < n_in; k++)
      if ((k < step->n_inputs ? step->inputs[k] : step->params[k - step->n_inputs]) == inner) stepped[k] = 1;
    for (int32_t k = 0; k < n_carry; k++)
      if (!strcmp(carry[k].input, binds[i].port))
        return micah_fail(program, MICA_ERR_SHAPE, "%s: carry '%s' starts from '%s', which has a part for every step",
                          r.name, carry[k].input, program->values[binds[i].value].name);
  }
  if ((status = micah_replay_start(&r, n, all)) < 0 || (status = micah_inner_dense(&r)) < 0) return status;
  for (int32_t i = 0; i < n; i++) {
    mica_value inner = bindable(step, binds[i].port);
    for (int32_t k = 0; k < n_in; k++)
      if (stepped[k] && (k < step->n_inputs ? step->inputs[k] : step->params[k - step->n_inputs]) == inner)
        r.values[inner] = binds[i].value;
  }
  micah_adapt *a;
  mica_value first = -1;
  status = make(program, step, options, stepped, n_carry, carry, &a);
  if (status < 0) {
    snprintf(cause, sizeof cause, "%s", mica_last_error());
    micah_fail(program, status, "%s: %s", r.name, cause);
  } else {
    for (int32_t i = 0; i < n_in; i++)
      all[i] = (mica_bind){ a->op.operands[i].name, r.values[a->operands[i].value] };
    first = add(program, r.name, a, r.axes, n_in, all);
    status = first < 0 ? first : MICA_OK;
  }
  if (a) release(a);  /* the entry holds it now */
  return status < 0 ? status : micah_inner_results(program, r.name);
}

