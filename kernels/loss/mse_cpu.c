/* mse on the CPU: row-local faces */
#include "common/columns.h"
#include "common/isa.h"
#include "loss/loss_internal.h"

#define ROWS(port, wire) micak_plane_rows(&a->port.wire, a->port.offsets, b)
#define BUFFER(i) (scratch + (i) * C)

static float weight_of(const mica_port *weight, const micak_plane *p, int64_t r) {
  return weight->v.data ? micak_cell(p, r) : 1;
}

static mica_status mse_forward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_mse_args *a = args;
  const int64_t C = a->C;
  const float part = a->reduction == MICA_MSE_MEAN ? 1 / (float)C : 1;
  micak_plane pred = ROWS(pred, v), target = ROWS(target, v), weight = ROWS(weight, v), loss = ROWS(loss, v);
  for (int64_t r = r0; r < r1; r++) {
    const float *x = micak_row_in(&pred, r, C, BUFFER(0)), *y = micak_row_in(&target, r, C, BUFFER(1));
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, vf e = micak_ld(x + c, n) - micak_ld(y + c, n); s[k] = v_fma(e, e, s[k]););
    micak_put_cell(&loss, r, weight_of(&a->weight, &weight, r) * part * micak_sum4(s));
  }
  return MICA_OK;
}

static mica_status mse_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_mse_args *a = args;
  const int64_t C = a->C;
  const float part = a->reduction == MICA_MSE_MEAN ? 1 / (float)C : 1;
  micak_plane pred = ROWS(pred, v), target = ROWS(target, v), pred_t = ROWS(pred, t), target_t = ROWS(target, t);
  micak_plane weight = ROWS(weight, v), weight_t = ROWS(weight, t), loss_t = ROWS(loss, t);
  for (int64_t r = r0; r < r1; r++) {
    const float *x = micak_row_in(&pred, r, C, BUFFER(0)), *y = micak_row_in(&target, r, C, BUFFER(1));
    const float *xt = micak_row_in(&pred_t, r, C, BUFFER(2)), *yt = micak_row_in(&target_t, r, C, BUFFER(3));
    vf s[4] = { { 0 } }, t[4] = { { 0 } };
    MICAK_COLUMNS(C, vf e = micak_ld(x + c, n) - micak_ld(y + c, n); s[k] = v_fma(e, e, s[k]);
                  t[k] = v_fma(e, micak_ld(xt + c, n) - micak_ld(yt + c, n), t[k]););
    float w = weight_of(&a->weight, &weight, r), w_t = micak_cell(&weight_t, r);
    micak_put_cell(&loss_t, r, part * (w_t * micak_sum4(s) + 2 * w * micak_sum4(t)));
  }
  return MICA_OK;
}

static mica_status mse_backward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_mse_args *a = args;
  const int64_t C = a->C;
  const float part = a->reduction == MICA_MSE_MEAN ? 1 / (float)C : 1;
  micak_plane pred = ROWS(pred, v), target = ROWS(target, v), weight = ROWS(weight, v), loss_d = ROWS(loss, d);
  micak_plane pred_d = ROWS(pred, d), target_d = ROWS(target, d), weight_d = ROWS(weight, d);
  for (int64_t r = r0; r < r1; r++) {
    const float *x = micak_row_in(&pred, r, C, BUFFER(0)), *y = micak_row_in(&target, r, C, BUFFER(1));
    float *dx = micak_row_out(&pred_d, r, BUFFER(2)), *dy = micak_row_out(&target_d, r, BUFFER(3));
    float dl = micak_cell(&loss_d, r), g = 2 * part * weight_of(&a->weight, &weight, r) * dl;
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, vf e = micak_ld(x + c, n) - micak_ld(y + c, n); s[k] = v_fma(e, e, s[k]);
                  micak_st(dx + c, e * g, n); micak_st(dy + c, e * -g, n););
    micak_row_done(&pred_d, r, C, dx);
    micak_row_done(&target_d, r, C, dy);
    micak_put_cell(&weight_d, r, part * micak_sum4(s) * dl);
  }
  return MICA_OK;
}

static mica_status mse_backward_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_mse_args *a = args;
  const int64_t C = a->C;
  const float part = a->reduction == MICA_MSE_MEAN ? 1 / (float)C : 1;
  micak_plane pred = ROWS(pred, v), target = ROWS(target, v), pred_t = ROWS(pred, t), target_t = ROWS(target, t);
  micak_plane weight = ROWS(weight, v), weight_t = ROWS(weight, t), loss_d = ROWS(loss, d), loss_td = ROWS(loss, td);
  micak_plane pred_td = ROWS(pred, td), target_td = ROWS(target, td), weight_td = ROWS(weight, td);
  for (int64_t r = r0; r < r1; r++) {
    const float *x = micak_row_in(&pred, r, C, BUFFER(0)), *y = micak_row_in(&target, r, C, BUFFER(1));
    const float *xt = micak_row_in(&pred_t, r, C, BUFFER(2)), *yt = micak_row_in(&target_t, r, C, BUFFER(3));
    float *dx = micak_row_out(&pred_td, r, BUFFER(4)), *dy = micak_row_out(&target_td, r, BUFFER(5));
    float w = weight_of(&a->weight, &weight, r), w_t = micak_cell(&weight_t, r);
    float dl = micak_cell(&loss_d, r), dl_t = micak_cell(&loss_td, r);
    float g = 2 * part * w * dl, g_t = 2 * part * (w_t * dl + w * dl_t);
    vf s[4] = { { 0 } }, t[4] = { { 0 } };
    MICAK_COLUMNS(C, vf e = micak_ld(x + c, n) - micak_ld(y + c, n); vf e_t = micak_ld(xt + c, n) - micak_ld(yt + c, n);
                  s[k] = v_fma(e, e, s[k]); t[k] = v_fma(e, e_t, t[k]); vf d = v_fma(e, v_set1(g_t), e_t * g);
                  micak_st(dx + c, d, n); micak_st(dy + c, -d, n););
    micak_row_done(&pred_td, r, C, dx);
    micak_row_done(&target_td, r, C, dy);
    micak_put_cell(&weight_td, r, part * (2 * micak_sum4(t) * dl + micak_sum4(s) * dl_t));
  }
  return MICA_OK;
}

#define ENTRY(face, FACE)                                                                                              \
  CPU_KERNEL(mse_##face) {                                                                                             \
    const mica_mse_args *a = args;                                                                                     \
    return micak_walk_rows(a->pred.offsets, a->B, a->R, mse_sums(a, FACE), first, count, mse_##face##_rows, args,      \
                           exec->scratch);                                                                             \
  }
ENTRY(forward, MICA_FORWARD)
ENTRY(backward, MICA_BACKWARD)
ENTRY(jvp, MICA_JVP)
ENTRY(backward_jvp, MICA_BACKWARD_JVP)
