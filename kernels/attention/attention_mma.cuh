/* attention_mma.cuh: what the tensor-core kernels of attention share. bf16: mma.sync m16n8k16, fp32 sums. f32: each
 * operand as the sum of two tf32 and the three larger of the four products (Ootomo and Yokota, "Recovering single
 * precision accuracy from Tensor Cores", 2022); a tensor core truncates its sums, so that the small products have sums of
 * their own, and no sum runs over more than 32 terms before it is added, rounded, to the rest.
 *
 * a warp owns 16 rows (or keys) and walks the other side 32 at a time, from a multiple of 32, whatever the block: an
 * element's bits depend on its own task, head, row and key alone. scores stay in registers: the fragments that a product
 * leaves (g = lane / 4, t = lane % 4: rows g, g + 8, columns 8 n + 2 t, + 1) are those that the next one takes. */
#ifndef MICA_KERNELS_ATTENTION_MMA_CUH
#define MICA_KERNELS_ATTENTION_MMA_CUH

#include "attention/attention_tile.cuh"

enum { MMA_STEP = 32, MMA_WARPS = 8 };       /* columns of a step; most warps of a block, of 16 rows each */

/* D: columns of a head's rows in shared memory (32, 64, 128); the pad keeps every fragment's reads free of conflicts */
template <class E, int D_>
struct mma_shape {
  typedef E element;
  enum { D = D_, PIECE = 16 / sizeof(E), LD = D + PIECE, N = D / 8 };
  enum { WHOLE = D <= 64 };                  /* up: registers for the sums of k, v and q at once */
};

struct mma_job {
  mica_attention_args a;
  uint32_t            wide;                  /* bit 4 port + wire: rows may be copied 16 bytes at a time */
  int32_t             columns;               /* of a row: D to a multiple of 16 */
  int32_t             rows, stages, whole;   /* of a tile of the side that is walked; tiles held; up: all keys in one block */
  int32_t             longer;                /* tasks with as many rows and keys are another kernel's; 0: none */
  int64_t             tiles, units;
};

/* ---- fragments ---- */

/* element (row, column) of the thread: 16 x 32 */
typedef float mma_scores[4][4];

/* x = high + low, each tf32 */
ATTN_DEVICE void mma_split(float x, uint32_t &high, uint32_t &low) {
  high = ptx_to_tf32(x);
  low = ptx_to_tf32(x - __uint_as_float(high));
}
ATTN_DEVICE void mma_zero(mma_scores &x) {
#pragma unroll
  for (int n = 0; n < 4; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) x[n][e] = 0;
}

/* out += rows 0-15 of x times rows 0-31 of y, transposed; `live`, bit n: rows 8 n ... of y are wanted */
template <class C>
ATTN_DEVICE void mma_dots(const float *x, const float *y, int columns, unsigned live, mma_scores &out) {
  const int   g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
  mma_scores  small;
  mma_zero(small);
  x += g * C::LD + t, y += g * C::LD + t;
#pragma unroll
  for (int k = 0; k < C::D; k += 8) {
    if (k >= columns) break;
    uint32_t high[4], low[4];
#pragma unroll
    for (int e = 0; e < 4; e++) mma_split(x[e % 2 * 8 * C::LD + e / 2 * 4 + k], high[e], low[e]);
#pragma unroll
    for (int n = 0; n < 4; n++) {
      if (!(live >> n & 1)) continue;
      uint32_t b[2], b_low[2];
#pragma unroll
      for (int e = 0; e < 2; e++) mma_split(y[n * 8 * C::LD + 4 * e + k], b[e], b_low[e]);
      ptx_mma_tf32(small[n], low, b);
      ptx_mma_tf32(small[n], high, b_low);
      ptx_mma_tf32(out[n], high, b);
    }
  }
#pragma unroll
  for (int n = 0; n < 4; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) out[n][e] += small[n][e];
}
template <class C>
ATTN_DEVICE void mma_dots(const uint16_t *x, const uint16_t *y, int columns, unsigned live, mma_scores &out) {
  const int lane = (int)threadIdx.x % 32;
  x += lane % 16 * C::LD + lane / 16 * 8, y += (lane % 8 + lane / 16 * 8) * C::LD + lane / 8 % 2 * 8;
#pragma unroll(C::D > 64 ? 2 : 4)            /* as registers allow */
  for (int k = 0; k < C::D; k += 16) {
    if (k >= columns) break;
    uint32_t a[4];
    ptx_ldmatrix_x4(a, x + k);
#pragma unroll
    for (int n = 0; n < 4; n += 2) {
      if (!(live >> n & 3)) continue;
      uint32_t b[4];
      ptx_ldmatrix_x4(b, y + n * 8 * C::LD + k);
      const uint32_t first[2] = { b[0], b[1] }, second[2] = { b[2], b[3] };
      ptx_mma_bf16(out[n], a, first);
      ptx_mma_bf16(out[n + 1], a, second);
    }
  }
}

/* out (16 x D) += p (16 x 32) times rows 0-31 of y; rows of y whose bit of `live` is not set meet zeros in p */
template <class C>
ATTN_DEVICE void mma_mix(const mma_scores &p, const float *y, int columns, unsigned live, float (&out)[C::N][4]) {
  enum { AT_ONCE = 4 };       /* eights of columns: as registers allow */
  const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
  y += 2 * t * C::LD + g;                    /* the terms of a product are named so that p's fragment serves as it is */
#pragma unroll
  for (int n0 = 0; n0 < C::N; n0 += AT_ONCE) {
    if (8 * n0 >= columns) break;
    float large[AT_ONCE][4] = {}, small[AT_ONCE][4] = {};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (!(live >> k & 1)) continue;
      uint32_t high[4], low[4];
#pragma unroll
      for (int e = 0; e < 4; e++) mma_split(p[k][e % 2 * 2 + e / 2], high[e], low[e]);
#pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        if (8 * (n0 + n) >= columns) continue;
        uint32_t b[2], b_low[2];
#pragma unroll
        for (int e = 0; e < 2; e++) mma_split(y[(8 * k + e) * C::LD + 8 * (n0 + n)], b[e], b_low[e]);
        ptx_mma_tf32(small[n], low, b);
        ptx_mma_tf32(small[n], high, b_low);
        ptx_mma_tf32(large[n], high, b);
      }
    }
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) out[n0 + n][e] += large[n][e] + small[n][e];
  }
}
template <class C>
ATTN_DEVICE void mma_mix(const mma_scores &p, const uint16_t *y, int columns, unsigned live, float (&out)[C::N][4]) {
  const int lane = (int)threadIdx.x % 32;
  y += lane % 16 * C::LD + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    if (!(live >> k & 3)) continue;
    const uint32_t a[4] = { ptx_pack_bf16(p[k][0], p[k][1]), ptx_pack_bf16(p[k][2], p[k][3]),
                            ptx_pack_bf16(p[k + 1][0], p[k + 1][1]), ptx_pack_bf16(p[k + 1][2], p[k + 1][3]) };
#pragma unroll
    for (int n = 0; n < C::N; n += 2) {
      if (8 * n >= columns) break;
      uint32_t b[4];
      ptx_ldmatrix_x4_trans(b, y + k * 8 * C::LD + 8 * n);
      const uint32_t first[2] = { b[0], b[1] }, second[2] = { b[2], b[3] };
      ptx_mma_bf16(out[n], a, first);
      ptx_mma_bf16(out[n + 1], a, second);
    }
  }
}
template <class C>
ATTN_DEVICE void mma_clear(float (&x)[C::N][4]) {
#pragma unroll
  for (int n = 0; n < C::N; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) x[n][e] = 0;
}

/* over the four threads of a row; every one gets it */
ATTN_DEVICE float mma_row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
ATTN_DEVICE float mma_row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* ---- the mask ---- */

/* which eights of a step meet 16 rows from i on (or 16 keys, turned): bit n */
ATTN_DEVICE unsigned mma_live(const mica_attention_args &a, const attn_head &x, int i, int j, bool turned) {
  const int  n = (int)threadIdx.x % 32 * 8;
  const bool meets = n < MMA_STEP && (turned ? attn_meets(a, x, j + n, j + n + 8, i, i + 16)
                                             : attn_meets(a, x, i, i + 16, j + n, j + n + 8));
  return __ballot_sync(0xffffffffu, meets) & 15u;
}
/* the mask as numbers: a row sees the first keys, and its own key with those right before it. rows and keys beyond the
 * ends are zeros in shared memory: what they seem to see is not written or adds nothing */
struct mma_mask {
  int first, before, lag;
  __device__ __forceinline__ mma_mask(const mica_attention_args &a, const attn_head &x) {
    const int all = 1 << 30;
    lag = x.lag;
    first = a.mask == MICA_ATTENTION_FULL ? x.S : a.mask == MICA_ATTENTION_CAUSAL || a.mask == MICA_ATTENTION_WINDOW ? 0 : x.first;
    before = a.mask == MICA_ATTENTION_WINDOW ? (a.window > all ? all : (int)a.window - 1)
             : a.mask == MICA_ATTENTION_CAUSAL || a.mask == MICA_ATTENTION_PREFIX ? all : 0;
  }
  __device__ __forceinline__ bool sees(int i, int j) const {
    return j < first || (unsigned)(j - i - lag + before) <= (unsigned)before;
  }
};

/* ---- tiles of rows in shared memory ---- */

/* rows [i0, i0 + rows) of a head: zeros beyond `count` and in the last columns. asynchronous: commit, wait, synchronise */
template <class C>
ATTN_DEVICE void mma_load(const mma_job &job, int port, int wire, const mica_wire &w, int64_t place, int i0, int count,
                          int rows, typename C::element *to) {
  typedef typename C::element E;
  enum { PIECES = C::D / C::PIECE };
  const bool wide = job.wide >> (4 * port + wire) & 1;
  const int  D = (int)job.a.D;
  for (int e = (int)threadIdx.x; e < rows * PIECES; e += (int)blockDim.x) {
    const int r = e / PIECES, c = e % PIECES * C::PIECE;
    if (c >= job.columns) continue;
    E            *at = to + r * C::LD + c;
    const E      *data = static_cast<const E *>(w.data);
    const int64_t from = place + (i0 + r) * w.stride[0] + c * w.stride[2];
    if (place < 0 || i0 + r >= count || c >= D) {
      *reinterpret_cast<uint4 *>(at) = make_uint4(0, 0, 0, 0);
    } else if (wide) {
      ptx_copy_async<16>(at, data + from, true);
    } else {
#pragma unroll
      for (int j = 0; j < C::PIECE; j++) at[j] = c + j < D ? data[from + j * w.stride[2]] : (E)0;
    }
  }
}

/* the elements of 16 bytes */
template <class C>
ATTN_DEVICE void mma_floats(const uint4 &raw, float (&x)[C::PIECE]) {
  const uint32_t word[4] = { raw.x, raw.y, raw.z, raw.w };
#pragma unroll
  for (int j = 0; j < C::PIECE; j++)
    x[j] = __uint_as_float(C::PIECE == 4 ? word[j % 4] : j % 2 ? word[j / 2] & 0xffff0000u : word[j / 2] << 16);
}

/* elements column, column + 1 of a result's row */
template <class C>
ATTN_DEVICE void mma_write(const mma_job &job, int port, int wire, const mica_wire &w, int64_t place, int row, int column,
                           float x, float y, bool add) {
  const int     D = (int)job.a.D;
  const int64_t at = place + row * w.stride[0] + column * w.stride[2];
  if (column >= D) return;
  if (job.wide >> (4 * port + wire) & 1 && !add) {
    if (sizeof(typename C::element) == 4) *reinterpret_cast<float2 *>(static_cast<float *>(w.data) + at) = make_float2(x, y);
    else *reinterpret_cast<uint32_t *>(static_cast<uint16_t *>(w.data) + at) = ptx_pack_bf16(x, y);
    return;
  }
  wire_put(w, at, x, add);
  if (column + 1 < D) wire_put(w, at + w.stride[2], y, add);
}
/* 16 rows of a result, from row i on */
template <class C>
ATTN_DEVICE void mma_write_rows(const mma_job &job, int port, int wire, const mica_wire &w, int64_t place, int i,
                                int count, const float (&x)[C::N][4], const float (&by)[2], bool add) {
  if (place < 0) return;
  const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = i + g + 8 * half;
    if (row >= count) continue;
#pragma unroll
    for (int n = 0; n < C::N; n++)
      mma_write<C>(job, port, wire, w, place, row, 8 * n + 2 * t, by[half] * x[n][2 * half], by[half] * x[n][2 * half + 1],
                   add);
  }
}

/* ---- host ---- */

static inline int mma_pad(int64_t n, int to) { return (int)((n + to - 1) / to * to); }

static inline mma_job mma_job_of(const mica_attention_args *a, int longer = 0) {
  mma_job job = {};
  job.a = *a, job.longer = longer;
  const mica_port *port[] = { &a->q, &a->k, &a->v, &a->out };
  for (int p = 0; p < 4; p++)
    for (int w = 0; w < 4; w++) {
      const mica_wire *x = attn_wire(*port[p], w);
      const int64_t    piece = x->dtype == MICA_F32 ? 4 : 8;
      if (x->stride[2] == 1 && x->stride[1] % piece == 0 && x->stride[0] % piece == 0 && a->D % piece == 0 &&
          (port[p]->offsets || x->task_stride % piece == 0) && (uintptr_t)x->data % 16 == 0)
        job.wide |= 1u << (4 * p + w);
    }
  job.columns = mma_pad(a->D, 16);
  return job;
}
/* warps of a block that owns up to 16 `most` of n rows */
static inline int mma_warps(int64_t n, int most) {
  const int64_t warps = (n + 15) / 16;
  return warps > most ? most : warps < 1 ? 1 : (int)warps;
}
/* the tiles of the side that is walked, n rows of `bytes`: all at once, or two at a time, or one, by what fits in `room` */
static inline bool mma_tiles(mma_job *job, int64_t n, size_t bytes, size_t room) {
  const struct { int64_t rows; int stages; } ways[] = { { mma_pad(n > 0 ? n : 1, 16), 1 }, { 64, 2 }, { 32, 2 }, { 32, 1 } };
  for (const auto &way : ways) {
    if ((size_t)(way.rows * way.stages) * bytes > room) continue;
    job->rows = (int32_t)way.rows, job->stages = way.stages;
    return true;
  }
  return false;
}
/* run(shape of the head); the largest shape of each type is what attn_rules says */
template <int F32_MOST, int BF16_MOST, class F>
static inline mica_status mma_by_shape(const mica_attention_args *a, const F &run) {
  if (a->q.v.dtype == MICA_BF16) {
    if (a->D <= 32) return run(mma_shape<uint16_t, 32>());
    if constexpr (BF16_MOST > 64)
      if (a->D > 64) return run(mma_shape<uint16_t, BF16_MOST>());
    return run(mma_shape<uint16_t, 64>());
  }
  if constexpr (F32_MOST > 64)
    if (a->D > 64) return run(mma_shape<float, F32_MOST>());
  if constexpr (F32_MOST > 32)
    if (a->D > 32) return run(mma_shape<float, 64>());
  return run(mma_shape<float, 32>());
}

#endif
