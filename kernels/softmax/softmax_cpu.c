/* softmax and log_softmax on the CPU: row-local faces */
#include "common/columns.h"
#include "common/isa.h"
#include "common/rows.h"
#include "softmax/softmax.h"

#define ROWS(port, wire) micak_plane_rows(&a->port.wire, a->port.offsets, b)
#define BUFFER(i) (scratch + (i) * C)

static float largest(const float *x, int64_t C) {
  vf top = v_set1(-INFINITY);
  for (int64_t c = 0; c < C; c += VW) {
    int64_t n = C - c < VW ? C - c : VW;
    top = v_max(micak_first(micak_ld(x + c, n), top, n), top);
  }
  return v_max_lane(top);
}

static mica_status softmax_forward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_softmax_args *a = args;
  const int64_t C = a->C;
  micak_plane x = ROWS(x, v), y = ROWS(y, v);
  for (int64_t r = r0; r < r1; r++) {
    const float *in = micak_row_in(&x, r, C, BUFFER(0));
    float *out = micak_row_out(&y, r, BUFFER(1)), top = largest(in, C);
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, vf e = v_exp_low(micak_ld(in + c, n) - top); micak_st(out + c, e, n);
                  s[k] += micak_first(e, v_zero(), n););
    float over = 1 / micak_sum4(s);
    MICAK_COLUMNS(C, micak_st(out + c, micak_ld(out + c, n) * over, n););
    micak_row_done(&y, r, C, out);
  }
  return MICA_OK;
}
static mica_status log_softmax_forward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_softmax_args *a = args;
  const int64_t C = a->C;
  micak_plane x = ROWS(x, v), y = ROWS(y, v);
  for (int64_t r = r0; r < r1; r++) {
    const float *in = micak_row_in(&x, r, C, BUFFER(0));
    float *out = micak_row_out(&y, r, BUFFER(1)), top = largest(in, C);
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, s[k] += micak_first(v_exp_low(micak_ld(in + c, n) - top), v_zero(), n););
    float lse = top + v_log(v_set1(micak_sum4(s)))[0];
    MICAK_COLUMNS(C, micak_st(out + c, micak_ld(in + c, n) - lse, n););
    micak_row_done(&y, r, C, out);
  }
  return MICA_OK;
}

/* out = p (g - sum p g): softmax backward and, the Jacobian being symmetric, its jvp */
static mica_status softmax_linear(const mica_softmax_args *a, micak_plane from, micak_plane to, int64_t b, int64_t r0,
                                  int64_t r1, float *scratch) {
  const int64_t C = a->C;
  micak_plane y = ROWS(y, v);
  for (int64_t r = r0; r < r1; r++) {
    const float *p = micak_row_in(&y, r, C, BUFFER(0)), *g = micak_row_in(&from, r, C, BUFFER(1));
    float *out = micak_row_out(&to, r, BUFFER(2));
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, s[k] = v_fma(micak_ld(p + c, n), micak_ld(g + c, n), s[k]););
    float sum = micak_sum4(s);
    MICAK_COLUMNS(C, micak_st(out + c, micak_ld(p + c, n) * (micak_ld(g + c, n) - sum), n););
    micak_row_done(&to, r, C, out);
  }
  return MICA_OK;
}
static mica_status softmax_backward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_softmax_args *a = args;
  return softmax_linear(a, ROWS(y, d), ROWS(x, d), b, r0, r1, scratch);
}
static mica_status softmax_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_softmax_args *a = args;
  return softmax_linear(a, ROWS(x, t), ROWS(y, t), b, r0, r1, scratch);
}
static mica_status softmax_backward_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_softmax_args *a = args;
  const int64_t C = a->C;
  micak_plane y = ROWS(y, v), y_t = ROWS(y, t), dy = ROWS(y, d), dy_t = ROWS(y, td), dx_t = ROWS(x, td);
  for (int64_t r = r0; r < r1; r++) {
    const float *p = micak_row_in(&y, r, C, BUFFER(0)), *p_t = micak_row_in(&y_t, r, C, BUFFER(1));
    const float *g = micak_row_in(&dy, r, C, BUFFER(2)), *g_t = micak_row_in(&dy_t, r, C, BUFFER(3));
    float *out = micak_row_out(&dx_t, r, BUFFER(4));
    vf s[4] = { { 0 } }, t[4] = { { 0 } };
    MICAK_COLUMNS(C, vf gv = micak_ld(g + c, n); vf pv = micak_ld(p + c, n); s[k] = v_fma(pv, gv, s[k]);
                  t[k] = v_fma(micak_ld(p_t + c, n), gv, v_fma(pv, micak_ld(g_t + c, n), t[k])););
    float sum = micak_sum4(s), sum_t = micak_sum4(t);
    MICAK_COLUMNS(C, vf first = micak_ld(p_t + c, n) * (micak_ld(g + c, n) - sum);
                  micak_st(out + c, v_fma(micak_ld(p + c, n), micak_ld(g_t + c, n) - sum_t, first), n););
    micak_row_done(&dx_t, r, C, out);
  }
  return MICA_OK;
}

static mica_status log_softmax_backward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_softmax_args *a = args;
  const int64_t C = a->C;
  micak_plane y = ROWS(y, v), dy = ROWS(y, d), dx = ROWS(x, d);
  for (int64_t r = r0; r < r1; r++) {
    const float *yr = micak_row_in(&y, r, C, BUFFER(0)), *g = micak_row_in(&dy, r, C, BUFFER(1));
    float *out = micak_row_out(&dx, r, BUFFER(2));
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, s[k] += micak_ld(g + c, n););
    vf sum = v_set1(micak_sum4(s));
    MICAK_COLUMNS(C, micak_st(out + c, v_fma(-v_exp_low(micak_ld(yr + c, n)), sum, micak_ld(g + c, n)), n););
    micak_row_done(&dx, r, C, out);
  }
  return MICA_OK;
}
static mica_status log_softmax_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_softmax_args *a = args;
  const int64_t C = a->C;
  micak_plane y = ROWS(y, v), x_t = ROWS(x, t), y_t = ROWS(y, t);
  for (int64_t r = r0; r < r1; r++) {
    const float *yr = micak_row_in(&y, r, C, BUFFER(0)), *t = micak_row_in(&x_t, r, C, BUFFER(1));
    float *out = micak_row_out(&y_t, r, BUFFER(2));
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, s[k] = v_fma(v_exp_low(micak_ld(yr + c, n)), micak_ld(t + c, n), s[k]););
    float sum = micak_sum4(s);
    MICAK_COLUMNS(C, micak_st(out + c, micak_ld(t + c, n) - sum, n););
    micak_row_done(&y_t, r, C, out);
  }
  return MICA_OK;
}
static mica_status log_softmax_backward_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_softmax_args *a = args;
  const int64_t C = a->C;
  micak_plane y = ROWS(y, v), y_t = ROWS(y, t), dy = ROWS(y, d), dy_t = ROWS(y, td), dx_t = ROWS(x, td);
  for (int64_t r = r0; r < r1; r++) {
    const float *yr = micak_row_in(&y, r, C, BUFFER(0)), *yt = micak_row_in(&y_t, r, C, BUFFER(1));
    const float *g = micak_row_in(&dy, r, C, BUFFER(2)), *g_t = micak_row_in(&dy_t, r, C, BUFFER(3));
    float *out = micak_row_out(&dx_t, r, BUFFER(4));
    vf s[4] = { { 0 } }, t[4] = { { 0 } };
    MICAK_COLUMNS(C, s[k] += micak_ld(g + c, n); t[k] += micak_ld(g_t + c, n););
    vf sum = v_set1(micak_sum4(s)), sum_t = v_set1(micak_sum4(t));
    MICAK_COLUMNS(C, vf p = v_exp_low(micak_ld(yr + c, n));
                  micak_st(out + c, v_fma(-p, v_fma(micak_ld(yt + c, n), sum, sum_t), micak_ld(g_t + c, n)), n););
    micak_row_done(&dx_t, r, C, out);
  }
  return MICA_OK;
}

#define ENTRY(op, face, port, bit)                                                                                     \
  CPU_KERNEL(op##_##face) {                                                                                            \
    const mica_softmax_args *a = args;                                                                                 \
    const mica_port *outputs[] = { &a->port };                                                                         \
    return micak_walk_rows(a->x.offsets, a->B, a->R, micak_ports_sum(outputs, 1, bit, a->B), first, count,             \
                           op##_##face##_rows, args, exec->scratch);                                                   \
  }
#define ENTRIES(op)                        \
  ENTRY(op, forward, y, MICA_V)            \
  ENTRY(op, backward, x, MICA_D)           \
  ENTRY(op, jvp, y, MICA_T)                \
  ENTRY(op, backward_jvp, x, MICA_TD)
ENTRIES(softmax)
ENTRIES(log_softmax)
