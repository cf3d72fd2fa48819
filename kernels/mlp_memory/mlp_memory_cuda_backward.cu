/* mlp_memory on CUDA, backward and backward_jvp: a team walks its sequence down, keeping the states before every 16th token,
 * and up, with those between done again, 16 at a time. three barriers a token on the way up */
#include "common/cuda_memory_up.cuh"
#include "mlp_memory/mlp_memory_team.cuh"

/* a token on the way up: cotangents (y, g, z, h: F, `part`: of z, e: V, k: K), and sums of warps of which a thread makes the
 * cotangents of beta, decay and momentum */
template <bool DUAL>
struct net_room {
  dual_row<DUAL> y, g, part, z, h, e, k;
  float         *sums;

  __device__ __forceinline__ net_room(const net_job &job, float *at)
      : y(dual_take<DUAL>(at, job.F)), g(dual_take<DUAL>(at, job.F)), part(dual_take<DUAL>(at, job.F)),
        z(dual_take<DUAL>(at, job.F)), h(dual_take<DUAL>(at, job.F)), e(dual_take<DUAL>(at, job.V)),
        k(dual_take<DUAL>(at, job.K)), sums(at) {}
};
/* where results of a token go */
struct net_to {
  const net_job &job;
  int64_t        b, h;
  int            t;

  __device__ __forceinline__ void put(int port, int c, float value) const {
    const mica_wire &w = job.result[port];
    const int64_t    place = mem_place(w, job.offsets[port], b, h);
    if (place >= 0) wire_put(w, place + t * w.stride[0] + c * w.stride[2], value, mem_adds(w, job.offsets[port], b));
  }
};
enum { NET_WARPS = NET_THREADS / 32 };
/* a thread's part of a sum; known to lane 0 behind a barrier */
template <bool DUAL>
MEM_DEVICE void net_add(const dual_team &team, float *sums, dual_num<DUAL> x) {
  const float sum = warp_sum(DUAL ? x.t : x.v);
  if (team.lane % 32 == 0) sums[team.warp] = sum;
}
MEM_DEVICE float net_total(const dual_team &team, const float *sums) {
  float sum = 0;
  for (int i = 0; i < team.warps; i++) sum += sums[i];
  return sum;
}

/* four steps of a token back, a barrier after each; S are the states before it, X those after; G, of X, becomes that of S.
 * the last step may go with the first of the token before */
template <bool DUAL>
MEM_DEVICE void net_up_hidden(const net_job &job, const dual_team &team, const net_token<DUAL> &in,
                              const net_record<DUAL> &own, const net_states<DUAL> &S, const net_states<DUAL> &X,
                              const net_states<DUAL> &G, const net_room<DUAL> &room) {
  const dual_num<DUAL> decay = in.decay();
  dual_num<DUAL>       of_decay = {}, of_momentum = {};
  NET_EACH(team, f, job.F) {
    dual_num<DUAL> dr = {}, dc = {}, dh = {};
    for (int j = 0; j < job.V; j++) dr = dual_fma(X.W2.get(j * job.ldf + f), in.d.get(j), dr);
    const dual_num<DUAL> dy = net_mul(dr, own.slope_read.get(f)), read = own.read.get(f);
#pragma unroll 1
    for (int i = 0; i < job.K; i++) {
      const int            at = i * job.ldf + f;
      const dual_num<DUAL> w = dual_fma(in.q.get(i), dy, G.W1.get(at)), m = net_sum(G.M1.get(at), w);
      of_decay = dual_fma(w, S.W1.get(at), of_decay), of_momentum = dual_fma(m, S.M1.get(at), of_momentum);
      G.W1.put(at, net_mul(decay, w)), G.M1.put(at, m);
      dc = dual_fma(m, in.k.get(i), dc);
    }
    const dual_num<DUAL> dg = net_mul(dc, own.slope.get(f));
#pragma unroll 1
    for (int j = 0; j < job.V; j++) {
      const int            at = j * job.ldf + f;
      const dual_num<DUAL> w = dual_fma(read, in.d.get(j), G.W2.get(at)), m = net_sum(G.M2.get(at), w), u = own.u.get(j);
      of_decay = dual_fma(w, S.W2.get(at), of_decay), of_momentum = dual_fma(m, S.M2.get(at), of_momentum);
      G.W2.put(at, dual_fma(dg, u, net_mul(decay, w))), G.M2.put(at, m);
      dh = dual_fma(m, u, dh);
    }
    room.y.put(f, dy), room.g.put(f, dg), room.h.put(f, dh);
    room.part.put(f, net_mul(net_mul(dc, own.g.get(f)), own.bend.get(f)));
  }
  net_add(team, room.sums, of_decay), net_add(team, room.sums + NET_WARPS, of_momentum);
}
template <bool DUAL>
MEM_DEVICE void net_up_error(const net_job &job, const dual_team &team, const net_token<DUAL> &in,
                             const net_record<DUAL> &own, const net_states<DUAL> &S, const net_states<DUAL> &X,
                             const net_states<DUAL> &G, const net_room<DUAL> &room, const net_to &to) {
  dual_num<DUAL> of_beta = {};
  NET_EACH(team, j, job.V) {
    const dual_num<DUAL> du = net_sum(net_output(job, own.h, G.M2, j), net_output(job, room.g, S.W2, j));
    const dual_num<DUAL> de = net_mul(in.beta(), du);
    of_beta = dual_fma(du, own.e.get(j), of_beta);
    room.e.put(j, de);
    to.put(NET_V, j, DUAL ? de.t : de.v);
  }
  NET_EACH(team, i, job.K) {
    dual_num<DUAL> dq = {}, dk = {};
#pragma unroll 2
    for (int f = 0; f < job.F; f++) {
      dq = dual_fma(X.W1.get(i * job.ldf + f), room.y.get(f), dq);
      dk = dual_fma(G.M1.get(i * job.ldf + f), own.c.get(f), dk);
    }
    room.k.put(i, dk);
    to.put(NET_Q, i, DUAL ? dq.t : dq.v);
  }
  net_add(team, room.sums + 2 * NET_WARPS, of_beta);
  if (team.lane) return;
  to.put(NET_DECAY, 0, net_total(team, room.sums));
  to.put(NET_MOMENTUM, 0, net_total(team, room.sums + NET_WARPS));
}
template <bool DUAL>
MEM_DEVICE void net_up_change(const net_job &job, const dual_team &team, const net_token<DUAL> &in,
                              const net_record<DUAL> &own, const net_states<DUAL> &S, const net_states<DUAL> &G,
                              const net_room<DUAL> &room, const net_to &to) {
  const dual_num<DUAL> momentum = in.momentum();
  NET_EACH(team, f, job.F) {
    const dual_num<DUAL> less = net_minus(own.h.get(f));
    dual_num<DUAL>       dh = room.h.get(f);
#pragma unroll 1
    for (int j = 0; j < job.V; j++) {
      const int            at = j * job.ldf + f;
      const dual_num<DUAL> de = room.e.get(j);
      dh = dual_fma(net_minus(S.W2.get(at)), de, dh);
      G.W2.put(at, dual_fma(less, de, G.W2.get(at))), G.M2.put(at, net_mul(momentum, G.M2.get(at)));
    }
    const dual_num<DUAL> dz = dual_fma(dh, own.slope.get(f), room.part.get(f));
    room.z.put(f, dz);
#pragma unroll 1
    for (int i = 0; i < job.K; i++) {
      const int at = i * job.ldf + f;
      G.W1.put(at, dual_fma(in.k.get(i), dz, G.W1.get(at))), G.M1.put(at, net_mul(momentum, G.M1.get(at)));
    }
  }
  if (team.lane == 0) to.put(NET_BETA, 0, net_total(team, room.sums + 2 * NET_WARPS));
}
template <bool DUAL>
MEM_DEVICE void net_up_keys(const net_job &job, const dual_team &team, const net_states<DUAL> &S, const net_room<DUAL> &room,
                            const net_to &to) {
  NET_EACH(team, i, job.K) {
    dual_num<DUAL> dk = room.k.get(i);
#pragma unroll 2
    for (int f = 0; f < job.F; f++) dk = dual_fma(S.W1.get(i * job.ldf + f), room.z.get(f), dk);
    to.put(NET_K, i, DUAL ? dk.t : dk.v);
  }
}

template <bool DUAL>
static __global__ void __launch_bounds__(NET_THREADS, 1) mlp_memory_up(const __grid_constant__ net_job job) {
  DYN_SMEM(float, memory);
  const dual_team        team = net_team(job, memory);
  const net_room<DUAL>   room(job, team.memory + 2 * job.tokens);
  float *const           kept = job.scratch + team.index * job.own, *const steps = kept + (int64_t)job.chunks * job.cells;
  float *const           records = steps + (int64_t)(job.steps + 1) * job.cells;
  const net_states<DUAL> G(job, job.fits ? team.memory + job.vectors : records + (int64_t)job.steps * job.record);
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? states that may be shared go to scratch */
    bool any = false;
    for (int i = 0; i < NET_ROWS; i++) any |= job.result[i].data && wire_follows(job.result[i], job.offsets[i], b);
    return any;
  };
  auto token_at = [&](int t) { return net_token<DUAL>(job, team.memory + (t & 1) * job.tokens); };
  /* the states before token r of a chunk; before the first: as kept */
  auto before = [&](int chunk, int r) {
    return net_states<DUAL>(job, r ? steps + (int64_t)r * job.cells : kept + (int64_t)chunk * job.cells);
  };
  for (int64_t unit = team.index; unit < job.units; unit += team.count) {
    const int64_t h = unit % job.H, first = unit / job.H;
    if (follows(first)) continue;
    for (int64_t b = first; b == first || (b < job.B && follows(b)); b++) {
      const int T = (int)wire_rows(job.offsets[NET_Q], b, job.T), chunks = (T + MLP_MEMORY_BLOCK - 1) / MLP_MEMORY_BLOCK;
      /* ---- down: a chunk, to the states before the next, or keeping all of it ---- */
      auto down = [&](int chunk, bool keep) {
        const int t0 = chunk * MLP_MEMORY_BLOCK, n = min(MLP_MEMORY_BLOCK, T - t0);
        net_stage<DUAL>(job, team, keep, b, h, t0, token_at(t0));
        team.sync();
        for (int r = 0; r < n; r++) {
          const net_record<DUAL> own(job, records + (int64_t)(keep ? r : 0) * job.record);
          const net_states<DUAL> S = keep || r == 0 ? before(chunk, r) : before(chunk + 1, 0);
          const net_states<DUAL> next = keep ? before(chunk, r + 1) : before(chunk + 1, 0);
          const net_token<DUAL>  in = token_at(t0 + r);
          net_hidden<DUAL, true>(job, team, in, S, own);
          team.sync();
          net_error<DUAL, true>(job, team, in, S, own);
          if (r + 1 < n) net_stage<DUAL>(job, team, keep, b, h, t0 + r + 1, token_at(t0 + r + 1));
          team.sync();
          net_change<DUAL, true>(job, team, in, S, next, own);
          team.sync();
        }
      };
      if (chunks) net_load(job, team, &job.in[NET_STATE], b, h, before(0, 0));
      for (int chunk = 0; chunk + 1 < chunks; chunk++) down(chunk, false);
      /* ---- up ---- */
      net_load(job, team, &job.given[NET_STATE_OUT], b, h, G);
      for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        const int t0 = chunk * MLP_MEMORY_BLOCK, n = min(MLP_MEMORY_BLOCK, T - t0);
        down(chunk, true);
        for (int r = n - 1; r >= 0; r--) {   /* the last token's rows are still staged */
          const net_record<DUAL> own(job, records + (int64_t)r * job.record);
          const net_states<DUAL> S = before(chunk, r), X = before(chunk, r + 1);
          const net_token<DUAL>  in = token_at(t0 + r);
          const net_to           to = { job, b, h, t0 + r };
          net_up_hidden(job, team, in, own, S, X, G, room);
          team.sync();
          net_up_error(job, team, in, own, S, X, G, room, to);
          if (r) net_stage<DUAL>(job, team, true, b, h, t0 + r - 1, token_at(t0 + r - 1));
          team.sync();
          net_up_change(job, team, in, own, S, G, room, to);
          team.sync();
          net_up_keys(job, team, S, room, to);
        }
      }
      team.sync();
      net_save(job, team, &job.result[NET_STATE], true, b, h, G);
      team.sync();                           /* the next task takes the same memory */
    }
  }
}

/* ---- launchers ---- */

/* the parts of the job that lie in scratch; returns its bytes */
static size_t net_scratch(net_job *job, float *scratch) {
  int64_t at = 0;
  job->scratch = mem_take(scratch, &at, (net_at_once(job) + job->teams) * job->own);
  for (int i = 0; i < MM_STATES; i++)
    if (mem_shares(job->result[NET_STATE + i]))
      job->state[i] = mem_take(scratch, &at, job->units * (i & 1 ? job->F * job->V : job->K * job->F));
  return (size_t)at * sizeof(float);
}
template <bool DUAL>
static mica_status net_run(const char *name, const mica_exec *exec, const void *args) {
  net_job     job = {};
  mica_status status = net_open(&job, static_cast<const mica_mlp_memory_args *>(args), true, DUAL);
  if (status < 0 || job.units <= 0) return status;
  net_scratch(&job, static_cast<float *>(exec->scratch));
  status = micak_launch(name, mlp_memory_up<DUAL>, net_grid(&job), net_block(&job), net_shared(&job), exec->stream, job);
  for (int i = 0; i < MM_STATES && status >= 0; i++) {
    const mica_wire &w = job.result[NET_STATE + i];
    const int32_t    rows = i & 1 ? job.F : job.K, columns = i & 1 ? job.V : job.F;
    const mem_parts  parts = { w, NULL, job.state[i], job.B, w.stride[0], w.stride[1], w.stride[2],
                               job.H, rows, columns, 1, columns };
    status = mem_run_gather(name, parts, exec->stream);
  }
  return status;
}
template <bool DUAL>
static void net_split(const void *args, mica_split *split) {
  net_job job = {};
  *split = mica_split{ 1, 1, 0, 0 };
  if (net_open(&job, static_cast<const mica_mlp_memory_args *>(args), true, DUAL) >= 0)
    split->scratch_bytes = net_scratch(&job, NULL);
}

extern "C" mica_status micak_mlp_memory_backward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return net_run<false>("mlp_memory backward", exec, args);
}
extern "C" mica_status micak_mlp_memory_backward_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return net_run<true>("mlp_memory backward_jvp", exec, args);
}
extern "C" void micak_mlp_memory_backward_cuda_split(const void *args, mica_split *split) { net_split<false>(args, split); }
extern "C" void micak_mlp_memory_backward_jvp_cuda_split(const void *args, mica_split *split) { net_split<true>(args, split); }
