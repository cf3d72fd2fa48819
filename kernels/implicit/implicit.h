/* implicit.h: the linear solves of implicit hypergradients, (A + damping) v = u with A = (dF/dtheta)^T, every task by
 * itself. no operations: host/adapt/implicit.c runs the stages, and makes the products q = A p of all tasks in between.
 *
 *   cg        start, then product and CG again and again; a task that is done stays as it is
 *   neumann   start, then product and NEUMANN as often as there are terms, NEUMANN_END
 *   dense     start, UNIT (p = e_at), product, ROW for each of n rows, DENSE
 *   nystroem  start, the same for `rows` rows at columns[...], NYSTROEM, product, NYSTROEM_END
 * then FINISH: p = -v, or nothing in tasks whose solve is not to be used; `converged` says which.
 *
 * implicit.inc has the stages, once: a thread runs them for a task on the CPU, a block on CUDA. vectors are in the
 * compute type, sums and small systems in double, in an order that the task's size fixes; no task's bits depend on the
 * others. systems of n unknowns take n^2 doubles a task and n^3 / 3 steps: meant for small n. */
#ifndef MICA_KERNELS_IMPLICIT_H
#define MICA_KERNELS_IMPLICIT_H

#include "mica/op.h"

enum {
  MICAK_IMPLICIT_START, MICAK_IMPLICIT_CG, MICAK_IMPLICIT_NEUMANN, MICAK_IMPLICIT_NEUMANN_END, MICAK_IMPLICIT_UNIT,
  MICAK_IMPLICIT_ROW, MICAK_IMPLICIT_DENSE, MICAK_IMPLICIT_NYSTROEM, MICAK_IMPLICIT_NYSTROEM_END, MICAK_IMPLICIT_FINISH,
  MICAK_IMPLICIT_STAGES
};

/* stages that solve a small system of their own */
#define MICAK_IMPLICIT_SYSTEM(stage) ((stage) == MICAK_IMPLICIT_DENSE || (stage) == MICAK_IMPLICIT_NYSTROEM)

typedef struct micak_implicit {
  int32_t  dtype;                /* of vectors: MICA_F32, on the CPU MICA_F64 too */
  int32_t  unflagged;            /* 1: a finite residual and a step are enough for a task to be used */
  int64_t  tasks, n;             /* numbers of theta in a task */
  double   tolerance, damping, rate;
  int64_t  rows, at, row;        /* rows of the matrix; UNIT: where the 1 is; ROW: which row q is */
  void    *u, *v, *r, *p, *q;    /* (tasks, n); u is given */
  double  *rr, *uu, *residual;   /* (tasks) |r|^2, |u|^2, |r| / |u| */
  int32_t *iterations;           /* (tasks) */
  uint8_t *converged, *done;     /* (tasks) */
  double  *matrix, *work;        /* (tasks, rows, n), (tasks, own) */
  int64_t  own;                  /* micak_implicit_work */
  const int64_t *columns;        /* nystroem (rows): which stand for the matrix */
} micak_implicit;

/* doubles that a task works in: dense, or nystroem */
static inline int64_t micak_implicit_work(int64_t n, int64_t rows, int nystroem) {
  return nystroem ? rows * rows + rows + n : n;
}

#ifdef __cplusplus
extern "C" {
#endif
/* one task, on the calling thread */
void micak_implicit_task(const micak_implicit *solve, int stage, int64_t task);
/* all tasks, device memory, enqueued on a CUDA stream (builds with a CUDA backend); f32 */
mica_status micak_implicit_cuda(void *stream, const micak_implicit *solve, int stage);
#ifdef __cplusplus
}
#endif

#endif
