/* table of feature_map */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "common/rows.h"
#include "feature_map/feature_map_internal.h"

extern const mica_op mica_op_feature_map;

#define AT(field) offsetof(mica_feature_map_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "D", AT(D) }, { "F", AT(F) },
};
static const mica_param params[] = {
  { "map", MICA_PARAM_CHOICE, AT(map), FEATURE_ELU1, 0, FEATURE_MAPS - 1, "identity|elu1|dpfp|favor|softmax|silu_l2|l1|l2",
    "the map" },
  { "nu", MICA_PARAM_INT, AT(nu), 1, 1, 2 * FEATURE_MOST_D, NULL, "dpfp: how many neighbours, F = 2 D nu" },
  { "seed", MICA_PARAM_INT, AT(seed), 0, 0, 9007199254740992.0, NULL, "favor: of the directions" },
  { "eps", MICA_PARAM_REAL, AT(eps), 1e-6, 0, 1, NULL, "silu_l2, l2: added to the squared length; l1: to the sum" },
};
static const mica_operand operands[] = {
  { "x", "B T H D", AT(x), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN,
    MICA_AWAY0, NULL, "queries or keys" },
  { "y", "B T H F", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "features" },
};

static mica_status infer(void *args) {
  mica_feature_map_args *a = args;
  if (a->D < 0) return MICA_OK;
  int64_t n = a->map == FEATURE_DPFP ? 2 * a->D * a->nu : a->map == FEATURE_FAVOR && a->F >= 0 ? a->F : a->D;
  if (a->F < 0) a->F = n;
  if (a->D == 0 || a->D > FEATURE_MOST_D || a->F < 1 || a->F > FEATURE_MOST_F)
    return mica_error(MICA_ERR_SHAPE, "feature_map: D = %lld, F = %lld, expected 1 <= D <= %d and 1 <= F <= %d",
                      (long long)a->D, (long long)a->F, FEATURE_MOST_D, FEATURE_MOST_F);
  if (a->map == FEATURE_DPFP && a->nu > 2 * a->D)
    return mica_error(MICA_ERR_INVALID, "feature_map: nu = %lld with D = %lld, expected at most 2 D: more would repeat",
                      (long long)a->nu, (long long)a->D);
  if (a->F != n)
    return mica_error(MICA_ERR_SHAPE, "feature_map: F = %lld, expected %lld for this map and D = %lld", (long long)a->F,
                      (long long)n, (long long)a->D);
  return MICA_OK;
}

static void split(const mica_feature_map_args *a, int face, mica_split *s) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  const mica_port *ports[] = { face == MICA_FORWARD || face == MICA_JVP ? &a->y : &a->x };
  int random = a->map == FEATURE_FAVOR;
  micak_split_rows(a->x.offsets, a->B, a->T, micak_ports_sum(ports, 1, bit[face], a->B), (a->D + a->F) * a->H * 2, s);
  /* each call draws the directions anew: it should have some rows to use them on */
  if (random && s->grain < 256) s->grain = 256;
  int64_t room = ((a->F > 4 * a->D ? a->F : 4 * a->D) + 31) / 16 * 16, floats = 10 * room;
  if (random) floats += 2 * ((feature_block(a) + 7) / 8 * 8) + a->D * ((a->F + 15) / 16 * 16);
  s->scratch_bytes = (size_t)floats * sizeof(float);
}
#define SPLIT(name, FACE) \
  static void split_##name(const void *args, mica_split *s) { split(args, FACE, s); }
SPLIT(forward, MICA_FORWARD)
SPLIT(backward, MICA_BACKWARD)
SPLIT(jvp, MICA_JVP)
SPLIT(backward_jvp, MICA_BACKWARD_JVP)
static void cost(const void *args, int face, double *flop, double *bytes) {
  static const double times[MICA_NFACE] = { 1, 2, 2, 4 };
  const mica_feature_map_args *a = args;
  double rows = (double)(a->B * a->T * a->H);
  *flop = times[face] * rows * (double)a->F * (a->map == FEATURE_FAVOR ? 2.0 * (double)a->D : 8.0);
  *bytes = times[face] * rows * (double)(a->D + a->F) * (double)sizeof(float);
}

CPU_DISPATCH(feature_map_forward)
CPU_DISPATCH(feature_map_backward)
CPU_DISPATCH(feature_map_jvp)
CPU_DISPATCH(feature_map_backward_jvp)
REF_PROTOS(feature_map);
CUDA_PROTOS(feature_map)
/* favor's directions: doubles while they are made orthogonal, then floats */
CUDA_SPLIT(cuda_split, mica_feature_map_args, a->map == FEATURE_FAVOR ? (size_t)(12 * a->F * a->D) : 0)
static const mica_kernel kernels[] = {
  REF_KERNELS(feature_map),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_feature_map_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_feature_map_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_feature_map_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_feature_map_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS_WITH(feature_map, MICA_F32, cuda_split, cuda_split, cuda_split, cuda_split)
  CUDA_KERNELS_WITH(feature_map, MICA_BF16, cuda_split, cuda_split, cuda_split, cuda_split)
};

static const mica_case cases[] = {
  { "B=2 T=3 H=2 D=5 map=identity", 0 },
  { "B=2 T=7 H=2 D=5 map=elu1", MICA_CASE_PACKED },
  { "B=2 T=3 H=2 D=5 map=dpfp nu=3", MICA_CASE_PACKED },
  { "B=1 T=2 H=1 D=1 map=dpfp nu=2", 0 },
  { "B=1 T=2 H=1 D=17 map=dpfp", 0 },
  { "B=2 T=3 H=2 D=5 F=12 map=favor seed=3", MICA_CASE_PACKED },
  { "B=1 T=2 H=1 D=9 F=4 map=favor", 0 },
  { "B=2 T=3 H=2 D=7 map=softmax", 0 },
  { "B=1 T=2 H=1 D=33 map=softmax", 0 },
  { "B=2 T=3 H=2 D=7 map=silu_l2", 0 },
  { "B=1 T=2 H=1 D=33 map=silu_l2 eps=0.1", 0 },
  { "B=2 T=3 H=2 D=7 map=l1", 0 },
  { "B=1 T=2 H=1 D=33 map=l1 eps=0.5", 0 },
  { "B=2 T=3 H=2 D=7 map=l2", 0 },
  { "B=1 T=2 H=1 D=33 map=l2 eps=0.1", 0 },
  { "B=128 T=6 H=16 D=16 map=elu1", MICA_CASE_BENCH },
  { "B=128 T=6 H=16 D=16 map=dpfp nu=2", MICA_CASE_BENCH },
  { "B=16 T=64 H=16 D=16 F=64 map=favor", MICA_CASE_BENCH | MICA_CASE_SLOW },
};

/* x = (2, -3): r = (2, 0, 0, 3), moved by one (3, 2, 0, 0), y = (6, 0, 0, 0). y.d = 1: r_0.d = 3, r_3.d = 2, so
 * x.d = (3, -2). x.t = (1, 1): r.t = (1, 0, 0, -1), y_0.t = 3 - 2; x.td = (r_3.t, -r_0.t) */
static const double x_v[2] = { 2, -3 }, x_t[2] = { 1, 1 }, y_v[4] = { 6, 0, 0, 0 }, y_t[4] = { 1, 0, 0, 0 };
static const double y_d[4] = { 1, 1, 1, 1 }, y_td[4] = { 0, 0, 0, 0 }, x_d[2] = { 3, -2 }, x_td[2] = { -1, -1 };
static const mica_example_wire wires[] = {
  { "x.v", x_v, 2, 0 }, { "x.t", x_t, 2, 0 }, { "y.d", y_d, 4, 0 }, { "y.td", y_td, 4, 0 },
  { "y.v", y_v, 4, 1 }, { "y.t", y_t, 4, 1 }, { "x.d", x_d, 2, 1 }, { "x.td", x_td, 2, 1 },
};
static const mica_example example = { "B=1 T=1 H=1 D=2 map=dpfp", wires, MICA_COUNT(wires) };

const mica_op mica_op_feature_map = {
  .size = sizeof(mica_op), .name = "feature_map",
  .doc = "feature maps of queries and keys: identity, elu1, dpfp, favor, softmax, silu_l2, l1, l2",
  .args_size = sizeof(mica_feature_map_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = params,
  .n_params = MICA_COUNT(params), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .infer = infer, .cost = cost,
};
