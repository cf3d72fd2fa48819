/* prototypical networks (Snell, Swersky, Zemel 2017): the mean embedding of each class of the support, and logits by
 * the distance of a query to it. euclid: -|q - c|^2 up to -|q|^2, which no softmax sees; cosine: temperature x
 * cos(q, c). */
#include <stdio.h>
#include <string.h>

#include "host/model/conv_net.h"

enum { EUCLID, COSINE };

typedef struct config {
  micah_conv_config conv;
  int64_t           distance;
  double            temperature;
} config;

static const mica_key keys[] = {
  MICAH_CONV_KEYS(config),
  { "distance", MICA_KEY_CHOICE, offsetof(config, distance), "euclid", 0, 0, "euclid|cosine", "of a query to a class" },
  { "temperature", MICA_KEY_REAL, offsetof(config, temperature), "10", 0, 1e6, NULL,
    "cosine: where the learned factor of the logits starts" },
};

static mica_value one(mica_program *p, const char *name, const char *op, const char *set, const char *port,
                      mica_value x) {
  mica_bind bind = { port, x };
  return mica_program_op(p, name, op, set, 1, &bind);
}
static mica_value two(mica_program *p, const char *name, const char *op, const char *set, const char *port_a,
                      mica_value a, const char *port_b, mica_value b) {
  mica_bind binds[] = { { port_a, a }, { port_b, b } };
  return mica_program_op(p, name, op, set, 2, binds);
}

/* rows divided by their length */
static mica_value unit(mica_program *p, const char *path, mica_value x) {
  char name[5][80];
  static const char *const parts[] = { "square", "sum", "add", "length", "unit" };
  for (int i = 0; i < 5; i++) snprintf(name[i], sizeof name[i], "%s.%s", path, parts[i]);
  mica_value sum = one(p, name[1], "sum", "axis=column", "x", one(p, name[0], "square", NULL, "x", x));
  mica_value length = one(p, name[3], "sqrt", NULL, "x", one(p, name[2], "scale", "beta=1e-12", "x", sum));
  return two(p, name[4], "div", NULL, "a", x, "b", length);
}

static mica_value build(mica_program *p, const void *settings, const mica_field *fields, const mica_value *inputs,
                        int32_t n, int64_t longest, int64_t outputs) {
  const config *c = settings;
  (void)longest;
  micah_episode e;
  mica_status status = micah_conv_episode(p, "prototypes", &c->conv, fields, inputs, n, outputs, &e);
  if (status < 0) return status;
  mica_value s = e.support, q = e.query;
  /* sums and counts of each class */
  char classes[32];
  snprintf(classes, sizeof classes, "V=%lld", (long long)outputs);
  mica_value sum = two(p, "class.sum", "scatter_add", classes, "x", s, "index", e.label);
  mica_value ones = one(p, "class.one", "scale", "alpha=0 beta=1", "x", mica_program_slice(p, s, 0, 1));
  mica_value count = two(p, "class.count", "scatter_add", classes, "x", ones, "index", e.label);
  mica_value mean = two(p, "class.mean", "div", NULL, "a", sum, "b", count);
  if (mean < 0) return mean;
  if (c->distance == COSINE) {
    mica_init start = { MICA_INIT_CONSTANT, c->temperature };
    mica_value factor = mica_program_param(p, "temperature", 0, NULL, start, 0);
    mica_value cosine = two(p, "cosine", "linear", NULL, "x", unit(p, "query", q), "w", unit(p, "class", mean));
    return two(p, "logits", "mul", NULL, "a", cosine, "b", factor);
  }
  mica_value square = one(p, "class.square", "square", NULL, "x", mean);
  mica_value length = one(p, "class.length", "sum", "axis=column", "x", square);
  mica_value bias = mica_program_reshape(p, one(p, "class.bias", "scale", "alpha=-1", "x", length), 1, &outputs);
  mica_bind binds[] = { { "x", q }, { "w", one(p, "class.weight", "scale", "alpha=2", "x", mean) }, { "b", bias } };
  return mica_program_op(p, "logits", "linear", NULL, 3, binds);
}

const mica_model micah_model_prototypes = {
  .size = sizeof(mica_model),
  .name = "prototypes",
  .doc = "class means of a convolutional embedding, logits by distance",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .build = build,
};
