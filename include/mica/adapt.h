/* adapt.h: inner loops that adapt parameters to each task, and their hypergradients.
 *
 * a step program maps (theta, state, meta-parameters, data) to (theta, state): usually the gradient of an inner loss
 * (mica_program_grad) and an update of each parameter; mica_adapt_step builds it. mica_program_adapt runs it `steps`
 * times for every task at once, each task with its own theta, as one entry of a program. its result feeds an outer
 * loss; the program's backward pass gives the hypergradient by the method that was named. */
#ifndef MICA_ADAPT_H
#define MICA_ADAPT_H

#include "mica/program.h"

#ifdef __cplusplus
extern "C" {
#endif

/* how the sweep back through the inner loop is computed */
enum {
  MICA_ADAPT_UNROLLED,           /* exact: reverse sweep through every step, forward over reverse inside a step */
  MICA_ADAPT_TRUNCATED,          /* through the last `last` steps only (Shaban et al. 2019); the starting values get no
                                  * cotangent unless last >= steps */
  MICA_ADAPT_IMPLICIT,           /* at F(theta, phi) = 0: a linear solve a task (Rajeswaran et al. 2019) */
  MICA_ADAPT_FORWARD,            /* exact: tangents of a few numbers carried along, none for the starting values */
  MICA_ADAPT_ZERO_ORDER          /* an estimate without derivatives of the steps: antithetic differences of the last
                                  * values along random directions (Salimans et al. 2017; Spall 1992). unbiased where
                                  * those are quadratic, or as sigma goes to 0; variance falls as 1 / directions */
};

/* solvers of the implicit method for (dF/dtheta + damping)^T v = u, each task by itself */
enum {
  MICA_SOLVE_CG,                 /* conjugate gradients: dF/dtheta symmetric and positive definite, as of a minimum */
  MICA_SOLVE_NEUMANN,            /* v = rate x the sum over j < iterations of (1 - rate (dF/dtheta + damping))^j u */
  MICA_SOLVE_DENSE,              /* the whole matrix and its factors; small theta, any matrix that has an inverse */
  MICA_SOLVE_NYSTROEM            /* `iterations` columns stand for the matrix: (C S^-1 C^T + damping)^-1 u with S the
                                  * rows of those columns; symmetric, damping > 0 (Hataya and Yamada 2023). exact where
                                  * the matrix has no larger rank */
};

/* directions of zero order */
enum { MICA_DIRECTION_NORMAL, MICA_DIRECTION_SIGN };

/* called before step k of every forward run, on the thread that runs it: theta[j] holds the j-th carry (tasks, numbers)
 * as it is now. it may write what the step reads next: inputs that are bound as parts of every step, whose k-th part
 * must then stay as it is until the backward pass. constants to the gradient. */
typedef mica_status (*mica_adapt_data_fn)(void *user, int64_t step, int64_t tasks, int32_t n_carry,
                                          const mica_wire *theta);

typedef struct mica_adapt_options {
  size_t              size;      /* sizeof(mica_adapt_options) */
  int64_t             steps;     /* >= 1 */
  int32_t             method;
  int32_t             checkpoints; /* 1: keep about sqrt(steps) of the theta_k and step through again between them */
  int64_t             keep;      /* bytes: where the activations of all steps that are gone back through fit, and without
                                  * checkpoints, they are kept, else each step is run down again. same bits */
  int64_t             last;      /* truncated: steps */
  /* implicit: a sealed program with output F.<carry input> for each adapted value; its inputs and parameters are some
   * of the step program's, by name */
  const mica_program *optimality;
  int32_t             solver;
  int64_t             iterations; /* most of CG; terms of Neumann */
  /* CG: a task has converged at |residual| <= tolerance x |u|; others are flagged and contribute nothing. 0: exactly
   * `iterations` steps, all of them used */
  double              tolerance;
  double              damping, rate;
  /* zero order: pairs of runs; step along each; MICA_DIRECTION_*. a task's directions follow from its cotangents, so
   * that no packing changes them */
  int64_t             directions;
  double              sigma;
  int32_t             direction;
  mica_adapt_data_fn  data;      /* NULL: all data are bound */
  void               *data_user;
} mica_adapt_options;
#define MICA_ADAPT_OPTIONS_INIT                                                                                       \
  { sizeof(mica_adapt_options), 1, MICA_ADAPT_UNROLLED, 0, 0, 1, NULL, MICA_SOLVE_CG, 20, 1e-6, 0, 0.1, 16, 1e-3,        \
    MICA_DIRECTION_NORMAL, NULL, NULL }

/* append an inner loop. binds name the step program's inputs and parameters as in mica_program_call; a value with one
 * more dim in front, of size `steps`, gives step k its k-th part. carry pairs as in mica_program_scan: a step input or
 * parameter, whose bound value is where every task starts, and the output that replaces it. other outputs of the step
 * program have one row a task. outputs: last.<carry output> after the last step, and every other output of the step
 * program, (steps, ...). jvp is MICA_ERR_UNSUPPORTED. */
MICA_API mica_value mica_program_adapt(mica_program *program, const char *name, const mica_program *step,
                                       const mica_adapt_options *options, int32_t n, const mica_bind *binds,
                                       int32_t n_carry, const mica_carry *carry);

/* what the last sweep back of an implicit entry did; index: n-th adapt entry of the executor's program */
typedef struct mica_adapt_report {
  const char    *path;
  int64_t        tasks, unconverged;
  const int32_t *iterations;     /* (tasks) */
  const double  *residual;       /* (tasks) |residual| / |u| */
  const uint8_t *converged;      /* (tasks) 0: flagged, contributed nothing */
} mica_adapt_report;
MICA_API mica_status mica_adapt_get_report(const mica_executor *executor, int32_t index, mica_adapt_report *out);

/* how the n-th adapt entry runs: "steps", one by one; "mlp", the whole loop of a small network in one kernel, a task at a
 * time; or "mlp+loss", that and the network's loss on a query, forward and back, when nothing else reads the adapted
 * weights */
MICA_API mica_status mica_adapt_get_path(const mica_executor *executor, int32_t index, const char **out);

/* ---- step programs of an inner loss and an update ---- */

enum { MICA_RATE_ONE, MICA_RATE_TENSOR, MICA_RATE_ELEMENT }; /* one rate; one each parameter tensor; one each element */

typedef struct mica_step_options {
  size_t      size;              /* sizeof(mica_step_options) */
  const char *update;            /* "sgd", "momentum" or "adam" */
  const char *trained;           /* parameters that are adapted: names with commas between, * is any text; "all" */
  int32_t     rates;             /* MICA_RATE_* */
  int32_t     first_order;       /* 1: derivatives stop at the gradient, by name and not by accident (FOMAML) */
  int32_t     proximal;          /* 1: the loss has proximal / 2 |theta - anchor|^2 added (Rajeswaran et al. 2019) */
  int32_t     every;             /* 1: outputs theta.<parameter> too, before the step: an adapt entry gives all */
  int32_t     block;             /* 1: gradients g (O,I) become left g right^T by inputs left.<parameter> (O,O) and
                                  * right.<parameter> (I,I); of vectors, left g (Park and Oliva 2019) */
  double      momentum;          /* of "momentum": m' = momentum m + g, theta' = theta - rate m' */
  double      beta1, beta2, eps; /* of "adam", whose root is of (v + eps^2), differentiable at 0 */
} mica_step_options;
#define MICA_STEP_OPTIONS_INIT                                                                                        \
  { sizeof(mica_step_options), "sgd", "all", MICA_RATE_ONE, 0, 0, 0, 0, 0.9, 0.9, 0.999, 1e-8 }

/* a step program and what an adapt entry must know of it */
typedef struct mica_step {
  mica_program     *program;
  mica_program     *optimality;  /* F.<parameter>: the gradient, with the proximal term */
  int32_t           n_trained, n_carry;
  const mica_value *trained;     /* (n_trained) parameters of the loss program */
  const mica_carry *carry;       /* (n_carry) trained parameters first, then the update's states */
  const double     *start;       /* (n_carry) starting value of a state; NaN of a parameter */
} mica_step;

/* `loss`: a sealed program whose output `output` is one number a task. the step program's inputs: those and the
 * parameters of `loss`, by name; the states of the update; rate (one) or rate.<parameter>; with the proximal term
 * proximal and anchor.<parameter>. outputs: next.<carry input>, and loss before the step. */
MICA_API mica_status mica_step_create(mica_context *context, const mica_program *loss, const char *output,
                                      const mica_step_options *options, mica_step **out);
MICA_API void        mica_step_destroy(mica_step *step);

/* append an adapt entry for a step: binds as in mica_program_adapt, without the states, which start as they must */
MICA_API mica_value mica_program_adapt_step(mica_program *program, const char *name, const mica_step *step,
                                            const mica_adapt_options *options, int32_t n, const mica_bind *binds);

#ifdef __cplusplus
}
#endif
#endif
