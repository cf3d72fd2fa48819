/* concat, slice and transpose on CUDA: every output element is copied from one place or zero; gather and scatter_add
 * are in move_cuda_index.cu */
#include "common/cuda_plane.cuh"
#include "move/move.h"

enum { MOVE_ROW, MOVE_COLUMN };
enum { MOVE_THREADS = 256, MOVE_TILE = 32, MOVE_TILE_ROWS = 8 };

/* columns [first, first + columns) of the output come from columns from `from` on of a source, rows from row
 * (r step + add + sign * rows of another port) / each, where that is whole and inside */
struct move_window {
  plane          in;
  int32_t        rows;                       /* its own, the longest */
  const int32_t *other;                      /* offsets of the other port, and its longest */
  int32_t        other_rows, sign;
  int32_t        step, add, each;
  int32_t        first, columns, from;
};
struct move_job {
  int64_t     B;
  int32_t     rows, C, n;                    /* of the output; windows */
  move_window window[2];
  plane       out;
};

PLANE_DEVICE const char *move_source(const move_window &w, int64_t k, int32_t r) {
  if (!w.in.data) return NULL;
  int64_t from = (int64_t)r * w.step + w.add + (w.sign ? w.sign * wire_rows(w.other, k, w.other_rows) : 0);
  if (from < 0 || (w.each != 1 && from % w.each)) return NULL;
  from /= w.each;
  if (from >= wire_rows(w.in.offsets, k, w.rows)) return NULL;
  char *in = plane_task(w.in, k);
  return in ? in + from * w.in.row * (w.in.dtype == MICA_BF16 ? 2 : 4) : NULL;
}

/* blocks of (items of a task, tasks), N columns an item */
template <int N>
static __global__ void __launch_bounds__(MOVE_THREADS, 2) move_each(const __grid_constant__ move_job job) {
  const plane   &w = job.out;
  const uint32_t wide = (uint32_t)job.C / N;
  for (int64_t b = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; b < job.B; b += (int64_t)gridDim.y * blockDim.y) {
    if (!plane_leads(w, b)) continue;
    char          *out = plane_task(w, b);
    const uint32_t items = (uint32_t)wire_rows(w.offsets, b, job.rows) * wide;
    for (uint32_t n = blockIdx.x * blockDim.x + threadIdx.x; n < items; n += gridDim.x * blockDim.x) {
      const int32_t r = (int32_t)(n / wide), c = (int32_t)(n - (uint32_t)r * wide) * N;
      const int64_t at = (int64_t)r * w.row + (int64_t)c * w.col;
      for (int64_t k = b; k == b || (k < job.B && plane_follows(w, k)); k++) {
        float x[N] = {};
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const move_window &v = job.window[i];
          if (i >= job.n || c < v.first || c >= v.first + v.columns) continue;
          const char *in = move_source(v, k, r);
          if (!in) continue;
          if constexpr (N == 4) plane_get_4(v.in, in, c - v.first + v.from, x);
          else x[0] = plane_get(v.in, in, (int64_t)(c - v.first + v.from) * v.in.col);
        }
        if constexpr (N == 4) plane_put_4(w, out, at, x, w.add || k > b);
        else plane_put(w, out, at, (double)x[0], w.add || k > b);
      }
    }
  }
}

/* out (rows, C) = the transpose of in: squares of 32 go through shared memory */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS) move_transpose(const __grid_constant__ move_job job) {
  __shared__ float tile[MOVE_TILE][MOVE_TILE + 1];
  const plane  &w = job.out, &v = job.window[0].in;
  const int     x = (int)threadIdx.x, y = (int)threadIdx.y;
  const int32_t across = (job.C + MOVE_TILE - 1) / MOVE_TILE;
  const int32_t r0 = (int32_t)blockIdx.x / across * MOVE_TILE, c0 = (int32_t)blockIdx.x % across * MOVE_TILE;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    if (!plane_leads(w, b)) continue;
    char *out = plane_task(w, b);
    float sum[MOVE_TILE / MOVE_TILE_ROWS] = {};
    for (int64_t k = b; k == b || (k < job.B && plane_follows(w, k)); k++) {
      const char *in = plane_task(v, k);
      /* row c0 + i of the source is column c0 + i of the output */
      for (int i = y; i < MOVE_TILE; i += MOVE_TILE_ROWS)
        tile[i][x] = in && c0 + i < job.C && r0 + x < job.rows
                         ? plane_get(v, in, (int64_t)(c0 + i) * v.row + (int64_t)(r0 + x) * v.col) : 0.0f;
      __syncthreads();
#pragma unroll
      for (int i = 0; i < MOVE_TILE / MOVE_TILE_ROWS; i++) sum[i] += tile[x][y + i * MOVE_TILE_ROWS];
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < MOVE_TILE / MOVE_TILE_ROWS; i++) {
      const int32_t r = r0 + y + i * MOVE_TILE_ROWS, c = c0 + x;
      if (r < job.rows && c < job.C) plane_put(w, out, (int64_t)r * w.row + (int64_t)c * w.col, (double)sum[i], w.add);
    }
  }
}

/* ---- launchers ---- */

static const mica_wire &move_wire(const mica_port &port, int face) {
  const mica_wire *wire[MICA_NFACE] = { &port.v, &port.d, &port.t, &port.td };
  return *wire[face];
}
static bool move_up(int face) { return face == MICA_BACKWARD || face == MICA_BACKWARD_JVP; }

static mica_status move_check(const char *name, const move_job &job) {
  const plane all[] = { job.window[0].in, job.window[1].in, job.out };
  mica_status status = plane_check(name, all, 3);
  return status < 0 ? status : plane_check_task(name, job.rows, job.C);
}
static mica_status move_run(const char *name, const move_job &job, const mica_exec *exec) {
  if (!job.out.data || job.B <= 0) return MICA_OK;
  mica_status status = move_check(name, job);
  if (status < 0) return status;
  bool four = job.C % 4 == 0 && plane_by_four(job.out);
  for (int i = 0; i < job.n; i++) {
    const move_window &w = job.window[i];
    four = four && w.first % 4 == 0 && w.columns % 4 == 0 && w.from % 4 == 0 && plane_by_four(w.in);
  }
  const int64_t  items = (int64_t)job.rows * job.C / (four ? 4 : 1);
  const unsigned wide = plane_power(items, 8, MOVE_THREADS), tasks = MOVE_THREADS / wide;
  return micak_launch(name, four ? move_each<4> : move_each<1>,
                      dim3(micak_blocks(items, wide), micak_task_blocks((job.B + tasks - 1) / tasks)),
                      dim3(wide, tasks), 0, exec->stream, job);
}
static move_window move_whole(const mica_port &port, int face, int64_t rows, int64_t columns) {
  move_window w = {};
  w.in = plane_rows(move_wire(port, face), port.offsets), w.rows = (int32_t)rows;
  w.step = w.each = 1, w.columns = (int32_t)columns;
  return w;
}

static mica_status concat_run(const char *name, int face, const mica_exec *exec, const void *args) {
  const mica_concat_args *a = static_cast<const mica_concat_args *>(args);
  const bool along = a->axis == MOVE_COLUMN;
  move_job   job = {};
  job.B = a->B;
  if (!move_up(face)) {
    job.rows = (int32_t)a->R, job.C = (int32_t)a->C, job.n = 2;
    job.out = plane_rows(move_wire(a->y, face), a->y.offsets);
    job.window[0] = move_whole(a->a, face, a->Ra, a->Ca), job.window[1] = move_whole(a->b, face, a->Rb, a->Cb);
    if (along) job.window[1].first = (int32_t)a->Ca;
    else job.window[1].other = a->a.offsets, job.window[1].other_rows = (int32_t)a->Ra, job.window[1].sign = -1;
    return move_run(name, job, exec);
  }
  mica_status status = MICA_OK;
  for (int k = 0; k < 2 && status >= 0; k++) {
    const mica_port &port = k ? a->b : a->a;
    job.rows = (int32_t)(k ? a->Rb : a->Ra), job.C = (int32_t)(k ? a->Cb : a->Ca), job.n = 1;
    job.out = plane_rows(move_wire(port, face), port.offsets);
    job.window[0] = move_whole(a->y, face, a->R, job.C);
    if (k && along) job.window[0].from = (int32_t)a->Ca;
    if (k && !along)
      job.window[0].other = a->a.offsets, job.window[0].other_rows = (int32_t)a->Ra, job.window[0].sign = 1;
    status = move_run(name, job, exec);
  }
  return status;
}

static mica_status slice_run(const char *name, int face, const mica_exec *exec, const void *args) {
  const mica_slice_args *a = static_cast<const mica_slice_args *>(args);
  const bool up = move_up(face);
  move_job   job = {};
  job.B = a->B, job.rows = (int32_t)(up ? a->R : a->Ry), job.C = (int32_t)(up ? a->C : a->Cy), job.n = 1;
  job.out = plane_rows(move_wire(up ? a->x : a->y, face), up ? a->x.offsets : a->y.offsets);
  move_window &w = job.window[0];
  w = move_whole(up ? a->y : a->x, face, up ? a->Ry : a->R, a->Cy);
  if (up) w.add = (int32_t)-a->row, w.each = (int32_t)a->step, w.first = (int32_t)a->column;
  else w.step = (int32_t)a->step, w.add = (int32_t)a->row, w.from = (int32_t)a->column;
  return move_run(name, job, exec);
}

static mica_status transpose_run(const char *name, int face, const mica_exec *exec, const void *args) {
  const mica_transpose_args *a = static_cast<const mica_transpose_args *>(args);
  const bool up = move_up(face);
  move_job   job = {};
  job.B = a->B, job.rows = (int32_t)(up ? a->R : a->C), job.C = (int32_t)(up ? a->C : a->R), job.n = 1;
  job.out = plane_rows(move_wire(up ? a->x : a->y, face), NULL);
  job.window[0] = move_whole(up ? a->y : a->x, face, job.C, job.rows);
  if (!job.out.data || job.B <= 0) return MICA_OK;
  mica_status status = move_check(name, job);
  if (status < 0) return status;
  const int64_t tiles = ((int64_t)job.rows + MOVE_TILE - 1) / MOVE_TILE * ((job.C + MOVE_TILE - 1) / MOVE_TILE);
  return micak_launch(name, move_transpose<MOVE_THREADS>, dim3(micak_blocks(tiles, 1), micak_task_blocks(job.B)),
                      dim3(MOVE_TILE, MOVE_TILE_ROWS), 0, exec->stream, job);
}

#define MOVE_FACE(op, face, FACE)                                                                                     \
  extern "C" mica_status micak_##op##_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {      \
    return op##_run(#op " " #face, FACE, exec, args);                                                                 \
  }
#define MOVE_FACES(op)                      \
  MOVE_FACE(op, forward, MICA_FORWARD)      \
  MOVE_FACE(op, backward, MICA_BACKWARD)    \
  MOVE_FACE(op, jvp, MICA_JVP)              \
  MOVE_FACE(op, backward_jvp, MICA_BACKWARD_JVP)
MOVE_FACES(concat)
MOVE_FACES(slice)
MOVE_FACES(transpose)
