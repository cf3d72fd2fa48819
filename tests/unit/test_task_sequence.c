/* categorical and piecewise sources: laws of the generators, and exact predictors against enumeration. */
#include "task_support.h"

/* Beta(alpha, alpha) mixture probability of bits, by its product */
static double kt_probability(const int32_t *x, int n, double alpha) {
  double count[2] = { 0, 0 }, p = 1;
  for (int i = 0; i < n; i++) p *= (count[x[i]] + alpha) / (i + 2 * alpha), count[x[i]]++;
  return p;
}

/* sum over every partition of the tree below a node: 2^-cost times the product of its segments */
static double ptw_probability(const int32_t *x, int n, int depth, double alpha) {
  if (depth == 0 || n == 0) return kt_probability(x, n, alpha);
  int half = 1 << (depth - 1), left = n < half ? n : half;
  return 0.5 * kt_probability(x, n, alpha) +
         0.5 * ptw_probability(x, left, depth - 1, alpha) * ptw_probability(x + left, n - left, depth - 1, alpha);
}

/* every partition written out: a list of segment ends, with its cost in bits; at depth 4 there are 677 */
typedef struct partition { int ends[16], count, cost; } partition;
static int list_partitions(int begin, int depth, partition *out) {
  int half = 1 << (depth - 1 > 0 ? depth - 1 : 0), count = 1, n, m;
  out[0] = (partition){ { begin + (1 << depth) }, 1, depth > 0 };
  if (depth == 0) return 1;
  partition *left = malloc(1000 * sizeof *left), *right = malloc(1000 * sizeof *right);
  assert_true(left && right);
  n = list_partitions(begin, depth - 1, left), m = list_partitions(begin + half, depth - 1, right);
  for (int i = 0; i < n; i++)
    for (int j = 0; j < m; j++) {
      partition p = left[i];
      for (int k = 0; k < right[j].count; k++) p.ends[p.count++] = right[j].ends[k];
      p.cost += right[j].cost + 1;
      out[count++] = p;
    }
  free(left), free(right);
  return count;
}

static double by_partitions(const int32_t *x, int n, int depth) {
  static partition list[1000];
  int count = list_partitions(0, depth, list);
  double sum = 0, prior = 0;
  for (int i = 0; i < count; i++) {
    double p = pow(0.5, list[i].cost);
    prior += p;
    for (int k = 0, begin = 0; k < list[i].count; begin = list[i].ends[k], k++) {
      int end = list[i].ends[k] < n ? list[i].ends[k] : n;
      if (begin < end) p *= kt_probability(x + begin, end - begin, 0.5);
    }
    sum += p;
  }
  close_to(prior, 1, 1e-12, "prior over partitions", depth);
  return sum;
}

/* put bits into a held batch of one task */
static void set_bits(held *h, const int32_t *x, int n) {
  memcpy(h->data[1], x, (size_t)n * sizeof *x);
}

static double total(const held *h) {
  double sum = 0;
  for (int i = 0; i < h->offsets[1]; i++) sum += h->loss[i];
  return sum;
}

static void ptw_matches_every_partition(void **state) {
  (void)state;
  for (int depth = 0; depth <= 4; depth++) {
    char settings[32];
    snprintf(settings, sizeof settings, "depth: %d\n", depth);
    opened o = open_family_named("piecewise", settings, MICA_SPLIT_TEST, 1);
    held h = fill_batch(&o, 0, 1);
    int n = 1 << depth;
    double mass = 0;
    for (uint32_t bits = 0; bits < 1u << n; bits++) {
      int32_t x[16];
      for (int i = 0; i < n; i++) x[i] = (bits >> i) & 1;
      set_bits(&h, x, n);
      exact_loss(&o, "ptw", &h);
      mass += exp(-total(&h));
      if (depth == 4 && bits % 97) continue; /* all sequences up to depth 3, many at 4 */
      double before = 1;
      for (int t = 1; t <= n; t++) {
        double now = ptw_probability(x, t, depth, 0.5);
        close_to(h.loss[t - 1], -log(now / before), 1e-11, "ptw by recursion", t);
        before = now;
      }
      if (depth < 4 || bits % 970 == 0)
        close_to(exp(-total(&h)), by_partitions(x, n, depth), 1e-12, "partitions", bits);
    }
    close_to(mass, 1, 1e-10, "sum over all sequences", depth);
    drop(&h), close_opened(&o);
  }
}

/* every placement of the cuts, alike */
static double by_placements(const int32_t *x, int t, int n, int changes, double alpha) {
  double sum = 0;
  int count = 0;
  for (uint32_t cuts = 0; cuts < 1u << (n - 1); cuts++) {
    int ones = 0;
    for (int i = 0; i < n - 1; i++) ones += (cuts >> i) & 1;
    if (ones != changes) continue;
    double p = 1;
    for (int begin = 0, i = 1; i <= t; i++)
      if (i == t || ((cuts >> (i - 1)) & 1)) p *= kt_probability(x + begin, i - begin, alpha), begin = i;
    sum += p, count++;
  }
  return sum / count;
}

static void fixed_cuts_match_every_placement(void **state) {
  (void)state;
  const int cases[][2] = { { 3, 0 }, { 3, 1 }, { 3, 2 }, { 3, 7 }, { 4, 3 } };
  for (int c = 0; c < MICA_COUNT(cases); c++) {
    int n = 1 << cases[c][0], changes = cases[c][1];
    char settings[96];
    snprintf(settings, sizeof settings, "depth: %d\nprior: fixed\nchanges: %d\nalpha: 0.7\n", cases[c][0], changes);
    opened o = open_family_named("piecewise", settings, MICA_SPLIT_TEST, 1);
    held h = fill_batch(&o, 0, 1);
    double mass = 0;
    for (uint32_t bits = 0; bits < 1u << n; bits++) {
      int32_t x[16];
      for (int i = 0; i < n; i++) x[i] = (bits >> i) & 1;
      set_bits(&h, x, n);
      exact_loss(&o, "bayes", &h);
      mass += exp(-total(&h));
      if (bits % (n == 8 ? 1 : 8191)) continue;
      double before = 1;
      for (int t = 1; t <= n; t++) {
        double now = by_placements(x, t, n, changes, 0.7);
        close_to(h.loss[t - 1], -log(now / before), 1e-11, "fixed cuts", t);
        before = now;
      }
    }
    close_to(mass, 1, 1e-10, "sum over all sequences", c);
    drop(&h), close_opened(&o);
  }
}

/* the generator's law is the mixture's: frequencies of all sequences of 8 bits */
static void piecewise_draws_its_own_mixture(void **state) {
  (void)state;
  enum { TASKS = 40000 };
  const char *settings[] = { "depth: 3\n", "depth: 3\nprior: fixed\nchanges: 2\n", "depth: 3\nalpha: 2\n" };
  for (int s = 0; s < 3; s++) {
    opened o = open_family_named("piecewise", settings[s], MICA_SPLIT_TRAIN, 2);
    held h = fill_batch(&o, 77, TASKS), one = fill_batch(&o, 0, 1);
    int seen[256] = { 0 };
    for (int b = 0; b < TASKS; b++) {
      const int32_t *x = (const int32_t *)h.data[1] + 8 * b, *tokens = (const int32_t *)h.data[0] + 8 * b;
      int bits = 0;
      for (int i = 0; i < 8; i++) {
        assert_in_range(x[i], 0, 1);
        assert_int_equal(tokens[i], i ? x[i - 1] : 2);
        bits |= x[i] << i;
      }
      seen[bits]++;
    }
    double chi = 0;
    for (int bits = 0; bits < 256; bits++) {
      int32_t x[8];
      for (int i = 0; i < 8; i++) x[i] = (bits >> i) & 1;
      set_bits(&one, x, 8);
      exact_loss(&o, "bayes", &one);
      double want = TASKS * exp(-total(&one));
      chi += (seen[bits] - want) * (seen[bits] - want) / want;
    }
    if (!(chi < 255 + 5 * sqrt(2 * 255))) fail_msg("%s: chi squared %g on 255", settings[s], chi);
    drop(&h), drop(&one), close_opened(&o);
  }
}

/* on its own sources the PTW mixture beats KT, and no mixture beats the family's own */
static void own_mixture_is_best_on_average(void **state) {
  (void)state;
  const char *settings[] = { "", "prior: fixed\nchanges: 3\n" };
  for (int s = 0; s < 2; s++) {
    opened o = open_family_named("piecewise", settings[s], MICA_SPLIT_TEST, 2);
    held h = fill_batch(&o, 0, 3000);
    double mean[3];
    const char *names[] = { "kt", "ptw", "bayes" };
    for (int p = 0; p < 3; p++) {
      mean[p] = 0;
      exact_loss(&o, names[p], &h);
      for (int i = 0; i < h.offsets[3000]; i++) mean[p] += h.loss[i] / h.offsets[3000];
    }
    assert_true(mean[2] <= mean[1] && mean[1] < mean[0] - 0.005);
    assert_true(s == 0 ? mean[2] == mean[1] : mean[2] < mean[1] - 0.001);
    drop(&h), close_opened(&o);
  }
}

static void segments_are_described(void **state) {
  (void)state;
  opened o = open_family_named("piecewise", "depth: 4\n", MICA_SPLIT_TRAIN, 2);
  int whole = 0, quarter = 0;
  char text[128], small[8];
  for (int64_t task = 0; task < 4000; task++) {
    assert_int_equal(o.family->describe(o.self, task, text, sizeof text), MICA_OK);
    whole += strcmp(text, "segments from 0") == 0;
    quarter += strstr(text, " 4") != NULL && text[14] != '4';
    if (strstr(text, " 4")) assert_non_null(strstr(text, " 8")); /* a cut in a half needs the cut between the halves */
  }
  close_to(whole, 2000, 5 * sqrt(1000), "not cut", 0);
  close_to(quarter, 1000, 5 * sqrt(750), "first half cut", 0);
  assert_int_equal(o.family->describe(o.self, 0, small, sizeof small), MICA_OK);
  assert_string_equal(small, "segment");
  close_opened(&o);
  o = open_family_named("piecewise", "prior: fixed\nchanges: 5\n", MICA_SPLIT_TRAIN, 2);
  for (int64_t task = 0; task < 200; task++) {
    int words = 0;
    assert_int_equal(o.family->describe(o.self, task, text, sizeof text), MICA_OK);
    for (const char *at = text; *at; at++) words += *at == ' ';
    assert_int_equal(words, 7);
  }
  close_opened(&o);
}

/* ---- categorical ---- */

static void kt_matches_the_closed_form(void **state) {
  (void)state;
  opened o = open_family_named("categorical", "symbols: 3\nlength: 5\nalpha: 0.7\n", MICA_SPLIT_TEST, 1);
  held h = fill_batch(&o, 0, 1);
  double mass = 0;
  for (int code = 0; code < 243; code++) {
    int32_t x[5], count[3] = { 0, 0, 0 };
    for (int i = 0, rest = code; i < 5; i++, rest /= 3) x[i] = rest % 3, count[x[i]]++;
    set_bits(&h, x, 5);
    exact_loss(&o, "kt", &h);
    /* Gamma(K a) / Gamma(n + K a) prod Gamma(n_k + a) / Gamma(a) */
    double want = lgamma(2.1) - lgamma(7.1);
    for (int k = 0; k < 3; k++) want += lgamma(count[k] + 0.7) - lgamma(0.7);
    close_to(-total(&h), want, 1e-12, "log probability", code);
    mass += exp(-total(&h));
    exact_loss(&o, "uniform", &h);
    close_to(total(&h), 5 * log(3), 1e-12, "uniform", code);
  }
  close_to(mass, 1, 1e-12, "sum over all sequences", 0);
  drop(&h), close_opened(&o);
}

static void categorical_draws_its_own_mixture(void **state) {
  (void)state;
  enum { TASKS = 60000 };
  opened o = open_family_named("categorical", "symbols: 3\nlength: 4\nalpha: 0.5\n", MICA_SPLIT_TRAIN, 1);
  held h = fill_batch(&o, 5, TASKS), one = fill_batch(&o, 0, 1);
  int seen[81] = { 0 };
  for (int b = 0; b < TASKS; b++) {
    const int32_t *x = (const int32_t *)h.data[1] + 4 * b, *tokens = (const int32_t *)h.data[0] + 4 * b;
    int code = 0;
    for (int i = 3; i >= 0; i--) code = 3 * code + x[i], assert_int_equal(tokens[i], i ? x[i - 1] : 3);
    seen[code]++;
  }
  double chi = 0;
  for (int code = 0; code < 81; code++) {
    int32_t x[4];
    for (int i = 0, rest = code; i < 4; i++, rest /= 3) x[i] = rest % 3;
    set_bits(&one, x, 4);
    exact_loss(&o, "kt", &one);
    double want = TASKS * exp(-total(&one));
    chi += (seen[code] - want) * (seen[code] - want) / want;
  }
  assert_true(chi < 80 + 5 * sqrt(160));
  drop(&h), drop(&one), close_opened(&o);
}

static void tasks_are_the_same_anywhere(void **state) {
  (void)state;
  check_identity("categorical", "symbols: 5\nlength: 40\n", 0);
  check_identity("categorical", "length: 64\n", 8000000000);
  check_identity("piecewise", "", 3);
  check_identity("piecewise", "prior: fixed\n", 3);
}

static void bad_settings_and_data_are_named(void **state) {
  (void)state;
  refused("categorical", "symbols: 1\n", "symbols");
  refused("categorical", "alpha: 0\n", "alpha");
  refused("categorical", "lenght: 5\n", "length");
  refused("piecewise", "depth: 17\n", "depth");
  refused("piecewise", "depth: 2\nprior: fixed\nchanges: 4\n", "changes");
  refused("piecewise", "prior: both\n", "prior");
  opened o = open_family_named("categorical", "symbols: 3\nlength: 4\n", MICA_SPLIT_TRAIN, 1);
  double values[4] = { 2, 0, 1, NAN };
  int32_t rows[1];
  held h;
  assert_int_equal(o.family->encode(o.self, values, 4, 1, rows, NULL), MICA_OK);
  hold_rows(&o, 0, 1, rows, &h);
  assert_int_equal(o.family->encode(o.self, values, 4, 1, rows, &h.batch), MICA_OK);
  const int32_t tokens[4] = { 3, 2, 0, 1 }, target[4] = { 2, 0, 1, 0 };
  assert_memory_equal(h.data[0], tokens, sizeof tokens);
  assert_memory_equal(h.data[1], target, sizeof target);
  drop(&h);
  values[1] = 3;
  assert_int_equal(o.family->encode(o.self, values, 4, 1, rows, NULL), MICA_ERR_NUMERIC);
  assert_non_null(strstr(mica_last_error(), "row 2 is 3"));
  values[1] = 0.5;
  assert_int_equal(o.family->encode(o.self, values, 4, 1, rows, NULL), MICA_ERR_NUMERIC);
  assert_int_equal(o.family->encode(o.self, values, 5, 1, rows, NULL), MICA_ERR_SHAPE);
  assert_int_equal(o.family->encode(o.self, values, 4, 2, rows, NULL), MICA_ERR_SHAPE);
  close_opened(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(ptw_matches_every_partition),
    cmocka_unit_test(fixed_cuts_match_every_placement),
    cmocka_unit_test(piecewise_draws_its_own_mixture),
    cmocka_unit_test(own_mixture_is_best_on_average),
    cmocka_unit_test(segments_are_described),
    cmocka_unit_test(kt_matches_the_closed_form),
    cmocka_unit_test(categorical_draws_its_own_mixture),
    cmocka_unit_test(tasks_are_the_same_anywhere),
    cmocka_unit_test(bad_settings_and_data_are_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
