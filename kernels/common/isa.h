/* isa.h: each <op>_cpu.c is compiled once for every instruction set; this names the copies and picks one at run time.
 *
 * in <op>_cpu.c:   CPU_KERNEL(layernorm_forward) { ... exec, args, first, count ... }
 * in <op>_op.c:    CPU_DISPATCH(layernorm_forward)   makes micak_layernorm_forward_cpu
 *                   CPU_FACES(layernorm), and CPU_KERNELS(layernorm) in the table: all four, with split_forward ... */
#ifndef MICA_KERNELS_COMMON_ISA_H
#define MICA_KERNELS_COMMON_ISA_H

#include "mica/op.h"

#define MICAK_CAT_(a, b) a##_##b
#define MICAK_CAT(a, b) MICAK_CAT_(a, b)
#define CPU_NAME(name) MICAK_CAT(micak_##name##_cpu, MICAK_ISA)
#define CPU_KERNEL(name)                                                                                 \
  mica_status CPU_NAME(name)(const mica_exec *exec, const void *args, int64_t first, int64_t count);     \
  mica_status CPU_NAME(name)(const mica_exec *exec, const void *args, int64_t first, int64_t count)

#define CPU_PROTO_(name, isa) \
  mica_status micak_##name##_cpu_##isa(const mica_exec *exec, const void *args, int64_t first, int64_t count)
#if defined(__x86_64__)
#define CPU_DISPATCH(name)                                                                                    \
  CPU_PROTO_(name, portable);                                                                                 \
  CPU_PROTO_(name, avx2);                                                                                     \
  CPU_PROTO_(name, avx512);                                                                                   \
  static mica_status micak_##name##_cpu(const mica_exec *exec, const void *args, int64_t first, int64_t count) { \
    static const mica_kernel_fn by_isa[] = { micak_##name##_cpu_portable, micak_##name##_cpu_avx2,           \
                                             micak_##name##_cpu_avx512 };                                     \
    return by_isa[exec->isa](exec, args, first, count);                                                       \
  }
#else
#define CPU_DISPATCH(name)                                                                                    \
  CPU_PROTO_(name, portable);                                                                                 \
  static mica_status micak_##name##_cpu(const mica_exec *exec, const void *args, int64_t first, int64_t count) { \
    return micak_##name##_cpu_portable(exec, args, first, count);                                             \
  }
#endif

#define CPU_FACES(op)        \
  CPU_DISPATCH(op##_forward)  \
  CPU_DISPATCH(op##_backward) \
  CPU_DISPATCH(op##_jvp)      \
  CPU_DISPATCH(op##_backward_jvp)
#define CPU_KERNELS(op)                                                             \
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_##op##_forward_cpu, split_forward },    \
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_##op##_backward_cpu, split_backward }, \
  { MICA_CPU, MICA_F32, MICA_JVP, micak_##op##_jvp_cpu, split_jvp },                \
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_##op##_backward_jvp_cpu, split_backward_jvp }

/* best MICA_ISA_* of this machine */
int micak_best_isa(void);

#endif
