/* delta_rule.h: a memory that is corrected: every token moves what its key reads towards its value.
 *
 *   S_t = S_(t-1) + beta_t k_t (v_t - S_(t-1)' k_t)'
 *   out_t = S_t' q_t                  no scale, no normalisation of keys or queries
 *
 * q, k (B,T,H,K), v, out (B,T,H,V), beta (B,T,H), absent: 1; 1 <= K, V <= 256, K and V independent; heads are
 * independent. state_in, state_out (B,H,K,V): S before the first token (absent: 0) and after the last.
 * with rate 1 and orthonormal keys a token overwrites exactly what its key held. a token multiplies the part of S along
 * its key by 1 - beta |k|^2: while 0 <= beta |k|^2 <= 2 nothing grows; beyond, S grows geometrically and is Inf or NaN
 * once it leaves the range of f32, in the task and head where it happened alone.
 * form: chunked solves `chunk` tokens (0: by shape) as one triangular system, recurrent goes token by token; the same
 * function. auto is chunked on the CPU; on CUDA a sequence of T tokens goes token by token while T (K + V) <= 352, else in
 * chunks, by its own length, whatever the longest is (there a chunk is 16 tokens whatever `chunk` says, and K or V under 8, or K over 128, over 64 in
 * the faces with tangents, go token by token in every form, in the same bits). rows may be packed: the sequences of all
 * tasks one after another, each starting from its own state_in; an empty sequence has state_out = state_in. outputs must
 * not overlap inputs.
 * nothing is saved: backward recomputes the states from one kept state a chunk, in scratch of (T / chunk) K V floats
 * and 2 T V. f32 state and sums. deterministic: the same bits for any cut into units; a task alone as in any batch.
 * unit: a (task, head) pair.
 * cost: about 6 T K V + 2 chunk T (K + V) flop forward, three times that backward and jvp, eight times backward_jvp.
 * worked example: K = V = 1, k = 1, 1, v = 3, 1, beta = 1, 1/2: S = 3, then 3 + (1 - 3) / 2 = 2. */
#ifndef MICA_OPS_DELTA_RULE_H
#define MICA_OPS_DELTA_RULE_H

#include "mica/op.h"

typedef struct mica_delta_rule_args {
  size_t    size;
  int64_t   B, T, H, K, V;
  int64_t   form, chunk;                     /* form: 0 auto, 1 chunked, 2 recurrent */
  mica_port q, k, v, beta, state_in, out, state_out;
} mica_delta_rule_args;

#endif
