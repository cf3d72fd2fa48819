/* a pre-norm decoder as in GPT-2 (Radford et al. 2019): x += proj(attention(norm(x))); x += down(act(up(norm(x)))).
 * other mixers than attention: mixers.h. */
#include <math.h>
#include <stdio.h>

#include "host/model/mixers.h"

typedef struct config {
  int64_t layers, width, heads, positions, norm, activation, mask, prefix, window, max_length, adapter_rank, prompt_length;
  double  mlp, init, eps;
  int32_t bias;
  micah_mixer mixer;
} config;

#define ACTIVATIONS "gelu|gelu_tanh|relu|silu"
enum { POSITIONS_LEARNED, POSITIONS_ROTARY, POSITIONS_NONE, POSITIONS_ALIBI };
enum { NORM_LAYERNORM, NORM_RMSNORM };
enum { MASK_CAUSAL, MASK_FULL, MASK_PREFIX, MASK_CONTEXT, MASK_WINDOW };

#define KEY(field, type, value, lo, hi, choices, doc)                                                                  \
  { #field, type, offsetof(config, field), value, lo, hi, choices, doc }
static const mica_key keys[] = {
  KEY(layers, MICA_KEY_INT, "4", 1, 1024, NULL, "blocks"),
  KEY(width, MICA_KEY_INT, "128", 1, 65536, NULL, "channels of the residual stream"),
  KEY(heads, MICA_KEY_INT, "4", 1, 1024, NULL, "attention heads; must divide width"),
  KEY(mlp, MICA_KEY_REAL, "4", 1e-3, 64, NULL, "hidden channels of a block's MLP, in widths"),
  KEY(positions, MICA_KEY_CHOICE, "learned", 0, 0, "learned|rotary|none|alibi",
      "how a token knows its place; alibi: scores fall with the distance, by a learned slope a head"),
  KEY(max_length, MICA_KEY_INT, "0", 0, 1 << 24, NULL, "learned positions; 0: the longest sequence of the family"),
  KEY(norm, MICA_KEY_CHOICE, "layernorm", 0, 0, "layernorm|rmsnorm",
      "normalisation before each sublayer and at the end"),
  KEY(eps, MICA_KEY_REAL, "1e-5", 1e-12, 1, NULL, "added to the variance in a normalisation"),
  KEY(activation, MICA_KEY_CHOICE, "gelu", 0, 0, ACTIVATIONS, "of the MLP"),
  KEY(mask, MICA_KEY_CHOICE, "causal", 0, 0, "causal|full|prefix|context|window",
      "what a token sees: those before it and itself; all; the first `prefix` too; those and itself only; the last `window`"),
  KEY(prefix, MICA_KEY_INT, "0", 0, 1 << 24, NULL, "tokens of mask=prefix and context that all see"),
  KEY(window, MICA_KEY_INT, "64", 1, 1 << 24, NULL, "tokens that mask=window sees, itself among them"),
  KEY(bias, MICA_KEY_BOOL, "yes", 0, 0, NULL, "biases in linear maps and layernorm"),
  KEY(init, MICA_KEY_REAL, "0.02", 0, 10, NULL,
      "standard deviation of initial weights; residual projections have 1/sqrt(2 layers) of it"),
  KEY(adapter_rank, MICA_KEY_INT, "0", 0, 65536, NULL,
      "each linear map of a block gets x A^T B^T of this rank added (Hu et al. 2021), B zero at first; 0: none. "
      "inner.trained=*.lora_* adapts these alone"),
  KEY(prompt_length, MICA_KEY_INT, "0", 0, 65536, NULL,
      "learned embeddings in front of each sequence that all its tokens see (prompt.weight; Lester et al. 2021); 0: none. "
      "inner.trained=prompt.* adapts these alone"),
  MICAH_MIXER_KEYS(config, mixer),
};

static mica_value norm(mica_program *p, const config *c, mica_value x, const char *path) {
  static const char *const ops[] = { "layernorm", "rmsnorm" };
  char settings[64];
  snprintf(settings, sizeof settings, "eps=%.9g", c->eps);
  mica_init one = { MICA_INIT_ONE, 0 }, zero = { MICA_INIT_ZERO, 0 };
  mica_bind binds[3] = { { "x", x }, { "w", micah_model_param(p, one, c->width, 0, "%s.weight", path) } };
  int32_t n = 2;
  if (c->norm == NORM_LAYERNORM && c->bias)
    binds[n++] = (mica_bind){ "b", micah_model_param(p, zero, c->width, 0, "%s.bias", path) };
  return mica_program_op(p, path, ops[c->norm], settings, n, binds);
}

/* x w^T + b + res, with what adapters add; res -1: none */
static mica_value linear(mica_program *p, const config *c, mica_value x, int64_t from, int64_t to, double scale,
                         mica_value res, const char *path) {
  mica_value y = micah_model_linear(p, x, from, to, scale, c->bias, NULL, res, path);
  if (!c->adapter_rank || y < 0) return y;
  mica_init normal = { MICA_INIT_NORMAL, 1 / sqrt((double)from) }, zero = { MICA_INIT_ZERO, 0 };
  mica_value w[] = { micah_model_param(p, normal, c->adapter_rank, from, "%s.lora_A.weight", path),
                     micah_model_param(p, zero, to, c->adapter_rank, "%s.lora_B.weight", path) };
  char place[2][96];
  for (int i = 0; i < 2; i++) snprintf(place[i], sizeof place[i], "%s.lora_%c", path, "AB"[i]);
  x = mica_program_op(p, place[0], "linear", NULL, 2, (mica_bind[]){ { "x", x }, { "w", w[0] } });
  return mica_program_op(p, place[1], "linear", NULL, 3, (mica_bind[]){ { "x", x }, { "w", w[1] }, { "res", y } });
}

static mica_value attention(mica_program *p, const config *c, mica_value x, int64_t layer) {
  static const char *const masks[] = { "causal", "full", "prefix", "context", "window" };
  int64_t width = c->width, heads[2] = { c->heads, width / c->heads };
  mica_value part[3];
  char path[64];
  for (int i = 0; i < 3; i++) {
    /* q, k and v are views of one product */
    part[i] = mica_program_reshape(p, mica_program_slice(p, x, i * width, width), 2, heads);
    if (c->positions == POSITIONS_ROTARY && i < 2) {
      snprintf(path, sizeof path, "blocks.%lld.attn.rotary_%c", (long long)layer, "qk"[i]);
      part[i] = mica_program_op(p, path, "rotary", NULL, 1, (mica_bind[]){ { "x", part[i] } });
    }
  }
  char settings[96];
  snprintf(settings, sizeof settings, "mask=%s prefix=%lld window=%lld", masks[c->mask],
           (long long)(c->prefix + c->prompt_length),
           (long long)c->window);
  snprintf(path, sizeof path, "blocks.%lld.attn", (long long)layer);
  mica_bind binds[4] = { { "q", part[0] }, { "k", part[1] }, { "v", part[2] } };
  int32_t n = 3;
  if (c->positions == POSITIONS_ALIBI) {
    mica_init slope = { MICA_INIT_CONSTANT, 1 / 16.0 };
    binds[n++] = (mica_bind){ "slopes", micah_model_param(p, slope, c->heads, 0, "%s.slopes", path) };
  }
  mica_value y = mica_program_op(p, path, "attention", settings, n, binds);
  return mica_program_reshape(p, y, 1, &width);
}

static mica_value block(mica_program *p, const config *c, mica_value x, int64_t layer) {
  static const char *const act[][2] = { { "gelu", "approx=none" }, { "gelu", "approx=tanh" }, { "relu", NULL },
                                        { "silu", NULL } };
  int64_t width = c->width, hidden = (int64_t)llround(c->mlp * (double)width);
  double residual = c->init / sqrt(2.0 * (double)c->layers);
  char path[7][64];
  static const char *const parts[] = { "ln1", "attn.qkv", "attn.proj", "ln2", "mlp.up", "mlp.act", "mlp.down" };
  for (int i = 0; i < 7; i++) snprintf(path[i], sizeof path[i], "blocks.%lld.%s", (long long)layer, parts[i]);
  mica_value h = norm(p, c, x, path[0]);
  if (c->mixer.kind == MICAH_MIXER_ATTENTION) {
    h = attention(p, c, linear(p, c, h, width, 3 * width, c->init, -1, path[1]), layer);
  } else {
    char mixer[64];
    snprintf(mixer, sizeof mixer, "blocks.%lld.mixer", (long long)layer);
    h = micah_model_mixer(p, &c->mixer, &(micah_mixer_place){ width, c->heads, c->init, c->bias, mixer }, h);
  }
  x = linear(p, c, h, width, width, residual, x, path[2]);
  h = norm(p, c, x, path[3]);
  h = linear(p, c, h, width, hidden, c->init, -1, path[4]);
  /* an operation of its own: its value is cheap to compute again on the way back, the product before it is not */
  h = mica_program_op(p, path[5], act[c->activation][0], act[c->activation][1], 1, (mica_bind[]){ { "x", h } });
  return linear(p, c, h, hidden, width, residual, x, path[6]);
}

static mica_value gather(mica_program *p, const char *path, mica_value x, mica_value index) {
  return mica_program_op(p, path, "gather", NULL, 2, (mica_bind[]){ { "x", x }, { "index", index } });
}

/* the prompt and then the tokens; back: where these are. tokens know their places already, without the prompt */
static mica_value put_prompt(mica_program *p, const config *c, mica_value x, const mica_field *fields,
                             const mica_value *inputs, int32_t n, mica_value *back) {
  mica_value place[3] = { -1, -1, -1 };
  for (int32_t i = 0, k = 0; i < n && k < 3; i++)
    if (fields[i].role == MICA_FIELD_PLACE) place[k++] = inputs[i];
  mica_init normal = { MICA_INIT_NORMAL, c->init };
  mica_value prompt = micah_model_param(p, normal, c->prompt_length, c->width, "prompt.weight");
  mica_bind both[] = { { "a", gather(p, "prompt.tokens", x, place[0]) },
                       { "b", gather(p, "prompt.own", prompt, place[1]) } };
  *back = place[2];
  return mica_program_op(p, "prompt", "add", NULL, 2, both);
}

static int64_t ahead(const void *settings) { return ((const config *)settings)->prompt_length; }

static mica_value build(mica_program *p, const void *settings, const mica_field *fields, const mica_value *inputs,
                        int32_t n, int64_t longest, int64_t outputs) {
  const config *c = settings;
  if (c->width % c->heads)
    return mica_error(MICA_ERR_CONFIG, "model transformer: width %lld is not a multiple of heads %lld",
                      (long long)c->width, (long long)c->heads);
  int scores = c->positions == POSITIONS_ROTARY || c->positions == POSITIONS_ALIBI;
  if (c->mixer.kind != MICAH_MIXER_ATTENTION && (scores || c->mask))
    return mica_error(MICA_ERR_CONFIG, "model transformer: rotary and alibi positions and mask are attention's; a memory "
                      "reads the tokens in order: expected positions learned or none, mask causal");
  if (c->prompt_length && c->mask == MASK_WINDOW)
    return mica_error(MICA_ERR_CONFIG, "model transformer: mask window hides a prompt from later tokens; choose another "
                      "mask or prompt_length 0");
  if (c->positions == POSITIONS_ROTARY && c->width / c->heads % 2)
    return mica_error(MICA_ERR_CONFIG, "model transformer: rotary positions need an even head size, got %lld / %lld",
                      (long long)c->width, (long long)c->heads);
  if (llround(c->mlp * (double)c->width) < 1)
    return mica_error(MICA_ERR_CONFIG, "model transformer: mlp %g of width %lld leaves no hidden channel", c->mlp,
                      (long long)c->width);
  mica_value x = micah_model_read_in(p, "transformer", fields, inputs, n, c->width, c->init);
  if (c->positions == POSITIONS_LEARNED && x >= 0) {
    if (c->max_length && c->max_length < longest)
      return mica_error(MICA_ERR_CONFIG,
                        "model transformer: max_length %lld is below the family's longest sequence, %lld",
                        (long long)c->max_length, (long long)longest);
    mica_init normal = { MICA_INIT_NORMAL, c->init };
    mica_value table = micah_model_param(p, normal, c->max_length ? c->max_length : longest, c->width, "pos.weight");
    x = mica_program_op(p, "pos", "position_add", NULL, 2, (mica_bind[]){ { "x", x }, { "w", table } });
  }
  mica_value back = -1;
  if (c->prompt_length && x >= 0) x = put_prompt(p, c, x, fields, inputs, n, &back);
  for (int64_t i = 0; x >= 0 && i < c->layers; i++) x = block(p, c, x, i);
  if (back >= 0) x = gather(p, "prompt.off", x, back);
  x = norm(p, c, x, "ln_f");
  return micah_model_linear(p, x, c->width, outputs, c->init, c->bias, NULL, -1, "read_out");
}

const mica_model micah_model_transformer = {
  .size = sizeof(mica_model),
  .name = "transformer",
  .doc = "pre-norm decoder as GPT-2, with softmax attention or a memory",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .build = build,
  .ahead = ahead,
};
