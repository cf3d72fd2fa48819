/* memory_cpu.h: memory_chunk.inc in fp32 with vectors, and the walk over units. included by <op>_cpu.c. */
#ifndef MICA_KERNELS_COMMON_MEMORY_CPU_H
#define MICA_KERNELS_COMMON_MEMORY_CPU_H

#include "common/columns.h"
#include "common/gemm.h"
#include "common/isa.h"
#include "common/memory.h"
#include "common/rows.h"

#define real float
#define F(name) memory_##name

/* ---- rows: whole vectors ---- */

static inline void memory_axpy1(int64_t n, float c, const float *x, float *z) {
  vf f = v_set1(c);
  for (int64_t i = 0; i < n; i += VW) v_store(z + i, v_fma(f, v_load(x + i), v_load(z + i)));
}
static inline void memory_fma1(int64_t n, const float *x, const float *y, float *z) {
  for (int64_t i = 0; i < n; i += VW) v_store(z + i, v_fma(v_load(x + i), v_load(y + i), v_load(z + i)));
}
static inline void memory_mul1(int64_t n, const float *x, const float *y, float *z) {
  for (int64_t i = 0; i < n; i += VW) v_store(z + i, v_load(x + i) * v_load(y + i));
}
static inline void memory_scale1(int64_t n, float c, const float *x, float *z) {
  vf f = v_set1(c);
  for (int64_t i = 0; i < n; i += VW) v_store(z + i, f * v_load(x + i));
}
static inline float memory_dot1(int64_t n, const float *x, const float *y) {
  vf s = v_zero(), r = v_zero();
  int64_t i = 0;
  for (; i + 2 * VW <= n; i += 2 * VW) {
    s = v_fma(v_load(x + i), v_load(y + i), s);
    r = v_fma(v_load(x + i + VW), v_load(y + i + VW), r);
  }
  if (i < n) s = v_fma(v_load(x + i), v_load(y + i), s);
  return v_sum(s + r);
}

static void memory_mm1(int shape, int64_t m, int64_t n, int64_t k, const float *a, int64_t row, int64_t term,
                       const float *b, int64_t ldb, int64_t panel, float *c, int64_t ldc, int add);


static inline void memory_transpose1(int64_t rows, int64_t cols, const float *from, int64_t ld, float *to, int64_t ldt,
                                     int64_t panel) {
  (void)ldt;
  for (int64_t j = 0; j < rows; j += GEMM_NR, to += panel)
    gemm_pack(to, from + j * ld, 1, ld, cols, rows - j < GEMM_NR ? rows - j : GEMM_NR);
}

/* ---- ports ---- */

typedef micak_plane memory_view;
static inline memory_view memory_view_of(const mica_port *port, int bit, int kind, int64_t b, int64_t h) {
  const int8_t *axis = micak_view_axis[kind];
  if (!port) return (memory_view){ NULL, 0, 0, 0 };
  const mica_wire *w = micak_wire((mica_port *)(uintptr_t)port, bit);
  if (!w->data) return (memory_view){ NULL, 0, 0, 0 };
  memory_view v = micak_plane_at(w, kind < MICAK_VIEW_STATE ? port->offsets : NULL, b, w->stride[axis[1]],
                                 axis[2] < 0 ? 0 : w->stride[axis[2]]);
  if (v.at) v.at += h * w->stride[axis[0]];
  return v;
}
static inline float memory_view_get(const memory_view *v, int64_t r) { return v->at[r * v->row]; }
static void memory_load_copy(const memory_view *v, int64_t at, int64_t n, int64_t cols, float *to, int64_t ld) {
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
static inline float *memory_load(const memory_view *v, int64_t at, int64_t n, int64_t cols, float *to, int64_t ld,
                                 int64_t *ld_out) {
  if (v->col == 1 && cols % VW == 0) {
    *ld_out = v->row;
    return v->at + at * v->row;
  }
  memory_load_copy(v, at, n, cols, to, ld);
  *ld_out = ld;
  return to;
}
static void memory_store(const memory_view *v, int64_t at, int64_t rows, int64_t cols, const float *from, int64_t ld) {
  for (int64_t r = 0; r < rows; r++, from += ld) {
    float *to = v->at + (at + r) * v->row;
    if (v->col != 1) micak_row_done(v, at + r, cols, from);
    else if (v->add) MICAK_COLUMNS(cols, micak_st(to + c, micak_ld(to + c, n) + micak_ld(from + c, n), n););
    else MICAK_COLUMNS(cols, micak_st(to + c, micak_ld(from + c, n), n););
  }
}

#include "common/memory_chunk.inc"
#include "common/memory_steps.inc"
#include "common/memory_short.h"

/* ---- products: tiles of gemm.h. what is zero in a triangle is skipped by whole row tiles; a zero term changes no bit
 * of a finite sum ---- */
static void memory_mm1(int shape, int64_t m, int64_t n, int64_t k, const float *a, int64_t row, int64_t term,
                       const float *b, int64_t ldb, int64_t panel, float *c, int64_t ldc, int add) {
  const float *rows[GEMM_MR];
  for (int64_t i = 0, mr; i < m; i += mr) {
    int64_t left = m - i, from = 0, to = k, cols = n;
    mr = left < GEMM_MR ? left : GEMM_MR;
    if (left > GEMM_MR && left < 2 * GEMM_MR) mr = (left + 1) / 2;
    if (shape == MICAK_MM_LOWER_A && i + mr < to) to = i + mr;
    if (shape == MICAK_MM_UPPER_A) from = i;
    if (shape == MICAK_MM_LOWER_C && i + mr < cols) cols = i + mr;
    for (int64_t r = 0; r < mr; r++) rows[r] = a + (i + r) * row + from * term;
    const float *panel_at = b + from * ldb;
    for (int64_t j = 0; j < cols; j += GEMM_NR, panel_at += panel)
      gemm_tile[mr - 1][cols - j > VW](to - from, rows, term, panel_at, ldb, c + i * ldc + j, ldc, add, NULL);
  }
}

/* ---- units ---- */

static mica_status memory_run(const mica_exec *exec, const micak_memory *m, int face, int64_t first, int64_t count) {
  int sums = micak_memory_sums(m, face);
  micak_memory_layout layout;
  micak_memory_layout_of(m, face, VW, &layout);
  for (int64_t u = first; u < first + count; u++) {
    int64_t h = u % m->H, b = u / m->H;
    for (int64_t task = sums ? 0 : b; task < (sums ? m->B : b + 1); task++) {
      memory_pair w = memory_pair_of(m, &layout, face, task, h, exec->scratch);
      if (memory_is_short(&w)) memory_short(&w);
      else memory_pair_run(&w);
    }
  }
  return MICA_OK;
}

#endif
