/* attention_internal.h: the grouping of heads and the cuts, for reference, kernels and tables */
#ifndef MICA_KERNELS_ATTENTION_INTERNAL_H
#define MICA_KERNELS_ATTENTION_INTERNAL_H

#include "attention/attention.h"
#include "common/rows.h"

/* key head of query head h, and the query heads [*h0, *h1) of key head g */
static inline int64_t attention_key_head(const mica_attention_args *a, int64_t h) { return h * a->G / a->H; }
static inline void attention_query_heads(const mica_attention_args *a, int64_t g, int64_t *h0, int64_t *h1) {
  *h0 = (g * a->H + a->G - 1) / a->G;
  *h1 = ((g + 1) * a->H + a->G - 1) / a->G;
}

enum {
  ATTENTION_HEAD = 256,                      /* largest head size */
  ATTENTION_ROWS = 48,                       /* query rows of a block */
  ATTENTION_TILE = 4,                        /* blocks of one forward unit */
  ATTENTION_KEYS = 128                       /* keys of a block going up */
};

/* a face that walks down has units (task, query head, tile of rows), one that walks up (task, key head). an output
 * that sums over tasks takes the task out of the unit: each unit then walks all tasks in order. */
static inline int attention_sums(const mica_attention_args *a, int face) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  const mica_port *down[] = { &a->out, &a->lse };
  const mica_port *up[] = { &a->q, &a->k, &a->v, &a->bias, &a->slopes, &a->scale };
  int is_up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP, sums = 0;
  for (int i = 0; i < (is_up ? MICA_COUNT(up) : MICA_COUNT(down)); i++) {
    mica_port *p = (mica_port *)(uintptr_t)(is_up ? up[i] : down[i]);
    sums |= micak_wire_sums(micak_wire(p, bit[face]), p->offsets, a->B);
  }
  return sums;
}

#endif
