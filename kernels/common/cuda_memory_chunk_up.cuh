/* cuda_memory_chunk_up.cuh: backward and backward_jvp of memory.h on CUDA in chunks, one text for both (DUAL).
 *
 * neither walk needs the other: one launch, half of its blocks down, half up. the way down (cuda_memory_chunk.cuh) keeps
 * the state before each chunk and e, the way up G, the cotangent of the state after each chunk, and w. then no chunk waits
 * for another: memory_chunk_join makes the results of all tokens, a block a chunk, a warp 16 columns of K. */
#ifndef MICA_KERNELS_COMMON_CUDA_MEMORY_CHUNK_UP_CUH
#define MICA_KERNELS_COMMON_CUDA_MEMORY_CHUNK_UP_CUH

#include "common/cuda_memory_chunk.cuh"
#include "common/cuda_memory_up.cuh"

/* ---- up: cotangents of states, and of what is written ---- */

template <class RULE, int NK>
MEM_DEVICE void chunk_up(const chunk_job &c, const mem_team &team, int64_t b, int64_t h, int j0) {
  constexpr bool DELTA = RULE::DELTA, DECAY = RULE::DECAY, DUAL = RULE::DUAL;
  typedef chunk_cells<RULE> at;
  const mem_job   &job = c.m;
  const uint32_t   kinds = 1u << MEM_Q | 1u << MEM_D | (RULE::WRITES & ~(1u << MEM_V));
  const mica_wire &state = mem_result<DUAL>(job.state_in), &norm = mem_result<DUAL>(job.norm_in);
  const int        T = (int)wire_rows(job.q.offsets, b, job.T), chunks = (T + CHUNK - 1) / CHUNK, warp = team.lane / 32;
  const int        j = j0 + 16 * warp, end = min(j0 + job.width, job.columns), ld = job.K4, ld_d = job.ld[MEM_D];
  const bool       mine = warp < c.tiles, wanted = state.data || norm.data;
  float            G[NK][4] = {}, G_t[DUAL ? NK : 1][4] = {};
  mem_enter<DUAL>(job, team, b, h, j0, kinds);
  if (mine && c.after) {
    chunk_load(job, mem_cells(job.state_out.d, job.norm_out.d, b, h), j, end, G, b);
    if constexpr (DUAL) chunk_load(job, mem_cells(job.state_out.td, job.norm_out.td, b, h), j, end, G_t, b);
  }
  chunk_walk<RULE, true>(c, team, kinds, T, true, [&](const chunk_at &of) {
    const bool    has = c.after || of.chunk + 1 < chunks, more = wanted || of.chunk; /* G after, and before? */
    const int64_t row = mem_row(job, b, h) + (int64_t)of.chunk * CHUNK * job.row;
    const float  *cells = of.cells;
    auto          token = [&](int kind, int tangent) { return mem_token(job, of.buffer, kind, tangent, of.first); };
    const float  *k = token(MEM_K, 0), *k_t = token(MEM_K, 1), *q = token(MEM_Q, 0), *q_t = token(MEM_Q, 1);
    const float  *d = token(MEM_D, 0) + 16 * warp, *d_t = token(MEM_D, 1) + 16 * warp;
    const float  *last = DECAY ? cells + at::SIZE : k; /* keys as the chunk's end sees them */
    const float  *last_t = DECAY ? last + DUAL * (CHUNK + 1) * ld : k_t;
    chunk_tile    w = {}, w_t = {};
    chunk_left    a[2], a_t[2], y[2], y_t[2]; /* of d, and of y */
    if (has) {
      chunk_keep(G, j, c.G[0] + chunk_kept(c, b, h, of.chunk));
      if constexpr (DUAL) chunk_keep(G_t, j, c.G[1] + chunk_kept(c, b, h, of.chunk));
      if constexpr (DUAL) chunk_read<false, true>(G, G_t, last, last_t, ld, w, w_t);
      else chunk_read<false>(G, last, ld, w);
    }
#pragma unroll
    for (int s = 0; s < 2; s++) {
      a[s] = chunk_left_columns(d + 8 * s * ld_d, ld_d);
      if (DUAL) a_t[s] = chunk_left_columns(d_t + 8 * s * ld_d, ld_d);
    }
    chunk_mix<false, true>(a, cells + at::M, w);
    if constexpr (DUAL) {
      chunk_mix<false, true>(a_t, cells + at::M, w_t);
      chunk_mix<false, true>(a, cells + at::M_T, w_t);
    }
    if (more) {                              /* d is done with before y is there: registers */
      if constexpr (DECAY) chunk_fade_state<DUAL>(last + CHUNK * ld, last_t + CHUNK * ld, G, G_t);
      if constexpr (DUAL) chunk_write<false>(a, a_t, q, q_t, ld, G, G_t);
      else chunk_write<false>(a, q, ld, G);
    }
    if constexpr (DELTA) {
      const float *beta = token(MEM_BETA, 0), *beta_t = token(MEM_BETA, 1);
      chunk_tile   x = {}, z = {};
      chunk_scale(w, beta, x);
      chunk_lefts(x, y);
      chunk_mix<false, true>(y, cells + at::I, z);
      chunk_lefts(z, y);
      chunk_mix<true, true>(y, cells + at::N, w);
      if constexpr (DUAL) {
        chunk_mix<true, true>(y, cells + at::N_T, w_t);
        chunk_scale(w, beta_t, x);
        chunk_scale_add(w_t, beta, x);
        chunk_lefts(x, y_t);
        chunk_zero(z);
        chunk_mix<false, true>(y_t, cells + at::I, z);
        chunk_lefts(z, y_t);
        chunk_mix<true, true>(y_t, cells + at::N, w_t);
      }
    }
    chunk_put(w, of.tokens, j, end, job.w[0] + row, job.row);
    if (DUAL) chunk_put(w_t, of.tokens, j, end, job.w[1] + row, job.row);
    if constexpr (DELTA) {
      if (!more) return;
      if constexpr (DUAL) chunk_write<true>(y, y_t, k, k_t, ld, G, G_t);
      else chunk_write<true>(y, k, ld, G);
    }
  });
  if (!wanted || !mine) return;
  const mem_cells before(state, norm, b, h);
  if constexpr (DUAL) chunk_save(job, before, j, end, G_t, b, h);
  else chunk_save(job, before, j, end, G, b, h);
}

template <class RULE, int NK>
static __global__ void __launch_bounds__(CHUNK_THREADS, 1) memory_chunk_walks(const __grid_constant__ chunk_job c) {
  DYN_SMEM(float, memory);
  const mem_job &job = c.m;
  const mem_team team(job, memory);
  const int64_t  unit = blockIdx.x, b = unit / job.slices / job.H, h = unit / job.slices % job.H;
  const int      j0 = (int)(unit % job.slices) * job.width;
  if (!mem_mine(job, wire_rows(job.q.offsets, b, job.T))) return;
  if (c.walk + blockIdx.y == 0) chunk_down<RULE, NK, true>(c, team, b, h, j0);
  else chunk_up<RULE, NK>(c, team, b, h, j0);
}

/* ---- the results of a chunk ---- */

/* x += m p, or m' p where TURNED: p 16 columns of staged rows */
template <bool TURNED>
MEM_DEVICE void chunk_join_tokens(const float *m, const float *p, int ld, chunk_tile &x) {
  chunk_tile sum = {};
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const chunk_left a =
        TURNED ? chunk_left_columns(m + 8 * k * CHUNK_LD, CHUNK_LD) : chunk_left_rows(m + 8 * k, CHUNK_LD);
#pragma unroll
    for (int n = 0; n < 2; n++) chunk_multiply(sum[n], a, chunk_right_columns(p + 8 * k * ld + 8 * n, ld));
  }
#pragma unroll
  for (int n = 0; n < 2; n++) chunk_add<false>(x[n], sum[n]);
}
/* what is below the diagonal, by the warp that has x: alone, or x + x' */
MEM_DEVICE void chunk_below(const chunk_tile &x, bool alone, float *to) {
#pragma unroll
  for (int e = 0; e < 8; e++) {
    const int row = chunk_g() + e / 2 % 2 * 8, col = 8 * (e / 4) + chunk_t() + e % 2;
    if (row > col) to[row * CHUNK_LD + col] = x[e / 4][e % 4];
    if (row >= col) to[col * CHUNK_LD + row] = row > col && !alone ? x[e / 4][e % 4] : 0.0f;
  }
}
/* rows of the warp to shared memory */
MEM_DEVICE void chunk_spread(const chunk_tile &x, float *to, int ld) {
#pragma unroll
  for (int e = 0; e < 8; e++) to[(chunk_g() + e / 2 % 2 * 8) * ld + 8 * (e / 4) + chunk_t() + e % 2] = x[e / 4][e % 4];
}
/* 16 columns of rows of tokens to a wire */
MEM_DEVICE void chunk_put_rows(const chunk_tile &x, int n, int i0, int columns, const mica_wire &w, int64_t place,
                               bool adds) {
#pragma unroll
  for (int e = 0; e < 8; e++) {
    const int t = chunk_g() + e / 2 % 2 * 8, i = i0 + 8 * (e / 4) + chunk_t() + e % 2;
    if (t < n && i < columns) wire_put(w, place + t * w.stride[0] + i * w.stride[2], x[e / 4][e % 4], adds);
  }
}

/* what is written and its cotangent, from e and w, in their place: u, and -y; to v's wire y, for beta <w, e> */
template <class RULE>
MEM_DEVICE void chunk_join_written(const mem_job &job, const mem_team &team, int64_t b, int64_t h, int t0, int n, int j0,
                                   float *buffer, float *of_beta) {
  constexpr bool   DELTA = RULE::DELTA, DUAL = RULE::DUAL;
  const mica_wire &vd = mem_result<DUAL>(job.v);
  const int64_t    place = mem_place(vd, job.v.offsets, b, h);
  const bool       adds = place >= 0 && mem_adds(vd, job.v.offsets, b);
  const int        ld = job.ld[MEM_W];
  for (int r = team.lane / 32; r < n; r += team.lanes / 32) {
    float *e = buffer + job.at[2 * MEM_E] + r * ld, *e_t = buffer + job.at[2 * MEM_E + 1] + r * ld;
    float *w = buffer + job.at[2 * MEM_W] + r * ld, *w_t = buffer + job.at[2 * MEM_W + 1] + r * ld;
    const float beta = DELTA ? *mem_token(job, buffer, MEM_BETA, 0, r) : 1.0f;
    const float beta_t = DELTA && DUAL ? *mem_token(job, buffer, MEM_BETA, 1, r) : 0.0f;
    float       sum = 0;
    for (int col = team.lane % 32; col < job.width; col += 32) {
      const float ww = w[col], ww_t = DUAL ? w_t[col] : 0.0f;
      float       y = ww, y_t = ww_t;
      if constexpr (DELTA) {
        const float ee = e[col], ee_t = DUAL ? e_t[col] : 0.0f;
        sum = DUAL ? fmaf(ww_t, ee, fmaf(ww, ee_t, sum)) : fmaf(ww, ee, sum);
        y = beta * ww, y_t = fmaf(beta_t, ww, beta * ww_t);
        e[col] = beta * ee, w[col] = -y;
        if (DUAL) e_t[col] = fmaf(beta_t, ee, beta * ee_t), w_t[col] = -y_t;
      }
      if (place >= 0 && j0 + col < job.V)
        wire_put(vd, place + (t0 + r) * vd.stride[0] + (j0 + col) * vd.stride[2], DUAL ? y_t : y, adds);
    }
    if (!DELTA) continue;
    sum = warp_sum(sum);
    if (team.lane % 32 == 0) of_beta[r] = j0 ? of_beta[r] + sum : sum;
  }
}

/* with decay: a pair of lanes a channel i, each every other s. w: W_t of gated_delta/README.md, y: its cotangent, back over
 * the tokens t that read it; s = -1 is the state before the chunk. rows: Q^-, K^- and K~-; g: of the product of all
 * factors. both lanes of a pair get the sums */
template <class RULE>
MEM_DEVICE void chunk_join_fade(const mem_job &job, const float *buffer, const float *cells, const float *rows, int i,
                                float g, float g_t, float (&dq)[CHUNK], float (&dk)[CHUNK], float (&da)[CHUNK]) {
  constexpr bool DELTA = RULE::DELTA, DUAL = RULE::DUAL;
  const int      ld = job.K4, odd = (int)threadIdx.x % 2;
  auto staged = [&](int kind, int tangent) { return mem_token(job, buffer, kind, tangent, 0) + i; };
  auto row = [&](int kind, int tangent) { return rows + (kind * (1 + DUAL) + tangent) * CHUNK * ld + i; };
  const float *q = staged(MEM_Q, 0), *k = staged(MEM_K, 0), *a = staged(MEM_A, 0);
  const float *q_t = staged(MEM_Q, DUAL), *k_t = staged(MEM_K, DUAL), *a_t = staged(MEM_A, DUAL);
#pragma unroll 1
  for (int s = odd - 1; s < CHUNK; s += 2) {
    const bool   whole = s < 0;
    const int    step = whole ? ld : CHUNK_LD;
    const float *m = whole ? row(0, 0) : cells + s, *m_t = whole ? row(0, DUAL) : m + DUAL * CHUNK_CELLS;
    const float *n = whole ? row(1, 0) : cells + (1 + DUAL) * CHUNK_CELLS + s;
    const float *n_t = whole ? row(1, DUAL) : n + DUAL * CHUNK_CELLS;
    float        w[CHUNK], w_t[CHUNK], x = whole ? 1.0f : 0.0f, x_t = 0;
    float        y = whole ? g : row(2, 0)[s * ld], y_t = !DUAL ? 0.0f : whole ? g_t : row(2, DUAL)[s * ld];
#pragma unroll
    for (int t = 0; t < CHUNK; t++) {
      if (DUAL) w_t[t] = x_t = t == s ? k_t[t * ld] : fmaf(a_t[t * ld], x, a[t * ld] * x_t);
      w[t] = x = t == s ? k[t * ld] : a[t * ld] * x;
    }
#pragma unroll
    for (int t = CHUNK - 1; t >= 0; t--) {
      if (t < s) break;
      const float mm = m[t * step], nn = DELTA ? n[t * step] : 0.0f;
      y = fmaf(mm, q[t * ld], y);
      if (DELTA) y = fmaf(nn, k[t * ld], y);
      if (DUAL) {
        const float mm_t = m_t[t * step], nn_t = DELTA ? n_t[t * step] : 0.0f;
        y_t = fmaf(mm_t, q[t * ld], fmaf(mm, q_t[t * ld], y_t));
        dq[t] = fmaf(mm_t, w[t], fmaf(mm, w_t[t], dq[t]));
        if (DELTA) {
          y_t = fmaf(nn_t, k[t * ld], fmaf(nn, k_t[t * ld], y_t));
          dk[t] = fmaf(nn_t, w[t], fmaf(nn, w_t[t], dk[t]));
        }
      } else {
        dq[t] = fmaf(mm, w[t], dq[t]);
        if (DELTA) dk[t] = fmaf(nn, w[t], dk[t]);
      }
      if (t == s) {
        dk[t] += DUAL ? y_t : y;
      } else {
        const float before = t ? w[t - (t > 0)] : 1.0f, before_t = DUAL && t ? w_t[t - (t > 0)] : 0.0f;
        da[t] = DUAL ? fmaf(y_t, before, fmaf(y, before_t, da[t])) : fmaf(y, before, da[t]);
        if (DUAL) y_t = fmaf(a_t[t * ld], y, a[t * ld] * y_t);
        y *= a[t * ld];
      }
    }
  }
#pragma unroll
  for (int t = 0; t < CHUNK; t++) {
    dq[t] += __shfl_xor_sync(~0u, dq[t], 1);
    dk[t] += __shfl_xor_sync(~0u, dk[t], 1);
    da[t] += __shfl_xor_sync(~0u, da[t], 1);
  }
}
/* a channel of n tokens to a wire */
MEM_DEVICE void chunk_put_channel(const float (&x)[CHUNK], int n, const mica_wire &w, int64_t place, bool adds) {
#pragma unroll
  for (int t = 0; t < CHUNK; t++)
    if (t < n) wire_put(w, place + t * w.stride[0], x[t], adds);
}

/* what it stages */
template <class RULE>
struct chunk_join_kinds {
  enum { KEPT = RULE::DELTA ? 1 << MEM_E | 1 << MEM_BETA : 1 << MEM_V, DECAY = RULE::DECAY ? 1 << MEM_A : 0 };
  enum { ALL = 1 << MEM_K | 1 << MEM_Q | 1 << MEM_D | 1 << MEM_W | KEPT | DECAY };
};
template <class RULE>
static __global__ void __launch_bounds__(CHUNK_THREADS, 1) memory_chunk_join(const __grid_constant__ chunk_job c) {
  constexpr bool DELTA = RULE::DELTA, DECAY = RULE::DECAY, DUAL = RULE::DUAL, VALUE = DECAY || !DUAL;
  DYN_SMEM(float, memory);
  const mem_job   &job = c.m;
  const mem_team   team(job, memory);
  const mica_wire &qd = mem_result<DUAL>(job.q), &kd = mem_result<DUAL>(job.k), &vd = mem_result<DUAL>(job.v);
  const mica_wire &bd = mem_result<DUAL>(job.beta), &ad = mem_result<DUAL>(job.a);
  const uint32_t   kinds = chunk_join_kinds<RULE>::ALL;
  const int64_t    unit = blockIdx.x, h = unit / c.most % job.H, first = unit / c.most / job.H;
  const int        chunk = (int)(unit % c.most), t0 = chunk * CHUNK, warp = team.lane / 32, warps = team.lanes / 32;
  const int        i0 = 16 * warp, ld = job.K4, ld_v = job.ld[MEM_W], written = DELTA ? MEM_E : MEM_V;
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? */
    return (vd.data && wire_follows(vd, job.v.offsets, b)) || (qd.data && wire_follows(qd, job.q.offsets, b)) ||
           (kd.data && wire_follows(kd, job.k.offsets, b)) || (bd.data && wire_follows(bd, job.beta.offsets, b)) ||
           (ad.data && wire_follows(ad, job.a.offsets, b));
  };
  if (follows(first)) return;
  float *cells = team.results, *both = cells + CHUNK_CELLS * (1 + DUAL); /* M-; N-, or N- + N-'; each with its tangent */
  float *of_beta = both + DELTA * CHUNK_CELLS * (1 + DUAL), *rows = of_beta + CHUNK;
  float *of_a = rows + 3 * (1 + DUAL) * CHUNK * job.K4;
  for (int64_t b = first; b == first || (b < job.B && follows(b)); b++) {
    const int  T = (int)wire_rows(job.q.offsets, b, job.T), n = min((int)CHUNK, T - t0);
    const bool before = c.before || chunk, after = c.after || t0 + CHUNK < T;
    if (n <= 0 || !mem_mine(job, T)) continue;
    chunk_tile of[DECAY ? 3 : 2][1 + DUAL] = {}; /* of queries and of keys; with decay of Q^, K^ and K~ */
    chunk_tile m[1 + DUAL] = {}, nn[1 + DUAL] = {}; /* m: of warp 0 M-; nn: of the next, or of the same, N- */
    float      g = 0, g_t = 0;                /* with decay, of a lane's channel: of the product of all factors */
    for (int j0 = 0; j0 < job.columns; j0 += job.width) {
      float *buffer = team.memory;
      const int eights = (min(job.width, job.columns - j0) + 7) / 8;
      team.sync();                           /* what lies there may still be read */
      mem_enter<DUAL>(job, team, b, h, j0, kinds);
      team.sync();
      chunk_stage<DUAL>(job, team, kinds, t0, n, buffer);
      ptx_copy_commit();
      ptx_copy_wait<0>();
      team.sync();
      chunk_join_written<RULE>(job, team, b, h, t0, n, j0, buffer, of_beta);
      team.sync();
      const float *d = mem_token(job, buffer, MEM_D, 0, 0), *d_t = mem_token(job, buffer, MEM_D, 1, 0);
      const float *u = mem_token(job, buffer, written, 0, 0), *u_t = mem_token(job, buffer, written, 1, 0);
      const float *y = mem_token(job, buffer, MEM_W, 0, 0), *y_t = mem_token(job, buffer, MEM_W, 1, 0);
      const int64_t at = chunk_kept(c, b, h, chunk) + (int64_t)j0 * c.K + i0;
      if (warp == 0) chunk_products<false, true, DUAL>(d, d_t, ld_v, u, u_t, ld_v, eights, m);
      if (DELTA && warp == (warps > 1)) chunk_products<false, true, DUAL>(y, y_t, ld_v, u, u_t, ld_v, eights, nn);
      const float *S = c.S[0] + at, *S_t = c.S[DUAL] + at, *G = c.G[0] + at, *G_t = c.G[DUAL] + at;
      if (before) chunk_products<true, VALUE, DUAL>(d, d_t, ld_v, S, S_t, c.K, eights, of[0]);
      if (DELTA && before) chunk_products<true, VALUE, DUAL>(y, y_t, ld_v, S, S_t, c.K, eights, of[1]);
      if (after) chunk_products<true, VALUE, DUAL>(u, u_t, ld_v, G, G_t, c.K, eights, of[1 + DECAY]);
      if (DECAY && before && after)
        for (int row = team.lane % 2; row < min(job.width, job.columns - j0); row += 2) {
          const int cell = row * c.K + team.lane % 32 / 2;
          if (DUAL) g_t = fmaf(G_t[cell], S[cell], fmaf(G[cell], S_t[cell], g_t));
          g = fmaf(G[cell], S[cell], g);
        }
    }
#pragma unroll
    for (int x = 0; x < 1 + DUAL; x++) {
      if (warp == 0) chunk_lower(m[x], 0, cells + x * CHUNK_CELLS);
      if (DELTA && warp == (warps > 1)) chunk_below(nn[x], DECAY, both + x * CHUNK_CELLS);
#pragma unroll
      for (int n = 0; DECAY && n < 3; n++)
        chunk_spread(of[DECAY ? n : 0][x], rows + (n * (1 + DUAL) + x) * CHUNK * ld + i0, ld);
    }
    team.sync();
    if (const int64_t place = mem_place(bd, job.beta.offsets, b, h); DELTA && place >= 0 && team.lane < n)
      wire_put(bd, place + (t0 + team.lane) * bd.stride[0], of_beta[team.lane], mem_adds(bd, job.beta.offsets, b));
    const int64_t q_at = mem_place(qd, job.q.offsets, b, h), k_at = mem_place(kd, job.k.offsets, b, h);
    if constexpr (DECAY) {
      const int64_t a_at = mem_place(ad, job.a.offsets, b, h);
      const int     i = i0 + team.lane % 32 / 2, odd = team.lane % 2;
      float         dq[CHUNK] = {}, dk[CHUNK] = {}, da[CHUNK] = {};
      g += __shfl_xor_sync(~0u, g, 1);
      if (DUAL) g_t += __shfl_xor_sync(~0u, g_t, 1);
      chunk_join_fade<RULE>(job, team.memory, cells, rows, i, g, g_t, dq, dk, da);
      if (q_at >= 0 && !odd && i < job.K)
        chunk_put_channel(dq, n, qd, q_at + t0 * qd.stride[0] + i * qd.stride[2], mem_adds(qd, job.q.offsets, b));
      if (k_at >= 0 && odd && i < job.K)
        chunk_put_channel(dk, n, kd, k_at + t0 * kd.stride[0] + i * kd.stride[2], mem_adds(kd, job.k.offsets, b));
      if (a_at >= 0 && !odd && i < job.K && !c.scalar)
        chunk_put_channel(da, n, ad, a_at + t0 * ad.stride[0] + i * ad.stride[2], mem_adds(ad, job.a.offsets, b));
      if (!c.scalar) continue;
#pragma unroll
      for (int t = 0; t < CHUNK; t++) {      /* pairs have the same numbers */
        for (int step = 2; step < 32; step *= 2) da[t] += __shfl_xor_sync(~0u, da[t], step);
        if (team.lane % 32 == 0) of_a[warp * CHUNK + t] = da[t];
      }
      team.sync();
      if (a_at < 0 || team.lane >= n) continue;
      float sum = 0;
      for (int of_warp = 0; of_warp < warps; of_warp++) sum += of_a[of_warp * CHUNK + team.lane];
      wire_put(ad, a_at + (t0 + team.lane) * ad.stride[0], sum, mem_adds(ad, job.a.offsets, b));
    } else {
      chunk_tile &dq = of[0][DUAL], &dk = of[1][DUAL];
      auto        token = [&](int kind, int tangent) { return mem_token(job, team.memory, kind, tangent, 0) + i0; };
      chunk_join_tokens<false>(cells + DUAL * CHUNK_CELLS, token(MEM_K, 0), ld, dq);
      chunk_join_tokens<true>(cells + DUAL * CHUNK_CELLS, token(MEM_Q, 0), ld, dk);
      if (DELTA) chunk_join_tokens<false>(both + DUAL * CHUNK_CELLS, token(MEM_K, 0), ld, dk);
      if constexpr (DUAL) {
        chunk_join_tokens<false>(cells, token(MEM_K, 1), ld, dq);
        chunk_join_tokens<true>(cells, token(MEM_Q, 1), ld, dk);
        if (DELTA) chunk_join_tokens<false>(both, token(MEM_K, 1), ld, dk);
      }
      if (q_at >= 0) chunk_put_rows(dq, n, i0, job.K, qd, q_at + t0 * qd.stride[0], mem_adds(qd, job.q.offsets, b));
      if (k_at >= 0) chunk_put_rows(dk, n, i0, job.K, kd, k_at + t0 * kd.stride[0], mem_adds(kd, job.k.offsets, b));
    }
  }
}

/* ---- faces ---- */

/* the parts of the job that lie in scratch; returns its bytes */
template <class RULE>
static inline size_t chunk_up_scratch(chunk_job *c, float *scratch) {
  mem_job      *job = &c->m;
  const int64_t pairs = job->B * job->H;
  const bool    dual = RULE::DUAL;
  int64_t       at = mem_state_scratch(job, dual ? job->state_in.td : job->state_in.d,
                                       dual ? job->norm_in.td : job->norm_in.d, scratch);
  if (job->divide) mem_readings(job, scratch, &at, RULE::DUAL);
  for (int i = 0; i < 1 + RULE::DUAL; i++) {
    if (RULE::DELTA) job->e[i] = mem_take(scratch, &at, pairs * job->T * job->row);
    job->w[i] = mem_take(scratch, &at, pairs * job->T * job->row);
    c->S[i] = mem_take(scratch, &at, pairs * c->most * c->V * c->K);
    c->G[i] = mem_take(scratch, &at, pairs * c->most * c->V * c->K);
  }
  return (size_t)at * sizeof(float);
}

template <class RULE>
static inline mica_status chunk_run_up(const micak_memory *m, const mica_exec *exec, int32_t from) {
  constexpr bool DUAL = RULE::DUAL;
  chunk_job      c = {};
  mica_status    status = chunk_open(&c, m, from);
  mem_job       &job = c.m;
  if (status < 0 || job.B <= 0) return status;
  chunk_up_scratch<RULE>(&c, static_cast<float *>(exec->scratch));
  chunk_stages(&c, RULE::WRITES | 1u << MEM_Q | 1u << MEM_D, DUAL, chunk_floats<RULE>(job));
  const auto walks = CHUNK_KERNEL(memory_chunk_walks, RULE, c.K);
  dim3       grid = mem_grid(&job);
  if constexpr (!RULE::DELTA) {
    if (job.divide) {                        /* the denominators first */
      chunk_job down = c;
      down.m.raw = down.m.reads = 1;
      status = micak_launch(m->name, walks, grid, mem_block(&job), mem_shared(&job), exec->stream, down);
      if (status >= 0) status = mem_run_divide(m->name, memory_divide_up<DUAL>, job, exec->stream);
      c.walk = 1;
    }
  }
  if (!c.walk) grid.y = 2;
  if (status >= 0) status = micak_launch(m->name, walks, grid, mem_block(&job), mem_shared(&job), exec->stream, c);
  if (status < 0) return status;

  job.tokens = CHUNK, job.chunks = 1, job.lanes = 2 * c.K, job.units = job.B * job.H * c.most;
  mem_stages(&job, chunk_join_kinds<RULE>::ALL, DUAL,
             CHUNK_CELLS * (1 + DUAL) * (1 + RULE::DELTA) + CHUNK +
                 (RULE::DECAY ? CHUNK * (3 * (1 + DUAL) * job.K4 + job.lanes / 32) : 0));
  status = micak_launch(m->name, memory_chunk_join<RULE>, mem_grid(&job), mem_block(&job), mem_shared(&job),
                        exec->stream, c);
  if (status < 0) return status;
  return mem_gather_states(m->name, job, mem_result<DUAL>(job.state_in), mem_result<DUAL>(job.norm_in), exec->stream);
}
/* short tasks token by token, then the others in chunks, in the same scratch but for what is gathered at the end */
template <class RULE>
static inline mica_status memory_run_up(const micak_memory *m, const mica_exec *exec) {
  const int32_t from = chunk_from(m, RULE::DUAL);
  if (m->T < from) return mem_up<RULE>(m, exec);
  const bool        both = chunk_both(m, from);
  const mica_status status = both ? mem_up<RULE>(m, exec, 0, from - 1) : MICA_OK;
  return status < 0 ? status : chunk_run_up<RULE>(m, exec, both ? from : 0);
}
template <class RULE>
static inline size_t memory_up_bytes(const micak_memory *m) {
  chunk_job     c = {};
  const int32_t from = chunk_from(m, RULE::DUAL);
  if (m->T < from) return mem_up_bytes<RULE>(m);
  const size_t steps = chunk_both(m, from) ? mem_up_bytes<RULE>(m, 0, from - 1) : 0;
  const size_t chunks = chunk_open(&c, m, from) < 0 ? 0 : chunk_up_scratch<RULE>(&c, NULL);
  return steps > chunks ? steps : chunks;
}

#endif
