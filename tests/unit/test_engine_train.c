/* training: the same bits whatever the threads, launches and interruptions; run folders; quarantine */
#include "engine_support.h"

#include <math.h>
#include <pthread.h>

#include "host/task/families.h"
#include "mica/model.h"

static float *train(const char *config, const char *run, const char *const *overrides, int n, int64_t *count) {
  mica_source s = source_of(config, run, overrides, n);
  mica_trainer *t;
  CHECK(mica_trainer_create(&s, 0, &t));
  CHECK(mica_trainer_run(t, NULL, NULL));
  float *w = weights_of(t, count);
  mica_trainer_destroy(t);
  return w;
}

static void same_bits(const float *a, const float *b, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (memcmp(&a[i], &b[i], sizeof *a) != 0)
      fail_msg("weight %lld differs: %.9g and %.9g", (long long)i, (double)a[i], (double)b[i]);
}

static void bits_do_not_depend_on_threads_and_launches(void **state) {
  (void)state;
  write_text(in_folder("small.yaml"), small_config);
  static const char *const ways[][2] = { { "threads=2", "launch=0" }, { "threads=2", "launch=0" },
                                         { "threads=1", "launch=0" }, { "threads=2", "launch=1" },
                                         { "threads=3", "launch=2" }, { "threads=2", "launch=3" },
                                         { "threads=1", "launch=4" }, { "threads=2", "memory=1" } };
  int64_t n, count = 0;
  float *first = NULL;
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    float *w = train(in_folder("small.yaml"), NULL, ways[i], 2, &n);
    for (int64_t k = 0; k < n; k++) assert_true(isfinite(w[k]));
    if (first) same_bits(first, w, count);
    if (first) free(w);
    else first = w, count = n;
  }
  /* the comparison can fail: another grain is another sum */
  static const char *const other[] = { "grain=4" };
  float *w = train(in_folder("small.yaml"), NULL, other, 1, &n);
  assert_true(memcmp(first, w, (size_t)n * sizeof *w) != 0);
  free(w);
  free(first);
}

/* the loss rows of the file: every step once, in order; returns the number of lines and the last loss */
static int64_t check_metrics(const char *path, double *loss) {
  char *data;
  int64_t size, lines = 0;
  CHECK(micah_file_read(path, 1 << 24, &data, &size));
  for (char *at = data; at < data + size;) {
    long long step;
    assert_int_equal(sscanf(at, "{\"step\": %lld, \"loss\": %lf", &step, loss), 2);
    assert_int_equal(step, ++lines);
    at = strchr(at, '\n') + 1;
  }
  free(data);
  return lines;
}

static void resumed_runs_have_the_same_bits(void **state) {
  (void)state;
  const char *config = in_folder("resume.yaml");
  write_text(config, small_config);
  int64_t n;
  double loss, again;
  char straight[512];
  snprintf(straight, sizeof straight, "%s", in_folder("straight"));
  float *want = train(config, straight, NULL, 0, &n);
  assert_int_equal(check_metrics(in_folder("straight/metrics.jsonl"), &loss), 20);
  /* stopped after k steps without a farewell: the last checkpoint (7, 14) or step 0 is where it goes on */
  for (int64_t k = 0; k <= 19; k += k == 6 ? 1 : 3) {
    char run[512];
    snprintf(run, sizeof run, "%s/killed_%d", folder, (int)k);
    mica_source s = source_of(config, run, NULL, 0);
    mica_trainer *t;
    CHECK(mica_trainer_create(&s, 0, &t));
    for (int64_t i = 0; i < k; i++) CHECK(mica_trainer_step(t, NULL));
    mica_trainer_destroy(t);
    s = source_of(NULL, run, NULL, 0);
    CHECK(mica_trainer_create(&s, 1, &t));
    mica_trainer_info info;
    CHECK(mica_trainer_get_info(t, &info));
    assert_int_equal(info.step, k / 7 * 7);
    CHECK(mica_trainer_run(t, NULL, NULL));
    same_bits(want, mica_trainer_get_params(t), n);
    mica_trainer_destroy(t);
    snprintf(run, sizeof run, "%s/killed_%d/metrics.jsonl", folder, (int)k);
    assert_int_equal(check_metrics(run, &again), 20);
    assert_true(loss == again);
  }
  free(want);
}

static void a_finished_run_is_finished(void **state) {
  (void)state;
  write_text(in_folder("done.yaml"), small_config);
  int64_t n;
  char run[512];
  snprintf(run, sizeof run, "%s", in_folder("done"));
  float *want = train(in_folder("done.yaml"), run, NULL, 0, &n);
  mica_source s = source_of(NULL, run, NULL, 0);
  mica_trainer *t;
  CHECK(mica_trainer_create(&s, 1, &t));
  mica_trainer_info info;
  CHECK(mica_trainer_get_info(t, &info));
  assert_true(info.finished);
  CHECK(mica_trainer_run(t, NULL, NULL));
  assert_int_equal(mica_trainer_step(t, NULL), MICA_ERR_STATE);
  same_bits(want, mica_trainer_get_params(t), n);
  mica_trainer_destroy(t);
  /* a second new run in the same folder would destroy the first */
  s = source_of(in_folder("done.yaml"), run, NULL, 0);
  assert_int_equal(mica_trainer_create(&s, 0, &t), MICA_ERR_STATE);
  assert_non_null(strstr(mica_last_error(), run));
  /* what decides numbers may not change under way; the rest may */
  static const char *const lr[] = { "optimizer.lr=1" }, *const threads[] = { "threads=1" };
  s = source_of(NULL, run, lr, 1);
  assert_int_equal(mica_trainer_create(&s, 1, &t), MICA_ERR_CONFIG);
  assert_non_null(strstr(mica_last_error(), "optimizer.lr=1"));
  s = source_of(NULL, run, threads, 1);
  CHECK(mica_trainer_create(&s, 1, &t));
  mica_trainer_destroy(t);
  free(want);
}

static void damage(const char *path, int64_t at) {
  FILE *f = fopen(path, "r+b");
  assert_non_null(f);
  assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
  int byte = fgetc(f);
  fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
  fputc(byte ^ 1, f);
  fclose(f);
}

static void damaged_checkpoints_are_named(void **state) {
  (void)state;
  write_text(in_folder("damage.yaml"), small_config);
  int64_t n;
  char run[512];
  snprintf(run, sizeof run, "%s", in_folder("damage"));
  free(train(in_folder("damage.yaml"), run, NULL, 0, &n));
  damage(in_folder("damage/checkpoints/step_00000020.safetensors"), -8);
  mica_source s = source_of(NULL, run, NULL, 0);
  mica_trainer *t;
  assert_int_equal(mica_trainer_create(&s, 1, &t), MICA_ERR_FORMAT);
  assert_non_null(strstr(mica_last_error(), "step_00000020"));
  assert_non_null(strstr(mica_last_error(), "step 14"));
  /* as the message says: without the file it goes on from the one before */
  assert_int_equal(unlink(in_folder("damage/checkpoints/step_00000020.safetensors")), 0);
  CHECK(mica_trainer_create(&s, 1, &t));
  CHECK(mica_trainer_run(t, NULL, NULL));
  mica_trainer_destroy(t);
  /* another configuration than the checkpoint's */
  char *text;
  int64_t size;
  CHECK(micah_file_read(in_folder("damage/config.yaml"), 1 << 20, &text, &size));
  char *seed = strstr(text, "seed: 3");
  assert_non_null(seed);
  seed[6] = '4';
  write_text(in_folder("damage/config.yaml"), text);
  free(text);
  assert_int_equal(mica_trainer_create(&s, 1, &t), MICA_ERR_STATE);
  assert_non_null(strstr(mica_last_error(), "config.yaml"));
}

static void *stop_soon(void *arg) {
  usleep(2000);
  mica_trainer_stop(arg);
  return NULL;
}

static void a_stopped_run_is_saved(void **state) {
  (void)state;
  write_text(in_folder("stop.yaml"), small_config);
  static const char *const longer[] = { "steps=1000000" };
  mica_source s = source_of(in_folder("stop.yaml"), in_folder("stop"), longer, 1);
  mica_trainer *t;
  CHECK(mica_trainer_create(&s, 0, &t));
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, stop_soon, t), 0);
  assert_int_equal(mica_trainer_run(t, NULL, NULL), MICA_ERR_INTERRUPTED);
  pthread_join(thread, NULL);
  mica_trainer_info before, after;
  CHECK(mica_trainer_get_info(t, &before));
  mica_trainer_destroy(t);
  s = source_of(NULL, in_folder("stop"), NULL, 0);
  CHECK(mica_trainer_create(&s, 1, &t));
  CHECK(mica_trainer_get_info(t, &after));
  assert_int_equal(before.step, after.step);
  mica_trainer_destroy(t);
}

/* ---- a family with tasks that are not finite ---- */

static mica_family poisoned;
static int64_t poison_every, poison_from;

static mica_status poisoned_fill(void *self, const mica_batch *batch) {
  const mica_family *clean = micah_builtin_family(0);
  mica_status status = clean->fill(self, batch);
  for (int64_t i = 0; status >= 0 && i < batch->count; i++) {
    int64_t n = batch->first + i;
    if (n >= poison_from && (n - poison_from) % poison_every == 0)
      ((float *)batch->data[1])[batch->offsets[0][i]] = NAN;
  }
  return status;
}

static mica_status add_poisoned(void *user, mica_context *context) {
  (void)user;
  poisoned = *micah_builtin_family(0);
  poisoned.name = "poisoned", poisoned.fill = poisoned_fill;
  return mica_register_family(context, &poisoned);
}

static float *train_poisoned(const char *launch, int64_t *quarantined, mica_status *status) {
  const char *overrides[] = { "family.name=poisoned", launch };
  mica_source s = source_of(in_folder("poison.yaml"), NULL, overrides, 2);
  s.setup = add_poisoned;
  mica_trainer *t;
  CHECK(mica_trainer_create(&s, 0, &t));
  mica_progress p = { 0 };
  *status = MICA_OK;
  for (int i = 0; i < 20 && *status >= 0; i++) {
    *status = mica_trainer_step(t, &p);
    if (*status >= 0) assert_true(isfinite(p.loss) && isfinite(p.grad_norm));
  }
  *quarantined = p.quarantined;
  int64_t n;
  float *w = weights_of(t, &n);
  mica_trainer_destroy(t);
  return w;
}

static void tasks_that_are_not_finite_are_left_out(void **state) {
  (void)state;
  write_text(in_folder("poison.yaml"), small_config);
  assert_string_equal(micah_builtin_family(0)->name, "linear_regression");
  int64_t n, quarantined;
  mica_status status;
  poison_every = 13, poison_from = 21;
  float *a = train_poisoned("launch=0", &quarantined, &status);
  assert_int_equal(status, MICA_OK);
  assert_int_equal(quarantined, 11); /* 21, 34, ... 151 of 160 */
  float *b = train_poisoned("launch=1", &quarantined, &status);
  float *clean = train(in_folder("poison.yaml"), NULL, NULL, 0, &n);
  same_bits(a, b, n);
  assert_true(memcmp(a, clean, (size_t)n * sizeof *a) != 0);
  for (int64_t i = 0; i < n; i++) assert_true(isfinite(a[i]) && fabs((double)a[i] - (double)clean[i]) < 0.2);
  free(a);
  free(b);
  free(clean);
  /* when nothing is left, training stops and says so */
  poison_every = 1, poison_from = 16;
  free(train_poisoned("launch=0", &quarantined, &status));
  assert_int_equal(status, MICA_ERR_NUMERIC);
  assert_non_null(strstr(mica_last_error(), "step 3"));
}

static void errors_name_the_configuration(void **state) {
  (void)state;
  static const struct { const char *text; const char *expect[3];
  } bad[] = {
    { "model: {name: transformer}\n", { "family" } },
    { "family: {name: linear_regresion}\nmodel: {name: transformer}\n", { "bad.yaml:1", "linear_regression" } },
    { "family: {name: linear_regression, dims: 3}\nmodel: {name: transformer}\n", { "bad.yaml:1", "dim" } },
    { "family: {name: linear_regression}\nmodel:\n  name: transformer\n  width: 30\n  heads: 4\n",
      { "bad.yaml", "30", "heads" } },
    { "family: {name: linear_regression, points_start: 99}\nmodel: {name: transformer}\n",
      { "bad.yaml", "points_start" } },
    { "family: {name: linear_regression}\nmodel: {name: transformer}\nloss: {name: cross_entropy}\n",
      { "bad.yaml", "label" } },
    { "family: {name: categorical}\nmodel: {name: mlp}\n", { "bad.yaml", "mlp", "classes" } },
    { "family: {name: linear_regression}\nmodel: {name: transformer}\nexact: ridgge\n", { "bad.yaml", "ridge" } },
    { "family: {name: linear_regression}\nmodel: {name: transformer}\nplugins: [none.so]\n",
      { "bad.yaml", "none.so" } },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_text(in_folder("bad.yaml"), bad[i].text);
    mica_source s = source_of(in_folder("bad.yaml"), in_folder("bad"), NULL, 0);
    mica_trainer *t;
    mica_status status = mica_trainer_create(&s, 0, &t);
    if (status >= 0) fail_msg("case %d was taken", (int)i);
    for (int k = 0; k < 3 && bad[i].expect[k]; k++)
      if (!strstr(mica_last_error(), bad[i].expect[k]))
        fail_msg("case %d: no '%s' in: %s", (int)i, bad[i].expect[k], mica_last_error());
    /* a wrong configuration leaves no folder behind */
    assert_int_equal(micah_path_kind(in_folder("bad")), MICAH_PATH_NONE);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(bits_do_not_depend_on_threads_and_launches), cmocka_unit_test(resumed_runs_have_the_same_bits),
    cmocka_unit_test(a_finished_run_is_finished), cmocka_unit_test(damaged_checkpoints_are_named),
    cmocka_unit_test(a_stopped_run_is_saved), cmocka_unit_test(tasks_that_are_not_finite_are_left_out),
    cmocka_unit_test(errors_name_the_configuration),
  };
  return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
