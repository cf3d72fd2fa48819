/* softmax and log_softmax on CUDA: row-local faces */
#include "common/cuda_rows.cuh"
#include "softmax/softmax.h"

struct softmax_job {
  rows_job rows;
  int32_t  log;                              /* log_softmax */
  plane    x, y, yt, g, gt;                  /* x; y and its tangent; what is pushed through: y.d or x.t, and y.td */
  plane    out[1];
};

#define EACH_OF_4 _Pragma("unroll") for (int i = 0; i < 4; i++)
#define GET(p, x) float x[4]; rows_get(a.rows, team, a.p, p, c, x)
#define ROW(p) const char *p = plane_row(a.p, walk.k, team.r)

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) softmax_forward(const __grid_constant__ softmax_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<1> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(x);
    char *y = plane_row(a.out[0], walk.k, team.r);
    float top = -INFINITY, sum[4] = {};
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, v);
      EACH_OF_4 top = ROWS_LIVE(a.rows, team, c, i) && !(v[i] <= top) ? v[i] : top;
    }
    top = rows_max(team, top);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, v);
      EACH_OF_4 sum[i] += ROWS_LIVE(a.rows, team, c, i) ? expf(v[i] - top) : 0.0f;
    }
    const float all = rows_sum(team, sum), over = 1.0f / all, lse = top + logf(all);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, v);
      EACH_OF_4 v[i] = a.log ? v[i] - lse : expf(v[i] - top) * over;
      rows_put(a.rows, team, walk, 0, a.out[0], y, c, v);
    }
  }
}

/* softmax: p (g - sum p g), backward and, the Jacobian being symmetric, jvp. log_softmax: g - e^y sum g, or, `down`,
 * g - sum e^y g */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2)
    softmax_linear(const __grid_constant__ softmax_job a, const int down) {
  ROWS_EACH(a, team)
  for (rows_walk<1> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(y);
    ROW(g);
    char *out = plane_row(a.out[0], walk.k, team.r);
    float sum[4] = {};
    ROWS_COLUMNS(a.rows, team, c) {
      GET(y, p);
      GET(g, v);
      EACH_OF_4 sum[i] = fmaf(!a.log ? p[i] : down ? expf(p[i]) : 1.0f, v[i], sum[i]);
    }
    const float all = rows_sum(team, sum);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(y, p);
      GET(g, v);
      EACH_OF_4 v[i] = !a.log ? p[i] * (v[i] - all) : down ? v[i] - all : fmaf(-expf(p[i]), all, v[i]);
      rows_put(a.rows, team, walk, 0, a.out[0], out, c, v);
    }
  }
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) softmax_hvp(const __grid_constant__ softmax_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<1> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(y);
    ROW(yt);
    ROW(g);
    ROW(gt);
    char *out = plane_row(a.out[0], walk.k, team.r);
    float s[4] = {}, t[4] = {};
    ROWS_COLUMNS(a.rows, team, c) {
      GET(y, p);
      GET(yt, pt);
      GET(g, v);
      GET(gt, vt);
      EACH_OF_4 {
        s[i] = a.log ? s[i] + v[i] : fmaf(p[i], v[i], s[i]);
        t[i] = a.log ? t[i] + vt[i] : fmaf(pt[i], v[i], fmaf(p[i], vt[i], t[i]));
      }
    }
    const float sum = rows_sum(team, s), sum_t = rows_sum(team, t);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(y, p);
      GET(yt, pt);
      GET(g, v);
      GET(gt, vt);
      EACH_OF_4 v[i] = a.log ? fmaf(-expf(p[i]), fmaf(pt[i], sum, sum_t), vt[i])
                             : fmaf(p[i], vt[i] - sum_t, pt[i] * (v[i] - sum));
      rows_put(a.rows, team, walk, 0, a.out[0], out, c, v);
    }
  }
}

/* ---- launchers ---- */

static mica_status softmax_run(const char *name, int face, bool log, const mica_exec *exec, const void *args) {
  const mica_softmax_args *a = static_cast<const mica_softmax_args *>(args);
  const bool  up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  softmax_job job = {};
  job.log = log;
  if (face == MICA_FORWARD) job.x = plane_rows(a->x.v, a->x.offsets);
  else job.y = plane_rows(a->y.v, a->y.offsets);
  if (up) job.g = plane_rows(a->y.d, a->y.offsets);
  if (face == MICA_JVP) job.g = plane_rows(a->x.t, a->x.offsets);
  if (face == MICA_BACKWARD_JVP) job.yt = plane_rows(a->y.t, a->y.offsets), job.gt = plane_rows(a->y.td, a->y.offsets);
  const mica_wire *out[MICA_NFACE] = { &a->y.v, &a->x.d, &a->y.t, &a->x.td };
  job.out[0] = plane_rows(*out[face], up ? a->x.offsets : a->y.offsets);
  const plane all[] = { job.x, job.y, job.yt, job.g, job.gt, job.out[0] };
  if (!job.out[0].data) return MICA_OK;
  mica_status status = plane_check(name, all, 6);
  if (status >= 0) status = plane_check_task(name, a->R, a->C);
  if (status < 0) return status;
  job.rows = rows_of(a->B, a->R, a->C, a->x.offsets, all, 6);
  const dim3 grid = rows_grid(job.rows), block(ROWS_THREADS);
  if (face == MICA_FORWARD) return micak_launch(name, softmax_forward<ROWS_THREADS>, grid, block, 0, exec->stream, job);
  if (face == MICA_BACKWARD_JVP)
    return micak_launch(name, softmax_hvp<ROWS_THREADS>, grid, block, 0, exec->stream, job);
  return micak_launch(name, softmax_linear<ROWS_THREADS>, grid, block, 0, exec->stream, job, face == MICA_JVP);
}

#define SOFTMAX_FACE(op, face, FACE, log)                                                                           \
  extern "C" mica_status micak_##op##_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {    \
    return softmax_run(#op " " #face, FACE, log, exec, args);                                                       \
  }
#define SOFTMAX_FACES(op, log)                      \
  SOFTMAX_FACE(op, forward, MICA_FORWARD, log)      \
  SOFTMAX_FACE(op, backward, MICA_BACKWARD, log)    \
  SOFTMAX_FACE(op, jvp, MICA_JVP, log)              \
  SOFTMAX_FACE(op, backward_jvp, MICA_BACKWARD_JVP, log)
SOFTMAX_FACES(softmax, false)
SOFTMAX_FACES(log_softmax, true)
