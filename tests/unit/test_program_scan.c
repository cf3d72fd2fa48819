/* loops: four passes against central differences, the same as the unrolled program, ragged lengths, inside a map and a
 * call, and their messages */
#include "program_support.h"

static mica_context *context;

/* two carries: h' = tanh(w x + u h + bias), c' = c + h' * gain */
static mica_program *cell(void) {
  mica_program *p;
  int64_t two[] = { 2 }, three[] = { 3 };
  OK(mica_program_create(context, "cell", &p));
  mica_value x = mica_program_input(p, "x", MICA_F32, MICA_NO_AXIS, 1, two);
  mica_value h = mica_program_input(p, "h", MICA_F32, MICA_NO_AXIS, 1, three);
  mica_value c = mica_program_input(p, "c", MICA_F32, MICA_NO_AXIS, 1, three);
  mica_value gain = mica_program_input(p, "gain", MICA_F32, MICA_NO_AXIS, 1, three);
  mica_value a = op3(p, "in", "linear", NULL, "x", x, "w", param(p, "w", 3, 2), "b", param(p, "b", 3, 0));
  mica_value b = op3(p, "rec", "linear", NULL, "x", h, "w", param(p, "u", 3, 3), "res", a);
  mica_value next = op1(p, "act", "tanh", NULL, "x", b);
  mica_value g = op2(p, "gain", "mul", NULL, "a", next, "b", gain);
  mica_value sum = op2(p, "sum", "add", NULL, "a", c, "b", g);
  OK(mica_program_output(p, "next", next));
  OK(mica_program_output(p, "sum", sum));
  OK(mica_program_output(p, "g", g));
  OK(mica_program_seal(p));
  return p;
}

static const mica_carry carries[] = { { "h", "next" }, { "c", "sum" } };

static mica_value scan_cell(mica_program *p, const mica_program *body, int32_t axis, mica_value x, mica_value h,
                            mica_value c, mica_value gain, mica_value w) {
  mica_bind binds[] = { { "x", x }, { "h", h }, { "c", c }, { "gain", gain }, { "w", w } };
  return mica_program_scan(p, "loop", body, axis, 5, binds, 2, carries);
}

static mica_program *loop_program(const mica_program *body) {
  mica_program *p;
  int64_t two[] = { 2 }, three[] = { 3 };
  OK(mica_program_create(context, "loop", &p));
  int32_t step = mica_program_axis(p, "step", MICA_NO_AXIS);
  mica_value x = mica_program_input(p, "x", MICA_F32, step, 1, two);
  mica_value h = mica_program_input(p, "h", MICA_F32, MICA_NO_AXIS, 1, three);
  mica_value gain = mica_program_input(p, "gain", MICA_F32, MICA_NO_AXIS, 1, three);
  mica_value start = op1(p, "start", "tanh", NULL, "x", h);
  mica_value c0 = param(p, "c0", 3, 0), w = param(p, "w", 3, 2);
  mica_value rows = scan_cell(p, body, step, x, start, c0, gain, w);
  mica_value both = op2(p, "both", "mul", NULL, "a", rows, "b", mica_program_port(p, rows, "sum"));
  OK(mica_program_output(p, "both", both));
  OK(mica_program_output(p, "g", mica_program_port(p, rows, "g")));
  OK(mica_program_output(p, "last", mica_program_port(p, rows, "last.next")));
  OK(mica_program_output(p, "sum", op1(p, "out", "sigmoid", NULL, "x", mica_program_port(p, rows, "last.sum"))));
  OK(mica_program_seal(p));
  return p;
}

static void four_passes(void **state) {
  (void)state;
  mica_program *body = cell(), *p = loop_program(body);
  mica_program_destroy(body);
  static const int32_t offsets[] = { 0, 7, 8, 13, 16 };
  for (int kind = 0; kind < 4; kind++) {
    int ragged = kind & 1, per_task = kind >> 1;
    bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = 4, .per_task = per_task };
    b.rows[0] = ragged ? 16 : 28;
    b.longest[0] = 7;
    b.offsets[0] = ragged ? offsets : NULL;
    check_four(context, &b, 21, 1e-7);
    bench apart = b, cpu = b;
    apart.fused = 0;
    bench_fill(&apart, 21);
    bench_run(context, &apart);
    check_same(&b, &apart, 0);
    cpu.backend = MICA_CPU;
    cpu.dtype = MICA_F32;
    bench_fill(&cpu, 21);
    bench_run(context, &cpu);
    check_same(&b, &cpu, 1e-4);
    bench_free(&cpu);
    bench_free(&apart);
    bench_free(&b);
  }
  mica_program_destroy(p);
}

/* the loop equals the same steps written one after another */
static void unrolled(void **state) {
  (void)state;
  enum { STEPS = 5, TASKS = 3 };
  mica_program *body = cell(), *loop = loop_program(body), *p;
  int64_t two[] = { 2 }, three[] = { 3 };
  OK(mica_program_create(context, "unrolled", &p));
  mica_value x[STEPS];
  for (int t = 0; t < STEPS; t++) {
    char name[16];
    snprintf(name, sizeof name, "x%d", t);
    x[t] = mica_program_input(p, name, MICA_F32, MICA_NO_AXIS, 1, two);
  }
  mica_value h = mica_program_input(p, "h", MICA_F32, MICA_NO_AXIS, 1, three);
  mica_value gain = mica_program_input(p, "gain", MICA_F32, MICA_NO_AXIS, 1, three);
  mica_value now = op1(p, "start", "tanh", NULL, "x", h), sum = param(p, "c0", 3, 0);
  mica_value w = param(p, "w", 3, 2), b = param(p, "b", 3, 0), u = param(p, "u", 3, 3), g[STEPS], both[STEPS];
  for (int t = 0; t < STEPS; t++) {
    char name[16];
    snprintf(name, sizeof name, "step%d", t);
    mica_bind binds[] = { { "x", x[t] }, { "h", now }, { "c", sum }, { "gain", gain },
                          { "w", w },    { "b", b },   { "u", u } };
    now = mica_program_call(p, name, body, 7, binds);
    sum = mica_program_port(p, now, "sum");
    g[t] = mica_program_port(p, now, "g");
    snprintf(name, sizeof name, "both%d", t);
    both[t] = op2(p, name, "mul", NULL, "a", now, "b", sum);
  }
  for (int t = 0; t < STEPS; t++) {
    char name[16];
    snprintf(name, sizeof name, "b%d", t);
    OK(mica_program_output(p, name, both[t]));
    snprintf(name, sizeof name, "g%d", t);
    OK(mica_program_output(p, name, g[t]));
  }
  OK(mica_program_output(p, "last", now));
  OK(mica_program_output(p, "sum", op1(p, "out", "sigmoid", NULL, "x", sum)));
  OK(mica_program_seal(p));
  bench a = { .program = loop, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .passes = 15, .tasks = TASKS,
              .rows = { TASKS * STEPS }, .longest = { STEPS } };
  bench c = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .passes = 15, .tasks = TASKS };
  bench_fill(&a, 3);
  bench_fill(&c, 4);
  for (int wire = 0; wire < 4; wire++) {  /* the same numbers, in each program's own order */
    for (int64_t i = 0; i < a.param_count; i++) c.param[wire][i] = a.param[wire][i];
    for (int k = 1; k < 3; k++)
      memcpy(c.input[STEPS + k - 1][wire], a.input[k][wire], sizeof(double) * (size_t)a.input_count[k]);
    for (int t = 0; t < STEPS; t++)
      for (int task = 0; task < TASKS; task++) {
        for (int i = 0; i < 2; i++) c.input[t][wire][task * 2 + i] = a.input[0][wire][(task * STEPS + t) * 2 + i];
        for (int k = 0; k < 2; k++)
          for (int i = 0; i < 3; i++)
            c.output[2 * t + k][wire][task * 3 + i] = a.output[k][wire][(task * STEPS + t) * 3 + i];
      }
    for (int k = 2; k < 4; k++)
      memcpy(c.output[2 * STEPS + k - 2][wire], a.output[k][wire], sizeof(double) * (size_t)a.output_count[k]);
  }
  bench_run(context, &a);
  bench_run(context, &c);
  for (int wire = 0; wire < 4; wire++) {
    for (int64_t i = 0; i < a.param_count; i++) near(a.param[wire][i], c.param[wire][i], 1e-12, "param", i);
    for (int k = 1; k < 3; k++)
      for (int64_t i = 0; i < a.input_count[k]; i++)
        near(a.input[k][wire][i], c.input[STEPS + k - 1][wire][i], 1e-12, "input", i);
    for (int t = 0; t < STEPS; t++)
      for (int task = 0; task < TASKS; task++) {
        for (int i = 0; i < 2; i++)
          near(a.input[0][wire][(task * STEPS + t) * 2 + i], c.input[t][wire][task * 2 + i], 1e-12, "x", t);
        for (int k = 0; k < 2; k++)
          for (int i = 0; i < 3; i++)
            near(a.output[k][wire][(task * STEPS + t) * 3 + i], c.output[2 * t + k][wire][task * 3 + i], 1e-12, "rows",
                 t);
      }
    for (int k = 2; k < 4; k++)
      for (int64_t i = 0; i < a.output_count[k]; i++)
        near(a.output[k][wire][i], c.output[2 * STEPS + k - 2][wire][i], 1e-12, "last", i);
  }
  bench_free(&a);
  bench_free(&c);
  mica_program_destroy(body);
  mica_program_destroy(loop);
  mica_program_destroy(p);
}

/* a loop in a subprogram that is called, and mapped over items */
static void nested(void **state) {
  (void)state;
  mica_program *body = cell(), *sub = loop_program(body), *p;
  int64_t two[] = { 2 }, three[] = { 3 };
  mica_program_destroy(body);
  OK(mica_program_create(context, "nested", &p));
  int32_t item = mica_program_axis(p, "item", MICA_NO_AXIS), step = mica_program_axis(p, "step", item);
  mica_value x = mica_program_input(p, "x", MICA_F32, step, 1, two);
  mica_value h = mica_program_input(p, "h", MICA_F32, item, 1, three);
  mica_value gain = mica_program_input(p, "gain", MICA_F32, MICA_NO_AXIS, 1, three);
  mica_bind binds[] = { { "x", x }, { "h", h }, { "gain", gain } };
  mica_value y = mica_program_map(p, "map", sub, item, 3, binds);
  OK(mica_program_output(p, "y", y));
  OK(mica_program_output(p, "last", mica_program_port(p, y, "last")));
  OK(mica_program_seal(p));
  mica_program_destroy(sub);
  static const int32_t items[] = { 0, 2, 2, 5 }, steps[] = { 0, 3, 4, 8, 13, 14 };
  bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = 3, .rows = { 5, 14 },
              .longest = { 3, 5 }, .offsets = { items, steps } };
  check_four(context, &b, 31, 1e-7);
  bench_free(&b);
  mica_program_destroy(p);
}

static void refuses(const char *part, mica_status got) {
  assert_true(got < 0);
  if (!strstr(mica_last_error(), part)) fail_msg("expected a message with '%s', got '%s'", part, mica_last_error());
}

static void messages(void **state) {
  (void)state;
  mica_program *body = cell();
  int64_t two[] = { 2 }, three[] = { 3 };
  for (int kind = 0; kind < 7; kind++) {
    mica_program *p;
    OK(mica_program_create(context, "bad", &p));
    int32_t step = mica_program_axis(p, "step", MICA_NO_AXIS), other = mica_program_axis(p, "other", MICA_NO_AXIS);
    mica_value x = mica_program_input(p, "x", MICA_F32, kind == 0 ? other : step, 1, two);
    mica_value h = mica_program_input(p, "h", MICA_F32, kind == 1 ? step : MICA_NO_AXIS, 1, three);
    mica_bind binds[] = { { "x", kind == 2 ? h : x }, { "h", h }, { "c", h }, { kind == 3 ? "gian" : "gain", h } };
    mica_carry pair[] = { { "h", kind == 4 ? "nxt" : "next" }, { kind == 5 ? "x" : "c", "sum" } };
    static const char *const expected[] = { "has rows of axis other, expected rows of step", "one row a task",
                                            "expected (B, 2)", "did you mean 'gain'", "no output 'nxt'", "expected f32",
                                            "input 'gain'" };
    refuses(expected[kind], mica_program_scan(p, "loop", body, step, kind == 6 ? 3 : 4, binds, 2, pair));
    mica_program_destroy(p);
  }
  mica_program_destroy(body);
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
    cmocka_unit_test(four_passes), cmocka_unit_test(unrolled), cmocka_unit_test(nested), cmocka_unit_test(messages),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
