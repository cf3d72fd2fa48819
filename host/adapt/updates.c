#include "adapt/updates.h"

#include <stdio.h>
#include <string.h>

static mica_value op(mica_program *p, const char *path, const char *piece, const char *name, const char *set,
                     mica_value a, mica_value b) {
  char full[400];
  snprintf(full, sizeof full, "%s.%s", path, piece);
  mica_bind binds[] = { { b < 0 ? "x" : "a", a }, { "b", b } };
  return mica_program_op(p, full, name, set, b < 0 ? 1 : 2, binds);
}

/* a x + b y */
static mica_value mix(mica_program *p, const char *path, const char *piece, double a, mica_value x, double b,
                      mica_value y) {
  char set[64], name[64];
  snprintf(set, sizeof set, "alpha=%.17g", a);
  snprintf(name, sizeof name, "%s.old", piece);
  mica_value first = op(p, path, name, "scale", set, x, -1);
  snprintf(set, sizeof set, "alpha=%.17g", b);
  snprintf(name, sizeof name, "%s.new", piece);
  mica_value second = b == 1 ? y : op(p, path, name, "scale", set, y, -1);
  return op(p, path, piece, "add", NULL, first, second);
}

static mica_value sgd(mica_program *p, const char *path, const mica_step_options *o, mica_value theta, mica_value g,
                      mica_value rate, const mica_value *in, const mica_value *task, mica_value *out) {
  (void)o, (void)in, (void)task, (void)out;
  return op(p, path, "theta", "sub", NULL, theta, op(p, path, "move", "mul", NULL, g, rate));
}

static mica_value momentum(mica_program *p, const char *path, const mica_step_options *o, mica_value theta,
                           mica_value g, mica_value rate, const mica_value *in, const mica_value *task,
                           mica_value *out) {
  (void)task;
  out[0] = mix(p, path, "momentum", o->momentum, in[0], 1, g);
  return op(p, path, "theta", "sub", NULL, theta, op(p, path, "move", "mul", NULL, out[0], rate));
}

/* powers of the betas, for the bias correction of step k */
static mica_status adam_task(mica_program *p, const mica_step_options *o, const mica_value *in, mica_value *out) {
  char set[64];
  snprintf(set, sizeof set, "alpha=%.17g", o->beta1);
  out[2] = op(p, "adam", "power1", "scale", set, in[2], -1);
  snprintf(set, sizeof set, "alpha=%.17g", o->beta2);
  out[3] = op(p, "adam", "power2", "scale", set, in[3], -1);
  return out[3] < 0 ? out[3] : MICA_OK;
}

static mica_value adam(mica_program *p, const char *path, const mica_step_options *o, mica_value theta, mica_value g,
                       mica_value rate, const mica_value *in, const mica_value *task, mica_value *out) {
  char set[64];
  out[0] = mix(p, path, "mean", o->beta1, in[0], 1 - o->beta1, g);
  out[1] = mix(p, path, "square", o->beta2, in[1], 1 - o->beta2, op(p, path, "g2", "square", NULL, g, -1));
  mica_value left1 = op(p, path, "left1", "scale", "alpha=-1 beta=1", task[2], -1);
  mica_value left2 = op(p, path, "left2", "scale", "alpha=-1 beta=1", task[3], -1);
  mica_value mean = op(p, path, "mean_hat", "div", NULL, out[0], left1);
  mica_value square = op(p, path, "square_hat", "div", NULL, out[1], left2);
  snprintf(set, sizeof set, "beta=%.17g", o->eps * o->eps);
  mica_value root = op(p, path, "root", "sqrt", NULL, op(p, path, "inside", "scale", set, square, -1), -1);
  snprintf(set, sizeof set, "beta=%.17g", o->eps);
  mica_value step = op(p, path, "step", "div", NULL, mean, op(p, path, "below", "scale", set, root, -1));
  return op(p, path, "theta", "sub", NULL, theta, op(p, path, "move", "mul", NULL, step, rate));
}

static const micah_update updates[] = {
  { "sgd", 0, { { NULL, 0, 0 } }, NULL, sgd },
  { "momentum", 1, { { "momentum", 0, 0 } }, NULL, momentum },
  { "adam", 4, { { "mean", 0, 0 }, { "square", 0, 0 }, { "power1", 1, 1 }, { "power2", 1, 1 } }, adam_task, adam },
};

const micah_update *micah_find_update(const char *name) {
  char known[200] = "";
  for (int32_t i = 0; i < MICA_COUNT(updates); i++) {
    if (name && !strcmp(updates[i].name, name)) return &updates[i];
    size_t at = strlen(known);
    snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", updates[i].name);
  }
  mica_error(MICA_ERR_NOT_FOUND, "update '%s' is not known; there are %s", name ? name : "", known);
  return NULL;
}
