#include "host/task/regression.h"

#include <math.h>
#include <string.h>

void micah_regression_init(micah_regression *r, const mica_context *context, int64_t dim, int64_t points,
                           int64_t layout) {
  r->context = context, r->dim = dim, r->points = points, r->layout = layout;
  r->fields[0] = (mica_field){ "tokens", MICA_F32, MICA_FIELD_INPUT, "token", 1, { dim + 1, 0, 0 }, 0 };
  r->fields[1] = (mica_field){ "target", MICA_F32, MICA_FIELD_TARGET, "token", 0, { 0, 0, 0 }, 0 };
  r->fields[2] = (mica_field){ "weight", MICA_F32, MICA_FIELD_WEIGHT, "token", 0, { 0, 0, 0 }, 0 };
}

int64_t micah_regression_rows(const micah_regression *r, int64_t points) {
  return r->layout == MICAH_INTERLEAVED ? 2 * points : points;
}

mica_status micah_regression_task(const micah_regression *r, const mica_batch *batch, int64_t index, micah_pairs *out) {
  int64_t begin = batch->offsets[0][index], rows = batch->offsets[0][index + 1] - begin;
  int64_t points = r->layout == MICAH_INTERLEAVED ? rows / 2 : rows;
  if (points < 1 || points > r->points || rows != micah_regression_rows(r, points))
    return mica_error(MICA_ERR_SHAPE, "task %lld of the batch has %lld rows; sizes() gives at most %lld",
                      (long long)(batch->first + index), (long long)rows,
                      (long long)micah_regression_rows(r, r->points));
  out->tokens = (float *)batch->data[0] + begin * (r->dim + 1);
  out->target = (float *)batch->data[1] + begin;
  out->weight = (float *)batch->data[2] + begin;
  out->points = points;
  return MICA_OK;
}

void micah_pairs_clear(const micah_regression *r, const micah_pairs *p) {
  size_t rows = (size_t)micah_regression_rows(r, p->points);
  memset(p->tokens, 0, rows * (size_t)(r->dim + 1) * sizeof(float));
  memset(p->target, 0, rows * sizeof(float));
  memset(p->weight, 0, rows * sizeof(float));
}

/* row of x_i, which is also the row where y_i is predicted, if it is */
static int64_t row_of(const micah_regression *r, int64_t i) { return r->layout == MICAH_INTERLEAVED ? 2 * i : i; }

static int predicted(const micah_regression *r, const micah_pairs *p, int64_t i) {
  return r->layout != MICAH_JOINED || i == p->points - 1;
}

float *micah_pairs_x(const micah_regression *r, const micah_pairs *p, int64_t i) {
  return p->tokens + row_of(r, i) * (r->dim + 1) + 1;
}

void micah_pairs_put_y(const micah_regression *r, const micah_pairs *p, int64_t i, float y) {
  int64_t row = row_of(r, i);
  if (predicted(r, p, i)) p->target[row] = y, p->weight[row] = 1;
  /* where y is shown: the row after x, x's own row, or the row of the next x; never where it would tell the answer */
  int64_t shown = r->layout == MICAH_JOINED ? row : row + 1;
  if (r->layout == MICAH_INTERLEAVED || i < p->points - 1) p->tokens[shown * (r->dim + 1)] = y;
}

float micah_pairs_get_y(const micah_regression *r, const micah_pairs *p, int64_t i) {
  int64_t row = row_of(r, i);
  return predicted(r, p, i) ? p->target[row] : p->tokens[row * (r->dim + 1)];
}

mica_status micah_regression_exact(const micah_regression *r, const mica_batch *batch, const void *self,
                                   micah_regression_predict predict, int64_t work, double *loss) {
  size_t bytes = (size_t)(r->points * (r->dim + 2) + work) * sizeof(double);
  double *x = micah_alloc(r->context, bytes, "an exact predictor");
  if (!x) return MICA_ERR_MEMORY;
  double *y = x + r->points * r->dim, *prediction = y + r->points, *scratch = prediction + r->points;
  mica_status status = MICA_OK;
  for (int64_t b = 0; b < batch->count && status >= 0; b++) {
    micah_pairs p;
    if ((status = micah_regression_task(r, batch, b, &p)) < 0) break;
    for (int64_t i = 0; i < p.points; i++) {
      const float *from = micah_pairs_x(r, &p, i);
      for (int64_t j = 0; j < r->dim; j++) x[i * r->dim + j] = (double)from[j];
      y[i] = (double)micah_pairs_get_y(r, &p, i);
    }
    int64_t from = r->layout == MICAH_JOINED ? p.points - 1 : 0;
    if ((status = predict(self, p.points, from, x, y, scratch, prediction)) < 0) break;
    double *out = loss + batch->offsets[0][b];
    memset(out, 0, (size_t)micah_regression_rows(r, p.points) * sizeof *out);
    for (int64_t i = from; i < p.points; i++) {
      int64_t row = row_of(r, i);
      double error = prediction[i] - y[i];
      if (p.weight[row] != 0) out[row] = error * error;
    }
  }
  micah_free(r->context, x, bytes);
  return status;
}

mica_status micah_regression_encode(const micah_regression *r, const char *family, const double *values, int64_t rows,
                                    int64_t columns, int32_t *sizes, const mica_batch *batch) {
  if (columns != r->dim + 1)
    return mica_error(MICA_ERR_SHAPE, "family %s: the data have %lld columns, expected %lld (%lld of x, then y)",
                      family, (long long)columns, (long long)(r->dim + 1), (long long)r->dim);
  if (rows < 1 || rows > r->points)
    return mica_error(MICA_ERR_SHAPE, "family %s: the data have %lld rows, expected 1 to %lld (points)", family,
                      (long long)rows, (long long)r->points);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      int unknown = i == rows - 1 && j == columns - 1 && isnan(values[i * columns + j]);
      if (!unknown && !(fabs(values[i * columns + j]) <= 3.0e38))
        return mica_error(MICA_ERR_NUMERIC, "family %s: row %lld, column %lld is %g; only the last y may be unknown "
                          "(nan)", family, (long long)(i + 1), (long long)(j + 1), values[i * columns + j]);
    }
  sizes[0] = (int32_t)micah_regression_rows(r, rows);
  if (!batch) return MICA_OK;
  micah_pairs p = { (float *)batch->data[0], (float *)batch->data[1], (float *)batch->data[2], rows };
  micah_pairs_clear(r, &p);
  for (int64_t i = 0; i < rows; i++) {
    float *x = micah_pairs_x(r, &p, i);
    for (int64_t j = 0; j < r->dim; j++) x[j] = (float)values[i * columns + j];
    double y = values[i * columns + r->dim];
    if (!isnan(y)) micah_pairs_put_y(r, &p, i, (float)y);
  }
  return MICA_OK;
}
