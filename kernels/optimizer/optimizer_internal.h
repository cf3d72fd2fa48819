/* optimizer_internal.h: the copies of optimizer_cpu.c for each instruction set */
#ifndef MICAK_OPTIMIZER_INTERNAL_H
#define MICAK_OPTIMIZER_INTERNAL_H

#include "kernels/optimizer/optimizer.h"

/* AdamW's settings in the form that the loop uses */
typedef struct micak_adamw_floats {
  float beta1, alpha1, beta2, alpha2, scale, keep, rate, root, eps;
} micak_adamw_floats;

#define MICAK_OPTIMIZER_COPY(isa)                                                                                   \
  void   micak_adamw_cpu_##isa(const micak_adamw_floats *s, int64_t n, const float *g, float *m, float *v, float *p);\
  void   micak_tree_add_cpu_##isa(float *a, const float *b, int64_t n);                                             \
  double micak_norm2_cpu_##isa(const float *x, int64_t n);                                                          \
  int    micak_finite_cpu_##isa(const float *x, int64_t n);
MICAK_OPTIMIZER_COPY(portable)
#if defined(__x86_64__)
MICAK_OPTIMIZER_COPY(avx2)
MICAK_OPTIMIZER_COPY(avx512)
#endif

#endif
