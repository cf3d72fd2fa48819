/* attention_tile.cuh: what the CUDA kernels of attention share: the mask, tiles of rows in shared memory, and the three
 * products of a tile. fp32 arithmetic by fmaf; rows may be stored in f32 or bf16.
 *
 * a group of threads (a warp, or a whole block) works on one (task, head, tile): RY x RX threads, each with TM rows
 * ly + RY i and TN keys lx + RX j of a tile of BM rows x BN keys. nothing is larger than tiles and heads. tasks whose
 * outputs share a slot are walked in task order by the group of the first. large heads are cut into slices of
 * columns of the results; a slice computes its scores anew. */
#ifndef MICA_KERNELS_ATTENTION_TILE_CUH
#define MICA_KERNELS_ATTENTION_TILE_CUH

#include <math.h>

#include "attention/attention.h"
#include "common/cuda_ptx.cuh"
#include "common/cuda_wire.cuh"

#define ATTN_DEVICE static __device__ __forceinline__

/* GROUP 32: GROUPS warps a block, each with its own (task, head); else one group a block */
template <int RY_, int RX_, int TM_, int TN_, int GROUPS_>
struct attn_shape {
  enum {
    RY = RY_, RX = RX_, TM = TM_, TN = TN_, GROUP = RY * RX, GROUPS = GROUPS_, THREADS = GROUP * GROUPS,
    BM = RY * TM, BN = RX * TN, KEYS = BN / RY, /* KEYS: keys of a thread where keys are rows */
    P_LD = RX == 8 ? BN + 8 : BN + 4,        /* scores as (row, key): stores and reads free of bank conflicts */
    T_LD = BM + 4                            /* as (key, row) */
  };
};
typedef attn_shape<8, 4, 2, 4, 2> attn_small;   /* 16 rows x 16 keys, a warp */
typedef attn_shape<8, 4, 2, 4, 1> attn_lone;    /* the same, alone in its block: heads over 128 */
typedef attn_shape<16, 8, 2, 4, 1> attn_square; /* 32 x 32, 128 threads */
typedef attn_shape<16, 8, 4, 4, 1> attn_tall;   /* 64 x 32, 128 threads */

/* blocks that a multiprocessor has registers for, at least */
template <class C, int COLS>
constexpr int attn_blocks() {
  return C::GROUP == 32 ? 1 : C::BM > 32 || COLS > 64 ? 2 : 3;
}

/* what a launch is told; `wide`: bit 4 port + wire: rows may be copied 16 bytes at a time */
enum { ATTN_Q, ATTN_K, ATTN_V, ATTN_OUT };
enum { ATTN_WIRE_V, ATTN_WIRE_D, ATTN_WIRE_T, ATTN_WIRE_TD };
struct attn_job {
  mica_attention_args a;
  uint32_t            wide;
  int32_t             ld, head4, slices;     /* floats of a row in shared memory; (D + 3) / 4; slices of columns */
  int64_t             tiles, units;
  double             *sums;                  /* scratch: scale's and slopes' cotangents, (B, H, tiles, 2) */
  int32_t            whole;                  /* up: one tile holds all keys */
  int32_t            longer;                 /* tasks with as many rows and keys are another kernel's; 0: none */
};

template <int GROUP>
ATTN_DEVICE void attn_sync() {
  if (GROUP == 32) __syncwarp();
  else __syncthreads();
}

/* ---- host ---- */

static inline const mica_wire *attn_wire(const mica_port &p, int w) {
  return w == 0 ? &p.v : w == 1 ? &p.d : w == 2 ? &p.t : &p.td;
}
static inline attn_job attn_job_of(const mica_attention_args *a) {
  attn_job job = {};
  job.a = *a;
  const mica_port *port[] = { &a->q, &a->k, &a->v, &a->out };
  for (int p = 0; p < 4; p++)
    for (int w = 0; w < 4; w++) {
      const mica_wire *x = attn_wire(*port[p], w);
      if (x->dtype == MICA_F32 && x->stride[2] == 1 && x->stride[1] % 4 == 0 && x->stride[0] % 4 == 0 &&
          a->D % 4 == 0 && (port[p]->offsets || x->task_stride % 4 == 0) && (uintptr_t)x->data % 16 == 0)
        job.wide |= 1u << (4 * p + w);
    }
  job.head4 = (int32_t)((a->D + 3) / 4), job.ld = 4 * (job.head4 | 1);
  return job;
}
/* the faces on tensor cores, each in its own file. of what is given they do the tasks that have fewer than `longer` rows or
 * keys (0: all); those of sm_90a have at least `least` of both */
mica_status attn_mma_forward(const mica_exec *exec, const mica_attention_args *a, int longer);
mica_status attn_mma_backward_wide(const mica_exec *exec, const mica_attention_args *a, int longer); /* bf16 heads over 64 */
mica_status attn_mma_backward(const mica_exec *exec, const mica_attention_args *a, int longer);
mica_status attn_mma_jvp(const mica_exec *exec, const mica_attention_args *a);
mica_status attn_mma_backward_jvp(const mica_exec *exec, const mica_attention_args *a);
mica_status attn_wgmma_forward(const mica_exec *exec, const mica_attention_args *a, int least);
mica_status attn_wgmma_backward(const mica_exec *exec, const mica_attention_args *a, int least);

/* the faces that sm_90a has kernels for; none where the build has none for sm_90a */
typedef mica_status (*attn_wgmma_face)(const mica_exec *exec, const mica_attention_args *a, int least);
#if defined(MICA_SIMT) || defined(MICA_CUDA_NO_SM90)
static constexpr attn_wgmma_face attn_wgmma[MICA_NFACE] = { NULL, NULL, NULL, NULL };
#else
static constexpr attn_wgmma_face attn_wgmma[MICA_NFACE] = { attn_wgmma_forward, attn_wgmma_backward, NULL, NULL };
#endif
/* sizes that kernel=auto leaves to them: rows and keys of a task, heads */
enum { ATTN_WGMMA_LEAST = 256, ATTN_WGMMA_HEAD = 33, ATTN_WGMMA_MOST = 128 };

static inline bool attn_is_plain(const mica_attention_args *a) {
  return !a->bias.v.data && !a->slopes.v.data && !a->scale.v.data && !a->block_mask.v.data;
}
/* wires that TMA must be able to describe, of backward one more; all in bf16 */
static inline bool attn_suits_wgmma(const mica_attention_args *a, int face) {
  const struct { const mica_port *port; const mica_wire *wire; int64_t heads; } reads[] = {
    { &a->q, &a->q.v, a->H }, { &a->k, &a->k.v, a->G }, { &a->v, &a->v.v, a->G }, { &a->out, &a->out.d, a->H },
  };
  const mica_wire *others[] = { &a->out.v, &a->q.d, &a->k.d, &a->v.d };
  const int        up = face == MICA_BACKWARD;
  bool             fits = attn_is_plain(a) && a->D <= ATTN_WGMMA_MOST;
  for (int i = 0; i < 3 + up; i++)
    fits &= wire_by_boxes(*reads[i].wire, reads[i].port->offsets, a->B, reads[i].heads, a->D);
  for (int i = 0; i < (up ? 4 : 1); i++) fits &= !others[i]->data || others[i]->dtype == MICA_BF16;
  return fits;
}

/* which kernels run: those of sm_90a (attention_wgmma.cuh) for long tasks in bf16, those on tensor cores (attention_mma.cuh)
 * for plain scores of one type and heads of `least` to `most`, else those of this file, which take every form. form, type,
 * head, layout and a task's own length decide (of tasks that share a slot of an output the first one's), never the launch:
 * a task's bits are its own. beyond `most` registers spill; below `least` they lose (an H200, B=64 T=82 H=8 D=32, jvp: 0.146
 * against 0.097 ms). the setting `kernel` overrides `least`, and lengths */
struct attn_choice {
  attn_wgmma_face wgmma;                     /* NULL: no task */
  int             least;                     /* rows and keys of its tasks */
  bool            rest, mma;                 /* are there others? on tensor cores? */
};
static inline mica_status attn_choose(const mica_attention_args *a, int face, attn_choice *choice) {
  static const struct { int dtype, least[MICA_NFACE], most[MICA_NFACE]; } rules[] = {
    /*           forward backward jvp backward_jvp */
    { MICA_F32,  { 1, 1, 33, 1 }, { 128, 64, 64, 32 } },
    { MICA_BF16, { 1, 1, 1, 1 }, { 128, 128, 128, 128 } },
  };
  const mica_port *port[] = { &a->q, &a->k, &a->v, &a->out };
  *choice = { NULL, 0, true, false };
  for (const auto &rule : rules) {
    bool fits = attn_is_plain(a) && a->D <= rule.most[face] && (a->D >= rule.least[face] || a->kernel == MICA_ATTENTION_MMA);
    for (int p = 0; p < 4; p++)
      for (int w = 0; w < 4; w++) fits &= !attn_wire(*port[p], w)->data || attn_wire(*port[p], w)->dtype == rule.dtype;
    choice->mma |= fits;
  }
  if (a->kernel == MICA_ATTENTION_MMA && !choice->mma)
    return mica_error(MICA_ERR_UNSUPPORTED, "attention %s: kernel=mma takes no bias, slopes, scale or block_mask, one type "
                      "of q, k, v and out, and heads up to %d (f32) or %d (bf16) elements, got %lld: set kernel=auto",
                      mica_face_name(face), rules[0].most[face], rules[1].most[face], (long long)a->D);
  if (a->kernel == MICA_ATTENTION_FMA) choice->mma = false;
  if (a->kernel == MICA_ATTENTION_FMA || a->kernel == MICA_ATTENTION_MMA) return MICA_OK;
  const bool forced = a->kernel == MICA_ATTENTION_WGMMA, has = face == MICA_FORWARD || face == MICA_BACKWARD;
  const bool suits = attn_suits_wgmma(a, face);
  const bool worth = attn_wgmma[face] && a->D >= ATTN_WGMMA_HEAD && a->T >= ATTN_WGMMA_LEAST && a->S >= ATTN_WGMMA_LEAST;
  if (!has || a->T <= 0 || a->S <= 0 || (!forced && !(suits && worth))) return MICA_OK;
  if (!suits)
    return mica_error(MICA_ERR_UNSUPPORTED, "attention %s: kernel=wgmma takes q, k, v and out in bf16, for backward with a "
                      "cotangent, rows at multiples of 16 bytes, heads of 8, 16, ... %d elements, and no bias, slopes, "
                      "scale or block_mask: set kernel=auto",
                      mica_face_name(face), (int)ATTN_WGMMA_MOST);
  if (!attn_wgmma[face])
    return mica_error(MICA_ERR_UNSUPPORTED, "attention %s: kernel=wgmma: this build has no kernels for sm_90a: set kernel=auto",
                      mica_face_name(face));
  int         device = 0, major = 0, minor = 0;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess) code = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (code == cudaSuccess) code = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (code != cudaSuccess) return micak_cuda_error("cudaDeviceGetAttribute", "attention", code);
  if (major != 9 || minor != 0) {
    if (!forced) return MICA_OK;
    return mica_error(MICA_ERR_UNSUPPORTED, "attention %s: kernel=wgmma needs a device of compute capability 9.0, this one is "
                      "%d.%d: set kernel=auto", mica_face_name(face), major, minor);
  }
  choice->wgmma = attn_wgmma[face], choice->least = forced ? 0 : ATTN_WGMMA_LEAST;
  choice->rest = !forced && (a->q.offsets || a->k.offsets);
  return MICA_OK;
}

/* scratch that backward of sm_90a may want, whatever the device: lse and delta of each row, 64 rows at a time */
static inline size_t attn_wgmma_scratch(const mica_attention_args *a) {
  const bool forced = a->kernel == MICA_ATTENTION_WGMMA, never = !forced && a->kernel != MICA_ATTENTION_AUTO;
  if (!attn_wgmma[MICA_BACKWARD] || never || a->D > ATTN_WGMMA_MOST || a->B <= 0 || a->H <= 0 ||
      (!forced && (a->T < ATTN_WGMMA_LEAST || a->S < ATTN_WGMMA_LEAST)))
    return 0;
  return (size_t)(a->B * a->H * ((a->T + 63) / 64)) * 128 * sizeof(float);
}

/* columns of a slice, as a template parameter */
static inline int attn_columns(const mica_attention_args *a) { return a->D <= 32 ? 32 : a->D <= 64 ? 64 : 128; }

/* ---- device: tasks, heads, the mask ---- */

struct attn_head {
  int     T, S, lag, first;                  /* lag: p_i - i; first: N of prefix and context */
  float   scale, scale_t, slope, slope_t;
  int64_t bias, bias_t, blocks;              /* places; -1: none. blocks: -2: no block mask at all */
};

ATTN_DEVICE float attn_number(const mica_wire &w, int64_t b, int64_t h, float absent) {
  if (!w.data) return absent;
  int64_t place = wire_place(w, NULL, b);
  return place < 0 ? 0.0f : wire_get(w, place + h * w.stride[0]);
}
/* element (task b, head h) of a wire with row and head axes; -1: none */
ATTN_DEVICE int64_t attn_place(const mica_wire &w, const int32_t *offsets, int64_t b, int64_t h) {
  int64_t place = wire_place(w, offsets, b);
  return place < 0 ? -1 : place + h * w.stride[1];
}
/* has the task that many rows and keys? */
ATTN_DEVICE bool attn_is_long(const mica_attention_args &a, int64_t b, int least) {
  return wire_rows(a.q.offsets, b, a.T) >= least && wire_rows(a.k.offsets, b, a.S) >= least;
}
ATTN_DEVICE attn_head attn_enter(const mica_attention_args &a, int64_t b, int64_t h) {
  attn_head x;
  x.T = (int)wire_rows(a.q.offsets, b, a.T), x.S = (int)wire_rows(a.k.offsets, b, a.S), x.lag = x.S - x.T;
  x.scale = attn_number(a.scale.v, b, h, rsqrtf((float)a.D)), x.scale_t = attn_number(a.scale.t, b, h, 0);
  if (!a.scale.v.data) x.scale = 1.0f / sqrtf((float)a.D);
  x.slope = attn_number(a.slopes.v, b, h, 0), x.slope_t = attn_number(a.slopes.t, b, h, 0);
  x.bias = wire_place(a.bias.v, NULL, b), x.bias_t = wire_place(a.bias.t, NULL, b);
  if (x.bias >= 0) x.bias += h * a.bias.v.stride[0];
  if (x.bias_t >= 0) x.bias_t += h * a.bias.t.stride[0];
  x.blocks = a.block_mask.v.data ? wire_place(a.block_mask.v, NULL, b) : -2;
  int64_t n = a.prefix;
  if (a.prefix_lengths.v.data) {
    int64_t place = wire_place(a.prefix_lengths.v, NULL, b);
    n = place < 0 ? 0 : wire_index(a.prefix_lengths.v, place);
  }
  x.first = (int)(n < 0 ? 0 : n > x.S ? x.S : n);
  return x;
}
/* may any row of [i0, i1) see a key of [j0, j1)? block masks and biases aside */
ATTN_DEVICE bool attn_meets(const mica_attention_args &a, const attn_head &x, int i0, int i1, int j0, int j1) {
  i1 = i1 < x.T ? i1 : x.T, j1 = j1 < x.S ? j1 : x.S;
  if (i0 >= i1 || j0 >= j1) return false;
  const int low = i0 + x.lag, high = i1 - 1 + x.lag;
  switch (a.mask) {
    case MICA_ATTENTION_FULL: return true;
    case MICA_ATTENTION_CAUSAL: return j0 <= high;
    case MICA_ATTENTION_PREFIX: return j0 < x.first || j0 <= high;
    case MICA_ATTENTION_CONTEXT: return j0 < x.first || (j0 <= high && j1 > low);
    default: return j0 <= high && (int64_t)j1 > (int64_t)low - a.window + 1;
  }
}
/* the keys of a row as numbers: j < first or low <= j < high */
struct attn_row {
  int first, low, high;
  __device__ __forceinline__ bool sees(int j) const { return j < first || (j >= low && j < high); }
};
ATTN_DEVICE attn_row attn_row_of(const mica_attention_args &a, const attn_head &x, int i) {
  const int own = i + x.lag;
  attn_row  r = { 0, 0, own + 1 < x.S ? own + 1 : x.S };
  if (a.mask == MICA_ATTENTION_FULL) r.high = x.S;
  if (a.mask == MICA_ATTENTION_PREFIX || a.mask == MICA_ATTENTION_CONTEXT) r.first = x.first;
  if (a.mask == MICA_ATTENTION_CONTEXT) r.low = own;
  if (a.mask == MICA_ATTENTION_WINDOW) r.low = a.window > own ? 0 : own + 1 - (int)a.window;
  if (r.low < 0) r.low = 0;
  if (i >= x.T) r.first = r.high = 0;
  return r;
}
/* what is added to a tile's scores, into the places of p that the thread itself will read: biases, distances, and -inf
 * where a block mask hides */
template <class C>
ATTN_DEVICE void attn_extras(const mica_attention_args &a, const attn_head &x, int i0, int j0, int ly, int lx,
                             float *p) {
#pragma unroll 1
  for (int e = 0; e < C::TM * C::TN; e++) {
    const int r = ly + C::RY * (e / C::TN), c = lx + C::RX * (e % C::TN), i = i0 + r, j = j0 + c;
    float     s = 0;
    if (i < x.T && j < x.S) {
      if (x.bias >= 0) s = wire_get(a.bias.v, x.bias + i * a.bias.v.stride[1] + j * a.bias.v.stride[2]);
      if (a.slopes.v.data) s -= x.slope * (float)abs(i + x.lag - j);
      if (x.blocks == -1 ||
          (x.blocks >= 0 && wire_index(a.block_mask.v, x.blocks + i / a.block_q * a.block_mask.v.stride[0] +
                                                           j / a.block_k * a.block_mask.v.stride[1]) == 0))
        s = -INFINITY;
    }
    p[r * C::P_LD + c] = s;
  }
}
/* the tangents of these */
template <class C>
ATTN_DEVICE void attn_extras_t(const mica_attention_args &a, const attn_head &x, int i0, int j0, int ly, int lx,
                               float *p) {
#pragma unroll 1
  for (int e = 0; e < C::TM * C::TN; e++) {
    const int r = ly + C::RY * (e / C::TN), c = lx + C::RX * (e % C::TN), i = i0 + r, j = j0 + c;
    float     s = 0;
    if (i < x.T && j < x.S) {
      if (x.bias_t >= 0) s = wire_get(a.bias.t, x.bias_t + i * a.bias.t.stride[1] + j * a.bias.t.stride[2]);
      if (a.slopes.t.data) s -= x.slope_t * (float)abs(i + x.lag - j);
    }
    p[r * C::P_LD + c] = s;
  }
}
ATTN_DEVICE bool attn_has_extras(const mica_attention_args &a) {
  return a.bias.v.data || a.slopes.v.data || a.block_mask.v.data;
}
ATTN_DEVICE bool attn_has_extras_t(const mica_attention_args &a) { return a.bias.t.data || a.slopes.t.data; }

/* ---- device: tiles of rows ---- */

/* rows [i0, i0 + ROWS) of a head, `count` rows in all, to `to`: zeros beyond and in the last columns. asynchronous:
 * then commit, wait and synchronise */
template <int GROUP, int ROWS>
ATTN_DEVICE void attn_load(const attn_job &job, int port, int wire, const mica_wire &w, int64_t place, int i0,
                           int count, float *to, int t) {
  const bool wide = job.wide >> (4 * port + wire) & 1;
  const int  D = (int)job.a.D;
  for (int e = t; e < ROWS * job.head4; e += GROUP) {
    const int  r = e / job.head4, c = (e - r * job.head4) * 4;
    const bool valid = place >= 0 && i0 + r < count;
    float     *at = to + r * job.ld + c;
    int64_t    from = place + (i0 + r) * w.stride[0] + c * w.stride[2];
    if (wide) {
      ptx_copy_async<16>(at, static_cast<const float *>(w.data) + (valid ? from : 0), valid);
    } else if (w.dtype == MICA_F32 && w.data) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const bool one = valid && c + j < D;
        ptx_copy_async<4>(at + j, static_cast<const float *>(w.data) + (one ? from + j * w.stride[2] : 0), one);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++) at[j] = valid && c + j < D ? wire_get(w, from + j * w.stride[2]) : 0.0f;
    }
  }
}

/* acc[i][j] += <row ly + RY i of x, row lx + RX j of y> over 4 n columns */
template <class C>
ATTN_DEVICE void attn_dot(const float *x, const float *y, int ld, int n, int ly, int lx, float (&acc)[C::TM][C::TN]) {
#pragma unroll 2
  for (int d = 0; d < n; d++) {
    float4 u[C::TM], v[C::TN];
#pragma unroll
    for (int i = 0; i < C::TM; i++) u[i] = *reinterpret_cast<const float4 *>(x + (ly + C::RY * i) * ld + 4 * d);
#pragma unroll
    for (int j = 0; j < C::TN; j++) v[j] = *reinterpret_cast<const float4 *>(y + (lx + C::RX * j) * ld + 4 * d);
#pragma unroll
    for (int i = 0; i < C::TM; i++)
#pragma unroll
      for (int j = 0; j < C::TN; j++) {
        acc[i][j] = fmaf(u[i].x, v[j].x, acc[i][j]);
        acc[i][j] = fmaf(u[i].y, v[j].y, acc[i][j]);
        acc[i][j] = fmaf(u[i].z, v[j].z, acc[i][j]);
        acc[i][j] = fmaf(u[i].w, v[j].w, acc[i][j]);
      }
  }
}

/* acc[i][4 n ...] += sum over k < TERMS of p(ly + RY i, k) y(k, col0 + 4 (lx + RX n) ...) */
template <class C, int ROWS, int N, int TERMS>
ATTN_DEVICE void attn_mix(const float *p, int p_ld, const float *y, int ld, int col0, int columns, int ly, int lx,
                          float (&acc)[ROWS][4 * N]) {
#pragma unroll 2
  for (int k = 0; k < TERMS; k += 4) {
    float u[ROWS][4];
#pragma unroll
    for (int i = 0; i < ROWS; i++)
      *reinterpret_cast<float4 *>(u[i]) = *reinterpret_cast<const float4 *>(p + (ly + C::RY * i) * p_ld + k);
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
      for (int n = 0; n < N; n++) {
        const int c = col0 + 4 * (lx + C::RX * n);
        if (c >= columns) continue;
        const float4 v = *reinterpret_cast<const float4 *>(y + (k + m) * ld + c);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
          acc[i][4 * n] = fmaf(u[i][m], v.x, acc[i][4 * n]);
          acc[i][4 * n + 1] = fmaf(u[i][m], v.y, acc[i][4 * n + 1]);
          acc[i][4 * n + 2] = fmaf(u[i][m], v.z, acc[i][4 * n + 2]);
          acc[i][4 * n + 3] = fmaf(u[i][m], v.w, acc[i][4 * n + 3]);
        }
      }
  }
}

/* columns col0 ... of a result's row at `place` */
template <class C, int N>
ATTN_DEVICE void attn_write(const attn_job &job, int port, int wire, const mica_wire &w, int64_t place, int64_t row,
                            int col0, int lx, const float (&x)[4 * N], float by, bool add) {
  const bool wide = job.wide >> (4 * port + wire) & 1;
#pragma unroll
  for (int n = 0; n < N; n++) {
    const int c = col0 + 4 * (lx + C::RX * n), end = (int)job.a.D;
    if (c >= end) continue;
    if (wide) {
      float4 *to = reinterpret_cast<float4 *>(static_cast<float *>(w.data) + place + row * w.stride[0] + c);
      float4  old = add ? *to : make_float4(0, 0, 0, 0);
      *to = make_float4(old.x + by * x[4 * n], old.y + by * x[4 * n + 1], old.z + by * x[4 * n + 2],
                        old.w + by * x[4 * n + 3]);
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (c + j < end) wire_put(w, place + row * w.stride[0] + (c + j) * w.stride[2], by * x[4 * n + j], add);
  }
}

/* over the RX threads of a row; every one gets it */
template <class C>
ATTN_DEVICE float attn_row_sum(float x) {
#pragma unroll
  for (int step = C::RX / 2; step; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
template <class C>
ATTN_DEVICE float attn_row_max(float x) {
#pragma unroll
  for (int step = C::RX / 2; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

/* does task k write the same place as the one before, on any of these wires? */
ATTN_DEVICE bool attn_adds(const mica_wire &w, const int32_t *offsets, int64_t k) {
  return (w.flags & MICA_ADD) || wire_follows(w, offsets, k);
}

#endif
