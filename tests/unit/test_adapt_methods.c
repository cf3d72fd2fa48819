/* hypergradients by other methods than sweeps: Nystroem's solves, directions without derivatives, looking one step
 * ahead; data that see theta_k, every theta_k, block preconditioners; cold and warm starts */
#include "adapt_support.h"
#include "mica/adapt.h"

enum { ROWS = 5, N = 3, TASKS = 4 };
static const double rate = 0.1;

/* sum of weight (x . w - y)^2 over the rows */
static mica_program *regression(mica_context *context) {
  mica_program *p;
  OK(mica_program_create(context, "regression", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t in = N, one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, point, 1, &one);
  mica_value weight = mica_program_input(p, "weight", MICA_F32, point, 1, &one);
  mica_value out = op2(p, "out", "linear", NULL, "x", x, "w", param(p, "w", 1, N));
  mica_value rows = op2(p, "rows", "mse", NULL, "pred", out, "target", y);
  rows = op2(p, "weighted", "mul", NULL, "a", rows, "b", weight);
  mica_value sum = op1(p, "loss", "sum", "axis=row", "x", rows);
  OK(mica_program_output(p, "loss", mica_program_reshape(p, sum, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

/* inputs: x, y, weight of the inner loss, then of the outer one; parameters: start, anchor, proximal */
enum { IN_X, IN_Y, IN_WEIGHT, OUT_X, OUT_Y, OUT_WEIGHT };
enum { AT_START = 0, AT_ANCHOR = N, AT_PROXIMAL = 2 * N };

static mica_program *bilevel(mica_context *context, const mica_adapt_options *adapt, int from_zero) {
  mica_program *loss = regression(context), *p;
  mica_step_options options = MICA_STEP_OPTIONS_INIT;
  options.proximal = 1;
  mica_step *step;
  OK(mica_step_create(context, loss, "loss", &options, &step));
  OK(mica_program_create(context, "bilevel", &p));
  int32_t train = mica_program_axis(p, "train", MICA_NO_AXIS), test = mica_program_axis(p, "test", MICA_NO_AXIS);
  int64_t in = N, one = 1, shape[] = { 1, N };
  mica_value inputs[6];
  for (int i = 0; i < 6; i++) {
    static const char *const names[] = { "x", "y", "weight", "test_x", "test_y", "test_weight" };
    inputs[i] = mica_program_input(p, names[i], MICA_F32, i < 3 ? train : test, 1, i % 3 ? &one : &in);
  }
  mica_value start = param(p, "start", 1, N), anchor = param(p, "anchor", 1, N);
  mica_value proximal = mica_program_param(p, "proximal", 0, &one, (mica_init){ 0, 0 }, 0);
  if (from_zero) start = mica_program_constant(p, 0, 2, shape);
  mica_bind binds[] = { { "x", inputs[0] }, { "y", inputs[1] }, { "weight", inputs[2] }, { "w", start },
                        { "anchor.w", anchor }, { "proximal", proximal },
                        { "rate", mica_program_constant(p, rate, 0, NULL) } };
  mica_value adapted = mica_program_adapt_step(p, "inner", step, adapt, 7, binds);
  OK(adapted);
  mica_value w = mica_program_port(p, adapted, "last.next.w");
  mica_bind outer[] = { { "x", inputs[3] }, { "y", inputs[4] }, { "weight", inputs[5] }, { "w", w } };
  OK(mica_program_output(p, "test", mica_program_call(p, "outer", loss, 4, outer)));
  OK(mica_program_seal(p));
  mica_step_destroy(step);
  mica_program_destroy(loss);
  return p;
}

static bench bench_of(mica_program *p, int with_inputs) {
  bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = TASKS, .per_task = 1 };
  b.rows[0] = b.rows[1] = TASKS * ROWS;
  b.longest[0] = b.longest[1] = ROWS;
  b.params_only = !with_inputs;
  b.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  bench_fill(&b, 17);
  for (int t = 0; t < TASKS; t++) {
    b.param[0][t * (b.param_count / TASKS) + AT_PROXIMAL] = 0.5 + 0.25 * t;
    b.output[0][1][t] = 1;
  }
  for (int r = 0; r < TASKS * ROWS; r++) b.input[IN_WEIGHT][0][r] = b.input[OUT_WEIGHT][0][r] = 1 + 0.05 * (r % 7);
  return b;
}

static const double *of_task(const bench *b, int wire, int t) { return b->param[wire] + t * (b->param_count / TASKS); }

/* the gradient of a weighted sum of squares at w, and its Hessian */
static void slope(const bench *b, int x, int t, const double *w, double *g, double h[N][N]) {
  for (int i = 0; i < N; i++) g[i] = 0;
  for (int i = 0; h && i < N * N; i++) h[i / N][i % N] = 0;
  for (int r = t * ROWS; r < (t + 1) * ROWS; r++) {
    const double *row = b->input[x][0] + r * N;
    double weight = b->input[x + 2][0][r], e = -b->input[x + 1][0][r];
    for (int i = 0; i < N; i++) e += row[i] * w[i];
    for (int i = 0; i < N; i++) {
      g[i] += 2 * weight * e * row[i];
      for (int j = 0; h && j < N; j++) h[i][j] += 2 * weight * row[i] * row[j];
    }
  }
}

/* a x = b by elimination; a is lost */
static void solve(int n, double *a, const double *rhs, double *x) {
  for (int i = 0; i < n; i++) x[i] = rhs[i];
  for (int k = 0; k < n; k++)
    for (int i = 0; i < n; i++) {
      double f = a[i * n + k] / a[k * n + k];
      for (int j = k; i != k && j < n; j++) a[i * n + j] -= f * a[k * n + j];
      if (i != k) x[i] -= f * x[k];
    }
  for (int i = 0; i < n; i++) x[i] /= a[i * n + i];
}

/* v of (H C-columns stand for H + damping) v = u, by its definition: H_C S^-1 H_C^T + damping, solved whole */
static void nystroem(double h[N][N], const int *columns, int rank, double damping, const double *u, double *v) {
  double whole[N * N] = { 0 };
  for (int j = 0; j < N; j++) {
    double small[N * N], rhs[N], y[N];
    for (int a = 0; a < rank; a++) {
      for (int c = 0; c < rank; c++) small[a * rank + c] = h[columns[a]][columns[c]];
      rhs[a] = h[columns[a]][j];
    }
    solve(rank, small, rhs, y);
    for (int i = 0; i < N; i++)
      for (int a = 0; a < rank; a++) whole[i * N + j] += h[i][columns[a]] * y[a];
    whole[j * N + j] += damping;
  }
  solve(N, whole, u, v);
}

static void test_nystroem(void **state) {
  (void)state;
  static const int sets[][3] = { { 0 }, { 1 }, { 2 }, { 0, 1 }, { 0, 2 }, { 1, 2 }, { 0, 1, 2 } };
  static const int ranks[] = { 1, 1, 1, 2, 2, 2, 3 };
  mica_context *context = context_with(2);
  double last = INFINITY;
  for (int rank = 1; rank <= N; rank++) {
    mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
    adapt.steps = 600, adapt.method = MICA_ADAPT_IMPLICIT, adapt.solver = MICA_SOLVE_NYSTROEM;
    adapt.iterations = rank, adapt.damping = 0.3, adapt.tolerance = 0;
    mica_program *p = bilevel(context, &adapt, 0);
    bench b = bench_of(p, 0);
    bench_run(context, &b);
    double worst = 0;
    for (int t = 0; t < TASKS; t++) {
      const double *value = of_task(&b, 0, t), *d = of_task(&b, 1, t);
      double zero[N] = { 0 }, g[N], h[N][N], copy[N * N], w[N], u[N], v[N], exact[N];
      slope(&b, IN_X, t, zero, g, h);
      for (int i = 0; i < N; i++) {
        h[i][i] += value[AT_PROXIMAL];
        g[i] = value[AT_PROXIMAL] * value[AT_ANCHOR + i] - g[i];
      }
      memcpy(copy, h, sizeof copy);
      solve(N, copy, g, w);
      slope(&b, OUT_X, t, w, u, NULL);
      /* the columns are the solver's choice: one set of this size fits every number */
      int fits = 0;
      for (int s = 0; s < MICA_COUNT(sets); s++) {
        if (ranks[s] != rank) continue;
        nystroem(h, sets[s], rank, adapt.damping, u, v);
        double off = 0;
        for (int i = 0; i < N; i++) off = fmax(off, fabs(value[AT_PROXIMAL] * v[i] - d[AT_ANCHOR + i]));
        fits += off < 1e-9;
      }
      assert_int_equal(fits, 1);
      nystroem(h, sets[6], N, adapt.damping, u, exact);
      for (int i = 0; i < N; i++) worst = fmax(worst, fabs(value[AT_PROXIMAL] * exact[i] - d[AT_ANCHOR + i]));
    }
    last = worst;
    bench_free(&b);
    mica_program_destroy(p);
  }
  /* all columns are the damped solution */
  assert_true(last < 1e-9);
  mica_context_destroy(context);
}

/* the steps are linear in start and anchor, so that differences are exact along a direction: what is left is the chance
 * of the directions, which falls as 1 / sqrt(directions) */
static void test_zero_order(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  for (int direction = 0; direction < 2; direction++) {
    double error[2], scale = 0;
    bench exact;
    mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
    adapt.steps = 3;
    mica_program *unrolled = bilevel(context, &adapt, 0);
    exact = bench_of(unrolled, 0);
    bench_run(context, &exact);
    for (int many = 0; many < 2; many++) {
      adapt.method = MICA_ADAPT_ZERO_ORDER, adapt.direction = direction, adapt.directions = many ? 6400 : 64;
      mica_program *p = bilevel(context, &adapt, 0);
      bench b = bench_of(p, 0);
      bench_run(context, &b);
      error[many] = scale = 0;
      for (int64_t i = 0; i < b.param_count; i++) {
        assert_true(isfinite(b.param[1][i]));
        error[many] += pow(b.param[1][i] - exact.param[1][i], 2), scale += pow(exact.param[1][i], 2);
      }
      error[many] = sqrt(error[many] / scale);
      bench_free(&b);
      mica_program_destroy(p);
    }
    /* seven numbers a task: sqrt(8 / 64) and a tenth of it, give or take what four tasks leave to chance */
    assert_true(error[0] < 1 && error[1] < 0.1);
    assert_true(error[0] / error[1] > 3 && error[0] / error[1] < 30);
    bench_free(&exact);
    mica_program_destroy(unrolled);
  }
  mica_context_destroy(context);
}

/* one step from a constant: the hypergradient of a row's weight is -rate <outer gradient, the row's gradient> */
static void test_look_ahead(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
  mica_program *p = bilevel(context, &adapt, 1);
  bench b = bench_of(p, 1);
  bench_run(context, &b);
  for (int t = 0; t < TASKS; t++) {
    const double *value = of_task(&b, 0, t);
    double zero[N] = { 0 }, w[N], g[N], u[N];
    slope(&b, IN_X, t, zero, g, NULL);
    for (int i = 0; i < N; i++) w[i] = -rate * (g[i] - value[AT_PROXIMAL] * value[AT_ANCHOR + i]);
    slope(&b, OUT_X, t, w, u, NULL);
    for (int r = t * ROWS; r < (t + 1) * ROWS; r++) {
      double dot = 0;
      for (int i = 0; i < N; i++) dot += u[i] * -2 * b.input[IN_Y][0][r] * b.input[IN_X][0][r * N + i];
      near(b.input[IN_WEIGHT][1][r], -rate * dot, 1e-12, "weight.d", r);
    }
    for (int i = 0; i < N; i++) assert_true(of_task(&b, 1, t)[AT_START + i] == 0);
  }
  bench_free(&b);
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* ---- a loss of one number a task: (theta - c)^2, c its own in every step ---- */

static mica_program *pull(mica_context *context) {
  mica_program *p;
  OK(mica_program_create(context, "pull", &p));
  int64_t two = 2, one = 1;
  mica_value c = mica_program_input(p, "c", MICA_F32, MICA_NO_AXIS, 1, &two);
  mica_value off = op2(p, "off", "sub", NULL, "a", param(p, "theta", 2, 0), "b", c);
  mica_value sum = op1(p, "sum", "sum", "axis=all", "x", op1(p, "square", "square", NULL, "x", off));
  OK(mica_program_output(p, "loss", mica_program_reshape(p, sum, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

typedef struct stream { double *c; int64_t steps, calls; } stream;

/* c_k = half of theta_k: shown by the call, a constant to the gradient */
static mica_status show(void *user, int64_t step, int64_t tasks, int32_t n_carry, const mica_wire *theta) {
  stream *s = user;
  assert_int_equal(n_carry, 1);
  assert_int_equal(step, s->calls % s->steps);
  for (int64_t b = 0; b < tasks; b++) {
    const double *now = (const double *)theta->data + b * theta->task_stride;
    for (int i = 0; i < 2; i++) s->c[(b * s->steps + step) * 2 + i] = now[i * theta->stride[0]] / 2;
  }
  s->calls++;
  return MICA_OK;
}

static void test_data_that_see_theta(void **state) {
  (void)state;
  enum { STEPS = 4 };
  mica_context *context = context_with(1);
  mica_program *loss = pull(context), *p;
  double start[] = { 1, -2, 0.5, 3 }, c[2 * STEPS * 2] = { 0 }, last[4], every[2 * STEPS * 2], d[4], dc[2 * STEPS * 2];
  double seed[] = { 1, 1, 1, 1 }, r = 0.2;
  stream s = { c, STEPS, 0 };
  mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
  adapt.steps = STEPS, adapt.data = show, adapt.data_user = &s;
  mica_step_options options = MICA_STEP_OPTIONS_INIT;
  options.every = 1;
  mica_step *step;
  OK(mica_step_create(context, loss, "loss", &options, &step));
  OK(mica_program_create(context, "stream", &p));
  int64_t shape[] = { STEPS, 2 };
  mica_value data = mica_program_input(p, "c", MICA_F32, MICA_NO_AXIS, 2, shape), theta = param(p, "theta", 2, 0);
  mica_bind binds[] = { { "c", data }, { "theta", theta }, { "rate", mica_program_constant(p, r, 0, NULL) } };
  mica_value adapted = mica_program_adapt_step(p, "inner", step, &adapt, 3, binds);
  OK(adapted);
  OK(mica_program_output(p, "last", mica_program_port(p, adapted, "last.next.theta")));
  OK(mica_program_output(p, "every", mica_program_port(p, adapted, "theta.theta")));
  OK(mica_program_seal(p));
  mica_value wants[] = { theta, data };
  mica_executor_options run = MICA_EXECUTOR_OPTIONS_INIT;
  run.backend = MICA_REF, run.dtype = MICA_F64, run.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD, run.tasks = 2;
  run.wants = wants, run.n_wants = 2;
  mica_executor *x;
  OK(mica_executor_create(context, p, &run, &x));
  const struct { mica_value value; int bit; double *at; } places[] = {
    { theta, MICA_V, start }, { theta, MICA_D, d }, { data, MICA_V, c }, { data, MICA_D, dc },
    { mica_program_get_output(p, 0), MICA_V, last }, { mica_program_get_output(p, 0), MICA_D, seed },
    { mica_program_get_output(p, 1), MICA_V, every },
  };
  for (int i = 0; i < MICA_COUNT(places); i++) {
    mica_wire wire = { .data = places[i].at, .task_stride = places[i].value == theta ? 2 : -1 };
    OK(mica_executor_set_value(x, places[i].value, places[i].bit, &wire));
  }
  OK(mica_executor_run(x, run.passes, NULL));
  assert_int_equal(s.calls, STEPS);
  /* theta' = theta - 2 r (theta - theta / 2) = (1 - r) theta; to the gradient, d theta' / d theta = 1 - 2 r */
  for (int b = 0; b < 2; b++)
    for (int i = 0; i < 2; i++) {
      near(last[2 * b + i], start[2 * b + i] * pow(1 - r, STEPS), 1e-12, "last", i);
      near(d[2 * b + i], pow(1 - 2 * r, STEPS), 1e-12, "theta.d", i);
      for (int k = 0; k < STEPS; k++) {
        near(every[(b * STEPS + k) * 2 + i], start[2 * b + i] * pow(1 - r, k), 1e-12, "theta_k", k);
        near(dc[(b * STEPS + k) * 2 + i], 2 * r * pow(1 - 2 * r, STEPS - 1 - k), 1e-12, "c.d", k);
      }
    }
  mica_executor_destroy(x);
  mica_step_destroy(step);
  mica_program_destroy(p);
  mica_program_destroy(loss);
  mica_context_destroy(context);
}

/* cotangents of every theta_k and block preconditioners that are learned, against differences */
static void test_every_and_block(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  static const char *const updates[] = { "sgd", "adam" };
  for (int u = 0; u < 2; u++) {
    mica_program *loss = regression(context), *p;
    mica_step_options options = MICA_STEP_OPTIONS_INIT;
    options.update = updates[u], options.every = 1, options.block = 1, options.eps = 1e-2;
    mica_step *step;
    OK(mica_step_create(context, loss, "loss", &options, &step));
    OK(mica_program_create(context, "block", &p));
    int32_t train = mica_program_axis(p, "train", MICA_NO_AXIS);
    int64_t in = N, one = 1;
    mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
    adapt.steps = 3, adapt.checkpoints = u;
    mica_bind binds[] = { { "x", mica_program_input(p, "x", MICA_F32, train, 1, &in) },
                          { "y", mica_program_input(p, "y", MICA_F32, train, 1, &one) },
                          { "weight", mica_program_input(p, "weight", MICA_F32, train, 1, &one) },
                          { "w", param(p, "w", 1, N) }, { "left.w", param(p, "left", 1, 1) },
                          { "right.w", param(p, "right", N, N) }, { "rate", mica_program_constant(p, 0.2, 0, NULL) } };
    mica_value adapted = mica_program_adapt_step(p, "inner", step, &adapt, 7, binds);
    OK(adapted);
    OK(mica_program_output(p, "last", op1(p, "last.square", "square", NULL, "x",
                                          mica_program_port(p, adapted, "last.next.w"))));
    int64_t all = 3 * N;
    mica_value every = mica_program_reshape(p, mica_program_port(p, adapted, "theta.w"), 1, &all);
    OK(mica_program_output(p, "every", op1(p, "every.square", "square", NULL, "x", every)));
    OK(mica_program_seal(p));
    for (int per_task = 0; per_task < 2; per_task++) {
      bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = TASKS,
                  .per_task = per_task };
      b.rows[0] = TASKS * ROWS, b.longest[0] = ROWS;
      check_first(context, &b, 29, 0, 1e-6);
      bench_free(&b);
    }
    mica_step_destroy(step);
    mica_program_destroy(p);
    mica_program_destroy(loss);
  }
  mica_context_destroy(context);
}

/* ---- cold and warm starts (Vicol et al. 2022): two numbers learn one datum x (2 numbers) with target 1, so that many
 * solutions fit; the outer loss asks for another point. from 0 every time, the solution is the shortest one, x / |x|^2;
 * going on from the last one, it keeps what earlier data have left in it ---- */

static void descend(mica_context *context, int warm, double *x, double *w, double *left) {
  mica_program *loss, *p;
  OK(mica_program_create(context, "datum", &loss));
  int64_t shape[] = { 1, 2 }, one = 1;
  mica_value datum = mica_program_input(loss, "datum", MICA_F32, MICA_NO_AXIS, 2, shape);
  mica_value product = op2(loss, "product", "mul", NULL, "a", datum, "b", param(loss, "w", 1, 2));
  mica_value out = op1(loss, "out", "sum", "axis=all", "x", product);
  mica_value off = op1(loss, "off", "scale", "beta=-1", "x", out);
  mica_value square = op1(loss, "square", "square", NULL, "x", off);
  OK(mica_program_output(loss, "loss", mica_program_reshape(loss, square, 0, &one)));
  OK(mica_program_seal(loss));
  mica_step_options options = MICA_STEP_OPTIONS_INIT;
  mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
  adapt.steps = warm ? 20 : 200;
  mica_step *step;
  OK(mica_step_create(context, loss, "loss", &options, &step));
  OK(mica_program_create(context, "outer", &p));
  mica_value learned = param(p, "datum", 1, 2);
  mica_value start = mica_program_input(p, "start", MICA_F32, MICA_NO_AXIS, 2, shape);
  mica_bind binds[] = { { "datum", learned }, { "w", start }, { "rate", mica_program_constant(p, 0.05, 0, NULL) } };
  mica_value last = mica_program_port(p, mica_program_adapt_step(p, "inner", step, &adapt, 3, binds), "last.next.w");
  /* (3 w_0 - w_1 - 3)^2 */
  mica_value first = mica_program_reshape(p, last, 1, (int64_t[]){ 2 });
  mica_value sum = op2(p, "sum", "sub", NULL, "a",
                       op1(p, "three", "scale", "alpha=3 beta=-3", "x", mica_program_slice(p, first, 0, 1)), "b",
                       mica_program_slice(p, first, 1, 1));
  OK(mica_program_output(p, "outer", op1(p, "outer", "square", NULL, "x", sum)));
  OK(mica_program_output(p, "last", op1(p, "copy", "scale", NULL, "x", last)));
  OK(mica_program_seal(p));
  bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = 1, .params_only = 1 };
  b.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  bench_fill(&b, 1);
  b.param[0][0] = 1, b.param[0][1] = 1;
  b.input[0][0][0] = b.input[0][0][1] = 0;
  b.output[0][1][0] = 1;
  b.output[1][1][0] = b.output[1][1][1] = 0;
  for (int i = 0; i < 400; i++) {
    bench_run(context, &b);
    for (int k = 0; k < 2; k++) {
      b.param[0][k] -= 0.02 * b.param[1][k];
      if (warm) b.input[0][0][k] = b.output[1][0][k];
    }
  }
  for (int k = 0; k < 2; k++) x[k] = b.param[0][k], w[k] = b.output[1][0][k];
  *left = b.output[0][0][0];
  bench_free(&b);
  mica_step_destroy(step);
  mica_program_destroy(p);
  mica_program_destroy(loss);
}

static void test_cold_and_warm(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  double x[2][2], w[2][2], left[2], off[2];
  for (int warm = 0; warm < 2; warm++) {
    descend(context, warm, x[warm], w[warm], &left[warm]);
    assert_true(left[warm] < 1e-6);
    near(x[warm][0] * w[warm][0] + x[warm][1] * w[warm][1], 1, 1e-3, "the inner loss is solved", warm);
    /* how far from the line through the datum, where the shortest solution lies */
    off[warm] = fabs(w[warm][0] * x[warm][1] - w[warm][1] * x[warm][0]);
  }
  assert_true(off[0] < 1e-6);
  assert_true(off[1] > 0.1);
  assert_true(fabs(x[0][0] - x[1][0]) + fabs(x[0][1] - x[1][1]) > 0.2);
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_nystroem), cmocka_unit_test(test_zero_order), cmocka_unit_test(test_look_ahead),
    cmocka_unit_test(test_data_that_see_theta), cmocka_unit_test(test_every_and_block),
    cmocka_unit_test(test_cold_and_warm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
