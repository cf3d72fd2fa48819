/* matmul on CUDA: every output of every face is one product (product_internal.cuh) */
#include "linear/matmul.h"
#include "linear/product_internal.cuh"

/* a port's wire as a matrix of each task, seen through its transposition */
struct matrix {
  const mica_wire *wire;
  const int32_t   *offsets;
  int64_t          columns;                  /* as stored */
  bool             transposed;
};
static const mica_wire *wire_of(const mica_port &port, int bit) {
  return bit == MICA_V ? &port.v : bit == MICA_D ? &port.d : bit == MICA_T ? &port.t : &port.td;
}
static matrix turned(matrix m) {
  m.transposed = !m.transposed;
  return m;
}
/* a left factor's x are its rows, a right factor's its columns */
static product_factor left(const matrix &m) {
  return product_factor_of(*m.wire, m.offsets, m.columns, !m.transposed);
}
static product_factor right(const matrix &m) {
  return product_factor_of(*m.wire, m.offsets, m.columns, m.transposed);
}
static void swap(product_job *job) {
  for (int s = 0; s < job->terms; s++) {
    product_factor a = job->term[s].a;
    job->term[s].a = job->term[s].b, job->term[s].b = a;
  }
  product_size M = job->M;
  int64_t      row = job->out_row;
  job->M = job->N, job->N = M;
  job->out_row = job->out_col, job->out_col = row;
}

/* port 0 a, 1 b, 2 c; bit: the wire that is written */
static product_job job_of(const char *name, const mica_matmul_args *a, int port, int bit) {
  const bool    tangent = bit == MICA_T || bit == MICA_TD;
  const int     given = bit == MICA_TD ? MICA_TD : MICA_D;
  const int32_t *m = a->c.offsets ? a->c.offsets : a->ta ? NULL : a->a.offsets, *n = a->tb ? a->b.offsets : NULL;
  const int32_t *k = a->ta && a->a.offsets ? a->a.offsets : a->tb ? NULL : a->b.offsets;
  const product_size M = { m, a->M, 1 }, N = { n, a->N, 1 }, K = { k, a->K, 1 };
  const mica_port &to = port == 0 ? a->a : port == 1 ? a->b : a->c;
  const bool      transposed = port == 0 ? a->ta != 0 : port == 1 ? a->tb != 0 : false;
  auto A = [&](int w) { return matrix{ wire_of(a->a, w), a->a.offsets, a->Ac, a->ta != 0 }; };
  auto B = [&](int w) { return matrix{ wire_of(a->b, w), a->b.offsets, a->Bc, a->tb != 0 }; };
  auto C = [&](int w) { return matrix{ wire_of(a->c, w), a->c.offsets, a->N, false }; };
  matrix x[2], y[2];
  if (port == 2) { /* c = a b; c.t = a.t b + a b.t */
    x[0] = A(tangent ? MICA_T : MICA_V), y[0] = B(MICA_V), x[1] = A(MICA_V), y[1] = B(MICA_T);
  } else if (port == 0) { /* a.d = c.d b^T; a.td = c.td b^T + c.d b.t^T */
    x[0] = C(given), y[0] = turned(B(MICA_V)), x[1] = C(MICA_D), y[1] = turned(B(MICA_T));
  } else { /* b.d = a^T c.d; b.td = a^T c.td + a.t^T c.d */
    x[0] = turned(A(MICA_V)), y[0] = C(given), x[1] = turned(A(MICA_T)), y[1] = C(MICA_D);
  }
  product_job job = {};
  job.name = name, job.tasks = a->B;
  job.M = port == 1 ? K : M, job.N = port == 0 ? K : N, job.K = port == 0 ? N : port == 1 ? M : K;
  for (int s = 0; s < (tangent ? 2 : 1); s++)
    if (x[s].wire->data && y[s].wire->data) job.term[job.terms++] = product_term{ left(x[s]), right(y[s]) };
  job.out = *wire_of(to, bit), job.out_offsets = to.offsets;
  job.out_row = job.out.stride[transposed], job.out_col = job.out.stride[!transposed];
  job.wide_out = !(transposed ? job.M : job.N).offsets &&
                 wire_by_four(job.out, job.out_offsets, (transposed ? job.M : job.N).longest);
  job.tensor = !job.M.offsets && !job.N.offsets && !job.K.offsets && a->M >= 64 && a->N >= 64 && a->K >= 32;
  if (transposed) swap(&job);
  return job;
}

/* ---- launchers ---- */

static mica_status run_ports(const mica_exec *exec, const void *args, const char *name, int bit) {
  const mica_matmul_args *a = static_cast<const mica_matmul_args *>(args);
  const bool              back = bit == MICA_D || bit == MICA_TD;
  mica_status             status = MICA_OK;
  for (int port = back ? 0 : 2; port < (back ? 2 : 3) && status >= 0; port++)
    if (wire_of(port == 0 ? a->a : port == 1 ? a->b : a->c, bit)->data)
      status = product_run(job_of(name, a, port, bit), exec->stream);
  return status;
}

#define MATMUL_FACE(face, bit)                                                                                    \
  extern "C" mica_status micak_matmul_##face##_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {  \
    return run_ports(exec, args, "matmul " #face, bit);                                                           \
  }
MATMUL_FACE(forward, MICA_V)
MATMUL_FACE(backward, MICA_D)
MATMUL_FACE(jvp, MICA_T)
MATMUL_FACE(backward_jvp, MICA_TD)
