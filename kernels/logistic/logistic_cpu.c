/* logistic on the CPU, in double: a class of a task at a time. letters as in README.md */
#include "common/isa.h"
#include "common/task_matrix.h"
#include "logistic/logistic_internal.h"

/* one task, and the class that is being looked at */
typedef struct task {
  const mica_logistic_args *a;
  int64_t b, R, I, O, n;
  double *x, *xt, *dx;                       /* R x I */
  double *y[LOGISTIC_THIN];                  /* R x O */
  double *row[LOGISTIC_ROWS];                /* R */
  double *wide[LOGISTIC_WEIGHTS];            /* I */
  double *K, *L;                             /* n x n: x x^T where that is the smaller system; a factor */
  double  ridge;
  int     good;
} task;

static void load_rows(const task *t, const mica_port *port, int bit, int64_t columns, double *to) {
  micak_plane p = task_plane(port, bit, t->b);
  task_load(&p, t->R, columns, to);
}
static void save_rows(const task *t, const mica_port *port, int bit, int64_t columns, const double *from) {
  micak_plane p = task_plane(port, bit, t->b);
  task_save(&p, t->R, columns, from);
}
/* class o of w's wire */
static micak_plane class_of(const task *t, int bit, int64_t o) {
  micak_plane p = micak_plane_rows(micak_wire((mica_port *)(uintptr_t)&t->a->w, bit), NULL, t->b);
  if (p.at) p.at += o * p.row;
  return p;
}
static void load_w(const task *t, int bit, int64_t o, double *to) {
  micak_plane p = class_of(t, bit, o);
  task_load(&p, 1, t->I, to);
}
static void save_w(const task *t, int bit, int64_t o, const double *from) {
  micak_plane p = class_of(t, bit, o);
  task_save(&p, 1, t->I, from);
}
static double ridge_of(const task *t, int bit) { return task_number(&t->a->ridge, bit, t->b); }

static task task_of(const mica_exec *exec, const mica_logistic_args *a, int64_t b) {
  const int32_t *offsets = micak_target_offsets(&a->x, &a->y, &a->label);
  task t = { .a = a, .b = b, .R = micak_rows(offsets, b, a->R), .I = a->I, .O = a->O };
  t.n = micak_unknowns(t.R, t.I);
  int64_t most = micak_unknowns(a->R, a->I);
  double *at = exec->scratch;
  t.x = at, t.xt = at + a->R * a->I, t.dx = t.xt + a->R * a->I, at = t.dx + a->R * a->I;
  for (int i = 0; i < LOGISTIC_THIN; i++, at += a->R * a->O) t.y[i] = at;
  for (int i = 0; i < LOGISTIC_ROWS; i++, at += a->R) t.row[i] = at;
  for (int i = 0; i < LOGISTIC_WEIGHTS; i++, at += a->I) t.wide[i] = at;
  t.K = at, t.L = at + most * most;
  t.ridge = ridge_of(&t, MICA_V);
  load_rows(&t, &a->x, MICA_V, t.I, t.x);
  task_targets(&a->y, &a->label, b, t.R, t.O, t.y[0]);
  for (int64_t r = 0; t.R < t.I && r < t.R; r++)
    for (int64_t q = 0; q <= r; q++) t.K[r * t.n + q] = task_dot(t.x + r * t.I, t.x + q * t.I, t.I);
  return t;
}

/* to (R) = or += x w */
static void apply(const task *t, const double *x, const double *w, int add, double *to) {
  for (int64_t r = 0; r < t->R; r++) to[r] = (add ? to[r] : 0) + task_dot(x + r * t->I, w, t->I);
}
/* m (I) -= x' c */
static void take(const task *t, const double *x, const double *c, double *m) {
  for (int64_t r = 0; r < t->R; r++) task_axpy(-c[r], x + r * t->I, m, t->I);
}

/* s and its derivatives at z; d2 may be NULL */
static void sigmoid(int64_t n, const double *z, double *s, double *d, double *d2) {
  for (int64_t r = 0; r < n; r++) {
    double e = exp(-fabs(z[r])), part = e / (1 + e);
    s[r] = z[r] >= 0 ? 1 - part : part;
    d[r] = part * (1 - part);
    if (d2) d2[r] = d[r] * (1 - 2 * s[r]);
  }
}

/* the factor of H, or of its smaller twin; d: slopes of the rows, whose roots are left in `root` */
static void factor(task *t, const double *d, double *root) {
  int64_t n = t->n, I = t->I;
  if (t->R < I) {
    for (int64_t r = 0; r < n; r++) root[r] = sqrt(d[r]);
    for (int64_t r = 0; r < n; r++)
      for (int64_t q = 0; q <= r; q++)
        t->L[r * n + q] = root[r] * t->K[r * n + q] * root[q] + (q == r ? t->ridge : 0);
  } else {
    task_clear(t->L, n * n);
    for (int64_t r = 0; r < t->R; r++)
      for (int64_t i = 0; i < n; i++) task_axpy(d[r] * t->x[r * I + i], t->x + r * I, t->L + i * n, i + 1);
    for (int64_t i = 0; i < n; i++) t->L[i * n + i] += t->ridge;
  }
  t->good = task_factor(t->L, n); /* w of an impossible task is NaN, and so is this */
}
/* m (I) := H^-1 m; z: R more numbers */
static void solve(const task *t, const double *root, double *z, double *m) {
  if (!t->good) {
    for (int64_t i = 0; i < t->I; i++) m[i] = (double)NAN;
  } else if (t->R < t->I) {
    for (int64_t r = 0; r < t->R; r++) z[r] = root[r] * task_dot(t->x + r * t->I, m, t->I);
    task_substitute(t->L, t->n, z);
    for (int64_t r = 0; r < t->R; r++) task_axpy(-root[r] * z[r], t->x + r * t->I, m, t->I);
    for (int64_t i = 0; i < t->I; i++) m[i] /= t->ridge;
  } else {
    task_substitute(t->L, t->n, m);
  }
}

/* column o of a matrix (R x O) */
static void column(const task *t, const double *y, int64_t o, double *to) {
  for (int64_t r = 0; r < t->R; r++) to[r] = y[r * t->O + o];
}

static double objective(const task *t, const double *y, const double *z, const double *w) {
  double sum = t->ridge / 2 * task_dot(w, w, t->I);
  for (int64_t r = 0; r < t->R; r++) sum += fmax(z[r], 0) + log1p(exp(-fabs(z[r]))) - y[r] * z[r];
  return sum;
}

/* Newton's method from 0; w: NaN where it does not get there */
static void newton(task *t, int64_t o, double *w) {
  enum { MOST = 100 };
  double *y = t->row[0], *z = t->row[1], *s = t->row[2], *d = t->row[3], *root = t->row[4], *more = t->row[5];
  double *step = t->wide[1], *g = t->wide[2], size = (double)INFINITY, length = 0;
  int n = 0, good = t->ridge > 0;
  column(t, t->y[0], o, y);
  task_clear(w, t->I);
  task_clear(z, t->R);
  for (; good && n < MOST && size > 1e-9 * (1 + length); n++) {
    double at = objective(t, y, z, w), length_of = 1;
    sigmoid(t->R, z, s, d, NULL);
    for (int64_t r = 0; r < t->R; r++) s[r] -= y[r];
    task_clear(g, t->I);
    task_axpy(-t->ridge, w, g, t->I);
    take(t, t->x, s, g);
    memcpy(step, g, (size_t)t->I * sizeof *g);
    factor(t, d, root);
    solve(t, root, more, step);
    double slope = -task_dot(g, step, t->I);
    good = t->good && isfinite(slope);
    task_axpy(1, step, w, t->I);
    apply(t, t->x, w, 0, z);
    /* a slope of rounding errors says nothing about the objective */
    while (good && length_of > 1e-9 && -slope >= 1e-12 * (1 + fabs(at)) &&
           !(objective(t, y, z, w) <= at + 1e-4 * length_of * slope)) {
      length_of /= 2;
      task_axpy(-length_of, step, w, t->I);
      apply(t, t->x, w, 0, z);
    }
    size = length = 0;
    for (int64_t i = 0; i < t->I; i++) {
      size = fmax(size, length_of * fabs(step[i]));
      length = fmax(length, fabs(w[i]));
    }
  }
  for (int64_t i = 0; (!good || n == MOST) && i < t->I; i++) w[i] = (double)NAN;
}

static void forward(task *t) {
  for (int64_t o = 0; o < t->O; o++) {
    newton(t, o, t->wide[0]);
    save_w(t, MICA_V, o, t->wide[0]);
  }
}

/* w of class o, and s - y, d, d2, root of its rows; H's factor */
typedef struct minimum { double *w, *e, *d, *d2, *root; } minimum;
static minimum minimum_of(task *t, int64_t o) {
  minimum m = { t->wide[0], t->row[0], t->row[1], t->row[2], t->row[3] };
  load_w(t, MICA_V, o, m.w);
  apply(t, t->x, m.w, 0, m.e);
  sigmoid(t->R, m.e, m.e, m.d, m.d2);
  for (int64_t r = 0; r < t->R; r++) m.e[r] -= t->y[0][r * t->O + o];
  factor(t, m.d, m.root);
  return m;
}

static void jvp(task *t) {
  double *f = t->row[4], *more = t->row[5], *wt = t->wide[1];
  load_rows(t, &t->a->x, MICA_T, t->I, t->xt);
  load_rows(t, &t->a->y, MICA_T, t->O, t->y[1]);
  for (int64_t o = 0; o < t->O; o++) {
    minimum m = minimum_of(t, o);
    apply(t, t->xt, m.w, 0, f);
    for (int64_t r = 0; r < t->R; r++) f[r] = m.d[r] * f[r] - t->y[1][r * t->O + o];
    task_clear(wt, t->I);
    task_axpy(-ridge_of(t, MICA_T), m.w, wt, t->I);
    take(t, t->x, f, wt);
    take(t, t->xt, m.e, wt);
    solve(t, m.root, more, wt);
    save_w(t, MICA_T, o, wt);
  }
}

static void backward(task *t) {
  double *c = t->row[4], *more = t->row[5], *q = t->wide[1], sum = 0;
  task_clear(t->dx, t->R * t->I);
  for (int64_t o = 0; o < t->O; o++) {
    minimum m = minimum_of(t, o);
    load_w(t, MICA_D, o, q);
    solve(t, m.root, more, q);
    apply(t, t->x, q, 0, c);
    for (int64_t r = 0; r < t->R; r++) {
      task_axpy(-m.d[r] * c[r], m.w, t->dx + r * t->I, t->I);
      task_axpy(-m.e[r], q, t->dx + r * t->I, t->I);
      t->y[1][r * t->O + o] = c[r];
    }
    sum -= task_dot(q, m.w, t->I);
  }
  save_rows(t, &t->a->x, MICA_D, t->I, t->dx);
  save_rows(t, &t->a->y, MICA_D, t->O, t->y[1]);
  task_save_number(&t->a->ridge, MICA_D, t->b, sum);
}

static void backward_jvp(task *t) {
  double *c = t->row[4], *more = t->row[5], *zt = t->row[6], *ct = t->row[7], *dt = t->row[8], *f = t->row[9];
  double *q = t->wide[1], *qt = t->wide[2], *wt = t->wide[3], sum = 0;
  load_rows(t, &t->a->x, MICA_T, t->I, t->xt);
  load_rows(t, &t->a->y, MICA_T, t->O, t->y[1]);
  task_clear(t->dx, t->R * t->I);
  for (int64_t o = 0; o < t->O; o++) {
    minimum m = minimum_of(t, o);
    load_w(t, MICA_T, o, wt);
    load_w(t, MICA_D, o, q);
    load_w(t, MICA_TD, o, qt);
    solve(t, m.root, more, q);
    apply(t, t->x, q, 0, c);
    apply(t, t->xt, q, 0, ct);
    apply(t, t->xt, m.w, 0, zt);
    apply(t, t->x, wt, 1, zt);
    task_axpy(-ridge_of(t, MICA_T), q, qt, t->I);
    for (int64_t r = 0; r < t->R; r++) dt[r] = m.d2[r] * zt[r], f[r] = m.d[r] * c[r];
    take(t, t->xt, f, qt);
    for (int64_t r = 0; r < t->R; r++) f[r] = m.d[r] * ct[r] + dt[r] * c[r];
    take(t, t->x, f, qt);
    solve(t, m.root, more, qt);
    apply(t, t->x, qt, 1, ct);
    for (int64_t r = 0; r < t->R; r++) {
      double *dx = t->dx + r * t->I, et = m.d[r] * zt[r] - t->y[1][r * t->O + o];
      task_axpy(-(dt[r] * c[r] + m.d[r] * ct[r]), m.w, dx, t->I);
      task_axpy(-m.d[r] * c[r], wt, dx, t->I);
      task_axpy(-et, q, dx, t->I);
      task_axpy(-m.e[r], qt, dx, t->I);
      t->y[2][r * t->O + o] = ct[r];
    }
    sum -= task_dot(qt, m.w, t->I) + task_dot(q, wt, t->I);
  }
  save_rows(t, &t->a->x, MICA_TD, t->I, t->dx);
  save_rows(t, &t->a->y, MICA_TD, t->O, t->y[2]);
  task_save_number(&t->a->ridge, MICA_TD, t->b, sum);
}

static mica_status run(const mica_exec *exec, const mica_logistic_args *a, int bit, void (*face)(task *), int64_t first,
                       int64_t count) {
  mica_status status = micak_target_error("logistic", &a->y, &a->label);
  if (status < 0 || count <= 0) return status;
  int all = micak_solve_units(a->B, bit, &a->w, &a->x, &a->y, &a->ridge) != a->B;
  for (int64_t b = all ? 0 : first; b < (all ? a->B : first + count); b++) {
    micak_index_row label = micak_index_row_of(&a->label, b);
    for (int64_t r = 0; a->label.v.data && r < micak_rows(micak_target_offsets(&a->x, &a->y, &a->label), b, a->R); r++)
      if ((status = micak_label_error("logistic", a->O, micak_index_in(&label, r), b, r)) < 0) return status;
    task t = task_of(exec, a, b);
    face(&t);
  }
  return MICA_OK;
}
CPU_KERNEL(logistic_forward) { return run(exec, args, MICA_V, forward, first, count); }
CPU_KERNEL(logistic_jvp) { return run(exec, args, MICA_T, jvp, first, count); }
CPU_KERNEL(logistic_backward) { return run(exec, args, MICA_D, backward, first, count); }
CPU_KERNEL(logistic_backward_jvp) { return run(exec, args, MICA_TD, backward_jvp, first, count); }
