/* inner loops on CUDA that are not step by step: the solves of implicit hypergradients, stage by stage and inside
 * programs, against the CPU's */
#include "device_support.h"
#include "implicit/implicit.h"
#include "mica/adapt.h"
#include "program_support.h"

static mica_context *context;

/* ---- stages ---- */

#ifdef MICA_HAVE_CUDA
enum { TASKS = 4, N = 301, RANK = 7, LARGE = 300 };
enum { OF_FLOATS = 5, OF_DOUBLES = 3 };

/* everything that a solve has, in one block: vectors, doubles of tasks, matrix, work, columns, iterations, flags */
typedef struct state {
  micak_implicit solve;
  size_t         bytes;
  char          *at;
} state;

static void lay_out(state *s, int64_t n, int64_t rows, char *at) {
  micak_implicit *j = &s->solve;
  j->tasks = TASKS, j->n = n, j->rows = rows, j->own = micak_implicit_work(n, rows, 1);
  s->at = at;
  double *d = (void *)at;
  double **doubles[] = { &j->rr, &j->uu, &j->residual };
  for (int i = 0; i < OF_DOUBLES; i++) *doubles[i] = d, d += TASKS;
  j->matrix = d, d += TASKS * rows * n;
  j->work = d, d += TASKS * j->own;
  j->columns = (void *)d, d += rows;
  float *f = (void *)d;
  void **floats[] = { &j->u, &j->v, &j->r, &j->p, &j->q };
  for (int i = 0; i < OF_FLOATS; i++) *floats[i] = f, f += TASKS * n;
  j->iterations = (void *)f, f += TASKS;
  j->converged = (void *)f, j->done = j->converged + TASKS;
  s->bytes = (size_t)((char *)(j->done + TASKS) - at);
}

/* task 1 has no cotangent, task 2 a negative curvature, task 3 is done or cannot be solved */
static void fill(state *s, int stage) {
  micak_implicit *j = &s->solve;
  uint64_t random = 3 + (uint64_t)stage;
  float **vectors[] = { (void *)&j->u, (void *)&j->v, (void *)&j->r, (void *)&j->p, (void *)&j->q };
  memset(s->at, 0, s->bytes);
  for (int i = 0; i < OF_FLOATS; i++)
    for (int64_t k = 0; k < TASKS * j->n; k++) (*vectors[i])[k] = (float)uniform(&random);
  for (int64_t k = 0; k < j->n; k++) {
    (*vectors[0])[j->n + k] = 0;
    float *p = *vectors[3], *q = *vectors[4];
    for (int b = 0; b < TASKS; b++) q[b * j->n + k] = p[b * j->n + k] * (float)(b == 2 ? -1 : 1 + uniform(&random));
  }
  for (int b = 0; b < TASKS; b++) {
    j->rr[b] = 40 + b, j->uu[b] = b == 1 && stage != MICAK_IMPLICIT_CG ? 0 : 60 + b, j->residual[b] = 1;
    j->iterations[b] = b, j->done[b] = b == 3, j->converged[b] = b == 3;
  }
  /* not symmetric, and nothing on the diagonal: pivots are elsewhere */
  for (int64_t k = 0; k < TASKS * j->rows * j->n; k++)
    j->matrix[k] = stage == MICAK_IMPLICIT_DENSE && k % (j->n + 1) == 0 ? 0 : uniform(&random);
  for (int64_t k = 0; stage == MICAK_IMPLICIT_DENSE && k < j->n; k++) {
    double *a = j->matrix + 3 * j->rows * j->n;
    a[2 * j->n + k] = a[j->n + k];
  }
  for (int64_t k = 0; k < j->rows; k++) ((int64_t *)(uintptr_t)j->columns)[k] = (k * 11 + 2) % j->n;
}

static void check_stage(micah_device *d, int stage, int64_t n, int64_t rows, double tolerance) {
  state cpu, gpu;
  memset(&cpu, 0, sizeof cpu);
  cpu.solve.dtype = MICA_F32, cpu.solve.tolerance = 0.8, cpu.solve.rate = 0.25;
  cpu.solve.at = n - 1, cpu.solve.row = rows - 1;
  cpu.solve.damping = stage == MICAK_IMPLICIT_DENSE ? 0 : 0.5;
  gpu = cpu;
  lay_out(&cpu, n, rows, NULL);
  char *here = malloc(cpu.bytes), *back = malloc(cpu.bytes);
  void *there = device_memory(d, cpu.bytes);
  lay_out(&cpu, n, rows, here);
  lay_out(&gpu, n, rows, there);
  fill(&cpu, stage);
  device_copy(d, there, here, cpu.bytes);
  assert_ok(d->ops->enter(d));
  assert_ok(micak_implicit_cuda(d->stream, &gpu.solve, stage));
  for (int64_t b = 0; b < TASKS; b++) micak_implicit_task(&cpu.solve, stage, b);
  device_copy(d, back, there, cpu.bytes);
  lay_out(&gpu, n, rows, back);
  const micak_implicit *a = &cpu.solve, *g = &gpu.solve;
  const void *vectors[][2] = { { a->u, g->u }, { a->v, g->v }, { a->r, g->r }, { a->p, g->p }, { a->q, g->q } };
  static const char *const names[] = { "u", "v", "r", "p", "q" };
  for (int i = 0; i < OF_FLOATS; i++)
    for (int64_t k = 0; k < TASKS * n; k++)
      near((double)((const float *)vectors[i][1])[k], (double)((const float *)vectors[i][0])[k], tolerance, names[i],
           k);
  for (int b = 0; b < TASKS; b++) {
    near(g->rr[b], a->rr[b], 1e-6, "rr", b);
    near(g->uu[b], a->uu[b], 1e-12, "uu", b);
    near(g->residual[b], a->residual[b], 1e-6, "residual", b);
    assert_int_equal(g->iterations[b], a->iterations[b]);
    assert_int_equal(g->done[b], a->done[b]);
    assert_int_equal(g->converged[b], a->converged[b]);
  }
  if (stage == MICAK_IMPLICIT_ROW)
    assert_memory_equal(g->matrix, a->matrix, (size_t)(TASKS * rows * n) * sizeof(double));
  device_release(d, there, cpu.bytes);
  free(here);
  free(back);
}

static void stages(void **unused) {
  (void)unused;
  need_cuda(1);
  micah_device *d;
  assert_ok(micah_context_device(context, MICA_CUDA, 0, &d));
  for (int stage = 0; stage < MICAK_IMPLICIT_STAGES; stage++) {
    /* the solution of a random system: rounding of u in float, times its condition */
    const int dense = stage == MICAK_IMPLICIT_DENSE;
    check_stage(d, stage, dense ? 37 : N, dense ? 37 : RANK, dense || stage == MICAK_IMPLICIT_NYSTROEM ? 1e-5 : 1e-6);
    check_stage(d, stage, 3, 3, 1e-5);
  }
  micak_implicit wide = { .dtype = MICA_F64, .tasks = 1 };
  assert_status(micak_implicit_cuda(d->stream, &wide, MICAK_IMPLICIT_START), MICA_ERR_UNSUPPORTED);
}
#else
static void stages(void **unused) {
  (void)unused;
  need_cuda(1);
}
#endif

/* ---- programs ---- */

enum { ROWS = 4, IN = 3, HIDDEN = 4, MANY = 5 };

/* the mean squared error of a perceptron with tanh */
static mica_program *network(void) {
  mica_program *p;
  OK(mica_program_create(context, "network", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t in = IN, one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, point, 1, &one);
  mica_bind up[] = { { "x", x }, { "w", param(p, "up.w", HIDDEN, IN) }, { "b", param(p, "up.b", HIDDEN, 0) } };
  mica_value h = mica_program_op(p, "up", "linear", "act=tanh", 3, up);
  mica_bind down[] = { { "x", h }, { "w", param(p, "down.w", 1, HIDDEN) }, { "b", param(p, "down.b", 1, 0) } };
  h = mica_program_op(p, "down", "linear", NULL, 3, down);
  mica_value rows = op2(p, "rows", "mse", NULL, "pred", h, "target", y);
  mica_value mean = op1(p, "loss", "mean", "axis=row", "x", rows);
  OK(mica_program_output(p, "loss", mica_program_reshape(p, mean, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

static const char *const weights[] = { "up.w", "up.b", "down.w", "down.b" };

/* outputs: the test's loss, or the adapted weights themselves */
static mica_program *bilevel(const mica_adapt_options *adapt, int as_they_are) {
  mica_program *loss = network(), *p;
  mica_step_options options = MICA_STEP_OPTIONS_INIT;
  options.proximal = 1;
  mica_step *step;
  OK(mica_step_create(context, loss, "loss", &options, &step));
  OK(mica_program_create(context, "bilevel", &p));
  int32_t train = mica_program_axis(p, "train", MICA_NO_AXIS), test = mica_program_axis(p, "test", MICA_NO_AXIS);
  int64_t in = IN, one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, train, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, train, 1, &one);
  mica_bind binds[11] = { { "x", x }, { "y", y } }, outer[6];
  char anchors[4][32];
  for (int i = 0; i < 4; i++) {
    mica_value_info info;
    OK(mica_program_info(loss, mica_program_find(loss, weights[i]), &info));
    mica_value start = param(p, weights[i], info.shape[0], info.rank > 1 ? info.shape[1] : 0);
    snprintf(anchors[i], sizeof anchors[i], "anchor.%s", weights[i]);
    binds[2 + 2 * i] = (mica_bind){ weights[i], start };
    binds[3 + 2 * i] = (mica_bind){ anchors[i], start };
  }
  mica_value proximal = mica_program_param(p, "proximal", 0, &one, (mica_init){ 0, 0 }, 0);
  mica_bind all[12];
  memcpy(all, binds, 10 * sizeof *binds);
  all[10] = (mica_bind){ "proximal", proximal };
  all[11] = (mica_bind){ "rate", mica_program_constant(p, 0.1, 0, NULL) };
  mica_value adapted = mica_program_adapt_step(p, "inner", step, adapt, 12, all);
  OK(adapted);
  for (int i = 0; i < 4; i++) {
    char name[64];
    snprintf(name, sizeof name, "last.next.%s", weights[i]);
    outer[2 + i] = (mica_bind){ weights[i], mica_program_port(p, adapted, name) };
    if (as_they_are) OK(mica_program_output(p, name, outer[2 + i].value));
  }
  if (!as_they_are) {
    outer[0] = (mica_bind){ "x", mica_program_input(p, "test_x", MICA_F32, test, 1, &in) };
    outer[1] = (mica_bind){ "y", mica_program_input(p, "test_y", MICA_F32, test, 1, &one) };
    OK(mica_program_output(p, "test", mica_program_call(p, "outer", loss, 6, outer)));
  }
  OK(mica_program_seal(p));
  mica_step_destroy(step);
  mica_program_destroy(loss);
  return p;
}

/* what the solves say of themselves */
typedef struct told {
  int64_t tasks, unconverged;
  int32_t iterations[MANY];
  double  residual[MANY];
  uint8_t converged[MANY];
} told;

static void look(const mica_executor *x, void *to) {
  told *t = to;
  mica_adapt_report report;
  OK(mica_adapt_get_report(x, 0, &report));
  assert_int_equal(report.tasks, MANY);
  t->tasks = report.tasks, t->unconverged = report.unconverged;
  memcpy(t->iterations, report.iterations, sizeof t->iterations);
  memcpy(t->residual, report.residual, sizeof t->residual);
  memcpy(t->converged, report.converged, sizeof t->converged);
}

static bench bench_of(mica_program *p, int packed, told *t) {
  static const int32_t offsets[] = { 0, 3, 4, 8, 10, 14 };
  bench b = { .program = p, .dtype = MICA_F32, .backend = MICA_CPU, .fused = 1, .tasks = MANY, .params_only = 1,
              .passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD, .rows = { packed ? 14 : MANY * ROWS, MANY * ROWS },
              .longest = { ROWS, ROWS }, .offsets = { packed ? offsets : NULL }, .look = look, .look_to = t,
              .per_task = !packed };
  bench_fill(&b, 23);
  int64_t count = mica_program_param_count(p);
  for (int64_t task = 0; task < (packed ? 1 : MANY); task++)
    b.param[0][(task + 1) * count - 1] = 2 + 0.5 * (double)task; /* proximal */
  b.output[0][1][3] = 0;                     /* a task that nothing is wanted of */
  return b;
}

static void solvers(void **unused) {
  (void)unused;
  need_cuda(1);
  static const struct { int32_t solver; int64_t iterations; double tolerance, damping; int64_t lost; } ways[] = {
    { MICA_SOLVE_CG, 12, 1e-3, 0, 0 },       /* all converge, not all at once */
    { MICA_SOLVE_CG, 2, 0.0178, 1, -1 },       /* some do not */
    { MICA_SOLVE_CG, 3, 0, 0, 0 },           { MICA_SOLVE_NEUMANN, 6, 0, 0.5, 0 },
    { MICA_SOLVE_DENSE, 0, 0, 0, 0 },        { MICA_SOLVE_NYSTROEM, 5, 0, 0.5, 0 },
  };
  for (int i = 0; i < MICA_COUNT(ways); i++)
    for (int packed = 0; packed < 2; packed++) {
      mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
      adapt.method = MICA_ADAPT_IMPLICIT, adapt.steps = 2, adapt.solver = ways[i].solver;
      if (ways[i].iterations) adapt.iterations = ways[i].iterations;
      adapt.tolerance = ways[i].tolerance, adapt.damping = ways[i].damping;
      mica_program *p = bilevel(&adapt, 0);
      told at[2];
      bench cpu = bench_of(p, packed, &at[0]), gpu = bench_of(p, packed, &at[1]);
      gpu.backend = MICA_CUDA, gpu.runs = i ? 1 : 2;
      bench_run(context, &cpu);
      bench_run(context, &gpu);
      for (int64_t k = 0; k < cpu.param_count; k++) near(gpu.param[1][k], cpu.param[1][k], 1e-5, "param", k);
      for (int b = 0; b < MANY; b++) near(gpu.output[0][0][b], cpu.output[0][0][b], 1e-5, "test", b);
      if (ways[i].lost >= 0) assert_int_equal(at[0].unconverged, ways[i].lost);
      else assert_true(at[0].unconverged > 0 && at[0].unconverged < MANY - 1);
      assert_int_equal(at[0].unconverged, at[1].unconverged);
      for (int b = 0; b < MANY; b++) {
        assert_int_equal(at[0].iterations[b], at[1].iterations[b]);
        assert_int_equal(at[0].converged[b], at[1].converged[b]);
        near(at[1].residual[b], at[0].residual[b], 1e-5, "residual", b);
      }
      bench_free(&cpu);
      bench_free(&gpu);
      mica_program_destroy(p);
    }
}

/* a method's hypergradients as on the CPU, of parameters of all tasks and of each its own, twice */
static void as_on_the_cpu(const mica_adapt_options *adapt, int as_they_are) {
  for (int packed = 0; packed < 2; packed++) {
    mica_program *p = bilevel(adapt, as_they_are);
    bench cpu = bench_of(p, packed, NULL), gpu = bench_of(p, packed, NULL);
    double size = 0;
    cpu.look = gpu.look = NULL;
    gpu.backend = MICA_CUDA, gpu.runs = 2;
    bench_run(context, &cpu);
    bench_run(context, &gpu);
    for (int64_t k = 0; k < cpu.param_count; k++) {
      near(gpu.param[1][k], cpu.param[1][k], 1e-5, "param", k);
      size = fmax(size, fabs(cpu.param[1][k]));
    }
    assert_true(size > 1e-3);
    bench_free(&cpu);
    bench_free(&gpu);
    mica_program_destroy(p);
  }
}

static void forward_mode(void **unused) {
  (void)unused;
  need_cuda(1);
  mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
  adapt.method = MICA_ADAPT_FORWARD, adapt.steps = 3;
  as_on_the_cpu(&adapt, 0);
}

/* directions follow from the cotangents' bits: those of the adapted weights are given */
static void zero_order(void **unused) {
  (void)unused;
  need_cuda(1);
  for (int direction = MICA_DIRECTION_NORMAL; direction <= MICA_DIRECTION_SIGN; direction++) {
    mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
    adapt.method = MICA_ADAPT_ZERO_ORDER, adapt.steps = 2, adapt.directions = 3, adapt.sigma = 0.1;
    adapt.direction = direction;
    as_on_the_cpu(&adapt, 1);
  }
}

/* cotangents in slots, on top of what is there: each slot's tasks are summed, those of slot -1 go nowhere */
static void slots(void **unused) {
  (void)unused;
  need_cuda(1);
  static const int32_t slot[MANY] = { 1, 1, 0, -1, 2 };
  for (int method = MICA_ADAPT_FORWARD; method <= MICA_ADAPT_ZERO_ORDER; method++) {
    mica_adapt_options adapt = MICA_ADAPT_OPTIONS_INIT;
    adapt.method = method, adapt.steps = 2, adapt.directions = 2, adapt.sigma = 0.1;
    mica_program *p = bilevel(&adapt, 1);
    const int64_t count = mica_program_param_count(p);
    bench b = bench_of(p, 0, NULL);
    b.look = NULL;
    bench_run(context, &b);
    for (int backend = 0; backend < 2; backend++) {
      mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
      mica_executor *x;
      micah_device *d;
      typed t[2 + 2 + 4];
      double *sums = zeros_of(3 * count), *expected = zeros_of(3 * count);
      options.backend = backend ? MICA_CUDA : MICA_CPU, options.passes = b.passes, options.tasks = MANY;
      options.rows = b.rows, options.longest = b.longest;
      OK(micah_context_device(context, options.backend, 0, &d));
      OK(mica_executor_create(context, p, &options, &x));
      set_sizes(x, &b);
      for (int64_t k = 0; k < 3 * count; k++) sums[k] = expected[k] = 1 + (double)(k % 3);
      for (int task = 0; task < MANY; task++)
        for (int64_t k = 0; slot[task] >= 0 && k < count; k++)
          expected[slot[task] * count + k] += b.param[1][task * count + k];
      t[0] = to_type(d, b.param[0], MANY * count, MICA_F32), t[1] = to_type(d, sums, 3 * count, MICA_F32);
      OK(mica_executor_set_params(x, MICA_V, t[0].at, count, NULL, 0));
      OK(mica_executor_set_params(x, MICA_D, t[1].at, count, slot, MICA_ADD));
      for (int i = 0; i < 6; i++) {
        double *from = i < 2 ? b.input[i][0] : b.output[i - 2][1];
        t[2 + i] = to_type(d, from, i < 2 ? b.input_count[i] : b.output_count[i - 2], MICA_F32);
        mica_wire wire = { .data = t[2 + i].at, .task_stride = -1 };
        mica_value value = i < 2 ? mica_program_get_input(p, i) : mica_program_get_output(p, i - 2);
        OK(mica_executor_set_value(x, value, i < 2 ? MICA_V : MICA_D, &wire));
      }
      OK(mica_executor_run(x, b.passes, NULL));
      for (int i = 0; i < 8; i++) from_type(d, &t[i]);
      for (int64_t k = 0; k < 3 * count; k++) near(sums[k], expected[k], 1e-5, "sum", k);
      mica_executor_destroy(x);
      free(sums);
      free(expected);
    }
    bench_free(&b);
    mica_program_destroy(p);
  }
}

int main(void) {
  OK(mica_context_create(NULL, &context));
  const struct CMUnitTest tests[] = { cmocka_unit_test(stages), cmocka_unit_test(solvers),
                                      cmocka_unit_test(forward_mode), cmocka_unit_test(zero_order),
                                      cmocka_unit_test(slots) };
  int red = cmocka_run_group_tests(tests, NULL, NULL);
  mica_context_destroy(context);
  return red;
}
