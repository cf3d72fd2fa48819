/* gradient_memory.h: a matrix trained while the sequence is read, by gradient descent with momentum and weight decay on
 * |S' k - v|^2 / 2 of each token (Behrouz, Zhong, Mirrokni, "Titans", 2024, equations 13, 14; without momentum and decay and
 * with a period, TTT-linear: Sun et al. 2024).
 *
 *   Y_t = momentum_t Y_(t-1) + beta_t k_t (v_t - S_a' k_t)'          minus the gradient at S_a
 *   S_t = decay_t S_(t-1) + Y_t
 *   out_t = S_t' q_t                  read=held: S_a' q_t
 *
 * S_a is the matrix as it was when the token's period began: tokens 1 to `period` of a call have S_0, the next `period` S_period,
 * and so on. period 1: a = t - 1, online descent, and with momentum absent the delta rule. period C with read=held: a level
 * of memory that is renewed every C tokens (Behrouz et al., "Nested learning", 2025).
 * q, k (B,T,H,K), v, out (B,T,H,V), beta (absent: 1), decay (absent: 1), momentum (absent: 0), all (B,T,H); state_in,
 * state_out = S, moment_in, moment_out = Y (B,H,K,V); absent before the first token: 0. heads are independent; rows may be
 * packed, each task starts anew. a call begins a period: cut a sequence at multiples of it. 1 <= K, V <= 256. outputs must
 * not overlap inputs.
 * f32. deterministic: a (task, head) pair is a unit; the bits do not depend on batch, packing or cut. on CUDA f32 sums, wires of
 * f32 or bf16; sums over K and V are trees that K and V fix. descent at a
 * rate with sum over a period of beta |k|^2 above 2 (1 + momentum) grows without bound: then Inf or NaN, which stays in its
 * task and head.
 * cost: about 8 K V flop a token and head forward, four times that backward and jvp, twelve times backward_jvp; matrices are
 * kept every 16 tokens and computed again on the way back.
 * worked example: K = V = 1, k = q = 1, v = 4, 4, beta = 1/2, momentum = 1/2, decay = 1: Y = 2, S = 2; Y = 1 + 1, S = 4. */
#ifndef MICA_OPS_GRADIENT_MEMORY_H
#define MICA_OPS_GRADIENT_MEMORY_H

#include "mica/op.h"

typedef struct mica_gradient_memory_args {
  size_t    size;
  int64_t   B, T, H, K, V;
  int64_t   period, read;                    /* read: 0 running, 1 held */
  mica_port q, k, v, beta, decay, momentum, state_in, moment_in, out, state_out, moment_out;
} mica_gradient_memory_args;

#endif
