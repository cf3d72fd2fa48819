/* matmul: every output of every face is a sum of products of two strided matrices, over the tasks of a slot group */
#include "common/gemm.h"
#include "common/isa.h"
#include "linear/matmul_internal.h"

/* matrix of one task: element (i, j) at[i row + j col] */
typedef struct matrix {
  float  *at;
  int64_t row, col;
} matrix;

static matrix matrix_of(const mica_port *port, int bit, int64_t b, int64_t transposed) {
  const mica_wire *w = micak_wire((mica_port *)(uintptr_t)port, bit);
  matrix m = { micak_task(w, port->offsets, b), w->stride[transposed ? 1 : 0], w->stride[transposed ? 0 : 1] };
  return m;
}
static matrix turned(matrix m) { return (matrix){ m.at, m.col, m.row }; }

typedef struct work { float *panels, *c; } work;

/* c (m x nn) += rows [i0, i0 + m) of A (. x K) times columns [j0, j0 + nn) of B (K x .) */
static void add_product(const work *s, matrix A, matrix B, int64_t i0, int64_t m, int64_t j0, int64_t nn, int64_t K,
                        int *written) {
  const float *rows[MATMUL_ROWS];
  if (!A.at || !B.at) return;
  for (int64_t i = 0; i < m; i++) rows[i] = A.at + (i0 + i) * A.row;
  for (int64_t k = 0; k < K; k += GEMM_KB) {
    int64_t kc = K - k < GEMM_KB ? K - k : GEMM_KB;
    const float *b = B.at + k * B.row + j0 * B.col;
    int in_place = gemm_in_place(m, B.row, B.col, kc, nn);
    if (!in_place) gemm_pack_wide(s->panels, GEMM_PANEL, b, B.row, B.col, kc, nn);
    gemm_panels(m, nn, kc, rows, k * A.col, A.col, in_place ? b : s->panels, in_place ? B.row : GEMM_NR,
                in_place ? GEMM_NR : GEMM_PANEL, s->c, MATMUL_COLS, *written, NULL);
    *written = 1;
  }
}

/* the output's factors at task b: term 0, and for the tangent faces term 1 */
static int factors(const mica_matmul_args *a, int face, int port, int64_t b, matrix A[2], matrix B[2]) {
  static const int out[MICA_NFACE] = { 0, MICA_D, 0, MICA_TD };
  int tangent = face == MICA_JVP || face == MICA_BACKWARD_JVP;
  if (port == 2) { /* c = a b; c.t = a.t b + a b.t */
    A[0] = matrix_of(&a->a, tangent ? MICA_T : MICA_V, b, a->ta);
    B[0] = matrix_of(&a->b, MICA_V, b, a->tb);
    A[1] = matrix_of(&a->a, MICA_V, b, a->ta);
    B[1] = matrix_of(&a->b, MICA_T, b, a->tb);
  } else if (port == 0) { /* a.d = c.d b^T; a.td = c.td b^T + c.d b.t^T */
    A[0] = matrix_of(&a->c, out[face], b, 0);
    B[0] = turned(matrix_of(&a->b, MICA_V, b, a->tb));
    A[1] = matrix_of(&a->c, MICA_D, b, 0);
    B[1] = turned(matrix_of(&a->b, MICA_T, b, a->tb));
  } else { /* b.d = a^T c.d; b.td = a^T c.td + a.t^T c.d */
    A[0] = turned(matrix_of(&a->a, MICA_V, b, a->ta));
    B[0] = matrix_of(&a->c, out[face], b, 0);
    A[1] = turned(matrix_of(&a->a, MICA_T, b, a->ta));
    B[1] = matrix_of(&a->c, MICA_D, b, 0);
  }
  return tangent ? 2 : 1;
}

static void run_unit(const mica_matmul_args *a, int face, const matmul_job *job, int64_t begin, int64_t end, int64_t i0,
                     const work *s) {
  int64_t M, N, K;
  matmul_sizes(a, begin, &M, &N, &K);
  int64_t m = job->port == 1 ? K : M, n = job->port == 0 ? K : N;
  int64_t transposed = job->port == 0 ? a->ta : job->port == 1 ? a->tb : 0;
  float *to = micak_task(job->out, job->offsets, begin);
  if (!to || i0 >= m) return;
  m = m - i0 < MATMUL_ROWS ? m - i0 : MATMUL_ROWS;
  int64_t row = job->out->stride[transposed ? 1 : 0], col = job->out->stride[transposed ? 0 : 1];
  int add = (job->out->flags & MICA_ADD) != 0;
  for (int64_t j0 = 0; j0 < n; j0 += MATMUL_COLS) {
    int64_t nn = n - j0 < MATMUL_COLS ? n - j0 : MATMUL_COLS;
    int written = 0;
    for (int64_t b = begin; b < end; b++) {
      matrix A[2], B[2];
      int terms = factors(a, face, job->port, b, A, B);
      matmul_sizes(a, b, &M, &N, &K);
      for (int t = 0; t < terms; t++)
        add_product(s, A[t], B[t], i0, m, j0, nn, job->port == 0 ? N : job->port == 1 ? M : K, &written);
    }
    for (int64_t i = 0; i < m; i++) {
      float *at = to + (i0 + i) * row + j0 * col, *c = s->c + i * MATMUL_COLS;
      if (!written) memset(c, 0, (size_t)nn * sizeof *c);
      if (add)
        for (int64_t j = 0; j < nn; j++) at[j * col] += c[j];
      else
        for (int64_t j = 0; j < nn; j++) at[j * col] = c[j];
    }
  }
}

static mica_status run(const mica_exec *exec, const mica_matmul_args *a, int face, int64_t first, int64_t count) {
  matmul_job jobs[2];
  int n = matmul_jobs(a, face, jobs);
  work s = { exec->scratch, (float *)exec->scratch + MATMUL_PANEL };
  for (int i = 0; i < n && count > 0; i++) {
    int64_t units = jobs[i].groups * jobs[i].blocks, group = -1, begin = 0, end = 0;
    for (; first < units && count > 0; first++, count--) {
      if (group != first / jobs[i].blocks) matmul_group(&jobs[i], a->B, group = first / jobs[i].blocks, &begin, &end);
      run_unit(a, face, &jobs[i], begin, end, first % jobs[i].blocks * MATMUL_ROWS, &s);
    }
    first -= units;
  }
  return MICA_OK;
}

CPU_KERNEL(matmul_forward) { return run(exec, args, MICA_FORWARD, first, count); }
CPU_KERNEL(matmul_backward) { return run(exec, args, MICA_BACKWARD, first, count); }
CPU_KERNEL(matmul_jvp) { return run(exec, args, MICA_JVP, first, count); }
CPU_KERNEL(matmul_backward_jvp) { return run(exec, args, MICA_BACKWARD_JVP, first, count); }
