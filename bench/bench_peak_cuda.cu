/* the fp32 multiply-adds of a GPU: chains of independent fused multiply-adds on every multiprocessor */
#include "common/cuda_launch.h"

enum { PEAK_THREADS = 256, PEAK_CHAINS = 16, PEAK_ROUNDS = 4096 };

static __global__ void __launch_bounds__(PEAK_THREADS) peak_kernel(float *sink, const float a, const float b) {
  float x[PEAK_CHAINS];
#pragma unroll
  for (int i = 0; i < PEAK_CHAINS; i++) x[i] = a + (float)(i + (int)threadIdx.x);
  for (int r = 0; r < PEAK_ROUNDS; r++)
#pragma unroll
    for (int i = 0; i < PEAK_CHAINS; i++) x[i] = fmaf(x[i], a, b);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < PEAK_CHAINS; i++) sum += x[i];
  if (sum == 12345.0f) *sink = sum;          /* never, but the compiler cannot know */
}

/* launches it once; the flop of one launch */
extern "C" mica_status bench_peak_cuda(void *stream, int32_t multiprocessors, float *sink, double *flop);
extern "C" mica_status bench_peak_cuda(void *stream, int32_t multiprocessors, float *sink, double *flop) {
  unsigned blocks = (unsigned)multiprocessors * 16;
  *flop = 2.0 * PEAK_CHAINS * PEAK_ROUNDS * PEAK_THREADS * blocks;
  return micak_launch("bench_peak", peak_kernel, dim3(blocks), dim3(PEAK_THREADS), 0, stream, sink, 0.999f, 1e-3f);
}
