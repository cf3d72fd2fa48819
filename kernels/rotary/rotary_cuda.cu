/* rotary on CUDA: a block turns some rows; their angles are computed once, in double, for all heads */
#include "common/cuda_plane.cuh"
#include "rotary/rotary.h"

enum { ROTARY_THREADS = 256, ROTARY_MOST_ROWS = 32 };

struct rotary_job {
  int64_t        B;
  int32_t        R, H, half, interleaved, rows; /* rows of a block */
  float          sign;                       /* -1 turns back */
  double         base;
  const int32_t *offsets;
  plane          in, position, out;          /* columns are the elements of a head */
  int32_t        in_head, out_head;
};

struct rotary_row {
  int64_t b;
  int32_t r, live;
};

/* cos and sin of position x frequency: what is left of whole quarter turns, in double, is within pi/4; there the
 * polynomials of Cephes (Moshier, sinf.c) are good to an ulp */
PLANE_DEVICE float2 rotary_angle(double u) {
  const double quarters = rint(u * 6.36619772367581382433e-01);
  const double rest = fma(-quarters, 6.12323399573676603587e-17, fma(-quarters, 1.57079632679489655800e+00, u));
  const float  x = (float)rest, z = x * x;
  const float  s = fmaf(x * z, fmaf(z, fmaf(z, -1.9515295891e-4f, 8.3321608736e-3f), -1.6666654611e-1f), x);
  const float  c = fmaf(z * z, fmaf(z, fmaf(z, 2.443315711809948e-5f, -1.388731625493765e-3f), 4.166664568298827e-2f),
                        fmaf(-0.5f, z, 1.0f));
  const int    turn = (int)((long long)quarters & 3);
  const float2 even = make_float2(turn & 2 ? -c : c, turn & 2 ? -s : s);
  return turn & 1 ? make_float2(-even.y, even.x) : even;
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS, 2) rotary_turn(const __grid_constant__ rotary_job job) {
  DYN_SMEM(double, frequency);               /* half, then (cos, sin) of each row */
  float2 *const         angle = reinterpret_cast<float2 *>(frequency + job.half);
  __shared__ rotary_row row[ROTARY_MOST_ROWS];
  const int     t = (int)threadIdx.x;
  const int32_t pairs = job.H * job.half;
  for (int32_t k = t; k < job.half; k += THREADS) frequency[k] = pow(job.base, -(double)k / (double)job.half);
  for (int64_t first = (int64_t)blockIdx.x * job.rows; first < job.B * job.R; first += (int64_t)gridDim.x * job.rows) {
    bool live = false;
    if (t < job.rows && first + t < job.B * job.R) {
      const int64_t b = (first + t) / job.R;
      row[t].b = b, row[t].r = (int32_t)(first + t - b * job.R);
      live = row[t].r < wire_rows(job.offsets, b, job.R) && plane_leads(job.out, b);
    }
    /* j-th task of the slots that the rows' tasks lead */
    for (int64_t j = 0;; j++) {
      if (t < job.rows) {
        live = live && (j == 0 || (row[t].b + j < job.B && plane_follows(job.out, row[t].b + j)));
        row[t].live = live;
      }
      if (!__syncthreads_or(live)) break;
      for (int32_t i = t; i < job.rows * job.half; i += THREADS) {
        const int32_t own = i / job.half, k = i - own * job.half;
        if (!row[own].live) continue;
        int64_t at = row[own].r;
        if (job.position.data) {
          const char *position = plane_task(job.position, row[own].b + j);
          at = position ? plane_index(job.position, position, at * job.position.row) : 0;
        }
        angle[i] = rotary_angle((double)at * frequency[k]);
      }
      __syncthreads();
      for (int32_t i = t; i < job.rows * pairs; i += THREADS) {
        const int32_t own = i / pairs, pair = i - own * pairs, h = pair / job.half, k = pair - h * job.half;
        const int32_t p = job.interleaved ? 2 * k : k, q = job.interleaved ? p + 1 : k + job.half;
        if (!row[own].live) continue;
        const char  *in = plane_task(job.in, row[own].b + j);
        char        *out = plane_task(job.out, row[own].b);
        const float2 a = angle[own * job.half + k];
        const float  s = a.y * job.sign;
        float        x = 0, y = 0;
        if (in) {
          const int64_t at = (int64_t)row[own].r * job.in.row + (int64_t)h * job.in_head;
          x = plane_get(job.in, in, at + (int64_t)p * job.in.col),
          y = plane_get(job.in, in, at + (int64_t)q * job.in.col);
        }
        const int64_t at = (int64_t)row[own].r * job.out.row + (int64_t)h * job.out_head;
        plane_put(job.out, out, at + (int64_t)p * job.out.col, (double)(x * a.x - y * s), job.out.add || j > 0);
        plane_put(job.out, out, at + (int64_t)q * job.out.col, (double)(y * a.x + x * s), job.out.add || j > 0);
      }
      __syncthreads();
    }
    __syncthreads();
  }
}

/* ---- launchers ---- */

static mica_status rotary_run(const char *name, const mica_port &from, const mica_wire &in, const mica_port &to,
                              const mica_wire &out, float sign, const mica_exec *exec, const void *args) {
  const mica_rotary_args *a = static_cast<const mica_rotary_args *>(args);
  if (!out.data || a->B <= 0) return MICA_OK;
  rotary_job job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.H = (int32_t)a->H, job.half = (int32_t)(a->D / 2);
  job.interleaved = a->pairing == MICA_ROTARY_INTERLEAVED, job.sign = sign, job.base = a->base;
  job.offsets = a->x.offsets, job.position = plane_cells(a->position.v, a->position.offsets);
  job.in = plane_of(in, from.offsets, in.stride[0], in.stride[2]), job.in_head = (int32_t)in.stride[1];
  job.out = plane_of(out, to.offsets, out.stride[0], out.stride[2]), job.out_head = (int32_t)out.stride[1];
  if (job.in.data && job.in_head != in.stride[1]) job.in.bad = PLANE_STRIDE;
  if (job.out_head != out.stride[1]) job.out.bad = PLANE_STRIDE;
  const plane all[] = { job.in, job.position, job.out };
  mica_status status = plane_check(name, all, 3);
  if (status >= 0) status = plane_check_task(name, a->R, a->H * a->D);
  if (status < 0) return status;
  const int64_t pairs = a->H * (a->D / 2);
  job.rows = pairs >= 1024 ? 1 : pairs <= 1024 / ROTARY_MOST_ROWS ? ROTARY_MOST_ROWS : (int32_t)(1024 / pairs);
  const size_t dynamic = (size_t)job.half * (sizeof(double) + (size_t)job.rows * sizeof(float2));
  return micak_launch(name, rotary_turn<ROTARY_THREADS>, dim3(micak_blocks(a->B * a->R, job.rows)),
                      dim3(ROTARY_THREADS), dynamic, exec->stream, job);
}

#define ROTARY_FACE(face, from, to, wire, sign)                                                                      \
  extern "C" mica_status micak_rotary_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {     \
    const mica_rotary_args *a = static_cast<const mica_rotary_args *>(args);                                         \
    return rotary_run("rotary " #face, a->from, a->from.wire, a->to, a->to.wire, sign, exec, args);                  \
  }
ROTARY_FACE(forward, x, y, v, 1)
ROTARY_FACE(jvp, x, y, t, 1)
ROTARY_FACE(backward, y, x, d, -1)
ROTARY_FACE(backward_jvp, y, x, td, -1)
