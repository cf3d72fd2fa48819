/* delta_rule on the CPU: the memory of common/memory_cpu.h, a (task, head) pair a unit */
#include "common/memory_cpu.h"
#include "delta_rule/delta_rule_internal.h"

static mica_status run(const mica_exec *exec, const void *args, int face, int64_t first, int64_t count) {
  micak_memory m = delta_rule_memory(args);
  return memory_run(exec, &m, face, first, count);
}
CPU_KERNEL(delta_rule_forward) { return run(exec, args, MICA_FORWARD, first, count); }
CPU_KERNEL(delta_rule_backward) { return run(exec, args, MICA_BACKWARD, first, count); }
CPU_KERNEL(delta_rule_jvp) { return run(exec, args, MICA_JVP, first, count); }
CPU_KERNEL(delta_rule_backward_jvp) { return run(exec, args, MICA_BACKWARD_JVP, first, count); }
CPU_KERNEL(delta_rule_forward_with_jvp) { return run(exec, args, MICA_FORWARD_WITH_JVP, first, count); }
CPU_KERNEL(delta_rule_backward_with_jvp) { return run(exec, args, MICA_BACKWARD_WITH_JVP, first, count); }
