/* table of ridge */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "ridge/ridge_internal.h"

extern const mica_op mica_op_ridge;

typedef mica_ridge_args closed_form_args;

static void cost(const void *args, int face, double *flop, double *bytes) {
  static const double times[MICA_NFACE] = { 1, 2, 2, 4 };
  const closed_form_args *a = args;
  const int32_t *offsets = micak_target_offsets(&a->x, &a->y, &a->label);
  double rows = (double)micak_all_rows(offsets, a->B, a->R), I = (double)a->I, O = (double)a->O;
  double each = a->B ? rows / (double)a->B : 0, n = each < I ? each : I;
  *flop = times[face] * (double)a->B * (n * n * (each + I) + 4 * n * each * O + 4 * each * I * O);
  *bytes = times[face] * (double)sizeof(float) * (rows * (I + O) + (double)a->B * I * O);
}

/* x = (1, 1), y = (1, 3), ridge = 2: G = 4, w = 4 / 4 = 1. w.d = 4: Q = 1, E = (0, 2), C = (1, 1):
 * x.d = E Q - C w = (-1, 1), y.d = C, ridge.d = -Q w = -1.
 * x.t = (1, 0): F = (-1, 0), w.t = (x.t E + x F) / 4 = -1/4; C' = (1, 0), Q.t = -(x.t C + x C') / 4 = -1/2;
 * E.t = (-1 + 1/4, 1/4), C.t = (1/2, -1/2): x.td = E.t Q + E Q.t - C.t w - C w.t = (-3/4 - 1/2 + 1/4, 1/4 - 1 + 1/2 + 1/4)
 * y.td = C.t, ridge.td = -(Q.t w + Q w.t) = 3/4 */
static const double x_v[2] = { 1, 1 }, y_v[2] = { 1, 3 }, ridge_v[1] = { 2 }, w_v[1] = { 1 }, w_d[1] = { 4 };
static const double x_d[2] = { -1, 1 }, y_d[2] = { 1, 1 }, ridge_d[1] = { -1 }, x_t[2] = { 1, 0 }, none[2] = { 0, 0 };
static const double w_t[1] = { -0.25 }, x_td[2] = { -1, 0 }, y_td[2] = { 0.5, -0.5 }, ridge_td[1] = { 0.75 };

#define Y_DOC "targets"
#define W_DOC "weights of the regression"
#define TASK_DOUBLES ridge_doubles
#include "common/closed_form_op.inc"

CPU_FACES(ridge)
REF_PROTOS(ridge);
CUDA_PROTOS(ridge)
CUDA_SPLIT_PROTOS(ridge)
static const mica_kernel kernels[] = {
  REF_KERNELS(ridge),
  CPU_KERNELS(ridge),
  CUDA_KERNELS_SPLIT(ridge, MICA_F32)
  CUDA_KERNELS_SPLIT(ridge, MICA_BF16)
};

static const mica_case cases[] = {
  { "B=3 R=9 I=5 O=3 label=none", MICA_CASE_PACKED },
  { "B=2 R=4 I=11 O=2 y=none", MICA_CASE_PACKED },
  { "B=2 R=7 I=7 O=1 y=none", 0 },
  { "B=1 R=1 I=1 O=1 label=none", 0 },
  { "B=1 R=1 I=33 O=5 label=none", 0 },
  { "B=2 R=40 I=1 O=17 label=none", 0 },
  { "B=1 R=25 I=64 O=5 label=none", 0 },
  { "B=2 R=1500 I=14 O=1 label=none", 0 },   /* more than shared memory holds */
  { "B=1 R=100 I=40 O=20 y=none", MICA_CASE_SLOW },
  { "B=64 R=25 I=64 O=5 y=none", MICA_CASE_BENCH },
  { "B=64 R=100 I=64 O=20 y=none", MICA_CASE_BENCH },
};

static const mica_example example = { "B=1 R=2 I=1 O=1 label=none", wires, MICA_COUNT(wires) };

const mica_op mica_op_ridge = {
  .size = sizeof(mica_op), .name = "ridge", .doc = "weights of a ridge regression, with derivatives through the solution",
  .args_size = sizeof(mica_ridge_args), .dims = dims, .n_dims = MICA_COUNT(dims), .operands = operands,
  .n_operands = MICA_COUNT(operands), .kernels = kernels, .n_kernels = MICA_COUNT(kernels), .cases = cases,
  .n_cases = MICA_COUNT(cases), .example = &example, .budget = 4, .cost = cost,
};
