/* ridge.h: the weights of a ridge regression, and exact derivatives through the solution (Bertinetto et al., "Meta-learning
 * with differentiable closed-form solvers", 2019).
 *
 *   w = argmin over w of sum over rows |y_r - w x_r|^2 + ridge |w|^2 = y^T x (x^T x + ridge I)^-1
 *
 * x (B,R,I), y (B,R,O), ridge (B) > 0, w (B,O,I): a weight as linear takes it. instead of y: label (B,R), and y_r is 1 at
 * the label, 0 elsewhere; a negative label: y_r is 0. the rows may be packed (offsets, the same of x and y or label); a
 * task without rows has w = 0. errors: both or neither of y and label; a label beyond O - 1. outputs must not overlap inputs. any strides.
 * accumulates in double, in an order that depends on the task's R, I and O alone; the system solved has min(R, I)
 * unknowns, by Cholesky. a task whose ridge is not positive, or whose numbers are not finite, gets NaN: no other task
 * does. shared or grouped outputs sum tasks in task order. deterministic: the same bits for any cut into units and batch.
 * on CUDA (f32, bf16) the factor lies in shared memory: min(R, I) is at most 160; a label beyond O - 1 makes its task NaN;
 * cotangents of a ridge that tasks share are added up in a tree of their number.
 * cost of a forward, n = min(R, I): n^2 (R + I) + 4 n R O + 4 R I O flop; backward twice, the tangents of both twice that.
 * worked example: x ((1), (1)), y ((1), (3)), ridge 2 -> w ((1)). */
#ifndef MICA_OPS_RIDGE_H
#define MICA_OPS_RIDGE_H

#include "mica/op.h"

typedef struct mica_ridge_args {
  size_t    size;
  int64_t   B, R, I, O;
  mica_port x, y, label, ridge, w;
} mica_ridge_args;

#endif
