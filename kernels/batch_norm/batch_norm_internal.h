/* cuts of batch_norm's CPU kernels: kernels and tables must agree on them */
#ifndef MICA_KERNELS_BATCH_NORM_INTERNAL_H
#define MICA_KERNELS_BATCH_NORM_INTERNAL_H

#include "batch_norm/batch_norm.h"
#include "common/rows.h"

enum { BN_BLOCK = 16 };  /* channels of a unit */

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

/* units of w.d, then of b.d: (group of tasks, block) */
static inline const mica_wire *bn_param_wire(const mica_batch_norm_args *a, int face, int bias) {
  const mica_port *p = bias ? &a->b : &a->w;
  return face == MICA_BACKWARD ? &p->d : &p->td;
}
static inline int64_t bn_param_units(const mica_batch_norm_args *a, int face, int bias) {
  return micak_groups(bn_param_wire(a, face, bias), a->B) * bn_blocks(a);
}

#endif
