/* short_conv_internal.h: what a unit is: BLOCK channels of one task, or of all tasks in order where an output sums */
#ifndef MICA_KERNELS_SHORT_CONV_INTERNAL_H
#define MICA_KERNELS_SHORT_CONV_INTERNAL_H

#include "common/rows.h"
#include "short_conv/short_conv.h"

enum { SHORT_CONV_BLOCK = 64, SHORT_CONV_TAPS = 16 }; /* the most taps */

static inline int64_t short_conv_blocks(const mica_short_conv_args *a) {
  return (a->C + SHORT_CONV_BLOCK - 1) / SHORT_CONV_BLOCK;
}
/* do outputs of the face that `bit` names sum over tasks? w.d has units of its own */
static inline int short_conv_sums(const mica_short_conv_args *a, int bit) {
  const mica_port *down[] = { &a->y, &a->state_out }, *up[] = { &a->x, &a->state_in };
  return micak_ports_sum(bit == MICA_V || bit == MICA_T ? down : up, 2, bit, a->B);
}

#endif
