/* binary_internal.h: the one list of binary operations with their derivatives, for the reference and in vectors.
 *
 * ROW(name, reads, f, fa, fb, faa, fab, fbb, then the same in vectors)
 *   reads  what the derivatives are functions of: AB both values, M the mask, N nothing; S both, with f'' zero; D: f'
 *   zero in all: a and b are the values, m the mask (not zero: a) */
#ifndef MICAK_BINARY_INTERNAL_H
#define MICAK_BINARY_INTERNAL_H

#include "elementwise/elementwise.h"

/* bits: which inputs the first derivative and the second derivative look at */
enum {
  BINARY_VALUES = 1, BINARY_MASK = 2, BINARY_FIRST = 4, BINARY_SECOND = 8, BINARY_ONLY_B = 16,
  BINARY_AB = BINARY_VALUES | BINARY_FIRST | BINARY_SECOND, /* nonlinear */
  BINARY_S = BINARY_VALUES | BINARY_FIRST,                  /* piecewise linear */
  BINARY_M = BINARY_MASK | BINARY_FIRST,                    /* linear for a mask */
  BINARY_N = BINARY_FIRST,                                  /* linear */
  BINARY_E = BINARY_FIRST | BINARY_ONLY_B,                  /* linear, a only lends its shape */
  BINARY_D = 0                                              /* no derivative */
};

#define V1 v_set1(1)
#define V0 v_zero()
/* clang-format off */
#define MICAK_BINARY_LIST(ROW)                                                                                   \
  ROW(add, N, a + b, 1, 1, 0, 0, 0, a + b, V1, V1, V0, V0, V0)                                                     \
  ROW(sub, N, a - b, 1, -1, 0, 0, 0, a - b, V1, -V1, V0, V0, V0)                                                   \
  ROW(mul, AB, a * b, b, a, 0, 1, 0, a * b, b, a, V0, V1, V0)                                                      \
  ROW(div, AB, a / b, 1 / b, -a / (b * b), 0, -1 / (b * b), 2 * a / (b * b * b),                                   \
    a / b, 1.0f / b, -a / (b * b), V0, -1.0f / (b * b), 2.0f * a / (b * b * b))                                  \
  ROW(minimum, S, a <= b ? a : b, a <= b ? 1 : 0, a <= b ? 0 : 1, 0, 0, 0,                                         \
    v_select(v_le(a, b), a, b), v_keep(v_le(a, b), V1), v_select(v_le(a, b), V0, V1), V0, V0, V0)                \
  ROW(maximum, S, a >= b ? a : b, a >= b ? 1 : 0, a >= b ? 0 : 1, 0, 0, 0,                                         \
    v_select(v_ge(a, b), a, b), v_keep(v_ge(a, b), V1), v_select(v_ge(a, b), V0, V1), V0, V0, V0)                \
  ROW(expand, E, b, 0, 1, 0, 0, 0, b, V0, V1, V0, V0, V0)                                                          \
  ROW(where, M, m != 0 ? a : b, m != 0 ? 1 : 0, m != 0 ? 0 : 1, 0, 0, 0,                                           \
    v_select(v_ne(m, V0), a, b), v_keep(v_ne(m, V0), V1), v_select(v_ne(m, V0), V0, V1), V0, V0, V0)             \
  ROW(lt, D, a < b, 0, 0, 0, 0, 0, v_keep(v_lt(a, b), V1), V0, V0, V0, V0, V0)                                     \
  ROW(le, D, a <= b, 0, 0, 0, 0, 0, v_keep(v_le(a, b), V1), V0, V0, V0, V0, V0)                                    \
  ROW(gt, D, a > b, 0, 0, 0, 0, 0, v_keep(v_gt(a, b), V1), V0, V0, V0, V0, V0)                                     \
  ROW(ge, D, a >= b, 0, 0, 0, 0, 0, v_keep(v_ge(a, b), V1), V0, V0, V0, V0, V0)                                    \
  ROW(eq, D, a == b, 0, 0, 0, 0, 0, v_keep(v_eq(a, b), V1), V0, V0, V0, V0, V0)                                    \
  ROW(ne, D, a != b, 0, 0, 0, 0, 0, v_keep(v_ne(a, b), V1), V0, V0, V0, V0, V0)
/* clang-format on */

enum {
#define BINARY_ENUM(name, reads, e, ea, eb, eaa, eab, ebb, w, wa, wb, waa, wab, wbb) reads_##name = BINARY_##reads,
  MICAK_BINARY_LIST(BINARY_ENUM)
#undef BINARY_ENUM
};

#endif
