/* attention_tile_internal.h: register tiles, packing of heads and scratch for the CPU kernels (one copy each
 * instruction set).
 *
 * a product is cut into tiles of 6 rows x 2 vectors; every element is one fused sum over k in order, so its bits do not
 * depend on the tile that holds it. */
#ifndef MICA_KERNELS_ATTENTION_TILE_INTERNAL_H
#define MICA_KERNELS_ATTENTION_TILE_INTERNAL_H

#include "attention/attention_internal.h"
#include "common/columns.h"
#include "common/isa.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- C (MR, NV VW) = or += A (MR, K) B (K, NV VW) ---- */

/* A's element (m, k) at m lda + k, or transposed at k lda + m. the sums are twelve named variables: an array would not
 * stay in registers outside the loop */
#define SIX_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)
INLINE void tile(const int MR, const int NV, const int transposed, int64_t K, const float *A, int64_t lda,
                 const float *B, int64_t ldb, float *C, int64_t ldc, int add) {
#define TILE_ZERO(m) vf p##m = v_zero(), q##m = v_zero();
#define TILE_LOAD(m)                          \
  if (m < MR) {                               \
    p##m = v_load(C + m * ldc);               \
    if (NV > 1) q##m = v_load(C + m * ldc + VW); \
  }
#define TILE_STEP(m)                                               \
  if (m < MR) {                                                    \
    vf x = v_set1(transposed ? A[k * lda + m] : A[m * lda + k]);   \
    p##m = v_fma(x, left, p##m);                                   \
    if (NV > 1) q##m = v_fma(x, right, q##m);                      \
  }
#define TILE_STORE(m)                         \
  if (m < MR) {                               \
    v_store(C + m * ldc, p##m);               \
    if (NV > 1) v_store(C + m * ldc + VW, q##m); \
  }
  SIX_ROWS(TILE_ZERO)
  if (add) { SIX_ROWS(TILE_LOAD) }
  for (int64_t k = 0; k < K; k++) {
    vf left = v_load(B + k * ldb), right = NV > 1 ? v_load(B + k * ldb + VW) : v_zero();
    SIX_ROWS(TILE_STEP)
  }
  SIX_ROWS(TILE_STORE)
}

typedef void (*tile_fn)(int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C, int64_t ldc,
                        int add);
#define TILE(m, n, t)                                                                                               \
  static void tile_##m##_##n##_##t(int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,    \
                                   int64_t ldc, int add) {                                                          \
    tile(m, n, t, K, A, lda, B, ldb, C, ldc, add);                                                                  \
  }
#define TILES(m) TILE(m, 1, 0) TILE(m, 2, 0) TILE(m, 1, 1) TILE(m, 2, 1)
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6)
#define TILE_ROWS(n, t) { tile_1_##n##_##t, tile_2_##n##_##t, tile_3_##n##_##t, tile_4_##n##_##t, tile_5_##n##_##t, \
                          tile_6_##n##_##t }
/* by transposed, vectors - 1, rows - 1 */
static const tile_fn tiles[2][2][ATTENTION_STRIP] = { { TILE_ROWS(1, 0), TILE_ROWS(2, 0) },
                                                      { TILE_ROWS(1, 1), TILE_ROWS(2, 1) } };

static inline int64_t at_most(int64_t x, int64_t most) { return x < most ? x : most; }
static inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

/* S (M, N) = or += Q (M, K) Kt (K, N): strip s of 6 rows needs the first cols[s] columns (whole vectors) */
static inline void mm_scores(int64_t M, int64_t N, int64_t K, const float *Q, int64_t ldq, const float *Kt, int64_t ldk,
                             float *S, int64_t lds, const int64_t *cols, int add) {
  for (int64_t n = 0; n < N; n += 2 * VW)
    for (int64_t m = 0; m < M; m += ATTENTION_STRIP) {
      int64_t width = cols[m / ATTENTION_STRIP] - n;
      if (width > 0)
        tiles[0][width > VW][at_most(M - m, ATTENTION_STRIP) - 1](K, Q + m * ldq, ldq, Kt + n, ldk, S + m * lds + n,
                                                                  lds, add);
    }
}
/* O (M, N) = or += P (M, .) V (., N): strip s sums over the first seen[s] keys */
static inline void mm_apply(int64_t M, int64_t N, const float *P, int64_t ldp, const float *V, int64_t ldv, float *O,
                            int64_t ldo, const int64_t *seen, int add) {
  for (int64_t n = 0; n < N; n += 2 * VW)
    for (int64_t m = 0; m < M; m += ATTENTION_STRIP)
      tiles[0][N - n > VW][at_most(M - m, ATTENTION_STRIP) - 1](seen[m / ATTENTION_STRIP], P + m * ldp, ldp, V + n, ldv,
                                                                O + m * ldo + n, ldo, add);
}
/* G (M, N) += P (K, M)^T X (K, N); column m of P is zero in the rows before the first that sees key m */
static inline void mm_gather(int64_t M, int64_t N, int64_t K, const float *P, int64_t ldp, const float *X, int64_t ldx,
                             float *G, int64_t ldg, const int64_t *visible) {
  int64_t k = 0;
  for (int64_t m = 0; m < M; m += ATTENTION_STRIP) {
    while (k < K && visible[k] <= m) k++;
    if (k == K) return;
    for (int64_t n = 0; n < N; n += 2 * VW)
      tiles[1][N - n > VW][at_most(M - m, ATTENTION_STRIP) - 1](K - k, P + k * ldp + m, ldp, X + k * ldx + n, ldx,
                                                                G + m * ldg + n, ldg, 1);
  }
}

/* ---- heads in memory and packed ---- */

/* one head of one task: row i, element d at at[i row + d col]; NULL: zeros, nowhere */
typedef struct head_view {
  float  *at;
  int64_t row, col;
  int     add;
} head_view;
static inline head_view head_of(const mica_wire *w, const int32_t *offsets, int64_t b, int64_t head) {
  head_view v = { (float *)micak_task(w, offsets, b), w->stride[0], w->stride[2], 0 };
  if (!v.at) return v;
  v.at += head * w->stride[1];
  v.add = (w->flags & MICA_ADD) || micak_same_slot(w, offsets, b);
  return v;
}
static inline float cell_in(const head_view *v, int64_t i) { return v->at ? v->at[i * v->row] : 0; }
static inline void cell_out(const head_view *v, int64_t i, float x) {
  if (!v->at) return;
  float *at = v->at + i * v->row;
  *at = v->add ? *at + x : x;
}

/* rows [i0, i0 + n) as (n, Dp); columns from D to Dp are zero */
static inline void pack(const head_view *v, int64_t i0, int64_t n, int64_t D, int64_t Dp, float *to) {
  if (!v->at) {
    memset(to, 0, (size_t)(n * Dp) * sizeof *to);
    return;
  }
  for (int64_t i = 0; i < n; i++, to += Dp) {
    const float *from = v->at + (i0 + i) * v->row;
    if (v->col == 1) {
      int64_t d = 0;
      for (; d + VW <= D; d += VW) v_store(to + d, v_load(from + d));
      if (d < D) v_store(to + d, v_load_n(from + d, D - d));
    } else {
      for (int64_t d = 0; d < Dp; d++) to[d] = d < D ? from[d * v->col] : 0;
    }
  }
}
/* packed rows (n, Dp) out to the wire */
static inline void unpack(const head_view *v, int64_t i0, int64_t n, int64_t D, int64_t Dp, const float *from) {
  if (!v->at) return;
  for (int64_t i = 0; i < n; i++, from += Dp) {
    float *to = v->at + (i0 + i) * v->row;
    if (v->col == 1) {
      for (int64_t d = 0; d < D; d += VW) {
        int64_t w = at_most(D - d, VW);
        vf x = v_load(from + d);
        micak_st(to + d, v->add ? micak_ld(to + d, w) + x : x, w);
      }
    } else {
      for (int64_t d = 0; d < D; d++) to[d * v->col] = v->add ? to[d * v->col] + from[d] : from[d];
    }
  }
}

/* heads of the next unit, asked for row by row while this one computes: rows are too far apart for the hardware to
 * guess, and all at once they would wait for one another */
enum { AHEAD = 12 };
typedef struct ahead_list {
  const char *at[AHEAD];
  int64_t     row[AHEAD], rows[AHEAD];       /* stride in bytes; how many */
  int         count;
} ahead_list;
static inline void ahead_of(ahead_list *list, const mica_wire *w, const int32_t *offsets, int64_t b, int64_t head,
                            int64_t rows) {
  head_view v = head_of(w, offsets, b, head);
  if (!v.at || list->count == AHEAD) return;
  list->at[list->count] = (const char *)v.at;
  list->row[list->count] = v.row * (int64_t)sizeof(float);
  list->rows[list->count++] = rows;
}
/* row i of each; a place is asked for, never read */
static inline void ahead_row(const ahead_list *list, int64_t i, int64_t D) {
  for (int k = 0; k < list->count; k++) {
    if (i >= list->rows[k]) continue;
    const char *at = list->at[k] + i * list->row[k];
    for (int64_t d = 0; d < D; d += 16) __builtin_prefetch(at + d * (int64_t)sizeof(float));
  }
}

/* lanes of two vectors exchanged at distance s: the log-step of a transpose */
#if defined(MICAK_ISA_AVX512)
#define MIX1(a, b) __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#define MIX1H(a, b) __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)
#define MIX2(a, b) __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define MIX2H(a, b) __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define MIX4(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define MIX4H(a, b) __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define MIX8(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define MIX8H(a, b) __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#elif defined(MICAK_ISA_AVX2)
#define MIX1(a, b) __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define MIX1H(a, b) __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#define MIX2(a, b) __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define MIX2H(a, b) __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define MIX4(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define MIX4H(a, b) __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#else
#define MIX1(a, b) __builtin_shufflevector(a, b, 0, 4, 2, 6)
#define MIX1H(a, b) __builtin_shufflevector(a, b, 1, 5, 3, 7)
#define MIX2(a, b) __builtin_shufflevector(a, b, 0, 1, 4, 5)
#define MIX2H(a, b) __builtin_shufflevector(a, b, 2, 3, 6, 7)
#endif
#define MIX_STEP(s)                                  \
  for (int i = 0; i < VW; i++)                       \
    if (!(i & s)) {                                  \
      vf p = x[i], q = x[i + s];                     \
      x[i] = MIX##s(p, q), x[i + s] = MIX##s##H(p, q); \
    }

/* n <= VW packed rows (n, Dp) become columns [j, j + VW) of `to` (Dp, ld); missing rows are zero columns */
static inline void transpose_strip(const float *from, int64_t n, int64_t Dp, float *to, int64_t ld, int64_t j) {
  for (int64_t d = 0; d < Dp; d += VW) {
    vf x[VW];
    for (int i = 0; i < VW; i++) x[i] = i < n ? v_load(from + i * Dp + d) : v_zero();
    MIX_STEP(1)
    MIX_STEP(2)
#if defined(MICAK_ISA_AVX512) || defined(MICAK_ISA_AVX2)
    MIX_STEP(4)
#endif
#if defined(MICAK_ISA_AVX512)
    MIX_STEP(8)
#endif
    for (int i = 0; i < VW; i++) v_store(to + (d + i) * ld + j, x[i]);
  }
}
/* packed rows (n, Dp) to (Dp, ld), columns up to whole vectors */
static inline void transpose(const float *from, int64_t n, int64_t Dp, float *to, int64_t ld) {
  for (int64_t j = 0; j < n; j += VW) transpose_strip(from + j * Dp, at_most(n - j, VW), Dp, to, ld, j);
}
/* head rows straight to (Dp, ld) */
static inline void pack_transposed(const head_view *v, int64_t i0, int64_t n, int64_t D, int64_t Dp, float *strip,
                                   float *to, int64_t ld) {
  for (int64_t j = 0; j < n; j += VW) {
    int64_t m = at_most(n - j, VW);
    pack(v, i0 + j, m, D, Dp, strip);
    transpose_strip(strip, m, Dp, to, ld, j);
  }
}

/* ---- sizes and scratch ---- */

/* row stride of n scores: whole vectors, and not a multiple of 64 floats, whose rows would share cache sets */
static inline int64_t score_stride(int64_t n) {
  int64_t ld = round_up(n, VW);
  return ld % 64 ? ld : ld + VW;
}
static inline float *take(float **scratch, int64_t floats) {
  float *at = *scratch;
  *scratch += round_up(floats, 16);
  return at;
}

/* strips of a block of M rows: keys seen by each row and strip, columns to compute, columns of P to define */
typedef struct strip_plan {
  int64_t visible[ATTENTION_ROWS];           /* a row: keys of this block that it sees */
  int64_t seen[ATTENTION_ROWS / ATTENTION_STRIP], cols[ATTENTION_ROWS / ATTENTION_STRIP],
      defined[ATTENTION_ROWS / ATTENTION_STRIP];
  int64_t most;                              /* columns of the last strip */
} strip_plan;
/* rows [i0, i0 + M), keys [j0, j0 + n) of a task with T queries and S keys */
static inline void plan_strips(strip_plan *plan, const mica_attention_args *a, int64_t i0, int64_t M, int64_t j0,
                               int64_t n, int64_t T, int64_t S, int64_t ld) {
  plan->most = 0;
  for (int64_t i = 0; i < M; i++) {
    int64_t v = attention_visible(a, i0 + i, T, S) - j0, s = i / ATTENTION_STRIP;
    plan->visible[i] = v < 0 ? 0 : at_most(v, n);
    plan->seen[s] = plan->visible[i];
    plan->cols[s] = round_up(plan->seen[s], VW);
    plan->defined[s] = plan->seen[s] ? at_most(round_up(plan->seen[s] + ATTENTION_STRIP, VW), ld) : 0;
    if (plan->cols[s] > plan->most) plan->most = plan->cols[s];
  }
}

static inline float head_scale(const mica_attention_args *a, int64_t b, int64_t h) {
  if (!a->scale.v.data) return 1.0f / sqrtf((float)a->D);
  const float *at = (const float *)micak_task(&a->scale.v, NULL, b);
  return at ? at[h * a->scale.v.stride[0]] : 0;
}
static inline float head_scale_t(const mica_attention_args *a, int64_t b, int64_t h) {
  const float *at = (const float *)micak_task(&a->scale.t, NULL, b);
  return at ? at[h * a->scale.t.stride[0]] : 0;
}

#endif
