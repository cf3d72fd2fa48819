/* mlp_loop.h: the inner loop of gradient descent on a small multilayer perceptron, whole, a task at a time: its
 * weights, gradients and activations stay in the first cache from the first step to the last, and on the way back.
 *
 *   a_0 = x,  z_l = w_l a_(l-1) + b_l,  a_l = act(z_l), the last a_l = z_l
 *   L = 1 / rows x sum over rows and outputs of (a - y)^2,   theta_(k+1) = theta_k - rate_k grad L(theta_k)
 *
 * or, where y are labels, L = 1 / rows x sum over rows of the cross entropy of softmax(a): a row with a negative label
 * counts as one and adds nothing; a label beyond the outputs is an error, on CUDA its row is NaN.
 *
 * backward takes the cotangent u of the last theta to that of the first, step by step: u <- u - H (rate u) + loss_d
 * grad L, H the Hessian of L (forward over reverse), and gives rate.d = -<grad L, u>. mlp_task is the same with a loss
 * on the query at the last theta, whose gradient is u: all that there is of a task, down and back in one go, so that no
 * theta ever leaves a worker. no operations of their own: the faces of adapt entries whose step program is this one.
 *
 * rows of a task lie in lanes, weights are read as they are kept, (out, in), and a bias is a column of weights whose
 * input is 1. networks of few weights (mlp_in_lanes) run by mlp_task with tasks in lanes instead: full vectors for any
 * widths and rows, weights once for each task of a vector. sums over rows run in row order, over inputs in order; fp32,
 * one fma a term. a task's bits do not depend on the others. */
#ifndef MICA_KERNELS_MLP_LOOP_H
#define MICA_KERNELS_MLP_LOOP_H

#include "mica/op.h"

/* most layers, inputs, and units of any other layer */
enum { MICAK_MLP_LAYERS = 4, MICAK_MLP_INPUTS = 1024, MICAK_MLP_WIDTH = 128, MICAK_MLP_PARAMS = 2 * MICAK_MLP_LAYERS };

/* a task's query: loss of each row, or of each task their mean */
typedef struct micak_mlp_query {
  int64_t        R;
  const int32_t *offsets;
  int32_t        mean_out, mean_rows; /* mean instead of the sum: over outputs, of squares; over rows */
  mica_wire      x, y;           /* as the loop's */
  mica_wire      loss, loss_d;   /* (B,R), or (B) by mean_rows */
} micak_mlp_query;

typedef struct micak_mlp_loop {
  int32_t        layers, act;    /* act: MICA_ACT_RELU, _TANH or _SIGMOID (linear.h), of all layers but the last */
  int32_t        first_order;    /* 1: backward leaves out H */
  int32_t        labels;         /* 1: y are labels, and losses cross entropies */
  int64_t        width[MICAK_MLP_LAYERS + 1]; /* inputs, hidden ..., outputs */
  int32_t        bias[MICAK_MLP_LAYERS];      /* does the layer have one? */
  int64_t        B, R, steps, stop; /* backward: steps - 1 down to stop */
  int64_t        stride;         /* >= 1: each stride-th theta_k is kept, and stepped on from on the way back */
  const int32_t *offsets;        /* rows of x and y, NULL: R in each task */
  mica_wire      x, y;           /* (B,R,in), (B,R,out), dense rows; labels: (B,R) i32 */
  /* by parameter, w_0, b_0, w_1, ...; nothing where there is no bias */
  mica_wire      start[MICAK_MLP_PARAMS], last[MICAK_MLP_PARAMS], last_d[MICAK_MLP_PARAMS];
  mica_wire      rate[MICAK_MLP_PARAMS]; /* (B): one number, + k rate_step of step k */
  int64_t        rate_step[MICAK_MLP_PARAMS];
  float         *kept[MICAK_MLP_PARAMS]; /* ((steps - 1) / stride, B, numbers): theta_stride ...; NULL: not kept */
  mica_wire      loss, loss_d;   /* (B, steps) before each step, and its cotangent; data NULL: not wanted, zeros */
  int64_t        back_first;     /* the task whose cotangents are the first of: */
  float         *back;           /* (tasks, numbers of all parameters): cotangents of start; see micak_mlp_sum */
  float         *rate_back;      /* (tasks, steps, MICAK_MLP_PARAMS); NULL: not wanted */
  micak_mlp_query query;         /* of mlp_task, which leaves kept, last and last_d alone */
} micak_mlp_loop;

#ifdef __cplusplus
extern "C" {
#endif
/* numbers of all parameters */
int64_t micak_mlp_params(const micak_mlp_loop *loop);

/* bytes a call; units are tasks; any cut gives the same bits */
int64_t     micak_mlp_loop_scratch(const micak_mlp_loop *loop);
mica_status micak_mlp_loop_forward(const mica_exec *exec, const void *loop, int64_t first, int64_t count);
mica_status micak_mlp_loop_backward(const mica_exec *exec, const void *loop, int64_t first, int64_t count);

/* forward: the losses. both: the cotangents too. `unit`: tasks that are as fast as one */
int64_t     micak_mlp_task_unit(const micak_mlp_loop *loop, int isa);
int64_t     micak_mlp_task_scratch(const micak_mlp_loop *loop);
mica_status micak_mlp_task_forward(const mica_exec *exec, const void *loop, int64_t first, int64_t count);
mica_status micak_mlp_task_both(const mica_exec *exec, const void *loop, int64_t first, int64_t count);

/* bytes of `back` for so many tasks; task: of mlp_task_both, with tasks in lanes laid out as it likes */
int64_t micak_mlp_back_bytes(const micak_mlp_loop *loop, int task, int64_t tasks);

/* to (numbers) = or += the sum of these numbers of `back` over tasks, in order. units are numbers */
typedef struct micak_mlp_sum {
  float       *to;
  const float *from;             /* `back` */
  int64_t      params, at;       /* numbers of a task; where these begin */
  int64_t      first, tasks;     /* tasks >= 1, counted from back_first */
  int32_t      add, lanes;       /* lanes: as mlp_task_both leaves them where its unit is more than a task */
} micak_mlp_sum;
mica_status micak_mlp_sum_run(const mica_exec *exec, const void *sum, int64_t first, int64_t count);

/* ---- the same on a CUDA stream (builds with a CUDA backend): wires, slots and offsets are device memory; kernels are
 * only enqueued. a task is a block's from its first step to its last sum: README.md ---- */

enum { MICAK_MLP_FORWARD, MICAK_MLP_BACKWARD, MICAK_MLP_TASK, MICAK_MLP_BOTH }; /* loop_ and task_ functions above */

typedef struct micak_mlp_cuda {
  int32_t what, threads, blocks; /* MICAK_MLP_*; of a block; most blocks of a launch */
  int32_t rows;                  /* of a chunk */
  int32_t there;                 /* weights that lie in shared memory: 2 theta and u, 1 theta, 0 none */
  int64_t shared, scratch;       /* bytes: of a block; of all blocks, device memory */
} micak_mlp_cuda;

/* the sum of tasks' cotangents of one parameter or rate. rates: 1 << parameter of all that it moves, 0: numbers of
 * `back` */
typedef struct micak_mlp_target {
  mica_wire d;
  int64_t   at, count;           /* in a row of `back`; numbers */
  uint32_t  rates;
} micak_mlp_target;

/* for at most loop->R and query.R rows and so many tasks a launch, on the calling thread's device. how many rows are a
 * chunk and what lies where changes no bit */
mica_status micak_mlp_cuda_plan(const micak_mlp_loop *loop, int what, int64_t tasks, micak_mlp_cuda *out);
mica_status micak_mlp_cuda_run(void *stream, const micak_mlp_loop *loop, const micak_mlp_cuda *plan, void *scratch,
                               int64_t first, int64_t count);
/* cotangents of `count` tasks from back_first on, into every target: = or +=, sums in double in an order that the
 * number of a slot's tasks fixes. stop > 0: zeros for the starts */
mica_status micak_mlp_cuda_sum(void *stream, const micak_mlp_loop *loop, const micak_mlp_target *targets, int32_t n,
                               int64_t count);
#ifdef __cplusplus
}
#endif

#endif
