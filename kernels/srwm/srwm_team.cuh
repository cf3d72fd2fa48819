/* srwm_team.cuh: a token of srwm.h on CUDA. derivation: README.md.
 *
 * a team of threads, a warp or a whole block, has one (task, head). on the way of a token a thread owns columns of the
 * matrix: what they read and what is written to them is its own; a warp makes the softmaxes; on the way back sums along rows
 * are a warp's. the matrix lies in shared memory where it is small, else in scratch: by K and V alone. every number carries
 * its tangent where the face has tangents. nothing is atomic. */
#ifndef MICA_KERNELS_SRWM_TEAM_CUH
#define MICA_KERNELS_SRWM_TEAM_CUH

#include "common/cuda_dual.cuh"
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

/* ---- device: a team ---- */

typedef dual_team srwm_team;
MEM_DEVICE srwm_team srwm_team_of(const srwm_job &job, float *all) {
  return srwm_team(job.lanes, job.teams, job.vectors + (job.fits ? job.cells : 0), all);
}
#define SRWM_COLUMNS(job, team, j) for (int j = (team).lane; j < (job).R; j += (team).lanes)

/* the block of columns that j is in: y, q, k, rates */
MEM_DEVICE int srwm_block_of(const srwm_job &job, int j) {
  return j < job.V ? 0 : j < job.V + job.K ? 1 : j < job.V + 2 * job.K ? 2 : 3;
}

/* a matrix and a wire: its own columns, by each thread */
template <bool DUAL>
MEM_DEVICE void srwm_load(const srwm_job &job, const srwm_team &team, const mica_wire &v, const mica_wire &t, int64_t b,
                          int64_t h, dual_row<DUAL> S) {
  const dual_pair<DUAL> from = { v, t, dual_state_place(v, b, h), DUAL ? dual_state_place(t, b, h) : -1 };
  SRWM_COLUMNS(job, team, j)
    for (int i = 0; i < job.K; i++)
      S.put(i * job.R + j, from.get(i * v.stride[1] + j * v.stride[2], i * t.stride[1] + j * t.stride[2]));
}
template <bool DUAL>
MEM_DEVICE void srwm_save(const srwm_job &job, const srwm_team &team, const mica_wire &w, int64_t b, int64_t h,
                          dual_row<DUAL> S) {
  const int64_t at = dual_state_place(w, b, h);
  const bool    adds = mem_adds(w, NULL, b);
  if (at < 0) return;
  SRWM_COLUMNS(job, team, j)
    for (int i = 0; i < job.K; i++) {
      const dual_num<DUAL> x = S.get(i * job.R + j);
      wire_put(w, at + i * w.stride[1] + j * w.stride[2], DUAL ? x.t : x.v, adds);
    }
}

/* by one warp: y = softmax(x) of n numbers, in(i) = x_i */
template <bool DUAL, class IN>
MEM_DEVICE void srwm_softmax(int n, IN in, dual_row<DUAL> y) {
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
MEM_DEVICE void srwm_softmax_up(int n, dual_row<DUAL> y, dual_row<DUAL> d, OUT out) {
  const int      lane = (int)threadIdx.x % 32;
  dual_num<DUAL> sum = {};
  for (int i = lane; i < n; i += 32) sum = dual_fma(y.get(i), d.get(i), sum);
  sum = dual_warp_sum(sum);
  for (int i = lane; i < n; i += 32) {
    const dual_num<DUAL> own = d.get(i);
    out(i, dual_fma(y.get(i), { own.v - sum.v, own.t - sum.t }, {}));
  }
}

/* what a token makes of its input and of what it reads; z, u: kept for the way back alone */
template <bool DUAL>
struct srwm_record {
  dual_row<DUAL> p, a, c, e, rate, z, u;

  __device__ __forceinline__ srwm_record(const srwm_job &job, float *at)
      : p(dual_take<DUAL>(at, job.K)), a(dual_take<DUAL>(at, job.K)), c(dual_take<DUAL>(at, job.K)),
        e(dual_take<DUAL>(at, job.K)), rate(dual_take<DUAL>(at, SRWM_RATES)), z(dual_take<DUAL>(at, job.R)),
        u(dual_take<DUAL>(at, job.R)) {}
};

/* what row x of the matrix reads, column j */
template <bool DUAL>
MEM_DEVICE dual_num<DUAL> srwm_read(const srwm_job &job, dual_row<DUAL> x, dual_row<DUAL> S, int j) {
  dual_num<DUAL> sum = {};
#pragma unroll 4
  for (int i = 0; i < job.K; i++) sum = dual_fma(x.get(i), S.get(i * job.R + j), sum);
  return sum;
}
/* column j: S = from + x u' */
template <bool DUAL>
MEM_DEVICE void srwm_write(const srwm_job &job, dual_row<DUAL> x, dual_num<DUAL> u, dual_row<DUAL> from, dual_row<DUAL> S,
                           int j) {
#pragma unroll 4
  for (int i = 0; i < job.K; i++) S.put(i * job.R + j, dual_fma(x.get(i), u, from.get(i * job.R + j)));
}

/* token t: `own.p` is there; reads S, writes the matrix after it to `next` (S; NULL: not wanted) and p of token t + 1, if
 * there is one, to `then`. `read`: a row of shared memory, y is in it afterwards. KEEP: z and u go to the record */
template <bool DUAL, bool KEEP>
MEM_DEVICE void srwm_token(const srwm_job &job, const srwm_team &team, const dual_pair<DUAL> &x, int t, int end,
                           const srwm_record<DUAL> &own, const srwm_record<DUAL> &then, dual_row<DUAL> S,
                           dual_row<DUAL> next, dual_row<DUAL> read) {
  SRWM_COLUMNS(job, team, j) read.put(j, srwm_read(job, own.p, S, j));
  team.sync();
  if (team.warp == 0) {
    srwm_softmax<DUAL>(job.K, [&](int i) { return read.get(job.V + i); }, own.a);
    srwm_softmax<DUAL>(job.K, [&](int i) { return read.get(job.V + job.K + i); }, own.c);
    for (int i = team.lane; i < job.K; i += 32) {
      const dual_num<DUAL> a = own.a.get(i), c = own.c.get(i);
      own.e.put(i, { a.v - c.v, a.t - c.t });
    }
    if (team.lane < SRWM_RATES) {
      const dual_num<DUAL> r = read.get(job.V + 2 * job.K + team.lane);
      const float          s = 1.0f / (1.0f + expf(-r.v));
      own.rate.put(team.lane, { s, s * (1.0f - s) * r.t });
    }
    if (t + 1 < end) srwm_softmax<DUAL>(job.K, [&](int i) { return x.cell(t + 1, i); }, then.p);
  }
  team.sync();
  SRWM_COLUMNS(job, team, j) {
    const dual_num<DUAL> z = srwm_read(job, own.e, S, j), u = dual_fma(own.rate.get(srwm_block_of(job, j)), z, {});
    if (KEEP) own.z.put(j, z), own.u.put(j, u);
    if (next.at) srwm_write(job, own.c, u, S, next, j);
  }
}

#endif
