/* the engine on CUDA devices, and on several of the CPU: losses of the CPU, the same bits for any number of devices,
 * resumed runs, evaluation, and every injected failure: a clear status, nothing leaked, and a run that goes on.
 *
 * failures are injected into children of this program: the executors read the environment once. */
#include <math.h>
#include <sys/wait.h>

#include "device_support.h"
#include "engine_support.h"
#include "host/io/safetensors.h"
#include "mica/model.h"

/* a model and a loss of elementwise operations, so that it stands on nothing but the device layer */
static mica_value step(mica_program *p, const char *name, const char *op, mica_value a, mica_value b) {
  return mica_program_op(p, name, op, NULL, 2, (mica_bind[]){ { "a", a }, { "b", b } });
}
static mica_value build_gates(mica_program *p, const void *config, const mica_field *fields, const mica_value *inputs,
                              int32_t n, int64_t longest, int64_t outputs) {
  (void)config, (void)longest;
  int32_t in = 0;
  while (in < n && fields[in].role != MICA_FIELD_INPUT) in++;
  if (in == n || outputs != 1) return mica_error(MICA_ERR_INVALID, "gates: needs an input and one output");
  mica_value x = inputs[in];
  for (int layer = 0; layer < 2; layer++) {
    char name[32];
    mica_value w[3];
    for (int i = 0; i < 3; i++) {
      snprintf(name, sizeof name, "%d.%c", layer, "wbg"[i]);
      w[i] = mica_program_param(p, name, 1, fields[in].shape, (mica_init){ MICA_INIT_NORMAL, 0.5 }, i != 1);
    }
#define NAME(text) (snprintf(name, sizeof name, "%d." text, layer), name)
    mica_value h = step(p, NAME("mul"), "mul", x, w[0]);
    h = step(p, NAME("add"), "add", h, w[1]);
    h = mica_program_op(p, NAME("tanh"), "tanh", NULL, 1, (mica_bind[]){ { "x", h } });
    x = step(p, NAME("res"), "add", step(p, NAME("gate"), "mul", h, w[2]), x);
#undef NAME
  }
  mica_value left = mica_program_slice(p, x, 0, 1), right = mica_program_slice(p, x, 1, 1);
  return step(p, "head", "mul", left, right);
}
static const mica_model gates = { .size = sizeof(mica_model), .name = "gates", .doc = "elementwise layers",
                                  .build = build_gates };
static mica_value build_square(mica_program *p, const void *config, mica_value prediction, mica_value target,
                               mica_value weight) {
  (void)config;
  int64_t one = 1;
  mica_value error = step(p, "loss.error", "sub", prediction, mica_program_reshape(p, target, 1, &one));
  mica_value loss = step(p, "loss.square", "mul", error, error);
  return weight < 0 ? loss : step(p, "loss", "mul", loss, mica_program_reshape(p, weight, 1, &one));
}
static const mica_loss square = { .size = sizeof(mica_loss), .name = "square", .doc = "squared error",
                                  .build = build_square };
static mica_status add_both(void *user, mica_context *context) {
  (void)user;
  mica_status status = mica_register_model(context, &gates);
  return status < 0 ? status : mica_register_loss(context, &square);
}

static const char config[] =
    "family: {name: linear_regression, dim: 3, points: 6, layout: shifted}\n"
    "model: {name: gates}\n"
    "loss: {name: square}\n"
    "optimizer: {lr: 1e-2, weight_decay: 0.1, clip: 0.5}\n"
    "steps: 6\nbatch: 14\ngrain: 2\nseed: 3\nthreads: 2\nlog_every: 2\ncheckpoint_every: 2\nlaunch: 2\n";

static mica_source source(const char *run, const char *const *overrides, int n) {
  mica_source s = source_of(in_folder("small.yaml"), run, overrides, n);
  s.setup = add_both;
  return s;
}

typedef struct result {
  double losses[6], norms[6];
  float *weights;
  int64_t n;
} result;

static void note(void *user, const mica_progress *p) {
  result *r = user;
  r->losses[p->step - 1] = p->loss;
  r->norms[p->step - 1] = p->grad_norm;
}

static result train(const char *run, const char *const *overrides, int n) {
  mica_source s = source(run, overrides, n);
  mica_trainer *t;
  result r = { .n = 0 };
  CHECK(mica_trainer_create(&s, 0, &t));
  CHECK(mica_trainer_run(t, note, &r));
  r.weights = weights_of(t, &r.n);
  mica_trainer_destroy(t);
  return r;
}

static void same_bits(const result *a, const result *b) {
  assert_int_equal(a->n, b->n);
  assert_memory_equal(a->losses, b->losses, sizeof a->losses);
  assert_memory_equal(a->norms, b->norms, sizeof a->norms);
  for (int64_t i = 0; i < a->n; i++)
    if (memcmp(&a->weights[i], &b->weights[i], sizeof(float)) != 0)
      fail_msg("weight %lld differs: %.9g and %.9g", (long long)i, (double)a->weights[i], (double)b->weights[i]);
}

static int32_t cuda_devices(void) {
  int32_t n = 0;
  return micah_cuda_ops.count(&n) < 0 ? 0 : n;
}

static void check_devices(const char *device, int32_t most) {
  char on[32];
  snprintf(on, sizeof on, "device=%s", device);
  static const char *const ways[][2] = { { "devices=1", "launch=2" }, { "devices=1", "launch=1" },
                                         { "devices=2", "launch=0" }, { "devices=2", "launch=1" },
                                         { "devices=4", "launch=2" }, { "devices=8", "launch=0" } };
  result first = { .n = 0 };
  for (int i = 0; i < MICA_COUNT(ways); i++) {
    if (atoi(ways[i][0] + 8) > most) continue;
    result r = train(NULL, (const char *[]){ on, ways[i][0], ways[i][1] }, 3);
    for (int64_t k = 0; k < r.n; k++) assert_true(isfinite(r.weights[k]));
    if (first.n) same_bits(&first, &r), free(r.weights);
    else first = r;
  }
  /* the comparison can fail: another grain is another sum */
  result other = train(NULL, (const char *[]){ on, "grain=4" }, 2);
  assert_true(memcmp(first.norms, other.norms, sizeof first.norms) != 0);
  free(first.weights);
  free(other.weights);
}

static void devices_of_the_cpu(void **state) {
  (void)state;
  check_devices("cpu", 8);
}
static void devices_of_cuda(void **state) {
  (void)state;
  need_cuda(4);
  check_devices("cuda", cuda_devices());
}

static void devices_are_checked(void **state) {
  (void)state;
  static const struct { const char *set, *says; } bad[] = {
    { "devices=3", "power of two" }, { "devices=16", "7 grains" }, { "devices=128", "128" },
  };
  for (int i = 0; i < MICA_COUNT(bad); i++) {
    mica_source s = source(NULL, &bad[i].set, 1);
    mica_trainer *t;
    assert_status(mica_trainer_create(&s, 0, &t), MICA_ERR_CONFIG);
    assert_null(t);
    if (!strstr(mica_last_error(), bad[i].says)) fail_msg("%s: %s", bad[i].set, mica_last_error());
  }
  mica_source s = source(NULL, (const char *[]){ "device=cuda" }, 1);
  mica_trainer *t;
  if (cuda_devices()) return;
  assert_status(mica_trainer_create(&s, 0, &t), MICA_ERR_UNSUPPORTED);
  assert_non_null(strstr(mica_last_error(), "small.yaml"));
  assert_non_null(strstr(mica_last_error(), "CUDA"));
}

/* losses, norms and weights of the CPU backend, step by step */
static void losses_of_the_cpu(void **state) {
  (void)state;
  need_cuda(1);
  result cpu = train(NULL, NULL, 0), gpu = train(NULL, (const char *[]){ "device=cuda" }, 1);
  for (int i = 0; i < 6; i++) {
    if (fabs(gpu.losses[i] / cpu.losses[i] - 1) > 1e-4 || fabs(gpu.norms[i] / cpu.norms[i] - 1) > 1e-4)
      fail_msg("step %d: loss %.9g and %.9g, norm %.9g and %.9g", i + 1, cpu.losses[i], gpu.losses[i], cpu.norms[i],
               gpu.norms[i]);
  }
  for (int64_t i = 0; i < cpu.n; i++) assert_true(fabsf(cpu.weights[i] - gpu.weights[i]) < 1e-4f);
  free(cpu.weights);
  free(gpu.weights);
}

/* stopped anywhere, resumed on another number of devices; parameters that are looked at and changed between steps */
static void resumed(void **state) {
  (void)state;
  need_cuda(2);
  char run[512];
  snprintf(run, sizeof run, "%s/whole", folder);
  result want = train(run, (const char *[]){ "device=cuda" }, 1);
  for (int k = 1; k < 6; k += 2) {
    snprintf(run, sizeof run, "%s/stopped_%d", folder, k);
    mica_source s = source(run, (const char *[]){ "device=cuda" }, 1);
    mica_trainer *t;
    CHECK(mica_trainer_create(&s, 0, &t));
    for (int i = 0; i < k; i++) CHECK(mica_trainer_step(t, NULL));
    mica_trainer_destroy(t);
    s = source_of(NULL, run, (const char *[]){ "devices=2" }, 1);
    s.setup = add_both;
    result got = want;
    CHECK(mica_trainer_create(&s, 1, &t));
    CHECK(mica_trainer_run(t, note, &got));
    got.weights = weights_of(t, &got.n);
    mica_trainer_destroy(t);
    same_bits(&want, &got);
    free(got.weights);
  }
  free(want.weights);
}

static void parameters_between_steps(void **state) {
  (void)state;
  need_cuda(1);
  float *weights[2];
  int64_t n = 0;
  for (int cuda = 0; cuda < 2; cuda++) {
    mica_source s = source(NULL, (const char *[]){ cuda ? "device=cuda" : "device=cpu" }, 1);
    mica_trainer *t;
    CHECK(mica_trainer_create(&s, 0, &t));
    CHECK(mica_trainer_step(t, NULL));
    float *p = mica_trainer_get_params(t);
    n = mica_program_param_count(mica_trainer_get_program(t));
    for (int64_t i = 0; i < n; i++) p[i] = -p[i];
    CHECK(mica_trainer_step(t, NULL));
    weights[cuda] = weights_of(t, &n);
    assert_ptr_equal(p, mica_trainer_get_params(t));
    mica_trainer_destroy(t);
  }
  for (int64_t i = 0; i < n; i++) assert_true(fabsf(weights[0][i] - weights[1][i]) < 1e-5f);
  free(weights[0]);
  free(weights[1]);
}

static void evaluation(void **state) {
  (void)state;
  need_cuda(1);
  double loss[2];
  for (int cuda = 0; cuda < 2; cuda++) {
    mica_evaluate_options o = MICA_EVALUATE_OPTIONS_INIT;
    const mica_evaluation *e;
    o.source = source(NULL, (const char *[]){ cuda ? "device=cuda" : "device=cpu" }, 1);
    o.tasks = 50;
    CHECK(mica_evaluate(&o, &e));
    loss[cuda] = e->loss;
    mica_evaluation_destroy(e);
  }
  assert_true(fabs(loss[1] / loss[0] - 1) < 1e-5);
  /* and the gradient of a batch, as files */
  char file[2][512];
  for (int cuda = 0; cuda < 2; cuda++) {
    mica_grad_options o = MICA_GRAD_OPTIONS_INIT;
    snprintf(file[cuda], sizeof file[cuda], "%s/grad_%d.safetensors", folder, cuda);
    o.source = source(NULL, (const char *[]){ cuda ? "device=cuda" : "device=cpu" }, 1);
    o.out = file[cuda];
    CHECK(mica_grad(&o, &loss[cuda]));
  }
  assert_true(fabs(loss[1] / loss[0] - 1) < 1e-5);
  micah_safetensors *s[2];
  for (int i = 0; i < 2; i++) CHECK(micah_safetensors_open(file[i], &s[i]));
  const micah_tensor *a = micah_safetensors_find(s[0], "grad/0.w"), *b = micah_safetensors_find(s[1], "grad/0.w");
  assert_non_null(a);
  assert_non_null(b);
  for (int64_t i = 0; i < micah_tensor_count(a); i++)
    assert_true(fabsf(((const float *)a->data)[i] - ((const float *)b->data)[i]) < 1e-5f);
  for (int i = 0; i < 2; i++) micah_safetensors_close(s[i]);
}

/* ---- injected failures ---- */

static long live;
static void *counted_alloc(void *user, size_t bytes, size_t align) {
  (void)user;
  void *at = NULL;
  if (posix_memalign(&at, align < sizeof at ? sizeof at : align, bytes)) return NULL;
  __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
  return at;
}
static void counted_free(void *user, void *at, size_t bytes) {
  (void)user, (void)bytes;
  __atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
  free(at);
}

/* a child: train (resume 0) or go on (1) in `run`. exit code: 0 done, 10 - status failed; 99: leaked */
static int child(const char *path, const char *run, int resume) {
  snprintf(folder, sizeof folder, "%s", path);
  mica_source s = source(run, (const char *[]){ "device=cuda", "devices=2" }, resume ? 0 : 2);
  if (resume) s.config = NULL;
  mica_context_options o = MICA_CONTEXT_OPTIONS_INIT;
  o.allocator = (mica_allocator){ counted_alloc, counted_free, NULL };
  s.context = &o;
  mica_trainer *t = NULL;
  mica_status status = mica_trainer_create(&s, resume, &t);
  if (status >= 0) status = mica_trainer_run(t, NULL, NULL);
  fprintf(stderr, "%s: %s\n", mica_status_name(status), status < 0 ? mica_last_error() : "");
  if (status < 0 && t) {
    /* a second try fails as clearly */
    mica_status second = mica_trainer_step(t, NULL);
    if (second >= 0) status = -80;
  }
  mica_trainer_destroy(t);
  if (live) return 99;
  return status < 0 ? 10 - status : 0;
}

static const char *self;
static int run_child(const char *run, int resume, const char *name, long n, char message[4096]) {
  char command[2560], log[512], totals[512];
  snprintf(log, sizeof log, "%s/child.log", folder);
  snprintf(totals, sizeof totals, "%s/totals", folder);
  remove(totals);
  /* the same for both executors: whichever is linked reads its own */
  snprintf(command, sizeof command,
           "MICA_SIMT_TOTALS='%s' MICA_SIMT_%s=%ld PTXSIM_%s=%ld timeout 120 '%s' --child '%s' '%s' %d 2>'%s' >&2",
           totals, name, n, strcmp(name, "FAIL_ALLOC") ? name : "FAIL_MALLOC", n, self, folder, run, resume, log);
  int code = system(command);
  FILE *file = fopen(log, "r");
  assert_non_null(file);
  message[fread(message, 1, 4095, file)] = 0;
  fclose(file);
  return WIFEXITED(code) ? WEXITSTATUS(code) : 255;
}

/* what the last child left on its devices, from the SIMT device, which alone counts it. what lies on a lost device is
 * lost with it */
static void nothing_left(const char *name, long n) {
  char file[512], *text;
  int64_t size;
  long left[4];
  snprintf(file, sizeof file, "%s/totals", folder);
  if (micah_path_kind(file) != MICAH_PATH_FILE || !strcmp(name, "LOSE_DEVICE")) return;
  CHECK(micah_file_read(file, 4096, &text, &size));
  const char *at = strstr(text, "left:");
  assert_non_null(at);
  assert_int_equal(sscanf(at, "left: memory %ld streams %ld events %ld graphs %ld", &left[0], &left[1], &left[2], &left[3]), 4);
  if (left[0] || left[1] || left[2] || left[3]) fail_msg("%s %ld: %s", name, n, at);
  free(text);
}

static void check_failures(const char *name, long step_by, const char *says, int *failed) {
  char run[512], message[4096], whole[512];
  snprintf(whole, sizeof whole, "%s/%s_whole", folder, name);
  assert_int_equal(run_child(whole, 0, name, 0, message), 0);
  char *want, *got;
  int64_t want_size, got_size;
  char file[600];
  snprintf(file, sizeof file, "%s/last.safetensors", whole);
  CHECK(micah_file_read(file, 1 << 24, &want, &want_size));
  *failed = 0;
  for (long n = 1;; n += step_by) {
    snprintf(run, sizeof run, "%s/%s_%ld", folder, name, n);
    int code = run_child(run, 0, name, n, message);
    nothing_left(name, n);
    if (code == 0) break;                  /* beyond the last call */
    ++*failed;
    if (code != 10 - MICA_ERR_MEMORY && code != 10 - MICA_ERR_DEVICE)
      fail_msg("%s %ld: exit code %d: %s", name, n, code, message);
    if (!strstr(message, "CUDA error") || !strstr(message, says)) fail_msg("%s %ld: %s", name, n, message);
    snprintf(file, sizeof file, "%s/config.yaml", run);
    /* what failed before the run was a run is started again */
    code = run_child(run, micah_path_kind(file) == MICAH_PATH_FILE, name, 0, message);
    if (code != 0) fail_msg("%s %ld: does not go on: %d: %s", name, n, code, message);
    nothing_left(name, n);
    snprintf(file, sizeof file, "%s/last.safetensors", run);
    CHECK(micah_file_read(file, 1 << 24, &got, &got_size));
    assert_int_equal(got_size, want_size);
    /* weights and step; the file says nothing else */
    if (memcmp(got, want, (size_t)want_size) != 0) fail_msg("%s %ld: other weights after going on", name, n);
    free(got);
    if (n > 5000) fail_msg("%s: no end of failures", name);
  }
  free(want);
  print_message("%s: %d failures, each reported, freed and resumed to the same bits\n", name, *failed);
}

/* the SIMT device fails at every call; ptxsim, which is slower, at some; a GPU never does */
static int on_simt(void) {
  micah_device *d;
  micah_device_info info;
  mica_context *context;
  need_cuda(2);
  CHECK(mica_context_create(NULL, &context));
  CHECK(micah_context_device(context, MICA_CUDA, 0, &d));
  CHECK(d->ops->info(d, &info));
  mica_context_destroy(context);
  int simt = strstr(info.name, "SIMT") != NULL;
  if (simt || strstr(info.name, "ptxsim")) return simt;
  print_message("skipped: %s does not fail on request\n", info.name);
  skip();
  return 0;
}

static void failing_allocations(void **state) {
  (void)state;
  int failed, all = on_simt();
  check_failures("FAIL_ALLOC", all ? 1 : 13, "CUDA error 2", &failed);
  assert_true(failed > (all ? 20 : 1));
}
static void failing_launches(void **state) {
  (void)state;
  int failed, all = on_simt();
  check_failures("FAIL_LAUNCH", all ? 41 : 167, "cuda", &failed);
  assert_true(failed > (all ? 5 : 1));
}
static void lost_device(void **state) {
  (void)state;
  if (!on_simt()) {
    print_message("skipped: ptxsim cannot lose a device\n");
    skip();
  }
  int failed;
  check_failures("LOSE_DEVICE", 67, "cuda", &failed);
  assert_true(failed > 5);
}

static int setup_group(void **state) {
  if (make_folder(state)) return -1;
  write_text(in_folder("small.yaml"), config);
  return 0;
}

int main(int argc, char **argv) {
  /* several virtual devices where the executor has them */
  setenv("PTXSIM_DEVICES", "4", 0);
  if (argc == 5 && !strcmp(argv[1], "--child")) return child(argv[2], argv[3], atoi(argv[4]));
  self = argv[0];
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(devices_of_the_cpu), cmocka_unit_test(devices_are_checked), cmocka_unit_test(losses_of_the_cpu),
    cmocka_unit_test(devices_of_cuda), cmocka_unit_test(resumed), cmocka_unit_test(parameters_between_steps),
    cmocka_unit_test(evaluation), cmocka_unit_test(failing_allocations), cmocka_unit_test(failing_launches),
    cmocka_unit_test(lost_device),
  };
  return cmocka_run_group_tests(tests, setup_group, drop_folder);
}
