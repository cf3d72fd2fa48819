/* implicit hypergradients. at F(theta, phi) = 0 the solution moves by dtheta = -(dF/dtheta)^-1 dF/dphi dphi, so the
 * cotangent u of theta gives that of phi: -(dF/dphi)^T v with (dF/dtheta + damping)^T v = u. products with transposed
 * Jacobians are backward passes of the optimality program, which runs forward once; each task has a solve of its own
 * inside the same passes (kernels/implicit/). with F the gradient of an inner loss they are Hessian-vector products. */
#include <string.h>

#include "adapt/adapt.h"
#include "common/op.h"
#include "common/philox.h"
#include "implicit/implicit.h"
#include "program/memory.h"

typedef struct micah_adapt_solve {
  mica_executor *f;
  micak_implicit job;
  char          *saved;
  int64_t        capacity;
  int64_t       *columns;            /* Nystroem: all, the chosen ones first */
  micah_twin     report;             /* residual, iterations, converged, done of each task */
  char          *path;
} solve;

enum { DENSE_MOST = 4096 };

/* columns at random, the same ones in every run */
static mica_status choose_columns(mica_executor *x, solve *v) {
  const int64_t n = v->job.n, rank = v->job.rows;
  void *columns;
  if (rank > DENSE_MOST || rank > n)
    return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: %lld columns of %lld, expected at most all and %d",
                      x->program->name, v->path, (long long)rank, (long long)n, DENSE_MOST);
  if (!(v->columns = micah_region_alloc(&x->region, n, sizeof *v->columns))) return MICA_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) v->columns[i] = i;
  micak_stream draw = micak_stream_at(micak_philox_key_of(0, micak_hash_name("nystroem"), (uint64_t)n), 0, 0);
  for (int64_t i = 0; i < rank; i++) {
    int64_t other = i + (int64_t)(micak_stream_uniform(&draw) * (double)(n - i)), kept = v->columns[i];
    v->columns[i] = v->columns[other], v->columns[other] = kept;
  }
  if (!(columns = micah_data_alloc(x, rank * (int64_t)sizeof *v->columns))) return MICA_ERR_MEMORY;
  v->job.columns = columns;
  return micah_data_put(x, columns, v->columns, rank * (int64_t)sizeof *v->columns);
}

static mica_status make_matrix(mica_executor *x, solve *v, int nystroem) {
  micak_implicit *j = &v->job;
  if (!nystroem && j->n > DENSE_MOST)
    return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: %lld adapted numbers a task, a dense solve takes at "
                      "most %d; use CG or Neumann", x->program->name, v->path, (long long)j->n, DENSE_MOST);
  mica_status status = nystroem ? choose_columns(x, v) : MICA_OK;
  if (status < 0) return status;
  const int64_t size = v->capacity * (int64_t)sizeof(double);
  j->matrix = micah_data_alloc(x, size * j->rows * j->n);
  j->own = micak_implicit_work(j->n, j->rows, nystroem);
  j->work = micah_data_alloc(x, size * j->own);
  return j->matrix && j->work ? MICA_OK : MICA_ERR_MEMORY;
}

/* what is told of each task, on the device */
static mica_status make_report(mica_executor *x, solve *v) {
  const size_t n = (size_t)v->capacity;
  mica_status status = micah_twin_create(x->device, n * (sizeof(double) + sizeof(int32_t) + 2), "a solve", &v->report);
  if (status < 0) return status;
  memset(v->report.host, 0, v->report.bytes);
  v->job.residual = v->report.device;
  v->job.iterations = (int32_t *)(void *)(v->job.residual + n);
  v->job.converged = (uint8_t *)(v->job.iterations + n);
  v->job.done = v->job.converged + n;
  return micah_twin_send(&v->report, x->stream, v->report.bytes);
}
/* the same here */
static const void *here(const solve *v, const void *on_device) {
  return (const char *)v->report.host + ((const char *)on_device - (const char *)v->report.device);
}

mica_status micah_adapt_solve_create(mica_executor *x, int32_t e, micah_adapt_state *s) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  micah_region *region = &x->region;
  if (x->dtype != MICA_F32 && x->dtype != MICA_F64)
    return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: the implicit method computes in f32 or f64, not %s",
                      x->program->name, entry->path, mica_dtype_name(x->dtype));
  solve *v = s->solve = micah_region_alloc(region, 1, sizeof *v);
  mica_value *wants = micah_region_alloc(region, a->op.n_operands, sizeof *wants);
  if (!v || !wants) return MICA_ERR_MEMORY;
  v->path = entry->path;
  v->capacity = micah_capacity(x, entry->level);
  mica_executor_options options = MICA_EXECUTOR_OPTIONS_INIT;
  options.passes = MICA_PASS_FORWARD | MICA_PASS_BACKWARD;
  options.fused = MICAH_ONE_FORWARD;
  options.wants = wants;
  const int dense = a->options.solver == MICA_SOLVE_DENSE, nystroem = a->options.solver == MICA_SOLVE_NYSTROEM;
  micak_implicit *j = &v->job;
  j->dtype = x->dtype;
  j->tolerance = a->options.tolerance, j->damping = a->options.damping, j->rate = a->options.rate;
  j->unflagged = a->options.tolerance == 0 && !dense;
  for (int32_t k = 0; k < a->n_carry; k++)
    if (a->carry[k].residual >= 0) j->n += a->carry[k].count;
  j->rows = dense ? j->n : nystroem ? a->options.iterations : 0;
  for (int i = 0; i < a->op.n_operands; i++) {
    const micah_adapt_operand *o = &a->operands[i];
    if (!(a->op.operands[i].role & MICA_IN) || o->optimality < 0) continue;
    if (o->kind == MICAH_ADAPT_CARRY || x->active[x->program->values[entry->binds[i].value].root])
      wants[options.n_wants++] = o->optimality;
  }
  mica_status status = micah_inner_executor(x, e, a->optimality, &options, &v->f);
  mica_memory memory;
  if (status >= 0) status = mica_executor_memory(v->f, &memory);
  if (status < 0) return status;
  void **vectors[] = { &j->u, &j->v, &j->r, &j->p, &j->q };
  for (int i = 0; i < MICA_COUNT(vectors); i++)
    if (!(*vectors[i] = micah_data_alloc(x, v->capacity * j->n * (int64_t)mica_dtype_size(x->dtype))))
      return MICA_ERR_MEMORY;
  v->saved = micah_data_alloc(x, memory.saved);
  j->rr = micah_data_alloc(x, v->capacity * (int64_t)sizeof *j->rr);
  j->uu = micah_data_alloc(x, v->capacity * (int64_t)sizeof *j->uu);
  if (!v->saved || !j->rr || !j->uu) return MICA_ERR_MEMORY;
  if ((status = make_report(x, v)) >= 0 && (dense || nystroem)) status = make_matrix(x, v, nystroem);
  return status;
}

void micah_adapt_solve_destroy(micah_adapt_state *s) {
  mica_executor_destroy(s->solve->f);
  micah_twin_destroy(&s->solve->report);
}

int64_t micah_adapt_solve_bytes(const micah_adapt_state *s) {
  mica_memory memory;
  return mica_executor_memory(s->solve->f, &memory) < 0 ? 0 : memory.scratch;
}

/* ---- products ---- */

/* a vector's part of one carry as a wire */
static mica_wire part(const micah_adapt_run *r, void *vector, int64_t from) {
  return (mica_wire){ .data = (char *)vector + from * (int64_t)mica_dtype_size(r->x->dtype),
                      .task_stride = r->s->solve->job.n };
}

/* q = (dF/dtheta)^T p, for every task */
static mica_status product(const micah_adapt_run *r) {
  mica_status status = MICA_OK;
  mica_executor *f = r->s->solve->f;
  int64_t at = 0;
  for (int32_t k = 0; status >= 0 && k < r->a->n_carry; k++) {
    const micah_adapt_carry *c = &r->a->carry[k];
    if (c->residual < 0) continue;
    mica_wire seed = part(r, r->s->solve->job.p, at), d = part(r, r->s->solve->job.q, at);
    status = micah_inner_bind(f, c->residual, MICA_D, &seed, 0);
    if (status >= 0) status = micah_inner_bind(f, r->a->operands[c->in].optimality, MICA_D, &d, 0);
    at += c->count;
  }
  return status < 0 ? status : mica_executor_run(f, MICA_PASS_BACKWARD, r->s->solve->saved);
}

static mica_status forward(const micah_adapt_run *r) {
  const mica_wire none = { .data = NULL };
  solve *s = r->s->solve;
  mica_status status = micah_inner_sizes(r->x, r->entry, s->f);
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    const micah_adapt_operand *o = &r->a->operands[i];
    if (o->kind > MICAH_ADAPT_CARRY || o->optimality < 0) continue;
    mica_wire wire = o->kind == MICAH_ADAPT_CARRY ? micah_adapt_wire(r, r->a->carry[o->carry].last, MICA_V, 0)
                                                  : micah_adapt_wire(r, i, MICA_V, 0);
    status = micah_inner_bind(s->f, o->optimality, MICA_V, &wire, 0);
    if (status >= 0 && s->f->wanted[o->optimality]) status = micah_inner_bind(s->f, o->optimality, MICA_D, &none, 0);
  }
  return status < 0 ? status : mica_executor_run(s->f, MICA_PASS_FORWARD, s->saved);
}

/* ---- tasks side by side ---- */

typedef struct stage_job {
  const micak_implicit *job;
  int                   stage;
} stage_job;

static void one_task(void *arg, int64_t b, int32_t worker) {
  (void)worker;
  const stage_job *j = arg;
  micak_implicit_task(j->job, j->stage, b);
}

static mica_status run_stage(const micah_adapt_run *r, int stage) {
  const micak_implicit *job = &r->s->solve->job;
#ifdef MICA_HAVE_CUDA
  if (r->x->backend == MICA_CUDA) return micak_implicit_cuda(r->x->stream, job, stage);
#endif
  stage_job j = { job, stage };
  const mica_threads *threads = mica_context_get_threads(r->x->context);
  if (threads && threads->parallel_for) threads->parallel_for(threads->user, job->tasks, one_task, &j);
  else for (int64_t b = 0; b < job->tasks; b++) one_task(&j, b, 0);
  return MICA_OK;
}

/* u from the cotangents of theta */
static mica_status gather(const micah_adapt_run *r) {
  const micak_implicit *j = &r->s->solve->job;
  int64_t size = (int64_t)mica_dtype_size(r->x->dtype), at = 0;
  mica_status status = MICA_OK;
  for (int32_t k = 0; status >= 0 && k < r->a->n_carry; k++) {
    const micah_adapt_carry *c = &r->a->carry[k];
    if (c->residual < 0) continue;
    micah_mover mover = { .x = r->x, .bytes = (size_t)(c->count * size) };
    for (int64_t b = 0; b < j->tasks; b++)
      micah_move(&mover, (char *)j->u + (b * j->n + at) * size,
                 micak_task(&micah_inner_port(r->args, c->last)->d, NULL, b));
    status = micah_move_end(&mover);
    at += c->count;
  }
  return status;
}

/* what the tasks' solves did, here */
static mica_status fetch(const micah_adapt_run *r) {
  const solve *s = r->s->solve;
  mica_status status = micah_twin_fetch(&s->report, r->x->stream, s->report.bytes);
  return status < 0 ? status : r->x->device->ops->stream_sync(r->x->device, r->x->stream);
}
static int64_t count_zeros(const micah_adapt_run *r, const uint8_t *on_device) {
  const uint8_t *flags = here(r->s->solve, on_device);
  int64_t n = 0;
  for (int64_t b = 0; b < r->s->solve->job.tasks; b++) n += !flags[b];
  return n;
}

static mica_status run_cg(const micah_adapt_run *r) {
  mica_status status = MICA_OK;
  /* without a tolerance nobody is done early: no need to wait for the device and look */
  const int look = r->x->backend != MICA_CUDA || r->a->options.tolerance > 0;
  for (int64_t i = 0; status >= 0 && i < r->a->options.iterations; i++) {
    if (look && (status = fetch(r)) < 0) break;
    if (look && !count_zeros(r, r->s->solve->job.done)) break;
    status = product(r);
    if (status >= 0) status = run_stage(r, MICAK_IMPLICIT_CG);
  }
  return status;
}

static mica_status run_neumann(const micah_adapt_run *r) {
  mica_status status = MICA_OK;
  for (int64_t i = 0; status >= 0 && i < r->a->options.iterations; i++) {
    status = product(r);
    if (status >= 0) status = run_stage(r, MICAK_IMPLICIT_NEUMANN);
  }
  return status < 0 ? status : run_stage(r, MICAK_IMPLICIT_NEUMANN_END);
}

/* rows of every task's matrix: all, or those of the chosen columns */
static mica_status make_rows(const micah_adapt_run *r) {
  solve *s = r->s->solve;
  mica_status status = MICA_OK;
  for (int64_t i = 0; status >= 0 && i < s->job.rows; i++) {
    s->job.row = i, s->job.at = s->columns ? s->columns[i] : i;
    status = run_stage(r, MICAK_IMPLICIT_UNIT);
    if (status >= 0) status = product(r);
    if (status >= 0) status = run_stage(r, MICAK_IMPLICIT_ROW);
  }
  return status;
}

static mica_status run_dense(const micah_adapt_run *r) {
  mica_status status = make_rows(r);
  return status < 0 ? status : run_stage(r, MICAK_IMPLICIT_DENSE);
}

static mica_status run_nystroem(const micah_adapt_run *r) {
  mica_status status = make_rows(r);
  if (status >= 0) status = run_stage(r, MICAK_IMPLICIT_NYSTROEM);
  if (status >= 0) status = product(r);
  return status < 0 ? status : run_stage(r, MICAK_IMPLICIT_NYSTROEM_END);
}

mica_status micah_adapt_solve_back(const micah_adapt_run *r) {
  static mica_status (*const solvers[])(const micah_adapt_run *) = { run_cg, run_neumann, run_dense,
                                                                    run_nystroem };
  const mica_wire none = { .data = NULL };
  solve *s = r->s->solve;
  s->job.tasks = micah_rows(r->x, r->x->program->entries[r->entry].level);
  mica_status status = gather(r);
  if (status >= 0) status = run_stage(r, MICAK_IMPLICIT_START);
  if (status >= 0) status = forward(r);
  if (status >= 0) status = solvers[r->a->options.solver](r);
  if (status >= 0) status = run_stage(r, MICAK_IMPLICIT_FINISH);
  if (status >= 0) status = fetch(r);
  if (status < 0) return status;
  int64_t lost = count_zeros(r, s->job.converged);
  if (lost)
    mica_log(r->x->context, MICA_LOG_WARN, "%s: the solve of %lld of %lld tasks did not converge; they add nothing",
             s->path, (long long)lost, (long long)s->job.tasks);
  /* -(dF/dphi)^T v into the ports; starting values and what F does not have get nothing */
  int64_t at = 0;
  for (int32_t k = 0; status >= 0 && k < r->a->n_carry; k++) {
    const micah_adapt_carry *c = &r->a->carry[k];
    if (c->residual < 0) continue;
    mica_wire seed = part(r, s->job.p, at);
    status = micah_inner_bind(s->f, c->residual, MICA_D, &seed, 0);
    if (status >= 0) status = micah_inner_bind(s->f, r->a->operands[c->in].optimality, MICA_D, &none, 0);
    at += c->count;
  }
  int any = 0;
  for (int i = 0; status >= 0 && i < r->a->op.n_operands; i++) {
    const micah_adapt_operand *o = &r->a->operands[i];
    if (!(r->a->op.operands[i].role & MICA_IN)) continue;
    if (o->kind != MICAH_ADAPT_OUTER || o->optimality < 0 || !s->f->wanted[o->optimality]) {
      status = micah_adapt_clear(r, i, 0, o->kind == MICAH_ADAPT_STEPPED ? r->a->options.steps : 1);
      continue;
    }
    mica_wire wire = micah_adapt_wire(r, i, MICA_D, 0);
    any |= wire.data != NULL;
    status = micah_inner_bind(s->f, o->optimality, MICA_D, &wire, 0);
  }
  if (status >= 0 && any) status = mica_executor_run(s->f, MICA_PASS_BACKWARD, s->saved);
  return status;
}

mica_status mica_adapt_get_report(const mica_executor *x, int32_t index, mica_adapt_report *out) {
  if (!x || !out || index < 0) return mica_error(MICA_ERR_INVALID, "mica_adapt_get_report: an argument is wrong");
  int32_t n = 0;
  for (int32_t e = 0; e < x->program->n_entries; e++) {
    if (x->program->entries[e].inner != &micah_adapt_inner || !x->inner[e] || n++ != index) continue;
    const solve *s = ((const micah_adapt_state *)x->inner[e])->solve;
    if (!s)
      return mica_error(MICA_ERR_STATE, "program %s: %s has no solves to report; its method is not implicit",
                        x->program->name, x->program->entries[e].path);
    *out = (mica_adapt_report){ s->path, s->job.tasks, 0, here(s, s->job.iterations), here(s, s->job.residual),
                                here(s, s->job.converged) };
    for (int64_t b = 0; b < s->job.tasks; b++) out->unconverged += !out->converged[b];
    return MICA_OK;
  }
  return mica_error(MICA_ERR_NOT_FOUND, "program %s has %d inner loops, there is none with index %d", x->program->name,
                    n, index);
}
