/* dual_cpu.h: what dual.inc and dual_ports.inc need, in fp32 with vectors. F() and `real` (float) are defined. */
#ifndef MICA_KERNELS_COMMON_DUAL_CPU_H
#define MICA_KERNELS_COMMON_DUAL_CPU_H

#include "common/columns.h"
#include "common/rows.h"
#include "common/view.h"

/* ---- rows: whole vectors ---- */

static inline void F(axpy1)(int64_t n, float c, const float *x, float *z) {
  vf f = v_set1(c);
  for (int64_t i = 0; i < n; i += VW) v_store(z + i, v_fma(f, v_load(x + i), v_load(z + i)));
}
static inline void F(fma1)(int64_t n, const float *x, const float *y, float *z) {
  for (int64_t i = 0; i < n; i += VW) v_store(z + i, v_fma(v_load(x + i), v_load(y + i), v_load(z + i)));
}
static inline void F(mul1)(int64_t n, const float *x, const float *y, float *z) {
  for (int64_t i = 0; i < n; i += VW) v_store(z + i, v_load(x + i) * v_load(y + i));
}
static inline void F(scale1)(int64_t n, float c, const float *x, float *z) {
  vf f = v_set1(c);
  for (int64_t i = 0; i < n; i += VW) v_store(z + i, f * v_load(x + i));
}
static inline float F(dot1)(int64_t n, const float *x, const float *y) {
  vf s = v_zero(), r = v_zero();
  int64_t i = 0;
  for (; i + 2 * VW <= n; i += 2 * VW) {
    s = v_fma(v_load(x + i), v_load(y + i), s);
    r = v_fma(v_load(x + i + VW), v_load(y + i + VW), r);
  }
  if (i < n) s = v_fma(v_load(x + i), v_load(y + i), s);
  return v_sum(s + r);
}

/* ---- ports ---- */

typedef micak_plane F(view);
static inline F(view) F(view_of)(const mica_port *port, int bit, int kind, int64_t b, int64_t h) {
  const int8_t *axis = micak_view_axis[kind];
  if (!port) return (F(view)){ NULL, 0, 0, 0 };
  const mica_wire *w = micak_wire((mica_port *)(uintptr_t)port, bit);
  if (!w->data) return (F(view)){ NULL, 0, 0, 0 };
  F(view) v = micak_plane_at(w, kind < MICAK_VIEW_STATE ? port->offsets : NULL, b, w->stride[axis[1]],
                                 axis[2] < 0 ? 0 : w->stride[axis[2]]);
  if (v.at) v.at += h * w->stride[axis[0]];
  return v;
}
static inline float F(view_get)(const F(view) *v, int64_t r) { return v->at[r * v->row]; }
static void F(load_copy)(const F(view) *v, int64_t at, int64_t n, int64_t cols, float *to, int64_t ld) {
  const float *from = v->at + at * v->row;
  for (int64_t r = 0; r < n; r++, from += v->row, to += ld) {
    if (v->col == 1) {
      for (int64_t c = 0; c < cols; c += VW) v_store(to + c, micak_ld(from + c, cols - c < VW ? cols - c : VW));
    } else {
      for (int64_t c = 0; c < cols; c++) to[c] = from[c * v->col];
      for (int64_t c = cols; c < ld; c++) to[c] = 0;
    }
  }
}
/* in place where the rows are whole vectors */
static inline float *F(load)(const F(view) *v, int64_t at, int64_t n, int64_t cols, float *to, int64_t ld,
                                 int64_t *ld_out) {
  if (v->col == 1 && cols % VW == 0) {
    *ld_out = v->row;
    return v->at + at * v->row;
  }
  F(load_copy)(v, at, n, cols, to, ld);
  *ld_out = ld;
  return to;
}
static void F(store)(const F(view) *v, int64_t at, int64_t rows, int64_t cols, const float *from, int64_t ld) {
  for (int64_t r = 0; r < rows; r++, from += ld) {
    float *to = v->at + (at + r) * v->row;
    if (v->col != 1) micak_row_done(v, at + r, cols, from);
    else if (v->add) MICAK_COLUMNS(cols, micak_st(to + c, micak_ld(to + c, n) + micak_ld(from + c, n), n););
    else MICAK_COLUMNS(cols, micak_st(to + c, micak_ld(from + c, n), n););
  }
}

#endif
