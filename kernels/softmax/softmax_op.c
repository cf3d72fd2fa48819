/* tables of softmax and log_softmax */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "common/rows.h"
#include "softmax/softmax.h"

extern const mica_op mica_op_softmax, mica_op_log_softmax;

#define AT(field) offsetof(mica_softmax_args, field)
static const mica_dim softmax_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) } };

static void split_rows(const mica_softmax_args *a, const mica_port *out, int bit, mica_split *split) {
  micak_split_rows(a->x.offsets, a->B, a->R, micak_ports_sum(&out, 1, bit, a->B), 8 * a->C, split);
  split->scratch_bytes = (size_t)(5 * a->C) * sizeof(float);
}
#define SPLIT(face, port, bit)                                        \
  static void split_##face(const void *args, mica_split *split) {     \
    const mica_softmax_args *a = args;                                \
    split_rows(a, &a->port, bit, split);                              \
  }
SPLIT(forward, y, MICA_V)
SPLIT(backward, x, MICA_D)
SPLIT(jvp, y, MICA_T)
SPLIT(backward_jvp, x, MICA_TD)

static mica_status softmax_infer(void *args) {
  const mica_softmax_args *a = args;
  if (a->C == 0) return mica_error(MICA_ERR_SHAPE, "softmax: rows have no columns (C = 0), expected at least 1");
  return MICA_OK;
}
static void softmax_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_softmax_args *a = args;
  static const double flop_each[MICA_NFACE] = { 6, 4, 4, 11 }, moved[MICA_NFACE] = { 2, 3, 3, 5 };
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->R) * (double)a->C;
  *flop = flop_each[face] * n;
  *bytes = moved[face] * n * sizeof(float);
}

#define Y_READS(jvp) MICA_READS(0, MICA_V | MICA_D, jvp, MICA_V | MICA_T | MICA_D | MICA_TD)
static const mica_operand softmax_operands[] = {
  { "x", "B R C", AT(x), MICA_IN, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY, NULL, "scores" },
  { "y", "B R C", AT(y), MICA_OUT, Y_READS(MICA_V), MICA_WRITES_OUT, MICA_ANY, NULL,
    "probabilities, or their logarithms" },
};

#define DISPATCH(op)            \
  CPU_DISPATCH(op##_forward)    \
  CPU_DISPATCH(op##_backward)   \
  CPU_DISPATCH(op##_jvp)        \
  CPU_DISPATCH(op##_backward_jvp)
DISPATCH(softmax)
DISPATCH(log_softmax)
REF_PROTOS(softmax);
REF_PROTOS(log_softmax);
CUDA_PROTOS(softmax)
CUDA_PROTOS(log_softmax)
#define KERNELS(op)                                                                   \
  REF_KERNELS(op),                                                                    \
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_##op##_forward_cpu, split_forward },      \
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_##op##_backward_cpu, split_backward },   \
  { MICA_CPU, MICA_F32, MICA_JVP, micak_##op##_jvp_cpu, split_jvp },                  \
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_##op##_backward_jvp_cpu, split_backward_jvp }, \
  CUDA_KERNELS(op, MICA_F32) CUDA_KERNELS(op, MICA_BF16)
static const mica_kernel softmax_kernels[] = { KERNELS(softmax) };
static const mica_kernel log_softmax_kernels[] = { KERNELS(log_softmax) };

static const mica_case softmax_cases[] = {
  { "B=3 R=7 C=33", MICA_CASE_PACKED },
  { "B=2 R=5 C=8", 0 },
  { "B=1 R=2 C=1", 0 },
  { "B=64 R=82 C=256", MICA_CASE_BENCH },
};

/* p = (1/2, 1/2); dy = (4, 0): s = 2, dx = (1, -1). x.t = (2, 0): y.t = (1/2, -1/2), so with dy.t = 0
 * s_t = 2 and dx_t = (1/2 (4 - 2) - 1, -1/2 (0 - 2) - 1) = 0 */
static const double zero[2] = { 0, 0 }, half[2] = { 0.5, 0.5 }, dy[2] = { 4, 0 }, dx[2] = { 1, -1 }, x_t[2] = { 2, 0 };
static const double y_t[2] = { 0.5, -0.5 };
static const mica_example_wire softmax_wires[] = {
  { "x.v", zero, 2, 0 }, { "x.t", x_t, 2, 0 }, { "y.d", dy, 2, 0 },  { "y.td", zero, 2, 0 },
  { "y.v", half, 2, 1 }, { "x.d", dx, 2, 1 },  { "y.t", y_t, 2, 1 }, { "x.td", zero, 2, 1 },
};
static const mica_example softmax_example = { "B=1 R=1 C=2", softmax_wires, MICA_COUNT(softmax_wires) };
/* y = (-log 2, -log 2); dx = dy - 2; y.t = x.t - 1; dx_t = -(1/2) (1, -1) 4 */
static const double log_y[2] = { -0.69314718055994530942, -0.69314718055994530942 }, log_dx[2] = { 2, -2 };
static const double log_y_t[2] = { 1, -1 }, log_dx_t[2] = { -2, 2 };
static const mica_example_wire log_softmax_wires[] = {
  { "x.v", zero, 2, 0 },  { "x.t", x_t, 2, 0 },    { "y.d", dy, 2, 0 },      { "y.td", zero, 2, 0 },
  { "y.v", log_y, 2, 1 }, { "x.d", log_dx, 2, 1 }, { "y.t", log_y_t, 2, 1 }, { "x.td", log_dx_t, 2, 1 },
};
static const mica_example log_softmax_example = { "B=1 R=1 C=2", log_softmax_wires, MICA_COUNT(log_softmax_wires) };

#define SOFTMAX_OP(op, text)                                                                                  \
  const mica_op mica_op_##op = {                                                                              \
    .size = sizeof(mica_op), .name = #op, .doc = text, .args_size = sizeof(mica_softmax_args),                \
    .dims = softmax_dims, .n_dims = MICA_COUNT(softmax_dims), .operands = softmax_operands,                   \
    .n_operands = MICA_COUNT(softmax_operands), .kernels = op##_kernels, .n_kernels = MICA_COUNT(op##_kernels), \
    .cases = softmax_cases, .n_cases = MICA_COUNT(softmax_cases), .example = &op##_example, .budget = 2,      \
    .infer = softmax_infer, .cost = softmax_cost                                                              \
  }
SOFTMAX_OP(softmax, "y = exp(x) / sum exp(x) over the columns of each row");
SOFTMAX_OP(log_softmax, "y = x - log sum exp(x) over the columns of each row");
