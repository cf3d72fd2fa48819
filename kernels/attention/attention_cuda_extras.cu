/* cotangents of what is added to the scores, on CUDA. bias: a group owns a tile of one head and walks the tasks of a
 * slot in order, recomputing their scores: no memory beyond the result. scale and slopes: from the sums that the
 * queries' part left for each task and tile. */
#include "attention/attention_up.cuh"

template <class C, bool HVP>
static __global__ void __launch_bounds__(C::THREADS, 1) attention_bias(const __grid_constant__ attn_job job) {
  const mica_attention_args &a = job.a;
  const mica_wire &bias = attn_result<HVP>(a.bias);
  const int        t = (int)threadIdx.x, ly = t / C::RX, lx = t % C::RX;
  DYN_SMEM(float, memory);
  attn_up<C, HVP> u;
  u.place(memory, job.ld);
  const int64_t columns = (a.Q + C::BN - 1) / C::BN;
  const int     j0 = (int)(blockIdx.x % columns) * C::BN, i0 = (int)(blockIdx.x / columns % job.tiles) * C::BM;
  const int     h = (int)(blockIdx.x / columns / job.tiles), g = (int)(h * a.G / a.H);
  for (int64_t first = blockIdx.y; first < a.B; first += gridDim.y) {
    const int64_t place = wire_place(bias, NULL, first);
    if (place < 0 || wire_follows(bias, NULL, first)) continue;
    float  sum[C::TM][C::TN];
    double unused[2] = { 0, 0 };
#pragma unroll
    for (int i = 0; i < C::TM; i++)
#pragma unroll
      for (int n = 0; n < C::TN; n++) sum[i][n] = 0;
    for (int64_t b = first; wire_in_group(bias, NULL, first, b, a.B); b++) {
      const attn_head x = attn_enter(a, b, h);
      if (!attn_meets(a, x, i0, i0 + C::BM, j0, j0 + C::BN)) continue;
      __syncthreads();
      attn_load_rows<C, HVP>(job, u, b, h, x.T, i0, t);
      attn_load_keys<C, HVP>(job, u, b, g, x.S, j0, t);
      ptx_copy_commit();
      ptx_copy_wait<0>();
      __syncthreads();
      attn_rows<C, HVP>(job, u, b, h, x.T, i0, ly, lx);
      attn_scores<C, HVP>(job, u, x, i0, j0, ly, lx, false, unused);
#pragma unroll
      for (int i = 0; i < C::TM; i++)
#pragma unroll
        for (int n = 0; n < C::TN; n++) sum[i][n] += HVP ? u.dst[i][n] : u.ds[i][n];
    }
#pragma unroll
    for (int i = 0; i < C::TM; i++)
#pragma unroll
      for (int n = 0; n < C::TN; n++) {
        const int64_t row = i0 + ly + C::RY * i, key = j0 + lx + C::RX * n;
        if (row < a.P && key < a.Q)
          wire_put(bias, place + h * bias.stride[0] + row * bias.stride[1] + key * bias.stride[2], sum[i][n],
                   (bias.flags & MICA_ADD) != 0);
      }
  }
}

enum { SUMS_THREADS = 128 };
struct sums_job {
  mica_wire      out;
  const int32_t *offsets;
  int64_t        B, H, T, tiles, rows;       /* rows of a tile; 0: one tile whatever the rows */
  const double  *sums;                       /* of this result: every other double */
};
static __global__ void __launch_bounds__(SUMS_THREADS) attention_sums(const __grid_constant__ sums_job job) {
  const int64_t n = (int64_t)blockIdx.x * SUMS_THREADS + threadIdx.x, first = n / job.H, h = n % job.H;
  if (first >= job.B) return;
  const int64_t place = wire_place(job.out, NULL, first);
  if (place < 0 || wire_follows(job.out, NULL, first)) return;
  double sum = 0;
  for (int64_t b = first; wire_in_group(job.out, NULL, first, b, job.B); b++) {
    const int64_t rows = wire_rows(job.offsets, b, job.T), tiles = job.rows ? (rows + job.rows - 1) / job.rows : 1;
    for (int64_t i = 0; i < tiles; i++) sum += job.sums[2 * ((b * job.H + h) * job.tiles + i)];
  }
  wire_put(job.out, place + h * job.out.stride[0], (float)sum, (job.out.flags & MICA_ADD) != 0);
}

/* ---- launchers ---- */

template <class C, bool HVP>
static mica_status run_bias(attn_job job, void *stream) {
  const mica_attention_args &a = job.a;
  job.tiles = (a.P + C::BM - 1) / C::BM;
  const int64_t blocks = job.tiles * ((a.Q + C::BN - 1) / C::BN) * a.H;
  const bool    all = !(HVP ? a.bias.td : a.bias.d).slot && !(HVP ? a.bias.td : a.bias.d).task_stride;
  return micak_launch(HVP ? "attention backward_jvp bias" : "attention backward bias", attention_bias<C, HVP>,
                      dim3(micak_blocks(blocks, 1), all ? 1 : micak_task_blocks(a.B)), dim3(C::THREADS),
                      attn_up_floats<C, HVP>(job.ld) * sizeof(float), stream, job);
}

mica_status attn_extras_cotangents(const attn_job &job, const attn_plan &plan, bool hvp, void *stream) {
  const mica_attention_args &a = job.a;
  const mica_port *port[] = { &a.scale, &a.slopes };
  mica_status      status = MICA_OK;
  for (int n = 0; n < 2 && job.sums && status >= 0; n++) {
    const mica_wire &out = hvp ? port[n]->td : port[n]->d;
    if (!out.data) continue;
    sums_job sums = { out, a.q.offsets, a.B, a.H, a.T, plan.whole ? 1 : plan.row_tiles,
                      plan.whole ? 0 : plan.lone ? 16 : 32, job.sums + n };
    status = micak_launch("attention sums", attention_sums, dim3(micak_blocks(a.B * a.H, SUMS_THREADS)),
                          dim3(SUMS_THREADS), 0, stream, sums);
  }
  if (status >= 0 && (hvp ? a.bias.td : a.bias.d).data)
    status = plan.lone ? run_bias<attn_lone, true>(job, stream)
             : hvp     ? run_bias<attn_square, true>(job, stream)
                       : run_bias<attn_square, false>(job, stream);
  return status;
}
