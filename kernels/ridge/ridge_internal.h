/* ridge_internal.h: what a unit is, and the doubles that it needs. logistic takes the same arguments */
#ifndef MICA_KERNELS_RIDGE_INTERNAL_H
#define MICA_KERNELS_RIDGE_INTERNAL_H

#include "common/rows.h"
#include "ridge/ridge.h"

static inline const int32_t *ridge_offsets(const mica_ridge_args *a) {
  return a->x.offsets ? a->x.offsets : a->y.offsets ? a->y.offsets : a->label.offsets;
}
static inline mica_status ridge_target_error(const char *op, const mica_ridge_args *a) {
  if (!a->label.v.data == !a->y.v.data)
    return mica_error(MICA_ERR_INVALID, "%s: %s y and label given, expected exactly one", op,
                      a->label.v.data ? "both" : "neither");
  return MICA_OK;
}
static inline mica_status ridge_label_error(const char *op, const mica_ridge_args *a, int64_t label, int64_t b, int64_t r) {
  if (label < a->O) return MICA_OK;
  return mica_error(MICA_ERR_INVALID, "%s: label %lld at task %lld, row %lld, expected less than %lld (negative: none)",
                    op, (long long)label, (long long)b, (long long)r, (long long)a->O);
}

/* a unit is a task, or all tasks in order where an output sums over them */
static inline int64_t ridge_units(const mica_ridge_args *a, int bit) {
  const mica_port *down[] = { &a->w }, *up[] = { &a->x, &a->y, &a->ridge };
  if (a->B <= 0) return 0;
  int sums = bit == MICA_V || bit == MICA_T ? micak_ports_sum(down, 1, bit, a->B) : micak_ports_sum(up, 3, bit, a->B);
  return sums ? 1 : a->B;
}

/* rows of I and of O values, and what a solve needs */
enum { RIDGE_WIDE = 2, RIDGE_THIN = 4, RIDGE_WEIGHTS = 4 };
static inline int64_t ridge_unknowns(int64_t R, int64_t I) { return R < I ? R : I; }
static inline int64_t ridge_doubles(const mica_ridge_args *a) {
  int64_t n = ridge_unknowns(a->R, a->I);
  return n * n + RIDGE_WIDE * a->R * a->I + RIDGE_THIN * a->R * a->O + RIDGE_WEIGHTS * a->O * a->I + n;
}

#endif
