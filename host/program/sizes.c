/* numbers of tasks and rows, and what follows from them: offsets seen from each level, slots of nested tasks */
#include <string.h>

#include "program/executor.h"
#include "program/memory.h"

int64_t micah_rows(const mica_executor *x, int32_t axis) {
  return axis == MICA_NO_AXIS ? x->tasks : micah_span_of(x, MICA_NO_AXIS, axis)->total;
}
int64_t micah_capacity(const mica_executor *x, int32_t axis) {
  return axis == MICA_NO_AXIS ? x->capacity_tasks : x->capacity_rows[axis];
}
const micah_span *micah_span_of(const mica_executor *x, int32_t level, int32_t axis) {
  return &x->spans[(int64_t)(level + 1) * x->program->n_axes + axis];
}

/* is this axis the task axis of some entry? */
static int is_level(const mica_program *program, int32_t axis) {
  for (int32_t e = 0; e < program->n_entries; e++)
    if (program->entries[e].level == axis) return 1;
  return 0;
}

mica_status micah_sizes_create(mica_executor *x, const mica_executor_options *options) {
  const mica_program *p = x->program;
  micah_region *region = &x->region;
  x->capacity_rows = micah_region_alloc(region, p->n_axes + 1, sizeof *x->capacity_rows);
  x->capacity_longest = micah_region_alloc(region, p->n_axes + 1, sizeof *x->capacity_longest);
  x->axes = micah_region_alloc(region, p->n_axes + 1, sizeof *x->axes);
  x->spans = micah_region_alloc(region, (int64_t)(p->n_axes + 1) * (p->n_axes + 1), sizeof *x->spans);
  if (!x->capacity_rows || !x->capacity_longest || !x->axes || !x->spans) return MICA_ERR_MEMORY;
  if (options->tasks < 1 || options->tasks > INT32_MAX - 1)
    return mica_error(MICA_ERR_INVALID, "executor of %s: capacity of %lld tasks, expected at least 1", p->name,
                      (long long)options->tasks);
  if (p->n_axes && (!options->rows || !options->longest))
    return mica_error(MICA_ERR_INVALID, "executor of %s: rows and longest of its %d axes are not given", p->name,
                      p->n_axes);
  x->tasks = x->capacity_tasks = options->tasks;
  for (int32_t a = 0; a < p->n_axes; a++) {
    x->capacity_rows[a] = options->rows[a];
    x->capacity_longest[a] = x->axes[a].length = options->longest[a];
    if (options->rows[a] < 0 || options->longest[a] < 0 || options->rows[a] > INT32_MAX - 1 ||
        options->longest[a] > INT32_MAX - 1)
      return mica_error(MICA_ERR_INVALID, "executor of %s: axis %s has capacity %lld rows, longest %lld", p->name,
                        p->axes[a].name, (long long)options->rows[a], (long long)options->longest[a]);
  }
  for (int32_t level = -1; level < p->n_axes; level++)
    for (int32_t a = 0; a < p->n_axes; a++) {
      if (a == level || !micah_below(p, a, level) || p->axes[a].parent == level) continue;
      micah_span *span = (micah_span *)(uintptr_t)micah_span_of(x, level, a);
      span->capacity = micah_capacity(x, level) + 1;
      span->buffer = micah_region_alloc(region, span->capacity, sizeof *span->buffer);
      if (!span->buffer) return MICA_ERR_MEMORY;
    }
  /* for each level: its rows in every axis above, and compositions with callers' slots of what enters from outside */
  int32_t each = p->n_axes + 1 + MICAH_WIRES * (p->n_inputs + 1), levels = 0;
  for (int32_t level = 0; level < p->n_axes; level++) levels += is_level(p, level);
  x->slots = micah_region_alloc(region, (int64_t)each * levels, sizeof *x->slots);
  if (!x->slots) return MICA_ERR_MEMORY;
  for (int32_t level = 0; level < p->n_axes; level++)
    for (int32_t i = 0; i < each && is_level(p, level); i++) {
      int32_t *slot = micah_region_alloc(region, micah_capacity(x, level), sizeof *slot);
      if (!slot) return MICA_ERR_MEMORY;
      x->slots[x->n_slots++] = (micah_slots){ .level = level, .slot = slot };
    }
  return MICA_OK;
}

/* length and total of given offsets, which are checked */
static mica_status measure(mica_executor *x, micah_span *span, int32_t axis, int64_t tasks) {
  const char *name = x->program->axes[axis].name;
  span->length = 0;
  span->total = span->offsets[tasks];
  if (span->offsets[0] != 0)
    return mica_error(MICA_ERR_SHAPE, "executor of %s: offsets of axis %s begin with %d, expected 0", x->program->name,
                      name, span->offsets[0]);
  for (int64_t b = 0; b < tasks; b++) {
    int64_t rows = (int64_t)span->offsets[b + 1] - span->offsets[b];
    if (rows < 0 || rows > x->capacity_longest[axis])
      return mica_error(MICA_ERR_SHAPE,
                        "executor of %s: offsets of axis %s give task %lld %lld rows, expected 0 to the "
                        "capacity %lld",
                        x->program->name, name, (long long)b, (long long)rows, (long long)x->capacity_longest[axis]);
    if (rows > span->length) span->length = rows;
  }
  return MICA_OK;
}

/* offsets of `axis` seen from `level`, from those of its parent */
static mica_status compose(mica_executor *x, int32_t level, int32_t axis) {
  const mica_program *p = x->program;
  micah_span *span = (micah_span *)(uintptr_t)micah_span_of(x, level, axis);
  const micah_axis_size *size = &x->axes[axis];
  int64_t tasks = micah_rows(x, level);
  if (p->axes[axis].parent == level) {
    span->offsets = size->offsets;
    span->length = size->length;
    span->total = tasks * size->length;
    return size->offsets ? measure(x, span, axis, tasks) : MICA_OK;
  }
  const micah_span *parent = micah_span_of(x, level, p->axes[axis].parent);
  span->offsets = NULL;
  span->length = parent->length * size->length;
  span->total = size->offsets ? size->offsets[parent->total] : parent->total * size->length;
  if (!parent->offsets && !size->offsets) return MICA_OK;
  span->length = 0;
  for (int64_t b = 0; b <= tasks; b++) {
    int64_t at = parent->offsets ? parent->offsets[b] : b * parent->length;
    int64_t row = size->offsets ? size->offsets[at] : at * size->length;
    if (row > INT32_MAX) return mica_error(MICA_ERR_SHAPE, "axis %s: more than 2^31 rows", p->axes[axis].name);
    span->buffer[b] = (int32_t)row;
    if (b && row - span->buffer[b - 1] > span->length) span->length = row - span->buffer[b - 1];
  }
  span->offsets = span->buffer;
  return MICA_OK;
}

/* most rows of an axis in one row of a level */
static int64_t most_rows(const mica_executor *x, int32_t level, int32_t axis) {
  int64_t most = 1;
  for (; axis != level && most <= INT32_MAX; axis = x->program->axes[axis].parent) most *= x->capacity_longest[axis];
  return most;
}

mica_status micah_sizes_update(mica_executor *x) {
  const mica_program *p = x->program;
  /* parents come before their children, and the whole task before the levels inside it */
  for (int32_t level = -1; level < p->n_axes; level++)
    for (int32_t a = 0; a < p->n_axes; a++) {
      if (a == level || !micah_below(p, a, level)) continue;
      mica_status status = compose(x, level, a);
      if (status < 0) return status;
      micah_span *span = (micah_span *)(uintptr_t)micah_span_of(x, level, a);
      span->bound = span->length;
      if (x->backend == MICA_CUDA && span->offsets)
        span->bound = micah_length_class(span->length, most_rows(x, level, a));
      int64_t total = micah_span_of(x, level, a)->total;
      if (!x->probing && total > x->capacity_rows[a])
        return mica_error(MICA_ERR_SHAPE, "executor of %s: axis %s has %lld rows, its capacity is %lld", p->name,
                          p->axes[a].name, (long long)total, (long long)x->capacity_rows[a]);
    }
  return MICA_OK;
}

mica_status micah_slots_of(mica_executor *x, int32_t level, int32_t axis, const int32_t *user, const int32_t **slot) {
  const mica_program *p = x->program;
  int64_t n = micah_rows(x, level);
  micah_slots *free_one = NULL;
  for (int32_t i = 0; i < x->n_slots; i++) {
    micah_slots *s = &x->slots[i];
    if (s->level != level) continue;
    if (s->used == x->bind_number && s->axis == axis && s->user == user) {
      *slot = s->slot;
      return MICA_OK;
    }
    if (s->used != x->bind_number && !free_one) free_one = s;
  }
  if (!free_one)
    return mica_error(MICA_ERR_UNSUPPORTED, "executor of %s: too many different slot vectors enter the map over %s",
                      p->name, p->axes[level].name);
  free_one->axis = axis;
  free_one->user = user;
  free_one->used = x->bind_number;
  *slot = free_one->slot;
  if (x->probing) return MICA_OK;
  for (int64_t i = 0; i < n; i++) free_one->slot[i] = (int32_t)i;
  for (int32_t a = level; a != axis; a = p->axes[a].parent) {
    /* row of a -> row of its parent: rows are in order, so one walk does */
    const micah_axis_size *size = &x->axes[a];
    int64_t parent = 0;
    for (int64_t i = 0; i < n; i++) {
      if (size->offsets)
        while (size->offsets[parent + 1] <= free_one->slot[i]) parent++;
      else parent = free_one->slot[i] / size->length;
      free_one->slot[i] = (int32_t)parent;
    }
  }
  if (user)
    for (int64_t i = 0; i < n; i++) free_one->slot[i] = user[free_one->slot[i]];
  return MICA_OK;
}

/* ---- public ---- */

mica_status mica_executor_set_tasks(mica_executor *x, int64_t tasks) {
  if (!x) return mica_error(MICA_ERR_INVALID, "mica_executor_set_tasks: no executor");
  if (tasks < 1 || tasks > x->capacity_tasks)
    return mica_error(MICA_ERR_INVALID, "executor of %s: %lld tasks, expected 1 to its capacity %lld", x->program->name,
                      (long long)tasks, (long long)x->capacity_tasks);
  x->tasks = tasks;
  x->dirty = 1;
  return MICA_OK;
}

mica_status mica_executor_set_axis(mica_executor *x, int32_t axis, const int32_t *offsets, int64_t length) {
  if (!x) return mica_error(MICA_ERR_INVALID, "mica_executor_set_axis: no executor");
  const mica_program *p = x->program;
  if (axis < 0 || axis >= p->n_axes)
    return mica_error(MICA_ERR_INVALID, "executor of %s: %d is no axis", p->name, axis);
  if (length < 0 || length > x->capacity_longest[axis])
    return mica_error(MICA_ERR_SHAPE, "executor of %s: axis %s has length %lld, expected 0 to its capacity %lld",
                      p->name, p->axes[axis].name, (long long)length, (long long)x->capacity_longest[axis]);
  x->axes[axis].offsets = offsets;
  x->axes[axis].length = length;
  x->dirty = 1;
  return MICA_OK;
}
