/* attention's forward on CUDA: one pass over the keys with a running maximum (Dao et al., "FlashAttention", 2022). keys
 * and values of the next tile are copied while the present one is multiplied. */
#include "attention/attention_tile.cuh"

template <class C, int COLS>
static __global__ void __launch_bounds__(C::THREADS, attn_blocks<C, COLS>())
    attention_forward(const __grid_constant__ attn_job job) {
  enum { N = COLS / (4 * C::RX), P_LD = C::P_LD };
  const mica_attention_args &a = job.a;
  const int t = (int)threadIdx.x % C::GROUP, ly = t / C::RX, lx = t % C::RX, ld = job.ld;
  DYN_SMEM(float, memory);
  float *q = memory + (int)threadIdx.x / C::GROUP * ((C::BM + 2 * C::BN) * ld + C::BM * P_LD);
  float *k = q + C::BM * ld, *v = k + C::BN * ld, *p = v + C::BN * ld;
  int64_t unit = (int64_t)blockIdx.x * C::GROUPS + threadIdx.x / C::GROUP;
  if (unit >= job.units) return;
  const int     col0 = (int)(unit % job.slices) * COLS, i0 = (int)(unit / job.slices % job.tiles) * C::BM;
  const int     h = (int)(unit / job.slices / job.tiles % a.H), g = (int)(h * a.G / a.H);
  const int64_t first = unit / job.slices / job.tiles / a.H;
  const int32_t *qo = a.q.offsets, *oo = a.out.offsets, *lo = a.lse.offsets;
  if (wire_follows(a.out.v, oo, first) || wire_follows(a.lse.v, lo, first)) return;
  if (job.longer && attn_is_long(a, first, job.longer)) return;
  for (int64_t b = first; b == first || (b < a.B && (wire_follows(a.out.v, oo, b) || wire_follows(a.lse.v, lo, b)));
       b++) {
    const attn_head x = attn_enter(a, b, h);
    if (i0 >= x.T) continue;
    const int64_t q_at = attn_place(a.q.v, qo, b, h), k_at = attn_place(a.k.v, a.k.offsets, b, g);
    const int64_t v_at = attn_place(a.v.v, a.v.offsets, b, g);
    const int     tiles = (x.S + C::BN - 1) / C::BN;
    float acc[C::TM][4 * N], top[C::TM], sum[C::TM];
#pragma unroll
    for (int i = 0; i < C::TM; i++) {
      top[i] = -INFINITY, sum[i] = 0;
#pragma unroll
      for (int c = 0; c < 4 * N; c++) acc[i][c] = 0;
    }
    int j = 0;
    while (j < tiles && !attn_meets(a, x, i0, i0 + C::BM, j * C::BN, (j + 1) * C::BN)) j++;
    attn_sync<C::GROUP>();                   /* the task before may still be read */
    attn_load<C::GROUP, C::BM>(job, ATTN_Q, 0, a.q.v, q_at, i0, x.T, q, t);
    if (j < tiles) attn_load<C::GROUP, C::BN>(job, ATTN_K, 0, a.k.v, k_at, j * C::BN, x.S, k, t);
    ptx_copy_commit();
    if (j < tiles) attn_load<C::GROUP, C::BN>(job, ATTN_V, 0, a.v.v, v_at, j * C::BN, x.S, v, t);
    ptx_copy_commit();
    while (j < tiles) {
      const int j0 = j * C::BN;
      do j++;
      while (j < tiles && !attn_meets(a, x, i0, i0 + C::BM, j * C::BN, (j + 1) * C::BN));
      ptx_copy_wait<1>();
      attn_sync<C::GROUP>();
      float s[C::TM][C::TN];
#pragma unroll
      for (int i = 0; i < C::TM; i++)
#pragma unroll
        for (int n = 0; n < C::TN; n++) s[i][n] = 0;
      attn_dot<C>(q, k, ld, job.head4, ly, lx, s);
      const bool extras = attn_has_extras(a);
      if (extras) attn_extras<C>(a, x, i0, j0, ly, lx, p);
#pragma unroll
      for (int i = 0; i < C::TM; i++) {
        const attn_row row = attn_row_of(a, x, i0 + ly + C::RY * i);
        float         *at = p + (ly + C::RY * i) * P_LD + lx, most = top[i];
#pragma unroll
        for (int n = 0; n < C::TN; n++) {
          s[i][n] = fmaf(x.scale, s[i][n], extras ? at[C::RX * n] : 0.0f);
          if (!row.sees(j0 + lx + C::RX * n)) s[i][n] = -INFINITY;
          most = fmaxf(most, s[i][n]);
        }
        most = attn_row_max<C>(most);
        /* nothing seen so far: every exponent is -inf less a number */
        const float base = most == -INFINITY ? 0.0f : most, fade = expf(top[i] - base);
        top[i] = most;
        sum[i] *= fade;
#pragma unroll
        for (int c = 0; c < 4 * N; c++) acc[i][c] *= fade;
#pragma unroll
        for (int n = 0; n < C::TN; n++) {
          const float e = expf(s[i][n] - base);
          sum[i] += e;
          at[C::RX * n] = e;
        }
      }
      attn_sync<C::GROUP>();                 /* scores are made, the keys are read */
      if (j < tiles) attn_load<C::GROUP, C::BN>(job, ATTN_K, 0, a.k.v, k_at, j * C::BN, x.S, k, t);
      ptx_copy_commit();
      ptx_copy_wait<1>();
      attn_sync<C::GROUP>();
      attn_mix<C, C::TM, N, C::BN>(p, P_LD, v, ld, col0, 4 * job.head4, ly, lx, acc);
      attn_sync<C::GROUP>();
      if (j < tiles) attn_load<C::GROUP, C::BN>(job, ATTN_V, 0, a.v.v, v_at, j * C::BN, x.S, v, t);
      ptx_copy_commit();
    }
    ptx_copy_wait<0>();
    const int64_t out = attn_place(a.out.v, oo, b, h), lse = wire_place(a.lse.v, lo, b);
    const bool    add = attn_adds(a.out.v, oo, b), lse_add = attn_adds(a.lse.v, lo, b);
#pragma unroll
    for (int i = 0; i < C::TM; i++) {
      const int   row = i0 + ly + C::RY * i;
      const float all = attn_row_sum<C>(sum[i]);
      if (row >= x.T) continue;
      if (out >= 0)
        attn_write<C, N>(job, ATTN_OUT, 0, a.out.v, out, row, col0, lx, acc[i], all > 0 ? 1.0f / all : 0.0f, add);
      if (lse >= 0 && lx == 0 && col0 == 0)
        wire_put(a.lse.v, lse + row * a.lse.v.stride[0] + h * a.lse.v.stride[1], all > 0 ? top[i] + logf(all) : 0.0f,
                 lse_add);
    }
  }
}

/* ---- launchers ---- */

template <class C, int COLS>
static mica_status run(attn_job *job, void *stream) {
  const mica_attention_args *a = &job->a;
  job->tiles = (a->T + C::BM - 1) / C::BM;
  job->slices = (int32_t)((a->D + COLS - 1) / COLS);
  job->units = a->B * a->H * job->tiles * job->slices;
  size_t bytes = (size_t)C::GROUPS * ((C::BM + 2 * C::BN) * (size_t)job->ld + C::BM * C::P_LD) * sizeof(float);
  return micak_launch("attention forward", attention_forward<C, COLS>, dim3(micak_blocks(job->units, C::GROUPS)),
                      dim3(C::THREADS), bytes, stream, *job);
}

extern "C" mica_status micak_attention_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_attention_args *a = static_cast<const mica_attention_args *>(args);
  if (a->B <= 0 || a->T <= 0 || a->H <= 0) return MICA_OK;
  attn_choice choice;
  mica_status status = attn_choose(a, MICA_FORWARD, &choice);
  if (status >= 0 && choice.wgmma) status = choice.wgmma(exec, a, choice.least);
  if (status < 0 || !choice.rest) return status;
  if (choice.mma) return attn_mma_forward(exec, a, choice.least);
  attn_job job = attn_job_of(a);
  job.longer = choice.least;
  const int columns = attn_columns(a), few = a->T <= 16 && a->S <= 16 && a->D <= 64;
  if (few && columns == 32) return run<attn_small, 32>(&job, exec->stream);
  if (few) return run<attn_small, 64>(&job, exec->stream);
  if (a->T <= 32)
    return columns == 32   ? run<attn_square, 32>(&job, exec->stream)
           : columns == 64 ? run<attn_square, 64>(&job, exec->stream)
                           : run<attn_square, 128>(&job, exec->stream);
  return columns == 32   ? run<attn_tall, 32>(&job, exec->stream)
         : columns == 64 ? run<attn_tall, 64>(&job, exec->stream)
                         : run<attn_tall, 128>(&job, exec->stream);
}
