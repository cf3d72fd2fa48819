/* executors: several forwards in flight on threads, no allocation while running, tight plans, any number of threads the
 * same bits, results where they were asked for */
#include <pthread.h>

#include "program_support.h"

/* blocks of attention and MLP over one axis */
static mica_program *blocks(mica_context *context, int layers, int64_t width, int64_t heads) {
  mica_program *p;
  char path[64];
  int64_t row[] = { width }, split[] = { heads, width / heads };
  OK(mica_program_create(context, "blocks", &p));
  int32_t token = mica_program_axis(p, "token", MICA_NO_AXIS);
  mica_value x = mica_program_input(p, "x", MICA_F32, token, 1, row);
  for (int l = 0; l < layers; l++) {
#define PATH(text) (snprintf(path, sizeof path, "b%d." text, l), path)
    mica_value w = param(p, PATH("ln"), width, 0);
    mica_value h = op2(p, PATH("ln1"), "layernorm", NULL, "x", x, "w", w);
    w = param(p, PATH("qkv.weight"), 3 * width, width);
    h = op2(p, PATH("qkv"), "linear", NULL, "x", h, "w", w);
    mica_value part[3];
    for (int i = 0; i < 3; i++) part[i] = mica_program_reshape(p, mica_program_slice(p, h, i * width, width), 2, split);
    h = mica_program_reshape(
        p, op3(p, PATH("attn"), "attention", "mask=causal", "q", part[0], "k", part[1], "v", part[2]), 1, row);
    w = param(p, PATH("proj.weight"), width, width);
    x = op3(p, PATH("proj"), "linear", NULL, "x", h, "w", w, "res", x);
    w = param(p, PATH("up.weight"), 4 * width, width);
    h = op2(p, PATH("up"), "linear", "act=gelu", "x", x, "w", w);
    w = param(p, PATH("down.weight"), width, 4 * width);
    x = op3(p, PATH("down"), "linear", NULL, "x", h, "w", w, "res", x);
  }
  OK(mica_program_output(p, "y", x));
  OK(mica_program_seal(p));
  return p;
}

typedef struct flight {
  mica_executor *x;
  mica_program  *p;
  float         *weights, *input, *seed, *dw, *dx, *saved;
  int64_t        n, count;
} flight;

enum { TASKS = 5, LENGTH = 7, WIDTH = 16 };

static void bind_flight(flight *f) {
  mica_value x = mica_program_get_input(f->p, 0), y = mica_program_get_output(f->p, 0);
  OK(mica_executor_set_params(f->x, MICA_V, f->weights, 0, NULL, 0));
  OK(mica_executor_set_params(f->x, MICA_D, f->dw, 0, NULL, 0));
  OK(mica_executor_set_value(f->x, x, MICA_V, &(mica_wire){ .data = f->input, .task_stride = -1 }));
  OK(mica_executor_set_value(f->x, x, MICA_D, &(mica_wire){ .data = f->dx, .task_stride = -1 }));
  OK(mica_executor_set_value(f->x, y, MICA_D, &(mica_wire){ .data = f->seed, .task_stride = -1 }));
}

static void *backward_elsewhere(void *arg) {
  flight *f = arg;
  bind_flight(f);
  return mica_executor_run(f->x, MICA_PASS_BACKWARD, f->saved) < 0 ? arg : NULL;
}

/* two forwards in flight; their backwards in the other order, on other threads at once, one of them twice */
static void two_in_flight(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_program *p = blocks(context, 2, WIDTH, 2);
  int64_t rows[] = { TASKS * LENGTH }, longest[] = { LENGTH };
  mica_value wants[32];
  int n_wants = 0;
  for (mica_value v; (v = mica_program_get_param(p, n_wants)) >= 0;) wants[n_wants++] = v;
  wants[n_wants++] = mica_program_get_input(p, 0);
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  options.fused = 0;
  options.tasks = TASKS;
  options.rows = rows;
  options.longest = longest;
  options.wants = wants;
  options.n_wants = n_wants;
  flight f[4];
  uint64_t random = 5;
  int64_t n = mica_program_param_count(p), count = TASKS * LENGTH * WIDTH;
  float *weights = malloc(sizeof(float) * (size_t)n);
  for (int64_t i = 0; i < n; i++) weights[i] = (float)uniform(&random);
  for (int k = 0; k < 4; k++) {  /* 0, 1: alone; 2, 3: the same in flight together */
    f[k] = (flight){ .p = p, .weights = weights, .n = n, .count = count };
    OK(mica_executor_create(context, p, &options, &f[k].x));
    mica_memory memory;
    OK(mica_executor_memory(f[k].x, &memory));
    assert_true(memory.saved > 0);
    f[k].saved = aligned_alloc(64, (size_t)memory.saved);
    f[k].input = malloc(sizeof(float) * (size_t)count);
    f[k].seed = malloc(sizeof(float) * (size_t)count);
    f[k].dx = malloc(sizeof(float) * (size_t)count);
    f[k].dw = malloc(sizeof(float) * (size_t)n);
    for (int64_t i = 0; i < count; i++) {
      f[k].input[i] = k < 2 ? (float)uniform(&random) : f[k - 2].input[i];
      f[k].seed[i] = k < 2 ? (float)uniform(&random) : f[k - 2].seed[i];
    }
    bind_flight(&f[k]);
  }
  for (int k = 0; k < 2; k++) {
    OK(mica_executor_run(f[k].x, MICA_PASS_FORWARD, f[k].saved));
    OK(mica_executor_run(f[k].x, MICA_PASS_BACKWARD, f[k].saved));
  }
  /* one executor runs both forwards, each into its own saved memory */
  mica_executor *second = f[3].x;
  f[3].x = f[2].x;
  for (int k = 2; k < 4; k++) {
    bind_flight(&f[k]);
    OK(mica_executor_run(f[k].x, MICA_PASS_FORWARD, f[k].saved));
  }
  f[3].x = second;
  pthread_t thread[2];
  for (int k = 3; k >= 2; k--) pthread_create(&thread[k - 2], NULL, backward_elsewhere, &f[k]);
  for (int k = 0; k < 2; k++) {
    void *failed;
    pthread_join(thread[k], &failed);
    assert_null(failed);
  }
  for (int twice = 0; twice < 2; twice++) {
    for (int k = 2; k < 4; k++) {
      assert_memory_equal(f[k].dw, f[k - 2].dw, sizeof(float) * (size_t)n);
      assert_memory_equal(f[k].dx, f[k - 2].dx, sizeof(float) * (size_t)count);
    }
    memset(f[2].dw, 0xff, sizeof(float) * (size_t)n);
    OK(mica_executor_run(f[2].x, MICA_PASS_BACKWARD, f[2].saved));
  }
  for (int k = 0; k < 4; k++) {
    mica_executor_destroy(f[k].x);
    free(f[k].saved);
    free(f[k].input);
    free(f[k].seed);
    free(f[k].dx);
    free(f[k].dw);
  }
  free(weights);
  mica_program_destroy(p);
  mica_context_destroy(context);
  assert_int_equal(atomic_load(&live_bytes), 0);
}

static void count_calls(void *user, const char *path, const char *op, int face, double seconds, int64_t calls) {
  (void)path;
  (void)op;
  assert_true(face >= 0 && face < MICA_NFACE && seconds >= 0);
  *(int64_t *)user += calls;
}

/* all passes run without one call of the allocator; the profile counts them; plans are near the exact peak; the same
 * bits with 1, 2 and 5 threads, and cut at other places */
static void runs_without_allocation(void **state) {
  (void)state;
  float *reference = NULL;
  for (int t = 0; t < 3; t++) {
    static const int32_t threads[] = { 1, 2, 5 };
    mica_context *context = context_with(threads[t]);
    mica_program *p = blocks(context, 3, 32, 4);
    int64_t tasks = 40, n = mica_program_param_count(p), count = 40 * 13 * 32;
    int64_t rows[] = { 40 * 13 }, longest[] = { 13 };
    mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
    options.passes = 15;
    options.tasks = tasks;
    options.rows = rows;
    options.longest = longest;
    mica_executor *x;
    OK(mica_executor_create(context, p, &options, &x));
    mica_memory memory;
    OK(mica_executor_memory(x, &memory));
    assert_int_equal(memory.saved, 0);
    if ((double)memory.scratch > 1.2 * (double)memory.peak)
      fail_msg("plan of %lld bytes, exact peak %lld", (long long)memory.scratch, (long long)memory.peak);
    uint64_t random = 9;
    float *all = malloc(sizeof(float) * (size_t)(4 * n + 3 * count));
    for (int64_t i = 0; i < 4 * n + 3 * count; i++) all[i] = (float)uniform(&random);
    float *in = all + 4 * n, *seed = in + count, *seed2 = seed + count;
    OK(mica_executor_set_params(x, MICA_V, all, 0, NULL, 0));
    OK(mica_executor_set_params(x, MICA_T, all + n, 0, NULL, 0));
    OK(mica_executor_set_params(x, MICA_D, all + 2 * n, 0, NULL, 0));
    OK(mica_executor_set_params(x, MICA_TD, all + 3 * n, 0, NULL, MICA_ADD));
    mica_value y = mica_program_find(p, "y");
    OK(mica_executor_set_value(x, mica_program_find(p, "x"), MICA_V, &(mica_wire){ .data = in, .task_stride = -1 }));
    OK(mica_executor_set_value(x, y, MICA_D, &(mica_wire){ .data = seed, .task_stride = -1 }));
    OK(mica_executor_set_value(x, y, MICA_TD, &(mica_wire){ .data = seed2, .task_stride = -1 }));
    OK(mica_executor_profile(x, 1, NULL, NULL));
    long before = atomic_load(&allocations);
    OK(mica_executor_set_tasks(x, tasks - 1));
    OK(mica_executor_run(x, 15, NULL));
    for (int64_t i = 3 * n; i < 4 * n; i++) all[i] = 0.5f;
    OK(mica_executor_set_tasks(x, tasks));
    OK(mica_executor_run(x, 15, NULL));
    assert_int_equal(atomic_load(&allocations), before);
    int64_t calls = 0;
    OK(mica_executor_profile(x, 0, count_calls, &calls));
    assert_int_equal(calls, 2 * 3 * (4 * 6 - 2)); /* attention's tangents come with its values, in fused slots */
    float *got = malloc(sizeof(float) * (size_t)(2 * n));
    memcpy(got, all + 2 * n, sizeof(float) * (size_t)(2 * n));
    for (int64_t i = 0; i < 2 * n; i++) assert_true(got[i] == got[i]);
    if (reference) assert_memory_equal(got, reference, sizeof(float) * (size_t)(2 * n));
    free(reference);
    reference = got;
    free(all);
    mica_executor_destroy(x);
    mica_program_destroy(p);
    mica_context_destroy(context);
  }
  free(reference);
}

/* values computed again: the same bits in less memory, fused or apart, with the tangents too; each run of a pass alone
 */
static void computed_again(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_program *p = blocks(context, 4, 32, 4);
  for (int kind = 0; kind < 3; kind++) {
    int64_t least = INT64_MAX;
    bench kept = { .program = p,
                   .dtype = MICA_F32,
                   .backend = MICA_CPU,
                   .fused = kind != 1,
                   .tasks = 30,
                   .rows = { 30 * 9 },
                   .longest = { 9 },
                   .passes = kind == 2 ? 15 : 3 };
    bench_fill(&kept, 6);
    bench_run(context, &kept);
    for (int step = 0; step < 4; step++) {
      static const double part[] = { 0, 0.04, 0.4, 1 };
      mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
      options.passes = kept.passes;
      options.fused = kept.fused;
      options.tasks = kept.tasks;
      options.rows = kept.rows;
      options.longest = kept.longest;
      options.recompute = part[step];
      mica_executor *x;
      mica_memory memory;
      OK(mica_executor_create(context, p, &options, &x));
      OK(mica_executor_memory(x, &memory));
      mica_executor_destroy(x);
      if (memory.saved + memory.scratch >= least)
        fail_msg("kind %d: recompute %g takes %lld bytes, less took %lld", kind, part[step],
                 (long long)(memory.saved + memory.scratch), (long long)least);
      if ((double)memory.scratch > 1.2 * (double)memory.peak)
        fail_msg("plan of %lld bytes, exact peak %lld", (long long)memory.scratch, (long long)memory.peak);
      least = memory.saved + memory.scratch;
      bench again = kept;
      again.recompute = part[step];
      bench_fill(&again, 6);
      bench_run(context, &again);
      check_same(&kept, &again, 0);
      bench_free(&again);
    }
    bench_free(&kept);
  }
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* attention's fused slots run where value and tangent come together, and give the bits of the faces apart */
static void fused_or_apart(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_program *p = blocks(context, 2, 32, 4);
  bench one = { .program = p, .dtype = MICA_F32, .backend = MICA_CPU, .fused = 1, .tasks = 20, .rows = { 20 * 50 },
                .longest = { 50 }, .passes = 15 };
  bench other = one;
  other.fused = 0;
  bench_fill(&one, 11);
  bench_fill(&other, 11);
  bench_run(context, &one);
  bench_run(context, &other);
  check_same(&one, &other, 0);
  bench_free(&one);
  bench_free(&other);
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* a row-local phase may not run on tiles before what its other operands need is whole: here weights made a row at a
 * time */
static void weights_made_in_the_program(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_program *p;
  int64_t shape[] = { 6, 4 };
  OK(mica_program_create(context, "made", &p));
  mica_value x = mica_program_input(p, "x", MICA_F32, MICA_NO_AXIS, 2, shape);
  mica_value z = mica_program_input(p, "z", MICA_F32, MICA_NO_AXIS, 2, shape);
  mica_value w = op1(p, "w", "tanh", NULL, "x", z);
  mica_value y = op2(p, "y", "linear", "act=tanh", "x", x, "w", w);
  mica_value q = op2(p, "q", "linear", NULL, "x", y, "w", mica_program_reshape(p, w, 2, (int64_t[]){ 4, 6 }));
  OK(mica_program_output(p, "out", q));
  /* a part that alone is read */
  mica_value v = mica_program_slice(p, op1(p, "v", "tanh", NULL, "x", z), 0, 2);
  OK(mica_program_output(p, "part", op1(p, "part", "sigmoid", NULL, "x", v)));
  /* parts that overlap, with nothing left over */
  mica_value u = op1(p, "u", "sigmoid", NULL, "x", x);
  mica_value low = mica_program_slice(p, u, 0, 4), high = mica_program_slice(p, u, 2, 4);
  OK(mica_program_output(p, "parts",
                         op2(p, "mix", "mul", NULL, "a", low, "b", op1(p, "copy", "scale", "alpha=2", "x", high))));
  OK(mica_program_seal(p));
  bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = 900 };
  check_four(context, &b, 2, 1e-6);
  bench cpu = b;
  cpu.backend = MICA_CPU;
  cpu.dtype = MICA_F32;
  bench_fill(&cpu, 2);
  bench_run(context, &cpu);
  check_same(&b, &cpu, 1e-4);
  bench_free(&cpu);
  bench_free(&b);
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* a plain chain of layers: going back computes a few layers again at a time, never all */
static void computed_again_stays_local(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  mica_program *p;
  int64_t row[] = { 32 }, bytes[2];
  OK(mica_program_create(context, "chain", &p));
  mica_value x = mica_program_input(p, "x", MICA_F32, MICA_NO_AXIS, 1, row);
  for (int l = 0; l < 24; l++) {
    char path[16];
    snprintf(path, sizeof path, "w%d", l);
    x = op2(p, path, "linear", "act=tanh", "x", x, "w", param(p, path, 32, 32));
  }
  OK(mica_program_output(p, "y", x));
  OK(mica_program_seal(p));
  for (int again = 0; again < 2; again++) {
    mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
    options.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
    options.tasks = 4096;
    options.recompute = again;
    mica_executor *e;
    mica_memory memory;
    OK(mica_executor_create(context, p, &options, &e));
    OK(mica_executor_memory(e, &memory));
    bytes[again] = memory.scratch;
    mica_executor_destroy(e);
  }
  if (2 * bytes[1] > bytes[0]) fail_msg("%lld bytes, %lld when all is kept", (long long)bytes[1], (long long)bytes[0]);
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* storage in bf16: cotangents of parameters stay fp32 */
static void half_precision(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  mica_program *p;
  int64_t row[] = { 2 };
  OK(mica_program_create(context, "bf16", &p));
  mica_value x = mica_program_input(p, "x", MICA_F32, MICA_NO_AXIS, 1, row), w = param(p, "w", 1, 2);
  mica_value two = mica_program_constant(p, 2, 0, NULL);
  mica_value y = op2(p, "y", "linear", NULL, "x", x, "w", w);
  OK(mica_program_output(p, "y", op2(p, "twice", "mul", NULL, "a", y, "b", two)));
  OK(mica_program_seal(p));
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.backend = MICA_REF;
  options.dtype = MICA_BF16;
  options.passes = 3;
  mica_executor *e;
  OK(mica_executor_create(context, p, &options, &e));
  uint16_t one[2] = { 0x3f80, 0x3f80 }, half[2] = { 0x3f00, 0x3f80 }, seed = 0x3f80;
  float dw[2];
  OK(mica_executor_set_params(e, MICA_V, half, 0, NULL, 0));
  OK(mica_executor_set_params(e, MICA_D, dw, 0, NULL, 0));
  OK(mica_executor_set_value(e, x, MICA_V, &(mica_wire){ .data = one, .task_stride = -1 }));
  OK(mica_executor_set_value(e, mica_program_find(p, "y"), MICA_D, &(mica_wire){ .data = &seed, .task_stride = -1 }));
  OK(mica_executor_run(e, 3, NULL));
  mica_wire wire;
  OK(mica_executor_get_value(e, mica_program_find(p, "y"), MICA_V, &wire));
  assert_int_equal(wire.dtype, MICA_BF16);
  assert_int_equal(*(uint16_t *)wire.data, 0x4040); /* 2 (1/2 + 1) = 3 */
  OK(mica_executor_get_value(e, w, MICA_D, &wire));
  assert_int_equal(wire.dtype, MICA_F32);
  assert_true(dw[0] == 2 && dw[1] == 2);
  mica_executor_destroy(e);
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* parameters by slot inside a map: the items of a task see the weights of its slot, and their cotangents sum there */
static void slots_inside_a_map(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_program *p, *sub;
  int64_t row[] = { 2 };
  OK(mica_program_create(context, "sub", &sub));
  mica_value x = mica_program_input(sub, "x", MICA_F32, MICA_NO_AXIS, 1, row);
  OK(mica_program_output(sub, "y", op2(sub, "y", "linear", NULL, "x", x, "w", param(sub, "w", 1, 2))));
  OK(mica_program_seal(sub));
  OK(mica_program_create(context, "slots", &p));
  int32_t item = mica_program_axis(p, "item", MICA_NO_AXIS);
  x = mica_program_input(p, "x", MICA_F32, item, 1, row);
  OK(mica_program_output(p, "y", mica_program_map(p, "map", sub, item, 1, (mica_bind[]){ { "x", x } })));
  OK(mica_program_seal(p));
  int64_t rows[] = { 6 }, longest[] = { 3 };
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.passes = 3;
  options.tasks = 3;
  options.rows = rows;
  options.longest = longest;
  mica_executor *e;
  OK(mica_executor_create(context, p, &options, &e));
  static const int32_t offsets[] = { 0, 3, 3, 5 }, slot[] = { 1, 1, 0 };
  float in[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, w[] = { 1, 0, 0, 1 }, d[4] = { NAN, NAN, NAN, NAN };
  float seed[] = { 1, 1, 1, 1, 10 };
  OK(mica_executor_set_tasks(e, 3));
  OK(mica_executor_set_axis(e, item, offsets, 0));
  OK(mica_executor_set_params(e, MICA_V, w, 2, slot, 0));
  OK(mica_executor_set_params(e, MICA_D, d, 2, slot, 0));
  OK(mica_executor_set_value(e, x, MICA_V, &(mica_wire){ .data = in, .task_stride = -1 }));
  OK(mica_executor_set_value(e, mica_program_find(p, "y"), MICA_D, &(mica_wire){ .data = seed, .task_stride = -1 }));
  OK(mica_executor_run(e, 3, NULL));
  mica_wire y;
  OK(mica_executor_get_value(e, mica_program_find(p, "y"), MICA_V, &y));
  static const float expected[] = { 2, 4, 6, 7, 9 }, sums[] = { 97, 108, 9, 12 };
  for (int i = 0; i < 5; i++) assert_true(((float *)y.data)[i] == expected[i]);
  for (int i = 0; i < 4; i++) assert_true(d[i] == sums[i]);
  mica_executor_destroy(e);
  mica_program_destroy(p);
  mica_program_destroy(sub);
  mica_context_destroy(context);
}

/* forward alone, an output written where the caller says, an input by slots */
static void forward_only(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  mica_program *p;
  int64_t shape[] = { 3 };
  OK(mica_program_create(context, "forward", &p));
  mica_value x = mica_program_input(p, "x", MICA_F32, MICA_NO_AXIS, 1, shape);
  OK(mica_program_output(p, "y", op1(p, "y", "scale", "alpha=3 beta=1", "x", x)));
  OK(mica_program_seal(p));
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.tasks = 4;
  mica_executor *e;
  OK(mica_executor_create(context, p, &options, &e));
  float in[6] = { 1, 2, 3, 4, 5, 6 }, out[12];
  int32_t slot[4] = { 1, 0, -1, 1 };
  OK(mica_executor_set_value(e, x, MICA_V, &(mica_wire){ .data = in, .slot = slot, .task_stride = 3 }));
  OK(mica_executor_set_value(e, mica_program_find(p, "y"), MICA_V, &(mica_wire){ .data = out, .task_stride = -1 }));
  OK(mica_executor_run(e, MICA_PASS_FORWARD, NULL));
  static const float expected[12] = { 13, 16, 19, 4, 7, 10, 1, 1, 1, 13, 16, 19 };
  for (int i = 0; i < 12; i++) assert_true(out[i] == expected[i]);
  mica_executor_destroy(e);
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* many rows, whose values lie tile by tile, and the same rows few at a time, where all of them have memory: the same bits */
static void local_to_a_tile(void **state) {
  (void)state;
  enum { MANY = 400, FEW = 40 };
  int64_t count = MANY * LENGTH * WIDTH;
  float *all = malloc(sizeof(float) * (size_t)(11 * count)), *result[2];
  uint64_t random = 3;
  for (int64_t i = 0; i < 3 * count; i++) all[i] = (float)uniform(&random);
  for (int few = 0; few < 2; few++) {
    mica_context *context = context_with(2 + few);
    mica_program *p = blocks(context, 2, WIDTH, 2);
    int64_t tasks = few ? FEW : MANY, rows[] = { tasks * LENGTH }, longest[] = { LENGTH }, n = mica_program_param_count(p);
    mica_value x = mica_program_find(p, "x"), y = mica_program_find(p, "y");
    mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
    options.passes = 15;
    options.recompute = 0.3;
    options.tasks = tasks;
    options.rows = rows;
    options.longest = longest;
    options.wants = &x;
    options.n_wants = 1;
    mica_executor *e;
    OK(mica_executor_create(context, p, &options, &e));
    float *weights = malloc(sizeof(float) * (size_t)n);
    random = 5;
    for (int64_t i = 0; i < n; i++) weights[i] = (float)uniform(&random);
    OK(mica_executor_set_params(e, MICA_V, weights, 0, NULL, 0));
    result[few] = all + (3 + 4 * few) * count;
    for (int64_t first = 0; first < MANY; first += tasks) {
      int64_t at = first * LENGTH * WIDTH;
      const struct { mica_value value; int bit; float *data; } wires[] = {
        { x, MICA_V, all },         { x, MICA_T, all + count },         { y, MICA_D, all + 2 * count },
        { y, MICA_V, result[few] }, { y, MICA_T, result[few] + count }, { x, MICA_D, result[few] + 2 * count },
        { x, MICA_TD, result[few] + 3 * count },
      };
      for (int i = 0; i < MICA_COUNT(wires); i++)
        OK(mica_executor_set_value(e, wires[i].value, wires[i].bit,
                                   &(mica_wire){ .data = wires[i].data + at, .task_stride = -1 }));
      OK(mica_executor_run(e, 15, NULL));
    }
    mica_executor_destroy(e);
    free(weights);
    mica_program_destroy(p);
    mica_context_destroy(context);
  }
  assert_memory_equal(result[0], result[1], sizeof(float) * (size_t)(4 * count));
  free(all);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(two_in_flight),
    cmocka_unit_test(runs_without_allocation),
    cmocka_unit_test(computed_again),
    cmocka_unit_test(fused_or_apart),
    cmocka_unit_test(weights_made_in_the_program),
    cmocka_unit_test(computed_again_stays_local),
    cmocka_unit_test(half_precision),
    cmocka_unit_test(slots_inside_a_map),
    cmocka_unit_test(forward_only),
    cmocka_unit_test(local_to_a_tile),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
