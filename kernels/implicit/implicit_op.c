/* the stages of implicit hypergradients on the CPU: a team of one thread */
#include <math.h>
#include <string.h>

#include "common/op.h"
#include "common/solve.h"
#include "implicit/implicit.h"

#define FN static
#define LEAD 1
#define BARRIER (void)0
#define DOT(s, a, b) micak_dot((s)->dtype, a, b, (s)->n)
#define COMBINE(s, y, scale, x, keep) micak_combine((s)->dtype, y, scale, x, keep, (s)->n)
#define COMBINE_WIDE(s, y, scale, x, keep) micak_combine(MICA_F64, y, scale, x, keep, (s)->n)
#define WIDEN(s, from, to) micak_to_double((s)->dtype, from, to, (s)->n)
#define NARROW(s, from, to) micak_from_double((s)->dtype, from, to, (s)->n)
#define CLEAR(s, y) memset(y, 0, (size_t)(s)->n * mica_dtype_size((s)->dtype))
#define SET(s, y, i, value) micak_add_one((s)->dtype, (char *)(y) + (i) * (int64_t)mica_dtype_size((s)->dtype), value)
#define EACH_ITEM(k, n) for (int64_t k = 0; k < (n); k++)
#define ITEM_DOT(s, a, b) micak_dot(MICA_F64, a, b, (s)->n)
#define ITEM_LEAD 1
#define SOLVE micak_solve_transposed
#include "implicit/implicit.inc"

void micak_implicit_task(const micak_implicit *s, int stage, int64_t b) {
  if (MICAK_IMPLICIT_SYSTEM(stage)) run_system(s, stage, b);
  else run_vectors(s, stage, b);
}
