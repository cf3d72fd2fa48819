/* tables of sum, mean, max, logsumexp */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "reduce/reduce_internal.h"

#define AT(field) offsetof(mica_reduce_args, field)

static const mica_dim reduce_dims[] = {
  { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) }, { "Ry", AT(Ry) }, { "Cy", AT(Cy) },
};
static const mica_param reduce_params[] = {
  { "axis", MICA_PARAM_CHOICE, AT(axis), 0, 0, 2, "row|column|all", "what is reduced: rows, columns, or both" },
};

static mica_status fit(int64_t *size, int64_t want, const char *name) {
  if (*size < 0) *size = want;
  if (*size == want) return MICA_OK;
  return mica_error(MICA_ERR_SHAPE, "reduction: %s is %lld, expected %lld for this axis", name, (long long)*size,
                    (long long)want);
}
static mica_status reduce_infer(void *args) {
  mica_reduce_args *a = args;
  mica_status status = fit(&a->Ry, a->axis == REDUCE_COLUMN ? a->R : 1, "Ry");
  return status < 0 ? status : fit(&a->Cy, a->axis == REDUCE_ROW ? a->C : 1, "Cy");
}

/* ---- splits and cost ---- */

static void split_map(const mica_reduce_args *a, int face, mica_split *split) {
  map_job job = reduce_job(a, face, 0, 0, NULL);
  *split = (mica_split){ .grain = 1 };
  if (!job.out.wire->data) return;
  if (map_kind(&job) == MAP_LOCAL) map_split_local(&job, split);
  else split->units = map_sum_units(&job);
}
static void split_cells(const mica_reduce_args *a, int face, mica_split *split) {
  const mica_wire *out = reduce_out(a, face);
  *split = (mica_split){ .grain = 1 };
  if (!out->data) return;
  if (a->axis == REDUCE_COLUMN)
    micak_split_rows(a->x.offsets, a->B, a->R,
                     micak_wire_sums(out, reduce_up(face) ? a->x.offsets : a->y.offsets, a->B), a->C, split);
  else split->units = a->B * reduce_blocks(a);
}
#define SPLITS(how)                                                                                               \
  static void how##_forward(const void *args, mica_split *split) { how(args, MICA_FORWARD, split); }              \
  static void how##_backward(const void *args, mica_split *split) { how(args, MICA_BACKWARD, split); }            \
  static void how##_jvp(const void *args, mica_split *split) { how(args, MICA_JVP, split); }                      \
  static void how##_backward_jvp(const void *args, mica_split *split) { how(args, MICA_BACKWARD_JVP, split); }
SPLITS(split_map)
SPLITS(split_cells)

CUDA_SPLIT(cuda_split_forward, mica_reduce_args,
           a->axis == REDUCE_COLUMN ? 0 : micak_sum_scratch(&a->y.v, a->B, a->Cy, SUM_CHUNK))
CUDA_SPLIT(cuda_split_jvp, mica_reduce_args,
           a->axis == REDUCE_COLUMN ? 0 : micak_sum_scratch(&a->y.t, a->B, a->Cy, SUM_CHUNK))

static void reduce_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_reduce_args *a = args;
  static const double moved[MICA_NFACE] = { 1, 1, 1, 1 };
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->R) * (double)a->C;
  *flop = n;
  *bytes = (moved[face] * n + (double)a->B * (double)a->Ry * (double)a->Cy) * sizeof(float);
}
static void weighted_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_reduce_args *a = args;
  static const double flop_each[MICA_NFACE] = { 20, 20, 20, 24 }, moved[MICA_NFACE] = { 1, 2, 2, 3 };
  double n = (double)micak_all_rows(a->x.offsets, a->B, a->R) * (double)a->C;
  *flop = flop_each[face] * n;
  *bytes = (moved[face] * n + (double)a->B * (double)a->Ry * (double)a->Cy) * sizeof(float);
}

/* ---- cases: nothing to reduce gives -inf in max and logsumexp, so that ragged rows are packed there by column ---- */

#define CASES                                                                               \
  { "B=3 R=7 C=33 axis=column", MICA_CASE_PACKED }, { "B=3 R=5 C=70 axis=row", 0 },         \
  { "B=2 R=7 C=9 axis=all", 0 }, { "B=2 R=1 C=1 axis=row", 0 }, { "B=2 R=1 C=1 axis=all", 0 }, \
  { "B=21 R=2 C=3 axis=row", 0 }, { "B=1 R=3 C=530 axis=column", 0 }, { "B=1 R=70 C=3 axis=row", 0 },                       \
  { "B=64 R=82 C=256 axis=row", MICA_CASE_BENCH }, { "B=64 R=82 C=256 axis=column", MICA_CASE_BENCH }
static const mica_case linear_cases[] = {
  CASES, { "B=3 R=7 C=9 axis=row", MICA_CASE_PACKED }, { "B=3 R=7 C=3 axis=all", MICA_CASE_PACKED },
};
static const mica_case top_cases[] = { CASES };

/* ---- examples: x = ((1, 2), (3, 4)) over rows, or columns; tangent ((1, 0), (2, 5)), cotangent 3, its tangent (1, 2)
 * ---- */

static const double ex_x[4] = { 1, 2, 3, 4 }, ex_t[4] = { 1, 0, 2, 5 }, ex_d[2] = { 3, 3 }, ex_td[2] = { 1, 2 };
#define EXAMPLE(name, set)                                                                                     \
  static const mica_example_wire name##_wires[] = {                                                            \
    { "x.v", name##_x, 4, 0 },   { "x.t", ex_t, 4, 0 },       { "y.d", ex_d, 2, 0 },      { "y.td", ex_td, 2, 0 }, \
    { "y.v", name##_y, 2, 1 },   { "y.t", name##_yt, 2, 1 },  { "x.d", name##_xd, 4, 1 },                      \
    { "x.td", name##_xtd, 4, 1 },                                                                              \
  };                                                                                                           \
  static const mica_example name##_example = { set, name##_wires, 8 };
#define sum_x ex_x
static const double sum_y[2] = { 4, 6 }, sum_yt[2] = { 3, 5 }, sum_xd[4] = { 3, 3, 3, 3 }, sum_xtd[4] = { 1, 2, 1, 2 };
EXAMPLE(sum, "B=1 R=2 C=2 axis=row")
#define mean_x ex_x
static const double mean_y[2] = { 1.5, 3.5 }, mean_yt[2] = { 0.5, 3.5 }, mean_xd[4] = { 1.5, 1.5, 1.5, 1.5 };
static const double mean_xtd[4] = { 0.5, 0.5, 1, 1 };
EXAMPLE(mean, "B=1 R=2 C=2 axis=column")
/* rows (2, 2) and (3, 4): the first of equals, and the second column */
static const double max_x[4] = { 2, 2, 3, 4 }, max_y[2] = { 2, 4 }, max_yt[2] = { 1, 5 }, max_xd[4] = { 3, 0, 0, 3 };
static const double max_xtd[4] = { 1, 0, 0, 2 };
EXAMPLE(max, "B=1 R=2 C=2 axis=column")
/* rows (0, 0): log 2, weights 1/2; and (0, log 3): log 4, weights 1/4 and 3/4. y.t = 1/2 and 1/4 2 + 3/4 5 = 4.25.
 * x.td = w (y.td + 3 (t - y.t)) */
static const double logsumexp_x[4] = { 0, 0, 0, 1.0986122886681098 };
static const double logsumexp_y[2] = { 0.6931471805599453, 1.3862943611198906 }, logsumexp_yt[2] = { 0.5, 4.25 };
static const double logsumexp_xd[4] = { 1.5, 1.5, 0.75, 2.25 };
static const double logsumexp_xtd[4] = { 1.25, -0.25, -1.1875, 3.1875 };
EXAMPLE(logsumexp, "B=1 R=2 C=2 axis=column")

/* ---- descriptors ---- */

#define KERNEL(name, FACE, face, split) { MICA_CPU, MICA_F32, FACE, micak_##name##_##face##_cpu, split##_##face }
#define REDUCE_OP(name, text, x_back, x_jvp, x_bjvp, y_back, y_jvp, y_bjvp, split_0, split_1, list_cases, cost)    \
  static const mica_operand name##_operands[] = {                                                                  \
    { "x", "B R C", AT(x), MICA_IN, MICA_READS(MICA_V, x_back, x_jvp, x_bjvp), MICA_WRITES_IN, MICA_ANY, NULL,     \
      "what is reduced" },                                                                                         \
    { "y", "B Ry Cy", AT(y), MICA_OUT, MICA_READS(0, y_back, y_jvp, y_bjvp), MICA_WRITES_OUT, MICA_ANY, NULL,      \
      "one value for each row (axis=column), column (axis=row) or task (axis=all)" },                              \
  };                                                                                                               \
  CPU_DISPATCH(name##_forward)                                                                                     \
  CPU_DISPATCH(name##_backward)                                                                                    \
  CPU_DISPATCH(name##_jvp)                                                                                         \
  CPU_DISPATCH(name##_backward_jvp)                                                                                \
  REF_PROTOS(name);                                                                                                \
  CUDA_PROTOS(name)                                                                                                \
  static const mica_kernel name##_kernels[] = {                                                                    \
    REF_KERNELS(name), KERNEL(name, MICA_FORWARD, forward, split_0), KERNEL(name, MICA_BACKWARD, backward, split_1),\
    KERNEL(name, MICA_JVP, jvp, split_1), KERNEL(name, MICA_BACKWARD_JVP, backward_jvp, split_1),                  \
    CUDA_KERNELS_WITH(name, MICA_F32, cuda_split_forward, NULL, cuda_split_jvp, NULL)                              \
    CUDA_KERNELS_WITH(name, MICA_BF16, cuda_split_forward, NULL, cuda_split_jvp, NULL)                             \
  };                                                                                                               \
  extern const mica_op mica_op_##name;                                                                             \
  const mica_op        mica_op_##name = {                                                                          \
    sizeof(mica_op), #name, text, sizeof(mica_reduce_args), reduce_dims, reduce_params, name##_operands, \
    name##_kernels, list_cases, &name##_example, 5, 1, 2, MICA_COUNT(name##_kernels),                  \
    MICA_COUNT(list_cases), 2.0, reduce_infer, cost };

REDUCE_OP(sum, "sum over rows, columns or both", 0, MICA_T, 0, MICA_D, 0, MICA_TD, split_map, split_map, linear_cases,
          reduce_cost)
REDUCE_OP(mean, "mean over rows, columns or both; each task by its own number of rows", 0, MICA_T, 0, MICA_D, 0,
          MICA_TD, split_map, split_map, linear_cases, reduce_cost)
REDUCE_OP(max, "largest over rows, columns or both; of equals the first takes the cotangent", MICA_V, MICA_V | MICA_T,
          MICA_V, MICA_D, 0, MICA_TD, split_cells, split_cells, top_cases, reduce_cost)
REDUCE_OP(logsumexp, "log of the sum of e^x over rows, columns or both", MICA_V, MICA_V | MICA_T, MICA_V | MICA_T,
          MICA_V | MICA_D, MICA_V, MICA_V | MICA_T | MICA_D | MICA_TD, split_cells, split_map, top_cases, weighted_cost)
