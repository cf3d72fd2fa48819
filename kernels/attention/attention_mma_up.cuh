/* attention_mma_up.cuh: backward and backward_jvp on CUDA's tensor cores, one text for both (HVP), as attention_up.cuh:
 * the block that owns keys sums k and v over rows in order, the one that owns rows sums q over keys in order; where a
 * block holds all keys it does both with what it has loaded. scores are computed once for each (turned: keys as rows),
 * so that no sum crosses a warp. */
#ifndef MICA_KERNELS_ATTENTION_MMA_UP_CUH
#define MICA_KERNELS_ATTENTION_MMA_UP_CUH

#include "attention/attention_mma.cuh"
#include "attention/attention_up.cuh"

/* rows in shared memory, of keys (k, v) or queries (q, cotangents of out), with their tangents (HVP) behind them */
template <class C, bool HVP>
struct mma_side {
  enum { COUNT = HVP ? 4 : 2 };
  typedef typename C::element E;
  E  *at;
  int rows;
  __device__ __forceinline__ const E *first(int row) const { return at + row * C::LD; }           /* k, q */
  __device__ __forceinline__ const E *second(int row) const { return at + (rows + row) * C::LD; } /* v, out's cotangent */
  __device__ __forceinline__ const E *first_t(int row) const { return at + (2 * rows + row) * C::LD; }
  __device__ __forceinline__ const E *second_t(int row) const { return at + (3 * rows + row) * C::LD; }
};

template <class C, bool HVP>
ATTN_DEVICE void mma_load_keys(const mma_job &job, const mma_side<C, HVP> &to, int64_t b, int g, int S, int j0) {
  const mica_attention_args &a = job.a;
  const int32_t *ko = a.k.offsets, *vo = a.v.offsets;
  const int      n = to.rows, size = n * C::LD;
  mma_load<C>(job, ATTN_K, ATTN_WIRE_V, a.k.v, attn_place(a.k.v, ko, b, g), j0, S, n, to.at);
  mma_load<C>(job, ATTN_V, ATTN_WIRE_V, a.v.v, attn_place(a.v.v, vo, b, g), j0, S, n, to.at + size);
  if (HVP) {
    mma_load<C>(job, ATTN_K, ATTN_WIRE_T, a.k.t, attn_place(a.k.t, ko, b, g), j0, S, n, to.at + 2 * size);
    mma_load<C>(job, ATTN_V, ATTN_WIRE_T, a.v.t, attn_place(a.v.t, vo, b, g), j0, S, n, to.at + 3 * size);
  }
}
template <class C, bool HVP>
ATTN_DEVICE void mma_load_rows(const mma_job &job, const mma_side<C, HVP> &to, int64_t b, int h, int T, int i0) {
  const mica_attention_args &a = job.a;
  const int32_t *qo = a.q.offsets, *oo = a.out.offsets;
  const int      n = to.rows, size = n * C::LD;
  mma_load<C>(job, ATTN_Q, ATTN_WIRE_V, a.q.v, attn_place(a.q.v, qo, b, h), i0, T, n, to.at);
  mma_load<C>(job, ATTN_OUT, ATTN_WIRE_D, a.out.d, attn_place(a.out.d, oo, b, h), i0, T, n, to.at + size);
  if (HVP) {
    mma_load<C>(job, ATTN_Q, ATTN_WIRE_T, a.q.t, attn_place(a.q.t, qo, b, h), i0, T, n, to.at + 2 * size);
    mma_load<C>(job, ATTN_OUT, ATTN_WIRE_TD, a.out.td, attn_place(a.out.td, oo, b, h), i0, T, n, to.at + 3 * size);
  }
}

/* a piece of a row in memory, and of one in shared memory */
template <class C>
ATTN_DEVICE void mma_get(const mma_job &job, int wire, const mica_wire &w, int64_t at, int column,
                         float (&x)[C::PIECE]) {
  if (job.wide >> (4 * ATTN_OUT + wire) & 1) {
    uint4 raw = *reinterpret_cast<const uint4 *>(static_cast<const typename C::element *>(w.data) + at + column);
    mma_floats<C>(raw, x);
    return;
  }
#pragma unroll
  for (int j = 0; j < C::PIECE; j++)
    x[j] = column + j < job.a.D ? wire_get(w, at + (column + j) * w.stride[2]) : 0.0f;
}

/* numbers of the side's rows, (COUNT, rows): lse, delta, and their tangents */
template <class C, bool HVP>
ATTN_DEVICE void mma_numbers(const mma_job &job, const mma_side<C, HVP> &side, float *to, int64_t b, int h, int T,
                             int i0) {
  const mica_attention_args &a = job.a;
  const int64_t out = attn_place(a.out.v, a.out.offsets, b, h),
                out_t = HVP ? attn_place(a.out.t, a.out.offsets, b, h) : -1;
  const int64_t lse = wire_place(a.lse.v, a.lse.offsets, b), lse_t = HVP ? wire_place(a.lse.t, a.lse.offsets, b) : -1;
  const int     t = (int)threadIdx.x % 4, n = side.rows;
  for (int r0 = 0; r0 < n; r0 += (int)blockDim.x / 4) {
    const int  r = r0 + (int)threadIdx.x / 4, row = i0 + r;
    const bool valid = r < n && row < T;
    float      delta = 0, delta_t = 0;
#pragma unroll 1
    for (int c = t * C::PIECE; c < a.D && valid; c += 4 * C::PIECE) {
      float o[C::PIECE], y[C::PIECE];
      mma_floats<C>(*reinterpret_cast<const uint4 *>(side.second(r) + c), o);
      if (out >= 0) {
        mma_get<C>(job, ATTN_WIRE_V, a.out.v, out + row * a.out.v.stride[0], c, y);
#pragma unroll
        for (int j = 0; j < C::PIECE; j++) delta = fmaf(o[j], y[j], delta);
      }
      if (!HVP) continue;
      if (out_t >= 0) {
        float y_t[C::PIECE];
        mma_get<C>(job, ATTN_WIRE_T, a.out.t, out_t + row * a.out.t.stride[0], c, y_t);
#pragma unroll
        for (int j = 0; j < C::PIECE; j++) delta_t = fmaf(o[j], y_t[j], delta_t);
      }
      mma_floats<C>(*reinterpret_cast<const uint4 *>(side.second_t(r) + c), o);
#pragma unroll
      for (int j = 0; j < C::PIECE; j++)
        if (out >= 0) delta_t = fmaf(o[j], y[j], delta_t);
    }
    delta = mma_row_sum(delta);
    if (HVP) delta_t = mma_row_sum(delta_t);
    if (t != 0 || r >= n) continue;
    to[r] = valid && lse >= 0 ? wire_get(a.lse.v, lse + row * a.lse.v.stride[0] + h * a.lse.v.stride[1]) : 0.0f;
    to[n + r] = delta;
    if (!HVP) continue;
    to[2 * n + r] = valid && lse_t >= 0 ? wire_get(a.lse.t, lse_t + row * a.lse.t.stride[0] + h * a.lse.t.stride[1]) : 0;
    to[3 * n + r] = delta_t;
  }
}

/* from raw scores (p), <out's cotangent, v> (ds) and their tangents (pt, dst) to p, its tangent, and the cotangents of raw
 * scores that keys (dst; ds without HVP) and their tangents (ds) meet */
template <bool HVP>
ATTN_DEVICE void mma_score(const attn_head &x, bool sees, float lse, float delta, float lse_t, float delta_t, float &p,
                           float &ds, float &pt, float &dst) {
  const float raw = p, dp = ds - delta;
  p = sees ? expf(fmaf(x.scale, raw, -lse)) : 0.0f;
  const float d = p * dp;
  if (HVP) {
    const float s_t = fmaf(x.scale, pt, x.scale_t * raw);
    pt = p == 0 ? 0.0f : p * (s_t - lse_t);
    dst = fmaf(x.scale, fmaf(pt, dp, p * (dst - delta_t)), x.scale_t * d);
  }
  ds = x.scale * d;
}

/* 16 keys (k, the warp's) and 32 rows (r, from row i on): to the keys' sums */
template <class C, bool HVP>
ATTN_DEVICE void mma_keys_step(const mma_job &job, const attn_head &x, const mma_side<C, HVP> &keys, int k, int j,
                               const mma_side<C, HVP> &rows, int r, int i, const float *numbers,
                               float (&dk)[C::N][4], float (&dv)[C::N][4]) {
  const int      g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4, columns = job.columns, n_rows = rows.rows;
  const unsigned live = mma_live(job.a, x, j, i, true);
  if (!live) return;
  mma_scores p, ds, pt, dst;
  mma_zero(p), mma_zero(ds);
  mma_dots<C>(keys.first(k), rows.first(r), columns, live, p);
  mma_dots<C>(keys.second(k), rows.second(r), columns, live, ds);
  if (HVP) {
    mma_zero(pt), mma_zero(dst);
    mma_dots<C>(keys.first_t(k), rows.first(r), columns, live, pt);
    mma_dots<C>(keys.first(k), rows.first_t(r), columns, live, pt);
    mma_dots<C>(keys.second_t(k), rows.second(r), columns, live, dst);
    mma_dots<C>(keys.second(k), rows.second_t(r), columns, live, dst);
  }
  const mma_mask mask(job.a, x);
#pragma unroll
  for (int n = 0; n < 4; n++)
#pragma unroll
    for (int one = 0; one < 2; one++) {
      const int c = 8 * n + 2 * t + one, at = r + c;
      if (!(live >> n & 1)) {                /* these rows may not be there at all */
        p[n][one] = p[n][one + 2] = ds[n][one] = ds[n][one + 2] = 0;
        if (HVP) pt[n][one] = pt[n][one + 2] = dst[n][one] = dst[n][one + 2] = 0;
        continue;
      }
      if (HVP) asm volatile("" ::: "memory"); /* keeps the loads of all columns from being hoisted, for want of registers */
      const float lse = numbers[at], delta = numbers[n_rows + at];
      const float lse_t = HVP ? numbers[2 * n_rows + at] : 0, delta_t = HVP ? numbers[3 * n_rows + at] : 0;
#pragma unroll
      for (int e = one; e < 4; e += 2)
        mma_score<HVP>(x, mask.sees(i + c, j + g + e / 2 * 8), lse, delta, lse_t, delta_t, p[n][e], ds[n][e], pt[n][e],
                       dst[n][e]);
    }
  if (HVP) {
    mma_mix<C>(pt, rows.second(r), columns, live, dv);
    mma_mix<C>(p, rows.second_t(r), columns, live, dv);
    mma_mix<C>(dst, rows.first(r), columns, live, dk);
    mma_mix<C>(ds, rows.first_t(r), columns, live, dk);
  } else {
    mma_mix<C>(p, rows.second(r), columns, live, dv);
    mma_mix<C>(ds, rows.first(r), columns, live, dk);
  }
}

/* 16 rows (r, the warp's) and 32 keys (k, from key j on): to the rows' sums */
template <class C, bool HVP>
ATTN_DEVICE void mma_rows_step(const mma_job &job, const attn_head &x, const mma_side<C, HVP> &rows, int r, int i,
                               const float (&number)[2][4], const mma_side<C, HVP> &keys, int k, int j,
                               float (&dq)[C::N][4]) {
  const int      g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4, columns = job.columns;
  const unsigned live = mma_live(job.a, x, i, j, false);
  if (!live) return;
  mma_scores p, ds, pt, dst;
  mma_zero(p), mma_zero(ds);
  mma_dots<C>(rows.first(r), keys.first(k), columns, live, p);
  mma_dots<C>(rows.second(r), keys.second(k), columns, live, ds);
  if (HVP) {
    mma_zero(pt), mma_zero(dst);
    mma_dots<C>(rows.first_t(r), keys.first(k), columns, live, pt);
    mma_dots<C>(rows.first(r), keys.first_t(k), columns, live, pt);
    mma_dots<C>(rows.second_t(r), keys.second(k), columns, live, dst);
    mma_dots<C>(rows.second(r), keys.second_t(k), columns, live, dst);
  }
  const mma_mask mask(job.a, x);
#pragma unroll
  for (int n = 0; n < 4; n++)
#pragma unroll
    for (int e = 0; e < 4; e++)
      mma_score<HVP>(x, mask.sees(i + g + e / 2 * 8, j + 8 * n + 2 * t + e % 2), number[e / 2][0], number[e / 2][1],
                     number[e / 2][2], number[e / 2][3], p[n][e], ds[n][e], pt[n][e], dst[n][e]);
  if (HVP) {
    mma_mix<C>(dst, keys.first(k), columns, live, dq);
    mma_mix<C>(ds, keys.first_t(k), columns, live, dq);
  } else {
    mma_mix<C>(ds, keys.first(k), columns, live, dq);
  }
}
/* what a thread's two rows need */
template <class C, bool HVP>
ATTN_DEVICE void mma_rows_enter(const mma_side<C, HVP> &rows, int r, const float *numbers, float (&number)[2][4]) {
  const int g = (int)threadIdx.x % 32 / 4;
#pragma unroll
  for (int half = 0; half < 2; half++)
#pragma unroll
    for (int n = 0; n < 4; n++)
      number[half][n] = n < mma_side<C, HVP>::COUNT ? numbers[n * rows.rows + r + g + 8 * half] : 0.0f;
}

/* ---- keys: k and v; where job.whole q too ---- */

template <class C, bool HVP>
static __global__ void __launch_bounds__(32 * MMA_WARPS, 1) attention_mma_keys(const __grid_constant__ mma_job job) {
  typedef typename C::element E;
  const mica_attention_args &a = job.a;
  const mica_wire &kd = attn_result<HVP>(a.k), &vd = attn_result<HVP>(a.v), &qd = attn_result<HVP>(a.q);
  const int wire = HVP ? ATTN_WIRE_TD : ATTN_WIRE_D, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
  DYN_SMEM(E, memory);
  const mma_side<C, HVP> keys = { memory, 16 * warps };
  mma_side<C, HVP>       rows = { memory + keys.COUNT * keys.rows * C::LD, job.rows };
  E *const     ring = rows.at;
  const int    tile = rows.COUNT * rows.rows * C::LD;
  float *const numbers = reinterpret_cast<float *>(ring + job.stages * tile);
  const int     j0 = (int)(blockIdx.x % job.tiles) * keys.rows, j = j0 + 16 * warp;
  const int     g = (int)(blockIdx.x / job.tiles % a.G);
  const int     h0 = (int)((g * a.H + a.G - 1) / a.G), h1 = (int)(((g + 1) * a.H + a.G - 1) / a.G);
  const int64_t first = blockIdx.x / job.tiles / a.G;
  auto follows = [&](int64_t b) {
    return wire_follows(kd, a.k.offsets, b) || wire_follows(vd, a.v.offsets, b) ||
           (job.whole && wire_follows(qd, a.q.offsets, b));
  };
  if (follows(first) || (job.longer && attn_is_long(a, first, job.longer))) return;
  for (int64_t b = first; b == first || (b < a.B && follows(b)); b++) {
    const attn_head any = attn_enter(a, b, h0);
    const int       T = any.T, S = any.S;
    if (j0 >= S && !job.whole) continue;
    auto next = [&](int &h, int &i) {        /* the first tile from there on that is worth a walk; h == h1: none */
      for (; h < h1; h++, i = 0)
        for (; i < T; i += rows.rows)
          if (job.whole || attn_meets(a, any, i, i + rows.rows, j0, j0 + keys.rows)) return;
    };
    float dk[C::N][4], dv[C::N][4];
    mma_clear<C>(dk), mma_clear<C>(dv);
    int h = h0, i0 = 0, stage = 0;
    next(h, i0);
    __syncthreads();                         /* the task before may still be read */
    mma_load_keys<C, HVP>(job, keys, b, g, S, j0);
    if (h < h1) mma_load_rows<C, HVP>(job, { ring, job.rows }, b, h, T, i0);
    ptx_copy_commit();
    while (h < h1) {
      int h_next = h, i_next = i0 + rows.rows;
      next(h_next, i_next);
      ptx_copy_wait<0>();
      __syncthreads();                       /* this tile has come, the one before is done with */
      if (job.stages == 2 && h_next < h1) {
        mma_load_rows<C, HVP>(job, { ring + (stage ^ 1) * tile, job.rows }, b, h_next, T, i_next);
        ptx_copy_commit();
      }
      rows.at = ring + stage * tile;
      mma_numbers<C, HVP>(job, rows, numbers, b, h, T, i0);
      __syncthreads();
      const attn_head x = attn_enter(a, b, h);
      if (kd.data || vd.data)
#pragma unroll 1
        for (int r = 0; r < rows.rows; r += MMA_STEP)
          mma_keys_step<C, HVP>(job, x, keys, 16 * warp, j, rows, r, i0 + r, numbers, dk, dv);
      const int64_t place = C::WHOLE && job.whole ? attn_place(qd, a.q.offsets, b, h) : -1;
      if (C::WHOLE && place >= 0)
#pragma unroll 1
        for (int r = 16 * warp; r < rows.rows && i0 + r < T; r += 16 * warps) {
          float dq[C::N][4], number[2][4];
          mma_clear<C>(dq);
          mma_rows_enter<C, HVP>(rows, r, numbers, number);
#pragma unroll 1
          for (int k = 0; k < S; k += MMA_STEP)
            mma_rows_step<C, HVP>(job, x, rows, r, i0 + r, number, keys, k, k, dq);
          mma_write_rows<C>(job, ATTN_Q, wire, qd, place, i0 + r, T, dq, { 1.0f, 1.0f }, attn_adds(qd, a.q.offsets, b));
        }
      if (job.stages == 1 && h_next < h1) {
        __syncthreads();
        mma_load_rows<C, HVP>(job, rows, b, h_next, T, i_next);
        ptx_copy_commit();
      }
      if (job.stages == 2) stage ^= 1;
      h = h_next, i0 = i_next;
    }
    ptx_copy_wait<0>();
    mma_write_rows<C>(job, ATTN_K, wire, kd, attn_place(kd, a.k.offsets, b, g), j, S, dk, { 1.0f, 1.0f },
                      attn_adds(kd, a.k.offsets, b));
    mma_write_rows<C>(job, ATTN_V, wire, vd, attn_place(vd, a.v.offsets, b, g), j, S, dv, { 1.0f, 1.0f },
                      attn_adds(vd, a.v.offsets, b));
  }
}

/* ---- queries: q, where the keys are several tiles ---- */

template <class C, bool HVP>
static __global__ void __launch_bounds__(32 * MMA_WARPS, 1) attention_mma_queries(const __grid_constant__ mma_job job) {
  typedef typename C::element E;
  const mica_attention_args &a = job.a;
  const mica_wire &qd = attn_result<HVP>(a.q);
  const int        warp = (int)threadIdx.x / 32;
  DYN_SMEM(E, memory);
  const mma_side<C, HVP> rows = { memory, (int)blockDim.x / 2 };
  mma_side<C, HVP>       keys = { memory + rows.COUNT * rows.rows * C::LD, job.rows };
  E *const     ring = keys.at;
  const int    tile = keys.COUNT * keys.rows * C::LD;
  float *const numbers = reinterpret_cast<float *>(ring + job.stages * tile);
  const int     i0 = (int)(blockIdx.x % job.tiles) * rows.rows, i = i0 + 16 * warp;
  const int     h = (int)(blockIdx.x / job.tiles % a.H), g = (int)(h * a.G / a.H);
  const int64_t first = blockIdx.x / job.tiles / a.H;
  if (wire_follows(qd, a.q.offsets, first) || (job.longer && attn_is_long(a, first, job.longer))) return;
  for (int64_t b = first; wire_in_group(qd, a.q.offsets, first, b, a.B); b++) {
    const attn_head x = attn_enter(a, b, h);
    if (i0 >= x.T) continue;
    auto next = [&](int j) {
      while (j < x.S && !attn_meets(a, x, i0, i0 + rows.rows, j, j + keys.rows)) j += keys.rows;
      return j;
    };
    float dq[C::N][4], number[2][4];
    mma_clear<C>(dq);
    int j0 = next(0), stage = 0;
    __syncthreads();                         /* the task before may still be read */
    mma_load_rows<C, HVP>(job, rows, b, h, x.T, i0);
    if (j0 < x.S) mma_load_keys<C, HVP>(job, { ring, job.rows }, b, g, x.S, j0);
    ptx_copy_commit();
    ptx_copy_wait<0>();
    __syncthreads();
    mma_numbers<C, HVP>(job, rows, numbers, b, h, x.T, i0);
    __syncthreads();
    mma_rows_enter<C, HVP>(rows, 16 * warp, numbers, number);
    while (j0 < x.S) {
      const int ahead = next(j0 + keys.rows);
      ptx_copy_wait<0>();
      __syncthreads();                       /* this tile has come, the one before is done with */
      if (job.stages == 2 && ahead < x.S) {
        mma_load_keys<C, HVP>(job, { ring + (stage ^ 1) * tile, job.rows }, b, g, x.S, ahead);
        ptx_copy_commit();
      }
      keys.at = ring + stage * tile;
#pragma unroll 1
      for (int k = 0; k < keys.rows; k += MMA_STEP)
        mma_rows_step<C, HVP>(job, x, rows, 16 * warp, i, number, keys, k, j0 + k, dq);
      if (job.stages == 1 && ahead < x.S) {
        __syncthreads();
        mma_load_keys<C, HVP>(job, keys, b, g, x.S, ahead);
        ptx_copy_commit();
      }
      if (job.stages == 2) stage ^= 1;
      j0 = ahead;
    }
    mma_write_rows<C>(job, ATTN_Q, HVP ? ATTN_WIRE_TD : ATTN_WIRE_D, qd, attn_place(qd, a.q.offsets, b, h), i, x.T, dq,
                      { 1.0f, 1.0f }, attn_adds(qd, a.q.offsets, b));
  }
}

/* ---- launchers ---- */

/* bytes of shared memory: two blocks of a multiprocessor of sm_90 */
enum { MMA_MEMORY = 112 * 1024 };

template <class C, bool HVP>
static mica_status mma_run_up(mma_job job, void *stream) {
  const mica_attention_args &a = job.a;
  enum { COUNT = mma_side<C, HVP>::COUNT };
  const size_t row = COUNT * C::LD * sizeof(typename C::element), numbers = COUNT * sizeof(float);
  auto bytes = [&](int warps) {
    return 16 * (size_t)warps * row + (size_t)job.rows * (size_t)job.stages * row + (size_t)job.rows * numbers;
  };
  int warps = mma_warps(a.S, MMA_WARPS);
  const size_t own = 16 * (size_t)warps * row;
  job.whole = C::WHOLE && a.S <= 16 * MMA_WARPS && own < MMA_MEMORY && mma_tiles(&job, a.T, row + numbers, MMA_MEMORY - own);
  if (!job.whole) {
    warps = mma_warps(a.S, 4);
    mma_tiles(&job, a.T, row + numbers, MMA_MEMORY - 16 * (size_t)warps * row);
  }
  job.tiles = job.whole ? 1 : (a.S + 16 * warps - 1) / (16 * warps);
  const mica_wire &qd = attn_result<HVP>(a.q);
  mica_status status = MICA_OK;
  if (attn_result<HVP>(a.k).data || attn_result<HVP>(a.v).data || (job.whole && qd.data))
    status = micak_launch(HVP ? "attention backward_jvp keys" : "attention backward keys", attention_mma_keys<C, HVP>,
                          dim3(micak_blocks(a.B * a.G * job.tiles, 1)), dim3(32 * warps), bytes(warps), stream, job);
  if (status < 0 || job.whole || !qd.data || a.T <= 0) return status;
  warps = mma_warps(a.T, 4);
  job.tiles = (a.T + 16 * warps - 1) / (16 * warps);
  mma_tiles(&job, a.S, row, MMA_MEMORY - 16 * (size_t)warps * (row + numbers));
  return micak_launch(HVP ? "attention backward_jvp queries" : "attention backward queries",
                      attention_mma_queries<C, HVP>, dim3(micak_blocks(a.B * a.H * job.tiles, 1)), dim3(32 * warps),
                      (16 * (size_t)warps + (size_t)job.rows * (size_t)job.stages) * row + 16 * (size_t)warps * numbers,
                      stream, job);
}

#endif
