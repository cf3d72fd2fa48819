/* looking at programs */
#include <stdio.h>
#include <string.h>

#include "program/program.h"

mica_status mica_program_info(const mica_program *program, mica_value value, mica_value_info *out) {
  if (!program || !out) return mica_error(MICA_ERR_INVALID, "mica_program_info: no program or no out");
  if (!micah_valid(program, value))
    return mica_error(MICA_ERR_INVALID, "program %s: %d is none of its values", program->name, value);
  const micah_value *v = &program->values[value];
  *out = (mica_value_info){ .name = v->name, .dtype = v->dtype, .axis = v->axis, .rank = v->rank, .kind = v->kind,
                            .count = v->count, .offset = v->offset, .init = v->init, .decay = v->decay };
  memcpy(out->shape, v->shape, sizeof out->shape);
  return MICA_OK;
}

mica_value mica_program_get_param(const mica_program *program, int32_t index) {
  return program && index >= 0 && index < program->n_params ? program->params[index] : -1;
}
mica_value mica_program_get_input(const mica_program *program, int32_t index) {
  return program && index >= 0 && index < program->n_inputs ? program->inputs[index] : -1;
}
mica_value mica_program_get_output(const mica_program *program, int32_t index) {
  return program && index >= 0 && index < program->n_outputs ? program->outputs[index].value : -1;
}

mica_value mica_program_find(const mica_program *program, const char *name) {
  if (!program || !name) return mica_error(MICA_ERR_INVALID, "mica_program_find: no program or no name");
  for (int32_t i = 0; i < program->n_params; i++)
    if (!strcmp(program->values[program->params[i]].name, name)) return program->params[i];
  for (int32_t i = 0; i < program->n_inputs; i++)
    if (!strcmp(program->values[program->inputs[i]].name, name)) return program->inputs[i];
  for (int32_t i = 0; i < program->n_outputs; i++)
    if (!strcmp(program->outputs[i].name, name)) return program->outputs[i].value;
  return mica_error(MICA_ERR_NOT_FOUND, "program %s has no parameter, input or output '%s'", program->name, name);
}

const char *mica_program_output_name(const mica_program *program, int32_t index) {
  return program && index >= 0 && index < program->n_outputs ? program->outputs[index].name : NULL;
}
int32_t mica_program_n_axes(const mica_program *program) { return program ? program->n_axes : 0; }
const char *mica_program_axis_name(const mica_program *program, int32_t axis) {
  return program && axis >= 0 && axis < program->n_axes ? program->axes[axis].name : NULL;
}
int64_t mica_program_param_count(const mica_program *program) { return program ? program->param_count : 0; }

/* ---- axes ---- */

int micah_below(const mica_program *program, int32_t a, int32_t b) {
  for (; a != MICA_NO_AXIS; a = program->axes[a].parent)
    if (a == b) return 1;
  return b == MICA_NO_AXIS;
}

int32_t micah_common(const mica_program *program, int32_t a, int32_t b) {
  while (!micah_below(program, b, a)) a = program->axes[a].parent;
  return a;
}

int micah_sees_rows(const mica_program *program, int32_t level, int32_t axis) {
  /* an axis that is the level itself or above it gives one row a task */
  return !micah_below(program, level, axis);
}

/* ---- shapes as text ---- */

static void put(char *text, size_t size, size_t *at, const char *piece) {
  size_t left = size - *at;
  int n = snprintf(text + *at, left, "%s", piece);
  *at += (size_t)n < left ? (size_t)n : left - 1;
}

void micah_shape_text(const mica_program *program, const micah_value *value, char *text, size_t size) {
  size_t at = 0;
  char piece[32];
  put(text, size, &at, "(");
  put(text, size, &at, value->kind == MICA_VALUE_PARAM ? "1" : "B");
  if (value->axis >= 0) {
    put(text, size, &at, ", ");
    put(text, size, &at, program->axes[value->axis].name);
  }
  for (int32_t i = 0; i < value->rank; i++) {
    snprintf(piece, sizeof piece, ", %lld", (long long)value->shape[i]);
    put(text, size, &at, piece);
  }
  put(text, size, &at, ")");
}

void micah_port_text(const mica_program *program, const micah_entry *entry, const mica_operand *operand, char *text,
                     size_t size) {
  size_t at = 0;
  char piece[32];
  int32_t dim[MICAH_RANK];
  int64_t literal[MICAH_RANK];
  int rank = micah_port_dims(entry->op, operand, dim, literal);
  put(text, size, &at, "(B");
  for (int i = 0; i < rank; i++) {
    int64_t known =
        dim[i] < 0 ? literal[i] : *(const int64_t *)((const char *)entry->args + entry->op->dims[dim[i]].offset);
    put(text, size, &at, ", ");
    if (dim[i] >= 0 && entry->dim_axis[dim[i]] >= 0) put(text, size, &at, program->axes[entry->dim_axis[dim[i]]].name);
    else if (known >= 0) {
      snprintf(piece, sizeof piece, "%lld", (long long)known);
      put(text, size, &at, piece);
    } else put(text, size, &at, entry->op->dims[dim[i]].name);
  }
  put(text, size, &at, ")");
}
