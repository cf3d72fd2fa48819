/* what the sweeps along directions share: cotangents of all tasks side by side on the device, their products with
 * tangents or trials, and what comes of them on its way into ports whose tasks may share a slot */
#include <string.h>

#include "adapt/along.h"
#include "common/op.h"
#include "common/solve.h"
#include "directions/directions.h"

static int64_t tasks_of(const micah_adapt_run *r) { return micah_rows(r->x, r->x->program->entries[r->entry].level); }
static int64_t size_of(const micah_adapt_run *r) { return (int64_t)mica_dtype_size(r->x->dtype); }

mica_status micah_along_create(mica_executor *x, int32_t e, int64_t widest, micah_along *out) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  const int64_t tasks = micah_capacity(x, entry->level), size = (int64_t)mica_dtype_size(x->dtype);
  out->u = micah_region_alloc(&x->region, a->n_carry, sizeof *out->u);
  out->theta = micah_region_alloc(&x->region, 2 * (int64_t)a->n_carry, sizeof *out->theta);
  out->sums = micah_data_alloc(x, tasks * (int64_t)sizeof(double));
  out->staging = micah_region_raw(&x->region, tasks * widest * size);
  if (!out->u || !out->theta || !out->sums || !out->staging) return MICA_ERR_MEMORY;
  for (int32_t k = 0; k < a->n_carry; k++) {
    const int64_t bytes = tasks * a->carry[k].count * size;
    if (!(out->u[k] = micah_data_alloc(x, bytes))) return MICA_ERR_MEMORY;
    for (int i = 0; i < 2; i++)
      if (!(out->theta[2 * k + i] = micah_data_alloc(x, bytes))) return MICA_ERR_MEMORY;
  }
  return MICA_OK;
}

mica_status micah_along_rows(const micah_adapt_run *r, const mica_wire *wire, int64_t count, char *to) {
  const int64_t bytes = count * size_of(r);
  micah_mover mover = { .x = r->x, .bytes = (size_t)bytes };
  for (int64_t b = 0; b < tasks_of(r); b++) micah_move(&mover, to + b * bytes, micak_task(wire, NULL, b));
  return micah_move_end(&mover);
}

mica_status micah_along_begin(const micah_adapt_run *r, const micah_along *s) {
  mica_status status = MICA_OK;
  for (int32_t k = 0; status >= 0 && k < r->a->n_carry; k++) {
    const micah_adapt_carry *c = &r->a->carry[k];
    status = micah_along_rows(r, &micah_inner_port(r->args, c->last)->d, c->count, s->u[k]);
  }
  return status;
}

mica_status micah_along_zero(const micah_adapt_run *r, void *at, int64_t bytes) {
  return r->x->device->ops->fill(r->x->device, r->x->stream, at, 0, (size_t)bytes);
}

mica_status micah_along_dots(const micah_adapt_run *r, const micah_along *s, char *const *x, double scale) {
  mica_status status = MICA_OK;
  for (int32_t k = 0; status >= 0 && k < r->a->n_carry; k++) {
    const micak_dots job = { .dtype = r->x->dtype, .tasks = tasks_of(r), .n = r->a->carry[k].count, .u = s->u[k],
                             .x = x[2 * k], .scale = scale, .sums = s->sums };
    if (r->x->backend == MICA_CUDA) status = micak_directions_dot_cuda(r->x->stream, &job);
    else micak_directions_dot(&job);
  }
  return status;
}

mica_status micah_along_move(const micah_adapt_run *r, int64_t n, char *to, const char *from, double by,
                             const double *weight, const char *e) {
  const micak_moved job = { .dtype = r->x->dtype, .tasks = tasks_of(r), .n = n, .to = to, .from = from, .e = e,
                            .by = by, .weight = weight };
  if (r->x->backend == MICA_CUDA) return micak_directions_move_cuda(r->x->stream, &job);
  micak_directions_move(&job);
  return MICA_OK;
}

mica_status micah_along_add(const micah_adapt_run *r, const micah_along *s, int operand, int64_t shift,
                            const char *rows, int64_t n) {
  const mica_wire d = micah_adapt_wire(r, operand, MICA_D, shift);
  const int64_t bytes = n * size_of(r), tasks = tasks_of(r);
  micah_mover mover = { .x = r->x, .bytes = (size_t)bytes };
  mica_status status = MICA_OK;
  char *first = s->staging;            /* of a slot's tasks */
  if (!d.data) return MICA_OK;
  for (int64_t b = 0; (d.flags & MICA_ADD) && b < tasks; b++) {
    char *at = micak_same_slot(&d, NULL, b) ? NULL : micak_task(&d, NULL, b);
    if (at) micah_move(&mover, s->staging + b * bytes, at);
  }
  if (d.flags & MICA_ADD) {
    status = micah_move_end(&mover);
    if (status >= 0) status = r->x->device->ops->stream_sync(r->x->device, r->x->stream);
  } else memset(s->staging, 0, (size_t)(tasks * bytes));
  for (int64_t b = 0; status >= 0 && b < tasks; b++) {
    if (!micak_task(&d, NULL, b)) continue;
    if (!micak_same_slot(&d, NULL, b)) first = s->staging + b * bytes;
    micak_combine(r->x->dtype, first, 1, rows + b * bytes, 1, n);
  }
  for (int64_t b = 0; status >= 0 && b < tasks; b++) {
    char *at = micak_same_slot(&d, NULL, b) ? NULL : micak_task(&d, NULL, b);
    if (at) micah_move(&mover, at, s->staging + b * bytes);
  }
  if (status >= 0) status = micah_move_end(&mover);
  return status < 0 ? status : r->x->device->ops->stream_sync(r->x->device, r->x->stream);
}
