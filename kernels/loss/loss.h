/* loss.h: losses of each row, with weights and soft targets that are themselves differentiable.
 *
 *   mse            loss = weight red_c (pred_c - target_c)^2         red: sum over the C columns, or their mean
 *   cross_entropy  loss = weight sum_c target_c (lse - logits_c)     lse = log sum_c exp(logits_c); in nats
 *                  with label instead of target: weight (lse - logits_label); a negative label is ignored: loss 0 and
 *                  no derivatives
 *
 * pred, target, logits (B,R,C); label (B,R) index; weight (B,R), absent: ones; loss (B,R); saved lse (B,R), 0 in an
 * ignored row. cross_entropy takes exactly one of label and target; targets need not sum to one. rows may be packed.
 * a label beyond the classes is an error that names task and row; on CUDA, where no status can tell, its row is NaN.
 * all first and mixed second derivatives: logits/pred, target, weight. local to a row; f32 sums on the CPU;
 * deterministic. outputs must not overlap inputs. cost of a forward: 3 (mse) or 6 B R C flop, 2 B R C elements moved.
 * worked example: logits (0, 0), label 0: loss log 2, logits.d (-1/2, 1/2). */
#ifndef MICA_OPS_LOSS_H
#define MICA_OPS_LOSS_H

#include "mica/op.h"

enum { MICA_MSE_SUM, MICA_MSE_MEAN };        /* reduction */

typedef struct mica_mse_args {
  size_t    size;
  int64_t   B, R, C;
  int64_t   reduction;
  mica_port pred, target, weight, loss;
} mica_mse_args;

typedef struct mica_cross_entropy_args {
  size_t    size;
  int64_t   B, R, C;
  mica_port logits, label, target, weight, loss, lse;
} mica_cross_entropy_args;

#endif
