/* memory_short.h: memories of sequences no longer than a vector, from nothing to nothing: tokens lie in lanes, and no state
 * is ever made. the lines are those of a chunk in memory_chunk.inc (README.md of delta_rule), in loops that fit; every
 * matrix carries its tangent. included by memory_cpu.h. */
#ifndef MICA_KERNELS_COMMON_MEMORY_SHORT_H
#define MICA_KERNELS_COMMON_MEMORY_SHORT_H

enum { SHORT_COLUMNS = 64, SHORT_BLOCK = 6 }; /* most K and V; rows of a product that are done at once */

#define SHORT_INLINE static inline __attribute__((always_inline))
/* a matrix of numbers and its tangent */
#define SHORT_MATRIX(name, rows, cols) _Alignas(64) float name[2][(rows) * (cols)]

/* x becomes its transpose */
SHORT_INLINE void short_turn(vf x[VW]) {
  static const int32_t order[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
  vi lane;
  memcpy(&lane, order, sizeof lane);
#pragma GCC unroll 4
  for (int s = VW / 2; s; s /= 2) {
    vi high = (lane & s) != 0, low = (lane + (VW - s)) & high, first = low | (lane & ~high);
    vi second = ((lane + VW) & high) | ((lane + s) & ~high);
#pragma GCC unroll 16
    for (int i = 0; i < VW; i++) {
      if (i & s) continue;
      vf a = x[i], b = x[i + s];
      x[i] = __builtin_shuffle(a, b, first);
      x[i + s] = __builtin_shuffle(a, b, second);
    }
  }
}
/* to (cols,VW) = from (T,cols)'; lanes from T on are 0. rows of `from` are whole vectors */
static void short_transpose(int64_t T, int64_t cols, const float *from, int64_t ld, float *to) {
  for (int64_t c = 0; c < cols; c += VW) {
    vf x[VW];
#pragma GCC unroll 16
    for (int i = 0; i < VW; i++) x[i] = i < T ? v_load(from + i * ld + c) : v_zero();
    short_turn(x);
#pragma GCC unroll 16
    for (int i = 0; i < VW; i++) v_store(to + (c + i) * VW, x[i]);
  }
}

/* c (R,VW) = or += a (R,n) bt (n,VW) */
SHORT_INLINE void short_rows(int R, int64_t n, const float *a, int64_t lda, const float *bt, float *c, int add) {
  vf sum[SHORT_BLOCK];
#pragma GCC unroll 6
  for (int r = 0; r < R; r++) sum[r] = add ? v_load(c + r * VW) : v_zero();
  for (int64_t d = 0; d < n; d++) {
    vf b = v_load(bt + d * VW);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) sum[r] = v_fma(v_set1(a[r * lda + d]), b, sum[r]);
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; r++) v_store(c + r * VW, sum[r]);
}
static void short_product(int64_t T, int64_t n, const float *a, int64_t lda, const float *bt, float *c, int add) {
  for (; T >= SHORT_BLOCK; T -= SHORT_BLOCK, a += SHORT_BLOCK * lda, c += SHORT_BLOCK * VW)
    short_rows(SHORT_BLOCK, n, a, lda, bt, c, add);
  switch (T) {
    case 5: short_rows(5, n, a, lda, bt, c, add); break;
    case 4: short_rows(4, n, a, lda, bt, c, add); break;
    case 3: short_rows(3, n, a, lda, bt, c, add); break;
    case 2: short_rows(2, n, a, lda, bt, c, add); break;
    case 1: short_rows(1, n, a, lda, bt, c, add); break;
    default: break;
  }
}
/* C (T,VW) = A (T,n) BT (n,VW) with tangents; no C.v: the tangent alone */
static void short_mm(int64_t T, int64_t n, memory_mat A, memory_mat BT, memory_mat C) {
  if (C.v) short_product(T, n, A.v, A.ld, BT.v, C.v, 0);
  if (!C.t) return;
  int add = 0;
  if (A.t) short_product(T, n, A.t, A.ld, BT.v, C.t, 0), add = 1;
  if (BT.t) short_product(T, n, A.v, A.ld, BT.t, C.t, add), add = 1;
  if (!add) memset(C.t, 0, (size_t)(T * VW) * sizeof(float));
}

/* rows below (t > s) or on the diagonal of a triangle l (T,VW): which terms of it row t needs */
enum { SHORT_LOWER, SHORT_STRICT, SHORT_LOWER_TURNED, SHORT_STRICT_TURNED };

/* y[t] = or += sum over s of l[t][s] x[s] (turned: l[s][t]), one vector of columns */
SHORT_INLINE void short_triangle1(int shape, int64_t T, const float *l, const float *x, int64_t ldx, float *y,
                                  int64_t ldy, int add) {
  for (int64_t t = 0; t < T; t++) {
    vf sum = add ? v_load(y + t * ldy) : v_zero();
    if (shape == SHORT_LOWER || shape == SHORT_STRICT)
      for (int64_t s = 0; s < t + (shape == SHORT_LOWER); s++)
        sum = v_fma(v_set1(l[t * VW + s]), v_load(x + s * ldx), sum);
    else
      for (int64_t s = t + (shape == SHORT_STRICT_TURNED); s < T; s++)
        sum = v_fma(v_set1(l[s * VW + t]), v_load(x + s * ldx), sum);
    v_store(y + t * ldy, sum);
  }
}
SHORT_INLINE void short_triangle_of(int shape, int64_t T, int64_t cols, const float *l, const float *x, int64_t ldx,
                                    float *y, int64_t ldy, int add) {
  for (int64_t c = 0; c < cols; c += VW) short_triangle1(shape, T, l, x + c, ldx, y + c, ldy, add);
}
SHORT_INLINE void short_triangle(int shape, int64_t T, int64_t cols, memory_mat L, memory_mat X, memory_mat Y,
                                 int add) {
  if (Y.v) short_triangle_of(shape, T, cols, L.v, X.v, X.ld, Y.v, Y.ld, add);
  if (!Y.t) return;
  if (L.t) short_triangle_of(shape, T, cols, L.t, X.v, X.ld, Y.t, Y.ld, add), add = 1;
  if (X.t) short_triangle_of(shape, T, cols, L.v, X.t, X.ld, Y.t, Y.ld, add), add = 1;
  for (int64_t t = 0; t < T && !add; t++) memset(Y.t + t * Y.ld, 0, (size_t)Y.ld * sizeof(float));
}

/* ---- the substitutions; one vector of columns ---- */

/* e_t = v_t - sum of gram_ts u_s, u_t = beta_t e_t */
SHORT_INLINE void short_solve_down(int64_t T, int64_t c, memory_mat gram, memory_mat beta, memory_mat V, memory_mat E,
                                   memory_mat U) {
  for (int64_t t = 0; t < T; t++) {
    vf e = v_load(V.v + t * V.ld + c), b = v_set1(beta.v[t]);
    vf et = V.t ? v_load(V.t + t * V.ld + c) : v_zero(), bt = beta.t ? v_set1(beta.t[t]) : v_zero();
    for (int64_t s = 0; s < t; s++) {
      vf g = v_set1(-gram.v[t * VW + s]), u = v_load(U.v + s * U.ld + c);
      e = v_fma(g, u, e);
      if (!U.t) continue;
      et = v_fma(g, v_load(U.t + s * U.ld + c), et);
      et = v_fma(v_set1(-gram.t[t * VW + s]), u, et);
    }
    v_store(E.v + t * E.ld + c, e);
    v_store(U.v + t * U.ld + c, b * e);
    if (!U.t) continue;
    v_store(E.t + t * E.ld + c, et);
    v_store(U.t + t * U.ld + c, v_fma(bt, e, b * et));
  }
}
/* x_t = dU_t + sum over r > t of gram_rt ny_r, ny_t = -beta_t x_t, dV = -ny; dU becomes x */
SHORT_INLINE void short_solve_up(int64_t T, int64_t c, memory_mat gram, memory_mat beta, memory_mat dU, memory_mat NY,
                                 memory_mat dV) {
  for (int64_t t = T - 1; t >= 0; t--) {
    vf x = v_load(dU.v + t * dU.ld + c), b = v_set1(-beta.v[t]);
    vf xt = dU.t ? v_load(dU.t + t * dU.ld + c) : v_zero(), bt = beta.t ? v_set1(-beta.t[t]) : v_zero();
    for (int64_t r = t + 1; r < T; r++) {
      vf g = v_set1(gram.v[r * VW + t]), y = v_load(NY.v + r * NY.ld + c);
      x = v_fma(g, y, x);
      if (!dU.t) continue;
      xt = v_fma(g, v_load(NY.t + r * NY.ld + c), xt);
      xt = v_fma(v_set1(gram.t[r * VW + t]), y, xt);
    }
    v_store(dU.v + t * dU.ld + c, x);
    v_store(NY.v + t * NY.ld + c, b * x);
    if (dV.v) v_store(dV.v + t * dV.ld + c, v_zero() - b * x);
    if (!dU.t) continue;
    vf yt = v_fma(bt, x, b * xt);
    v_store(dU.t + t * dU.ld + c, xt);
    v_store(NY.t + t * NY.ld + c, yt);
    v_store(dV.t + t * dV.ld + c, v_zero() - yt);
  }
}

/* ---- a sequence ---- */

static inline memory_mat short_mat(const memory_pair *w, float *v, float *t, int64_t ld) {
  return (memory_mat){ v, w->dual ? t : NULL, ld, 0 };
}
#define SHORT_MAT(name, ld) short_mat(w, name[0], name[1], ld)
/* of a walk back: its value is wanted by the backward alone */
#define SHORT_RESULT(name, ld) ((memory_mat){ w->out_v ? name[0] : NULL, w->dual ? name[1] : NULL, ld, 0 })

/* may this pair go this way? its own length decides, so that its bits do not depend on others */
static inline int memory_is_short(const memory_pair *w) {
  const micak_memory *m = w->m;
  if (m->form == MICAK_MEMORY_RECURRENT || m->chunk || m->decay || m->keys || w->T < 1 || w->T > VW ||
      w->K > SHORT_COLUMNS || w->V > SHORT_COLUMNS) return 0;
  int bit = w->back ? MICA_D : MICA_V;
  /* nor may bits depend on which results are wanted: a state_out that there is keeps all faces from it */
  return !memory_given(w, m->state_in, MICA_V) && !memory_wanted(w, m->state_in) && !memory_wanted(w, m->state_out) &&
         !m->state_out->v.data && (!w->back || !memory_given(w, m->state_out, bit));
}

typedef struct short_work {
  SHORT_MATRIX(kt, SHORT_COLUMNS, VW);
  SHORT_MATRIX(gram, VW, VW);
  SHORT_MATRIX(m, VW, VW);
  SHORT_MATRIX(e, VW, SHORT_COLUMNS);
  SHORT_MATRIX(u, VW, SHORT_COLUMNS);
  SHORT_MATRIX(rows, VW, SHORT_COLUMNS);     /* outputs on the way down; dU on the way back */
  SHORT_MATRIX(ny, VW, SHORT_COLUMNS);
  SHORT_MATRIX(dv, VW, SHORT_COLUMNS);
  SHORT_MATRIX(dq, VW, SHORT_COLUMNS);
  SHORT_MATRIX(dk, VW, SHORT_COLUMNS);
  SHORT_MATRIX(dm, VW, VW);
  SHORT_MATRIX(dgram, VW, VW);
  float dbeta[2][VW];
} short_work;

static void short_up(const memory_pair *w, memory_chunk *c, short_work *x, int64_t K, int64_t V) {
  const micak_memory *m = w->m;
  int64_t T = w->T;
  memory_mat dO = memory_load_out(w, c), UT = SHORT_MAT(x->kt, VW), dM = SHORT_MAT(x->dm, VW);
  memory_mat dU = SHORT_MAT(x->rows, SHORT_COLUMNS), NY = SHORT_MAT(x->ny, SHORT_COLUMNS);
  memory_mat dgram = SHORT_MAT(x->dgram, VW), dV = SHORT_RESULT(x->dv, SHORT_COLUMNS);
  memory_mat dQ = SHORT_RESULT(x->dq, SHORT_COLUMNS), dK = SHORT_RESULT(x->dk, SHORT_COLUMNS);
  short_transpose(T, V, c->U.v, c->U.ld, UT.v);
  if (c->U.t) short_transpose(T, V, c->U.t, c->U.ld, UT.t);
  else UT.t = NULL;
  short_mm(T, w->V, dO, UT, dM);
  short_triangle(SHORT_LOWER_TURNED, T, V, c->M, dO, dU, 0);
  if (m->delta) {
    for (int64_t j = 0; j < V; j += VW) short_solve_up(T, j, c->gram, c->beta, dU, NY, dV);
    if (memory_wanted(w, m->beta)) {
      for (int64_t t = 0; t < T; t++) {
        memory_num d = memory_dot(V, memory_row(dU, t), memory_row(c->E, t));
        x->dbeta[0][t] = d.v, x->dbeta[1][t] = d.t;
      }
      memory_store_row_values(w, c, m->beta, SHORT_MAT(x->dbeta, VW));
    }
    short_mm(T, w->V, NY, UT, dgram);
    memory_store_port(w, m->v, MICAK_VIEW_ROWS, 0, T, m->V, dV);
  } else {
    memory_store_port(w, m->v, MICAK_VIEW_ROWS, 0, T, m->V, dU);
  }
  short_triangle(SHORT_LOWER, T, K, dM, c->K, dQ, 0);
  short_triangle(SHORT_LOWER_TURNED, T, K, dM, c->Q, dK, 0);
  if (m->delta) {
    short_triangle(SHORT_STRICT, T, K, dgram, c->K, dK, 1);
    short_triangle(SHORT_STRICT_TURNED, T, K, dgram, c->K, dK, 1);
  }
  memory_store_port(w, m->q, MICAK_VIEW_ROWS, 0, T, m->K, dQ);
  memory_store_port(w, m->k, MICAK_VIEW_ROWS, 0, T, m->K, dK);
}

static void memory_short(const memory_pair *w) {
  const micak_memory *m = w->m;
  int64_t T = w->T, K = (w->K + VW - 1) / VW * VW, V = (w->V + VW - 1) / VW * VW;
  short_work x;
  memory_chunk c;
  memory_open_chunk(w, &c, 0, 0);
  memory_mat KT = SHORT_MAT(x.kt, VW);
  short_transpose(T, K, c.K.v, c.K.ld, KT.v);
  if (c.K.t) short_transpose(T, K, c.K.t, c.K.ld, KT.t);
  else KT.t = NULL;
  c.M = SHORT_MAT(x.m, VW);
  short_mm(T, w->K, c.Q, KT, c.M);
  if (m->delta) {
    c.gram = SHORT_MAT(x.gram, VW), c.E = SHORT_MAT(x.e, SHORT_COLUMNS), c.U = SHORT_MAT(x.u, SHORT_COLUMNS);
    short_mm(T, w->K, c.K, KT, c.gram);
    for (int64_t j = 0; j < V; j += VW) short_solve_down(T, j, c.gram, c.beta, c.V, c.E, c.U);
  }
  if (w->back) {
    short_up(w, &c, &x, K, V);
    return;
  }
  memory_mat O = SHORT_MAT(x.rows, SHORT_COLUMNS);
  if (w->dual) O.v = NULL;
  short_triangle(SHORT_LOWER, T, V, c.M, c.U, O, 0);
  memory_store_port(w, m->out, MICAK_VIEW_ROWS, 0, T, m->V, O);
}

#endif
