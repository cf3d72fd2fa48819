/* gated_delta_internal.h: the rule in terms of common/memory.h */
#ifndef MICA_KERNELS_GATED_DELTA_INTERNAL_H
#define MICA_KERNELS_GATED_DELTA_INTERNAL_H

#include <string.h>

#include "common/memory.h"
#include "gated_delta/gated_delta.h"

static inline micak_memory gated_delta_memory(const mica_gated_delta_args *a) {
  micak_memory m;
  memset(&m, 0, sizeof m);
  m.name = "gated_delta";
  m.B = a->B, m.T = a->T, m.H = a->H, m.K = a->K, m.V = a->V;
  m.form = a->form, m.chunk = a->chunk, m.delta = 1;
  m.decay = a->A == a->K ? MICAK_DECAY_CHANNEL : MICAK_DECAY_SCALAR, m.a = &a->decay;
  m.q = &a->q, m.k = &a->k, m.v = &a->v, m.beta = &a->beta, m.out = &a->out;
  m.state_in = &a->state_in, m.state_out = &a->state_out;
  return m;
}

#endif
