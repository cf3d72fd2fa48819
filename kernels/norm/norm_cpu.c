/* layernorm and rmsnorm on the CPU: four row-local faces and the sums of the parameter gradients */
#include "common/columns.h"
#include "common/isa.h"
#include "norm/norm_internal.h"

#define INLINE static inline __attribute__((always_inline))

/* w of task b; ones where absent */
INLINE const float *weight_row(const mica_norm_args *a, int64_t b, float *buffer) {
  if (!a->w.v.data) {
    for (int64_t c = 0; c < a->C; c++) buffer[c] = 1;
    return buffer;
  }
  micak_plane w = micak_plane_param(&a->w.v, b);
  return micak_row_in(&w, 0, a->C, buffer);
}
INLINE const float *param_row(const mica_norm_args *a, const mica_wire *wire, int64_t b, float *buffer) {
  micak_plane p = micak_plane_param(wire, b);
  return micak_row_in(&p, 0, a->C, buffer);
}
#define ROWS(port, wire) micak_plane_rows(&a->port.wire, a->port.offsets, b)
#define BUFFER(i) (scratch + (i) * C)

INLINE mica_status forward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch,
                                const int centered) {
  const mica_norm_args *a = args;
  const int64_t C = a->C;
  const float *w = weight_row(a, b, BUFFER(0)), *bias = param_row(a, &a->b.v, b, BUFFER(1));
  micak_plane x = ROWS(x, v), y = ROWS(y, v), mean_out = ROWS(mean, v), rstd_out = ROWS(rstd, v);
  for (int64_t r = r0; r < r1; r++) {
    const float *xr = micak_row_in(&x, r, C, BUFFER(2));
    float *yr = micak_row_out(&y, r, BUFFER(3)), mean = 0;
    if (centered) {
      vf s[4] = { { 0 } };
      MICAK_COLUMNS(C, s[k] += micak_ld(xr + c, n););
      mean = micak_sum4(s) / (float)C;
      micak_put_cell(&mean_out, r, mean);
    }
    vf s[4] = { { 0 } }, m = v_set1(mean);
    MICAK_COLUMNS(C, vf e = micak_first(micak_ld(xr + c, n) - m, v_zero(), n); s[k] = v_fma(e, e, s[k]););
    float rstd = 1.0f / sqrtf(micak_sum4(s) / (float)C + (float)a->eps);
    micak_put_cell(&rstd_out, r, rstd);
    MICAK_COLUMNS(C, micak_st(yr + c, v_fma((micak_ld(xr + c, n) - m) * rstd, micak_ld(w + c, n),
                                            micak_ld(bias + c, n)), n););
    micak_row_done(&y, r, C, yr);
  }
  return MICA_OK;
}

INLINE mica_status backward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch,
                                 const int centered) {
  const mica_norm_args *a = args;
  const int64_t C = a->C;
  const float *w = weight_row(a, b, BUFFER(0));
  micak_plane x = ROWS(x, v), dy = ROWS(y, d), dx = ROWS(x, d), mean_in = ROWS(mean, v), rstd_in = ROWS(rstd, v);
  for (int64_t r = r0; r < r1; r++) {
    const float *xr = micak_row_in(&x, r, C, BUFFER(1)), *dyr = micak_row_in(&dy, r, C, BUFFER(2));
    float *out = micak_row_out(&dx, r, BUFFER(3));
    float mean = centered ? micak_cell(&mean_in, r) : 0, rstd = micak_cell(&rstd_in, r);
    vf s1[4] = { { 0 } }, s2[4] = { { 0 } };
    MICAK_COLUMNS(C, vf g = micak_ld(dyr + c, n) * micak_ld(w + c, n); vf e = micak_ld(xr + c, n) - mean;
                  s1[k] += g; s2[k] = v_fma(g, e, s2[k]););
    float g1 = centered ? micak_sum4(s1) / (float)C : 0, g2 = micak_sum4(s2) / (float)C * rstd * rstd;
    MICAK_COLUMNS(C, vf g = micak_ld(dyr + c, n) * micak_ld(w + c, n) - g1; vf e = micak_ld(xr + c, n) - mean;
                  micak_st(out + c, v_fma(e, v_set1(-g2), g) * rstd, n););
    micak_row_done(&dx, r, C, out);
  }
  return MICA_OK;
}

INLINE mica_status jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch, const int centered) {
  const mica_norm_args *a = args;
  const int64_t C = a->C;
  const float *w = weight_row(a, b, BUFFER(0)), *w_t = param_row(a, &a->w.t, b, BUFFER(1));
  const float *b_t = param_row(a, &a->b.t, b, BUFFER(2));
  micak_plane x = ROWS(x, v), x_t = ROWS(x, t), y_t = ROWS(y, t), mean_in = ROWS(mean, v), rstd_in = ROWS(rstd, v);
  micak_plane mean_out = ROWS(mean, t), rstd_out = ROWS(rstd, t);
  for (int64_t r = r0; r < r1; r++) {
    const float *xr = micak_row_in(&x, r, C, BUFFER(3)), *xt = micak_row_in(&x_t, r, C, BUFFER(4));
    float *out = micak_row_out(&y_t, r, BUFFER(5));
    float mean = centered ? micak_cell(&mean_in, r) : 0, rstd = micak_cell(&rstd_in, r), mean_t = 0;
    if (centered) {
      vf s[4] = { { 0 } };
      MICAK_COLUMNS(C, s[k] += micak_ld(xt + c, n););
      mean_t = micak_sum4(s) / (float)C;
      micak_put_cell(&mean_out, r, mean_t);
    }
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, vf e = micak_first(micak_ld(xr + c, n) - mean, v_zero(), n);
                  s[k] = v_fma(e, micak_ld(xt + c, n) - mean_t, s[k]););
    float q = micak_sum4(s) / (float)C * rstd;
    micak_put_cell(&rstd_out, r, -rstd * rstd * q);
    MICAK_COLUMNS(C, vf xh = (micak_ld(xr + c, n) - mean) * rstd;
                  vf xh_t = v_fma(xh, v_set1(-q), micak_ld(xt + c, n) - mean_t) * rstd;
                  micak_st(out + c, v_fma(xh_t, micak_ld(w + c, n), v_fma(xh, micak_ld(w_t + c, n),
                                                                          micak_ld(b_t + c, n))), n););
    micak_row_done(&y_t, r, C, out);
  }
  return MICA_OK;
}

INLINE mica_status backward_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch,
                                     const int centered) {
  const mica_norm_args *a = args;
  const int64_t C = a->C;
  const float *w = weight_row(a, b, BUFFER(0)), *w_t = param_row(a, &a->w.t, b, BUFFER(1));
  micak_plane x = ROWS(x, v), x_t = ROWS(x, t), dy = ROWS(y, d), dy_t = ROWS(y, td), dx_t = ROWS(x, td);
  micak_plane mean_v = ROWS(mean, v), rstd_v = ROWS(rstd, v), mean_d = ROWS(mean, t), rstd_d = ROWS(rstd, t);
  for (int64_t r = r0; r < r1; r++) {
    const float *xr = micak_row_in(&x, r, C, BUFFER(2)), *xt = micak_row_in(&x_t, r, C, BUFFER(3));
    const float *dyr = micak_row_in(&dy, r, C, BUFFER(4)), *dyt = micak_row_in(&dy_t, r, C, BUFFER(5));
    float *out = micak_row_out(&dx_t, r, BUFFER(6));
    float mean = centered ? micak_cell(&mean_v, r) : 0, mean_t = centered ? micak_cell(&mean_d, r) : 0;
    float rstd = micak_cell(&rstd_v, r), rstd_t = micak_cell(&rstd_d, r);
    vf s1[4] = { { 0 } }, s2[4] = { { 0 } }, t1[4] = { { 0 } }, t2[4] = { { 0 } };
#define HVP_ROW                                                                                        \
  vf wv = micak_ld(w + c, n), dyv = micak_ld(dyr + c, n), e = micak_ld(xr + c, n) - mean;              \
  vf xh = e * rstd, xh_t = v_fma(micak_ld(xt + c, n) - mean_t, v_set1(rstd), e * rstd_t);              \
  vf g = dyv * wv, g_t = v_fma(micak_ld(dyt + c, n), wv, dyv * micak_ld(w_t + c, n))
    MICAK_COLUMNS(C, HVP_ROW; s1[k] += g; s2[k] = v_fma(g, xh, s2[k]); t1[k] += g_t;
                  t2[k] = v_fma(g_t, xh, v_fma(g, xh_t, t2[k])););
    float over = 1.0f / (float)C;
    float g1 = centered ? micak_sum4(s1) * over : 0, h1 = centered ? micak_sum4(t1) * over : 0;
    float g2 = micak_sum4(s2) * over, h2 = micak_sum4(t2) * over;
    MICAK_COLUMNS(C, HVP_ROW; vf p = g - g1 - xh * g2; vf q = g_t - h1 - xh_t * g2 - xh * h2;
                  micak_st(out + c, v_fma(p, v_set1(rstd_t), q * rstd), n););
#undef HVP_ROW
    micak_row_done(&dx_t, r, C, out);
  }
  return MICA_OK;
}

/* ---- parameter gradients ---- */

enum { NV = 4 };                             /* vectors of columns a walk over the rows carries */

typedef struct row_source { micak_plane x, x_t, dy, dy_t, mean, rstd, mean_t, rstd_t; } row_source;

/* columns [c0, c0 + width) of row r, as NV vectors; absent wires give zeros */
INLINE const float *part(const micak_plane *p, int64_t r, int64_t c0, int64_t width, float *buffer) {
  micak_plane q = *p;
  if (q.at) q.at += c0 * q.col;
  return micak_row_in(&q, r, width, buffer);
}

/* sums over the rows of tasks [begin, end) of dy x^ (w) and dy (b), or of their tangents, `width` <= NV VW columns */
INLINE void sum_rows(const mica_norm_args *a, int64_t begin, int64_t end, int64_t c0, int64_t width, vf w_sum[NV],
                     vf b_sum[NV], const int centered, const int second) {
  float buffer[4][NV * VW];
  for (int64_t b = begin; b < end; b++) {
    int64_t R = micak_rows(a->x.offsets, b, a->R);
    row_source s = { ROWS(x, v), ROWS(x, t), ROWS(y, d), ROWS(y, td), ROWS(mean, v), ROWS(rstd, v), ROWS(mean, t),
                     ROWS(rstd, t) };
    for (int64_t r0 = 0; r0 < R; r0 += NORM_BLOCK) {
      vf w[NV] = { { 0 } }, bias[NV] = { { 0 } };
      int64_t r1 = r0 + NORM_BLOCK < R ? r0 + NORM_BLOCK : R;
      for (int64_t r = r0; r < r1; r++) {
        const float *x = part(&s.x, r, c0, width, buffer[0]), *dy = part(&s.dy, r, c0, width, buffer[1]);
        const float *xt = second ? part(&s.x_t, r, c0, width, buffer[2]) : x;
        const float *dyt = second ? part(&s.dy_t, r, c0, width, buffer[3]) : dy;
        float mean = centered ? micak_cell(&s.mean, r) : 0, rstd = micak_cell(&s.rstd, r);
        float mean_t = second && centered ? micak_cell(&s.mean_t, r) : 0;
        float rstd_t = second ? micak_cell(&s.rstd_t, r) : 0;
#define SUM_COLUMN(i, n)                                                                            \
  vf e = micak_ld(x + (i) * VW, n) - mean, xh = e * rstd, dyv = micak_ld(dy + (i) * VW, n);         \
  if (second) {                                                                                     \
    vf xh_t = v_fma(micak_ld(xt + (i) * VW, n) - mean_t, v_set1(rstd), e * rstd_t);                 \
    vf dytv = micak_ld(dyt + (i) * VW, n);                                                          \
    w[i] = v_fma(dytv, xh, v_fma(dyv, xh_t, w[i]));                                                 \
    bias[i] += dytv;                                                                                \
  } else {                                                                                          \
    w[i] = v_fma(dyv, xh, w[i]);                                                                    \
    bias[i] += dyv;                                                                                 \
  }
        if (width == NV * VW) {
          _Pragma("GCC unroll 4") for (int i = 0; i < NV; i++) { SUM_COLUMN(i, VW) }
        } else {
          for (int i = 0; i * VW < width; i++) {
            int64_t n = width - i * VW < VW ? width - i * VW : VW;
            SUM_COLUMN(i, n)
          }
        }
#undef SUM_COLUMN
      }
      for (int i = 0; i < NV; i++) w_sum[i] += w[i], b_sum[i] += bias[i];
    }
  }
}

INLINE void put_columns(const mica_wire *wire, int64_t begin, int64_t c0, int64_t width, const vf sum[NV]) {
  micak_plane p = micak_plane_param(wire, begin);
  if (!p.at) return;
  float value[NV * VW];
  memcpy(value, sum, sizeof value);
  p.at += c0 * p.col;
  micak_row_done(&p, 0, width, value);
}

INLINE mica_status params(const void *args, int64_t first, int64_t count, const int centered, const int second) {
  const mica_norm_args *a = args;
  norm_cut cut = norm_cut_of(a, second ? MICA_BACKWARD_JVP : MICA_BACKWARD);
  for (int64_t u = first; u < first + count; u++) {
    int of_b = u >= cut.w_units;
    int64_t local = of_b ? u - cut.w_units : u, begin, end;
    micak_group(of_b ? cut.b : cut.w, a->B, local / cut.blocks, &begin, &end);
    int64_t c1 = (local % cut.blocks + 1) * NORM_BLOCK;
    if (c1 > a->C) c1 = a->C;
    for (int64_t c = local % cut.blocks * NORM_BLOCK; c < c1; c += NV * VW) {
      int64_t width = c1 - c < NV * VW ? c1 - c : NV * VW;
      vf w[NV] = { { 0 } }, bias[NV] = { { 0 } };
      sum_rows(a, begin, end, c, width, w, bias, centered, second);
      if (!of_b) put_columns(cut.w, begin, c, width, w);
      if (of_b || cut.fused) put_columns(cut.b, begin, c, width, bias);
    }
  }
  return MICA_OK;
}

/* ---- entries ---- */

#define ROWS_FACE(op, face, FACE, centered)                                                                            \
  static mica_status op##_##face##_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {         \
    return face##_rows(args, b, r0, r1, scratch, centered);                                                            \
  }                                                                                                                    \
  CPU_KERNEL(op##_##face) {                                                                                            \
    const mica_norm_args *a = args;                                                                                    \
    return micak_walk_rows(a->x.offsets, a->B, a->R, norm_sums(a, FACE), first, count, op##_##face##_rows, args,       \
                           exec->scratch);                                                                             \
  }
#define NORM_ENTRIES(op, centered)                                                                                     \
  ROWS_FACE(op, forward, MICA_FORWARD, centered)                                                                       \
  ROWS_FACE(op, backward, MICA_BACKWARD, centered)                                                                     \
  ROWS_FACE(op, jvp, MICA_JVP, centered)                                                                               \
  ROWS_FACE(op, backward_jvp, MICA_BACKWARD_JVP, centered)                                                             \
  CPU_KERNEL(op##_backward_params) { return (void)exec, params(args, first, count, centered, 0); }                     \
  CPU_KERNEL(op##_backward_jvp_params) { return (void)exec, params(args, first, count, centered, 1); }

NORM_ENTRIES(layernorm, 1)
NORM_ENTRIES(rmsnorm, 0)
