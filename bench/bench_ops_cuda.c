/* timing faces on a GPU: events around a row of launches. never on an emulator, whose time means nothing */
#include <stdlib.h>
#include <string.h>

#include "bench_ops.h"

#ifndef MICA_BENCH_GPU

mica_status bench_cuda_open(mica_context *context, bench_cuda *out) {
  (void)context;
  memset(out, 0, sizeof *out);
  return mica_error(MICA_ERR_UNSUPPORTED, "--backend cuda times a GPU; this build runs none (cmake --preset cuda, "
                    "MICA_CUDA=ON)");
}
void bench_cuda_close(bench_cuda *b) { (void)b; }
mica_status bench_cuda_time(bench_cuda *b, const mica_op *op, int face, const void *args, double seconds,
                            double *median, double *least, int *runs) {
  (void)b, (void)op, (void)face, (void)args, (void)seconds, (void)median, (void)least, (void)runs;
  return MICA_ERR_UNSUPPORTED;
}

#else

mica_status bench_peak_cuda(void *stream, int32_t multiprocessors, float *sink, double *flop);

/* seconds of `times` calls of one thing on the stream */
static mica_status between(bench_cuda *b, mica_status (*work)(bench_cuda *, void *), void *arg, int times,
                           double *seconds) {
  const micah_device_ops *ops = b->device->ops;
  mica_status status = ops->event_record(b->device, b->from, b->device->stream);
  for (int i = 0; status >= 0 && i < times; i++) status = work(b, arg);
  if (status >= 0) status = ops->event_record(b->device, b->to, b->device->stream);
  if (status >= 0) status = ops->event_sync(b->device, b->to);
  return status < 0 ? status : ops->event_elapsed(b->device, b->from, b->to, seconds);
}

static mica_status peak(bench_cuda *b, void *arg) {
  return bench_peak_cuda(b->device->stream, b->info.units, b->memory, arg);
}
static mica_status stream(bench_cuda *b, void *arg) {
  (void)arg;
  return b->device->ops->copy(b->device, b->device->stream, b->memory, (char *)b->memory + b->bytes / 2, b->bytes / 2);
}

mica_status bench_cuda_open(mica_context *context, bench_cuda *b) {
  memset(b, 0, sizeof *b);
  mica_status status = micah_context_device(context, MICA_CUDA, 0, &b->device);
  if (status < 0) return status;
  const micah_device_ops *ops = b->device->ops;
  b->bytes = (size_t)512 << 20;
  status = ops->info(b->device, &b->info);
  if (status >= 0) status = ops->event_create(b->device, &b->from);
  if (status >= 0) status = ops->event_create(b->device, &b->to);
  if (status >= 0) status = ops->alloc(b->device, b->bytes, "the probe of bandwidth", &b->memory);
  if (status >= 0) status = ops->fill(b->device, b->device->stream, b->memory, 0, b->bytes);
  double seconds = 0, flop = 0, best_flops = 0, best_bytes = 0;
  for (int i = 0; status >= 0 && i < 8; i++) {
    status = between(b, peak, &flop, 1, &seconds);
    if (status >= 0 && flop / seconds > best_flops) best_flops = flop / seconds;
    if (status >= 0) status = between(b, stream, NULL, 1, &seconds);
    if (status >= 0 && (double)b->bytes / seconds > best_bytes) best_bytes = (double)b->bytes / seconds;
  }
  b->gflops = 1e-9 * best_flops, b->gbytes = 1e-9 * best_bytes;
  return status;
}

void bench_cuda_close(bench_cuda *b) {
  if (!b->device) return;
  if (b->memory) b->device->ops->free(b->device, b->memory, b->bytes);
  if (b->from) b->device->ops->event_destroy(b->device, b->from);
  if (b->to) b->device->ops->event_destroy(b->device, b->to);
}

typedef struct face_job {
  const mica_kernel *kernel;
  const void        *args;
  int32_t            phases;
  mica_exec          exec;
} face_job;

static mica_status run_phases(bench_cuda *b, void *arg) {
  (void)b;
  face_job *job = arg;
  mica_status status = MICA_OK;
  for (int32_t i = 0; i < job->phases && status >= 0; i++) {
    mica_split split = { 1, 1, 0, 0 };
    if (job->kernel[i].split) job->kernel[i].split(job->args, &split);
    if (split.units > 0) status = job->kernel[i].run(&job->exec, job->args, 0, split.units);
  }
  return status;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

mica_status bench_cuda_time(bench_cuda *b, const mica_op *op, int face, const void *args, double seconds,
                            double *median, double *least, int *runs) {
  enum { MOST = 200 };
  double taken[MOST], one = 0, total = 0;
  face_job job = { .args = args };
  mica_status status = mica_op_kernels(op, MICA_CUDA, MICA_F32, face, &job.kernel, &job.phases);
  size_t scratch = 0;
  for (int32_t i = 0; status >= 0 && i < job.phases; i++) {
    mica_split split = { 1, 1, 0, 0 };
    if (job.kernel[i].split) job.kernel[i].split(args, &split);
    if (split.scratch_bytes > scratch) scratch = split.scratch_bytes;
  }
  const micah_device_ops *ops = b->device->ops;
  job.exec = (mica_exec){ .size = sizeof job.exec, .stream = b->device->stream, .scratch_bytes = scratch };
  if (status >= 0) status = ops->enter(b->device);
  if (status >= 0 && scratch) status = ops->alloc(b->device, scratch, op->name, &job.exec.scratch);
  /* short faces are launched in a row, so that the gaps between launches do not count; L2 is warm */
  if (status >= 0) status = between(b, run_phases, &job, 1, &one);
  if (status >= 0) status = between(b, run_phases, &job, 1, &one);
  int row = one > 1e-3 ? 1 : one > 1e-9 ? (int)(1e-3 / one) + 1 : 1000, n = 0;
  if (row > 1000) row = 1000;
  for (; status >= 0 && n < MOST && (n < 5 || total < seconds); n++) {
    status = between(b, run_phases, &job, row, &one);
    taken[n] = one / row;
    total += one;
  }
  if (job.exec.scratch) ops->free(b->device, job.exec.scratch, scratch);
  if (status < 0) return status;
  qsort(taken, (size_t)n, sizeof *taken, ascending);
  *median = taken[n / 2], *least = taken[0], *runs = n;
  return MICA_OK;
}

#endif
