/* simd_transpose.h: a square of floats, VW vectors, transposed in registers; included by <op>_cpu.c like simd.h */
#ifndef MICA_KERNELS_COMMON_SIMD_TRANSPOSE_H
#define MICA_KERNELS_COMMON_SIMD_TRANSPOSE_H

#include "common/simd.h"

/* x (VW, VW) transposed */
#if defined(MICAK_ISA_AVX512)
#define PS(name, a, b) (vf)_mm512_##name##_ps((__m512)(a), (__m512)(b))
#define PD(name, a, b) (vf)_mm512_##name##_pd((__m512d)(a), (__m512d)(b))
#define QUARTERS(a, b, which) (vf)_mm512_shuffle_f32x4((__m512)(a), (__m512)(b), which)
static inline void v_transpose(vf x[VW]) {
  vf a[VW], b[VW];
  _Pragma("GCC unroll 16")
  for (int i = 0; i < VW; i += 2) a[i] = PS(unpacklo, x[i], x[i + 1]), a[i + 1] = PS(unpackhi, x[i], x[i + 1]);
  _Pragma("GCC unroll 16")
  for (int i = 0; i < VW; i += 4) { /* quarter l of b[i + c]: column 4 l + c of rows i .. i + 3 */
    b[i] = PD(unpacklo, a[i], a[i + 2]), b[i + 1] = PD(unpackhi, a[i], a[i + 2]);
    b[i + 2] = PD(unpacklo, a[i + 1], a[i + 3]), b[i + 3] = PD(unpackhi, a[i + 1], a[i + 3]);
  }
  _Pragma("GCC unroll 16")
  for (int c = 0; c < 4; c++) {
    vf even0 = QUARTERS(b[c], b[4 + c], 0x88), even1 = QUARTERS(b[8 + c], b[12 + c], 0x88);
    vf odd0 = QUARTERS(b[c], b[4 + c], 0xdd), odd1 = QUARTERS(b[8 + c], b[12 + c], 0xdd);
    x[c] = QUARTERS(even0, even1, 0x88), x[8 + c] = QUARTERS(even0, even1, 0xdd);
    x[4 + c] = QUARTERS(odd0, odd1, 0x88), x[12 + c] = QUARTERS(odd0, odd1, 0xdd);
  }
}
#elif defined(MICAK_ISA_AVX2)
#define PS(name, a, b) (vf)_mm256_##name##_ps((__m256)(a), (__m256)(b))
#define PD(name, a, b) (vf)_mm256_##name##_pd((__m256d)(a), (__m256d)(b))
static inline void v_transpose(vf x[VW]) {
  vf a[VW], b[VW];
  _Pragma("GCC unroll 16")
  for (int i = 0; i < VW; i += 2) a[i] = PS(unpacklo, x[i], x[i + 1]), a[i + 1] = PS(unpackhi, x[i], x[i + 1]);
  _Pragma("GCC unroll 16")
  for (int i = 0; i < VW; i += 4) {
    b[i] = PD(unpacklo, a[i], a[i + 2]), b[i + 1] = PD(unpackhi, a[i], a[i + 2]);
    b[i + 2] = PD(unpacklo, a[i + 1], a[i + 3]), b[i + 3] = PD(unpackhi, a[i + 1], a[i + 3]);
  }
  _Pragma("GCC unroll 16")
  for (int c = 0; c < 4; c++) {
    x[c] = (vf)_mm256_permute2f128_ps((__m256)b[c], (__m256)b[4 + c], 0x20);
    x[4 + c] = (vf)_mm256_permute2f128_ps((__m256)b[c], (__m256)b[4 + c], 0x31);
  }
}
#else
static inline void v_transpose(vf x[VW]) {
  for (int i = 0; i < VW; i++)
    for (int j = 0; j < i; j++) {
      float t = x[i][j];
      x[i][j] = x[j][i];
      x[j][i] = t;
    }
}
#endif
#undef PS
#undef PD
#undef QUARTERS

#endif
