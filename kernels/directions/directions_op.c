/* vectors of tasks on the CPU, one after another */
#include "directions/directions.h"

#include <string.h>

#include "common/solve.h"

void micak_directions_dot(const micak_dots *j) {
  const int64_t bytes = j->n * (int64_t)mica_dtype_size(j->dtype);
  for (int64_t b = 0; b < j->tasks; b++)
    j->sums[b] += j->scale * micak_dot(j->dtype, (const char *)j->u + b * bytes, (const char *)j->x + b * bytes, j->n);
}

void micak_directions_move(const micak_moved *j) {
  const int64_t bytes = j->n * (int64_t)mica_dtype_size(j->dtype);
  if (j->to != j->from) memcpy(j->to, j->from, (size_t)(j->tasks * bytes));
  for (int64_t b = 0; b < j->tasks; b++)
    micak_combine(j->dtype, (char *)j->to + b * bytes, j->weight ? j->by * j->weight[b] : j->by,
                  (const char *)j->e + b * bytes, 1, j->n);
}

#ifndef MICA_HAVE_CUDA
/* nothing opens a CUDA device in this build, so that nobody comes here */
static mica_status no_cuda(void) { return mica_error(MICA_ERR_UNSUPPORTED, "directions: no CUDA in this build"); }
mica_status micak_directions_dot_cuda(void *stream, const micak_dots *job) {
  (void)stream, (void)job;
  return no_cuda();
}
mica_status micak_directions_move_cuda(void *stream, const micak_moved *job) {
  (void)stream, (void)job;
  return no_cuda();
}
#endif
