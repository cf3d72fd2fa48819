/* many threads fill and predict from one instance at the same time: the bits of one thread alone. */
#include "task_support.h"

enum { PARTS = 12, TASKS = 5 };

typedef struct job {
  opened *o;
  held    part[PARTS], whole;
  int32_t predictor;
} job;

static void work(void *arg, int64_t i, int32_t worker) {
  job *j = arg;
  (void)worker;
  const mica_family *f = j->o->family;
  /* cmocka's checks belong to the first thread: a failure leaves the pattern, which the comparison finds */
  if (f->fill(j->o->self, &j->part[i].batch) < 0) return;
  (void)f->exact(j->o->self, j->predictor, &j->part[i].batch, j->part[i].loss);
}

static void same_bits_on_threads(void **state) {
  (void)state;
  const struct { const char *family, *settings, *predictor; } cases[] = {
    { "linear_regression", "dim: 4\npoints: 9\n", "ols" },
    { "linear_regression", "dim: 4\npoints: 9\npool: 20\nlayout: shifted\n", "bayes" },
    { "sinusoid", "points: 4\nnoise: 0.3\n", "bayes" },
    { "categorical", "symbols: 4\n", "kt" },
    { "piecewise", "", "ptw" },
    { "piecewise", "prior: fixed\n", "bayes" },
    { "bytes", "path: " MICA_SOURCE_DIR "/LICENSE\nlength: 64\n", "order0" },
  };
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  mica_context *pool;
  options.threads = 4;
  assert_int_equal(micah_context_new(&options, &pool), MICA_OK);
  const mica_threads *threads = mica_context_get_threads(pool);
  for (int c = 0; c < MICA_COUNT(cases); c++) {
    opened o = open_family_named(cases[c].family, cases[c].settings, MICA_SPLIT_TRAIN, 6);
    job j = { .o = &o, .predictor = which_predictor(&o, cases[c].predictor) };
    j.whole = fill_batch(&o, 3, PARTS * TASKS);
    exact_loss(&o, cases[c].predictor, &j.whole);
    for (int i = 0; i < PARTS; i++) {
      int32_t rows[TASKS];
      assert_int_equal(o.family->sizes(o.self, 3 + i * TASKS, TASKS, rows), MICA_OK);
      hold_rows(&o, 3 + i * TASKS, TASKS, rows, &j.part[i]);
    }
    threads->parallel_for(threads->user, PARTS, work, &j);
    for (int i = 0; i < PARTS; i++) {
      int64_t begin = j.whole.offsets[i * TASKS], rows = j.part[i].offsets[TASKS];
      for (int32_t f = 0; f < j.whole.fields; f++) {
        size_t row = j.part[i].bytes[f] / (size_t)rows;
        assert_memory_equal((char *)j.whole.data[f] + row * (size_t)begin, j.part[i].data[f], j.part[i].bytes[f]);
      }
      assert_memory_equal(j.whole.loss + begin, j.part[i].loss, (size_t)rows * sizeof(double));
      drop(&j.part[i]);
    }
    drop(&j.whole), close_opened(&o);
  }
  mica_context_destroy(pool);
}

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(same_bits_on_threads) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
