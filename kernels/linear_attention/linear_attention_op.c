/* table of linear_attention */
#include "common/cases.h"
#include "common/memory_op.h"
#include "linear_attention/linear_attention_internal.h"

extern const mica_op mica_op_linear_attention;

#define AT(field) offsetof(mica_linear_attention_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "K", AT(K) }, { "V", AT(V) },
  { "A", AT(A) },
};
static const mica_param params[] = {
  MEMORY_PARAMS,
  { "normalise", MICA_PARAM_CHOICE, AT(normalise), 0, 0, 1, "no|yes", "divide by the reading of the sum of keys" },
  { "eps", MICA_PARAM_REAL, AT(eps), 0, 0, 1e6, NULL, "added to the denominator" },
};
static const mica_operand operands[] = {
  { "q", "B T H K", AT(q), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_POSITIVE, NULL, "queries, after the feature map" },
  { "k", "B T H K", AT(k), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_POSITIVE, NULL, "keys, after the feature map" },
  { "v", "B T H V", AT(v), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "values" },
  { "decay", "B T H A", AT(decay), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_UNIT, NULL,
    "what is left of the memory: one factor a head (A = 1) or one a key channel (A = K); absent: 1" },
  { "state_in", "B H K V", AT(state_in), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "memory before the first token; absent: 0" },
  { "norm_in", "B H K", AT(norm_in), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_POSITIVE, NULL,
    "sum of keys before the first token; absent: 0" },
  { "out", "B T H V", AT(out), MICA_OUT, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL, "what each token reads" },
  { "state_out", "B H K V", AT(state_out), MICA_OUT | MICA_OPTIONAL, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL,
    "memory after the last token" },
  { "norm_out", "B H K", AT(norm_out), MICA_OUT | MICA_OPTIONAL, READS_OUT, MICA_WRITES_OUT, MICA_ANY, NULL,
    "sum of keys after the last token" },
};

static mica_status infer(void *args) {
  mica_linear_attention_args *a = args;
  if (a->A < 0) a->A = 1;
  if (a->K >= 0 && a->A != 1 && a->A != a->K)
    return mica_error(MICA_ERR_SHAPE, "linear_attention: decay has A = %lld factors a head, expected 1 or K = %lld",
                      (long long)a->A, (long long)a->K);
  micak_memory m = linear_attention_memory(args);
  return micak_memory_check(&m);
}
MEMORY_FACES(linear_attention)
static const mica_kernel kernels[] = { MEMORY_KERNELS(linear_attention) };

#define BARE " decay=none state_in=none state_out=none norm_in=none norm_out=none"
#define FADING " norm_in=none norm_out=none"
#define PLAIN " decay=none norm_in=none norm_out=none"
static const mica_case cases[] = {
  { "B=2 T=6 H=2 K=4 V=4" BARE, 0 },
  { "B=2 T=7 H=2 K=5 V=3 chunk=3" PLAIN, MICA_CASE_PACKED },
  { "B=2 T=7 H=2 K=5 V=3 form=recurrent chunk=3" PLAIN, MICA_CASE_PACKED | MICA_CASE_SAME },
  { "B=2 T=7 H=1 K=4 V=9 chunk=4 normalise=yes eps=0.01 decay=none", MICA_CASE_PACKED },
  { "B=2 T=7 H=1 K=4 V=9 form=recurrent normalise=yes eps=0.01 decay=none", MICA_CASE_SAME },
  { "B=1 T=1 H=1 K=1 V=1 decay=none", 0 },
  { "B=1 T=17 H=1 K=16 V=8 chunk=16 normalise=yes state_in=none norm_in=none decay=none", 0 },
  { "B=1 T=17 H=1 K=16 V=8 form=recurrent normalise=yes state_in=none norm_in=none decay=none", MICA_CASE_SAME },
  { "B=1 T=64 H=1 K=4 V=17 chunk=13" PLAIN, 0 },
  { "B=1 T=64 H=1 K=4 V=17" PLAIN, MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=2 T=7 H=2 K=5 V=3 chunk=3" FADING, MICA_CASE_PACKED },
  { "B=2 T=7 H=2 K=5 V=3 form=recurrent" FADING, MICA_CASE_SAME },
  { "B=2 T=7 H=1 K=4 V=9 A=4 chunk=4 normalise=yes eps=0.01", MICA_CASE_PACKED },
  { "B=2 T=7 H=1 K=4 V=9 A=4 form=recurrent normalise=yes eps=0.01", MICA_CASE_SAME },
  { "B=1 T=33 H=1 K=1 V=6 state_in=none state_out=none" FADING, 0 },
  { "B=1 T=5 H=1 K=129 V=9 normalise=yes eps=0.01 decay=none", MICA_CASE_SLOW },
  { "B=1 T=3 H=1 K=33 V=18 form=chunked state_in=none" PLAIN, 0 },
  { "B=1 T=63 H=1 K=8 V=4 normalise=yes decay=none", MICA_CASE_SLOW },
  { "B=1 T=65 H=1 K=8 V=4" PLAIN, MICA_CASE_SLOW },
  { "B=1 T=100 H=2 K=33 V=7 form=recurrent normalise=yes decay=none", MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=4 V=4" PLAIN, MICA_CASE_SLOW },
  { "B=1 T=1000 H=1 K=4 V=4 form=recurrent" PLAIN, MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=1 T=2000 H=1 K=4 V=4" PLAIN, MICA_CASE_SLOW },
  { "B=1 T=2000 H=1 K=4 V=4 form=recurrent" PLAIN, MICA_CASE_SAME | MICA_CASE_SLOW },
  { "B=2 T=37 H=1 K=20 V=33" PLAIN, MICA_CASE_PACKED },
  { "B=2 T=18 H=1 K=9 V=32 normalise=yes eps=0.01 decay=none", MICA_CASE_PACKED },
  { "B=2 T=24 H=1 K=8 V=9 A=8 normalise=yes eps=0.01", MICA_CASE_PACKED },
  { "B=1 T=17 H=1 K=16 V=20 state_in=none" FADING, 0 },
  { "B=1 T=50 H=1 K=80 V=96 normalise=yes decay=none", MICA_CASE_SLOW },
  { "B=1 T=20 H=1 K=70 V=130" PLAIN, MICA_CASE_SLOW },
  { "B=1 T=20 H=1 K=256 V=200 form=recurrent" PLAIN, MICA_CASE_SLOW },
  { "B=1 T=18 H=1 K=65 V=130 form=chunked normalise=yes eps=0.01", MICA_CASE_LENGTHS },
  { "B=1 T=18 H=1 K=9 V=130 A=9 form=chunked", MICA_CASE_LENGTHS },
  /* on CUDA chunks of other widths of key */
  { "B=1 T=2 H=1 K=65 V=8 form=chunked state_in=none" PLAIN, 0 },
  { "B=1 T=2 H=1 K=18 V=8 A=18 form=chunked state_in=none norm_in=none norm_out=none", 0 },
  { "B=1 T=2 H=1 K=33 V=8 A=1 form=chunked state_in=none norm_in=none norm_out=none", 0 },
  { "B=128 T=6 H=16 K=16 V=16" BARE, MICA_CASE_BENCH },
  { "B=8 T=256 H=8 K=32 V=32" BARE, MICA_CASE_BENCH },
  { "B=16 T=64 H=16 K=16 V=16" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
  { "B=8 T=1024 H=8 K=64 V=64" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
};

/* k = 1, 2; v = 3, 1; S = 3, then 5; q = 1, 2: out = 3, 10. with out.d = 1, 1: q.d = S = 3, 5;
 * k.d = v times the sum of later q.d-weights: 3 (1 + 2), 1 * 2; v.d = k times the same: 1 (1 + 2), 2 * 2.
 * k.t = 1, 0: S.t = 3, 3: out.t = 3, 6; q.td = S.t; v.td = k.t times (1 + 2), 0; k.td = 0 */
static const double q_v[2] = { 1, 2 }, k_v[2] = { 1, 2 }, v_v[2] = { 3, 1 }, out_v[2] = { 3, 10 }, ones[2] = { 1, 1 };
static const double q_d[2] = { 3, 5 }, k_d[2] = { 9, 2 }, v_d[2] = { 3, 4 }, k_t[2] = { 1, 0 }, out_t[2] = { 3, 6 };
static const double q_td[2] = { 3, 3 }, v_td[2] = { 3, 0 }, zeros[2] = { 0, 0 }, state_v[1] = { 5 };
static const mica_example_wire wires[] = {
  { "q.v", q_v, 2, 0 },     { "q.t", zeros, 2, 0 },   { "k.v", k_v, 2, 0 },         { "k.t", k_t, 2, 0 },
  { "v.v", v_v, 2, 0 },     { "v.t", zeros, 2, 0 },   { "out.d", ones, 2, 0 },      { "out.td", zeros, 2, 0 },
  { "out.v", out_v, 2, 1 }, { "out.t", out_t, 2, 1 }, { "state_out.v", state_v, 1, 1 }, { "q.d", q_d, 2, 1 },
  { "k.d", k_d, 2, 1 },     { "v.d", v_d, 2, 1 },     { "q.td", q_td, 2, 1 },       { "k.td", zeros, 2, 1 },
  { "v.td", v_td, 2, 1 },
};
static const mica_example example = { "B=1 T=2 H=1 K=1 V=1 decay=none", wires, MICA_COUNT(wires) };

const mica_op mica_op_linear_attention = {
  .size = sizeof(mica_op), .name = "linear_attention",
  .doc = "linear attention: a memory written by sums of outer products, with or without decay, recurrent or chunked, with carried state",
  .args_size = sizeof(mica_linear_attention_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = params,
  .n_params = MICA_COUNT(params), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .infer = infer, .cost = cost,
};
