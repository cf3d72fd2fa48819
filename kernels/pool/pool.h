/* pool.h: the largest value of every square of pixels, channels last.
 *
 *   y[p,q,c] = max over i, j < size of x[p size + i, q size + j, c]
 *
 * x (B,T,H,W,C), y (B,T,P,Q,C), P = floor(H / size), Q = floor(W / size): pixels left over belong to no square. of
 * equal values the first, by row and then by column, is the one that is taken, in every face. a NaN is never larger.
 * images may be packed. nothing is saved: x tells where the largest is. row-local, deterministic.
 * worked example: x ((1, 2), (3, 0)) -> y 3. */
#ifndef MICA_OPS_POOL_H
#define MICA_OPS_POOL_H

#include "mica/op.h"

typedef struct mica_max_pool_args {
  size_t    size;
  int64_t   B, T, H, W, C, P, Q;             /* P and Q follow from the others */
  int64_t   window;
  mica_port x, y;
} mica_max_pool_args;

#endif
