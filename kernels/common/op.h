/* op.h (common): what every room and every driver needs of ports and tables; no op logic. */
#ifndef MICA_KERNELS_COMMON_OP_H
#define MICA_KERNELS_COMMON_OP_H

#include "mica/op.h"

/* size and setting access in an argument struct */
static inline int64_t *micak_dim(const mica_dim *dim, const void *args) {
  return (int64_t *)((char *)(uintptr_t)args + dim->offset);
}
static inline mica_port *micak_port(const mica_operand *operand, const void *args) {
  return (mica_port *)((char *)(uintptr_t)args + operand->offset);
}
static inline mica_wire *micak_wire(mica_port *port, int bit) {
  return bit == MICA_V ? &port->v : bit == MICA_D ? &port->d : bit == MICA_T ? &port->t : &port->td;
}

/* the faces of an entry of the kernel table, in the order they run: one, or the two of a fused slot */
static inline int micak_faces(int face, int faces[2]) {
  static const int8_t pair[MICA_NSLOT - MICA_NFACE][2] = { { MICA_FORWARD, MICA_JVP }, { MICA_BACKWARD, MICA_BACKWARD_JVP } };
  faces[0] = face < MICA_NFACE ? face : pair[face - MICA_NFACE][0];
  faces[1] = face < MICA_NFACE ? face : pair[face - MICA_NFACE][1];
  return face < MICA_NFACE ? 1 : 2;
}

/* the kernel of one phase that runs `face` and its tangent at once; NULL: there is none */
static inline const mica_kernel *micak_fused_kernel(const mica_op *op, int backend, int dtype, int face) {
  for (int i = 0; i < op->n_kernels; i++) {
    const mica_kernel *k = &op->kernels[i];
    int faces[2];
    if (k->backend == backend && k->dtype == dtype && micak_faces(k->face, faces) == 2 && faces[0] == face) return k;
  }
  return NULL;
}

/* slot of task b; -1 reads zeros and writes nothing. `packed`: the port has offsets. */
static inline int64_t micak_slot(const mica_wire *wire, int64_t b) {
  return wire->slot ? wire->slot[b] : b;
}
/* where task b's data begin; NULL when the wire is absent or the slot is -1. */
static inline void *micak_task(const mica_wire *wire, const int32_t *offsets, int64_t b) {
  int64_t s = micak_slot(wire, b);
  if (!wire->data || s < 0) return NULL;
  static const uint8_t shift[MICA_NDTYPE] = { 2, 3, 1, 2, 3, 0 };
  int64_t element = offsets ? offsets[s] * wire->stride[0] : s * wire->task_stride;
  return (char *)wire->data + element * ((int64_t)1 << shift[wire->dtype]);
}
/* rows of task b of a port whose longest task has `longest` */
static inline int64_t micak_rows(const int32_t *offsets, int64_t b, int64_t longest) {
  return offsets ? offsets[b + 1] - offsets[b] : longest;
}
/* do tasks b - 1 and b write the same place? then b adds. */
static inline int micak_same_slot(const mica_wire *wire, const int32_t *offsets, int64_t b) {
  if (b == 0) return 0;
  if (!wire->slot) return !offsets && wire->task_stride == 0;
  return wire->slot[b] == wire->slot[b - 1];
}
/* does every task write its own place? false: sums over tasks, in task order */
int micak_per_task(const mica_wire *wire, const int32_t *offsets, int64_t tasks);

/* rows of a port in all: packed rows, or tasks x rows. */
static inline int64_t micak_all_rows(const int32_t *offsets, int64_t tasks, int64_t rows) {
  return offsets ? offsets[tasks] : tasks * rows;
}
/* find the task of row n (task-major) and the row within it. */
void micak_find_row(const int32_t *offsets, int64_t tasks, int64_t rows, int64_t n, int64_t *task, int64_t *row);

/* find an operand, NULL if none. */
const mica_operand *micak_operand(const mica_op *op, const char *name, size_t length);

/* is the operand present in these arguments? */
static inline int micak_present(const mica_operand *operand, const void *args) {
  return micak_port(operand, args)->v.data != NULL;
}

/* shorthand for operand tables: reads by forward, backward, jvp, backward_jvp */
#define MICA_READS(f, b, j, h) { f, b, j, h }
/* the usual writes of each role */
#define MICA_WRITES_IN { 0, MICA_D, 0, MICA_TD }
#define MICA_WRITES_OUT { MICA_V, 0, MICA_T, 0 }
#define MICA_WRITES_SAVED { MICA_V, 0, MICA_T, 0 }
#define MICA_WRITES_SAVED_D { MICA_V, MICA_D, MICA_T, 0 }
#define MICA_WRITES_NONE { 0, 0, 0, 0 }

#endif
