/* cuda_memory.cuh: the recurrence of memory.h on CUDA, forward and jvp; the way back is cuda_memory_up.cuh.
 *
 * a team of threads holds the state of one (task, head) and of a slice of its columns in registers for the whole
 * sequence: a thread 8 rows x 2 columns (1 where a rule has more matrices), LK threads a column, which add up what a
 * key or a query reads by shuffles.
 * columns never meet on the way down, so that a slice is a team of its own. tokens are staged in shared memory, a chunk
 * ahead. a team is a part of a warp, or all warps of its block. which thread does what follows from K, V and the rule
 * alone: no bit depends on B, T or on what else is in a launch. nothing is atomic.
 *
 * a rule is a type with the constants of mem_linear, and functions that are found by it: mem_advance, the state after a
 * token, and mem_read, what a query reads; for the way back mem_read_up and mem_token_up. */
#ifndef MICA_KERNELS_COMMON_CUDA_MEMORY_CUH
#define MICA_KERNELS_COMMON_CUDA_MEMORY_CUH

#include "common/cuda_ptx.cuh"
#include "common/cuda_reduce.cuh"
#include "common/cuda_wire.cuh"
#include "common/memory.h"

#define MEM_DEVICE static __device__ __forceinline__

#ifndef MEM_COLUMNS
#define MEM_COLUMNS 2                        /* a file may take 1: what its threads hold must fit in registers */
#endif
enum { MEM_LONGEST = INT32_MAX };            /* tokens: no task has more */
enum { MEM_R = 8, MEM_J = MEM_COLUMNS, MEM_THREADS = 256, MEM_SMALL = 64 }; /* SMALL: of a block of several teams */
/* what is staged; each is followed by its tangent. E: of the delta rules on the way back, in the place of V; W: cotangents
 * of what is written (cuda_memory_chunk_up.cuh) */
enum { MEM_K, MEM_Q, MEM_A, MEM_V, MEM_BETA, MEM_M, MEM_D, MEM_E, MEM_W, MEM_KINDS };
/* rows that a slice has only a part of */
enum { MEM_PART_Q, MEM_PART_K, MEM_PART_A, MEM_PART_BETA, MEM_PART_M, MEM_PARTS };

struct mem_job {
  int64_t   B, units;                        /* units: (task, head, slice) */
  int32_t   T, H, K, V, columns, channel, keys, divide; /* columns: V and the sum of keys */
  int32_t   shortest, longest;               /* lengths of the tasks that this launch does; others are another's */
  int32_t   period, held;                    /* of rules with a momentum, else 0 */
  float     eps;
  int32_t   LK, LK_log, lanes, teams, width, width4, K4, slices, tokens, chunks; /* width: columns of a slice; .4: as staged */
  int32_t   at[2 * MEM_KINDS], ld[MEM_KINDS], buffer, buffers, floats; /* of a team's shared memory */
  int32_t   raw, reads, row;                 /* raw: readings to scratch; row: floats of a row there */
  mica_port q, k, v, beta, a, m, state_in, state_out, norm_in, norm_out, moment_in, moment_out, out;
  float    *readings[2], *e[2], *w[2], *kept, *part[MEM_PARTS], *state, *moment; /* scratch; [2]: with tangents */
};
static_assert(sizeof(mem_job) <= 4096, "a kernel's parameters");

/* ---- host ---- */

static inline int32_t mem_round(int64_t n, int32_t to) { return (int32_t)((n + to - 1) / to * to); }

/* who does what: of K, V and the rule alone */
static inline void mem_shape(mem_job *job) {
  job->LK = 1, job->LK_log = 0;
  while (job->LK * MEM_R < job->K) job->LK *= 2, job->LK_log++;
  const int32_t most = (job->LK == 32 ? MEM_THREADS / 2 : MEM_THREADS) / job->LK * MEM_J;
  job->slices = (job->columns + most - 1) / most;
  job->width = (job->columns + job->slices - 1) / job->slices;
  if (job->slices > 1) job->width = mem_round(job->width, 4), job->slices = (job->columns + job->width - 1) / job->width;
  const int32_t least = job->LK * ((job->width + MEM_J - 1) / MEM_J);
  job->lanes = 8;
  while (job->lanes < least && job->lanes < 32) job->lanes *= 2;
  if (job->lanes < least) job->lanes = mem_round(least, 32);
  job->teams = job->lanes > 32 ? 1 : MEM_SMALL / job->lanes;
  job->width4 = mem_round(job->lanes / job->LK * MEM_J, 4), job->K4 = job->LK * MEM_R;
  job->tokens = job->K4 >= 128 ? 4 : 8;
  job->chunks = (job->T + job->tokens - 1) / job->tokens;
  job->row = mem_round(job->columns, 4);
  job->units = job->B * job->H * job->slices;
}
/* the staging buffers of the kinds that a kernel uses, then `more` floats */
static inline void mem_stages(mem_job *job, uint32_t kinds, bool dual, int64_t more) {
  const int32_t ld[MEM_KINDS] = { job->K4, job->K4, job->channel ? job->K4 : 1, job->width4, 1, 1, job->width4,
                                    job->width4, job->width4 };
  int32_t       at = 0;
  for (int kind = 0; kind < MEM_KINDS; kind++) {
    job->ld[kind] = ld[kind];
    if (!(kinds >> kind & 1)) continue;
    if (kind == MEM_E && (kinds >> MEM_V & 1)) { /* never staged with V */
      job->at[2 * MEM_E] = job->at[2 * MEM_V], job->at[2 * MEM_E + 1] = job->at[2 * MEM_V + 1];
      continue;
    }
    for (int tangent = 0; tangent < (dual ? 2 : 1); tangent++)
      job->at[2 * kind + tangent] = at, at += mem_round(job->tokens * ld[kind], 4);
  }
  job->buffer = at, job->buffers = job->chunks > 1 ? 2 : 1;
  job->floats = mem_round(job->buffers * (int64_t)at + more, 4);
}

static inline mica_status mem_open(mem_job *job, const micak_memory *m, int32_t shortest = 0,
                                   int32_t longest = MEM_LONGEST) {
  static const char *const names[] = { "q", "k", "v", "beta", "decay", "momentum", "state_in", "state_out", "norm_in",
                                       "norm_out", "moment_in", "moment_out", "out" };
  const mica_port *from[] = { m->q, m->k, m->v, m->beta, m->a, m->m, m->state_in, m->state_out, m->norm_in, m->norm_out,
                              m->moment_in, m->moment_out, m->out };
  mica_port *to[] = { &job->q, &job->k, &job->v, &job->beta, &job->a, &job->m, &job->state_in, &job->state_out,
                      &job->norm_in, &job->norm_out, &job->moment_in, &job->moment_out, &job->out };
  for (int i = 0; i < MICA_COUNT(from); i++) {
    if (!from[i]) continue;
    *to[i] = *from[i];
    const mica_wire *wires[] = { &to[i]->v, &to[i]->d, &to[i]->t, &to[i]->td };
    for (int w = 0; w < 4; w++)
      if (wires[w]->data && wires[w]->dtype == MICA_F64)
        return mica_error(MICA_ERR_UNSUPPORTED, "%s on backend cuda: a wire of %s is f64, expected f32 or bf16", m->name,
                          names[i]);
  }
  job->B = m->B, job->T = m->T < longest ? (int32_t)m->T : longest;
  job->H = (int32_t)m->H, job->K = (int32_t)m->K, job->V = (int32_t)m->V;
  job->keys = m->keys, job->columns = job->V + m->keys, job->divide = m->divide, job->eps = (float)m->eps;
  job->channel = m->decay == MICAK_DECAY_CHANNEL, job->shortest = shortest, job->longest = longest;
  job->period = (int32_t)m->period, job->held = m->held;
  mem_shape(job);
  return MICA_OK;
}

/* `n` floats of scratch from *at on; scratch NULL: they are only counted */
static inline float *mem_take(float *scratch, int64_t *at, int64_t n) {
  float *taken = scratch ? scratch + *at : NULL;
  *at += (n + 3) / 4 * 4;
  return taken;
}
/* may tasks share a place of this wire? slots are device data */
static inline bool mem_shares(const mica_wire &w) { return w.data && (w.slot || w.task_stride == 0); }
/* states that tasks may share, which more than one launch writes, lie in scratch, first of all; returns the floats taken */
static inline int64_t mem_state_scratch(mem_job *job, const mica_wire &state, const mica_wire &norm, float *scratch) {
  int64_t at = 0;
  if (mem_shares(state) || mem_shares(norm)) job->state = mem_take(scratch, &at, job->B * job->H * job->K * job->row);
  return at;
}
/* rows of readings in scratch */
static inline void mem_readings(mem_job *job, float *scratch, int64_t *at, bool dual) {
  for (int i = 0; i < (dual ? 2 : 1); i++) job->readings[i] = mem_take(scratch, at, job->B * job->H * job->T * job->row);
}

/* ---- device: a team ---- */

/* rows of one operand, of one task and head */
struct mem_stream {
  const char *data;
  int64_t     row, col;                      /* elements */
  int32_t     dtype, cols, one;              /* cols: 0 if all is zero; one: a column that holds 1 */
  int32_t     step, pieces;                  /* floats at a time, and how many of these a row */
  uint32_t    magic;
};

struct mem_team {
  int         lane, lanes, LK, lk, cg, span, warp, index;
  uint32_t    mask;
  float      *memory, *results;              /* results: behind the buffers */
  mem_stream *streams;

  __device__ __forceinline__ mem_team(const mem_job &job, float *all) {
    const int t = (int)threadIdx.x, whole = job.floats + (int)(2 * MEM_KINDS * sizeof(mem_stream) / sizeof(float));
    lanes = job.lanes, LK = job.LK;
    index = job.teams == 1 ? 0 : t / lanes, lane = job.teams == 1 ? t : t & (lanes - 1);
    lk = lane & (LK - 1), cg = lane >> job.LK_log;
    span = lanes < 32 ? lanes : 32, warp = job.teams == 1 ? t / 32 : 0;
    mask = span == 32 ? ~0u : ((1u << span) - 1) << (t & 31 & ~(span - 1));
    memory = all + index * whole, results = memory + job.buffers * job.buffer;
    streams = reinterpret_cast<mem_stream *>(memory + job.floats);
  }
  __device__ __forceinline__ void sync() const {
    if (lanes <= 32) __syncwarp(mask);
    else __syncthreads();
  }
  /* over the threads of a column; every one gets it */
  __device__ __forceinline__ float sum_rows(float x) const {
    for (int step = LK >> 1; step; step >>= 1) x += __shfl_xor_sync(mask, x, step);
    return x;
  }
};
static inline size_t mem_shared(const mem_job *job) {
  return (size_t)job->teams * ((size_t)job->floats * sizeof(float) + 2 * MEM_KINDS * sizeof(mem_stream));
}
static inline dim3 mem_grid(const mem_job *job) { return dim3(micak_blocks(job->units, job->teams)); }
static inline dim3 mem_block(const mem_job *job) { return dim3((unsigned)(job->lanes * job->teams)); }

/* element (task b, head h) of a wire of rows (B,T,H,.); -1: zeros, nowhere */
MEM_DEVICE int64_t mem_place(const mica_wire &w, const int32_t *offsets, int64_t b, int64_t h) {
  const int64_t place = wire_place(w, offsets, b);
  return place < 0 ? -1 : place + h * w.stride[1];
}
MEM_DEVICE bool mem_adds(const mica_wire &w, const int32_t *offsets, int64_t b) {
  return (w.flags & MICA_ADD) || wire_follows(w, offsets, b);
}
/* does this launch do a task of T tokens? */
MEM_DEVICE bool mem_mine(const mem_job &job, int64_t T) { return T >= job.shortest && T <= job.longest; }
template <bool DUAL>
static __host__ __device__ __forceinline__ const mica_wire &mem_result(const mica_port &p) { return DUAL ? p.td : p.d; }
/* where the row of token 0 of (b, h) begins in scratch */
MEM_DEVICE int64_t mem_row(const mem_job &job, int64_t b, int64_t h) { return (b * job.H + h) * job.T * job.row; }

MEM_DEVICE mem_stream mem_stream_of(const mem_job &job, int64_t b, int64_t h, int j0, int s) {
  const int        kind = s / 2, tangent = s & 1;
  const mica_port &port = kind == MEM_K   ? job.k
                          : kind == MEM_Q ? job.q
                          : kind == MEM_A ? job.a
                          : kind == MEM_V ? job.v
                          : kind == MEM_M ? job.m
                          : kind == MEM_D ? job.out
                                          : job.beta;
  const mica_wire &w = kind == MEM_D ? (tangent ? port.td : port.d) : tangent ? port.t : port.v;
  const bool       slice = kind == MEM_V || kind == MEM_D, left = job.V > j0;
  const int64_t    place = mem_place(w, port.offsets, b, h);
  mem_stream       x;
  x.data = NULL, x.row = w.stride[0], x.col = w.stride[2], x.dtype = w.dtype, x.cols = 0, x.one = -1;
  if (place >= 0) {
    x.cols = slice ? (left ? min(job.width, job.V - j0) : 0) : kind == MEM_K || kind == MEM_Q ? job.K : job.channel ? job.K : 1;
    if (kind == MEM_BETA || kind == MEM_M) x.cols = 1;
    x.data = static_cast<const char *>(w.data) +
             (place + (slice ? j0 * w.stride[2] : 0)) * (w.dtype == MICA_BF16 ? 2 : 4);
  }
  if (!tangent && kind == MEM_V && job.keys && job.V < j0 + job.width) x.one = job.V - j0;
  if (!tangent && !w.data && (kind == MEM_BETA || (kind == MEM_A && job.period))) x.one = 0; /* absent: 1 */
  if (kind == MEM_E || kind == MEM_W || (kind == MEM_D && job.divide)) { /* rows in scratch */
    const float *rows = kind == MEM_E ? job.e[tangent] : kind == MEM_W ? job.w[tangent] : job.readings[tangent];
    x.data = reinterpret_cast<const char *>(rows + mem_row(job, b, h) + j0);
    x.row = job.row, x.col = 1, x.dtype = MICA_F32, x.cols = min(job.width, job.columns - j0);
  }
  const int ld = job.ld[kind];
  x.step = x.dtype == MICA_F32 && x.col == 1 && x.row % 4 == 0 && x.cols % 4 == 0 && ld % 4 == 0 && x.cols > 0 &&
                   reinterpret_cast<uintptr_t>(x.data) % 16 == 0
               ? 4
               : 1;
  x.pieces = ld / x.step, x.magic = ((1u << 22) + (uint32_t)x.pieces - 1) / (uint32_t)x.pieces;
  return x;
}
template <bool DUAL>
MEM_DEVICE void mem_enter(const mem_job &job, const mem_team &team, int64_t b, int64_t h, int j0, uint32_t kinds) {
  for (int s = team.lane; s < 2 * MEM_KINDS; s += team.lanes)
    if ((kinds >> (s / 2) & 1) && (DUAL || !(s & 1))) team.streams[s] = mem_stream_of(job, b, h, j0, s);
}

/* tokens [t0, t0 + n) of the kinds; asynchronous: then commit, wait and synchronise */
template <bool DUAL>
MEM_DEVICE void mem_stage(const mem_job &job, const mem_team &team, uint32_t kinds, int t0, int n, float *to) {
#pragma unroll 1
  for (int s = 0; s < 2 * MEM_KINDS; s += DUAL ? 1 : 2) {
    if (!(kinds >> (s / 2) & 1)) continue;
    const mem_stream x = team.streams[s];
    float *const     at = to + job.at[s];
    const int        ld = job.ld[s / 2];
#pragma unroll 1
    for (int p = team.lane; p < n * x.pieces; p += team.lanes) {
      const int     r = (int)((uint32_t)p * x.magic >> 22), c = (p - r * x.pieces) * x.step;
      const int64_t from = (int64_t)(t0 + r) * x.row + c * x.col;
      float *const  into = at + r * ld + c;
      if (c >= x.cols) {
        for (int i = 0; i < x.step; i++) into[i] = c + i == x.one ? 1.0f : 0.0f;
      } else if (x.step == 4) {
        ptx_copy_async<16>(into, reinterpret_cast<const float *>(x.data) + from, true);
      } else if (x.dtype == MICA_F32) {
        ptx_copy_async<4>(into, reinterpret_cast<const float *>(x.data) + from, true);
      } else {
        *into = __uint_as_float((uint32_t)reinterpret_cast<const uint16_t *>(x.data)[from] << 16);
      }
    }
  }
}

/* a thread's rows of a staged row of K: 4 lk ..., and 4 LK on */
MEM_DEVICE int  mem_row_of(const mem_team &team, int r) { return 4 * team.lk + (r / 4) * 4 * team.LK + r % 4; }
MEM_DEVICE void mem_get_rows(const mem_team &team, const float *row, float (&x)[MEM_R]) {
#pragma unroll
  for (int r = 0; r < MEM_R; r += 4)
    *reinterpret_cast<float4 *>(x + r) = *reinterpret_cast<const float4 *>(row + mem_row_of(team, r));
}
MEM_DEVICE void mem_get_columns(const mem_team &team, const float *row, float (&x)[MEM_J]) {
#if MEM_COLUMNS == 1
  x[0] = row[team.cg];
#else
  *reinterpret_cast<float2 *>(x) = *reinterpret_cast<const float2 *>(row + MEM_J * team.cg);
#endif
}
/* token r of a staged kind */
MEM_DEVICE const float *mem_token(const mem_job &job, const float *buffer, int kind, int tangent, int r) {
  return buffer + job.at[2 * kind + tangent] + r * job.ld[kind];
}
MEM_DEVICE void mem_factors(const mem_job &job, const mem_team &team, const float *buffer, int tangent, int r,
                            float (&x)[MEM_R]) {
  const float *row = mem_token(job, buffer, MEM_A, tangent, r);
  if (job.channel) {
    mem_get_rows(team, row, x);
  } else {
#pragma unroll
    for (int i = 0; i < MEM_R; i++) x[i] = row[0];
  }
}

/* ---- device: states ---- */

/* a thread's part of a state, or of its cotangent, and the tangent of that */
template <bool DUAL>
struct mem_state {
  float v[MEM_R][MEM_J], t[DUAL ? MEM_R : 1][MEM_J];
};

/* element (i, j) of the state and the sum of keys of (b, h), on wires of ports */
struct mem_cells {
  const mica_wire &state, &norm;
  int64_t          at, norm_at;

  __device__ __forceinline__ mem_cells(const mica_wire &state_, const mica_wire &norm_, int64_t b, int64_t h)
      : state(state_), norm(norm_), at(wire_place(state_, NULL, b)), norm_at(wire_place(norm_, NULL, b)) {
    if (at >= 0) at += h * state.stride[0];
    if (norm_at >= 0) norm_at += h * norm.stride[0];
  }
  __device__ __forceinline__ float get(const mem_job &job, int i, int j) const {
    if (j < job.V) return at < 0 ? 0.0f : wire_get(state, at + i * state.stride[1] + j * state.stride[2]);
    return norm_at < 0 ? 0.0f : wire_get(norm, norm_at + i * norm.stride[1]);
  }
  __device__ __forceinline__ void put(const mem_job &job, int i, int j, float x, int64_t b) const {
    if (j < job.V && at >= 0)
      wire_put(state, at + i * state.stride[1] + j * state.stride[2], x, mem_adds(state, NULL, b));
    else if (j >= job.V && norm_at >= 0) wire_put(norm, norm_at + i * norm.stride[1], x, mem_adds(norm, NULL, b));
  }
};
/* column c of a thread, or -1 */
MEM_DEVICE int mem_column(const mem_job &job, const mem_team &team, int j0, int c) {
  const int own = MEM_J * team.cg + c;
  return own < job.width && j0 + own < job.columns ? j0 + own : -1;
}
MEM_DEVICE void mem_load(const mem_job &job, const mem_team &team, const mem_cells &cells, int j0,
                         float (&x)[MEM_R][MEM_J]) {
#pragma unroll
  for (int r = 0; r < MEM_R; r++)
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      const int i = mem_row_of(team, r), j = mem_column(job, team, j0, c);
      x[r][c] = i < job.K && j >= 0 ? cells.get(job, i, j) : 0.0f;
    }
}
/* a face's last state of (b, h): to its wires or, by task, to scratch */
template <bool DUAL>
MEM_DEVICE void mem_last(const mem_job &job, const mem_team &team, const mem_cells &cells, float *scratch, int j0,
                         const mem_state<DUAL> &S, int64_t b, int64_t h) {
#pragma unroll
  for (int r = 0; r < MEM_R; r++)
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      const int i = mem_row_of(team, r), j = mem_column(job, team, j0, c);
      float     x = S.v[r][c];
      if constexpr (DUAL) x = S.t[r][c];
      if (i >= job.K || j < 0) continue;
      if (scratch) scratch[((b * job.H + h) * job.K + i) * job.row + j] = x;
      else cells.put(job, i, j, x, b);
    }
}
/* the matrices before the first token: S; with a momentum its last change, and the one that gradients are taken at */
template <bool DUAL, int STATES>
MEM_DEVICE void mem_first(const mem_job &job, const mem_team &team, int64_t b, int64_t h, int j0,
                          mem_state<DUAL> (&S)[STATES]) {
  mem_load(job, team, mem_cells(job.state_in.v, job.norm_in.v, b, h), j0, S[0].v);
  if constexpr (DUAL) mem_load(job, team, mem_cells(job.state_in.t, job.norm_in.t, b, h), j0, S[0].t);
  if constexpr (STATES > 1) {
    mem_load(job, team, mem_cells(job.moment_in.v, job.norm_in.v, b, h), j0, S[1].v);
    if constexpr (DUAL) mem_load(job, team, mem_cells(job.moment_in.t, job.norm_in.t, b, h), j0, S[1].t);
  }
  if constexpr (STATES > 2) S[2] = mem_state<DUAL>{};
}

/* e -= what k reads */
template <bool DUAL>
MEM_DEVICE void mem_miss(const mem_team &team, const mem_state<DUAL> &S, const float (&k)[MEM_R],
                         const float (&k_t)[MEM_R], float (&e)[MEM_J], float (&e_t)[MEM_J]) {
#pragma unroll
  for (int c = 0; c < MEM_J; c++) {
    float p = 0, p_t = 0;
#pragma unroll
    for (int i = 0; i < MEM_R; i++) {
      p = fmaf(S.v[i][c], k[i], p);
      if constexpr (DUAL) p_t = fmaf(S.t[i][c], k[i], fmaf(S.v[i][c], k_t[i], p_t));
    }
    e[c] -= team.sum_rows(p);
    if (DUAL) e_t[c] -= team.sum_rows(p_t);
  }
}
/* S += k u' */
template <bool DUAL>
MEM_DEVICE void mem_write(mem_state<DUAL> &S, const float (&k)[MEM_R], const float (&k_t)[MEM_R],
                          const float (&u)[MEM_J], const float (&u_t)[MEM_J]) {
#pragma unroll
  for (int i = 0; i < MEM_R; i++)
#pragma unroll
    for (int c = 0; c < MEM_J; c++) {
      if constexpr (DUAL) S.t[i][c] = fmaf(k_t[i], u[c], fmaf(k[i], u_t[c], S.t[i][c]));
      S.v[i][c] = fmaf(k[i], u[c], S.v[i][c]);
    }
}
/* what q reads of the state; a jvp that needs no value (raw) leaves x a part of it */
template <bool DUAL>
MEM_DEVICE void mem_read_state(const mem_job &job, const mem_team &team, const mem_state<DUAL> &S,
                               const float (&q)[MEM_R], const float (&q_t)[MEM_R], float (&x)[MEM_J],
                               float (&x_t)[MEM_J]) {
#pragma unroll
  for (int c = 0; c < MEM_J; c++) {
    x[c] = 0, x_t[c] = 0;
#pragma unroll
    for (int i = 0; i < MEM_R; i++) {
      x[c] = fmaf(S.v[i][c], q[i], x[c]);
      if constexpr (DUAL) x_t[c] = fmaf(S.t[i][c], q[i], fmaf(S.v[i][c], q_t[i], x_t[c]));
    }
    if (!DUAL || job.raw) x[c] = team.sum_rows(x[c]);
    if (DUAL) x_t[c] = team.sum_rows(x_t[c]);
  }
}

/* ---- the rules of memory.h ---- */

template <bool DELTA_, bool DECAY_, bool DUAL_>
struct mem_linear {
  enum { DELTA = DELTA_, DECAY = DECAY_, DUAL = DUAL_, MOMENT = 0, STATES = 1 };
  enum { NEEDS = DELTA || DECAY };           /* the states on the way back */
  enum { WRITES = 1 << MEM_K | 1 << MEM_V | (DELTA ? 1 << MEM_BETA : 0) | (DECAY ? 1 << MEM_A : 0) };
};

/* S becomes the state after token t, token r of the buffer. KNOWN: e is staged, else it is computed and returned */
template <bool KNOWN, bool DELTA, bool DECAY, bool DUAL>
MEM_DEVICE void mem_advance(mem_linear<DELTA, DECAY, DUAL>, const mem_job &job, const mem_team &team,
                            const float *buffer, int, int r, mem_state<DUAL> (&states)[1], float (&e)[MEM_J],
                            float (&e_t)[MEM_J]) {
  mem_state<DUAL> &S = states[0];
  const int        from = KNOWN && DELTA ? MEM_E : MEM_V;
  float            k[MEM_R], k_t[MEM_R], u[MEM_J], u_t[MEM_J];
  mem_get_rows(team, mem_token(job, buffer, MEM_K, 0, r), k);
  if (DUAL) mem_get_rows(team, mem_token(job, buffer, MEM_K, 1, r), k_t);
  if (DECAY) {
    float a[MEM_R], a_t[MEM_R];
    mem_factors(job, team, buffer, 0, r, a);
    if (DUAL) mem_factors(job, team, buffer, 1, r, a_t);
#pragma unroll
    for (int i = 0; i < MEM_R; i++)
#pragma unroll
      for (int c = 0; c < MEM_J; c++) {
        if constexpr (DUAL) S.t[i][c] = fmaf(a_t[i], S.v[i][c], a[i] * S.t[i][c]);
        S.v[i][c] *= a[i];
      }
  }
  mem_get_columns(team, mem_token(job, buffer, from, 0, r), e);
  if (DUAL) mem_get_columns(team, mem_token(job, buffer, from, 1, r), e_t);
  if (DELTA && !KNOWN) mem_miss(team, S, k, k_t, e, e_t);
  const float beta = DELTA ? *mem_token(job, buffer, MEM_BETA, 0, r) : 1.0f;
  const float beta_t = DELTA && DUAL ? *mem_token(job, buffer, MEM_BETA, 1, r) : 0.0f;
#pragma unroll
  for (int c = 0; c < MEM_J; c++) {
    u[c] = DELTA ? beta * e[c] : e[c];
    if (DUAL) u_t[c] = DELTA ? fmaf(beta_t, e[c], beta * e_t[c]) : e_t[c];
  }
  mem_write(S, k, k_t, u, u_t);
}
template <bool DELTA, bool DECAY, bool DUAL>
MEM_DEVICE void mem_read(mem_linear<DELTA, DECAY, DUAL>, const mem_job &job, const mem_team &team,
                         const mem_state<DUAL> (&S)[1], const float (&q)[MEM_R], const float (&q_t)[MEM_R],
                         float (&x)[MEM_J], float (&x_t)[MEM_J]) {
  mem_read_state(job, team, S[0], q, q_t, x, x_t);
}

/* ---- forward and jvp ---- */

template <class RULE>
static __global__ void __launch_bounds__(MEM_THREADS, 2) memory_down(const __grid_constant__ mem_job job) {
  constexpr bool DUAL = RULE::DUAL;
  DYN_SMEM(float, memory);
  const mem_team   team(job, memory);
  const int64_t    unit = (int64_t)blockIdx.x * job.teams + team.index;
  const uint32_t   kinds = RULE::WRITES | (job.reads ? 1u << MEM_Q : 0);
  const mica_wire &out = DUAL ? job.out.t : job.out.v, &state = DUAL ? job.state_out.t : job.state_out.v;
  const mica_wire &norm = DUAL ? job.norm_out.t : job.norm_out.v;
  const mica_wire &moment = DUAL ? job.moment_out.t : job.moment_out.v;
  const int32_t   *offsets = job.out.offsets;
  if (unit >= job.units) return;
  const int     j0 = (int)(unit % job.slices) * job.width;
  const int64_t h = unit / job.slices % job.H, first = unit / job.slices / job.H;
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? */
    return (!job.raw && out.data && wire_follows(out, offsets, b)) || (moment.data && wire_follows(moment, NULL, b)) ||
           (!job.state && ((state.data && wire_follows(state, NULL, b)) || (norm.data && wire_follows(norm, NULL, b))));
  };
  if (follows(first)) return;
  float *o = team.results; /* (tokens, width4), raw with tangents: twice */
  float *o_t = o + job.tokens * job.width4;
  for (int64_t b = first; b == first || (b < job.B && follows(b)); b++) {
    const int T = (int)wire_rows(job.q.offsets, b, job.T), chunks = (T + job.tokens - 1) / job.tokens;
    if (!mem_mine(job, T)) continue;
    mem_state<DUAL> S[RULE::STATES];
    team.sync();                             /* the task before may still be read */
    mem_enter<DUAL>(job, team, b, h, j0, kinds);
    mem_first(job, team, b, h, j0, S);
    team.sync();
    mem_stage<DUAL>(job, team, kinds, 0, min(job.tokens, T), team.memory);
    ptx_copy_commit();
    for (int chunk = 0; chunk < chunks; chunk++) {
      const int    t0 = chunk * job.tokens, n = min(job.tokens, T - t0);
      const float *buffer = team.memory + (chunk & 1) * job.buffer;
      if (chunk + 1 < chunks)
        mem_stage<DUAL>(job, team, kinds, t0 + n, min(job.tokens, T - t0 - n),
                        team.memory + (~chunk & 1) * job.buffer);
      ptx_copy_commit();
      ptx_copy_wait<1>();
      team.sync();
      for (int r = 0; r < n; r++) {
        float e[MEM_J], e_t[MEM_J], q[MEM_R], q_t[MEM_R];
        mem_advance<false>(RULE(), job, team, buffer, t0 + r, r, S, e, e_t);
        if (!job.reads) continue;
        mem_get_rows(team, mem_token(job, buffer, MEM_Q, 0, r), q);
        if (DUAL) mem_get_rows(team, mem_token(job, buffer, MEM_Q, 1, r), q_t);
        mem_read(RULE(), job, team, S, q, q_t, e, e_t);
        if (team.lk) continue;
#pragma unroll
        for (int c = 0; c < MEM_J; c++) {
          const int at = r * job.width4 + MEM_J * team.cg + c;
          if (!DUAL || job.raw) o[at] = e[c];
          if (DUAL) o_t[at] = e_t[c];
        }
      }
      team.sync();
      if (!job.reads) continue;
      const int64_t place = job.raw ? mem_row(job, b, h) : mem_place(out, offsets, b, h);
      const int     columns = min(job.width, (job.raw ? job.columns : job.V) - j0);
      for (int p = team.lane; p < n * job.width4 && place >= 0; p += team.lanes) {
        const int r = p / job.width4, c = p - r * job.width4;
        if (c >= columns) continue;
        const int64_t at = place + (int64_t)(t0 + r) * (job.raw ? job.row : out.stride[0]) +
                           (int64_t)(j0 + c) * (job.raw ? 1 : out.stride[2]);
        if (!job.raw) wire_put(out, at, DUAL ? o_t[p] : o[p], mem_adds(out, offsets, b));
        if (job.raw) job.readings[0][at] = o[p];
        if (DUAL && job.raw) job.readings[1][at] = o_t[p];
      }
    }
    mem_last<DUAL>(job, team, mem_cells(state, norm, b, h), job.state, j0, S[0], b, h);
    if constexpr (RULE::MOMENT) mem_last<DUAL>(job, team, mem_cells(moment, norm, b, h), NULL, j0, S[1], b, h);
    ptx_copy_wait<0>();
  }
}

template <class RULE>
static inline mica_status mem_run_down(const char *name, mem_job job, void *stream) {
  mem_stages(&job, RULE::WRITES | 1u << MEM_Q, RULE::DUAL, (int64_t)job.tokens * job.width4 * (RULE::DUAL ? 2 : 1));
  return micak_launch(name, memory_down<RULE>, mem_grid(&job), mem_block(&job), mem_shared(&job), stream, job);
}

/* ---- the normaliser: a warp a row of readings (V and the sum of keys) ---- */

/* rows of out, or of its tangent, from readings; the tasks of a slot in order */
template <bool DUAL>
static __global__ void __launch_bounds__(MEM_THREADS) memory_divide(const __grid_constant__ mem_job job) {
  const int        lane = (int)threadIdx.x % 32, n = (int)(blockIdx.x * (MEM_THREADS / 32) + threadIdx.x / 32);
  const int        h = n / job.T, t = n - h * job.T;
  const mica_wire &out = DUAL ? job.out.t : job.out.v;
  const int32_t   *offsets = job.out.offsets;
  if (h >= job.H) return;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    const int64_t T = wire_rows(offsets, b, job.T);
    if (wire_follows(out, offsets, b) || wire_place(out, offsets, b) < 0 || t >= T || !mem_mine(job, T)) continue;
    for (int64_t k = b; wire_in_group(out, offsets, b, k, job.B); k++) {
      const int64_t row = mem_row(job, k, h) + (int64_t)t * job.row;
      const int64_t at = mem_place(out, offsets, k, h) + t * out.stride[0];
      const float  *x = job.readings[0] + row, z = x[job.V] + job.eps;
      for (int j = lane; j < job.V; j += 32) {
        float y = x[j] / z;
        if (DUAL) y = (job.readings[1][row + j] - y * job.readings[1][row + job.V]) / z;
        wire_put(out, at + j * out.stride[2], y, mem_adds(out, offsets, k));
      }
    }
  }
}
/* cotangents of readings, in their place, from those of out */
template <bool DUAL>
static __global__ void __launch_bounds__(MEM_THREADS) memory_divide_up(const __grid_constant__ mem_job job) {
  const int        lane = (int)threadIdx.x % 32, n = (int)(blockIdx.x * (MEM_THREADS / 32) + threadIdx.x / 32);
  const int        h = n / job.T, t = n - h * job.T;
  const mica_wire &d = job.out.d, &td = job.out.td;
  const int32_t   *offsets = job.out.offsets;
  if (h >= job.H) return;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    const int64_t T = wire_rows(offsets, b, job.T);
    if (t >= T || !mem_mine(job, T)) continue;
    const int64_t at = mem_place(d, offsets, b, h), at_t = DUAL ? mem_place(td, offsets, b, h) : -1;
    const int64_t row = mem_row(job, b, h) + (int64_t)t * job.row;
    float        *x = job.readings[0] + row, *x_t = job.readings[DUAL] + row;
    const float   z = x[job.V] + job.eps, z_t = DUAL ? x_t[job.V] : 0.0f;
    float         sum = 0, sum_t = 0;
    for (int j = lane; j < job.V; j += 32) {
      const float y = x[j] / z, dy = at < 0 ? 0.0f : wire_get(d, at + t * d.stride[0] + j * d.stride[2]), over = dy / z;
      sum = fmaf(dy, y, sum);
      x[j] = over;
      if (!DUAL) continue;
      const float dy_t = at_t < 0 ? 0.0f : wire_get(td, at_t + t * td.stride[0] + j * td.stride[2]);
      sum_t = fmaf(dy_t, y, fmaf(dy, (x_t[j] - y * z_t) / z, sum_t));
      x_t[j] = (dy_t - over * z_t) / z;
    }
    sum = warp_sum(sum);
    if (DUAL) sum_t = warp_sum(sum_t);
    __syncwarp();                            /* every lane has read the denominator */
    if (lane) continue;
    const float last = -sum / z;
    x[job.V] = last;
    if (DUAL) x_t[job.V] = (-sum_t - last * z_t) / z;
  }
}
static inline mica_status mem_run_divide(const char *name, void (*kernel)(mem_job), const mem_job &job, void *stream) {
  return micak_launch(name, kernel, dim3(micak_blocks((int64_t)job.H * job.T, MEM_THREADS / 32), micak_task_blocks(job.B)),
                      dim3(MEM_THREADS), 0, stream, job);
}

/* ---- faces ---- */

/* the parts of the job that lie in scratch; returns its bytes */
static inline size_t mem_down_scratch(mem_job *job, float *scratch, bool dual) {
  const bool both = job->shortest > 0 || job->longest < MEM_LONGEST; /* another launch writes states, too */
  int64_t    at = both ? mem_state_scratch(job, dual ? job->state_out.t : job->state_out.v,
                                           dual ? job->norm_out.t : job->norm_out.v, scratch)
                       : 0;
  if (job->divide) mem_readings(job, scratch, &at, dual);
  return (size_t)at * sizeof(float);
}
template <class RULE>
static inline mica_status mem_down(const micak_memory *m, const mica_exec *exec, int32_t shortest = 0,
                                   int32_t longest = MEM_LONGEST) {
  constexpr bool DUAL = RULE::DUAL;
  mem_job     job = {};
  mica_status status = mem_open(&job, m, shortest, longest);
  if (status < 0 || job.B <= 0) return status;
  mem_down_scratch(&job, static_cast<float *>(exec->scratch), DUAL);
  job.reads = (DUAL ? job.out.t.data : job.out.v.data) != NULL, job.raw = job.reads && job.divide;
  status = mem_run_down<RULE>(m->name, job, exec->stream);
  if constexpr (!RULE::DELTA)                      /* the delta rules have no normaliser */
    if (status >= 0 && job.raw) status = mem_run_divide(m->name, memory_divide<DUAL>, job, exec->stream);
  return status;
}

#endif
