/* tables of batch_norm */
#include "batch_norm/batch_norm_internal.h"
#include "common/isa.h"
#include "common/ref.h"

extern const mica_op mica_op_batch_norm;

#define AT(field) offsetof(mica_batch_norm_args, field)

static const mica_dim dims[] = { { "B", AT(B) }, { "T", AT(T) }, { "P", AT(P) }, { "C", AT(C) } };
static const mica_param settings[] = {
  { "eps", MICA_PARAM_REAL, AT(eps), 1e-5, 0, 1, NULL, "added to the variance" },
};

#define SAVED(name, doc)                                                                                          \
  { #name, "B C", AT(name), MICA_SAVED, MICA_READS(0, MICA_V, MICA_V, MICA_V | MICA_T), MICA_WRITES_SAVED, MICA_ANY, \
    NULL, doc }
static const mica_operand operands[] = {
  { "x", "B T P C", AT(x), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN,
    MICA_ANY, NULL, "images" },
  { "w", "B C", AT(w), MICA_IN | MICA_PARAM | MICA_OPTIONAL,
    MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN, MICA_ANY, NULL,
    "factor of each channel; absent: ones" },
  { "b", "B C", AT(b), MICA_IN | MICA_PARAM | MICA_OPTIONAL, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY,
    NULL, "added to each channel; absent: zeros" },
  { "y", "B T P C", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "normalised images" },
  SAVED(mean, "mean of each channel"),
  SAVED(rstd, "1 / sqrt(variance + eps) of each channel"),
};

static void cost(const void *args, int face, double *flop, double *bytes) {
  const mica_batch_norm_args *a = args;
  static const double flop_each[MICA_NFACE] = { 7, 12, 14, 34 }, moved[MICA_NFACE] = { 4, 8, 6, 16 };
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->T) * (double)(a->P * a->C);
  *flop = flop_each[face] * n;
  *bytes = moved[face] * n * sizeof(float);
}

#include "batch_norm/batch_norm_op.inc"

CPU_DISPATCH(batch_norm_forward)
CPU_DISPATCH(batch_norm_backward)
CPU_DISPATCH(batch_norm_backward_params)
CPU_DISPATCH(batch_norm_jvp)
CPU_DISPATCH(batch_norm_backward_jvp)
CPU_DISPATCH(batch_norm_backward_jvp_params)
REF_PROTOS(batch_norm);
CUDA_PROTOS(batch_norm)

static const mica_kernel kernels[] = { BN_KERNELS(batch_norm) };

static const mica_case cases[] = {
  { "B=3 T=4 P=3 C=5 eps=1e-2", MICA_CASE_PACKED }, { "B=2 T=2 P=5 C=33 b=none", 0 },
  { "B=2 T=3 P=1 C=17 w=none", MICA_CASE_PACKED }, { "B=1 T=1 P=4 C=1 w=none b=none", 0 },
  { "B=2 T=2 P=3 C=68", 0 }, { "B=1 T=3 P=257 C=2", 0 }, /* on CUDA two blocks of channels; two pieces of rows */
  { "B=4 T=25 P=784 C=64", MICA_CASE_BENCH }, { "B=4 T=25 P=49 C=64", MICA_CASE_BENCH },
};

/* x (1, 3), eps 0: mean 2, rstd 1, h (-1, 1). tangent (2, 0): mean 1, q = ((-1) 1 + 1 (-1)) / 2 = -1, rstd 1, h. 0;
 * w. 3, b. 1: y. = (-3 + 1, 3 + 1). dy (1, 0): D 1/2, E -1/2: x- = 2 (1/2 - 1/2, -1/2 + 1/2) = 0. dy. (0, 2):
 * D. 1, E. = (0 2 + 2 1 + 0) / 2 = 1: x-. = 2 (0 - 1 + 1, 2 - 1 - 1) = 0 */
static const double ex_x[] = { 1, 3 }, ex_xt[] = { 2, 0 }, ex_w[] = { 2 }, ex_wt[] = { 3 }, ex_b[] = { 1 };
static const double ex_bt[] = { 1 }, ex_d[] = { 1, 0 }, ex_td[] = { 0, 2 }, ex_y[] = { -1, 3 }, ex_yt[] = { -2, 4 };
static const double ex_mean[] = { 2 }, ex_one[] = { 1 }, ex_zero[] = { 0, 0 }, ex_wd[] = { -1 }, ex_two[] = { 2 };
static const mica_example_wire wires[] = {
  { "x.v", ex_x, 2, 0 },     { "x.t", ex_xt, 2, 0 },    { "w.v", ex_w, 1, 0 },     { "w.t", ex_wt, 1, 0 },
  { "b.v", ex_b, 1, 0 },     { "b.t", ex_bt, 1, 0 },    { "y.d", ex_d, 2, 0 },     { "y.td", ex_td, 2, 0 },
  { "y.v", ex_y, 2, 1 },     { "y.t", ex_yt, 2, 1 },    { "mean.v", ex_mean, 1, 1 }, { "mean.t", ex_one, 1, 1 },
  { "rstd.v", ex_one, 1, 1 }, { "rstd.t", ex_one, 1, 1 }, { "x.d", ex_zero, 2, 1 }, { "w.d", ex_wd, 1, 1 },
  { "b.d", ex_one, 1, 1 },   { "x.td", ex_zero, 2, 1 }, { "w.td", ex_two, 1, 1 },  { "b.td", ex_two, 1, 1 },
};
static const mica_example example = { "B=1 T=2 P=1 C=1 eps=0", wires, MICA_COUNT(wires) };

const mica_op mica_op_batch_norm = {
  .size = sizeof(mica_op), .name = "batch_norm", .doc = "channels normalised over the rows of their task",
  .args_size = sizeof(mica_batch_norm_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = settings,
  .n_params = MICA_COUNT(settings), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .cost = cost,
};
