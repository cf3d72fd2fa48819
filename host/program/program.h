/* program.h (internal): what a program is made of. built by build.c, entry.c, call.c, scan.c; read-only once sealed. */
#ifndef MICAH_PROGRAM_H
#define MICAH_PROGRAM_H

#include <stdatomic.h>

#include "mica/program.h"
#include "program/region.h"

enum { MICAH_RANK = MICA_MAX_RANK - 1 }; /* dims after the task axis */

typedef struct micah_axis {
  char   *name;
  int32_t parent;
} micah_axis;

/* a value lives in the rows of its root: elements [start, start + count) of each row of root->axis. only views have
 * another root than themselves, so every value is contiguous within a row. */
typedef struct micah_value {
  char     *name;
  int32_t   dtype;             /* MICA_F32 follows the compute type; or an integer type */
  int32_t   kind, axis, rank, root;
  int64_t   shape[MICAH_RANK], count, start;
  int64_t   offset;            /* params: in the parameter block */
  mica_init init;
  int32_t   decay;
  double    fill;              /* constants */
  int32_t   entry, operand;    /* who writes it; -1: outside */
  int32_t   call;              /* the call whose results mica_program_port finds; -1: none */
  int32_t   saved;             /* a saved operand: no reader but its own entry */
  int32_t   scan_axis;         /* checkpoints of a loop over this axis: so many rows a task; else -1 */
} micah_value;

enum { MICAH_DIM_AXIS = -1, MICAH_DIM_INSERTED = -2 };

/* an operand's value, and for each dim of the port after the task axis the row dim of the value that it is */
typedef struct micah_bind {
  int32_t value;               /* -1: absent */
  int32_t rank;
  int8_t  dim[MICAH_RANK];
} micah_bind;

struct micah_inner;

typedef struct micah_entry {
  char              *path, *settings;
  const mica_op     *op;
  void              *args;     /* settings and sizes; sizes of axes are filled in by the executor */
  int32_t            level;    /* the axis whose rows are this entry's tasks */
  int32_t           *dim_axis; /* [n_dims] axis of each size, or MICA_NO_AXIS */
  micah_bind        *binds;    /* [n_operands] */
  int32_t            row_dim;  /* the op dim that counts rows, -1: none; the row space is the rows of row_axis, */
  int32_t            row_axis; /* or row_count rows for each row of row_axis (the level) */
  int64_t            row_count;
  const struct micah_inner *inner; /* runs programs of its own: op has operands but no kernels */
  void              *own;      /* what `inner` needs, shared by all programs that took the entry */
} micah_entry;

typedef struct micah_output {
  char   *name;
  int32_t value;
} micah_output;

/* results of a call, by name */
typedef struct micah_call {
  char         *path;
  micah_output *outputs;
  int32_t       n_outputs;
} micah_call;

struct mica_program {
  mica_context *context;
  micah_region  region;
  atomic_int    refs;          /* holders: the caller, and entries whose loop body this is */
  char         *name;
  mica_status   status;        /* first failure */
  char          message[1024];
  int32_t       sealed, phase;
  int32_t       level;         /* of the entries that are being appended */
  micah_axis   *axes;
  micah_value  *values;
  micah_entry  *entries;
  micah_output *outputs;
  micah_call   *calls;
  int32_t      *params, *inputs;
  int32_t       n_axes, n_values, n_entries, n_outputs, n_calls, n_params, n_inputs;
  int32_t       c_axes, c_values, c_entries, c_outputs, c_calls, c_params, c_inputs;
  int64_t       param_count;
  uint8_t      *live;          /* [n_entries] reaches an output (seal) */
  const struct micah_mlp_step *mlp; /* a step of gradient descent on a small network (adapt/fused.h); NULL: no */
};

/* record the first failure and return it; the program stays poisoned. */
mica_status micah_fail(mica_program *program, mica_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* the failure of the call that just set this thread's message */
mica_status micah_fail_last(mica_program *program, mica_status status);

/* append a value or entry; returns its index or a negative status. */
mica_value micah_add_value(mica_program *program, const micah_value *value);
int32_t    micah_add_entry(mica_program *program, const micah_entry *entry);
int        micah_valid(const mica_program *program, mica_value value);
int64_t    micah_count(int32_t rank, const int64_t *shape); /* -1: overflow or a size < 1 */

/* "(B, token, 256)" */
void micah_shape_text(const mica_program *program, const micah_value *value, char *text, size_t size);
/* "(B, R, 256)": sizes known so far, in an entry that is being built */
void micah_port_text(const mica_program *program, const micah_entry *entry, const mica_operand *operand, char *text,
                     size_t size);

/* is axis a below (or equal to) axis b? everything is below MICA_NO_AXIS. */
int     micah_below(const mica_program *program, int32_t a, int32_t b);
/* the deepest axis that is above or equal to both */
int32_t micah_common(const mica_program *program, int32_t a, int32_t b);
/* does a port of a level see rows of this axis as its first dim? */
int     micah_sees_rows(const mica_program *program, int32_t level, int32_t axis);

/* dims of a port after the task axis: index into op->dims, or -1 and the literal size. returns the rank. */
int micah_port_dims(const mica_op *op, const mica_operand *operand, int32_t dim[MICAH_RANK], int64_t size[MICAH_RANK]);

/* unify the sizes of an entry's bound operands, complete the rest by infer(). */
mica_status micah_unify(mica_program *program, micah_entry *entry);
/* a copy of a value with dense rows of its own, by an operation under this path */
mica_value  micah_copy_value(mica_program *program, const char *path, mica_value value);
/* give a port a copy when another differentiable port of the entry is bound to the same memory. */
mica_status micah_part_ports(mica_program *program, micah_entry *entry);
/* make values for the outputs and saved operands of a unified entry, which will get this index; first output. */
mica_value  micah_make_outputs(mica_program *program, micah_entry *entry, int32_t index);

#endif
