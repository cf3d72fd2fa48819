/* cuda_launch.h: the one way to start a kernel. plain C API underneath, so that no file holds a <<<>>>, every launch is
 * checked, and the SIMT device of the tests (tests/simt) sees the types of a kernel's parameters. */
#ifndef MICA_KERNELS_COMMON_CUDA_LAUNCH_H
#define MICA_KERNELS_COMMON_CUDA_LAUNCH_H

#include <cuda_runtime.h>
#include <stdint.h>

#include "mica/op.h"

/* dynamic shared memory of the launch, as an array of T */
#ifndef MICA_SIMT
#define DYN_SMEM(T, name)                                                  \
  extern __shared__ __align__(1024) unsigned char micak_dynamic_memory[]; \
  T *const name = reinterpret_cast<T *>(micak_dynamic_memory)
#endif

/* the status of a failed CUDA call: the call, its code and its text. MICA_ERR_MEMORY for a failed allocation */
static inline mica_status micak_cuda_error(const char *call, const char *what, cudaError_t code) {
  return mica_error(code == cudaErrorMemoryAllocation ? MICA_ERR_MEMORY : MICA_ERR_DEVICE, "%s%s%s: CUDA error %d (%s): %s",
                    call, what ? " of " : "", what ? what : "", (int)code, cudaGetErrorName(code),
                    cudaGetErrorString(code));
}

/* static and dynamic shared memory count together towards the 48 KB that need no opting in: above 32 KB a kernel is opted
 * in to all there is but 2 KB of static memory, always the same amount, so that two threads cannot undo each other's */
enum { MICAK_OPT_IN = 32 * 1024, MICAK_MOST_STATIC = 2 * 1024 };
static inline mica_status micak_opt_in(const char *name, const void *entry, size_t dynamic) {
  int         device = 0, most = 0;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess) code = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (code == cudaSuccess && dynamic + MICAK_MOST_STATIC > (size_t)most)
    return mica_error(MICA_ERR_UNSUPPORTED, "%s needs %zu bytes of shared memory a block, this device has %d", name,
                      dynamic + MICAK_MOST_STATIC, most);
  if (code == cudaSuccess)
    code = cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize, most - MICAK_MOST_STATIC);
  if (code == cudaSuccess) return MICA_OK;
  (void)cudaGetLastError();
  return micak_cuda_error("cudaFuncSetAttribute", name, code);
}

template <class T>
struct micak_same {
  typedef T type;
};

/* start `kernel` on `stream`; a grid of no blocks is nothing to do. arguments must convert to the kernel's parameters.
 * `dynamic`: bytes of dynamic shared memory. MICA_ERR_DEVICE as above. */
template <class... P>
static inline mica_status micak_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic,
                                       void *stream, typename micak_same<P>::type... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return MICA_OK;
#ifdef MICA_SIMT
  simt::know(kernel, name);
#endif
  const void *entry = (const void *)kernel;
  if (dynamic > MICAK_OPT_IN) {
    mica_status status = micak_opt_in(name, entry, dynamic);
    if (status < 0) return status;
  }
  void       *list[] = { (void *)&args..., NULL };
  cudaError_t code = cudaLaunchKernel(entry, grid, block, list, dynamic, (cudaStream_t)stream);
  if (code == cudaSuccess) return MICA_OK;
  (void)cudaGetLastError();                  /* a launch that was refused must not be blamed on the next call */
  return micak_cuda_error("cudaLaunchKernel", name, code);
}

/* blocks for n things, `each` a block; at most 2^31 - 1: kernels stride over the rest */
static inline unsigned micak_blocks(int64_t n, int64_t each) {
  int64_t blocks = (n + each - 1) / each;
  return blocks > 0x7fffffff ? 0x7fffffffu : (unsigned)blocks;
}
/* one block a task in a grid's y or z; kernels stride over tasks beyond the limit */
static inline unsigned micak_task_blocks(int64_t tasks) { return tasks > 65535 ? 65535u : (unsigned)tasks; }

#endif
