/* train.h: training, evaluation, prediction and gradients of what a configuration file describes.
 *
 * a configuration names a task family, a model, a loss, an optimiser and a schedule; see docs/recipes/. a run folder
 * holds config.yaml       the configuration, every default made explicit; written first metrics.jsonl     one object a
 * step last.safetensors  the newest weights, nothing else checkpoints/      step_XXXXXXXX.safetensors: weights,
 * optimiser moments, step; the last few every struct that the caller passes in starts with its size and has an
 * initialiser. */
#ifndef MICA_TRAIN_H
#define MICA_TRAIN_H

#include "mica/program.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what to work on ---- */

/* a configuration file, or a run folder made by training (its config.yaml). exactly one of the two, except in training,
 * where `config` starts a new run in `run` (NULL: nothing is written). */
typedef struct mica_source {
  size_t             size;           /* sizeof(mica_source) */
  const char        *config;         /* path of a YAML file, or NULL */
  const char        *run;            /* run folder, or NULL */
  const char *const *overrides;      /* "key=value", dotted keys, later ones win */
  int32_t            n_overrides;
  const mica_context_options *context; /* pool, allocator, log; NULL: own. threads 0: those of the configuration */
  mica_status      (*setup)(void *user, mica_context *context); /* registers a program's own families, models, losses
                                      * before names are looked up; NULL: nothing to register */
  void              *setup_user;
} mica_source;
#define MICA_SOURCE_INIT { sizeof(mica_source), NULL, NULL, NULL, 0, NULL, NULL, NULL }

/* ---- training ---- */

typedef struct mica_trainer mica_trainer;

/* one finished step */
typedef struct mica_progress {
  int64_t step, steps;               /* steps done, of so many */
  double  loss;                      /* mean over the weighted rows of the step's tasks, before the update */
  double exact, excess; /* the exact predictor's on the same tasks, and loss - exact; NaN when not computed */
  double  tasks_per_s, seconds, eta; /* rate since the last report; training time so far; expected rest. s */
  double  lr, grad_norm;             /* of the step; norm before clipping */
  int64_t quarantined;               /* tasks left out so far because their loss was not finite */
} mica_progress;

/* called after every step on the thread that runs mica_trainer_run */
typedef void (*mica_progress_fn)(void *user, const mica_progress *progress);

typedef struct mica_trainer_info {
  int64_t     step, steps;           /* done, in all */
  int64_t     tasks_per_step, grain, grains_per_launch;
  int64_t     params;                /* numbers in the model */
  int64_t     activation_bytes;      /* the executor's scratch for one launch; its exact lower bound is peak_bytes */
  int64_t     peak_bytes;
  int64_t     gradient_bytes;        /* gradients of the launch's grains and the partial sums of the fixed tree */
  int64_t     state_bytes;           /* weights and optimiser moments */
  int32_t     threads;
  int32_t     finished, resumed;     /* nothing left to do; continues an older run */
  const char *family, *model, *loss; /* names, borrowed */
  const char *exact;                 /* predictor compared with, NULL: none */
  const char *run;                   /* run folder, NULL: none */
  const char *inner;                 /* how its inner loop runs (mica_adapt_get_path), NULL: it has none */
} mica_trainer_info;

/* start a run (source.config given; `resume` 0) or go on with one (source.run given; `resume` 1): from its newest
 * checkpoint, from step 0 where there is none yet, finished at once where the run had finished. overrides of a resumed
 * run may change only what does not change the numbers (threads, devices, launch, memory, log_every,
 * checkpoint_every, checkpoints). MICA_ERR_STATE when `run` already holds a run and resume is 0. */
MICA_API mica_status mica_trainer_create(const mica_source *source, int32_t resume, mica_trainer **out);
MICA_API void        mica_trainer_destroy(mica_trainer *trainer);
MICA_API mica_status mica_trainer_get_info(const mica_trainer *trainer, mica_trainer_info *out);
/* one step; progress may be NULL. MICA_ERR_STATE when finished. metrics and checkpoints are written as they fall due.
 */
MICA_API mica_status mica_trainer_step(mica_trainer *trainer, mica_progress *progress);
/* steps to the end, then a last checkpoint; fn may be NULL. after a stop: a checkpoint, then MICA_ERR_INTERRUPTED. */
MICA_API mica_status mica_trainer_run(mica_trainer *trainer, mica_progress_fn fn, void *user);
/* ask a running mica_trainer_run to stop after its present step. async-signal-safe; any thread. */
MICA_API void        mica_trainer_stop(mica_trainer *trainer);
/* write a checkpoint and last.safetensors now. MICA_ERR_STATE without a run folder. */
MICA_API mica_status mica_trainer_save(mica_trainer *trainer);
/* context and sealed program, borrowed */
MICA_API mica_context       *mica_trainer_get_context(mica_trainer *trainer);
MICA_API const mica_program *mica_trainer_get_program(const mica_trainer *trainer);
/* the parameter block (fp32, mica_program_param_count numbers, at the offsets of mica_program_info), borrowed; write to
 * it between steps only. on device: cuda this is a copy that is read before and written after every step from then on */
MICA_API float      *mica_trainer_get_params(mica_trainer *trainer);
/* seconds by entry and face of the training program, as mica_executor_profile */
MICA_API mica_status mica_trainer_profile(mica_trainer *trainer, int32_t enable, mica_profile_fn fn, void *user);

/* ---- evaluation on test tasks ---- */

/* per predictor of the family: loss over the same tasks */
typedef struct mica_exact_loss {
  const char   *name;
  double        loss;
  const double *by_position;         /* (positions) */
} mica_exact_loss;

typedef struct mica_evaluation {
  int64_t         tasks, positions;  /* tasks evaluated; most weighted rows of a task */
  int64_t         quarantined;       /* tasks left out because the loss was not finite */
  double          loss, exact_loss;  /* mean over weighted rows; of the family's best predictor, NaN: none */
  double          bits;              /* loss in bits for classes (bits per byte for bytes), NaN for regression */
  double          accuracy;          /* of the likeliest class, part of the weighted rows; NaN for regression */
  const char     *unit;              /* "nats" or "squared error" */
  const char     *exact;             /* name of the best predictor, NULL: none */
  const double   *loss_by_position;  /* (positions): k-th weighted row of a task */
  const double   *exact_loss_by_position; /* (positions) or NULL */
  const double   *weight_by_position;     /* (positions): sum of weights */
  int32_t         n_predictors;
  const mica_exact_loss *predictors; /* all of them, best last */
  const double   *task_loss;         /* (tasks) mean over its weighted rows */
  const char *const *task_name;      /* (tasks) what the family calls them, or NULL */
  const char     *weights;           /* file of the weights used */
  int64_t         step;              /* training step of the weights; -1 unknown */
  double          seconds;
} mica_evaluation;

typedef struct mica_evaluate_options {
  size_t      size;                  /* sizeof(mica_evaluate_options) */
  mica_source source;                /* usually a run folder */
  const char *weights;               /* safetensors; NULL: RUN/last.safetensors, without a run the initial weights */
  int64_t     tasks;                 /* 0: eval_tasks of the configuration, at most what the family has */
  const char *exact;                 /* comma list of predictors to run; NULL: all; "": none */
} mica_evaluate_options;
#define MICA_EVALUATE_OPTIONS_INIT { sizeof(mica_evaluate_options), MICA_SOURCE_INIT, NULL, 0, NULL }

/* the result is the library's memory until destroy */
MICA_API mica_status mica_evaluate(const mica_evaluate_options *options, const mica_evaluation **out);
MICA_API void        mica_evaluation_destroy(const mica_evaluation *evaluation);

/* ---- prediction on a user's own data ---- */

typedef struct mica_prediction {
  int64_t       sequences, rows, columns; /* rows of all sequences; columns of `values` */
  const float  *values;              /* (rows, columns): predicted numbers, or probabilities of the classes */
  const int32_t *sequence;           /* (rows) which sequence a row belongs to, from 0 */
  const int32_t *position;           /* (rows) its position in the sequence, from 0 */
  const double *loss;                /* (rows) squared error or nats against what followed; NaN where unknown */
  const int32_t *target;             /* (rows) the class that followed, NULL for regression */
  int64_t       positions;
  const double *loss_by_position;    /* (positions), NaN where nothing is known */
  double        mean_loss, bits;     /* over known rows; bits: of classes (bits per byte), else NaN */
  int32_t       classes;             /* 1: values are probabilities */
  const char   *unit;
} mica_prediction;

typedef struct mica_predict_options {
  size_t      size;                  /* sizeof(mica_predict_options) */
  mica_source source;                /* usually a run folder */
  const char *weights;               /* as in evaluation */
  const char *input;                 /* .npy (rows, columns) or (sequences, rows, columns), .csv, .tsv; for a model of
                                      * bytes any file, cut into windows of the context length */
} mica_predict_options;
#define MICA_PREDICT_OPTIONS_INIT { sizeof(mica_predict_options), MICA_SOURCE_INIT, NULL, NULL }

MICA_API mica_status mica_predict(const mica_predict_options *options, const mica_prediction **out);
MICA_API void        mica_prediction_destroy(const mica_prediction *prediction);
/* write `values` and, for .csv and .tsv, the other columns; .npy holds values alone */
MICA_API mica_status mica_prediction_save(const mica_prediction *prediction, const char *path);

/* ---- one batch with its gradient, for anyone's check ---- */

typedef struct mica_grad_options {
  size_t      size;                  /* sizeof(mica_grad_options) */
  mica_source source;
  const char *weights;               /* safetensors; NULL: initial weights of the configuration */
  const char *out;                   /* safetensors to write: init/NAME, meta/NAME, fields, loss, grad/NAME, hvp/NAME */
  const char *direction;             /* safetensors with dir/NAME, or NULL: no hvp */
  int32_t     dtype;                 /* MICA_F32 on the kernels of `device`; F64 and BF16 on the reference */
  int64_t     first;                 /* number of the first task of the batch */
} mica_grad_options;
#define MICA_GRAD_OPTIONS_INIT { sizeof(mica_grad_options), MICA_SOURCE_INIT, NULL, NULL, NULL, MICA_F32, 0 }

/* loss: mean over the batch's weighted rows; may be NULL. */
MICA_API mica_status mica_grad(const mica_grad_options *options, double *loss);

#ifdef __cplusplus
}
#endif
#endif
