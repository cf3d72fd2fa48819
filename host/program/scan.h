/* scan.h (internal): a loop over the rows of an axis, as one entry of a program.
 *
 * the body is a program of its own, shared by all programs that took the entry. its operation descriptor has operands
 * but no kernels: activity, planning and binding read the operand table; micah_scan_run runs the faces step by step
 * with an executor of the body. */
#ifndef MICAH_PROGRAM_SCAN_H
#define MICAH_PROGRAM_SCAN_H

#include "program/inner.h"

enum { MICAH_STEP, MICAH_OUTER, MICAH_CARRY, MICAH_ROW, MICAH_LAST, MICAH_CHECKPOINT };

typedef struct micah_scan_operand {
  int32_t kind, carry;         /* of CARRY, LAST and CHECKPOINT: which carry */
  int32_t value;               /* in the body: input or parameter, or output */
} micah_scan_operand;

typedef struct micah_scan {
  mica_program       *body;
  mica_op             op;
  micah_scan_operand *operands;
  mica_value         *carry_in, *carry_out;  /* [n_carry] in the body */
  int64_t            *count;                 /* [n_carry] elements */
  int32_t             n_carry;
} micah_scan;

/* argument struct of a scan: sizes, then one port an operand */
typedef struct micah_scan_args {
  size_t    size;
  int64_t   B, T;
  mica_port ports[];
} micah_scan_args;

/* steps between checkpoints of the carry, and checkpoints that are kept, of a loop of `longest` steps */
int64_t micah_scan_stride(int64_t longest);
int64_t micah_scan_checkpoints(int64_t longest);

/* the entry's executor of the body and the carries' memory; see inner.h */
mica_status micah_scan_create(mica_executor *x, int32_t entry);
void        micah_scan_destroy(void *state);
int64_t     micah_scan_bytes(const void *state);
mica_status micah_scan_run(mica_executor *x, int32_t entry, int face);

#endif
