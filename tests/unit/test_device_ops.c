/* the device table, on the CPU and on the CUDA devices of the build: memory, streams, events, graphs, errors, and sums
 * over devices */
#include <math.h>
#include <string.h>

#include "common/names.h"
#include "device/context.h"
#include "device/device.h"
#include "device_support.h"

static mica_context *context;

static int open_context(void **state) {
  (void)state;
  return mica_context_create(NULL, &context) < 0;
}
static int close_context(void **state) {
  (void)state;
  mica_context_destroy(context);
  return 0;
}

static micah_device *device_of(int backend, int32_t index) {
  micah_device *device;
  assert_ok(micah_context_device(context, backend, index, &device));
  return device;
}

/* ---- one device ---- */

static void check_copies(micah_device *d, void *stream) {
  const micah_device_ops *ops = d->ops;
  enum { N = 1000 };
  void *host, *a, *b;
  assert_ok(ops->alloc_host(d, N, "a test", &host));
  assert_ok(ops->alloc(d, N, "a test", &a));
  assert_ok(ops->alloc(d, N, "a test", &b));
  assert_int_equal((uintptr_t)a % 64, 0);
  unsigned char *bytes = host;
  for (int i = 0; i < N; i++) bytes[i] = (unsigned char)(7 * i);
  assert_ok(ops->copy(d, stream, a, host, N));
  assert_ok(ops->fill(d, stream, b, 0xee, N));
  /* rows of 3 of every 10 bytes, then one byte in the middle of each */
  assert_ok(ops->copy_rows(d, stream, (char *)b + 1, 10, a, 20, 3, 50));
  assert_ok(ops->fill_rows(d, stream, (char *)b + 2, 10, 5, 1, 50));
  assert_ok(ops->copy(d, stream, host, b, N));
  assert_ok(ops->stream_sync(d, stream));
  for (int i = 0; i < N; i++) {
    int row = i / 10, at = i % 10;
    int expected = row < 50 && at >= 1 && at <= 3 ? (at == 2 ? 5 : (unsigned char)(7 * (20 * row + at - 1))) : 0xee;
    if (bytes[i] != expected) fail_msg("byte %d is %d, expected %d", i, bytes[i], expected);
  }
  /* nothing to do is no error */
  assert_ok(ops->copy(d, stream, a, b, 0));
  assert_ok(ops->fill(d, stream, a, 0, 0));
  ops->free_host(d, host, N);
  ops->free(d, a, N);
  ops->free(d, b, N);
}

static void check_events(micah_device *d) {
  const micah_device_ops *ops = d->ops;
  void *one, *two, *first, *second, *memory, *host;
  assert_ok(ops->stream_create(d, &one));
  assert_ok(ops->stream_create(d, &two));
  assert_ok(ops->event_create(d, &first));
  assert_ok(ops->event_create(d, &second));
  assert_ok(ops->alloc(d, 4096, "a test", &memory));
  assert_ok(ops->alloc_host(d, 4096, "a test", &host));
  assert_ok(ops->event_record(d, first, one));
  assert_ok(ops->fill(d, one, memory, 3, 4096));
  assert_ok(ops->event_record(d, second, one));
  assert_ok(ops->event_wait(d, two, second));
  assert_ok(ops->copy(d, two, host, memory, 4096));
  assert_ok(ops->stream_sync(d, two));
  assert_int_equal(((char *)host)[4095], 3);
  int done = 0;
  assert_ok(ops->event_sync(d, second));
  assert_ok(ops->event_query(d, second, &done));
  assert_int_equal(done, 1);
  double seconds = -1;
  assert_ok(ops->event_elapsed(d, first, second, &seconds));
  assert_true(seconds >= 0 && seconds < 60);
  ops->free_host(d, host, 4096);
  ops->free(d, memory, 4096);
  ops->event_destroy(d, first);
  ops->event_destroy(d, second);
  ops->stream_destroy(d, one);
  ops->stream_destroy(d, two);
}

static void check_device(int backend) {
  micah_device *d = device_of(backend, 0);
  assert_ptr_equal(d, device_of(backend, 0));
  micah_device_info info;
  assert_ok(d->ops->info(d, &info));
  assert_true(info.units >= 1 && info.name[0]);
  assert_ok(d->ops->enter(d));
  assert_ok(d->ops->check(d));
  check_copies(d, d->stream);
  check_copies(d, NULL);
  check_events(d);
}

static void test_cpu(void **state) {
  (void)state;
  check_device(MICA_CPU);
  micah_device *d = device_of(MICA_CPU, 0);
  void *graph;
  assert_status(d->ops->capture_begin(d, NULL), MICA_ERR_UNSUPPORTED);
  assert_status(d->ops->capture_end(d, NULL, &graph), MICA_ERR_UNSUPPORTED);
}

static void test_cuda(void **state) {
  (void)state;
  need_cuda(1);
  check_device(MICA_CUDA);
}

static void test_graph(void **state) {
  (void)state;
  need_cuda(1);
  micah_device *d = device_of(MICA_CUDA, 0);
  const micah_device_ops *ops = d->ops;
  enum { N = 5000 };
  void *a, *b, *graph;
  float *host;
  assert_ok(ops->alloc(d, N * sizeof(float), "a test", &a));
  assert_ok(ops->alloc(d, N * sizeof(float), "a test", &b));
  assert_ok(ops->alloc_host(d, N * sizeof(float), "a test", (void **)&host));
  for (int i = 0; i < N; i++) host[i] = (float)i;
  assert_ok(ops->fill(d, d->stream, a, 0, N * sizeof(float)));
  assert_ok(ops->copy(d, d->stream, b, host, N * sizeof(float)));
  assert_ok(ops->stream_sync(d, d->stream));
  int capturing = 1;
  assert_ok(ops->capturing(d, d->stream, &capturing));
  assert_int_equal(capturing, 0);
  assert_ok(ops->capture_begin(d, d->stream));
  assert_ok(ops->capturing(d, d->stream, &capturing));
  assert_int_equal(capturing, 1);
  assert_ok(micah_device_add(d, d->stream, a, b, N));
  assert_ok(ops->capture_end(d, d->stream, &graph));
  for (int k = 0; k < 3; k++) assert_ok(ops->graph_launch(d, graph, d->stream));
  assert_ok(ops->copy(d, d->stream, host, a, N * sizeof(float)));
  assert_ok(ops->stream_sync(d, d->stream));
  /* captured, not done: three times, not four */
  for (int i = 0; i < N; i++) assert_true(host[i] == 3 * (float)i);
  ops->graph_destroy(d, graph);
  ops->free(d, a, N * sizeof(float));
  ops->free(d, b, N * sizeof(float));
  ops->free_host(d, host, N * sizeof(float));
}

static void test_missing(void **state) {
  (void)state;
  micah_device *d;
  assert_status(micah_context_device(context, MICA_CPU, -1, &d), MICA_ERR_NOT_FOUND);
  int32_t n = 0;
  if (micah_cuda_ops.count(&n) < 0) {
    assert_status(micah_context_device(context, MICA_CUDA, 0, &d), MICA_ERR_UNSUPPORTED);
    assert_null(d);
#ifndef MICA_HAVE_CUDA
    assert_non_null(strstr(mica_last_error(), "cmake --preset cuda"));
#endif
    return;
  }
  assert_status(micah_context_device(context, MICA_CUDA, n, &d), MICA_ERR_NOT_FOUND);
  assert_non_null(strstr(mica_last_error(), "this machine has"));
}

/* a dead device says why, its neighbours and a new context go on */
static void test_poison(void **state) {
  (void)state;
  int backend = micah_cuda_ops.count(&(int32_t){ 0 }) < 0 ? MICA_CPU : MICA_CUDA;
  micah_device *d = device_of(backend, 0);
  void *memory;
  assert_ok(d->ops->alloc(d, 64, "a test", &memory));
  mica_error(MICA_ERR_DEVICE, "the first reason");
  assert_status(micah_device_poison(d), MICA_ERR_DEVICE);
  mica_error(MICA_ERR_DEVICE, "a later one");
  assert_status(micah_device_poison(d), MICA_ERR_DEVICE);
  assert_status(micah_device_alive(d), MICA_ERR_DEVICE);
  assert_non_null(strstr(mica_last_error(), "the first reason"));
  if (backend == MICA_CUDA) {
    assert_status(d->ops->enter(d), MICA_ERR_DEVICE);
    assert_status(d->ops->fill(d, d->stream, memory, 0, 64), MICA_ERR_DEVICE);
    assert_status(d->ops->stream_sync(d, d->stream), MICA_ERR_DEVICE);
  }
  d->ops->free(d, memory, 64);
  mica_context *other;
  assert_ok(mica_context_create(NULL, &other));
  assert_ok(micah_context_device(other, backend, 0, &d));
  assert_ok(d->ops->alloc(d, 64, "a test", &memory));
  d->ops->free(d, memory, 64);
  mica_context_destroy(other);
}

/* ---- several ---- */

/* the tree written down: pairs, then pairs of pairs, missing right halves left out */
static float tree_sum(const float *part, int32_t n, int32_t width) {
  if (width == 1) return part[0];
  int32_t half = width / 2;
  return n <= half ? tree_sum(part, n, half) : tree_sum(part, half, half) + tree_sum(part + half, n - half, half);
}

static void check_exchange(int backend, int32_t n, int64_t count, int32_t active) {
  micah_device *devices[8];
  void *streams[8];
  float *blocks[8], *host;
  size_t bytes = (size_t)count * sizeof(float);
  for (int32_t i = 0; i < n; i++) {
    devices[i] = device_of(backend, i);
    streams[i] = devices[i]->stream;
  }
  const micah_device_ops *ops = devices[0]->ops;
  micah_exchange *e;
  assert_ok(micah_exchange_create(devices, streams, n, count, &e));
  assert_ok(ops->alloc_host(devices[0], bytes * (size_t)n, "a test", (void **)&host));
  for (int32_t i = 0; i < n; i++) {
    void *memory;
    assert_ok(ops->alloc(devices[i], bytes, "a test", &memory));
    blocks[i] = memory;
  }
  for (int round = 0; round < 2; round++) {
    for (int32_t i = 0; i < n; i++) {
      for (int64_t k = 0; k < count; k++)
        host[i * count + k] = (float)sin(0.7 * (double)(i + 1) * (double)(k + 3 + round)) * (i % 2 ? 1e3f : 1e-3f);
      assert_ok(ops->copy(devices[i], streams[i], blocks[i], host + i * count, bytes));
    }
    assert_ok(micah_exchange_sum(e, blocks, active));
    float *got = test_calloc((size_t)count, sizeof *got), part[8];
    for (int32_t i = 0; i < n; i++) {
      assert_ok(ops->copy(devices[i], streams[i], got, blocks[i], bytes));
      assert_ok(ops->stream_sync(devices[i], streams[i]));
      for (int64_t k = 0; k < count; k++) {
        for (int32_t j = 0; j < active; j++) part[j] = host[j * count + k];
        float expected = tree_sum(part, active, n);
        if (memcmp(&got[k], &expected, sizeof expected) != 0)
          fail_msg("%d devices, %d active, %lld numbers: device %d has %.9g at %lld, expected %.9g", n, active,
                   (long long)count, i, (double)got[k], (long long)k, (double)expected);
      }
    }
    test_free(got);
  }
  for (int32_t i = 0; i < n; i++) ops->free(devices[i], blocks[i], bytes);
  ops->free_host(devices[0], host, bytes * (size_t)n);
  micah_exchange_destroy(e);
}

static void check_exchanges(int backend, int32_t most) {
  static const int64_t counts[] = { 1, 4096, 4097, 5000, 40000 };
  for (int32_t n = 1; n <= most; n *= 2)
    for (int i = 0; i < MICA_COUNT(counts); i++)
      for (int32_t active = 1; active <= n; active++)
        if (backend == MICA_CPU || (active > n / 2 && i != 1)) check_exchange(backend, n, counts[i], active);
}

static void test_exchange_cpu(void **state) {
  (void)state;
  check_exchanges(MICA_CPU, 8);
  micah_device *devices[3] = { device_of(MICA_CPU, 0), device_of(MICA_CPU, 1), device_of(MICA_CPU, 2) };
  void *streams[3] = { NULL };
  micah_exchange *e;
  assert_status(micah_exchange_create(devices, streams, 3, 10, &e), MICA_ERR_INVALID);
  assert_null(e);
}

static void test_exchange_cuda(void **state) {
  (void)state;
  need_cuda(2);
  int32_t n = 0;
  assert_ok(micah_cuda_ops.count(&n));
  check_exchanges(MICA_CUDA, n >= 4 ? 4 : 2);
}

/* ---- faces ---- */

static void test_face(void **state) {
  (void)state;
  need_cuda(1);
  const mica_op *op;
  assert_ok(mica_find_op(context, "tanh", &op));
  const mica_kernel *kernel;
  int32_t phases;
  if (mica_op_kernels(op, MICA_CUDA, MICA_F32, MICA_FORWARD, &kernel, &phases) < 0) {
    print_message("skipped: no CUDA kernels of tanh in the table\n");
    skip();
  }
  micah_device *d = device_of(MICA_CUDA, 0);
  enum { N = 33 };
  float host[N], out[N];
  void *x, *y;
  for (int i = 0; i < N; i++) host[i] = 0.1f * (float)(i - 16);
  assert_ok(d->ops->alloc(d, sizeof host, "a test", &x));
  assert_ok(d->ops->alloc(d, sizeof host, "a test", &y));
  assert_ok(d->ops->copy(d, d->stream, x, host, sizeof host));
  void *args = test_calloc(1, op->args_size);
  assert_ok(mica_args_init(op, args));
  assert_ok(mica_args_set(op, args, "B=1 R=3 C=11"));
  mica_wire_dense(op, micak_operand(op, "x", 1), args, MICA_F32, 0, x, &micak_port(micak_operand(op, "x", 1), args)->v);
  mica_wire_dense(op, micak_operand(op, "y", 1), args, MICA_F32, 0, y, &micak_port(micak_operand(op, "y", 1), args)->v);
  assert_ok(mica_op_run(context, "tanh", MICA_CUDA, MICA_F32, MICA_FORWARD, args));
  assert_ok(d->ops->copy(d, d->stream, out, y, sizeof out));
  assert_ok(d->ops->stream_sync(d, d->stream));
  for (int i = 0; i < N; i++) assert_true(fabsf(out[i] - tanhf(host[i])) < 1e-6f);
  test_free(args);
  d->ops->free(d, x, sizeof host);
  d->ops->free(d, y, sizeof host);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_cpu, open_context, close_context),
    cmocka_unit_test_setup_teardown(test_cuda, open_context, close_context),
    cmocka_unit_test_setup_teardown(test_graph, open_context, close_context),
    cmocka_unit_test_setup_teardown(test_missing, open_context, close_context),
    cmocka_unit_test_setup_teardown(test_exchange_cpu, open_context, close_context),
    cmocka_unit_test_setup_teardown(test_exchange_cuda, open_context, close_context),
    cmocka_unit_test_setup_teardown(test_face, open_context, close_context),
    cmocka_unit_test_setup_teardown(test_poison, open_context, close_context),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
