/* the instruction set of the machine for mlp_loop; no CUDA where there is none */
#include "common/isa.h"
#include "mlp/mlp_loop_internal.h"

int64_t micak_mlp_params(const micak_mlp_loop *m) {
  int64_t n = 0;
  for (int i = 0; i < 2 * m->layers; i++) n += mlp_count(m, i);
  return n;
}

int64_t micak_mlp_loop_scratch(const micak_mlp_loop *m) {
  int64_t stretch = m->stride > 1 ? m->stride * mlp_weights(m) : 0;
  return (mlp_cleared(m) + stretch) * (int64_t)sizeof(float);
}

int64_t micak_mlp_task_scratch(const micak_mlp_loop *m) {
  if (!mlp_in_lanes(m))
    return micak_mlp_loop_scratch(m) + (m->steps - 1) / m->stride * mlp_weights(m) * (int64_t)sizeof(float);
  int64_t units = 0, rows = m->R > m->query.R ? m->R : m->query.R;
  for (int l = 0; l <= m->layers; l++) units += m->width[l];
  int64_t thetas = 1 + m->steps / m->stride + m->stride - 1;
  int64_t vectors = thetas * micak_mlp_params(m) + (4 * m->R + 2 * m->query.R) * units +
                    (m->R + m->query.R) * m->width[m->layers] + rows;
  return vectors * MLP_LANES * (int64_t)sizeof(float);
}

int64_t micak_mlp_task_unit(const micak_mlp_loop *m, int isa) {
  return !mlp_in_lanes(m) ? 1 : isa == MICA_ISA_AVX512 ? 16 : isa == MICA_ISA_AVX2 ? 8 : 4;
}

CPU_DISPATCH(mlp_loop_forward)
CPU_DISPATCH(mlp_loop_backward)
CPU_DISPATCH(mlp_loop_task)
CPU_DISPATCH(mlp_loop_both)
CPU_DISPATCH(mlp_lanes_forward)
CPU_DISPATCH(mlp_lanes_both)
CPU_DISPATCH(mlp_lanes_sum)

/* are all labels of these tasks ones of the network? */
static mica_status check_labels(const micak_mlp_loop *m, const mica_wire *y, const int32_t *offsets, int64_t R,
                                int64_t first, int64_t count) {
  const int64_t classes = m->width[m->layers];
  for (int64_t b = first; m->labels && b < first + count; b++) {
    const int32_t *label = micak_task(y, offsets, b);
    for (int64_t r = 0; label && r < micak_rows(offsets, b, R); r++)
      if (label[r] >= classes)
        return mica_error(MICA_ERR_INVALID, "cross_entropy: label %d at task %lld, row %lld, expected less than %lld "
                          "(negative: ignored)", (int)label[r], (long long)b, (long long)r, (long long)classes);
  }
  return MICA_OK;
}
static mica_status check_task(const micak_mlp_loop *m, int64_t first, int64_t count) {
  const micak_mlp_query *q = &m->query;
  mica_status status = check_labels(m, &m->y, m->offsets, m->R, first, count);
  return status < 0 ? status : check_labels(m, &q->y, q->offsets, q->R, first, count);
}

mica_status micak_mlp_loop_forward(const mica_exec *exec, const void *loop, int64_t first, int64_t count) {
  const micak_mlp_loop *m = loop;
  mica_status status = check_labels(m, &m->y, m->offsets, m->R, first, count);
  return status < 0 ? status : micak_mlp_loop_forward_cpu(exec, loop, first, count);
}
mica_status micak_mlp_loop_backward(const mica_exec *exec, const void *loop, int64_t first, int64_t count) {
  return micak_mlp_loop_backward_cpu(exec, loop, first, count);
}
mica_status micak_mlp_task_forward(const mica_exec *exec, const void *loop, int64_t first, int64_t count) {
  mica_status status = check_task(loop, first, count);
  if (status < 0) return status;
  return mlp_in_lanes(loop) ? micak_mlp_lanes_forward_cpu(exec, loop, first, count)
                            : micak_mlp_loop_task_cpu(exec, loop, first, count);
}
mica_status micak_mlp_task_both(const mica_exec *exec, const void *loop, int64_t first, int64_t count) {
  mica_status status = check_task(loop, first, count);
  if (status < 0) return status;
  return mlp_in_lanes(loop) ? micak_mlp_lanes_both_cpu(exec, loop, first, count)
                            : micak_mlp_loop_both_cpu(exec, loop, first, count);
}

int64_t micak_mlp_back_bytes(const micak_mlp_loop *m, int task, int64_t tasks) {
  int64_t row = micak_mlp_params(m);
  if (task && mlp_in_lanes(m)) row = mlp_back_row(row), tasks = mlp_round(tasks);
  return row * tasks * (int64_t)sizeof(float);
}

mica_status micak_mlp_sum_run(const mica_exec *exec, const void *of, int64_t first, int64_t count) {
  const micak_mlp_sum *s = of;
  if (s->lanes) return micak_mlp_lanes_sum_cpu(exec, s, first, count);
  for (int64_t t = s->first; t < s->first + s->tasks; t++) {
    const float *from = s->from + t * s->params + s->at + first;
    float *to = s->to + first;
    if (t == s->first && !s->add) memcpy(to, from, (size_t)count * sizeof *to);
    else for (int64_t k = 0; k < count; k++) to[k] += from[k];
  }
  return MICA_OK;
}

#ifndef MICA_HAVE_CUDA
/* nothing opens a CUDA device in this build, so that nobody comes here */
static mica_status no_cuda(void) { return mica_error(MICA_ERR_UNSUPPORTED, "mlp_loop: no CUDA in this build"); }
mica_status micak_mlp_cuda_plan(const micak_mlp_loop *m, int what, int64_t tasks, micak_mlp_cuda *out) {
  (void)m, (void)what, (void)tasks, (void)out;
  return no_cuda();
}
mica_status micak_mlp_cuda_run(void *stream, const micak_mlp_loop *m, const micak_mlp_cuda *plan, void *scratch,
                               int64_t first, int64_t count) {
  (void)stream, (void)m, (void)plan, (void)scratch, (void)first, (void)count;
  return no_cuda();
}
mica_status micak_mlp_cuda_sum(void *stream, const micak_mlp_loop *m, const micak_mlp_target *targets, int32_t n,
                               int64_t count) {
  (void)stream, (void)m, (void)targets, (void)n, (void)count;
  return no_cuda();
}
#endif
