/* table of ridge */
#include "common/isa.h"
#include "common/ref.h"
#include "ridge/ridge_internal.h"

extern const mica_op mica_op_ridge;

#define AT(field) offsetof(mica_ridge_args, field)

static const mica_dim dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "I", AT(I) }, { "O", AT(O) } };
#define READS_IN MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
static const mica_operand operands[] = {
  { "x", "B R I", AT(x), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "features, a row for each example" },
  { "y", "B R O", AT(y), MICA_IN | MICA_OPTIONAL, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "targets" },
  { "label", "B R", AT(label), MICA_IN | MICA_INDEX | MICA_OPTIONAL, MICA_READS(MICA_V, MICA_V, MICA_V, MICA_V),
    MICA_WRITES_NONE, MICA_RANGE, "O", "the class whose target is 1; negative: none. exactly one of y and label" },
  { "ridge", "B", AT(ridge), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_POSITIVE, NULL, "strength of the penalty" },
  { "w", "B O I", AT(w), MICA_OUT, MICA_READS(0, MICA_V | MICA_D, MICA_V, MICA_V | MICA_T | MICA_D | MICA_TD),
    MICA_WRITES_OUT, MICA_ANY, NULL, "weights of the regression" },
};

static void cost(const void *args, int face, double *flop, double *bytes) {
  static const double times[MICA_NFACE] = { 1, 2, 2, 4 };
  const mica_ridge_args *a = args;
  const int32_t *offsets = micak_target_offsets(&a->x, &a->y, &a->label);
  double rows = (double)micak_all_rows(offsets, a->B, a->R), I = (double)a->I, O = (double)a->O;
  double each = a->B ? rows / (double)a->B : 0, n = each < I ? each : I;
  *flop = times[face] * (double)a->B * (n * n * (each + I) + 4 * n * each * O + 4 * each * I * O);
  *bytes = times[face] * (double)sizeof(float) * (rows * (I + O) + (double)a->B * I * O);
}

static void split_bit(const mica_ridge_args *a, int face, int bit, mica_split *s) {
  double flop, bytes;
  cost(a, face, &flop, &bytes);
  double each = a->B ? flop / (double)a->B : 1;
  s->units = micak_solve_units(a->B, bit, &a->w, &a->x, &a->y, &a->ridge);
  s->grain = each > 2e5 ? 1 : (int64_t)(2e5 / (each + 1)) + 1;
  s->scratch_bytes = ridge_doubles(a) * (int64_t)sizeof(double);
}
static void split_forward(const void *args, mica_split *s) { split_bit(args, MICA_FORWARD, MICA_V, s); }
static void split_backward(const void *args, mica_split *s) { split_bit(args, MICA_BACKWARD, MICA_D, s); }
static void split_jvp(const void *args, mica_split *s) { split_bit(args, MICA_JVP, MICA_T, s); }
static void split_backward_jvp(const void *args, mica_split *s) { split_bit(args, MICA_BACKWARD_JVP, MICA_TD, s); }

CPU_DISPATCH(ridge_forward)
CPU_DISPATCH(ridge_backward)
CPU_DISPATCH(ridge_jvp)
CPU_DISPATCH(ridge_backward_jvp)
REF_PROTOS(ridge);
static const mica_kernel kernels[] = {
  REF_KERNELS(ridge),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_ridge_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_ridge_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_ridge_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_ridge_backward_jvp_cpu, split_backward_jvp },
};

static const mica_case cases[] = {
  { "B=3 R=9 I=5 O=3 label=none", MICA_CASE_PACKED },
  { "B=2 R=4 I=11 O=2 y=none", MICA_CASE_PACKED },
  { "B=2 R=7 I=7 O=1 y=none", 0 },
  { "B=1 R=1 I=1 O=1 label=none", 0 },
  { "B=1 R=1 I=33 O=5 label=none", 0 },
  { "B=2 R=40 I=1 O=17 label=none", 0 },
  { "B=1 R=25 I=64 O=5 label=none", 0 },
  { "B=1 R=100 I=40 O=20 y=none", MICA_CASE_SLOW },
  { "B=64 R=25 I=64 O=5 y=none", MICA_CASE_BENCH },
  { "B=64 R=100 I=64 O=20 y=none", MICA_CASE_BENCH },
};

/* x = (1, 1), y = (1, 3), ridge = 2: G = 4, w = 4 / 4 = 1. w.d = 4: Q = 1, E = (0, 2), C = (1, 1):
 * x.d = E Q - C w = (-1, 1), y.d = C, ridge.d = -Q w = -1.
 * x.t = (1, 0): F = (-1, 0), w.t = (x.t E + x F) / 4 = -1/4; C' = (1, 0), Q.t = -(x.t C + x C') / 4 = -1/2;
 * E.t = (-1 + 1/4, 1/4), C.t = (1/2, -1/2): x.td = E.t Q + E Q.t - C.t w - C w.t = (-3/4 - 1/2 + 1/4, 1/4 - 1 + 1/2 + 1/4)
 * y.td = C.t, ridge.td = -(Q.t w + Q w.t) = 3/4 */
static const double x_v[2] = { 1, 1 }, y_v[2] = { 1, 3 }, ridge_v[1] = { 2 }, w_v[1] = { 1 }, w_d[1] = { 4 };
static const double x_d[2] = { -1, 1 }, y_d[2] = { 1, 1 }, ridge_d[1] = { -1 }, x_t[2] = { 1, 0 }, none[2] = { 0, 0 };
static const double w_t[1] = { -0.25 }, x_td[2] = { -1, 0 }, y_td[2] = { 0.5, -0.5 }, ridge_td[1] = { 0.75 };
static const mica_example_wire wires[] = {
  { "x.v", x_v, 2, 0 },   { "x.t", x_t, 2, 0 },   { "y.v", y_v, 2, 0 },   { "y.t", none, 2, 0 },
  { "ridge.v", ridge_v, 1, 0 }, { "ridge.t", none, 1, 0 }, { "w.d", w_d, 1, 0 }, { "w.td", none, 1, 0 },
  { "w.v", w_v, 1, 1 },   { "w.t", w_t, 1, 1 },   { "x.d", x_d, 2, 1 },   { "y.d", y_d, 2, 1 },
  { "ridge.d", ridge_d, 1, 1 }, { "x.td", x_td, 2, 1 }, { "y.td", y_td, 2, 1 }, { "ridge.td", ridge_td, 1, 1 },
};
static const mica_example example = { "B=1 R=2 I=1 O=1 label=none", wires, MICA_COUNT(wires) };

const mica_op mica_op_ridge = {
  .size = sizeof(mica_op), .name = "ridge", .doc = "weights of a ridge regression, with derivatives through the solution",
  .args_size = sizeof(mica_ridge_args), .dims = dims, .n_dims = MICA_COUNT(dims), .operands = operands,
  .n_operands = MICA_COUNT(operands), .kernels = kernels, .n_kernels = MICA_COUNT(kernels), .cases = cases,
  .n_cases = MICA_COUNT(cases), .example = &example, .budget = 4, .cost = cost,
};
