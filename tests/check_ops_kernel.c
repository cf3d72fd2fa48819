/* kernels against the double oracle, in every layout, and what must not change a bit */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_ops.h"
#include "common/isa.h"

#define ALL_FACES 15

/* ---- error budget ---- */

/* dense per-task results become what the layout's wire must hold: start + the sum over the tasks of its slot */
static void gather_slots(const ck_case *c, int face, const ck_layout *l, const ck_data *dense, const ck_data *start,
                         ck_data *want) {
  int32_t *slot = calloc((size_t)c->B + 1, sizeof *slot);
  if (!slot) exit(2);
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++) {
      if (!dense->x[o][w] || ck_access(c, face, o, w) != 2 || (l && l->null[o][w])) continue;
      int used;
      ck_slots(c, ck_kind(c, face, l, o, w), o, slot, &used);
      double *sum = ck_at(c, want, o, w);
      int64_t n = c->o[o].elems;
      for (int64_t b = 0; b < c->B; b++) {
        if (slot[b] < 0) continue;
        for (int64_t e = 0; e < ck_elems(c, o, b); e++) {
          double total = start->x[o][w] ? start->x[o][w][b * n + e] : 0;
          for (int64_t k = 0; k < c->B; k++)
            if (slot[k] == slot[b]) total += dense->x[o][w][k * n + e];
          sum[b * n + e] = total;
        }
      }
    }
  free(slot);
}

/* largest difference on one wire; equal infinities do not differ */
static double distance(const ck_case *c, int o, int w, const ck_data *a, const ck_data *b, double *scale) {
  double worst = 0;
  for (int64_t i = 0; i < c->B; i++)
    for (int64_t e = 0; e < ck_elems(c, o, i); e++) {
      double x = a->x[o][w][i * c->o[o].elems + e], y = b->x[o][w][i * c->o[o].elems + e];
      double error = x == y ? 0 : fabs(x - y);
      worst = fmax(worst, isnan(error) ? INFINITY : error);
      if (scale && isfinite(y)) *scale = fmax(*scale, fabs(y));
    }
  return worst;
}

mica_status ck_yard_make(const ck_case *c, int face, const ck_layout *l, const ck_data *seen, int dtype, ck_yard *y) {
  ck_data dense = { 0 }, naive = { 0 }, exact = { 0 }, start = { 0 }, near = { 0 }, near_dense = { 0 }, near_want = { 0 };
  memset(y, 0, sizeof *y);
  ck_how how = { .target = CK_F64, .face = face };
  mica_status status = ck_run(c, &how, seen, &dense, NULL);
  how.layout = l;
  how.target = (ck_target){ MICA_REF, MICA_F32, 0 };
  if (status >= 0) status = ck_run(c, &how, seen, &naive, &start);
  how.target = CK_F64;
  if (status >= 0 && l) status = ck_run(c, &how, seen, &exact, NULL);
  /* inputs moved by at most half an ulp: a single float run may be exact by luck */
  ck_copy(c, seen, &near);
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES && !(c->op->operands[o].role & MICA_INDEX); w++)
      for (int64_t i = 0; near.x[o][w] && ck_access(c, face, o, w) == 1 && i < c->B * c->o[o].elems; i++)
        near.x[o][w][i] *= 1 + (2 * ck_uniform(ck_hash((uint64_t)(o * 4 + w), (uint64_t)i)) - 1) * 0x1p-24;
  how.layout = NULL;
  if (status >= 0) status = ck_run(c, &how, &near, &near_dense, NULL);
  if (status >= 0) {
    gather_slots(c, face, l, &dense, &start, &y->want);
    gather_slots(c, face, l, &near_dense, &start, &near_want);
    for (int o = 0; o < c->op->n_operands; o++)
      for (int w = 0; w < CK_WIRES; w++) {
        if (!y->want.x[o][w]) continue;
        double scale = 0;
        y->naive[o][w] = fmax(distance(c, o, w, &naive, &y->want, &scale), distance(c, o, w, &near_want, &y->want, NULL));
        y->scale[o][w] = scale;
        ck_check(y->naive[o][w] <= 1e-3 * fmax(scale, 1e-3) || dtype == MICA_BF16 || isinf(y->naive[o][w]) == 0,
                 "%s: the naive float run is not finite where the oracle is", ck_wire_name(c, o, w));
        if (!l) continue;
        double off = distance(c, o, w, &exact, &y->want, NULL);
        ck_check(off <= 1e-12 * fmax(scale, 1), "reference %s: this layout gives another result than dense tasks, off by %.2e of %.2e",
                 ck_wire_name(c, o, w), off, scale);
      }
  }
  ck_data *all[] = { &dense, &naive, &exact, &start, &near, &near_dense, &near_want };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ck_free(all[i]);
  return status;
}

void ck_yard_free(ck_yard *y) { ck_free(&y->want); }

/* the naive float error of a few elements is a lottery: take its largest over eight more draws of nearby inputs */
static void refine(const ck_case *c, int face, const ck_layout *l, const ck_data *seen, ck_yard *y) {
  ck_how exact = { .target = CK_F64, .face = face, .layout = l }, naive = exact;
  naive.target.dtype = MICA_F32;
  y->refined = 1;
  for (uint64_t k = 0; k < 8; k++) {
    ck_data near = { 0 }, a = { 0 }, b = { 0 };
    ck_copy(c, seen, &near);
    for (int o = 0; o < c->op->n_operands; o++)
      for (int w = 0; w < CK_WIRES && !(c->op->operands[o].role & MICA_INDEX); w++)
        for (int64_t i = 0; near.x[o][w] && ck_access(c, face, o, w) == 1 && i < c->B * c->o[o].elems; i++)
          near.x[o][w][i] *= 1 + (2 * ck_uniform(ck_hash(k * 100 + (uint64_t)(o * 4 + w), (uint64_t)i)) - 1) * 0x1p-16;
    ck_round(c, &near, MICA_F32);
    if (ck_run(c, &exact, &near, &a, NULL) >= 0 && ck_run(c, &naive, &near, &b, NULL) >= 0)
      for (int o = 0; o < c->op->n_operands; o++)
        for (int w = 0; w < CK_WIRES; w++)
          if (y->want.x[o][w]) y->naive[o][w] = fmax(y->naive[o][w], distance(c, o, w, &b, &a, NULL));
    ck_free(&near);
    ck_free(&a);
    ck_free(&b);
  }
}

static double bound_of(const ck_case *c, int o, int w, int dtype, const ck_yard *y) {
  double bound = c->op->budget * y->naive[o][w] + 4 * 0x1p-23 * y->scale[o][w];
  if (dtype == MICA_BF16) bound += 0x1p-5 * y->scale[o][w]; /* sums pass through bf16 memory */
  /* an exact zero by cancellation: only the order of size of the noise can be compared */
  if (y->scale[o][w] < 1e-6) bound += 16 * y->naive[o][w];
  return bound;
}

void ck_yard_compare(const ck_case *c, int face, const ck_layout *l, const ck_data *seen, const ck_data *got, int dtype,
                     ck_yard *y) {
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++) {
      if (!y->want.x[o][w] || ck_access(c, face, o, w) != 2 || (l && l->null[o][w])) continue;
      double error = got->x[o][w] ? distance(c, o, w, got, &y->want, NULL) : INFINITY;
      if (!(error <= bound_of(c, o, w, dtype, y)) && isfinite(error) && !y->refined) refine(c, face, l, seen, y);
      double bound = bound_of(c, o, w, dtype, y);
      ck_note("%s: error %.2e, naive %.2e, scale %.2e", ck_wire_name(c, o, w), error, y->naive[o][w], y->scale[o][w]);
      ck_check(error <= bound, "%s: error %.3e > %.3e (budget %g x naive %.2e + 4 ulp of %.2e)", ck_wire_name(c, o, w),
               error, bound, c->op->budget, y->naive[o][w], y->scale[o][w]);
    }
}

/* ---- same bits ---- */

static int same_bits(const ck_case *c, int face, const ck_data *a, const ck_data *b, const char *what) {
  int all = 1; /* the sign of a zero is free: an empty sum and a sum of one differ in it */
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++) {
      if (ck_access(c, face, o, w) != 2 || !a->x[o][w] || !b->x[o][w]) continue;
      int64_t differ = 0;
      for (int64_t i = 0; i < c->B; i++) {
        const double *x = a->x[o][w] + i * c->o[o].elems, *y = b->x[o][w] + i * c->o[o].elems;
        int64_t n = ck_elems(c, o, i);
        if (!memcmp(x, y, (size_t)n * sizeof *x)) continue;
        for (int64_t e = 0; e < n; e++) differ += x[e] != y[e] && memcmp(x + e, y + e, sizeof *x);
      }
      all &= ck_check(!differ, "%s: %lld elements have other bits %s", ck_wire_name(c, o, w), (long long)differ, what);
    }
  return all;
}

static int run_ok(const ck_case *c, const ck_how *how, const ck_data *in, ck_data *out) {
  ck_free(out);
  return ck_check(ck_run(c, how, in, out, NULL) >= 0, "%s", mica_last_error());
}

/* units and row-locality of the first phase, for dense wires */
static mica_split first_split(const ck_case *c, ck_target t, int face) {
  mica_split split = { 0, 1, 0, 0 };
  const mica_kernel *kernel;
  int32_t phases;
  if (mica_op_kernels(c->op, t.backend, t.dtype, face, &kernel, &phases) < 0 || !kernel->split) return split;
  void *args = malloc(c->op->args_size);
  if (!args) exit(2);
  memcpy(args, c->args, c->op->args_size);
  static double nothing;
  for (int o = 0; o < c->op->n_operands; o++) {
    const mica_operand *operand = &c->op->operands[o];
    mica_port *port = micak_port(operand, args);
    port->offsets = c->o[o].offsets;
    for (int w = 0; w < CK_WIRES && c->o[o].present && !((operand->role & MICA_INDEX) && w); w++)
      mica_wire_dense(c->op, operand, args, operand->role & MICA_INDEX ? MICA_I32 : t.dtype, 0, &nothing,
                      micak_wire(port, CK_BIT(w)));
  }
  kernel->split(args, &split);
  free(args);
  return split;
}

/* order of calls, size of ranges, threads and repetition change nothing */
static void check_cuts(const ck_case *c, const ck_how *base, const ck_data *in, const ck_data *first) {
  static const struct { int context; int64_t range; const char *what; } tries[] = {
    { CK_BACKWARDS, 1, "in single units, last first" },
    { CK_SERIAL, (int64_t)1 << 40, "in one call" },
    { CK_THREADS, 1, "on three threads" },          /* these three in every layout */
    { CK_SERIAL, 0, "when run again" },
    { CK_BACKWARDS, 3, "in threes, last first" },
  };
  /* a device gets all units at once: run again */
  const size_t from = base->target.backend == MICA_CUDA ? 3 : 0;
  const size_t to = from ? 4 : base->layout ? 3 : sizeof tries / sizeof *tries;
  for (size_t i = from; i < to; i++) {
    ck_data again = { 0 };
    ck_how how = *base;
    how.context = ck_context[tries[i].context];
    how.range = tries[i].range;
    if (run_ok(c, &how, in, &again)) same_bits(c, how.face, first, &again, tries[i].what);
    ck_free(&again);
  }
}

/* a phase that says rows = 1 reads and writes the rows it was asked for, and no other */
static void check_row_local(const ck_case *c, const ck_how *base, const ck_data *in, const ck_data *whole) {
  mica_split split = first_split(c, base->target, base->face);
  if (!split.rows || split.units < 2) return;
  ck_how how = *base;
  how.row_first = split.units / 3;
  how.row_count = (split.units + 2) / 3;
  ck_data part = { 0 };
  if (run_ok(c, &how, in, &part))
    for (int o = 0; o < c->op->n_operands; o++)
      for (int w = 0; w < CK_WIRES; w++) {
        if (ck_access(c, how.face, o, w) != 2 || !part.x[o][w] || !ck_row_axis(c, o)) continue;
        int64_t differ = 0, n = c->o[o].elems;
        for (int64_t b = 0; b < c->B; b++)
          for (int64_t e = 0; e < ck_elems(c, o, b); e++) {
            double x = part.x[o][w][b * n + e];
            differ += x != HUGE_VAL && memcmp(&x, &whole->x[o][w][b * n + e], sizeof x);
          }
        ck_check(!differ, "%s: %lld elements depend on rows outside of a row-local phase's range", ck_wire_name(c, o, w),
                 (long long)differ);
      }
  ck_free(&part);
}

/* a NULL wire reads as zero; a NULL output leaves the others as they are */
static void check_null(const ck_case *c, const ck_how *base, const ck_data *in, const ck_data *whole, const ck_yard *y) {
  ck_layout l;
  ck_how how = *base;
  how.layout = &l;
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++) {
      int access = ck_access(c, how.face, o, w);
      if (!access || (access == 1 && w == CK_V)) continue;
      ck_data out = { 0 }, zeroed = { 0 }, zeros = { 0 };
      memset(&l, 0, sizeof l);
      l.null[o][w] = 1;
      char what[96];
      snprintf(what, sizeof what, "when %s is NULL", ck_wire_name(c, o, w));
      if (access == 2) {
        if (run_ok(c, &how, in, &out)) same_bits(c, how.face, whole, &out, what);
      } else {
        ck_copy(c, in, &zeroed);
        memset(ck_at(c, &zeroed, o, w), 0, (size_t)(c->B * c->o[o].elems) * sizeof(double));
        ck_how dense = *base;
        if (run_ok(c, &how, in, &out) && run_ok(c, &dense, &zeroed, &zeros))
          for (int p = 0; p < c->op->n_operands; p++)
            for (int q = 0; q < CK_WIRES; q++) {
              if (ck_access(c, how.face, p, q) != 2) continue;
              double off = distance(c, p, q, &out, &zeros, NULL);
              ck_check(off <= bound_of(c, p, q, base->target.dtype, y),
                       "%s: off by %.2e from what a zero gives, %s", ck_wire_name(c, p, q), off, what);
            }
      }
      ck_free(&out);
      ck_free(&zeroed);
      ck_free(&zeros);
    }
  /* no tangents at all: everything is constant */
  memset(&l, 0, sizeof l);
  int any = 0;
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = CK_T; w < CK_WIRES; w++)
      if (ck_access(c, how.face, o, w) == 1) l.null[o][w] = 1, any = 1;
  if (!any) return;
  ck_data out = { 0 };
  if (run_ok(c, &how, in, &out))
    for (int o = 0; o < c->op->n_operands; o++)
      for (int w = CK_T; w < CK_WIRES; w++) {
        if (ck_access(c, how.face, o, w) != 2) continue;
        int64_t not_zero = 0;
        for (int64_t b = 0; b < c->B; b++)
          for (int64_t e = 0; e < ck_elems(c, o, b); e++) not_zero += out.x[o][w][b * c->o[o].elems + e] != 0;
        ck_check(!not_zero, "%s: %lld elements are not zero though every t and td is NULL", ck_wire_name(c, o, w),
                 (long long)not_zero);
      }
  ck_free(&out);
}

static void check_index_types(const ck_case *c, const ck_how *base, const ck_data *in, const ck_data *whole) {
  static const int types[] = { MICA_I32, MICA_I64, MICA_U8 };
  int any = 0;
  for (int o = 0; o < c->op->n_operands; o++) {
    if (c->o[o].present && ck_access(c, base->face, o, CK_V) == 1 && (c->op->operands[o].role & MICA_INDEX)) any = 1;
    for (int64_t i = 0; any && (c->op->operands[o].role & MICA_INDEX) && in->x[o][CK_V] && i < c->B * c->o[o].elems; i++)
      if (in->x[o][CK_V][i] > 255) return;
  }
  for (int i = 0; any && i < 3; i++) {
    ck_data out = { 0 };
    ck_how how = *base;
    how.index_dtype = types[i];
    char what[64];
    snprintf(what, sizeof what, "with %s indices", mica_dtype_name(types[i]));
    if (run_ok(c, &how, in, &out)) same_bits(c, how.face, whole, &out, what);
    ck_free(&out);
  }
}

/* ---- fused slots ---- */

/* the slot and its two faces one after the other: same bits */
static void check_slot(const ck_case *c, const ck_how *base, const ck_data *in, int cuts) {
  ck_data fused = { 0 }, one = { 0 }, two = { 0 }, between = { 0 };
  ck_how how = *base;
  int faces[2];
  micak_faces(base->face, faces);
  ck_copy(c, in, &between);
  if (run_ok(c, base, in, &fused)) {
    how.face = faces[0];
    if (run_ok(c, &how, in, &one)) same_bits(c, faces[0], &one, &fused, "fused");
    for (int o = 0; o < c->op->n_operands; o++)
      for (int w = 0; w < CK_WIRES; w++)
        if (ck_access(c, faces[0], o, w) == 2 && one.x[o][w])
          memcpy(ck_at(c, &between, o, w), one.x[o][w], (size_t)(c->B * c->o[o].elems) * sizeof(double));
    how.face = faces[1];
    if (run_ok(c, &how, &between, &two)) same_bits(c, faces[1], &two, &fused, "fused");
    if (cuts) check_cuts(c, base, in, &fused);
  }
  ck_data *all[] = { &fused, &one, &two, &between };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ck_free(all[i]);
}

/* all slots that a target has; for dense tasks also without each wire that may be missing, and with one face's results
 * summed over tasks */
static void check_slots(const ck_case *c, ck_target t, const ck_layout *l, const ck_data *in, int brief) {
  const mica_kernel *kernel;
  int32_t phases;
  for (int slot = MICA_NFACE; slot < MICA_NSLOT; slot++) {
    if (mica_op_kernels(c->op, t.backend, t.dtype, slot, &kernel, &phases) < 0) continue;
    ck_where("%s '%s' %s %s, %s", c->op->name, c->text, ck_target_name(t), mica_face_name(slot), l ? l->name : "dense");
    ck_how how = { .target = t, .face = slot, .layout = l };
    check_slot(c, &how, in, !brief);
    for (int i = 0; i < c->op->n_operands * CK_WIRES && !l && !brief; i++) {
      int o = i / CK_WIRES, w = i % CK_WIRES, access = ck_access(c, slot, o, w);
      if (!access || (access == 1 && w == CK_V)) continue;
      ck_layout without;
      memset(&without, 0, sizeof without);
      without.null[o][w] = 1;
      how.layout = &without;
      ck_where("%s '%s' %s %s, %s is NULL", c->op->name, c->text, ck_target_name(t), mica_face_name(slot),
               ck_wire_name(c, o, w));
      check_slot(c, &how, in, 0);
    }
    for (int i = 0; i < 2 && !l && !brief; i++) {
      ck_layout summed;
      int faces[2];
      micak_faces(slot, faces);
      memset(&summed, 0, sizeof summed);
      for (int o = 0; o < c->op->n_operands; o++)
        for (int w = 0; w < CK_WIRES; w++)
          if (ck_access(c, faces[i], o, w) == 2) summed.kind[o][w] = CK_GROUPED;
      how.layout = &summed;
      ck_where("%s '%s' %s %s, what %s writes is summed", c->op->name, c->text, ck_target_name(t), mica_face_name(slot),
               mica_face_name(faces[i]));
      check_slot(c, &how, in, 1);
    }
  }
}

/* ---- layouts ---- */
enum { MIXTURES = 4 };

static void set_role(const ck_case *c, ck_layout *l, uint32_t role, int wires, int kind) {
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++)
      if ((c->op->operands[o].role & role) && (wires & CK_BIT(w))) l->kind[o][w] = (uint8_t)kind;
}

/* the n-th layout; 0 past the end */
static int layout_make(const ck_case *c, int n, ck_layout *l) {
  enum { ALL = 15, GIVEN = MICA_V | MICA_T, BACK = MICA_D | MICA_TD };
  static const struct { const char *name; uint32_t role[2]; int wires[2], kind, quick; } rows[] = {
    { "training: parameters shared, their cotangents summed", { MICA_PARAM, 0 }, { ALL, 0 }, CK_SHARED, 1 },
    { "explicit slots", { 15, 0 }, { ALL, 0 }, CK_SLOTS, 0 },
    { "shared values, per-task cotangents", { MICA_IN | MICA_INDEX, 0 }, { GIVEN, 0 }, CK_SHARED, 0 },
    { "per-task values, summed cotangents", { MICA_IN, 0 }, { BACK, 0 }, CK_SHARED, 0 },
    { "grouped slots", { MICA_IN | MICA_INDEX, MICA_OUT }, { ALL, BACK }, CK_GROUPED, 1 },
    { "a slot of many tasks", { MICA_IN | MICA_INDEX, MICA_OUT }, { ALL, BACK }, CK_LONG, 1 },
    { "summed results", { MICA_OUT, 0 }, { GIVEN, 0 }, CK_GROUPED, 0 },
    { "slots -1 on what is given", { MICA_IN | MICA_INDEX, MICA_OUT }, { GIVEN, BACK }, CK_MINUS, 1 },
    { "slots -1 on results", { MICA_IN, MICA_OUT }, { BACK, GIVEN }, CK_MINUS, 1 },
    { "inactive tasks", { 15, 0 }, { ALL, 0 }, CK_INACTIVE, 0 },
    { "permuted slots", { 15, 0 }, { ALL, 0 }, CK_PERMUTED, 0 },
    { "repeated slots", { MICA_IN | MICA_INDEX, MICA_OUT }, { GIVEN, BACK }, CK_REPEATED, 0 },
    { "padded rows", { 15, 0 }, { ALL, 0 }, CK_PADDED, 1 },
    { "inner strides", { 15, 0 }, { ALL, 0 }, CK_INNER, 0 },
    { "row stride 0", { MICA_IN | MICA_INDEX, MICA_OUT }, { GIVEN, BACK }, CK_BROADCAST, 0 },
  };
  const int fixed = (int)(sizeof rows / sizeof *rows);
  memset(l, 0, sizeof *l);
  if (n < fixed) {
    l->name = rows[n].name;
    for (int i = 0; i < 2; i++) set_role(c, l, rows[n].role[i], rows[n].wires[i], rows[n].kind);
    return ck_option.brief ? (n ? -1 : 1) : !ck_option.quick || rows[n].quick ? 1 : -1;
  }
  n -= fixed;
  if (n == 0) {
    l->name = "add flags";
    memset(l->add, 1, sizeof l->add);
    return 1;
  }
  if (--n >= (ck_option.brief ? 0 : ck_option.quick ? 1 : MIXTURES)) return 0;
  static const uint8_t kinds[] = { CK_DENSE, CK_SLOTS, CK_SHARED, CK_GROUPED, CK_MINUS, CK_PERMUTED, CK_REPEATED,
                                   CK_PADDED, CK_BROADCAST, CK_SHARED, CK_GROUPED, CK_LONG };
  static const char *const names[MIXTURES] = { "mixture 0", "mixture 1", "mixture 2", "mixture 3" };
  l->name = names[n];
  for (int o = 0; o < CK_MAX; o++)
    for (int w = 0; w < CK_WIRES; w++) {
      uint64_t h = ck_hash(ck_hash(ck_option.seed, (uint64_t)n + 1000), (uint64_t)(o * CK_WIRES + w));
      l->kind[o][w] = kinds[h % sizeof kinds];
      l->add[o][w] = (h >> 40) % 3 == 0;
    }
  return 1;
}

static int refused(mica_status status) {
  return status == MICA_ERR_UNSUPPORTED || status == MICA_ERR_INVALID || status == MICA_ERR_SHAPE;
}

static int uses_inner(const ck_layout *l) { return l && l->kind[0][0] == CK_INNER; }

/* all targets and faces in one layout; NULL: dense, with everything that is checked only there unless it is `brief` */
static void check_layout(const ck_case *c, const ck_data *given, const ck_layout *l, int dtype, int brief) {
  ck_target targets[32];
  int n_targets = ck_targets(c->op, targets, 32);
  ck_data d = { 0 };
  ck_copy(c, given, &d);
  ck_round(c, &d, dtype);
  ck_expand(c, -1, l, &d);
  if (!ck_check(ck_chain(c, CK_F64, ALL_FACES, &d) >= 0, "reference: %s", mica_last_error())) n_targets = 0;
  ck_round(c, &d, dtype);
  for (int face = 0; face < MICA_NFACE && n_targets; face++) {
    if (ck_option.face >= 0 && face != ck_option.face) continue;
    ck_data seen = { 0 };
    ck_yard yard;
    ck_copy(c, &d, &seen);
    ck_expand(c, face, l, &seen);
    ck_where("%s '%s' %s, %s", c->op->name, c->text, mica_face_name(face), l ? l->name : "dense");
    if (ck_check(ck_yard_make(c, face, l, &seen, dtype, &yard) >= 0, "reference: %s", mica_last_error()))
      for (int i = 0; i < n_targets; i++) {
        ck_target t = targets[i];
        if (t.dtype != dtype) continue;
        ck_where("%s '%s' %s %s, %s", c->op->name, c->text, ck_target_name(t), mica_face_name(face), l ? l->name : "dense");
        ck_how how = { .target = t, .face = face, .layout = l };
        ck_data out = { 0 };
        mica_status status = ck_run(c, &how, &d, &out, NULL);
        if (status < 0 && refused(status) && uses_inner(l) && t.backend != MICA_REF) {
          ck_note("refused: %s", mica_last_error());
        } else if (ck_check(status >= 0, "%s", mica_last_error())) {
          ck_yard_compare(c, face, l, &seen, &out, t.dtype, &yard);
          if (t.backend != MICA_REF && !brief) check_cuts(c, &how, &d, &out);
          if (!l && !brief) {
            if (t.backend != MICA_REF) check_row_local(c, &how, &d, &out);
            check_null(c, &how, &d, &out, &yard);
            check_index_types(c, &how, &d, &out);
          }
        }
        ck_free(&out);
      }
    ck_yard_free(&yard);
    ck_free(&seen);
  }
  for (int i = 0; i < n_targets && ck_option.face < 0; i++)
    if (targets[i].dtype == dtype && targets[i].backend != MICA_REF)
      check_slots(c, targets[i], l, &d, brief);
  ck_free(&d);
}

void ck_check_kernels(const ck_case *c, const ck_data *d) {
  ck_layout l;
  check_layout(c, d, NULL, MICA_F32, 0);
  ck_target targets[32];
  for (int i = ck_targets(c->op, targets, 32) - 1; i >= 0; i--)
    if (targets[i].dtype == MICA_BF16) {
      check_layout(c, d, NULL, MICA_BF16, 0);
      break;
    }
  for (int n = 0;; n++) {
    int made = layout_make(c, n, &l);
    if (!made) break;
    if (made > 0) check_layout(c, d, &l, MICA_F32, 0);
  }
}

/* ---- tasks and rows alone and among others ---- */

/* chain of one target, so that what later faces read is its own */
static int chained(const ck_case *c, ck_target t, uint64_t salt, ck_data *d) {
  ck_fill(c, d, salt);
  return ck_check(ck_chain(c, t, ALL_FACES, d) >= 0, "%s", mica_last_error());
}

/* tasks [first, first + small->B) of `big` and the same tasks alone: same bits */
static void compare_tasks(const ck_case *big, const ck_data *in, const ck_data *whole, const ck_case *small, int64_t first,
                          const ck_how *how, const char *what) {
  ck_data sub = { 0 }, want = { 0 }, out = { 0 };
  for (int64_t i = 0; i < small->B; i++) {
    ck_copy_task(big, in, first + i, small, &sub, i);
    ck_copy_task(big, whole, first + i, small, &want, i);
  }
  if (run_ok(small, how, &sub, &out)) same_bits(small, how->face, &want, &out, what);
  ck_free(&sub);
  ck_free(&want);
  ck_free(&out);
}

/* outputs without rows are dropped */
static void keep_rows(const ck_case *c, const ck_case *many, int face, ck_data *d) {
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++)
      if (ck_access(c, face, o, w) == 2 && (!ck_row_axis(c, o) || many->o[o].n[1] <= 1)) {
        free(d->x[o][w]);
        d->x[o][w] = NULL;
      }
}

static int rows_are_free(const ck_case *c, ck_target t, int face) {
  if (!first_split(c, t, face).rows) return 0;
  int64_t rows = 0;
  for (int o = 0; o < c->op->n_operands; o++) {
    if (!ck_row_axis(c, o)) {
      if (c->op->operands[o].role & MICA_OUT) return 0;
      continue;
    }
    int64_t n = c->o[o].n[1];
    if ((c->op->operands[o].role & MICA_OUT) && n <= 1) return 0;
    if (n > 1 && rows && n != rows) return 0;
    if (n > 1) rows = n;
  }
  return rows > 1;
}

/* an operation may have no room for that many rows; the run with the case's own rows was already checked */
static int rows_fit(const ck_case *c, ck_target t, ck_data *d) {
  ck_fill(c, d, 5);
  mica_status status = ck_chain(c, t, ALL_FACES, d);
  if (refused(status)) ck_note("no more rows: %s", mica_last_error());
  else ck_check(status >= 0, "%s", mica_last_error());
  return status >= 0;
}

static void check_row_counts(const mica_op *op, const char *set, ck_target t, int face) {
  enum { MANY = 48 };
  static const int counts[] = { 1, 2, 7, 41 };
  ck_case big;
  ck_data d = { 0 }, whole = { 0 };
  if (ck_check(ck_case_make(op, set, (ck_sizes){ .tasks = 2, .rows = MANY }, &big) >= 0, "%s", mica_last_error()) &&
      rows_are_free(&big, t, face) && rows_fit(&big, t, &d)) {
    ck_how how = { .target = t, .face = face };
    if (run_ok(&big, &how, &d, &whole))
      for (int i = 0; i < 4; i++) {
        ck_case small;
        ck_data sub = { 0 }, want = { 0 }, out = { 0 };
        char what[64];
        snprintf(what, sizeof what, "as %d rows alone than among %d", counts[i], (int)MANY);
        if (ck_case_make(op, set, (ck_sizes){ .tasks = 2, .rows = counts[i] }, &small) >= 0) {
          for (int64_t b = 0; b < 2; b++) {
            ck_copy_task(&big, &d, b, &small, &sub, b);
            ck_copy_task(&big, &whole, b, &small, &want, b);
          }
          keep_rows(&small, &big, face, &want);
          if (run_ok(&small, &how, &sub, &out)) same_bits(&small, face, &want, &out, what);
        }
        ck_free(&sub);
        ck_free(&want);
        ck_free(&out);
        ck_case_free(&small);
      }
  }
  ck_free(&d);
  ck_free(&whole);
  ck_case_free(&big);
}

/* neighbours that share a slot, summed, alone and among others */
static void check_groups(const ck_case *big, const ck_data *in, const ck_case *pair, const ck_how *base) {
  ck_layout l;
  memset(&l, 0, sizeof l);
  set_role(big, &l, MICA_IN, MICA_D | MICA_TD, CK_GROUPED);
  ck_how how = *base;
  how.layout = &l;
  ck_data whole = { 0 };
  if (run_ok(big, &how, in, &whole))
    for (int64_t first = 0; first + 2 <= big->B; first += 6)
      compare_tasks(big, in, &whole, pair, first, &how, "as a group of two alone than among others");
  ck_free(&whole);
}

void ck_check_batches(const mica_op *op, const char *set) {
  static const struct { int64_t count, first; } parts[] = { { 1, 0 }, { 2, 3 }, { 7, 2 }, { 1, 49 }, { 41, 5 } };
  ck_target targets[32];
  int n_targets = ck_targets(op, targets, 32);
  ck_case big, small;
  if (!ck_check(ck_case_make(op, set, (ck_sizes){ .tasks = 1 }, &small) >= 0, "%s", mica_last_error())) n_targets = 0;
  int64_t size = 0;
  for (int o = 0; o < op->n_operands; o++) size += small.o[o].elems;
  ck_case_free(&small);
  /* large tasks in a smaller batch */
  int64_t many = size > 1000 ? 9 : 50;
  if (!ck_check(ck_case_make(op, set, (ck_sizes){ .tasks = many }, &big) >= 0, "%s", mica_last_error())) n_targets = 0;
  for (int i = 0; i < n_targets; i++) {
    if (targets[i].backend == MICA_REF) continue;  /* task by task by construction */
    ck_data d = { 0 };
    ck_where("%s '%s' %s, batches", op->name, big.text, ck_target_name(targets[i]));
    if (chained(&big, targets[i], 4, &d))
      for (int face = 0; face < MICA_NFACE; face++) {
        ck_how how = { .target = targets[i], .face = face };
        ck_data whole = { 0 };
        ck_where("%s '%s' %s %s, batches", op->name, big.text, ck_target_name(targets[i]), mica_face_name(face));
        if (run_ok(&big, &how, &d, &whole))
          for (size_t p = 0; p < sizeof parts / sizeof *parts && parts[p].first + parts[p].count <= many; p++) {
            char what[64];
            snprintf(what, sizeof what, "as %d tasks alone than among %d", (int)parts[p].count, (int)many);
            if (ck_case_make(op, set, (ck_sizes){ .tasks = parts[p].count }, &small) >= 0) {
              compare_tasks(&big, &d, &whole, &small, parts[p].first, &how, what);
              if (parts[p].count == 2) check_groups(&big, &d, &small, &how);
            }
            ck_case_free(&small);
          }
        ck_free(&whole);
        check_row_counts(op, set, targets[i], face);
      }
    ck_free(&d);
  }
  ck_case_free(&big);
}

void ck_check_packed(const mica_op *op, const char *set) {
  enum { TASKS = 7 };
  ck_target targets[33] = { CK_F64 };
  int n_targets = 1 + ck_targets(op, targets + 1, 32);
  ck_case all;
  if (!ck_check(ck_case_make(op, set, (ck_sizes){ .tasks = TASKS, .packed = 1 }, &all) >= 0, "%s", mica_last_error()))
    n_targets = 0;
  for (int i = 0; i < n_targets; i++) {
    ck_data d = { 0 };
    ck_where("%s '%s' %s", op->name, all.text, ck_target_name(targets[i]));
    if (chained(&all, targets[i], 6, &d))
      for (int face = 0; face < MICA_NFACE; face++) {
        ck_where("%s '%s' %s %s", op->name, all.text, ck_target_name(targets[i]), mica_face_name(face));
        ck_how how = { .target = targets[i], .face = face };
        for (int64_t b = 0; b < TASKS; b++) {
          ck_case one;
          if (ck_case_make(op, set, (ck_sizes){ .tasks = 1, .alone = b + 1 }, &one) >= 0)
            compare_tasks(&all, &d, &d, &one, b, &how, "as one dense task than packed");
          else ck_note("task %d alone: %s", (int)b, mica_last_error());
          ck_case_free(&one);
        }
      }
    ck_free(&d);
  }
  ck_case_free(&all);
}

/* kernels against the reference on tasks of many lengths, or one long one; values of the first input may be large */
void ck_check_lengths(const mica_op *op, const mica_case *k) {
  ck_case c;
  ck_data d = { 0 };
  if (ck_check(ck_case_make(op, k->set, (ck_sizes){ 0 }, &c) >= 0, "%s", mica_last_error())) {
    if (c.B > 1) {
      ck_case_free(&c);
      ck_check(ck_case_make(op, k->set, (ck_sizes){ .packed = 2 }, &c) >= 0, "%s", mica_last_error());
    }
    ck_fill(&c, &d, 10);
    int64_t n = c.o[0].elems;
    for (int64_t i = 0; (k->flags & MICA_CASE_WIDE) && i < c.B * n; i++) /* a task's rows by turns 1, 16, 300 times */
      d.x[0][CK_V][i] *= (const double[]){ 1, 16, 300 }[i / (n / c.o[0].n[1]) % 3];
    check_layout(&c, &d, NULL, MICA_F32, 1);
    check_layout(&c, &d, NULL, MICA_BF16, 1);
  }
  ck_free(&d);
  ck_case_free(&c);
}

/* kernels in bf16: every layout of a quick run, packed rows, tasks alone and among others */
void ck_check_half(const mica_op *op, const mica_case *k) {
  const int quick = ck_option.quick;
  ck_option.half = 1;
  ck_option.quick = 1;
  for (int packed = 0; packed <= ((k->flags & MICA_CASE_PACKED) ? 1 : 0); packed++) {
    ck_case c;
    ck_data d = { 0 };
    ck_layout l;
    if (ck_check(ck_case_make(op, k->set, (ck_sizes){ .tasks = packed ? 4 : 0, .packed = packed }, &c) >= 0, "%s",
                 mica_last_error())) {
      ck_fill(&c, &d, 11);
      check_layout(&c, &d, NULL, MICA_BF16, packed);
      for (int n = 0, made; !packed && (made = layout_make(&c, n, &l)); n++)
        if (made > 0) check_layout(&c, &d, &l, MICA_BF16, 1);
    }
    ck_free(&d);
    ck_case_free(&c);
    if (packed) ck_check_packed(op, k->set);
    else if (!ck_option.brief) ck_check_batches(op, k->set);
  }
  ck_option.half = 0;
  ck_option.quick = quick;
}

/* ---- shapes of the benchmark ---- */

void ck_check_bench(const mica_op *op, const char *set) {
  enum { COPIES = 3 };
  ck_target targets[32];
  int n_targets = ck_targets(op, targets, 32);
  ck_case one, many;
  /* against the oracle, with as many rows as it can do in a moment; all of them with --slow */
  ck_sizes sizes = { .tasks = 1 };
  if (!ck_check(ck_case_make(op, set, sizes, &one) >= 0, "%s", mica_last_error())) {
    ck_case_free(&one);
    return;
  }
  double flop = 0, bytes = 0;
  if (op->cost) op->cost(one.args, MICA_FORWARD, &flop, &bytes);
  for (int o = 0; o < op->n_operands; o++) flop = fmax(flop, (double)one.o[o].elems);
  int64_t rows = 0;
  for (int o = 0; o < op->n_operands; o++)
    if (ck_row_axis(&one, o) && one.o[o].n[1] > rows) rows = one.o[o].n[1];
  /* a device may be an emulated one */
  const int brief = ck_option.quick && ck_option.backend == MICA_CUDA;
  const double most = brief ? 1e5 : 4e6;
  if (!ck_option.slow && flop > most && rows > 7) {
    sizes.rows = (int64_t)((double)rows * most / flop);
    if (sizes.rows < 7) sizes.rows = 7;
  }
  ck_case_free(&one);
  if (ck_check(ck_case_make(op, set, sizes, &one) >= 0, "%s", mica_last_error())) {
    ck_data d = { 0 };
    ck_fill(&one, &d, 8);
    check_layout(&one, &d, NULL, MICA_F32, 0);
    ck_free(&d);
  }
  ck_case_free(&one);
  /* same bits at the full shape, by the best instruction set: alone and among copies of itself */
  for (int i = 0; i < n_targets && !brief; i++) {
    if (targets[i].backend == MICA_REF || (i + 1 < n_targets && targets[i + 1].backend == targets[i].backend)) continue;
    ck_data d = { 0 }, copies = { 0 };
    ck_where("%s '%s' %s, full shape", op->name, set, ck_target_name(targets[i]));
    if (ck_check(ck_case_make(op, set, (ck_sizes){ .tasks = 1 }, &one) >= 0 &&
                     ck_case_make(op, set, (ck_sizes){ .tasks = COPIES }, &many) >= 0, "%s", mica_last_error()) &&
        chained(&one, targets[i], 9, &d)) {
      for (int64_t b = 0; b < COPIES; b++) ck_copy_task(&one, &d, 0, &many, &copies, b);
      for (int face = 0; face < MICA_NFACE; face++) {
        ck_where("%s '%s' %s %s, full shape", op->name, set, ck_target_name(targets[i]), mica_face_name(face));
        ck_how how = { .target = targets[i], .face = face, .context = ck_context[CK_THREADS] };
        ck_data whole = { 0 };
        if (run_ok(&many, &how, &copies, &whole))
          for (int64_t b = 0; b < COPIES; b += COPIES - 1)
            compare_tasks(&many, &copies, &whole, &one, b, &how, "as one task alone than among copies");
        ck_free(&whole);
      }
    }
    ck_free(&d);
    ck_free(&copies);
    ck_case_free(&one);
    ck_case_free(&many);
  }
}
