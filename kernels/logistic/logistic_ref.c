#include <math.h>
#include <stdlib.h>

#include "common/ref.h"
#include "logistic/logistic_internal.h"

extern const mica_op mica_op_logistic;

#define exponential_f64 exp
#define exponential_f32 expf

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "common/ref_solve.inc"

/* Newton's method on one class in full steps, halved while the objective does not fall; w: I, and 2 I more; h (I x I) */
static double ref_objective(const double *x, const double *y, double ridge, int64_t R, int64_t I, const double *w) {
  double sum = 0;
  for (int64_t i = 0; i < I; i++) sum += ridge / 2 * w[i] * w[i];
  for (int64_t r = 0; r < R; r++) {
    double z = 0;
    for (int64_t i = 0; i < I; i++) z += x[r * I + i] * w[i];
    sum += fmax(z, 0) + log1p(exp(-fabs(z))) - y[r] * z;
  }
  return sum;
}
static void ref_newton(const double *x, const double *y, double ridge, int64_t R, int64_t I, double *w, double *h) {
  enum { MOST = 200 };
  double *step = w + I, *next = step + I, size = INFINITY, length = 0;
  int good = ridge > 0, n = 0;
  for (int64_t i = 0; i < I; i++) w[i] = 0;
  for (; good && n < MOST && size > 1e-10 * (1 + length); n++) {
    double slope = 0, at = ref_objective(x, y, ridge, R, I, w), t = 1;
    for (int64_t i = 0; i < I; i++) {
      step[i] = -ridge * w[i];
      for (int64_t j = 0; j < I; j++) h[i * I + j] = i == j ? ridge : 0;
    }
    for (int64_t r = 0; r < R; r++) {
      double z = 0;
      for (int64_t i = 0; i < I; i++) z += x[r * I + i] * w[i];
      double s = 1 / (1 + exp(-z));
      for (int64_t i = 0; i < I; i++) {
        step[i] -= (s - y[r]) * x[r * I + i];
        for (int64_t j = 0; j < I; j++) h[i * I + j] += s * (1 - s) * x[r * I + i] * x[r * I + j];
      }
    }
    for (int64_t i = 0; i < I; i++) next[i] = step[i];
    good = ref_eliminate_f64(h, I, step, 1);
    for (int64_t i = 0; i < I; i++) slope -= next[i] * step[i];
    for (; t > 1e-9; t /= 2) { /* a slope of rounding errors says nothing about the objective */
      for (int64_t i = 0; i < I; i++) next[i] = w[i] + t * step[i];
      if (-slope < 1e-12 * (1 + fabs(at)) || ref_objective(x, y, ridge, R, I, next) <= at + 1e-4 * t * slope) break;
    }
    size = length = 0;
    for (int64_t i = 0; i < I; i++) {
      size = fmax(size, fabs(t * step[i])), length = fmax(length, fabs(next[i]));
      w[i] = next[i];
      if (!isfinite(w[i])) good = 0;
    }
  }
  for (int64_t i = 0; (!good || n == MOST) && i < I; i++) w[i] = NAN;
}

#include "logistic/logistic_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "common/ref_solve.inc"
#include "logistic/logistic_ref.inc"
