/* the inner loop of a small network in one kernel on CUDA: the results of the steps in double, with the query's loss
 * and without; the same bits for any packing and any memory */
#include "device_support.h"
#include "fused_support.h"
#include "linear/linear.h"
#include "mlp/mlp_loop.h"

static void test_shapes(void **state) {
  (void)state;
  need_cuda(1);
  static const shape shapes[] = {
    { 3, { 1, 10, 9, 1 }, 10, "relu", 1, MICA_RATE_ONE, 0, 0, 1, 0, 0, 0 },
    { 2, { 3, 7, 2 }, 37, "sigmoid", 1, MICA_RATE_TENSOR, 1, 0, 3, 0, 0, 0 },  /* more rows than a chunk has */
    { 4, { 5, 7, 6, 9, 3 }, 5, "tanh", 0, MICA_RATE_TENSOR, 0, 0, 2, 0, 0, 0 },
    { 1, { 4, 2 }, 3, "relu", 1, MICA_RATE_ONE, 1, 0, 4, 0, 0, 0 },
    { 2, { 2, 9, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 1, 3, 0, 0, 0 },
    { 2, { 2, 5, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 5, 2, 0, 0 },
    { 2, { 2, 5, 1 }, 6, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 7, 0, 1, 0 },
    { 2, { 2, 6, 1 }, 9, "sigmoid", 1, MICA_RATE_ONE, 1, 0, 9, 4, 1, 0 },
    { 2, { 3, 7, 5 }, 37, "sigmoid", 1, MICA_RATE_TENSOR, 1, 0, 3, 0, 0, 1 },
    { 3, { 4, 10, 9, 3 }, 10, "relu", 1, MICA_RATE_ONE, 0, 0, 2, 0, 1, 1 },
    { 1, { 4, 20 }, 6, "relu", 0, MICA_RATE_ONE, 1, 1, 4, 0, 0, 1 },
    { 2, { 785, 6, 3 }, 3, "relu", 1, MICA_RATE_ONE, 0, 0, 1, 0, 0, 1 },
    /* too wide for 163 KB: u elsewhere; theta too */
    { 3, { 2, 128, 127, 1 }, 5, "relu", 1, MICA_RATE_ONE, 0, 0, 1, 0, 0, 0 },
    { 4, { 5, 128, 128, 128, 3 }, 5, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 2, 0, 0, 0 },
  };
  mica_context *context;
  OK(mica_context_create(NULL, &context));
  for (int i = 0; i < MICA_COUNT(shapes); i++)
    for (int fused = 0; fused < 2; fused++) {
      const int wide = shapes[i].width[1] == 128;
      tasks = i == 1 ? MANY : wide ? 2 : FEW;
      check(context, &shapes[i], MICA_CUDA, fused, wide ? 3 : i % 2);
    }
  mica_context_destroy(context);
}

/* weights in slots: cotangents are summed by slot, on top of what is there; none of a slot of -1 */
static void test_slots(void **state) {
  (void)state;
  need_cuda(1);
  static const int32_t slot[FEW] = { 1, 1, 0, -1, 2 };
  mica_context *context;
  OK(mica_context_create(NULL, &context));
  for (int64_t last = 0; last < 3; last += 2) {  /* truncated: nothing of the starts */
    const shape s = { 2, { 2, 6, 1 }, 7, "tanh", 1, MICA_RATE_TENSOR, 1, 0, 3, last, 0, 0 };
    tasks = FEW;
    mica_program *p = few_shot(context, &s);
    bench b[2];
    for (int i = 0; i < 2; i++) {
      b[i] = bench_of(&s, p, 1, 1);
      b[i].backend = i ? MICA_CUDA : MICA_CPU, b[i].param_slot = slot, b[i].add = MICA_ADD;
      for (int64_t k = 0; k < b[i].param_count; k++) b[i].param[1][k] = 1 + (double)(k % 3);
      bench_run(context, &b[i]);
    }
    for (int64_t k = 0; k < b[0].param_count; k++) near(b[1].param[1][k], b[0].param[1][k], 2e-6, "sum", k);
    bench_free(&b[0]);
    bench_free(&b[1]);
    mica_program_destroy(p);
  }
  mica_context_destroy(context);
}

/* a task with a label that the network has no output for is NaN, others are as they were */
static void test_labels(void **state) {
  (void)state;
  need_cuda(1);
  const shape s = { 2, { 2, 5, 3 }, 4, "relu", 1, MICA_RATE_ONE, 0, 0, 2, 0, 0, 1 };
  mica_context *context;
  OK(mica_context_create(NULL, &context));
  tasks = FEW;
  mica_program *p = few_shot(context, &s);
  for (int input = 2; input < 4; input++)
    for (int fused = 0; fused < 2; fused++) {
      bench good = bench_of(&s, p, 0, 0), bad = bench_of(&s, p, 0, 0);
      good.backend = bad.backend = MICA_CUDA, good.fused = bad.fused = fused;
      bad.index[input][2 * s.rows + 1] = 3;
      bench_run(context, &good);
      bench_run(context, &bad);
      for (int b = 0; b < FEW; b++) {
        const double a = good.output[0][0][b], z = bad.output[0][0][b];
        if (b == 2 ? !isnan(z) : z != a) fail_msg("task %d: %g, without the label %g", b, z, a);
      }
      bench_free(&good);
      bench_free(&bad);
    }
  mica_program_destroy(p);
  mica_context_destroy(context);
}

#ifdef MICA_HAVE_CUDA
/* one network by hand, so that what lies where can be chosen; floats in one block, here and on the device */
enum { B = 5, R = 11, QUERY = 9, STEPS = 5, LAYERS = 3, NUMBERS = 2 * 6 + 6 + 6 * 5 + 5 + 5 * 2 + 2 };
enum { X = 0, Y = X + B * R * 2, QX = Y + B * R * 2, QY = QX + B * QUERY * 2, SEED = QY + B * QUERY * 2,
       RATE = SEED + B * QUERY, LOSS_D = RATE + B, START = LOSS_D + B * STEPS, IN = START + B * NUMBERS,
       LOSS = IN, QUERY_LOSS = LOSS + B * STEPS, OUT_BACK = QUERY_LOSS + B * QUERY, RATES = OUT_BACK + B * NUMBERS,
       ALL = RATES + B * STEPS * MICAK_MLP_PARAMS };

static mica_wire wire(float *at, int place, int64_t task, int64_t row) {
  return (mica_wire){ .data = at + place, .task_stride = task, .stride = { row, 1 }, .dtype = MICA_F32 };
}

static micak_mlp_loop by_hand(float *at, int64_t stride, int labels) {
  micak_mlp_loop m = { .layers = LAYERS, .act = MICA_ACT_TANH, .width = { 2, 6, 5, 2 }, .bias = { 1, 1, 1 }, .B = B,
                       .R = R, .steps = STEPS, .stride = stride, .labels = labels };
  const int64_t y = labels ? 1 : 2;
  m.x = wire(at, X, R * 2, 2), m.y = wire(at, Y, R * y, y);
  m.query = (micak_mlp_query){ .R = QUERY, .mean_out = !labels, .x = wire(at, QX, QUERY * 2, 2),
                               .y = wire(at, QY, QUERY * y, y), .loss = wire(at, QUERY_LOSS, QUERY, 1),
                               .loss_d = wire(at, SEED, QUERY, 1) };
  int begins = START;
  for (int i = 0; i < 2 * LAYERS; i++) {
    m.start[i] = wire(at, begins, NUMBERS, 1), m.rate[i] = wire(at, RATE, 1, 1);
    begins += (int)(m.width[i / 2 + 1] * (i % 2 ? 1 : m.width[i / 2]));
  }
  m.loss = wire(at, LOSS, STEPS, 1), m.loss_d = wire(at, LOSS_D, STEPS, 1);
  m.back = at + OUT_BACK, m.rate_back = at + RATES;
  return m;
}

/* thetas in shared memory or not, rows in one chunk or several, blocks for all tasks or one, tasks together or alone,
 * checkpoints: the same bits */
static void check_bits(int labels) {
  static const struct { int32_t there, rows, blocks; int64_t stride, alone; } ways[] = {
    { 2, 12, B, 1, 0 }, { 1, 12, B, 1, 0 }, { 0, 12, B, 1, 0 }, { 2, 8, B, 1, 0 }, { 1, 4, 2, 1, 0 },
    { 2, 12, 1, 2, 0 }, { 0, 8, 1, 3, 0 },  { 2, 12, B, 1, 1 },
  };
  mica_context *context;
  micah_device *d;
  static float in[ALL], out[MICA_COUNT(ways)][ALL];
  uint64_t random = 5;
  for (int i = 0; i < IN; i++) in[i] = (float)uniform(&random);
  for (int i = 0; i < B; i++) in[RATE + i] = 0.1f;
  for (int32_t i = 0, label; labels && i < B * (R + QUERY); i++) {
    label = i % 3 - 1;
    memcpy(i < B * R ? &in[Y + i] : &in[QY + i - B * R], &label, sizeof label);
  }
  OK(mica_context_create(NULL, &context));
  OK(micah_context_device(context, MICA_CUDA, 0, &d));
  OK(d->ops->enter(d));
  float *at = device_memory(d, sizeof in);
  for (int i = 0; i < MICA_COUNT(ways); i++) {
    micak_mlp_loop m = by_hand(at, ways[i].stride, labels);
    micak_mlp_cuda plan;
    device_copy(d, at, in, sizeof in);
    OK(micak_mlp_cuda_plan(&m, MICAK_MLP_BOTH, B, &plan));
    if (i == 0) assert_true(plan.there == 2 && plan.rows == 12 && plan.threads == 64);
    plan.there = ways[i].there, plan.rows = ways[i].rows, plan.blocks = ways[i].blocks;
    const size_t bytes = (size_t)plan.scratch + B * 4 * (NUMBERS + 64) * sizeof(float);
    void *scratch = device_memory(d, bytes);
    for (int64_t first = 0; first < B; first += ways[i].alone ? 1 : B)
      OK(micak_mlp_cuda_run(d->stream, &m, &plan, scratch, first, ways[i].alone ? 1 : B));
    device_copy(d, out[i], at, sizeof in);
    device_release(d, scratch, bytes);
    for (int k = IN; k < ALL; k++)
      if (out[i][k] != out[0][k] || !isfinite(out[i][k]))
        fail_msg("way %d: number %d is %g, not %g", i, k - IN, (double)out[i][k], (double)out[0][k]);
  }
  device_release(d, at, sizeof in);
  mica_context_destroy(context);
}
static void test_bits(void **state) {
  (void)state;
  need_cuda(1);
  check_bits(0);
  check_bits(1);
}
#else
static void test_bits(void **state) {
  (void)state;
  need_cuda(1);
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(test_shapes), cmocka_unit_test(test_slots),
                                      cmocka_unit_test(test_labels), cmocka_unit_test(test_bits) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
