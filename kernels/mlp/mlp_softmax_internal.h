/* softmax and cross entropy of whole vectors, a lane a row; included by mlp_loop's kernels */
#ifndef MICA_KERNELS_MLP_SOFTMAX_INTERNAL_H
#define MICA_KERNELS_MLP_SOFTMAX_INTERNAL_H

#include "common/simd.h"

/* the cross entropy of n logits that lie `stride` floats apart, by label; they become probabilities. a negative label:
 * no loss, all probabilities 0, so that no derivative comes of it */
static inline vf mlp_softmax(float *z, int64_t n, int64_t stride, vf label) {
  const vm counts = v_ge(label, v_zero());
  vf top = v_set1(-INFINITY), sum = v_zero(), own = v_zero();
  for (int64_t o = 0; o < n; o++) top = v_max(v_load(z + o * stride), top);
  for (int64_t o = 0; o < n; o++) {
    vf x = v_load(z + o * stride), e = v_exp_low(x - top);
    own = v_select(v_eq(label, v_set1((float)o)), x, own);
    sum += e;
    v_store(z + o * stride, e);
  }
  const vf part = 1.0f / sum;
  for (int64_t o = 0; o < n; o++) v_store(z + o * stride, v_keep(counts, v_load(z + o * stride) * part));
  return v_keep(counts, v_log(sum) + (top - own));
}

/* the loss's derivative by logit o: p - 1 of the label, p of others */
static inline vf mlp_residual(vf p, vf label, int64_t o) {
  return p - v_keep(v_eq(label, v_set1((float)o)), v_set1(1));
}

/* its tangents, times scale: p (t - sum of p t), of the tangents t of the logits; (n) `stride` apart */
static inline void mlp_residual_tangent(const float *p, const float *t, int64_t n, int64_t stride, vf scale,
                                        float *to) {
  vf mean = v_zero();
  for (int64_t o = 0; o < n; o++) mean = v_fma(v_load(p + o * stride), v_load(t + o * stride), mean);
  for (int64_t o = 0; o < n; o++)
    v_store(to + o * stride, scale * v_load(p + o * stride) * (v_load(t + o * stride) - mean));
}

#endif
