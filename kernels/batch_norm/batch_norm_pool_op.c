/* tables of batch_norm_pool */
#include "batch_norm/batch_norm_internal.h"
#include "batch_norm/batch_norm_pool.h"
#include "common/isa.h"
#include "common/ref.h"

extern const mica_op mica_op_batch_norm_pool;

#define AT(field) offsetof(mica_batch_norm_pool_args, field)

static const mica_dim dims[] = {
  { "B", AT(norm.B) }, { "T", AT(norm.T) }, { "H", AT(H) }, { "W", AT(W) }, { "C", AT(norm.C) }, { "P", AT(P) },
  { "Q", AT(Q) },
};
static const mica_param settings[] = {
  { "eps", MICA_PARAM_REAL, AT(norm.eps), 1e-5, 0, 1, NULL, "added to the variance" },
  { "size", MICA_PARAM_INT, AT(window), 2, 1, 64, NULL, "pixels of a side of a square" },
  { "act", MICA_PARAM_CHOICE, AT(act), 0, 0, 0, "none|relu", "what becomes of the largest" },
};

#define SAVED(name, doc)                                                                                          \
  { #name, "B C", AT(norm.name), MICA_SAVED, MICA_READS(0, MICA_V, MICA_V, MICA_V | MICA_T), MICA_WRITES_SAVED,     \
    MICA_ANY, NULL, doc }
static const mica_operand operands[] = {
  { "x", "B T H W C", AT(norm.x), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN,
    MICA_ANY, NULL, "images" },
  { "w", "B C", AT(norm.w), MICA_IN | MICA_PARAM | MICA_OPTIONAL,
    MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN, MICA_ANY, NULL,
    "factor of each channel; absent: ones" },
  { "b", "B C", AT(norm.b), MICA_IN | MICA_PARAM | MICA_OPTIONAL, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V),
    MICA_WRITES_IN, MICA_ANY, NULL, "added to each channel; absent: zeros" },
  { "y", "B T P Q C", AT(norm.y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "the largest of each square" },
  SAVED(mean, "mean of each channel"),
  SAVED(rstd, "1 / sqrt(variance + eps) of each channel"),
};

static mica_status infer(void *args) {
  mica_batch_norm_pool_args *a = args;
  const int64_t in[] = { a->H, a->W };
  int64_t *out[] = { &a->P, &a->Q };
  for (int i = 0; i < 2; i++) {
    int64_t want = in[i] / a->window;
    if (*out[i] >= 0 && *out[i] != want)
      return mica_error(MICA_ERR_SHAPE, "batch_norm_pool: %c is %lld, expected %lld", "PQ"[i], (long long)*out[i],
                        (long long)want);
    *out[i] = want;
  }
  a->norm.P = a->H * a->W;
  return MICA_OK;
}

static void cost(const void *args, int face, double *flop, double *bytes) {
  const mica_batch_norm_args *a = args;
  static const double flop_each[MICA_NFACE] = { 8, 13, 15, 35 }, moved[MICA_NFACE] = { 2, 3, 5, 7 };
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->T) * (double)(a->P * a->C);
  *flop = flop_each[face] * n;
  *bytes = moved[face] * n * sizeof(float);
}

#include "batch_norm/batch_norm_op.inc"

CPU_DISPATCH(batch_norm_pool_forward)
CPU_DISPATCH(batch_norm_pool_backward)
CPU_DISPATCH(batch_norm_pool_backward_params)
CPU_DISPATCH(batch_norm_pool_jvp)
CPU_DISPATCH(batch_norm_pool_backward_jvp)
CPU_DISPATCH(batch_norm_pool_backward_jvp_params)
REF_PROTOS(batch_norm_pool);
CUDA_PROTOS(batch_norm_pool)

static const mica_kernel kernels[] = { BN_KERNELS(batch_norm_pool) };

static const mica_case cases[] = {
  { "B=3 T=3 H=4 W=2 C=5 eps=1e-2 act=relu", MICA_CASE_PACKED }, { "B=2 T=2 H=5 W=3 C=33 b=none", 0 },
  { "B=2 T=2 H=7 W=3 C=17 size=3 w=none act=relu", MICA_CASE_PACKED }, { "B=1 T=2 H=2 W=1 C=4 size=1 w=none b=none", 0 },
  { "B=1 T=1 H=1 W=3 C=2", 0 }, /* no square */
  { "B=2 T=2 H=4 W=4 C=68 act=relu", 0 }, { "B=1 T=3 H=20 W=14 C=2", 0 }, /* on CUDA two blocks of channels; two pieces */
  { "B=4 T=25 H=28 W=28 C=64 act=relu", MICA_CASE_BENCH }, { "B=4 T=25 H=7 W=7 C=64 act=relu", MICA_CASE_BENCH },
};

/* x (1, 3, 5, 7), eps 0: mean 4, variance 5; scaled by rstd = 1 / sqrt(5). w -1: the square takes x 1, h -3 rstd,
 * y = 3 rstd + b */
static const double ex_x[] = { 1, 3, 5, 7 }, ex_w[] = { -1 }, ex_b[] = { 0 }, ex_y[] = { 3 * 0.44721359549995793928 };
static const double ex_mean[] = { 4 }, ex_rstd[] = { 0.44721359549995793928 }, ex_d[] = { 1 };
/* w- = h; b- = 1; x- = -rstd ((1, 0, 0, 0) - 1/4 - h (h_1 / 4)), h = (-3, -1, 1, 3) rstd, h_1 = -3 rstd:
 * h h_1 = (9, 3, -3, -9) / 5 */
static const double ex_wd[] = { -3 * 0.44721359549995793928 }, ex_bd[] = { 1 };
static const double ex_xd[] = { -0.3 * 0.44721359549995793928, 0.4 * 0.44721359549995793928,
                                0.1 * 0.44721359549995793928, -0.2 * 0.44721359549995793928 };
static const mica_example_wire wires[] = {
  { "x.v", ex_x, 4, 0 },       { "w.v", ex_w, 1, 0 },       { "b.v", ex_b, 1, 0 },   { "y.d", ex_d, 1, 0 },
  { "y.v", ex_y, 1, 1 },       { "mean.v", ex_mean, 1, 1 }, { "rstd.v", ex_rstd, 1, 1 },
  { "x.d", ex_xd, 4, 1 },      { "w.d", ex_wd, 1, 1 },      { "b.d", ex_bd, 1, 1 },
};
static const mica_example example = { "B=1 T=1 H=2 W=2 C=1 eps=0 act=relu", wires, MICA_COUNT(wires) };

const mica_op mica_op_batch_norm_pool = {
  .size = sizeof(mica_op), .name = "batch_norm_pool", .doc = "batch norm, the largest of every square of pixels, and relu",
  .args_size = sizeof(mica_batch_norm_pool_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = settings,
  .n_params = MICA_COUNT(settings), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .infer = infer, .cost = cost,
};
