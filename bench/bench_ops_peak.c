/* what this machine can do: fused multiply-adds and memory traffic, measured */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_ops.h"

double bench_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ten chains of dependent sums hide the latency. a piece takes a fraction of a millisecond, about what a thread of the
 * pool takes to wake: with one piece a thread the first thread takes them all, so there are many. */
enum { ROUNDS = 100000, CHAINS = 10, ROUND_PIECES = 64 };

#define PROBE(name, width, attribute)                                                                   \
  typedef float name##_v __attribute__((vector_size(4 * (width)), aligned(4)));                         \
  attribute static float name(void) {                                                                   \
    name##_v a = { 0 }, b = { 0 };                                                                      \
    for (int i = 0; i < (width); i++) a[i] = 0.999f, b[i] = 1e-3f;                                      \
    name##_v x0 = a, x1 = a + 1, x2 = a + 2, x3 = a + 3, x4 = a + 4, x5 = a + 5, x6 = a + 6;            \
    name##_v x7 = a + 7, x8 = a + 8, x9 = a + 9;                                                        \
    for (int r = 0; r < ROUNDS; r++) {                                                                  \
      x0 = x0 * a + b, x1 = x1 * a + b, x2 = x2 * a + b, x3 = x3 * a + b, x4 = x4 * a + b;              \
      x5 = x5 * a + b, x6 = x6 * a + b, x7 = x7 * a + b, x8 = x8 * a + b, x9 = x9 * a + b;              \
    }                                                                                                   \
    float sum = 0;                                                                                      \
    x0 += x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9;                                                   \
    for (int i = 0; i < (width); i++) sum += x0[i];                                                     \
    return sum;                                                                                         \
  }
PROBE(probe_portable, 4, )
#if defined(__x86_64__)
PROBE(probe_avx2, 8, __attribute__((target("avx2,fma"), optimize("fp-contract=fast"))))
PROBE(probe_avx512, 16, __attribute__((target("avx512f,fma"), optimize("fp-contract=fast"))))
#endif

static void fma_body(void *arg, int64_t i, int32_t worker) {
  (void)i;
  struct { int isa; volatile float *sink; } *job = arg;
#if defined(__x86_64__)
  job->sink[worker * 16] = job->isa == MICA_ISA_AVX512 ? probe_avx512() : job->isa == MICA_ISA_AVX2 ? probe_avx2() : probe_portable();
#else
  job->sink[worker * 16] = probe_portable();
#endif
}

double bench_peak_gflops(mica_context *context, int isa) {
  const mica_threads *threads = mica_context_get_threads(context);
  float *sink = calloc((size_t)threads->workers * 16, sizeof *sink);
  if (!sink) return 0;
  struct { int isa; volatile float *sink; } job = { isa, sink };
  double best = 1e9, width = isa == MICA_ISA_AVX512 ? 16 : isa == MICA_ISA_AVX2 ? 8 : 4;
  int64_t pieces = (int64_t)threads->workers * ROUND_PIECES;
  for (int i = 0; i < 7; i++) {
    double start = bench_seconds();
    threads->parallel_for(threads->user, pieces, fma_body, &job);
    double taken = bench_seconds() - start;
    if (taken < best) best = taken;
  }
  free(sink);
  return 2e-9 * width * CHAINS * ROUNDS * (double)pieces / best;
}

enum { PIECE = 1 << 18, PIECES = 64 };       /* 16 MiB in 256 KiB pieces, each read and written */

static void stream_body(void *arg, int64_t i, int32_t worker) {
  (void)worker;
  char *memory = arg;
  memcpy(memory + i * PIECE, memory + (int64_t)PIECES * PIECE + i * PIECE, PIECE);
}

double bench_peak_gbytes(mica_context *context) {
  const mica_threads *threads = mica_context_get_threads(context);
  char *memory = malloc((size_t)2 * PIECES * PIECE);
  if (!memory) return 0;
  memset(memory, 1, (size_t)2 * PIECES * PIECE);
  double best = 1e9;
  for (int i = 0; i < 7; i++) {
    double start = bench_seconds();
    threads->parallel_for(threads->user, PIECES, stream_body, memory);
    double taken = bench_seconds() - start;
    if (taken < best) best = taken;
  }
  free(memory);
  return 2e-9 * PIECES * PIECE / best;
}
