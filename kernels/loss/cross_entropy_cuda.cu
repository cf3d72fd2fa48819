/* cross_entropy on CUDA: row-local faces. a label is a soft target of one entry, of mass 1. a label beyond the classes
 * makes its row NaN: nothing is read back, so no status can tell */
#include "common/cuda_rows.cuh"
#include "loss/loss.h"

struct ce_job {
  rows_job rows;
  int32_t  hard, ones;                       /* labels; weight absent: 1 */
  plane    z, zt, tau, tau_t, label, weight, weight_t, lse, lse_t, dl, dlt;
  plane    out[3];                           /* down: loss, lse; up: logits, target, weight */
};

#define EACH_OF_4 _Pragma("unroll") for (int i = 0; i < 4; i++)
#define GET(p, x) float x[4]; rows_get(a.rows, team, a.p, p, c, x)
#define ROW(p) const char *p = plane_row(a.p, walk.k, team.r)
#define CELL(p) rows_cell(a.p, walk.k, team.r)

/* label of a row: negative: ignored; 0 where targets are soft */
PLANE_DEVICE int64_t ce_label(const ce_job &a, int64_t k, int32_t r) {
  const char *at = plane_task(a.label, k);
  return at ? plane_index(a.label, at, (int64_t)r * a.label.row) : 0;
}
PLANE_DEVICE float ce_at(const plane &p, const char *row, int64_t c) {
  return row ? plane_get(p, row, c * p.col) : 0.0f;
}

/* over a row, with e = lse - z: mass = sum tau, sum = sum tau e, and their tangents */
struct ce_sums { float mass, sum, mass_t, sum_t; };
PLANE_DEVICE ce_sums ce_sums_of(const ce_job &a, const rows_team &team, int64_t label, const char *z, const char *zt,
                                const char *tau, const char *tau_t, float lse, float lse_t, bool second) {
  ce_sums all = { 1, 0, 0, 0 };
  if (a.hard) {
    all.sum = lse - ce_at(a.z, z, label);
    if (second) all.sum_t = lse_t - ce_at(a.zt, zt, label);
    return all;
  }
  float m[4] = {}, s[4] = {}, mt[4] = {}, st[4] = {};
  ROWS_COLUMNS(a.rows, team, c) {
    GET(z, v);
    GET(tau, q);
    EACH_OF_4 v[i] = lse - v[i], m[i] += q[i], s[i] = fmaf(q[i], v[i], s[i]);
    if (!second) continue;
    GET(zt, vt);
    GET(tau_t, qt);
    EACH_OF_4 mt[i] += qt[i], st[i] = fmaf(qt[i], v[i], fmaf(q[i], lse_t - vt[i], st[i]));
  }
  all.mass = rows_sum(team, m), all.sum = rows_sum(team, s);
  if (second) all.mass_t = rows_sum(team, mt), all.sum_t = rows_sum(team, st);
  return all;
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) ce_forward(const __grid_constant__ ce_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(z);
    ROW(tau);
    const int64_t label = ce_label(a, walk.k, team.r);
    float loss = 0, lse = 0;
    if (label >= a.rows.C) {
      loss = lse = NAN;
    } else if (label >= 0) {
      float top = -INFINITY, sum[4] = {};
      ROWS_COLUMNS(a.rows, team, c) {
        GET(z, v);
        EACH_OF_4 top = ROWS_LIVE(a.rows, team, c, i) ? fmaxf(top, v[i]) : top;
      }
      top = rows_max(team, top);
      ROWS_COLUMNS(a.rows, team, c) {
        GET(z, v);
        EACH_OF_4 sum[i] += ROWS_LIVE(a.rows, team, c, i) ? expf(v[i] - top) : 0.0f;
      }
      lse = top + logf(rows_sum(team, sum));
      loss = (a.ones ? 1.0f : CELL(weight)) * ce_sums_of(a, team, label, z, NULL, tau, NULL, lse, 0, false).sum;
    }
    rows_put_cell(team, walk, 0, a.out[0], loss);
    rows_put_cell(team, walk, 1, a.out[1], lse);
  }
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) ce_jvp(const __grid_constant__ ce_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(z);
    ROW(zt);
    ROW(tau);
    ROW(tau_t);
    const int64_t label = ce_label(a, walk.k, team.r);
    float loss_t = 0, lse_t = 0;
    if (label >= a.rows.C) {
      loss_t = lse_t = NAN;
    } else if (label >= 0) {
      const float lse = CELL(lse);
      float       sum[4] = {};
      ROWS_COLUMNS(a.rows, team, c) {
        GET(z, v);
        GET(zt, vt);
        EACH_OF_4 sum[i] = fmaf(expf(v[i] - lse), vt[i], sum[i]);
      }
      lse_t = rows_sum(team, sum);
      const ce_sums s = ce_sums_of(a, team, label, z, zt, tau, tau_t, lse, lse_t, true);
      loss_t = fmaf(CELL(weight_t), s.sum, (a.ones ? 1.0f : CELL(weight)) * s.sum_t);
    }
    rows_put_cell(team, walk, 0, a.out[0], loss_t);
    rows_put_cell(team, walk, 1, a.out[1], lse_t);
  }
}

/* target's entry of the i-th column of four: the label's, or the soft one */
PLANE_DEVICE float ce_tau(const ce_job &a, const rows_team &team, int64_t label, int32_t c, int i,
                          const float (&tau)[4]) {
  return a.hard ? (c + i * team.gap == label ? 1.0f : 0.0f) : tau[i];
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) ce_backward(const __grid_constant__ ce_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(z);
    ROW(tau);
    char *dz = plane_row(a.out[0], walk.k, team.r), *dtau = plane_row(a.out[1], walk.k, team.r);
    const int64_t label = ce_label(a, walk.k, team.r);
    const bool    counts = label >= 0;
    const float   lse = CELL(lse), dl = label >= a.rows.C ? NAN : CELL(dl), u = (a.ones ? 1.0f : CELL(weight)) * dl;
    ce_sums       s = { 0, 0, 0, 0 };
    if (counts && label < a.rows.C) s = ce_sums_of(a, team, label, z, NULL, tau, NULL, lse, 0, false);
    rows_put_cell(team, walk, 2, a.out[2], counts ? s.sum * dl : 0.0f);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(z, v);
      GET(tau, q);
      float e[4];
      EACH_OF_4 {
        e[i] = counts ? (lse - v[i]) * u : 0.0f;
        v[i] = counts ? (expf(v[i] - lse) * s.mass - ce_tau(a, team, label, c, i, q)) * u : 0.0f;
      }
      rows_put(a.rows, team, walk, 0, a.out[0], dz, c, v);
      rows_put(a.rows, team, walk, 1, a.out[1], dtau, c, e);
    }
  }
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) ce_backward_jvp(const __grid_constant__ ce_job a) {
  ROWS_EACH(a, team)
  for (rows_walk<3> walk(a.rows, a.out, team); walk.any(); walk.next()) {
    ROW(z);
    ROW(zt);
    ROW(tau);
    ROW(tau_t);
    char *dz = plane_row(a.out[0], walk.k, team.r), *dtau = plane_row(a.out[1], walk.k, team.r);
    const int64_t label = ce_label(a, walk.k, team.r);
    const bool    counts = label >= 0;
    const float   lse = CELL(lse), lse_t = CELL(lse_t), dl = label >= a.rows.C ? NAN : CELL(dl), dlt = CELL(dlt);
    const float   weight = a.ones ? 1.0f : CELL(weight), u = weight * dl, ut = fmaf(CELL(weight_t), dl, weight * dlt);
    ce_sums       s = { 0, 0, 0, 0 };
    if (counts && label < a.rows.C) s = ce_sums_of(a, team, label, z, zt, tau, tau_t, lse, lse_t, true);
    rows_put_cell(team, walk, 2, a.out[2], counts ? fmaf(s.sum_t, dl, s.sum * dlt) : 0.0f);
    ROWS_COLUMNS(a.rows, team, c) {
      GET(z, v);
      GET(zt, vt);
      GET(tau, q);
      GET(tau_t, qt);
      float e[4];
      EACH_OF_4 {
        const float p = expf(v[i] - lse), pt = p * (vt[i] - lse_t), now = p * s.mass - ce_tau(a, team, label, c, i, q);
        const float then = fmaf(p, s.mass_t, fmaf(pt, s.mass, a.hard ? 0.0f : -qt[i]));
        e[i] = counts ? fmaf(lse - v[i], ut, (lse_t - vt[i]) * u) : 0.0f;
        v[i] = counts ? fmaf(now, ut, then * u) : 0.0f;
      }
      rows_put(a.rows, team, walk, 0, a.out[0], dz, c, v);
      rows_put(a.rows, team, walk, 1, a.out[1], dtau, c, e);
    }
  }
}

/* ---- launchers ---- */

static mica_status ce_run(const char *name, int face, const mica_exec *exec, const void *args) {
  const mica_cross_entropy_args *a = static_cast<const mica_cross_entropy_args *>(args);
  static void (*const kernels[MICA_NFACE])(ce_job) = { ce_forward<ROWS_THREADS>, ce_backward<ROWS_THREADS>,
                                                       ce_jvp<ROWS_THREADS>, ce_backward_jvp<ROWS_THREADS> };
  const bool up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP,
             second = face == MICA_JVP || face == MICA_BACKWARD_JVP;
  if (!a->label.v.data == !a->target.v.data)
    return mica_error(MICA_ERR_INVALID, "cross_entropy: %s label and target given, expected exactly one",
                      a->label.v.data ? "both" : "neither");
  ce_job job = {};
  job.hard = a->label.v.data != NULL, job.ones = !a->weight.v.data;
  job.z = plane_rows(a->logits.v, a->logits.offsets), job.tau = plane_rows(a->target.v, a->target.offsets);
  job.label = plane_cells(a->label.v, a->label.offsets), job.weight = plane_cells(a->weight.v, a->weight.offsets);
  if (face != MICA_FORWARD) job.lse = plane_cells(a->lse.v, a->lse.offsets);
  if (second) {
    job.zt = plane_rows(a->logits.t, a->logits.offsets), job.tau_t = plane_rows(a->target.t, a->target.offsets);
    job.weight_t = plane_cells(a->weight.t, a->weight.offsets);
  }
  if (up) job.dl = plane_cells(a->loss.d, a->loss.offsets);
  if (up && second)
    job.lse_t = plane_cells(a->lse.t, a->lse.offsets), job.dlt = plane_cells(a->loss.td, a->loss.offsets);
  if (up) {
    job.out[0] = plane_rows(second ? a->logits.td : a->logits.d, a->logits.offsets);
    job.out[1] = plane_rows(second ? a->target.td : a->target.d, a->target.offsets);
    job.out[2] = plane_cells(second ? a->weight.td : a->weight.d, a->weight.offsets);
  } else {
    job.out[0] = plane_cells(second ? a->loss.t : a->loss.v, a->loss.offsets);
    job.out[1] = plane_cells(second ? a->lse.t : a->lse.v, a->lse.offsets);
  }
  const plane none = {}, all[] = { job.z, job.zt, job.tau, job.tau_t, up ? job.out[0] : none, up ? job.out[1] : none,
                                   job.out[0], job.out[1], job.out[2], job.weight, job.weight_t, job.lse, job.lse_t,
                                   job.dl, job.dlt };
  if (!job.out[0].data && !job.out[1].data && !job.out[2].data) return MICA_OK;
  mica_status status = plane_check(name, all, 15);
  if (status >= 0) status = plane_check_task(name, a->R, a->C);
  if (status < 0) return status;
  job.rows = rows_of(a->B, a->R, a->C, a->logits.offsets, all, 6);
  return micak_launch(name, kernels[face], rows_grid(job.rows), dim3(ROWS_THREADS), 0, exec->stream, job);
}

#define CE_FACE(face, FACE)                                                                                   \
  extern "C" mica_status micak_cross_entropy_##face##_cuda(const mica_exec *exec, const void *args, int64_t,  \
                                                           int64_t) {                                         \
    return ce_run("cross_entropy " #face, FACE, exec, args);                                                  \
  }
CE_FACE(forward, MICA_FORWARD)
CE_FACE(backward, MICA_BACKWARD)
CE_FACE(jvp, MICA_JVP)
CE_FACE(backward_jvp, MICA_BACKWARD_JVP)
