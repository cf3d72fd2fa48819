/* op.h: ports, operations and their four faces.
 *
 * an operation y = f(x; w) has four faces: forward, backward, jvp, backward_jvp. every operand is a port with four
 * wires: v value, d cotangent dL/dv, t tangent, td tangent of the cotangent. on a wire that a face reads, data == NULL
 * means zero; on one that it writes, NULL means not wanted. */
#ifndef MICA_OP_H
#define MICA_OP_H

#include "mica/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- element types ---- */
enum { MICA_F32, MICA_F64, MICA_BF16, MICA_I32, MICA_I64, MICA_U8, MICA_NDTYPE };
MICA_API size_t      mica_dtype_size(int dtype);  /* bytes; 0 if unknown */
MICA_API const char *mica_dtype_name(int dtype);  /* "f32" ...; "?" if unknown */
MICA_API int         mica_dtype_parse(const char *name); /* case-blind; -1 if unknown */

enum { MICA_FORWARD, MICA_BACKWARD, MICA_JVP, MICA_BACKWARD_JVP, MICA_NFACE };
/* fused slots of the kernel table: a face and its tangent in one kernel, optional, the bits of one after the other */
enum { MICA_FORWARD_WITH_JVP = MICA_NFACE, MICA_BACKWARD_WITH_JVP, MICA_NSLOT };
enum { MICA_REF, MICA_CPU, MICA_CUDA, MICA_NBACKEND };
enum { MICA_V = 1, MICA_D = 2, MICA_T = 4, MICA_TD = 8 }; /* wire bits */

MICA_API const char *mica_face_name(int face);       /* "forward" ... "backward+backward_jvp"; "?" if unknown */
MICA_API const char *mica_backend_name(int backend); /* "ref" ...; "?" if unknown */

/* ---- wires and ports ---- */
enum { MICA_MAX_RANK = 5 };                  /* axes of a port, the task axis included */
enum { MICA_ADD = 1 };                       /* wire flag: add to what is there; without it, overwrite */

/* element (b, i0, i1, ...) of a wire is at
 *   data + task(b) + i0 stride[0] + i1 stride[1] + ...        (elements)
 * where, with s = slot ? slot[b] : b,
 *   task(b) = port.offsets ? offsets[s] * stride[0] : s * task_stride
 * s == -1 reads zeros and writes nothing. an output wire sums the tasks of equal s (always adjacent) in task order;
 * task_stride 0 without slot (and without offsets) is one slot for all tasks: shared when read, summed when written. */
typedef struct mica_wire {
  void          *data;
  const int32_t *slot;                       /* (B) device data, or NULL: slot[b] = b */
  int64_t        task_stride;                /* 0: shared */
  int64_t        stride[MICA_MAX_RANK - 1];  /* of the axes after the task axis; 0 broadcasts a read axis */
  int32_t        dtype;
  uint32_t       flags;                      /* MICA_ADD */
} mica_wire;

/* packed rows: with offsets, task b has rows offsets[b+1] - offsets[b] of the first axis after the task axis (the size
 * in the arguments is then the longest), stored one task after another. tasks that share a slot have equal lengths. */
typedef struct mica_port {
  mica_wire      v, d, t, td;
  const int32_t *offsets;                    /* (B+1) or NULL: all tasks have the same number of rows */
} mica_port;

/* ---- execution ---- */
enum { MICA_ISA_PORTABLE, MICA_ISA_AVX2, MICA_ISA_AVX512 };
typedef struct mica_exec {
  size_t  size;                              /* sizeof(mica_exec) */
  void   *stream;                            /* CUDA stream; NULL on the CPU */
  void   *scratch;                           /* at least what split asked for, 64-byte aligned, private to this call */
  size_t  scratch_bytes;
  int32_t isa;                               /* best MICA_ISA_* this machine may use */
  int32_t device;
} mica_exec;

/* how a kernel may be cut into independent pieces, for given arguments. */
typedef struct mica_split {
  int64_t units;                             /* units to run; any cut of [0, units) into calls gives the same bits */
  int64_t grain;                             /* least sensible number of units a call (>= 1) */
  size_t  scratch_bytes;                     /* for each call that runs at the same time */
  int32_t rows;                              /* 1: unit n is row n (task-major; packed row n), touching no other row */
} mica_split;

/* runs units [first, first + count). CPU faces contain no threading. CUDA faces get all units at once. */
typedef mica_status (*mica_kernel_fn)(const mica_exec *exec, const void *args, int64_t first, int64_t count);
typedef void (*mica_split_fn)(const void *args, mica_split *split);

/* one kernel. several entries of equal (backend, dtype, face) are phases, run in order with a barrier between them. */
typedef struct mica_kernel {
  int8_t         backend, dtype, face;
  mica_kernel_fn run;
  mica_split_fn  split;                      /* NULL: one unit, no scratch */
} mica_kernel;

/* ---- operand table ---- */
enum {
  MICA_IN       = 1,                         /* differentiable input (unless MICA_INDEX) */
  MICA_OUT      = 2,
  MICA_SAVED    = 4,                         /* kept from forward/jvp/backward for later faces */
  MICA_INDEX    = 8,                         /* integer type, has only v */
  MICA_OPTIONAL = 16,                        /* port may be absent: v.data == NULL */
  MICA_PARAM    = 32,                        /* usually shared: cotangent is fp32 or wider whatever the compute */
  MICA_STOPPED  = 64                         /* derivatives are zero by definition, whatever the value does */
};

/* what the generic checks fill an operand with */
enum {
  MICA_ANY,                                  /* uniform in [-1, 1] */
  MICA_POSITIVE,                             /* [0.5, 2] */
  MICA_AWAY0,                                /* 0.1 <= |x| <= 1 */
  MICA_UNIT,                                 /* [0.05, 0.95] */
  MICA_SIMPLEX,                              /* last axis positive, sums to 1 */
  MICA_MASK,                                 /* index: 0 or 1 */
  MICA_RANGE                                 /* index: 0 <= i < the dim named in `range` */
};

typedef struct mica_operand {
  const char *name;                          /* "x" */
  const char *shape;                         /* dim names, task axis first: "B T C" */
  size_t      offset;                        /* of the mica_port in the argument struct */
  uint32_t    role;
  uint8_t     reads[MICA_NFACE];             /* wire bits read by each face, by index MICA_FORWARD ... */
  uint8_t     writes[MICA_NFACE];            /* wire bits written */
  uint8_t     domain;
  const char *range;                         /* dim name for MICA_RANGE */
  const char *doc;
} mica_operand;

/* a named size in the argument struct (int64_t). */
typedef struct mica_dim {
  const char *name;
  size_t      offset;
} mica_dim;

/* a scalar setting in the argument struct. */
enum { MICA_PARAM_INT, MICA_PARAM_REAL, MICA_PARAM_CHOICE }; /* int64_t, double, int64_t index into choices */
typedef struct mica_param {
  const char *name;
  int32_t     type;
  size_t      offset;
  double      value;                         /* default (choice: index) */
  double      lo, hi;                        /* allowed range, inclusive */
  const char *choices;                       /* "causal|full" */
  const char *doc;
} mica_param;

enum { MICA_CASE_BENCH = 1, MICA_CASE_SLOW = 2, MICA_CASE_PACKED = 4, MICA_CASE_SAME = 8 };
typedef struct mica_case {
  const char *set;                           /* "B=2 T=7 C=33 eps=1e-5 b=none": dims, settings, absent operands */
  uint32_t    flags;                         /* PACKED: also run with ragged rows of at most the row size; SAME: other
                                                settings of the case before: the same results in exact arithmetic */
} mica_case;

/* worked example by hand: wires given and expected, dense layout, row-major; NaN-free. */
typedef struct mica_example_wire {
  const char   *wire;                        /* "x.v" */
  const double *value;
  int64_t       count;
  int32_t       expected;                    /* 0 given, 1 expected */
} mica_example_wire;
typedef struct mica_example {
  const char              *set;
  const mica_example_wire *wires;
  int32_t                  n_wires;
} mica_example;

typedef struct mica_op {
  size_t              size;                  /* sizeof(mica_op) */
  const char         *name, *doc;
  size_t              args_size;             /* argument struct; begins with size_t size */
  const mica_dim     *dims;
  const mica_param   *params;
  const mica_operand *operands;
  const mica_kernel  *kernels;
  const mica_case    *cases;
  const mica_example *example;
  int32_t             n_dims, n_params, n_operands, n_kernels, n_cases;
  double              budget;                /* kernel error <= budget x naive float error + 4 ulp of scale */
  /* completes sizes that follow from others (-1 = unknown) and checks the rest; NULL: nothing to do */
  mica_status       (*infer)(void *args);
  /* flop and bytes moved by one face, for % of peak */
  void              (*cost)(const void *args, int face, double *flop, double *bytes);
} mica_op;

#define MICA_COUNT(a) ((int32_t)(sizeof(a) / sizeof((a)[0])))

/* initialise an argument struct: sizes -1, settings at their defaults, ports empty. */
MICA_API mica_status mica_args_init(const mica_op *op, void *args);

/* apply "name=value name=value ..." to sizes and settings; unknown names are errors that name the nearest. */
MICA_API mica_status mica_args_set(const mica_op *op, void *args, const char *settings);

/* shape of an operand, task axis first; returns the rank. */
MICA_API int mica_operand_shape(const mica_op *op, const mica_operand *operand, const void *args,
                                int64_t shape[MICA_MAX_RANK]);

/* lay out a wire densely, row-major, for the operand's shape; `shared`: one copy for all tasks. */
MICA_API void mica_wire_dense(const mica_op *op, const mica_operand *operand, const void *args, int dtype, int shared,
                              void *data, mica_wire *wire);

/* check sizes, dtypes, strides and nullability of an argument struct before a face runs. */
MICA_API mica_status mica_args_check(const mica_op *op, const void *args, int face);

/* kernels of (backend, dtype, face): first phase and number of phases; MICA_ERR_UNSUPPORTED names what is missing. */
MICA_API mica_status mica_op_kernels(const mica_op *op, int backend, int dtype, int face, const mica_kernel **first,
                                     int32_t *count);

#ifdef __cplusplus
}
#endif
#endif
