/* table of position_add */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "embedding/embedding_internal.h"

extern const mica_op mica_op_position_add;

#define AT(field) offsetof(mica_position_add_args, field)
static const mica_dim position_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "P", AT(P) }, { "C", AT(C) } };

static void split_rows(const mica_position_add_args *a, const mica_port *out, int bit, mica_split *split) {
  micak_split_rows(a->x.offsets, a->B, a->R, micak_ports_sum(&out, 1, bit, a->B), 3 * a->C, split);
  split->scratch_bytes = (size_t)(3 * a->C) * sizeof(float);
  if (!micak_wire((mica_port *)(uintptr_t)out, bit)->data) split->units = 0;
}
#define SPLIT(face, port, bit)                                    \
  static void split_##face(const void *args, mica_split *split) { \
    const mica_position_add_args *a = args;                       \
    split_rows(a, &a->port, bit, split);                          \
  }
SPLIT(forward, y, MICA_V)
SPLIT(jvp, y, MICA_T)
SPLIT(backward, x, MICA_D)
SPLIT(backward_jvp, x, MICA_TD)

static void split_table(const mica_position_add_args *a, const mica_wire *table, mica_split *split) {
  int64_t groups = micak_groups(table, a->B), each = groups ? (a->B + groups - 1) / groups * a->C + 1 : 1;
  *split = (mica_split){ .units = groups * a->P, .grain = each > 8192 ? 1 : 8192 / each,
                         .scratch_bytes = (size_t)(2 * a->C) * sizeof(float) };
}
static void split_backward_table(const void *args, mica_split *split) {
  const mica_position_add_args *a = args;
  split_table(a, &a->w.d, split);
}
static void split_backward_jvp_table(const void *args, mica_split *split) {
  const mica_position_add_args *a = args;
  split_table(a, &a->w.td, split);
}

static mica_status position_infer(void *args) {
  const mica_position_add_args *a = args;
  if (a->P >= 0 && a->R > a->P)
    return mica_error(MICA_ERR_SHAPE, "position_add: %lld rows but positions for %lld; make the table longer",
                      (long long)a->R, (long long)a->P);
  return MICA_OK;
}
static void position_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_position_add_args *a = args;
  (void)face;
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->R) * (double)a->C;
  *flop = n;
  *bytes = 2 * n * sizeof(float);
}

static const mica_operand position_operands[] = {
  { "x", "B R C", AT(x), MICA_IN, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY, NULL, "rows" },
  { "w", "B P C", AT(w), MICA_IN | MICA_PARAM, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY, NULL,
    "what each position adds" },
  { "y", "B R C", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL, "sums" },
};

CPU_DISPATCH(position_add_forward)
CPU_DISPATCH(position_add_backward)
CPU_DISPATCH(position_add_backward_table)
CPU_DISPATCH(position_add_jvp)
CPU_DISPATCH(position_add_backward_jvp)
CPU_DISPATCH(position_add_backward_jvp_table)
REF_PROTOS(position_add);
CUDA_PROTOS(position_add)
static const mica_kernel position_kernels[] = {
  REF_KERNELS(position_add),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_position_add_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_position_add_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_position_add_backward_table_cpu, split_backward_table },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_position_add_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_position_add_backward_jvp_cpu, split_backward_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_position_add_backward_jvp_table_cpu, split_backward_jvp_table },
  CUDA_KERNELS(position_add, MICA_F32)
  CUDA_KERNELS(position_add, MICA_BF16)
};
static const mica_case position_cases[] = {
  { "B=3 R=7 P=50 C=33", MICA_CASE_PACKED },
  { "B=2 R=1 P=1 C=1", 0 },
  { "B=64 R=82 P=82 C=256", MICA_CASE_BENCH },
};
static const double x_v[2] = { 1, 2 }, w_v[3] = { 10, 20, 30 }, y_v[2] = { 11, 22 }, w_d[3] = { 1, 2, 0 };
static const mica_example_wire position_wires[] = {
  { "x.v", x_v, 2, 0 }, { "x.t", x_v, 2, 0 }, { "w.v", w_v, 3, 0 }, { "w.t", w_v, 3, 0 }, { "y.d", x_v, 2, 0 },
  { "y.td", x_v, 2, 0 }, { "y.v", y_v, 2, 1 }, { "y.t", y_v, 2, 1 }, { "x.d", x_v, 2, 1 }, { "w.d", w_d, 3, 1 },
  { "x.td", x_v, 2, 1 }, { "w.td", w_d, 3, 1 },
};
static const mica_example position_example = { "B=1 R=2 P=3 C=1", position_wires, MICA_COUNT(position_wires) };

const mica_op mica_op_position_add = {
  .size = sizeof(mica_op), .name = "position_add", .doc = "adds a learned row to each position of a task",
  .args_size = sizeof(mica_position_add_args), .dims = position_dims, .n_dims = MICA_COUNT(position_dims),
  .operands = position_operands, .n_operands = MICA_COUNT(position_operands), .kernels = position_kernels,
  .n_kernels = MICA_COUNT(position_kernels), .cases = position_cases, .n_cases = MICA_COUNT(position_cases),
  .example = &position_example, .budget = 2, .infer = position_infer, .cost = position_cost,
};
