/* favor on CUDA: the directions are drawn anew into scratch, as feature_directions does, a block for each D of them,
 * then a warp does a head of a row */
#include "feature_map/feature_map_cuda_internal.cuh"

enum { FAVOR_THREADS = 256, FAVOR_WARPS = 8 };

PLANE_DEVICE double favor_normal(micak_philox_key key, uint32_t purpose, int64_t element) {
  double four[4];
  micak_philox_normal4(key, 0, purpose, (uint32_t)(element / 4), four);
  const int i = (int)(element % 4);
  return i == 0 ? four[0] : i == 1 ? four[1] : i == 2 ? four[2] : four[3];
}
/* the sum over a block; ends with a barrier */
PLANE_DEVICE double favor_sum(double x, double *shared) {
  const int t = (int)threadIdx.x;
  shared[t] = x;
  __syncthreads();
  for (int half = FAVOR_THREADS / 2; half; half /= 2) {
    if (t < half) shared[t] += shared[t + half];
    __syncthreads();
  }
  x = shared[0];
  __syncthreads();
  return x;
}

/* directions m0 .. m0 + D, orthogonal to each other by Gram and Schmidt, twice; wt (D,F). D <= FAVOR_THREADS */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS) favor_directions(const micak_philox_key key, const int32_t D,
                                                                   const int32_t F, double *rows, float *wt) {
  __shared__ double dots[THREADS], partial[THREADS];
  const int     t = (int)threadIdx.x, lane = t % 32, warp = t / 32;
  const int32_t m0 = (int32_t)blockIdx.x * D;
  double *const block = rows + (int64_t)m0 * D;
  for (int32_t i = 0; i < D && m0 + i < F; i++) {
    const int64_t element = (int64_t)(m0 + i) * D + t;
    double        own = t < D ? favor_normal(key, 0, element) : 0;
    for (int pass = 0; pass < 2; pass++) {
      partial[t] = own;
      __syncthreads();
      for (int32_t r = warp; r < i; r += FAVOR_WARPS) {
        double dot = 0;
        for (int32_t d = lane; d < D; d += 32) dot += partial[d] * block[(int64_t)r * D + d];
        for (int step = 16; step; step /= 2) dot += __shfl_xor_sync(~0u, dot, step);
        if (lane == 0) dots[r] = dot;
      }
      __syncthreads();
      for (int32_t r = 0; t < D && r < i; r++) own -= dots[r] * block[(int64_t)r * D + t];
      __syncthreads();
    }
    const double norm = sqrt(favor_sum(own * own, partial)), z = t < D ? favor_normal(key, 1, element) : 0;
    const double length = sqrt(favor_sum(z * z, partial));
    if (t < D) {
      own /= norm;
      block[(int64_t)i * D + t] = own;
      wt[(int64_t)t * F + m0 + i] = (float)(own * length);
    }
    __syncthreads();
  }
}

PLANE_DEVICE float favor_warp_sum(float x) {
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

/* shared memory of a warp: x, x_t (D each), h (F) */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) favor_rows(const __grid_constant__ feature_job a) {
  DYN_SMEM(float, memory);
  const int32_t D = a.rows.C, F = a.F;
  const bool    back = a.face == MICA_BACKWARD || a.face == MICA_BACKWARD_JVP;
  const bool    tangent = a.face == MICA_JVP || a.face == MICA_BACKWARD_JVP;
  float *const  sx = memory + (threadIdx.x / 32) * (2 * D + F), *const sxt = sx + D, *const sh = sxt + D;
  const float   scale = 1.0f / sqrtf((float)F);
  FEATURE_EACH(a, team) {
    FEATURE_ROWS;
    float square = 0, square_t = 0, total = 0, total_t = 0;
    for (int32_t d = team.lane; d < D; d += 32) {
      const float v = sx[d] = feature_get(a.x, x, d), t = sxt[d] = tangent ? feature_get(a.xt, xt, d) : 0.0f;
      square = fmaf(v, v, square), square_t = fmaf(v, t, square_t);
    }
    __syncwarp();
    square = favor_warp_sum(square), square_t = favor_warp_sum(square_t);
    for (int32_t m = team.lane; m < F; m += 32) {
      float u = 0, ut = 0;
      for (int32_t d = 0; d < D; d++) {
        const float w = a.w[(int64_t)d * F + m];
        u = fmaf(w, sx[d], u);
        if (tangent) ut = fmaf(w, sxt[d], ut);
      }
      const float y = expf(u - 0.5f * square) * scale;
      ut -= square_t;
      if (!back) {
        plane_put(a.out[0], out, (int64_t)m * a.out[0].col, (double)(tangent ? y * ut : y), walk.adds(0));
        continue;
      }
      const float e = feature_get(a.g, g, m) * y, et = tangent ? fmaf(feature_get(a.gt, gt, m), y, e * ut) : 0.0f;
      total += e, total_t += et;
      sh[m] = tangent ? et : e;
    }
    __syncwarp();
    if (back) {
      total = favor_warp_sum(total), total_t = favor_warp_sum(total_t);
      float own = 0;
      for (int32_t d = 0; d < D; d++) {
        float sum = 0;
        for (int32_t m = team.lane; m < F; m += 32) sum = fmaf(a.w[(int64_t)d * F + m], sh[m], sum);
        sum = favor_warp_sum(sum);
        if (team.lane == (d & 31)) own = tangent ? sum - total_t * sx[d] - total * sxt[d] : sum - total * sx[d];
        const int32_t mine = (d & ~31) + team.lane; /* a warp's 32 results go out side by side */
        if (((d & 31) == 31 || d + 1 == D) && mine < D)
          plane_put(a.out[0], out, (int64_t)mine * a.out[0].col, (double)own, walk.adds(0));
      }
    }
    __syncwarp();
  }
}

/* ---- launchers ---- */

mica_status feature_favor_cuda(const char *name, feature_job job, const mica_exec *exec,
                               const mica_feature_map_args *a) {
  const micak_philox_key key =
      micak_philox_key_of((uint64_t)a->seed, micak_hash_name("feature_map favor"), (uint64_t)a->D);
  double *rows = static_cast<double *>(exec->scratch);
  float  *wt = reinterpret_cast<float *>(rows + a->F * a->D);
  mica_status status =
      micak_launch("feature_map directions", favor_directions<FAVOR_THREADS>, dim3(micak_blocks(a->F, a->D)),
                   dim3(FAVOR_THREADS), 0, exec->stream, key, (int32_t)a->D, (int32_t)a->F, rows, wt);
  if (status < 0) return status;
  job.w = wt, job.rows.lanes = 32;
  const size_t dynamic = (size_t)(FAVOR_WARPS * (2 * a->D + a->F)) * sizeof(float);
  return micak_launch(name, favor_rows<FAVOR_THREADS>, rows_grid(job.rows), dim3(FAVOR_THREADS), dynamic, exec->stream,
                      job);
}
