/* reduce.h: reductions over rows, over columns, or over both: sum, mean, max, logsumexp.
 *
 * x (B,R,C) -> y (B,Ry,Cy): axis=row gives (B,1,C), axis=column (B,R,1), axis=all (B,1,1). sizes of y follow.
 * packed rows: x carries offsets (and y with axis=column); a task counts its own rows, so a mean over ragged rows
 * divides by each task's own number. nothing to reduce (a task without rows): sum 0, mean 0, max and logsumexp -inf;
 * such cells have zero derivatives.
 * max: the whole cotangent goes to the first largest element, row by row; a NaN counts as largest. logsumexp: the log
 * of the sum of e^x, without overflow; -inf where every x is -inf.
 * sums are kept in double, columns, then rows, then tasks in order, whatever the number of threads; exponentials are
 * fp32. row-local: axis=column in every face, the backward faces of sum, mean and logsumexp on any axis.
 * cost: one read of x and one write of y forward; 1 flop an element (logsumexp about 20).
 * example: x = ((1, 2), (3, 4)): sum over rows (4, 6), over columns (3, 7), over all 10; means
 * (2, 3), (1.5, 3.5), 2.5. */
#ifndef MICA_OPS_REDUCE_H
#define MICA_OPS_REDUCE_H

#include "mica/op.h"

typedef struct mica_reduce_args {
  size_t    size;
  int64_t   B, R, C, Ry, Cy;
  int64_t   axis;                            /* 0 row, 1 column, 2 all */
  mica_port x, y;                            /* (B,R,C), (B,Ry,Cy) */
} mica_reduce_args;

#endif
