/* columns.h: vector loops over the columns of one row, for CPU kernels. no op logic. */
#ifndef MICA_KERNELS_COMMON_COLUMNS_H
#define MICA_KERNELS_COMMON_COLUMNS_H

#include "common/simd.h"

/* n == VW: whole vector; else the first n lanes */
static inline vf micak_ld(const float *p, int64_t n) { return n == VW ? v_load(p) : v_load_n(p, n); }
static inline void micak_st(float *p, vf x, int64_t n) {
  if (n == VW) v_store(p, x);
  else v_store_n(p, x, n);
}
/* x with the lanes from n on replaced by those of `rest` */
static inline vf micak_first(vf x, vf rest, int64_t n) {
  if (n == VW) return x;
  static const int32_t lanes[32] = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 };
  vi mask;
  memcpy(&mask, lanes + 16 - n, sizeof mask);
  return (vf)(((vi)x & mask) | ((vi)rest & ~mask));
}

/* run the body for each vector of C columns; it sees c (first column), n (lanes) and k (0..3: which of four partial
 * sums takes this vector, so that sums are not one long chain). the order depends on C and VW alone. */
#define MICAK_COLUMNS(C, ...)                                                 \
  do {                                                                        \
    int64_t c = 0;                                                            \
    while (c + 4 * VW <= (C)) {                                               \
      _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++, c += VW) {          \
        const int64_t n = VW;                                                 \
        (void)n;                                                              \
        __VA_ARGS__                                                           \
      }                                                                       \
    }                                                                         \
    for (; c < (C); c += VW) {                                                \
      const int64_t n = (C) - c < VW ? (C) - c : VW;                          \
      const int k = 0;                                                        \
      (void)n, (void)k;                                                       \
      __VA_ARGS__                                                             \
    }                                                                         \
  } while (0)

static inline float micak_sum4(const vf s[4]) { return v_sum((s[0] + s[1]) + (s[2] + s[3])); }

#endif
