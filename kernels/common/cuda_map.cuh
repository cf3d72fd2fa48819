/* cuda_map.cuh: inputs mapped to one output (or two of equal slots), element by element, with broadcasting, as
 * common/map.h does on the CPU. where the output lacks rows or columns, or its tasks share a slot, results are summed
 * in double, in a tree that the task's shape and its place in the slot fix:
 *   sums over rows: lanes over the rows of SUM_CHUNK tasks, one after another, then a tree; then chunks (cuda_sums.cuh)
 *   sums over columns: lanes over columns, tasks in order
 *   sums over tasks alone: 8 lanes over the tasks, then a tree
 *
 * F is a small struct with
 *   enum { INPUTS, OUTPUTS };
 *   template <int N> __device__ void run(const float (&in)[INPUTS + 1][N], float (&out)[OUTPUTS][N]) const;
 * in[INPUTS] is 1 / count of a map that has `count`, else zeros. */
#ifndef MICA_KERNELS_COMMON_CUDA_MAP_CUH
#define MICA_KERNELS_COMMON_CUDA_MAP_CUH

#include "common/cuda_sums.cuh"

enum { MAP_THREADS = 256, MAP_LANES = 8, MAP_COUNT_ROWS = 1, MAP_COUNT_COLUMNS = 2 };
enum { MAP_ROWS, MAP_COLUMNS, MAP_ALL };     /* what is summed */

template <class F>
struct map_job {
  int64_t        B;
  int32_t        R, C;
  const int32_t *offsets;                    /* of the map's rows */
  int32_t        count;                      /* MAP_COUNT_* */
  int32_t        out_rows, out_cols;
  plane          in[F::INPUTS], out[F::OUTPUTS];
};

/* a wire of a port of `rows` x `cols` in the frame of a map of R x C */
static inline plane map_side(const mica_wire &w, const int32_t *offsets, int64_t rows, int64_t cols, int64_t R,
                             int64_t C) {
  plane p = plane_rows(w, offsets);
  if (rows == 1 && R != 1 && !offsets) p.row = 0;
  if (cols == 1 && C != 1) p.col = 0;
  else if (C == 1) p.col = 1;
  return p;
}

/* ---- kernels ---- */

template <class F>
struct map_task {
  const char *at[F::INPUTS];
  float       share;
};

template <class F>
PLANE_DEVICE void map_enter(const map_job<F> &job, int64_t b, map_task<F> &task) {
#pragma unroll
  for (int k = 0; k < F::INPUTS; k++) task.at[k] = plane_task(job.in[k], b);
  task.share = 0.0f;
  if (job.count) {
    int64_t n = (job.count & MAP_COUNT_ROWS ? wire_rows(job.offsets, b, job.R) : 1) *
                (job.count & MAP_COUNT_COLUMNS ? job.C : 1);
    task.share = n ? 1.0f / (float)n : 0.0f;
  }
}

/* numbers, or the integers of a mask as 0 and 1 */
PLANE_DEVICE float map_load(const plane &p, const char *at, int64_t i) {
  return p.dtype <= MICA_BF16 ? plane_get(p, at, i) : plane_index(p, at, i) != 0 ? 1.0f : 0.0f;
}

/* the results of N columns from column c of row r */
template <class F, int N>
PLANE_DEVICE void map_value(const map_job<F> &job, const F &f, const map_task<F> &task, int32_t r, int32_t c,
                            float (&out)[F::OUTPUTS][N]) {
  float in[F::INPUTS + 1][N];
#pragma unroll
  for (int k = 0; k < F::INPUTS; k++) {
    const plane &p = job.in[k];
    const char  *at = task.at[k];
#pragma unroll
    for (int i = 0; i < N; i++) in[k][i] = 0.0f;
    if (!at) continue;
    int64_t first = (int64_t)r * p.row + (int64_t)c * p.col;
    if constexpr (N == 4) {
      if (p.col == 1 && p.dtype <= MICA_BF16) {
        plane_get_4(p, at, first, in[k]);
      } else {
#pragma unroll
        for (int i = 0; i < N; i++) in[k][i] = map_load(p, at, first + i * p.col);
      }
    } else {
      in[k][0] = map_load(p, at, first);
    }
  }
#pragma unroll
  for (int i = 0; i < N; i++) in[F::INPUTS][i] = task.share;
  f.run(in, out);
}

/* every task has its own place, and the output every row and column: blocks of (items of a task, tasks), N columns an
 * item */
template <class F, int N>
static __global__ void __launch_bounds__(MAP_THREADS, 2) map_each(const __grid_constant__ map_job<F> job, const F f) {
  const plane   &w = job.out[0];
  const uint32_t wide = (uint32_t)job.C / N;
  for (int64_t b = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; b < job.B; b += (int64_t)gridDim.y * blockDim.y) {
    char          *out = plane_task(w, b);
    const uint32_t items = (uint32_t)wire_rows(w.offsets, b, job.out_rows) * wide;
    const int32_t  rows = (int32_t)wire_rows(job.offsets, b, job.R);
    map_task<F>    task;
    map_enter(job, b, task);
    for (uint32_t n = blockIdx.x * blockDim.x + threadIdx.x; n < items; n += gridDim.x * blockDim.x) {
      int32_t r = (int32_t)(n / wide), c = (int32_t)(n - (uint32_t)r * wide) * N;
      float   value[F::OUTPUTS][N] = {};
      if (r < rows) map_value<F, N>(job, f, task, r, c, value);
      int64_t at = (int64_t)r * w.row + (int64_t)c * w.col;
      if constexpr (N == 4) plane_put_4(w, out, at, value[0], w.add);
      else plane_put(w, out, at, (double)value[0][0], w.add);
    }
  }
}

/* as map_each, where tasks may share a slot. a block has `each` items: 256, 1 a thread; of slots with several tasks 32
 * at a time, by lanes over the tasks */
template <class F>
static __global__ void __launch_bounds__(MAP_THREADS, 2) map_tasks(const __grid_constant__ map_job<F> job, const F f,
                                                                const int each) {
  __shared__ double partial[MAP_THREADS];
  const plane   &w = job.out[0];
  const uint32_t C = (uint32_t)job.C;
  const int      t = (int)threadIdx.x;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    if (!plane_leads(w, b)) continue;
    char          *out = plane_task(w, b);
    const uint32_t items = (uint32_t)wire_rows(w.offsets, b, job.out_rows) * C;
    const bool     alone = b + 1 == job.B || !plane_follows(w, b + 1);
    map_task<F>    task;
    float          value[F::OUTPUTS][1];
    for (uint32_t first = blockIdx.x * each; first < items; first += gridDim.x * each)
      for (uint32_t part = 0; part < (uint32_t)each; part += alone ? each : 32) {
        const uint32_t n = first + part + (alone ? t : t % 32), r = n / C, c = n - r * C;
        const bool     inside = n < items && (!alone || t < each);
        double         sum = 0;
        if (inside)
          for (int64_t k = b + (alone ? 0 : t / 32);
               k < job.B && (k == b || (!alone && (!w.slot || w.slot[k] == w.slot[b]))); k += MAP_LANES) {
            if (r >= wire_rows(job.offsets, k, job.R)) continue;
            map_enter(job, k, task);
            map_value<F, 1>(job, f, task, (int32_t)r, (int32_t)c, value);
            sum += (double)value[0][0];
            if (alone) break;
          }
        const int64_t at = (int64_t)r * w.row + (int64_t)c * w.col;
        if (alone) {
          if (inside) plane_put(w, out, at, sum, w.add);
          continue;
        }
        partial[t] = sum;
        __syncthreads();
        for (int half = MAP_THREADS / 2; half >= 32; half /= 2) {
          if (t < half) partial[t] += partial[t + half];
          __syncthreads();
        }
        if (t < 32 && inside) plane_put(w, out, at, partial[t], w.add);
        __syncthreads();
      }
  }
}

/* an output (B,R,1): a team of lanes a row */
template <class F>
PLANE_DEVICE void map_sum_columns(const map_job<F> &job, const F &f) {
  const plane   &w = job.out[0];
  const unsigned lanes = blockDim.x, lane = threadIdx.x;
  const unsigned mask = (lanes == 32 ? ~0u : (1u << lanes) - 1) << (threadIdx.y * lanes % 32);
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    if (!plane_leads(w, b)) continue;
    char         *out = plane_task(w, b);
    const int32_t rows = (int32_t)wire_rows(w.offsets, b, job.out_rows);
    for (int32_t r = (int32_t)(blockIdx.x * blockDim.y + threadIdx.y); r < rows;
         r += (int32_t)(gridDim.x * blockDim.y)) {
      double sum = 0;
      for (int64_t k = b; k == b || (k < job.B && plane_follows(w, k)); k++) {
        map_task<F> task;
        float       value[F::OUTPUTS][1];
        double      part = 0;
        if (r < wire_rows(job.offsets, k, job.R)) {
          map_enter(job, k, task);
          for (int32_t c = (int32_t)lane; c < job.C; c += (int32_t)lanes) {
            map_value<F, 1>(job, f, task, r, c, value);
            part += (double)value[0][0];
          }
        }
        for (unsigned step = lanes / 2; step; step /= 2) part += __shfl_xor_sync(mask, part, step);
        sum += part;
      }
      if (lane == 0) plane_put(w, out, (int64_t)r * w.row, sum, w.add);
    }
  }
}

/* an output (B,1,C) or (B,1,1): blocks of (N columns, lanes over the rows) for a chunk of tasks; in MAP_ALL lanes over
 * all elements. the rows of a chunk are counted through, so that short tasks keep all lanes busy */
template <class F, int N>
static __global__ void __launch_bounds__(MAP_THREADS, F::INPUTS > 7 ? 1 : 2)
    map_sum(const __grid_constant__ map_job<F> job, const F f, const int mode, double *scratch) {
  __shared__ double partial[MAP_THREADS];
  if (mode == MAP_COLUMNS) {
    map_sum_columns(job, f);
    return;
  }
  const int     column = (int)threadIdx.x, lane = (int)threadIdx.y, lanes = (int)blockDim.y;
  const int     t = lane * (int)blockDim.x + column;
  const int32_t cells = mode == MAP_ALL ? 1 : job.C;
  for (int64_t n = blockIdx.y;; n += gridDim.y) {
    sum_part part;
    int found = sum_chunk(F::OUTPUTS == 1 || job.out[0].data ? job.out[0] : job.out[F::OUTPUTS - 1], job.B, n, part);
    if (found < 0) return;
    if (!found) continue;
    for (int32_t first = (int32_t)(blockIdx.x * blockDim.x) * N; first < cells;
         first += (int32_t)(gridDim.x * blockDim.x) * N) {
      const int32_t c = first + column * N;
      double        sum[F::OUTPUTS][N] = {};
      uint32_t      begin = 0;               /* elements of the chunk before task k */
      for (int64_t k = part.begin; c < cells && k < part.end; k++) {
        const uint32_t rows = (uint32_t)wire_rows(job.offsets, k, job.R), all = mode == MAP_ALL ? rows * job.C : rows;
        uint32_t       i = ((uint32_t)lane - begin) & (uint32_t)(lanes - 1);
        begin += all;
        if (i >= all) continue;
        map_task<F> task;
        map_enter(job, k, task);
        for (; i < all; i += lanes) {
          float    value[F::OUTPUTS][N];
          uint32_t r = mode == MAP_ALL ? i / job.C : i, at = mode == MAP_ALL ? i - r * job.C : c;
          map_value<F, N>(job, f, task, (int32_t)r, (int32_t)at, value);
#pragma unroll
          for (int o = 0; o < F::OUTPUTS; o++)
#pragma unroll
            for (int j = 0; j < N; j++) sum[o][j] += (double)value[o][j];
        }
      }
#pragma unroll
      for (int o = 0; o < F::OUTPUTS; o++)
#pragma unroll
        for (int j = 0; j < N; j++) {
          partial[t] = sum[o][j];
          __syncthreads();
          for (int half = lanes / 2; half; half /= 2) {
            if (lane < half) partial[t] += partial[t + half * (int)blockDim.x];
            __syncthreads();
          }
          if (lane == 0 && c < cells)
            sum_put(job.out[o], part, scratch, o * cells + c + j, F::OUTPUTS * cells, (int64_t)(c + j) * job.out[o].col,
                    partial[t]);
          __syncthreads();
        }
    }
  }
}

/* ---- launchers ---- */

template <class F>
static mica_status map_check(const char *name, const map_job<F> &job) {
  mica_status status = plane_check(name, job.in, F::INPUTS);
  if (status >= 0) status = plane_check(name, job.out, F::OUTPUTS);
  return status < 0 ? status : plane_check_task(name, job.R > job.out_rows ? job.R : job.out_rows, job.C);
}

/* rows without gaps are one long row */
template <class F>
static void map_unbroken(map_job<F> &job) {
  if (job.offsets || job.count || job.out_rows != job.R || job.R == 1) return;
  const plane &w = job.out[0];
  bool         dense = w.row == job.C && w.col == 1 && !w.offsets;
  for (int k = 0; k < F::INPUTS && dense; k++)
    dense = !job.in[k].data || (job.in[k].row == job.C && job.in[k].col == 1 && !job.in[k].offsets);
  if (dense) job.C *= job.R, job.R = job.out_rows = 1;
  for (int k = 0; k < F::INPUTS && dense; k++) job.in[k].row = 0;
  if (dense) job.out[0].row = 0;
}
template <class F>
static bool map_by_four(const map_job<F> &job, bool out = true) {
  for (int k = 0; k < F::INPUTS; k++) {
    const plane &p = job.in[k];
    if (p.data && p.col == 1 && p.dtype <= MICA_BF16 && !plane_by_four(p)) return false;
  }
  return job.C % 4 == 0 && (!out || plane_by_four(job.out[0]));
}

/* run a map whose output has every row and column */
template <class F>
static mica_status map_run_each(const char *name, map_job<F> job, const F &f, void *stream) {
  if (!job.out[0].data || job.B <= 0) return MICA_OK;
  mica_status status = map_check(name, job);
  if (status < 0) return status;
  map_unbroken(job);
  const int64_t items = (int64_t)job.out_rows * job.C;
  if (!plane_apart(job.out[0])) {
    const bool together = plane_together(job.out[0]);
    const int  each = together ? 32 : MAP_THREADS;
    return micak_launch(name, map_tasks<F>, dim3(micak_blocks(items, each), together ? 1 : micak_task_blocks(job.B)),
                        dim3(MAP_THREADS), 0, stream, job, f, each);
  }
  const bool     four = map_by_four(job);
  const int64_t  threads = four ? items / 4 : items;
  const unsigned wide = plane_power(threads, 8, MAP_THREADS);
  const unsigned tasks = MAP_THREADS / wide;
  return micak_launch(name, four ? map_each<F, 4> : map_each<F, 1>,
                      dim3(micak_blocks(threads, wide), micak_task_blocks((job.B + tasks - 1) / tasks)),
                      dim3(wide, tasks), 0, stream, job, f);
}

/* run a map whose output lacks rows, columns or both (MAP_*); scratch as micak_sum_scratch (common/cuda.h) of the
 * outputs says. with two outputs either may be absent, or both have the same slots */
template <class F>
static mica_status map_run_sum(const char *name, const map_job<F> &job, const F &f, int mode, const mica_exec *exec) {
  const plane &w = F::OUTPUTS == 1 || job.out[0].data ? job.out[0] : job.out[F::OUTPUTS - 1];
  if (!w.data || job.B <= 0) return MICA_OK;
  mica_status status = map_check(name, job);
  if (status < 0) return status;
  double *scratch = static_cast<double *>(exec->scratch);
  if (mode == MAP_COLUMNS) {
    const unsigned lanes = plane_power(job.C, 1, 32), rows = MAP_THREADS / lanes;
    return micak_launch(name, map_sum<F, 1>,
                        dim3(micak_blocks(job.out_rows, rows), plane_together(w) ? 1 : micak_task_blocks(job.B)),
                        dim3(lanes, rows), 0, exec->stream, job, f, mode, scratch);
  }
  const int32_t  cells = mode == MAP_ALL ? 1 : job.C;
  const bool     four = mode == MAP_ROWS && map_by_four(job, false);
  /* lanes by C alone: bits must not depend on alignment */
  const unsigned wide = mode == MAP_ROWS && job.C % 4 == 0 ? plane_power(cells / 4, 1, 8) : plane_power(cells, 1, 32);
  status = micak_launch(name, four ? map_sum<F, 4> : map_sum<F, 1>,
                        dim3(micak_blocks(four ? cells / 4 : cells, wide), sum_chunks(w, job.B)),
                        dim3(wide, MAP_THREADS / wide), 0, exec->stream, job, f, mode, scratch);
  for (int o = 0; o < F::OUTPUTS && status >= 0; o++)
    status = sum_finish(name, job.out[o], job.B, cells, o * cells, F::OUTPUTS * cells, cells, exec);
  return status;
}
/* run any map */
template <class F>
static mica_status map_run(const char *name, const map_job<F> &job, const F &f, const mica_exec *exec) {
  const bool row = job.out_rows == 1 && job.R != 1 && !job.out[0].offsets, col = job.out_cols == 1 && job.C != 1;
  if (!row && !col) return map_run_each(name, job, f, exec->stream);
  return map_run_sum(name, job, f, !col ? MAP_ROWS : !row ? MAP_COLUMNS : MAP_ALL, exec);
}

#endif
