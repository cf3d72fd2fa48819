/* reductions on CUDA. sum, mean and the derivatives of logsumexp are maps (common/cuda_map.cuh); max and the value of
 * logsumexp need the largest element of a cell first. the jvp of max reads one element of each cell from x.t, so
 * 32-byte sectors come for 4 bytes of use where neighbouring cells have it in different rows: 2.2 times what is needed
 * at 82 x 256 */
#include "common/cuda_map.cuh"
#include "common/cuda_math.cuh"
#include "reduce/reduce.h"

enum { REDUCE_ROW, REDUCE_COLUMN, REDUCE_ALL };
enum { REDUCE_XV = 1, REDUCE_XT = 2, REDUCE_YV = 4, REDUCE_YT = 8, REDUCE_YD = 16, REDUCE_YTD = 32 };

/* ---- maps ---- */

enum { TAKE_X, TAKE_T, TAKE_D, TAKE_TD, WEIGH_T, WEIGH_D, WEIGH_TD };

struct reduce_fn {
  int32_t which, mean;

  enum { INPUTS = 6, OUTPUTS = 1 };
  template <int N>
  __device__ __forceinline__ void run(const float (&in)[INPUTS + 1][N], float (&out)[OUTPUTS][N]) const {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float x = in[0][i], t = in[1][i], y = in[2][i], yt = in[3][i], d = in[4][i], td = in[5][i];
      float value = which == TAKE_X ? x : which == TAKE_T ? t : which == TAKE_D ? d : td;
      if (which >= WEIGH_T) {
        /* e^(x - y); a cell of -inf has no weight */
        const float weight = y == -INFINITY ? 0.0f : expf(x - y);
        value = weight * (which == WEIGH_T ? t : which == WEIGH_D ? d : fmaf(t - yt, d, td));
      }
      out[0][i] = mean ? value * in[INPUTS][i] : value;
    }
  }
};

/* ---- cells: all that one element of y is reduced from ---- */

struct cell_job {
  int64_t        B;
  int32_t        R, C, axis;
  const int32_t *offsets;
  plane          x, t, d, out;               /* x.t (NULL: the value is wanted), the cotangent to spread, the output */
  int32_t        log_sum;
};

/* the lanes of one cell in a block: `step` threads from lane to lane */
struct cell_team {
  int     lane, lanes, step, t;
  int32_t o, cells, items;                   /* the cell, how many cells and elements of one a task has */
};

/* largest element and the first place that has it; a NaN is the largest */
struct cell_top {
  float   value;
  int32_t at;
};
template <int THREADS>
struct cell_tops {                           /* of all threads, apart: neighbours lie in neighbouring banks */
  float   value[THREADS];
  int32_t at[THREADS];
  __device__ __forceinline__ cell_top get(int t) const { return cell_top{ value[t], at[t] }; }
  __device__ __forceinline__ void set(int t, const cell_top &top) { value[t] = top.value, at[t] = top.at; }
};
PLANE_DEVICE bool cell_before(const cell_top &a, const cell_top &b) {
  const bool an = a.value != a.value, bn = b.value != b.value;
  if (an != bn) return an;
  return a.value > b.value || ((an || a.value == b.value) && a.at < b.at);
}
/* element i of cell o */
PLANE_DEVICE void cell_item(const cell_job &job, int32_t o, int32_t i, int32_t &r, int32_t &c) {
  if (job.axis == REDUCE_ROW) r = i, c = o;
  else if (job.axis == REDUCE_COLUMN) r = o, c = i;
  else r = i / job.C, c = i - r * job.C;
}
PLANE_DEVICE float cell_x(const plane &p, const char *at, int32_t r, int32_t c) {
  return at ? plane_get(p, at, (int64_t)r * p.row + (int64_t)c * p.col) : 0.0f;
}

/* all threads of the block call */
template <int THREADS>
PLANE_DEVICE cell_top cell_find(const cell_job &job, const cell_team &team, int64_t k, cell_tops<THREADS> &shared) {
  const char *x = plane_task(job.x, k);
  cell_top    top = { -INFINITY, 0x7fffffff };
  for (int32_t i = team.lane; i < team.items && team.o < team.cells; i += team.lanes) {
    int32_t r, c;
    cell_item(job, team.o, i, r, c);
    const cell_top one = { cell_x(job.x, x, r, c), i };
    if (cell_before(one, top)) top = one;
  }
  shared.set(team.t, top);
  __syncthreads();
  for (int half = team.lanes / 2; half; half /= 2) {
    if (team.lane < half) {
      const cell_top other = shared.get(team.t + half * team.step);
      if (cell_before(other, top)) shared.set(team.t, top = other);
    }
    __syncthreads();
  }
  top = shared.get(team.t - team.lane * team.step);
  __syncthreads();
  return top;
}
/* the sum of e^(x - top), in double */
PLANE_DEVICE double cell_sum(const cell_job &job, const cell_team &team, int64_t k, float top, double *shared) {
  const char *x = plane_task(job.x, k);
  double      sum = 0;
  for (int32_t i = team.lane; i < team.items && team.o < team.cells; i += team.lanes) {
    int32_t r, c;
    cell_item(job, team.o, i, r, c);
    sum += (double)expf(cell_x(job.x, x, r, c) - top);
  }
  shared[team.t] = sum;
  __syncthreads();
  for (int half = team.lanes / 2; half; half /= 2) {
    if (team.lane < half) shared[team.t] += shared[team.t + half * team.step];
    __syncthreads();
  }
  sum = shared[team.t - team.lane * team.step];
  __syncthreads();
  return sum;
}

/* by columns threads (lanes, rows), else (cells, lanes) */
PLANE_DEVICE cell_team cell_team_of(const cell_job &job) {
  const bool column = job.axis == REDUCE_COLUMN;
  cell_team  team;
  team.t = (int)(threadIdx.y * blockDim.x + threadIdx.x);
  team.lane = column ? threadIdx.x : threadIdx.y;
  team.lanes = column ? blockDim.x : blockDim.y;
  team.step = column ? 1 : blockDim.x;
  return team;
}
PLANE_DEVICE void cell_enter(const cell_job &job, cell_team &team, int64_t k) {
  const int32_t rows = (int32_t)wire_rows(job.offsets, k, job.R);
  team.cells = job.axis == REDUCE_COLUMN ? rows : job.axis == REDUCE_ROW ? job.C : 1;
  team.items = job.axis == REDUCE_COLUMN ? job.C : job.axis == REDUCE_ROW ? rows : rows * job.C;
}

/* y: max, its tangent, or logsumexp */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) cells_down(const __grid_constant__ cell_job job) {
  __shared__ cell_tops<THREADS> tops;
  __shared__ double             sums[THREADS];
  cell_team team = cell_team_of(job);
  const int each = THREADS / team.lanes, own = (int)(job.axis == REDUCE_COLUMN ? threadIdx.y : threadIdx.x);
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    if (!plane_leads(job.out, b)) continue;
    char *out = plane_task(job.out, b);
    cell_enter(job, team, b);
    for (int32_t first = (int32_t)blockIdx.x * each; first < team.cells; first += (int32_t)gridDim.x * each) {
      team.o = first + own;
      double total = 0;
      for (int64_t k = b; k == b || (k < job.B && plane_follows(job.out, k)); k++) {
        cell_enter(job, team, k);
        const cell_top top = cell_find(job, team, k, tops);
        double         value = (double)top.value;
        if (job.t.dtype >= 0) {
          int32_t r, c;
          cell_item(job, team.o, top.at, r, c);
          const char *t = plane_task(job.t, k);
          value = top.at < team.items && team.o < team.cells ? (double)cell_x(job.t, t, r, c) : 0;
        } else if (job.log_sum) {
          const double sum = cell_sum(job, team, k, top.value, sums);
          if (!isinf(top.value) && top.value == top.value) value = (double)(top.value + logf((float)sum));
        }
        total += value;
      }
      if (team.lane == 0 && team.o < team.cells) {
        int32_t r = job.axis == REDUCE_COLUMN ? team.o : 0, c = job.axis == REDUCE_ROW ? team.o : 0;
        plane_put(job.out, out, (int64_t)r * job.out.row + (int64_t)c * job.out.col, total, job.out.add);
      }
    }
  }
}
/* x.d and x.td of max: the whole cotangent of a cell to its first largest element */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) cells_up(const __grid_constant__ cell_job job) {
  __shared__ cell_tops<THREADS> tops;
  cell_team team = cell_team_of(job);
  const int each = THREADS / team.lanes, own = (int)(job.axis == REDUCE_COLUMN ? threadIdx.y : threadIdx.x);
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    if (!plane_leads(job.out, b)) continue;
    char *out = plane_task(job.out, b);
    cell_enter(job, team, b);
    for (int32_t first = (int32_t)blockIdx.x * each; first < team.cells; first += (int32_t)gridDim.x * each) {
      team.o = first + own;
      for (int64_t k = b; k == b || (k < job.B && plane_follows(job.out, k)); k++) {
        cell_enter(job, team, k);
        const cell_top top = cell_find(job, team, k, tops);
        if (team.o >= team.cells) continue;
        const char *d = plane_task(job.d, k);
        const float value =
            cell_x(job.d, d, job.axis == REDUCE_COLUMN ? team.o : 0, job.axis == REDUCE_ROW ? team.o : 0);
        for (int32_t i = team.lane; i < team.items; i += team.lanes) {
          int32_t r, c;
          cell_item(job, team.o, i, r, c);
          plane_put(job.out, out, (int64_t)r * job.out.row + (int64_t)c * job.out.col, i == top.at ? (double)value : 0,
                    job.out.add || k > b);
        }
      }
    }
  }
}

/* ---- launchers ---- */

static const mica_wire *reduce_out(const mica_reduce_args *a, int face) {
  const mica_wire *out[MICA_NFACE] = { &a->y.v, &a->x.d, &a->y.t, &a->x.td };
  return out[face];
}
static bool reduce_up(int face) { return face == MICA_BACKWARD || face == MICA_BACKWARD_JVP; }

static mica_status reduce_map(const char *name, int face, uint32_t reads, bool mean, int which, const mica_exec *exec,
                              const void *args) {
  static const int count[] = { MAP_COUNT_ROWS, MAP_COUNT_COLUMNS, MAP_COUNT_ROWS | MAP_COUNT_COLUMNS };
  const mica_reduce_args *a = static_cast<const mica_reduce_args *>(args);
  const bool up = reduce_up(face);
  map_job<reduce_fn> job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.C = (int32_t)a->C, job.offsets = a->x.offsets;
  job.count = mean ? count[a->axis] : 0;
  job.out_rows = (int32_t)(up ? a->R : a->Ry), job.out_cols = (int32_t)(up ? a->C : a->Cy);
  const mica_wire *wires[] = { &a->x.v, &a->x.t, &a->y.v, &a->y.t, &a->y.d, &a->y.td };
  for (int k = 0; k < 6; k++)
    if (reads >> k & 1)
      job.in[k] = map_side(*wires[k], k < 2 ? a->x.offsets : a->y.offsets, k < 2 ? a->R : a->Ry, k < 2 ? a->C : a->Cy,
                           a->R, a->C);
  job.out[0] = map_side(*reduce_out(a, face), up ? a->x.offsets : a->y.offsets, job.out_rows, job.out_cols, a->R, a->C);
  return map_run(name, job, reduce_fn{ which, mean }, exec);
}

static mica_status reduce_cells(const char *name, int face, bool log_sum, const mica_exec *exec, const void *args) {
  const mica_reduce_args *a = static_cast<const mica_reduce_args *>(args);
  const bool up = reduce_up(face);
  cell_job   job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.C = (int32_t)a->C, job.axis = (int32_t)a->axis;
  job.offsets = a->x.offsets, job.log_sum = log_sum;
  job.x = plane_rows(a->x.v, a->x.offsets);
  job.t = plane_rows(a->x.t, a->x.offsets);
  if (face != MICA_JVP) job.t = plane{}, job.t.dtype = -1;
  if (up) job.d = plane_rows(face == MICA_BACKWARD ? a->y.d : a->y.td, a->y.offsets);
  job.out = plane_rows(*reduce_out(a, face), up ? a->x.offsets : a->y.offsets);
  if (!job.out.data || a->B <= 0) return MICA_OK;
  const plane all[] = { job.x, job.t, job.d, job.out };
  mica_status status = plane_check(name, all, 4);
  if (status >= 0) status = plane_check_task(name, a->R, a->C);
  if (status < 0) return status;
  const bool     column = a->axis == REDUCE_COLUMN;
  const int64_t  cells = column ? a->R : a->axis == REDUCE_ROW ? a->C : 1;
  const unsigned wide = column ? plane_power(a->C, 1, 32) : plane_power(cells, 1, 32), high = MAP_THREADS / wide;
  return micak_launch(name, up ? cells_up<MAP_THREADS> : cells_down<MAP_THREADS>,
                      dim3(micak_blocks(cells, column ? high : wide),
                           plane_together(job.out) ? 1 : micak_task_blocks(a->B)),
                      dim3(wide, high), 0, exec->stream, job);
}

#define REDUCE_FACE(name, face, ...)                                                                          \
  extern "C" mica_status micak_##name##_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) { \
    return __VA_ARGS__;                                                                                       \
  }
#define REDUCE_LINEAR(name, mean)                                                                              \
  REDUCE_FACE(name, forward, reduce_map(#name " forward", MICA_FORWARD, REDUCE_XV, mean, TAKE_X, exec, args))  \
  REDUCE_FACE(name, backward, reduce_map(#name " backward", MICA_BACKWARD, REDUCE_YD, mean, TAKE_D, exec, args)) \
  REDUCE_FACE(name, jvp, reduce_map(#name " jvp", MICA_JVP, REDUCE_XT, mean, TAKE_T, exec, args))              \
  REDUCE_FACE(name, backward_jvp,                                                                              \
              reduce_map(#name " backward_jvp", MICA_BACKWARD_JVP, REDUCE_YTD, mean, TAKE_TD, exec, args))
REDUCE_LINEAR(sum, false)
REDUCE_LINEAR(mean, true)
REDUCE_FACE(max, forward, reduce_cells("max forward", MICA_FORWARD, false, exec, args))
REDUCE_FACE(max, backward, reduce_cells("max backward", MICA_BACKWARD, false, exec, args))
REDUCE_FACE(max, jvp, reduce_cells("max jvp", MICA_JVP, false, exec, args))
REDUCE_FACE(max, backward_jvp, reduce_cells("max backward_jvp", MICA_BACKWARD_JVP, false, exec, args))
REDUCE_FACE(logsumexp, forward, reduce_cells("logsumexp forward", MICA_FORWARD, true, exec, args))
REDUCE_FACE(logsumexp, backward,
            reduce_map("logsumexp backward", MICA_BACKWARD, REDUCE_XV | REDUCE_YV | REDUCE_YD, false, WEIGH_D, exec,
                       args))
REDUCE_FACE(logsumexp, jvp,
            reduce_map("logsumexp jvp", MICA_JVP, REDUCE_XV | REDUCE_XT | REDUCE_YV, false, WEIGH_T, exec, args))
REDUCE_FACE(logsumexp, backward_jvp,
            reduce_map("logsumexp backward_jvp", MICA_BACKWARD_JVP,
                       REDUCE_XV | REDUCE_XT | REDUCE_YV | REDUCE_YT | REDUCE_YD | REDUCE_YTD, false, WEIGH_TD, exec,
                       args))
