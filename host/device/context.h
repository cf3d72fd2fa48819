/* context.h (host): what the layers above need of a context beyond the public calls. */
#ifndef MICA_HOST_DEVICE_CONTEXT_H
#define MICA_HOST_DEVICE_CONTEXT_H

#include <pthread.h>

#include "mica/context.h"

struct mica_model; struct mica_loss; struct mica_family;

/* a context with the built-in operations only; mica_context_create (host/engine) adds families, models and losses. */
mica_status micah_context_new(const mica_context_options *options, mica_context **out);

/* devices that were opened (device.h), by kind (cpu, cuda) and index */
enum { MICAH_MAX_DEVICES = 64 };
typedef struct micah_device_list {
  pthread_mutex_t      lock;
  struct micah_device *item[2][MICAH_MAX_DEVICES];
} micah_device_list;
micah_device_list *micah_context_devices(mica_context *context);
void               micah_devices_close(mica_context *context);

/* the lists of built-ins, each kept by its own layer and registered by the public calls. */
mica_status micah_register_ops(mica_context *context);
mica_status micah_register_families(mica_context *context);
mica_status micah_register_models(mica_context *context);
mica_status micah_register_losses(mica_context *context);

/* memory of the context's allocator, 64-byte aligned; alloc sets the thread's message (`what` in it) and returns NULL
 * when out of memory. free takes NULL. */
void *micah_alloc(const mica_context *context, size_t bytes, const char *what);
void  micah_free(const mica_context *context, void *ptr, size_t bytes);

/* run all phases of one face: checks args, cuts each phase into fixed ranges of `grain` units, gives scratch, runs them on
 * the context's threads. allocates scratch: passes of a program have their own plan and do not come through here. errors:
 * those of mica_args_check and mica_op_kernels, MICA_ERR_MEMORY, and what a kernel returns (of the first range that fails,
 * with its message). */
mica_status micah_run_face(mica_context *context, const mica_op *op, int backend, int dtype, int face, const void *args);

/* the same with another instruction set than the context's and a chosen range size (0: the kernel's grain); for checks. */
mica_status micah_run_face_as(mica_context *context, const mica_op *op, int backend, int dtype, int face,
                              const void *args, int32_t isa, int64_t range);

/* one parallel_for over bodies that may fail: runs body(arg, i, worker) for i in [0, n); returns the status of the least i
 * that failed, with its message on this thread. bodies after a failure are skipped where not yet begun. */
typedef mica_status (*micah_try_body)(void *arg, int64_t i, int32_t worker);
mica_status micah_try_for(const mica_context *context, int64_t n, micah_try_body body, void *arg);

#endif
