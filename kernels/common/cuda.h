/* cuda.h: rows of CUDA kernels in an operation's table; nothing where the build has no CUDA backend (MICA_HAVE_CUDA).
 *
 * in <op>_cuda.cu:  extern "C" mica_status micak_<op>_<face>_cuda(const mica_exec *, const void *, int64_t, int64_t)
 * in <op>_op.c:     CUDA_PROTOS(op), and CUDA_KERNELS(op, MICA_F32) at the end of the kernel table */
#ifndef MICA_KERNELS_COMMON_CUDA_H
#define MICA_KERNELS_COMMON_CUDA_H

#include "mica/op.h"

enum { SUM_CHUNK = 8 };                      /* tasks of a part, common/cuda_sums.cuh */

/* bytes of scratch for an output without rows that sums the tasks of a slot: `cells` numbers a task. slots are device
 * data: all tasks may share one */
static inline size_t micak_sum_scratch(const mica_wire *w, int64_t tasks, int64_t cells, int64_t chunk) {
  if (!w->data || tasks <= chunk || (!w->slot && w->task_stride != 0)) return 0;
  return (size_t)(2 * ((tasks + chunk - 1) / chunk) * cells) * sizeof(double);
}

/* tasks of a part where rows are added to a table of V rows by index: a part's table is no larger than what is read for
 * it where tasks have some rows */
static inline int64_t micak_index_chunk(int64_t V) {
  int64_t chunk = SUM_CHUNK;
  while (chunk < V / 2 && chunk < 4096) chunk *= 2;
  return chunk;
}

#ifdef MICA_HAVE_CUDA
#define CUDA_PROTO_(op, face) \
  mica_status micak_##op##_##face##_cuda(const mica_exec *exec, const void *args, int64_t first, int64_t count)
#define CUDA_PROTOS(op)           \
  CUDA_PROTO_(op, forward);       \
  CUDA_PROTO_(op, backward);      \
  CUDA_PROTO_(op, jvp);           \
  CUDA_PROTO_(op, backward_jvp);
#define CUDA_KERNELS(op, dtype) CUDA_KERNELS_WITH(op, dtype, NULL, NULL, NULL, NULL)
/* with a split for each face, made by CUDA_SPLIT, which asks for scratch from sizes alone: one unit */
#define CUDA_KERNELS_WITH(op, dtype, split_f, split_b, split_j, split_h)            \
  { MICA_CUDA, dtype, MICA_FORWARD, micak_##op##_forward_cuda, split_f },           \
  { MICA_CUDA, dtype, MICA_BACKWARD, micak_##op##_backward_cuda, split_b },         \
  { MICA_CUDA, dtype, MICA_JVP, micak_##op##_jvp_cuda, split_j },                   \
  { MICA_CUDA, dtype, MICA_BACKWARD_JVP, micak_##op##_backward_jvp_cuda, split_h },
#define CUDA_SPLIT(name, type, bytes)                                                           \
  static void name(const void *args, mica_split *split) {                                       \
    const type *a = (const type *)args;                                                         \
    *split = (mica_split){ .units = 1, .grain = 1, .scratch_bytes = (bytes) };                  \
  }
/* with splits micak_<op>_<face>_cuda_split beside the kernels */
#define CUDA_SPLIT_PROTO_(op, face) void micak_##op##_##face##_cuda_split(const void *args, mica_split *split)
#define CUDA_SPLIT_PROTOS(op)           \
  CUDA_SPLIT_PROTO_(op, forward);       \
  CUDA_SPLIT_PROTO_(op, backward);      \
  CUDA_SPLIT_PROTO_(op, jvp);           \
  CUDA_SPLIT_PROTO_(op, backward_jvp);
#define CUDA_KERNELS_SPLIT(op, dtype)                                                                       \
  CUDA_KERNELS_WITH(op, dtype, micak_##op##_forward_cuda_split, micak_##op##_backward_cuda_split,           \
                    micak_##op##_jvp_cuda_split, micak_##op##_backward_jvp_cuda_split)
#else
#define CUDA_PROTOS(op)
#define CUDA_SPLIT_PROTOS(op)
#define CUDA_KERNELS_SPLIT(op, dtype)
#define CUDA_SPLIT(name, type, bytes)
#define CUDA_KERNELS(op, dtype)
#define CUDA_KERNELS_WITH(op, dtype, split_f, split_b, split_j, split_h)
#endif

#endif
