/* linear_attention.h: the additive memory: every token writes k v' into a matrix, every token reads it with q.
 *
 *   S_t = diag(decay_t) S_(t-1) + k_t v_t'          z_t = decay_t z_(t-1) + k_t
 *   out_t = S_t' q_t                  normalise=yes: out_t = S_t' q_t / (z_t' q_t + eps)
 *
 * q, k (B,T,H,K), v, out (B,T,H,V), 1 <= K, V <= 256, K and V independent; heads are independent. state_in, state_out
 * (B,H,K,V): S before the first token (absent: 0) and after the last; norm_in, norm_out (B,H,K): z, whether it
 * divides or not. no scale, no feature map: both belong before (room feature_map). the token itself is read: row t sees
 * tokens 0..t and the state before.
 * decay (B,T,H,A), absent: 1 (nothing fades): A = 1, one factor a head (retention: Sun et al. 2023), or A = K, one for each
 * key channel (gated linear attention: Yang et al. 2023); the factor itself, as in gated_delta.h.
 * form: chunked computes tokens in chunks of `chunk` (0: by shape) by matrix products, recurrent token by token; the
 * same function. auto is chunked on the CPU; on CUDA a sequence of T tokens goes token by token while T (K + V) <= 352,
 * else in chunks, by its own length, whatever the longest is (there a chunk is 16 tokens whatever `chunk` says, and K or V
 * under 8, or K over 128, in the faces with tangents over 64, with decay 32, go token by token in every form, in the same
 * bits). rows may be packed: the sequences of all tasks one after another, each starting from its own state_in; an empty sequence has
 * state_out = state_in. outputs must not overlap inputs.
 * the denominator is not guarded beyond eps: with positive features it is positive; where it is 0, out is not finite.
 * nothing is saved: backward recomputes the states from one kept state a chunk, in scratch of (T / chunk) K V floats.
 * f32 state and sums whatever the storage; a state beyond the range of f32 is Inf, never wrapped. deterministic: the
 * same bits for any cut into units; a task alone as in any batch. unit: a (task, head) pair.
 * cost: about 4 T K V + chunk T (K + V) flop forward, three times that backward and jvp, eight times backward_jvp.
 * worked example: one token gives out = <q, k> v; a second one with the same key adds: <q, k> (v_1 + v_2). */
#ifndef MICA_OPS_LINEAR_ATTENTION_H
#define MICA_OPS_LINEAR_ATTENTION_H

#include "mica/op.h"

typedef struct mica_linear_attention_args {
  size_t    size;
  int64_t   B, T, H, K, V, A;
  int64_t   form, chunk, normalise;          /* form: 0 auto, 1 chunked, 2 recurrent */
  double    eps;
  mica_port q, k, v, decay, state_in, norm_in, out, state_out, norm_out;
} mica_linear_attention_args;

#endif
