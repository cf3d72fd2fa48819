#include "host/task/least_squares.h"

#include <math.h>
#include <string.h>

/* a row whose part outside the span of the earlier ones is smaller than this, relative to its length, lies inside */
static const double dependent = 1e-10;

int64_t micah_least_squares_doubles(int64_t dim) { return 2 * dim * dim + 4 * dim; }

void micah_least_squares_init(micah_least_squares *ls, int64_t dim, double lambda, double *memory) {
  ls->dim = dim, ls->grows = lambda <= 0, ls->stale = 0;
  ls->basis = memory, ls->r = memory + dim * dim, ls->rhs = ls->r + dim * dim;
  ls->z = ls->rhs + dim, ls->rest = ls->z + dim, ls->weights = ls->rest + dim;
  memset(memory, 0, (size_t)micah_least_squares_doubles(dim) * sizeof *memory);
  ls->rank = ls->grows ? 0 : dim;
  if (!ls->grows)
    for (int64_t i = 0; i < dim; i++) ls->r[i * dim + i] = sqrt(lambda);
}

static double dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* coordinates z of x in the basis; a direction outside of it joins the basis */
static void project(micah_least_squares *ls, const double *x) {
  int64_t dim = ls->dim;
  double *rest = ls->rest, *z = ls->z;
  memcpy(rest, x, (size_t)dim * sizeof *x);
  memset(z, 0, (size_t)dim * sizeof *z);
  for (int pass = 0; pass < 2; pass++)
    for (int64_t k = 0; k < ls->rank; k++) {
      const double *q = ls->basis + k * dim;
      double c = dot(q, rest, dim);
      z[k] += c;
      for (int64_t j = 0; j < dim; j++) rest[j] -= c * q[j];
    }
  double outside = sqrt(dot(rest, rest, dim)), length = sqrt(dot(x, x, dim));
  if (ls->rank == dim || outside <= dependent * length) return;
  double *q = ls->basis + ls->rank * dim;
  for (int64_t j = 0; j < dim; j++) q[j] = rest[j] / outside;
  z[ls->rank++] = outside;
}

void micah_least_squares_add(micah_least_squares *ls, const double *x, double y) {
  int64_t dim = ls->dim;
  double *z = ls->z;
  if (ls->grows) project(ls, x);
  else memcpy(z, x, (size_t)dim * sizeof *x);
  for (int64_t k = 0; k < ls->rank; k++) {
    if (z[k] == 0) continue;
    double *row = ls->r + k * dim, a = row[k], b = z[k], length = sqrt(a * a + b * b), c = a / length, s = b / length;
    row[k] = length;
    for (int64_t j = k + 1; j < ls->rank; j++) {
      double p = row[j], q = z[j];
      row[j] = c * p + s * q, z[j] = c * q - s * p;
    }
    double p = ls->rhs[k];
    ls->rhs[k] = c * p + s * y, y = c * y - s * p;
  }
  ls->stale = 1;
}

static void solve(micah_least_squares *ls) {
  int64_t dim = ls->dim, n = ls->rank;
  double *v = ls->grows ? ls->rest : ls->weights;
  for (int64_t k = n - 1; k >= 0; k--) {
    const double *row = ls->r + k * dim;
    double sum = ls->rhs[k];
    for (int64_t j = k + 1; j < n; j++) sum -= row[j] * v[j];
    v[k] = sum / row[k];
  }
  if (ls->grows) {
    memset(ls->weights, 0, (size_t)dim * sizeof *ls->weights);
    for (int64_t k = 0; k < n; k++)
      for (int64_t j = 0; j < dim; j++) ls->weights[j] += v[k] * ls->basis[k * dim + j];
  }
  ls->stale = 0;
}

double micah_least_squares_predict(micah_least_squares *ls, const double *x) {
  if (ls->stale) solve(ls);
  return dot(ls->weights, x, ls->dim);
}
