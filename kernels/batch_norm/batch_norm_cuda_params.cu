/* cotangents of batch_norm's parameters on CUDA: sums over tasks of what bn_run kept of each */
#include "batch_norm/batch_norm_cuda_internal.cuh"
#include "common/cuda_sums.cuh"

enum { BN_COLUMNS = 32, BN_LANES = SUM_CHUNK };

struct bn_params_job {
  bn_job  tasks;
  int32_t terms, first;                      /* of a piece; the first of b's, w's is next to it */
  plane   out[2];                            /* w, b */
};

/* blocks of (32 channels; parts; w, b), lanes over the tasks of a part */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) bn_params(const __grid_constant__ bn_params_job job,
                                                              double *scratch) {
  __shared__ double partial[THREADS];
  const bn_job &tasks = job.tasks;
  const int     lane = (int)threadIdx.y, t = bn_thread(), bias = (int)blockIdx.z;
  const plane  &w = job.out[bias];
  const int32_t c = (int32_t)blockIdx.x * BN_COLUMNS + (int32_t)threadIdx.x;
  if (!w.data) return;
  for (int64_t n = blockIdx.y;; n += gridDim.y) {
    sum_part  part;
    const int found = sum_chunk(w, tasks.B, n, part);
    if (found < 0) return;
    if (!found) continue;
    const int64_t k = part.begin + lane;
    double        sum = 0;
    if (k < part.end && c < tasks.C) {
      const int32_t pieces = bn_cut(bn_rows(tasks, k));
      const double *from = tasks.sums + (k * tasks.cut * job.terms + job.first + !bias) * tasks.C + c;
      for (int32_t i = 0; i < pieces; i++) sum += from[(int64_t)i * job.terms * tasks.C];
    }
    partial[t] = sum;
    __syncthreads();
    for (int half = BN_LANES / 2; half; half /= 2) {
      if (lane < half) partial[t] += partial[t + half * BN_COLUMNS];
      __syncthreads();
    }
    if (lane == 0 && c < tasks.C)
      sum_put(w, part, scratch, (int64_t)bias * tasks.C + c, 2 * (int64_t)tasks.C, (int64_t)c * w.col, partial[t]);
    __syncthreads();
  }
}

mica_status bn_params_cuda(const char *name, int face, const mica_batch_norm_args *a, const mica_exec *exec) {
  bn_params_job job = {};
  bn_job       &tasks = job.tasks;
  if (a->B <= 0 || a->C <= 0) return MICA_OK;
  tasks.B = a->B, tasks.T = (int32_t)a->T, tasks.P = (int32_t)a->P, tasks.C = (int32_t)a->C;
  tasks.offsets = a->x.offsets ? a->x.offsets : a->y.offsets;
  tasks.cut = (int32_t)bn_pieces(a->T * a->P), tasks.sums = static_cast<double *>(exec->scratch);
  job.terms = bn_terms(face), job.first = face == MICA_BACKWARD ? 0 : 2;
  for (int bias = 0; bias < 2; bias++) job.out[bias] = plane_param(*bn_param_wire(a, face, bias));
  mica_status status = plane_check(name, job.out, 2);
  if (status < 0) return status;
  mica_exec behind = *exec;
  behind.scratch = tasks.sums + bn_sums_size(a, face);
  const unsigned chunks[2] = { sum_chunks(job.out[0], a->B), sum_chunks(job.out[1], a->B) };
  status = micak_launch(name, bn_params<BN_THREADS>,
                        dim3(micak_blocks(a->C, BN_COLUMNS), chunks[0] > chunks[1] ? chunks[0] : chunks[1], 2),
                        dim3(BN_COLUMNS, BN_LANES), 0, exec->stream, job,
                        static_cast<double *>(behind.scratch));
  for (int bias = 0; bias < 2 && status >= 0; bias++)
    status = sum_finish(name, job.out[bias], a->B, a->C, bias * a->C, 2 * a->C, a->C, &behind);
  return status;
}
