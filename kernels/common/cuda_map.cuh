/* cuda_map.cuh: up to 7 inputs mapped to one output, element by element, with broadcasting, as common/map.h does on the
 * CPU. where the output lacks rows or columns, or its tasks share a slot, results are summed in double: lanes over the
 * rows or columns of a task, tasks in order, then the lanes in a fixed tree.
 *
 * F is a small struct with
 *   template <int N> __device__ void run(const float (&in)[MAP_INPUTS + 1][N], float (&out)[N]) const;
 * in[MAP_INPUTS] is 1 / count of a map that has `count`, else zeros. */
#ifndef MICA_KERNELS_COMMON_CUDA_MAP_CUH
#define MICA_KERNELS_COMMON_CUDA_MAP_CUH

#include "common/cuda_wire.cuh"

enum { MAP_INPUTS = 7, MAP_THREADS = 256 };
enum { MAP_SUM_ROWS, MAP_SUM_COLUMNS, MAP_SUM_ALL };

/* one wire of a port of `rows` x `cols` in the frame of the map's R x C */
struct map_side {
  mica_wire      wire;
  const int32_t *offsets;
  int64_t        rows, cols;
};
struct map_job {
  int64_t        B, R, C;
  const int32_t *offsets;                    /* of the map's rows */
  uint32_t       reads;                      /* bit k: input k is looked at; the others are zero */
  int32_t        count;                      /* bits: 1 counts the task's rows, 2 the columns */
  map_side       in[MAP_INPUTS], out;
};

struct map_plane {
  const char *at;                            /* NULL: zeros */
  int64_t     row, col;                      /* elements */
};
struct map_task {
  map_plane in[MAP_INPUTS];
  float     share;
};

static inline bool map_one_row(const map_side &s, int64_t R) { return s.rows == 1 && R != 1 && !s.offsets; }
static inline bool map_one_col(const map_side &s, int64_t C) { return s.cols == 1 && C != 1; }

static __device__ __forceinline__ void map_enter(const map_job &job, int64_t b, map_task &task) {
#pragma unroll
  for (int k = 0; k < MAP_INPUTS; k++) {
    const map_side &s = job.in[k];
    task.in[k].at = NULL;
    if (!(job.reads >> k & 1)) continue;
    int64_t place = wire_place(s.wire, s.offsets, b);
    if (place < 0) continue;
    int size = s.wire.dtype == MICA_I64 ? 8 : s.wire.dtype == MICA_U8 ? 1 : 4;
    task.in[k].at = static_cast<const char *>(s.wire.data) + place * size;
    task.in[k].row = s.rows == 1 && job.R != 1 && !s.offsets ? 0 : s.wire.stride[0];
    task.in[k].col = s.cols == 1 && job.C != 1 ? 0 : s.wire.stride[1];
  }
  int64_t n = (job.count & 1 ? wire_rows(job.offsets, b, job.R) : 1) * (job.count & 2 ? job.C : 1);
  task.share = job.count && n ? 1.0f / (float)n : 0.0f;
}

/* the N results from column c of row r */
template <class F, int N>
static __device__ __forceinline__ void map_value(const map_job &job, const F &f, const map_task &task, int64_t r,
                                                 int64_t c, float (&out)[N]) {
  float in[MAP_INPUTS + 1][N];
#pragma unroll
  for (int k = 0; k < MAP_INPUTS; k++) {
    const map_plane &p = task.in[k];
#pragma unroll
    for (int i = 0; i < N; i++) in[k][i] = 0.0f;
    if (!p.at) continue;
    int64_t at = r * p.row + c * p.col;
    if (N == 4) {
      float4 x = *reinterpret_cast<const float4 *>(p.at + at * 4);
      in[k][0] = x.x, in[k][1 % N] = x.y, in[k][2 % N] = x.z, in[k][3 % N] = x.w;
    } else {
      int dtype = job.in[k].wire.dtype;
      if (dtype == MICA_F32) in[k][0] = reinterpret_cast<const float *>(p.at)[at];
      else if (dtype == MICA_U8) in[k][0] = reinterpret_cast<const uint8_t *>(p.at)[at] != 0;
      else if (dtype == MICA_I64) in[k][0] = reinterpret_cast<const int64_t *>(p.at)[at] != 0;
      else in[k][0] = reinterpret_cast<const int32_t *>(p.at)[at] != 0;
    }
  }
#pragma unroll
  for (int i = 0; i < N; i++) in[MAP_INPUTS][i] = task.share;
  f.run(in, out);
}

/* the output has every row and column: a thread for N neighbours */
template <class F, int N>
static __global__ void __launch_bounds__(MAP_THREADS) map_each(const __grid_constant__ map_job job, const F f) {
  const mica_wire &w = job.out.wire;
  const int64_t    wide = job.C / N;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    float *out = wire_task(w, job.out.offsets, b);
    if (!out || wire_follows(w, job.out.offsets, b)) continue;
    const bool    alone = !wire_in_group(w, job.out.offsets, b, b + 1, job.B);
    const int64_t rows = wire_rows(job.out.offsets, b, job.out.rows);
    map_task      task;
    map_enter(job, b, task);
    for (int64_t n = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x; n < rows * wide;
         n += (int64_t)gridDim.x * MAP_THREADS) {
      int64_t r = n / wide, c = (n - r * wide) * N;
      double  sum[N];
      float   value[N];
#pragma unroll
      for (int i = 0; i < N; i++) sum[i] = 0;
      for (int64_t k = b; k == b || (!alone && wire_in_group(w, job.out.offsets, b, k, job.B)); k++) {
        if (k > b) map_enter(job, k, task);
        if (r >= wire_rows(job.offsets, k, job.R)) continue;
        map_value(job, f, task, r, c, value);
#pragma unroll
        for (int i = 0; i < N; i++) sum[i] += (double)value[i];
      }
      if (!alone) map_enter(job, b, task);
      float *at = out + r * w.stride[0] + c * w.stride[1];
      if (N == 4) {
        float4 old = w.flags & MICA_ADD ? *reinterpret_cast<float4 *>(at) : make_float4(0, 0, 0, 0);
        *reinterpret_cast<float4 *>(at) =
            make_float4((float)(old.x + sum[0]), (float)(old.y + sum[1 % N]), (float)(old.z + sum[2 % N]),
                        (float)(old.w + sum[3 % N]));
      } else {
        wire_store(w, at, sum[0]);
      }
    }
  }
}

/* the output lacks rows, columns or both */
template <class F>
static __global__ void __launch_bounds__(MAP_THREADS) map_sum(const __grid_constant__ map_job job, const F f,
                                                              const int mode) {
  __shared__ double partial[MAP_THREADS];
  const mica_wire &w = job.out.wire;
  const int t = (int)threadIdx.x, lanes = mode == MAP_SUM_ROWS ? 8 : mode == MAP_SUM_COLUMNS ? 32 : MAP_THREADS;
  const int each = MAP_THREADS / lanes;      /* outputs of a block */
  const int output = mode == MAP_SUM_ROWS ? t % each : t / lanes, lane = mode == MAP_SUM_ROWS ? t / each : t % lanes;
  const int step = mode == MAP_SUM_ROWS ? each : 1;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    float *out = wire_task(w, job.out.offsets, b);
    if (!out || wire_follows(w, job.out.offsets, b)) continue;
    const int64_t outputs = mode == MAP_SUM_ROWS      ? job.C
                            : mode == MAP_SUM_COLUMNS ? wire_rows(job.out.offsets, b, job.out.rows)
                                                      : 1;
    for (int64_t first = (int64_t)blockIdx.x * each; first < outputs; first += (int64_t)gridDim.x * each) {
      const int64_t o = first + output;
      double        sum = 0;
      float         value[1];
      for (int64_t k = b; o < outputs && wire_in_group(w, job.out.offsets, b, k, job.B); k++) {
        map_task      task;
        const int64_t rows = wire_rows(job.offsets, k, job.R);
        map_enter(job, k, task);
        if (mode == MAP_SUM_ROWS) {
          for (int64_t r = lane; r < rows; r += lanes) map_value(job, f, task, r, o, value), sum += (double)value[0];
        } else if (mode == MAP_SUM_COLUMNS) {
          for (int64_t c = lane; o < rows && c < job.C; c += lanes)
            map_value(job, f, task, o, c, value), sum += (double)value[0];
        } else {
          for (int64_t i = lane; i < rows * job.C; i += lanes)
            map_value(job, f, task, i / job.C, i % job.C, value), sum += (double)value[0];
        }
      }
      partial[t] = sum;
      __syncthreads();
      for (int half = lanes / 2; half; half /= 2) {
        if (lane < half) partial[t] += partial[t + half * step];
        __syncthreads();
      }
      if (lane == 0 && o < outputs)
        wire_store(w, out + (mode == MAP_SUM_COLUMNS ? o * w.stride[0] : mode == MAP_SUM_ROWS ? o * w.stride[1] : 0),
                   partial[t]);
      __syncthreads();
    }
  }
}

/* may every wire be taken 16 bytes at a time? */
static inline bool map_by_four(const map_job &job) {
  for (int k = 0; k < MAP_INPUTS; k++) {
    const map_side &s = job.in[k];
    if (!(job.reads >> k & 1) || !s.wire.data) continue;
    if (map_one_col(s, job.C) || !wire_by_four(s.wire, s.offsets, job.C)) return false;
  }
  return wire_by_four(job.out.wire, job.out.offsets, job.C);
}

/* run a map whose output has every row and column */
template <class F>
static mica_status map_run_each(const char *name, const map_job &job, const F &f, void *stream) {
  if (!job.out.wire.data) return MICA_OK;
  const bool four = map_by_four(job);
  dim3       grid(micak_blocks(job.out.rows * (four ? job.C / 4 : job.C), MAP_THREADS), micak_task_blocks(job.B));
  return micak_launch(name, four ? map_each<F, 4> : map_each<F, 1>, grid, dim3(MAP_THREADS), 0, stream, job, f);
}
/* run any map */
template <class F>
static mica_status map_run(const char *name, const map_job &job, const F &f, void *stream) {
  const bool row = map_one_row(job.out, job.R), col = map_one_col(job.out, job.C);
  if (!row && !col) return map_run_each(name, job, f, stream);
  if (!job.out.wire.data) return MICA_OK;
  const int mode = !col ? MAP_SUM_ROWS : !row ? MAP_SUM_COLUMNS : MAP_SUM_ALL;
  dim3 grid(mode == MAP_SUM_ROWS ? micak_blocks(job.C, 32) : mode == MAP_SUM_COLUMNS ? micak_blocks(job.out.rows, 8) : 1,
            micak_task_blocks(job.B));
  return micak_launch(name, map_sum<F>, grid, dim3(MAP_THREADS), 0, stream, job, f, mode);
}

#endif
