/* conv_net.h: the embedding of images that few-shot learners share (Vinyals et al. 2016): blocks of a 3 x 3
 * convolution, batch norm over the task's rows, relu and a max pool of 2 x 2. */
#ifndef MICAH_MODEL_CONV_NET_H
#define MICAH_MODEL_CONV_NET_H

#include "host/model/models.h"

enum { MICAH_CONV_BLOCKS = 8 };

typedef struct micah_conv_config {
  int64_t blocks, channels, pad, norm;
  double  init, momentum;
} micah_conv_config;

/* rows of a key table over a config struct whose field `conv` is a micah_conv_config */
#define MICAH_CONV_KEY(type, field, kind, value, lo, hi, choices, doc) \
  { #field, kind, offsetof(type, conv) + offsetof(micah_conv_config, field), value, lo, hi, choices, doc }
#define MICAH_CONV_KEYS(type)                                                                                         \
  MICAH_CONV_KEY(type, blocks, MICA_KEY_INT, "4", 0, MICAH_CONV_BLOCKS, NULL,                                         \
                 "blocks of convolution, norm, relu and pool"),                                                       \
  MICAH_CONV_KEY(type, channels, MICA_KEY_INT, "64", 1, 4096, NULL, "channels of every block"),                       \
  MICAH_CONV_KEY(type, pad, MICA_KEY_INT, "1", 0, 2, NULL, "zeros around the image of every convolution"),            \
  MICAH_CONV_KEY(type, norm, MICA_KEY_CHOICE, "batch", 0, 0, "batch|none|running",                                    \
                 "after each convolution: statistics of the task's rows (transductive); nothing; those in training "  \
                 "and in an inner loop, and in evaluation their running averages over training's tasks"),             \
  MICAH_CONV_KEY(type, momentum, MICA_KEY_REAL, "0.1", 0, 1, NULL, "part of running averages that a step renews"),    \
  MICAH_CONV_KEY(type, init, MICA_KEY_REAL, "1", 0, 100, NULL,                                                        \
                 "initial weights are uniform in +- init / sqrt(inputs of an output)")

enum { MICAH_NORM_BATCH, MICAH_NORM_NONE, MICAH_NORM_RUNNING };

/* parameters `blocks.N.conv.weight|bias`, `blocks.N.norm.weight|bias` and `blocks.N.norm.running_mean|running_var`; the
 * statistics (0 mean, 1 variance) of what was embedded, one set of images after another */
typedef struct micah_conv_params {
  mica_value weight[MICAH_CONV_BLOCKS], bias[MICAH_CONV_BLOCKS], gain[MICAH_CONV_BLOCKS], shift[MICAH_CONV_BLOCKS];
  mica_value running[2][MICAH_CONV_BLOCKS], seen[2][MICAH_CONV_BLOCKS];
  int32_t    n_seen;
} micah_conv_params;
mica_status micah_conv_params_make(mica_program *program, const micah_conv_config *config, int64_t channels,
                                   micah_conv_params *out);
/* rows of images (H,W,C) -> rows of numbers; `path` begins the names of its operations */
mica_value  micah_conv_embed(mica_program *program, const micah_conv_config *config, micah_conv_params *params,
                             const char *path, mica_value images);
/* when all is embedded: the running statistics' next values (mica/model.h), where there are any */
mica_status micah_conv_follow(mica_program *program, const micah_conv_config *config, const micah_conv_params *params);

/* the one F32 field of a role with rows of images; errors name the model */
mica_status micah_conv_field(const char *model, const mica_field *fields, int32_t n, int32_t role, int32_t *at);

/* what learners with a support of classes start from: both sets of images embedded by the same parameters, and the
 * support's labels, scalars below `outputs` */
typedef struct micah_episode { mica_value support, query, label; } micah_episode;
mica_status micah_conv_episode(mica_program *program, const char *model, const micah_conv_config *config,
                               const mica_field *fields, const mica_value *inputs, int32_t n, int64_t outputs,
                               micah_episode *out);

#endif
