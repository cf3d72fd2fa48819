/* reduce_internal.h: axes and inputs, shared by the kernels and their splits. */
#ifndef MICAK_REDUCE_INTERNAL_H
#define MICAK_REDUCE_INTERNAL_H

#include "common/map.h"
#include "reduce/reduce.h"

enum { REDUCE_ROW, REDUCE_COLUMN, REDUCE_ALL };
/* inputs of a job, in the order the kernels take them */
enum { REDUCE_XV = 1, REDUCE_XT = 2, REDUCE_YV = 4, REDUCE_YT = 8, REDUCE_YD = 16, REDUCE_YTD = 32 };

/* the output wire of a face */
static inline const mica_wire *reduce_out(const mica_reduce_args *a, int face) {
  const mica_wire *out[MICA_NFACE] = { &a->y.v, &a->x.d, &a->y.t, &a->x.td };
  return out[face];
}
static inline int reduce_up(int face) { return face == MICA_BACKWARD || face == MICA_BACKWARD_JVP; }

/* a face as a map: up, y is broadcast; down, the results are summed */
static inline map_job reduce_job(const mica_reduce_args *a, int face, uint32_t reads, int mean, map_fn fn) {
  static const int count[] = { 1, 2, 3 };
  int              up = reduce_up(face);
  return (map_job){ a, a->B, a->R, a->C, a->x.offsets, reads, mean ? count[a->axis] : 0,
                    { { &a->x.v, a->x.offsets, a->R, a->C }, { &a->x.t, a->x.offsets, a->R, a->C },
                      { &a->y.v, a->y.offsets, a->Ry, a->Cy }, { &a->y.t, a->y.offsets, a->Ry, a->Cy },
                      { &a->y.d, a->y.offsets, a->Ry, a->Cy }, { &a->y.td, a->y.offsets, a->Ry, a->Cy } },
                    { reduce_out(a, face), up ? a->x.offsets : a->y.offsets, up ? a->R : a->Ry, up ? a->C : a->Cy },
                    fn };
}

/* cells of max and of logsumexp forward: columns of a task in blocks with axis=row, else one */
static inline int64_t reduce_blocks(const mica_reduce_args *a) {
  return a->axis == REDUCE_ROW ? (a->C + MAP_COLUMNS - 1) / MAP_COLUMNS : 1;
}

#endif
