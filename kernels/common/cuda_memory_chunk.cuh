/* cuda_memory_chunk.cuh: memory.h on CUDA in chunks of 16 tokens, by products on the tensor cores. derivation: README.md
 * of delta_rule, "In chunks".
 *
 * a block walks the sequence of one (task, head) and of up to 128 columns of its state; a warp holds 16 columns of it,
 * turned: S' is 16 x K in the fragments that products leave, which are also those that the next product takes on its
 * left, where terms 2 t and 2 t + 1 of eight stand in the places of t and t + 4. columns never meet, so that a walk needs
 * no barrier inside of a group of chunks. before it, what does not depend on the state is made for the chunks of the
 * group, one a warp: M, N and the inverse I of 1 + N diag(beta), with which the substitutions are products (and with
 * decay what chunk_fade does, on the fp32 units):
 *   E' = (V - K S)' I'        y' = (U- diag(beta))' I        w = U- - N' y
 * its elements are what keys read through the tokens between them: bounded where the rule is.
 * a product is three of tf32 (cuda_tile_tf32.cuh), 32 terms at a time, added up in fp32. chunks are counted from a
 * task's first token, and its own length chooses between them and the recurrence: no bit depends on B, on who else is
 * there, or on how many chunks a group has. */
#ifndef MICA_KERNELS_COMMON_CUDA_MEMORY_CHUNK_CUH
#define MICA_KERNELS_COMMON_CUDA_MEMORY_CHUNK_CUH

#include "common/cuda_memory_parts.cuh"
#include "common/cuda_tile_tf32.cuh"

enum { CHUNK = 16, CHUNK_LD = CHUNK + 8, CHUNK_CELLS = CHUNK * CHUNK_LD, CHUNK_PAD = 8 };
enum { CHUNK_WARPS = 8, CHUNK_THREADS = 32 * CHUNK_WARPS, CHUNK_SLICE = 16 * CHUNK_WARPS };
enum { CHUNK_LEAST = 8, CHUNK_MOST = 128 };  /* K and V from; K to: registers (chunk_most) */
enum { CHUNK_SHORT = 352 };                  /* T (K + V): by shape, a task goes token by token up to here, README.md */
enum { CHUNK_GROUP = 4, CHUNK_SHARED = 96 * 1024 };

/* K a multiple of 16, V of a slice; group: chunks at a time; most: of the longest sequence; before, after: is there a
 * state before the first token, a cotangent after the last? walk: the first of those that a launch does */
struct chunk_job {
  mem_job m;
  int32_t K, V, group, tiles, most, before, after, walk, scalar; /* scalar: one factor of decay for all of K */
  float  *S[2], *G[2];                       /* scratch: (V, K) before and after each chunk; [2]: with tangents */
};
static_assert(sizeof(chunk_job) <= 4096, "a kernel's parameters");

/* matrices of a chunk in shared memory: M, N below the diagonal, the inverse; tangents of M and N. with decay then keys as
 * the chunk's end sees them and the product of all factors, rows of K4, and their tangents */
template <class RULE>
struct chunk_cells {
  enum { M = 0, M_T = CHUNK_CELLS, N = CHUNK_CELLS * (1 + RULE::DUAL), I = N + CHUNK_CELLS, N_T = I + CHUNK_CELLS };
  enum { SIZE = CHUNK_CELLS * (1 + RULE::DUAL + RULE::DELTA * (2 + RULE::DUAL)) };
};

/* ---- host ---- */

/* with tangents half of the channels, with decay too a quarter */
static constexpr int chunk_most(bool dual, bool decay) { return CHUNK_MOST / (dual ? decay ? 4 : 2 : 1); }
/* a task of at least so many tokens goes in chunks, others token by token */
static inline int32_t chunk_from(const micak_memory *m, bool dual) {
  if (m->form == MICAK_MEMORY_RECURRENT || m->K < CHUNK_LEAST || m->V < CHUNK_LEAST ||
      m->K > chunk_most(dual, m->decay != MICAK_DECAY_NONE))
    return MEM_LONGEST;
  return m->form == MICAK_MEMORY_CHUNKED ? 0 : (int32_t)(CHUNK_SHORT / (m->K + m->V)) + 1;
}
/* may there be tasks of both kinds? lengths of packed rows are device data */
static inline bool chunk_both(const micak_memory *m, int32_t from) {
  return from > 0 && m->T >= from && m->q->offsets;
}

template <class RULE>
static __host__ __device__ __forceinline__ int chunk_floats(const mem_job &job) {
  return chunk_cells<RULE>::SIZE + (RULE::DECAY ? (1 + RULE::DUAL) * (CHUNK + 1) * job.K4 : 0);
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
  c->scalar = m->decay == MICAK_DECAY_SCALAR, job->channel = m->decay != MICAK_DECAY_NONE;
  if (c->scalar) job->a.v.stride[2] = job->a.t.stride[2] = 0; /* staged as K equal ones */
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

/* x += p q', or p q where TURNED, 8 `eights` terms */
template <bool TURNED>
MEM_DEVICE void chunk_product(const float *p, int ld, const float *q, int ld_q, int eights, chunk_tile &x) {
#pragma unroll 1
  for (int k0 = 0; k0 < eights; k0 += 4) {
    chunk_tile sum = {};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (k0 + k >= eights) break;
      const chunk_left a = chunk_left_rows(p + 8 * (k0 + k), ld);
#pragma unroll
      for (int n = 0; n < 2; n++)
        chunk_multiply(sum[n], a, TURNED ? chunk_right_columns(q + (int64_t)8 * (k0 + k) * ld_q + 8 * n, ld_q)
                                         : chunk_right_rows(q + 8 * n * ld_q + 8 * (k0 + k), ld_q));
    }
#pragma unroll
    for (int n = 0; n < 2; n++) chunk_add<false>(x[n], sum[n]);
  }
}
/* x[0] += p q' where VALUE, x[1] += its tangent */
template <bool TURNED, bool VALUE, bool DUAL>
MEM_DEVICE void chunk_products(const float *p, const float *p_t, int ld, const float *q, const float *q_t, int ld_q,
                               int eights, chunk_tile (&x)[1 + DUAL]) {
  if (VALUE) chunk_product<TURNED>(p, ld, q, ld_q, eights, x[0]);
  if constexpr (DUAL) {
    chunk_product<TURNED>(p_t, ld, q, ld_q, eights, x[1]);
    chunk_product<TURNED>(p, ld, q_t, ld_q, eights, x[1]);
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
MEM_DEVICE void chunk_four(const float *p, float (&x)[4]) {
  *reinterpret_cast<float4 *>(x) = *reinterpret_cast<const float4 *>(p);
}
/* rows of the warp to shared memory; what is above the diagonal, strict: and on it, is 0 */
MEM_DEVICE void chunk_lower(const chunk_tile &x, int strict, float *to) {
#pragma unroll
  for (int n = 0; n < 2; n++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = chunk_g() + 8 * half, col = 8 * n + chunk_t();
      *reinterpret_cast<float2 *>(to + row * CHUNK_LD + col) =
          make_float2(row >= col + strict ? x[n][2 * half] : 0.0f, row > col + strict ? x[n][2 * half + 1] : 0.0f);
    }
}

/* ---- device: chunks ---- */

/* tokens [t0, t0 + n) of the kinds; to the end of their last chunk zeros, and factors of 1 */
template <bool DUAL>
MEM_DEVICE void chunk_stage(const mem_job &job, const mem_team &team, uint32_t kinds, int t0, int n, float *to) {
  mem_stage<DUAL>(job, team, kinds, t0, n, to);
  if (n % CHUNK == 0) return;
#pragma unroll 1
  for (int s = 0; s < 2 * MEM_KINDS; s += DUAL ? 1 : 2) {
    if (!(kinds >> (s / 2) & 1)) continue;
    const int ld = job.ld[s / 2], end = (n + CHUNK - 1) / CHUNK * CHUNK * ld;
    for (int p = n * ld + team.lane; p < end; p += team.lanes) to[job.at[s] + p] = s == 2 * MEM_A ? 1.0f : 0.0f;
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

/* with decay, by one warp: W_t = a_t ... a_(s+1) k_s by running products, a lane an s and a half of K. what tokens t read
 * of it is M and N, its end goes behind the cells. then keys and queries, in their place, times a_t ... a_1. no division:
 * a factor may be 0, and what underflows has been forgotten */
template <class RULE>
MEM_DEVICE void chunk_fade(const chunk_job &c, float *buffer, int first, bool reads, float *cells) {
  constexpr bool DELTA = RULE::DELTA, DUAL = RULE::DUAL;
  typedef chunk_cells<RULE> at;
  const int lane = (int)threadIdx.x % 32, s = lane % CHUNK, half = c.K / 2, ld = c.m.K4;
  auto rows = [&](int kind, int tangent) { return buffer + c.m.at[2 * kind + tangent] + first * ld; };
  const float *a = rows(MEM_A, 0), *a_t = rows(MEM_A, DUAL);
  float *const of[2] = { rows(MEM_Q, 0), rows(MEM_K, 0) }, *const of_t[2] = { rows(MEM_Q, DUAL), rows(MEM_K, DUAL) };
  float *const end = cells + at::SIZE, *const end_t = end + DUAL * (CHUNK + 1) * ld;
  float        x[2][CHUNK] = {}, x_t[2][DUAL ? CHUNK : 1] = {}; /* of queries, of keys */
#pragma unroll 1
  for (int i = lane / CHUNK * half; i < (lane / CHUNK + 1) * half; i += 4) {
    float own[4], own_t[4], w[4] = {}, w_t[4] = {};
    chunk_four(of[1] + s * ld + i, own);
    if (DUAL) chunk_four(of_t[1] + s * ld + i, own_t);
#pragma unroll
    for (int t = 0; t < CHUNK; t++) {
      float f[4], f_t[4];
      chunk_four(a + t * ld + i, f);
      if (DUAL) chunk_four(a_t + t * ld + i, f_t);
#pragma unroll
      for (int e = 0; e < 4; e++) {
        if (DUAL) w_t[e] = t == s ? own_t[e] : fmaf(f_t[e], w[e], f[e] * w_t[e]);
        w[e] = t == s ? own[e] : f[e] * w[e];
      }
#pragma unroll
      for (int n = 0; n < 1 + DELTA; n++) {
        if (!n && !reads) continue;
        chunk_four(of[n] + t * ld + i, f);
        if (DUAL) chunk_four(of_t[n] + t * ld + i, f_t);
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if constexpr (DUAL) x_t[n][t] = fmaf(f_t[e], w[e], fmaf(f[e], w_t[e], x_t[n][t]));
          x[n][t] = fmaf(f[e], w[e], x[n][t]);
        }
      }
    }
    *reinterpret_cast<float4 *>(end + s * ld + i) = make_float4(w[0], w[1], w[2], w[3]);
    if (DUAL) *reinterpret_cast<float4 *>(end_t + s * ld + i) = make_float4(w_t[0], w_t[1], w_t[2], w_t[3]);
  }
  __syncwarp();                              /* keys and queries have been read */
#pragma unroll
  for (int t = 0; t < CHUNK; t++)
#pragma unroll
    for (int n = 0; n < 1 + DELTA; n++) {
      const int   cell = t * CHUNK_LD + s;
      const bool  own = lane < CHUNK, lower = t >= s + n;
      const float sum = x[n][t] + __shfl_xor_sync(~0u, x[n][t], CHUNK);
      if (own) cells[(n ? at::N : at::M) + cell] = lower ? sum : 0.0f;
      if constexpr (DUAL) {
        const float sum_t = x_t[n][t] + __shfl_xor_sync(~0u, x_t[n][t], CHUNK);
        if (own) cells[(n ? at::N_T : at::M_T) + cell] = lower ? sum_t : 0.0f;
      }
    }
#pragma unroll 1
  for (int i = lane; i < c.K; i += 32) {
    float g = 1, g_t = 0;
#pragma unroll 1
    for (int t = i; t < CHUNK * ld; t += ld) {
      if (DUAL) g_t = fmaf(a_t[t], g, a[t] * g_t);
      g *= a[t];
#pragma unroll
      for (int n = 0; n < 1 + DELTA; n++) {
        if (!n && !reads) continue;
        if (DUAL) of_t[n][t] = fmaf(of_t[n][t], g, of[n][t] * g_t);
        of[n][t] *= g;
      }
    }
    end[CHUNK * ld + i] = g;
    if (DUAL) end_t[CHUNK * ld + i] = g_t;
  }
  __syncwarp();
}

/* of one chunk, by one warp: what does not depend on the state */
template <class RULE>
MEM_DEVICE void chunk_prepare(const chunk_job &c, float *buffer, int first, bool reads, float *cells) {
  constexpr bool DELTA = RULE::DELTA, DUAL = RULE::DUAL;
  typedef chunk_cells<RULE> at;
  const mem_job &job = c.m;
  if constexpr (RULE::DECAY) {
    chunk_fade<RULE>(c, buffer, first, reads, cells);
  } else {
    const int ld = job.K4, eights = c.K / 8;
#pragma unroll
    for (int n = 0; n < 1 + DELTA; n++) {    /* M: what queries read of keys; N: what keys do */
      if (!n && !reads) continue;
      const int    kind = n ? MEM_K : MEM_Q;
      const float *p = mem_token(job, buffer, kind, 0, first), *k = mem_token(job, buffer, MEM_K, 0, first);
      chunk_tile   x = {};
      chunk_product<false>(p, ld, k, ld, eights, x);
      chunk_lower(x, n, cells + (n ? at::N : at::M));
      if constexpr (DUAL) {
        chunk_zero(x);
        chunk_product<false>(mem_token(job, buffer, kind, 1, first), ld, k, ld, eights, x);
        chunk_product<false>(p, ld, mem_token(job, buffer, MEM_K, 1, first), ld, eights, x);
        chunk_lower(x, n, cells + (n ? at::N_T : at::M_T));
      }
    }
    __syncwarp();
  }
  if constexpr (DELTA) chunk_invert(cells + at::N, mem_token(job, buffer, MEM_BETA, 0, first), cells + at::I);
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
/* rows of the state, which are columns here, times factors of their own */
template <bool DUAL, int NK, int NT>
MEM_DEVICE void chunk_fade_state(const float *g, const float *g_t, float (&S)[NK][4], float (&S_t)[NT][4]) {
#pragma unroll
  for (int n = 0; n < NK; n++) {
    const float2 f = *reinterpret_cast<const float2 *>(g + 8 * n + chunk_t());
    const float2 f_t = *reinterpret_cast<const float2 *>(g_t + 8 * n + chunk_t());
#pragma unroll
    for (int e = 0; e < 4; e++) {
      if constexpr (DUAL) S_t[n][e] = fmaf(e & 1 ? f_t.y : f_t.x, S[n][e], (e & 1 ? f.y : f.x) * S_t[n][e]);
      S[n][e] *= e & 1 ? f.y : f.x;
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

/* ---- walks ---- */

/* a chunk of a walk: its number, its tokens, and where they and what was made of them lie */
struct chunk_at {
  int          chunk, tokens, first;         /* first: of its tokens in the buffer */
  const float *buffer, *cells;
};
/* all chunks of T tokens, a group after another: `each` by every warp that holds columns; UP: from the last on */
template <class RULE, bool UP, class EACH>
MEM_DEVICE void chunk_walk(const chunk_job &c, const mem_team &team, uint32_t kinds, int T, bool reads, EACH each) {
  const mem_job &job = c.m;
  const int      chunks = (T + CHUNK - 1) / CHUNK, groups = (chunks + c.group - 1) / c.group;
  const int      warp = team.lane / 32, warps = team.lanes / 32, size = chunk_floats<RULE>(job);
  auto buffer_of = [&](int group) { return team.memory + (group & (job.buffers - 1)) * job.buffer; };
  auto stage = [&](int group) {
    const int t0 = group * job.tokens;
    if (group >= 0 && group < groups)
      chunk_stage<RULE::DUAL>(job, team, kinds, t0, min(job.tokens, T - t0), buffer_of(group));
    ptx_copy_commit();
  };
  team.sync();
  stage(UP ? groups - 1 : 0);
#pragma unroll 1
  for (int step = 0; step < groups; step++) {
    const int    group = UP ? groups - 1 - step : step, next = UP ? group - 1 : group + 1;
    const int    n = min(job.tokens, T - group * job.tokens), count = (n + CHUNK - 1) / CHUNK;
    float *const buffer = buffer_of(group);
    if (job.buffers == 2) stage(next);
    else ptx_copy_commit();
    ptx_copy_wait<1>();
    team.sync();
    for (int i = warp; i < count; i += warps)
      chunk_prepare<RULE>(c, buffer, i * CHUNK, reads, team.results + i * size);
    team.sync();
#pragma unroll 1
    for (int i = 0; i < count && warp < c.tiles; i++) {
      const int own = UP ? count - 1 - i : i, first = own * CHUNK;
      each(chunk_at{ group * c.group + own, min((int)CHUNK, n - first), first, buffer, team.results + own * size });
    }
    team.sync();
    if (job.buffers == 1) stage(next);
  }
  ptx_copy_wait<0>();
}

/* ---- down: states, and what queries read. BACK: states and e are kept ---- */

template <class RULE, int NK, bool BACK>
MEM_DEVICE void chunk_down(const chunk_job &c, const mem_team &team, int64_t b, int64_t h, int j0) {
  constexpr bool DELTA = RULE::DELTA, DECAY = RULE::DECAY, DUAL = RULE::DUAL;
  typedef chunk_cells<RULE> at;
  const mem_job   &job = c.m;
  const bool       raw = !DELTA && job.raw, reads = !(BACK && DELTA) && job.reads; /* the delta rules divide by nothing */
  const bool       given = (DECAY && !BACK) || reads; /* are queries there? always, where registers are few */
  const uint32_t   kinds = RULE::WRITES | (given ? 1u << MEM_Q : 0);
  const mica_wire &out = DUAL ? job.out.t : job.out.v, &state = DUAL ? job.state_out.t : job.state_out.v;
  const mica_wire &norm = DUAL ? job.norm_out.t : job.norm_out.v;
  const int32_t   *offsets = job.out.offsets;
  const int        T = (int)wire_rows(job.q.offsets, b, job.T), chunks = (T + CHUNK - 1) / CHUNK, warp = team.lane / 32;
  const int        j = j0 + 16 * warp, end = min(j0 + job.width, job.columns), ld = job.K4;
  const bool       mine = warp < c.tiles, wanted = !BACK && (state.data || norm.data);
  const int64_t    place = mem_place(out, offsets, b, h);
  float            S[NK][4] = {}, S_t[DUAL ? NK : 1][4] = {};
  team.sync();                               /* the task before may still be read */
  mem_enter<DUAL>(job, team, b, h, j0, kinds);
  if (mine && c.before) {
    chunk_load(job, mem_cells(job.state_in.v, job.norm_in.v, b, h), j, end, S, b);
    if constexpr (DUAL) chunk_load(job, mem_cells(job.state_in.t, job.norm_in.t, b, h), j, end, S_t, b);
  }
  chunk_walk<RULE, false>(c, team, kinds, T, given, [&](const chunk_at &of) {
    const bool    has = c.before || of.chunk;
    const int64_t row = mem_row(job, b, h) + (int64_t)of.chunk * CHUNK * job.row; /* in scratch */
    const float  *cells = of.cells;
    auto          token = [&](int kind, int tangent) { return mem_token(job, of.buffer, kind, tangent, of.first); };
    const float  *k = token(MEM_K, 0), *k_t = token(MEM_K, 1), *q = token(MEM_Q, 0), *q_t = token(MEM_Q, 1);
    chunk_tile    u, u_t, o = {}, o_t = {};
    chunk_left    a[2], a_t[2];
    if (BACK && has) {
      chunk_keep(S, j, c.S[0] + chunk_kept(c, b, h, of.chunk));
      if constexpr (DUAL) chunk_keep(S_t, j, c.S[1] + chunk_kept(c, b, h, of.chunk));
    }
    if (reads && has) {
      if constexpr (!DUAL) chunk_read<false>(S, q, ld, o);
      else if (raw) chunk_read<false, true>(S, S_t, q, q_t, ld, o, o_t);
      else chunk_read<false, false>(S, S_t, q, q_t, ld, o, o_t);
    }
    chunk_turned(token(MEM_V, 0) + 16 * warp, job.ld[MEM_V], u);
    if constexpr (DUAL) chunk_turned(token(MEM_V, 1) + 16 * warp, job.ld[MEM_V], u_t);
    if constexpr (DELTA) {
      const float *beta = token(MEM_BETA, 0), *beta_t = token(MEM_BETA, 1);
      chunk_tile   e = {}, x = {};
      if (has) {
        if constexpr (DUAL) chunk_read<true, true>(S, S_t, k, k_t, ld, u, u_t);
        else chunk_read<true>(S, k, ld, u);
      }
      chunk_lefts(u, a);
      chunk_mix<false, false>(a, cells + at::I, e);
      if (BACK) chunk_put(e, of.tokens, j, end, job.e[0] + row, job.row);
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
        if (BACK) chunk_put(x, of.tokens, j, end, job.e[1] + row, job.row);
        chunk_scale_add(x, beta, u_t);
      }
    }
    chunk_lefts(u, a);
    if constexpr (DUAL) chunk_lefts(u_t, a_t);
    if (reads) {
      if constexpr (DUAL) {
        chunk_mix<false, false>(a_t, cells + at::M, o_t);
        chunk_mix<false, false>(a, cells + at::M_T, o_t);
        if (raw) chunk_put(o_t, of.tokens, j, end, job.readings[1] + row, job.row);
      }
      if (!DUAL || raw) chunk_mix<false, false>(a, cells + at::M, o);
      if (raw) chunk_put(o, of.tokens, j, end, job.readings[0] + row, job.row);
      if (!raw && place >= 0)
        chunk_put_wire(DUAL ? o_t : o, of.tokens, j, min(end, job.V), out, place + (int64_t)of.chunk * CHUNK * out.stride[0],
                       mem_adds(out, offsets, b));
    }
    if (!wanted && of.chunk + 1 == chunks) return;
    const float *last = DECAY ? cells + at::SIZE : k; /* keys as the chunk's end sees them */
    const float *last_t = DECAY ? last + DUAL * (CHUNK + 1) * ld : k_t;
    if constexpr (DECAY) chunk_fade_state<DUAL>(last + CHUNK * ld, last_t + CHUNK * ld, S, S_t);
    if constexpr (DUAL) chunk_write<false>(a, a_t, last, last_t, ld, S, S_t);
    else chunk_write<false>(a, last, ld, S);
  });
  if (!wanted || !mine) return;
  const mem_cells last(state, norm, b, h);
  if constexpr (DUAL) chunk_save(job, last, j, end, S_t, b, h);
  else chunk_save(job, last, j, end, S, b, h);
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

/* the kernel of K, of which the widest is chunk_most */
#define CHUNK_TILES(RULE, n) (8 * (n) < chunk_most(RULE::DUAL, RULE::DECAY) ? (n) : chunk_most(RULE::DUAL, RULE::DECAY) / 8)
#define CHUNK_KERNEL(kernel, RULE, K)                                                                       \
  ((K) == 16 ? kernel<RULE, 2> : (K) == 32 ? kernel<RULE, 4> : (K) == 64 ? kernel<RULE, CHUNK_TILES(RULE, 8)> \
                                                             : kernel<RULE, CHUNK_TILES(RULE, 16)>)

template <class RULE>
static inline mica_status chunk_run_down(const micak_memory *m, const mica_exec *exec, int32_t from) {
  constexpr bool DUAL = RULE::DUAL;
  chunk_job      c = {};
  mica_status    status = chunk_open(&c, m, from);
  mem_job       &job = c.m;
  if (status < 0 || job.B <= 0) return status;
  job.reads = (DUAL ? job.out.t.data : job.out.v.data) != NULL, job.raw = job.reads && job.divide;
  mem_down_scratch(&job, static_cast<float *>(exec->scratch), DUAL);
  chunk_stages(&c, RULE::WRITES | 1u << MEM_Q, DUAL, chunk_floats<RULE>(job));
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
