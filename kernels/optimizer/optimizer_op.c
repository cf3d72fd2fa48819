/* picks the copy for an instruction set */
#include <math.h>

#include "kernels/optimizer/optimizer_internal.h"

typedef struct copy {
  void   (*adamw)(const micak_adamw_floats *, int64_t, const float *, float *, float *, float *);
  void   (*tree_add)(float *, const float *, int64_t);
  double (*norm2)(const float *, int64_t);
  int    (*finite)(const float *, int64_t);
} copy;

#define COPY(isa) { micak_adamw_cpu_##isa, micak_tree_add_cpu_##isa, micak_norm2_cpu_##isa, micak_finite_cpu_##isa }
static const copy copies[] = {
  COPY(portable),
#if defined(__x86_64__)
  COPY(avx2), COPY(avx512),
#endif
};

void micak_adamw_step(int isa, const micak_adamw *s, int64_t n, const float *gradient, float *m, float *v, float *p) {
  double c1 = 1 - pow(s->beta1, (double)s->step), c2 = 1 - pow(s->beta2, (double)s->step);
  micak_adamw_floats f = { (float)s->beta1, (float)(1 - s->beta1), (float)s->beta2, (float)(1 - s->beta2),
                           (float)s->scale, (float)(1 - s->lr * s->decay), (float)(s->lr / c1),
                           (float)(1 / sqrt(c2)), (float)s->eps };
  copies[isa].adamw(&f, n, gradient, m, v, p);
}

void micak_tree_add(int isa, float *a, const float *b, int64_t n) { copies[isa].tree_add(a, b, n); }

int64_t micak_norm2_count(int64_t n) { return (n + MICAK_OPTIMIZER_BLOCK - 1) / MICAK_OPTIMIZER_BLOCK; }

void micak_norm2_blocks(int isa, const float *x, int64_t n, double *sums) {
  for (int64_t k = 0, at = 0; at < n; k++, at += MICAK_OPTIMIZER_BLOCK)
    sums[k] = copies[isa].norm2(x + at, n - at < MICAK_OPTIMIZER_BLOCK ? n - at : MICAK_OPTIMIZER_BLOCK);
}

double micak_norm2_tree(double *sums, int64_t count) {
  if (count < 1) return 0;
  for (int64_t step = 1; step < count; step *= 2)
    for (int64_t i = 0; i + step < count; i += 2 * step) sums[i] += sums[i + step];
  return sums[0];
}

int micak_finite(int isa, const float *x, int64_t n) { return copies[isa].finite(x, n); }
