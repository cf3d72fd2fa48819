/* what max_pool's kernels and tables share */
#ifndef MICA_KERNELS_POOL_INTERNAL_H
#define MICA_KERNELS_POOL_INTERNAL_H

#include "common/rows.h"
#include "pool/pool.h"

static inline const int32_t *pool_offsets(const mica_max_pool_args *a) {
  return a->x.offsets ? a->x.offsets : a->y.offsets;
}
static inline int pool_sums(const mica_max_pool_args *a, int face) {
  const mica_port *in[] = { &a->x }, *out[] = { &a->y };
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  return micak_ports_sum(face == MICA_BACKWARD || face == MICA_BACKWARD_JVP ? in : out, 1, bit[face], a->B);
}

#endif
