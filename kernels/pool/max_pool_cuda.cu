/* max_pool on CUDA: a thread has a square of pixels and one channel, or four side by side */
#include "common/cuda_image.cuh"
#include "pool/pool_internal.h"

enum { POOL_THREADS = 256 };

/* down: x's largest, or the tangent there, into out; up: the cotangent into out's pixels */
struct pool_job {
  int64_t        B;
  int32_t        T, H, W, C, P, Q, window;
  int32_t        high, wide;                 /* squares of an image: up also those that the image ends in */
  const int32_t *offsets;
  image_plane    x, from, out;               /* from: x.t (NULL: the value is wanted), or y's cotangent */
};

/* the first of the largest numbers of a square, its place and, down, the number of `from` that lies there */
template <int N, bool UP>
PLANE_DEVICE void pool_largest(const pool_job &job, const char *x, const char *from, int32_t t, int32_t p, int32_t q,
                               int32_t c, float (&best)[N], float (&tangent)[N], int32_t (&place)[N]) {
  const int32_t n = job.window;
#pragma unroll
  for (int i = 0; i < N; i++) place[i] = 0, tangent[i] = 0.0f;
  for (int32_t k = 0, h = 0, w = 0; k < n * n; k++) {
    float next[N], other[N] = {};
    image_get<N>(job.x, x, image_at(job.x, t, p * n + h, q * n + w, c), next);
    if (!UP) image_get<N>(job.from, from, image_at(job.from, t, p * n + h, q * n + w, c), other);
#pragma unroll
    for (int i = 0; i < N; i++)
      if (k == 0 || next[i] > best[i]) best[i] = next[i], tangent[i] = other[i], place[i] = k;
    if (++w == n) w = 0, h++;
  }
}

template <int N, bool UP>
static __global__ void __launch_bounds__(POOL_THREADS, 2) pool_squares(const __grid_constant__ pool_job job,
                                                                       const bool value) {
  const plane   &w = job.out.p;
  const uint32_t C = (uint32_t)job.C / N, wide = (uint32_t)job.wide, high = (uint32_t)job.high;
  const int32_t  n = job.window;
  for (int64_t b = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; b < job.B; b += (int64_t)gridDim.y * blockDim.y) {
    if (!plane_leads(w, b)) continue;
    char *out = plane_task(w, b);
    for (int64_t k = b; k == b || (k < job.B && plane_follows(w, k)); k++) {
      const char    *x = plane_task(job.x.p, k), *from = plane_task(job.from.p, k);
      const bool     add = w.add || k > b;
      const uint32_t items = (uint32_t)wire_rows(job.offsets, k, job.T) * high * wide * C;
      for (uint32_t m = blockIdx.x * blockDim.x + threadIdx.x; m < items; m += gridDim.x * blockDim.x) {
        const uint32_t line = m / C / wide, image = line / high;
        const int32_t  c = (int32_t)(m % C) * N, q = (int32_t)(m / C % wide), p = (int32_t)(line - image * high);
        const int32_t  t = (int32_t)image;
        const bool     whole = p < job.P && q < job.Q;
        float          best[N], tangent[N];
        int32_t        place[N];
        if (!UP || whole) pool_largest<N, UP>(job, x, from, t, p, q, c, best, tangent, place);
        if constexpr (!UP) {
          image_put<N>(job.out, out, image_at(job.out, t, p, q, c), value ? best : tangent, add);
        } else {
          float g[N] = {};
          if (whole) image_get<N>(job.from, from, image_at(job.from, t, p, q, c), g);
          for (int32_t i = 0, y = p * n; i < n && y < job.H; i++, y++)
            for (int32_t j = 0, z = q * n; j < n && z < job.W; j++, z++) {
              float one[N];
#pragma unroll
              for (int e = 0; e < N; e++) one[e] = whole && place[e] == i * n + j ? g[e] : 0.0f;
              image_put<N>(job.out, out, image_at(job.out, t, y, z, c), one, add);
            }
        }
      }
    }
  }
}

/* ---- launchers ---- */

static mica_status pool_run(const char *name, int face, const mica_exec *exec, const void *args) {
  const mica_max_pool_args *a = static_cast<const mica_max_pool_args *>(args);
  const bool up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  const mica_wire none = {}, *from[MICA_NFACE] = { &none, &a->y.d, &a->x.t, &a->y.td };
  const mica_wire *out[MICA_NFACE] = { &a->y.v, &a->x.d, &a->y.t, &a->x.td };
  const int64_t n = a->window;
  pool_job job = { a->B, (int32_t)a->T, (int32_t)a->H, (int32_t)a->W, (int32_t)a->C, (int32_t)a->P, (int32_t)a->Q,
                   (int32_t)n, (int32_t)(up ? (a->H + n - 1) / n : a->P), (int32_t)(up ? (a->W + n - 1) / n : a->Q),
                   pool_offsets(a), image_of(a->x.v, a->x.offsets),
                   image_of(*from[face], up ? a->y.offsets : a->x.offsets),
                   image_of(*out[face], up ? a->x.offsets : a->y.offsets) };
  const plane all[] = { job.x.p, job.from.p, job.out.p };
  if (!job.out.p.data || a->B <= 0) return MICA_OK;
  mica_status status = plane_check(name, all, 3);
  if (status >= 0) status = plane_check_task(name, a->T * a->H, a->W * a->C);
  if (status < 0) return status;
  const bool     four = a->C % 4 == 0 && image_by_four(job.x) && image_by_four(job.from) && image_by_four(job.out);
  const int64_t  items = a->T * job.high * job.wide * a->C / (four ? 4 : 1);
  const unsigned wide = plane_power(items, 8, POOL_THREADS), tasks = POOL_THREADS / wide;
  void (*const kernel)(pool_job, bool) = up ? four ? pool_squares<4, true> : pool_squares<1, true>
                                            : four ? pool_squares<4, false> : pool_squares<1, false>;
  return micak_launch(name, kernel, dim3(micak_blocks(items, wide), micak_task_blocks((a->B + tasks - 1) / tasks)),
                      dim3(wide, tasks), 0, exec->stream, job, face == MICA_FORWARD);
}

#define POOL_FACE(face, FACE)                                                                                         \
  extern "C" mica_status micak_max_pool_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) { \
    return pool_run("max_pool " #face, FACE, exec, args);                                                             \
  }
POOL_FACE(forward, MICA_FORWARD)
POOL_FACE(backward, MICA_BACKWARD)
POOL_FACE(jvp, MICA_JVP)
POOL_FACE(backward_jvp, MICA_BACKWARD_JVP)
