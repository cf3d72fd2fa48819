/* implicit hypergradients. at F(theta, phi) = 0 the solution moves by dtheta = -(dF/dtheta)^-1 dF/dphi dphi, so the
 * cotangent u of theta gives that of phi: -(dF/dphi)^T v with (dF/dtheta + damping)^T v = u. products with transposed
 * Jacobians are backward passes of the optimality program, which runs forward once; each task has a solve of its own
 * inside the same passes. with F the gradient of an inner loss these are Hessian-vector products. */
#include <math.h>
#include <string.h>

#include "adapt/adapt.h"
#include "common/op.h"
#include "common/philox.h"
#include "common/solve.h"

typedef struct micah_adapt_solve {
  mica_executor *f;
  char          *saved;
  int64_t        n, capacity, tasks, bytes; /* numbers of theta in a task; tasks of the last sweep */
  char          *u, *v, *r, *p, *q;  /* (tasks, n) */
  double        *rr, *uu;            /* (tasks) |r|^2, |u|^2 */
  double        *residual, *matrix, *work; /* (tasks); dense: (tasks, n, n), (tasks, n) */
  int32_t       *iterations;
  int64_t       *columns;            /* Nystroem: which stand for the matrix */
  uint8_t       *converged, *done;
  char          *path;
} solve;

enum { DENSE_MOST = 4096 };

/* columns at random, the same ones in every run */
static mica_status choose_columns(mica_executor *x, solve *v, int64_t rank) {
  micah_region *region = &x->region;
  if (rank > DENSE_MOST || rank > v->n)
    return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: %lld columns of %lld, expected at most all and %d",
                      x->program->name, v->path, (long long)rank, (long long)v->n, DENSE_MOST);
  v->columns = micah_region_alloc(region, v->n, sizeof *v->columns);
  v->matrix = micah_region_alloc(region, v->capacity * rank * v->n, sizeof *v->matrix);
  v->work = micah_region_alloc(region, v->capacity * (rank * rank + rank + v->n), sizeof *v->work);
  if (!v->columns || !v->matrix || !v->work) return MICA_ERR_MEMORY;
  for (int64_t i = 0; i < v->n; i++) v->columns[i] = i;
  micak_stream draw = micak_stream_at(micak_philox_key_of(0, micak_hash_name("nystroem"), (uint64_t)v->n), 0, 0);
  for (int64_t i = 0; i < rank; i++) {
    int64_t other = i + (int64_t)(micak_stream_uniform(&draw) * (double)(v->n - i)), kept = v->columns[i];
    v->columns[i] = v->columns[other], v->columns[other] = kept;
  }
  return MICA_OK;
}

mica_status micah_adapt_solve_create(mica_executor *x, int32_t e, micah_adapt_state *s) {
  const micah_entry *entry = &x->program->entries[e];
  const micah_adapt *a = entry->own;
  micah_region *region = &x->region;
  int64_t before = region->bytes;
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
  for (int32_t k = 0; k < a->n_carry; k++)
    if (a->carry[k].residual >= 0) v->n += a->carry[k].count;
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
  int64_t bytes = v->capacity * v->n * (int64_t)mica_dtype_size(x->dtype);
  char **vectors[] = { &v->u, &v->v, &v->r, &v->p, &v->q };
  for (int i = 0; i < MICA_COUNT(vectors); i++)
    if (!(*vectors[i] = micah_region_raw(region, bytes))) return MICA_ERR_MEMORY;
  v->saved = micah_region_raw(region, memory.saved);
  v->rr = micah_region_alloc(region, v->capacity, sizeof *v->rr);
  v->uu = micah_region_alloc(region, v->capacity, sizeof *v->uu);
  v->residual = micah_region_alloc(region, v->capacity, sizeof *v->residual);
  v->iterations = micah_region_alloc(region, v->capacity, sizeof *v->iterations);
  v->converged = micah_region_alloc(region, v->capacity, 1);
  v->done = micah_region_alloc(region, v->capacity, 1);
  if (!v->saved || !v->rr || !v->uu || !v->residual || !v->iterations || !v->converged || !v->done)
    return MICA_ERR_MEMORY;
  if (a->options.solver == MICA_SOLVE_DENSE) {
    if (v->n > DENSE_MOST)
      return mica_error(MICA_ERR_UNSUPPORTED, "program %s: %s: %lld adapted numbers a task, a dense solve takes at "
                        "most %d; use CG or Neumann", x->program->name, entry->path, (long long)v->n, DENSE_MOST);
    v->matrix = micah_region_alloc(region, v->capacity * v->n * v->n, sizeof *v->matrix);
    v->work = micah_region_alloc(region, v->capacity * v->n, sizeof *v->work);
    if (!v->matrix || !v->work) return MICA_ERR_MEMORY;
  }
  if (a->options.solver == MICA_SOLVE_NYSTROEM && (status = choose_columns(x, v, a->options.iterations)) < 0)
    return status;
  v->bytes = region->bytes - before + memory.scratch;
  return MICA_OK;
}

void micah_adapt_solve_destroy(micah_adapt_state *s) { mica_executor_destroy(s->solve->f); }
int64_t micah_adapt_solve_bytes(const micah_adapt_state *s) { return s->solve->bytes; }

/* ---- products ---- */

/* a vector's part of one carry as a wire */
static mica_wire part(const micah_adapt_run *r, char *vector, int64_t from) {
  return (mica_wire){ .data = vector + from * (int64_t)mica_dtype_size(r->x->dtype), .task_stride = r->s->solve->n };
}

/* to = (dF/dtheta)^T from, for every task */
static mica_status product(const micah_adapt_run *r, char *from, char *to) {
  mica_status status = MICA_OK;
  mica_executor *f = r->s->solve->f;
  int64_t at = 0;
  for (int32_t k = 0; status >= 0 && k < r->a->n_carry; k++) {
    const micah_adapt_carry *c = &r->a->carry[k];
    if (c->residual < 0) continue;
    mica_wire seed = part(r, from, at), d = part(r, to, at);
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

typedef struct work {
  const micah_adapt_run *r;
  solve *s;
  int    dtype;
  void (*task)(const struct work *w, int64_t b);
} work;

static void *vector(const work *w, char *all, int64_t b) {
  return all + b * w->s->n * (int64_t)mica_dtype_size(w->dtype);
}

static void one_task(void *arg, int64_t b, int32_t worker) {
  (void)worker;
  const work *w = arg;
  w->task(w, b);
}

static void each_task(const micah_adapt_run *r, void (*task)(const work *, int64_t)) {
  work w = { r, r->s->solve, r->x->dtype, task };
  const mica_threads *threads = mica_context_get_threads(r->x->context);
  if (threads && threads->parallel_for) threads->parallel_for(threads->user, w.s->tasks, one_task, &w);
  else for (int64_t b = 0; b < w.s->tasks; b++) task(&w, b);
}

/* u from the cotangents of theta; r = p = u, v = 0 */
static void start(const work *w, int64_t b) {
  solve *s = w->s;
  int64_t size = (int64_t)mica_dtype_size(w->dtype), at = 0;
  for (int32_t k = 0; k < w->r->a->n_carry; k++) {
    const micah_adapt_carry *c = &w->r->a->carry[k];
    if (c->residual < 0) continue;
    char *to = (char *)vector(w, s->u, b) + at * size;
    const char *from = micak_task(&micah_inner_port(w->r->args, c->last)->d, NULL, b);
    if (from) memcpy(to, from, (size_t)(c->count * size));
    else memset(to, 0, (size_t)(c->count * size));
    at += c->count;
  }
  micak_combine(w->dtype, vector(w, s->r, b), 1, vector(w, s->u, b), 0, s->n);
  micak_combine(w->dtype, vector(w, s->p, b), 1, vector(w, s->u, b), 0, s->n);
  memset(vector(w, s->v, b), 0, (size_t)(s->n * size));
  s->uu[b] = s->rr[b] = micak_dot(w->dtype, vector(w, s->u, b), vector(w, s->u, b), s->n);
  s->iterations[b] = 0;
  s->residual[b] = s->uu[b] == 0 ? 0 : 1;
  s->done[b] = s->converged[b] = s->uu[b] == 0;
}

/* r is the residual now */
static void measure(const work *w, int64_t b, double rr) {
  solve *s = w->s;
  s->rr[b] = rr;
  s->residual[b] = sqrt(rr / s->uu[b]);
  if (s->residual[b] <= w->r->a->options.tolerance) s->converged[b] = 1;
}

static void damp(const work *w, int64_t b) {
  double damping = w->r->a->options.damping;
  if (damping != 0) micak_combine(w->dtype, vector(w, w->s->q, b), damping, vector(w, w->s->p, b), 1, w->s->n);
}

static void cg_task(const work *w, int64_t b) {
  solve *s = w->s;
  if (s->done[b]) return;
  damp(w, b);
  void *v = vector(w, s->v, b), *r = vector(w, s->r, b), *p = vector(w, s->p, b), *q = vector(w, s->q, b);
  double curvature = micak_dot(w->dtype, p, q, s->n), before = s->rr[b];
  /* no minimum there, or not a number: the task stays as it is, and unconverged */
  if (!(curvature > 0) || !isfinite(curvature)) {
    s->done[b] = 1;
    return;
  }
  double step = before / curvature;
  micak_combine(w->dtype, v, step, p, 1, s->n);
  micak_combine(w->dtype, r, -step, q, 1, s->n);
  s->iterations[b]++;
  measure(w, b, micak_dot(w->dtype, r, r, s->n));
  s->done[b] = s->converged[b] || !(s->rr[b] > 0);
  if (!s->done[b]) micak_combine(w->dtype, p, 1, r, s->rr[b] / before, s->n);
}

static mica_status run_cg(const micah_adapt_run *r) {
  solve *s = r->s->solve;
  mica_status status = MICA_OK;
  for (int64_t i = 0; status >= 0 && i < r->a->options.iterations; i++) {
    int64_t left = 0;
    for (int64_t b = 0; b < s->tasks; b++) left += !s->done[b];
    if (!left) break;
    status = product(r, s->p, s->q);
    if (status >= 0) each_task(r, cg_task);
  }
  return status;
}

/* v += p, then p = (1 - rate A) p */
static void neumann_task(const work *w, int64_t b) {
  solve *s = w->s;
  void *v = vector(w, s->v, b), *p = vector(w, s->p, b);
  damp(w, b);
  micak_combine(w->dtype, v, w->r->a->options.rate, p, 1, s->n);
  micak_combine(w->dtype, p, -w->r->a->options.rate, vector(w, s->q, b), 1, s->n);
  s->iterations[b]++;
}

/* the terms that are left out begin with p, which is the residual u - A v */
static void neumann_end(const work *w, int64_t b) {
  solve *s = w->s;
  void *p = vector(w, s->p, b);
  if (s->uu[b] > 0) measure(w, b, micak_dot(w->dtype, p, p, s->n));
}

static mica_status run_neumann(const micah_adapt_run *r) {
  mica_status status = MICA_OK;
  for (int64_t i = 0; status >= 0 && i < r->a->options.iterations; i++) {
    status = product(r, r->s->solve->p, r->s->solve->q);
    if (status >= 0) each_task(r, neumann_task);
  }
  if (status >= 0) each_task(r, neumann_end);
  return status;
}

/* solve, then put what A v leaves of u into r */
static void dense_task(const work *w, int64_t b) {
  solve *s = w->s;
  double *a = s->matrix + b * s->n * s->n, *x = s->work + b * s->n;
  for (int64_t i = 0; i < s->n; i++) a[i * s->n + i] += w->r->a->options.damping;
  micak_to_double(w->dtype, vector(w, s->u, b), x, s->n);
  s->iterations[b] = 1;
  if (!micak_solve_transposed(a, x, s->n)) return;
  micak_from_double(w->dtype, x, vector(w, s->v, b), s->n);
  s->converged[b] = 1;
  s->residual[b] = 0;
}

/* v = u / damping - C^T (S + C C^T / damping)^-1 C u / damping^2, C the chosen rows of the symmetric matrix */
static void nystroem_task(const work *w, int64_t b) {
  solve *s = w->s;
  int64_t rank = w->r->a->options.iterations, n = s->n;
  double damping = w->r->a->options.damping;
  const double *c = s->matrix + b * rank * n;
  double *small = s->work + b * (rank * rank + rank + n), *y = small + rank * rank, *u = y + rank;
  micak_to_double(w->dtype, vector(w, s->u, b), u, n);
  for (int64_t i = 0; i < rank; i++) {
    for (int64_t j = 0; j <= i; j++) {
      double both = micak_dot(MICA_F64, c + i * n, c + j * n, n) / damping;
      small[i * rank + j] = small[j * rank + i] = both + (c[i * n + s->columns[j]] + c[j * n + s->columns[i]]) / 2;
    }
    y[i] = micak_dot(MICA_F64, c + i * n, u, n) / (damping * damping);
  }
  s->iterations[b] = (int32_t)rank;
  int solved = micak_solve_transposed(small, y, rank);
  micak_combine(MICA_F64, u, 0, u, 1 / damping, n);
  for (int64_t i = 0; solved && i < rank; i++) micak_combine(MICA_F64, u, -y[i], c + i * n, 1, n);
  micak_from_double(w->dtype, u, vector(w, s->v, b), n);
  micak_combine(w->dtype, vector(w, s->p, b), 1, vector(w, s->v, b), 0, n);
  if (!solved) s->iterations[b] = 0;
}

/* the residual, by a product with the matrix itself */
static void nystroem_end(const work *w, int64_t b) {
  solve *s = w->s;
  damp(w, b);
  micak_combine(w->dtype, vector(w, s->r, b), -1, vector(w, s->q, b), 1, s->n);
  if (s->uu[b] > 0 && s->iterations[b] > 0)
    measure(w, b, micak_dot(w->dtype, vector(w, s->r, b), vector(w, s->r, b), s->n));
}

/* row `at` of every task's matrix into row `to` of `rows` */
static mica_status matrix_row(const micah_adapt_run *r, int64_t at, int64_t to, int64_t rows) {
  solve *s = r->s->solve;
  int64_t size = (int64_t)mica_dtype_size(r->x->dtype);
  memset(s->p, 0, (size_t)(s->tasks * s->n * size));
  for (int64_t b = 0; b < s->tasks; b++) micak_add_one(r->x->dtype, s->p + (b * s->n + at) * size, 1);
  mica_status status = product(r, s->p, s->q);
  for (int64_t b = 0; status >= 0 && b < s->tasks; b++)
    micak_to_double(r->x->dtype, s->q + b * s->n * size, s->matrix + (b * rows + to) * s->n, s->n);
  return status;
}

static mica_status run_nystroem(const micah_adapt_run *r) {
  solve *s = r->s->solve;
  int64_t rank = r->a->options.iterations;
  mica_status status = MICA_OK;
  for (int64_t i = 0; status >= 0 && i < rank; i++) status = matrix_row(r, s->columns[i], i, rank);
  if (status < 0) return status;
  each_task(r, nystroem_task);
  status = product(r, s->p, s->q);
  if (status >= 0) each_task(r, nystroem_end);
  return status;
}

static mica_status run_dense(const micah_adapt_run *r) {
  solve *s = r->s->solve;
  mica_status status = MICA_OK;
  for (int64_t i = 0; status >= 0 && i < s->n; i++) status = matrix_row(r, i, i, s->n);
  if (status >= 0) each_task(r, dense_task);
  return status;
}

/* -v, and nothing of tasks whose solve is not to be used */
static void finish(const work *w, int64_t b) {
  solve *s = w->s;
  int used = s->converged[b] || (w->r->a->options.tolerance == 0 && w->r->a->options.solver != MICA_SOLVE_DENSE &&
                                 isfinite(s->rr[b]) && s->iterations[b] > 0);
  s->converged[b] = (uint8_t)used;
  if (used) micak_combine(w->dtype, vector(w, s->p, b), -1, vector(w, s->v, b), 0, s->n);
  else memset(vector(w, s->p, b), 0, (size_t)s->n * mica_dtype_size(w->dtype));
}

mica_status micah_adapt_solve_back(const micah_adapt_run *r) {
  static mica_status (*const solvers[])(const micah_adapt_run *) = { run_cg, run_neumann, run_dense,
                                                                    run_nystroem };
  const mica_wire none = { .data = NULL };
  solve *s = r->s->solve;
  s->tasks = micah_rows(r->x, r->x->program->entries[r->entry].level);
  each_task(r, start);
  mica_status status = forward(r);
  if (status >= 0) status = solvers[r->a->options.solver](r);
  if (status < 0) return status;
  each_task(r, finish);
  int64_t lost = 0;
  for (int64_t b = 0; b < s->tasks; b++) lost += !s->converged[b];
  if (lost)
    mica_log(r->x->context, MICA_LOG_WARN, "%s: the solve of %lld of %lld tasks did not converge; they add nothing",
             s->path, (long long)lost, (long long)s->tasks);
  /* -(dF/dphi)^T v into the ports; starting values and what F does not have get nothing */
  int64_t at = 0;
  for (int32_t k = 0; status >= 0 && k < r->a->n_carry; k++) {
    const micah_adapt_carry *c = &r->a->carry[k];
    if (c->residual < 0) continue;
    mica_wire seed = part(r, s->p, at);
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
    *out = (mica_adapt_report){ s->path, s->tasks, 0, s->iterations, s->residual, s->converged };
    for (int64_t b = 0; b < s->tasks; b++) out->unconverged += !s->converged[b];
    return MICA_OK;
  }
  return mica_error(MICA_ERR_NOT_FOUND, "program %s has %d inner loops, there is none with index %d", x->program->name,
                    n, index);
}
