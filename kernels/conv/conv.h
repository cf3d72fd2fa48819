/* conv.h: two-dimensional convolution of images, channels last.
 *
 *   y[p,q,o] = b[o] + sum over i, ky, kx of x[p stride + ky - pad, q stride + kx - pad, i] w[o,i,ky,kx]
 *
 * x (B,T,H,W,I): T images a task; w (B,O,I,K,K) as PyTorch keeps it, b (B,O) or absent, usually shared over tasks, or
 * each task's own; y (B,T,P,Q,O) with P = (H + 2 pad - K) / stride + 1, Q likewise. x is zero outside; pad < K. images
 * may be packed. outputs must not overlap inputs.
 *
 * accumulates: a pixel sums its terms in order of (ky, kx, i); w.d and b.d (td) sum images in task order, pixels in
 * order within each image; fp32, one fma a term where the machine has it. deterministic: the same bits for any cut into
 * units and any other images and tasks beside. on CUDA terms run over 8 channels at a time, each by (ky, kx, i), but where
 * 16 channels or more are summed over by (ky, kx, i) on the tensor cores, 16 at once in bf16, 32 in fp32 as three tf32
 * products; w.d and b.d add up chunks of 1024 pixels, or an image, which are then added in order, w.d of 16 outputs or more
 * on the tensor cores. factors of two types run without them.
 * cost of a forward: 2 B T P Q O I K K flop.
 * worked example: x ((1, 2), (3, 4)), w 1 x 1 of 2, b 1 -> y ((3, 5), (7, 9)). */
#ifndef MICA_OPS_CONV_H
#define MICA_OPS_CONV_H

#include "mica/op.h"

typedef struct mica_conv2d_args {
  size_t    size;
  int64_t   B, T, H, W, I, O, K, P, Q;       /* P and Q follow from the others */
  int64_t   pad, stride;
  mica_port x, w, b, y;
} mica_conv2d_args;

#endif
