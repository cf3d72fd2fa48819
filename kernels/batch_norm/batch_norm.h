/* batch_norm.h: every channel brought to mean 0 and variance 1 over all rows of its task.
 *
 *   mean[c] = mean over t, s of x[t,s,c],   rstd[c] = 1 / sqrt(variance + eps)   (the variance of the batch, biased)
 *   y[t,s,c] = (x[t,s,c] - mean[c]) rstd[c] w[c] + b[c]
 *
 * x, y (B,T,P,C): T images of P pixels (rows may be packed); w, b (B,C), usually shared over tasks, or absent. saved:
 * mean, rstd (B,C). the statistics are those of the rows at hand (transductive batch norm). a task without rows has
 * mean 0 and rstd 1.
 *
 * accumulates: sums over rows in order, fp32 within a row of pixels, double across rows; w.d and b.d sum tasks in
 * order; on CUDA all sums are in double, in up to 32 pieces of a task's rows. deterministic: the same bits for any cut
 * into units and any other tasks beside. source: Ioffe, Szegedy (2015).
 * worked example: x (1, 3), eps 0, w 2, b 1 -> mean 2, rstd 1, y (-1, 3). */
#ifndef MICA_OPS_BATCH_NORM_H
#define MICA_OPS_BATCH_NORM_H

#include "mica/op.h"

typedef struct mica_batch_norm_args {
  size_t    size;
  int64_t   B, T, P, C;
  double    eps;
  mica_port x, w, b, y, mean, rstd;
} mica_batch_norm_args;

#endif
