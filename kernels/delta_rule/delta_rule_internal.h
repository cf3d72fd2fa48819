/* delta_rule_internal.h: the rule in terms of common/memory.h */
#ifndef MICA_KERNELS_DELTA_RULE_INTERNAL_H
#define MICA_KERNELS_DELTA_RULE_INTERNAL_H

#include "common/memory.h"
#include "delta_rule/delta_rule.h"

static inline micak_memory delta_rule_memory(const mica_delta_rule_args *a) {
  return (micak_memory){ .name = "delta_rule", .B = a->B, .T = a->T, .H = a->H, .K = a->K, .V = a->V, .form = a->form,
                         .chunk = a->chunk, .delta = 1, .q = &a->q, .k = &a->k, .v = &a->v, .beta = &a->beta,
                         .state_in = &a->state_in, .state_out = &a->state_out, .out = &a->out };
}

#endif
