/* cuda_solve.cuh: regressions that are solved task by task (common/closed_form.h) on CUDA, in double: a task a block.
 *
 * G = x' diag(d) x + ridge I of one task is factored without roots, L D L', and applied through the smaller of G and of
 * its twin of R unknowns, as on the CPU. the factor lies in shared memory: min(R, I) is at most SOLVE_MOST. rows and
 * matrices of a task lie there too where they fit, by R, I and O of the launch alone, else in scratch.
 *
 * thin matrices are O x R, wide ones O x I. every sum is of one thread, of 8 lanes or of a warp in a fixed order: no bit
 * depends on B, on the number of threads or on where a matrix lies. tasks of a slot of w, x or y are one block's, in task
 * order; cotangents of ridge, which all tasks may share, are parts that cuda_sums.cuh adds up. nothing is atomic. */
#ifndef MICA_KERNELS_COMMON_CUDA_SOLVE_CUH
#define MICA_KERNELS_COMMON_CUDA_SOLVE_CUH

#include <math.h>

#include "common/closed_form.h"
#include "common/cuda_reduce.cuh"
#include "common/cuda_sums.cuh"

#define SOLVE_DEVICE static __device__ __forceinline__

enum { SOLVE_THREADS = 256, SOLVE_MOST = 160, SOLVE_LANES = 8 }; /* LANES: of one sum along a row */
enum { SOLVE_FIT = 96 * 1024, SOLVE_AT_ONCE = 1024 }; /* bytes of a block; blocks with scratch of their own */

/* what a face keeps of a task, but its factor: copies of x, matrices, vectors of R and of I, triangles */
struct solve_need {
  int64_t planes, thin, wide, rows, columns, triangles;
};
struct solve_job {
  int64_t        B, units, own;              /* own: bytes of scratch of a block; 0: all is in shared memory */
  int32_t        R, I, O, ld, most, classes; /* R: of the longest task; ld: of rows of x; most: unknowns */
  const int32_t *offsets;
  plane          x, xt, y, yt, label, ridge, ridge_t, w, wt, wd, wdt;
  plane          w_out, x_out, y_out, ridge_out;
  double        *parts;                      /* of ridge_out */
  char          *scratch;
};

/* ---- host ---- */

static inline int64_t solve_triangle(int64_t n) { return n * (n + 1) / 2; }
static inline size_t  solve_factor_bytes(const solve_job *job) {
  return (size_t)(solve_triangle(job->most) + job->most) * sizeof(double);
}
static inline int64_t solve_blocks(const solve_job *job) {
  return job->own && job->units > SOLVE_AT_ONCE ? SOLVE_AT_ONCE : job->units;
}

/* `classes`: units are (task, class) where that is possible, else tasks */
template <class ARGS>
static inline mica_status solve_open(solve_job *job, const char *name, const ARGS *a, int face, solve_need need,
                                     bool classes) {
  const bool  back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  const bool  dual = face == MICA_JVP || face == MICA_BACKWARD_JVP;
  mica_status status = micak_target_error(name, &a->y, &a->label);
  if (status < 0) return status;
  const plane none = {};
  job->x = plane_rows(a->x.v, a->x.offsets), job->xt = dual ? plane_rows(a->x.t, a->x.offsets) : none;
  job->y = plane_rows(a->y.v, a->y.offsets), job->yt = dual ? plane_rows(a->y.t, a->y.offsets) : none;
  job->label = plane_cells(a->label.v, a->label.offsets);
  job->ridge = plane_of(a->ridge.v, NULL, 0, 0), job->ridge_t = dual ? plane_of(a->ridge.t, NULL, 0, 0) : none;
  if (face != MICA_FORWARD) job->w = plane_rows(a->w.v, NULL);
  if (back) job->wd = plane_rows(a->w.d, NULL);
  if (back && dual) job->wt = plane_rows(a->w.t, NULL), job->wdt = plane_rows(a->w.td, NULL);
  if (back) {
    job->x_out = plane_rows(dual ? a->x.td : a->x.d, a->x.offsets);
    job->y_out = plane_rows(dual ? a->y.td : a->y.d, a->y.offsets);
    job->ridge_out = plane_of(dual ? a->ridge.td : a->ridge.d, NULL, 0, 0);
  } else {
    job->w_out = plane_rows(dual ? a->w.t : a->w.v, NULL);
  }
  const plane all[] = { job->x,  job->xt, job->y,   job->yt,    job->label, job->ridge, job->ridge_t, job->w,
                        job->wt, job->wd, job->wdt, job->w_out, job->x_out, job->y_out, job->ridge_out };
  status = plane_check(name, all, MICA_COUNT(all));
  if (status >= 0) status = plane_check_task(name, a->R > a->O ? a->R : a->O, a->I > a->O ? a->I : a->O);
  if (status < 0) return status;
  if (micak_unknowns(a->R, a->I) > SOLVE_MOST)
    return mica_error(MICA_ERR_UNSUPPORTED, "%s on backend cuda: tasks of %lld rows and %lld features, expected at most %d "
                      "of one or of the other", name, (long long)a->R, (long long)a->I, SOLVE_MOST);
  job->B = a->B, job->R = (int32_t)a->R, job->I = (int32_t)a->I, job->O = (int32_t)a->O;
  job->classes = classes ? job->O : 1, job->units = job->B * job->classes;
  job->ld = job->I | 1, job->most = (int32_t)micak_unknowns(a->R, a->I);
  job->offsets = micak_target_offsets(&a->x, &a->y, &a->label);
  job->own = (need.planes * a->R * job->ld + 1) / 2 + need.thin * a->O * a->R + need.wide * a->O * a->I + need.rows * a->R +
             need.columns * a->I + need.triangles * solve_triangle(job->most);
  job->own *= (int64_t)sizeof(double);
  return MICA_OK;
}
/* bytes of scratch: parts of ridge_out, then blocks' own */
template <class ARGS>
static inline size_t solve_scratch(solve_job *job, const ARGS *a, int face, void *scratch) {
  size_t bytes = 0;
  if (face == MICA_BACKWARD) bytes = micak_sum_scratch(&a->ridge.d, a->B, 1, 1);
  if (face == MICA_BACKWARD_JVP) bytes = micak_sum_scratch(&a->ridge.td, a->B, 1, 1);
  job->parts = static_cast<double *>(scratch);
  job->scratch = static_cast<char *>(scratch) + bytes;
  return bytes + (size_t)(job->own * solve_blocks(job));
}
static inline size_t solve_shared(solve_job *job) {
  size_t bytes = solve_factor_bytes(job) + (size_t)job->own;
  if (bytes <= SOLVE_FIT) job->own = 0;
  return job->own ? solve_factor_bytes(job) : bytes;
}

template <class ARGS>
static inline mica_status solve_run(const char *name, void (*kernel)(solve_job), int face, solve_need need, bool classes,
                                    const mica_exec *exec, const void *args) {
  const ARGS *a = static_cast<const ARGS *>(args);
  solve_job   job = {};
  mica_status status = solve_open(&job, name, a, face, need, classes);
  if (status < 0 || job.units <= 0) return status;
  const size_t shared = solve_shared(&job);
  solve_scratch(&job, a, face, exec->scratch);
  const unsigned threads = plane_power((int64_t)job.R * job.I / 16, 32, SOLVE_THREADS);
  status = micak_launch(name, kernel, dim3(micak_blocks(solve_blocks(&job), 1)), dim3(threads), shared, exec->stream, job);
  return status < 0 ? status : sum_finish(name, job.ridge_out, job.B, 1, 0, 1, 1, exec, 1);
}
template <class ARGS>
static inline void solve_split(int face, solve_need need, bool classes, const void *args, mica_split *split) {
  const ARGS *a = static_cast<const ARGS *>(args);
  solve_job   job = {};
  *split = mica_split{ 1, 1, 0, 0 };
  if (solve_open(&job, "", a, face, need, classes) < 0) return;
  (void)solve_shared(&job);
  split->scratch_bytes = solve_scratch(&job, a, face, NULL);
}
/* a face and its split: kernel<FACE>, what it keeps, and whether classes are units */
#define SOLVE_FACE(op, face, FACE, kernel, classes, ...)                                                          \
  extern "C" mica_status micak_##op##_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) { \
    return solve_run<mica_##op##_args>(#op " " #face, kernel, FACE, solve_need __VA_ARGS__, classes, exec, args); \
  }                                                                                                               \
  extern "C" void micak_##op##_##face##_cuda_split(const void *args, mica_split *split) {                        \
    solve_split<mica_##op##_args>(FACE, solve_need __VA_ARGS__, classes, args, split);                            \
  }

/* ---- device: a task ---- */

#define SOLVE_EACH(i, n) for (int i = (int)threadIdx.x; i < (n); i += (int)blockDim.x)

/* does task b write what the task before it writes? */
SOLVE_DEVICE bool solve_same(const plane &p, int64_t b) { return p.data && plane_follows(p, b) && !(p.slot && p.slot[b] < 0); }
SOLVE_DEVICE bool solve_follows(const solve_job &job, int64_t b) {
  return solve_same(job.w_out, b) || solve_same(job.x_out, b) || solve_same(job.y_out, b);
}
/* row i of a triangle begins here. triangular numbers of 2^m neighbours from a multiple on are a permutation modulo 2^m:
 * a column is read without conflicts */
SOLVE_DEVICE int solve_row(int i) { return i * (i + 1) / 2; }

struct solve_task {
  const solve_job &job;
  int64_t b;
  int     R, I, O, n, ld, lane, warp, warps; /* n: unknowns */
  bool    good;
  double  ridge, *C, *inverse, *next;        /* C: columns of L times their pivot; next: memory that is not taken */
  float  *x, *xt;

  __device__ __forceinline__ solve_task(const solve_job &j, double *memory) : job(j) {
    I = job.I, O = job.O, ld = job.ld;
    lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    C = memory, inverse = C + solve_row(job.most), next = inverse + job.most;
    if (job.own) next = reinterpret_cast<double *>(job.scratch + (int64_t)blockIdx.x * job.own);
    x = xt = NULL;
  }
  __device__ __forceinline__ double *take(int64_t count) {
    double *at = next;
    next += count;
    return at;
  }
  __device__ __forceinline__ double *thin() { return take((int64_t)O * job.R); }
  __device__ __forceinline__ double *wide() { return take((int64_t)O * I); }
  __device__ __forceinline__ double *rows() { return take(job.R); }
  __device__ __forceinline__ double *columns() { return take(I); }
  __device__ __forceinline__ void planes(bool dual) {
    x = reinterpret_cast<float *>(next), xt = x + (int64_t)job.R * ld;
    next += ((dual ? 2 : 1) * (int64_t)job.R * ld + 1) / 2;
  }
  __device__ __forceinline__ double number(const plane &p) const {
    const char *at = plane_task(p, b);
    return at ? (double)plane_get(p, at, 0) : 0.0;
  }
  __device__ __forceinline__ void stage(const plane &p, float *to) const {
    const char *at = plane_task(p, b);
    SOLVE_EACH(k, R * I) {
      const int r = k / I, c = k - r * I;
      to[r * ld + c] = at ? plane_get(p, at, (int64_t)r * p.row + (int64_t)c * p.col) : 0.0f;
    }
  }
  /* task b_: its rows on their way; a barrier must follow */
  __device__ __forceinline__ void enter(int64_t b_, bool dual) {
    b = b_, R = (int)wire_rows(job.offsets, b, job.R), n = min(R, I);
    ridge = number(job.ridge);
    const char *at = plane_task(job.label, b);
    int         bad = 0;
    SOLVE_EACH(r, job.label.data ? R : 0) bad |= label(at, r) >= O;
    good = !__syncthreads_or(bad) && ridge > 0; /* behind it: nobody is at the task before */
    stage(job.x, x);
    if (dual) stage(job.xt, xt);
  }
  __device__ __forceinline__ int64_t label(const char *at, int r) const {
    return at ? plane_index(job.label, at, (int64_t)r * job.label.row) : 0;
  }
  /* y of classes [first, first + count), or its tangent, by classes */
  __device__ __forceinline__ void targets(bool tangent, int first, int count, double *to) const {
    const plane &p = tangent ? job.yt : job.y;
    const char  *at = plane_task(p, b), *labels = plane_task(job.label, b);
    SOLVE_EACH(k, R * count) {
      const int r = k / count, o = k - r * count, own = first + o;
      double    y = at ? (double)plane_get(p, at, (int64_t)r * p.row + (int64_t)own * p.col) : 0.0;
      if (job.label.data && !tangent) y = label(labels, r) == own;
      to[o * R + r] = y;
    }
  }
  /* the same classes of a wire of w */
  __device__ __forceinline__ void weights(const plane &p, int first, int count, double *to) const {
    const char *at = plane_task(p, b);
    SOLVE_EACH(k, count * I) {
      const int o = k / I, c = k - o * I;
      to[k] = at ? (double)plane_get(p, at, (int64_t)(first + o) * p.row + (int64_t)c * p.col) : 0.0;
    }
  }
  /* value(row, column) of `rows` x `columns` elements from row `first` on */
  template <class VALUE>
  __device__ __forceinline__ void put(const plane &p, int first, int rows, int columns, VALUE value) const {
    char      *at = plane_task(p, b);
    const bool adds = p.add || plane_follows(p, b);
    SOLVE_EACH(k, at ? rows * columns : 0) {
      const int r = k / columns, c = k - r * columns;
      plane_put(p, at, (int64_t)(first + r) * p.row + (int64_t)c * p.col, value(r, c), adds);
    }
  }
  /* of ridge; all threads call, with one value */
  __device__ __forceinline__ void put_number(double value) const {
    sum_part part;
    if (!job.ridge_out.data || sum_chunk(job.ridge_out, job.B, b, part, 1) <= 0 || threadIdx.x) return;
    sum_put(job.ridge_out, part, job.parts, 0, 1, 0, value);
  }
};

/* ---- device: products; a barrier must follow each ---- */

/* of vectors, by every warp: every thread gets it */
SOLVE_DEVICE double solve_dot(const solve_task &t, const double *x, const double *y, int n) {
  double sum = 0;
  for (int i = t.lane; i < n; i += 32) sum = fma(x[i], y[i], sum);
  return warp_sum(sum);
}
/* to (count x R) = or += sign m x', m (count x I). the four sums of a warp are of rows eight apart: rows of odd length then
 * begin eight banks apart */
SOLVE_DEVICE void solve_apply(const solve_task &t, double sign, const float *x, const double *m, int count, bool add,
                              double *to) {
  const int own = t.lane % SOLVE_LANES, all = count * t.R;
  for (int unit = t.warp; unit < (all + 31) / 32 * 8; unit += t.warps) {
    const int k = unit / 8 * 32 + unit % 8 + t.lane / SOLVE_LANES * 8, o = k / t.R, r = k - o * t.R;
    double    sum = 0;
    for (int i = own; k < all && i < t.I; i += SOLVE_LANES) sum = fma((double)x[r * t.ld + i], m[o * t.I + i], sum);
#pragma unroll
    for (int step = SOLVE_LANES / 2; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (own == 0 && k < all) to[k] = (add ? to[k] : 0.0) + sign * sum;
  }
}
/* element i of c' x, c: R */
SOLVE_DEVICE double solve_take(const solve_task &t, const float *x, const double *c, int i) {
  double sum = 0;
#pragma unroll 2
  for (int r = 0; r < t.R; r++) sum = fma(c[r], (double)x[r * t.ld + i], sum);
  return sum;
}
/* m (count x I) += sign c x, c (count x R) */
SOLVE_DEVICE void solve_gather(const solve_task &t, double sign, const double *c, const float *x, int count, double *m) {
  SOLVE_EACH(k, count * t.I) m[k] += sign * solve_take(t, x, c + k / t.I * t.R, k % t.I);
}

/* ---- device: the system ---- */

/* triangle of the products of rows of x, or of columns, there with weights d of rows (NULL: 1); `ridge` on the diagonal */
SOLVE_DEVICE void solve_gram(const solve_task &t, const double *d, double ridge, double *to) {
  const bool rows = t.R < t.I;
  for (int i = t.warp; i < t.n; i += t.warps)
    for (int j = t.lane; j <= i; j += 32) {
      double sum = 0;
      if (rows)
        for (int c = 0; c < t.I; c++) sum = fma((double)t.x[i * t.ld + c], (double)t.x[j * t.ld + c], sum);
      else
        for (int r = 0; r < t.R; r++)
          sum = fma((double)t.x[r * t.ld + i] * (d ? d[r] : 1.0), (double)t.x[r * t.ld + j], sum);
      to[solve_row(i) + j] = i == j ? sum + ridge : sum;
    }
}
/* factors t.C; a barrier a column, and one behind the last. good: as long as all pivots are positive */
SOLVE_DEVICE void solve_factor(solve_task &t) {
  for (int k = 0; k < t.n; k++) {
    const double pivot = t.C[solve_row(k) + k], over = 1.0 / pivot;
    t.good = t.good && pivot > 0;
    if (threadIdx.x == 0) t.inverse[k] = over;
    for (int i = k + 1 + t.warp; i < t.n; i += t.warps) {
      double      *row = t.C + solve_row(i);
      const double f = row[k] * over;
      for (int j = k + 1 + t.lane; j <= i; j += 32) row[j] = fma(-f, t.C[solve_row(j) + k], row[j]);
    }
    __syncthreads();
  }
}
/* m (n) becomes the solution; by one warp */
SOLVE_DEVICE void solve_substitute(const solve_task &t, double *m) {
  for (int j = 0; j < t.n; j++) {
    const double z = m[j] * t.inverse[j];
    for (int i = j + 1 + t.lane; i < t.n; i += 32) m[i] = fma(-t.C[solve_row(i) + j], z, m[i]);
    __syncwarp();
  }
  for (int j = t.n - 1; j >= 0; j--) {
    const double z = m[j] * t.inverse[j];
    for (int i = t.lane; i < j; i += 32) m[i] = fma(-t.C[solve_row(j) + i], z, m[i]);
    __syncwarp();
    if (t.lane == 0) m[j] = z;
  }
}
/* `count` vectors of n numbers; ends with a barrier */
SOLVE_DEVICE void solve_each(const solve_task &t, double *m, int count) {
  for (int o = t.warp; o < count; o += t.warps) solve_substitute(t, m + o * t.n);
  __syncthreads();
}
/* rows of m (count x I) := m G^-1, NaN where there is none; begins and ends with a barrier. z (count x R): more memory; root
 * (NULL: 1): of the weights, where the system has R unknowns */
SOLVE_DEVICE void solve_inverse(const solve_task &t, const double *root, double *z, double *m, int count) {
  __syncthreads();
  if (!t.good) {
    SOLVE_EACH(k, count * t.I) m[k] = (double)NAN;
  } else if (t.R < t.I) {
    solve_apply(t, 1, t.x, m, count, false, z);
    __syncthreads();
    if (root) {
      SOLVE_EACH(k, count * t.R) z[k] *= root[k % t.R];
      __syncthreads();
    }
    solve_each(t, z, count);
    if (root) {
      SOLVE_EACH(k, count * t.R) z[k] *= root[k % t.R];
      __syncthreads();
    }
    SOLVE_EACH(k, count * t.I) m[k] = (m[k] - solve_take(t, t.x, z + k / t.I * t.R, k % t.I)) / t.ridge;
  } else {
    solve_each(t, m, count);
  }
  __syncthreads();
}

/* every task of the launch whose first of a slot is this block's: run(b, class) */
template <class RUN>
SOLVE_DEVICE void solve_walk(const solve_job &job, RUN run) {
  for (int64_t unit = blockIdx.x; unit < job.units; unit += gridDim.x) {
    const int64_t first = unit / job.classes;
    if (solve_follows(job, first)) continue;
    for (int64_t b = first; b == first || (b < job.B && solve_follows(job, b)); b++) run(b, (int)(unit % job.classes));
  }
}

#endif
