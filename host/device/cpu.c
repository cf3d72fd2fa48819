/* the CPU as a device: memory of the context's allocator, everything done at once */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "device/context.h"
#include "device/device.h"
#include "device/pool.h"

static mica_status count(int32_t *out) {
  *out = 1;
  return MICA_OK;
}
static mica_status open_device(micah_device *device) {
  (void)device;
  return MICA_OK;
}
static void close_device(micah_device *device) { (void)device; }

static mica_status info(micah_device *device, micah_device_info *out) {
  static const char *const names[] = { "portable", "AVX2", "AVX-512" };
  *out = (micah_device_info){ .index = device->index, .units = micah_pool_cores() };
  snprintf(out->name, sizeof out->name, "CPU, %s", names[mica_context_get_isa(device->context)]);
  return MICA_OK;
}
static mica_status fine(micah_device *device) {
  (void)device;
  return MICA_OK;
}

static mica_status alloc(micah_device *device, size_t bytes, const char *what, void **out) {
  *out = micah_alloc(device->context, bytes, what);
  return *out ? MICA_OK : MICA_ERR_MEMORY;
}
static void release(micah_device *device, void *ptr, size_t bytes) { micah_free(device->context, ptr, bytes); }

static mica_status copy(micah_device *device, void *stream, void *to, const void *from, size_t bytes) {
  (void)device, (void)stream;
  if (bytes) memmove(to, from, bytes);
  return MICA_OK;
}
static mica_status copy_rows(micah_device *device, void *stream, void *to, size_t to_pitch, const void *from,
                             size_t from_pitch, size_t bytes, size_t rows) {
  (void)device, (void)stream;
  for (size_t i = 0; i < rows && bytes; i++)
    memmove((char *)to + i * to_pitch, (const char *)from + i * from_pitch, bytes);
  return MICA_OK;
}
static mica_status copy_peer(micah_device *device, void *stream, void *to, const micah_device *source,
                             const void *from, size_t bytes) {
  (void)source;
  return copy(device, stream, to, from, bytes);
}
static mica_status fill(micah_device *device, void *stream, void *to, int byte, size_t bytes) {
  (void)device, (void)stream;
  if (bytes) memset(to, byte, bytes);
  return MICA_OK;
}
static mica_status fill_rows(micah_device *device, void *stream, void *to, size_t pitch, int byte, size_t bytes,
                             size_t rows) {
  (void)device, (void)stream;
  for (size_t i = 0; i < rows && bytes; i++) memset((char *)to + i * pitch, byte, bytes);
  return MICA_OK;
}

static mica_status stream_create(micah_device *device, void **out) {
  (void)device;
  *out = NULL;
  return MICA_OK;
}
static void stream_destroy(micah_device *device, void *stream) { (void)device, (void)stream; }
static mica_status stream_sync(micah_device *device, void *stream) {
  (void)device, (void)stream;
  return MICA_OK;
}

/* an event is the time at which it was recorded */
static mica_status event_create(micah_device *device, void **out) {
  double *at = *out = micah_alloc(device->context, sizeof *at, "an event");
  if (!at) return MICA_ERR_MEMORY;
  *at = 0;
  return MICA_OK;
}
static void event_destroy(micah_device *device, void *event) { micah_free(device->context, event, sizeof(double)); }
static mica_status event_record(micah_device *device, void *event, void *stream) {
  (void)device, (void)stream;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  *(double *)event = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
  return MICA_OK;
}
static mica_status event_wait(micah_device *device, void *stream, void *event) {
  (void)device, (void)stream, (void)event;
  return MICA_OK;
}
static mica_status event_query(micah_device *device, void *event, int *done) {
  (void)device, (void)event;
  *done = 1;
  return MICA_OK;
}
static mica_status event_sync(micah_device *device, void *event) {
  (void)device, (void)event;
  return MICA_OK;
}
static mica_status event_elapsed(micah_device *device, void *from, void *to, double *seconds) {
  (void)device;
  *seconds = *(double *)to - *(double *)from;
  return MICA_OK;
}

static mica_status capturing(micah_device *device, void *stream, int *out) {
  (void)device, (void)stream;
  *out = 0;
  return MICA_OK;
}
static mica_status no_graphs(void) { return mica_error(MICA_ERR_UNSUPPORTED, "device cpu has no graphs"); }
static mica_status capture_begin(micah_device *device, void *stream) {
  (void)device, (void)stream;
  return no_graphs();
}
static mica_status capture_end(micah_device *device, void *stream, void **graph) {
  (void)device, (void)stream;
  *graph = NULL;
  return no_graphs();
}
static mica_status graph_launch(micah_device *device, void *graph, void *stream) {
  (void)device, (void)graph, (void)stream;
  return no_graphs();
}
static void graph_destroy(micah_device *device, void *graph) { (void)device, (void)graph; }

const micah_device_ops micah_cpu_ops = {
  "cpu", MICA_CPU, count, open_device, close_device, info, fine, fine, alloc, release, alloc, release, copy, copy_rows,
  copy_peer, fill, fill_rows, stream_create, stream_destroy, stream_sync, event_create, event_destroy, event_record,
  event_wait, event_query, event_sync, event_elapsed, capturing, capture_begin, capture_end, graph_launch,
  graph_destroy,
};
