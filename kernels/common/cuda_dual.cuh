/* cuda_dual.cuh: numbers, rows and wires that carry their tangents where a face has some (common/dual.inc), and teams of
 * threads, of one (task, head) each. nothing is atomic. */
#ifndef MICA_KERNELS_COMMON_CUDA_DUAL_CUH
#define MICA_KERNELS_COMMON_CUDA_DUAL_CUH

#include "common/cuda_memory.cuh"

template <bool DUAL>
struct dual_num {
  float v, t;
};
/* c + a b */
template <bool DUAL>
MEM_DEVICE dual_num<DUAL> dual_fma(dual_num<DUAL> a, dual_num<DUAL> b, dual_num<DUAL> c) {
  return { fmaf(a.v, b.v, c.v), DUAL ? fmaf(a.t, b.v, fmaf(a.v, b.t, c.t)) : 0.0f };
}
template <bool DUAL>
MEM_DEVICE dual_num<DUAL> dual_warp_sum(dual_num<DUAL> x) {
  return { warp_sum(x.v), DUAL ? warp_sum(x.t) : 0.0f };
}

/* a row, its tangent `plane` further on */
template <bool DUAL>
struct dual_row {
  float *at;
  int    plane;

  __device__ __forceinline__ dual_num<DUAL> get(int i) const { return { at[i], DUAL ? at[plane + i] : 0.0f }; }
  __device__ __forceinline__ void put(int i, dual_num<DUAL> x) const {
    at[i] = x.v;
    if (DUAL) at[plane + i] = x.t;
  }
  __device__ __forceinline__ dual_row from(int i) const { return { at + i, plane }; }
};
/* the next n numbers of some memory */
template <bool DUAL>
MEM_DEVICE dual_row<DUAL> dual_take(float *&at, int n) {
  const dual_row<DUAL> row = { at, n };
  at += (DUAL ? 2 : 1) * n;
  return row;
}

/* two wires of a port: v and t, or d and td */
template <bool DUAL>
struct dual_pair {
  const mica_wire &v, &t;
  int64_t          at, at_t;                 /* -1: zeros */

  __device__ __forceinline__ dual_num<DUAL> get(int64_t i, int64_t i_t) const {
    return { at < 0 ? 0.0f : wire_get(v, at + i), DUAL && at_t >= 0 ? wire_get(t, at_t + i_t) : 0.0f };
  }
  /* element c of row r of (B,T,H,.) */
  __device__ __forceinline__ dual_num<DUAL> cell(int64_t r, int64_t c) const {
    return get(r * v.stride[0] + c * v.stride[2], r * t.stride[0] + c * t.stride[2]);
  }
};
template <bool DUAL>
MEM_DEVICE dual_pair<DUAL> dual_rows(const mica_wire &v, const mica_wire &t, const int32_t *offsets, int64_t b, int64_t h) {
  return { v, t, mem_place(v, offsets, b, h), DUAL ? mem_place(t, offsets, b, h) : -1 };
}
MEM_DEVICE int64_t dual_state_place(const mica_wire &w, int64_t b, int64_t h) {
  const int64_t place = wire_place(w, NULL, b);
  return place < 0 ? -1 : place + h * w.stride[0];
}

/* ---- teams ---- */

/* a warp or a whole block */
struct dual_team {
  int     lane, lanes, warp, warps;          /* lane of the team */
  int64_t index, count;                      /* of all teams */
  float  *memory;

  /* teams of a block, and floats of each */
  __device__ __forceinline__ dual_team(int lanes_, int teams, int64_t floats, float *all) {
    const int t = (int)threadIdx.x, own = teams == 1 ? 0 : t / lanes_;
    lanes = lanes_, lane = t - own * lanes, warp = lane / 32, warps = lanes / 32;
    index = (int64_t)blockIdx.x * teams + own, count = (int64_t)gridDim.x * teams;
    memory = all + own * floats;
  }
  __device__ __forceinline__ void sync() const {
    if (lanes == 32) __syncwarp();
    else __syncthreads();
  }
};

#endif
