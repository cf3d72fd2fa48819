/* tables of linear */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/prepare.h"
#include "common/ref.h"
#include "linear/linear_internal.h"

extern const mica_op mica_op_linear;

#define AT(field) offsetof(mica_linear_args, field)

static const mica_dim linear_dims[] = {
  { "B", AT(B) }, { "R", AT(R) }, { "I", AT(I) }, { "O", AT(O) }, { "Z", AT(Z) },
};
static const mica_param linear_params[] = {
  { "act", MICA_PARAM_CHOICE, AT(act), MICA_ACT_NONE, 0, MICA_NACT - 1, MICA_LINEAR_ACTS, "activation of x w^T + b" },
};

static const mica_operand linear_operands[] = {
  { "x", "B R I", AT(x), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN,
    MICA_ANY, NULL, "rows" },
  { "w", "B O I", AT(w), MICA_IN | MICA_PARAM, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T),
    MICA_WRITES_IN, MICA_ANY, NULL, "weights, one row for each output" },
  { "b", "B O", AT(b), MICA_IN | MICA_PARAM | MICA_OPTIONAL, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY,
    NULL, "bias; absent: zeros" },
  { "res", "B R O", AT(res), MICA_IN | MICA_OPTIONAL, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY, NULL,
    "residual, added after the activation; absent: zeros" },
  { "y", "B R O", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "act(x w^T + b) + res" },
  { "z", "B R Z", AT(z), MICA_SAVED, MICA_READS(0, MICA_V, MICA_V, MICA_V | MICA_T | MICA_D),
    { MICA_V, MICA_D, MICA_T, MICA_TD }, MICA_ANY, NULL, "x w^T + b; empty without an activation" },
};

static mica_status linear_infer(void *args) {
  mica_linear_args *a = args;
  int64_t Z = a->act == MICA_ACT_NONE ? 0 : a->O;
  if (a->act < 0 || a->act >= MICA_NACT)
    return mica_error(MICA_ERR_INVALID, "linear: act is %lld, expected one of " MICA_LINEAR_ACTS, (long long)a->act);
  if (a->Z >= 0 && a->Z != Z)
    return mica_error(MICA_ERR_SHAPE, "linear: Z is %lld, expected %lld (O with an activation, else 0)",
                      (long long)a->Z, (long long)Z);
  a->Z = Z;
  return MICA_OK;
}

static void linear_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_linear_args *a = args;
  static const double products[MICA_NFACE] = { 1, 2, 2, 4 }, in[MICA_NFACE] = { 1, 2, 2, 3 };
  static const double out[MICA_NFACE] = { 2, 3, 3, 5 };
  double rows = (double)linear_all_rows(a), I = (double)a->I, O = (double)a->O;
  *flop = 2 * products[face] * rows * I * O;
  *bytes = sizeof(float) * (rows * (in[face] * I + out[face] * O) + products[face] * I * O);
}

/* ---- cuts ---- */

static void split_rows(const mica_linear_args *a, int face, mica_split *split) {
  int sums = linear_sums(a, face);
  split->units = sums ? 1 : linear_all_rows(a);
  split->rows = !sums;
  double each = 2.0 * (double)a->I * (double)a->O + 1, grain = 1e6 / each;
  split->grain = sums ? 1 : grain < 64 ? 64 : grain > 2048 ? 2048 : (int64_t)grain;
  split->scratch_bytes = (size_t)linear_row_floats(a) * sizeof(float);
}
static void split_forward(const void *args, mica_split *split) { split_rows(args, MICA_FORWARD, split); }
static void split_backward(const void *args, mica_split *split) { split_rows(args, MICA_BACKWARD, split); }
static void split_jvp(const void *args, mica_split *split) { split_rows(args, MICA_JVP, split); }
static void split_backward_jvp(const void *args, mica_split *split) { split_rows(args, MICA_BACKWARD_JVP, split); }

static void split_params(const mica_linear_args *a, int face, mica_split *split) {
  linear_cut cut = linear_cut_of(a, face);
  split->units = cut.w_units + cut.b_units;
  split->rows = 0;
  double work = 2.0 * (double)linear_all_rows(a) * (double)a->I * (double)a->O;
  double grain = split->units ? 5e5 / (work / (double)split->units + 1) : 1;
  split->grain = grain < 1 ? 1 : (int64_t)grain;
  split->scratch_bytes = LINEAR_PARAM_FLOATS * sizeof(float);
}
static void split_backward_params(const void *args, mica_split *split) { split_params(args, MICA_BACKWARD, split); }
static void split_backward_jvp_params(const void *args, mica_split *split) {
  split_params(args, MICA_BACKWARD_JVP, split);
}

CPU_DISPATCH(linear_forward)
CPU_DISPATCH(linear_backward)
CPU_DISPATCH(linear_backward_params)
CPU_DISPATCH(linear_jvp)
CPU_DISPATCH(linear_backward_jvp)
CPU_DISPATCH(linear_backward_jvp_params)
CPU_DISPATCH(linear_forward_prepare)
CPU_DISPATCH(linear_backward_prepare)
CPU_DISPATCH(linear_jvp_prepare)
CPU_DISPATCH(linear_backward_jvp_prepare)

/* the right factors as panels */
static void need_panels(const mica_linear_args *a, int face, micak_need *need) {
  const mica_wire *w[2];
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP, n = linear_factors(a, face, w);
  if (back && !linear_wire(&a->x, face == MICA_BACKWARD ? MICA_D : MICA_TD)->data) return;
  int64_t terms = back ? a->O : a->I, columns = back ? a->I : a->O;
  for (int i = 0; i < n; i++) {
    if (!linear_packs(a, w[i])) continue;
    need->units += (columns + LINEAR_SHARE - 1) / LINEAR_SHARE;
    need->bytes += (size_t)linear_packed_floats(terms, columns) * sizeof(float);
  }
}
static void need_forward(const void *args, micak_need *need) { need_panels(args, MICA_FORWARD, need); }
static void need_backward(const void *args, micak_need *need) { need_panels(args, MICA_BACKWARD, need); }
static void need_jvp(const void *args, micak_need *need) { need_panels(args, MICA_JVP, need); }
static void need_backward_jvp(const void *args, micak_need *need) { need_panels(args, MICA_BACKWARD_JVP, need); }

extern const micak_prepare micak_linear_prepare[];
const micak_prepare micak_linear_prepare[] = {
  { micak_linear_forward_cpu, micak_linear_forward_prepare_cpu, need_forward },
  { micak_linear_backward_cpu, micak_linear_backward_prepare_cpu, need_backward },
  { micak_linear_jvp_cpu, micak_linear_jvp_prepare_cpu, need_jvp },
  { micak_linear_backward_jvp_cpu, micak_linear_backward_jvp_prepare_cpu, need_backward_jvp },
  { NULL, NULL, NULL },
};

REF_PROTOS(linear);
CUDA_PROTOS(linear)
#ifdef MICA_HAVE_CUDA
void micak_linear_backward_cuda_split(const void *args, mica_split *split);
void micak_linear_backward_jvp_cuda_split(const void *args, mica_split *split);
#endif

static const mica_kernel linear_kernels[] = {
  REF_KERNELS(linear),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_linear_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_linear_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_linear_backward_params_cpu, split_backward_params },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_linear_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_linear_backward_jvp_cpu, split_backward_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_linear_backward_jvp_params_cpu, split_backward_jvp_params },
  CUDA_KERNELS_WITH(linear, MICA_F32, NULL, micak_linear_backward_cuda_split, NULL, micak_linear_backward_jvp_cuda_split)
  CUDA_KERNELS_WITH(linear, MICA_BF16, NULL, micak_linear_backward_cuda_split, NULL, micak_linear_backward_jvp_cuda_split)
};

/* ---- cases ---- */

static const mica_case linear_cases[] = {
  { "B=3 R=7 I=33 O=17", MICA_CASE_PACKED },
  { "B=2 R=5 I=9 O=20 act=gelu", MICA_CASE_PACKED },
  { "B=3 R=1 I=1 O=1 act=silu res=none", 0 },
  { "B=2 R=13 I=16 O=8 act=gelu_tanh b=none", 0 },
  { "B=4 R=3 I=5 O=6 act=tanh b=none res=none", MICA_CASE_PACKED },
  { "B=2 R=4 I=7 O=12 act=relu", 0 },
  { "B=2 R=4 I=3 O=33 act=sigmoid", 0 },
  { "B=1 R=2 I=300 O=2", 0 },
  { "B=2 R=150 I=3 O=5 act=silu", 0 },
  { "B=1 R=3 I=4 O=101", 0 },
  { "B=2 R=147 I=260 O=17", 0 },            /* w packed for all calls, rows packed, two blocks of terms */
  { "B=2 R=41 I=272 O=100", 0 },            /* rows as panels: blocks of terms and of columns, a last panel of ten rows */
  { "B=2 R=65 I=32 O=193 res=none", 0 },    /* on CUDA tensor cores and large tiles of a small device */
  { "B=64 R=82 I=256 O=768", MICA_CASE_BENCH },
  { "B=64 R=82 I=256 O=1024 act=gelu res=none", MICA_CASE_BENCH },
  { "B=64 R=82 I=1024 O=256", MICA_CASE_BENCH },
  { "B=256 R=32 I=128 O=384", MICA_CASE_BENCH },
  { "B=1000 R=10 I=40 O=40 act=relu res=none", MICA_CASE_BENCH },
};

/* silu at z = 0: value 0, first and second derivative 1/2 */
static const double ex_x[] = { 1, 2 }, ex_xt[] = { 1, 1 }, ex_w[] = { 2, -1 }, ex_wt[] = { 0, 1 };
static const double ex_zero[] = { 0 }, ex_bt[] = { 1 }, ex_res[] = { 3 }, ex_rest[] = { 5 }, ex_dy[] = { 4 };
static const double ex_two[] = { 2 }, ex_four[] = { 4 }, ex_seven[] = { 7 }, ex_nine[] = { 9 };
static const double ex_xd[] = { 4, -2 }, ex_wd[] = { 2, 4 }, ex_xtd[] = { 18, -7 }, ex_wtd[] = { 11, 20 };
static const mica_example_wire linear_wires[] = {
  { "x.v", ex_x, 2, 0 },      { "x.t", ex_xt, 2, 0 },     { "w.v", ex_w, 2, 0 },      { "w.t", ex_wt, 2, 0 },
  { "b.v", ex_zero, 1, 0 },   { "b.t", ex_bt, 1, 0 },     { "res.v", ex_res, 1, 0 },  { "res.t", ex_rest, 1, 0 },
  { "y.d", ex_dy, 1, 0 },     { "y.td", ex_two, 1, 0 },   { "z.v", ex_zero, 1, 1 },   { "y.v", ex_res, 1, 1 },
  { "z.t", ex_four, 1, 1 },   { "y.t", ex_seven, 1, 1 },  { "z.d", ex_two, 1, 1 },    { "x.d", ex_xd, 2, 1 },
  { "w.d", ex_wd, 2, 1 },     { "b.d", ex_two, 1, 1 },    { "res.d", ex_dy, 1, 1 },   { "z.td", ex_nine, 1, 1 },
  { "x.td", ex_xtd, 2, 1 },   { "w.td", ex_wtd, 2, 1 },   { "b.td", ex_nine, 1, 1 },  { "res.td", ex_two, 1, 1 },
};
static const mica_example linear_example = { "B=1 R=1 I=2 O=1 act=silu", linear_wires, MICA_COUNT(linear_wires) };

const mica_op mica_op_linear = {
  .size = sizeof(mica_op), .name = "linear", .doc = "y = act(x w^T + b) + res", .args_size = sizeof(mica_linear_args),
  .dims = linear_dims, .n_dims = MICA_COUNT(linear_dims), .params = linear_params,
  .n_params = MICA_COUNT(linear_params), .operands = linear_operands, .n_operands = MICA_COUNT(linear_operands),
  .kernels = linear_kernels, .n_kernels = MICA_COUNT(linear_kernels), .cases = linear_cases,
  .n_cases = MICA_COUNT(linear_cases), .example = &linear_example, .budget = 2, .infer = linear_infer,
  .cost = linear_cost,
};
