#include "host/task/symbols.h"

#include <math.h>
#include <string.h>

void micah_symbols_init(micah_symbols *s, int64_t symbols, int64_t length) {
  s->symbols = symbols, s->length = length;
  s->fields[0] = (mica_field){ "tokens", MICA_I32, MICA_FIELD_INPUT, "token", 0, { 0, 0, 0 }, symbols + 1 };
  s->fields[1] = (mica_field){ "target", MICA_I32, MICA_FIELD_TARGET, "token", 0, { 0, 0, 0 }, symbols };
}

mica_status micah_symbols_task(const micah_symbols *s, const mica_batch *batch, int64_t index, int32_t **tokens,
                               int32_t **target, int64_t *rows) {
  int64_t begin = batch->offsets[0][index];
  *rows = batch->offsets[0][index + 1] - begin;
  *tokens = (int32_t *)batch->data[0] + begin, *target = (int32_t *)batch->data[1] + begin;
  if (*rows >= 1 && *rows <= s->length) return MICA_OK;
  return mica_error(MICA_ERR_SHAPE, "task %lld of the batch has %lld rows; sizes() gives at most %lld",
                    (long long)(batch->first + index), (long long)*rows, (long long)s->length);
}

void micah_symbols_shift(const micah_symbols *s, const int32_t *target, int64_t rows, int32_t *tokens) {
  tokens[0] = (int32_t)s->symbols;
  for (int64_t i = 1; i < rows; i++) tokens[i] = target[i - 1];
}

mica_status micah_symbols_encode(const micah_symbols *s, const char *family, const double *values, int64_t rows,
                                 int64_t columns, int32_t *sizes, const mica_batch *batch) {
  if (columns != 1)
    return mica_error(MICA_ERR_SHAPE, "family %s: the data have %lld columns, expected 1 (the symbols)", family,
                      (long long)columns);
  if (rows < 1 || rows > s->length)
    return mica_error(MICA_ERR_SHAPE, "family %s: the data have %lld rows, expected 1 to %lld", family, (long long)rows,
                      (long long)s->length);
  for (int64_t i = 0; i < rows; i++) {
    double v = values[i];
    if (i == rows - 1 && isnan(v)) continue;
    if (!(v >= 0 && v < (double)s->symbols && v == floor(v)))
      return mica_error(MICA_ERR_NUMERIC, "family %s: row %lld is %g, expected a whole number from 0 to %lld; only the "
                        "last may be unknown (nan)", family, (long long)(i + 1), v, (long long)(s->symbols - 1));
  }
  sizes[0] = (int32_t)rows;
  if (!batch) return MICA_OK;
  int32_t *target = batch->data[1];
  for (int64_t i = 0; i < rows; i++) target[i] = isnan(values[i]) ? 0 : (int32_t)values[i];
  micah_symbols_shift(s, target, rows, batch->data[0]);
  return MICA_OK;
}

int32_t micah_symbols_urn(const int32_t *history, int64_t n, int64_t symbols, double alpha, double uniform) {
  double fresh = (double)symbols * alpha, ball = uniform * ((double)n + fresh);
  int64_t index = (int64_t)(ball < fresh ? ball / alpha : ball - fresh);
  /* rounding may reach the end of either range */
  int64_t last = (ball < fresh ? symbols : n) - 1;
  if (index > last) index = last;
  return ball < fresh ? (int32_t)index : history[index];
}

void micah_symbols_mixture(const int32_t *target, int64_t rows, int64_t symbols, double alpha, int64_t *counts,
                           double *loss) {
  memset(counts, 0, (size_t)symbols * sizeof *counts);
  for (int64_t i = 0; i < rows; i++) {
    double p = ((double)counts[target[i]] + alpha) / ((double)i + (double)symbols * alpha);
    loss[i] = -log(p);
    counts[target[i]]++;
  }
}
