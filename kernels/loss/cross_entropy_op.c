/* table of cross_entropy */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "loss/loss_internal.h"

extern const mica_op mica_op_cross_entropy;

#define AT(field) offsetof(mica_cross_entropy_args, field)
static const mica_dim cross_entropy_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) } };

#define SPLIT(face, FACE)                                                                                \
  static void split_##face(const void *args, mica_split *split) {                                        \
    const mica_cross_entropy_args *a = args;                                                             \
    micak_split_rows(a->logits.offsets, a->B, a->R, cross_entropy_sums(a, FACE), 8 * a->C + 16, split);  \
    split->scratch_bytes = (size_t)(6 * a->C) * sizeof(float);                                           \
  }
SPLIT(forward, MICA_FORWARD)
SPLIT(backward, MICA_BACKWARD)
SPLIT(jvp, MICA_JVP)
SPLIT(backward_jvp, MICA_BACKWARD_JVP)

static mica_status cross_entropy_infer(void *args) {
  const mica_cross_entropy_args *a = args;
  if (a->C == 0) return mica_error(MICA_ERR_SHAPE, "cross_entropy: rows have no classes (C = 0), expected at least 1");
  return MICA_OK;
}
static void cross_entropy_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_cross_entropy_args *a = args;
  static const double flop_each[MICA_NFACE] = { 6, 8, 8, 16 }, moved[MICA_NFACE] = { 1, 2, 2, 3 };
  double n = (double)micak_all_rows(a->logits.offsets, a->B, a->R) * (double)a->C;
  *flop = flop_each[face] * n;
  *bytes = moved[face] * n * sizeof(float);
}

#define READ_ALL MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
static const mica_operand cross_entropy_operands[] = {
  { "logits", "B R C", AT(logits), MICA_IN, READ_ALL, MICA_WRITES_IN, MICA_ANY, NULL, "scores of the classes" },
  { "label", "B R", AT(label), MICA_IN | MICA_INDEX | MICA_OPTIONAL, MICA_READS(MICA_V, MICA_V, MICA_V, MICA_V),
    MICA_WRITES_NONE, MICA_RANGE, "C", "the right class; negative: row ignored. exactly one of label and target" },
  { "target", "B R C", AT(target), MICA_IN | MICA_OPTIONAL, READ_ALL, MICA_WRITES_IN, MICA_SIMPLEX, NULL,
    "weight of each class" },
  { "weight", "B R", AT(weight), MICA_IN | MICA_OPTIONAL, READ_ALL, MICA_WRITES_IN, MICA_ANY, NULL,
    "factor of each row; absent: ones" },
  { "loss", "B R", AT(loss), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "weighted cross-entropy of each row, in nats" },
  { "lse", "B R", AT(lse), MICA_SAVED, MICA_READS(0, MICA_V, MICA_V, MICA_V | MICA_T), MICA_WRITES_SAVED, MICA_ANY,
    NULL, "log of the sum of exp of a row's logits; 0 in an ignored row" },
};

CPU_DISPATCH(cross_entropy_forward)
CPU_DISPATCH(cross_entropy_backward)
CPU_DISPATCH(cross_entropy_jvp)
CPU_DISPATCH(cross_entropy_backward_jvp)
REF_PROTOS(cross_entropy);
CUDA_PROTOS(cross_entropy)
static const mica_kernel cross_entropy_kernels[] = {
  REF_KERNELS(cross_entropy),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_cross_entropy_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_cross_entropy_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_cross_entropy_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_cross_entropy_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS(cross_entropy, MICA_F32)
  CUDA_KERNELS(cross_entropy, MICA_BF16)
};
static const mica_case cross_entropy_cases[] = {
  { "B=3 R=7 C=33 target=none", MICA_CASE_PACKED },
  { "B=3 R=7 C=33 label=none", MICA_CASE_PACKED },
  { "B=2 R=5 C=2 target=none weight=none", 0 },
  { "B=2 R=5 C=10 label=none weight=none", 0 },
  { "B=1 R=2 C=1 target=none", 0 },
  { "B=64 R=82 C=256 target=none weight=none", MICA_CASE_BENCH },
};
/* p = (1/2, 1/2), lse log 2, weight 2. along logits.t = (1, 0): lse_t = 1/2, p_t = (1/4, -1/4); loss.d 1 */
#define LOG2 0.69314718055994530942
static const double zero[2] = { 0, 0 }, weight[1] = { 2 }, one[1] = { 1 }, label[1] = { 0 }, logits_t[2] = { 1, 0 };
static const double lse[1] = { LOG2 }, loss[1] = { 2 * LOG2 }, logits_d[2] = { -1, 1 }, loss_t[1] = { -1 };
static const double lse_t[1] = { 0.5 }, logits_td[2] = { 0.5, -0.5 }, weight_td[1] = { -0.5 };
static const mica_example_wire cross_entropy_wires[] = {
  { "logits.v", zero, 2, 0 },       { "logits.t", logits_t, 2, 0 }, { "label.v", label, 1, 0 },
  { "weight.v", weight, 1, 0 },     { "weight.t", zero, 1, 0 },     { "loss.d", one, 1, 0 },
  { "loss.td", zero, 1, 0 },        { "loss.v", loss, 1, 1 },       { "lse.v", lse, 1, 1 },
  { "logits.d", logits_d, 2, 1 },   { "weight.d", lse, 1, 1 },      { "loss.t", loss_t, 1, 1 },
  { "lse.t", lse_t, 1, 1 },         { "logits.td", logits_td, 2, 1 }, { "weight.td", weight_td, 1, 1 },
};
static const mica_example cross_entropy_example = { "B=1 R=1 C=2 target=none", cross_entropy_wires,
                                                    MICA_COUNT(cross_entropy_wires) };

const mica_op mica_op_cross_entropy = {
  .size = sizeof(mica_op), .name = "cross_entropy", .doc = "weighted cross-entropy of each row from logits, in nats",
  .args_size = sizeof(mica_cross_entropy_args), .dims = cross_entropy_dims, .n_dims = MICA_COUNT(cross_entropy_dims),
  .operands = cross_entropy_operands, .n_operands = MICA_COUNT(cross_entropy_operands),
  .kernels = cross_entropy_kernels, .n_kernels = MICA_COUNT(cross_entropy_kernels), .cases = cross_entropy_cases,
  .n_cases = MICA_COUNT(cross_entropy_cases), .example = &cross_entropy_example, .budget = 2,
  .infer = cross_entropy_infer, .cost = cross_entropy_cost,
};
