/* op_run.h: one face of an operation on arrays from a file. */
#ifndef MICA_HOST_CLI_OP_RUN_H
#define MICA_HOST_CLI_OP_RUN_H

#include "mica/context.h"

enum { MICAC_MAX_SETTINGS = 32 };

typedef struct micac_op_job {
  const mica_op *op;
  int            face, backend, dtype;
  const char    *in, *out;       /* safetensors */
  const char    *set[MICAC_MAX_SETTINGS];
  int            n_set;
  int            written;        /* out: wires in the file */
} micac_op_job;

mica_status micac_op_run(mica_context *context, micac_op_job *job);

/* the same in parts, for who runs the faces more than once: arrays from job->in; forward and what job->face needs after
 * it; job->out. the job must outlive the work. */
typedef struct micac_op_work micac_op_work;
mica_status micac_op_open(micac_op_job *job, micac_op_work **work);
mica_status micac_op_faces(mica_context *context, micac_op_work *work);
mica_status micac_op_write(micac_op_work *work);
void        micac_op_close(micac_op_work *work);

#endif
