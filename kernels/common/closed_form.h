/* closed_form.h: what regressions that are solved task by task share: rows x (B,R,I), targets y (B,R,O) or labels (B,R), a
 * strength ridge (B), weights w (B,O,I). */
#ifndef MICA_KERNELS_COMMON_CLOSED_FORM_H
#define MICA_KERNELS_COMMON_CLOSED_FORM_H

#include "common/rows.h"

static inline const int32_t *micak_target_offsets(const mica_port *x, const mica_port *y, const mica_port *label) {
  return x->offsets ? x->offsets : y->offsets ? y->offsets : label->offsets;
}
static inline mica_status micak_target_error(const char *op, const mica_port *y, const mica_port *label) {
  if (!label->v.data == !y->v.data)
    return mica_error(MICA_ERR_INVALID, "%s: %s y and label given, expected exactly one", op,
                      label->v.data ? "both" : "neither");
  return MICA_OK;
}
static inline mica_status micak_label_error(const char *op, int64_t classes, int64_t label, int64_t b, int64_t r) {
  if (label < classes) return MICA_OK;
  return mica_error(MICA_ERR_INVALID, "%s: label %lld at task %lld, row %lld, expected less than %lld (negative: none)", op,
                    (long long)label, (long long)b, (long long)r, (long long)classes);
}

/* a unit is a task, or all tasks in order where an output sums over them */
static inline int64_t micak_solve_units(int64_t B, int bit, const mica_port *w, const mica_port *x, const mica_port *y,
                                        const mica_port *ridge) {
  const mica_port *down[] = { w }, *up[] = { x, y, ridge };
  if (B <= 0) return 0;
  int sums = bit == MICA_V || bit == MICA_T ? micak_ports_sum(down, 1, bit, B) : micak_ports_sum(up, 3, bit, B);
  return sums ? 1 : B;
}

/* of the smaller system */
static inline int64_t micak_unknowns(int64_t R, int64_t I) { return R < I ? R : I; }

#endif
