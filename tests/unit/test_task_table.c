/* few-shot tables: groups of a file as tasks, cut into support and query, beside pooled and per-group fits */
#include "task_support.h"

#include <unistd.h>

static char path[64];

/* six groups of 3 + g rows: target = 10 + slope_g x, slope_g = g + 1; x = 0, 1, 2, ... */
static int make_file(void **state) {
  (void)state;
  strcpy(path, "/tmp/mica_table_XXXXXX");
  int file = mkstemp(path);
  FILE *out = file < 0 ? NULL : fdopen(file, "w");
  if (!out) return -1;
  fprintf(out, "task\tx\ttarget\n");
  for (int g = 0; g < 6; g++)
    for (int r = 0; r < 3 + g; r++) fprintf(out, "%d\t%d\t%d\n", g, r, 10 + (g + 1) * r);
  return fclose(out);
}
static int remove_file(void **state) {
  (void)state;
  return unlink(path);
}

typedef struct batch {
  int32_t offsets[2][3];
  float   data[4][64];
} batch;

static mica_batch fill(opened *o, int64_t first, batch *b, const int32_t **axes, void **data) {
  int32_t rows[4];
  assert_int_equal(o->family->sizes(o->self, first, 2, rows), MICA_OK);
  for (int a = 0; a < 2; a++) {
    axes[a] = b->offsets[a];
    b->offsets[a][0] = 0;
    for (int i = 0; i < 2; i++) b->offsets[a][i + 1] = b->offsets[a][i] + rows[2 * a + i];
  }
  for (int i = 0; i < 4; i++) data[i] = b->data[i];
  mica_batch m = { sizeof m, first, 2, axes, data };
  if (o->family->fill(o->self, &m) < 0) fail_msg("%s", mica_last_error());
  return m;
}

/* training groups of holdout 3: 0, 1, 3, 4 */
static void raw(double *mean, double *deviation, int column) {
  static const int groups[] = { 0, 1, 3, 4 };
  double sum = 0, square = 0, n = 0;
  for (int i = 0; i < 4; i++)
    for (int r = 0; r < 3 + groups[i]; r++) {
      double v = column ? 10 + (groups[i] + 1) * r : r;
      sum += v, square += v * v, n++;
    }
  *mean = sum / n, *deviation = sqrt(square / n - sum / n * sum / n);
}

static void groups_are_tasks(void **state) {
  (void)state;
  char settings[160];
  snprintf(settings, sizeof settings, "path: %s\nshots: 2\nholdout: 3\n", path);
  double mean[2], deviation[2];
  for (int c = 0; c < 2; c++) raw(&mean[c], &deviation[c], c);
  for (int split = 0; split < 2; split++) {
    opened o = open_family_named("few_shot_table", settings, split ? MICA_SPLIT_TEST : MICA_SPLIT_TRAIN, 5);
    unsigned seen = 0;
    for (int64_t first = 0; first < 40; first += 2) {
      batch b;
      const int32_t *axes[2];
      void *data[4];
      fill(&o, first, &b, axes, data);
      for (int t = 0; t < 2; t++) {
        int group = -1, rows = 0;
        unsigned xs = 0;
        for (int part = 0; part < 2; part++)
          for (int32_t r = b.offsets[part][t]; r < b.offsets[part][t + 1]; r++, rows++) {
            double x = (double)b.data[2 * part][r] * deviation[0] + mean[0];
            double y = (double)b.data[2 * part + 1][r] * deviation[1] + mean[1];
            int at = (int)floor(x + 0.5);
            assert_true(fabs(x - at) < 1e-5 && at >= 0 && !(xs >> at & 1));
            xs |= 1u << at;
            if (at == 0) assert_true(fabs(y - 10) < 1e-4);
            else {
              int g = (int)floor((y - 10) / at + 0.5) - 1;
              assert_true(group < 0 || group == g);
              group = g;
            }
          }
        assert_int_equal(b.offsets[0][t + 1] - b.offsets[0][t], 2);
        assert_int_equal(rows, 3 + group);
        seen |= 1u << group;
      }
    }
    assert_int_equal(seen, split ? 0x24 : 0x1b);
    close_opened(&o);
  }
}

static void fits_are_least_squares(void **state) {
  (void)state;
  char settings[160];
  snprintf(settings, sizeof settings, "path: %s\nshots: 2\nholdout: 3\nridge: 0\n", path);
  opened o = open_family_named("few_shot_table", settings, MICA_SPLIT_TEST, 5);
  /* of standardised columns, the pooled slope is the correlation and the constant 0 */
  double mean[2], deviation[2], both = 0, n = 0;
  for (int c = 0; c < 2; c++) raw(&mean[c], &deviation[c], c);
  static const int groups[] = { 0, 1, 3, 4 };
  for (int i = 0; i < 4; i++)
    for (int r = 0; r < 3 + groups[i]; r++, n++)
      both += (r - mean[0]) / deviation[0] * (10 + (groups[i] + 1) * r - mean[1]) / deviation[1];
  batch b;
  const int32_t *axes[2];
  void *data[4];
  double loss[2][64];
  mica_batch m = fill(&o, 0, &b, axes, data);
  for (int which = 0; which < 2; which++) assert_int_equal(o.family->exact(o.self, which, &m, loss[which]), MICA_OK);
  for (int32_t r = 0; r < b.offsets[1][2]; r++) {
    double off = both / n * (double)b.data[2][r] - (double)b.data[3][r];
    assert_true(fabs(loss[0][r] - off * off) < 1e-5);
    assert_true(loss[1][r] < 1e-8);  /* two points give a line */
  }
  close_opened(&o);
}

static void wrong_files_are_named(void **state) {
  (void)state;
  refused("few_shot_table", "shots: 2\n", "path");
  char settings[160];
  snprintf(settings, sizeof settings, "path: %s\nholdout: 1\n", path);
  refused("few_shot_table", settings, "holdout");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(groups_are_tasks), cmocka_unit_test(fits_are_least_squares),
    cmocka_unit_test(wrong_files_are_named),
  };
  return cmocka_run_group_tests(tests, make_file, remove_file);
}
