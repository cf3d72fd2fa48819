/* runner.h: an executor on a device with its buffers: fields, losses of tasks, seeds of the backward passes. */
#ifndef MICAH_ENGINE_RUNNER_H
#define MICAH_ENGINE_RUNNER_H

#include "host/engine/job.h"

typedef struct micah_runner {
  const micah_job   *job;
  const micah_tasks *tasks;
  const micah_graph *graph;
  mica_executor     *executor;
  micah_device      *device;
  void              *stream;
  micah_view         view;
  int                backend, dtype;
  int64_t            capacity, rows; /* most tasks; most rows of the target */
  micah_twin         loss, seed;     /* (rows) of dtype */
  micah_twin         params, output; /* of evaluation and prediction, where asked for; output: (rows, outputs) */
  double            *row_loss;       /* (rows) losses of the last run, times weight */
  void              *data[MICAH_MAX_FIELDS]; /* fields on the device, in dtype; NULL: read where the feed has them */
} micah_runner;

/* backend MICA_CUDA: on the job's device `place`; else on the CPU */
mica_status micah_runner_create(const micah_job *job, const micah_tasks *tasks, const micah_graph *graph, int backend,
                                int32_t place, int dtype, int32_t passes, int64_t capacity, micah_runner **out);
void        micah_runner_destroy(micah_runner *runner);
/* make and bind memory for parameters, and (`output`) for predictions. fill runner->params.host, then send */
mica_status micah_runner_hold(micah_runner *runner, int output);
mica_status micah_runner_send_params(micah_runner *runner);
/* the tasks of the next run: [first, first + count) of a feed that stays until then */
mica_status micah_runner_set(micah_runner *runner, const micah_feed *feed, int64_t first, int64_t count);
/* every row's cotangent of the loss; or those in runner->seed.host */
mica_status micah_runner_seed(micah_runner *runner, double value);
mica_status micah_runner_send_seed(micah_runner *runner);
/* put passes on the stream; wait for them and read the losses (and predictions). run: both */
mica_status micah_runner_start(micah_runner *runner, int32_t passes);
mica_status micah_runner_wait(micah_runner *runner);
mica_status micah_runner_run(micah_runner *runner, int32_t passes);
/* sum of a task's row losses, in row order */
double      micah_runner_task_loss(const micah_runner *runner, int64_t task);

#endif
