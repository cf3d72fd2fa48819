/* gemm.h: the inner kernel of every matrix product of the CPU, in fp32.
 *
 * a tile of up to MR x NR results stays in registers while k runs over at most GEMM_KB terms: the rows of A are read in
 * place by broadcast (any stride over k), B comes as a packed panel (kc x NR). the block sums are added to a small
 * matrix in cache. element (i, j) is
 *
 *   sum over blocks of GEMM_KB terms, in order, of ( sum over k in the block, in order, of A(i,k) B(k,j) )
 *
 * whatever the tile, the rows and columns beside it and the vector width (one fma a term): bits do not depend on the
 * number of rows, on packing or on threads.
 *
 * after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008). included by <op>_cpu.c. */
#ifndef MICA_KERNELS_COMMON_GEMM_H
#define MICA_KERNELS_COMMON_GEMM_H

#include "common/simd.h"

enum {
#if defined(MICAK_ISA_AVX512)
  GEMM_MR = 12, /* 24 of 32 registers hold results */
#else
  GEMM_MR = 6, /* 12 of 16 registers hold results */
#endif
  GEMM_NR = 2 * VW, /* columns of a panel */
  GEMM_TURN = 4,    /* terms of a turn of the loop over packed rows */
  GEMM_KB = 256     /* terms of a block: fixed, it shows in the bits */
};

/* where finished rows go, past c: to[i] + at gets (the sum + bias) + res[i]; bias and res may be NULL */
typedef struct gemm_out {
  const float        *bias;
  const float *const *res;
  float *const       *to;
  int64_t             at;
} gemm_out;

#define GEMM_UNROLL _Pragma("GCC unroll 16")
#define GEMM_INLINE static inline __attribute__((always_inline))

/* the sums of a tile into c (added or stored), or with what c holds to where `out` says */
GEMM_INLINE void gemm_tile_end(int mr, int nv, vf (*sum)[2], float *c, int64_t ldc, int add, const gemm_out *out) {
  if (out) {
    GEMM_UNROLL
    for (int i = 0; i < mr; i++) {
      const float *from = c + i * ldc, *bias = out->bias, *res = out->res ? out->res[i] + out->at : NULL;
      float *to = out->to[i] + out->at;
      GEMM_UNROLL
      for (int h = 0; h < nv; h++) {
        vf y = add ? v_load(from + h * VW) + sum[i][h] : sum[i][h];
        if (bias) y = y + v_load(bias + out->at + h * VW);
        if (res) y = y + v_load(res + h * VW);
        v_store(to + h * VW, y);
      }
    }
    return;
  }
  GEMM_UNROLL
  for (int i = 0; i < mr; i++) {
    float *to = c + i * ldc;
    if (add) {
      v_store(to, v_load(to) + sum[i][0]);
      if (nv > 1) v_store(to + VW, v_load(to + VW) + sum[i][1]);
    } else {
      v_store(to, sum[i][0]);
      if (nv > 1) v_store(to + VW, sum[i][1]);
    }
  }
}

GEMM_INLINE vf gemm_broadcast(const float *x) {
#if defined(MICAK_ISA_AVX512)
  return (vf)_mm512_set1_ps(*x);
#elif defined(MICAK_ISA_AVX2)
  return (vf)_mm256_broadcast_ss(x); /* from memory: spares the shuffle port */
#else
  return v_set1(*x);
#endif
}

/* row i's part of one term: sum += *x times b0 and b1. AVX-512 can take the number from memory in the fma: every second row
 * does, which is fewer instructions where another thread of the core wants some, and leaves the load ports room */
GEMM_INLINE void gemm_row(int i, int nv, const float *x, vf b0, vf b1, vf sum[2]) {
#if defined(MICAK_ISA_AVX512)
  if (i % 2 == 0 || nv == 1) {
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum[0]) : "v"(b0), "m"(*x));
    if (nv > 1) __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum[1]) : "v"(b1), "m"(*x));
    return;
  }
#endif
  (void)i;
  vf all = gemm_broadcast(x);
  sum[0] = v_fma(all, b0, sum[0]);
  if (nv > 1) sum[1] = v_fma(all, b1, sum[1]);
}

/* c (mr x nv VW) = or += A (mr x kc) times B (rows ldb apart: GEMM_NR in a panel). a[i]: row i of A, its terms `step`
 * apart. with `out` the sums leave c alone and go there. */
GEMM_INLINE void gemm_tile_body(int mr, int nv, int64_t kc, const float *const *a, int64_t step, const float *b,
                                int64_t ldb, float *c, int64_t ldc, int add, const gemm_out *out) {
  vf sum[GEMM_MR][2];
  const float *row[GEMM_MR];
  GEMM_UNROLL
  for (int i = 0; i < mr; i++) {
    sum[i][0] = sum[i][1] = v_zero();
    row[i] = a[i];
  }
  for (int64_t k = 0, at = 0; k < kc; k++, at += step, b += ldb) {
    vf b0 = v_load(b), b1 = nv > 1 ? v_load(b + VW) : v_zero();
    GEMM_UNROLL
    for (int i = 0; i < mr; i++) gemm_row(i, nv, row[i] + at, b0, b1, sum[i]);
  }
  gemm_tile_end(mr, nv, sum, c, ldc, add, out);
}

GEMM_INLINE void gemm_term(int mr, int nv, const float *a, const float *b, vf (*sum)[2]) {
  vf b0 = v_load(b), b1 = nv > 1 ? v_load(b + VW) : v_zero();
  GEMM_UNROLL
  for (int i = 0; i < mr; i++) gemm_row(i, nv, a + i, b0, b1, sum[i]);
}
/* lines that are wanted next, in rows of `width` lines, `skip` floats from the end of one to the next. packed tiles bring
 * them into the second cache, one every GEMM_TURN terms: many at once fill the few places where misses wait, and then the
 * product waits, too */
typedef struct gemm_ahead { const float *at; int64_t left, width, skip; } gemm_ahead;
enum { GEMM_LINE = 16 };
GEMM_INLINE void gemm_look_ahead(gemm_ahead *ahead) {
  __builtin_prefetch(ahead->at, 0, 2);
  ahead->at += GEMM_LINE;
  if (--ahead->left == 0) {
    ahead->at += ahead->skip;
    ahead->left = ahead->width;
  }
}

/* the same with A packed: term k of rows 0 .. mr - 1 at a[k GEMM_MR]; rows of B ldb apart. one address serves all rows,
 * and several terms a turn: a tenth faster where the copy is used for a hundred columns or more */
GEMM_INLINE void gemm_packed_body(int mr, int nv, int64_t kc, const float *a, const float *b, int64_t ldb, float *c,
                                  int64_t ldc, int add, const gemm_out *out, gemm_ahead *ahead) {
  vf sum[GEMM_MR][2];
  gemm_ahead next = ahead ? *ahead : (gemm_ahead){ a, INT64_MAX, 0, 0 };
  GEMM_UNROLL
  for (int i = 0; i < mr; i++) {
    sum[i][0] = sum[i][1] = v_zero();
    for (int h = 0; h < nv * VW; h += GEMM_LINE)
      __builtin_prefetch(out ? out->to[i] + out->at + h : c + i * ldc + h, 1);
  }
  for (; kc >= GEMM_TURN; kc -= GEMM_TURN, a += GEMM_TURN * GEMM_MR, b += GEMM_TURN * ldb) {
    gemm_look_ahead(&next);
    GEMM_UNROLL
    for (int k = 0; k < GEMM_TURN; k++) gemm_term(mr, nv, a + k * GEMM_MR, b + k * ldb, sum);
  }
  for (; kc > 0; kc--, a += GEMM_MR, b += ldb) gemm_term(mr, nv, a, b, sum);
  if (ahead) *ahead = next;
  gemm_tile_end(mr, nv, sum, c, ldc, add, out);
}

#if defined(MICAK_ISA_AVX512)
#define GEMM_EACH_MR(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
#define GEMM_EACH_MR(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif
#define GEMM_TILE(mr, nv)                                                                                           \
  static void gemm_tile_##mr##_##nv(int64_t kc, const float *const *a, int64_t step, const float *b, int64_t ldb,   \
                                    float *c, int64_t ldc, int add, const gemm_out *out) {                          \
    gemm_tile_body(mr, nv, kc, a, step, b, ldb, c, ldc, add, out);                                                  \
  }                                                                                                                 \
  static void gemm_packed_##mr##_##nv(int64_t kc, const float *a, const float *b, int64_t ldb, float *c,            \
                                      int64_t ldc, int add, const gemm_out *out, gemm_ahead *ahead) {               \
    gemm_packed_body(mr, nv, kc, a, b, ldb, c, ldc, add, out, ahead);                                               \
  }
#define GEMM_TILE_PAIR(mr) GEMM_TILE(mr, 1) GEMM_TILE(mr, 2)
GEMM_EACH_MR(GEMM_TILE_PAIR)
typedef void (*gemm_tile_fn)(int64_t kc, const float *const *a, int64_t step, const float *b, int64_t ldb, float *c,
                             int64_t ldc, int add, const gemm_out *out);
typedef void (*gemm_packed_fn)(int64_t kc, const float *a, const float *b, int64_t ldb, float *c, int64_t ldc, int add,
                               const gemm_out *out, gemm_ahead *ahead);
/* by rows - 1, and by whether more than VW columns count */
#define GEMM_TILE_ROW(mr) { gemm_tile_##mr##_1, gemm_tile_##mr##_2 },
#define GEMM_PACKED_ROW(mr) { gemm_packed_##mr##_1, gemm_packed_##mr##_2 },
static const gemm_tile_fn gemm_tile[GEMM_MR][2] = { GEMM_EACH_MR(GEMM_TILE_ROW) };
static const gemm_packed_fn gemm_packed_tile[GEMM_MR][2] = { GEMM_EACH_MR(GEMM_PACKED_ROW) };

#if defined(MICAK_ISA_AVX2) || defined(MICAK_ISA_AVX512)
/* 8 x 8 transposed: to[k GEMM_NR + j] = from[j ld + k] */
static inline void gemm_transpose8(const float *from, int64_t ld, float *to) {
  __m256 r[8], t[8];
  GEMM_UNROLL
  for (int j = 0; j < 8; j++) r[j] = _mm256_loadu_ps(from + j * ld);
  GEMM_UNROLL
  for (int j = 0; j < 8; j += 2) {
    t[j] = _mm256_unpacklo_ps(r[j], r[j + 1]);
    t[j + 1] = _mm256_unpackhi_ps(r[j], r[j + 1]);
  }
  GEMM_UNROLL
  for (int j = 0; j < 8; j += 4) {
    r[j] = _mm256_shuffle_ps(t[j], t[j + 2], 0x44);
    r[j + 1] = _mm256_shuffle_ps(t[j], t[j + 2], 0xee);
    r[j + 2] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0x44);
    r[j + 3] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0xee);
  }
  GEMM_UNROLL
  for (int j = 0; j < 4; j++) {
    _mm256_storeu_ps(to + j * GEMM_NR, _mm256_permute2f128_ps(r[j], r[j + 4], 0x20));
    _mm256_storeu_ps(to + (j + 4) * GEMM_NR, _mm256_permute2f128_ps(r[j], r[j + 4], 0x31));
  }
}
#endif

/* VW columns of a panel from rows that lie `sn` apart and hold their terms side by side */
static inline void gemm_pack_columns(float *out, const float *from, int64_t sn, int64_t kc, int64_t nn) {
  int64_t k = 0;
#if defined(MICAK_ISA_AVX2) || defined(MICAK_ISA_AVX512)
  if (nn == VW)
    for (; k + 8 <= kc; k += 8)
      for (int64_t j = 0; j < VW; j += 8) gemm_transpose8(from + j * sn + k, sn, out + k * GEMM_NR + j);
#endif
  for (; k < kc; k++) {
    for (int64_t j = 0; j < nn; j++) out[k * GEMM_NR + j] = from[j * sn + k];
    for (int64_t j = nn; j < VW; j++) out[k * GEMM_NR + j] = 0;
  }
}

/* out (kc x GEMM_NR) = B (kc x nn), zeros beyond nn; B(k, j) = from[k sk + j sn], nn <= GEMM_NR. the right half of the
 * panel is left alone when nn <= VW: a tile of one vector does not read it. */
static inline void gemm_pack(float *out, const float *from, int64_t sk, int64_t sn, int64_t kc, int64_t nn) {
  if (sn == 1 && nn == GEMM_NR) {
    for (int64_t k = 0; k < kc; k++) {
      v_store(out + k * GEMM_NR, v_load(from + k * sk));
      v_store(out + k * GEMM_NR + VW, v_load(from + k * sk + VW));
    }
    return;
  }
  for (int64_t j = 0; j < nn; j += VW) {
    int64_t n = nn - j < VW ? nn - j : VW;
    if (sn == 1)
      for (int64_t k = 0; k < kc; k++) v_store(out + k * GEMM_NR + j, v_load_n(from + k * sk + j, n));
    else if (sk == 1)
      gemm_pack_columns(out + j, from + j * sn, sn, kc, n);
    else
      for (int64_t k = 0; k < kc; k++)
        v_store(out + k * GEMM_NR + j, v_load_strided(from + k * sk + j * sn, sn, n));
  }
}

/* up to GEMM_WIDE columns of B as panels `panel` floats apart. where the columns lie side by side a row is read once for
 * all panels: rows that are a power of two apart share few lines of cache. */
enum { GEMM_WIDE = 256, GEMM_PANEL = GEMM_KB * GEMM_NR };
static inline void gemm_pack_wide(float *out, int64_t panel, const float *from, int64_t sk, int64_t sn, int64_t kc,
                                  int64_t nn) {
  if (sn == 1 && nn % GEMM_NR == 0) {
    for (int64_t k = 0; k < kc; k++, from += sk, out += GEMM_NR)
      for (int64_t j = 0; j < nn / GEMM_NR; j++) {
        v_store(out + j * panel, v_load(from + j * GEMM_NR));
        v_store(out + j * panel + VW, v_load(from + j * GEMM_NR + VW));
      }
    return;
  }
  for (int64_t j = 0; j < nn; j += GEMM_NR, out += panel)
    gemm_pack(out, from + j * sn, sk, sn, kc, nn - j < GEMM_NR ? nn - j : GEMM_NR);
}

/* 8 terms of 4 rows into a panel of A: to[k GEMM_MR + i] = row i's term k */
#if defined(MICAK_ISA_AVX2) || defined(MICAK_ISA_AVX512)
static inline void gemm_transpose4(const float *a0, const float *a1, const float *a2, const float *a3, float *to) {
  __m256 r[4] = { _mm256_loadu_ps(a0), _mm256_loadu_ps(a1), _mm256_loadu_ps(a2), _mm256_loadu_ps(a3) }, t[4];
  t[0] = _mm256_unpacklo_ps(r[0], r[1]);
  t[1] = _mm256_unpackhi_ps(r[0], r[1]);
  t[2] = _mm256_unpacklo_ps(r[2], r[3]);
  t[3] = _mm256_unpackhi_ps(r[2], r[3]);
  r[0] = _mm256_shuffle_ps(t[0], t[2], 0x44);
  r[1] = _mm256_shuffle_ps(t[0], t[2], 0xee);
  r[2] = _mm256_shuffle_ps(t[1], t[3], 0x44);
  r[3] = _mm256_shuffle_ps(t[1], t[3], 0xee);
  GEMM_UNROLL
  for (int k = 0; k < 4; k++) {
    _mm_storeu_ps(to + k * GEMM_MR, _mm256_castps256_ps128(r[k]));
    _mm_storeu_ps(to + (k + 4) * GEMM_MR, _mm256_extractf128_ps(r[k], 1));
  }
}
#endif
#if defined(MICAK_ISA_AVX512)
/* 16 terms of GEMM_MR rows, whole lines in and out: quarters of 4 x 4 first, then quarters change places */
static inline void gemm_transpose12(const float *const *row, int64_t k, float *to) {
  __m512 v[3][4];
  GEMM_UNROLL
  for (int g = 0; g < 3; g++) {
    const float *const *r = row + 4 * g;
    __m512 r0 = _mm512_loadu_ps(r[0] + k), r1 = _mm512_loadu_ps(r[1] + k);
    __m512 r2 = _mm512_loadu_ps(r[2] + k), r3 = _mm512_loadu_ps(r[3] + k);
    __m512 t0 = _mm512_unpacklo_ps(r0, r1), t1 = _mm512_unpackhi_ps(r0, r1);
    __m512 t2 = _mm512_unpacklo_ps(r2, r3), t3 = _mm512_unpackhi_ps(r2, r3);
    v[g][0] = _mm512_shuffle_ps(t0, t2, 0x44), v[g][1] = _mm512_shuffle_ps(t0, t2, 0xee);
    v[g][2] = _mm512_shuffle_ps(t1, t3, 0x44), v[g][3] = _mm512_shuffle_ps(t1, t3, 0xee);
  }
  /* quarter q of v[g][k] is term 4 q + k of rows 4 g .. 4 g + 3 */
  const __m512 s[3][4] = { { v[0][0], v[1][0], v[2][0], v[0][1] },
                           { v[1][1], v[2][1], v[0][2], v[1][2] },
                           { v[2][2], v[0][3], v[1][3], v[2][3] } };
  GEMM_UNROLL
  for (int j = 0; j < 3; j++) {
    __m512 x0 = _mm512_shuffle_f32x4(s[j][0], s[j][1], 0x44), x1 = _mm512_shuffle_f32x4(s[j][0], s[j][1], 0xee);
    __m512 x2 = _mm512_shuffle_f32x4(s[j][2], s[j][3], 0x44), x3 = _mm512_shuffle_f32x4(s[j][2], s[j][3], 0xee);
    _mm512_storeu_ps(to + j * VW, _mm512_shuffle_f32x4(x0, x2, 0x88));
    _mm512_storeu_ps(to + (3 + j) * VW, _mm512_shuffle_f32x4(x0, x2, 0xdd));
    _mm512_storeu_ps(to + (6 + j) * VW, _mm512_shuffle_f32x4(x1, x3, 0x88));
    _mm512_storeu_ps(to + (9 + j) * VW, _mm512_shuffle_f32x4(x1, x3, 0xdd));
  }
}
#endif
/* rows of A, terms [shift, shift + kc) side by side, as panels of GEMM_MR rows, kc GEMM_MR floats each; rows beyond m are
 * left as they are */
static inline void gemm_pack_rows(float *out, const float *const *a, int64_t m, int64_t shift, int64_t kc) {
  for (int64_t i = 0; i < m; i += GEMM_MR, out += kc * GEMM_MR) {
    int64_t mr = m - i < GEMM_MR ? m - i : GEMM_MR, q = 0;
#if defined(MICAK_ISA_AVX512)
    if (mr == GEMM_MR && kc % VW == 0) {
      const float *row[GEMM_MR];
      for (q = 0; q < GEMM_MR; q++) row[q] = a[i + q] + shift;
      for (int64_t k = 0; k < kc; k += VW) gemm_transpose12(row, k, out + k * GEMM_MR);
      continue;
    }
#endif
    for (int64_t r = i + mr; r < m && r < i + 2 * GEMM_MR; r++) /* runs too short for the machine to foresee */
      for (int64_t k = 0; k < kc; k += 16) __builtin_prefetch(a[r] + shift + k);
#if defined(MICAK_ISA_AVX2) || defined(MICAK_ISA_AVX512)
    for (; q + 4 <= mr; q += 4) {
      const float *a0 = a[i + q] + shift, *a1 = a[i + q + 1] + shift, *a2 = a[i + q + 2] + shift;
      const float *a3 = a[i + q + 3] + shift;
      int64_t k = 0;
      for (; k + 8 <= kc; k += 8) gemm_transpose4(a0 + k, a1 + k, a2 + k, a3 + k, out + k * GEMM_MR + q);
      for (; k < kc; k++)
        for (int64_t r = q; r < q + 4; r++) out[k * GEMM_MR + r] = a[i + r][shift + k];
    }
#endif
    for (; q < mr; q++)
      for (int64_t k = 0; k < kc; k++) out[k * GEMM_MR + q] = a[i + q][shift + k];
  }
}

/* B can be read where it lies: columns side by side in whole vectors, small enough to stay in the first cache, and too
 * few rows to be worth a copy. the choice does not show in the bits. */
enum { GEMM_FEW = 64 };
static inline int gemm_in_place(int64_t m, int64_t sk, int64_t sn, int64_t kc, int64_t nn) {
  return sn == 1 && nn % VW == 0 && m <= GEMM_FEW && kc * sk <= 4096;
}

/* c (m x nn, rows ldc apart) = or += rows times B; a[i] row i of A, read from `shift` on. B: panels as gemm_pack_wide
 * leaves them, or in place (`stride` GEMM_NR, rows ldb apart). ldc must leave room for whole panels (VW columns where
 * no more count). `out`: the results of all m rows go there instead, column j to its at + j.
 *
 * a tile's rows of A stay in the first cache while the panels come from the second, and its results fill rows from left
 * to right: the other way round is a third slower. */
static inline void gemm_panels(int64_t m, int64_t nn, int64_t kc, const float *const *a, int64_t shift, int64_t step,
                               const float *b, int64_t ldb, int64_t stride, float *c, int64_t ldc, int add,
                               const gemm_out *out) {
  gemm_out part = { 0 };
  const float *row[GEMM_MR];
  for (int64_t i = 0, mr; i < m; i += mr) {
    int64_t left = m - i;
    mr = left < GEMM_MR ? left : GEMM_MR;
    if (left > GEMM_MR && left < 2 * GEMM_MR) mr = (left + 1) / 2; /* no thin last tile */
    for (int64_t q = 0; q < mr; q++) row[q] = a[i + q] + shift;
    if (out) part = (gemm_out){ out->bias, out->res ? out->res + i : NULL, out->to + i, out->at };
    const float *panel = b;
    for (int64_t j = 0; j < nn; j += GEMM_NR, panel += stride, part.at += GEMM_NR)
      gemm_tile[mr - 1][nn - j > VW](kc, row, step, panel, ldb, c + i * ldc + j, ldc, add, out ? &part : NULL);
  }
}

/* the same for packed rows: a as gemm_pack_rows leaves them, its panels `step` floats apart; rows of B ldb
 * apart. ahead: may be NULL */
static inline void gemm_packed_panels(int64_t m, int64_t nn, int64_t kc, const float *a, int64_t step, const float *b,
                                      int64_t ldb, int64_t stride, float *c, int64_t ldc, int add,
                                      const gemm_out *out, gemm_ahead *ahead) {
  gemm_out part = { 0 };
  for (int64_t i = 0; i < m; i += GEMM_MR, a += step) {
    int64_t mr = m - i < GEMM_MR ? m - i : GEMM_MR;
    if (out) part = (gemm_out){ out->bias, out->res ? out->res + i : NULL, out->to + i, out->at };
    const float *panel = b;
    for (int64_t j = 0; j < nn; j += GEMM_NR, panel += stride, part.at += GEMM_NR)
      gemm_packed_tile[mr - 1][nn - j > VW](kc, a, panel, ldb, c + i * ldc + j, ldc, add, out ? &part : NULL, ahead);
  }
}

#endif
