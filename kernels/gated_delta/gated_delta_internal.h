/* gated_delta_internal.h: the rule in terms of common/memory.h */
#ifndef MICA_KERNELS_GATED_DELTA_INTERNAL_H
#define MICA_KERNELS_GATED_DELTA_INTERNAL_H

#include "common/memory.h"
#include "gated_delta/gated_delta.h"

static inline micak_memory gated_delta_memory(const mica_gated_delta_args *a) {
  return (micak_memory){ .name = "gated_delta", .B = a->B, .T = a->T, .H = a->H, .K = a->K, .V = a->V, .form = a->form,
                         .chunk = a->chunk, .delta = 1,
                         .decay = a->A == a->K ? MICAK_DECAY_CHANNEL : MICAK_DECAY_SCALAR, .q = &a->q, .k = &a->k,
                         .v = &a->v, .beta = &a->beta, .a = &a->decay,
                         .state_in = &a->state_in, .state_out = &a->state_out, .out = &a->out };
}

#endif
