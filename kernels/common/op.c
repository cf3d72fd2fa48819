#include "common/op.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/names.h"

static const struct { const char *name; size_t size; } dtypes[MICA_NDTYPE] = {
  { "f32", 4 }, { "f64", 8 }, { "bf16", 2 }, { "i32", 4 }, { "i64", 8 }, { "u8", 1 },
};
static const char *const face_names[MICA_NSLOT] = { "forward", "backward", "jvp", "backward_jvp", "forward+jvp",
                                                    "backward+backward_jvp" };
static const char *const backend_names[MICA_NBACKEND] = { "ref", "cpu", "cuda" };

size_t mica_dtype_size(int dtype) { return dtype >= 0 && dtype < MICA_NDTYPE ? dtypes[dtype].size : 0; }
const char *mica_dtype_name(int dtype) { return dtype >= 0 && dtype < MICA_NDTYPE ? dtypes[dtype].name : "?"; }
int mica_dtype_parse(const char *name) {
  for (int i = 0; i < MICA_NDTYPE; i++)
    if (!strcasecmp(name, dtypes[i].name)) return i;
  return -1;
}
const char *mica_face_name(int face) { return face >= 0 && face < MICA_NSLOT ? face_names[face] : "?"; }
const char *mica_backend_name(int backend) {
  return backend >= 0 && backend < MICA_NBACKEND ? backend_names[backend] : "?";
}

int micak_per_task(const mica_wire *wire, const int32_t *offsets, int64_t tasks) {
  for (int64_t b = 1; b < tasks; b++) {
    if (!wire->slot) return offsets || wire->task_stride;
    if (wire->slot[b] >= 0 && wire->slot[b] == wire->slot[b - 1]) return 0;
  }
  return 1;
}

void micak_find_row(const int32_t *offsets, int64_t tasks, int64_t rows, int64_t n, int64_t *task, int64_t *row) {
  if (!offsets) {
    *task = n / rows;
    *row = n % rows;
    return;
  }
  int64_t lo = 0, hi = tasks;  /* the last task that starts at or before row n and is not empty */
  while (hi - lo > 1) {
    int64_t mid = (lo + hi) / 2;
    if (offsets[mid] <= n) lo = mid;
    else hi = mid;
  }
  *task = lo;
  *row = n - offsets[lo];
}

const mica_operand *micak_operand(const mica_op *op, const char *name, size_t length) {
  for (int i = 0; i < op->n_operands; i++)
    if (strlen(op->operands[i].name) == length && !memcmp(op->operands[i].name, name, length)) return &op->operands[i];
  return NULL;
}

/* ---- argument structs ---- */

static const mica_dim *find_dim(const mica_op *op, const char *name, size_t length) {
  for (int i = 0; i < op->n_dims; i++)
    if (strlen(op->dims[i].name) == length && !memcmp(op->dims[i].name, name, length)) return &op->dims[i];
  return NULL;
}

static void put_param(const mica_param *param, void *args, double value) {
  char *at = (char *)args + param->offset;
  if (param->type == MICA_PARAM_REAL) *(double *)at = value;
  else *(int64_t *)at = (int64_t)value;
}

mica_status mica_args_init(const mica_op *op, void *args) {
  if (!op || !args) return mica_error(MICA_ERR_INVALID, "mica_args_init: no operation or no arguments");
  memset(args, 0, op->args_size);
  *(size_t *)args = op->args_size;
  for (int i = 0; i < op->n_dims; i++) *micak_dim(&op->dims[i], args) = -1;
  for (int i = 0; i < op->n_params; i++) put_param(&op->params[i], args, op->params[i].value);
  return MICA_OK;
}

static const char *setting_name(const void *list, int index) {
  const mica_op *op = list;
  if (index < op->n_dims) return op->dims[index].name;
  index -= op->n_dims;
  return index < op->n_params ? op->params[index].name : NULL;
}

static mica_status set_one(const mica_op *op, void *args, const char *name, size_t n, const char *value, size_t m) {
  char text[64];
  if (m == 0 || m >= sizeof text)
    return mica_error(MICA_ERR_INVALID, "%s: setting '%.*s' has no value or one that is too long", op->name, (int)n, name);
  memcpy(text, value, m);
  text[m] = 0;
  char *end;
  const mica_dim *dim = find_dim(op, name, n);
  if (dim) {
    long long size = strtoll(text, &end, 10);
    if (*end || size < 0)
      return mica_error(MICA_ERR_INVALID, "%s: size %s is '%s', expected a whole number >= 0", op->name, dim->name, text);
    *micak_dim(dim, args) = size;
    return MICA_OK;
  }
  for (int i = 0; i < op->n_params; i++) {
    const mica_param *param = &op->params[i];
    if (strlen(param->name) != n || memcmp(param->name, name, n)) continue;
    double number;
    if (param->type == MICA_PARAM_CHOICE) {
      int index = micak_choice(param->choices, text, m);
      if (index < 0)
        return mica_error(MICA_ERR_INVALID, "%s: %s is '%s', expected one of %s", op->name, param->name, text,
                          param->choices);
      number = index;
    } else {
      number = strtod(text, &end);
      if (*end || !(number >= param->lo && number <= param->hi) ||
          (param->type == MICA_PARAM_INT && number != floor(number)))
        return mica_error(MICA_ERR_INVALID, "%s: %s is '%s', expected a %s in [%g, %g]", op->name, param->name, text,
                          param->type == MICA_PARAM_INT ? "whole number" : "number", param->lo, param->hi);
    }
    put_param(param, args, number);
    return MICA_OK;
  }
  char wanted[64];
  snprintf(wanted, sizeof wanted, "%.*s", (int)n, name);
  const char *near = micak_nearest(wanted, setting_name, op);
  return mica_error(MICA_ERR_INVALID, "%s has no size or setting '%s'%s%s%s", op->name, wanted,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

mica_status mica_args_set(const mica_op *op, void *args, const char *settings) {
  for (const char *p = settings ? settings : ""; *p;) {
    p += strspn(p, " ");
    size_t n = strcspn(p, "= ");
    if (n == 0 && !*p) break;
    if (p[n] != '=') return mica_error(MICA_ERR_INVALID, "%s: '%.*s' is not name=value", op->name, (int)n, p);
    size_t m = strcspn(p + n + 1, " ");
    /* "b=none" leaves an optional operand out; who allocates ports looks at it */
    const mica_operand *operand = micak_operand(op, p, n);
    if (operand && m == 4 && !memcmp(p + n + 1, "none", 4)) {
      if (!(operand->role & MICA_OPTIONAL))
        return mica_error(MICA_ERR_INVALID, "%s: operand %s is not optional", op->name, operand->name);
    } else {
      mica_status status = set_one(op, args, p, n, p + n + 1, m);
      if (status < 0) return status;
    }
    p += n + 1 + m;
  }
  return MICA_OK;
}

int mica_operand_shape(const mica_op *op, const mica_operand *operand, const void *args,
                       int64_t shape[MICA_MAX_RANK]) {
  int rank = 0;
  for (const char *p = operand->shape; *p && rank < MICA_MAX_RANK;) {
    size_t n = strcspn(p, " ");
    const mica_dim *dim = find_dim(op, p, n);
    shape[rank++] = dim ? *micak_dim(dim, args) : strtoll(p, NULL, 10);  /* "1", "2": literal sizes */
    p += n + strspn(p + n, " ");
  }
  return rank;
}

void mica_wire_dense(const mica_op *op, const mica_operand *operand, const void *args, int dtype, int shared,
                     void *data, mica_wire *wire) {
  int64_t shape[MICA_MAX_RANK];
  int rank = mica_operand_shape(op, operand, args, shape);
  int64_t stride = 1;
  memset(wire, 0, sizeof *wire);
  for (int i = rank - 1; i >= 1; i--) {
    wire->stride[i - 1] = stride;
    stride *= shape[i];
  }
  wire->task_stride = shared ? 0 : stride;
  wire->dtype = dtype;
  wire->data = data;
}

mica_status mica_args_check(const mica_op *op, const void *args, int face) {
  if (*(const size_t *)args != op->args_size)
    return mica_error(MICA_ERR_INVALID, "%s: argument struct says %zu bytes, expected %zu; initialise it with mica_args_init",
                      op->name, *(const size_t *)args, op->args_size);
  for (int i = 0; i < op->n_dims; i++)
    if (*micak_dim(&op->dims[i], args) < 0)
      return mica_error(MICA_ERR_SHAPE, "%s: size %s is not known", op->name, op->dims[i].name);
  for (int i = 0; i < op->n_operands; i++) {
    const mica_operand *operand = &op->operands[i];
    mica_port *port = micak_port(operand, args);
    int input = operand->role & (MICA_IN | MICA_INDEX);
    if (input && !(operand->role & MICA_OPTIONAL) && (operand->reads[face] & MICA_V) && !port->v.data)
      return mica_error(MICA_ERR_INVALID, "%s %s: input %s.v is missing", op->name, face_names[face], operand->name);
    if ((operand->role & MICA_INDEX) && (port->d.data || port->t.data || port->td.data))
      return mica_error(MICA_ERR_INVALID, "%s: %s is an index port; it has only a value, no d, t or td", op->name,
                        operand->name);
    for (int bit = MICA_V; bit <= MICA_TD; bit <<= 1) {
      const mica_wire *wire = micak_wire(port, bit);
      if (wire->data && (wire->dtype < 0 || wire->dtype >= MICA_NDTYPE))
        return mica_error(MICA_ERR_INVALID, "%s: %s has no valid dtype (%d)", op->name, operand->name, wire->dtype);
      int integer = wire->dtype >= MICA_I32;
      if (wire->data && integer != !!(operand->role & MICA_INDEX))
        return mica_error(MICA_ERR_INVALID, "%s: %s is %s, expected %s", op->name, operand->name,
                          mica_dtype_name(wire->dtype), integer ? "a floating type" : "an integer type");
    }
  }
  return MICA_OK;
}

mica_status mica_op_kernels(const mica_op *op, int backend, int dtype, int face, const mica_kernel **first,
                            int32_t *count) {
  *first = NULL;
  *count = 0;
  for (int i = 0; i < op->n_kernels; i++) {
    const mica_kernel *kernel = &op->kernels[i];
    if (kernel->backend != backend || kernel->dtype != dtype || kernel->face != face) continue;
    if (!*first) *first = kernel;
    ++*count;
  }
  if (*count) return MICA_OK;
  /* what there is instead: "; it has ref/f64 cpu/f32" */
  char   has[256] = "";
  size_t at = 0;
  for (int b = 0; b < MICA_NBACKEND; b++)
    for (int d = 0; d < MICA_NDTYPE; d++) {
      int found = 0;
      for (int i = 0; i < op->n_kernels; i++)
        found |= op->kernels[i].backend == b && op->kernels[i].dtype == d && op->kernels[i].face == face;
      if (found && at < sizeof has)
        at += (size_t)snprintf(has + at, sizeof has - at, "%s %s/%s", at ? "" : "; it has", mica_backend_name(b),
                               mica_dtype_name(d));
    }
  return mica_error(MICA_ERR_UNSUPPORTED, "%s has no %s face on backend %s for %s%s", op->name, mica_face_name(face),
                    mica_backend_name(backend), mica_dtype_name(dtype), has);
}
