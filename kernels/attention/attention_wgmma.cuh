/* attention_wgmma.cuh: what the sm_90a kernels of attention share, for long sequences in bf16. a block is three
 * warpgroups: the first copies by TMA, one thread for all, the others own 64 rows (or keys) each and multiply by wgmma.
 * tiles come through rings of two; who has read a place says so on its mbarrier, and no barrier of the block is taken
 * after the start. tiles begin at multiples of their size, whatever the block: an element's bits depend on its own task,
 * head, row and key alone. */
#ifndef MICA_KERNELS_ATTENTION_WGMMA_CUH
#define MICA_KERNELS_ATTENTION_WGMMA_CUH

#include "attention/attention_mma.cuh"
#include "common/cuda_tile_sm90.cuh"

/* registers: 168 a thread at the start; what the copying warpgroup gives up, the others get */
enum {
  WGMMA_GROUPS = 2, WGMMA_OWN = 64, WGMMA_ROWS = WGMMA_GROUPS * WGMMA_OWN, WGMMA_THREADS = 128 * (WGMMA_GROUPS + 1),
  WGMMA_WARPS = 4 * WGMMA_GROUPS, WGMMA_FEWER = 40, WGMMA_MORE = 232, WGMMA_STAGES = 2
};

struct wgmma_job {
  tile90_rows         q, k, v, g;            /* g: the cotangent of out */
  mica_attention_args a;
  float              *numbers;               /* backward: of 64 rows each, 64 lse log2 e and 64 delta; (B, H, spans, 128) */
  int64_t             tiles, spans;
  int32_t             least;                 /* rows and keys of the tasks that are this kernel's */
  uint32_t            wide;                  /* bit 4 port + wire: rows may be written 16 bytes at a time */
};

/* D: 64 or 128, columns of a head in shared memory */
template <int D_, int WALK_>
struct wgmma_shape {
  enum {
    D = D_, HALVES = D / TILE90_COLUMNS, WALK = WALK_, /* rows of a tile of the side that is walked */
    OWN_HALF = WGMMA_ROWS * TILE90_ROW, WALK_HALF = WALK * TILE90_ROW, OWN_BYTES = HALVES * OWN_HALF,
    WALK_BYTES = HALVES * WALK_HALF, N = D / 2, M = WALK / 2
  };
};

/* a ring of tiles that one thread fills; places are taken in turn, task after task */
struct wgmma_ring {
  uint8_t  *at;
  uint64_t *full, *free;
  int       bytes;
  __device__ __forceinline__ uint8_t *place(int n) const { return at + n % WGMMA_STAGES * bytes; }
  __device__ __forceinline__ uint64_t *came(int n) const { return full + n % WGMMA_STAGES; }
  __device__ __forceinline__ void await(int n) const { ptx_barrier_wait(came(n), n / WGMMA_STAGES & 1); }
  /* by the copying thread, before it fills the n-th: the one before in its place has been read; `all` bytes will come */
  __device__ __forceinline__ void claim(int n, int all) const {
    ptx_barrier_wait(free + n % WGMMA_STAGES, (n / WGMMA_STAGES & 1) ^ 1);
    ptx_barrier_expect(came(n), (uint32_t)all);
  }
  /* by each multiplying warp */
  __device__ __forceinline__ void release(int n) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx_barrier_arrive(free + n % WGMMA_STAGES);
  }
};
/* one place, that is filled once a task */
struct wgmma_own {
  uint8_t  *at;
  uint64_t *full, *free;
  __device__ __forceinline__ void await(int n) const { ptx_barrier_wait(full, n & 1); }
  __device__ __forceinline__ void claim(int n, int all) const {
    ptx_barrier_wait(free, (n & 1) ^ 1);
    ptx_barrier_expect(full, (uint32_t)all);
  }
  __device__ __forceinline__ void release() const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx_barrier_arrive(free);
  }
};
/* of full places one arrives, who copies; of free ones all multiplying warps. `pairs` of them */
ATTN_DEVICE void wgmma_barriers(uint64_t *full, uint64_t *free, int pairs) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < pairs; i++) ptx_barrier_init(full + i, 1), ptx_barrier_init(free + i, WGMMA_WARPS);
    ptx_barrier_ready();
  }
  __syncthreads();
}

/* where a head's rows are for TMA: its slot, the first row, and how many there are */
struct wgmma_place {
  int task, row, count;
};
ATTN_DEVICE wgmma_place wgmma_place_of(const mica_wire &w, const int32_t *offsets, int64_t b, int count) {
  const int64_t s = wire_slot(w, b);
  return { (int)s, offsets && s >= 0 ? offsets[s] : 0, s >= 0 ? count : 0 };
}

/* do all rows from i on see the keys up to j? */
ATTN_DEVICE bool wgmma_plain(const mica_attention_args &a, const attn_head &x, int i, int j) {
  return a.mask == MICA_ATTENTION_FULL || (a.mask == MICA_ATTENTION_CAUSAL && j <= i + x.lag);
}

/* 64 rows of a result: the thread's are row and row + 8; four threads turn their words about, so that each writes 16
 * bytes side by side */
template <int N>
ATTN_DEVICE void wgmma_write(const mica_wire &w, bool wide, int64_t place, int64_t D, int row, int count, const float (&x)[N],
                             float by0, float by1, bool add) {
  const int t = (int)threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int     r = row + 8 * half;
    const float   by = half ? by1 : by0;
    const int64_t at = place + r * w.stride[0];
    const bool    here = place >= 0 && r < count;
    if (!wide || add) {
#pragma unroll
      for (int i = 0; i < N / 2; i++) {
        const int e = i / 2 * 4 + 2 * half + i % 2, c = i / 2 * 8 + 2 * t + i % 2;
        if (here && c < D) wire_put(w, at + c * w.stride[2], by * x[e], add);
      }
      continue;
    }
#pragma unroll
    for (int n = 0; n < N / 4; n += 4) {
      uint32_t word[4];
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int from = 4 * (n + e) + 2 * half;
        word[e] = ptx_pack_bf16(by * x[from], by * x[from + 1]);
      }
#pragma unroll
      for (int step = 1; step < 4; step *= 2)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (e & step) continue;
          const bool     high = t & step;
          const uint32_t got = __shfl_xor_sync(0xffffffffu, high ? word[e] : word[e + step], step);
          if (high) word[e] = got;
          else word[e + step] = got;
        }
      const int c = 8 * (n + t);
      if (here && c < D)
        *reinterpret_cast<uint4 *>(static_cast<uint16_t *>(w.data) + at + c) = make_uint4(word[0], word[1], word[2], word[3]);
    }
  }
}

/* ---- host ---- */

/* the job, with maps of the rows that the face reads */
static inline mica_status wgmma_job_of(const mica_attention_args *a, int face, int least, wgmma_job *job) {
  job->a = *a, job->least = least, job->wide = mma_job_of(a).wide;
  const struct { const mica_port *port; const mica_wire *wire; int64_t rows, heads; tile90_rows *to; } reads[] = {
    { &a->q, &a->q.v, a->T, a->H, &job->q }, { &a->k, &a->k.v, a->S, a->G, &job->k }, { &a->v, &a->v.v, a->S, a->G, &job->v },
    { &a->out, &a->out.d, a->T, a->H, &job->g },
  };
  for (int i = 0; i < (face == MICA_BACKWARD ? 4 : 3); i++)
    if (mica_status status = tile90_rows_of("attention", *reads[i].wire, reads[i].port->offsets != NULL, a->B, reads[i].rows,
                                            reads[i].heads, a->D, reads[i].to);
        status < 0)
      return status;
  return MICA_OK;
}

#endif
