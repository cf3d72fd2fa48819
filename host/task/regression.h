/* regression.h: sequences of (x, y) pairs as rows of tokens, shared by the regression families.
 *
 * a token row has dim + 1 columns: y first, then x. layouts of n pairs:
 *   interleaved  2n rows: (0, x_i), then (y_i, 0); y_i is predicted at its x row (Garg et al. 2022, Raventos et al.
 *                2023)
 *   joined       n rows: (y_i, x_i), the last one (0, x_n); only the last y is predicted (von Oswald et al. 2023)
 *   shifted      n rows: (y_(i-1), x_i); every y is predicted, half the rows of interleaved */
#ifndef MICAH_TASK_REGRESSION_H
#define MICAH_TASK_REGRESSION_H

#include "host/task/families.h"

#define MICAH_REGRESSION_LAYOUTS "interleaved|joined|shifted"
enum { MICAH_INTERLEAVED, MICAH_JOINED, MICAH_SHIFTED };
enum { MICAH_REGRESSION_MAX_DIM = 1024 };

typedef struct micah_regression {
  const mica_context *context;
  int64_t    dim, points;        /* of the longest task */
  int64_t    layout;
  mica_field fields[3];          /* tokens, target, weight */
} micah_regression;

void    micah_regression_init(micah_regression *r, const mica_context *context, int64_t dim, int64_t points,
                              int64_t layout);
int64_t micah_regression_rows(const micah_regression *r, int64_t points);

/* one task inside a batch */
typedef struct micah_pairs {
  float  *tokens, *target, *weight; /* its first rows */
  int64_t points;
} micah_pairs;
mica_status micah_regression_task(const micah_regression *r, const mica_batch *batch, int64_t index, micah_pairs *out);

/* clear a task's rows, get where x_i goes, then put y_i once x_i is there */
void   micah_pairs_clear(const micah_regression *r, const micah_pairs *p);
float *micah_pairs_x(const micah_regression *r, const micah_pairs *p, int64_t i);
void   micah_pairs_put_y(const micah_regression *r, const micah_pairs *p, int64_t i, float y);
float  micah_pairs_get_y(const micah_regression *r, const micah_pairs *p, int64_t i);

/* an exact predictor: predictions (n) of y_i from the pairs before i, for i >= from; x (n, dim). */
typedef mica_status (*micah_regression_predict)(const void *self, int64_t n, int64_t from, const double *x,
                                                const double *y, double *work, double *prediction);
/* squared errors of a predictor at every row of a batch; `work` doubles are given to each call of predict */
mica_status micah_regression_exact(const micah_regression *r, const mica_batch *batch, const void *self,
                                   micah_regression_predict predict, int64_t work, double *loss);

/* mica_family.encode: columns x then y; the last y may be NaN. batch NULL: only the sizes. */
mica_status micah_regression_encode(const micah_regression *r, const char *family, const double *values, int64_t rows,
                                    int64_t columns, int32_t *sizes, const mica_batch *batch);

#endif
