/* srwm on CUDA, backward and backward_jvp: a team walks its sequence down, keeping the matrix before every 16th token, and up,
 * with those between done again, 16 at a time */
#include "common/cuda_memory_up.cuh"
#include "srwm/srwm_team.cuh"

/* token t back: S is the matrix before it, `own` what it made of it; G, of the matrix after it, becomes that of S.
 * dz, product, read (R), da, dc (K): shared memory */
template <bool DUAL>
struct srwm_room {
  dual_row<DUAL> read, dz, product, da, dc;
};
template <bool DUAL>
MEM_DEVICE void srwm_token_up(const srwm_job &job, const srwm_team &team, const srwm_record<DUAL> &own,
                              const dual_pair<DUAL> &out, int t, dual_row<DUAL> S, dual_row<DUAL> G,
                              const srwm_room<DUAL> &room, const mica_wire &xd, int64_t place, bool adds) {
  const int lane = team.lane % 32, last = job.V + 2 * job.K; /* first column of the rates */
  SRWM_COLUMNS(job, team, j) {
    const dual_num<DUAL> du = srwm_read(job, own.c, G, j);
    room.dz.put(j, dual_fma(own.rate.get(srwm_block_of(job, j)), du, {}));
    room.product.put(j, dual_fma(du, own.z.get(j), {}));
  }
  team.sync();
  for (int i = team.warp; i < job.K; i += team.warps) {
    dual_num<DUAL> de = {}, dc = {};
    for (int j = lane; j < job.R; j += 32) {
      de = dual_fma(S.get(i * job.R + j), room.dz.get(j), de);
      dc = dual_fma(G.get(i * job.R + j), own.u.get(j), dc);
    }
    de = dual_warp_sum(de), dc = dual_warp_sum(dc);
    if (lane) continue;
    room.da.put(i, de);
    room.dc.put(i, { dc.v - de.v, dc.t - de.t });
  }
  for (int block = team.warp; block < SRWM_RATES; block += team.warps) {
    const int      begin = block < 3 ? (block ? job.V + (block - 1) * job.K : 0) : last;
    const int      end = block < 3 ? job.V + block * job.K : job.R;
    dual_num<DUAL> sum = {};
    for (int j = begin + lane; j < end; j += 32) {
      const dual_num<DUAL> x = room.product.get(j);
      sum.v += x.v, sum.t += x.t;
    }
    sum = dual_warp_sum(sum);
    const dual_num<DUAL> s = own.rate.get(block), slope = { s.v * (1.0f - s.v), (1.0f - 2.0f * s.v) * s.t };
    if (lane == 0) room.read.put(last + block, dual_fma(sum, slope, {}));
  }
  team.sync();
  if (team.warp == 0)
    srwm_softmax_up<DUAL>(job.K, own.a, room.da, [&](int i, dual_num<DUAL> d) { room.read.put(job.V + i, d); });
  if (team.warp == team.warps - 1)
    srwm_softmax_up<DUAL>(job.K, own.c, room.dc, [&](int i, dual_num<DUAL> d) { room.read.put(job.V + job.K + i, d); });
  for (int j = team.lane; j < job.V; j += team.lanes) room.read.put(j, out.cell(t, j));
  SRWM_COLUMNS(job, team, j) srwm_write(job, own.e, room.dz.get(j), G, G, j);
  team.sync();
  for (int i = team.warp; i < job.K; i += team.warps) {
    dual_num<DUAL> dp = {};
    for (int j = lane; j < job.R; j += 32) dp = dual_fma(S.get(i * job.R + j), room.read.get(j), dp);
    dp = dual_warp_sum(dp);
    if (lane == 0) room.da.put(i, dp);
  }
  SRWM_COLUMNS(job, team, j) srwm_write(job, own.p, room.read.get(j), G, G, j);
  team.sync();
  if (team.warp == 0 && place >= 0)
    srwm_softmax_up<DUAL>(job.K, own.p, room.da, [&](int i, dual_num<DUAL> d) {
      wire_put(xd, place + t * xd.stride[0] + i * xd.stride[2], DUAL ? d.t : d.v, adds);
    });
}

template <bool DUAL>
static __global__ void __launch_bounds__(SRWM_THREADS, 1) srwm_up(const __grid_constant__ srwm_job job) {
  DYN_SMEM(float, memory);
  const srwm_team  team = srwm_team_of(job, memory);
  const mica_wire &xd = DUAL ? job.x.td : job.x.d, &state = DUAL ? job.state_in.td : job.state_in.d;
  const int        plane = job.K * job.R;
  float           *at = team.memory;
  srwm_room<DUAL>  room;
  room.read = dual_take<DUAL>(at, job.R), room.dz = dual_take<DUAL>(at, job.R), room.product = dual_take<DUAL>(at, job.R);
  room.da = dual_take<DUAL>(at, job.K), room.dc = dual_take<DUAL>(at, job.K);
  float *const         kept = job.scratch + team.index * job.own, *const steps = kept + (int64_t)job.chunks * job.cells;
  float *const         records = steps + (int64_t)job.steps * job.cells;
  const dual_row<DUAL> G = { job.fits ? team.memory + job.vectors : records + (int64_t)job.steps * job.record, plane };
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? */
    return xd.data && wire_follows(xd, job.x.offsets, b); /* states that may be shared go to scratch */
  };
  /* the matrix before token r of a chunk; before the first: as kept */
  auto before = [&](int chunk, int r) {
    return dual_row<DUAL>{ r ? steps + (int64_t)r * job.cells : kept + (int64_t)chunk * job.cells, plane };
  };
  for (int64_t unit = team.index; unit < job.units; unit += team.count) {
    const int64_t h = unit % job.H, first = unit / job.H;
    if (follows(first)) continue;
    for (int64_t b = first; b == first || (b < job.B && follows(b)); b++) {
      const int             T = (int)wire_rows(job.x.offsets, b, job.T), chunks = (T + SRWM_BLOCK - 1) / SRWM_BLOCK;
      const dual_pair<DUAL> x = dual_rows<DUAL>(job.x.v, job.x.t, job.x.offsets, b, h);
      const dual_pair<DUAL> out = dual_rows<DUAL>(job.out.d, job.out.td, job.out.offsets, b, h);
      const int64_t         place = mem_place(xd, job.x.offsets, b, h);
      const bool            adds = mem_adds(xd, job.x.offsets, b);
      /* ---- down ---- */
      if (chunks) srwm_load<DUAL>(job, team, job.state_in.v, job.state_in.t, b, h, before(0, 0));
      for (int chunk = 0; chunk + 1 < chunks; chunk++) {
        const int                t0 = chunk * SRWM_BLOCK;
        const srwm_record<DUAL> own(job, records);
        const dual_row<DUAL>    next = before(chunk + 1, 0);
        if (team.warp == 0) srwm_softmax<DUAL>(job.K, [&](int i) { return x.cell(t0, i); }, own.p);
        team.sync();
        for (int r = 0; r < SRWM_BLOCK; r++)
          srwm_token<DUAL, false>(job, team, x, t0 + r, t0 + SRWM_BLOCK, own, own, r ? next : before(chunk, 0), next,
                                  room.read);
      }
      /* ---- up ---- */
      srwm_load<DUAL>(job, team, job.state_out.d, job.state_out.td, b, h, G);
      for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        const int t0 = chunk * SRWM_BLOCK, n = min(SRWM_BLOCK, T - t0);
        if (team.warp == 0) {
          const srwm_record<DUAL> own(job, records);
          srwm_softmax<DUAL>(job.K, [&](int i) { return x.cell(t0, i); }, own.p);
        }
        team.sync();
        for (int r = 0; r < n; r++) {
          const srwm_record<DUAL> own(job, records + (int64_t)r * job.record);
          const srwm_record<DUAL> then(job, records + (int64_t)min(r + 1, n - 1) * job.record);
          const dual_row<DUAL>    next = r + 1 < n ? before(chunk, r + 1) : dual_row<DUAL>{ NULL, plane };
          srwm_token<DUAL, true>(job, team, x, t0 + r, t0 + n, own, then, before(chunk, r), next, room.read);
        }
        for (int r = n - 1; r >= 0; r--) {
          const srwm_record<DUAL> own(job, records + (int64_t)r * job.record);
          srwm_token_up<DUAL>(job, team, own, out, t0 + r, before(chunk, r), G, room, xd, place, adds);
        }
      }
      if (job.state) {
        SRWM_COLUMNS(job, team, j)
          for (int i = 0; i < job.K; i++) {
            const dual_num<DUAL> d = G.get(i * job.R + j);
            job.state[((b * job.H + h) * job.K + i) * job.R + j] = DUAL ? d.t : d.v;
          }
      } else {
        srwm_save<DUAL>(job, team, state, b, h, G);
      }
    }
  }
}

/* ---- launchers ---- */

/* the parts of the job that lie in scratch; returns its bytes */
template <bool DUAL>
static size_t srwm_scratch(srwm_job *job, float *scratch) {
  int64_t at = 0;
  job->scratch = mem_take(scratch, &at, (srwm_at_once(job) + job->teams) * job->own);
  if (mem_shares(DUAL ? job->state_in.td : job->state_in.d)) job->state = mem_take(scratch, &at, job->units * job->K * job->R);
  return (size_t)at * sizeof(float);
}
template <bool DUAL>
static mica_status srwm_run(const char *name, const mica_exec *exec, const void *args) {
  srwm_job    job = {};
  mica_status status = srwm_open(&job, static_cast<const mica_srwm_args *>(args), true, DUAL);
  if (status < 0 || job.units <= 0) return status;
  srwm_scratch<DUAL>(&job, static_cast<float *>(exec->scratch));
  status = micak_launch(name, srwm_up<DUAL>, srwm_grid(&job), srwm_block(&job), srwm_shared(&job), exec->stream, job);
  const mica_wire &w = DUAL ? job.state_in.td : job.state_in.d;
  const mem_parts  parts = { w, NULL, job.state, job.B, w.stride[0], w.stride[1], w.stride[2],
                             job.H, job.K, job.R, 1, job.R };
  return status < 0 ? status : mem_run_gather(name, parts, exec->stream);
}
template <bool DUAL>
static void srwm_split(const void *args, mica_split *split) {
  srwm_job job = {};
  *split = mica_split{ 1, 1, 0, 0 };
  if (srwm_open(&job, static_cast<const mica_srwm_args *>(args), true, DUAL) >= 0)
    split->scratch_bytes = srwm_scratch<DUAL>(&job, NULL);
}

extern "C" mica_status micak_srwm_backward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return srwm_run<false>("srwm backward", exec, args);
}
extern "C" mica_status micak_srwm_backward_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return srwm_run<true>("srwm backward_jvp", exec, args);
}
extern "C" void micak_srwm_backward_cuda_split(const void *args, mica_split *split) { srwm_split<false>(args, split); }
extern "C" void micak_srwm_backward_jvp_cuda_split(const void *args, mica_split *split) { srwm_split<true>(args, split); }
