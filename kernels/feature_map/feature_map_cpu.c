/* feature_map on the CPU: rows of all heads, one map a call */
#include "common/columns.h"
#include "common/isa.h"
#include "common/rows.h"
#include "feature_map/feature_map_internal.h"

/* one row of one head: what the face reads, and `out`, what it writes. scratch: five rows of `room` */
typedef struct feature_row {
  const mica_feature_map_args *a;
  int64_t      D, F, ld;                     /* ld: rows of wt */
  int          face;
  const float *x, *xt, *g, *gt, *wt;         /* wt (D,F): directions of favor, transposed, zeros beyond F */
  float       *out, *scratch;
  int64_t      room;
} feature_row;
typedef void (*feature_fn)(const feature_row *w);

static inline float *feature_part(const feature_row *w, int i) { return w->scratch + i * w->room; }
/* f, f', f'' of elementwise maps to what the face wants */
static inline vf feature_pick(const feature_row *w, int64_t c, int64_t n, vf f, vf slope, vf bend) {
  if (w->face == MICA_FORWARD) return f;
  if (w->face == MICA_JVP) return slope * micak_ld(w->xt + c, n);
  vf g = micak_ld(w->g + c, n);
  if (w->face == MICA_BACKWARD) return slope * g;
  return v_fma(bend * micak_ld(w->xt + c, n), g, slope * micak_ld(w->gt + c, n));
}

static void feature_identity(const feature_row *w) {
  MICAK_COLUMNS(w->D, micak_st(w->out + c, feature_pick(w, c, n, micak_ld(w->x + c, n), v_set1(1), v_zero()), n););
}
static void feature_elu1(const feature_row *w) {
  MICAK_COLUMNS(w->D, vf x = micak_ld(w->x + c, n); vm up = v_gt(x, v_zero());
                vf e = v_exp(v_min(v_zero(), x)), slope = v_select(up, v_set1(1), e);
                vf y = feature_pick(w, c, n, v_select(up, x + 1.0f, e), slope, v_select(up, v_zero(), e));
                micak_st(w->out + c, y, n););
}

/* ---- dpfp: r and what is read of it moved by i + 1 lie twice one after another, so that no index wraps ---- */

static void feature_rectify(const feature_row *w, const float *from, float *r) {
  int64_t D = w->D;
  MICAK_COLUMNS(D, vf x = micak_ld(w->x + c, n), y = micak_ld(from + c, n);
                micak_st(r + c, v_keep(v_gt(x, v_zero()), y), n);
                micak_st(r + D + c, v_keep(v_lt(x, v_zero()), v_zero() - y), n););
  memcpy(r + 2 * D, r, (size_t)(2 * D) * sizeof *r);
}
/* the adjoint of y = r times r moved: dr += from the left, moved += from the right factor; c is a part of g or g_t */
static void feature_dpfp_add(const feature_row *w, const float *c_at, const float *r, float *left, float *right) {
  int64_t n2 = 2 * w->D;
  for (int64_t i = 0; i < w->a->nu; i++) {
    const float *g = c_at + i * n2, *moved = r + n2 - 1 - i;
    float *to = right + n2 - 1 - i;
    MICAK_COLUMNS(n2, vf e = micak_ld(g + c, n);
                  micak_st(left + c, v_fma(e, micak_ld(moved + c, n), micak_ld(left + c, n)), n);
                  micak_st(to + c, v_fma(e, micak_ld(r + c, n), micak_ld(to + c, n)), n););
  }
}
static void feature_dpfp(const feature_row *w) {
  int64_t D = w->D, n2 = 2 * D;
  float *r = feature_part(w, 0), *rt = feature_part(w, 1), *left = feature_part(w, 2), *right = feature_part(w, 3);
  int tangent = w->face == MICA_JVP || w->face == MICA_BACKWARD_JVP;
  feature_rectify(w, w->x, r);
  if (tangent) feature_rectify(w, w->xt, rt);
  if (w->face == MICA_FORWARD || w->face == MICA_JVP) {
    for (int64_t i = 0; i < w->a->nu; i++) {
      const float *moved = r + n2 - 1 - i, *moved_t = rt + n2 - 1 - i;
      float *to = w->out + i * n2;
      MICAK_COLUMNS(n2, vf p = micak_ld(r + c, n), q = micak_ld(moved + c, n);
                    vf y = tangent ? v_fma(micak_ld(rt + c, n), q, p * micak_ld(moved_t + c, n)) : p * q;
                    micak_st(to + c, y, n););
    }
    return;
  }
  memset(left, 0, (size_t)n2 * sizeof *left);
  memset(right, 0, (size_t)(2 * n2) * sizeof *right);
  if (w->face == MICA_BACKWARD) {
    feature_dpfp_add(w, w->g, r, left, right);
  } else {
    feature_dpfp_add(w, w->gt, r, left, right);
    feature_dpfp_add(w, w->g, rt, left, right);
  }
  MICAK_COLUMNS(n2, vf both = micak_ld(right + c, n) + micak_ld(right + n2 + c, n);
                micak_st(left + c, micak_ld(left + c, n) + both, n););
  MICAK_COLUMNS(D, vf x = micak_ld(w->x + c, n);
                micak_st(w->out + c, v_keep(v_gt(x, v_zero()), micak_ld(left + c, n)) -
                                         v_keep(v_lt(x, v_zero()), micak_ld(left + D + c, n)), n););
}

/* ---- favor ---- */

static float feature_dot(const float *p, const float *q, int64_t count) {
  vf s[4] = { v_zero(), v_zero(), v_zero(), v_zero() };
  MICAK_COLUMNS(count, s[k] = v_fma(micak_ld(p + c, n), micak_ld(q + c, n), s[k]););
  return micak_sum4(s);
}
/* sums of h over the directions: out = w' h - (sum of h) x, added to what is there */
static void feature_favor_back(const feature_row *w, const float *h, float total, const float *x, int directions) {
  for (int64_t d = 0; d < w->D; d++) {
    if (directions) w->out[d] = feature_dot(w->wt + d * w->ld, h, w->F);
    w->out[d] -= total * x[d];
  }
}
static void feature_favor(const feature_row *w) {
  int64_t D = w->D;
  int tangent = w->face == MICA_JVP || w->face == MICA_BACKWARD_JVP;
  int back = w->face == MICA_BACKWARD || w->face == MICA_BACKWARD_JVP;
  float half = 0.5f * feature_dot(w->x, w->x, D), square_t = tangent ? feature_dot(w->x, w->xt, D) : 0;
  float scale = (float)(1 / sqrt((double)w->F)), *h = feature_part(w, 0), total = 0, total_t = 0;
  vf sum[4] = { v_zero(), v_zero(), v_zero(), v_zero() }, sum_t[4] = { v_zero(), v_zero(), v_zero(), v_zero() };
  MICAK_COLUMNS(w->F, vf u = v_zero(), ut = v_zero(); for (int64_t d = 0; d < D; d++) {
    vf direction = micak_ld(w->wt + d * w->ld + c, n);
    u = v_fma(direction, v_set1(w->x[d]), u);
    if (tangent) ut = v_fma(direction, v_set1(w->xt[d]), ut);
  } vf y = v_exp(u - half) * scale;
                ut = ut - square_t;
                if (!back) micak_st(w->out + c, tangent ? y * ut : y, n);
                else {
                  vf g = micak_ld(w->g + c, n), e = g * y, et = v_zero();
                  if (tangent) et = v_fma(micak_ld(w->gt + c, n), y, e * ut);
                  sum[k] += e, sum_t[k] += et; /* 0 beyond n, where g is */
                  micak_st(h + c, tangent ? et : e, n);
                });
  if (!back) return;
  total = micak_sum4(sum), total_t = micak_sum4(sum_t);
  feature_favor_back(w, h, tangent ? total_t : total, w->x, 1);
  if (tangent) feature_favor_back(w, h, total, w->xt, 0);
}

/* ---- softmax, l1, l2 ---- */

static void feature_softmax(const feature_row *w) {
  int64_t D = w->D;
  float *p = w->face == MICA_FORWARD ? w->out : feature_part(w, 0);
  vf top = v_set1(-INFINITY), sum[4] = { v_zero(), v_zero(), v_zero(), v_zero() };
  vf mean[4] = { v_zero(), v_zero(), v_zero(), v_zero() }, dot[4] = { v_zero(), v_zero(), v_zero(), v_zero() };
  MICAK_COLUMNS(D, top = v_max(micak_first(micak_ld(w->x + c, n), top, n), top););
  float m = v_max_lane(top);
  MICAK_COLUMNS(D, vf e = v_exp_low(micak_ld(w->x + c, n) - m); sum[k] += micak_first(e, v_zero(), n);
                micak_st(p + c, e, n););
  float over = 1 / micak_sum4(sum);
  MICAK_COLUMNS(D, micak_st(p + c, micak_ld(p + c, n) * over, n););
  if (w->face == MICA_FORWARD) return;
  if (w->face != MICA_BACKWARD)
    MICAK_COLUMNS(D, mean[k] = v_fma(micak_ld(p + c, n), micak_ld(w->xt + c, n), mean[k]););
  if (w->face != MICA_JVP) MICAK_COLUMNS(D, dot[k] = v_fma(micak_ld(p + c, n), micak_ld(w->g + c, n), dot[k]););
  float x_mean = micak_sum4(mean), g_mean = micak_sum4(dot);
  if (w->face == MICA_JVP) {
    MICAK_COLUMNS(D, micak_st(w->out + c, micak_ld(p + c, n) * (micak_ld(w->xt + c, n) - x_mean), n););
    return;
  }
  if (w->face == MICA_BACKWARD) {
    MICAK_COLUMNS(D, micak_st(w->out + c, micak_ld(p + c, n) * (micak_ld(w->g + c, n) - g_mean), n););
    return;
  }
  vf dot_t[4] = { v_zero(), v_zero(), v_zero(), v_zero() };
  MICAK_COLUMNS(D, vf y = micak_ld(p + c, n), yt = y * (micak_ld(w->xt + c, n) - x_mean);
                dot_t[k] += micak_first(v_fma(yt, micak_ld(w->g + c, n), y * micak_ld(w->gt + c, n)), v_zero(), n););
  float g_mean_t = micak_sum4(dot_t);
  MICAK_COLUMNS(D, vf y = micak_ld(p + c, n), yt = y * (micak_ld(w->xt + c, n) - x_mean);
                micak_st(w->out + c, v_fma(yt, micak_ld(w->g + c, n) - g_mean, y * (micak_ld(w->gt + c, n) - g_mean_t)),
                         n););
}

/* s, slope s' and bend s'' of silu (or of s = x) into three parts; s_t = s' x_t into a fourth */
static inline void feature_length(const feature_row *w, int silu) {
  int64_t D = w->D;
  float *s = feature_part(w, 0), *st = feature_part(w, 1), *slope = feature_part(w, 2), *bend = feature_part(w, 3);
  int tangent = w->face == MICA_JVP || w->face == MICA_BACKWARD_JVP;
  int back = w->face == MICA_BACKWARD || w->face == MICA_BACKWARD_JVP;
  MICAK_COLUMNS(D, vf x = micak_ld(w->x + c, n), p = silu ? 1.0f / (1.0f + v_exp(v_zero() - x)) : v_set1(1);
                vf q = p * (1.0f - p);
                vf first = v_fma(x, q, p); micak_st(s + c, x * p, n); micak_st(slope + c, first, n);
                micak_st(bend + c, q * v_fma(x, v_fma(v_set1(-2), p, v_set1(1)), v_set1(2)), n);
                if (tangent) micak_st(st + c, first * micak_ld(w->xt + c, n), n););
  float r = 1 / sqrtf(feature_dot(s, s, D) + (float)w->a->eps), cube = r * r * r;
  float rt = tangent ? -cube * feature_dot(s, st, D) : 0;
  if (!back) {
    MICAK_COLUMNS(D, vf y = micak_ld(s + c, n) * (tangent ? rt : r);
                  micak_st(w->out + c, tangent ? v_fma(v_set1(r), micak_ld(st + c, n), y) : y, n););
    return;
  }
  float dot = feature_dot(s, w->g, D);
  if (!tangent) {
    MICAK_COLUMNS(D, vf ds = v_fma(v_set1(r), micak_ld(w->g + c, n), micak_ld(s + c, n) * (-cube * dot));
                  micak_st(w->out + c, micak_ld(slope + c, n) * ds, n););
    return;
  }
  float dot_t = feature_dot(st, w->g, D) + feature_dot(s, w->gt, D), of_s = -(3 * r * r * rt * dot + cube * dot_t);
  MICAK_COLUMNS(D, vf g = micak_ld(w->g + c, n), y = micak_ld(s + c, n);
                vf ds = v_fma(v_set1(r), g, y * (-cube * dot));
                vf ds_t = v_fma(v_set1(r), micak_ld(w->gt + c, n), g * rt);
                ds_t = v_fma(y, v_set1(of_s), v_fma(micak_ld(st + c, n), v_set1(-cube * dot), ds_t));
                micak_st(w->out + c, v_fma(micak_ld(bend + c, n) * micak_ld(w->xt + c, n), ds,
                                           micak_ld(slope + c, n) * ds_t), n););
}

static void feature_silu_l2(const feature_row *w) { feature_length(w, 1); }
static void feature_l2(const feature_row *w) { feature_length(w, 0); }

/* a lane beyond n is 0, and so is its sign */
static inline vf feature_sign(vf x) { return v_keep(v_gt(x, v_zero()), v_set1(1)) - v_keep(v_lt(x, v_zero()), v_set1(1)); }
static void feature_l1(const feature_row *w) {
  int64_t D = w->D;
  int tangent = w->face == MICA_JVP || w->face == MICA_BACKWARD_JVP;
  int back = w->face == MICA_BACKWARD || w->face == MICA_BACKWARD_JVP;
  vf sum[4] = { v_zero(), v_zero(), v_zero(), v_zero() }, sum_t[4] = { v_zero(), v_zero(), v_zero(), v_zero() };
  MICAK_COLUMNS(D, vf x = micak_ld(w->x + c, n), r = feature_sign(x); sum[k] = v_fma(r, x, sum[k]);
                if (tangent) sum_t[k] = v_fma(r, micak_ld(w->xt + c, n), sum_t[k]););
  float over = 1 / (micak_sum4(sum) + (float)w->a->eps), s_t = tangent ? micak_sum4(sum_t) : 0;
  if (!back) {
    MICAK_COLUMNS(D, vf y = micak_ld(w->x + c, n) * over;
                  micak_st(w->out + c, tangent ? (micak_ld(w->xt + c, n) - y * s_t) * over : y, n););
    return;
  }
  float dot = feature_dot(w->g, w->x, D) * over, dot_t = 0;
  if (tangent)
    dot_t = (feature_dot(w->gt, w->x, D) + feature_dot(w->g, w->xt, D) - dot * s_t) * over;
  MICAK_COLUMNS(D, vf r = feature_sign(micak_ld(w->x + c, n)), d = (micak_ld(w->g + c, n) - r * dot) * over;
                vf d_t = tangent ? (micak_ld(w->gt + c, n) - r * dot_t - d * s_t) * over : d;
                micak_st(w->out + c, d_t, n););
}

/* ---- rows ---- */

typedef struct feature_call {
  const mica_feature_map_args *a;
  feature_row row;
  float *buffer;                             /* copies of rows that do not lie side by side */
} feature_call;

static int64_t feature_room(const mica_feature_map_args *a) {
  int64_t n = a->F > 4 * a->D ? a->F : 4 * a->D;
  return (n + 31) / 16 * 16;
}
static micak_plane feature_head(const mica_port *port, int bit, int64_t b, int64_t h) {
  const mica_wire *w = micak_wire((mica_port *)(uintptr_t)port, bit);
  if (!w->data) return (micak_plane){ NULL, 0, 0, 0 };
  micak_plane p = micak_plane_at(w, port->offsets, b, w->stride[0], w->stride[2]);
  if (p.at) p.at += h * w->stride[1];
  return p;
}
static void feature_put(void *to, int64_t m, int64_t d, double w) {
  feature_row *row = to;
  ((float *)(uintptr_t)row->wt)[d * row->ld + m] = (float)w;
}

static mica_status feature_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  static const feature_fn maps[FEATURE_MAPS] = { feature_identity, feature_elu1,    feature_dpfp,
                                                 feature_favor,    feature_softmax, feature_silu_l2,
                                                 feature_l1,       feature_l2 };
  static const int out_bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  const feature_call *call = args;
  const mica_feature_map_args *a = call->a;
  feature_row w = call->row;
  int back = w.face == MICA_BACKWARD || w.face == MICA_BACKWARD_JVP;
  int tangent = w.face == MICA_JVP || w.face == MICA_BACKWARD_JVP;
  (void)scratch;
  for (int64_t h = 0; h < a->H; h++) {
    micak_plane none = { NULL, 0, 0, 0 }, x = feature_head(&a->x, MICA_V, b, h);
    micak_plane xt = tangent ? feature_head(&a->x, MICA_T, b, h) : none;
    micak_plane g = back ? feature_head(&a->y, MICA_D, b, h) : none;
    micak_plane gt = back && tangent ? feature_head(&a->y, MICA_TD, b, h) : none;
    micak_plane out = feature_head(back ? &a->x : &a->y, out_bit[w.face], b, h);
    int64_t n = back ? a->D : a->F;
    for (int64_t r = r0; r < r1 && out.at; r++) {
      w.x = micak_row_in(&x, r, a->D, call->buffer);
      if (tangent) w.xt = micak_row_in(&xt, r, a->D, call->buffer + w.room);
      if (back) w.g = micak_row_in(&g, r, a->F, call->buffer + 2 * w.room);
      if (back && tangent) w.gt = micak_row_in(&gt, r, a->F, call->buffer + 3 * w.room);
      w.out = micak_row_out(&out, r, call->buffer + 4 * w.room);
      maps[a->map](&w);
      micak_row_done(&out, r, n, w.out);
    }
  }
  return MICA_OK;
}

static mica_status feature_run(const mica_exec *exec, const mica_feature_map_args *a, int face, int64_t first,
                               int64_t count) {
  feature_call call = { .a = a };
  float *at = exec->scratch;
  const mica_port *ports[] = { face == MICA_FORWARD || face == MICA_JVP ? &a->y : &a->x };
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  call.row = (feature_row){ .a = a, .D = a->D, .F = a->F, .face = face, .room = feature_room(a),
                            .ld = (a->F + 15) / 16 * 16 };
  call.buffer = at, at += 5 * call.row.room;
  call.row.scratch = at, at += 5 * call.row.room;
  if (a->map == FEATURE_FAVOR) {
    double *block = (double *)(void *)at;
    call.row.wt = (float *)(block + (feature_block(a) + 7) / 8 * 8);
    feature_directions(a, block, feature_put, &call.row);
  }
  return micak_walk_rows(a->x.offsets, a->B, a->T, micak_ports_sum(ports, 1, bit[face], a->B), first, count,
                         feature_rows, &call, NULL);
}
CPU_KERNEL(feature_map_forward) { return feature_run(exec, args, MICA_FORWARD, first, count); }
CPU_KERNEL(feature_map_backward) { return feature_run(exec, args, MICA_BACKWARD, first, count); }
CPU_KERNEL(feature_map_jvp) { return feature_run(exec, args, MICA_JVP, first, count); }
CPU_KERNEL(feature_map_backward_jvp) { return feature_run(exec, args, MICA_BACKWARD_JVP, first, count); }
