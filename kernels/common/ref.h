/* ref.h: access to ports for the reference faces: plain, slow, right. included by <op>_ref.c, which includes its
 * <op>_ref.inc twice, with `real` double (oracle) and float (yardstick; also bf16 storage with float arithmetic).
 *
 * a reference face is written for one task b: it *adds* to its outputs, which micak_ref_run has cleared where the wire
 * overwrites and b is the first task of its slot. so add flags, slots, sharing and -1 are right by construction. */
#ifndef MICA_KERNELS_COMMON_REF_H
#define MICA_KERNELS_COMMON_REF_H

#include <string.h>

#include "common/op.h"

static inline float micak_from_bf16(uint16_t bits) {
  uint32_t u = (uint32_t)bits << 16;
  float    f;
  memcpy(&f, &u, sizeof f);
  return f;
}
/* round to nearest even; NaN stays NaN */
static inline uint16_t micak_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* element (b, i, j, k, l) of a wire: its place, or NULL for zero / nowhere */
static inline void *micak_at(const mica_wire *w, const int32_t *offsets, int64_t b, int64_t i, int64_t j, int64_t k,
                             int64_t l) {
  char *task = micak_task(w, offsets, b);
  if (!task) return NULL;
  return task + (i * w->stride[0] + j * w->stride[1] + k * w->stride[2] + l * w->stride[3]) *
                    (int64_t)mica_dtype_size(w->dtype);
}
static inline double micak_get(const mica_wire *w, const void *at) {
  if (!at) return 0;
  switch (w->dtype) {
    case MICA_F64: return *(const double *)at;
    case MICA_F32: return (double)*(const float *)at;
    default: return (double)micak_from_bf16(*(const uint16_t *)at);
  }
}
static inline void micak_put(const mica_wire *w, void *at, double value) {
  if (!at) return;
  switch (w->dtype) {
    case MICA_F64: *(double *)at = value; break;
    case MICA_F32: *(float *)at = (float)value; break;
    default: *(uint16_t *)at = micak_to_bf16((float)value); break;
  }
}
/* read a port's wire; the port (not the wire) is named, so that packed offsets are honoured:
 * REF_LD(a->x, v, b, i, j, k, l) */
#define REF_LD(port, wire, b, i, j, k, l) \
  ((real)micak_get(&(port).wire, micak_at(&(port).wire, (port).offsets, b, i, j, k, l)))
/* add to an output wire; in float, the sum is rounded to float as a float loop would */
#define REF_ADD(port, wire, b, i, j, k, l, value)                                                   \
  do {                                                                                              \
    void *at_ = micak_at(&(port).wire, (port).offsets, b, i, j, k, l);                              \
    if (at_) micak_put(&(port).wire, at_, (double)(real)((real)micak_get(&(port).wire, at_) + (real)(value))); \
  } while (0)
/* index ports */
static inline int64_t micak_index(const mica_port *port, int64_t b, int64_t i, int64_t j) {
  const void *at = micak_at(&port->v, port->offsets, b, i, j, 0, 0);
  if (!at) return 0;
  switch (port->v.dtype) {
    case MICA_I32: return *(const int32_t *)at;
    case MICA_I64: return *(const int64_t *)at;
    default: return *(const uint8_t *)at;
  }
}
/* rows of the task along the packed axis */
#define REF_ROWS(port, b, longest) micak_rows((port).offsets, b, longest)

/* a reference face for one task */
typedef mica_status (*micak_ref_fn)(const void *args, int64_t b);

/* clear, then run each task in order; B is args' first size. */
mica_status micak_ref_run(const mica_op *op, int face, const void *args, micak_ref_fn fn);

/* inside <op>_ref.inc: F(name) names a function for this `real`; REF_FACE(op, face) makes its kernel entry
 * micak_<op>_<face>_ref_<f64|f32> from `static mica_status F(<op>_<face>)(const void *args, int64_t b)`. */
#define MICAK_PASTE_(a, b) a##b
#define MICAK_PASTE(a, b) MICAK_PASTE_(a, b)
#define REF_FACE(op, face, FACE)                                                                                       \
  mica_status MICAK_PASTE(micak_##op##_##face##_ref_, REAL_NAME)(const mica_exec *exec, const void *args, int64_t first, \
                                                                 int64_t count);                                       \
  mica_status MICAK_PASTE(micak_##op##_##face##_ref_, REAL_NAME)(const mica_exec *exec, const void *args, int64_t first, \
                                                                 int64_t count) {                                      \
    (void)exec; (void)first; (void)count;                                                                              \
    return micak_ref_run(&mica_op_##op, FACE, args, F(op##_##face));                                                   \
  }
#define REF_FACES(op)                          \
  REF_FACE(op, forward, MICA_FORWARD)          \
  REF_FACE(op, backward, MICA_BACKWARD)        \
  REF_FACE(op, jvp, MICA_JVP)                  \
  REF_FACE(op, backward_jvp, MICA_BACKWARD_JVP)

/* inside <op>_op.c: prototypes, and the rows of the kernel table for ref f64, f32 and bf16 */
#define MICAK_PROTO(name) \
  mica_status name(const mica_exec *exec, const void *args, int64_t first, int64_t count)
#define REF_PROTOS_(op, r)                \
  MICAK_PROTO(micak_##op##_forward_ref_##r);  \
  MICAK_PROTO(micak_##op##_backward_ref_##r); \
  MICAK_PROTO(micak_##op##_jvp_ref_##r);      \
  MICAK_PROTO(micak_##op##_backward_jvp_ref_##r)
#define REF_PROTOS(op)  \
  REF_PROTOS_(op, f64); \
  REF_PROTOS_(op, f32)
#define REF_ROWS_(op, dtype, r)                                             \
  { MICA_REF, dtype, MICA_FORWARD, micak_##op##_forward_ref_##r, NULL },    \
  { MICA_REF, dtype, MICA_BACKWARD, micak_##op##_backward_ref_##r, NULL },  \
  { MICA_REF, dtype, MICA_JVP, micak_##op##_jvp_ref_##r, NULL },            \
  { MICA_REF, dtype, MICA_BACKWARD_JVP, micak_##op##_backward_jvp_ref_##r, NULL }
#define REF_KERNELS(op)                                                     \
  REF_ROWS_(op, MICA_F64, f64), REF_ROWS_(op, MICA_F32, f32), REF_ROWS_(op, MICA_BF16, f32)

#endif
