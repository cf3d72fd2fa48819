/* what is refused, and that the message says where, what was expected and what was got */
#include "program_support.h"

static mica_context *context;

static void refused(mica_status got, const char *part) {
  if (got >= 0) fail_msg("was accepted, expected '%s'", part);
  if (!strstr(mica_last_error(), part)) fail_msg("expected a message with '%s', got '%s'", part, mica_last_error());
}

typedef struct fixture {
  mica_program *p;
  int32_t       token, item;
  mica_value    x, row, index, w;
} fixture;

static fixture fresh(void) {
  fixture f;
  int64_t six[] = { 6 }, none[] = { 1 };
  OK(mica_program_create(context, "test", &f.p));
  f.token = mica_program_axis(f.p, "token", MICA_NO_AXIS);
  f.item = mica_program_axis(f.p, "item", MICA_NO_AXIS);
  f.x = mica_program_input(f.p, "x", MICA_F32, f.token, 1, six);
  f.row = mica_program_input(f.p, "row", MICA_F32, MICA_NO_AXIS, 1, six);
  f.index = mica_program_input(f.p, "index", MICA_I32, f.token, 0, none);
  f.w = param(f.p, "w", 4, 5);
  return f;
}

/* each on a fresh program; the failure also comes back from seal */
#define REFUSED(call, part)                                    \
  do {                                                         \
    fixture f = fresh();                                       \
    refused(call, part);                                       \
    refused(mica_program_seal(f.p), part);                     \
    mica_program_destroy(f.p);                                 \
  } while (0)

static void names_and_sizes(void **state) {
  (void)state;
  int64_t bad[] = { 3, 0 }, big[] = { INT64_MAX, 2 }, six[] = { 6 };
  mica_init init = { MICA_INIT_ZERO, 0 }, odd = { 9, 0 };
  REFUSED(mica_program_param(f.p, "w", 1, six, init, 0), "the name 'w' is taken");
  REFUSED(mica_program_param(f.p, "", 1, six, init, 0), "needs a name");
  REFUSED(mica_program_param(f.p, "p", 2, bad, init, 0), "size 1 of its shape is 0");
  REFUSED(mica_program_param(f.p, "p", 2, big, init, 0), "more elements than fit");
  REFUSED(mica_program_param(f.p, "p", 7, six, init, 0), "has rank 7, expected 0 to 4");
  REFUSED(mica_program_param(f.p, "p", 1, six, odd, 0), "init kind 9");
  REFUSED(mica_program_input(f.p, "i", MICA_F64, f.token, 1, six), "has dtype f64; expected f32");
  REFUSED(mica_program_input(f.p, "i", MICA_F32, 7, 1, six), "7 is no axis");
  REFUSED(mica_program_axis(f.p, "token", f.item), "exists already under another parent");
  REFUSED(mica_program_axis(f.p, "deep", 9), "9 is no axis to be its parent");
  REFUSED(mica_program_axis(f.p, NULL, MICA_NO_AXIS), "needs a name");
  REFUSED(mica_program_reshape(f.p, f.x, 2, (int64_t[]) { 4, 2 }),
          "'x' (B, token, 6): the new row has 8 elements, expected 6");
  REFUSED(mica_program_slice(f.p, f.x, 4, 3), "[4, 7) is outside its first row size 6");
  REFUSED(mica_program_slice(f.p, f.index, 0, 1), "its row is a scalar");
  REFUSED(mica_program_output(f.p, "y", f.x), "which no operation of the program makes");
  REFUSED(mica_program_output(f.p, "y", 99), "99 is no value");
  fixture f = fresh();
  refused(mica_program_seal(f.p), "it has no outputs");
  mica_program_destroy(f.p);
}

static void operations(void **state) {
  (void)state;
  REFUSED(op1(f.p, "blocks.0.n", "layernrom", NULL, "x", f.x), "blocks.0.n: ");
  REFUSED(op1(f.p, "n", "layernorm", "epz=1", "x", f.x), "did you mean 'eps'");
  REFUSED(op1(f.p, "n", "layernorm", "eps=-1", "x", f.x), "eps is '-1'");
  REFUSED(op1(f.p, "n", "layernorm", NULL, "xx", f.x), "did you mean 'x'");
  REFUSED(op1(f.p, "n", "layernorm", NULL, "y", f.x), "has no input port 'y'");
  REFUSED(op2(f.p, "n", "layernorm", NULL, "x", f.x, "x", f.x), "port x is bound twice");
  REFUSED(op1(f.p, "n", "linear", NULL, "x", f.x), "linear port w (weights, one row for each output) is not bound");
  REFUSED(op1(f.p, "n", "layernorm", NULL, "x", f.index), "port x expected real numbers (f32), got i32 from 'index'");
  REFUSED(op1(f.p, "n", "layernorm", NULL, "x", 77), "77, which is no value");
  REFUSED(op2(f.p, "fc", "linear", NULL, "x", f.x, "w", f.w),
          "fc: linear port w (B O I) expected (B, 4, 6), got (1, 4, 5) from 'w'; I is 6 already");
  REFUSED(op2(f.p, "sum", "linear", NULL, "x", f.x, "w", f.x), "port y has the rows of axis token as its dim 2");
  fixture f = fresh();
  mica_value y = op1(f.p, "act", "tanh", NULL, "x", f.x);
  refused(mica_program_port(f.p, y, "z"), "made by tanh, which has no output port 'z'");
  mica_program_destroy(f.p);
}

static void axes_and_constants(void **state) {
  (void)state;
  int64_t rows[] = { 3, 6 };
  fixture f = fresh();
  mica_value fixed = mica_program_input(f.p, "fixed", MICA_F32, MICA_NO_AXIS, 2, rows);
  refused(op3(f.p, "fc", "linear", NULL, "x", f.x, "w", param(f.p, "v", 6, 6), "res", fixed),
          "R is the length of axis token and cannot also be the constant 3");
  mica_program_destroy(f.p);
  f = fresh();
  int64_t six[] = { 6 };
  mica_value other = mica_program_input(f.p, "other", MICA_F32, f.item, 1, six);
  refused(op3(f.p, "fc", "linear", NULL, "x", f.x, "w", param(f.p, "v", 6, 6), "res", other),
          "R is the length of axis token, not of item");
  mica_program_destroy(f.p);
}

static mica_program *half(void) {
  mica_program *p;
  int64_t six[] = { 6 };
  OK(mica_program_create(context, "half", &p));
  mica_value x = mica_program_input(p, "x", MICA_F32, MICA_NO_AXIS, 1, six);
  OK(mica_program_output(p, "y", op1(p, "half", "scale", "alpha=0.5", "x", x)));
  OK(mica_program_seal(p));
  return p;
}

static void subprograms(void **state) {
  (void)state;
  mica_program *sub = half(), *open;
  OK(mica_program_create(context, "open", &open));
  mica_bind none[1] = { { "x", 0 } };
  REFUSED(mica_program_call(f.p, "c", open, 0, none), "is not sealed");
  REFUSED(mica_program_call(f.p, "c", sub, 0, none), "c: input 'x' of half is not bound");
  REFUSED(mica_program_call(f.p, "c", sub, 1, ((mica_bind[]){ { "z", f.row } })), "half has no input or parameter 'z'");
  REFUSED(mica_program_call(f.p, "c", sub, 1, ((mica_bind[]){ { "x", f.x } })),
          "'x' of half expected f32 (B, 6), got f32 (B, token, 6) from 'x'");
  REFUSED(mica_program_map(f.p, "m", sub, 9, 1, ((mica_bind[]){ { "x", f.x } })), "9 is no axis");
  REFUSED(mica_program_port(f.p, mica_program_call(f.p, "c", sub, 1, ((mica_bind[]){ { "x", f.row } })), "z"),
          "c has no output 'z'; its first is 'y'");
  fixture f = fresh();
  OK(mica_program_output(f.p, "y", mica_program_call(f.p, "c", sub, 1, ((mica_bind[]){ { "x", f.row } }))));
  OK(mica_program_seal(f.p));
  refused(mica_program_axis(f.p, "late", MICA_NO_AXIS), "is sealed");
  mica_program_destroy(f.p);
  mica_program_destroy(sub);
  mica_program_destroy(open);
}

static void executors(void **state) {
  (void)state;
  fixture f = fresh();
  mica_value h = op2(f.p, "fc", "linear", NULL, "x", f.x, "w", param(f.p, "v", 8, 6));
  mica_value part = mica_program_slice(f.p, h, 0, 3);
  OK(mica_program_output(f.p, "y", h));
  OK(mica_program_output(f.p, "part", part));
  mica_executor *x;
  int64_t rows[] = { 12, 16 }, longest[] = { 5, 4 };
  mica_executor_options good = MICA_EXECUTOR_OPTIONS_INIT, o;
  good.tasks = 4;
  good.rows = rows;
  good.longest = longest;
  good.passes = 3;
  refused(mica_executor_create(context, f.p, &good, &x), "is not sealed");
  OK(mica_program_seal(f.p));
#define BAD(field, value, part)                                                                 \
  do {                                                                                          \
    o = good;                                                                                   \
    o.field = value;                                                                            \
    refused(mica_executor_create(context, f.p, &o, &x), part);                                  \
  } while (0)
  BAD(size, 3, "options say 3 bytes");
  BAD(backend, 9, "backend 9");
#ifndef MICA_HAVE_CUDA
  BAD(backend, MICA_CUDA, "this build has no CUDA backend");
#endif
  BAD(dtype, MICA_I32, "dtype i32");
  BAD(passes, 0, "passes 0");
  BAD(fused, 2, "fused is 2");
  BAD(fused, -1, "fused is -1, expected 0 or 1");
  BAD(tasks, 0, "capacity of 0 tasks");
  BAD(rows, NULL, "rows and longest of its 2 axes");
  mica_value wants[] = { f.index };
  o = good;
  o.wants = wants;
  o.n_wants = 1;
  refused(mica_executor_create(context, f.p, &o, &x), "'index', which holds integers (i32)");
  wants[0] = h;
  refused(mica_executor_create(context, f.p, &o, &x), "which is no parameter or input");
  OK(mica_executor_create(context, f.p, &good, &x));
  float memory[512] = { 0 };
  static const int32_t offsets[] = { 0, 3, 9, 10, 12 }, first[] = { 1, 3, 4, 5, 6 }, back[] = { 0, 3, 2, 5, 6 };
  static const int32_t many[] = { 0, 5, 10, 15, 16 };
  mica_wire wire = { .data = memory, .task_stride = -1 };
  refused(mica_executor_set_tasks(x, 5), "5 tasks, expected 1 to its capacity 4");
  refused(mica_executor_set_axis(x, 0, NULL, 6), "axis token has length 6, expected 0 to its capacity 5");
  refused(mica_executor_set_axis(x, 3, NULL, 1), "3 is no axis");
  refused(mica_executor_set_value(x, f.x, MICA_D, &wire), "derivatives of 'x' were not wanted");
  refused(mica_executor_set_value(x, mica_program_find(f.p, "part"), MICA_V, &wire), "is a part of another value");
  refused(mica_executor_set_params(x, MICA_V, memory, -1, NULL, 0), "task stride -1");
  OK(mica_executor_set_axis(x, 0, offsets, 0));
  refused(mica_executor_run(x, MICA_PASS_FORWARD, NULL), "give task 1 6 rows, expected 0 to the capacity 5");
  OK(mica_executor_set_axis(x, 0, first, 0));
  refused(mica_executor_run(x, MICA_PASS_FORWARD, NULL), "begin with 1, expected 0");
  OK(mica_executor_set_axis(x, 0, back, 0));
  refused(mica_executor_run(x, MICA_PASS_FORWARD, NULL), "-1 rows");
  OK(mica_executor_set_axis(x, 0, many, 0));
  refused(mica_executor_run(x, MICA_PASS_FORWARD, NULL), "axis token has 16 rows, its capacity is 12");
  OK(mica_executor_set_axis(x, 0, NULL, 3));
  refused(mica_executor_run(x, MICA_PASS_FORWARD, NULL), "'x' has no memory; bind it before run");
  OK(mica_executor_set_value(x, f.x, MICA_V, &wire));
  refused(mica_executor_run(x, MICA_PASS_FORWARD, NULL), "'v' has no memory");
  OK(mica_executor_set_params(x, MICA_V, memory, 0, NULL, 0));
  refused(mica_executor_run(x, MICA_PASS_BACKWARD, NULL), "need passes 1 in the same run");
  refused(mica_executor_run(x, MICA_PASS_JVP, NULL), "it was made for 3");
  OK(mica_executor_run(x, MICA_PASS_FORWARD, NULL));
  mica_executor_destroy(x);
  good.fused = 0;
  OK(mica_executor_create(context, f.p, &good, &x));
  refused(mica_executor_run(x, MICA_PASS_FORWARD, NULL), "bytes of saved memory");
  refused(mica_executor_run(x, MICA_PASS_FORWARD, (char *)memory + 4 - ((uintptr_t)memory + 4) % 4 + 1),
          "64-byte aligned");
  mica_executor_destroy(x);
  mica_program_destroy(f.p);
}

/* an allocator that refuses its n-th call */
typedef struct scarce { long calls, refuse, live; } scarce;
static void *scarce_alloc(void *user, size_t bytes, size_t align) {
  scarce *s = user;
  if (++s->calls == s->refuse) return NULL;
  void *at = aligned_alloc(align, (bytes + align - 1) / align * align);
  if (at) s->live += (long)bytes;
  return at;
}
static void scarce_free(void *user, void *at, size_t bytes) {
  ((scarce *)user)->live -= (long)bytes;
  free(at);
}

/* a program with every kind of entry, and its executor: MICA_OK or the first failure */
static mica_status build_all(mica_context *c) {
  mica_program *p = NULL, *sub = NULL;
  mica_executor *x = NULL;
  int64_t six[] = { 6 }, rows[] = { 8 }, longest[] = { 4 };
  mica_status status = mica_program_create(c, "sub", &sub);
  if (status >= 0) {
    mica_value a = mica_program_input(sub, "a", MICA_F32, MICA_NO_AXIS, 1, six);
    mica_value h = mica_program_input(sub, "h", MICA_F32, MICA_NO_AXIS, 1, six);
    mica_value y = op3(sub, "fc", "linear", "act=tanh", "x", h, "w", param(sub, "w", 6, 6), "res", a);
    mica_program_output(sub, "y", y);
    status = mica_program_seal(sub);
  }
  if (status >= 0) status = mica_program_create(c, "all", &p);
  if (status >= 0) {
    int32_t token = mica_program_axis(p, "token", MICA_NO_AXIS);
    mica_value in = mica_program_input(p, "x", MICA_F32, token, 1, six);
    mica_value start = mica_program_input(p, "h", MICA_F32, MICA_NO_AXIS, 1, six);
    mica_value loop = mica_program_scan(p, "loop", sub, token, 2, (mica_bind[]){ { "a", in }, { "h", start } }, 1,
                                        (mica_carry[]){ { "h", "y" } });
    mica_value each = mica_program_map(p, "map", sub, token, 2, (mica_bind[]){ { "a", loop }, { "h", start } });
    mica_program_output(p, "y", op2(p, "end", "mul", NULL, "a", each, "b", each));
    status = mica_program_seal(p);
  }
  if (status >= 0) {
    mica_executor_options o = MICA_EXECUTOR_OPTIONS_INIT;
    o.tasks = 2;
    o.rows = rows;
    o.longest = longest;
    o.passes = 15;
    status = mica_executor_create(c, p, &o, &x);
  }
  mica_executor_destroy(x);
  mica_program_destroy(p);
  mica_program_destroy(sub);
  return status;
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  scarce s = { 0, 0, 0 };
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = 1;
  options.allocator = (mica_allocator){ scarce_alloc, scarce_free, &s };
  mica_context *c;
  OK(mica_context_create(&options, &c));
  long held = s.live;
  s.calls = 0;
  OK(build_all(c));
  assert_int_equal(s.live, held);
  long calls = s.calls;
  assert_true(calls > 100);
  for (long refuse = 1; refuse <= calls; refuse++) {
    s.calls = 0;
    s.refuse = refuse;
    mica_status status = build_all(c);
    if (status != MICA_ERR_MEMORY)
      fail_msg("allocation %ld of %ld refused: got %d, %s", refuse, calls, status, mica_last_error());
    refused(status, "out of memory");
    assert_int_equal(s.live, held);
  }
  s.refuse = 0;
  mica_context_destroy(c);
  assert_int_equal(s.live, 0);
}

static int setup(void **state) {
  (void)state;
  context = context_with(2);
  return 0;
}
static int teardown(void **state) {
  (void)state;
  mica_context_destroy(context);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(names_and_sizes), cmocka_unit_test(operations), cmocka_unit_test(axes_and_constants),
    cmocka_unit_test(subprograms),     cmocka_unit_test(executors),  cmocka_unit_test(every_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
