/* symbols.h: sequences of symbols as rows of tokens, shared by the sequence families.
 *
 * fields: tokens (I32, symbols + 1 values: the first row of a task holds `symbols`, the start mark, row i the symbol
 * i - 1) and target (I32, the symbol at row i). all rows count, so there is no weight field. */
#ifndef MICAH_TASK_SYMBOLS_H
#define MICAH_TASK_SYMBOLS_H

#include "host/task/families.h"

typedef struct micah_symbols {
  int64_t    symbols, length;    /* size of the alphabet; most rows of a task */
  mica_field fields[2];
} micah_symbols;

void micah_symbols_init(micah_symbols *s, int64_t symbols, int64_t length);

/* rows of one task of a batch */
mica_status micah_symbols_task(const micah_symbols *s, const mica_batch *batch, int64_t index, int32_t **tokens,
                               int32_t **target, int64_t *rows);

/* tokens from targets: the start mark, then each symbol one row later */
void micah_symbols_shift(const micah_symbols *s, const int32_t *target, int64_t rows, int32_t *tokens);

/* mica_family.encode: one column; the last symbol may be NaN (to predict). batch NULL: only the sizes. */
mica_status micah_symbols_encode(const micah_symbols *s, const char *family, const double *values, int64_t rows,
                                 int64_t columns, int32_t *sizes, const mica_batch *batch);

/* next symbol of a source drawn from the Dirichlet(alpha, ..., alpha) prior given `n` symbols of it, by Hoppe's urn: a
 * new draw with weight symbols x alpha, else a copy of an earlier one. the same law as drawing the source first
 * (Blackwell and MacQueen 1973), from one uniform number. */
int32_t micah_symbols_urn(const int32_t *history, int64_t n, int64_t symbols, double alpha, double uniform);

/* loss of the Dirichlet(alpha) mixture, which is KT at alpha = 1/2: -log((n_x + alpha) / (n + symbols alpha)), nats.
 * counts (symbols) is work. */
void micah_symbols_mixture(const int32_t *target, int64_t rows, int64_t symbols, double alpha, int64_t *counts,
                           double *loss);

#endif
