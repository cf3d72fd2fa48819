/* logistic on CUDA; letters as in README.md. down a block has a class of a task, on the way back a task, whose classes
 * follow each other */
#include "common/cuda_solve.cuh"
#include "logistic/logistic_internal.h"

/* a block's vectors of one class: of R numbers but w; K: x x', where the system has R unknowns */
struct logistic_class {
  double *e, *d, *bend, *root, *more, *w, *K;
};

/* rows of task b; K */
SOLVE_DEVICE void logistic_enter(solve_task &t, int64_t b, bool dual, double *K) {
  t.enter(b, dual);
  __syncthreads();
  if (t.R < t.I) solve_gram(t, NULL, 0, K);
}
/* the sigmoid at z and its first derivatives */
SOLVE_DEVICE void logistic_sigmoid(double z, double &s, double &d) {
  const double e = exp(-fabs(z)), part = e / (1.0 + e);
  s = z >= 0 ? 1.0 - part : part;
  d = part * (1.0 - part);
}
/* H, or its twin, of slopes d and their roots; begins with a barrier and ends with one */
SOLVE_DEVICE void logistic_factor(solve_task &t, const logistic_class &c) {
  __syncthreads();
  if (t.R < t.I) {
    for (int i = t.warp; i < t.n; i += t.warps)
      for (int j = t.lane; j <= i; j += 32)
        t.C[solve_row(i) + j] = c.root[i] * c.K[solve_row(i) + j] * c.root[j] + (i == j ? t.ridge : 0.0);
  } else {
    solve_gram(t, c.d, t.ridge, t.C);
  }
  __syncthreads();
  solve_factor(t);
}

/* by every warp: the objective at w and z = x w; y: R */
SOLVE_DEVICE double logistic_objective(const solve_task &t, const double *y, const double *z, const double *w) {
  double sum = 0;
  for (int r = t.lane; r < t.R; r += 32) sum += fmax(z[r], 0.0) + log1p(exp(-fabs(z[r]))) - y[r] * z[r];
  return t.ridge / 2 * solve_dot(t, w, w, t.I) + warp_sum(sum);
}

/* Newton's method from w = 0; c.e: y, c.bend: z. NaN where it does not get there. ends with a barrier */
SOLVE_DEVICE void logistic_newton(solve_task &t, const logistic_class &c, double *s, double *step, double *g) {
  enum { MOST = 100 };
  const double *y = c.e;
  double       *w = c.w, *z = c.bend, size = (double)INFINITY, length = 0;
  int           n = 0;
  SOLVE_EACH(i, t.I) w[i] = 0;
  SOLVE_EACH(r, t.R) z[r] = 0;
  __syncthreads();
  for (; t.good && n < MOST && size > 1e-9 * (1 + length); n++) {
    const double at = logistic_objective(t, y, z, w);
    double       full = 1;
    SOLVE_EACH(r, t.R) {
      logistic_sigmoid(z[r], s[r], c.d[r]);
      s[r] -= y[r], c.root[r] = sqrt(c.d[r]);
    }
    __syncthreads();
    SOLVE_EACH(i, t.I) step[i] = g[i] = -t.ridge * w[i] - solve_take(t, t.x, s, i);
    logistic_factor(t, c);
    solve_inverse(t, c.root, c.more, step, 1);
    const double slope = -solve_dot(t, g, step, t.I);
    t.good = t.good && isfinite(slope);
    SOLVE_EACH(i, t.I) w[i] += step[i];
    __syncthreads();
    solve_apply(t, 1, t.x, w, 1, false, z);
    __syncthreads();
    /* a slope of rounding errors says nothing about the objective */
    while (t.good && full > 1e-9 && -slope >= 1e-12 * (1 + fabs(at)) &&
           !(logistic_objective(t, y, z, w) <= at + 1e-4 * full * slope)) {
      full /= 2;
      __syncthreads();                       /* every warp has seen w and z */
      SOLVE_EACH(i, t.I) w[i] = fma(-full, step[i], w[i]);
      __syncthreads();
      solve_apply(t, 1, t.x, w, 1, false, z);
      __syncthreads();
    }
    size = length = 0;
    for (int i = t.lane; i < t.I; i += 32) size = fmax(size, full * fabs(step[i])), length = fmax(length, fabs(w[i]));
    size = warp_max(size), length = warp_max(length);
    __syncthreads();
  }
  if (!t.good || n == MOST) SOLVE_EACH(i, t.I) w[i] = (double)NAN;
  __syncthreads();
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) logistic_forward(const __grid_constant__ solve_job job) {
  DYN_SMEM(double, memory);
  solve_task t(job, memory);
  t.planes(false);
  const logistic_class c = { t.rows(), t.rows(), t.rows(), t.rows(), t.rows(), t.columns(), t.take(solve_row(job.most)) };
  double              *s = t.rows(), *step = t.columns(), *g = t.columns();
  solve_walk(job, [&](int64_t b, int o) {
    logistic_enter(t, b, false, c.K);
    t.targets(false, o, 1, c.e);
    logistic_newton(t, c, s, step, g);
    t.put(job.w_out, o, 1, t.I, [&](int, int i) { return c.w[i]; });
  });
}

/* class o at its minimum: w, e = s - y, d, bend and root of the rows, and H's factor. ends with a barrier */
SOLVE_DEVICE void logistic_minimum(solve_task &t, int o, const logistic_class &c) {
  __syncthreads();                           /* the class before may still be read */
  t.targets(false, o, 1, c.e);
  t.weights(t.job.w, o, 1, c.w);
  __syncthreads();
  solve_apply(t, 1, t.x, c.w, 1, false, c.root);
  __syncthreads();
  SOLVE_EACH(r, t.R) {
    double s;
    logistic_sigmoid(c.root[r], s, c.d[r]);
    c.e[r] = s - c.e[r], c.bend[r] = c.d[r] * (1 - 2 * s), c.root[r] = sqrt(c.d[r]);
  }
  logistic_factor(t, c);
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) logistic_jvp(const __grid_constant__ solve_job job) {
  DYN_SMEM(double, memory);
  solve_task t(job, memory);
  t.planes(true);
  const logistic_class c = { t.rows(), t.rows(), t.rows(), t.rows(), t.rows(), t.columns(), t.take(solve_row(job.most)) };
  double              *f = t.rows(), *wt = t.columns();
  solve_walk(job, [&](int64_t b, int o) {
    logistic_enter(t, b, true, c.K);
    const double ridge_t = t.number(job.ridge_t);
    t.targets(true, o, 1, f);
    logistic_minimum(t, o, c);
    solve_apply(t, 1, t.xt, c.w, 1, false, c.more);
    __syncthreads();
    SOLVE_EACH(r, t.R) f[r] = c.d[r] * c.more[r] - f[r];
    __syncthreads();
    SOLVE_EACH(i, t.I) wt[i] = -ridge_t * c.w[i] - solve_take(t, t.x, f, i) - solve_take(t, t.xt, c.e, i);
    solve_inverse(t, c.root, c.more, wt, 1);
    t.put(job.w_out, o, 1, t.I, [&](int, int i) { return wt[i]; });
  });
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) logistic_backward(const __grid_constant__ solve_job job) {
  DYN_SMEM(double, memory);
  solve_task t(job, memory);
  t.planes(false);
  double *e = t.thin(), *c = t.thin(), *dc = t.thin(), *w = t.wide(), *q = t.wide();
  double *d = t.rows(), *bend = t.rows(), *root = t.rows(), *more = t.rows(), *K = t.take(solve_row(job.most));
  solve_walk(job, [&](int64_t b, int) {
    logistic_enter(t, b, false, K);
    const bool good = t.good;
    double     sum = 0;
    for (int o = 0; o < t.O; o++) {
      double *c_o = c + o * t.R, *q_o = q + o * t.I;
      const logistic_class own = { e + o * t.R, d, bend, root, more, w + o * t.I, K };
      t.good = good;
      logistic_minimum(t, o, own);
      t.weights(job.wd, o, 1, q_o);
      solve_inverse(t, root, more, q_o, 1);
      solve_apply(t, 1, t.x, q_o, 1, false, c_o);
      __syncthreads();
      SOLVE_EACH(r, t.R) dc[o * t.R + r] = d[r] * c_o[r];
      sum -= solve_dot(t, q_o, own.w, t.I);
    }
    __syncthreads();
    t.put(job.x_out, 0, t.R, t.I, [&](int r, int i) {
      double x = 0;
#pragma unroll 2
      for (int o = 0; o < t.O; o++) x -= dc[o * t.R + r] * w[o * t.I + i] + e[o * t.R + r] * q[o * t.I + i];
      return x;
    });
    t.put(job.y_out, 0, t.R, t.O, [&](int r, int o) { return c[o * t.R + r]; });
    t.put_number(sum);
  });
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 1) logistic_backward_jvp(const __grid_constant__ solve_job job) {
  DYN_SMEM(double, memory);
  solve_task t(job, memory);
  t.planes(true);
  double *e = t.thin(), *et = t.thin(), *dc = t.thin(), *dct = t.thin(), *ct = t.thin(); /* dct: of d c */
  double *w = t.wide(), *wt = t.wide(), *q = t.wide(), *qt = t.wide();
  double *d = t.rows(), *bend = t.rows(), *root = t.rows(), *more = t.rows(), *c = t.rows(), *zt = t.rows();
  double *f = t.rows(), *K = t.take(solve_row(job.most));
  solve_walk(job, [&](int64_t b, int) {
    logistic_enter(t, b, true, K);
    const double ridge_t = t.number(job.ridge_t);
    const bool   good = t.good;
    double       sum = 0;
    for (int o = 0; o < t.O; o++) {
      double *et_o = et + o * t.R, *dc_o = dc + o * t.R, *dct_o = dct + o * t.R, *ct_o = ct + o * t.R;
      double *wt_o = wt + o * t.I, *q_o = q + o * t.I, *qt_o = qt + o * t.I;
      const logistic_class own = { e + o * t.R, d, bend, root, more, w + o * t.I, K };
      t.good = good;
      logistic_minimum(t, o, own);
      t.targets(true, o, 1, et_o);
      t.weights(job.wt, o, 1, wt_o);
      t.weights(job.wd, o, 1, q_o);
      t.weights(job.wdt, o, 1, qt_o);
      solve_inverse(t, root, more, q_o, 1);
      solve_apply(t, 1, t.x, q_o, 1, false, c);
      solve_apply(t, 1, t.xt, q_o, 1, false, ct_o);
      solve_apply(t, 1, t.xt, own.w, 1, false, zt);
      solve_apply(t, 1, t.x, wt_o, 1, true, zt); /* the same thread as before has each element */
      __syncthreads();
      SOLVE_EACH(r, t.R) {
        const double dt = bend[r] * zt[r];
        et_o[r] = d[r] * zt[r] - et_o[r];
        dc_o[r] = d[r] * c[r];
        zt[r] = dt * c[r];                   /* d.t c */
        f[r] = d[r] * ct_o[r] + zt[r];
      }
      __syncthreads();
      SOLVE_EACH(i, t.I)
        qt_o[i] -= ridge_t * q_o[i] + solve_take(t, t.xt, dc_o, i) + solve_take(t, t.x, f, i);
      solve_inverse(t, root, more, qt_o, 1);
      solve_apply(t, 1, t.x, qt_o, 1, true, ct_o);
      __syncthreads();
      SOLVE_EACH(r, t.R) dct_o[r] = zt[r] + d[r] * ct_o[r];
      sum -= solve_dot(t, qt_o, own.w, t.I) + solve_dot(t, q_o, wt_o, t.I);
    }
    __syncthreads();
    t.put(job.x_out, 0, t.R, t.I, [&](int r, int i) {
      double x = 0;
#pragma unroll 1
      for (int o = 0; o < t.O; o++) {
        const int at = o * t.R + r, to = o * t.I + i;
        x -= dct[at] * w[to] + dc[at] * wt[to] + et[at] * q[to] + e[at] * qt[to];
      }
      return x;
    });
    t.put(job.y_out, 0, t.R, t.O, [&](int r, int o) { return ct[o * t.R + r]; });
    t.put_number(sum);
  });
}

/* what a face keeps: copies of x, matrices, vectors of R and of I, and K */
SOLVE_FACE(logistic, forward, MICA_FORWARD, logistic_forward<SOLVE_THREADS>, true, { 1, 0, 0, 6, 3, 1 })
SOLVE_FACE(logistic, jvp, MICA_JVP, logistic_jvp<SOLVE_THREADS>, true, { 2, 0, 0, 6, 2, 1 })
SOLVE_FACE(logistic, backward, MICA_BACKWARD, logistic_backward<SOLVE_THREADS>, false, { 1, 3, 2, 4, 0, 1 })
SOLVE_FACE(logistic, backward_jvp, MICA_BACKWARD_JVP, logistic_backward_jvp<SOLVE_THREADS>, false, { 2, 5, 4, 7, 0, 1 })
