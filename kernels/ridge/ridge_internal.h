/* ridge_internal.h: the doubles that a task needs */
#ifndef MICA_KERNELS_RIDGE_INTERNAL_H
#define MICA_KERNELS_RIDGE_INTERNAL_H

#include "common/closed_form.h"
#include "ridge/ridge.h"

/* rows of I and of O values, and what a solve needs */
enum { RIDGE_WIDE = 2, RIDGE_THIN = 4, RIDGE_WEIGHTS = 4 };
static inline int64_t ridge_doubles(const mica_ridge_args *a) {
  int64_t n = micak_unknowns(a->R, a->I);
  return n * n + RIDGE_WIDE * a->R * a->I + RIDGE_THIN * a->R * a->O + RIDGE_WEIGHTS * a->O * a->I + n;
}

#endif
