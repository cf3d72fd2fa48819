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
#include "common/dual_cpu.h"

static void memory_mm1(int shape, int64_t m, int64_t n, int64_t k, const float *a, int64_t row, int64_t term,
                       const float *b, int64_t ldb, int64_t panel, float *c, int64_t ldc, int add);


static inline void memory_transpose1(int64_t rows, int64_t cols, const float *from, int64_t ld, float *to, int64_t ldt,
                                     int64_t panel) {
  (void)ldt;
  for (int64_t j = 0; j < rows; j += GEMM_NR, to += panel)
    gemm_pack(to, from + j * ld, 1, ld, cols, rows - j < GEMM_NR ? rows - j : GEMM_NR);
}

/* asks for rows [at, at + n) of a port: they lie far apart, which no machine sees coming */
static inline void memory_ahead(const micak_plane *x, int64_t at, int64_t n, int64_t cols) {
  if (!x->at || x->col != 1) return;
  const float *row = x->at + at * x->row;
  for (int64_t r = 0; r < n; r++, row += x->row)
    for (int64_t c = 0; c < cols; c += 16) __builtin_prefetch(row + c);
}

#include "common/memory_chunk.inc"
#include "common/memory_steps.inc"

/* the same for a port's value or cotangent and, where the face has them, its tangents */
static inline void memory_rows_ahead(const memory_pair *w, const mica_port *port, int bit, int64_t cols, int64_t at,
                                     int64_t n) {
  memory_view x = memory_view_of(port, bit, MICAK_VIEW_ROWS, w->b, w->h);
  memory_ahead(&x, at, n, cols);
  if (!w->dual) return;
  x = memory_view_of(port, bit == MICA_V ? MICA_T : MICA_TD, MICAK_VIEW_ROWS, w->b, w->h);
  memory_ahead(&x, at, n, cols);
}
#include "common/memory_lanes.h"
#include "common/memory_block.h"

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

/* the rows that a pair begins with */
static void memory_pair_ahead(const memory_pair *w) {
  const micak_memory *m = w->m;
  int64_t n = w->T < 16 ? w->T : 16;
  memory_rows_ahead(w, m->k, MICA_V, m->K, 0, n);
  memory_rows_ahead(w, m->v, MICA_V, m->V, 0, n);
  if (!w->back || w->T <= 16) memory_rows_ahead(w, m->q, MICA_V, m->K, 0, n);
  if (w->back && w->T <= 16) memory_rows_ahead(w, m->out, MICA_D, m->V, 0, n);
}

static mica_status memory_run(const mica_exec *exec, const micak_memory *m, int face, int64_t first, int64_t count) {
  int sums = micak_memory_sums(m, face);
  micak_memory_layout layout;
#if defined(MICAK_ISA_AVX512)
  int blocks = micak_memory_blocked(m);
#else
  int blocks = 0;
#endif
  if (blocks) micak_memory_block_layout(m, face, &layout);
  else micak_memory_layout_of(m, face, VW, &layout);
  lanes_group group;
  group.n = 0;
  for (int64_t u = first; u < first + count; u++) {
    int64_t h = u % m->H, b = u / m->H;
    for (int64_t task = sums ? 0 : b; task < (sums ? m->B : b + 1); task++) {
      memory_pair w = memory_pair_of(m, &layout, face, task, h, exec->scratch);
      if (lanes_take(&w)) {
        lanes_add(&group, &w, exec->scratch);
        continue;
      }
      lanes_run(&group, exec->scratch);
      if (h + 1 < m->H) {
        memory_pair next = w;
        next.h++;
        memory_pair_ahead(&next);
      }
#if defined(MICAK_ISA_AVX512)
      if (blocks) memory_blocks(&w);
      else
#endif
        memory_pair_run(&w);
    }
  }
  lanes_run(&group, exec->scratch);
  return MICA_OK;
}

#endif
