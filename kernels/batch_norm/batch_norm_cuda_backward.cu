/* batch_norm on CUDA: backward and backward_jvp */
#include "batch_norm/batch_norm_cuda_internal.cuh"

#define BN_UP(face, FACE)                                                                                             \
  extern "C" mica_status micak_batch_norm_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {  \
    const mica_batch_norm_args *a = static_cast<const mica_batch_norm_args *>(args);                                  \
    const bool params = bn_param_wire(a, FACE, 0)->data || bn_param_wire(a, FACE, 1)->data;                           \
    mica_status status = bn_run<FACE, false>("batch_norm " #face, a, exec, params);                                          \
    return status >= 0 && params ? bn_params_cuda("batch_norm " #face, FACE, a, exec) : status;                       \
  }
BN_UP(backward, MICA_BACKWARD)
BN_UP(backward_jvp, MICA_BACKWARD_JVP)
