/* conv2d on CUDA, what its two files share */
#ifndef MICA_KERNELS_CONV_CUDA_INTERNAL_CUH
#define MICA_KERNELS_CONV_CUDA_INTERNAL_CUH

#include "common/cuda_image.cuh"
#include "conv/conv2d_internal.h"

enum { CONV_THREADS = 128 };

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

/* w.d and b.d, or w.td and b.td */
mica_status conv_params_cuda(const char *name, int face, const mica_conv2d_args *a, const mica_exec *exec);

#endif
