/* forward mode: the tangent of theta by each number of the meta-parameters is carried through the steps, and meets the
 * cotangent of the last theta at the end. nothing is kept; the cost is that of the steps once more for each number. */
#include <string.h>

#include "adapt/adapt.h"
#include "common/op.h"
#include "common/solve.h"

enum { NUMBERS_MOST = 65536 };

typedef struct micah_adapt_tangent {
  char  **theta, **t;                /* [carry][2] */
  char   *direction;                 /* (tasks, widest port) */
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
  t->theta = micah_region_alloc(region, 2 * (int64_t)a->n_carry, sizeof *t->theta);
  t->t = micah_region_alloc(region, 2 * (int64_t)a->n_carry, sizeof *t->t);
  t->direction = micah_region_raw(region, tasks * widest * size);
  if (!t->theta || !t->t || !t->direction) return MICA_ERR_MEMORY;
  for (int32_t k = 0; k < 2 * a->n_carry; k++) {
    int64_t bytes = tasks * a->carry[k / 2].count * size;
    if (!(t->theta[k] = micah_region_raw(region, bytes)) || !(t->t[k] = micah_region_raw(region, bytes)))
      return MICA_ERR_MEMORY;
  }
  return MICA_OK;
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
                 : (mica_wire){ .data = t->theta[2 * o->carry + k % 2], .task_stride = -1 };
      if (k > 0) dv = (mica_wire){ .data = t->t[2 * o->carry + k % 2], .task_stride = -1 };
    } else if (o->kind == MICAH_ADAPT_LAST) {
      v = (mica_wire){ .data = t->theta[2 * o->carry + (k + 1) % 2], .task_stride = -1 };
      dv = (mica_wire){ .data = t->t[2 * o->carry + (k + 1) % 2], .task_stride = -1 };
    } else {
      v = micah_adapt_wire(r, i, MICA_V, o->kind == MICAH_ADAPT_STEPPED ? k * o->count : 0);
      if (i == port && (when < 0 || when == k)) dv = (mica_wire){ .data = t->direction, .task_stride = o->count };
    }
    status = micah_inner_bind(r->s->step, o->value, MICA_V, &v, 0);
    int real = o->kind == MICAH_ADAPT_ROW || o->kind == MICAH_ADAPT_LAST || r->s->step->wanted[o->value];
    if (status >= 0 && real) status = micah_inner_bind(r->s->step, o->value, MICA_T, &dv, 0);
  }
  return status < 0 ? status : mica_executor_run(r->s->step, MICA_PASS_FORWARD | MICA_PASS_JVP, NULL);
}

/* d of element `at` of each task: <cotangent of the last theta, tangent>, in task order */
static void meet(const micah_adapt_run *r, int port, int64_t at, int64_t shift) {
  const tangent *t = r->s->tangent;
  int64_t size = (int64_t)mica_dtype_size(r->x->dtype), steps = r->a->options.steps;
  mica_wire d = micah_adapt_wire(r, port, MICA_D, shift + at);
  int64_t tasks = micah_rows(r->x, r->x->program->entries[r->entry].level);
  for (int64_t b = 0; b < tasks; b++) {
    char *to = micak_task(&d, NULL, b);
    if (!to) continue;
    if (!(d.flags & MICA_ADD) && !micak_same_slot(&d, NULL, b)) memset(to, 0, (size_t)size);
    double sum = 0;
    for (int32_t k = 0; k < r->a->n_carry; k++) {
      const micah_adapt_carry *c = &r->a->carry[k];
      const void *u = micak_task(&micah_inner_port(r->args, c->last)->d, NULL, b);
      if (u) sum += micak_dot(r->x->dtype, u, t->t[2 * k + steps % 2] + b * c->count * size, c->count);
    }
    micak_add_one(r->x->dtype, to, sum);
  }
}

mica_status micah_adapt_tangent_back(const micah_adapt_run *r) {
  tangent *t = r->s->tangent;
  int64_t size = (int64_t)mica_dtype_size(r->x->dtype), steps = r->a->options.steps;
  int64_t tasks = micah_rows(r->x, r->x->program->entries[r->entry].level);
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    const micah_adapt_operand *o = &r->a->operands[i];
    if (r->a->operands[i].kind == MICAH_ADAPT_CARRY) status = micah_adapt_clear(r, i, 0, 1);
    if (!moves(r->a, r->s->step, i) || !micah_inner_port(r->args, i)->d.data) continue;
    int each = o->kind == MICAH_ADAPT_STEPPED;
    for (int64_t when = 0; status >= 0 && when < (each ? steps : 1); when++)
      for (int64_t at = 0; status >= 0 && at < o->count; at++) {
        memset(t->direction, 0, (size_t)(tasks * o->count * size));
        for (int64_t b = 0; b < tasks; b++) micak_add_one(r->x->dtype, t->direction + (b * o->count + at) * size, 1);
        for (int64_t k = 0; status >= 0 && k < steps; k++) status = step(r, k, i, each ? when : -1);
        if (status >= 0) meet(r, i, at, each ? when * o->count : 0);
      }
  }
  return status;
}
