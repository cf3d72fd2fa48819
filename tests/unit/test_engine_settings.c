/* settings of a training configuration, and the schedule of the learning rate */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "host/engine/settings.h"

static mica_status parse(const char *text, const char *const *overrides, int n, micah_config **config,
                         micah_settings *settings) {
  mica_status status = micah_config_parse("a.yaml", text, strlen(text), config);
  if (status >= 0) status = micah_settings_note_nominal(*config);
  for (int i = 0; status >= 0 && i < n; i++) status = micah_config_override(*config, overrides[i]);
  if (status >= 0) status = micah_settings_fill(*config, settings);
  return status;
}

static void defaults_are_filled(void **state) {
  (void)state;
  micah_config *c;
  micah_settings s;
  assert_int_equal(parse("batch: 8\noptimizer: {lr: 0.5}\n", NULL, 0, &c, &s), MICA_OK);
  assert_int_equal(s.batch, 8);
  assert_int_equal(s.grain, 8); /* no larger than the batch */
  assert_true(s.lr == 0.5 && s.beta1 == 0.9);
  assert_int_equal(s.nominal, s.steps);
  micah_config_destroy(c);
}

static void schedule_shrinks_in_proportion(void **state) {
  (void)state;
  static const char text[] = "steps: 1000\noptimizer: {lr: 1}\nschedule: {name: cosine, warmup: 100, min_ratio: 0.1}\n";
  static const char *const few[] = { "steps=10" };
  micah_config *a, *b;
  micah_settings whole, part;
  assert_int_equal(parse(text, NULL, 0, &a, &whole), MICA_OK);
  assert_int_equal(parse(text, few, 1, &b, &part), MICA_OK);
  assert_int_equal(part.nominal, 1000);
  assert_int_equal(part.steps, 10);
  /* a tenth of either run is warm-up; the end is the same */
  assert_float_equal(micah_learning_rate(&whole, 49), 0.5, 1e-12);
  assert_float_equal(micah_learning_rate(&whole, 99), 1, 1e-12);
  assert_float_equal(micah_learning_rate(&part, 0), 1, 1e-12);
  assert_true(micah_learning_rate(&whole, 999) < 0.1001 && micah_learning_rate(&whole, 999) >= 0.1);
  assert_true(micah_learning_rate(&part, 9) < 0.14);
  for (int64_t i = 0; i + 1 < 9; i++) assert_true(micah_learning_rate(&part, i + 1) <= micah_learning_rate(&part, i));
  /* half way between warm-up and end both are half way down the cosine */
  assert_float_equal(micah_learning_rate(&whole, 550), 0.55, 1e-12);
  micah_config_destroy(a);
  micah_config_destroy(b);
}

static void one_step_is_a_run(void **state) {
  (void)state;
  static const char *const one[] = { "steps=1" };
  micah_config *c;
  micah_settings s;
  assert_int_equal(parse("steps: 100\nschedule: {warmup: 50}\n", one, 1, &c, &s), MICA_OK);
  assert_true(isfinite(micah_learning_rate(&s, 0)) && micah_learning_rate(&s, 0) > 0);
  micah_config_destroy(c);
}

static void errors_name_file_and_key(void **state) {
  (void)state;
  static const struct { const char *text, *a, *b; } bad[] = {
    { "steps: 10\nbatsh: 4\n", "a.yaml:2", "batch" },
    { "steps: many\n", "a.yaml:1", "steps" },
    { "steps: 0\n", "a.yaml:1", "steps" },
    { "optimizer: {lr: -1}\n", "a.yaml:1", "lr" },
    { "optimizer: {name: sgdd}\n", "a.yaml:1", "adamw" },
    { "device: gpu\n", "a.yaml:1", "cuda" },
    { "devices: 8\n", "a.yaml:1", "4 grains" },
    { "devices: 3\n", "a.yaml:1", "power of two" },
    { "schedule: 3\n", "a.yaml:1", "schedule" },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    micah_config *c = NULL;
    micah_settings s;
    assert_true(parse(bad[i].text, NULL, 0, &c, &s) < 0);
    assert_non_null(strstr(mica_last_error(), bad[i].a));
    assert_non_null(strstr(mica_last_error(), bad[i].b));
    micah_config_destroy(c);
  }
}

static void neutral_keys(void **state) {
  (void)state;
  assert_true(micah_settings_neutral("threads") && micah_settings_neutral("launch") && micah_settings_neutral("devices"));
  assert_false(micah_settings_neutral("grain") || micah_settings_neutral("optimizer.lr") || micah_settings_neutral("device"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(defaults_are_filled), cmocka_unit_test(schedule_shrinks_in_proportion),
    cmocka_unit_test(one_step_is_a_run), cmocka_unit_test(errors_name_file_and_key), cmocka_unit_test(neutral_keys),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
