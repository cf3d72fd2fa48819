/* values that live within one chain: each worker has room for the rows of the tile under way, which stay in its caches.
 *
 * a step's call that begins at row n gets arguments whose wires begin n rows before the worker's room, so kernels address
 * rows as ever. this is for chains that a run cannot cut: all their phases are rows when probed, and what they write lies
 * row by row in memory of the executor, so that no caller's slots can make tasks of it sum. */
#include <string.h>

#include "program/executor.h"

/* does the phase touch this bit of the operand, and where does it lie? */
static micah_store *touched(const mica_executor *x, const micah_step *step, int operand, int bit) {
  const micah_entry *entry = &x->program->entries[step->entry];
  int r, w;
  micah_access(x, step->entry, step->face, operand, &r, &w);
  return (r | w) & bit ? micah_store_of(x, x->program->values[entry->binds[operand].value].root, bit) : NULL;
}

#define EACH_TOUCH(x, group, step, i, bit, store)                                                               \
  for (const micah_step *step = (x)->steps + (group)->first; step < (x)->steps + (group)->first + (group)->count; step++) \
    for (int i = 0; i < (x)->program->entries[step->entry].op->n_operands; i++)                                    \
      for (int bit = MICA_V; bit <= MICA_TD; bit <<= 1)                                                          \
        for (micah_store *store = touched(x, step, i, bit); store; store = NULL)

/* is it certain that this group runs as one chain? */
static int certain(const mica_executor *x, const micah_group *group) {
  const mica_program *p = x->program;
  if (group->count < 2) return 0;
  for (int32_t s = group->first; s < group->first + group->count; s++) {
    const micah_step *step = &x->steps[s];
    const micah_entry *entry = &p->entries[step->entry];
    if (!step->kernel || step->fused || !step->rows || !step->split.rows || entry->row_count != 1 ||
        step->split.units != micah_capacity(x, entry->row_axis))
      return 0;
  }
  EACH_TOUCH(x, group, step, i, bit, store) {
    const micah_entry *entry = &p->entries[step->entry];
    const micah_value *root = &p->values[p->values[entry->binds[i].value].root];
    int r, w;
    micah_access(x, step->entry, step->face, i, &r, &w);
    if (!(w & bit) || root->kind == MICA_VALUE_PARAM || store->where == MICAH_NOWHERE) continue;
    if (root->axis != entry->row_axis || !micah_aligned(entry, i)) return 0;
    if (store->where != MICAH_SCRATCH && store->where != MICAH_SAVED_BLOCK) return 0;
    for (int32_t o = 0; o < p->n_outputs; o++)
      if (p->values[p->outputs[o].value].root == root - p->values) return 0;
  }
  return 1;
}

static int lives_here(const micah_store *store, int32_t g) {
  return (store->first == g && store->last == g) || (store->last_again == g && store->again == g);
}

/* place: of each store, in what a worker has; room for all stores */
static mica_status plan_group(mica_executor *x, int32_t g, int64_t *at, int64_t *place) {
  enum { NOWHERE = -1 };
  const mica_program *p = x->program;
  micah_group *group = &x->groups[g];
  int64_t rows = group->tile, used = *at;
  int32_t n = 0;
  for (int32_t s = group->first; s < group->first + group->count; s++) /* a step's wish, within reason */
    if (x->steps[s].split.grain > rows) rows = x->steps[s].split.grain;
  if (rows > 2 * group->tile) rows = 2 * group->tile;
  memset(place, 0, (size_t)p->n_values * MICAH_WIRES * sizeof *place);
  EACH_TOUCH(x, group, step, i, bit, store) {
    const micah_entry *entry = &p->entries[step->entry];
    const micah_value *root = &p->values[p->values[entry->binds[i].value].root];
    n++;
    if (store->where != MICAH_SCRATCH || store->zero || !lives_here(store, g) || !micah_aligned(entry, i) ||
        root->axis != entry->row_axis || root->scan_axis >= 0 || micah_capacity(x, root->axis) <= rows * x->workers)
      place[store - x->stores] = NOWHERE;
  }
  micah_local *local = micah_region_alloc(&x->region, n, sizeof *local);
  if (!local) return MICA_ERR_MEMORY;
  EACH_TOUCH(x, group, step, i, bit, store) {
    int64_t index = store - x->stores;
    const micah_value *root = &p->values[index / MICAH_WIRES];
    if (place[index] == NOWHERE) continue;
    int64_t row = root->count * (int64_t)mica_dtype_size(micah_wire_dtype(x, (int32_t)(index / MICAH_WIRES), bit));
    if (!place[index]) {
      place[index] = used;
      used += (row * rows + 63) / 64 * 64;
      if (store->first == g && store->last == g) store->local = 1;
      else store->local_again = 1;
    }
    micah_step *own = &x->steps[step - x->steps];
    if (!own->n_local) own->local = local;
    own->n_local++;
    *local++ = (micah_local){ i, bit, row, place[index], index };
    group->local_rows = rows;
  }
  *at = used;
  return MICA_OK;
}

mica_status micah_plan_local(mica_executor *x) {
  const mica_program *p = x->program;
  if (x->backend != MICA_CPU) return MICA_OK;
  int64_t args = 0;
  for (int32_t e = 0; e < p->n_entries; e++)
    if ((int64_t)p->entries[e].op->args_size > args) args = (int64_t)p->entries[e].op->args_size;
  args = (args + 63) / 64 * 64;
  int64_t *place = micah_region_alloc(&x->region, (int64_t)p->n_values * MICAH_WIRES, sizeof *place);
  if (!place) return MICA_ERR_MEMORY;
  for (int32_t g = 0; g < x->n_groups; g++) {
    int64_t end = args;
    if (!certain(x, &x->groups[g])) continue;
    mica_status status = plan_group(x, g, &end, place);
    if (status < 0) return status;
    if (end > args && end > x->local_bytes) x->local_bytes = end;
  }
  return MICA_OK;
}

const void *micah_local_args(const mica_executor *x, const micah_step *step, int64_t first, int32_t worker) {
  const micah_entry *entry = &x->program->entries[step->entry];
  char *room = x->local + worker * x->local_bytes;
  memcpy(room, x->args[step->entry], entry->op->args_size);
  for (int32_t k = 0; k < step->n_local; k++) {
    const micah_local *l = &step->local[k];
    mica_wire *wire = micak_wire(micak_port(&entry->op->operands[l->operand], room), l->bit);
    uintptr_t home = (uintptr_t)(x->arena + x->stores[l->store].offset), part = (uintptr_t)wire->data - home;
    if (wire->data) wire->data = (void *)((uintptr_t)(room + l->at) - (uintptr_t)(first * l->row) + part);
  }
  return room;
}
