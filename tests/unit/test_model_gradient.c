/* whole models in double on the reference kernels: gradient and Hessian-vector product against central differences */
#include "engine_support.h"

#include <math.h>

#include "host/engine/runner.h"

typedef struct model {
  micah_job    *job;
  micah_tasks   tasks;
  micah_graph   graph;
  micah_runner *runner;
  micah_feed    feed;
  double       *p, *d, *g, *h;       /* parameters, direction, gradient, Hessian-vector product */
} model;

static double noise(int64_t i) {
  uint64_t x = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
  return (double)(x >> 11) * 0x1p-52 - 1;
}

static void open_model(const char *config, model *m) {
  memset(m, 0, sizeof *m);
  write_text(in_folder("model.yaml"), config);
  mica_source s = source_of(in_folder("model.yaml"), NULL, NULL, 0);
  CHECK(micah_job_open(&s, 0, &m->job));
  CHECK(micah_job_tasks(m->job, MICA_SPLIT_TRAIN, &m->tasks));
  CHECK(micah_job_graph(m->job, &m->tasks, MICAH_OUT_LOSS, &m->graph));
  int64_t batch = m->job->settings.batch;
  CHECK(micah_runner_create(m->job, &m->tasks, &m->graph, MICA_REF, 0, MICA_F64,
                            MICA_PASS_FORWARD | MICA_PASS_BACKWARD | MICA_PASS_JVP | MICA_PASS_BACKWARD_JVP, batch,
                            &m->runner));
  CHECK(micah_feed_create(&m->tasks, batch, &m->feed));
  CHECK(micah_feed_fill(&m->feed, 1, batch)); /* tasks 1, 2, 3: of two steps */
  size_t bytes = (size_t)m->graph.params * sizeof(double);
  m->p = malloc(bytes), m->d = malloc(bytes), m->g = malloc(bytes), m->h = malloc(bytes);
  CHECK(micah_graph_init(m->job, &m->graph, MICA_F64, m->p));
  for (int64_t i = 0; i < m->graph.params; i++) m->d[i] = noise(i), m->p[i] += 0.1 * noise(i + 1000000);
}

static void close_model(model *m) {
  free(m->p);
  free(m->d);
  free(m->g);
  free(m->h);
  micah_feed_destroy(&m->feed);
  micah_runner_destroy(m->runner);
  micah_graph_destroy(&m->graph);
  micah_tasks_close(&m->tasks);
  micah_job_close(m->job);
}

/* loss at p, with gradient and product where given */
static double run_at(model *m, double *p, double *g, double *h) {
  micah_runner *r = m->runner;
  CHECK(micah_runner_set(r, &m->feed, 0, m->feed.count));
  CHECK(micah_runner_seed(r, 1 / m->feed.weight));
  CHECK(mica_executor_set_params(r->executor, MICA_V, p, 0, NULL, 0));
  CHECK(mica_executor_set_params(r->executor, MICA_D, g, 0, NULL, 0));
  CHECK(mica_executor_set_params(r->executor, MICA_T, h ? m->d : NULL, 0, NULL, 0));
  CHECK(mica_executor_set_params(r->executor, MICA_TD, h, 0, NULL, 0));
  CHECK(micah_runner_run(r, MICA_PASS_FORWARD | MICA_PASS_BACKWARD |
                                (h ? MICA_PASS_JVP | MICA_PASS_BACKWARD_JVP : 0)));
  double sum = 0;
  for (int64_t i = 0; i < m->feed.count; i++) sum += micah_runner_task_loss(r, i);
  return sum / m->feed.weight;
}

static void check_at(const char *config, double width) {
  model m;
  open_model(config, &m);
  int64_t n = m.graph.params;
  size_t bytes = (size_t)n * sizeof(double);
  double *moved = malloc(bytes), *ga = malloc(bytes), *gb = malloc(bytes), *diff[2] = { malloc(bytes), malloc(bytes) };
  double slope = 0, loss = run_at(&m, m.p, m.g, m.h), central[2], scale = 0, worst = 0, length = 0;
  assert_true(isfinite(loss));
  for (int64_t i = 0; i < n; i++) slope += m.g[i] * m.d[i], length += fabs(m.g[i] * m.d[i]);
  /* two widths and Richardson's extrapolation: error of fourth order */
  for (int k = 0; k < 2; k++) {
    double step = k ? width / 2 : width;
    for (int64_t i = 0; i < n; i++) moved[i] = m.p[i] + step * m.d[i];
    double up = run_at(&m, moved, ga, NULL);
    for (int64_t i = 0; i < n; i++) moved[i] = m.p[i] - step * m.d[i];
    double down = run_at(&m, moved, gb, NULL);
    central[k] = (up - down) / (2 * step);
    for (int64_t i = 0; i < n; i++) diff[k][i] = (ga[i] - gb[i]) / (2 * step);
  }
  double want = (4 * central[1] - central[0]) / 3;
  if (!(fabs(slope - want) <= 1e-6 * (fabs(want) + 1e-3 * length)))
    fail_msg("gradient: %.12g, central difference %.12g\n%s", slope, want, config);
  for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(m.h[i]));
  for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs(m.h[i] - (4 * diff[1][i] - diff[0][i]) / 3));
  if (!(worst <= 1e-6 * scale) || !(scale > 0)) fail_msg("product: worst error %.3g of %.3g\n%s", worst, scale, config);
  free(moved);
  free(ga);
  free(gb);
  free(diff[0]);
  free(diff[1]);
  close_model(&m);
}

static void check(const char *config) { check_at(config, 1e-4); }

#define JOB(family, model) "family: {" family "}\nmodel: {" model "}\nbatch: 3\ngrain: 3\nthreads: 1\n"
#define REGRESSION "name: linear_regression, dim: 2, points: 5"
#define SMALL "name: transformer, layers: 2, width: 8, heads: 2, mlp: 1.5, init: 0.3"

static void transformers(void **state) {
  (void)state;
  check(JOB(REGRESSION, SMALL));
  check(JOB(REGRESSION ", layout: shifted", SMALL ", positions: rotary, norm: rmsnorm, activation: silu"));
  check(JOB(REGRESSION ", layout: joined", SMALL ", positions: none, mask: full, activation: gelu_tanh, bias: no"));
  check(JOB("name: categorical, symbols: 5, length: 9", SMALL ", positions: rotary"));
  check(JOB("name: categorical, symbols: 2, length: 6", SMALL ", positions: learned, norm: rmsnorm"));
  check(JOB(REGRESSION, SMALL ", positions: alibi"));
  check(JOB(REGRESSION, SMALL ", adapter_rank: 2"));
  check(JOB(REGRESSION, SMALL ", prompt_length: 3, positions: rotary, mask: prefix, prefix: 1"));
  check(JOB("name: associative_retrieval, keys: 3, values: 3, pairs: 3", SMALL ", prompt_length: 2, mixer: delta_rule"));
}

/* memories in place of attention, with each of their features and layer variants */
static void mixers(void **state) {
  (void)state;
  check(JOB(REGRESSION, SMALL ", mixer: linear_attention"));
  check(JOB(REGRESSION, SMALL ", mixer: linear_attention, feature_map: favor, features: 5, output_norm: no"));
  check(JOB(REGRESSION, SMALL ", mixer: linear_attention, feature_map: identity, normaliser: no"));
  check(JOB(REGRESSION, SMALL ", mixer: delta_rule, gate: yes"));
  check(JOB(REGRESSION, SMALL ", mixer: delta_rule, feature_map: dpfp, nu: 2, feature_norm: l1, max_rate: 2"));
  check(JOB(REGRESSION, SMALL ", mixer: delta_rule, feature_map: softmax, feature_norm: l2"));
  check(JOB(REGRESSION, SMALL ", mixer: gated_delta, bias: no, decay_init: 1"));
  check(JOB(REGRESSION, SMALL ", mixer: srwm"));
  check(JOB(REGRESSION, SMALL ", mixer: momentum_attention, decay_init: 1, output_norm: no"));
  check(JOB(REGRESSION, SMALL ", mixer: gradient_memory, decay_init: -1, momentum_init: 1"));
  check(JOB(REGRESSION, SMALL ", mixer: gradient_memory, period: 3, read: held, gate: yes, conv: 2"));
  check(JOB(REGRESSION, SMALL ", mixer: mlp_memory, decay_init: -1, momentum_init: 1"));
  check(JOB(REGRESSION, SMALL ", mixer: mlp_memory, hidden: 3, feature_map: elu1, max_rate: 0.5"));
  check(JOB(REGRESSION, SMALL ", mixer: delta_rule, conv: 4"));
  check(JOB(REGRESSION, SMALL ", mixer: srwm, conv: 3"));
  check(JOB("name: associative_retrieval, keys: 3, values: 3, pairs: 4, rebind: yes",
            SMALL ", mixer: gated_delta, decay: channel, decay_init: 0, positions: none"));
}

static void ragged_tasks(void **state) {
  (void)state;
  /* a curriculum makes tasks of different steps differ; these are of two steps */
  check("family: {" REGRESSION ", points_start: 1, points_step: 1, points_every: 1}\nmodel: {" SMALL "}\n"
        "batch: 3\ngrain: 3\nthreads: 1\n");
  check("family: {" REGRESSION ", points_start: 1, points_step: 1, points_every: 1}\nmodel: {" SMALL ", prompt_length: 2}\n"
        "batch: 3\ngrain: 3\nthreads: 1\n");
}

static void perceptron(void **state) {
  (void)state;
  check(JOB(REGRESSION ", layout: shifted", "name: mlp, layers: 2, width: 7, activation: tanh"));
}

/* few-shot heads: derivatives through class means, and through the solution of a regression */
static void episodes(void **state) {
  (void)state;
#define GLYPHS "name: few_shot_images, ways: 3, shots: 2, queries: 2"
#define MANY ", blocks: 2, channels: 3"  /* 147 features of each of 6 examples */
#define FEW ", blocks: 4, channels: 3"   /* 3 */
  /* so near that no relu or maximum of thousands of pixels turns between */
  const double near = 2e-7;
  check_at(JOB(GLYPHS, "name: prototypes" FEW), near);
  check_at(JOB(GLYPHS, "name: prototypes, distance: cosine" MANY), near);
  check_at(JOB(GLYPHS, "name: ridge_head, ridge: 0.3" MANY), near);
  check_at(JOB(GLYPHS, "name: ridge_head" FEW), near);
  check_at(JOB(GLYPHS, "name: logistic_head, ridge: 0.3" FEW), near);
}

/* parameters are named as PyTorch would, with its shapes */
static void names_of_parameters(void **state) {
  (void)state;
  static const struct { const char *name; int64_t rows, columns; } want[] = {
    { "embed.weight", 6, 8 }, { "pos.weight", 9, 8 },
    { "blocks.0.ln1.weight", 8, 0 }, { "blocks.0.ln1.bias", 8, 0 },
    { "blocks.0.attn.qkv.weight", 24, 8 }, { "blocks.0.attn.qkv.bias", 24, 0 },
    { "blocks.0.attn.proj.weight", 8, 8 }, { "blocks.1.mlp.up.weight", 12, 8 }, { "blocks.1.mlp.down.bias", 8, 0 },
    { "ln_f.weight", 8, 0 }, { "read_out.weight", 5, 8 }, { "read_out.bias", 5, 0 },
  };
  model m;
  open_model(JOB("name: categorical, symbols: 5, length: 9", SMALL), &m);
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    mica_value_info info;
    mica_value v = mica_program_find(m.graph.program, want[i].name);
    if (v < 0) fail_msg("no parameter '%s'", want[i].name);
    CHECK(mica_program_info(m.graph.program, v, &info));
    assert_int_equal(info.rank, want[i].columns ? 2 : 1);
    assert_int_equal(info.shape[0], want[i].rows);
    if (want[i].columns) assert_int_equal(info.shape[1], want[i].columns);
    assert_int_equal(info.decay, want[i].columns > 0);
  }
  close_model(&m);
}

/* plans of the shipped models stay within 1.2 of the exact peak of live bytes */
static void plans_are_tight(void **state) {
  (void)state;
  static const char *const recipes[] = { "linear_regression", "udhr", "ptw", "icl_linreg_w4", "bernoulli", "sinusoid" };
  for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
    char path[1024];
    snprintf(path, sizeof path, MICA_SOURCE_DIR "/docs/recipes/%s.yaml", recipes[i]);
    /* any existing file will do for the bytes: the plan knows lengths only */
    const char *overrides[] = { "threads=1", "family.path=" MICA_SOURCE_DIR "/docs/recipes", "family.mode=files" };
    mica_source s = source_of(path, NULL, overrides, strcmp(recipes[i], "udhr") == 0 ? 3 : 1);
    mica_trainer *t;
    CHECK(mica_trainer_create(&s, 0, &t));
    mica_trainer_info info;
    CHECK(mica_trainer_get_info(t, &info));
    if (!(info.activation_bytes <= 1.2 * (double)info.peak_bytes))
      fail_msg("%s: %lld bytes planned, %lld alive at most", recipes[i], (long long)info.activation_bytes,
               (long long)info.peak_bytes);
    mica_trainer_destroy(t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(transformers), cmocka_unit_test(mixers),
                                      cmocka_unit_test(ragged_tasks), cmocka_unit_test(perceptron), cmocka_unit_test(episodes),
                                      cmocka_unit_test(names_of_parameters),
                                      cmocka_unit_test(plans_are_tight) };
  return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
