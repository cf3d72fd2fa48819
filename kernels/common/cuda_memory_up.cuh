/* cuda_memory_up.cuh: backward and backward_jvp of memory.h on CUDA, one text for both (DUAL).
 *
 * a team (cuda_memory.cuh) walks its sequence twice. on the way down it makes the cotangents of queries, which need the
 * states alone, and keeps e and, a chunk apart, the states; on the way up it holds G, the cotangents of the state, in
 * registers, and where the rule needs the state before a token computes it anew from the chunk's first one. sums over
 * columns: shuffles in a warp, then the warps in order; slices, and tasks that share a state_in, leave their parts in
 * scratch, and memory_gather adds these up in order. tasks whose other results share a slot are walked in task order by
 * the team of the first. */
#ifndef MICA_KERNELS_COMMON_CUDA_MEMORY_UP_CUH
#define MICA_KERNELS_COMMON_CUDA_MEMORY_UP_CUH

#include "common/cuda_memory_parts.cuh"

/* what a team has in shared memory behind the buffers, in floats */
struct mem_up_layout {
  int start, values, rows, cells;            /* sizes */
};
template <class RULE>
static __host__ __device__ __forceinline__ mem_up_layout mem_up_sizes(const mem_job &job) {
  const int warps = (job.lanes + 31) / 32;
  /* a thread's numbers lie side by side, an odd number of them: no two lanes in one bank */
  return { RULE::NEEDS ? (RULE::STATES * MEM_R * MEM_J * (RULE::DUAL ? 2 : 1) + 1) * job.lanes : 0,
           job.tokens * job.width4, warps * job.tokens * job.K4, warps * job.tokens };
}

/* sums of x over the columns of a warp, to the warp's row */
MEM_DEVICE void mem_fold(const mem_team &team, float (&x)[MEM_R], float *row) {
  int step = team.LK, first = 0, left = MEM_R;
#pragma unroll
  for (int half = MEM_R / 2; half; half /= 2, step *= 2)
    if (step < team.span) {                  /* a lane keeps one half of its rows and gives away the other */
      const bool high = team.lane & step;
#pragma unroll
      for (int i = 0; i < half; i++) {
        const float give = high ? x[i] : x[i + half], keep = high ? x[i + half] : x[i];
        x[i] = keep + __shfl_xor_sync(team.mask, give, step);
      }
      first += high ? half : 0, left = half;
    }
  for (; step < team.span; step *= 2) x[0] += __shfl_xor_sync(team.mask, x[0], step);
  if ((team.lane & (team.span - 1)) >= MEM_R * team.LK) return; /* the same sums again */
#pragma unroll
  for (int i = 0; i < MEM_R; i++)
    if (i < left) row[mem_row_of(team, first + i)] = x[i];
}
/* of one number, from lanes `step` apart */
MEM_DEVICE void mem_fold_cell(const mem_team &team, float x, int step, float *cell) {
  for (; step < team.span; step *= 2) x += __shfl_xor_sync(team.mask, x, step);
  if ((team.lane & (team.span - 1)) == 0) *cell = x;
}

/* rows of n tokens, `columns` of `ld`, that warps have summed: to the wire, or as a part to scratch */
MEM_DEVICE void mem_put_rows(const mem_job &job, const mem_team &team, const mica_port &port, const mica_wire &w, int part,
                             int64_t b, int64_t h, int64_t unit, int t0, int n, int columns, int ld, const float *rows) {
  const int     warps = (team.lanes + 31) / 32;
  const bool    whole = job.slices == 1;
  const int64_t place = whole ? mem_place(w, port.offsets, b, h) : 0;
  if (!w.data || place < 0) return;
  for (int p = team.lane; p < n * ld; p += team.lanes) {
    const int r = ld == 1 ? p : p >> (job.LK_log + 3), c = p - r * ld; /* ld: 1 or K4 */
    float     x = 0;
    if (c >= columns) continue;
    for (int warp = 0; warp < warps; warp++) x += rows[warp * job.tokens * ld + p];
    if (whole) wire_put(w, place + (t0 + r) * w.stride[0] + c * w.stride[2], x, mem_adds(w, port.offsets, b));
    else job.part[part][(unit * job.T + t0 + r) * columns + c] = x;
  }
}

/* where a token's results go: rows and cells of the warp; the team's row of values */
struct mem_up_rows {
  float *k, *a, *v, *beta, *a_cell, *m_cell;
};

/* the cotangent of q from that of what it read */
template <bool DUAL>
MEM_DEVICE void mem_read_up_state(const mem_state<DUAL> &S, const float (&d)[MEM_J], const float (&d_t)[MEM_J],
                                  float (&x)[MEM_R]) {
#pragma unroll
  for (int i = 0; i < MEM_R; i++) {
    x[i] = 0;
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      if constexpr (DUAL) x[i] = fmaf(S.t[i][c], d[c], fmaf(S.v[i][c], d_t[c], x[i]));
      else x[i] = fmaf(S.v[i][c], d[c], x[i]);
    }
  }
}
template <bool DELTA, bool DECAY, bool DUAL>
MEM_DEVICE void mem_read_up(mem_linear<DELTA, DECAY, DUAL>, const mem_job &, const mem_state<DUAL> (&S)[1],
                            const float (&d)[MEM_J], const float (&d_t)[MEM_J], float (&x)[MEM_R]) {
  mem_read_up_state(S[0], d, d_t, x);
}
/* w = G' k */
template <bool DUAL>
MEM_DEVICE void mem_written_up(const mem_team &team, const mem_state<DUAL> &G, const float (&k)[MEM_R],
                               const float (&k_t)[MEM_R], int c, float &w, float &w_t) {
  w = 0, w_t = 0;
#pragma unroll
  for (int i = 0; i < MEM_R; i++) {
    w = fmaf(G.v[i][c], k[i], w);
    if constexpr (DUAL) w_t = fmaf(G.t[i][c], k[i], fmaf(G.v[i][c], k_t[i], w_t));
  }
  w = team.sum_rows(w);
  if (DUAL) w_t = team.sum_rows(w_t);
}

/* token t, token r of the buffer, back: S is the state before it, G, of the state after it, becomes that of S */
template <bool DELTA, bool DECAY, bool DUAL>
MEM_DEVICE void mem_token_up(mem_linear<DELTA, DECAY, DUAL>, const mem_job &job, const mem_team &team,
                             const float *buffer, int, int r, const mem_state<DUAL> (&before)[1],
                             mem_state<DUAL> (&after)[1], const mem_up_rows &to) {
  const mem_state<DUAL> &S = before[0];
  mem_state<DUAL>       &G = after[0];
  float k[MEM_R], k_t[MEM_R], x[MEM_R], d[MEM_J], d_t[MEM_J], e[MEM_J], e_t[MEM_J], y[MEM_J], y_t[MEM_J];
  /* of the reading */
  mem_get_rows(team, mem_token(job, buffer, MEM_Q, 0, r), x);
  mem_get_columns(team, mem_token(job, buffer, MEM_D, 0, r), d);
  if (DUAL) mem_get_columns(team, mem_token(job, buffer, MEM_D, 1, r), d_t);
  if (DUAL) mem_get_rows(team, mem_token(job, buffer, MEM_Q, 1, r), k_t);
  mem_write(G, x, k_t, d, d_t);
  /* of what is written, y: of e, which is v's too */
  mem_get_rows(team, mem_token(job, buffer, MEM_K, 0, r), k);
  if (DUAL) mem_get_rows(team, mem_token(job, buffer, MEM_K, 1, r), k_t);
  mem_get_columns(team, mem_token(job, buffer, DELTA ? MEM_E : MEM_V, 0, r), e);
  if (DUAL) mem_get_columns(team, mem_token(job, buffer, DELTA ? MEM_E : MEM_V, 1, r), e_t);
  const float beta = DELTA ? *mem_token(job, buffer, MEM_BETA, 0, r) : 1.0f;
  const float beta_t = DELTA && DUAL ? *mem_token(job, buffer, MEM_BETA, 1, r) : 0.0f;
  float       of_beta = 0;
#pragma unroll
  for (int c = 0; c < MEM_J; c++) {
    float w, w_t;
    mem_written_up(team, G, k, k_t, c, w, w_t);
    if (DELTA) of_beta = DUAL ? fmaf(w_t, e[c], fmaf(w, e_t[c], of_beta)) : fmaf(w, e[c], of_beta);
    y[c] = DELTA ? beta * w : w;
    y_t[c] = DELTA && DUAL ? fmaf(beta_t, w, beta * w_t) : w_t;
    if (team.lk == 0) to.v[MEM_J * team.cg + c] = DUAL ? y_t[c] : y[c];
    if (DELTA && DUAL) e_t[c] = fmaf(beta_t, e[c], beta * e_t[c]); /* e becomes u */
    if (DELTA) e[c] *= beta;
  }
  if (DELTA) mem_fold_cell(team, of_beta, team.LK, to.beta);
  /* of keys and factors; G becomes the cotangent of the state before */
  float a[MEM_R], a_t[MEM_R], of_a[MEM_R];
  if (DECAY) mem_factors(job, team, buffer, 0, r, a);
  if (DECAY && DUAL) mem_factors(job, team, buffer, 1, r, a_t);
#pragma unroll
  for (int i = 0; i < MEM_R; i++) {
    x[i] = of_a[i] = 0;
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      float &g = G.v[i][c];
      if constexpr (DUAL) {
        float &g_t = G.t[i][c];
        x[i] = fmaf(g_t, e[c], fmaf(g, e_t[c], x[i]));
        if (DELTA) {
          const float p = DECAY ? a[i] * S.v[i][c] : S.v[i][c];
          const float p_t = DECAY ? fmaf(a_t[i], S.v[i][c], a[i] * S.t[i][c]) : S.t[i][c];
          x[i] = fmaf(-p_t, y[c], fmaf(-p, y_t[c], x[i]));
          g_t = fmaf(-k_t[i], y[c], fmaf(-k[i], y_t[c], g_t));
          g = fmaf(-k[i], y[c], g);
        }
        if (DECAY) {
          of_a[i] = fmaf(g_t, S.v[i][c], fmaf(g, S.t[i][c], of_a[i]));
          g_t = fmaf(a_t[i], g, a[i] * g_t);
          g *= a[i];
        }
      } else {
        x[i] = fmaf(g, e[c], x[i]);
        if (DELTA) {
          x[i] = fmaf(-(DECAY ? a[i] * S.v[i][c] : S.v[i][c]), y[c], x[i]);
          g = fmaf(-k[i], y[c], g);
        }
        if (DECAY) {
          of_a[i] = fmaf(g, S.v[i][c], of_a[i]);
          g *= a[i];
        }
      }
    }
  }
  mem_fold(team, x, to.k);
  if (DECAY && job.channel) {
    mem_fold(team, of_a, to.a);
  } else if (DECAY) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < MEM_R; i++) sum += of_a[i];
    mem_fold_cell(team, sum, 1, to.a_cell);
  }
}

template <class RULE>
static __global__ void __launch_bounds__(MEM_THREADS, 1) memory_up(const __grid_constant__ mem_job job) {
  constexpr bool DELTA = RULE::DELTA, DECAY = RULE::DECAY, DUAL = RULE::DUAL, NEEDS = RULE::NEEDS;
  constexpr int  CELLS = MEM_R * MEM_J * (DUAL ? 2 : 1); /* numbers of a matrix that a thread keeps */
  DYN_SMEM(float, memory);
  const mem_team      team(job, memory);
  const mem_up_layout size = mem_up_sizes<RULE>(job);
  const int64_t       unit = (int64_t)blockIdx.x * job.teams + team.index;
  const mica_wire    &qd = mem_result<DUAL>(job.q), &kd = mem_result<DUAL>(job.k), &vd = mem_result<DUAL>(job.v);
  const mica_wire    &bd = mem_result<DUAL>(job.beta), &ad = mem_result<DUAL>(job.a);
  const mica_wire    &md = mem_result<DUAL>(job.m), &moment = mem_result<DUAL>(job.moment_in);
  const mica_wire    &state = mem_result<DUAL>(job.state_in), &norm = mem_result<DUAL>(job.norm_in);
  const uint32_t down = RULE::WRITES | (qd.data ? 1u << MEM_D : 0);
  const uint32_t up = 1u << MEM_K | 1u << MEM_Q | 1u << MEM_D | (DELTA ? 1u << MEM_E | 1u << MEM_BETA : 1u << MEM_V) |
                      (DECAY ? 1u << MEM_A : 0) | (RULE::MOMENT ? 1u << MEM_M : 0);
  if (unit >= job.units) return;
  const int     j0 = (int)(unit % job.slices) * job.width, lanes = team.lanes, warp_rows = team.warp * job.tokens;
  const int64_t h = unit / job.slices % job.H, first = unit / job.slices / job.H;
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? */
    if (vd.data && wire_follows(vd, job.v.offsets, b)) return true;
    if (!job.state && ((state.data && wire_follows(state, NULL, b)) || (norm.data && wire_follows(norm, NULL, b))))
      return true;
    if (!job.moment && moment.data && wire_follows(moment, NULL, b)) return true;
    return job.slices == 1 && ((qd.data && wire_follows(qd, job.q.offsets, b)) ||
                               (kd.data && wire_follows(kd, job.k.offsets, b)) ||
                               (bd.data && wire_follows(bd, job.beta.offsets, b)) ||
                               (ad.data && wire_follows(ad, job.a.offsets, b)) ||
                               (md.data && wire_follows(md, job.m.offsets, b)));
  };
  if (follows(first)) return;
  float *start = team.results, *values = start + size.start, *rows = values + size.values, *rows_a = rows + size.rows;
  float *cells = rows_a + (job.channel ? size.rows : 0), *cells_a = cells + size.cells;
  float *cells_m = cells_a + size.cells, *own_start = start + team.lane * (RULE::STATES * CELLS + 1);
  for (int64_t b = first; b == first || (b < job.B && follows(b)); b++) {
    const int     T = (int)wire_rows(job.q.offsets, b, job.T), chunks = (T + job.tokens - 1) / job.tokens;
    if (!mem_mine(job, T)) continue;
    const int64_t own = (b * job.H + h) * job.slices + unit % job.slices; /* this task's unit */
    float        *kept = job.kept + own * (job.chunks - 1) * size.start + team.lane;
    mem_state<DUAL> S[RULE::STATES];
    team.sync();                             /* the task before may still be read */
    mem_enter<DUAL>(job, team, b, h, j0, down | up);
    team.sync();

    /* ---- down: cotangents of queries; e and states are kept ---- */
    if (NEEDS || qd.data) {
      mem_first(job, team, b, h, j0, S);
      mem_stage<DUAL>(job, team, down, 0, min(job.tokens, T), team.memory);
    }
    ptx_copy_commit();
    for (int chunk = 0; chunk < chunks && (NEEDS || qd.data); chunk++) {
      const int    t0 = chunk * job.tokens, n = min(job.tokens, T - t0);
      const float *buffer = team.memory + (chunk & 1) * job.buffer;
      if (chunk + 1 < chunks)
        mem_stage<DUAL>(job, team, down, t0 + n, min(job.tokens, T - t0 - n), team.memory + (~chunk & 1) * job.buffer);
      ptx_copy_commit();
      ptx_copy_wait<1>();
      team.sync();
      if (NEEDS && chunk)
#pragma unroll
        for (int n = 0; n < RULE::STATES; n++)
#pragma unroll
          for (int i = 0; i < MEM_R; i++)
#pragma unroll
            for (int c = 0; c < MEM_J; c++) {
              float *to = kept + (int64_t)(chunk - 1) * size.start + (n * CELLS + i * MEM_J + c) * lanes;
              *to = S[n].v[i][c];
              if constexpr (DUAL) to[MEM_R * MEM_J * lanes] = S[n].t[i][c];
            }
      for (int r = 0; r < n; r++) {
        float e[MEM_J], e_t[MEM_J], d[MEM_J], d_t[MEM_J], x[MEM_R];
        mem_advance<false>(RULE(), job, team, buffer, t0 + r, r, S, e, e_t);
        if (DELTA && team.lk == 0) {
#pragma unroll
          for (int c = 0; c < MEM_J; c++) {
            const int     j = mem_column(job, team, j0, c);
            const int64_t at = mem_row(job, b, h) + (int64_t)(t0 + r) * job.row + j;
            if (j < 0) continue;
            job.e[0][at] = e[c];
            if (DUAL) job.e[1][at] = e_t[c];
          }
        }
        if (!qd.data) continue;
        mem_get_columns(team, mem_token(job, buffer, MEM_D, 0, r), d);
        if (DUAL) mem_get_columns(team, mem_token(job, buffer, MEM_D, 1, r), d_t);
        mem_read_up(RULE(), job, S, d, d_t, x);
        mem_fold(team, x, rows + (warp_rows + r) * job.K4);
      }
      team.sync();
      mem_put_rows(job, team, job.q, qd, MEM_PART_Q, b, h, own, t0, n, job.K, job.K4, rows);
    }

    /* ---- up ---- */
    mem_state<DUAL> G[RULE::STATES];
    mem_load(job, team, mem_cells(job.state_out.d, job.norm_out.d, b, h), j0, G[0].v);
    if constexpr (DUAL) mem_load(job, team, mem_cells(job.state_out.td, job.norm_out.td, b, h), j0, G[0].t);
    if constexpr (RULE::MOMENT) {
      mem_load(job, team, mem_cells(job.moment_out.d, job.norm_out.d, b, h), j0, G[1].v);
      if constexpr (DUAL) mem_load(job, team, mem_cells(job.moment_out.td, job.norm_out.td, b, h), j0, G[1].t);
    }
    if constexpr (RULE::STATES > 2) G[2] = mem_state<DUAL>{};
    team.sync();
    if (chunks) {
      const int t0 = (chunks - 1) * job.tokens;
      mem_stage<DUAL>(job, team, up, t0, T - t0, team.memory + ((chunks - 1) & 1) * job.buffer);
    }
    ptx_copy_commit();
    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
      const int    t0 = chunk * job.tokens, n = min(job.tokens, T - t0);
      const float *buffer = team.memory + (chunk & 1) * job.buffer;
      if (chunk)
        mem_stage<DUAL>(job, team, up, t0 - job.tokens, job.tokens, team.memory + (~chunk & 1) * job.buffer);
      ptx_copy_commit();
      ptx_copy_wait<1>();
      if (NEEDS) {                           /* the chunk's first state: a thread reads what it wrote */
        if (chunk == 0) mem_first(job, team, b, h, j0, S);
#pragma unroll
        for (int n = 0; n < RULE::STATES; n++)
#pragma unroll
          for (int i = 0; i < MEM_R; i++)
#pragma unroll
            for (int c = 0; c < MEM_J; c++) {
              const int    at = (n * CELLS + i * MEM_J + c) * lanes;
              const float *from = kept + (int64_t)(chunk - 1) * size.start + at;
              float       *into = own_start + n * CELLS + i * MEM_J + c;
              *into = chunk ? *from : S[n].v[i][c];
              if constexpr (DUAL) into[MEM_R * MEM_J] = chunk ? from[MEM_R * MEM_J * lanes] : S[n].t[i][c];
            }
      }
      team.sync();
      for (int r = n - 1; r >= 0; r--) {
        float             e[MEM_J], e_t[MEM_J];
        const mem_up_rows to = { rows + (warp_rows + r) * job.K4, rows_a + (warp_rows + r) * job.K4,
                                 values + r * job.width4, cells + warp_rows + r, cells_a + warp_rows + r,
                                 cells_m + warp_rows + r };
        if (NEEDS) {
#pragma unroll
          for (int n = 0; n < RULE::STATES; n++)
#pragma unroll
            for (int i = 0; i < MEM_R; i++)
#pragma unroll
              for (int c = 0; c < MEM_J; c++) {
                const float *from = own_start + n * CELLS + i * MEM_J + c;
                S[n].v[i][c] = *from;
                if constexpr (DUAL) S[n].t[i][c] = from[MEM_R * MEM_J];
              }
#pragma unroll 1
          for (int s = 0; s < r; s++) mem_advance<true>(RULE(), job, team, buffer, t0 + s, s, S, e, e_t);
        }
        mem_token_up(RULE(), job, team, buffer, t0 + r, r, S, G, to);
      }
      team.sync();
      mem_put_rows(job, team, job.k, kd, MEM_PART_K, b, h, own, t0, n, job.K, job.K4, rows);
      if (DELTA) mem_put_rows(job, team, job.beta, bd, MEM_PART_BETA, b, h, own, t0, n, 1, 1, cells);
      if (DECAY && job.channel)
        mem_put_rows(job, team, job.a, ad, MEM_PART_A, b, h, own, t0, n, job.K, job.K4, rows_a);
      else if (DECAY) mem_put_rows(job, team, job.a, ad, MEM_PART_A, b, h, own, t0, n, 1, 1, cells_a);
      if (RULE::MOMENT) mem_put_rows(job, team, job.m, md, MEM_PART_M, b, h, own, t0, n, 1, 1, cells_m);
      const int64_t place = mem_place(vd, job.v.offsets, b, h);
      for (int p = team.lane; p < n * job.width4 && place >= 0; p += lanes) {
        const int r = p / job.width4, c = p - r * job.width4;
        if (c < job.width && j0 + c < job.V)
          wire_put(vd, place + (t0 + r) * vd.stride[0] + (j0 + c) * vd.stride[2], values[p],
                   mem_adds(vd, job.v.offsets, b));
      }
    }
    mem_last<DUAL>(job, team, mem_cells(state, norm, b, h), job.state, j0, G[0], b, h);
    if constexpr (RULE::MOMENT) mem_last<DUAL>(job, team, mem_cells(moment, norm, b, h), job.moment, j0, G[1], b, h);
    ptx_copy_wait<0>();
  }
}

/* ---- faces ---- */

/* numbers that a slice may have only a part of: port, columns a row */
static inline const mica_port *mem_part(const mem_job &job, int part) {
  const mica_port *port[MEM_PARTS] = { &job.q, &job.k, &job.a, &job.beta, &job.m };
  return port[part];
}
static inline int32_t mem_part_columns(const mem_job &job, int part) {
  return part == MEM_PART_Q || part == MEM_PART_K || (part == MEM_PART_A && job.channel) ? job.K : 1;
}

/* the parts of the job that lie in scratch; returns its bytes */
template <class RULE>
static inline size_t mem_up_scratch(mem_job *job, float *scratch) {
  constexpr bool DUAL = RULE::DUAL;
  const int64_t  pairs = job->B * job->H;
  int64_t        at = mem_state_scratch(job, mem_result<DUAL>(job->state_in), mem_result<DUAL>(job->norm_in), scratch);
  if (job->divide) mem_readings(job, scratch, &at, DUAL);
  for (int i = 0; RULE::DELTA && i < (DUAL ? 2 : 1); i++) job->e[i] = mem_take(scratch, &at, pairs * job->T * job->row);
  if (RULE::NEEDS && job->chunks > 1)
    job->kept = mem_take(scratch, &at, job->units * (job->chunks - 1) * mem_up_sizes<RULE>(*job).start);
  for (int i = 0; i < MEM_PARTS && job->slices > 1; i++)
    if (mem_result<DUAL>(*mem_part(*job, i)).data)
      job->part[i] = mem_take(scratch, &at, job->units * job->T * mem_part_columns(*job, i));
  if (mem_shares(mem_result<DUAL>(job->moment_in))) job->moment = mem_take(scratch, &at, pairs * job->K * job->row);
  return (size_t)at * sizeof(float);
}
template <class RULE>
static inline size_t mem_up_bytes(const micak_memory *m, int32_t shortest = 0, int32_t longest = MEM_LONGEST) {
  mem_job job = {};
  return mem_open(&job, m, shortest, longest) < 0 ? 0 : mem_up_scratch<RULE>(&job, NULL);
}

template <class RULE>
static inline mica_status mem_up(const micak_memory *m, const mica_exec *exec, int32_t shortest = 0,
                                 int32_t longest = MEM_LONGEST) {
  constexpr bool DUAL = RULE::DUAL;
  mem_job        job = {};
  mica_status    status = mem_open(&job, m, shortest, longest);
  if (status < 0 || job.B <= 0) return status;
  mem_up_scratch<RULE>(&job, static_cast<float *>(exec->scratch));
  if constexpr (!RULE::DELTA) {
    if (job.divide) {
      mem_job down = job;
      down.state_out = down.norm_out = mica_port{}, down.raw = down.reads = 1;
      status = mem_run_down<RULE>(m->name, down, exec->stream);
      if (status >= 0) status = mem_run_divide(m->name, memory_divide_up<DUAL>, job, exec->stream);
      if (status < 0) return status;
    }
  }
  const mem_up_layout size = mem_up_sizes<RULE>(job);
  mem_stages(&job, RULE::WRITES | 1u << MEM_Q | 1u << MEM_D | 1u << MEM_E, DUAL,
             size.start + size.values + size.rows * (job.channel ? 2 : 1) + (2 + RULE::MOMENT) * size.cells);
  if (!job.kept) job.kept = static_cast<float *>(job.k.v.data); /* one chunk keeps nothing: no place to look at, but not null */
  status = micak_launch(m->name, memory_up<RULE>, mem_grid(&job), mem_block(&job), mem_shared(&job), exec->stream, job);
  for (int i = 0; i < MEM_PARTS && status >= 0; i++) {
    const mica_port &port = *mem_part(job, i);
    const mica_wire &w = mem_result<DUAL>(port);
    const int32_t    columns = mem_part_columns(job, i);
    const mem_parts  parts = { w, port.offsets, job.part[i], job.B, w.stride[1], w.stride[0], w.stride[2],
                               job.H, job.T, columns, job.slices, columns, shortest, longest };
    status = mem_run_gather(m->name, parts, exec->stream);
  }
  const mica_wire &state = mem_result<DUAL>(job.state_in), &norm = mem_result<DUAL>(job.norm_in);
  if (status >= 0) status = mem_gather_states(m->name, job, state, norm, exec->stream);
  const mica_wire &moment = mem_result<DUAL>(job.moment_in);
  return status < 0 ? status : mem_gather_state(m->name, job, moment, job.moment, job.V, moment.stride[2], exec->stream);
}

#endif
