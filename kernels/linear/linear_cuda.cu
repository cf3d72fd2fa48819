/* linear on CUDA: every face is one or two products (product_internal.cuh) and, for activations and residuals, one pass
 * over rows. where all tasks meet one w and their rows lie one after another, they are one matrix. */
#include "linear/linear_act.cuh"
#include "linear/product_internal.cuh"

/* ---- rows: dz, its tangent, and what the residual gets ---- */

enum { ROWS_COPY, ROWS_DZ, ROWS_DZT, ROWS_THREADS = 256 };
struct linear_rows_job {
  int64_t        tasks, O;
  product_size   R;
  int32_t        kind, act;
  mica_wire      dy, dyt, z, zt, out;
  const int32_t *y_offsets, *z_offsets, *out_offsets;
};

static __global__ void __launch_bounds__(ROWS_THREADS) linear_rows(const __grid_constant__ linear_rows_job job) {
  for (int64_t b = blockIdx.y; b < job.tasks; b += gridDim.y) {
    const int64_t place = wire_place(job.out, job.out_offsets, b), rows = product_count(job.R, b);
    if (place < 0 || wire_follows(job.out, job.out_offsets, b)) continue;
    for (int64_t n = (int64_t)blockIdx.x * ROWS_THREADS + threadIdx.x; n < rows * job.O;
         n += (int64_t)gridDim.x * ROWS_THREADS) {
      const int64_t r = n / job.O, c = n - r * job.O;
      float         sum = 0;
      for (int64_t k = b; wire_in_group(job.out, job.out_offsets, b, k, job.tasks); k++) {
        const float dy = product_rows(job.dy, job.y_offsets, k).get(r, c);
        if (job.kind == ROWS_COPY) {
          sum += dy;
          continue;
        }
        const float z = product_rows(job.z, job.z_offsets, k).get(r, c);
        if (job.kind == ROWS_DZ) {
          sum += dy * act_first(job.act, z);
        } else {
          const float dyt = product_rows(job.dyt, job.y_offsets, k).get(r, c);
          const float zt = product_rows(job.zt, job.z_offsets, k).get(r, c);
          sum += dyt * act_first(job.act, z) + dy * act_second(job.act, z) * zt;
        }
      }
      wire_put(job.out, place + r * job.out.stride[0] + c * job.out.stride[1], sum,
                  (job.out.flags & MICA_ADD) != 0);
    }
  }
}

static mica_status run_rows(const char *name, linear_rows_job job, void *stream) {
  if (!job.out.data) return MICA_OK;
  const int64_t R = job.R.longest;
  if (product_in_a_row(job.dy, job.y_offsets, R) && product_in_a_row(job.dyt, job.y_offsets, R) &&
      product_in_a_row(job.z, job.z_offsets, R) && product_in_a_row(job.zt, job.z_offsets, R) &&
      product_in_a_row(job.out, job.out_offsets, R)) {
    job.R.tasks = job.tasks, job.tasks = 1;
    if (!job.R.offsets) job.R.longest *= job.R.tasks, job.R.tasks = 1;
  }
  dim3 grid(micak_blocks(job.R.longest * job.R.tasks * job.O, ROWS_THREADS), micak_task_blocks(job.tasks));
  return micak_launch(name, linear_rows, grid, dim3(ROWS_THREADS), 0, stream, job);
}

/* ---- what a face consists of ---- */

static const int32_t *row_offsets(const mica_linear_args *a) {
  return a->x.offsets ? a->x.offsets : a->y.offsets ? a->y.offsets : a->z.offsets ? a->z.offsets : a->res.offsets;
}
static const mica_wire &wire_of(const mica_port &port, int bit) {
  return bit == MICA_V ? port.v : bit == MICA_D ? port.d : bit == MICA_T ? port.t : port.td;
}
static bool by_four(const mica_wire &w, const int32_t *offsets, int64_t columns) {
  return !w.data || wire_by_four(w, offsets, columns);
}
static bool vector_by_four(const mica_wire &w) {
  return !w.data || (w.dtype == MICA_F32 && w.stride[0] == 1 && w.task_stride % 4 == 0 && (uintptr_t)w.data % 16 == 0);
}

/* shared weights large enough for the tensor cores. no word of rows: their number may depend on the other tasks */
static int32_t by_tensor(const mica_linear_args *a) {
  return a->I >= 32 && a->O >= 32 && product_shared(a->w.v);
}
/* all rows of all tasks as one task */
static void collapse(product_job *job) {
  if (job->M.longest * job->tasks > INT32_MAX) return;
  job->M.tasks = job->tasks, job->tasks = 1;
  if (!job->M.offsets) job->M.longest *= job->M.tasks, job->M.tasks = 1;
}

static product_job down_job(const char *name, const mica_linear_args *a, bool tangent) {
  const int    bit = tangent ? MICA_T : MICA_V;
  product_job  job = {};
  job.name = name, job.tasks = a->B, job.is_linear = 1, job.tensor = by_tensor(a);
  job.M = product_size{ row_offsets(a), a->R, 1 };
  job.N = product_size{ NULL, a->O, 1 }, job.K = product_size{ NULL, a->I, 1 };
  if (!tangent || a->x.t.data)
    job.term[job.terms++] = product_term{ product_factor_of(tangent ? a->x.t : a->x.v, a->x.offsets, a->I, true),
                                          product_factor_of(a->w.v, NULL, a->I, true) };
  if (tangent && a->w.t.data)
    job.term[job.terms++] = product_term{ product_factor_of(a->x.v, a->x.offsets, a->I, true),
                                          product_factor_of(a->w.t, NULL, a->I, true) };
  job.out = wire_of(a->y, bit), job.out_offsets = a->y.offsets;
  job.out_row = job.out.stride[0], job.out_col = job.out.stride[1];
  product_linear *l = &job.linear;
  l->act = (int32_t)a->act, l->tangent = tangent;
  l->bias = wire_of(a->b, bit), l->res = wire_of(a->res, bit), l->res_offsets = a->res.offsets;
  if (a->Z) l->z = a->z.v, l->z_out = wire_of(a->z, bit), l->z_offsets = a->z.offsets;
  if (!tangent) l->z.data = NULL;
  job.wide_out = by_four(job.out, a->y.offsets, a->O) && vector_by_four(l->bias) &&
                 by_four(l->res, a->res.offsets, a->O) && by_four(l->z, a->z.offsets, a->O) &&
                 by_four(l->z_out, a->z.offsets, a->O);
  bool one = product_shared(l->bias) && product_in_a_row(l->res, a->res.offsets, a->R) &&
             product_in_a_row(l->z, a->z.offsets, a->R) && product_in_a_row(l->z_out, a->z.offsets, a->R) &&
             product_in_a_row(job.out, a->y.offsets, a->R);
  for (int s = 0; s < job.terms; s++)
    one = one && product_shared(job.term[s].b.wire) && product_in_a_row(job.term[s].a.wire, a->x.offsets, a->R);
  if (one) collapse(&job);
  return job;
}

/* dz, or its tangent: y's wire where there is no activation; else z's, where that holds the plain values, or scratch */
struct dz_place {
  mica_wire      wire;
  const int32_t *offsets;
  bool           made, own;                  /* made: by a pass over rows; own: in scratch */
};
static dz_place find_dz(const mica_linear_args *a, bool hvp) {
  dz_place p = { hvp ? a->y.td : a->y.d, a->y.offsets, false, false };
  if (!a->Z) return p;
  p.made = true, p.offsets = row_offsets(a), p.wire = hvp ? a->z.td : a->z.d;
  const int32_t dtype = p.wire.data ? p.wire.dtype : a->z.v.dtype;
  if (p.wire.data && !p.wire.slot && !(p.wire.flags & MICA_ADD) && (p.offsets || p.wire.task_stride || a->B == 1))
    return p;
  p.own = true, p.wire = mica_wire{};
  p.wire.task_stride = a->R * a->O, p.wire.stride[0] = a->O, p.wire.stride[1] = 1, p.wire.dtype = dtype;
  p.wire.data = (void *)16;                  /* until scratch is known */
  return p;
}

static product_job x_job(const mica_linear_args *a, const dz_place &dz, bool hvp) {
  product_job job = {};
  job.name = hvp ? "linear backward_jvp x" : "linear backward x", job.tasks = a->B, job.tensor = by_tensor(a);
  job.M = product_size{ row_offsets(a), a->R, 1 };
  job.N = product_size{ NULL, a->I, 1 }, job.K = product_size{ NULL, a->O, 1 };
  if (dz.wire.data && a->w.v.data)
    job.term[job.terms++] = product_term{ product_factor_of(dz.wire, dz.offsets, a->O, true),
                                          product_factor_of(a->w.v, NULL, a->I, false) };
  const mica_port &d = a->Z ? a->z : a->y;
  if (hvp && a->w.t.data && d.d.data)
    job.term[job.terms++] = product_term{ product_factor_of(d.d, d.offsets, a->O, true),
                                          product_factor_of(a->w.t, NULL, a->I, false) };
  job.out = hvp ? a->x.td : a->x.d, job.out_offsets = a->x.offsets;
  job.out_row = job.out.stride[0], job.out_col = job.out.stride[1];
  job.wide_out = by_four(job.out, job.out_offsets, a->I);
  bool one = product_in_a_row(job.out, job.out_offsets, a->R);
  for (int s = 0; s < job.terms; s++)
    one = one && product_shared(job.term[s].b.wire) &&
          product_in_a_row(job.term[s].a.wire, job.term[s].a.offsets, a->R);
  if (one) collapse(&job);
  return job;
}

static bool same_groups(const mica_linear_args *a, const mica_wire &w, const mica_wire &b) {
  return a->B <= 1 || (w.slot == b.slot && (w.slot || !w.task_stride == !b.task_stride));
}
/* w's cotangent, with b's beside it where both sum the same tasks; or b's alone */
static product_job w_job(const mica_linear_args *a, const dz_place &dz, bool hvp, bool b_alone) {
  const mica_wire &w = hvp ? a->w.td : a->w.d, &b = hvp ? a->b.td : a->b.d;
  const mica_port &d = a->Z ? a->z : a->y;
  product_job job = {};
  job.name = hvp ? "linear backward_jvp w" : "linear backward w", job.tasks = a->B;
  job.M = product_size{ NULL, a->O, 1 }, job.N = product_size{ NULL, b_alone ? 1 : a->I, 1 };
  job.K = product_size{ row_offsets(a), a->R, 1 };
  mica_wire nothing = {};
  job.term[job.terms++] = product_term{ product_factor_of(dz.wire, dz.offsets, a->O, false),
                                        product_factor_of(b_alone ? nothing : a->x.v, a->x.offsets, a->I, false) };
  if (hvp && a->x.t.data && d.d.data && !b_alone)
    job.term[job.terms++] = product_term{ product_factor_of(d.d, d.offsets, a->O, false),
                                          product_factor_of(a->x.t, a->x.offsets, a->I, false) };
  job.out = b_alone ? b : w;
  job.out_row = job.out.stride[0], job.out_col = job.out.stride[1];
  job.wide_out = !b_alone && by_four(job.out, NULL, a->I);
  job.sum_only = b_alone, job.tensor = !b_alone && by_tensor(a);
  if (b_alone || (b.data && same_groups(a, w, b))) job.sum = b;
  job.chunk_bits = a->O * a->I <= PRODUCT_SMALL ? PRODUCT_CHUNK_BITS_SMALL : PRODUCT_CHUNK_BITS;
  job.span = 1;
  for (int s = 0; s < job.terms; s++)
    job.span = job.span && product_in_a_row(job.term[s].a.wire, job.term[s].a.offsets, a->R) &&
               product_in_a_row(job.term[s].b.wire, a->x.offsets, a->R);
  return job;
}
/* does b need a launch of its own? */
static bool b_apart(const mica_linear_args *a, bool hvp) {
  const mica_wire &w = hvp ? a->w.td : a->w.d, &b = hvp ? a->b.td : a->b.d;
  return b.data && !(w.data && a->I > 0 && same_groups(a, w, b));
}

/* scratch: dz, then the chunks of w's launch and of b's, one after the other */
static int64_t dz_bytes(const mica_linear_args *a, const dz_place &dz) {
  if (!dz.own) return 0;
  return (a->B * a->R * a->O * (dz.wire.dtype == MICA_BF16 ? 2 : 4) + 63) / 64 * 64;
}
static void scratch_up(const mica_linear_args *a, bool hvp, mica_split *split) {
  dz_place      dz = find_dz(a, hvp);
  const int64_t w = product_partial_floats(w_job(a, dz, hvp, false));
  const int64_t b = b_apart(a, hvp) ? product_partial_floats(w_job(a, dz, hvp, true)) : 0;
  split->units = split->grain = 1, split->rows = 0;
  split->scratch_bytes = (size_t)(dz_bytes(a, dz) + (w > b ? w : b) * 4);
}
extern "C" void micak_linear_backward_cuda_split(const void *args, mica_split *split) {
  scratch_up(static_cast<const mica_linear_args *>(args), false, split);
}
extern "C" void micak_linear_backward_jvp_cuda_split(const void *args, mica_split *split) {
  scratch_up(static_cast<const mica_linear_args *>(args), true, split);
}

/* ---- launchers ---- */

static mica_status need_z(const mica_linear_args *a, const char *face) {
  if (!a->Z || a->z.v.data) return MICA_OK;
  return mica_error(MICA_ERR_INVALID, "linear %s: the activation needs the saved z.v of the forward, which is missing",
                    face);
}

static mica_status run_up(const mica_exec *exec, const mica_linear_args *a, bool hvp) {
  const char *face = hvp ? "backward_jvp" : "backward";
  mica_status status = need_z(a, face);
  if (status < 0 || a->B <= 0) return status;
  dz_place dz = find_dz(a, hvp);
  float   *partial = reinterpret_cast<float *>(static_cast<char *>(exec->scratch) + dz_bytes(a, dz));
  if (dz.own) dz.wire.data = exec->scratch;
  linear_rows_job rows = {};
  rows.tasks = a->B, rows.O = a->O, rows.R = product_size{ row_offsets(a), a->R, 1 }, rows.act = (int32_t)a->act;
  rows.dy = hvp ? a->y.td : a->y.d, rows.y_offsets = a->y.offsets;
  rows.out = hvp ? a->res.td : a->res.d, rows.out_offsets = a->res.offsets, rows.kind = ROWS_COPY;
  status = run_rows("linear residual", rows, exec->stream);
  if (status >= 0 && dz.made) {
    rows.kind = hvp ? ROWS_DZT : ROWS_DZ, rows.dy = a->y.d, rows.z = a->z.v, rows.z_offsets = a->z.offsets;
    if (hvp) rows.dyt = a->y.td, rows.zt = a->z.t;
    rows.out = dz.wire, rows.out_offsets = dz.offsets;
    status = run_rows("linear dz", rows, exec->stream);
    if (dz.own && status >= 0) {             /* z's own wire adds, or lies in slots */
      rows.out = hvp ? a->z.td : a->z.d, rows.out_offsets = a->z.offsets;
      status = run_rows("linear dz", rows, exec->stream);
    }
  }
  const mica_wire &xd = hvp ? a->x.td : a->x.d, &wd = hvp ? a->w.td : a->w.d;
  if (status >= 0 && xd.data) status = product_run(x_job(a, dz, hvp), exec->stream);
  for (int b_alone = 0; b_alone < 2 && status >= 0; b_alone++) {
    if (b_alone ? !b_apart(a, hvp) : !wd.data) continue;
    product_job job = w_job(a, dz, hvp, b_alone != 0);
    if (product_partial_floats(job)) job.partial = partial;
    status = product_run(job, exec->stream);
  }
  return status;
}

extern "C" mica_status micak_linear_forward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return product_run(down_job("linear forward", static_cast<const mica_linear_args *>(args), false), exec->stream);
}
extern "C" mica_status micak_linear_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  const mica_linear_args *a = static_cast<const mica_linear_args *>(args);
  mica_status             status = need_z(a, "jvp");
  return status < 0 ? status : product_run(down_job("linear jvp", a, true), exec->stream);
}
extern "C" mica_status micak_linear_backward_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return run_up(exec, static_cast<const mica_linear_args *>(args), false);
}
extern "C" mica_status micak_linear_backward_jvp_cuda(const mica_exec *exec, const void *args, int64_t, int64_t) {
  return run_up(exec, static_cast<const mica_linear_args *>(args), true);
}
