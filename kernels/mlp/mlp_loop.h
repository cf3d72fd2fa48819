/* mlp_loop.h: the inner loop of gradient descent on a small multilayer perceptron, whole, a task at a time: its
 * weights, gradients and activations stay in the first cache from the first step to the last, and on the way back.
 *
 *   a_0 = x,  z_l = w_l a_(l-1) + b_l,  a_l = act(z_l), the last a_l = z_l
 *   L = 1 / rows x sum over rows and outputs of (a - y)^2,   theta_(k+1) = theta_k - rate_k grad L(theta_k)
 *
 * backward takes the cotangent u of the last theta to that of the first, step by step: u <- u - H (rate u) + loss_d
 * grad L, H the Hessian of L (forward over reverse), and gives rate.d = -<grad L, u>. no operation of its own: the
 * faces of adapt entries whose step program is this one. rows of a task lie in lanes, so that weights are read as they
 * are kept, (out, in); a bias is a column of weights whose input is 1. sums over rows run in row order, over inputs in
 * order; fp32, one fma a term. a task's bits do not depend on the others. */
#ifndef MICA_KERNELS_MLP_LOOP_H
#define MICA_KERNELS_MLP_LOOP_H

#include "mica/op.h"

enum { MICAK_MLP_LAYERS = 4, MICAK_MLP_WIDTH = 128, MICAK_MLP_PARAMS = 2 * MICAK_MLP_LAYERS };

typedef struct micak_mlp_loop {
  int32_t        layers, act;    /* act: MICA_ACT_RELU, _TANH or _SIGMOID (linear.h), of all layers but the last */
  int32_t        first_order;    /* 1: backward leaves out H */
  int64_t        width[MICAK_MLP_LAYERS + 1]; /* inputs, hidden ..., outputs */
  int64_t        B, R, steps, stop; /* backward: steps - 1 down to stop */
  int64_t        stride;         /* >= 1: each stride-th theta_k is kept, and stepped on from on the way back */
  const int32_t *offsets;        /* rows of x and y, NULL: R in each task */
  mica_wire      x, y;           /* (B,R,in), (B,R,out), dense rows */
  /* by parameter, w_0, b_0, w_1, ...; data NULL: the layer has no bias */
  mica_wire      start[MICAK_MLP_PARAMS], last[MICAK_MLP_PARAMS], last_d[MICAK_MLP_PARAMS];
  mica_wire      rate[MICAK_MLP_PARAMS]; /* (B): one number, + k rate_step of step k */
  int64_t        rate_step[MICAK_MLP_PARAMS];
  float         *kept[MICAK_MLP_PARAMS]; /* ((steps - 1) / stride, B, numbers): theta_stride ...; NULL: not kept */
  mica_wire      loss, loss_d;   /* (B, steps) before each step, and its cotangent; data NULL: not wanted, zeros */
  float         *back[MICAK_MLP_PARAMS]; /* (B, numbers): cotangents of start */
  float         *rate_back;      /* (B, steps, MICAK_MLP_PARAMS); NULL: not wanted */
} micak_mlp_loop;

int64_t micak_mlp_loop_scratch(const micak_mlp_loop *loop); /* bytes a call */

/* units are tasks; any cut gives the same bits */
mica_status micak_mlp_loop_forward(const mica_exec *exec, const void *loop, int64_t first, int64_t count);
mica_status micak_mlp_loop_backward(const mica_exec *exec, const void *loop, int64_t first, int64_t count);

#endif
