/* srwm_team.cuh: a token of srwm.h on CUDA. derivation: README.md.
 *
 * a team of threads, a warp or a whole block, has one (task, head). on the way of a token a thread owns columns of the
 * matrix: what they read and what is written to them is its own; a warp makes the softmaxes; on the way back sums along rows
 * are a warp's. the matrix lies in shared memory where it is small, else in scratch: by K and V alone. every number carries
 * its tangent where the face has tangents. nothing is atomic. */
#ifndef MICA_KERNELS_SRWM_TEAM_CUH
#define MICA_KERNELS_SRWM_TEAM_CUH

#include "common/cuda_memory.cuh"
#include "srwm/srwm_internal.h"

enum { SRWM_THREADS = 256, SRWM_WARP_TEAMS = 4, SRWM_AT_ONCE = 2048 }; /* AT_ONCE: teams with scratch of their own */
enum { SRWM_FIT = 20 * 1024 };               /* floats of a block's matrices in shared memory */

struct srwm_job {
  int64_t   B, units;                        /* units: (task, head) */
  int32_t   T, H, K, V, R, lanes, teams, chunks, steps; /* steps: tokens of a chunk */
  int32_t   vectors, record, cells, fits;    /* floats of a team; cells: of a matrix */
  int64_t   own;                             /* floats of scratch of a team */
  mica_port x, state_in, out, state_out;
  float    *scratch, *state;                 /* state: cotangents of state_in by (task, head), where tasks may share it */
};

/* ---- host ---- */

/* `back`: the way up too */
static inline mica_status srwm_open(srwm_job *job, const mica_srwm_args *a, bool back, bool dual) {
  static const char *const names[] = { "x", "state_in", "out", "state_out" };
  const mica_port *ports[] = { &a->x, &a->state_in, &a->out, &a->state_out };
  for (int i = 0; i < MICA_COUNT(ports); i++) {
    const mica_wire *wires[] = { &ports[i]->v, &ports[i]->d, &ports[i]->t, &ports[i]->td };
    for (int w = 0; w < MICA_COUNT(wires); w++)
      if (wires[w]->data && wires[w]->dtype == MICA_F64)
        return mica_error(MICA_ERR_UNSUPPORTED, "srwm on backend cuda: a wire of %s is f64, expected f32 or bf16", names[i]);
  }
  const int planes = dual ? 2 : 1;
  job->B = a->B, job->units = a->B * a->H, job->T = (int32_t)a->T, job->H = (int32_t)a->H, job->K = (int32_t)a->K;
  job->V = (int32_t)a->V, job->R = (int32_t)a->R;
  job->lanes = a->R <= 64 ? 32 : a->R <= 256 ? 128 : SRWM_THREADS, job->teams = job->lanes == 32 ? SRWM_WARP_TEAMS : 1;
  job->steps = a->T < SRWM_BLOCK ? (int32_t)a->T : SRWM_BLOCK;
  job->chunks = (int32_t)((a->T + SRWM_BLOCK - 1) / SRWM_BLOCK);
  job->cells = planes * job->K * job->R;
  job->record = planes * (4 * job->K + SRWM_RATES + (back ? 2 * job->R : 0));
  job->vectors = planes * (back ? 3 * job->R + 2 * job->K : job->R) + (back ? 0 : job->record);
  job->fits = job->teams * job->cells <= SRWM_FIT;
  job->own = job->fits ? 0 : job->cells;
  if (back) job->own += (int64_t)(job->chunks + job->steps) * job->cells + (int64_t)job->steps * job->record;
  job->x = a->x, job->state_in = a->state_in, job->out = a->out, job->state_out = a->state_out;
  return MICA_OK;
}
static inline int64_t srwm_at_once(const srwm_job *job) { return job->units < SRWM_AT_ONCE ? job->units : SRWM_AT_ONCE; }
static inline dim3    srwm_grid(const srwm_job *job) { return dim3(micak_blocks(srwm_at_once(job), job->teams)); }
static inline dim3    srwm_block(const srwm_job *job) { return dim3((unsigned)(job->lanes * job->teams)); }
static inline size_t  srwm_shared(const srwm_job *job) {
  return (size_t)job->teams * (size_t)(job->vectors + (job->fits ? job->cells : 0)) * sizeof(float);
}

/* ---- device: numbers with tangents ---- */

template <bool DUAL>
struct srwm_num {
  float v, t;
};
/* c + a b */
template <bool DUAL>
MEM_DEVICE srwm_num<DUAL> srwm_fma(srwm_num<DUAL> a, srwm_num<DUAL> b, srwm_num<DUAL> c) {
  return { fmaf(a.v, b.v, c.v), DUAL ? fmaf(a.t, b.v, fmaf(a.v, b.t, c.t)) : 0.0f };
}
template <bool DUAL>
MEM_DEVICE srwm_num<DUAL> srwm_warp_sum(srwm_num<DUAL> x) {
  return { warp_sum(x.v), DUAL ? warp_sum(x.t) : 0.0f };
}

/* a row, its tangent `plane` further on */
template <bool DUAL>
struct srwm_row {
  float *at;
  int    plane;

  __device__ __forceinline__ srwm_num<DUAL> get(int i) const { return { at[i], DUAL ? at[plane + i] : 0.0f }; }
  __device__ __forceinline__ void put(int i, srwm_num<DUAL> x) const {
    at[i] = x.v;
    if (DUAL) at[plane + i] = x.t;
  }
  __device__ __forceinline__ srwm_row from(int i) const { return { at + i, plane }; }
};
/* the next n numbers of some memory */
template <bool DUAL>
MEM_DEVICE srwm_row<DUAL> srwm_take(float *&at, int n) {
  const srwm_row<DUAL> row = { at, n };
  at += (DUAL ? 2 : 1) * n;
  return row;
}

/* two wires of a port: v and t, or d and td */
template <bool DUAL>
struct srwm_pair {
  const mica_wire &v, &t;
  int64_t          at, at_t;                 /* -1: zeros */

  __device__ __forceinline__ srwm_num<DUAL> get(int64_t i, int64_t i_t) const {
    return { at < 0 ? 0.0f : wire_get(v, at + i), DUAL && at_t >= 0 ? wire_get(t, at_t + i_t) : 0.0f };
  }
  /* element c of row r of (B,T,H,.) */
  __device__ __forceinline__ srwm_num<DUAL> cell(int64_t r, int64_t c) const {
    return get(r * v.stride[0] + c * v.stride[2], r * t.stride[0] + c * t.stride[2]);
  }
};
template <bool DUAL>
MEM_DEVICE srwm_pair<DUAL> srwm_rows(const mica_wire &v, const mica_wire &t, const int32_t *offsets, int64_t b, int64_t h) {
  return { v, t, mem_place(v, offsets, b, h), DUAL ? mem_place(t, offsets, b, h) : -1 };
}
MEM_DEVICE int64_t srwm_state_place(const mica_wire &w, int64_t b, int64_t h) {
  const int64_t place = wire_place(w, NULL, b);
  return place < 0 ? -1 : place + h * w.stride[0];
}

/* ---- device: a team ---- */

struct srwm_team {
  int    lane, lanes, warp, warps;           /* lane of the team */
  int64_t index, count;                      /* of all teams */
  float *memory;

  __device__ __forceinline__ srwm_team(const srwm_job &job, float *all) {
    const int t = (int)threadIdx.x, own = job.teams == 1 ? 0 : t / job.lanes;
    lanes = job.lanes, lane = t - own * lanes, warp = lane / 32, warps = lanes / 32;
    index = (int64_t)blockIdx.x * job.teams + own, count = (int64_t)gridDim.x * job.teams;
    memory = all + own * (job.vectors + (job.fits ? job.cells : 0));
  }
  __device__ __forceinline__ void sync() const {
    if (lanes == 32) __syncwarp();
    else __syncthreads();
  }
};
#define SRWM_COLUMNS(job, team, j) for (int j = (team).lane; j < (job).R; j += (team).lanes)

/* the block of columns that j is in: y, q, k, rates */
MEM_DEVICE int srwm_block_of(const srwm_job &job, int j) {
  return j < job.V ? 0 : j < job.V + job.K ? 1 : j < job.V + 2 * job.K ? 2 : 3;
}

/* a matrix and a wire: its own columns, by each thread */
template <bool DUAL>
MEM_DEVICE void srwm_load(const srwm_job &job, const srwm_team &team, const mica_wire &v, const mica_wire &t, int64_t b,
                          int64_t h, srwm_row<DUAL> S) {
  const srwm_pair<DUAL> from = { v, t, srwm_state_place(v, b, h), DUAL ? srwm_state_place(t, b, h) : -1 };
  SRWM_COLUMNS(job, team, j)
    for (int i = 0; i < job.K; i++)
      S.put(i * job.R + j, from.get(i * v.stride[1] + j * v.stride[2], i * t.stride[1] + j * t.stride[2]));
}
template <bool DUAL>
MEM_DEVICE void srwm_save(const srwm_job &job, const srwm_team &team, const mica_wire &w, int64_t b, int64_t h,
                          srwm_row<DUAL> S) {
  const int64_t at = srwm_state_place(w, b, h);
  const bool    adds = mem_adds(w, NULL, b);
  if (at < 0) return;
  SRWM_COLUMNS(job, team, j)
    for (int i = 0; i < job.K; i++) {
      const srwm_num<DUAL> x = S.get(i * job.R + j);
      wire_put(w, at + i * w.stride[1] + j * w.stride[2], DUAL ? x.t : x.v, adds);
    }
}

/* by one warp: y = softmax(x) of n numbers, in(i) = x_i */
template <bool DUAL, class IN>
MEM_DEVICE void srwm_softmax(int n, IN in, srwm_row<DUAL> y) {
  const int lane = (int)threadIdx.x % 32;
  float     top = -INFINITY, sum = 0, mean = 0;
  for (int i = lane; i < n; i += 32) top = reduce_max()(in(i).v, top);
  top = warp_max(top);
  for (int i = lane; i < n; i += 32) sum += y.at[i] = expf(in(i).v - top);
  sum = warp_sum(sum);
  for (int i = lane; i < n; i += 32) {
    y.at[i] /= sum;
    if (DUAL) mean = fmaf(y.at[i], in(i).t, mean);
  }
  if (!DUAL) return;
  mean = warp_sum(mean);
  for (int i = lane; i < n; i += 32) y.at[y.plane + i] = y.at[i] * (in(i).t - mean);
}
/* by one warp: out(i, x_i) with x = y (d - <y, d>), the cotangent of what y is the softmax of */
template <bool DUAL, class OUT>
MEM_DEVICE void srwm_softmax_up(int n, srwm_row<DUAL> y, srwm_row<DUAL> d, OUT out) {
  const int      lane = (int)threadIdx.x % 32;
  srwm_num<DUAL> sum = {};
  for (int i = lane; i < n; i += 32) sum = srwm_fma(y.get(i), d.get(i), sum);
  sum = srwm_warp_sum(sum);
  for (int i = lane; i < n; i += 32) {
    const srwm_num<DUAL> own = d.get(i);
    out(i, srwm_fma(y.get(i), { own.v - sum.v, own.t - sum.t }, {}));
  }
}

/* what a token makes of its input and of what it reads; z, u: kept for the way back alone */
template <bool DUAL>
struct srwm_record {
  srwm_row<DUAL> p, a, c, e, rate, z, u;

  __device__ __forceinline__ srwm_record(const srwm_job &job, float *at)
      : p(srwm_take<DUAL>(at, job.K)), a(srwm_take<DUAL>(at, job.K)), c(srwm_take<DUAL>(at, job.K)),
        e(srwm_take<DUAL>(at, job.K)), rate(srwm_take<DUAL>(at, SRWM_RATES)), z(srwm_take<DUAL>(at, job.R)),
        u(srwm_take<DUAL>(at, job.R)) {}
};

/* what row x of the matrix reads, column j */
template <bool DUAL>
MEM_DEVICE srwm_num<DUAL> srwm_read(const srwm_job &job, srwm_row<DUAL> x, srwm_row<DUAL> S, int j) {
  srwm_num<DUAL> sum = {};
#pragma unroll 4
  for (int i = 0; i < job.K; i++) sum = srwm_fma(x.get(i), S.get(i * job.R + j), sum);
  return sum;
}
/* column j: S = from + x u' */
template <bool DUAL>
MEM_DEVICE void srwm_write(const srwm_job &job, srwm_row<DUAL> x, srwm_num<DUAL> u, srwm_row<DUAL> from, srwm_row<DUAL> S,
                           int j) {
#pragma unroll 4
  for (int i = 0; i < job.K; i++) S.put(i * job.R + j, srwm_fma(x.get(i), u, from.get(i * job.R + j)));
}

/* token t: `own.p` is there; reads S, writes the matrix after it to `next` (S; NULL: not wanted) and p of token t + 1, if
 * there is one, to `then`. `read`: a row of shared memory, y is in it afterwards. KEEP: z and u go to the record */
template <bool DUAL, bool KEEP>
MEM_DEVICE void srwm_token(const srwm_job &job, const srwm_team &team, const srwm_pair<DUAL> &x, int t, int end,
                           const srwm_record<DUAL> &own, const srwm_record<DUAL> &then, srwm_row<DUAL> S,
                           srwm_row<DUAL> next, srwm_row<DUAL> read) {
  SRWM_COLUMNS(job, team, j) read.put(j, srwm_read(job, own.p, S, j));
  team.sync();
  if (team.warp == 0) {
    srwm_softmax<DUAL>(job.K, [&](int i) { return read.get(job.V + i); }, own.a);
    srwm_softmax<DUAL>(job.K, [&](int i) { return read.get(job.V + job.K + i); }, own.c);
    for (int i = team.lane; i < job.K; i += 32) {
      const srwm_num<DUAL> a = own.a.get(i), c = own.c.get(i);
      own.e.put(i, { a.v - c.v, a.t - c.t });
    }
    if (team.lane < SRWM_RATES) {
      const srwm_num<DUAL> r = read.get(job.V + 2 * job.K + team.lane);
      const float          s = 1.0f / (1.0f + expf(-r.v));
      own.rate.put(team.lane, { s, s * (1.0f - s) * r.t });
    }
    if (t + 1 < end) srwm_softmax<DUAL>(job.K, [&](int i) { return x.cell(t + 1, i); }, then.p);
  }
  team.sync();
  SRWM_COLUMNS(job, team, j) {
    const srwm_num<DUAL> z = srwm_read(job, own.e, S, j), u = srwm_fma(own.rate.get(srwm_block_of(job, j)), z, {});
    if (KEEP) own.z.put(j, z), own.u.put(j, u);
    if (next.at) srwm_write(job, own.c, u, S, next, j);
  }
}

#endif
