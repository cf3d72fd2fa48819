/* memory_lanes.h: memories of short sequences, from nothing to nothing: a lane is a (task, head) pair, so that vectors are
 * full whatever T, K and V are, and no state is ever made. the lines are those of a chunk in memory_chunk.inc (README.md of
 * delta_rule); every matrix carries its tangent, and each of its elements is a vector. included by memory_cpu.h. */
#ifndef MICA_KERNELS_COMMON_MEMORY_LANES_H
#define MICA_KERNELS_COMMON_MEMORY_LANES_H

#include "common/simd_transpose.h"

#define LANES_INLINE static inline __attribute__((always_inline))
enum { LANES_R = 3, LANES_J = 4 };           /* rows and columns of results in registers */

/* element (i, j) at i row + j col. t NULL: a constant; v NULL, of a result: only the tangent is wanted */
typedef struct lanes_mat {
  float  *v, *t;
  int64_t row, col;
} lanes_mat;
/* pairs of one length that run together; idle lanes repeat the first */
typedef struct lanes_group {
  memory_pair first;
  int64_t     b[VW], h[VW];
  int         n;
  float      *at;                            /* scratch */
} lanes_group;

static inline lanes_mat lanes_turned(lanes_mat x) { return (lanes_mat){ x.v, x.t, x.col, x.row }; }
static inline lanes_mat lanes_make(lanes_group *g, int64_t rows, int64_t cols) {
  lanes_mat x = { g->at, NULL, cols * VW, VW };
  g->at += rows * cols * VW;
  if (!g->first.dual) return x;
  x.t = g->at;
  g->at += rows * cols * VW;
  return x;
}
/* of a walk back */
static inline lanes_mat lanes_result(lanes_group *g, int64_t rows, int64_t cols) {
  lanes_mat x = lanes_make(g, rows, cols);
  if (!g->first.out_v) x.v = NULL;
  return x;
}

/* ---- products ---- */

/* which terms p of a sum row i takes: all; those up to i, below i, from i on, beyond i. LOWER_C: all terms, of columns up to i
 * (others may be anything) */
enum { LANES_LOWER_C, LANES_TO, LANES_BELOW, LANES_FROM, LANES_BEYOND };

LANES_INLINE void lanes_terms(int R, int J, int64_t from, int64_t to, const float *a, int64_t arow, int64_t aterm,
                              const float *b, int64_t bterm, int64_t bcol, vf (*sum)[LANES_J]) {
  for (int64_t p = from; p < to; p++) {
    vf y[LANES_J];
#pragma GCC unroll 4
    for (int j = 0; j < J; j++) y[j] = v_load(b + p * bterm + j * bcol);
#pragma GCC unroll 3
    for (int r = 0; r < R; r++) {
      vf x = v_load(a + r * arow + p * aterm);
#pragma GCC unroll 4
      for (int j = 0; j < J; j++) sum[r][j] = v_fma(x, y[j], sum[r][j]);
    }
  }
}
/* C (R,J) = or += A B from row i on, terms in order whatever the tile. what a triangle leaves out is not touched: it may be
 * infinite */
LANES_INLINE void lanes_tile(int R, int J, int shape, int64_t i, int64_t n, const float *a, int64_t arow, int64_t aterm,
                             const float *b, int64_t bterm, int64_t bcol, float *c, int64_t crow, int64_t ccol, int add) {
  vf sum[LANES_R][LANES_J];
#pragma GCC unroll 3
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int j = 0; j < J; j++) sum[r][j] = add ? v_load(c + r * crow + j * ccol) : v_zero();
  int64_t from = 0, to = n;                  /* terms that all rows take */
  if (shape == LANES_TO || shape == LANES_BELOW) to = i + (shape == LANES_TO);
  if (shape == LANES_FROM || shape == LANES_BEYOND) {
    from = i + (shape == LANES_BEYOND);
#pragma GCC unroll 3
    for (int r = 0; r < R; r++)
      lanes_terms(1, J, from + r, from + R - 1 < n ? from + R - 1 : n, a + r * arow, 0, aterm, b, bterm, bcol, &sum[r]);
    from += R - 1;
  }
  lanes_terms(R, J, from, to, a, arow, aterm, b, bterm, bcol, sum);
  if (to < n)
#pragma GCC unroll 3
    for (int r = 1; r < R; r++) lanes_terms(1, J, to, to + r, a + r * arow, 0, aterm, b, bterm, bcol, &sum[r]);
#pragma GCC unroll 3
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int j = 0; j < J; j++) v_store(c + r * crow + j * ccol, sum[r][j]);
}
#define LANES_TILE(R, J)                                                                                                \
  static void lanes_tile_##R##_##J(int shape, int64_t i, int64_t n, const float *a, int64_t arow, int64_t aterm,        \
                                   const float *b, int64_t bterm, int64_t bcol, float *c, int64_t crow, int64_t ccol,   \
                                   int add) {                                                                           \
    lanes_tile(R, J, shape, i, n, a, arow, aterm, b, bterm, bcol, c, crow, ccol, add);                                  \
  }
#define LANES_TILES(R) LANES_TILE(R, 1) LANES_TILE(R, 2) LANES_TILE(R, 3) LANES_TILE(R, 4)
LANES_TILES(1) LANES_TILES(2) LANES_TILES(3)
typedef void (*lanes_fn)(int shape, int64_t i, int64_t n, const float *a, int64_t arow, int64_t aterm, const float *b,
                         int64_t bterm, int64_t bcol, float *c, int64_t crow, int64_t ccol, int add);
#define LANES_ROW(R) { lanes_tile_##R##_1, lanes_tile_##R##_2, lanes_tile_##R##_3, lanes_tile_##R##_4 }
static const lanes_fn lanes_tiles[LANES_R][LANES_J] = { LANES_ROW(1), LANES_ROW(2), LANES_ROW(3) };

static void lanes_product(int shape, int64_t rows, int64_t cols, int64_t n, const float *a, lanes_mat A, const float *b,
                          lanes_mat B, float *c, lanes_mat C, int add) {
  for (int64_t i = 0, R; i < rows; i += R) {
    R = rows - i < LANES_R ? rows - i : LANES_R;
    int64_t end = shape == LANES_LOWER_C && i + R < cols ? i + R : cols;
    for (int64_t j = 0, J; j < end; j += J) {
      J = end - j < LANES_J ? end - j : LANES_J;
      lanes_tiles[R - 1][J - 1](shape, i, n, a + i * A.row, A.row, A.col, b + j * B.col, B.row, B.col,
                                c + i * C.row + j * C.col, C.row, C.col, add);
    }
  }
}
/* C (rows, cols) = or += A B, n terms, with tangents */
static void lanes_mm(int shape, int64_t rows, int64_t cols, int64_t n, lanes_mat A, lanes_mat B, lanes_mat C, int add) {
  if (C.v) lanes_product(shape, rows, cols, n, A.v, A, B.v, B, C.v, C, add);
  if (!C.t) return;
  if (A.t) lanes_product(shape, rows, cols, n, A.t, A, B.v, B, C.t, C, add), add = 1;
  if (B.t) lanes_product(shape, rows, cols, n, A.v, A, B.t, B, C.t, C, add), add = 1;
  for (int64_t i = 0; i < rows && !add; i++)
    for (int64_t j = 0; j < cols; j++) v_store(C.t + i * C.row + j * C.col, v_zero());
}

static void lanes_negate(lanes_mat x, int64_t n) {
  for (int64_t i = 0; i < n * VW && x.v; i += VW) v_store(x.v + i, v_zero() - v_load(x.v + i));
  for (int64_t i = 0; i < n * VW && x.t; i += VW) v_store(x.t + i, v_zero() - v_load(x.t + i));
}

/* y += what row t of N takes of x; N (T,T), x (T, .), J columns: the substitutions */
LANES_INLINE void lanes_more(int J, int shape, int64_t t, int64_t T, const float *n, lanes_mat N, const float *x, lanes_mat X,
                             vf y[1][LANES_J]) {
  int below = shape == LANES_BELOW;
  lanes_terms(1, J, below ? 0 : t + 1, below ? t : T, n + t * N.row, 0, N.col, x, X.row, X.col, y);
}
/* x_t = Y_t + sum of N_ts z_s, z_t = beta_t x_t: s before t (downwards) or after it; N is that of README.md, less than zero */
LANES_INLINE void lanes_solve_tile(int J, int shape, int64_t T, lanes_mat N, lanes_mat beta, lanes_mat Y, lanes_mat X,
                                   lanes_mat Z) {
  for (int64_t step = 0; step < T; step++) {
    int64_t t = shape == LANES_BELOW ? step : T - 1 - step;
    vf      x[1][LANES_J], xt[1][LANES_J], b = v_load(beta.v + t * beta.row), bt = v_zero();
    for (int j = 0; j < J; j++) x[0][j] = v_load(Y.v + t * Y.row + j * Y.col);
    lanes_more(J, shape, t, T, N.v, N, Z.v, Z, x);
    for (int j = 0; j < J; j++) {
      v_store(X.v + t * X.row + j * X.col, x[0][j]);
      v_store(Z.v + t * Z.row + j * Z.col, b * x[0][j]);
    }
    if (!Z.t) continue;
    if (beta.t) bt = v_load(beta.t + t * beta.row);
    for (int j = 0; j < J; j++) xt[0][j] = Y.t ? v_load(Y.t + t * Y.row + j * Y.col) : v_zero();
    lanes_more(J, shape, t, T, N.v, N, Z.t, Z, xt);
    lanes_more(J, shape, t, T, N.t, N, Z.v, Z, xt);
    for (int j = 0; j < J; j++) {
      v_store(X.t + t * X.row + j * X.col, xt[0][j]);
      v_store(Z.t + t * Z.row + j * Z.col, v_fma(bt, x[0][j], b * xt[0][j]));
    }
  }
}
static inline lanes_mat lanes_columns(lanes_mat x, int64_t c) {
  return (lanes_mat){ x.v + c * x.col, x.t ? x.t + c * x.col : NULL, x.row, x.col };
}
static void lanes_solve(int shape, int64_t T, int64_t cols, lanes_mat N, lanes_mat beta, lanes_mat Y, lanes_mat X, lanes_mat Z) {
  int64_t c = 0;
  for (; c + LANES_J <= cols; c += LANES_J)
    lanes_solve_tile(LANES_J, shape, T, N, beta, lanes_columns(Y, c), lanes_columns(X, c), lanes_columns(Z, c));
  for (; c < cols; c++)
    lanes_solve_tile(1, shape, T, N, beta, lanes_columns(Y, c), lanes_columns(X, c), lanes_columns(Z, c));
}

/* ---- ports ---- */

static void lanes_views(const lanes_group *g, const mica_port *port, int bit, int kind, memory_view view[VW]) {
  view[0] = memory_view_of(port, bit, kind, g->b[0], g->h[0]);
  for (int i = 1; i < VW; i++) view[i] = i < g->n ? memory_view_of(port, bit, kind, g->b[i], g->h[i]) : view[0];
}
/* one wire of T rows; 0: there is none, all zeros */
static int lanes_load_wire(const lanes_group *g, const mica_port *port, int bit, int kind, int64_t cols, float *to) {
  memory_view view[VW];
  if (!micak_wire((mica_port *)(uintptr_t)port, bit)->data) return 0;
  lanes_views(g, port, bit, kind, view);
  for (int64_t t = 0; t < g->first.T; t++)
    for (int64_t c = 0; c < cols; c += VW) {
      int64_t n = cols - c < VW ? cols - c : VW;
      vf x[VW];
      for (int i = 0; i < VW; i++) {
        const float *at = view[i].at ? view[i].at + t * view[i].row + c * view[i].col : NULL;
        if (!at) {
          x[i] = v_zero();
        } else if (view[i].col == 1) {
          x[i] = micak_ld(at, n);
        } else {
          float row[VW] = { 0 };
          for (int64_t j = 0; j < n; j++) row[j] = at[j * view[i].col];
          x[i] = v_load(row);
        }
      }
      v_transpose(x);
      for (int64_t j = 0; j < n; j++, to += VW) v_store(to, x[j]);
    }
  return 1;
}
static lanes_mat lanes_load(lanes_group *g, const mica_port *port, int bit, int kind, int64_t cols) {
  lanes_mat x = lanes_make(g, g->first.T, cols);
  if (!lanes_load_wire(g, port, bit, kind, cols, x.v)) memset(x.v, 0, (size_t)(g->first.T * cols * VW) * sizeof *x.v);
  if (x.t && !lanes_load_wire(g, port, bit == MICA_V ? MICA_T : MICA_TD, kind, cols, x.t)) x.t = NULL;
  return x;
}
/* lane by lane, so that what shares a place adds in order */
static void lanes_store_wire(const lanes_group *g, const mica_port *port, int bit, int kind, int64_t cols, lanes_mat from,
                             const float *at) {
  memory_view view[VW];
  if (!bit || !micak_wire((mica_port *)(uintptr_t)port, bit)->data) return;
  lanes_views(g, port, bit, kind, view);
  for (int64_t t = 0; t < g->first.T; t++)
    for (int64_t c = 0; c < cols; c += VW) {
      int64_t n = cols - c < VW ? cols - c : VW;
      vf x[VW];
      for (int64_t j = 0; j < VW; j++) x[j] = j < n ? v_load(at + t * from.row + (c + j) * from.col) : v_zero();
      v_transpose(x);
      for (int i = 0; i < g->n; i++) {
        float *to = view[i].at ? view[i].at + t * view[i].row + c * view[i].col : NULL;
        if (!to) continue;
        if (view[i].col == 1) {
          micak_st(to, view[i].add ? micak_ld(to, n) + x[i] : x[i], n);
          continue;
        }
        float row[VW];
        v_store(row, x[i]);
        for (int64_t j = 0; j < n; j++) to[j * view[i].col] = view[i].add ? to[j * view[i].col] + row[j] : row[j];
      }
    }
}

static void lanes_store(const lanes_group *g, const mica_port *port, int kind, int64_t cols, lanes_mat from) {
  lanes_store_wire(g, port, memory_out_bit(g->first.face, 0), kind, cols, from, from.v);
  lanes_store_wire(g, port, memory_out_bit(g->first.face, 1), kind, cols, from, from.t);
}

/* ---- a group ---- */

typedef struct lanes_chunk { lanes_mat Q, K, V, beta, gram, M, E, U; } lanes_chunk;

static void lanes_up(lanes_group *g, const lanes_chunk *c) {
  const micak_memory *m = g->first.m;
  int64_t T = g->first.T, K = m->K, V = m->V;
  lanes_mat dO = lanes_load(g, m->out, MICA_D, MICAK_VIEW_ROWS, V), UT = lanes_turned(c->U);
  lanes_mat dM = lanes_make(g, T, T), dU = lanes_make(g, T, V), Y = dU, dN = dM;
  lanes_mm(LANES_LOWER_C, T, T, V, dO, UT, dM, 0);
  lanes_mm(LANES_FROM, T, V, T, lanes_turned(c->M), dO, dU, 0);
  if (m->delta) {
    Y = lanes_make(g, T, V), dN = lanes_make(g, T, T);
    lanes_solve(LANES_BEYOND, T, V, lanes_turned(c->gram), c->beta, dU, dU, Y); /* dU becomes the cotangent of u */
    if (memory_wanted(&g->first, m->beta)) {
      lanes_mat d = lanes_result(g, T, 1);
      for (int64_t t = 0; t < T; t++) { /* <dU, e>: a product of one row and one column */
        lanes_mat x = { dU.v + t * dU.row, dU.t ? dU.t + t * dU.row : NULL, dU.row, dU.col };
        lanes_mat e = { c->E.v + t * c->E.row, c->E.t ? c->E.t + t * c->E.row : NULL, c->E.col, c->E.row };
        lanes_mat to = { d.v ? d.v + t * d.row : NULL, d.t ? d.t + t * d.row : NULL, d.row, d.col };
        lanes_mm(LANES_LOWER_C, 1, 1, V, x, e, to, 0);
      }
      lanes_store(g, m->beta, MICAK_VIEW_FACTOR, 1, d);
    }
    lanes_mm(LANES_LOWER_C, T, T, V, Y, UT, dN, 0); /* of - N */
  }
  lanes_store(g, m->v, MICAK_VIEW_ROWS, V, Y);
  lanes_mat dX = lanes_result(g, T, K);
  if (memory_wanted(&g->first, m->q)) {
    lanes_mm(LANES_TO, T, K, T, dM, c->K, dX, 0);
    lanes_store(g, m->q, MICAK_VIEW_ROWS, K, dX);
  }
  if (!memory_wanted(&g->first, m->k)) return;
  if (m->delta) { /* - (dN + dN') K */
    lanes_mm(LANES_BELOW, T, K, T, dN, c->K, dX, 0);
    lanes_mm(LANES_BEYOND, T, K, T, lanes_turned(dN), c->K, dX, 1);
    lanes_negate(dX, T * K);
  }
  lanes_mm(LANES_FROM, T, K, T, lanes_turned(dM), c->Q, dX, m->delta);
  lanes_store(g, m->k, MICAK_VIEW_ROWS, K, dX);
}

static void lanes_run(lanes_group *g, float *scratch) {
  if (!g->n) return;
  const micak_memory *m = g->first.m;
  int64_t T = g->first.T, K = m->K, V = m->V;
  lanes_chunk c = { 0 };
  g->at = scratch;
  c.Q = lanes_load(g, m->q, MICA_V, MICAK_VIEW_ROWS, K);
  c.K = lanes_load(g, m->k, MICA_V, MICAK_VIEW_ROWS, K);
  c.V = c.U = c.E = lanes_load(g, m->v, MICA_V, MICAK_VIEW_ROWS, V);
  c.M = lanes_make(g, T, T);
  lanes_mm(LANES_LOWER_C, T, T, K, c.Q, lanes_turned(c.K), c.M, 0);
  if (m->delta) {
    c.gram = lanes_make(g, T, T), c.E = lanes_make(g, T, V), c.U = lanes_make(g, T, V);
    lanes_mm(LANES_LOWER_C, T, T, K, c.K, lanes_turned(c.K), c.gram, 0);
    lanes_negate(c.gram, T * T);
    if (m->beta->v.data) {
      c.beta = lanes_load(g, m->beta, MICA_V, MICAK_VIEW_FACTOR, 1);
    } else {
      c.beta = lanes_make(g, T, 1), c.beta.t = NULL;
      for (int64_t t = 0; t < T; t++) v_store(c.beta.v + t * VW, v_set1(1.0f));
    }
    lanes_solve(LANES_BELOW, T, V, c.gram, c.beta, c.V, c.E, c.U);
  }
  if (g->first.back) {
    lanes_up(g, &c);
  } else {
    lanes_mat O = lanes_make(g, T, V);
    if (!g->first.out_v) O.v = NULL;
    lanes_mm(LANES_TO, T, V, T, c.M, c.U, O, 0);
    lanes_store(g, m->out, MICAK_VIEW_ROWS, V, O);
  }
  g->n = 0;
}

/* may this pair go this way? its own length decides, so that its bits do not depend on others; nor may they depend on which
 * results are wanted: a state_out that there is keeps all faces from it */
static inline int lanes_take(const memory_pair *w) {
  const micak_memory *m = w->m;
  return micak_memory_lanes(m, w->T) && !memory_given(w, m->state_in, MICA_V) && !memory_wanted(w, m->state_in) &&
         !memory_wanted(w, m->state_out) && !m->state_out->v.data &&
         (!w->back || !memory_given(w, m->state_out, MICA_D));
}
static inline void lanes_add(lanes_group *g, const memory_pair *w, float *scratch) {
  if (g->n == VW || (g->n && g->first.T != w->T)) lanes_run(g, scratch);
  if (!g->n) g->first = *w;
  g->b[g->n] = w->b, g->h[g->n++] = w->h;
}

#endif
