/* binary operations and where on CUDA: every operation and face of the one list */
#include "common/cuda_map.cuh"
#include "common/cuda_math.cuh"
#include "elementwise/binary_internal.h"

enum {
#define BINARY_NUMBER(name, reads, e, ea, eb, eaa, eab, ebb, w, wa, wb, waa, wab, wbb) binary_##name,
  MICAK_BINARY_LIST(BINARY_NUMBER)
#undef BINARY_NUMBER
};
/* what a launch computes: the output down, or a's or b's cotangent */
enum { BINARY_Y, BINARY_YT, BINARY_A, BINARY_B, BINARY_A_TD, BINARY_B_TD, BINARY_KINDS };
/* inputs, in this order */
enum { BINARY_AV = 1, BINARY_BV = 2, BINARY_AT = 4, BINARY_BT = 8, BINARY_YD = 16, BINARY_YTD = 32, BINARY_MV = 64 };

struct binary_fn {
  int32_t which;                             /* operation x kind: uniform over the launch */

  enum { INPUTS = 7, OUTPUTS = 1 };
  template <int N>
  __device__ __forceinline__ void run(const float (&in)[INPUTS + 1][N], float (&out)[OUTPUTS][N]) const {
    switch (which) {
#define BINARY_CASE(name, kind, value)                                                            \
  case binary_##name * BINARY_KINDS + kind:                                                       \
    _Pragma("unroll") for (int i = 0; i < N; i++) {                                               \
      const float a = in[0][i], b = in[1][i], ta = in[2][i], tb = in[3][i], d = in[4][i];         \
      const float td = in[5][i], m = in[6][i];                                                    \
      (void)a, (void)b, (void)ta, (void)tb, (void)d, (void)td, (void)m;                           \
      out[0][i] = value;                                                                          \
    }                                                                                             \
    break;
#define BINARY_IF(name, value) ((int)reads_##name & BINARY_FIRST ? (value) : 0.0f)
#define BINARY_TD(name, f, fa, fb)                                                                \
  ((int)reads_##name & BINARY_SECOND ? v_fma(f, td, v_fma(fa, ta, (fb) * tb) * d) : BINARY_IF(name, (f) * td))
#define BINARY_CASES(name, bits, e, ea, eb, eaa, eab, ebb, w, wa, wb, waa, wab, wbb)              \
  BINARY_CASE(name, BINARY_Y, w)                                                                  \
  BINARY_CASE(name, BINARY_YT, BINARY_IF(name, v_fma(wa, ta, (wb) * tb)))                         \
  BINARY_CASE(name, BINARY_A, BINARY_IF(name, (wa) * d))                                          \
  BINARY_CASE(name, BINARY_B, BINARY_IF(name, (wb) * d))                                          \
  BINARY_CASE(name, BINARY_A_TD, BINARY_TD(name, wa, waa, wab))                                   \
  BINARY_CASE(name, BINARY_B_TD, BINARY_TD(name, wb, wab, wbb))
      MICAK_BINARY_LIST(BINARY_CASES)
    }
  }
};

/* ---- launchers ---- */

static uint32_t binary_reads(int bits, int face) {
  uint32_t values = (bits & BINARY_VALUES ? BINARY_AV | BINARY_BV : 0u) | (bits & BINARY_MASK ? BINARY_MV : 0u);
  uint32_t tangents = bits & BINARY_ONLY_B ? BINARY_BT : BINARY_AT | BINARY_BT;
  if (face == MICA_FORWARD)
    return BINARY_BV | (bits & BINARY_ONLY_B ? 0u : BINARY_AV) | (bits & BINARY_MASK ? BINARY_MV : 0u);
  if (!(bits & BINARY_FIRST)) return 0;
  if (face == MICA_BACKWARD) return values | BINARY_YD;
  if (face == MICA_JVP) return values | tangents;
  return values | BINARY_YTD | (bits & BINARY_SECOND ? tangents | BINARY_YD : 0u);
}

static mica_status binary_run(const char *name, int number, int bits, int face, const mica_exec *exec,
                              const void *args) {
  static const int kinds[MICA_NFACE] = { BINARY_Y, BINARY_A, BINARY_YT, BINARY_A_TD };
  const mica_binary_args *a = static_cast<const mica_binary_args *>(args);
  const bool up = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  const uint32_t reads = binary_reads(bits, face);
  map_job<binary_fn> job = {};
  job.B = a->B, job.R = (int32_t)a->R, job.C = (int32_t)a->C, job.offsets = a->y.offsets;
  const struct { const mica_wire *wire; const mica_port *port; int64_t rows, cols; } in[] = {
    { &a->a.v, &a->a, a->R, a->C },  { &a->b.v, &a->b, a->Rb, a->Cb }, { &a->a.t, &a->a, a->R, a->C },
    { &a->b.t, &a->b, a->Rb, a->Cb }, { &a->y.d, &a->y, a->R, a->C },   { &a->y.td, &a->y, a->R, a->C },
    { &a->mask.v, &a->mask, a->Rm, a->Cm },
  };
  for (int k = 0; k < 7; k++)
    if (reads >> k & 1) job.in[k] = map_side(*in[k].wire, in[k].port->offsets, in[k].rows, in[k].cols, a->R, a->C);
  mica_status status = MICA_OK;
  for (int k = 0; k < (up ? 2 : 1) && status >= 0; k++) {
    const mica_port &port = !up ? a->y : k ? a->b : a->a;
    const mica_wire *by_face[MICA_NFACE] = { &port.v, &port.d, &port.t, &port.td };
    const int64_t rows = up && k ? a->Rb : a->R, cols = up && k ? a->Cb : a->C;
    job.out_rows = (int32_t)rows, job.out_cols = (int32_t)cols;
    job.out[0] = map_side(*by_face[face], port.offsets, rows, cols, a->R, a->C);
    binary_fn f = { number * BINARY_KINDS + kinds[face] + k };
    status = map_run(name, job, f, exec);
  }
  return status;
}

#define BINARY_FACE(name, face, FACE)                                                                          \
  extern "C" mica_status micak_##name##_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) { \
    return binary_run(#name " " #face, binary_##name, reads_##name, FACE, exec, args);                         \
  }
#define BINARY_FACES(name, bits, e, ea, eb, eaa, eab, ebb, w, wa, wb, waa, wab, wbb) \
  BINARY_FACE(name, forward, MICA_FORWARD)                                           \
  BINARY_FACE(name, backward, MICA_BACKWARD)                                         \
  BINARY_FACE(name, jvp, MICA_JVP)                                                   \
  BINARY_FACE(name, backward_jvp, MICA_BACKWARD_JVP)
MICAK_BINARY_LIST(BINARY_FACES)
