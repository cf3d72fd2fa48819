/* linear regression and sinusoid: their generators' statistics, and their exact predictors against direct solutions. */
#include "task_support.h"

/* ---- brute force: dense solves by Gaussian elimination with pivoting ---- */

static void solve(int n, double *a, double *b) {
  for (int k = 0; k < n; k++) {
    int pivot = k;
    for (int i = k + 1; i < n; i++)
      if (fabs(a[i * n + k]) > fabs(a[pivot * n + k])) pivot = i;
    for (int j = 0; j < n; j++) {
      double t = a[k * n + j];
      a[k * n + j] = a[pivot * n + j], a[pivot * n + j] = t;
    }
    double t = b[k];
    b[k] = b[pivot], b[pivot] = t;
    for (int i = k + 1; i < n; i++) {
      double f = a[i * n + k] / a[k * n + k];
      for (int j = k; j < n; j++) a[i * n + j] -= f * a[k * n + j];
      b[i] -= f * b[k];
    }
  }
  for (int k = n - 1; k >= 0; k--) {
    for (int j = k + 1; j < n; j++) b[k] -= a[k * n + j] * b[j];
    b[k] /= a[k * n + k];
  }
}

/* w of least norm, or of ridge, from n rows of dim numbers: normal equations, or their dual where n < dim */
static void direct(int dim, int n, double lambda, const double *x, const double *y, double *w) {
  double a[32 * 32], b[32];
  int dual = n < dim, size = dual ? n : dim;
  for (int i = 0; i < dim; i++) w[i] = 0;
  if (n == 0) return;
  for (int i = 0; i < size; i++)
    for (int j = 0; j < size; j++) {
      double sum = i == j ? lambda : 0;
      for (int k = 0; k < (dual ? dim : n); k++)
        sum += dual ? x[i * dim + k] * x[j * dim + k] : x[k * dim + i] * x[k * dim + j];
      a[i * size + j] = sum;
    }
  for (int i = 0; i < size; i++) {
    b[i] = dual ? y[i] : 0;
    if (!dual)
      for (int k = 0; k < n; k++) b[i] += x[k * dim + i] * y[k];
  }
  solve(size, a, b);
  for (int i = 0; i < dim; i++) {
    w[i] = dual ? 0 : b[i];
    if (dual)
      for (int k = 0; k < n; k++) w[i] += x[k * dim + i] * b[k];
  }
}

/* pairs of one interleaved task */
static int read_pairs(const held *h, int64_t task, int dim, double *x, double *y) {
  int64_t begin = h->offsets[task], rows = h->offsets[task + 1] - begin;
  const float *tokens = (const float *)h->data[0] + begin * (dim + 1), *target = (const float *)h->data[1] + begin;
  for (int64_t i = 0; i < rows / 2; i++) {
    for (int j = 0; j < dim; j++) x[i * dim + j] = (double)tokens[2 * i * (dim + 1) + 1 + j];
    y[i] = (double)target[2 * i];
  }
  return (int)(rows / 2);
}

static void check_least_squares(const char *settings, int dim, const char *predictor, double lambda, double tolerance) {
  opened o = open_family_named("linear_regression", settings, MICA_SPLIT_TEST, 3);
  held h = fill_batch(&o, 0, 20);
  exact_loss(&o, predictor, &h);
  double x[64 * 32], y[64], w[32];
  for (int64_t b = 0; b < 20; b++) {
    int n = read_pairs(&h, b, dim, x, y);
    for (int i = 0; i < n; i++) {
      direct(dim, i, lambda, x, y, w);
      double v = 0;
      for (int j = 0; j < dim; j++) v += w[j] * x[i * dim + j];
      int64_t row = h.offsets[b] + 2 * i;
      double want = (v - y[i]) * (v - y[i]);
      close_to(h.loss[row], want, tolerance * (1 + want), predictor, row);
      assert_true(h.loss[row + 1] == 0);
    }
  }
  drop(&h), close_opened(&o);
}

static void predictors_match_direct_solves(void **state) {
  (void)state;
  check_least_squares("dim: 5\npoints: 14\nnoise: 0.3\n", 5, "ols", 0, 1e-6);
  check_least_squares("dim: 5\npoints: 14\nnoise: 0.3\n", 5, "ridge", 0.09, 1e-10);
  check_least_squares("dim: 5\npoints: 14\nnoise: 0.3\nweight_scale: 2\n", 5, "bayes", 0.0225, 1e-10);
  check_least_squares("dim: 5\npoints: 14\nnoise: 0.3\nweight_scale: 2\n", 5, "dmmse", 0.0225, 1e-10);
  check_least_squares("dim: 20\npoints: 41\nnoise: 1\n", 20, "ridge", 1, 1e-10);
  check_least_squares("dim: 20\npoints: 41\nnoise: 1\n", 20, "ols", 0, 1e-4);
  check_least_squares("dim: 1\npoints: 9\nnoise: 0.5\n", 1, "bayes", 0.25, 1e-10);
}

/* a pool of weights, found again from noise-free tasks, gives the mixture by hand */
static void dmmse_is_the_mixture_over_the_pool(void **state) {
  (void)state;
  enum { DIM = 3, POOL = 7 };
  opened clean = open_family_named("linear_regression", "dim: 3\npoints: 12\nnoise: 0\npool: 7\n", 0, 3);
  opened o = open_family_named("linear_regression", "dim: 3\npoints: 12\nnoise: 0.7\npool: 7\n", 0, 3);
  opened fresh = open_family_named("linear_regression", "dim: 3\npoints: 12\nnoise: 0.7\npool: 7\n", 1, 3);
  held h = fill_batch(&clean, 0, 200);
  double pool[POOL][DIM], x[12 * DIM], y[12], w[DIM];
  int known = 0, seen[POOL] = { 0 };
  for (int64_t b = 0; b < 200; b++) {
    int n = read_pairs(&h, b, DIM, x, y), k;
    direct(DIM, n, 0, x, y, w);
    for (k = 0; k < known; k++)
      if (fabs(pool[k][0] - w[0]) < 1e-4) break;
    if (k == known) {
      assert_true(known < POOL);
      memcpy(pool[known++], w, sizeof w);
    }
    seen[k]++;
  }
  assert_int_equal(known, POOL);
  for (int k = 0; k < POOL; k++) assert_in_range(seen[k], 8, 60); /* 28.6 +- 4 sd of 5 */
  drop(&h);
  for (int split = 0; split < 2; split++) {
    opened *from = split ? &fresh : &o;
    h = fill_batch(from, 0, 30);
    exact_loss(from, "dmmse", &h);
    for (int64_t b = 0; b < 30; b++) {
      int n = read_pairs(&h, b, DIM, x, y);
      for (int i = 0; i < n; i++) {
        double mass = 0, sum = 0;
        for (int k = 0; k < POOL; k++) {
          double log_p = 0, v = 0;
          for (int t = 0; t <= i; t++) {
            v = 0;
            for (int j = 0; j < DIM; j++) v += pool[k][j] * x[t * DIM + j];
            if (t < i) log_p -= (y[t] - v) * (y[t] - v) / (2 * 0.49);
          }
          mass += exp(log_p), sum += exp(log_p) * v;
        }
        double want = (sum / mass - y[i]) * (sum / mass - y[i]);
        close_to(h.loss[h.offsets[b] + 2 * i], want, 1e-4 * (1 + want), "dmmse", i);
      }
    }
    /* bayes is this split's own optimum */
    double *dmmse = h.loss, *bayes = malloc(h.bytes[1] * 2 + 8), same = 0;
    assert_non_null(bayes);
    bayes[h.offsets[30]] = -777;
    h.loss = bayes, exact_loss(from, "bayes", &h);
    for (int i = 0; i < h.offsets[30]; i++) same += fabs(bayes[i] - dmmse[i]);
    assert_true(split ? same > 1 : same == 0);
    free(dmmse), drop(&h);
  }
  close_opened(&clean), close_opened(&o), close_opened(&fresh);
}

/* on average no predictor beats bayes, and the expected losses known in closed form come out */
static void bayes_is_best_on_average(void **state) {
  (void)state;
  enum { TASKS = 4000, POINTS = 9 };
  opened o = open_family_named("linear_regression", "dim: 4\npoints: 9\nnoise: 0.5\n", MICA_SPLIT_TEST, 11);
  held h = fill_batch(&o, 0, TASKS);
  const char *names[] = { "zero", "ols", "bayes" };
  double mean[3][POINTS] = { { 0 } };
  for (int p = 0; p < 3; p++) {
    exact_loss(&o, names[p], &h);
    for (int b = 0; b < TASKS; b++)
      for (int i = 0; i < POINTS; i++) mean[p][i] += h.loss[h.offsets[b] + 2 * i] / TASKS;
  }
  /* E y^2 = dim + noise^2 = 4.25; its square root of variance is about 3.1 x 4.25 / sqrt(4000) (w and x both normal) */
  for (int i = 0; i < POINTS; i++) {
    close_to(mean[0][i], 4.25, 5 * 0.16, "zero", i);
    assert_true(mean[2][i] <= mean[0][i] + 1e-9 && mean[2][i] <= mean[1][i] + 0.02);
    if (i) assert_true(mean[2][i] < mean[2][i - 1] + 0.1);
  }
  assert_true(mean[2][0] == mean[0][0]);
  assert_true(mean[2][8] > 0.25 && mean[2][8] < 0.55);
  drop(&h), close_opened(&o);
}

static void statistics_of_linear_regression(void **state) {
  (void)state;
  enum { TASKS = 3000, DIM = 4, POINTS = 6 };
  opened o = open_family_named("linear_regression", "dim: 4\npoints: 6\nnoise: 0.5\nweight_scale: 2\n", 0, 5);
  held h = fill_batch(&o, 1000, TASKS);
  double x[POINTS * DIM], y[POINTS], n = TASKS * POINTS, sum[DIM] = { 0 }, cov[DIM][DIM] = { { 0 } }, xy[DIM] = { 0 };
  double first = 0, yy = 0;
  for (int b = 0; b < TASKS; b++) {
    assert_int_equal(read_pairs(&h, b, DIM, x, y), POINTS);
    double u = x[0] / sqrt(1.0), v = y[0] * y[1];
    (void)u;
    first += v / TASKS;
    for (int i = 0; i < POINTS; i++) {
      yy += y[i] * y[i] / n;
      for (int j = 0; j < DIM; j++) {
        sum[j] += x[i * DIM + j] / n, xy[j] += x[i * DIM + j] * y[i] / n;
        for (int k = 0; k < DIM; k++) cov[j][k] += x[i * DIM + j] * x[i * DIM + k] / n;
      }
    }
  }
  for (int j = 0; j < DIM; j++) {
    close_to(sum[j], 0, 5 / sqrt(n), "mean of x", j);
    /* x y has variance E w^2 (3 + dim - 1) + noise^2 at most; tasks share w, so count tasks */
    close_to(xy[j], 0, 5 * sqrt(4.0 * 6 + 0.25) / sqrt(TASKS), "x y", j);
    for (int k = 0; k < DIM; k++) close_to(cov[j][k], j == k, 5 * sqrt(2 / n), "covariance of x", j);
  }
  /* E y^2 = 4 x 4 + 0.25; its variance within a task, with |w|^2 ~ 4 chi2(4): at most 3 E|w|^4 - ... < 3 x 16 x 24 */
  close_to(yy, 16.25, 5 * sqrt(3 * 16 * 24.0) / sqrt(TASKS), "y y", 0);
  close_to(first, 0, 5 * sqrt(16 * 24.0) / sqrt(TASKS), "y0 y1 with independent x", 0);
  drop(&h), close_opened(&o);
}

static void layouts_show_what_they_should(void **state) {
  (void)state;
  enum { DIM = 3, POINTS = 5 };
  held h[3];
  opened o[3];
  const char *layouts[] = { "interleaved", "joined", "shifted" };
  double x[POINTS * DIM], y[POINTS];
  for (int l = 0; l < 3; l++) {
    char settings[96];
    snprintf(settings, sizeof settings, "dim: 3\npoints: 5\nlayout: %s\n", layouts[l]);
    o[l] = open_family_named("linear_regression", settings, MICA_SPLIT_TRAIN, 5);
    h[l] = fill_batch(&o[l], 4, 2);
    exact_loss(&o[l], "bayes", &h[l]);
    int64_t rows;
    assert_int_equal(o[l].family->longest(o[l].self, &rows), MICA_OK);
    assert_int_equal(rows, l == 0 ? 2 * POINTS : POINTS);
    assert_int_equal(h[l].offsets[2], 2 * rows);
  }
  read_pairs(&h[0], 1, DIM, x, y);
  const float *token[3], *target[3], *weight[3];
  for (int l = 0; l < 3; l++) {
    token[l] = (const float *)h[l].data[0] + h[l].offsets[1] * (DIM + 1);
    target[l] = (const float *)h[l].data[1] + h[l].offsets[1];
    weight[l] = (const float *)h[l].data[2] + h[l].offsets[1];
  }
  for (int i = 0; i < POINTS; i++) {
    int last = i == POINTS - 1;
    for (int l = 0; l < 3; l++) {
      const float *row = token[l] + (l == 0 ? 2 * i : i) * (DIM + 1);
      for (int j = 0; j < DIM; j++) assert_true((double)row[1 + j] == x[i * DIM + j]);
      double shown = l == 0 ? 0 : l == 1 ? (last ? 0 : y[i]) : (i ? y[i - 1] : 0);
      assert_true((double)row[0] == shown);
    }
    for (int j = 0; j < DIM; j++) assert_true(token[0][(2 * i + 1) * (DIM + 1) + 1 + j] == 0);
    assert_true((double)token[0][(2 * i + 1) * (DIM + 1)] == y[i]);
    assert_true(weight[0][2 * i] == 1 && weight[0][2 * i + 1] == 0 && target[0][2 * i + 1] == 0);
    assert_true(weight[1][i] == (float)last && (double)target[1][i] == (last ? y[i] : 0));
    assert_true(weight[2][i] == 1 && (double)target[2][i] == y[i]);
    assert_true(h[2].loss[h[2].offsets[1] + i] == h[0].loss[h[0].offsets[1] + 2 * i]);
    double joined = h[1].loss[h[1].offsets[1] + i];
    assert_true(joined == (last ? h[0].loss[h[0].offsets[1] + 2 * i] : 0));
  }
  for (int l = 0; l < 3; l++) drop(&h[l]), close_opened(&o[l]);
}

static int used_dimensions(const held *h, int64_t task, int dim) {
  double x[64 * 32], y[64];
  int n = read_pairs(h, task, dim, x, y), used = 0;
  for (int j = 0; j < dim; j++)
    for (int i = 0; i < n; i++)
      if (x[i * dim + j] != 0) used = j + 1;
  return used;
}

/* 10 tasks a step: dim 2, 3, 4 ... at steps 0, 10, 20; points 3, 5, 7, 8 at steps 0, 20, 40, 60 */
static void curricula_follow_the_steps(void **state) {
  (void)state;
  const char *settings = "dim: 5\npoints: 8\ndim_start: 2\ndim_every: 10\npoints_start: 3\npoints_every: 20\n"
                         "curriculum_steps: 100\n";
  opened o = open_family_named("linear_regression", settings, MICA_SPLIT_TRAIN, 5), half, test;
  struct { int64_t task; int dim, points; } want[] = { { 0, 2, 3 }, { 99, 2, 3 }, { 100, 3, 3 }, { 199, 3, 3 },
    { 200, 4, 5 }, { 300, 5, 5 }, { 400, 5, 7 }, { 600, 5, 8 }, { 999, 5, 8 }, { 1000000, 5, 8 } };
  for (int i = 0; i < MICA_COUNT(want); i++) {
    held h = fill_batch(&o, want[i].task, 1);
    assert_int_equal(h.offsets[1], 2 * want[i].points);
    assert_int_equal(used_dimensions(&h, 0, 5), want[i].dim);
    drop(&h);
  }
  /* half the steps: everything twice as early */
  assert_int_equal(try_open("linear_regression", settings, MICA_SPLIT_TRAIN, 5, 50, &half), MICA_OK);
  held h = fill_batch(&half, 49, 2);
  assert_int_equal(used_dimensions(&h, 0, 5), 2);
  assert_int_equal(used_dimensions(&h, 1, 5), 3);
  exact_loss(&half, "ols", &h);
  exact_loss(&half, "bayes", &h);
  for (int i = 0; i < h.offsets[2]; i++) assert_true(isfinite(h.loss[i]));
  drop(&h);
  /* tests are never cut */
  test = open_family_named("linear_regression", settings, MICA_SPLIT_TEST, 5);
  h = fill_batch(&test, 0, 1);
  assert_int_equal(h.offsets[1], 16);
  assert_int_equal(used_dimensions(&h, 0, 5), 5);
  drop(&h), close_opened(&o), close_opened(&half), close_opened(&test);
}

static void tasks_are_the_same_anywhere(void **state) {
  (void)state;
  check_identity("linear_regression", "dim: 3\npoints: 4\n", 0);
  check_identity("linear_regression", "dim: 3\npoints: 4\npool: 3\n", 5000000000);
  check_identity("sinusoid", "points: 4\n", 123);
  check_identity("sinusoid", "points: 4\nnoise: 0.5\nlayout: shifted\n", 123);
}

static void bad_settings_are_named(void **state) {
  (void)state;
  refused("linear_regression", "dim: 0\n", "dim");
  refused("linear_regression", "dim: 4\ndim_start: 5\n", "dim_start");
  refused("linear_regression", "points: 4\npoints_start: 5\n", "points_start");
  refused("linear_regression", "test_from_pool: yes\n", "test_from_pool");
  refused("linear_regression", "noise: -1\n", "noise");
  refused("linear_regression", "layout: sideways\n", "layout");
  refused("sinusoid", "amplitude_low: 6\n", "amplitude_low");
  refused("sinusoid", "x_low: 5\n", "x_low");
  refused("sinusoid", "noise: 1e-6\n", "noise");
}

static void own_data_are_encoded(void **state) {
  (void)state;
  opened o = open_family_named("linear_regression", "dim: 2\npoints: 4\n", MICA_SPLIT_TRAIN, 5);
  double values[9] = { 1, 2, 3, 4, 5, 6, 7, 8, NAN }, bad[9];
  int32_t rows[1] = { 0 };
  assert_int_equal(o.family->encode(o.self, values, 3, 3, rows, NULL), MICA_OK);
  assert_int_equal(rows[0], 6);
  held h;
  hold_rows(&o, 0, 1, rows, &h);
  assert_int_equal(o.family->encode(o.self, values, 3, 3, rows, &h.batch), MICA_OK);
  const float want[18] = { 0, 1, 2, 3, 0, 0, 0, 4, 5, 6, 0, 0, 0, 7, 8, 0, 0, 0 }, weight[6] = { 1, 0, 1, 0, 0, 0 };
  assert_memory_equal(h.data[0], want, sizeof want);
  assert_memory_equal(h.data[2], weight, sizeof weight);
  exact_loss(&o, "bayes", &h);
  assert_true(h.loss[0] == 9 && h.loss[4] == 0);
  drop(&h);
  assert_int_equal(o.family->encode(o.self, values, 3, 4, rows, NULL), MICA_ERR_SHAPE);
  assert_non_null(strstr(mica_last_error(), "expected 3"));
  assert_int_equal(o.family->encode(o.self, values, 5, 3, rows, NULL), MICA_ERR_SHAPE);
  memcpy(bad, values, sizeof bad);
  bad[5] = NAN;
  assert_int_equal(o.family->encode(o.self, bad, 3, 3, rows, NULL), MICA_ERR_NUMERIC);
  assert_non_null(strstr(mica_last_error(), "row 2, column 3"));
  bad[5] = INFINITY;
  assert_int_equal(o.family->encode(o.self, bad, 3, 3, rows, NULL), MICA_ERR_NUMERIC);
  close_opened(&o);
  opened joined = open_family_named("linear_regression", "dim: 2\npoints: 4\nlayout: joined\n", MICA_SPLIT_TRAIN, 5);
  const float together[9] = { 3, 1, 2, 6, 4, 5, 0, 7, 8 };
  assert_int_equal(joined.family->encode(joined.self, values, 3, 3, rows, NULL), MICA_OK);
  hold_rows(&joined, 0, 1, rows, &h);
  assert_int_equal(joined.family->encode(joined.self, values, 3, 3, rows, &h.batch), MICA_OK);
  assert_memory_equal(h.data[0], together, sizeof together);
  drop(&h), close_opened(&joined);
}

/* ---- sinusoid ---- */

static void statistics_of_sinusoid(void **state) {
  (void)state;
  enum { TASKS = 4000, POINTS = 3 };
  opened o = open_family_named("sinusoid", "points: 3\n", MICA_SPLIT_TRAIN, 5);
  held h = fill_batch(&o, 0, TASKS);
  double x[POINTS], y[POINTS], sum = 0, square = 0, low = 9, high = -9, yy = 0, largest = 0, cosine = 0;
  for (int b = 0; b < TASKS; b++) {
    read_pairs(&h, b, 1, x, y);
    for (int i = 0; i < POINTS; i++) {
      sum += x[i], square += x[i] * x[i], yy += y[i] * y[i], cosine += y[i] * cos(x[i]);
      low = fmin(low, x[i]), high = fmax(high, x[i]), largest = fmax(largest, fabs(y[i]));
    }
  }
  double n = TASKS * POINTS;
  close_to(sum / n, 0, 5 * sqrt(100 / 12.0 / n), "mean of x", 0);
  close_to(square / n, 100 / 12.0, 5 * 7.5 / sqrt(n), "variance of x", 0);
  assert_true(low >= -5 && low < -4.97 && high <= 5 && high > 4.97 && largest <= 5 && largest > 4.9);
  /* E A^2 = (5^3 - 0.1^3) / (3 x 4.9); sin(x - p)^2 is 1/2 - cos(2x - 2p)/2, and E cos 2p = 0 over [0, pi] */
  double a2 = (125 - 0.001) / 14.7;
  close_to(yy / n, a2 / 2, 5 * 5.5 / sqrt(TASKS), "y y", 0);
  /* y cos x = A (sin x cos x cos p - cos^2 x sin p): E = -E A (2 / pi) E cos^2 x */
  double cos2 = 0.5 + sin(10.0) / 20;
  close_to(cosine / n, -2.55 * 2 / acos(-1) * cos2, 5 * 1.5 / sqrt(TASKS), "y cos x", 0);
  /* each task's own amplitude and phase, from its pairs: uniform over their ranges */
  int amplitudes[10] = { 0 }, phases[10] = { 0 }, used = 0;
  for (int b = 0; b < TASKS; b++) {
    read_pairs(&h, b, 1, x, y);
    double det = sin(x[0] - x[1]);
    if (fabs(det) < 0.1) continue;
    double u = (y[0] * cos(x[1]) - y[1] * cos(x[0])) / det, v = (sin(x[0]) * y[1] - sin(x[1]) * y[0]) / det;
    int a = (int)((sqrt(u * u + v * v) - 0.1) / 0.49 + 1e-5), p = (int)(atan2(-v, u) / acos(-1) * 10 + 1e-5);
    assert_in_range(a, 0, 10);
    assert_in_range(p, 0, 10);
    amplitudes[a > 9 ? 9 : a]++, phases[p > 9 ? 9 : p]++, used++;
  }
  for (int k = 0; k < 10; k++) {
    close_to(amplitudes[k], used / 10.0, 5 * sqrt(used * 0.09), "tenth of the amplitudes", k);
    close_to(phases[k], used / 10.0, 5 * sqrt(used * 0.09), "tenth of the phases", k);
  }
  drop(&h), close_opened(&o);
}

/* Simpson's weight of node i of `cells` (even) */
static double simpson(int i, int cells) { return i == 0 || i == cells ? 1 : i % 2 ? 4 : 2; }

/* posterior mean of y at x by a plain grid over amplitude and phase */
static double by_grid(int n, const double *x, const double *y, double noise, double at, int cells) {
  double best = INFINITY, mass = 0, sum = 0, pi = acos(-1);
  for (int pass = 0; pass < 2; pass++)
    for (int p = 0; p <= cells; p++) {
      double phase = pi * p / cells, syy = 0, ss = 0, sy = 0, inner = 0, first = 0;
      for (int k = 0; k < n; k++) {
        double s = sin(x[k] - phase);
        syy += y[k] * y[k], ss += s * s, sy += s * y[k];
      }
      for (int a = 0; a <= cells; a++) {
        double amplitude = 0.1 + 4.9 * a / cells;
        double e = (syy - 2 * amplitude * sy + amplitude * amplitude * ss) / (2 * noise * noise);
        if (pass == 0) best = fmin(best, e);
        if (pass == 0 || e - best > 40) continue;
        double weight = simpson(a, cells) * exp(best - e);
        inner += weight, first += weight * amplitude;
      }
      mass += simpson(p, cells) * inner, sum += simpson(p, cells) * first * sin(at - phase);
    }
  return sum / mass;
}

static void sinusoid_bayes_matches_a_grid(void **state) {
  (void)state;
  const double noises[] = { 2, 0.5, 0.1 };
  for (int s = 0; s < 3; s++) {
    char settings[64];
    snprintf(settings, sizeof settings, "points: 6\nnoise: %g\n", noises[s]);
    opened o = open_family_named("sinusoid", settings, MICA_SPLIT_TEST, 5);
    held h = fill_batch(&o, 0, 3);
    exact_loss(&o, "bayes", &h);
    double x[6], y[6];
    for (int b = 0; b < 3; b++) {
      read_pairs(&h, b, 1, x, y);
      for (int i = 0; i < 6; i++) {
        double want = by_grid(i, x, y, noises[s], x[i], noises[s] < 0.2 ? 1500 : 700) - y[i];
        close_to(h.loss[h.offsets[b] + 2 * i], want * want, 1e-6 * (1 + want * want), "bayes", i);
      }
    }
    drop(&h), close_opened(&o);
  }
}

/* without noise: the prior mean, then the posterior of one pair (the limit of little noise), then the truth */
static void sinusoid_without_noise(void **state) {
  (void)state;
  opened o = open_family_named("sinusoid", "points: 5\n", MICA_SPLIT_TEST, 5);
  held h = fill_batch(&o, 0, 40);
  exact_loss(&o, "bayes", &h);
  double x[5], y[5];
  for (int b = 0; b < 40; b++) {
    read_pairs(&h, b, 1, x, y);
    double prior = -2.55 * 2 / acos(-1) * cos(x[0]) - y[0];
    close_to(h.loss[h.offsets[b]], prior * prior, 1e-12 * (1 + prior * prior), "no pair", b);
    if (b < 8) {
      double one = by_grid(1, x, y, 0.01, x[1], 3000) - y[1];
      close_to(h.loss[h.offsets[b] + 2], one * one, 2e-2 * (1 + one * one), "one pair", b);
    }
    if (fabs(sin(x[0] - x[1])) > 1e-2)
      for (int i = 2; i < 5; i++) close_to(h.loss[h.offsets[b] + 2 * i], 0, 1e-6, "two pairs", b);
  }
  drop(&h), close_opened(&o);
}

/* small noise makes a posterior far narrower than any fixed grid: it meets the noise-free answer, and is calibrated */
static void sinusoid_narrow_posteriors(void **state) {
  (void)state;
  opened o = open_family_named("sinusoid", "points: 20\nnoise: 0.001\n", MICA_SPLIT_TEST, 9);
  held h = fill_batch(&o, 0, 50);
  exact_loss(&o, "bayes", &h);
  double mean = 0;
  for (int b = 0; b < 50; b++)
    for (int i = 10; i < 20; i++) mean += h.loss[h.offsets[b] + 2 * i] / 500;
  /* noise^2 (1 + about 2 / 15), within 5 standard errors of noise^2 sqrt(2 / 500) */
  close_to(mean, 1.13e-6, 0.32e-6, "mean squared error", 0);
  drop(&h), close_opened(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(predictors_match_direct_solves),
    cmocka_unit_test(dmmse_is_the_mixture_over_the_pool),
    cmocka_unit_test(bayes_is_best_on_average),
    cmocka_unit_test(statistics_of_linear_regression),
    cmocka_unit_test(layouts_show_what_they_should),
    cmocka_unit_test(curricula_follow_the_steps),
    cmocka_unit_test(tasks_are_the_same_anywhere),
    cmocka_unit_test(bad_settings_are_named),
    cmocka_unit_test(own_data_are_encoded),
    cmocka_unit_test(statistics_of_sinusoid),
    cmocka_unit_test(sinusoid_bayes_matches_a_grid),
    cmocka_unit_test(sinusoid_without_noise),
    cmocka_unit_test(sinusoid_narrow_posteriors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
