/* table of attention */
#include "attention/attention_internal.h"
#include "common/cases.h"
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"

extern const mica_op mica_op_attention;

#define AT(field) offsetof(mica_attention_args, field)

static const mica_dim attention_dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "S", AT(S) }, { "H", AT(H) }, { "G", AT(G) },
  { "D", AT(D) }, { "P", AT(P) }, { "Q", AT(Q) }, { "I", AT(I) }, { "J", AT(J) },
};
enum { MOST = 1 << 30 };
static const mica_param attention_params[] = {
  { "mask", MICA_PARAM_CHOICE, AT(mask), MICA_ATTENTION_CAUSAL, 0, 4, "causal|full|prefix|context|window",
    "keys a row sees: up to its own; all; the first N or up to its own; the first N and its own; the last `window`" },
  { "prefix", MICA_PARAM_INT, AT(prefix), 0, 0, MOST, NULL, "N of mask=prefix and context without prefix_lengths" },
  { "window", MICA_PARAM_INT, AT(window), 0, 0, MOST, NULL, "keys of mask=window, the row's own among them" },
  { "block_q", MICA_PARAM_INT, AT(block_q), 1, 1, MOST, NULL, "rows of a block of block_mask" },
  { "block_k", MICA_PARAM_INT, AT(block_k), 1, 1, MOST, NULL, "keys of a block of block_mask" },
  { "kernel", MICA_PARAM_CHOICE, AT(kernel), MICA_ATTENTION_AUTO, 0, 3, "auto|fma|mma|wgmma",
    "on CUDA: the kernels that suit form, type, head and length; fp32 products, every form; tensor cores; those of "
    "compute capability 9.0, forward and backward in bf16; refused where they do not suit" },
};
#define READS_IN MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T)
#define READS_INDEX MICA_READS(MICA_V, MICA_V, MICA_V, MICA_V)
#define EXTRA (MICA_IN | MICA_OPTIONAL | MICA_PARAM)
static const mica_operand attention_operands[] = {
  { "q", "B T H D", AT(q), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "queries" },
  { "k", "B S G D", AT(k), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "keys" },
  { "v", "B S G D", AT(v), MICA_IN, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL, "values" },
  { "bias", "B H P Q", AT(bias), EXTRA, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "added to the scores, P >= T, Q >= S; -inf hides a key" },
  { "slopes", "B H", AT(slopes), EXTRA, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "times the distance of a key is taken from its score (ALiBi)" },
  { "scale", "B H", AT(scale), EXTRA, READS_IN, MICA_WRITES_IN, MICA_ANY, NULL,
    "factor of the scores of each head; absent: 1 / sqrt(D)" },
  { "prefix_lengths", "B", AT(prefix_lengths), MICA_INDEX | MICA_OPTIONAL, READS_INDEX, MICA_WRITES_NONE, MICA_RANGE,
    "S", "N of mask=prefix and context, task by task; absent: the setting prefix" },
  { "block_mask", "B I J", AT(block_mask), MICA_INDEX | MICA_OPTIONAL, READS_INDEX, MICA_WRITES_NONE, MICA_MASK, NULL,
    "0 hides a block of block_q rows x block_k keys" },
  { "out", "B T H D", AT(out), MICA_OUT, MICA_READS(0, MICA_V | MICA_D, 0, MICA_V | MICA_T | MICA_D | MICA_TD),
    MICA_WRITES_OUT, MICA_ANY, NULL, "weighted values" },
  { "lse", "B T H", AT(lse), MICA_SAVED, MICA_READS(0, MICA_V, MICA_V, MICA_V | MICA_T), MICA_WRITES_SAVED, MICA_ANY,
    NULL, "log of the sum of exp of a row's scores; 0 where it sees no key" },
};

/* sizes of bias and block_mask: at least what T and S ask for; 0 where the operand is known to be absent */
static mica_status cover(int64_t *size, const char *name, int64_t need, int absent) {
  if (*size < 0) *size = absent ? 0 : need;
  if (absent || *size >= need) return MICA_OK;
  return mica_error(MICA_ERR_SHAPE, "attention: %s is %lld, expected at least %lld", name, (long long)*size,
                    (long long)need);
}
static int64_t blocks(int64_t n, int64_t size) { return n < 0 ? -1 : (n + size - 1) / size; }

static mica_status attention_infer(void *args) {
  mica_attention_args *a = args;
  if (a->D == 0 || a->D > ATTENTION_HEAD || a->G == 0 || a->H == 0)
    return mica_error(MICA_ERR_SHAPE, "attention: H = %lld, G = %lld, D = %lld, expected at least one head of 1 to %d "
                      "elements", (long long)a->H, (long long)a->G, (long long)a->D, ATTENTION_HEAD);
  if (a->H > 0 && a->G > a->H)
    return mica_error(MICA_ERR_SHAPE, "attention: %lld key heads for %lld query heads, expected at most as many",
                      (long long)a->G, (long long)a->H);
  if (a->mask == MICA_ATTENTION_WINDOW && a->window < 1)
    return mica_error(MICA_ERR_INVALID, "attention: mask=window with window=%lld, expected window=N, N >= 1",
                      (long long)a->window);
  if (a->prefix_lengths.v.data && a->mask != MICA_ATTENTION_PREFIX && a->mask != MICA_ATTENTION_CONTEXT)
    return mica_error(MICA_ERR_INVALID, "attention: prefix_lengths is given, but the mask is neither prefix nor context");
  /* nothing is bound yet: sizes as if all were there */
  int no_bias = a->q.v.data && !a->bias.v.data, no_mask = a->q.v.data && !a->block_mask.v.data;
  mica_status status = cover(&a->P, "P (rows of bias)", a->T, no_bias);
  if (status >= 0) status = cover(&a->Q, "Q (keys of bias)", a->S, no_bias);
  if (status >= 0) status = cover(&a->I, "I (row blocks of block_mask)", blocks(a->T, a->block_q), no_mask);
  if (status >= 0) status = cover(&a->J, "J (key blocks of block_mask)", blocks(a->S, a->block_k), no_mask);
  return status;
}

/* ---- cuts and scratch (floats; vectors of up to 16) ---- */

static int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* (row, key) pairs of one head */
static double pairs(const mica_attention_args *a) {
  double T = (double)a->T, S = (double)a->S, N = (double)least(a->prefix, a->S), W = (double)least(a->window, a->S);
  double causal = T <= S ? T * (S - T) + T * (T + 1) / 2 : S * (S + 1) / 2;
  if (a->prefix_lengths.v.data) N = S / 2;
  const double count[] = { causal, T * S, causal + N * N / 2, T * (N + 1), W * T };
  return count[a->mask] < T * S ? count[a->mask] : T * S;
}
/* units that follow one another share rows of memory, and each asks for the next ones': not too few a call, and whole
 * tasks of `heads` units */
static int64_t grain_of(double flop, int64_t heads) {
  int64_t grain = flop > 4e6 ? 1 : (int64_t)(16e6 / (flop + 1)) + 1;
  return grain <= heads || heads < 1 ? grain : (grain + heads - 1) / heads * heads;
}

/* a fused slot is cut as its two faces: `what` has a bit of each, 1 value or backward, 2 tangents */
static void split_down(const mica_attention_args *a, int what, mica_split *split) {
  int64_t rows = ATTENTION_ROWS * ATTENTION_TILE, tiles = (a->T + rows - 1) / rows, D = padded(a->D);
  int64_t scores = a->S * ATTENTION_ROWS, side = 2 * a->S * D + ATTENTION_ROWS * 2 * D + scores + 2 * ATTENTION_ROWS + 128;
  int sums = (what & 1 && attention_sums(a, MICA_FORWARD)) || (what & 2 && attention_sums(a, MICA_JVP));
  split->units = (sums ? 1 : a->B) * a->H * tiles;
  double flop = (what & 1 ? 4 : 0) + (what & 2 ? 10 : 0);
  flop *= pairs(a) * (double)a->D / (double)(tiles ? tiles : 1);
  split->grain = grain_of(sums ? flop * (double)a->B : flop, a->H * tiles);
  split->scratch_bytes = (size_t)((what & 2 ? 2 * side : side) + (what == 3 ? scores : 0)) * sizeof(float);
  split->rows = 0;
}
static void split_up(const mica_attention_args *a, int what, mica_split *split) {
  int sums = (what & 1 && attention_sums(a, MICA_BACKWARD)) || (what & 2 && attention_sums(a, MICA_BACKWARD_JVP));
  int64_t keys = least(a->S, ATTENTION_KEYS), D = padded(a->D);
  int64_t heads = (a->H + a->G - 1) / a->G, held = a->S <= ATTENTION_KEYS ? 0 : heads * a->T;
  int64_t side = 4 * keys * D + 6 * ATTENTION_ROWS * D + 2 * keys * ATTENTION_ROWS + held * D + 4 * heads + 256;
  int wanted = 0;
  for (int i = 0; i < MICA_COUNT(attention_operands); i++) {
    const mica_port *port = micak_port(&attention_operands[i], a);
    if (!(attention_operands[i].role & MICA_IN)) continue;
    wanted |= (what & 1 && port->d.data) || (what & 2 && port->td.data);
  }
  split->units = wanted ? (sums ? 1 : a->B) * a->G : 0;
  double flop = ((what & 1 ? 10 : 0) + (what & 2 ? 24 : 0)) * pairs(a) * (double)a->D * (double)heads;
  split->grain = grain_of(sums ? flop * (double)a->B : flop, a->G);
  split->scratch_bytes = (size_t)(what & 2 ? 2 * side : side) * sizeof(float);
  split->rows = 0;
}
static void split_forward(const void *args, mica_split *split) { split_down(args, 1, split); }
static void split_jvp(const void *args, mica_split *split) { split_down(args, 2, split); }
static void split_forward_jvp(const void *args, mica_split *split) { split_down(args, 3, split); }
static void split_backward(const void *args, mica_split *split) { split_up(args, 1, split); }
static void split_backward_jvp(const void *args, mica_split *split) { split_up(args, 2, split); }
static void split_backward_both(const void *args, mica_split *split) { split_up(args, 3, split); }

static void attention_cost(const void *args, int face, double *flop, double *bytes) {
  const mica_attention_args *a = args;
  static const double products[MICA_NFACE] = { 4, 10, 10, 24 }, moved[MICA_NFACE] = { 2, 5, 4, 10 };
  *flop = products[face] * pairs(a) * (double)(a->D * a->H * a->B);
  *bytes = moved[face] * (double)(a->B * a->D) * (double)(a->T * a->H + a->S * a->G) * sizeof(float);
}

CPU_DISPATCH(attention_forward)
CPU_DISPATCH(attention_backward)
CPU_DISPATCH(attention_jvp)
CPU_DISPATCH(attention_backward_jvp)
CPU_DISPATCH(attention_forward_jvp)
CPU_DISPATCH(attention_backward_both)
REF_PROTOS(attention);
CUDA_PROTOS(attention)
#ifdef MICA_HAVE_CUDA
void micak_attention_backward_cuda_split(const void *args, mica_split *split);
void micak_attention_backward_bf16_cuda_split(const void *args, mica_split *split);
void micak_attention_backward_jvp_cuda_split(const void *args, mica_split *split);
#endif
static const mica_kernel attention_kernels[] = {
  REF_KERNELS(attention),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_attention_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_attention_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_attention_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_attention_backward_jvp_cpu, split_backward_jvp },
  { MICA_CPU, MICA_F32, MICA_FORWARD_WITH_JVP, micak_attention_forward_jvp_cpu, split_forward_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_WITH_JVP, micak_attention_backward_both_cpu, split_backward_both },
  CUDA_KERNELS_WITH(attention, MICA_F32, NULL, micak_attention_backward_cuda_split, NULL,
                    micak_attention_backward_jvp_cuda_split)
  CUDA_KERNELS_WITH(attention, MICA_BF16, NULL, micak_attention_backward_bf16_cuda_split, NULL,
                    micak_attention_backward_jvp_cuda_split)
};

#define NO_BIAS " bias=none slopes=none"
#define NO_MASK " prefix_lengths=none block_mask=none"
#define PLAIN NO_BIAS NO_MASK
#define BARE " scale=none" PLAIN
/* the whole product of forms, head sizes and lengths: packed tasks up to 200 rows, and one task of 1000 */
#define HEAD(S, form, d, more)                                                                                     \
  { "B=2 T=200 S=" #S " " form " D=" #d, MICA_CASE_LENGTHS | MICA_CASE_SLOW | (more) },                             \
  { "B=1 T=1000 S=1000 " form " D=" #d, MICA_CASE_LENGTHS | MICA_CASE_SLOW | (more) },
#define LENGTHS(S, form, more)                                                                                     \
  HEAD(S, form, 4, more) HEAD(S, form, 8, more) HEAD(S, form, 20, more) HEAD(S, form, 32, more)                    \
  HEAD(S, form, 60, more) HEAD(S, form, 64, more) HEAD(S, form, 128, more) HEAD(S, form, 256, more)
#define EACH_FORM(X)                                                                                               \
  X(200, "H=1 G=1" BARE, 0)                                                                                        \
  X(200, "H=1 G=1" PLAIN, MICA_CASE_WIDE)                                                                          \
  X(151, "H=1 G=1 mask=full" BARE, 0)                                                                              \
  X(151, "H=1 G=1 mask=prefix block_mask=none" NO_BIAS, 0)                                                         \
  X(200, "H=1 G=1 mask=context block_mask=none" NO_BIAS, 0)                                                        \
  X(200, "H=1 G=1 mask=window window=40" PLAIN, 0)                                                                 \
  X(130, "H=1 G=1 mask=full block_q=5 block_k=7 prefix_lengths=none" NO_BIAS, 0)                                   \
  X(200, "H=1 G=1 bias=none scale=none" NO_MASK, 0)                                                                \
  X(130, "H=1 G=1 mask=full slopes=none" NO_MASK, 0)                                                               \
  X(160, "H=3 G=2" BARE, 0)
#define LONG (MICA_CASE_HALF | MICA_CASE_SLOW)
static const mica_case attention_cases[] = {
  { "B=3 T=7 S=7 H=2 G=2 D=8" BARE, MICA_CASE_PACKED },
  { "B=3 T=7 S=7 H=2 G=2 D=8 kernel=fma" BARE, MICA_CASE_PACKED | MICA_CASE_SAME },
  { "B=2 T=5 S=9 H=5 G=2 D=3" PLAIN, MICA_CASE_PACKED },
  { "B=2 T=9 S=5 H=3 G=1 D=33 mask=full" PLAIN, 0 },
  { "B=1 T=9 S=4 H=1 G=1 D=16" PLAIN, 0 },
  { "B=1 T=1 S=1 H=1 G=1 D=1" BARE, 0 },
  { "B=1 T=52 S=40 H=1 G=1 D=7 mask=full" BARE, 0 },
  { "B=1 T=52 S=40 H=1 G=1 D=7 mask=full kernel=fma" BARE, MICA_CASE_SAME },
  { "B=1 T=40 S=70 H=2 G=1 D=64" BARE, 0 },
  { "B=1 T=20 S=33 H=1 G=1 D=100 mask=full" BARE, 0 },
  { "B=1 T=50 S=260 H=1 G=1 D=2" PLAIN, 0 },
  { "B=1 T=5 S=270 H=3 G=1 D=4" PLAIN, 0 },
  { "B=2 T=6 S=6 H=2 G=1 D=4 mask=prefix prefix=4" BARE, MICA_CASE_PACKED },
  { "B=2 T=4 S=7 H=1 G=1 D=4 mask=prefix block_mask=none" NO_BIAS, MICA_CASE_PACKED },
  { "B=2 T=7 S=7 H=3 G=2 D=5 mask=context block_mask=none" NO_BIAS, MICA_CASE_PACKED },
  { "B=2 T=4 S=9 H=1 G=1 D=8 mask=context prefix=5" BARE, 0 },
  { "B=2 T=9 S=7 H=2 G=2 D=4 mask=window window=3" PLAIN, MICA_CASE_PACKED },
  { "B=2 T=7 S=5 H=2 G=1 D=4 slopes=none" NO_MASK, MICA_CASE_PACKED },
  { "B=2 T=6 S=8 H=3 G=2 D=4 mask=full bias=none" NO_MASK, MICA_CASE_PACKED },
  { "B=2 T=7 S=6 H=2 G=1 D=4 mask=full block_q=2 block_k=3 prefix_lengths=none" NO_BIAS, MICA_CASE_PACKED },
  { "B=2 T=5 S=6 H=2 G=1 D=4 mask=prefix block_k=2", MICA_CASE_PACKED },
  { "B=1 T=52 S=270 H=1 G=1 D=4 mask=window window=40 prefix_lengths=none block_q=7 block_k=5", 0 },
  { "B=1 T=50 S=70 H=1 G=1 D=4 mask=context block_mask=none" NO_BIAS, 0 },
  { "B=2 T=200 S=200 H=1 G=1 D=20" BARE, MICA_CASE_LENGTHS },
  { "B=2 T=70 S=127 H=1 G=1 D=8 mask=full" BARE, MICA_CASE_LENGTHS | MICA_CASE_WIDE },
  EACH_FORM(LENGTHS)
  { "B=1 T=210 S=300 H=2 G=1 D=4" PLAIN, MICA_CASE_SLOW },
  /* long enough for the kernels of sm_90a: tails of rows and keys, fewer rows than keys and the reverse, each mask */
  { "B=3 T=257 S=257 H=2 G=1 D=64" BARE, LONG | MICA_CASE_PACKED },
  { "B=2 T=260 S=329 H=1 G=1 D=128" BARE, LONG },
  { "B=1 T=391 S=256 H=3 G=2 D=40" BARE, LONG },
  { "B=1 T=300 S=270 H=1 G=1 D=72 mask=full" BARE, LONG },
  { "B=1 T=256 S=300 H=1 G=1 D=48 mask=window window=70" BARE, LONG },
  { "B=2 T=270 S=256 H=1 G=1 D=64 mask=prefix block_mask=none" NO_BIAS " scale=none", LONG },
  { "B=1 T=256 S=283 H=1 G=1 D=88 mask=context prefix=130" BARE, LONG },
  /* their rings go round more than twice */
  { "B=1 T=256 S=530 H=1 G=1 D=64" BARE, LONG },
  { "B=64 T=82 S=82 H=8 G=8 D=32" BARE, MICA_CASE_BENCH },
  { "B=256 T=32 S=32 H=2 G=2 D=64" BARE, MICA_CASE_BENCH },
  { "B=512 T=41 S=41 H=8 G=8 D=32" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
  { "B=512 T=82 S=82 H=8 G=8 D=32" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
  { "B=512 T=128 S=128 H=8 G=8 D=32" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
  { "B=4 T=1024 S=1024 H=8 G=8 D=64" BARE, MICA_CASE_BENCH | MICA_CASE_SLOW },
  { "B=1 T=4 S=5 H=1 G=1 D=256 mask=full slopes=none" NO_MASK, 0 }, /* a bias, and heads that fill shared memory */
  /* on CUDA: shapes of tiles that no case above takes, by heads, rows and keys */
  { "B=1 T=17 S=34 H=1 G=1 D=36 kernel=fma" BARE, 0 },
  { "B=1 T=34 S=5 H=1 G=1 D=36 kernel=fma" BARE, 0 },
  { "B=1 T=34 S=5 H=1 G=1 D=68 kernel=fma" BARE, 0 },
  { "B=1 T=3 S=18 H=1 G=1 D=132" BARE, 0 },
  { "B=1 T=5 S=6 H=1 G=1 D=8 kernel=mma" BARE, 0 },
  { "B=1 T=3 S=130 H=1 G=1 D=36 mask=full" BARE, 0 },
};

/* two keys of equal score: p = 1/2 everywhere, out = 2. row 0: dp = (1, 3), delta 2, ds = (-1/2, 1/2), k.d = ds q = ds.
 * with k.t = (1, -1): p_t = (1/2, -1/2) in row 0, twice that in row 1; ds_t = p_t (dp - 2) + p (0 + 1) = 0 */
static const double q_v[2] = { 1, 2 }, k_v[2] = { 0, 0 }, v_v[2] = { 1, 3 }, zero[2] = { 0, 0 }, out_d[2] = { 1, 0 };
static const double k_t[2] = { 1, -1 }, out_v[2] = { 2, 2 }, v_d[2] = { 0.5, 0.5 }, k_d[2] = { -0.5, 0.5 };
static const double out_t[2] = { -1, -2 }, v_td[2] = { 0.5, -0.5 }, q_td[2] = { -1, 0 };
static const double lse_v[2] = { 0.69314718055994530942, 0.69314718055994530942 };
static const mica_example_wire attention_wires[] = {
  { "q.v", q_v, 2, 0 },     { "q.t", zero, 2, 0 },     { "k.v", k_v, 2, 0 },    { "k.t", k_t, 2, 0 },
  { "v.v", v_v, 2, 0 },     { "v.t", zero, 2, 0 },     { "out.d", out_d, 2, 0 }, { "out.td", zero, 2, 0 },
  { "out.v", out_v, 2, 1 }, { "lse.v", lse_v, 2, 1 },  { "q.d", zero, 2, 1 },   { "k.d", k_d, 2, 1 },
  { "v.d", v_d, 2, 1 },     { "out.t", out_t, 2, 1 },  { "lse.t", zero, 2, 1 }, { "q.td", q_td, 2, 1 },
  { "k.td", zero, 2, 1 },   { "v.td", v_td, 2, 1 },
};
static const mica_example attention_example = { "B=1 T=2 S=2 H=1 G=1 D=1 mask=full" BARE, attention_wires,
                                                MICA_COUNT(attention_wires) };

const mica_op mica_op_attention = {
  .size = sizeof(mica_op), .name = "attention",
  .doc = "softmax attention: masks, grouped query heads, biases, packed rows",
  .args_size = sizeof(mica_attention_args), .dims = attention_dims, .n_dims = MICA_COUNT(attention_dims),
  .params = attention_params, .n_params = MICA_COUNT(attention_params), .operands = attention_operands,
  .n_operands = MICA_COUNT(attention_operands), .kernels = attention_kernels,
  .n_kernels = MICA_COUNT(attention_kernels), .cases = attention_cases, .n_cases = MICA_COUNT(attention_cases),
  .example = &attention_example, .budget = 2, .infer = attention_infer, .cost = attention_cost,
};
