#include "host/model/mixers.h"

#include <math.h>
#include <stdio.h>

mica_value micah_model_linear(mica_program *program, mica_value x, int64_t from, int64_t to, double init, int32_t bias,
                              const char *settings, mica_value res, const char *path) {
  mica_init normal = { MICA_INIT_NORMAL, init }, zero = { MICA_INIT_ZERO, 0 };
  mica_bind binds[4] = { { "x", x }, { "w", micah_model_param(program, normal, to, from, "%s.weight", path) } };
  int32_t n = 2;
  if (bias) binds[n++] = (mica_bind){ "b", micah_model_param(program, zero, to, 0, "%s.bias", path) };
  if (res >= 0) binds[n++] = (mica_bind){ "res", res };
  return mica_program_op(program, path, "linear", settings, n, binds);
}

/* one mixer while it is built */
typedef struct site {
  mica_program            *program;
  const micah_mixer       *m;
  const micah_mixer_place *at;
  mica_value               x;
} site;

static mica_value op1(const site *s, const char *part, const char *op, const char *settings, mica_value x) {
  char path[96];
  snprintf(path, sizeof path, "%s.%s", s->at->path, part);
  return mica_program_op(s->program, path, op, settings, 1, (mica_bind[]){ { "x", x } });
}
static mica_value project(const site *s, const char *part, int64_t to) {
  char path[96];
  snprintf(path, sizeof path, "%s.%s", s->at->path, part);
  return micah_model_linear(s->program, s->x, s->at->width, to, s->at->init, s->at->bias, NULL, -1, path);
}
/* sigmoid(linear map + constant), times `most`: rows (n) */
static mica_value squashed(const site *s, const char *part, int64_t n, double start, double most) {
  char path[96], sub[32], settings[64];
  snprintf(path, sizeof path, "%s.%s", s->at->path, part);
  mica_init normal = { MICA_INIT_NORMAL, s->at->init }, constant = { MICA_INIT_CONSTANT, start };
  mica_bind binds[] = {
    { "x", s->x },
    { "w", micah_model_param(s->program, normal, n, s->at->width, "%s.weight", path) },
    { "b", micah_model_param(s->program, constant, n, 0, "%s.bias", path) },
  };
  mica_value y = mica_program_op(s->program, path, "linear", NULL, 3, binds);
  snprintf(sub, sizeof sub, "%s.sigmoid", part);
  y = op1(s, sub, "sigmoid", NULL, y);
  if (most == 1) return y;
  snprintf(sub, sizeof sub, "%s.scale", part);
  snprintf(settings, sizeof settings, "alpha=%.9g", most);
  return op1(s, sub, "scale", settings, y);
}

/* rows (n): weighted sums of each channel's last few tokens, where `conv` asks for them */
static mica_value convolved(const site *s, mica_value x, int64_t n) {
  char path[96];
  if (!s->m->conv) return x;
  snprintf(path, sizeof path, "%s.conv", s->at->path);
  mica_init normal = { MICA_INIT_NORMAL, 1 / sqrt((double)s->m->conv) };
  mica_bind binds[] = { { "x", x }, { "w", micah_model_param(s->program, normal, s->m->conv, n, "%s.weight", path) } };
  return mica_program_op(s->program, path, "short_conv", NULL, 2, binds);
}

/* ---- features of keys and queries ---- */

enum { MAP_AUTO, MAP_IDENTITY, MAP_ELU1, MAP_DPFP, MAP_FAVOR };
static const char *const maps[] = { NULL, "identity", "elu1", "dpfp", "favor", "softmax", "silu_l2" };

/* features of a head */
static int64_t features(const micah_mixer *m, int64_t D) {
  return m->map == MAP_DPFP ? 2 * D * m->nu : m->map == MAP_FAVOR ? m->features : D;
}
/* rows (width) to rows (heads, features) */
static mica_value featured(const site *s, const char *part, mica_value x) {
  int64_t D = s->at->width / s->at->heads, heads[2] = { s->at->heads, D };
  const char *map = s->m->map != MAP_AUTO ? maps[s->m->map]
                    : s->m->kind == MICAH_MIXER_LINEAR_ATTENTION ? "elu1" : "silu_l2";
  char path[32], settings[64];
  if (s->m->map == MAP_FAVOR) {
    /* then <phi(q), phi(k)> estimates exp(<q, k> / sqrt(D)) */
    snprintf(path, sizeof path, "%s.scale", part);
    snprintf(settings, sizeof settings, "alpha=%.9g", pow((double)D, -0.25));
    x = op1(s, path, "scale", settings, x);
    snprintf(settings, sizeof settings, "map=favor F=%lld", (long long)s->m->features);
  } else if (s->m->map == MAP_DPFP) {
    snprintf(settings, sizeof settings, "map=dpfp nu=%lld", (long long)s->m->nu);
  } else {
    snprintf(settings, sizeof settings, "map=%s", map);
  }
  x = mica_program_reshape(s->program, x, 2, heads);
  if (s->m->map != MAP_IDENTITY) x = op1(s, part, "feature_map", settings, x);
  if (!s->m->unit) return x;
  snprintf(path, sizeof path, "%s.unit", part);
  return op1(s, path, "feature_map", s->m->unit == 1 ? "map=l1" : "map=l2", x);
}

/* ---- what is read ---- */

/* readings (heads, D) to rows (width), by output norm and gate */
static mica_value finished(const site *s, mica_value y) {
  int64_t width = s->at->width;
  char path[96], settings[64];
  if (s->m->output_norm) {
    /* rmsnorm of a head with eps 1e-5: sqrt(D) y / sqrt(|y|^2 + D eps) */
    double D = (double)(width / s->at->heads);
    mica_init gain = { MICA_INIT_CONSTANT, sqrt(D) };
    snprintf(settings, sizeof settings, "map=l2 eps=%.9g", 1e-5 * D);
    y = mica_program_reshape(s->program, op1(s, "norm", "feature_map", settings, y), 1, &width);
    snprintf(path, sizeof path, "%s.norm.gain", s->at->path);
    mica_value w = micah_model_param(s->program, gain, width, 0, "%s.norm.weight", s->at->path);
    y = mica_program_op(s->program, path, "mul", NULL, 2, (mica_bind[]){ { "a", y }, { "b", w } });
  }
  y = mica_program_reshape(s->program, y, 1, &width);
  if (!s->m->gate) return y;
  mica_value g = op1(s, "gate.silu", "silu", NULL, project(s, "gate", width));
  snprintf(path, sizeof path, "%s.gated", s->at->path);
  return mica_program_op(s->program, path, "mul", NULL, 2, (mica_bind[]){ { "a", y }, { "b", g } });
}

/* ---- kinds ---- */

/* one more block of a matrix's columns; left -1: the first */
static mica_value beside(const site *s, mica_value left, const char *block, int64_t columns, mica_init init,
                         int32_t decay) {
  int64_t shape[2] = { s->at->width, columns };
  char path[96];
  snprintf(path, sizeof path, "%s.%s", s->at->path, block);
  mica_value right = mica_program_param(s->program, path, 2, shape, init, decay);
  if (left < 0) return right;
  snprintf(path, sizeof path, "%s.with_%s", s->at->path, block);
  return mica_program_op(s->program, path, "concat", "axis=column", 2, (mica_bind[]){ { "a", left }, { "b", right } });
}
/* the matrix itself is the parameter; it is the initial state of every task. its features sum to 1, so what a column of
 * rates starts from is a bias */
static mica_value self_referential(const site *s) {
  int64_t D = s->at->width / s->at->heads, heads[2] = { s->at->heads, D }, shape[3] = { s->at->heads, D, 3 * D + 4 };
  double std = 1 / sqrt((double)D);
  char settings[64];
  snprintf(settings, sizeof settings, "alpha=%.9g", s->m->sharpness);
  mica_value x = op1(s, "sharpness", "scale", settings, convolved(s, s->x, s->at->width));
  mica_value w = beside(s, -1, "value", D, (mica_init){ MICA_INIT_NORMAL, std }, 1);
  w = beside(s, w, "query_key", 2 * D, (mica_init){ MICA_INIT_NORMAL, s->m->key_init * std }, 1);
  w = beside(s, w, "rate", 1, (mica_init){ MICA_INIT_CONSTANT, s->m->rate_init }, 0);
  w = beside(s, w, "self_rate", 3, (mica_init){ MICA_INIT_CONSTANT, s->m->self_rate_init }, 0);
  mica_bind binds[] = { { "x", mica_program_reshape(s->program, x, 2, heads) },
                        { "state_in", mica_program_reshape(s->program, w, 3, shape) } };
  return mica_program_op(s->program, s->at->path, "srwm", NULL, 2, binds);
}

/* causal softmax attention plus the decayed sum of past values (Dai et al. 2023): a memory with one key, always 1 */
static mica_value momentum_attention(const site *s, const mica_value part[3]) {
  int64_t D = s->at->width / s->at->heads, heads[2] = { s->at->heads, D }, one[2] = { s->at->heads, 1 };
  mica_value head[3], eta = squashed(s, "decay", s->at->heads, s->m->decay_init, 1);
  mica_value key = mica_program_reshape(s->program, op1(s, "key", "scale", "alpha=0 beta=1", eta), 2, one);
  char path[96];
  for (int i = 0; i < 3; i++) head[i] = mica_program_reshape(s->program, part[i], 2, heads);
  snprintf(path, sizeof path, "%s.momentum", s->at->path);
  mica_value sum = mica_program_op(s->program, path, "linear_attention", NULL, 4,
                                   (mica_bind[]){ { "q", key }, { "k", key }, { "v", head[2] },
                                                  { "decay", mica_program_reshape(s->program, eta, 2, one) } });
  mica_value y = mica_program_op(s->program, s->at->path, "attention", "mask=causal", 3,
                                 (mica_bind[]){ { "q", head[0] }, { "k", head[1] }, { "v", head[2] } });
  snprintf(path, sizeof path, "%s.sum", s->at->path);
  return mica_program_op(s->program, path, "add", NULL, 2,
                         (mica_bind[]){ { "a", mica_program_reshape(s->program, y, 1, &s->at->width) },
                                        { "b", mica_program_reshape(s->program, sum, 1, &s->at->width) } });
}

/* a layer of each head's network as every task begins with it */
static mica_value layer(const site *s, const char *part, int64_t from, int64_t to) {
  int64_t shape[3] = { s->at->heads, from, to };
  char path[96];
  snprintf(path, sizeof path, "%s.%s", s->at->path, part);
  return mica_program_param(s->program, path, 3, shape, (mica_init){ MICA_INIT_NORMAL, 1 / sqrt((double)from) }, 1);
}

mica_value micah_model_mixer(mica_program *program, const micah_mixer *mixer, const micah_mixer_place *place,
                             mica_value x) {
  static const char *const ops[] = { NULL, "linear_attention", "delta_rule", "gated_delta", NULL, NULL,
                                     "gradient_memory", "mlp_memory" };
  const site s = { program, mixer, place, x };
  int64_t D = place->width / place->heads, K = features(mixer, D), heads[2] = { place->heads, D };
  if (mixer->kind == MICAH_MIXER_SRWM) return finished(&s, self_referential(&s));
  if (K > 256)
    return mica_error(MICA_ERR_CONFIG, "mixer %s: %lld features a head, expected at most 256", ops[mixer->kind],
                      (long long)K);
  mica_value part[3], qkv = convolved(&s, project(&s, "qkv", 3 * place->width), 3 * place->width);
  for (int i = 0; i < 3; i++) part[i] = mica_program_slice(program, qkv, i * place->width, place->width);
  if (mixer->kind == MICAH_MIXER_MOMENTUM_ATTENTION)
    return finished(&s, mica_program_reshape(program, momentum_attention(&s, part), 2, heads));
  mica_bind binds[8] = { { "q", featured(&s, "q", part[0]) },
                         { "k", featured(&s, "k", part[1]) },
                         { "v", mica_program_reshape(program, part[2], 2, heads) } };
  int32_t n = 3;
  if (mixer->kind != MICAH_MIXER_LINEAR_ATTENTION)
    binds[n++] = (mica_bind){ "beta", squashed(&s, "rate", place->heads, 0, mixer->max_rate) };
  if (mixer->kind == MICAH_MIXER_GATED_DELTA) {
    int64_t factors[2] = { place->heads, mixer->decay ? K : 1 };
    mica_value decay = squashed(&s, "decay", factors[0] * factors[1], mixer->decay_init, 1);
    binds[n++] = (mica_bind){ "decay", mica_program_reshape(program, decay, 2, factors) };
  }
  char settings[64] = "";
  if (mixer->kind == MICAH_MIXER_LINEAR_ATTENTION && mixer->normaliser)
    snprintf(settings, sizeof settings, "normalise=yes eps=1e-6");
  int network = mixer->kind == MICAH_MIXER_MLP_MEMORY;
  if (network || mixer->kind == MICAH_MIXER_GRADIENT_MEMORY) {
    binds[n++] = (mica_bind){ "decay", squashed(&s, "decay", place->heads, mixer->decay_init, 1) };
    binds[n++] = (mica_bind){ "momentum", squashed(&s, "momentum", place->heads, mixer->momentum_init, 1) };
  }
  if (mixer->kind == MICAH_MIXER_GRADIENT_MEMORY)
    snprintf(settings, sizeof settings, "period=%lld read=%s", (long long)mixer->period,
             mixer->read ? "held" : "running");
  if (network) {
    int64_t F = mixer->hidden ? mixer->hidden : 2 * D;
    binds[n++] = (mica_bind){ "first_in", layer(&s, "first", K, F) };
    binds[n++] = (mica_bind){ "second_in", layer(&s, "second", F, D) };
  }
  return finished(&s, mica_program_op(program, place->path, ops[mixer->kind], settings, n, binds));
}
