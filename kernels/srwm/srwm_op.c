/* table of srwm */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "common/rows.h"
#include "srwm/srwm_internal.h"

extern const mica_op mica_op_srwm;

#define AT(field) offsetof(mica_srwm_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "K", AT(K) }, { "V", AT(V) }, { "R", AT(R) },
};
#define READS_IN MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
#define READS_OUT MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD)
static const mica_operand operands[] = {
  { "x", "B T H K", AT(x), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "inputs, before the softmax" },
  { "state_in", "B H K R", AT(state_in), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "the matrix before the first token: columns of y (V), q (K), k (K) and the four rates" },
  { "out", "B T H V", AT(out), MICA_OUT, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL, "y of each token" },
  { "state_out", "B H K R", AT(state_out), MICA_OUT | MICA_OPTIONAL, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL,
    "the matrix after the last token" },
};

static mica_status infer(void *args) {
  mica_srwm_args *a = args;
  int64_t fixed = 2 * a->K + SRWM_RATES;
  if (a->K < 0) return MICA_OK;
  if (a->V < 0 && a->R >= 0) a->V = a->R - fixed;
  if (a->R < 0 && a->V >= 0) a->R = a->V + fixed;
  if (a->V < 0) return MICA_OK;
  if (a->H == 0 || a->K < 1 || a->V < 1 || a->K > SRWM_MOST || a->V > SRWM_MOST)
    return mica_error(MICA_ERR_SHAPE, "srwm: H = %lld, K = %lld, V = %lld, expected at least one head, 1 <= K, V <= %d",
                      (long long)a->H, (long long)a->K, (long long)a->V, SRWM_MOST);
  if (a->R != a->V + fixed)
    return mica_error(MICA_ERR_SHAPE, "srwm: R = %lld, expected V + 2 K + %d = %lld", (long long)a->R, SRWM_RATES,
                      (long long)(a->V + fixed));
  return MICA_OK;
}

static double pair_flop(const mica_srwm_args *a, int face) {
  static const double times[MICA_NFACE] = { 1, 3, 3, 9 };
  return times[face] * 6.0 * (double)a->T * (double)a->K * (double)a->R;
}
static void split(const mica_srwm_args *a, int face, mica_split *s) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  const mica_port *down[] = { &a->out, &a->state_out }, *up[] = { &a->x, &a->state_in };
  int sums = micak_ports_sum(back ? up : down, 2, bit[face], a->B);
  double flop = pair_flop(a, face) * (sums ? (double)a->B : 1);
  srwm_layout layout;
  s->units = a->B == 0 ? 0 : (sums ? 1 : a->B) * a->H;
  s->grain = flop > 5e5 ? 1 : (int64_t)(5e5 / (flop + 1)) + 1;
  srwm_layout_of(a, face, 16, &layout);
  s->scratch_bytes = (size_t)layout.total * sizeof(float);
  s->rows = 0;
}
#define SPLIT(name, FACE) \
  static void split_##name(const void *args, mica_split *s) { split(args, FACE, s); }
SPLIT(forward, MICA_FORWARD)
SPLIT(backward, MICA_BACKWARD)
SPLIT(jvp, MICA_JVP)
SPLIT(backward_jvp, MICA_BACKWARD_JVP)
static void cost(const void *args, int face, double *flop, double *bytes) {
  static const double moved[MICA_NFACE] = { 1, 2, 2, 4 };
  const mica_srwm_args *a = args;
  double pairs = (double)(a->B * a->H);
  *flop = pairs * pair_flop(a, face);
  *bytes = moved[face] * pairs * (double)(a->T * (a->K + a->V) + a->K * a->R) * (double)sizeof(float);
}

CPU_DISPATCH(srwm_forward)
CPU_DISPATCH(srwm_backward)
CPU_DISPATCH(srwm_jvp)
CPU_DISPATCH(srwm_backward_jvp)
REF_PROTOS(srwm);
CUDA_PROTOS(srwm)
CUDA_SPLIT_PROTOS(srwm)
static const mica_kernel kernels[] = {
  REF_KERNELS(srwm),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_srwm_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_srwm_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_srwm_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_srwm_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS_SPLIT(srwm, MICA_F32)
  CUDA_KERNELS_SPLIT(srwm, MICA_BF16)
};

static const mica_case cases[] = {
  { "B=2 T=6 H=2 K=4 V=4", 0 },
  { "B=2 T=7 H=2 K=5 V=3", MICA_CASE_PACKED },
  { "B=2 T=3 H=1 K=3 V=6 state_out=none", 0 },
  { "B=1 T=1 H=1 K=1 V=1", 0 },
  { "B=1 T=17 H=1 K=9 V=16", 0 },
  { "B=1 T=33 H=1 K=4 V=2", 0 },
  { "B=1 T=16 H=1 K=17 V=5", 0 },
  { "B=1 T=2 H=1 K=70 V=8", 0 },             /* on CUDA a block a head, and with tangents its matrix in scratch */
  { "B=1 T=63 H=1 K=3 V=4", MICA_CASE_SLOW },
  { "B=1 T=64 H=1 K=3 V=4", MICA_CASE_SLOW },
  { "B=1 T=65 H=1 K=3 V=4", MICA_CASE_SLOW },
  { "B=1 T=100 H=1 K=8 V=8", MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=2 V=2", MICA_CASE_SLOW },
  { "B=1 T=2000 H=1 K=2 V=2", MICA_CASE_SLOW },
  { "B=1 T=20 H=1 K=80 V=70", MICA_CASE_SLOW },
  { "B=128 T=6 H=16 K=16 V=16", MICA_CASE_BENCH },
  { "B=16 T=64 H=16 K=16 V=16", MICA_CASE_BENCH | MICA_CASE_SLOW },
};

/* K = V = 1: the softmax of one number is 1, so the matrix stays: out = 2, 2. back from out.d = 1, 3 and state_out.d = 1 in
 * the first column: the columns that are read for u cancel, and only y's has a cotangent, 1 + 1 + 3. state_in.t = 1
 * everywhere: out.t = 1, 1, state_out.t = 1 */
static const double x_v[2] = { 3, -1 }, x_t[2] = { 1, 1 }, zeros[7] = { 0 };
static const double w_v[7] = { 2, 1, -1, 0, 1, 2, 3 }, w_t[7] = { 1, 1, 1, 1, 1, 1, 1 };
static const double out_v[2] = { 2, 2 }, out_t[2] = { 1, 1 }, out_d[2] = { 1, 3 };
static const double last_d[7] = { 1, 0, 0, 0, 0, 0, 0 }, w_d[7] = { 5, 0, 0, 0, 0, 0, 0 };
static const mica_example_wire wires[] = {
  { "x.v", x_v, 2, 0 },       { "x.t", x_t, 2, 0 },       { "state_in.v", w_v, 7, 0 },    { "state_in.t", w_t, 7, 0 },
  { "out.d", out_d, 2, 0 },   { "out.td", zeros, 2, 0 },  { "state_out.d", last_d, 7, 0 },
  { "state_out.td", zeros, 7, 0 }, { "out.v", out_v, 2, 1 }, { "out.t", out_t, 2, 1 },    { "state_out.v", w_v, 7, 1 },
  { "state_out.t", w_t, 7, 1 }, { "x.d", zeros, 2, 1 },   { "state_in.d", w_d, 7, 1 },    { "x.td", zeros, 2, 1 },
  { "state_in.td", zeros, 7, 1 },
};
static const mica_example example = { "B=1 T=2 H=1 K=1 V=1", wires, MICA_COUNT(wires) };

const mica_op mica_op_srwm = {
  .size = sizeof(mica_op), .name = "srwm",
  .doc = "self-referential weight matrix: one matrix gives output, query, key and rates, and rewrites itself",
  .args_size = sizeof(mica_srwm_args), .dims = dims, .n_dims = MICA_COUNT(dims), .operands = operands,
  .n_operands = MICA_COUNT(operands), .kernels = kernels, .n_kernels = MICA_COUNT(kernels), .cases = cases,
  .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2, .infer = infer, .cost = cost,
};
