/* attention's forward on CUDA's tensor cores: one pass over the keys with a running maximum, as attention_cuda.cu; a
 * block holds the rows of its warps and one or two tiles of keys and values, the next copied while one is read. */
#include "attention/attention_mma.cuh"

template <class C>
static __global__ void __launch_bounds__(32 * MMA_WARPS, C::D > 64 ? 1 : 2)
    attention_mma_forward(const __grid_constant__ mma_job job) {
  typedef typename C::element E;
  const mica_attention_args &a = job.a;
  const int warp = (int)threadIdx.x / 32, g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
  const int block_rows = (int)blockDim.x / 2;
  DYN_SMEM(E, memory);
  E *const q = memory, *const ring = q + block_rows * C::LD;
  const int     i0 = (int)(blockIdx.x % job.tiles) * block_rows, i = i0 + 16 * warp;
  const int     h = (int)(blockIdx.x / job.tiles % a.H), g_head = (int)(h * a.G / a.H);
  const int64_t first = blockIdx.x / job.tiles / a.H;
  const int32_t *qo = a.q.offsets, *oo = a.out.offsets, *lo = a.lse.offsets;
  if (wire_follows(a.out.v, oo, first) || wire_follows(a.lse.v, lo, first)) return;
  if (job.longer && attn_is_long(a, first, job.longer)) return;
  for (int64_t b = first; b == first || (b < a.B && (wire_follows(a.out.v, oo, b) || wire_follows(a.lse.v, lo, b)));
       b++) {
    const attn_head x = attn_enter(a, b, h);
    if (i0 >= x.T) continue;
    const int64_t k_at = attn_place(a.k.v, a.k.offsets, b, g_head), v_at = attn_place(a.v.v, a.v.offsets, b, g_head);
    auto load = [&](int j, int stage) {
      E *to = ring + stage * 2 * job.rows * C::LD;
      mma_load<C>(job, ATTN_K, 0, a.k.v, k_at, j, x.S, job.rows, to);
      mma_load<C>(job, ATTN_V, 0, a.v.v, v_at, j, x.S, job.rows, to + job.rows * C::LD);
      ptx_copy_commit();
    };
    auto next = [&](int j) {
      while (j < x.S && !attn_meets(a, x, i0, i0 + block_rows, j, j + job.rows)) j += job.rows;
      return j;
    };
    float acc[C::N][4], top[2] = { -INFINITY, -INFINITY }, sum[2] = { 0, 0 };
    mma_clear<C>(acc);
    const mma_mask mask(a, x);
    __syncthreads();                         /* the task before may still be read */
    mma_load<C>(job, ATTN_Q, 0, a.q.v, attn_place(a.q.v, qo, b, h), i0, x.T, block_rows, q);
    int j0 = next(0), stage = 0;
    if (j0 < x.S) load(j0, 0);
    else ptx_copy_commit();
    while (j0 < x.S) {
      const int ahead = next(j0 + job.rows);
      ptx_copy_wait<0>();
      __syncthreads();                       /* this tile has come, the one before is done with */
      if (ahead < x.S) load(ahead, stage ^ 1);
      const E *k = ring + stage * 2 * job.rows * C::LD, *v = k + job.rows * C::LD;
#pragma unroll 1
      for (int j = j0; j < j0 + job.rows; j += MMA_STEP) {
        const unsigned live = mma_live(a, x, i, j, false);
        if (!live) continue;
        mma_scores s;
        mma_zero(s);
        mma_dots<C>(q + 16 * warp * C::LD, k + (j - j0) * C::LD, job.columns, live, s);
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float most = top[half];
#pragma unroll
          for (int n = 0; n < 4; n++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
              s[n][e] = mask.sees(i + g + 8 * half, j + 8 * n + 2 * t + e % 2) ? x.scale * s[n][e] : -INFINITY;
              most = fmaxf(most, s[n][e]);
            }
          most = mma_row_max(most);
          /* nothing seen so far: every exponent is -inf less a number */
          const float base = most == -INFINITY ? 0.0f : most, fade = expf(top[half] - base);
          top[half] = most;
          sum[half] *= fade;
#pragma unroll
          for (int n = 0; n < C::N; n++) acc[n][2 * half] *= fade, acc[n][2 * half + 1] *= fade;
#pragma unroll
          for (int n = 0; n < 4; n++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
              s[n][e] = expf(s[n][e] - base);
              sum[half] += s[n][e];
            }
        }
        mma_mix<C>(s, v + (j - j0) * C::LD, job.columns, live, acc);
      }
      j0 = ahead, stage ^= 1;
    }
    ptx_copy_wait<0>();
    float by[2];
    const int64_t lse = wire_place(a.lse.v, lo, b);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float all = mma_row_sum(sum[half]);
      const int   r = i + g + 8 * half;
      by[half] = all > 0 ? 1.0f / all : 0.0f;
      if (lse >= 0 && t == 0 && r < x.T)
        wire_put(a.lse.v, lse + r * a.lse.v.stride[0] + h * a.lse.v.stride[1], all > 0 ? top[half] + logf(all) : 0.0f,
                 attn_adds(a.lse.v, lo, b));
    }
    mma_write_rows<C>(job, ATTN_OUT, 0, a.out.v, attn_place(a.out.v, oo, b, h), i, x.T, acc, by,
                      attn_adds(a.out.v, oo, b));
  }
}

/* ---- launchers ---- */

template <class C>
static mica_status run(mma_job job, void *stream) {
  const mica_attention_args &a = job.a;
  const int    warps = mma_warps(a.T, MMA_WARPS);
  const size_t row = C::LD * sizeof(typename C::element);
  job.tiles = (a.T + 16 * warps - 1) / (16 * warps);
  mma_tiles(&job, a.S, 2 * row, 72 * 1024);  /* the largest head fits */
  return micak_launch("attention forward", attention_mma_forward<C>, dim3(micak_blocks(a.B * a.H * job.tiles, 1)),
                      dim3(32 * warps), (16 * (size_t)warps + 2 * (size_t)job.rows * job.stages) * row, stream, job);
}

mica_status attn_mma_forward(const mica_exec *exec, const mica_attention_args *a, int longer) {
  return mma_by_shape<128, 128>(a, [&](auto shape) { return run<decltype(shape)>(mma_job_of(a, longer), exec->stream); });
}
