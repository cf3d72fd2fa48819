/* binary operations and where on the CPU. backward faces have two phases: outputs that are local to rows, then outputs
 * that sum over rows or tasks (broadcast operands, shared parameters) */
#include "common/isa.h"
#include "elementwise/binary_split_internal.h"

#define BINARY_FN(name, body)                                                                                  \
  static inline vf name(vf a, vf b, vf ta, vf tb, vf d, vf td, vf m) {                                         \
    (void)a, (void)b, (void)ta, (void)tb, (void)d, (void)td, (void)m;                                          \
    return body;                                                                                               \
  }                                                                                                            \
  static void name##_n(const void *args, int64_t n, const float *const *in, float *out) {                      \
    (void)args;                                                                                                \
    int64_t i = 0;                                                                                             \
    for (; i + VW <= n; i += VW)                                                                               \
      v_store(out + i, name(v_load(in[0] + i), v_load(in[1] + i), v_load(in[2] + i), v_load(in[3] + i),        \
                            v_load(in[4] + i), v_load(in[5] + i), v_load(in[6] + i)));                         \
    int64_t k = n - i;                                                                                         \
    if (k > 0)                                                                                                 \
      v_store_n(out + i, name(v_load_n(in[0] + i, k), v_load_n(in[1] + i, k), v_load_n(in[2] + i, k),          \
                              v_load_n(in[3] + i, k), v_load_n(in[4] + i, k), v_load_n(in[5] + i, k),          \
                              v_load_n(in[6] + i, k)), k);                                                     \
  }

/* one phase: the outputs local to rows, or those that are sums, a's units before b's */
static void binary_phase(const mica_binary_args *a, int bits, int face, const map_fn fn[2], int sums, int64_t first,
                         int64_t count) {
  for (int k = 0; k < 2; k++) {
    map_job job;
    if (!binary_job(a, bits, face, k, &job)) continue;
    job.fn = fn[k];
    if (!sums) {
      map_run_local(&job, first, count);
      continue;
    }
    int64_t units = map_sum_units(&job);
    for (int64_t u = first < 0 ? 0 : first; u < first + count && u < units; u++) map_run_sum(&job, u);
    first -= units;
  }
}

/* forward and jvp have one output and one phase */
#define BINARY_DOWN(name, face, FACE, f)                                                   \
  CPU_KERNEL(name##_##face) {                                                              \
    (void)exec;                                                                            \
    static const map_fn fn[2] = { f, NULL };                                               \
    binary_phase(args, reads_##name, FACE, fn, binary_sums(args, FACE), first, count);     \
    return MICA_OK;                                                                        \
  }
#define BINARY_UP(name, face, FACE, fa, fb)                                                \
  CPU_KERNEL(name##_##face) {                                                              \
    (void)exec;                                                                            \
    static const map_fn fn[2] = { fa, fb };                                                \
    binary_phase(args, reads_##name, FACE, fn, 0, first, count);                           \
    return MICA_OK;                                                                        \
  }                                                                                        \
  CPU_KERNEL(name##_##face##_sums) {                                                       \
    (void)exec;                                                                            \
    static const map_fn fn[2] = { fa, fb };                                                \
    binary_phase(args, reads_##name, FACE, fn, 1, first, count);                           \
    return MICA_OK;                                                                        \
  }
#define BINARY_IF(name, bit, value) ((int)reads_##name & (bit) ? (value) : v_zero())
/* sums of two products by v_fma: the compiler's own choice could differ between a loop and its tail */
#define BINARY_TD(name, f, fa, fb)                                                                  \
  ((int)reads_##name & BINARY_SECOND ? v_fma(f, td, v_fma(fa, ta, (fb) * tb) * d)                   \
                                     : BINARY_IF(name, BINARY_FIRST, (f) * td))
#define BINARY_CPU(name, bits, e, ea, eb, eaa, eab, ebb, w, wa, wb, waa, wab, wbb)                                  \
  BINARY_FN(name##_forward_v, w)                                                                                    \
  BINARY_FN(name##_backward_a, BINARY_IF(name, BINARY_FIRST, (wa) * d))                                             \
  BINARY_FN(name##_backward_b, BINARY_IF(name, BINARY_FIRST, (wb) * d))                                             \
  BINARY_FN(name##_jvp_v, BINARY_IF(name, BINARY_FIRST, v_fma(wa, ta, (wb) * tb)))                                     \
  BINARY_FN(name##_backward_jvp_a, BINARY_TD(name, wa, waa, wab))                                                   \
  BINARY_FN(name##_backward_jvp_b, BINARY_TD(name, wb, wab, wbb))                                                   \
  BINARY_DOWN(name, forward, MICA_FORWARD, name##_forward_v_n)                                                      \
  BINARY_DOWN(name, jvp, MICA_JVP, name##_jvp_v_n)                                                                  \
  BINARY_UP(name, backward, MICA_BACKWARD, name##_backward_a_n, name##_backward_b_n)                                \
  BINARY_UP(name, backward_jvp, MICA_BACKWARD_JVP, name##_backward_jvp_a_n, name##_backward_jvp_b_n)

MICAK_BINARY_LIST(BINARY_CPU)
