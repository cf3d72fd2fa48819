/* keys bound to values, then keys to look up (Schlag, Irie, Schmidhuber, "Linear transformers are secretly fast weight
 * programmers", 2021, section 6.1). a row writes (key, value) or asks (key, blank); a key that is written again (`rebind`)
 * is bound to its new value. the answer is the value that the key was bound to last. */
#include "host/task/families.h"

#include <math.h>
#include <string.h>

static const char name[] = "associative_retrieval";

typedef struct config {
  int64_t keys, values, pairs, queries;
  int32_t rebind;
} config;

#define KEY(field, type, value, lo, hi, doc) { #field, type, offsetof(config, field), value, lo, hi, NULL, doc }
static const mica_key keys[] = {
  KEY(keys, MICA_KEY_INT, "16", 1, 65536, "distinct keys"),
  KEY(values, MICA_KEY_INT, "16", 2, 65536, "distinct values"),
  KEY(pairs, MICA_KEY_INT, "16", 1, 65536, "rows that write a pair; without rebind at most `keys`"),
  KEY(queries, MICA_KEY_INT, "4", 1, 65536, "rows that ask for a key which has been written, each drawn anew"),
  KEY(rebind, MICA_KEY_BOOL, "no", 0, 0, "draw keys with replacement, so that later pairs overwrite earlier ones"),
};

/* streams of a task */
enum { DRAW_KEYS, DRAW_VALUES, DRAW_QUERIES };
enum { FIELD_KEY, FIELD_VALUE, FIELD_TARGET, FIELD_WEIGHT, FIELDS };

typedef struct family {
  const mica_context *context;
  config              config;
  micak_philox_key    key;
  mica_field          fields[FIELDS];
} family;

static void close_family(void *self) {
  if (self) micah_free(((family *)self)->context, self, sizeof(family));
}

static mica_status open_family(const mica_family_env *env, const void *settings, void **self) {
  const config *c = settings;
  mica_status status = micah_task_env_check(env, name);
  if (status < 0) return status;
  if (!c->rebind && c->pairs > c->keys)
    return mica_error(MICA_ERR_CONFIG, "family %s: pairs is %lld, expected at most keys (%lld) without rebind", name,
                      (long long)c->pairs, (long long)c->keys);
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  *f = (family){ env->context, *c, micah_task_key(env, name, env->split), {
    { "key", MICA_I32, MICA_FIELD_INPUT, "token", 0, { 0, 0, 0 }, c->keys },
    { "value", MICA_I32, MICA_FIELD_INPUT, "token", 0, { 0, 0, 0 }, c->values + 1 },
    { "target", MICA_I32, MICA_FIELD_TARGET, "token", 0, { 0, 0, 0 }, c->values },
    { "weight", MICA_F32, MICA_FIELD_WEIGHT, "token", 0, { 0, 0, 0 }, 0 } } };
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **fields, int32_t *count) {
  *fields = ((family *)self)->fields, *count = FIELDS;
  return MICA_OK;
}
static int64_t rows_of(const config *c) { return c->pairs + c->queries; }
static mica_status longest(void *self, int64_t *rows) {
  rows[0] = rows_of(&((family *)self)->config);
  return MICA_OK;
}
static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  (void)first;
  for (int64_t i = 0; i < count; i++) rows[i] = (int32_t)rows_of(&((family *)self)->config);
  return MICA_OK;
}

/* the row below n that wrote `key` last, or -1 */
static int64_t written(const int32_t *key, const int32_t *value, int64_t n, int32_t k, int32_t blank) {
  for (int64_t i = n - 1; i >= 0; i--)
    if (key[i] == k && value[i] != blank) return i;
  return -1;
}

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  const config *c = &f->config;
  size_t bytes = (size_t)c->keys * sizeof(int32_t);
  int32_t *deck = micah_alloc(f->context, bytes, name);
  if (!deck) return MICA_ERR_MEMORY;
  for (int64_t b = 0; b < batch->count; b++) {
    uint64_t task = (uint64_t)(batch->first + b);
    micak_stream draw_key = micak_stream_at(f->key, task, DRAW_KEYS);
    micak_stream draw_value = micak_stream_at(f->key, task, DRAW_VALUES);
    micak_stream draw_query = micak_stream_at(f->key, task, DRAW_QUERIES);
    int64_t at = batch->offsets[0][b];
    int32_t *key = (int32_t *)batch->data[FIELD_KEY] + at, *value = (int32_t *)batch->data[FIELD_VALUE] + at;
    int32_t *target = (int32_t *)batch->data[FIELD_TARGET] + at;
    float *weight = (float *)batch->data[FIELD_WEIGHT] + at;
    for (int64_t i = 0; i < c->keys; i++) deck[i] = (int32_t)i;
    for (int64_t i = 0; i < c->pairs; i++) {
      int64_t from = c->rebind ? 0 : i, j = from + micah_task_below(&draw_key, c->keys - from);
      key[i] = deck[j];
      if (!c->rebind) deck[j] = deck[i], deck[i] = key[i];
      value[i] = target[i] = micah_task_below(&draw_value, c->values);
      weight[i] = 0;
    }
    for (int64_t i = c->pairs; i < rows_of(c); i++) {
      key[i] = key[micah_task_below(&draw_query, c->pairs)];
      value[i] = (int32_t)c->values;
      target[i] = value[written(key, value, c->pairs, key[i], (int32_t)c->values)];
      weight[i] = 1;
    }
  }
  micah_free(f->context, deck, bytes);
  return MICA_OK;
}

enum { UNIFORM, LATEST, PREDICTORS };

/* LATEST reads the rows, not the target: certain of the last value that was written, uniform for a key never seen */
static mica_status exact(void *self, int32_t which, const mica_batch *batch, double *loss) {
  const family *f = self;
  int32_t blank = (int32_t)f->config.values;
  if (which < 0 || which >= PREDICTORS)
    return mica_error(MICA_ERR_INVALID, "family %s: no exact predictor %d", name, (int)which);
  for (int64_t b = 0; b < batch->count; b++) {
    int64_t at = batch->offsets[0][b], n = batch->offsets[0][b + 1] - at;
    const int32_t *key = (const int32_t *)batch->data[FIELD_KEY] + at;
    const int32_t *value = (const int32_t *)batch->data[FIELD_VALUE] + at;
    const int32_t *target = (const int32_t *)batch->data[FIELD_TARGET] + at;
    const float *weight = (const float *)batch->data[FIELD_WEIGHT] + at;
    for (int64_t i = 0; i < n; i++) {
      int64_t last = which == LATEST ? written(key, value, i, key[i], blank) : -1;
      double p = last < 0 ? 1 / (double)f->config.values : value[last] == target[i];
      loss[at + i] = weight[i] > 0 ? -log(p) : 0;
    }
  }
  return MICA_OK;
}

/* rows (key, value); an unknown value (nan) asks */
static mica_status encode(void *self, const double *values, int64_t rows, int64_t columns, int32_t *out_sizes,
                          const mica_batch *batch) {
  const family *f = self;
  const config *c = &f->config;
  if (columns != 2)
    return mica_error(MICA_ERR_SHAPE, "family %s: the data have %lld columns, expected 2 (key, value)", name,
                      (long long)columns);
  if (rows < 1 || rows > rows_of(c))
    return mica_error(MICA_ERR_SHAPE, "family %s: the data have %lld rows, expected 1 to %lld", name, (long long)rows,
                      (long long)rows_of(c));
  for (int64_t i = 0; i < 2 * rows; i++) {
    double v = values[i], n = (double)(i % 2 ? c->values : c->keys);
    if (i % 2 && isnan(v)) continue;
    if (!(v >= 0 && v < n && v == floor(v)))
      return mica_error(MICA_ERR_NUMERIC, "family %s: row %lld has the %s %g, expected a whole number from 0 to %g%s",
                        name, (long long)(i / 2 + 1), i % 2 ? "value" : "key", v, n - 1,
                        i % 2 ? ", or nan to ask for it" : "");
  }
  out_sizes[0] = (int32_t)rows;
  for (int64_t i = 0; batch && i < rows; i++) {
    int asks = isnan(values[2 * i + 1]);
    ((int32_t *)batch->data[FIELD_KEY])[i] = (int32_t)values[2 * i];
    ((int32_t *)batch->data[FIELD_VALUE])[i] = asks ? (int32_t)c->values : (int32_t)values[2 * i + 1];
    ((int32_t *)batch->data[FIELD_TARGET])[i] = asks ? 0 : (int32_t)values[2 * i + 1];
    ((float *)batch->data[FIELD_WEIGHT])[i] = (float)asks;
  }
  return MICA_OK;
}

const mica_family micah_family_associative_retrieval = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "keys bound to values, then keys to look up; keys may be bound anew",
  .axes = "token",
  .predictors = "uniform latest",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .open = open_family,
  .close = close_family,
  .fields = get_fields,
  .longest = longest,
  .sizes = sizes,
  .fill = fill,
  .exact = exact,
  .encode = encode,
};
