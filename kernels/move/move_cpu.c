/* moves on the CPU: every output row is put together from pieces of source rows */
#include "common/isa.h"
#include "move/move_internal.h"

/* columns [c, c + n) of output row r from row ri (-1: zeros), column ci of the source */
static void put(const micak_plane *out, int64_t r, int64_t c, const micak_plane *in, int64_t ri, int64_t ci,
                int64_t n) {
  float *to = out->at + r * out->row + c * out->col;
  if (n <= 0) return;
  if (ri < 0 || !in->at) {
    for (int64_t i = 0; !out->add && i < n; i++) to[i * out->col] = 0;
    return;
  }
  const float *from = in->at + ri * in->row + ci * in->col;
  if (out->col == 1 && in->col == 1 && !out->add) memcpy(to, from, (size_t)n * sizeof *to);
  else if (out->col == 1 && in->col == 1)
    for (int64_t i = 0; i < n; i++) to[i] += from[i];
  else
    for (int64_t i = 0; i < n; i++)
      to[i * out->col] = out->add ? to[i * out->col] + from[i * in->col] : from[i * in->col];
}

static micak_plane plane_of(const mica_port *port, int face, int64_t b) {
  return micak_plane_rows(move_wire(port, face), port->offsets, b);
}
static void run_job(const move_job *job, micak_rows_fn fn, int64_t first, int64_t count, mica_status *status) {
  if (!job->out->data) return;
  *status = micak_walk_rows(job->port->offsets, job->B, job->rows, move_sums(job), first, count, fn, job, NULL);
}

/* ---- concat ---- */

static mica_status concat_down(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  const move_job         *job = args;
  const mica_concat_args *a = job->args;
  micak_plane out = plane_of(&a->y, job->face, b);
  micak_plane pa = plane_of(&a->a, job->face, b), pb = plane_of(&a->b, job->face, b);
  int64_t ra = micak_rows(a->a.offsets, b, a->Ra), rb = micak_rows(a->b.offsets, b, a->Rb);
  for (int64_t r = r0; r < r1 && out.at; r++)
    if (a->axis == MOVE_ROW) {
      int from_a = r < ra;
      put(&out, r, 0, from_a ? &pa : &pb, from_a ? r : r - ra < rb ? r - ra : -1, 0, a->C);
    } else {
      put(&out, r, 0, &pa, r < ra ? r : -1, 0, a->Ca);
      put(&out, r, a->Ca, &pb, r < rb ? r : -1, 0, a->Cb);
    }
  return MICA_OK;
}
static mica_status concat_up(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  const move_job         *job = args;
  const mica_concat_args *a = job->args;
  int         second = job->port == &a->b;
  micak_plane out = plane_of(job->port, job->face, b), y = plane_of(&a->y, job->face, b);
  int64_t down = second && a->axis == MOVE_ROW ? micak_rows(a->a.offsets, b, a->Ra) : 0;
  int64_t along = second && a->axis == MOVE_COLUMN ? a->Ca : 0, have = micak_rows(a->y.offsets, b, a->R);
  for (int64_t r = r0; r < r1 && out.at; r++) put(&out, r, 0, &y, down + r < have ? down + r : -1, along, job->cols);
  return MICA_OK;
}
/* a's units come first, then b's, unless both have the same rows: then a unit is a row of both */
static mica_status concat_run(const void *args, int face, int64_t first, int64_t count) {
  mica_status status = MICA_OK;
  if (!move_up(face)) {
    move_job job = concat_job(args, face, 0);
    run_job(&job, concat_down, first, count, &status);
    return status;
  }
  mica_split split[2];
  move_job   job[2];
  for (int k = 0; k < 2; k++) job[k] = concat_job(args, face, k), move_split(&job[k], &split[k]);
  int together = concat_together(job, split);
  for (int k = 0; k < 2 && status >= 0; k++) {
    int64_t begin = first < 0 ? 0 : first, end = first + count < split[k].units ? first + count : split[k].units;
    if (begin < end) run_job(&job[k], concat_up, begin, end - begin, &status);
    if (!together) first -= split[k].units;
  }
  return status;
}

/* ---- slice, transpose ---- */

static mica_status slice_down(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  const move_job        *job = args;
  const mica_slice_args *a = job->args;
  micak_plane out = plane_of(&a->y, job->face, b), x = plane_of(&a->x, job->face, b);
  int64_t have = micak_rows(a->x.offsets, b, a->R);
  for (int64_t r = r0; r < r1 && out.at; r++) {
    int64_t from = a->row + r * a->step;
    put(&out, r, 0, &x, from < have ? from : -1, a->column, a->Cy);
  }
  return MICA_OK;
}
static mica_status slice_up(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  const move_job        *job = args;
  const mica_slice_args *a = job->args;
  micak_plane out = plane_of(&a->x, job->face, b), y = plane_of(&a->y, job->face, b);
  int64_t have = micak_rows(a->y.offsets, b, a->Ry);
  for (int64_t r = r0; r < r1 && out.at; r++) {
    int64_t from = r >= a->row && (r - a->row) % a->step == 0 ? (r - a->row) / a->step : -1;
    if (from >= have) from = -1;
    put(&out, r, 0, &y, -1, 0, a->column);
    put(&out, r, a->column, &y, from, 0, a->Cy);
    put(&out, r, a->column + a->Cy, &y, -1, 0, a->C - a->column - a->Cy);
  }
  return MICA_OK;
}
static mica_status slice_run(const void *args, int face, int64_t first, int64_t count) {
  mica_status status = MICA_OK;
  move_job    job = slice_job(args, face);
  run_job(&job, move_up(face) ? slice_up : slice_down, first, count, &status);
  return status;
}

static mica_status transpose_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  const move_job            *job = args;
  const mica_transpose_args *a = job->args;
  micak_plane out = plane_of(job->port, job->face, b), in = plane_of(job->port == &a->x ? &a->y : &a->x, job->face, b);
  int64_t row = in.row;
  in.row = in.col, in.col = row;
  for (int64_t r = r0; r < r1 && out.at; r++) put(&out, r, 0, &in, r, 0, job->cols);
  return MICA_OK;
}
static mica_status transpose_run(const void *args, int face, int64_t first, int64_t count) {
  mica_status status = MICA_OK;
  move_job    job = transpose_job(args, face);
  run_job(&job, transpose_rows, first, count, &status);
  return status;
}

/* ---- gather, scatter_add ---- */

/* index of row r, checked; -1 for none */
static mica_status index_of(const mica_gather_args *a, int scatter, int64_t b, int64_t r, int64_t have, int64_t *v) {
  const char *at = micak_task(&a->index.v, a->index.offsets, b);
  int64_t     i = r * a->index.v.stride[0];
  if (!at) *v = 0;
  else if (a->index.v.dtype == MICA_I64) *v = ((const int64_t *)(const void *)at)[i];
  else if (a->index.v.dtype == MICA_U8) *v = ((const uint8_t *)at)[i];
  else *v = ((const int32_t *)(const void *)at)[i];
  if (*v >= -1 && *v < have) return MICA_OK;
  return mica_error(MICA_ERR_INVALID, "%s: index of task %lld, row %lld is %lld, expected -1 (none) or 0 to %lld",
                    scatter ? "scatter_add" : "gather", (long long)b, (long long)r, (long long)*v, (long long)have - 1);
}
static mica_status index_pull(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  (void)scratch;
  const move_job         *job = args;
  const mica_gather_args *a = job->args;
  int              scatter = job->port == &a->x;
  const mica_port *table = gather_table(a, scatter);
  micak_plane out = plane_of(job->port, job->face, b), in = plane_of(table, job->face, b);
  int64_t have = micak_rows(table->offsets, b, a->V), v;
  for (int64_t r = r0; r < r1; r++) {
    mica_status status = index_of(a, scatter, b, r, have, &v);
    if (status < 0) return status;
    if (out.at) put(&out, r, 0, &in, v, 0, a->C);
  }
  return MICA_OK;
}
/* one block of columns of the table of one task: rows in order */
static mica_status index_push(const move_job *job, int64_t b, int64_t c0) {
  const mica_gather_args *a = job->args;
  int              scatter = job->port == &a->y;
  const mica_port *rows = gather_rows(a, scatter);
  micak_plane out = plane_of(job->port, job->face, b), in = plane_of(rows, job->face, b);
  int64_t have = micak_rows(job->port->offsets, b, a->V), n = a->C - c0 < MOVE_BLOCK ? a->C - c0 : MOVE_BLOCK, v;
  if (!out.at) return MICA_OK;
  for (int64_t r = 0; r < have; r++) put(&out, r, c0, &in, -1, 0, n);
  out.add = 1;
  for (int64_t r = 0, count = micak_rows(a->index.offsets, b, a->R); r < count; r++) {
    mica_status status = index_of(a, scatter, b, r, have, &v);
    if (status < 0) return status;
    if (v >= 0 && in.at) put(&out, v, c0, &in, r, c0, n);
  }
  return MICA_OK;
}
/* pushing: unit = task x block of columns; the first task of a slot does all of its slot, in order */
static mica_status index_run(const void *args, int scatter, int face, int64_t first, int64_t count) {
  mica_status status = MICA_OK;
  move_job    job = gather_job(args, scatter, face);
  if (gather_pulls(scatter, face)) {
    run_job(&job, index_pull, first, count, &status);
    return status;
  }
  int64_t blocks = (job.cols + MOVE_BLOCK - 1) / MOVE_BLOCK;
  for (int64_t u = first; u < first + count && status >= 0; u++) {
    int64_t b = u / blocks;
    if (micak_same_slot(job.out, job.port->offsets, b)) continue;
    do status = index_push(&job, b, u % blocks * MOVE_BLOCK);
    while (status >= 0 && ++b < job.B && micak_same_slot(job.out, job.port->offsets, b));
  }
  return status;
}
static mica_status gather_run(const void *args, int face, int64_t first, int64_t count) {
  return index_run(args, 0, face, first, count);
}
static mica_status scatter_add_run(const void *args, int face, int64_t first, int64_t count) {
  return index_run(args, 1, face, first, count);
}

#define MOVE_FACE(name, face, FACE)                     \
  CPU_KERNEL(name##_##face) {                           \
    (void)exec;                                         \
    return name##_run(args, FACE, first, count);        \
  }
#define MOVE_FACES(name)                                \
  MOVE_FACE(name, forward, MICA_FORWARD)                \
  MOVE_FACE(name, backward, MICA_BACKWARD)              \
  MOVE_FACE(name, jvp, MICA_JVP)                        \
  MOVE_FACE(name, backward_jvp, MICA_BACKWARD_JVP)
MOVE_FACES(concat)
MOVE_FACES(slice)
MOVE_FACES(transpose)
MOVE_FACES(gather)
MOVE_FACES(scatter_add)
