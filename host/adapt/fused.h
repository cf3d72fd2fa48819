/* fused.h (internal): adapt entries whose whole inner loop is one kernel. a step program says what it is when it is
 * made (micah_mlp_match); an executor takes the kernel where nothing is asked that it does not do. */
#ifndef MICAH_ADAPT_FUSED_H
#define MICAH_ADAPT_FUSED_H

#include "adapt/adapt.h"
#include "linear/linear.h"
#include "mlp/mlp_loop.h"

/* gradient descent on a multilayer perceptron with a mean squared error, or a mean cross entropy of labels: values of the
 * step program; -1: none */
typedef struct micah_mlp_step {
  int32_t    layers, act, first_order, labels;
  int64_t    width[MICAK_MLP_LAYERS + 1];
  mica_value x, y, param[MICAK_MLP_PARAMS], rate[MICAK_MLP_PARAMS];
} micah_mlp_step;

/* the loss's operation, squares or of labels, and its ports */
typedef struct micah_mlp_port { const char *op, *pred, *y; } micah_mlp_port;
extern const micah_mlp_port micah_mlp_ports[2];

/* describe a finished step program in step->mlp, if its loss and update are of that kind */
mica_status micah_mlp_match(const mica_program *loss, const char *output, const mica_step_options *options,
                            mica_step *step);

/* the operation of an entry that took the query's loss into it (absorb.c) */
typedef struct micah_judged {
  mica_op op;                    /* operands of the loop, then query.x, query.y, query.loss */
  int     mean_out, mean_rows;   /* as micak_mlp_query */
} micah_judged;

/* before entries have memory: may the loop be one kernel; with the query's loss too, if that is of its kind */
int micah_fused_suits(const mica_executor *x, int32_t entry);
int micah_fused_may_judge(const mica_executor *x, int32_t entry);
int micah_is_read(const mica_program *program, int32_t value); /* by a live entry */
/* give x a program in which the entry has taken in the query's loss, where it can */
mica_status micah_adapt_absorb(mica_executor *x, int32_t entry);
/* as mica_adapt_get_path */
const char *micah_fused_path(const micah_adapt_state *s);

/* make s->fused, or leave it NULL: the steps run one by one */
mica_status micah_fused_create(mica_executor *x, int32_t entry, micah_adapt_state *s);
mica_status micah_fused_forward(const micah_adapt_run *r);
mica_status micah_fused_back(const micah_adapt_run *r);

#endif
