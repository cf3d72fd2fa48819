/* tables of max_pool */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "pool/pool_internal.h"

extern const mica_op mica_op_max_pool;

#define AT(field) offsetof(mica_max_pool_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "W", AT(W) }, { "C", AT(C) }, { "P", AT(P) }, { "Q", AT(Q) },
};
static const mica_param settings[] = {
  { "size", MICA_PARAM_INT, AT(window), 2, 1, 64, NULL, "pixels of a side of a square" },
};
static const mica_operand operands[] = {
  { "x", "B T H W C", AT(x), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V), MICA_WRITES_IN, MICA_ANY,
    NULL, "images" },
  { "y", "B T P Q C", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "the largest of each square" },
};

static mica_status infer(void *args) {
  mica_max_pool_args *a = args;
  const int64_t in[] = { a->H, a->W };
  int64_t *out[] = { &a->P, &a->Q };
  for (int i = 0; i < 2; i++) {
    int64_t want = in[i] / a->window;
    if (*out[i] >= 0 && *out[i] != want)
      return mica_error(MICA_ERR_SHAPE, "max_pool: %c is %lld, expected %lld", "PQ"[i], (long long)*out[i],
                        (long long)want);
    *out[i] = want;
  }
  return MICA_OK;
}

static void cost(const void *args, int face, double *flop, double *bytes) {
  const mica_max_pool_args *a = args;
  static const double moved[MICA_NFACE] = { 1, 2, 2, 2 };
  double n = (double)micak_all_rows(pool_offsets(a), a->B, a->T) * (double)(a->H * a->W * a->C);
  *flop = n;
  *bytes = moved[face] * n * sizeof(float);
}

static void split_images(const mica_max_pool_args *a, int face, mica_split *split) {
  micak_split_rows(pool_offsets(a), a->B, a->T, pool_sums(a, face), a->H * a->W * a->C, split);
}
static void split_forward(const void *args, mica_split *split) { split_images(args, MICA_FORWARD, split); }
static void split_jvp(const void *args, mica_split *split) { split_images(args, MICA_JVP, split); }
static void split_backward(const void *args, mica_split *split) { split_images(args, MICA_BACKWARD, split); }
static void split_backward_jvp(const void *args, mica_split *split) { split_images(args, MICA_BACKWARD_JVP, split); }

CPU_DISPATCH(max_pool_forward)
CPU_DISPATCH(max_pool_backward)
CPU_DISPATCH(max_pool_jvp)
CPU_DISPATCH(max_pool_backward_jvp)
REF_PROTOS(max_pool);
CUDA_PROTOS(max_pool)

static const mica_kernel kernels[] = {
  REF_KERNELS(max_pool),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_max_pool_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_max_pool_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_max_pool_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_max_pool_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS(max_pool, MICA_F32)
  CUDA_KERNELS(max_pool, MICA_BF16)
};
static const mica_case cases[] = {
  { "B=3 T=2 H=4 W=6 C=5", MICA_CASE_PACKED }, { "B=2 T=1 H=5 W=3 C=33", 0 }, { "B=2 T=2 H=7 W=3 C=1 size=3", 0 },
  { "B=1 T=1 H=2 W=1 C=2 size=1", 0 }, { "B=2 T=1 H=5 W=4 C=8", 0 },
  { "B=4 T=25 H=28 W=28 C=64", MICA_CASE_BENCH }, { "B=4 T=25 H=7 W=7 C=64", MICA_CASE_BENCH },
};

/* two equals: the first is taken */
static const double ex_x[] = { 1, 3, 3, 0 }, ex_t[] = { 5, 6, 7, 8 }, ex_y[] = { 3 }, ex_yt[] = { 6 }, ex_d[] = { 2 };
static const double ex_td[] = { 4 }, ex_xd[] = { 0, 2, 0, 0 }, ex_xtd[] = { 0, 4, 0, 0 };
static const mica_example_wire wires[] = {
  { "x.v", ex_x, 4, 0 },  { "x.t", ex_t, 4, 0 },  { "y.d", ex_d, 1, 0 },  { "y.td", ex_td, 1, 0 },
  { "y.v", ex_y, 1, 1 },  { "y.t", ex_yt, 1, 1 }, { "x.d", ex_xd, 4, 1 }, { "x.td", ex_xtd, 4, 1 },
};
static const mica_example example = { "B=1 T=1 H=2 W=2 C=1", wires, MICA_COUNT(wires) };

const mica_op mica_op_max_pool = {
  .size = sizeof(mica_op), .name = "max_pool", .doc = "the largest value of every square of pixels",
  .args_size = sizeof(mica_max_pool_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = settings,
  .n_params = MICA_COUNT(settings), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .infer = infer, .cost = cost,
};
