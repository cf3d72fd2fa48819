/* attention's jvp on CUDA's tensor cores: the sums of attention_cuda_jvp.cu, r from a row's first 32 keys */
#include "attention/attention_mma.cuh"

template <class C>
static __global__ void __launch_bounds__(32 * MMA_WARPS, 1) attention_mma_jvp(const __grid_constant__ mma_job job) {
  typedef typename C::element E;
  const mica_attention_args &a = job.a;
  const int warp = (int)threadIdx.x / 32, g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
  const int block_rows = (int)blockDim.x / 2, size = job.rows * C::LD;
  DYN_SMEM(E, memory);
  E *const q = memory, *const qt = q + block_rows * C::LD, *const ring = qt + block_rows * C::LD;
  const int     i0 = (int)(blockIdx.x % job.tiles) * block_rows, i = i0 + 16 * warp;
  const int     h = (int)(blockIdx.x / job.tiles % a.H), g_head = (int)(h * a.G / a.H);
  const int64_t first = blockIdx.x / job.tiles / a.H;
  const int32_t *qo = a.q.offsets, *oo = a.out.offsets, *lo = a.lse.offsets, *ko = a.k.offsets, *vo = a.v.offsets;
  if (wire_follows(a.out.t, oo, first) || wire_follows(a.lse.t, lo, first)) return;
  for (int64_t b = first; b == first || (b < a.B && (wire_follows(a.out.t, oo, b) || wire_follows(a.lse.t, lo, b)));
       b++) {
    const attn_head x = attn_enter(a, b, h);
    if (i0 >= x.T) continue;
    const int64_t k_at = attn_place(a.k.v, ko, b, g_head), kt_at = attn_place(a.k.t, ko, b, g_head);
    const int64_t v_at = attn_place(a.v.v, vo, b, g_head), vt_at = attn_place(a.v.t, vo, b, g_head);
    auto load = [&](int j, int stage) {
      E *to = ring + stage * 4 * size;
      mma_load<C>(job, ATTN_K, 0, a.k.v, k_at, j, x.S, job.rows, to);
      mma_load<C>(job, ATTN_K, 2, a.k.t, kt_at, j, x.S, job.rows, to + size);
      mma_load<C>(job, ATTN_V, 0, a.v.v, v_at, j, x.S, job.rows, to + 2 * size);
      mma_load<C>(job, ATTN_V, 2, a.v.t, vt_at, j, x.S, job.rows, to + 3 * size);
      ptx_copy_commit();
    };
    auto next = [&](int j) {
      while (j < x.S && !attn_meets(a, x, i0, i0 + block_rows, j, j + job.rows)) j += job.rows;
      return j;
    };
    const int64_t saved = wire_place(a.lse.v, lo, b);
    float    acc[C::N][4], o[C::N][4], lse[2], r[2] = { 0, 0 }, sum[2] = { 0, 0 }, total[2] = { 0, 0 };
    bool     known[2] = { false, false };
    const mma_mask mask(a, x);
    mma_clear<C>(acc), mma_clear<C>(o);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int n = i + g + 8 * half;
      lse[half] = saved >= 0 && n < x.T ? wire_get(a.lse.v, saved + n * a.lse.v.stride[0] + h * a.lse.v.stride[1]) : 0;
    }
    __syncthreads();                         /* the task before may still be read */
    mma_load<C>(job, ATTN_Q, 0, a.q.v, attn_place(a.q.v, qo, b, h), i0, x.T, block_rows, q);
    mma_load<C>(job, ATTN_Q, 2, a.q.t, attn_place(a.q.t, qo, b, h), i0, x.T, block_rows, qt);
    int j0 = next(0), stage = 0;
    if (j0 < x.S) load(j0, 0);
    else ptx_copy_commit();
    while (j0 < x.S) {
      const int ahead = next(j0 + job.rows);
      ptx_copy_wait<0>();
      __syncthreads();                       /* this tile has come, the one before is done with */
      if (job.stages == 2 && ahead < x.S) load(ahead, stage ^ 1);
      const E *k = ring + stage * 4 * size, *kt = k + size, *v = kt + size, *vt = v + size;
#pragma unroll 1
      for (int j = j0; j < j0 + job.rows; j += MMA_STEP) {
        const unsigned live = mma_live(a, x, i, j, false);
        const int      at = (j - j0) * C::LD, own = 16 * warp * C::LD;
        if (!live) continue;
        mma_scores p, w;
        mma_zero(p), mma_zero(w);
        mma_dots<C>(q + own, k + at, job.columns, live, p);
        mma_dots<C>(qt + own, k + at, job.columns, live, w);
        mma_dots<C>(q + own, kt + at, job.columns, live, w);
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float mass = 0, mean = 0;
#pragma unroll
          for (int n = 0; n < 4; n++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
              w[n][e] = fmaf(x.scale, w[n][e], x.scale_t * p[n][e]);
              const bool sees = mask.sees(i + g + 8 * half, j + 8 * n + 2 * t + e % 2);
              p[n][e] = sees ? expf(fmaf(x.scale, p[n][e], -lse[half])) : 0.0f;
              if (p[n][e] == 0) w[n][e] = 0; /* hidden keys */
              mass += p[n][e], mean = fmaf(p[n][e], w[n][e], mean);
            }
          mass = mma_row_sum(mass), mean = mma_row_sum(mean);
          total[half] += mass;
          if (!known[half] && mass > 0) known[half] = true, r[half] = mean / mass;
#pragma unroll
          for (int n = 0; n < 4; n++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
              w[n][e] = p[n][e] * (w[n][e] - r[half]);
              sum[half] += w[n][e];
            }
        }
        mma_mix<C>(w, v + at, job.columns, live, acc);
        mma_mix<C>(p, vt + at, job.columns, live, acc);
        mma_mix<C>(p, v + at, job.columns, live, o);
      }
      if (job.stages == 1 && ahead < x.S) {
        __syncthreads();
        load(ahead, 0);
      }
      if (job.stages == 2) stage ^= 1;
      j0 = ahead;
    }
    ptx_copy_wait<0>();
    const int64_t lse_t = wire_place(a.lse.t, lo, b);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int   n = i + g + 8 * half;
      const float all = fmaf(r[half], total[half] - 1.0f, mma_row_sum(sum[half]));
#pragma unroll
      for (int c = 0; c < C::N; c++)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; e++) acc[c][e] = fmaf(-all, o[c][e], acc[c][e]);
      if (lse_t >= 0 && t == 0 && n < x.T)
        wire_put(a.lse.t, lse_t + n * a.lse.t.stride[0] + h * a.lse.t.stride[1], r[half] + all, attn_adds(a.lse.t, lo, b));
    }
    mma_write_rows<C>(job, ATTN_OUT, 2, a.out.t, attn_place(a.out.t, oo, b, h), i, x.T, acc, { 1.0f, 1.0f },
                      attn_adds(a.out.t, oo, b));
  }
}

/* ---- launchers ---- */

template <class C>
static mica_status run(mma_job job, void *stream) {
  const mica_attention_args &a = job.a;
  const int    warps = mma_warps(a.T, 4);
  const size_t row = C::LD * sizeof(typename C::element);
  job.tiles = (a.T + 16 * warps - 1) / (16 * warps);
  mma_tiles(&job, a.S, 4 * row, 72 * 1024);
  return micak_launch("attention jvp", attention_mma_jvp<C>, dim3(micak_blocks(a.B * a.H * job.tiles, 1)),
                      dim3(32 * warps), (32 * (size_t)warps + 4 * (size_t)job.rows * job.stages) * row, stream, job);
}

mica_status attn_mma_jvp(const mica_exec *exec, const mica_attention_args *a) {
  return mma_by_shape<64, 128>(a, [&](auto shape) { return run<decltype(shape)>(mma_job_of(a), exec->stream); });
}
