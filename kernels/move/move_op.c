/* tables of concat, slice, transpose, gather and scatter_add */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "move/move_internal.h"

/* ---- shared by all: linear faces, a split for each face, kernels ---- */

#define X_OPERAND(name, shape, at, doc) \
  { name, shape, at, MICA_IN, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY, NULL, doc }
#define Y_OPERAND(shape, at, doc) \
  { "y", shape, at, MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL, doc }
#define INDEX_OPERAND(at)                                                                                             \
  { "index", "B R", at, MICA_INDEX, MICA_READS(MICA_V, MICA_V, MICA_V, MICA_V), MICA_WRITES_NONE, MICA_RANGE, "V",    \
    "row of the table, 0 <= index < V; -1: none" }
#define SPLITS(name)                                                                                             \
  static void name##_split_forward(const void *args, mica_split *split) { name##_split(args, MICA_FORWARD, split); } \
  static void name##_split_backward(const void *args, mica_split *split) { name##_split(args, MICA_BACKWARD, split); } \
  static void name##_split_jvp(const void *args, mica_split *split) { name##_split(args, MICA_JVP, split); }      \
  static void name##_split_backward_jvp(const void *args, mica_split *split) {                                   \
    name##_split(args, MICA_BACKWARD_JVP, split);                                                                \
  }
#define KERNELS(name)                                                                                        \
  CPU_DISPATCH(name##_forward)                                                                               \
  CPU_DISPATCH(name##_backward)                                                                              \
  CPU_DISPATCH(name##_jvp)                                                                                   \
  CPU_DISPATCH(name##_backward_jvp)                                                                          \
  CUDA_PROTOS(name)                                                                                          \
  REF_PROTOS(name);                                                                                          \
  static const mica_kernel name##_kernels[] = {                                                              \
    REF_KERNELS(name),                                                                                       \
    { MICA_CPU, MICA_F32, MICA_FORWARD, micak_##name##_forward_cpu, name##_split_forward },                  \
    { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_##name##_backward_cpu, name##_split_backward },               \
    { MICA_CPU, MICA_F32, MICA_JVP, micak_##name##_jvp_cpu, name##_split_jvp },                              \
    { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_##name##_backward_jvp_cpu, name##_split_backward_jvp },   \
    CUDA_ROWS_##name(MICA_F32) CUDA_ROWS_##name(MICA_BF16)                                                   \
  };
#define DESCRIPTOR(name, text, type, dims, list_params, count_params, infer, cost)                               \
  SPLITS(name)                                                                                                   \
  KERNELS(name)                                                                                                  \
  extern const mica_op mica_op_##name;                                                                           \
  const mica_op        mica_op_##name = {                                                                        \
    sizeof(mica_op), #name, text, sizeof(type), dims, list_params, name##_operands, name##_kernels, name##_cases, \
    &name##_example, MICA_COUNT(dims), count_params, MICA_COUNT(name##_operands), MICA_COUNT(name##_kernels),    \
    MICA_COUNT(name##_cases), 2.0, infer, cost };

#define CUDA_ROWS_concat(dtype) CUDA_KERNELS(concat, dtype)
#define CUDA_ROWS_slice(dtype) CUDA_KERNELS(slice, dtype)
#define CUDA_ROWS_transpose(dtype) CUDA_KERNELS(transpose, dtype)

static mica_status fit(const char *what, int64_t *size, int64_t want) {
  if (*size < 0) *size = want;
  if (*size == want) return MICA_OK;
  return mica_error(MICA_ERR_SHAPE, "%s is %lld, expected %lld", what, (long long)*size, (long long)want);
}
static void moved(double elements, double *flop, double *bytes) {
  *flop = 0;
  *bytes = 2 * elements * sizeof(float);
}
static const double ones[6] = { 1, 1, 1, 1, 1, 1 };

/* ---- concat ---- */

#define AT(field) offsetof(mica_concat_args, field)
static const mica_dim concat_dims[] = {
  { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) }, { "Ra", AT(Ra) }, { "Ca", AT(Ca) },
  { "Rb", AT(Rb) }, { "Cb", AT(Cb) },
};
static const mica_param concat_params[] = {
  { "axis", MICA_PARAM_CHOICE, AT(axis), 1, 0, 1, "row|column", "along which a and b are put together" },
};
static const mica_operand concat_operands[] = {
  X_OPERAND("a", "B Ra Ca", AT(a), "first part"),
  X_OPERAND("b", "B Rb Cb", AT(b), "second part"),
  Y_OPERAND("B R C", AT(y), "both"),
};
static mica_status concat_infer(void *args) {
  mica_concat_args *a = args;
  int         column = a->axis == MOVE_COLUMN;
  mica_status status = column ? fit("concat: rows of b", &a->Rb, a->Ra) : fit("concat: columns of b", &a->Cb, a->Ca);
  if (status >= 0) status = fit("concat: rows of y", &a->R, column ? a->Ra : a->Ra + a->Rb);
  return status < 0 ? status : fit("concat: columns of y", &a->C, column ? a->Ca + a->Cb : a->Ca);
}
static void concat_split(const mica_concat_args *a, int face, mica_split *split) {
  move_job   job[2];
  mica_split part[2];
  for (int k = 0; k < 2; k++) job[k] = concat_job(a, face, k), move_split(&job[k], &part[k]);
  *split = part[job[0].out->data ? 0 : 1];
  if (!move_up(face) || !job[0].out->data || !job[1].out->data || concat_together(job, part)) return;
  *split = (mica_split){ .units = part[0].units + part[1].units,
                         .grain = part[0].grain < part[1].grain ? part[0].grain : part[1].grain };
}
static void concat_cost(const void *args, int face, double *flop, double *bytes) {
  (void)face;
  const mica_concat_args *a = args;
  moved((double)micak_all_rows(a->y.offsets, a->B, a->R) * (double)a->C, flop, bytes);
}
static const mica_case concat_cases[] = {
  { "B=3 Ra=7 Ca=33 Rb=7 Cb=5", MICA_CASE_PACKED }, { "B=3 Ra=4 Ca=9 Rb=3 Cb=9 axis=row", 0 },
  { "B=2 Ra=1 Ca=1 Rb=1 Cb=1 axis=row", 0 },        { "B=64 Ra=82 Ca=128 Rb=82 Cb=128", MICA_CASE_BENCH },
};
static const double concat_a[2] = { 1, 2 }, concat_b[1] = { 3 }, concat_y[3] = { 1, 2, 3 }, concat_d[3] = { 4, 5, 6 };
static const double concat_ad[2] = { 4, 5 }, concat_bd[1] = { 6 }, concat_td[3] = { 7, 8, 9 }, concat_atd[2] = { 7, 8 };
static const double concat_btd[1] = { 9 }, concat_yt[3] = { 3, 1, 1 }, concat_at[2] = { 3, 1 };
static const mica_example_wire concat_wires[] = {
  { "a.v", concat_a, 2, 0 },  { "a.t", concat_at, 2, 0 }, { "b.v", concat_b, 1, 0 },   { "b.t", ones, 1, 0 },
  { "y.d", concat_d, 3, 0 },  { "y.td", concat_td, 3, 0 }, { "y.v", concat_y, 3, 1 },  { "y.t", concat_yt, 3, 1 },
  { "a.d", concat_ad, 2, 1 }, { "b.d", concat_bd, 1, 1 }, { "a.td", concat_atd, 2, 1 }, { "b.td", concat_btd, 1, 1 },
};
static const mica_example concat_example = { "B=1 Ra=1 Ca=2 Rb=1 Cb=1", concat_wires, MICA_COUNT(concat_wires) };
DESCRIPTOR(concat, "a and b side by side (axis=column) or one after the other (axis=row)", mica_concat_args,
           concat_dims, concat_params, 1, concat_infer, concat_cost)
#undef AT

/* ---- slice ---- */

#define AT(field) offsetof(mica_slice_args, field)
static const mica_dim slice_dims[] = {
  { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) }, { "Ry", AT(Ry) }, { "Cy", AT(Cy) },
};
static const mica_param slice_params[] = {
  { "row", MICA_PARAM_INT, AT(row), 0, 0, 1e15, NULL, "first row" },
  { "column", MICA_PARAM_INT, AT(column), 0, 0, 1e15, NULL, "first column" },
  { "step", MICA_PARAM_INT, AT(step), 1, 1, 1e15, NULL, "distance of rows" },
};
static const mica_operand slice_operands[] = {
  X_OPERAND("x", "B R C", AT(x), "whole"),
  Y_OPERAND("B Ry Cy", AT(y), "part"),
};
static mica_status slice_infer(void *args) {
  mica_slice_args *a = args;
  if (a->row < 0 || a->column < 0 || a->step < 1 || a->row > a->R || a->column > a->C)
    return mica_error(MICA_ERR_SHAPE, "slice: begins at row %lld, column %lld with step %lld, x has %lld rows, "
                      "%lld columns", (long long)a->row, (long long)a->column, (long long)a->step,
                      (long long)a->R, (long long)a->C);
  if (a->Ry < 0) a->Ry = (a->R - a->row + a->step - 1) / a->step;
  if (a->Cy < 0) a->Cy = a->C - a->column;
  if (a->column + a->Cy > a->C || (a->Ry && a->row + (a->Ry - 1) * a->step >= a->R))
    return mica_error(MICA_ERR_SHAPE, "slice: %lld rows and %lld columns from row %lld, column %lld with step %lld do "
                      "not fit in %lld rows, %lld columns", (long long)a->Ry, (long long)a->Cy, (long long)a->row,
                      (long long)a->column, (long long)a->step, (long long)a->R, (long long)a->C);
  return MICA_OK;
}
static void slice_split(const mica_slice_args *a, int face, mica_split *split) {
  move_job job = slice_job(a, face);
  move_split(&job, split);
}
static void slice_cost(const void *args, int face, double *flop, double *bytes) {
  (void)face;
  const mica_slice_args *a = args;
  moved((double)micak_all_rows(a->y.offsets, a->B, a->Ry) * (double)a->Cy, flop, bytes);
}
static const mica_case slice_cases[] = {
  { "B=3 R=7 C=33 column=4 Cy=20", MICA_CASE_PACKED },
  { "B=3 R=7 C=9 row=1 step=2", 0 },
  { "B=2 R=5 C=3 row=2 column=1 Cy=1", 0 },
  { "B=2 R=1 C=1", 0 },
  { "B=64 R=82 C=256 step=2", MICA_CASE_BENCH },
};
/* every second row, the second column on */
static const double slice_x[6] = { 1, 2, 3, 4, 5, 6 }, slice_y[2] = { 2, 6 };
static const double slice_d[2] = { 7, 8 }, slice_td[2] = { 3, 5 };
static const double slice_xd[6] = { 0, 7, 0, 0, 0, 8 }, slice_xtd[6] = { 0, 3, 0, 0, 0, 5 };
static const mica_example_wire slice_wires[] = {
  { "x.v", slice_x, 6, 0 }, { "x.t", ones, 6, 0 }, { "y.d", slice_d, 2, 0 },  { "y.td", slice_td, 2, 0 },
  { "y.v", slice_y, 2, 1 }, { "y.t", ones, 2, 1 }, { "x.d", slice_xd, 6, 1 }, { "x.td", slice_xtd, 6, 1 },
};
static const mica_example slice_example = { "B=1 R=3 C=2 column=1 step=2", slice_wires, MICA_COUNT(slice_wires) };
DESCRIPTOR(slice, "rows and columns of x from a first one on", mica_slice_args, slice_dims, slice_params, 3,
           slice_infer, slice_cost)
#undef AT

/* ---- transpose ---- */

#define AT(field) offsetof(mica_transpose_args, field)
static const mica_dim transpose_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) } };
static const mica_operand transpose_operands[] = {
  X_OPERAND("x", "B R C", AT(x), "rows"),
  Y_OPERAND("B C R", AT(y), "its columns as rows"),
};
static void transpose_split(const mica_transpose_args *a, int face, mica_split *split) {
  move_job job = transpose_job(a, face);
  move_split(&job, split);
}
static void transpose_cost(const void *args, int face, double *flop, double *bytes) {
  (void)face;
  const mica_transpose_args *a = args;
  moved((double)a->B * (double)a->R * (double)a->C, flop, bytes);
}
static const mica_case transpose_cases[] = {
  { "B=3 R=7 C=33", 0 }, { "B=2 R=1 C=1", 0 }, { "B=2 R=40 C=3", 0 }, { "B=64 R=82 C=256", MICA_CASE_BENCH },
};
static const double transpose_x[4] = { 1, 2, 3, 4 }, transpose_y[4] = { 1, 3, 2, 4 };
static const double transpose_d[4] = { 5, 6, 7, 8 }, transpose_xd[4] = { 5, 7, 6, 8 };
static const mica_example_wire transpose_wires[] = {
  { "x.v", transpose_x, 4, 0 }, { "x.t", transpose_d, 4, 0 },  { "y.d", transpose_d, 4, 0 },
  { "y.td", transpose_x, 4, 0 }, { "y.v", transpose_y, 4, 1 }, { "y.t", transpose_xd, 4, 1 },
  { "x.d", transpose_xd, 4, 1 }, { "x.td", transpose_y, 4, 1 },
};
static const mica_example transpose_example = { "B=1 R=2 C=2", transpose_wires, MICA_COUNT(transpose_wires) };
DESCRIPTOR(transpose, "the two inner axes exchanged", mica_transpose_args, transpose_dims, NULL, 0, NULL,
           transpose_cost)
#undef AT

/* ---- gather, scatter_add ---- */

#define AT(field) offsetof(mica_gather_args, field)
static const mica_dim gather_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "V", AT(V) }, { "C", AT(C) } };
static const mica_operand gather_operands[] = {
  X_OPERAND("x", "B V C", AT(x), "table of rows"),
  INDEX_OPERAND(AT(index)),
  Y_OPERAND("B R C", AT(y), "row index[r] of the table; zeros for -1"),
};
static const mica_operand scatter_add_operands[] = {
  X_OPERAND("x", "B R C", AT(x), "rows"),
  INDEX_OPERAND(AT(index)),
  Y_OPERAND("B V C", AT(y), "sum of the rows with each index"),
};
static void index_split(const mica_gather_args *a, int scatter, int face, mica_split *split) {
  move_job job = gather_job(a, scatter, face);
  move_split(&job, split);
  if (!gather_pulls(scatter, face) && job.out->data)
    *split = (mica_split){ .units = a->B * ((a->C + MOVE_BLOCK - 1) / MOVE_BLOCK), .grain = 1 };
}
static void gather_split(const mica_gather_args *a, int face, mica_split *split) { index_split(a, 0, face, split); }
static void scatter_add_split(const mica_gather_args *a, int face, mica_split *split) {
  index_split(a, 1, face, split);
}
/* CUDA adds to the table in parts */
#define TABLE_SCRATCH(wire) micak_sum_scratch(&a->wire, a->B, a->V * a->C, micak_index_chunk(a->V))
CUDA_SPLIT(cuda_gather_backward, mica_gather_args, TABLE_SCRATCH(x.d))
CUDA_SPLIT(cuda_gather_backward_jvp, mica_gather_args, TABLE_SCRATCH(x.td))
CUDA_SPLIT(cuda_scatter_forward, mica_gather_args, TABLE_SCRATCH(y.v))
CUDA_SPLIT(cuda_scatter_jvp, mica_gather_args, TABLE_SCRATCH(y.t))
#define CUDA_ROWS_gather(dtype) \
  CUDA_KERNELS_WITH(gather, dtype, NULL, cuda_gather_backward, NULL, cuda_gather_backward_jvp)
#define CUDA_ROWS_scatter_add(dtype) \
  CUDA_KERNELS_WITH(scatter_add, dtype, cuda_scatter_forward, NULL, cuda_scatter_jvp, NULL)
static mica_status scatter_add_infer(void *args) {
  const mica_gather_args *a = args;
  if (a->V >= 0) return MICA_OK;
  return mica_error(MICA_ERR_SHAPE, "scatter_add: the number of rows of y is not known; set V=...");
}
static void gather_cost(const void *args, int face, double *flop, double *bytes) {
  (void)face;
  const mica_gather_args *a = args;
  moved((double)micak_all_rows(a->index.offsets, a->B, a->R) * (double)a->C, flop, bytes);
}
#define INDEX_CASES                                                                                          \
  { { "B=3 R=7 V=5 C=33", MICA_CASE_PACKED }, { "B=2 R=1 V=1 C=1", 0 }, { "B=2 R=40 V=3 C=70", 0 },           \
    { "B=21 R=3 V=5 C=6", 0 },                                                                               \
    { "B=64 R=41 V=82 C=256", MICA_CASE_BENCH } }
static const mica_case gather_cases[] = INDEX_CASES;
static const mica_case scatter_add_cases[] = INDEX_CASES;
/* table ((1), (2)), index (1, -1, 1); and the same upside down */
static const double table[2] = { 1, 2 }, picks[3] = { 1, -1, 1 }, picked[3] = { 2, 0, 2 }, rows[3] = { 5, 6, 7 };
static const double added[2] = { 0, 12 }, one_to[2] = { 0, 2 }, pick_ones[3] = { 1, 0, 1 };
static const mica_example_wire gather_wires[] = {
  { "x.v", table, 2, 0 },   { "x.t", ones, 2, 0 },      { "index.v", picks, 3, 0 }, { "y.d", rows, 3, 0 },
  { "y.td", ones, 3, 0 },   { "y.v", picked, 3, 1 },    { "y.t", pick_ones, 3, 1 }, { "x.d", added, 2, 1 },
  { "x.td", one_to, 2, 1 },
};
static const mica_example gather_example = { "B=1 R=3 V=2 C=1", gather_wires, MICA_COUNT(gather_wires) };
static const mica_example_wire scatter_add_wires[] = {
  { "x.v", rows, 3, 0 },    { "x.t", ones, 3, 0 },      { "index.v", picks, 3, 0 }, { "y.d", table, 2, 0 },
  { "y.td", ones, 2, 0 },   { "y.v", added, 2, 1 },     { "y.t", one_to, 2, 1 },    { "x.d", picked, 3, 1 },
  { "x.td", pick_ones, 3, 1 },
};
static const mica_example scatter_add_example = { "B=1 R=3 V=2 C=1", scatter_add_wires, MICA_COUNT(scatter_add_wires) };
DESCRIPTOR(gather, "rows of a table by index", mica_gather_args, gather_dims, NULL, 0, NULL, gather_cost)
DESCRIPTOR(scatter_add, "rows added to a table of zeros by index", mica_gather_args, gather_dims, NULL, 0,
           scatter_add_infer, gather_cost)
