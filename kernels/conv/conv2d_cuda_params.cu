/* cotangents of conv2d's parameters on CUDA. a block has a tile of outputs x (tap, input) and a chunk of images of a
 * slot group, counted from the group's first: chunks of a group that has several lie in scratch and are added up in
 * order by a second launch, so the bits depend neither on other groups nor on their number. */
#include "conv/conv2d_cuda_params.cuh"

enum { PARAM_ROWS = 64, PARAM_COLS = 64, PARAM_PIXELS = 16, PARAM_LD = 68, PARAM_TR = 8, PARAM_TC = 4 };
enum { BIAS_COLUMNS = 32, BIAS_LANES = 8, REDUCE_THREADS = 256, CHUNK_BLOCKS = 32 };

/* a thread's columns, tap and input; WIDE: x's inputs 16 bytes at once, the first of four alone */
template <bool WIDE>
struct conv_columns {
  enum { COUNT = WIDE ? 2 : 8 };
  int32_t tap[COUNT], i[COUNT];              /* tap: ky, 16 bits, kx; i < 0: there is no such column */
};
template <bool WIDE>
PLANE_DEVICE void conv_columns_of(const conv_sum &job, int32_t j0, conv_columns<WIDE> &own) {
#pragma unroll
  for (int n = 0; n < conv_columns<WIDE>::COUNT; n++) {
    const int32_t column = j0 + (WIDE ? n * 32 : n / 4 * 32 + n % 4), tap = column / job.I;
    own.tap[n] = (tap / job.K) << 16 | tap % job.K;
    own.i[n] = tap < job.K * job.K ? column - tap * job.I : -1;
  }
}

/* what a thread brings of a step: 8 outputs and 8 columns at one of 16 pixels */
struct conv_step {
  float dy[8], x[8];
};
template <bool WIDE>
PLANE_DEVICE void conv_fetch(const conv_sum &job, int s, const char *x, const char *dy, const conv_columns<WIDE> &own,
                             int32_t o0, int32_t t, int32_t p, int32_t q, bool inside, conv_step &step) {
#pragma unroll
  for (int n = 0; n < 8; n++) step.dy[n] = step.x[n] = 0.0f;
  if (!inside) return;
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const int32_t o = o0 + 32 * j;
    const int64_t at = image_at(job.dy[s], t, p, q, o);
    if (job.wide) {
      float v[4] = {};
      if (o < job.O) image_get<4>(job.dy[s], dy, at, v);
#pragma unroll
      for (int n = 0; n < 4; n++) step.dy[4 * j + n] = v[n];
    } else {
#pragma unroll
      for (int n = 0; n < 4; n++)
        if (o + n < job.O) step.dy[4 * j + n] = plane_get(job.dy[s].p, dy, at + (int64_t)n * job.dy[s].p.col);
    }
  }
#pragma unroll
  for (int n = 0; n < conv_columns<WIDE>::COUNT; n++) {
    const int32_t h = p * job.stride + (own.tap[n] >> 16) - job.pad;
    const int32_t w = q * job.stride + (own.tap[n] & 0xffff) - job.pad;
    if (own.i[n] < 0 || h < 0 || h >= job.H || w < 0 || w >= job.W) continue;
    const int64_t at = image_at(job.x[s], t, h, w, own.i[n]);
    if (WIDE) {
      float v[4];
      image_get<4>(job.x[s], x, at, v);
#pragma unroll
      for (int e = 0; e < 4; e++) step.x[4 * n + e] = v[e];
    } else {
      step.x[n] = plane_get(job.x[s].p, x, at);
    }
  }
}

/* blocks of (tiles; groups; chunks) */
template <bool WIDE>
static __global__ void __launch_bounds__(CONV_THREADS, WIDE ? 3 : 2) conv_weights(const __grid_constant__ conv_sum job) {
  __shared__ __align__(16) float sd[2][PARAM_PIXELS][PARAM_LD], sx[2][PARAM_PIXELS][PARAM_LD];
  const int     tx = (int)threadIdx.x % (PARAM_COLS / PARAM_TC) * PARAM_TC;
  const int     ty = (int)threadIdx.x / (PARAM_COLS / PARAM_TC) * PARAM_TR;
  const int32_t row = (int32_t)threadIdx.x / 8, lane = (int32_t)threadIdx.x % 8 * 4;
  const int32_t columns = job.I * job.K * job.K, across = (columns + PARAM_COLS - 1) / PARAM_COLS;
  const int32_t o0 = (int32_t)blockIdx.x / across * PARAM_ROWS, j0 = (int32_t)blockIdx.x % across * PARAM_COLS;
  const bool    live = o0 + ty < job.O && j0 + tx < columns;
  conv_columns<WIDE> own;
  conv_columns_of(job, j0 + lane, own);
  for (int32_t b = (int32_t)blockIdx.y; b < job.B; b += (int32_t)gridDim.y) {
    if (!plane_leads(job.out.p, b)) continue;
    const conv_group g = conv_group_of(job, b);
    for (int32_t chunk = (int32_t)blockIdx.z; chunk < g.chunks; chunk += (int32_t)gridDim.z) {
      float acc[PARAM_TR][PARAM_TC] = {};
      int   turn = 0;
      for (conv_part part(job, g, b, chunk); part.enter(job, g); part.next(job))
        for (int s = 0; s < job.terms; s++) {
          const char   *x = plane_task(job.x[s].p, part.k), *dy = plane_task(job.dy[s].p, part.k);
          const int32_t pixels = (part.t1 - part.t0) * job.P * job.Q;
          int32_t       q = row % job.Q, p = row / job.Q % job.P, t = part.t0 + row / job.Q / job.P;
          conv_step     step;
          if (!x || !dy) continue;
          conv_fetch(job, s, x, dy, own, o0 + lane, t, p, q, row < pixels, step);
          for (int32_t m = 0; m < pixels; m += PARAM_PIXELS, turn ^= 1) {
#pragma unroll
            for (int j = 0; j < 2; j++) {
              float4 *to_d = reinterpret_cast<float4 *>(&sd[turn][row][lane + 32 * j]);
              float4 *to_x = reinterpret_cast<float4 *>(&sx[turn][row][lane + 32 * j]);
              *to_d = make_float4(step.dy[4 * j], step.dy[4 * j + 1], step.dy[4 * j + 2], step.dy[4 * j + 3]);
              *to_x = make_float4(step.x[4 * j], step.x[4 * j + 1], step.x[4 * j + 2], step.x[4 * j + 3]);
            }
            __syncthreads();                 /* two buffers: those who fill one have left it two steps before */
            if (m + PARAM_PIXELS < pixels) {
              q += job.d_q, p += job.d_p, t += job.d_t;
              if (q >= job.Q) q -= job.Q, p++;
              if (p >= job.P) p -= job.P, t++;
              conv_fetch(job, s, x, dy, own, o0 + lane, t, p, q, m + PARAM_PIXELS + row < pixels, step);
            }
            if (!live) continue;
#pragma unroll
            for (int n = 0; n < PARAM_PIXELS; n++) conv_fma(&sd[turn][n][ty], &sx[turn][n][tx], acc);
          }
        }
      const conv_result to(job, g, b, chunk);
#pragma unroll
      for (int c = 0; c < PARAM_TC; c++)
#pragma unroll
        for (int r = 0; r < PARAM_TR; r++) to.put(job, o0 + ty + r, j0 + tx + c, acc[r][c]);
      __syncthreads();
    }
  }
}

/* b's: blocks of (32 outputs; groups; chunks), lanes over lines of pixels */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) conv_bias(const __grid_constant__ conv_sum job) {
  __shared__ double sums[THREADS];
  const int     lane = (int)threadIdx.y, at = lane * BIAS_COLUMNS + (int)threadIdx.x;
  const int32_t o = (int32_t)blockIdx.x * BIAS_COLUMNS + (int32_t)threadIdx.x;
  const image_plane &dy = job.dy[0];
  for (int32_t b = (int32_t)blockIdx.y; b < job.B; b += (int32_t)gridDim.y) {
    if (!plane_leads(job.out.p, b)) continue;
    const conv_group g = conv_group_of(job, b);
    for (int32_t chunk = (int32_t)blockIdx.z; chunk < g.chunks; chunk += (int32_t)gridDim.z) {
      double sum = 0;
      for (conv_part part(job, g, b, chunk); part.enter(job, g); part.next(job)) {
        const char *task = plane_task(dy.p, part.k);
        if (!task || o >= job.O) continue;
        for (int32_t n = part.t0 * job.P + lane; n < part.t1 * job.P; n += BIAS_LANES)
          for (int32_t q = 0; q < job.Q; q++)
            sum += (double)plane_get(dy.p, task, image_at(dy, n / job.P, n % job.P, q, o));
      }
      sums[at] = sum;
      __syncthreads();
      for (int half = BIAS_LANES / 2; half; half /= 2) {
        if (lane < half) sums[at] += sums[at + half * BIAS_COLUMNS];
        __syncthreads();
      }
      if (lane == 0 && o < job.O) {
        if (g.chunks > 1) conv_partial(job, g, chunk, job.O)[o] = (float)sums[at];
        else plane_put(job.out.p, plane_task(job.out.p, b), (int64_t)o * job.out.p.row, sums[at], job.out.p.add);
      }
      __syncthreads();
    }
  }
}

/* groups of several chunks: blocks of (cells; groups) */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) conv_reduce(const __grid_constant__ conv_sum job) {
  const int32_t columns = job.I * job.K * job.K;
  const int64_t cells = (int64_t)job.O * columns;
  for (int32_t b = (int32_t)blockIdx.y; b < job.B; b += (int32_t)gridDim.y) {
    if (!plane_leads(job.out.p, b)) continue;
    const conv_group g = conv_group_of(job, b);
    if (g.chunks < 2) continue;
    for (int64_t cell = (int64_t)blockIdx.x * THREADS + threadIdx.x; cell < cells;
         cell += (int64_t)gridDim.x * THREADS) {
      const int32_t o = (int32_t)(cell / columns), column = (int32_t)(cell - (int64_t)o * columns);
      const int32_t tap = column / job.I;
      double        sum = 0;
      for (int32_t c = 0; c < g.chunks; c++) sum += (double)conv_partial(job, g, c, cells)[cell];
      plane_put(job.out.p, plane_task(job.out.p, b),
                image_at(job.out, o, tap / job.K, tap % job.K, column - tap * job.I), sum, job.out.p.add);
    }
  }
}

/* ---- launchers ---- */

mica_status conv_params_cuda(const char *name, int face, const mica_conv2d_args *a, const mica_exec *exec) {
  const bool        dual = face == MICA_BACKWARD_JVP;
  const mica_wire  &w = dual ? a->w.td : a->w.d, &bias = dual ? a->b.td : a->b.d;
  const mica_wire  *x[2] = { &a->x.v, dual ? &a->x.t : NULL }, *dy[2] = { dual ? &a->y.td : &a->y.d, &a->y.d };
  for (int which = 0; which < 2; which++) {
    const mica_wire &out = which ? bias : w;
    conv_sum         job = {};
    if (!out.data || a->B <= 0 || a->O <= 0) continue;
    job.B = (int32_t)a->B, job.each = (int32_t)conv_chunk(a), job.T = (int32_t)a->T, job.H = (int32_t)a->H;
    job.W = (int32_t)a->W, job.P = (int32_t)a->P, job.Q = (int32_t)a->Q, job.O = (int32_t)a->O, job.pad = (int32_t)a->pad;
    job.I = which ? 1 : (int32_t)a->I, job.K = which ? 1 : (int32_t)a->K, job.stride = (int32_t)a->stride;
    job.offsets = conv_offsets(a), job.partial = static_cast<float *>(exec->scratch);
    job.out = which ? image_strided(out, NULL, 0, 0, 0) : conv_weights_of(out);
    job.d_q = PARAM_PIXELS % job.Q, job.d_p = PARAM_PIXELS / job.Q % job.P, job.d_t = PARAM_PIXELS / job.Q / job.P;
    job.wide = job.O % 4 == 0, job.wide_x = job.I % 4 == 0;
    for (int s = 0; s < 2; s++) {
      if (which ? s > 0 : !x[s] || !x[s]->data || !dy[s]->data) continue;
      const int n = job.terms++;
      job.dy[n] = image_of(*dy[s], a->y.offsets);
      if (!which) job.x[n] = image_of(*x[s], a->x.offsets);
      job.wide = job.wide && image_by_four(job.dy[n]), job.wide_x = job.wide_x && image_by_four(job.x[n]);
    }
    const plane all[] = { job.out.p, job.x[0].p, job.x[1].p, job.dy[0].p, job.dy[1].p };
    mica_status status = plane_check(name, all, 5);
    if (status >= 0) status = plane_check_task(name, a->B, a->T);
    if (status >= 0) status = plane_check_task(name, a->T * a->H * a->W, a->I);
    if (status >= 0) status = plane_check_task(name, a->T * a->P * a->Q + PARAM_PIXELS, a->O);
    if (status < 0) return status;
    const bool     together = plane_together(job.out.p), apart = plane_apart(job.out.p);
    const int64_t  columns = (int64_t)job.I * job.K * job.K, chunks = conv_chunks(a, apart ? a->T : a->B * a->T);
    const unsigned groups = together ? 1 : micak_task_blocks(a->B);
    const unsigned deep = !together && !apart && chunks > CHUNK_BLOCKS ? CHUNK_BLOCKS : micak_task_blocks(chunks);
    const int64_t  across = (columns + PARAM_COLS - 1) / PARAM_COLS, high = (a->O + PARAM_ROWS - 1) / PARAM_ROWS;
    const dim3     grid(micak_blocks(across * high, 1), groups, deep);
    if (which)
      status = micak_launch(name, conv_bias<BIAS_COLUMNS * BIAS_LANES>,
                            dim3(micak_blocks(a->O, BIAS_COLUMNS), groups, deep), dim3(BIAS_COLUMNS, BIAS_LANES), 0,
                            exec->stream, job);
    else if (conv_by_tensor(job.O, job.x, job.dy, job.terms))
      status = (job.x[0].p.dtype == MICA_BF16 ? conv_sums_bf16 : conv_sums_tf32)(name, job, grid, exec->stream);
    else
      status = micak_launch(name, job.wide_x ? conv_weights<true> : conv_weights<false>, grid, dim3(CONV_THREADS), 0,
                            exec->stream, job);
    if (status >= 0 && chunks > 1)
      status = micak_launch(name, conv_reduce<REDUCE_THREADS>,
                            dim3(micak_blocks(a->O * columns, REDUCE_THREADS), groups), dim3(REDUCE_THREADS), 0, exec->stream, job);
    if (status < 0) return status;
  }
  return MICA_OK;
}
