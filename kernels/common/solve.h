/* solve.h: vectors of one task each, in the compute type, for solvers that treat every task by itself. sums are kept in
 * double and in a fixed order: blocks of 1,024 elements, then their sums in order. */
#ifndef MICA_KERNELS_COMMON_SOLVE_H
#define MICA_KERNELS_COMMON_SOLVE_H

#include "mica/op.h"

/* <a, b> over n elements; dtype MICA_F32 or MICA_F64 */
double micak_dot(int dtype, const void *a, const void *b, int64_t n);

/* y = scale x + keep y; keep 0: y need not be set */
void micak_combine(int dtype, void *y, double scale, const void *x, double keep, int64_t n);

/* y += value at one element */
void micak_add_one(int dtype, void *y, double value);

/* solve a^T x = b in double by elimination with partial pivoting. a: (n,n) by rows, overwritten; b: (n), becomes x.
 * 0: singular to working precision. */
int micak_solve_transposed(double *a, double *b, int64_t n);

/* vectors to and from double */
void micak_to_double(int dtype, const void *from, double *to, int64_t n);
void micak_from_double(int dtype, const double *from, void *to, int64_t n);

#endif
