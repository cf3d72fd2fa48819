/* gradient_memory on CUDA, forward and jvp: the recurrence of common/cuda_memory.cuh */
#include "gradient_memory/gradient_memory_rule.cuh"

extern "C" mica_status micak_gradient_memory_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const micak_memory m = gradient_memory_of(static_cast<const mica_gradient_memory_args *>(args));
  return gradient_memory_anchored(&m) ? mem_down<mem_descent<true, false>>(&m, exec)
                                      : mem_down<mem_descent<false, false>>(&m, exec);
}
extern "C" mica_status micak_gradient_memory_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const micak_memory m = gradient_memory_of(static_cast<const mica_gradient_memory_args *>(args));
  return gradient_memory_anchored(&m) ? mem_down<mem_descent<true, true>>(&m, exec)
                                      : mem_down<mem_descent<false, true>>(&m, exec);
}
