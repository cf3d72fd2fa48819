/* zero order: the steps run again from values moved by +- sigma along random directions e, and the cotangent u of the
 * last theta weighs the difference: d = mean of e <u, theta(+) - theta(-)> / (2 sigma), each task by itself. */
#include <string.h>

#include "adapt/adapt.h"
#include "common/op.h"
#include "common/philox.h"
#include "common/solve.h"

typedef struct micah_adapt_trial {
  char  **theta;                     /* [carry][2] */
  char  **moved, **e;                /* [operand]: values as moved, direction; (tasks, numbers), NULL: stays */
  double *weight;                    /* (tasks) */
} trial;

static int64_t numbers(const micah_adapt *a, int i) {
  const micah_adapt_operand *o = &a->operands[i];
  return o->count * (o->kind == MICAH_ADAPT_STEPPED ? a->options.steps : 1);
}

mica_status micah_adapt_trial_create(mica_executor *x, int32_t e, micah_adapt_state *s) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  micah_region *region = &x->region;
  trial *t = s->trial = micah_region_alloc(region, 1, sizeof *t);
  int64_t tasks = micah_capacity(x, entry->level), size = (int64_t)mica_dtype_size(x->dtype);
  if (!t) return MICA_ERR_MEMORY;
  if (x->dtype != MICA_F32 && x->dtype != MICA_F64)
    return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: zero order computes in f32 or f64, not %s",
                      x->program->name, entry->path, mica_dtype_name(x->dtype));
  t->theta = micah_region_alloc(region, 2 * (int64_t)a->n_carry, sizeof *t->theta);
  t->moved = micah_region_alloc(region, a->op.n_operands, sizeof *t->moved);
  t->e = micah_region_alloc(region, a->op.n_operands, sizeof *t->e);
  t->weight = micah_region_alloc(region, tasks, sizeof *t->weight);
  if (!t->theta || !t->moved || !t->e || !t->weight) return MICA_ERR_MEMORY;
  for (int32_t k = 0; k < 2 * a->n_carry; k++)
    if (!(t->theta[k] = micah_region_raw(region, tasks * a->carry[k / 2].count * size))) return MICA_ERR_MEMORY;
  for (int i = 0; i < a->op.n_operands; i++) {
    const micah_adapt_operand *o = &a->operands[i];
    int32_t root = x->program->values[entry->binds[i].value].root;
    if (o->kind == MICAH_ADAPT_ROW && x->active[root] && micah_store_of(x, root, MICA_D)->where != MICAH_NOWHERE)
      return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: zero order differentiates the last values alone, not "
                        "'%s' of every step; use the unrolled method", x->program->name, entry->path,
                        a->op.operands[i].name);
    if (!(a->op.operands[i].role & MICA_IN) || !x->active[root]) continue;
    if (a->step->values[o->value].axis >= 0)
      return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: zero order moves numbers of a task, '%s' has rows of "
                        "axis %s; use the unrolled method", x->program->name, entry->path, a->op.operands[i].name,
                        a->step->axes[a->step->values[o->value].axis].name);
    int64_t bytes = tasks * numbers(a, i) * size;
    if (!(t->moved[i] = micah_region_raw(region, bytes)) || !(t->e[i] = micah_region_raw(region, bytes)))
      return MICA_ERR_MEMORY;
  }
  return MICA_OK;
}

/* a task's key follows from its cotangents */
static micak_philox_key key_of(const micah_adapt_run *r, int64_t b) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (int32_t k = 0; k < r->a->n_carry; k++) {
    const micah_adapt_carry *c = &r->a->carry[k];
    const unsigned char *u = micak_task(&micah_inner_port(r->args, c->last)->d, NULL, b);
    for (int64_t i = 0; u && i < c->count * (int64_t)mica_dtype_size(r->x->dtype); i++)
      hash = (hash ^ u[i]) * 0x100000001b3ull;
  }
  return micak_philox_key_of(hash, micak_hash_name("zero order"), 0);
}

/* directions of every task for pair `pair` */
static void draw(const micah_adapt_run *r, int64_t tasks, int64_t pair) {
  trial *t = r->s->trial;
  int64_t size = (int64_t)mica_dtype_size(r->x->dtype);
  for (int64_t b = 0; b < tasks; b++) {
    micak_philox_key key = key_of(r, b);
    for (int i = 0; i < r->a->op.n_operands; i++) {
      int64_t n = numbers(r->a, i);
      micak_stream one = micak_stream_at(key, (uint64_t)pair, (uint32_t)i);
      for (int64_t j = 0; t->e[i] && j < n; j++) {
        double e = r->a->options.direction == MICA_DIRECTION_NORMAL ? micak_stream_normal(&one)
                   : micak_stream_uniform(&one) < 0.5 ? -1 : 1;
        micak_from_double(r->x->dtype, &e, t->e[i] + (b * n + j) * size, 1);
      }
    }
  }
}

/* the steps from values moved by `by`; weight += sign <u, theta> */
static mica_status run(const micah_adapt_run *r, int64_t tasks, double by, double sign) {
  trial *t = r->s->trial;
  const micah_adapt *a = r->a;
  int64_t size = (int64_t)mica_dtype_size(r->x->dtype), steps = a->options.steps;
  for (int i = 0; i < a->op.n_operands; i++) {
    int64_t n = numbers(a, i);
    mica_wire from = micah_adapt_wire(r, i, MICA_V, 0);
    for (int64_t b = 0; t->moved[i] && b < tasks; b++) {
      char *to = t->moved[i] + b * n * size;
      const void *v = micak_task(&from, NULL, b);
      if (v) memcpy(to, v, (size_t)(n * size));
      else memset(to, 0, (size_t)(n * size));
      micak_combine(r->x->dtype, to, by, t->e[i] + b * n * size, 1, n);
    }
  }
  mica_status status = MICA_OK;
  for (int64_t k = 0; status >= 0 && k < steps; k++) {
    for (int i = 0; status >= 0 && i < a->op.n_operands; i++) {
      const micah_adapt_operand *o = &a->operands[i];
      mica_wire wire = { .data = NULL };
      if (o->kind == MICAH_ADAPT_KEPT) continue;
      if (o->kind == MICAH_ADAPT_LAST)
        wire = (mica_wire){ .data = t->theta[2 * o->carry + (k + 1) % 2], .task_stride = -1 };
      else if (o->kind == MICAH_ADAPT_CARRY && k > 0)
        wire = (mica_wire){ .data = t->theta[2 * o->carry + k % 2], .task_stride = -1 };
      else if (o->kind != MICAH_ADAPT_ROW) {
        int64_t shift = o->kind == MICAH_ADAPT_STEPPED ? k * o->count : 0;
        wire = micah_adapt_wire(r, i, MICA_V, shift);
        if (t->moved[i]) wire = (mica_wire){ .data = t->moved[i] + shift * size, .task_stride = numbers(a, i) };
      }
      status = micah_inner_bind(r->s->step, o->value, MICA_V, &wire, 0);
    }
    if (status >= 0) status = mica_executor_run(r->s->step, MICA_PASS_FORWARD, NULL);
  }
  for (int64_t b = 0; status >= 0 && b < tasks; b++)
    for (int32_t k = 0; k < a->n_carry; k++) {
      const micah_adapt_carry *c = &a->carry[k];
      const void *u = micak_task(&micah_inner_port(r->args, c->last)->d, NULL, b);
      const char *theta = t->theta[2 * k + steps % 2] + b * c->count * size;
      if (u) t->weight[b] += sign * micak_dot(r->x->dtype, u, theta, c->count);
    }
  return status;
}

mica_status micah_adapt_trial_back(const micah_adapt_run *r) {
  trial *t = r->s->trial;
  const mica_adapt_options *o = &r->a->options;
  int64_t size = (int64_t)mica_dtype_size(r->x->dtype);
  int64_t tasks = micah_rows(r->x, r->x->program->entries[r->entry].level);
  for (int i = 0; i < r->a->op.n_operands; i++)
    if (r->a->op.operands[i].role & MICA_IN)
      micah_adapt_clear(r, i, 0, r->a->operands[i].kind == MICAH_ADAPT_STEPPED ? o->steps : 1);
  mica_status status = MICA_OK;
  for (int64_t pair = 0; status >= 0 && pair < o->directions; pair++) {
    draw(r, tasks, pair);
    memset(t->weight, 0, (size_t)tasks * sizeof *t->weight);
    status = run(r, tasks, o->sigma, 1);
    if (status >= 0) status = run(r, tasks, -o->sigma, -1);
    for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
      mica_wire d = micah_adapt_wire(r, i, MICA_D, 0);
      int64_t n = numbers(r->a, i);
      for (int64_t b = 0; t->e[i] && b < tasks; b++) {
        void *to = micak_task(&d, NULL, b);
        double weight = t->weight[b] / (2 * o->sigma * (double)o->directions);
        if (to) micak_combine(r->x->dtype, to, weight, t->e[i] + b * n * size, 1, n);
      }
    }
  }
  return status;
}
