/* conv2d on CUDA in f32 on the tensor cores: three tf32 products */
#include "common/cuda_tile_tf32.cuh"
#include "conv/conv2d_cuda_mma_images.cuh"
#include "conv/conv2d_cuda_mma_params.cuh"

/* blocks that the shared memory of a multiprocessor holds */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
enum { SPLIT_BLOCKS = 2 };
#else
enum { SPLIT_BLOCKS = 3 };
#endif
template <class S>
struct conv_split {
  typedef float    ELEMENT;
  typedef uint32_t BITS;
  typedef S        SHAPE;
  enum { K_LD = tf32_side<S::ROWS>::K_LD, X_LD = tf32_side<S::ROWS>::X_LD, BLOCKS = S::A == 4 ? 2 : (int)SPLIT_BLOCKS };
  static __device__ __forceinline__ void multiply(const float *a, const float *b, bool along_k, int row, int col,
                                                  float (&acc)[S::A][4 * S::B][4]) {
    tf32_multiply<S>(a, b, along_k, along_k, row, col, acc);
  }
};

mica_status conv_images_tf32(const char *name, const conv_job &job, const mica_exec *exec) {
  return mma_images<conv_split>(name, job, exec);
}
mica_status conv_sums_tf32(const char *name, const conv_sum &job, dim3 grid, void *stream) {
  return mma_sums<conv_split<mma_broad>>(name, job, grid, stream);
}
