/* srwm on CUDA, forward and jvp: a team walks its sequence */
#include "srwm/srwm_team.cuh"

template <bool DUAL>
static __global__ void __launch_bounds__(SRWM_THREADS, 2) srwm_down(const __grid_constant__ srwm_job job) {
  DYN_SMEM(float, memory);
  const srwm_team  team = srwm_team_of(job, memory);
  const mica_wire &out = DUAL ? job.out.t : job.out.v, &state = DUAL ? job.state_out.t : job.state_out.v;
  float           *at = team.memory;
  const dual_row<DUAL>    read = dual_take<DUAL>(at, job.R);
  const srwm_record<DUAL> own(job, at);
  const dual_row<DUAL>    S = { job.fits ? team.memory + job.vectors : job.scratch + team.index * job.own, job.K * job.R };
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? */
    return (out.data && wire_follows(out, job.out.offsets, b)) || (state.data && wire_follows(state, NULL, b));
  };
  for (int64_t unit = team.index; unit < job.units; unit += team.count) {
    const int64_t h = unit % job.H, first = unit / job.H;
    if (follows(first)) continue;
    for (int64_t b = first; b == first || (b < job.B && follows(b)); b++) {
      const int             T = (int)wire_rows(job.x.offsets, b, job.T);
      const dual_pair<DUAL> x = dual_rows<DUAL>(job.x.v, job.x.t, job.x.offsets, b, h);
      const int64_t         place = mem_place(out, job.out.offsets, b, h);
      const bool            adds = mem_adds(out, job.out.offsets, b);
      srwm_load<DUAL>(job, team, job.state_in.v, job.state_in.t, b, h, S);
      if (team.warp == 0 && T) srwm_softmax<DUAL>(job.K, [&](int i) { return x.cell(0, i); }, own.p);
      team.sync();
      for (int t = 0; t < T; t++) {
        srwm_token<DUAL, false>(job, team, x, t, T, own, own, S, S, read);
        for (int j = team.lane; j < job.V && place >= 0; j += team.lanes) {
          const dual_num<DUAL> y = read.get(j); /* of its own column */
          wire_put(out, place + t * out.stride[0] + j * out.stride[2], DUAL ? y.t : y.v, adds);
        }
      }
      srwm_save<DUAL>(job, team, state, b, h, S);
    }
  }
}

/* ---- launchers ---- */

template <bool DUAL>
static mica_status srwm_run(const char *name, const mica_exec *exec, const void *args) {
  const mica_srwm_args *a = static_cast<const mica_srwm_args *>(args);
  srwm_job              job = {};
  mica_status           status = srwm_open(&job, a, false, DUAL);
  if (status < 0 || job.units <= 0) return status;
  job.scratch = static_cast<float *>(exec->scratch);
  return micak_launch(name, srwm_down<DUAL>, srwm_grid(&job), srwm_block(&job), srwm_shared(&job), exec->stream, job);
}
static void srwm_split(const void *args, mica_split *split, bool dual) {
  srwm_job job = {};
  *split = mica_split{ 1, 1, 0, 0 };
  if (srwm_open(&job, static_cast<const mica_srwm_args *>(args), false, dual) < 0) return;
  split->scratch_bytes = (size_t)(srwm_at_once(&job) + job.teams) * (size_t)job.own * sizeof(float);
}

extern "C" mica_status micak_srwm_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return srwm_run<false>("srwm forward", exec, args);
}
extern "C" mica_status micak_srwm_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return srwm_run<true>("srwm jvp", exec, args);
}
extern "C" void micak_srwm_forward_cuda_split(const void *args, mica_split *split) { srwm_split(args, split, false); }
extern "C" void micak_srwm_jvp_cuda_split(const void *args, mica_split *split) { srwm_split(args, split, true); }
