/* cuda_memory_chunk.cuh: memory.h on CUDA in chunks of 16 tokens, by products on the tensor cores. derivation: README.md
 * of delta_rule, "In chunks".
 *
 * a block walks the sequence of one (task, head) and of up to 128 columns of its state; a warp holds 16 columns of it,
 * turned: S' is 16 x K in the fragments that products leave, which are also those that the next product takes on its
 * left, where terms 2 t and 2 t + 1 of eight stand in the places of t and t + 4. columns never meet, so that a walk needs
 * no barrier inside of a group of chunks. before it, what does not depend on the state is made for the chunks of the
 * group, one a warp: M, N and the inverse I of 1 + N diag(beta), with which the substitutions are products:
 *   E' = (V - K S)' I'        y' = (U- diag(beta))' I        w = U- - N' y
 * its elements are what keys read through the tokens between them: bounded where the rule is.
 * a product is three of tf32 (cuda_tile_tf32.cuh), 32 terms at a time, added up in fp32. chunks are counted from a
 * task's first token, and its own length chooses between them and the recurrence: no bit depends on B, on who else is
 * there, or on how many chunks a group has. */
#ifndef MICA_KERNELS_COMMON_CUDA_MEMORY_CHUNK_CUH
#define MICA_KERNELS_COMMON_CUDA_MEMORY_CHUNK_CUH

#include "common/cuda_memory.cuh"
#include "common/cuda_tile_tf32.cuh"

enum { CHUNK = 16, CHUNK_LD = CHUNK + 8, CHUNK_CELLS = CHUNK * CHUNK_LD, CHUNK_PAD = 8 };
enum { CHUNK_WARPS = 8, CHUNK_THREADS = 32 * CHUNK_WARPS, CHUNK_SLICE = 16 * CHUNK_WARPS };
enum { CHUNK_LEAST = 8, CHUNK_MOST = 128 };  /* K and V from; K to, with tangents to half of it: registers */
enum { CHUNK_SHORT = 352 };                  /* T (K + V): by shape, a task goes token by token up to here, README.md */
enum { CHUNK_GROUP = 4, CHUNK_SHARED = 96 * 1024 };

/* K a multiple of 16, V of a slice; group: chunks at a time; most: of the longest sequence; before, after: is there a
 * state before the first token, a cotangent after the last? walk: the first of those that a launch does */
struct chunk_job {
  mem_job m;
  int32_t K, V, group, tiles, most, before, after, walk;
  float  *S[2], *G[2];                       /* scratch: (V, K) before and after each chunk; [2]: with tangents */
};
static_assert(sizeof(chunk_job) <= 4096, "a kernel's parameters");

/* matrices of a chunk in shared memory: M, N below the diagonal, the inverse; tangents of M and N */
template <class RULE>
struct chunk_cells {
  enum { M = 0, M_T = CHUNK_CELLS, N = CHUNK_CELLS * (1 + RULE::DUAL), I = N + CHUNK_CELLS, N_T = I + CHUNK_CELLS };
  enum { SIZE = CHUNK_CELLS * (1 + RULE::DUAL + RULE::DELTA * (2 + RULE::DUAL)) };
};

/* ---- host ---- */

/* a task of at least so many tokens goes in chunks, others token by token */
static inline int32_t chunk_from(const micak_memory *m, bool dual) {
  if (m->form == MICAK_MEMORY_RECURRENT || m->K < CHUNK_LEAST || m->V < CHUNK_LEAST || m->K > CHUNK_MOST / (1 + dual))
    return MEM_LONGEST;
  return m->form == MICAK_MEMORY_CHUNKED ? 0 : (int32_t)(CHUNK_SHORT / (m->K + m->V)) + 1;
}
/* may there be tasks of both kinds? lengths of packed rows are device data */
static inline bool chunk_both(const micak_memory *m, int32_t from) {
  return from > 0 && m->T >= from && m->q->offsets;
}

/* K in tiles of 8 columns, to an instantiation */
static inline int32_t chunk_width(int64_t K) { return K <= 16 ? 16 : K <= 32 ? 32 : K <= 64 ? 64 : 128; }

static inline mica_status chunk_open(chunk_job *c, const micak_memory *m, int32_t from) {
  mem_job          *job = &c->m;
  const mica_status status = mem_open(job, m, from);
  if (status < 0) return status;
  job->slices = (job->columns + CHUNK_SLICE - 1) / CHUNK_SLICE;
  job->width = (job->columns + job->slices - 1) / job->slices;
  if (job->slices > 1) job->width = mem_round(job->width, 16), job->slices = (job->columns + job->width - 1) / job->width;
  c->tiles = (job->width + 15) / 16, c->K = chunk_width(job->K), c->V = job->slices * 16 * c->tiles;
  c->most = job->T > CHUNK ? (job->T + CHUNK - 1) / CHUNK : 1;
  c->before = job->state_in.v.data || job->norm_in.v.data || job->state_in.t.data || job->norm_in.t.data;
  c->after = job->state_out.d.data || job->norm_out.d.data || job->state_out.td.data || job->norm_out.td.data;
  job->LK = 1, job->LK_log = 0, job->teams = 1, job->units = job->B * job->H * job->slices;
  job->K4 = c->K + CHUNK_PAD, job->width4 = 16 * c->tiles + CHUNK_PAD;
  return MICA_OK;
}
/* as many chunks a group as fit, `more` floats for each; a second buffer where that fits, too. threads for both phases */
static inline void chunk_stages(chunk_job *c, uint32_t kinds, bool dual, int64_t more) {
  mem_job *job = &c->m;
  for (c->group = c->most < CHUNK_GROUP ? c->most : CHUNK_GROUP;; c->group = c->group > 2 ? 2 : 1) {
    job->tokens = CHUNK * c->group, job->chunks = (c->most + c->group - 1) / c->group;
    mem_stages(job, kinds, dual, c->group * more);
    if (mem_shared(job) <= CHUNK_SHARED) break;
    if (c->group > 1) continue;
    job->chunks = 1;
    mem_stages(job, kinds, dual, more);
    break;
  }
  job->lanes = 32 * (c->tiles > c->group ? c->tiles : c->group);
}

/* ---- device: fragments ---- */

typedef float chunk_tile[2][4];              /* 16 x 16 of a warp */
struct chunk_left {
  uint32_t high[4], low[4];
};
struct chunk_right {
  uint32_t high[2], low[2];
};
MEM_DEVICE int        chunk_g() { return (int)threadIdx.x % 32 / 4; }
MEM_DEVICE int        chunk_t() { return (int)threadIdx.x % 4 * 2; }
MEM_DEVICE chunk_left chunk_split(float a, float b, float c, float d) {
  const float x[4] = { a, b, c, d };
  chunk_left  y;
#pragma unroll
  for (int e = 0; e < 4; e++) tf32_split(__float_as_uint(x[e]), y.high[e], y.low[e]);
  return y;
}
/* what a product left, 16 x 8 */
MEM_DEVICE chunk_left chunk_left_of(const float (&x)[4]) { return chunk_split(x[0], x[2], x[1], x[3]); }
/* 16 x 8 from rows, or turned: from columns */
MEM_DEVICE chunk_left chunk_left_rows(const float *p, int ld) {
  const float2 a = *reinterpret_cast<const float2 *>(p + chunk_g() * ld + chunk_t());
  const float2 b = *reinterpret_cast<const float2 *>(p + (chunk_g() + 8) * ld + chunk_t());
  return chunk_split(a.x, b.x, a.y, b.y);
}
MEM_DEVICE chunk_left chunk_left_columns(const float *p, int ld) {
  p += chunk_t() * ld + chunk_g();
  return chunk_split(p[0], p[8], p[ld], p[ld + 8]);
}
/* 8 x 8: element (k, n) is p[n][k], or p[k][n] */
MEM_DEVICE chunk_right chunk_right_of(float a, float b) {
  chunk_right y;
  tf32_split(__float_as_uint(a), y.high[0], y.low[0]);
  tf32_split(__float_as_uint(b), y.high[1], y.low[1]);
  return y;
}
MEM_DEVICE chunk_right chunk_right_rows(const float *p, int ld) {
  const float2 a = *reinterpret_cast<const float2 *>(p + chunk_g() * ld + chunk_t());
  return chunk_right_of(a.x, a.y);
}
MEM_DEVICE chunk_right chunk_right_columns(const float *p, int ld) {
  p += chunk_t() * ld + chunk_g();
  return chunk_right_of(p[0], p[ld]);
}
/* sum += a b, the small products first */
MEM_DEVICE void chunk_multiply(float (&sum)[4], const chunk_left &a, const chunk_right &b) {
  ptx_mma_tf32(sum, a.low, b.high);
  ptx_mma_tf32(sum, a.high, b.low);
  ptx_mma_tf32(sum, a.high, b.high);
}
template <bool MINUS>
MEM_DEVICE void chunk_add(float (&x)[4], const float (&sum)[4]) {
#pragma unroll
  for (int e = 0; e < 4; e++) x[e] += MINUS ? -sum[e] : sum[e];
}
MEM_DEVICE void chunk_zero(chunk_tile &x) {
#pragma unroll
  for (int n = 0; n < 2; n++) x[n][0] = x[n][1] = x[n][2] = x[n][3] = 0;
}

/* ---- device: products of a warp ---- */

/* x += p q', 8 `eights` terms */
MEM_DEVICE void chunk_gram(const float *p, const float *q, int ld, int eights, chunk_tile &x) {
#pragma unroll 1
  for (int k0 = 0; k0 < eights; k0 += 4) {
    chunk_tile sum = {};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (k0 + k >= eights) break;
      const chunk_left a = chunk_left_rows(p + 8 * (k0 + k), ld);
#pragma unroll
      for (int n = 0; n < 2; n++) chunk_multiply(sum[n], a, chunk_right_rows(q + 8 * n * ld + 8 * (k0 + k), ld));
    }
#pragma unroll
    for (int n = 0; n < 2; n++) chunk_add<false>(x[n], sum[n]);
  }
}
/* x += S' p', or -= */
template <bool MINUS, int NK>
MEM_DEVICE void chunk_read(const float (&S)[NK][4], const float *p, int ld, chunk_tile &x) {
#pragma unroll
  for (int k0 = 0; k0 < NK; k0 += 4) {
    chunk_tile sum = {};
#pragma unroll
    for (int k = k0; k < k0 + 4 && k < NK; k++) {
      const chunk_left a = chunk_left_of(S[k]);
#pragma unroll
      for (int n = 0; n < 2; n++) chunk_multiply(sum[n], a, chunk_right_rows(p + 8 * n * ld + 8 * k, ld));
    }
#pragma unroll
    for (int n = 0; n < 2; n++) chunk_add<MINUS>(x[n], sum[n]);
  }
}
/* the same with tangents; without VALUE x is left alone */
template <bool MINUS, bool VALUE, int NK>
MEM_DEVICE void chunk_read(const float (&S)[NK][4], const float (&S_t)[NK][4], const float *p, const float *p_t, int ld,
                           chunk_tile &x, chunk_tile &x_t) {
#pragma unroll
  for (int k0 = 0; k0 < NK; k0 += 2) {
    chunk_tile sum = {}, sum_t = {};
#pragma unroll
    for (int k = k0; k < k0 + 2; k++) {
      const chunk_left a = chunk_left_of(S[k]), a_t = chunk_left_of(S_t[k]);
#pragma unroll
      for (int n = 0; n < 2; n++) {
        const chunk_right b = chunk_right_rows(p + 8 * n * ld + 8 * k, ld);
        if (VALUE) chunk_multiply(sum[n], a, b);
        chunk_multiply(sum_t[n], a_t, b);
        chunk_multiply(sum_t[n], a, chunk_right_rows(p_t + 8 * n * ld + 8 * k, ld));
      }
    }
#pragma unroll
    for (int n = 0; n < 2; n++) {
      if (VALUE) chunk_add<MINUS>(x[n], sum[n]);
      chunk_add<MINUS>(x_t[n], sum_t[n]);
    }
  }
}
/* x += a p', or a p where TURNED, or -= : p a matrix of a chunk */
template <bool MINUS, bool TURNED>
MEM_DEVICE void chunk_mix(const chunk_left (&a)[2], const float *p, chunk_tile &x) {
  chunk_tile sum = {};
#pragma unroll
  for (int k = 0; k < 2; k++)
#pragma unroll
    for (int n = 0; n < 2; n++)
      chunk_multiply(sum[n], a[k], TURNED ? chunk_right_columns(p + 8 * k * CHUNK_LD + 8 * n, CHUNK_LD)
                                          : chunk_right_rows(p + 8 * n * CHUNK_LD + 8 * k, CHUNK_LD));
#pragma unroll
  for (int n = 0; n < 2; n++) chunk_add<MINUS>(x[n], sum[n]);
}
/* S' += a p, or -= */
template <bool MINUS, int NK>
MEM_DEVICE void chunk_write(const chunk_left (&a)[2], const float *p, int ld, float (&S)[NK][4]) {
#pragma unroll
  for (int n = 0; n < NK; n++) {
    float sum[4] = {};
#pragma unroll
    for (int k = 0; k < 2; k++) chunk_multiply(sum, a[k], chunk_right_columns(p + 8 * k * ld + 8 * n, ld));
    chunk_add<MINUS>(S[n], sum);
  }
}
template <bool MINUS, int NK>
MEM_DEVICE void chunk_write(const chunk_left (&a)[2], const chunk_left (&a_t)[2], const float *p, const float *p_t, int ld,
                            float (&S)[NK][4], float (&S_t)[NK][4]) {
#pragma unroll
  for (int n = 0; n < NK; n++) {
    float sum[4] = {}, sum_t[4] = {};
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const chunk_right b = chunk_right_columns(p + 8 * k * ld + 8 * n, ld);
      chunk_multiply(sum, a[k], b);
      chunk_multiply(sum_t, a_t[k], b);
      chunk_multiply(sum_t, a[k], chunk_right_columns(p_t + 8 * k * ld + 8 * n, ld));
    }
    chunk_add<MINUS>(S[n], sum);
    chunk_add<MINUS>(S_t[n], sum_t);
  }
}
MEM_DEVICE void chunk_lefts(const chunk_tile &x, chunk_left (&a)[2]) {
  a[0] = chunk_left_of(x[0]), a[1] = chunk_left_of(x[1]);
}
/* columns, which are tokens, times factors of their own */
MEM_DEVICE void chunk_scale(const chunk_tile &x, const float *factor, chunk_tile &y) {
#pragma unroll
  for (int n = 0; n < 2; n++) {
    const float2 f = *reinterpret_cast<const float2 *>(factor + 8 * n + chunk_t());
    y[n][0] = f.x * x[n][0], y[n][1] = f.y * x[n][1], y[n][2] = f.x * x[n][2], y[n][3] = f.y * x[n][3];
  }
}
MEM_DEVICE void chunk_scale_add(const chunk_tile &x, const float *factor, chunk_tile &y) {
#pragma unroll
  for (int n = 0; n < 2; n++) {
    const float2 f = *reinterpret_cast<const float2 *>(factor + 8 * n + chunk_t());
#pragma unroll
    for (int e = 0; e < 4; e++) y[n][e] = fmaf(e & 1 ? f.y : f.x, x[n][e], y[n][e]);
  }
}
/* 16 columns of staged rows, turned */
MEM_DEVICE void chunk_turned(const float *p, int ld, chunk_tile &x) {
  p += chunk_t() * ld + chunk_g();
#pragma unroll
  for (int n = 0; n < 2; n++, p += 8 * ld) x[n][0] = p[0], x[n][1] = p[ld], x[n][2] = p[8], x[n][3] = p[ld + 8];
}
/* rows of the warp to shared memory; what is above the diagonal, STRICT: and on it, is 0 */
template <bool STRICT>
MEM_DEVICE void chunk_lower(const chunk_tile &x, float *to) {
#pragma unroll
  for (int n = 0; n < 2; n++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = chunk_g() + 8 * half, col = 8 * n + chunk_t();
      *reinterpret_cast<float2 *>(to + row * CHUNK_LD + col) =
          make_float2(row >= col + STRICT ? x[n][2 * half] : 0.0f, row > col + STRICT ? x[n][2 * half + 1] : 0.0f);
    }
}

/* ---- device: chunks ---- */

/* tokens [t0, t0 + n) of the kinds, and zeros to the end of their last chunk */
template <bool DUAL>
MEM_DEVICE void chunk_stage(const mem_job &job, const mem_team &team, uint32_t kinds, int t0, int n, float *to) {
  mem_stage<DUAL>(job, team, kinds, t0, n, to);
  if (n % CHUNK == 0) return;
#pragma unroll 1
  for (int s = 0; s < 2 * MEM_KINDS; s += DUAL ? 1 : 2) {
    if (!(kinds >> (s / 2) & 1)) continue;
    const int ld = job.ld[s / 2], end = (n + CHUNK - 1) / CHUNK * CHUNK * ld;
    for (int p = n * ld + team.lane; p < end; p += team.lanes) to[job.at[s] + p] = 0;
  }
}

/* the inverse of 1 + N diag(beta), a lane a column */
MEM_DEVICE void chunk_invert(const float *N, const float *beta, float *inverse) {
  const int lane = (int)threadIdx.x % 32;
  float     y[CHUNK];                        /* beta times the column */
  if (lane >= CHUNK) return;
#pragma unroll
  for (int t = 0; t < CHUNK; t++) {
    float x = t == lane ? 1.0f : 0.0f;
#pragma unroll
    for (int s = 0; s < t; s += 4) {
      const float4 n = *reinterpret_cast<const float4 *>(N + t * CHUNK_LD + s);
      x = fmaf(-n.x, y[s], x);
      if (s + 1 < t) x = fmaf(-n.y, y[s + 1], x);
      if (s + 2 < t) x = fmaf(-n.z, y[s + 2], x);
      if (s + 3 < t) x = fmaf(-n.w, y[s + 3], x);
    }
    inverse[t * CHUNK_LD + lane] = x;
    y[t] = beta[t] * x;
  }
}

/* of one chunk, by one warp: what does not depend on the state */
template <class RULE>
MEM_DEVICE void chunk_prepare(const chunk_job &c, const float *buffer, int first, bool reads, float *cells) {
  constexpr bool DUAL = RULE::DUAL;
  typedef chunk_cells<RULE> at;
  const mem_job &job = c.m;
  const int      ld = job.ld[MEM_K], eights = c.K / 8;
  const float   *k = mem_token(job, buffer, MEM_K, 0, first), *k_t = mem_token(job, buffer, MEM_K, 1, first);
  const float   *q = mem_token(job, buffer, MEM_Q, 0, first), *q_t = mem_token(job, buffer, MEM_Q, 1, first);
  if constexpr (RULE::DELTA) {
    chunk_tile x = {};
    chunk_gram(k, k, ld, eights, x);
    chunk_lower<true>(x, cells + at::N);
    if constexpr (DUAL) {
      chunk_zero(x);
      chunk_gram(k_t, k, ld, eights, x);
      chunk_gram(k, k_t, ld, eights, x);
      chunk_lower<true>(x, cells + at::N_T);
    }
    __syncwarp();
    chunk_invert(cells + at::N, mem_token(job, buffer, MEM_BETA, 0, first), cells + at::I);
  }
  if (!reads) return;
  chunk_tile x = {};
  chunk_gram(q, k, ld, eights, x);
  chunk_lower<false>(x, cells + at::M);
  if constexpr (DUAL) {
    chunk_zero(x);
    chunk_gram(q_t, k, ld, eights, x);
    chunk_gram(q, k_t, ld, eights, x);
    chunk_lower<false>(x, cells + at::M_T);
  }
}

/* ---- device: states in fragments; j: the column of the warp's row 0 ---- */

/* a row of fragments in a wire: a column of the state, or the sum of keys; -1: nowhere */
struct chunk_cell {
  const mica_wire &w;
  int64_t          at, step;
  bool             adds;

  __device__ __forceinline__ chunk_cell(const mem_job &job, const mem_cells &cells, int row, int end, int64_t b)
      : w(row < job.V ? cells.state : cells.norm), at(row < job.V ? cells.at : cells.norm_at), step(w.stride[1]) {
    if (at >= 0) at += chunk_t() * step + (row < job.V ? row * w.stride[2] : 0);
    if (row >= end) at = -1;
    adds = at >= 0 && mem_adds(w, NULL, b);
  }
};
template <int NK>
MEM_DEVICE void chunk_load(const mem_job &job, const mem_cells &cells, int j, int end, float (&x)[NK][4], int64_t b) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const chunk_cell row(job, cells, j + chunk_g() + 8 * half, end, b);
#pragma unroll
    for (int i = 0; i < 8 * NK; i += 8)
#pragma unroll
      for (int e = 0; e < 2; e++)
        x[i / 8][2 * half + e] =
            row.at >= 0 && i + e + chunk_t() < job.K ? wire_get(row.w, row.at + (i + e) * row.step) : 0.0f;
  }
}
/* the last state of (b, h): to its wires or, by task, to scratch */
template <int NK>
MEM_DEVICE void chunk_save(const mem_job &job, const mem_cells &cells, int j, int end, const float (&x)[NK][4], int64_t b,
                           int64_t h) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int        column = j + chunk_g() + 8 * half;
    const chunk_cell row(job, cells, column, end, b);
    float *const     scratch = job.state && column < end ? job.state + (b * job.H + h) * job.K * job.row + column : NULL;
#pragma unroll
    for (int i = 0; i < 8 * NK; i += 8)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        if (i + e + chunk_t() >= job.K) continue;
        if (scratch) scratch[(i + e + chunk_t()) * job.row] = x[i / 8][2 * half + e];
        else if (row.at >= 0) wire_put(row.w, row.at + (i + e) * row.step, x[i / 8][2 * half + e], row.adds);
      }
  }
}
/* to scratch, for the end of the way back */
template <int NK>
MEM_DEVICE void chunk_keep(const float (&x)[NK][4], int j, float *to) {
  to += (j + chunk_g()) * 8 * NK + chunk_t();
#pragma unroll
  for (int n = 0; n < NK; n++) {
    *reinterpret_cast<float2 *>(to + 8 * n) = make_float2(x[n][0], x[n][1]);
    *reinterpret_cast<float2 *>(to + 8 * NK * 8 + 8 * n) = make_float2(x[n][2], x[n][3]);
  }
}
/* where the state of a chunk of (b, h) lies in scratch */
MEM_DEVICE int64_t chunk_kept(const chunk_job &c, int64_t b, int64_t h, int chunk) {
  return ((b * c.m.H + h) * c.most + chunk) * c.V * c.K;
}
/* rows of tokens from t0 on, `end`: of columns; to scratch */
MEM_DEVICE void chunk_put(const chunk_tile &x, int n, int j, int end, float *to, int row) {
#pragma unroll
  for (int e = 0; e < 8; e++) {
    const int t = 8 * (e / 4) + chunk_t() + e % 2, col = j + chunk_g() + e / 2 % 2 * 8;
    if (t < n && col < end) to[(int64_t)t * row + col] = x[e / 4][e % 4];
  }
}
/* to a wire, where the row of token t0 begins at `place` */
MEM_DEVICE void chunk_put_wire(const chunk_tile &x, int n, int j, int end, const mica_wire &w, int64_t place, bool adds) {
#pragma unroll
  for (int e = 0; e < 8; e++) {
    const int t = 8 * (e / 4) + chunk_t() + e % 2, col = j + chunk_g() + e / 2 % 2 * 8;
    if (t < n && col < end) wire_put(w, place + t * w.stride[0] + col * w.stride[2], x[e / 4][e % 4], adds);
  }
}

/* ---- down: states, and what queries read. BACK: states and e are kept ---- */

template <class RULE, int NK, bool BACK>
MEM_DEVICE void chunk_down(const chunk_job &c, const mem_team &team, int64_t b, int64_t h, int j0) {
  constexpr bool DELTA = RULE::DELTA, DUAL = RULE::DUAL;
  typedef chunk_cells<RULE> at;
  const mem_job   &job = c.m;
  const bool       raw = !DELTA && job.raw, reads = !(BACK && DELTA) && job.reads; /* the delta rules divide by nothing */
  const uint32_t   kinds = RULE::WRITES | (reads ? 1u << MEM_Q : 0);
  const mica_wire &out = DUAL ? job.out.t : job.out.v, &state = DUAL ? job.state_out.t : job.state_out.v;
  const mica_wire &norm = DUAL ? job.norm_out.t : job.norm_out.v;
  const int32_t   *offsets = job.out.offsets;
  const int        T = (int)wire_rows(job.q.offsets, b, job.T), chunks = (T + CHUNK - 1) / CHUNK;
  const int        groups = (chunks + c.group - 1) / c.group, warp = team.lane / 32, warps = team.lanes / 32;
  const int        j = j0 + 16 * warp, end = min(j0 + job.width, job.columns), ld = job.ld[MEM_K];
  const bool       mine = warp < c.tiles, wanted = !BACK && (state.data || norm.data);
  const int64_t    place = mem_place(out, offsets, b, h);
  float            S[NK][4] = {}, S_t[DUAL ? NK : 1][4] = {};
  team.sync();                               /* the task before may still be read */
  mem_enter<DUAL>(job, team, b, h, j0, kinds);
  if (mine && c.before) {
    chunk_load(job, mem_cells(job.state_in.v, job.norm_in.v, b, h), j, end, S, b);
    if constexpr (DUAL) chunk_load(job, mem_cells(job.state_in.t, job.norm_in.t, b, h), j, end, S_t, b);
  }
  team.sync();
  chunk_stage<DUAL>(job, team, kinds, 0, min(job.tokens, T), team.memory);
  ptx_copy_commit();
  for (int group = 0; group < groups; group++) {
    const int    t0 = group * job.tokens, n = min(job.tokens, T - t0), rest = min(job.tokens, T - t0 - n);
    const float *buffer = team.memory + (group & (job.buffers - 1)) * job.buffer;
    if (job.buffers == 2 && group + 1 < groups)
      chunk_stage<DUAL>(job, team, kinds, t0 + n, rest, team.memory + (~group & 1) * job.buffer);
    ptx_copy_commit();
    ptx_copy_wait<1>();
    team.sync();
    for (int i = warp; i * CHUNK < n; i += warps)
      chunk_prepare<RULE>(c, buffer, i * CHUNK, reads, team.results + i * at::SIZE);
    team.sync();
#pragma unroll 1
    for (int i = 0; i * CHUNK < n && mine; i++) {
      const int     first = i * CHUNK, tokens = min((int)CHUNK, n - first), chunk = group * c.group + i;
      const bool    has = c.before || chunk;
      const int64_t row = mem_row(job, b, h) + (int64_t)(t0 + first) * job.row; /* in scratch */
      const float  *cells = team.results + i * at::SIZE;
      const float  *k = mem_token(job, buffer, MEM_K, 0, first), *k_t = mem_token(job, buffer, MEM_K, 1, first);
      const float  *q = mem_token(job, buffer, MEM_Q, 0, first), *q_t = mem_token(job, buffer, MEM_Q, 1, first);
      chunk_tile    u, u_t, o = {}, o_t = {};
      chunk_left    a[2], a_t[2];
      if (BACK && has) {
        chunk_keep(S, j, c.S[0] + chunk_kept(c, b, h, chunk));
        if constexpr (DUAL) chunk_keep(S_t, j, c.S[1] + chunk_kept(c, b, h, chunk));
      }
      if (reads && has) {
        if constexpr (!DUAL) chunk_read<false>(S, q, ld, o);
        else if (raw) chunk_read<false, true>(S, S_t, q, q_t, ld, o, o_t);
        else chunk_read<false, false>(S, S_t, q, q_t, ld, o, o_t);
      }
      chunk_turned(mem_token(job, buffer, MEM_V, 0, first) + 16 * warp, job.ld[MEM_V], u);
      if constexpr (DUAL) chunk_turned(mem_token(job, buffer, MEM_V, 1, first) + 16 * warp, job.ld[MEM_V], u_t);
      if constexpr (DELTA) {
        const float *beta = mem_token(job, buffer, MEM_BETA, 0, first);
        const float *beta_t = mem_token(job, buffer, MEM_BETA, 1, first);
        chunk_tile   e = {}, x = {};
        if (has) {
          if constexpr (DUAL) chunk_read<true, true>(S, S_t, k, k_t, ld, u, u_t);
          else chunk_read<true>(S, k, ld, u);
        }
        chunk_lefts(u, a);
        chunk_mix<false, false>(a, cells + at::I, e);
        if (BACK) chunk_put(e, tokens, j, end, job.e[0] + row, job.row);
        chunk_scale(e, beta, u);
        if constexpr (DUAL) {
          chunk_lefts(u, a);
          chunk_mix<true, false>(a, cells + at::N_T, u_t);
          chunk_scale(e, beta_t, x);
          chunk_lefts(x, a);
          chunk_mix<true, false>(a, cells + at::N, u_t);
          chunk_lefts(u_t, a);
          chunk_scale(e, beta_t, u_t);
          chunk_zero(x);
          chunk_mix<false, false>(a, cells + at::I, x);
          if (BACK) chunk_put(x, tokens, j, end, job.e[1] + row, job.row);
          chunk_scale_add(x, beta, u_t);
        }
      }
      chunk_lefts(u, a);
      if constexpr (DUAL) chunk_lefts(u_t, a_t);
      if (reads) {
        if constexpr (DUAL) {
          chunk_mix<false, false>(a_t, cells + at::M, o_t);
          chunk_mix<false, false>(a, cells + at::M_T, o_t);
          if (raw) chunk_put(o_t, tokens, j, end, job.readings[1] + row, job.row);
        }
        if (!DUAL || raw) chunk_mix<false, false>(a, cells + at::M, o);
        if (raw) chunk_put(o, tokens, j, end, job.readings[0] + row, job.row);
        if (!raw && place >= 0)
          chunk_put_wire(DUAL ? o_t : o, tokens, j, min(end, job.V), out, place + (int64_t)(t0 + first) * out.stride[0],
                         mem_adds(out, offsets, b));
      }
      if (!wanted && chunk + 1 == chunks) break;
      if constexpr (DUAL) chunk_write<false>(a, a_t, k, k_t, ld, S, S_t);
      else chunk_write<false>(a, k, ld, S);
    }
    team.sync();
    if (job.buffers == 1 && group + 1 < groups) chunk_stage<DUAL>(job, team, kinds, t0 + n, rest, team.memory);
    if (job.buffers == 1) ptx_copy_commit();
  }
  if (wanted && mine) {
    const mem_cells last(state, norm, b, h);
    if constexpr (DUAL) chunk_save(job, last, j, end, S_t, b, h);
    else chunk_save(job, last, j, end, S, b, h);
  }
  ptx_copy_wait<0>();
}

template <class RULE, int NK>
static __global__ void __launch_bounds__(CHUNK_THREADS, 1) memory_chunk_down(const __grid_constant__ chunk_job c) {
  constexpr bool DUAL = RULE::DUAL;
  DYN_SMEM(float, memory);
  const mem_job   &job = c.m;
  const mem_team   team(job, memory);
  const mica_wire &out = DUAL ? job.out.t : job.out.v, &state = DUAL ? job.state_out.t : job.state_out.v;
  const mica_wire &norm = DUAL ? job.norm_out.t : job.norm_out.v;
  const int64_t    unit = blockIdx.x, h = unit / job.slices % job.H, first = unit / job.slices / job.H;
  auto follows = [&](int64_t b) { /* does b write what the task before it writes? */
    return (!job.raw && out.data && wire_follows(out, job.out.offsets, b)) ||
           (!job.state && ((state.data && wire_follows(state, NULL, b)) || (norm.data && wire_follows(norm, NULL, b))));
  };
  if (follows(first)) return;
  for (int64_t b = first; b == first || (b < job.B && follows(b)); b++)
    if (mem_mine(job, wire_rows(job.q.offsets, b, job.T)))
      chunk_down<RULE, NK, false>(c, team, b, h, (int)(unit % job.slices) * job.width);
}

/* ---- forward and jvp ---- */

/* the kernel of K */
#define CHUNK_KERNEL(kernel, RULE, K)                                                       \
  ((K) == 16 ? kernel<RULE, 2> : (K) == 32 ? kernel<RULE, 4> : RULE::DUAL || (K) == 64 ? kernel<RULE, 8> \
                                                             : kernel<RULE, RULE::DUAL ? 8 : 16>)

template <class RULE>
static inline mica_status chunk_run_down(const micak_memory *m, const mica_exec *exec, int32_t from) {
  constexpr bool DUAL = RULE::DUAL;
  chunk_job      c = {};
  mica_status    status = chunk_open(&c, m, from);
  mem_job       &job = c.m;
  if (status < 0 || job.B <= 0) return status;
  job.reads = (DUAL ? job.out.t.data : job.out.v.data) != NULL, job.raw = job.reads && job.divide;
  mem_down_scratch(&job, static_cast<float *>(exec->scratch), DUAL);
  chunk_stages(&c, RULE::WRITES | 1u << MEM_Q, DUAL, chunk_cells<RULE>::SIZE);
  status = micak_launch(m->name, CHUNK_KERNEL(memory_chunk_down, RULE, c.K), mem_grid(&job), mem_block(&job),
                        mem_shared(&job), exec->stream, c);
  if constexpr (!RULE::DELTA)
    if (status >= 0 && job.raw) status = mem_run_divide(m->name, memory_divide<DUAL>, job, exec->stream);
  if (status < 0) return status;
  return mem_gather_states(m->name, job, DUAL ? job.state_out.t : job.state_out.v,
                           DUAL ? job.norm_out.t : job.norm_out.v, exec->stream);
}
/* short tasks token by token, then the others in chunks */
template <class RULE>
static inline mica_status memory_run_down(const micak_memory *m, const mica_exec *exec) {
  const int32_t from = chunk_from(m, RULE::DUAL);
  if (m->T < from) return mem_down<RULE>(m, exec);
  const bool        both = chunk_both(m, from);
  const mica_status status = both ? mem_down<RULE>(m, exec, 0, from - 1) : MICA_OK;
  return status < 0 ? status : chunk_run_down<RULE>(m, exec, both ? from : 0);
}
static inline size_t memory_down_bytes(const micak_memory *m, bool dual) {
  mem_job       job = {};
  const int32_t from = chunk_from(m, dual);
  return mem_open(&job, m, chunk_both(m, from) ? from : 0) < 0 ? 0 : mem_down_scratch(&job, NULL, dual);
}

#endif
