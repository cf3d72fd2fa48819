/* cotangents of norm's parameters on CUDA: sums over rows and tasks of dy h and dy, or of their tangents, as a map with
 * two outputs (common/cuda_map.cuh) */
#include "common/cuda_map.cuh"
#include "norm/norm_cuda_internal.cuh"

/* inputs: x, dy, mean, rstd, and for tangents x.t, dy.t, mean.t, rstd.t */
struct norm_params_fn {
  int32_t second;

  enum { INPUTS = 8, OUTPUTS = 2 };
  template <int N>
  __device__ __forceinline__ void run(const float (&in)[INPUTS + 1][N], float (&out)[OUTPUTS][N]) const {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float e = in[0][i] - in[2][i], h = e * in[3][i], dy = in[1][i];
      const float ht = fmaf(in[4][i] - in[6][i], in[3][i], e * in[7][i]), dyt = in[5][i];
      out[0][i] = second ? fmaf(dyt, h, dy * ht) : dy * h;
      out[1][i] = second ? dyt : dy;
    }
  }
};

mica_status norm_params_cuda(const char *name, int face, bool centered, const mica_exec *exec,
                             const mica_norm_args *a) {
  const bool second = face == MICA_BACKWARD_JVP;
  map_job<norm_params_fn> job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.C = (int32_t)a->C, job.offsets = a->x.offsets;
  job.out_rows = 1, job.out_cols = (int32_t)a->C;
  job.in[0] = plane_rows(a->x.v, a->x.offsets), job.in[1] = plane_rows(a->y.d, a->y.offsets);
  if (centered) job.in[2] = plane_cells(a->mean.v, a->mean.offsets);
  job.in[3] = plane_cells(a->rstd.v, a->rstd.offsets);
  if (second) {
    job.in[4] = plane_rows(a->x.t, a->x.offsets), job.in[5] = plane_rows(a->y.td, a->y.offsets);
    if (centered) job.in[6] = plane_cells(a->mean.t, a->mean.offsets);
    job.in[7] = plane_cells(a->rstd.t, a->rstd.offsets);
  }
  const plane w = plane_param(second ? a->w.td : a->w.d), none = {};
  const plane b = centered ? plane_param(second ? a->b.td : a->b.d) : none;
  /* both in one pass where they surely have the same slots */
  if (w.data && b.data && w.slot == b.slot && !w.task == !b.task) {
    job.out[0] = w, job.out[1] = b;
    return map_run_sum(name, job, norm_params_fn{ second }, MAP_ROWS, exec);
  }
  mica_status status = MICA_OK;
  job.out[0] = w;
  if (w.data) status = map_run_sum(name, job, norm_params_fn{ second }, MAP_ROWS, exec);
  job.out[0] = none, job.out[1] = b;
  return b.data && status >= 0 ? map_run_sum(name, job, norm_params_fn{ second }, MAP_ROWS, exec) : status;
}
