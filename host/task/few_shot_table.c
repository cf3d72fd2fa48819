/* real multi-task regression: a table whose rows belong to groups (subjects, schools, trees). a group is a task: some
 * of its rows to adapt to, the others to be judged by. columns: the group's number, features, target. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/io/csv.h"
#include "host/task/families.h"
#include "host/task/least_squares.h"

static const char name[] = "few_shot_table";

enum { MOST_ROWS = 4096 };

typedef struct config {
  const char *path;
  int64_t     shots, holdout, queries;
  double      ridge;
} config;

#define KEY(field, type, value, lo, hi, doc) { #field, type, offsetof(config, field), value, lo, hi, NULL, doc }
static const mica_key keys[] = {
  KEY(path, MICA_KEY_PATH, NULL, 0, 0, "a tsv or csv file: number of the group, features, target"),
  KEY(shots, MICA_KEY_INT, "5", 1, MOST_ROWS, "rows of a group to adapt to; at least one is left to be judged by"),
  KEY(queries, MICA_KEY_INT, "64", 1, MOST_ROWS, "most rows of a group to be judged by"),
  KEY(holdout, MICA_KEY_INT, "4", 2, 1e6, "every holdout-th group is for testing"),
  KEY(ridge, MICA_KEY_REAL, "1", 0, 1e9, "of predictor group: added to the diagonal, rows being standardised"),
};

enum { DRAW_GROUP, DRAW_ROWS };

typedef struct family {
  const mica_context *context;
  config              config;    /* its path is not read after open */
  micak_philox_key    key;
  int32_t             split;
  micah_table         table;     /* standardised by the training groups */
  int64_t             features, longest_support, longest_query;
  int64_t            *first;     /* (groups + 1) rows */
  int64_t            *chosen;    /* (count) groups of this split */
  int64_t             groups, count;
  double             *pooled;    /* (features + 1) weights of all training rows, the constant last */
  mica_field          fields[4];
} family;

static void close_family(void *self) {
  family *f = self;
  if (!f) return;
  micah_table_free(&f->table);
  micah_free(f->context, f->first, (size_t)(f->groups + 1) * sizeof *f->first);
  micah_free(f->context, f->chosen, (size_t)(f->groups + 1) * sizeof *f->chosen);
  micah_free(f->context, f->pooled, (size_t)(f->features + 1) * sizeof *f->pooled);
  micah_free(f->context, f, sizeof *f);
}

static const double *row_of(const family *f, int64_t row) { return f->table.values + row * f->table.columns; }
static int is_test(const family *f, int64_t group) { return group % f->config.holdout == f->config.holdout - 1; }

/* where each group begins: equal numbers stand together */
static mica_status find_groups(family *f, const char *path) {
  const micah_table *t = &f->table;
  for (int64_t r = 0; r < t->rows; r++) f->groups += r == 0 || row_of(f, r)[0] != row_of(f, r - 1)[0];
  f->first = micah_alloc(f->context, (size_t)(f->groups + 1) * sizeof *f->first, name);
  f->chosen = micah_alloc(f->context, (size_t)(f->groups + 1) * sizeof *f->chosen, name);
  if (!f->first || !f->chosen) return MICA_ERR_MEMORY;
  int64_t g = 0;
  for (int64_t r = 0; r < t->rows; r++)
    if (r == 0 || row_of(f, r)[0] != row_of(f, r - 1)[0]) f->first[g++] = r;
  f->first[g] = t->rows;
  for (g = 0; g < f->groups; g++) {
    int64_t rows = f->first[g + 1] - f->first[g];
    if (rows < 2 || rows > MOST_ROWS)
      return mica_error(MICA_ERR_FORMAT, "%s: group %g (row %lld) has %lld rows, expected 2 to %d", path,
                        row_of(f, f->first[g])[0], (long long)f->first[g] + 1, (long long)rows, (int)MOST_ROWS);
    if (is_test(f, g) == (f->split == MICA_SPLIT_TEST)) f->chosen[f->count++] = g;
  }
  if (f->count) return MICA_OK;
  return mica_error(MICA_ERR_CONFIG, "%s: %lld groups and holdout %lld leave no group for this split", path,
                    (long long)f->groups, (long long)f->config.holdout);
}

/* columns to mean 0 and deviation 1 over the training groups' rows; a constant column is left at 0 */
static void standardise(family *f) {
  for (int64_t c = 1; c < f->table.columns; c++) {
    double sum = 0, square = 0, n = 0;
    for (int pass = 0; pass < 2; pass++)
      for (int64_t g = 0; g < f->groups; g++)
        for (int64_t r = f->first[g]; !is_test(f, g) && r < f->first[g + 1]; r++) {
          double x = row_of(f, r)[c];
          if (pass) square += (x - sum / n) * (x - sum / n);
          else sum += x, n += 1;
        }
    double mean = sum / n, deviation = sqrt(square / n);
    for (int64_t r = 0; r < f->table.rows; r++) {
      double *x = &f->table.values[r * f->table.columns + c];
      *x = deviation > 0 ? (*x - mean) / deviation : 0;
    }
  }
}

/* least squares with a constant; x (rows, features) and y as they are asked for */
typedef struct fit { micah_least_squares ls; double *memory, *x; size_t bytes; } fit;

static mica_status fit_start(const family *f, double ridge, fit *out) {
  int64_t dim = f->features + 1, doubles = micah_least_squares_doubles(dim) + dim;
  out->bytes = (size_t)doubles * sizeof(double);
  if (!(out->memory = micah_alloc(f->context, out->bytes, "least squares"))) return MICA_ERR_MEMORY;
  out->x = out->memory + micah_least_squares_doubles(dim);
  out->x[f->features] = 1;
  micah_least_squares_init(&out->ls, dim, ridge, out->memory);
  return MICA_OK;
}

static mica_status fit_pooled(family *f) {
  fit all;
  mica_status status = fit_start(f, 1e-6, &all);
  f->pooled = micah_alloc(f->context, (size_t)(f->features + 1) * sizeof *f->pooled, name);
  if (status < 0 || !f->pooled) return MICA_ERR_MEMORY;
  for (int64_t g = 0; g < f->groups; g++)
    for (int64_t r = f->first[g]; !is_test(f, g) && r < f->first[g + 1]; r++) {
      memcpy(all.x, row_of(f, r) + 1, (size_t)f->features * sizeof(double));
      micah_least_squares_add(&all.ls, all.x, row_of(f, r)[f->table.columns - 1]);
    }
  for (int64_t i = 0; i <= f->features; i++) all.x[i] = 0;
  micah_least_squares_predict(&all.ls, all.x);  /* brings the weights up to date */
  memcpy(f->pooled, all.ls.weights, (size_t)(f->features + 1) * sizeof(double));
  micah_free(f->context, all.memory, all.bytes);
  return MICA_OK;
}

static mica_status open_family(const mica_family_env *env, const void *settings, void **self) {
  const config *c = settings;
  mica_status status = micah_task_env_check(env, name);
  if (status < 0) return status;
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  memset(f, 0, sizeof *f);
  f->context = env->context, f->config = *c, f->split = env->split, f->key = micah_task_key(env, name, env->split);
  status = micah_csv_read(c->path, NULL, &f->table);
  f->features = status >= 0 ? f->table.columns - 2 : 0;
  if (status >= 0 && (f->features < 1 || f->table.rows < 1))
    status = mica_error(MICA_ERR_FORMAT, "%s: %lld columns and %lld rows; expected a group, features and a target",
                        c->path, (long long)f->table.columns, (long long)f->table.rows);
  if (status >= 0) status = find_groups(f, c->path);
  if (status >= 0) {
    standardise(f);
    status = fit_pooled(f);
  }
  if (status < 0) {
    close_family(f);
    return status;
  }
  static const char *const names[] = { "support_x", "support_y", "query_x", "query_y" };
  static const int32_t roles[] = { MICA_FIELD_SUPPORT, MICA_FIELD_SUPPORT, MICA_FIELD_INPUT, MICA_FIELD_TARGET };
  for (int i = 0; i < 4; i++)
    f->fields[i] = (mica_field){ names[i], MICA_F32, roles[i], i < 2 ? "support" : "query", 1,
                                 { i % 2 ? 1 : f->features }, 0 };
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **out, int32_t *count) {
  *out = ((const family *)self)->fields, *count = 4;
  return MICA_OK;
}

/* rows of a group to adapt to, and to be judged by */
static void cut(const family *f, int64_t group, int64_t *support, int64_t *query) {
  int64_t rows = f->first[group + 1] - f->first[group];
  *support = f->config.shots < rows ? f->config.shots : rows - 1;
  *query = rows - *support < f->config.queries ? rows - *support : f->config.queries;
}

static int64_t group_of(const family *f, int64_t task) {
  if (f->split == MICA_SPLIT_TEST) return f->chosen[task % f->count];
  micak_stream draw = micak_stream_at(f->key, (uint64_t)task, DRAW_GROUP);
  int64_t i = (int64_t)(micak_stream_uniform(&draw) * (double)f->count);
  return f->chosen[i < f->count ? i : f->count - 1];
}

static mica_status longest(void *self, int64_t *rows) {
  const family *f = self;
  rows[0] = rows[1] = 1;
  for (int64_t i = 0; i < f->count; i++) {
    int64_t support, query;
    cut(f, f->chosen[i], &support, &query);
    if (support > rows[0]) rows[0] = support;
    if (query > rows[1]) rows[1] = query;
  }
  return MICA_OK;
}

static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  for (int64_t i = 0; i < count; i++) {
    int64_t support, query;
    cut(self, group_of(self, first + i), &support, &query);
    rows[i] = (int32_t)support, rows[count + i] = (int32_t)query;
  }
  return MICA_OK;
}

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  for (int64_t b = 0; b < batch->count; b++) {
    int64_t group = group_of(f, batch->first + b), rows = f->first[group + 1] - f->first[group], order[MOST_ROWS];
    int64_t support, query;
    cut(f, group, &support, &query);
    micak_stream draw = micak_stream_at(f->key, (uint64_t)(batch->first + b), DRAW_ROWS);
    for (int64_t i = 0; i < rows; i++) order[i] = i;
    for (int64_t i = 0; i < support + query; i++) {
      int64_t other = i + (int64_t)(micak_stream_uniform(&draw) * (double)(rows - i)), kept = order[i];
      order[i] = order[other], order[other] = kept;
      int part = i >= support;
      int64_t at = batch->offsets[part][b] + (part ? i - support : i);
      const double *row = row_of(f, f->first[group] + order[i]);
      for (int64_t c = 0; c < f->features; c++)
        ((float *)batch->data[2 * part])[at * f->features + c] = (float)row[1 + c];
      ((float *)batch->data[2 * part + 1])[at] = (float)row[1 + f->features];
    }
  }
  return MICA_OK;
}

/* pooled: one fit to all training rows. group: ridge regression on the support alone */
static mica_status exact(void *self, int32_t which, const mica_batch *batch, double *loss) {
  const family *f = self;
  const float *x[] = { batch->data[0], batch->data[2] }, *y[] = { batch->data[1], batch->data[3] };
  for (int64_t b = 0; b < batch->count; b++) {
    fit own;
    mica_status status = fit_start(f, f->config.ridge, &own);
    if (status < 0) return status;
    for (int part = which == 0; part < 2; part++)
      for (int32_t r = batch->offsets[part][b]; r < batch->offsets[part][b + 1]; r++) {
        double predicted = 0;
        for (int64_t c = 0; c < f->features; c++) own.x[c] = (double)x[part][r * f->features + c];
        if (part == 0) {
          micah_least_squares_add(&own.ls, own.x, (double)y[part][r]);
          continue;
        }
        if (which) predicted = micah_least_squares_predict(&own.ls, own.x);
        else for (int64_t c = 0; c <= f->features; c++) predicted += f->pooled[c] * own.x[c];
        loss[r] = (predicted - (double)y[1][r]) * (predicted - (double)y[1][r]);
      }
    micah_free(f->context, own.memory, own.bytes);
  }
  return MICA_OK;
}

const mica_family micah_family_few_shot_table = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "real regressions of many groups: some rows of a group to adapt to, the others to be judged by",
  .axes = "support query",
  .predictors = "pooled group",
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
};
