/* conv2d on CUDA, images from images on the tensor cores: pixels x (tap, input) times (tap, input) x outputs. weights are
 * first laid out in scratch, inputs side by side; pixels come 32 inputs of a tap at a time, as rows of a tile of the common
 * products, zeros outside the image. terms run by (ky, kx, i), then the second product's: no tile shows in the bits. */
#ifndef MICA_KERNELS_CONV_CUDA_MMA_IMAGES_CUH
#define MICA_KERNELS_CONV_CUDA_MMA_IMAGES_CUH

#include "common/cuda_units.h"
#include "conv/conv2d_cuda_mma.cuh"

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

/* the steps of a tile: a thread copies every other 16-byte piece of its rows */
template <class P>
struct image_walk {
  typedef typename P::ELEMENT E;
  enum { EACH = 16 / sizeof(E), AT_ONCE = CONV_THREADS / 2, ROWS = P::SHAPE::ROWS / AT_ONCE };
  enum { ALONG_K = 1, A_SIZE = P::SHAPE::ROWS * P::K_LD, BUFFER = A_SIZE + P::SHAPE::COLS * P::K_LD };
  const conv_job &job;
  const int32_t   k, row, piece, n0;
  int32_t         s, ky, kx, c, col;
  conv_pixel      at[ROWS];                  /* where tap (0, 0) is; t < 0: behind the last */
  const char     *x;
  const E        *from[ROWS], *w;
  bool            there[ROWS];               /* false: zeros */

  __device__ __forceinline__ image_walk(const conv_job &job_, int32_t k_, int32_t m0, int32_t M, int32_t n0_)
      : job(job_), k(k_), row((int32_t)threadIdx.x / 16 * 8 + (int32_t)threadIdx.x % 8),
        piece((int32_t)threadIdx.x / 8 % 2 * EACH), n0(n0_), s(-1), ky(job.K), kx(0), c(job.in.c), col(0),
        x(NULL), w(NULL) {
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
    if ((c += MMA_TERMS) < job.in.c) {
      w += MMA_TERMS;
#pragma unroll
      for (int j = 0; j < ROWS; j++) from[j] += MMA_TERMS * (int64_t)col;
      return true;
    }
    c = 0;
    if (++kx == job.K) kx = 0, ky++;
    if (ky < job.K) {
      w += MMA_TERMS;
    } else {
      const char *task;
      do {
        if (++s >= job.terms) return false;
        x = plane_task(job.x[s].p, k), task = plane_task(job.w[s].p, k);
      } while (!x || !task);
      ky = kx = 0, col = job.x[s].p.col;
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
      there[j] = inside && h < job.in.h && v < job.in.w;
      from[j] = reinterpret_cast<const E *>(x) + (there[j] ? image_at(job.x[s], at[j].t, h, v, piece) : 0);
    }
    return true;
  }
  __device__ __forceinline__ void copy(E *to) const {
    const int32_t left = job.in.c - c - piece;
    to += row * P::K_LD + piece;
#pragma unroll
    for (int i = 0; i < MMA_TERMS; i += 2 * EACH)
      if (row < P::SHAPE::COLS) ptx_copy_async<16>(to + A_SIZE + i, w + i, n0 + row < mma_round(job.out_size.c));
    if (job.wide) {
#pragma unroll
      for (int j = 0; j < ROWS; j++)
#pragma unroll
        for (int i = 0; i < MMA_TERMS; i += 2 * EACH)
          ptx_copy_async<16>(to + j * AT_ONCE * P::K_LD + i, from[j] + i, there[j] && i < left);
    } else {
#pragma unroll
      for (int j = 0; j < ROWS; j++)
#pragma unroll
        for (int i = 0; i < MMA_TERMS; i += 2 * EACH)
          conv_gather(to + j * AT_ONCE * P::K_LD + i, from[j] + (int64_t)i * col, col, there[j] ? left - i : 0);
    }
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
        image_walk<P> walk(job, k, m0, M, n0);
        conv_products<P>(walk, memory, m0 + row < M && n0 + col < job.out_size.c, row, col, acc);
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

template <class S>
static dim3 mma_grid(const conv_job &job) {
  const int64_t high = ((int64_t)job.T * job.out_size.h * job.out_size.w + S::ROWS - 1) / S::ROWS;
  const int64_t across = (job.out_size.c + S::COLS - 1) / S::COLS;
  return dim3(micak_blocks(high * across, 1), micak_task_blocks(job.B));
}
template <class P>
static mica_status mma_launch(const char *name, const conv_job &job, void *stream) {
  return micak_launch(name, conv_images_mma<P>, mma_grid<typename P::SHAPE>(job), dim3(CONV_THREADS),
                      MMA_BUFFERS * image_walk<P>::BUFFER * sizeof(typename P::ELEMENT), stream, job);
}
/* P: the products of a shape */
template <template <class> class P>
static mica_status mma_images(const char *name, conv_job job, const mica_exec *exec) {
  typedef typename P<mma_broad>::BITS BITS;
  const int32_t each = 16 / sizeof(BITS), in = mma_round(job.in.c), out = mma_round(job.out_size.c);
  const int64_t size = (int64_t)in * out * job.K * job.K * (int64_t)sizeof(BITS);
  char         *at = static_cast<char *>(exec->scratch);
  mica_status   status = plane_check_task(name, (int64_t)in * job.K * job.K, out);
  if (status < 0) return status;
  job.wide = job.in.c % each == 0;
  bool own = false;
  for (int s = 0; s < job.terms; s++) {
    const plane &w = job.w[s].p;
    job.wide = job.wide && image_by(job.x[s], each);
    job.packed[s] = at, job.packed_task[s] = w.slot || w.task ? size : 0;
    at += (job.packed_task[s] ? job.B : 1) * size, own = own || job.packed_task[s];
  }
  status = micak_launch(name, conv_pack<BITS>, dim3(in / PACK * (out / PACK), own ? micak_task_blocks(job.B) : 1, job.terms),
                        dim3(PACK_THREADS), 0, exec->stream, job);
  if (status < 0) return status;
  if (out <= mma_narrow::COLS) return mma_launch<P<mma_narrow>>(name, job, exec->stream);
  /* the tile changes no bits: the large one where it fills the device */
  bool fills = false;
  status = micak_fills(name, mma_grid<mma_large>(job), &fills);
  if (status < 0) return status;
  return fills ? mma_launch<P<mma_large>>(name, job, exec->stream) : mma_launch<P<mma_broad>>(name, job, exec->stream);
}

#endif
