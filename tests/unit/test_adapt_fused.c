/* the inner loop of a small network in one kernel: the results of the steps one by one in double, for every shape, for
 * any packing; and when it is not taken */
#include "fused_support.h"

static void test_shapes(void **state) {
  (void)state;
  static const shape shapes[] = {
    { 3, { 1, 40, 40, 1 }, 10, "relu", 1, MICA_RATE_ONE, 0, 0, 1, 0, 0, 0 },
    { 3, { 1, 40, 40, 1 }, 10, "tanh", 1, MICA_RATE_ONE, 0, 0, 5, 0, 0, 0 },
    { 2, { 3, 7, 2 }, 37, "sigmoid", 1, MICA_RATE_TENSOR, 1, 0, 3, 0, 0, 0 },
    { 4, { 5, 17, 16, 33, 3 }, 16, "tanh", 0, MICA_RATE_TENSOR, 0, 0, 2, 0, 0, 0 },
    { 1, { 4, 2 }, 3, "relu", 1, MICA_RATE_ONE, 1, 0, 4, 0, 0, 0 },
    { 3, { 2, 128, 127, 1 }, 5, "relu", 1, MICA_RATE_ONE, 0, 1, 2, 0, 0, 0 },
    { 2, { 2, 9, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 1, 3, 0, 0, 0 },
    { 2, { 2, 9, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 5, 2, 0, 0 },
    { 2, { 2, 9, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 7, 0, 1, 0 },
    { 3, { 1, 40, 40, 1 }, 10, "tanh", 0, MICA_RATE_ONE, 0, 1, 6, 0, 1, 0 },
    { 2, { 2, 9, 1 }, 20, "sigmoid", 1, MICA_RATE_ONE, 1, 0, 9, 4, 1, 0 },
    { 3, { 6, 40, 40, 5 }, 10, "relu", 1, MICA_RATE_ONE, 0, 0, 1, 0, 0, 1 },
    { 2, { 3, 7, 2 }, 37, "sigmoid", 1, MICA_RATE_TENSOR, 1, 0, 3, 0, 0, 1 },
    { 1, { 9, 20 }, 6, "relu", 1, MICA_RATE_TENSOR, 1, 0, 4, 0, 0, 1 },
    { 3, { 2, 127, 128, 5 }, 20, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 3, 0, 1, 1 },
    { 2, { 785, 30, 5 }, 5, "relu", 0, MICA_RATE_ONE, 0, 0, 2, 0, 0, 1 },
    { 2, { 2, 9, 3 }, 6, "tanh", 1, MICA_RATE_ONE, 1, 0, 5, 2, 0, 1 },
  };
  for (int isa = MICA_ISA_PORTABLE; isa <= MICA_ISA_AVX512; isa++) {
    mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
    mica_context *context;
    options.threads = 2, options.isa = isa;
    OK(mica_context_create(&options, &context));
    if (mica_context_get_isa(context) == isa)
      for (int i = 0; i < MICA_COUNT(shapes); i++) {
        tasks = i == 2 ? MANY : FEW;
        check(context, &shapes[i], MICA_CPU, 1, 0);
      }
    mica_context_destroy(context);
  }
}

/* of the general path in double, which the kernels are compared with: the hypergradient is that of the loss */
static void test_differences(void **state) {
  (void)state;
  mica_context *context;
  OK(mica_context_create(NULL, &context));
  tasks = FEW;
  for (int bias = 0; bias < 2; bias++) {
    const shape s = { 2, { 3, 6, 4 }, 5, "tanh", bias, bias ? MICA_RATE_TENSOR : MICA_RATE_ONE, bias, 0, 3, 0, 0, 1 };
    mica_program *p = few_shot(context, &s);
    bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = 1, .tasks = tasks,
                .rows = { tasks * s.rows, tasks * s.rows }, .longest = { s.rows, s.rows }, .index_range = 4 };
    check_first(context, &b, 11, 0, 1e-7);
    bench_free(&b);
    mica_program_destroy(p);
  }
  mica_context_destroy(context);
}

/* a task has the same bits alone as among others, and sums the same bits for any number of threads */
static void check_bits(int labels) {
  shape s = { 3, { 1, 40, 40, labels ? 3 : 1 }, 10, "relu", 1, MICA_RATE_TENSOR, 1, 0, 4, 0, 0, labels };
  bench b[3];
  mica_program *p[3];
  mica_context *contexts[3];
  tasks = MANY;
  for (int i = 0; i < 3; i++) {
    mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
    options.threads = i ? 3 : 1;
    OK(mica_context_create(&options, &contexts[i]));
    s.checkpoints = i == 1;            /* they change no bit either */
    p[i] = few_shot(contexts[i], &s);
    b[i] = bench_of(&s, p[i], i == 2, 0);
    b[i].backend = MICA_CPU, b[i].dtype = MICA_F32;
    int64_t n = mica_program_param_count(p[i]);
    for (int t = 0; i == 2 && t < tasks; t++) memcpy(b[2].param[0] + t * n, b[0].param[0], sizeof(double) * (size_t)n);
    for (int k = 0; k < 4; k++) {
      const size_t count = (size_t)b[0].input_count[k];
      if (b[i].index[k]) memcpy(b[i].index[k], b[0].index[k], sizeof(int32_t) * count);
      else memcpy(b[i].input[k][0], b[0].input[k][0], sizeof(double) * count);
    }
    for (int k = 0; k < 2; k++)
      memcpy(b[i].output[k][1], b[0].output[k][1], sizeof(double) * (size_t)b[0].output_count[k]);
    bench_run(contexts[i], &b[i]);
  }
  for (int64_t k = 0; k < b[0].param_count; k++) {
    float sum = 0;
    for (int t = 0; t < tasks; t++) sum += (float)b[2].param[1][t * b[0].param_count + k];
    assert_true(b[0].param[1][k] == b[1].param[1][k]);
    assert_true((double)sum == b[0].param[1][k]);
  }
  for (int i = 0; i < 3; i++) {
    bench_free(&b[i]);
    mica_program_destroy(p[i]);
    mica_context_destroy(contexts[i]);
  }
}

static void test_bits(void **state) {
  (void)state;
  check_bits(0);
  check_bits(1);
}

/* a label that the network has no output for is an error that says where */
static void test_labels(void **state) {
  (void)state;
  const shape s = { 2, { 2, 5, 3 }, 4, "relu", 1, MICA_RATE_ONE, 0, 0, 2, 0, 0, 1 };
  mica_context *context;
  OK(mica_context_create(NULL, &context));
  tasks = FEW;
  mica_program *p = few_shot(context, &s);
  for (int fused = 0; fused < 2; fused++)
    for (int input = 2; input < 4; input++) {
      if (!fused && input == 3) continue;  /* the query's is no part of the kernel */
      bench b = bench_of(&s, p, 0, 0);
      mica_executor *x;
      typed t[5];
      mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
      options.passes = b.passes, options.fused = fused, options.tasks = tasks, options.rows = b.rows;
      options.longest = b.longest;
      OK(mica_executor_create(context, p, &options, &x));
      set_sizes(x, &b);
      b.index[input][2 * s.rows + 1] = 3;
      micah_device *d;
      OK(micah_context_device(context, MICA_CPU, 0, &d));
      t[4] = to_type(d, b.param[0], b.param_count, MICA_F32);
      OK(mica_executor_set_params(x, MICA_V, t[4].at, 0, NULL, 0));
      for (int i = 0; i < 4; i++) {
        t[i] = b.index[i] ? of_indices(d, b.index[i], b.input_count[i])
                          : to_type(d, b.input[i][0], b.input_count[i], MICA_F32);
        mica_wire wire = { .data = t[i].at, .task_stride = -1 };
        OK(mica_executor_set_value(x, mica_program_get_input(p, i), MICA_V, &wire));
      }
      mica_memory memory;
      OK(mica_executor_memory(x, &memory));
      void *saved = fused ? NULL : device_memory(d, (size_t)memory.saved);
      assert_true(mica_executor_run(x, fused ? b.passes : MICA_PASS_FORWARD, saved) == MICA_ERR_INVALID);
      if (!strstr(mica_last_error(), "inner: cross_entropy: label 3 at task 2, row 1, expected less than 3"))
        fail_msg("%s", mica_last_error());
      free(saved);
      for (int i = 0; i < 5; i++) from_type(d, &t[i]);
      mica_executor_destroy(x);
      bench_free(&b);
    }
  mica_program_destroy(p);
  mica_context_destroy(context);
}

/* a task whose data are in slot -1 reads zeros there, as step by step */
static void test_no_data(void **state) {
  (void)state;
  static const int32_t slot[FEW] = { 0, 1, -1, 3, 4 };
  mica_context *context;
  OK(mica_context_create(NULL, &context));
  tasks = FEW;
  for (int way = 0; way < 4; way++) {  /* tasks in lanes, rows in lanes; squares, labels */
    const int64_t wide = way & 1 ? 100 : 8;
    const shape s = { 3, { 2, 9, wide, wide }, 4, "tanh", 1, MICA_RATE_ONE, 0, 0, 2, 0, 0, way >> 1 };
    mica_program *p = few_shot(context, &s);
    bench b[2];
    for (int kind = 0; kind < 2; kind++) {
      b[kind] = bench_of(&s, p, 0, 0);
      b[kind].backend = kind ? MICA_CPU : MICA_REF, b[kind].slot = slot;
      b[kind].look = went, b[kind].look_to = (void *)(kind ? "mlp+loss" : "steps");
      bench_run(context, &b[kind]);
    }
    check_same(&b[0], &b[1], 1e-4);
    bench_free(&b[0]);
    bench_free(&b[1]);
    mica_program_destroy(p);
  }
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(test_shapes), cmocka_unit_test(test_differences),
                                      cmocka_unit_test(test_bits), cmocka_unit_test(test_labels),
                                      cmocka_unit_test(test_no_data) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
