/* steps in the order they run, and their groups.
 *
 * consecutive row-local phases over the same row space make a chain, which runs tile by tile. phases that write nothing
 * but parameter cotangents wait for the end of the chain that they would cut. a planned chain may be cut again when the
 * arguments of a run say so (split), never joined. */
#include <string.h>

#include "program/executor.h"

/* a chain is one instant: all that it touches lives at once, so it is kept short */
enum { TILE_BYTES = 1024 * 1024, TILE_LEAST = 36, TILE_MOST = 512, CHAIN_MOST = 8 };

static int same_space(const micah_entry *a, const micah_entry *b) {
  return a->row_dim >= 0 && b->row_dim >= 0 && a->row_axis == b->row_axis && a->row_count == b->row_count;
}

int micah_aligned(const micah_entry *entry, int i) {
  int32_t dim[MICAH_RANK];
  int64_t literal[MICAH_RANK];
  int rank = micah_port_dims(entry->op, &entry->op->operands[i], dim, literal);
  if (entry->row_axis == entry->level && entry->row_count == 1) return 1;  /* a row is a task */
  if (entry->row_dim < 0 || rank < 1 || dim[0] < 0) return 0;
  return dim[0] == entry->row_dim || (entry->dim_axis[dim[0]] >= 0 && entry->dim_axis[dim[0]] == entry->row_axis);
}

/* parameters' cotangents are left to late phases, in order */
static int is_param(const mica_executor *x, const micah_entry *entry, int i) {
  int32_t value = entry->binds[i].value;
  return value >= 0 && x->program->values[x->program->values[value].root].kind == MICA_VALUE_PARAM;
}

/* may b run on a tile before a has run on the others? they must not meet in memory, but row by row */
static int meets(const mica_executor *x, const micah_step *a, const micah_step *b) {
  const micah_entry *ea = &x->program->entries[a->entry], *eb = &x->program->entries[b->entry];
  if (a->entry == b->entry) {  /* phases and faces of one entry: only saved operands and outputs tie them */
    for (int i = 0; i < ea->op->n_operands; i++) {
      int ra, wa, rb, wb;
      micah_access(x, a->entry, a->face, i, &ra, &wa);
      micah_access(x, b->entry, b->face, i, &rb, &wb);
      if ((wa & (rb | wb) || ra & wb) && !micah_aligned(ea, i) && !is_param(x, ea, i)) return 1;
    }
    return 0;
  }
  for (int i = 0; i < ea->op->n_operands; i++) {
    int ra, wa;
    micah_access(x, a->entry, a->face, i, &ra, &wa);
    if (!(ra | wa)) continue;
    const micah_value *va = &x->program->values[ea->binds[i].value];
    for (int j = 0; j < eb->op->n_operands; j++) {
      int rb, wb;
      micah_access(x, b->entry, b->face, j, &rb, &wb);
      if (!(wa & (rb | wb)) && !(ra & wb)) continue;
      const micah_value *vb = &x->program->values[eb->binds[j].value];
      if (va->root != vb->root || va->start + va->count <= vb->start || vb->start + vb->count <= va->start) continue;
      if (is_param(x, ea, i)) continue;
      if (!micah_aligned(ea, i) || !micah_aligned(eb, j)) return 1;
    }
  }
  return 0;
}

static mica_status add_face(mica_executor *x, int32_t e, int face, int again, int32_t *capacity) {
  const micah_entry *entry = &x->program->entries[e];
  if (!micah_face_runs(x, e, face)) return MICA_OK;
  const mica_kernel *first = NULL;
  int32_t count = 1;
  if (!entry->inner) {
    mica_status status = mica_op_kernels(entry->op, x->backend, x->dtype, face, &first, &count);
    if (status < 0) {
      char cause[512];
      strncpy(cause, mica_last_error(), sizeof cause - 1);
      cause[sizeof cause - 1] = 0;
      return mica_error(status, "program %s: %s: %s", x->program->name, entry->path, cause);
    }
  }
  /* phases may have others between them in the table */
  int phase = 0;
  for (const mica_kernel *k = first; phase < count; k++) {
    if (!entry->inner && (k->backend != x->backend || k->dtype != x->dtype || k->face != face)) continue;
    x->steps = micah_region_grow(&x->region, x->steps, x->n_steps, capacity, sizeof *x->steps);
    if (!x->steps) return MICA_ERR_MEMORY;
    x->steps[x->n_steps++] = (micah_step){ .entry = e, .face = (int8_t)face, .phase = (int8_t)phase++,
                                           .phases = (int8_t)count, .again = (uint8_t)again,
                                           .kernel = entry->inner ? NULL : k };
    if (entry->inner) break;
  }
  /* a face and its tangent, one after the other: they may run as one */
  micah_step *tangent = &x->steps[x->n_steps - 1], *value = tangent - 1;
  if (x->n_steps < 2 || value->entry != e || value->again != again || value->phases != 1 || tangent->phases != 1)
    return MICA_OK;
  const mica_kernel *fused = micak_fused_kernel(entry->op, x->backend, x->dtype, value->face);
  int faces[2];
  if (fused && micak_faces(fused->face, faces) == 2 && faces[1] == face && !entry->inner) value->fused = fused;
  return MICA_OK;
}

/* what a face reads and was not kept is computed again just before, after what that needs itself */
static mica_status add_again(mica_executor *x, int32_t e, int face, uint8_t *made, int32_t *capacity) {
  const mica_program *p = x->program;
  const micah_entry *entry = &p->entries[e];
  for (int i = 0; i < entry->op->n_operands; i++) {
    int r, w;
    micah_access(x, e, face, i, &r, &w);
    int32_t maker = entry->binds[i].value < 0 ? -1 : p->values[p->values[entry->binds[i].value].root].entry;
    if (!(r & (MICA_V | MICA_T)) || maker < 0 || !x->again[maker] || made[maker] ||
        (maker == e && face == MICA_FORWARD))
      continue;
    made[maker] = 1;
    mica_status status = add_again(x, maker, MICA_FORWARD, made, capacity);
    if (status < 0 || (status = add_face(x, maker, MICA_FORWARD, 1, capacity)) < 0 ||
        (status = add_face(x, maker, MICA_JVP, 1, capacity)) < 0)
      return status;
  }
  return MICA_OK;
}

static mica_status add_back(mica_executor *x, int32_t e, int face, uint8_t *made, int32_t *capacity) {
  if (!micah_face_runs(x, e, face)) return MICA_OK;
  mica_status status = add_again(x, e, face, made, capacity);
  return status < 0 ? status : add_face(x, e, face, 0, capacity);
}

/* what split says of a phase when everything is wanted, and whether it has work without parameter cotangents */
static mica_status probe(mica_executor *x, micah_step *step) {
  const micah_entry *entry = &x->program->entries[step->entry];
  if (!step->kernel || !step->kernel->split) return MICA_OK;
  void *args = x->args[step->entry];
  micah_step_split(step, args);
  /* a phase without work as probed cuts no chain, unless it finds some when bound */
  step->rows = (step->split.rows || step->split.units == 0) && entry->row_dim >= 0;
  if (micah_step_scratch(step) > x->kernel_scratch) x->kernel_scratch = micah_step_scratch(step);
  if (step->rows || step->phase == 0 || (step->face != MICA_BACKWARD && step->face != MICA_BACKWARD_JVP))
    return MICA_OK;
  mica_split all = step->split;
  int any = 0;
  for (int i = 0; i < entry->op->n_operands; i++) {
    if (!is_param(x, entry, i)) continue;
    mica_port *port = micak_port(&entry->op->operands[i], args);
    any |= port->d.data != NULL;
    port->d.data = port->td.data = NULL;
  }
  micah_step_split(step, args);
  step->late = any && step->split.units == 0;
  step->split = all;
  for (int i = 0; i < entry->op->n_operands; i++) {
    mica_status status = micah_fill(x, step->entry, i);
    if (status < 0) return status;
  }
  return MICA_OK;
}

void micah_step_split(micah_step *step, const void *args) {
  memset(&step->split, 0, sizeof step->split);
  step->split.units = step->split.grain = 1;
  if (step->kernel && step->kernel->split) step->kernel->split(args, &step->split);
  if (step->split.grain < 1) step->split.grain = 1;
  step->both = (mica_split){ 1, 1, 0, 0 };
  if (step->fused && step->fused->split) step->fused->split(args, &step->both);
  if (step->both.grain < 1) step->both.grain = 1;
  step->prepare = micak_prepare_of(step->kernel);
  step->need = micak_need_of(step->prepare, args);
}

/* rows of a tile: what the chain touches in a row, times rows, fills a part of L2 */
static int64_t tile_rows(const mica_executor *x, const micah_group *group, uint8_t *seen) {
  const mica_program *p = x->program;
  int64_t bytes = 0;
  memset(seen, 0, (size_t)p->n_values);
  for (int32_t s = group->first; s < group->first + group->count; s++) {
    const micah_step *step = &x->steps[s];
    const micah_entry *entry = &p->entries[step->entry];
    for (int i = 0; i < entry->op->n_operands; i++) {
      int r, w;
      micah_access(x, step->entry, step->face, i, &r, &w);
      if (!(r | w) || !micah_aligned(entry, i)) continue;
      const micah_value *v = &p->values[entry->binds[i].value];
      int fresh = (r | w) & ~seen[v->root];
      seen[v->root] |= (uint8_t)fresh;
      bytes += __builtin_popcount((unsigned)fresh) * p->values[v->root].count * (int64_t)mica_dtype_size(x->dtype);
    }
  }
  int64_t rows = TILE_BYTES / (bytes > 0 ? bytes : 1) / 12 * 12;
  return rows < TILE_LEAST ? TILE_LEAST : rows > TILE_MOST ? TILE_MOST : rows;
}

typedef struct builder {
  mica_executor *x;
  micah_step    *done;          /* steps in their final order */
  int32_t        n_done, segment, capacity;
  int32_t       *chain, *late, n_chain, n_late, entries;
} builder;

static mica_status emit(builder *b, const int32_t *list, int32_t n) {
  mica_executor *x = b->x;
  if (!n) return MICA_OK;
  x->groups = micah_region_grow(&x->region, x->groups, x->n_groups, &b->capacity, sizeof *x->groups);
  if (!x->groups) return MICA_ERR_MEMORY;
  x->groups[x->n_groups++] = (micah_group){ .first = b->n_done, .count = n, .segment = b->segment };
  for (int32_t i = 0; i < n; i++) b->done[b->n_done++] = x->steps[list[i]];
  return MICA_OK;
}

static mica_status close_chain(builder *b) {
  mica_status status = emit(b, b->chain, b->n_chain);
  for (int32_t i = 0; status >= 0 && i < b->n_late; i++) status = emit(b, &b->late[i], 1);
  b->n_chain = b->n_late = b->entries = 0;
  return status;
}

/* a step of the passes back, computing again included */
static int goes_back(const micah_step *step) {
  return step->again || step->face == MICA_BACKWARD || step->face == MICA_BACKWARD_JVP;
}

static mica_status group_steps(builder *b, int32_t first, int32_t end) {
  mica_executor *x = b->x;
  mica_status status;
  for (int32_t s = first; s < end; s++) {
    const micah_step *step = &x->steps[s];
    if (step->late && b->n_chain) {
      b->late[b->n_late++] = s;
      continue;
    }
    int begins = step->phase == 0 && (step->face == MICA_FORWARD || step->face == MICA_BACKWARD);
    int fits = step->rows && b->entries + begins <= CHAIN_MOST;
    if (b->n_chain && goes_back(step) && !goes_back(&x->steps[b->chain[0]])) fits = 0; /* what it needs ends with it */
    for (int32_t i = 0; fits && i < b->n_chain; i++) {
      const micah_step *other = &x->steps[b->chain[i]];
      fits =
          same_space(&x->program->entries[other->entry], &x->program->entries[step->entry]) && !meets(x, other, step);
    }
    for (int32_t i = 0; fits && i < b->n_late; i++)
      fits = x->steps[b->late[i]].entry != step->entry || step->face != x->steps[b->late[i]].face;
    if (!fits && (status = close_chain(b)) < 0) return status;
    b->entries += begins;
    if (step->rows) {
      b->chain[b->n_chain++] = s;
      continue;
    }
    const int32_t list[] = { s, s + 1 };
    int both = step->fused && s + 1 < end && !x->steps[s + 1].rows; /* one instant, whether they run as one or not */
    if ((status = emit(b, list, 1 + both)) < 0) return status;
    s += both;
  }
  return close_chain(b);
}

mica_status micah_make_steps(mica_executor *x) {
  const mica_program *p = x->program;
  int32_t capacity = 0, ends[MICA_NFACE + 1] = { 0 }, n_ends = 0;
  mica_status status = MICA_OK;
  uint8_t *made = micah_region_alloc(&x->region, p->n_entries + 1, 1);
  if (!made) return MICA_ERR_MEMORY;
  /* fused: one sweep down and one up, tangents beside values; else each pass is a segment of its own */
  static const int down[] = { MICA_FORWARD, MICA_JVP }, up[] = { MICA_BACKWARD, MICA_BACKWARD_JVP };
  if (x->fused) {
    for (int32_t e = 0; status >= 0 && e < p->n_entries; e++)
      for (int f = 0; status >= 0 && f < 2; f++) status = add_face(x, e, down[f], 0, &capacity);
    for (int32_t e = p->n_entries - 1; status >= 0 && e >= 0; e--)
      for (int f = 0; status >= 0 && f < 2; f++) status = add_back(x, e, up[f], made, &capacity);
    ends[n_ends++] = x->n_steps;
  } else {
    for (int f = 0; status >= 0 && f < 2; f++) {
      for (int32_t e = 0; status >= 0 && e < p->n_entries; e++) status = add_face(x, e, down[f], 0, &capacity);
      ends[n_ends++] = x->n_steps;
    }
    for (int f = 0; status >= 0 && f < 2; f++) {
      for (int32_t e = p->n_entries - 1; status >= 0 && e >= 0; e--) status = add_back(x, e, up[f], made, &capacity);
      ends[n_ends++] = x->n_steps;
    }
  }
  if (status < 0) return status;
  x->n_segments = n_ends;
  for (int32_t s = 0; s < x->n_steps; s++)
    if ((status = probe(x, &x->steps[s])) < 0) return status;
  builder b = { .x = x };
  b.done = micah_region_alloc(&x->region, x->n_steps, sizeof *b.done);
  b.chain = micah_region_alloc(&x->region, x->n_steps, sizeof *b.chain);
  b.late = micah_region_alloc(&x->region, x->n_steps, sizeof *b.late);
  uint8_t *seen = micah_region_alloc(&x->region, p->n_values, 1);
  if (!b.done || !b.chain || !b.late || !seen) return MICA_ERR_MEMORY;
  for (int32_t i = 0, from = 0; i < n_ends; from = ends[i++]) {
    b.segment = i;
    if ((status = group_steps(&b, from, ends[i])) < 0) return status;
  }
  x->steps = b.done;
  for (int32_t g = 0; g < x->n_groups; g++) {
    micah_group *group = &x->groups[g];
    group->tile = tile_rows(x, group, seen);
    size_t shared = 0;
    for (int32_t s = group->first; s < group->first + group->count; s++) shared += micah_shared_bytes(&x->steps[s]);
    if (shared > x->shared_bytes) x->shared_bytes = shared;
  }
  return MICA_OK;
}
