/* cuts and scratch of batch_norm's kernels: kernels and tables must agree on them */
#ifndef MICA_KERNELS_BATCH_NORM_INTERNAL_H
#define MICA_KERNELS_BATCH_NORM_INTERNAL_H

#include "batch_norm/batch_norm.h"
#include "common/cuda.h"
#include "common/rows.h"

enum { BN_BLOCK = 64 };  /* channels of a unit: pixels of that many lie side by side, fewer leave gaps between reads */

static inline int64_t bn_blocks(const mica_batch_norm_args *a) { return (a->C + BN_BLOCK - 1) / BN_BLOCK; }

/* does an output sum over tasks? then a unit takes all tasks in order */
static inline int bn_sums(const mica_batch_norm_args *a, int face) {
  const mica_port *in[] = { &a->x }, *out[] = { &a->y, &a->mean, &a->rstd };
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  return micak_ports_sum(back ? in : out, back ? 1 : 3, bit[face], a->B);
}
static inline int64_t bn_units(const mica_batch_norm_args *a, int face) {
  return bn_sums(a, face) ? bn_blocks(a) : a->B * bn_blocks(a);
}

/* w.d and b.d (or their td). a task's own ones are by-products of its x.d; else units of a second phase sum them over
 * groups of tasks, (group, block) of w.d and then of b.d, both in one where they sum the same tasks */
static inline const mica_wire *bn_param_wire(const mica_batch_norm_args *a, int face, int bias) {
  const mica_port *p = bias ? &a->b : &a->w;
  return face == MICA_BACKWARD ? &p->d : &p->td;
}
static inline int bn_own(const mica_wire *w, int64_t tasks) { return !w->data || tasks <= 1 || (!w->slot && w->task_stride); }
static inline int bn_by_product(const mica_batch_norm_args *a, int face) {
  const mica_wire *x = face == MICA_BACKWARD ? &a->x.d : &a->x.td;
  return x->data && !bn_sums(a, face) && bn_own(bn_param_wire(a, face, 0), a->B) && bn_own(bn_param_wire(a, face, 1), a->B);
}
static inline int bn_together(const mica_batch_norm_args *a, int face) {
  const mica_wire *w = bn_param_wire(a, face, 0), *b = bn_param_wire(a, face, 1);
  return w->data && b->data && w->slot == b->slot && !w->task_stride == !b->task_stride;
}
static inline int64_t bn_param_units(const mica_batch_norm_args *a, int face, int bias) {
  if (bn_by_product(a, face) || (bias && bn_together(a, face))) return 0;
  return micak_groups(bn_param_wire(a, face, bias), a->B) * bn_blocks(a);
}

/* ---- CUDA ---- */

/* the N rows and pixels of a task are added up in pieces, which N alone fixes */
enum { BN_PIECE = 512, BN_PIECES = 32 };
static inline int64_t bn_pieces(int64_t N) {
  int64_t n = (N + BN_PIECE - 1) / BN_PIECE;
  return n < 1 ? 1 : n > BN_PIECES ? BN_PIECES : n;
}
/* numbers that a face adds up over a task */
static inline int bn_terms(int face) {
  static const int n[MICA_NFACE] = { 2, 2, 3, 4 };
  return n[face];
}
/* doubles of scratch: those of the tasks' pieces; behind them the parts of w's and b's sums over tasks */
static inline int64_t bn_sums_size(const mica_batch_norm_args *a, int face) {
  return a->B * bn_pieces(a->T * a->P) * bn_terms(face) * a->C;
}
static inline size_t bn_scratch_bytes(const mica_batch_norm_args *a, int face) {
  size_t bytes = (size_t)bn_sums_size(a, face) * sizeof(double), parts[2] = { 0, 0 };
  for (int bias = 0; bias < 2 && (face == MICA_BACKWARD || face == MICA_BACKWARD_JVP); bias++)
    parts[bias] = micak_sum_scratch(bn_param_wire(a, face, bias), a->B, 2 * a->C, SUM_CHUNK);
  return bytes + (parts[0] > parts[1] ? parts[0] : parts[1]);
}

#endif
