/* cotangents of conv2d's weights on the tensor cores: outputs x pixels times pixels x (tap, input), 32 pixels at a time. the
 * tiles, chunks and sums are those of conv2d_cuda_params.cu. */
#ifndef MICA_KERNELS_CONV_CUDA_MMA_PARAMS_CUH
#define MICA_KERNELS_CONV_CUDA_MMA_PARAMS_CUH

#include "conv/conv2d_cuda_mma.cuh"
#include "conv/conv2d_cuda_params.cuh"

/* the steps of a tile: a thread copies the same 16-byte piece of every few pixels, of dy and of x; where x does not come by
 * 16 bytes every fourth column of a pixel */
template <class P>
struct sum_walk {
  typedef typename P::ELEMENT E;
  enum { EACH = 16 / sizeof(E), PIECES = P::SHAPE::ROWS / EACH, APART = CONV_THREADS / PIECES, COUNT = MMA_TERMS / APART };
  enum { ALONG_K = 0, LD = P::X_LD, A_SIZE = MMA_TERMS * LD, BUFFER = 2 * A_SIZE };
  static_assert((int)P::SHAPE::ROWS == (int)P::SHAPE::COLS, "a piece is of either side");
  const conv_sum   &job;
  const conv_group &g;
  conv_part         part;
  const int32_t     row, piece, o, columns, column; /* columns: of the tile; column: of x, a thread's first */
  int32_t           ky, kx, i, s, m, pixels; /* ky, kx, i: of that column */
  conv_pixel        at[COUNT], single;
  const char       *x, *dy;
  bool              open;

  __device__ __forceinline__ sum_walk(const conv_sum &job_, const conv_group &g_, int32_t b, int32_t chunk, int32_t o0,
                                      int32_t j0)
      : job(job_), g(g_), part(job_, g_, b, chunk), row((int32_t)threadIdx.x / PIECES),
        piece((int32_t)threadIdx.x % PIECES * EACH), o(o0 + piece), columns(job.I * job.K * job.K - j0),
        column(job.wide_x ? piece : (int32_t)threadIdx.x % 4), s(-1), m(0), pixels(0), open(part.enter(job_, g_)) {
    const int32_t tap = (j0 + column) / job.I;
    ky = tap / job.K, kx = tap % job.K, i = j0 + column - tap * job.I;
  }
  __device__ __forceinline__ conv_pixel pixel(int32_t n) const {
    const int32_t line = n / job.Q, t = line / job.P;
    return { part.t0 + t, line - t * job.P, n - line * job.Q };
  }
  __device__ __forceinline__ void advance(conv_pixel &to) const {
    to.q += job.d_q, to.p += job.d_p, to.t += job.d_t;
    if (to.q >= job.Q) to.q -= job.Q, to.p++;
    if (to.p >= job.P) to.p -= job.P, to.t++;
  }
  /* the next 32 pixels, the first at first; false: no more */
  __device__ __forceinline__ bool next() {
    if ((m += MMA_TERMS) < pixels) {
#pragma unroll
      for (int j = 0; j < COUNT; j++) advance(at[j]);
      advance(single);
      return true;
    }
    do {
      if (++s >= job.terms) s = 0, part.next(job), open = part.enter(job, g);
      if (!open) return false;
      x = plane_task(job.x[s].p, part.k), dy = plane_task(job.dy[s].p, part.k);
    } while (!x || !dy);
    m = 0, pixels = (part.t1 - part.t0) * job.P * job.Q;
#pragma unroll
    for (int j = 0; j < COUNT; j++) at[j] = pixel(row + j * APART);
    single = pixel((int32_t)threadIdx.x / 4);
    return true;
  }
  __device__ __forceinline__ const E *from(const conv_pixel &of, int32_t y, int32_t z, int32_t c) const {
    return reinterpret_cast<const E *>(x) +
           image_at(job.x[s], of.t, of.p * job.stride - job.pad + y, of.q * job.stride - job.pad + z, c);
  }
  __device__ __forceinline__ bool there(const conv_pixel &of, int32_t y, int32_t z) const {
    const int32_t h = of.p * job.stride - job.pad + y, v = of.q * job.stride - job.pad + z;
    return h >= 0 && h < job.H && v >= 0 && v < job.W;
  }
  __device__ __forceinline__ void copy(E *to) const {
    const image_plane &d = job.dy[s];
    const int32_t      n = (int32_t)threadIdx.x / 4;
    E                 *piece_to = to + row * LD + piece, *single_to = to + A_SIZE + n * LD;
#pragma unroll
    for (int j = 0; j < COUNT; j++, piece_to += APART * LD) {
      const bool inside = m + row + j * APART < pixels;
      const E   *d_from = reinterpret_cast<const E *>(dy) + image_at(d, at[j].t, at[j].p, at[j].q, o);
      if (job.wide) ptx_copy_async<16>(piece_to, d_from, inside && o < job.O);
      else conv_gather(piece_to, d_from, d.p.col, inside ? job.O - o : 0);
      if (job.wide_x)
        ptx_copy_async<16>(piece_to + A_SIZE, from(at[j], ky, kx, i), inside && column < columns && there(at[j], ky, kx));
    }
    if (job.wide_x) return;
    int32_t y = ky, z = kx, c = i;
    for (int32_t e = column; e < min((columns + 31) / 32 * 32, (int32_t)P::SHAPE::COLS); e += 4) { /* live warps read 32 */
      single_to[e] = m + n < pixels && e < columns && there(single, y, z) ? *from(single, y, z, c) : E(0);
      z += job.d_tap, c += job.d_i;
      if (c >= job.I) c -= job.I, z++;
      while (z >= job.K) z -= job.K, y++;
    }
  }
};

/* blocks of (tiles; groups; chunks) */
template <class P>
static __global__ void __launch_bounds__(CONV_THREADS, P::BLOCKS) conv_weights_mma(const __grid_constant__ conv_sum job) {
  typedef typename P::SHAPE S;
  DYN_SMEM(typename P::ELEMENT, memory);
  const int     lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int     row = warp / S::V * 16 * S::A, col = warp % S::V * 32 * S::B;
  const int32_t columns = job.I * job.K * job.K, across = (columns + S::COLS - 1) / S::COLS;
  const int32_t o0 = (int32_t)blockIdx.x / across * S::ROWS, j0 = (int32_t)blockIdx.x % across * S::COLS;
  for (int32_t b = (int32_t)blockIdx.y; b < job.B; b += (int32_t)gridDim.y) {
    if (!plane_leads(job.out.p, b)) continue;
    const conv_group g = conv_group_of(job, b);
    for (int32_t chunk = (int32_t)blockIdx.z; chunk < g.chunks; chunk += (int32_t)gridDim.z) {
      float       acc[S::A][4 * S::B][4] = {};
      sum_walk<P> walk(job, g, b, chunk, o0, j0);
      conv_products<P>(walk, memory, o0 + row < job.O && j0 + col < columns, row, col, acc);
      const conv_result to(job, g, b, chunk);
#pragma unroll
      for (int j = 0; j < 8 * S::B; j++) {
        const int32_t column = j0 + col + j / 2 * 8 + lane % 4 * 2 + j % 2;
#pragma unroll
        for (int i = 0; i < 2 * S::A; i++)
          to.put(job, o0 + row + 8 * i + lane / 4, column, acc[i / 2][j / 2][i % 2 * 2 + j % 2]);
      }
    }
  }
}

template <class P>
static mica_status mma_sums(const char *name, conv_sum job, dim3 grid, void *stream) {
  const int32_t each = 16 / sizeof(typename P::ELEMENT);
  job.wide = job.O % each == 0, job.wide_x = job.I % each == 0;
  for (int s = 0; s < job.terms; s++)
    job.wide = job.wide && image_by(job.dy[s], each), job.wide_x = job.wide_x && image_by(job.x[s], each);
  job.d_q = MMA_TERMS % job.Q, job.d_p = MMA_TERMS / job.Q % job.P, job.d_t = MMA_TERMS / job.Q / job.P;
  job.d_tap = 4 / job.I, job.d_i = 4 % job.I;
  return micak_launch(name, conv_weights_mma<P>, grid, dim3(CONV_THREADS),
                      MMA_BUFFERS * sum_walk<P>::BUFFER * sizeof(typename P::ELEMENT), stream, job);
}

#endif
