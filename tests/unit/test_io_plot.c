/* charts and pages: well-formed, self-contained, sensible ticks. MICA_PLOT_OUT=FILE keeps the page to look at. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/io/file.h"
#include "host/io/html.h"
#include "host/io/svg_axis.h"

/* every tag closes, in order, and text is escaped: enough to be read as XML */
static void expect_well_formed(const char *text) {
  char stack[64][24];
  int depth = 0;
  const char *p = text;
  while ((p = strchr(p, '<')) != NULL) {
    if (!strncmp(p, "<!DOCTYPE", 9)) {
      p++;
      continue;
    }
    const char *end = strchr(p, '>');
    assert_non_null(end);
    int closing = p[1] == '/';
    size_t n = strcspn(p + 1 + closing, " />\n");
    char name[24];
    assert_true(n > 0 && n < sizeof name);
    memcpy(name, p + 1 + closing, n);
    name[n] = 0;
    if (closing) {
      assert_true(depth > 0);
      assert_string_equal(stack[--depth], name);
    } else if (end[-1] != '/' && strcmp(name, "meta")) {
      assert_true(depth < 64);
      snprintf(stack[depth++], sizeof stack[0], "%s", name);
    }
    p = end;
  }
  assert_int_equal(depth, 0);
  for (p = text; (p = strchr(p, '&')) != NULL; p++)
    assert_true(!strncmp(p, "&amp;", 5) || !strncmp(p, "&lt;", 4) || !strncmp(p, "&gt;", 4) ||
                !strncmp(p, "&quot;", 6) || !strncmp(p, "&#39;", 5));
}

static int count(const char *text, const char *part) {
  int n = 0;
  for (const char *p = text; (p = strstr(p, part)) != NULL; p++) n++;
  return n;
}

enum { STEPS = 20000, ROWS = 41 };

static void test_page(void **state) {
  (void)state;
  static double loss[STEPS], smooth[STEPS], exact[STEPS], position[ROWS], bayes[ROWS], ridge[ROWS], tasks[STEPS];
  double mean = 0;
  unsigned random = 1;
  for (int i = 0; i < STEPS; i++) {
    random = random * 1664525u + 1013904223u;
    double noise = (double)random / 4294967296.0 - 0.5;
    loss[i] = (0.35 + 20 * exp(-i / 900.0)) * (1 + 0.5 * noise);
    mean = i ? 0.99 * mean + 0.01 * loss[i] : loss[i];
    smooth[i] = mean;
    exact[i] = 0.33;
    tasks[i] = 21000 + 1500 * noise;
  }
  loss[7000] = NAN;
  loss[12345] = 90;
  for (int i = 0; i < ROWS; i++) {
    bayes[i] = 0.25 + 20 * exp(-i / 6.0);
    ridge[i] = bayes[i] * 1.02 + 0.01;
    position[i] = bayes[i] * 1.06 + 0.05;
  }
  const micah_series learning[] = {
    { "loss", NULL, loss, STEPS, MICAH_FAINT, 1 },
    { "loss, smoothed", NULL, smooth, STEPS, MICAH_LINE, 1 },
    { "exact predictor", NULL, exact, STEPS, MICAH_DASHED, 2 },
  };
  const micah_series rows[] = {
    { "model", NULL, position, ROWS, MICAH_LINE, 0 },
    { "bayes", NULL, bayes, ROWS, MICAH_DASHED, 0 },
    { "ridge <exact & \"good\"> with a very long name", NULL, ridge, ROWS, MICAH_POINTS, 0 },
  };
  const micah_series rate[] = { { "tasks/s", NULL, tasks, STEPS, MICAH_LINE, 3 } };
  static const double model_bits[] = { 2.1, 3.0, 2.6, 2.2 }, gzip_bits[] = { 3.1, 3.4, 3.2, 3.3 };
  static const char *const languages[] = { "Welsh", "Vietnamese (in its usual Latin script)", "Yoruba", "Zulu" };
  const micah_series bits[] = { { "model", NULL, model_bits, 4, MICAH_BARS, 0 },
                                { "gzip -9", NULL, gzip_bits, 4, MICAH_BARS, 0 } };
  const micah_chart charts[] = {
    { .title = "Learning curve",
      .x_label = "step",
      .y_label = "squared error",
      .series = learning,
      .n_series = 3,
      .log_y = 1 },
    { .title = "Loss by position",
      .x_label = "point in context",
      .y_label = "squared error",
      .series = rows,
      .n_series = 3,
      .zero_y = 1 },
    { .title = "Throughput",
      .x_label = "step",
      .y_label = "tasks per second",
      .series = rate,
      .n_series = 1,
      .zero_y = 1,
      .height = 260 },
    { .title = "Bits per byte",
      .y_label = "bits per byte",
      .series = bits,
      .n_series = 2,
      .categories = languages,
      .n_categories = 4 },
    { .title = "Log-log",
      .x_label = "step",
      .y_label = "loss",
      .series = learning,
      .n_series = 3,
      .log_y = 1,
      .log_x = 1 },
    { .title = "Empty", .series = NULL, .n_series = 0 },
  };
  micah_html page = { 0 };
  static const char *const names[] = { "loss at the last position", "excess over exact", "tasks a second", "time" };
  static const char *const values[] = { "0.353", "1.06 x", "20,880", "4 min 12 s" };
  static const char *const header[] = { "predictor", "loss", "last position" };
  static const char *const row[] = { "bayes <exact>", "3.42", "0.27" };
  micah_html_begin(&page, "Run linear_regression", "20,000 steps of 64 tasks, seed 1 & more");
  micah_html_figures(&page, names, values, 4);
  for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) {
    micah_html_heading(&page, charts[i].title);
    assert_int_equal(micah_html_chart(&page, &charts[i], "What it shows, in one sentence."), MICA_OK);
  }
  micah_html_table(&page, header, 3);
  micah_html_row(&page, row);
  micah_html_table_end(&page);
  micah_html_paragraph(&page, "Settings: a < b");
  micah_html_code(&page, "steps: 20000\n");
  char temporary[] = "/tmp/mica_page_XXXXXX";
  const char *keep = getenv("MICA_PLOT_OUT");
  int fd = keep ? -1 : mkstemp(temporary);
  if (fd >= 0) close(fd);
  assert_int_equal(micah_html_write(&page, keep ? keep : temporary), MICA_OK);
  expect_well_formed(page.text.data);
  /* nothing is fetched: the only address is the name space of SVG */
  assert_int_equal(count(page.text.data, "http"), count(page.text.data, "http://www.w3.org/2000/svg"));
  assert_int_equal(count(page.text.data, "<script"), 0);
  assert_int_equal(count(page.text.data, "nan"), 0);
  /* 20000 points are thinned, their spike stays */
  assert_true(page.text.size < 1000000);
  assert_non_null(strstr(page.text.data, "ridge &lt;exact &amp; &quot;good"));
  assert_non_null(strstr(page.text.data, "no data to show"));
  assert_non_null(strstr(page.text.data, ">20k<"));
  assert_non_null(strstr(page.text.data, "<td class=\"n\">3.42</td>"));
  micah_html_free(&page);
  if (!keep) unlink(temporary);
}

static void test_hostile(void **state) {
  (void)state;
  static const double wild[] = { NAN, INFINITY, -INFINITY, 1e308, -1e308, 1e-308, 0, 1 }, same[] = { 5, 5, 5 },
                      none[] = { NAN };
  const micah_series series[] = { { "wild", wild, wild, 8, MICAH_LINE, 0 },
                                  { NULL, NULL, same, 3, MICAH_POINTS, 0 },
                                  { "none \xff", NULL, none, 1, MICAH_DASHED, 99 },
                                  { "", NULL, NULL, 0, MICAH_BARS, 0 } };
  for (int log_y = 0; log_y < 2; log_y++)
    for (int first = 0; first < 4; first++)
      for (int n = 0; n + first <= 4; n++) {
        micah_text out = { 0 };
        micah_chart chart = { .title = "t", .series = series + first, .n_series = n, .log_x = log_y, .log_y = log_y };
        assert_int_equal(micah_svg_chart(&out, &chart), MICA_OK);
        expect_well_formed(out.data);
        assert_int_equal(count(out.data, "nan"), 0);
        assert_int_equal(count(out.data, "inf"), 0);
        micah_text_free(&out);
      }
  micah_text out = { 0 };
  micah_chart chart = { .title = "many", .series = series, .n_series = 9 };
  assert_int_equal(micah_svg_chart(&out, &chart), MICA_ERR_INVALID);
}

static void expect_ticks(double lo, double hi, int logarithmic, int n, const char *wanted) {
  micah_axis axis = { 0 };
  micah_text got = { 0 };
  axis.logarithmic = logarithmic;
  micah_axis_see(&axis, lo);
  micah_axis_see(&axis, hi);
  micah_axis_finish(&axis, 0, n);
  for (int i = 0; i < axis.n_ticks; i++) micah_text_format(&got, "%s%s", i ? " " : "", axis.label[i]);
  assert_string_equal(got.data ? got.data : "", wanted);
  micah_text_free(&got);
}

static void test_ticks(void **state) {
  (void)state;
  expect_ticks(0, 1, 0, 5, "0 0.2 0.4 0.6 0.8 1.0");
  expect_ticks(0, 2000, 0, 4, "0 500 1,000 1,500 2,000");
  expect_ticks(0, 20000, 0, 4, "0 5k 10k 15k 20k");
  expect_ticks(-0.3, 0.31, 0, 5,
               "\xE2\x88\x92"
               "0.3 \xE2\x88\x92"
               "0.2 \xE2\x88\x92"
               "0.1 0 0.1 0.2 0.3");
  expect_ticks(1.001, 1.0042, 0, 3, "1.001 1.002 1.003 1.004");
  expect_ticks(0.1, 1000, 1, 5, "0.1 1 10 100 1,000");
  expect_ticks(0.2, 20, 1, 5, "0.2 0.5 1 2 5 10 20");
  expect_ticks(2, 4, 1, 4, "2.0 2.5 3.0 3.5 4.0");
  expect_ticks(1e-12, 1, 1, 4, "1e-12 1e-9 1e-6 0.001 1");
  expect_ticks(3, 3, 0, 4, "2.7 2.8 2.9 3.0 3.1 3.2 3.3");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_page),
    cmocka_unit_test(test_hostile),
    cmocka_unit_test(test_ticks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
