/* cuda_rows.cuh: kernels whose results are local to a row: a team of 1 to 32 lanes of a warp a row, four columns a lane
 * at a time, 16 bytes where every wire allows it.
 *
 *   ROWS_EACH(job, team)                                                    each row of each task
 *   for (rows_walk<N> w(job.rows, job.out, team); w.any(); w.next()) {      the tasks of the slots that it leads
 *     const char *x = plane_row(job.x, w.k, team.r);
 *     ROWS_COLUMNS(job.rows, team, c) {
 *       float v[4];
 *       rows_get(job.rows, team, job.x, x, c, v);
 *       rows_put(job.rows, team, w, 0, job.out[0], y, c, v);                into output 0, or added to it
 *     }
 *   }
 *
 * an output that sums tasks is led by the first of its slot, which does the row of all of them in task order; where
 * every task has its own slot that is one turn of the loop. outputs of one kernel may have different slots. */
#ifndef MICA_KERNELS_COMMON_CUDA_ROWS_CUH
#define MICA_KERNELS_COMMON_CUDA_ROWS_CUH

#include "common/cuda_plane.cuh"

enum { ROWS_THREADS = 256 };

struct rows_job {
  int64_t        B;
  int32_t        R, C, lanes;                /* lanes of a team */
  int32_t four, wide; /* a lane's columns lie side by side, else `lanes` apart; 16 bytes at once */
  const int32_t *offsets;
};

/* ---- host ---- */

/* which columns a lane adds up depends on C alone, not on alignment: neither do the bits. `wide` holds if each of the n
 * planes allows it: all but those of cells (B,R) */
static inline rows_job rows_of(int64_t B, int64_t R, int64_t C, const int32_t *offsets, const plane *p, int n) {
  rows_job job = { B, (int32_t)R, (int32_t)C, (int32_t)plane_power((C + 3) / 4, 1, 32), C % 4 == 0, C % 4 == 0,
                   offsets };
  for (int i = 0; i < n; i++)
    if (!plane_by_four(p[i])) job.wide = 0;
  return job;
}
static inline dim3 rows_grid(const rows_job &job) {
  return dim3(micak_blocks(job.B * job.R * job.lanes, ROWS_THREADS));
}

/* ---- device ---- */

struct rows_team {
  int64_t  n, b;                             /* row in all, task */
  int32_t  r;                                /* row of the task */
  int32_t  lane, lanes, first, gap;          /* first column, and from one of four columns to the next */
  uint32_t mask;
};

PLANE_DEVICE rows_team rows_start(const rows_job &job) {
  rows_team team;
  team.lanes = job.lanes;
  team.lane = (int32_t)threadIdx.x & (job.lanes - 1);
  team.mask = (job.lanes == 32 ? ~0u : (1u << job.lanes) - 1) << (threadIdx.x & 31u & ~(uint32_t)(job.lanes - 1));
  team.first = job.four ? 4 * team.lane : team.lane;
  team.gap = job.four ? 1 : job.lanes;
  team.n = ((int64_t)blockIdx.x * ROWS_THREADS + threadIdx.x) / (uint32_t)job.lanes;
  return team;
}
/* go to row n, if there is one: task-major, packed tasks as if all were the longest */
PLANE_DEVICE bool rows_enter(const rows_job &job, rows_team &team) {
  if (team.n >= job.B * job.R) return false;
  if (team.n >> 32) team.b = team.n / job.R;
  else team.b = (int64_t)((uint32_t)team.n / (uint32_t)job.R);
  team.r = (int32_t)(team.n - team.b * job.R);
  return true;
}
PLANE_DEVICE bool rows_inside(const rows_job &job, const rows_team &team) {
  return team.r < wire_rows(job.offsets, team.b, job.R);
}
#define ROWS_EACH(job, team)                                                                       \
  for (rows_team team = rows_start((job).rows); rows_enter((job).rows, team);                      \
       team.n += (int64_t)gridDim.x * ROWS_THREADS / (uint32_t)team.lanes)                         \
    if (rows_inside((job).rows, team))
#define ROWS_COLUMNS(rows, team, c) for (int32_t c = (team).first; c < (rows).C; c += 4 * (team).lanes)
/* is the i-th of four columns from c on there? */
#define ROWS_LIVE(rows, team, c, i) ((rows).four || (c) + (i) * (team).gap < (rows).C)

/* tasks whose row this team does: k; `mask`: the outputs that want it */
template <int N>
struct rows_walk {
  const plane (&out)[N];
  const int64_t tasks, b;
  int64_t       k;
  uint32_t      mask;

  __device__ __forceinline__ rows_walk(const rows_job &job, const plane (&outputs)[N], const rows_team &team)
      : out(outputs), tasks(job.B), b(team.b), k(team.b), mask(0) {
#pragma unroll
    for (int i = 0; i < N; i++) mask |= plane_leads(out[i], b) ? 1u << i : 0u;
  }
  __device__ __forceinline__ bool any() const { return mask != 0; }
  __device__ __forceinline__ bool wants(int i) const { return mask >> i & 1; }
  __device__ __forceinline__ bool adds(int i) const { return out[i].add || k > b; }
  __device__ __forceinline__ void next() {
    k++;
#pragma unroll
    for (int i = 0; i < N; i++)
      if (k >= tasks || !plane_follows(out[i], k)) mask &= ~(1u << i);
  }
};

/* row r of task k; NULL: zeros, or not wanted */
PLANE_DEVICE char *plane_row(const plane &p, int64_t k, int32_t r) {
  char *at = plane_task(p, k);
  return at ? at + (int64_t)r * p.row * (p.dtype == MICA_BF16 ? 2 : 4) : at;
}

/* four columns of a row; zeros beyond the last */
PLANE_DEVICE void rows_get(const rows_job &job, const rows_team &team, const plane &p, const char *row, int32_t c,
                           float (&x)[4]) {
  x[0] = x[1] = x[2] = x[3] = 0.0f;
  if (!row) return;
  if (job.wide) {
    plane_get_4(p, row, c, x);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (c + i * team.gap < job.C) x[i] = plane_get(p, row, (int64_t)(c + i * team.gap) * p.col);
  }
}
PLANE_DEVICE void rows_set(const rows_job &job, const rows_team &team, const plane &p, char *row, int32_t c,
                           const float (&x)[4], bool add) {
  if (job.wide) {
    plane_put_4(p, row, c, x, add);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (c + i * team.gap < job.C) plane_put(p, row, (int64_t)(c + i * team.gap) * p.col, (double)x[i], add);
  }
}
/* into output i, if it wants this row */
template <int N>
PLANE_DEVICE void rows_put(const rows_job &job, const rows_team &team, const rows_walk<N> &walk, int i, const plane &p,
                           char *row, int32_t c, const float (&x)[4]) {
  if (walk.wants(i)) rows_set(job, team, p, row, c, x, walk.adds(i));
}
/* the one element of a row of (B,R) */
PLANE_DEVICE float rows_cell(const plane &p, int64_t k, int32_t r) {
  const char *at = plane_row(p, k, r);
  return at ? plane_get(p, at, 0) : 0.0f;
}
template <int N>
PLANE_DEVICE void rows_put_cell(const rows_team &team, const rows_walk<N> &walk, int i, const plane &p, float x) {
  if (team.lane == 0 && walk.wants(i)) plane_put(p, plane_row(p, walk.k, team.r), 0, (double)x, walk.adds(i));
}

/* of four partial results a lane, over the team: every lane gets it */
PLANE_DEVICE float rows_sum(const rows_team &team, float x) {
  for (int32_t step = team.lanes / 2; step; step /= 2) x += __shfl_xor_sync(team.mask, x, step);
  return x;
}
PLANE_DEVICE float rows_sum(const rows_team &team, const float (&x)[4]) {
  return rows_sum(team, (x[0] + x[1]) + (x[2] + x[3]));
}
PLANE_DEVICE float rows_max(const rows_team &team, float x) {
  for (int32_t step = team.lanes / 2; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(team.mask, x, step));
  return x;
}

#endif
