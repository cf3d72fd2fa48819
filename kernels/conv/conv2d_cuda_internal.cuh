/* conv2d on CUDA, what its files share */
#ifndef MICA_KERNELS_CONV_CUDA_INTERNAL_CUH
#define MICA_KERNELS_CONV_CUDA_INTERNAL_CUH

#include "common/cuda_image.cuh"
#include "conv/conv2d_internal.h"

enum { CONV_THREADS = 128 };

/* ---- images from images ---- */

struct conv_size {
  int32_t h, w, c;
};
struct conv_job {
  int64_t        B;
  int32_t        T, K, pad, stride, up, wide, wide_out, terms;
  conv_size      in, out_size;
  const int32_t *offsets;
  image_plane    x[2], w[2], out;
  plane          bias;
  char          *packed[2];                  /* weights by conv_pack */
  int64_t        packed_task[2];             /* bytes from task to task; 0: all share one */
};
struct conv_pixel {
  int32_t t, p, q;
};
PLANE_DEVICE conv_pixel conv_pixel_of(const conv_job &job, int32_t m) {
  const int32_t line = m / job.out_size.w, t = line / job.out_size.h;
  return { t, line - t * job.out_size.h, m - line * job.out_size.w };
}
/* four channels of a pixel from c on */
PLANE_DEVICE void conv_put(const conv_job &job, char *out, const conv_pixel &at, int32_t c, const float (&v)[4],
                           bool add) {
  const int64_t first = image_at(job.out, at.t, at.p, at.q, c);
  if (job.wide_out) image_put<4>(job.out, out, first, v, add);
  else
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (c + i < job.out_size.c)
        plane_put(job.out.p, out, first + (int64_t)i * job.out.p.col, (double)v[i], add);
}

mica_status conv_images_bf16(const char *name, const conv_job &job, const mica_exec *exec);
mica_status conv_images_tf32(const char *name, const conv_job &job, const mica_exec *exec);

/* ---- all ---- */

/* w (B,O,I,K,K): image o has lines ky, pixels kx and channels i */
static inline image_plane conv_weights_of(const mica_wire &w) {
  return image_strided(w, NULL, w.stride[2], w.stride[3], w.stride[1]);
}

/* acc[r][c] += a[r] b[c]: of one term, numbers that lie side by side in shared memory */
template <int R, int C>
PLANE_DEVICE void conv_fma(const float *a, const float *b, float (&acc)[R][C]) {
  float av[R], bv[C];
#pragma unroll
  for (int r = 0; r < R; r += 4) {
    const float4 v = *reinterpret_cast<const float4 *>(a + r);
    av[r] = v.x, av[r + 1] = v.y, av[r + 2] = v.z, av[r + 3] = v.w;
  }
#pragma unroll
  for (int c = 0; c < C; c += 4) {
    const float4 v = *reinterpret_cast<const float4 *>(b + c);
    bv[c] = v.x, bv[c + 1] = v.y, bv[c + 2] = v.z, bv[c + 3] = v.w;
  }
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int c = 0; c < C; c++) acc[r][c] = fmaf(av[r], bv[c], acc[r][c]);
}

/* on the tensor cores: factors all of one type, and channels that fill them */
static inline bool conv_by_tensor(int64_t channels, const image_plane *x, const image_plane *w, int terms) {
  for (int s = 0; s < terms; s++)
    if (x[s].p.dtype != x[0].p.dtype || w[s].p.dtype != x[0].p.dtype) return false;
  return conv_fills(channels);
}

/* w.d and b.d, or w.td and b.td */
mica_status conv_params_cuda(const char *name, int face, const mica_conv2d_args *a, const mica_exec *exec);

#endif
