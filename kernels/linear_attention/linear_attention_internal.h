/* linear_attention_internal.h: the rule in terms of common/memory.h */
#ifndef MICA_KERNELS_LINEAR_ATTENTION_INTERNAL_H
#define MICA_KERNELS_LINEAR_ATTENTION_INTERNAL_H

#include "common/memory.h"
#include "linear_attention/linear_attention.h"

static inline int linear_attention_bound(const mica_port *port) {
  return port->v.data || port->d.data || port->t.data || port->td.data;
}
static inline micak_memory linear_attention_memory(const mica_linear_attention_args *a) {
  /* z is carried where somebody looks at it */
  int z = a->normalise || linear_attention_bound(&a->norm_in) || linear_attention_bound(&a->norm_out);
  int decay = !linear_attention_bound(&a->decay) ? MICAK_DECAY_NONE
              : a->A == a->K                    ? MICAK_DECAY_CHANNEL
                                                : MICAK_DECAY_SCALAR;
  return (micak_memory){ .name = "linear_attention", .B = a->B, .T = a->T, .H = a->H, .K = a->K, .V = a->V,
                         .form = a->form, .chunk = a->chunk, .keys = z, .divide = a->normalise != 0, .eps = a->eps, .decay = decay, .a = &a->decay,
                         .q = &a->q, .k = &a->k, .v = &a->v, .state_in = &a->state_in, .state_out = &a->state_out,
                         .norm_in = z ? &a->norm_in : NULL, .norm_out = z ? &a->norm_out : NULL, .out = &a->out };
}

#endif
