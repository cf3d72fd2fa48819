/* the instruction set of the machine for mlp_loop */
#include "common/isa.h"
#include "mlp/mlp_loop_internal.h"

int64_t micak_mlp_loop_scratch(const micak_mlp_loop *m) {
  int64_t stretch = m->stride > 1 ? m->stride * mlp_weights(m) : 0;
  return (mlp_cleared(m) + stretch) * (int64_t)sizeof(float);
}

CPU_DISPATCH(mlp_loop_forward)
CPU_DISPATCH(mlp_loop_backward)

mica_status micak_mlp_loop_forward(const mica_exec *exec, const void *loop, int64_t first, int64_t count) {
  return micak_mlp_loop_forward_cpu(exec, loop, first, count);
}
mica_status micak_mlp_loop_backward(const mica_exec *exec, const void *loop, int64_t first, int64_t count) {
  return micak_mlp_loop_backward_cpu(exec, loop, first, count);
}
