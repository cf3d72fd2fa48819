/* logistic_internal.h: the doubles that a task needs */
#ifndef MICA_KERNELS_LOGISTIC_INTERNAL_H
#define MICA_KERNELS_LOGISTIC_INTERNAL_H

#include "common/closed_form.h"
#include "logistic/logistic.h"

enum { LOGISTIC_WIDE = 3, LOGISTIC_THIN = 3, LOGISTIC_ROWS = 10, LOGISTIC_WEIGHTS = 4 };
static inline int64_t logistic_doubles(const mica_logistic_args *a) {
  int64_t n = micak_unknowns(a->R, a->I);
  return 2 * n * n + LOGISTIC_WIDE * a->R * a->I + LOGISTIC_THIN * a->R * a->O + LOGISTIC_ROWS * a->R +
         LOGISTIC_WEIGHTS * a->I;
}

#endif
