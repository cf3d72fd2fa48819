/* rows.h: how CPU kernels (f32) walk the rows of tasks: planes of wires, row cuts, slot groups. no op logic.
 *
 * every function is static inline: the including file is compiled once for each instruction set. */
#ifndef MICA_KERNELS_COMMON_ROWS_H
#define MICA_KERNELS_COMMON_ROWS_H

#include <string.h>

#include "common/op.h"

/* one task of an f32 wire seen as rows: element (r, c) is at[r row + c col]. at == NULL: zeros, or nowhere. */
typedef struct micak_plane {
  float  *at;
  int64_t row, col;
  int     add;                               /* outputs: add to what is there (flag, or not the first of its slot) */
} micak_plane;

static inline micak_plane micak_plane_at(const mica_wire *w, const int32_t *offsets, int64_t b, int64_t row,
                                         int64_t col) {
  micak_plane p = { (float *)micak_task(w, offsets, b), row, col, 0 };
  if (p.at) p.add = (w->flags & MICA_ADD) || micak_same_slot(w, offsets, b);
  return p;
}
/* of a wire (B,R,C) */
static inline micak_plane micak_plane_rows(const mica_wire *w, const int32_t *offsets, int64_t b) {
  return micak_plane_at(w, offsets, b, w->stride[0], w->stride[1]);
}
/* of a wire (B,C): one row for every r */
static inline micak_plane micak_plane_param(const mica_wire *w, int64_t b) {
  return micak_plane_at(w, NULL, b, 0, w->stride[0]);
}
/* element r of a wire (B,R) */
static inline float micak_cell(const micak_plane *p, int64_t r) { return p->at ? p->at[r * p->row] : 0; }
static inline void micak_put_cell(const micak_plane *p, int64_t r, float value) {
  if (!p->at) return;
  float *at = p->at + r * p->row;
  *at = p->add ? *at + value : value;
}

/* row r as n floats side by side: in place where the columns are, else copied to `buffer` */
static inline const float *micak_row_in(const micak_plane *p, int64_t r, int64_t n, float *buffer) {
  if (!p->at) {
    memset(buffer, 0, (size_t)n * sizeof *buffer);
    return buffer;
  }
  const float *at = p->at + r * p->row;
  if (p->col == 1) return at;
  for (int64_t c = 0; c < n; c++) buffer[c] = at[c * p->col];
  return buffer;
}
/* where to compute output row r: the place itself, or `buffer` which micak_row_done carries over */
static inline float *micak_row_out(const micak_plane *p, int64_t r, float *buffer) {
  return p->at && p->col == 1 && !p->add ? p->at + r * p->row : buffer;
}
static inline void micak_row_done(const micak_plane *p, int64_t r, int64_t n, const float *from) {
  if (!p->at) return;
  float *at = p->at + r * p->row;
  if (at == from) return;
  if (p->add)
    for (int64_t c = 0; c < n; c++) at[c * p->col] += from[c];
  else
    for (int64_t c = 0; c < n; c++) at[c * p->col] = from[c];
}

/* one task of an index port (B,R) */
typedef struct micak_index_row {
  const char *at;
  int64_t     row;
  int32_t     dtype;
} micak_index_row;
static inline micak_index_row micak_index_row_of(const mica_port *port, int64_t b) {
  return (micak_index_row){ (const char *)micak_task(&port->v, port->offsets, b), port->v.stride[0], port->v.dtype };
}
static inline int64_t micak_index_in(const micak_index_row *p, int64_t r) {
  if (!p->at) return 0;
  r *= p->row;
  return p->dtype == MICA_I32 ? ((const int32_t *)p->at)[r]
         : p->dtype == MICA_I64 ? ((const int64_t *)p->at)[r]
                                : ((const uint8_t *)p->at)[r];
}

/* ---- cuts ---- */

/* row-local faces have one unit a row; where an output sums over tasks, unit r is row r of all tasks in order. */
static inline int micak_wire_sums(const mica_wire *w, const int32_t *offsets, int64_t tasks) {
  return w->data && !micak_per_task(w, offsets, tasks);
}
/* does any wanted wire of these ports, the one named by bit, sum over tasks? NULL ports are skipped */
static inline int micak_ports_sum(const mica_port *const *ports, int n, int bit, int64_t tasks) {
  for (int i = 0; i < n; i++) {
    mica_port *p = (mica_port *)(uintptr_t)ports[i];
    if (p && micak_wire_sums(micak_wire(p, bit), p->offsets, tasks)) return 1;
  }
  return 0;
}
static inline void micak_split_rows(const int32_t *offsets, int64_t tasks, int64_t rows, int sums, int64_t row_floats,
                                    mica_split *split) {
  split->units = sums ? rows : rows ? micak_all_rows(offsets, tasks, rows) : 0;
  split->rows = !sums;
  int64_t unit = (sums ? tasks : 1) * row_floats;
  split->grain = unit > 8192 ? 1 : 8192 / (unit ? unit : 1);
}

typedef mica_status (*micak_rows_fn)(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch);

static inline mica_status micak_walk_rows(const int32_t *offsets, int64_t tasks, int64_t rows, int sums, int64_t first,
                                          int64_t count, micak_rows_fn fn, const void *args, float *scratch) {
  mica_status status = MICA_OK;
  if (count <= 0 || rows <= 0) return MICA_OK;
  if (sums) {
    for (int64_t r = first; r < first + count; r++)
      for (int64_t b = 0; b < tasks && status >= 0; b++)
        if (r < micak_rows(offsets, b, rows)) status = fn(args, b, r, r + 1, scratch);
    return status;
  }
  int64_t b, r;
  micak_find_row(offsets, tasks, rows, first, &b, &r);
  for (; count > 0 && b < tasks && status >= 0; b++, r = 0) {
    int64_t n = micak_rows(offsets, b, rows) - r;
    if (n > count) n = count;
    if (n <= 0) continue;
    status = fn(args, b, r, r + n, scratch);
    count -= n;
  }
  return status;
}

/* slot groups of a summed output without row axis: runs of tasks with equal slot */
static inline int64_t micak_groups(const mica_wire *w, int64_t tasks) {
  if (!w->data || tasks <= 0) return 0;
  int64_t n = 0;
  for (int64_t b = 0; b < tasks; b++) n += !micak_same_slot(w, NULL, b);
  return n;
}
/* tasks [*begin, *end) of group g */
static inline void micak_group(const mica_wire *w, int64_t tasks, int64_t g, int64_t *begin, int64_t *end) {
  int64_t b = 0;
  if (!w->slot) {
    *begin = w->task_stride ? g : 0;
    *end = w->task_stride ? g + 1 : tasks;
    return;
  }
  for (int64_t n = -1; b < tasks; b++)
    if ((n += !micak_same_slot(w, NULL, b)) == g) break;
  *begin = b;
  for (b++; b < tasks && micak_same_slot(w, NULL, b); b++) {}
  *end = b;
}

#endif
