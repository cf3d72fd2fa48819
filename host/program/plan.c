/* where each wire lies: existence and lifetimes from the operand tables, add flags from the order of writers, offsets
 * by best fit over the lifetimes */
#include <stdlib.h>
#include <string.h>

#include "program/scan.h"

/* ---- packing ---- */

typedef struct packing { micah_interval *v; int32_t *order, *placed; int32_t n; } packing;

/* keys of the orders that are tried; larger first */
static int64_t by_size(const micah_interval *v) { return v->bytes; }
static int64_t by_life(const micah_interval *v) {
  return v->last - v->first + (v->last_again < v->again ? 0 : v->last_again - v->again + 1);
}
static int64_t by_area(const micah_interval *v) { return v->bytes / 64 * (by_life(v) + 1); }
static int64_t by_start(const micah_interval *v) { return -(int64_t)v->first; }
static int64_t (*const keys[])(const micah_interval *) = { by_size, by_life, by_area, by_start };

static void sort_by(packing *p, int64_t (*key)(const micah_interval *)) {
  /* stable, by merging: ties keep the order of creation, so plans are the same everywhere */
  int32_t *a = p->order, *b = p->placed;
  for (int32_t i = 0; i < p->n; i++) a[i] = i;
  for (int32_t width = 1; width < p->n; width *= 2) {
    for (int32_t at = 0; at < p->n; at += 2 * width) {
      int32_t mid = at + width < p->n ? at + width : p->n, end = at + 2 * width < p->n ? at + 2 * width : p->n;
      for (int32_t i = at, j = mid, k = at; k < end; k++)
        b[k] = j >= end || (i < mid && key(&p->v[a[i]]) >= key(&p->v[a[j]])) ? a[i++] : a[j++];
    }
    int32_t *swap = a;
    a = b;
    b = swap;
  }
  if (a != p->order) memcpy(p->order, a, (size_t)p->n * sizeof *a);
}

static int alive(const micah_interval *v, int32_t time) {
  return (v->first <= time && time <= v->last) || (v->again <= time && time <= v->last_again);
}
static int meet(const micah_interval *a, const micah_interval *b) {
  return (a->first <= b->last && b->first <= a->last) || (a->first <= b->last_again && b->again <= a->last) ||
         (a->again <= b->last && b->first <= a->last_again) || (a->again <= b->last_again && b->again <= a->last_again);
}

/* best fit: the smallest gap, among those already placed that overlap in time, that is wide enough */
static int64_t place_all(packing *p) {
  int64_t end = 0;
  for (int32_t n = 0; n < p->n; n++) {
    micah_interval *v = &p->v[p->order[n]];
    int64_t at = 0, best = -1, best_gap = INT64_MAX;
    for (int32_t i = 0; i < n; i++) {
      const micah_interval *o = &p->v[p->placed[i]];
      if (!meet(o, v)) continue;
      int64_t gap = o->offset - at;
      if (gap >= v->bytes && gap < best_gap) {
        best = at;
        best_gap = gap;
      }
      if (o->offset + o->bytes > at) at = o->offset + o->bytes;
    }
    v->offset = best >= 0 ? best : at;
    if (v->offset + v->bytes > end) end = v->offset + v->bytes;
    int32_t i = n;
    for (; i > 0 && p->v[p->placed[i - 1]].offset > v->offset; i--) p->placed[i] = p->placed[i - 1];
    p->placed[i] = p->order[n];
  }
  return end;
}

int64_t micah_pack(micah_interval *v, int32_t n, int32_t *order, int64_t *peak) {
  packing p = { v, order, order + n, n };
  *peak = 0;
  for (int32_t i = 0; i < 2 * n; i++) {  /* the peak is reached when something begins to live */
    const micah_interval *o = &v[i / 2];
    int64_t live = 0;
    for (int32_t j = 0; j < n && (i % 2 == 0 || o->again <= o->last_again); j++)
      if (alive(&v[j], i % 2 ? o->again : o->first)) live += v[j].bytes;
    if (live > *peak) *peak = live;
  }
  int best = 0;
  int64_t least = INT64_MAX;
  for (int k = 0; k <= MICA_COUNT(keys); k++) {
    sort_by(&p, keys[k < MICA_COUNT(keys) ? k : best]);  /* the last round repeats the best */
    int64_t end = place_all(&p);
    if (k < MICA_COUNT(keys) && end < least) {
      least = end;
      best = k;
    }
    if (least == *peak && k < MICA_COUNT(keys)) break;
  }
  return n ? least : 0;
}

/* ---- lifetimes ---- */

/* does this phase write the operand? parameters' cotangents are written by the late phases of a face that has some. */
static int writes_here(const mica_executor *x, const micah_step *step, int operand, const uint8_t *has_late) {
  const micah_entry *entry = &x->program->entries[step->entry];
  if (!has_late[step->entry * MICA_NFACE + step->face]) return 1;
  const micah_value *values = x->program->values;
  return (values[values[entry->binds[operand].value].root].kind == MICA_VALUE_PARAM) == step->late;
}

typedef struct cover { int64_t start, end; int32_t next; } cover; /* written parts of a row, a list for each store */

typedef struct planner {
  mica_executor *x;
  uint8_t       *reads, *writes, *has_late;
  int32_t       *covers;   /* [stores] first of the list, -1: none */
  cover         *list;
  int32_t        n_list, c_list;
} planner;

static mica_status touch_all(planner *pl) {
  mica_executor *x = pl->x;
  for (int32_t g = 0; g < x->n_groups; g++)
    for (int32_t s = x->groups[g].first; s < x->groups[g].first + x->groups[g].count; s++) {
      const micah_step *step = &x->steps[s];
      const micah_entry *entry = &x->program->entries[step->entry];
      for (int i = 0; i < entry->op->n_operands; i++) {
        int r, w;
        micah_access(x, step->entry, step->face, i, &r, &w);
        if (!(r | w)) continue;
        const micah_value *v = &x->program->values[entry->binds[i].value];
        /* late phases write parameters' cotangents alone */
        if (step->late && !v->saved && x->program->values[v->root].kind != MICA_VALUE_PARAM) w = 0;
        /* what one phase of a face leaves in a saved operand, the next may read */
        if (v->saved && step->phases > 1) r |= w;
        for (int bit = MICA_V; bit <= MICA_TD; bit <<= 1) {
          if (!((r | w) & bit)) continue;
          micah_store *store = micah_store_of(x, v->root, bit);
          int64_t at = store - x->stores;
          int back = step->again || step->face == MICA_BACKWARD || step->face == MICA_BACKWARD_JVP;
          if (back && (bit & (MICA_V | MICA_T)) && v->entry >= 0 && x->again[x->program->values[v->root].entry]) {
            if (store->last_again < 0) store->again = g;
            store->last_again = g;
          } else {
            if (store->last < 0) {
              store->first = g;
              store->first_segment = x->groups[g].segment;
            }
            store->last = g;
            store->last_segment = x->groups[g].segment;
          }
          pl->reads[at] |= !!(r & bit);
          pl->writes[at] |= !!(w & bit);
        }
      }
    }
  return MICA_OK;
}

/* the part [start, end) of a row is written now: does this writer add? */
static mica_status write_part(planner *pl, micah_store *store, int64_t start, int64_t end, int *add) {
  int64_t at = store - pl->x->stores, inside = 0, left = start;
  /* parts are kept sorted and apart */
  int32_t *link = &pl->covers[at];
  while (*link >= 0 && pl->list[*link].end < start) link = &pl->list[*link].next;
  int64_t low = start, high = end;
  while (*link >= 0 && pl->list[*link].start <= end) {
    cover *c = &pl->list[*link];
    int64_t from = c->start > left ? c->start : left, to = c->end < end ? c->end : end;
    if (to > from) inside += to - from;
    if (c->start < low) low = c->start;
    if (c->end > high) high = c->end;
    *link = c->next;
  }
  if (pl->n_list == pl->c_list) {
    int64_t offset = (char *)link - (char *)pl->list;
    int inner = link != &pl->covers[at];
    pl->list = micah_region_grow(&pl->x->region, pl->list, pl->n_list, &pl->c_list, sizeof *pl->list);
    if (!pl->list) return MICA_ERR_MEMORY;
    if (inner) link = (int32_t *)(void *)((char *)pl->list + offset);
  }
  pl->list[pl->n_list] = (cover){ low, high, *link };
  *link = pl->n_list++;
  *add = inside > 0;
  if (inside > 0 && inside < end - start) store->zero = 1;
  return MICA_OK;
}

static int covers_row(const planner *pl, const micah_store *store, int64_t count) {
  int32_t first = pl->covers[store - pl->x->stores];
  return first >= 0 && pl->list[first].start == 0 && pl->list[first].end == count;
}

/* first writer overwrites, later ones add; rows that no one writes whole are cleared first */
static mica_status seal_cotangents(planner *pl) {
  mica_executor *x = pl->x;
  const mica_program *p = x->program;
  uint8_t *done = micah_region_alloc(&x->region, p->n_entries * MICA_NFACE + 1, 1);
  if (!done) return MICA_ERR_MEMORY;
  for (int32_t s = 0; s < x->n_steps; s++) {
    const micah_step *step = &x->steps[s];
    if (step->face != MICA_BACKWARD && step->face != MICA_BACKWARD_JVP) continue;
    const micah_entry *entry = &p->entries[step->entry];
    uint8_t *seen = &done[step->entry * MICA_NFACE + step->face];
    int now = step->late ? 2 : 1;  /* the first of the late phases, the first of the others */
    if (*seen & now) continue;
    *seen |= (uint8_t)now;
    for (int i = 0; i < entry->op->n_operands; i++) {
      int r, w;
      micah_access(x, step->entry, step->face, i, &r, &w);
      w &= MICA_D | MICA_TD;
      if (!w || !(entry->op->operands[i].role & MICA_IN) || !writes_here(x, step, i, pl->has_late)) continue;
      const micah_value *v = &p->values[entry->binds[i].value];
      for (int bit = MICA_D; bit <= MICA_TD; bit <<= 2) {
        if (!(w & bit)) continue;
        micah_store *store = micah_store_of(x, v->root, bit);
        int add = 0;
        mica_status status = write_part(pl, store, v->start, v->start + v->count, &add);
        if (status < 0) return status;
        /* a map may have no item of some task */
        int outer = entry->level != MICA_NO_AXIS && !micah_below(p, v->axis, entry->level);
        if (outer) store->zero = add = 1;
        if (add) x->adds[x->operand_base[step->entry] + i] |= (uint8_t)bit;
      }
    }
  }
  return MICA_OK;
}

/* where each store lies */
static void settle(planner *pl) {
  mica_executor *x = pl->x;
  const mica_program *p = x->program;
  for (int32_t v = 0; v < p->n_values; v++) {
    const micah_value *root = &p->values[v];
    if (root->root != v) continue;
    int outputs = 0, whole = 0;
    for (int32_t i = 0; i < p->n_outputs; i++) {
      const micah_value *o = &p->values[p->outputs[i].value];
      if (o->root != v) continue;
      outputs++;
      whole += o->count == root->count;
    }
    for (int bit = MICA_V; bit <= MICA_TD; bit <<= 1) {
      micah_store *store = micah_store_of(x, v, bit);
      int64_t at = store - x->stores;
      int cotangent = !!(bit & (MICA_D | MICA_TD));
      int ran = x->passes & (bit == MICA_V ? MICA_PASS_FORWARD : bit == MICA_T ? MICA_PASS_JVP :
                             bit == MICA_D ? MICA_PASS_BACKWARD : MICA_PASS_BACKWARD_JVP);
      if (root->kind == MICA_VALUE_CONSTANT) store->where = bit == MICA_V ? MICAH_FIXED : MICAH_NOWHERE;
      else if (root->entry < 0) {
        store->where = bit == MICA_V || (x->wanted[v] && ran) ? MICAH_OUTSIDE : MICAH_NOWHERE;
        if (cotangent && x->wanted[v] && ran && !covers_row(pl, store, root->count)) store->zero = 1;
      } else if (cotangent && outputs && !pl->writes[at]) {
        /* only seeds write it: the caller's memory itself, when it is all of one output */
        if (!pl->reads[at] || !x->active[v]) store->where = MICAH_NOWHERE;
        else if (outputs == 1 && whole == 1) {
          store->where = MICAH_OUTSIDE;
          store->direct = 1;
        } else store->where = MICAH_SCRATCH, store->seeded = 1;
      } else if (pl->writes[at] && (pl->reads[at] || (outputs && !cotangent))) {
        store->where = MICAH_SCRATCH;
        store->seeded = cotangent && outputs;
        if (cotangent && !root->saved && !covers_row(pl, store, root->count)) store->zero = 1;
      }
      if (store->where != MICAH_SCRATCH) continue;
      int64_t rows = micah_capacity(x, root->axis);
      if (root->scan_axis >= 0) rows *= micah_scan_checkpoints(x->capacity_longest[root->scan_axis]);
      store->bytes = (rows * root->count * (int64_t)mica_dtype_size(micah_wire_dtype(x, v, bit)) + 63) / 64 * 64;
      int kept = outputs && !cotangent;  /* results stay until the next run */
      if (kept) store->last = x->n_groups - 1;
      if (!x->fused && (kept || store->first_segment != store->last_segment)) store->where = MICAH_SAVED_BLOCK;
    }
  }
}

mica_status micah_plan(mica_executor *x) {
  const mica_program *p = x->program;
  int64_t n = (int64_t)p->n_values * MICAH_WIRES;
  planner pl = { .x = x };
  pl.reads = micah_region_alloc(&x->region, n, 1);
  pl.writes = micah_region_alloc(&x->region, n, 1);
  pl.has_late = micah_region_alloc(&x->region, (int64_t)p->n_entries * MICA_NFACE + 1, 1);
  pl.covers = micah_region_alloc(&x->region, n, sizeof *pl.covers);
  if (!pl.reads || !pl.writes || !pl.has_late || !pl.covers) return MICA_ERR_MEMORY;
  memset(x->stores, 0, (size_t)n * sizeof *x->stores);
  for (int64_t i = 0; i < n; i++) {
    pl.covers[i] = -1;
    x->stores[i].last = x->stores[i].last_again = -1;
  }
  for (int32_t s = 0; s < x->n_steps; s++)
    if (x->steps[s].late) pl.has_late[x->steps[s].entry * MICA_NFACE + x->steps[s].face] = 1;
  mica_status status = touch_all(&pl);
  if (status < 0 || (status = seal_cotangents(&pl)) < 0) return status;
  settle(&pl);
  if ((status = micah_plan_local(x)) < 0) return status;

  int32_t m = 0;
  micah_interval *v = micah_region_alloc(&x->region, n, sizeof *v);
  int32_t *which = micah_region_alloc(&x->region, n, sizeof *which);
  int32_t *order = micah_region_alloc(&x->region, 2 * n, sizeof *order);
  x->clears = micah_region_alloc(&x->region, n, sizeof *x->clears);
  if (!v || !which || !order || !x->clears) return MICA_ERR_MEMORY;
  for (int32_t i = 0; i < n; i++) {
    micah_store *store = &x->stores[i];
    if (store->zero || store->seeded) {
      if (store->last < 0) store->first = x->n_groups - 1;  /* no one writes it: zero */
      x->clears[x->n_clears++] = i;
    }
    if (store->where == MICAH_SAVED_BLOCK) {
      store->offset = x->saved_bytes;
      x->saved_bytes += store->bytes;
    } else if (store->where == MICAH_SCRATCH) {
      int again = store->last_again >= 0 && !store->local_again;
      if (store->local && !again) continue;
      v[m] = (micah_interval){ store->bytes, 0, store->first, store->last, INT32_MAX, -1 }; /* an empty one meets none */
      if (store->local) v[m].first = store->again, v[m].last = store->last_again;
      else if (again) v[m].again = store->again, v[m].last_again = store->last_again;
      which[m++] = i;
    }
  }
  x->arena_bytes = micah_pack(v, m, order, &x->peak_bytes);
  for (int32_t i = 0; i < m; i++) x->stores[which[i]].offset = v[i].offset;
  /* clears in the order of their groups; few */
  for (int32_t i = 1; i < x->n_clears; i++)
    for (int32_t j = i; j > 0 && x->stores[x->clears[j - 1]].first > x->stores[x->clears[j]].first; j--) {
      int32_t swap = x->clears[j];
      x->clears[j] = x->clears[j - 1];
      x->clears[j - 1] = swap;
    }
  return MICA_OK;
}
