/* attention_up.cuh: backward and backward_jvp on CUDA, one text for both (HVP). a tile's scores and their cotangents
 * are recomputed from lse and delta (README.md); cotangents of keys and values are summed by the group that owns the
 * keys, over rows in order; those of queries by the group that owns the rows, over keys in order. where all keys fit
 * one tile the first does both. nothing is atomic. */
#ifndef MICA_KERNELS_ATTENTION_UP_CUH
#define MICA_KERNELS_ATTENTION_UP_CUH

#include "attention/attention_tile.cuh"

/* wire numbers of attn_job.wide, and the wires that a face writes */
template <bool HVP>
static __host__ __device__ __forceinline__ const mica_wire &attn_result(const mica_port &p) { return HVP ? p.td : p.d; }

/* what a group holds of a tile: rows of operands in shared memory, numbers of its rows, and the tile's scores */
template <class C, bool HVP>
struct attn_up {
  float *k, *v, *kt, *vt, *q, *o, *qt, *ot;  /* (BN or BM, ld); o: cotangent of out */
  float *p0, *p1;                            /* (BM, P_LD) */
  float  lse[C::TM], delta[C::TM], lse_t[C::TM], delta_t[C::TM];
  float  p[C::TM][C::TN], ds[C::TM][C::TN], pt[C::TM][C::TN], dst[C::TM][C::TN]; /* of scores, before scale */

  __device__ __forceinline__ float *place(float *at, int ld) { /* returns what is left */
    k = at, v = k + C::BN * ld, q = v + C::BN * ld, o = q + C::BM * ld, at = o + C::BM * ld;
    if (HVP) kt = at, vt = kt + C::BN * ld, qt = vt + C::BN * ld, ot = qt + C::BM * ld, at = ot + C::BM * ld;
    p0 = at, p1 = p0 + C::BM * C::P_LD;
    return p0 + (HVP ? 2 : 1) * C::BM * C::P_LD;
  }
};
template <class C, bool HVP>
static __host__ __device__ constexpr size_t attn_up_floats(int ld) {
  return (size_t)(HVP ? 4 : 2) * (C::BM + C::BN) * (size_t)ld + (HVP ? 2 : 1) * C::BM * C::P_LD;
}

template <class C, bool HVP>
ATTN_DEVICE void attn_load_keys(const attn_job &job, const attn_up<C, HVP> &u, int64_t b, int g, int S, int j0, int t) {
  const mica_attention_args &a = job.a;
  const int32_t *ko = a.k.offsets, *vo = a.v.offsets;
  attn_load<C::GROUP, C::BN>(job, ATTN_K, ATTN_WIRE_V, a.k.v, attn_place(a.k.v, ko, b, g), j0, S, u.k, t);
  attn_load<C::GROUP, C::BN>(job, ATTN_V, ATTN_WIRE_V, a.v.v, attn_place(a.v.v, vo, b, g), j0, S, u.v, t);
  if (!HVP) return;
  attn_load<C::GROUP, C::BN>(job, ATTN_K, ATTN_WIRE_T, a.k.t, attn_place(a.k.t, ko, b, g), j0, S, u.kt, t);
  attn_load<C::GROUP, C::BN>(job, ATTN_V, ATTN_WIRE_T, a.v.t, attn_place(a.v.t, vo, b, g), j0, S, u.vt, t);
}
template <class C, bool HVP>
ATTN_DEVICE void attn_load_rows(const attn_job &job, const attn_up<C, HVP> &u, int64_t b, int h, int T, int i0, int t) {
  const mica_attention_args &a = job.a;
  const int32_t *qo = a.q.offsets, *oo = a.out.offsets;
  attn_load<C::GROUP, C::BM>(job, ATTN_Q, ATTN_WIRE_V, a.q.v, attn_place(a.q.v, qo, b, h), i0, T, u.q, t);
  attn_load<C::GROUP, C::BM>(job, ATTN_OUT, ATTN_WIRE_D, a.out.d, attn_place(a.out.d, oo, b, h), i0, T, u.o, t);
  if (!HVP) return;
  attn_load<C::GROUP, C::BM>(job, ATTN_Q, ATTN_WIRE_T, a.q.t, attn_place(a.q.t, qo, b, h), i0, T, u.qt, t);
  attn_load<C::GROUP, C::BM>(job, ATTN_OUT, ATTN_WIRE_TD, a.out.td, attn_place(a.out.td, oo, b, h), i0, T, u.ot, t);
}
/* lse and delta of the thread's rows; their cotangents have arrived */
template <class C, bool HVP>
ATTN_DEVICE void attn_rows(const attn_job &job, attn_up<C, HVP> &u, int64_t b, int h, int T, int i0, int ly, int lx) {
  const mica_attention_args &a = job.a;
  const int64_t out = attn_place(a.out.v, a.out.offsets, b, h),
                out_t = HVP ? attn_place(a.out.t, a.out.offsets, b, h) : -1;
  const int64_t lse = wire_place(a.lse.v, a.lse.offsets, b), lse_t = HVP ? wire_place(a.lse.t, a.lse.offsets, b) : -1;
#pragma unroll
  for (int i = 0; i < C::TM; i++) {
    const int    r = ly + C::RY * i, row = i0 + r;
    const bool   valid = row < T;
    const float *o = u.o + r * job.ld, *ot = HVP ? u.ot + r * job.ld : NULL;
    float        delta = 0, delta_t = 0;
#pragma unroll 1
    for (int d = lx; d < a.D && valid; d += C::RX) {
      const float y = out < 0 ? 0.0f : wire_get(a.out.v, out + row * a.out.v.stride[0] + d * a.out.v.stride[2]);
      delta = fmaf(o[d], y, delta);
      if (!HVP) continue;
      delta_t = fmaf(ot[d], y, delta_t);
      if (out_t >= 0)
        delta_t = fmaf(o[d], wire_get(a.out.t, out_t + row * a.out.t.stride[0] + d * a.out.t.stride[2]), delta_t);
    }
    u.delta[i] = attn_row_sum<C>(delta);
    u.lse[i] = valid && lse >= 0 ? wire_get(a.lse.v, lse + row * a.lse.v.stride[0] + h * a.lse.v.stride[1]) : 0;
    if (!HVP) continue;
    u.delta_t[i] = attn_row_sum<C>(delta_t);
    u.lse_t[i] = valid && lse_t >= 0 ? wire_get(a.lse.t, lse_t + row * a.lse.t.stride[0] + h * a.lse.t.stride[1]) : 0;
  }
}

/* the tile's p, ds (pt, dst); `sums`, where wanted: of scale's and slopes' cotangents */
template <class C, bool HVP>
ATTN_DEVICE void attn_scores(const attn_job &job, attn_up<C, HVP> &u, const attn_head &x, int i0, int j0, int ly,
                             int lx, bool want_sums, double (&sums)[2]) {
  const mica_attention_args &a = job.a;
  const int ld = job.ld, n4 = job.head4;
  /* p: raw scores, ds: dp, pt: raw tangents, dst: dp's tangent, until they become what they are named */
#pragma unroll
  for (int i = 0; i < C::TM; i++)
#pragma unroll
    for (int n = 0; n < C::TN; n++) u.p[i][n] = u.ds[i][n] = u.pt[i][n] = u.dst[i][n] = 0;
  attn_dot<C>(u.q, u.k, ld, n4, ly, lx, u.p);
  attn_dot<C>(u.o, u.v, ld, n4, ly, lx, u.ds);
  if (HVP) {
    attn_dot<C>(u.qt, u.k, ld, n4, ly, lx, u.pt);
    attn_dot<C>(u.q, u.kt, ld, n4, ly, lx, u.pt);
    attn_dot<C>(u.ot, u.v, ld, n4, ly, lx, u.dst);
    attn_dot<C>(u.o, u.vt, ld, n4, ly, lx, u.dst);
  }
  const bool extras = attn_has_extras(a), extras_t = HVP && attn_has_extras_t(a);
  if (extras) attn_extras<C>(a, x, i0, j0, ly, lx, u.p0);
  if (extras_t) attn_extras_t<C>(a, x, i0, j0, ly, lx, u.p1);
  float of_scale = 0, of_slope = 0;
#pragma unroll
  for (int i = 0; i < C::TM; i++) {
    const attn_row row = attn_row_of(a, x, i0 + ly + C::RY * i);
    const int      own = i0 + ly + C::RY * i + x.lag, at = (ly + C::RY * i) * C::P_LD + lx;
#pragma unroll
    for (int n = 0; n < C::TN; n++) {
      const int   key = j0 + lx + C::RX * n;
      const float raw = u.p[i][n], raw_t = u.pt[i][n], dp = u.ds[i][n] - u.delta[i];
      const float s = fmaf(x.scale, raw, extras ? u.p0[at + C::RX * n] : 0.0f);
      const float p = row.sees(key) ? expf(s - u.lse[i]) : 0.0f;
      u.p[i][n] = p;
      u.ds[i][n] = p * dp;
      if (HVP) {
        float s_t = fmaf(x.scale, raw_t, fmaf(x.scale_t, raw, extras_t ? u.p1[at + C::RX * n] : 0.0f));
        u.pt[i][n] = p == 0 ? 0.0f : p * (s_t - u.lse_t[i]);
        u.dst[i][n] = fmaf(u.pt[i][n], dp, p * (u.dst[i][n] - u.delta_t[i]));
      }
      if (!want_sums) continue;
      const float last = HVP ? u.dst[i][n] : u.ds[i][n];
      of_scale = fmaf(last, raw, of_scale);
      if (HVP) of_scale = fmaf(u.ds[i][n], raw_t, of_scale);
      of_slope = fmaf(-last, (float)abs(own - key), of_slope);
    }
  }
  sums[0] += (double)of_scale, sums[1] += (double)of_slope;
}
/* cotangents of the raw scores to (row, key) buffers: p0 meets keys, p1 (HVP) their tangents */
template <class C, bool HVP>
ATTN_DEVICE void attn_put_rows(const attn_up<C, HVP> &u, const attn_head &x, int ly, int lx) {
#pragma unroll
  for (int i = 0; i < C::TM; i++)
#pragma unroll
    for (int n = 0; n < C::TN; n++) {
      const int   at = (ly + C::RY * i) * C::P_LD + lx + C::RX * n;
      const float ds = x.scale * u.ds[i][n];
      u.p0[at] = HVP ? fmaf(x.scale, u.dst[i][n], x.scale_t * u.ds[i][n]) : ds;
      if (HVP) u.p1[at] = ds;
    }
}

/* the sums of a group's threads; `memory`: a double for each warp */
template <class C>
ATTN_DEVICE void attn_save_sums(double (&sums)[2], double *memory, double *to, int t) {
#pragma unroll
  for (int n = 0; n < 2; n++) {
    double s = sums[n];
#pragma unroll
    for (int step = 16; step; step /= 2) s += __shfl_xor_sync(0xffffffffu, s, step);
    if (C::GROUP > 32) {
      __syncthreads();
      if (t % 32 == 0) memory[t / 32] = s;
      __syncthreads();
      s = memory[0];
      for (int w = 1; w < C::GROUP / 32; w++) s += memory[w];
    }
    if (t == 0) to[n] = s;
    sums[n] = 0;
  }
}

/* ---- keys: k and v; where job.whole (all keys are one tile) q, scale and slopes too ---- */

template <class C, int COLS, bool HVP>
static __global__ void __launch_bounds__(C::THREADS, HVP || COLS > 64 ? 1 : 2)
    attention_keys(const __grid_constant__ attn_job job) {
  enum { N = COLS / (4 * C::RX), T_LD = C::T_LD };
  const mica_attention_args &a = job.a;
  const mica_wire &kd = attn_result<HVP>(a.k), &vd = attn_result<HVP>(a.v), &qd = attn_result<HVP>(a.q);
  const int        wire = HVP ? ATTN_WIRE_TD : ATTN_WIRE_D, columns = 4 * job.head4, ld = job.ld;
  const int        t = (int)threadIdx.x % C::GROUP, ly = t / C::RX, lx = t % C::RX;
  __shared__ double warps[C::GROUP / 32];
  DYN_SMEM(float, memory);
  attn_up<C, HVP> u;
  float *pT =
      u.place(memory + (int)threadIdx.x / C::GROUP * (attn_up_floats<C, HVP>(ld) + (HVP ? 4 : 2) * C::BN * T_LD), ld);
  float *dsT = pT + C::BN * T_LD, *ptT = dsT + C::BN * T_LD, *dstT = ptT + C::BN * T_LD; /* (key, row) */
  int64_t unit = (int64_t)blockIdx.x * C::GROUPS + threadIdx.x / C::GROUP;
  if (unit >= job.units) return;
  const int     col0 = (int)(unit % job.slices) * COLS, j0 = (int)(unit / job.slices % job.tiles) * C::BN;
  const int     g = (int)(unit / job.slices / job.tiles % a.G);
  const int     h0 = (int)((g * a.H + a.G - 1) / a.G), h1 = (int)(((g + 1) * a.H + a.G - 1) / a.G);
  const int64_t first = unit / job.slices / job.tiles / a.G;
  auto follows = [&](int64_t b) {
    return wire_follows(kd, a.k.offsets, b) || wire_follows(vd, a.v.offsets, b) ||
           (job.whole && wire_follows(qd, a.q.offsets, b));
  };
  if (follows(first) || (job.longer && attn_is_long(a, first, job.longer))) return;
  for (int64_t b = first; b == first || (b < a.B && follows(b)); b++) {
    const int T = (int)wire_rows(a.q.offsets, b, a.T), S = (int)wire_rows(a.k.offsets, b, a.S);
    float     dk[C::KEYS][4 * N], dv[C::KEYS][4 * N];
#pragma unroll
    for (int m = 0; m < C::KEYS; m++)
#pragma unroll
      for (int c = 0; c < 4 * N; c++) dk[m][c] = dv[m][c] = 0;
    if (j0 >= S && !job.whole) continue;
    attn_sync<C::GROUP>();
    attn_load_keys<C, HVP>(job, u, b, g, S, j0, t);
    ptx_copy_commit();                       /* waited for at the end even where no row meets these keys */
    for (int h = h0; h < h1; h++) {
      const attn_head x = attn_enter(a, b, h);
      const bool      want_sums = job.sums && job.whole && col0 == 0;
      double          sums[2] = { 0, 0 };
      for (int i0 = 0; i0 < T; i0 += C::BM) {
        const bool meets = attn_meets(a, x, i0, i0 + C::BM, j0, j0 + C::BN);
        if (meets) {
          attn_sync<C::GROUP>();
          attn_load_rows<C, HVP>(job, u, b, h, T, i0, t);
          ptx_copy_commit();
          ptx_copy_wait<0>();
          attn_sync<C::GROUP>();
          attn_rows<C, HVP>(job, u, b, h, T, i0, ly, lx);
          attn_scores<C, HVP>(job, u, x, i0, j0, ly, lx, want_sums, sums);
#pragma unroll
          for (int i = 0; i < C::TM; i++)
#pragma unroll
            for (int n = 0; n < C::TN; n++) {
              const int   at = (lx + C::RX * n) * T_LD + ly + C::RY * i;
              const float ds = x.scale * u.ds[i][n];
              pT[at] = u.p[i][n], dsT[at] = ds;
              if (HVP) ptT[at] = u.pt[i][n], dstT[at] = fmaf(x.scale, u.dst[i][n], x.scale_t * u.ds[i][n]);
            }
          if (job.whole) attn_put_rows<C, HVP>(u, x, ly, lx);
          attn_sync<C::GROUP>();
          if (HVP) {
            attn_mix<C, C::KEYS, N, C::BM>(ptT, T_LD, u.o, ld, col0, columns, ly, lx, dv);
            attn_mix<C, C::KEYS, N, C::BM>(pT, T_LD, u.ot, ld, col0, columns, ly, lx, dv);
            attn_mix<C, C::KEYS, N, C::BM>(dstT, T_LD, u.q, ld, col0, columns, ly, lx, dk);
            attn_mix<C, C::KEYS, N, C::BM>(dsT, T_LD, u.qt, ld, col0, columns, ly, lx, dk);
          } else {
            attn_mix<C, C::KEYS, N, C::BM>(pT, T_LD, u.o, ld, col0, columns, ly, lx, dv);
            attn_mix<C, C::KEYS, N, C::BM>(dsT, T_LD, u.q, ld, col0, columns, ly, lx, dk);
          }
        }
        const int64_t place = job.whole ? attn_place(qd, a.q.offsets, b, h) : -1;
        if (place < 0) continue;
        float dq[C::TM][4 * N];              /* zeros where no row meets a key */
#pragma unroll
        for (int i = 0; i < C::TM; i++)
#pragma unroll
          for (int c = 0; c < 4 * N; c++) dq[i][c] = 0;
        if (meets) attn_mix<C, C::TM, N, C::BN>(u.p0, C::P_LD, u.k, ld, col0, columns, ly, lx, dq);
        if (meets && HVP) attn_mix<C, C::TM, N, C::BN>(u.p1, C::P_LD, u.kt, ld, col0, columns, ly, lx, dq);
#pragma unroll
        for (int i = 0; i < C::TM; i++)
          if (i0 + ly + C::RY * i < T)
            attn_write<C, N>(job, ATTN_Q, wire, qd, place, i0 + ly + C::RY * i, col0, lx, dq[i], 1.0f,
                             attn_adds(qd, a.q.offsets, b));
      }
      if (want_sums) attn_save_sums<C>(sums, warps, job.sums + 2 * (b * a.H + h), t);
    }
    ptx_copy_wait<0>();
    const int64_t k_at = attn_place(kd, a.k.offsets, b, g), v_at = attn_place(vd, a.v.offsets, b, g);
#pragma unroll
    for (int m = 0; m < C::KEYS; m++) {
      const int key = j0 + ly + C::RY * m;
      if (key >= S) continue;
      if (k_at >= 0)
        attn_write<C, N>(job, ATTN_K, wire, kd, k_at, key, col0, lx, dk[m], 1.0f, attn_adds(kd, a.k.offsets, b));
      if (v_at >= 0)
        attn_write<C, N>(job, ATTN_V, wire, vd, v_at, key, col0, lx, dv[m], 1.0f, attn_adds(vd, a.v.offsets, b));
    }
  }
}

/* ---- queries: q, scale and slopes, where the keys are several tiles ---- */

template <class C, int COLS, bool HVP>
static __global__ void __launch_bounds__(C::THREADS, HVP || COLS > 64 ? 1 : 2)
    attention_queries(const __grid_constant__ attn_job job) {
  enum { N = COLS / (4 * C::RX) };
  const mica_attention_args &a = job.a;
  const mica_wire &qd = attn_result<HVP>(a.q);
  const int t = (int)threadIdx.x % C::GROUP, ly = t / C::RX, lx = t % C::RX, columns = 4 * job.head4, ld = job.ld;
  __shared__ double warps[C::GROUP / 32];
  DYN_SMEM(float, memory);
  attn_up<C, HVP> u;
  u.place(memory + (int)threadIdx.x / C::GROUP * attn_up_floats<C, HVP>(ld), ld);
  int64_t unit = (int64_t)blockIdx.x * C::GROUPS + threadIdx.x / C::GROUP;
  if (unit >= job.units) return;
  const int     col0 = (int)(unit % job.slices) * COLS, tile = (int)(unit / job.slices % job.tiles), i0 = tile * C::BM;
  const int     h = (int)(unit / job.slices / job.tiles % a.H), g = (int)(h * a.G / a.H);
  const int64_t first = unit / job.slices / job.tiles / a.H;
  if (wire_follows(qd, a.q.offsets, first) && qd.data) return;
  if (job.longer && attn_is_long(a, first, job.longer)) return;
  for (int64_t b = first; b == first || (b < a.B && qd.data && wire_follows(qd, a.q.offsets, b)); b++) {
    const attn_head x = attn_enter(a, b, h);
    const bool      want_sums = job.sums && col0 == 0;
    double          sums[2] = { 0, 0 };
    float           dq[C::TM][4 * N];
    if (i0 >= x.T) continue;
#pragma unroll
    for (int i = 0; i < C::TM; i++)
#pragma unroll
      for (int c = 0; c < 4 * N; c++) dq[i][c] = 0;
    attn_sync<C::GROUP>();
    attn_load_rows<C, HVP>(job, u, b, h, x.T, i0, t);
    ptx_copy_commit();
    ptx_copy_wait<0>();
    attn_sync<C::GROUP>();
    attn_rows<C, HVP>(job, u, b, h, x.T, i0, ly, lx);
    for (int j0 = 0; j0 < x.S; j0 += C::BN) {
      if (!attn_meets(a, x, i0, i0 + C::BM, j0, j0 + C::BN)) continue;
      attn_sync<C::GROUP>();
      attn_load_keys<C, HVP>(job, u, b, g, x.S, j0, t);
      ptx_copy_commit();
      ptx_copy_wait<0>();
      attn_sync<C::GROUP>();
      attn_scores<C, HVP>(job, u, x, i0, j0, ly, lx, want_sums, sums);
      attn_put_rows<C, HVP>(u, x, ly, lx);
      attn_sync<C::GROUP>();
      attn_mix<C, C::TM, N, C::BN>(u.p0, C::P_LD, u.k, ld, col0, columns, ly, lx, dq);
      if (HVP) attn_mix<C, C::TM, N, C::BN>(u.p1, C::P_LD, u.kt, ld, col0, columns, ly, lx, dq);
    }
    if (want_sums) attn_save_sums<C>(sums, warps, job.sums + 2 * ((b * a.H + h) * job.tiles + tile), t);
    const int64_t place = attn_place(qd, a.q.offsets, b, h);
#pragma unroll
    for (int i = 0; i < C::TM; i++)
      if (place >= 0 && i0 + ly + C::RY * i < x.T)
        attn_write<C, N>(job, ATTN_Q, HVP ? ATTN_WIRE_TD : ATTN_WIRE_D, qd, place, i0 + ly + C::RY * i, col0, lx, dq[i],
                         1.0f, attn_adds(qd, a.q.offsets, b));
  }
}

/* ---- launchers ---- */

/* tiles of keys or rows that a shape cuts a task into, and whether one tile holds all keys */
struct attn_plan {
  int     small, lone;                       /* which shape; else the square one */
  int     whole;
  int64_t row_tiles, key_tiles;
};
static inline attn_plan attn_plan_of(const mica_attention_args *a, bool hvp) {
  attn_plan p = { a->T <= 16 && a->S <= 16 && a->D <= 64, hvp && a->D > 128, 0, 0, 0 };
  const int64_t side = p.small || p.lone ? 16 : 32;
  p.row_tiles = (a->T + side - 1) / side, p.key_tiles = (a->S + side - 1) / side;
  p.whole = a->S <= side;
  if (p.whole) p.key_tiles = 1;              /* rows are written even where there is no key */
  return p;
}
/* doubles of scratch for the sums of scale's and slopes' cotangents */
static inline int64_t attn_sums(const mica_attention_args *a, bool hvp) {
  if (hvp ? !a->scale.td.data && !a->slopes.td.data : !a->scale.d.data && !a->slopes.d.data) return 0;
  attn_plan p = attn_plan_of(a, hvp);
  return 2 * a->B * a->H * (p.whole ? 1 : p.row_tiles);
}

template <class C, int COLS, bool HVP>
static mica_status attn_run_keys(attn_job *job, const attn_plan &plan, void *stream) {
  const mica_attention_args *a = &job->a;
  job->whole = plan.whole, job->tiles = plan.key_tiles, job->slices = (int32_t)((a->D + COLS - 1) / COLS);
  job->units = a->B * a->G * job->tiles * job->slices;
  size_t floats = attn_up_floats<C, HVP>(job->ld) + (HVP ? 4 : 2) * C::BN * C::T_LD;
  return micak_launch(HVP ? "attention backward_jvp keys" : "attention backward keys", attention_keys<C, COLS, HVP>,
                      dim3(micak_blocks(job->units, C::GROUPS)), dim3(C::THREADS), C::GROUPS * floats * sizeof(float),
                      stream, *job);
}
template <class C, int COLS, bool HVP>
static mica_status attn_run_queries(attn_job *job, const attn_plan &plan, void *stream) {
  const mica_attention_args *a = &job->a;
  job->whole = 0, job->tiles = plan.row_tiles, job->slices = (int32_t)((a->D + COLS - 1) / COLS);
  job->units = a->B * a->H * job->tiles * job->slices;
  return micak_launch(HVP ? "attention backward_jvp queries" : "attention backward queries",
                      attention_queries<C, COLS, HVP>, dim3(micak_blocks(job->units, C::GROUPS)), dim3(C::THREADS),
                      C::GROUPS * attn_up_floats<C, HVP>(job->ld) * sizeof(float), stream, *job);
}

/* the four launches of the two faces, each in its own file */
mica_status attn_backward_queries(attn_job *job, const attn_plan &plan, void *stream);
mica_status attn_backward_jvp_queries(attn_job *job, const attn_plan &plan, void *stream);
/* bias's cotangent, and scale's and slopes' from their sums */
mica_status attn_extras_cotangents(const attn_job &job, const attn_plan &plan, bool hvp, void *stream);

#endif
