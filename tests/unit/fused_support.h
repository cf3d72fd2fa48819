/* fused_support.h: the inner loop of a small network in one kernel against the steps one by one in double, for every
 * shape, for any packing */
#ifndef MICA_TEST_FUSED_SUPPORT_H
#define MICA_TEST_FUSED_SUPPORT_H

#include "adapt_support.h"
#include "mica/adapt.h"

enum { FEW = 5, MANY = 37 };           /* MANY: more than a vector has lanes, and a part of one */
static int tasks = FEW;

typedef struct shape {
  int         layers;
  int64_t     width[5], rows;
  const char *act;
  int         bias, rates, stepped, first_order;
  int64_t     steps, last;             /* last 0: not truncated */
  int         checkpoints, labels;     /* labels: cross entropy in place of squares */
} shape;

/* an input y, or labels */
static inline mica_value target(mica_program *p, const shape *s, const char *name, int32_t axis) {
  if (s->labels) return mica_program_input(p, name, MICA_I32, axis, 0, NULL);
  return mica_program_input(p, name, MICA_F32, axis, 1, &s->width[s->layers]);
}

static inline mica_program *network(mica_context *context, const shape *s) {
  mica_program *p;
  OK(mica_program_create(context, "network", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &s->width[0]);
  mica_value y = target(p, s, "y", point);
  for (int l = 0; l < s->layers; l++) {
    char w[16], b[16], act[24];
    snprintf(w, sizeof w, "w%d", l), snprintf(b, sizeof b, "b%d", l), snprintf(act, sizeof act, "act=%s", s->act);
    mica_bind binds[] = { { "x", x }, { "w", param(p, w, s->width[l + 1], s->width[l]) }, { "b", -1 } };
    if (s->bias) binds[2].value = param(p, b, s->width[l + 1], 0);
    x = mica_program_op(p, w, "linear", l + 1 < s->layers ? act : NULL, s->bias ? 3 : 2, binds);
  }
  mica_value rows = s->labels ? op2(p, "rows", "cross_entropy", NULL, "logits", x, "label", y)
                              : op2(p, "rows", "mse", NULL, "pred", x, "target", y);
  mica_value mean = op1(p, "mean", "mean", "axis=row", "x", rows);
  OK(mica_program_output(p, "loss", mica_program_reshape(p, mean, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

/* outputs: the query's loss, and every inner loss */
static inline mica_program *few_shot(mica_context *context, const shape *s) {
  mica_program *loss = network(context, s), *p;
  mica_step_options options = MICA_STEP_OPTIONS_INIT;
  options.rates = s->rates, options.first_order = s->first_order;
  mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
  adapt.steps = s->steps, adapt.checkpoints = s->checkpoints;
  if (s->last) adapt.method = MICA_ADAPT_TRUNCATED, adapt.last = s->last;
  mica_step *step;
  OK(mica_step_create(context, loss, "loss", &options, &step));
  OK(mica_program_create(context, "few shot", &p));
  int32_t support = mica_program_axis(p, "support", MICA_NO_AXIS), query = mica_program_axis(p, "query", MICA_NO_AXIS);
  mica_bind inside[32], outside[32];
  char names[32][32];
  int n = 0, m = 0;
  inside[n++] = (mica_bind){ "x", mica_program_input(p, "sx", MICA_F32, support, 1, &s->width[0]) };
  outside[m++] = (mica_bind){ "x", mica_program_input(p, "qx", MICA_F32, query, 1, &s->width[0]) };
  inside[n++] = (mica_bind){ "y", target(p, s, "sy", support) };
  outside[m++] = (mica_bind){ "y", target(p, s, "qy", query) };
  mica_value v;
  int first = n;
  for (int i = 0; (v = mica_program_get_param(loss, i)) >= 0; i++) {
    mica_value_info info;
    OK(mica_program_info(loss, v, &info));
    inside[n++] = (mica_bind){ info.name, mica_program_param(p, info.name, info.rank, info.shape, info.init, 0) };
  }
  int last = n;
  for (int k = s->rates == MICA_RATE_ONE ? last - 1 : first; k < last; k++) {
    snprintf(names[n], sizeof names[n], s->rates == MICA_RATE_ONE ? "rate" : "rate.%s", inside[k].port);
    v = mica_program_param(p, names[n], s->stepped, &s->steps, (mica_init){ 0, 0 }, 0);
    inside[n] = (mica_bind){ names[n], v };
    n++;
  }
  mica_value adapted = mica_program_adapt_step(p, "inner", step, &adapt, n, inside);
  OK(adapted);
  for (int k = first; k < last; k++) {
    char port[48];
    snprintf(port, sizeof port, "last.next.%s", inside[k].port);
    outside[m++] = (mica_bind){ inside[k].port, mica_program_port(p, adapted, port) };
  }
  OK(mica_program_output(p, "query", mica_program_call(p, "outer", loss, m, outside)));
  OK(mica_program_output(p, "inner", mica_program_port(p, adapted, "loss")));
  OK(mica_program_seal(p));
  mica_step_destroy(step);
  mica_program_destroy(loss);
  return p;
}

static int32_t ragged[MANY + 1];

static inline bench bench_of(const shape *s, mica_program *p, int per_task, int is_ragged) {
  bench b = { .program = p, .fused = 1, .tasks = tasks, .per_task = per_task, .params_only = 1,
              .index_range = s->width[s->layers] };
  b.rows[0] = b.rows[1] = tasks * s->rows;
  b.longest[0] = b.longest[1] = s->rows;
  static const int32_t sizes[] = { 1, 3, 2, 0, 3 };
  for (int t = 0; t < tasks; t++) ragged[t + 1] = ragged[t] + sizes[t % 5];
  if (is_ragged) b.offsets[0] = ragged, b.rows[0] = ragged[tasks], b.longest[0] = 3;
  b.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  bench_fill(&b, 41);
  for (int i = 0; i < b.n_inputs; i++)  /* some rows are ignored */
    for (int64_t k = 2; b.index[i] && k < b.input_count[i]; k += 7) b.index[i][k] = -1;
  /* weights of the size that training starts from, so that no step runs away */
  mica_value v;
  for (int i = 0; (v = mica_program_get_param(p, i)) >= 0; i++) {
    mica_value_info info;
    OK(mica_program_info(p, v, &info));
    double scale = info.rank == 2 ? 1 / sqrt((double)info.shape[1]) : strncmp(info.name, "rate", 4) ? 1 : 0.2;
    for (int t = 0; t < (per_task ? tasks : 1); t++)
      for (int64_t k = 0; k < info.count; k++)
        b.param[0][t * mica_program_param_count(p) + info.offset + k] *= scale;
  }
  return b;
}

static char where[64];

/* within the rounding of the steps one by one in float, whose own error is the yardstick: `parts` of n numbers,
 * `stride` apart, as one */
static inline void compare(const double *got, const double *naive, const double *expected, int64_t n, int64_t parts,
                    int64_t stride, const char *what) {
  double scale = 0, error = 0;
  for (int64_t i = 0; i < n * parts; i++) {
    int64_t at = i / n * stride + i % n;
    scale = fmax(scale, fabs(expected[at]));
    error = fmax(error, fabs(naive[at] - expected[at]));
  }
  for (int64_t i = 0; i < n * parts; i++) {
    int64_t at = i / n * stride + i % n;
    if (!(fabs(got[at] - expected[at]) <= 3e-5 * scale + 4 * error))
      fail_msg("%s: %s[%d]: %.9g, in double %.9g (scale %g, error of the steps in float %g)", where, what, (int)i,
               got[at], expected[at], scale, error);
  }
}

/* which way it went */
static inline void went(const mica_executor *x, void *expected) {
  const char *path;
  OK(mica_adapt_get_path(x, 0, &path));
  assert_string_equal(path, (const char *)expected);
}

/* a backend's kernel against the steps; `fused`: passes run at once, so that the query is in the kernel too */
static inline void check(mica_context *context, const shape *s, int backend, int fused, int first_kind) {
  mica_program *p = few_shot(context, s);
  for (int kind = first_kind; kind < 4; kind++) {
    snprintf(where, sizeof where, "%d layers of %s, %d, %s", s->layers, s->act, kind, fused ? "and the loss" : "alone");
    bench exact = bench_of(s, p, kind & 1, kind >> 1), naive = bench_of(s, p, kind & 1, kind >> 1),
          quick = bench_of(s, p, kind & 1, kind >> 1);
    exact.backend = naive.backend = MICA_REF, exact.dtype = MICA_F64;
    quick.backend = backend, naive.dtype = quick.dtype = MICA_F32;
    quick.fused = fused;
    naive.look = quick.look = went, naive.look_to = (void *)"steps", quick.look_to = (void *)(fused ? "mlp+loss" : "mlp");
    bench_run(context, &exact);
    bench_run(context, &naive);
    bench_run(context, &quick);
    for (int i = 0; i < 2; i++)
      compare(quick.output[i][0], naive.output[i][0], exact.output[i][0], exact.output_count[i], 1, 0,
              i ? "inner" : "query");
    mica_value v;
    for (int i = 0; (v = mica_program_get_param(p, i)) >= 0; i++) {
      mica_value_info info;
      OK(mica_program_info(p, v, &info));
      compare(quick.param[1] + info.offset, naive.param[1] + info.offset, exact.param[1] + info.offset, info.count,
              kind & 1 ? tasks : 1, mica_program_param_count(p), info.name);
    }
    /* losses alone are the same numbers */
    bench forward = bench_of(s, p, kind & 1, kind >> 1);
    forward.backend = backend, forward.dtype = MICA_F32, forward.passes = MICA_PASS_FORWARD;
    bench_run(context, &forward);
    for (int i = 0; fused && i < 2; i++)
      for (int64_t k = 0; k < quick.output_count[i]; k++)
        if (forward.output[i][0][k] != quick.output[i][0][k]) fail_msg("%s: loss %d alone differs", where, (int)k);
    bench_free(&forward);
    bench_free(&exact);
    bench_free(&naive);
    bench_free(&quick);
  }
  mica_program_destroy(p);
}

#endif
