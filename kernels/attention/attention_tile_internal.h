/* attention_tile_internal.h: register tiles, heads in memory, rows and their transposes for the CPU kernels (one copy
 * each instruction set).
 *
 * a block is 48 query rows, the lanes; its scores lie key by key, P[key][lane], so that a softmax runs down a column and
 * never across a vector. three products serve all faces, each element fused sums in order, so that no bit depends on
 * the tile that holds it:
 *   scores   P[j][lane]  = sum_d K[j][d] QT[d][lane]       rows of keys against transposed queries, 64 terms a sum
 *   apply    O[lane][d]  = sum_j P[j][lane] V[j][d]
 *   gather   G[j][d]    += sum_lane P[j][lane] X[lane][d] */
#ifndef MICA_KERNELS_ATTENTION_TILE_INTERNAL_H
#define MICA_KERNELS_ATTENTION_TILE_INTERNAL_H

#include "attention/attention_internal.h"
#include "common/columns.h"
#include "common/isa.h"
#include "common/simd_transpose.h"

#define INLINE static inline __attribute__((always_inline))
#define OUTLINE static __attribute__((noinline, unused)) /* one copy: what all faces run stays in the first cache */
#define UNROLL _Pragma("GCC unroll 16")

enum { LANES = ATTENTION_ROWS, STRIPS = LANES / VW, ROW_TILE = 12 };
#if defined(MICAK_ISA_AVX512)
enum { WIDE = 3 }; /* most vectors of a tile */
static const int most_rows[WIDE] = { 12, 12, 8 };
#define EACH_TILE(X, f) ROWS_12(X, f, 1) ROWS_12(X, f, 2) ROWS_8(X, f, 3)
#define TILE_TABLE(f) { { ROWS_12(TILE_ENTRY, f, 1) }, { ROWS_12(TILE_ENTRY, f, 2) }, { ROWS_8(TILE_ENTRY, f, 3) } }
#else
enum { WIDE = 2 };
static const int most_rows[WIDE] = { 12, 6 };
#define EACH_TILE(X, f) ROWS_12(X, f, 1) ROWS_6(X, f, 2)
#define TILE_TABLE(f) { { ROWS_12(TILE_ENTRY, f, 1) }, { ROWS_6(TILE_ENTRY, f, 2) } }
#endif
#define ROWS_6(X, f, n) X(f, 1, n) X(f, 2, n) X(f, 3, n) X(f, 4, n) X(f, 5, n) X(f, 6, n)
#define ROWS_8(X, f, n) ROWS_6(X, f, n) X(f, 7, n) X(f, 8, n)
#define ROWS_12(X, f, n) ROWS_8(X, f, n) X(f, 9, n) X(f, 10, n) X(f, 11, n) X(f, 12, n)

INLINE vf broadcast(const float *p) {
#if defined(MICAK_ISA_AVX512)
  return (vf)_mm512_set1_ps(*p);
#elif defined(MICAK_ISA_AVX2)
  return (vf)_mm256_broadcast_ss(p); /* from memory: spares the shuffle port */
#else
  return v_set1(*p);
#endif
}

/* keeps the compiler from computing the addresses of all rows ahead of the loop, for want of registers in memory */
#define ONE_BY_ONE(pointer) __asm__("" : "+r"(pointer))

/* C (MR, NV VW) = sum over k < K of A(m, k) B(k); A(m, k) lies at m ra + k rk. `add`: to what is there, term after term
 * (GO_ON) or the whole sum at once (PLUS), which keeps the rounding of long sums to that of short ones */
enum { GO_ON = 1, PLUS = 2 };
INLINE void tile(const int MR, const int NV, int64_t K, const float *A, const int64_t ra, const int64_t rk,
                 const float *B, int64_t ldb, float *C, int64_t ldc, int add) {
  vf sum[ROW_TILE][3];
  float *row = C;
  if (add == GO_ON) {
    UNROLL
    for (int m = 0; m < MR; m++, row += ldc) {
      UNROLL
      for (int n = 0; n < NV; n++) sum[m][n] = v_load(row + n * VW);
      ONE_BY_ONE(row);
    }
  } else {
    UNROLL
    for (int m = 0; m < MR; m++)
      UNROLL
      for (int n = 0; n < NV; n++) sum[m][n] = v_zero();
  }
  /* three bases for twelve rows: addresses are base, base + ra, base + 2 ra, base + 3 ra */
  const float *base[3] = { A, A + (MR > 4 ? 4 * ra : 0), A + (MR > 8 ? 8 * ra : 0) };
  const int64_t ra3 = 3 * ra;
  for (int64_t k = 0; k < K; k++) {
    vf b[3];
    UNROLL
    for (int n = 0; n < NV; n++) b[n] = v_load(B + n * VW);
    B += ldb;
    UNROLL
    for (int m = 0; m < MR; m++) {
      vf x = broadcast(base[m / 4] + (m % 4 == 3 ? ra3 : m % 4 * ra));
      UNROLL
      for (int n = 0; n < NV; n++) sum[m][n] = v_fma(x, b[n], sum[m][n]);
    }
    base[0] += rk;
    if (MR > 4) base[1] += rk;
    if (MR > 8) base[2] += rk;
  }
  row = C;
  if (add == PLUS) {
    UNROLL
    for (int m = 0; m < MR; m++, row += ldc) {
      UNROLL
      for (int n = 0; n < NV; n++) sum[m][n] += v_load(row + n * VW);
      ONE_BY_ONE(row);
    }
    row = C;
  }
  UNROLL
  for (int m = 0; m < MR; m++, row += ldc) {
    UNROLL
    for (int n = 0; n < NV; n++) v_store(row + n * VW, sum[m][n]);
    ONE_BY_ONE(row);
  }
}

/* how A lies: rows of keys (ra apart, any); columns of P; rows of P */
#define STRIDE_scores(ra) ra, 1
#define STRIDE_apply(ra) 1, LANES
#define STRIDE_gather(ra) LANES, 1
typedef void (*tile_fn)(int64_t K, const float *A, int64_t ra, const float *B, int64_t ldb, float *C, int64_t ldc,
                        int add);
#define TILE(f, m, n)                                                                                               \
  static void f##_##m##_##n(int64_t K, const float *A, int64_t ra, const float *B, int64_t ldb, float *C,           \
                            int64_t ldc, int add) {                                                                 \
    (void)ra;                                                                                                       \
    tile(m, n, K, A, STRIDE_##f(ra), B, ldb, C, ldc, add);                                                          \
  }
#define TILE_ENTRY(f, m, n) f##_##m##_##n,
EACH_TILE(TILE, scores)
EACH_TILE(TILE, apply)
EACH_TILE(TILE, gather)
/* by vectors - 1, rows - 1 */
static const tile_fn scores_tiles[WIDE][ROW_TILE] = TILE_TABLE(scores);
static const tile_fn apply_tiles[WIDE][ROW_TILE] = TILE_TABLE(apply);
static const tile_fn gather_tiles[WIDE][ROW_TILE] = TILE_TABLE(gather);

static inline int64_t at_most(int64_t x, int64_t most) { return x < most ? x : most; }
static inline int64_t at_least(int64_t x, int64_t least) { return x > least ? x : least; }
static inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
/* n cut into equal parts of at most `most` */
static inline int64_t even(int64_t n, int64_t most) {
  if (n <= most) return n;
  if (n <= 2 * most) return (n + 1) / 2;
  uint32_t parts = ((uint32_t)n + (uint32_t)most - 1) / (uint32_t)most;
  return ((uint32_t)n + parts - 1) / parts;
}

/* what comes next, asked for row by row while this unit computes: rows are too far apart for the hardware to guess, and
 * all at once they would wait for one another. places are asked for, never read */
enum { AHEAD = 16, AHEAD_LINES = 16, AHEAD_BYTES = 3 << 18 }; /* tensors; lines with each tile; most of a whole task */
typedef struct ahead_rows {
  const char *at;                            /* the next row */
  int64_t     row, rows, bytes;              /* stride in bytes; how many are left; of each */
} ahead_rows;
typedef struct ahead_list {
  ahead_rows tensor[AHEAD];
  int        count, k;                       /* k: the tensor whose turn it is */
} ahead_list;
OUTLINE void ahead_step(ahead_list *list) {
  ahead_rows *t = &list->tensor[list->k];
  for (int64_t lines = 0; t->rows > 0 && lines < AHEAD_LINES; t->rows--, t->at += t->row)
    for (int64_t d = 0; d < t->bytes; d += 64, lines++) __builtin_prefetch(t->at + d, 0, 2);
  list->k += t->rows <= 0;
}

/* C (R, nv vectors) = or += A B, rows ra apart in A, one family of tiles */
static inline void product(const tile_fn tiles[WIDE][ROW_TILE], int64_t R, int64_t nv, int64_t K, const float *A,
                           int64_t ra, const float *B, int64_t ldb, float *C, int64_t ldc, int add, ahead_list *ahead) {
  int64_t width = even(nv, WIDE), step = even(R, most_rows[width - 1]);
  for (int64_t m = 0; m < R; m += step) {
    int64_t mr = at_most(R - m, step);
    for (int64_t n = 0; n < nv; n += width) {
      tiles[at_most(nv - n, width) - 1][mr - 1](K, A + m * ra, ra, B + n * VW, ldb, C + m * ldc + n * VW, ldc, add);
      if (ahead->k < ahead->count) ahead_step(ahead);
    }
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

/* rows of one to four whole vectors, nothing to leave out */
#define EACH_WIDTH(f) switch (D / VW) { case 1: f(1) break; case 2: f(2) break; case 3: f(3) break; default: f(4) }
#define PACK_ROWS(NV)                                                                        \
  for (int64_t i = 0; i < n; i++, to += (NV) * VW, from += v->row)                           \
    UNROLL for (int x = 0; x < (NV); x++) v_store(to + x * VW, v_load(from + x * VW) * factor);
#define UNPACK_ROWS(NV)                                                                      \
  for (int64_t i = 0; i < n; i++, to += v->row, from += (NV) * VW) {                         \
    float x = over ? over[i] * factor : factor;                                              \
    UNROLL for (int c = 0; c < (NV); c++) v_store(to + c * VW, v_load(from + c * VW) * x);   \
  }
static inline int plain_rows(const head_view *v, int64_t D, int64_t Dp) { return v->col == 1 && D == Dp && D <= 4 * VW; }
/* rows [i0, i0 + n) times factor as (n, Dp); columns from D to Dp are zero */
OUTLINE void pack(const head_view *v, int64_t i0, int64_t n, int64_t D, int64_t Dp,
                                           float factor, float *to) {
  if (!v->at) {
    memset(to, 0, (size_t)(n * Dp) * sizeof *to);
    return;
  }
  const float *from = v->at + i0 * v->row;
  if (plain_rows(v, D, Dp)) {
    EACH_WIDTH(PACK_ROWS)
    return;
  }
  for (int64_t i = 0; i < n; i++, to += Dp, from += v->row) {
    if (v->col == 1) {
      int64_t d = 0;
      for (; d + VW <= D; d += VW) v_store(to + d, v_load(from + d) * factor);
      if (d < D) v_store(to + d, v_load_n(from + d, D - d) * factor);
    } else {
      for (int64_t d = 0; d < Dp; d++) to[d] = d < D ? from[d * v->col] * factor : 0;
    }
  }
}
/* packed rows (n, Dp) times factor, and times over[i] where that is given, out to the wire */
OUTLINE void unpack(const head_view *v, int64_t i0, int64_t n, int64_t D, int64_t Dp,
                                             const float *from, const float *over, float factor) {
  if (!v->at) return;
  float *to = v->at + i0 * v->row;
  if (!v->add && plain_rows(v, D, Dp)) {
    EACH_WIDTH(UNPACK_ROWS)
    return;
  }
  for (int64_t i = 0; i < n; i++, from += Dp, to += v->row) {
    float x = over ? over[i] * factor : factor;
    if (v->col == 1) {
      for (int64_t d = 0; d < D; d += VW) {
        int64_t w = at_most(D - d, VW);
        vf y = v_load(from + d) * x;
        micak_st(to + d, v->add ? micak_ld(to + d, w) + y : y, w);
      }
    } else {
      for (int64_t d = 0; d < D; d++) to[d * v->col] = v->add ? to[d * v->col] + from[d] * x : from[d] * x;
    }
  }
}

/* `heads` heads from `head` on: rows of all of them where they lie side by side */
static inline void ahead_of(ahead_list *list, const mica_wire *w, const int32_t *offsets, int64_t b, int64_t head,
                            int64_t heads, int64_t D, int64_t rows) {
  head_view v = head_of(w, offsets, b, head);
  if (!v.at || rows == 0 || list->count == AHEAD) return;
  int64_t bytes = D * (int64_t)sizeof(float) * (v.col == 1 && w->stride[1] == D ? heads : 1);
  list->tensor[list->count++] = (ahead_rows){ (const char *)v.at, v.row * (int64_t)sizeof(float), rows, bytes };
}
/* what units from the next one on will touch: the next task's heads, where those of a whole task stay in the second
 * cache, else the next head. `tensors`, of rows rows each; 0: nothing now */
static inline int64_t ahead_heads(int64_t unit, int64_t last, int64_t heads, int64_t D, int64_t rows, int64_t tensors,
                                  int64_t *b, int64_t *head, int begins) {
  int whole = tensors * rows * heads * D * (int64_t)sizeof(float) <= AHEAD_BYTES;
  int64_t next = whole ? (unit / heads + 1) * heads : unit + 1;
  if (next >= last || (whole && !begins && unit % heads)) return 0;
  *b = next / heads, *head = next % heads;
  return whole ? heads : 1;
}

/* rows l0 .. of a block (LANES, Dp) to columns of `to` (Dp, LANES), whole strips */
static inline void transpose_block(const float *rows, int64_t first, int64_t Dp, float *to) {
  for (int64_t s = first; s < STRIPS; s++)
    for (int64_t d = 0; d < Dp; d += VW) {
      vf x[VW];
      UNROLL
      for (int i = 0; i < VW; i++) x[i] = v_load(rows + (s * VW + i) * Dp + d);
      v_transpose(x);
      UNROLL
      for (int i = 0; i < VW; i++) v_store(to + (d + i) * LANES + s * VW, x[i]);
    }
}

/* e^x for x <= 88, exactly 0 below -87 (-inf too) */
static inline vf exp_to_zero(vf x) {
#if defined(MICAK_ISA_AVX512)
  __mmask16 some = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
  vf n = (vf)_mm512_roundscale_ps((__m512)(x * 1.44269504f), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  vf r = v_fma(n, v_set1(2.12194440e-4f), v_fma(n, v_set1(-0.693359375f), x)); /* n ln 2 in two parts, as v_exp */
  vf q = v_fma(r, v_set1(1.381459806e-03f), v_set1(8.368716932e-03f));          /* (e^r - 1 - r) / r^2 */
  q = v_fma(q, r, v_set1(4.166838806e-02f));
  q = v_fma(q, r, v_set1(1.666652063e-01f));
  q = v_fma(q, r, v_set1(4.999999345e-01f));
  q = v_fma(v_fma(q, r, v_set1(1.0f)), r, v_set1(1.0f));
  return (vf)_mm512_maskz_scalef_ps(some, (__m512)q, (__m512)n);
#else
  return v_exp_low(x);
#endif
}

static inline float *take(float **scratch, int64_t floats) {
  float *at = *scratch;
  *scratch += round_up(floats, 16);
  return at;
}

static inline float head_scale(const mica_attention_args *a, int64_t b, int64_t h) {
  if (!a->scale.v.data) return 1.0f / sqrtf((float)a->D);
  const float *at = (const float *)micak_task(&a->scale.v, NULL, b);
  return at ? at[h * a->scale.v.stride[0]] : 0;
}
/* entry h of an optional (B,H) wire */
static inline float head_cell(const mica_wire *w, int64_t b, int64_t h) {
  const float *at = (const float *)micak_task(w, NULL, b);
  return at ? at[h * w->stride[0]] : 0;
}

#endif
