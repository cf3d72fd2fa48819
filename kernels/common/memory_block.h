/* memory_block.h: memories whose heads fit a few vectors, in blocks of 16 tokens: every matrix is padded to whole tiles of
 * 16 by 16, so that loops have fixed lengths, and what is added up to one result stays in registers until it is whole. the
 * lines are those of a chunk in memory_chunk.inc (README.md of delta_rule), except that the products of keys are kept with
 * their sign turned, as the substitutions need them. for vectors of 16 numbers. included by memory_cpu.h. */
#ifndef MICA_KERNELS_COMMON_MEMORY_BLOCK_H
#define MICA_KERNELS_COMMON_MEMORY_BLOCK_H

#if defined(MICAK_ISA_AVX512)

enum { BLOCK_TOKENS = MICAK_MEMORY_BLOCK, BLOCK_ROWS = 8 }; /* rows of a wide tile of results */

/* ---- sums of products ---- */

/* one product A B; turned: element (i, k) of A is A[k][i]. lower, upper: columns of A that are 0 beyond a tile's rows */
enum { BLOCK_FULL, BLOCK_LOWER, BLOCK_UPPER };
typedef struct block_product {
  memory_mat A, B;
  int64_t    terms;
  int        turned, shape;
} block_product;
typedef struct block_term {
  const float *a, *b;
  int64_t      lda, ldb, terms;
  int          turned, shape;
} block_term;

LANES_INLINE void block_tile(int R, int nv, int n, const block_term *p, int64_t i, int64_t j, const float *from,
                             float *to, int64_t ld) {
  vf sum[BLOCK_TOKENS][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int h = 0; h < nv; h++) sum[r][h] = from ? v_load(from + (i + r) * ld + j + h * VW) : v_zero();
  for (; n > 0; n--, p++) {
    int64_t k = p->shape == BLOCK_UPPER ? i : 0, end = p->shape == BLOCK_LOWER ? i + R : p->terms;
    int64_t lda = p->lda, ldb = p->ldb;
    const float *b = p->b + k * ldb + j;
    if (p->turned) {
      const float *a = p->a + k * lda + i;
      for (; k < end; k++, a += lda, b += ldb) {
        vf b0 = v_load(b), b1 = nv > 1 ? v_load(b + VW) : b0;
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
          vf x = v_set1(a[r]);
          sum[r][0] = v_fma(x, b0, sum[r][0]);
          if (nv > 1) sum[r][1] = v_fma(x, b1, sum[r][1]);
        }
      }
    } else {
      const float *a[] = { p->a + i * lda, p->a + (i + 4) * lda, p->a + (i + 8) * lda, p->a + (i + 12) * lda };
      for (; k < end; k++, b += ldb) {
        vf b0 = v_load(b), b1 = nv > 1 ? v_load(b + VW) : b0;
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
          vf x = v_set1(a[r / 4][r % 4 * lda + k]);
          sum[r][0] = v_fma(x, b0, sum[r][0]);
          if (nv > 1) sum[r][1] = v_fma(x, b1, sum[r][1]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int h = 0; h < nv; h++) v_store(to + (i + r) * ld + j + h * VW, sum[r][h]);
}
/* two vectors wide where there are two, 8 rows at once; else 16 rows of one */
static void block_tiles(int64_t rows, int64_t cols, int n, const block_term *p, const float *from, float *to,
                        int64_t ld) {
  int64_t pairs = cols / (2 * VW) * (2 * VW);
  for (int64_t i = 0; i < rows && pairs; i += BLOCK_ROWS)
    for (int64_t j = 0; j < pairs; j += 2 * VW) block_tile(BLOCK_ROWS, 2, n, p, i, j, from, to, ld);
  for (int64_t i = 0; i < rows && pairs < cols; i += BLOCK_TOKENS) block_tile(BLOCK_TOKENS, 1, n, p, i, pairs, from, to, ld);
}
/* C = from + sum of n products, with tangents; a wire that `from` lacks is 0, one that C lacks is not wanted */
static void block_sum(int64_t rows, int64_t cols, int n, const block_product *x, memory_mat from, memory_mat C) {
  block_term list[10];
  int terms = 0;
  for (int i = 0; i < n && C.v; i++)
    list[terms++] = (block_term){ x[i].A.v, x[i].B.v, x[i].A.ld, x[i].B.ld, x[i].terms, x[i].turned, x[i].shape };
  if (C.v) block_tiles(rows, cols, terms, list, from.v, C.v, C.ld);
  terms = 0;
  for (int i = 0; i < n && C.t; i++) {
    block_term one = { x[i].A.t, x[i].B.v, x[i].A.ld, x[i].B.ld, x[i].terms, x[i].turned, x[i].shape };
    if (one.a) list[terms++] = one;
    one.a = x[i].A.v, one.b = x[i].B.t;
    if (one.b) list[terms++] = one;
  }
  if (C.t) block_tiles(rows, cols, terms, list, from.t, C.t, C.ld);
}
#define BLOCK_SUM(rows, cols, from, C, ...)                                                                       \
  block_sum(rows, cols, (int)(sizeof((block_product[]){ __VA_ARGS__ }) / sizeof(block_product)),                   \
            (block_product[]){ __VA_ARGS__ }, from, C)
static const memory_mat block_none;

/* ---- matrices ---- */

static void block_turn1(int64_t rows, int64_t cols, const float *from, int64_t ldf, float *to, int64_t ldt) {
  for (int64_t r = 0; r < rows; r += VW)
    for (int64_t c = 0; c < cols; c += VW) {
      vf x[VW];
#pragma GCC unroll 16
      for (int i = 0; i < VW; i++) x[i] = v_load(from + (r + i) * ldf + c);
      v_transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < VW; i++) v_store(to + (c + i) * ldt + r, x[i]);
    }
}
static memory_mat block_turn(const memory_pair *w, int id, memory_mat x, int64_t rows, int64_t cols) {
  memory_mat y = memory_buf(w, id, 0);
  block_turn1(rows, cols, x.v, x.ld, y.v, y.ld);
  if (!x.t) y.t = NULL;
  else block_turn1(rows, cols, x.t, x.ld, y.t, y.ld);
  return y;
}
/* zeros above the diagonal (strict: and on it) */
static void block_lower(memory_mat x, int strict) {
  for (int64_t t = 0; t < BLOCK_TOKENS; t++) {
    v_store(x.v + t * VW, v_load_n(x.v + t * VW, t + !strict));
    if (x.t) v_store(x.t + t * VW, v_load_n(x.t + t * VW, t + !strict));
  }
}
static void block_negative(int64_t n, memory_mat x, memory_mat y) {
  for (int64_t i = 0; i < n; i += VW) v_store(y.v + i, v_zero() - v_load(x.v + i));
  for (int64_t i = 0; i < n && y.t; i += VW) v_store(y.t + i, v_zero() - v_load(x.t + i));
}
/* rows of a port, zeros from row n on */
static memory_mat block_load(const memory_pair *w, const mica_port *port, int bit, int64_t at, int64_t n, int64_t cols,
                             memory_mat to) {
  memory_view v = memory_view_of(port, bit, MICAK_VIEW_ROWS, w->b, w->h), t = { 0 };
  size_t whole = (size_t)(BLOCK_TOKENS * to.ld) * sizeof(float), rest = (size_t)((BLOCK_TOKENS - n) * to.ld) * sizeof(float);
  if (w->dual) t = memory_view_of(port, bit == MICA_V ? MICA_T : MICA_TD, MICAK_VIEW_ROWS, w->b, w->h);
  if (!v.at) memset(to.v, 0, whole);
  else memory_load_copy(&v, at, n, cols, to.v, to.ld), memset(to.v + n * to.ld, 0, rest);
  if (!t.at) to.t = NULL;
  else memory_load_copy(&t, at, n, cols, to.t, to.ld), memset(to.t + n * to.ld, 0, rest);
  return to;
}

/* ---- the substitutions, one vector of columns, all tokens in registers ---- */

/* down: x_t += sum over s < t of ng_ts y_s; up: x_t += sum over r > t of ng_rt y_r; y_t = b_t x_t + bt_t given_t */
LANES_INLINE void block_solve1(int up, int moving, const float *ng, const float *b, const float *bt, const float *given,
                               float *x, float *y, float *ny, int64_t ld) {
  vf s[BLOCK_TOKENS];
#pragma GCC unroll 16
  for (int t = 0; t < BLOCK_TOKENS; t++) s[t] = v_load(x + t * ld);
#pragma GCC unroll 16
  for (int step = 0; step < BLOCK_TOKENS; step++) {
    int t = up ? BLOCK_TOKENS - 1 - step : step;
    vf out = v_set1(b[t]) * s[t];
    if (moving) out = v_fma(v_set1(bt[t]), v_load(given + t * ld), out);
    v_store(x + t * ld, s[t]);
    v_store(y + t * ld, out);
    if (up) v_store(ny + t * ld, v_zero() - out);
#pragma GCC unroll 16
    for (int r = 0; r < BLOCK_TOKENS; r++)
      if (up ? r < t : r > t) s[r] = v_fma(v_set1(up ? ng[t * VW + r] : ng[r * VW + t]), out, s[r]);
  }
}
static void block_solve(int up, int64_t cols, memory_mat ng, memory_mat beta, memory_mat X, memory_mat Y, memory_mat NY) {
  for (int64_t c = 0; c < cols; c += VW) {
    if (up) block_solve1(1, 0, ng.v, beta.v, NULL, NULL, X.v + c, Y.v + c, NY.v + c, X.ld);
    else block_solve1(0, 0, ng.v, beta.v, NULL, NULL, X.v + c, Y.v + c, NULL, X.ld);
  }
  if (!X.t) return;
  memory_mat moved = { .v = X.t, .ld = X.ld };
  if (ng.t)
    BLOCK_SUM(BLOCK_TOKENS, cols, moved, moved,
              { { .v = ng.t, .ld = ng.ld }, { .v = Y.v, .ld = Y.ld }, BLOCK_TOKENS, up, up ? BLOCK_UPPER : BLOCK_LOWER });
  for (int64_t c = 0; c < cols; c += VW) {
    float *x = X.t + c, *y = Y.t + c, *ny = up ? NY.t + c : NULL;
    if (up && beta.t) block_solve1(1, 1, ng.v, beta.v, beta.t, X.v + c, x, y, ny, X.ld);
    else if (up) block_solve1(1, 0, ng.v, beta.v, NULL, NULL, x, y, ny, X.ld);
    else if (beta.t) block_solve1(0, 1, ng.v, beta.v, beta.t, X.v + c, x, y, NULL, X.ld);
    else block_solve1(0, 0, ng.v, beta.v, NULL, NULL, x, y, NULL, X.ld);
  }
}
/* sums over columns of x y, a token a lane */
static vf block_dots1(int64_t cols, const float *x, const float *y, int64_t ld) {
  vf s[BLOCK_TOKENS], sum = v_zero();
#pragma GCC unroll 16
  for (int t = 0; t < BLOCK_TOKENS; t++) s[t] = v_zero();
  for (int64_t c = 0; c < cols; c += VW)
#pragma GCC unroll 16
    for (int t = 0; t < BLOCK_TOKENS; t++) s[t] = v_fma(v_load(x + t * ld + c), v_load(y + t * ld + c), s[t]);
  v_transpose(s);
#pragma GCC unroll 16
  for (int t = 0; t < BLOCK_TOKENS; t++) sum = sum + s[t];
  return sum;
}

/* ---- a block ---- */

typedef struct block {
  int64_t    at, n, K, V;                    /* K, V: whole vectors */
  int        has;                            /* is there a state before it? */
  memory_mat S, Q, K_, NK, KT, beta, E, U, NG;
} block;

/* keys, rates and what was written. `write`: by solving for it, else it is there from the way down */
static void block_open(const memory_pair *w, block *c, int64_t index, int has, int write) {
  const micak_memory *m = w->m;
  int64_t kept = w->back ? index : 0;
  *c = (block){ .at = index * BLOCK_TOKENS, .K = w->lay->ld[MICAK_M_K], .V = w->lay->ld[MICAK_M_V], .has = has };
  c->n = w->T - c->at < BLOCK_TOKENS ? w->T - c->at : BLOCK_TOKENS;
  c->S = memory_buf(w, MICAK_M_S, kept);
  c->K_ = block_load(w, m->k, MICA_V, c->at, c->n, m->K, memory_buf(w, MICAK_M_K, 0));
  if (!m->delta) {
    c->U = block_load(w, m->v, MICA_V, c->at, c->n, m->V, memory_buf(w, MICAK_M_U, 0));
    return;
  }
  c->E = memory_buf(w, MICAK_M_E, kept), c->U = memory_buf(w, MICAK_M_U, kept), c->NG = memory_buf(w, MICAK_M_GRAM, kept);
  if (!c->K_.t) c->NG.t = NULL;
  c->beta = memory_buf(w, MICAK_M_BETA, 0);
  memory_view v = memory_view_of(m->beta, MICA_V, MICAK_VIEW_ROWS, w->b, w->h);
  memory_view t = memory_view_of(m->beta, MICA_T, MICAK_VIEW_ROWS, w->b, w->h);
  for (int64_t i = 0; i < BLOCK_TOKENS; i++) {
    c->beta.v[i] = i >= c->n ? 0 : v.at ? memory_view_get(&v, c->at + i) : m->beta->v.data ? 0 : 1;
    if (c->beta.t) c->beta.t[i] = i < c->n && t.at ? memory_view_get(&t, c->at + i) : 0;
  }
  if (!t.at) c->beta.t = NULL;
  if (!write) return;
  c->NK = memory_buf(w, MICAK_M_NK, 0);
  if (!c->K_.t) c->NK.t = NULL;
  block_negative(BLOCK_TOKENS * c->K, c->K_, c->NK);
  c->KT = block_turn(w, MICAK_M_KT, c->K_, BLOCK_TOKENS, c->K);
  BLOCK_SUM(BLOCK_TOKENS, VW, block_none, c->NG, { c->NK, c->KT, c->K, 0, BLOCK_FULL });
  block_lower(c->NG, 1);
  memory_mat V = block_load(w, m->v, MICA_V, c->at, c->n, m->V, c->E);
  block_sum(BLOCK_TOKENS, c->V, has, (block_product[]){ { c->NK, c->S, c->K, 0, BLOCK_FULL } }, V, c->E);
  block_solve(0, c->V, c->NG, c->beta, c->E, c->U, block_none);
}
/* queries and what they read of the block's keys */
static memory_mat block_reads(const memory_pair *w, block *c) {
  memory_mat M = memory_buf(w, MICAK_M_M, 0);
  c->Q = block_load(w, w->m->q, MICA_V, c->at, c->n, w->m->K, memory_buf(w, MICAK_M_Q, 0));
  if (!c->KT.v) c->KT = block_turn(w, MICAK_M_KT, c->K_, BLOCK_TOKENS, c->K);
  BLOCK_SUM(BLOCK_TOKENS, VW, block_none, M, { c->Q, c->KT, c->K, 0, BLOCK_FULL });
  block_lower(M, 0);
  return M;
}
/* a state, or its cotangent, padded; returns whether there is one */
static int block_state(const memory_pair *w, const mica_port *port, int bit, memory_mat to) {
  memory_clear(to, w->lay->ld[MICAK_M_K], to.ld);
  return memory_load_state(w, port, NULL, bit, to);
}

/* what the walk back reads of the tokens from `at` on, and no walk before it just now */
static void block_ahead(const memory_pair *w, int64_t at, int keys) {
  const micak_memory *m = w->m;
  if (at < 0) return;
  int64_t n = w->T - at < BLOCK_TOKENS ? w->T - at : BLOCK_TOKENS;
  memory_rows_ahead(w, m->q, MICA_V, m->K, at, n);
  memory_rows_ahead(w, m->out, MICA_D, m->V, at, n);
  if (keys) memory_rows_ahead(w, m->k, MICA_V, m->K, at, n);
}

static void block_up(const memory_pair *w, block *c, memory_mat G, int *has_g, int more) {
  const micak_memory *m = w->m;
  int64_t K = c->K, V = c->V, T = BLOCK_TOKENS;
  memory_mat M = block_reads(w, c), Q = c->Q, KK = c->K_, UT, ST = { 0 }, GT = { 0 };
  memory_mat dO = block_load(w, m->out, MICA_D, c->at, c->n, m->V, memory_buf(w, MICAK_M_DO, 0));
  memory_mat dU = memory_buf(w, MICAK_M_DU, 0), NY = memory_buf(w, MICAK_M_NY, 0), Y = memory_buf(w, MICAK_M_TMP, 0);
  memory_mat dM = memory_buf(w, MICAK_M_DM, 0), dN = memory_buf(w, MICAK_M_DGRAM, 0);
  memory_mat dQ = memory_result(w, MICAK_M_DQ), dK = memory_result(w, MICAK_M_DK);
  block_ahead(w, c->at - BLOCK_TOKENS, 1);
  memory_results_ahead(w, m->v, m->V, c->at, c->n);
  memory_results_ahead(w, m->q, m->K, c->at, c->n);
  memory_results_ahead(w, m->k, m->K, c->at, c->n);
  UT = block_turn(w, MICAK_M_UT, c->U, T, V);
  if (c->has) ST = block_turn(w, MICAK_M_ST, c->S, K, V);
  if (*has_g) GT = block_turn(w, MICAK_M_GT, G, K, V);
  block_product du[] = { { M, dO, T, 1, BLOCK_UPPER }, { KK, G, K, 0, BLOCK_FULL } };
  block_sum(T, V, 1 + *has_g, du, block_none, dU);
  BLOCK_SUM(T, VW, block_none, dM, { dO, UT, V, 0, BLOCK_FULL });
  block_lower(dM, 0);
  if (m->delta) {
    block_solve(1, V, c->NG, c->beta, dU, Y, NY);
    if (memory_wanted(w, m->beta)) {
      memory_mat dbeta = memory_buf(w, MICAK_M_DBETA, 0);
      if (w->dual) v_store(dbeta.t, block_dots1(V, dU.t, c->E.v, dU.ld) + block_dots1(V, dU.v, c->E.t, dU.ld));
      else v_store(dbeta.v, block_dots1(V, dU.v, c->E.v, dU.ld));
      memory_chunk where = { .at = c->at, .n = c->n };
      memory_store_row_values(w, &where, m->beta, dbeta);
    }
    BLOCK_SUM(T, VW, block_none, dN, { NY, UT, V, 0, BLOCK_FULL });
    block_lower(dN, 1);
  }
  memory_store_port(w, m->v, MICAK_VIEW_ROWS, c->at, c->n, m->V, m->delta ? Y : dU);
  block_product dq[] = { { dM, KK, T, 0, BLOCK_LOWER }, { dO, ST, V, 0, BLOCK_FULL } };
  block_sum(T, K, 1 + c->has, dq, block_none, dQ);
  block_product dk[5] = { { dM, Q, T, 1, BLOCK_UPPER } };
  int n = 1;
  if (m->delta) {
    dk[n++] = (block_product){ dN, KK, T, 0, BLOCK_LOWER };
    dk[n++] = (block_product){ dN, KK, T, 1, BLOCK_UPPER };
    if (c->has) dk[n++] = (block_product){ NY, ST, V, 0, BLOCK_FULL };
  }
  if (*has_g) dk[n++] = (block_product){ c->U, GT, V, 0, BLOCK_FULL };
  block_sum(T, K, n, dk, block_none, dK);
  memory_store_port(w, m->q, MICAK_VIEW_ROWS, c->at, c->n, m->K, dQ);
  memory_store_port(w, m->k, MICAK_VIEW_ROWS, c->at, c->n, m->K, dK);
  if (!more) return;
  block_product dg[] = { { Q, dO, T, 1, BLOCK_FULL }, { KK, NY, T, 1, BLOCK_FULL } };
  block_sum(K, V, 1 + m->delta, dg, *has_g ? G : block_none, G);
  *has_g = 1;
}

static void memory_blocks(const memory_pair *w) {
  const micak_memory *m = w->m;
  int64_t N = (w->T + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
  memory_mat S = memory_buf(w, MICAK_M_S, 0);
  int has = block_state(w, m->state_in, MICA_V, S), initial = has, last_state = !w->back && memory_wanted(w, m->state_out);
  block c;
  for (int64_t i = 0; i < N; i++) {
    int64_t next = (i + 1) * BLOCK_TOKENS, left = w->T - next < BLOCK_TOKENS ? w->T - next : BLOCK_TOKENS;
    memory_rows_ahead(w, m->k, MICA_V, m->K, next, left);
    memory_rows_ahead(w, m->v, MICA_V, m->V, next, left);
    if (!w->back) memory_rows_ahead(w, m->q, MICA_V, m->K, next, left);
    if (!w->back) memory_results_ahead(w, m->out, m->V, i * BLOCK_TOKENS, left < 0 ? left + BLOCK_TOKENS : BLOCK_TOKENS);
    else if (i + 1 == N) block_ahead(w, i * BLOCK_TOKENS, 0);
    block_open(w, &c, i, has, 1);
    if (!w->back && memory_wanted(w, m->out)) {
      memory_mat M = block_reads(w, &c), O = memory_buf(w, MICAK_M_O, 0);
      if (w->dual) O.v = NULL;
      block_product o[] = { { M, c.U, BLOCK_TOKENS, 0, BLOCK_LOWER }, { c.Q, c.S, c.K, 0, BLOCK_FULL } };
      block_sum(BLOCK_TOKENS, c.V, 1 + has, o, block_none, O);
      memory_store_port(w, m->out, MICAK_VIEW_ROWS, c.at, c.n, m->V, O);
    }
    if (i + 1 == N && !last_state) break;
    BLOCK_SUM(c.K, c.V, has ? c.S : block_none, w->back ? memory_buf(w, MICAK_M_S, i + 1) : c.S,
              { c.K_, c.U, BLOCK_TOKENS, 1, BLOCK_FULL });
    has = 1;
  }
  if (last_state) memory_store_state(w, m->state_out, NULL, S);
  if (!w->back) return;
  memory_mat G = memory_buf(w, MICAK_M_G, 0);
  int has_g = block_state(w, m->state_out, MICA_D, G), states = memory_wanted(w, m->state_in);
  for (int64_t i = N - 1; i >= 0; i--) {
    block_open(w, &c, i, initial || i, 0);
    block_up(w, &c, G, &has_g, i > 0 || states);
  }
  if (states) memory_store_state(w, m->state_in, NULL, G);
}

#endif
#endif
