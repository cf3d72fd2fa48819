/* product_end.cuh: what happens to a finished tile: through a slab of shared memory, so that lanes run along columns of
 * whatever lies where, with bias, activation and residual on the way. */
#ifndef MICA_KERNELS_LINEAR_PRODUCT_END_CUH
#define MICA_KERNELS_LINEAR_PRODUCT_END_CUH

#include "linear/linear_act.cuh"
#include "linear/product_internal.cuh"

/* N neighbouring columns of an f32 or bf16 wire; N 4 only where all are f32, aligned and side by side */
template <int N>
static __device__ __forceinline__ void product_load(const product_rows &r, int64_t i, int64_t j, float (&x)[N]) {
  if (r.at < 0) {
#pragma unroll
    for (int n = 0; n < N; n++) x[n] = 0;
  } else if (N == 4) {
    float4 f = *reinterpret_cast<const float4 *>(static_cast<const float *>(r.wire.data) + r.place(i, j));
    x[0] = f.x, x[1 % N] = f.y, x[2 % N] = f.z, x[3 % N] = f.w;
  } else {
    x[0] = r.get(i, j);
  }
}
template <int N>
static __device__ __forceinline__ void product_save(const mica_wire &w, int64_t at, bool add, const float (&x)[N]) {
  if (N == 4) {
    float4 *to = reinterpret_cast<float4 *>(static_cast<float *>(w.data) + at);
    float4  old = add ? *to : make_float4(0, 0, 0, 0);
    *to = add ? make_float4(old.x + x[0], old.y + x[1 % N], old.z + x[2 % N], old.w + x[3 % N])
              : make_float4(x[0], x[1 % N], x[2 % N], x[3 % N]);
  } else {
    wire_put(w, at, x[0], add);
  }
}

/* what is found once for all results of task b, and once for a thread's columns j .. j + N - 1 */
template <bool LINEAR, int N>
struct product_ends {
  const product_job &job;
  const int64_t      place, j;               /* place: of the task's results; -1: nowhere */
  const bool         add;
  __device__ __forceinline__ product_ends(const product_job &job_, int64_t, int64_t place_, bool add_, int64_t j_)
      : job(job_), place(place_), j(j_), add(add_) {}
  __device__ __forceinline__ void finish(int64_t i, float (&x)[N]) const {
    if (place >= 0) product_save<N>(job.out, place + i * job.out_row + j * job.out_col, add, x);
  }
};
template <int N>
struct product_ends<true, N> {
  const product_job &job;
  const int64_t      place, j;
  const bool         add;
  const product_rows z, z_out, res;
  float              bias[N];
  __device__ __forceinline__ product_ends(const product_job &job_, int64_t b, int64_t place_, bool add_, int64_t j_)
      : job(job_), place(place_), j(j_), add(add_), z(job_.linear.z, job_.linear.z_offsets, b),
        z_out(job_.linear.z_out, job_.linear.z_offsets, b), res(job_.linear.res, job_.linear.res_offsets, b) {
    const mica_wire &w = job_.linear.bias;
    const int64_t    at = wire_place(w, NULL, b);
#pragma unroll
    for (int n = 0; n < N; n++) bias[n] = at < 0 ? 0.0f : wire_get(w, at + (j + n) * w.stride[0]);
  }
  __device__ __forceinline__ void finish(int64_t i, float (&x)[N]) const {
    const product_linear &l = job.linear;
    float                 more[N];
#pragma unroll
    for (int n = 0; n < N; n++) x[n] += bias[n];
    if (l.act != MICA_ACT_NONE) {
      if (z_out.at >= 0) product_save<N>(l.z_out, z_out.place(i, j), z_out.add, x);
      if (l.tangent) {
        product_load<N>(z, i, j, more);
#pragma unroll
        for (int n = 0; n < N; n++) x[n] *= act_first(l.act, more[n]);
      } else {
#pragma unroll
        for (int n = 0; n < N; n++) x[n] = act_value(l.act, x[n]);
      }
    }
    product_load<N>(res, i, j, more);
#pragma unroll
    for (int n = 0; n < N; n++) x[n] += more[n];
    if (place >= 0) product_save<N>(job.out, place + i * job.out_row + j * job.out_col, add, x);
  }
};

/* rows x cols of a slab (leading dimension ld) whose row r is row row(r) of the result; a thread keeps to its columns and
 * has AT_ONCE rows under way */
template <bool LINEAR, int N, int AT_ONCE, class ROW>
static __device__ __forceinline__ void product_slab(const product_job &job, int64_t b, int64_t place, bool add,
                                                    const float *slab, int rows, int cols, int ld, int64_t i0,
                                                    int64_t j0, int64_t i_end, int64_t j_end, const ROW &row) {
  const int c = (int)threadIdx.x % (cols / N) * N;
  if (j0 + c >= j_end) return;
  const product_ends<LINEAR, N> ends(job, b, place, add, j0 + c);
#pragma unroll AT_ONCE
  for (int r = (int)threadIdx.x / (cols / N); r < rows; r += (int)blockDim.x / (cols / N)) {
    const int64_t i = i0 + row(r);
    if (i >= i_end) continue;
    float x[N];
    if (N == 4) {
      const float4 f = *reinterpret_cast<const float4 *>(slab + r * ld + c);
      x[0] = f.x, x[1 % N] = f.y, x[2 % N] = f.z, x[3 % N] = f.w;
    } else {
      x[0] = slab[r * ld + c];
    }
    ends.finish(i, x);
  }
}

/* a chunk's sums, dense; by the same slab */
template <class ROW>
static __device__ __forceinline__ void product_slab_partial(float *to, int64_t N, const float *slab, int rows, int cols,
                                                            int ld, int64_t i0, int64_t j0, int64_t i_end,
                                                            int64_t j_end, const ROW &row) {
  for (int e = (int)threadIdx.x; e < rows * cols; e += (int)blockDim.x) {
    int     r = e / cols, c = e % cols;
    int64_t i = i0 + row(r), j = j0 + c;
    if (i < i_end && j < j_end) to[i * N + j] = slab[r * ld + c];
  }
}

/* the vector that rides along: of the group's first task */
static __device__ __forceinline__ void product_save_sum(const product_job &job, int64_t b, int64_t i, float value,
                                                        bool more) {
  int64_t place = wire_place(job.sum, NULL, b);
  if (place >= 0) wire_put(job.sum, place + i * job.sum.stride[0], value, more || (job.sum.flags & MICA_ADD) != 0);
}

/* the grid of tiles of rows x cols */
static inline dim3 product_grid(const product_job &job, int64_t rows, int64_t cols) {
  const bool all = !job.out.slot && !job.out_offsets && !job.out.task_stride;
  int64_t    tiles = (job.M.longest * job.M.tasks + rows - 1) / rows * ((job.N.longest + cols - 1) / cols);
  int64_t    most = job.partial ? product_chunks(job, job.tasks * job.K.longest) : 1;
  if (job.out.slot && most > PRODUCT_CHUNK_BLOCKS) most = PRODUCT_CHUNK_BLOCKS;
  return dim3(micak_blocks(tiles, 1), all ? 1 : micak_task_blocks(job.tasks), most > 65535 ? 65535u : (unsigned)most);
}

#endif
