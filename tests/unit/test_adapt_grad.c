/* grad entries: gradients as values, their jvp and backward, in every place that a program may have them */
#include "adapt_support.h"

enum { ROWS = 3, IN = 2, HIDDEN = 4 };

/* loss rows of a small network over axis "point": inputs x, y; parameters w1, b1, w2 */
static mica_program *network(mica_context *context, const char *act) {
  mica_program *p;
  OK(mica_program_create(context, "network", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t in = IN, one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, point, 1, &one);
  mica_value w1 = param(p, "w1", HIDDEN, IN), b1 = param(p, "b1", HIDDEN, 0), w2 = param(p, "w2", 1, HIDDEN);
  mica_value h = op3(p, "h", "linear", act, "x", x, "w", w1, "b", b1);
  mica_value out = op2(p, "out", "linear", NULL, "x", h, "w", w2);
  OK(mica_program_output(p, "loss", op2(p, "loss", "mse", NULL, "pred", out, "target", y)));
  OK(mica_program_seal(p));
  return p;
}

static const char *const wrt[] = { "w1", "b1", "w2", "x" };

/* outer program: the gradient, and functions of it */
static mica_program *outer(mica_context *context, const mica_program *sub) {
  mica_program *p;
  OK(mica_program_create(context, "outer", &p));
  int32_t row = mica_program_axis(p, "row", MICA_NO_AXIS);
  int64_t wide = IN + 1, one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, row, 1, &wide);
  mica_value y = mica_program_input(p, "y", MICA_F32, row, 1, &one);
  mica_value w1 = param(p, "w1", HIDDEN, IN);
  mica_bind binds[] = { { "x", mica_program_slice(p, x, 0, IN) }, { "y", y }, { "w1", w1 } };
  mica_value g = mica_program_grad(p, "g", sub, "loss", 4, wrt, 3, binds);
  OK(g);
  mica_value squares = op1(p, "squares", "square", NULL, "x", mica_program_port(p, g, "grad.w1"));
  OK(mica_program_output(p, "squares", squares));
  OK(mica_program_output(p, "gb", mica_program_port(p, g, "grad.b1")));
  OK(mica_program_output(p, "gw2", op2(p, "gw2", "mul", NULL, "a", mica_program_port(p, g, "grad.w2"), "b",
                                       mica_program_port(p, g, "grad.w2"))));
  OK(mica_program_output(p, "gx", op1(p, "gx", "tanh", NULL, "x", mica_program_port(p, g, "grad.x"))));
  OK(mica_program_output(p, "loss", mica_program_port(p, g, "loss")));
  OK(mica_program_seal(p));
  return p;
}

static const int32_t ragged[] = { 0, 2, 3, 6 };

static bench bench_of(mica_program *p, int fused, int per_task, int is_ragged) {
  bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = fused, .tasks = 3, .per_task = per_task };
  b.rows[0] = 3 * ROWS;
  b.longest[0] = ROWS;
  if (is_ragged) b.offsets[0] = ragged, b.rows[0] = 6;
  return b;
}

/* forward is the backward of the subprogram itself */
static void test_values(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_program *sub = network(context, "act=tanh"), *p = outer(context, sub);
  bench inner = bench_of(sub, 1, 0, 0), b = bench_of(p, 1, 1, 0);
  inner.tasks = 1, inner.rows[0] = ROWS;
  inner.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  b.passes = MICA_PASS_FORWARD;
  bench_fill(&inner, 3);
  bench_fill(&b, 5);
  for (int64_t i = 0; i < inner.output_count[0]; i++) inner.output[0][1][i] = 1;
  /* task 0 of the outer program is the inner one. parameters: w1, then those that grad made in their order */
  for (int64_t i = 0; i < inner.param_count; i++) b.param[0][i] = inner.param[0][i];
  for (int r = 0; r < ROWS; r++) {
    for (int k = 0; k < IN; k++) b.input[0][0][r * (IN + 1) + k] = inner.input[0][0][r * IN + k];
    b.input[1][0][r] = inner.input[1][0][r];
  }
  bench_run(context, &inner);
  bench_run(context, &b);
  for (int i = 0; i < HIDDEN * IN; i++)
    near(b.output[0][0][i], inner.param[1][i] * inner.param[1][i], 1e-14, "squares", i);
  for (int i = 0; i < HIDDEN; i++) near(b.output[1][0][i], inner.param[1][HIDDEN * IN + i], 1e-14, "gb", i);
  for (int i = 0; i < ROWS * IN; i++) near(b.output[3][0][i], tanh(inner.input[0][1][i]), 1e-14, "gx", i);
  for (int i = 0; i < ROWS; i++) near(b.output[4][0][i], inner.output[0][0][i], 1e-14, "loss", i);
  bench_free(&inner);
  bench_free(&b);
  mica_program_destroy(p);
  mica_program_destroy(sub);
  mica_context_destroy(context);
}

static void test_differences(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_program *sub = network(context, "act=tanh"), *p = outer(context, sub), *again;
  mica_program_destroy(sub);  /* the entry keeps it */
  OK(mica_program_create(context, "again", &again));
  int32_t row = mica_program_axis(again, "line", MICA_NO_AXIS);
  int64_t wide = IN + 1, one = 1;
  mica_bind binds[] = { { "x", mica_program_input(again, "a", MICA_F32, row, 1, &wide) },
                        { "y", mica_program_input(again, "b", MICA_F32, row, 1, &one) } };
  mica_value all = mica_program_call(again, "twice", p, 2, binds);
  OK(mica_program_output(again, "gb", mica_program_port(again, all, "gb")));
  OK(mica_program_output(again, "gx", mica_program_port(again, all, "gx")));
  OK(mica_program_seal(again));
  for (int fused = 0; fused < 2; fused++)
    for (int per_task = 0; per_task < 2; per_task++)
      for (int is_ragged = 0; is_ragged < 2; is_ragged++) {
        bench b = bench_of(p, fused, per_task, is_ragged);
        check_first(context, &b, 11, 1, 1e-7);
        bench_free(&b);
        b = bench_of(again, fused, per_task, is_ragged);
        check_first(context, &b, 12, 1, 1e-7);
        bench_free(&b);
      }
  mica_program_destroy(again);
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* the CPU kernels give what the reference gives, for any number of threads the same bits */
static void test_cpu(void **state) {
  (void)state;
  bench first = { 0 };
  for (int threads = 1; threads <= 3; threads++) {
    mica_context *context = context_with(threads);
    mica_program *sub = network(context, "act=tanh"), *p = outer(context, sub);
    bench exact = bench_of(p, 1, 0, 0), b = exact;
    b.backend = MICA_CPU, b.dtype = MICA_F32;
    exact.passes = b.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
    bench_fill(&exact, 21);
    bench_fill(&b, 21);
    bench_run(context, &exact);
    bench_run(context, &b);
    check_same(&exact, &b, 2e-5);
    if (threads > 1) check_same(&first, &b, 0);
    else first = b;
    if (threads > 1) bench_free(&b);
    bench_free(&exact);
    mica_program_destroy(p);
    mica_program_destroy(sub);
    mica_context_destroy(context);
  }
  bench_free(&first);
}

/* inside a map: the tasks of the gradient are items */
static void test_map(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  mica_program *sub = network(context, "act=tanh"), *p = outer(context, sub), *top;
  OK(mica_program_create(context, "top", &top));
  int32_t item = mica_program_axis(top, "item", MICA_NO_AXIS), row = mica_program_axis(top, "row", item);
  int64_t wide = IN + 1, one = 1;
  mica_bind binds[] = { { "x", mica_program_input(top, "x", MICA_F32, row, 1, &wide) },
                        { "y", mica_program_input(top, "y", MICA_F32, row, 1, &one) } };
  mica_value all = mica_program_map(top, "items", p, item, 2, binds);
  OK(mica_program_output(top, "gb", mica_program_port(top, all, "gb")));
  OK(mica_program_output(top, "loss", mica_program_port(top, all, "loss")));
  OK(mica_program_seal(top));
  for (int per_task = 0; per_task < 2; per_task++) {
    bench b = { .program = top, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = 2, .per_task = per_task };
    b.rows[0] = 4, b.longest[0] = 2, b.rows[1] = 8, b.longest[1] = 2;
    check_first(context, &b, 31, 1, 1e-7);
    bench_free(&b);
  }
  mica_program_destroy(top);
  mica_program_destroy(p);
  mica_program_destroy(sub);
  mica_context_destroy(context);
}

static void expect(mica_status status, mica_status code, const char *text) {
  if (status != code || !strstr(mica_last_error(), text))
    fail_msg("status %d, expected %d; message '%s', expected '%s' in it", status, code, mica_last_error(), text);
}

static void test_messages(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  mica_program *sub = network(context, "act=tanh"), *p = outer(context, sub), *q;
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  int64_t rows[] = { 6 }, longest[] = { 3 };
  options.backend = MICA_REF, options.dtype = MICA_F64, options.passes = 15, options.tasks = 2;
  options.rows = rows, options.longest = longest;
  mica_executor *x;
  expect(mica_executor_create(context, p, &options, &x), MICA_ERR_UNSUPPORTED, "third derivative");
  const char *const wrong[] = { "w3" }, *const twice[] = { "w1", "w1" };
  const struct { const char *loss; const char *const *wrt; int n; mica_status code; const char *text; } cases[] = {
    { "lost", wrt, 1, MICA_ERR_NOT_FOUND, "no output 'lost'" },
    { "loss", wrong, 1, MICA_ERR_NOT_FOUND, "'w3'" },
    { "loss", twice, 2, MICA_ERR_INVALID, "twice" },
    { "loss", wrt, 0, MICA_ERR_INVALID, "nothing to differentiate" },
  };
  for (int i = 0; i < MICA_COUNT(cases); i++) {
    OK(mica_program_create(context, "bad", &q));
    int32_t row = mica_program_axis(q, "row", MICA_NO_AXIS);
    int64_t in = IN, one = 1;
    mica_bind binds[] = { { "x", mica_program_input(q, "x", MICA_F32, row, 1, &in) },
                          { "y", mica_program_input(q, "y", MICA_F32, row, 1, &one) } };
    expect(mica_program_grad(q, "g", sub, cases[i].loss, cases[i].n, cases[i].wrt, 2, binds), cases[i].code,
           cases[i].text);
    mica_program_destroy(q);
  }
  mica_program_destroy(p);
  mica_program_destroy(sub);
  mica_context_destroy(context);
  assert_int_equal(atomic_load(&live_bytes), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_values), cmocka_unit_test(test_differences), cmocka_unit_test(test_cpu),
    cmocka_unit_test(test_map), cmocka_unit_test(test_messages),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
