/* fused.h (internal): adapt entries whose whole inner loop is one kernel. a step program says what it is when it is
 * made (micah_mlp_match); an executor takes the kernel where nothing is asked that it does not do. */
#ifndef MICAH_ADAPT_FUSED_H
#define MICAH_ADAPT_FUSED_H

#include "adapt/adapt.h"
#include "linear/linear.h"
#include "mlp/mlp_loop.h"

/* gradient descent on a multilayer perceptron with a mean squared error: values of the step program; -1: none */
typedef struct micah_mlp_step {
  int32_t    layers, act, first_order;
  int64_t    width[MICAK_MLP_LAYERS + 1];
  mica_value x, y, param[MICAK_MLP_PARAMS], rate[MICAK_MLP_PARAMS];
} micah_mlp_step;

/* describe a finished step program in step->mlp, if its loss and update are of that kind */
mica_status micah_mlp_match(const mica_program *loss, const char *output, const mica_step_options *options,
                            mica_step *step);

/* make s->fused, or leave it NULL: the steps run one by one */
mica_status micah_fused_create(mica_executor *x, int32_t entry, micah_adapt_state *s);
mica_status micah_fused_forward(const micah_adapt_run *r);
mica_status micah_fused_back(const micah_adapt_run *r);

#endif
