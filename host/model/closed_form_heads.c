/* closed-form heads (Bertinetto, Henriques, Torr, Vedaldi 2019, "R2-D2" and "LR-D2"): the classes of the support are
 * regressed on its embedding with a ridge, by least squares or class by class by a logistic regression, and the
 * derivatives go through the solution. the strength of the ridge, and a factor and an offset of the logits, are learned. */
#include <math.h>
#include <stdio.h>

#include "host/model/conv_net.h"

typedef struct config {
  micah_conv_config conv;
  double            ridge, factor;
} config;

static const mica_key keys[] = {
  MICAH_CONV_KEYS(config),
  { "ridge", MICA_KEY_REAL, offsetof(config, ridge), "1", 1e-6, 1e6, NULL,
    "where the learned strength of the penalty on the head's weights starts" },
  { "factor", MICA_KEY_REAL, offsetof(config, factor), "10", 0, 1e6, NULL, "where the learned factor of the logits starts" },
};

static mica_value head(mica_program *p, const char *model, const char *regression, const config *c,
                       const mica_field *fields, const mica_value *inputs, int32_t n, int64_t outputs) {
  micah_episode e;
  mica_status status = micah_conv_episode(p, model, &c->conv, fields, inputs, n, outputs, &e);
  if (status < 0) return status;
  char classes[32];
  snprintf(classes, sizeof classes, "O=%lld", (long long)outputs);
  mica_init start = { MICA_INIT_CONSTANT, log(c->ridge) }, factor = { MICA_INIT_CONSTANT, c->factor };
  mica_init zero = { MICA_INIT_ZERO, 0 };
  mica_bind strength = { "x", mica_program_param(p, "head.log_ridge", 0, NULL, start, 0) };
  mica_bind fit[] = { { "x", e.support }, { "label", e.label },
                      { "ridge", mica_program_op(p, "head.ridge", "exp", NULL, 1, &strength) } };
  mica_bind apply[] = { { "x", e.query }, { "w", mica_program_op(p, "head.fit", regression, classes, 3, fit) } };
  mica_bind scaled[] = { { "a", mica_program_op(p, "head.apply", "linear", NULL, 2, apply) },
                         { "b", mica_program_param(p, "head.factor", 0, NULL, factor, 0) } };
  mica_bind moved[] = { { "a", mica_program_op(p, "head.scaled", "mul", NULL, 2, scaled) },
                        { "b", mica_program_param(p, "head.offset", 0, NULL, zero, 0) } };
  return mica_program_op(p, "logits", "add", NULL, 2, moved);
}

static mica_value build_ridge(mica_program *p, const void *settings, const mica_field *fields, const mica_value *inputs,
                              int32_t n, int64_t longest, int64_t outputs) {
  (void)longest;
  return head(p, "ridge_head", "ridge", settings, fields, inputs, n, outputs);
}
static mica_value build_logistic(mica_program *p, const void *settings, const mica_field *fields,
                                 const mica_value *inputs, int32_t n, int64_t longest, int64_t outputs) {
  (void)longest;
  return head(p, "logistic_head", "logistic", settings, fields, inputs, n, outputs);
}

const mica_model micah_model_ridge_head = {
  .size = sizeof(mica_model),
  .name = "ridge_head",
  .doc = "ridge regression of the support's classes on a convolutional embedding, solved in closed form",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .build = build_ridge,
};
const mica_model micah_model_logistic_head = {
  .size = sizeof(mica_model),
  .name = "logistic_head",
  .doc = "logistic regressions of the support's classes on a convolutional embedding, by Newton's method",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .build = build_logistic,
};
