/* conv2d on CUDA in bf16: mma.sync with fp32 sums */
#include "common/cuda_tile_bf16.cuh"
#include "conv/conv2d_cuda_mma_images.cuh"
#include "conv/conv2d_cuda_mma_params.cuh"

template <class S>
struct conv_half {
  typedef uint16_t ELEMENT, BITS;
  typedef S        SHAPE;
  enum { K_LD = half_side<S::ROWS>::K_LD, X_LD = half_side<S::ROWS>::X_LD, BLOCKS = S::A == 4 ? 3 : 4 };
  static __device__ __forceinline__ void multiply(const uint16_t *a, const uint16_t *b, bool along_k, int row, int col,
                                                  float (&acc)[S::A][4 * S::B][4]) {
    half_multiply<S>(a, b, along_k, along_k, row, col, acc);
  }
};

mica_status conv_images_bf16(const char *name, const conv_job &job, const mica_exec *exec) {
  return mma_images<conv_half>(name, job, exec);
}
mica_status conv_sums_bf16(const char *name, const conv_sum &job, dim3 grid, void *stream) {
  return mma_sums<conv_half<mma_broad>>(name, job, grid, stream);
}
