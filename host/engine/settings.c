#include "host/engine/settings.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "host/device/context.h"

#define KEY(field, name, type, value, lo, hi, choices, doc) \
  { name, type, offsetof(micah_settings, field), value, lo, hi, choices, doc }

const mica_key micah_top_keys[] = {
  KEY(steps, "steps", MICA_KEY_INT, "1000", 1, 1e12, NULL, "training steps"),
  KEY(batch, "batch", MICA_KEY_INT, "64", 1, 1 << 24, NULL, "tasks a step"),
  KEY(grain, "grain", MICA_KEY_INT, "16", 1, 1 << 24, NULL,
      "tasks whose gradients are summed in task order; fixes the bits"),
  KEY(seed, "seed", MICA_KEY_INT, "1", 0, 9007199254740991.0, NULL, "of initial weights and tasks"),
  KEY(threads, "threads", MICA_KEY_INT, "0", 0, 4096, NULL, "threads; 0: one a core. changes no bit"),
  KEY(device, "device", MICA_KEY_CHOICE, "cpu", 0, 0, "cpu|cuda", "where to compute"),
  KEY(devices, "devices", MICA_KEY_INT, "1", 1, 4096, NULL,
      "number of devices, a power of two; changes no bit. on cpu: parts worked on in turn"),
  KEY(launch, "launch", MICA_KEY_INT, "0", 0, 1 << 24, NULL,
      "grains in flight at once; 0: what memory holds. changes no bit"),
  KEY(memory, "memory", MICA_KEY_INT, "1024", 1, 1 << 30, NULL, "MiB for activations and gradients of one launch"),
  KEY(recompute, "recompute", MICA_KEY_REAL, "0.07", 0, 1, NULL,
      "values computed again on the way back instead of kept, at most this part of the forward's flop. changes no bit"),
  KEY(checkpoint_every, "checkpoint_every", MICA_KEY_INT, "1000", 0, 1e12, NULL,
      "steps between checkpoints; 0: only at the end"),
  KEY(checkpoints, "checkpoints", MICA_KEY_INT, "2", 1, 1e6, NULL, "checkpoints to keep"),
  KEY(log_every, "log_every", MICA_KEY_INT, "10", 1, 1e12, NULL, "steps between comparisons with the exact predictor"),
  KEY(eval_tasks, "eval_tasks", MICA_KEY_INT, "1024", 1, 1 << 30, NULL, "test tasks in an evaluation"),
  KEY(exact, "exact", MICA_KEY_STRING, "best", 0, 0, NULL,
      "exact predictor to compare with while training: a name, best, or none"),
};
const int32_t micah_n_top_keys = MICA_COUNT(micah_top_keys);

const mica_key micah_optimizer_keys[] = {
  KEY(optimizer, "name", MICA_KEY_CHOICE, "adamw", 0, 0, "adamw", "optimiser"),
  KEY(lr, "lr", MICA_KEY_REAL, "1e-3", 0, 1e3, NULL, "learning rate at the top of the schedule"),
  KEY(beta1, "beta1", MICA_KEY_REAL, "0.9", 0, 0.999999999, NULL, "decay of the mean gradient"),
  KEY(beta2, "beta2", MICA_KEY_REAL, "0.95", 0, 0.999999999, NULL, "decay of the mean squared gradient"),
  KEY(eps, "eps", MICA_KEY_REAL, "1e-8", 1e-30, 1, NULL, "added to the root of the mean squared gradient"),
  KEY(weight_decay, "weight_decay", MICA_KEY_REAL, "0", 0, 10, NULL,
      "decoupled, times the learning rate; matrices only, not biases and gains"),
  KEY(clip, "clip", MICA_KEY_REAL, "1", 0, 1e30, NULL, "largest norm of the whole gradient; 0: no clipping"),
};
const int32_t micah_n_optimizer_keys = MICA_COUNT(micah_optimizer_keys);

const mica_key micah_schedule_keys[] = {
  KEY(schedule, "name", MICA_KEY_CHOICE, "cosine", 0, 0, "cosine|linear|constant",
      "course of the learning rate after warm-up"),
  KEY(warmup, "warmup", MICA_KEY_REAL, "0.02", 0, 1e12, NULL,
      "linear warm-up: a fraction of the run below 1, else steps of the nominal run"),
  KEY(min_ratio, "min_ratio", MICA_KEY_REAL, "0.1", 0, 1, NULL, "last learning rate over the top one"),
  KEY(nominal, "steps", MICA_KEY_INT, "0", 0, 1e12, NULL,
      "steps that warmup is written for; another number of steps scales it. 0: `steps` as the file has it"),
};
const int32_t micah_n_schedule_keys = MICA_COUNT(micah_schedule_keys);

/* keys that change speed, memory and files, but no number */
static const char *const neutral[] = { "threads", "devices", "launch", "memory", "recompute", "checkpoint_every",
                                       "checkpoints", "log_every",
                                       "eval_tasks", "exact" };

int micah_settings_neutral(const char *key) {
  for (int32_t i = 0; i < MICA_COUNT(neutral); i++)
    if (strcmp(key, neutral[i]) == 0) return 1;
  return 0;
}

mica_status micah_settings_note_nominal(micah_config *config) {
  micah_section *root = micah_config_root(config), *schedule;
  mica_status status = micah_config_section(root, "schedule", 0, &schedule);
  if (status < 0) return status;
  if (micah_config_has(schedule, "steps") || !micah_config_has(root, "steps")) return MICA_OK;
  const char *steps;
  status = micah_config_get_string(root, "steps", NULL, &steps);
  if (status < 0) return status;
  int64_t value;
  /* a malformed number is reported by fill, at its own line */
  if (!micah_parse_int(steps, strlen(steps), &value) || value < 1) return MICA_OK;
  char text[64];
  snprintf(text, sizeof text, "schedule.steps=%lld", (long long)value);
  return micah_config_override(config, text);
}

mica_status micah_settings_fill(micah_config *config, micah_settings *out) {
  static const char *const sections[] = { "family", "model", "loss", "optimizer", "schedule", "plugins", "inner" };
  memset(out, 0, sizeof *out);
  micah_section *root = micah_config_root(config), *optimizer, *schedule;
  mica_status status = micah_config_fill(root, micah_top_keys, micah_n_top_keys, sections, MICA_COUNT(sections), out);
  if (status >= 0) status = micah_config_section(root, "optimizer", 0, &optimizer);
  if (status >= 0) status = micah_config_fill(optimizer, micah_optimizer_keys, micah_n_optimizer_keys, NULL, 0, out);
  if (status >= 0) status = micah_config_section(root, "schedule", 0, &schedule);
  if (status >= 0) status = micah_config_fill(schedule, micah_schedule_keys, micah_n_schedule_keys, NULL, 0, out);
  if (status >= 0) status = micah_inner_fill(root, &out->inner);
  if (status < 0) return status;
  if (out->nominal == 0) out->nominal = out->steps;
  if (out->devices & (out->devices - 1))
    return micah_config_error(root, "devices", MICA_ERR_CONFIG,
                              "devices is %lld, expected a power of two (the fixed summation tree is binary)",
                              (long long)out->devices);
  if (out->grain > out->batch) out->grain = out->batch;
  /* each device sums an aligned subtree of the grains */
  int64_t grains = (out->batch + out->grain - 1) / out->grain;
  if (out->devices > 1 && (out->devices > MICAH_MAX_DEVICES || out->devices / 2 >= grains))
    return micah_config_error(root, "devices", MICA_ERR_CONFIG,
                              "devices is %lld, but a step of %lld tasks has %lld grains of %lld to share out; lower "
                              "devices or grain",
                              (long long)out->devices, (long long)out->batch, (long long)grains,
                              (long long)out->grain);
  if (out->steps > INT64_MAX / out->batch)
    return micah_config_error(root, "steps", MICA_ERR_CONFIG, "steps x batch is beyond 2^63 tasks");
  return MICA_OK;
}

double micah_learning_rate(const micah_settings *s, int64_t step) {
  double steps = (double)s->steps;
  double warm = s->warmup < 1 ? s->warmup * steps : s->warmup * (steps / (double)s->nominal);
  if (warm > steps) warm = steps;
  double at = (double)step;
  if (at + 1 < warm) return s->lr * ((at + 1) / warm);
  if (s->schedule == MICAH_SCHEDULE_CONSTANT) return s->lr;
  double rest = steps - warm, x = rest > 0 ? (at - warm) / rest : 0;
  if (x < 0) x = 0;
  if (x > 1) x = 1;
  double y = s->schedule == MICAH_SCHEDULE_COSINE ? 0.5 * (1 + cos(M_PI * x)) : 1 - x;
  return s->lr * (s->min_ratio + (1 - s->min_ratio) * y);
}
