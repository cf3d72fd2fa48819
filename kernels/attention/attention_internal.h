/* attention_internal.h: the mask, the grouping of heads and the cuts, for reference, kernels and tables */
#ifndef MICA_KERNELS_ATTENTION_INTERNAL_H
#define MICA_KERNELS_ATTENTION_INTERNAL_H

#include "attention/attention.h"
#include "common/rows.h"

/* row i of T sees the first n of S keys: every mask so far is a prefix that grows with the row */
static inline int64_t attention_visible(const mica_attention_args *a, int64_t i, int64_t T, int64_t S) {
  if (a->mask == MICA_ATTENTION_FULL) return S;
  int64_t n = i + 1 + S - T;
  return n < 0 ? 0 : n > S ? S : n;
}

/* masks and biases that the CPU kernels do not compute yet */
static inline int attention_general(const mica_attention_args *a) {
  return a->mask > MICA_ATTENTION_FULL || a->bias.v.data || a->slopes.v.data || a->block_mask.v.data;
}
static inline mica_status attention_refused(void) {
  return mica_error(MICA_ERR_UNSUPPORTED, "attention on the cpu: mask=causal and full without bias, slopes and block_mask");
}

/* key head of query head h, and the query heads [*h0, *h1) of key head g */
static inline int64_t attention_key_head(const mica_attention_args *a, int64_t h) { return h * a->G / a->H; }
static inline void attention_query_heads(const mica_attention_args *a, int64_t g, int64_t *h0, int64_t *h1) {
  *h0 = (g * a->H + a->G - 1) / a->G;
  *h1 = ((g + 1) * a->H + a->G - 1) / a->G;
}

enum {
  ATTENTION_HEAD = 256,                      /* largest head size */
  ATTENTION_STRIP = 6,                       /* rows of a register tile */
  ATTENTION_TILE = 192,                      /* query rows of one forward unit */
  ATTENTION_ROWS = 48,                       /* query rows of a backward block */
  ATTENTION_KEYS = 256,                      /* keys of a backward block */
  ATTENTION_KEYS_JVP = 128
};

/* a face that walks down has units (task, query head, tile of rows), one that walks up (task, key head). an output
 * that sums over tasks takes the task out of the unit: each unit then walks all tasks in order. */
static inline int attention_sums(const mica_attention_args *a, int face) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  const mica_port *down[] = { &a->out, &a->lse }, *up[] = { &a->q, &a->k, &a->v, &a->scale };
  int is_up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP, sums = 0;
  for (int i = 0; i < (is_up ? 4 : 2); i++) {
    mica_port *p = (mica_port *)(uintptr_t)(is_up ? up[i] : down[i]);
    sums |= micak_wire_sums(micak_wire(p, bit[face]), p->offsets, a->B);
  }
  return sums;
}

#endif
