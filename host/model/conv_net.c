#include "host/model/conv_net.h"

#include <math.h>
#include <stdio.h>

enum { KERNEL = 3, POOL = 2 };

mica_status micah_conv_field(const char *model, const mica_field *fields, int32_t n, int32_t role, int32_t *at) {
  *at = -1;
  for (int32_t i = 0; i < n; i++) {
    if (fields[i].role != role || fields[i].dtype != MICA_F32) continue;
    if (*at >= 0)
      return mica_error(MICA_ERR_SHAPE, "model %s: takes one field of images, the family has '%s' and '%s'", model,
                        fields[*at].name, fields[i].name);
    *at = i;
  }
  if (*at < 0)
    return mica_error(MICA_ERR_SHAPE, "model %s: the family has no field of images%s", model,
                      role == MICA_FIELD_SUPPORT ? " to learn from; few_shot_images has one" : "");
  if (fields[*at].rank != 3)
    return mica_error(MICA_ERR_SHAPE, "model %s: rows of '%s' have rank %d, expected images (height, width, channels)",
                      model, fields[*at].name, (int)fields[*at].rank);
  return MICA_OK;
}

mica_status micah_conv_params_make(mica_program *p, const micah_conv_config *c, int64_t channels,
                                   micah_conv_params *out) {
  for (int64_t i = 0; i < c->blocks; i++) {
    char name[64];
    int64_t shape[] = { c->channels, channels, KERNEL, KERNEL };
    mica_init uniform = { MICA_INIT_UNIFORM, c->init / sqrt((double)(channels * KERNEL * KERNEL)) };
    mica_init zero = { MICA_INIT_ZERO, 0 }, one = { MICA_INIT_ONE, 0 };
    snprintf(name, sizeof name, "blocks.%d.conv.weight", (int)i);
    out->weight[i] = mica_program_param(p, name, 4, shape, uniform, 1);
    out->bias[i] = micah_model_param(p, zero, c->channels, 0, "blocks.%d.conv.bias", (int)i);
    out->gain[i] = out->shift[i] = -1;
    for (int k = 0; k < 2; k++) out->running[k][i] = out->seen[k][i] = -1;
    out->n_seen = 0;
    if (c->norm != MICAH_NORM_NONE) {
      out->gain[i] = micah_model_param(p, one, c->channels, 0, "blocks.%d.norm.weight", (int)i);
      out->shift[i] = micah_model_param(p, zero, c->channels, 0, "blocks.%d.norm.bias", (int)i);
      if (out->shift[i] < 0) return out->shift[i];
    }
    /* steps of an inner loop know nothing of them */
    for (int k = 0; k < 2 && c->norm == MICAH_NORM_RUNNING && mica_program_get_phase(p) != MICA_PHASE_STEP; k++) {
      out->running[k][i] = micah_model_param(p, k ? one : zero, c->channels, 0, "blocks.%d.norm.running_%s", (int)i,
                                             k ? "var" : "mean");
      if (out->running[k][i] < 0) return out->running[k][i];
    }
    if (out->weight[i] < 0 || out->bias[i] < 0) return out->weight[i] < 0 ? out->weight[i] : out->bias[i];
    channels = c->channels;
  }
  return MICA_OK;
}

static const double eps = 1e-5;      /* batch_norm's own */

static mica_value op(mica_program *p, const char *path, const char *name, const char *set, mica_value a, mica_value b) {
  mica_bind binds[] = { { b < 0 ? "x" : "a", a }, { "b", b } };
  return mica_program_op(p, path, name, set, b < 0 ? 1 : 2, binds);
}

static mica_value mean_of(mica_program *p, const char *path, mica_value x) {
  return op(p, path, "mean", "axis=row", x, -1);
}

/* mean and variance (biased, as those that normalise) of a block's convolution, added to what was seen. the variance is
 * that of a pixel over images and that of pixels' means: squares of differences alone, so that no digits are lost where
 * a mean is far from 0 */
static mica_status observe(mica_program *p, micah_conv_params *params, const char *path, int64_t i, mica_value x,
                           const int64_t pixels[2]) {
  char name[160];
  snprintf(name, sizeof name, "%s.statistics", path);
  mica_value flat = mica_program_reshape(p, x, 1, (int64_t[]){ pixels[0] * pixels[1] });
  mica_value of_pixel = mean_of(p, name, flat), means = mica_program_reshape(p, of_pixel, 2, pixels);
  mica_value away = op(p, name, "sub", NULL, flat, of_pixel);
  mica_value within = mica_program_reshape(p, mean_of(p, name, op(p, name, "square", NULL, away, -1)), 2, pixels);
  mica_value mean = mica_program_reshape(p, mean_of(p, name, means), 1, &pixels[1]);
  mica_value between = op(p, name, "square", NULL, op(p, name, "sub", NULL, means, mean), -1);
  mica_value var = mean_of(p, name, op(p, name, "add", NULL, within, between));
  mica_value now[] = { mean, mica_program_reshape(p, var, 1, &pixels[1]) };
  for (int k = 0; k < 2; k++) {
    mica_value before = params->seen[k][i];
    params->seen[k][i] = before < 0 ? now[k] : op(p, name, "add", NULL, before, now[k]);
    if (params->seen[k][i] < 0) return params->seen[k][i];
  }
  return MICA_OK;
}

/* a convolution and its normalisation by given statistics are another convolution: weights times gain / deviation */
static mica_status fold(mica_program *p, const micah_conv_config *c, const micah_conv_params *params, const char *path,
                        int64_t i, mica_value *w, mica_value *b) {
  char name[160], set[48];
  mica_value_info info;
  mica_status status = mica_program_info(p, *w, &info);
  if (status < 0) return status;
  snprintf(name, sizeof name, "%sblocks.%d.fold", path, (int)i);
  snprintf(set, sizeof set, "beta=%.17g", eps);
  int64_t column[] = { c->channels, 1 }, flat[] = { c->channels, info.count / c->channels };
  mica_value deviation = op(p, name, "sqrt", NULL, op(p, name, "scale", set, params->running[1][i], -1), -1);
  mica_value factor = op(p, name, "div", NULL, params->gain[i], deviation);
  mica_value away = op(p, name, "sub", NULL, *b, params->running[0][i]);
  *b = op(p, name, "add", NULL, op(p, name, "mul", NULL, away, factor), params->shift[i]);
  *w = op(p, name, "mul", NULL, mica_program_reshape(p, *w, 2, flat), mica_program_reshape(p, factor, 2, column));
  *w = mica_program_reshape(p, *w, 4, info.shape);
  return *w < 0 ? *w : *b < 0 ? *b : MICA_OK;
}

mica_status micah_conv_follow(mica_program *p, const micah_conv_config *c, const micah_conv_params *params) {
  char part[64], keep[64], name[160];
  if (!params->n_seen) return MICA_OK;
  snprintf(part, sizeof part, "alpha=%.17g", c->momentum / params->n_seen);
  snprintf(keep, sizeof keep, "alpha=%.17g", 1 - c->momentum);
  for (int64_t i = 0; i < c->blocks; i++)
    for (int k = 0; k < 2; k++) {
      snprintf(name, sizeof name, "average.blocks.%d.norm.running_%s", (int)i, k ? "var" : "mean");
      mica_value old = op(p, name, "scale", keep, params->running[k][i], -1);
      mica_value next = op(p, name, "add", NULL, op(p, name, "scale", part, params->seen[k][i], -1), old);
      mica_status status = mica_program_output(p, name, next);
      if (status < 0) return status;
    }
  return MICA_OK;
}

mica_value micah_conv_embed(mica_program *p, const micah_conv_config *c, micah_conv_params *params,
                            const char *path, mica_value x) {
  mica_value_info info;
  char name[128], settings[32];
  snprintf(settings, sizeof settings, "pad=%lld", (long long)c->pad);
  int running = c->norm == MICAH_NORM_RUNNING, phase = mica_program_get_phase(p);
  int given = running && phase == MICA_PHASE_EVALUATE;
  for (int64_t i = 0; i < c->blocks; i++) {
    mica_value w = params->weight[i], b = params->bias[i];
    mica_status folded = given ? fold(p, c, params, path, i, &w, &b) : MICA_OK;
    if (folded < 0) return folded;
    mica_bind conv[] = { { "x", x }, { "w", w }, { "b", b } };
    snprintf(name, sizeof name, "%sblocks.%d.conv", path, (int)i);
    x = mica_program_op(p, name, "conv2d", settings, 3, conv);
    mica_status status = x < 0 ? x : mica_program_info(p, x, &info);
    if (status < 0) return status;
    if (info.shape[0] < POOL || info.shape[1] < POOL)
      return mica_error(MICA_ERR_SHAPE, "model: block %d sees images of %lld x %lld, expected at least %d x %d; take "
                        "fewer blocks", (int)i, (long long)info.shape[0], (long long)info.shape[1], (int)POOL,
                        (int)POOL);
    if (c->norm != MICAH_NORM_NONE && !given) {
      int64_t pixels[] = { info.shape[0] * info.shape[1], info.shape[2] };
      mica_bind norm[] = { { "x", x }, { "w", params->gain[i] }, { "b", params->shift[i] } };
      snprintf(name, sizeof name, "%sblocks.%d.norm", path, (int)i);
      if (running && phase == MICA_PHASE_TRAIN && (status = observe(p, params, name, i, x, pixels)) < 0) return status;
      x = mica_program_op(p, name, "batch_norm_pool", "size=2 act=relu", 3, norm);
      if (x < 0) return x;
      continue;
    }
    /* the largest of four and then relu: the same numbers and derivatives as relu before, on a quarter of the pixels */
    mica_bind image = { "x", x };
    snprintf(name, sizeof name, "%sblocks.%d.pool", path, (int)i);
    x = mica_program_op(p, name, "max_pool", "size=2", 1, &image);
    status = x < 0 ? x : mica_program_info(p, x, &info);
    if (status < 0) return status;
    mica_bind flat = { "x", mica_program_reshape(p, x, 1, &info.count) };
    snprintf(name, sizeof name, "%sblocks.%d.relu", path, (int)i);
    x = mica_program_reshape(p, mica_program_op(p, name, "relu", NULL, 1, &flat), 3, info.shape);
    if (x < 0) return x;
  }
  mica_status status = mica_program_info(p, x, &info);
  params->n_seen += running && phase == MICA_PHASE_TRAIN && c->blocks > 0;
  return status < 0 ? status : mica_program_reshape(p, x, 1, &info.count);
}

mica_status micah_conv_episode(mica_program *p, const char *model, const micah_conv_config *c, const mica_field *fields,
                               const mica_value *inputs, int32_t n, int64_t outputs, micah_episode *out) {
  int32_t query, support, label = -1;
  micah_conv_params params;
  mica_status status = micah_conv_field(model, fields, n, MICA_FIELD_INPUT, &query);
  if (status >= 0) status = micah_conv_field(model, fields, n, MICA_FIELD_SUPPORT, &support);
  for (int32_t i = 0; i < n; i++)
    if (fields[i].role == MICA_FIELD_SUPPORT && fields[i].dtype == MICA_I32) label = i;
  if (status >= 0 && (label < 0 || fields[label].rank != 0 || fields[label].range != outputs))
    return mica_error(MICA_ERR_SHAPE, "model %s: the family has no classes of the support, scalars below %lld", model,
                      (long long)outputs);
  if (status >= 0) status = micah_conv_params_make(p, c, fields[query].shape[2], &params);
  if (status < 0) return status;
  out->support = micah_conv_embed(p, c, &params, "support.", inputs[support]);
  out->query = micah_conv_embed(p, c, &params, "query.", inputs[query]);
  out->label = inputs[label];
  if ((status = micah_conv_follow(p, c, &params)) < 0) return status;
  return out->support < 0 ? out->support : out->query < 0 ? out->query : MICA_OK;
}

/* ---- the model: the embedding and a linear head ---- */

typedef struct config { micah_conv_config conv; } config;

static const mica_key keys[] = { MICAH_CONV_KEYS(config) };

static mica_value build(mica_program *p, const void *settings, const mica_field *fields, const mica_value *inputs,
                        int32_t n, int64_t longest, int64_t outputs) {
  const config *c = settings;
  (void)longest;
  int32_t at;
  micah_conv_params params;
  mica_status status = micah_conv_field("conv_net", fields, n, MICA_FIELD_INPUT, &at);
  if (status >= 0) status = micah_conv_params_make(p, &c->conv, fields[at].shape[2], &params);
  if (status < 0) return status;
  mica_value x = micah_conv_embed(p, &c->conv, &params, "", inputs[at]);
  mica_value_info info;
  if ((status = micah_conv_follow(p, &c->conv, &params)) < 0) return status;
  if (x < 0 || (status = mica_program_info(p, x, &info)) < 0) return x < 0 ? x : status;
  mica_init uniform = { MICA_INIT_UNIFORM, c->conv.init / sqrt((double)info.count) }, zero = { MICA_INIT_ZERO, 0 };
  mica_bind binds[] = { { "x", x }, { "w", micah_model_param(p, uniform, outputs, info.count, "head.weight") },
                        { "b", micah_model_param(p, zero, outputs, 0, "head.bias") } };
  return mica_program_op(p, "head", "linear", NULL, 3, binds);
}

const mica_model micah_model_conv_net = {
  .size = sizeof(mica_model),
  .name = "conv_net",
  .doc = "blocks of convolution, batch norm, relu and max pool on images, and a linear head",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .build = build,
};
