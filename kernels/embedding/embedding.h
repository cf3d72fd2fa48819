/* embedding.h: rows of a table by token, and learned positions.
 *
 *   embedding      y[r] = w[tokens[r]]        tokens (B,R) index in [0, V); w (B,V,C), usually shared; y (B,R,C)
 *   position_add   y[r] = x[r] + w[r]         x, y (B,R,C); w (B,P,C), usually shared, P >= R; r counts within the task
 *
 * rows may be packed (offsets of tokens, of x). a token outside [0, V) is an error that names task and row; on CUDA,
 * where no status can tell, its row is NaN, and its cotangent goes nowhere.
 * both are linear: jvp is forward of the tangents, backward_jvp is backward of y.td.
 * accumulates: w.d adds rows in order within a task, tasks in task order, in f32 on the CPU; on CUDA
 * in the fixed trees of common/cuda_index.cuh and cuda_map.cuh. no other sums.
 * deterministic: the same bits for any cut into units. outputs must not overlap inputs.
 * cost: 2 B R C elements moved, a backward also fills w.d. worked example: tokens (1, 0) in table (3, 5): (5, 3). */
#ifndef MICA_OPS_EMBEDDING_H
#define MICA_OPS_EMBEDDING_H

#include "mica/op.h"

typedef struct mica_embedding_args {
  size_t    size;
  int64_t   B, R, V, C;
  mica_port tokens, w, y;
} mica_embedding_args;

typedef struct mica_position_add_args {
  size_t    size;
  int64_t   B, R, P, C;
  mica_port x, w, y;
} mica_position_add_args;

#endif
