/* move.h: operations that only move elements: concat, slice, gather, scatter_add, transpose. all are linear: jvp is the
 * forward of the tangent, backward_jvp the backward of the cotangent's tangent; no face but those reads a value.
 *
 * concat       y = a beside b: axis=column (B,R,Ca) (B,R,Cb) -> (B,R,Ca+Cb), axis=row (B,Ra,C) (B,Rb,C) -> (B,Ra+Rb,C)
 * slice        y[r,c] = x[row + r step, column + c]; (B,R,C) -> (B,Ry,Cy), sizes left open reach to the end of x
 * gather       y[r] = x[index[r]]; x (B,V,C), index (B,R) with 0 <= index < V, or -1 for a row of zeros
 * scatter_add  y[index[r]] += x[r] in the order of r; x (B,R,C) -> y (B,V,C); index -1 drops the row
 * transpose    y[c,r] = x[r,c]; (B,R,C) -> (B,C,R), no packed rows
 *
 * packed rows: each port counts its own rows. concat by rows puts the rows of b after those that a's task has; in slice
 * a row that x does not have is zeros. an index out of range is MICA_ERR_INVALID from the kernel, naming task and row;
 * on CUDA, where no status can tell, a row that it would fetch is NaN, and one that it would add is left out.
 * nothing rounds but the sums of scatter_add (and of gather's cotangent), in fp32, in the order of rows, then of tasks.
 * row-local: concat by columns, slice of whole rows from row 0 in steps of 1.
 * cost: one read and one write of each element. example: gather of ((1, 2), (3, 4)) by (1, -1, 1) is ((3, 4), (0, 0),
 * (3, 4)) */
#ifndef MICA_OPS_MOVE_H
#define MICA_OPS_MOVE_H

#include "mica/op.h"

typedef struct mica_concat_args {
  size_t    size;
  int64_t   B, R, C, Ra, Ca, Rb, Cb;
  int64_t   axis;                            /* 0 row, 1 column */
  mica_port a, b, y;                         /* (B,Ra,Ca), (B,Rb,Cb), (B,R,C) */
} mica_concat_args;

typedef struct mica_slice_args {
  size_t    size;
  int64_t   B, R, C, Ry, Cy;
  int64_t   row, column, step;               /* first row and column, distance of rows */
  mica_port x, y;                            /* (B,R,C), (B,Ry,Cy) */
} mica_slice_args;

typedef struct mica_gather_args {            /* gather and scatter_add */
  size_t    size;
  int64_t   B, R, V, C;
  mica_port x, index, y;                     /* gather (B,V,C), (B,R), (B,R,C); scatter_add (B,R,C), (B,R), (B,V,C) */
} mica_gather_args;

typedef struct mica_transpose_args {
  size_t    size;
  int64_t   B, R, C;
  mica_port x, y;                            /* (B,R,C), (B,C,R) */
} mica_transpose_args;

#endif
