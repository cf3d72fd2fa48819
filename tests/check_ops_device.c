/* one face on a CUDA device: wires, slots and offsets as device data, all bytes of every buffer, guards included */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_ops.h"

#ifndef MICA_HAVE_CUDA

mica_status ck_device_run(const ck_how *how, const ck_case *c, void *args, ck_span *spans) {
  (void)args;
  (void)spans;
  return mica_error(MICA_ERR_UNSUPPORTED, "%s %s on backend cuda: this build has no CUDA backend", c->op->name,
                    mica_face_name(how->face));
}

#else
#include <cuda_runtime_api.h>

typedef struct lent {                        /* device copies of host arrays */
  void *memory[CK_MAX * CK_WIRES * 3 + 8];
  int   n;
} lent;

static mica_status check(const char *call, cudaError_t code) {
  if (code == cudaSuccess) return MICA_OK;
  return mica_error(MICA_ERR_DEVICE, "%s: CUDA error %d (%s): %s", call, (int)code, cudaGetErrorName(code),
                    cudaGetErrorString(code));
}

/* `bytes` of device memory that hold what the host has (NULL: NaN) */
static mica_status lend(lent *l, const void *host, size_t bytes, void **device) {
  *device = NULL;
  mica_status status = check("cudaMalloc", cudaMalloc(device, bytes ? bytes : 1));
  if (status < 0) return status;
  l->memory[l->n++] = *device;
  return host ? check("cudaMemcpy", cudaMemcpy(*device, host, bytes, cudaMemcpyHostToDevice))
              : check("cudaMemset", cudaMemset(*device, 0xff, bytes));
}

static mica_status lend_offsets(const ck_case *c, lent *l, void *args) {
  for (int o = 0; o < c->op->n_operands; o++) {
    mica_port *port = micak_port(&c->op->operands[o], args);
    void *device;
    if (!port->offsets) continue;
    mica_status status = lend(l, port->offsets, (size_t)(c->B + 1) * sizeof *port->offsets, &device);
    if (status < 0) return status;
    port->offsets = device;
  }
  return MICA_OK;
}

static mica_status run_phases(const ck_case *c, const ck_how *how, const void *args, lent *l) {
  const mica_kernel *kernel;
  int32_t phases;
  mica_status status = mica_op_kernels(c->op, MICA_CUDA, how->target.dtype, how->face, &kernel, &phases);
  if (status >= 0) status = mica_args_check(c->op, args, how->face);
  for (int32_t i = 0; i < phases && status >= 0; i++, kernel++) {
    mica_split split = { 1, 1, 0, 0 };
    if (kernel->split) kernel->split(args, &split);
    mica_exec exec = { .size = sizeof exec, .scratch_bytes = split.scratch_bytes };
    if (split.scratch_bytes) status = lend(l, NULL, split.scratch_bytes, &exec.scratch);
    if (status >= 0 && split.units) status = kernel->run(&exec, args, 0, split.units);
  }
  return status;
}

mica_status ck_device_run(const ck_how *how, const ck_case *c, void *args, ck_span *spans) {
  lent l = { .n = 0 };
  void *device[CK_MAX * CK_WIRES] = { 0 };
  mica_status status = lend_offsets(c, &l, args);
  for (int i = 0; i < c->op->n_operands * CK_WIRES && status >= 0; i++) {
    if (!spans[i].memory) continue;
    mica_wire *wire = micak_wire(micak_port(&c->op->operands[i / CK_WIRES], args), CK_BIT(i % CK_WIRES));
    status = lend(&l, spans[i].memory, spans[i].bytes, &device[i]);
    wire->data = (char *)device[i] + ((char *)wire->data - (char *)spans[i].memory);
    void *slots = NULL;
    if (status >= 0 && wire->slot) status = lend(&l, wire->slot, (size_t)c->B * sizeof *wire->slot, &slots);
    wire->slot = slots;
  }
  if (status >= 0) status = run_phases(c, how, args, &l);
  if (status >= 0) status = check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  for (int i = 0; i < c->op->n_operands * CK_WIRES && status >= 0; i++)
    if (device[i])
      status = check("cudaMemcpy", cudaMemcpy(spans[i].memory, device[i], spans[i].bytes, cudaMemcpyDeviceToHost));
  while (l.n) {
    mica_status freed = check("cudaFree", cudaFree(l.memory[--l.n]));
    if (status >= 0) status = freed;
  }
  return status;
}
#endif
