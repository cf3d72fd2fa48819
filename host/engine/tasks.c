#include "host/engine/tasks.h"

#include <stdio.h>
#include <string.h>

#include "common/names.h"
#include "host/device/context.h"

/* copy the n-th word of "a b c"; 0 past the end */
static int word_at(const char *list, int32_t n, char *text, size_t size) {
  const char *at = list ? list : "";
  for (int32_t i = 0;; i++) {
    at += strspn(at, " ");
    size_t length = strcspn(at, " ");
    if (!length) return 0;
    if (i == n) {
      if (length >= size) length = size - 1;
      memcpy(text, at, length), text[length] = 0;
      return 1;
    }
    at += length;
  }
}

static mica_status check_fields(micah_tasks *t) {
  const char *name = t->family->name;
  t->target = t->weight = -1;
  for (int32_t i = 0; i < t->n_fields; i++) {
    const mica_field *f = &t->fields[i];
    if (!f->name || f->rank < 0 || f->rank > 3 || (f->dtype != MICA_F32 && f->dtype != MICA_I32))
      return mica_error(MICA_ERR_INVALID, "family %s: field %d ('%s') needs a name, rank 0 to 3 and type f32 or i32",
                        name, (int)i, f->name ? f->name : "");
    t->field_axis[i] = -1, t->field_count[i] = 1;
    for (int32_t j = 0; j < f->rank; j++) {
      if (f->shape[j] < 1 || t->field_count[i] > INT32_MAX / f->shape[j])
        return mica_error(MICA_ERR_INVALID, "family %s: field '%s' has size %lld on axis %d of its row", name, f->name,
                          (long long)f->shape[j], (int)j);
      t->field_count[i] *= f->shape[j];
    }
    for (int32_t a = 0; f->axis && a < t->n_axes; a++)
      if (strcmp(f->axis, t->axis_name[a]) == 0) t->field_axis[i] = a;
    if (f->axis && t->field_axis[i] < 0)
      return mica_error(MICA_ERR_INVALID, "family %s: field '%s' runs over axis '%s', which is not in its axes '%s'",
                        name, f->name, f->axis, t->family->axes);
    int32_t *place = f->role == MICA_FIELD_TARGET ? &t->target : f->role == MICA_FIELD_WEIGHT ? &t->weight : NULL;
    if (!place) continue;
    if (*place >= 0)
      return mica_error(MICA_ERR_INVALID,
                        "family %s: fields '%s' and '%s' have the same role; one target and at most one "
                        "weight are expected",
                        name, t->fields[*place].name, f->name);
    *place = i;
  }
  if (t->target < 0) return mica_error(MICA_ERR_INVALID, "family %s: no field has role TARGET", name);
  const mica_field *target = &t->fields[t->target];
  if (target->dtype == MICA_I32 && (target->range < 1 || t->field_count[t->target] != 1))
    return mica_error(MICA_ERR_INVALID, "family %s: target '%s' of classes needs a range and scalar rows", name,
                      target->name);
  t->outputs = target->dtype == MICA_I32 ? target->range : t->field_count[t->target];
  if (t->weight >= 0 && (t->field_axis[t->weight] != t->field_axis[t->target] || t->field_count[t->weight] != 1 ||
                         t->fields[t->weight].dtype != MICA_F32))
    return mica_error(MICA_ERR_INVALID, "family %s: weight '%s' must be one f32 a row of target '%s'", name,
                      t->fields[t->weight].name, target->name);
  return MICA_OK;
}

mica_status micah_tasks_open(mica_context *context, const mica_family *family, const void *config, uint64_t seed,
                             int32_t split, int64_t tasks_per_step, int64_t steps, micah_tasks *out) {
  memset(out, 0, sizeof *out);
  out->context = context, out->family = family, out->count = -1;
  char word[64];
  while (word_at(family->axes, out->n_axes, word, sizeof word)) {
    if (out->n_axes == MICAH_MAX_AXES)
      return mica_error(MICA_ERR_INVALID, "family %s: more than %d axes ('%s')", family->name, (int)MICAH_MAX_AXES,
                        family->axes);
    memcpy(out->axis_name[out->n_axes++], word, sizeof word);
  }
  mica_family_env env = { sizeof env, context, seed, split, tasks_per_step, steps };
  mica_status status = family->open(&env, config, &out->self);
  if (status < 0) {
    out->self = NULL;
    return status;
  }
  status = family->fields(out->self, &out->fields, &out->n_fields);
  if (status >= 0 && (out->n_fields < 1 || out->n_fields > MICAH_MAX_FIELDS))
    status = mica_error(MICA_ERR_INVALID, "family %s: %d fields, expected 1 to %d", family->name, (int)out->n_fields,
                        (int)MICAH_MAX_FIELDS);
  if (status >= 0) status = family->longest(out->self, out->longest);
  for (int32_t a = 0; status >= 0 && a < out->n_axes; a++)
    if (out->longest[a] < 1 || out->longest[a] > INT32_MAX)
      status = mica_error(MICA_ERR_INVALID, "family %s: longest task has %lld rows on axis '%s'", family->name,
                          (long long)out->longest[a], out->axis_name[a]);
  if (status >= 0) status = check_fields(out);
  if (status >= 0 && family->count) out->count = family->count(out->self);
  if (status < 0) micah_tasks_close(out);
  return status;
}

void micah_tasks_close(micah_tasks *tasks) {
  if (tasks->self && tasks->family->close) tasks->family->close(tasks->self);
  if (tasks->places) micah_free(tasks->context, tasks->places, sizeof *tasks->places);
  tasks->self = NULL, tasks->places = NULL;
}

int32_t micah_tasks_support(const micah_tasks *t, const char *name) {
  char want[256];
  snprintf(want, sizeof want, "support_%s", strncmp(name, "query_", 6) ? name : name + 6);
  for (int32_t i = 0; i < t->n_fields; i++)
    if (t->fields[i].role == MICA_FIELD_SUPPORT && !strcmp(t->fields[i].name, want)) return i;
  return -1;
}

/* an axis A+ and the three fields that go with input `field` over A */
static mica_status lengthen(micah_tasks *t, int32_t field, int32_t role) {
  static const char *const parts[] = { "row", "ahead", "back" };
  micah_places *all = t->places;
  int32_t from = t->field_axis[field], axis = t->n_axes;
  if (axis == MICAH_MAX_AXES || t->n_fields + 3 > MICAH_MAX_FIELDS)
    return mica_error(MICA_ERR_UNSUPPORTED, "family %s: too many axes or fields for rows in front of its sequences",
                      t->family->name);
  snprintf(all->axis[axis], sizeof all->axis[axis], "%.62s+", t->fields[field].axis);
  memcpy(t->axis_name[axis], all->axis[axis], sizeof all->axis[axis]);
  t->longest[axis] = t->longest[from] + t->ahead, t->longer_than[axis] = from;
  t->n_axes++;
  for (int k = 0; k < 3; k++) {
    int32_t at = t->n_fields++;
    snprintf(all->name[at], sizeof all->name[at], "%s.%s", t->fields[field].name, parts[k]);
    all->field[at] = (mica_field){ all->name[at], MICA_I32, role, k < 2 ? all->axis[axis] : t->fields[field].axis, 0,
                                   { 0 }, 0 };
    t->field_axis[at] = k < 2 ? axis : from, t->field_count[at] = 1;
  }
  return MICA_OK;
}

mica_status micah_tasks_put_ahead(micah_tasks *t, int64_t rows) {
  if (rows < 1) return MICA_OK;
  if (!(t->places = micah_alloc(t->context, sizeof *t->places, "fields of a task"))) return MICA_ERR_MEMORY;
  memcpy(t->places->field, t->fields, (size_t)t->n_fields * sizeof *t->fields);
  t->fields = t->places->field, t->ahead = rows, t->family_fields = t->n_fields, t->family_axes = t->n_axes;
  for (int32_t i = 0; i < t->family_fields; i++) {
    const mica_field *f = &t->fields[i];
    if (f->role != MICA_FIELD_INPUT) continue;
    int32_t support = micah_tasks_support(t, f->name);
    if (t->field_axis[i] < 0 || (support >= 0 && t->field_axis[support] < 0))
      return mica_error(MICA_ERR_SHAPE, "family %s: field '%s' has one row a task, there is no sequence to put rows in "
                        "front of", t->family->name, f->name);
    mica_status status = lengthen(t, i, MICA_FIELD_PLACE);
    return status < 0 || support < 0 ? status : lengthen(t, support, MICA_FIELD_SUPPORT);
  }
  return mica_error(MICA_ERR_SHAPE, "family %s has no field with role INPUT", t->family->name);
}

void micah_tasks_lengthen(const micah_tasks *t, int64_t count, int32_t *rows) {
  for (int32_t a = t->family_axes; t->ahead && a < t->n_axes; a++)
    for (int64_t i = 0; i < count; i++)
      rows[a * count + i] = rows[t->longer_than[a] * count + i] + (int32_t)t->ahead;
}

int micah_tasks_predictor_name(const micah_tasks *tasks, int32_t which, char *text, size_t size) {
  return tasks->family->exact && which >= 0 && word_at(tasks->family->predictors, which, text, size);
}

static const char *nth_predictor(const void *list, int index) {
  static _Thread_local char text[64];
  return micah_tasks_predictor_name(list, index, text, sizeof text) ? text : NULL;
}

mica_status micah_tasks_predictor(const micah_tasks *tasks, const char *name, int32_t *which) {
  *which = -1;
  if (!tasks->family->exact || strcmp(name, "none") == 0) return MICA_OK;
  char text[64];
  for (int32_t i = 0; micah_tasks_predictor_name(tasks, i, text, sizeof text); i++) {
    if (strcmp(name, "best") == 0) *which = i;
    else if (strcmp(name, text) == 0) {
      *which = i;
      return MICA_OK;
    }
  }
  if (*which >= 0 || strcmp(name, "best") == 0) return MICA_OK;
  const char *near = micak_nearest(name, nth_predictor, tasks);
  return mica_error(MICA_ERR_NOT_FOUND, "family %s has no exact predictor '%s'%s%s%s; it has: %s, and best, none",
                    tasks->family->name, name, near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "",
                    tasks->family->predictors);
}

/* ---- feeds ---- */

static size_t field_bytes(const micah_tasks *t, int32_t i, int64_t capacity) {
  int64_t rows = t->field_axis[i] < 0 ? 1 : t->longest[t->field_axis[i]];
  return (size_t)(capacity * rows * t->field_count[i]) * sizeof(float);
}

mica_status micah_feed_create(const micah_tasks *t, int64_t capacity, micah_feed *out) {
  memset(out, 0, sizeof *out);
  out->tasks = t, out->capacity = capacity;
  for (int32_t a = 0; a < t->n_axes; a++)
    if (capacity > INT32_MAX / t->longest[a])
      return mica_error(MICA_ERR_CONFIG,
                        "family %s: %lld tasks of up to %lld rows of '%s' are more than 2^31 rows; lower batch",
                        t->family->name, (long long)capacity, (long long)t->longest[a], t->axis_name[a]);
  int failed = 0;
  for (int32_t a = 0; a < t->n_axes; a++)
    failed |=
        !(out->offsets[a] = micah_alloc(t->context, (size_t)(capacity + 1) * sizeof(int32_t), "offsets of a batch"));
  for (int32_t i = 0; i < t->n_fields; i++)
    failed |=
        t->device->ops->alloc_host(t->device, field_bytes(t, i, capacity), "fields of a batch", &out->data[i]) < 0;
  failed |= !(out->number = micah_alloc(t->context, (size_t)capacity * sizeof(int64_t), "task numbers of a batch"));
  failed |= !(out->rows = micah_alloc(t->context, (size_t)capacity * (size_t)(t->n_axes + 1) * sizeof(int32_t),
                                      "task sizes of a batch"));
  if (failed) {
    micah_feed_destroy(out);
    return MICA_ERR_MEMORY;
  }
  return MICA_OK;
}

void micah_feed_destroy(micah_feed *feed) {
  const micah_tasks *t = feed->tasks;
  if (!t) return;
  for (int32_t a = 0; a < t->n_axes; a++)
    micah_free(t->context, feed->offsets[a], (size_t)(feed->capacity + 1) * sizeof(int32_t));
  for (int32_t i = 0; i < t->n_fields; i++)
    if (feed->data[i]) t->device->ops->free_host(t->device, feed->data[i], field_bytes(t, i, feed->capacity));
  micah_free(t->context, feed->number, (size_t)feed->capacity * sizeof(int64_t));
  micah_free(t->context, feed->rows, (size_t)feed->capacity * (size_t)(t->n_axes + 1) * sizeof(int32_t));
  memset(feed, 0, sizeof *feed);
}

/* offsets from feed->rows, and which axes are uniform */
static mica_status lay_out(micah_feed *feed) {
  const micah_tasks *t = feed->tasks;
  for (int32_t a = 0; a < t->n_axes; a++) {
    const int32_t *rows = feed->rows + a * feed->count;
    int32_t at = 0;
    feed->uniform[a] = 1;
    for (int64_t i = 0; i < feed->count; i++) {
      if (rows[i] < 0 || rows[i] > t->longest[a])
        return mica_error(MICA_ERR_INTERNAL, "family %s: task %lld has %d rows of '%s', expected 0 to %lld",
                          t->family->name, (long long)feed->number[i], (int)rows[i], t->axis_name[a],
                          (long long)t->longest[a]);
      feed->offsets[a][i] = at, at += rows[i];
      if (rows[i] != rows[0]) feed->uniform[a] = 0;
    }
    feed->offsets[a][feed->count] = at;
  }
  return MICA_OK;
}

/* rows of a field before task i */
static int64_t row_of(const micah_feed *feed, int32_t field, int64_t i) {
  int32_t axis = feed->tasks->field_axis[field];
  return axis < 0 ? i : feed->offsets[axis][i];
}

/* the divisor of the step's loss, in row order */
static void total_weight(micah_feed *feed) {
  const micah_tasks *t = feed->tasks;
  int64_t rows = row_of(feed, t->target, feed->count);
  if (t->weight < 0) {
    feed->weight = (double)rows;
    return;
  }
  const float *w = feed->data[t->weight];
  double sum = 0;
  for (int64_t r = 0; r < rows; r++) sum += (double)w[r];
  feed->weight = sum;
}

void micah_feed_places(micah_feed *feed) {
  const micah_tasks *t = feed->tasks;
  int32_t ahead = (int32_t)t->ahead;
  for (int32_t f = t->family_fields; ahead && f < t->n_fields; f += 3) {
    int32_t *row = feed->data[f], *own = feed->data[f + 1], *back = feed->data[f + 2];
    for (int64_t i = 0; i < feed->count; i++) {
      int32_t rows = (int32_t)(row_of(feed, f, i + 1) - row_of(feed, f, i));
      for (int32_t r = 0; r < rows; r++)
        *row++ = r < ahead ? -1 : r - ahead, *own++ = r < ahead ? r : -1;
      for (int32_t r = ahead; r < rows; r++) *back++ = r;
    }
  }
}

mica_status micah_feed_fill(micah_feed *feed, int64_t first, int64_t count) {
  const micah_tasks *t = feed->tasks;
  if (count > feed->capacity)
    return mica_error(MICA_ERR_INTERNAL, "batch of %lld tasks in memory for %lld", (long long)count,
                      (long long)feed->capacity);
  feed->first = first, feed->count = count;
  for (int64_t i = 0; i < count; i++) feed->number[i] = first + i;
  mica_status status = t->family->sizes(t->self, first, count, feed->rows);
  if (status < 0) return status;
  micah_tasks_lengthen(t, count, feed->rows);
  if ((status = lay_out(feed)) < 0) return status;
  const int32_t *offsets[MICAH_MAX_AXES];
  for (int32_t a = 0; a < t->n_axes; a++) offsets[a] = feed->offsets[a];
  mica_batch batch = { sizeof batch, first, count, offsets, feed->data };
  status = t->family->fill(t->self, &batch);
  micah_feed_places(feed);
  if (status >= 0) total_weight(feed);
  return status;
}

mica_status micah_feed_select(micah_feed *feed, const micah_feed *from, const uint8_t *keep) {
  const micah_tasks *t = feed->tasks;
  feed->first = from->first, feed->count = 0;
  for (int64_t i = 0; i < from->count; i++)
    if (keep[i]) feed->number[feed->count++] = from->number[i];
  for (int32_t a = 0; a < t->n_axes; a++) {
    int64_t n = 0;
    for (int64_t i = 0; i < from->count; i++)
      if (keep[i]) feed->rows[a * feed->count + n++] = from->offsets[a][i + 1] - from->offsets[a][i];
  }
  mica_status status = lay_out(feed);
  if (status < 0) return status;
  for (int32_t a = 0; a < t->n_axes; a++) feed->uniform[a] &= from->uniform[a];
  for (int32_t f = 0; f < t->n_fields; f++) {
    size_t row = (size_t)t->field_count[f] * sizeof(float);
    int64_t n = 0;
    for (int64_t i = 0; i < from->count; i++) {
      if (!keep[i]) continue;
      int64_t start = row_of(from, f, i), rows = row_of(from, f, i + 1) - start;
      memcpy((char *)feed->data[f] + (size_t)row_of(feed, f, n++) * row,
             (const char *)from->data[f] + (size_t)start * row, (size_t)rows * row);
    }
  }
  total_weight(feed);
  return MICA_OK;
}

/* ---- views ---- */

mica_status micah_view_create(const micah_tasks *t, int64_t capacity, micah_view *out) {
  memset(out, 0, sizeof *out);
  out->capacity = capacity;
  for (int32_t a = 0; a < t->n_axes; a++)
    if (!(out->offsets[a] = micah_alloc(t->context, (size_t)(capacity + 1) * sizeof(int32_t), "offsets of a launch"))) {
      micah_view_destroy(t, out);
      return MICA_ERR_MEMORY;
    }
  return MICA_OK;
}

void micah_view_destroy(const micah_tasks *t, micah_view *view) {
  for (int32_t a = 0; t && a < t->n_axes; a++)
    micah_free(t->context, view->offsets[a], (size_t)(view->capacity + 1) * sizeof(int32_t));
  memset(view, 0, sizeof *view);
}

void micah_view_set(micah_view *view, const micah_feed *feed, int64_t first, int64_t count) {
  const micah_tasks *t = feed->tasks;
  view->feed = feed, view->first = first, view->count = count;
  for (int32_t a = 0; a < t->n_axes; a++)
    for (int64_t i = 0; i <= count; i++) view->offsets[a][i] = feed->offsets[a][first + i] - feed->offsets[a][first];
  for (int32_t f = 0; f < t->n_fields; f++)
    view->data[f] = (char *)feed->data[f] + (size_t)(row_of(feed, f, first) * t->field_count[f]) * sizeof(float);
}

int64_t micah_view_rows(const micah_view *view, int32_t axis) {
  return axis < 0 ? view->count : view->offsets[axis][view->count];
}

void micah_view_target(const micah_view *view, int64_t i, int64_t *first, int64_t *count) {
  const micah_tasks *t = view->feed->tasks;
  int32_t axis = t->field_axis[t->target];
  *first = axis < 0 ? i : view->offsets[axis][i];
  *count = axis < 0 ? 1 : view->offsets[axis][i + 1] - view->offsets[axis][i];
}

double micah_view_weight(const micah_view *view, int64_t row) {
  int32_t weight = view->feed->tasks->weight;
  return weight < 0 ? 1 : (double)((const float *)view->data[weight])[row];
}

mica_status micah_view_exact(const micah_view *view, int32_t which, double *loss) {
  const micah_tasks *t = view->feed->tasks;
  const int32_t *offsets[MICAH_MAX_AXES];
  void *data[MICAH_MAX_FIELDS];
  for (int32_t a = 0; a < t->n_axes; a++) offsets[a] = view->offsets[a];
  for (int32_t f = 0; f < t->n_fields; f++) data[f] = view->data[f];
  /* after a quarantine, task numbers of a feed may have gaps; exact predictors that need them are asked before */
  mica_batch batch = { sizeof batch, view->feed->number[view->first], view->count, offsets, data };
  return t->family->exact(t->self, which, &batch, loss);
}
