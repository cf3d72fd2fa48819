#include "cli/op_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/names.h"
#include "common/op.h"
#include "common/ref.h"
#include "host/device/device.h"
#include "host/io/safetensors.h"

enum { MAX_OPERANDS = 32, MAX_WIRES = 4 * MAX_OPERANDS };

typedef struct micac_op_work {
  micac_op_job            *job;
  const mica_op           *op;
  micah_safetensors       *file;
  void                    *args;
  int32_t                 *offsets[MAX_OPERANDS]; /* packed operands; equal row symbols share one */
  int                      owner[MAX_OPERANDS];   /* 1: offsets[i] is to be freed */
  int                      shared[MAX_OPERANDS];  /* given without a task axis */
  int                      faces[MICA_NFACE];     /* to run */
  void                    *buffers[MAX_WIRES];
  size_t                   bytes[MAX_WIRES];      /* of each buffer */
} work;

static const struct { int bit; const char *name; } wires[4] = {
  { MICA_V, "v" }, { MICA_D, "d" }, { MICA_T, "t" }, { MICA_TD, "td" },
};

/* n-th word of "B T C" */
static int symbol(const mica_operand *operand, int index, char text[32]) {
  const char *p = operand->shape;
  for (int i = 0; *p; i++) {
    size_t n = strcspn(p, " ");
    if (i == index) return snprintf(text, 32, "%.*s", (int)n, p) > 0;
    p += n + strspn(p + n, " ");
  }
  return 0;
}

static int rank_of(const mica_operand *operand) {
  char text[32];
  int  rank = 0;
  while (symbol(operand, rank, text)) rank++;
  return rank;
}

static const char *wire_name_at(const void *list, int index) {
  const mica_op *op = list;
  return index < op->n_operands ? op->operands[index].name : NULL;
}

/* "q.v", "q" -> operand and wire bit; offsets have names of their own */
static mica_status parse_name(const work *w, const char *name, int *operand, int *bit) {
  const char *dot = strchr(name, '.');
  size_t      n = dot ? (size_t)(dot - name) : strlen(name);
  const mica_operand *found = micak_operand(w->op, name, n);
  *bit = 0;
  for (int i = 0; i < 4; i++)
    if (!strcmp(dot ? dot + 1 : "v", wires[i].name)) *bit = wires[i].bit;
  if (found && *bit) {
    *operand = (int)(found - w->op->operands);
    return MICA_OK;
  }
  char port[64];
  snprintf(port, sizeof port, "%.*s", (int)n, name);
  const char *near = micak_nearest(port, wire_name_at, w->op);
  return mica_error(MICA_ERR_FORMAT, "%s: '%s' is not a wire of %s; expected PORT.v, .d, .t or .td%s%s%s", w->job->in, name,
                    w->op->name, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* an optional operand that a setting NAME=none leaves out */
static int left_out(const work *w, const mica_operand *operand) {
  char text[96];
  int  n = snprintf(text, sizeof text, "%s=none", operand->name);
  for (int i = 0; i < w->job->n_set; i++)
    for (const char *at = w->job->set[i]; (at = strstr(at, text)); at += n)
      if ((at == w->job->set[i] || at[-1] == ' ') && (!at[n] || at[n] == ' ')) return 1;
  return 0;
}

static const micah_tensor *find_wire(const work *w, const mica_operand *operand, int bit) {
  char name[96];
  if (left_out(w, operand)) return NULL;
  for (int i = 0; i < 4; i++)
    if (wires[i].bit == bit) snprintf(name, sizeof name, "%s.%s", operand->name, wires[i].name);
  const micah_tensor *tensor = micah_safetensors_find(w->file, name);
  return tensor || bit != MICA_V ? tensor : micah_safetensors_find(w->file, operand->name);
}

/* B + 1 offsets from 0, never falling */
static mica_status read_offsets(const work *w, const micah_tensor *tensor, int32_t **out) {
  if (tensor->rank != 1 || tensor->shape[0] < 1 || (tensor->dtype != MICA_I32 && tensor->dtype != MICA_I64))
    return mica_error(MICA_ERR_FORMAT, "%s: %s must be one row of at least one I32 or I64", w->job->in, tensor->name);
  int32_t *offsets = malloc((size_t)tensor->shape[0] * sizeof *offsets);
  if (!offsets) return mica_error(MICA_ERR_MEMORY, "%s: no memory for %s", w->job->in, tensor->name);
  int64_t last = 0;
  for (int64_t i = 0; i < tensor->shape[0]; i++) {
    int64_t at = tensor->dtype == MICA_I32 ? ((const int32_t *)tensor->data)[i] : ((const int64_t *)tensor->data)[i];
    if (at < last || at > INT32_MAX || (i == 0 && at != 0)) {
      free(offsets);
      return mica_error(MICA_ERR_FORMAT, "%s: %s[%lld] is %lld, expected offsets that start at 0 and never fall", w->job->in,
                        tensor->name, (long long)i, (long long)at);
    }
    offsets[i] = (int32_t)at;
    last = at;
  }
  *out = offsets;
  return MICA_OK;
}

/* does cu_seqlens (or cu_seqlens_NAME of an operand with the same row symbol) say how this operand is packed? */
static const micah_tensor *offsets_tensor(const work *w, int index) {
  const mica_operand *operand = &w->op->operands[index];
  char rows[32], other[32], name[96];
  if ((operand->role & MICA_PARAM) || !symbol(operand, 1, rows)) return NULL;
  for (int i = 0; i < w->op->n_operands; i++) {
    if (!symbol(&w->op->operands[i], 1, other) || strcmp(rows, other)) continue;
    snprintf(name, sizeof name, "cu_seqlens_%s", w->op->operands[i].name);
    const micah_tensor *tensor = micah_safetensors_find(w->file, name);
    if (tensor) return tensor;
  }
  const micah_tensor *all = micah_safetensors_find(w->file, "cu_seqlens");
  if (!all) return NULL;
  /* only rows that some input really gives packed */
  for (int i = 0; i < w->op->n_operands; i++) {
    const mica_operand *given = &w->op->operands[i];
    const micah_tensor *value = find_wire(w, given, MICA_V);
    if (value && !(given->role & MICA_PARAM) && symbol(given, 1, other) && !strcmp(rows, other) &&
        value->rank == rank_of(given) - 1)
      return all;
  }
  return NULL;
}

static mica_status set_size(work *w, const char *name, int64_t size, const char *because) {
  for (int i = 0; i < w->op->n_dims; i++) {
    if (strcmp(w->op->dims[i].name, name)) continue;
    int64_t *at = micak_dim(&w->op->dims[i], w->args);
    if (*at >= 0 && *at != size)
      return mica_error(MICA_ERR_SHAPE, "%s: size %s is %lld by %s but %lld elsewhere", w->job->in, name, (long long)size,
                        because, (long long)*at);
    *at = size;
    return MICA_OK;
  }
  char *end;
  long long literal = strtoll(name, &end, 10);
  if (!*end && literal != size)
    return mica_error(MICA_ERR_SHAPE, "%s: %s has %lld where %s is expected", w->job->in, because, (long long)size, name);
  return MICA_OK;
}

/* sizes from one given tensor */
static mica_status bind_shape(work *w, int index, const micah_tensor *tensor) {
  const mica_operand *operand = &w->op->operands[index];
  int  rank = rank_of(operand), packed = w->offsets[index] != NULL;
  char name[32];
  if (tensor->rank != rank && (tensor->rank != rank - 1 || (operand->role & (MICA_OUT | MICA_SAVED) && !packed)))
    return mica_error(MICA_ERR_SHAPE, "%s: %s has %d axes, expected (%s)", w->job->in, tensor->name, tensor->rank,
                      operand->shape);
  if (packed && tensor->rank != rank - 1)
    return mica_error(MICA_ERR_SHAPE, "%s: %s has %d axes, expected packed rows: (%s) without the task axis", w->job->in,
                      tensor->name, tensor->rank, operand->shape);
  int shared = !packed && tensor->rank == rank - 1;
  if (w->shared[index] >= 0 && w->shared[index] != shared)
    return mica_error(MICA_ERR_SHAPE, "%s: %s must have a task axis as %s.v has, or neither", w->job->in, tensor->name,
                      operand->name);
  w->shared[index] = shared;
  for (int i = rank - tensor->rank; i < rank; i++) {
    symbol(operand, i, name);
    int64_t size = tensor->shape[i - (rank - tensor->rank)];
    if (packed && i == 1) {
      int64_t tasks = *micak_dim(&w->op->dims[0], w->args);
      if (size != w->offsets[index][tasks])
        return mica_error(MICA_ERR_SHAPE, "%s: %s has %lld rows, the offsets end at %d", w->job->in, tensor->name,
                          (long long)size, w->offsets[index][tasks]);
      continue;
    }
    mica_status status = set_size(w, name, size, tensor->name);
    if (status < 0) return status;
  }
  return MICA_OK;
}

static mica_status bind_offsets(work *w) {
  for (int i = 0; i < w->op->n_operands; i++) {
    const micah_tensor *tensor = offsets_tensor(w, i);
    char rows[32];
    if (!tensor) continue;
    mica_status status = read_offsets(w, tensor, &w->offsets[i]);
    if (status < 0) return status;
    w->owner[i] = 1;
    int64_t tasks = tensor->shape[0] - 1, longest = 0;
    for (int64_t b = 0; b < tasks; b++) {
      int64_t n = w->offsets[i][b + 1] - w->offsets[i][b];
      if (n > longest) longest = n;
    }
    symbol(&w->op->operands[i], 1, rows);
    if ((status = set_size(w, "B", tasks, tensor->name)) < 0 || (status = set_size(w, rows, longest, tensor->name)) < 0)
      return status;
  }
  return MICA_OK;
}

static double element(const micah_tensor *tensor, int64_t i) {
  mica_wire wire = { .dtype = tensor->dtype };
  switch (tensor->dtype) {
    case MICA_I32: return ((const int32_t *)tensor->data)[i];
    case MICA_I64: return (double)((const int64_t *)tensor->data)[i];
    case MICA_U8: return ((const uint8_t *)tensor->data)[i];
    default: return micak_get(&wire, (const char *)tensor->data + i * (int64_t)mica_dtype_size(tensor->dtype));
  }
}

static int64_t wire_count(const work *w, int index) {
  int64_t shape[MICA_MAX_RANK], count = 1;
  int rank = mica_operand_shape(w->op, &w->op->operands[index], w->args, shape);
  if (w->shared[index] == 1) shape[0] = 1;
  if (w->offsets[index]) {
    shape[1] = w->offsets[index][shape[0]];
    shape[0] = 1;
  }
  for (int i = 0; i < rank; i++) count *= shape[i];
  return count;
}

/* cotangents of parameters and what is saved stay fp32 in bf16 runs */
static int wire_dtype(const work *w, const mica_operand *operand, int bit) {
  if (operand->role & MICA_INDEX) return MICA_I32;
  int wide = (operand->role & MICA_SAVED) || ((operand->role & MICA_PARAM) && (bit & (MICA_D | MICA_TD)));
  return w->job->dtype == MICA_BF16 && wide ? MICA_F32 : w->job->dtype;
}

/* as the library's own memory: large arrays on huge pages where the system gives them */
static void *array_alloc(size_t bytes) {
  size_t huge = (size_t)2 << 20, align = bytes >= huge ? huge : 64;
  void  *data = aligned_alloc(align, (bytes + align - 1) / align * align);
#ifdef MADV_HUGEPAGE
  if (data && bytes >= huge) madvise(data, (bytes + align - 1) / align * align, MADV_HUGEPAGE);
#endif
  return data;
}

static mica_status make_wire(work *w, int index, int bit, const micah_tensor *from) {
  const mica_operand *operand = &w->op->operands[index];
  mica_port *port = micak_port(operand, w->args);
  mica_wire *wire = micak_wire(port, bit);
  int64_t count = wire_count(w, index);
  int     dtype = wire_dtype(w, operand, bit);
  size_t  bytes = (size_t)(count ? count : 1) * mica_dtype_size(dtype);
  void   *data = array_alloc(bytes);
  if (!data) return mica_error(MICA_ERR_MEMORY, "%s: no memory for %s (%zu bytes)", w->op->name, operand->name, bytes);
  int at = 0;
  while (w->buffers[at]) at++;
  w->buffers[at] = data;
  w->bytes[at] = bytes;
  memset(data, 0, bytes);
  mica_wire_dense(w->op, operand, w->args, dtype, w->shared[index] == 1, data, wire);
  port->offsets = w->offsets[index];
  if (!from) return MICA_OK;
  if (count != micah_tensor_count(from))
    return mica_error(MICA_ERR_SHAPE, "%s: %s has %lld elements, expected %lld", w->job->in, from->name,
                      (long long)micah_tensor_count(from), (long long)count);
  int whole = from->dtype == MICA_I32 || from->dtype == MICA_I64 || from->dtype == MICA_U8;
  if (whole != !!(operand->role & MICA_INDEX))
    return mica_error(MICA_ERR_FORMAT, "%s: %s is %s, expected %s", w->job->in, from->name, mica_dtype_name(from->dtype),
                      whole ? "a floating type" : "I32, I64 or U8");
  for (int64_t i = 0; i < count; i++) {
    double value = element(from, i);
    if (!whole) {
      micak_put(wire, (char *)data + i * (int64_t)mica_dtype_size(dtype), value);
      continue;
    }
    if (value < INT32_MIN || value > INT32_MAX)
      return mica_error(MICA_ERR_FORMAT, "%s: %s[%lld] does not fit 32 bits", w->job->in, from->name, (long long)i);
    ((int32_t *)data)[i] = (int32_t)value;
  }
  /* an index beyond its table would read wild memory */
  for (int64_t i = 0; whole && operand->domain == MICA_RANGE && operand->range && i < count; i++)
    for (int k = 0; k < w->op->n_dims; k++)
      if (!strcmp(w->op->dims[k].name, operand->range) && ((int32_t *)data)[i] >= *micak_dim(&w->op->dims[k], w->args))
        return mica_error(MICA_ERR_INVALID, "%s: %s[%lld] is %d, expected less than %s = %lld", w->job->in, from->name,
                          (long long)i, ((int32_t *)data)[i], operand->range,
                          (long long)*micak_dim(&w->op->dims[k], w->args));
  return MICA_OK;
}

static int is_input(const mica_operand *operand) { return (operand->role & (MICA_IN | MICA_INDEX)) != 0; }

/* which wires of an operand this job needs: read from the file, or written by a face that runs */
static mica_status make_port(work *w, int index) {
  const mica_operand *operand = &w->op->operands[index];
  int written = 0;
  if (left_out(w, operand) || (is_input(operand) && !find_wire(w, operand, MICA_V))) return MICA_OK; /* optional */
  for (int face = 0; face < MICA_NFACE; face++)
    if (w->faces[face]) written |= operand->writes[face];
  for (int i = 0; i < 4; i++) {
    int bit = wires[i].bit;
    const micah_tensor *from = written & bit ? NULL : find_wire(w, operand, bit);
    if (!(written & bit) && !from) continue;
    mica_status status = make_wire(w, index, bit, from);
    if (status < 0) return status;
  }
  return MICA_OK;
}

mica_status micac_op_write(micac_op_work *w) {
  micah_tensor tensors[MAX_WIRES];
  char names[MAX_WIRES][64];
  int  n = 0;
  for (int i = 0; i < w->op->n_operands; i++) {
    const mica_operand *operand = &w->op->operands[i];
    mica_port *port = micak_port(operand, w->args);
    int written = 0;
    for (int face = 0; face < MICA_NFACE; face++)
      if (w->faces[face]) written |= operand->writes[face];
    for (int k = 0; k < 4; k++) {
      const mica_wire *wire = micak_wire(port, wires[k].bit);
      if (!(written & wires[k].bit) || !wire->data) continue;
      int64_t shape[MICA_MAX_RANK];
      int rank = mica_operand_shape(w->op, operand, w->args, shape), skip = w->shared[i] == 1 || w->offsets[i];
      if (w->offsets[i]) shape[1] = w->offsets[i][shape[0]];
      snprintf(names[n], sizeof names[n], "%s.%s", operand->name, wires[k].name);
      micah_tensor *tensor = &tensors[n];
      *tensor = (micah_tensor) { .name = names[n], .dtype = wire->dtype, .rank = rank - skip, .data = wire->data };
      memcpy(tensor->shape, shape + skip, (size_t)(rank - skip) * sizeof *shape);
      n++;
    }
  }
  const micah_meta meta[] = {
    { "op", w->op->name }, { "face", mica_face_name(w->job->face) }, { "backend", mica_backend_name(w->job->backend) },
    { "dtype", mica_dtype_name(w->job->dtype) },
  };
  w->job->written = n;
  return micah_safetensors_write(w->job->out, tensors, n, meta, MICA_COUNT(meta));
}

static mica_status prepare(work *w) {
  mica_status status = mica_args_init(w->op, w->args);
  for (int i = 0; status >= 0 && i < w->job->n_set; i++) status = mica_args_set(w->op, w->args, w->job->set[i]);
  if (status < 0) return status;
  for (int64_t i = 0; i < micah_safetensors_count(w->file); i++) {
    const char *name = micah_safetensors_get(w->file, i)->name;
    int operand, bit;
    const char *port = strncmp(name, "cu_seqlens", 10) ? NULL : name[10] == '_' ? name + 11 : name + 10;
    if (port && (!*port || micak_operand(w->op, port, strlen(port)))) continue;
    if ((status = parse_name(w, name, &operand, &bit)) < 0) return status;
  }
  if ((status = bind_offsets(w)) < 0) return status;
  for (int i = 0; i < w->op->n_operands; i++)
    for (int k = 0; k < 4; k++) {
      const micah_tensor *tensor = find_wire(w, &w->op->operands[i], wires[k].bit);
      /* wires that the faces will write are not inputs, but their shapes still count */
      if (tensor && (status = bind_shape(w, i, tensor)) < 0) return status;
    }
  for (int i = 0; i < w->op->n_operands; i++) {
    const mica_operand *operand = &w->op->operands[i];
    if (is_input(operand) && !(operand->role & MICA_OPTIONAL) && !find_wire(w, operand, MICA_V))
      return mica_error(MICA_ERR_INVALID, "%s: %s.v is missing; %s needs it", w->job->in, operand->name, w->op->name);
  }
  int64_t *tasks = micak_dim(&w->op->dims[0], w->args);
  if (*tasks < 0) *tasks = 1;
  for (int i = 0; i < w->op->n_operands; i++) /* infer looks at which optional ports are there */
    if (find_wire(w, &w->op->operands[i], MICA_V)) micak_port(&w->op->operands[i], w->args)->v.data = w;
  if (w->op->infer && (status = w->op->infer(w->args)) < 0) return status;
  for (int i = 0; i < w->op->n_operands; i++) micak_port(&w->op->operands[i], w->args)->v.data = NULL;
  for (int i = 0; i < w->op->n_dims; i++)
    if (*micak_dim(&w->op->dims[i], w->args) < 0)
      return mica_error(MICA_ERR_SHAPE, "%s: size %s of %s does not follow from the arrays; give it with --set %s=N",
                        w->job->in, w->op->dims[i].name, w->op->name, w->op->dims[i].name);
  for (int i = 0; i < w->op->n_operands; i++)
    if ((status = make_port(w, i)) < 0) return status;
  return MICA_OK;
}

/* faces to run, in the order forward, backward, jvp, backward_jvp */
static const uint8_t needs[MICA_NFACE][MICA_NFACE] = {
  { 1, 0, 0, 0 }, { 1, 1, 0, 0 }, { 1, 0, 1, 0 }, { 1, 1, 1, 1 },
};

void micac_op_close(micac_op_work *w) {
  if (!w) return;
  for (int i = 0; i < MAX_WIRES; i++) free(w->buffers[i]);
  for (int i = 0; i < MAX_OPERANDS; i++)
    if (w->owner[i]) free(w->offsets[i]);
  free(w->args);
  micah_safetensors_close(w->file);
  free(w);
}

mica_status micac_op_open(micac_op_job *job, micac_op_work **out) {
  const mica_kernel *kernel;
  int32_t            phases;
  *out = NULL;
  if (job->op->n_operands > MAX_OPERANDS)
    return mica_error(MICA_ERR_UNSUPPORTED, "%s has more than %d operands", job->op->name, MAX_OPERANDS);
  mica_status status = mica_op_kernels(job->op, job->backend, job->dtype, job->face, &kernel, &phases);
  if (status < 0) return status;
  work *w = calloc(1, sizeof *w);
  if (w) w->args = calloc(1, job->op->args_size);
  if (!w || !w->args) {
    free(w);
    return mica_error(MICA_ERR_MEMORY, "%s: no memory for arguments", job->op->name);
  }
  w->job = job;
  w->op = job->op;
  for (int i = 0; i < MAX_OPERANDS; i++) w->shared[i] = -1;
  for (int face = 0; face < MICA_NFACE; face++) w->faces[face] = needs[job->face][face];
  status = micah_safetensors_open(job->in, &w->file);
  if (status >= 0) status = prepare(w);
  if (status < 0) micac_op_close(w);
  else *out = w;
  return status;
}

/* a face and its tangent in one, where both run */
static mica_status run_faces(mica_context *context, work *w) {
  static const int slots[] = { MICA_FORWARD_WITH_JVP, MICA_BACKWARD_WITH_JVP };
  mica_status status = MICA_OK;
  for (int i = 0; i < MICA_COUNT(slots); i++) {
    int faces[2], run[2];
    micak_faces(slots[i], faces);
    for (int k = 0; k < 2; k++) run[k] = w->faces[faces[k]];
    int from = run[0] && run[1] ? slots[i] : run[0] ? faces[0] : faces[1];
    if (status >= 0 && (run[0] || run[1]))
      status = mica_op_run(context, w->op->name, w->job->backend, w->job->dtype, from, w->args);
  }
  return status;
}

/* an array on the device, in place of the one here; *lent lists both */
typedef struct lent {
  void  *host, *device;
  size_t bytes;
} lent;
static void *lend(micah_device *d, lent *list, int *n, void *host, size_t bytes, mica_status *status) {
  for (int i = 0; i < *n; i++)
    if (list[i].host == host) return list[i].device;
  if (!host || *status < 0) return host;
  lent *one = &list[*n];
  *one = (lent){ .host = host, .bytes = bytes };
  *status = d->ops->alloc(d, bytes, "an array", &one->device);
  if (*status < 0) return host;
  ++*n;
  *status = d->ops->copy(d, d->stream, one->device, host, bytes);
  return one->device;
}

/* put every array of the arguments on the device (back: take them from there again) */
static mica_status move_ports(work *w, micah_device *d, lent *list, int *n, int back) {
  mica_status status = MICA_OK;
  for (int i = 0; i < w->op->n_operands; i++) {
    mica_port *port = micak_port(&w->op->operands[i], w->args);
    for (int k = 0; k < 4; k++) {
      mica_wire *wire = micak_wire(port, wires[k].bit);
      for (int b = 0; !back && b < MAX_WIRES && wire->data; b++)
        if (w->buffers[b] == wire->data) {
          wire->data = lend(d, list, n, wire->data, w->bytes[b], &status);
          break;
        }
      for (int j = 0; back && j < *n; j++)
        if (list[j].device == wire->data) wire->data = list[j].host;
    }
    size_t offsets = (size_t)(*micak_dim(&w->op->dims[0], w->args) + 1) * sizeof *port->offsets;
    if (!back && port->offsets) port->offsets = lend(d, list, n, w->offsets[i], offsets, &status);
    if (back && port->offsets) port->offsets = w->offsets[i];
  }
  return status;
}

mica_status micac_op_faces(mica_context *context, micac_op_work *w) {
  if (w->job->backend != MICA_CUDA) return run_faces(context, w);
  micah_device *d;
  lent list[MAX_WIRES + MAX_OPERANDS];
  int n = 0;
  mica_status status = micah_context_device(context, MICA_CUDA, 0, &d);
  if (status < 0) return status;
  status = move_ports(w, d, list, &n, 0);
  if (status >= 0) status = d->ops->stream_sync(d, d->stream);
  if (status >= 0) status = run_faces(context, w);
  for (int i = 0; status >= 0 && i < n; i++)
    status = d->ops->copy(d, d->stream, list[i].host, list[i].device, list[i].bytes);
  if (status >= 0) status = d->ops->stream_sync(d, d->stream);
  move_ports(w, d, list, &n, 1);
  for (int i = 0; i < n; i++) d->ops->free(d, list[i].device, list[i].bytes);
  return status;
}

mica_status micac_op_run(mica_context *context, micac_op_job *job) {
  micac_op_work *w;
  mica_status status = micac_op_open(job, &w);
  if (status >= 0) status = micac_op_faces(context, w);
  if (status >= 0) status = micac_op_write(w);
  micac_op_close(w);
  return status;
}
