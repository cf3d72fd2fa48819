/* loss_internal.h: what reference, kernels and tables share */
#ifndef MICA_KERNELS_LOSS_INTERNAL_H
#define MICA_KERNELS_LOSS_INTERNAL_H

#include "common/rows.h"
#include "loss/loss.h"

static inline mica_status cross_entropy_check(const mica_cross_entropy_args *a) {
  if (!a->label.v.data == !a->target.v.data)
    return mica_error(MICA_ERR_INVALID, "cross_entropy: %s label and target given, expected exactly one",
                      a->label.v.data ? "both" : "neither");
  return MICA_OK;
}
static inline mica_status cross_entropy_label_error(const mica_cross_entropy_args *a, int64_t label, int64_t b,
                                                    int64_t r) {
  return mica_error(MICA_ERR_INVALID, "cross_entropy: label %lld at task %lld, row %lld, expected less than %lld "
                    "(negative: ignored)", (long long)label, (long long)b, (long long)r, (long long)a->C);
}

/* does an output of this face sum over tasks? */
static inline int mse_sums(const mica_mse_args *a, int face) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  const mica_port *down[] = { &a->loss }, *up[] = { &a->pred, &a->target, &a->weight };
  int is_up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  return micak_ports_sum(is_up ? up : down, is_up ? 3 : 1, bit[face], a->B);
}
static inline int cross_entropy_sums(const mica_cross_entropy_args *a, int face) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  const mica_port *down[] = { &a->loss, &a->lse }, *up[] = { &a->logits, &a->target, &a->weight };
  int is_up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  return micak_ports_sum(is_up ? up : down, is_up ? 3 : 2, bit[face], a->B);
}

#endif
