/* job.h: what a configuration describes, opened: settings, context, family, model and loss, and programs of them. */
#ifndef MICAH_ENGINE_JOB_H
#define MICAH_ENGINE_JOB_H

#include "host/device/device.h"
#include "host/engine/settings.h"
#include "host/engine/tasks.h"
#include "host/io/safetensors.h"
#include "mica/model.h"
#include "mica/train.h"

typedef struct micah_job {
  micah_config      *config;
  micah_settings     settings;
  mica_context      *context;        /* owned */
  int                backend;        /* of `device`: MICA_CPU, MICA_CUDA; its devices are numbered from 0 */
  char              *run;            /* run folder or NULL, owned */
  const mica_family *family;
  const mica_model  *model;
  const mica_loss   *loss;
  void              *family_config, *model_config, *loss_config;
} micah_job;

/* read the configuration, apply overrides, load plugins, find and fill every descriptor. `fixed`: overrides may change
 * only what leaves the numbers of the run alone (micah_settings_neutral). */
mica_status micah_job_open(const mica_source *source, int fixed, micah_job **out);
void        micah_job_close(micah_job *job);

/* open its family for a split */
mica_status micah_job_tasks(const micah_job *job, int32_t split, micah_tasks *out);

/* the model with its loss as a sealed program over the family's fields */
typedef struct micah_graph {
  mica_program *program;
  mica_value    input[MICAH_MAX_FIELDS], prediction, loss;
  int32_t       axis[MICAH_MAX_AXES];
  int64_t       params;              /* numbers in the parameter block */
} micah_graph;
/* predictions of classes: probabilities; AVERAGES: the gradient of a parameter that follows an average is its next value;
 * EVALUATE: built for evaluation, else for training */
#define MICAH_AVERAGE_PREFIX "average."
enum { MICAH_OUT_LOSS = 1, MICAH_OUT_PREDICTION = 2, MICAH_AVERAGES = 4, MICAH_EVALUATE = 8 };
mica_status micah_job_graph(const micah_job *job, const micah_tasks *tasks, int32_t outputs, micah_graph *out);
void        micah_graph_destroy(micah_graph *graph);

/* an executor for up to `capacity` tasks of a family */
mica_status micah_graph_executor(const micah_job *job, const micah_tasks *tasks, const micah_graph *graph, int backend,
                                 int32_t device, int dtype, int32_t passes, int64_t capacity, mica_executor **out);

/* bind tasks, offsets and fields of a view; data: where the fields lie for the executor */
mica_status micah_graph_bind(mica_executor *executor, const micah_graph *graph, const micah_view *view, int dtype,
                             void *const *data);

/* bind a buffer, one number a target row, to a wire of the loss */
mica_status micah_graph_bind_loss(mica_executor *executor, const micah_graph *graph, int wire, void *data, int dtype);

/* initial parameters of the configuration's seed into a block of `dtype` */
mica_status micah_graph_init(const micah_job *job, const micah_graph *graph, int dtype, void *params);

/* n-th output that is the next value of a parameter; its parameter, -1 past the end */
mica_value  micah_graph_average(const micah_graph *graph, int32_t index, mica_value *next);

/* n-th parameter: its description; MICA_ERR_NOT_FOUND past the end */
int32_t     micah_graph_n_params(const micah_graph *graph);
mica_status micah_graph_param(const micah_graph *graph, int32_t index, mica_value_info *out);

/* parameters from a file with every tensor `prefix`NAME of the right shape, F32 or F64 or BF16, into a block of
 * `dtype`. extra tensors are fine where `extra`, else an error. */
mica_status micah_graph_load(const micah_graph *graph, const micah_safetensors *file, const char *prefix, int extra,
                             int dtype, void *params);

/* append tensors `prefix`NAME over a block to a list that grows; names are copied */
typedef struct micah_tensor_list {
  micah_tensor *tensors;
  int64_t       count, capacity;
  char        **owned;               /* names */
} micah_tensor_list;
mica_status micah_list_add(micah_tensor_list *list, const char *prefix, const char *name, int dtype, int32_t rank,
                           const int64_t *shape, const void *data);
mica_status micah_list_params(micah_tensor_list *list, const micah_graph *graph, const char *prefix, int dtype,
                              const void *block);
void        micah_list_free(micah_tensor_list *list);

/* weights for evaluation and prediction: `weights`, else RUN/last.safetensors, else initial ones. *from: file used,
 * borrowed from the job or options, NULL for initial; *step: its training step, -1 when unknown. */
mica_status micah_job_weights(const micah_job *job, const micah_graph *graph, const char *weights, int dtype,
                              void *params, char **from, int64_t *step);

/* hex of a hash over every key of a written configuration that decides numbers */
mica_status micah_config_hash(const micah_config *config, char text[33]);

#endif
