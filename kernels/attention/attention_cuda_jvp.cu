/* attention's jvp on CUDA, in one pass over the keys. with the saved lse p is known at once; lse. is not, so the sums
 * run over s. - r, r the mean of s. over the row's first tile of keys, and the rest is taken off at the end:
 *   lse. = r + w,  w = sum p (s. - r) + r (sum p - 1)      o. = sum p (s. - r) v + p v.  - w o
 * where sum p is 1 but for what rounding left of the saved lse, in bf16 much.
 * r keeps w small: nothing is lost by the difference however large s. is. */
#include "attention/attention_tile.cuh"

template <class C, int COLS>
static __global__ void __launch_bounds__(C::THREADS, attn_blocks<C, 128>())
    attention_jvp(const __grid_constant__ attn_job job) {
  enum { N = COLS / (4 * C::RX), P_LD = C::P_LD };
  const mica_attention_args &a = job.a;
  const int t = (int)threadIdx.x % C::GROUP, ly = t / C::RX, lx = t % C::RX, ld = job.ld;
  DYN_SMEM(float, memory);
  float *q = memory + (int)threadIdx.x / C::GROUP * ((2 * C::BM + 4 * C::BN) * ld + 2 * C::BM * P_LD);
  float *qt = q + C::BM * ld, *k = qt + C::BM * ld, *kt = k + C::BN * ld, *v = kt + C::BN * ld, *vt = v + C::BN * ld;
  float *p = vt + C::BN * ld, *w = p + C::BM * P_LD;
  int64_t unit = (int64_t)blockIdx.x * C::GROUPS + threadIdx.x / C::GROUP;
  if (unit >= job.units) return;
  const int     col0 = (int)(unit % job.slices) * COLS, i0 = (int)(unit / job.slices % job.tiles) * C::BM;
  const int     h = (int)(unit / job.slices / job.tiles % a.H), g = (int)(h * a.G / a.H);
  const int64_t first = unit / job.slices / job.tiles / a.H;
  const int32_t *qo = a.q.offsets, *oo = a.out.offsets, *lo = a.lse.offsets, *ko = a.k.offsets, *vo = a.v.offsets;
  if (wire_follows(a.out.t, oo, first) || wire_follows(a.lse.t, lo, first)) return;
  for (int64_t b = first; b == first || (b < a.B && (wire_follows(a.out.t, oo, b) || wire_follows(a.lse.t, lo, b)));
       b++) {
    const attn_head x = attn_enter(a, b, h);
    if (i0 >= x.T) continue;
    const int64_t k_at = attn_place(a.k.v, ko, b, g), kt_at = attn_place(a.k.t, ko, b, g);
    const int64_t v_at = attn_place(a.v.v, vo, b, g), vt_at = attn_place(a.v.t, vo, b, g);
    const int64_t saved = wire_place(a.lse.v, lo, b);
    const int     tiles = (x.S + C::BN - 1) / C::BN;
    float acc[C::TM][4 * N], o[C::TM][4 * N], lse[C::TM], r[C::TM], sum[C::TM], total[C::TM];
    bool  known[C::TM];
#pragma unroll
    for (int i = 0; i < C::TM; i++) {
      const int row = i0 + ly + C::RY * i;
      r[i] = sum[i] = total[i] = 0, known[i] = false;
      lse[i] = saved >= 0 && row < x.T ? wire_get(a.lse.v, saved + row * a.lse.v.stride[0] + h * a.lse.v.stride[1]) : 0;
#pragma unroll
      for (int c = 0; c < 4 * N; c++) acc[i][c] = o[i][c] = 0;
    }
    attn_sync<C::GROUP>();                   /* the task before may still be read */
    attn_load<C::GROUP, C::BM>(job, ATTN_Q, 0, a.q.v, attn_place(a.q.v, qo, b, h), i0, x.T, q, t);
    attn_load<C::GROUP, C::BM>(job, ATTN_Q, 2, a.q.t, attn_place(a.q.t, qo, b, h), i0, x.T, qt, t);
    for (int j = 0; j < tiles; j++) {
      const int j0 = j * C::BN;
      if (!attn_meets(a, x, i0, i0 + C::BM, j0, j0 + C::BN)) continue;
      attn_sync<C::GROUP>();
      attn_load<C::GROUP, C::BN>(job, ATTN_K, 0, a.k.v, k_at, j0, x.S, k, t);
      attn_load<C::GROUP, C::BN>(job, ATTN_K, 2, a.k.t, kt_at, j0, x.S, kt, t);
      ptx_copy_commit();
      attn_load<C::GROUP, C::BN>(job, ATTN_V, 0, a.v.v, v_at, j0, x.S, v, t);
      attn_load<C::GROUP, C::BN>(job, ATTN_V, 2, a.v.t, vt_at, j0, x.S, vt, t);
      ptx_copy_commit();
      ptx_copy_wait<1>();
      attn_sync<C::GROUP>();
      float s[C::TM][C::TN], st[C::TM][C::TN];
#pragma unroll
      for (int i = 0; i < C::TM; i++)
#pragma unroll
        for (int n = 0; n < C::TN; n++) s[i][n] = st[i][n] = 0;
      attn_dot<C>(q, k, ld, job.head4, ly, lx, s);
      attn_dot<C>(qt, k, ld, job.head4, ly, lx, st);
      attn_dot<C>(q, kt, ld, job.head4, ly, lx, st);
      const bool extras = attn_has_extras(a), extras_t = attn_has_extras_t(a);
      if (extras) attn_extras<C>(a, x, i0, j0, ly, lx, p);
      if (extras_t) attn_extras_t<C>(a, x, i0, j0, ly, lx, w);
#pragma unroll
      for (int i = 0; i < C::TM; i++) {
        const attn_row row = attn_row_of(a, x, i0 + ly + C::RY * i);
        float         *at = p + (ly + C::RY * i) * P_LD + lx, *wt = w + (ly + C::RY * i) * P_LD + lx;
        float          mass = 0, mean = 0;
#pragma unroll
        for (int n = 0; n < C::TN; n++) {
          st[i][n] = fmaf(x.scale, st[i][n], fmaf(x.scale_t, s[i][n], extras_t ? wt[C::RX * n] : 0.0f));
          s[i][n] = fmaf(x.scale, s[i][n], extras ? at[C::RX * n] : 0.0f);
          s[i][n] = row.sees(j0 + lx + C::RX * n) ? expf(s[i][n] - lse[i]) : 0.0f;
          if (s[i][n] == 0) st[i][n] = 0;    /* hidden keys */
          mass += s[i][n], mean = fmaf(s[i][n], st[i][n], mean);
        }
        mass = attn_row_sum<C>(mass), mean = attn_row_sum<C>(mean);
        total[i] += mass;
        if (!known[i] && mass > 0) known[i] = true, r[i] = mean / mass;
#pragma unroll
        for (int n = 0; n < C::TN; n++) {
          const float more = s[i][n] * (st[i][n] - r[i]);
          sum[i] += more;
          at[C::RX * n] = s[i][n], wt[C::RX * n] = more;
        }
      }
      ptx_copy_wait<0>();
      attn_sync<C::GROUP>();
      attn_mix<C, C::TM, N, C::BN>(w, P_LD, v, ld, col0, 4 * job.head4, ly, lx, acc);
      attn_mix<C, C::TM, N, C::BN>(p, P_LD, vt, ld, col0, 4 * job.head4, ly, lx, acc);
      attn_mix<C, C::TM, N, C::BN>(p, P_LD, v, ld, col0, 4 * job.head4, ly, lx, o);
    }
    ptx_copy_wait<0>();
    const int64_t out = attn_place(a.out.t, oo, b, h), lse_t = wire_place(a.lse.t, lo, b);
    const bool    add = attn_adds(a.out.t, oo, b), lse_add = attn_adds(a.lse.t, lo, b);
#pragma unroll
    for (int i = 0; i < C::TM; i++) {
      const int   row = i0 + ly + C::RY * i;
      const float all = fmaf(r[i], total[i] - 1.0f, attn_row_sum<C>(sum[i]));
      if (row >= x.T) continue;
#pragma unroll
      for (int c = 0; c < 4 * N; c++) acc[i][c] = fmaf(-all, o[i][c], acc[i][c]);
      if (out >= 0) attn_write<C, N>(job, ATTN_OUT, 2, a.out.t, out, row, col0, lx, acc[i], 1.0f, add);
      if (lse_t >= 0 && lx == 0 && col0 == 0)
        wire_put(a.lse.t, lse_t + row * a.lse.t.stride[0] + h * a.lse.t.stride[1], r[i] + all, lse_add);
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
  size_t bytes = (size_t)C::GROUPS * ((2 * C::BM + 4 * C::BN) * (size_t)job->ld + 2 * C::BM * C::P_LD) * sizeof(float);
  return micak_launch("attention jvp", attention_jvp<C, COLS>, dim3(micak_blocks(job->units, C::GROUPS)),
                      dim3(C::THREADS), bytes, stream, *job);
}

extern "C" mica_status micak_attention_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_attention_args *a = static_cast<const mica_attention_args *>(args);
  if (a->B <= 0 || a->T <= 0 || a->H <= 0) return MICA_OK;
  attn_choice choice;
  if (mica_status status = attn_choose(a, MICA_JVP, &choice); status < 0 || choice.mma)
    return choice.mma ? attn_mma_jvp(exec, a) : status;
  attn_job  job = attn_job_of(a);
  const int columns = attn_columns(a);
  if (a->D > 128) return run<attn_lone, 64>(&job, exec->stream);
  if (a->T <= 16 && a->S <= 16 && a->D <= 64)
    return columns == 32 ? run<attn_small, 32>(&job, exec->stream) : run<attn_small, 64>(&job, exec->stream);
  return columns == 32   ? run<attn_square, 32>(&job, exec->stream)
         : columns == 64 ? run<attn_square, 64>(&job, exec->stream)
                         : run<attn_square, 128>(&job, exec->stream);
}
