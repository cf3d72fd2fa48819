/* linear attention on CUDA, forward: in chunks (common/cuda_memory_chunk.cuh) or token by token (cuda_memory.cuh) */
#include "common/cuda_memory_chunk.cuh"
#include "linear_attention/linear_attention_internal.h"

extern "C" mica_status micak_linear_attention_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const micak_memory m = linear_attention_memory(static_cast<const mica_linear_attention_args *>(args));
  return m.decay ? memory_run_down<mem_linear<false, true, false>>(&m, exec)
                 : memory_run_down<mem_linear<false, false, false>>(&m, exec);
}
extern "C" void micak_linear_attention_forward_cuda_split(const void *args, mica_split *split) {
  const micak_memory m = linear_attention_memory(static_cast<const mica_linear_attention_args *>(args));
  split->units = split->grain = 1, split->rows = 0;
  split->scratch_bytes = memory_down_bytes(&m, false);
}
