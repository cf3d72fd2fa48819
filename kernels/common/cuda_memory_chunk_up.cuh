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
  constexpr bool DELTA = RULE::DELTA, DUAL = RULE::DUAL;
  typedef chunk_cells<RULE> at;
  const mem_job   &job = c.m;
  const uint32_t   kinds = 1u << MEM_K | 1u << MEM_Q | 1u << MEM_D | (DELTA ? 1u << MEM_BETA : 0);
  const mica_wire &state = mem_result<DUAL>(job.state_in), &norm = mem_result<DUAL>(job.norm_in);
  const int        T = (int)wire_rows(job.q.offsets, b, job.T), chunks = (T + CHUNK - 1) / CHUNK;
  const int        groups = (chunks + c.group - 1) / c.group, warp = team.lane / 32, warps = team.lanes / 32;
  const int        j = j0 + 16 * warp, end = min(j0 + job.width, job.columns), ld = job.ld[MEM_K], ld_d = job.ld[MEM_D];
  const bool       mine = warp < c.tiles, wanted = state.data || norm.data;
  float            G[NK][4] = {}, G_t[DUAL ? NK : 1][4] = {};
  mem_enter<DUAL>(job, team, b, h, j0, kinds);
  if (mine && c.after) {
    chunk_load(job, mem_cells(job.state_out.d, job.norm_out.d, b, h), j, end, G, b);
    if constexpr (DUAL) chunk_load(job, mem_cells(job.state_out.td, job.norm_out.td, b, h), j, end, G_t, b);
  }
  team.sync();
  if (groups) {
    const int t0 = (groups - 1) * job.tokens;
    chunk_stage<DUAL>(job, team, kinds, t0, T - t0, team.memory + ((groups - 1) & (job.buffers - 1)) * job.buffer);
  }
  ptx_copy_commit();
  for (int group = groups - 1; group >= 0; group--) {
    const int    t0 = group * job.tokens, n = min(job.tokens, T - t0);
    const float *buffer = team.memory + (group & (job.buffers - 1)) * job.buffer;
    if (job.buffers == 2 && group)
      chunk_stage<DUAL>(job, team, kinds, t0 - job.tokens, job.tokens, team.memory + (~group & 1) * job.buffer);
    ptx_copy_commit();
    ptx_copy_wait<1>();
    team.sync();
    for (int i = warp; i * CHUNK < n; i += warps)
      chunk_prepare<RULE>(c, buffer, i * CHUNK, true, team.results + i * at::SIZE);
    team.sync();
#pragma unroll 1
    for (int i = (n + CHUNK - 1) / CHUNK - 1; i >= 0 && mine; i--) {
      const int     first = i * CHUNK, tokens = min((int)CHUNK, n - first), chunk = group * c.group + i;
      const bool    has = c.after || chunk + 1 < chunks, more = wanted || chunk; /* G after, and before? */
      const int64_t row = mem_row(job, b, h) + (int64_t)(t0 + first) * job.row;
      const float  *cells = team.results + i * at::SIZE;
      const float  *k = mem_token(job, buffer, MEM_K, 0, first), *k_t = mem_token(job, buffer, MEM_K, 1, first);
      const float  *q = mem_token(job, buffer, MEM_Q, 0, first), *q_t = mem_token(job, buffer, MEM_Q, 1, first);
      const float  *d = mem_token(job, buffer, MEM_D, 0, first) + 16 * warp;
      const float  *d_t = mem_token(job, buffer, MEM_D, 1, first) + 16 * warp;
      chunk_tile    w = {}, w_t = {};
      chunk_left    a[2], a_t[2], y[2], y_t[2]; /* of d, and of y */
      if (has) {
        chunk_keep(G, j, c.G[0] + chunk_kept(c, b, h, chunk));
        if constexpr (DUAL) chunk_keep(G_t, j, c.G[1] + chunk_kept(c, b, h, chunk));
        if constexpr (DUAL) chunk_read<false, true>(G, G_t, k, k_t, ld, w, w_t);
        else chunk_read<false>(G, k, ld, w);
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
      if (more) {                            /* d is done with before y is there: registers */
        if constexpr (DUAL) chunk_write<false>(a, a_t, q, q_t, ld, G, G_t);
        else chunk_write<false>(a, q, ld, G);
      }
      if constexpr (DELTA) {
        const float *beta = mem_token(job, buffer, MEM_BETA, 0, first);
        const float *beta_t = mem_token(job, buffer, MEM_BETA, 1, first);
        chunk_tile   x, z = {};
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
      chunk_put(w, tokens, j, end, job.w[0] + row, job.row);
      if (DUAL) chunk_put(w_t, tokens, j, end, job.w[1] + row, job.row);
      if constexpr (DELTA) {
        if (!more) break;
        if constexpr (DUAL) chunk_write<true>(y, y_t, k, k_t, ld, G, G_t);
        else chunk_write<true>(y, k, ld, G);
      }
    }
    team.sync();
    if (job.buffers == 1) {
      if (group) chunk_stage<DUAL>(job, team, kinds, t0 - job.tokens, job.tokens, team.memory);
      ptx_copy_commit();
    }
  }
  ptx_copy_wait<0>();
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

/* x += p S', 16 columns of S' (`eights` of rows, in scratch) */
MEM_DEVICE void chunk_join_state(const float *p, int ld, const float *S, int K, int eights, chunk_tile &x) {
#pragma unroll 1
  for (int k0 = 0; k0 < eights; k0 += 4) {
    chunk_tile sum = {};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (k0 + k >= eights) break;
      const chunk_left a = chunk_left_rows(p + 8 * (k0 + k), ld);
#pragma unroll
      for (int n = 0; n < 2; n++)
        chunk_multiply(sum[n], a, chunk_right_columns(S + (int64_t)8 * (k0 + k) * K + 8 * n, K));
    }
#pragma unroll
    for (int n = 0; n < 2; n++) chunk_add<false>(x[n], sum[n]);
  }
}
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
/* x + x' of what is below the diagonal, by the warp that has x */
MEM_DEVICE void chunk_mirror(const chunk_tile &x, float *to) {
#pragma unroll
  for (int e = 0; e < 8; e++) {
    const int row = chunk_g() + e / 2 % 2 * 8, col = 8 * (e / 4) + chunk_t() + e % 2;
    if (row > col) to[row * CHUNK_LD + col] = to[col * CHUNK_LD + row] = x[e / 4][e % 4];
    if (row == col) to[row * CHUNK_LD + col] = 0;
  }
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

/* what it stages */
template <class RULE>
struct chunk_join_kinds {
  enum { ALL = 1 << MEM_K | 1 << MEM_Q | 1 << MEM_D | 1 << MEM_W | (RULE::DELTA ? 1 << MEM_E | 1 << MEM_BETA : 1 << MEM_V) };
};
template <class RULE>
static __global__ void __launch_bounds__(CHUNK_THREADS, 1) memory_chunk_join(const __grid_constant__ chunk_job c) {
  constexpr bool DELTA = RULE::DELTA, DUAL = RULE::DUAL;
  DYN_SMEM(float, memory);
  const mem_job   &job = c.m;
  const mem_team   team(job, memory);
  const mica_wire &qd = mem_result<DUAL>(job.q), &kd = mem_result<DUAL>(job.k), &vd = mem_result<DUAL>(job.v);
  const mica_wire &bd = mem_result<DUAL>(job.beta);
  const uint32_t   kinds = chunk_join_kinds<RULE>::ALL;
  const int64_t    unit = blockIdx.x, h = unit / c.most % job.H, first = unit / c.most / job.H;
  const int        chunk = (int)(unit % c.most), t0 = chunk * CHUNK, warp = team.lane / 32, warps = team.lanes / 32;
  const int        i0 = 16 * warp, ld = job.ld[MEM_K], ld_v = job.ld[MEM_W], written = DELTA ? MEM_E : MEM_V;
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? */
    return (vd.data && wire_follows(vd, job.v.offsets, b)) || (qd.data && wire_follows(qd, job.q.offsets, b)) ||
           (kd.data && wire_follows(kd, job.k.offsets, b)) || (bd.data && wire_follows(bd, job.beta.offsets, b));
  };
  if (follows(first)) return;
  float *cells = team.results, *both = cells + CHUNK_CELLS * (1 + DUAL); /* M-; N- + N-'; each with its tangent */
  float *of_beta = both + DELTA * CHUNK_CELLS * (1 + DUAL);
  for (int64_t b = first; b == first || (b < job.B && follows(b)); b++) {
    const int  T = (int)wire_rows(job.q.offsets, b, job.T), n = min((int)CHUNK, T - t0);
    const bool before = c.before || chunk, after = c.after || t0 + CHUNK < T;
    if (n <= 0 || !mem_mine(job, T)) continue;
    chunk_tile dq = {}, dk = {}, m = {}, m_t = {}; /* m: of warp 0 M-, of the next, or of the same, N- */
    chunk_tile nn = {}, nn_t = {};
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
      if (warp == 0) {
        chunk_gram(d, u, ld_v, eights, m);
        if constexpr (DUAL) chunk_gram(d_t, u, ld_v, eights, m_t), chunk_gram(d, u_t, ld_v, eights, m_t);
      }
      if (DELTA && warp == (warps > 1)) {
        chunk_gram(y, u, ld_v, eights, nn);
        if constexpr (DUAL) chunk_gram(y_t, u, ld_v, eights, nn_t), chunk_gram(y, u_t, ld_v, eights, nn_t);
      }
      if (before) {
        chunk_join_state(DUAL ? d_t : d, ld_v, c.S[0] + at, c.K, eights, dq);
        if constexpr (DUAL) chunk_join_state(d, ld_v, c.S[1] + at, c.K, eights, dq);
        if constexpr (DELTA) {
          chunk_join_state(DUAL ? y_t : y, ld_v, c.S[0] + at, c.K, eights, dk);
          if constexpr (DUAL) chunk_join_state(y, ld_v, c.S[1] + at, c.K, eights, dk);
        }
      }
      if (after) {
        chunk_join_state(DUAL ? u_t : u, ld_v, c.G[0] + at, c.K, eights, dk);
        if constexpr (DUAL) chunk_join_state(u, ld_v, c.G[1] + at, c.K, eights, dk);
      }
    }
    if (warp == 0) {
      chunk_lower<false>(m, cells);
      if constexpr (DUAL) chunk_lower<false>(m_t, cells + CHUNK_CELLS);
    }
    if (DELTA && warp == (warps > 1)) {
      chunk_mirror(nn, both);
      if constexpr (DUAL) chunk_mirror(nn_t, both + CHUNK_CELLS);
    }
    team.sync();
    const float *k = mem_token(job, team.memory, MEM_K, 0, 0) + i0, *k_t = mem_token(job, team.memory, MEM_K, 1, 0) + i0;
    const float *q = mem_token(job, team.memory, MEM_Q, 0, 0) + i0, *q_t = mem_token(job, team.memory, MEM_Q, 1, 0) + i0;
    chunk_join_tokens<false>(cells + DUAL * CHUNK_CELLS, k, ld, dq);
    chunk_join_tokens<true>(cells + DUAL * CHUNK_CELLS, q, ld, dk);
    if constexpr (DUAL) chunk_join_tokens<false>(cells, k_t, ld, dq), chunk_join_tokens<true>(cells, q_t, ld, dk);
    if constexpr (DELTA) {
      chunk_join_tokens<false>(both + DUAL * CHUNK_CELLS, k, ld, dk);
      if constexpr (DUAL) chunk_join_tokens<false>(both, k_t, ld, dk);
      const int64_t place = mem_place(bd, job.beta.offsets, b, h);
      if (place >= 0 && team.lane < n)
        wire_put(bd, place + (t0 + team.lane) * bd.stride[0], of_beta[team.lane], mem_adds(bd, job.beta.offsets, b));
    }
    const int64_t q_at = mem_place(qd, job.q.offsets, b, h), k_at = mem_place(kd, job.k.offsets, b, h);
    if (q_at >= 0) chunk_put_rows(dq, n, i0, job.K, qd, q_at + t0 * qd.stride[0], mem_adds(qd, job.q.offsets, b));
    if (k_at >= 0) chunk_put_rows(dk, n, i0, job.K, kd, k_at + t0 * kd.stride[0], mem_adds(kd, job.k.offsets, b));
  }
}

/* ---- faces ---- */

/* the parts of the job that lie in scratch; returns its bytes */
template <class RULE>
static inline size_t chunk_up_scratch(chunk_job *c, float *scratch) {
  mem_job      *job = &c->m;
  const int64_t pairs = job->B * job->H;
  int64_t       at = mem_state_scratch(job, mem_result<RULE::DUAL>(job->state_in), mem_result<RULE::DUAL>(job->norm_in), scratch);
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
  chunk_stages(&c, RULE::WRITES | 1u << MEM_Q | 1u << MEM_D, DUAL, chunk_cells<RULE>::SIZE);
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
  mem_stages(&job, chunk_join_kinds<RULE>::ALL, DUAL, CHUNK_CELLS * (1 + DUAL) * (1 + RULE::DELTA) + CHUNK);
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
