/* the sum over the devices of a host: shards all-to-all, added in tree order, gathered */
#include <string.h>

#include "device/context.h"
#include "device/device.h"
#include "kernels/optimizer/optimizer.h"

struct micah_exchange {
  mica_context *context;
  int32_t       n;
  int64_t       count, shard;          /* floats; of a shard, a multiple of a block */
  micah_device **devices;              /* [n] */
  void         **streams, **events;    /* [n] */
  float        **received;             /* [n] on each device: n shards, its own place unused */
};

/* ---- to += from ---- */

enum { BLOCKS_A_PIECE = 8 };

typedef struct sum_job {
  float       *to;
  const float *from;
  int64_t      count;
  int          isa;
} sum_job;

static void add_piece(void *arg, int64_t i, int32_t worker) {
  (void)worker;
  const sum_job *job = arg;
  const int64_t piece = (int64_t)BLOCKS_A_PIECE * MICAK_OPTIMIZER_BLOCK, first = i * piece;
  int64_t count = job->count - first < piece ? job->count - first : piece;
  micak_tree_add(job->isa, job->to + first, job->from + first, count);
}

mica_status micah_device_add(micah_device *device, void *stream, float *to, const float *from, int64_t count) {
  if (device->ops->backend == MICA_CUDA) {
#ifdef MICA_HAVE_CUDA
    mica_status status = device->ops->enter(device);
    return status < 0 ? status : micak_tree_add_cuda(stream, to, from, count);
#endif
  }
  (void)stream;
  const mica_threads *threads = mica_context_get_threads(device->context);
  sum_job job = { to, from, count, mica_context_get_isa(device->context) };
  const int64_t piece = (int64_t)BLOCKS_A_PIECE * MICAK_OPTIMIZER_BLOCK;
  threads->parallel_for(threads->user, (count + piece - 1) / piece, add_piece, &job);
  return MICA_OK;
}

/* ---- across devices ---- */

mica_status micah_exchange_create(micah_device *const *devices, void *const *streams, int32_t n, int64_t count,
                                  micah_exchange **out) {
  *out = NULL;
  if (n < 1 || (n & (n - 1)))
    return mica_error(MICA_ERR_INVALID, "a sum over %d devices, expected a power of two", n);
  if (count < 1) return mica_error(MICA_ERR_INVALID, "a sum of %lld numbers", (long long)count);
  mica_context *context = (mica_context *)(uintptr_t)devices[0]->context;
  size_t size = sizeof(micah_exchange) + 4 * (size_t)n * sizeof(void *);
  micah_exchange *e = micah_alloc(context, size, "the exchange of gradients");
  if (!e) return MICA_ERR_MEMORY;
  memset(e, 0, size);
  e->context = context, e->n = n, e->count = count;
  int64_t blocks = (count + MICAK_OPTIMIZER_BLOCK - 1) / MICAK_OPTIMIZER_BLOCK;
  e->shard = (blocks + n - 1) / n * MICAK_OPTIMIZER_BLOCK;
  e->devices = (micah_device **)(e + 1);
  e->streams = (void **)(e->devices + n);
  e->events = e->streams + n;
  e->received = (float **)(e->events + n);
  memcpy(e->devices, devices, (size_t)n * sizeof *devices);
  memcpy(e->streams, streams, (size_t)n * sizeof *streams);
  mica_status status = MICA_OK;
  for (int32_t i = 0; status >= 0 && i < n && n > 1; i++) {
    void *memory;
    status = devices[i]->ops->event_create(devices[i], &e->events[i]);
    if (status >= 0)
      status = devices[i]->ops->alloc(devices[i], (size_t)(n * e->shard) * sizeof(float), "shards of gradients",
                                      &memory);
    if (status >= 0) e->received[i] = memory;
  }
  if (status < 0) {
    micah_exchange_destroy(e);
    return status;
  }
  *out = e;
  return MICA_OK;
}

void micah_exchange_destroy(micah_exchange *e) {
  if (!e) return;
  for (int32_t i = 0; i < e->n; i++) {
    const micah_device_ops *ops = e->devices[i]->ops;
    if (e->received[i]) ops->free(e->devices[i], e->received[i], (size_t)(e->n * e->shard) * sizeof(float));
    if (e->events[i]) ops->event_destroy(e->devices[i], e->events[i]);
  }
  micah_free(e->context, e, sizeof *e + 4 * (size_t)e->n * sizeof(void *));
}

int64_t micah_exchange_bytes(const micah_exchange *e) {
  return e->n > 1 ? e->n * e->n * e->shard * (int64_t)sizeof(float) : 0;
}

/* every stream waits for what all the others have been given so far */
static mica_status meet(micah_exchange *e) {
  mica_status status = MICA_OK;
  for (int32_t i = 0; status >= 0 && i < e->n; i++)
    status = e->devices[i]->ops->event_record(e->devices[i], e->events[i], e->streams[i]);
  for (int32_t i = 0; status >= 0 && i < e->n; i++)
    for (int32_t j = 0; status >= 0 && j < e->n; j++)
      if (j != i) status = e->devices[i]->ops->event_wait(e->devices[i], e->streams[i], e->events[j]);
  return status;
}

/* floats of shard i */
static int64_t length(const micah_exchange *e, int32_t i) {
  int64_t left = e->count - i * e->shard;
  return left < 0 ? 0 : left < e->shard ? left : e->shard;
}

/* shard i of the sum, on device i; where it lies then */
static mica_status sum_shard(micah_exchange *e, int32_t i, float *const *blocks, int32_t active, float **sum) {
  micah_device *device = e->devices[i];
  int64_t n = length(e, i);
  mica_status status = MICA_OK;
  for (int32_t j = 0; status >= 0 && j < active; j++)
    if (j != i)
      status = device->ops->copy_peer(device, e->streams[i], e->received[i] + j * e->shard, e->devices[j],
                                      blocks[j] + i * e->shard, (size_t)n * sizeof(float));
#define PART(j) ((j) == i ? blocks[i] + i * e->shard : e->received[i] + (j) * e->shard)
  for (int32_t step = 1; step < active; step *= 2)
    for (int32_t j = 0; status >= 0 && j + step < active; j += 2 * step)
      status = micah_device_add(device, e->streams[i], PART(j), PART(j + step), n);
  *sum = PART(0);
#undef PART
  return status;
}

mica_status micah_exchange_sum(micah_exchange *e, float *const *blocks, int32_t active) {
  if (active < 1 || active > e->n)
    return mica_error(MICA_ERR_INVALID, "a sum of %d blocks over %d devices", active, e->n);
  if (e->n == 1) return MICA_OK;
  float *sum[MICAH_MAX_DEVICES];
  mica_status status = meet(e);
  for (int32_t i = 0; status >= 0 && i < e->n; i++)
    if (length(e, i) > 0) status = sum_shard(e, i, blocks, active, &sum[i]);
  if (status >= 0) status = meet(e);
  for (int32_t i = 0; status >= 0 && i < e->n; i++)
    for (int32_t j = 0; status >= 0 && j < e->n; j++) {
      float *to = blocks[i] + j * e->shard;
      if (length(e, j) < 1 || to == sum[j]) continue;
      status = e->devices[i]->ops->copy_peer(e->devices[i], e->streams[i], to, e->devices[j], sum[j],
                                             (size_t)length(e, j) * sizeof(float));
    }
  return status >= 0 ? meet(e) : status;
}
