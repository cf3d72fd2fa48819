/* sizes of one task of matmul */
#ifndef MICA_KERNELS_LINEAR_MATMUL_INTERNAL_H
#define MICA_KERNELS_LINEAR_MATMUL_INTERNAL_H

#include "common/rows.h"
#include "linear/matmul.h"

/* the row axis as stored of a, b and c may be packed; what they share is equal */
static inline void matmul_sizes(const mica_matmul_args *a, int64_t b, int64_t *M, int64_t *N, int64_t *K) {
  const int32_t *m = a->c.offsets ? a->c.offsets : a->ta ? NULL : a->a.offsets;
  const int32_t *n = a->tb ? a->b.offsets : NULL;
  const int32_t *k = a->ta && a->a.offsets ? a->a.offsets : a->tb ? NULL : a->b.offsets;
  *M = micak_rows(m, b, a->M);
  *N = micak_rows(n, b, a->N);
  *K = micak_rows(k, b, a->K);
}

enum { MATMUL_ROWS = 96, MATMUL_COLS = 256, MATMUL_PANEL = 256 * 256 };
enum { MATMUL_FLOATS = MATMUL_PANEL + MATMUL_ROWS * MATMUL_COLS };

/* an output of one face: the wire that sums over tasks, and what it is the product of */
typedef struct matmul_job {
  const mica_wire *out;
  const int32_t   *offsets;
  int64_t          rows, groups, blocks;     /* rows of op(out), slot groups, row blocks */
  int              port;                     /* 0 a, 1 b, 2 c */
} matmul_job;

/* outputs of a face; units are numbered job by job, (group, row block) within a job. returns the number of jobs. */
static inline int matmul_jobs(const mica_matmul_args *a, int face, matmul_job job[2]) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP, n = 0;
  const mica_port *port[3] = { &a->a, &a->b, &a->c };
  int64_t rows[3] = { a->M, a->K, a->M };
  for (int i = back ? 0 : 2; i < (back ? 2 : 3); i++) {
    const mica_wire *w = micak_wire((mica_port *)(uintptr_t)port[i], bit[face]);
    if (!w->data || a->B <= 0) continue;
    job[n] = (matmul_job){ w, port[i]->offsets, rows[i], 0, (rows[i] + MATMUL_ROWS - 1) / MATMUL_ROWS, i };
    if (!w->slot) job[n].groups = port[i]->offsets || w->task_stride ? a->B : 1;
    else
      for (int64_t b = 0; b < a->B; b++) job[n].groups += !micak_same_slot(w, port[i]->offsets, b);
    n++;
  }
  return n;
}
/* tasks [*begin, *end) of group g of a job */
static inline void matmul_group(const matmul_job *job, int64_t tasks, int64_t g, int64_t *begin, int64_t *end) {
  if (!job->out->slot) {
    *begin = job->groups == tasks ? g : 0;
    *end = job->groups == tasks ? g + 1 : tasks;
    return;
  }
  micak_group(job->out, tasks, g, begin, end);
}

#endif
