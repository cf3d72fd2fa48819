#include "common/ref.h"

/* zero one task's part of an output wire */
static void clear_task(const mica_op *op, const mica_operand *operand, const void *args, const mica_wire *wire,
                       const int32_t *offsets, int64_t b) {
  int64_t n[MICA_MAX_RANK];
  int rank = mica_operand_shape(op, operand, args, n);
  for (int i = rank; i < MICA_MAX_RANK; i++) n[i] = 1;
  if (rank > 1) n[1] = micak_rows(offsets, b, n[1]);
  for (int64_t i = 0; i < n[1]; i++)
    for (int64_t j = 0; j < n[2]; j++)
      for (int64_t k = 0; k < n[3]; k++)
        for (int64_t l = 0; l < n[4]; l++) micak_put(wire, micak_at(wire, offsets, b, i, j, k, l), 0);
}

mica_status micak_ref_run(const mica_op *op, int face, const void *args, micak_ref_fn fn) {
  int64_t tasks = *micak_dim(&op->dims[0], args);
  for (int64_t b = 0; b < tasks; b++) {
    for (int i = 0; i < op->n_operands; i++) {
      const mica_operand *operand = &op->operands[i];
      mica_port *port = micak_port(operand, args);
      for (int bit = MICA_V; bit <= MICA_TD; bit <<= 1) {
        const mica_wire *wire = micak_wire(port, bit);
        if (!(operand->writes[face] & bit) || !wire->data || wire->dtype > MICA_BF16 || (wire->flags & MICA_ADD)) continue;
        if (!micak_same_slot(wire, port->offsets, b)) clear_task(op, operand, args, wire, port->offsets, b);
      }
    }
    mica_status status = fn(args, b);
    if (status < 0) return status;
  }
  return MICA_OK;
}
