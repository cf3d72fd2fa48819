/* device.h: one table of functions for each kind of device: memory, streams, events, graphs, errors.
 *
 * a device belongs to a context, is opened when first asked for and closed with it. on the CPU a stream is NULL and all
 * that is put on it is done at once. on CUDA a call that takes a stream only enqueues; NULL is the legacy default
 * stream; any stream of that device made elsewhere serves too, and so does any memory that it may read.
 *
 * errors are statuses with the CUDA call, its code and its text. after one that a CUDA context does not survive (a
 * kernel that read outside of its memory, a lost device) the device is poisoned: every call on it returns
 * MICA_ERR_DEVICE with what happened first; the process and contexts on other devices go on. destroying and freeing
 * work on, silently. */
#ifndef MICA_HOST_DEVICE_DEVICE_H
#define MICA_HOST_DEVICE_DEVICE_H

#include <pthread.h>

#include "mica/context.h"

typedef struct micah_device micah_device;

typedef struct micah_device_info {
  char    name[128];
  int32_t index;
  int32_t units;                 /* multiprocessors; cores of the CPU */
  int32_t capability;            /* 90 for sm_90; 0 on the CPU */
  int64_t memory, free;          /* bytes; 0: not known */
} micah_device_info;

typedef struct micah_device_ops {
  const char *name;              /* "cpu", "cuda" */
  int32_t     backend;           /* MICA_CPU, MICA_CUDA: the kernels that it runs */
  /* devices of this kind; MICA_ERR_UNSUPPORTED where the build or the machine has no such kind */
  mica_status (*count)(int32_t *out);
  mica_status (*open)(micah_device *device);
  void        (*close)(micah_device *device);
  mica_status (*info)(micah_device *device, micah_device_info *out);
  /* make it the calling thread's device: before kernels are launched on its streams */
  mica_status (*enter)(micah_device *device);
  /* MICA_OK, or what a call that failed outside of this table (a launch) has done to the device; clears what does no
   * harm. not on a stream that is being captured */
  mica_status (*check)(micah_device *device);

  /* memory: 256-byte aligned. `what` is for the message. host memory is pinned where that makes copies faster */
  mica_status (*alloc)(micah_device *device, size_t bytes, const char *what, void **out);
  void        (*free)(micah_device *device, void *ptr, size_t bytes);
  mica_status (*alloc_host)(micah_device *device, size_t bytes, const char *what, void **out);
  void        (*free_host)(micah_device *device, void *ptr, size_t bytes);

  /* between memory of the device and of the host, either way: the pointers say which. rows: `rows` stretches of
   * `bytes`, pitches in bytes. host memory that is not pinned makes the call wait. */
  mica_status (*copy)(micah_device *device, void *stream, void *to, const void *from, size_t bytes);
  mica_status (*copy_rows)(micah_device *device, void *stream, void *to, size_t to_pitch, const void *from,
                           size_t from_pitch, size_t bytes, size_t rows);
  /* from another device of the same kind */
  mica_status (*copy_peer)(micah_device *device, void *stream, void *to, const micah_device *source, const void *from,
                           size_t bytes);
  /* every byte; rows as in copy_rows */
  mica_status (*fill)(micah_device *device, void *stream, void *to, int byte, size_t bytes);
  mica_status (*fill_rows)(micah_device *device, void *stream, void *to, size_t pitch, int byte, size_t bytes,
                           size_t rows);

  mica_status (*stream_create)(micah_device *device, void **out);
  void        (*stream_destroy)(micah_device *device, void *stream);
  mica_status (*stream_sync)(micah_device *device, void *stream);

  /* events: record marks what is on the stream by now; wait makes a stream (of any device of the kind) wait for it */
  mica_status (*event_create)(micah_device *device, void **out);
  void        (*event_destroy)(micah_device *device, void *event);
  mica_status (*event_record)(micah_device *device, void *event, void *stream);
  mica_status (*event_wait)(micah_device *device, void *stream, void *event);
  mica_status (*event_query)(micah_device *device, void *event, int *done);
  mica_status (*event_sync)(micah_device *device, void *event);
  mica_status (*event_elapsed)(micah_device *device, void *from, void *to, double *seconds);

  /* graphs: what is put on a stream between begin and end is kept instead of done, and done by each launch. end frees
   * the capture also where it fails. MICA_ERR_UNSUPPORTED on the CPU */
  mica_status (*capturing)(micah_device *device, void *stream, int *out);
  mica_status (*capture_begin)(micah_device *device, void *stream);
  mica_status (*capture_end)(micah_device *device, void *stream, void **graph);
  mica_status (*graph_launch)(micah_device *device, void *graph, void *stream);
  void        (*graph_destroy)(micah_device *device, void *graph);
} micah_device_ops;

struct micah_device {
  const micah_device_ops *ops;
  const mica_context     *context;
  int32_t                 index;
  void                   *stream;      /* its own, for who brings none */
  pthread_mutex_t         lock;        /* of the two below */
  mica_status             poison;      /* < 0: dead */
  char                    message[512];
};

extern const micah_device_ops micah_cpu_ops, micah_cuda_ops;

/* the table for a backend (MICA_REF: the CPU's) */
const micah_device_ops *micah_device_kind(int backend);

/* device `index` of a context, opened when first asked for, borrowed. MICA_ERR_UNSUPPORTED without such a backend,
 * MICA_ERR_NOT_FOUND beyond the number of devices. any thread. */
mica_status micah_context_device(mica_context *context, int backend, int32_t index, micah_device **out);

/* mark a device dead with this thread's message; returns MICA_ERR_DEVICE */
mica_status micah_device_poison(micah_device *device);
/* MICA_OK, or MICA_ERR_DEVICE and why for a dead one */
mica_status micah_device_alive(micah_device *device);

/* a block on a device and the same here: one and the same on the CPU, where send and fetch have nothing to do. fetch
 * and send enqueue; the host's side may be touched when the stream is done. */
typedef struct micah_twin {
  micah_device *owner;
  void         *host, *device;
  size_t        bytes;
} micah_twin;
mica_status micah_twin_create(micah_device *device, size_t bytes, const char *what, micah_twin *out);
void        micah_twin_destroy(micah_twin *twin);
mica_status micah_twin_send(const micah_twin *twin, void *stream, size_t bytes);
mica_status micah_twin_fetch(const micah_twin *twin, void *stream, size_t bytes);

/* to[i] += from[i] on a device's stream; the CPU's does it on all threads */
mica_status micah_device_add(micah_device *device, void *stream, float *to, const float *from, int64_t count);

/* ---- the sum over the devices of a host ----
 *
 * n devices (a power of two) hold a block of floats each; afterwards the first `active` of them, and the others too,
 * hold the sum in the order of one binary tree over devices 0, 1, 2 ...: ((0 + 1) + (2 + 3)) + ..., what lies beyond
 * `active` left out. shards are exchanged all-to-all, added where they belong, and gathered: each device sends and
 * receives 2 (n - 1) / n of the block. shard boundaries are multiples of 4,096 floats. enqueues only; all streams have
 * waited for all others when it is done, so that blocks may be written again. */
typedef struct micah_exchange micah_exchange;
mica_status micah_exchange_create(micah_device *const *devices, void *const *streams, int32_t n, int64_t count,
                                  micah_exchange **out);
void        micah_exchange_destroy(micah_exchange *exchange);
mica_status micah_exchange_sum(micah_exchange *exchange, float *const *blocks, int32_t active);
int64_t     micah_exchange_bytes(const micah_exchange *exchange);

#endif
