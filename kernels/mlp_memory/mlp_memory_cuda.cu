/* mlp_memory on CUDA, forward and jvp: a team walks its sequence, three barriers a token */
#include "mlp_memory/mlp_memory_team.cuh"

template <bool DUAL>
static __global__ void __launch_bounds__(NET_THREADS, 2) mlp_memory_down(const __grid_constant__ net_job job) {
  DYN_SMEM(float, memory);
  const dual_team         team = net_team(job, memory);
  const mica_wire        &out = job.result[NET_OUT];
  const net_record<DUAL>  own(job, team.memory + 2 * job.tokens);
  const net_states<DUAL>  S(job, job.fits ? team.memory + job.vectors : job.scratch + team.index * job.own);
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? */
    bool any = out.data && wire_follows(out, job.offsets[NET_ROWS], b);
    for (int i = NET_STATE_OUT; i < NET_GIVEN; i++) any |= job.result[i].data && wire_follows(job.result[i], NULL, b);
    return any;
  };
  for (int64_t unit = team.index; unit < job.units; unit += team.count) {
    const int64_t h = unit % job.H, first = unit / job.H;
    if (follows(first)) continue;
    for (int64_t b = first; b == first || (b < job.B && follows(b)); b++) {
      const int     T = (int)wire_rows(job.offsets[NET_Q], b, job.T);
      const int64_t place = mem_place(out, job.offsets[NET_ROWS], b, h);
      const bool    adds = mem_adds(out, job.offsets[NET_ROWS], b);
      auto put = [&](int t) { /* of the token before t */
        NET_EACH(team, j, place < 0 ? 0 : job.V) {
          const dual_num<DUAL> x = net_output(job, own.read, S.W2, j);
          wire_put(out, place + (t - 1) * out.stride[0] + j * out.stride[2], DUAL ? x.t : x.v, adds);
        }
      };
      net_load(job, team, &job.in[NET_STATE], b, h, S);
      if (T) net_stage<DUAL>(job, team, false, b, h, 0, net_token<DUAL>(job, team.memory));
      team.sync();
      for (int t = 0; t < T; t++) {
        const net_token<DUAL> in(job, team.memory + (t & 1) * job.tokens);
        const net_token<DUAL> then(job, team.memory + (~t & 1) * job.tokens);
        net_hidden<DUAL, false>(job, team, in, S, own);
        if (t) put(t);
        team.sync();
        net_error<DUAL, false>(job, team, in, S, own);
        if (t + 1 < T) net_stage<DUAL>(job, team, false, b, h, t + 1, then);
        team.sync();
        net_change<DUAL, false>(job, team, in, S, S, own);
        team.sync();
      }
      if (T) put(T);
      net_save(job, team, &job.result[NET_STATE_OUT], false, b, h, S);
      team.sync();                           /* the next task takes the same memory */
    }
  }
}

/* ---- launchers ---- */

template <bool DUAL>
static mica_status net_run(const char *name, const mica_exec *exec, const void *args) {
  net_job     job = {};
  mica_status status = net_open(&job, static_cast<const mica_mlp_memory_args *>(args), false, DUAL);
  if (status < 0 || job.units <= 0) return status;
  job.scratch = static_cast<float *>(exec->scratch);
  return micak_launch(name, mlp_memory_down<DUAL>, net_grid(&job), net_block(&job), net_shared(&job), exec->stream, job);
}
static void net_split(const void *args, mica_split *split, bool dual) {
  net_job job = {};
  *split = mica_split{ 1, 1, 0, 0 };
  if (net_open(&job, static_cast<const mica_mlp_memory_args *>(args), false, dual) >= 0)
    split->scratch_bytes = (size_t)(net_at_once(&job) + job.teams) * (size_t)job.own * sizeof(float);
}

extern "C" mica_status micak_mlp_memory_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return net_run<false>("mlp_memory forward", exec, args);
}
extern "C" mica_status micak_mlp_memory_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return net_run<true>("mlp_memory jvp", exec, args);
}
extern "C" void micak_mlp_memory_forward_cuda_split(const void *args, mica_split *split) { net_split(args, split, false); }
extern "C" void micak_mlp_memory_jvp_cuda_split(const void *args, mica_split *split) { net_split(args, split, true); }
