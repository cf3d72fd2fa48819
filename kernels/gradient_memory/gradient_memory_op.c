/* table of gradient_memory */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "gradient_memory/gradient_memory_internal.h"

extern const mica_op mica_op_gradient_memory;

#define AT(field) offsetof(mica_gradient_memory_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "K", AT(K) }, { "V", AT(V) },
};
static const mica_param params[] = {
  { "period", MICA_PARAM_INT, AT(period), 1, 1, 1 << 30, NULL, "tokens whose gradients are taken at the same matrix" },
  { "read", MICA_PARAM_CHOICE, AT(read), 0, 0, 1, "running|held",
    "what a token reads: the matrix after it, or the one its period began with" },
};
#define READS_IN MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
#define READS_OUT MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD)
static const mica_operand operands[] = {
  { "q", "B T H K", AT(q), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "queries" },
  { "k", "B T H K", AT(k), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_SIMPLEX, NULL, "keys" },
  { "v", "B T H V", AT(v), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "values" },
  { "beta", "B T H", AT(beta), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_UNIT, NULL,
    "rate of each token; absent: 1" },
  { "decay", "B T H", AT(decay), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_UNIT, NULL,
    "what is left of the matrix, 1 minus the weight decay; absent: 1" },
  { "momentum", "B T H", AT(momentum), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_UNIT, NULL,
    "what is left of the last change; absent: 0" },
  { "state_in", "B H K V", AT(state_in), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "matrix before the first token; absent: 0" },
  { "moment_in", "B H K V", AT(moment_in), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "change before the first token; absent: 0" },
  { "out", "B T H V", AT(out), MICA_OUT, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL, "what each token reads" },
  { "state_out", "B H K V", AT(state_out), MICA_OUT | MICA_OPTIONAL, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL,
    "matrix after the last token" },
  { "moment_out", "B H K V", AT(moment_out), MICA_OUT | MICA_OPTIONAL, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL,
    "change after the last token" },
};

static mica_status infer(void *args) {
  const mica_gradient_memory_args *a = args;
  if (a->H == 0 || a->K == 0 || a->V == 0 || a->K > MEMORY_MOST || a->V > MEMORY_MOST)
    return mica_error(MICA_ERR_SHAPE, "gradient_memory: H = %lld, K = %lld, V = %lld, expected at least one head, "
                      "1 <= K, V <= %d", (long long)a->H, (long long)a->K, (long long)a->V, MEMORY_MOST);
  return MICA_OK;
}

static double pair_flop(const mica_gradient_memory_args *a, int face) {
  static const double times[MICA_NFACE] = { 1, 4, 3, 12 };
  return times[face] * 8.0 * (double)a->T * (double)a->K * (double)a->V;
}
static void split(const mica_gradient_memory_args *a, int face, mica_split *s) {
  int sums = gm_sums(a, face);
  double flop = pair_flop(a, face) * (sums ? (double)a->B : 1);
  gm_layout layout;
  s->units = a->B == 0 ? 0 : (sums ? 1 : a->B) * a->H;
  s->grain = flop > 5e5 ? 1 : (int64_t)(5e5 / (flop + 1)) + 1;
  gm_layout_of(a, face, 16, &layout);
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
  const mica_gradient_memory_args *a = args;
  double pairs = (double)(a->B * a->H);
  *flop = pairs * pair_flop(a, face);
  *bytes = moved[face] * pairs * (double)(a->T * (2 * a->K + 2 * a->V + 3)) * (double)sizeof(float);
}

CPU_DISPATCH(gradient_memory_forward)
CPU_DISPATCH(gradient_memory_backward)
CPU_DISPATCH(gradient_memory_jvp)
CPU_DISPATCH(gradient_memory_backward_jvp)
REF_PROTOS(gradient_memory);
CUDA_PROTOS(gradient_memory)
#ifdef MICA_HAVE_CUDA
void micak_gradient_memory_backward_cuda_split(const void *args, mica_split *split);
void micak_gradient_memory_backward_jvp_cuda_split(const void *args, mica_split *split);
#endif
static const mica_kernel kernels[] = {
  REF_KERNELS(gradient_memory),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_gradient_memory_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_gradient_memory_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_gradient_memory_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_gradient_memory_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS_WITH(gradient_memory, MICA_F32, NULL, micak_gradient_memory_backward_cuda_split, NULL,
                    micak_gradient_memory_backward_jvp_cuda_split)
  CUDA_KERNELS_WITH(gradient_memory, MICA_BF16, NULL, micak_gradient_memory_backward_cuda_split, NULL,
                    micak_gradient_memory_backward_jvp_cuda_split)
};

#define BARE " state_in=none moment_in=none state_out=none moment_out=none"
/* cuts in two are at multiples of the period: a call begins one */
static const mica_case cases[] = {
  { "B=2 T=6 H=2 K=4 V=4" BARE, 0 },
  { "B=2 T=7 H=2 K=5 V=3", MICA_CASE_PACKED },
  { "B=2 T=7 H=2 K=5 V=3 period=4", MICA_CASE_PACKED },
  { "B=2 T=6 H=1 K=3 V=4 period=3 read=held", 0 },
  { "B=2 T=3 H=1 K=3 V=2 beta=none decay=none momentum=none", 0 },
  { "B=1 T=1 H=1 K=1 V=1 period=5", 0 },
  { "B=1 T=17 H=1 K=9 V=16 period=9", 0 },
  { "B=1 T=40 H=1 K=3 V=5 period=20 read=held", 0 },
  { "B=1 T=33 H=1 K=4 V=17", 0 },
  { "B=1 T=6 H=1 K=65 V=17 period=3", 0 },    /* on CUDA two slices of columns, and two chunks of tokens */
  { "B=1 T=63 H=1 K=4 V=4", MICA_CASE_SLOW },
  { "B=1 T=64 H=1 K=4 V=4 period=16", MICA_CASE_SLOW },
  { "B=1 T=65 H=1 K=4 V=4 period=11", MICA_CASE_SLOW },
  { "B=1 T=100 H=1 K=8 V=8", MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=2 V=2", MICA_CASE_SLOW },
  { "B=1 T=2000 H=1 K=2 V=2 period=7", MICA_CASE_SLOW },
  { "B=1 T=20 H=1 K=80 V=96", MICA_CASE_SLOW },
  { "B=128 T=6 H=16 K=16 V=16" BARE, MICA_CASE_BENCH },
  { "B=16 T=64 H=16 K=16 V=16 period=16" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
};

/* k = q = 1, v = 4, 4, beta = momentum = 1/2: e = 4, Y = 2, S = 2; e = 2, Y = 1 + 1, S = 4. back from out.d = 1, 1: at 2:
 * dS = dY = 1, q.d = 4, decay.d = 2, momentum.d = 2, x = 1: beta.d = 2, v.d = 1/2, k.d = u - S/2 = 1 - 1 = 0, dA = -1/2,
 * dY = 1/2; at 1: dS = 1 + 1 - 1/2, q.d = 2, dY = 2: decay.d = momentum.d = 0, x = 2: beta.d = 8, v.d = 1, k.d = 2 * 2.
 * v.t = 2, 0: Y.t = 1, S.t = 1; e.t = -1, Y.t = 1/2 - 1/2, S.t = 1 */
static const double ones[2] = { 1, 1 }, zeros[2] = { 0, 0 }, v_v[2] = { 4, 4 }, v_t[2] = { 2, 0 }, half[2] = { 0.5, 0.5 };
static const double out_v[2] = { 2, 4 }, out_t[2] = { 1, 1 }, q_d[2] = { 2, 4 }, decay_d[2] = { 0, 2 };
static const double beta_d[2] = { 8, 2 }, v_d[2] = { 1, 0.5 }, k_d[2] = { 4, 0 }, state_v[1] = { 4 }, moment_v[1] = { 2 };
static const mica_example_wire wires[] = {
  { "q.v", ones, 2, 0 },     { "k.v", ones, 2, 0 },       { "v.v", v_v, 2, 0 },        { "beta.v", half, 2, 0 },
  { "decay.v", ones, 2, 0 }, { "momentum.v", half, 2, 0 }, { "q.t", zeros, 2, 0 },     { "k.t", zeros, 2, 0 },
  { "v.t", v_t, 2, 0 },      { "beta.t", zeros, 2, 0 },   { "decay.t", zeros, 2, 0 },  { "momentum.t", zeros, 2, 0 },
  { "out.d", ones, 2, 0 },   { "out.td", zeros, 2, 0 },   { "out.v", out_v, 2, 1 },    { "out.t", out_t, 2, 1 },
  { "state_out.v", state_v, 1, 1 }, { "moment_out.v", moment_v, 1, 1 }, { "q.d", q_d, 2, 1 }, { "k.d", k_d, 2, 1 },
  { "v.d", v_d, 2, 1 },      { "beta.d", beta_d, 2, 1 },  { "decay.d", decay_d, 2, 1 }, { "momentum.d", decay_d, 2, 1 },
  { "v.td", zeros, 2, 1 },   { "q.td", out_t, 2, 1 },
};
static const mica_example example = { "B=1 T=2 H=1 K=1 V=1", wires, MICA_COUNT(wires) };

const mica_op mica_op_gradient_memory = {
  .size = sizeof(mica_op), .name = "gradient_memory",
  .doc = "a matrix trained while the sequence is read: descent with momentum, weight decay and a period",
  .args_size = sizeof(mica_gradient_memory_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = params,
  .n_params = MICA_COUNT(params), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .infer = infer, .cost = cost,
};
