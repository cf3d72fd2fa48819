/* running statistics: their values by hand, evaluation by them, nothing else that they change, the same bits however
 * a step is cut */
#include "engine_support.h"

#include <math.h>

#include "common/fill.h"
#include "host/engine/runner.h"

enum { SIDE = 28, C = 2 };

/* a block of two channels on the query alone (conv_net), or on the support too (prototypes) */
#define CONFIG(model)                                                                                                  \
  "family: {name: few_shot_images, ways: 2, shots: 1, queries: 2}\n"                                                   \
  "model: {name: " model ", blocks: 1, channels: 2, norm: running, momentum: 0.25}\n"                                  \
  "optimizer: {lr: 1e-2, clip: 0.01, weight_decay: 0.1}\nschedule: {warmup: 0}\n"                                      \
  "steps: 3\nbatch: 3\ngrain: 1\nseed: 5\nthreads: 2\nexact: none\ncheckpoint_every: 1\n"

static void config_file(const char *text) { write_text(in_folder("averages.yaml"), text); }

static void train(const char *run, const char *const *set, int n) {
  mica_source s = source_of(in_folder("averages.yaml"), in_folder(run), set, n);
  mica_trainer *t;
  CHECK(mica_trainer_create(&s, 0, &t));
  CHECK(mica_trainer_run(t, NULL, NULL));
  mica_trainer_destroy(t);
}

static micah_safetensors *weights_in(const char *run) {
  char path[600];
  micah_safetensors *file;
  snprintf(path, sizeof path, "%s/last.safetensors", in_folder(run));
  CHECK(micah_safetensors_open(path, &file));
  return file;
}

static const float *named(const micah_safetensors *file, const char *name) {
  const micah_tensor *t = micah_safetensors_find(file, name);
  if (!t) fail_msg("no tensor %s", name);
  return t->data;
}

/* mean and variance of each channel of a convolution with zeros around its images, as loops */
static void by_hand(const float *x, int64_t images, const float *w, const float *b, double mean[C], double var[C]) {
  for (int c = 0; c < C; c++) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < images * SIDE * SIDE; i++) {
      int64_t image = i / (SIDE * SIDE), row = i / SIDE % SIDE, column = i % SIDE;
      double y = (double)b[c];
      for (int k = 0; k < 9; k++) {
        int64_t r = row + k / 3 - 1, s = column + k % 3 - 1;
        if (r < 0 || s < 0 || r >= SIDE || s >= SIDE) continue;
        y += (double)w[9 * c + k] * (double)x[(image * SIDE + r) * SIDE + s];
      }
      sum += y, square += y * y;
    }
    double n = (double)(images * SIDE * SIDE);
    mean[c] = sum / n, var[c] = square / n - mean[c] * mean[c];
  }
}

/* one step: 3/4 of 0 and 1, and a quarter of the mean over tasks, of support and query alike */
static void check_values(const char *config, int sets) {
  static const char *const fields[] = { "query_x", "support_x" };
  static const int64_t images[] = { 4, 2 };
  config_file(config);
  const char *one[] = { "steps=1" };
  train(sets == 2 ? "both" : "query", one, 1);
  micah_safetensors *after = weights_in(sets == 2 ? "both" : "query"), *before;
  mica_grad_options g = MICA_GRAD_OPTIONS_INIT;
  g.source = source_of(in_folder("averages.yaml"), NULL, NULL, 0), g.out = in_folder("g.safetensors");
  CHECK(mica_grad(&g, NULL));
  CHECK(micah_safetensors_open(g.out, &before));
  double want[2][C] = { { 0 } };
  for (int k = 0; k < sets; k++)
    for (int64_t task = 0; task < 3; task++) {
      double mean[C], var[C];
      by_hand(named(before, fields[k]) + task * images[k] * SIDE * SIDE, images[k],
              named(before, "init/blocks.0.conv.weight"), named(before, "init/blocks.0.conv.bias"), mean, var);
      for (int c = 0; c < C; c++) want[0][c] += mean[c] / 3 / sets, want[1][c] += var[c] / 3 / sets;
    }
  for (int c = 0; c < C; c++) {
    assert_float_equal(named(after, "blocks.0.norm.running_mean")[c], 0.25 * want[0][c], 1e-6);
    assert_float_equal(named(after, "blocks.0.norm.running_var")[c], 0.75 + 0.25 * want[1][c], 1e-6);
    assert_true(fabs(want[0][c]) > 1e-3 && want[1][c] > 1e-3);
    /* of a loss's gradient they have no part */
    assert_true(named(before, "grad/blocks.0.norm.running_mean")[c] == 0);
  }
  micah_safetensors_close(before);
  micah_safetensors_close(after);
}

static void values_by_hand(void **state) {
  (void)state;
  check_values(CONFIG("conv_net"), 1);
  check_values(CONFIG("prototypes"), 2);
}

/* loss of the training tasks' first by a program of some outputs; running statistics, and biases, as given. next: the
 * running statistics' next values */
static double run_task(int32_t outputs, const char *norm, int dtype, const double running[2][C], const double *bias,
                       double next[2][C]) {
  micah_job *job;
  micah_tasks tasks;
  micah_graph graph;
  micah_runner *r;
  micah_feed feed;
  const char *set[] = { norm };
  mica_source s = source_of(in_folder("averages.yaml"), NULL, set, 1);
  CHECK(micah_job_open(&s, 0, &job));
  CHECK(micah_job_tasks(job, MICA_SPLIT_TRAIN, &tasks));
  CHECK(micah_job_graph(job, &tasks, outputs, &graph));
  CHECK(micah_runner_create(job, &tasks, &graph, dtype == MICA_F64 ? MICA_REF : MICA_CPU, 0, dtype, MICA_PASS_FORWARD, 1, &r));
  CHECK(micah_feed_create(&tasks, 1, &feed));
  CHECK(micah_feed_fill(&feed, 0, 1));
  double *p = malloc((size_t)graph.params * sizeof *p);
  void *typed = malloc((size_t)graph.params * sizeof *p);
  CHECK(micah_graph_init(job, &graph, MICA_F64, p));
  for (int32_t i = 0; i < micah_graph_n_params(&graph); i++) {
    mica_value_info info;
    CHECK(micah_graph_param(&graph, i, &info));
    if (!strcmp(info.name, "blocks.0.norm.running_mean")) memcpy(p + info.offset, running[0], sizeof running[0]);
    if (!strcmp(info.name, "blocks.0.norm.running_var")) memcpy(p + info.offset, running[1], sizeof running[1]);
    /* gain and shift that are not 1 and 0 */
    for (int c = 0; c < C && strstr(info.name, "norm.weight"); c++) p[info.offset + c] = 1.5 + c;
    for (int c = 0; c < C && strstr(info.name, "norm.bias"); c++) p[info.offset + c] = 0.3 - c;
    for (int c = 0; c < C && bias && strstr(info.name, "conv.bias"); c++) p[info.offset + c] = bias[c];
  }
  CHECK(micak_convert(dtype, typed, MICA_F64, p, graph.params));
  CHECK(micah_runner_set(r, &feed, 0, 1));
  CHECK(mica_executor_set_params(r->executor, MICA_V, typed, 0, NULL, 0));
  CHECK(micah_runner_run(r, MICA_PASS_FORWARD));
  double loss = micah_runner_task_loss(r, 0);
  mica_value value;
  for (int32_t i = 0; next && micah_graph_average(&graph, i, &value) >= 0; i++) {
    mica_wire wire;
    CHECK(mica_executor_get_value(r->executor, value, MICA_V, &wire));
    CHECK(micak_convert(MICA_F64, next[i], dtype, wire.data, C));
  }
  free(typed);
  free(p);
  micah_feed_destroy(&feed);
  micah_runner_destroy(r);
  micah_graph_destroy(&graph);
  micah_tasks_close(&tasks);
  micah_job_close(job);
  return loss;
}

static double loss_of(int32_t outputs, const char *norm, const double running[2][C]) {
  return run_task(outputs, norm, MICA_F64, running, NULL, NULL);
}

/* means far from 0: a variance in float keeps its digits, but for the rounding of the convolution */
static void far_means(void **state) {
  (void)state;
  static const char *const configs[] = { CONFIG("conv_net"), CONFIG("prototypes") };
  const double bias[C] = { 1000, -3000 }, zero[2][C] = { { 0 } };
  for (int i = 0; i < 2; i++) {
    double near[2][C], far[2][C], rounded[2][C];
    config_file(configs[i]);
    run_task(MICAH_OUT_LOSS | MICAH_AVERAGES, "model.norm=running", MICA_F64, zero, NULL, near);
    run_task(MICAH_OUT_LOSS | MICAH_AVERAGES, "model.norm=running", MICA_F64, zero, bias, far);
    run_task(MICAH_OUT_LOSS | MICAH_AVERAGES, "model.norm=running", MICA_F32, zero, bias, rounded);
    for (int c = 0; c < C; c++) {
      assert_float_equal(far[0][c], near[0][c] + 0.25 * bias[c], 1e-9);
      assert_float_equal(far[1][c], near[1][c], 1e-6);
      assert_float_equal(rounded[0][c], far[0][c], 1e-3);
      if (!(fabs(rounded[1][c] - far[1][c]) <= 1e-3 * far[1][c]))
        fail_msg("channel %d: variance %g in float, %g in double", c, rounded[1][c], far[1][c]);
    }
  }
}

/* by running statistics that are those of the task, evaluation computes what training does; by others it does not */
static void evaluation_by_them(void **state) {
  (void)state;
  config_file(CONFIG("conv_net"));
  micah_safetensors *file;
  mica_grad_options g = MICA_GRAD_OPTIONS_INIT;
  g.source = source_of(in_folder("averages.yaml"), NULL, NULL, 0), g.out = in_folder("g.safetensors"), g.dtype = MICA_F64;
  CHECK(mica_grad(&g, NULL));
  CHECK(micah_safetensors_open(g.out, &file));
  const double *x = micah_safetensors_find(file, "query_x")->data;
  const double *w = micah_safetensors_find(file, "init/blocks.0.conv.weight")->data;
  const double *b = micah_safetensors_find(file, "init/blocks.0.conv.bias")->data;
  float images[4 * SIDE * SIDE], weight[9 * C], bias[C];
  for (int i = 0; i < 4 * SIDE * SIDE; i++) images[i] = (float)x[i];
  for (int i = 0; i < 9 * C; i++) weight[i] = (float)w[i];
  for (int i = 0; i < C; i++) bias[i] = (float)b[i];
  double own[2][C], other[2][C] = { { 0.1, -0.2 }, { 2, 3 } };
  by_hand(images, 4, weight, bias, own[0], own[1]);
  micah_safetensors_close(file);
  double batch = loss_of(MICAH_OUT_LOSS, "model.norm=batch", own);
  double training = loss_of(MICAH_OUT_LOSS | MICAH_AVERAGES, "model.norm=running", other);
  assert_true(training == batch);
  assert_float_equal(loss_of(MICAH_OUT_LOSS | MICAH_EVALUATE, "model.norm=running", own), batch, 1e-6);
  assert_true(fabs(loss_of(MICAH_OUT_LOSS | MICAH_EVALUATE, "model.norm=running", other) - batch) > 1e-2);
}

static void same_weights(const char *a, const char *b, int all) {
  micah_safetensors *file[2] = { weights_in(a), weights_in(b) };
  int64_t n = micah_safetensors_count(file[0]);
  for (int64_t i = 0; i < n; i++) {
    const micah_tensor *t = micah_safetensors_get(file[0], i);
    size_t bytes = (size_t)micah_tensor_count(t) * sizeof(float);
    if ((all || !strstr(t->name, "running_")) && memcmp(t->data, named(file[1], t->name), bytes))
      fail_msg("%s and %s: %s differs", a, b, t->name);
  }
  assert_true(!all || n == micah_safetensors_count(file[1]));
  micah_safetensors_close(file[0]);
  micah_safetensors_close(file[1]);
}

/* every other weight is trained as if they were not there, the norm for clipping too */
static void nothing_else_changes(void **state) {
  (void)state;
  const char *const batch[] = { "model.norm=batch" };
  config_file(CONFIG("prototypes"));
  train("p_running", NULL, 0);
  train("p_batch", batch, 1);
  same_weights("p_running", "p_batch", 0);
  config_file(CONFIG("conv_net") "inner: {steps: 2, lr: 0.1}\n");
  train("m_running", NULL, 0);
  train("m_batch", batch, 1);
  same_weights("m_running", "m_batch", 0);
  mica_evaluate_options o = MICA_EVALUATE_OPTIONS_INIT;
  const mica_evaluation *e;
  o.source.run = in_folder("m_running"), o.tasks = 4;
  CHECK(mica_evaluate(&o, &e));
  assert_true(isfinite(e->loss));
  mica_evaluation_destroy(e);
}

static void same_bits(void **state) {
  (void)state;
  const char *const alone[] = { "threads=1", "launch=1" }, *const two[] = { "devices=2" };
  config_file(CONFIG("prototypes"));
  train("as_is", NULL, 0);
  train("alone", alone, 2);
  same_weights("as_is", "alone", 1);
  train("two", two, 1);
  same_weights("as_is", "two", 1);
  /* stopped after a step and resumed */
  char run[512];
  snprintf(run, sizeof run, "%s", in_folder("halves"));
  mica_source s = source_of(in_folder("averages.yaml"), run, NULL, 0);
  mica_trainer *t;
  CHECK(mica_trainer_create(&s, 0, &t));
  CHECK(mica_trainer_step(t, NULL));
  mica_trainer_destroy(t);
  s.config = NULL;
  CHECK(mica_trainer_create(&s, 1, &t));
  CHECK(mica_trainer_run(t, NULL, NULL));
  mica_trainer_destroy(t);
  same_weights("as_is", "halves", 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(values_by_hand), cmocka_unit_test(far_means), cmocka_unit_test(evaluation_by_them), cmocka_unit_test(nothing_else_changes),
    cmocka_unit_test(same_bits),
  };
  return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
