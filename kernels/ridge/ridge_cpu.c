/* ridge on the CPU, in double: a task at a time. G = x^T x + ridge I is applied as G^-1 through the smaller of G and of
 * x x^T + ridge I:  G^-1 m = (m - x^T (x x^T + ridge I)^-1 x m) / ridge.
 *   V = w, Q = w.d G^-1 (both O x I), E = y - x V^T, C = x Q^T (both R x O) */
#include <math.h>

#include "common/isa.h"
#include "common/task_matrix.h"
#include "ridge/ridge_internal.h"

/* one task. matrices by rows */
typedef struct task {
  const mica_ridge_args *a;
  int64_t b, R, I, O, n;
  double *L, *z;                             /* the factor (n x n, below and on the diagonal), n more */
  double *x, *xt, *thin[RIDGE_THIN], *wide[RIDGE_WEIGHTS];
  double  ridge;
  int     good;
} task;

static void load_rows(const mica_port *port, int bit, const task *t, int64_t columns, double *to) {
  micak_plane p = task_plane(port, bit, t->b);
  task_load(&p, t->R, columns, to);
}
static void load_y(const task *t, double *to) { task_targets(&t->a->y, &t->a->label, t->b, t->R, t->O, to); }
static void load_w(const task *t, int bit, double *to) {
  micak_plane p = micak_plane_rows(micak_wire((mica_port *)(uintptr_t)&t->a->w, bit), NULL, t->b);
  task_load(&p, t->O, t->I, to);
}
static void save_rows(const mica_port *port, int bit, const task *t, int64_t columns, const double *from) {
  micak_plane p = task_plane(port, bit, t->b);
  task_save(&p, t->R, columns, from);
}
static void save_w(const task *t, int bit, const double *from) {
  micak_plane p = micak_plane_rows(micak_wire((mica_port *)(uintptr_t)&t->a->w, bit), NULL, t->b);
  task_save(&p, t->O, t->I, from);
}
static double load_ridge(const task *t, int bit) { return task_number(&t->a->ridge, bit, t->b); }
static void save_ridge(const task *t, int bit, double value) { task_save_number(&t->a->ridge, bit, t->b, value); }

/* x, ridge and the factor of the smaller system */
static task task_of(const mica_exec *exec, const mica_ridge_args *a, int64_t b) {
  const int32_t *offsets = micak_target_offsets(&a->x, &a->y, &a->label);
  task t = { .a = a, .b = b, .R = micak_rows(offsets, b, a->R), .I = a->I, .O = a->O };
  t.n = micak_unknowns(t.R, t.I);
  int64_t most = micak_unknowns(a->R, a->I);
  double *at = exec->scratch;
  t.L = at, at += most * most;
  t.z = at, at += most;
  t.x = at, at += a->R * a->I;
  t.xt = at, at += a->R * a->I;
  for (int i = 0; i < RIDGE_THIN; i++, at += a->R * a->O) t.thin[i] = at;
  for (int i = 0; i < RIDGE_WEIGHTS; i++, at += a->O * a->I) t.wide[i] = at;
  t.ridge = load_ridge(&t, MICA_V);
  t.good = t.ridge > 0;
  load_rows(&a->x, MICA_V, &t, t.I, t.x);
  double *L = t.L;
  int64_t n = t.n;
  if (t.R < t.I) {
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j <= i; j++) L[i * n + j] = task_dot(t.x + i * t.I, t.x + j * t.I, t.I);
  } else {
    memset(L, 0, (size_t)(n * n) * sizeof *L);
    for (int64_t r = 0; r < t.R; r++)
      for (int64_t i = 0; i < n; i++) task_axpy(t.x[r * n + i], t.x + r * n, L + i * n, i + 1);
  }
  for (int64_t i = 0; i < n; i++) L[i * n + i] += t.ridge;
  t.good &= task_factor(L, n);
  return t;
}

/* rows of m (O x I) := m G^-1 */
static void solve(const task *t, double *m) {
  for (int64_t o = 0; o < t->O; o++, m += t->I) {
    if (!t->good) {
      for (int64_t i = 0; i < t->I; i++) m[i] = (double)NAN;
    } else if (t->R < t->I) {
      for (int64_t r = 0; r < t->R; r++) t->z[r] = task_dot(t->x + r * t->I, m, t->I);
      task_substitute(t->L, t->n, t->z);
      for (int64_t r = 0; r < t->R; r++) task_axpy(-t->z[r], t->x + r * t->I, m, t->I);
      for (int64_t i = 0; i < t->I; i++) m[i] /= t->ridge;
    } else {
      task_substitute(t->L, t->n, m);
    }
  }
}

/* to (R x O) += sign x m^T */
static void apply(const task *t, double sign, const double *x, const double *m, double *to) {
  for (int64_t r = 0; r < t->R; r++)
    for (int64_t o = 0; o < t->O; o++) to[r * t->O + o] += sign * task_dot(x + r * t->I, m + o * t->I, t->I);
}
/* m (O x I) += sign c^T x */
static void gather(const task *t, double sign, const double *c, const double *x, double *m) {
  for (int64_t r = 0; r < t->R; r++)
    for (int64_t o = 0; o < t->O; o++) task_axpy(sign * c[r * t->O + o], x + r * t->I, m + o * t->I, t->I);
}
/* x (R x I) += sign c m */
static void spread(const task *t, double sign, const double *c, const double *m, double *x) {
  for (int64_t r = 0; r < t->R; r++)
    for (int64_t o = 0; o < t->O; o++) task_axpy(sign * c[r * t->O + o], m + o * t->I, x + r * t->I, t->I);
}
static void forward(const task *t) {
  double *y = t->thin[0], *V = t->wide[0];
  load_y(t, y);
  task_clear(V, t->O * t->I);
  gather(t, 1, y, t->x, V);
  solve(t, V);
  save_w(t, MICA_V, V);
}

static void jvp(const task *t) {
  double *e = t->thin[0], *f = t->thin[1], *V = t->wide[0], *Vt = t->wide[1];
  load_w(t, MICA_V, V);
  load_rows(&t->a->x, MICA_T, t, t->I, t->xt);
  load_y(t, e);
  load_rows(&t->a->y, MICA_T, t, t->O, f);
  apply(t, -1, t->x, V, e);
  apply(t, -1, t->xt, V, f);
  task_clear(Vt, t->O * t->I);
  gather(t, 1, e, t->xt, Vt);
  gather(t, 1, f, t->x, Vt);
  task_axpy(-load_ridge(t, MICA_T), V, Vt, t->O * t->I);
  solve(t, Vt);
  save_w(t, MICA_T, Vt);
}

static void backward(const task *t) {
  double *e = t->thin[0], *c = t->thin[1], *V = t->wide[0], *Q = t->wide[1], *dx = t->xt;
  load_w(t, MICA_V, V);
  load_w(t, MICA_D, Q);
  load_y(t, e);
  solve(t, Q);
  apply(t, -1, t->x, V, e);
  task_clear(c, t->R * t->O);
  apply(t, 1, t->x, Q, c);
  task_clear(dx, t->R * t->I);
  spread(t, 1, e, Q, dx);
  spread(t, -1, c, V, dx);
  save_rows(&t->a->x, MICA_D, t, t->I, dx);
  save_rows(&t->a->y, MICA_D, t, t->O, c);
  save_ridge(t, MICA_D, -task_dot(Q, V, t->O * t->I));
}

static void backward_jvp(const task *t) {
  double *e = t->thin[0], *et = t->thin[1], *c = t->thin[2], *ct = t->thin[3], *x = t->x, *xt = t->xt;
  double *V = t->wide[0], *Vt = t->wide[1], *Q = t->wide[2], *Qt = t->wide[3];
  load_w(t, MICA_V, V);
  load_w(t, MICA_T, Vt);
  load_w(t, MICA_D, Q);
  load_w(t, MICA_TD, Qt);
  load_rows(&t->a->x, MICA_T, t, t->I, xt);
  load_y(t, e);
  load_rows(&t->a->y, MICA_T, t, t->O, et);
  solve(t, Q);
  task_clear(c, t->R * t->O);
  task_clear(ct, t->R * t->O);
  apply(t, 1, x, Q, c);
  apply(t, 1, xt, Q, ct);
  task_axpy(-load_ridge(t, MICA_T), Q, Qt, t->O * t->I); /* G.t Q is taken off */
  gather(t, -1, c, xt, Qt);
  gather(t, -1, ct, x, Qt);
  solve(t, Qt);
  apply(t, 1, x, Qt, ct);
  apply(t, -1, x, V, e);
  apply(t, -1, xt, V, et);
  apply(t, -1, x, Vt, et);
  double *dx = x; /* done with */
  task_clear(dx, t->R * t->I);
  spread(t, 1, et, Q, dx);
  spread(t, 1, e, Qt, dx);
  spread(t, -1, ct, V, dx);
  spread(t, -1, c, Vt, dx);
  save_rows(&t->a->x, MICA_TD, t, t->I, dx);
  save_rows(&t->a->y, MICA_TD, t, t->O, ct);
  save_ridge(t, MICA_TD, -(task_dot(Qt, V, t->O * t->I) + task_dot(Q, Vt, t->O * t->I)));
}

static mica_status run(const mica_exec *exec, const mica_ridge_args *a, int bit, void (*face)(const task *), int64_t first,
                       int64_t count) {
  mica_status status = micak_target_error("ridge", &a->y, &a->label);
  if (status < 0 || count <= 0) return status;
  int all = micak_solve_units(a->B, bit, &a->w, &a->x, &a->y, &a->ridge) != a->B;
  for (int64_t b = all ? 0 : first; b < (all ? a->B : first + count); b++) {
    micak_index_row label = micak_index_row_of(&a->label, b);
    for (int64_t r = 0; a->label.v.data && r < micak_rows(micak_target_offsets(&a->x, &a->y, &a->label), b, a->R); r++)
      if ((status = micak_label_error("ridge", a->O, micak_index_in(&label, r), b, r)) < 0) return status;
    task t = task_of(exec, a, b);
    face(&t);
  }
  return MICA_OK;
}
CPU_KERNEL(ridge_forward) { return run(exec, args, MICA_V, forward, first, count); }
CPU_KERNEL(ridge_jvp) { return run(exec, args, MICA_T, jvp, first, count); }
CPU_KERNEL(ridge_backward) { return run(exec, args, MICA_D, backward, first, count); }
CPU_KERNEL(ridge_backward_jvp) { return run(exec, args, MICA_TD, backward_jvp, first, count); }
