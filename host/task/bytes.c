/* real byte sequences: a document is a task; training draws windows of it, testing reads it from its first byte. */
#include "host/task/documents.h"
#include "host/task/symbols.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char name[] = "bytes";

enum { BY_DOCUMENTS, BY_BYTES };

typedef struct config {
  const char *path, *data, *field, *split_field, *name_fields;
  int64_t     mode, length, holdout, test_windows, sampling;
} config;

#define KEY(field, type, value, lo, hi, choices, doc) \
  { #field, type, offsetof(config, field), value, lo, hi, choices, doc }
static const mica_key keys[] = {
  KEY(path, MICA_KEY_PATH, NULL, 0, 0, NULL, "a folder, a file, a jsonl, tsv or csv file, or the json index of a file"),
  KEY(mode, MICA_KEY_CHOICE, "auto", 0, 0, MICAH_DOCUMENTS_MODES,
      "what a task is: by the path's ending; a whole file; a record (line); an entry of an index"),
  KEY(data, MICA_KEY_STRING, "", 0, 0, NULL,
      "data file of an index, beside it; empty: the index's name ending in .txt"),
  KEY(field, MICA_KEY_STRING, "text", 0, 0, NULL,
      "records: the member or column that holds the text; a number is a column of a file without a header"),
  KEY(split_field, MICA_KEY_STRING, "split", 0, 0, NULL,
      "the member or column that says train or test, where there is one"),
  KEY(name_fields, MICA_KEY_STRING, "code name id title", 0, 0, NULL, "members or columns that may name a document"),
  KEY(length, MICA_KEY_INT, "256", 1, 1 << 20, NULL, "context: most bytes of a sequence"),
  KEY(holdout, MICA_KEY_INT, "5", 2, 1e6, NULL,
      "where the data name no split, every holdout-th document is for testing (of one document, its last 1/holdout)"),
  KEY(test_windows, MICA_KEY_INT, "1", 0, 1e9, NULL, "consecutive windows of each test document; 0: all"),
  KEY(sampling, MICA_KEY_CHOICE, "documents", 0, 0, "documents|bytes",
      "training draws documents alike, or in proportion to their bytes"),
};

enum { DRAW_DOCUMENT, DRAW_OFFSET };

typedef struct window {
  int64_t start, size;           /* bytes in the text */
  int64_t document;              /* index in the list */
} window;

typedef struct family {
  micah_symbols       rows;
  const mica_context *context;
  config              config;    /* its strings are the caller's and not read after open */
  micak_philox_key    key;
  int32_t             split;
  micah_documents     documents;
  int64_t            *chosen;    /* (count) documents of this split */
  int64_t            *before;    /* (count + 1) test: windows, training: bytes of the documents before */
  int64_t             count;
} family;

static void close_family(void *self) {
  family *f = self;
  if (!f) return;
  micah_free(f->context, f->chosen, (size_t)f->documents.count * sizeof *f->chosen);
  micah_free(f->context, f->before, (size_t)(f->documents.count + 1) * sizeof *f->before);
  micah_documents_close(&f->documents);
  micah_free(f->context, f, sizeof *f);
}

static mica_status choose(family *f, const char *path) {
  static const char *const names[] = { "train", "test" };
  const config *c = &f->config;
  int64_t total = f->documents.count;
  f->chosen = micah_alloc(f->context, (size_t)total * sizeof *f->chosen, name);
  f->before = micah_alloc(f->context, (size_t)(total + 1) * sizeof *f->before, name);
  if (!f->chosen || !f->before) return MICA_ERR_MEMORY;
  f->before[0] = 0;
  for (int64_t i = 0; i < total; i++) {
    const micah_document *d = &f->documents.list[i];
    if (d->split != f->split) continue;
    int64_t windows = d->size / c->length;
    if (windows < 1) windows = 1;
    if (c->test_windows && windows > c->test_windows) windows = c->test_windows;
    f->chosen[f->count] = i;
    f->before[f->count + 1] = f->before[f->count] + (f->split == MICA_SPLIT_TEST ? windows : d->size);
    f->count++;
  }
  if (f->count) return MICA_OK;
  return mica_error(MICA_ERR_CONFIG, "family %s: path: %s has no document for split %s among its %lld", name, path,
                    names[f->split], (long long)total);
}

static mica_status open_family(const mica_family_env *env, const void *settings, void **self) {
  const config *c = settings;
  mica_status status = micah_task_env_check(env, name);
  if (status < 0) return status;
  if (!c->field[0]) return mica_error(MICA_ERR_CONFIG, "family %s: field is empty, expected a member or column", name);
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  memset(f, 0, sizeof *f);
  micah_symbols_init(&f->rows, 256, c->length);
  f->context = env->context, f->config = *c, f->split = env->split;
  f->key = micah_task_key(env, name, env->split);
  micah_documents_options options = { c->path, c->data, c->field, c->split_field, c->name_fields, c->mode, c->holdout };
  status = micah_documents_open(&options, &f->documents);
  if (status >= 0) status = choose(f, c->path);
  if (status < 0) {
    close_family(f);
    return status;
  }
  if (f->documents.empty)
    mica_log(env->context, MICA_LOG_WARN, "%s: %lld empty documents are left out", c->path,
             (long long)f->documents.empty);
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **fields, int32_t *count) {
  *fields = ((family *)self)->rows.fields, *count = 2;
  return MICA_OK;
}

static mica_status longest(void *self, int64_t *rows) {
  const family *f = self;
  rows[0] = 0;
  for (int64_t i = 0; i < f->count; i++)
    if (f->documents.list[f->chosen[i]].size > rows[0]) rows[0] = f->documents.list[f->chosen[i]].size;
  if (rows[0] > f->config.length) rows[0] = f->config.length;
  return MICA_OK;
}

static int64_t count_tasks(void *self) {
  const family *f = self;
  return f->split == MICA_SPLIT_TEST ? f->before[f->count] : -1;
}

/* index i with before[i] <= at < before[i + 1] */
static int64_t find(const family *f, int64_t at) {
  int64_t lo = 0, hi = f->count;
  while (hi - lo > 1) {
    int64_t mid = lo + (hi - lo) / 2;
    if (f->before[mid] <= at) lo = mid;
    else hi = mid;
  }
  return lo;
}

static window window_of(const family *f, int64_t task) {
  window w;
  int64_t length = f->config.length, skip = 0;
  if (f->split == MICA_SPLIT_TEST) {
    int64_t at = task % f->before[f->count], i = find(f, at); /* past the last: around again */
    w.document = f->chosen[i], skip = (at - f->before[i]) * length;
  } else if (f->config.sampling == BY_BYTES) {
    uint64_t at = micak_philox_below(f->key, (uint64_t)task, DRAW_DOCUMENT, 0, (uint64_t)f->before[f->count]);
    w.document = f->chosen[find(f, (int64_t)at)];
  } else {
    w.document = f->chosen[micak_philox_below(f->key, (uint64_t)task, DRAW_DOCUMENT, 0, (uint64_t)f->count)];
  }
  const micah_document *d = &f->documents.list[w.document];
  w.size = d->size - skip < length ? d->size - skip : length;
  if (f->split == MICA_SPLIT_TRAIN)
    skip = (int64_t)micak_philox_below(f->key, (uint64_t)task, DRAW_OFFSET, 0, (uint64_t)(d->size - w.size + 1));
  w.start = d->start + skip;
  return w;
}

static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  for (int64_t i = 0; i < count; i++) rows[i] = (int32_t)window_of(self, first + i).size;
  return MICA_OK;
}

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  for (int64_t b = 0; b < batch->count; b++) {
    int32_t *tokens, *target;
    int64_t rows;
    mica_status status = micah_symbols_task(&f->rows, batch, b, &tokens, &target, &rows);
    if (status < 0) return status;
    window w = window_of(f, batch->first + b);
    if (rows != w.size)
      return mica_error(MICA_ERR_SHAPE, "family %s: task %lld has %lld rows in the batch, expected %lld", name,
                        (long long)(batch->first + b), (long long)rows, (long long)w.size);
    const unsigned char *text = (const unsigned char *)f->documents.text + w.start;
    for (int64_t i = 0; i < rows; i++) target[i] = text[i];
    micah_symbols_shift(&f->rows, target, rows, tokens);
  }
  return MICA_OK;
}

static mica_status describe(void *self, int64_t task, char *text, size_t size) {
  const family *f = self;
  window w = window_of(f, task);
  const micah_document *d = &f->documents.list[w.document];
  snprintf(text, size, "%s bytes %lld to %lld", d->name, (long long)(w.start - d->start),
           (long long)(w.start - d->start + w.size - 1));
  return MICA_OK;
}

enum { UNIFORM, ORDER0, PREDICTORS };

/* order0: the mixture over i.i.d. sources with a Dirichlet(1/2) prior over bytes: exact for a text without any order */
static mica_status exact(void *self, int32_t which, const mica_batch *batch, double *loss) {
  const family *f = self;
  int64_t counts[256];
  if (which < 0 || which >= PREDICTORS)
    return mica_error(MICA_ERR_INVALID, "family %s: no exact predictor %d", name, (int)which);
  for (int64_t b = 0; b < batch->count; b++) {
    int32_t *tokens, *target;
    int64_t rows;
    mica_status status = micah_symbols_task(&f->rows, batch, b, &tokens, &target, &rows);
    if (status < 0) return status;
    double *out = loss + batch->offsets[0][b];
    if (which == ORDER0) micah_symbols_mixture(target, rows, 256, 0.5, counts, out);
    else
      for (int64_t i = 0; i < rows; i++) out[i] = log(256.0);
  }
  return MICA_OK;
}

static mica_status encode(void *self, const double *values, int64_t rows, int64_t columns, int32_t *out_sizes,
                          const mica_batch *batch) {
  return micah_symbols_encode(&((family *)self)->rows, name, values, rows, columns, out_sizes, batch);
}

const mica_family micah_family_bytes = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "real byte sequences: files, records of a table, or byte ranges of an index; a document is a task",
  .axes = "token",
  .predictors = "uniform order0",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .open = open_family,
  .close = close_family,
  .fields = get_fields,
  .longest = longest,
  .sizes = sizes,
  .fill = fill,
  .count = count_tasks,
  .exact = exact,
  .encode = encode,
  .describe = describe,
};
