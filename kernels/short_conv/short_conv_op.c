/* table of short_conv */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "short_conv/short_conv_internal.h"

extern const mica_op mica_op_short_conv;

#define AT(field) offsetof(mica_short_conv_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "C", AT(C) }, { "W", AT(W) }, { "P", AT(P) },
};
#define READS_IN MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
#define READS_OUT MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD)
static const mica_operand operands[] = {
  { "x", "B T C", AT(x), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "tokens" },
  { "w", "B W C", AT(w), MICA_IN | MICA_PARAM, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "weights: row j of the token j before" },
  { "state_in", "B P C", AT(state_in), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "the W - 1 tokens before the first, the latest last; absent: 0" },
  { "y", "B T C", AT(y), MICA_OUT, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL, "weighted sums" },
  { "state_out", "B P C", AT(state_out), MICA_OUT | MICA_OPTIONAL, MICA_READS(0, MICA_D, 0, MICA_TD), MICA_WRITES_OUT,
    MICA_ANY, NULL, "the last W - 1 tokens" },
};

static mica_status infer(void *args) {
  mica_short_conv_args *a = args;
  if (a->W < 0 && a->P >= 0) a->W = a->P + 1;
  if (a->W < 0) return MICA_OK;
  if (a->W < 1 || a->W > SHORT_CONV_TAPS)
    return mica_error(MICA_ERR_SHAPE, "short_conv: W = %lld weights a channel, expected 1 to %d", (long long)a->W,
                      SHORT_CONV_TAPS);
  if (a->P < 0) a->P = a->W - 1;
  if (a->P != a->W - 1)
    return mica_error(MICA_ERR_SHAPE, "short_conv: a state of P = %lld tokens, expected W - 1 = %lld", (long long)a->P,
                      (long long)(a->W - 1));
  return MICA_OK;
}

static void split_units(const mica_short_conv_args *a, int64_t groups, mica_split *s) {
  int64_t each = groups ? (a->B + groups - 1) / groups * (a->T + 1) * a->W * SHORT_CONV_BLOCK : 1;
  *s = (mica_split){ .units = groups * short_conv_blocks(a), .grain = each > 65536 ? 1 : 65536 / each };
}
static void split_walk(const mica_short_conv_args *a, int bit, mica_split *s) {
  split_units(a, a->B == 0 ? 0 : short_conv_sums(a, bit) ? 1 : a->B, s);
}
#define SPLIT(name, ...)                                       \
  static void split_##name(const void *args, mica_split *s) {  \
    const mica_short_conv_args *a = args;                      \
    __VA_ARGS__;                                               \
  }
SPLIT(forward, split_walk(a, MICA_V, s))
SPLIT(backward, split_walk(a, MICA_D, s))
SPLIT(jvp, split_walk(a, MICA_T, s))
SPLIT(backward_jvp, split_walk(a, MICA_TD, s))
SPLIT(backward_taps, split_units(a, micak_groups(&a->w.d, a->B), s))
SPLIT(backward_jvp_taps, split_units(a, micak_groups(&a->w.td, a->B), s))

CUDA_SPLIT(cuda_split_backward, mica_short_conv_args, micak_sum_scratch(&a->w.d, a->B, a->W * a->C, SUM_CHUNK))
CUDA_SPLIT(cuda_split_backward_jvp, mica_short_conv_args, micak_sum_scratch(&a->w.td, a->B, a->W * a->C, SUM_CHUNK))

static void cost(const void *args, int face, double *flop, double *bytes) {
  static const double times[MICA_NFACE] = { 1, 2, 2, 4 };
  const mica_short_conv_args *a = args;
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->T) * (double)a->C;
  *flop = times[face] * 2 * n * (double)a->W;
  *bytes = times[face] * 2 * n * (double)sizeof(float);
}

CPU_DISPATCH(short_conv_forward)
CPU_DISPATCH(short_conv_backward)
CPU_DISPATCH(short_conv_backward_taps)
CPU_DISPATCH(short_conv_jvp)
CPU_DISPATCH(short_conv_backward_jvp)
CPU_DISPATCH(short_conv_backward_jvp_taps)
REF_PROTOS(short_conv);
CUDA_PROTOS(short_conv)
static const mica_kernel kernels[] = {
  REF_KERNELS(short_conv),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_short_conv_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_short_conv_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_short_conv_backward_taps_cpu, split_backward_taps },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_short_conv_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_short_conv_backward_jvp_cpu, split_backward_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_short_conv_backward_jvp_taps_cpu, split_backward_jvp_taps },
  CUDA_KERNELS_WITH(short_conv, MICA_F32, NULL, cuda_split_backward, NULL, cuda_split_backward_jvp)
  CUDA_KERNELS_WITH(short_conv, MICA_BF16, NULL, cuda_split_backward, NULL, cuda_split_backward_jvp)
};

static const mica_case cases[] = {
  { "B=3 T=9 C=33 W=4", MICA_CASE_PACKED },
  { "B=2 T=6 C=16 W=4 state_in=none state_out=none", 0 },
  { "B=2 T=2 C=5 W=4", 0 },
  { "B=2 T=7 C=70 W=3 state_out=none", 0 },
  { "B=1 T=1 C=1 W=2", 0 },
  { "B=2 T=5 C=7 W=1 state_in=none state_out=none", 0 },
  { "B=1 T=20 C=3 W=16", 0 },
  { "B=1 T=150 C=33 W=4", 0 },               /* more runs of 16 rows than lanes over them */
  { "B=1 T=100 C=130 W=4", MICA_CASE_SLOW },
  { "B=64 T=64 C=768 W=4 state_in=none state_out=none", MICA_CASE_BENCH },
};

/* y = 2 1 + 3 5, 2 10 + 3 1; back from y.d = 1, 2 and state_out.d = 7: x.d = 2 + 3 2, 2 2 + 7;
 * w.d = 1 + 10 2, 5 + 1 2 */
static const double x_v[2] = { 1, 10 }, w_v[2] = { 2, 3 }, first_v[1] = { 5 }, y_v[2] = { 17, 23 }, last_v[1] = { 10 };
static const double y_d[2] = { 1, 2 }, last_d[1] = { 7 }, x_d[2] = { 8, 11 }, w_d[2] = { 21, 7 }, first_d[1] = { 3 };
/* w.t = 1, 1: y.t = 1 + 5, 10 + 1; x.td = 1 + 2, 2 and state_in.td = 1 */
static const double w_t[2] = { 1, 1 }, none[2] = { 0, 0 }, y_t[2] = { 6, 11 }, x_td[2] = { 3, 2 }, one[1] = { 1 };
static const mica_example_wire wires[] = {
  { "x.v", x_v, 2, 0 },         { "x.t", none, 2, 0 },         { "w.v", w_v, 2, 0 },       { "w.t", w_t, 2, 0 },
  { "state_in.v", first_v, 1, 0 }, { "state_in.t", none, 1, 0 }, { "y.d", y_d, 2, 0 },     { "y.td", none, 2, 0 },
  { "state_out.d", last_d, 1, 0 }, { "state_out.td", none, 1, 0 }, { "y.v", y_v, 2, 1 },   { "y.t", y_t, 2, 1 },
  { "state_out.v", last_v, 1, 1 }, { "x.d", x_d, 2, 1 },       { "w.d", w_d, 2, 1 },       { "state_in.d", first_d, 1, 1 },
  { "x.td", x_td, 2, 1 },       { "state_in.td", one, 1, 1 },
};
static const mica_example example = { "B=1 T=2 C=1 W=2", wires, MICA_COUNT(wires) };

const mica_op mica_op_short_conv = {
  .size = sizeof(mica_op), .name = "short_conv", .doc = "weighted sums of each channel's last few tokens",
  .args_size = sizeof(mica_short_conv_args), .dims = dims, .n_dims = MICA_COUNT(dims), .operands = operands,
  .n_operands = MICA_COUNT(operands), .kernels = kernels, .n_kernels = MICA_COUNT(kernels), .cases = cases,
  .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2, .infer = infer, .cost = cost,
};
