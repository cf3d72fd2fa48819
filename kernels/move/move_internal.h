/* move_internal.h: which rows an output wire has and where they come from; shared by the kernels and their splits. */
#ifndef MICAK_MOVE_INTERNAL_H
#define MICAK_MOVE_INTERNAL_H

#include "common/rows.h"
#include "move/move.h"

enum { MOVE_ROW, MOVE_COLUMN };
enum { MOVE_BLOCK = 64 };                    /* columns of a unit of scatter_add */

/* the wire of a port that a face reads or writes: v, d, t, td by face */
static inline const mica_wire *move_wire(const mica_port *port, int face) {
  const mica_wire *wire[MICA_NFACE] = { &port->v, &port->d, &port->t, &port->td };
  return wire[face];
}
static inline int move_up(int face) { return face == MICA_BACKWARD || face == MICA_BACKWARD_JVP; }

/* an output, row by row from its sources */
typedef struct move_job {
  const void    *args;
  const mica_port *port;                     /* of the output */
  const mica_wire *out;
  int64_t        B, rows, cols;
  int            face, local;                /* local: row n comes from row n of the other ports */
} move_job;

static inline int move_sums(const move_job *job) { return micak_wire_sums(job->out, job->port->offsets, job->B); }

static inline void move_split(const move_job *job, mica_split *split) {
  *split = (mica_split){ .grain = 1 };
  if (!job->out->data) return;
  micak_split_rows(job->port->offsets, job->B, job->rows, move_sums(job), job->cols, split);
  split->rows = split->rows && job->local;
}

/* output k of a face of concat: y, or a (0) and b (1) */
static inline move_job concat_job(const mica_concat_args *a, int face, int k) {
  const mica_port *port = !move_up(face) ? &a->y : k ? &a->b : &a->a;
  return (move_job){ a, port, move_wire(port, face), a->B, !move_up(face) ? a->R : k ? a->Rb : a->Ra,
                     !move_up(face) ? a->C : k ? a->Cb : a->Ca, face, a->axis == MOVE_COLUMN };
}
/* may a unit be a row of both cotangents? else b's units follow a's */
static inline int concat_together(const move_job job[2], const mica_split split[2]) {
  if (!job[0].local || !job[0].out->data || !job[1].out->data) return 0;
  return split[0].rows && split[1].rows && split[0].units == split[1].units;
}
static inline move_job slice_job(const mica_slice_args *a, int face) {
  int up = move_up(face);
  const mica_port *port = up ? &a->x : &a->y;
  return (move_job){ a, port, move_wire(port, face), a->B, up ? a->R : a->Ry, up ? a->C : a->Cy, face,
                     a->row == 0 && a->step == 1 && a->R == a->Ry };
}
static inline move_job transpose_job(const mica_transpose_args *a, int face) {
  int up = move_up(face);
  const mica_port *port = up ? &a->x : &a->y;
  return (move_job){ a, port, move_wire(port, face), a->B, up ? a->R : a->C, up ? a->C : a->R, face, 0 };
}
/* the ports of gather (0) and scatter_add (1) that have R rows and V rows */
static inline const mica_port *gather_rows(const mica_gather_args *a, int scatter) { return scatter ? &a->x : &a->y; }
static inline const mica_port *gather_table(const mica_gather_args *a, int scatter) { return scatter ? &a->y : &a->x; }
/* does the face pull rows out of the table, or push them into it? */
static inline int gather_pulls(int scatter, int face) { return move_up(face) == scatter; }
static inline move_job gather_job(const mica_gather_args *a, int scatter, int face) {
  int pull = gather_pulls(scatter, face);
  const mica_port *port = pull ? gather_rows(a, scatter) : gather_table(a, scatter);
  return (move_job){ a, port, move_wire(port, face), a->B, pull ? a->R : a->V, a->C, face, 0 };
}

#endif
