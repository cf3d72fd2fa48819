/* unary operations on the CPU: one loop a face and operation, walked by common/map.h */
#include "common/isa.h"
#include "common/map.h"
#include "elementwise/unary_internal.h"

/* sums of two products are written with v_fma: left to the compiler, which of the two is fused could differ between a
 * loop and its tail */

static inline vf v_sigmoid_1(vf y) { return y * (1.0f - y); }
static inline vf v_silu_1(vf x) {
  vf g = v_sigmoid(x);
  return g * (1.0f + x * (1.0f - g));
}
static inline vf v_silu_2(vf x) {
  vf g = v_sigmoid(x);
  return g * (1.0f - g) * (2.0f + x * (1.0f - 2.0f * g));
}

#define INV_SQRT_2PI 0.398942280f
static inline vf v_gelu(vf x, int64_t approx) {
  vf e;
  return approx ? v_gelu_tanh(x) : x * v_normal(x, &e);
}
static inline vf v_gelu_1(vf x, int64_t approx) {
  vf e, cdf = v_normal(x, &e);
  return approx ? v_gelu_tanh_1(x) : v_fma(x, INV_SQRT_2PI * e, cdf);
}
static inline vf v_gelu_2(vf x, int64_t approx) {
  return approx ? v_gelu_tanh_2(x) : INV_SQRT_2PI * v_exp_low(-0.5f * x * x) * v_fma(-x, x, v_set1(2.0f));
}

enum { UNARY_S, UNARY_XT, UNARY_YD, UNARY_YTD, UNARY_INPUTS };

/* the body sees i: first of its lanes; LD(k) loads input k there */
#define UNARY_FN(name, body)                                                                          \
  static inline vf name(const mica_unary_args *a, vf s, vf t, vf d, vf td) {                          \
    (void)a, (void)s, (void)t, (void)d, (void)td;                                                     \
    return body;                                                                                      \
  }                                                                                                   \
  static void name##_n(const void *args, int64_t n, const float *const *in, float *out) {             \
    const mica_unary_args *a = args;                                                                  \
    int64_t i = 0;                                                                                    \
    for (; i + VW <= n; i += VW)                                                                      \
      v_store(out + i, name(a, v_load(in[0] + i), v_load(in[1] + i), v_load(in[2] + i), v_load(in[3] + i))); \
    if (i < n) {                                                                                      \
      int64_t m = n - i;                                                                              \
      v_store_n(out + i, name(a, v_load_n(in[0] + i, m), v_load_n(in[1] + i, m), v_load_n(in[2] + i, m), \
                              v_load_n(in[3] + i, m)), m);                                            \
    }                                                                                                 \
  }

static void unary_run(const mica_unary_args *a, int from, uint32_t reads, int forward, const mica_port *out_port,
                      const mica_wire *out, map_fn fn, int64_t first, int64_t count) {
  const mica_port *s = forward || from == UNARY_FROM_X ? &a->x : &a->y;
  if (!forward && from == UNARY_FROM_N) reads &= ~1u;
  map_job job = { a, a->B, a->R, a->C, a->y.offsets, reads, 0,
                  { { &s->v, s->offsets, a->R, a->C }, { &a->x.t, a->x.offsets, a->R, a->C },
                    { &a->y.d, a->y.offsets, a->R, a->C }, { &a->y.td, a->y.offsets, a->R, a->C } },
                  { out, out_port->offsets, a->R, a->C }, fn };
  if (map_kind(&job) == MAP_LOCAL) map_run_local(&job, first, count);
  else
    for (int64_t unit = first; unit < first + count; unit++)
      if (unit < map_sum_units(&job)) map_run_sum(&job, unit);
}

/* the bits of `reads` are the inputs above */
#define UNARY_FACE(name, face, forward, reads, port, wire)                                                   \
  CPU_KERNEL(name##_##face) {                                                                                \
    (void)exec;                                                                                              \
    const mica_unary_args *a = args;                                                                         \
    unary_run(a, from_##name, reads, forward, &a->port, &a->port.wire, name##_##face##_v_n, first, count);   \
    return MICA_OK;                                                                                          \
  }
#define UNARY_CPU(name, from, order, e0, e1, e2, w0, w1, w2)                                                   \
  static inline vf name##_v(const mica_unary_args *a, vf x) {                                                \
    (void)a;                                                                                                 \
    return w0;                                                                                                \
  }                                                                                                          \
  UNARY_FN(name##_forward_v, name##_v(a, s))                                                                 \
  UNARY_FN(name##_backward_v, order ? (w1) * d : v_zero())                                                   \
  UNARY_FN(name##_jvp_v, order ? (w1) * t : v_zero())                                                        \
  UNARY_FN(name##_backward_jvp_v, order > 1 ? v_fma(w1, td, (w2) * (t * d)) : order ? (w1) * td : v_zero())     \
  UNARY_FACE(name, forward, 1, 1, y, v)                                                                      \
  UNARY_FACE(name, backward, 0, order ? 1 | 4 : 0, x, d)                                                     \
  UNARY_FACE(name, jvp, 0, order ? 1 | 2 : 0, y, t)                                                          \
  UNARY_FACE(name, backward_jvp, 0, order > 1 ? 1 | 2 | 4 | 8 : order ? 1 | 8 : 0, x, td)

MICAK_UNARY_LIST(UNARY_CPU)
