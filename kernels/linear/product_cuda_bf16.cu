/* products of bf16 operands by mma.sync: fp32 sums, results in the type of the output's wire */
#include "common/cuda_tile_bf16.cuh"
#include "linear/product_loop.cuh"

typedef tile_shape<2, 2, 4, 2, 32> product_large;  /* 128 x 128, 256 threads */
typedef tile_shape<2, 1, 2, 2, 32> product_middle; /* 64 x 64, 128 threads */
typedef tile_shape<1, 1, 1, 2, 32> product_small;  /* 16 x 64, 64 threads */

template <class S>
struct product_half {
  typedef uint16_t        ELEMENT;
  typedef mma_part_row<S> part_row;
  enum {
    TERMS = S::TERMS, THREADS = S::THREADS, ROWS = S::ROWS, COLS = S::COLS, PARTS = 2 * S::A, SLAB_ROWS = 8 * S::W,
    PAD = 8, AT_ONCE = 1,
    A_SIZE = half_side<S::ROWS>::SIZE, BUFFER = A_SIZE + half_side<S::COLS>::SIZE
  };
  static_assert((int)SLAB_ROWS * (COLS + PAD) * 4 <= 4 * (int)BUFFER, "the slab must fit");
  const int row, col;
  uint16_t *memory;                          /* two buffers */
  float     acc[S::A][4 * S::B][4];

  __device__ __forceinline__ product_half(uint16_t *memory_)
      : row((int)(threadIdx.x >> 5) / S::V * 16 * S::A), col((int)(threadIdx.x >> 5) % S::V * 32 * S::B),
        memory(memory_) {}
  __device__ __forceinline__ void clear() { mma_clear<S>(acc); }
  template <class WALK>
  __device__ __forceinline__ void run(const product_job &job, WALK &walk, int i0, int M, int j0, int N, float *sums) {
    uint4 a[ROWS * 4 / THREADS], x[COLS * 4 / THREADS];
    /* a step's operands come from memory while the step before is multiplied; the first turn multiplies nothing */
    for (int step = -1, of = 0;; step++) {
      const uint16_t *tile = memory + (step & 1) * BUFFER;
      uint16_t       *ahead = memory + (~step & 1) * BUFFER;
      const int       before = of;
      const bool      more = walk.next();
      if (more) {
        const product_term &term = job.term[of = walk.s];
        half_load<ROWS, THREADS>(walk.a, term.a.x_stride, term.a.k_stride, term.a.mode, i0, M, walk.k, walk.k_end, a);
        half_load<COLS, THREADS>(walk.x, term.b.x_stride, term.b.k_stride, term.b.mode, j0, N, walk.k, walk.k_end, x);
      }
      if (step >= 0) {
        const bool a_along_k = half_along_k(job.term[before].a.mode);
        half_multiply<S>(tile, tile + A_SIZE, a_along_k, half_along_k(job.term[before].b.mode), row, col, acc);
        if (sums && before == 0)
          for (int r = (int)threadIdx.x; r < ROWS; r += THREADS) {
            float sum = sums[r];
            for (int n = 0; n < TERMS; n++) sum += half_element<ROWS>(tile, a_along_k, r, n);
            sums[r] = sum;
          }
      }
      if (!more) break;
      half_store<ROWS, THREADS>(job.term[of].a.mode, a, ahead);
      half_store<COLS, THREADS>(job.term[of].b.mode, x, ahead + A_SIZE);
      __syncthreads();
    }
  }
  __device__ __forceinline__ void part(int i, float *slab, int ld) const { mma_part<S>(i, acc, slab, ld); }
};

template <class S, bool LINEAR>
static __global__ void __launch_bounds__(S::THREADS, S::THREADS == 256 ? 1 : 384 / S::THREADS)
    product_kernel_bf16(const __grid_constant__ product_job job) {
  __shared__ __align__(16) uint16_t memory[2 * product_half<S>::BUFFER];
  __shared__ float                  sums[LINEAR ? 1 : S::ROWS];
  product_half<S>                   tile(memory);
  product_loop<product_half<S>, LINEAR>(job, tile, reinterpret_cast<float *>(memory), sums);
}

/* ---- launchers ---- */

template <class S>
static mica_status product_run_as(const product_job &job, void *stream) {
  return micak_launch(job.name, job.is_linear ? product_kernel_bf16<S, true> : product_kernel_bf16<S, false>,
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
