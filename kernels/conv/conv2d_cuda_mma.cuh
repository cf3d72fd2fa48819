/* conv2d on the tensor cores: what images from images and weights' cotangents share */
#ifndef MICA_KERNELS_CONV_CUDA_MMA_CUH
#define MICA_KERNELS_CONV_CUDA_MMA_CUH

#include "common/cuda_ptx.cuh"
#include "common/cuda_tile.cuh"
#include "conv/conv2d_cuda_internal.cuh"

enum { MMA_TERMS = 32, MMA_BUFFERS = 3 };
typedef tile_shape<4, 1, 2, 2, MMA_TERMS> mma_large;  /* 128 x 64 */
typedef tile_shape<2, 1, 2, 2, MMA_TERMS> mma_broad;  /* 64 x 64 */
typedef tile_shape<2, 1, 4, 1, MMA_TERMS> mma_narrow; /* 128 x 32 */

/* P: products of tiles of shape SHAPE; ELEMENT, as BITS in scratch; rows of K_LD elements where terms lie side by side, of
 * X_LD where rows or columns do; BLOCKS of a multiprocessor; multiply() adds 32 terms */

/* all steps of a tile: WALK copies 32 terms at a time into one of three buffers, two steps ahead of the products. live: is
 * any of the warp's results wanted? */
template <class P, class WALK, class ACC>
static __device__ __forceinline__ void conv_products(WALK &walk, typename P::ELEMENT *memory, bool live, int row, int col,
                                                     ACC &acc) {
  bool more = true;
  int  begun = 0, ahead = 0, at = 0;
  for (int step = 1 - MMA_BUFFERS;; step++) {
    if (step >= 0) {
      ptx_copy_wait<MMA_BUFFERS - 2>();
      __syncthreads();
      if (step >= begun) break;
    }
    if (more && (more = walk.next())) {
      walk.copy(memory + ahead);
      ahead = ahead == (MMA_BUFFERS - 1) * WALK::BUFFER ? 0 : ahead + WALK::BUFFER, begun++;
    }
    ptx_copy_commit();
    if (step < 0) continue;
    if (live) P::multiply(memory + at, memory + at + WALK::A_SIZE, WALK::ALONG_K, row, col, acc);
    at = at == (MMA_BUFFERS - 1) * WALK::BUFFER ? 0 : at + WALK::BUFFER;
  }
}

/* 16 bytes of elements `col` apart, of which `left` are there, zeros behind them */
template <class E>
static __device__ __forceinline__ void conv_gather(E *to, const E *from, int32_t col, int32_t left) {
#pragma unroll
  for (int e = 0; e < (int)(16 / sizeof(E)); e++) to[e] = e < left ? from[(int64_t)e * col] : E(0);
}

#endif
