/* products in fp32 by fmaf: true fp32, an element's terms in order whatever the tile */
#include "linear/product_loop.cuh"

typedef tile_shape<2, 2, 4, 2, 8> product_large;  /* 128 x 128, 256 threads */
typedef tile_shape<2, 1, 2, 2, 16> product_middle; /* 64 x 64, 128 threads */
typedef tile_shape<1, 1, 1, 2, 16> product_small;  /* 16 x 64, 64 threads */

template <class S>
struct product_fma {
  typedef float ELEMENT;
  enum {
    TERMS = S::TERMS, THREADS = S::THREADS, ROWS = S::ROWS, COLS = S::COLS, PARTS = 4 * S::A, SLAB_ROWS = 4 * S::W,
    PAD = 4, AT_ONCE = 1,
    BUFFER = S::TERMS * (S::ROWS_LD + S::COLS_LD)
  };
  static_assert((int)SLAB_ROWS * (COLS + PAD) <= 2 * (int)BUFFER, "the slab must fit");
  /* the result's row in a tile of slab row r, for row i of each thread */
  struct part_row {
    int i;
    __device__ __forceinline__ int operator()(int r) const {
      return r / 4 * 16 * S::A + i / 4 * 16 + r % 4 * 4 + i % 4;
    }
  };
  const tile_place<S> at;
  float              *memory;                /* two buffers */
  float               acc[4 * S::A][4 * S::B];

  __device__ __forceinline__ product_fma(float *memory_) : memory(memory_) {}
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 4 * S::A; i++)
#pragma unroll
      for (int j = 0; j < 4 * S::B; j++) acc[i][j] = 0;
  }
  template <class WALK>
  __device__ __forceinline__ void run(const product_job &job, WALK &walk, int i0, int M, int j0, int N, float *sums) {
    float a[ROWS * TERMS / THREADS], x[COLS * TERMS / THREADS];
    /* a step's operands come from memory while the step before is multiplied; the first turn multiplies nothing */
    for (int step = -1, of = 0;; step++) {
      const float *tile = memory + (step & 1) * BUFFER;
      float       *ahead = memory + (~step & 1) * BUFFER;
      const bool   add_sum = sums && of == 0, more = walk.next();
      if (more) {
        const product_term &term = job.term[of = walk.s];
        tile_load<ROWS, TERMS, THREADS>(walk.a, term.a.x_stride, term.a.k_stride, term.a.mode, i0, M, walk.k, walk.k_end,
                                        a);
        tile_load<COLS, TERMS, THREADS>(walk.x, term.b.x_stride, term.b.k_stride, term.b.mode, j0, N, walk.k, walk.k_end,
                                        x);
      }
      if (step >= 0) {
        tile_multiply<S>(tile, tile + TERMS * S::ROWS_LD, at, acc);
        if (add_sum)
          for (int row = (int)threadIdx.x; row < ROWS; row += THREADS) {
            float sum = sums[row];
            for (int n = 0; n < TERMS; n++) sum += tile[n * S::ROWS_LD + row];
            sums[row] = sum;
          }
      }
      if (!more) break;
      tile_store<ROWS, TERMS, THREADS>(job.term[of].a.mode, a, ahead);
      tile_store<COLS, TERMS, THREADS>(job.term[of].b.mode, x, ahead + TERMS * S::ROWS_LD);
      __syncthreads();
    }
  }
  __device__ __forceinline__ void part(int i, float *slab, int ld) const {
    float *to = slab + (at.row / (16 * S::A) * 4 + at.row % 16 / 4) * ld + at.col;
#pragma unroll
    for (int r = 0; r < 4 * S::A; r++)
      if (r == i)
#pragma unroll
        for (int j = 0; j < S::B; j++)
          *reinterpret_cast<float4 *>(to + 32 * j) =
              make_float4(acc[r][4 * j], acc[r][4 * j + 1], acc[r][4 * j + 2], acc[r][4 * j + 3]);
  }
};

/* blocks of a multiprocessor; 8 small ones with an end of linear spill */
template <class S, bool LINEAR>
static __global__ void __launch_bounds__(S::THREADS, S::THREADS == 128 ? 3 : S::THREADS == 64 && LINEAR ? 6
                                                                                : 512 / S::THREADS)
    product_kernel(const __grid_constant__ product_job job) {
  __shared__ __align__(16) float memory[2 * product_fma<S>::BUFFER];
  __shared__ float               sums[LINEAR ? 1 : S::ROWS];
  product_fma<S>                 tile(memory);
  product_loop<product_fma<S>, LINEAR>(job, tile, memory, sums);
}

/* ---- chunks ---- */

enum { PRODUCT_REDUCE_THREADS = 256 };
/* sums of the chunks of groups that have several, in order */
static __global__ void __launch_bounds__(PRODUCT_REDUCE_THREADS)
    product_reduce(const __grid_constant__ product_job job) {
  for (int64_t b = blockIdx.y; b < job.tasks; b += gridDim.y) {
    if (wire_follows(job.out, job.out_offsets, b)) continue;
    const int64_t end = product_group_end(job, b), place = wire_place(job.out, job.out_offsets, b);
    const int64_t rows = job.K.offsets ? job.K.offsets[end] - job.K.offsets[b] : (end - b) * job.K.longest;
    const int64_t chunks = product_chunks(job, rows), size = job.M.longest * job.N.longest;
    if (chunks < 2 || place < 0) continue;
    for (int64_t e = (int64_t)blockIdx.x * PRODUCT_REDUCE_THREADS + threadIdx.x;
         e < size + (job.sum.data ? job.M.longest : 0); e += (int64_t)gridDim.x * PRODUCT_REDUCE_THREADS) {
      const float *at = product_partial(job, b, 0) + e; /* from the second chunk on each lies two partials on */
      float        sum = *at;
      at += product_partial_size(job);
      for (int64_t c = 1; c < chunks; c++, at += 2 * product_partial_size(job)) sum += *at;
      if (e < size && job.sum_only) continue;
      if (e < size)
        wire_put(job.out, place + e / job.N.longest * job.out_row + e % job.N.longest * job.out_col, sum,
                    (job.out.flags & MICA_ADD) != 0);
      else product_save_sum(job, b, e - size, sum, false);
    }
    if (gridDim.y == 1) break;
  }
}
/* the second launch, where a group may have two chunks */
mica_status product_run_reduce(const product_job &job, void *stream) {
  dim3 grid(micak_blocks(job.M.longest * (job.N.longest + 1), PRODUCT_REDUCE_THREADS),
            !job.out.slot && !job.out.task_stride ? 1 : micak_task_blocks(job.tasks));
  if (grid.x > 1024) grid.x = 1024;
  return micak_launch("product_reduce", product_reduce, grid, dim3(PRODUCT_REDUCE_THREADS), 0, stream, job);
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
  mica_status status = job.tensor ? product_run_tf32(job, stream)
                       : M > 64 && N > 64 ? product_run_as<product_large>(job, stream)
                       : M > 16 ? product_run_as<product_middle>(job, stream)
                                : product_run_as<product_small>(job, stream);
  if (status >= 0 && job.partial) status = product_run_reduce(job, stream);
  return status;
}
