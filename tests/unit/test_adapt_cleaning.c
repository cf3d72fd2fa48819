/* hyper-cleaning (Franceschi et al. 2018): weights of the examples of a logistic regression, through its solution.
 * inner: sum of weight_r CE(W x_r, label_r) + proximal / 2 |W|^2; outer: CE of clean examples. with H the inner Hessian
 * and u the outer gradient at the solution, the hypergradient of weight_r is -<H^-1 u, grad CE_r> */
#include "adapt_support.h"
#include "mica/adapt.h"

enum { ROWS = 6, N = 3, C = 2, TASKS = 3, ALL = C * N };
static const double proximal = 0.5, rate = 0.2;

static mica_program *logistic(mica_context *context, int weighted) {
  mica_program *p;
  OK(mica_program_create(context, "logistic", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t in = N, one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &in);
  mica_value label = mica_program_input(p, "label", MICA_I32, point, 0, NULL);
  mica_value weight = weighted ? mica_program_input(p, "weight", MICA_F32, point, 0, NULL) : -1;
  mica_bind binds[] = { { "logits", op2(p, "out", "linear", NULL, "x", x, "w", param(p, "w", C, N)) },
                        { "label", label }, { "weight", weight } };
  mica_value rows = mica_program_op(p, "rows", "cross_entropy", NULL, weighted ? 3 : 2, binds);
  mica_value sum = op1(p, "loss", "sum", "axis=all", "x", rows);
  OK(mica_program_output(p, "loss", mica_program_reshape(p, sum, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

static mica_program *bilevel(mica_context *context, const mica_adapt_options *adapt) {
  mica_program *inner = logistic(context, 1), *outer = logistic(context, 0), *p;
  mica_step_options options = MICA_STEP_OPTIONS_INIT;
  options.proximal = 1;
  mica_step *step;
  OK(mica_step_create(context, inner, "loss", &options, &step));
  OK(mica_program_create(context, "cleaning", &p));
  int32_t train = mica_program_axis(p, "train", MICA_NO_AXIS), clean = mica_program_axis(p, "clean", MICA_NO_AXIS);
  int64_t in = N, shape[] = { C, N };
  mica_value zero = mica_program_constant(p, 0, 2, shape);
  mica_bind binds[] = { { "x", mica_program_input(p, "x", MICA_F32, train, 1, &in) },
                        { "label", mica_program_input(p, "label", MICA_I32, train, 0, NULL) },
                        { "weight", mica_program_input(p, "weight", MICA_F32, train, 0, NULL) }, { "w", zero },
                        { "anchor.w", zero }, { "proximal", mica_program_constant(p, proximal, 0, NULL) },
                        { "rate", mica_program_constant(p, rate, 0, NULL) } };
  mica_value adapted = mica_program_adapt_step(p, "inner", step, adapt, 7, binds);
  OK(adapted);
  mica_bind query[] = { { "x", mica_program_input(p, "clean_x", MICA_F32, clean, 1, &in) },
                        { "label", mica_program_input(p, "clean_label", MICA_I32, clean, 0, NULL) },
                        { "w", mica_program_port(p, adapted, "last.next.w") } };
  OK(mica_program_output(p, "clean", mica_program_call(p, "outer", outer, 3, query)));
  OK(mica_program_seal(p));
  mica_step_destroy(step);
  mica_program_destroy(inner);
  mica_program_destroy(outer);
  return p;
}

/* gradient of one example's CE, (C, N), and the softmax */
static void example(const double *w, const double *x, int label, double *g, double p[C]) {
  double sum = 0;
  for (int c = 0; c < C; c++) {
    p[c] = 0;
    for (int i = 0; i < N; i++) p[c] += w[c * N + i] * x[i];
    sum += p[c] = exp(p[c]);
  }
  for (int c = 0; c < C; c++) {
    p[c] /= sum;
    for (int i = 0; i < N; i++) g[c * N + i] = (p[c] - (c == label)) * x[i];
  }
}

static void solve(double a[ALL][ALL], const double *b, double *x) {
  for (int i = 0; i < ALL; i++) x[i] = b[i];
  for (int k = 0; k < ALL; k++)
    for (int i = 0; i < ALL; i++) {
      double f = a[i][k] / a[k][k];
      for (int j = k; i != k && j < ALL; j++) a[i][j] -= f * a[k][j];
      if (i != k) x[i] -= f * x[k];
    }
  for (int i = 0; i < ALL; i++) x[i] /= a[i][i];
}

/* the hypergradients of a task by Newton's method and a solve */
static void by_hand(const bench *b, int t, double *d) {
  const double *x = b->input[0][0] + t * ROWS * N, *weight = b->input[2][0] + t * ROWS;
  const double *clean = b->input[3][0] + t * ROWS * N;
  const int32_t *label = b->index[1] + t * ROWS, *clean_label = b->index[4] + t * ROWS;
  double w[ALL] = { 0 }, g[ALL], one[ALL], p[C], h[ALL][ALL], step[ALL], u[ALL] = { 0 };
  for (int newton = 0; newton < 30; newton++) {
    for (int i = 0; i < ALL; i++) {
      g[i] = proximal * w[i];
      for (int j = 0; j < ALL; j++) h[i][j] = i == j ? proximal : 0;
    }
    for (int r = 0; r < ROWS; r++) {
      example(w, x + r * N, label[r], one, p);
      for (int i = 0; i < ALL; i++) {
        g[i] += weight[r] * one[i];
        for (int j = 0; j < ALL; j++) {
          double spread = p[i / N] * (i / N == j / N) - p[i / N] * p[j / N];
          h[i][j] += weight[r] * spread * x[r * N + i % N] * x[r * N + j % N];
        }
      }
    }
    if (newton == 29) break;
    solve(h, g, step);
    for (int i = 0; i < ALL; i++) w[i] -= step[i];
  }
  for (int r = 0; r < ROWS; r++) {
    example(w, clean + r * N, clean_label[r], one, p);
    for (int i = 0; i < ALL; i++) u[i] += one[i];
  }
  solve(h, u, step);
  for (int r = 0; r < ROWS; r++) {
    example(w, x + r * N, label[r], one, p);
    d[r] = 0;
    for (int i = 0; i < ALL; i++) d[r] -= step[i] * one[i];
  }
}

static void test_cleaning(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  static const struct { int32_t method, solver; } ways[] = {
    { MICA_ADAPT_UNROLLED, 0 }, { MICA_ADAPT_IMPLICIT, MICA_SOLVE_CG }, { MICA_ADAPT_IMPLICIT, MICA_SOLVE_NEUMANN },
    { MICA_ADAPT_IMPLICIT, MICA_SOLVE_DENSE },
  };
  for (int i = 0; i < MICA_COUNT(ways); i++) {
    mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
    adapt.steps = 600, adapt.method = ways[i].method, adapt.solver = ways[i].solver;
    adapt.iterations = 600, adapt.tolerance = 1e-12, adapt.rate = rate;
    mica_program *p = bilevel(context, &adapt);
    bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = TASKS, .index_range = C };
    b.rows[0] = b.rows[1] = TASKS * ROWS;
    b.longest[0] = b.longest[1] = ROWS;
    b.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
    bench_fill(&b, 31);
    for (int r = 0; r < TASKS * ROWS; r++) b.input[2][0][r] = 0.25 + 0.125 * (r % 5);
    for (int t = 0; t < TASKS; t++) b.output[0][1][t] = 1;
    bench_run(context, &b);
    for (int t = 0; t < TASKS; t++) {
      double d[ROWS];
      by_hand(&b, t, d);
      for (int r = 0; r < ROWS; r++) {
        assert_true(fabs(d[r]) > 1e-6);
        near(b.input[2][1][t * ROWS + r], d[r], 1e-8, "weight.d", r);
      }
    }
    bench_free(&b);
    mica_program_destroy(p);
  }
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(test_cleaning) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
