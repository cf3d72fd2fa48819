/* replay: the launches of a run are captured when the same arguments come a second time, and replayed from then on.
 *
 * what a launch is given is in the argument structs; slots, offsets and so the numbers of rows are device data. lengths
 * of packed axes are rounded up to a short geometric list, so ragged batches of about one size share a graph. entries
 * that run programs of their own bind them again between launches: programs with such entries are launched plainly. */
#include <string.h>

#include "program/inner.h"
#include "program/memory.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { GRAPHS = 8 };

typedef struct kept {
  XXH128_hash_t key;
  void         *graph;                     /* NULL: seen once */
  int64_t       used;                      /* time of last use; 0: free */
} kept;

struct micah_graphs {
  kept    list[GRAPHS];
  int64_t time;
  int     off;                             /* a capture failed: plain launches from then on */
  XXH3_state_t state;
};

int64_t micah_length_class(int64_t length, int64_t capacity) {
  int64_t size = 1;
  while (size < length) {
    int64_t half = size + size / 2;        /* 1 2 3 4 6 8 12 16 24 ... */
    size = size > 1 && half >= length ? half : 2 * size;
  }
  return size < capacity ? size : capacity < length ? length : capacity;
}

static int has_inner(const mica_program *p) {
  for (int32_t e = 0; e < p->n_entries; e++)
    if (p->live[e] && p->entries[e].inner) return 1;
  return 0;
}

mica_status micah_graphs_create(mica_executor *x) {
  if (x->backend != MICA_CUDA || has_inner(x->program)) return MICA_OK;
  x->graphs = micah_region_alloc(&x->region, 1, sizeof *x->graphs);
  return x->graphs ? MICA_OK : MICA_ERR_MEMORY;
}

void micah_graphs_destroy(mica_executor *x) {
  for (int i = 0; x->graphs && i < GRAPHS; i++)
    if (x->graphs->list[i].graph) x->device->ops->graph_destroy(x->device, x->graphs->list[i].graph);
}

static XXH128_hash_t key_of(const mica_executor *x, int32_t faces) {
  const mica_program *p = x->program;
  XXH3_state_t *h = &x->graphs->state;
  XXH3_128bits_reset(h);
  XXH3_128bits_update(h, &faces, sizeof faces);
  XXH3_128bits_update(h, &x->stream, sizeof x->stream);
  XXH3_128bits_update(h, &x->tasks, sizeof x->tasks);
  for (int32_t e = 0; e < p->n_entries; e++)
    if (p->live[e]) XXH3_128bits_update(h, x->args[e], p->entries[e].op->args_size);
  /* clears and seeds go by rows, and not through argument structs */
  const size_t wires = MICAH_WIRES * sizeof *x->bound;
  for (int32_t i = 0; i < x->n_clears; i++) {
    int32_t root = x->clears[i] / MICAH_WIRES;
    int32_t axis = p->values[root].axis;
    for (int32_t k = 0; k < p->n_outputs; k++) {
      int32_t value = p->outputs[k].value;
      if (p->values[value].root == root) XXH3_128bits_update(h, micah_bound(x, value, MICA_V), wires);
    }
    XXH3_128bits_update(h, micah_bound(x, root, MICA_V), wires);
    const micah_span *span = axis == MICA_NO_AXIS ? NULL : micah_span_of(x, MICA_NO_AXIS, axis);
    if (span) XXH3_128bits_update(h, &span->length, sizeof span->length);
    if (span && span->offsets)
      XXH3_128bits_update(h, span->offsets, (size_t)(x->tasks + 1) * sizeof *span->offsets);
  }
  return XXH3_128bits_digest(h);
}

static kept *find(micah_graphs *g, XXH128_hash_t key) {
  kept *oldest = &g->list[0];
  for (int i = 0; i < GRAPHS; i++) {
    if (g->list[i].used && XXH128_isEqual(g->list[i].key, key)) return &g->list[i];
    if (g->list[i].used < oldest->used) oldest = &g->list[i];
  }
  return oldest;
}

mica_status micah_graph_run(mica_executor *x, int32_t faces, mica_status (*run)(mica_executor *x, int32_t faces),
                            int *done) {
  micah_graphs *g = x->graphs;
  const micah_device_ops *ops = x->device->ops;
  *done = 0;
  if (!g || g->off || x->profile || !x->stream) return MICA_OK;
  XXH128_hash_t key = key_of(x, faces);
  kept *k = find(g, key);
  int seen = k->used && XXH128_isEqual(k->key, key);
  k->used = ++g->time;
  if (!seen) {
    if (k->graph) ops->graph_destroy(x->device, k->graph);
    k->graph = NULL, k->key = key;
    return MICA_OK;                        /* kernels are loaded by a plain run first */
  }
  if (!k->graph) {
    mica_status status = ops->capture_begin(x->device, x->stream);
    if (status < 0) return status;
    mica_status ran = run(x, faces), ended;
    char cause[512];
    strncpy(cause, ran < 0 ? mica_last_error() : "", sizeof cause - 1);
    cause[sizeof cause - 1] = 0;
    ended = ops->capture_end(x->device, x->stream, &k->graph);
    if (ran < 0) {
      if (k->graph) ops->graph_destroy(x->device, k->graph);
      *k = (kept){ .graph = NULL };
      return mica_error(ran, "%s", cause);
    }
    if (ended < 0) {
      g->off = 1;                          /* nothing has run yet, and a plain run will do */
      mica_status dead = micah_device_alive(x->device);
      if (dead < 0) return dead;
      mica_log(x->context, MICA_LOG_WARN, "program %s: its passes are launched one by one: %s", x->program->name,
               mica_last_error());
      return MICA_OK;
    }
  }
  *done = 1;
  return ops->graph_launch(x->device, k->graph, x->stream);
}
