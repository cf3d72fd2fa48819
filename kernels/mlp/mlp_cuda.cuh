/* mlp_cuda.cuh: a perceptron's inner loop as device code sees it: where everything lies. README.md draws it. */
#ifndef MICA_KERNELS_MLP_CUDA_CUH
#define MICA_KERNELS_MLP_CUDA_CUH

#include "common/cuda_math.cuh"
#include "common/cuda_reduce.cuh"
#include "linear/linear.h"
#include "mlp/mlp_loop.h"

#define MLP_DEVICE static __device__ __forceinline__

/* a wire: rows of `row` numbers where offsets say where they begin */
struct mlp_wire {
  float         *data;
  const int32_t *slot;
  int64_t        stride, row;
};
static inline mlp_wire mlp_wire_of(const mica_wire &w) {
  return mlp_wire{ static_cast<float *>(w.data), w.slot, w.task_stride, w.stride[0] };
}
/* NULL: reads as zeros, is not written */
MLP_DEVICE float *mlp_at(const mlp_wire &w, const int32_t *offsets, int64_t b) {
  if (!w.data) return NULL;
  const int64_t s = w.slot ? w.slot[b] : b;
  if (s < 0) return NULL;
  return w.data + (offsets ? offsets[s] * w.row : s * w.stride);
}

/* four floats to 16-byte aligned shared memory, at once: nvcc takes the store of a float4 apart there */
MLP_DEVICE void mlp_put_4(float *shared, float a, float b, float c, float d) {
#ifdef MICA_SIMT
  *reinterpret_cast<float4 *>(shared) = make_float4(a, b, c, d);
#else
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"((uint32_t)__cvta_generic_to_shared(shared)), "f"(a),
               "f"(b), "f"(c), "f"(d) : "memory");
#endif
}

enum { MLP_MOST = MICAK_MLP_LAYERS, MLP_THREADS = 256 };

/* rows of one kind: the support's or the query's */
struct mlp_rows {
  mlp_wire       x, y;
  const int32_t *offsets;
  int64_t        R;
};

struct mlp_job {
  int32_t  layers, act, first_order, what;
  int32_t  width[MLP_MOST + 1], bias[MLP_MOST];
  int32_t  row[MLP_MOST], weights[MLP_MOST], number[2 * MLP_MOST]; /* of a layer's weights: floats of a row, where they
                                              * begin; where a parameter begins in `back` and in kept thetas */
  int32_t  floats, numbers;                  /* of a theta here; of all parameters */
  int32_t  chunk, pitch;                     /* rows of a chunk; floats from unit to unit */
  int32_t  a[MLP_MOST + 1], at[MLP_MOST + 1], d[MLP_MOST + 1], dt[MLP_MOST + 1], sums, all; /* units; all there are */
  int32_t  there;                            /* as micak_mlp_cuda */
  int64_t  first, count, back_first, B, steps, stride, stop;
  mlp_rows support, query;
  int32_t  mean_out, mean_rows;
  mlp_wire start[2 * MLP_MOST], last[2 * MLP_MOST], last_d[2 * MLP_MOST], rate[2 * MLP_MOST], kept[2 * MLP_MOST];
  int64_t  rate_step[2 * MLP_MOST];
  mlp_wire loss, loss_d, query_loss, query_loss_d;
  float   *back, *rate_back;
  float   *scratch;                          /* `own` floats a block */
  int64_t  own;
};

#endif
