/* table of mlp_memory */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "mlp_memory/mlp_memory_internal.h"

extern const mica_op mica_op_mlp_memory;

#define AT(field) offsetof(mica_mlp_memory_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "K", AT(K) }, { "F", AT(F) }, { "V", AT(V) },
};
#define READS_IN MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
#define READS_OUT MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD)
#define OPTIONAL_IN MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN
#define STATE_OUT MICA_OUT | MICA_OPTIONAL, READS_OUT, MICA_WRITES_OUT
static const mica_operand operands[] = {
  { "q", "B T H K", AT(q), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "queries" },
  { "k", "B T H K", AT(k), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_SIMPLEX, NULL, "keys" },
  { "v", "B T H V", AT(v), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "values" },
  { "beta", "B T H", AT(beta), OPTIONAL_IN, MICA_UNIT, NULL, "rate of each token; absent: 1" },
  { "decay", "B T H", AT(decay), OPTIONAL_IN, MICA_UNIT, NULL,
    "what is left of the weights, 1 minus the weight decay; absent: 1" },
  { "momentum", "B T H", AT(momentum), OPTIONAL_IN, MICA_UNIT, NULL, "what is left of the last change; absent: 0" },
  { "first_in", "B H K F", AT(first_in), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "W1 before the first token" },
  { "second_in", "B H F V", AT(second_in), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "W2 before the first token" },
  { "first_moment_in", "B H K F", AT(first_moment_in), OPTIONAL_IN, MICA_ANY, NULL,
    "change of W1 before the first token; absent: 0" },
  { "second_moment_in", "B H F V", AT(second_moment_in), OPTIONAL_IN, MICA_ANY, NULL,
    "change of W2 before the first token; absent: 0" },
  { "out", "B T H V", AT(out), MICA_OUT, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL, "what each token reads" },
  { "first_out", "B H K F", AT(first_out), STATE_OUT, MICA_ANY, NULL, "W1 after the last token" },
  { "second_out", "B H F V", AT(second_out), STATE_OUT, MICA_ANY, NULL, "W2 after the last token" },
  { "first_moment_out", "B H K F", AT(first_moment_out), STATE_OUT, MICA_ANY, NULL,
    "change of W1 after the last token" },
  { "second_moment_out", "B H F V", AT(second_moment_out), STATE_OUT, MICA_ANY, NULL,
    "change of W2 after the last token" },
};

static mica_status infer(void *args) {
  const mica_mlp_memory_args *a = args;
  const int64_t size[] = { a->K, a->F, a->V };
  int wrong = a->H == 0;
  for (int i = 0; i < 3; i++) wrong |= size[i] == 0 || size[i] > MLP_MEMORY_MOST;
  if (wrong)
    return mica_error(MICA_ERR_SHAPE, "mlp_memory: H = %lld, K = %lld, F = %lld, V = %lld, expected at least one head, "
                      "1 <= K, F, V <= %d", (long long)a->H, (long long)a->K, (long long)a->F, (long long)a->V,
                      MLP_MEMORY_MOST);
  return MICA_OK;
}

static double pair_flop(const mica_mlp_memory_args *a, int face) {
  static const double times[MICA_NFACE] = { 1, 4, 3, 12 };
  return times[face] * 8.0 * (double)a->T * (double)a->F * (double)(a->K + a->V);
}
static void split(const mica_mlp_memory_args *a, int face, mica_split *s) {
  int sums = mm_sums(a, face);
  double flop = pair_flop(a, face) * (sums ? (double)a->B : 1);
  mm_layout layout;
  s->units = a->B == 0 ? 0 : (sums ? 1 : a->B) * a->H;
  s->grain = flop > 5e5 ? 1 : (int64_t)(5e5 / (flop + 1)) + 1;
  mm_layout_of(a, face, 16, &layout);
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
  const mica_mlp_memory_args *a = args;
  double pairs = (double)(a->B * a->H);
  *flop = pairs * pair_flop(a, face);
  *bytes = moved[face] * pairs * (double)(a->T * (2 * a->K + 2 * a->V + 3) + a->F * (a->K + a->V)) *
           (double)sizeof(float);
}

CPU_FACES(mlp_memory)
REF_PROTOS(mlp_memory);
CUDA_PROTOS(mlp_memory)
CUDA_SPLIT_PROTOS(mlp_memory)
static const mica_kernel kernels[] = {
  REF_KERNELS(mlp_memory),
  CPU_KERNELS(mlp_memory),
  CUDA_KERNELS_SPLIT(mlp_memory, MICA_F32)
  CUDA_KERNELS_SPLIT(mlp_memory, MICA_BF16)
};

#define NO_STATE " first_moment_in=none second_moment_in=none first_out=none second_out=none first_moment_out=none" \
                 " second_moment_out=none"
static const mica_case cases[] = {
  { "B=2 T=6 H=2 K=4 F=5 V=4" NO_STATE, 0 },
  { "B=2 T=7 H=2 K=5 F=6 V=3", MICA_CASE_PACKED },
  { "B=2 T=3 H=1 K=3 F=4 V=2 beta=none decay=none momentum=none", 0 },
  { "B=1 T=1 H=1 K=1 F=1 V=1", 0 },
  { "B=1 T=17 H=1 K=3 F=17 V=2", 0 },
  { "B=1 T=33 H=1 K=2 F=2 V=17", 0 },
  { "B=1 T=63 H=1 K=2 F=3 V=2", MICA_CASE_SLOW },
  { "B=1 T=64 H=1 K=2 F=3 V=2", MICA_CASE_SLOW },
  { "B=1 T=65 H=1 K=2 F=3 V=2", MICA_CASE_SLOW },
  { "B=1 T=100 H=1 K=4 F=8 V=4", MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=2 F=2 V=2", MICA_CASE_SLOW },
  { "B=1 T=5 H=1 K=40 F=80 V=33", MICA_CASE_SLOW },
  { "B=2 T=2 H=1 K=36 F=132 V=44", MICA_CASE_SLOW }, /* more than shared memory holds */
  { "B=16 T=64 H=16 K=16 F=32 V=16" NO_STATE, MICA_CASE_BENCH | MICA_CASE_SLOW },
};

/* W1 = 0, W2 = 1, k = 1, v = 4, beta = 1/2, q = 0: z = h = 0, silu' = silu'' = 1/2; e = 4, u = 2, g = 2, c = 1: W1 = 1,
 * W2 = 1, out = 0. back from out.d = 1 and first_out.d = 2: q.d = 1/2; k.d = 2 c; g.d = 1, z.d = 2 g/2 = 2,
 * W2.d = g.d u = 2, u.d = 1: beta.d = 4, v.d = 1/2, h.d = -1/2: z.d = 7/4, W1.d = 2 + 7/4.
 * v.t = 2: e.t = 2, u.t = g.t = 1, c.t = 1/2 = W1.t; q.td = 1/2 W1.t, k.td = 2 c.t, beta.td = e.t,
 * z.td = 2 g.t/2 = W1.td, W2.td = g.d u.t */
static const double one[1] = { 1 }, zero[1] = { 0 }, two[1] = { 2 }, four[1] = { 4 }, half[1] = { 0.5 };
static const double quarter[1] = { 0.25 }, first_d[1] = { 3.75 };
static const mica_example_wire wires[] = {
  { "q.v", zero, 1, 0 }, { "k.v", one, 1, 0 }, { "v.v", four, 1, 0 },
  { "beta.v", half, 1, 0 }, { "first_in.v", zero, 1, 0 }, { "second_in.v", one, 1, 0 },
  { "q.t", zero, 1, 0 }, { "k.t", zero, 1, 0 }, { "v.t", two, 1, 0 },
  { "beta.t", zero, 1, 0 }, { "first_in.t", zero, 1, 0 }, { "second_in.t", zero, 1, 0 },
  { "out.d", one, 1, 0 }, { "out.td", zero, 1, 0 }, { "first_out.d", two, 1, 0 },
  { "first_out.td", zero, 1, 0 }, { "out.v", zero, 1, 1 }, { "out.t", zero, 1, 1 },
  { "first_out.v", one, 1, 1 }, { "first_out.t", half, 1, 1 }, { "second_out.v", one, 1, 1 },
  { "q.d", half, 1, 1 }, { "k.d", two, 1, 1 }, { "v.d", half, 1, 1 },
  { "beta.d", four, 1, 1 }, { "first_in.d", first_d, 1, 1 }, { "second_in.d", two, 1, 1 },
  { "q.td", quarter, 1, 1 }, { "k.td", one, 1, 1 }, { "beta.td", two, 1, 1 },
  { "first_in.td", one, 1, 1 }, { "second_in.td", one, 1, 1 },
};
static const mica_example example = { "B=1 T=1 H=1 K=1 F=1 V=1 decay=none momentum=none first_moment_in=none "
                                      "second_moment_in=none first_moment_out=none second_moment_out=none",
                                      wires, MICA_COUNT(wires) };

const mica_op mica_op_mlp_memory = {
  .size = sizeof(mica_op), .name = "mlp_memory",
  .doc = "a network of two layers trained while the sequence is read: descent with momentum and weight decay",
  .args_size = sizeof(mica_mlp_memory_args), .dims = dims, .n_dims = MICA_COUNT(dims), .operands = operands,
  .n_operands = MICA_COUNT(operands), .kernels = kernels, .n_kernels = MICA_COUNT(kernels), .cases = cases,
  .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2, .infer = infer, .cost = cost,
};
