/* keys to look up and labels that change: what the generators promise, and the exact predictors against enumeration. */
#include "task_support.h"

enum { KEY, VALUE, TARGET, WEIGHT };
static const int32_t *field(const held *h, int f) { return h->data[f]; }

/* every query asks for a key that was written, and its target is the last value of it */
static void retrieval(const char *settings, int pairs, int queries, int values, int rebind) {
  opened o = open_family_named("associative_retrieval", settings, MICA_SPLIT_TRAIN, 3);
  held h = fill_batch(&o, 5, 200);
  const int32_t *key = field(&h, KEY), *value = field(&h, VALUE), *target = field(&h, TARGET);
  const float *weight = h.data[WEIGHT];
  int repeated = 0, n = pairs + queries;
  for (int b = 0; b < 200; b++)
    for (int i = 0; i < n; i++) {
      int at = b * n + i, asks = i >= pairs, last = -1;
      for (int j = 0; j < pairs && j < i; j++)
        if (key[b * n + j] == key[at]) last = j;
      if (!asks && last >= 0) repeated++;
      assert_int_equal(weight[at] > 0, asks);
      if (!asks) assert_int_equal(target[at], value[at]);
      if (!asks) continue;
      assert_int_equal(value[at], values);
      assert_true(last >= 0);
      assert_int_equal(target[at], value[b * n + last]);
    }
  assert_int_equal(repeated > 0, rebind);
  exact_loss(&o, "latest", &h);
  for (int i = 0; i < 200 * n; i++) close_to(h.loss[i], 0, 0, "loss of latest", i);
  /* a wrong answer is infinitely wrong: the predictor reads the rows, not the target */
  ((int32_t *)h.data[TARGET])[pairs] = (target[pairs] + 1) % values;
  exact_loss(&o, "latest", &h);
  assert_true(isinf(h.loss[pairs]));
  exact_loss(&o, "uniform", &h);
  close_to(h.loss[pairs], log(values), 1e-15, "loss of uniform", 0);
  drop(&h);
  close_opened(&o);
}

static void keys_and_values(void **state) {
  (void)state;
  retrieval("keys: 6\nvalues: 5\npairs: 6\nqueries: 3\n", 6, 3, 5, 0);
  retrieval("keys: 4\nvalues: 3\npairs: 9\nqueries: 2\nrebind: yes\n", 9, 2, 3, 1);
  refused("associative_retrieval", "keys: 4\npairs: 5\n", "pairs is 5");
  check_identity("associative_retrieval", "keys: 9\npairs: 7\n", 4);
  check_identity("associative_retrieval", "rebind: yes\n", 4);
}

static void own_data(void **state) {
  (void)state;
  opened o = open_family_named("associative_retrieval", "keys: 4\nvalues: 3\npairs: 3\nqueries: 1\n", 0, 1);
  const double rows[] = { 2, 1, 0, 2, 2, NAN }, bad[] = { 4, 1 };
  int32_t size, offsets[] = { 0, 3 };
  assert_int_equal(o.family->encode(o.self, rows, 3, 2, &size, NULL), MICA_OK);
  assert_int_equal(size, 3);
  held h;
  hold_rows(&o, 0, 1, offsets + 1, &h);
  assert_int_equal(o.family->encode(o.self, rows, 3, 2, &size, &h.batch), MICA_OK);
  assert_int_equal(field(&h, KEY)[2], 2);
  assert_int_equal(field(&h, VALUE)[2], 3);
  assert_true(((const float *)h.data[WEIGHT])[2] > 0);
  assert_true(o.family->encode(o.self, bad, 1, 2, &size, NULL) < 0);
  assert_non_null(strstr(mica_last_error(), "row 1 has the key 4"));
  drop(&h);
  close_opened(&o);
}

/* P(labels of rows 0..n | classes): every set of changes, and within it every class a label of its own */
static double enumerated(const int32_t *shown, const int32_t *target, int n, int labels, double hazard, int period) {
  double sum = 0;
  for (int changes = 0; changes < 1 << (n - 1); changes++) {
    double p = 1;
    int known[8];
    memset(known, -1, sizeof known);
    for (int i = 0; i < n; i++) {
      int change = i && (changes >> (i - 1) & 1);
      double now = period && i % period == 0 ? 1 : hazard;
      if (i) p *= change ? now : 1 - now;
      if (change) memset(known, -1, sizeof known);
      if (known[shown[i]] < 0) p /= labels, known[shown[i]] = target[i];
      else p *= known[shown[i]] == target[i];
    }
    sum += p;
  }
  return sum;
}

/* P(labels shown for rows 0..n-2, right one of row n-1 | classes, noise): every set of labels of three classes */
static double enumerated_noisy(const int32_t *shown, const int32_t *seen, int32_t last, int n, double noise) {
  double sum = 0;
  for (int labels = 0; labels < 8; labels++) {
    double p = 1.0 / 8;
    for (int i = 0; i < n - 1; i++) p *= noise / 2 + (1 - noise) * ((labels >> shown[i] & 1) == seen[i]);
    sum += p * ((labels >> shown[n - 1] & 1) == last);
  }
  return sum;
}

/* tasks that may be noisy: both kinds by enumeration */
static void noisy_labels(void **state) {
  (void)state;
  opened o = open_family_named("remapped_labels",
                               "classes: 3\nlabels: 2\nlength: 9\nhazard: 0.2\nnoisy: 0.4\nnoise: 0.6\n", 0, 7);
  held h = fill_batch(&o, 0, 200);
  const int32_t *shown = field(&h, 0), *previous = field(&h, 1), *target = field(&h, 2);
  exact_loss(&o, "bayes", &h);
  int wrong = 0;
  for (int b = 0; b < 200; b++) {
    const int32_t *x = shown + 9 * b, *y = target + 9 * b, *seen = previous + 9 * b + 1;
    for (int i = 0; i < 9; i++) {
      int32_t clean[9];
      double p[2];
      for (int32_t last = 0; last < 2; last++) {
        if (i) memcpy(clean, seen, (size_t)i * sizeof *clean);
        clean[i] = last;
        p[last] = 0.6 * enumerated(x, clean, i + 1, 2, 0.2, 0) + 0.4 * enumerated_noisy(x, seen, last, i + 1, 0.6);
      }
      close_to(h.loss[9 * b + i], -log(p[y[i]] / (p[0] + p[1])), 1e-12, "loss of bayes", 9 * b + i);
      wrong += i < 8 && seen[i] != y[i];
    }
  }
  /* 0.6 / 2 of the labels that 0.4 of the tasks show */
  assert_true(wrong > 0.8 * 0.12 * 200 * 8 && wrong < 1.2 * 0.12 * 200 * 8);
  drop(&h);
  close_opened(&o);
  check_identity("remapped_labels", "length: 12\nnoisy: 0.5\n", 3);
}

static void changing_labels(void **state) {
  (void)state;
  static const char *const configs[] = { "classes: 3\nlabels: 2\nlength: 9\nhazard: 0.2\n",
                                         "classes: 3\nlabels: 2\nlength: 9\nhazard: 0.2\nperiod: 4\n" };
  for (int k = 0; k < 2; k++) {
    opened o = open_family_named("remapped_labels", configs[k], 0, 7);
    held h = fill_batch(&o, 0, 40);
    const int32_t *shown = field(&h, 0), *previous = field(&h, 1), *target = field(&h, 2);
    exact_loss(&o, "bayes", &h);
    int broken = 0;
    for (int b = 0; b < 40; b++) {
      const int32_t *x = shown + 9 * b, *y = target + 9 * b;
      double before = 1;
      for (int i = 0; i < 9; i++) {
        double p = enumerated(x, y, i + 1, 2, 0.2, 4 * k);
        close_to(h.loss[9 * b + i], -log(p / before), 1e-12, "loss of bayes", 9 * b + i);
        before = p;
        assert_int_equal(previous[9 * b + i], i ? y[i - 1] : 2);
        for (int j = 0; j < i; j++) broken += x[j] == x[i] && y[j] != y[i];
      }
    }
    assert_true(broken > 0);
    drop(&h);
    close_opened(&o);
  }
  /* without changes a class keeps its label */
  opened o = open_family_named("remapped_labels", "classes: 3\nlabels: 5\nlength: 30\nhazard: 0\n", 0, 7);
  held h = fill_batch(&o, 0, 20);
  for (int b = 0; b < 20; b++)
    for (int i = 0; i < 30; i++)
      for (int j = 0; j < i; j++)
        if (field(&h, 0)[30 * b + i] == field(&h, 0)[30 * b + j])
          assert_int_equal(field(&h, 2)[30 * b + i], field(&h, 2)[30 * b + j]);
  drop(&h);
  close_opened(&o);
  check_identity("remapped_labels", "length: 12\n", 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(keys_and_values),
    cmocka_unit_test(own_data),
    cmocka_unit_test(changing_labels),
    cmocka_unit_test(noisy_labels),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
