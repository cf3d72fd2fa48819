/* tables of layernorm and rmsnorm */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "norm/norm_internal.h"

extern const mica_op mica_op_layernorm, mica_op_rmsnorm;

#define AT(field) offsetof(mica_norm_args, field)

static const mica_dim norm_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) } };
static const mica_param norm_params[] = {
  { "eps", MICA_PARAM_REAL, AT(eps), 1e-5, 0, 1, NULL, "added to the variance (mean square)" },
};

/* a row phase is split over rows unless its one input cotangent is not wanted */
static void split_rows(const mica_norm_args *a, int face, int wanted, mica_split *split) {
  micak_split_rows(a->x.offsets, a->B, a->R, norm_sums(a, face), 4 * a->C, split);
  split->scratch_bytes = (size_t)(7 * a->C) * sizeof(float);
  if (!wanted) split->units = 0;
}
static void split_forward(const void *args, mica_split *split) { split_rows(args, MICA_FORWARD, 1, split); }
static void split_jvp(const void *args, mica_split *split) { split_rows(args, MICA_JVP, 1, split); }
static void split_backward(const void *args, mica_split *split) {
  const mica_norm_args *a = args;
  split_rows(a, MICA_BACKWARD, a->x.d.data != NULL, split);
}
static void split_backward_jvp(const void *args, mica_split *split) {
  const mica_norm_args *a = args;
  split_rows(a, MICA_BACKWARD_JVP, a->x.td.data != NULL, split);
}
static void split_params(const void *args, mica_split *split) {
  norm_cut cut = norm_cut_of(args, MICA_BACKWARD);
  *split = (mica_split){ .units = cut.w_units + cut.b_units, .grain = 1 };
}
static void split_params_jvp(const void *args, mica_split *split) {
  norm_cut cut = norm_cut_of(args, MICA_BACKWARD_JVP);
  *split = (mica_split){ .units = cut.w_units + cut.b_units, .grain = 1 };
}

/* CUDA sums w's and b's in one pass */
CUDA_SPLIT(cuda_split, mica_norm_args,
           micak_sum_scratch(&a->w.d, a->B, 2 * a->C, SUM_CHUNK) |
               micak_sum_scratch(&a->b.d, a->B, 2 * a->C, SUM_CHUNK))
CUDA_SPLIT(cuda_split_jvp, mica_norm_args,
           micak_sum_scratch(&a->w.td, a->B, 2 * a->C, SUM_CHUNK) |
               micak_sum_scratch(&a->b.td, a->B, 2 * a->C, SUM_CHUNK))

static mica_status norm_infer(void *args) {
  const mica_norm_args *a = args;
  if (a->C == 0) return mica_error(MICA_ERR_SHAPE, "norm: rows have no columns (C = 0), expected at least 1");
  return MICA_OK;
}

static void norm_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_norm_args *a = args;
  static const double flop_each[MICA_NFACE] = { 8, 14, 14, 34 }, moved[MICA_NFACE] = { 2, 4, 3, 7 };
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->R) * (double)a->C;
  *flop = flop_each[face] * n;
  *bytes = moved[face] * n * sizeof(float);
}

#define X_OPERAND                                                                                               \
  { "x", "B R C", AT(x), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN, \
    MICA_ANY, NULL, "rows to normalise" }
#define W_OPERAND                                                                                         \
  { "w", "B C", AT(w), MICA_IN | MICA_OPTIONAL | MICA_PARAM,                                              \
    MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN, MICA_ANY, NULL,         \
    "factor of each column; absent: ones" }
#define Y_OPERAND                                                                                    \
  { "y", "B R C", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL, \
    "normalised rows" }
#define SAVED_OPERAND(name, doc)                                                                                \
  { #name, "B R", AT(name), MICA_SAVED, MICA_READS(0, MICA_V, MICA_V, MICA_V | MICA_T), MICA_WRITES_SAVED, MICA_ANY, \
    NULL, doc }

static const mica_operand layernorm_operands[] = {
  X_OPERAND,
  W_OPERAND,
  { "b", "B C", AT(b), MICA_IN | MICA_OPTIONAL | MICA_PARAM, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY,
    NULL, "added to each column; absent: zeros" },
  Y_OPERAND,
  SAVED_OPERAND(mean, "mean of each row"),
  SAVED_OPERAND(rstd, "1 / sqrt(variance + eps) of each row"),
};
static const mica_operand rmsnorm_operands[] = {
  X_OPERAND,
  W_OPERAND,
  Y_OPERAND,
  SAVED_OPERAND(rstd, "1 / sqrt(mean square + eps) of each row"),
};

#define DISPATCH(op)                   \
  CPU_DISPATCH(op##_forward)           \
  CPU_DISPATCH(op##_backward)          \
  CPU_DISPATCH(op##_backward_params)   \
  CPU_DISPATCH(op##_jvp)               \
  CPU_DISPATCH(op##_backward_jvp)      \
  CPU_DISPATCH(op##_backward_jvp_params)
DISPATCH(layernorm)
DISPATCH(rmsnorm)
REF_PROTOS(layernorm);
REF_PROTOS(rmsnorm);

CUDA_PROTOS(layernorm)
CUDA_PROTOS(rmsnorm)

#define NORM_KERNELS(op)                                                                            \
  REF_KERNELS(op),                                                                                  \
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_##op##_forward_cpu, split_forward },                    \
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_##op##_backward_cpu, split_backward },                 \
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_##op##_backward_params_cpu, split_params },            \
  { MICA_CPU, MICA_F32, MICA_JVP, micak_##op##_jvp_cpu, split_jvp },                                \
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_##op##_backward_jvp_cpu, split_backward_jvp },     \
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_##op##_backward_jvp_params_cpu, split_params_jvp }, \
  CUDA_KERNELS_WITH(op, MICA_F32, NULL, cuda_split, NULL, cuda_split_jvp)                           \
  CUDA_KERNELS_WITH(op, MICA_BF16, NULL, cuda_split, NULL, cuda_split_jvp)
static const mica_kernel layernorm_kernels[] = { NORM_KERNELS(layernorm) };
static const mica_kernel rmsnorm_kernels[] = { NORM_KERNELS(rmsnorm) };

static const mica_case layernorm_cases[] = {
  { "B=3 R=7 C=33", MICA_CASE_PACKED },
  { "B=2 R=5 C=64 eps=0.1 b=none", 0 },
  { "B=2 R=1 C=1 eps=0.5 w=none", 0 },
  { "B=1 R=130 C=7 w=none b=none", 0 },
  { "B=21 R=3 C=6", 0 },
  { "B=64 R=82 C=256", MICA_CASE_BENCH },
  { "B=256 R=32 C=128", MICA_CASE_BENCH },
};
static const mica_case rmsnorm_cases[] = {
  { "B=3 R=7 C=33", MICA_CASE_PACKED },
  { "B=2 R=5 C=64 eps=0.1 w=none", 0 },
  { "B=2 R=1 C=1 eps=0.5", 0 },
  { "B=1 R=130 C=7", 0 },
  { "B=21 R=3 C=6", 0 },
  { "B=64 R=82 C=256", MICA_CASE_BENCH },
};

/* layernorm: mean 2, variance 1; x^ = (1, 1, -1, -1). mean(dy w) = 1 = mean(dy w x^), so dx = dy w - 1 - x^.
 * tangent (4, 0, 0, 0) has mean 1 and mean(x^ t) = 1 */
static const double zeros[4] = { 0, 0, 0, 0 }, unit4[4] = { 4, 0, 0, 0 };
static const double ln_x[4] = { 3, 3, 1, 1 }, ln_w[4] = { 1, 2, 1, 1 }, ln_b[4] = { 0, 0, 1, 0 };
static const double ln_y[4] = { 1, 2, 0, -1 }, ln_dx[4] = { 2, -2, 0, 0 }, ln_yt[4] = { 2, -4, 0, 0 };
static const double ln_dxt[4] = { -6, 2, 2, 2 }, ln_dwt[4] = { 8, 0, 0, 0 };
static const double ln_mean[1] = { 2 }, ln_rstd[1] = { 1 }, ln_mean_t[1] = { 1 }, ln_rstd_t[1] = { -1 };
static const mica_example_wire layernorm_wires[] = {
  { "x.v", ln_x, 4, 0 },          { "x.t", unit4, 4, 0 },         { "w.v", ln_w, 4, 0 },
  { "w.t", zeros, 4, 0 },         { "b.v", ln_b, 4, 0 },          { "b.t", zeros, 4, 0 },
  { "y.d", unit4, 4, 0 },         { "y.td", zeros, 4, 0 },        { "y.v", ln_y, 4, 1 },
  { "mean.v", ln_mean, 1, 1 },    { "rstd.v", ln_rstd, 1, 1 },    { "x.d", ln_dx, 4, 1 },
  { "w.d", unit4, 4, 1 },         { "b.d", unit4, 4, 1 },         { "y.t", ln_yt, 4, 1 },
  { "mean.t", ln_mean_t, 1, 1 },  { "rstd.t", ln_rstd_t, 1, 1 },  { "x.td", ln_dxt, 4, 1 },
  { "w.td", ln_dwt, 4, 1 },       { "b.td", zeros, 4, 1 },
};
static const mica_example layernorm_example = { "B=1 R=1 C=4 eps=0", layernorm_wires, MICA_COUNT(layernorm_wires) };

/* rmsnorm: mean square 4, x^ = (1, 1, 1, 1), dx = (dy w - x^ mean(dy w x^)) / 2 */
static const double rms_x[4] = { 2, 2, 2, 2 }, rms_w[4] = { 1, 2, 3, 4 }, rms_rstd[1] = { 0.5 };
static const double rms_dx[4] = { 1.5, -0.5, -0.5, -0.5 }, rms_yt[4] = { 1.5, -1, -1.5, -2 }, rms_rstd_t[1] = { -0.25 };
static const double rms_dxt[4] = { -2.25, -0.25, -0.25, -0.25 }, rms_dwt[4] = { 6, 0, 0, 0 };
static const mica_example_wire rmsnorm_wires[] = {
  { "x.v", rms_x, 4, 0 },      { "x.t", unit4, 4, 0 },           { "w.v", rms_w, 4, 0 },     { "w.t", zeros, 4, 0 },
  { "y.d", unit4, 4, 0 },      { "y.td", zeros, 4, 0 },          { "y.v", rms_w, 4, 1 },
  { "rstd.v", rms_rstd, 1, 1 },
  { "x.d", rms_dx, 4, 1 },     { "w.d", unit4, 4, 1 },           { "y.t", rms_yt, 4, 1 },
  { "rstd.t", rms_rstd_t, 1, 1 }, { "x.td", rms_dxt, 4, 1 },     { "w.td", rms_dwt, 4, 1 },
};
static const mica_example rmsnorm_example = { "B=1 R=1 C=4 eps=0", rmsnorm_wires, MICA_COUNT(rmsnorm_wires) };

#define NORM_OP(op, text)                                                                                   \
  const mica_op mica_op_##op = {                                                                            \
    .size = sizeof(mica_op), .name = #op, .doc = text, .args_size = sizeof(mica_norm_args),                 \
    .dims = norm_dims, .n_dims = MICA_COUNT(norm_dims), .params = norm_params,                              \
    .n_params = MICA_COUNT(norm_params), .operands = op##_operands, .n_operands = MICA_COUNT(op##_operands), \
    .kernels = op##_kernels, .n_kernels = MICA_COUNT(op##_kernels), .cases = op##_cases,                    \
    .n_cases = MICA_COUNT(op##_cases), .example = &op##_example, .budget = 2, .infer = norm_infer,          \
    .cost = norm_cost                                                                                       \
  }
NORM_OP(layernorm, "y = (x - mean) / sqrt(var + eps) w + b over the columns of each row");
NORM_OP(rmsnorm, "y = x / sqrt(mean(x^2) + eps) w over the columns of each row");
