/* a family, a model and a loss from outside the tree: `plugins: [decay.so]` in a configuration loads them.
 *
 *   cc -shared -fPIC decay.c $(pkg-config --cflags mica) -lm -o decay.so
 *   mica train decay.yaml --out runs/decay
 *
 * the task: readings y_i = exp(-rate t_i) + noise of a decay whose rate differs from task to task, taken one by one. a row
 * shows the time to predict and the pair before it: (t_i, t_{i-1}, y_{i-1}). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mica/mica.h"

/* ---- family ---- */

typedef struct config { int64_t readings; double noise; } config;
typedef struct decay { config c; uint64_t seed; mica_field fields[2]; } decay;

static const mica_key family_keys[] = {
  { "readings", MICA_KEY_INT, offsetof(config, readings), "16", 2, 4096, NULL, "readings of a task" },
  { "noise", MICA_KEY_REAL, offsetof(config, noise), "0.05", 0, 10, NULL, "standard deviation of a reading" },
};

/* the n-th uniform number of a task: a hash of (seed, task, n), so that any thread gets the same task */
static double uniform(uint64_t seed, int64_t task, int64_t n) {
  uint64_t x = seed + 0x9e3779b97f4a7c15u * (uint64_t)task + 0xbf58476d1ce4e5b9u * (uint64_t)(n + 1);
  for (int i = 0; i < 2; i++) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
  }
  return ((double)(x >> 11) + 0.5) / 9007199254740992.0;
}
static double normal(uint64_t seed, int64_t task, int64_t n) {
  return sqrt(-2 * log(uniform(seed, task, 2 * n))) * cos(6.283185307179586 * uniform(seed, task, 2 * n + 1));
}

static mica_status family_open(const mica_family_env *env, const void *settings, void **self) {
  decay *d = calloc(1, sizeof *d);
  if (!d) return mica_error(MICA_ERR_MEMORY, "decay: no memory");
  d->c = *(const config *)settings;
  d->seed = 2 * env->seed + (env->split == MICA_SPLIT_TEST); /* test tasks are never training tasks */
  d->fields[0] = (mica_field) { "tokens", MICA_F32, MICA_FIELD_INPUT, "token", 1, { 3 }, 0 };
  d->fields[1] = (mica_field) { "target", MICA_F32, MICA_FIELD_TARGET, "token", 0, { 0 }, 0 };
  *self = d;
  return MICA_OK;
}
static mica_status family_fields(void *self, const mica_field **fields, int32_t *count) {
  *fields = ((decay *)self)->fields;
  *count = 2;
  return MICA_OK;
}
static mica_status family_longest(void *self, int64_t *rows) {
  rows[0] = ((decay *)self)->c.readings;
  return MICA_OK;
}
static mica_status family_sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  (void)first;
  for (int64_t i = 0; i < count; i++) rows[i] = (int32_t)((decay *)self)->c.readings;
  return MICA_OK;
}
static mica_status family_fill(void *self, const mica_batch *batch) {
  const decay *d = self;
  for (int64_t b = 0; b < batch->count; b++) {
    int64_t task = batch->first + b;
    float  *x = (float *)batch->data[0] + 3 * batch->offsets[0][b], *y = (float *)batch->data[1] + batch->offsets[0][b];
    double  rate = 0.2 + 1.8 * uniform(d->seed, task, -1), t = 0;
    for (int64_t i = 0; i < d->c.readings; i++) {
      x[3 * i + 1] = (float)t;
      x[3 * i + 2] = i ? y[i - 1] : 0;
      t = 3 * uniform(d->seed, task, 1000000 + i);
      x[3 * i] = (float)t;
      y[i] = (float)(exp(-rate * t) + d->c.noise * normal(d->seed, task, i));
    }
  }
  return MICA_OK;
}

static const mica_family family = {
  .size = sizeof(mica_family), .name = "decay", .doc = "exponential decay of unknown rate", .axes = "token",
  .keys = family_keys, .n_keys = MICA_COUNT(family_keys), .config_size = sizeof(config), .open = family_open,
  .close = free, .fields = family_fields, .longest = family_longest, .sizes = family_sizes, .fill = family_fill,
};

/* ---- model: one attention layer over a tanh read-in ---- */

typedef struct model_config { int64_t width; } model_config;
static const mica_key model_keys[] = {
  { "width", MICA_KEY_INT, offsetof(model_config, width), "32", 2, 4096, NULL, "channels" },
};

static mica_value dense(mica_program *p, const char *name, mica_value x, const char *settings, int64_t from, int64_t to) {
  char weight[64], bias[64];
  snprintf(weight, sizeof weight, "%s.weight", name);
  snprintf(bias, sizeof bias, "%s.bias", name);
  mica_init start = { MICA_INIT_NORMAL, 1 / sqrt((double)from) }, zero = { MICA_INIT_ZERO, 0 };
  mica_bind binds[] = { { "x", x },
                        { "w", mica_program_param(p, weight, 2, (int64_t[]){ to, from }, start, 1) },
                        { "b", mica_program_param(p, bias, 1, &to, zero, 0) } };
  return mica_program_op(p, name, "linear", settings, 3, binds);
}
static mica_value model_build(mica_program *p, const void *settings, const mica_field *fields, const mica_value *inputs,
                              int32_t n, int64_t longest, int64_t outputs) {
  int64_t width = ((const model_config *)settings)->width, heads[2] = { 1, width };
  (void)n, (void)longest;
  mica_value h = dense(p, "read_in", inputs[0], "act=tanh", fields[0].shape[0], width);
  mica_value q = mica_program_reshape(p, dense(p, "q", h, NULL, width, width), 2, heads);
  mica_value k = mica_program_reshape(p, dense(p, "k", h, NULL, width, width), 2, heads);
  mica_value v = mica_program_reshape(p, dense(p, "v", h, NULL, width, width), 2, heads);
  mica_bind  binds[] = { { "q", q }, { "k", k }, { "v", v } };
  mica_value y = mica_program_reshape(p, mica_program_op(p, "attn", "attention", "mask=causal", 3, binds), 1, &width);
  mica_value both = mica_program_op(p, "skip", "add", NULL, 2, (mica_bind[]){ { "a", h }, { "b", y } });
  return dense(p, "read_out", dense(p, "mix", both, "act=tanh", width, width), NULL, width, outputs);
}
static const mica_model model = { .size = sizeof(mica_model), .name = "one_head", .doc = "one attention layer",
                                  .keys = model_keys, .n_keys = MICA_COUNT(model_keys),
                                  .config_size = sizeof(model_config), .build = model_build };

/* ---- loss: pseudo-Huber sqrt(1 + d^2) - 1, composed of operations that exist; all its derivatives come with them ---- */

static mica_value loss_build(mica_program *p, const void *settings, mica_value prediction, mica_value target,
                             mica_value weight) {
  (void)settings, (void)weight; /* the family gives no weights */
  int64_t    one = 1;
  mica_value d = mica_program_op(p, "loss.error", "sub", NULL, 2, (mica_bind[]){
      { "a", prediction }, { "b", mica_program_reshape(p, target, 1, &one) } });
  d = mica_program_op(p, "loss.square", "square", NULL, 1, (mica_bind[]){ { "x", d } });
  d = mica_program_op(p, "loss.above", "scale", "beta=1", 1, (mica_bind[]){ { "x", d } });
  d = mica_program_op(p, "loss.root", "sqrt", NULL, 1, (mica_bind[]){ { "x", d } });
  return mica_program_op(p, "loss", "scale", "beta=-1", 1, (mica_bind[]){ { "x", d } });
}
static const mica_loss loss = { .size = sizeof(mica_loss), .name = "pseudo_huber", .doc = "sqrt(1 + error^2) - 1",
                                .build = loss_build };

MICA_API mica_status mica_plugin(mica_context *context) {
  mica_status status = mica_register_family(context, &family);
  if (status >= 0) status = mica_register_model(context, &model);
  return status < 0 ? status : mica_register_loss(context, &loss);
}
