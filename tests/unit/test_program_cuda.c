/* programs on a CUDA device: the results of the CPU, from every kind of entry, whether launched or replayed */
#include "device_support.h"
#include "mica/adapt.h"
#include "program_support.h"

static mica_context *context;

static const mica_op *op_on_cuda(const char *name) {
  const mica_op *op;
  const mica_kernel *kernel;
  int32_t phases;
  OK(mica_find_op(context, name, &op));
  return mica_op_kernels(op, MICA_CUDA, MICA_F32, MICA_BACKWARD_JVP, &kernel, &phases) < 0 ? NULL : op;
}

/* skip unless all of these operations have their CUDA faces */
static void need_ops(const char *const *names, int n) {
  need_cuda(1);
  for (int i = 0; i < n; i++)
    if (!op_on_cuda(names[i])) {
      print_message("skipped: %s\n", mica_last_error());
      skip();
    }
}

/* y = tanh(x w + b) + x, elementwise, with w and b of one row for all */
static mica_value layer(mica_program *p, const char *name, mica_value x, int64_t width) {
  char path[64];
#define PART(text) (snprintf(path, sizeof path, "%s." text, name), path)
  mica_value w = param(p, PART("w"), width, 0), b = param(p, PART("b"), width, 0);
  mica_value h = op2(p, PART("mul"), "mul", NULL, "a", x, "b", w);
  h = op2(p, PART("add"), "add", NULL, "a", h, "b", b);
  h = op1(p, PART("tanh"), "tanh", NULL, "x", h);
  return op2(p, PART("res"), "add", NULL, "a", h, "b", x);
#undef PART
}

enum { WIDTH = 3, TASKS = 3 };
static const int64_t row[] = { WIDTH };
static const int32_t ragged[TASKS + 1] = { 0, 3, 3, 7 };

static mica_program *plain(void) {
  mica_program *p;
  OK(mica_program_create(context, "plain", &p));
  int32_t token = mica_program_axis(p, "token", MICA_NO_AXIS);
  mica_value x = mica_program_input(p, "x", MICA_F32, token, 1, row);
  mica_value c = mica_program_input(p, "c", MICA_F32, MICA_NO_AXIS, 1, row);  /* one row a task */
  mica_value h = layer(p, "one", x, WIDTH);
  h = op2(p, "with", "mul", NULL, "a", h, "b", c);
  mica_value y = layer(p, "two", h, WIDTH);
  /* two outputs of which one is read on: its seeds add up with the other's cotangent */
  OK(mica_program_output(p, "h", h));
  OK(mica_program_output(p, "y", y));
  mica_value left = mica_program_slice(p, y, 0, 1), right = mica_program_slice(p, y, 2, 1);
  OK(mica_program_output(p, "part", op2(p, "parts", "mul", NULL, "a", left, "b", right)));
  OK(mica_program_seal(p));
  return p;
}

static bench bench_of(mica_program *p, int packed) {
  bench b = { .program = p, .dtype = MICA_F32, .backend = MICA_CPU, .fused = 1, .passes = 15, .tasks = TASKS,
              .rows = { packed ? 7 : TASKS * 4 }, .longest = { 4 }, .offsets = { packed ? ragged : NULL } };
  return b;
}

/* the device against the CPU, in one run and in passes, launched and replayed */
static void check_twin(bench b, int runs) {
  bench cpu = b;
  bench_fill(&cpu, 11);
  bench_run(context, &cpu);
  for (int fused = 0; fused < 2; fused++) {
    bench gpu = b;
    gpu.backend = MICA_CUDA;
    gpu.fused = fused;
    gpu.runs = fused ? runs : 1;
    bench_fill(&gpu, 11);
    bench_run(context, &gpu);
    check_same(&cpu, &gpu, 3e-6);
    bench_free(&gpu);
  }
  bench_free(&cpu);
}

static void entries(void **state) {
  (void)state;
  static const char *const ops[] = { "mul", "add", "tanh" };
  need_ops(ops, 3);
  mica_program *p = plain();
  for (int packed = 0; packed < 2; packed++) {
    bench b = bench_of(p, packed);
    check_twin(b, 3);
    b.per_task = 1;
    if (packed) check_twin(b, 1);
  }
  mica_program_destroy(p);
}

/* rooms whose scratch depends on which wires are there and on how parameters lie */
static void layers_with_scratch(void **state) {
  (void)state;
  static const char *const ops[] = { "linear", "layernorm", "mul" };
  need_ops(ops, 3);
  static const int64_t wide[] = { 8 };
  mica_program *p;
  OK(mica_program_create(context, "layers", &p));
  int32_t token = mica_program_axis(p, "token", MICA_NO_AXIS);
  mica_value x = mica_program_input(p, "x", MICA_F32, token, 1, wide);
  mica_value h = op2(p, "ln", "layernorm", NULL, "x", x, "w", param(p, "ln.w", 8, 0));
  mica_bind binds[] = { { "x", h }, { "w", param(p, "up.w", 24, 8) }, { "b", param(p, "up.b", 24, 0) } };
  h = mica_program_op(p, "up", "linear", "act=gelu", 3, binds);
  h = op3(p, "down", "linear", NULL, "x", h, "w", param(p, "down.w", 8, 24), "res", x);
  OK(mica_program_output(p, "y", op2(p, "end", "mul", NULL, "a", h, "b", x)));
  OK(mica_program_seal(p));
  /* long enough that sums over rows come in chunks */
  static const int32_t offsets[] = { 0, 260, 261, 560, 600 };
  for (int way = 0; way < 4; way++) {
    bench b = { .program = p, .dtype = MICA_F32, .fused = 1, .passes = way & 2 ? 3 : 15, .tasks = 4, .longest = { 300 },
                .rows = { way & 1 ? 600 : 1200 }, .offsets = { way & 1 ? offsets : NULL }, .per_task = way == 2 };
    bench cpu = b, gpu = b;
    cpu.backend = MICA_CPU, gpu.backend = MICA_CUDA;
    bench_fill(&cpu, 5);
    bench_fill(&gpu, 5);
    bench_run(context, &cpu);
    bench_run(context, &gpu);
    check_same(&cpu, &gpu, 2e-5);
    bench_free(&cpu);
    bench_free(&gpu);
  }
  mica_program_destroy(p);
}

static void maps_and_calls(void **state) {
  (void)state;
  static const char *const ops[] = { "mul", "add", "tanh", "sum" };
  need_ops(ops, 3);
  mica_program *sub, *p;
  OK(mica_program_create(context, "sub", &sub));
  mica_value a = mica_program_input(sub, "a", MICA_F32, MICA_NO_AXIS, 1, row);
  mica_value h = mica_program_input(sub, "h", MICA_F32, MICA_NO_AXIS, 1, row);
  OK(mica_program_output(sub, "y", layer(sub, "in", op2(sub, "both", "mul", NULL, "a", a, "b", h), WIDTH)));
  OK(mica_program_seal(sub));
  OK(mica_program_create(context, "all", &p));
  int32_t token = mica_program_axis(p, "token", MICA_NO_AXIS);
  mica_value x = mica_program_input(p, "x", MICA_F32, token, 1, row);
  mica_value c = mica_program_input(p, "c", MICA_F32, MICA_NO_AXIS, 1, row);
  mica_value called = mica_program_call(p, "call", sub, 2, (mica_bind[]){ { "a", c }, { "h", c } });
  mica_value each = mica_program_map(p, "map", sub, token, 2, (mica_bind[]){ { "a", x }, { "h", called } });
  OK(mica_program_output(p, "y", each));
  OK(mica_program_seal(p));
  for (int packed = 0; packed < 2; packed++) check_twin(bench_of(p, packed), 1);
  mica_program_destroy(p);
  mica_program_destroy(sub);
}

/* every task has a row */
static const int32_t full[TASKS + 1] = { 0, 3, 4, 8 };

static void scans(void **state) {
  (void)state;
  static const char *const ops[] = { "mul", "add", "tanh" };
  need_ops(ops, 3);
  mica_program *cell, *p;
  OK(mica_program_create(context, "cell", &cell));
  mica_value a = mica_program_input(cell, "a", MICA_F32, MICA_NO_AXIS, 1, row);
  mica_value h = mica_program_input(cell, "h", MICA_F32, MICA_NO_AXIS, 1, row);
  OK(mica_program_output(cell, "y", layer(cell, "in", op2(cell, "both", "mul", NULL, "a", a, "b", h), WIDTH)));
  OK(mica_program_seal(cell));
  OK(mica_program_create(context, "loop", &p));
  int32_t token = mica_program_axis(p, "token", MICA_NO_AXIS);
  mica_value x = mica_program_input(p, "x", MICA_F32, token, 1, row);
  mica_value start = mica_program_input(p, "h", MICA_F32, MICA_NO_AXIS, 1, row);
  mica_value loop = mica_program_scan(p, "loop", cell, token, 2, (mica_bind[]){ { "a", x }, { "h", start } }, 1,
                                      (mica_carry[]){ { "h", "y" } });
  OK(mica_program_output(p, "y", loop));
  OK(mica_program_output(p, "last", mica_program_port(p, loop, "last.y")));
  OK(mica_program_seal(p));
  for (int packed = 0; packed < 2; packed++) {
    bench b = bench_of(p, packed);
    if (packed) b.offsets[0] = full, b.rows[0] = 8;
    check_twin(b, 1);
  }
  mica_program_destroy(p);
  mica_program_destroy(cell);
}

static void gradients(void **state) {
  (void)state;
  static const char *const ops[] = { "mul", "add", "tanh" };
  need_ops(ops, 3);
  mica_program *sub, *p;
  OK(mica_program_create(context, "inner", &sub));
  int32_t token = mica_program_axis(sub, "token", MICA_NO_AXIS);
  mica_value a = mica_program_input(sub, "a", MICA_F32, token, 1, row);
  mica_value h = layer(sub, "in", a, WIDTH);
  OK(mica_program_output(sub, "loss", op2(sub, "square", "mul", NULL, "a", h, "b", a)));
  OK(mica_program_seal(sub));
  OK(mica_program_create(context, "outer", &p));
  token = mica_program_axis(p, "token", MICA_NO_AXIS);
  mica_value x = mica_program_input(p, "x", MICA_F32, token, 1, row);
  mica_value w = mica_program_input(p, "w", MICA_F32, MICA_NO_AXIS, 1, row);
  static const char *const wrt[] = { "in.w", "a" };
  mica_value g = mica_program_grad(p, "grad", sub, "loss", 2, wrt, 2, (mica_bind[]){ { "a", x }, { "in.w", w } });
  mica_value by_w = mica_program_port(p, g, "grad.in.w"), by_a = mica_program_port(p, g, "grad.a");
  mica_value next = op2(p, "step", "sub", NULL, "a", w, "b", by_w);
  OK(mica_program_output(p, "next", next));
  OK(mica_program_output(p, "y", op2(p, "use", "mul", NULL, "a", by_a, "b", next)));
  OK(mica_program_seal(p));
  for (int packed = 0; packed < 2; packed++) {
    bench b = bench_of(p, packed);
    b.passes = 7;
    bench cpu = b, gpu = b;
    gpu.backend = MICA_CUDA;
    bench_fill(&cpu, 3);
    bench_fill(&gpu, 3);
    for (int k = 0; k < 2; k++) {  /* there is no third derivative: what it would write stays as it is */
      bench *of = k ? &gpu : &cpu;
      memset(of->param[3], 0, sizeof(double) * (size_t)of->param_count);
      for (int i = 0; i < of->n_inputs; i++) memset(of->input[i][3], 0, sizeof(double) * (size_t)of->input_count[i]);
    }
    bench_run(context, &cpu);
    bench_run(context, &gpu);
    check_same(&cpu, &gpu, 3e-6);
    bench_free(&cpu);
    bench_free(&gpu);
  }
  mica_program_destroy(p);
  mica_program_destroy(sub);
}

/* inner loops adapt a task's weights on the device; other methods than the sweep: test_adapt_cuda */
static void inner_loops(void **state) {
  (void)state;
  static const char *const ops[] = { "mul", "add", "tanh", "sub" };
  need_ops(ops, 4);
  mica_program *loss, *p;
  OK(mica_program_create(context, "loss", &loss));
  int32_t token = mica_program_axis(loss, "token", MICA_NO_AXIS);
  mica_value a = mica_program_input(loss, "a", MICA_F32, token, 1, row);
  mica_value error = op2(loss, "error", "sub", NULL, "a", layer(loss, "in", a, WIDTH), "b", a);
  mica_value each = op2(loss, "square", "mul", NULL, "a", error, "b", error);
  OK(mica_program_output(loss, "loss", op1(loss, "total", "sum", "axis=all", "x", each)));
  OK(mica_program_seal(loss));
  mica_step_options with = MICA_STEP_OPTIONS_INIT;
  mica_init start = { MICA_INIT_CONSTANT, 0.1 };
  mica_step *step;
  OK(mica_step_create(context, loss, "loss", &with, &step));
  OK(mica_program_create(context, "outer", &p));
  token = mica_program_axis(p, "token", MICA_NO_AXIS);
  mica_value x = mica_program_input(p, "x", MICA_F32, token, 1, row);
  mica_value w = param(p, "w", WIDTH, 0), b = param(p, "b", WIDTH, 0), rate = mica_program_param(p, "rate", 0, NULL, start, 0);
  mica_adapt_options o = MICA_ADAPT_OPTIONS_INIT;
  o.steps = 3;
  mica_bind binds[] = { { "a", x }, { "in.w", w }, { "in.b", b }, { "rate", rate } };
  mica_value last = mica_program_adapt_step(p, "adapt", step, &o, 4, binds);
  mica_value moved = mica_program_port(p, last, "last.next.in.w");
  OK(mica_program_output(p, "y", op2(p, "use", "mul", NULL, "a", x, "b", moved)));
  OK(mica_program_seal(p));
  for (int packed = 0; packed < 2; packed++) {
    bench of = bench_of(p, packed);
    of.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
    check_twin(of, 2);
  }
  mica_program_destroy(p);
  mica_step_destroy(step);
  mica_program_destroy(loss);
}

/* two forwards in flight on one device, backward in the other order: each gives what it gives alone */
static void two_in_flight(void **state) {
  (void)state;
  static const char *const ops[] = { "mul", "add", "tanh" };
  need_ops(ops, 3);
  mica_program *p = plain();
  micah_device *d;
  OK(micah_context_device(context, MICA_CUDA, 0, &d));
  mica_executor_options o = MICA_EXECUTOR_OPTIONS_INIT;
  int64_t rows[] = { TASKS * 4 }, longest[] = { 4 }, n = mica_program_param_count(p), m = TASKS * 4 * WIDTH;
  o.backend = MICA_CUDA, o.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD, o.fused = 0;
  o.tasks = TASKS, o.rows = rows, o.longest = longest;
  mica_executor *x;
  OK(mica_executor_create(context, p, &o, &x));
  mica_memory memory;
  OK(mica_executor_memory(x, &memory));
  assert_true(memory.saved > 0);
  uint64_t random = 9;
  double *numbers[8];
  typed weights = to_type(d, numbers[0] = randoms(n, &random), n, MICA_F32), in[2], c[2], seed[2], dw[4];
  void *saved[2];
  for (int k = 0; k < 2; k++) {
    in[k] = to_type(d, numbers[1 + 3 * k] = randoms(m, &random), m, MICA_F32);
    c[k] = to_type(d, numbers[2 + 3 * k] = randoms(TASKS * WIDTH, &random), TASKS * WIDTH, MICA_F32);
    seed[k] = to_type(d, numbers[3 + 3 * k] = randoms(m, &random), m, MICA_F32);
    saved[k] = device_memory(d, (size_t)memory.saved);
  }
  numbers[7] = zeros_of(n);
  for (int k = 0; k < 4; k++) dw[k] = to_type(d, numbers[7], n, MICA_F32), dw[k].from = NULL;
  OK(mica_executor_set_params(x, MICA_V, weights.at, 0, NULL, 0));
  /* alone, and then together */
  static const struct { int which, pass, to; } order[] = {
    { 0, MICA_PASS_FORWARD, 0 }, { 0, MICA_PASS_BACKWARD, 0 }, { 1, MICA_PASS_FORWARD, 1 }, { 1, MICA_PASS_BACKWARD, 1 },
    { 0, MICA_PASS_FORWARD, 2 }, { 1, MICA_PASS_FORWARD, 3 }, { 1, MICA_PASS_BACKWARD, 3 }, { 0, MICA_PASS_BACKWARD, 2 },
  };
  for (int i = 0; i < MICA_COUNT(order); i++) {
    int k = order[i].which;
    mica_wire vx = { .data = in[k].at, .task_stride = -1 }, vc = { .data = c[k].at, .task_stride = -1 };
    mica_wire d_y = { .data = seed[k].at, .task_stride = -1 };
    OK(mica_executor_set_params(x, MICA_D, dw[order[i].to].at, 0, NULL, 0));
    OK(mica_executor_set_value(x, mica_program_find(p, "x"), MICA_V, &vx));
    OK(mica_executor_set_value(x, mica_program_find(p, "c"), MICA_V, &vc));
    OK(mica_executor_set_value(x, mica_program_find(p, "y"), MICA_D, &d_y));
    OK(mica_executor_run(x, order[i].pass, saved[k]));
  }
  OK(d->ops->stream_sync(d, d->stream));
  float *got[4];
  for (int k = 0; k < 4; k++) {
    got[k] = malloc(sizeof(float) * (size_t)n);
    device_copy(d, got[k], dw[k].at, sizeof(float) * (size_t)n);
  }
  for (int k = 0; k < 2; k++) assert_memory_equal(got[k], got[2 + k], sizeof(float) * (size_t)n);
  assert_true(memcmp(got[0], got[1], sizeof(float) * (size_t)n) != 0 && isfinite(got[0][0]));
  mica_executor_destroy(x);
  from_type(d, &weights);
  for (int k = 0; k < 4; k++) from_type(d, &dw[k]), free(got[k]);
  for (int k = 0; k < 2; k++) {
    from_type(d, &in[k]), from_type(d, &c[k]), from_type(d, &seed[k]);
    device_release(d, saved[k], (size_t)memory.saved);
  }
  for (int k = 0; k < 8; k++) free(numbers[k]);
  mica_program_destroy(p);
}

/* ---- replays ---- */

typedef struct setup {
  mica_program  *p;
  mica_executor *x;
  micah_device  *d;
  typed          weights, dw, in, c, seed, out;
} setup;

static double *some(int64_t n, uint64_t seed) { return randoms(n, &seed); }

static setup make(void *stream) {
  setup s = { .p = plain() };
  OK(micah_context_device(context, MICA_CUDA, 0, &s.d));
  mica_executor_options o = MICA_EXECUTOR_OPTIONS_INIT;
  int64_t rows[] = { 100 }, longest[] = { 40 };
  o.backend = MICA_CUDA;
  o.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  o.tasks = 8;
  o.rows = rows;
  o.longest = longest;
  o.stream = stream;
  OK(mica_executor_create(context, s.p, &o, &s.x));
  int64_t n = mica_program_param_count(s.p);
  s.weights = to_type(s.d, some(n, 1), n, MICA_F32);
  s.dw = to_type(s.d, some(2 * n, 2), 2 * n, MICA_F32);
  s.in = to_type(s.d, some(100 * WIDTH, 3), 100 * WIDTH, MICA_F32);
  s.c = to_type(s.d, some(8 * WIDTH, 4), 8 * WIDTH, MICA_F32);
  s.seed = to_type(s.d, some(100 * WIDTH, 5), 100 * WIDTH, MICA_F32);
  s.out = to_type(s.d, some(100 * WIDTH, 6), 100 * WIDTH, MICA_F32);
  return s;
}
static void unmake(setup *s) {
  mica_executor_destroy(s->x);
  typed *all[] = { &s->weights, &s->dw, &s->in, &s->c, &s->seed, &s->out };
  for (int i = 0; i < MICA_COUNT(all); i++) {
    from_type(s->d, all[i]);
    free(all[i]->from);
  }
  mica_program_destroy(s->p);
}

static void bind(setup *s, int64_t tasks, const int32_t *offsets, int64_t length, const int32_t *slot) {
  mica_value y = mica_program_find(s->p, "y");
  mica_wire in = { .data = s->in.at, .task_stride = -1 }, c = { .data = s->c.at, .task_stride = -1 };
  mica_wire seed = { .data = s->seed.at, .task_stride = -1 }, out = { .data = s->out.at, .task_stride = -1 };
  OK(mica_executor_set_tasks(s->x, tasks));
  OK(mica_executor_set_axis(s->x, 0, offsets, length));
  OK(mica_executor_set_params(s->x, MICA_V, s->weights.at, 0, NULL, 0));
  OK(mica_executor_set_params(s->x, MICA_D, s->dw.at, mica_program_param_count(s->p), slot, 0));
  OK(mica_executor_set_value(s->x, mica_program_find(s->p, "x"), MICA_V, &in));
  OK(mica_executor_set_value(s->x, mica_program_find(s->p, "c"), MICA_V, &c));
  OK(mica_executor_set_value(s->x, y, MICA_V, &out));
  OK(mica_executor_set_value(s->x, y, MICA_D, &seed));
}

static void fetch(setup *s, float *dw, float *out) {
  device_copy(s->d, dw, s->dw.at, (size_t)s->dw.n * sizeof *dw);
  device_copy(s->d, out, s->out.at, (size_t)s->out.n * sizeof *out);
}

/* ragged batches of one class share a graph; each gives what a fresh executor gives */
static void ragged_replays(void **state) {
  (void)state;
  static const char *const ops[] = { "mul", "add", "tanh" };
  need_ops(ops, 3);
  static const int32_t offsets[4][9] = {
    { 0, 30, 33, 40, 52, 60, 61, 70, 81 }, { 0, 5, 34, 40, 41, 48, 49, 50, 80 },
    { 0, 10, 20, 45, 46, 47, 60, 61, 62 }, { 0, 1, 2, 3, 3, 3, 3, 3, 35 },
  };
  static const int32_t slots[2][8] = { { 0, 0, 0, 0, 1, 1, 1, 1 }, { 0, 0, -1, 1, 1, 1, 1, -1 } };
  setup s = make(NULL);
  int64_t n = s.dw.n, m = s.out.n;
  float *dw[2], *out[2];
  for (int i = 0; i < 2; i++) dw[i] = malloc(sizeof(float) * (size_t)n), out[i] = malloc(sizeof(float) * (size_t)m);
  for (int round = 0; round < 8; round++) {
    const int32_t *lengths = offsets[round % 4], *slot = slots[round / 3 % 2];
    OK(s.d->ops->fill(s.d, s.d->stream, s.dw.at, 0xff, (size_t)n * sizeof(float)));
    bind(&s, 8, lengths, 40, slot);
    OK(mica_executor_run(s.x, MICA_PASS_FORWARD | MICA_PASS_BACKWARD, NULL));
    fetch(&s, dw[0], out[0]);
    setup fresh = make(NULL);
    bind(&fresh, 8, lengths, 40, slot);
    OK(mica_executor_run(fresh.x, MICA_PASS_FORWARD | MICA_PASS_BACKWARD, NULL));
    fetch(&fresh, dw[1], out[1]);
    unmake(&fresh);
    assert_memory_equal(dw[0], dw[1], sizeof(float) * (size_t)n);
    assert_memory_equal(out[0], out[1], sizeof(float) * (size_t)(lengths[8] * WIDTH));
    for (int64_t i = 0; i < n; i++) assert_true(isfinite(dw[0][i]));
  }
  for (int i = 0; i < 2; i++) free(dw[i]), free(out[i]);
  unmake(&s);
}

/* a program's own stream, which it captures: the launches are in its graph, and read what lies there at each replay */
static void outer_capture(void **state) {
  (void)state;
  static const char *const ops[] = { "mul", "add", "tanh" };
  need_ops(ops, 3);
  micah_device *d;
  void *stream, *graph;
  OK(micah_context_device(context, MICA_CUDA, 0, &d));
  OK(d->ops->stream_create(d, &stream));
  setup s = make(stream);
  static const int32_t slot[4] = { 0, 0, 1, 1 };
  int64_t n = s.dw.n, m = 4 * 10 * WIDTH;
  float *dw = malloc(sizeof(float) * (size_t)n), *out = malloc(sizeof(float) * (size_t)s.out.n);
  float *dw2 = malloc(sizeof(float) * (size_t)n), *out2 = malloc(sizeof(float) * (size_t)s.out.n);
  bind(&s, 4, NULL, 10, slot);
  OK(d->ops->capture_begin(d, stream));
  OK(mica_executor_run(s.x, MICA_PASS_FORWARD | MICA_PASS_BACKWARD, NULL));
  OK(d->ops->capture_end(d, stream, &graph));
  /* other inputs than those at capture */
  device_copy(d, s.in.at, s.seed.at, (size_t)s.in.n * sizeof(float));
  OK(d->ops->graph_launch(d, graph, stream));
  OK(d->ops->stream_sync(d, stream));
  fetch(&s, dw, out);
  OK(d->ops->fill(d, stream, s.dw.at, 0xff, (size_t)n * sizeof(float)));
  bind(&s, 4, NULL, 10, slot);
  OK(mica_executor_run(s.x, MICA_PASS_FORWARD | MICA_PASS_BACKWARD, NULL));
  OK(d->ops->stream_sync(d, stream));
  fetch(&s, dw2, out2);
  assert_memory_equal(dw, dw2, sizeof(float) * (size_t)n);
  assert_memory_equal(out, out2, sizeof(float) * (size_t)m);
  d->ops->graph_destroy(d, graph);
  unmake(&s);
  d->ops->stream_destroy(d, stream);
  free(dw), free(out), free(dw2), free(out2);
}

static int setup_group(void **state) {
  (void)state;
  context = context_with(1);
  return 0;
}
static int teardown_group(void **state) {
  (void)state;
  mica_context_destroy(context);
  return atomic_load(&live_bytes) != 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(entries), cmocka_unit_test(layers_with_scratch), cmocka_unit_test(maps_and_calls), cmocka_unit_test(scans),
    cmocka_unit_test(gradients), cmocka_unit_test(inner_loops),
    cmocka_unit_test(two_in_flight), cmocka_unit_test(ragged_replays), cmocka_unit_test(outer_capture),
  };
  return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
