/* short_conv.h: a causal convolution of each channel by itself, over the last few tokens (So et al., "Primer", 2021; in
 * front of a fast-weight memory: Yang et al., "Parallelizing linear transformers with the delta rule", 2024).
 *
 *   y_t = sum over j < W of w_j x_(t-j)       channel by channel; before the first token: state_in, absent: zeros
 *
 * x, y (B,T,C); w (B,W,C): row j weighs the token j before; state_in, state_out (B,P,C), P = W - 1: the P tokens before
 * the first, and the last P of state_in and x, the latest last. rows may be packed: each task starts from its state_in.
 * 1 <= W <= 16. outputs must not overlap inputs. linear in x and in w.
 * accumulates in f32: y in order of j; x.d in order of j, state_out.d last; w.d rows in order within a task, tasks in task
 * order; on CUDA w.d in runs of 16 rows, the runs of 8 tasks dealt to lanes, which are added in double in a tree, and parts of
 * 8 tasks likewise. deterministic: the same bits for any cut into units, batch and packing.
 * cost: 2 B T C W flop; 2 B T C elements moved; backward twice, backward_jvp four times that.
 * worked example: w = (2, 3), x = (1, 10): y = (2, 23). */
#ifndef MICA_OPS_SHORT_CONV_H
#define MICA_OPS_SHORT_CONV_H

#include "mica/op.h"

typedef struct mica_short_conv_args {
  size_t    size;
  int64_t   B, T, C, W, P;
  mica_port x, w, state_in, y, state_out;
} mica_short_conv_args;

#endif
