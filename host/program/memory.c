/* an executor's data lie on its device: memory, rows that are cleared and copied, slots and offsets as device data */
#include "program/memory.h"

#include <stdio.h>
#include <string.h>

/* ---- memory ---- */

typedef struct micah_data {
  struct micah_data *next;
  void              *ptr;
  size_t             bytes;
  int                host;
} micah_data;

static void *take(mica_executor *x, int64_t bytes, int host) {
  if (x->backend != MICA_CUDA) return micah_region_raw(&x->region, bytes);
  if (bytes < 0) {
    mica_error(MICA_ERR_MEMORY, "out of memory: a size of %lld bytes is out of range", (long long)bytes);
    return NULL;
  }
  micah_data *block = micah_region_alloc(&x->region, 1, sizeof *block);
  if (!block) return NULL;
  block->bytes = bytes ? (size_t)bytes : 1;
  block->host = host;
  mica_status status = host ? x->device->ops->alloc_host(x->device, block->bytes, x->program->name, &block->ptr)
                            : x->device->ops->alloc(x->device, block->bytes, x->program->name, &block->ptr);
  if (status < 0) return NULL;
  block->next = x->data;
  x->data = block;
  if (!host) x->data_bytes += (int64_t)block->bytes;
  return block->ptr;
}

void *micah_data_alloc(mica_executor *x, int64_t bytes) { return take(x, bytes, 0); }

void micah_data_free(mica_executor *x) {
  for (micah_data *block = x->data; block; block = block->next) {
    if (block->host) x->device->ops->free_host(x->device, block->ptr, block->bytes);
    else x->device->ops->free(x->device, block->ptr, block->bytes);
  }
  x->data = NULL;
}

mica_status micah_data_put(mica_executor *x, void *to, const void *from, int64_t bytes) {
  mica_status status = x->device->ops->copy(x->device, x->stream, to, from, (size_t)bytes);
  return status < 0 ? status : x->device->ops->stream_sync(x->device, x->stream);
}

/* ---- rows ---- */

mica_status micah_move_end(micah_mover *m) {
  const micah_device_ops *ops = m->x->device->ops;
  micah_device *d = m->x->device;
  if (!m->rows || m->status < 0) return m->status;
  int whole = m->rows == 1 || (m->to_pitch == m->bytes && (!m->from || m->from_pitch == m->bytes));
  size_t all = m->rows * m->bytes;
  if (m->from && whole) m->status = ops->copy(d, m->x->stream, m->to, m->from, all);
  else if (m->from)
    m->status = ops->copy_rows(d, m->x->stream, m->to, m->to_pitch, m->from, m->from_pitch, m->bytes, m->rows);
  else if (whole) m->status = ops->fill(d, m->x->stream, m->to, 0, all);
  else m->status = ops->fill_rows(d, m->x->stream, m->to, m->to_pitch, 0, m->bytes, m->rows);
  m->rows = 0;
  return m->status;
}

/* is `next` `pitch` behind a stretch that began at `first`? a second row says what the pitch is */
static int follows(const micah_mover *m, const char *first, const char *next, size_t *pitch) {
  if (m->rows == 1) {
    if (next < first + m->bytes) return 0;
    *pitch = (size_t)(next - first);
    return *pitch <= MICAH_MOST_PITCH;
  }
  return next == first + m->rows * *pitch;
}

void micah_move(micah_mover *m, void *to, const void *from) {
  size_t to_pitch = m->to_pitch, from_pitch = m->from_pitch;
  int same = m->rows && !from == !m->from && follows(m, m->to, to, &to_pitch) &&
             (!from || follows(m, m->from, from, &from_pitch));
  if (same) {
    m->to_pitch = to_pitch, m->from_pitch = from_pitch, m->rows++;
    return;
  }
  micah_move_end(m);
  m->to = to, m->from = from, m->rows = 1, m->to_pitch = m->from_pitch = m->bytes;
}

/* ---- slots and offsets ---- */

enum { RING = 4 };                         /* uploads that may be under way at once */

typedef struct list {
  const int32_t *host;
  int64_t        count, at;
} list;

struct micah_upload {
  list    *lists;
  int32_t  n, capacity;
  int64_t  used, room;                     /* numbers */
  int32_t *device, *staging[RING];
  void    *events[RING];
  int32_t  next;
  uint8_t  busy[RING];
};

mica_status micah_upload_create(mica_executor *x) {
  const mica_program *p = x->program;
  if (x->backend != MICA_CUDA) return MICA_OK;
  micah_upload *u = x->upload = micah_region_alloc(&x->region, 1, sizeof *u);
  if (!u) return MICA_ERR_MEMORY;
  /* offsets seen from each level, slots of levels, and callers' slot vectors of all that is bound */
  int64_t most = 0;
  for (int32_t level = -1; level < p->n_axes; level++) {
    u->capacity += p->n_axes;
    u->room += p->n_axes * (micah_capacity(x, level) + 1);
    if (micah_capacity(x, level) > most) most = micah_capacity(x, level);
  }
  u->capacity += x->n_slots + MICAH_WIRES * (p->n_inputs + p->n_outputs + 1);
  for (int32_t i = 0; i < x->n_slots; i++) u->room += micah_capacity(x, x->slots[i].level);
  u->room += MICAH_WIRES * (p->n_inputs + p->n_outputs + 1) * (most + 1);
  u->lists = micah_region_alloc(&x->region, u->capacity, sizeof *u->lists);
  if (!u->lists || !(u->device = take(x, u->room * (int64_t)sizeof(int32_t), 0))) return MICA_ERR_MEMORY;
  for (int i = 0; i < RING; i++) {
    if (!(u->staging[i] = take(x, u->room * (int64_t)sizeof(int32_t), 1))) return MICA_ERR_MEMORY;
    mica_status status = x->device->ops->event_create(x->device, &u->events[i]);
    if (status < 0) return status;
  }
  return MICA_OK;
}

void micah_upload_destroy(mica_executor *x) {
  for (int i = 0; x->upload && i < RING; i++)
    if (x->upload->events[i]) x->device->ops->event_destroy(x->device, x->upload->events[i]);
}

void micah_upload_begin(mica_executor *x) {
  if (x->upload) x->upload->n = 0, x->upload->used = 0;
}

const int32_t *micah_upload_list(mica_executor *x, const int32_t *host, int64_t count, mica_status *status) {
  micah_upload *u = x->upload;
  if (!host) return NULL;
  for (int32_t i = 0; i < u->n; i++)
    if (u->lists[i].host == host && u->lists[i].count >= count) return u->device + u->lists[i].at;
  if (u->n == u->capacity || u->used + count > u->room) {
    *status = mica_error(MICA_ERR_UNSUPPORTED, "executor of %s: too many different slot vectors are bound",
                         x->program->name);
    return NULL;
  }
  u->lists[u->n++] = (list){ host, count, u->used };
  u->used += count;
  return u->device + u->lists[u->n - 1].at;
}

mica_status micah_upload_end(mica_executor *x, int captured) {
  micah_upload *u = x->upload;
  if (!u || !u->used) return MICA_OK;
  const micah_device_ops *ops = x->device->ops;
  int32_t k = u->next;
  mica_status status = u->busy[k] ? ops->event_sync(x->device, u->events[k]) : MICA_OK;
  if (status < 0) return status;
  u->busy[k] = 0;
  for (int32_t i = 0; i < u->n; i++)
    memcpy(u->staging[k] + u->lists[i].at, u->lists[i].host, (size_t)u->lists[i].count * sizeof(int32_t));
  void *stream = captured ? x->device->stream : x->stream;
  status = ops->copy(x->device, stream, u->device, u->staging[k], (size_t)u->used * sizeof(int32_t));
  if (status >= 0 && captured) return ops->stream_sync(x->device, stream);
  if (status >= 0) status = ops->event_record(x->device, u->events[k], stream);
  if (status < 0) return status;
  u->busy[k] = 1;
  u->next = (k + 1) % RING;
  return MICA_OK;
}
