/* a multilayer perceptron: maps each row on its own. parameters are `layers.N.weight|bias`. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/model/models.h"

typedef struct config {
  int64_t layers, width, activation;
  double  init;
} config;

#define KEY(field, type, value, lo, hi, choices, doc)                                                                  \
  { #field, type, offsetof(config, field), value, lo, hi, choices, doc }
static const mica_key keys[] = {
  KEY(layers, MICA_KEY_INT, "2", 0, 1024, NULL, "hidden layers"),
  KEY(width, MICA_KEY_INT, "64", 1, 65536, NULL, "units of a hidden layer"),
  KEY(activation, MICA_KEY_CHOICE, "relu", 0, 0, "relu|gelu|gelu_tanh|silu|tanh|sigmoid", "after each hidden layer"),
  KEY(init, MICA_KEY_REAL, "1", 0, 100, NULL, "initial weights are uniform in +- init / sqrt(inputs of the layer)"),
};

static mica_value build(mica_program *p, const void *settings, const mica_field *fields, const mica_value *inputs,
                        int32_t n, int64_t longest, int64_t outputs) {
  static const char *const act[] = { "act=relu", "act=gelu", "act=gelu_tanh", "act=silu", "act=tanh", "act=sigmoid" };
  const config *c = settings;
  (void)longest;
  int32_t at = -1;
  for (int32_t i = 0; i < n; i++) {
    if (fields[i].role != MICA_FIELD_INPUT) continue;
    if (at >= 0)
      return mica_error(MICA_ERR_SHAPE, "model mlp: takes one input field, the family has '%s' and '%s'",
                        fields[at].name, fields[i].name);
    at = i;
  }
  if (at < 0) return mica_error(MICA_ERR_SHAPE, "model mlp: the family has no field with role INPUT");
  const mica_field *f = &fields[at];
  if (f->dtype != MICA_F32)
    return mica_error(MICA_ERR_SHAPE, "model mlp: input field '%s' holds classes, expected numbers", f->name);
  int64_t from = 1;
  for (int32_t i = 0; i < f->rank; i++) from *= f->shape[i];
  mica_value x = inputs[at];
  if (f->rank != 1) x = mica_program_reshape(p, x, 1, &from);
  for (int64_t i = 0; i <= c->layers; i++) {
    int64_t to = i < c->layers ? c->width : outputs;
    double scale = c->init / sqrt((double)from);
    mica_init uniform = { MICA_INIT_UNIFORM, scale };
    char path[64];
    snprintf(path, sizeof path, "layers.%lld", (long long)i);
    mica_bind binds[] = { { "x", x },
                          { "w", micah_model_param(p, uniform, to, from, "%s.weight", path) },
                          { "b", micah_model_param(p, uniform, to, 0, "%s.bias", path) } };
    x = mica_program_op(p, path, "linear", i < c->layers ? act[c->activation] : NULL, 3, binds);
    if (x < 0) return x;
    from = to;
  }
  return x;
}

const mica_model micah_model_mlp = {
  .size = sizeof(mica_model),
  .name = "mlp",
  .doc = "multilayer perceptron on each row",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .build = build,
};
