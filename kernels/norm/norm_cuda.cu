/* layernorm and rmsnorm on CUDA: the four row-local faces; parameters' cotangents are in norm_cuda_params.cu */
#include "common/cuda_rows.cuh"
#include "norm/norm_cuda_internal.cuh"

struct norm_job {
  rows_job rows;
  float    eps;
  int32_t  centered, ones;                   /* rmsnorm: 0; w absent: 1 */
  plane    x, xt, dy, dyt, w, wt, bias, mean, rstd, mean_t, rstd_t;
  plane    out[3];                           /* y or x, mean, rstd */
};

#define EACH_OF_4 _Pragma("unroll") for (int i = 0; i < 4; i++)
#define GET(p, row, x) float x[4]; rows_get(a.rows, team, a.p, row, c, x)

/* w of four columns; ones where it is absent */
PLANE_DEVICE void norm_weight(const norm_job &a, const rows_team &team, const char *w, int32_t c, float (&x)[4]) {
  rows_get(a.rows, team, a.w, w, c, x);
  if (a.ones) EACH_OF_4 x[i] = 1.0f;
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) norm_forward(const __grid_constant__ norm_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    const char *x = plane_row(a.x, walk.k, team.r), *w = plane_row(a.w, walk.k, 0),
               *bias = plane_row(a.bias, walk.k, 0);
    char *y = plane_row(a.out[0], walk.k, team.r);
    float mean = 0, sum[4] = {}, square[4] = {};
    if (a.centered) {
      ROWS_COLUMNS(a.rows, team, c) {
        GET(x, x, v);
        EACH_OF_4 sum[i] += v[i];
      }
      mean = rows_sum(team, sum) / (float)a.rows.C;
    }
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, x, v);
      EACH_OF_4 {
        float e = ROWS_LIVE(a.rows, team, c, i) ? v[i] - mean : 0.0f;
        square[i] = fmaf(e, e, square[i]);
      }
    }
    const float rstd = 1.0f / sqrtf(rows_sum(team, square) / (float)a.rows.C + a.eps);
    rows_put_cell(team, walk, 1, a.out[1], mean);
    rows_put_cell(team, walk, 2, a.out[2], rstd);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, x, v);
      GET(bias, bias, add);
      float scale[4];
      norm_weight(a, team, w, c, scale);
      EACH_OF_4 v[i] = fmaf((v[i] - mean) * rstd, scale[i], add[i]);
      rows_put(a.rows, team, walk, 0, a.out[0], y, c, v);
    }
  }
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) norm_backward(const __grid_constant__ norm_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    const char *x = plane_row(a.x, walk.k, team.r), *w = plane_row(a.w, walk.k, 0),
               *dy = plane_row(a.dy, walk.k, team.r);
    char *dx = plane_row(a.out[0], walk.k, team.r);
    const float mean = a.centered ? rows_cell(a.mean, walk.k, team.r) : 0, rstd = rows_cell(a.rstd, walk.k, team.r);
    float s1[4] = {}, s2[4] = {};
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, x, v);
      GET(dy, dy, g);
      float scale[4];
      norm_weight(a, team, w, c, scale);
      EACH_OF_4 {
        g[i] *= scale[i];
        s1[i] += g[i], s2[i] = fmaf(g[i], v[i] - mean, s2[i]);
      }
    }
    const float over = 1.0f / (float)a.rows.C, g1 = a.centered ? rows_sum(team, s1) * over : 0;
    const float g2 = rows_sum(team, s2) * over * rstd * rstd;
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, x, v);
      GET(dy, dy, g);
      float scale[4];
      norm_weight(a, team, w, c, scale);
      EACH_OF_4 v[i] = fmaf(v[i] - mean, -g2, fmaf(g[i], scale[i], -g1)) * rstd;
      rows_put(a.rows, team, walk, 0, a.out[0], dx, c, v);
    }
  }
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) norm_jvp(const __grid_constant__ norm_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    const char *x = plane_row(a.x, walk.k, team.r), *xt = plane_row(a.xt, walk.k, team.r),
               *w = plane_row(a.w, walk.k, 0);
    const char *wt = plane_row(a.wt, walk.k, 0), *bias = plane_row(a.bias, walk.k, 0);
    char *yt = plane_row(a.out[0], walk.k, team.r);
    const float mean = a.centered ? rows_cell(a.mean, walk.k, team.r) : 0, rstd = rows_cell(a.rstd, walk.k, team.r);
    float mean_t = 0, sum[4] = {}, cross[4] = {};
    if (a.centered) {
      ROWS_COLUMNS(a.rows, team, c) {
        GET(xt, xt, t);
        EACH_OF_4 sum[i] += t[i];
      }
      mean_t = rows_sum(team, sum) / (float)a.rows.C;
    }
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, x, v);
      GET(xt, xt, t);
      EACH_OF_4 {
        float e = ROWS_LIVE(a.rows, team, c, i) ? v[i] - mean : 0.0f;
        cross[i] = fmaf(e, t[i] - mean_t, cross[i]);
      }
    }
    const float q = rows_sum(team, cross) / (float)a.rows.C * rstd;
    rows_put_cell(team, walk, 1, a.out[1], mean_t);
    rows_put_cell(team, walk, 2, a.out[2], -rstd * rstd * q);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, x, v);
      GET(xt, xt, t);
      GET(wt, wt, scale_t);
      GET(bias, bias, add);
      float scale[4];
      norm_weight(a, team, w, c, scale);
      EACH_OF_4 {
        float h = (v[i] - mean) * rstd, ht = fmaf(h, -q, t[i] - mean_t) * rstd;
        v[i] = fmaf(ht, scale[i], fmaf(h, scale_t[i], add[i]));
      }
      rows_put(a.rows, team, walk, 0, a.out[0], yt, c, v);
    }
  }
}

/* h, its tangent, g and its tangent of four columns (README.md) */
struct norm_hvp { float h[4], ht[4], g[4], gt[4]; };
PLANE_DEVICE void norm_hvp_of(const norm_job &a, const rows_team &team, const char *const (&row)[6], int32_t c,
                              const float (&cell)[4], norm_hvp &v) {
  float scale[4], scale_t[4];
  rows_get(a.rows, team, a.x, row[0], c, v.h);
  rows_get(a.rows, team, a.xt, row[1], c, v.ht);
  rows_get(a.rows, team, a.dy, row[2], c, v.g);
  rows_get(a.rows, team, a.dyt, row[3], c, v.gt);
  norm_weight(a, team, row[4], c, scale);
  rows_get(a.rows, team, a.wt, row[5], c, scale_t);
  EACH_OF_4 {
    const float e = v.h[i] - cell[0];
    v.h[i] = e * cell[1];
    v.ht[i] = fmaf(v.ht[i] - cell[2], cell[1], e * cell[3]);
    v.gt[i] = fmaf(v.gt[i], scale[i], v.g[i] * scale_t[i]);
    v.g[i] *= scale[i];
  }
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) norm_backward_jvp(const __grid_constant__ norm_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    const int64_t k = walk.k;
    const char *const row[6] = { plane_row(a.x, k, team.r),   plane_row(a.xt, k, team.r), plane_row(a.dy, k, team.r),
                                 plane_row(a.dyt, k, team.r), plane_row(a.w, k, 0),       plane_row(a.wt, k, 0) };
    char *dxt = plane_row(a.out[0], k, team.r);
    const float cell[4] = { a.centered ? rows_cell(a.mean, k, team.r) : 0, rows_cell(a.rstd, k, team.r),
                            a.centered ? rows_cell(a.mean_t, k, team.r) : 0, rows_cell(a.rstd_t, k, team.r) };
    float s1[4] = {}, s2[4] = {}, t1[4] = {}, t2[4] = {};
    ROWS_COLUMNS(a.rows, team, c) {
      norm_hvp v;
      norm_hvp_of(a, team, row, c, cell, v);
      EACH_OF_4 {
        s1[i] += v.g[i], s2[i] = fmaf(v.g[i], v.h[i], s2[i]), t1[i] += v.gt[i];
        t2[i] = fmaf(v.gt[i], v.h[i], fmaf(v.g[i], v.ht[i], t2[i]));
      }
    }
    const float over = 1.0f / (float)a.rows.C, g1 = a.centered ? rows_sum(team, s1) * over : 0;
    const float h1 = a.centered ? rows_sum(team, t1) * over : 0;
    const float g2 = rows_sum(team, s2) * over, h2 = rows_sum(team, t2) * over;
    ROWS_COLUMNS(a.rows, team, c) {
      norm_hvp v;
      float    value[4];
      norm_hvp_of(a, team, row, c, cell, v);
      EACH_OF_4 {
        const float p = v.g[i] - g1 - v.h[i] * g2, q = v.gt[i] - h1 - v.ht[i] * g2 - v.h[i] * h2;
        value[i] = fmaf(p, cell[3], q * cell[1]);
      }
      rows_put(a.rows, team, walk, 0, a.out[0], dxt, c, value);
    }
  }
}

/* ---- launchers ---- */

static mica_status norm_run(const char *name, int face, bool centered, const mica_exec *exec, const void *args) {
  const mica_norm_args *a = static_cast<const mica_norm_args *>(args);
  static void (*const kernels[MICA_NFACE])(norm_job) = { norm_forward<ROWS_THREADS>, norm_backward<ROWS_THREADS>,
                                                         norm_jvp<ROWS_THREADS>, norm_backward_jvp<ROWS_THREADS> };
  const bool forward = face == MICA_FORWARD, up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  const bool tangent = face == MICA_JVP || face == MICA_BACKWARD_JVP;
  norm_job job = {};
  job.eps = (float)a->eps, job.centered = centered, job.ones = !a->w.v.data;
  job.x = plane_rows(a->x.v, a->x.offsets), job.w = plane_param(a->w.v);
  if (forward || face == MICA_JVP) job.bias = plane_param(forward ? a->b.v : a->b.t);
  if (!centered) job.bias = plane{};
  if (!forward) job.mean = plane_cells(a->mean.v, a->mean.offsets), job.rstd = plane_cells(a->rstd.v, a->rstd.offsets);
  if (tangent) job.xt = plane_rows(a->x.t, a->x.offsets), job.wt = plane_param(a->w.t);
  if (up) job.dy = plane_rows(a->y.d, a->y.offsets);
  if (face == MICA_BACKWARD_JVP) {
    job.dyt = plane_rows(a->y.td, a->y.offsets);
    job.mean_t = plane_cells(a->mean.t, a->mean.offsets), job.rstd_t = plane_cells(a->rstd.t, a->rstd.offsets);
  }
  const mica_wire *out[MICA_NFACE] = { &a->y.v, &a->x.d, &a->y.t, &a->x.td };
  job.out[0] = plane_rows(*out[face], up ? a->x.offsets : a->y.offsets);
  if (!up && centered) job.out[1] = plane_cells(forward ? a->mean.v : a->mean.t, a->mean.offsets);
  if (!up) job.out[2] = plane_cells(forward ? a->rstd.v : a->rstd.t, a->rstd.offsets);
  const plane all[] = { job.x, job.xt, job.dy, job.dyt, job.w, job.wt, job.bias, job.out[0], job.out[1], job.out[2],
                        job.mean, job.rstd, job.mean_t, job.rstd_t };
  mica_status status = plane_check(name, all, 14);
  if (status >= 0) status = plane_check_task(name, a->R, a->C);
  if (status < 0) return status;
  job.rows = rows_of(a->B, a->R, a->C, a->x.offsets, all, 8);
  if (job.out[0].data || job.out[1].data || job.out[2].data)
    status = micak_launch(name, kernels[face], rows_grid(job.rows), dim3(ROWS_THREADS), 0, exec->stream, job);
  return status >= 0 && up ? norm_params_cuda(name, face, centered, exec, a) : status;
}

#define NORM_FACE(op, face, FACE, centered)                                                                         \
  extern "C" mica_status micak_##op##_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {    \
    return norm_run(#op " " #face, FACE, centered, exec, args);                                                     \
  }
#define NORM_FACES(op, centered)                      \
  NORM_FACE(op, forward, MICA_FORWARD, centered)      \
  NORM_FACE(op, backward, MICA_BACKWARD, centered)    \
  NORM_FACE(op, jvp, MICA_JVP, centered)              \
  NORM_FACE(op, backward_jvp, MICA_BACKWARD_JVP, centered)
NORM_FACES(layernorm, true)
NORM_FACES(rmsnorm, false)
