/* activations of linear on whole vectors: value, first and second derivative. included by linear_cpu.c. */
#ifndef MICA_KERNELS_LINEAR_ACT_H
#define MICA_KERNELS_LINEAR_ACT_H

#include "common/simd.h"
#include "linear/linear.h"

/* y = act(z); d1 = act'(z); d1 and d2 = act', act''. n is a multiple of VW. */
typedef void (*act_fn)(const float *z, float *out, int64_t n);
typedef void (*act2_fn)(const float *z, float *d1, float *d2, int64_t n);
typedef struct act_functions {
  act_fn  value, first;
  act2_fn both;
} act_functions;

/* each: f0, f1, f2 by the same expressions as linear_ref.inc */
#define ACT_LOOP(name, f0_, f1_, f2_)                                                     \
  static inline vf name##_0(vf z) { f0_ }                                                 \
  static inline void name##_12(vf z, vf *d1, vf *d2) { f1_; f2_; }                        \
  static void act_##name##_value(const float *z, float *out, int64_t n) {                 \
    for (int64_t i = 0; i < n; i += VW) v_store(out + i, name##_0(v_load(z + i)));        \
  }                                                                                       \
  static void act_##name##_first(const float *z, float *out, int64_t n) {                 \
    for (int64_t i = 0; i < n; i += VW) {                                                 \
      vf d1, d2;                                                                          \
      name##_12(v_load(z + i), &d1, &d2);                                                 \
      v_store(out + i, d1);                                                               \
    }                                                                                     \
  }                                                                                       \
  static void act_##name##_both(const float *z, float *first, float *second, int64_t n) { \
    for (int64_t i = 0; i < n; i += VW) {                                                 \
      vf d1, d2;                                                                          \
      name##_12(v_load(z + i), &d1, &d2);                                                 \
      v_store(first + i, d1);                                                             \
      v_store(second + i, d2);                                                            \
    }                                                                                     \
  }

#define V(x) v_set1(x)
ACT_LOOP(relu, return v_keep(v_gt(z, V(0)), z);, *d1 = v_keep(v_gt(z, V(0)), V(1)), *d2 = V(0))
static inline vf gelu_value(vf z) {
  vf e;
  return z * v_normal(z, &e);
}
ACT_LOOP(gelu, return gelu_value(z);, vf e; vf c = v_normal(z, &e); e = 0.398942280f * e; *d1 = v_fma(z, e, c),
         *d2 = e * (2.0f - z * z))
ACT_LOOP(gelu_tanh, return v_gelu_tanh(z);, *d1 = v_gelu_tanh_1(z), *d2 = v_gelu_tanh_2(z))
ACT_LOOP(silu, return z * v_sigmoid(z);, vf s = v_sigmoid(z); vf r = 1.0f - s; *d1 = s * v_fma(z, r, V(1)),
         *d2 = s * r * v_fma(z, 1.0f - 2.0f * s, V(2)))
ACT_LOOP(tanh, return v_tanh(z);, vf t = v_tanh(z); vf s = 1.0f - t * t; *d1 = s, *d2 = -2.0f * t * s)
ACT_LOOP(sigmoid, return v_sigmoid(z);
         , vf s = v_sigmoid(z); vf r = s * (1.0f - s); *d1 = r, *d2 = r * (1.0f - 2.0f * s))
#undef V

#define ACT_ENTRY(name) { act_##name##_value, act_##name##_first, act_##name##_both }
/* in the order of MICA_LINEAR_ACTS */
static const act_functions act_table[MICA_NACT] = { { NULL, NULL, NULL }, ACT_ENTRY(relu), ACT_ENTRY(gelu),
                                                    ACT_ENTRY(gelu_tanh), ACT_ENTRY(silu), ACT_ENTRY(tanh),
                                                    ACT_ENTRY(sigmoid) };

#endif
