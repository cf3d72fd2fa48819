/* forward mode: the tangent of theta by each number of the meta-parameters is carried through the steps, and meets the
 * cotangent of the last theta at the end. nothing is kept; the cost is that of the steps once more for each number. */
#include <string.h>

#include "adapt/along.h"
#include "common/op.h"
#include "common/solve.h"

enum { NUMBERS_MOST = 65536 };

typedef struct micah_adapt_tangent {
  micah_along along;
  char  **t;                         /* [carry][2] */
  char   *direction;                 /* (widest port), of all tasks */
  char   *unit, *rows;               /* host: the same; (tasks) products */
  double *sums;                      /* host: (tasks) */
} tangent;

/* ports that move: real, not carried, one row a task */
static int moves(const micah_adapt *a, const mica_executor *step, int i) {
  const micah_adapt_operand *o = &a->operands[i];
  return (a->op.operands[i].role & MICA_IN) && (o->kind == MICAH_ADAPT_OUTER || o->kind == MICAH_ADAPT_STEPPED) &&
         step->wanted[o->value];
}

mica_status micah_adapt_tangent_create(mica_executor *x, int32_t e, micah_adapt_state *s) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  micah_region *region = &x->region;
  tangent *t = s->tangent = micah_region_alloc(region, 1, sizeof *t);
  if (!t) return MICA_ERR_MEMORY;
  int64_t tasks = micah_capacity(x, entry->level), size = (int64_t)mica_dtype_size(x->dtype), widest = 1, all = 0;
  if (x->dtype != MICA_F32 && x->dtype != MICA_F64)
    return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: forward mode computes in f32 or f64, not %s",
                      x->program->name, entry->path, mica_dtype_name(x->dtype));
  for (int i = 0; i < a->op.n_operands; i++) {
    const micah_adapt_operand *o = &a->operands[i];
    if (o->kind == MICAH_ADAPT_ROW && x->active[x->program->values[entry->binds[i].value].root] &&
        micah_store_of(x, x->program->values[entry->binds[i].value].root, MICA_D)->where != MICAH_NOWHERE)
      return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: forward mode differentiates the last values alone, not "
                        "'%s' of every step; use the unrolled method", x->program->name, entry->path,
                        a->op.operands[i].name);
    if (!moves(a, s->step, i)) continue;
    if (a->step->values[o->value].axis >= 0)
      return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: forward mode takes few numbers, '%s' has rows of axis "
                        "%s; use the unrolled method", x->program->name, entry->path, a->op.operands[i].name,
                        a->step->axes[a->step->values[o->value].axis].name);
    all += o->count * (o->kind == MICAH_ADAPT_STEPPED ? a->options.steps : 1);
    if (o->count > widest) widest = o->count;
  }
  if (all > NUMBERS_MOST)
    return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: forward mode would carry %lld tangents, expected at most "
                      "%d; use the unrolled method", x->program->name, entry->path, (long long)all, NUMBERS_MOST);
  mica_status status = micah_along_create(x, e, 1, &t->along);
  t->t = micah_region_alloc(region, 2 * (int64_t)a->n_carry, sizeof *t->t);
  t->direction = micah_data_alloc(x, widest * size);
  t->unit = micah_region_alloc(region, widest, size);
  t->rows = micah_region_raw(region, tasks * size);
  t->sums = micah_region_alloc(region, tasks, sizeof *t->sums);
  if (!t->t || !t->direction || !t->unit || !t->rows || !t->sums) return MICA_ERR_MEMORY;
  for (int32_t k = 0; k < 2 * a->n_carry; k++)
    if (!(t->t[k] = micah_data_alloc(x, tasks * a->carry[k / 2].count * size))) return MICA_ERR_MEMORY;
  return status;
}

/* one step down with the tangent of element `at` of port `port` at step `when` (-1: at every step) */
static mica_status step(const micah_adapt_run *r, int64_t k, int port, int64_t when) {
  const mica_wire none = { .data = NULL };
  tangent *t = r->s->tangent;
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    const micah_adapt_operand *o = &r->a->operands[i];
    mica_wire v = none, dv = none;
    if (o->kind == MICAH_ADAPT_ROW || o->kind == MICAH_ADAPT_KEPT) {
      if (o->kind == MICAH_ADAPT_KEPT) continue;
    } else if (o->kind == MICAH_ADAPT_CARRY) {
      v = k == 0 ? micah_adapt_wire(r, i, MICA_V, 0)
                 : (mica_wire){ .data = t->along.theta[2 * o->carry + k % 2], .task_stride = -1 };
      if (k > 0) dv = (mica_wire){ .data = t->t[2 * o->carry + k % 2], .task_stride = -1 };
    } else if (o->kind == MICAH_ADAPT_LAST) {
      v = (mica_wire){ .data = t->along.theta[2 * o->carry + (k + 1) % 2], .task_stride = -1 };
      dv = (mica_wire){ .data = t->t[2 * o->carry + (k + 1) % 2], .task_stride = -1 };
    } else {
      v = micah_adapt_wire(r, i, MICA_V, o->kind == MICAH_ADAPT_STEPPED ? k * o->count : 0);
      if (i == port && (when < 0 || when == k)) dv = (mica_wire){ .data = t->direction, .task_stride = 0 };
    }
    status = micah_inner_bind(r->s->step, o->value, MICA_V, &v, 0);
    int real = o->kind == MICAH_ADAPT_ROW || o->kind == MICAH_ADAPT_LAST || r->s->step->wanted[o->value];
    if (status >= 0 && real) status = micah_inner_bind(r->s->step, o->value, MICA_T, &dv, 0);
  }
  return status < 0 ? status : mica_executor_run(r->s->step, MICA_PASS_FORWARD | MICA_PASS_JVP, NULL);
}

/* d of element `at` of each task: <cotangent of the last theta, tangent> */
static mica_status meet(const micah_adapt_run *r, int port, int64_t at) {
  const tangent *t = r->s->tangent;
  const int64_t steps = r->a->options.steps;
  const int64_t tasks = micah_rows(r->x, r->x->program->entries[r->entry].level);
  const int64_t bytes = tasks * (int64_t)sizeof(double);
  mica_status status = micah_along_zero(r, t->along.sums, bytes);
  if (status >= 0) status = micah_along_dots(r, &t->along, t->t + steps % 2, 1);
  if (status >= 0) status = micah_data_put(r->x, t->sums, t->along.sums, bytes);
  if (status < 0) return status;
  micak_from_double(r->x->dtype, t->sums, t->rows, tasks);
  return micah_along_add(r, &t->along, port, at, t->rows, 1);
}

/* 1 at `at`, and nowhere else */
static mica_status point(const micah_adapt_run *r, int64_t count, int64_t at) {
  const tangent *t = r->s->tangent;
  const int64_t size = (int64_t)mica_dtype_size(r->x->dtype);
  memset(t->unit, 0, (size_t)(count * size));
  micak_add_one(r->x->dtype, t->unit + at * size, 1);
  return micah_data_put(r->x, t->direction, t->unit, count * size);
}

mica_status micah_adapt_tangent_back(const micah_adapt_run *r) {
  const int64_t steps = r->a->options.steps;
  mica_status status = micah_along_begin(r, &r->s->tangent->along);
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    const micah_adapt_operand *o = &r->a->operands[i];
    if (o->kind == MICAH_ADAPT_CARRY) status = micah_adapt_clear(r, i, 0, 1);
    if (!moves(r->a, r->s->step, i) || !micah_inner_port(r->args, i)->d.data) continue;
    const int each = o->kind == MICAH_ADAPT_STEPPED;
    for (int64_t when = 0; status >= 0 && when < (each ? steps : 1); when++)
      for (int64_t at = 0; status >= 0 && at < o->count; at++) {
        status = point(r, o->count, at);
        for (int64_t k = 0; status >= 0 && k < steps; k++) status = step(r, k, i, each ? when : -1);
        if (status >= 0) status = meet(r, i, (each ? when * o->count : 0) + at);
      }
  }
  return status;
}
