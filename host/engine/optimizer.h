/* optimizer.h: the outer update: clipping by the global norm, then AdamW, over the flat parameter block. */
#ifndef MICAH_ENGINE_OPTIMIZER_H
#define MICAH_ENGINE_OPTIMIZER_H

#include "host/device/context.h"
#include "host/engine/job.h"

#include "kernels/optimizer/optimizer.h"

/* what one GPU holds: all of it, as the others do; equal sums and equal arithmetic keep them equal */
typedef struct micah_optimizer_copy {
  micah_device  *device;
  void          *stream;
  float         *params, *m, *v;     /* (count) */
  double        *sums;               /* one for each block of the norm, and norm and factor */
  micak_stretch *runs;
} micah_optimizer_copy;

typedef struct micah_optimizer {
  const micah_job *job;
  int64_t  count;                    /* numbers in the block */
  float   *params, *m, *v;           /* (count); on CUDA what fetch brought */
  double  *sums;                     /* one for each block of the norm */
  int64_t  n_sums;
  micak_stretch *runs;               /* stretches of one parameter group */
  int64_t  n_runs;
  micak_stretch *averages;           /* parameters whose gradient is their next value */
  int64_t  n_averages, n_followed;   /* stretches; numbers in all of them */
  float   *followed;                 /* (2, n_followed) next values; zeros */
  micah_optimizer_copy copies[MICAH_MAX_DEVICES]; /* of the job's GPUs */
  int32_t  n_copies;                 /* 0: on the CPU */
} micah_optimizer;

/* zero moments, initial parameters of the configuration */
mica_status micah_optimizer_create(const micah_job *job, const micah_graph *graph, micah_optimizer **out);
void        micah_optimizer_destroy(micah_optimizer *optimizer);

/* where the parameters lie for the job's device `place` */
float      *micah_optimizer_params(const micah_optimizer *optimizer, int32_t place);
/* parameters and moments from the first GPU to params, m, v here, and from there to all GPUs; nothing on the CPU */
mica_status micah_optimizer_fetch(micah_optimizer *optimizer);
mica_status micah_optimizer_send(micah_optimizer *optimizer);

/* parameters that follow averages take the gradient as it is; it is set to zero and has no part in the norm. one update
 * with the gradient scale x gradient[place], the same on every device; step counts from 0. *norm: of the
 * scaled gradient before clipping. MICA_ERR_NUMERIC, and nothing changed, when the norm is not finite. */
mica_status micah_optimizer_step(micah_optimizer *optimizer, float *const *gradient, double scale, int64_t step,
                                 double *norm);

#endif
