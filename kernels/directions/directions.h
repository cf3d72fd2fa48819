/* directions.h: vectors of tasks for the sweeps of an inner loop that go along directions (host/adapt/forward.c,
 * zero_order.c): (tasks, n) in the compute type, weights and sums in double. no operations.
 *
 *   dot   sums_b += scale <u_b, x_b>
 *   move  to_b = from_b + by weight_b e_b                 without weights: by e_b
 *
 * every task by itself, a sum in an order that n alone fixes. */
#ifndef MICA_KERNELS_DIRECTIONS_H
#define MICA_KERNELS_DIRECTIONS_H

#include "mica/op.h"

typedef struct micak_dots {
  int32_t     dtype;             /* MICA_F32, on the CPU MICA_F64 too */
  int64_t     tasks, n;
  const void *u, *x;
  double      scale, *sums;
} micak_dots;

typedef struct micak_moved {
  int32_t       dtype;
  int64_t       tasks, n;
  void         *to;              /* may be `from` */
  const void   *from, *e;
  double        by;
  const double *weight;          /* (tasks), or NULL */
} micak_moved;

#ifdef __cplusplus
extern "C" {
#endif
void micak_directions_dot(const micak_dots *job);
void micak_directions_move(const micak_moved *job);
/* device memory, enqueued on a CUDA stream (builds with a CUDA backend); f32 */
mica_status micak_directions_dot_cuda(void *stream, const micak_dots *job);
mica_status micak_directions_move_cuda(void *stream, const micak_moved *job);
#ifdef __cplusplus
}
#endif

#endif
