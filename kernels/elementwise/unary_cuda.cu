/* unary operations on CUDA: every operation and face of the one list, one kernel for each width of access */
#include "common/cuda_map.cuh"
#include "common/cuda_math.cuh"
#include "elementwise/unary_internal.h"

/* the operation's number: its place in the list */
enum {
#define UNARY_NUMBER(name, from, order, e0, e1, e2, w0, w1, w2) unary_##name,
  MICAK_UNARY_LIST(UNARY_NUMBER)
#undef UNARY_NUMBER
};

/* inputs: s (x, or y where derivatives are functions of it), x.t, y.d, y.td */
struct unary_fn {
  int32_t which;                             /* operation x face: uniform over the launch */
  int64_t approx;
  double  alpha, beta, lo, hi;

  enum { INPUTS = 4, OUTPUTS = 1 };
  template <int N>
  __device__ __forceinline__ void run(const float (&in)[INPUTS + 1][N], float (&out)[OUTPUTS][N]) const {
    const unary_fn *a = this;
    (void)a;
    switch (which) {
#define UNARY_CASE(name, FACE, value)                                                      \
  case unary_##name * MICA_NFACE + FACE:                                                   \
    _Pragma("unroll") for (int i = 0; i < N; i++) {                                        \
      const float x = in[0][i], s = x, t = in[1][i], d = in[2][i], td = in[3][i];          \
      (void)x, (void)s, (void)t, (void)d, (void)td;                                        \
      out[0][i] = value;                                                                    \
    }                                                                                      \
    break;
#define UNARY_CASES(name, from, order, e0, e1, e2, w0, w1, w2)                             \
  UNARY_CASE(name, MICA_FORWARD, w0)                                                       \
  UNARY_CASE(name, MICA_BACKWARD, order ? (w1) * d : 0.0f)                                 \
  UNARY_CASE(name, MICA_JVP, order ? (w1) * t : 0.0f)                                      \
  UNARY_CASE(name, MICA_BACKWARD_JVP,                                                      \
             order > 1 ? v_fma(w1, td, (w2) * (t * d)) : order ? (w1) * td : 0.0f)
      MICAK_UNARY_LIST(UNARY_CASES)
    }
  }
};

/* ---- launchers ---- */

static mica_status unary_run(const char *name, int number, int from, int order, int face, const mica_exec *exec,
                             const void *args) {
  const mica_unary_args *a = static_cast<const mica_unary_args *>(args);
  const bool      forward = face == MICA_FORWARD, down = forward || face == MICA_JVP;
  const mica_port &s = forward || from == UNARY_FROM_X ? a->x : a->y, &port = down ? a->y : a->x;
  const mica_wire *by_face[MICA_NFACE] = { &port.v, &port.d, &port.t, &port.td };
  const uint32_t  first[MICA_NFACE] = { 1, 1 | 4, 1 | 2, 1 | 8 };
  uint32_t reads = forward ? 1u : order == 0 ? 0u : face == MICA_BACKWARD_JVP && order > 1 ? 15u : first[face];
  if (!forward && from == UNARY_FROM_N) reads &= ~1u;
  map_job<unary_fn> job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.C = (int32_t)a->C, job.offsets = a->y.offsets;
  job.out_rows = job.R, job.out_cols = job.C;
  const mica_port *ports[] = { &s, &a->x, &a->y, &a->y };
  const mica_wire *wires[] = { &s.v, &a->x.t, &a->y.d, &a->y.td };
  for (int k = 0; k < 4; k++)
    if (reads >> k & 1) job.in[k] = map_side(*wires[k], ports[k]->offsets, a->R, a->C, a->R, a->C);
  job.out[0] = map_side(*by_face[face], port.offsets, a->R, a->C, a->R, a->C);
  unary_fn f = { number * MICA_NFACE + face, a->approx, a->alpha, a->beta, a->lo, a->hi };
  return map_run_each(name, job, f, exec->stream);
}

#define UNARY_FACE(name, face, FACE)                                                                           \
  extern "C" mica_status micak_##name##_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) { \
    return unary_run(#name " " #face, unary_##name, from_##name, order_##name, FACE, exec, args);              \
  }
#define UNARY_FACES(name, from, order, e0, e1, e2, w0, w1, w2) \
  UNARY_FACE(name, forward, MICA_FORWARD)                      \
  UNARY_FACE(name, backward, MICA_BACKWARD)                    \
  UNARY_FACE(name, jvp, MICA_JVP)                              \
  UNARY_FACE(name, backward_jvp, MICA_BACKWARD_JVP)
MICAK_UNARY_LIST(UNARY_FACES)
