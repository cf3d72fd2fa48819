/* map.h: CPU kernels that map up to 7 inputs to one output, element by element, with broadcasting; the output may have
 * to be summed over what it lacks. kernels see plain blocks of floats side by side. no op logic.
 *
 * where the output goes decides the cut:
 *   LOCAL  each row of the job writes its own row (a column-broadcast output: the sum of its row)
 *   TASKS  row r of the output gets row r of every task of its slot, in task order; unit r
 *   ROWS   one output row for all rows of a task, and of all tasks of its slot; unit = slot group x block of columns */
#ifndef MICA_KERNELS_COMMON_MAP_H
#define MICA_KERNELS_COMMON_MAP_H

#include "common/rows.h"
#include "common/simd.h"

enum { MAP_CHUNK = 512, MAP_COLUMNS = 32, MAP_INPUTS = 7 };
enum { MAP_NONE, MAP_LOCAL, MAP_TASKS, MAP_ROWS };

/* out[0, n) from in[k][0, n); in[MAP_INPUTS] is 1 / count of a job that has `count`, else zeros */
typedef void (*map_fn)(const void *args, int64_t n, const float *const *in, float *out);

/* one wire of a port of `rows` x `cols` in the frame of the job's R x C */
typedef struct map_side {
  const mica_wire *wire;
  const int32_t   *offsets;
  int64_t          rows, cols;
} map_side;

typedef struct map_job {
  const void    *args;
  int64_t        B, R, C;
  const int32_t *offsets;                    /* of the job's rows */
  uint32_t       reads;                      /* bit k: input k is looked at; the others are zero to the kernel */
  int            count;                      /* bits: 1 counts the task's rows, 2 the columns */
  map_side       in[MAP_INPUTS], out;
  map_fn         fn;
} map_job;

/* one row for all rows of a task? */
static inline int map_one_row(const map_side *s, int64_t R) { return s->rows == 1 && R != 1 && !s->offsets; }

static inline int map_kind(const map_job *job) {
  const map_side *out = &job->out;
  if (!out->wire->data) return MAP_NONE;
  if (map_one_row(out, job->R)) return MAP_ROWS;
  int own_rows = !out->offsets == !job->offsets;
  return own_rows && micak_per_task(out->wire, out->offsets, job->B) ? MAP_LOCAL : MAP_TASKS;
}

/* ---- blocks of a row ---- */

typedef struct map_plane {
  const char *at;                            /* NULL: zeros */
  int64_t     row, col;                      /* elements */
  int32_t     dtype;
} map_plane;

static inline map_plane map_plane_of(const map_side *s, int64_t b, int64_t R, int64_t C) {
  map_plane p = { micak_task(s->wire, s->offsets, b), s->wire->stride[0], s->wire->stride[1], s->wire->dtype };
  if (map_one_row(s, R)) p.row = 0;
  if (s->cols == 1 && C != 1) p.col = 0;
  else if (C == 1) p.col = 1;
  return p;
}

/* n elements from column c of row r, side by side; integers as floats 0 and 1 (masks) */
static inline const float *map_load(const map_plane *p, int64_t r, int64_t c, int64_t n, float *buffer) {
  static const float zeros[MAP_CHUNK];
  if (!p->at) return zeros;
  int64_t first = r * p->row + c * p->col;
  if (p->dtype == MICA_F32) {
    const float *at = (const float *)p->at + first;
    if (p->col == 1) return at;
    for (int64_t i = 0; i < n; i++) buffer[i] = at[i * p->col];
  } else if (p->dtype == MICA_U8) {
    for (int64_t i = 0; i < n; i++) buffer[i] = ((const uint8_t *)p->at)[first + i * p->col] != 0;
  } else if (p->dtype == MICA_I64) {
    for (int64_t i = 0; i < n; i++) buffer[i] = ((const int64_t *)(const void *)p->at)[first + i * p->col] != 0;
  } else {
    for (int64_t i = 0; i < n; i++) buffer[i] = ((const int32_t *)(const void *)p->at)[first + i * p->col] != 0;
  }
  return buffer;
}

typedef struct map_task {
  map_plane in[MAP_INPUTS];
  float     share;                           /* 1 / count; 0 for a count of 0 */
} map_task;

static inline void map_enter(const map_job *job, int64_t b, map_task *task) {
  for (int k = 0; k < MAP_INPUTS; k++) {
    task->in[k].at = NULL;
    if (job->reads >> k & 1) task->in[k] = map_plane_of(&job->in[k], b, job->R, job->C);
  }
  int64_t n = (job->count & 1 ? micak_rows(job->offsets, b, job->R) : 1) * (job->count & 2 ? job->C : 1);
  task->share = job->count && n ? 1 / (float)n : 0;
}

/* the n <= MAP_CHUNK results from column c of row r */
static inline void map_block(const map_job *job, const map_task *task, int64_t r, int64_t c, int64_t n, float *out) {
  float           buffer[MAP_INPUTS + 1][MAP_CHUNK];
  const float    *in[MAP_INPUTS + 1];
  const map_plane none = { NULL, 0, 0, MICA_F32 };
  for (int k = 0; k < MAP_INPUTS; k++) in[k] = map_load(&task->in[k], r, c, n, buffer[k]);
  in[MAP_INPUTS] = job->count ? buffer[MAP_INPUTS] : map_load(&none, 0, 0, n, NULL);
  for (int64_t i = 0; job->count && i < n; i++) buffer[MAP_INPUTS][i] = task->share;
  job->fn(job->args, n, in, out);
}

/* sums of few terms cancel, so they are kept in double: VW chains, then across */
static inline void map_sum_into(double lane[VW], const float *x, int64_t n) {
  int64_t i = 0;
  for (; i + VW <= n; i += VW)
    for (int k = 0; k < VW; k++) lane[k] += (double)x[i + k];
  for (int k = 0; i + k < n; k++) lane[k] += (double)x[i + k];
}
/* the sum of a whole row's results */
static inline double map_row_sum(const map_job *job, const map_task *task, int64_t r) {
  float  block[MAP_CHUNK];
  double lane[VW] = { 0 };
  for (int64_t c = 0; c < job->C; c += MAP_CHUNK) {
    int64_t n = job->C - c < MAP_CHUNK ? job->C - c : MAP_CHUNK;
    map_block(job, task, r, c, n, block);
    map_sum_into(lane, block, n);
  }
  for (int half = VW / 2; half; half /= 2)
    for (int k = 0; k < half; k++) lane[k] += lane[k + half];
  return lane[0];
}

/* ---- LOCAL and TASKS ---- */

/* are the rows one unbroken run, so that several are as good as one long one? */
static inline int map_unbroken(const map_job *job, const map_task *task, const micak_plane *out) {
  if (out->row != job->C || (out->col != 1 && job->C != 1)) return 0;
  for (int k = 0; k < MAP_INPUTS; k++)
    if (task->in[k].at &&
        (task->in[k].row != job->C || task->in[k].col != 1 || task->in[k].dtype != MICA_F32)) return 0;
  return 1;
}

static inline void map_row(const map_job *job, const map_task *task, micak_plane *out, int64_t r, int64_t C) {
  float block[MAP_CHUNK];
  float *row = out->at + r * out->row;
  for (int64_t c = 0; c < C; c += MAP_CHUNK) {
    int64_t     n = C - c < MAP_CHUNK ? C - c : MAP_CHUNK;
    micak_plane part = { row + c * out->col, 0, C == 1 ? 1 : out->col, out->add };
    float      *to = micak_row_out(&part, 0, block);
    map_block(job, task, r, c, n, to);
    micak_row_done(&part, 0, n, to);
  }
}

static inline mica_status map_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  const map_job *job = args;
  micak_plane    out = micak_plane_rows(job->out.wire, job->out.offsets, b);
  if (!out.at) return MICA_OK;
  map_task task;
  map_enter(job, b, &task);
  if (job->out.cols == 1 && job->C != 1) {
    for (int64_t r = r0; r < r1; r++) micak_put_cell(&out, r, (float)map_row_sum(job, &task, r));
    return MICA_OK;
  }
  if (r1 - r0 > 1 && map_unbroken(job, &task, &out)) {
    map_task run = task;
    for (int k = 0; k < MAP_INPUTS; k++)
      if (run.in[k].at) run.in[k].at += r0 * job->C * (int64_t)sizeof(float), run.in[k].col = 1;
    out.at += r0 * job->C, out.col = 1;
    map_row(job, &run, &out, 0, (r1 - r0) * job->C);
    return MICA_OK;
  }
  for (int64_t r = r0; r < r1; r++) map_row(job, &task, &out, r, job->C);
  return MICA_OK;
}

/* row r of a summed output, over all tasks; a task without that row adds nothing, but the first still clears */
static inline void map_tasks(const map_job *job, int64_t r) {
  for (int64_t b = 0; b < job->B; b++) {
    if (r < micak_rows(job->offsets, b, job->R)) {
      map_rows(job, b, r, r + 1, NULL);
      continue;
    }
    micak_plane out = micak_plane_rows(job->out.wire, job->out.offsets, b);
    if (!out.at || out.add || r >= micak_rows(job->out.offsets, b, job->R)) continue;
    for (int64_t c = 0; c < job->out.cols; c++) out.at[r * out.row + c * out.col] = 0;
  }
}

/* ---- ROWS ---- */

static inline int64_t map_blocks(const map_job *job) {
  return job->out.cols == job->C ? (job->C + MAP_COLUMNS - 1) / MAP_COLUMNS : 1;
}

/* columns [c, c + n) of the one output row of slot group g; n is 1 and the row is summed where the output has one
 * column */
static inline void map_group(const map_job *job, int64_t g, int64_t block) {
  int64_t begin, end;
  int     whole = job->out.cols == job->C;   /* each column its own sum */
  int64_t c = block * MAP_COLUMNS, n = whole ? (job->C - c < MAP_COLUMNS ? job->C - c : MAP_COLUMNS) : 1;
  float   row[MAP_COLUMNS];
  double  sum[MAP_COLUMNS] = { 0 };
  micak_group(job->out.wire, job->B, g, &begin, &end);
  micak_plane out = micak_plane_rows(job->out.wire, NULL, begin);
  if (!out.at) return;
  for (int64_t b = begin; b < end; b++) {
    int64_t  rows = micak_rows(job->offsets, b, job->R);
    map_task task;
    map_enter(job, b, &task);
    for (int64_t r = 0; r < rows; r++) {
      if (!whole) {
        sum[0] += map_row_sum(job, &task, r);
        continue;
      }
      map_block(job, &task, r, c, n, row);
      for (int64_t i = 0; i < n; i++) sum[i] += (double)row[i];
    }
  }
  for (int64_t i = 0; i < n; i++) {
    float *at = out.at + (c + i) * out.col;
    *at = (float)(out.add ? (double)*at + sum[i] : sum[i]);
  }
}

/* ---- cutting a job ---- */

/* the phase of row-local outputs */
static inline void map_split_local(const map_job *job, mica_split *split) {
  micak_split_rows(job->offsets, job->B, job->R, 0, job->C, split);
}
static inline void map_run_local(const map_job *job, int64_t first, int64_t count) {
  if (map_kind(job) == MAP_LOCAL)
    micak_walk_rows(job->offsets, job->B, job->R, 0, first, count, map_rows, job, NULL);
}
/* the phase of summed outputs: number of units, and one of them */
static inline int64_t map_sum_units(const map_job *job) {
  int kind = map_kind(job);
  return kind == MAP_TASKS ? job->R : kind == MAP_ROWS ? micak_groups(job->out.wire, job->B) * map_blocks(job) : 0;
}
static inline void map_run_sum(const map_job *job, int64_t unit) {
  if (map_kind(job) == MAP_TASKS) map_tasks(job, unit);
  else map_group(job, unit / map_blocks(job), unit % map_blocks(job));
}

#endif
