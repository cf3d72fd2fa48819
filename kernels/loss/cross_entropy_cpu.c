/* cross_entropy on the CPU: row-local faces. a label is a soft target of one entry: its column is set right after the
 * vector loop, so that no one-hot row is made */
#include "common/columns.h"
#include "common/isa.h"
#include "loss/loss_internal.h"

#define ROWS(port, wire) micak_plane_rows(&a->port.wire, a->port.offsets, b)
#define BUFFER(i) (scratch + (i) * C)

/* label of row r; 0 where targets are soft; < 0 ignored; >= C is an error, status set */
static int64_t label_of(const mica_cross_entropy_args *a, const micak_index_row *labels, int64_t b, int64_t r,
                        mica_status *status) {
  if (!a->label.v.data) return 0;
  int64_t label = micak_index_in(labels, r);
  if (label >= a->C) *status = cross_entropy_label_error(a, label, b, r);
  return label;
}
static float weight_of(const mica_port *weight, const micak_plane *p, int64_t r) {
  return weight->v.data ? micak_cell(p, r) : 1;
}
/* an ignored row of an output (B,R,C) */
static void put_zero(const micak_plane *p, int64_t r, int64_t C, float *buffer) {
  memset(buffer, 0, (size_t)C * sizeof *buffer);
  micak_row_done(p, r, C, buffer);
}

static mica_status ce_forward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_cross_entropy_args *a = args;
  const int64_t C = a->C;
  const int hard = a->label.v.data != NULL;
  micak_index_row labels = micak_index_row_of(&a->label, b);
  micak_plane logits = ROWS(logits, v), target = ROWS(target, v), weight = ROWS(weight, v);
  micak_plane loss = ROWS(loss, v), lse_out = ROWS(lse, v);
  mica_status status = MICA_OK;
  for (int64_t r = r0; r < r1; r++) {
    int64_t label = label_of(a, &labels, b, r, &status);
    if (status < 0) return status;
    if (label < 0) {
      micak_put_cell(&loss, r, 0);
      micak_put_cell(&lse_out, r, 0);
      continue;
    }
    const float *z = micak_row_in(&logits, r, C, BUFFER(0));
    vf top = v_set1(-INFINITY), s[4] = { { 0 } };
    MICAK_COLUMNS(C, top = v_max(micak_first(micak_ld(z + c, n), top, n), top););
    float m = v_max_lane(top);
    MICAK_COLUMNS(C, s[k] += micak_first(v_exp_low(micak_ld(z + c, n) - m), v_zero(), n););
    float lse = m + v_log(v_set1(micak_sum4(s)))[0], sum;
    if (hard) {
      sum = lse - z[label];
    } else {
      const float *tau = micak_row_in(&target, r, C, BUFFER(1));
      vf t[4] = { { 0 } };
      MICAK_COLUMNS(C, t[k] = v_fma(micak_ld(tau + c, n), lse - micak_ld(z + c, n), t[k]););
      sum = micak_sum4(t);
    }
    micak_put_cell(&lse_out, r, lse);
    micak_put_cell(&loss, r, weight_of(&a->weight, &weight, r) * sum);
  }
  return MICA_OK;
}

static mica_status ce_backward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_cross_entropy_args *a = args;
  const int64_t C = a->C;
  const int hard = a->label.v.data != NULL;
  micak_index_row labels = micak_index_row_of(&a->label, b);
  micak_plane logits = ROWS(logits, v), target = ROWS(target, v), weight = ROWS(weight, v), lse_in = ROWS(lse, v);
  micak_plane loss_d = ROWS(loss, d), logits_d = ROWS(logits, d), target_d = ROWS(target, d);
  micak_plane weight_d = ROWS(weight, d);
  mica_status status = MICA_OK;
  for (int64_t r = r0; r < r1; r++) {
    int64_t label = label_of(a, &labels, b, r, &status);
    if (status < 0) return status;
    if (label < 0) {
      put_zero(&logits_d, r, C, BUFFER(0));
      put_zero(&target_d, r, C, BUFFER(0));
      micak_put_cell(&weight_d, r, 0);
      continue;
    }
    const float *z = micak_row_in(&logits, r, C, BUFFER(0));
    float lse = micak_cell(&lse_in, r), dl = micak_cell(&loss_d, r), u = weight_of(&a->weight, &weight, r) * dl;
    float *dz = micak_row_out(&logits_d, r, BUFFER(1)), sum;
    if (hard) {
      sum = lse - z[label];
      MICAK_COLUMNS(C, micak_st(dz + c, v_exp_low(micak_ld(z + c, n) - lse) * u, n););
      dz[label] = u * (v_exp_low(v_set1(z[label] - lse))[0] - 1);
    } else {
      const float *tau = micak_row_in(&target, r, C, BUFFER(2));
      vf s[4] = { { 0 } }, m[4] = { { 0 } };
      MICAK_COLUMNS(C, vf q = micak_ld(tau + c, n); m[k] += q; s[k] = v_fma(q, lse - micak_ld(z + c, n), s[k]););
      float mass = micak_sum4(m);
      sum = micak_sum4(s);
      MICAK_COLUMNS(C, micak_st(dz + c, (v_exp_low(micak_ld(z + c, n) - lse) * mass - micak_ld(tau + c, n)) * u, n););
      if (target_d.at) {
        float *dt = micak_row_out(&target_d, r, BUFFER(3));
        MICAK_COLUMNS(C, micak_st(dt + c, (lse - micak_ld(z + c, n)) * u, n););
        micak_row_done(&target_d, r, C, dt);
      }
    }
    micak_row_done(&logits_d, r, C, dz);
    micak_put_cell(&weight_d, r, sum * dl);
  }
  return MICA_OK;
}

static mica_status ce_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_cross_entropy_args *a = args;
  const int64_t C = a->C;
  const int hard = a->label.v.data != NULL;
  micak_index_row labels = micak_index_row_of(&a->label, b);
  micak_plane logits = ROWS(logits, v), logits_t = ROWS(logits, t), target = ROWS(target, v);
  micak_plane target_t = ROWS(target, t);
  micak_plane weight = ROWS(weight, v), weight_t = ROWS(weight, t), lse_in = ROWS(lse, v), lse_out = ROWS(lse, t);
  micak_plane loss_t = ROWS(loss, t);
  mica_status status = MICA_OK;
  for (int64_t r = r0; r < r1; r++) {
    int64_t label = label_of(a, &labels, b, r, &status);
    if (status < 0) return status;
    if (label < 0) {
      micak_put_cell(&loss_t, r, 0);
      micak_put_cell(&lse_out, r, 0);
      continue;
    }
    const float *z = micak_row_in(&logits, r, C, BUFFER(0)), *zt = micak_row_in(&logits_t, r, C, BUFFER(1));
    float lse = micak_cell(&lse_in, r), sum, sum_t;
    vf s[4] = { { 0 } };
    MICAK_COLUMNS(C, s[k] = v_fma(v_exp_low(micak_ld(z + c, n) - lse), micak_ld(zt + c, n), s[k]););
    float lse_t = micak_sum4(s);
    if (hard) {
      sum = lse - z[label];
      sum_t = lse_t - zt[label];
    } else {
      const float *tau = micak_row_in(&target, r, C, BUFFER(2)), *tau_t = micak_row_in(&target_t, r, C, BUFFER(3));
      vf p[4] = { { 0 } }, q[4] = { { 0 } };
      MICAK_COLUMNS(C, vf tv = micak_ld(tau + c, n); vf e = lse - micak_ld(z + c, n); p[k] = v_fma(tv, e, p[k]);
                    q[k] = v_fma(micak_ld(tau_t + c, n), e, v_fma(tv, lse_t - micak_ld(zt + c, n), q[k])););
      sum = micak_sum4(p), sum_t = micak_sum4(q);
    }
    micak_put_cell(&lse_out, r, lse_t);
    micak_put_cell(&loss_t, r, micak_cell(&weight_t, r) * sum + weight_of(&a->weight, &weight, r) * sum_t);
  }
  return MICA_OK;
}

static mica_status ce_backward_jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_cross_entropy_args *a = args;
  const int64_t C = a->C;
  const int hard = a->label.v.data != NULL;
  micak_index_row labels = micak_index_row_of(&a->label, b);
  micak_plane logits = ROWS(logits, v), logits_t = ROWS(logits, t), target = ROWS(target, v);
  micak_plane target_t = ROWS(target, t);
  micak_plane weight = ROWS(weight, v), weight_t = ROWS(weight, t), lse_v = ROWS(lse, v), lse_d = ROWS(lse, t);
  micak_plane loss_d = ROWS(loss, d), loss_td = ROWS(loss, td), logits_td = ROWS(logits, td);
  micak_plane target_td = ROWS(target, td), weight_td = ROWS(weight, td);
  mica_status status = MICA_OK;
  for (int64_t r = r0; r < r1; r++) {
    int64_t label = label_of(a, &labels, b, r, &status);
    if (status < 0) return status;
    if (label < 0) {
      put_zero(&logits_td, r, C, BUFFER(0));
      put_zero(&target_td, r, C, BUFFER(0));
      micak_put_cell(&weight_td, r, 0);
      continue;
    }
    const float *z = micak_row_in(&logits, r, C, BUFFER(0)), *zt = micak_row_in(&logits_t, r, C, BUFFER(1));
    float *dz = micak_row_out(&logits_td, r, BUFFER(2));
    float lse = micak_cell(&lse_v, r), lse_t = micak_cell(&lse_d, r), dl = micak_cell(&loss_d, r);
    float dl_t = micak_cell(&loss_td, r), w = weight_of(&a->weight, &weight, r), w_t = micak_cell(&weight_t, r);
    float u = w * dl, u_t = w_t * dl + w * dl_t, sum, sum_t;
    if (hard) {
      sum = lse - z[label], sum_t = lse_t - zt[label];
      MICAK_COLUMNS(C, vf p = v_exp_low(micak_ld(z + c, n) - lse);
                    micak_st(dz + c, p * v_fma(micak_ld(zt + c, n) - lse_t, v_set1(u), v_set1(u_t)), n););
      float p = v_exp_low(v_set1(z[label] - lse))[0];
      dz[label] = u_t * (p - 1) + u * (p * (zt[label] - lse_t));
    } else {
      const float *tau = micak_row_in(&target, r, C, BUFFER(3)), *tau_t = micak_row_in(&target_t, r, C, BUFFER(4));
      vf s[4] = { { 0 } }, t[4] = { { 0 } }, m[4] = { { 0 } }, m_t[4] = { { 0 } };
      MICAK_COLUMNS(C, vf tv = micak_ld(tau + c, n); vf ttv = micak_ld(tau_t + c, n); vf e = lse - micak_ld(z + c, n);
                    s[k] = v_fma(tv, e, s[k]); m[k] += tv; m_t[k] += ttv;
                    t[k] = v_fma(ttv, e, v_fma(tv, lse_t - micak_ld(zt + c, n), t[k])););
      float mass = micak_sum4(m), mass_t = micak_sum4(m_t);
      sum = micak_sum4(s), sum_t = micak_sum4(t);
      MICAK_COLUMNS(C, vf p = v_exp_low(micak_ld(z + c, n) - lse);
                    vf p_t = p * (micak_ld(zt + c, n) - lse_t);
                    vf value = p * mass - micak_ld(tau + c, n);
                    vf tangent = p * mass_t + p_t * mass - micak_ld(tau_t + c, n);
                    micak_st(dz + c, value * u_t + tangent * u, n););
      if (target_td.at) {
        float *dt = micak_row_out(&target_td, r, BUFFER(5));
        MICAK_COLUMNS(C, micak_st(dt + c, (lse - micak_ld(z + c, n)) * u_t + (lse_t - micak_ld(zt + c, n)) * u, n););
        micak_row_done(&target_td, r, C, dt);
      }
    }
    micak_row_done(&logits_td, r, C, dz);
    micak_put_cell(&weight_td, r, sum_t * dl + sum * dl_t);
  }
  return MICA_OK;
}

#define ENTRY(face, FACE)                                                                                              \
  CPU_KERNEL(cross_entropy_##face) {                                                                                   \
    const mica_cross_entropy_args *a = args;                                                                           \
    mica_status status = cross_entropy_check(a);                                                                       \
    if (status < 0) return status;                                                                                     \
    return micak_walk_rows(a->logits.offsets, a->B, a->R, cross_entropy_sums(a, FACE), first, count, ce_##face##_rows, \
                           args, exec->scratch);                                                                       \
  }
ENTRY(forward, MICA_FORWARD)
ENTRY(backward, MICA_BACKWARD)
ENTRY(jvp, MICA_JVP)
ENTRY(backward_jvp, MICA_BACKWARD_JVP)
