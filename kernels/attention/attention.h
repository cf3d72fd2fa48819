/* attention.h: softmax attention over a few heads, whole sequences of many tasks at once.
 *
 *   s_ij = scale_h <q[i,h], k[j,g]> + bias[h,i,j] - slopes_h |p_i - j|        p_i = i + S - T
 *   out[i,h] = sum_j softmax_j(s_ij) v[j,g]                over the keys j that row i sees; lse = log sum_j e^s_ij
 *
 * q, out (B,T,H,D); k, v (B,S,G,D); saved lse (B,T,H). p_i is row i's own key: the last query stands at the last key.
 * grouped queries: query head h reads key head g = floor(h G / H). heads may be views: q, k, v of one (B,T,3C) buffer
 * are wires with row stride 3C. 1 <= D <= 256.
 * rows may be packed: the offsets of q (lse, out) and those of k (v) are independent; T and S are then the longest.
 * optional, all differentiable, usually shared by the tasks:
 *   scale (B,H)      factor of the scores; absent: 1 / sqrt(D)
 *   bias (B,H,P,Q)   added to the scores: entry (i, j) of each head; P >= T, Q >= S, what no row or key meets is not read
 *                    and has cotangent 0. -inf hides the key from the row, as a mask does
 *   slopes (B,H)     of linear distances (ALiBi; Press, Smith and Lewis, "Train short, test long", 2022)
 * mask, the keys that row i sees:
 *   causal           j <= p_i
 *   full             all
 *   prefix           j < N or j <= p_i: the first N keys are seen by all rows
 *   context          j < N or j = p_i: a query sees the context and itself only
 *   window           p_i - window < j <= p_i: its own key and the window - 1 before it
 * N is the task's entry of the index port prefix_lengths (B), or the setting `prefix` where that is absent.
 * block_mask (B,I,J), an index port: 0 at (i / block_q, j / block_k) hides the key too, whatever the mask says. with
 * mask=full it is an arbitrary block mask, with blocks of 1 (the default) an arbitrary mask.
 * index ports read by slot -1 are zeros: N = 0, all blocks hidden.
 * a row that sees no key has out 0, lse 0 and adds nothing to any derivative. outputs must not overlap inputs.
 * nothing of size T x S is saved or held: every face recomputes p from lse. scratch of a CPU call: a few rows of scores
 * beside the keys and values of one head forward, blocks of 48 x 128 backward; linear in T and S.
 * kernel, on CUDA: auto takes tensor cores where form, type, head and length suit them (README.md has the table), fma
 * never, mma and wgmma (forward and backward; the other faces as auto) always: what does not suit, or a device that is none
 * of compute capability 9.0, is MICA_ERR_UNSUPPORTED. other backends have one kernel and do not look at it.
 * accumulates: k.d and v.d sum the query rows in order, query heads of a key head in order; scale.d and slopes.d sum the
 * rows in double. f32. deterministic: the same bits for any cut into units; a task alone as in any batch.
 * cost: 4 D flop forward, 10 D backward, 10 D jvp, 24 D backward_jvp for each (row, key) pair of each head that the mask
 * (block masks aside) shows.
 * worked example: T = S = D = 1 gives out = v; two keys of equal score give their mean. */
#ifndef MICA_OPS_ATTENTION_H
#define MICA_OPS_ATTENTION_H

#include "mica/op.h"

enum { /* mask */
  MICA_ATTENTION_CAUSAL,
  MICA_ATTENTION_FULL,
  MICA_ATTENTION_PREFIX,
  MICA_ATTENTION_CONTEXT,
  MICA_ATTENTION_WINDOW
};
enum { MICA_ATTENTION_AUTO, MICA_ATTENTION_FMA, MICA_ATTENTION_MMA, MICA_ATTENTION_WGMMA }; /* kernel */

typedef struct mica_attention_args {
  size_t    size;
  int64_t   B, T, S, H, G, D;
  int64_t   P, Q;                            /* rows and keys of bias: T, S unless it has more; 0 without it */
  int64_t   I, J;                            /* blocks of rows and keys: ceil(T / block_q), ceil(S / block_k) or more */
  int64_t   mask, prefix, window, block_q, block_k, kernel;
  mica_port q, k, v, bias, slopes, scale, prefix_lengths, block_mask, out, lse;
} mica_attention_args;

#endif
