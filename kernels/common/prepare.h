/* prepare.h: what all calls of one run of a CPU kernel share, made once before the first: weights as panels, for one. the
 * kernel gives the same bits without it. no op logic. */
#ifndef MICA_KERNELS_COMMON_PREPARE_H
#define MICA_KERNELS_COMMON_PREPARE_H

#include "common/op.h"

/* a mica_exec that carries it; its size says so */
typedef struct micak_exec {
  mica_exec exec;
  void     *shared;                          /* 64-byte aligned */
} micak_exec;

/* NULL: nothing was prepared */
static inline void *micak_shared(const mica_exec *exec) {
  return exec->size >= sizeof(micak_exec) ? ((const micak_exec *)(const void *)exec)->shared : NULL;
}

typedef struct micak_need { int64_t units; size_t bytes; } micak_need;

/* units of `prepare` fill the shared bytes, in any order */
typedef struct micak_prepare {
  mica_kernel_fn kernel, prepare;
  void         (*need)(const void *args, micak_need *need);
} micak_prepare;

/* NULL: this kernel prepares nothing */
const micak_prepare *micak_prepare_of(const mica_kernel *kernel);
/* {0, 0} without `prepare` */
static inline micak_need micak_need_of(const micak_prepare *prepare, const void *args) {
  micak_need need = { 0, 0 };
  if (prepare) prepare->need(args, &need);
  return need;
}

#endif
