/* short_conv on CUDA: a thread has one channel and a run of tokens, the last few of which it keeps in registers.
 *
 * inputs and what is carried over are one sequence: tokens -P to -1 are state_in, 0 to T - 1 are x; for cotangents 0 to
 * T - 1 are y, T to T + P - 1 are state_out. the way back is the way down from the last token to the first. */
#include "common/cuda_sums.cuh"
#include "short_conv/short_conv_internal.h"

enum { CONV_THREADS = 256, CONV_RUN = 16, CONV_FEW = 4 }; /* FEW: taps that most models have */

/* wires that are multiplied: weights, and a sequence in two parts; of cotangents for the weights, `w` is y's */
struct conv_term {
  plane w, x, edge;
};
struct short_conv_job {
  int64_t        B;
  int32_t        T, C, W, P, edge;           /* edge: the output is state_in or state_out */
  const int32_t *offsets;
  plane          out;
  conv_term      term[2];
};

PLANE_DEVICE float conv_get(const plane &p, const char *task, int32_t r, int32_t c) {
  return task ? plane_get(p, task, (int64_t)r * p.row + (int64_t)c * p.col) : 0.0f;
}

/* channel c of one sequence of one task */
struct conv_sequence {
  const char *x, *edge;
  int32_t     T, P, c;
};
PLANE_DEVICE conv_sequence conv_enter(const short_conv_job &job, const conv_term &term, int64_t k, int32_t T, int32_t c) {
  return { plane_task(term.x, k), plane_task(term.edge, k), T, job.P, c };
}
/* of the way down: from -P on */
PLANE_DEVICE float conv_past(const conv_term &term, const conv_sequence &s, int32_t t) {
  if (t < 0) return t + s.P < 0 ? 0.0f : conv_get(term.edge, s.edge, t + s.P, s.c);
  return conv_get(term.x, s.x, t, s.c);
}

/* outputs of one run of rows: sums over taps; UP: of the tokens behind instead of those before */
template <int TAPS, int TERMS, bool UP>
PLANE_DEVICE void conv_run(const short_conv_job &job, int64_t k, int32_t T, int32_t first, int32_t begin, int32_t end,
                           int32_t c, char *out, bool add) {
  conv_sequence s[TERMS];
  float         w[TERMS][TAPS], x[TERMS][TAPS]; /* x: the token at step i is in i % TAPS */
  const int32_t sign = UP ? -1 : 1, origin = UP ? first + end - 1 : first + begin;
#pragma unroll
  for (int n = 0; n < TERMS; n++) {
    const char *taps = plane_task(job.term[n].w, k);
    s[n] = conv_enter(job, job.term[n], k, T, c);
#pragma unroll
    for (int j = 0; j < TAPS; j++) {
      w[n][j] = j < job.W ? conv_get(job.term[n].w, taps, j, c) : 0.0f;
      const int32_t at = origin - sign * j;  /* j = 0 is read below */
      x[n][(TAPS - j) % TAPS] = 0.0f;
      if (j == 0 || j >= job.W) continue;
      if (!UP) x[n][TAPS - j] = conv_past(job.term[n], s[n], at);
      else if (at >= 0 && at < T) x[n][TAPS - j] = conv_get(job.term[n].x, s[n].x, at, c);
    }
  }
#pragma unroll 1
  for (int32_t base = 0; base < end - begin; base += TAPS)
#pragma unroll
    for (int i = 0; i < TAPS; i++) {
      const int32_t at = origin + sign * (base + i);
      float         sum = 0.0f;
      if (base + i >= end - begin) break;
#pragma unroll
      for (int n = 0; n < TERMS; n++)
        x[n][i] = UP ? (at >= 0 && at < T ? conv_get(job.term[n].x, s[n].x, at, c) : 0.0f)
                     : conv_past(job.term[n], s[n], at);
#pragma unroll
      for (int j = 0; j < TAPS; j++) {
        const int32_t from = at - sign * j;
        if (j >= job.W || (UP && (from < 0 || from >= T))) continue;
#pragma unroll
        for (int n = 0; n < TERMS; n++) sum = fmaf(w[n][j], x[n][(i - j + TAPS) % TAPS], sum);
      }
      if (UP && at + job.P >= T) sum += conv_get(job.term[0].edge, s[0].edge, at + job.P - T, c);
      plane_put(job.out, out, (int64_t)(at - first) * job.out.row + (int64_t)c * job.out.col, (double)sum, add);
    }
}

template <int TAPS, int TERMS, bool UP>
static __global__ void __launch_bounds__(CONV_THREADS, 2) short_conv_walk(const __grid_constant__ short_conv_job job) {
  const plane   &w = job.out;
  const uint32_t C = (uint32_t)job.C;
  for (int64_t b = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; b < job.B; b += (int64_t)gridDim.y * blockDim.y) {
    if (!plane_leads(w, b)) continue;
    char *out = plane_task(w, b);
    for (int64_t k = b; k < job.B && (k == b || plane_follows(w, k)); k++) {
      const int32_t  T = (int32_t)wire_rows(job.offsets, k, job.T), rows = job.edge ? job.P : T;
      const int32_t  first = !job.edge ? 0 : UP ? -job.P : T; /* token of the output's first row */
      const uint32_t items = (uint32_t)((rows + CONV_RUN - 1) / CONV_RUN) * C;
      for (uint32_t n = blockIdx.x * blockDim.x + threadIdx.x; n < items; n += gridDim.x * blockDim.x) {
        const int32_t run = (int32_t)(n / C), c = (int32_t)(n - (uint32_t)run * C);
        const int32_t begin = run * CONV_RUN, end = min(begin + CONV_RUN, rows);
        if (UP || !job.edge) {
          conv_run<TAPS, TERMS, UP>(job, k, T, first, begin, end, c, out, w.add || k > b);
        } else {
          const conv_sequence s = conv_enter(job, job.term[0], k, T, c);
          for (int32_t r = begin; r < end; r++)
            plane_put(w, out, (int64_t)r * w.row + (int64_t)c * w.col,
                      (double)conv_past(job.term[0], s, T - job.P + r), w.add || k > b);
        }
      }
    }
  }
}

/* cotangents of the weights: blocks of (columns, lanes over the runs of a part's tasks) */
template <int TAPS, int TERMS>
static __global__ void __launch_bounds__(CONV_THREADS, 2)
    short_conv_taps(const __grid_constant__ short_conv_job job, double *scratch) {
  __shared__ double partial[CONV_THREADS];
  const int column = (int)threadIdx.x, lane = (int)threadIdx.y, lanes = (int)blockDim.y;
  const int t = lane * (int)blockDim.x + column;
  for (int64_t n = blockIdx.y;; n += gridDim.y) {
    sum_part  part;
    const int found = sum_chunk(job.out, job.B, n, part);
    if (found < 0) return;
    if (!found) continue;
    for (int32_t left = (int32_t)(blockIdx.x * blockDim.x); left < job.C; left += (int32_t)(gridDim.x * blockDim.x)) {
      const int32_t c = left + column;
      double        sum[TAPS] = {};
      int32_t       before = 0;              /* runs of the part before task k */
      for (int64_t k = part.begin; c < job.C && k < part.end; k++) {
        const int32_t T = (int32_t)wire_rows(job.offsets, k, job.T), runs = (T + CONV_RUN - 1) / CONV_RUN;
        int32_t       run = (lane - before) & (lanes - 1);
        before += runs;
        for (; run < runs; run += lanes) {
          const int32_t begin = run * CONV_RUN, end = min(begin + CONV_RUN, T);
          float         own[TAPS] = {};
#pragma unroll
          for (int m = 0; m < TERMS; m++) {
            const conv_term    &term = job.term[m];
            const conv_sequence s = conv_enter(job, term, k, T, c);
            const char         *y = plane_task(term.w, k);
            float               x[TAPS];
            if (!y) continue;
            x[0] = 0.0f;
#pragma unroll
            for (int j = 1; j < TAPS; j++) x[TAPS - j] = j < job.W ? conv_past(term, s, begin - j) : 0.0f;
#pragma unroll 1
            for (int32_t base = begin; base < end; base += TAPS)
#pragma unroll
              for (int i = 0; i < TAPS; i++) {
                if (base + i >= end) break;
                const float d = conv_get(term.w, y, base + i, c);
                x[i] = conv_past(term, s, base + i);
#pragma unroll
                for (int j = 0; j < TAPS; j++)
                  if (j < job.W) own[j] = fmaf(x[(i - j + TAPS) % TAPS], d, own[j]);
              }
          }
#pragma unroll
          for (int j = 0; j < TAPS; j++) sum[j] += (double)own[j];
        }
      }
#pragma unroll
      for (int j = 0; j < TAPS; j++) {
        if (j >= job.W) break;
        partial[t] = sum[j];
        __syncthreads();
        for (int half = lanes / 2; half; half /= 2) {
          if (lane < half) partial[t] += partial[t + half * (int)blockDim.x];
          __syncthreads();
        }
        if (lane == 0 && c < job.C)
          sum_put(job.out, part, scratch, (int64_t)j * job.C + c, (int64_t)job.W * job.C,
                  (int64_t)j * job.out.row + (int64_t)c * job.out.col, partial[t]);
        __syncthreads();
      }
    }
  }
}

/* ---- launchers ---- */

static short_conv_job conv_open(const mica_short_conv_args *a) {
  short_conv_job job = {};
  job.B = a->B, job.T = (int32_t)a->T, job.C = (int32_t)a->C, job.W = (int32_t)a->W, job.P = (int32_t)a->P;
  job.offsets = a->x.offsets;
  return job;
}
static mica_status conv_check(const char *name, const mica_short_conv_args *a, const short_conv_job &job) {
  const plane all[] = { job.out, job.term[0].w, job.term[0].x, job.term[0].edge,
                        job.term[1].w, job.term[1].x, job.term[1].edge };
  mica_status status = plane_check(name, all, 7);
  return status < 0 ? status : plane_check_task(name, a->T + a->P, a->C);
}

/* one output of a walk */
template <int TERMS, bool UP>
static mica_status conv_walk(const char *name, const mica_short_conv_args *a, short_conv_job job, const plane &out, int edge,
                             const mica_exec *exec) {
  job.out = out, job.edge = edge;
  if (!out.data || a->B <= 0) return MICA_OK;
  mica_status status = conv_check(name, a, job);
  if (status < 0) return status;
  const int64_t  rows = edge ? a->P : a->T, items = (rows + CONV_RUN - 1) / CONV_RUN * a->C;
  const unsigned wide = plane_power(items, 8, CONV_THREADS), tasks = CONV_THREADS / wide;
  return micak_launch(name, a->W <= CONV_FEW ? short_conv_walk<CONV_FEW, TERMS, UP> : short_conv_walk<SHORT_CONV_TAPS, TERMS, UP>,
                      dim3(micak_blocks(items, wide), micak_task_blocks((a->B + tasks - 1) / tasks)), dim3(wide, tasks),
                      0, exec->stream, job);
}
template <int TERMS>
static mica_status conv_taps(const char *name, const mica_short_conv_args *a, short_conv_job job, const mica_wire &wire,
                             const mica_exec *exec) {
  job.out = plane_rows(wire, NULL);
  if (!wire.data || a->B <= 0) return MICA_OK;
  mica_status status = conv_check(name, a, job);
  if (status < 0) return status;
  const unsigned wide = plane_power(a->C, 1, 32);
  status = micak_launch(name, a->W <= CONV_FEW ? short_conv_taps<CONV_FEW, TERMS> : short_conv_taps<SHORT_CONV_TAPS, TERMS>,
                        dim3(micak_blocks(a->C, wide), sum_chunks(job.out, a->B)), dim3(wide, CONV_THREADS / wide), 0,
                        exec->stream, job, static_cast<double *>(exec->scratch));
  const int64_t cells = a->W * a->C;
  return status < 0 ? status : sum_finish(name, job.out, a->B, cells, 0, cells, a->C, exec);
}

/* the sequence of one wire of x and state_in, or of y and state_out, with weights */
static conv_term conv_term_of(const mica_wire &w, const int32_t *w_offsets, const mica_wire &x, const int32_t *offsets,
                              const mica_wire &edge) {
  return { plane_rows(w, w_offsets), plane_rows(x, offsets), plane_rows(edge, NULL) };
}

extern "C" mica_status micak_short_conv_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_short_conv_args *a = static_cast<const mica_short_conv_args *>(args);
  const char *name = "short_conv forward";
  short_conv_job job = conv_open(a);
  job.term[0] = conv_term_of(a->w.v, NULL, a->x.v, a->x.offsets, a->state_in.v);
  mica_status status = conv_walk<1, false>(name, a, job, plane_rows(a->y.v, a->y.offsets), 0, exec);
  return status < 0 ? status : conv_walk<1, false>(name, a, job, plane_rows(a->state_out.v, NULL), 1, exec);
}
extern "C" mica_status micak_short_conv_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_short_conv_args *a = static_cast<const mica_short_conv_args *>(args);
  const char *name = "short_conv jvp";
  short_conv_job job = conv_open(a);
  job.term[0] = conv_term_of(a->w.v, NULL, a->x.t, a->x.offsets, a->state_in.t);
  job.term[1] = conv_term_of(a->w.t, NULL, a->x.v, a->x.offsets, a->state_in.v);
  mica_status status = conv_walk<2, false>(name, a, job, plane_rows(a->y.t, a->y.offsets), 0, exec);
  return status < 0 ? status : conv_walk<2, false>(name, a, job, plane_rows(a->state_out.t, NULL), 1, exec);
}
extern "C" mica_status micak_short_conv_backward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_short_conv_args *a = static_cast<const mica_short_conv_args *>(args);
  const char *name = "short_conv backward";
  short_conv_job job = conv_open(a);
  job.term[0] = conv_term_of(a->w.v, NULL, a->y.d, a->y.offsets, a->state_out.d);
  mica_status status = conv_walk<1, true>(name, a, job, plane_rows(a->x.d, a->x.offsets), 0, exec);
  if (status >= 0) status = conv_walk<1, true>(name, a, job, plane_rows(a->state_in.d, NULL), 1, exec);
  job.term[0] = conv_term_of(a->y.d, a->y.offsets, a->x.v, a->x.offsets, a->state_in.v);
  return status < 0 ? status : conv_taps<1>(name, a, job, a->w.d, exec);
}
extern "C" mica_status micak_short_conv_backward_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_short_conv_args *a = static_cast<const mica_short_conv_args *>(args);
  const char *name = "short_conv backward_jvp";
  short_conv_job job = conv_open(a);
  job.term[0] = conv_term_of(a->w.v, NULL, a->y.td, a->y.offsets, a->state_out.td);
  job.term[1] = conv_term_of(a->w.t, NULL, a->y.d, a->y.offsets, a->state_out.d);
  mica_status status = conv_walk<2, true>(name, a, job, plane_rows(a->x.td, a->x.offsets), 0, exec);
  if (status >= 0) status = conv_walk<2, true>(name, a, job, plane_rows(a->state_in.td, NULL), 1, exec);
  job.term[0] = conv_term_of(a->y.td, a->y.offsets, a->x.v, a->x.offsets, a->state_in.v);
  job.term[1] = conv_term_of(a->y.d, a->y.offsets, a->x.t, a->x.offsets, a->state_in.t);
  return status < 0 ? status : conv_taps<2>(name, a, job, a->w.td, exec);
}
