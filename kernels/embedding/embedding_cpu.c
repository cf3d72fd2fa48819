/* embedding and position_add on the CPU. down: row-local copies; up: rows of y (row-local) and sums into the table, by
 * (slot group, block of columns) for tokens, by (slot group, position) for positions */
#include "common/columns.h"
#include "common/isa.h"
#include "embedding/embedding_internal.h"

static mica_status look_up(const mica_embedding_args *a, const mica_wire *table, const mica_wire *out, int64_t b,
                           int64_t r0, int64_t r1, float *scratch) {
  micak_index_row tokens = micak_index_row_of(&a->tokens, b);
  micak_plane w = micak_plane_rows(table, NULL, b), y = micak_plane_rows(out, a->y.offsets, b);
  for (int64_t r = r0; r < r1; r++) {
    int64_t i = micak_index_in(&tokens, r);
    if (i < 0 || i >= a->V) return embedding_token_error(a, i, b, r);
    micak_row_done(&y, r, a->C, micak_row_in(&w, i, a->C, scratch));
  }
  return MICA_OK;
}
static mica_status forward_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_embedding_args *a = args;
  return look_up(a, &a->w.v, &a->y.v, b, r0, r1, scratch);
}
static mica_status jvp_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const mica_embedding_args *a = args;
  return look_up(a, &a->w.t, &a->y.t, b, r0, r1, scratch);
}
static mica_status walk(const mica_exec *exec, const mica_embedding_args *a, int bit, micak_rows_fn rows, int64_t first,
                        int64_t count) {
  const mica_port *outputs[] = { &a->y };
  return micak_walk_rows(a->tokens.offsets, a->B, a->R, micak_ports_sum(outputs, 1, bit, a->B), first, count, rows, a,
                         exec->scratch);
}
CPU_KERNEL(embedding_forward) { return walk(exec, args, MICA_V, forward_rows, first, count); }
CPU_KERNEL(embedding_jvp) { return walk(exec, args, MICA_T, jvp_rows, first, count); }

/* columns [c0, c1) of the table of one slot group */
static mica_status scatter(const mica_embedding_args *a, const mica_wire *table, const mica_wire *in, int64_t begin,
                           int64_t end, int64_t c0, int64_t c1) {
  micak_plane w = micak_plane_rows(table, NULL, begin);
  if (!w.at) return MICA_OK;
  w.at += c0 * w.col;
  const int64_t n = c1 - c0;
  float buffer[EMBEDDING_BLOCK] = { 0 };
  if (!w.add)
    for (int64_t i = 0; i < a->V; i++) micak_row_done(&w, i, n, buffer);
  w.add = 1;
  for (int64_t b = begin; b < end; b++) {
    micak_index_row tokens = micak_index_row_of(&a->tokens, b);
    micak_plane y = micak_plane_rows(in, a->y.offsets, b);
    int64_t R = micak_rows(a->tokens.offsets, b, a->R);
    if (y.at) y.at += c0 * y.col;
    for (int64_t r = 0; r < R; r++) {
      int64_t i = micak_index_in(&tokens, r);
      if (i < 0 || i >= a->V) return embedding_token_error(a, i, b, r);
      if (y.at) micak_row_done(&w, i, n, micak_row_in(&y, r, n, buffer));
    }
  }
  return MICA_OK;
}
static mica_status scatter_units(const mica_embedding_args *a, const mica_wire *table, const mica_wire *in,
                                 int64_t first, int64_t count) {
  int64_t blocks = (a->C + EMBEDDING_BLOCK - 1) / EMBEDDING_BLOCK;
  mica_status status = MICA_OK;
  for (int64_t u = first; u < first + count && status >= 0; u++) {
    int64_t begin, end, c0 = u % blocks * EMBEDDING_BLOCK, c1 = c0 + EMBEDDING_BLOCK;
    if (c1 > a->C) c1 = a->C;
    micak_group(table, a->B, u / blocks, &begin, &end);
    status = scatter(a, table, in, begin, end, c0, c1);
  }
  return status;
}
CPU_KERNEL(embedding_backward) {
  const mica_embedding_args *a = args;
  return (void)exec, scatter_units(a, &a->w.d, &a->y.d, first, count);
}
CPU_KERNEL(embedding_backward_jvp) {
  const mica_embedding_args *a = args;
  return (void)exec, scatter_units(a, &a->w.td, &a->y.td, first, count);
}

/* ---- position_add ---- */

static mica_status position_down(const mica_position_add_args *a, const mica_wire *x_wire, const mica_wire *w_wire,
                                 const mica_wire *y_wire, int64_t b, int64_t r0, int64_t r1, float *scratch) {
  const int64_t C = a->C;
  micak_plane x = micak_plane_rows(x_wire, a->x.offsets, b), w = micak_plane_rows(w_wire, NULL, b);
  micak_plane y = micak_plane_rows(y_wire, a->y.offsets, b);
  for (int64_t r = r0; r < r1; r++) {
    const float *xr = micak_row_in(&x, r, C, scratch), *wr = micak_row_in(&w, r, C, scratch + C);
    float *out = micak_row_out(&y, r, scratch + 2 * C);
    MICAK_COLUMNS(C, micak_st(out + c, micak_ld(xr + c, n) + micak_ld(wr + c, n), n););
    micak_row_done(&y, r, C, out);
  }
  return MICA_OK;
}
static mica_status position_up(const mica_position_add_args *a, const mica_wire *x_wire, const mica_wire *y_wire,
                               int64_t b, int64_t r0, int64_t r1, float *scratch) {
  micak_plane x = micak_plane_rows(x_wire, a->x.offsets, b), y = micak_plane_rows(y_wire, a->y.offsets, b);
  for (int64_t r = r0; r < r1; r++) micak_row_done(&x, r, a->C, micak_row_in(&y, r, a->C, scratch));
  return MICA_OK;
}
/* row r of the table of each slot group: the sum of row r of its tasks */
static mica_status position_table(const mica_position_add_args *a, const mica_wire *table, const mica_wire *in,
                                  int64_t first, int64_t count, float *scratch) {
  const int64_t C = a->C;
  int64_t group = -1, begin = 0, end = 0;
  for (int64_t u = first; u < first + count; u++) {
    if (u / a->P != group) micak_group(table, a->B, group = u / a->P, &begin, &end);
    int64_t r = u % a->P;
    micak_plane w = micak_plane_rows(table, NULL, begin);
    if (!w.at) continue;
    float *sum = micak_row_out(&w, r, scratch);
    memset(sum, 0, (size_t)C * sizeof *sum);
    for (int64_t b = begin; b < end; b++) {
      if (r >= micak_rows(a->x.offsets, b, a->R)) continue;
      micak_plane y = micak_plane_rows(in, a->y.offsets, b);
      if (!y.at) continue;
      const float *from = micak_row_in(&y, r, C, scratch + C);
      MICAK_COLUMNS(C, micak_st(sum + c, micak_ld(sum + c, n) + micak_ld(from + c, n), n););
    }
    micak_row_done(&w, r, C, sum);
  }
  return MICA_OK;
}

#define POSITION_ROWS(face, port, bit, ...)                                                                            \
  static mica_status position_##face##_rows(const void *args, int64_t b, int64_t r0, int64_t r1, float *scratch) {     \
    const mica_position_add_args *a = args;                                                                            \
    return __VA_ARGS__;                                                                                                \
  }                                                                                                                    \
  CPU_KERNEL(position_add_##face) {                                                                                    \
    const mica_position_add_args *a = args;                                                                            \
    const mica_port *outputs[] = { &a->port };                                                                         \
    return micak_walk_rows(a->x.offsets, a->B, a->R, micak_ports_sum(outputs, 1, bit, a->B), first, count,             \
                           position_##face##_rows, args, exec->scratch);                                               \
  }
POSITION_ROWS(forward, y, MICA_V, position_down(a, &a->x.v, &a->w.v, &a->y.v, b, r0, r1, scratch))
POSITION_ROWS(jvp, y, MICA_T, position_down(a, &a->x.t, &a->w.t, &a->y.t, b, r0, r1, scratch))
POSITION_ROWS(backward, x, MICA_D, position_up(a, &a->x.d, &a->y.d, b, r0, r1, scratch))
POSITION_ROWS(backward_jvp, x, MICA_TD, position_up(a, &a->x.td, &a->y.td, b, r0, r1, scratch))
CPU_KERNEL(position_add_backward_table) {
  const mica_position_add_args *a = args;
  return position_table(a, &a->w.d, &a->y.d, first, count, exec->scratch);
}
CPU_KERNEL(position_add_backward_jvp_table) {
  const mica_position_add_args *a = args;
  return position_table(a, &a->w.td, &a->y.td, first, count, exec->scratch);
}
