/* table of delta_rule */
#include "common/memory_op.h"
#include "delta_rule/delta_rule_internal.h"

extern const mica_op mica_op_delta_rule;

#define AT(field) offsetof(mica_delta_rule_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "K", AT(K) }, { "V", AT(V) },
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
  { "state_in", "B H K V", AT(state_in), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "memory before the first token; absent: 0" },
  { "out", "B T H V", AT(out), MICA_OUT, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL, "what each token reads" },
  { "state_out", "B H K V", AT(state_out), MICA_OUT | MICA_OPTIONAL, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL,
    "memory after the last token" },
};

static mica_status infer(void *args) {
  micak_memory m = delta_rule_memory(args);
  return micak_memory_check(&m);
}
MEMORY_FACES(delta_rule)
static const mica_kernel kernels[] = { MEMORY_KERNELS(delta_rule) };

#define BARE " state_in=none state_out=none"
static const mica_case cases[] = {
  { "B=2 T=6 H=2 K=4 V=4" BARE, 0 },
  { "B=2 T=7 H=2 K=5 V=3 chunk=3", MICA_CASE_PACKED },
  { "B=2 T=7 H=2 K=5 V=3 form=recurrent chunk=3", MICA_CASE_PACKED | MICA_CASE_SAME },
  { "B=1 T=1 H=1 K=1 V=1", 0 },
  { "B=1 T=17 H=1 K=16 V=9 chunk=16 beta=none", 0 },
  { "B=1 T=5 H=1 K=129 V=9", MICA_CASE_SLOW },
  { "B=1 T=3 H=1 K=33 V=18 form=chunked state_in=none", 0 },
  { "B=1 T=64 H=1 K=4 V=17", 0 },
  { "B=2 T=37 H=1 K=20 V=33", MICA_CASE_PACKED },
  { "B=2 T=37 H=1 K=20 V=33 form=recurrent", MICA_CASE_SAME },
  { "B=1 T=67 H=1 K=8 V=9", 0 },
  { "B=1 T=67 H=1 K=8 V=9 form=recurrent", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=2 T=24 H=1 K=8 V=9", MICA_CASE_PACKED },
  { "B=1 T=20 H=1 K=70 V=130 state_in=none", MICA_CASE_SLOW },
  { "B=1 T=64 H=1 K=4 V=17", MICA_CASE_SLOW },
  { "B=1 T=64 H=1 K=4 V=17 chunk=13", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=63 H=1 K=8 V=4", MICA_CASE_SLOW },
  { "B=1 T=65 H=1 K=8 V=4", MICA_CASE_SLOW },
  { "B=1 T=100 H=2 K=33 V=7 form=recurrent", MICA_CASE_SLOW },
  { "B=1 T=100 H=2 K=33 V=7", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=4 V=4", MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=4 V=4 form=recurrent", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=2000 H=1 K=4 V=4", MICA_CASE_SLOW },
  { "B=1 T=2000 H=1 K=4 V=4 form=recurrent", MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=50 H=1 K=80 V=96", MICA_CASE_SLOW },
  { "B=1 T=20 H=1 K=256 V=200 form=recurrent", MICA_CASE_SLOW },
  { "B=3 T=7 H=2 K=5 V=3" BARE, MICA_CASE_PACKED },
  /* on CUDA chunks of other widths of key */
  { "B=1 T=2 H=1 K=65 V=8 form=chunked state_in=none", 0 },
  { "B=128 T=6 H=16 K=16 V=16" BARE, MICA_CASE_BENCH },
  { "B=8 T=256 H=8 K=32 V=32" BARE, MICA_CASE_BENCH },
  { "B=16 T=64 H=16 K=16 V=16" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
  { "B=8 T=1024 H=8 K=64 V=64" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
};

/* k = 1, 1, v = 3, 1, beta = 1, 1/2: S = 3, then 3 + (1 - 3) / 2 = 2; q = 1, 2: out = 3, 4. back from out.d = 1, 1:
 * G = 2, beta_2.d = 2 (1 - 3), x = 1 = v_2.d, k_2.d = 2 (-1) - 3; G = 2 - 1 + 1 = v_1.d, beta_1.d = k_1.d = 2 3.
 * beta.t = 0, 1: S_2.t = -2, x.t = 2 = v_2.td, k_2.td = 2 (-2) - 3 2; G.t = -2 */
static const double q_v[2] = { 1, 2 }, k_v[2] = { 1, 1 }, v_v[2] = { 3, 1 }, beta_v[2] = { 1, 0.5 }, ones[2] = { 1, 1 };
static const double zeros[2] = { 0, 0 }, beta_t[2] = { 0, 1 }, out_v[2] = { 3, 4 }, state_v[1] = { 2 };
static const double q_d[2] = { 3, 2 }, k_d[2] = { 6, -5 }, v_d[2] = { 2, 1 }, beta_d[2] = { 6, -4 };
static const double out_t[2] = { 0, -4 };
static const double q_td[2] = { 0, -2 }, k_td[2] = { -6, -10 }, v_td[2] = { -2, 2 }, beta_td[2] = { -6, 0 };
static const mica_example_wire wires[] = {
  { "q.v", q_v, 2, 0 },       { "q.t", zeros, 2, 0 },     { "k.v", k_v, 2, 0 },       { "k.t", zeros, 2, 0 },
  { "v.v", v_v, 2, 0 },       { "v.t", zeros, 2, 0 },     { "beta.v", beta_v, 2, 0 }, { "beta.t", beta_t, 2, 0 },
  { "out.d", ones, 2, 0 },    { "out.td", zeros, 2, 0 },  { "out.v", out_v, 2, 1 },   { "out.t", out_t, 2, 1 },
  { "state_out.v", state_v, 1, 1 }, { "q.d", q_d, 2, 1 }, { "k.d", k_d, 2, 1 },       { "v.d", v_d, 2, 1 },
  { "beta.d", beta_d, 2, 1 }, { "q.td", q_td, 2, 1 },     { "k.td", k_td, 2, 1 },     { "v.td", v_td, 2, 1 },
  { "beta.td", beta_td, 2, 1 },
};
static const mica_example example = { "B=1 T=2 H=1 K=1 V=1", wires, MICA_COUNT(wires) };

const mica_op mica_op_delta_rule = {
  .size = sizeof(mica_op), .name = "delta_rule",
  .doc = "delta rule: a memory that is corrected towards each value by its own rate, recurrent or chunked",
  .args_size = sizeof(mica_delta_rule_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = params,
  .n_params = MICA_COUNT(params), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .infer = infer, .cost = cost,
};
