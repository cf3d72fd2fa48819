/* inner loops in training: gradient files against central differences and against a network written out by hand, the
 * same bits for any threads and launches, settings that make no sense */
#include "engine_support.h"

#include <math.h>

#include "host/io/safetensors.h"

static const char maml_config[] =
    "family: {name: few_shot_sinusoid, support: 4, query: 3}\n"
    "model: {name: mlp, layers: 1, width: 5, activation: tanh}\n"
    "inner: {steps: 2, lr: 0.05}\n"
    "optimizer: {lr: 1e-2}\n"
    "schedule: {name: constant, warmup: 0}\n"
    "steps: 12\nbatch: 8\ngrain: 2\nseed: 3\nthreads: 2\nlog_every: 5\ncheckpoint_every: 7\n";

static const char *config_file(const char *text) {
  const char *path = in_folder("maml.yaml");
  write_text(path, text);
  return path;
}

/* gradient file of a batch */
static double gradient(const char *const *overrides, int n, const char *weights, const char *out) {
  mica_grad_options o = MICA_GRAD_OPTIONS_INIT;
  double loss;
  o.source = source_of(in_folder("maml.yaml"), NULL, overrides, n);
  o.dtype = MICA_F64, o.out = out, o.weights = weights;
  CHECK(mica_grad(&o, &loss));
  return loss;
}

static const double *tensor(const micah_safetensors *file, const char *name, int64_t *count) {
  const micah_tensor *t = micah_safetensors_find(file, name);
  if (!t) fail_msg("no tensor %s", name);
  if (count) *count = micah_tensor_count(t);
  return t->data;
}

/* weights moved by h x direction; the slope that the gradient promises */
static double move(const micah_safetensors *file, double h, const char *path, const char *only) {
  micah_tensor list[32];
  double *data[32], slope = 0;
  char names[32][64];
  int64_t n = 0;
  uint64_t state = 5;
  for (int64_t i = 0; i < micah_safetensors_count(file); i++) {
    const micah_tensor *t = micah_safetensors_get(file, i);
    if (strncmp(t->name, "init/", 5) && strncmp(t->name, "meta/", 5)) continue;
    int64_t count = micah_tensor_count(t);
    snprintf(names[n], sizeof names[n], "grad/%s", t->name + 5);
    const double *d = tensor(file, names[n], NULL);
    data[n] = malloc((size_t)count * sizeof(double));
    for (int64_t k = 0; k < count; k++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      double way = strncmp(names[n] + 5, only, strlen(only)) ? 0 : (double)(state >> 40) / (1 << 23) - 1;
      data[n][k] = ((const double *)t->data)[k] + h * way;
      slope += way * d[k];
    }
    list[n] = *t;
    list[n].name = names[n] + 5, list[n].data = data[n];
    n++;
  }
  CHECK(micah_safetensors_write(path, list, n, NULL, 0));
  for (int64_t i = 0; i < n; i++) free(data[i]);
  return slope;
}

static void check_differences(const char *const *overrides, int n, const char *only, double tolerance) {
  micah_safetensors *file;
  double h = 1e-5;
  gradient(overrides, n, NULL, in_folder("g.safetensors"));
  CHECK(micah_safetensors_open(in_folder("g.safetensors"), &file));
  double slope = move(file, h, in_folder("up.safetensors"), only);
  double up = gradient(overrides, n, in_folder("up.safetensors"), NULL);
  move(file, -h, in_folder("down.safetensors"), only);
  double down = gradient(overrides, n, in_folder("down.safetensors"), NULL);
  micah_safetensors_close(file);
  double difference = (up - down) / (2 * h);
  if (!(fabs(difference - slope) <= tolerance * (1 + fabs(slope))) || !(fabs(slope) > 1e-4))
    fail_msg("%s: slope %.12g, differences %.12g", n ? overrides[n - 1] : "default", slope, difference);
}

static void exact_methods(void **state) {
  (void)state;
  config_file(maml_config);
  static const struct { const char *only; const char *set[6]; } cases[] = {
    { "", { "inner.method=unrolled" } },
    { "", { "inner.steps=5", "inner.checkpoints=yes", "inner.trained=layers.1.*" } },
    { "", { "inner.update=momentum", "inner.learn_rates=yes", "inner.rates=tensor" } },
    { "", { "inner.update=adam", "inner.eps=1e-2", "inner.learn_rates=yes", "inner.per_step=yes",
            "inner.rates=element" } },
    { "", { "inner.proximal=0.5", "inner.learn_proximal=yes", "inner.trained=*.bias" } },
    { "inner.", { "inner.method=forward", "inner.learn_rates=yes", "inner.rates=tensor" } },
    /* at the solution; the inner loop must get there */
    { "", { "inner.method=implicit", "inner.steps=3000", "inner.proximal=1", "inner.learn_proximal=yes",
            "inner.iterations=60", "inner.tolerance=1e-11" } },
    { "", { "inner.method=implicit", "inner.steps=3000", "inner.proximal=1", "inner.solver=dense" } },
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int n = 0;
    while (n < 6 && cases[i].set[n]) n++;
    check_differences(cases[i].set, n, cases[i].only, 1e-6);
  }
}

/* activations of the steps kept or computed again: the same bits, and the way back does not run the steps down again */
static void kept_activations(void **state) {
  (void)state;
  config_file(maml_config);
  static const char *const cases[][4] = {
    { "inner.steps=5", "inner.update=momentum", "inner.rates=tensor", "inner.learn_rates=yes" },
    { "inner.steps=4", "inner.update=adam", "inner.eps=1e-2", "inner.per_step=yes" },
    { "inner.steps=5", "inner.method=truncated", "inner.last=2", "inner.learn_rates=yes" },
    { "inner.steps=3", "inner.update=momentum", "inner.trained=layers.1.*", "inner.proximal=0.5" },
  };
  static const char *const keeps[] = { "inner.keep=64", "inner.keep=0" };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    micah_safetensors *file[2];
    for (int k = 0; k < 2; k++) {
      const char *set[] = { cases[i][0], cases[i][1], cases[i][2], cases[i][3], keeps[k] };
      const char *out = in_folder(k ? "again.safetensors" : "kept.safetensors");
      gradient(set, 5, NULL, out);
      CHECK(micah_safetensors_open(out, &file[k]));
    }
    for (int64_t t = 0; t < micah_safetensors_count(file[0]); t++) {
      const micah_tensor *kept = micah_safetensors_get(file[0], t);
      int64_t count;
      const double *again = tensor(file[1], kept->name, &count);
      if (micah_tensor_count(kept) != count || memcmp(kept->data, again, (size_t)count * sizeof *again))
        fail_msg("%s %s: %s differs", cases[i][0], cases[i][1], kept->name);
    }
    for (int k = 0; k < 2; k++) micah_safetensors_close(file[k]);
  }
}

/* bytes of activations that a trainer plans */
static int64_t planned(const char *const *set, int n, int64_t *params) {
  mica_source source = source_of(in_folder("maml.yaml"), NULL, set, n);
  mica_trainer *trainer;
  mica_trainer_info info;
  CHECK(mica_trainer_create(&source, 0, &trainer));
  CHECK(mica_trainer_get_info(trainer, &info));
  mica_trainer_destroy(trainer);
  if (params) *params = info.params;
  return info.activation_bytes;
}

/* more with every step's activations, and no more where they do not fit */
static void kept_where_they_fit(void **state) {
  (void)state;
  config_file(maml_config);
  int64_t bytes[4];
  static const char *const keeps[] = { "inner.keep=0", "inner.keep=1", "inner.keep=0", "inner.keep=1" };
  static const char *const widths[] = { "model.width=64", "model.width=64", "model.width=4096", "model.width=4096" };
  for (int k = 0; k < 4; k++) {
    const char *set[] = { keeps[k], widths[k], "inner.steps=6", "inner.update=momentum", "batch=2", "grain=2" };
    bytes[k] = planned(set, 6, NULL);
  }
  assert_true(bytes[1] > bytes[0]);
  assert_true(bytes[3] == bytes[2]);
}

/* a step more is a theta more, and checkpoints of 64 steps are 7 + 7 thetas: as many as all of 15 steps */
static void memory_of_steps(void **state) {
  (void)state;
  config_file(maml_config);
  int64_t params, bytes[4];
  static const char *const steps[] = { "inner.steps=15", "inner.steps=16", "inner.steps=64", "inner.steps=64" };
  for (int k = 0; k < 4; k++) {
    const char *set[] = { steps[k], k < 3 ? "inner.checkpoints=no" : "inner.checkpoints=yes", "inner.rates=element",
                          "model.width=64", "batch=8", "grain=8" };
    bytes[k] = planned(set, 6, &params);
  }
  int64_t theta = params * 8 * (int64_t)sizeof(float);
  assert_true(bytes[1] > bytes[0] && bytes[1] - bytes[0] <= theta * 11 / 10);
  assert_true(bytes[2] - bytes[0] <= 49 * theta * 11 / 10);
  assert_true(bytes[3] <= bytes[0] + theta / 2);
}

/* low-rank adapters of a transformer as what adapts: derivatives to the weights below them, too */
static void low_rank_adapters(void **state) {
  (void)state;
  config_file("family: {name: few_shot_sinusoid, support: 4, query: 3}\n"
              "model: {name: transformer, layers: 1, width: 8, heads: 2, mlp: 1.5, init: 0.3, positions: none, mask: full, "
              "adapter_rank: 2}\n"
              "inner: {steps: 3, lr: 0.1, trained: '*.lora_*'}\nsteps: 2\nbatch: 4\ngrain: 4\nthreads: 1\n");
  check_differences(NULL, 0, "", 1e-6);
}

/* soft prompts as what adapts, before sequences of different lengths; and before those of a family that has no support.
 * eps: tokens of one small number have hardly a variance, and differences would be rough */
static void soft_prompts(void **state) {
  (void)state;
  config_file("family: {name: few_shot_sinusoid, support: 4, query: 3}\n"
              "model: {name: transformer, layers: 1, width: 8, heads: 2, mlp: 1.5, init: 0.3, positions: none, "
              "eps: 0.1, prompt_length: 2}\n"
              "inner: {steps: 3, lr: 0.1, trained: 'prompt.*'}\nsteps: 2\nbatch: 4\ngrain: 4\nthreads: 1\n");
  check_differences(NULL, 0, "", 1e-6);
  check_differences(NULL, 0, "prompt.", 1e-6);
  config_file("family: {name: linear_regression, dim: 2, points: 4}\n"
              "model: {name: transformer, layers: 1, width: 8, heads: 2, mlp: 1.5, init: 0.3, eps: 0.1, prompt_length: 3}\n"
              "steps: 2\nbatch: 4\ngrain: 4\nthreads: 1\n");
  check_differences(NULL, 0, "", 1e-6);
  const char *const window[] = { "model.mask=window" };
  mica_source source = source_of(in_folder("maml.yaml"), NULL, window, 1);
  mica_trainer *trainer;
  assert_true(mica_trainer_create(&source, 0, &trainer) == MICA_ERR_CONFIG);
  assert_non_null(strstr(mica_last_error(), "mask window hides a prompt"));
}

/* the support loss of the network by hand, mean over its points, summed over tasks */
static double by_hand(const micah_safetensors *file, const double *w0, const double *b0, const double *w1,
                      const double *b1) {
  int64_t rows;
  const double *x = tensor(file, "support_x", &rows), *y = tensor(file, "support_y", NULL);
  double sum = 0;
  for (int64_t r = 0; r < rows; r++) {
    double out = b1[0];
    for (int k = 0; k < 5; k++) out += w1[k] * tanh(w0[k] * x[r] + b0[k]);
    sum += (out - y[r]) * (out - y[r]) / 4;
  }
  return sum;
}

/* the same after each task has taken a step of rate 0.05 on its support */
static double after_a_step(const micah_safetensors *file, const double *w0, const double *b0, const double *w1,
                           const double *b1) {
  int64_t rows;
  const double *x = tensor(file, "support_x", &rows), *y = tensor(file, "support_y", NULL);
  double sum = 0;
  for (int64_t first = 0; first < rows; first += 4) {
    double w[2][3][5] = { { { 0 } } }, bias[2] = { 0 };  /* weights; gradients: of w0, b0, w1 */
    for (int k = 0; k < 5; k++) w[0][0][k] = w0[k], w[0][1][k] = b0[k], w[0][2][k] = w1[k];
    bias[0] = b1[0];
    for (int step = 0; step < 2; step++)
      for (int64_t r = first; r < first + 4; r++) {
        double h[5], out = bias[0];
        for (int k = 0; k < 5; k++) h[k] = tanh(w[0][0][k] * x[r] + w[0][1][k]), out += w[0][2][k] * h[k];
        double e = (out - y[r]) / 2;
        if (step) sum += e * e;
        bias[1] += e;
        for (int k = 0; k < 5; k++) {
          double dz = e * w[0][2][k] * (1 - h[k] * h[k]);
          w[1][0][k] += dz * x[r], w[1][1][k] += dz, w[1][2][k] += e * h[k];
        }
        if (step || r < first + 3) continue;
        bias[0] -= 0.05 * bias[1];
        for (int i = 0; i < 3; i++)
          for (int k = 0; k < 5; k++) w[0][i][k] -= 0.05 * w[1][i][k];
      }
  }
  return sum;
}

/* a direction that never looks at the query is rate x the gradient of a function of the support; the value is the
 * query's loss all the same */
static void check_direction(const char *const *set, int n,
                            double (*function)(const micah_safetensors *, const double *, const double *,
                                               const double *, const double *)) {
  micah_safetensors *file;
  double loss = gradient(set, n, NULL, in_folder("g.safetensors"));
  CHECK(micah_safetensors_open(in_folder("g.safetensors"), &file));
  double w[4][5];
  static const char *const names[] = { "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias" };
  for (int i = 0; i < 4; i++) {
    char name[64];
    int64_t count;
    snprintf(name, sizeof name, "init/%s", names[i]);
    const double *v = tensor(file, name, &count);
    memcpy(w[i], v, (size_t)count * sizeof *v);
  }
  for (int i = 0; i < 4; i++) {
    char name[64];
    int64_t count;
    snprintf(name, sizeof name, "grad/%s", names[i]);
    const double *d = tensor(file, name, &count);
    for (int64_t k = 0; k < count; k++) {
      double h = 1e-5, at = w[i][k];
      w[i][k] = at + h;
      double up = function(file, w[0], w[1], w[2], w[3]);
      w[i][k] = at - h;
      double down = function(file, w[0], w[1], w[2], w[3]);
      w[i][k] = at;
      double expected = 0.05 * (up - down) / (2 * h) / 8;
      if (!(fabs(d[k] - expected) < 1e-9 * (1 + fabs(expected))))
        fail_msg("%s: %s[%d]: %.12g, expected %.12g", set[0], names[i], (int)k, d[k], expected);
    }
  }
  const char *plain[] = { "inner.method=unrolled", "inner.steps=1" };
  double exact = gradient(plain, 2, NULL, NULL);
  assert_true(fabs(exact - loss) < 1e-12);
  micah_safetensors_close(file);
}

/* Reptile's after one step: the support's loss where it starts. one step drawn to where one more would go: the
 * support's loss after the first */
static void directions_without_a_query(void **state) {
  (void)state;
  config_file(maml_config);
  const char *reptile[] = { "inner.method=reptile", "inner.steps=1" };
  check_direction(reptile, 2, by_hand);
  const char *bootstrapped[] = { "inner.method=bootstrapped", "inner.steps=1", "inner.further=1" };
  check_direction(bootstrapped, 3, after_a_step);
}

/* many random directions come near the exact gradient */
static void zero_order_is_near(void **state) {
  (void)state;
  config_file(maml_config);
  const char *set[] = { "inner.method=zero_order", "inner.directions=3000", "inner.direction=sign" };
  micah_safetensors *file[2];
  gradient(set, 0, NULL, in_folder("g.safetensors"));
  gradient(set, 3, NULL, in_folder("z.safetensors"));
  CHECK(micah_safetensors_open(in_folder("g.safetensors"), &file[0]));
  CHECK(micah_safetensors_open(in_folder("z.safetensors"), &file[1]));
  double off = 0, all = 0;
  for (int64_t i = 0; i < micah_safetensors_count(file[0]); i++) {
    const micah_tensor *t = micah_safetensors_get(file[0], i);
    int64_t count = micah_tensor_count(t);
    if (strncmp(t->name, "grad/", 5)) continue;
    const double *exact = t->data, *estimate = tensor(file[1], t->name, NULL);
    for (int64_t k = 0; k < count; k++) off += pow(estimate[k] - exact[k], 2), all += pow(exact[k], 2);
  }
  /* 16 numbers: sqrt(16 / 3000) is 7 % */
  if (!(off < 0.04 * all && off > 0)) fail_msg("relative error %g", sqrt(off / all));
  for (int i = 0; i < 2; i++) micah_safetensors_close(file[i]);
}

static float *train(const char *const *overrides, int n, int64_t *count, double *first, double *last) {
  mica_source s = source_of(in_folder("maml.yaml"), NULL, overrides, n);
  mica_trainer *t;
  mica_progress p;
  CHECK(mica_trainer_create(&s, 0, &t));
  for (int64_t i = 0; i == 0 || p.step < p.steps; i++) {
    CHECK(mica_trainer_step(t, &p));
    if (i == 0) *first = p.loss;
  }
  *last = p.loss;
  float *w = weights_of(t, count);
  mica_trainer_destroy(t);
  return w;
}

static void same_bits(void **state) {
  (void)state;
  config_file(maml_config);
  static const char *const methods[] = { "inner.method=unrolled", "inner.method=first_order", "inner.method=reptile",
                                         "inner.method=implicit", "inner.method=bootstrapped",
                                         "inner.method=zero_order" };
  for (int m = 0; m < 6; m++) {
    const char *a[] = { methods[m], "inner.proximal=0.1", "launch=1", "threads=1" };
    const char *b[] = { methods[m], "inner.proximal=0.1", "launch=4", "threads=3" };
    int64_t n;
    double first, last;
    float *one = train(a, 4, &n, &first, &last), *other = train(b, 4, &n, &first, &last);
    assert_memory_equal(one, other, (size_t)n * sizeof *one);
    free(one);
    free(other);
  }
}

static void training_learns_to_adapt(void **state) {
  (void)state;
  config_file(maml_config);
  const char *set[] = { "steps=600", "batch=32", "grain=32", "model.width=32", "inner.learn_rates=yes",
                        "inner.rates=tensor", "family.support=10" };
  int64_t n;
  double first, last;
  free(train(set, 7, &n, &first, &last));
  if (!(last < 0.6 * first)) fail_msg("loss %g after, %g before", last, first);
}

static void wrong_settings(void **state) {
  (void)state;
  config_file(maml_config);
  static const struct { const char *text, *set[2]; } cases[] = {
    { "gives the adapted weights' initial values no gradient", { "inner.method=truncated" } },
    { "needs inner.proximal above 0", { "inner.method=implicit" } },
    { "does not depend on the rates", { "inner.method=implicit", "inner.learn_rates=yes" } },
    { "no parameter of inner fits 'head'", { "inner.trained=head" } },
    { "expected at most steps", { "inner.method=truncated", "inner.last=9" } },
    { "inner.step", { "inner.step=3" } },
    { "support_NAME", { "family.name=sinusoid" } },
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int n = cases[i].set[1] ? 2 : 1;
    const char *set[] = { cases[i].set[0], cases[i].set[1], NULL };
    if (i == 6) {  /* a family without a support */
      config_file("family: {name: sinusoid}\nmodel: {name: mlp}\ninner: {steps: 1}\nsteps: 1\nbatch: 2\n");
      n = 0;
    }
    if (i == 1 || i == 2) set[1] = i == 2 ? "inner.proximal=1" : NULL;
    const char *both[] = { set[0], set[1], "inner.learn_rates=yes" };
    if (i == 2) n = 3;
    mica_source s = source_of(in_folder("maml.yaml"), NULL, both, n);
    mica_trainer *t = NULL;
    mica_status status = mica_trainer_create(&s, 0, &t);
    if (status >= 0 || !strstr(mica_last_error(), cases[i].text))
      fail_msg("case %d: status %d, message '%s', expected '%s'", (int)i, status, mica_last_error(), cases[i].text);
  }
  /* a third derivative is refused, never wrong */
  config_file(maml_config);
  gradient(NULL, 0, NULL, in_folder("g.safetensors"));
  mica_grad_options o = MICA_GRAD_OPTIONS_INIT;
  o.source = source_of(in_folder("maml.yaml"), NULL, NULL, 0);
  o.direction = in_folder("g.safetensors"), o.out = in_folder("h.safetensors");
  double loss;
  assert_int_equal(mica_grad(&o, &loss), MICA_ERR_UNSUPPORTED);
  assert_non_null(strstr(mica_last_error(), "jvp of an inner loop"));
}

/* which way a configuration's inner loop runs */
static void paths(void **state) {
  (void)state;
  static const char images[] = "family: {name: few_shot_images, ways: 3, shots: 1, queries: 2}\n"
                               "model: {name: mlp, layers: 1, width: 8}\ninner: {steps: 2, lr: 0.05}\n"
                               "schedule: {warmup: 0}\nsteps: 2\nbatch: 2\nthreads: 1\n";
  static const struct { const char *config, *set, *path; } ways[] = {
    { maml_config, "seed=1", "mlp+loss" },
    { images, "seed=1", "mlp+loss" },      /* labels, and images as rows of pixels */
    { images, "inner.learn_rates=yes", "mlp+loss" },
    { images, "inner.rates=tensor", "mlp+loss" },
    { images, "inner.per_step=yes", "mlp+loss" },
    { images, "inner.method=first_order", "mlp+loss" },
    { images, "inner.update=momentum", "steps" },
    { images, "inner.update=adam", "steps" },
    { images, "inner.rates=element", "steps" },
    { images, "inner.trained=layers.1.*", "steps" },
    { images, "inner.proximal=1", "steps" },
    { images, "model.activation=gelu", "steps" },
    { images, "model.width=129", "steps" },
  };
  for (int i = 0; i < MICA_COUNT(ways); i++) {
    mica_source s = source_of(config_file(ways[i].config), NULL, &ways[i].set, 1);
    mica_trainer *t;
    mica_trainer_info info;
    CHECK(mica_trainer_create(&s, 0, &t));
    CHECK(mica_trainer_get_info(t, &info));
    if (strcmp(info.inner, ways[i].path)) fail_msg("%s: %s, expected %s", ways[i].set, info.inner, ways[i].path);
    mica_trainer_destroy(t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(exact_methods), cmocka_unit_test(paths), cmocka_unit_test(kept_activations), cmocka_unit_test(kept_where_they_fit),
    cmocka_unit_test(memory_of_steps),
    cmocka_unit_test(low_rank_adapters), cmocka_unit_test(soft_prompts),
    cmocka_unit_test(directions_without_a_query),
    cmocka_unit_test(zero_order_is_near), cmocka_unit_test(same_bits),
    cmocka_unit_test(training_learns_to_adapt), cmocka_unit_test(wrong_settings),
  };
  return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
