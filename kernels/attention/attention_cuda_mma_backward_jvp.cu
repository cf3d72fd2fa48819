/* attention's backward_jvp on CUDA's tensor cores */
#include "attention/attention_mma_up.cuh"

mica_status attn_mma_backward_jvp(const mica_exec *exec, const mica_attention_args *a) {
  return mma_by_shape<32, 128>(a, [&](auto shape) { return mma_run_up<decltype(shape), true>(mma_job_of(a), exec->stream); });
}
