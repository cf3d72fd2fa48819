/* gated_delta.h: the delta rule with decay: the memory fades before each token corrects it.
 *
 *   P_t = diag(decay_t) S_(t-1)
 *   S_t = P_t + beta_t k_t (v_t - P_t' k_t)'
 *   out_t = S_t' q_t                  no scale, no normalisation of keys or queries
 *
 * decay (B,T,H,A): A = 1, one factor a head, or A = K, one for each key channel; the factor itself, not its logarithm:
 * any number, 0 forgets. all else as in delta_rule.h: q, k (B,T,H,K), v, out (B,T,H,V), beta (B,T,H), absent: 1,
 * 1 <= K, V <= 256, state_in, state_out (B,H,K,V), forms (on CUDA K over 32 goes token by token
 * in the faces with tangents), packed rows, aliasing, determinism, overflow.
 * a factor between 0 and 1 never makes S grow. products of factors are running products, never quotients: exact zeros
 * and underflow are forgetting, not NaN.
 * cost: delta_rule's and about 3 chunk T K flop forward, three times that backward and jvp, eight times backward_jvp.
 * worked example: K = V = 1, k = 1, 1, v = 3, 1, beta = 1, 1/2, decay = 1, 1/2: S = 3, then
 * 1.5 + (1 - 1.5) / 2 = 1.25. */
#ifndef MICA_OPS_GATED_DELTA_H
#define MICA_OPS_GATED_DELTA_H

#include "mica/op.h"

typedef struct mica_gated_delta_args {
  size_t    size;
  int64_t   B, T, H, K, V, A;
  int64_t   form, chunk;                     /* form: 0 auto, 1 chunked, 2 recurrent */
  mica_port q, k, v, beta, decay, state_in, out, state_out;
} mica_gated_delta_args;

#endif
