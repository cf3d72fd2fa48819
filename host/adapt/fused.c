#include "adapt/fused.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/op.h"
#include "linear/linear.h"
#include "loss/loss.h"
#include "program/memory.h"
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

const micah_mlp_port micah_mlp_ports[] = { { "mse", "pred", "target" }, { "cross_entropy", "logits", "label" } };

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
    if (!whole(p, x) || (l == 0 ? !is_input(p, p->values[x].root) || p->values[x].rank != 1 || p->values[x].axis < 0
                                  : p->values[x].root != last)) return 0;
    if (l == 0) m->x = p->values[x].root, m->width[0] = p->values[w].shape[1];
    if (n == 1 || l + 1 < n) m->act = l + 1 < n ? act : MICA_ACT_RELU;
    if (l + 1 == n ? act != MICA_ACT_NONE : act != MICA_ACT_RELU && act != MICA_ACT_TANH && act != MICA_ACT_SIGMOID)
      return 0;
    if (l > 0 && l + 1 < n && act != (int32_t)((mica_linear_args *)p->entries[0].args)->act) return 0;
    m->param[2 * l] = w, m->param[2 * l + 1] = b, m->width[l + 1] = p->values[w].shape[0];
    if (m->width[l] > (l ? MICAK_MLP_WIDTH : MICAK_MLP_INPUTS) || m->width[l + 1] > MICAK_MLP_WIDTH) return 0;
    last = p->values[bound_to(e, "y")].root;
  }
  const micah_entry *loss = &p->entries[n], *mean = &p->entries[n + 1];
  m->labels = !strcmp(loss->op->name, micah_mlp_ports[1].op);
  const micah_mlp_port *port = &micah_mlp_ports[m->labels];
  if (strcmp(loss->op->name, port->op) || strcmp(mean->op->name, "mean")) return 0;
  m->y = bound_to(loss, port->y);
  int32_t pred = bound_to(loss, port->pred), rows = bound_to(mean, "x");
  if (!whole(p, pred) || p->values[pred].root != last || !is_input(p, m->y) || bound_to(loss, "weight") >= 0) return 0;
  /* the sum of an output's squares, or their mean over one number */
  if (!m->labels && ((mica_mse_args *)loss->args)->reduction != 0 && m->width[n] != 1) return 0;
  if (!whole(p, rows) || p->values[rows].root != p->values[bound_to(loss, "loss")].root) return 0;
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

/* of the cotangents that a worker writes before they are summed: in its cache; of those of a launch on a device */
enum { BACK_BYTES = 1024 * 1024, LAUNCH_BYTES = 64 * 1024 * 1024 };

typedef struct micah_adapt_fused {
  micak_mlp_loop loop;
  int32_t        x, y, loss;     /* operands */
  int32_t        param[MICAK_MLP_PARAMS], rate[MICAK_MLP_PARAMS];
  int32_t        query;          /* of the query's x; its y and loss follow. -1: adapted weights are a result */
  int64_t        at[MICAK_MLP_PARAMS]; /* in a row of `back` */
  int64_t        unit, block;    /* tasks that are as fast as one; whose cotangents are summed at once */
  int32_t        workers;
  mica_exec     *exec;           /* [workers] */
  micak_mlp_cuda down, up;       /* on CUDA, the faces' launches */
  void          *scratch;
} fused;

static int32_t operand_of(const micah_adapt *a, mica_value value) {
  for (int i = 0; value >= 0 && i < a->op.n_operands; i++)
    if ((a->op.operands[i].role & (MICA_IN | MICA_INDEX)) && a->operands[i].value == value) return i;
  return -1;
}
/* is a cotangent wanted of what operand i is bound to? */
static int wanted(const mica_executor *x, int32_t entry, int i) {
  const mica_program *p = x->program;
  return i >= 0 && x->active[p->values[p->entries[entry].binds[i].value].root];
}

int micah_fused_suits(const mica_executor *x, int32_t e) {
  const micah_adapt *a = x->program->entries[e].own;
  const micah_mlp_step *m = a->step->mlp;
  const mica_adapt_options *o = &a->options;
  int back = micah_face_runs(x, e, MICA_BACKWARD);
  if (!m || x->backend == MICA_REF || x->dtype != MICA_F32 || o->data) return 0;
  if (o->method != MICA_ADAPT_UNROLLED && o->method != MICA_ADAPT_TRUNCATED) return !back;
  return !back || (!wanted(x, e, operand_of(a, m->x)) && !wanted(x, e, operand_of(a, m->y)));
}

int micah_fused_may_judge(const mica_executor *x, int32_t e) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  /* a task goes down and back at once: so must the passes, and nothing may wait for the inner losses */
  if ((x->passes & ~(MICA_PASS_FORWARD | MICA_PASS_BACKWARD)) || entry->level != MICA_NO_AXIS ||
      (micah_face_runs(x, e, MICA_BACKWARD) && !x->fused))
    return 0;
  for (int i = 0; i < a->op.n_operands; i++)
    if (a->operands[i].kind == MICAH_ADAPT_ROW && micah_is_read(x->program, entry->binds[i].value)) return 0;
  return 1;
}

static void set_sizes(const mica_executor *x, int32_t e, fused *f) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  const int64_t *dim = ((const micah_inner_args *)x->args[e])->dim;
  f->loop.R = dim[1 + a->step->values[a->operands[f->x].value].axis];
  if (f->query >= 0) f->loop.query.R = dim[entry->op->n_dims - 1];
}

static mica_status make_workers(mica_executor *x, fused *f) {
  const mica_threads *threads = mica_context_get_threads(x->context);
  size_t bytes = (size_t)(f->query < 0 ? micak_mlp_loop_scratch(&f->loop) : micak_mlp_task_scratch(&f->loop));
  f->workers = threads && threads->parallel_for ? threads->workers : 1;
  if (!(f->exec = micah_region_alloc(&x->region, f->workers, sizeof *f->exec))) return MICA_ERR_MEMORY;
  for (int32_t i = 0; i < f->workers; i++) {
    f->exec[i] = (mica_exec){ sizeof(mica_exec), NULL, micah_region_raw(&x->region, (int64_t)bytes), bytes,
                              mica_context_get_isa(x->context), 0 };
    if (!f->exec[i].scratch) return MICA_ERR_MEMORY;
  }
  return MICA_OK;
}

/* rows of cotangents of the tasks of a block */
static mica_status make_back(mica_executor *x, int64_t tasks, int rates, fused *f) {
  micak_mlp_loop *l = &f->loop;
  const int task = f->query >= 0;
  int64_t each = BACK_BYTES / micak_mlp_back_bytes(l, task, f->unit) * f->unit;
  f->block = (each < f->unit ? f->unit : each) * f->workers;
  if (tasks > f->block) tasks = f->block;
  l->back = micah_region_raw(&x->region, micak_mlp_back_bytes(l, task, tasks));
  if (rates)
    l->rate_back = micah_region_raw(&x->region, tasks * l->steps * MICAK_MLP_PARAMS * (int64_t)sizeof(float));
  return l->back && (l->rate_back || !rates) ? MICA_OK : MICA_ERR_MEMORY;
}

/* launches and their memory on a device */
static mica_status make_launches(mica_executor *x, int64_t tasks, int back, int rates, fused *f) {
  micak_mlp_loop *l = &f->loop;
  const int task = f->query >= 0;
  const int64_t each = micak_mlp_params(l) * (int64_t)sizeof(float);
  f->block = LAUNCH_BYTES / each > 1 ? LAUNCH_BYTES / each : 1;
  if (f->block > tasks) f->block = tasks;
  mica_status status = x->device->ops->enter(x->device);
  if (status >= 0) status = micak_mlp_cuda_plan(l, task ? MICAK_MLP_TASK : MICAK_MLP_FORWARD, tasks, &f->down);
  if (status >= 0 && back)
    status = micak_mlp_cuda_plan(l, task ? MICAK_MLP_BOTH : MICAK_MLP_BACKWARD, f->block, &f->up);
  if (status < 0) return status;
  f->scratch = micah_data_alloc(x, f->up.scratch > f->down.scratch ? f->up.scratch : f->down.scratch);
  if (!f->scratch) return MICA_ERR_MEMORY;
  if (back && !(l->back = micah_data_alloc(x, f->block * each))) return MICA_ERR_MEMORY;
  const int64_t rate_bytes = f->block * l->steps * MICAK_MLP_PARAMS * (int64_t)sizeof(float);
  return rates && !(l->rate_back = micah_data_alloc(x, rate_bytes)) ? MICA_ERR_MEMORY : MICA_OK;
}

mica_status micah_fused_create(mica_executor *x, int32_t e, micah_adapt_state *s) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  const micah_mlp_step *m = a->step->mlp;
  if (!micah_fused_suits(x, e)) return MICA_OK;
  fused *f = s->fused = micah_region_alloc(&x->region, 1, sizeof *f);
  if (!f) return MICA_ERR_MEMORY;
  int back = micah_face_runs(x, e, MICA_BACKWARD), rates = 0;
  *f = (fused){ .x = operand_of(a, m->x), .y = operand_of(a, m->y), .loss = -1, .query = -1 };
  if (entry->op->n_operands > a->op.n_operands) f->query = a->op.n_operands;
  micak_mlp_loop *l = &f->loop;
  l->layers = m->layers, l->act = m->act, l->first_order = m->first_order, l->labels = m->labels;
  l->steps = a->options.steps;
  l->stride = micah_adapt_stride(&a->options);
  l->stop = a->options.method == MICA_ADAPT_TRUNCATED ? l->steps - a->options.last : 0;
  memcpy(l->width, m->width, sizeof l->width);
  for (int i = 0; i < a->op.n_operands; i++)
    if (a->operands[i].kind == MICAH_ADAPT_ROW) f->loss = i;
  for (int i = 0; i < 2 * m->layers; i++) {
    f->at[i] = i ? f->at[i - 1] + (f->param[i - 1] < 0 ? 0 : a->operands[f->param[i - 1]].count) : 0;
    f->param[i] = operand_of(a, m->param[i]), f->rate[i] = operand_of(a, m->rate[i]);
    if (i % 2) l->bias[i / 2] = f->param[i] >= 0;
    rates |= f->param[i] >= 0 && back && wanted(x, e, f->rate[i]);
  }
  if (f->query >= 0) {
    const micah_judged *op = (const micah_judged *)(const void *)entry->op;
    l->query.mean_out = op->mean_out, l->query.mean_rows = op->mean_rows;
  }
  set_sizes(x, e, f);
  if (x->backend == MICA_CUDA) return make_launches(x, micah_capacity(x, entry->level), back, rates, f);
  f->unit = f->query < 0 ? 1 : micak_mlp_task_unit(l, mica_context_get_isa(x->context));
  mica_status status = make_workers(x, f);
  return status < 0 || !back ? status : make_back(x, micah_capacity(x, entry->level), rates, f);
}

int micah_adapt_on_device(const void *state) { return ((const micah_adapt_state *)state)->fused != NULL; }

const char *micah_fused_path(const micah_adapt_state *s) {
  return !s->fused ? "steps" : s->fused->query < 0 ? "mlp" : "mlp+loss";
}

/* this run's wires */
static void bind(const micah_adapt_run *r) {
  fused *f = r->s->fused;
  micak_mlp_loop *l = &f->loop;
  const mica_port *x = micah_inner_port(r->args, f->x);
  l->x = x->v, l->y = micah_inner_port(r->args, f->y)->v, l->offsets = x->offsets;
  l->B = micah_rows(r->x, r->x->program->entries[r->entry].level);
  set_sizes(r->x, r->entry, f);
  l->loss = l->loss_d = (mica_wire){ .data = NULL };
  if (f->loss >= 0) l->loss = micah_inner_port(r->args, f->loss)->v, l->loss_d = micah_inner_port(r->args, f->loss)->d;
  if (f->query >= 0) {
    const mica_port *q = micah_inner_port(r->args, f->query), *loss = micah_inner_port(r->args, f->query + 2);
    l->query.x = q->v, l->query.y = micah_inner_port(r->args, f->query + 1)->v, l->query.offsets = q->offsets;
    l->query.loss = loss->v, l->query.loss_d = loss->d;
  }
  for (int i = 0; i < 2 * l->layers; i++) {
    if (f->param[i] < 0) continue;
    const micah_adapt_operand *o = &r->a->operands[f->param[i]];
    const micah_adapt_carry *c = &r->a->carry[o->carry];
    const mica_port *last = micah_inner_port(r->args, c->last);
    l->start[i] = micah_inner_port(r->args, f->param[i])->v;
    l->last[i] = last->v, l->last_d[i] = last->d;
    l->rate[i] = micah_inner_port(r->args, f->rate[i])->v;
    l->rate_step[i] = r->a->operands[f->rate[i]].kind == MICAH_ADAPT_STEPPED;
    l->kept[i] = micah_adapt_kept(&r->a->options) > 0 ? micah_inner_port(r->args, c->kept)->v.data : NULL;
  }
}

typedef struct job {
  const micah_adapt_run *r;
  int64_t                first, count; /* tasks */
  int64_t                piece;  /* tasks, or numbers */
  mica_status          (*kernel)(const mica_exec *exec, const void *loop, int64_t first, int64_t count);
  atomic_int             failed;
  mica_status            status;
  char                   message[256];
} job;

static void run_piece(void *arg, int64_t n, int32_t worker) {
  job *j = arg;
  const fused *f = j->r->s->fused;
  int64_t at = n * j->piece, count = j->count - at < j->piece ? j->count - at : j->piece;
  mica_status status = j->kernel(&f->exec[worker], &f->loop, j->first + at, count);
  if (status >= 0 || atomic_exchange(&j->failed, 1)) return;
  j->status = status;
  snprintf(j->message, sizeof j->message, "%s", mica_last_error());
}

static void each(const micah_adapt_run *r, int64_t n, mica_body body, void *arg) {
  const mica_threads *threads = mica_context_get_threads(r->x->context);
  if (threads && threads->parallel_for && n > 1) threads->parallel_for(threads->user, n, body, arg);
  else for (int64_t i = 0; i < n; i++) body(arg, i, 0);
}

static mica_status run_tasks(job *j) {
  const fused *f = j->r->s->fused;
  int64_t units = (j->count + f->unit - 1) / f->unit, most = f->unit > 1 ? 8 : 32;
  int64_t piece = (units + 4 * f->workers - 1) / (4 * f->workers);
  if (piece > most) piece = most;
  if (piece < 1) piece = 1;
  j->piece = piece * f->unit;
  each(j->r, (j->count + j->piece - 1) / j->piece, run_piece, j);
  if (!atomic_load(&j->failed)) return MICA_OK;
  const mica_program *p = j->r->x->program;
  return mica_error(j->status, "program %s: %s: %s", p->name, p->entries[j->r->entry].path, j->message);
}

mica_status micah_fused_forward(const micah_adapt_run *r) {
  const fused *f = r->s->fused;
  /* the pass back does all of it */
  if (f->query >= 0 && (r->x->running >> MICA_BACKWARD & 1)) return MICA_OK;
  bind(r);
  if (r->x->backend == MICA_CUDA)
    return micak_mlp_cuda_run(r->x->stream, &f->loop, &f->down, f->scratch, 0, f->loop.B);
  job j = { .r = r, .count = f->loop.B, .kernel = f->query < 0 ? micak_mlp_loop_forward : micak_mlp_task_forward };
  return run_tasks(&j);
}

/* a block of numbers of a start's cotangent, tasks in order */
static void sum_piece(void *arg, int64_t n, int32_t worker) {
  const job *j = arg;
  const fused *f = j->r->s->fused;
  for (int i = 0; i < 2 * f->loop.layers; i++) {
    if (f->param[i] < 0) continue;
    int64_t count = j->r->a->operands[f->param[i]].count, pieces = (count + j->piece - 1) / j->piece;
    if (n >= pieces) {
      n -= pieces;
      continue;
    }
    const mica_wire *d = &micah_inner_port(j->r->args, f->param[i])->d;
    const int64_t first = n * j->piece, size = count - first < j->piece ? count - first : j->piece;
    const int64_t end = j->first + j->count;
    for (int64_t b = j->first, next; b < end; b = next) {
      for (next = b + 1; next < end && micak_same_slot(d, NULL, next);) next++;
      micak_mlp_sum sum = { micak_task(d, NULL, b), f->loop.back, micak_mlp_params(&f->loop), f->at[i], b - j->first,
                            next - b, (d->flags & MICA_ADD) || micak_same_slot(d, NULL, b), f->unit > 1 };
      if (sum.to) micak_mlp_sum_run(&f->exec[worker], &sum, first, size);
    }
    return;
  }
}

/* one rate's cotangents: a number, or one a step, of all the parameters that it moves */
static void sum_rate(const job *j, int32_t operand) {
  const micah_adapt_run *r = j->r;
  const fused *f = r->s->fused;
  const mica_wire *d = &micah_inner_port(r->args, operand)->d;
  int stepped = r->a->operands[operand].kind == MICAH_ADAPT_STEPPED;
  for (int64_t b = j->first; b < j->first + j->count; b++) {
    float *to = micak_task(d, NULL, b);
    if (!to) continue;
    int fresh = !(d->flags & MICA_ADD) && !micak_same_slot(d, NULL, b);
    if (fresh) memset(to, 0, (size_t)(stepped ? f->loop.steps : 1) * sizeof *to);
    for (int64_t k = f->loop.stop; k < f->loop.steps; k++)
      for (int i = 0; i < 2 * f->loop.layers; i++)
        if (f->rate[i] == operand)
          to[stepped ? k : 0] += f->loop.rate_back[((b - j->first) * f->loop.steps + k) * MICAK_MLP_PARAMS + i];
  }
}

static void sum_block(job *j) {
  const fused *f = j->r->s->fused;
  int64_t pieces = 0;
  j->piece = 512;
  for (int i = 0; i < 2 * f->loop.layers; i++)
    if (f->param[i] >= 0 && f->loop.stop == 0)
      pieces += (j->r->a->operands[f->param[i]].count + j->piece - 1) / j->piece;
  each(j->r, pieces, sum_piece, j);
  for (int i = 0; f->loop.rate_back && i < 2 * f->loop.layers; i++) {
    int before = 0;
    for (int k = 0; k < i; k++) before |= f->rate[k] == f->rate[i];
    if (f->rate[i] >= 0 && !before) sum_rate(j, f->rate[i]);
  }
}

/* which cotangents are summed where */
static int32_t list_targets(const micah_adapt_run *r, micak_mlp_target *targets) {
  const fused *f = r->s->fused;
  int32_t n = 0;
  for (int i = 0; i < 2 * f->loop.layers; i++) {
    const mica_wire *d = f->param[i] < 0 ? NULL : &micah_inner_port(r->args, f->param[i])->d;
    if (d && d->data) targets[n++] = (micak_mlp_target){ *d, f->at[i], r->a->operands[f->param[i]].count, 0 };
  }
  for (int i = 0; f->loop.rate_back && i < 2 * f->loop.layers; i++) {
    const mica_wire *d = f->rate[i] < 0 ? NULL : &micah_inner_port(r->args, f->rate[i])->d;
    uint32_t moved = 0;
    for (int k = 0; k < 2 * f->loop.layers; k++) moved |= (uint32_t)(f->rate[k] == f->rate[i]) << k;
    if (!d || !d->data || moved & ((1u << i) - 1)) continue; /* listed before */
    const int stepped = r->a->operands[f->rate[i]].kind == MICAH_ADAPT_STEPPED;
    targets[n++] = (micak_mlp_target){ *d, 0, stepped ? f->loop.steps : 1, moved };
  }
  return n;
}

static mica_status launch_back(const micah_adapt_run *r) {
  mica_status status = MICA_OK;
  fused *f = r->s->fused;
  micak_mlp_target targets[2 * MICAK_MLP_PARAMS];
  const int32_t n = list_targets(r, targets);
  for (int64_t first = 0; status >= 0 && first < f->loop.B; first += f->block) {
    const int64_t count = f->loop.B - first < f->block ? f->loop.B - first : f->block;
    f->loop.back_first = first;
    status = micak_mlp_cuda_run(r->x->stream, &f->loop, &f->up, f->scratch, first, count);
    if (status >= 0) status = micak_mlp_cuda_sum(r->x->stream, &f->loop, targets, n, count);
  }
  return status;
}

mica_status micah_fused_back(const micah_adapt_run *r) {
  fused *f = r->s->fused;
  bind(r);
  if (r->x->backend == MICA_CUDA) return launch_back(r);
  /* blocks of one size, whole rounds of the workers */
  const int64_t B = f->loop.B, blocks = (B + f->block - 1) / f->block, round = f->unit * f->workers;
  const int64_t size = blocks ? ((B + blocks - 1) / blocks + round - 1) / round * round : 0;
  for (int64_t first = 0; first < B; first += size) {
    job j = { .r = r, .first = first, .count = B - first < size ? B - first : size,
              .kernel = f->query < 0 ? micak_mlp_loop_backward : micak_mlp_task_both };
    f->loop.back_first = first;
    mica_status status = run_tasks(&j);
    if (status < 0) return status;
    sum_block(&j);
  }
  for (int i = 0; f->loop.stop > 0 && i < 2 * f->loop.layers; i++)
    if (f->param[i] >= 0) micah_adapt_clear(r, f->param[i], 0, 1);
  return MICA_OK;
}
