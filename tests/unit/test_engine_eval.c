/* evaluation, prediction and gradients of a batch through the public calls */
#include "engine_support.h"

#include <math.h>

#include "host/io/npy.h"
#include "host/io/safetensors.h"

static char run[512];

static int train_once(void **state) {
  if (make_folder(state)) return -1;
  write_text(in_folder("small.yaml"), small_config);
  snprintf(run, sizeof run, "%s", in_folder("run"));
  mica_source s = source_of(in_folder("small.yaml"), run, NULL, 0);
  mica_trainer *t;
  CHECK(mica_trainer_create(&s, 0, &t));
  CHECK(mica_trainer_run(t, NULL, NULL));
  mica_trainer_destroy(t);
  return 0;
}

static void evaluation_adds_up(void **state) {
  (void)state;
  mica_evaluate_options o = MICA_EVALUATE_OPTIONS_INIT;
  o.source.run = run, o.tasks = 100;
  const mica_evaluation *e, *again;
  CHECK(mica_evaluate(&o, &e));
  assert_int_equal(e->tasks, 100);
  assert_int_equal(e->positions, 6);
  assert_int_equal(e->step, 20);
  assert_string_equal(e->exact, "bayes");
  double sum = 0, weight = 0, exact = 0, tasks = 0;
  for (int64_t i = 0; i < e->positions; i++) {
    sum += e->loss_by_position[i] * e->weight_by_position[i];
    exact += e->exact_loss_by_position[i] * e->weight_by_position[i];
    weight += e->weight_by_position[i];
  }
  for (int64_t i = 0; i < e->tasks; i++) tasks += e->task_loss[i];
  assert_float_equal(sum / weight, e->loss, 1e-9);
  assert_float_equal(tasks / 100, e->loss, 1e-9);
  assert_float_equal(exact / weight, e->exact_loss, 1e-9);
  assert_true(e->loss > e->exact_loss && e->loss < 10 && isnan(e->bits));
  /* the prior's mean is 0, so nothing can be known at the first position */
  assert_string_equal(e->predictors[0].name, "zero");
  assert_true(e->predictors[0].by_position[0] == e->exact_loss_by_position[0]);
  /* one task alone is the task among others */
  o.tasks = 1, o.exact = "ridge,zero";
  CHECK(mica_evaluate(&o, &again));
  assert_int_equal(again->n_predictors, 2);
  assert_true(again->task_loss[0] == e->task_loss[0]);
  mica_evaluation_destroy(again);
  o.exact = "rigde";
  assert_int_equal(mica_evaluate(&o, &again), MICA_ERR_NOT_FOUND);
  assert_non_null(strstr(mica_last_error(), "ridge"));
  mica_evaluation_destroy(e);
}

static void predictions_follow_the_data(void **state) {
  (void)state;
  write_text(in_folder("mine.csv"), "a,b,c,y\n1,0,0,1\n0,1,0,2\n0,0,1,3\n1,1,1,\n");
  mica_predict_options o = MICA_PREDICT_OPTIONS_INIT;
  o.source.run = run, o.input = in_folder("mine.csv");
  const mica_prediction *p;
  CHECK(mica_predict(&o, &p));
  assert_int_equal(p->rows, 4);
  assert_int_equal(p->columns, 1);
  assert_true(p->target == NULL && isnan(p->bits));
  for (int64_t i = 0; i < 4; i++) assert_true(isfinite(p->values[i]));
  for (int64_t i = 0; i < 3; i++)
    assert_float_equal(p->loss[i], pow((double)p->values[i] - (double)(i + 1), 2), 1e-4);
  assert_true(isnan(p->loss[3]) && isnan(p->loss_by_position[3]));
  CHECK(mica_prediction_save(p, in_folder("out.csv")));
  CHECK(mica_prediction_save(p, in_folder("out.npy")));
  assert_true(mica_prediction_save(p, in_folder("out.txt")) < 0);
  mica_prediction_destroy(p);
  /* the same rows from an array of two sequences */
  double rows[2][4][4] = { { { 1, 0, 0, 1 }, { 0, 1, 0, 2 }, { 0, 0, 1, 3 }, { 1, 1, 1, NAN } } };
  memcpy(rows[1], rows[0], sizeof rows[0]);
  micah_array array = { MICA_F64, 3, { 2, 4, 4 }, 32, rows };
  CHECK(micah_npy_write(in_folder("mine.npy"), &array));
  o.input = in_folder("mine.npy");
  const mica_prediction *q;
  CHECK(mica_predict(&o, &q));
  assert_int_equal(q->rows, 8);
  assert_int_equal(q->sequences, 2);
  assert_memory_equal(q->values, q->values + 4, 4 * sizeof *q->values);
  mica_prediction_destroy(q);
  static const struct { const char *text, *expect; } bad[] = {
    { "1,2\n3,4\n", "columns" }, { "1,2,3,4\n1,x,3,4\n", ":2" }, { "1,2,3,\n1,2,3,4\n", "row 1" },
    { "1,2,3,4\n1,2,3,4\n1,2,3,4\n1,2,3,4\n1,2,3,4\n1,2,3,4\n1,2,3,4\n", "rows" },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_text(in_folder("bad.csv"), bad[i].text);
    o.input = in_folder("bad.csv");
    assert_true(mica_predict(&o, &q) < 0);
    if (!strstr(mica_last_error(), bad[i].expect)) fail_msg("no '%s' in: %s", bad[i].expect, mica_last_error());
  }
}

/* a prompt that is what the first tokens are read into stands for them */
static void a_prompt_is_tokens_before(void **state) {
  (void)state;
  static const char *const masks[] = { "model.mask=causal", "model.mask=full", "model.mask=prefix", "model.mask=context" };
  write_text(in_folder("prompt.yaml"),
             "family: {name: linear_regression, dim: 2, points: 4}\n"
             "model: {name: transformer, layers: 2, width: 8, heads: 2, init: 0.5, positions: none}\n"
             "steps: 3\nbatch: 4\ngrain: 2\nthreads: 1\n");
  write_text(in_folder("all.csv"), "a,b,y\n1,-2,0.5\n0.3,1,2\n-1,0.7,-1.5\n2,0.1,\n");
  write_text(in_folder("rest.csv"), "a,b,y\n0.3,1,2\n-1,0.7,-1.5\n2,0.1,\n");
  for (size_t m = 0; m < sizeof masks / sizeof *masks; m++) {
    const char *set[] = { masks[m], "model.prefix=2", "model.prompt_length=0" };
    mica_grad_options g = MICA_GRAD_OPTIONS_INIT;
    g.source = source_of(in_folder("prompt.yaml"), NULL, set, 3), g.out = in_folder("w.safetensors");
    CHECK(mica_grad(&g, NULL));
    mica_predict_options o = MICA_PREDICT_OPTIONS_INIT;
    o.source = g.source, o.input = in_folder("all.csv");
    const mica_prediction *all, *rest;
    CHECK(mica_predict(&o, &all));
    /* the same weights, and row 0 of interleaved tokens (0, 1, -2), row 1 (0.5, 0, 0), read in by hand */
    micah_safetensors *file;
    micah_tensor list[64];
    int64_t n = 0;
    float prompt[2][8];
    CHECK(micah_safetensors_open(in_folder("w.safetensors"), &file));
    for (int64_t i = 0; i < micah_safetensors_count(file); i++)
      if (!strncmp(micah_safetensors_get(file, i)->name, "init/", 5)) {
        list[n] = *micah_safetensors_get(file, i);
        list[n++].name += 5;
      }
    const float *w = micah_safetensors_find(file, "init/read_in.weight")->data;
    const float *b = micah_safetensors_find(file, "init/read_in.bias")->data;
    for (int c = 0; c < 8; c++)
      prompt[0][c] = b[c] + w[3 * c + 1] - 2 * w[3 * c + 2], prompt[1][c] = b[c] + 0.5f * w[3 * c];
    list[n++] = (micah_tensor){ .name = "prompt.weight", .dtype = MICA_F32, .rank = 2, .shape = { 2, 8 }, .data = prompt };
    CHECK(micah_safetensors_write(in_folder("prompt.safetensors"), list, n, NULL, 0));
    micah_safetensors_close(file);
    /* of prefix tokens that all see, two are the prompt now */
    set[1] = "model.prefix=0", set[2] = "model.prompt_length=2";
    o.source = source_of(in_folder("prompt.yaml"), NULL, set, 3);
    o.input = in_folder("rest.csv"), o.weights = in_folder("prompt.safetensors");
    CHECK(mica_predict(&o, &rest));
    assert_int_equal(all->rows, 4);
    assert_int_equal(rest->rows, 3);
    for (int i = 0; i < 3; i++) assert_float_equal(rest->values[i], all->values[i + 1], 1e-6);
    assert_true(fabs((double)all->values[1] - (double)all->values[2]) > 1e-3);
    mica_prediction_destroy(all);
    mica_prediction_destroy(rest);
  }
}

static void bytes_are_predicted(void **state) {
  (void)state;
  write_text(in_folder("corpus.txt"),
             "the quick brown fox jumps over the lazy dog and runs away from it as fast as it can");
  char config[1024];
  snprintf(config, sizeof config,
           "family: {name: bytes, path: '%s', mode: files, length: 16}\n"
           "model: {name: transformer, layers: 1, width: 8, heads: 2}\n"
           "steps: 3\nbatch: 4\ngrain: 2\nthreads: 1\n", in_folder("corpus.txt"));
  write_text(in_folder("bytes.yaml"), config);
  mica_predict_options o = MICA_PREDICT_OPTIONS_INIT;
  o.source.config = in_folder("bytes.yaml"), o.input = in_folder("corpus.txt");
  const mica_prediction *p;
  CHECK(mica_predict(&o, &p));
  assert_int_equal(p->rows, 83);
  assert_int_equal(p->columns, 256);
  assert_int_equal(p->positions, 16);
  assert_int_equal(p->sequences, 6);
  assert_int_equal(p->target[0], 't');
  double bits = 0;
  for (int64_t i = 0; i < p->rows; i++) {
    double sum = 0;
    for (int64_t c = 0; c < 256; c++) sum += (double)p->values[i * 256 + c];
    assert_float_equal(sum, 1, 1e-5);
    assert_float_equal(p->loss[i], -log((double)p->values[i * 256 + p->target[i]]), 1e-4);
    bits += p->loss[i] / M_LN2;
  }
  assert_float_equal(bits / 83, p->bits, 1e-9);
  assert_true(p->bits > 7 && p->bits < 9); /* untrained: close to 8 */
  mica_prediction_destroy(p);
}

/* gradient files: f32 near f64, a product along a direction, errors of a wrong one */
static void gradients_are_written(void **state) {
  (void)state;
  char text[1024], out[2][512], dir[512];
  snprintf(text, sizeof text, "%s", in_folder("small.yaml"));
  snprintf(out[0], sizeof out[0], "%s", in_folder("g32.safetensors"));
  snprintf(out[1], sizeof out[1], "%s", in_folder("g64.safetensors"));
  snprintf(dir, sizeof dir, "%s", in_folder("dir.safetensors"));
  mica_grad_options o = MICA_GRAD_OPTIONS_INIT;
  o.source.config = text, o.out = out[0];
  double loss[2];
  CHECK(mica_grad(&o, &loss[0]));
  /* the gradient itself as the direction */
  micah_safetensors *f, *g;
  CHECK(micah_safetensors_open(out[0], &f));
  micah_tensor tensors[128];
  char names[128][128];
  int64_t n = 0;
  for (int64_t i = 0; i < micah_safetensors_count(f); i++) {
    const micah_tensor *t = micah_safetensors_get(f, i);
    if (strncmp(t->name, "grad/", 5) != 0) continue;
    snprintf(names[n], sizeof names[n], "dir/%s", t->name + 5);
    tensors[n] = *t, tensors[n].name = names[n], n++;
  }
  CHECK(micah_safetensors_write(dir, tensors, n, NULL, 0));
  assert_string_equal(micah_safetensors_meta(f, "optimizer.clip"), "0.5");
  assert_non_null(micah_safetensors_find(f, "tokens"));
  assert_non_null(micah_safetensors_find(f, "init/read_in.weight"));
  assert_int_equal(micah_safetensors_find(f, "loss")->shape[0], 8);
  o.out = out[1], o.dtype = MICA_F64, o.direction = dir;
  CHECK(mica_grad(&o, &loss[1]));
  assert_float_equal(loss[0], loss[1], 1e-5);
  CHECK(micah_safetensors_open(out[1], &g));
  for (int64_t i = 0; i < n; i++) {
    char name[160];
    snprintf(name, sizeof name, "grad/%s", names[i] + 4);
    const micah_tensor *a = micah_safetensors_find(f, name), *b = micah_safetensors_find(g, name);
    assert_true(a && b && a->dtype == MICA_F32 && b->dtype == MICA_F64);
    for (int64_t k = 0; k < micah_tensor_count(a); k++)
      assert_float_equal((double)((const float *)a->data)[k], ((const double *)b->data)[k], 1e-4);
    snprintf(name, sizeof name, "hvp/%s", names[i] + 4);
    assert_non_null(micah_safetensors_find(g, name));
  }
  micah_safetensors_close(g);
  /* a direction that lacks a parameter is named */
  CHECK(micah_safetensors_write(dir, tensors, n - 1, NULL, 0));
  assert_true(mica_grad(&o, &loss[1]) < 0);
  assert_non_null(strstr(mica_last_error(), names[n - 1]));
  micah_safetensors_close(f);
  o.direction = NULL, o.dtype = MICA_BF16;
  CHECK(mica_grad(&o, &loss[1]));
  assert_float_equal(loss[0], loss[1], 0.1);
  o.dtype = MICA_U8;
  assert_int_equal(mica_grad(&o, &loss[1]), MICA_ERR_UNSUPPORTED);
}

static void weights_of_another_model_are_refused(void **state) {
  (void)state;
  char other[1024];
  snprintf(other, sizeof other, "%s", in_folder("small.yaml"));
  static const char *const wider[] = { "model.width=18" }, *const fewer[] = { "model.layers=1" };
  mica_evaluate_options o = MICA_EVALUATE_OPTIONS_INIT;
  o.source.config = other, o.weights = in_folder("run/last.safetensors");
  o.source.overrides = wider, o.source.n_overrides = 1;
  const mica_evaluation *e;
  assert_true(mica_evaluate(&o, &e) < 0);
  assert_non_null(strstr(mica_last_error(), "last.safetensors"));
  o.source.overrides = fewer;
  assert_true(mica_evaluate(&o, &e) < 0);
  assert_non_null(strstr(mica_last_error(), "blocks.1"));
  /* without a run the first weights are looked at */
  o.weights = NULL, o.source.n_overrides = 0, o.tasks = 4;
  CHECK(mica_evaluate(&o, &e));
  assert_int_equal(e->step, 0);
  mica_evaluation_destroy(e);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(evaluation_adds_up), cmocka_unit_test(predictions_follow_the_data),
    cmocka_unit_test(a_prompt_is_tokens_before), cmocka_unit_test(bytes_are_predicted), cmocka_unit_test(gradients_are_written),
    cmocka_unit_test(weights_of_another_model_are_refused),
  };
  return cmocka_run_group_tests(tests, train_once, drop_folder);
}
