/* settings.h: the keys of a training configuration outside family, model and loss. */
#ifndef MICAH_ENGINE_SETTINGS_H
#define MICAH_ENGINE_SETTINGS_H

#include "host/engine/inner.h"

enum { MICAH_SCHEDULE_COSINE, MICAH_SCHEDULE_LINEAR, MICAH_SCHEDULE_CONSTANT };

typedef struct micah_settings {
  /* top level */
  int64_t     steps, batch, grain, seed, threads, device, devices;
  int64_t     launch, memory;        /* grains a launch, 0: what fits in `memory` MiB */
  double      recompute;             /* of the forward's flop, for values computed again instead of kept */
  int64_t     checkpoint_every, checkpoints, log_every, eval_tasks;
  const char *exact;                 /* predictor to compare with: name, "best" or "none" */
  /* optimizer: AdamW (Loshchilov and Hutter 2019) */
  int64_t     optimizer;
  double      lr, beta1, beta2, eps, weight_decay, clip;
  /* schedule */
  int64_t     schedule, nominal;     /* nominal: steps that the schedule is written for */
  double      warmup, min_ratio;
  micah_inner_settings inner;
} micah_settings;

extern const mica_key micah_top_keys[], micah_optimizer_keys[], micah_schedule_keys[];
extern const int32_t  micah_n_top_keys, micah_n_optimizer_keys, micah_n_schedule_keys;

/* fill from the root of a configuration. the steps of the file, before overrides, are the schedule's nominal length
 * unless it has one of its own: call note_nominal first, then the overrides, then fill. */
mica_status micah_settings_note_nominal(micah_config *config);
mica_status micah_settings_fill(micah_config *config, micah_settings *out);

/* does a key leave the numbers of a run alone? then a resumed run may change it. */
int micah_settings_neutral(const char *dotted_key);

/* learning rate of step (from 0): warm-up in proportion to steps / nominal, then the schedule down to min_ratio */
double micah_learning_rate(const micah_settings *settings, int64_t step);

#endif
