/* i.i.d. symbols from a source that is drawn anew for every task from the Dirichlet(alpha, ..., alpha) prior. */
#include "host/task/symbols.h"

#include <math.h>

static const char name[] = "categorical";

typedef struct config {
  int64_t symbols, length;
  double  alpha;
} config;

#define KEY(field, type, value, lo, hi, choices, doc) \
  { #field, type, offsetof(config, field), value, lo, hi, choices, doc }
static const mica_key keys[] = {
  KEY(symbols, MICA_KEY_INT, "2", 2, 1 << 20, NULL, "size of the alphabet; 2 is Bernoulli"),
  KEY(length, MICA_KEY_INT, "64", 1, 1 << 20, NULL, "symbols in a sequence"),
  KEY(alpha, MICA_KEY_REAL, "0.5", 1e-6, 1e6, NULL, "parameter of the Dirichlet prior; 0.5 is KT's"),
};

enum { DRAW_SYMBOLS };

typedef struct family {
  micah_symbols       rows;
  const mica_context *context;
  config              config;
  micak_philox_key    key;
} family;

static void close_family(void *self) {
  if (self) micah_free(((family *)self)->context, self, sizeof(family));
}

static mica_status open_family(const mica_family_env *env, const void *settings, void **self) {
  const config *c = settings;
  mica_status status = micah_task_env_check(env, name);
  if (status < 0) return status;
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  micah_symbols_init(&f->rows, c->symbols, c->length);
  f->context = env->context, f->config = *c;
  f->key = micah_task_key(env, name, env->split);
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **fields, int32_t *count) {
  *fields = ((family *)self)->rows.fields, *count = 2;
  return MICA_OK;
}

static mica_status longest(void *self, int64_t *rows) {
  rows[0] = ((family *)self)->config.length;
  return MICA_OK;
}

static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  (void)first;
  for (int64_t i = 0; i < count; i++) rows[i] = (int32_t)((family *)self)->config.length;
  return MICA_OK;
}

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  for (int64_t b = 0; b < batch->count; b++) {
    int32_t *tokens, *target;
    int64_t rows;
    mica_status status = micah_symbols_task(&f->rows, batch, b, &tokens, &target, &rows);
    if (status < 0) return status;
    micak_stream draw = micak_stream_at(f->key, (uint64_t)(batch->first + b), DRAW_SYMBOLS);
    for (int64_t i = 0; i < rows; i++)
      target[i] = micah_symbols_urn(target, i, f->config.symbols, f->config.alpha, micak_stream_uniform(&draw));
    micah_symbols_shift(&f->rows, target, rows, tokens);
  }
  return MICA_OK;
}

enum { UNIFORM, KT, PREDICTORS };

static mica_status exact(void *self, int32_t which, const mica_batch *batch, double *loss) {
  const family *f = self;
  if (which < 0 || which >= PREDICTORS)
    return mica_error(MICA_ERR_INVALID, "family %s: no exact predictor %d", name, (int)which);
  size_t bytes = (size_t)f->config.symbols * sizeof(int64_t);
  int64_t *counts = micah_alloc(f->context, bytes, "an exact predictor");
  if (!counts) return MICA_ERR_MEMORY;
  mica_status status = MICA_OK;
  for (int64_t b = 0; b < batch->count; b++) {
    int32_t *tokens, *target;
    int64_t rows;
    if ((status = micah_symbols_task(&f->rows, batch, b, &tokens, &target, &rows)) < 0) break;
    double *out = loss + batch->offsets[0][b];
    if (which == KT) micah_symbols_mixture(target, rows, f->config.symbols, f->config.alpha, counts, out);
    else
      for (int64_t i = 0; i < rows; i++) out[i] = log((double)f->config.symbols);
  }
  micah_free(f->context, counts, bytes);
  return status;
}

static mica_status encode(void *self, const double *values, int64_t rows, int64_t columns, int32_t *out_sizes,
                          const mica_batch *batch) {
  return micah_symbols_encode(&((family *)self)->rows, name, values, rows, columns, out_sizes, batch);
}

const mica_family micah_family_categorical = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "i.i.d. symbols from a source drawn for each task from a Dirichlet prior (Bernoulli with 2 symbols)",
  .axes = "token",
  .predictors = "uniform kt",
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
