/* tables of matmul */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "linear/matmul_internal.h"

extern const mica_op mica_op_matmul;

#define AT(field) offsetof(mica_matmul_args, field)

static const mica_dim matmul_dims[] = {
  { "B", AT(B) },   { "M", AT(M) },   { "N", AT(N) },   { "K", AT(K) },
  { "Ar", AT(Ar) }, { "Ac", AT(Ac) }, { "Br", AT(Br) }, { "Bc", AT(Bc) },
};
static const mica_param matmul_params[] = {
  { "ta", MICA_PARAM_INT, AT(ta), 0, 0, 1, NULL, "1: a is stored transposed, (B,K,M)" },
  { "tb", MICA_PARAM_INT, AT(tb), 0, 0, 1, NULL, "1: b is stored transposed, (B,N,K)" },
};
static const mica_operand matmul_operands[] = {
  { "a", "B Ar Ac", AT(a), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN,
    MICA_ANY, NULL, "left factor" },
  { "b", "B Br Bc", AT(b), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN,
    MICA_ANY, NULL, "right factor" },
  { "c", "B M N", AT(c), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "product" },
};

/* either the sizes of the product or those of the stored factors may be given */
static mica_status both(int64_t *a, int64_t *b, const char *a_name, const char *b_name) {
  if (*a < 0) *a = *b;
  if (*b < 0) *b = *a;
  if (*a == *b) return MICA_OK;
  return mica_error(MICA_ERR_SHAPE, "matmul: %s is %lld and %s is %lld, expected equal sizes", a_name, (long long)*a,
                    b_name, (long long)*b);
}
static mica_status matmul_infer(void *args) {
  mica_matmul_args *a = args;
  if (a->ta < 0 || a->ta > 1 || a->tb < 0 || a->tb > 1)
    return mica_error(MICA_ERR_INVALID, "matmul: ta is %lld and tb is %lld, expected 0 or 1", (long long)a->ta,
                      (long long)a->tb);
  mica_status status = both(&a->M, a->ta ? &a->Ac : &a->Ar, "M", a->ta ? "Ac (columns of a)" : "Ar (rows of a)");
  if (status >= 0) status = both(&a->K, a->ta ? &a->Ar : &a->Ac, "K", a->ta ? "Ar (rows of a)" : "Ac (columns of a)");
  if (status >= 0) status = both(&a->K, a->tb ? &a->Bc : &a->Br, "K", a->tb ? "Bc (columns of b)" : "Br (rows of b)");
  if (status >= 0) status = both(&a->K, a->ta ? &a->Ar : &a->Ac, "K", a->ta ? "Ar (rows of a)" : "Ac (columns of a)");
  if (status >= 0) status = both(&a->N, a->tb ? &a->Br : &a->Bc, "N", a->tb ? "Br (rows of b)" : "Bc (columns of b)");
  return status;
}

static void matmul_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_matmul_args *a = args;
  static const double products[MICA_NFACE] = { 1, 2, 2, 4 };
  double f = 0, e = 0;
  for (int64_t b = 0; b < a->B; b++) {
    int64_t M, N, K;
    matmul_sizes(a, b, &M, &N, &K);
    f += 2 * (double)M * (double)N * (double)K;
    e += (double)(M * K + K * N + M * N);
  }
  *flop = products[face] * f;
  *bytes = sizeof(float) * (products[face] > 2 ? 3 : products[face]) * e;
}

static void split(const mica_matmul_args *a, int face, mica_split *split_) {
  matmul_job jobs[2];
  int n = matmul_jobs(a, face, jobs);
  split_->units = 0;
  for (int i = 0; i < n; i++) split_->units += jobs[i].groups * jobs[i].blocks;
  double work = 2.0 * (double)a->B * (double)a->M * (double)a->N * (double)a->K;
  double grain = split_->units ? 5e5 / (work / (double)split_->units + 1) : 1;
  split_->grain = grain < 1 ? 1 : (int64_t)grain;
  split_->rows = 0;
  split_->scratch_bytes = MATMUL_FLOATS * sizeof(float);
}
static void split_forward(const void *args, mica_split *s) { split(args, MICA_FORWARD, s); }
static void split_backward(const void *args, mica_split *s) { split(args, MICA_BACKWARD, s); }
static void split_jvp(const void *args, mica_split *s) { split(args, MICA_JVP, s); }
static void split_backward_jvp(const void *args, mica_split *s) { split(args, MICA_BACKWARD_JVP, s); }

CPU_DISPATCH(matmul_forward)
CPU_DISPATCH(matmul_backward)
CPU_DISPATCH(matmul_jvp)
CPU_DISPATCH(matmul_backward_jvp)
REF_PROTOS(matmul);
CUDA_PROTOS(matmul)

static const mica_kernel matmul_kernels[] = {
  REF_KERNELS(matmul),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_matmul_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_matmul_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_matmul_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_matmul_backward_jvp_cpu, split_backward_jvp },
  CUDA_KERNELS(matmul, MICA_F32)
  CUDA_KERNELS(matmul, MICA_BF16)
};

static const mica_case matmul_cases[] = {
  { "B=3 M=7 N=33 K=5", 0 },
  { "B=2 M=1 N=1 K=1 ta=1", 0 },
  { "B=2 M=7 N=9 K=4 tb=1", 0 },
  { "B=2 M=13 N=17 K=3 ta=1 tb=1", 0 },
  { "B=1 M=2 N=3 K=300", 0 },
  { "B=1 M=100 N=70 K=2", 0 },
  { "B=4 M=64 N=65 K=32", 0 },               /* on CUDA as many large tiles as a small device needs */
  { "B=64 M=82 N=256 K=256", MICA_CASE_BENCH },
  { "B=1000 M=10 N=40 K=40 tb=1", MICA_CASE_BENCH },
};

static const double ex_a[] = { 1, 2 }, ex_at[] = { 1, 0 }, ex_b[] = { 3, 4 }, ex_bt[] = { 0, 1 };
static const double ex_c[] = { 11 }, ex_ct[] = { 5 }, ex_cd[] = { 2 }, ex_ctd[] = { 1 };
static const double ex_ad[] = { 6, 8 }, ex_bd[] = { 2, 4 }, ex_atd[] = { 3, 6 }, ex_btd[] = { 3, 2 };
static const mica_example_wire matmul_wires[] = {
  { "a.v", ex_a, 2, 0 },   { "a.t", ex_at, 2, 0 },   { "b.v", ex_b, 2, 0 },   { "b.t", ex_bt, 2, 0 },
  { "c.d", ex_cd, 1, 0 },  { "c.td", ex_ctd, 1, 0 }, { "c.v", ex_c, 1, 1 },   { "c.t", ex_ct, 1, 1 },
  { "a.d", ex_ad, 2, 1 },  { "b.d", ex_bd, 2, 1 },   { "a.td", ex_atd, 2, 1 }, { "b.td", ex_btd, 2, 1 },
};
static const mica_example matmul_example = { "B=1 M=1 N=1 K=2", matmul_wires, MICA_COUNT(matmul_wires) };

const mica_op mica_op_matmul = {
  .size = sizeof(mica_op), .name = "matmul", .doc = "c = op(a) op(b), a product for each task",
  .args_size = sizeof(mica_matmul_args), .dims = matmul_dims, .n_dims = MICA_COUNT(matmul_dims),
  .params = matmul_params, .n_params = MICA_COUNT(matmul_params), .operands = matmul_operands,
  .n_operands = MICA_COUNT(matmul_operands), .kernels = matmul_kernels, .n_kernels = MICA_COUNT(matmul_kernels),
  .cases = matmul_cases, .n_cases = MICA_COUNT(matmul_cases), .example = &matmul_example, .budget = 2,
  .infer = matmul_infer, .cost = matmul_cost,
};
