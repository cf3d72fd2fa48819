/* batch_norm and batch_norm_pool (POOL) on CUDA, what their files share. README.md has the names.
 *
 * bn_sums adds up pieces of a task's rows, a block a piece and up to 64 channels: threads over channels, lanes over rows,
 * in double. bn_apply combines the pieces and makes every element from them; where tasks have one piece only it adds it
 * up itself. the bits depend on the task's rows and channels alone. pooled cotangents are added up square by square, and
 * bn_apply's threads have a square each, on the way up also those that the image ends in. */
#ifndef MICA_KERNELS_BATCH_NORM_CUDA_INTERNAL_CUH
#define MICA_KERNELS_BATCH_NORM_CUDA_INTERNAL_CUH

#include "batch_norm/batch_norm_internal.h"
#include "batch_norm/batch_norm_pool.h"
#include "common/cuda_image.cuh"
#include "common/cuda_rows.cuh"

enum { BN_THREADS = 256, BN_WARPS = 8, BN_CHANNELS = 64, BN_ROUNDS = 8 };

struct bn_job {
  int64_t        B;
  int32_t        T, P, C, cut;               /* cut: pieces of the longest task */
  int32_t        wide, alone, keep, ones;    /* alone: bn_apply adds up, keep: and leaves it to others; ones: no w */
  int32_t        W, size, high, across, relu; /* of POOL: pixels of a line, of a square; squares of an image */
  double         eps;
  const int32_t *offsets;
  image_plane    x, xt, dy, dyt, out;
  plane          w, wt, b, mean, rstd, mean_t, rstd_t, saved[2], bias; /* bias: b, where b is its tangent or not read */
  double        *sums;                       /* (B, cut, terms, C) */
};

/* TERMS: numbers added up; KNOWN: those of a channel that they take, w and b behind them where POOL asks which pixels
 * go on; FACTORS: with which its elements are made */
template <int FACE, bool POOL>
struct bn_face {
  static constexpr int TERMS = FACE == MICA_JVP ? 3 : FACE == MICA_BACKWARD_JVP ? 4 : 2;
  static constexpr bool UP = FACE == MICA_BACKWARD || FACE == MICA_BACKWARD_JVP;
  static constexpr int  BLOCKS = POOL && FACE != MICA_FORWARD ? 1 : 2; /* whose registers a multiprocessor holds */
  static constexpr int  FIRST = FACE == MICA_FORWARD ? 1 : FACE == MICA_BACKWARD_JVP ? 4 : 2;
  static constexpr int  KNOWN = FIRST + (POOL && FACE != MICA_FORWARD ? 2 : 0);
  static constexpr int FACTORS = FACE == MICA_FORWARD ? 4 : FACE == MICA_BACKWARD ? 5 : FACE == MICA_JVP ? 7 : 10;
};
template <int FACE, bool POOL>
struct bn_shared {
  double part[bn_face<FACE, POOL>::TERMS][BN_WARPS][BN_CHANNELS], sum[bn_face<FACE, POOL>::TERMS][BN_CHANNELS];
  float  known[bn_face<FACE, POOL>::KNOWN][BN_CHANNELS]; /* forward: the first row; else mean, rstd and their tangents */
  float  factor[bn_face<FACE, POOL>::FACTORS][BN_CHANNELS];
};

PLANE_DEVICE int32_t bn_rows(const bn_job &job, int64_t b) { return (int32_t)wire_rows(job.offsets, b, job.T) * job.P; }
/* pieces of a task, as bn_pieces */
PLANE_DEVICE int32_t bn_cut(int32_t rows) { return min(max((rows + BN_PIECE - 1) / BN_PIECE, 1), (int32_t)BN_PIECES); }
PLANE_DEVICE float bn_cell(const plane &p, int64_t k, int32_t c) {
  const char *at = plane_task(p, k);
  return at ? plane_get(p, at, (int64_t)c * p.col) : 0.0f;
}
PLANE_DEVICE int bn_thread() { return (int)(threadIdx.y * blockDim.x + threadIdx.x); }

/* N channels of a task at a place of image_at */
template <int N>
PLANE_DEVICE void bn_get_at(const bn_job &job, const image_plane &m, const char *task, int64_t at, float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = 0.0f;
  if (!task) return;
  if (N == 4 && job.wide) image_get<N>(m, task, at, x);
  else {
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = plane_get(m.p, task, at + i * m.p.col);
  }
}
template <int N>
PLANE_DEVICE void bn_put_at(const bn_job &job, char *task, int64_t at, const float (&x)[N], bool add) {
  if (N == 4 && job.wide) image_put<N>(job.out, task, at, x, add);
  else {
#pragma unroll
    for (int i = 0; i < N; i++) plane_put(job.out.p, task, at + i * job.out.p.col, (double)x[i], add);
  }
}
/* where channel c of row r of a task lies */
template <bool POOL>
PLANE_DEVICE int64_t bn_at(const bn_job &job, const image_plane &m, int32_t r, int32_t c) {
  const int32_t t = r < job.P ? 0 : r / job.P, pixel = r - t * job.P, line = POOL ? pixel / job.W : 0;
  return image_at(m, t, line, POOL ? pixel - line * job.W : pixel, c);
}
/* N channels from c on of row r */
template <int N, bool POOL>
PLANE_DEVICE void bn_get(const bn_job &job, const image_plane &m, const char *task, int32_t r, int32_t c, float (&x)[N]) {
  bn_get_at<N>(job, m, task, bn_at<POOL>(job, m, r, c), x);
}

/* square n of a task, where an image has high x across of them */
struct bn_square { int32_t t, p, q; };
PLANE_DEVICE bn_square bn_square_of(int32_t n, int32_t high, int32_t across) {
  const int32_t line = n / across, t = line / high;
  return { t, line - t * high, n - line * across };
}
/* the pixel that a square takes, by the sign of w, and what x, and its tangent where DUAL, are there */
template <int N, bool DUAL>
PLANE_DEVICE void bn_take(const bn_job &job, const char *x, const char *xt, const bn_square &s, int32_t c,
                          const float (&w)[N], float (&v)[N], float (&vt)[N], int32_t (&place)[N]) {
  float best[N];
  for (int32_t i = 0, k = 0; i < job.size; i++)
    for (int32_t j = 0; j < job.size; j++, k++) {
      float next[N], other[N] = {};
      bn_get_at<N>(job, job.x, x, image_at(job.x, s.t, s.p * job.size + i, s.q * job.size + j, c), next);
      if (DUAL) bn_get_at<N>(job, job.xt, xt, image_at(job.xt, s.t, s.p * job.size + i, s.q * job.size + j, c), other);
#pragma unroll
      for (int e = 0; e < N; e++) {
        const float key = w[e] > 0.0f ? next[e] : w[e] < 0.0f ? -next[e] : 0.0f * next[e];
        if (k == 0 || key > best[e]) best[e] = key, v[e] = next[e], vt[e] = other[e], place[e] = k;
      }
    }
}
/* does a change come through relu, where x was v? */
PLANE_DEVICE bool bn_open(const bn_job &job, float v, float mean, float rstd, float w, float b) {
  return !job.relu || fmaf((v - mean) * rstd, w, b) > 0.0f;
}

/* what is known of the channels from c0 on of task k */
template <int FACE, bool POOL>
PLANE_DEVICE void bn_know(const bn_job &job, bn_shared<FACE, POOL> &own, int64_t k, int32_t rows, int32_t c0) {
  const int t = bn_thread(), c = c0 + t;
  if (t < BN_CHANNELS && c < job.C) {
    if constexpr (FACE == MICA_FORWARD) {
      const char *x = rows ? plane_task(job.x.p, k) : NULL;
      own.known[0][t] = x ? plane_get(job.x.p, x, (int64_t)c * job.x.p.col) : 0.0f;
    } else {
      own.known[0][t] = bn_cell(job.mean, k, c), own.known[1][t] = bn_cell(job.rstd, k, c);
      if constexpr (FACE == MICA_BACKWARD_JVP)
        own.known[2][t] = bn_cell(job.mean_t, k, c), own.known[3][t] = bn_cell(job.rstd_t, k, c);
      if constexpr (POOL) {
        own.known[bn_face<FACE, POOL>::FIRST][t] = job.ones ? 1.0f : bn_cell(job.w, k, c);
        own.known[bn_face<FACE, POOL>::FIRST + 1][t] = bn_cell(job.bias, k, c);
      }
    }
  }
  __syncthreads();
}

/* what a task of so many rows adds up: these, on the way up of POOL squares */
template <int FACE, bool POOL>
PLANE_DEVICE int32_t bn_items(const bn_job &job, int32_t rows) {
  return POOL && bn_face<FACE, POOL>::UP ? rows / job.P * job.high * job.across : rows;
}

/* own.sum = sums over items begin to end; all threads call, after bn_know */
template <int FACE, int N, bool POOL>
PLANE_DEVICE void bn_add_up(const bn_job &job, bn_shared<FACE, POOL> &own, int64_t k, int32_t begin, int32_t end, int32_t c0) {
  constexpr int TERMS = bn_face<FACE, POOL>::TERMS;
  const int     t = bn_thread(), first = (int)threadIdx.x * N, c = c0 + first;
  const char   *x = plane_task(job.x.p, k), *xt = plane_task(job.xt.p, k);
  const char   *dy = plane_task(job.dy.p, k), *dyt = plane_task(job.dyt.p, k);
  double        sum[TERMS][N] = {};
  float         known[bn_face<FACE, POOL>::KNOWN][N];
#pragma unroll
  for (int n = 0; n < bn_face<FACE, POOL>::KNOWN; n++)
#pragma unroll
    for (int i = 0; i < N; i++) known[n][i] = c < job.C ? own.known[n][first + i] : 0.0f;
  if (c < job.C)
    for (int32_t r = begin + (int32_t)threadIdx.y; r < end; r += (int32_t)blockDim.y) {
      float v[N], vt[N], g[N], gt[N];
      if constexpr (POOL && bn_face<FACE, POOL>::UP) {
        constexpr int   W = bn_face<FACE, POOL>::FIRST;
        const bn_square s = bn_square_of(r, job.high, job.across);
        int32_t         place[N];
        bn_take<N, FACE == MICA_BACKWARD_JVP>(job, x, xt, s, c, known[W], v, vt, place);
        bn_get_at<N>(job, job.dy, dy, image_at(job.dy, s.t, s.p, s.q, c), g);
        if (FACE == MICA_BACKWARD_JVP) bn_get_at<N>(job, job.dyt, dyt, image_at(job.dyt, s.t, s.p, s.q, c), gt);
#pragma unroll
        for (int i = 0; i < N; i++)
          if (!bn_open(job, v[i], known[0][i], known[1][i], known[W][i], known[W + 1][i])) g[i] = gt[i] = 0.0f;
      } else {
        bn_get<N, POOL>(job, job.x, x, r, c, v);
        if (FACE == MICA_JVP || FACE == MICA_BACKWARD_JVP) bn_get<N, POOL>(job, job.xt, xt, r, c, vt);
        if (FACE == MICA_BACKWARD || FACE == MICA_BACKWARD_JVP) bn_get<N, POOL>(job, job.dy, dy, r, c, g);
        if (FACE == MICA_BACKWARD_JVP) bn_get<N, POOL>(job, job.dyt, dyt, r, c, gt);
      }
#pragma unroll
      for (int i = 0; i < N; i++) {
        const float off = v[i] - known[0][i];
        if constexpr (FACE == MICA_FORWARD) {
          const double e = (double)v[i] - (double)known[0][i];
          sum[0][i] += e, sum[1][i] = fma(e, e, sum[1][i]);
        } else {
          const float h = off * known[1][i];
          if constexpr (FACE == MICA_JVP) {
            sum[0][i] += (double)vt[i], sum[1][i] = fma((double)h, (double)vt[i], sum[1][i]), sum[2][i] += (double)h;
          } else {
            sum[0][i] += (double)g[i], sum[1][i] = fma((double)h, (double)g[i], sum[1][i]);
            if constexpr (FACE == MICA_BACKWARD_JVP) {
              const float ht = fmaf(vt[i] - known[2][i], known[1][i], off * known[3][i]);
              sum[2][i] += (double)gt[i];
              sum[3][i] = fma((double)h, (double)gt[i], fma((double)ht, (double)g[i], sum[3][i]));
            }
          }
        }
      }
    }
#pragma unroll
  for (int s = 0; s < TERMS; s++)
#pragma unroll
    for (int i = 0; i < N; i++) {
      for (int step = (int)blockDim.x; step < 32; step *= 2) sum[s][i] += __shfl_xor_sync(~0u, sum[s][i], step);
      if (t % 32 < (int)blockDim.x) own.part[s][t / 32][first + i] = sum[s][i];
    }
  __syncthreads();
  for (int item = t; item < TERMS * BN_CHANNELS; item += BN_THREADS) {
    const int s = item / BN_CHANNELS, at = item % BN_CHANNELS;
    double    all = 0;
    if (at < (int)blockDim.x * N)
      for (int i = 0; i < BN_WARPS; i++) all += own.part[s][i][at];
    own.sum[s][at] = all;
  }
  __syncthreads();
}
template <int FACE, int N, bool POOL>
PLANE_DEVICE void bn_keep(const bn_job &job, const bn_shared<FACE, POOL> &own, int64_t k, int32_t piece, int32_t c0) {
  double *to = job.sums + (k * job.cut + piece) * bn_face<FACE, POOL>::TERMS * job.C;
  for (int item = bn_thread(); item < bn_face<FACE, POOL>::TERMS * BN_CHANNELS; item += BN_THREADS) {
    const int s = item / BN_CHANNELS, at = item % BN_CHANNELS;
    if (at < (int)blockDim.x * N && c0 + at < job.C) to[(int64_t)s * job.C + c0 + at] = own.sum[s][at];
  }
}

/* blocks of (pieces, blocks of channels; tasks) */
template <int FACE, int N, bool POOL>
static __global__ void __launch_bounds__(BN_THREADS, bn_face<FACE, POOL>::BLOCKS) bn_sums(
    const __grid_constant__ bn_job job) {
  __shared__ bn_shared<FACE, POOL> own;
  const int32_t wide = (int32_t)blockDim.x * N, across = (job.C + wide - 1) / wide;
  const int32_t piece = (int32_t)blockIdx.x / across, c0 = (int32_t)blockIdx.x % across * wide;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    const int32_t rows = bn_rows(job, b), items = bn_items<FACE, POOL>(job, rows), n = bn_cut(rows);
    const int32_t each = (items + n - 1) / n;
    if (piece >= n) continue;
    bn_know(job, own, b, rows, c0);
    bn_add_up<FACE, N, POOL>(job, own, b, piece * each, min(piece * each + each, items), c0);
    bn_keep<FACE, N, POOL>(job, own, b, piece, c0);
    __syncthreads();
  }
}

/* factors of channel c0 + t, and what is saved of it */
template <int FACE, bool POOL>
PLANE_DEVICE void bn_finish(const bn_job &job, bn_shared<FACE, POOL> &own, int64_t k, int32_t rows, int32_t c0, int t,
                            float (&saved)[2]) {
  const int32_t c = c0 + t;
  const double  over = rows ? 1.0 / (double)rows : 0.0, s0 = own.sum[0][t], s1 = own.sum[1][t];
  const float   w = job.ones ? 1.0f : bn_cell(job.w, k, c);
  float         mean = own.known[0][t], rstd = own.known[FACE != MICA_FORWARD][t];
  if constexpr (FACE == MICA_FORWARD) {
    const double variance = (s1 - s0 * s0 * over) * over;
    rstd = rows ? (float)(1.0 / sqrt((variance < 0 ? 0 : variance) + job.eps)) : 1.0f;
    mean = (float)((double)mean + s0 * over);
    own.factor[2][t] = w, own.factor[3][t] = bn_cell(job.b, k, c);
    saved[0] = mean, saved[1] = rstd;
  } else if constexpr (FACE == MICA_JVP) {
    const double mean_t = s0 * over, q = (s1 - mean_t * own.sum[2][t]) * over;
    own.factor[2][t] = (float)mean_t, own.factor[3][t] = (float)q, own.factor[4][t] = w;
    own.factor[5][t] = bn_cell(job.wt, k, c), own.factor[6][t] = bn_cell(job.b, k, c);
    saved[0] = (float)mean_t, saved[1] = -rstd * rstd * (float)q;
  } else {
    own.factor[2][t] = (float)(s0 * over), own.factor[3][t] = (float)(s1 * over), own.factor[4][t] = rstd * w;
    if constexpr (FACE == MICA_BACKWARD_JVP) {
      own.factor[5][t] = (float)(own.sum[2][t] * over), own.factor[6][t] = (float)(own.sum[3][t] * over);
      own.factor[7][t] = fmaf(own.known[3][t], w, rstd * bn_cell(job.wt, k, c));
      own.factor[8][t] = own.known[2][t], own.factor[9][t] = own.known[3][t];
    }
  }
  own.factor[0][t] = mean, own.factor[1][t] = rstd;
}

/* an element from its inputs and its channel's factors */
template <int FACE, class F>
PLANE_DEVICE float bn_value(const F &f, float x, float xt, float g, float gt) {
  const float off = x - f(0), h = off * f(1);
  if constexpr (FACE == MICA_FORWARD) return fmaf(h, f(2), f(3));
  else if constexpr (FACE == MICA_JVP) {
    const float ht = f(1) * fmaf(-h, f(3), xt - f(2));
    return fmaf(ht, f(4), fmaf(h, f(5), f(6)));
  } else {
    const float plain = fmaf(-h, f(3), g - f(2));
    if constexpr (FACE == MICA_BACKWARD) return f(4) * plain;
    else {
      const float ht = fmaf(xt - f(8), f(1), off * f(9)), moved = fmaf(-h, f(6), fmaf(-ht, f(3), gt - f(5)));
      return fmaf(f(7), plain, f(4) * moved);
    }
  }
}

/* bn_apply's squares of a task, from `begin` on, `step` apart: down their numbers, up the numbers of their pixels */
template <int FACE, int N>
PLANE_DEVICE void bn_apply_squares(const bn_job &job, const bn_shared<FACE, true> &own, const char *x, const char *xt,
                                   const char *dy, const char *dyt, char *to, int32_t rows, int32_t begin, int32_t step,
                                   int32_t c, int first, const float (&factor)[bn_face<FACE, true>::FACTORS][N], bool add) {
  constexpr bool UP = bn_face<FACE, true>::UP, DUAL = FACE == MICA_JVP || FACE == MICA_BACKWARD_JVP;
  constexpr int  W = bn_face<FACE, true>::FIRST;
  const int32_t  n = job.size, lines = job.P / job.W, high = UP ? (lines + n - 1) / n : job.high;
  const int32_t  across = UP ? (job.W + n - 1) / n : job.across, items = rows / job.P * high * across;
  float          w[N], b[N];
#pragma unroll
  for (int i = 0; i < N; i++) {
    w[i] = FACE == MICA_FORWARD ? factor[2][i] : own.known[W % bn_face<FACE, true>::KNOWN][first + i];
    b[i] = FACE == MICA_FORWARD ? factor[3][i] : own.known[(W + 1) % bn_face<FACE, true>::KNOWN][first + i];
  }
  for (int32_t r = begin; r < items; r += step) {
    const bn_square s = bn_square_of(r, high, across);
    const bool      whole = s.p < job.high && s.q < job.across;
    float           v[N], vt[N], g[N] = {}, gt[N] = {};
    int32_t         place[N];
    bool            open[N];
    if (whole) {
      bn_take<N, DUAL && !UP>(job, x, xt, s, c, w, v, vt, place);
      if (UP) bn_get_at<N>(job, job.dy, dy, image_at(job.dy, s.t, s.p, s.q, c), g);
      if (FACE == MICA_BACKWARD_JVP) bn_get_at<N>(job, job.dyt, dyt, image_at(job.dyt, s.t, s.p, s.q, c), gt);
#pragma unroll
      for (int i = 0; i < N; i++) open[i] = bn_open(job, v[i], factor[0][i], factor[1][i], w[i], b[i]);
    }
    if constexpr (!UP) {
#pragma unroll
      for (int i = 0; i < N; i++) {
        const auto f = [&](int k) { return factor[k][i]; };
        v[i] = open[i] ? bn_value<FACE>(f, v[i], vt[i], 0.0f, 0.0f) : 0.0f;
      }
      bn_put_at<N>(job, to, image_at(job.out, s.t, s.p, s.q, c), v, add);
    } else {
      for (int32_t i = 0, h = s.p * n; i < n && h < lines; i++, h++)
        for (int32_t j = 0, q = s.q * n; j < n && q < job.W; j++, q++) {
          float one[N], other[N] = {};
          bn_get_at<N>(job, job.x, x, image_at(job.x, s.t, h, q, c), one);
          if (DUAL) bn_get_at<N>(job, job.xt, xt, image_at(job.xt, s.t, h, q, c), other);
#pragma unroll
          for (int e = 0; e < N; e++) {
            const bool mine = whole && open[e] && place[e] == i * n + j;
            const auto f = [&](int k) { return factor[k][e]; };
            one[e] = bn_value<FACE>(f, one[e], other[e], mine ? g[e] : 0.0f, mine ? gt[e] : 0.0f);
          }
          bn_put_at<N>(job, to, image_at(job.out, s.t, h, q, c), one, add);
        }
    }
  }
}

/* blocks of (ranges of rows, blocks of channels; tasks) */
template <int FACE, int N, bool POOL>
static __global__ void __launch_bounds__(BN_THREADS, bn_face<FACE, POOL>::BLOCKS) bn_apply(
    const __grid_constant__ bn_job job) {
  constexpr int              TERMS = bn_face<FACE, POOL>::TERMS;
  __shared__ bn_shared<FACE, POOL> own;
  const int     t = bn_thread(), first = (int)threadIdx.x * N;
  const int32_t wide = (int32_t)blockDim.x * N, across = (job.C + wide - 1) / wide;
  const int32_t range = (int32_t)blockIdx.x / across, ranges = (int32_t)gridDim.x / across;
  const int32_t c0 = (int32_t)blockIdx.x % across * wide, c = c0 + first;
  const plane   out[3] = { job.out.p, job.saved[0], job.saved[1] };
  rows_job      tasks = {};
  rows_team     team = {};
  tasks.B = job.B;
  for (int64_t b = blockIdx.y; b < job.B; b += gridDim.y) {
    team.b = b;
    for (rows_walk<3> walk(tasks, out, team); walk.any(); walk.next()) {
      const int64_t k = walk.k;
      const int32_t rows = bn_rows(job, k);
      bn_know(job, own, k, rows, c0);
      if (job.alone) {
        bn_add_up<FACE, N, POOL>(job, own, k, 0, bn_items<FACE, POOL>(job, rows), c0);
        if (job.keep && range == 0) bn_keep<FACE, N, POOL>(job, own, k, 0, c0);
      } else {
        const int32_t n = bn_cut(rows);
        for (int item = t; item < TERMS * BN_CHANNELS; item += BN_THREADS) {
          const int     s = item / BN_CHANNELS, at = item % BN_CHANNELS;
          const double *from = job.sums + (k * job.cut * TERMS + s) * job.C + c0 + at;
          double        all = 0;
          if (at < wide && c0 + at < job.C)
            for (int32_t i = 0; i < n; i++) all += from[(int64_t)i * TERMS * job.C];
          own.sum[s][at] = all;
        }
        __syncthreads();
      }
      if (t < wide && c0 + t < job.C) {
        float saved[2] = {};
        bn_finish(job, own, k, rows, c0, t, saved);
#pragma unroll
        for (int i = 0; i < 2; i++)
          if (range == 0 && walk.wants(1 + i))
            plane_put(job.saved[i], plane_task(job.saved[i], k), (int64_t)(c0 + t) * job.saved[i].col,
                      (double)saved[i], walk.adds(1 + i));
      }
      __syncthreads();
      if (walk.wants(0) && c < job.C) {
        const char *x = plane_task(job.x.p, k), *xt = plane_task(job.xt.p, k);
        const char *dy = plane_task(job.dy.p, k), *dyt = plane_task(job.dyt.p, k);
        char       *to = plane_task(job.out.p, k);
        float       factor[bn_face<FACE, POOL>::FACTORS][N];
#pragma unroll
        for (int n = 0; n < bn_face<FACE, POOL>::FACTORS; n++)
#pragma unroll
          for (int i = 0; i < N; i++) factor[n][i] = own.factor[n][first + i];
        const int32_t begin = range * (int32_t)blockDim.y + (int32_t)threadIdx.y, step = ranges * (int32_t)blockDim.y;
        if constexpr (POOL)
          bn_apply_squares<FACE, N>(job, own, x, xt, dy, dyt, to, rows, begin, step, c, first, factor, walk.adds(0));
        else
          for (int32_t r = begin; r < rows; r += step) {
            float v[N], vt[N], g[N], gt[N];
            bn_get<N, POOL>(job, job.x, x, r, c, v);
            bn_get<N, POOL>(job, job.xt, xt, r, c, vt);
            bn_get<N, POOL>(job, job.dy, dy, r, c, g);
            bn_get<N, POOL>(job, job.dyt, dyt, r, c, gt);
#pragma unroll
            for (int i = 0; i < N; i++) {
              const auto f = [&](int n) { return factor[n][i]; };
              v[i] = bn_value<FACE>(f, v[i], vt[i], g[i], gt[i]);
            }
            bn_put_at<N>(job, to, bn_at<POOL>(job, job.out, r, c), v, walk.adds(0));
          }
      }
      __syncthreads();
    }
  }
}

/* ---- launchers ---- */

template <int FACE, int N, bool POOL>
static mica_status bn_launch(const char *name, const bn_job &job, bool sums, bool apply, void *stream) {
  const unsigned cols = plane_power((job.C + N - 1) / N, 1, N == 4 ? BN_CHANNELS / N : 32);
  const unsigned lanes = BN_THREADS / cols, across = (unsigned)(job.C + cols * N - 1) / (cols * N);
  const int64_t  items = (int64_t)job.T * job.P / (POOL ? job.size * job.size : 1), rounds = (items + lanes - 1) / lanes;
  const unsigned ranges = job.alone || rounds == 0 ? 1 : micak_blocks(rounds, BN_ROUNDS);
  mica_status    status = MICA_OK;
  if (sums)
    status = micak_launch(name, bn_sums<FACE, N, POOL>, dim3((unsigned)job.cut * across, micak_task_blocks(job.B)),
                          dim3(cols, lanes), 0, stream, job);
  return !apply || status < 0 ? status
                              : micak_launch(name, bn_apply<FACE, N, POOL>, dim3(ranges * across, micak_task_blocks(job.B)),
                                             dim3(cols, lanes), 0, stream, job);
}
/* sums: of every task's pieces into scratch, for others than bn_apply. which channels a thread has depends on their
 * number alone, not on alignment: neither do the bits */
template <int FACE, bool POOL>
static mica_status bn_run(const char *name, const mica_batch_norm_args *a, const mica_exec *exec, bool keep) {
  const auto image = [](const mica_wire &w, const int32_t *offsets) { return POOL ? image_of(w, offsets) : image_of_pixels(w, offsets); };
  constexpr bool DOWN = FACE == MICA_FORWARD || FACE == MICA_JVP, DUAL = FACE == MICA_JVP || FACE == MICA_BACKWARD_JVP;
  const mica_wire *const outs[MICA_NFACE] = { &a->y.v, &a->x.d, &a->y.t, &a->x.td };
  bn_job job = {};
  job.B = a->B, job.T = (int32_t)a->T, job.P = (int32_t)a->P, job.C = (int32_t)a->C, job.eps = a->eps;
  job.offsets = a->x.offsets ? a->x.offsets : a->y.offsets, job.ones = !a->w.v.data;
  job.cut = (int32_t)bn_pieces(a->T * a->P), job.sums = static_cast<double *>(exec->scratch);
  if (POOL) {
    const mica_batch_norm_pool_args *all = reinterpret_cast<const mica_batch_norm_pool_args *>(a);
    job.W = (int32_t)all->W, job.size = (int32_t)all->window, job.relu = all->act;
    job.high = (int32_t)all->P, job.across = (int32_t)all->Q, job.bias = plane_param(a->b.v);
  }
  job.x = image(a->x.v, a->x.offsets), job.w = plane_param(a->w.v);
  if (DUAL) job.xt = image(a->x.t, a->x.offsets), job.wt = plane_param(a->w.t);
  if (DOWN) {
    job.b = plane_param(DUAL ? a->b.t : a->b.v);
    job.saved[0] = plane_param(DUAL ? a->mean.t : a->mean.v), job.saved[1] = plane_param(DUAL ? a->rstd.t : a->rstd.v);
  } else {
    job.dy = image(a->y.d, a->y.offsets);
    if (DUAL) job.dyt = image(a->y.td, a->y.offsets);
  }
  if (FACE != MICA_FORWARD) job.mean = plane_param(a->mean.v), job.rstd = plane_param(a->rstd.v);
  if (FACE == MICA_BACKWARD_JVP) job.mean_t = plane_param(a->mean.t), job.rstd_t = plane_param(a->rstd.t);
  job.out = image(*outs[FACE], DOWN ? a->y.offsets : a->x.offsets);
  const plane all[] = { job.x.p, job.xt.p, job.dy.p, job.dyt.p, job.out.p, job.w, job.wt, job.b, job.mean, job.rstd,
                        job.mean_t, job.rstd_t, job.saved[0], job.saved[1], job.bias };
  const bool apply = job.out.p.data || job.saved[0].data || job.saved[1].data;
  if ((!apply && !keep) || a->B <= 0 || a->C <= 0) return MICA_OK;
  mica_status status = plane_check(name, all, 15);
  if (status >= 0) status = plane_check_task(name, a->T * a->P, a->C);
  if (status < 0) return status;
  job.wide = image_by_four(job.x) && image_by_four(job.xt) && image_by_four(job.dy) && image_by_four(job.dyt) &&
             image_by_four(job.out);
  /* of a slot of -1 bn_apply does nothing */
  job.keep = keep, job.alone = apply && job.cut == 1 && !(keep && job.out.p.slot);
  return a->C % 4 == 0 ? bn_launch<FACE, 4, POOL>(name, job, !job.alone, apply, exec->stream)
                       : bn_launch<FACE, 1, POOL>(name, job, !job.alone, apply, exec->stream);
}

/* w.d and b.d, or w.td and b.td, from what bn_run kept */
mica_status bn_params_cuda(const char *name, int face, const mica_batch_norm_args *a, const mica_exec *exec);

#endif
