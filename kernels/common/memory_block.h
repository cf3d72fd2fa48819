/* memory_block.h: memories whose heads fit a few vectors, in blocks of 16 tokens: every matrix is padded to whole tiles of
 * 16 by 16, so that loops have fixed lengths, and what is added up to one result stays in registers until it is whole. the
 * lines are those of a chunk in memory_chunk.inc (README.md of delta_rule), except that the products of keys are kept with
 * their sign turned, as the substitutions need them. for vectors of 16 numbers. included by memory_cpu.h. */
#ifndef MICA_KERNELS_COMMON_MEMORY_BLOCK_H
#define MICA_KERNELS_COMMON_MEMORY_BLOCK_H

#if defined(MICAK_ISA_AVX512)

enum { BLOCK_TOKENS = MICAK_MEMORY_BLOCK };

/* ---- lines that are wanted next ---- */

/* rows of ports that the next block reads, or this one writes. products ask for a few lines every 16 terms: many at once find
 * no place where misses can wait, and then the next store or load waits, too */
enum { BLOCK_AHEAD = 16, BLOCK_LINE = 16 };
typedef struct block_ahead {
  struct {
    const float *at;
    int64_t      step, rows, cols;
  } list[BLOCK_AHEAD];
  int64_t n, col, pace;                      /* pace: lines every 16 terms */
} block_ahead;

LANES_INLINE void block_lines(block_ahead *ahead) {
  for (int64_t i = ahead->pace; i > 0 && ahead->n; i--) {
    int64_t last = ahead->n - 1;
    __builtin_prefetch(ahead->list[last].at + ahead->col, 0, 2);
    if ((ahead->col += BLOCK_LINE) < ahead->list[last].cols) continue;
    ahead->col = 0;
    ahead->list[last].at += ahead->list[last].step;
    if (!--ahead->list[last].rows) ahead->n = last;
  }
}
static void block_want_rows(block_ahead *ahead, memory_view x, int64_t at, int64_t n, int64_t cols) {
  if (!x.at || x.col != 1 || n <= 0 || ahead->n == BLOCK_AHEAD) return;
  ahead->list[ahead->n].at = x.at + at * x.row, ahead->list[ahead->n].step = x.row;
  ahead->list[ahead->n].rows = n, ahead->list[ahead->n++].cols = cols;
  ahead->col = 0;
}
/* a block's rows of a port's value or cotangent, and of its tangent */
static void block_want(block_ahead *ahead, const memory_pair *w, const mica_port *port, int bit, int64_t cols, int64_t at) {
  int64_t n = at < 0 ? 0 : w->T - at < BLOCK_TOKENS ? w->T - at : BLOCK_TOKENS;
  block_want_rows(ahead, memory_view_of(port, bit, MICAK_VIEW_ROWS, w->b, w->h), at, n, cols);
  if (!w->dual) return;
  block_want_rows(ahead, memory_view_of(port, bit == MICA_V ? MICA_T : MICA_TD, MICAK_VIEW_ROWS, w->b, w->h), at, n, cols);
}
static void block_want_result(block_ahead *ahead, const memory_pair *w, const mica_port *port, int64_t cols, int64_t at) {
  int64_t n = w->T - at < BLOCK_TOKENS ? w->T - at : BLOCK_TOKENS;
  for (int tangents = 0; tangents < 2; tangents++) {
    int bit = memory_out_bit(w->face, tangents);
    if (bit) block_want_rows(ahead, memory_view_of(port, bit, MICAK_VIEW_ROWS, w->b, w->h), at, n, cols);
  }
}

/* ---- sums of products ---- */

/* how a product A B is taken. TURNED: element (i, k) of A is A[k][i]; MINUS: it is taken away; TRIANGLE: A (16, 16) is zero
 * above its diagonal; ACROSS: element (i, j) is that at (j, i) of A B, such products come first */
enum { BLOCK_TURNED = 1, BLOCK_MINUS = 2, BLOCK_TRIANGLE = 4, BLOCK_ACROSS = 8 };
typedef struct block_product {
  memory_mat A, B;
  int64_t    terms;
  int        how;
} block_product;
typedef struct block_term {
  const float *a, *b;
  int64_t      lda, ldb, terms;
  int          how;
} block_term;

LANES_INLINE vf block_fma(int minus, float x, vf y, vf s) {
  return minus ? (vf)_mm512_fnmadd_ps((__m512)v_set1(x), (__m512)y, (__m512)s) : v_fma(v_set1(x), y, s);
}
/* one vector wide: each row of B is read once, each element of A is a factor from memory; lda: known when compiled */
LANES_INLINE void block_terms(int turned, int minus, int64_t lda, const block_term *p, const float *a, const float *b, vf *s,
                              block_ahead *ahead) {
  int64_t ldb = p->ldb;
  for (int64_t left = p->terms; left > 0; left -= 16) {
    block_lines(ahead);
#pragma GCC unroll 1
    for (int k = 0; k < 16; k += 4, a += turned ? 4 * lda : 4, b += 4 * ldb)
#pragma GCC unroll 4
      for (int u = 0; u < 4; u++) {
        vf y = v_load(b + u * ldb);
#pragma GCC unroll 16
        for (int r = 0; r < BLOCK_TOKENS; r++) s[r] = block_fma(minus, a[turned ? u * lda + r : r * lda + u], y, s[r]);
      }
  }
}
LANES_INLINE void block_terms_of(int turned, int minus, const block_term *p, const float *a, const float *b, vf *s,
                                 block_ahead *ahead) {
  if (p->lda == VW) block_terms(turned, minus, VW, p, a, b, s, ahead);
  else if (p->lda == 2 * VW) block_terms(turned, minus, 2 * VW, p, a, b, s, ahead);
  else if (p->lda == 3 * VW) block_terms(turned, minus, 3 * VW, p, a, b, s, ahead);
  else block_terms(turned, minus, 4 * VW, p, a, b, s, ahead);
}
LANES_INLINE void block_triangle(int turned, const float *a, const float *b, int64_t ldb, vf *s) {
#pragma GCC unroll 16
  for (int k = 0; k < BLOCK_TOKENS; k++, b += ldb) {
    vf y = v_load(b);
#pragma GCC unroll 16
    for (int r = 0; r < BLOCK_TOKENS; r++)
      if (turned ? r <= k : r >= k) s[r] = v_fma(v_set1(turned ? a[k * VW + r] : a[r * VW + k]), y, s[r]);
  }
}
static void block_tile(int n, const block_term *p, int64_t i, int64_t j, const float *from, float *to, int64_t ld,
                       block_ahead *ahead) {
  vf s[BLOCK_TOKENS];
  to += i * ld + j;
  if (from) from += i * ld + j;
#pragma GCC unroll 16
  for (int r = 0; r < BLOCK_TOKENS; r++) {
    s[r] = from ? v_load(from) : v_zero();
    if (from) from += ld;
  }
  for (; n > 0; n--, p++) {
    int64_t x = p->how & BLOCK_ACROSS ? j : i, y = p->how & BLOCK_ACROSS ? i : j;
    const float *a = p->a + (p->how & BLOCK_TURNED ? x : x * p->lda), *b = p->b + y;
    switch (p->how & ~BLOCK_ACROSS) {
      case 0: block_terms_of(0, 0, p, a, b, s, ahead); break;
      case BLOCK_TURNED: block_terms_of(1, 0, p, a, b, s, ahead); break;
      case BLOCK_MINUS: block_terms_of(0, 1, p, a, b, s, ahead); break;
      case BLOCK_TURNED | BLOCK_MINUS: block_terms_of(1, 1, p, a, b, s, ahead); break;
      case BLOCK_TRIANGLE: block_triangle(0, a, b, p->ldb, s); break;
      default: block_triangle(1, a, b, p->ldb, s);
    }
    if (p->how & BLOCK_ACROSS && (n == 1 || !(p[1].how & BLOCK_ACROSS))) v_transpose(s);
  }
#pragma GCC unroll 16
  for (int r = 0; r < BLOCK_TOKENS; r++, to += ld) v_store(to, s[r]);
}
static void block_tiles(int64_t rows, int64_t cols, int n, const block_term *p, const float *from, float *to, int64_t ld,
                        block_ahead *ahead) {
  for (int64_t i = 0; i < rows; i += BLOCK_TOKENS)
    for (int64_t j = 0; j < cols; j += VW) block_tile(n, p, i, j, from, to, ld, ahead);
}
/* C = from + sum of n products, with tangents; a wire that `from` lacks is 0, one that C lacks is not wanted */
static void block_sum(block_ahead *ahead, int64_t rows, int64_t cols, int n, const block_product *x, memory_mat from,
                      memory_mat C) {
  block_term list[10];
  int terms = 0;
  for (int i = 0; i < n && C.v; i++)
    list[terms++] = (block_term){ x[i].A.v, x[i].B.v, x[i].A.ld, x[i].B.ld, x[i].terms, x[i].how };
  if (C.v) block_tiles(rows, cols, terms, list, from.v, C.v, C.ld, ahead);
  terms = 0;
  for (int i = 0; i < n && C.t; i++) {
    block_term one = { x[i].A.t, x[i].B.v, x[i].A.ld, x[i].B.ld, x[i].terms, x[i].how };
    if (one.a) list[terms++] = one;
    one.a = x[i].A.v, one.b = x[i].B.t;
    if (one.b) list[terms++] = one;
  }
  if (C.t) block_tiles(rows, cols, terms, list, from.t, C.t, C.ld, ahead);
}
#define BLOCK_SUM(ahead, rows, cols, from, C, ...)                                                                \
  block_sum(ahead, rows, cols, (int)(sizeof((block_product[]){ __VA_ARGS__ }) / sizeof(block_product)),            \
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
/* zeros on the diagonal and above; a matrix with a diagonal needs none: triangles do not read what is above */
static void block_lower(memory_mat x) {
  for (int64_t t = 0; t < BLOCK_TOKENS; t++) {
    v_store(x.v + t * VW, v_load_n(x.v + t * VW, t));
    if (x.t) v_store(x.t + t * VW, v_load_n(x.t + t * VW, t));
  }
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
                               float *x, float *y, int64_t ld) {
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
#pragma GCC unroll 16
    for (int r = 0; r < BLOCK_TOKENS; r++)
      if (up ? r < t : r > t) s[r] = v_fma(v_set1(up ? ng[t * VW + r] : ng[r * VW + t]), out, s[r]);
  }
}
static void block_solve(int up, int64_t cols, memory_mat ng, memory_mat beta, memory_mat X, memory_mat Y, block_ahead *ahead) {
  for (int64_t c = 0; c < cols; c += VW) {
    if (up) block_solve1(1, 0, ng.v, beta.v, NULL, NULL, X.v + c, Y.v + c, X.ld);
    else block_solve1(0, 0, ng.v, beta.v, NULL, NULL, X.v + c, Y.v + c, X.ld);
  }
  if (!X.t) return;
  memory_mat moved = { .v = X.t, .ld = X.ld };
  if (ng.t)
    BLOCK_SUM(ahead, BLOCK_TOKENS, cols, moved, moved,
              { { .v = ng.t, .ld = ng.ld }, { .v = Y.v, .ld = Y.ld }, BLOCK_TOKENS, BLOCK_TRIANGLE | (up ? BLOCK_TURNED : 0) });
  for (int64_t c = 0; c < cols; c += VW) {
    float *x = X.t + c, *y = Y.t + c;
    if (up && beta.t) block_solve1(1, 1, ng.v, beta.v, beta.t, X.v + c, x, y, X.ld);
    else if (up) block_solve1(1, 0, ng.v, beta.v, NULL, NULL, x, y, X.ld);
    else if (beta.t) block_solve1(0, 1, ng.v, beta.v, beta.t, X.v + c, x, y, X.ld);
    else block_solve1(0, 0, ng.v, beta.v, NULL, NULL, x, y, X.ld);
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
  memory_mat S, Q, K_, KT, beta, E, U, NG;
} block;

/* keys, rates and what was written. `write`: by solving for it, else it is there from the way down */
static void block_open(const memory_pair *w, block *c, int64_t index, int has, int write, block_ahead *ahead) {
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
  c->KT = block_turn(w, MICAK_M_KT, c->K_, BLOCK_TOKENS, c->K);
  BLOCK_SUM(ahead, BLOCK_TOKENS, VW, block_none, c->NG, { c->KT, c->KT, c->K, BLOCK_TURNED | BLOCK_MINUS });
  block_lower(c->NG);
  memory_mat V = block_load(w, m->v, MICA_V, c->at, c->n, m->V, c->E);
  block_sum(ahead, BLOCK_TOKENS, c->V, has, (block_product[]){ { c->KT, c->S, c->K, BLOCK_TURNED | BLOCK_MINUS } }, V, c->E);
  block_solve(0, c->V, c->NG, c->beta, c->E, c->U, ahead);
}
/* queries and what they read of the block's keys */
static memory_mat block_reads(const memory_pair *w, block *c, block_ahead *ahead) {
  memory_mat M = memory_buf(w, MICAK_M_M, 0);
  c->Q = block_load(w, w->m->q, MICA_V, c->at, c->n, w->m->K, memory_buf(w, MICAK_M_Q, 0));
  if (!c->KT.v) c->KT = block_turn(w, MICAK_M_KT, c->K_, BLOCK_TOKENS, c->K);
  BLOCK_SUM(ahead, BLOCK_TOKENS, VW, block_none, M, { c->Q, c->KT, c->K, 0 });
  return M;
}
/* a state, or its cotangent, padded; returns whether there is one */
static int block_state(const memory_pair *w, const mica_port *port, int bit, memory_mat to) {
  memory_clear(to, w->lay->ld[MICAK_M_K], to.ld);
  return memory_load_state(w, port, NULL, bit, to);
}

/* what the walk back reads of the tokens from `at` on, and no walk before it just now */
static void block_want_back(block_ahead *ahead, const memory_pair *w, int64_t at, int keys) {
  const micak_memory *m = w->m;
  block_want(ahead, w, m->out, MICA_D, m->V, at);
  block_want(ahead, w, m->q, MICA_V, m->K, at);
  if (keys) block_want(ahead, w, m->k, MICA_V, m->K, at);
}

static void block_up(const memory_pair *w, block *c, memory_mat G, int *has_g, int more, block_ahead *ahead) {
  const micak_memory *m = w->m;
  int64_t K = c->K, V = c->V, T = BLOCK_TOKENS;
  ahead->n = 0;
  block_want_back(ahead, w, c->at - T, 1);
  block_want_result(ahead, w, m->k, m->K, c->at);
  block_want_result(ahead, w, m->q, m->K, c->at);
  block_want_result(ahead, w, m->v, m->V, c->at);
  memory_mat M = block_reads(w, c, ahead), Q = c->Q, KK = c->K_, YT = { 0 };
  memory_mat dO = block_load(w, m->out, MICA_D, c->at, c->n, m->V, memory_buf(w, MICAK_M_DO, 0));
  memory_mat dU = memory_buf(w, MICAK_M_DU, 0), Y = memory_buf(w, MICAK_M_TMP, 0);
  memory_mat dM = memory_buf(w, MICAK_M_DM, 0), dN = memory_buf(w, MICAK_M_DGRAM, 0);
  memory_mat dQ = memory_result(w, MICAK_M_DQ), dK = memory_result(w, MICAK_M_DK);
  memory_mat UT = block_turn(w, MICAK_M_UT, c->U, T, V);
  block_product du[] = { { M, dO, T, BLOCK_TRIANGLE | BLOCK_TURNED }, { KK, G, K, 0 } };
  block_sum(ahead, T, V, 1 + *has_g, du, block_none, dU);
  BLOCK_SUM(ahead, T, VW, block_none, dM, { dO, UT, V, 0 });
  if (m->delta) {
    block_solve(1, V, c->NG, c->beta, dU, Y, ahead);
    if (memory_wanted(w, m->beta)) {
      memory_mat dbeta = memory_buf(w, MICAK_M_DBETA, 0);
      if (w->dual) v_store(dbeta.t, block_dots1(V, dU.t, c->E.v, dU.ld) + block_dots1(V, dU.v, c->E.t, dU.ld));
      if (w->out_v) v_store(dbeta.v, block_dots1(V, dU.v, c->E.v, dU.ld));
      memory_chunk where = { .at = c->at, .n = c->n };
      memory_store_row_values(w, &where, m->beta, dbeta);
    }
    BLOCK_SUM(ahead, T, VW, block_none, dN, { Y, UT, V, BLOCK_MINUS });
    block_lower(dN);
    if (c->has) YT = block_turn(w, MICAK_M_YT, Y, T, V);
  }
  memory_store_port(w, m->v, MICAK_VIEW_ROWS, c->at, c->n, m->V, m->delta ? Y : dU);
  block_product dq[2], dk[5];
  int nq = 0, nk = 0;
  if (c->has) dq[nq++] = (block_product){ c->S, block_turn(w, MICAK_M_DOT, dO, T, V), V, BLOCK_ACROSS };
  dq[nq++] = (block_product){ dM, KK, T, BLOCK_TRIANGLE };
  block_sum(ahead, T, K, nq, dq, block_none, dQ);
  if (m->delta && c->has) dk[nk++] = (block_product){ c->S, YT, V, BLOCK_ACROSS | BLOCK_MINUS };
  if (*has_g) dk[nk++] = (block_product){ G, UT, V, BLOCK_ACROSS };
  dk[nk++] = (block_product){ dM, Q, T, BLOCK_TRIANGLE | BLOCK_TURNED };
  if (m->delta) {
    dk[nk++] = (block_product){ dN, KK, T, BLOCK_TRIANGLE };
    dk[nk++] = (block_product){ dN, KK, T, BLOCK_TRIANGLE | BLOCK_TURNED };
  }
  block_sum(ahead, T, K, nk, dk, block_none, dK);
  memory_store_port(w, m->q, MICAK_VIEW_ROWS, c->at, c->n, m->K, dQ);
  memory_store_port(w, m->k, MICAK_VIEW_ROWS, c->at, c->n, m->K, dK);
  if (!more) return;
  block_product dg[] = { { Q, dO, T, BLOCK_TURNED }, { KK, Y, T, BLOCK_TURNED | BLOCK_MINUS } };
  block_sum(ahead, K, V, 1 + m->delta, dg, *has_g ? G : block_none, G);
  *has_g = 1;
}

static void memory_blocks(const memory_pair *w) {
  const micak_memory *m = w->m;
  int64_t N = (w->T + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
  memory_mat S = memory_buf(w, MICAK_M_S, 0);
  int has = block_state(w, m->state_in, MICA_V, S), initial = has, last_state = !w->back && memory_wanted(w, m->state_out);
  block_ahead ahead = { .pace = 256 / (m->K > m->V ? m->K : m->V) + 1 };
  block c;
  for (int64_t i = 0; i < N; i++) {
    int64_t next = (i + 1) * BLOCK_TOKENS;
    ahead.n = 0;
    if (w->back && i + 1 == N) block_want_back(&ahead, w, i * BLOCK_TOKENS, 0);
    if (!w->back) block_want(&ahead, w, m->q, MICA_V, m->K, next);
    block_want(&ahead, w, m->v, MICA_V, m->V, next);
    block_want(&ahead, w, m->k, MICA_V, m->K, next);
    if (!w->back) block_want_result(&ahead, w, m->out, m->V, i * BLOCK_TOKENS);
    block_open(w, &c, i, has, 1, &ahead);
    if (!w->back && memory_wanted(w, m->out)) {
      memory_mat M = block_reads(w, &c, &ahead), O = memory_buf(w, MICAK_M_O, 0);
      if (!w->out_v) O.v = NULL;
      block_product o[] = { { M, c.U, BLOCK_TOKENS, BLOCK_TRIANGLE }, { c.Q, c.S, c.K, 0 } };
      block_sum(&ahead, BLOCK_TOKENS, c.V, 1 + has, o, block_none, O);
      memory_store_port(w, m->out, MICAK_VIEW_ROWS, c.at, c.n, m->V, O);
    }
    if (i + 1 == N && !last_state) break;
    BLOCK_SUM(&ahead, c.K, c.V, has ? c.S : block_none, w->back ? memory_buf(w, MICAK_M_S, i + 1) : c.S,
              { c.K_, c.U, BLOCK_TOKENS, BLOCK_TURNED });
    has = 1;
  }
  if (last_state) memory_store_state(w, m->state_out, NULL, S);
  if (!w->back) return;
  memory_mat G = memory_buf(w, MICAK_M_G, 0);
  int has_g = block_state(w, m->state_out, MICA_D, G), states = memory_wanted(w, m->state_in);
  for (int64_t i = N - 1; i >= 0; i--) {
    block_open(w, &c, i, initial || i, 0, &ahead);
    block_up(w, &c, G, &has_g, i > 0 || states, &ahead);
  }
  if (states) memory_store_state(w, m->state_in, NULL, G);
}

#endif
#endif
