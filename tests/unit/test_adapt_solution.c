/* hypergradients at and towards the solution of an inner problem, against closed forms in double: ridge regression
 * towards an anchor, L(w) = sum of (x . w - y)^2 + proximal / 2 |w - anchor|^2, each task with data of its own */
#include "adapt_support.h"
#include "mica/adapt.h"

enum { ROWS = 5, N = 3, TASKS = 4 };

static mica_program *regression(mica_context *context) {
  mica_program *p;
  OK(mica_program_create(context, "regression", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t in = N, one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, point, 1, &one);
  mica_value out = op2(p, "out", "linear", NULL, "x", x, "w", param(p, "w", 1, N));
  mica_value sum = op1(p, "loss", "sum", "axis=row", "x", op2(p, "rows", "mse", NULL, "pred", out, "target", y));
  OK(mica_program_output(p, "loss", mica_program_reshape(p, sum, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

/* parameters in this order: start (N), anchor (N), proximal, rate (steps, if `stepped`) */
enum { AT_START = 0, AT_ANCHOR = N, AT_PROXIMAL = 2 * N, AT_RATE = 2 * N + 1 };

static mica_program *bilevel(mica_context *context, const mica_adapt_options *adapt, int first_order, int stepped) {
  mica_program *loss = regression(context), *p;
  mica_step_options options = MICA_STEP_OPTIONS_INIT;
  options.proximal = 1, options.first_order = first_order;
  mica_step *step;
  OK(mica_step_create(context, loss, "loss", &options, &step));
  OK(mica_program_create(context, "bilevel", &p));
  int32_t train = mica_program_axis(p, "train", MICA_NO_AXIS), test = mica_program_axis(p, "test", MICA_NO_AXIS);
  int64_t in = N, one = 1, steps = adapt->steps;
  mica_value x = mica_program_input(p, "x", MICA_F32, train, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, train, 1, &one);
  mica_value test_x = mica_program_input(p, "test_x", MICA_F32, test, 1, &in);
  mica_value test_y = mica_program_input(p, "test_y", MICA_F32, test, 1, &one);
  mica_value start = param(p, "start", 1, N), anchor = param(p, "anchor", 1, N);
  mica_value proximal = mica_program_param(p, "proximal", 0, &one, (mica_init){ 0, 0 }, 0);
  mica_value rate = mica_program_param(p, "rate", !!stepped, &steps, (mica_init){ 0, 0 }, 0);
  mica_bind binds[] = { { "x", x }, { "y", y }, { "w", start }, { "anchor.w", anchor }, { "proximal", proximal },
                        { "rate", rate } };
  mica_value adapted = mica_program_adapt_step(p, "inner", step, adapt, 6, binds);
  OK(adapted);
  mica_value w = mica_program_port(p, adapted, "last.next.w");
  mica_bind outer[] = { { "x", test_x }, { "y", test_y }, { "w", w } };
  OK(mica_program_output(p, "test", mica_program_call(p, "outer", loss, 3, outer)));
  OK(mica_program_seal(p));
  mica_step_destroy(step);
  mica_program_destroy(loss);
  return p;
}

/* solve a x = b, n = N */
static void solve3(const double a[N][N], const double *b, double *x) {
  double m[N][N + 1];
  for (int i = 0; i < N; i++) {
    for (int j = 0; j < N; j++) m[i][j] = a[i][j];
    m[i][N] = b[i];
  }
  for (int k = 0; k < N; k++) {
    for (int i = 0; i < N; i++) {
      if (i == k) continue;
      double f = m[i][k] / m[k][k];
      for (int j = k; j <= N; j++) m[i][j] -= f * m[k][j];
    }
  }
  for (int i = 0; i < N; i++) x[i] = m[i][N] / m[i][i];
}

/* one task in closed form */
typedef struct task {
  double h[N][N];                    /* Hessian of the inner loss */
  double w[N], u[N];                 /* solution; gradient of the outer loss there */
  double v[N];                       /* h^-1 u */
} task;

static const double *task_param(const bench *b, int wire, int t) { return b->param[wire] + t * (b->param_count / TASKS); }

/* gradient of the sum of squared residuals at w */
static void slope(const bench *b, int x, int t, const double *w, double *g) {
  for (int i = 0; i < N; i++) g[i] = 0;
  for (int r = 0; r < ROWS; r++) {
    const double *row = b->input[x][0] + (t * ROWS + r) * N;
    double e = -b->input[x + 1][0][t * ROWS + r];
    for (int i = 0; i < N; i++) e += row[i] * w[i];
    for (int i = 0; i < N; i++) g[i] += 2 * e * row[i];
  }
}

static task closed_form(const bench *b, int t) {
  const double *p = task_param(b, 0, t);
  task k;
  double rhs[N], zero[N] = { 0 };
  memset(&k, 0, sizeof k);
  slope(b, 0, t, zero, rhs);
  for (int i = 0; i < N; i++) {
    rhs[i] = -rhs[i] + p[AT_PROXIMAL] * p[AT_ANCHOR + i];
    k.h[i][i] = p[AT_PROXIMAL];
    for (int j = 0; j < N; j++)
      for (int r = 0; r < ROWS; r++) {
        const double *row = b->input[0][0] + (t * ROWS + r) * N;
        k.h[i][j] += 2 * row[i] * row[j];
      }
  }
  solve3((const double(*)[N])k.h, rhs, k.w);
  slope(b, 2, t, k.w, k.u);
  solve3((const double(*)[N])k.h, k.u, k.v);
  return k;
}

static const double rate = 0.1;

static bench bench_of(mica_program *p, int64_t rates) {
  bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = TASKS, .per_task = 1 };
  b.rows[0] = b.rows[1] = TASKS * ROWS;
  b.longest[0] = b.longest[1] = ROWS;
  b.params_only = 1;
  b.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  bench_fill(&b, 17);
  int64_t each = b.param_count / TASKS;
  for (int t = 0; t < TASKS; t++) {
    b.param[0][t * each + AT_PROXIMAL] = 0.5 + 0.25 * t;
    for (int64_t k = 0; k < rates; k++) b.param[0][t * each + AT_RATE + k] = rate;
    b.output[0][1][t] = 1;
  }
  return b;
}

static void check_closed(const bench *b, double tolerance) {
  for (int t = 0; t < TASKS; t++) {
    task k = closed_form(b, t);
    const double *p = task_param(b, 0, t), *d = task_param(b, 1, t);
    double dp = 0;
    for (int i = 0; i < N; i++) {
      dp -= k.v[i] * (k.w[i] - p[AT_ANCHOR + i]);
      near(d[AT_ANCHOR + i], p[AT_PROXIMAL] * k.v[i], tolerance, "anchor.d", i);
    }
    near(d[AT_PROXIMAL], dp, tolerance, "proximal.d", t);
  }
}

static void test_converged(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  static const struct { int32_t method, solver, checkpoints; } ways[] = {
    { MICA_ADAPT_UNROLLED, 0, 0 }, { MICA_ADAPT_UNROLLED, 0, 1 }, { MICA_ADAPT_FORWARD, 0, 0 },
    { MICA_ADAPT_IMPLICIT, MICA_SOLVE_CG, 0 }, { MICA_ADAPT_IMPLICIT, MICA_SOLVE_NEUMANN, 0 },
    { MICA_ADAPT_IMPLICIT, MICA_SOLVE_DENSE, 0 },
  };
  for (int i = 0; i < MICA_COUNT(ways); i++) {
    mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
    adapt.steps = 600;
    adapt.method = ways[i].method, adapt.solver = ways[i].solver, adapt.checkpoints = ways[i].checkpoints;
    adapt.iterations = 600, adapt.tolerance = 1e-12, adapt.rate = rate;
    mica_program *p = bilevel(context, &adapt, 0, 0);
    bench b = bench_of(p, 1);
    bench_run(context, &b);
    check_closed(&b, 1e-9);
    /* where the loop starts does not matter at the end, and exactly nothing where it is not differentiated */
    for (int t = 0; t < TASKS; t++)
      for (int k = 0; k < N; k++) {
        double d = task_param(&b, 1, t)[AT_START + k];
        if (adapt.method == MICA_ADAPT_UNROLLED) near(d, 0, 1e-12, "start.d", k);
        else assert_true(d == 0);
      }
    bench_free(&b);
    mica_program_destroy(p);
  }
  mica_context_destroy(context);
  assert_int_equal(atomic_load(&live_bytes), 0);
}

/* from the solution on, K steps unrolled are K terms of Neumann's series; the error falls as the series says */
static void test_neumann(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  for (int64_t terms = 1; terms <= 12; terms++) {
    bench b[2];
    mica_program *p[2];
    for (int i = 0; i < 2; i++) {
      mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
      adapt.steps = terms, adapt.method = i ? MICA_ADAPT_IMPLICIT : MICA_ADAPT_UNROLLED;
      adapt.solver = MICA_SOLVE_NEUMANN, adapt.iterations = terms, adapt.rate = rate, adapt.tolerance = 0;
      p[i] = bilevel(context, &adapt, 0, 0);
      b[i] = bench_of(p[i], 1);
      for (int t = 0; t < TASKS; t++) {
        task k = closed_form(&b[i], t);
        memcpy(b[i].param[0] + t * (b[i].param_count / TASKS) + AT_START, k.w, sizeof k.w);
      }
      bench_run(context, &b[i]);
    }
    for (int t = 0; t < TASKS; t++) {
      for (int k = AT_ANCHOR; k <= AT_PROXIMAL; k++)
        near(task_param(&b[1], 1, t)[k], task_param(&b[0], 1, t)[k], 1e-12, "unrolled and Neumann", k);
      /* anchor.d = proximal v, so H anchor.d = proximal (u - (1 - rate H)^terms u) */
      task k = closed_form(&b[1], t);
      double left[N], proximal = task_param(&b[1], 0, t)[AT_PROXIMAL];
      memcpy(left, k.u, sizeof left);
      for (int64_t j = 0; j < terms; j++) {
        double h[N] = { 0 };
        for (int r = 0; r < N; r++)
          for (int c = 0; c < N; c++) h[r] += k.h[r][c] * left[c];
        for (int r = 0; r < N; r++) left[r] -= rate * h[r];
      }
      for (int r = 0; r < N; r++) {
        double got = 0;
        for (int c = 0; c < N; c++) got += k.h[r][c] * task_param(&b[1], 1, t)[AT_ANCHOR + c] / proximal;
        near(got, k.u[r] - left[r], 1e-11, "series", r);
      }
    }
    for (int i = 0; i < 2; i++) {
      bench_free(&b[i]);
      mica_program_destroy(p[i]);
    }
  }
  mica_context_destroy(context);
}

/* a first-order start.d is the outer gradient itself; the exact one has (1 - rate H)^steps in front */
static void test_first_order(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
  adapt.steps = 3;
  for (int first_order = 0; first_order < 2; first_order++) {
    mica_program *p = bilevel(context, &adapt, first_order, 0);
    bench b = bench_of(p, 1);
    bench_run(context, &b);
    for (int t = 0; t < TASKS; t++) {
      task k = closed_form(&b, t);
      const double *v = task_param(&b, 0, t);
      double w[N], g[N], u[N];
      memcpy(w, v + AT_START, sizeof w);
      for (int64_t j = 0; j < adapt.steps; j++) {
        slope(&b, 0, t, w, g);
        for (int i = 0; i < N; i++) w[i] -= rate * (g[i] + v[AT_PROXIMAL] * (w[i] - v[AT_ANCHOR + i]));
      }
      slope(&b, 2, t, w, u);
      for (int64_t j = 0; j < (first_order ? 0 : adapt.steps); j++) {
        double h[N] = { 0 };
        for (int r = 0; r < N; r++)
          for (int c = 0; c < N; c++) h[r] += k.h[r][c] * u[c];
        for (int r = 0; r < N; r++) u[r] -= rate * h[r];
      }
      for (int i = 0; i < N; i++) near(task_param(&b, 1, t)[AT_START + i], u[i], 1e-12, "start.d", i);
    }
    bench_free(&b);
    mica_program_destroy(p);
  }
  mica_context_destroy(context);
}

/* truncation leaves out exactly the steps before the last ones */
static void test_truncated(void **state) {
  (void)state;
  enum { STEPS = 7, LAST = 3 };
  mica_context *context = context_with(1);
  for (int checkpoints = 0; checkpoints < 2; checkpoints++) {
    bench b[2];
    mica_program *p[2];
    for (int i = 0; i < 2; i++) {
      mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
      adapt.steps = STEPS, adapt.last = LAST, adapt.checkpoints = checkpoints;
      adapt.method = i ? MICA_ADAPT_TRUNCATED : MICA_ADAPT_UNROLLED;
      p[i] = bilevel(context, &adapt, 0, 1);
      b[i] = bench_of(p[i], STEPS);
      bench_run(context, &b[i]);
    }
    for (int t = 0; t < TASKS; t++) {
      const double *all = task_param(&b[0], 1, t), *some = task_param(&b[1], 1, t);
      for (int i = 0; i < N; i++) assert_true(some[AT_START + i] == 0 && all[AT_START + i] != 0);
      for (int k = 0; k < STEPS; k++) {
        assert_true(some[AT_RATE + k] == (k < STEPS - LAST ? 0 : all[AT_RATE + k]));
        assert_true(all[AT_RATE + k] != 0);
      }
      assert_true(some[AT_PROXIMAL] != all[AT_PROXIMAL]);
    }
    for (int i = 0; i < 2; i++) {
      bench_free(&b[i]);
      mica_program_destroy(p[i]);
    }
  }
  mica_context_destroy(context);
}

/* tasks that do not converge are flagged and add nothing; the others are what they are */
static void test_flags(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
  adapt.steps = 300, adapt.method = MICA_ADAPT_IMPLICIT, adapt.tolerance = 1e-10, adapt.iterations = 1;
  mica_program *p = bilevel(context, &adapt, 0, 0);
  bench b = bench_of(p, 1);
  bench_run(context, &b);
  for (int t = 0; t < TASKS; t++) assert_true(task_param(&b, 1, t)[AT_PROXIMAL] == 0);
  /* with an executor at hand, the report says so; a task without an outer cotangent has nothing to solve */
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.backend = MICA_REF, options.dtype = MICA_F64, options.passes = b.passes, options.tasks = TASKS;
  options.rows = b.rows, options.longest = b.longest;
  mica_executor *x;
  OK(mica_executor_create(context, p, &options, &x));
  OK(mica_executor_set_params(x, MICA_V, b.param[0], b.param_count / TASKS, NULL, 0));
  OK(mica_executor_set_params(x, MICA_D, b.param[1], b.param_count / TASKS, NULL, 0));
  for (int i = 0; i < 4; i++) {
    mica_wire wire = { .data = b.input[i][0], .task_stride = -1 };
    OK(mica_executor_set_value(x, mica_program_get_input(p, i), MICA_V, &wire));
  }
  b.output[0][1][2] = 0;
  mica_wire seed = { .data = b.output[0][1], .task_stride = -1 };
  OK(mica_executor_set_value(x, mica_program_get_output(p, 0), MICA_D, &seed));
  OK(mica_executor_run(x, b.passes, NULL));
  mica_adapt_report report;
  OK(mica_adapt_get_report(x, 0, &report));
  assert_int_equal(report.tasks, TASKS);
  assert_int_equal(report.unconverged, TASKS - 1);
  for (int t = 0; t < TASKS; t++) {
    assert_int_equal(report.converged[t], t == 2);
    assert_int_equal(report.iterations[t], t == 2 ? 0 : 1);
    assert_true(t == 2 ? report.residual[t] == 0 : report.residual[t] > 1e-10 && report.residual[t] < 1);
  }
  assert_true(mica_adapt_get_report(x, 1, &report) == MICA_ERR_NOT_FOUND);
  mica_executor_destroy(x);
  bench_free(&b);
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* the CPU kernels in f32 */
static void test_cpu(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  for (int method = 0; method < 3; method += 2) {
    mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
    adapt.steps = 300, adapt.method = method, adapt.tolerance = 1e-5, adapt.iterations = 20;
    mica_program *p = bilevel(context, &adapt, 0, 0);
    bench b = bench_of(p, 1);
    b.backend = MICA_CPU, b.dtype = MICA_F32;
    bench_run(context, &b);
    check_closed(&b, 1e-4);
    bench_free(&b);
    mica_program_destroy(p);
  }
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_converged), cmocka_unit_test(test_neumann), cmocka_unit_test(test_first_order),
    cmocka_unit_test(test_truncated), cmocka_unit_test(test_flags), cmocka_unit_test(test_cpu),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
