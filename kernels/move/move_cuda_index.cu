/* gather and scatter_add on CUDA (common/cuda_index.cuh) */
#include "common/cuda_index.cuh"
#include "move/move.h"

static const mica_wire &index_wire(const mica_port &port, int face) {
  const mica_wire *wire[MICA_NFACE] = { &port.v, &port.d, &port.t, &port.td };
  return *wire[face];
}
static mica_status index_run(const char *name, int face, bool scatter, const mica_exec *exec, const void *args) {
  const mica_gather_args *a = static_cast<const mica_gather_args *>(args);
  const bool       up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP, pull = up == scatter;
  const mica_port &rows = scatter ? a->x : a->y, &table = scatter ? a->y : a->x;
  const plane r = plane_rows(index_wire(rows, face), rows.offsets),
              t = plane_rows(index_wire(table, face), table.offsets);
  index_job        job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.V = (int32_t)a->V, job.C = (int32_t)a->C, job.none = 1;
  job.offsets = a->index.offsets, job.table_offsets = table.offsets;
  job.index = plane_cells(a->index.v, a->index.offsets), job.in = pull ? t : r, job.out = pull ? r : t;
  return pull ? index_run_pull(name, job, exec->stream) : index_run_push(name, job, exec);
}

#define INDEX_FACE(op, face, FACE, scatter)                                                                           \
  extern "C" mica_status micak_##op##_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {      \
    return index_run(#op " " #face, FACE, scatter, exec, args);                                                       \
  }
#define INDEX_FACES(op, scatter)                      \
  INDEX_FACE(op, forward, MICA_FORWARD, scatter)      \
  INDEX_FACE(op, backward, MICA_BACKWARD, scatter)    \
  INDEX_FACE(op, jvp, MICA_JVP, scatter)              \
  INDEX_FACE(op, backward_jvp, MICA_BACKWARD_JVP, scatter)
INDEX_FACES(gather, false)
INDEX_FACES(scatter_add, true)
