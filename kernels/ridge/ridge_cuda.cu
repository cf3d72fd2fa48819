/* ridge on CUDA: letters as in ridge_cpu.c, V = w, Q = w.d G^-1 (O x I), E = y - V x', C = Q x' (here O x R) */
#include "common/cuda_solve.cuh"
#include "ridge/ridge_internal.h"

SOLVE_DEVICE void ridge_enter(solve_task &t, int64_t b, bool dual) {
  t.enter(b, dual);
  __syncthreads();
  solve_gram(t, NULL, t.ridge, t.C);
  __syncthreads();
  solve_factor(t);
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) ridge_forward(const __grid_constant__ solve_job job) {
  DYN_SMEM(double, memory);
  solve_task t(job, memory);
  t.planes(false);
  double *y = t.thin(), *V = t.wide();
  solve_walk(job, [&](int64_t b, int) {
    ridge_enter(t, b, false);
    t.targets(false, 0, t.O, y);
    __syncthreads();
    if (t.R < t.I) {                         /* x' (x x' + ridge I)^-1 y */
      solve_each(t, y, t.O);
      t.put(job.w_out, 0, t.O, t.I,
            [&](int o, int i) { return t.good ? solve_take(t, t.x, y + o * t.R, i) : (double)NAN; });
    } else {
      SOLVE_EACH(k, t.O * t.I) V[k] = solve_take(t, t.x, y + k / t.I * t.R, k % t.I);
      solve_inverse(t, NULL, y, V, t.O);
      t.put(job.w_out, 0, t.O, t.I, [&](int o, int i) { return V[o * t.I + i]; });
    }
  });
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) ridge_jvp(const __grid_constant__ solve_job job) {
  DYN_SMEM(double, memory);
  solve_task t(job, memory);
  t.planes(true);
  double *e = t.thin(), *f = t.thin(), *V = t.wide(), *Vt = t.wide();
  solve_walk(job, [&](int64_t b, int) {
    ridge_enter(t, b, true);
    const double ridge_t = t.number(job.ridge_t);
    t.targets(false, 0, t.O, e);
    t.targets(true, 0, t.O, f);
    t.weights(job.w, 0, t.O, V);
    __syncthreads();
    solve_apply(t, -1, t.x, V, t.O, true, e);
    solve_apply(t, -1, t.xt, V, t.O, true, f);
    __syncthreads();
    SOLVE_EACH(k, t.O * t.I) {
      const int o = k / t.I, i = k - o * t.I;
      Vt[k] = solve_take(t, t.xt, e + o * t.R, i) + solve_take(t, t.x, f + o * t.R, i) - ridge_t * V[k];
    }
    solve_inverse(t, NULL, e, Vt, t.O);
    t.put(job.w_out, 0, t.O, t.I, [&](int o, int i) { return Vt[o * t.I + i]; });
  });
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) ridge_backward(const __grid_constant__ solve_job job) {
  DYN_SMEM(double, memory);
  solve_task t(job, memory);
  t.planes(false);
  double *e = t.thin(), *c = t.thin(), *V = t.wide(), *Q = t.wide();
  solve_walk(job, [&](int64_t b, int) {
    ridge_enter(t, b, false);
    t.targets(false, 0, t.O, e);
    t.weights(job.w, 0, t.O, V);
    t.weights(job.wd, 0, t.O, Q);
    solve_inverse(t, NULL, c, Q, t.O);
    solve_apply(t, -1, t.x, V, t.O, true, e);
    solve_apply(t, 1, t.x, Q, t.O, false, c);
    __syncthreads();
    t.put(job.x_out, 0, t.R, t.I, [&](int r, int i) {
      double sum = 0;
#pragma unroll 2
      for (int o = 0; o < t.O; o++) sum += e[o * t.R + r] * Q[o * t.I + i] - c[o * t.R + r] * V[o * t.I + i];
      return sum;
    });
    t.put(job.y_out, 0, t.R, t.O, [&](int r, int o) { return c[o * t.R + r]; });
    t.put_number(-solve_dot(t, Q, V, t.O * t.I));
  });
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 1) ridge_backward_jvp(const __grid_constant__ solve_job job) {
  DYN_SMEM(double, memory);
  solve_task t(job, memory);
  t.planes(true);
  double *e = t.thin(), *et = t.thin(), *c = t.thin(), *ct = t.thin();
  double *V = t.wide(), *Vt = t.wide(), *Q = t.wide(), *Qt = t.wide();
  solve_walk(job, [&](int64_t b, int) {
    ridge_enter(t, b, true);
    const double ridge_t = t.number(job.ridge_t);
    t.weights(job.w, 0, t.O, V);
    t.weights(job.wt, 0, t.O, Vt);
    t.weights(job.wd, 0, t.O, Q);
    t.weights(job.wdt, 0, t.O, Qt);
    solve_inverse(t, NULL, c, Q, t.O);
    solve_apply(t, 1, t.x, Q, t.O, false, c);
    solve_apply(t, 1, t.xt, Q, t.O, false, ct);
    __syncthreads();
    SOLVE_EACH(k, t.O * t.I) {               /* G.t Q is taken off */
      const int o = k / t.I, i = k - o * t.I;
      Qt[k] -= ridge_t * Q[k] + solve_take(t, t.xt, c + o * t.R, i) + solve_take(t, t.x, ct + o * t.R, i);
    }
    solve_inverse(t, NULL, e, Qt, t.O);
    t.targets(false, 0, t.O, e);
    t.targets(true, 0, t.O, et);
    __syncthreads();
    solve_apply(t, 1, t.x, Qt, t.O, true, ct);
    solve_apply(t, -1, t.x, V, t.O, true, e);
    solve_apply(t, -1, t.xt, V, t.O, true, et);
    solve_apply(t, -1, t.x, Vt, t.O, true, et); /* the same thread as before has each element */
    __syncthreads();
    t.put(job.x_out, 0, t.R, t.I, [&](int r, int i) {
      double sum = 0;
#pragma unroll 1
      for (int o = 0; o < t.O; o++) {
        const int at = o * t.R + r, to = o * t.I + i;
        sum += et[at] * Q[to] + e[at] * Qt[to] - ct[at] * V[to] - c[at] * Vt[to];
      }
      return sum;
    });
    t.put(job.y_out, 0, t.R, t.O, [&](int r, int o) { return ct[o * t.R + r]; });
    t.put_number(-(solve_dot(t, Qt, V, t.O * t.I) + solve_dot(t, Q, Vt, t.O * t.I)));
  });
}

SOLVE_FACE(ridge, forward, MICA_FORWARD, ridge_forward<SOLVE_THREADS>, false, { 1, 1, 1 })
SOLVE_FACE(ridge, jvp, MICA_JVP, ridge_jvp<SOLVE_THREADS>, false, { 2, 2, 2 })
SOLVE_FACE(ridge, backward, MICA_BACKWARD, ridge_backward<SOLVE_THREADS>, false, { 1, 2, 2 })
SOLVE_FACE(ridge, backward_jvp, MICA_BACKWARD_JVP, ridge_backward_jvp<SOLVE_THREADS>, false, { 2, 4, 4 })
