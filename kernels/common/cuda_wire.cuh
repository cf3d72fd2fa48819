/* cuda_wire.cuh: wires and ports as device code sees them. slots and offsets are device data: launchers must not look
 * at them, kernels find tasks and lengths here. no op logic.
 *
 * an output wire sums the tasks of equal slot in task order: the block of the first task of a slot does all of them
 *   if (wire_follows(w, offsets, b)) return;
 *   for (k = b; wire_in_group(w, offsets, b, k, B); k++) ...
 * so results need no atomics and depend neither on B nor on the order of blocks. */
#ifndef MICA_KERNELS_COMMON_CUDA_WIRE_CUH
#define MICA_KERNELS_COMMON_CUDA_WIRE_CUH

#include "common/cuda_launch.h"

__device__ __forceinline__ int64_t wire_slot(const mica_wire &w, int64_t b) { return w.slot ? w.slot[b] : b; }

/* elements from data to task b; -1: the wire is absent or the slot is -1 (reads zero, writes nothing) */
__device__ __forceinline__ int64_t wire_place(const mica_wire &w, const int32_t *offsets, int64_t b) {
  if (!w.data) return -1;
  int64_t s = wire_slot(w, b);
  if (s < 0) return -1;
  return offsets ? offsets[s] * w.stride[0] : s * w.task_stride;
}
/* where task b of an f32 wire begins; NULL as above */
__device__ __forceinline__ float *wire_task(const mica_wire &w, const int32_t *offsets, int64_t b) {
  int64_t place = wire_place(w, offsets, b);
  return place < 0 ? NULL : static_cast<float *>(w.data) + place;
}
/* rows of task b, the size of whose longest is given */
__device__ __forceinline__ int64_t wire_rows(const int32_t *offsets, int64_t b, int64_t longest) {
  return offsets ? offsets[b + 1] - offsets[b] : longest;
}
/* does task b write the same place as the one before? */
__device__ __forceinline__ bool wire_follows(const mica_wire &w, const int32_t *offsets, int64_t b) {
  if (b == 0) return false;
  if (!w.slot) return !offsets && w.task_stride == 0;
  return w.slot[b] == w.slot[b - 1];
}
/* is task k >= b still of the slot that task b is the first of? */
__device__ __forceinline__ bool wire_in_group(const mica_wire &w, const int32_t *offsets, int64_t b, int64_t k,
                                              int64_t tasks) {
  return k < tasks && (k == b || wire_follows(w, offsets, k));
}
/* an element of an index port, from the port's task place */
__device__ __forceinline__ int64_t wire_index(const mica_wire &w, int64_t at) {
  if (w.dtype == MICA_I32) return static_cast<const int32_t *>(w.data)[at];
  if (w.dtype == MICA_I64) return static_cast<const int64_t *>(w.data)[at];
  return static_cast<const uint8_t *>(w.data)[at];
}
/* overwrite or add, as the wire says */
__device__ __forceinline__ void wire_store(const mica_wire &w, float *at, double value) {
  *at = w.flags & MICA_ADD ? (float)((double)*at + value) : (float)value;
}

/* element `at` of an f32 or bf16 wire; writing rounds to nearest even */
__device__ __forceinline__ float wire_get(const mica_wire &w, int64_t at) {
  if (w.dtype == MICA_F32) return static_cast<const float *>(w.data)[at];
  return __uint_as_float((uint32_t)static_cast<const uint16_t *>(w.data)[at] << 16);
}
__device__ __forceinline__ void wire_put(const mica_wire &w, int64_t at, float value, bool add) {
  if (add) value += wire_get(w, at);
  uint32_t u = __float_as_uint(value);
  if (w.dtype == MICA_F32) static_cast<float *>(w.data)[at] = value;
  else
    static_cast<uint16_t *>(w.data)[at] =
        (uint16_t)(value != value ? u >> 16 | 0x40u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* host: may this wire be read and written 16 bytes at a time along rows of `columns`? */
static inline bool wire_by_four(const mica_wire &w, const int32_t *offsets, int64_t columns) {
  return w.dtype == MICA_F32 && w.stride[1] == 1 && columns % 4 == 0 && w.stride[0] % 4 == 0 &&
         (offsets || w.task_stride % 4 == 0) && (uintptr_t)w.data % 16 == 0;
}
/* host: can TMA copy boxes of this bf16 wire's rows of D columns (kernels/common/cuda_tile_sm90.cuh)? */
static inline bool wire_by_boxes(const mica_wire &w, const int32_t *offsets, int64_t tasks, int64_t heads, int64_t D) {
  const auto whole = [&](int64_t stride) { return stride >= D && stride % 8 == 0 && stride < (int64_t)1 << 38; };
  return w.data && w.dtype == MICA_BF16 && (uintptr_t)w.data % 16 == 0 && D % 8 == 0 && w.stride[2] == 1 &&
         whole(w.stride[0]) && (heads == 1 || whole(w.stride[1])) &&
         (offsets || tasks == 1 || w.task_stride == 0 || whole(w.task_stride));
}

#endif
