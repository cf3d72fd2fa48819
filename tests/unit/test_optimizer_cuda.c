/* what the optimizer's CUDA kernels offer beyond updates: the tree over blocks of squares, and whether all is finite */
#include "device_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "optimizer/optimizer.h"

#ifdef MICA_HAVE_CUDA
enum { N = 5 * MICAK_OPTIMIZER_BLOCK + 17, BLOCKS = 6 };

static void norm_and_finite(void **state) {
  (void)state;
  need_cuda(1);
  mica_context *context;
  micah_device *d;
  void *x, *sums, *bad;
  float *host = malloc(N * sizeof *host);
  assert_non_null(host);
  double want = 0, got = 0;
  for (int i = 0; i < N; i++) host[i] = (float)(i % 17 - 8), want += (double)host[i] * (double)host[i];
  assert_ok(mica_context_create(NULL, &context));
  assert_ok(micah_context_device(context, MICA_CUDA, 0, &d));
  assert_ok(d->ops->alloc(d, N * sizeof(float), "x", &x));
  assert_ok(d->ops->alloc(d, BLOCKS * sizeof(double), "sums", &sums));
  assert_ok(d->ops->alloc(d, sizeof(int32_t), "bad", &bad));
  assert_ok(d->ops->copy(d, d->stream, x, host, N * sizeof(float)));
  assert_ok(d->ops->enter(d));
  assert_ok(micak_norm2_blocks_cuda(d->stream, x, N, sums));
  assert_ok(micak_norm2_tree_cuda(d->stream, sums, BLOCKS));
  assert_ok(d->ops->copy(d, d->stream, &got, sums, sizeof got));
  assert_ok(d->ops->stream_sync(d, d->stream));
  assert_true(got == want);                  /* whole numbers: exact in any order */
  const float values[] = { 1, NAN, -INFINITY };
  for (int k = 0; k < MICA_COUNT(values); k++) {
    int32_t found = -1;
    host[N - 1] = values[k];                 /* the ragged end */
    assert_ok(d->ops->copy(d, d->stream, x, host, N * sizeof(float)));
    assert_ok(d->ops->fill(d, d->stream, bad, 0, sizeof found));
    assert_ok(micak_finite_cuda(d->stream, x, N, bad));
    assert_ok(d->ops->copy(d, d->stream, &found, bad, sizeof found));
    assert_ok(d->ops->stream_sync(d, d->stream));
    assert_int_equal(found, k > 0);
  }
  d->ops->free(d, x, N * sizeof(float));
  d->ops->free(d, sums, BLOCKS * sizeof(double));
  d->ops->free(d, bad, sizeof(int32_t));
  mica_context_destroy(context);
  free(host);
}
#else
static void norm_and_finite(void **state) {
  (void)state;
  need_cuda(1);
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(norm_and_finite) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
