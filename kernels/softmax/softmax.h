/* softmax.h: softmax and its logarithm over the columns of each row.
 *
 *   softmax      y = exp(x - lse)     lse = log sum_c exp(x_c)
 *   log_softmax  y = x - lse
 *
 * x, y (B,R,C), rows may be packed. local to a row; f32 sums on the CPU; deterministic. outputs must not overlap
 * inputs. cost of a forward: 6 B R C flop, 2 B R C elements moved. worked example: x = (0, 0) gives (1/2, 1/2).
 * backward (s = sum_c of):  softmax dx = y (dy - s(y dy));  log_softmax dx = dy - exp(y) s(dy). */
#ifndef MICA_OPS_SOFTMAX_H
#define MICA_OPS_SOFTMAX_H

#include "mica/op.h"

typedef struct mica_softmax_args {
  size_t    size;
  int64_t   B, R, C;
  mica_port x, y;
} mica_softmax_args;

#endif
