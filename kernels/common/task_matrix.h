/* task_matrix.h: what closed-form heads do with the matrices of one task, in double: rows of features x (R x I), rows of
 * targets c (R x O), weights m (O x I). sums run in an order that the sizes alone set. included by <op>_cpu.c. */
#ifndef MICA_KERNELS_COMMON_TASK_MATRIX_H
#define MICA_KERNELS_COMMON_TASK_MATRIX_H

#include <math.h>

#include "common/rows.h"

enum { TASK_LANES = 8 };
static inline double task_dot(const double *x, const double *y, int64_t n) {
  double s[TASK_LANES] = { 0 }, sum = 0;
  int64_t i = 0;
  for (; i + TASK_LANES <= n; i += TASK_LANES)
    for (int k = 0; k < TASK_LANES; k++) s[k] += x[i + k] * y[i + k];
  for (; i < n; i++) sum += x[i] * y[i];
  return sum + (((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])));
}
static inline void task_axpy(double f, const double *restrict x, double *restrict y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += f * x[i];
}
static inline void task_clear(double *m, int64_t n) { memset(m, 0, (size_t)n * sizeof *m); }

/* a wire's rows to and from double; no wire: zeros, or nowhere */
static inline void task_load(const micak_plane *p, int64_t rows, int64_t columns, double *to) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) to[r * columns + c] = p->at ? (double)p->at[r * p->row + c * p->col] : 0;
}
static inline void task_save(const micak_plane *p, int64_t rows, int64_t columns, const double *from) {
  for (int64_t r = 0; p->at && r < rows; r++)
    for (int64_t c = 0; c < columns; c++) {
      float *at = p->at + r * p->row + c * p->col;
      *at = (p->add ? *at : 0) + (float)from[r * columns + c];
    }
}
static inline micak_plane task_plane(const mica_port *port, int bit, int64_t b) {
  return micak_plane_rows(micak_wire((mica_port *)(uintptr_t)port, bit), port->offsets, b);
}
/* one number a task */
static inline double task_number(const mica_port *port, int bit, int64_t b) {
  micak_plane p = micak_plane_at(micak_wire((mica_port *)(uintptr_t)port, bit), NULL, b, 0, 0);
  return (double)micak_cell(&p, 0);
}
static inline void task_save_number(const mica_port *port, int bit, int64_t b, double value) {
  micak_plane p = micak_plane_at(micak_wire((mica_port *)(uintptr_t)port, bit), NULL, b, 0, 0);
  micak_put_cell(&p, 0, (float)value);
}
/* targets, or one-hot rows of labels; a negative label is a row of zeros */
static inline void task_targets(const mica_port *y, const mica_port *label, int64_t b, int64_t R, int64_t O, double *to) {
  if (!label->v.data) {
    micak_plane p = task_plane(y, MICA_V, b);
    task_load(&p, R, O, to);
    return;
  }
  micak_index_row row = micak_index_row_of(label, b);
  task_clear(to, R * O);
  for (int64_t r = 0; r < R; r++) {
    int64_t o = micak_index_in(&row, r);
    if (o >= 0) to[r * O + o] = 1;
  }
}

/* Cholesky factor of a (n x n, below and on the diagonal) in place; 0: not positive definite */
static inline int task_factor(double *a, int64_t n) {
  int good = 1;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < i; j++) a[i * n + j] = (a[i * n + j] - task_dot(a + i * n, a + j * n, j)) / a[j * n + j];
    double d = a[i * n + i] - task_dot(a + i * n, a + i * n, i);
    if (!(d > 0)) good = 0;
    a[i * n + i] = sqrt(d);
  }
  return good;
}
static inline void task_substitute(const double *L, int64_t n, double *m) {
  for (int64_t i = 0; i < n; i++) m[i] = (m[i] - task_dot(L + i * n, m, i)) / L[i * n + i];
  for (int64_t i = n - 1; i >= 0; i--) {
    m[i] /= L[i * n + i];
    task_axpy(-m[i], L + i * n, m, i);
  }
}

#endif
