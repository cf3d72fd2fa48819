/* products of bf16 operands by mma.sync: fp32 sums, results in the type of the output's wire */
#include "common/cuda_tile_bf16.cuh"
#include "linear/product_end.cuh"

typedef tile_shape<2, 2, 4, 2, 32> product_large;  /* 128 x 128, 256 threads */
typedef tile_shape<2, 1, 2, 2, 32> product_middle; /* 64 x 64, 128 threads */
typedef tile_shape<1, 1, 1, 2, 32> product_small;  /* 16 x 64, 64 threads */

/* the result's row in a tile of slab row r, for half i / 2 of block i % 2 of each warp */
template <class S>
struct half_slab_row {
  int i;
  __device__ __forceinline__ int operator()(int r) const { return r / 8 * 16 * S::A + i * 8 + r % 8; }
};

template <class S, bool LINEAR>
static __global__ void __launch_bounds__(S::THREADS, S::THREADS == 256 ? 1 : 512 / S::THREADS)
    product_half(const __grid_constant__ product_job job) {
  enum {
    A_SIZE = half_side<S::ROWS>::SIZE, BUFFER = A_SIZE + half_side<S::COLS>::SIZE, SLAB_LD = S::COLS + 8,
    SLAB_ROWS = 8 * S::W
  };
  static_assert((int)SLAB_ROWS * SLAB_LD * 4 <= 4 * (int)BUFFER, "the slab must fit");
  __shared__ __align__(16) uint16_t memory[2 * BUFFER];
  __shared__ float                  sums[LINEAR ? 1 : S::ROWS];
  float *const slab = reinterpret_cast<float *>(memory);
  const int    lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
  const int    row = warp / S::V * 16 * S::A, col = warp % S::V * 32 * S::B;
  const int n_cols = (int)((job.N.longest + S::COLS - 1) / S::COLS);
  const int i0 = (int)blockIdx.x / n_cols * S::ROWS, j0 = (int)blockIdx.x % n_cols * S::COLS;
  for (int b = (int)blockIdx.y; b < job.tasks; b += (int)gridDim.y) {
    if (wire_follows(job.out, job.out_offsets, b)) continue;
    if (!LINEAR && wire_place(job.out, job.out_offsets, b) < 0) continue;
    const int end = (int)product_group_end(job, b);
    int       chunks = 1;
    if (job.span && job.partial)
      chunks = (int)product_chunks(job.K.offsets ? job.K.offsets[end] - job.K.offsets[b]
                                                 : (int64_t)(end - b) * job.K.longest);
    int k = b;
    for (int turn = (int)blockIdx.z; LINEAR ? k < end : turn < chunks; LINEAR ? k++ : turn += (int)gridDim.z) {
      const int M = (int)product_count(job.M, k), N = (int)product_count(job.N, k);
      if (i0 >= M || j0 >= N) continue;
      float acc[S::A][4 * S::B][4];
      uint4 a[S::ROWS * 4 / S::THREADS], x[S::COLS * 4 / S::THREADS];
#pragma unroll
      for (int i = 0; i < S::A; i++)
#pragma unroll
        for (int j = 0; j < 4 * S::B; j++) acc[i][j][0] = acc[i][j][1] = acc[i][j][2] = acc[i][j][3] = 0;
      const bool want_sum = !LINEAR && job.sum.data && j0 == 0;
      if (want_sum)
        for (int r = (int)threadIdx.x; r < S::ROWS; r += S::THREADS) sums[r] = 0;
      product_walk<uint16_t, S::TERMS> walk(job, k, LINEAR ? k + 1 : end, turn);
      /* a step's operands come from memory while the step before is multiplied; the first turn multiplies nothing */
      for (int step = -1, of = 0;; step++) {
        const uint16_t *tile = memory + (step & 1) * BUFFER;
        uint16_t       *ahead = memory + (~step & 1) * BUFFER;
        const int       before = of;
        const bool      more = walk.next();
        if (more) {
          const product_term &term = job.term[of = walk.s];
          half_load<S::ROWS, S::THREADS>(walk.a, term.a.x_stride, term.a.k_stride, term.a.mode, i0, M, walk.k,
                                         walk.k_end, a);
          half_load<S::COLS, S::THREADS>(walk.x, term.b.x_stride, term.b.k_stride, term.b.mode, j0, N, walk.k,
                                         walk.k_end, x);
        }
        if (step >= 0) {
          const bool a_along_k = half_along_k(job.term[before].a.mode);
          half_multiply<S>(tile, tile + A_SIZE, a_along_k, half_along_k(job.term[before].b.mode), row, col, acc);
          if (want_sum && before == 0)
            for (int r = (int)threadIdx.x; r < S::ROWS; r += S::THREADS) {
              float sum = sums[r];
              for (int n = 0; n < S::TERMS; n++) sum += half_element<S::ROWS>(tile, a_along_k, r, n);
              sums[r] = sum;
            }
        }
        if (!more) break;
        half_store<S::ROWS, S::THREADS>(job.term[of].a.mode, a, ahead);
        half_store<S::COLS, S::THREADS>(job.term[of].b.mode, x, ahead + A_SIZE);
        __syncthreads();
      }
      __syncthreads();
      float *partial = chunks > 1 ? product_partial(job, b, turn) : NULL;
      for (int r = (int)threadIdx.x; want_sum && r < S::ROWS && i0 + r < M; r += S::THREADS) {
        if (partial) partial[(int64_t)M * N + i0 + r] = sums[r];
        else product_save_sum(job, b, i0 + r, sums[r], false);
      }
      const int64_t place = job.sum_only ? -1 : wire_place(job.out, job.out_offsets, k);
      const bool    add = (job.out.flags & MICA_ADD) || k > b;
#pragma unroll 1
      for (int i = 0; i < 2 * S::A; i++) {
#pragma unroll
        for (int r = 0; r < 2 * S::A; r++)
          if (r == i)
#pragma unroll
            for (int j = 0; j < 4 * S::B; j++)
              *reinterpret_cast<float2 *>(slab + (warp / S::V * 8 + lane / 4) * SLAB_LD + col + 8 * j + lane % 4 * 2) =
                  make_float2(acc[r / 2][j][r % 2 * 2], acc[r / 2][j][r % 2 * 2 + 1]);
        __syncthreads();
        const half_slab_row<S> place_of = { i };
        if (partial) product_slab_partial(partial, N, slab, SLAB_ROWS, S::COLS, SLAB_LD, i0, j0, M, N, place_of);
        else if (job.wide_out)
          product_slab<LINEAR, 4>(job, k, place, add, slab, SLAB_ROWS, S::COLS, SLAB_LD, i0, j0, M, N, place_of);
        else product_slab<LINEAR, 1>(job, k, place, add, slab, SLAB_ROWS, S::COLS, SLAB_LD, i0, j0, M, N, place_of);
        __syncthreads();
      }
    }
  }
}

/* ---- launchers ---- */

template <class S>
static mica_status product_run_as(const product_job &job, void *stream) {
  return micak_launch(job.name, job.is_linear ? product_half<S, true> : product_half<S, false>,
                      product_grid(job, S::ROWS, S::COLS), dim3(S::THREADS), 0, stream, job);
}

mica_status product_run_bf16(const product_job &job, void *stream) {
  const int64_t M = job.M.longest * job.M.tasks, N = job.N.longest;
  if (M <= 0 || N <= 0 || job.tasks <= 0) return MICA_OK;
  mica_status status = M > 64 && N > 64 ? product_run_as<product_large>(job, stream)
                       : M > 16 ? product_run_as<product_middle>(job, stream)
                                : product_run_as<product_small>(job, stream);
  if (status >= 0 && job.partial) status = product_run_reduce(job, stream);
  return status;
}
