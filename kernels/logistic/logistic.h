/* logistic.h: the weights of logistic regressions, one class against the rest each, by Newton's method, and exact
 * derivatives through the solution (Bertinetto et al., "Meta-learning with differentiable closed-form solvers", 2019,
 * "LR-D2"; there a fixed number of steps is differentiated, here the minimum).
 *
 *   w_o = argmin over w of sum over rows of log(1 + exp(w x_r)) - y_ro w x_r, + ridge / 2 |w|^2
 *
 * x (B,R,I), y (B,R,O) or label (B,R), ridge (B) > 0, w (B,O,I). y is any number, 1 and 0
 * for in and out of the class. the rows may be packed; a task without rows has w = 0. errors: both or neither of y and
 * label; a label beyond O - 1. outputs must not overlap inputs. any strides.
 * in double, in an order that depends on the task's R, I and O alone. the objective is strictly convex; steps are halved
 * until it falls, and end where the last was under 1e-9 of the weights, so that what is left is its square. a task whose
 * ridge is not positive, whose numbers are not finite or that is not there after 100 steps gets NaN: no other task does.
 * derivatives are those of the minimum (README.md), whatever way led there; they take w as the forward left it.
 * shared or grouped outputs sum tasks in task order. deterministic: the same bits for any cut into units and batch.
 * on CUDA (f32, bf16) as ridge: min(R, I) is at most 160, a label beyond O - 1 makes its task NaN.
 * cost of a step, n = min(R, I): n^2 (R + I) + 8 R I flop a class, and as much of each face after the forward.
 * worked example: x ((1)), y ((1)), ridge 1 - s(1), s the sigmoid -> w ((1)). */
#ifndef MICA_OPS_LOGISTIC_H
#define MICA_OPS_LOGISTIC_H

#include "mica/op.h"

typedef struct mica_logistic_args {
  size_t    size;
  int64_t   B, R, I, O;
  mica_port x, y, label, ridge, w;
} mica_logistic_args;

#endif
