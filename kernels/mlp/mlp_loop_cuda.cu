/* mlp_loop on CUDA: a task is a block's from its first step to its last sum. README.md says what lies where. */
#include "mlp/mlp_cuda.cuh"

#define EACH(i, n) for (int i = (int)threadIdx.x; i < (n); i += (int)blockDim.x)

/* ---- device: a task ---- */

enum { STEP, JUDGE, BACK };                  /* a pass: theta -= rate g; u = g; u += loss g - H u */

struct mlp_task {
  const mlp_job &job;
  float   *theta, *u, *act, *g, *h, *trail, *stretch;
  int64_t  b;
  int      loaded;                           /* whose rows are in place: 1 the support's, 2 the query's */

  __device__ __forceinline__ float *unit(int n) const { return act + n * job.pitch; }
};

MLP_DEVICE void split_quads(float4 v, float (&e)[4]) { e[0] = v.x, e[1] = v.y, e[2] = v.z, e[3] = v.w; }
MLP_DEVICE void get_quads(const float *at, float (&e)[4]) { split_quads(*reinterpret_cast<const float4 *>(at), e); }
MLP_DEVICE void put_quads(float *at, const float (&e)[4]) { mlp_put_4(at, e[0], e[1], e[2], e[3]); }

/* sums of two units by four rows */
struct tile {
  float v[2][4];
};
MLP_DEVICE tile no_tile() { return tile{ { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } } }; }
/* += sum over k < n of w[k step], and of w[k step + other], by rows of x */
MLP_DEVICE void add_up(tile &s, const float *w, int other, int step, const float *x, int n, int pitch) {
#pragma unroll 4
  for (int k = 0; k < n; k++) {
    float e[4];
    get_quads(x, e);
    const float p = w[0], q = w[other];
#pragma unroll
    for (int r = 0; r < 4; r++) s.v[0][r] = fmaf(p, e[r], s.v[0][r]), s.v[1][r] = fmaf(q, e[r], s.v[1][r]);
    w += step, x += pitch;
  }
}
MLP_DEVICE void times(tile &s, float scale) {
#pragma unroll
  for (int r = 0; r < 4; r++) s.v[0][r] *= scale, s.v[1][r] *= scale;
}

MLP_DEVICE float act_value(float z, int act) {
  return act == MICA_ACT_RELU ? v_max(z, 0.0f) : act == MICA_ACT_TANH ? v_tanh(z) : v_sigmoid(z);
}
MLP_DEVICE float act_slope(float a, int act) {
  if (act == MICA_ACT_RELU) return a > 0 ? 1.0f : 0.0f;
  return act == MICA_ACT_TANH ? fmaf(-a, a, 1.0f) : fmaf(-a, a, a);
}
MLP_DEVICE float act_curve(float a, float slope, int act) {
  return act == MICA_ACT_TANH ? -2.0f * a * slope : slope * fmaf(-2.0f, a, 1.0f);
}

MLP_DEVICE float rate_of(const mlp_task &t, int param, int64_t step) {
  const float *at = mlp_at(t.job.rate[param], NULL, t.b);
  return at ? at[step * t.job.rate_step[param]] : 0.0f;
}

/* numbers of weights here from, or to (OUT), where task `index` of wires has them; wires NULL: all in a row at base */
template <bool OUT>
MLP_DEVICE void move(const mlp_job &job, float *weights, const mlp_wire *wires, float *base, int64_t index) {
  for (int l = 0; l < job.layers; l++) {
    const int in = job.width[l], out = job.width[l + 1], row = job.row[l];
    float    *w = weights + job.weights[l];
    float    *from = wires ? mlp_at(wires[2 * l], NULL, index) : base + job.number[2 * l];
    float    *bias = wires ? mlp_at(wires[2 * l + 1], NULL, index) : base + job.number[2 * l + 1];
    EACH(n, !OUT || from ? in *out : 0) {
      const int o = n / in, at = o * row + n - o * in;
      if (OUT) from[n] = w[at];
      else w[at] = from ? from[n] : 0.0f;
    }
    EACH(o, job.bias[l] && (!OUT || bias) ? out : 0) {
      if (OUT) bias[o] = w[o * row + in];
      else w[o * row + in] = bias ? bias[o] : 0.0f;
    }
  }
}

/* what a pass works on */
struct pass {
  int         kind, second;                  /* second: tangents too */
  int64_t     k;                             /* step */
  const float *x, *y, *seeds;                /* y: or i32 labels; seeds: of the query's rows, 1 number or one a row;
                                              * NULL: zeros */
  int         rows, first, count;            /* of the task; a chunk's */
  float       scale;                         /* of a row's residual, but for the seed */
};

MLP_DEVICE float seed_of(const mlp_task &t, const pass &p, int r) {
  if (p.kind != JUDGE) return p.scale;
  if (!p.seeds) return 0.0f;
  return p.scale * p.seeds[t.job.mean_rows ? 0 : p.first + r];
}

/* `width` numbers of each row of a chunk to units, in the order in which they lie; zeros where there are none */
MLP_DEVICE void load_rows(const mlp_task &t, const pass &p, const float *from, int width, float *units) {
  const int rows = (p.count + 3) & ~3;
  EACH(n, rows * width) {
    const int r = n / width, i = n - r * width;
    units[i * t.job.pitch + r] = r < p.count && from ? from[(int64_t)p.first * width + n] : 0.0f;
  }
}

/* units of layer l + 1 */
template <bool LABELS>
MLP_DEVICE void go_down(const mlp_task &t, const pass &p, int l) {
  const mlp_job &job = t.job;
  const int   in = job.width[l], out = job.width[l + 1], row = job.row[l];
  const int   half = (out + 1) / 2, quads = (p.count + 3) / 4;
  const bool  end = l + 1 == job.layers;
  const float rate = p.second ? rate_of(t, 2 * l, p.k) : 0, bias = p.second ? rate_of(t, 2 * l + 1, p.k) : 0;
  EACH(n, half * quads) {
    const int    o = n / quads, q = 4 * (n - o * quads), two = o + half < out, other = two ? half * row : 0;
    const float *w = t.theta + job.weights[l] + o * row, *a = t.unit(job.a[l]) + q;
    tile         z = no_tile(), s = no_tile();
    add_up(z, w, other, 1, a, in + job.bias[l], job.pitch);
    if (p.second) {
      const float *v = t.u + job.weights[l] + o * row;
      add_up(s, v, other, 1, a, in, job.pitch);
      times(s, rate);
#pragma unroll
      for (int r = 0; job.bias[l] && r < 4; r++)
        s.v[0][r] = fmaf(bias, v[in], s.v[0][r]), s.v[1][r] = fmaf(bias, v[other + in], s.v[1][r]);
      if (l) add_up(s, w, other, 1, t.unit(job.at[l]) + q, in, job.pitch);
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const int unit = o + j * half;
      if (j && !two) break;
      float e[4], d[4], m[4];
#pragma unroll
      for (int r = 0; r < 4; r++) {
        if (end) {                             /* of labels, soften() has the rest */
          const bool inside = q + r < p.count;
          e[r] = inside ? z.v[j][r] - (LABELS ? 0.0f : t.unit(job.d[l + 1] + unit)[q + r]) : 0.0f;
          d[r] = inside ? seed_of(t, p, q + r) * e[r] : 0.0f;
          m[r] = inside ? p.scale * s.v[j][r] : 0.0f;
        } else {
          e[r] = act_value(z.v[j][r], job.act);
          m[r] = s.v[j][r];
          d[r] = p.second ? m[r] * act_slope(e[r], job.act) : 0.0f;
        }
      }
      put_quads(t.unit(job.a[l + 1] + unit) + q, e);
      if (end) put_quads(t.unit(job.d[l + 1] + unit) + q, d);
      else if (p.second) put_quads(t.unit(job.at[l + 1] + unit) + q, d);
      if (p.second) put_quads(t.unit(job.dt[l + 1] + unit) + q, m);
    }
  }
}

/* logits of a chunk become probabilities, their residuals the last cotangents; a thread has a row. a row without a label
 * has no derivatives, one of a label that there is not is NaN */
MLP_DEVICE void soften(const mlp_task &t, const pass &p) {
  const mlp_job &job = t.job;
  const int      out = job.width[job.layers], pitch = job.pitch;
  const int32_t *labels = reinterpret_cast<const int32_t *>(p.y);
  EACH(r, (p.count + 3) & ~3) {
    float    *a = t.unit(job.a[job.layers]) + r, *d = t.unit(job.d[job.layers]) + r;
    float    *dt = t.unit(job.dt[job.layers]) + r;
    const int label = r >= p.count ? -1 : labels ? labels[p.first + r] : 0;
    float     top = -INFINITY, sum = 0, mean = 0, own = NAN;
    for (int o = 0; o < out; o++) {
      const float z = a[o * pitch];
      top = v_max(z, top);
      if (o == label) own = z;
    }
    for (int o = 0; o < out; o++) sum += a[o * pitch] = v_exp(a[o * pitch] - top);
    const float seed = label < 0 ? 0.0f : seed_of(t, p, r), part = label < out ? 1.0f / sum : NAN;
    for (int o = 0; o < out; o++) {
      const float q = label < 0 ? 0.0f : part * a[o * pitch];
      a[o * pitch] = q;
      d[o * pitch] = seed * (o == label ? q - 1.0f : q);
      if (p.second) mean = fmaf(q, dt[o * pitch], mean);
    }
    for (int o = 0; p.second && o < out; o++) dt[o * pitch] = a[o * pitch] * (dt[o * pitch] - mean);
    t.unit(job.sums)[r] = label < 0 ? 0.0f : v_log(sum) + (top - own);
  }
}

/* cotangents of the sums of layer l from those of the layer above */
MLP_DEVICE void go_up(const mlp_task &t, const pass &p, int l) {
  const mlp_job &job = t.job;
  const int   in = job.width[l], out = job.width[l + 1], row = job.row[l];
  const int   half = (in + 1) / 2, quads = (p.count + 3) / 4;
  const float rate = p.second ? rate_of(t, 2 * l, p.k) : 0;
  EACH(n, half * quads) {
    const int    i = n / quads, q = 4 * (n - i * quads), two = i + half < in, other = two ? half : 0;
    const float *w = t.theta + job.weights[l] + i;
    tile         s = no_tile(), m = no_tile();
    add_up(s, w, other, row, t.unit(job.d[l + 1]) + q, out, job.pitch);
    if (p.second) {
      add_up(m, t.u + job.weights[l] + i, other, row, t.unit(job.d[l + 1]) + q, out, job.pitch);
      times(m, rate);
      add_up(m, w, other, row, t.unit(job.dt[l + 1]) + q, out, job.pitch);
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const int unit = i + j * half;
      if (j && !two) break;
      float a[4], d[4], dt[4] = { 0, 0, 0, 0 };
      get_quads(t.unit(job.a[l] + unit) + q, a);
      if (p.second) get_quads(t.unit(job.dt[l] + unit) + q, dt);
#pragma unroll
      for (int r = 0; r < 4; r++) {
        const float slope = act_slope(a[r], job.act);
        d[r] = s.v[j][r] * slope;
        float moved = m.v[j][r] * slope;
        if (job.act != MICA_ACT_RELU) moved = fmaf(act_curve(a[r], slope, job.act) * dt[r], s.v[j][r], moved);
        dt[r] = moved;
      }
      put_quads(t.unit(job.d[l] + unit) + q, d);
      if (p.second) put_quads(t.unit(job.dt[l] + unit) + q, dt);
    }
  }
}

/* g = sum over rows of d a, h of dt a + d at, of two by two weights, from what chunks before left; at the last of them
 * what the pass wants */
MLP_DEVICE void weigh(const mlp_task &t, const pass &p, int l, float loss_d, float (&slope)[2]) {
  const mlp_job &job = t.job;
  const int  in = job.width[l], out = job.width[l + 1], K = in + job.bias[l], row = job.row[l], pitch = job.pitch;
  const int  tall = (out + 1) / 2, wide = (K + 1) / 2, rows = (p.count + 3) & ~3;
  const bool begins = p.first == 0, ends = p.first + p.count >= p.rows;
  const float rate = rate_of(t, 2 * l, p.k), bias = rate_of(t, 2 * l + 1, p.k);
  EACH(n, tall * wide) {
    const int    o = n / wide, i = n - o * wide, two = o + tall < out ? tall : 0, more = i + wide < K ? wide : 0;
    const int    place = job.weights[l] + o * row + i;
    const float *d = t.unit(job.d[l + 1] + o), *dt = t.unit(job.dt[l + 1] + o);
    const float *a = t.unit(job.a[l] + i), *at = t.unit(job.at[l] + i);
    float        g[2][2], h[2][2];
#pragma unroll
    for (int x = 0; x < 2; x++)
#pragma unroll
      for (int y = 0; y < 2; y++) {
        const int k = place + (x ? two * row : 0) + (y ? more : 0);
        g[x][y] = begins ? 0.0f : t.g[k];
        h[x][y] = begins || !p.second ? 0.0f : t.h[k];
      }
    for (int r = 0; r < rows; r += 4) {
      float e[2][4], v[2][4];
      get_quads(d + r, e[0]), get_quads(d + two * pitch + r, e[1]);
      get_quads(a + r, v[0]), get_quads(a + more * pitch + r, v[1]);
#pragma unroll
      for (int k = 0; k < 4; k++)
#pragma unroll
        for (int x = 0; x < 2; x++)
#pragma unroll
          for (int y = 0; y < 2; y++) g[x][y] = fmaf(e[x][k], v[y][k], g[x][y]);
      if (p.second) {
        float et[2][4], vt[2][4] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };
        get_quads(dt + r, et[0]), get_quads(dt + two * pitch + r, et[1]);
        if (l) get_quads(at + r, vt[0]), get_quads(at + more * pitch + r, vt[1]);
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
          for (int x = 0; x < 2; x++)
#pragma unroll
            for (int y = 0; y < 2; y++) h[x][y] = fmaf(e[x][k], vt[y][k], fmaf(et[x][k], v[y][k], h[x][y]));
      }
    }
#pragma unroll
    for (int x = 0; x < 2; x++)
#pragma unroll
      for (int y = 0; y < 2; y++) {
        const int  k = place + x * tall * row + y * wide;
        const bool of_bias = i + y * wide == in;
        if ((x && !two) || (y && !more)) continue;
        if (!ends) {
          t.g[k] = g[x][y];
          if (p.second) t.h[k] = h[x][y];
        } else if (p.kind == STEP) {
          t.theta[k] -= (of_bias ? bias : rate) * g[x][y];
        } else if (p.kind == JUDGE) {
          t.u[k] = g[x][y];
        } else {
          const float before = t.u[k];
          slope[0] = fmaf(of_bias ? 0.0f : g[x][y], before, slope[0]);
          slope[1] = fmaf(of_bias ? g[x][y] : 0.0f, before, slope[1]);
          t.u[k] = fmaf(loss_d, g[x][y], before - h[x][y]);
        }
      }
  }
}

/* `all` and the losses of a chunk, row by row, for thread 0; of the query: losses of rows to theirs */
template <bool LABELS>
MLP_DEVICE float losses(const mlp_task &t, const pass &p, float *loss, float all) {
  const mlp_job &job = t.job;
  const int      out = job.width[job.layers];
  const float    part = p.kind == JUDGE && job.mean_out ? 1.0f / (float)out : 1.0f;
  float         *sums = t.unit(job.sums);
  EACH(r, p.count) {
    float sum = LABELS ? sums[r] : 0.0f;
    for (int o = 0; !LABELS && o < out; o++) {
      const float e = t.unit(job.a[job.layers] + o)[r];
      sum = fmaf(e, e, sum);
    }
    sums[r] = sum *= part;
    if (p.kind == JUDGE && loss && !job.mean_rows) loss[p.first + r] = sum;
  }
  __syncthreads();
  for (int r = 0; threadIdx.x == 0 && r < p.count; r++) all += sums[r];
  return all;
}

/* the loss at theta, and what the pass does with its gradient */
template <bool LABELS>
MLP_DEVICE void run_pass(mlp_task &t, pass p, float *loss, float loss_d) {
  const mlp_job  &job = t.job;
  const int       judge = p.kind == JUDGE, back = !judge || job.what == MICAK_MLP_BOTH;
  const mlp_rows &from = judge ? job.query : job.support;
  __shared__ float part[MLP_THREADS / 32];
  float           *slopes = p.kind == BACK && job.rate_back
                                ? job.rate_back + ((t.b - job.back_first) * job.steps + p.k) * MICAK_MLP_PARAMS : NULL;
  float            sum = 0;
  p.x = mlp_at(from.x, from.offsets, t.b), p.y = mlp_at(from.y, from.offsets, t.b);
  p.rows = (int)(from.offsets ? from.offsets[t.b + 1] - from.offsets[t.b] : from.R);
  const float over = p.rows ? 1.0f / (float)p.rows : 0.0f;
  p.scale = (LABELS ? 1.0f : 2.0f) * (judge && !job.mean_rows ? 1.0f : over);
  if (judge && job.mean_out) p.scale *= 1.0f / (float)job.width[job.layers];
  /* a task without rows has a pass of none, which leaves zeros */
  for (p.first = 0; p.first == 0 || p.first < p.rows; p.first += job.chunk) {
    p.count = min(job.chunk, p.rows - p.first);
    if (t.loaded != 1 + judge) load_rows(t, p, p.x, job.width[0], t.unit(job.a[0]));
    if (!LABELS) load_rows(t, p, p.y, job.width[job.layers], t.unit(job.d[job.layers])); /* then cotangents lie there */
    t.loaded = p.rows <= job.chunk ? 1 + judge : 0;
    __syncthreads();
    for (int l = 0; l < job.layers; l++) {
      go_down<LABELS>(t, p, l);
      __syncthreads();
    }
    if (LABELS) {
      soften(t, p);
      __syncthreads();
    }
    if (judge || loss) sum = losses<LABELS>(t, p, loss, sum);
    for (int l = job.layers - 1; back && l > 0; l--) {
      go_up(t, p, l);
      __syncthreads();
    }
    for (int l = 0; back && l < job.layers; l++) {
      float slope[2] = { 0, 0 };
      weigh(t, p, l, loss_d, slope);
      if (!slopes || p.first + p.count < p.rows) continue;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float all = block_sum(slope[i], part);
        if (threadIdx.x == 0) slopes[2 * l + i] = -all;
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0 && loss && (!judge || job.mean_rows)) *loss = sum * over;
}

/* theta_k, k a multiple of the stride, is kept: where all tasks' are, or in a block's trail */
template <bool OUT>
MLP_DEVICE void keep(const mlp_task &t, int64_t k) {
  const int64_t n = k / t.job.stride - 1;
  if (t.job.what == MICAK_MLP_BOTH) move<OUT>(t.job, t.theta, NULL, t.trail + n * t.job.numbers, 0);
  else move<OUT>(t.job, t.theta, t.job.kept, NULL, n * t.job.B + t.b);
}

/* all steps down and the query, then stretch by stretch back: to its first theta, down again to its last, up */
template <bool LABELS>
MLP_DEVICE void run_task(mlp_task &t) {
  const mlp_job &job = t.job;
  const int      what = job.what, down = what != MICAK_MLP_BACKWARD, judge = what >= MICAK_MLP_TASK;
  float         *loss = mlp_at(job.loss, NULL, t.b), *loss_d = mlp_at(job.loss_d, NULL, t.b);
  const int      slopes = job.rate_back || loss_d;
  int64_t        stretches = (job.steps - 1) / job.stride + 1;
  if (what == MICAK_MLP_FORWARD || what == MICAK_MLP_TASK || (job.first_order && !slopes)) stretches = 0;
  t.loaded = 0;
  if (down) move<false>(job, t.theta, job.start, NULL, t.b);
  else move<false>(job, t.u, job.last_d, NULL, t.b);
  for (int64_t n = down ? -1 : 0; n < stretches; n++) {
    const int64_t begins = n < 0 ? 0 : ((job.steps - 1) / job.stride - n) * job.stride;
    const int64_t end = min(begins + job.stride, job.steps), low = max(begins, job.stop), again = end - begins - 1;
    if (n >= 0 && end <= job.stop) break;
    const int64_t passes = n < 0 ? job.steps + judge : again + end - low;
    if (n >= 0) {
      __syncthreads();
      if (begins) keep<false>(t, begins);
      else move<false>(job, t.theta, job.start, NULL, t.b);
    }
    for (int64_t j = 0; j < passes; j++) {
      pass   p = {};
      float *to = NULL, moves = 0;
      __syncthreads();
      if (n < 0) {
        p.kind = j < job.steps ? STEP : JUDGE, p.k = j < job.steps ? j : 0;
        const mlp_wire &seeds = job.query_loss_d;
        const int32_t  *offsets = job.mean_rows ? NULL : job.query.offsets;
        if (p.kind == STEP) to = loss ? loss + j : NULL;
        else to = mlp_at(job.query_loss, offsets, t.b), p.seeds = mlp_at(seeds, offsets, t.b);
      } else {
        p.kind = j < again ? STEP : BACK, p.k = j < again ? begins + j : end - 1 - (j - again);
        if (j > again) move<false>(job, t.theta, NULL, t.stretch + (p.k - begins) * job.numbers, 0);
        else if (j < again) move<true>(job, t.theta, NULL, t.stretch + j * job.numbers, 0);
        p.second = p.kind == BACK && !job.first_order;
        if (p.kind == BACK && loss_d) moves = loss_d[p.k];
      }
      run_pass<LABELS>(t, p, to, moves);
      if (n < 0 && j + 1 < job.steps && (j + 1) % job.stride == 0 && what != MICAK_MLP_TASK) keep<true>(t, j + 1);
    }
  }
  __syncthreads();
  if (what == MICAK_MLP_FORWARD) move<true>(job, t.theta, job.last, NULL, t.b);
  else if (what != MICAK_MLP_TASK) move<true>(job, t.u, NULL, job.back + (t.b - job.back_first) * job.numbers, 0);
  __syncthreads();
}

/* NEAR: theta and u lie in shared memory, and code that reads nothing else is shorter. LABELS: registers */
template <bool NEAR, bool LABELS>
static __global__ void __launch_bounds__(MLP_THREADS, 2) mlp_loop(const __grid_constant__ mlp_job job) {
  DYN_SMEM(float, memory);
  float   *own = job.scratch + (int64_t)blockIdx.x * job.own;
  mlp_task t = { job, NULL, NULL, memory, NULL, NULL, NULL, NULL, 0, 0 };
  float   *next = memory + (int64_t)job.all * job.pitch;
  t.theta = NEAR || job.there >= 1 ? next : own;
  (NEAR || job.there >= 1 ? next : own) += job.floats;
  t.u = NEAR || job.there >= 2 ? next : own;
  if (!NEAR && job.there < 2) own += job.floats;
  t.g = own, t.h = own + job.floats, own += 2 * (int64_t)job.floats;
  t.trail = own, t.stretch = own + (job.what == MICAK_MLP_BOTH ? (job.steps - 1) / job.stride : 0) * job.numbers;
  /* the input of a bias is 1 and does not move */
  for (int l = 0; l < job.layers; l++)
    EACH(r, job.bias[l] ? job.pitch : 0) {
      t.unit(job.a[l] + job.width[l])[r] = 1;
      if (l && (job.what == MICAK_MLP_BACKWARD || job.what == MICAK_MLP_BOTH)) t.unit(job.at[l] + job.width[l])[r] = 0;
    }
  for (int64_t b = job.first + blockIdx.x; b < job.first + job.count; b += gridDim.x) {
    t.b = b;
    run_task<LABELS>(t);
  }
}

/* ---- host ---- */

/* units of activations; tangents where there is a way back */
static void lay_out(mlp_job *job, int back) {
  int32_t units = 0;
  for (int l = 0; l <= job->layers; l++) {
    const int32_t n = job->width[l], one = l < job->layers && job->bias[l];
    job->a[l] = units, units += n + one;
    job->d[l] = units, units += l ? n : 0;
    job->at[l] = units, units += back && l && l < job->layers ? n + one : 0;
    job->dt[l] = units, units += back && l ? n : 0;
  }
  job->sums = units++;
  job->all = units;
}

static void open_job(const micak_mlp_loop *m, int what, mlp_job *job) {
  job->layers = m->layers, job->act = m->act, job->first_order = m->first_order, job->what = what;
  for (int l = 0; l <= m->layers; l++) job->width[l] = (int32_t)m->width[l];
  for (int l = 0; l < m->layers; l++) {
    job->bias[l] = m->bias[l];
    job->row[l] = (job->width[l] + job->bias[l]) | 1;
    job->weights[l] = job->floats, job->floats += job->width[l + 1] * job->row[l];
    job->number[2 * l] = job->numbers, job->numbers += job->width[l + 1] * job->width[l];
    job->number[2 * l + 1] = job->numbers, job->numbers += job->bias[l] ? job->width[l + 1] : 0;
  }
  job->floats = (job->floats + 3) / 4 * 4;
  lay_out(job, what == MICAK_MLP_BACKWARD || what == MICAK_MLP_BOTH);
}
/* rows of activations: 4 floats for each 4, such that units four rows apart lie in other banks */
static int32_t pitch_of(int32_t chunk) { return chunk % 8 ? chunk : chunk + 4; }
static int64_t own_floats(const mlp_job *job, const micak_mlp_loop *m, int32_t there) {
  const int64_t kept = job->what == MICAK_MLP_BOTH ? (m->steps - 1) / m->stride : 0;
  return (int64_t)(4 - there) * job->floats + (kept + (m->stride > 1 ? m->stride : 0)) * job->numbers;
}

extern "C" mica_status micak_mlp_cuda_plan(const micak_mlp_loop *m, int what, int64_t tasks, micak_mlp_cuda *out) {
  static const int32_t chunks[] = { 32, 16, 8 };
  mlp_job     job = {};
  int         device = 0, most = 0, units = 0;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess) code = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (code == cudaSuccess) code = cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, device);
  if (code != cudaSuccess) {
    (void)cudaGetLastError();
    return micak_cuda_error("cudaDeviceGetAttribute", "mlp_loop", code);
  }
  open_job(m, what, &job);
  const int64_t room = most - MICAK_MOST_STATIC;
  const int64_t rows = what >= MICAK_MLP_TASK && m->query.R > m->R ? m->query.R : m->R;
  const int32_t weights = what == MICAK_MLP_BACKWARD || what == MICAK_MLP_BOTH ? 2 : 1;
  int32_t       widest = 0;
  *out = micak_mlp_cuda{ what, 64, 0, 0, -1, 0, 0 };
  for (int l = 0; l <= m->layers; l++) widest = job.width[l] > widest ? job.width[l] : widest;
  while (out->threads < MLP_THREADS && out->threads < (widest + 1) / 2 * 3) out->threads *= 2;
  /* all of it with as many rows as there are, or fewer; else the weights elsewhere */
  for (int there = weights; there >= 0 && out->there < 0; there--)
    for (int i = 0; i < 3 && out->there < 0; i++) {
      const int32_t chunk = rows < chunks[i] ? (int32_t)(rows < 1 ? 4 : (rows + 3) / 4 * 4) : chunks[i];
      const int64_t bytes = ((int64_t)job.all * pitch_of(chunk) + (int64_t)there * job.floats) * (int64_t)sizeof(float);
      if (bytes <= room) out->rows = chunk, out->there = there, out->shared = bytes;
    }
  if (out->there < 0)
    return mica_error(MICA_ERR_UNSUPPORTED, "mlp_loop: activations of 8 rows do not fit into the %d bytes of shared "
                      "memory that a block of this device may have", most);
  /* as many as may be on the device at once: a block's scratch is its own */
  int64_t each = (room + 1024) / (out->shared + 1024), blocks = 2048 / out->threads;
  if (each > blocks) each = blocks;
  blocks = units * (each < 1 ? 1 : each);
  out->blocks = (int32_t)(tasks < blocks ? tasks : blocks);
  out->scratch = out->blocks * own_floats(&job, m, out->there) * (int64_t)sizeof(float);
  return MICA_OK;
}

extern "C" mica_status micak_mlp_cuda_run(void *stream, const micak_mlp_loop *m, const micak_mlp_cuda *plan,
                                          void *scratch, int64_t first, int64_t count) {
  mlp_job job = {};
  open_job(m, plan->what, &job);
  job.chunk = plan->rows, job.pitch = pitch_of(plan->rows), job.there = plan->there;
  job.first = first, job.count = count, job.back_first = m->back_first;
  job.B = m->B, job.steps = m->steps, job.stride = m->stride, job.stop = m->stop;
  job.support = mlp_rows{ mlp_wire_of(m->x), mlp_wire_of(m->y), m->offsets, m->R };
  job.query = mlp_rows{ mlp_wire_of(m->query.x), mlp_wire_of(m->query.y), m->query.offsets, m->query.R };
  job.mean_out = m->query.mean_out, job.mean_rows = m->query.mean_rows;
  for (int i = 0; i < 2 * m->layers; i++) {
    const int64_t n = m->width[i / 2 + 1] * (i % 2 ? 1 : m->width[i / 2]);
    job.start[i] = mlp_wire_of(m->start[i]), job.last[i] = mlp_wire_of(m->last[i]);
    job.last_d[i] = mlp_wire_of(m->last_d[i]), job.rate[i] = mlp_wire_of(m->rate[i]);
    job.kept[i] = mlp_wire{ m->kept[i], NULL, n, 0 };
    job.rate_step[i] = m->rate_step[i];
  }
  job.loss = mlp_wire_of(m->loss), job.loss_d = mlp_wire_of(m->loss_d);
  job.query_loss = mlp_wire_of(m->query.loss), job.query_loss_d = mlp_wire_of(m->query.loss_d);
  job.back = m->back, job.rate_back = m->rate_back;
  job.scratch = static_cast<float *>(scratch), job.own = own_floats(&job, m, plan->there);
  const int64_t blocks = count < plan->blocks ? count : plan->blocks;
  /* without a way back there is no u */
  const bool near = plan->there >= (plan->what == MICAK_MLP_BACKWARD || plan->what == MICAK_MLP_BOTH ? 2 : 1);
  static void (*const kernels[2][2])(mlp_job) = { { mlp_loop<false, false>, mlp_loop<false, true> },
                                                  { mlp_loop<true, false>, mlp_loop<true, true> } };
  return micak_launch("mlp_loop", kernels[near][m->labels], dim3((unsigned)blocks),
                      dim3((unsigned)plan->threads), (size_t)plan->shared, stream, job);
}
