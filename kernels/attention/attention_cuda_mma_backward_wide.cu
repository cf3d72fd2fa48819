/* attention's backward on CUDA's tensor cores, bf16 heads of 65 to 128 */
#include "attention/attention_mma_up.cuh"

mica_status attn_mma_backward_wide(const mica_exec *exec, const mica_attention_args *a, int longer) {
  return mma_run_up<mma_shape<uint16_t, 128>, false>(mma_job_of(a, longer), exec->stream);
}
