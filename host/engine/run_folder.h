/* run_folder.h: what a run leaves on disk: configuration, metrics, checkpoints, newest weights. */
#ifndef MICAH_ENGINE_RUN_FOLDER_H
#define MICAH_ENGINE_RUN_FOLDER_H

#include "host/engine/optimizer.h"

typedef struct micah_run_folder {
  const micah_job *job;
  char *path, *metrics, *last, *checkpoints; /* RUN, RUN/metrics.jsonl, RUN/last.safetensors, RUN/checkpoints */
  char  hash[33];                    /* of RUN/config.yaml */
  int   lock;                        /* file descriptor: one trainer a run */
} micah_run_folder;

/* what continues a run, beside the arrays of the optimiser */
typedef struct micah_progress_state {
  int64_t step, quarantined;
  double  seconds;
} micah_progress_state;

/* make the folder of a new run and write its config.yaml, or open that of an old one (resume). */
mica_status micah_run_folder_open(const micah_job *job, int resume, micah_run_folder **out);
void        micah_run_folder_close(micah_run_folder *folder);

/* write a checkpoint and the newest weights, drop old checkpoints */
mica_status micah_run_folder_save(const micah_run_folder *folder, const micah_graph *graph,
                                  const micah_optimizer *optimizer, const micah_progress_state *state);
/* weights only */
mica_status micah_run_folder_save_weights(const micah_run_folder *folder, const micah_graph *graph,
                                          const micah_optimizer *optimizer, int64_t step);
/* load the newest checkpoint; state->step is 0 where there is none. metrics of later steps are dropped. */
mica_status micah_run_folder_load(const micah_run_folder *folder, const micah_graph *graph, micah_optimizer *optimizer,
                                  micah_progress_state *state);
/* append one line of metrics */
mica_status micah_run_folder_log(const micah_run_folder *folder, const mica_progress *progress);

#endif
