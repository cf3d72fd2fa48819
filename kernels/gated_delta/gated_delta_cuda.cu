/* the gated delta rule on CUDA, forward and jvp: the recurrence of common/cuda_memory.cuh */
#include "common/cuda_memory.cuh"
#include "gated_delta/gated_delta_internal.h"

extern "C" mica_status micak_gated_delta_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const micak_memory m = gated_delta_memory(static_cast<const mica_gated_delta_args *>(args));
  return mem_down<mem_linear<true, true, false>>(&m, exec);
}
extern "C" mica_status micak_gated_delta_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const micak_memory m = gated_delta_memory(static_cast<const mica_gated_delta_args *>(args));
  return mem_down<mem_linear<true, true, true>>(&m, exec);
}
