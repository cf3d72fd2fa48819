/* delta_rule_internal.h: the rule in terms of common/memory.h */
#ifndef MICA_KERNELS_DELTA_RULE_INTERNAL_H
#define MICA_KERNELS_DELTA_RULE_INTERNAL_H

#include <string.h>

#include "common/memory.h"
#include "delta_rule/delta_rule.h"

static inline micak_memory delta_rule_memory(const mica_delta_rule_args *a) {
  micak_memory m;
  memset(&m, 0, sizeof m);
  m.name = "delta_rule";
  m.B = a->B, m.T = a->T, m.H = a->H, m.K = a->K, m.V = a->V;
  m.form = a->form, m.chunk = a->chunk, m.delta = 1;
  m.q = &a->q, m.k = &a->k, m.v = &a->v, m.beta = &a->beta, m.out = &a->out;
  m.state_in = &a->state_in, m.state_out = &a->state_out;
  return m;
}

#endif
