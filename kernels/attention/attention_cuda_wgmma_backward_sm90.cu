/* attention's backward on sm_90a: lse and delta of all rows first; then the block that owns keys sums k and v over rows
 * in order, and the one that owns rows sums q over keys in order, as attention_mma_up.cuh. */
#include "attention/attention_wgmma.cuh"

/* ---- lse log2 e and delta = <out, its cotangent>, 64 rows a block; rows beyond the end have p = 0 ---- */

enum { WGMMA_SPAN = TILE90_ROWS, WGMMA_NUMBERS = 2 * WGMMA_SPAN, WGMMA_NUMBER_BYTES = WGMMA_NUMBERS * sizeof(float) };

ATTN_DEVICE float *wgmma_numbers(const wgmma_job &job, int64_t b, int64_t h, int i) {
  return job.numbers + ((b * job.a.H + h) * job.spans + i / WGMMA_SPAN) * WGMMA_NUMBERS;
}
/* <x, y> of 16 bytes each */
ATTN_DEVICE float wgmma_dot(const uint4 &x, const uint4 &y, float sum) {
  const uint32_t u[4] = { x.x, x.y, x.z, x.w }, v[4] = { y.x, y.y, y.z, y.w };
#pragma unroll
  for (int j = 0; j < 4; j++) {
    sum = fmaf(__uint_as_float(u[j] << 16), __uint_as_float(v[j] << 16), sum);
    sum = fmaf(__uint_as_float(u[j] & 0xffff0000u), __uint_as_float(v[j] & 0xffff0000u), sum);
  }
  return sum;
}
static __global__ void __launch_bounds__(4 * WGMMA_SPAN) attention_wgmma_numbers(const __grid_constant__ wgmma_job job) {
  const mica_attention_args &a = job.a;
  const int      i0 = (int)(blockIdx.x % job.spans) * WGMMA_SPAN, r = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4;
  const int      h = (int)(blockIdx.x / job.spans % a.H), row = i0 + r;
  const int64_t  b = blockIdx.x / job.spans / a.H;
  const int32_t *oo = a.out.offsets;
  const int T = (int)wire_rows(a.q.offsets, b, a.T);
  if (i0 >= T) return;
  const bool    wide = job.wide >> (4 * ATTN_OUT) & 1;
  const int64_t out = attn_place(a.out.v, oo, b, h), g = attn_place(a.out.d, oo, b, h);
  const int64_t lse = wire_place(a.lse.v, a.lse.offsets, b);
  float         delta = 0;
#pragma unroll 1
  for (int c = 8 * t; c < a.D && row < T && out >= 0 && g >= 0; c += 32) {
    const uint16_t *const from_g = static_cast<const uint16_t *>(a.out.d.data) + g + row * a.out.d.stride[0];
    const uint4 d = *reinterpret_cast<const uint4 *>(from_g + c);
    uint4       y = make_uint4(0, 0, 0, 0);
    if (wide) {
      y = *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(a.out.v.data) + out + row * a.out.v.stride[0] + c);
    } else {
      const uint16_t *from = static_cast<const uint16_t *>(a.out.v.data) + out + row * a.out.v.stride[0];
      uint32_t        half[8];
#pragma unroll
      for (int j = 0; j < 8; j++) half[j] = from[(c + j) * a.out.v.stride[2]];
      y = make_uint4(half[0] | half[1] << 16, half[2] | half[3] << 16, half[4] | half[5] << 16, half[6] | half[7] << 16);
    }
    delta = wgmma_dot(d, y, delta);
  }
  delta = mma_row_sum(delta);
  if (t != 0) return;
  float *const to = wgmma_numbers(job, b, h, i0);
  const float  own = row < T && lse >= 0 ? wire_get(a.lse.v, lse + row * a.lse.v.stride[0] + h * a.lse.v.stride[1]) : 0.0f;
  to[r] = row < T ? own * 1.4426950408889634f : INFINITY;
  to[WGMMA_SPAN + r] = delta;
}

/* ---- keys: k and v. scores are turned: keys are their rows ---- */

template <class C>
static __global__ void __launch_bounds__(WGMMA_THREADS, 1) attention_wgmma_keys(const __grid_constant__ wgmma_job job) {
  const mica_attention_args &a = job.a;
  enum { STAGE = 2 * C::WALK_BYTES + WGMMA_NUMBER_BYTES, PITCH = (STAGE + 1023) / 1024 * 1024 };
  const int      group = (int)threadIdx.x / 128;
  const int      j0 = (int)(blockIdx.x % job.tiles) * WGMMA_ROWS;
  const int      g = (int)(blockIdx.x / job.tiles % a.G);
  const int      h0 = (int)((g * a.H + a.G - 1) / a.G), h1 = (int)(((g + 1) * a.H + a.G - 1) / a.G);
  const int64_t  first = blockIdx.x / job.tiles / a.G;
  const int32_t *qo = a.q.offsets, *ko = a.k.offsets, *vo = a.v.offsets, *oo = a.out.offsets;
  auto follows = [&](int64_t b) { return wire_follows(a.k.d, ko, b) || wire_follows(a.v.d, vo, b); };
  if (follows(first) || !attn_is_long(a, first, job.least)) return;
  auto in_group = [&](int64_t b) { return b == first || (b < a.B && follows(b)); };
  DYN_SMEM(uint8_t, memory);
  uint64_t *const full = reinterpret_cast<uint64_t *>(memory + 2 * C::OWN_BYTES + WGMMA_STAGES * PITCH);
  uint64_t *const free = full + 1 + WGMMA_STAGES;
  const wgmma_own  keys = { memory, full, free };
  const wgmma_ring rows = { memory + 2 * C::OWN_BYTES, full + 1, free + 1, PITCH };
  wgmma_barriers(full, free, 1 + WGMMA_STAGES);
  int tasks = 0, n = 0;                      /* that have gone by; tiles of rows */
  if (group == 0) {
    ptx_registers_fewer<WGMMA_FEWER>();
    if (threadIdx.x != 0) return;
    for (int64_t b = first; in_group(b); b++) {
      const attn_head x = attn_enter(a, b, h0);
      if (j0 >= x.S) continue;
      const wgmma_place at_q = wgmma_place_of(a.q.v, qo, b, x.T), at_g = wgmma_place_of(a.out.d, oo, b, x.T),
                        at_k = wgmma_place_of(a.k.v, ko, b, x.S), at_v = wgmma_place_of(a.v.v, vo, b, x.S);
      keys.claim(tasks++, 2 * C::OWN_BYTES);
      tile90_load<C::HALVES>(job.k, at_k.task, g, at_k.row + j0, at_k.count - j0, WGMMA_ROWS, keys.at, keys.full);
      tile90_load<C::HALVES>(job.v, at_v.task, g, at_v.row + j0, at_v.count - j0, WGMMA_ROWS, keys.at + C::OWN_BYTES, keys.full);
      for (int h = h0; h < h1; h++)
        for (int i = 0; i < x.T; i += C::WALK) {
          if (!attn_meets(a, x, i, i + C::WALK, j0, j0 + WGMMA_ROWS)) continue;
          uint8_t *const to = rows.place(n);
          rows.claim(n, STAGE);
          tile90_load<C::HALVES>(job.q, at_q.task, h, at_q.row + i, at_q.count - i, C::WALK, to, rows.came(n));
          tile90_load<C::HALVES>(job.g, at_g.task, h, at_g.row + i, at_g.count - i, C::WALK, to + C::WALK_BYTES, rows.came(n));
          ptx_copy_bulk(to + 2 * C::WALK_BYTES, wgmma_numbers(job, b, h, i), WGMMA_NUMBER_BYTES, rows.came(n));
          n++;
        }
    }
    return;
  }
  ptx_registers_more<WGMMA_MORE>();
  const int warp = (int)threadIdx.x / 32 % 4, key = j0 + (group - 1) * WGMMA_OWN;
  const int j = key + 16 * warp + (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
  const uint8_t *const k = keys.at + (group - 1) * WGMMA_OWN * TILE90_ROW, *const v = k + C::OWN_BYTES;
  for (int64_t b = first; in_group(b); b++) {
    const attn_head x = attn_enter(a, b, h0);
    if (j0 >= x.S) continue;
    const mma_mask mask(a, x);
    const float    scale = x.scale * 1.4426950408889634f;
    float dk[C::N], dv[C::N];
#pragma unroll
    for (int e = 0; e < C::N; e++) dk[e] = dv[e] = 0;
    keys.await(tasks++);
    for (int h = h0; h < h1; h++)
      for (int i = 0; i < x.T; i += C::WALK) {
        if (!attn_meets(a, x, i, i + C::WALK, j0, j0 + WGMMA_ROWS)) continue;
        const uint8_t *const q = rows.place(n), *const o = q + C::WALK_BYTES;
        const float *const   numbers = reinterpret_cast<const float *>(q + 2 * C::WALK_BYTES) + 2 * t;
        const bool           plain = wgmma_plain(a, x, i, key + WGMMA_OWN - 1);
        float    p[C::M], ds[C::M];
        uint32_t left[C::WALK / 16][4], left_ds[C::WALK / 16][4];
        rows.await(n);
        ptx_wgmma_fence();
        tile90_multiply_turned<C::D, C::OWN_HALF, C::WALK_HALF>(p, k, q);
        ptx_wgmma_commit();
        tile90_multiply_turned<C::D, C::OWN_HALF, C::WALK_HALF>(ds, v, o);
        ptx_wgmma_commit();
        ptx_wgmma_wait<1>();
        tile90_hold(p);
#pragma unroll
        for (int c = 0; c < C::M; c += 4) {
          const float2 lse = *reinterpret_cast<const float2 *>(numbers + 2 * c);
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const float y = ptx_exp2(fmaf(p[c + e], scale, -(e % 2 ? lse.y : lse.x)));
            p[c + e] = plain || mask.sees(i + 2 * c + 2 * t + e % 2, j + e / 2 * 8) ? y : 0.0f;
          }
        }
        tile90_pack(p, left);
        ptx_wgmma_wait<0>();
        tile90_hold(ds);
#pragma unroll
        for (int c = 0; c < C::M; c += 4) {
          const float2 delta = *reinterpret_cast<const float2 *>(numbers + WGMMA_SPAN + 2 * c);
#pragma unroll
          for (int e = 0; e < 4; e++) ds[c + e] = p[c + e] * (ds[c + e] - (e % 2 ? delta.y : delta.x));
        }
        tile90_pack(ds, left_ds);
        tile90_hold(dv);
        tile90_hold(dk);
        ptx_wgmma_fence();
        tile90_multiply<C::WALK_HALF>(dv, left, o);
        tile90_multiply<C::WALK_HALF>(dk, left_ds, q);
        ptx_wgmma_commit();
        ptx_wgmma_wait<0>();
        tile90_hold(dv);
        tile90_hold(dk);
        rows.release(n++);
      }
    keys.release();
    wgmma_write(a.k.d, job.wide >> (4 * ATTN_K + ATTN_WIRE_D) & 1, attn_place(a.k.d, ko, b, g), a.D, j, x.S, dk, x.scale,
                x.scale, attn_adds(a.k.d, ko, b));
    wgmma_write(a.v.d, job.wide >> (4 * ATTN_V + ATTN_WIRE_D) & 1, attn_place(a.v.d, vo, b, g), a.D, j, x.S, dv, 1.0f, 1.0f,
                attn_adds(a.v.d, vo, b));
  }
}

/* ---- queries: q ---- */

template <class C>
static __global__ void __launch_bounds__(WGMMA_THREADS, 1) attention_wgmma_queries(const __grid_constant__ wgmma_job job) {
  const mica_attention_args &a = job.a;
  const int      group = (int)threadIdx.x / 128;
  const int      i0 = (int)(job.tiles - 1 - blockIdx.x % job.tiles) * WGMMA_ROWS;
  const int      h = (int)(blockIdx.x / job.tiles % a.H), g = (int)(h * a.G / a.H);
  const int64_t  first = blockIdx.x / job.tiles / a.H;
  const int32_t *qo = a.q.offsets, *ko = a.k.offsets, *vo = a.v.offsets, *oo = a.out.offsets;
  if (wire_follows(a.q.d, qo, first) || !attn_is_long(a, first, job.least)) return;
  DYN_SMEM(uint8_t, memory);
  uint64_t *const full = reinterpret_cast<uint64_t *>(memory + 2 * C::OWN_BYTES + 2 * WGMMA_STAGES * C::WALK_BYTES);
  uint64_t *const free = full + 1 + WGMMA_STAGES;
  const wgmma_own  rows = { memory, full, free };
  const wgmma_ring keys = { memory + 2 * C::OWN_BYTES, full + 1, free + 1, 2 * C::WALK_BYTES };
  wgmma_barriers(full, free, 1 + WGMMA_STAGES);
  int tasks = 0, n = 0;                      /* that have gone by; tiles of keys */
  if (group == 0) {
    ptx_registers_fewer<WGMMA_FEWER>();
    if (threadIdx.x != 0) return;
    for (int64_t b = first; wire_in_group(a.q.d, qo, first, b, a.B); b++) {
      const attn_head x = attn_enter(a, b, h);
      if (i0 >= x.T) continue;
      const wgmma_place at_q = wgmma_place_of(a.q.v, qo, b, x.T), at_g = wgmma_place_of(a.out.d, oo, b, x.T),
                        at_k = wgmma_place_of(a.k.v, ko, b, x.S), at_v = wgmma_place_of(a.v.v, vo, b, x.S);
      rows.claim(tasks++, 2 * C::OWN_BYTES);
      tile90_load<C::HALVES>(job.q, at_q.task, h, at_q.row + i0, at_q.count - i0, WGMMA_ROWS, rows.at, rows.full);
      tile90_load<C::HALVES>(job.g, at_g.task, h, at_g.row + i0, at_g.count - i0, WGMMA_ROWS, rows.at + C::OWN_BYTES, rows.full);
      for (int j = 0; j < x.S; j += C::WALK) {
        if (!attn_meets(a, x, i0, i0 + WGMMA_ROWS, j, j + C::WALK)) continue;
        uint8_t *const to = keys.place(n);
        keys.claim(n, 2 * C::WALK_BYTES);
        tile90_load<C::HALVES>(job.k, at_k.task, g, at_k.row + j, at_k.count - j, C::WALK, to, keys.came(n));
        tile90_load<C::HALVES>(job.v, at_v.task, g, at_v.row + j, at_v.count - j, C::WALK, to + C::WALK_BYTES, keys.came(n));
        n++;
      }
    }
    return;
  }
  ptx_registers_more<WGMMA_MORE>();
  const int warp = (int)threadIdx.x / 32 % 4, row = i0 + (group - 1) * WGMMA_OWN;
  const int i = row + 16 * warp + (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
  const uint8_t *const q = rows.at + (group - 1) * WGMMA_OWN * TILE90_ROW, *const o = q + C::OWN_BYTES;
  for (int64_t b = first; wire_in_group(a.q.d, qo, first, b, a.B); b++) {
    const attn_head x = attn_enter(a, b, h);
    if (i0 >= x.T) continue;
    const mma_mask mask(a, x);
    const float    scale = x.scale * 1.4426950408889634f;
    const float   *numbers = wgmma_numbers(job, b, h, i) + i % WGMMA_SPAN;
    float          dq[C::N], lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++)     /* spans are written whole, but not those behind the last */
      lse[half] = i < x.T ? numbers[8 * half] : INFINITY, delta[half] = i < x.T ? numbers[WGMMA_SPAN + 8 * half] : 0.0f;
#pragma unroll
    for (int e = 0; e < C::N; e++) dq[e] = 0;
    rows.await(tasks++);
    for (int j = 0; j < x.S; j += C::WALK) {
      if (!attn_meets(a, x, i0, i0 + WGMMA_ROWS, j, j + C::WALK)) continue;
      const uint8_t *const k = keys.place(n), *const v = k + C::WALK_BYTES;
      const bool           plain = j + C::WALK <= x.S && wgmma_plain(a, x, row, j + C::WALK - 1);
      float    p[C::M], ds[C::M];
      uint32_t left[C::WALK / 16][4];
      keys.await(n);
      ptx_wgmma_fence();
      tile90_multiply_turned<C::D, C::OWN_HALF, C::WALK_HALF>(p, q, k);
      ptx_wgmma_commit();
      tile90_multiply_turned<C::D, C::OWN_HALF, C::WALK_HALF>(ds, o, v);
      ptx_wgmma_commit();
      ptx_wgmma_wait<1>();
      tile90_hold(p);
#pragma unroll
      for (int e = 0; e < C::M; e++) {
        const float y = ptx_exp2(fmaf(p[e], scale, -lse[e / 2 % 2]));
        p[e] = plain || mask.sees(i + e / 2 % 2 * 8, j + e / 4 * 8 + 2 * t + e % 2) ? y : 0.0f;
      }
      ptx_wgmma_wait<0>();
      tile90_hold(ds);
#pragma unroll
      for (int e = 0; e < C::M; e++) ds[e] = p[e] * (ds[e] - delta[e / 2 % 2]);
      tile90_pack(ds, left);
      tile90_hold(dq);
      ptx_wgmma_fence();
      tile90_multiply<C::WALK_HALF>(dq, left, k);
      ptx_wgmma_commit();
      ptx_wgmma_wait<0>();
      tile90_hold(dq);
      keys.release(n++);
    }
    rows.release();
    wgmma_write(a.q.d, job.wide >> (4 * ATTN_Q + ATTN_WIRE_D) & 1, attn_place(a.q.d, qo, b, h), a.D, i, x.T, dq, x.scale,
                x.scale, attn_adds(a.q.d, qo, b));
  }
}

/* ---- launchers ---- */

template <int D>
static mica_status run(wgmma_job &job, void *stream) {
  typedef wgmma_shape<D, 64> C;
  const mica_attention_args &a = job.a;
  const size_t barriers = 2 * (1 + WGMMA_STAGES) * sizeof(uint64_t), own = 2 * C::OWN_BYTES, walk = 2 * C::WALK_BYTES;
  mica_status  status = micak_launch("attention backward numbers", attention_wgmma_numbers,
                                     dim3(micak_blocks(a.B * a.H * job.spans, 1)), dim3(4 * WGMMA_SPAN), 0, stream, job);
  job.tiles = (a.S + WGMMA_ROWS - 1) / WGMMA_ROWS;
  if (status >= 0 && (a.k.d.data || a.v.d.data))
    status = micak_launch("attention backward keys", attention_wgmma_keys<C>, dim3(micak_blocks(a.B * a.G * job.tiles, 1)),
                          dim3(WGMMA_THREADS), own + WGMMA_STAGES * (walk + 1024) + barriers, stream, job);
  job.tiles = (a.T + WGMMA_ROWS - 1) / WGMMA_ROWS;
  if (status < 0 || !a.q.d.data) return status;
  return micak_launch("attention backward queries", attention_wgmma_queries<C>, dim3(micak_blocks(a.B * a.H * job.tiles, 1)),
                      dim3(WGMMA_THREADS), own + WGMMA_STAGES * walk + barriers, stream, job);
}

mica_status attn_wgmma_backward(const mica_exec *exec, const mica_attention_args *a, int least) {
  wgmma_job   job = {};
  mica_status status = wgmma_job_of(a, MICA_BACKWARD, least, &job);
  if (status < 0) return status;
  job.numbers = static_cast<float *>(exec->scratch);
  job.spans = (a->T + WGMMA_SPAN - 1) / WGMMA_SPAN;
  return a->D <= 64 ? run<64>(job, exec->stream) : run<128>(job, exec->stream);
}
