/* the gated delta rule on CUDA, backward */
#include "common/cuda_memory_chunk_up.cuh"
#include "gated_delta/gated_delta_internal.h"

extern "C" mica_status micak_gated_delta_backward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const micak_memory m = gated_delta_memory(static_cast<const mica_gated_delta_args *>(args));
  return memory_run_up<mem_linear<true, true, false>>(&m, exec);
}
extern "C" void micak_gated_delta_backward_cuda_split(const void *args, mica_split *split) {
  const micak_memory m = gated_delta_memory(static_cast<const mica_gated_delta_args *>(args));
  split->units = split->grain = 1, split->rows = 0;
  split->scratch_bytes = memory_up_bytes<mem_linear<true, true, false>>(&m);
}
