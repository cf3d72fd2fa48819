/* engine_support.h: what the tests of the engine share: a temporary folder, small configurations, a trainer run. */
#ifndef MICA_TEST_ENGINE_SUPPORT_H
#define MICA_TEST_ENGINE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/io/file.h"
#include "mica/train.h"

#define CHECK(call)                                                                                          \
  do {                                                                                                       \
    mica_status check_status = (call);                                                                       \
    if (check_status < 0) fail_msg("%s: %s: %s", #call, mica_status_name(check_status), mica_last_error());  \
  } while (0)

static char folder[256];

static inline int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "%s/mica_test_XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
  return mkdtemp(folder) ? 0 : -1;
}

static inline int drop_folder(void **state) {
  (void)state;
  char command[300];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return system(command);
}

/* a path in the folder; four at a time */
static inline const char *in_folder(const char *name) {
  static char text[4][512];
  static int at;
  at = (at + 1) % 4;
  snprintf(text[at], sizeof text[at], "%s/%s", folder, name);
  return text[at];
}

static inline void write_text(const char *path, const char *text) {
  CHECK(micah_file_write(path, text, (int64_t)strlen(text)));
}

/* a small job: 20 steps of 8 tasks in 4 grains */
static const char small_config[] =
    "family: {name: linear_regression, dim: 3, points: 6, layout: shifted}\n"
    "model: {name: transformer, layers: 2, width: 16, heads: 2, mlp: 2}\n"
    "optimizer: {lr: 1e-2, weight_decay: 0.1, clip: 0.5}\n"
    "schedule: {warmup: 4}\n"
    "steps: 20\nbatch: 8\ngrain: 2\nseed: 3\nthreads: 2\nlog_every: 5\ncheckpoint_every: 7\n";

static inline mica_source source_of(const char *config, const char *run, const char *const *overrides, int n) {
  mica_source s = MICA_SOURCE_INIT;
  s.config = config, s.run = run, s.overrides = overrides, s.n_overrides = n;
  return s;
}

/* weights after `steps` steps (-1: all); malloc'd, *count numbers */
static inline float *weights_of(mica_trainer *t, int64_t *count) {
  *count = mica_program_param_count(mica_trainer_get_program(t));
  float *copy = malloc((size_t)*count * sizeof *copy);
  assert_non_null(copy);
  memcpy(copy, mica_trainer_get_params(t), (size_t)*count * sizeof *copy);
  return copy;
}

#endif
