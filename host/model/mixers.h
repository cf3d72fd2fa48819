/* mixers.h: what may stand in place of softmax attention in a transformer block: memories that are written while the
 * sequence is read. shared by models that have blocks. */
#ifndef MICAH_MODEL_MIXERS_H
#define MICAH_MODEL_MIXERS_H

#include "host/model/models.h"

enum { MICAH_MIXER_ATTENTION, MICAH_MIXER_LINEAR_ATTENTION, MICAH_MIXER_DELTA_RULE, MICAH_MIXER_GATED_DELTA,
       MICAH_MIXER_SRWM, MICAH_MIXER_MOMENTUM_ATTENTION, MICAH_MIXER_GRADIENT_MEMORY, MICAH_MIXER_MLP_MEMORY };

/* what the keys below fill */
typedef struct micah_mixer {
  int64_t kind, map, nu, features, unit, decay, period, read, hidden, conv;
  double  max_rate, decay_init, momentum_init, sharpness, key_init, rate_init, self_rate_init;
  int32_t normaliser, output_norm, gate;
} micah_mixer;

#define MICAH_MIXER_KEY(config, member, field, type, value, lo, hi, choices, doc) \
  { #field, type, offsetof(config, member.field), value, lo, hi, choices, doc }
/* rows of the key table of a config struct with a `micah_mixer member` */
#define MICAH_MIXER_KEYS(config, member)                                                                               \
  { "mixer", MICA_KEY_CHOICE, offsetof(config, member.kind), "attention", 0, 0,                                        \
    "attention|linear_attention|delta_rule|gated_delta|srwm|momentum_attention|gradient_memory|mlp_memory",            \
    "what lets tokens see each other" },                                                                               \
  { "feature_map", MICA_KEY_CHOICE, offsetof(config, member.map), "auto", 0, 0,                                        \
    "auto|identity|elu1|dpfp|favor|softmax|silu_l2",                                                                   \
    "of the keys and queries of a memory; auto: elu1 for linear_attention, else silu_l2" },                            \
  MICAH_MIXER_KEY(config, member, nu, MICA_KEY_INT, "1", 1, 512, NULL, "dpfp: 2 nu features a channel"),               \
  MICAH_MIXER_KEY(config, member, features, MICA_KEY_INT, "64", 1, 256, NULL, "favor: random features of a head"),     \
  { "feature_norm", MICA_KEY_CHOICE, offsetof(config, member.unit), "none", 0, 0, "none|l1|l2",                        \
    "what features are scaled to: a sum or a length of 1" },                                                           \
  MICAH_MIXER_KEY(config, member, normaliser, MICA_KEY_BOOL, "yes", 0, 0, NULL,                                        \
                  "linear_attention: divide by the reading of the sum of keys"),                                       \
  MICAH_MIXER_KEY(config, member, max_rate, MICA_KEY_REAL, "1", 0, 2, NULL,                                            \
                  "delta rules: a token's rate is this times a sigmoid"),                                              \
  MICAH_MIXER_KEY(config, member, decay, MICA_KEY_CHOICE, "head", 0, 0, "head|channel",                                \
                  "gated_delta: one factor a head, or one a key channel"),                                             \
  MICAH_MIXER_KEY(config, member, decay_init, MICA_KEY_REAL, "4", -20, 20, NULL,                                       \
                  "gated_delta, momentum_attention, gradient_memory, mlp_memory: what the factor's sigmoid starts "  \
                  "from"),                                                                                             \
  MICAH_MIXER_KEY(config, member, momentum_init, MICA_KEY_REAL, "-2", -20, 20, NULL,                                   \
                  "gradient_memory, mlp_memory: what the sigmoid of a token's momentum starts from"),                  \
  MICAH_MIXER_KEY(config, member, period, MICA_KEY_INT, "1", 1, 1 << 24, NULL,                                         \
                  "gradient_memory: tokens whose gradients are taken at the same matrix"),                             \
  { "read", MICA_KEY_CHOICE, offsetof(config, member.read), "running", 0, 0, "running|held",                           \
    "gradient_memory: a token reads the matrix after it, or the one its period began with" },                          \
  MICAH_MIXER_KEY(config, member, hidden, MICA_KEY_INT, "0", 0, 256, NULL,                                             \
                  "mlp_memory: hidden units of a head's network; 0: twice the channels of a head"),                    \
  MICAH_MIXER_KEY(config, member, sharpness, MICA_KEY_REAL, "3", 0, 1e3, NULL,                                         \
                  "srwm: what a token is multiplied by before the softmax over its channels"),                         \
  MICAH_MIXER_KEY(config, member, key_init, MICA_KEY_REAL, "8", 0, 1e3, NULL,                                          \
                  "srwm: standard deviation of the columns of queries and keys, in that of the columns of values"),    \
  MICAH_MIXER_KEY(config, member, rate_init, MICA_KEY_REAL, "0", -20, 20, NULL,                                        \
                  "srwm: what the sigmoid of the values' rate starts from"),                                           \
  MICAH_MIXER_KEY(config, member, self_rate_init, MICA_KEY_REAL, "-3", -20, 20, NULL,                                  \
                  "srwm: the same of the rates of queries, keys and rates"),                                           \
  MICAH_MIXER_KEY(config, member, conv, MICA_KEY_INT, "0", 0, 16, NULL,                                                \
                  "memories: weights a channel of a causal convolution of queries, keys and values; 0: none"),          \
  MICAH_MIXER_KEY(config, member, output_norm, MICA_KEY_BOOL, "yes", 0, 0, NULL,                                       \
                  "memories: scale each head's reading to the length of its size, with a gain a channel"),             \
  MICAH_MIXER_KEY(config, member, gate, MICA_KEY_BOOL, "no", 0, 0, NULL,                                               \
                  "memories: multiply the readings by silu of a linear map of the input")

/* where a mixer stands */
typedef struct micah_mixer_place {
  int64_t     width, heads;
  double      init;                          /* standard deviation of weights */
  int32_t     bias;
  const char *path;                          /* "blocks.0.mixer" */
} micah_mixer_place;

/* act(x w^T + b) + res under `path`; res -1: none */
mica_value micah_model_linear(mica_program *program, mica_value x, int64_t from, int64_t to, double init, int32_t bias,
                              const char *settings, mica_value res, const char *path);
/* rows (width) from rows (width) over one axis, any kind but MICAH_MIXER_ATTENTION. parameters: `path`.qkv, .rate,
 * .decay, .momentum, .conv, .norm, .gate; of mlp_memory .first and .second; of srwm blocks of columns: .value,
 * .query_key, .rate, .self_rate. the projection back to the residual stream is the caller's. */
mica_value micah_model_mixer(mica_program *program, const micah_mixer *mixer, const micah_mixer_place *place,
                             mica_value x);

#endif
