/* sums over tasks of what mlp_loop leaves: 32 numbers by 8 lanes over the tasks of a slot, then a tree, in double */
#include "mlp/mlp_cuda.cuh"

enum { SUM_NUMBERS = 32, SUM_LANES = 8, SUM_TARGETS = 2 * MICAK_MLP_PARAMS };

struct sum_target {
  mlp_wire d;
  int64_t  at, count;
  uint32_t rates;
  int32_t  add, blocks;                      /* blocks: of the launch, up to and with this target's */
};
struct sum_job {
  sum_target    target[SUM_TARGETS];
  const float  *back, *rate_back;
  int64_t       first, count, numbers, steps, stop;
};

MLP_DEVICE bool sum_follows(const mlp_wire &d, int64_t b) {
  if (b == 0) return false;
  return d.slot ? d.slot[b] == d.slot[b - 1] : d.stride == 0;
}
/* number n of task t's row */
MLP_DEVICE double sum_number(const sum_job &job, const sum_target &to, int64_t n, int64_t t) {
  if (!to.rates) return job.stop > 0 ? 0.0 : (double)job.back[t * job.numbers + to.at + n];
  double sum = 0;
  for (int64_t k = to.count > 1 ? n : 0; k < (to.count > 1 ? n + 1 : job.steps); k++)
    for (int i = 0; k >= job.stop && i < MICAK_MLP_PARAMS; i++)
      if (to.rates >> i & 1) sum += (double)job.rate_back[(t * job.steps + k) * MICAK_MLP_PARAMS + i];
  return sum;
}

static __global__ void __launch_bounds__(SUM_NUMBERS *SUM_LANES, 4) mlp_sum(const __grid_constant__ sum_job job) {
  __shared__ double part[SUM_LANES][SUM_NUMBERS];
  int which = 0;
  while ((int)blockIdx.x >= job.target[which].blocks) which++;
  const sum_target &to = job.target[which];
  const int64_t     own = which ? job.target[which - 1].blocks : 0, end = job.first + job.count;
  const int64_t     n = ((int64_t)blockIdx.x - own) * SUM_NUMBERS + threadIdx.x;
  for (int64_t b = job.first + blockIdx.y; b < end; b += gridDim.y) {
    const bool follows = sum_follows(to.d, b);
    float     *at = mlp_at(to.d, NULL, b);
    if (!at || (follows && b > job.first)) continue;
    int64_t next = !to.d.slot && to.d.stride == 0 ? end : b + 1;
    while (next < end && sum_follows(to.d, next)) next++;
    double sum = 0;
    for (int64_t t = b + threadIdx.y; n < to.count && t < next; t += SUM_LANES)
      sum += sum_number(job, to, n, t - job.first);
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    for (int half = SUM_LANES / 2; half; half /= 2) {
      if ((int)threadIdx.y < half) part[threadIdx.y][threadIdx.x] += part[threadIdx.y + half][threadIdx.x];
      __syncthreads();
    }
    sum = part[0][threadIdx.x];
    if (threadIdx.y == 0 && n < to.count) at[n] = (float)(to.add || follows ? (double)at[n] + sum : sum);
    __syncthreads();
  }
}

extern "C" mica_status micak_mlp_cuda_sum(void *stream, const micak_mlp_loop *m, const micak_mlp_target *targets,
                                          int32_t n, int64_t count) {
  sum_job job = {};
  int32_t blocks = 0;
  bool    apart = false;
  if (n > SUM_TARGETS) return mica_error(MICA_ERR_INTERNAL, "mlp_sum: %d targets, at most %d", n, SUM_TARGETS);
  for (int32_t i = 0; i < n; i++) {
    const micak_mlp_target &t = targets[i];
    blocks += (int32_t)((t.count + SUM_NUMBERS - 1) / SUM_NUMBERS);
    apart = apart || t.d.slot || t.d.task_stride != 0;
    job.target[i] = sum_target{ mlp_wire_of(t.d), t.at, t.count, t.rates, (int32_t)(t.d.flags & MICA_ADD), blocks };
  }
  job.back = m->back, job.rate_back = m->rate_back;
  job.first = m->back_first, job.count = count, job.numbers = micak_mlp_params(m);
  job.steps = m->steps, job.stop = m->stop;
  const unsigned tasks = !apart ? 1u : count > 1024 ? 1024u : (unsigned)count;
  return micak_launch("mlp_sum", mlp_sum, dim3((unsigned)blocks, tasks), dim3(SUM_NUMBERS, SUM_LANES), 0, stream, job);
}
