/* inner.h (internal): entries that run programs of their own: a loop (scan), a gradient (grad), an inner loop (adapt).
 *
 * such an entry's operation descriptor has operands but no kernels: activity, planning and binding read the operand
 * table, and the faces are functions over executors that the entry's state holds. */
#ifndef MICAH_PROGRAM_INNER_H
#define MICAH_PROGRAM_INNER_H

#include "program/call.h"
#include "program/executor.h"

typedef struct micah_inner {
  /* make x->inner[entry]: what running takes. argument structs are bound as at capacity. */
  mica_status (*create)(mica_executor *x, int32_t entry);
  void        (*destroy)(void *state);
  int64_t     (*bytes)(const void *state);
  mica_status (*run)(mica_executor *x, int32_t entry, int face);
  /* append the entry to a program that calls the one it is in; n binds by port name */
  mica_value  (*again)(micah_replay *replay, const micah_entry *entry, const char *path, int32_t n,
                       const mica_bind *binds);
  void        (*release)(void *own);
  /* NULL, or: before the executor has memory, take entries that follow into this one by giving x->program a copy with
   * another list, over the same values */
  mica_status (*absorb)(mica_executor *x, int32_t entry);
  /* NULL, or: does it read slots and offsets on the device, as kernels do? else it hands them on as they are */
  int         (*on_device)(const void *state);
} micah_inner;

void    micah_inner_destroy(mica_executor *x);
int64_t micah_inner_bytes(const mica_executor *x);

/* append an entry whose sizes after the task axis are the lengths of these axes [op->n_dims - 1]; first output */
mica_value micah_add_inner(mica_program *program, const char *path, const micah_inner *inner, void *own,
                           const mica_op *op, const int32_t *axes, int32_t n, const mica_bind *binds);
/* every output of the last entry by name: the value that stands for all of them */
mica_value micah_inner_results(mica_program *program, const char *path);

/* "B T 4 5"; axis NULL: without rows */
char *micah_port_shape(micah_region *region, const char *axis, int32_t rank, const int64_t *shape);

/* ---- for entries over a subprogram's inputs and parameters, with all of its axes (grad, adapt) ---- */

enum { MICAH_INNER_DIMS = 9 };

/* their argument struct: sizes (B, then the length of each axis of the subprogram), then one port an operand */
typedef struct micah_inner_args {
  size_t    size;
  int64_t   dim[MICAH_INNER_DIMS];
  mica_port ports[];
} micah_inner_args;

static inline mica_port *micah_inner_port(const void *args, int operand) {
  return &((micah_inner_args *)(uintptr_t)args)->ports[operand];
}

/* the descriptor's dims, for n_axes axes; NULL: too many, the message is set */
const mica_dim *micah_inner_dims(const mica_program *sub);
/* fill an operand that stands for a value of the subprogram, with its rows; `lead` > 0: a dim of this size in front */
mica_status micah_inner_operand(micah_region *region, const mica_program *sub, mica_value value, const char *name,
                                uint32_t role, int64_t lead, int index, mica_operand *out);
/* an executor of the subprogram for the tasks that the entry has at most; axes as the entry's dims */
mica_status micah_inner_executor(mica_executor *x, int32_t entry, const mica_program *sub,
                                 const mica_executor_options *options, mica_executor **out);
/* the entry's present tasks and lengths */
mica_status micah_inner_sizes(mica_executor *x, int32_t entry, mica_executor *inner);
/* give inputs of the subprogram whose rows are narrow slices of others a copy: it sees them as dense rows */
mica_status micah_inner_dense(micah_replay *replay);
/* bind a port's wire to the same or another wire of a value of the subprogram */
mica_status micah_inner_bind(mica_executor *inner, mica_value value, int bit, const mica_wire *wire, uint32_t flags);
/* set a port's cotangent that nothing is written to to zero, unless it adds: `count` elements of each row; over the
 * rows of the subprogram's axis, or (axis < 0) parts [first, first + parts) of that size */
mica_status micah_inner_clear(mica_executor *x, int32_t entry, int operand, int64_t count, int32_t axis, int64_t first,
                              int64_t parts);

#endif
