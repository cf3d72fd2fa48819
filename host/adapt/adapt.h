/* adapt.h (internal): the entry of an inner loop. entry.c builds it, loop.c runs it; implicit.c and forward.c have the
 * sweeps back that do not go through the steps. */
#ifndef MICAH_ADAPT_H
#define MICAH_ADAPT_H

#include <stdatomic.h>

#include "mica/adapt.h"
#include "program/inner.h"

enum { MICAH_ADAPT_OUTER, MICAH_ADAPT_STEPPED, MICAH_ADAPT_CARRY, MICAH_ADAPT_ROW, MICAH_ADAPT_LAST, MICAH_ADAPT_KEPT };

/* an operand: a port of the step program, or what is kept */
typedef struct micah_adapt_operand {
  int32_t kind, carry;           /* of CARRY, LAST, KEPT: which carry */
  int32_t value;                 /* in the step program */
  int64_t count;                 /* elements of a row in the step program */
  int32_t optimality;            /* the value of the optimality program, -1: it has none */
} micah_adapt_operand;

typedef struct micah_adapt_carry {
  int32_t in, last, kept;        /* operands */
  int64_t count;
  int32_t residual;              /* output of the optimality program, -1: not adapted to a solution */
} micah_adapt_carry;

/* shared by the programs that took the entry */
typedef struct micah_adapt {
  micah_region         region;
  atomic_int           refs;
  mica_program        *step, *optimality; /* optimality NULL: none */
  mica_adapt_options   options;
  mica_op              op;
  micah_adapt_operand *operands;
  micah_adapt_carry   *carry;
  int32_t              n_carry;
} micah_adapt;

/* theta_k that are kept between forward and backward: theta_stride, theta_2stride, ... below `steps` */
static inline int64_t micah_adapt_stride(const mica_adapt_options *o) {
  int64_t root = 1;
  while (root * root < o->steps) root++;
  return o->checkpoints ? root : 1;
}
static inline int64_t micah_adapt_kept(const mica_adapt_options *o) {
  int sweeps = o->method == MICA_ADAPT_UNROLLED || o->method == MICA_ADAPT_TRUNCATED;
  return sweeps ? (o->steps - 1) / micah_adapt_stride(o) : 0;
}

struct micah_adapt_solve;

typedef struct micah_adapt_state {
  mica_executor  *step;
  char           *saved;         /* activations of the steps that are gone back through; NULL: not kept */
  int64_t         saved_bytes;   /* of one */
  char          **ring;          /* [carry][2]: down: theta_k of even and odd k that are not kept; back: cotangents */
  char          **stretch;       /* [carry]: theta_k between two kept ones, when they are stepped through again */
  mica_wire      *shown;         /* [carry]: what a data callback sees */
  int64_t         bytes;
  struct micah_adapt_solve   *solve;   /* implicit */
  struct micah_adapt_tangent *tangent; /* forward */
  struct micah_adapt_trial   *trial;   /* zero order */
  struct micah_adapt_fused   *fused;   /* the whole loop in one kernel; then there is no `step` */
} micah_adapt_state;

/* one face at work */
typedef struct micah_adapt_run {
  mica_executor     *x;
  int32_t            entry;
  const micah_adapt *a;
  micah_adapt_state *s;
  const void        *args;
} micah_adapt_run;

extern const micah_inner micah_adapt_inner;

/* loop.c */
mica_status micah_adapt_create(mica_executor *x, int32_t entry);
void        micah_adapt_destroy(void *state);
int64_t     micah_adapt_bytes(const void *state);
mica_status micah_adapt_face(mica_executor *x, int32_t entry, int face);
int         micah_adapt_on_device(const void *state); /* fused.c */
/* a port's wire shifted by some elements, as the step program's value sees it */
mica_wire   micah_adapt_wire(const micah_adapt_run *r, int operand, int bit, int64_t shift);
/* set a cotangent that nothing is written to to zero, `parts` parts of `count` elements from `first` on in each task */
mica_status micah_adapt_clear(const micah_adapt_run *r, int operand, int64_t first, int64_t parts);

/* implicit.c */
mica_status micah_adapt_solve_create(mica_executor *x, int32_t entry, micah_adapt_state *s);
void        micah_adapt_solve_destroy(micah_adapt_state *s);
int64_t     micah_adapt_solve_bytes(const micah_adapt_state *s);
mica_status micah_adapt_solve_back(const micah_adapt_run *r);

/* forward.c */
mica_status micah_adapt_tangent_create(mica_executor *x, int32_t entry, micah_adapt_state *s);
mica_status micah_adapt_tangent_back(const micah_adapt_run *r);

/* zero_order.c */
mica_status micah_adapt_trial_create(mica_executor *x, int32_t entry, micah_adapt_state *s);
mica_status micah_adapt_trial_back(const micah_adapt_run *r);

#endif
