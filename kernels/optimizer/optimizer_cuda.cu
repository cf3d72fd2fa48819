/* the outer update on CUDA: the lanes and trees of optimizer_cpu.c, so that the bits are the same */
#include <math.h>

#include "common/cuda_launch.h"
#include "kernels/optimizer/optimizer_internal.h"

enum { OPT_THREADS = 256, NORM_LANES = 16, NORM_AHEAD = 16, TREE_THREADS = 1024 };

/* the roundings of adamw_lanes: __fmul_rn is never contracted */
static __device__ __forceinline__ void adamw_one(const micak_adamw_floats &s, float scale, float keep, float g,
                                                 float &m, float &v, float &p) {
  float x = __fmul_rn(scale, g);
  m = fmaf(s.beta1, m, __fmul_rn(s.alpha1, x));
  v = fmaf(s.beta2, v, __fmul_rn(s.alpha2, __fmul_rn(x, x)));
  float step = m / fmaf(sqrtf(v), s.root, s.eps);
  p = fmaf(-s.rate, step, __fmul_rn(keep, p));
}

static __global__ void __launch_bounds__(OPT_THREADS)
    adamw_kernel(const __grid_constant__ micak_adamw_floats s, const double scale, const micak_stretch *stretches,
                 const int64_t count, const double *factor, const float *gradient, float *m, float *v, float *p) {
  const float by = (float)(factor ? scale * *factor : scale);
  for (int64_t k = blockIdx.y; k < count; k += gridDim.y) {
    const int64_t first = stretches[k].first, n = stretches[k].count;
    const float   keep = stretches[k].decay ? s.keep : 1.0f;
    const int64_t step = (int64_t)gridDim.x * OPT_THREADS, at = (int64_t)blockIdx.x * OPT_THREADS + threadIdx.x;
    /* whole quads between the first and the last multiple of 4 of the flat block: its arrays are aligned alike */
    const int64_t head = n < 4 ? n : (4 - first % 4) % 4, quads = (n - head) / 4, tail = head + quads * 4;
    for (int64_t q = at; q < quads; q += step) {
      const int64_t i = first + head + q * 4;
      float4 g = *reinterpret_cast<const float4 *>(gradient + i), a = *reinterpret_cast<float4 *>(m + i);
      float4 b = *reinterpret_cast<float4 *>(v + i), c = *reinterpret_cast<float4 *>(p + i);
      adamw_one(s, by, keep, g.x, a.x, b.x, c.x);
      adamw_one(s, by, keep, g.y, a.y, b.y, c.y);
      adamw_one(s, by, keep, g.z, a.z, b.z, c.z);
      adamw_one(s, by, keep, g.w, a.w, b.w, c.w);
      *reinterpret_cast<float4 *>(m + i) = a;
      *reinterpret_cast<float4 *>(v + i) = b;
      *reinterpret_cast<float4 *>(p + i) = c;
    }
    for (int64_t e = at; e < head + (n - tail); e += step) {
      const int64_t i = first + (e < head ? e : tail + e - head);
      adamw_one(s, by, keep, gradient[i], m[i], v[i], p[i]);
    }
  }
}

static __global__ void __launch_bounds__(OPT_THREADS) tree_add_kernel(float *a, const float *b, const int64_t n,
                                                                      const int wide) {
  const int64_t step = (int64_t)gridDim.x * OPT_THREADS, quads = wide ? n / 4 : 0;
  const int64_t at = (int64_t)blockIdx.x * OPT_THREADS + threadIdx.x;
  for (int64_t q = at; q < quads; q += step) {
    float4 x = reinterpret_cast<float4 *>(a)[q], y = reinterpret_cast<const float4 *>(b)[q];
    reinterpret_cast<float4 *>(a)[q] = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
  }
  for (int64_t i = quads * 4 + at; i < n; i += step) a[i] += b[i];
}

/* 16 lanes a block of 4,096 numbers, each with the sum that lane has on the CPU */
static __global__ void __launch_bounds__(OPT_THREADS) norm2_kernel(const float *x, const int64_t n, double *sums,
                                                                   const int64_t blocks) {
  const int     lane = (int)threadIdx.x % NORM_LANES;
  const int64_t each = OPT_THREADS / NORM_LANES;
  for (int64_t first = (int64_t)blockIdx.x * each; first < blocks; first += (int64_t)gridDim.x * each) {
    const int64_t k = first + threadIdx.x / NORM_LANES;
    const int64_t end = (k + 1) * MICAK_OPTIMIZER_BLOCK < n ? (k + 1) * MICAK_OPTIMIZER_BLOCK : n;
    double        sum = 0;
    int64_t       i = k * MICAK_OPTIMIZER_BLOCK + lane;
    for (; i + (NORM_AHEAD - 1) * NORM_LANES < end; i += NORM_AHEAD * NORM_LANES) {
      float ahead[NORM_AHEAD];
#pragma unroll
      for (int j = 0; j < NORM_AHEAD; j++) ahead[j] = x[i + j * NORM_LANES];
#pragma unroll
      for (int j = 0; j < NORM_AHEAD; j++) sum = fma((double)ahead[j], (double)ahead[j], sum);
    }
    for (; i < end; i += NORM_LANES) sum = fma((double)x[i], (double)x[i], sum);
    for (int width = NORM_LANES / 2; width; width /= 2) sum += __shfl_down_sync(0xffffffffu, sum, width, NORM_LANES);
    if (lane == 0 && k < blocks) sums[k] = sum;
  }
}

static __global__ void __launch_bounds__(TREE_THREADS) norm2_tree_kernel(double *sums, const int64_t count) {
  for (int64_t step = 1; step < count; step *= 2) {
    for (int64_t i = (int64_t)threadIdx.x * 2 * step; i + step < count; i += (int64_t)TREE_THREADS * 2 * step)
      sums[i] += sums[i + step];
    __syncthreads();
  }
}

static __global__ void clip_kernel(const double *norm2, const double scale, const double clip, double *norm) {
  double size = scale * sqrt(*norm2);
  norm[0] = size;
  norm[1] = clip > 0 && size > clip ? clip / size : 1;
}

static __global__ void __launch_bounds__(OPT_THREADS) finite_kernel(const float *x, const int64_t n, int32_t *bad) {
  int found = 0;
  for (int64_t i = (int64_t)blockIdx.x * OPT_THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * OPT_THREADS)
    found |= !(x[i] - x[i] == 0);
  if (__syncthreads_or(found) && threadIdx.x == 0) atomicOr(bad, 1);
}

/* ---- launchers ---- */

/* enough blocks to fill a device; the kernels stride */
static unsigned some_blocks(int64_t n, int64_t each) {
  unsigned blocks = micak_blocks(n, each);
  return blocks > 4096 ? 4096 : blocks;
}
static int aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

extern "C" mica_status micak_adamw_cuda(void *stream, const micak_adamw *s, const micak_stretch *stretches,
                                        int64_t count, int64_t longest, const double *factor, const float *gradient,
                                        float *m, float *v, float *p) {
  if (!aligned(gradient) || !aligned(m) || !aligned(v) || !aligned(p))
    return mica_error(MICA_ERR_INVALID, "adamw on CUDA: gradient, moments and parameters must be aligned to 16 bytes");
  double c1 = 1 - pow(s->beta1, (double)s->step), c2 = 1 - pow(s->beta2, (double)s->step);
  micak_adamw_floats f = { (float)s->beta1, (float)(1 - s->beta1), (float)s->beta2, (float)(1 - s->beta2),
                           (float)s->scale, (float)(1 - s->lr * s->decay), (float)(s->lr / c1),
                           (float)(1 / sqrt(c2)), (float)s->eps };
  dim3 grid(some_blocks(longest, 4 * OPT_THREADS), micak_task_blocks(count));
  return micak_launch("adamw", adamw_kernel, grid, dim3(OPT_THREADS), 0, stream, f, s->scale, stretches, count, factor,
                      gradient, m, v, p);
}

extern "C" mica_status micak_tree_add_cuda(void *stream, float *a, const float *b, int64_t n) {
  int wide = aligned(a) && aligned(b);
  return micak_launch("tree_add", tree_add_kernel, dim3(some_blocks(n, (wide ? 4 : 1) * OPT_THREADS)),
                      dim3(OPT_THREADS), 0, stream, a, b, n, wide);
}

extern "C" mica_status micak_norm2_blocks_cuda(void *stream, const float *x, int64_t n, double *sums) {
  int64_t blocks = (n + MICAK_OPTIMIZER_BLOCK - 1) / MICAK_OPTIMIZER_BLOCK;
  return micak_launch("norm2_blocks", norm2_kernel, dim3(micak_blocks(blocks, OPT_THREADS / NORM_LANES)),
                      dim3(OPT_THREADS), 0, stream, x, n, sums, blocks);
}

extern "C" mica_status micak_norm2_tree_cuda(void *stream, double *sums, int64_t count) {
  if (count < 2) return MICA_OK;
  return micak_launch("norm2_tree", norm2_tree_kernel, dim3(1), dim3(TREE_THREADS), 0, stream, sums, count);
}

extern "C" mica_status micak_clip_cuda(void *stream, const double *norm2, double scale, double clip, double *norm) {
  return micak_launch("clip", clip_kernel, dim3(1), dim3(1), 0, stream, norm2, scale, clip, norm);
}

extern "C" mica_status micak_finite_cuda(void *stream, const float *x, int64_t n, int32_t *bad) {
  return micak_launch("finite", finite_kernel, dim3(some_blocks(n, OPT_THREADS)), dim3(OPT_THREADS), 0, stream, x, n,
                      bad);
}
