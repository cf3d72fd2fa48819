/* regressions in closed form on CUDA: what a launch is refused for, and what spoils a task alone */
#include "device_support.h"

#include <math.h>
#include <string.h>

#include "ridge/ridge.h"

/* ridge and logistic take the same arguments */
static const char *const ops[] = { "ridge", "logistic" };
typedef mica_ridge_args solve_args;

enum { TASKS = 4, ROWS = 3, FEATURES = 2, CLASSES = 2, W = TASKS * CLASSES * FEATURES };

static mica_wire dense(void *data, int64_t n, int64_t first, int dtype) {
  return (mica_wire){ .data = data, .task_stride = n, .stride = { first, 1 }, .dtype = dtype };
}

static void sizes(void **state) {
  (void)state;
  need_cuda(1);
  mica_context *context;
  micah_device *d;
  void         *memory;
  enum { BYTES = 200 * 200 * sizeof(float) };
  assert_ok(mica_context_create(NULL, &context));
  assert_ok(micah_context_device(context, MICA_CUDA, 0, &d));
  assert_ok(d->ops->alloc(d, BYTES, "rows", &memory));
  assert_ok(d->ops->fill(d, d->stream, memory, 0, BYTES));
  for (int n = 0; n < MICA_COUNT(ops); n++) {
    const mica_op *op;
    solve_args     a;
    assert_ok(mica_find_op(context, ops[n], &op));
    assert_ok(mica_args_init(op, &a));
    a.B = a.O = 1, a.R = 161, a.I = 170;
    a.x.v = dense(memory, a.R * a.I, a.I, MICA_F32);
    a.y.v = dense(memory, a.R, 1, MICA_F32), a.ridge.v = dense(memory, 1, 0, MICA_F32);
    a.w.v = dense(memory, a.I, a.I, MICA_F32);
    assert_status(mica_op_run(context, ops[n], MICA_CUDA, MICA_F32, MICA_FORWARD, &a), MICA_ERR_UNSUPPORTED);
    assert_non_null(strstr(mica_last_error(), "tasks of 161 rows and 170 features, expected at most 160 of one"));
    a.R = 160;
    assert_ok(mica_op_run(context, ops[n], MICA_CUDA, MICA_F32, MICA_FORWARD, &a));
    a.label.v = dense(memory, a.R, 1, MICA_I32);
    assert_status(mica_op_run(context, ops[n], MICA_CUDA, MICA_F32, MICA_FORWARD, &a), MICA_ERR_INVALID);
  }
  d->ops->free(d, memory, BYTES);
  mica_context_destroy(context);
}

/* no positive ridge, a label beyond the classes, a number that is not finite: NaN, in that task alone */
static void spoiled(void **state) {
  (void)state;
  need_cuda(1);
  static const int bad[TASKS] = { 0, 1, 1, 1 };
  struct {
    float   x[TASKS * ROWS * FEATURES], ridge[TASKS], w[W];
    int32_t label[TASKS * ROWS];
  } host, *there;
  mica_context *context;
  micah_device *d;
  void         *memory;
  assert_ok(mica_context_create(NULL, &context));
  assert_ok(micah_context_device(context, MICA_CUDA, 0, &d));
  assert_ok(d->ops->alloc(d, sizeof host, "tasks", &memory));
  there = memory;
  for (int n = 0; n < MICA_COUNT(ops); n++) {
    const mica_op *op;
    solve_args     a;
    for (int i = 0; i < MICA_COUNT(host.x); i++) host.x[i] = (float)(i % 5) - 2;
    for (int i = 0; i < MICA_COUNT(host.label); i++) host.label[i] = i % 3 - 1;
    for (int b = 0; b < TASKS; b++) host.ridge[b] = 0.5f;
    host.ridge[1] = -0.1f, host.label[2 * ROWS + 1] = CLASSES, host.x[3 * ROWS * FEATURES] = INFINITY;
    assert_ok(d->ops->copy(d, d->stream, memory, &host, sizeof host));
    assert_ok(mica_find_op(context, ops[n], &op));
    assert_ok(mica_args_init(op, &a));
    a.B = TASKS, a.R = ROWS, a.I = FEATURES, a.O = CLASSES;
    a.x.v = dense(there->x, ROWS * FEATURES, FEATURES, MICA_F32), a.ridge.v = dense(there->ridge, 1, 0, MICA_F32);
    a.label.v = dense(there->label, ROWS, 1, MICA_I32), a.w.v = dense(there->w, CLASSES * FEATURES, FEATURES, MICA_F32);
    assert_ok(mica_op_run(context, ops[n], MICA_CUDA, MICA_F32, MICA_FORWARD, &a));
    assert_ok(d->ops->copy(d, d->stream, &host, memory, sizeof host));
    assert_ok(d->ops->stream_sync(d, d->stream));
    for (int i = 0; i < W; i++)
      if ((isnan(host.w[i]) != 0) != bad[i / (CLASSES * FEATURES)])
        fail_msg("%s: weight %d is %g", ops[n], i, (double)host.w[i]);
  }
  d->ops->free(d, memory, sizeof host);
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(sizes), cmocka_unit_test(spoiled) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
