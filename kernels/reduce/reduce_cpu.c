/* reductions on the CPU. sum, mean and the derivatives of logsumexp are maps with broadcasting (common/map.h); max and
 * the value of logsumexp need the largest element of a cell first */
#include "common/isa.h"
#include "reduce/reduce_internal.h"

/* ---- maps ---- */

#define REDUCE_FN(name, body)                                                                                \
  static inline vf name(vf x, vf t, vf y, vf yt, vf d, vf td, vf share) {                                    \
    (void)x, (void)t, (void)y, (void)yt, (void)d, (void)td, (void)share;                                     \
    return body;                                                                                             \
  }                                                                                                          \
  static void name##_n(const void *args, int64_t n, const float *const *in, float *out) {                    \
    (void)args;                                                                                              \
    int64_t i = 0;                                                                                           \
    for (; i + VW <= n; i += VW)                                                                             \
      v_store(out + i, name(v_load(in[0] + i), v_load(in[1] + i), v_load(in[2] + i), v_load(in[3] + i),      \
                            v_load(in[4] + i), v_load(in[5] + i), v_load(in[MAP_INPUTS] + i)));              \
    int64_t k = n - i;                                                                                       \
    if (k > 0)                                                                                               \
      v_store_n(out + i, name(v_load_n(in[0] + i, k), v_load_n(in[1] + i, k), v_load_n(in[2] + i, k),        \
                              v_load_n(in[3] + i, k), v_load_n(in[4] + i, k), v_load_n(in[5] + i, k),        \
                              v_load_n(in[MAP_INPUTS] + i, k)), k);                                          \
  }

/* e^(x - y); a cell of -inf has no weight */
static inline vf weight(vf x, vf y) { return v_keep(v_ne(y, v_set1(-INFINITY)), v_exp(x - y)); }

REDUCE_FN(take_x, x)
REDUCE_FN(take_t, t)
REDUCE_FN(take_d, d)
REDUCE_FN(take_td, td)
REDUCE_FN(share_x, x * share)
REDUCE_FN(share_t, t * share)
REDUCE_FN(share_d, d * share)
REDUCE_FN(share_td, td * share)
REDUCE_FN(weigh_t, weight(x, y) * t)
REDUCE_FN(weigh_d, weight(x, y) * d)
REDUCE_FN(weigh_td, weight(x, y) * v_fma(t - yt, d, td))

static void run_map(const map_job *job, int64_t first, int64_t count) {
  if (map_kind(job) == MAP_LOCAL) map_run_local(job, first, count);
  else
    for (int64_t u = first; u < first + count && u < map_sum_units(job); u++) map_run_sum(job, u);
}
#define REDUCE_MAP(name, face, FACE, reads, mean, fn)                             \
  CPU_KERNEL(name##_##face) {                                                     \
    (void)exec;                                                                   \
    map_job job = reduce_job(args, FACE, reads, mean, fn##_n);                    \
    run_map(&job, first, count);                                                  \
    return MICA_OK;                                                               \
  }
REDUCE_MAP(sum, forward, MICA_FORWARD, REDUCE_XV, 0, take_x)
REDUCE_MAP(sum, backward, MICA_BACKWARD, REDUCE_YD, 0, take_d)
REDUCE_MAP(sum, jvp, MICA_JVP, REDUCE_XT, 0, take_t)
REDUCE_MAP(sum, backward_jvp, MICA_BACKWARD_JVP, REDUCE_YTD, 0, take_td)
REDUCE_MAP(mean, forward, MICA_FORWARD, REDUCE_XV, 1, share_x)
REDUCE_MAP(mean, backward, MICA_BACKWARD, REDUCE_YD, 1, share_d)
REDUCE_MAP(mean, jvp, MICA_JVP, REDUCE_XT, 1, share_t)
REDUCE_MAP(mean, backward_jvp, MICA_BACKWARD_JVP, REDUCE_YTD, 1, share_td)
REDUCE_MAP(logsumexp, backward, MICA_BACKWARD, REDUCE_XV | REDUCE_YV | REDUCE_YD, 0, weigh_d)
REDUCE_MAP(logsumexp, jvp, MICA_JVP, REDUCE_XV | REDUCE_XT | REDUCE_YV, 0, weigh_t)
REDUCE_MAP(logsumexp, backward_jvp, MICA_BACKWARD_JVP,
           REDUCE_XV | REDUCE_XT | REDUCE_YV | REDUCE_YT | REDUCE_YD | REDUCE_YTD, 0, weigh_td)

/* ---- cells: rows [r0, r1) and columns [c0, c1), as one (or, with axis=row, one for each column) ---- */

typedef struct cells {
  int64_t b, r0, r1, c0, c1;
  int     each;                              /* one a column */
  float   top[MAP_COLUMNS];                  /* largest element, and the first place that has it */
  int64_t r[MAP_COLUMNS], c[MAP_COLUMNS];
} cells;

static inline float cell_at(const micak_plane *x, int64_t r, int64_t c) {
  return x->at ? x->at[r * x->row + c * x->col] : 0;
}
static void cells_top(const micak_plane *x, cells *s) {
  for (int64_t j = 0; j < (s->each ? s->c1 - s->c0 : 1); j++)
    s->top[j] = -INFINITY, s->r[j] = s->r0, s->c[j] = s->c0 + j;
  for (int64_t r = s->r0; r < s->r1; r++)
    for (int64_t c = s->c0; c < s->c1; c++) {
      int64_t j = s->each ? c - s->c0 : 0;
      float   v = cell_at(x, r, c);
      if (v > s->top[j] || (v != v && s->top[j] == s->top[j])) s->top[j] = v, s->r[j] = r, s->c[j] = c;
    }
}
/* log of the sum of e^x of each cell */
static void cells_log_sum(const micak_plane *x, const cells *s, float *out) {
  double sum[MAP_COLUMNS] = { 0 };
  float  block[MAP_CHUNK];
  for (int64_t r = s->r0; r < s->r1; r++)
    for (int64_t c = s->c0; c < s->c1; c += MAP_CHUNK) {
      int64_t n = s->c1 - c < MAP_CHUNK ? s->c1 - c : MAP_CHUNK;
      for (int64_t i = 0; i < n; i++) block[i] = cell_at(x, r, c + i) - s->top[s->each ? i : 0];
      for (int64_t i = 0; i < n; i += VW) {
        int64_t k = n - i < VW ? n - i : VW;
        v_store_n(block + i, v_exp_low(v_load_n(block + i, k)), k);
      }
      for (int64_t i = 0; i < n; i++) sum[s->each ? i : 0] += (double)block[i];
    }
  for (int64_t j = 0; j < (s->each ? s->c1 - s->c0 : 1); j++)
    out[j] = isinf(s->top[j]) || s->top[j] != s->top[j] ? s->top[j] : s->top[j] + v_log(v_set1((float)sum[j]))[0];
}

typedef void (*cells_fn)(const mica_reduce_args *a, const micak_plane *x, cells *s, const micak_plane *out);

/* place of cell j in a plane of y */
static inline float *cell_y(const mica_reduce_args *a, const micak_plane *y, const cells *s, int64_t j) {
  return y->at + (a->axis == REDUCE_COLUMN ? s->r0 * y->row : 0) + (s->each ? (s->c0 + j) * y->col : 0);
}
static void put_y(const mica_reduce_args *a, const micak_plane *out, const cells *s, const float *value) {
  for (int64_t j = 0; j < (s->each ? s->c1 - s->c0 : 1); j++) {
    float *at = cell_y(a, out, s, j);
    *at = out->add ? *at + value[j] : value[j];
  }
}
static void max_down_value(const mica_reduce_args *a, const micak_plane *x, cells *s, const micak_plane *out) {
  (void)x;
  put_y(a, out, s, s->top);
}
static void max_down_tangent(const mica_reduce_args *a, const micak_plane *x, cells *s, const micak_plane *out) {
  (void)x;
  float       value[MAP_COLUMNS] = { 0 };
  micak_plane t = micak_plane_rows(&a->x.t, a->x.offsets, s->b);
  for (int64_t j = 0; j < (s->each ? s->c1 - s->c0 : 1); j++)
    if (s->r1 > s->r0 && s->c1 > s->c0) value[j] = cell_at(&t, s->r[j], s->c[j]);
  put_y(a, out, s, value);
}
static void max_up(const mica_reduce_args *a, cells *s, const mica_wire *from, const micak_plane *out) {
  micak_plane y = micak_plane_rows(from, a->y.offsets, s->b);
  for (int64_t r = s->r0; r < s->r1; r++)
    for (int64_t c = s->c0; c < s->c1; c++) {
      int64_t j = s->each ? c - s->c0 : 0;
      float  *at = out->at + r * out->row + c * out->col, value = 0;
      if (r == s->r[j] && c == s->c[j] && y.at) value = *cell_y(a, &y, s, j);
      *at = out->add ? *at + value : value;
    }
}
static void max_up_cotangent(const mica_reduce_args *a, const micak_plane *x, cells *s, const micak_plane *out) {
  (void)x;
  max_up(a, s, &a->y.d, out);
}
static void max_up_tangent(const mica_reduce_args *a, const micak_plane *x, cells *s, const micak_plane *out) {
  (void)x;
  max_up(a, s, &a->y.td, out);
}
static void log_sum_value(const mica_reduce_args *a, const micak_plane *x, cells *s, const micak_plane *out) {
  float value[MAP_COLUMNS];
  cells_log_sum(x, s, value);
  put_y(a, out, s, value);
}

typedef struct cells_job {
  const mica_reduce_args *a;
  const mica_wire        *out;
  const int32_t          *out_offsets;
  cells_fn                fn;
} cells_job;

static void cells_run(const cells_job *job, cells *s) {
  const mica_reduce_args *a = job->a;
  micak_plane out = micak_plane_rows(job->out, job->out_offsets, s->b);
  if (!out.at) return;
  micak_plane x = micak_plane_rows(&a->x.v, a->x.offsets, s->b);
  cells_top(&x, s);
  job->fn(a, &x, s, &out);
}
static mica_status cells_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  const cells_job *job = args;
  for (int64_t r = r0; r < r1; r++) {
    cells s = { .b = b, .r0 = r, .r1 = r + 1, .c0 = 0, .c1 = job->a->C, .each = 0 };
    cells_run(job, &s);
  }
  return MICA_OK;
}
/* axis=column: rows as usual. else unit = task x block of columns, and the first task of a slot does all of its slot */
static void run_cells(const mica_reduce_args *a, int face, cells_fn fn, int64_t first, int64_t count) {
  int       up = reduce_up(face);
  cells_job job = { a, reduce_out(a, face), up ? a->x.offsets : a->y.offsets, fn };
  if (!job.out->data) return;
  if (a->axis == REDUCE_COLUMN) {
    micak_walk_rows(a->x.offsets, a->B, a->R, micak_wire_sums(job.out, job.out_offsets, a->B), first, count, cells_rows,
                    &job, NULL);
    return;
  }
  int64_t blocks = reduce_blocks(a);
  for (int64_t u = first; u < first + count; u++) {
    int64_t b = u / blocks, c0 = u % blocks * MAP_COLUMNS;
    if (micak_same_slot(job.out, job.out_offsets, b)) continue;
    do {
      int64_t c1 = a->axis == REDUCE_ALL || a->C - c0 < MAP_COLUMNS ? a->C : c0 + MAP_COLUMNS;
      cells   s = { .b = b, .r0 = 0, .r1 = micak_rows(a->x.offsets, b, a->R), .c0 = c0, .c1 = c1,
                    .each = a->axis == REDUCE_ROW };
      cells_run(&job, &s);
    } while (++b < a->B && micak_same_slot(job.out, job.out_offsets, b));
  }
}
#define REDUCE_CELLS(name, face, FACE, fn)            \
  CPU_KERNEL(name##_##face) {                         \
    (void)exec;                                       \
    run_cells(args, FACE, fn, first, count);          \
    return MICA_OK;                                   \
  }
REDUCE_CELLS(max, forward, MICA_FORWARD, max_down_value)
REDUCE_CELLS(max, jvp, MICA_JVP, max_down_tangent)
REDUCE_CELLS(max, backward, MICA_BACKWARD, max_up_cotangent)
REDUCE_CELLS(max, backward_jvp, MICA_BACKWARD_JVP, max_up_tangent)
REDUCE_CELLS(logsumexp, forward, MICA_FORWARD, log_sum_value)
