/* cotangents of conv2d's weights on CUDA: what a block has of them */
#ifndef MICA_KERNELS_CONV_CUDA_PARAMS_CUH
#define MICA_KERNELS_CONV_CUDA_PARAMS_CUH

#include "conv/conv2d_cuda_internal.cuh"

struct conv_sum {
  int32_t        B, each;                    /* images of a chunk */
  int32_t        T, H, W, I, P, Q, O, K, pad, stride, terms;
  int32_t        wide, wide_x;               /* dy's outputs, x's inputs 16 bytes at once */
  int32_t        d_t, d_p, d_q, d_tap, d_i;  /* pixels of a step as images, lines, pixels; 4 columns as taps, inputs */
  const int32_t *offsets;
  image_plane    x[2], dy[2], out;           /* out: w, or b as w with one input and one tap */
  float         *partial;
};

/* a slot group from task b on */
struct conv_group {
  int32_t end, first, images, chunks;        /* first: images before it */
};
PLANE_DEVICE conv_group conv_group_of(const conv_sum &job, int32_t b) {
  const plane &w = job.out.p;
  conv_group   g;
  g.end = b + 1;
  if (!w.slot) g.end = w.task ? b + 1 : job.B;
  else
    while (g.end < job.B && w.slot[g.end] == w.slot[b]) g.end++;
  g.first = job.offsets ? job.offsets[b] - job.offsets[0] : b * job.T;
  g.images = job.offsets ? job.offsets[g.end] - job.offsets[b] : (g.end - b) * job.T;
  g.chunks = g.images > job.each ? (g.images + job.each - 1) / job.each : 1;
  return g;
}
/* chunks begin a chunk's images apart within a group, so at most two that are not alone begin in one stretch of that
 * length: a group's last and the next group's first */
PLANE_DEVICE float *conv_partial(const conv_sum &job, const conv_group &g, int32_t chunk, int64_t cells) {
  return job.partial + (2 * (g.first / job.each + chunk) + (chunk == 0)) * cells;
}
/* the parts of a chunk: images t0 to t1 of task k */
struct conv_part {
  int32_t k, begin, end, base, t0, t1;       /* base: images of the group before task k */
  __device__ __forceinline__ conv_part(const conv_sum &job, const conv_group &g, int32_t b, int32_t chunk)
      : k(b), begin(chunk * job.each), end(min(begin + job.each, g.images)), base(0) {
    if (!job.offsets && job.T) k += begin / job.T, base = begin / job.T * job.T;
  }
  /* false: there is none left */
  __device__ __forceinline__ bool enter(const conv_sum &job, const conv_group &g) {
    for (; k < g.end && base < end; next(job)) {
      t0 = max(begin - base, 0), t1 = min(end - base, rows(job));
      if (t0 < t1) return true;
    }
    return false;
  }
  __device__ __forceinline__ void next(const conv_sum &job) { base += rows(job), k++; }
  __device__ __forceinline__ int32_t rows(const conv_sum &job) const {
    return (int32_t)wire_rows(job.offsets, k, job.T);
  }
};

/* where the weights of chunk `chunk` of a group go: to the group's first task, or to its place in scratch */
struct conv_result {
  int32_t columns;
  float  *partial;
  char   *out;
  __device__ __forceinline__ conv_result(const conv_sum &job, const conv_group &g, int32_t b, int32_t chunk)
      : columns(job.I * job.K * job.K),
        partial(g.chunks > 1 ? conv_partial(job, g, chunk, (int64_t)job.O * columns) : NULL),
        out(plane_task(job.out.p, b)) {}
  __device__ __forceinline__ void put(const conv_sum &job, int32_t o, int32_t column, float value) const {
    if (o >= job.O || column >= columns) return;
    if (partial) {
      partial[(int64_t)o * columns + column] = value;
    } else {
      const int32_t tap = column / job.I, i = column - tap * job.I;
      plane_put(job.out.p, out, image_at(job.out, o, tap / job.K, tap % job.K, i), (double)value, job.out.p.add);
    }
  }
};

/* on the tensor cores */
mica_status conv_sums_bf16(const char *name, const conv_sum &job, dim3 grid, void *stream);
mica_status conv_sums_tf32(const char *name, const conv_sum &job, dim3 grid, void *stream);

#endif
