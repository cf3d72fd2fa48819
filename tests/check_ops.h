/* check_ops.h: the generic driver of all operations. it reads tables only: no test code of any operation lives here.
 *
 * a case is an operation with sizes and settings. data are doubles, one dense array (B, elements) for each wire of each
 * operand. a run puts them into fenced buffers in some layout, runs one face of one kernel and reads the result back. */
#ifndef MICA_TESTS_CHECK_OPS_H
#define MICA_TESTS_CHECK_OPS_H

#include "common/cases.h"
#include "common/op.h"
#include "device/context.h"

enum { CK_MAX = 24, CK_V = 0, CK_D, CK_T, CK_TD, CK_WIRES }; /* wire index w has bit 1 << w */
#define CK_BIT(w) (1 << (w))

typedef struct ck_operand {
  int      rank, present, packed;            /* packed: has offsets in this case */
  int64_t  n[MICA_MAX_RANK], elems;          /* shape; elements of a task at the longest */
  int32_t *offsets;                          /* (B+1) */
} ck_operand;

typedef struct ck_case {
  const mica_op *op;
  char           text[320];
  void          *args;                       /* sizes and settings; ports are empty */
  int64_t        B;
  int            packed;
  ck_operand     o[CK_MAX];
} ck_case;

typedef struct ck_data { double *x[CK_MAX][CK_WIRES]; } ck_data;

/* how a wire lies in memory */
enum {
  CK_DENSE, CK_SLOTS,                        /* no slot vector; the same said by slots */
  CK_SHARED, CK_GROUPED, CK_LONG,            /* task_stride 0; neighbours share a slot; all but the first do */
  CK_MINUS, CK_INACTIVE,                     /* some slots are -1; the same task on every wire */
  CK_PERMUTED, CK_REPEATED,                  /* slots backwards; equal slots apart (reads only) */
  CK_PADDED, CK_INNER, CK_BROADCAST,         /* gaps between rows; gaps between elements; row stride 0 (reads only) */
  CK_KINDS
};
typedef struct ck_layout {
  const char *name;
  uint8_t     kind[CK_MAX][CK_WIRES], add[CK_MAX][CK_WIRES], null[CK_MAX][CK_WIRES];
} ck_layout;

typedef struct ck_target { int backend, dtype, isa; } ck_target;

typedef struct ck_how {
  ck_target        target;
  int              face;
  const ck_layout *layout;                   /* NULL: dense */
  mica_context    *context;
  int64_t          range;                    /* units a call; 0: the kernel's grain */
  int64_t          row_first, row_count;     /* row_count > 0: only the first phase, only these units, other rows poisoned */
  int              index_dtype;              /* of index ports; 0: the usual one */
} ck_how;

typedef struct ck_options {
  const char *op, *golden;
  int         only_case, backend, isa, face, verbose, quick, brief, slow, to_stderr, stop;
  int         half;                          /* for now, kernels in bf16 alone */
  uint64_t    seed;
} ck_options;
extern ck_options ck_option;

/* contexts that differ in what must not matter: order and number of threads. scratch starts as NaN in all. */
enum { CK_SERIAL, CK_BACKWARDS, CK_THREADS, CK_CONTEXTS };
extern mica_context *ck_context[CK_CONTEXTS];

/* ---- results ---- */
extern long ck_passed, ck_failed;
void ck_where(const char *format, ...) __attribute__((format(printf, 1, 2)));      /* what is being checked */
int  ck_check(int ok, const char *format, ...) __attribute__((format(printf, 2, 3))); /* returns ok */
void ck_note(const char *format, ...) __attribute__((format(printf, 1, 2)));       /* --verbose only */
const char *ck_wire_name(const ck_case *c, int o, int w);                          /* "x.td" */
const char *ck_target_name(ck_target t);                                           /* "cpu avx2 f32" */

/* ---- data ---- */
typedef struct ck_sizes {
  int64_t tasks, rows;                       /* 0: as the case says */
  int     packed;                            /* ragged rows; 2: of awkward lengths */
  int64_t alone;                             /* 1 + b: the sizes that task b has among ragged ones, not packed */
} ck_sizes;
mica_status ck_case_make(const mica_op *op, const char *set, ck_sizes sizes, ck_case *c);
void        ck_case_free(ck_case *c);
int         ck_row_axis(const ck_case *c, int o);      /* is the axis after the task axis one of rows? */
int64_t     ck_rows(const ck_case *c, int o, int64_t b);
int64_t     ck_elems(const ck_case *c, int o, int64_t b); /* elements that task b has */
double     *ck_at(const ck_case *c, ck_data *d, int o, int w); /* array of a wire, zeros when new */
void        ck_fill(const ck_case *c, ck_data *d, uint64_t salt); /* inputs, tangents and output cotangents */
void        ck_round(const ck_case *c, ck_data *d, int dtype);
void        ck_copy(const ck_case *c, const ck_data *from, ck_data *to);
void        ck_copy_task(const ck_case *from, const ck_data *d, int64_t b, const ck_case *to, ck_data *out, int64_t at);
void        ck_free(ck_data *d);
uint64_t    ck_hash(uint64_t a, uint64_t b);
double      ck_uniform(uint64_t h);                    /* [0, 1) */

/* ---- runs ---- */
int  ck_access(const ck_case *c, int face, int o, int w);  /* 1 read, 2 written, 0 neither */
int  ck_kind(const ck_case *c, int face, const ck_layout *l, int o, int w); /* the layout that is legal there */
void ck_slots(const ck_case *c, int kind, int o, int32_t *slot, int *used);
/* what a face would read: slots, sharing and broadcasting applied to the arrays in place. face -1: primary wires only */
void ck_expand(const ck_case *c, int face, const ck_layout *l, ck_data *d);
/* run one face; out gets the written wires, start (may be NULL) what the add flag added to. checks that inputs, guards
 * and gaps are intact and that every output is written. */
mica_status ck_run(const ck_case *c, const ck_how *how, const ck_data *in, ck_data *out, ck_data *start);
/* the bytes of a wire's buffer, guards included, as the host has them */
typedef struct ck_span {
  void  *memory;                             /* NULL: the wire is absent */
  size_t bytes;
} ck_span;
/* run one face on a CUDA device with copies of all that args point to; spans hold what it left there */
mica_status ck_device_run(const ck_how *how, const ck_case *c, void *args, ck_span *spans);
/* forward, jvp, backward, backward_jvp in turn, results into d: faces is a mask of 1 << MICA_* */
mica_status ck_chain(const ck_case *c, ck_target target, int faces, ck_data *d);

/* ---- checks ---- */
#define CK_F64 ((ck_target){ MICA_REF, MICA_F64, 0 })
int  ck_targets(const mica_op *op, ck_target *list, int room); /* distinct kernels but the oracle */
void ck_check_examples(const mica_op *op);
void ck_check_golden(const mica_op *op);
void ck_check_identities(const ck_case *c, const ck_data *d);
void ck_check_kernels(const ck_case *c, const ck_data *d);
void ck_check_packed(const mica_op *op, const char *set);
void ck_check_batches(const mica_op *op, const char *set);
void ck_check_bench(const mica_op *op, const char *set);
void ck_check_lengths(const mica_op *op, const mica_case *k);
void ck_check_half(const mica_op *op, const mica_case *k);
void ck_check_same(const mica_op *op, const char *before, const char *set);
void ck_check_cut(const mica_op *op, const char *set);

/* all checks of one operation (case -1: all, -2: given values only); returns the number that failed */
long ck_check_op(const mica_op *op, int only_case);

/* one error budget: naive float error (and the effect of inputs moved by half an ulp) on each wire */
typedef struct ck_yard {
  ck_data want;
  double  naive[CK_MAX][CK_WIRES], scale[CK_MAX][CK_WIRES];
  int     refined;
} ck_yard;
mica_status ck_yard_make(const ck_case *c, int face, const ck_layout *l, const ck_data *seen, int dtype, ck_yard *y);
void        ck_yard_free(ck_yard *y);
void        ck_yard_compare(const ck_case *c, int face, const ck_layout *l, const ck_data *seen, const ck_data *got, int dtype,
                            ck_yard *y);

int  ck_start(const ck_options *options);  /* contexts; 0 on success */
void ck_stop(void);

#endif
