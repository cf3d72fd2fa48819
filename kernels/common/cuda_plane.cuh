/* cuda_plane.cuh: a wire as kernels take it, seen as rows and columns: any dtype on any wire, decided once a launch.
 *
 * results that sum the tasks of a slot are made by who has the first of them (plane_leads), the others in task order
 * behind it: no atomics, and no result depends on B or on the order of blocks. */
#ifndef MICA_KERNELS_COMMON_CUDA_PLANE_CUH
#define MICA_KERNELS_COMMON_CUDA_PLANE_CUH

#include "common/cuda_wire.cuh"

enum { PLANE_OK, PLANE_DTYPE, PLANE_STRIDE };

struct plane {
  char          *data;                       /* NULL: zeros, or not wanted */
  const int32_t *slot, *offsets;
  int64_t        task;                       /* elements from slot to slot; with offsets, from row to row */
  int32_t        row, col;                   /* elements from row to row, from column to column; 0: broadcast */
  int16_t        dtype, bad;                 /* bad: PLANE_*, what kernels cannot take */
  int32_t        add;
};

/* ---- host ---- */

static inline plane plane_of(const mica_wire &w, const int32_t *offsets, int64_t row, int64_t col) {
  plane p = { static_cast<char *>(w.data), w.slot, offsets, offsets ? w.stride[0] : w.task_stride, (int32_t)row,
              (int32_t)col, (int16_t)w.dtype, PLANE_OK, (int32_t)(w.flags & MICA_ADD) };
  if (!p.data) return plane{};
  if (w.dtype == MICA_F64) p.bad = PLANE_DTYPE;
  if (row != p.row || col != p.col) p.bad = PLANE_STRIDE;
  return p;
}
/* of wires (B,R,C), (B,C): one row for every r, and (B,R): one column */
static inline plane plane_rows(const mica_wire &w, const int32_t *offsets) {
  return plane_of(w, offsets, w.stride[0], w.stride[1]);
}
static inline plane plane_param(const mica_wire &w) { return plane_of(w, NULL, 0, w.stride[0]); }
static inline plane plane_cells(const mica_wire &w, const int32_t *offsets) {
  return plane_of(w, offsets, w.stride[0], 0);
}

static inline mica_status plane_check(const char *name, const plane *p, int n) {
  for (int i = 0; i < n; i++)
    if (p[i].bad == PLANE_DTYPE)
      return mica_error(MICA_ERR_UNSUPPORTED, "%s on backend cuda: a wire is f64, expected f32 or bf16", name);
    else if (p[i].bad)
      return mica_error(MICA_ERR_UNSUPPORTED, "%s on backend cuda: a stride does not fit 32 bits", name);
  return MICA_OK;
}
/* elements of a task count in 32 bits */
static inline mica_status plane_check_task(const char *name, int64_t rows, int64_t columns) {
  if (rows <= 0 || columns <= 0x7fffffff / rows) return MICA_OK;
  return mica_error(MICA_ERR_UNSUPPORTED, "%s on backend cuda: tasks of %lld x %lld elements, expected fewer than 2^31",
                    name, (long long)rows, (long long)columns);
}

/* may four columns side by side be taken at once? */
static inline bool plane_by_four(const plane &p) {
  if (!p.data) return true;
  size_t size = mica_dtype_size(p.dtype);
  return p.col == 1 && p.row % 4 == 0 && p.task % 4 == 0 && (uintptr_t)p.data % (4 * size > 16 ? 16 : 4 * size) == 0;
}
/* does every task surely write its own place? all of them the same one? slots are device data: neither may hold */
static inline bool plane_apart(const plane &p) { return !p.slot && (p.offsets || p.task != 0); }
static inline bool plane_together(const plane &p) { return !p.slot && !p.offsets && p.task == 0; }

static inline unsigned plane_power(int64_t n, unsigned least, unsigned most) { /* least power of two >= n, in bounds */
  unsigned p = least;
  while (p < n && p < most) p *= 2;
  return p;
}

/* ---- device: tasks ---- */

#define PLANE_DEVICE static __device__ __forceinline__

PLANE_DEVICE char *plane_task(const plane &p, int64_t b) {
  if (!p.data) return NULL;
  int64_t s = p.slot ? p.slot[b] : b;
  if (s < 0) return NULL;
  if (p.offsets) s = p.offsets[s];
  int size = p.dtype == MICA_BF16 ? 2 : p.dtype == MICA_I64 ? 8 : p.dtype == MICA_U8 ? 1 : 4;
  return p.data + s * p.task * size;
}
/* does task b write the place of the one before? */
PLANE_DEVICE bool plane_follows(const plane &p, int64_t b) {
  if (b == 0) return false;
  if (p.slot) return p.slot[b] == p.slot[b - 1];
  return !p.offsets && p.task == 0;
}
/* wanted, and the first task of its slot? */
PLANE_DEVICE bool plane_leads(const plane &p, int64_t b) {
  return p.data && (!p.slot || p.slot[b] >= 0) && !plane_follows(p, b);
}
/* tasks of b's slot before b; a whole block calls, with one b */
PLANE_DEVICE int64_t plane_rank(const plane &p, int64_t b) {
  if (!p.slot) return p.offsets || p.task ? 0 : b;
  const int threads = (int)(blockDim.x * blockDim.y), t = (int)(threadIdx.y * blockDim.x + threadIdx.x);
  for (int64_t rank = 0;;) {
    int64_t k = b - 1 - rank - t;
    int     same = __syncthreads_count(k >= 0 && p.slot[k] == p.slot[b]);
    rank += same;
    if (same < threads) return rank;
  }
}

/* ---- device: elements ---- */

PLANE_DEVICE float    plane_from_bf16(uint32_t bits) { return __uint_as_float(bits << 16); }
/* round to nearest even; NaN stays NaN */
PLANE_DEVICE uint32_t plane_to_bf16(float x) {
  uint32_t u = __float_as_uint(x);
  return x != x ? (u >> 16) | 0x40u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

/* element i of a task */
PLANE_DEVICE float plane_get(const plane &p, const char *task, int64_t i) {
  if (p.dtype == MICA_BF16) return plane_from_bf16(reinterpret_cast<const uint16_t *>(task)[i]);
  return reinterpret_cast<const float *>(task)[i];
}
PLANE_DEVICE void plane_put(const plane &p, char *task, int64_t i, double value, bool add) {
  if (p.dtype == MICA_BF16) {
    uint16_t *at = reinterpret_cast<uint16_t *>(task) + i;
    if (add) value += (double)plane_from_bf16(*at);
    *at = (uint16_t)plane_to_bf16((float)value);
  } else {
    float *at = reinterpret_cast<float *>(task) + i;
    *at = add ? (float)((double)*at + value) : (float)value;
  }
}
/* four side by side */
PLANE_DEVICE void plane_get_4(const plane &p, const char *task, int64_t i, float (&x)[4]) {
  if (p.dtype == MICA_BF16) {
    uint2 u = *reinterpret_cast<const uint2 *>(task + i * 2);
    x[0] = __uint_as_float(u.x << 16), x[1] = __uint_as_float(u.x & 0xffff0000u);
    x[2] = __uint_as_float(u.y << 16), x[3] = __uint_as_float(u.y & 0xffff0000u);
  } else {
    float4 f = *reinterpret_cast<const float4 *>(task + i * 4);
    x[0] = f.x, x[1] = f.y, x[2] = f.z, x[3] = f.w;
  }
}
PLANE_DEVICE void plane_put_4(const plane &p, char *task, int64_t i, const float (&value)[4], bool add) {
  float x[4] = { value[0], value[1], value[2], value[3] };
  if (add) {
    float old[4];
    plane_get_4(p, task, i, old);
#pragma unroll
    for (int k = 0; k < 4; k++) x[k] += old[k];
  }
  if (p.dtype == MICA_BF16)
    *reinterpret_cast<uint2 *>(task + i * 2) = make_uint2(plane_to_bf16(x[0]) | plane_to_bf16(x[1]) << 16,
                                                          plane_to_bf16(x[2]) | plane_to_bf16(x[3]) << 16);
  else *reinterpret_cast<float4 *>(task + i * 4) = make_float4(x[0], x[1], x[2], x[3]);
}
/* of an index port */
PLANE_DEVICE int64_t plane_index(const plane &p, const char *task, int64_t i) {
  if (p.dtype == MICA_I64) return reinterpret_cast<const int64_t *>(task)[i];
  if (p.dtype == MICA_U8) return reinterpret_cast<const uint8_t *>(task)[i];
  return reinterpret_cast<const int32_t *>(task)[i];
}

#endif
