/* cuda_tile_bf16.cuh: tiles of matrix products in bf16 by mma.sync with fp32 sums. operands lie in shared memory as
 * they lie in global memory, k or x side by side, and ldmatrix turns them; pads keep both ways free of bank conflicts.
 * an element's terms are summed 16 at a time in order, whatever the tile. */
#ifndef MICA_KERNELS_COMMON_CUDA_TILE_BF16_CUH
#define MICA_KERNELS_COMMON_CUDA_TILE_BF16_CUH

#include "common/cuda_ptx.cuh"
#include "common/cuda_tile.cuh"

template <int X>
struct half_side {
  enum { K_LD = 32 + 8, X_LD = X + 8, SIZE = X * K_LD > 32 * X_LD ? X * K_LD : 32 * X_LD };
};

/* where piece v of 8 elements lies */
template <int X>
static __device__ __forceinline__ void half_piece(bool along_k, int v, int &x, int &k) {
  if (along_k) x = (v & 7) + 8 * ((v >> 4) % (X / 8)), k = 8 * ((v >> 3 & 1) + 2 * (v / (2 * X)));
  else x = 8 * (v % (X / 8)), k = v / (X / 8);
}
static __device__ __forceinline__ bool half_along_k(int mode) { return mode == TILE_WIDE_K || mode == TILE_K; }

template <int X, int THREADS>
static __device__ __forceinline__ void half_load(const uint16_t *at, int64_t x_stride, int64_t k_stride, int mode,
                                                 int x0, int x_end, int k0, int k_end, uint4 (&r)[X * 4 / THREADS]) {
  const bool along_k = half_along_k(mode), wide = mode <= TILE_WIDE_X;
#pragma unroll
  for (int i = 0; i < X * 4 / THREADS; i++) {
    int x, k;
    half_piece<X>(along_k, (int)threadIdx.x + i * THREADS, x, k);
    r[i] = make_uint4(0, 0, 0, 0);
    if (!at || x0 + x >= x_end || k0 + k >= k_end) continue;
    const uint16_t *from = at + (int64_t)(x0 + x) * x_stride + (int64_t)(k0 + k) * k_stride;
    if (wide) {
      r[i] = *reinterpret_cast<const uint4 *>(from);
      continue;
    }
    const int64_t step = along_k ? k_stride : x_stride;
    const int     n = along_k ? k_end - k0 - k : x_end - x0 - x;
    uint32_t      half[4] = { 0, 0, 0, 0 };
#pragma unroll
    for (int j = 0; j < 8; j++)
      if (j < n) half[j / 2] |= (uint32_t)from[j * step] << 16 * (j & 1);
    r[i] = make_uint4(half[0], half[1], half[2], half[3]);
  }
}
template <int X, int THREADS>
static __device__ __forceinline__ void half_store(int mode, const uint4 (&r)[X * 4 / THREADS], uint16_t *to) {
  const bool along_k = half_along_k(mode);
#pragma unroll
  for (int i = 0; i < X * 4 / THREADS; i++) {
    int x, k;
    half_piece<X>(along_k, (int)threadIdx.x + i * THREADS, x, k);
    *reinterpret_cast<uint4 *>(to + (along_k ? x * half_side<X>::K_LD + k : k * half_side<X>::X_LD + x)) = r[i];
  }
}
/* element (x, k) of a stored side */
template <int X>
static __device__ __forceinline__ float half_element(const uint16_t *from, bool along_k, int x, int k) {
  return __uint_as_float((uint32_t)from[along_k ? x * half_side<X>::K_LD + k : k * half_side<X>::X_LD + x] << 16);
}

/* two 8 x 16 (x by k) blocks from (x, k) on: m[0], m[1] the k halves of the first, m[2], m[3] of the second: operands
 * of mma_bf16 on the right; on the left m[0], m[2], m[1], m[3] */
template <int X>
static __device__ __forceinline__ void half_blocks(const uint16_t *from, bool along_k, int x, int k, uint32_t (&m)[4]) {
  const int lane = (int)threadIdx.x & 31, block = lane >> 4 & 1, high = lane >> 3 & 1, row = lane & 7;
  if (along_k) ptx_ldmatrix_x4(m, from + (x + 8 * block + row) * half_side<X>::K_LD + k + 8 * high);
  else ptx_ldmatrix_x4_trans(m, from + (k + 8 * high + row) * half_side<X>::X_LD + x + 8 * block);
}

/* 32 terms: acc[i][j] is the 16 x 8 block (i, j) of the warp at (row, col) */
template <class S>
static __device__ __forceinline__ void half_multiply(const uint16_t *a, const uint16_t *b, bool a_along_k,
                                                     bool b_along_k, int row, int col,
                                                     float (&acc)[S::A][4 * S::B][4]) {
#pragma unroll
  for (int k = 0; k < 32; k += 16) {
    uint32_t x[S::A][4];
#pragma unroll
    for (int i = 0; i < S::A; i++) {
      uint32_t m[4];
      half_blocks<S::ROWS>(a, a_along_k, row + 16 * i, k, m);
      x[i][0] = m[0], x[i][1] = m[2], x[i][2] = m[1], x[i][3] = m[3];
    }
#pragma unroll
    for (int j = 0; j < 2 * S::B; j++) {
      uint32_t y[4];
      half_blocks<S::COLS>(b, b_along_k, col + 16 * j, k, y);
      const uint32_t low[2] = { y[0], y[1] }, high[2] = { y[2], y[3] };
#pragma unroll
      for (int i = 0; i < S::A; i++) {
        ptx_mma_bf16(acc[i][2 * j], x[i], low);
        ptx_mma_bf16(acc[i][2 * j + 1], x[i], high);
      }
    }
  }
}

#endif
