/* the stages of implicit hypergradients on CUDA: a team of one block a task. element i of a vector belongs to thread i
 * modulo the threads; dots are sums over a thread's elements, then one tree. */
#include "common/cuda_reduce.cuh"
#include "implicit/implicit.h"

#include <float.h>

enum { IMPLICIT_THREADS = 256, IMPLICIT_WARPS = IMPLICIT_THREADS / 32 };

#define FN static __device__ __forceinline__
#define EACH(i, n) for (int64_t i = threadIdx.x; i < (n); i += IMPLICIT_THREADS)

FN double dot(const micak_implicit *s, const void *a, const void *b) {
  __shared__ double part[IMPLICIT_WARPS];
  const float      *x = static_cast<const float *>(a), *y = static_cast<const float *>(b);
  double            sum = 0;
  EACH(i, s->n) sum = fma((double)x[i], (double)y[i], sum);
  return block_sum(sum, part);
}
template <class T>
FN void combine(const micak_implicit *s, void *to, double scale, const void *from, double keep) {
  T       *y = static_cast<T *>(to);
  const T *x = static_cast<const T *>(from);
  const T  by = (T)scale, k = (T)keep;
  if (k == 0) EACH(i, s->n) y[i] = by * x[i];
  else EACH(i, s->n) y[i] = fma(by, x[i], k * y[i]);
}
template <class T, class F>
FN void convert(const micak_implicit *s, const F *from, T *to) {
  EACH(i, s->n) to[i] = (T)from[i];
}
FN double item_dot(const micak_implicit *s, const double *a, const double *b) {
  double sum = 0;
  for (int64_t i = threadIdx.x % 32; i < s->n; i += 32) sum = fma(a[i], b[i], sum);
  return warp_sum(sum);
}

/* the largest of a row and the first place where it is; a NaN is not seen */
struct pivot {
  double  size;
  int64_t at;
};
FN pivot larger(pivot a, pivot b) { return b.size > a.size || (b.size == a.size && b.at < a.at) ? b : a; }
FN pivot find_pivot(const double *row, int64_t first, int64_t n) {
  __shared__ pivot part[IMPLICIT_WARPS];
  pivot            best = { fabs(row[first]), first };
  for (int64_t j = first + threadIdx.x; j < n; j += IMPLICIT_THREADS) best = larger(best, { fabs(row[j]), j });
#pragma unroll
  for (int step = 16; step; step >>= 1)
    best = larger(best, { __shfl_xor_sync(~0u, best.size, step), __shfl_xor_sync(~0u, best.at, step) });
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = best;
  __syncthreads();
  best = part[0];
  for (int i = 1; i < IMPLICIT_WARPS; i++) best = larger(best, part[i]);
  __syncthreads();
  return best;
}

/* as micak_solve_transposed: columns of a are the rows of the system. row k of a keeps column k's factors */
FN int eliminate(double *a, double *b, int64_t n) {
  __shared__ double part[IMPLICIT_WARPS];
  double            scale = 0;
  __syncthreads();
  EACH(i, n *n) scale = fmax(scale, fabs(a[i]));
  scale = block_max(scale, part);
  for (int64_t k = 0; k < n; k++) {
    const pivot best = find_pivot(a + k * n, k, n);
    if (!(best.size > (double)n * DBL_EPSILON * scale)) return 0;
    if (best.at != k) {
      EACH(i, n) {
        const double swap = a[i * n + k];
        a[i * n + k] = a[i * n + best.at];
        a[i * n + best.at] = swap;
      }
      if (threadIdx.x == 0) {
        const double swap = b[k];
        b[k] = b[best.at];
        b[best.at] = swap;
      }
      __syncthreads();
    }
    const double over = 1.0 / a[k * n + k], from = b[k];
    for (int64_t j = k + 1 + threadIdx.x; j < n; j += IMPLICIT_THREADS) {
      const double factor = a[k * n + j] * over;
      a[k * n + j] = factor;
      b[j] -= factor * from;
    }
    __syncthreads();
    for (int64_t i = k + 1 + threadIdx.x / 32; i < n; i += IMPLICIT_WARPS) {
      const double top = a[i * n + k];
      for (int64_t j = k + 1 + threadIdx.x % 32; j < n; j += 32) a[i * n + j] = fma(-a[k * n + j], top, a[i * n + j]);
    }
    __syncthreads();
  }
  for (int64_t k = n - 1; k >= 0; k--) {
    const double x = b[k] / a[k * n + k];
    EACH(j, k) b[j] = fma(-a[k * n + j], x, b[j]);
    __syncthreads();
    if (threadIdx.x == 0) b[k] = x;
  }
  __syncthreads();
  return 1;
}

#define LEAD (threadIdx.x == 0)
#define BARRIER __syncthreads()
#define DOT(s, a, b) dot(s, a, b)
#define COMBINE(s, y, scale, x, keep) combine<float>(s, y, scale, x, keep)
#define COMBINE_WIDE(s, y, scale, x, keep) combine<double>(s, y, scale, x, keep)
#define WIDEN(s, from, to) convert(s, static_cast<const float *>(from), to)
#define NARROW(s, from, to) convert(s, from, static_cast<float *>(to))
#define CLEAR(s, y) \
  EACH(i, (s)->n) static_cast<float *>(y)[i] = 0
#define SET(s, y, i, value) static_cast<float *>(y)[i] = value
#define EACH_ITEM(k, n) for (int64_t k = threadIdx.x / 32; k < (n); k += IMPLICIT_WARPS)
#define ITEM_DOT(s, a, b) item_dot(s, a, b)
#define ITEM_LEAD (threadIdx.x % 32 == 0)
#define SOLVE(a, b, n) eliminate(a, b, n)
#include "implicit/implicit.inc"

static __global__ void __launch_bounds__(IMPLICIT_THREADS, 2)
    implicit_vectors(const __grid_constant__ micak_implicit solve, const int stage) {
  for (int64_t b = blockIdx.x; b < solve.tasks; b += gridDim.x) run_vectors(&solve, stage, b);
}
static __global__ void __launch_bounds__(IMPLICIT_THREADS, 2)
    implicit_system(const __grid_constant__ micak_implicit solve, const int stage) {
  for (int64_t b = blockIdx.x; b < solve.tasks; b += gridDim.x) run_system(&solve, stage, b);
}

extern "C" mica_status micak_implicit_cuda(void *stream, const micak_implicit *solve, int stage) {
  if (solve->dtype != MICA_F32)
    return mica_error(MICA_ERR_UNSUPPORTED, "implicit on backend cuda: vectors are %s, expected f32",
                      mica_dtype_name(solve->dtype));
  return micak_launch("implicit", MICAK_IMPLICIT_SYSTEM(stage) ? implicit_system : implicit_vectors,
                      dim3(micak_blocks(solve->tasks, 1)), dim3(IMPLICIT_THREADS), 0, stream, *solve, stage);
}
