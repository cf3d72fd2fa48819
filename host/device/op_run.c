#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "common/prepare.h"
#include "device/context.h"
#include "device/device.h"

/* ---- a parallel_for whose bodies may fail ---- */

typedef struct try_job {
  micah_try_body  body;
  void           *arg;
  atomic_llong    failed;                  /* least index known to have failed */
  pthread_mutex_t lock;
  mica_status     status;
  char            message[1024];
} try_job;

static void try_one(void *arg, int64_t i, int32_t worker) {
  try_job *job = arg;
  if (i > atomic_load_explicit(&job->failed, memory_order_relaxed)) return;
  mica_status status = job->body(job->arg, i, worker);
  if (status >= 0) return;
  /* messages are kept per thread: carry the text over */
  pthread_mutex_lock(&job->lock);
  if (i < atomic_load(&job->failed)) {
    atomic_store(&job->failed, i);
    job->status = status;
    snprintf(job->message, sizeof job->message, "%s", mica_last_error());
  }
  pthread_mutex_unlock(&job->lock);
}

mica_status micah_try_for(const mica_context *context, int64_t n, micah_try_body body, void *arg) {
  const mica_threads *threads = mica_context_get_threads(context);
  try_job job = { .body = body, .arg = arg };
  atomic_init(&job.failed, INT64_MAX);
  pthread_mutex_init(&job.lock, NULL);
  threads->parallel_for(threads->user, n, try_one, &job);
  pthread_mutex_destroy(&job.lock);
  return job.status < 0 ? mica_error(job.status, "%s", job.message) : MICA_OK;
}

/* ---- faces ---- */

typedef struct face_job {
  const mica_kernel *kernel;
  const micak_prepare *prepare;
  const void        *args;
  micak_exec         exec;                 /* of worker 0 */
  int64_t            units, range;
  size_t             pitch;                /* bytes of scratch from worker to worker */
} face_job;

static mica_status run_range(void *arg, int64_t i, int32_t worker) {
  const face_job *job = arg;
  micak_exec exec = job->exec;
  if (exec.exec.scratch) exec.exec.scratch = (char *)exec.exec.scratch + (size_t)worker * job->pitch;
  int64_t first = i * job->range, count = job->units - first < job->range ? job->units - first : job->range;
  return job->kernel->run(&exec.exec, job->args, first, count);
}

static mica_status prepare_unit(void *arg, int64_t i, int32_t worker) {
  const face_job *job = arg;
  (void)worker;
  return job->prepare->prepare(&job->exec.exec, job->args, i, 1);
}

static mica_status run_phase(mica_context *context, const mica_op *op, const mica_kernel *kernel, const void *args,
                             int32_t isa, int64_t range) {
  mica_split split = { 1, 1, 0, 0 };
  if (kernel->split) kernel->split(args, &split);
  if (split.units < 0 || split.grain < 1)
    return mica_error(MICA_ERR_INTERNAL, "%s %s: its split gives %lld units with a grain of %lld", op->name,
                      mica_face_name(kernel->face), (long long)split.units, (long long)split.grain);
  if (split.units == 0) return MICA_OK;
  face_job job = { .kernel = kernel, .prepare = micak_prepare_of(kernel), .args = args, .units = split.units,
                   .range = range > 0 ? range : split.grain };
  if (job.range > job.units) job.range = job.units;
  job.exec.exec = (mica_exec){ .size = sizeof job.exec, .isa = isa, .scratch_bytes = split.scratch_bytes };
  int64_t ranges = (job.units - 1) / job.range + 1, workers = mica_context_get_threads(context)->workers;
  if (workers > ranges) workers = ranges;
  size_t bytes = 0;
  if (split.scratch_bytes) {
    if (split.scratch_bytes > SIZE_MAX / 2 / (size_t)workers - 64)
      return mica_error(MICA_ERR_MEMORY, "%s %s: scratch of %zu bytes is too large", op->name,
                        mica_face_name(kernel->face), split.scratch_bytes);
    workers = mica_context_get_threads(context)->workers;  /* any worker may take a range */
    job.pitch = (split.scratch_bytes + 63) & ~(size_t)63;
    bytes = job.pitch * (size_t)workers;
    job.exec.exec.scratch = micah_alloc(context, bytes, op->name);
    if (!job.exec.exec.scratch) return MICA_ERR_MEMORY;
  }
  mica_status status = MICA_OK;
  micak_need need = micak_need_of(job.prepare, args);
  if (need.units > 0) {
    job.exec.shared = micah_alloc(context, need.bytes, op->name);
    status = job.exec.shared ? micah_try_for(context, need.units, prepare_unit, &job) : MICA_ERR_MEMORY;
  }
  if (status >= 0) status = micah_try_for(context, ranges, run_range, &job);
  micah_free(context, job.exec.shared, need.bytes);
  micah_free(context, job.exec.exec.scratch, bytes);
  return status;
}

/* one phase after another on a stream, each with all its units; scratch lives until the stream is done */
static mica_status run_on_device(micah_device *device, void *stream, const mica_op *op, const mica_kernel *kernel,
                                 int32_t phases, const void *args) {
  size_t bytes = 0;
  for (int32_t i = 0; i < phases; i++) {
    mica_split split = { 1, 1, 0, 0 };
    if (kernel[i].split) kernel[i].split(args, &split);
    if (split.scratch_bytes > bytes) bytes = split.scratch_bytes;
  }
  void *scratch = NULL;
  mica_status status = device->ops->enter(device);
  if (status >= 0 && bytes) status = device->ops->alloc(device, bytes, op->name, &scratch);
  for (int32_t i = 0; i < phases && status >= 0; i++) {
    mica_split split = { 1, 1, 0, 0 };
    if (kernel[i].split) kernel[i].split(args, &split);
    mica_exec exec = { .size = sizeof exec, .stream = stream, .scratch = scratch, .scratch_bytes = bytes,
                       .device = device->index };
    if (split.units > 0) status = kernel[i].run(&exec, args, 0, split.units);
  }
  mica_status done = status >= 0 ? device->ops->stream_sync(device, stream) : status;
  if (scratch) device->ops->free(device, scratch, bytes);
  return done;
}

mica_status micah_run_face_as(mica_context *context, const mica_op *op, int backend, int dtype, int face,
                              const void *args, int32_t isa, int64_t range) {
  const mica_kernel *kernel;
  int32_t count;
  int faces[2], n = micak_faces(face, faces);
  mica_status status = mica_op_kernels(op, backend, dtype, face, &kernel, &count);
  if (status < 0 && n == 2) { /* a slot is never a second meaning: without a kernel, one face after the other */
    status = micah_run_face_as(context, op, backend, dtype, faces[0], args, isa, range);
    return status < 0 ? status : micah_run_face_as(context, op, backend, dtype, faces[1], args, isa, range);
  }
  for (int i = 0; i < n && status >= 0; i++) status = mica_args_check(op, args, faces[i]);
  if (status < 0) return status;
  if (backend == MICA_CUDA) {
    micah_device *device;
    status = micah_context_device(context, MICA_CUDA, 0, &device);
    return status < 0 ? status : run_on_device(device, device->stream, op, kernel, count, args);
  }
  for (int32_t phase = 0; phase < count && status >= 0; kernel++) {
    /* phases are consecutive in the table */
    if (kernel->backend != backend || kernel->dtype != dtype || kernel->face != face)
      return mica_error(MICA_ERR_INTERNAL, "%s %s: its phases are not consecutive in the kernel table", op->name,
                        mica_face_name(face));
    status = run_phase(context, op, kernel, args, isa, range);
    phase++;
  }
  return status;
}

mica_status micah_run_face(mica_context *context, const mica_op *op, int backend, int dtype, int face,
                           const void *args) {
  return micah_run_face_as(context, op, backend, dtype, face, args, mica_context_get_isa(context), 0);
}

mica_status mica_op_run(mica_context *context, const char *op, int backend, int dtype, int face, const void *args) {
  const mica_op *found;
  if (!context || !args) return mica_error(MICA_ERR_INVALID, "mica_op_run: no context or no arguments");
  if (face < 0 || face >= MICA_NSLOT || backend < 0 || backend >= MICA_NBACKEND)
    return mica_error(MICA_ERR_INVALID, "mica_op_run '%s': no face %d or no backend %d", op ? op : "(null)", face, backend);
  mica_status status = mica_find_op(context, op, &found);
  return status < 0 ? status : micah_run_face(context, found, backend, dtype, face, args);
}
