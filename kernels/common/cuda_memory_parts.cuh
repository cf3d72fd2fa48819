/* cuda_memory_parts.cuh: sums of what more than one team, task or launch of cuda_memory.cuh has left in scratch, in order */
#ifndef MICA_KERNELS_COMMON_CUDA_MEMORY_PARTS_CUH
#define MICA_KERNELS_COMMON_CUDA_MEMORY_PARTS_CUH

#include "common/cuda_memory.cuh"

/* element (h, r, c) of a wire from parts [(b, h)][slice][r][c], rows of `ld` */
struct mem_parts {
  mica_wire      w;
  const int32_t *offsets;
  const float   *from;
  int64_t        B, head, row, col;          /* strides of the wire */
  int32_t        H, rows, columns, slices, ld;
  int32_t        shortest = 0, longest = MEM_LONGEST; /* of packed rows: tasks of other lengths are left alone */
};
template <int THREADS>
static __global__ void __launch_bounds__(THREADS) memory_gather(const __grid_constant__ mem_parts p) {
  for (int64_t first = blockIdx.y; first < p.B; first += gridDim.y) {
    if (wire_follows(p.w, p.offsets, first) || wire_place(p.w, p.offsets, first) < 0) continue;
    const int64_t rows = p.offsets ? wire_rows(p.offsets, first, p.rows) : p.rows;
    if (p.offsets && (rows < p.shortest || rows > p.longest)) continue;
    for (int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x; n < p.H * rows * p.columns;
         n += (int64_t)gridDim.x * THREADS) {
      const int64_t c = n % p.columns, r = n / p.columns % rows, h = n / p.columns / rows;
      const int64_t at = wire_place(p.w, p.offsets, first) + h * p.head + r * p.row + c * p.col;
      for (int64_t b = first; wire_in_group(p.w, p.offsets, first, b, p.B); b++) {
        float x = 0;
        for (int s = 0; s < p.slices; s++) x += p.from[(((b * p.H + h) * p.slices + s) * p.rows + r) * p.ld + c];
        wire_put(p.w, at, x, mem_adds(p.w, p.offsets, b));
      }
    }
  }
}
static inline mica_status mem_run_gather(const char *name, const mem_parts &p, void *stream) {
  if (!p.w.data || !p.from) return MICA_OK;
  return micak_launch(name, memory_gather<MEM_THREADS>,
                      dim3(micak_blocks((int64_t)p.H * p.rows * p.columns, MEM_THREADS), micak_task_blocks(p.B)),
                      dim3(MEM_THREADS), 0, stream, p);
}
/* rows (K,.) of a state, or of its cotangent, kept by task, to its wire */
static inline mica_status mem_gather_state(const char *name, const mem_job &job, const mica_wire &w, const float *from,
                                           int32_t columns, int64_t col, void *stream) {
  const mem_parts p = { w, NULL, from, job.B, w.stride[0], w.stride[1], col, job.H, job.K, columns, 1, job.row };
  return mem_run_gather(name, p, stream);
}
/* state and sum of keys, by the last launch */
static inline mica_status mem_gather_states(const char *name, const mem_job &job, const mica_wire &state,
                                            const mica_wire &norm, void *stream) {
  if (!job.state || job.longest < MEM_LONGEST) return MICA_OK;
  const mica_status status = mem_gather_state(name, job, state, job.state, job.V, state.stride[2], stream);
  return status < 0 ? status : mem_gather_state(name, job, norm, job.state + job.V, 1, 0, stream);
}

#endif
