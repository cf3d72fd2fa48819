/* table of rotary */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "common/rows.h"
#include "rotary/rotary.h"

extern const mica_op mica_op_rotary;

#define AT(field) offsetof(mica_rotary_args, field)
static const mica_dim rotary_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "H", AT(H) }, { "D", AT(D) } };
static const mica_param rotary_params[] = {
  { "pairing", MICA_PARAM_CHOICE, AT(pairing), MICA_ROTARY_HALF, 0, 1, "half|interleaved",
    "elements that turn together: k with k + D/2, or 2k with 2k + 1" },
  { "base", MICA_PARAM_REAL, AT(base), 10000, 1, 1e12, NULL, "pair k turns base^(-2k/D) radians a position" },
};

static void split_rows(const mica_rotary_args *a, const mica_port *out, int bit, mica_split *split) {
  micak_split_rows(a->x.offsets, a->B, a->R, micak_ports_sum(&out, 1, bit, a->B), 3 * a->H * a->D + 8 * a->D, split);
  split->scratch_bytes = (size_t)(4 * a->D) * sizeof(float);
}
#define SPLIT(face, port, bit)                                    \
  static void split_##face(const void *args, mica_split *split) { \
    const mica_rotary_args *a = args;                             \
    split_rows(a, &a->port, bit, split);                          \
  }
SPLIT(forward, y, MICA_V)
SPLIT(jvp, y, MICA_T)
SPLIT(backward, x, MICA_D)
SPLIT(backward_jvp, x, MICA_TD)

static mica_status rotary_infer(void *args) {
  const mica_rotary_args *a = args;
  if (a->D >= 0 && (a->D % 2 || a->D == 0))
    return mica_error(MICA_ERR_SHAPE, "rotary: heads of %lld elements, expected an even number: they turn in pairs",
                      (long long)a->D);
  return MICA_OK;
}
static void rotary_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_rotary_args *a = args;
  (void)face;
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->R) * (double)(a->H * a->D);
  *flop = 3 * n;
  *bytes = 2 * n * sizeof(float);
}

static const mica_operand rotary_operands[] = {
  { "x", "B R H D", AT(x), MICA_IN, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY, NULL, "heads to turn" },
  { "position", "B R", AT(position), MICA_IN | MICA_INDEX | MICA_OPTIONAL, MICA_READS(MICA_V, MICA_V, MICA_V, MICA_V),
    MICA_WRITES_NONE, MICA_RANGE, "R", "position of each row; absent: its number within the task" },
  { "y", "B R H D", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "turned heads" },
};

CPU_DISPATCH(rotary_forward)
CPU_DISPATCH(rotary_backward)
CPU_DISPATCH(rotary_jvp)
CPU_DISPATCH(rotary_backward_jvp)
REF_PROTOS(rotary);
CUDA_PROTOS(rotary)
static const mica_kernel rotary_kernels[] = {
  REF_KERNELS(rotary),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_rotary_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_rotary_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_rotary_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_rotary_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS(rotary, MICA_F32)
  CUDA_KERNELS(rotary, MICA_BF16)
};
static const mica_case rotary_cases[] = {
  { "B=3 R=7 H=2 D=6 position=none", MICA_CASE_PACKED },
  { "B=2 R=7 H=3 D=34", MICA_CASE_PACKED },
  { "B=2 R=5 H=1 D=10 pairing=interleaved base=100", 0 },
  { "B=2 R=1 H=1 D=2 position=none", 0 },
  { "B=64 R=82 H=8 D=32 position=none", MICA_CASE_BENCH },
};
/* at position 0 nothing turns. at position 1, cos 1 and sin 1 */
#define COS1 0.54030230586813971740
#define SIN1 0.84147098480789650665
static const double x_v[4] = { 3, 4, 1, 0 }, y_v[4] = { 3, 4, COS1, SIN1 }, x_d[4] = { 3, 4, COS1, -SIN1 };
static const mica_example_wire rotary_wires[] = {
  { "x.v", x_v, 4, 0 }, { "x.t", x_v, 4, 0 }, { "y.d", x_v, 4, 0 }, { "y.td", x_v, 4, 0 },
  { "y.v", y_v, 4, 1 }, { "y.t", y_v, 4, 1 }, { "x.d", x_d, 4, 1 }, { "x.td", x_d, 4, 1 },
};
static const mica_example rotary_example = { "B=1 R=2 H=1 D=2 position=none", rotary_wires, MICA_COUNT(rotary_wires) };

const mica_op mica_op_rotary = {
  .size = sizeof(mica_op), .name = "rotary",
  .doc = "rotary position embedding: pairs of elements turn with the position",
  .args_size = sizeof(mica_rotary_args), .dims = rotary_dims, .n_dims = MICA_COUNT(rotary_dims),
  .params = rotary_params, .n_params = MICA_COUNT(rotary_params), .operands = rotary_operands,
  .n_operands = MICA_COUNT(rotary_operands), .kernels = rotary_kernels, .n_kernels = MICA_COUNT(rotary_kernels),
  .cases = rotary_cases, .n_cases = MICA_COUNT(rotary_cases), .example = &rotary_example, .budget = 2,
  .infer = rotary_infer, .cost = rotary_cost,
};
