/* products of fp32 operands on the tensor cores, to fp32 accuracy (cuda_tile_tf32.cuh) */
#include "common/cuda_tile_tf32.cuh"
#include "common/cuda_units.h"
#include "linear/product_loop.cuh"

typedef tile_shape<4, 1, 2, 2, TF32_TERMS> product_large;  /* 128 x 64, 128 threads */
typedef tile_shape<2, 1, 2, 2, TF32_TERMS> product_middle; /* 64 x 64, 128 threads */

template <class S>
struct product_split {
  typedef float           ELEMENT;
  /* the slab is the whole tile */
  struct part_row {
    int i;
    __device__ __forceinline__ int operator()(int r) const { return r; }
  };
  enum {
    TERMS = S::TERMS, THREADS = S::THREADS, ROWS = S::ROWS, COLS = S::COLS, PARTS = 1, SLAB_ROWS = S::ROWS,
    PAD = 8, AT_ONCE = 2,
    A_SIZE = tf32_side<S::ROWS>::SIZE, BUFFER = A_SIZE + tf32_side<S::COLS>::SIZE, BUFFERS = 3,
    BYTES = 4 * (BUFFERS * BUFFER + ROWS)
  };
  static_assert((int)SLAB_ROWS * (COLS + PAD) <= (int)BUFFERS * (int)BUFFER, "the slab must fit");
  const int row, col;
  float    *memory;
  float     acc[S::A][4 * S::B][4];

  __device__ __forceinline__ product_split(float *memory_)
      : row((int)(threadIdx.x >> 5) / S::V * 16 * S::A), col((int)(threadIdx.x >> 5) % S::V * 32 * S::B),
        memory(memory_) {}
  __device__ __forceinline__ void clear() { mma_clear<S>(acc); }
  template <class WALK>
  __device__ __forceinline__ void run(const product_job &job, WALK &walk, int i0, int M, int j0, int N, float *sums) {
    bool     more = true;
    unsigned terms = 0;                      /* which term each step under way is of, a bit a step */
    int      begun = 0;
    /* copies run two steps ahead of the products */
    for (int step = 1 - BUFFERS;; step++) {
      if (step >= 0) {
        ptx_copy_wait<BUFFERS - 2>();
        __syncthreads();
        if (step >= begun) break;
      }
      if (more && (more = walk.next())) {
        const product_term &term = job.term[walk.s];
        float              *to = memory + begun % BUFFERS * BUFFER;
        tf32_copy<ROWS, THREADS>(walk.a, term.a.x_stride, term.a.k_stride, term.a.mode, i0, M, walk.k, walk.k_end, to);
        tf32_copy<COLS, THREADS>(walk.x, term.b.x_stride, term.b.k_stride, term.b.mode, j0, N, walk.k, walk.k_end,
                                 to + A_SIZE);
        terms = (terms & ~(1u << begun % BUFFERS)) | (unsigned)walk.s << begun % BUFFERS;
        begun++;
      }
      ptx_copy_commit();
      if (step < 0) continue;
      const float        *tile = memory + step % BUFFERS * BUFFER;
      const int           of = (int)(terms >> step % BUFFERS & 1);
      const product_term &term = job.term[of];
      const bool          a_along_k = tf32_along_k(term.a.mode);
      tf32_multiply<S>(tile, tile + A_SIZE, a_along_k, tf32_along_k(term.b.mode), row, col, acc);
      if (sums && of == 0)
        for (int r = (int)threadIdx.x; r < ROWS; r += THREADS) {
          float sum = sums[r];
#pragma unroll
          for (int n = 0; n < TERMS; n++) sum += tf32_element<ROWS>(tile, a_along_k, r, n);
          sums[r] = sum;
        }
    }
  }
  __device__ __forceinline__ void part(int, float *slab, int ld) const {
    const int lane = (int)threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < 2 * S::A; i++)
#pragma unroll
      for (int j = 0; j < 4 * S::B; j++)
        *reinterpret_cast<float2 *>(slab + (row + 8 * i + lane / 4) * ld + col + 8 * j + lane % 4 * 2) =
            make_float2(acc[i / 2][j][i % 2 * 2], acc[i / 2][j][i % 2 * 2 + 1]);
  }
};

/* blocks that the shared memory of a multiprocessor holds */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
enum { MIDDLE_BLOCKS = 2 };
#else
enum { MIDDLE_BLOCKS = 3 };
#endif
template <class S, bool LINEAR>
static __global__ void __launch_bounds__(S::THREADS, S::A == 4 ? 2 : (int)MIDDLE_BLOCKS)
    product_kernel_tf32(const __grid_constant__ product_job job) {
  DYN_SMEM(float, memory);
  product_split<S> tile(memory);
  product_loop<product_split<S>, LINEAR>(job, tile, memory, memory + product_split<S>::BUFFERS * product_split<S>::BUFFER);
}

template <class S>
static mica_status product_run_as(const product_job &job, void *stream) {
  return micak_launch(job.name, job.is_linear ? product_kernel_tf32<S, true> : product_kernel_tf32<S, false>,
                      product_grid(job, S::ROWS, S::COLS), dim3(S::THREADS), product_split<S>::BYTES, stream, job);
}

/* the tile changes no bits: the larger one where it fills the device */
mica_status product_run_tf32(const product_job &job, void *stream) {
  bool        fills = false;
  mica_status status = micak_fills(job.name, product_grid(job, product_large::ROWS, product_large::COLS), &fills);
  if (status < 0) return status;
  return fills ? product_run_as<product_large>(job, stream) : product_run_as<product_middle>(job, stream);
}
