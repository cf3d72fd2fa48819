/* table of logistic */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "logistic/logistic_internal.h"

extern const mica_op mica_op_logistic;

typedef mica_logistic_args closed_form_args;

/* a forward of 8 steps, as 5 classes of 25 rows take */
static void cost(const void *args, int face, double *flop, double *bytes) {
  static const double times[MICA_NFACE] = { 8, 2, 2, 4 };
  const closed_form_args *a = args;
  const int32_t *offsets = micak_target_offsets(&a->x, &a->y, &a->label);
  double rows = (double)micak_all_rows(offsets, a->B, a->R), I = (double)a->I, O = (double)a->O;
  double each = a->B ? rows / (double)a->B : 0, n = each < I ? each : I;
  *flop = times[face] * (double)a->B * O * (n * n * (each + I) + 8 * each * I);
  *bytes = (double)sizeof(float) * (rows * (I + O) + (double)a->B * I * O);
}

/* one row x = 1 with y = 1 and ridge = 1 - s(1), s the sigmoid: w = 1, e = s - 1 = -ridge, d = s (1 - s), H = d + ridge,
 * w.t = -(d + e) / H, w.d = 1: q = c = 1 / H; the rest by README.md's lines */
static const double x_v[1] = { 1 }, y_v[1] = { 1 }, ridge_v[1] = { 0.2689414213699951 }, w_v[1] = { 1 }, w_d[1] = { 1 };
static const double x_t[1] = { 1 }, none[1] = { 0 }, w_t[1] = { 0.1553624034969636 }, x_d[1] = { 0.15536240349696356 };
static const double y_d[1] = { 2.147981515103764 }, ridge_d[1] = { -2.147981515103764 };
static const double x_td[1] = { -0.8465747095853529 };
static const double y_td[1] = { 0.8180454664565697 }, ridge_td[1] = { 0.9962204777936239 };

#define Y_DOC "targets, 1 in the class and 0 out of it"
#define W_DOC "weights of the regressions"
#define TASK_DOUBLES logistic_doubles
#include "common/closed_form_op.inc"

CPU_FACES(logistic)
REF_PROTOS(logistic);
CUDA_PROTOS(logistic)
CUDA_SPLIT_PROTOS(logistic)
static const mica_kernel kernels[] = {
  REF_KERNELS(logistic),
  CPU_KERNELS(logistic),
  CUDA_KERNELS_SPLIT(logistic, MICA_F32)
  CUDA_KERNELS_SPLIT(logistic, MICA_BF16)
};

static const mica_case cases[] = {
  { "B=3 R=9 I=5 O=3 label=none", MICA_CASE_PACKED },
  { "B=2 R=4 I=11 O=2 y=none", MICA_CASE_PACKED },
  { "B=2 R=7 I=7 O=1 y=none", 0 },
  { "B=1 R=1 I=1 O=1 label=none", 0 },
  { "B=1 R=1 I=33 O=5 label=none", 0 },
  { "B=2 R=40 I=1 O=9 label=none", 0 },
  { "B=1 R=25 I=64 O=5 y=none", 0 },
  { "B=2 R=920 I=14 O=1 label=none", 0 },    /* more than shared memory holds */
  { "B=1 R=100 I=40 O=20 y=none", MICA_CASE_SLOW },
  { "B=64 R=25 I=64 O=5 y=none", MICA_CASE_BENCH },
};

static const mica_example example = { "B=1 R=1 I=1 O=1 label=none", wires, MICA_COUNT(wires) };

const mica_op mica_op_logistic = {
  .size = sizeof(mica_op), .name = "logistic",
  .doc = "weights of logistic regressions by Newton's method, with derivatives through the solution",
  .args_size = sizeof(mica_logistic_args), .dims = dims, .n_dims = MICA_COUNT(dims), .operands = operands,
  .n_operands = MICA_COUNT(operands), .kernels = kernels, .n_kernels = MICA_COUNT(kernels), .cases = cases,
  .n_cases = MICA_COUNT(cases), .example = &example, .budget = 4, .cost = cost,
};
