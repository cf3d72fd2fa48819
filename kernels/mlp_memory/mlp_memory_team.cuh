/* mlp_memory_team.cuh: a token of mlp_memory.h on CUDA. letters as in README.md.
 *
 * a team of threads, a warp or a whole block, has one (task, head). a thread owns hidden units: their columns of W1 and M1,
 * and their rows of W2 and M2, which nobody else writes; other threads read W2, and on the way back all matrices, behind
 * barriers. the matrices lie in shared memory where they are small, else in scratch: by K, F and V alone. nothing is
 * atomic. */
#ifndef MICA_KERNELS_MLP_MEMORY_TEAM_CUH
#define MICA_KERNELS_MLP_MEMORY_TEAM_CUH

#include "common/cuda_dual.cuh"
#include "mlp_memory/mlp_memory_internal.h"

enum { NET_THREADS = 256, NET_WARP_TEAMS = 4, NET_AT_ONCE = 2048 }; /* AT_ONCE: most teams with scratch of their own */
enum { NET_FIT = 20 * 1024 };                /* floats of a block's matrices in shared memory */
enum { NET_Q, NET_K, NET_V, NET_BETA, NET_DECAY, NET_MOMENTUM, NET_ROWS, NET_STATE = NET_ROWS, NET_IN = NET_STATE + MM_STATES };
enum { NET_OUT, NET_STATE_OUT, NET_GIVEN = NET_STATE_OUT + MM_STATES };

struct net_wires {
  mica_wire v, t;                            /* of an output: d and td */
};
struct net_job {
  int64_t B, units, own;                     /* units: (task, head); own: floats of scratch of a team */
  int32_t T, H, K, F, V, ldf;                /* ldf: of rows of W1 and of W2', odd: rows and columns without conflicts */
  int32_t lanes, teams, chunks, steps;       /* steps: tokens of a chunk */
  int32_t second, moment, cells, tokens, record, vectors, fits; /* where W2 and M1 begin; floats: of the states, of a token's
                                                rows, of what it makes of them, of a team */
  net_wires      in[NET_IN], given[NET_GIVEN];
  mica_wire      result[NET_IN];             /* as given, or as in */
  const int32_t *offsets[NET_ROWS + 1];      /* of rows; the last of out */
  float         *scratch, *state[MM_STATES]; /* state: cotangents by (task, head), where tasks may share their place */
};
static_assert(sizeof(net_job) <= 4096, "a kernel's parameters");

/* ---- host ---- */

static inline mica_status net_open(net_job *job, const mica_mlp_memory_args *a, bool back, bool dual) {
  static const char *const names[] = { "q", "k", "v", "beta", "decay", "momentum", "first_in", "second_in", "first_moment_in",
                                       "second_moment_in", "out", "first_out", "second_out", "first_moment_out",
                                       "second_moment_out" };
  const mica_port *ports[] = { &a->q, &a->k, &a->v, &a->beta, &a->decay, &a->momentum, &a->first_in, &a->second_in,
                               &a->first_moment_in, &a->second_moment_in, &a->out, &a->first_out, &a->second_out,
                               &a->first_moment_out, &a->second_moment_out };
  for (int i = 0; i < MICA_COUNT(ports); i++) {
    const mica_port &p = *ports[i];
    const mica_wire *wires[] = { &p.v, &p.d, &p.t, &p.td };
    for (int w = 0; w < MICA_COUNT(wires); w++)
      if (wires[w]->data && wires[w]->dtype == MICA_F64)
        return mica_error(MICA_ERR_UNSUPPORTED, "mlp_memory on backend cuda: a wire of %s is f64, expected f32 or bf16",
                          names[i]);
    if (i < NET_IN) job->in[i] = net_wires{ p.v, p.t };
    else job->given[i - NET_IN] = net_wires{ p.d, p.td };
    if (back && i < NET_IN) job->result[i] = dual ? p.td : p.d;
    if (!back && i >= NET_IN) job->result[i - NET_IN] = dual ? p.t : p.v;
    if (i < NET_ROWS) job->offsets[i] = p.offsets;
    if (i == NET_IN) job->offsets[NET_ROWS] = p.offsets;
  }
  const int planes = dual ? 2 : 1;
  job->B = a->B, job->units = a->B * a->H, job->T = (int32_t)a->T, job->H = (int32_t)a->H, job->K = (int32_t)a->K;
  job->F = (int32_t)a->F, job->V = (int32_t)a->V, job->ldf = job->F | 1;
  const int32_t most = job->F > job->V ? job->F : job->V;
  job->lanes = most <= 32 ? 32 : most <= 128 ? 128 : NET_THREADS, job->teams = job->lanes == 32 ? NET_WARP_TEAMS : 1;
  job->steps = a->T < MLP_MEMORY_BLOCK ? (int32_t)a->T : MLP_MEMORY_BLOCK;
  job->chunks = (int32_t)((a->T + MLP_MEMORY_BLOCK - 1) / MLP_MEMORY_BLOCK);
  job->second = job->K * job->ldf, job->moment = job->second + job->V * job->ldf, job->cells = planes * 2 * job->moment;
  job->tokens = planes * (2 * job->K + 2 * job->V + 3);
  job->record = planes * (7 * job->F + 2 * job->V);
  job->vectors = 2 * job->tokens + (back ? planes * (5 * job->F + job->V + job->K) + 3 * NET_THREADS / 32 : job->record);
  job->fits = job->teams * job->cells <= NET_FIT;
  job->own = job->fits ? 0 : job->cells;
  if (back) job->own += (int64_t)(job->chunks + job->steps + 1) * job->cells + (int64_t)job->steps * job->record;
  return MICA_OK;
}
/* at most 1 GiB of scratch, but 128 teams */
static inline int64_t net_at_once(const net_job *job) {
  int64_t most = job->own ? ((int64_t)1 << 28) / job->own : NET_AT_ONCE;
  most = most < 128 ? 128 : most > NET_AT_ONCE ? NET_AT_ONCE : most;
  return job->units < most ? job->units : most;
}
static inline dim3   net_grid(const net_job *job) { return dim3(micak_blocks(net_at_once(job), job->teams)); }
static inline dim3   net_block(const net_job *job) { return dim3((unsigned)(job->lanes * job->teams)); }
static inline size_t net_shared(const net_job *job) {
  return (size_t)job->teams * (size_t)(job->vectors + (job->fits ? job->cells : 0)) * sizeof(float);
}

/* ---- device ---- */

MEM_DEVICE dual_team net_team(const net_job &job, float *all) {
  return dual_team(job.lanes, job.teams, job.vectors + (job.fits ? job.cells : 0), all);
}
#define NET_EACH(team, i, n) for (int i = (team).lane; i < (n); i += (team).lanes)

template <bool DUAL>
MEM_DEVICE dual_num<DUAL> net_mul(dual_num<DUAL> a, dual_num<DUAL> b) { return dual_fma(a, b, {}); }
template <bool DUAL>
MEM_DEVICE dual_num<DUAL> net_sum(dual_num<DUAL> a, dual_num<DUAL> b) { return { a.v + b.v, a.t + b.t }; }
template <bool DUAL>
MEM_DEVICE dual_num<DUAL> net_minus(dual_num<DUAL> a) { return { -a.v, -a.t }; }

/* W1 (K x F), W2 (F x V), M1, M2; the second layer's columns follow each other, as threads own rows of it */
template <bool DUAL>
struct net_states {
  dual_row<DUAL> W1, W2, M1, M2;

  __device__ __forceinline__ net_states(const net_job &job, float *at) {
    const dual_row<DUAL> all = { at, 2 * job.moment };
    W1 = all, W2 = all.from(job.second), M1 = all.from(job.moment), M2 = all.from(job.moment + job.second);
  }
};
/* element (r, c) of layer `second` of a wire, at its place in the states */
#define NET_CELLS(job, team, second, p, r, c)                                                                        \
  for (int p = (team).lane, columns_ = (second) ? (job).V : (job).F, rows_ = (second) ? (job).F : (job).K, r, c;      \
       p < rows_ * columns_ && (r = p / columns_, c = p - r * columns_, true); p += (team).lanes)
MEM_DEVICE int net_cell(const net_job &job, int state, int r, int c) {
  return (state & 1 ? job.second : 0) + (state & 2 ? job.moment : 0) + (state & 1 ? c * job.ldf + r : r * job.ldf + c);
}
/* the four matrices of (b, h) from wires; a barrier must follow */
template <bool DUAL>
MEM_DEVICE void net_load(const net_job &job, const dual_team &team, const net_wires *wires, int64_t b, int64_t h,
                         const net_states<DUAL> &S) {
#pragma unroll 1
  for (int state = 0; state < MM_STATES; state++) {
    const mica_wire      &v = wires[state].v, &t = wires[state].t;
    const dual_pair<DUAL> from = { v, t, dual_state_place(v, b, h), DUAL ? dual_state_place(t, b, h) : -1 };
    NET_CELLS(job, team, state & 1, p, r, c)
      S.W1.put(net_cell(job, state, r, c),
               from.get(r * v.stride[1] + c * v.stride[2], r * t.stride[1] + c * t.stride[2]));
  }
}
template <bool DUAL>
MEM_DEVICE void net_save(const net_job &job, const dual_team &team, const mica_wire *wires, bool back, int64_t b, int64_t h,
                         const net_states<DUAL> &S) {
#pragma unroll 1
  for (int state = 0; state < MM_STATES; state++) {
    const mica_wire &w = wires[state];
    const int64_t    at = dual_state_place(w, b, h);
    const bool       adds = mem_adds(w, NULL, b);
    float *const     kept = back ? job.state[state] : NULL;
    if (at < 0 && !kept) continue;
    NET_CELLS(job, team, state & 1, p, r, c) {
      const dual_num<DUAL> x = S.W1.get(net_cell(job, state, r, c));
      if (kept) kept[(b * job.H + h) * rows_ * columns_ + p] = DUAL ? x.t : x.v;
      else wire_put(w, at + r * w.stride[1] + c * w.stride[2], DUAL ? x.t : x.v, adds);
    }
  }
}

/* rows of a token, staged */
template <bool DUAL>
struct net_token {
  dual_row<DUAL> q, k, v, d, numbers;        /* numbers: beta, decay, momentum */

  __device__ __forceinline__ net_token(const net_job &job, float *at)
      : q(dual_take<DUAL>(at, job.K)), k(dual_take<DUAL>(at, job.K)), v(dual_take<DUAL>(at, job.V)),
        d(dual_take<DUAL>(at, job.V)), numbers(dual_take<DUAL>(at, 3)) {}
  __device__ __forceinline__ dual_num<DUAL> beta() const { return numbers.get(0); }
  __device__ __forceinline__ dual_num<DUAL> decay() const { return numbers.get(1); }
  __device__ __forceinline__ dual_num<DUAL> momentum() const { return numbers.get(2); }
};
template <bool DUAL>
MEM_DEVICE void net_stage_row(const dual_team &team, const net_wires &w, const int32_t *offsets, int64_t b, int64_t h, int t,
                              int n, dual_row<DUAL> to) {
  const dual_pair<DUAL> from = dual_rows<DUAL>(w.v, w.t, offsets, b, h);
  NET_EACH(team, i, n) to.put(i, from.cell(t, i));
}
template <bool DUAL>
MEM_DEVICE void net_stage_number(const net_wires &w, const int32_t *offsets, int64_t b, int64_t h, int t, float absent,
                                 dual_row<DUAL> to) {
  const dual_pair<DUAL> from = dual_rows<DUAL>(w.v, w.t, offsets, b, h);
  to.put(0, w.v.data ? from.cell(t, 0) : dual_num<DUAL>{ absent, 0.0f });
}
/* token t of (b, h), and with `back` the cotangent of its out */
template <bool DUAL>
MEM_DEVICE void net_stage(const net_job &job, const dual_team &team, bool back, int64_t b, int64_t h, int t,
                          const net_token<DUAL> &to) {
  net_stage_row<DUAL>(team, job.in[NET_Q], job.offsets[NET_Q], b, h, t, job.K, to.q);
  net_stage_row<DUAL>(team, job.in[NET_K], job.offsets[NET_K], b, h, t, job.K, to.k);
  net_stage_row<DUAL>(team, job.in[NET_V], job.offsets[NET_V], b, h, t, job.V, to.v);
  if (back) net_stage_row<DUAL>(team, job.given[NET_OUT], job.offsets[NET_ROWS], b, h, t, job.V, to.d);
  if (team.lane) return;
  net_stage_number<DUAL>(job.in[NET_BETA], job.offsets[NET_BETA], b, h, t, 1.0f, to.numbers);
  net_stage_number<DUAL>(job.in[NET_DECAY], job.offsets[NET_DECAY], b, h, t, 1.0f, to.numbers.from(1));
  net_stage_number<DUAL>(job.in[NET_MOMENTUM], job.offsets[NET_MOMENTUM], b, h, t, 0.0f, to.numbers.from(2));
}

/* what a token makes of its rows: F numbers each but u and e (V). bend, g, c, slope_read and e: for the way back alone */
template <bool DUAL>
struct net_record {
  dual_row<DUAL> h, slope, read, bend, g, c, slope_read, u, e;

  __device__ __forceinline__ net_record(const net_job &job, float *at)
      : h(dual_take<DUAL>(at, job.F)), slope(dual_take<DUAL>(at, job.F)), read(dual_take<DUAL>(at, job.F)),
        bend(dual_take<DUAL>(at, job.F)), g(dual_take<DUAL>(at, job.F)), c(dual_take<DUAL>(at, job.F)),
        slope_read(dual_take<DUAL>(at, job.F)), u(dual_take<DUAL>(at, job.V)), e(dual_take<DUAL>(at, job.V)) {}
};

/* silu and its first two derivatives at z */
template <bool DUAL>
struct net_silu {
  dual_num<DUAL> value, slope, bend;

  __device__ __forceinline__ net_silu(dual_num<DUAL> z) {
    const float x = z.v, s = 1.0f / (1.0f + expf(-x)), p = s * (1.0f - s), r = 1.0f - 2.0f * s;
    const float first = fmaf(x, p, s), second = p * fmaf(x, r, 2.0f);
    value = { x * s, first * z.t }, slope = { first, second * z.t };
    bend = { second, p * fmaf(x, fmaf(r, r, -2.0f * p), 3.0f * r) * z.t };
  }
};

/* first of three steps: h of the hidden units. a barrier must follow each */
template <bool DUAL, bool KEEP>
MEM_DEVICE void net_hidden(const net_job &job, const dual_team &team, const net_token<DUAL> &in, const net_states<DUAL> &S,
                           const net_record<DUAL> &own) {
  NET_EACH(team, f, job.F) {
    dual_num<DUAL> z = {};
#pragma unroll 2
    for (int i = 0; i < job.K; i++) z = dual_fma(in.k.get(i), S.W1.get(i * job.ldf + f), z);
    const net_silu<DUAL> s(z);
    own.h.put(f, s.value), own.slope.put(f, s.slope);
    if (KEEP) own.bend.put(f, s.bend);
  }
}
/* element j of h' W2 */
template <bool DUAL>
MEM_DEVICE dual_num<DUAL> net_output(const net_job &job, dual_row<DUAL> h, dual_row<DUAL> W2, int j) {
  dual_num<DUAL> x = {};
#pragma unroll 2
  for (int f = 0; f < job.F; f++) x = dual_fma(h.get(f), W2.get(j * job.ldf + f), x);
  return x;
}
template <bool DUAL, bool KEEP>
MEM_DEVICE void net_error(const net_job &job, const dual_team &team, const net_token<DUAL> &in, const net_states<DUAL> &S,
                          const net_record<DUAL> &own) {
  NET_EACH(team, j, job.V) {
    const dual_num<DUAL> e = net_sum(in.v.get(j), net_minus(net_output(job, own.h, S.W2, j)));
    own.u.put(j, net_mul(in.beta(), e));
    if (KEEP) own.e.put(j, e);
  }
}
/* the states after the token, to `next` (S), and silu(X1' q) */
template <bool DUAL, bool KEEP>
MEM_DEVICE void net_change(const net_job &job, const dual_team &team, const net_token<DUAL> &in, const net_states<DUAL> &S,
                           const net_states<DUAL> &next, const net_record<DUAL> &own) {
  const dual_num<DUAL> decay = in.decay(), momentum = in.momentum();
  NET_EACH(team, f, job.F) {
    const dual_num<DUAL> h = own.h.get(f);
    dual_num<DUAL>       g = {}, y = {};
#pragma unroll 2
    for (int j = 0; j < job.V; j++) g = dual_fma(S.W2.get(j * job.ldf + f), own.u.get(j), g);
    const dual_num<DUAL> c = net_mul(g, own.slope.get(f));
    if (KEEP) own.g.put(f, g), own.c.put(f, c);
#pragma unroll 1
    for (int i = 0; i < job.K; i++) {
      const int            at = i * job.ldf + f;
      const dual_num<DUAL> m = dual_fma(in.k.get(i), c, net_mul(momentum, S.M1.get(at)));
      const dual_num<DUAL> w = net_sum(net_mul(decay, S.W1.get(at)), m);
      next.M1.put(at, m), next.W1.put(at, w);
      y = dual_fma(in.q.get(i), w, y);
    }
#pragma unroll 1
    for (int j = 0; j < job.V; j++) {
      const int            at = j * job.ldf + f;
      const dual_num<DUAL> m = dual_fma(h, own.u.get(j), net_mul(momentum, S.M2.get(at)));
      next.M2.put(at, m), next.W2.put(at, net_sum(net_mul(decay, S.W2.get(at)), m));
    }
    const net_silu<DUAL> s(y);
    own.read.put(f, s.value);
    if (KEEP) own.slope_read.put(f, s.slope);
  }
}

#endif
