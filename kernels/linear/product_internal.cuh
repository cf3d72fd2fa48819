/* product_internal.cuh: the one product kernel behind linear and matmul on CUDA: what it is told, and how it walks.
 *
 *   out (M x N) of a task = sum over the terms s (1 or 2) of A_s (M x K) B_s (K x N)
 *
 * tasks whose outputs share a slot are summed in task order by the block of the first. `linear`: bias, activation and
 * residual follow, task by task. `span`: the terms run over the rows of all tasks of a slot group, which lie one after
 * another; long sums are cut into chunks of rows counted from the group's first, summed in order by a second launch,
 * so that their bits depend neither on the other groups of the launch nor on their number. */
#ifndef MICA_KERNELS_LINEAR_PRODUCT_INTERNAL_CUH
#define MICA_KERNELS_LINEAR_PRODUCT_INTERNAL_CUH

#include "common/cuda_tile.cuh"
#include "common/cuda_wire.cuh"
#include "linear/linear.h"

/* rows of a chunk: fewer where a result has but a few tiles, so that chunks fill the machine */
enum { PRODUCT_CHUNK_BITS = 9, PRODUCT_CHUNK_BITS_SMALL = 7, PRODUCT_SMALL = 64 * 64, PRODUCT_CHUNK_BLOCKS = 32 };

/* an operand: element (x, k) of a task at its place + x * x_stride + k * k_stride */
struct product_factor {
  mica_wire      wire;
  const int32_t *offsets;
  int64_t        x_stride, k_stride;
  int32_t        mode;
};
struct product_term {
  product_factor a, b;
};
/* a number of rows or columns that may differ from task to task */
struct product_size {
  const int32_t *offsets;                    /* or NULL */
  int64_t        longest, tasks;             /* tasks: of how many tasks in all (collapsed), else 1 */
};
struct product_linear {
  int32_t        act, tangent;
  mica_wire      bias, res, z, z_out;        /* of the value or of its tangent; z: the saved value (tangent only) */
  const int32_t *res_offsets, *z_offsets;
};
struct product_job {
  const char    *name;
  int64_t        tasks;
  product_size   M, N, K;
  product_term   term[2];
  int32_t        chunk_bits;                 /* span: 2^chunk_bits rows a chunk. it shows in the bits */
  int32_t        terms, span, is_linear, wide_out, sum_only; /* sum_only: `out` gives the groups alone */
  int32_t        tensor;                     /* fp32 on the tensor cores: may depend on a task's shape alone */
  mica_wire      out;
  const int32_t *out_offsets;
  int64_t        out_row, out_col;
  product_linear linear;
  mica_wire      sum;                        /* span: of A_0 over k, a vector of M; data NULL: not wanted */
  float         *partial;                    /* scratch of chunks, or NULL where no group can have two */
};

/* a matrix (rows, columns) of each task as an operand whose x are its rows, or its columns */
static inline product_factor product_factor_of(const mica_wire &w, const int32_t *offsets, int64_t columns,
                                               bool x_is_row) {
  const int64_t  each = w.dtype == MICA_BF16 ? 8 : 4;
  product_factor f = { w, offsets, w.stride[x_is_row ? 0 : 1], w.stride[x_is_row ? 1 : 0], TILE_X };
  const bool     wide = w.stride[1] == 1 && columns % each == 0 && w.stride[0] % each == 0 && columns > 0 &&
                    (offsets || w.task_stride % each == 0) && (uintptr_t)w.data % 16 == 0;
  const bool     along_row = w.stride[1] == 1 && (columns > 1 || w.stride[0] != 1);
  if (wide) f.mode = x_is_row ? TILE_WIDE_K : TILE_WIDE_X;
  else f.mode = along_row == x_is_row ? TILE_K : TILE_X;
  return f;
}
/* do the rows of all tasks lie one after another? (absent: yes) */
static inline bool product_in_a_row(const mica_wire &w, const int32_t *offsets, int64_t rows) {
  return !w.data || (!w.slot && (offsets || w.task_stride == rows * w.stride[0]));
}
static inline bool product_shared(const mica_wire &w) { return !w.data || (!w.slot && w.task_stride == 0); }

/* launch. operands all fp32, or all bf16 with fp32 sums; results of the output wires' types */
mica_status product_run_f32(const product_job &job, void *stream);
mica_status product_run_tf32(const product_job &job, void *stream);
mica_status product_run_reduce(const product_job &job, void *stream); /* then, where a group may have several chunks */
mica_status product_run_bf16(const product_job &job, void *stream);
static inline mica_status product_run(const product_job &job, void *stream) {
  int bf16 = 0, others = 0;
  for (int s = 0; s < job.terms; s++) {
    const mica_wire *w[] = { &job.term[s].a.wire, &job.term[s].b.wire };
    for (int i = 0; i < 2; i++)
      if (w[i]->data) (w[i]->dtype == MICA_BF16 ? bf16 : others)++;
  }
  if (bf16 && others)
    return mica_error(MICA_ERR_UNSUPPORTED, "%s on CUDA: factors of different types, expected all f32 or all bf16",
                      job.name);
  return bf16 ? product_run_bf16(job, stream) : product_run_f32(job, stream);
}
/* chunks of a group of so many rows */
static __host__ __device__ __forceinline__ int64_t product_chunks(const product_job &job, int64_t rows) {
  return rows <= 1 ? 1 : ((rows - 1) >> job.chunk_bits) + 1;
}
/* floats of scratch behind `partial` */
static inline int64_t product_partial_floats(const product_job &job) {
  if (!job.span) return 0;
  const bool alone = !job.out.slot && job.out.task_stride != 0;
  if (product_chunks(job, (alone ? 1 : job.tasks) * job.K.longest) == 1) return 0;
  int64_t buckets = product_chunks(job, job.tasks * job.K.longest);
  return 2 * buckets * (job.M.longest * job.N.longest + job.M.longest);
}

/* ---- device ---- */

static __device__ __forceinline__ int64_t product_count(const product_size &n, int64_t b) {
  return n.offsets ? n.offsets[b + n.tasks] - n.offsets[b] : n.longest;
}
template <class E>
static __device__ __forceinline__ const E *product_at(const product_factor &f, int64_t b) {
  int64_t place = wire_place(f.wire, f.offsets, b);
  return place < 0 ? NULL : static_cast<const E *>(f.wire.data) + place;
}

/* tasks [b, end) of b's slot group; a warp looks at 32 at a time */
static __device__ __forceinline__ int64_t product_group_end(const product_job &job, int64_t b) {
  if (!job.out.slot) return job.out_offsets || job.out.task_stride ? b + 1 : job.tasks;
  const int32_t slot = job.out.slot[b];
  for (int64_t at = b + 1;; at += 32) {
    int64_t  k = at + (threadIdx.x & 31);
    unsigned differ = __ballot_sync(0xffffffffu, k >= job.tasks || job.out.slot[k] != slot);
    if (differ) return at + __ffs(differ) - 1;
  }
}
/* where chunk c of the group that begins at task b lies in scratch: chunks begin a chunk's rows apart within a group, so
 * at most two that are not alone begin in one stretch of that length: a group's last and the next group's first */
static __device__ __forceinline__ int64_t product_partial_size(const product_job &job) {
  return job.M.longest * job.N.longest + job.M.longest;
}
static __device__ __forceinline__ float *product_partial(const product_job &job, int64_t b, int64_t c) {
  int64_t first = job.K.offsets ? job.K.offsets[b] - job.K.offsets[0] : b * job.K.longest;
  int64_t bucket = (first >> job.chunk_bits) + c;
  return job.partial + (2 * bucket + (c == 0)) * product_partial_size(job);
}

/* the steps of 16 (or more) terms of one tile: over the terms of a task or of a group's tasks */
template <class E, int TERMS>
struct product_walk {
  const product_job &job;
  int                b, end, k, k_end, chunk, s;
  const E           *a, *x;                  /* NULL: zeros */

  __device__ __forceinline__ product_walk(const product_job &job_, int b_, int end_, int chunk_)
      : job(job_), b(b_), end(end_), k(0), k_end(0), chunk(chunk_), s(-1), a(NULL), x(NULL) {}
  __device__ __forceinline__ bool open() {   /* the segment (b, s); false: nothing in it */
    a = product_at<E>(job.term[s].a, b);
    x = product_at<E>(job.term[s].b, b);
    if (job.span) {
      int64_t rows = job.K.offsets ? job.K.offsets[end] - job.K.offsets[b] : (int64_t)(end - b) * job.K.longest;
      k = chunk << job.chunk_bits;
      k_end = (int)(k + (1 << job.chunk_bits) < rows ? k + (1 << job.chunk_bits) : rows);
    } else {
      k = 0, k_end = (int)product_count(job.K, b);
    }
    return a && (x || (s == 0 && job.sum.data)) && k < k_end;
  }
  /* the next step, the first at first; false: no more */
  __device__ __forceinline__ bool next() {
    if ((k += TERMS) < k_end) return true;
    for (s++; b < end; s = 0, b = job.span ? end : b + 1)
      for (; s < job.terms; s++)
        if (open()) return true;
    return false;
  }
};

/* a port's wire within one task */
struct product_rows {
  const mica_wire &wire;
  int64_t          at;                       /* -1: zeros, or nowhere */
  bool             add;
  __device__ __forceinline__ product_rows(const mica_wire &w, const int32_t *offsets, int64_t b) : wire(w) {
    at = wire_place(w, offsets, b);
    add = (w.flags & MICA_ADD) || wire_follows(w, offsets, b);
  }
  __device__ __forceinline__ int64_t place(int64_t i, int64_t j) const {
    return at + i * wire.stride[0] + j * wire.stride[1];
  }
  __device__ __forceinline__ float get(int64_t i, int64_t j) const {
    return at < 0 ? 0.0f : wire_get(wire, place(i, j));
  }
};

#endif
