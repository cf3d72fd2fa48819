/* vectors of tasks on CUDA: a task is a block's, element i thread i's modulo the threads */
#include "common/cuda_reduce.cuh"
#include "directions/directions.h"

enum { DIRECTIONS_THREADS = 256 };

static __global__ void __launch_bounds__(DIRECTIONS_THREADS, 4) directions_dot(const __grid_constant__ micak_dots job) {
  __shared__ double part[DIRECTIONS_THREADS / 32];
  for (int64_t b = blockIdx.x; b < job.tasks; b += gridDim.x) {
    const float *u = static_cast<const float *>(job.u) + b * job.n, *x = static_cast<const float *>(job.x) + b * job.n;
    double       sum = 0;
    for (int64_t i = threadIdx.x; i < job.n; i += DIRECTIONS_THREADS) sum = fma((double)u[i], (double)x[i], sum);
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) job.sums[b] += job.scale * sum;
  }
}

static __global__ void __launch_bounds__(DIRECTIONS_THREADS, 4)
    directions_move(const __grid_constant__ micak_moved job) {
  for (int64_t b = blockIdx.x; b < job.tasks; b += gridDim.x) {
    const float  by = (float)(job.weight ? job.by * job.weight[b] : job.by);
    const float *from = static_cast<const float *>(job.from) + b * job.n;
    const float *e = static_cast<const float *>(job.e) + b * job.n;
    float       *to = static_cast<float *>(job.to) + b * job.n;
    for (int64_t i = threadIdx.x; i < job.n; i += DIRECTIONS_THREADS) to[i] = fmaf(by, e[i], from[i]);
  }
}

static mica_status check(int32_t dtype) {
  if (dtype == MICA_F32) return MICA_OK;
  return mica_error(MICA_ERR_UNSUPPORTED, "directions on backend cuda: vectors are %s, expected f32",
                    mica_dtype_name(dtype));
}

extern "C" mica_status micak_directions_dot_cuda(void *stream, const micak_dots *job) {
  const mica_status status = check(job->dtype);
  if (status < 0) return status;
  return micak_launch("directions", directions_dot, dim3(micak_blocks(job->tasks, 1)), dim3(DIRECTIONS_THREADS), 0,
                      stream, *job);
}
extern "C" mica_status micak_directions_move_cuda(void *stream, const micak_moved *job) {
  const mica_status status = check(job->dtype);
  if (status < 0) return status;
  return micak_launch("directions", directions_move, dim3(micak_blocks(job->tasks, 1)), dim3(DIRECTIONS_THREADS), 0,
                      stream, *job);
}
