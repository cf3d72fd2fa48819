#include "common/solve.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 1024 };

double micak_dot(int dtype, const void *a, const void *b, int64_t n) {
  double all = 0;
  for (int64_t from = 0; from < n; from += BLOCK) {
    int64_t end = from + BLOCK < n ? from + BLOCK : n;
    double sum = 0;
    if (dtype == MICA_F64)
      for (int64_t i = from; i < end; i++) sum += ((const double *)a)[i] * ((const double *)b)[i];
    else
      for (int64_t i = from; i < end; i++) sum += (double)((const float *)a)[i] * (double)((const float *)b)[i];
    all += sum;
  }
  return all;
}

void micak_combine(int dtype, void *y, double scale, const void *x, double keep, int64_t n) {
  if (dtype == MICA_F64) {
    double *to = y;
    const double *from = x;
    for (int64_t i = 0; i < n; i++) to[i] = keep == 0 ? scale * from[i] : scale * from[i] + keep * to[i];
  } else {
    float *to = y, s = (float)scale, k = (float)keep;
    const float *from = x;
    for (int64_t i = 0; i < n; i++) to[i] = k == 0 ? s * from[i] : s * from[i] + k * to[i];
  }
}

void micak_add_one(int dtype, void *y, double value) {
  if (dtype == MICA_F64) *(double *)y += value;
  else *(float *)y = (float)((double)*(float *)y + value);
}

int micak_solve_transposed(double *a, double *b, int64_t n) {
  double scale = 0;
  for (int64_t i = 0; i < n * n; i++) scale = fmax(scale, fabs(a[i]));
  /* columns of a are the rows of the system */
  for (int64_t k = 0; k < n; k++) {
    int64_t best = k;
    for (int64_t j = k + 1; j < n; j++)
      if (fabs(a[k * n + j]) > fabs(a[k * n + best])) best = j;
    if (!(fabs(a[k * n + best]) > (double)n * DBL_EPSILON * scale)) return 0;
    for (int64_t i = 0; best != k && i < n; i++) {
      double swap = a[i * n + k];
      a[i * n + k] = a[i * n + best];
      a[i * n + best] = swap;
    }
    if (best != k) {
      double swap = b[k];
      b[k] = b[best];
      b[best] = swap;
    }
    for (int64_t j = k + 1; j < n; j++) {
      double factor = a[k * n + j] / a[k * n + k];
      if (factor == 0) continue;
      for (int64_t i = k; i < n; i++) a[i * n + j] -= factor * a[i * n + k];
      b[j] -= factor * b[k];
    }
  }
  for (int64_t k = n - 1; k >= 0; k--) {
    for (int64_t i = k + 1; i < n; i++) b[k] -= a[i * n + k] * b[i];
    b[k] /= a[k * n + k];
  }
  return 1;
}

void micak_to_double(int dtype, const void *from, double *to, int64_t n) {
  if (dtype == MICA_F64 && n > 0) memcpy(to, from, (size_t)n * sizeof *to);
  for (int64_t i = 0; dtype != MICA_F64 && i < n; i++) to[i] = (double)((const float *)from)[i];
}

void micak_from_double(int dtype, const double *from, void *to, int64_t n) {
  if (dtype == MICA_F64 && n > 0) memcpy(to, from, (size_t)n * sizeof *from);
  for (int64_t i = 0; dtype != MICA_F64 && i < n; i++) ((float *)to)[i] = (float)from[i];
}
