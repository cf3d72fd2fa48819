#include "host/engine/inner.h"

#include <stdio.h>
#include <string.h>

#include "host/device/context.h"
#include "host/engine/job.h"
#include "mica/adapt.h"

#define KEY(field, type, value, lo, hi, choices, doc) \
  { #field, type, offsetof(micah_inner_settings, field), value, lo, hi, choices, doc }

static const mica_key keys[] = {
  KEY(steps, MICA_KEY_INT, "1", 1, 1 << 20, NULL, "steps of the inner loop, on the support of each task"),
  KEY(method, MICA_KEY_CHOICE, "unrolled", 0, 0,
      "unrolled|first_order|reptile|truncated|implicit|forward|bootstrapped|zero_order",
      "how the gradient goes back through the inner loop"),
  KEY(update, MICA_KEY_CHOICE, "sgd", 0, 0, "sgd|momentum|adam", "inner update"),
  KEY(lr, MICA_KEY_REAL, "0.01", 0, 1e3, NULL, "inner learning rate, where it starts when it is learned"),
  KEY(rates, MICA_KEY_CHOICE, "one", 0, 0, "one|tensor|element", "learning rates: one, one a tensor, one a number"),
  KEY(per_step, MICA_KEY_BOOL, "no", 0, 0, NULL, "other rates in every step"),
  KEY(learn_rates, MICA_KEY_BOOL, "no", 0, 0, NULL, "rates are meta-parameters"),
  KEY(trained, MICA_KEY_STRING, "all", 0, 0, NULL,
      "parameters that are adapted: all, or names with commas between; * is any text"),
  KEY(momentum, MICA_KEY_REAL, "0.9", 0, 1, NULL, "of update momentum"),
  KEY(beta1, MICA_KEY_REAL, "0.9", 0, 0.999999999, NULL, "of update adam"),
  KEY(beta2, MICA_KEY_REAL, "0.999", 0, 0.999999999, NULL, "of update adam"),
  KEY(eps, MICA_KEY_REAL, "1e-8", 1e-30, 1, NULL, "of update adam; its square is added inside the root too"),
  KEY(proximal, MICA_KEY_REAL, "0", 0, 1e6, NULL,
      "proximal / 2 x squared distance to the initial weights, added to the inner loss"),
  KEY(learn_proximal, MICA_KEY_BOOL, "no", 0, 0, NULL, "proximal is a meta-parameter"),
  KEY(checkpoints, MICA_KEY_BOOL, "no", 0, 0, NULL,
      "keep about sqrt(steps) of the inner weights and step through again between them. changes no bit"),
  KEY(keep, MICA_KEY_INT, "0", 0, 1 << 24, NULL,
      "MiB: where the activations of all steps fit, they are kept, else each step is run down again. changes no bit"),
  KEY(last, MICA_KEY_INT, "1", 1, 1 << 20, NULL, "truncated: steps that the gradient goes back through"),
  KEY(solver, MICA_KEY_CHOICE, "cg", 0, 0, "cg|neumann|dense|nystroem", "implicit: solver"),
  KEY(iterations, MICA_KEY_INT, "5", 1, 1 << 20, NULL,
      "implicit: most steps of cg, terms of neumann, columns of nystroem"),
  KEY(tolerance, MICA_KEY_REAL, "0", 0, 1, NULL,
      "implicit: relative residual that a task must reach, else it adds nothing; 0: all iterations, all tasks"),
  KEY(damping, MICA_KEY_REAL, "0", 0, 1e6, NULL, "implicit: added to the diagonal"),
  KEY(neumann_rate, MICA_KEY_REAL, "0.1", 1e-30, 1e6, NULL, "implicit: step of neumann"),
  KEY(further, MICA_KEY_INT, "5", 1, 1 << 20, NULL,
      "bootstrapped: steps beyond the adapted weights, to the target that these are drawn to"),
  KEY(directions, MICA_KEY_INT, "16", 1, 1 << 20, NULL, "zero_order: random directions, each tried both ways"),
  KEY(sigma, MICA_KEY_REAL, "1e-3", 1e-12, 1e3, NULL, "zero_order: step along a direction"),
  KEY(direction, MICA_KEY_CHOICE, "normal", 0, 0, "normal|sign", "zero_order: numbers of a direction"),
};

mica_status micah_inner_fill(micah_section *root, micah_inner_settings *out) {
  memset(out, 0, sizeof *out);
  if (!micah_config_has(root, "inner")) return MICA_OK;
  micah_section *section;
  mica_status status = micah_config_section(root, "inner", 0, &section);
  if (status >= 0) status = micah_config_fill(section, keys, MICA_COUNT(keys), NULL, 0, out);
  if (status < 0) return status;
  int learned = out->learn_rates || out->learn_proximal;
  if (out->learn_proximal && !(out->proximal > 0))
    return micah_config_error(section, "learn_proximal", MICA_ERR_CONFIG,
                              "a learned proximal needs a value above 0 to start from");
  if (out->method == MICAH_INNER_REPTILE && learned)
    return micah_config_error(section, "method", MICA_ERR_CONFIG, "reptile moves the initial weights alone; set "
                              "learn_rates and learn_proximal to no");
  if (out->method == MICAH_INNER_IMPLICIT && !(out->proximal > 0))
    return micah_config_error(section, "method", MICA_ERR_CONFIG, "the solution of the inner problem does not depend "
                              "on the initial weights; the implicit method needs inner.proximal above 0");
  if (out->method == MICAH_INNER_IMPLICIT && out->solver == MICA_SOLVE_NYSTROEM && !(out->damping > 0))
    return micah_config_error(section, "damping", MICA_ERR_CONFIG, "nystroem needs a damping above 0");
  if (out->method == MICAH_INNER_IMPLICIT && out->learn_rates)
    return micah_config_error(section, "learn_rates", MICA_ERR_CONFIG,
                              "the solution of the inner problem does not depend on the rates; use another method");
  if (out->method == MICAH_INNER_TRUNCATED && out->last > out->steps)
    return micah_config_error(section, "last", MICA_ERR_CONFIG, "last is %lld, expected at most steps, %lld",
                              (long long)out->last, (long long)out->steps);
  if (out->method == MICAH_INNER_BOOTSTRAPPED && out->per_step && out->further != out->steps)
    return micah_config_error(section, "further", MICA_ERR_CONFIG, "with other rates in every step, further steps are "
                              "as many, %lld; got %lld", (long long)out->steps, (long long)out->further);
  /* these leave the starting values without a gradient: by name, never by accident */
  if (((out->method == MICAH_INNER_TRUNCATED && out->last < out->steps) || out->method == MICAH_INNER_FORWARD) &&
      !learned)
    return micah_config_error(section, "method", MICA_ERR_CONFIG,
                              "this method gives the adapted weights' initial values no gradient and nothing else is "
                              "learned; set learn_rates or learn_proximal, or use unrolled or first_order");
  return MICA_OK;
}

/* ---- the graph ---- */

/* a program of the model and its loss over the query's fields; `mean`: one number a task, else rows */
static mica_status make_model(const micah_job *job, const micah_tasks *t, int mean, int32_t phase, mica_program **out) {
  mica_program *p;
  mica_value inputs[MICAH_MAX_FIELDS];
  mica_status status = mica_program_create(job->context, mean ? "inner" : "outer", &p);
  if (status < 0) return status;
  *out = p;
  mica_program_set_phase(p, mean ? MICA_PHASE_STEP : phase);
  int32_t axes[MICAH_MAX_AXES];
  for (int32_t a = 0; a < t->n_axes; a++) axes[a] = -2;
  for (int32_t i = 0; i < t->n_fields; i++) {
    const mica_field *f = &t->fields[i];
    int32_t axis = t->field_axis[i];
    inputs[i] = -1;
    if (f->role != MICA_FIELD_INPUT && f->role != MICA_FIELD_TARGET && f->role != MICA_FIELD_PLACE &&
        (mean || f->role != MICA_FIELD_WEIGHT)) continue;
    if (axis >= 0 && axes[axis] == -2) axes[axis] = mica_program_axis(p, t->axis_name[axis], MICA_NO_AXIS);
    inputs[i] = mica_program_input(p, f->name, f->dtype, axis < 0 ? MICA_NO_AXIS : axes[axis], f->rank, f->shape);
  }
  int32_t target_axis = t->field_axis[t->target];
  int64_t longest = target_axis < 0 ? 1 : t->longest[target_axis];
  /* positions for the support too */
  int32_t support = micah_tasks_support(t, t->fields[t->target].name);
  int32_t support_axis = support < 0 ? -1 : t->field_axis[support];
  if (support_axis >= 0 && t->longest[support_axis] > longest) longest = t->longest[support_axis];
  mica_value prediction = job->model->build(p, job->model_config, t->fields, inputs, t->n_fields, longest, t->outputs);
  if (prediction < 0) return prediction;
  mica_value loss = job->loss->build(p, job->loss_config, prediction, inputs[t->target],
                                     t->weight < 0 ? -1 : inputs[t->weight]);
  if (loss < 0) return loss;
  if (mean) {
    mica_bind x = { "x", loss };
    int64_t one = 1;
    loss = mica_program_op(p, "mean", "mean", "axis=row", 1, &x);
    loss = mica_program_reshape(p, loss, 0, &one);
    return loss < 0 ? loss : (status = mica_program_output(p, "loss", loss)) < 0 ? status : mica_program_seal(p);
  }
  if ((status = mica_program_output(p, "loss", loss)) >= 0) status = mica_program_output(p, "prediction", prediction);
  return status < 0 ? status : mica_program_seal(p);
}

enum { MOST_BINDS = 4096 };

typedef struct builder {
  const micah_job   *job;
  const micah_tasks *t;
  micah_graph       *g;
  mica_program      *inner, *outer;
  mica_step         *step;
  mica_bind          inside[MOST_BINDS], outside[MOST_BINDS]; /* fields, then parameters, then what the step takes */
  char               name[MOST_BINDS][200];                   /* of ports that are made here */
  int32_t            n_inside, n_outside, n_fields;
  mica_value         init[MOST_BINDS];                        /* [trained] */
} builder;

static mica_status bind_fields(builder *b) {
  const micah_tasks *t = b->t;
  mica_value v;
  mica_value_info info;
  for (int32_t i = 0; (v = mica_program_get_input(b->outer, i)) >= 0; i++) {
    mica_status status = mica_program_info(b->outer, v, &info);
    if (status < 0) return status;
    for (int32_t k = 0; k < t->n_fields; k++)
      if (!strcmp(t->fields[k].name, info.name))
        b->outside[b->n_outside++] = (mica_bind){ t->fields[k].name, b->g->input[k] };
  }
  for (int32_t i = 0; (v = mica_program_get_input(b->inner, i)) >= 0; i++) {
    mica_status status = mica_program_info(b->inner, v, &info);
    if (status < 0) return status;
    int32_t k = micah_tasks_support(t, info.name);
    if (k < 0)
      return mica_error(MICA_ERR_CONFIG, "inner: family %s has no field to adapt to that stands for '%s' (support_NAME "
                        "for query_NAME); choose a family with a support, as few_shot_sinusoid", t->family->name,
                        info.name);
    b->inside[b->n_inside++] = (mica_bind){ info.name, b->g->input[k] };
  }
  b->n_fields = b->n_inside;
  return MICA_OK;
}

/* the model's parameters under their own names: where every task starts */
static mica_status bind_params(builder *b) {
  mica_value v;
  mica_value_info info;
  for (int32_t i = 0; (v = mica_program_get_param(b->inner, i)) >= 0; i++) {
    mica_status status = mica_program_info(b->inner, v, &info);
    if (status < 0) return status;
    if (b->n_inside + 4 > MOST_BINDS)
      return mica_error(MICA_ERR_UNSUPPORTED, "inner: a model of more than %d parameters", (int)MOST_BINDS / 3);
    mica_value made = mica_program_param(b->g->program, info.name, info.rank, info.shape, info.init, info.decay);
    if (made < 0) return made;
    b->inside[b->n_inside++] = (mica_bind){ info.name, made };
    b->outside[b->n_outside++] = (mica_bind){ info.name, made };
    for (int32_t k = 0; k < b->step->n_trained; k++)
      if (b->step->trained[k] == v) b->init[k] = made;
  }
  /* those that the steps do not know: running statistics */
  for (int32_t i = 0; (v = mica_program_get_param(b->outer, i)) >= 0; i++) {
    mica_status status = mica_program_info(b->outer, v, &info);
    if (status < 0) return status;
    if (mica_program_find(b->inner, info.name) >= 0) continue;
    if (b->n_outside >= MOST_BINDS)
      return mica_error(MICA_ERR_UNSUPPORTED, "inner: a model of more than %d parameters", (int)MOST_BINDS / 3);
    mica_value made = mica_program_param(b->g->program, info.name, info.rank, info.shape, info.init, info.decay);
    if (made < 0) return made;
    b->outside[b->n_outside++] = (mica_bind){ info.name, made };
  }
  return MICA_OK;
}

/* a number or a tensor of the inner loop: a meta-parameter where it is learned, else a constant */
static mica_status bind_setting(builder *b, const char *port, double value, int learned, int32_t rank,
                                const int64_t *shape) {
  char name[256];
  if (b->n_inside >= MOST_BINDS)
    return mica_error(MICA_ERR_UNSUPPORTED, "inner: a model of more than %d parameters", (int)MOST_BINDS / 3);
  char *kept = b->name[b->n_inside];
  snprintf(kept, sizeof b->name[0], "%s", port);
  snprintf(name, sizeof name, MICAH_INNER_PREFIX "%s", port);
  mica_init start = { MICA_INIT_CONSTANT, value };
  mica_value made = learned ? mica_program_param(b->g->program, name, rank, shape, start, 0)
                            : mica_program_constant(b->g->program, value, rank, shape);
  b->inside[b->n_inside++] = (mica_bind){ kept, made };
  return made < 0 ? made : MICA_OK;
}

static mica_status bind_settings(builder *b) {
  const micah_inner_settings *s = &b->job->settings.inner;
  int64_t shape[1 + 4] = { s->steps };
  int32_t lead = s->per_step != 0;
  mica_status status = MICA_OK;
  if (s->rates == MICA_RATE_ONE) status = bind_setting(b, "rate", s->lr, s->learn_rates, lead, shape);
  if (status >= 0 && s->proximal > 0)
    status = bind_setting(b, "proximal", s->proximal, s->learn_proximal, 0, shape);
  for (int32_t i = 0; status >= 0 && i < b->step->n_trained; i++) {
    mica_value_info info;
    char port[256];
    if ((status = mica_program_info(b->inner, b->step->trained[i], &info)) < 0) break;
    if (s->rates != MICA_RATE_ONE) {
      int32_t rank = lead;
      for (int32_t k = 0; s->rates == MICA_RATE_ELEMENT && k < info.rank; k++) shape[rank++] = info.shape[k];
      snprintf(port, sizeof port, "rate.%s", info.name);
      status = bind_setting(b, port, s->lr, s->learn_rates, rank, shape);
    }
    if (status < 0 || !(s->proximal > 0)) continue;
    char *kept = b->name[b->n_inside];
    snprintf(kept, sizeof b->name[0], "anchor.%s", info.name);
    b->inside[b->n_inside++] = (mica_bind){ kept, b->init[i] };
  }
  return status;
}

mica_value micah_inner_op(mica_program *p, const char *path, const char *name, const char *set, mica_value a,
                          mica_value b) {
  mica_bind binds[] = { { b < 0 ? "x" : "a", a }, { "b", b } };
  return mica_program_op(p, path, name, set, b < 0 ? 1 : 2, binds);
}

/* sum (-1: none yet) + |a - b|^2 */
static mica_value add_distance(mica_program *p, const char *path, mica_value a, mica_value b, mica_value sum) {
  int64_t one = 1;
  mica_value square = micah_inner_op(p, path, "square", NULL, micah_inner_op(p, path, "sub", NULL, a, b), -1);
  mica_value part = mica_program_reshape(p, micah_inner_op(p, path, "sum", "axis=all", square, -1), 0, &one);
  return part < 0 || sum < 0 ? part : micah_inner_op(p, path, "add", NULL, sum, part);
}

/* rows with their own values, and with the gradient of half of `sum` in each */
static mica_value gradient_of(mica_program *p, const char *path, mica_value sum, mica_value rows) {
  sum = micah_inner_op(p, path, "scale", "alpha=0.5", sum, -1);
  mica_value nothing = micah_inner_op(p, path, "sub", NULL, sum, micah_inner_op(p, path, "stop", NULL, sum, -1));
  return micah_inner_op(p, path, "add", NULL, micah_inner_op(p, path, "stop", NULL, rows, -1), nothing);
}

/* rows whose sum, over the tasks' rows, has Reptile's direction as its gradient and the query's loss as its value: half
 * the squared distance to the adapted weights, less its own value */
static mica_value reptile(builder *b, mica_value adapted, mica_value rows) {
  mica_program *p = b->g->program;
  mica_value sum = -1;
  for (int32_t i = 0; i < b->step->n_trained; i++) {
    mica_value_info info;
    char port[256], path[256];
    mica_status status = mica_program_info(b->inner, b->step->trained[i], &info);
    if (status < 0) return status;
    snprintf(port, sizeof port, "last.%s", b->step->carry[i].output);
    snprintf(path, sizeof path, "reptile.%s", info.name);
    mica_value start = mica_program_reshape(p, b->init[i], 1, &info.count);
    mica_value end = mica_program_reshape(p, mica_program_port(p, adapted, port), 1, &info.count);
    if ((sum = add_distance(p, path, start, micah_inner_op(p, path, "stop", NULL, end, -1), sum)) < 0) return sum;
  }
  return gradient_of(p, "reptile", sum, rows);
}

/* bootstrapped meta-learning (Flennerhag et al. 2022): half the squared distance of the adapted weights to where
 * further steps would take them, which is a constant */
static mica_value bootstrapped(builder *b, const mica_adapt_options *options, mica_value adapted, mica_value rows) {
  mica_program *p = b->g->program;
  mica_adapt_options onward = *options;
  onward.steps = b->job->settings.inner.further;
  char port[256], path[256];
  mica_bind *binds = micah_alloc(b->job->context, sizeof b->inside, "binds of an inner loop");
  if (!binds) return MICA_ERR_MEMORY;
  memcpy(binds, b->inside, sizeof b->inside);
  for (int32_t i = 0; i < b->n_inside; i++)
    for (int32_t k = 0; k < b->step->n_trained; k++) {
      if (strcmp(binds[i].port, b->step->carry[k].input)) continue;
      snprintf(port, sizeof port, "last.%s", b->step->carry[k].output);
      binds[i].value = mica_program_port(p, adapted, port);
    }
  mica_value target = mica_program_adapt_step(p, "target", b->step, &onward, b->n_inside, binds), sum = -1;
  micah_free(b->job->context, binds, sizeof b->inside);
  for (int32_t i = 0; target >= 0 && i < b->step->n_trained; i++) {
    mica_value_info info;
    mica_status status = mica_program_info(b->inner, b->step->trained[i], &info);
    if (status < 0) return status;
    snprintf(port, sizeof port, "last.%s", b->step->carry[i].output);
    snprintf(path, sizeof path, "target.%s", info.name);
    mica_value here = mica_program_reshape(p, mica_program_port(p, adapted, port), 1, &info.count);
    mica_value there = mica_program_reshape(p, mica_program_port(p, target, port), 1, &info.count);
    if ((sum = add_distance(p, path, here, micah_inner_op(p, path, "stop", NULL, there, -1), sum)) < 0) return sum;
  }
  return target < 0 ? target : gradient_of(p, "target", sum, rows);
}

static mica_status build_all(builder *b) {
  const micah_inner_settings *s = &b->job->settings.inner;
  static const char *const updates[] = { "sgd", "momentum", "adam" };
  static const int32_t methods[] = { MICA_ADAPT_UNROLLED, MICA_ADAPT_UNROLLED, MICA_ADAPT_UNROLLED,
                                     MICA_ADAPT_TRUNCATED, MICA_ADAPT_IMPLICIT, MICA_ADAPT_FORWARD,
                                     MICA_ADAPT_UNROLLED, MICA_ADAPT_ZERO_ORDER };
  mica_status status = make_model(b->job, b->t, 1, 0, &b->inner);
  if (status >= 0) status = make_model(b->job, b->t, 0, mica_program_get_phase(b->g->program), &b->outer);
  if (status < 0) return status;
  mica_step_options step = MICA_STEP_OPTIONS_INIT;
  step.update = updates[s->update], step.trained = s->trained, step.rates = (int32_t)s->rates;
  step.first_order = s->method == MICAH_INNER_FIRST_ORDER || s->method == MICAH_INNER_REPTILE;
  step.proximal = s->proximal > 0;
  step.momentum = s->momentum, step.beta1 = s->beta1, step.beta2 = s->beta2, step.eps = s->eps;
  status = mica_step_create(b->job->context, b->inner, "loss", &step, &b->step);
  if (status >= 0) status = bind_fields(b);
  if (status >= 0) status = bind_params(b);
  if (status >= 0) status = bind_settings(b);
  if (status < 0) return status;
  mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
  adapt.steps = s->steps, adapt.method = methods[s->method], adapt.last = s->last, adapt.checkpoints = s->checkpoints;
  adapt.keep = s->keep << 20;
  adapt.solver = (int32_t)s->solver, adapt.iterations = s->iterations, adapt.tolerance = s->tolerance;
  adapt.damping = s->damping, adapt.rate = s->neumann_rate;
  adapt.directions = s->directions, adapt.sigma = s->sigma, adapt.direction = (int32_t)s->direction;
  mica_program *p = b->g->program;
  mica_value adapted = mica_program_adapt_step(p, "inner", b->step, &adapt, b->n_inside, b->inside);
  if (adapted < 0) return adapted;
  for (int32_t i = 0; i < b->n_outside; i++)
    for (int32_t k = 0; k < b->step->n_trained; k++) {
      char port[256];
      if (strcmp(b->outside[i].port, b->step->carry[k].input)) continue;
      snprintf(port, sizeof port, "last.%s", b->step->carry[k].output);
      b->outside[i].value = mica_program_port(p, adapted, port);
    }
  mica_value result = mica_program_call(p, "outer", b->outer, b->n_outside, b->outside);
  if (result < 0) return result;
  b->g->prediction = mica_program_port(p, result, "prediction");
  b->g->loss = mica_program_port(p, result, "loss");
  const char *name;
  for (int32_t i = 0; (name = mica_program_output_name(b->outer, i)); i++) {
    if (strncmp(name, MICAH_AVERAGE_PREFIX, strlen(MICAH_AVERAGE_PREFIX))) continue;
    if ((status = mica_program_output(p, name, mica_program_port(p, result, name))) < 0) return status;
  }
  if (s->method == MICAH_INNER_REPTILE) b->g->loss = reptile(b, adapted, b->g->loss);
  if (s->method == MICAH_INNER_BOOTSTRAPPED) b->g->loss = bootstrapped(b, &adapt, adapted, b->g->loss);
  return b->g->loss < 0 ? b->g->loss : b->g->prediction < 0 ? b->g->prediction : MICA_OK;
}

mica_status micah_inner_build(const micah_job *job, const micah_tasks *tasks, micah_graph *graph) {
  builder *b = micah_alloc(job->context, sizeof *b, "the graph of an inner loop");
  if (!b) return MICA_ERR_MEMORY;
  memset(b, 0, sizeof *b);
  b->job = job, b->t = tasks, b->g = graph;
  mica_status status = build_all(b);
  mica_step_destroy(b->step);
  mica_program_destroy(b->inner);
  mica_program_destroy(b->outer);
  micah_free(job->context, b, sizeof *b);
  return status;
}
