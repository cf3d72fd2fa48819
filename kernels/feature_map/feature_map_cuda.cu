/* feature_map on CUDA: elementwise maps, softmax, lengths and dpfp; a team of lanes a head of a row. favor is in
 * feature_map_cuda_favor.cu */
#include "feature_map/feature_map_cuda_internal.cuh"

#define EACH_OF_4 _Pragma("unroll") for (int i = 0; i < 4; i++)
#define GET(p, v) float v[4]; rows_get(a.rows, team, a.p, p, c, v)

/* ---- sums over a row that the derivatives need ---- */

struct feature_sums {
  float top, z, mean, dot, dot_t;            /* softmax: largest, sum, of p x_t, of p g, and its tangent */
  float r, r_t, cube;                        /* lengths: 1 / length, tangent, cube; l1: 1 / sum, tangent of the sum */
};

/* silu or x itself: value, slope, bend */
PLANE_DEVICE void feature_silu(bool silu, float x, float &s, float &slope, float &bend) {
  const float p = silu ? 1.0f / (1.0f + expf(-x)) : 1.0f, q = p * (1.0f - p);
  s = x * p, slope = fmaf(x, q, p), bend = q * fmaf(x, fmaf(-2.0f, p, 1.0f), 2.0f);
}
PLANE_DEVICE float feature_sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f; }

PLANE_DEVICE feature_sums feature_softmax(const feature_job &a, const rows_team &team, const char *x, const char *xt,
                                          const char *g, const char *gt) {
  feature_sums s = {};
  float        top = -INFINITY, z[4] = {}, mean[4] = {}, dot[4] = {}, dot_t[4] = {};
  ROWS_COLUMNS(a.rows, team, c) {
    GET(x, v);
    EACH_OF_4 top = ROWS_LIVE(a.rows, team, c, i) ? fmaxf(top, v[i]) : top;
  }
  s.top = rows_max(team, top);
  ROWS_COLUMNS(a.rows, team, c) {
    GET(x, v);
    EACH_OF_4 z[i] += ROWS_LIVE(a.rows, team, c, i) ? expf(v[i] - s.top) : 0.0f;
  }
  s.z = 1.0f / rows_sum(team, z);
  if (a.face == MICA_FORWARD) return s;
  ROWS_COLUMNS(a.rows, team, c) {
    GET(x, v);
    GET(xt, t);
    GET(g, u);
    EACH_OF_4 {
      const float p = expf(v[i] - s.top) * s.z;
      mean[i] = fmaf(p, t[i], mean[i]), dot[i] = fmaf(p, u[i], dot[i]);
    }
  }
  s.mean = rows_sum(team, mean), s.dot = rows_sum(team, dot);
  if (a.face != MICA_BACKWARD_JVP) return s;
  ROWS_COLUMNS(a.rows, team, c) {
    GET(x, v);
    GET(xt, t);
    GET(g, u);
    GET(gt, ut);
    EACH_OF_4 {
      const float p = expf(v[i] - s.top) * s.z;
      dot_t[i] = fmaf(p * (t[i] - s.mean), u[i], fmaf(p, ut[i], dot_t[i]));
    }
  }
  s.dot_t = rows_sum(team, dot_t);
  return s;
}
PLANE_DEVICE feature_sums feature_length(const feature_job &a, const rows_team &team, const char *x, const char *xt,
                                         const char *g, const char *gt) {
  feature_sums s = {};
  float        square[4] = {}, square_t[4] = {}, dot[4] = {}, dot_t[4] = {};
  ROWS_COLUMNS(a.rows, team, c) {
    GET(x, v);
    GET(xt, t);
    GET(g, u);
    GET(gt, ut);
    EACH_OF_4 {
      float value, slope, bend;
      feature_silu(a.map == FEATURE_SILU_L2, v[i], value, slope, bend);
      const float value_t = slope * t[i];
      square[i] = fmaf(value, value, square[i]), square_t[i] = fmaf(value, value_t, square_t[i]);
      dot[i] = fmaf(value, u[i], dot[i]), dot_t[i] = fmaf(value_t, u[i], fmaf(value, ut[i], dot_t[i]));
    }
  }
  s.r = 1.0f / sqrtf(rows_sum(team, square) + a.eps);
  s.cube = s.r * s.r * s.r;
  if (a.face != MICA_FORWARD) s.r_t = -s.cube * rows_sum(team, square_t), s.dot = rows_sum(team, dot);
  if (a.face == MICA_BACKWARD_JVP) s.dot_t = rows_sum(team, dot_t);
  return s;
}
PLANE_DEVICE feature_sums feature_l1(const feature_job &a, const rows_team &team, const char *x, const char *xt,
                                     const char *g, const char *gt) {
  feature_sums s = {};
  float        sum[4] = {}, sum_t[4] = {}, gx[4] = {}, gxt[4] = {};
  ROWS_COLUMNS(a.rows, team, c) {
    GET(x, v);
    GET(xt, t);
    GET(g, u);
    EACH_OF_4 {
      sum[i] += fabsf(v[i]), sum_t[i] = fmaf(feature_sign(v[i]), t[i], sum_t[i]);
      gx[i] = fmaf(u[i], v[i], gx[i]);
    }
  }
  s.r = 1.0f / (rows_sum(team, sum) + a.eps);
  if (a.face == MICA_FORWARD) return s;
  s.r_t = rows_sum(team, sum_t), s.dot = rows_sum(team, gx) * s.r;
  if (a.face != MICA_BACKWARD_JVP) return s;
  ROWS_COLUMNS(a.rows, team, c) {
    GET(x, v);
    GET(xt, t);
    GET(g, u);
    GET(gt, ut);
    EACH_OF_4 gxt[i] = fmaf(ut[i], v[i] * s.r, fmaf(u[i], (t[i] - v[i] * s.r * s.r_t) * s.r, gxt[i]));
  }
  s.dot_t = rows_sum(team, gxt);
  return s;
}

/* what the face wants of one element: x, its tangent, the cotangent of y and its tangent */
PLANE_DEVICE float feature_value(const feature_job &a, const feature_sums &s, float x, float t, float g, float gt) {
  if (a.map <= FEATURE_ELU1) {
    const bool  low = a.map == FEATURE_ELU1 && x <= 0;
    const float e = low ? expf(x) : 1.0f;
    if (a.face == MICA_FORWARD) return a.map == FEATURE_IDENTITY ? x : low ? e : x + 1.0f;
    if (a.face == MICA_JVP) return e * t;
    return a.face == MICA_BACKWARD ? e * g : fmaf(low ? e * t : 0.0f, g, e * gt);
  }
  if (a.map == FEATURE_SOFTMAX) {
    const float p = expf(x - s.top) * s.z;
    if (a.face == MICA_FORWARD) return p;
    if (a.face == MICA_BACKWARD) return p * (g - s.dot);
    const float pt = p * (t - s.mean);
    return a.face == MICA_JVP ? pt : fmaf(pt, g - s.dot, p * (gt - s.dot_t));
  }
  if (a.map == FEATURE_L1) {
    const float y = x * s.r, d = (g - feature_sign(x) * s.dot) * s.r;
    if (a.face == MICA_FORWARD) return y;
    if (a.face == MICA_JVP) return (t - y * s.r_t) * s.r;
    return a.face == MICA_BACKWARD ? d : (gt - feature_sign(x) * s.dot_t - d * s.r_t) * s.r;
  }
  float value, slope, bend;
  feature_silu(a.map == FEATURE_SILU_L2, x, value, slope, bend);
  const float value_t = slope * t;
  if (a.face == MICA_FORWARD) return s.r * value;
  if (a.face == MICA_JVP) return fmaf(s.r, value_t, s.r_t * value);
  const float d = fmaf(s.r, g, -s.cube * s.dot * value);
  if (a.face == MICA_BACKWARD) return slope * d;
  const float of_value = -(3.0f * s.r * s.r * s.r_t * s.dot + s.cube * s.dot_t);
  const float dt = fmaf(value, of_value, fmaf(value_t, -s.cube * s.dot, fmaf(s.r, gt, g * s.r_t)));
  return fmaf(bend * t, d, slope * dt);
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) feature_rows(const __grid_constant__ feature_job a) {
  FEATURE_EACH(a, team) {
    FEATURE_ROWS;
    feature_sums s = {};
    if (a.map == FEATURE_SOFTMAX) s = feature_softmax(a, team, x, xt, g, gt);
    else if (a.map == FEATURE_L1) s = feature_l1(a, team, x, xt, g, gt);
    else if (a.map > FEATURE_ELU1) s = feature_length(a, team, x, xt, g, gt);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(x, v);
      GET(xt, t);
      GET(g, u);
      GET(gt, ut);
      EACH_OF_4 v[i] = feature_value(a, s, v[i], t[i], u[i], ut[i]);
      rows_put(a.rows, team, walk, 0, a.out[0], out, c, v);
    }
  }
}

/* ---- dpfp: y_(2D i + j) = r_j r_(j - i - 1); r_j of x or, with x's signs, of its tangent ---- */

PLANE_DEVICE float feature_rectify(const feature_job &a, const char *x, const plane &p, const char *from, int32_t j) {
  const int32_t D = a.rows.C, d = j < D ? j : j - D;
  const float   v = feature_get(a.x, x, d), r = feature_get(p, from, d);  /* not by v's sign: loads of whole sectors */
  return j < D ? (v > 0 ? r : 0.0f) : v < 0 ? -r : 0.0f;
}
/* the cotangent of r_j: as the left factor of y_e and as the right one of another */
PLANE_DEVICE float feature_dpfp_back(const feature_job &a, const char *x, const plane &p, const char *from,
                                     const plane &q, const char *g, int32_t j) {
  const int32_t n = 2 * a.rows.C;
  float         sum = 0;
  for (int32_t i = 0; i < a.nu; i++) {
    const int32_t left = j - i - 1 < 0 ? j - i - 1 + n : j - i - 1, right = j + i + 1 >= n ? j + i + 1 - n : j + i + 1;
    sum = fmaf(feature_get(q, g, i * n + j), feature_rectify(a, x, p, from, left), sum);
    sum = fmaf(feature_get(q, g, i * n + right), feature_rectify(a, x, p, from, right), sum);
  }
  return sum;
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) feature_dpfp(const __grid_constant__ feature_job a) {
  const int32_t D = a.rows.C, n = 2 * D;
  const bool    back = a.face == MICA_BACKWARD || a.face == MICA_BACKWARD_JVP;
  FEATURE_EACH(a, team) {
    FEATURE_ROWS;
    for (int32_t e = team.lane; e < (back ? D : a.F); e += team.lanes) {
      float value;
      if (!back) {
        const int32_t i = e / n, j = e - i * n, k = j - i - 1 < 0 ? j - i - 1 + n : j - i - 1;
        const float   left = feature_rectify(a, x, a.x, x, j), right = feature_rectify(a, x, a.x, x, k);
        value = left * right;
        if (a.face == MICA_JVP)
          value = fmaf(feature_rectify(a, x, a.xt, xt, j), right, left * feature_rectify(a, x, a.xt, xt, k));
      } else {
        const float v = feature_get(a.x, x, e);
        const int   j = v > 0 ? e : D + e;
        value = 0;
        if (v != 0) {
          value = feature_dpfp_back(a, x, a.x, x, a.face == MICA_BACKWARD ? a.g : a.gt,
                                    a.face == MICA_BACKWARD ? g : gt, j);
          if (a.face == MICA_BACKWARD_JVP) value += feature_dpfp_back(a, x, a.xt, xt, a.g, g, j);
          if (v < 0) value = -value;
        }
      }
      plane_put(a.out[0], out, (int64_t)e * a.out[0].col, (double)value, walk.adds(0));
    }
  }
}

/* ---- launchers ---- */

static plane feature_plane(const mica_wire &w, const int32_t *offsets, int32_t &head) {
  plane p = plane_of(w, offsets, w.stride[0], w.stride[2]);
  head = (int32_t)w.stride[1];
  if (p.data && head != w.stride[1]) p.bad = PLANE_STRIDE;
  return p;
}

static mica_status feature_run(const char *name, int face, const mica_exec *exec, const void *args) {
  const mica_feature_map_args *a = static_cast<const mica_feature_map_args *>(args);
  const bool up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP,
             tangent = face == MICA_JVP || face == MICA_BACKWARD_JVP;
  feature_job job = {};
  job.offsets = a->x.offsets, job.T = (int32_t)a->T, job.H = (int32_t)a->H, job.F = (int32_t)a->F;
  job.nu = (int32_t)a->nu, job.map = (int32_t)a->map, job.face = face, job.eps = (float)a->eps;
  job.x = feature_plane(a->x.v, a->x.offsets, job.head[0]);
  if (tangent) job.xt = feature_plane(a->x.t, a->x.offsets, job.head[1]);
  if (up) job.g = feature_plane(a->y.d, a->y.offsets, job.head[2]);
  if (up && tangent) job.gt = feature_plane(a->y.td, a->y.offsets, job.head[3]);
  const mica_wire *out[MICA_NFACE] = { &a->y.v, &a->x.d, &a->y.t, &a->x.td };
  job.out[0] = feature_plane(*out[face], up ? a->x.offsets : a->y.offsets, job.head[4]);
  if (!job.out[0].data || a->B <= 0 || a->T <= 0 || a->H <= 0) return MICA_OK;
  const plane all[] = { job.x, job.xt, job.g, job.gt, job.out[0] };
  mica_status status = plane_check(name, all, 5);
  if (status >= 0) status = plane_check_task(name, a->T * a->H, a->F > a->D ? a->F : a->D);
  if (status < 0) return status;
  job.rows = rows_of(a->B, a->T * a->H, a->D, NULL, all, 5);
  for (int i = 0; i < 5; i++)
    if (all[i].data && job.head[i] % 4) job.rows.wide = 0;
  if (a->map == FEATURE_FAVOR) return feature_favor_cuda(name, job, exec, a);
  /* dpfp takes a column at a time, not four: as many lanes as columns fill sectors */
  while (a->map == FEATURE_DPFP && job.rows.lanes < 32 && job.rows.lanes < a->D) job.rows.lanes *= 2;
  return micak_launch(name, a->map == FEATURE_DPFP ? feature_dpfp<ROWS_THREADS> : feature_rows<ROWS_THREADS>,
                      rows_grid(job.rows), dim3(ROWS_THREADS), 0, exec->stream, job);
}

#define FEATURE_FACE(face, FACE)                                                                                       \
  extern "C" mica_status micak_feature_map_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {  \
    return feature_run("feature_map " #face, FACE, exec, args);                                                        \
  }
FEATURE_FACE(forward, MICA_FORWARD)
FEATURE_FACE(backward, MICA_BACKWARD)
FEATURE_FACE(jvp, MICA_JVP)
FEATURE_FACE(backward_jvp, MICA_BACKWARD_JVP)
