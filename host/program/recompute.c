/* which values are computed again for the passes back instead of being kept.
 *
 * a candidate is an entry with one reader on the way down whose results the passes back read. it is worth the bytes
 * that need not be kept, less those of inputs that would be kept only to compute it again, and costs its forward's
 * flop. taken in the order of flop a byte while the sum stays within the budget, unless values computed again would
 * hang on more than DEEPEST others that are, so that going back stays local. */
#include <string.h>

#include "program/executor.h"

enum { DEEPEST = 3 };

typedef struct candidate { int32_t entry; double flop, bytes; } candidate;

typedef struct choice {
  mica_executor *x;
  uint8_t       *read_back;    /* [n_values] roots that the passes back read */
  int32_t       *readers;      /* [n_values] entries that read a root on the way down; program outputs count as many */
  int8_t        *depth;        /* [n_entries] */
} choice;

static double bytes_of(const mica_executor *x, int32_t root) {
  const micah_value *v = &x->program->values[root];
  int wires = x->passes & MICA_PASS_JVP && x->active[root] ? 2 : 1;
  return (double)wires * (double)micah_capacity(x, v->axis) * (double)v->count *
         (double)mica_dtype_size(micah_wire_dtype(x, root, MICA_V));
}

static int32_t root_of(const mica_program *p, const micah_entry *entry, int i) {
  return entry->binds[i].value < 0 ? -1 : p->values[entry->binds[i].value].root;
}

static void count_readers(choice *c) {
  const mica_program *p = c->x->program;
  for (int32_t e = 0; e < p->n_entries; e++) {
    const micah_entry *entry = &p->entries[e];
    for (int i = 0; p->live[e] && i < entry->op->n_operands; i++) {
      int32_t root = root_of(p, entry, i);
      if (root < 0) continue;
      int seen = 0, r, w;
      for (int j = 0; j < i; j++) seen |= root_of(p, entry, j) == root;
      if (!seen && (entry->op->operands[i].role & (MICA_IN | MICA_INDEX))) c->readers[root]++;
      for (int face = MICA_BACKWARD; face < MICA_NFACE; face++) {
        if (face == MICA_JVP || !micah_face_runs(c->x, e, face)) continue;
        micah_access(c->x, e, face, i, &r, &w);
        c->read_back[root] |= !!(r & (MICA_V | MICA_T));
      }
    }
  }
  for (int32_t i = 0; i < p->n_outputs; i++) c->readers[p->values[p->outputs[i].value].root] += 2;
}

static int weigh(const choice *c, int32_t e, candidate *out) {
  const mica_executor *x = c->x;
  const mica_program *p = x->program;
  const micah_entry *entry = &p->entries[e];
  *out = (candidate){ .entry = e };
  if (!p->live[e] || entry->inner || !entry->op->cost) return 0;
  double moved;
  entry->op->cost(x->args[e], MICA_FORWARD, &out->flop, &moved);
  if (x->passes & MICA_PASS_JVP) {
    double flop;
    entry->op->cost(x->args[e], MICA_JVP, &flop, &moved);
    out->flop += flop;
  }
  for (int i = 0; i < entry->op->n_operands; i++) {
    int32_t root = root_of(p, entry, i);
    if (root < 0) continue;
    if (entry->op->operands[i].role & (MICA_OUT | MICA_SAVED)) {
      if (c->readers[root] > 1) return 0;
      if (c->read_back[root]) out->bytes += bytes_of(x, root);
    } else if (p->values[root].entry >= 0 && !c->read_back[root] && c->readers[root] < 2)
      out->bytes -= bytes_of(x, root);
  }
  return out->bytes > 0;
}

/* how many values in a row hang on each other */
static int too_deep(choice *c) {
  const mica_program *p = c->x->program;
  for (int32_t e = 0; e < p->n_entries; e++) {
    c->depth[e] = (int8_t)c->x->again[e];
    for (int i = 0; c->depth[e] && i < p->entries[e].op->n_operands; i++) {
      int32_t root = root_of(p, &p->entries[e], i), maker = root < 0 ? -1 : p->values[root].entry;
      if (maker >= 0 && maker != e && c->depth[maker] >= c->depth[e]) c->depth[e] = (int8_t)(c->depth[maker] + 1);
    }
    if (c->depth[e] > DEEPEST) return 1;
  }
  return 0;
}

mica_status micah_choose_again(mica_executor *x, double budget) {
  const mica_program *p = x->program;
  /* apart, a tangent pass of its own needs the values too: nothing is dropped there */
  if (!(budget > 0) || !(x->passes & MICA_PASS_BACKWARD) || (!x->fused && (x->passes & MICA_PASS_JVP))) return MICA_OK;
  choice c = { .x = x };
  c.read_back = micah_region_alloc(&x->region, p->n_values, 1);
  c.readers = micah_region_alloc(&x->region, p->n_values, sizeof *c.readers);
  c.depth = micah_region_alloc(&x->region, p->n_entries + 1, 1);
  candidate *list = micah_region_alloc(&x->region, p->n_entries + 1, sizeof *list);
  if (!c.read_back || !c.readers || !c.depth || !list) return MICA_ERR_MEMORY;
  count_readers(&c);
  double total = 0, spent = 0;
  int32_t n = 0;
  for (int32_t e = 0; e < p->n_entries; e++) {
    candidate one;
    int fits = weigh(&c, e, &one);
    if (p->live[e]) total += one.flop;
    if (!fits) continue;
    int32_t at = n++;  /* sorted by flop a byte; ties in program order */
    for (; at > 0 && list[at - 1].flop * one.bytes > one.flop * list[at - 1].bytes; at--) list[at] = list[at - 1];
    list[at] = one;
  }
  for (int32_t i = 0; i < n; i++) {
    if (spent + list[i].flop > budget * total) continue;
    x->again[list[i].entry] = 1;
    if (too_deep(&c)) x->again[list[i].entry] = 0;
    else spent += list[i].flop;
  }
  return MICA_OK;
}
