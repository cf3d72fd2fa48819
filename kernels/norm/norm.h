/* norm.h: layer normalisation and root-mean-square normalisation over the columns of each row.
 *
 *   layernorm  y = (x - mean) rstd w + b     mean, var over the C columns, rstd = 1 / sqrt(var + eps)   (var biased)
 *   rmsnorm    y = x rstd w                  rstd = 1 / sqrt(mean(x^2) + eps)
 *
 * x, y (B,R,C); w, b (B,C), usually shared over tasks; w absent: ones, b absent: zeros. saved: mean, rstd (B,R).
 * rows may be packed (offsets on x and whatever else has the row axis). outputs must not overlap inputs.
 * accumulates: w.d and b.d (and td) sum rows in order within blocks of 64, blocks in row order, tasks in task order;
 * everything else is local to a row. arithmetic and sums are f32; on CUDA w.d and b.d sum in double, in the
 * fixed tree of common/cuda_map.cuh.
 * deterministic: the same bits for any cut into units.
 * cost of a forward: 8 B R C flop, 2 B R C elements moved. worked example: layernorm of (1, 3), eps 0 -> (-1, 1). */
#ifndef MICA_OPS_NORM_H
#define MICA_OPS_NORM_H

#include "mica/op.h"

typedef struct mica_norm_args {
  size_t    size;
  int64_t   B, R, C;
  double    eps;
  mica_port x, w, b, y, mean, rstd;          /* rmsnorm has no b and no mean */
} mica_norm_args;

#endif
