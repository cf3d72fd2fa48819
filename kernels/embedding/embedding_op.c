/* table of embedding */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "embedding/embedding_internal.h"

extern const mica_op mica_op_embedding;

#define AT(field) offsetof(mica_embedding_args, field)
static const mica_dim embedding_dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "V", AT(V) }, { "C", AT(C) } };

static void split_rows(const mica_embedding_args *a, int bit, mica_split *split) {
  const mica_port *outputs[] = { &a->y };
  micak_split_rows(a->tokens.offsets, a->B, a->R, micak_ports_sum(outputs, 1, bit, a->B), 2 * a->C, split);
  split->scratch_bytes = (size_t)a->C * sizeof(float);
}
static void split_forward(const void *args, mica_split *split) { split_rows(args, MICA_V, split); }
static void split_jvp(const void *args, mica_split *split) { split_rows(args, MICA_T, split); }
static void split_table(const mica_embedding_args *a, const mica_wire *table, mica_split *split) {
  int64_t blocks = (a->C + EMBEDDING_BLOCK - 1) / EMBEDDING_BLOCK;
  *split = (mica_split){ .units = micak_groups(table, a->B) * blocks, .grain = 1 };
}
static void split_backward(const void *args, mica_split *split) {
  const mica_embedding_args *a = args;
  split_table(a, &a->w.d, split);
}
static void split_backward_jvp(const void *args, mica_split *split) {
  const mica_embedding_args *a = args;
  split_table(a, &a->w.td, split);
}

CUDA_SPLIT(cuda_split_backward, mica_embedding_args,
           micak_sum_scratch(&a->w.d, a->B, a->V * a->C, micak_index_chunk(a->V)))
CUDA_SPLIT(cuda_split_backward_jvp, mica_embedding_args,
           micak_sum_scratch(&a->w.td, a->B, a->V * a->C, micak_index_chunk(a->V)))

static void embedding_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_embedding_args *a = args;
  double n = (double)micak_all_rows(a->tokens.offsets, a->B, a->R) * (double)a->C;
  int up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  *flop = up ? n : 0;
  *bytes = (2 * n + (up ? (double)micak_groups(face == MICA_BACKWARD ? &a->w.d : &a->w.td, a->B) * (double)(a->V * a->C)
                        : 0)) * sizeof(float);
}

static const mica_operand embedding_operands[] = {
  { "tokens", "B R", AT(tokens), MICA_IN | MICA_INDEX, MICA_READS(MICA_V, MICA_V, MICA_V, MICA_V), MICA_WRITES_NONE,
    MICA_RANGE, "V", "row of the table for each row" },
  { "w", "B V C", AT(w), MICA_IN | MICA_PARAM, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY, NULL,
    "the table" },
  { "y", "B R C", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "looked up rows" },
};

CPU_DISPATCH(embedding_forward)
CPU_DISPATCH(embedding_backward)
CPU_DISPATCH(embedding_jvp)
CPU_DISPATCH(embedding_backward_jvp)
REF_PROTOS(embedding);
CUDA_PROTOS(embedding)
static const mica_kernel embedding_kernels[] = {
  REF_KERNELS(embedding),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_embedding_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_embedding_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_embedding_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_embedding_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS_WITH(embedding, MICA_F32, NULL, cuda_split_backward, NULL, cuda_split_backward_jvp)
  CUDA_KERNELS_WITH(embedding, MICA_BF16, NULL, cuda_split_backward, NULL, cuda_split_backward_jvp)
};
static const mica_case embedding_cases[] = {
  { "B=3 R=7 V=5 C=33", MICA_CASE_PACKED },
  { "B=2 R=1 V=1 C=1", 0 },
  { "B=2 R=9 V=4 C=70", 0 },
  { "B=21 R=3 V=5 C=6", 0 },
  { "B=64 R=82 V=256 C=256", MICA_CASE_BENCH },
};
static const double w_v[4] = { 3, 4, 5, 6 }, y_v[4] = { 5, 6, 5, 6 }, y_d[4] = { 1, 2, 3, 4 }, w_d[4] = { 0, 0, 4, 6 };
static const double tokens[2] = { 1, 1 };
static const mica_example_wire embedding_wires[] = {
  { "tokens.v", tokens, 2, 0 }, { "w.v", w_v, 4, 0 }, { "w.t", y_d, 4, 0 },  { "y.d", y_d, 4, 0 },
  { "y.td", y_d, 4, 0 },        { "y.v", y_v, 4, 1 }, { "w.d", w_d, 4, 1 },  { "w.td", w_d, 4, 1 },
};
static const mica_example embedding_example = { "B=1 R=2 V=2 C=2", embedding_wires, MICA_COUNT(embedding_wires) };

const mica_op mica_op_embedding = {
  .size = sizeof(mica_op), .name = "embedding", .doc = "rows of a table by token",
  .args_size = sizeof(mica_embedding_args),
  .dims = embedding_dims, .n_dims = MICA_COUNT(embedding_dims), .operands = embedding_operands,
  .n_operands = MICA_COUNT(embedding_operands), .kernels = embedding_kernels,
  .n_kernels = MICA_COUNT(embedding_kernels), .cases = embedding_cases, .n_cases = MICA_COUNT(embedding_cases),
  .example = &embedding_example, .budget = 2, .cost = embedding_cost,
};
