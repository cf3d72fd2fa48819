/* norm_internal.h: what norm's kernels and tables share */
#ifndef MICA_KERNELS_NORM_INTERNAL_H
#define MICA_KERNELS_NORM_INTERNAL_H

#include "common/rows.h"
#include "norm/norm.h"

enum { NORM_BLOCK = 64 };                    /* columns of one parameter-gradient unit, and rows of one partial sum */

/* does an output with rows sum over tasks? then rows are not independent */
static inline int norm_sums(const mica_norm_args *a, int face) {
  const mica_port *p[4] = { &a->x, &a->y, &a->mean, &a->rstd };
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  for (int i = 0; i < 4; i++) {
    int input = i == 0, up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
    if (input == up && micak_wire_sums(micak_wire((mica_port *)(uintptr_t)p[i], bit[face]), p[i]->offsets, a->B))
      return 1;
  }
  return 0;
}

/* parameter gradients: a unit is (slot group, block of columns) of w and b together where they are grouped alike, else
 * of w first, then of b */
typedef struct norm_cut {
  const mica_wire *w, *b;
  int64_t          blocks, w_units, b_units; /* fused: b_units == 0 */
  int              fused;
} norm_cut;
static inline norm_cut norm_cut_of(const mica_norm_args *a, int face) {
  norm_cut cut = { face == MICA_BACKWARD ? &a->w.d : &a->w.td, face == MICA_BACKWARD ? &a->b.d : &a->b.td,
                   (a->C + NORM_BLOCK - 1) / NORM_BLOCK, 0, 0, 0 };
  cut.w_units = micak_groups(cut.w, a->B) * cut.blocks;
  cut.b_units = micak_groups(cut.b, a->B) * cut.blocks;
  cut.fused = cut.w_units && cut.b_units && cut.w->slot == cut.b->slot && !cut.w->task_stride == !cut.b->task_stride;
  if (cut.fused) cut.b_units = 0;
  return cut;
}

#endif
