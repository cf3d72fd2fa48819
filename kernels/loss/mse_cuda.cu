/* mse on CUDA: row-local faces */
#include "common/cuda_rows.cuh"
#include "loss/loss.h"

struct mse_job {
  rows_job rows;
  float    part;                             /* 1, or 1 / C */
  int32_t  ones;                             /* weight absent: 1 */
  plane    x, y, xt, yt, weight, weight_t, dl, dlt;
  plane    out[3];                           /* down: loss; up: pred, target, weight */
};

#define EACH_OF_4 _Pragma("unroll") for (int i = 0; i < 4; i++)
#define GET(p, x) float x[4]; rows_get(a.rows, team, a.p, p, c, x)
#define ROW(p) const char *p = plane_row(a.p, walk.k, team.r)
#define CELL(p) rows_cell(a.p, walk.k, team.r)

/* sums of e e and of e e. of a row */
PLANE_DEVICE void mse_sums(const mse_job &a, const rows_team &team, const char *x, const char *y, const char *xt,
                           const char *yt, bool second, float &square, float &cross) {
  float s[4] = {}, t[4] = {};
  ROWS_COLUMNS(a.rows, team, c) {
    GET(x, u);
    GET(y, v);
    EACH_OF_4 u[i] -= v[i], s[i] = fmaf(u[i], u[i], s[i]);
    if (!second) continue;
    GET(xt, ut);
    GET(yt, vt);
    EACH_OF_4 t[i] = fmaf(u[i], ut[i] - vt[i], t[i]);
  }
  square = rows_sum(team, s);
  cross = second ? rows_sum(team, t) : 0.0f;
}

/* loss, or its tangent */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) mse_down(const __grid_constant__ mse_job a, const int second) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(x);
    ROW(y);
    ROW(xt);
    ROW(yt);
    float square, cross, weight = a.ones ? 1.0f : CELL(weight);
    mse_sums(a, team, x, y, xt, yt, second, square, cross);
    const float value =
        second ? a.part * fmaf(CELL(weight_t), square, 2.0f * weight * cross) : weight * a.part * square;
    rows_put_cell(team, walk, 0, a.out[0], value);
  }
}
/* cotangents, or their tangents */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) mse_up(const __grid_constant__ mse_job a, const int second) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(x);
    ROW(y);
    ROW(xt);
    ROW(yt);
    char       *dx = plane_row(a.out[0], walk.k, team.r), *dy = plane_row(a.out[1], walk.k, team.r);
    const float dl = CELL(dl), dlt = CELL(dlt), weight = a.ones ? 1.0f : CELL(weight);
    const float g = 2.0f * a.part * weight * dl, gt = 2.0f * a.part * fmaf(CELL(weight_t), dl, weight * dlt);
    if (walk.wants(2)) {
      float square, cross;
      mse_sums(a, team, x, y, xt, yt, second, square, cross);
      rows_put_cell(team, walk, 2, a.out[2], a.part * (second ? fmaf(2.0f * cross, dl, square * dlt) : square * dl));
    }
    if (!walk.wants(0) && !walk.wants(1)) continue;
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, u);
      GET(y, v);
      EACH_OF_4 u[i] -= v[i];
      if (second) {
        GET(xt, ut);
        GET(yt, vt);
        EACH_OF_4 u[i] = fmaf(u[i], gt, (ut[i] - vt[i]) * g);
      } else {
        EACH_OF_4 u[i] *= g;
      }
      EACH_OF_4 v[i] = -u[i];
      rows_put(a.rows, team, walk, 0, a.out[0], dx, c, u);
      rows_put(a.rows, team, walk, 1, a.out[1], dy, c, v);
    }
  }
}

/* ---- launchers ---- */

static mica_status mse_run(const char *name, int face, const mica_exec *exec, const void *args) {
  const mica_mse_args *a = static_cast<const mica_mse_args *>(args);
  const bool up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP,
             second = face == MICA_JVP || face == MICA_BACKWARD_JVP;
  mse_job job = {};
  job.part = a->reduction == MICA_MSE_MEAN ? 1.0f / (float)a->C : 1.0f, job.ones = !a->weight.v.data;
  job.x = plane_rows(a->pred.v, a->pred.offsets), job.y = plane_rows(a->target.v, a->target.offsets);
  job.weight = plane_cells(a->weight.v, a->weight.offsets);
  if (second) {
    job.xt = plane_rows(a->pred.t, a->pred.offsets), job.yt = plane_rows(a->target.t, a->target.offsets);
    job.weight_t = plane_cells(a->weight.t, a->weight.offsets);
  }
  if (up) job.dl = plane_cells(a->loss.d, a->loss.offsets);
  if (face == MICA_BACKWARD_JVP) job.dlt = plane_cells(a->loss.td, a->loss.offsets);
  if (up) {
    job.out[0] = plane_rows(second ? a->pred.td : a->pred.d, a->pred.offsets);
    job.out[1] = plane_rows(second ? a->target.td : a->target.d, a->target.offsets);
    job.out[2] = plane_cells(second ? a->weight.td : a->weight.d, a->weight.offsets);
  } else {
    job.out[0] = plane_cells(second ? a->loss.t : a->loss.v, a->loss.offsets);
  }
  const plane all[] = { job.x, job.y, job.xt, job.yt, up ? job.out[0] : plane{}, job.out[1], job.out[2], job.out[0],
                        job.weight, job.weight_t, job.dl, job.dlt };
  if (!job.out[0].data && !job.out[1].data && !job.out[2].data) return MICA_OK;
  mica_status status = plane_check(name, all, 12);
  if (status >= 0) status = plane_check_task(name, a->R, a->C);
  if (status < 0) return status;
  job.rows = rows_of(a->B, a->R, a->C, a->pred.offsets, all, 6);
  return micak_launch(name, up ? mse_up<ROWS_THREADS> : mse_down<ROWS_THREADS>, rows_grid(job.rows), dim3(ROWS_THREADS),
                      0, exec->stream, job, second);
}

#define MSE_FACE(face, FACE)                                                                                     \
  extern "C" mica_status micak_mse_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {    \
    return mse_run("mse " #face, FACE, exec, args);                                                              \
  }
MSE_FACE(forward, MICA_FORWARD)
MSE_FACE(backward, MICA_BACKWARD)
MSE_FACE(jvp, MICA_JVP)
MSE_FACE(backward_jvp, MICA_BACKWARD_JVP)
