/* conv2d on CUDA, images from images on the tensor cores: pixels x (tap, input) times (tap, input) x outputs. weights are
 * first laid out in scratch, inputs side by side; pixels come 32 inputs of a tap at a time, as rows of a tile of the common
 * products, zeros outside the image. terms run by (ky, kx, i), then the second product's: no tile shows in the bits. */
#include "common/cuda_tile_bf16.cuh"
#include "common/cuda_tile_tf32.cuh"
#include "conv/conv2d_cuda_internal.cuh"

enum { MMA_TERMS = 32, MMA_BUFFERS = 3 };
enum { PACK = 32, PACK_TAPS = 9, PACK_LD = PACK * PACK_TAPS + 1, PACK_THREADS = 256 };

static __host__ __device__ __forceinline__ int32_t mma_round(int32_t channels) { return (channels + 31) / 32 * 32; }

/* ---- weights as [output][tap][input], whole 32s of outputs and inputs ---- */

/* where an output's row lies: two neighbouring blocks of 8 sums then hold four outputs side by side of each lane */
PLANE_DEVICE int32_t pack_row(int32_t n) { return (n & ~15) | (n & 1) | (n >> 1 & 1) << 3 | (n >> 2 & 3) << 1; }

/* blocks of (32 x 32 channels; tasks; terms). E: as bits. up: w's own outputs are the inputs here */
template <class E>
static __global__ void __launch_bounds__(PACK_THREADS) conv_pack(const __grid_constant__ conv_job job) {
  __shared__ uint32_t cells[PACK * PACK_LD];
  const int32_t       lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32, all = job.K * job.K;
  const int32_t       blocks = (job.in.c + PACK - 1) / PACK;
  const int32_t       c0 = (int32_t)blockIdx.x % blocks * PACK, n0 = (int32_t)blockIdx.x / blocks * PACK;
  const int32_t       o0 = job.up ? c0 : n0, i0 = job.up ? n0 : c0;
  const int32_t       o_end = job.up ? job.in.c : job.out_size.c, i_end = job.up ? job.out_size.c : job.in.c;
  const image_plane  &w = job.w[blockIdx.z];
  const bool          dense = all <= PACK_TAPS && w.line == job.K * w.pixel && w.p.col == all * w.pixel;
  for (int64_t b = blockIdx.y; b < (job.packed_task[blockIdx.z] ? job.B : 1); b += gridDim.y) {
    const E *task = reinterpret_cast<const E *>(plane_task(w.p, b));
    E       *to = reinterpret_cast<E *>(job.packed[blockIdx.z] + b * job.packed_task[blockIdx.z]);
    if (!task) continue;
    for (int32_t tap0 = 0; tap0 < all; tap0 += PACK_TAPS) {
      const int32_t taps = min(all - tap0, (int32_t)PACK_TAPS);
      for (int32_t o = warp; o < PACK; o += PACK_THREADS / 32) {
        const E      *from = task + (int64_t)(o0 + o) * w.p.row + (int64_t)i0 * w.p.col;
        const int32_t there = o0 + o < o_end ? (i_end - i0) * taps : 0;
        for (int32_t e = lane; e < PACK * taps; e += 32) { /* as w lies in memory: i, tap */
          E value = 0;
          if (e < there && dense) {
            value = from[(int64_t)e * w.pixel];
          } else if (e < there) {
            const int32_t i = e / taps, n = tap0 + e - i * taps, line = n / job.K;
            value = from[image_at(w, 0, line, n - line * job.K, i)];
          }
          cells[o * PACK_LD + e] = value;
        }
      }
      __syncthreads();
      for (int32_t n = warp; n < PACK; n += PACK_THREADS / 32) {
        const uint32_t *from = cells + (job.up ? lane * PACK_LD + n * taps : n * PACK_LD + lane * taps);
        E              *row = to + ((int64_t)pack_row(n0 + n) * all + tap0) * (blocks * PACK) + c0 + lane;
        for (int32_t tap = 0; tap < taps; tap++, row += blocks * PACK) *row = (E)from[tap];
      }
      __syncthreads();
    }
  }
}

/* ---- products ---- */

template <class S>
struct conv_half {
  typedef uint16_t ELEMENT, BITS;
  typedef S        SHAPE;
  enum { LD = half_side<S::ROWS>::K_LD, BUFFER = (S::ROWS + S::COLS) * LD, BLOCKS = 4 };
  static __device__ __forceinline__ void multiply(const uint16_t *a, const uint16_t *b, int row, int col,
                                                  float (&acc)[S::A][4 * S::B][4]) {
    half_multiply<S>(a, b, true, true, row, col, acc);
  }
};
typedef conv_half<tile_shape<2, 1, 2, 2, MMA_TERMS>> half_broad;  /* 64 pixels x 64 outputs */
typedef conv_half<tile_shape<2, 1, 4, 1, MMA_TERMS>> half_narrow; /* 128 x 32 */

/* the steps of a tile: a thread copies every other 16-byte piece of its rows */
template <class P>
struct conv_walk {
  typedef typename P::ELEMENT E;
  enum { EACH = 16 / sizeof(E), AT_ONCE = CONV_THREADS / 2, ROWS = P::SHAPE::ROWS / AT_ONCE };
  const conv_job &job;
  const int32_t   k, row, piece, n0;
  int32_t         s, ky, kx, c;
  conv_pixel      at[ROWS];                  /* where tap (0, 0) is; t < 0: behind the last */
  const char     *x;
  const E        *from[ROWS], *w;            /* NULL: zeros */

  __device__ __forceinline__ conv_walk(const conv_job &job_, int32_t k_, int32_t m0, int32_t M, int32_t n0_)
      : job(job_), k(k_), row((int32_t)threadIdx.x / 16 * 8 + (int32_t)threadIdx.x % 8),
        piece((int32_t)threadIdx.x / 8 % 2 * EACH), n0(n0_), s(-1), ky(job.K), kx(0), c(job.in.c) {
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
      at[j] = conv_pixel_of(job, m0 + row + j * AT_ONCE);
      if (m0 + row + j * AT_ONCE >= M) at[j].t = -1;
      at[j].p = job.up ? at[j].p + job.pad : at[j].p * job.stride - job.pad;
      at[j].q = job.up ? at[j].q + job.pad : at[j].q * job.stride - job.pad;
    }
  }
  /* the next 32 terms, the first at first; false: no more */
  __device__ __forceinline__ bool next() {
    w += MMA_TERMS;
    if ((c += MMA_TERMS) < job.in.c) return true;
    c = 0;
    if (++kx == job.K) kx = 0, ky++;
    if (ky >= job.K) {
      const char *task;
      do {
        if (++s >= job.terms) return false;
        x = plane_task(job.x[s].p, k), task = plane_task(job.w[s].p, k);
      } while (!x || !task);
      ky = kx = 0;
      w = reinterpret_cast<const E *>(job.packed[s] + k * job.packed_task[s]) +
          (int64_t)(n0 + row) * job.K * job.K * mma_round(job.in.c) + piece;
    }
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
      int32_t h = job.up ? at[j].p - ky : at[j].p + ky, v = job.up ? at[j].q - kx : at[j].q + kx;
      bool    inside = at[j].t >= 0 && h >= 0 && v >= 0;
      if (job.up && job.stride > 1) {
        const int32_t ph = h / job.stride, pv = v / job.stride;
        inside = inside && ph * job.stride == h && pv * job.stride == v;
        h = ph, v = pv;
      }
      inside = inside && h < job.in.h && v < job.in.w;
      from[j] = inside ? reinterpret_cast<const E *>(x) + image_at(job.x[s], at[j].t, h, v, piece) : NULL;
    }
    return true;
  }
  __device__ __forceinline__ void copy(E *to) const {
    to += row * P::LD + piece;
#pragma unroll
    for (int j = 0; j < ROWS; j++)
#pragma unroll
      for (int i = 0; i < MMA_TERMS; i += 2 * EACH) {
        E *piece_to = to + j * AT_ONCE * P::LD + i;
        const int32_t left = from[j] ? job.in.c - c - piece - i : 0;
        if (job.wide) ptx_copy_async<16>(piece_to, left > 0 ? from[j] + c + i : (const E *)x, left > 0);
        else
#pragma unroll
          for (int e = 0; e < EACH; e++)
            piece_to[e] = e < left ? from[j][(int64_t)(c + i + e) * job.x[s].p.col] : E(0);
      }
    if (row >= P::SHAPE::COLS) return;
    to += P::SHAPE::ROWS * P::LD;
#pragma unroll
    for (int i = 0; i < MMA_TERMS; i += 2 * EACH)
      ptx_copy_async<16>(to + i, n0 + row < mma_round(job.out_size.c) ? w + i : (const E *)x,
                         n0 + row < mma_round(job.out_size.c));
  }
};

/* blocks of (tiles of a task; tasks) */
template <class P>
static __global__ void __launch_bounds__(CONV_THREADS, P::BLOCKS) conv_images_mma(const __grid_constant__ conv_job job) {
  typedef typename P::SHAPE S;
  DYN_SMEM(typename P::ELEMENT, memory);
  const int     lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int     row = warp / S::V * 16 * S::A, col = warp % S::V * 32 * S::B;
  const int32_t across = (job.out_size.c + S::COLS - 1) / S::COLS;
  const plane  &to = job.out.p;
  for (int32_t b = (int32_t)blockIdx.y; b < job.B; b += (int32_t)gridDim.y) {
    if (!plane_leads(to, b)) continue;
    char *out = plane_task(to, b);
    for (int32_t k = b; k == b || (k < job.B && plane_follows(to, k)); k++) {
      const int32_t M = (int32_t)wire_rows(job.offsets, k, job.T) * job.out_size.h * job.out_size.w;
      const int32_t tiles = (M + S::ROWS - 1) / S::ROWS * across;
      for (int32_t tile = (int32_t)blockIdx.x; tile < tiles; tile += (int32_t)gridDim.x) {
        const int32_t m0 = tile / across * S::ROWS, n0 = tile % across * S::COLS, n = n0 + col + lane % 4 * 4;
        const char   *bias = plane_task(job.bias, k);
        float         acc[S::A][4 * S::B][4];
#pragma unroll
        for (int j = 0; j < 4 * S::B; j++)
#pragma unroll
          for (int e = 0; e < 2; e++) {
            const int32_t o = n + j / 2 * 16 + j % 2 * 2 + e;
            const float   start = bias && o < job.out_size.c ? plane_get(job.bias, bias, (int64_t)o * job.bias.col) : 0.0f;
#pragma unroll
            for (int i = 0; i < S::A; i++) acc[i][j][e] = acc[i][j][2 + e] = start;
          }
        conv_walk<P> walk(job, k, m0, M, n0);
        bool         more = true;
        int          begun = 0;
        for (int step = 1 - MMA_BUFFERS;; step++) { /* copies run two steps ahead of the products */
          if (step >= 0) {
            ptx_copy_wait<MMA_BUFFERS - 2>();
            __syncthreads();
            if (step >= begun) break;
          }
          if (more && (more = walk.next())) walk.copy(memory + begun++ % MMA_BUFFERS * P::BUFFER);
          ptx_copy_commit();
          if (step < 0) continue;
          const typename P::ELEMENT *from = memory + step % MMA_BUFFERS * P::BUFFER;
          P::multiply(from, from + S::ROWS * P::LD, row, col, acc);
        }
#pragma unroll
        for (int i = 0; i < 2 * S::A; i++) {
          const int32_t m = m0 + row + 8 * i + lane / 4;
          if (m >= M) continue;
          const conv_pixel at = conv_pixel_of(job, m);
#pragma unroll
          for (int j = 0; j < 4 * S::B; j += 2) {
            const float *low = &acc[i / 2][j][i % 2 * 2], *high = &acc[i / 2][j + 1][i % 2 * 2];
            const float  v[4] = { low[0], low[1], high[0], high[1] };
            if (n + 8 * j < job.out_size.c) conv_put(job, out, at, n + 8 * j, v, to.add || k > b);
          }
        }
      }
    }
  }
}

/* ---- launchers ---- */

template <class P>
static mica_status mma_launch(const char *name, const conv_job &job, void *stream) {
  const int64_t pixels = (int64_t)job.T * job.out_size.h * job.out_size.w;
  const int64_t high = (pixels + P::SHAPE::ROWS - 1) / P::SHAPE::ROWS;
  const int64_t across = (job.out_size.c + P::SHAPE::COLS - 1) / P::SHAPE::COLS;
  mica_status   status = micak_launch(name, conv_pack<typename P::BITS>,
                                      dim3(mma_round(job.in.c) / PACK * mma_round(job.out_size.c) / PACK,
                                           job.packed_task[0] || job.packed_task[1] ? micak_task_blocks(job.B) : 1, job.terms),
                                      dim3(PACK_THREADS), 0, stream, job);
  if (status < 0) return status;
  return micak_launch(name, conv_images_mma<P>, dim3(micak_blocks(high * across, 1), micak_task_blocks(job.B)),
                      dim3(CONV_THREADS), MMA_BUFFERS * P::BUFFER * sizeof(typename P::ELEMENT), stream, job);
}
mica_status conv_run_mma(const char *name, conv_job job, const mica_exec *exec) {
  mica_status   status = plane_check_task(name, (int64_t)mma_round(job.in.c) * job.K * job.K, mma_round(job.out_size.c));
  if (status < 0) return status;
  const int64_t each = 8, size = (int64_t)mma_round(job.in.c) * mma_round(job.out_size.c) * job.K * job.K * 2;
  char         *at = static_cast<char *>(exec->scratch);
  job.wide = job.in.c % each == 0;
  for (int s = 0; s < job.terms; s++) {
    const plane &w = job.w[s].p;
    job.wide = job.wide && image_by(job.x[s], each);
    job.packed[s] = at, job.packed_task[s] = w.slot || w.task ? size : 0;
    at += (job.packed_task[s] ? job.B : 1) * size;
  }
  return job.out_size.c <= half_narrow::SHAPE::COLS ? mma_launch<half_narrow>(name, job, exec->stream)
                                                     : mma_launch<half_broad>(name, job, exec->stream);
}
