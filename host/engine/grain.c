#include "host/engine/grain.h"

#include <string.h>

#include "host/device/context.h"

enum { LEVELS = 64, BLOCK = 4096 };

typedef struct node {
  float  *data;
  int64_t grains;                /* in this sum */
  int32_t spare;                 /* spare buffer that holds it, -1: a slot of the launch */
} node;

struct micah_tree {
  micah_device *device;
  void    *stream;
  int64_t  count, stride, launch, n_spares;
  float   *slots;                /* (launch, stride) */
  float   *spare[LEVELS];
  uint8_t  used[LEVELS];
  node     stack[LEVELS + 1];
  int32_t  depth;
};

/* partial sums that outlive a launch: the most bits set in launch, 2 launch, ... below grains */
static int64_t most_alive(int64_t grains, int64_t launch) {
  int64_t most = 0;
  for (int64_t at = launch; at < grains; at += launch) {
    int64_t bits = __builtin_popcountll((unsigned long long)at);
    if (bits > most) most = bits;
  }
  return most;
}

static float *take(micah_tree *t, int64_t floats, const char *what) {
  void *memory;
  mica_status status = t->device->ops->alloc(t->device, (size_t)floats * sizeof(float), what, &memory);
  return status < 0 ? NULL : memory;
}

mica_status micah_tree_create(micah_device *device, void *stream, int64_t count, int64_t grains, int64_t launch,
                              micah_tree **out) {
  *out = NULL;
  if (count < 1 || grains < 1 || launch < 1 || launch > grains || count > INT64_MAX / 64 / launch)
    return mica_error(MICA_ERR_INVALID, "gradient sums of %lld numbers, %lld grains, %lld a launch", (long long)count,
                      (long long)grains, (long long)launch);
  micah_tree *t = micah_alloc(device->context, sizeof *t, "the sums of gradients");
  if (!t) return MICA_ERR_MEMORY;
  memset(t, 0, sizeof *t);
  t->device = device, t->stream = stream, t->count = count, t->launch = launch;
  t->stride = (count + BLOCK - 1) / BLOCK * BLOCK;
  t->slots = take(t, launch * t->stride, "gradients of a launch's grains");
  int failed = !t->slots;
  for (int64_t i = 0, n = most_alive(grains, launch); !failed && i < n; i++) {
    t->spare[i] = take(t, t->stride, "partial sums of gradients");
    failed = !t->spare[i];
    t->n_spares += !failed;
  }
  if (failed) {
    mica_status dead = micah_device_alive(device);
    micah_tree_destroy(t);
    return dead < 0 ? dead : MICA_ERR_MEMORY;
  }
  *out = t;
  return MICA_OK;
}

void micah_tree_destroy(micah_tree *t) {
  if (!t) return;
  micah_device *d = t->device;
  for (int64_t i = 0; i < t->n_spares; i++) d->ops->free(d, t->spare[i], (size_t)t->stride * sizeof(float));
  if (t->slots) d->ops->free(d, t->slots, (size_t)(t->launch * t->stride) * sizeof(float));
  micah_free(d->context, t, sizeof *t);
}

int64_t micah_tree_bytes(const micah_tree *t) {
  return (t->launch + t->n_spares) * t->stride * (int64_t)sizeof(float);
}
float  *micah_tree_slots(micah_tree *t) { return t->slots; }
int64_t micah_tree_stride(const micah_tree *t) { return t->stride; }

mica_status micah_tree_clear(micah_tree *t, int64_t slot) {
  return t->device->ops->fill(t->device, t->stream, t->slots + slot * t->stride, 0, (size_t)t->count * sizeof(float));
}

void micah_tree_reset(micah_tree *t) {
  t->depth = 0;
  memset(t->used, 0, sizeof t->used);
}

static mica_status merge(micah_tree *t) {
  node *left = &t->stack[t->depth - 2], *right = &t->stack[t->depth - 1];
  mica_status status = micah_device_add(t->device, t->stream, left->data, right->data, t->count);
  left->grains += right->grains;
  if (right->spare >= 0) t->used[right->spare] = 0;
  t->depth--;
  return status;
}

/* move a sum out of the launch's slots */
static mica_status keep(micah_tree *t, node *n) {
  int32_t s = 0;
  while (s < t->n_spares && t->used[s]) s++;
  if (s == t->n_spares) return mica_error(MICA_ERR_INTERNAL, "no spare partial sum: more grains pushed than announced");
  if (t->launch == 1) {
    /* the one slot and the spare change places: nothing to copy */
    t->slots = t->spare[s], t->spare[s] = n->data;
  } else {
    mica_status status = t->device->ops->copy(t->device, t->stream, t->spare[s], n->data,
                                              (size_t)t->count * sizeof(float));
    if (status < 0) return status;
    n->data = t->spare[s];
  }
  n->spare = s, t->used[s] = 1;
  return MICA_OK;
}

mica_status micah_tree_push(micah_tree *t, int64_t n, int last) {
  for (int64_t i = 0; i < n; i++) {
    if (t->depth == LEVELS) return mica_error(MICA_ERR_INTERNAL, "the counter of partial sums is full");
    t->stack[t->depth++] = (node){ t->slots + i * t->stride, 1, -1 };
    while (t->depth > 1 && t->stack[t->depth - 2].grains == t->stack[t->depth - 1].grains) {
      mica_status status = merge(t);
      if (status < 0) return status;
    }
  }
  for (int32_t i = 0; !last && i < t->depth; i++) {
    if (t->stack[i].spare >= 0) continue;
    mica_status status = keep(t, &t->stack[i]);
    if (status < 0) return status;
  }
  return MICA_OK;
}

mica_status micah_tree_finish(micah_tree *t, float **sum) {
  if (!t->depth) return mica_error(MICA_ERR_STATE, "no gradients were pushed");
  while (t->depth > 1) {
    mica_status status = merge(t);
    if (status < 0) return status;
  }
  *sum = t->stack[0].data;
  micah_tree_reset(t);
  return MICA_OK;
}
