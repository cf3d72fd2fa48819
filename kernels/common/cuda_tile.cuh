/* cuda_tile.cuh: tiles of matrix products. a block of W x V warps computes (rows x cols) results; a warp 16 A x 32 B of
 * them; operands are staged through registers (any strides, any slot, zeros outside) into shared memory, k-major.
 *
 * fp32 is one fmaf a term, k in order: an element's bits do not depend on the tile or on what lies beside it. */
#ifndef MICA_KERNELS_COMMON_CUDA_TILE_CUH
#define MICA_KERNELS_COMMON_CUDA_TILE_CUH

#include "common/cuda_launch.h"

/* how an operand is read, element (x, k) at[x * x_stride + k * k_stride], x a row of A or a column of B:
 * 16 bytes along k or along x, or element by element with lanes along k or x */
enum { TILE_WIDE_K, TILE_WIDE_X, TILE_K, TILE_X };

template <int A_, int B_, int W_, int V_, int TERMS_>
struct tile_shape {
  enum {
    A = A_, B = B_, W = W_, V = V_, THREADS = 32 * W * V, ROWS = 16 * A * W, COLS = 32 * B * V, TERMS = TERMS_,
    ROWS_LD = ROWS + 4, COLS_LD = COLS + 4   /* the pad keeps transposing stores free of bank conflicts */
  };
};

/* ---- staging of X rows or columns x K terms (8 or 16) in fp32 ---- */

/* where piece i of a thread lies: lanes fill 32-byte sectors, and the stores fall into different banks */
template <int X>
static __device__ __forceinline__ void tile_piece(int mode, int v, int &x, int &k) {
  if (mode == TILE_WIDE_K) x = (v >> 1) % X, k = 4 * ((v & 1) + 2 * (v / (2 * X)));
  else if (mode == TILE_WIDE_X) x = 4 * (v % (X / 4)), k = v / (X / 4);
  else if (mode == TILE_K) x = (v >> 3) % X, k = (v & 7) + 8 * (v / (8 * X));
  else x = v % X, k = v / X;
}

template <int X, int K, int THREADS>
static __device__ __forceinline__ void tile_load(const float *at, int64_t x_stride, int64_t k_stride, int mode, int x0,
                                                 int x_end, int k0, int k_end, float (&r)[X * K / THREADS]) {
  constexpr int N = X * K / THREADS;
  const int     t = (int)threadIdx.x;
  if (mode <= TILE_WIDE_X) {
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
      int x, k;
      if (mode == TILE_WIDE_K) tile_piece<X>(TILE_WIDE_K, t + i * THREADS, x, k);
      else tile_piece<X>(TILE_WIDE_X, t + i * THREADS, x, k);
      float4 f = make_float4(0, 0, 0, 0);
      if (at && x0 + x < x_end && k0 + k < k_end)
        f = *reinterpret_cast<const float4 *>(at + (int64_t)(x0 + x) * x_stride + (int64_t)(k0 + k) * k_stride);
      r[4 * i] = f.x, r[4 * i + 1] = f.y, r[4 * i + 2] = f.z, r[4 * i + 3] = f.w;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; i++) {
    int x, k;
    if (mode == TILE_K) tile_piece<X>(TILE_K, t + i * THREADS, x, k);
    else tile_piece<X>(TILE_X, t + i * THREADS, x, k);
    r[i] = 0;
    if (at && x0 + x < x_end && k0 + k < k_end) r[i] = at[(int64_t)(x0 + x) * x_stride + (int64_t)(k0 + k) * k_stride];
  }
}
/* to[k][x], rows of X + 4 */
template <int X, int K, int THREADS>
static __device__ __forceinline__ void tile_store(int mode, const float (&r)[X * K / THREADS], float *to) {
  constexpr int N = X * K / THREADS, LD = X + 4;
  const int     t = (int)threadIdx.x;
  if (mode == TILE_WIDE_K) {
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
      int x, k;
      tile_piece<X>(TILE_WIDE_K, t + i * THREADS, x, k);
#pragma unroll
      for (int j = 0; j < 4; j++) to[(k + j) * LD + x] = r[4 * i + j];
    }
  } else if (mode == TILE_WIDE_X) {
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
      int x, k;
      tile_piece<X>(TILE_WIDE_X, t + i * THREADS, x, k);
      *reinterpret_cast<float4 *>(to + k * LD + x) = make_float4(r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) {
      int x, k;
      if (mode == TILE_K) tile_piece<X>(TILE_K, t + i * THREADS, x, k);
      else tile_piece<X>(TILE_X, t + i * THREADS, x, k);
      to[k * LD + x] = r[i];
    }
  }
}

/* ---- the terms of a tile ---- */

/* the place of a thread: row r of its A x 4 is tile_row(r) ..., in groups of 4 neighbours */
template <class S>
struct tile_place {
  int row, col;
  __device__ __forceinline__ tile_place() {
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    row = warp / S::V * 16 * S::A + lane / 8 * 4;
    col = warp % S::V * 32 * S::B + lane % 8 * 4;
  }
};

template <class S>
static __device__ __forceinline__ void tile_multiply(const float *a, const float *b, const tile_place<S> &at,
                                                     float (&acc)[4 * S::A][4 * S::B]) {
#pragma unroll
  for (int k = 0; k < S::TERMS; k++) {
    float x[4 * S::A], y[4 * S::B];
#pragma unroll
    for (int i = 0; i < S::A; i++)
      *reinterpret_cast<float4 *>(x + 4 * i) =
          *reinterpret_cast<const float4 *>(a + k * S::ROWS_LD + at.row + 16 * i);
#pragma unroll
    for (int j = 0; j < S::B; j++)
      *reinterpret_cast<float4 *>(y + 4 * j) =
          *reinterpret_cast<const float4 *>(b + k * S::COLS_LD + at.col + 32 * j);
#pragma unroll
    for (int i = 0; i < 4 * S::A; i++)
#pragma unroll
      for (int j = 0; j < 4 * S::B; j++) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
  }
}

#endif
