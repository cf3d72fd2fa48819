/* table of gated_delta */
#include "common/cases.h"
#include "common/memory_op.h"
#include "gated_delta/gated_delta_internal.h"

extern const mica_op mica_op_gated_delta;

#define AT(field) offsetof(mica_gated_delta_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "K", AT(K) }, { "V", AT(V) },
  { "A", AT(A) },
};
static const mica_param params[] = {
  MEMORY_PARAMS,
};
static const mica_operand operands[] = {
  { "q", "B T H K", AT(q), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "queries" },
  { "k", "B T H K", AT(k), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_SIMPLEX, NULL,
    "keys; stable while beta |k|^2 is between 0 and 2" },
  { "v", "B T H V", AT(v), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "values" },
  { "beta", "B T H", AT(beta), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_UNIT, NULL,
    "rate of each token; absent: 1" },
  { "decay", "B T H A", AT(decay), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_UNIT, NULL,
    "what is left of the memory: one factor a head (A = 1) or one a key channel (A = K)" },
  { "state_in", "B H K V", AT(state_in), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "memory before the first token; absent: 0" },
  { "out", "B T H V", AT(out), MICA_OUT, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL, "what each token reads" },
  { "state_out", "B H K V", AT(state_out), MICA_OUT | MICA_OPTIONAL, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL,
    "memory after the last token" },
};

static mica_status infer(void *args) {
  const mica_gated_delta_args *a = args;
  micak_memory m = gated_delta_memory(args);
  if (a->A >= 0 && a->K >= 0 && a->A != 1 && a->A != a->K)
    return mica_error(MICA_ERR_SHAPE, "gated_delta: decay has A = %lld factors a head, expected 1 or K = %lld",
                      (long long)a->A, (long long)a->K);
  return micak_memory_check(&m);
}
MEMORY_FACES(gated_delta)
static const mica_kernel kernels[] = { MEMORY_KERNELS(gated_delta) };

#define BARE " state_in=none state_out=none"
static const mica_case cases[] = {
  { "B=2 T=6 H=2 K=4 V=4 A=1" BARE, 0 },
  { "B=2 T=7 H=2 K=5 V=3 A=1 chunk=3", MICA_CASE_PACKED },
  { "B=2 T=7 H=2 K=5 V=3 A=1 form=recurrent chunk=3", MICA_CASE_PACKED | MICA_CASE_SAME },
  { "B=2 T=7 H=2 K=5 V=3 A=5 chunk=4", MICA_CASE_PACKED },
  { "B=2 T=7 H=2 K=5 V=3 A=5 form=recurrent", MICA_CASE_SAME },
  { "B=1 T=17 H=1 K=9 V=16 A=9 beta=none", 0 },
  { "B=1 T=17 H=1 K=9 V=16 A=9 form=recurrent beta=none", MICA_CASE_SAME },
  { "B=1 T=1 H=1 K=1 V=1 A=1", 0 },
  { "B=1 T=17 H=1 K=16 V=9 A=1 chunk=16 beta=none", 0 },
  { "B=1 T=5 H=1 K=129 V=9 A=1", MICA_CASE_SLOW },
  { "B=1 T=3 H=1 K=33 V=18 A=33 state_in=none", 0 },
  { "B=1 T=64 H=1 K=4 V=17 A=1", 0 },
  { "B=1 T=64 H=1 K=4 V=17 A=1 chunk=13", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=63 H=1 K=8 V=4 A=8", MICA_CASE_SLOW },
  { "B=1 T=65 H=1 K=8 V=4 A=1", MICA_CASE_SLOW },
  { "B=1 T=100 H=2 K=33 V=7 A=1 form=recurrent", MICA_CASE_SLOW },
  { "B=1 T=100 H=2 K=33 V=7 A=1", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=4 V=4 A=1", MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=4 V=4 A=1 form=recurrent", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=2000 H=1 K=4 V=4 A=1", MICA_CASE_SLOW },
  { "B=1 T=2000 H=1 K=4 V=4 A=1 form=recurrent", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=50 H=1 K=80 V=96 A=80", MICA_CASE_SLOW },
  { "B=1 T=20 H=1 K=256 V=200 A=1 form=recurrent", MICA_CASE_SLOW },
  { "B=2 T=24 H=1 K=8 V=9 A=8", MICA_CASE_PACKED },
  { "B=1 T=3 H=1 K=33 V=18 A=33 form=chunked state_in=none", 0 },
  { "B=1 T=37 H=1 K=20 V=33 A=1", 0 },
  { "B=1 T=37 H=1 K=20 V=33 A=1 form=recurrent", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=18 H=1 K=65 V=130 A=65 form=chunked", MICA_CASE_LENGTHS },
  { "B=1 T=18 H=1 K=9 V=130 A=1 form=chunked", MICA_CASE_LENGTHS },
  { "B=128 T=6 H=16 K=16 V=16 A=1" BARE, MICA_CASE_BENCH },
  { "B=8 T=256 H=8 K=32 V=32 A=1" BARE, MICA_CASE_BENCH },
  { "B=16 T=64 H=16 K=16 V=16 A=1" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
  { "B=8 T=1024 H=8 K=64 V=64 A=1" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
};

/* k = 1, 1, v = 3, 1, beta = 1, 1/2, decay = 1, 1/2: S = 3, then 1.5 + (1 - 1.5) / 2 = 1.25; q = 1: out = 3, 1.25. back
 * from out.d = 1, 1: G = 1, x = 1/2 = v_2.d, k_2.d = -1/4 - 1.5 / 2, decay_2.d = (1 - 1/2) 3; G = 1/4 + 1 = v_1.d.
 * decay.t = 0, 1: e_2.t = -3, S_2.t = 3 - 1.5 */
static const double q_v[2] = { 1, 1 }, k_v[2] = { 1, 1 }, v_v[2] = { 3, 1 }, beta_v[2] = { 1, 0.5 }, ones[2] = { 1, 1 };
static const double decay_v[2] = { 1, 0.5 }, decay_t[2] = { 0, 1 }, decay_d[2] = { 0, 1.5 };
static const double zeros[2] = { 0, 0 }, beta_t[2] = { 0, 0 }, out_v[2] = { 3, 1.25 }, state_v[1] = { 1.25 };
static const double q_d[2] = { 3, 1.25 }, k_d[2] = { 3.75, -1 }, v_d[2] = { 1.25, 0.5 }, beta_d[2] = { 3.75, -0.5 };
static const double out_t[2] = { 0, 1.5 }, q_td[2] = { 0, 1.5 }, k_td[2] = { 1.5, -3 }, v_td[2] = { 0.5, 0 };
static const double beta_td[2] = { 1.5, -3 };
static const mica_example_wire wires[] = {
  { "q.v", q_v, 2, 0 },       { "q.t", zeros, 2, 0 },     { "k.v", k_v, 2, 0 },       { "k.t", zeros, 2, 0 },
  { "v.v", v_v, 2, 0 },       { "v.t", zeros, 2, 0 },     { "beta.v", beta_v, 2, 0 }, { "beta.t", beta_t, 2, 0 },
  { "out.d", ones, 2, 0 },    { "out.td", zeros, 2, 0 },  { "out.v", out_v, 2, 1 },   { "out.t", out_t, 2, 1 },
  { "state_out.v", state_v, 1, 1 }, { "q.d", q_d, 2, 1 }, { "k.d", k_d, 2, 1 },       { "v.d", v_d, 2, 1 },
  { "beta.d", beta_d, 2, 1 }, { "q.td", q_td, 2, 1 },     { "k.td", k_td, 2, 1 },     { "v.td", v_td, 2, 1 },
  { "beta.td", beta_td, 2, 1 },
  { "decay.v", decay_v, 2, 0 }, { "decay.t", decay_t, 2, 0 }, { "decay.d", decay_d, 2, 1 }, { "decay.td", zeros, 2, 1 },
};
static const mica_example example = { "B=1 T=2 H=1 K=1 V=1 A=1", wires, MICA_COUNT(wires) };

const mica_op mica_op_gated_delta = {
  .size = sizeof(mica_op), .name = "gated_delta",
  .doc = "delta rule with decay: the memory fades by a factor a token, for a head or for each key channel",
  .args_size = sizeof(mica_gated_delta_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = params,
  .n_params = MICA_COUNT(params), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .infer = infer, .cost = cost,
};
