/* elementwise.h: operations on each element alone, and on pairs of elements with broadcasting. one family of
 * operations, two argument structs.
 *
 * unary    y = f(x), x and y (B,R,C):
 *   relu silu tanh sigmoid elu1 softplus exp log sqrt abs neg reciprocal square sin cos
 *   gelu (approx = none | tanh), clip (lo, hi), scale (alpha x + beta), stop (the value passes, derivatives are zero)
 * binary   y = f(a, b), a and y (B,R,C), b (B,Rb,Cb) with Rb 1 or R and Cb 1 or C: size 1 broadcasts, and the
 *          cotangent of b sums over the axes it was broadcast on:
 *   add sub mul div minimum maximum expand (y is b in the shape of a), lt le gt ge eq ne (1 or 0, derivatives are zero)
 * where    y = mask ? a : b, mask (B,Rm,Cm) integer, broadcast like b
 *
 * packed rows: a, x and y carry the same offsets; b and mask carry them too, or not: then row r of a task meets their
 * row r (or their one row). at a kink the derivative is that of relu'(0) = 0, abs'(0) = 0, clip' = 1 on its ends, and
 * minimum and maximum give the whole cotangent to a where a = b.
 * unary outputs may be an input's own memory (x.v and y.v, x.d and y.d, ...) when layouts are equal and nothing is
 * added. row-local unless an output wire sums over tasks or over broadcast rows. fp32 kernels compute in fp32; the
 * cotangent of a broadcast operand sums in double, columns, then rows, then tasks in order, whatever the number of
 * threads. cost: one read of each wire read and one write of each wire written; 1 to 40 flop an element.
 * example: relu of (-1, 2) is (0, 2); with tangent (2, 2) y.t = (0, 2); with cotangent (3, 3) x.d = (0, 3). */
#ifndef MICA_OPS_ELEMENTWISE_H
#define MICA_OPS_ELEMENTWISE_H

#include "mica/op.h"

typedef struct mica_unary_args {
  size_t    size;
  int64_t   B, R, C;
  double    alpha, beta;                     /* scale */
  double    lo, hi;                          /* clip */
  int64_t   approx;                          /* gelu: 0 none (erf), 1 tanh */
  mica_port x, y;                            /* (B,R,C) */
} mica_unary_args;

typedef struct mica_binary_args {
  size_t    size;
  int64_t   B, R, C, Rb, Cb, Rm, Cm;         /* Rm, Cm: where only */
  mica_port mask;                            /* (B,Rm,Cm), where only */
  mica_port a, b, y;                         /* (B,R,C), (B,Rb,Cb), (B,R,C) */
} mica_binary_args;

#endif
