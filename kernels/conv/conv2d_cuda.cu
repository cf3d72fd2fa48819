/* conv2d on CUDA: images from images. a block has a tile of pixels and channels of the result; 8 channels of the input
 * at up to 9 taps make a slab of terms, whose weights and inputs lie in shared memory: w's numbers are read in the order
 * in which they lie. jvp and backward_jvp add two products; UP: x.d from dy, the same with w turned round. */
#include "conv/conv2d_cuda_internal.cuh"

enum { CONV_INPUTS_8 = 8, CONV_TAPS = 9, CONV_TERMS = CONV_INPUTS_8 * CONV_TAPS };

/* threads have TR x TC of the ROWS pixels x COLS channels of a tile */
template <int ROWS_, int COLS_, int TR_, int TC_>
struct conv_shape {
  enum { ROWS = ROWS_, COLS = COLS_, TR = TR_, TC = TC_, LDX = ROWS + 4, LDW = COLS + 4, ACROSS = COLS / TC };
  enum { PIXELS = ROWS / (CONV_THREADS / 2), BYTES = CONV_TERMS * (LDX + LDW) * 4 };
};
typedef conv_shape<64, 64, 8, 4>  conv_broad;
typedef conv_shape<128, 16, 4, 4> conv_narrow;

/* ws[tap, input][column]: weights of `taps` taps from tap0 on, `inputs` inputs from c0 on, columns from n0 on */
template <class S, bool UP>
PLANE_DEVICE void conv_load_weights(const conv_job &job, const image_plane &w, const char *task, int32_t c0,
                                    int32_t inputs, int32_t tap0, int32_t taps, int32_t n0, float *ws) {
  const int32_t inner = UP ? S::COLS : inputs; /* o, i, tap, as w lies in memory: this is what i counts to */
  const int32_t d_tap = CONV_THREADS % taps, d_i = CONV_THREADS / taps % inner, d_o = CONV_THREADS / taps / inner;
  const bool    flat = w.line == job.K * w.pixel;
  int32_t       tap = (int32_t)threadIdx.x % taps, i = (int32_t)threadIdx.x / taps % inner;
  int32_t       o = (int32_t)threadIdx.x / taps / inner;
  for (int32_t e = (int32_t)threadIdx.x; e < taps * inputs * S::COLS; e += CONV_THREADS) {
    const int32_t column = UP ? i : o, input = UP ? o : i, n = tap0 + tap;
    float         value = 0.0f;
    if (n0 + column < job.out_size.c) {
      const int64_t at = (int64_t)((UP ? c0 : n0) + o) * w.p.row + (int64_t)((UP ? n0 : c0) + i) * w.p.col;
      value = plane_get(w.p, task, at + (flat ? (int64_t)n * w.pixel
                                              : (int64_t)(n / job.K) * w.line + (int64_t)(n % job.K) * w.pixel));
    }
    ws[(tap * CONV_INPUTS_8 + input) * S::LDW + column] = value;
    tap += d_tap, i += d_i, o += d_o;
    if (tap >= taps) tap -= taps, i++;
    if (i >= inner) i -= inner, o++;
  }
}

/* xs[tap, input][pixel]: a thread has 4 of the 8 inputs of a pixel */
template <class S, bool UP>
PLANE_DEVICE void conv_load_images(const conv_job &job, const image_plane &x, const char *task, int32_t c0,
                                   int32_t tap0, int32_t taps, const conv_pixel (&pixel)[S::PIXELS], int32_t left,
                                   float *xs) {
  const int32_t half = (int32_t)threadIdx.x % 2 * 4, slot = (int32_t)threadIdx.x / 2, c = c0 + half;
#pragma unroll
  for (int j = 0; j < S::PIXELS; j++) {
    const int32_t place = slot + j * (CONV_THREADS / 2);
    int32_t       ky = tap0 / job.K, kx = tap0 % job.K;
    for (int32_t tap = 0; tap < taps; tap++) {
      int32_t h = UP ? pixel[j].p + job.pad - ky : pixel[j].p * job.stride + ky - job.pad;
      int32_t w = UP ? pixel[j].q + job.pad - kx : pixel[j].q * job.stride + kx - job.pad;
      bool    inside = place < left && h >= 0 && w >= 0;
      if (UP && job.stride > 1) {
        const int32_t ph = h / job.stride, pw = w / job.stride;
        inside = inside && ph * job.stride == h && pw * job.stride == w;
        h = ph, w = pw;
      }
      inside = inside && h < job.in.h && w < job.in.w;
      float v[4] = {};
      if (inside && c < job.in.c) {
        const int64_t at = image_at(x, pixel[j].t, h, w, c);
        if (job.wide) image_get<4>(x, task, at, v);
        else
#pragma unroll
          for (int i = 0; i < 4; i++)
            if (c + i < job.in.c) v[i] = plane_get(x.p, task, at + (int64_t)i * x.p.col);
      }
#pragma unroll
      for (int i = 0; i < 4; i++) xs[(tap * CONV_INPUTS_8 + half + i) * S::LDX + place] = v[i];
      if (++kx == job.K) kx = 0, ky++;
    }
  }
}

/* blocks of (tiles of a task; tasks) */
template <class S, bool UP>
static __global__ void __launch_bounds__(CONV_THREADS, 4) conv_images(const __grid_constant__ conv_job job) {
  DYN_SMEM(float, xs);
  float        *ws = xs + CONV_TERMS * S::LDX;
  const int     tx = (int)threadIdx.x % S::ACROSS * S::TC, ty = (int)threadIdx.x / S::ACROSS * S::TR;
  const int32_t across = (job.out_size.c + S::COLS - 1) / S::COLS, all = job.K * job.K;
  const plane  &to = job.out.p;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    if (!plane_leads(to, b)) continue;
    char *out = plane_task(to, b);
    for (int64_t k = b; k == b || (k < job.B && plane_follows(to, k)); k++) {
      const int32_t M = (int32_t)wire_rows(job.offsets, k, job.T) * job.out_size.h * job.out_size.w;
      const int32_t tiles = (M + S::ROWS - 1) / S::ROWS * across;
      for (int32_t tile = (int32_t)blockIdx.x; tile < tiles; tile += (int32_t)gridDim.x) {
        const int32_t m0 = tile / across * S::ROWS, n0 = tile % across * S::COLS;
        const bool    live = m0 + ty < M && n0 + tx < job.out_size.c;
        const char   *bias = plane_task(job.bias, k);
        float         acc[S::TR][S::TC];
        conv_pixel    pixel[S::PIXELS];
#pragma unroll
        for (int j = 0; j < S::PIXELS; j++)
          pixel[j] = conv_pixel_of(job, m0 + (int32_t)threadIdx.x / 2 + j * (CONV_THREADS / 2));
#pragma unroll
        for (int c = 0; c < S::TC; c++) {
          const float start = bias && n0 + tx + c < job.out_size.c
                                  ? plane_get(job.bias, bias, (int64_t)(n0 + tx + c) * job.bias.col) : 0.0f;
#pragma unroll
          for (int r = 0; r < S::TR; r++) acc[r][c] = start;
        }
        for (int s = 0; s < job.terms; s++) {
          const char *x = plane_task(job.x[s].p, k), *w = plane_task(job.w[s].p, k);
          if (!x || !w) continue;
          for (int32_t c0 = 0; c0 < job.in.c; c0 += CONV_INPUTS_8)
            for (int32_t tap0 = 0; tap0 < all; tap0 += CONV_TAPS) {
              const int32_t inputs = min(job.in.c - c0, (int32_t)CONV_INPUTS_8);
              const int32_t taps = min(all - tap0, (int32_t)CONV_TAPS);
              conv_load_weights<S, UP>(job, job.w[s], w, c0, inputs, tap0, taps, n0, ws);
              conv_load_images<S, UP>(job, job.x[s], x, c0, tap0, taps, pixel, M - m0, xs);
              __syncthreads();
              for (int32_t tap = 0; live && tap < taps; tap++) {
                const float *xt = xs + tap * CONV_INPUTS_8 * S::LDX + ty, *wt = ws + tap * CONV_INPUTS_8 * S::LDW + tx;
                if (inputs == CONV_INPUTS_8) {
#pragma unroll
                  for (int i = 0; i < CONV_INPUTS_8; i++) conv_fma(xt + i * S::LDX, wt + i * S::LDW, acc);
                } else {
                  for (int i = 0; i < inputs; i++) conv_fma(xt + i * S::LDX, wt + i * S::LDW, acc);
                }
              }
              __syncthreads();
            }
        }
#pragma unroll
        for (int r = 0; r < S::TR; r++) {
          if (m0 + ty + r >= M || n0 + tx >= job.out_size.c) continue;
          conv_put(job, out, conv_pixel_of(job, m0 + ty + r), n0 + tx, acc[r], to.add || k > b);
        }
      }
    }
  }
}

/* ---- launchers ---- */

template <class S, bool UP>
static mica_status conv_launch(const char *name, const conv_job &job, void *stream) {
  const int64_t pixels = (int64_t)job.T * job.out_size.h * job.out_size.w;
  const int64_t high = (pixels + S::ROWS - 1) / S::ROWS, across = (job.out_size.c + S::COLS - 1) / S::COLS;
  return micak_launch(name, conv_images<S, UP>, dim3(micak_blocks(high * across, 1), micak_task_blocks(job.B)),
                      dim3(CONV_THREADS), S::BYTES, stream, job);
}
static mica_status conv_run(const char *name, const mica_conv2d_args *a, bool up, const mica_wire &out,
                            const mica_wire *const (&x)[2], const mica_wire *const (&w)[2], const mica_wire *bias,
                            const mica_exec *exec) {
  const conv_size sizes[2] = { { (int32_t)a->H, (int32_t)a->W, (int32_t)a->I },
                               { (int32_t)a->P, (int32_t)a->Q, (int32_t)a->O } };
  conv_job job = {};
  if (!out.data || a->B <= 0) return MICA_OK;
  job.B = a->B, job.T = (int32_t)a->T, job.K = (int32_t)a->K, job.pad = (int32_t)a->pad;
  job.stride = (int32_t)a->stride, job.up = up, job.in = sizes[up], job.out_size = sizes[!up], job.offsets = conv_offsets(a);
  job.out = image_of(out, up ? a->x.offsets : a->y.offsets);
  job.wide = job.in.c % 4 == 0, job.wide_out = job.out_size.c % 4 == 0 && image_by_four(job.out);
  if (bias) job.bias = plane_param(*bias);
  for (int s = 0; s < 2; s++) {
    if (!x[s] || !x[s]->data || !w[s]->data) continue;
    const int n = job.terms++;
    job.x[n] = image_of(*x[s], up ? a->y.offsets : a->x.offsets), job.w[n] = conv_weights_of(*w[s]);
    job.wide = job.wide && image_by_four(job.x[n]);
  }
  const plane all[] = { job.out.p, job.bias, job.x[0].p, job.x[1].p, job.w[0].p, job.w[1].p };
  mica_status status = plane_check(name, all, 6);
  if (status >= 0) status = plane_check_task(name, a->T * job.in.h * job.in.w, job.in.c);
  if (status >= 0) status = plane_check_task(name, a->T * job.out_size.h * job.out_size.w + 128, job.out_size.c);
  if (status < 0) return status;
  if (conv_by_tensor(job.in.c, job.x, job.w, job.terms))
    return (job.x[0].p.dtype == MICA_BF16 ? conv_images_bf16 : conv_images_tf32)(name, job, exec);
  void      *stream = exec->stream;
  const bool narrow = job.out_size.c <= conv_narrow::COLS;
  if (narrow)
    return up ? conv_launch<conv_narrow, true>(name, job, stream) : conv_launch<conv_narrow, false>(name, job, stream);
  return up ? conv_launch<conv_broad, true>(name, job, stream) : conv_launch<conv_broad, false>(name, job, stream);
}

extern "C" mica_status micak_conv2d_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_conv2d_args *a = static_cast<const mica_conv2d_args *>(args);
  return conv_run("conv2d forward", a, false, a->y.v, { &a->x.v, NULL }, { &a->w.v, NULL }, &a->b.v, exec);
}
extern "C" mica_status micak_conv2d_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_conv2d_args *a = static_cast<const mica_conv2d_args *>(args);
  return conv_run("conv2d jvp", a, false, a->y.t, { &a->x.t, &a->x.v }, { &a->w.v, &a->w.t }, &a->b.t, exec);
}
extern "C" mica_status micak_conv2d_backward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_conv2d_args *a = static_cast<const mica_conv2d_args *>(args);
  mica_status status = conv_run("conv2d backward", a, true, a->x.d, { &a->y.d, NULL }, { &a->w.v, NULL }, NULL, exec);
  return status < 0 ? status : conv_params_cuda("conv2d backward", MICA_BACKWARD, a, exec);
}
extern "C" mica_status micak_conv2d_backward_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_conv2d_args *a = static_cast<const mica_conv2d_args *>(args);
  mica_status status = conv_run("conv2d backward_jvp", a, true, a->x.td, { &a->y.td, &a->y.d }, { &a->w.v, &a->w.t },
                                NULL, exec);
  return status < 0 ? status : conv_params_cuda("conv2d backward_jvp", MICA_BACKWARD_JVP, a, exec);
}
