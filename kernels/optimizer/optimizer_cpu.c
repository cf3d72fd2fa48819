/* plain loops that the compiler turns into vectors: each element has the same arithmetic wherever it lies */
#include <math.h>

#include "common/isa.h"
#include "kernels/optimizer/optimizer_internal.h"

void CPU_NAME(adamw)(const micak_adamw_floats *s, int64_t n, const float *restrict g, float *restrict m,
                     float *restrict v, float *restrict p) {
  const float b1 = s->beta1, a1 = s->alpha1, b2 = s->beta2, a2 = s->alpha2, scale = s->scale, keep = s->keep;
  const float rate = s->rate, root = s->root, eps = s->eps;
  for (int64_t i = 0; i < n; i++) {
    float x = scale * g[i];
    m[i] = b1 * m[i] + a1 * x;
    v[i] = b2 * v[i] + a2 * (x * x);
    p[i] = keep * p[i] - rate * (m[i] / (sqrtf(v[i]) * root + eps));
  }
}

void CPU_NAME(tree_add)(float *restrict a, const float *restrict b, int64_t n) {
  for (int64_t i = 0; i < n; i++) a[i] += b[i];
}

double CPU_NAME(norm2)(const float *x, int64_t n) {
  enum { LANES = 16 };
  double sum[LANES] = { 0 };
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) sum[j] += (double)x[i + j] * (double)x[i + j];
  for (int j = 0; i < n; i++, j++) sum[j] += (double)x[i] * (double)x[i];
  for (int width = LANES / 2; width; width /= 2)
    for (int j = 0; j < width; j++) sum[j] += sum[j + width];
  return sum[0];
}

int CPU_NAME(finite)(const float *x, int64_t n) {
  /* x - x is 0 for finite numbers and NaN for the others */
  int bad = 0;
  for (int64_t i = 0; i < n; i++) bad |= !(x[i] - x[i] == 0);
  return !bad;
}
