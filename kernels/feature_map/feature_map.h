/* feature_map.h: maps of queries and keys in front of a linear memory: y = phi(x), x (B,T,H,D), y (B,T,H,F).
 *
 *   identity   y = x                                                                                    F = D
 *   elu1       y = x + 1 above 0, e^x below: positive                                                   F = D
 *   dpfp       r = (max(x,0), max(-x,0)), y_(2D i + j) = r_j r_(j - i - 1), i < nu, indices modulo 2D    F = 2 D nu
 *   favor      y_m = exp(<w_m, x> - |x|^2 / 2) / sqrt(F): positive random features                      F given
 *   softmax    y = e^x / sum e^x                                                                        F = D
 *   silu_l2    s = x sigmoid(x), y = s / sqrt(|s|^2 + eps)                                              F = D
 *   l1         y = x / (sum |x| + eps): positive features that sum to 1                                 F = D
 *   l2         y = x / sqrt(|x|^2 + eps)                                                                F = D
 *
 * favor: w (F,D) are Gaussian directions, orthogonal within blocks of D, with independent Gaussian lengths: one draw of
 * Philox keyed by the setting `seed`, the same for all tasks, heads and calls, so that queries and keys agree.
 * E <phi(q), phi(k)> = exp <q, k>: for softmax attention with scale 1 / sqrt(D) give it x / D^(1/4). exponents are not
 * shifted: beyond 88 y is Inf.
 * dpfp and l1 have a kink at 0, where the derivative of the rectifier or modulus is taken as 0. 1 <= D <= 256, F <= 4096. rows may be packed. outputs must
 * not overlap inputs. f32. deterministic: the same bits for any cut into units; unit: a row of all heads.
 * cost: a few flop an element; favor 2 D F flop a row and head forward, twice that backward and jvp.
 * worked example: dpfp, nu = 1, x = (2, -3): r = (2, 0, 0, 3), y = r times r moved by one = (6, 0, 0, 0). */
#ifndef MICA_OPS_FEATURE_MAP_H
#define MICA_OPS_FEATURE_MAP_H

#include "mica/op.h"

typedef struct mica_feature_map_args {
  size_t    size;
  int64_t   B, T, H, D, F;
  int64_t   map, nu, seed;
  double    eps;
  mica_port x, y;
} mica_feature_map_args;

#endif
