/* batch_norm_pool on CUDA: forward and jvp; the kernels are in batch_norm_cuda_internal.cuh */
#include "batch_norm/batch_norm_cuda_internal.cuh"

#define BNP_DOWN(face, FACE)                                                                                              \
  extern "C" mica_status micak_batch_norm_pool_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) { \
    return bn_run<FACE, true>("batch_norm_pool " #face, static_cast<const mica_batch_norm_args *>(args), exec, false);    \
  }
BNP_DOWN(forward, MICA_FORWARD)
BNP_DOWN(jvp, MICA_JVP)
