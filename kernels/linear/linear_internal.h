/* cuts and scratch of linear's CPU kernels: kernels and tables must agree on them */
#ifndef MICA_KERNELS_LINEAR_INTERNAL_H
#define MICA_KERNELS_LINEAR_INTERNAL_H

#include "common/rows.h"
#include "linear/linear.h"

enum {
  LINEAR_ROWS = 144,  /* rows of a tile: packing w costs about a tenth of its use */
  LINEAR_COLS = 256,  /* columns of a tile: rows are read once, and w's panels stay in the second cache */
  LINEAR_PANEL = 256 * 256, /* floats of the packed panels of LINEAR_COLS columns */
  LINEAR_SHARE = 64,  /* columns of a unit that packs shared weights: whole panels of every instruction set */
  LINEAR_OUT = 264, LINEAR_IN = 256, LINEAR_TERMS = 256 /* block of w.d: (out x in), rows summed at a time */
};

/* row offsets of the task's rows: every port with a row axis has the same */
static inline const int32_t *linear_offsets(const mica_linear_args *a) {
  return a->x.offsets ? a->x.offsets : a->y.offsets ? a->y.offsets : a->z.offsets ? a->z.offsets : a->res.offsets;
}
static inline int64_t linear_all_rows(const mica_linear_args *a) {
  return a->R && a->B ? micak_all_rows(linear_offsets(a), a->B, a->R) : 0;
}
/* wire `bit` of a port */
static inline const mica_wire *linear_wire(const mica_port *port, int bit) {
  return micak_wire((mica_port *)(uintptr_t)port, bit);
}

/* does a row-wise output of this face sum over tasks? then one unit runs all rows in order */
static inline int linear_sums(const mica_linear_args *a, int face) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  const mica_port *port[3] = { &a->z, back ? &a->x : &a->y, back ? &a->res : NULL };
  for (int i = a->Z ? 0 : 1; i < 3; i++)
    if (port[i] && micak_wire_sums(linear_wire(port[i], bit[face]), port[i]->offsets, a->B)) return 1;
  return 0;
}

/* floats of row buffers: rows that are computed, or gathered because their columns are not side by side; and of packed
 * rows, whole ones where they meet more than LINEAR_COLS columns, else a panel */
static inline int64_t linear_longest(const mica_linear_args *a) { return a->I > a->O ? a->I : a->O; }
static inline int64_t linear_packed_row(const mica_linear_args *a) {
  enum { PANEL = 32 }; /* of LINEAR_ROWS: more than 12 rows of 256 terms */
  int64_t down = a->O > LINEAR_COLS ? a->I : PANEL, up = a->I > LINEAR_COLS ? a->O : PANEL, most = down > up ? down : up;
  return most > PANEL ? most : PANEL;
}
static inline int64_t linear_row_floats(const mica_linear_args *a) {
  return LINEAR_PANEL + LINEAR_ROWS * LINEAR_COLS + linear_longest(a) +
         2 * LINEAR_ROWS * (linear_longest(a) + linear_packed_row(a));
}

/* the right factors of a row phase: w, and in tangent faces w.t after it. where all tasks meet one w that many rows use
 * it is packed once a run: blocks of LINEAR_COLS columns, in them blocks of GEMM_KB terms, in them panels. */
static inline int linear_factors(const mica_linear_args *a, int face, const mica_wire *factor[2]) {
  int tangent = face == MICA_JVP || face == MICA_BACKWARD_JVP;
  factor[0] = &a->w.v;
  factor[1] = tangent ? &a->w.t : NULL;
  return 1 + tangent;
}
static inline int linear_packs(const mica_linear_args *a, const mica_wire *w) {
  return w && w->data && !w->slot && w->task_stride == 0 && linear_all_rows(a) >= 2 * LINEAR_ROWS;
}
static inline int64_t linear_packed_floats(int64_t terms, int64_t columns) {
  return terms * ((columns + LINEAR_SHARE - 1) / LINEAR_SHARE * LINEAR_SHARE);
}

/* floats of scratch of the parameter phases; 12: the widest tile */
enum { LINEAR_PARAM_FLOATS = LINEAR_PANEL + (LINEAR_OUT + 12) * (LINEAR_IN + LINEAR_TERMS + 16) +
                             LINEAR_TERMS * LINEAR_OUT + LINEAR_OUT + 16 };

/* slot groups as in rows.h, without a walk over the tasks where there are no slots */
static inline int64_t linear_groups(const mica_wire *w, int64_t tasks) {
  if (!w->data || tasks <= 0) return 0;
  return w->slot ? micak_groups(w, tasks) : w->task_stride ? tasks : 1;
}
/* tasks of group g; `next`: *end is that of group g - 1 */
static inline void linear_group(const mica_wire *w, int64_t tasks, int64_t g, int next, int64_t *begin, int64_t *end) {
  if (!next || !w->slot) {
    micak_group(w, tasks, g, begin, end);
    return;
  }
  *begin = (*end)++;
  while (*end < tasks && micak_same_slot(w, NULL, *end)) ++*end;
}

/* how w.d and b.d are cut: units 0 .. w_units - 1 are (group, out block, in block), the next b_units (group, out
 * block). b rides with w's first in block where both sum the same tasks. */
typedef struct linear_cut {
  const mica_wire *w, *b;
  int64_t out, n_out, n_in, w_units, b_units;
  int     fused;
} linear_cut;

static inline linear_cut linear_cut_of(const mica_linear_args *a, int face) {
  int bit = face == MICA_BACKWARD ? MICA_D : MICA_TD;
  linear_cut cut = { .w = linear_wire(&a->w, bit), .b = linear_wire(&a->b, bit) };
  int64_t groups = linear_groups(cut.w, a->B);
  cut.n_in = (a->I + LINEAR_IN - 1) / LINEAR_IN;
  cut.n_out = (a->O + LINEAR_OUT - 1) / LINEAR_OUT;
  if (groups * cut.n_out * cut.n_in < 8) /* work for few workers: smaller blocks */
    cut.n_out = (a->O + LINEAR_OUT / 2 - 1) / (LINEAR_OUT / 2);
  if (a->O > 64) cut.n_out += cut.n_out & 1; /* even: two workers */
  cut.out = cut.n_out ? ((a->O + cut.n_out - 1) / cut.n_out + 5) / 6 * 6 : 6;
  cut.n_out = (a->O + cut.out - 1) / cut.out;
  cut.fused = cut.w->data && cut.b->data && a->I > 0 &&
              (a->B <= 1 || (cut.w->slot == cut.b->slot &&
                             (cut.w->slot || !cut.w->task_stride == !cut.b->task_stride)));
  cut.w_units = groups * cut.n_out * cut.n_in;
  cut.b_units = cut.fused ? 0 : linear_groups(cut.b, a->B) * cut.n_out;
  return cut;
}

#endif
