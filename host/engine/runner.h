/* runner.h: an executor with its buffers: losses of tasks, seeds of the backward passes. */
#ifndef MICAH_ENGINE_RUNNER_H
#define MICAH_ENGINE_RUNNER_H

#include "host/engine/job.h"

typedef struct micah_runner {
  const micah_job   *job;
  const micah_tasks *tasks;
  const micah_graph *graph;
  mica_executor     *executor;
  micah_view         view;
  int                backend, dtype;
  int64_t            capacity, rows; /* most tasks; most rows of the target */
  void              *loss, *seed;    /* (rows) of dtype */
  double            *row_loss;       /* (rows) losses of the last run, times weight */
  void              *data[MICAH_MAX_FIELDS]; /* fields in dtype where that is not f32 */
} micah_runner;

mica_status micah_runner_create(const micah_job *job, const micah_tasks *tasks, const micah_graph *graph, int backend,
                                int dtype, int32_t passes, int64_t capacity, micah_runner **out);
void        micah_runner_destroy(micah_runner *runner);
/* the tasks of the next run: [first, first + count) of a feed that stays until then */
mica_status micah_runner_set(micah_runner *runner, const micah_feed *feed, int64_t first, int64_t count);
/* every row's cotangent of the loss */
mica_status micah_runner_seed(micah_runner *runner, double value);
/* run passes and read the losses */
mica_status micah_runner_run(micah_runner *runner, int32_t passes);
/* sum of a task's row losses, in row order */
double      micah_runner_task_loss(const micah_runner *runner, int64_t task);

#endif
