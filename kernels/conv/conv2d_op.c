/* tables of conv2d */
#include "common/cuda.h"
#include "common/isa.h"
#include "common/ref.h"
#include "conv/conv2d_internal.h"

extern const mica_op mica_op_conv2d;

#define AT(field) offsetof(mica_conv2d_args, field)

static const mica_dim dims[] = {
  { "B", AT(B) }, { "T", AT(T) }, { "H", AT(H) }, { "W", AT(W) }, { "I", AT(I) },
  { "O", AT(O) }, { "K", AT(K) }, { "P", AT(P) }, { "Q", AT(Q) },
};
static const mica_param settings[] = {
  { "pad", MICA_PARAM_INT, AT(pad), 0, 0, 64, NULL, "zeros around the image, less than K" },
  { "stride", MICA_PARAM_INT, AT(stride), 1, 1, 64, NULL, "pixels from output to output" },
};

static const mica_operand operands[] = {
  { "x", "B T H W I", AT(x), MICA_IN, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T), MICA_WRITES_IN,
    MICA_ANY, NULL, "images" },
  { "w", "B O I K K", AT(w), MICA_IN | MICA_PARAM, MICA_READS(MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T),
    MICA_WRITES_IN, MICA_ANY, NULL, "a kernel for each output and input channel" },
  { "b", "B O", AT(b), MICA_IN | MICA_PARAM | MICA_OPTIONAL, MICA_READS(MICA_V, 0, MICA_T, 0), MICA_WRITES_IN, MICA_ANY,
    NULL, "bias; absent: zeros" },
  { "y", "B T P Q O", AT(y), MICA_OUT, MICA_READS(0, MICA_D, 0, MICA_D | MICA_TD), MICA_WRITES_OUT, MICA_ANY, NULL,
    "images of O channels" },
};

static mica_status infer(void *args) {
  mica_conv2d_args *a = args;
  if (a->K < 1 || a->pad >= a->K || a->I < 1)
    return mica_error(MICA_ERR_SHAPE, "conv2d: K %lld, pad %lld, I %lld; expected at least 1, a pad below K and at "
                      "least 1", (long long)a->K, (long long)a->pad, (long long)a->I);
  const int64_t in[] = { a->H, a->W };
  int64_t *out[] = { &a->P, &a->Q };
  for (int i = 0; i < 2; i++) {
    if (in[i] + 2 * a->pad < a->K)
      return mica_error(MICA_ERR_SHAPE, "conv2d: an image of %lld x %lld with a pad of %lld is smaller than the "
                        "kernel, %lld", (long long)a->H, (long long)a->W, (long long)a->pad, (long long)a->K);
    int64_t want = (in[i] + 2 * a->pad - a->K) / a->stride + 1;
    if (*out[i] >= 0 && *out[i] != want)
      return mica_error(MICA_ERR_SHAPE, "conv2d: %c is %lld, expected %lld", "PQ"[i], (long long)*out[i],
                        (long long)want);
    *out[i] = want;
  }
  return MICA_OK;
}

static void cost(const void *args, int face, double *flop, double *bytes) {
  const mica_conv2d_args *a = args;
  static const double products[MICA_NFACE] = { 1, 2, 2, 4 };
  double images = (double)micak_all_rows(conv_offsets(a), a->B, a->T), out = (double)(a->P * a->Q * a->O);
  double in = (double)(a->H * a->W * a->I), w = (double)(a->O * a->I * a->K * a->K);
  *flop = 2 * products[face] * images * out * (double)(a->I * a->K * a->K);
  *bytes = sizeof(float) * products[face] * (images * (in + out) + w);
}

/* ---- cuts: an image a unit, several to a call so that packed weights pay ---- */

static void split_images(const mica_conv2d_args *a, int face, const void *wanted, mica_split *split) {
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP, sums = conv_sums(a, face);
  conv_scratch size = conv_scratch_of(a, back);
  micak_split_rows(conv_offsets(a), a->B, a->T, sums, 1, split);
  /* packing w costs about as much as 32 of its products */
  int64_t pixels = a->P * a->Q + 1;
  split->grain = sums ? 1 : pixels > 256 ? 2 : 512 / pixels;
  split->scratch_bytes = (size_t)(size.image + 2 * size.weight + size.result) * sizeof(float);
  if (!wanted) split->units = 0;
}
static void split_forward(const void *args, mica_split *split) { split_images(args, MICA_FORWARD, args, split); }
static void split_jvp(const void *args, mica_split *split) { split_images(args, MICA_JVP, args, split); }
static void split_backward(const void *args, mica_split *split) {
  split_images(args, MICA_BACKWARD, ((const mica_conv2d_args *)args)->x.d.data, split);
}
static void split_backward_jvp(const void *args, mica_split *split) {
  split_images(args, MICA_BACKWARD_JVP, ((const mica_conv2d_args *)args)->x.td.data, split);
}
static void split_sums(const mica_conv2d_args *a, int face, mica_split *split) {
  conv_cut cut = conv_cut_of(a, face);
  conv_scratch size = conv_param_scratch(a);
  *split = (mica_split){ .units = cut.w_units + cut.b_units, .grain = 1 };
  split->scratch_bytes = (size_t)(size.image + size.weight + size.result) * sizeof(float);
}
static void split_params(const void *args, mica_split *split) { split_sums(args, MICA_BACKWARD, split); }
static void split_params_jvp(const void *args, mica_split *split) { split_sums(args, MICA_BACKWARD_JVP, split); }

CUDA_SPLIT(cuda_split_forward, mica_conv2d_args, conv_scratch_bytes(a, MICA_FORWARD))
CUDA_SPLIT(cuda_split_jvp, mica_conv2d_args, conv_scratch_bytes(a, MICA_JVP))
CUDA_SPLIT(cuda_split_backward, mica_conv2d_args, conv_scratch_bytes(a, MICA_BACKWARD))
CUDA_SPLIT(cuda_split_backward_jvp, mica_conv2d_args, conv_scratch_bytes(a, MICA_BACKWARD_JVP))

CPU_DISPATCH(conv2d_forward)
CPU_DISPATCH(conv2d_backward)
CPU_DISPATCH(conv2d_backward_params)
CPU_DISPATCH(conv2d_jvp)
CPU_DISPATCH(conv2d_backward_jvp)
CPU_DISPATCH(conv2d_backward_jvp_params)
REF_PROTOS(conv2d);
CUDA_PROTOS(conv2d)

static const mica_kernel kernels[] = {
  REF_KERNELS(conv2d),
  { MICA_CPU, MICA_F32, MICA_FORWARD, micak_conv2d_forward_cpu, split_forward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_conv2d_backward_cpu, split_backward },
  { MICA_CPU, MICA_F32, MICA_BACKWARD, micak_conv2d_backward_params_cpu, split_params },
  { MICA_CPU, MICA_F32, MICA_JVP, micak_conv2d_jvp_cpu, split_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_conv2d_backward_jvp_cpu, split_backward_jvp },
  { MICA_CPU, MICA_F32, MICA_BACKWARD_JVP, micak_conv2d_backward_jvp_params_cpu, split_params_jvp },
  CUDA_KERNELS_WITH(conv2d, MICA_F32, cuda_split_forward, cuda_split_backward, cuda_split_jvp,
                    cuda_split_backward_jvp)
  CUDA_KERNELS_WITH(conv2d, MICA_BF16, cuda_split_forward, cuda_split_backward, cuda_split_jvp,
                    cuda_split_backward_jvp)
};

static const mica_case cases[] = {
  { "B=2 T=3 H=3 W=4 I=2 O=3 K=3 pad=1", MICA_CASE_PACKED },
  { "B=2 T=2 H=4 W=5 I=2 O=3 K=3 stride=2 pad=1 b=none", 0 },
  { "B=1 T=2 H=3 W=4 I=1 O=17 K=3", 0 },
  { "B=3 T=1 H=2 W=3 I=7 O=2 K=1", MICA_CASE_PACKED },
  { "B=1 T=1 H=7 W=4 I=2 O=2 K=4 pad=2 stride=3", 0 },
  { "B=1 T=1 H=2 W=2 I=35 O=3 K=2 pad=1 b=none", 0 },
  { "B=2 T=1 H=4 W=8 I=1 O=67 K=2", 0 },     /* rows end with a run that begins sooner, in a tile of its own */
  { "B=1 T=1 H=4 W=5 I=13 O=2 K=3 pad=1 stride=2 b=none", 0 },
  { "B=1 T=1 H=2 W=2 I=2 O=34 K=2 pad=1", 0 },
  { "B=1 T=2 H=5 W=7 I=12 O=20 K=3 pad=1", 0 },  /* on CUDA 16 bytes at a time, several tiles and slabs */
  { "B=1 T=3 H=20 W=20 I=1 O=2 K=1", 0 },        /* on CUDA two chunks of images */
  /* on CUDA by the tensor cores: several tiles of pixels and channels and slabs of both, ragged */
  { "B=1 T=1 H=7 W=8 I=40 O=34 K=2 pad=1", 0 },
  { "B=2 T=2 H=6 W=5 I=24 O=16 K=2 pad=1 stride=2", MICA_CASE_PACKED },
  { "B=1 T=1 H=15 W=14 I=18 O=34 K=1 b=none", 0 }, /* five tasks: large tiles of a small device */
  { "B=1 T=1 H=3 W=3 I=17 O=16 K=4 pad=2", 0 },
  { "B=1 T=1 H=3 W=3 I=8 O=8 K=2", 0 },          /* not by them, 16 bytes of inputs and outputs at a time */
  { "B=4 T=25 H=28 W=28 I=1 O=64 K=3 pad=1", MICA_CASE_BENCH },
  { "B=4 T=25 H=14 W=14 I=64 O=64 K=3 pad=1", MICA_CASE_BENCH | MICA_CASE_SLOW },
  { "B=4 T=25 H=3 W=3 I=64 O=64 K=3 pad=1", MICA_CASE_BENCH },
};

/* x ((1, 2), (3, 4)), w = (1, 0; 0, -1), no pad: one output, 1 - 4 + 5 = 2 */
static const double ex_x[] = { 1, 2, 3, 4 }, ex_xt[] = { 1, 0, 0, 2 }, ex_w[] = { 1, 0, 0, -1 };
static const double ex_wt[] = { 0, 1, 0, 1 };
static const double ex_b[] = { 5 }, ex_bt[] = { 1 }, ex_y[] = { 2 }, ex_yt[] = { 6 }, ex_dy[] = { 3 }, ex_dyt[] = { 2 };
static const double ex_xd[] = { 3, 0, 0, -3 }, ex_wd[] = { 3, 6, 9, 12 };
static const double ex_xtd[] = { 2, 3, 0, 1 }, ex_wtd[] = { 5, 4, 6, 14 };
static const mica_example_wire wires[] = {
  { "x.v", ex_x, 4, 0 },   { "x.t", ex_xt, 4, 0 },   { "w.v", ex_w, 4, 0 },   { "w.t", ex_wt, 4, 0 },
  { "b.v", ex_b, 1, 0 },   { "b.t", ex_bt, 1, 0 },   { "y.d", ex_dy, 1, 0 },  { "y.td", ex_dyt, 1, 0 },
  { "y.v", ex_y, 1, 1 },   { "y.t", ex_yt, 1, 1 },   { "x.d", ex_xd, 4, 1 },  { "w.d", ex_wd, 4, 1 },
  { "b.d", ex_dy, 1, 1 },  { "x.td", ex_xtd, 4, 1 }, { "w.td", ex_wtd, 4, 1 }, { "b.td", ex_dyt, 1, 1 },
};
static const mica_example example = { "B=1 T=1 H=2 W=2 I=1 O=1 K=2", wires, MICA_COUNT(wires) };

const mica_op mica_op_conv2d = {
  .size = sizeof(mica_op), .name = "conv2d", .doc = "two-dimensional convolution, channels last",
  .args_size = sizeof(mica_conv2d_args), .dims = dims, .n_dims = MICA_COUNT(dims), .params = settings,
  .n_params = MICA_COUNT(settings), .operands = operands, .n_operands = MICA_COUNT(operands), .kernels = kernels,
  .n_kernels = MICA_COUNT(kernels), .cases = cases, .n_cases = MICA_COUNT(cases), .example = &example, .budget = 2,
  .infer = infer, .cost = cost,
};
