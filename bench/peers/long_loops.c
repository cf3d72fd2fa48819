/* a plugin for workloads/long_loops.py: tasks of normal numbers, and a transformer over the sequences of one task.
 *
 * with `sequences` a task has so many of `rows` positions, for the model `sequences`: one row a task that holds positions
 * x sequences x dim. attention takes them as more heads: head s H + h is head h of sequence s, so that no axis is needed
 * for them. without it rows lie over the axes support and query, for the model mlp. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/common/philox.h"
#include "mica/mica.h"

/* ---- family ---- */

typedef struct config { int64_t rows, dim, sequences; } config;
typedef struct noise { config c; micak_philox_key key; mica_field fields[4]; } noise;

static const mica_key family_keys[] = {
  { "rows", MICA_KEY_INT, offsetof(config, rows), "64", 1, 4096, NULL, "of a support and of a query; of each sequence" },
  { "dim", MICA_KEY_INT, offsetof(config, dim), "64", 1, 4096, NULL, "numbers of a row" },
  { "sequences", MICA_KEY_INT, offsetof(config, sequences), "0", 0, 4096, NULL, "of a task; 0: no sequences" },
};

static mica_status family_open(const mica_family_env *env, const void *settings, void **self) {
  noise *f = calloc(1, sizeof *f);
  if (!f) return mica_error(MICA_ERR_MEMORY, "noise: no memory");
  f->c = *(const config *)settings;
  f->key = micak_philox_key_of(env->seed, micak_hash_name("noise"), (uint64_t)env->split);
  static const char *const names[] = { "support_x", "support_y", "query_x", "query_y" }, *const axes[] = { "support", "query" };
  static const int32_t roles[] = { MICA_FIELD_SUPPORT, MICA_FIELD_SUPPORT, MICA_FIELD_INPUT, MICA_FIELD_TARGET };
  int64_t all = f->c.rows * f->c.sequences;
  for (int i = 0; i < 4; i++) {
    f->fields[i] = (mica_field){ names[i], MICA_F32, roles[i], all ? NULL : axes[i / 2], 1, { i % 2 ? 1 : f->c.dim }, 0 };
    if (all) f->fields[i].rank = i % 2 ? 1 : 2, f->fields[i].shape[0] = all, f->fields[i].shape[1] = f->c.dim;
  }
  *self = f;
  return MICA_OK;
}
static mica_status family_fields(void *self, const mica_field **fields, int32_t *count) {
  *fields = ((noise *)self)->fields, *count = 4;
  return MICA_OK;
}
static mica_status family_longest(void *self, int64_t *rows) {
  rows[0] = rows[1] = ((noise *)self)->c.rows;
  return MICA_OK;
}
static mica_status family_sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  (void)first;
  for (int64_t i = 0; i < 2 * count; i++) rows[i] = (int32_t)((noise *)self)->c.rows;
  return MICA_OK;
}
static mica_status family_fill(void *self, const mica_batch *batch) {
  const noise *f = self;
  int64_t rows = f->c.rows * (f->c.sequences ? f->c.sequences : 1);
  for (int64_t b = 0; b < batch->count; b++)
    for (int i = 0; i < 4; i++) {
      int64_t count = rows * (i % 2 ? 1 : f->c.dim);
      float  *out = (float *)batch->data[i] + b * count;
      double z[4];
      for (int64_t k = 0; k < count; k++) {
        if (k % 4 == 0) micak_philox_normal4(f->key, (uint64_t)(batch->first + b), (uint32_t)i, (uint32_t)(k / 4), z);
        out[k] = (float)z[k % 4];
      }
    }
  return MICA_OK;
}

static const mica_family family = {
  .size = sizeof(mica_family), .name = "noise", .doc = "normal numbers, nothing to learn", .axes = "support query",
  .keys = family_keys, .n_keys = MICA_COUNT(family_keys), .config_size = sizeof(config), .open = family_open,
  .close = free, .fields = family_fields, .longest = family_longest, .sizes = family_sizes, .fill = family_fill,
};

/* ---- model: pre-norm blocks of causal attention and a perceptron of 4 x width ---- */

typedef struct model_config { int64_t layers, width, heads, sequences; } model_config;
static const mica_key model_keys[] = {
  { "layers", MICA_KEY_INT, offsetof(model_config, layers), "2", 1, 64, NULL, "blocks" },
  { "width", MICA_KEY_INT, offsetof(model_config, width), "64", 1, 4096, NULL, "channels" },
  { "heads", MICA_KEY_INT, offsetof(model_config, heads), "4", 1, 64, NULL, "attention heads" },
  { "sequences", MICA_KEY_INT, offsetof(model_config, sequences), "8", 1, 4096, NULL, "of a task" },
};

static mica_value dense(mica_program *p, const char *name, mica_value x, const char *settings, int64_t from, int64_t to,
                        mica_value res) {
  char weight[64], bias[64];
  snprintf(weight, sizeof weight, "%s.weight", name);
  snprintf(bias, sizeof bias, "%s.bias", name);
  mica_init start = { MICA_INIT_NORMAL, 1 / sqrt((double)from) }, zero = { MICA_INIT_ZERO, 0 };
  mica_bind binds[] = { { "x", x },
                        { "w", mica_program_param(p, weight, 2, (int64_t[]){ to, from }, start, 1) },
                        { "b", mica_program_param(p, bias, 1, &to, zero, 0) },
                        { "res", res } };
  return mica_program_op(p, name, "linear", settings, res < 0 ? 3 : 4, binds);
}
static mica_value norm(mica_program *p, const char *name, mica_value x, int64_t width) {
  char weight[64];
  snprintf(weight, sizeof weight, "%s.weight", name);
  mica_bind binds[] = { { "x", x }, { "w", mica_program_param(p, weight, 1, &width, (mica_init){ MICA_INIT_ONE, 0 }, 0) } };
  return mica_program_op(p, name, "rmsnorm", "eps=1e-5", 2, binds);
}
static mica_value block(mica_program *p, const model_config *c, mica_value x, int64_t length, int64_t layer) {
  static const char *const parts[] = { "norm1", "q", "k", "v", "attn", "proj", "norm2", "up", "act", "down" };
  char name[10][48];
  for (int i = 0; i < 10; i++) snprintf(name[i], sizeof name[i], "blocks.%d.%s", (int)layer, parts[i]);
  int64_t W = c->width, heads[] = { length, c->sequences * c->heads, W / c->heads }, rows[] = { length * c->sequences, W };
  mica_value h = norm(p, name[0], x, W), part[3];
  for (int i = 0; i < 3; i++) part[i] = mica_program_reshape(p, dense(p, name[1 + i], h, NULL, W, W, -1), 3, heads);
  mica_bind binds[] = { { "q", part[0] }, { "k", part[1] }, { "v", part[2] } };
  h = mica_program_reshape(p, mica_program_op(p, name[4], "attention", "mask=causal", 3, binds), 2, rows);
  x = dense(p, name[5], h, NULL, W, W, x);
  h = dense(p, name[7], norm(p, name[6], x, W), NULL, W, 4 * W, -1);
  h = mica_program_op(p, name[8], "gelu", NULL, 1, (mica_bind[]){ { "x", h } });
  return dense(p, name[9], h, NULL, 4 * W, W, x);
}
static mica_value model_build(mica_program *p, const void *settings, const mica_field *fields, const mica_value *inputs,
                              int32_t n, int64_t longest, int64_t outputs) {
  const model_config *c = settings;
  (void)longest;
  for (int32_t i = 0; i < n; i++) {
    if (fields[i].role != MICA_FIELD_INPUT) continue;
    if (fields[i].rank != 2 || fields[i].shape[0] % c->sequences || c->width % c->heads)
      return mica_error(MICA_ERR_SHAPE, "model sequences: expected %lld sequences in '%s', and a width that is a multiple "
                        "of heads", (long long)c->sequences, fields[i].name);
    mica_value x = dense(p, "read_in", inputs[i], NULL, fields[i].shape[1], c->width, -1);
    for (int64_t l = 0; l < c->layers; l++) x = block(p, c, x, fields[i].shape[0] / c->sequences, l);
    x = dense(p, "read_out", norm(p, "norm", x, c->width), NULL, c->width, 1, -1);
    return mica_program_reshape(p, x, 1, &outputs);
  }
  return mica_error(MICA_ERR_SHAPE, "model sequences: the family has no input");
}
static const mica_model model = { .size = sizeof(mica_model), .name = "sequences", .doc = "a transformer over many sequences",
                                  .keys = model_keys, .n_keys = MICA_COUNT(model_keys),
                                  .config_size = sizeof(model_config), .build = model_build };

MICA_API mica_status mica_plugin(mica_context *context);
MICA_API mica_status mica_plugin(mica_context *context) {
  mica_status status = mica_register_family(context, &family);
  return status < 0 ? status : mica_register_model(context, &model);
}
