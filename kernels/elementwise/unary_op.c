/* tables of the unary operations */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "common/rows.h"
#include "elementwise/unary_internal.h"

#define AT(field) offsetof(mica_unary_args, field)

static const mica_dim unary_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) } };

/* ---- splits and cost ---- */

static void split_for(const mica_unary_args *a, const mica_wire *out, const int32_t *offsets, mica_split *split) {
  micak_split_rows(offsets, a->B, a->R, micak_wire_sums(out, offsets, a->B), a->C, split);
  if (!out->data) split->units = 0;
}
static void unary_split_forward(const void *args, mica_split *split) {
  const mica_unary_args *a = args;
  split_for(a, &a->y.v, a->y.offsets, split);
}
static void unary_split_backward(const void *args, mica_split *split) {
  const mica_unary_args *a = args;
  split_for(a, &a->x.d, a->x.offsets, split);
}
static void unary_split_jvp(const void *args, mica_split *split) {
  const mica_unary_args *a = args;
  split_for(a, &a->y.t, a->y.offsets, split);
}
static void unary_split_backward_jvp(const void *args, mica_split *split) {
  const mica_unary_args *a = args;
  split_for(a, &a->x.td, a->x.offsets, split);
}

static void unary_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_unary_args *a = args;
  static const double flop_each[MICA_NFACE] = { 1, 2, 2, 5 }, moved[MICA_NFACE] = { 2, 3, 3, 5 };
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->R) * (double)a->C;
  *flop = flop_each[face] * n;
  *bytes = moved[face] * n * sizeof(float);
}

static mica_status clip_infer(void *args) {
  const mica_unary_args *a = args;
  if (a->lo <= a->hi) return MICA_OK;
  return mica_error(MICA_ERR_INVALID, "clip: lo is %g and hi is %g, expected lo <= hi", a->lo, a->hi);
}

/* ---- settings and cases ---- */

static const mica_param gelu_params[] = {
  { "approx", MICA_PARAM_CHOICE, AT(approx), 0, 0, 1, "none|tanh", "x Phi(x) by erf, or by the tanh formula" },
};
static const mica_param clip_params[] = {
  { "lo", MICA_PARAM_REAL, AT(lo), 0, -1e300, 1e300, NULL, "least value" },
  { "hi", MICA_PARAM_REAL, AT(hi), 1, -1e300, 1e300, NULL, "greatest value" },
};
static const mica_param scale_params[] = {
  { "alpha", MICA_PARAM_REAL, AT(alpha), 1, -1e300, 1e300, NULL, "factor" },
  { "beta", MICA_PARAM_REAL, AT(beta), 0, -1e300, 1e300, NULL, "added after the factor" },
};

#define CASES_OF(set)                               \
  { "B=3 R=7 C=33" set, MICA_CASE_PACKED },         \
  { "B=2 R=1 C=1" set, 0 },                         \
  { "B=1 R=2 C=530" set, MICA_CASE_SLOW },          \
  { "B=64 R=82 C=1024" set, MICA_CASE_BENCH }
static const mica_case unary_cases[] = { CASES_OF("") };
static const mica_case gelu_cases[] = { CASES_OF(" approx=none"), CASES_OF(" approx=tanh") };
static const mica_case clip_cases[] = { CASES_OF(" lo=-0.55 hi=0.65") };
static const mica_case scale_cases[] = { CASES_OF(" alpha=-1.5 beta=0.25") };

/* ---- one descriptor each ---- */

/* the wires that derivatives look at: nothing where they are zero, x or y where the formula is in x or y */
#define IF_FROM(name, port) ((int)from_##name == (int)UNARY_FROM_##port && (int)order_##name > 0 ? MICA_V : 0)
#define IF_1(name, bits) ((int)order_##name > 0 ? (bits) : 0)
#define IF_2(name, bits) ((int)order_##name > 1 ? (bits) : 0)

#define OPERANDS(name, role, domain)                                                                                \
  static const mica_operand name##_operands[] = {                                                                   \
    { "x", "B R C", AT(x), role,                                                                                    \
      MICA_READS(MICA_V, IF_FROM(name, X), IF_FROM(name, X) | IF_1(name, MICA_T),                                   \
                 IF_FROM(name, X) | IF_2(name, MICA_T)),                                                            \
      MICA_WRITES_IN, domain, NULL, "input" },                                                                      \
    { "y", "B R C", AT(y), MICA_OUT,                                                                                \
      MICA_READS(0, IF_FROM(name, Y) | IF_1(name, MICA_D), IF_FROM(name, Y),                                        \
                 IF_FROM(name, Y) | IF_1(name, MICA_TD) | IF_2(name, MICA_D)),                                      \
      MICA_WRITES_OUT, MICA_ANY, NULL, "output" },                                                                  \
  };

/* the example: two elements x, with f, f' and f'' given by hand; tangent 2, cotangent 3, its tangent 5 */
static const double two[2] = { 2, 2 }, three[2] = { 3, 3 }, five[2] = { 5, 5 };
#define EXAMPLE(name, set, x0, f0, p0, q0, x1, f1, p1, q1)                                                    \
  static const double name##_x[2] = { x0, x1 }, name##_y[2] = { f0, f1 };                                     \
  static const double name##_yt[2] = { 2 * (p0), 2 * (p1) }, name##_xd[2] = { 3 * (p0), 3 * (p1) };           \
  static const double name##_xtd[2] = { 5 * (p0) + 6 * (q0), 5 * (p1) + 6 * (q1) };                           \
  static const mica_example_wire name##_wires[] = {                                                           \
    { "x.v", name##_x, 2, 0 },   { "x.t", two, 2, 0 },       { "y.d", three, 2, 0 },     { "y.td", five, 2, 0 }, \
    { "y.v", name##_y, 2, 1 },   { "y.t", name##_yt, 2, 1 }, { "x.d", name##_xd, 2, 1 }, { "x.td", name##_xtd, 2, 1 }, \
  };                                                                                                          \
  static const mica_example name##_example = { "B=1 R=1 C=2" set, name##_wires, 8 };

#define KERNELS(name)                                                                                       \
  CPU_DISPATCH(name##_forward)                                                                              \
  CPU_DISPATCH(name##_backward)                                                                             \
  CPU_DISPATCH(name##_jvp)                                                                                  \
  CPU_DISPATCH(name##_backward_jvp)                                                                         \
  CUDA_PROTOS(name)                                                                                         \
  REF_PROTOS(name);                                                                                         \
  static const mica_kernel name##_kernels[] = {                                                             \
    REF_KERNELS(name),                                                                                      \
    { MICA_CPU, MICA_F32, MICA_FORWARD, micak_##name##_forward_cpu, unary_split_forward },                  \
    { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_##name##_backward_cpu, unary_split_backward },               \
    { MICA_CPU, MICA_F32, MICA_JVP, micak_##name##_jvp_cpu, unary_split_jvp },                              \
    { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_##name##_backward_jvp_cpu, unary_split_backward_jvp },   \
    CUDA_KERNELS(name, MICA_F32)                                                                            \
    CUDA_KERNELS(name, MICA_BF16)                                                                           \
  };

#define DESCRIPTOR(name, text, list_params, count_params, list_cases, complete)                                    \
  extern const mica_op mica_op_##name;                                                                             \
  const mica_op        mica_op_##name = {                                                                          \
    sizeof(mica_op), #name, text, sizeof(mica_unary_args), unary_dims, list_params, name##_operands, name##_kernels, \
    list_cases, &name##_example, 3, count_params, 2, MICA_COUNT(name##_kernels), MICA_COUNT(list_cases), 3.0,      \
    complete, unary_cost };

/* budget 3: results are as exact as libm's, but derivatives are products of several of them */
#define UNARY_OP(name, domain, text, ...)     \
  OPERANDS(name, MICA_IN, domain)             \
  EXAMPLE(name, "", __VA_ARGS__)              \
  KERNELS(name)                               \
  DESCRIPTOR(name, text, NULL, 0, unary_cases, NULL)

UNARY_OP(relu, MICA_AWAY0, "max(x, 0)", -1, 0, 0, 0, 2, 2, 1, 0)
UNARY_OP(silu, MICA_ANY, "x sigmoid(x)", 0, 0, 0.5, 0.5, 0, 0, 0.5, 0.5)
UNARY_OP(tanh, MICA_ANY, "hyperbolic tangent", 0, 0, 1, 0, 0.5493061443340549, 0.5, 0.75, -0.75)
UNARY_OP(sigmoid, MICA_ANY, "1 / (1 + e^-x)", 0, 0.5, 0.25, 0, 1.0986122886681098, 0.75, 0.1875, -0.09375)
UNARY_OP(elu1, MICA_AWAY0, "1 + elu(x): x + 1 above 0, e^x below", 2, 3, 1, 0, -0.6931471805599453, 0.5, 0.5, 0.5)
UNARY_OP(softplus, MICA_ANY, "log(1 + e^x)", 0, 0.6931471805599453, 0.5, 0.25, 1.0986122886681098, 1.3862943611198906,
         0.75, 0.1875)
UNARY_OP(exp, MICA_ANY, "e^x", 0, 1, 1, 1, 0.6931471805599453, 2, 2, 2)
UNARY_OP(log, MICA_POSITIVE, "natural logarithm", 1, 0, 1, -1, 2, 0.6931471805599453, 0.5, -0.25)
UNARY_OP(sqrt, MICA_POSITIVE, "square root", 1, 1, 0.5, -0.25, 4, 2, 0.25, -0.03125)
UNARY_OP(abs, MICA_AWAY0, "absolute value", -2, 2, -1, 0, 3, 3, 1, 0)
UNARY_OP(neg, MICA_ANY, "-x", 1, -1, -1, 0, -2, 2, -1, 0)
UNARY_OP(reciprocal, MICA_AWAY0, "1 / x", 2, 0.5, -0.25, 0.25, -1, -1, -1, -2)
UNARY_OP(square, MICA_ANY, "x^2", 3, 9, 6, 2, -1, 1, -2, 2)
UNARY_OP(sin, MICA_ANY, "sine of x radians", 0, 0, 1, 0, 1.5707963267948966, 1, 0, -1)
UNARY_OP(cos, MICA_ANY, "cosine of x radians", 0, 1, 0, -1, 1.5707963267948966, 0, -1, 0)

OPERANDS(stop, MICA_IN | MICA_STOPPED, MICA_ANY)
EXAMPLE(stop, "", 1, 1, 0, 0, -2, -2, 0, 0)
KERNELS(stop)
DESCRIPTOR(stop, "x; derivatives are zero (stop-gradient)", NULL, 0, unary_cases, NULL)

/* gelu''(0) = 2 phi(0) = sqrt(2 / pi); Phi(sqrt 2) = (1 + erf 1) / 2 = 0.92135..., where gelu'' = 0 */
OPERANDS(gelu, MICA_IN, MICA_ANY)
EXAMPLE(gelu, "", 0, 0, 0.5, 0.79788456080286535588, 1.4142135623730951, 1.3029862263925718, 1.128904145185155, 0)
KERNELS(gelu)
DESCRIPTOR(gelu, "Gaussian error linear unit x Phi(x)", gelu_params, 1, gelu_cases, NULL)

OPERANDS(clip, MICA_IN, MICA_ANY)
EXAMPLE(clip, " lo=-1 hi=2", -3, -1, 0, 0, 1.5, 1.5, 1, 0)
KERNELS(clip)
DESCRIPTOR(clip, "x held within [lo, hi]", clip_params, 2, clip_cases, clip_infer)

OPERANDS(scale, MICA_IN, MICA_ANY)
EXAMPLE(scale, " alpha=2 beta=-1", 3, 5, 2, 0, -1, -3, 2, 0)
KERNELS(scale)
DESCRIPTOR(scale, "alpha x + beta", scale_params, 2, scale_cases, NULL)
