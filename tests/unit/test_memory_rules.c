/* what must hold exactly of memories that are written while a sequence is read, and that long random ones stay finite. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "delta_rule/delta_rule.h"
#include "feature_map/feature_map.h"
#include "gated_delta/gated_delta.h"
#include "gradient_memory/gradient_memory.h"
#include "linear_attention/linear_attention.h"
#include "mica/context.h"

static mica_context *context;

static const mica_op *start(const char *name, void *args, const char *settings) {
  const mica_op *op;
  if (mica_find_op(context, name, &op) < 0 || mica_args_init(op, args) < 0 || mica_args_set(op, args, settings) < 0)
    fail_msg("%s", mica_last_error());
  if (op->infer && op->infer(args) < 0) fail_msg("%s", mica_last_error());
  return op;
}
/* dense values of an operand */
static void bind(const mica_op *op, void *args, const char *operand, const float *data) {
  for (int i = 0; i < op->n_operands; i++) {
    if (strcmp(op->operands[i].name, operand) != 0) continue;
    mica_port *port = (mica_port *)((char *)args + op->operands[i].offset);
    mica_wire_dense(op, &op->operands[i], args, MICA_F32, 0, (void *)(uintptr_t)data, &port->v);
    return;
  }
  fail_msg("%s has no operand %s", op->name, operand);
}
static void forward(const mica_op *op, const void *args) {
  if (mica_op_run(context, op->name, MICA_CPU, MICA_F32, MICA_FORWARD, args) < 0) fail_msg("%s", mica_last_error());
}

/* rate 1 and orthonormal keys: the last value written under each key is read back to the bit */
static void delta_rule_overwrites(void **state) {
  (void)state;
  enum { T = 12, K = 4, V = 3 };
  float q[T * K] = { 0 }, k[T * K] = { 0 }, v[T * V], out[T * V], kept[K * V];
  static const char *const settings[] = { "B=1 T=12 H=1 K=4 V=3", "B=1 T=12 H=1 K=4 V=3 form=recurrent",
                                          "B=1 T=12 H=1 K=4 V=3 chunk=5" };
  for (int t = 0; t < T; t++) {
    q[t * K + t * 3 % K] = k[t * K + t * 3 % K] = 1;
    for (int j = 0; j < V; j++) v[t * V + j] = (float)(t * V + j + 1) / 64;
  }
  for (int i = 0; i < 3; i++) {
    mica_delta_rule_args a;
    const mica_op *op = start("delta_rule", &a, settings[i]);
    bind(op, &a, "q", q), bind(op, &a, "k", k), bind(op, &a, "v", v), bind(op, &a, "out", out);
    bind(op, &a, "state_out", kept);
    forward(op, &a);
    assert_memory_equal(out, v, sizeof v);
    for (int key = 0; key < K; key++)
      for (int t = T - 1; t >= 0; t--)
        if (k[t * K + key] > 0) {
          assert_memory_equal(kept + key * V, v + t * V, V * sizeof(float));
          break;
        }
  }
}

/* the published construction: keys x_i, values rate y_i, query x: the prediction of W = rate sum y_i x_i', one step of descent
 * on squared error from W = 0 (von Oswald et al. 2023, proposition 1) */
static void linear_attention_descends(void **state) {
  (void)state;
  enum { T = 9, K = 3, V = 2 };
  const double rate = 0.25;
  float x[T * K], v[T * V], out[T * V];
  double w[K * V] = { 0 };
  mica_linear_attention_args a;
  for (int i = 0; i < T * K; i++) x[i] = (float)((i * 37 % 19) - 9) / 8;
  for (int i = 0; i < T * V; i++) v[i] = i / V + 1 < T ? (float)(rate * ((i * 23 % 17) - 8) / 4) : 0; /* the query's is 0 */
  const mica_op *op = start("linear_attention", &a, "B=1 T=9 H=1 K=3 V=2");
  bind(op, &a, "q", x), bind(op, &a, "k", x), bind(op, &a, "v", v), bind(op, &a, "out", out);
  forward(op, &a);
  /* minus the gradient of sum |W' x_i - y_i|^2 / 2 at W = 0, times the rate */
  for (int t = 0; t < T - 1; t++)
    for (int i = 0; i < K; i++)
      for (int j = 0; j < V; j++) w[i * V + j] -= (double)x[t * K + i] * (0 - (double)v[t * V + j]);
  for (int j = 0; j < V; j++) {
    double want = 0;
    for (int i = 0; i < K; i++) want += w[i * V + j] * (double)x[(T - 1) * K + i];
    assert_true(fabs((double)out[(T - 1) * V + j] - want) <= 1e-6);
  }
}

/* 2 D nu orthogonal features of keys with D numbers, so that a memory keeps as many pairs apart; the keys themselves span D */
static void dpfp_capacity(void **state) {
  (void)state;
  static const float keys[4][2] = { { 1, 1 }, { -1, 1 }, { -1, -1 }, { 1, -1 } };
  float features[16], v[4] = { 3, -1, 4, 2 };
  mica_feature_map_args f;
  const mica_op *op = start("feature_map", &f, "B=1 T=4 H=1 D=2 map=dpfp");
  bind(op, &f, "x", keys[0]), bind(op, &f, "y", features);
  forward(op, &f);
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      float dot = 0;
      for (int d = 0; d < 4; d++) dot += features[4 * i + d] * features[4 * j + d];
      assert_true(dot == (float)(i == j));
    }
  float twice[32], values[8] = { 3, -1, 4, 2, 0, 0, 0, 0 }, read[8];
  memcpy(twice, features, sizeof features), memcpy(twice + 16, features, sizeof features);
  mica_linear_attention_args a;
  op = start("linear_attention", &a, "B=1 T=8 H=1 K=4 V=1");
  bind(op, &a, "q", twice), bind(op, &a, "k", twice), bind(op, &a, "v", values), bind(op, &a, "out", read);
  forward(op, &a);
  assert_memory_equal(read + 4, v, sizeof v);
  /* without the map the four keys collide: opposite ones cancel */
  float plain[16];
  memcpy(plain, keys, sizeof keys), memcpy(plain + 8, keys, sizeof keys);
  op = start("linear_attention", &a, "B=1 T=8 H=1 K=2 V=1");
  bind(op, &a, "q", plain), bind(op, &a, "k", plain), bind(op, &a, "v", values), bind(op, &a, "out", read);
  forward(op, &a);
  assert_true(memcmp(read + 4, v, sizeof v) != 0);
}

/* 1,000 sequences of 4,096 tokens, rates in (0, 2), keys of length 1 */
static void long_sequences_stay_finite(void **state) {
  (void)state;
  enum { B = 50, T = 4096, K = 8, V = 8 };
  size_t n = (size_t)B * T;
  float *q = malloc(n * K * sizeof *q), *k = malloc(n * K * sizeof *k), *v = malloc(n * V * sizeof *v);
  float *rate = malloc(n * sizeof *rate), *decay = malloc(n * sizeof *decay), *out = malloc(n * V * sizeof *out);
  assert_true(q && k && v && rate && decay && out);
  uint64_t seed = 1;
#define NEXT ((float)((double)((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 11) * 0x1p-53))
  for (int round = 0; round < 20; round++) {
    for (size_t i = 0; i < n * K; i++) q[i] = 2 * NEXT - 1, k[i] = 2 * NEXT - 1;
    for (size_t i = 0; i < n * V; i++) v[i] = 2 * NEXT - 1;
    for (size_t i = 0; i < n; i++) {
      float length = 1e-12f;
      for (int d = 0; d < K; d++) length += k[i * K + d] * k[i * K + d];
      for (int d = 0; d < K; d++) k[i * K + d] /= sqrtf(length);
      rate[i] = 2 * NEXT, decay[i] = NEXT;
    }
    for (int rule = 0; rule < 3; rule++) {
      static const char *const names[] = { "delta_rule", "gated_delta", "gradient_memory" };
      static const char *const sizes[] = { "B=50 T=4096 H=1 K=8 V=8", "B=50 T=4096 H=1 K=8 V=8 A=1",
                                           "B=50 T=4096 H=1 K=8 V=8" };
      union {
        mica_delta_rule_args      delta;
        mica_gated_delta_args     gated;
        mica_gradient_memory_args descent;
      } a;
      const mica_op *op = start(names[rule], &a, sizes[rule]);
      bind(op, &a, "q", q), bind(op, &a, "k", k), bind(op, &a, "v", v), bind(op, &a, "beta", rate);
      bind(op, &a, "out", out);
      if (rule == 1) bind(op, &a, "decay", decay);
      forward(op, &a);
      double largest = 0;
      for (size_t i = 0; i < n * V; i++) {
        if (!isfinite(out[i])) fail_msg("%s: not finite in round %d", names[rule], round);
        largest = fmax(largest, fabs((double)out[i]));
      }
      assert_true(largest > 0.1 && largest < 1e4);
    }
  }
  free(q), free(k), free(v), free(rate), free(decay), free(out);
}

/* beyond rate 2 the rule may grow without bound: then its task and head are not finite, which the engine reports and leaves
 * out, and no other task or head changes a bit */
static void growth_stays_where_it_is(void **state) {
  (void)state;
  enum { B = 3, T = 400, H = 2, D = 20, N = B * T * H * D };
  static const char *const settings[] = { "B=3 T=400 H=2 K=20 V=20", "B=3 T=400 H=2 K=20 V=20 form=recurrent",
                                          "B=3 T=400 H=2 K=20 V=20 chunk=24" };
  float *q = malloc(N * sizeof *q), *k = calloc(N, sizeof *k), *out[2], *rate = malloc(B * T * H * sizeof *rate);
  for (int i = 0; i < 2; i++) out[i] = malloc(N * sizeof **out);
  assert_true(q && k && out[0] && out[1] && rate);
  for (int i = 0; i < N; i++) q[i] = (float)((i * 37 % 19) - 9) / 8;
  for (int i = 0; i < B * T * H; i++) k[i * D + i % 3] = 1;
  for (int form = 0; form < 3; form++) {
    for (int wild = 0; wild < 2; wild++) {
      mica_delta_rule_args a;
      const mica_op *op = start("delta_rule", &a, settings[form]);
      for (int i = 0; i < B * T * H; i++) rate[i] = wild && i / (T * H) == 1 && i % H == 1 ? 3.5f : 0.5f;
      bind(op, &a, "q", q), bind(op, &a, "k", k), bind(op, &a, "v", q), bind(op, &a, "beta", rate);
      bind(op, &a, "out", out[wild]);
      forward(op, &a);
    }
    int lost = 0;
    for (int i = 0; i < N; i++) {
      int here = i / (T * H * D) == 1 && i / D % H == 1;
      lost += !isfinite(out[1][i]);
      if (!here && memcmp(&out[0][i], &out[1][i], sizeof(float)) != 0)
        fail_msg("%s: element %d changed", settings[form], i);
    }
    assert_true(lost > 0);
  }
  free(q), free(k), free(out[0]), free(out[1]), free(rate);
}

static int open_context(void **state) {
  (void)state;
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = 1;
  return mica_context_create(&options, &context) < 0;
}
static int close_context(void **state) {
  (void)state;
  mica_context_destroy(context);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(delta_rule_overwrites),
    cmocka_unit_test(linear_attention_descends),
    cmocka_unit_test(dpfp_capacity),
    cmocka_unit_test(long_sequences_stay_finite),
    cmocka_unit_test(growth_stays_where_it_is),
  };
  return cmocka_run_group_tests(tests, open_context, close_context);
}
