/* products in fp32 by fmaf: true fp32, an element's terms in order whatever the tile */
#include "linear/product_end.cuh"

typedef tile_shape<2, 2, 4, 2, 8> product_large;  /* 128 x 128, 256 threads */
typedef tile_shape<2, 1, 2, 2, 16> product_middle; /* 64 x 64, 128 threads */
typedef tile_shape<1, 1, 1, 2, 16> product_small;  /* 16 x 64, 64 threads */

/* the result's row in a tile of slab row r, for row i of each thread */
template <class S>
struct product_slab_row {
  int i;
  __device__ __forceinline__ int operator()(int r) const {
    return r / 4 * 16 * S::A + i / 4 * 16 + r % 4 * 4 + i % 4;
  }
};

/* blocks of a multiprocessor; 8 small ones with an end of linear spill */
template <class S, bool LINEAR>
static __global__ void __launch_bounds__(S::THREADS, S::THREADS == 128 ? 3 : S::THREADS == 64 && LINEAR ? 6
                                                                                : 512 / S::THREADS)
    product_kernel(const __grid_constant__ product_job job) {
  enum { BUFFER = S::TERMS * (S::ROWS_LD + S::COLS_LD), SLAB_LD = S::COLS + 4, SLAB_ROWS = 4 * S::W };
  static_assert((int)SLAB_ROWS * SLAB_LD <= 2 * (int)BUFFER, "the slab must fit");
  __shared__ __align__(16) float memory[2 * BUFFER];
  __shared__ float               sums[LINEAR ? 1 : S::ROWS];
  const tile_place<S> at;
  const int n_cols = (int)((job.N.longest + S::COLS - 1) / S::COLS);
  const int i0 = (int)blockIdx.x / n_cols * S::ROWS, j0 = (int)blockIdx.x % n_cols * S::COLS;
  for (int b = (int)blockIdx.y; b < job.tasks; b += (int)gridDim.y) {
    if (wire_follows(job.out, job.out_offsets, b)) continue;
    if (!LINEAR && wire_place(job.out, job.out_offsets, b) < 0) continue;
    const int end = (int)product_group_end(job, b);
    int           chunks = 1;
    if (job.span && job.partial)
      chunks = (int)product_chunks(job.K.offsets ? job.K.offsets[end] - job.K.offsets[b]
                                                 : (int64_t)(end - b) * job.K.longest);
    /* rows of all tasks of the group are one sum; else a turn for each task, whose product is rounded by itself */
    const bool each = LINEAR || !job.span;
    if (each && blockIdx.z) continue;
    int k = b;
    for (int turn = (int)blockIdx.z; each ? k < end : turn < chunks; each ? k++ : turn += (int)gridDim.z) {
      const int M = (int)product_count(job.M, k), N = (int)product_count(job.N, k);
      if (i0 >= M || j0 >= N) continue;
      float acc[4 * S::A][4 * S::B], a[S::ROWS * S::TERMS / S::THREADS], x[S::COLS * S::TERMS / S::THREADS];
#pragma unroll
      for (int i = 0; i < 4 * S::A; i++)
#pragma unroll
        for (int j = 0; j < 4 * S::B; j++) acc[i][j] = 0;
      const bool want_sum = !LINEAR && job.sum.data && j0 == 0;
      if (want_sum)
        for (int row = (int)threadIdx.x; row < S::ROWS; row += S::THREADS) sums[row] = 0;
      product_walk<float, S::TERMS> walk(job, k, each ? k + 1 : end, turn);
      /* a step's operands come from memory while the step before is multiplied; the first turn multiplies nothing */
      for (int step = -1, of = 0;; step++) {
        const float *tile = memory + (step & 1) * BUFFER;
        float       *ahead = memory + (~step & 1) * BUFFER;
        const bool   add_sum = want_sum && of == 0, more = walk.next();
        if (more) {
          const product_term &term = job.term[of = walk.s];
          tile_load<S::ROWS, S::TERMS, S::THREADS>(walk.a, term.a.x_stride, term.a.k_stride, term.a.mode, i0, M, walk.k,
                                         walk.k_end, a);
          tile_load<S::COLS, S::TERMS, S::THREADS>(walk.x, term.b.x_stride, term.b.k_stride, term.b.mode, j0, N, walk.k,
                                         walk.k_end, x);
        }
        if (step >= 0) {
          tile_multiply<S>(tile, tile + S::TERMS * S::ROWS_LD, at, acc);
          if (add_sum)
            for (int row = (int)threadIdx.x; row < S::ROWS; row += S::THREADS) {
              float sum = sums[row];
              for (int n = 0; n < S::TERMS; n++) sum += tile[n * S::ROWS_LD + row];
              sums[row] = sum;
            }
        }
        if (!more) break;
        tile_store<S::ROWS, S::TERMS, S::THREADS>(job.term[of].a.mode, a, ahead);
        tile_store<S::COLS, S::TERMS, S::THREADS>(job.term[of].b.mode, x, ahead + S::TERMS * S::ROWS_LD);
        __syncthreads();
      }
      __syncthreads();
      float *partial = chunks > 1 ? product_partial(job, b, turn) : NULL;
      for (int row = (int)threadIdx.x; want_sum && row < S::ROWS && i0 + row < M; row += S::THREADS) {
        if (partial) partial[(int64_t)M * N + i0 + row] = sums[row];
        else product_save_sum(job, b, i0 + row, sums[row], k > b);
      }
      const int64_t place = job.sum_only ? -1 : wire_place(job.out, job.out_offsets, k);
      const bool    add = (job.out.flags & MICA_ADD) || k > b;
      const int     slab_at = (at.row / (16 * S::A) * 4 + at.row % 16 / 4) * SLAB_LD + at.col;
#pragma unroll 1
      for (int i = 0; i < 4 * S::A; i++) {
#pragma unroll
        for (int r = 0; r < 4 * S::A; r++)
          if (r == i)
#pragma unroll
            for (int j = 0; j < S::B; j++)
              *reinterpret_cast<float4 *>(memory + slab_at + 32 * j) =
                  make_float4(acc[r][4 * j], acc[r][4 * j + 1], acc[r][4 * j + 2], acc[r][4 * j + 3]);
        __syncthreads();
        const product_slab_row<S> row = { i };
        if (partial) product_slab_partial(partial, N, memory, SLAB_ROWS, S::COLS, SLAB_LD, i0, j0, M, N, row);
        else if (job.wide_out)
          product_slab<LINEAR, 4>(job, k, place, add, memory, SLAB_ROWS, S::COLS, SLAB_LD, i0, j0, M, N, row);
        else product_slab<LINEAR, 1>(job, k, place, add, memory, SLAB_ROWS, S::COLS, SLAB_LD, i0, j0, M, N, row);
        __syncthreads();
      }
    }
  }
}

/* ---- launchers ---- */

template <class S>
static mica_status product_run_as(const product_job &job, void *stream) {
  return micak_launch(job.name, job.is_linear ? product_kernel<S, true> : product_kernel<S, false>,
                      product_grid(job, S::ROWS, S::COLS), dim3(S::THREADS), 0, stream, job);
}

mica_status product_run_f32(const product_job &job, void *stream) {
  const int64_t M = job.M.longest * job.M.tasks, N = job.N.longest;
  if (M <= 0 || N <= 0 || job.tasks <= 0) return MICA_OK;
  mica_status status = M > 64 && N > 64 ? product_run_as<product_large>(job, stream)
                       : M > 16 ? product_run_as<product_middle>(job, stream)
                                : product_run_as<product_small>(job, stream);
  if (status >= 0 && job.partial) status = product_run_reduce(job, stream);
  return status;
}
