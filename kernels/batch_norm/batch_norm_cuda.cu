/* batch_norm on CUDA: forward and jvp; the kernels are in batch_norm_cuda_internal.cuh */
#include "batch_norm/batch_norm_cuda_internal.cuh"

#define BN_DOWN(face, FACE)                                                                                          \
  extern "C" mica_status micak_batch_norm_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) { \
    return bn_run<FACE, false>("batch_norm " #face, static_cast<const mica_batch_norm_args *>(args), exec, false);          \
  }
BN_DOWN(forward, MICA_FORWARD)
BN_DOWN(jvp, MICA_JVP)
