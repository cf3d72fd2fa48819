/* mlp_memory on the CPU: mlp_memory.inc with vectors, a (task, head) pair a unit */
#include <math.h>

#include "common/isa.h"
#include "mlp_memory/mlp_memory_internal.h"

#define real float
#define F(name) mlp_##name
#include "common/dual_cpu.h"
#include "mlp_memory/mlp_memory.inc"

static mica_status run(const mica_exec *exec, const mica_mlp_memory_args *a, int face, int64_t first,
                       int64_t count) {
  int sums = mm_sums(a, face);
  mm_layout layout;
  mm_layout_of(a, face, VW, &layout);
  for (int64_t u = first; u < first + count; u++) {
    int64_t h = u % a->H, b = u / a->H;
    for (int64_t task = sums ? 0 : b; task < (sums ? a->B : b + 1); task++)
      mlp_pair_run(a, &layout, face, task, h, exec->scratch);
  }
  return MICA_OK;
}
CPU_KERNEL(mlp_memory_forward) { return run(exec, args, MICA_FORWARD, first, count); }
CPU_KERNEL(mlp_memory_backward) { return run(exec, args, MICA_BACKWARD, first, count); }
CPU_KERNEL(mlp_memory_jvp) { return run(exec, args, MICA_JVP, first, count); }
CPU_KERNEL(mlp_memory_backward_jvp) { return run(exec, args, MICA_BACKWARD_JVP, first, count); }
