/* unary_internal.h: the one list of unary operations, each with its derivatives, twice: plain C for the reference,
 * vectors for the CPU kernels. the oracle shares no code with the kernels.
 *
 * ROW(name, from, order, f, f1, f2, then the same in vectors)
 *   from   what f' and f'' are functions of: X the input, Y the output, N nothing
 *   order  2; 1 where f'' is zero; 0 where f' is zero too
 *   in f: x is the input; in f1, f2: s is x or y; `a` are the arguments; M(tanh) is tanh or tanhf */
#ifndef MICAK_UNARY_INTERNAL_H
#define MICAK_UNARY_INTERNAL_H

#include "elementwise/elementwise.h"

enum { UNARY_FROM_N, UNARY_FROM_X, UNARY_FROM_Y };

/* clang-format off */
#define MICAK_UNARY_LIST(ROW)                                                                                   \
  ROW(relu, Y, 1,                                                                                                 \
    x > 0 ? x : 0, s > 0 ? 1 : 0, 0,                                                                            \
    v_max(v_zero(), x), v_keep(v_gt(s, v_zero()), v_set1(1)), v_zero())                                         \
  ROW(gelu, X, 2,                                                                                                 \
    F(gelu)(x, a->approx), F(gelu_1)(s, a->approx), F(gelu_2)(s, a->approx),                                    \
    v_gelu(x, a->approx), v_gelu_1(s, a->approx), v_gelu_2(s, a->approx))                                         \
  ROW(silu, X, 2,                                                                                                 \
    x * F(logistic)(x), F(silu_1)(s), F(silu_2)(s),                                                             \
    x * v_sigmoid(x), v_silu_1(s), v_silu_2(s))                                                                   \
  ROW(tanh, Y, 2,                                                                                                 \
    M(tanh)(x), 1 - s * s, -2 * s * (1 - s * s),                                                                \
    v_tanh(x), 1.0f - s * s, -2.0f * s * (1.0f - s * s))                                                        \
  ROW(sigmoid, Y, 2,                                                                                              \
    F(logistic)(x), s * (1 - s), s * (1 - s) * (1 - 2 * s),                                                     \
    v_sigmoid(x), s * (1.0f - s), s * (1.0f - s) * (1.0f - 2.0f * s))                                           \
  ROW(elu1, Y, 2,                                                                                                 \
    x > 0 ? x + 1 : M(exp)(x), s > 1 ? 1 : s, s > 1 ? 0 : s,                                                    \
    v_select(v_gt(x, v_zero()), x + 1.0f, v_exp(v_min(v_zero(), x))), v_min(v_set1(1), s),                      \
    v_keep(v_le(s, v_set1(1)), s))                                                                              \
  ROW(softplus, X, 2,                                                                                             \
    (x > 0 ? x : 0) + M(log1p)(M(exp)(-M(fabs)(x))), F(logistic)(s), F(logistic)(s) * (1 - F(logistic)(s)),     \
    v_max(v_zero(), x) + v_log1p(v_exp(-v_abs(x))), v_sigmoid(s), v_sigmoid_1(v_sigmoid(s)))                     \
  ROW(exp, Y, 2, M(exp)(x), s, s, v_exp(x), s, s)                                                                 \
  ROW(log, X, 2, M(log)(x), 1 / s, -1 / (s * s), v_log(x), 1.0f / s, -1.0f / (s * s))                             \
  ROW(sqrt, Y, 2, M(sqrt)(x), 1 / (2 * s), -1 / (4 * s * s * s),                                                  \
    v_sqrt(x), 0.5f / s, -0.25f / (s * s * s))                                                                  \
  ROW(abs, X, 1, M(fabs)(x), s > 0 ? 1 : s < 0 ? -1 : 0, 0,                                                       \
    v_abs(x), v_keep(v_ne(s, v_zero()), v_copysign(v_set1(1), s)), v_zero())                                    \
  ROW(neg, N, 1, -x, -1, 0, -x, v_set1(-1), v_zero())                                                             \
  ROW(reciprocal, Y, 2, 1 / x, -s * s, 2 * s * s * s, 1.0f / x, -s * s, 2.0f * s * s * s)                         \
  ROW(square, X, 2, x * x, 2 * s, 2, x * x, s + s, v_set1(2))                                                     \
  ROW(sin, X, 2, M(sin)(x), M(cos)(s), -M(sin)(s), v_sin(x), v_cos(s), -v_sin(s))                                 \
  ROW(cos, X, 2, M(cos)(x), -M(sin)(s), -M(cos)(s), v_cos(x), -v_sin(s), -v_cos(s))                               \
  ROW(clip, X, 1,                                                                                                 \
    x < (real)a->lo ? (real)a->lo : x > (real)a->hi ? (real)a->hi : x,                                          \
    s >= (real)a->lo && s <= (real)a->hi ? 1 : 0, 0,                                                            \
    v_min(v_set1((float)a->hi), v_max(v_set1((float)a->lo), x)),                                                \
    v_keep(vm_and(v_ge(s, v_set1((float)a->lo)), v_le(s, v_set1((float)a->hi))), v_set1(1)), v_zero())          \
  ROW(scale, N, 1, (real)a->alpha * x + (real)a->beta, (real)a->alpha, 0,                                         \
    (float)a->alpha * x + (float)a->beta, v_set1((float)a->alpha), v_zero())                                    \
  ROW(stop, N, 0, x, 0, 0, x, v_zero(), v_zero())
/* clang-format on */

enum {
#define UNARY_ENUM(name, from, order, e0, e1, e2, w0, w1, w2) from_##name = UNARY_FROM_##from, order_##name = order,
  MICAK_UNARY_LIST(UNARY_ENUM)
#undef UNARY_ENUM
};

#endif
