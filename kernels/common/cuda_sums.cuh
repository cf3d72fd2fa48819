/* cuda_sums.cuh: outputs without rows, such as parameters' cotangents, that sum the tasks of a slot. two stages, no
 * atomics: `chunk` tasks from a slot's first on are one part, in task order; a slot of several parts keeps them in
 * scratch, and 8 lanes over the parts and a tree add them up. bits depend on the tasks of the slot alone. */
#ifndef MICA_KERNELS_COMMON_CUDA_SUMS_CUH
#define MICA_KERNELS_COMMON_CUDA_SUMS_CUH

#include "common/cuda.h"
#include "common/cuda_plane.cuh"

enum { SUM_THREADS = 256, SUM_LANES = 8 };

struct sum_part {
  int64_t begin, end;                        /* its tasks */
  int64_t place;                             /* in scratch; -1: it is all of its slot */
};

PLANE_DEVICE int64_t sum_place(int64_t begin, int64_t first, int chunk) {
  return 2 * (begin / chunk) + (begin == first);
}

/* the n-th part; a whole block calls. 0: none begins there, -1: nor after it */
PLANE_DEVICE int sum_chunk(const plane &w, int64_t tasks, int64_t n, sum_part &part, int chunk = SUM_CHUNK) {
  const bool    together = !w.slot && !w.offsets && w.task == 0;
  const int64_t b = together ? n * chunk : n;
  if (b >= tasks) return -1;
  if (!w.data || (w.slot && w.slot[b] < 0)) return 0;
  const int64_t rank = plane_rank(w, b);
  if (rank % chunk) return 0;
  part.begin = b;
  part.end = b + 1;
  while (part.end < tasks && part.end < b + chunk && plane_follows(w, part.end)) part.end++;
  const bool whole = rank == 0 && (part.end == tasks || !plane_follows(w, part.end));
  part.place = whole ? -1 : sum_place(b, b - rank, chunk);
  return 1;
}

/* element `cell` of the `cells` of a part; `at` is its place in the task */
PLANE_DEVICE void sum_put(const plane &w, const sum_part &part, double *scratch, int64_t cell, int64_t cells,
                          int64_t at, double value) {
  if (!w.data) return;
  if (part.place < 0) plane_put(w, plane_task(w, part.begin), at, value, w.add);
  else scratch[part.place * cells + cell] = value;
}

/* parts of slots that have several: `n` cells from cell `from` of `cells`, as rows of C columns */
template <int LANES>
static __global__ void __launch_bounds__(SUM_THREADS, 4) /* without the 4 sm_90a spills */
    sum_parts(const __grid_constant__ plane w, const int64_t tasks, const int32_t C, const int64_t n,
              const int64_t from, const int64_t cells, const int chunk, const double *scratch) {
  __shared__ double partial[SUM_THREADS];
  const int t = (int)threadIdx.x, lane = t / 32;
  for (int64_t b = blockIdx.y; b < tasks; b += gridDim.y) {
    if (!plane_leads(w, b)) continue;
    const int32_t *slot = w.slot;
    if (b + chunk >= tasks || (slot && slot[b + chunk] != slot[b]) || (!slot && (w.offsets || w.task))) continue;
    char         *out = plane_task(w, b);
    const int64_t own = w.offsets ? (int64_t)(w.offsets[b + 1] - w.offsets[b]) * C : n; /* packed: its own rows */
    for (int64_t first = (int64_t)blockIdx.x * 32; first < own; first += (int64_t)gridDim.x * 32) {
      const int64_t cell = first + t % 32;
      double        sum = 0;
      for (int64_t k = b + (int64_t)lane * chunk; cell < own && k < tasks && (!slot || slot[k] == slot[b]);
           k += (int64_t)LANES * chunk)
        sum += scratch[sum_place(k, b, chunk) * cells + from + cell];
      partial[t] = sum;
      __syncthreads();
      for (int half = SUM_THREADS / 2; half >= 32; half /= 2) {
        if (t < half) partial[t] += partial[t + half];
        __syncthreads();
      }
      if (t < 32 && cell < own) {
        int64_t r = cell / C, c = cell - r * C;
        plane_put(w, out, r * w.row + c * w.col, partial[t], w.add);
      }
      __syncthreads();
    }
  }
}

/* blocks of the first stage in y */
static inline unsigned sum_chunks(const plane &w, int64_t tasks, int chunk = SUM_CHUNK) {
  return micak_task_blocks(plane_together(w) ? (tasks + chunk - 1) / chunk : tasks);
}
/* second stage, where there may be something left */
static inline mica_status sum_finish(const char *name, const plane &w, int64_t tasks, int64_t n, int64_t from,
                                     int64_t cells, int64_t C, const mica_exec *exec, int chunk = SUM_CHUNK) {
  if (!w.data || plane_apart(w) || tasks <= chunk) return MICA_OK;
  return micak_launch(name, sum_parts<SUM_LANES>,
                      dim3(micak_blocks(n, 32), plane_together(w) ? 1 : micak_task_blocks(tasks)), dim3(SUM_THREADS), 0,
                      exec->stream, w, tasks, (int32_t)C, n, from, cells, chunk,
                      static_cast<const double *>(exec->scratch));
}

#endif
