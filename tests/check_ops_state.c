/* what must hold of the reference in double between cases: other settings of one function give the same results, and a
 * sequence cut in two with its state carried over (operands NAME_in and NAME_out) gives those of the whole */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_ops.h"

#define ALL_FACES 15
#define BOUND 1e-12

/* rows [first, first + rows) of the whole's task b lie at its `at`; operands without rows are taken as they are */
static int64_t part_of(const ck_case *whole, int o, int64_t first, int64_t *count) {
  int64_t elems = whole->o[o].elems, rows = whole->o[o].n[1];
  if (!ck_row_axis(whole, o) || rows <= 1) {
    *count = elems;
    return 0;
  }
  *count *= elems / rows;
  return first * (elems / rows);
}

/* largest |a - b| of one wire and one part, by its scale */
static void compare(const ck_case *c, int o, int w, const double *got, int64_t got_stride, const double *want,
                    int64_t want_stride, int64_t n, const char *what) {
  double worst = 0, scale = 1e-3;
  for (int64_t b = 0; b < c->B; b++)
    for (int64_t i = 0; i < n; i++) {
      double x = got[b * got_stride + i], y = want[b * want_stride + i], off = x == y ? 0 : fabs(x - y);
      worst = fmax(worst, isnan(off) ? INFINITY : off);
      scale = fmax(scale, fabs(y));
    }
  ck_note("%s %s: off by %.2e", ck_wire_name(c, o, w), what, worst / scale);
  ck_check(worst <= BOUND * scale, "%s %s is off by %.2e of scale (bound %.0e)", ck_wire_name(c, o, w), what,
           worst / scale, BOUND);
}

void ck_check_same(const mica_op *op, const char *before, const char *set) {
  ck_case a, b;
  ck_data x = { 0 }, y = { 0 };
  memset(&b, 0, sizeof b);
  if (ck_check(ck_case_make(op, before, (ck_sizes){ 0 }, &a) >= 0 && ck_case_make(op, set, (ck_sizes){ 0 }, &b) >= 0,
               "%s", mica_last_error())) {
    int equal = a.B == b.B;
    for (int o = 0; o < op->n_operands; o++) equal &= a.o[o].elems == b.o[o].elems && a.o[o].present == b.o[o].present;
    if (ck_check(equal, "it says that it is the same as the case before, but the sizes or operands differ")) {
      ck_fill(&a, &x, 3);
      ck_fill(&b, &y, 3);
      if (ck_check(ck_chain(&a, CK_F64, ALL_FACES, &x) >= 0 && ck_chain(&b, CK_F64, ALL_FACES, &y) >= 0, "%s",
                   mica_last_error()))
        for (int o = 0; o < op->n_operands; o++)
          for (int w = 0; w < CK_WIRES; w++)
            if (x.x[o][w] && y.x[o][w])
              compare(&b, o, w, y.x[o][w], b.o[o].elems, x.x[o][w], a.o[o].elems, a.o[o].elems,
                      "against the case before");
    }
  }
  ck_free(&x);
  ck_free(&y);
  ck_case_free(&a);
  ck_case_free(&b);
}

/* the operand NAME_out of an operand NAME_in, or -1 */
static int carried(const ck_case *c, int o) {
  const char *name = c->op->operands[o].name;
  size_t n = strlen(name);
  char out[64];
  if (n < 4 || n > 50 || strcmp(name + n - 3, "_in") || !c->o[o].present) return -1;
  snprintf(out, sizeof out, "%.*s_out", (int)(n - 3), name);
  const mica_operand *operand = micak_operand(c->op, out, strlen(out));
  int p = operand ? (int)(operand - c->op->operands) : -1;
  return p >= 0 && c->o[p].present && c->o[p].elems == c->o[o].elems ? p : -1;
}

static void carry(const ck_case *from, const ck_data *x, int o, int w, const ck_case *to, ck_data *y, int p, int u) {
  memcpy(ck_at(to, y, p, u), x->x[o][w], (size_t)(from->B * from->o[o].elems) * sizeof(double));
}

/* inputs and cotangents of rows [first, first + rows) */
static void take_part(const ck_case *whole, const ck_data *x, const ck_case *part, int64_t first, int64_t rows,
                      ck_data *y) {
  for (int o = 0; o < whole->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++) {
      int64_t count = rows, at = part_of(whole, o, first, &count);
      for (int64_t b = 0; x->x[o][w] && b < whole->B; b++)
        memcpy(ck_at(part, y, o, w) + b * part->o[o].elems, x->x[o][w] + b * whole->o[o].elems + at,
               (size_t)count * sizeof(double));
    }
}

/* results of both parts against the whole's */
static void compare_parts(const ck_case *whole, const ck_data *x, const ck_case *part, ck_data *y, const int64_t *first,
                          const int64_t *rows) {
  for (int o = 0; o < whole->op->n_operands; o++) {
    uint32_t role = whole->op->operands[o].role;
    int has_rows = ck_row_axis(whole, o) && whole->o[o].n[1] > 1;
    for (int w = 0; w < CK_WIRES; w++) {
      int result = (role & MICA_IN) ? w == CK_D || w == CK_TD : w == CK_V || w == CK_T;
      if (!result || !x->x[o][w]) continue;
      for (int p = 0; p < 2 && has_rows; p++) {
        int64_t count = rows[p], at = part_of(whole, o, first[p], &count);
        compare(whole, o, w, y[p].x[o][w], part[p].o[o].elems, x->x[o][w] + at, whole->o[o].elems, count, "cut in two");
      }
      if (has_rows) continue;
      int state = carried(whole, o) >= 0, p = (role & MICA_IN) ? 0 : 1; /* a state's end belongs to one part */
      double *sum = ck_at(&part[p], &y[p], o, w);
      for (int64_t i = 0; !state && (role & MICA_IN) && i < whole->B * whole->o[o].elems; i++)
        sum[i] += y[1].x[o][w][i];
      compare(whole, o, w, sum, whole->o[o].elems, x->x[o][w], whole->o[o].elems, whole->o[o].elems, "cut in two");
    }
  }
}

void ck_check_cut(const mica_op *op, const char *set) {
  enum { DOWN = 1 << MICA_FORWARD | 1 << MICA_JVP, UP = 1 << MICA_BACKWARD | 1 << MICA_BACKWARD_JVP };
  ck_case whole, part[2];
  ck_data x = { 0 }, y[2], given = { 0 };
  memset(y, 0, sizeof y);
  memset(part, 0, sizeof part);
  int pairs = 0;
  int64_t T = 0;
  if (!ck_check(ck_case_make(op, set, (ck_sizes){ 0 }, &whole) >= 0, "%s", mica_last_error())) return;
  for (int o = 0; o < op->n_operands; o++) {
    pairs += carried(&whole, o) >= 0;
    if (ck_row_axis(&whole, o) && whole.o[o].n[1] > T) T = whole.o[o].n[1];
  }
  int64_t first[2] = { 0, (T + 1) / 2 }, rows[2] = { (T + 1) / 2, T / 2 };
  ck_where("%s '%s' cut in two", op->name, set);
  if (pairs && T > 1 &&
      ck_check(ck_case_make(op, set, (ck_sizes){ .rows = rows[0] }, &part[0]) >= 0 &&
                   ck_case_make(op, set, (ck_sizes){ .rows = rows[1] }, &part[1]) >= 0, "%s", mica_last_error())) {
    ck_fill(&whole, &given, 4);
    ck_copy(&whole, &given, &x);
    for (int p = 0; p < 2; p++) take_part(&whole, &given, &part[p], first[p], rows[p], &y[p]);
    int ok = ck_chain(&whole, CK_F64, ALL_FACES, &x) >= 0 && ck_chain(&part[0], CK_F64, DOWN, &y[0]) >= 0;
    for (int o = 0; o < op->n_operands && ok; o++) {
      int p = carried(&whole, o);
      if (p < 0) continue;
      carry(&part[0], &y[0], p, CK_V, &part[1], &y[1], o, CK_V);
      carry(&part[0], &y[0], p, CK_T, &part[1], &y[1], o, CK_T);
    }
    ok = ok && ck_chain(&part[1], CK_F64, ALL_FACES, &y[1]) >= 0;
    for (int o = 0; o < op->n_operands && ok; o++) {
      int p = carried(&whole, o);
      if (p < 0) continue;
      carry(&part[1], &y[1], o, CK_D, &part[0], &y[0], p, CK_D);
      carry(&part[1], &y[1], o, CK_TD, &part[0], &y[0], p, CK_TD);
    }
    ok = ok && ck_chain(&part[0], CK_F64, UP, &y[0]) >= 0;
    if (ck_check(ok, "%s", mica_last_error())) compare_parts(&whole, &x, part, y, first, rows);
  }
  ck_free(&x);
  ck_free(&given);
  for (int p = 0; p < 2; p++) {
    ck_free(&y[p]);
    ck_case_free(&part[p]);
  }
  ck_case_free(&whole);
}
