/* mlp_memory.h: a network of two layers trained while the sequence is read, by gradient descent with momentum and
 * weight decay on |W2' silu(W1' k) - v|^2 / 2 of each token (Behrouz, Zhong, Mirrokni, "Titans", 2024, equations 11 to
 * 15). gradient_memory is the same with one matrix.
 *
 *   e = v_t - W2' silu(W1' k_t)                             W1, W2 as token t - 1 left them
 *   M <- momentum_t M - beta_t dL/dW                        M1, M2: the last changes
 *   W <- decay_t W + M                                      both matrices
 *   out_t = W2' silu(W1' q_t)                               after the change
 *
 * q, k (B,T,H,K), v, out (B,T,H,V), beta (absent: 1), decay (absent: 1), momentum (absent: 0), all (B,T,H);
 * first_in, first_out = W1, first_moment_in, first_moment_out = M1 (B,H,K,F); second_... = W2, M2 (B,H,F,V); absent
 * moments: 0. heads are independent; rows may be packed, each task starts anew. 1 <= K, F, V <= 256. outputs must not
 * overlap inputs.
 * f32. deterministic: a (task, head) pair is a unit; the bits do not depend on batch, packing or cut. on CUDA f32 sums, wires
 * of f32 or bf16; cotangents of the three rates are sums in a tree that K, F and V fix. descent may
 * diverge at large rates: then Inf or NaN, which stays in its task and head.
 * cost: about 8 F (K + V) flop a token and head forward, four times that backward, three jvp, twelve backward_jvp;
 * states are kept every 16 tokens and computed again on the way back.
 * worked example: K = F = V = 1, W1 = 0, W2 = 1, k = 1, v = 4, beta = 1/2: e = 4, dL/dW1 = -2, so W1 = 1, W2 = 1;
 * q = 0 reads 0. */
#ifndef MICA_OPS_MLP_MEMORY_H
#define MICA_OPS_MLP_MEMORY_H

#include "mica/op.h"

typedef struct mica_mlp_memory_args {
  size_t    size;
  int64_t   B, T, H, K, F, V;
  mica_port q, k, v, beta, decay, momentum, first_in, second_in, first_moment_in, second_moment_in;
  mica_port out, first_out, second_out, first_moment_out, second_moment_out;
} mica_mlp_memory_args;

#endif
