/* batch_norm_pool.h: batch norm, the largest value of every square of pixels, and relu, in one: what lies between them is
 * never written, and never saved.
 *
 *   y[t,p,q,c] = act((x[t,h,w,c] - mean[c]) rstd[c] w[c] + b[c]),   (h, w) of square (p, q) with the largest w[c] x[t,h,w,c]
 *
 * x (B,T,H,W,C), y (B,T,P,Q,C), P = floor(H / size), Q = floor(W / size): pixels left over belong to no square, but to
 * mean and rstd (batch_norm.h). of equals the first, by row and then by column, is taken; a NaN is never larger. with w
 * absent it is ones. act: none, or relu with slope 0 at 0.
 * the values are those of batch_norm, max_pool and relu in a row, in the same bits. derivatives are, too, but where the
 * numbers of a square differ only before normalising rounds them to one.
 * accumulates as batch_norm. deterministic. source: batch_norm.h, pool.h.
 * worked example: x ((1, 3), (5, 7)), w 1, b 0, eps 0, size 2 -> mean 4, rstd 1 / sqrt(5), y 3 / sqrt(5). */
#ifndef MICA_OPS_BATCH_NORM_POOL_H
#define MICA_OPS_BATCH_NORM_POOL_H

#include "batch_norm.h"

typedef struct mica_batch_norm_pool_args {
  mica_batch_norm_args norm;                 /* norm.P: H W */
  int64_t H, W, P, Q;                        /* P and Q follow from the others */
  int64_t window;
  int32_t act;                               /* 0: none, 1: relu */
} mica_batch_norm_pool_args;

#endif
