/* inner loops: every exact method against central differences, over networks and a transformer; first order and
 * truncation against what they leave out */
#include "adapt_support.h"
#include "attention/attention.h"
#include "mica/adapt.h"

enum { ROWS = 4, IN = 2, HIDDEN = 3, TASKS = 3 };

static mica_program *network(mica_context *context) {
  mica_program *p;
  OK(mica_program_create(context, "network", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t in = IN, one = 1;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, point, 1, &one);
  mica_value w1 = param(p, "w1", HIDDEN, IN), b1 = param(p, "b1", HIDDEN, 0), w2 = param(p, "w2", 1, HIDDEN);
  mica_value h = op3(p, "h", "linear", "act=tanh", "x", x, "w", w1, "b", b1);
  mica_value out = op2(p, "out", "linear", NULL, "x", h, "w", w2);
  mica_value rows = op2(p, "rows", "mse", NULL, "pred", out, "target", y);
  mica_value mean = op1(p, "loss", "mean", "axis=row", "x", rows);
  OK(mica_program_output(p, "loss", mica_program_reshape(p, mean, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

/* a block of attention between linear maps; tokens of width 4 */
static const char *attention = "attention"; /* the operation that does it */
static mica_program *transformer(mica_context *context) {
  enum { C = 4 };
  mica_program *p;
  OK(mica_program_create(context, "transformer", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t in = IN, one = 1, heads[] = { 2, 2 }, width = C;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, point, 1, &one);
  mica_value w[5];
  static const char *const names[] = { "read.weight", "q.weight", "k.weight", "v.weight", "out.weight" };
  for (int i = 0; i < 5; i++) w[i] = param(p, names[i], i < 4 ? C : 1, i ? C : IN);
  mica_value gain = mica_program_param(p, "norm.gain", 1, &width, (mica_init){ MICA_INIT_ONE, 0 }, 0);
  mica_value h = op2(p, "read", "linear", NULL, "x", x, "w", w[0]);
  mica_value n = op2(p, "norm", "rmsnorm", NULL, "x", h, "w", gain);
  mica_value q = mica_program_reshape(p, op2(p, "q", "linear", NULL, "x", n, "w", w[1]), 2, heads);
  mica_value k = mica_program_reshape(p, op2(p, "k", "linear", NULL, "x", n, "w", w[2]), 2, heads);
  mica_value v = mica_program_reshape(p, op2(p, "v", "linear", NULL, "x", n, "w", w[3]), 2, heads);
  mica_value a = mica_program_reshape(p, op3(p, "attention", attention, NULL, "q", q, "k", k, "v", v), 1, &width);
  mica_value sum = op2(p, "sum", "add", NULL, "a", h, "b", a);
  mica_value out = op2(p, "out", "linear", NULL, "x", sum, "w", w[4]);
  mica_value mean = op1(p, "loss", "mean", "axis=row", "x", op2(p, "rows", "mse", NULL, "pred", out, "target", y));
  OK(mica_program_output(p, "loss", mica_program_reshape(p, mean, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

/* rows read into images of 4 x 4, a block of convolution, batch norm and pool, and a head */
static mica_program *conv_net(mica_context *context) {
  enum { SIDE = 4, C = 2 };
  mica_program *p;
  OK(mica_program_create(context, "conv_net", &p));
  int32_t point = mica_program_axis(p, "point", MICA_NO_AXIS);
  int64_t in = IN, one = 1, image[] = { SIDE, SIDE, 1 }, kernel[] = { C, 1, 3, 3 }, pixels[] = { SIDE * SIDE, C };
  int64_t flat = SIDE * SIDE * C, maps[] = { SIDE, SIDE, C }, pooled = flat / 4;
  mica_value x = mica_program_input(p, "x", MICA_F32, point, 1, &in);
  mica_value y = mica_program_input(p, "y", MICA_F32, point, 1, &one);
  mica_value read = op2(p, "read", "linear", NULL, "x", x, "w", param(p, "read.weight", SIDE * SIDE, IN));
  mica_value w = mica_program_param(p, "conv.weight", 4, kernel, (mica_init){ 0, 0 }, 0);
  mica_value h = op3(p, "conv", "conv2d", "pad=1", "x", mica_program_reshape(p, read, 3, image), "w", w, "b",
                     param(p, "conv.bias", C, 0));
  h = op3(p, "norm", "batch_norm", "eps=1e-2", "x", mica_program_reshape(p, h, 2, pixels), "w",
          param(p, "norm.weight", C, 0), "b", param(p, "norm.bias", C, 0));
  h = op1(p, "act", "tanh", NULL, "x", mica_program_reshape(p, h, 1, &flat));
  h = op1(p, "pool", "max_pool", NULL, "x", mica_program_reshape(p, h, 3, maps));
  mica_value out = op2(p, "out", "linear", NULL, "x", mica_program_reshape(p, h, 1, &pooled), "w",
                       param(p, "head.weight", 1, pooled));
  mica_value mean = op1(p, "loss", "mean", "axis=row", "x", op2(p, "rows", "mse", NULL, "pred", out, "target", y));
  OK(mica_program_output(p, "loss", mica_program_reshape(p, mean, 0, &one)));
  OK(mica_program_seal(p));
  return p;
}

typedef struct setup {
  const char        *update, *trained;
  int32_t            rates, first_order, proximal, stepped;
  mica_program    *(*loss)(mica_context *); /* NULL: network */
  mica_adapt_options adapt;
} setup;

/* support and query over two axes; parameters by their names, rate, ...; outputs: query loss, every inner loss */
static mica_program *few_shot(mica_context *context, const setup *s) {
  mica_program *loss = s->loss ? s->loss(context) : network(context), *p;
  mica_step_options options = MICA_STEP_OPTIONS_INIT;
  options.update = s->update, options.rates = s->rates, options.first_order = s->first_order;
  options.proximal = s->proximal;
  options.eps = 1e-2;  /* differences would not see a root next to 0 */
  if (s->trained) options.trained = s->trained;
  mica_step *step;
  OK(mica_step_create(context, loss, "loss", &options, &step));
  OK(mica_program_create(context, "few shot", &p));
  int32_t support = mica_program_axis(p, "support", MICA_NO_AXIS), query = mica_program_axis(p, "query", MICA_NO_AXIS);
  int64_t in = IN, one = 1, wide = IN + 1;
  /* the support's x is a slice of wider rows */
  mica_value both = mica_program_input(p, "both", MICA_F32, support, 1, &wide);
  mica_bind binds[64];
  char names[64][64];
  int n = 0, m = 0;
  binds[n++] = (mica_bind){ "x", mica_program_slice(p, both, 0, IN) };
  binds[n++] = (mica_bind){ "y", mica_program_slice(p, both, IN, 1) };
  mica_bind outer[64];
  outer[m++] = (mica_bind){ "x", mica_program_input(p, "query_x", MICA_F32, query, 1, &in) };
  outer[m++] = (mica_bind){ "y", mica_program_input(p, "query_y", MICA_F32, query, 1, &one) };
  mica_value v;
  int first = n;
  for (int i = 0; (v = mica_program_get_param(loss, i)) >= 0; i++) {
    mica_value_info info;
    OK(mica_program_info(loss, v, &info));
    binds[n++] = (mica_bind){ info.name, mica_program_param(p, info.name, info.rank, info.shape, info.init, 0) };
  }
  int last = n;
  int64_t steps = s->adapt.steps;
  if (s->rates == MICA_RATE_ONE)
    binds[n++] = (mica_bind){ "rate", mica_program_param(p, "rate", !!s->stepped, &steps, (mica_init){ 0, 0 }, 0) };
  for (int i = 0; i < step->n_trained; i++) {
    mica_value_info info;
    OK(mica_program_info(loss, step->trained[i], &info));
    if (s->rates != MICA_RATE_ONE) {
      int64_t shape[5] = { steps };
      int32_t rank = s->stepped;
      for (int k = 0; s->rates == MICA_RATE_ELEMENT && k < info.rank; k++) shape[rank++] = info.shape[k];
      snprintf(names[n], sizeof names[n], "rate.%s", info.name);
      v = mica_program_param(p, names[n], rank, shape, (mica_init){ 0, 0 }, 0);
      binds[n] = (mica_bind){ names[n], v };
      n++;
    }
    if (!s->proximal) continue;
    snprintf(names[n], sizeof names[n], "anchor.%s", info.name);
    for (int k = first; k < last; k++)
      if (!strcmp(binds[k].port, info.name)) binds[n] = (mica_bind){ names[n], binds[k].value };
    n++;
  }
  if (s->proximal)
    binds[n++] = (mica_bind){ "proximal", mica_program_param(p, "proximal", 0, &one, (mica_init){ 0, 0 }, 0) };
  mica_value adapted = mica_program_adapt_step(p, "inner", step, &s->adapt, n, binds);
  OK(adapted);
  for (int k = first; k < last; k++) {
    outer[m] = binds[k];
    for (int i = 0; i < step->n_trained; i++) {
      if (strcmp(step->carry[i].input, binds[k].port)) continue;
      char port[80];
      snprintf(port, sizeof port, "last.next.%s", binds[k].port);
      outer[m].value = mica_program_port(p, adapted, port);
    }
    m++;
  }
  mica_value result = mica_program_call(p, "outer", loss, m, outer);
  OK(mica_program_output(p, "query", result));
  if (s->adapt.method == MICA_ADAPT_UNROLLED)
    OK(mica_program_output(p, "inner", op1(p, "squared", "square", NULL, "x", mica_program_port(p, adapted, "loss"))));
  OK(mica_program_seal(p));
  mica_step_destroy(step);
  mica_program_destroy(loss);
  return p;
}

static const int32_t ragged[] = { 0, 1, 4, 6 };

static bench bench_of(mica_program *p, int fused, int per_task, int is_ragged) {
  bench b = { .program = p, .dtype = MICA_F64, .backend = MICA_REF, .fused = fused, .tasks = TASKS,
              .per_task = per_task };
  b.rows[0] = b.rows[1] = TASKS * ROWS;
  b.longest[0] = b.longest[1] = ROWS;
  if (is_ragged) b.offsets[0] = ragged, b.rows[0] = 6;
  return b;
}

static setup plain(const char *update, int64_t steps) {
  setup s = { .update = update, .adapt = MICA_ADAPT_OPTIONS_INIT };
  s.adapt.steps = steps;
  return s;
}

static void check_setup(mica_context *context, const setup *s, uint64_t seed, double tolerance) {
  mica_program *p = few_shot(context, s);
  for (int kind = 0; kind < 4; kind++) {
    bench b = bench_of(p, kind % 2, kind / 2, kind == 1 || kind == 2);
    check_first(context, &b, seed, 0, tolerance);
    bench_free(&b);
  }
  mica_program_destroy(p);
}

static void test_unrolled(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  static const char *const updates[] = { "sgd", "momentum", "adam" };
  for (int u = 0; u < 3; u++)
    for (int64_t steps = 1; steps <= 5; steps += 2)
      for (int32_t rates = 0; rates < 3; rates++) {
        setup s = plain(updates[u], steps);
        s.rates = rates;
        s.stepped = rates != 1;
        s.proximal = u == 1;
        s.adapt.checkpoints = steps == 5 && rates == 0;
        s.adapt.keep = rates == 2 ? 1 << 28 : 0;
        check_setup(context, &s, 5, 1e-6);
      }
  mica_context_destroy(context);
  assert_int_equal(atomic_load(&live_bytes), 0);
}

static void test_views(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  static const char *const views[] = { "w2", "b*", "w1,w2" };
  for (int i = 0; i < 3; i++) {
    setup s = plain("sgd", 3);
    s.trained = views[i];
    check_setup(context, &s, 7, 1e-6);
  }
  mica_context_destroy(context);
}

static void test_transformer(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  setup s = plain("sgd", 3);
  s.loss = transformer;
  check_setup(context, &s, 11, 1e-6);
  s.adapt.keep = 1 << 28;
  check_setup(context, &s, 11, 1e-6);
  s.adapt.checkpoints = 1;
  s.trained = "*.gain,out.*";
  check_setup(context, &s, 11, 1e-6);
  mica_context_destroy(context);
}

/* a backward that is opaque to differentiation: on the way back, probabilities and all inputs are constants, so that
 * only the cotangent's own tangent passes. first-order training would never notice */
static const mica_kernel *true_backward;
static mica_status opaque(const mica_exec *exec, const void *args, int64_t first, int64_t count) {
  mica_attention_args a = *(const mica_attention_args *)args;
  mica_port *ports[] = { &a.q, &a.k, &a.v, &a.out };
  for (int i = 0; i < 4; i++) ports[i]->d = ports[i]->td;
  return true_backward->run(exec, &a, first, count);
}

/* |<hypergradient, t> - central difference| / |central difference| of the sum of the outputs */
static double hypergradient_error(mica_context *context, const char *op) {
  attention = op;
  setup s = plain("sgd", 3);
  s.loss = transformer;
  mica_program *p = few_shot(context, &s);
  bench b[3];
  double sum[3], slope = 0, h = 1e-5;
  for (int i = 0; i < 3; i++) {
    b[i] = bench_of(p, 1, 0, 0);
    b[i].passes = i ? MICA_PASS_FORWARD : MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
    bench_fill(&b[i], 11);
    if (i) shift(&b[i], &b[0], i == 1 ? h : -h);
    for (int k = 0; k < b[i].n_outputs; k++)
      for (int64_t j = 0; j < b[i].output_count[k]; j++) b[i].output[k][1][j] = b[0].output[k][1][j];
    bench_run(context, &b[i]);
    sum[i] = seeded_sum(&b[i]);
  }
  for (int64_t i = 0; i < b[0].param_count; i++) slope += b[0].param[1][i] * b[0].param[2][i];
  for (int k = 0; k < b[0].n_inputs; k++)
    for (int64_t i = 0; i < b[0].input_count[k]; i++) slope += b[0].input[k][1][i] * b[0].input[k][2][i];
  double difference = (sum[1] - sum[2]) / (2 * h);
  for (int i = 0; i < 3; i++) bench_free(&b[i]);
  mica_program_destroy(p);
  attention = "attention";
  return fabs(slope - difference) / fabs(difference);
}

/* the check of the hypergradient catches it */
static void test_opaque_backward(void **state) {
  (void)state;
  enum { MOST = 64 };
  mica_context *context = context_with(1);
  const mica_op *real;
  static mica_kernel kernels[MOST];
  OK(mica_find_op(context, "attention", &real));
  assert_true(real->n_kernels <= MOST);
  static mica_op control;
  control = *real;
  control.name = "attention_opaque";
  control.kernels = kernels;
  for (int i = 0; i < real->n_kernels; i++) {
    kernels[i] = real->kernels[i];
    if (kernels[i].backend != MICA_REF || kernels[i].dtype != MICA_F64) continue;
    if (kernels[i].face == MICA_BACKWARD) true_backward = &real->kernels[i];
    if (kernels[i].face == MICA_BACKWARD_JVP) kernels[i].run = opaque;
  }
  OK(mica_register_op(context, &control));
  double exact = hypergradient_error(context, "attention"), wrong = hypergradient_error(context, "attention_opaque");
  if (!(exact < 1e-7)) fail_msg("through attention the hypergradient is off by %g", exact);
  if (!(wrong > 1e-3)) fail_msg("an opaque backward is off by %g only: it would not be noticed", wrong);
  mica_context_destroy(context);
}

static void test_conv_net(void **state) {
  (void)state;
  mica_context *context = context_with(2);
  setup s = plain("sgd", 2);
  s.loss = conv_net;
  check_setup(context, &s, 19, 1e-6);
  s = plain("adam", 3);
  s.loss = conv_net;
  s.rates = MICA_RATE_TENSOR;
  s.adapt.checkpoints = 1;
  s.trained = "norm.*,head.*";
  check_setup(context, &s, 23, 1e-6);
  mica_context_destroy(context);
}

/* the rates' hypergradient in forward mode is that of the sweep back */
static void test_forward_mode(void **state) {
  (void)state;
  mica_context *context = context_with(1);
  for (int stepped = 0; stepped < 2; stepped++)
    for (int per_task = 0; per_task < 2; per_task++) {
      setup s = plain("momentum", 4);
      s.stepped = stepped;
      s.rates = MICA_RATE_TENSOR;
      mica_program *p[2];
      bench b[2];
      for (int i = 0; i < 2; i++) {
        s.adapt.method = i ? MICA_ADAPT_FORWARD : MICA_ADAPT_UNROLLED;
        p[i] = few_shot(context, &s);
        b[i] = bench_of(p[i], 1, per_task, 1);
        b[i].passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
        b[i].params_only = 1;
        bench_fill(&b[i], 13);
        /* seeds of the inner losses are not there in forward mode */
        for (int k = 1; k < b[i].n_outputs; k++)
          for (int64_t j = 0; j < b[i].output_count[k]; j++) b[i].output[k][1][j] = 0;
      }
      /* the same parameters and data: outputs are drawn last */
      for (int k = 0; k < TASKS; k++) b[1].output[0][1][k] = b[0].output[0][1][k];
      for (int i = 0; i < 2; i++) bench_run(context, &b[i]);
      mica_value v;
      int compared = 0;
      for (int i = 0; (v = mica_program_get_param(p[0], i)) >= 0; i++) {
        mica_value_info info;
        OK(mica_program_info(p[0], v, &info));
        if (strncmp(info.name, "rate", 4)) continue;
        for (int64_t k = 0; k < info.count; k++, compared++)
          near(b[1].param[1][info.offset + k], b[0].param[1][info.offset + k], 1e-12, info.name, k);
      }
      assert_true(compared >= 3);
      for (int i = 0; i < 2; i++) {
        bench_free(&b[i]);
        mica_program_destroy(p[i]);
      }
    }
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_unrolled), cmocka_unit_test(test_views), cmocka_unit_test(test_transformer),
    cmocka_unit_test(test_opaque_backward),
    cmocka_unit_test(test_conv_net),
    cmocka_unit_test(test_forward_mode),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
