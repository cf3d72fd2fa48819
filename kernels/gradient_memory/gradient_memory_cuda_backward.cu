/* gradient_memory on CUDA, backward */
#include "gradient_memory/gradient_memory_rule_up.cuh"

extern "C" mica_status micak_gradient_memory_backward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const micak_memory m = gradient_memory_of(static_cast<const mica_gradient_memory_args *>(args));
  return gradient_memory_anchored(&m) ? mem_up<mem_descent<true, false>>(&m, exec) : mem_up<mem_descent<false, false>>(&m, exec);
}
extern "C" void micak_gradient_memory_backward_cuda_split(const void *args, mica_split *split) {
  const micak_memory m = gradient_memory_of(static_cast<const mica_gradient_memory_args *>(args));
  split->units = split->grain = 1, split->rows = 0;
  split->scratch_bytes = gradient_memory_anchored(&m) ? mem_up_bytes<mem_descent<true, false>>(&m)
                                                      : mem_up_bytes<mem_descent<false, false>>(&m);
}
