/* zero order: the steps run again from values moved by +- sigma along random directions e, and the cotangent u of the
 * last theta weighs the difference: d = mean of e <u, theta(+) - theta(-)> / (2 sigma), each task by itself. */
#include <string.h>

#include "adapt/along.h"
#include "common/op.h"
#include "common/philox.h"
#include "common/solve.h"

typedef struct micah_adapt_trial {
  micah_along along;
  char **v, **moved, **e, **sum;     /* [operand]: values, as moved, direction, what comes of it; NULL: stays */
  char **drawn;                      /* host: [operand] as e, and in the end the sum */
  char **u;                          /* host: [carry] */
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
  int64_t tasks = micah_capacity(x, entry->level), size = (int64_t)mica_dtype_size(x->dtype), widest = 1;
  if (!t) return MICA_ERR_MEMORY;
  if (x->dtype != MICA_F32 && x->dtype != MICA_F64)
    return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: zero order computes in f32 or f64, not %s",
                      x->program->name, entry->path, mica_dtype_name(x->dtype));
  char ***lists[] = { &t->v, &t->moved, &t->e, &t->sum, &t->drawn };
  for (int i = 0; i < MICA_COUNT(lists); i++)
    if (!(*lists[i] = micah_region_alloc(region, a->op.n_operands, sizeof **lists[i]))) return MICA_ERR_MEMORY;
  if (!(t->u = micah_region_alloc(region, a->n_carry, sizeof *t->u))) return MICA_ERR_MEMORY;
  for (int32_t k = 0; k < a->n_carry; k++)
    if (!(t->u[k] = micah_region_raw(region, tasks * a->carry[k].count * size))) return MICA_ERR_MEMORY;
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
    char **all[] = { &t->v[i], &t->moved[i], &t->e[i], &t->sum[i] };
    for (int k = 0; k < MICA_COUNT(all); k++)
      if (!(*all[k] = micah_data_alloc(x, bytes))) return MICA_ERR_MEMORY;
    if (!(t->drawn[i] = micah_region_raw(region, bytes))) return MICA_ERR_MEMORY;
    if (numbers(a, i) > widest) widest = numbers(a, i);
  }
  return micah_along_create(x, e, widest, &t->along);
}

static int64_t tasks_of(const micah_adapt_run *r) { return micah_rows(r->x, r->x->program->entries[r->entry].level); }
static int64_t bytes_of(const micah_adapt_run *r, int64_t n) { return n * (int64_t)mica_dtype_size(r->x->dtype); }

/* a task's key follows from its cotangents */
static micak_philox_key key_of(const micah_adapt_run *r, int64_t b) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (int32_t k = 0; k < r->a->n_carry; k++) {
    const int64_t bytes = bytes_of(r, r->a->carry[k].count);
    const unsigned char *u = (const unsigned char *)r->s->trial->u[k] + b * bytes;
    for (int64_t i = 0; i < bytes; i++) hash = (hash ^ u[i]) * 0x100000001b3ull;
  }
  return micak_philox_key_of(hash, micak_hash_name("zero order"), 0);
}

/* directions of every task for pair `pair` */
static mica_status draw(const micah_adapt_run *r, int64_t pair) {
  const trial *t = r->s->trial;
  const int64_t tasks = tasks_of(r), size = bytes_of(r, 1);
  for (int64_t b = 0; b < tasks; b++) {
    micak_philox_key key = key_of(r, b);
    for (int i = 0; i < r->a->op.n_operands; i++) {
      int64_t n = numbers(r->a, i);
      micak_stream one = micak_stream_at(key, (uint64_t)pair, (uint32_t)i);
      for (int64_t j = 0; t->e[i] && j < n; j++) {
        double e = r->a->options.direction == MICA_DIRECTION_NORMAL ? micak_stream_normal(&one)
                   : micak_stream_uniform(&one) < 0.5 ? -1 : 1;
        micak_from_double(r->x->dtype, &e, t->drawn[i] + (b * n + j) * size, 1);
      }
    }
  }
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++)
    if (t->e[i]) status = micah_data_put(r->x, t->e[i], t->drawn[i], tasks * bytes_of(r, numbers(r->a, i)));
  return status;
}

/* the steps from values moved by `by`; sums += sign <u, theta> */
static mica_status run(const micah_adapt_run *r, double by, double sign) {
  const trial *t = r->s->trial;
  const micah_adapt *a = r->a;
  const int64_t steps = a->options.steps;
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < a->op.n_operands; i++)
    if (t->moved[i]) status = micah_along_move(r, numbers(a, i), t->moved[i], t->v[i], by, NULL, t->e[i]);
  for (int64_t k = 0; status >= 0 && k < steps; k++) {
    for (int i = 0; status >= 0 && i < a->op.n_operands; i++) {
      const micah_adapt_operand *o = &a->operands[i];
      mica_wire wire = { .data = NULL };
      if (o->kind == MICAH_ADAPT_KEPT) continue;
      if (o->kind == MICAH_ADAPT_LAST)
        wire = (mica_wire){ .data = t->along.theta[2 * o->carry + (k + 1) % 2], .task_stride = -1 };
      else if (o->kind == MICAH_ADAPT_CARRY && k > 0)
        wire = (mica_wire){ .data = t->along.theta[2 * o->carry + k % 2], .task_stride = -1 };
      else if (o->kind != MICAH_ADAPT_ROW) {
        int64_t shift = o->kind == MICAH_ADAPT_STEPPED ? k * o->count : 0;
        wire = micah_adapt_wire(r, i, MICA_V, shift);
        if (t->moved[i])
          wire = (mica_wire){ .data = t->moved[i] + bytes_of(r, shift), .task_stride = numbers(a, i) };
      }
      status = micah_inner_bind(r->s->step, o->value, MICA_V, &wire, 0);
    }
    if (status >= 0) status = mica_executor_run(r->s->step, MICA_PASS_FORWARD, NULL);
  }
  return status < 0 ? status : micah_along_dots(r, &t->along, t->along.theta + steps % 2, sign);
}

/* cotangents here for the keys; values side by side; nothing summed yet */
static mica_status begin(const micah_adapt_run *r) {
  const trial *t = r->s->trial;
  const int64_t tasks = tasks_of(r);
  mica_status status = micah_along_begin(r, &t->along);
  for (int32_t k = 0; status >= 0 && k < r->a->n_carry; k++)
    status = micah_data_put(r->x, t->u[k], t->along.u[k], tasks * bytes_of(r, r->a->carry[k].count));
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    if ((r->a->op.operands[i].role & MICA_IN) && !t->e[i])
      status = micah_adapt_clear(r, i, 0, r->a->operands[i].kind == MICAH_ADAPT_STEPPED ? r->a->options.steps : 1);
    if (status < 0 || !t->e[i]) continue;
    const mica_wire from = micah_adapt_wire(r, i, MICA_V, 0);
    status = micah_along_rows(r, &from, numbers(r->a, i), t->v[i]);
    if (status >= 0) status = micah_along_zero(r, t->sum[i], tasks * bytes_of(r, numbers(r->a, i)));
  }
  return status;
}

mica_status micah_adapt_trial_back(const micah_adapt_run *r) {
  const trial *t = r->s->trial;
  const mica_adapt_options *o = &r->a->options;
  const int64_t tasks = tasks_of(r);
  mica_status status = begin(r);
  for (int64_t pair = 0; status >= 0 && pair < o->directions; pair++) {
    status = draw(r, pair);
    if (status >= 0) status = micah_along_zero(r, t->along.sums, tasks * (int64_t)sizeof(double));
    if (status >= 0) status = run(r, o->sigma, 1);
    if (status >= 0) status = run(r, -o->sigma, -1);
    for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++)
      if (t->e[i])
        status = micah_along_move(r, numbers(r->a, i), t->sum[i], t->sum[i],
                                  1 / (2 * o->sigma * (double)o->directions), t->along.sums, t->e[i]);
  }
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    if (!t->e[i]) continue;
    status = micah_data_put(r->x, t->drawn[i], t->sum[i], tasks * bytes_of(r, numbers(r->a, i)));
    if (status >= 0) status = micah_along_add(r, &t->along, i, 0, t->drawn[i], numbers(r->a, i));
  }
  return status;
}
