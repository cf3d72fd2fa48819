/* context, registries and threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "device/context.h"
#include "device/pool.h"
#include "mica/model.h"

/* ---- an allocator that counts and can fail ---- */
typedef struct counter {
  atomic_long live, calls, fail_at;        /* fail_at: the n-th call fails; 0: never */
} counter;

static void *count_alloc(void *user, size_t bytes, size_t align) {
  counter *c = user;
  long call = atomic_fetch_add(&c->calls, 1) + 1;
  if (call == atomic_load(&c->fail_at)) return NULL;
  void *ptr = NULL;
  if (posix_memalign(&ptr, align, bytes)) return NULL;
  atomic_fetch_add(&c->live, (long)bytes);
  return ptr;
}
static void count_free(void *user, void *ptr, size_t bytes) {
  counter *c = user;
  atomic_fetch_sub(&c->live, (long)bytes);
  free(ptr);
}

static mica_context *make(int threads) {
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = threads;
  mica_context *context = NULL;
  assert_int_equal(micah_context_new(&options, &context), MICA_OK);
  return context;
}

/* ---- parallel_for ---- */
typedef struct visit {
  atomic_int         *seen;
  atomic_int          inside[64];
  const mica_threads *threads;
  int32_t             workers;
  atomic_int          wrong;
} visit;

static void visit_body(void *arg, int64_t i, int32_t worker) {
  visit *v = arg;
  if (worker < 0 || worker >= v->workers || atomic_exchange(&v->inside[worker], 1)) atomic_store(&v->wrong, 1);
  atomic_fetch_add(&v->seen[i], 1);
  atomic_store(&v->inside[worker], 0);
}

static void visits_all(const mica_threads *threads, int64_t n) {
  visit *v = calloc(1, sizeof *v);
  assert_non_null(v);
  v->seen = calloc((size_t)n + 1, sizeof *v->seen);
  assert_non_null(v->seen);
  v->workers = threads->workers;
  threads->parallel_for(threads->user, n, visit_body, v);
  for (int64_t i = 0; i < n; i++) assert_int_equal(atomic_load(&v->seen[i]), 1);
  assert_int_equal(atomic_load(&v->seen[n]), 0);
  assert_int_equal(atomic_load(&v->wrong), 0);
  free(v->seen);
  free(v);
}

static void test_each_index_once(void **state) {
  (void)state;
  for (int workers = 1; workers <= 5; workers += 2) {
    mica_context *context = make(workers);
    const mica_threads *threads = mica_context_get_threads(context);
    assert_int_equal(threads->workers, workers);
    for (int64_t n = 0; n < 40; n++) visits_all(threads, n);
    for (int i = 0; i < 2000; i++) visits_all(threads, 7);
    visits_all(threads, 100000);
    mica_context_destroy(context);
  }
}

typedef struct nest {
  const mica_threads *threads;
  atomic_long         sum;
} nest;
static void inner_body(void *arg, int64_t i, int32_t worker) {
  nest *n = arg;
  if (worker == 0) atomic_fetch_add(&n->sum, i + 1);
}
static void outer_body(void *arg, int64_t i, int32_t worker) {
  (void)i;
  (void)worker;
  nest *n = arg;
  n->threads->parallel_for(n->threads->user, 10, inner_body, n);
}

static void test_nested_runs_inline(void **state) {
  (void)state;
  mica_context *context = make(4);
  nest n = { mica_context_get_threads(context), 0 };
  for (int i = 0; i < 200; i++) n.threads->parallel_for(n.threads->user, 8, outer_body, &n);
  assert_int_equal(atomic_load(&n.sum), 200L * 8 * 55);
  mica_context_destroy(context);
}

static void *caller(void *arg) {
  const mica_threads *threads = arg;
  for (int i = 0; i < 300; i++) visits_all(threads, 50);
  return NULL;
}

static void test_two_callers(void **state) {
  (void)state;
  mica_context *context = make(3);
  pthread_t other[3];
  union { const mica_threads *from; void *to; } threads = { mica_context_get_threads(context) };
  for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&other[i], NULL, caller, threads.to), 0);
  for (int i = 0; i < 300; i++) visits_all(threads.from, 20);
  for (int i = 0; i < 3; i++) pthread_join(other[i], NULL);
  mica_context_destroy(context);
}

static mica_status fails_from_ten(void *arg, int64_t i, int32_t worker) {
  (void)arg;
  (void)worker;
  return i >= 10 ? mica_error(MICA_ERR_NUMERIC, "body %d", (int)i) : MICA_OK;
}

static void test_least_failure_is_reported(void **state) {
  (void)state;
  mica_context *context = make(4);
  for (int i = 0; i < 100; i++) {
    assert_int_equal(micah_try_for(context, 200, fails_from_ten, NULL), MICA_ERR_NUMERIC);
    assert_string_equal(mica_last_error(), "body 10");
  }
  assert_int_equal(micah_try_for(context, 10, fails_from_ten, NULL), MICA_OK);
  mica_context_destroy(context);
}

/* ---- memory ---- */
static void test_every_allocation_may_fail(void **state) {
  (void)state;
  counter c;
  memset(&c, 0, sizeof c);
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = 3;
  options.allocator = (mica_allocator){ count_alloc, count_free, &c };
  mica_context *context;
  assert_int_equal(micah_context_new(&options, &context), MICA_OK);
  long calls = atomic_load(&c.calls);
  assert_true(calls >= 3);
  mica_context_destroy(context);
  assert_int_equal(atomic_load(&c.live), 0);
  for (long at = 1; at <= calls; at++) {
    atomic_store(&c.calls, 0);
    atomic_store(&c.fail_at, at);
    assert_int_equal(micah_context_new(&options, &context), MICA_ERR_MEMORY);
    assert_null(context);
    assert_int_equal(atomic_load(&c.live), 0);
  }
}

/* ---- a tiny operation from outside: y = a x in ranges, with scratch ---- */
typedef struct scale_args {
  size_t    size;
  int64_t   B, C;
  double    a;
  mica_port x, y;
} scale_args;
static const mica_dim scale_dims[] = { { "B", offsetof(scale_args, B) }, { "C", offsetof(scale_args, C) } };
static const mica_param scale_params[] = {
  { "a", MICA_PARAM_REAL, offsetof(scale_args, a), 2, -10, 10, NULL, "factor" },
};
static const mica_operand scale_operands[] = {
  { "x", "B C", offsetof(scale_args, x), MICA_IN, { MICA_V, 0, 0, 0 }, { 0, 0, 0, 0 }, MICA_ANY, NULL, "" },
  { "y", "B C", offsetof(scale_args, y), MICA_OUT, { 0, 0, 0, 0 }, { MICA_V, 0, 0, 0 }, MICA_ANY, NULL, "" },
};
static mica_status scale_forward(const mica_exec *exec, const void *args, int64_t first, int64_t count) {
  const scale_args *s = args;
  float *scratch = exec->scratch;
  if (exec->scratch_bytes < sizeof(float) || (uintptr_t)scratch % 64) return mica_error(MICA_ERR_INTERNAL, "bad scratch");
  for (int64_t b = first; b < first + count; b++)
    for (int64_t c = 0; c < s->C; c++) {
      *scratch = (float)s->a * ((const float *)s->x.v.data)[b * s->C + c];
      if (*scratch > 1e6f) return mica_error(MICA_ERR_NUMERIC, "task %d is too large", (int)b);
      ((float *)s->y.v.data)[b * s->C + c] = *scratch;
    }
  return MICA_OK;
}
static void scale_split(const void *args, mica_split *split) {
  const scale_args *s = args;
  *split = (mica_split){ s->B, 3, sizeof(float), 0 };
}
static const mica_kernel scale_kernels[] = {
  { MICA_CPU, MICA_F32, MICA_FORWARD, scale_forward, scale_split },
  { MICA_CUDA, MICA_F32, MICA_FORWARD, scale_forward, scale_split },
};
static const mica_op scale_op = {
  .size = sizeof(mica_op), .name = "test_scale", .doc = "y = a x", .args_size = sizeof(scale_args), .dims = scale_dims,
  .params = scale_params, .operands = scale_operands, .kernels = scale_kernels, .n_dims = 2, .n_params = 1,
  .n_operands = 2, .n_kernels = 2, .budget = 1,
};

static void test_op_run(void **state) {
  (void)state;
  counter c;
  memset(&c, 0, sizeof c);
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = 3;
  options.allocator = (mica_allocator){ count_alloc, count_free, &c };
  mica_context *context;
  assert_int_equal(micah_context_new(&options, &context), MICA_OK);
  assert_int_equal(mica_register_op(context, &scale_op), MICA_OK);
  long live = atomic_load(&c.live);
  float x[50], y[50];
  for (int i = 0; i < 50; i++) x[i] = (float)i;
  scale_args args;
  assert_int_equal(mica_args_init(&scale_op, &args), MICA_OK);
  assert_int_equal(mica_args_set(&scale_op, &args, "B=25 C=2 a=3"), MICA_OK);
  mica_wire_dense(&scale_op, &scale_operands[0], &args, MICA_F32, 0, x, &args.x.v);
  mica_wire_dense(&scale_op, &scale_operands[1], &args, MICA_F32, 0, y, &args.y.v);
  assert_int_equal(mica_op_run(context, "test_scale", MICA_CPU, MICA_F32, MICA_FORWARD, &args), MICA_OK);
  for (int i = 0; i < 50; i++) assert_true(y[i] == 3 * x[i]);
  x[24] = 1e7f;
  x[40] = 1e7f;
  assert_int_equal(mica_op_run(context, "test_scale", MICA_CPU, MICA_F32, MICA_FORWARD, &args), MICA_ERR_NUMERIC);
  assert_string_equal(mica_last_error(), "task 12 is too large");
  assert_int_equal(mica_op_run(context, "test_scale", MICA_CPU, MICA_F32, MICA_JVP, &args), MICA_ERR_UNSUPPORTED);
  assert_string_equal(mica_last_error(), "test_scale has no jvp face on backend cpu for f32");
  assert_int_equal(mica_op_run(context, "test_scale", MICA_REF, MICA_F32, MICA_FORWARD, &args), MICA_ERR_UNSUPPORTED);
  assert_string_equal(mica_last_error(), "test_scale has no forward face on backend ref for f32; it has cpu/f32 cuda/f32");
#ifndef MICA_HAVE_CUDA
  assert_int_equal(mica_op_run(context, "test_scale", MICA_CUDA, MICA_F32, MICA_FORWARD, &args), MICA_ERR_UNSUPPORTED);
#endif
  assert_int_equal(mica_op_run(context, "test_scael", MICA_CPU, MICA_F32, MICA_FORWARD, &args), MICA_ERR_NOT_FOUND);
  assert_non_null(strstr(mica_last_error(), "did you mean 'test_scale'"));
  assert_int_equal(mica_op_run(context, "test_scale", MICA_CPU, MICA_F32, 9, &args), MICA_ERR_INVALID);
  args.B = -1;
  assert_int_equal(mica_op_run(context, "test_scale", MICA_CPU, MICA_F32, MICA_FORWARD, &args), MICA_ERR_SHAPE);
  assert_int_equal(atomic_load(&c.live), live);
  mica_context_destroy(context);
  assert_int_equal(atomic_load(&c.live), 0);
}

/* ---- registries ---- */
static void test_register(void **state) {
  (void)state;
  mica_context *context = make(1);
  int32_t n = 0;
  while (mica_get_op(context, n)) n++;
  assert_int_equal(mica_register_op(context, &scale_op), MICA_OK);
  assert_ptr_equal(mica_get_op(context, n), &scale_op);
  assert_null(mica_get_op(context, n + 1));
  assert_null(mica_get_op(context, -1));
  assert_int_equal(mica_register_op(context, &scale_op), MICA_ERR_STATE);
  const mica_op *found;
  assert_int_equal(mica_find_op(context, "test_scale", &found), MICA_OK);
  assert_ptr_equal(found, &scale_op);
  mica_op bad = scale_op;
  bad.name = "Bad name";
  assert_int_equal(mica_register_op(context, &bad), MICA_ERR_INVALID);
  bad = scale_op;
  bad.name = "other";
  bad.size = 8;
  assert_int_equal(mica_register_op(context, &bad), MICA_ERR_INVALID);
  mica_operand operand = scale_operands[0];
  bad = scale_op;
  bad.name = "other";
  bad.operands = &operand;
  bad.n_operands = 1;
  operand.shape = "B Q";
  assert_int_equal(mica_register_op(context, &bad), MICA_ERR_INVALID);
  assert_non_null(strstr(mica_last_error(), "unknown size 'Q'"));
  operand.shape = "B C C C C C";
  assert_int_equal(mica_register_op(context, &bad), MICA_ERR_INVALID);
  assert_int_equal(mica_register_op(context, NULL), MICA_ERR_INVALID);
  static const mica_family family = { .size = sizeof(mica_family), .name = "test_family" };
  static const mica_model model = { .size = sizeof(mica_model), .name = "test_model" };
  static const mica_loss loss = { .size = sizeof(mica_loss), .name = "test_loss" };
  assert_int_equal(mica_register_family(context, &family), MICA_OK);
  assert_int_equal(mica_register_model(context, &model), MICA_OK);
  assert_int_equal(mica_register_loss(context, &loss), MICA_OK);
  const mica_family *f;
  const mica_model *m;
  const mica_loss *l;
  assert_int_equal(mica_find_family(context, "test_family", &f), MICA_OK);
  assert_int_equal(mica_find_model(context, "test_modle", &m), MICA_ERR_NOT_FOUND);
  assert_non_null(strstr(mica_last_error(), "did you mean 'test_model'"));
  assert_int_equal(mica_find_loss(context, "test_loss", &l), MICA_OK);
  assert_ptr_equal(l, &loss);
  assert_int_equal(mica_load_plugin(context, "no/such.so"), MICA_ERR_IO);
  assert_int_equal(mica_load_plugin(context, ""), MICA_ERR_INVALID);
  mica_context_destroy(context);
}

static void test_options(void **state) {
  (void)state;
  mica_context *context;
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.size = 4;
  assert_int_equal(micah_context_new(&options, &context), MICA_ERR_INVALID);
  options.size = sizeof options;
  options.threads = -1;
  assert_int_equal(micah_context_new(&options, &context), MICA_ERR_INVALID);
  options.threads = 1;
  options.isa = 99;
  assert_int_equal(micah_context_new(&options, &context), MICA_ERR_INVALID);
  options.isa = MICA_ISA_PORTABLE;
  options.allocator.alloc = count_alloc;
  assert_int_equal(micah_context_new(&options, &context), MICA_ERR_INVALID);
  options.allocator.alloc = NULL;
  options.pool.parallel_for = micah_pool_parallel_for;
  assert_int_equal(micah_context_new(&options, &context), MICA_ERR_INVALID);
  options.pool.parallel_for = NULL;
  assert_int_equal(micah_context_new(&options, &context), MICA_OK);
  assert_int_equal(mica_context_get_isa(context), MICA_ISA_PORTABLE);
  mica_log(context, MICA_LOG_INFO, "nobody listens");
  mica_context_destroy(context);
  mica_context_destroy(NULL);
  assert_int_equal(micah_context_new(NULL, &context), MICA_OK);
  assert_int_equal(mica_context_get_threads(context)->workers, micah_pool_cores());
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_each_index_once),   cmocka_unit_test(test_nested_runs_inline),
    cmocka_unit_test(test_two_callers),       cmocka_unit_test(test_least_failure_is_reported),
    cmocka_unit_test(test_every_allocation_may_fail), cmocka_unit_test(test_op_run),
    cmocka_unit_test(test_register),          cmocka_unit_test(test_options),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
