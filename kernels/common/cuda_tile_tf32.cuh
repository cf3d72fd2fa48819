/* cuda_tile_tf32.cuh: tiles of fp32 matrix products on the tensor cores. a factor is split into two tf32 numbers, high and
 * low, that together hold 23 of its 24 bits; a product is low x high + high x low + high x high. what is left out is below
 * 2^-22 of a term (Ootomo and Yokota 2022; CUTLASS's "3xTF32"). tensor cores truncate as they sum, so 32 terms at a time are
 * summed there and then added to fp32 sums, round to nearest: an element's bits do not depend on the tile or on what lies
 * beside it. operands lie in shared memory as in global memory, k or x side by side; cp.async brings them. */
#ifndef MICA_KERNELS_COMMON_CUDA_TILE_TF32_CUH
#define MICA_KERNELS_COMMON_CUDA_TILE_TF32_CUH

#include "common/cuda_ptx.cuh"
#include "common/cuda_tile.cuh"

enum { TF32_TERMS = 32 };

/* pads keep the fragments of both ways free of bank conflicts */
template <int X>
struct tf32_side {
  enum { K_LD = TF32_TERMS + 4, X_LD = X + 8, SIZE = X * K_LD > TF32_TERMS * X_LD ? X * K_LD : TF32_TERMS * X_LD };
};
static __device__ __forceinline__ bool tf32_along_k(int mode) { return mode == TILE_WIDE_K || mode == TILE_K; }

/* start the copies of X rows or columns x 32 terms; zeros outside */
template <int X, int THREADS>
static __device__ __forceinline__ void tf32_copy(const float *at, int64_t x_stride, int64_t k_stride, int mode, int x0,
                                                 int x_end, int k0, int k_end, float *to) {
  enum {
    K_LD = tf32_side<X>::K_LD, X_LD = tf32_side<X>::X_LD, ROWS = THREADS / (TF32_TERMS / 4), TERMS = THREADS / (X / 4)
  };
  const int  t = (int)threadIdx.x;
  const bool along_k = tf32_along_k(mode);
  if (!at) {                                 /* an absent factor */
    for (int v = t; v < X * TF32_TERMS; v += THREADS) {
      const int x = along_k ? v / TF32_TERMS : v % X, k = along_k ? v % TF32_TERMS : v / X;
      to[along_k ? x * K_LD + k : k * X_LD + x] = 0;
    }
  } else if (mode == TILE_WIDE_K) {
    const int    x = t / (TF32_TERMS / 4), k = t % (TF32_TERMS / 4) * 4, rows = k0 + k < k_end ? x_end - x0 - x : 0;
    const float *from = at + (int64_t)(x0 + x) * x_stride + k0 + k;
    to += x * K_LD + k;
#pragma unroll
    for (int i = 0; i < X / ROWS; i++, from += ROWS * x_stride)
      ptx_copy_async<16>(to + i * ROWS * K_LD, i * ROWS < rows ? from : at, i * ROWS < rows);
  } else if (mode == TILE_WIDE_X) {
    const int    x = t % (X / 4) * 4, k = t / (X / 4), terms = x0 + x < x_end ? k_end - k0 - k : 0;
    const float *from = at + x0 + x + (int64_t)(k0 + k) * k_stride;
    to += k * X_LD + x;
#pragma unroll
    for (int i = 0; i < TF32_TERMS / TERMS; i++, from += TERMS * k_stride)
      ptx_copy_async<16>(to + i * TERMS * X_LD, i * TERMS < terms ? from : at, i * TERMS < terms);
  } else {
    for (int v = t; v < X * TF32_TERMS; v += THREADS) {
      const int  x = along_k ? v / TF32_TERMS : v % X, k = along_k ? v % TF32_TERMS : v / X;
      const bool valid = x0 + x < x_end && k0 + k < k_end;
      ptx_copy_async<4>(to + (along_k ? x * K_LD + k : k * X_LD + x),
                        valid ? at + (int64_t)(x0 + x) * x_stride + (int64_t)(k0 + k) * k_stride : at, valid);
    }
  }
}
template <int X>
static __device__ __forceinline__ float tf32_element(const float *from, bool along_k, int x, int k) {
  return from[along_k ? x * tf32_side<X>::K_LD + k : k * tf32_side<X>::X_LD + x];
}

/* high: the nearest tf32, ties away from zero; low: the rest, of either sign, which the tensor core cuts to tf32.
 * infinities, and what rounds to one, give NaN as inf - inf does */
static __device__ __forceinline__ void tf32_split(uint32_t u, uint32_t &high, uint32_t &low) {
  high = (u + 0x1000u) & ~0x1fffu;
  low = __float_as_uint(__uint_as_float(u) - __uint_as_float(high));
}

/* two 8 x 8 (x by k) blocks from (x, k) on: m[0], m[1] the k halves of the first, m[2], m[3] of the second: operands of
 * mma_tf32 on the right; on the left m[0], m[2], m[1], m[3] */
template <int X>
static __device__ __forceinline__ void tf32_blocks(const float *from, bool along_k, int x, int k, uint32_t (&m)[4]) {
  const int lane = (int)threadIdx.x & 31;
  if (along_k) {                             /* eight rows of 16 bytes, whatever they hold */
    ptx_ldmatrix_x4(m, from + (x + 8 * (lane >> 4 & 1) + (lane & 7)) * tf32_side<X>::K_LD + k + 4 * (lane >> 3 & 1));
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      m[i] = __float_as_uint(from[(k + 4 * (i & 1) + lane % 4) * tf32_side<X>::X_LD + x + 8 * (i >> 1) + lane / 4]);
  }
}

/* 32 terms: acc[i][j] is the 16 x 8 block (i, j) of the warp at (row, col) */
template <class S>
static __device__ __forceinline__ void tf32_multiply(const float *a, const float *b, bool a_along_k, bool b_along_k,
                                                     int row, int col, float (&acc)[S::A][4 * S::B][4]) {
  float sum[S::A][4 * S::B][4];
#pragma unroll
  for (int i = 0; i < S::A; i++)
#pragma unroll
    for (int j = 0; j < 4 * S::B; j++) sum[i][j][0] = sum[i][j][1] = sum[i][j][2] = sum[i][j][3] = 0;
#pragma unroll
  for (int k = 0; k < TF32_TERMS; k += 8) {
    uint32_t high[4 * S::B][2], low[4 * S::B][2];
#pragma unroll
    for (int j = 0; j < 2 * S::B; j++) {
      uint32_t m[4];
      tf32_blocks<S::COLS>(b, b_along_k, col + 16 * j, k, m);
#pragma unroll
      for (int e = 0; e < 4; e++) tf32_split(m[e], high[2 * j + e / 2][e % 2], low[2 * j + e / 2][e % 2]);
    }
#pragma unroll
    for (int i = 0; i < S::A; i++) {
      uint32_t m[4], x_high[4], x_low[4];
      tf32_blocks<S::ROWS>(a, a_along_k, row + 16 * i, k, m);
#pragma unroll
      for (int e = 0; e < 4; e++) tf32_split(m[e % 2 * 2 + e / 2], x_high[e], x_low[e]);
#pragma unroll
      for (int of = 0; of < 3; of++)         /* small products first; neighbours do not wait for each other */
#pragma unroll
        for (int j = 0; j < 4 * S::B; j++)
          ptx_mma_tf32(sum[i][j], of == 0 ? x_low : x_high, of == 1 ? low[j] : high[j]);
    }
  }
#pragma unroll
  for (int i = 0; i < S::A; i++)
#pragma unroll
    for (int j = 0; j < 4 * S::B; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) acc[i][j][e] += sum[i][j][e];
}

#endif
