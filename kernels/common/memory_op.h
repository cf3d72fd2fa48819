/* memory_op.h: what the tables of linear attention and of the delta rules share: settings, access, splits, cost, kernels.
 * AT is the table's, <op>_memory(args) makes a micak_memory of its arguments. */
#ifndef MICA_KERNELS_COMMON_MEMORY_OP_H
#define MICA_KERNELS_COMMON_MEMORY_OP_H

#include "common/cuda.h"
#include "common/isa.h"
#include "common/memory.h"
#include "common/ref.h"

#define MEMORY_PARAMS                                                                            \
  { "form", MICA_PARAM_CHOICE, AT(form), MICAK_MEMORY_AUTO, 0, 2, "auto|chunked|recurrent",      \
    "how it is computed: by matrix products of chunks, or token by token; auto: by shape" },     \
  { "chunk", MICA_PARAM_INT, AT(chunk), 0, 0, 1024, NULL, "tokens of a chunk, 0: by shape" }
#define READS_IN MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
#define READS_OUT MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD)

#define MEMORY_SPLIT_(op, name, face)                             \
  static void split_##name(const void *args, mica_split *split) { \
    micak_memory m = op##_memory(args);                           \
    micak_memory_split(&m, face, split);                          \
  }
#define MEMORY_FACES(op)                                                         \
  MEMORY_SPLIT_(op, forward, MICA_FORWARD)                                       \
  MEMORY_SPLIT_(op, backward, MICA_BACKWARD)                                     \
  MEMORY_SPLIT_(op, jvp, MICA_JVP)                                               \
  MEMORY_SPLIT_(op, backward_jvp, MICA_BACKWARD_JVP)                             \
  MEMORY_SPLIT_(op, forward_with_jvp, MICA_FORWARD_WITH_JVP)                     \
  MEMORY_SPLIT_(op, backward_with_jvp, MICA_BACKWARD_WITH_JVP)                   \
  static void cost(const void *args, int face, double *flop, double *bytes) {    \
    micak_memory m = op##_memory(args);                                          \
    micak_memory_cost(&m, face, flop, bytes);                                    \
  }                                                                              \
  CPU_FACES(op)                                                                  \
  CPU_DISPATCH(op##_forward_with_jvp)                                            \
  CPU_DISPATCH(op##_backward_with_jvp)                                           \
  REF_PROTOS(op);                                                                \
  CUDA_PROTOS(op)                                                                \
  CUDA_SPLIT_PROTOS(op)
#define MEMORY_KERNELS(op)                                                                                       \
  REF_KERNELS(op),                                                                                               \
  CPU_KERNELS(op),                                                                                               \
  { MICA_CPU, MICA_F32, MICA_FORWARD_WITH_JVP, micak_##op##_forward_with_jvp_cpu, split_forward_with_jvp },      \
  { MICA_CPU, MICA_F32, MICA_BACKWARD_WITH_JVP, micak_##op##_backward_with_jvp_cpu, split_backward_with_jvp },   \
  CUDA_KERNELS_SPLIT(op, MICA_F32)                                                                               \
  CUDA_KERNELS_SPLIT(op, MICA_BF16)

#endif
