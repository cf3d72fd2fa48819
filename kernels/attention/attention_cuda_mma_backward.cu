/* attention's backward on CUDA's tensor cores */
#include "attention/attention_mma_up.cuh"

mica_status attn_mma_backward(const mica_exec *exec, const mica_attention_args *a, int longer) {
  if (a->D > 64) return attn_mma_backward_wide(exec, a, longer);
  return mma_by_shape<64, 64>(a, [&](auto shape) {
    return mma_run_up<decltype(shape), false>(mma_job_of(a, longer), exec->stream);
  });
}
