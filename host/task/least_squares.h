/* least_squares.h: least squares over rows that arrive one by one, by Givens rotations in double.
 *
 * minimises sum_i (y_i - w.x_i)^2 + lambda |w|^2 after every row (Golub and Van Loan, Matrix Computations, 6.5.3 and
 * 5.5): the triangular factor R of the (augmented) rows is updated, never X'X, so no digits are lost by squaring. with
 * lambda = 0 and fewer independent rows than dimensions it is the solution of least norm: rows are expressed in an
 * orthonormal basis of their span (Gram and Schmidt, twice), where the problem has full rank. cost a row: O(dim^2). */
#ifndef MICAH_TASK_LEAST_SQUARES_H
#define MICAH_TASK_LEAST_SQUARES_H

#include "mica/status.h"

typedef struct micah_least_squares {
  int64_t dim, rank;
  int32_t grows;                 /* lambda = 0: the basis grows with the rows */
  int32_t stale;                 /* weights do not know the last rows yet */
  double *basis;                 /* (dim, dim), rank rows in use; only when it grows */
  double *r;                     /* (dim, dim) upper triangle in basis coordinates */
  double *rhs;                   /* (dim) rotated targets */
  double *z, *rest;              /* (dim) work */
  double *weights;               /* (dim) solution */
} micah_least_squares;

/* doubles of memory that init needs */
int64_t micah_least_squares_doubles(int64_t dim);

/* no rows yet; lambda >= 0 in squared units of x. memory is borrowed. */
void micah_least_squares_init(micah_least_squares *ls, int64_t dim, double lambda, double *memory);

/* add a row x (dim) with target y */
void micah_least_squares_add(micah_least_squares *ls, const double *x, double y);

/* w.x with the solution for all rows so far; 0 before the first */
double micah_least_squares_predict(micah_least_squares *ls, const double *x);

#endif
