/* which values can vary, which faces run, and which wires a face touches: all from the operand tables */
#include <string.h>

#include "program/executor.h"

int micah_wire_dtype(const mica_executor *x, int32_t value, int bit) {
  const micah_value *v = &x->program->values[value];
  if (v->dtype >= MICA_I32) return v->dtype;
  /* cotangents of parameters are fp32 or wider whatever the type of the compute */
  if (x->dtype == MICA_BF16 && v->kind == MICA_VALUE_PARAM && (bit & (MICA_D | MICA_TD))) return MICA_F32;
  return x->dtype;
}

static int is_active(const mica_executor *x, const micah_entry *entry, int operand) {
  int32_t value = entry->binds[operand].value;
  return value >= 0 && x->active[x->program->values[value].root];
}

mica_status micah_activity(mica_executor *x, const mica_value *wants, int32_t n_wants) {
  const mica_program *p = x->program;
  for (int32_t i = 0; i < (wants ? n_wants : p->n_params); i++) {
    int32_t value = wants ? wants[i] : p->params[i];
    if (!micah_valid(p, value) ||
        (p->values[value].kind != MICA_VALUE_PARAM && p->values[value].kind != MICA_VALUE_INPUT))
      return mica_error(MICA_ERR_INVALID, "executor of %s: wants %d, which is no parameter or input", p->name, value);
    if (p->values[value].dtype >= MICA_I32)
      return mica_error(MICA_ERR_INVALID, "executor of %s: wants derivatives of '%s', which holds integers (%s)",
                        p->name, p->values[value].name, mica_dtype_name(p->values[value].dtype));
    x->wanted[value] = x->active[value] = 1;
  }
  if (!(x->passes & ~MICA_PASS_FORWARD)) {
    memset(x->active, 0, (size_t)p->n_values);
    return MICA_OK;
  }
  for (int32_t e = 0; e < p->n_entries; e++) {
    const micah_entry *entry = &p->entries[e];
    int any = 0;
    for (int i = 0; i < entry->op->n_operands; i++)
      any |= (entry->op->operands[i].role & MICA_IN) && !(entry->op->operands[i].role & MICA_INDEX) &&
             is_active(x, entry, i);
    for (int i = 0; any && i < entry->op->n_operands; i++)
      if ((entry->op->operands[i].role & (MICA_OUT | MICA_SAVED)) && !(entry->op->operands[i].role & MICA_INDEX) &&
          entry->binds[i].value >= 0)
        x->active[p->values[entry->binds[i].value].root] = 1;
  }
  return MICA_OK;
}

int micah_face_runs(const mica_executor *x, int32_t e, int face) {
  static const int32_t pass[MICA_NFACE] = { MICA_PASS_FORWARD, MICA_PASS_BACKWARD, MICA_PASS_JVP,
                                            MICA_PASS_BACKWARD_JVP };
  const micah_entry *entry = &x->program->entries[e];
  if (!x->program->live[e] || !(x->passes & pass[face])) return 0;
  if (face == MICA_FORWARD) return 1;
  for (int i = 0; i < entry->op->n_operands; i++)
    if ((entry->op->operands[i].role & MICA_OUT) && is_active(x, entry, i)) return 1;
  return 0;
}

void micah_access(const mica_executor *x, int32_t e, int face, int i, int *reads, int *writes) {
  const micah_entry *entry = &x->program->entries[e];
  const mica_operand *operand = &entry->op->operands[i];
  *reads = *writes = 0;
  if (entry->binds[i].value < 0) return;
  int allowed = (operand->role & MICA_INDEX) || !is_active(x, entry, i) ? MICA_V : MICA_V | MICA_D | MICA_T | MICA_TD;
  *reads = operand->reads[face] & allowed;
  *writes = operand->writes[face] & allowed;
}
