/* attention's forward on sm_90a: one pass over the keys with a running maximum, as attention_cuda_mma.cu. the scores of the
 * next tile are multiplied while the values of this one are (Shah et al., "FlashAttention-3", 2024). */
#include "attention/attention_wgmma.cuh"

/* the running maximum of the thread's two rows, of raw scores, and sums of exponents */
struct wgmma_running {
  float top[2], sum[2];
};

/* scores of keys j ... to exponents; what is summed so far fades by `fade` */
template <int M>
ATTN_DEVICE void wgmma_softmax(const mma_mask &mask, bool plain, float scale, int i, int j, float (&s)[M], wgmma_running &run,
                               float (&fade)[2]) {
  const int t = (int)threadIdx.x % 4;
  if (!plain)
#pragma unroll
    for (int e = 0; e < M; e++)
      if (!mask.sees(i + e / 2 % 2 * 8, j + e / 4 * 8 + 2 * t + e % 2)) s[e] = -INFINITY;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float most = run.top[half];
#pragma unroll
    for (int e = 0; e < M; e++)
      if (e / 2 % 2 == half) most = fmaxf(most, s[e]);
    most = mma_row_max(most);
    /* nothing seen so far: every exponent is -inf less a number */
    const float base = most == -INFINITY ? 0.0f : __fmul_rn(most, scale);
    fade[half] = ptx_exp2(__fmul_rn(run.top[half], scale) - base); /* rounded as base is: 1 where nothing has changed */
    run.top[half] = most;
    float sum = run.sum[half] * fade[half];
#pragma unroll
    for (int e = 0; e < M; e++)
      if (e / 2 % 2 == half) {
        s[e] = ptx_exp2(fmaf(s[e], scale, -base));
        sum += s[e];
      }
    run.sum[half] = sum;
  }
}

template <class C>
static __global__ void __launch_bounds__(WGMMA_THREADS, 1) attention_wgmma_forward(const __grid_constant__ wgmma_job job) {
  const mica_attention_args &a = job.a;
  const int      group = (int)threadIdx.x / 128;
  const int      i0 = (int)(job.tiles - 1 - blockIdx.x % job.tiles) * WGMMA_ROWS; /* longest first */
  const int      h = (int)(blockIdx.x / job.tiles % a.H), g_head = (int)(h * a.G / a.H);
  const int64_t  first = blockIdx.x / job.tiles / a.H;
  const int32_t *qo = a.q.offsets, *oo = a.out.offsets, *lo = a.lse.offsets;
  if (wire_follows(a.out.v, oo, first) || wire_follows(a.lse.v, lo, first) || !attn_is_long(a, first, job.least)) return;
  auto in_group = [&](int64_t b) {
    return b == first || (b < a.B && (wire_follows(a.out.v, oo, b) || wire_follows(a.lse.v, lo, b)));
  };
  DYN_SMEM(uint8_t, memory);
  uint64_t *const full = reinterpret_cast<uint64_t *>(memory + C::OWN_BYTES + 2 * WGMMA_STAGES * C::WALK_BYTES);
  uint64_t *const free = full + 1 + 2 * WGMMA_STAGES;
  const wgmma_own  q = { memory, full, free };
  const wgmma_ring k = { memory + C::OWN_BYTES, full + 1, free + 1, C::WALK_BYTES };
  const wgmma_ring v = { k.at + WGMMA_STAGES * C::WALK_BYTES, full + 1 + WGMMA_STAGES, free + 1 + WGMMA_STAGES, C::WALK_BYTES };
  wgmma_barriers(full, free, 1 + 2 * WGMMA_STAGES);
  int tasks = 0, n = 0;                      /* that have gone by; tiles of keys */
  if (group == 0) {
    ptx_registers_fewer<WGMMA_FEWER>();
    if (threadIdx.x != 0) return;
    for (int64_t b = first; in_group(b); b++) {
      const attn_head x = attn_enter(a, b, h);
      if (i0 >= x.T) continue;
      const wgmma_place at_q = wgmma_place_of(a.q.v, qo, b, x.T), at_k = wgmma_place_of(a.k.v, a.k.offsets, b, x.S),
                        at_v = wgmma_place_of(a.v.v, a.v.offsets, b, x.S);
      q.claim(tasks++, C::OWN_BYTES);
      tile90_load<C::HALVES>(job.q, at_q.task, h, at_q.row + i0, at_q.count - i0, WGMMA_ROWS, q.at, q.full);
      for (int j = 0; j < x.S; j += C::WALK) {
        if (!attn_meets(a, x, i0, i0 + WGMMA_ROWS, j, j + C::WALK)) continue;
        k.claim(n, C::WALK_BYTES);
        tile90_load<C::HALVES>(job.k, at_k.task, g_head, at_k.row + j, at_k.count - j, C::WALK, k.place(n), k.came(n));
        v.claim(n, C::WALK_BYTES);
        tile90_load<C::HALVES>(job.v, at_v.task, g_head, at_v.row + j, at_v.count - j, C::WALK, v.place(n), v.came(n));
        n++;
      }
    }
    return;
  }
  ptx_registers_more<WGMMA_MORE>();
  const int warp = (int)threadIdx.x / 32 % 4, row = i0 + (group - 1) * WGMMA_OWN;
  const int i = row + 16 * warp + (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
  const uint8_t *const own = q.at + (group - 1) * WGMMA_OWN * TILE90_ROW;
  for (int64_t b = first; in_group(b); b++) {
    const attn_head x = attn_enter(a, b, h);
    if (i0 >= x.T) continue;
    const mma_mask mask(a, x);
    const float    scale = x.scale * 1.4426950408889634f;
    auto next = [&](int j) {
      while (j < x.S && !attn_meets(a, x, i0, i0 + WGMMA_ROWS, j, j + C::WALK)) j += C::WALK;
      return j;
    };
    auto plain = [&](int j) { return j + C::WALK <= x.S && wgmma_plain(a, x, row, j + C::WALK - 1); };
    float         s[C::M], out[C::N], fade[2];
    uint32_t      p[C::WALK / 16][4];
    wgmma_running run = { { -INFINITY, -INFINITY }, { 0, 0 } };
#pragma unroll
    for (int e = 0; e < C::N; e++) out[e] = 0;
    q.await(tasks++);
    int j = next(0);
    if (j < x.S) {
      k.await(n);
      ptx_wgmma_fence();
      tile90_multiply_turned<C::D, C::OWN_HALF, C::WALK_HALF>(s, own, k.place(n));
      ptx_wgmma_commit();
      ptx_wgmma_wait<0>();
      tile90_hold(s);
      k.release(n);
      wgmma_softmax(mask, plain(j), scale, i, j, s, run, fade);
      tile90_pack(s, p);
      for (j = next(j + C::WALK); j < x.S; j = next(j + C::WALK), n++) {
        k.await(n + 1);
        v.await(n);                          /* here, so that nothing but products lies between the fence and the wait */
        tile90_hold(s);
        tile90_hold(out);
        ptx_wgmma_fence();
        tile90_multiply_turned<C::D, C::OWN_HALF, C::WALK_HALF>(s, own, k.place(n + 1));
        ptx_wgmma_commit();
        tile90_multiply<C::WALK_HALF>(out, p, v.place(n));
        ptx_wgmma_commit();
        ptx_wgmma_wait<1>();
        tile90_hold(s);
        k.release(n + 1);
        wgmma_softmax(mask, plain(j), scale, i, j, s, run, fade);
        ptx_wgmma_wait<0>();
        tile90_hold(out);
        v.release(n);
#pragma unroll
        for (int e = 0; e < C::N; e++) out[e] *= fade[e / 2 % 2];
        tile90_pack(s, p);
      }
      v.await(n);
      tile90_hold(out);
      ptx_wgmma_fence();
      tile90_multiply<C::WALK_HALF>(out, p, v.place(n));
      ptx_wgmma_commit();
      ptx_wgmma_wait<0>();
      tile90_hold(out);
      v.release(n++);
    }
    q.release();
    float         by[2];
    const int64_t lse = wire_place(a.lse.v, lo, b);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float all = mma_row_sum(run.sum[half]);
      const int   r = i + 8 * half;
      by[half] = all > 0 ? 1.0f / all : 0.0f;
      if (lse >= 0 && t == 0 && r < x.T)
        wire_put(a.lse.v, lse + r * a.lse.v.stride[0] + h * a.lse.v.stride[1],
                 all > 0 ? fmaf(run.top[half], x.scale, logf(all)) : 0.0f, attn_adds(a.lse.v, lo, b));
    }
    wgmma_write(a.out.v, job.wide >> (4 * ATTN_OUT) & 1, attn_place(a.out.v, oo, b, h), a.D, i, x.T, out, by[0], by[1],
                attn_adds(a.out.v, oo, b));
  }
}

/* ---- launchers ---- */

template <int D>
static mica_status run(wgmma_job &job, void *stream) {
  typedef wgmma_shape<D, 128> C;
  const mica_attention_args &a = job.a;
  job.tiles = (a.T + WGMMA_ROWS - 1) / WGMMA_ROWS;
  const size_t bytes = C::OWN_BYTES + 2 * WGMMA_STAGES * C::WALK_BYTES + 2 * (1 + 2 * WGMMA_STAGES) * sizeof(uint64_t);
  return micak_launch("attention forward", attention_wgmma_forward<C>, dim3(micak_blocks(a.B * a.H * job.tiles, 1)),
                      dim3(WGMMA_THREADS), bytes, stream, job);
}

mica_status attn_wgmma_forward(const mica_exec *exec, const mica_attention_args *a, int least) {
  wgmma_job   job = {};
  mica_status status = wgmma_job_of(a, MICA_FORWARD, least, &job);
  if (status < 0) return status;
  return a->D <= 64 ? run<64>(job, exec->stream) : run<128>(job, exec->stream);
}
