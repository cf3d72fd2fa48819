/* cuda_units.h: how much of a device a launch fills */
#ifndef MICA_KERNELS_COMMON_CUDA_UNITS_H
#define MICA_KERNELS_COMMON_CUDA_UNITS_H

#include "common/cuda_launch.h"

/* *fills: does this grid give nine of ten multiprocessors of the current device two blocks? may choose no bits */
static inline mica_status micak_fills(const char *name, dim3 grid, bool *fills) {
  int         device = 0, units = 0;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess) code = cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, device);
  *fills = (uint64_t)grid.x * grid.y * grid.z * 10 >= (uint64_t)units * 18;
  if (code == cudaSuccess) return MICA_OK;
  (void)cudaGetLastError();
  return micak_cuda_error("cudaDeviceGetAttribute", name, code);
}

#endif
