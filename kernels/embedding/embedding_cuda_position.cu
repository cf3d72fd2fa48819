/* position_add on CUDA: maps (common/cuda_map.cuh) */
#include "common/cuda_map.cuh"
#include "embedding/embedding.h"

/* the sum of two inputs, either may be absent */
struct position_fn {
  enum { INPUTS = 2, OUTPUTS = 1 };
  template <int N>
  __device__ __forceinline__ void run(const float (&in)[INPUTS + 1][N], float (&out)[OUTPUTS][N]) const {
#pragma unroll
    for (int i = 0; i < N; i++) out[0][i] = in[0][i] + in[1][i];
  }
};

static map_job<position_fn> position_job(const mica_position_add_args *a) {
  map_job<position_fn> job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.C = (int32_t)a->C, job.offsets = a->x.offsets;
  job.out_rows = job.R, job.out_cols = job.C;
  return job;
}
static mica_status position_down(const char *name, const mica_wire &x, const mica_wire &w, const mica_wire &y,
                                 const mica_exec *exec, const mica_position_add_args *a) {
  map_job<position_fn> job = position_job(a);
  job.in[0] = map_side(x, a->x.offsets, a->R, a->C, a->R, a->C);
  job.in[1] = map_side(w, NULL, a->P, a->C, a->R, a->C);
  job.out[0] = map_side(y, a->y.offsets, a->R, a->C, a->R, a->C);
  return map_run_each(name, job, position_fn{}, exec->stream);
}
static mica_status position_up(const char *name, const mica_wire &x, const mica_wire &w, const mica_wire &y,
                               const mica_exec *exec, const mica_position_add_args *a) {
  map_job<position_fn> job = position_job(a);
  job.in[0] = map_side(y, a->y.offsets, a->R, a->C, a->R, a->C);
  job.out[0] = map_side(x, a->x.offsets, a->R, a->C, a->R, a->C);
  mica_status status = map_run_each(name, job, position_fn{}, exec->stream);
  /* rows that a task does not have are zeros in the table */
  job.out[0] = plane_rows(w, NULL);
  job.out_rows = (int32_t)a->P;
  return status < 0 ? status : map_run_each(name, job, position_fn{}, exec->stream);
}

#define POSITION_FACE(face, how, wire)                                                                                 \
  extern "C" mica_status micak_position_add_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) { \
    const mica_position_add_args *a = static_cast<const mica_position_add_args *>(args);                               \
    return how("position_add " #face, a->x.wire, a->w.wire, a->y.wire, exec, a);                                       \
  }
POSITION_FACE(forward, position_down, v)
POSITION_FACE(jvp, position_down, t)
POSITION_FACE(backward, position_up, d)
POSITION_FACE(backward_jvp, position_up, td)
