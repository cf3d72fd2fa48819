/* cuda.h: rows of CUDA kernels in an operation's table; nothing where the build has no CUDA backend (MICA_HAVE_CUDA).
 *
 * in <op>_cuda.cu:  extern "C" mica_status micak_<op>_<face>_cuda(const mica_exec *, const void *args, int64_t, int64_t)
 * in <op>_op.c:     CUDA_PROTOS(op), and CUDA_KERNELS(op, MICA_F32) at the end of the kernel table */
#ifndef MICA_KERNELS_COMMON_CUDA_H
#define MICA_KERNELS_COMMON_CUDA_H

#include "mica/op.h"

#ifdef MICA_HAVE_CUDA
#define CUDA_PROTO_(op, face) \
  mica_status micak_##op##_##face##_cuda(const mica_exec *exec, const void *args, int64_t first, int64_t count)
#define CUDA_PROTOS(op)           \
  CUDA_PROTO_(op, forward);       \
  CUDA_PROTO_(op, backward);      \
  CUDA_PROTO_(op, jvp);           \
  CUDA_PROTO_(op, backward_jvp);
#define CUDA_KERNELS(op, dtype)                                                     \
  { MICA_CUDA, dtype, MICA_FORWARD, micak_##op##_forward_cuda, NULL },              \
  { MICA_CUDA, dtype, MICA_BACKWARD, micak_##op##_backward_cuda, NULL },            \
  { MICA_CUDA, dtype, MICA_JVP, micak_##op##_jvp_cuda, NULL },                      \
  { MICA_CUDA, dtype, MICA_BACKWARD_JVP, micak_##op##_backward_jvp_cuda, NULL },
#else
#define CUDA_PROTOS(op)
#define CUDA_KERNELS(op, dtype)
#endif

#endif
