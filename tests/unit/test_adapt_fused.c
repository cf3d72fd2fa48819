/* the inner loop of a small network in one kernel: the results of the steps one by one in double, for every shape, for
 * any packing; and when it is not taken */
#include "fused_support.h"

static void test_shapes(void **state) {
  (void)state;
  static const shape shapes[] = {
    { 3, { 1, 40, 40, 1 }, 10, "relu", 1, MICA_RATE_ONE, 0, 0, 1, 0, 0 },
    { 3, { 1, 40, 40, 1 }, 10, "tanh", 1, MICA_RATE_ONE, 0, 0, 5, 0, 0 },
    { 2, { 3, 7, 2 }, 37, "sigmoid", 1, MICA_RATE_TENSOR, 1, 0, 3, 0, 0 },
    { 4, { 5, 17, 16, 33, 3 }, 16, "tanh", 0, MICA_RATE_TENSOR, 0, 0, 2, 0, 0 },
    { 1, { 4, 2 }, 3, "relu", 1, MICA_RATE_ONE, 1, 0, 4, 0, 0 },
    { 3, { 2, 128, 127, 1 }, 5, "relu", 1, MICA_RATE_ONE, 0, 1, 2, 0, 0 },
    { 2, { 2, 9, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 1, 3, 0, 0 },
    { 2, { 2, 9, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 5, 2, 0 },
    { 2, { 2, 9, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 7, 0, 1 },
    { 3, { 1, 40, 40, 1 }, 10, "tanh", 0, MICA_RATE_ONE, 0, 1, 6, 0, 1 },
    { 2, { 2, 9, 1 }, 20, "sigmoid", 1, MICA_RATE_ONE, 1, 0, 9, 4, 1 },
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

/* a task has the same bits alone as among others, and sums the same bits for any number of threads */
static void test_bits(void **state) {
  (void)state;
  shape s = { 3, { 1, 40, 40, 1 }, 10, "relu", 1, MICA_RATE_TENSOR, 1, 0, 4, 0, 0 };
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
    for (int k = 0; k < 4; k++)
      memcpy(b[i].input[k][0], b[0].input[k][0], sizeof(double) * (size_t)b[0].input_count[k]);
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

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(test_shapes), cmocka_unit_test(test_bits) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
