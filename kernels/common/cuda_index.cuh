/* cuda_index.cuh: rows of a table by index (gather, embedding), and rows added to a table by index.
 *
 * an index out of range cannot be told by a status, as nothing is read back: a row that is pulled is NaN, one that is
 * pushed is left out. sums into a table: a block has 8 rows of the table and 128 columns, its 8 warps take pieces of 32
 * rows in turn, each in order, and are added up in order; tasks of a slot in parts (cuda_sums.cuh). no atomics, no
 * sorting: the indices are read once for every 8 rows of the table. */
#ifndef MICA_KERNELS_COMMON_CUDA_INDEX_CUH
#define MICA_KERNELS_COMMON_CUDA_INDEX_CUH

#include "common/cuda_sums.cuh"

enum { INDEX_THREADS = 256, INDEX_WARPS = 8, INDEX_ROWS = 8, INDEX_COLUMNS = 128 };

struct index_job {
  int64_t        B;
  int32_t        R, V, C;                    /* longest rows, table rows, columns */
  const int32_t *offsets, *table_offsets;    /* of index's rows, of the table's */
  int32_t        none, four, four_out;       /* is index -1 none, no error? are columns 16 bytes at a time? */
  plane          index, in, out;
};

PLANE_DEVICE int64_t index_at(const index_job &job, const char *index, int64_t r) {
  return index ? plane_index(job.index, index, r * job.index.row) : 0;
}

/* out[r] = in[index[r]]; blocks of (items of a task, tasks), N columns an item */
template <int N>
static __global__ void __launch_bounds__(INDEX_THREADS, 2) index_pull(const __grid_constant__ index_job job) {
  const plane   &w = job.out;
  const uint32_t wide = (uint32_t)job.C / N;
  for (int64_t b = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; b < job.B; b += (int64_t)gridDim.y * blockDim.y) {
    if (!plane_leads(w, b)) continue;
    char          *out = plane_task(w, b);
    const uint32_t items = (uint32_t)wire_rows(job.offsets, b, job.R) * wide;
    for (uint32_t n = blockIdx.x * blockDim.x + threadIdx.x; n < items; n += gridDim.x * blockDim.x) {
      const int32_t r = (int32_t)(n / wide), c = (int32_t)(n - (uint32_t)r * wide) * N;
      const int64_t at = (int64_t)r * w.row + (int64_t)c * w.col;
      for (int64_t k = b; k == b || (k < job.B && plane_follows(w, k)); k++) {
        const char   *in = plane_task(job.in, k);
        const int64_t v = index_at(job, plane_task(job.index, k), r);
        const bool    bad = v >= wire_rows(job.table_offsets, k, job.V) || v < (job.none ? -1 : 0);
        float         x[N];
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = bad ? NAN : 0.0f;
        const int64_t from = v * job.in.row + (int64_t)c * job.in.col;
        if constexpr (N == 4) {
          if (!bad && in && v >= 0) plane_get_4(job.in, in, from, x);
          plane_put_4(w, out, at, x, w.add || k > b);
        } else {
          if (!bad && in && v >= 0) x[0] = plane_get(job.in, in, from);
          plane_put(w, out, at, (double)x[0], w.add || k > b);
        }
      }
    }
  }
}

/* out[v] = the sum of the rows in[r] with index[r] = v */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) index_push(const __grid_constant__ index_job job, const int chunk,
                                                                double *scratch) {
  __shared__ float4 shared[INDEX_WARPS][INDEX_ROWS][32];
  const int      lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const uint32_t tiles = (uint32_t)(job.C + INDEX_COLUMNS - 1) / INDEX_COLUMNS;
  const int32_t  v0 = (int32_t)(blockIdx.x / tiles) * INDEX_ROWS, c0 = (int32_t)(blockIdx.x % tiles) * INDEX_COLUMNS;
  const int32_t  first = c0 + (job.four ? 4 * lane : lane), gap = job.four ? 1 : 32;
  for (int64_t n = blockIdx.y;; n += gridDim.y) {
    sum_part  part;
    const int found = sum_chunk(job.out, job.B, n, part, chunk);
    if (found < 0) return;
    if (!found) continue;
    float sum[INDEX_ROWS][4] = {};
    for (int64_t k = part.begin; k < part.end; k++) {
      const int32_t rows = (int32_t)wire_rows(job.offsets, k, job.R);
      const char   *index = plane_task(job.index, k), *in = plane_task(job.in, k);
      if (!in) continue;
      /* pieces of neighbouring tasks go to different warps */
      for (int32_t r0 = 32 * ((warp - (int32_t)(k - part.begin)) & (INDEX_WARPS - 1)); r0 < rows;
           r0 += 32 * INDEX_WARPS) {
        const int64_t v = r0 + lane < rows ? index_at(job, index, r0 + lane) - v0 : -1;
        if (!__any_sync(~0u, v >= 0 && v < INDEX_ROWS)) continue;
#pragma unroll
        for (int j = 0; j < INDEX_ROWS; j++)
          for (uint32_t hits = __ballot_sync(~0u, v == j); hits; hits &= hits - 1) {
            const int64_t row = (int64_t)(r0 + __ffs((int)hits) - 1) * job.in.row;
            if (job.four) {
              float x[4];
              if (first >= job.C) continue;
              plane_get_4(job.in, in, row + first, x);
#pragma unroll
              for (int i = 0; i < 4; i++) sum[j][i] += x[i];
            } else {
#pragma unroll
              for (int i = 0; i < 4; i++)
                if (first + i * gap < job.C)
                  sum[j][i] += plane_get(job.in, in, row + (int64_t)(first + i * gap) * job.in.col);
            }
          }
      }
    }
    /* each warp adds up one row of the table */
#pragma unroll
    for (int j = 0; j < INDEX_ROWS; j++)
      shared[warp][j][lane] = make_float4(sum[j][0], sum[j][1], sum[j][2], sum[j][3]);
    __syncthreads();
    float x[4] = {};
#pragma unroll
    for (int k = 0; k < INDEX_WARPS; k++) {
      const float4 o = shared[k][warp][lane];
      x[0] += o.x, x[1] += o.y, x[2] += o.z, x[3] += o.w;
    }
    const int64_t v = v0 + warp, at = v * job.out.row + (int64_t)first * job.out.col, cell = v * job.C + first;
    if (v < wire_rows(job.table_offsets, part.begin, job.V)) {
      if (job.four && part.place < 0 && job.four_out) {
        if (first < job.C) plane_put_4(job.out, plane_task(job.out, part.begin), at, x, job.out.add);
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (first + i * gap < job.C)
            sum_put(job.out, part, scratch, cell + i * gap, (int64_t)job.V * job.C, at + (int64_t)i * gap * job.out.col,
                    (double)x[i]);
      }
    }
    __syncthreads();
  }
}

/* ---- launchers ---- */

static inline mica_status index_check(const char *name, const index_job &job) {
  const plane all[] = { job.index, job.in, job.out };
  mica_status status = plane_check(name, all, 3);
  return status < 0 ? status : plane_check_task(name, job.R > job.V ? job.R : job.V, job.C);
}
static inline mica_status index_run_pull(const char *name, const index_job &job, void *stream) {
  if (!job.out.data || job.B <= 0) return MICA_OK;
  mica_status status = index_check(name, job);
  if (status < 0) return status;
  const bool     four = job.C % 4 == 0 && plane_by_four(job.in) && plane_by_four(job.out);
  const int64_t  items = (int64_t)job.R * job.C / (four ? 4 : 1);
  const unsigned wide = plane_power(items, 8, INDEX_THREADS), tasks = INDEX_THREADS / wide;
  return micak_launch(name, four ? index_pull<4> : index_pull<1>,
                      dim3(micak_blocks(items, wide), micak_task_blocks((job.B + tasks - 1) / tasks)),
                      dim3(wide, tasks), 0, stream, job);
}
static inline mica_status index_run_push(const char *name, index_job job, const mica_exec *exec) {
  if (!job.out.data || job.B <= 0) return MICA_OK;
  mica_status status = index_check(name, job);
  if (status < 0) return status;
  const int chunk = (int)micak_index_chunk(job.V);
  job.four = job.C % 4 == 0 && plane_by_four(job.in), job.four_out = plane_by_four(job.out);
  const int64_t blocks = ((int64_t)job.V + INDEX_ROWS - 1) / INDEX_ROWS * ((job.C + INDEX_COLUMNS - 1) / INDEX_COLUMNS);
  status =
      micak_launch(name, index_push<INDEX_THREADS>, dim3(micak_blocks(blocks, 1), sum_chunks(job.out, job.B, chunk)),
                   dim3(INDEX_THREADS), 0, exec->stream, job, chunk, static_cast<double *>(exec->scratch));
  return status < 0
             ? status
             : sum_finish(name, job.out, job.B, (int64_t)job.V * job.C, 0, (int64_t)job.V * job.C, job.C, exec, chunk);
}

#endif
