/* norm_cuda_internal.cuh: what the two CUDA files share */
#ifndef MICA_KERNELS_NORM_CUDA_INTERNAL_CUH
#define MICA_KERNELS_NORM_CUDA_INTERNAL_CUH

#include "norm/norm.h"

/* w.d and b.d, or w.td and b.td */
mica_status norm_params_cuda(const char *name, int face, bool centered, const mica_exec *exec, const mica_norm_args *a);

#endif
