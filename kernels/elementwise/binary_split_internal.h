/* binary_split_internal.h: which job a face of a binary operation is; shared by the kernels and their splits. */
#ifndef MICAK_BINARY_SPLIT_INTERNAL_H
#define MICAK_BINARY_SPLIT_INTERNAL_H

#include "elementwise/binary_internal.h"
#include "common/map.h"

/* inputs of a job, in the order the kernels take them */
enum { BINARY_AV = 1, BINARY_BV = 2, BINARY_AT = 4, BINARY_BT = 8, BINARY_YD = 16, BINARY_YTD = 32, BINARY_MV = 64 };

/* the inputs that a face reads, by the operation's bits: the operand tables say the same */
static inline uint32_t binary_reads(int bits, int face) {
  uint32_t values = (bits & BINARY_VALUES ? BINARY_AV | BINARY_BV : 0u) | (bits & BINARY_MASK ? BINARY_MV : 0u);
  uint32_t tangents = bits & BINARY_ONLY_B ? BINARY_BT : BINARY_AT | BINARY_BT;
  if (face == MICA_FORWARD)
    return BINARY_BV | (bits & BINARY_ONLY_B ? 0u : BINARY_AV) | (bits & BINARY_MASK ? BINARY_MV : 0u);
  if (!(bits & BINARY_FIRST)) return 0;
  if (face == MICA_BACKWARD) return values | BINARY_YD;
  if (face == MICA_JVP) return values | tangents;
  return values | BINARY_YTD | (bits & BINARY_SECOND ? tangents | BINARY_YD : 0u);
}

/* the job of output k (backward faces: 0 a, 1 b; others: 0 y) of a face, without its kernel; 0 if there is none */
static inline int binary_job(const mica_binary_args *a, int bits, int face, int k, map_job *job) {
  int up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  if (k && !up) return 0;
  const mica_port *port = !up ? &a->y : k ? &a->b : &a->a;
  const mica_wire *by_face[MICA_NFACE] = { &port->v, &port->d, &port->t, &port->td }, *wire = by_face[face];
  int64_t rows = up && k ? a->Rb : a->R, cols = up && k ? a->Cb : a->C;
  *job = (map_job){ a, a->B, a->R, a->C, a->y.offsets, binary_reads(bits, face), 0,
                    { { &a->a.v, a->a.offsets, a->R, a->C }, { &a->b.v, a->b.offsets, a->Rb, a->Cb },
                      { &a->a.t, a->a.offsets, a->R, a->C }, { &a->b.t, a->b.offsets, a->Rb, a->Cb },
                      { &a->y.d, a->y.offsets, a->R, a->C }, { &a->y.td, a->y.offsets, a->R, a->C },
                      { &a->mask.v, a->mask.offsets, a->Rm, a->Cm } },
                    { wire, port->offsets, rows, cols }, NULL };
  return wire->data != NULL;
}

/* does the one output of forward or jvp sum over tasks? */
static inline int binary_sums(const mica_binary_args *a, int face) {
  map_job job;
  return binary_job(a, 0, face, 0, &job) && map_kind(&job) != MAP_LOCAL;
}

#endif
