/* optimizer.h: the outer update over flat fp32 blocks: sums of gradients, norms, AdamW. not operations: no faces.
 *
 * `isa` is a MICA_ISA_* that this machine has. every function gives the same bits for any cut of a block at multiples
 * of MICAK_OPTIMIZER_BLOCK numbers. no threads here. */
#ifndef MICAK_OPTIMIZER_H
#define MICAK_OPTIMIZER_H

#include "mica/op.h"

enum { MICAK_OPTIMIZER_BLOCK = 4096 };

/* AdamW (Loshchilov and Hutter 2019, algorithm 2), with g = scale x gradient:
 *   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
 *   p = (1 - lr decay) p - lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps) */
typedef struct micak_adamw {
  double  lr, beta1, beta2, eps, decay, scale;
  int64_t step;                  /* from 1 */
} micak_adamw;

/* update n numbers in place; gradient is read only */
void micak_adamw_step(int isa, const micak_adamw *settings, int64_t n, const float *gradient, float *m, float *v,
                      float *p);

/* a[i] += b[i] */
void micak_tree_add(int isa, float *a, const float *b, int64_t n);

/* sums[k] = sum of squares of block k of x (the last may be short), in double, in a fixed order */
void micak_norm2_blocks(int isa, const float *x, int64_t n, double *sums);
/* blocks of n numbers */
int64_t micak_norm2_count(int64_t n);
/* the sum of `count` block sums in a fixed binary tree; overwrites sums */
double micak_norm2_tree(double *sums, int64_t count);

/* 1 when all of x are finite */
int micak_finite(int isa, const float *x, int64_t n);

/* the same in plain double loops: the oracle of the tests */
void   micak_adamw_step_ref(const micak_adamw *settings, int64_t n, const double *gradient, double *m, double *v,
                            double *p);
double micak_norm2_ref(const float *x, int64_t n);

/* ---- the same on a CUDA stream (builds with a CUDA backend): device memory, nothing is read back. the bits are those
 * of the CPU copies that have fma: the same lanes, the same trees. failed launches are MICA_ERR_DEVICE. ---- */

/* a stretch of the flat block; decay 0: none */
typedef struct micak_stretch {
  int64_t first, count;
  int32_t decay;
} micak_stretch;

#ifdef __cplusplus
extern "C" {
#endif
/* one update of `count` stretches, none longer than `longest`; `stretches` is device memory. factor (1), or NULL, is
 * multiplied into settings->scale */
mica_status micak_adamw_cuda(void *stream, const micak_adamw *settings, const micak_stretch *stretches, int64_t count,
                             int64_t longest, const double *factor, const float *gradient, float *m, float *v,
                             float *p);
mica_status micak_tree_add_cuda(void *stream, float *a, const float *b, int64_t n);
mica_status micak_norm2_blocks_cuda(void *stream, const float *x, int64_t n, double *sums);
/* leaves the total in sums[0] */
mica_status micak_norm2_tree_cuda(void *stream, double *sums, int64_t count);
/* norm[0] = scale sqrt(*norm2); norm[1] = clip > 0 and norm[0] > clip ? clip / norm[0] : 1, a factor for
 * micak_adamw_cuda */
mica_status micak_clip_cuda(void *stream, const double *norm2, double scale, double clip, double *norm);
/* ors 1 into *bad unless all of x are finite */
mica_status micak_finite_cuda(void *stream, const float *x, int64_t n, int32_t *bad);
#ifdef __cplusplus
}
#endif

#endif
