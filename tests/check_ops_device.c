/* one face on a CUDA device: wires, slots and offsets as device data, all bytes of every buffer, guards included */
#include "check_ops.h"

#include "device/device.h"

typedef struct lent {                        /* device copies of host arrays */
  micah_device *device;
  void         *memory[CK_MAX * CK_WIRES * 3 + 8];
  size_t        bytes[CK_MAX * CK_WIRES * 3 + 8];
  int           n;
} lent;

/* `bytes` of device memory that hold what the host has (NULL: NaN) */
static mica_status lend(lent *l, const void *host, size_t bytes, void **out) {
  const micah_device_ops *ops = l->device->ops;
  mica_status status = ops->alloc(l->device, bytes, "a wire", out);
  if (status < 0) return status;
  l->memory[l->n] = *out;
  l->bytes[l->n++] = bytes;
  return host ? ops->copy(l->device, l->device->stream, *out, host, bytes)
              : ops->fill(l->device, l->device->stream, *out, 0xff, bytes);
}

static mica_status lend_offsets(const ck_case *c, lent *l, void *args) {
  for (int o = 0; o < c->op->n_operands; o++) {
    mica_port *port = micak_port(&c->op->operands[o], args);
    void *offsets;
    if (!port->offsets) continue;
    mica_status status = lend(l, port->offsets, (size_t)(c->B + 1) * sizeof *port->offsets, &offsets);
    if (status < 0) return status;
    port->offsets = offsets;
  }
  return MICA_OK;
}

static mica_status run_phases(const ck_case *c, const ck_how *how, const void *args, lent *l) {
  const mica_kernel *kernel;
  int32_t phases;
  mica_status status = mica_op_kernels(c->op, MICA_CUDA, how->target.dtype, how->face, &kernel, &phases);
  if (status >= 0) status = mica_args_check(c->op, args, how->face);
  if (status >= 0) status = l->device->ops->enter(l->device);
  for (int32_t i = 0; i < phases && status >= 0; i++, kernel++) {
    mica_split split = { 1, 1, 0, 0 };
    if (kernel->split) kernel->split(args, &split);
    mica_exec exec = { .size = sizeof exec, .stream = l->device->stream, .scratch_bytes = split.scratch_bytes };
    if (split.scratch_bytes) status = lend(l, NULL, split.scratch_bytes, &exec.scratch);
    if (status >= 0 && split.units) status = kernel->run(&exec, args, 0, split.units);
  }
  return status;
}

mica_status ck_device_run(const ck_how *how, const ck_case *c, void *args, ck_span *spans) {
  lent l = { .n = 0 };
  void *there[CK_MAX * CK_WIRES] = { 0 };
  mica_status status = micah_context_device(ck_context[CK_SERIAL], MICA_CUDA, 0, &l.device);
  if (status >= 0) status = lend_offsets(c, &l, args);
  for (int i = 0; i < c->op->n_operands * CK_WIRES && status >= 0; i++) {
    if (!spans[i].memory) continue;
    mica_wire *wire = micak_wire(micak_port(&c->op->operands[i / CK_WIRES], args), CK_BIT(i % CK_WIRES));
    status = lend(&l, spans[i].memory, spans[i].bytes, &there[i]);
    wire->data = (char *)there[i] + ((char *)wire->data - (char *)spans[i].memory);
    void *slots = NULL;
    if (status >= 0 && wire->slot) status = lend(&l, wire->slot, (size_t)c->B * sizeof *wire->slot, &slots);
    wire->slot = slots;
  }
  if (status >= 0) status = run_phases(c, how, args, &l);
  for (int i = 0; i < c->op->n_operands * CK_WIRES && status >= 0; i++)
    if (there[i]) status = l.device->ops->copy(l.device, l.device->stream, spans[i].memory, there[i], spans[i].bytes);
  if (l.device && status >= 0) status = l.device->ops->stream_sync(l.device, l.device->stream);
  for (; l.n; l.n--) l.device->ops->free(l.device, l.memory[l.n - 1], l.bytes[l.n - 1]);
  return status;
}
