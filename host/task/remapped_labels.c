/* classes whose labels change: a row shows a class and the right label of the row before; before each row but the
 * first, with probability `hazard`, all classes get new labels, each drawn alone and uniformly; with `period` also before
 * each row whose number (from 0) is a multiple of it. what is learned within a sequence must be unlearned within it.
 * a task is noisy with probability `noisy`: its labels never change, and with probability `noise` each is shown as one drawn
 * uniformly. how far a row should be believed must then be found out within the sequence, too. */
#include "host/task/families.h"

#include <math.h>
#include <string.h>

static const char name[] = "remapped_labels";

typedef struct config {
  int64_t classes, labels, length, period;
  double  hazard, noisy, noise;
} config;

#define KEY(field, type, value, lo, hi, doc) { #field, type, offsetof(config, field), value, lo, hi, NULL, doc }
static const mica_key keys[] = {
  KEY(classes, MICA_KEY_INT, "4", 1, 65536, "distinct classes"),
  KEY(labels, MICA_KEY_INT, "4", 2, 65536, "distinct labels"),
  KEY(length, MICA_KEY_INT, "64", 1, 16384, "rows of a sequence"),
  KEY(hazard, MICA_KEY_REAL, "0.03", 0, 1, "probability of new labels before a row"),
  KEY(period, MICA_KEY_INT, "0", 0, 16384, "rows from which on all labels are new: its multiples; 0: none"),
  KEY(noisy, MICA_KEY_REAL, "0", 0, 1, "probability that a task's labels never change and are shown with noise"),
  KEY(noise, MICA_KEY_REAL, "0.5", 0, 1, "probability that a noisy task shows a label drawn uniformly"),
};

/* streams of a task: classes, changes, labels of each mapping, and noise */
enum { DRAW_CLASSES, DRAW_CHANGES, DRAW_LABELS, DRAW_NOISE };
enum { FIELD_CLASS, FIELD_PREVIOUS, FIELD_TARGET, FIELDS };

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
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  *f = (family){ env->context, *c, micah_task_key(env, name, env->split), {
    { "class", MICA_I32, MICA_FIELD_INPUT, "token", 0, { 0, 0, 0 }, c->classes },
    { "previous", MICA_I32, MICA_FIELD_INPUT, "token", 0, { 0, 0, 0 }, c->labels + 1 },
    { "target", MICA_I32, MICA_FIELD_TARGET, "token", 0, { 0, 0, 0 }, c->labels } } };
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **fields, int32_t *count) {
  *fields = ((family *)self)->fields, *count = FIELDS;
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

/* probability that the labels are new from row i on */
static double hazard_of(const config *c, int64_t i) { return c->period && i % c->period == 0 ? 1 : c->hazard; }

static mica_status fill(void *self, const mica_batch *batch) {
  const family *f = self;
  const config *c = &f->config;
  size_t bytes = (size_t)c->classes * sizeof(int32_t);
  int32_t *label = micah_alloc(f->context, bytes, name);
  if (!label) return MICA_ERR_MEMORY;
  for (int64_t b = 0; b < batch->count; b++) {
    uint64_t task = (uint64_t)(batch->first + b);
    micak_stream draw_class = micak_stream_at(f->key, task, DRAW_CLASSES);
    micak_stream draw_change = micak_stream_at(f->key, task, DRAW_CHANGES);
    micak_stream draw_label = micak_stream_at(f->key, task, DRAW_LABELS);
    micak_stream draw_noise = micak_stream_at(f->key, task, DRAW_NOISE);
    int noisy = micak_stream_uniform(&draw_noise) < c->noisy;
    int64_t at = batch->offsets[0][b], n = batch->offsets[0][b + 1] - at;
    int32_t *shown = (int32_t *)batch->data[FIELD_CLASS] + at, *previous = (int32_t *)batch->data[FIELD_PREVIOUS] + at;
    int32_t *target = (int32_t *)batch->data[FIELD_TARGET] + at;
    for (int64_t i = 0; i < n; i++) {
      int change = micak_stream_uniform(&draw_change) < hazard_of(c, i) && !noisy;
      for (int64_t k = 0; k < c->classes && (change || i == 0); k++) label[k] = micah_task_below(&draw_label, c->labels);
      shown[i] = micah_task_below(&draw_class, c->classes);
      target[i] = label[shown[i]];
      previous[i] = i ? target[i - 1] : (int32_t)c->labels;
      if (i && noisy && micak_stream_uniform(&draw_noise) < c->noise) previous[i] = micah_task_below(&draw_noise, c->labels);
    }
  }
  micah_free(f->context, label, bytes);
  return MICA_OK;
}

/* of a task without noise, a filter over the row that the present labels began at (Adams, MacKay, "Bayesian online
 * changepoint detection", 2007): belief[s] = P(began at s | rows before i). a class that was shown since s has its label, any
 * other a uniform one. of a noisy task, P(label of a class | what was shown) by class. */
static void bayes_task(const config *c, const int32_t *shown, const int32_t *previous, const int32_t *target, int64_t n,
                       double *belief, double *label, double *loss) {
  double uniform = 1 / (double)c->labels, noisy = c->noisy;
  for (int64_t k = 0; k < c->classes * c->labels; k++) label[k] = uniform;
  for (int64_t i = 0; i < n; i++) {
    int32_t seen = i + 1 < n ? previous[i + 1] : target[i];
    double changed = 0, right = 0, told = 0, hazard = hazard_of(c, i);
    for (int64_t s = 0; s < i; s++) changed += hazard * belief[s], belief[s] *= 1 - hazard;
    belief[i] = i ? changed : 1;
    int64_t last = i - 1;
    while (last >= 0 && shown[last] != shown[i]) last--;
    for (int64_t s = 0; s <= i; s++) {
      right += belief[s] * (s > last ? uniform : previous[last + 1] == target[i]);
      belief[s] *= s > last ? uniform : previous[last + 1] == seen;
      told += belief[s];
    }
    double *of_class = label + shown[i] * c->labels, told_noisy = 0;
    loss[i] = -log((1 - noisy) * right + noisy * of_class[target[i]]);
    for (int64_t y = 0; y < c->labels; y++)
      told_noisy += of_class[y] *= (1 - c->noise) * (y == seen) + c->noise * uniform;
    for (int64_t y = 0; y < c->labels; y++) of_class[y] /= told_noisy > 0 ? told_noisy : 1;
    for (int64_t s = 0; s <= i; s++) belief[s] /= told > 0 ? told : 1;
    noisy = noisy > 0 ? noisy * told_noisy / ((1 - noisy) * told + noisy * told_noisy) : 0;
  }
}

enum { UNIFORM, BAYES, PREDICTORS };

static mica_status exact(void *self, int32_t which, const mica_batch *batch, double *loss) {
  const family *f = self;
  if (which < 0 || which >= PREDICTORS)
    return mica_error(MICA_ERR_INVALID, "family %s: no exact predictor %d", name, (int)which);
  int64_t length = f->config.length;
  size_t bytes = (size_t)(length + f->config.classes * f->config.labels) * sizeof(double);
  double *belief = micah_alloc(f->context, bytes, "an exact predictor");
  if (!belief) return MICA_ERR_MEMORY;
  for (int64_t b = 0; b < batch->count; b++) {
    int64_t at = batch->offsets[0][b], n = batch->offsets[0][b + 1] - at;
    const int32_t *shown = (const int32_t *)batch->data[FIELD_CLASS] + at;
    const int32_t *previous = (const int32_t *)batch->data[FIELD_PREVIOUS] + at;
    const int32_t *target = (const int32_t *)batch->data[FIELD_TARGET] + at;
    if (which == BAYES) bayes_task(&f->config, shown, previous, target, n, belief, belief + length, loss + at);
    else
      for (int64_t i = 0; i < n; i++) loss[at + i] = log((double)f->config.labels);
  }
  micah_free(f->context, belief, bytes);
  return MICA_OK;
}

const mica_family micah_family_remapped_labels = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "classes whose labels are drawn anew within a sequence, or shown with noise, each label one row later",
  .axes = "token",
  .predictors = "uniform bayes",
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
