/* matmul.h: product of two matrices of each task.
 *
 *   c (B,M,N) = op(a) op(b),   op(a) (M,K), op(b) (K,N)
 *
 * ta: a is stored (B,K,M); tb: b is stored (B,N,K). either factor may be shared over tasks. the row axis of a port may
 * be packed (offsets): the tasks then differ in M, K or N; ports that have the axis must have equal offsets.
 * outputs must not overlap inputs. any strides. accumulates: shared or grouped outputs sum tasks in task order; a
 * product over k sums blocks of 256 terms in order, fp32. deterministic: the same bits for any cut into units.
 * cost of a forward: 2 B M N K flop. worked example: a ((1, 2)), b ((3), (4)) -> c ((11)). */
#ifndef MICA_OPS_MATMUL_H
#define MICA_OPS_MATMUL_H

#include "mica/op.h"

typedef struct mica_matmul_args {
  size_t    size;
  int64_t   B, M, N, K;
  int64_t   Ar, Ac, Br, Bc;                  /* rows and columns as stored; follow from M, N, K, ta, tb */
  int64_t   ta, tb;
  mica_port a, b, c;
} mica_matmul_args;

#endif
