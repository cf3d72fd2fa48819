/* what must hold of the reference in double: worked examples, golden values, finite differences, adjoints, symmetry */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_ops.h"

#define ALL_FACES 15

/* ---- sheets of given and expected wires ---- */
typedef struct sheet {
  ck_case  c;
  ck_data  given, want;
  uint8_t  has[CK_MAX][CK_WIRES], wants[CK_MAX][CK_WIRES];
  int      faces;
} sheet;

static int parse_wire(const mica_op *op, const char *wire, int *o, int *w) {
  static const char *const names[CK_WIRES] = { "v", "d", "t", "td" };
  size_t n = strcspn(wire, ".");
  const mica_operand *operand = micak_operand(op, wire, n);
  if (!operand || wire[n] != '.') return 0;
  *o = (int)(operand - op->operands);
  for (*w = 0; *w < CK_WIRES; ++*w)
    if (!strcmp(names[*w], wire + n + 1)) return 1;
  return 0;
}

static void sheet_free(sheet *s) {
  ck_free(&s->given);
  ck_free(&s->want);
  ck_case_free(&s->c);
}

/* one more wire; returns 0 after a failed check */
static int sheet_add(sheet *s, const char *wire, const double *value, int64_t count, int expected) {
  int o = 0, w = 0;
  if (!ck_check(parse_wire(s->c.op, wire, &o, &w), "no such wire '%s'", wire)) return 0;
  int64_t n = s->c.B * s->c.o[o].elems;
  if (!ck_check(n == count, "%s has %lld values, expected %lld", wire, (long long)count, (long long)n)) return 0;
  memcpy(ck_at(&s->c, expected ? &s->want : &s->given, o, w), value, (size_t)n * sizeof *value);
  (expected ? s->wants : s->has)[o][w] = 1;
  return 1;
}

/* optional operands of which nothing is said are left out; the faces follow from what is expected */
static void sheet_close(sheet *s) {
  const mica_op *op = s->c.op;
  s->faces = 1 << MICA_FORWARD;
  for (int o = 0; o < op->n_operands; o++) {
    int named = 0;
    for (int w = 0; w < CK_WIRES; w++) {
      named |= s->has[o][w] | s->wants[o][w];
      for (int face = 0; face < MICA_NFACE; face++)
        if (s->wants[o][w] && (op->operands[o].writes[face] & CK_BIT(w))) s->faces |= 1 << face;
    }
    if (!named && (op->operands[o].role & MICA_OPTIONAL) && !(op->operands[o].role & MICA_SAVED)) s->c.o[o].present = 0;
  }
  if (s->faces & (1 << MICA_BACKWARD_JVP)) s->faces = ALL_FACES;
}

/* run it on one kernel and compare: |got - want| <= tolerance * largest |want| of the wire */
static void sheet_run(sheet *s, ck_target target, double tolerance) {
  ck_data d = { 0 };
  ck_copy(&s->c, &s->given, &d);
  mica_status status = ck_chain(&s->c, target, s->faces, &d);
  if (ck_check(status >= 0, "%s: %s", ck_target_name(target), mica_last_error())) {
    for (int o = 0; o < s->c.op->n_operands; o++)
      for (int w = 0; w < CK_WIRES; w++) {
        if (!s->wants[o][w]) continue;
        const double *got = ck_at(&s->c, &d, o, w), *want = s->want.x[o][w];
        double worst = 0, scale = 0;
        int64_t n = s->c.B * s->c.o[o].elems, at = 0;
        for (int64_t i = 0; i < n; i++) {
          double error = isfinite(want[i]) ? fabs(got[i] - want[i]) : got[i] == want[i] ? 0 : INFINITY;
          if (!(error <= worst)) worst = error, at = i;
          if (isfinite(want[i])) scale = fmax(scale, fabs(want[i]));
        }
        ck_note("%s %s: off by %.2e of %.2e", ck_target_name(target), ck_wire_name(&s->c, o, w), worst, scale);
        ck_check(worst <= tolerance * fmax(scale, 1e-3), "%s %s[%lld] is %.17g, expected %.17g", ck_target_name(target),
                 ck_wire_name(&s->c, o, w), (long long)at, got[at], want[at]);
      }
  }
  ck_free(&d);
}

static void sheet_run_all(sheet *s, const mica_op *op, double f64_tolerance) {
  ck_target targets[32];
  int n = ck_targets(op, targets, 32);
  sheet_run(s, CK_F64, f64_tolerance);
  for (int i = 0; i < n; i++)
    if (targets[i].dtype == MICA_F32 || targets[i].dtype == MICA_F64) sheet_run(s, targets[i], 1e-5);
}

void ck_check_examples(const mica_op *op) {
  ck_where("%s worked example", op->name);
  const mica_example *example = op->example;
  if (!ck_check(example != NULL, "there is none")) return;
  sheet s = { 0 };
  if (ck_check(ck_case_make(op, example->set, (ck_sizes){ 0 }, &s.c) >= 0, "%s", mica_last_error())) {
    int ok = 1, expected = 0;
    for (int i = 0; i < example->n_wires && ok; i++) {
      const mica_example_wire *w = &example->wires[i];
      ok = sheet_add(&s, w->wire, w->value, w->count, w->expected);
      expected += w->expected;
    }
    ck_check(expected > 0, "it expects nothing");
    sheet_close(&s);
    if (ok) sheet_run_all(&s, op, 1e-12);
  }
  sheet_free(&s);
}

/* numbers after the wire's name */
static double *parse_numbers(const char *p, int64_t *count) {
  int64_t room = 64;
  double *x = malloc((size_t)room * sizeof *x);
  for (*count = 0; x;) {
    char *end;
    double value = strtod(p, &end);
    if (end == p) break;
    if (*count == room) {
      double *grown = realloc(x, (size_t)(room *= 2) * sizeof *x);
      if (!grown) free(x);
      x = grown;
      if (!x) break;
    }
    x[(*count)++] = value;
    p = end;
  }
  if (!x) exit(2);
  return x;
}

/* tests/golden/<op>.txt, made by make_golden.py: "case SETTINGS", "in WIRE values", "out WIRE values" */
void ck_check_golden(const mica_op *op) {
  char path[4200];
  if (!ck_option.golden) return;
  snprintf(path, sizeof path, "%s/%s.txt", ck_option.golden, op->name);
  ck_where("%s golden values", op->name);
  FILE *file = fopen(path, "r");
  if (!ck_check(file != NULL, "%s: %s; add the operation to make_golden.py", path, strerror(errno))) return;
  char *line = NULL;
  size_t size = 0;
  int number = 0, open = 0, cases = 0;
  sheet s = { 0 };
  for (;;) {
    int more = getline(&line, &size, file) >= 0;
    if (more) line[strcspn(line, "\r\n")] = 0;
    if (!more || !strncmp(line, "case ", 5)) {
      if (open) {
        sheet_close(&s);
        sheet_run_all(&s, op, 1e-12);
      }
      sheet_free(&s);
      memset(&s, 0, sizeof s);
      if (!more) break;
      ck_where("%s golden case %d '%s'", op->name, cases++, line + 5);
      open = ck_check(ck_case_make(op, line + 5, (ck_sizes){ 0 }, &s.c) >= 0, "%s", mica_last_error());
    } else if (!strncmp(line, "in ", 3) || !strncmp(line, "out ", 4)) {
      int expected = line[0] == 'o';
      char *wire = line + 3 + expected, *values = wire + strcspn(wire, " ");
      if (*values) *values++ = 0;
      int64_t count;
      double *x = parse_numbers(values, &count);
      open = open && sheet_add(&s, wire, x, count, expected);
      free(x);
    } else if (line[0] && line[0] != '#') {
      ck_check(0, "%s line %d begins with neither case, in, out nor #", path, number + 1);
    }
    number++;
  }
  ck_check(cases > 0, "%s has no case", path);
  free(line);
  fclose(file);
}

/* ---- finite differences ---- */

/* inputs that a derivative runs over: those whose tangent the jvp or the backward_jvp reads */
static int varies(const mica_op *op, int o) {
  const mica_operand *operand = &op->operands[o];
  return (operand->role & MICA_IN) && ((operand->reads[MICA_JVP] | operand->reads[MICA_BACKWARD_JVP]) & MICA_T);
}

/* d at x + step t (and cotangents + step td), everything else recomputed */
static mica_status moved(const ck_case *c, const ck_data *d, double step, int faces, ck_data *out) {
  ck_copy(c, d, out);
  for (int o = 0; o < c->op->n_operands; o++) {
    uint32_t role = c->op->operands[o].role;
    int64_t n = c->B * c->o[o].elems;
    if (varies(c->op, o) && d->x[o][CK_T])
      for (int64_t i = 0; i < n; i++) out->x[o][CK_V][i] += step * d->x[o][CK_T][i];
    if ((role & MICA_OUT) && d->x[o][CK_TD])
      for (int64_t i = 0; i < n; i++) out->x[o][CK_D][i] += step * d->x[o][CK_TD][i];
  }
  return ck_chain(c, CK_F64, faces, out);
}

/* the tangent wire (t or td) against the sixth-order central difference of its base wire (v or d). the first of several
 * step sizes that meets the bound counts: large ones cross kinks, small ones lose digits */
static void differences(const ck_case *c, const ck_data *d, int faces, int face, int base, int tangent, double bound) {
  static const double weight[3] = { 45.0 / 60, -9.0 / 60, 1.0 / 60 }, steps[] = { 5e-3, 5e-4, 5e-5, 5e-6 };
  double best[CK_MAX];
  for (int o = 0; o < CK_MAX; o++) best[o] = INFINITY;
  for (int s = 0; s < 4; s++) {
    ck_data sum = { 0 }, at = { 0 };
    int failed = 0, again = 0;
    for (int k = 1; k <= 3 && !failed; k++)
      for (int sign = -1; sign <= 1 && !failed; sign += 2) {
        failed = !ck_check(moved(c, d, sign * k * steps[s], faces, &at) >= 0, "%s", mica_last_error());
        for (int o = 0; o < c->op->n_operands && !failed; o++) {
          if (ck_access(c, face, o, base) != 2) continue;
          double *total = ck_at(c, &sum, o, base), *x = ck_at(c, &at, o, base);
          for (int64_t i = 0; i < c->B * c->o[o].elems; i++) total[i] += sign * weight[k - 1] / steps[s] * x[i];
        }
      }
    for (int o = 0; o < c->op->n_operands && !failed; o++) {
      if (ck_access(c, face, o, base) != 2 || !d->x[o][tangent] || !d->x[o][base]) continue;
      double worst = 0, scale = 1e-3;
      const double *want = ck_at(c, &sum, o, base), *got = d->x[o][tangent];
      for (int64_t b = 0; b < c->B; b++)
        for (int64_t e = 0; e < ck_elems(c, o, b); e++) {
          int64_t i = b * c->o[o].elems + e;
          double error = fabs(got[i] - want[i]);
          if (isinf(d->x[o][base][i]) && isnan(want[i])) error = 0;  /* an infinite value (empty row) has no difference */
          worst = fmax(worst, isnan(error) ? INFINITY : error);
          scale = fmax(scale, fmax(fabs(got[i]), isinf(d->x[o][base][i]) ? 0 : fabs(d->x[o][base][i])));
        }
      best[o] = fmin(best[o], worst / scale);
      again |= !(best[o] <= bound);
    }
    ck_free(&sum);
    ck_free(&at);
    if (failed) return;
    if (!again) break;
  }
  for (int o = 0; o < c->op->n_operands; o++) {
    if (ck_access(c, face, o, base) != 2 || !d->x[o][tangent]) continue;
    ck_note("%s against central differences: %.2e", ck_wire_name(c, o, tangent), best[o]);
    ck_check(best[o] <= bound, "%s differs from the central difference of %s%s by %.2e of scale (bound %.0e)",
             ck_wire_name(c, o, tangent), c->op->operands[o].name, base == CK_V ? ".v" : ".d", best[o], bound);
  }
}

/* sum of a*b over operands of a role, and of |a*b| */
static void inner(const ck_case *c, uint32_t role, const ck_data *x, int wx, const ck_data *y, int wy, double *sum,
                  double *size) {
  *sum = *size = 0;
  for (int o = 0; o < c->op->n_operands; o++) {
    if (!(c->op->operands[o].role & role) || !x->x[o][wx] || !y->x[o][wy]) continue;
    if (role == MICA_IN && !varies(c->op, o)) continue;
    for (int64_t b = 0; b < c->B; b++)
      for (int64_t e = 0; e < ck_elems(c, o, b); e++) {
        double p = x->x[o][wx][b * c->o[o].elems + e] * y->x[o][wy][b * c->o[o].elems + e];
        *sum += p;
        *size += fabs(p);
      }
  }
}

static int no_nan(const ck_case *c, const ck_data *d, int role, int w) {
  for (int o = 0; o < c->op->n_operands; o++)
    for (int64_t b = 0; b < c->B && (c->op->operands[o].role & (uint32_t)role) && d->x[o][w]; b++)
      for (int64_t e = 0; e < ck_elems(c, o, b); e++)
        if (isnan(d->x[o][w][b * c->o[o].elems + e])) return 0;
  return 1;
}

/* d has inputs, tangents and cotangents */
void ck_check_identities(const ck_case *c, const ck_data *d) {
  const mica_op *op = c->op;
  ck_data u = { 0 }, w = { 0 };
  ck_copy(c, d, &u);
  if (!ck_check(ck_chain(c, CK_F64, ALL_FACES, &u) >= 0, "reference: %s", mica_last_error())) {
    ck_free(&u);
    return;
  }
  for (int k = 0; k < CK_WIRES; k++)
    ck_check(no_nan(c, &u, MICA_IN | MICA_OUT | MICA_SAVED, k), "reference: NaN in a %s wire",
             k == CK_V ? "v" : k == CK_D ? "d" : k == CK_T ? "t" : "td");
  differences(c, &u, 1 << MICA_FORWARD, MICA_FORWARD, CK_V, CK_T, 1e-8);
  differences(c, &u, 1 << MICA_FORWARD | 1 << MICA_BACKWARD, MICA_BACKWARD, CK_D, CK_TD, 1e-7);
  double left, right, size, other;
  inner(c, MICA_IN, &u, CK_D, &u, CK_T, &left, &size);
  inner(c, MICA_OUT, &u, CK_D, &u, CK_T, &right, &other);
  size = fmax(fmax(size, other), 1e-3);
  ck_note("<dx,tx> - <dy,ty>: %.2e", fabs(left - right) / size);
  ck_check(fabs(left - right) <= 1e-12 * size, "<dx,tx> = %.17g but <dy,ty> = %.17g", left, right);
  /* Hessian symmetry: two directions, no tangent of the cotangent */
  for (int o = 0; o < op->n_operands; o++)
    if ((op->operands[o].role & MICA_OUT) && u.x[o][CK_TD])
      memset(u.x[o][CK_TD], 0, (size_t)(c->B * c->o[o].elems) * sizeof(double));
  ck_copy(c, &u, &w);
  for (int o = 0; o < op->n_operands; o++)
    for (int64_t i = 0; (op->operands[o].role & MICA_IN) && w.x[o][CK_T] && i < c->B * c->o[o].elems; i++)
      w.x[o][CK_T][i] = 2 * ck_uniform(ck_hash(ck_hash(ck_option.seed, 77), (uint64_t)(o * 1000003 + i))) - 1;
  if (ck_check(ck_chain(c, CK_F64, ALL_FACES, &u) >= 0 && ck_chain(c, CK_F64, ALL_FACES, &w) >= 0, "reference: %s",
               mica_last_error())) {
    inner(c, MICA_IN, &u, CK_T, &w, CK_TD, &left, &size);
    inner(c, MICA_IN, &w, CK_T, &u, CK_TD, &right, &other);
    size = fmax(fmax(size, other), 1e-3);
    ck_note("u'Hw - w'Hu: %.2e", fabs(left - right) / size);
    ck_check(fabs(left - right) <= 1e-12 * size, "the Hessian is not symmetric: u'Hw = %.17g, w'Hu = %.17g", left, right);
  }
  ck_free(&u);
  ck_free(&w);
}
