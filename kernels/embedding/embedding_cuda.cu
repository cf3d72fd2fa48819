/* embedding on CUDA: rows of a table by token, and their cotangents added to it (common/cuda_index.cuh) */
#include "common/cuda_index.cuh"
#include "embedding/embedding.h"

static mica_status embedding_run(const char *name, const mica_wire &table, const mica_wire &rows, bool push,
                                 const mica_exec *exec, const void *args) {
  const mica_embedding_args *a = static_cast<const mica_embedding_args *>(args);
  const plane w = plane_rows(table, NULL), y = plane_rows(rows, a->y.offsets);
  index_job   job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.V = (int32_t)a->V, job.C = (int32_t)a->C, job.offsets = a->tokens.offsets;
  job.index = plane_cells(a->tokens.v, a->tokens.offsets), job.in = push ? y : w, job.out = push ? w : y;
  return push ? index_run_push(name, job, exec) : index_run_pull(name, job, exec->stream);
}

#define EMBEDDING_FACE(face, wire, push)                                                                               \
  extern "C" mica_status micak_embedding_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {    \
    const mica_embedding_args *a = static_cast<const mica_embedding_args *>(args);                                     \
    return embedding_run("embedding " #face, a->w.wire, a->y.wire, push, exec, args);                                  \
  }
EMBEDDING_FACE(forward, v, false)
EMBEDDING_FACE(jvp, t, false)
EMBEDDING_FACE(backward, d, true)
EMBEDDING_FACE(backward_jvp, td, true)
