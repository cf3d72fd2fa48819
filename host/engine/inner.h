/* inner.h: the `inner` section of a configuration, and the graph of a model that adapts to each task first.
 *
 * the family has SUPPORT fields support_NAME beside its fields query_NAME (or NAME): a task's inner loss is the mean of
 * the loss over its support, its loss is that over the query with the adapted parameters. */
#ifndef MICAH_ENGINE_INNER_H
#define MICAH_ENGINE_INNER_H

#include "host/io/config.h"
#include "host/engine/tasks.h"
#include "mica/program.h"

enum {
  MICAH_INNER_UNROLLED, MICAH_INNER_FIRST_ORDER, MICAH_INNER_REPTILE, MICAH_INNER_TRUNCATED, MICAH_INNER_IMPLICIT,
  MICAH_INNER_FORWARD, MICAH_INNER_BOOTSTRAPPED, MICAH_INNER_ZERO_ORDER
};

/* of micah_settings; steps 0: the model is trained as it is */
typedef struct micah_inner_settings {
  int64_t     steps, method, update, rates, last, solver, iterations, further, directions, direction, keep;
  double      lr, momentum, beta1, beta2, eps, proximal, tolerance, damping, neumann_rate, sigma;
  const char *trained;
  int32_t     per_step, learn_rates, learn_proximal, checkpoints;
} micah_inner_settings;

/* fill from the root where it has a section `inner`; settings are zero where it has none */
mica_status micah_inner_fill(micah_section *root, micah_inner_settings *out);

/* meta-parameters beside the initial weights have names that begin with this */
#define MICAH_INNER_PREFIX "inner."

/* y of an operation on x, or on a and b */
mica_value  micah_inner_op(mica_program *program, const char *path, const char *name, const char *set, mica_value a,
                           mica_value b);

struct micah_job;
struct micah_graph;
/* append to an open program, whose inputs are made: the adapted model's prediction, and loss rows over the target's
 * axis */
mica_status micah_inner_build(const struct micah_job *job, const micah_tasks *tasks, struct micah_graph *graph);

#endif
