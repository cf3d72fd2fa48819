/* table of mse */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "loss/loss_internal.h"

extern const mica_op mica_op_mse;

#define AT(field) offsetof(mica_mse_args, field)
static const mica_dim mse_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) } };
static const mica_param mse_params[] = {
  { "reduction", MICA_PARAM_CHOICE, AT(reduction), MICA_MSE_SUM, 0, 1, "sum|mean", "over the columns of a row" },
};

#define SPLIT(face, FACE)                                                                         \
  static void split_##face(const void *args, mica_split *split) {                                 \
    const mica_mse_args *a = args;                                                                \
    micak_split_rows(a->pred.offsets, a->B, a->R, mse_sums(a, FACE), 4 * a->C + 16, split);       \
    split->scratch_bytes = (size_t)(6 * a->C) * sizeof(float);                                    \
  }
SPLIT(forward, MICA_FORWARD)
SPLIT(backward, MICA_BACKWARD)
SPLIT(jvp, MICA_JVP)
SPLIT(backward_jvp, MICA_BACKWARD_JVP)

static mica_status mse_infer(void *args) {
  const mica_mse_args *a = args;
  if (a->C == 0) return mica_error(MICA_ERR_SHAPE, "mse: rows have no columns (C = 0), expected at least 1");
  return MICA_OK;
}
static void mse_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_mse_args *a = args;
  static const double flop_each[MICA_NFACE] = { 3, 5, 6, 11 }, moved[MICA_NFACE] = { 2, 4, 4, 6 };
  double n = (double)micak_all_rows(a->pred.offsets, a->B, a->R) * (double)a->C;
  *flop = flop_each[face] * n;
  *bytes = moved[face] * n * sizeof(float);
}

#define READ_ALL MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
static const mica_operand mse_operands[] = {
  { "pred", "B R C", AT(pred), MICA_IN, READ_ALL, MICA_WRITES_IN, MICA_ANY, NULL, "predictions" },
  { "target", "B R C", AT(target), MICA_IN, READ_ALL, MICA_WRITES_IN, MICA_ANY, NULL, "what they should be" },
  { "weight", "B R", AT(weight), MICA_IN | MICA_OPTIONAL, READ_ALL, MICA_WRITES_IN, MICA_ANY, NULL,
    "factor of each row; absent: ones" },
  { "loss", "B R", AT(loss), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "weighted squared error of each row" },
};

CPU_DISPATCH(mse_forward)
CPU_DISPATCH(mse_backward)
CPU_DISPATCH(mse_jvp)
CPU_DISPATCH(mse_backward_jvp)
REF_PROTOS(mse);
CUDA_PROTOS(mse)
static const mica_kernel mse_kernels[] = {
  REF_KERNELS(mse),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_mse_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_mse_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_mse_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_mse_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS(mse, MICA_F32)
  CUDA_KERNELS(mse, MICA_BF16)
};
static const mica_case mse_cases[] = {
  { "B=3 R=7 C=33", MICA_CASE_PACKED },
  { "B=2 R=5 C=1 weight=none", MICA_CASE_PACKED },
  { "B=2 R=5 C=9 reduction=mean", 0 },
  { "B=64 R=82 C=256", MICA_CASE_BENCH },
};
/* e = (1, -2), square 5, weight 3. along pred.t = (1, 1): e e_t = -1; loss.d 1 */
static const double pred[2] = { 2, 1 }, target[2] = { 1, 3 }, weight[1] = { 3 }, one[1] = { 1 }, ones[2] = { 1, 1 };
static const double zero[2] = { 0, 0 }, loss[1] = { 15 }, pred_d[2] = { 6, -12 }, target_d[2] = { -6, 12 };
static const double weight_d[1] = { 5 }, loss_t[1] = { -6 }, pred_td[2] = { 6, 6 }, target_td[2] = { -6, -6 };
static const double weight_td[1] = { -2 };
static const mica_example_wire mse_wires[] = {
  { "pred.v", pred, 2, 0 },     { "pred.t", ones, 2, 0 },     { "target.v", target, 2, 0 }, { "target.t", zero, 2, 0 },
  { "weight.v", weight, 1, 0 }, { "weight.t", zero, 1, 0 },   { "loss.d", one, 1, 0 },      { "loss.td", zero, 1, 0 },
  { "loss.v", loss, 1, 1 },     { "pred.d", pred_d, 2, 1 },   { "target.d", target_d, 2, 1 },
  { "weight.d", weight_d, 1, 1 },
  { "loss.t", loss_t, 1, 1 },   { "pred.td", pred_td, 2, 1 }, { "target.td", target_td, 2, 1 },
  { "weight.td", weight_td, 1, 1 },
};
static const mica_example mse_example = { "B=1 R=1 C=2", mse_wires, MICA_COUNT(mse_wires) };

const mica_op mica_op_mse = {
  .size = sizeof(mica_op), .name = "mse", .doc = "weighted squared error of each row",
  .args_size = sizeof(mica_mse_args),
  .dims = mse_dims, .n_dims = MICA_COUNT(mse_dims), .params = mse_params, .n_params = MICA_COUNT(mse_params),
  .operands = mse_operands, .n_operands = MICA_COUNT(mse_operands), .kernels = mse_kernels,
  .n_kernels = MICA_COUNT(mse_kernels), .cases = mse_cases, .n_cases = MICA_COUNT(mse_cases), .example = &mse_example,
  .budget = 2, .infer = mse_infer, .cost = mse_cost,
};
