/* losses: rows of loss over the target's axis, times the weight where there is one. */
#include "host/model/models.h"

/* squared error, summed or averaged over the numbers of a target row */
typedef struct mse_config { int64_t reduction; } mse_config;

static const mica_key mse_keys[] = {
  { "reduction", MICA_KEY_CHOICE, offsetof(mse_config, reduction), "sum", 0, 0, "sum|mean",
    "over the numbers of one target row" },
};

static mica_value build_mse(mica_program *p, const void *settings, mica_value prediction, mica_value target,
                            mica_value weight) {
  static const char *const reductions[] = { "reduction=sum", "reduction=mean" };
  mica_bind binds[] = { { "pred", prediction }, { "target", target }, { "weight", weight } };
  mica_value_info info;
  mica_status status = mica_program_info(p, target, &info);
  if (status < 0) return status;
  if (info.rank != 1) {
    /* scalar targets are rows of one number */
    binds[1].value = mica_program_reshape(p, target, 1, &info.count);
  }
  return mica_program_op(p, "loss", "mse", reductions[((const mse_config *)settings)->reduction], weight < 0 ? 2 : 3,
                         binds);
}

const mica_loss micah_loss_mse = {
  .size = sizeof(mica_loss),
  .name = "mse",
  .doc = "squared error",
  .keys = mse_keys,
  .n_keys = MICA_COUNT(mse_keys),
  .config_size = sizeof(mse_config),
  .build = build_mse,
};

static mica_value build_cross_entropy(mica_program *p, const void *settings, mica_value prediction, mica_value target,
                                      mica_value weight) {
  (void)settings;
  mica_bind binds[] = { { "logits", prediction }, { "label", target }, { "weight", weight } };
  return mica_program_op(p, "loss", "cross_entropy", NULL, weight < 0 ? 2 : 3, binds);
}

const mica_loss micah_loss_cross_entropy = {
  .size = sizeof(mica_loss),
  .name = "cross_entropy",
  .doc = "negative log-likelihood of the class, nats, from logits",
  .build = build_cross_entropy,
};
