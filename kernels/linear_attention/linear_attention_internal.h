/* linear_attention_internal.h: the rule in terms of common/memory.h */
#ifndef MICA_KERNELS_LINEAR_ATTENTION_INTERNAL_H
#define MICA_KERNELS_LINEAR_ATTENTION_INTERNAL_H

#include "common/memory.h"
#include "linear_attention/linear_attention.h"

static inline micak_memory linear_attention_memory(const mica_linear_attention_args *a) {
  return (micak_memory){ .name = "linear_attention", .B = a->B, .T = a->T, .H = a->H, .K = a->K, .V = a->V,
                         .form = a->form, .chunk = a->chunk, .normal = a->normalise != 0, .eps = a->eps, .q = &a->q,
                         .k = &a->k, .v = &a->v, .state_in = &a->state_in, .state_out = &a->state_out,
                         .norm_in = a->normalise ? &a->norm_in : NULL, .norm_out = a->normalise ? &a->norm_out : NULL,
                         .out = &a->out };
}
/* the ports of z mean nothing without a normaliser */
static inline mica_status linear_attention_ports(const mica_linear_attention_args *a) {
  if (a->normalise || (!a->norm_in.v.data && !a->norm_out.v.data)) return MICA_OK;
  return mica_error(MICA_ERR_INVALID, "linear_attention: norm_in or norm_out is bound, but normalise is no; set "
                    "normalise=yes or leave them out");
}

#endif
