/* program_support.h: run any program on random data, and compare its four passes with central differences. */
#ifndef MICA_TEST_PROGRAM_SUPPORT_H
#define MICA_TEST_PROGRAM_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/op.h"
#include "device/device.h"
#include "mica/program.h"

#define OK(call)                                                                        \
  do {                                                                                  \
    if ((call) < 0) fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #call, mica_last_error()); \
  } while (0)

enum { MAX_VALUES = 128, MAX_AXES = 4 };

/* the data of one run: each wire of the parameter block, of each input and of each output, in the compute type */
typedef struct bench {
  mica_program  *program;
  int            dtype, backend, fused, passes;
  int64_t        tasks, rows[MAX_AXES], longest[MAX_AXES];
  const int32_t *offsets[MAX_AXES];
  int64_t        index_range;
  double         recompute;
  int            runs;                  /* one after another, bound anew each time; 0: one */
  int            per_task;              /* parameters have their own place for each task */
  int            params_only;           /* no derivatives of inputs */
  const int32_t *param_slot, *slot;     /* of parameters, with per_task, and of inputs by task; NULL: their own */
  uint32_t       add;                   /* MICA_ADD: cotangents of parameters on top of what is there */
  void         (*look)(const mica_executor *x, void *to); /* NULL, or: at the executor when it has run */
  void          *look_to;
  int            n_params, n_inputs, n_outputs;
  int64_t        param_count;
  double        *param[4];              /* v d t td, in double; the block times tasks if per_task */
  double        *input[MAX_VALUES][4], *output[MAX_VALUES][4];
  int32_t       *index[MAX_VALUES];
  int64_t        input_count[MAX_VALUES], output_count[MAX_VALUES];
} bench;

static const int wire_bits[4] = { MICA_V, MICA_D, MICA_T, MICA_TD };

static inline uint64_t next_random(uint64_t *state) {
  *state += 0x9e3779b97f4a7c15u;
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
static inline double uniform(uint64_t *state) {  /* exact in float */
  return ((double)(next_random(state) >> 44) / (1 << 19) - 1) * 0.75;
}
static inline double *randoms(int64_t n, uint64_t *state) {
  double *x = malloc(sizeof *x * (size_t)(n > 0 ? n : 1));
  for (int64_t i = 0; i < n; i++) x[i] = uniform(state);
  return x;
}
static inline double *zeros_of(int64_t n) { return calloc((size_t)(n > 0 ? n : 1), sizeof(double)); }
/* what a pass must overwrite */
static inline double *nans_of(int64_t n) {
  double *x = zeros_of(n);
  for (int64_t i = 0; i < n; i++) x[i] = NAN;
  return x;
}

static inline int64_t rows_of(const bench *b, int32_t axis) { return axis < 0 ? b->tasks : b->rows[axis]; }

static inline void bench_fill(bench *b, uint64_t seed) {
  uint64_t state = seed;
  mica_value v;
  mica_value_info info;
  b->param_count = mica_program_param_count(b->program) * (b->per_task ? b->tasks : 1);
  for (int w = 0; w < 4; w++)
    b->param[w] = w == 1 || w == 3 ? nans_of(b->param_count) : randoms(b->param_count, &state);
  b->n_params = b->n_inputs = b->n_outputs = 0;
  for (int i = 0; (v = mica_program_get_input(b->program, i)) >= 0; i++) {
    OK(mica_program_info(b->program, v, &info));
    int64_t n = b->input_count[i] = rows_of(b, info.axis) * info.count;
    b->n_inputs++;
    if (info.dtype != MICA_F32) {
      b->index[i] = malloc(sizeof(int32_t) * (size_t)(n + 1));
      for (int64_t k = 0; k < n; k++) b->index[i][k] = (int32_t)(next_random(&state) % (uint64_t)b->index_range);
      continue;
    }
    b->index[i] = NULL;
    for (int w = 0; w < 4; w++) b->input[i][w] = w == 1 || w == 3 ? nans_of(n) : randoms(n, &state);
  }
  for (int i = 0; (v = mica_program_get_output(b->program, i)) >= 0; i++) {
    OK(mica_program_info(b->program, v, &info));
    int64_t n = b->output_count[i] = rows_of(b, info.axis) * info.count;
    b->n_outputs++;
    for (int w = 0; w < 4; w++) b->output[i][w] = w == 0 || w == 2 ? zeros_of(n) : randoms(n, &state);
  }
}

static inline void bench_free(bench *b) {
  for (int w = 0; w < 4; w++) free(b->param[w]);
  for (int i = 0; i < b->n_inputs; i++) {
    if (b->index[i]) free(b->index[i]);
    else for (int w = 0; w < 4; w++) free(b->input[i][w]);
  }
  for (int i = 0; i < b->n_outputs; i++)
    for (int w = 0; w < 4; w++) free(b->output[i][w]);
}

/* memory of a device: the CPU's is the C library's */
static inline void *device_memory(micah_device *d, size_t bytes) {
  void *at = NULL;
  if (d->ops->backend == MICA_CPU) at = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  else OK(d->ops->alloc(d, bytes, "a test", &at));
  return at;
}
static inline void device_release(micah_device *d, void *at, size_t bytes) {
  if (d->ops->backend == MICA_CPU) free(at);
  else d->ops->free(d, at, bytes);
}
static inline void device_copy(micah_device *d, void *to, const void *from, size_t bytes) {
  OK(d->ops->copy(d, d->stream, to, from, bytes));
  OK(d->ops->stream_sync(d, d->stream));
}

/* memory in the compute type, on the device and here; from NULL: as it is */
typedef struct typed { void *at, *host; double *from; int64_t n; size_t bytes; int dtype; } typed;
static inline typed to_type(micah_device *d, double *from, int64_t n, int dtype) {
  typed t = { .from = from, .n = n, .bytes = (size_t)(n + 1) * 8, .dtype = dtype };
  t.host = calloc(1, t.bytes);
  t.at = device_memory(d, t.bytes);
  for (int64_t i = 0; i < n; i++) {
    if (dtype == MICA_F64) ((double *)t.host)[i] = from[i];
    else ((float *)t.host)[i] = (float)from[i];
  }
  device_copy(d, t.at, t.host, t.bytes);
  return t;
}
static inline void from_type(micah_device *d, typed *t) {
  device_copy(d, t->host, t->at, t->bytes);
  for (int64_t i = 0; i < t->n && t->from; i++)
    t->from[i] = t->dtype == MICA_F64 ? ((double *)t->host)[i] : (double)((float *)t->host)[i];
  device_release(d, t->at, t->bytes);
  free(t->host);
}
static inline typed of_indices(micah_device *d, const int32_t *from, int64_t n) {
  typed t = { .bytes = (size_t)(n + 1) * sizeof *from };
  t.host = calloc(1, t.bytes);
  memcpy(t.host, from, (size_t)n * sizeof *from);
  t.at = device_memory(d, t.bytes);
  device_copy(d, t.at, t.host, t.bytes);
  return t;
}

static inline void set_sizes(mica_executor *x, const bench *b) {
  OK(mica_executor_set_tasks(x, b->tasks));
  for (int a = 0; a < mica_program_n_axes(b->program); a++)
    OK(mica_executor_set_axis(x, a, b->offsets[a], b->longest[a]));
}

/* run the passes once: inputs are read, outputs' v and t and all d and td are written back */
static inline void bench_run(mica_context *context, bench *b) {
  mica_value wants[2 * MAX_VALUES];
  int n_wants = 0;
  mica_value v;
  for (int i = 0; (v = mica_program_get_param(b->program, i)) >= 0; i++) wants[n_wants++] = v;
  for (int i = 0; i < b->n_inputs; i++)
    if (!b->index[i] && !b->params_only) wants[n_wants++] = mica_program_get_input(b->program, i);
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.backend = b->backend;
  options.dtype = b->dtype;
  options.passes = b->passes;
  options.fused = b->fused;
  options.tasks = b->tasks;
  options.rows = b->rows;
  options.longest = b->longest;
  options.wants = wants;
  options.n_wants = n_wants;
  options.recompute = b->recompute;
  mica_executor *x;
  micah_device *d;
  OK(micah_context_device(context, b->backend, 0, &d));
  OK(mica_executor_create(context, b->program, &options, &x));
  set_sizes(x, b);
  typed t[8 * MAX_VALUES];
  int n = 0;
  int64_t stride = b->per_task ? b->param_count / b->tasks : 0;
  int wires = b->passes & MICA_PASS_JVP ? 4 : b->passes & MICA_PASS_BACKWARD ? 2 : 1;
  for (int w = 0; w < wires; w++) {
    t[n] = to_type(d, b->param[w], b->param_count, b->dtype);
    OK(mica_executor_set_params(x, wire_bits[w], t[n++].at, stride, b->param_slot, w == 1 || w == 3 ? b->add : 0));
  }
  for (int i = 0; i < b->n_inputs; i++) {
    mica_value value = mica_program_get_input(b->program, i);
    const int64_t own = b->slot ? b->input_count[i] / b->tasks : -1;
    if (b->index[i]) {
      t[n] = of_indices(d, b->index[i], b->input_count[i]);
      mica_wire wire = { .data = t[n++].at, .task_stride = own, .slot = b->slot };
      OK(mica_executor_set_value(x, value, MICA_V, &wire));
      continue;
    }
    for (int w = 0; w < (b->params_only ? 1 : wires); w++) {
      t[n] = to_type(d, b->input[i][w], b->input_count[i], b->dtype);
      mica_wire wire = { .data = t[n++].at, .task_stride = own, .slot = b->slot };
      OK(mica_executor_set_value(x, value, wire_bits[w], &wire));
    }
  }
  for (int i = 0; i < b->n_outputs; i++)
    for (int w = 1; w < wires; w += 2) {
      t[n] = to_type(d, b->output[i][w], b->output_count[i], b->dtype);
      mica_wire wire = { .data = t[n++].at, .task_stride = -1 };
      OK(mica_executor_set_value(x, mica_program_get_output(b->program, i), wire_bits[w], &wire));
    }
  mica_memory memory;
  OK(mica_executor_memory(x, &memory));
  void *saved = b->fused ? NULL : device_memory(d, (size_t)memory.saved);
  for (int run = 0; run < (b->runs ? b->runs : 1); run++) {
    set_sizes(x, b);
    if (b->fused) OK(mica_executor_run(x, b->passes, NULL));
    else
      for (int pass = 0; pass < 4; pass++) {
        static const int order[4] = { MICA_PASS_FORWARD, MICA_PASS_BACKWARD, MICA_PASS_JVP, MICA_PASS_BACKWARD_JVP };
        if (b->passes & order[pass]) OK(mica_executor_run(x, order[pass], saved));
      }
  }
  for (int i = 0; i < b->n_outputs; i++)
    for (int w = 0; w < wires; w += 2) {
      mica_wire wire;
      mica_value_info info;
      mica_value value = mica_program_get_output(b->program, i);
      OK(mica_program_info(b->program, value, &info));
      OK(mica_executor_get_value(x, value, wire_bits[w], &wire));
      int64_t rows = rows_of(b, info.axis);
      int64_t stretch = info.axis < 0 ? wire.task_stride : wire.stride[0];
      size_t bytes = !rows || !info.count ? 0 : (size_t)((rows - 1) * stretch + info.count) * mica_dtype_size(b->dtype);
      void *values = malloc(bytes + 1);
      if (wire.data) device_copy(d, values, wire.data, bytes);
      for (int64_t r = 0; r < rows && info.count; r++)
        for (int64_t k = 0; k < info.count; k++) {
          int64_t at = r * stretch + k;
          double value_at = !wire.data             ? 0
                            : b->dtype == MICA_F64 ? ((double *)values)[at]
                                                   : (double)((float *)values)[at];
          b->output[i][w][r * info.count + k] = value_at;
        }
      free(values);
    }
  for (int i = 0; i < n; i++) from_type(d, &t[i]);
  if (b->look) b->look(x, b->look_to);
  if (saved) device_release(d, saved, (size_t)memory.saved);
  mica_executor_destroy(x);
}

static inline void near(double a, double b, double tolerance, const char *what, int64_t i) {
  if (!(fabs(a - b) <= tolerance * (1 + fabs(a) + fabs(b))))
    fail_msg("%s[%lld]: %.17g, expected %.17g", what, (long long)i, a, b);
}

/* shift values along tangents (and seeds along their td) by h */
static inline void shift(bench *to, const bench *from, double h) {
  for (int64_t i = 0; i < from->param_count; i++) to->param[0][i] = from->param[0][i] + h * from->param[2][i];
  for (int k = 0; k < from->n_inputs; k++)
    for (int64_t i = 0; !from->index[k] && i < from->input_count[k]; i++)
      to->input[k][0][i] = from->input[k][0][i] + h * from->input[k][2][i];
  for (int k = 0; k < from->n_outputs; k++)
    for (int64_t i = 0; i < from->output_count[k]; i++)
      to->output[k][1][i] = from->output[k][1][i] + h * from->output[k][3][i];
}

/* jvp and backward_jvp against central differences of forward and backward; backward against jvp; in double */
static inline void check_four(mica_context *context, bench *b, uint64_t seed, double tolerance) {
  bench up = *b, down = *b;
  double h = 1e-5;
  b->passes = 15;
  bench_fill(b, seed);
  up.passes = down.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  bench_fill(&up, seed);
  bench_fill(&down, seed);
  shift(&up, b, h);
  shift(&down, b, -h);
  bench_run(context, b);
  bench_run(context, &up);
  bench_run(context, &down);
  double left = 0, right = 0;
  for (int k = 0; k < b->n_outputs; k++)
    for (int64_t i = 0; i < b->output_count[k]; i++) {
      near(b->output[k][2][i], (up.output[k][0][i] - down.output[k][0][i]) / (2 * h), tolerance, "output.t", i);
      left += b->output[k][1][i] * b->output[k][2][i];
    }
  for (int64_t i = 0; i < b->param_count; i++) {
    near(b->param[3][i], (up.param[1][i] - down.param[1][i]) / (2 * h), tolerance, "param.td", i);
    right += b->param[1][i] * b->param[2][i];
  }
  for (int k = 0; k < b->n_inputs; k++)
    for (int64_t i = 0; !b->index[k] && i < b->input_count[k]; i++) {
      near(b->input[k][3][i], (up.input[k][1][i] - down.input[k][1][i]) / (2 * h), tolerance, "input.td", i);
      right += b->input[k][1][i] * b->input[k][2][i];
    }
  near(right, left, 1e-12, "<d, t>", 0);
  bench_free(&up);
  bench_free(&down);
}

/* the same results, bit for bit or to a tolerance */
static inline void check_same(const bench *a, const bench *b, double tolerance) {
  int wires = a->passes & b->passes & MICA_PASS_JVP ? 4 : 2;
  for (int w = 1; w < wires; w += 2) {
    for (int64_t i = 0; i < a->param_count; i++) near(b->param[w][i], a->param[w][i], tolerance, "param", i);
    for (int k = 0; k < a->n_inputs && !a->params_only; k++)
      for (int64_t i = 0; !a->index[k] && i < a->input_count[k]; i++)
        near(b->input[k][w][i], a->input[k][w][i], tolerance, "input", i);
  }
  for (int w = 0; w < wires; w += 2)
    for (int k = 0; k < a->n_outputs; k++)
      for (int64_t i = 0; i < a->output_count[k]; i++)
        near(b->output[k][w][i], a->output[k][w][i], tolerance, "output", i);
}

/* memory that starts as NaN, and a count of calls */
static atomic_long allocations, live_bytes;
static inline void *poisoned(void *user, size_t bytes, size_t align) {
  (void)user;
  void *at = aligned_alloc(align, (bytes + align - 1) / align * align);
  if (!at) return NULL;
  memset(at, 0xff, bytes);
  atomic_fetch_add(&allocations, 1);
  atomic_fetch_add(&live_bytes, (long)bytes);
  return at;
}
static inline void release(void *user, void *at, size_t bytes) {
  (void)user;
  atomic_fetch_sub(&live_bytes, (long)bytes);
  free(at);
}

static inline mica_context *context_with(int32_t threads) {
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  mica_context *context;
  options.threads = threads;
  options.allocator = (mica_allocator){ poisoned, release, NULL };
  OK(mica_context_create(&options, &context));
  return context;
}

/* op with up to three binds: "x", value, ... */
static inline mica_value op1(mica_program *p, const char *name, const char *op, const char *set, const char *a,
                             mica_value x) {
  mica_bind binds[] = { { a, x } };
  return mica_program_op(p, name, op, set, 1, binds);
}
static inline mica_value op2(mica_program *p, const char *name, const char *op, const char *set, const char *a,
                             mica_value x, const char *b, mica_value y) {
  mica_bind binds[] = { { a, x }, { b, y } };
  return mica_program_op(p, name, op, set, 2, binds);
}
static inline mica_value op3(mica_program *p, const char *name, const char *op, const char *set, const char *a,
                             mica_value x, const char *b, mica_value y, const char *c, mica_value z) {
  mica_bind binds[] = { { a, x }, { b, y }, { c, z } };
  return mica_program_op(p, name, op, set, 3, binds);
}
static inline mica_value param(mica_program *p, const char *name, int64_t a, int64_t b) {
  int64_t shape[2] = { a, b };
  return mica_program_param(p, name, b ? 2 : 1, shape, (mica_init){ MICA_INIT_NORMAL, 0.1 }, 1);
}

#endif
