/* the delta rule on CUDA, forward: in chunks (common/cuda_memory_chunk.cuh) or token by token (cuda_memory.cuh) */
#include "common/cuda_memory_chunk.cuh"
#include "delta_rule/delta_rule_internal.h"

extern "C" mica_status micak_delta_rule_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const micak_memory m = delta_rule_memory(static_cast<const mica_delta_rule_args *>(args));
  return memory_run_down<mem_linear<true, false, false>>(&m, exec);
}
extern "C" void micak_delta_rule_forward_cuda_split(const void *args, mica_split *split) {
  const micak_memory m = delta_rule_memory(static_cast<const mica_delta_rule_args *>(args));
  split->units = split->grain = 1, split->rows = 0;
  split->scratch_bytes = memory_down_bytes(&m, false);
}
