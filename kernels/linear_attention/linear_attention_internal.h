/* linear_attention_internal.h: the rule in terms of common/memory.h */
#ifndef MICA_KERNELS_LINEAR_ATTENTION_INTERNAL_H
#define MICA_KERNELS_LINEAR_ATTENTION_INTERNAL_H

#include <string.h>

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
  micak_memory m;
  memset(&m, 0, sizeof m);
  m.name = "linear_attention";
  m.B = a->B, m.T = a->T, m.H = a->H, m.K = a->K, m.V = a->V;
  m.form = a->form, m.chunk = a->chunk, m.decay = decay;
  m.keys = z, m.divide = a->normalise != 0, m.eps = a->eps;
  m.q = &a->q, m.k = &a->k, m.v = &a->v, m.a = &a->decay, m.out = &a->out;
  m.state_in = &a->state_in, m.state_out = &a->state_out;
  m.norm_in = z ? &a->norm_in : NULL, m.norm_out = z ? &a->norm_out : NULL;
  return m;
}

#endif
