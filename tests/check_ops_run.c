/* layouts, fenced buffers and one run of one face */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_ops.h"
#include "common/ref.h"

enum { GUARD = 32, MINUS_EVERY = 3 };

int ck_access(const ck_case *c, int face, int o, int w) {
  const mica_operand *operand = &c->op->operands[o];
  if (!c->o[o].present) return 0;
  int faces[2], n = micak_faces(face, faces), reads = 0, writes = 0;
  for (int i = 0; i < n; i++) reads |= operand->reads[faces[i]], writes |= operand->writes[faces[i]];
  return writes & CK_BIT(w) ? 2 : reads & CK_BIT(w) ? 1 : 0;
}

/* wires that are given, not computed: values and tangents of inputs, cotangents of outputs */
static int primary(const ck_case *c, int o, int w) {
  uint32_t role = c->op->operands[o].role;
  return role & (MICA_IN | MICA_INDEX) ? w == CK_V || w == CK_T : role & MICA_OUT ? w == CK_D || w == CK_TD : 0;
}

int ck_kind(const ck_case *c, int face, const ck_layout *l, int o, int w) {
  int kind = l ? l->kind[o][w] : CK_DENSE, write = face >= 0 && ck_access(c, face, o, w) == 2;
  const mica_operand *operand = &c->op->operands[o];
  /* what a face left for later faces belongs to one task */
  int own = !primary(c, o, w) && (!write || (operand->role & MICA_SAVED));
  if (own && (kind == CK_SHARED || kind == CK_GROUPED || kind == CK_LONG || kind == CK_MINUS || kind == CK_REPEATED ||
              kind == CK_BROADCAST))
    return CK_DENSE;
  if (write && (kind == CK_REPEATED || kind == CK_BROADCAST)) return CK_DENSE;
  if (c->o[o].packed && (kind == CK_SHARED || kind == CK_LONG)) return CK_GROUPED;
  /* zeros may lie outside of the domain */
  if (!write && w == CK_V && (kind == CK_MINUS || kind == CK_INACTIVE) && operand->domain != MICA_ANY &&
      operand->domain != MICA_MASK && operand->domain != MICA_RANGE)
    return CK_DENSE;
  if (kind == CK_BROADCAST && (c->o[o].rank < 2 || c->o[o].packed)) return CK_DENSE;
  return kind;
}

/* slot of each task; *used: is there a slot vector at all? */
void ck_slots(const ck_case *c, int kind, int o, int32_t *slot, int *used) {
  const ck_operand *k = &c->o[o];
  *used = kind == CK_SLOTS || kind == CK_GROUPED || kind == CK_LONG || kind == CK_MINUS || kind == CK_INACTIVE ||
          kind == CK_PERMUTED || kind == CK_REPEATED;
  for (int64_t b = 0; b < c->B; b++) {
    int64_t s = b;
    if (kind == CK_SHARED) s = 0;
    else if (kind == CK_GROUPED) s = k->packed ? b - (b % 2 && ck_rows(c, o, b) == ck_rows(c, o, b - 1)) : b / 2;
    else if (kind == CK_LONG) s = b > 0;
    else if (kind == CK_MINUS) s = b % MINUS_EVERY == 1 % MINUS_EVERY ? -1 : b;
    else if (kind == CK_INACTIVE) s = b % MINUS_EVERY == 0 ? -1 : b;
    else if (kind == CK_PERMUTED) {
      s = c->B - 1 - b;
      if (k->packed && ck_rows(c, o, s) != ck_rows(c, o, b)) s = b;
      else if (k->packed && s > b && ck_rows(c, o, b) != ck_rows(c, o, s)) s = b;
    } else if (kind == CK_REPEATED) {
      s = b % 2;
      if (k->packed && ck_rows(c, o, s) != ck_rows(c, o, b)) s = b;
    }
    slot[b] = (int32_t)s;
  }
}

/* ---- geometry: where element e of task b lies ---- */
typedef struct place {
  const ck_operand *k;
  int32_t          *slot;
  int               slots;                   /* has a slot vector */
  int64_t           task_stride, stride[MICA_MAX_RANK - 1], span;
  int64_t          *within;                  /* (elems) place of each element within its task */
} place;

static inline int64_t place_at(const place *p, int64_t b, int64_t e) {
  int64_t s = p->slot[b];
  return (p->k->offsets ? p->k->offsets[s] * p->stride[0] : s * p->task_stride) + p->within[e];
}

static void place_free(place *p) {
  free(p->slot);
  free(p->within);
}

static void place_make(const ck_case *c, int kind, int o, int w, place *p) {
  const ck_operand *k = &c->o[o];
  memset(p, 0, sizeof *p);
  p->k = k;
  p->slot = calloc((size_t)c->B + 1, sizeof *p->slot);
  p->within = calloc((size_t)k->elems + 1, sizeof *p->within);
  if (!p->slot || !p->within) exit(2);
  ck_slots(c, kind, o, p->slot, &p->slots);
  int64_t stride = kind == CK_INNER ? 2 : 1, pad = kind == CK_PADDED ? 3 + 2 * w : 0;
  for (int i = k->rank - 1; i >= 1; i--) {
    p->stride[i - 1] = kind == CK_BROADCAST && i == 1 ? 0 : stride;
    if (kind != CK_BROADCAST || i > 1) stride = stride * (k->n[i] ? k->n[i] : 1) + pad;
  }
  p->task_stride = kind == CK_SHARED ? 0 : stride;
  p->span = k->offsets ? k->offsets[c->B] * (k->rank > 1 ? p->stride[0] : 1) : (kind == CK_SHARED ? 1 : c->B) * stride;
  int64_t index[MICA_MAX_RANK] = { 0 }, at = 0;
  for (int64_t e = 0; e < k->elems; e++) {
    p->within[e] = at;
    for (int i = k->rank - 1; i >= 1; i--) {
      at += p->stride[i - 1];
      if (++index[i] < k->n[i]) break;
      at -= index[i] * p->stride[i - 1];
      index[i] = 0;
    }
  }
}

void ck_expand(const ck_case *c, int face, const ck_layout *l, ck_data *d) {
  for (int o = 0; o < c->op->n_operands; o++)
    for (int w = 0; w < CK_WIRES; w++) {
      int wanted = face < 0 ? primary(c, o, w) : ck_access(c, face, o, w) == 1;
      if (!wanted || !d->x[o][w]) continue;
      int64_t n = c->o[o].elems;
      if (l && l->null[o][w]) {
        memset(d->x[o][w], 0, (size_t)(c->B * n) * sizeof(double));
        continue;
      }
      int kind = ck_kind(c, face, l, o, w);
      if (kind == CK_DENSE || kind == CK_SLOTS || kind == CK_PERMUTED || kind == CK_PADDED || kind == CK_INNER) continue;
      place p;
      place_make(c, kind, o, w, &p);
      double *memory = calloc((size_t)p.span + 1, sizeof *memory);
      if (!memory) exit(2);
      for (int64_t b = 0; b < c->B; b++)
        for (int64_t e = 0; p.slot[b] >= 0 && e < ck_elems(c, o, b); e++) memory[place_at(&p, b, e)] = d->x[o][w][b * n + e];
      for (int64_t b = 0; b < c->B; b++)
        for (int64_t e = 0; e < ck_elems(c, o, b); e++)
          d->x[o][w][b * n + e] = p.slot[b] >= 0 ? memory[place_at(&p, b, e)] : 0;
      free(memory);
      place_free(&p);
    }
}

/* ---- elements of any type ---- */
static const uint8_t sizes[MICA_NDTYPE] = { 4, 8, 2, 4, 8, 1 };

static double get(int dtype, const void *memory, int64_t at) {
  switch (dtype) {
    case MICA_F64: return ((const double *)memory)[at];
    case MICA_F32: return (double)((const float *)memory)[at];
    case MICA_BF16: return (double)micak_from_bf16(((const uint16_t *)memory)[at]);
    case MICA_I32: return ((const int32_t *)memory)[at];
    case MICA_I64: return (double)((const int64_t *)memory)[at];
    default: return ((const uint8_t *)memory)[at];
  }
}
static void put(int dtype, void *memory, int64_t at, double x) {
  switch (dtype) {
    case MICA_F64: ((double *)memory)[at] = x; break;
    case MICA_F32: ((float *)memory)[at] = (float)x; break;
    case MICA_BF16: ((uint16_t *)memory)[at] = micak_to_bf16((float)x); break;
    case MICA_I32: ((int32_t *)memory)[at] = (int32_t)x; break;
    case MICA_I64: ((int64_t *)memory)[at] = (int64_t)x; break;
    default: ((uint8_t *)memory)[at] = (uint8_t)x;
  }
}
/* NaNs with a payload that no arithmetic makes; two kinds, so that what was read is told from what was not written.
 * index ports get a legal value */
static void fence(int dtype, void *memory, int64_t at, int unread) {
  static const uint32_t f[2] = { 0x7fdead01u, 0x7fc0ffeeu };
  static const uint64_t d[2] = { 0x7ffdeadbeefdead1ull, 0x7ff8c0ffeec0ffeeull };
  static const uint16_t h[2] = { 0x7fdeu, 0x7fc1u };
  switch (dtype) {
    case MICA_F64: memcpy((double *)memory + at, &d[unread], 8); break;
    case MICA_F32: memcpy((float *)memory + at, &f[unread], 4); break;
    case MICA_BF16: ((uint16_t *)memory)[at] = h[unread]; break;
    default: put(dtype, memory, at, 0);
  }
}
#define FILL(type)                                                     \
  do {                                                                 \
    for (int64_t i_ = 1; i_ < count; i_++) ((type *)memory)[i_] = *(type *)memory; \
  } while (0)
static void fence_all(int dtype, void *memory, int64_t count, int unread) {
  fence(dtype, memory, 0, unread);
  switch (sizes[dtype]) {
    case 8: FILL(uint64_t); break;
    case 4: FILL(uint32_t); break;
    case 2: FILL(uint16_t); break;
    default: FILL(uint8_t);
  }
}
static inline int fenced(int dtype, const void *memory, int64_t at) {
  static const uint64_t marks[MICA_NDTYPE] = { 0x7fdead01u, 0x7ffdeadbeefdead1ull, 0x7fdeu, 0, 0, 0 };
  switch (sizes[dtype]) {
    case 8: return ((const uint64_t *)memory)[at] == marks[dtype];
    case 4: return ((const uint32_t *)memory)[at] == (uint32_t)marks[dtype];
    case 2: return ((const uint16_t *)memory)[at] == (uint16_t)marks[dtype];
    default: return ((const uint8_t *)memory)[at] == (uint8_t)marks[dtype];
  }
}

/* ---- buffers ---- */
typedef struct buffer {
  char   *memory, *copy;
  uint8_t *mine;                             /* elements that belong to a task of an output */
  size_t  bytes;
  int64_t count, first;                      /* elements in all; the wire's element 0 */
  int     dtype, access, add;
  place   p;
} buffer;

static int wire_dtype(const ck_case *c, const ck_how *how, int o, int w) {
  const mica_operand *operand = &c->op->operands[o];
  if (operand->role & MICA_INDEX)
    return how->index_dtype ? how->index_dtype : operand->domain == MICA_MASK ? MICA_U8 : MICA_I32;
  /* parameter cotangents are fp32 or wider */
  if (how->target.dtype == MICA_BF16 && (operand->role & MICA_PARAM) && (w == CK_D || w == CK_TD)) return MICA_F32;
  return how->target.dtype;
}

/* rows outside of the range that a row-local phase was asked for must not be read */
static int outside(const ck_case *c, const ck_how *how, int o, int64_t b, int64_t e) {
  if (how->row_count <= 0 || !ck_row_axis(c, o) || c->o[o].n[1] <= 1) return 0;
  int64_t row = c->o[o].offsets ? c->o[o].offsets[b] : b * c->o[o].n[1];
  row += e / (c->o[o].elems / c->o[o].n[1]);
  return row < how->row_first || row >= how->row_first + how->row_count;
}

static void buffer_make(const ck_case *c, const ck_how *how, int o, int w, const ck_data *in, ck_data *start, buffer *f,
                        mica_wire *wire) {
  const mica_operand *operand = &c->op->operands[o];
  int kind = ck_kind(c, how->face, how->layout, o, w);
  f->access = ck_access(c, how->face, o, w);
  f->dtype = wire_dtype(c, how, o, w);
  place_make(c, kind, o, w, &f->p);
  f->first = kind == CK_PADDED ? GUARD + 1 : GUARD;  /* off alignment */
  f->count = f->p.span + 2 * GUARD + 1;
  size_t size = mica_dtype_size(f->dtype);
  f->bytes = ((size_t)f->count * size + 127) & ~(size_t)63;
  f->memory = aligned_alloc(64, f->bytes);
  if (f->access == 2) f->mine = calloc((size_t)f->count, 1);
  else f->copy = malloc(f->bytes);
  if (!f->memory || !(f->copy || f->mine)) exit(2);
  memset(f->memory + f->bytes - 128, 0, 128); /* what rounding to whole lines leaves */
  fence_all(f->dtype, f->memory, f->count, f->access != 2);
  f->add = f->access == 2 && how->layout && how->layout->add[o][w] && !(operand->role & MICA_SAVED);
  int64_t n = c->o[o].elems;
  for (int64_t b = 0; b < c->B && f->access; b++) {
    int64_t mine = f->p.slot[b] >= 0 ? ck_elems(c, o, b) : 0;
    for (int64_t e = 0; e < mine; e++) {
      int64_t at = f->first + place_at(&f->p, b, e);
      if (f->access == 2) f->mine[at] = 1;
      else if (how->row_count <= 0 || (operand->role & MICA_INDEX) || !outside(c, how, o, b, e))
        put(f->dtype, f->memory, at, in->x[o][w] ? in->x[o][w][b * n + e] : 0);
      if (f->add) {
        put(f->dtype, f->memory, at, (double)(float)(2 * ck_uniform(ck_hash((uint64_t)at, (uint64_t)(o * 8 + w))) - 1));
        if (start) ck_at(c, start, o, w)[b * n + e] = get(f->dtype, f->memory, at);
      }
    }
  }
  if (f->copy) memcpy(f->copy, f->memory, f->bytes);
  wire->data = f->memory + f->first * (int64_t)size;
  wire->slot = f->p.slots ? f->p.slot : NULL;
  wire->task_stride = f->p.task_stride;
  memcpy(wire->stride, f->p.stride, sizeof wire->stride);
  wire->dtype = f->dtype;
  wire->flags = f->add ? MICA_ADD : 0;
}

/* inputs, guards and gaps as before; outputs written, and read back */
static void buffer_check(const ck_case *c, const ck_how *how, int o, int w, ck_data *out, const buffer *f) {
  const char *name = ck_wire_name(c, o, w);
  if (f->access != 2) {
    ck_check(!memcmp(f->memory, f->copy, f->bytes), "%s was changed, but the face must not write it", name);
    return;
  }
  int64_t missed = 0, spoilt = 0, n = c->o[o].elems;
  for (int64_t i = 0; i < f->count; i++)
    if (!f->mine[i]) spoilt += !fenced(f->dtype, f->memory, i);
    else if (!f->add) missed += fenced(f->dtype, f->memory, i);
  ck_check(!spoilt, "%s: %lld elements outside of the output were written (gaps, guards or unused slots)", name,
           (long long)spoilt);
  if (how->row_count <= 0)
    ck_check(!missed, "%s: %lld of its elements were not written", name, (long long)missed);
  missed = 0;
  double *x = ck_at(c, out, o, w);
  for (int64_t b = 0; b < c->B; b++) {
    int64_t mine = f->p.slot[b] >= 0 ? ck_elems(c, o, b) : 0;
    for (int64_t e = 0; e < mine; e++) {
      int64_t at = f->first + place_at(&f->p, b, e);
      if (how->row_count > 0) {
        int untouched = fenced(f->dtype, f->memory, at);
        if (outside(c, how, o, b, e) || !ck_row_axis(c, o)) missed += !untouched;
        x[b * n + e] = untouched ? HUGE_VAL : get(f->dtype, f->memory, at);  /* HUGE_VAL: not written by this phase */
      } else {
        x[b * n + e] = get(f->dtype, f->memory, at);
      }
    }
  }
  if (how->row_count > 0)
    ck_check(!missed, "%s: a row-local phase wrote %lld elements outside of its rows", name, (long long)missed);
}

mica_status ck_run(const ck_case *c, const ck_how *how, const ck_data *in, ck_data *out, ck_data *start) {
  const mica_op *op = c->op;
  void *args = malloc(op->args_size);
  buffer *buffers = calloc((size_t)op->n_operands * CK_WIRES, sizeof *buffers);
  if (!args || !buffers) exit(2);
  memcpy(args, c->args, op->args_size);
  for (int o = 0; o < op->n_operands; o++) {
    mica_port *port = micak_port(&op->operands[o], args);
    if (!c->o[o].present) continue;
    port->offsets = c->o[o].offsets;
    for (int w = 0; w < CK_WIRES; w++) {
      if ((op->operands[o].role & MICA_INDEX) && w != CK_V) continue;
      if (how->layout && how->layout->null[o][w]) continue;
      buffer_make(c, how, o, w, in, start, &buffers[o * CK_WIRES + w], micak_wire(port, CK_BIT(w)));
    }
  }
  mica_status status;
  if (how->row_count > 0) {
    const mica_kernel *kernel;
    int32_t phases;
    status = mica_op_kernels(op, how->target.backend, how->target.dtype, how->face, &kernel, &phases);
    mica_split split = { 1, 1, 0, 0 };
    if (status >= 0 && kernel->split) kernel->split(args, &split);
    mica_exec exec = { .size = sizeof exec, .isa = how->target.isa, .scratch_bytes = split.scratch_bytes };
    exec.scratch = aligned_alloc(64, (split.scratch_bytes + 64) & ~(size_t)63);
    if (!exec.scratch) exit(2);
    memset(exec.scratch, 0xff, split.scratch_bytes);
    if (status >= 0) status = kernel->run(&exec, args, how->row_first, how->row_count);
    free(exec.scratch);
  } else if (how->target.backend == MICA_CUDA) {
    ck_span spans[CK_MAX * CK_WIRES];
    for (int i = 0; i < op->n_operands * CK_WIRES; i++) spans[i] = (ck_span){ buffers[i].memory, buffers[i].bytes };
    status = ck_device_run(how, c, args, spans);
  } else {
    status = micah_run_face_as(how->context ? how->context : ck_context[CK_SERIAL], op, how->target.backend,
                               how->target.dtype, how->face, args, how->target.isa, how->range);
  }
  for (int i = 0; i < op->n_operands * CK_WIRES; i++) {
    buffer *f = &buffers[i];
    if (!f->memory) continue;
    if (status >= 0) buffer_check(c, how, i / CK_WIRES, i % CK_WIRES, out, f);
    free(f->memory);
    free(f->copy);
    free(f->mine);
    place_free(&f->p);
  }
  free(buffers);
  free(args);
  return status;
}

mica_status ck_chain(const ck_case *c, ck_target target, int faces, ck_data *d) {
  static const int order[] = { MICA_FORWARD, MICA_JVP, MICA_BACKWARD, MICA_BACKWARD_JVP };
  for (int i = 0; i < MICA_NFACE; i++) {
    if (!(faces & (1 << order[i]))) continue;
    ck_how how = { .target = target, .face = order[i] };
    mica_status status = ck_run(c, &how, d, d, NULL);
    if (status < 0) return status;
  }
  return MICA_OK;
}
