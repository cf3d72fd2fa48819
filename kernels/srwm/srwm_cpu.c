/* srwm on the CPU: srwm.inc with vectors, a (task, head) pair a unit */
#include "common/isa.h"
#include "srwm/srwm_internal.h"

#define real float
#define F(name) srwm_##name
#include "common/dual_cpu.h"

static void srwm_softmax1(int64_t n, int64_t ld, const float *x, float *y) {
  float top = x[0];
  vf sum = v_zero();
  for (int64_t i = 1; i < n; i++) top = x[i] > top ? x[i] : top;
  for (int64_t i = 0; i < ld; i += VW) {
    vf e = v_exp_low(v_load(x + i) - top);
    e = micak_first(e, v_zero(), n - i < VW ? n - i : VW);
    v_store(y + i, e);
    sum += e;
  }
  float over = 1 / v_sum(sum);
  for (int64_t i = 0; i < ld; i += VW) v_store(y + i, v_load(y + i) * over);
}

#include "srwm/srwm.inc"

static mica_status run(const mica_exec *exec, const mica_srwm_args *a, int face, int64_t first, int64_t count) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  const mica_port *down[] = { &a->out, &a->state_out }, *up[] = { &a->x, &a->state_in };
  int sums = micak_ports_sum(back ? up : down, 2, bit[face], a->B);
  srwm_layout layout;
  srwm_layout_of(a, face, VW, &layout);
  for (int64_t u = first; u < first + count; u++) {
    int64_t h = u % a->H, b = u / a->H;
    for (int64_t task = sums ? 0 : b; task < (sums ? a->B : b + 1); task++)
      srwm_pair_run(a, &layout, face, task, h, exec->scratch);
  }
  return MICA_OK;
}
CPU_KERNEL(srwm_forward) { return run(exec, args, MICA_FORWARD, first, count); }
CPU_KERNEL(srwm_backward) { return run(exec, args, MICA_BACKWARD, first, count); }
CPU_KERNEL(srwm_jvp) { return run(exec, args, MICA_JVP, first, count); }
CPU_KERNEL(srwm_backward_jvp) { return run(exec, args, MICA_BACKWARD_JVP, first, count); }
