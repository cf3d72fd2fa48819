/* srwm.h: the self-referential weight matrix (Irie, Schlag, Csordas, Schmidhuber, "A modern self-referential weight matrix
 * that learns to modify itself", 2022, equations 5 to 8): one matrix gives output, query, key and rates, and is rewritten
 * by itself.
 *
 *   (y_t, q_t, k_t, b_t) = W_(t-1)' phi(x_t)                  phi: softmax over the K channels of a head
 *   u_t = sigma(b_t) * W_(t-1)' (phi(q_t) - phi(k_t))         each block of columns by its own rate: y, q, k, b
 *   W_t = W_(t-1) + phi(k_t) u_t'                             out_t = y_t
 *
 * x (B,T,H,K), out (B,T,H,V), state_in = W_0, state_out = W_T (B,H,K,R), R = V + 2 K + 4: columns of y, q, k, b in this
 * order. heads are independent; x may be packed: each task starts from its W_0. W_0 is a parameter (shared by all
 * tasks) or a state. 1 <= K, V <= 256. outputs must not overlap inputs.
 * f32. deterministic: a (task, head) pair is a unit; the bits do not depend on batch, packing or cut. on CUDA f32 sums, wires of
 * f32 or bf16; sums over columns are trees that K and V fix. a token is a rank-1
 * change by features that sum to 1 and rates below 1, but W is not bounded: overflow gives Inf or NaN, which stays in its
 * task and head.
 * cost: 3 K R multiply-adds a token and head forward, about three times that backward and jvp, nine times backward_jvp;
 * states are kept every 16 tokens and computed again on the way back.
 * worked example: K = V = 1: phi is 1, so phi(q) = phi(k), u = 0 and W stays: out_t = W_0's column of y. */
#ifndef MICA_OPS_SRWM_H
#define MICA_OPS_SRWM_H

#include "mica/op.h"

typedef struct mica_srwm_args {
  size_t    size;
  int64_t   B, T, H, K, V, R;
  mica_port x, state_in, out, state_out;
} mica_srwm_args;

#endif
