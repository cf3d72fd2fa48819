/* piecewise-stationary binary sources: a sequence of 2^depth bits is cut into segments, each with a Bernoulli parameter
 * of its own from Beta(alpha, alpha). the cuts follow the partition tree prior (Veness et al. 2013), or are a fixed
 * number of change points placed uniformly. */
#include "host/task/symbols.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char name[] = "piecewise";

enum { PRIOR_PTW, PRIOR_FIXED };
enum { MAX_DEPTH = 16, MAX_CHANGES = 64 };

typedef struct config {
  int64_t depth, prior, changes;
  double  alpha;
} config;

#define KEY(field, type, value, lo, hi, choices, doc) \
  { #field, type, offsetof(config, field), value, lo, hi, choices, doc }
static const mica_key keys[] = {
  KEY(depth, MICA_KEY_INT, "6", 0, MAX_DEPTH, NULL, "depth of the partition tree: a sequence has 2^depth bits"),
  KEY(prior, MICA_KEY_CHOICE, "ptw", 0, 0, "ptw|fixed",
      "prior of the cuts: each node of the partition tree is halved with probability 1/2; `changes` cuts, uniformly"),
  KEY(changes, MICA_KEY_INT, "2", 0, MAX_CHANGES, NULL, "change points of prior fixed"),
  KEY(alpha, MICA_KEY_REAL, "0.5", 1e-6, 1e6, NULL, "parameter of each segment's Beta prior; 0.5 is KT's"),
};

enum { DRAW_SYMBOLS, DRAW_CUTS };

typedef struct family {
  micah_symbols       rows;
  const mica_context *context;
  config              config;
  micak_philox_key    key;
  int64_t             length;
} family;

static void close_family(void *self) {
  if (self) micah_free(((family *)self)->context, self, sizeof(family));
}

static mica_status open_family(const mica_family_env *env, const void *settings, void **self) {
  const config *c = settings;
  mica_status status = micah_task_env_check(env, name);
  if (status < 0) return status;
  int64_t length = (int64_t)1 << c->depth;
  if (c->prior == PRIOR_FIXED && c->changes > length - 1)
    return mica_error(MICA_ERR_CONFIG, "family %s: changes is %lld, expected at most 2^depth - 1 (%lld)", name,
                      (long long)c->changes, (long long)(length - 1));
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  micah_symbols_init(&f->rows, 2, length);
  f->context = env->context, f->config = *c, f->length = length;
  f->key = micah_task_key(env, name, env->split);
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **fields, int32_t *count) {
  *fields = ((family *)self)->rows.fields, *count = 2;
  return MICA_OK;
}

static mica_status longest(void *self, int64_t *rows) {
  rows[0] = ((family *)self)->length;
  return MICA_OK;
}

static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  (void)first;
  for (int64_t i = 0; i < count; i++) rows[i] = (int32_t)((family *)self)->length;
  return MICA_OK;
}

/* ---- generator: starts of segments are given one by one, in order ---- */

typedef struct cuts {
  const family *family;
  uint64_t      task;
  micak_stream  draw;            /* fixed */
  int64_t       left;            /* fixed: change points still to place */
} cuts;

static cuts cuts_at(const family *f, uint64_t task) {
  cuts c = { f, task, micak_stream_at(f->key, task, DRAW_CUTS), f->config.changes };
  return c;
}

/* is node `index` (heap order, root 1) of the partition tree halved? one fair bit a node */
static int halved(const cuts *c, uint64_t index) {
  uint32_t word[4];
  micak_philox_words(c->family->key, c->task, DRAW_CUTS, (uint32_t)(index >> 7), word);
  return (int)(word[(index >> 5) & 3] >> (index & 31)) & 1;
}

/* does a segment start at `position`? ask once for each position, in order */
static int starts(cuts *c, int64_t position) {
  const family *f = c->family;
  if (position == 0) return 1;
  if (f->config.prior == PRIOR_FIXED) {
    /* sampling in order (Knuth, algorithm S): left / (positions to come) */
    int64_t room = f->length - position;
    if (micak_stream_uniform(&c->draw) * (double)room >= (double)c->left) return 0;
    c->left--;
    return 1;
  }
  /* position = odd x 2^k is the middle of a node at height k + 1; it is a cut if that node and all above are halved */
  int64_t height = 1;
  while (((position >> (height - 1)) & 1) == 0) height++;
  for (int64_t level = f->config.depth; level >= height; level--) {
    uint64_t index = ((uint64_t)1 << (f->config.depth - level)) + (uint64_t)(position >> level);
    if (!halved(c, index)) return 0;
  }
  return 1;
}

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  for (int64_t b = 0; b < batch->count; b++) {
    int32_t *tokens, *target;
    int64_t rows, start = 0;
    mica_status status = micah_symbols_task(&f->rows, batch, b, &tokens, &target, &rows);
    if (status < 0) return status;
    uint64_t task = (uint64_t)(batch->first + b);
    micak_stream draw = micak_stream_at(f->key, task, DRAW_SYMBOLS);
    cuts c = cuts_at(f, task);
    for (int64_t i = 0; i < rows; i++) {
      if (starts(&c, i)) start = i;
      target[i] = micah_symbols_urn(target + start, i - start, 2, f->config.alpha, micak_stream_uniform(&draw));
    }
    micah_symbols_shift(&f->rows, target, rows, tokens);
  }
  return MICA_OK;
}

static mica_status describe(void *self, int64_t task, char *text, size_t size) {
  const family *f = self;
  cuts c = cuts_at(f, (uint64_t)task);
  size_t at = (size_t)snprintf(text, size, "segments from");
  for (int64_t i = 0; i < f->length && at < size; i++)
    if (starts(&c, i)) at += (size_t)snprintf(text + at, size - at, " %lld", (long long)i);
  return MICA_OK;
}

/* ---- exact predictors ---- */

static double log_add(double a, double b) { return a > b ? a + log1p(exp(b - a)) : b + log1p(exp(a - b)); }

/* the partition tree mixture, one level of nodes at a time:
 *   PTW_0 = KT, PTW_j(x) = 1/2 KT(x) + 1/2 PTW_(j-1)(first half) PTW_(j-1)(second half)
 * at each symbol only the node that holds it changes on each level: O(depth) a symbol (Veness et al. 2013) */
static void predict_ptw(const family *f, const int32_t *target, int64_t rows, double *work, double *loss) {
  struct { double count[2], kt, left, mix; } level[MAX_DEPTH + 1];
  const double half = -0.69314718055994530942;
  double before = 0, alpha = f->config.alpha;
  (void)work;
  memset(level, 0, sizeof level);
  for (int64_t i = 0; i < rows; i++) {
    /* from the top: a level reads its child before the child restarts */
    for (int64_t j = f->config.depth; j >= 0; j--) {
      int64_t in = i & (((int64_t)1 << j) - 1);
      if (j > 0 && in == (int64_t)1 << (j - 1)) level[j].left = level[j - 1].mix;
      if (in == 0) memset(&level[j], 0, sizeof level[j]);
    }
    for (int64_t j = 0; j <= f->config.depth; j++) {
      double *count = level[j].count;
      level[j].kt += log((count[target[i]] + alpha) / (count[0] + count[1] + 2 * alpha));
      count[target[i]] += 1;
      level[j].mix = j == 0 ? level[j].kt : half + log_add(level[j].kt, level[j].left + level[j - 1].mix);
    }
    double now = level[f->config.depth].mix;
    loss[i] = before - now;
    before = now;
  }
}

/* no cuts at all */
static void predict_kt(const family *f, const int32_t *target, int64_t rows, double *work, double *loss) {
  int64_t counts[2];
  (void)work;
  micah_symbols_mixture(target, rows, 2, f->config.alpha, counts, loss);
}

/* exact mixture over `changes` uniform cuts: a filter over (cuts so far k, start s of the present segment). given k
 * cuts before position i, position i is a cut with probability (changes - k) / (rows - i). O(rows^2 changes) */
static void predict_fixed(const family *f, const int32_t *target, int64_t rows, double *work, double *loss) {
  int64_t m = f->config.changes;
  double alpha = f->config.alpha, *weight = work, *ones = work + (m + 1) * rows;
  memset(weight, 0, (size_t)((m + 1) * rows) * sizeof *weight);
  ones[0] = 0;
  for (int64_t i = 0; i < rows; i++) {
    ones[i + 1] = ones[i] + target[i];
    if (i == 0) weight[0] = 1;
    for (int64_t k = m; k >= 0 && i > 0; k--) {
      double *row = weight + k * rows, cut = (double)(m - k) / (double)(rows - i), moved = 0;
      if (cut > 1) cut = 1; /* unreachable state, of weight 0 */
      for (int64_t s = 0; s < i; s++) moved += row[s] * cut, row[s] *= 1 - cut;
      if (k < m) row[rows + i] = moved;
    }
    double p = 0;
    for (int64_t k = 0; k <= m; k++) {
      double *row = weight + k * rows;
      for (int64_t s = 0; s <= i; s++) {
        double seen = ones[i] - ones[s], n = (double)(i - s);
        row[s] *= ((target[i] ? seen : n - seen) + alpha) / (n + 2 * alpha);
        p += row[s];
      }
    }
    for (int64_t k = 0; k <= m; k++)
      for (int64_t s = 0; s <= i; s++) weight[k * rows + s] /= p;
    loss[i] = -log(p);
  }
}

static void predict_bayes(const family *f, const int32_t *target, int64_t rows, double *work, double *loss) {
  (f->config.prior == PRIOR_PTW ? predict_ptw : predict_fixed)(f, target, rows, work, loss);
}

typedef void (*predictor)(const family *f, const int32_t *target, int64_t rows, double *work, double *loss);
static const predictor predictors[] = { predict_kt, predict_ptw, predict_bayes };

static mica_status exact(void *self, int32_t which, const mica_batch *batch, double *loss) {
  const family *f = self;
  if (which < 0 || which >= MICA_COUNT(predictors))
    return mica_error(MICA_ERR_INVALID, "family %s: no exact predictor %d", name, (int)which);
  size_t bytes = f->config.prior == PRIOR_FIXED
                     ? (size_t)((f->config.changes + 1) * f->length + f->length + 1) * sizeof(double) : 1;
  double *work = micah_alloc(f->context, bytes, "an exact predictor");
  if (!work) return MICA_ERR_MEMORY;
  mica_status status = MICA_OK;
  for (int64_t b = 0; b < batch->count; b++) {
    int32_t *tokens, *target;
    int64_t rows;
    if ((status = micah_symbols_task(&f->rows, batch, b, &tokens, &target, &rows)) < 0) break;
    predictors[which](f, target, rows, work, loss + batch->offsets[0][b]);
  }
  micah_free(f->context, work, bytes);
  return status;
}

static mica_status encode(void *self, const double *values, int64_t rows, int64_t columns, int32_t *out_sizes,
                          const mica_batch *batch) {
  return micah_symbols_encode(&((family *)self)->rows, name, values, rows, columns, out_sizes, batch);
}

const mica_family micah_family_piecewise = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "piecewise-stationary bits: segments of a partition tree or between uniform change points",
  .axes = "token",
  .predictors = "kt ptw bayes",
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
  .describe = describe,
};
