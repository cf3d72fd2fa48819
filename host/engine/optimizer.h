/* optimizer.h: the outer update: clipping by the global norm, then AdamW, over the flat parameter block. */
#ifndef MICAH_ENGINE_OPTIMIZER_H
#define MICAH_ENGINE_OPTIMIZER_H

#include "host/engine/job.h"

/* a stretch of one parameter group */
typedef struct micah_optimizer_run {
  int64_t first, count;
  int32_t decay;
} micah_optimizer_run;

typedef struct micah_optimizer {
  const micah_job *job;
  int64_t  count;                    /* numbers in the block */
  float   *params, *m, *v;           /* (count) */
  double  *sums;                     /* one for each block of the norm */
  int64_t  n_sums;
  micah_optimizer_run *runs;
  int64_t  n_runs;
} micah_optimizer;

/* zero moments, initial parameters of the configuration */
mica_status micah_optimizer_create(const micah_job *job, const micah_graph *graph, micah_optimizer **out);
void        micah_optimizer_destroy(micah_optimizer *optimizer);

/* one update with the gradient scale x gradient; step counts from 0. *norm: of the scaled gradient before clipping.
 * MICA_ERR_NUMERIC, and nothing changed, when the norm is not finite. */
mica_status micah_optimizer_step(micah_optimizer *optimizer, const float *gradient, double scale, int64_t step,
                                 double *norm);

#endif
