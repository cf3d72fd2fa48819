/* product_loop.cuh: the walk of a block over tasks, slot groups and chunks, the same for every way P of multiplying a tile.
 * P: ELEMENT, TERMS, THREADS, ROWS, COLS; PARTS x SLAB_ROWS rows of results; PAD, which keeps part() free of bank conflicts;
 * AT_ONCE rows a thread ends together; clear(), run() and part() over registers. */
#ifndef MICA_KERNELS_LINEAR_PRODUCT_LOOP_CUH
#define MICA_KERNELS_LINEAR_PRODUCT_LOOP_CUH

#include "linear/product_end.cuh"

/* slab: SLAB_ROWS x (COLS + PAD) floats of shared memory that P does not hold while a tile ends; sums: ROWS floats */
template <class P, bool LINEAR>
static __device__ __forceinline__ void product_loop(const product_job &job, P &tile, float *slab, float *sums) {
  enum { SLAB_LD = P::COLS + P::PAD };
  const int n_cols = (int)((job.N.longest + P::COLS - 1) / P::COLS);
  const int i0 = (int)blockIdx.x / n_cols * P::ROWS, j0 = (int)blockIdx.x % n_cols * P::COLS;
  for (int b = (int)blockIdx.y; b < job.tasks; b += (int)gridDim.y) {
    if (wire_follows(job.out, job.out_offsets, b)) continue;
    if (!LINEAR && wire_place(job.out, job.out_offsets, b) < 0) continue;
    const int end = (int)product_group_end(job, b);
    int       chunks = 1;
    if (job.span && job.partial)
      chunks = (int)product_chunks(job, job.K.offsets ? job.K.offsets[end] - job.K.offsets[b]
                                                      : (int64_t)(end - b) * job.K.longest);
    /* rows of all tasks of the group are one sum; else a turn for each task, whose product is rounded by itself */
    const bool each = LINEAR || !job.span;
    if (each && blockIdx.z) continue;
    int k = b;
    for (int turn = (int)blockIdx.z; each ? k < end : turn < chunks; each ? k++ : turn += (int)gridDim.z) {
      const int M = (int)product_count(job.M, k), N = (int)product_count(job.N, k);
      if (i0 >= M || j0 >= N) continue;
      const bool want_sum = !LINEAR && job.sum.data && j0 == 0;
      if (want_sum)
        for (int row = (int)threadIdx.x; row < P::ROWS; row += P::THREADS) sums[row] = 0;
      tile.clear();
      product_walk<typename P::ELEMENT, P::TERMS> walk(job, k, each ? k + 1 : end, turn);
      tile.run(job, walk, i0, M, j0, N, want_sum ? sums : NULL);
      __syncthreads();
      float *partial = chunks > 1 ? product_partial(job, b, turn) : NULL;
      for (int row = (int)threadIdx.x; want_sum && row < P::ROWS && i0 + row < M; row += P::THREADS) {
        if (partial) partial[(int64_t)M * N + i0 + row] = sums[row];
        else product_save_sum(job, b, i0 + row, sums[row], k > b);
      }
      const int64_t place = job.sum_only ? -1 : wire_place(job.out, job.out_offsets, k);
      const bool    add = (job.out.flags & MICA_ADD) || k > b;
#pragma unroll 1
      for (int i = 0; i < P::PARTS; i++) {
        tile.part(i, slab, SLAB_LD);
        __syncthreads();
        const typename P::part_row row = { i };
        if (partial) product_slab_partial(partial, N, slab, P::SLAB_ROWS, P::COLS, SLAB_LD, i0, j0, M, N, row);
        else if (job.wide_out)
          product_slab<LINEAR, 4, P::AT_ONCE>(job, k, place, add, slab, P::SLAB_ROWS, P::COLS, SLAB_LD, i0, j0, M, N, row);
        else product_slab<LINEAR, 1, P::AT_ONCE>(job, k, place, add, slab, P::SLAB_ROWS, P::COLS, SLAB_LD, i0, j0, M, N, row);
        __syncthreads();
      }
    }
    if (gridDim.y == 1) break; /* one task, or one group of all: none to walk past */
  }
}

/* ---- results of mma.sync: acc[i][j] is the 16 x 8 block (i, j) of a warp's 16 A x 32 B ---- */

/* the result's row in a tile of slab row r, for half i % 2 of block i / 2 of each warp */
template <class S>
struct mma_part_row {
  int i;
  __device__ __forceinline__ int operator()(int r) const { return r / 8 * 16 * S::A + i * 8 + r % 8; }
};
template <class S>
static __device__ __forceinline__ void mma_part(int i, const float (&acc)[S::A][4 * S::B][4], float *slab, int ld) {
  const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, col = warp % S::V * 32 * S::B;
#pragma unroll
  for (int r = 0; r < 2 * S::A; r++)
    if (r == i)
#pragma unroll
      for (int j = 0; j < 4 * S::B; j++)
        *reinterpret_cast<float2 *>(slab + (warp / S::V * 8 + lane / 4) * ld + col + 8 * j + lane % 4 * 2) =
            make_float2(acc[r / 2][j][r % 2 * 2], acc[r / 2][j][r % 2 * 2 + 1]);
}
template <class S>
static __device__ __forceinline__ void mma_clear(float (&acc)[S::A][4 * S::B][4]) {
#pragma unroll
  for (int i = 0; i < S::A; i++)
#pragma unroll
    for (int j = 0; j < 4 * S::B; j++) acc[i][j][0] = acc[i][j][1] = acc[i][j][2] = acc[i][j][3] = 0;
}

#endif
