/* the four passes of whole programs against central differences in double, and against each other */
#include "program_support.h"

static mica_context *context;

/* rows over an axis: norm, linear with activation, residual, fan-out, views, a broadcast row, per-row loss */
static mica_program *rows_program(void) {
  mica_program *p;
  OK(mica_program_create(context, "rows", &p));
  int32_t token = mica_program_axis(p, "token", MICA_NO_AXIS);
  int64_t c[] = { 6 };
  mica_value x = mica_program_input(p, "x", MICA_F32, token, 1, c);
  mica_value n =
      op3(p, "ln", "layernorm", NULL, "x", x, "w", param(p, "ln.weight", 6, 0), "b", param(p, "ln.bias", 6, 0));
  mica_value h =
      op3(p, "fc", "linear", "act=gelu", "x", n, "w", param(p, "fc.weight", 12, 6), "b", param(p, "fc.bias", 12, 0));
  mica_value a = mica_program_slice(p, h, 0, 6), g = mica_program_slice(p, h, 6, 6);
  mica_value m = op2(p, "gate", "mul", NULL, "a", a, "b", g);
  mica_value r = op2(p, "res", "add", NULL, "a", m, "b", x);
  mica_value s = op2(p, "shift", "add", NULL, "a", r, "b", param(p, "shift", 6, 0));
  mica_value q = op1(p, "act", "tanh", NULL, "x", s);
  mica_value o = op2(p, "out", "linear", NULL, "x", q, "w", param(p, "out.weight", 2, 6));
  mica_value z = op2(p, "both", "mul", NULL, "a", q, "b", r);
  OK(mica_program_output(p, "prediction", o));
  OK(mica_program_output(p, "z", z));
  OK(mica_program_output(p, "q", q));   /* read by others too: its seed is added to */
  OK(mica_program_seal(p));
  return p;
}

static bench rows_bench(mica_program *p) {
  static const int32_t offsets[] = { 0, 3, 3, 8, 9 };
  bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .passes = 15, .tasks = 4 };
  b.rows[0] = 9;
  b.longest[0] = 5;
  b.offsets[0] = offsets;
  return b;
}

static void four_passes_of_rows(void **state) {
  (void)state;
  mica_program *p = rows_program();
  for (int per_task = 0; per_task < 2; per_task++) {
    bench b = rows_bench(p);
    b.per_task = per_task;
    check_four(context, &b, 1, 1e-7);
    bench apart = rows_bench(p);
    apart.per_task = per_task;
    apart.fused = 0;
    bench_fill(&apart, 1);
    bench_run(context, &apart);
    check_same(&b, &apart, 0);
    bench_free(&apart);
    bench again = rows_bench(p);  /* nothing kept that can be computed again */
    again.per_task = per_task;
    again.recompute = 1;
    bench_fill(&again, 1);
    bench_run(context, &again);
    check_same(&b, &again, 0);
    bench_free(&again);
    bench_free(&b);
  }
  mica_program_destroy(p);
}

/* fast kernels agree with the reference, and with themselves on more threads */
static void cpu_agrees(void **state) {
  (void)state;
  mica_program *p = rows_program();
  int32_t offsets[65] = { 0 };
  for (int b = 0; b < 64; b++) offsets[b + 1] = offsets[b] + b % 12;
  for (int per_task = 0; per_task < 2; per_task++) {
    bench ref = rows_bench(p), cpu, two;
    ref.per_task = per_task;
    ref.tasks = 64;
    ref.rows[0] = offsets[64];
    ref.longest[0] = 11;
    ref.offsets[0] = offsets;
    cpu = ref;
    cpu.backend = MICA_CPU;
    cpu.dtype = MICA_F32;
    two = cpu;
    bench_fill(&ref, 7);
    bench_fill(&cpu, 7);
    bench_fill(&two, 7);
    mica_context *one = context_with(1), *more = context_with(3);
    bench_run(one, &ref);
    bench_run(one, &cpu);
    bench_run(more, &two);
    check_same(&cpu, &two, 0);
    check_same(&ref, &cpu, 2e-4);
    mica_context_destroy(one);
    mica_context_destroy(more);
    bench_free(&ref);
    bench_free(&cpu);
    bench_free(&two);
  }
  mica_program_destroy(p);
}

/* rows without axis: a small network on one row a task, one value used twice by one operation, a constant, a value cut
 * in slices that leave a gap */
static void rows_without_axis(void **state) {
  (void)state;
  mica_program *p;
  OK(mica_program_create(context, "plain", &p));
  int64_t c[] = { 4 }, none[] = { 1 };
  mica_value x = mica_program_input(p, "x", MICA_F32, MICA_NO_AXIS, 1, c);
  mica_value h = op2(p, "l0", "linear", "act=silu", "x", x, "w", param(p, "w0", 7, 4));
  mica_value s = op2(p, "sq", "mul", NULL, "a", h, "b", h);
  mica_value two = mica_program_constant(p, 2.5, 0, none);
  mica_value d = op2(p, "twice", "mul", NULL, "a", s, "b", two);
  mica_value left = mica_program_slice(p, d, 1, 2), right = mica_program_slice(p, d, 2, 3);
  mica_value l = op2(p, "l1", "linear", NULL, "x", left, "w", param(p, "w1", 3, 2));
  mica_value y = op2(p, "y", "add", NULL, "a", l, "b", right);
  /* an unused branch costs nothing and breaks nothing */
  op1(p, "dead", "exp", NULL, "x", y);
  OK(mica_program_output(p, "y", y));
  OK(mica_program_output(p, "right", right));
  OK(mica_program_seal(p));
  for (int per_task = 0; per_task < 2; per_task++) {
    bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = 3, .per_task = per_task };
    check_four(context, &b, 3, 1e-7);
    bench cpu = b;
    cpu.backend = MICA_CPU;
    cpu.dtype = MICA_F32;
    bench_fill(&cpu, 3);
    bench_run(context, &cpu);
    check_same(&b, &cpu, 1e-4);
    bench_free(&cpu);
    bench_free(&b);
  }
  mica_program_destroy(p);
}

/* a subprogram called twice with the same weights, then once with its own */
static void tied_calls(void **state) {
  (void)state;
  mica_program *sub, *p;
  int64_t c[] = { 5 };
  OK(mica_program_create(context, "block", &sub));
  int32_t row = mica_program_axis(sub, "row", MICA_NO_AXIS);
  mica_value x = mica_program_input(sub, "x", MICA_F32, row, 1, c);
  mica_value y = op3(sub, "fc", "linear", "act=tanh", "x", x, "w", param(sub, "weight", 5, 5), "res", x);
  OK(mica_program_output(sub, "y", y));
  OK(mica_program_output(sub, "half", mica_program_slice(sub, y, 0, 2)));
  OK(mica_program_seal(sub));
  OK(mica_program_create(context, "tied", &p));
  int32_t token = mica_program_axis(p, "token", MICA_NO_AXIS);
  mica_value in = mica_program_input(p, "in", MICA_F32, token, 1, c), w = param(p, "w", 5, 5);
  mica_bind first[] = { { "x", in }, { "weight", w } };
  mica_value a = mica_program_call(p, "one", sub, 2, first);
  mica_bind second[] = { { "weight", w }, { "x", a } };
  mica_value b2 = mica_program_call(p, "two", sub, 2, second);
  mica_bind third[] = { { "x", b2 } };
  mica_value c3 = mica_program_call(p, "three", sub, 1, third);
  OK(mica_program_output(p, "y", c3));
  OK(mica_program_output(p, "half", mica_program_port(p, b2, "half")));
  assert_true(mica_program_find(p, "three.weight") >= 0);
  OK(mica_program_seal(p));
  bench b = {
    .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = 3, .rows = { 12 }, .longest = { 4 }
  };
  check_four(context, &b, 5, 1e-7);
  bench_free(&b);
  mica_program_destroy(sub);
  mica_program_destroy(p);
}

/* map over items: ragged tokens inside ragged items, a row of the task and a parameter enter from outside */
static void map_over_items(void **state) {
  (void)state;
  mica_program *sub, *p;
  int64_t c[] = { 3 };
  OK(mica_program_create(context, "per_item", &sub));
  int32_t row = mica_program_axis(sub, "row", MICA_NO_AXIS);
  mica_value x = mica_program_input(sub, "x", MICA_F32, row, 1, c);
  mica_value bias = mica_program_input(sub, "bias", MICA_F32, MICA_NO_AXIS, 1, c);
  mica_value outer = mica_program_input(sub, "outer", MICA_F32, MICA_NO_AXIS, 1, c);
  mica_value h = op3(sub, "fc", "linear", "act=tanh", "x", x, "w", param(sub, "weight", 3, 3), "b", bias);
  mica_value m = op2(sub, "mix", "mul", NULL, "a", h, "b", outer);
  mica_value one = op2(sub, "one", "mul", NULL, "a", bias, "b", outer);
  OK(mica_program_output(sub, "rows", m));
  OK(mica_program_output(sub, "item", one));
  OK(mica_program_seal(sub));
  OK(mica_program_create(context, "mapped", &p));
  int32_t item = mica_program_axis(p, "item", MICA_NO_AXIS), token = mica_program_axis(p, "token", item);
  mica_value in = mica_program_input(p, "in", MICA_F32, token, 1, c);
  mica_value biases = mica_program_input(p, "biases", MICA_F32, item, 1, c);
  mica_value task = mica_program_input(p, "task", MICA_F32, MICA_NO_AXIS, 1, c);
  mica_value made = op1(p, "made", "sigmoid", NULL, "x", task);
  mica_bind binds[] = { { "x", in }, { "bias", biases }, { "outer", made } };
  mica_value y = mica_program_map(p, "map", sub, item, 3, binds);
  mica_value z = op1(p, "after", "tanh", NULL, "x", y);
  OK(mica_program_output(p, "y", z));
  OK(mica_program_output(p, "items", mica_program_port(p, y, "item")));
  mica_value_info info;
  OK(mica_program_info(p, mica_program_find(p, "items"), &info));
  assert_int_equal(info.axis, item);
  OK(mica_program_seal(p));
  static const int32_t items[] = { 0, 2, 2, 5 }, tokens[] = { 0, 3, 3, 4, 8, 10 };
  for (int ragged = 0; ragged < 2; ragged++) {
    bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = 3 };
    b.rows[item] = ragged ? 5 : 6;
    b.longest[item] = ragged ? 3 : 2;
    b.rows[token] = ragged ? 10 : 24;
    b.longest[token] = 4;
    b.offsets[item] = ragged ? items : NULL;
    b.offsets[token] = ragged ? tokens : NULL;
    check_four(context, &b, 11, 1e-7);
    bench cpu = b;
    cpu.backend = MICA_CPU;
    cpu.dtype = MICA_F32;
    cpu.fused = 0;
    bench_fill(&cpu, 11);
    bench_run(context, &cpu);
    check_same(&b, &cpu, 1e-4);
    bench_free(&cpu);
    bench_free(&b);
  }
  mica_program_destroy(sub);
  mica_program_destroy(p);
}

static int setup(void **state) {
  (void)state;
  context = context_with(2);
  return 0;
}
static int teardown(void **state) {
  (void)state;
  mica_context_destroy(context);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(four_passes_of_rows), cmocka_unit_test(cpu_agrees),     cmocka_unit_test(rows_without_axis),
    cmocka_unit_test(tied_calls),          cmocka_unit_test(map_over_items),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
