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
  GEMM_KB = 256     /* terms of a block: fixed, it shows in the bits */
};

/* where finished rows go, past c: to[i] + at gets (the sum + bias) + res[i]; bias and res may be NULL */
typedef struct gemm_out {
  const float        *bias;
  const float *const *res;
  float *const       *to;
  int64_t             at;
} gemm_out;

/* c (mr x nv VW) = or += A (mr x kc) times B (rows ldb apart: GEMM_NR in a panel). a[i]: row i of A, its terms `step`
 * apart. with `out` the sums leave c alone and go there. */
#define GEMM_UNROLL _Pragma("GCC unroll 16")
static inline __attribute__((always_inline)) void gemm_tile_body(int mr, int nv, int64_t kc, const float *const *a,
                                                                 int64_t step, const float *b, int64_t ldb, float *c,
                                                                 int64_t ldc, int add, const gemm_out *out) {
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
    for (int i = 0; i < mr; i++) {
#if defined(MICAK_ISA_AVX512)
      vf x = (vf)_mm512_set1_ps(row[i][at]);
#elif defined(MICAK_ISA_AVX2)
      vf x = (vf)_mm256_broadcast_ss(row[i] + at); /* from memory: spares the shuffle port */
#else
      vf x = v_set1(row[i][at]);
#endif
      sum[i][0] = v_fma(x, b0, sum[i][0]);
      if (nv > 1) sum[i][1] = v_fma(x, b1, sum[i][1]);
    }
  }
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

#if defined(MICAK_ISA_AVX512)
#define GEMM_EACH_MR(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
#define GEMM_EACH_MR(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif
#define GEMM_TILE_PAIR(mr)                                                                                          \
  static void gemm_tile_##mr##_1(int64_t kc, const float *const *a, int64_t step, const float *b, int64_t ldb,      \
                                 float *c, int64_t ldc, int add, const gemm_out *out) {                             \
    gemm_tile_body(mr, 1, kc, a, step, b, ldb, c, ldc, add, out);                                                   \
  }                                                                                                                 \
  static void gemm_tile_##mr##_2(int64_t kc, const float *const *a, int64_t step, const float *b, int64_t ldb,      \
                                 float *c, int64_t ldc, int add, const gemm_out *out) {                             \
    gemm_tile_body(mr, 2, kc, a, step, b, ldb, c, ldc, add, out);                                                   \
  }
GEMM_EACH_MR(GEMM_TILE_PAIR)
#define GEMM_TILE_ROW(mr) { gemm_tile_##mr##_1, gemm_tile_##mr##_2 },
typedef void (*gemm_tile_fn)(int64_t kc, const float *const *a, int64_t step, const float *b, int64_t ldb, float *c,
                             int64_t ldc, int add, const gemm_out *out);
/* by rows - 1, and by whether more than VW columns count */
static const gemm_tile_fn gemm_tile[GEMM_MR][2] = { GEMM_EACH_MR(GEMM_TILE_ROW) };

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

/* up to GEMM_WIDE columns of B as panels one after another, each GEMM_PANEL floats. where the columns lie side by side
 * a row is read once for all panels: rows that are a power of two apart share few lines of cache. */
enum { GEMM_WIDE = 256, GEMM_PANEL = GEMM_KB * GEMM_NR, GEMM_PACKED = GEMM_KB * GEMM_WIDE };
static inline void gemm_pack_wide(float *out, const float *from, int64_t sk, int64_t sn, int64_t kc, int64_t nn) {
  if (sn == 1 && nn % GEMM_NR == 0) {
    for (int64_t k = 0; k < kc; k++, from += sk, out += GEMM_NR)
      for (int64_t j = 0; j < nn / GEMM_NR; j++) {
        v_store(out + j * GEMM_PANEL, v_load(from + j * GEMM_NR));
        v_store(out + j * GEMM_PANEL + VW, v_load(from + j * GEMM_NR + VW));
      }
    return;
  }
  for (int64_t j = 0; j < nn; j += GEMM_NR, out += GEMM_PANEL)
    gemm_pack(out, from + j * sn, sk, sn, kc, nn - j < GEMM_NR ? nn - j : GEMM_NR);
}

/* B can be read where it lies: columns side by side in whole vectors, small enough to stay in the first cache, and too
 * few rows to be worth a copy. the choice does not show in the bits. */
static inline int gemm_in_place(int64_t m, int64_t sk, int64_t sn, int64_t kc, int64_t nn) {
  return sn == 1 && nn % VW == 0 && m <= 64 && kc * sk <= 4096;
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

#endif
