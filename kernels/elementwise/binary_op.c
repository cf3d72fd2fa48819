/* tables of the binary operations and of where */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "elementwise/binary_split_internal.h"

#define AT(field) offsetof(mica_binary_args, field)

static const mica_dim binary_dims[] = {
  { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) }, { "Rb", AT(Rb) }, { "Cb", AT(Cb) },
  { "Rm", AT(Rm) }, { "Cm", AT(Cm) },
};

/* ---- splits, shapes, cost ---- */

static void split_down(const mica_binary_args *a, int face, mica_split *split) {
  map_job job;
  *split = (mica_split){ .grain = 1 };
  if (!binary_job(a, 0, face, 0, &job)) return;
  micak_split_rows(a->y.offsets, a->B, a->R, map_kind(&job) != MAP_LOCAL, a->C, split);
}
static void split_local(const mica_binary_args *a, int face, mica_split *split) {
  *split = (mica_split){ .grain = 1, .rows = 1 };
  for (int k = 0; k < 2; k++) {
    map_job job;
    if (binary_job(a, 0, face, k, &job) && map_kind(&job) == MAP_LOCAL)
      micak_split_rows(a->y.offsets, a->B, a->R, 0, a->C, split);
  }
}
static void split_sums(const mica_binary_args *a, int face, mica_split *split) {
  *split = (mica_split){ .grain = 1 };
  for (int k = 0; k < 2; k++) {
    map_job job;
    if (binary_job(a, 0, face, k, &job)) split->units += map_sum_units(&job);
  }
}
static void binary_split_forward(const void *args, mica_split *split) { split_down(args, MICA_FORWARD, split); }
static void binary_split_jvp(const void *args, mica_split *split) { split_down(args, MICA_JVP, split); }
static void binary_split_backward(const void *args, mica_split *split) { split_local(args, MICA_BACKWARD, split); }
static void binary_split_backward_sums(const void *args, mica_split *split) { split_sums(args, MICA_BACKWARD, split); }
static void binary_split_backward_jvp(const void *args, mica_split *split) {
  split_local(args, MICA_BACKWARD_JVP, split);
}
static void binary_split_backward_jvp_sums(const void *args, mica_split *split) {
  split_sums(args, MICA_BACKWARD_JVP, split);
}

CUDA_SPLIT(cuda_split_backward, mica_binary_args,
           a->Rb == 1 && !a->b.offsets ? micak_sum_scratch(&a->b.d, a->B, a->Cb, SUM_CHUNK) : 0)
CUDA_SPLIT(cuda_split_backward_jvp, mica_binary_args,
           a->Rb == 1 && !a->b.offsets ? micak_sum_scratch(&a->b.td, a->B, a->Cb, SUM_CHUNK) : 0)

/* a size left open is that of a; else 1 or the same */
static mica_status fit(const char *what, const char *axis, int64_t *size, int64_t full) {
  if (*size < 0) *size = full;
  if (*size == full || *size == 1) return MICA_OK;
  return mica_error(MICA_ERR_SHAPE, "elementwise: %s has %lld %s, expected %lld (as a) or 1 (broadcast)", what,
                    (long long)*size, axis, (long long)full);
}
static mica_status binary_infer(void *args) {
  mica_binary_args *a = args;
  mica_status status = fit("b", "rows", &a->Rb, a->R);
  if (status >= 0) status = fit("b", "columns", &a->Cb, a->C);
  return status;
}
static mica_status where_infer(void *args) {
  mica_binary_args *a = args;
  mica_status status = binary_infer(args);
  if (status >= 0) status = fit("mask", "rows", &a->Rm, a->R);
  if (status >= 0) status = fit("mask", "columns", &a->Cm, a->C);
  return status;
}

static void binary_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_binary_args *a = args;
  static const double flop_each[MICA_NFACE] = { 1, 2, 3, 8 }, moved[MICA_NFACE] = { 2, 3, 2, 4 };
  static const double moved_b[MICA_NFACE] = { 1, 2, 2, 3 };
  double n = (double)micak_all_rows(a->a.offsets, a->B, a->R) * (double)a->C;
  double m = a->Rb == a->R && a->Cb == a->C ? n : (double)a->B * (double)a->Rb * (double)a->Cb;
  *flop = flop_each[face] * n;
  *bytes = (moved[face] * n + moved_b[face] * m) * sizeof(float);
}

#define CASES_OF(mask, mask1)                                                   \
  { "B=3 R=7 C=33 Rb=7 Cb=33" mask, MICA_CASE_PACKED },                         \
  { "B=3 R=7 C=33 Rb=1 Cb=33" mask, MICA_CASE_PACKED },                         \
  { "B=3 R=7 C=33 Rb=7 Cb=1" mask, MICA_CASE_PACKED },                          \
  { "B=3 R=7 C=9 Rb=1 Cb=1" mask1, MICA_CASE_PACKED },                          \
  { "B=2 R=1 C=1 Rb=1 Cb=1" mask1, 0 },                                         \
  { "B=21 R=2 C=3 Rb=1 Cb=3" mask1, 0 },                                        \
  { "B=2 R=70 C=1 Rb=1 Cb=1" mask1, 0 },                                        \
  { "B=1 R=66 C=520 Rb=1 Cb=520" mask1, MICA_CASE_SLOW },                       \
  { "B=64 R=82 C=256 Rb=82 Cb=256" mask1, MICA_CASE_BENCH },                    \
  { "B=64 R=82 C=256 Rb=1 Cb=256" mask1, MICA_CASE_BENCH }
static const mica_case binary_cases[] = { CASES_OF("", "") };
static const mica_case where_cases[] = {
  CASES_OF("", " Rm=1 Cm=1"), { "B=2 R=5 C=6 Rb=1 Cb=6 Rm=5 Cm=1", MICA_CASE_PACKED },
};

/* ---- one descriptor each ---- */

#define WIRES(name, face, value, tangent) \
  ((binary_reads_of(name, face) & (value) ? MICA_V : 0) | (binary_reads_of(name, face) & (tangent) ? MICA_T : 0))
/* binary_reads() as a constant expression */
#define binary_reads_of(name, face)                                                                                 \
  ((face) == MICA_FORWARD                                                                                           \
       ? (int)BINARY_BV | ((int)reads_##name & BINARY_ONLY_B ? 0 : (int)BINARY_AV) |                                \
             ((int)reads_##name & BINARY_MASK ? (int)BINARY_MV : 0)                                                 \
       : !((int)reads_##name & BINARY_FIRST)                                                                        \
             ? 0                                                                                                    \
             : ((int)reads_##name & BINARY_VALUES ? (int)BINARY_AV | (int)BINARY_BV : 0) |                          \
                   ((int)reads_##name & BINARY_MASK ? (int)BINARY_MV : 0) |                                         \
                   ((face) == MICA_JVP || ((face) == MICA_BACKWARD_JVP && ((int)reads_##name & BINARY_SECOND))      \
                        ? (int)BINARY_BT | ((int)reads_##name & BINARY_ONLY_B ? 0 : (int)BINARY_AT)                 \
                        : 0))
#define READS_OF(name, value, tangent)                                                                          \
  MICA_READS(WIRES(name, MICA_FORWARD, value, tangent), WIRES(name, MICA_BACKWARD, value, tangent),             \
             WIRES(name, MICA_JVP, value, tangent), WIRES(name, MICA_BACKWARD_JVP, value, tangent))
#define IF_1(name, wires) ((int)reads_##name & BINARY_FIRST ? (wires) : 0)
#define IF_2(name, wires) ((int)reads_##name & BINARY_SECOND ? (wires) : 0)

#define A_OPERAND(name) \
  { "a", "B R C", AT(a), MICA_IN, READS_OF(name, BINARY_AV, BINARY_AT), MICA_WRITES_IN, MICA_ANY, NULL, "left input" }
#define B_OPERAND(name, domain)                                                                                       \
  { "b", "B Rb Cb", AT(b), MICA_IN, READS_OF(name, BINARY_BV, BINARY_BT), MICA_WRITES_IN, domain, NULL,               \
    "right input; an axis of size 1 is broadcast" }
#define Y_OPERAND(name)                                                                                               \
  { "y", "B R C", AT(y), MICA_OUT, MICA_READS(0, IF_1(name, MICA_D), 0, IF_1(name, MICA_TD) | IF_2(name, MICA_D)),    \
    MICA_WRITES_OUT, MICA_ANY, NULL, "output" }
#define MASK_OPERAND                                                                                                  \
  { "mask", "B Rm Cm", AT(mask), MICA_INDEX, MICA_READS(MICA_V, MICA_V, MICA_V, MICA_V), MICA_WRITES_NONE, MICA_MASK, \
    NULL, "not 0: a; 0: b; an axis of size 1 is broadcast" }

#define KERNELS(name)                                                                                            \
  CPU_DISPATCH(name##_forward)                                                                                   \
  CPU_DISPATCH(name##_backward)                                                                                  \
  CPU_DISPATCH(name##_backward_sums)                                                                             \
  CPU_DISPATCH(name##_jvp)                                                                                       \
  CPU_DISPATCH(name##_backward_jvp)                                                                              \
  CPU_DISPATCH(name##_backward_jvp_sums)                                                                         \
  CUDA_PROTOS(name)                                                                                              \
  REF_PROTOS(name);                                                                                              \
  static const mica_kernel name##_kernels[] = {                                                                  \
    REF_KERNELS(name),                                                                                           \
    { MICA_CPU, MICA_F32, MICA_FORWARD, micak_##name##_forward_cpu, binary_split_forward },                      \
    { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_##name##_backward_cpu, binary_split_backward },                   \
    { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_##name##_backward_sums_cpu, binary_split_backward_sums },         \
    { MICA_CPU, MICA_F32, MICA_JVP, micak_##name##_jvp_cpu, binary_split_jvp },                                  \
    { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_##name##_backward_jvp_cpu, binary_split_backward_jvp },       \
    { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_##name##_backward_jvp_sums_cpu, binary_split_backward_jvp_sums }, \
    CUDA_KERNELS_WITH(name, MICA_F32, NULL, cuda_split_backward, NULL, cuda_split_backward_jvp)                  \
    CUDA_KERNELS_WITH(name, MICA_BF16, NULL, cuda_split_backward, NULL, cuda_split_backward_jvp)                 \
  };

#define DESCRIPTOR(name, text, count_dims, count_operands, list_cases, complete)                                 \
  extern const mica_op mica_op_##name;                                                                           \
  const mica_op        mica_op_##name = {                                                                        \
    sizeof(mica_op), #name, text, sizeof(mica_binary_args), binary_dims, NULL, name##_operands, name##_kernels,  \
    list_cases, &name##_example, count_dims, 0, count_operands, MICA_COUNT(name##_kernels), MICA_COUNT(list_cases), \
    2.0, complete, binary_cost };

/* the example: a = (a0, a1), b = b0 broadcast, tangents (1, 0) and 2, cotangent (1, 3), its tangent (0, 1). with fa, fb
 * ... at the two elements: y.t = fa (1, 0) + 2 fb; a.d = fa (1, 3); b.d = the sum of fb (1, 3); and so on */
static const double ex_at[2] = { 1, 0 }, ex_bt[1] = { 2 }, ex_d[2] = { 1, 3 }, ex_td[2] = { 0, 1 };
#define EXAMPLE(name, a0, a1, b0, y0, y1, yt0, yt1, ad0, ad1, bd, atd0, atd1, btd)                              \
  static const double name##_a[2] = { a0, a1 }, name##_b[1] = { b0 }, name##_y[2] = { y0, y1 };                 \
  static const double name##_yt[2] = { yt0, yt1 }, name##_ad[2] = { ad0, ad1 }, name##_bd[1] = { bd };          \
  static const double name##_atd[2] = { atd0, atd1 }, name##_btd[1] = { btd };                                  \
  static const mica_example_wire name##_wires[] = {                                                             \
    { "a.v", name##_a, 2, 0 },     { "a.t", ex_at, 2, 0 },        { "b.v", name##_b, 1, 0 },  { "b.t", ex_bt, 1, 0 }, \
    { "y.d", ex_d, 2, 0 },         { "y.td", ex_td, 2, 0 },       { "y.v", name##_y, 2, 1 },                     \
    { "y.t", name##_yt, 2, 1 },                                                                                 \
    { "a.d", name##_ad, 2, 1 },    { "b.d", name##_bd, 1, 1 },    { "a.td", name##_atd, 2, 1 },                 \
    { "b.td", name##_btd, 1, 1 },                                                                               \
  };                                                                                                            \
  static const mica_example name##_example = { "B=1 R=1 C=2 Rb=1 Cb=1", name##_wires, 12 };

#define BINARY_OP(name, domain, text, ...)                                                            \
  static const mica_operand name##_operands[] = { A_OPERAND(name), B_OPERAND(name, domain), Y_OPERAND(name) }; \
  EXAMPLE(name, __VA_ARGS__)                                                                          \
  KERNELS(name)                                                                                       \
  DESCRIPTOR(name, text, 5, 3, binary_cases, binary_infer)

BINARY_OP(add, MICA_ANY, "a + b", 1, 2, 4, 5, 6, 3, 2, 1, 3, 4, 0, 1, 1)
BINARY_OP(sub, MICA_ANY, "a - b", 1, 2, 4, -3, -2, -1, -2, 1, 3, -4, 0, 1, -1)
BINARY_OP(mul, MICA_ANY, "a b", 1, 2, 4, 4, 8, 6, 4, 4, 12, 7, 2, 10, 3)
/* fa = 1/4, fb = -a/16, fab = -1/16, fbb = a/32 */
BINARY_OP(div, MICA_POSITIVE, "a / b", 1, 2, 4, 0.25, 0.5, 0.125, -0.25, 0.25, 0.75, -0.4375, -0.125, -0.125, 0.25)
BINARY_OP(minimum, MICA_ANY, "the lesser of a and b; where equal, a", 1, 5, 4, 1, 4, 1, 2, 1, 0, 3, 0, 0, 1)
BINARY_OP(maximum, MICA_ANY, "the greater of a and b; where equal, a", 1, 5, 4, 4, 5, 2, 0, 0, 3, 1, 0, 1, 0)
BINARY_OP(expand, MICA_ANY, "b broadcast to the shape of a", 1, 2, 4, 4, 4, 2, 2, 0, 0, 4, 0, 0, 1)
BINARY_OP(lt, MICA_ANY, "1 where a < b, else 0; derivatives are zero", 1, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
BINARY_OP(le, MICA_ANY, "1 where a <= b, else 0; derivatives are zero", 4, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
BINARY_OP(gt, MICA_ANY, "1 where a > b, else 0; derivatives are zero", 4, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
BINARY_OP(ge, MICA_ANY, "1 where a >= b, else 0; derivatives are zero", 4, 3, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
BINARY_OP(eq, MICA_ANY, "1 where a = b, else 0; derivatives are zero", 4, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
BINARY_OP(ne, MICA_ANY, "1 where a is not b, else 0; derivatives are zero", 4, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)

static const mica_operand where_operands[] = {
  MASK_OPERAND, A_OPERAND(where), B_OPERAND(where, MICA_ANY), Y_OPERAND(where),
};
static const double where_mask[2] = { 1, 0 }, where_a[2] = { 1, 2 }, where_b[1] = { 4 }, where_y[2] = { 1, 4 };
static const double where_yt[2] = { 1, 2 }, where_ad[2] = { 1, 0 }, where_bd[1] = { 3 }, where_atd[2] = { 0, 0 };
static const double where_btd[1] = { 1 };
static const mica_example_wire where_wires[] = {
  { "mask.v", where_mask, 2, 0 }, { "a.v", where_a, 2, 0 },     { "a.t", ex_at, 2, 0 },      { "b.v", where_b, 1, 0 },
  { "b.t", ex_bt, 1, 0 },         { "y.d", ex_d, 2, 0 },        { "y.td", ex_td, 2, 0 },     { "y.v", where_y, 2, 1 },
  { "y.t", where_yt, 2, 1 },      { "a.d", where_ad, 2, 1 },    { "b.d", where_bd, 1, 1 },
  { "a.td", where_atd, 2, 1 },
  { "b.td", where_btd, 1, 1 },
};
static const mica_example where_example = { "B=1 R=1 C=2 Rb=1 Cb=1", where_wires, MICA_COUNT(where_wires) };
KERNELS(where)
DESCRIPTOR(where, "a where the mask is not 0, else b", 7, 4, where_cases, where_infer)
