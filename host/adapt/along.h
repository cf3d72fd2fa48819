/* along.h (internal): what forward.c and zero_order.c share. memory is the device's but where it says host. */
#ifndef MICAH_ADAPT_ALONG_H
#define MICAH_ADAPT_ALONG_H

#include "adapt/adapt.h"
#include "program/memory.h"

typedef struct micah_along {
  char  **u, **theta;            /* [carry] cotangents of the last values, (tasks, numbers); [carry][2] values of steps */
  double *sums;                  /* (tasks) */
  char   *staging;               /* host: (tasks, widest) */
} micah_along;

/* widest: most numbers of a row that is added to a port */
mica_status micah_along_create(mica_executor *x, int32_t entry, int64_t widest, micah_along *out);
/* every task's row of a wire, side by side; zeros where there is none */
mica_status micah_along_rows(const micah_adapt_run *r, const mica_wire *wire, int64_t count, char *to);
/* u from the cotangents of the last values */
mica_status micah_along_begin(const micah_adapt_run *r, const micah_along *s);
mica_status micah_along_zero(const micah_adapt_run *r, void *at, int64_t bytes);
/* sums += scale <u, x> over all carries; x: [carry][2], the first ones */
mica_status micah_along_dots(const micah_adapt_run *r, const micah_along *s, char *const *x, double scale);
/* to = from + by weight e, without weights by e; (tasks, n) each */
mica_status micah_along_move(const micah_adapt_run *r, int64_t n, char *to, const char *from, double by,
                             const double *weight, const char *e);
/* rows (host, (tasks, n)) onto a port's cotangent, `shift` numbers in: summed by slot in task order. waits for it */
mica_status micah_along_add(const micah_adapt_run *r, const micah_along *s, int operand, int64_t shift,
                            const char *rows, int64_t n);

#endif
