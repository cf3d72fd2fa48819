/* attention.h: softmax attention over a few heads, whole sequences of many tasks at once.
 *
 *   out[i,h] = sum_j p_ij v[j,g]     p_i = softmax_j(scale_h <q[i,h], k[j,g]>) over the keys that row i sees
 *
 * q, out (B,T,H,D); k, v (B,S,G,D); scale (B,H), absent: 1 / sqrt(D); saved lse (B,T,H): log sum of exp of row i's
 * scores. grouped queries: query head h reads key head g = floor(h G / H). mask: `full` sees every key; `causal`
 * aligns the last query with the last key: row i sees keys j <= i + S - T. a row that sees no key has out 0, lse 0 and
 * no derivatives. rows may be packed: the offsets of q (lse, out) and those of k (v) are independent. heads may be
 * views: q, k, v of one (B,T,3C) buffer are wires with row stride 3C. outputs must not overlap inputs.
 * nothing of size T x S is saved: every face recomputes p from lse. scratch: strips of 6 or 24 rows of scores forward,
 * blocks of 48 x 256 backward, so memory is linear in T and S.
 * accumulates: k.d and v.d sum the query rows in order, query heads of a key head in order; scale.d sums the rows. f32.
 * deterministic: the same bits for any cut into units; a task alone as in any batch.
 * cost: 4 T S D H flop a task forward, 10 backward, 10 jvp, 22 backward_jvp; causal half of that for T = S.
 * worked example: T = S = D = 1 gives out = v; two keys of equal score give their mean. */
#ifndef MICA_OPS_ATTENTION_H
#define MICA_OPS_ATTENTION_H

#include "mica/op.h"

enum { MICA_ATTENTION_CAUSAL, MICA_ATTENTION_FULL }; /* mask */

typedef struct mica_attention_args {
  size_t    size;
  int64_t   B, T, S, H, G, D;
  int64_t   mask;
  mica_port q, k, v, scale, out, lse;
} mica_attention_args;

#endif
