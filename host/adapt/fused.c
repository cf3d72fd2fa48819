#include "adapt/fused.h"

#include <stdio.h>
#include <string.h>

#include "common/op.h"
#include "linear/linear.h"
#include "loss/loss.h"
#include "reduce/reduce.h"

/* ---- what a step program is ---- */

static int32_t bound_to(const micah_entry *entry, const char *port) {
  for (int i = 0; i < entry->op->n_operands; i++)
    if (!strcmp(entry->op->operands[i].name, port)) return entry->binds[i].value;
  return -1;
}
/* a value of `p` that is whole: not a slice */
static int whole(const mica_program *p, int32_t v) {
  return v >= 0 && p->values[v].count == p->values[p->values[v].root].count;
}
static int is_input(const mica_program *p, int32_t v) { return whole(p, v) && p->values[v].kind == MICA_VALUE_INPUT; }
static int is_param(const mica_program *p, int32_t v, int32_t rank) {
  return whole(p, v) && p->values[v].kind == MICA_VALUE_PARAM && p->values[v].rank == rank;
}

static mica_value in_step(const mica_step *step, const mica_program *loss, int32_t value) {
  return value < 0 ? -1 : mica_program_find(step->program, loss->values[value].name);
}

/* layers of the loss program in `names` (values of `loss`); 0: it is something else */
static int match_loss(const mica_program *p, const char *output, micah_mlp_step *m) {
  int n = p->n_entries - 2, last = -1;
  if (n < 1 || n > MICAK_MLP_LAYERS) return 0;
  for (int i = 0; i < MICAK_MLP_PARAMS; i++) m->param[i] = -1;
  for (int l = 0; l < n; l++) {
    const micah_entry *e = &p->entries[l];
    if (strcmp(e->op->name, "linear") || e->inner || bound_to(e, "res") >= 0) return 0;
    int32_t x = bound_to(e, "x"), w = bound_to(e, "w"), b = bound_to(e, "b");
    int32_t act = (int32_t)((mica_linear_args *)e->args)->act;
    if (!is_param(p, w, 2) || (b >= 0 && !is_param(p, b, 1)) || x < 0) return 0;
    if (l == 0 ? !is_input(p, x) || p->values[x].rank != 1 || p->values[x].axis < 0
               : !whole(p, x) || p->values[x].root != last) return 0;
    if (l == 0) m->x = x, m->width[0] = p->values[w].shape[1];
    if (n == 1 || l + 1 < n) m->act = l + 1 < n ? act : MICA_ACT_RELU;
    if (l + 1 == n ? act != MICA_ACT_NONE : act != MICA_ACT_RELU && act != MICA_ACT_TANH && act != MICA_ACT_SIGMOID)
      return 0;
    if (l > 0 && l + 1 < n && act != (int32_t)((mica_linear_args *)p->entries[0].args)->act) return 0;
    m->param[2 * l] = w, m->param[2 * l + 1] = b, m->width[l + 1] = p->values[w].shape[0];
    if (m->width[l] > MICAK_MLP_WIDTH || m->width[l + 1] > MICAK_MLP_WIDTH) return 0;
    last = p->values[bound_to(e, "y")].root;
  }
  const micah_entry *mse = &p->entries[n], *mean = &p->entries[n + 1];
  if (strcmp(mse->op->name, "mse") || strcmp(mean->op->name, "mean")) return 0;
  m->y = bound_to(mse, "target");
  int32_t pred = bound_to(mse, "pred"), rows = bound_to(mean, "x");
  if (!whole(p, pred) || p->values[pred].root != last || !is_input(p, m->y) || bound_to(mse, "weight") >= 0) return 0;
  /* the sum of an output's squares, or their mean over one number */
  if (((mica_mse_args *)mse->args)->reduction != 0 && m->width[n] != 1) return 0;
  if (!whole(p, rows) || p->values[rows].root != p->values[bound_to(mse, "loss")].root) return 0;
  if (((mica_reduce_args *)mean->args)->axis != 0) return 0;
  for (int32_t i = 0; i < p->n_outputs; i++)
    if (!strcmp(p->outputs[i].name, output) &&
        p->values[p->outputs[i].value].root == p->values[bound_to(mean, "y")].root) return n;
  return 0;
}

mica_status micah_mlp_match(const mica_program *loss, const char *output, const mica_step_options *o, mica_step *step) {
  micah_mlp_step m;
  memset(&m, 0, sizeof m);
  if (strcmp(o->update, "sgd") || o->proximal || o->every || o->block || o->rates == MICA_RATE_ELEMENT ||
      step->n_trained != loss->n_params || loss->n_inputs != 2 || !(m.layers = match_loss(loss, output, &m)))
    return MICA_OK;
  m.first_order = o->first_order;
  m.x = in_step(step, loss, m.x), m.y = in_step(step, loss, m.y);
  for (int i = 0; i < 2 * m.layers; i++) {
    char name[300];
    m.rate[i] = -1;
    if (m.param[i] < 0) continue;
    snprintf(name, sizeof name, o->rates == MICA_RATE_ONE ? "rate" : "rate.%s", loss->values[m.param[i]].name);
    m.rate[i] = mica_program_find(step->program, name);
    m.param[i] = in_step(step, loss, m.param[i]);
    if (m.rate[i] < 0 || m.param[i] < 0) return mica_error(MICA_ERR_INTERNAL, "step program without '%s'", name);
  }
  micah_mlp_step *kept = micah_region_alloc(&step->program->region, 1, sizeof *kept);
  if (!kept) return MICA_ERR_MEMORY;
  *kept = m;
  step->program->mlp = kept;
  return MICA_OK;
}

/* ---- running it ---- */

typedef struct micah_adapt_fused {
  micak_mlp_loop loop;
  int32_t        x, y, loss;     /* operands */
  int32_t        param[MICAK_MLP_PARAMS], rate[MICAK_MLP_PARAMS];
  int32_t        workers;
  mica_exec     *exec;           /* [workers] */
} fused;

static int32_t operand_of(const micah_adapt *a, mica_value value) {
  for (int i = 0; value >= 0 && i < a->op.n_operands; i++)
    if ((a->op.operands[i].role & MICA_IN) && a->operands[i].value == value) return i;
  return -1;
}
/* is a cotangent wanted of what operand i is bound to? */
static int wanted(const mica_executor *x, int32_t entry, int i) {
  const mica_program *p = x->program;
  return i >= 0 && x->active[p->values[p->entries[entry].binds[i].value].root];
}

static int suits(const mica_executor *x, int32_t e, const micah_adapt *a, const fused *f, int back) {
  const mica_adapt_options *o = &a->options;
  if (x->backend != MICA_CPU || x->dtype != MICA_F32 || o->data) return 0;
  if (o->method != MICA_ADAPT_UNROLLED && o->method != MICA_ADAPT_TRUNCATED) return back == 0;
  return !back || (!wanted(x, e, f->x) && !wanted(x, e, f->y));
}

mica_status micah_fused_create(mica_executor *x, int32_t e, micah_adapt_state *s) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  const micah_mlp_step *m = a->step->mlp;
  micah_region *region = &x->region;
  if (!m) return MICA_OK;
  fused f = { .x = operand_of(a, m->x), .y = operand_of(a, m->y), .loss = -1 };
  int back = micah_face_runs(x, e, MICA_BACKWARD), rates = 0;
  if (!suits(x, e, a, &f, back)) return MICA_OK;
  micak_mlp_loop *l = &f.loop;
  l->layers = m->layers, l->act = m->act, l->first_order = m->first_order, l->steps = a->options.steps;
  l->stride = micah_adapt_stride(&a->options);
  l->stop = a->options.method == MICA_ADAPT_TRUNCATED ? l->steps - a->options.last : 0;
  memcpy(l->width, m->width, sizeof l->width);
  for (int i = 0; i < a->op.n_operands; i++)
    if (a->operands[i].kind == MICAH_ADAPT_ROW) f.loss = i;
  int64_t tasks = micah_capacity(x, entry->level);
  for (int i = 0; i < 2 * m->layers; i++) {
    f.param[i] = operand_of(a, m->param[i]), f.rate[i] = operand_of(a, m->rate[i]);
    if (f.param[i] < 0) continue;
    rates |= back && wanted(x, e, f.rate[i]);
    int64_t bytes = tasks * a->operands[f.param[i]].count * (int64_t)sizeof(float);
    if (back && !(l->back[i] = micah_region_raw(region, bytes))) return MICA_ERR_MEMORY;
  }
  if (rates &&
      !(l->rate_back = micah_region_raw(region, tasks * l->steps * MICAK_MLP_PARAMS * (int64_t)sizeof(float))))
    return MICA_ERR_MEMORY;
  const mica_threads *threads = mica_context_get_threads(x->context);
  f.workers = threads && threads->parallel_for ? threads->workers : 1;
  if (!(f.exec = micah_region_alloc(region, f.workers, sizeof *f.exec))) return MICA_ERR_MEMORY;
  for (int32_t i = 0; i < f.workers; i++) {
    size_t bytes = (size_t)micak_mlp_loop_scratch(l);
    f.exec[i] = (mica_exec){ sizeof(mica_exec), NULL, micah_region_raw(region, (int64_t)bytes), bytes,
                             mica_context_get_isa(x->context), 0 };
    if (!f.exec[i].scratch) return MICA_ERR_MEMORY;
  }
  if (!(s->fused = micah_region_alloc(region, 1, sizeof f))) return MICA_ERR_MEMORY;
  *s->fused = f;
  return MICA_OK;
}

/* this run's wires */
static void bind(const micah_adapt_run *r, int kept) {
  fused *f = r->s->fused;
  micak_mlp_loop *l = &f->loop;
  const mica_port *x = micah_inner_port(r->args, f->x);
  l->x = x->v, l->y = micah_inner_port(r->args, f->y)->v, l->offsets = x->offsets;
  l->B = micah_rows(r->x, r->x->program->entries[r->entry].level);
  int32_t axis = r->a->step->values[r->a->operands[f->x].value].axis;
  l->R = ((const micah_inner_args *)r->args)->dim[1 + axis];
  l->loss = l->loss_d = (mica_wire){ .data = NULL };
  if (f->loss >= 0) l->loss = micah_inner_port(r->args, f->loss)->v, l->loss_d = micah_inner_port(r->args, f->loss)->d;
  for (int i = 0; i < 2 * l->layers; i++) {
    if (f->param[i] < 0) continue;
    const micah_adapt_operand *o = &r->a->operands[f->param[i]];
    const micah_adapt_carry *c = &r->a->carry[o->carry];
    const mica_port *last = micah_inner_port(r->args, c->last);
    l->start[i] = micah_inner_port(r->args, f->param[i])->v;
    l->last[i] = last->v, l->last_d[i] = last->d;
    l->rate[i] = micah_inner_port(r->args, f->rate[i])->v;
    l->rate_step[i] = r->a->operands[f->rate[i]].kind == MICAH_ADAPT_STEPPED;
    l->kept[i] = kept && micah_adapt_kept(&r->a->options) > 0 ? micah_inner_port(r->args, c->kept)->v.data : NULL;
  }
}

typedef struct job {
  const micah_adapt_run *r;
  int64_t                piece;  /* tasks, or numbers */
  int                    back;
} job;

static void run_piece(void *arg, int64_t n, int32_t worker) {
  const job *j = arg;
  const fused *f = j->r->s->fused;
  int64_t first = n * j->piece, count = f->loop.B - first < j->piece ? f->loop.B - first : j->piece;
  if (j->back) micak_mlp_loop_backward(&f->exec[worker], &f->loop, first, count);
  else micak_mlp_loop_forward(&f->exec[worker], &f->loop, first, count);
}

static void each(const micah_adapt_run *r, int64_t n, mica_body body, void *arg) {
  const mica_threads *threads = mica_context_get_threads(r->x->context);
  if (threads && threads->parallel_for && n > 1) threads->parallel_for(threads->user, n, body, arg);
  else for (int64_t i = 0; i < n; i++) body(arg, i, 0);
}

static void run_tasks(const micah_adapt_run *r, int back) {
  const fused *f = r->s->fused;
  job j = { r, (f->loop.B + 4 * f->workers - 1) / (4 * f->workers), back };
  if (j.piece > 32) j.piece = 32;
  if (j.piece < 1) j.piece = 1;
  each(r, (f->loop.B + j.piece - 1) / j.piece, run_piece, &j);
}

mica_status micah_fused_forward(const micah_adapt_run *r) {
  bind(r, 1);
  run_tasks(r, 0);
  return MICA_OK;
}

/* a block of numbers of a start's cotangent, tasks in order */
static void sum_piece(void *arg, int64_t n, int32_t worker) {
  const job *j = arg;
  const fused *f = j->r->s->fused;
  (void)worker;
  for (int i = 0; i < 2 * f->loop.layers; i++) {
    if (f->param[i] < 0) continue;
    int64_t count = j->r->a->operands[f->param[i]].count, pieces = (count + j->piece - 1) / j->piece;
    if (n >= pieces) {
      n -= pieces;
      continue;
    }
    const mica_wire *d = &micah_inner_port(j->r->args, f->param[i])->d;
    int64_t first = n * j->piece, size = count - first < j->piece ? count - first : j->piece;
    for (int64_t b = 0; b < f->loop.B; b++) {
      float *to = micak_task(d, NULL, b);
      const float *from = f->loop.back[i] + b * count + first;
      if (!to) continue;
      to += first;
      if (!(d->flags & MICA_ADD) && !micak_same_slot(d, NULL, b)) memcpy(to, from, (size_t)size * sizeof *to);
      else for (int64_t k = 0; k < size; k++) to[k] += from[k];
    }
    return;
  }
}

/* one rate's cotangents: a number, or one a step, of all the parameters that it moves */
static void sum_rate(const micah_adapt_run *r, int32_t operand) {
  const fused *f = r->s->fused;
  const mica_wire *d = &micah_inner_port(r->args, operand)->d;
  int stepped = r->a->operands[operand].kind == MICAH_ADAPT_STEPPED;
  for (int64_t b = 0; b < f->loop.B; b++) {
    float *to = micak_task(d, NULL, b);
    if (!to) continue;
    int fresh = !(d->flags & MICA_ADD) && !micak_same_slot(d, NULL, b);
    if (fresh) memset(to, 0, (size_t)(stepped ? f->loop.steps : 1) * sizeof *to);
    for (int64_t k = f->loop.stop; k < f->loop.steps; k++)
      for (int i = 0; i < 2 * f->loop.layers; i++)
        if (f->rate[i] == operand)
          to[stepped ? k : 0] += f->loop.rate_back[(b * f->loop.steps + k) * MICAK_MLP_PARAMS + i];
  }
}

mica_status micah_fused_back(const micah_adapt_run *r) {
  fused *f = r->s->fused;
  bind(r, 1);
  run_tasks(r, 1);
  job j = { r, 512, 1 };
  int64_t pieces = 0;
  for (int i = 0; i < 2 * f->loop.layers; i++) {
    if (f->param[i] < 0) continue;
    int64_t count = r->a->operands[f->param[i]].count;
    if (f->loop.stop > 0) micah_adapt_clear(r, f->param[i], 0, 1);
    else pieces += (count + j.piece - 1) / j.piece;
  }
  each(r, pieces, sum_piece, &j);
  for (int i = 0; f->loop.rate_back && i < 2 * f->loop.layers; i++) {
    int before = 0;
    for (int k = 0; k < i; k++) before |= f->rate[k] == f->rate[i];
    if (f->rate[i] >= 0 && !before) sum_rate(r, f->rate[i]);
  }
  return MICA_OK;
}
