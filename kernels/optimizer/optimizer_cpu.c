/* each element has the same lane arithmetic wherever it lies, so that any cut gives the same bits */
#include "common/isa.h"
#include "common/simd.h"
#include "kernels/optimizer/optimizer_internal.h"

static inline vf adamw_lanes(const micak_adamw_floats *s, vf g, vf *m, vf *v, vf p) {
  vf x = s->scale * g;
  *m = v_fma(v_set1(s->beta1), *m, s->alpha1 * x);
  *v = v_fma(v_set1(s->beta2), *v, s->alpha2 * (x * x));
  vf step = *m / v_fma(v_sqrt(*v), v_set1(s->root), v_set1(s->eps));
  return v_fma(v_set1(-s->rate), step, s->keep * p);
}

void CPU_NAME(adamw)(const micak_adamw_floats *s, int64_t n, const float *restrict g, float *restrict m,
                     float *restrict v, float *restrict p) {
  int64_t i = 0;
  for (; i + VW <= n; i += VW) {
    vf mean = v_load(m + i), square = v_load(v + i);
    v_store(p + i, adamw_lanes(s, v_load(g + i), &mean, &square, v_load(p + i)));
    v_store(m + i, mean);
    v_store(v + i, square);
  }
  if (i == n) return;
  n -= i, g += i, m += i, v += i, p += i;
  vf mean = v_load_n(m, n), square = v_load_n(v, n);
  v_store_n(p, adamw_lanes(s, v_load_n(g, n), &mean, &square, v_load_n(p, n)), n);
  v_store_n(m, mean, n);
  v_store_n(v, square, n);
}

void CPU_NAME(tree_add)(float *restrict a, const float *restrict b, int64_t n) {
  for (int64_t i = 0; i < n; i++) a[i] += b[i];
}

/* squares of floats are exact in double, so an fma changes nothing: all instruction sets give the same bits */
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
