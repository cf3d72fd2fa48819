/* cuda_reduce.cuh: sums and maxima over a warp or a block, in one fixed tree: the same bits every time. */
#ifndef MICA_KERNELS_COMMON_CUDA_REDUCE_CUH
#define MICA_KERNELS_COMMON_CUDA_REDUCE_CUH

#include "common/cuda_launch.h"

struct reduce_add {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
/* a NaN is the largest */
struct reduce_max {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};

/* every lane gets the warp's result; all 32 lanes must call */
template <class T, class Op>
__device__ __forceinline__ T warp_reduce(T x, Op op) {
#pragma unroll
  for (int step = 16; step; step >>= 1) x = op(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
template <class T>
__device__ __forceinline__ T warp_sum(T x) { return warp_reduce(x, reduce_add()); }
template <class T>
__device__ __forceinline__ T warp_max(T x) { return warp_reduce(x, reduce_max()); }

/* every thread gets the block's result; blocks of whole warps along x. `shared`: one T a warp. ends with a barrier: the
 * memory may be used again at once */
template <class T, class Op>
__device__ __forceinline__ T block_reduce(T x, Op op, T *shared) {
  int warps = (int)(blockDim.x >> 5);
  x = warp_reduce(x, op);
  if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = x;
  __syncthreads();
  T all = shared[0];
  for (int i = 1; i < warps; i++) all = op(all, shared[i]);
  __syncthreads();
  return all;
}
template <class T>
__device__ __forceinline__ T block_sum(T x, T *shared) { return block_reduce(x, reduce_add(), shared); }
template <class T>
__device__ __forceinline__ T block_max(T x, T *shared) { return block_reduce(x, reduce_max(), shared); }

#endif
