/* cases, shapes and random data */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_ops.h"
#include "common/ref.h"

uint64_t ck_hash(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9e3779b97f4a7c15ull + b + 0x632be59bd9b4e019ull; /* splitmix64's finaliser */
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
double ck_uniform(uint64_t h) { return (double)(h >> 11) * 0x1p-53; }

/* ---- cases ---- */

/* sizes named R, T or S (and R1, Ra, Rb ...) count rows; the first axis after the task axis may then be packed */
static int names_rows(const char *name, size_t n) {
  return n >= 1 && n <= 2 && (name[0] == 'R' || name[0] == 'T' || name[0] == 'S') &&
         (n == 1 || (name[1] >= 'a' && name[1] <= 'z') || (name[1] >= '0' && name[1] <= '9'));
}
static int row_operand(const mica_operand *operand) {
  const char *p = operand->shape + strcspn(operand->shape, " ");
  p += strspn(p, " ");
  return names_rows(p, strcspn(p, " "));
}
int ck_row_axis(const ck_case *c, int o) { return row_operand(&c->op->operands[o]) && c->o[o].rank > 1; }

/* ragged lengths: whole, empty and single rows among them; neighbours (0,1) and (4,5) are equal. `turn` swaps the empty
 * and the single one, so that two row sizes are not always empty together */
static int64_t ragged(int64_t b, int64_t longest, int turn) {
  static const int8_t part[] = { 2, 2, 0, -1, 1, 1, 2 };
  int p = part[b % 7];
  if (turn && (b % 7 == 2 || b % 7 == 3)) p = -1 - p;
  return p < 0 ? 1 : p == 0 ? 0 : p == 1 ? (longest + 1) / 2 : longest;
}

/* lengths around the sizes of vectors, tiles and blocks, the longest first; another order for a second row size */
enum { AWKWARD = 12 };
static int64_t awkward(int64_t b, int64_t longest, int turn) {
  static const int16_t length[AWKWARD] = { 1 << 14, 1, 2, 7, 17, 31, 33, 64, 65, 127, 200, 0 };
  int64_t n = length[(turn ? 5 * b + 3 : b) % AWKWARD];
  return n < longest ? n : longest;
}

static int leaves_out(const char *set, const char *name) {
  char text[80];
  snprintf(text, sizeof text, "%s=none", name);
  for (const char *p = set; (p = strstr(p, text)); p++)
    if ((p == set || p[-1] == ' ') && (p[strlen(text)] == 0 || p[strlen(text)] == ' ')) return 1;
  return 0;
}

mica_status ck_case_make(const mica_op *op, const char *set, ck_sizes sizes, ck_case *c) {
  memset(c, 0, sizeof *c);
  c->op = op;
  if (op->n_operands > CK_MAX) return mica_error(MICA_ERR_INTERNAL, "%s has more operands than the driver has room", op->name);
  c->args = calloc(1, op->args_size);
  if (!c->args) return mica_error(MICA_ERR_MEMORY, "out of memory");
  mica_status status = mica_args_init(op, c->args);
  if (status >= 0) status = mica_args_set(op, c->args, set);
  if (status < 0) return status;
  int64_t longest = 0;
  for (int i = 1; i < op->n_dims; i++) {
    int64_t *n = micak_dim(&op->dims[i], c->args);
    if (!names_rows(op->dims[i].name, strlen(op->dims[i].name)) || *n <= 1) continue;
    if (!longest) longest = *n;
    if (sizes.alone) *n = ragged(sizes.alone - 1, *n, *n != longest);
    else if (sizes.rows) *n = sizes.rows;
  }
  if (sizes.packed == 2) sizes.tasks = AWKWARD;
  if (sizes.tasks) *micak_dim(&op->dims[0], c->args) = sizes.tasks;
  if (op->infer) status = op->infer(c->args);
  if (status < 0) return status;
  c->B = *micak_dim(&op->dims[0], c->args);
  c->packed = sizes.packed;
  snprintf(c->text, sizeof c->text, "%s%s%.0lld%s%.0lld%s", set, sizes.tasks ? " B=" : "", (long long)sizes.tasks,
           sizes.rows ? " rows=" : "", (long long)sizes.rows, sizes.packed ? " packed" : "");
  for (int o = 0; o < op->n_operands; o++) {
    ck_operand *k = &c->o[o];
    k->rank = mica_operand_shape(op, &op->operands[o], c->args, k->n);
    k->elems = 1;
    for (int i = 1; i < k->rank; i++) {
      if (k->n[i] < 0)
        return mica_error(MICA_ERR_SHAPE, "operand %s has a size that neither the case nor infer() gives",
                          op->operands[o].name);
      k->elems *= k->n[i];
    }
    k->present = !leaves_out(set, op->operands[o].name);
    k->packed = sizes.packed && ck_row_axis(c, o) && k->n[1] > 1;
    if (!k->packed) continue;
    k->offsets = calloc((size_t)c->B + 1, sizeof *k->offsets);
    if (!k->offsets) return mica_error(MICA_ERR_MEMORY, "out of memory");
    for (int64_t b = 0; b < c->B; b++)
      k->offsets[b + 1] =
          k->offsets[b] + (int32_t)(sizes.packed == 2 ? awkward : ragged)(b, k->n[1], k->n[1] != longest);
  }
  return MICA_OK;
}

void ck_case_free(ck_case *c) {
  for (int o = 0; o < CK_MAX; o++) free(c->o[o].offsets);
  free(c->args);
  memset(c, 0, sizeof *c);
}

int64_t ck_rows(const ck_case *c, int o, int64_t b) {
  const ck_operand *k = &c->o[o];
  return k->rank > 1 ? micak_rows(k->offsets, b, k->n[1]) : 1;
}
int64_t ck_elems(const ck_case *c, int o, int64_t b) {
  const ck_operand *k = &c->o[o];
  return k->packed && k->n[1] ? k->elems / k->n[1] * ck_rows(c, o, b) : k->elems;
}

/* ---- arrays ---- */

double *ck_at(const ck_case *c, ck_data *d, int o, int w) {
  if (!d->x[o][w]) {
    d->x[o][w] = calloc((size_t)(c->B * c->o[o].elems) + 1, sizeof(double));
    if (!d->x[o][w]) {
      fprintf(stderr, "check_ops: out of memory\n");
      exit(2);
    }
  }
  return d->x[o][w];
}

void ck_free(ck_data *d) {
  for (int o = 0; o < CK_MAX; o++)
    for (int w = 0; w < CK_WIRES; w++) free(d->x[o][w]);
  memset(d, 0, sizeof *d);
}

void ck_copy(const ck_case *c, const ck_data *from, ck_data *to) {
  ck_free(to);
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++)
      if (from->x[o][w]) memcpy(ck_at(c, to, o, w), from->x[o][w], (size_t)(c->B * c->o[o].elems) * sizeof(double));
}

/* all wires of task b become task `at` of another case: as many rows as that one has, of every axis what both have */
void ck_copy_task(const ck_case *from, const ck_data *d, int64_t b, const ck_case *to, ck_data *out, int64_t at) {
  for (int o = 0; o < from->op->n_operands; o++) {
    const ck_operand *x = &from->o[o], *y = &to->o[o];
    int64_t last = x->rank > 1 ? x->n[x->rank - 1] : 1, run = x->rank > 1 ? y->n[x->rank - 1] : 1;
    int64_t want = ck_elems(to, o, at), index[MICA_MAX_RANK] = { 0 };
    for (int w = 0; w < CK_WIRES; w++) {
      if (!d->x[o][w]) continue;
      const double *source = d->x[o][w] + b * x->elems;
      double *target = ck_at(to, out, o, w) + at * y->elems;
      memset(index, 0, sizeof index);
      for (int64_t e = 0; e < want; e += run) { /* a row of the last axis at a time */
        int64_t place = 0, inside = 1;
        for (int i = 1; i < x->rank - 1; i++) {
          place = place * x->n[i] + index[i];
          inside &= index[i] < x->n[i];
        }
        if (inside && place * last < ck_elems(from, o, b))
          memcpy(target + e, source + place * last, (size_t)(run < last ? run : last) * sizeof(double));
        for (int i = x->rank - 2; i >= 1; i--) {
          if (++index[i] < y->n[i]) break;
          index[i] = 0;
        }
      }
    }
  }
}

static double stored(double x, int dtype) {
  return dtype == MICA_F64 ? x : dtype == MICA_BF16 ? (double)micak_from_bf16(micak_to_bf16((float)x)) : (double)(float)x;
}

void ck_round(const ck_case *c, ck_data *d, int dtype) {
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++)
      for (int64_t i = 0; d->x[o][w] && i < c->B * c->o[o].elems; i++) d->x[o][w][i] = stored(d->x[o][w][i], dtype);
}

static double draw(int domain, int64_t range, double u) {
  switch (domain) {
    case MICA_POSITIVE: return 0.5 + 1.5 * u;
    case MICA_AWAY0: return u < 0.5 ? -0.1 - 1.8 * u : 0.1 + 1.8 * (u - 0.5);
    case MICA_UNIT: return 0.05 + 0.9 * u;
    case MICA_SIMPLEX: return 0.05 + u;
    case MICA_MASK: return u < 0.5 ? 0 : 1;
    case MICA_RANGE: return floor(u * (double)range);
    default: return 2 * u - 1;
  }
}

/* a value depends on its task and place, not on the number of tasks */
static void fill_wire(const ck_case *c, int o, int w, uint64_t salt, double *x) {
  const mica_operand *operand = &c->op->operands[o];
  int domain = w == CK_V ? operand->domain : MICA_ANY;
  int64_t range = 1, n = c->o[o].elems, last = c->o[o].rank > 1 ? c->o[o].n[c->o[o].rank - 1] : 1;
  for (int i = 0; operand->range && i < c->op->n_dims; i++)
    if (!strcmp(c->op->dims[i].name, operand->range)) range = *micak_dim(&c->op->dims[i], c->args);
  uint64_t key = ck_hash(ck_hash(ck_option.seed, salt), (uint64_t)(o * CK_WIRES + w));
  for (int64_t b = 0; b < c->B; b++)
    for (int64_t i = 0; i < n; i++)
      x[b * n + i] = (double)(float)draw(domain, range, ck_uniform(ck_hash(ck_hash(key, (uint64_t)b), (uint64_t)i)));
  for (int64_t i = 0; domain == MICA_SIMPLEX && i + last <= c->B * n; i += last) {
    double sum = 0;
    for (int64_t j = 0; j < last; j++) sum += x[i + j];
    for (int64_t j = 0; j < last; j++) x[i + j] = (double)(float)(x[i + j] / sum);
  }
}

void ck_fill(const ck_case *c, ck_data *d, uint64_t salt) {
  for (int o = 0; o < c->op->n_operands; o++) {
    uint32_t role = c->op->operands[o].role;
    if (!c->o[o].present) continue;
    if (role & MICA_INDEX) fill_wire(c, o, CK_V, salt, ck_at(c, d, o, CK_V));
    else if (role & MICA_IN) {
      fill_wire(c, o, CK_V, salt, ck_at(c, d, o, CK_V));
      fill_wire(c, o, CK_T, salt, ck_at(c, d, o, CK_T));
    } else if (role & MICA_OUT) {
      fill_wire(c, o, CK_D, salt, ck_at(c, d, o, CK_D));
      fill_wire(c, o, CK_TD, salt, ck_at(c, d, o, CK_TD));
    }
  }
}
