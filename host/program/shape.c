/* binding values to ports: sizes are unified by dim name, completed by infer(), and give the outputs their shapes.
 *
 * a value's dims, [rows of its axis] + row shape, are matched in order with the port's dims after the task axis. a
 * value of lower rank gets sizes of 1 in front of its own row dims: scalar rows (B,token) enter "B R C" as C = 1, a row
 * without axis (B,C) as R = 1. outputs drop the dims whose size was so inserted. a size is either the length of one
 * axis or a constant, never both. */
#include <stdio.h>
#include <string.h>

#include "common/op.h"
#include "program/program.h"

static int dim_index(const mica_op *op, const char *name, size_t length) {
  for (int i = 0; i < op->n_dims; i++)
    if (strlen(op->dims[i].name) == length && !memcmp(op->dims[i].name, name, length)) return i;
  return -1;
}

int micah_port_dims(const mica_op *op, const mica_operand *operand, int32_t dim[MICAH_RANK], int64_t size[MICAH_RANK]) {
  int rank = -1;  /* the task axis comes first */
  for (const char *p = operand->shape; *p;) {
    size_t n = strcspn(p, " ");
    if (rank >= 0 && rank < MICAH_RANK) {
      dim[rank] = dim_index(op, p, n);
      size[rank] = 0;
      for (size_t i = 0; dim[rank] < 0 && i < n && p[i] >= '0' && p[i] <= '9'; i++)
        size[rank] = size[rank] * 10 + (p[i] - '0');
    }
    rank++;
    p += n + strspn(p + n, " ");
  }
  return rank < 0 ? 0 : rank > MICAH_RANK ? MICAH_RANK : rank;
}

static mica_status misfit(mica_program *program, const micah_entry *entry, const mica_operand *operand,
                          const micah_value *value, const char *why) {
  char expected[200], got[200];
  micah_port_text(program, entry, operand, expected, sizeof expected);
  micah_shape_text(program, value, got, sizeof got);
  return micah_fail(program, MICA_ERR_SHAPE, "%s: %s port %s (%s) expected %s, got %s from '%s'%s%s", entry->path,
                    entry->op->name, operand->name, operand->shape, expected, got, value->name, *why ? "; " : "", why);
}

/* one port dim gets a size: an axis, or a constant */
static mica_status unify_dim(mica_program *program, micah_entry *entry, const mica_operand *operand,
                             const micah_value *value, int32_t dim, int64_t literal, int32_t axis, int64_t size) {
  if (dim < 0) {
    if (axis < 0 && size == literal) return MICA_OK;
    return misfit(program, entry, operand, value, "");
  }
  int64_t *known = micak_dim(&entry->op->dims[dim], entry->args);
  int32_t *known_axis = &entry->dim_axis[dim];
  if (*known < 0 && *known_axis < 0) {
    *known = axis < 0 ? size : -1;
    *known_axis = axis;
    return MICA_OK;
  }
  if (*known_axis == axis && (axis >= 0 || *known == size)) return MICA_OK;
  char why[160];
  const char *name = entry->op->dims[dim].name;
  if (*known_axis >= 0 && axis >= 0)
    snprintf(why, sizeof why, "%s is the length of axis %s, not of %s", name, program->axes[*known_axis].name,
             program->axes[axis].name);
  else if (*known_axis >= 0)
    snprintf(why, sizeof why, "%s is the length of axis %s and cannot also be the constant %lld", name,
             program->axes[*known_axis].name, (long long)size);
  else if (axis >= 0)
    snprintf(why, sizeof why, "%s is the constant %lld and cannot also be the length of axis %s", name,
             (long long)*known, program->axes[axis].name);
  else
    snprintf(why, sizeof why, "%s is %lld already", name, (long long)*known);
  return misfit(program, entry, operand, value, why);
}

static mica_status unify_operand(mica_program *program, micah_entry *entry, int i, uint8_t *inserted) {
  const mica_operand *operand = &entry->op->operands[i];
  micah_bind *bind = &entry->binds[i];
  const micah_value *value = &program->values[bind->value];
  int32_t dim[MICAH_RANK];
  int64_t literal[MICAH_RANK];
  bind->rank = micah_port_dims(entry->op, operand, dim, literal);
  int rows = micah_sees_rows(program, entry->level, value->axis);
  if (rows + value->rank > bind->rank)
    return misfit(program, entry, operand, value, "the value has too many dims; reshape it");
  int pad = bind->rank - rows - value->rank;
  for (int d = 0; d < bind->rank; d++) {
    mica_status status;
    if (rows && d == 0) {
      bind->dim[d] = MICAH_DIM_AXIS;
      status = unify_dim(program, entry, operand, value, dim[d], literal[d], value->axis, 0);
    } else if (d < rows + pad) {
      bind->dim[d] = MICAH_DIM_INSERTED;
      if (dim[d] >= 0) inserted[dim[d]] = 1;
      status = unify_dim(program, entry, operand, value, dim[d], literal[d], MICA_NO_AXIS, 1);
    } else {
      bind->dim[d] = (int8_t)(d - rows - pad);
      status = unify_dim(program, entry, operand, value, dim[d], literal[d], MICA_NO_AXIS, value->shape[bind->dim[d]]);
    }
    if (status < 0) return status;
  }
  return MICA_OK;
}

/* ports as infer() may look at them: present or not, dtype, dense strides */
static void mock_ports(const mica_program *program, const micah_entry *entry, void *args) {
  for (int i = 0; i < entry->op->n_operands; i++) {
    const mica_operand *operand = &entry->op->operands[i];
    mica_port *port = micak_port(operand, args);
    int bound = entry->binds[i].value >= 0;
    memset(port, 0, sizeof *port);
    if (!bound && !(operand->role & (MICA_OUT | MICA_SAVED))) continue;
    int dtype = bound ? program->values[entry->binds[i].value].dtype : operand->role & MICA_INDEX ? MICA_I32 : MICA_F32;
    mica_wire_dense(entry->op, operand, args, dtype, 0, args, &port->v);
  }
}

/* sizes that follow from others. infer() is run twice with different lengths for the axes: what stays the same is a
 * constant, what follows a length is that axis. */
static mica_status infer(mica_program *program, micah_entry *entry, uint8_t *absent) {
  const mica_op *op = entry->op;
  if (op->infer) {
    void *args[2];
    /* lengths as short as may be, since some operations take only so many rows: from 1 on in the order of the axes */
    int32_t *length = micah_region_alloc(&program->region, program->n_axes + 1, sizeof *length), n = 0;
    if (!length) return micah_fail_last(program, MICA_ERR_MEMORY);
    for (int d = 1; d < op->n_dims; d++)
      if (entry->dim_axis[d] >= 0 && !length[entry->dim_axis[d]]) length[entry->dim_axis[d]] = ++n;
    for (int run = 0; run < 2; run++) {
      args[run] = micah_region_alloc(&program->region, (int64_t)op->args_size, 1);
      if (!args[run]) return micah_fail_last(program, MICA_ERR_MEMORY);
      memcpy(args[run], entry->args, op->args_size);
      *micak_dim(&op->dims[0], args[run]) = 1;
      for (int d = 1; d < op->n_dims; d++)
        if (entry->dim_axis[d] >= 0)
          *micak_dim(&op->dims[d], args[run]) = length[entry->dim_axis[d]] + run * n;
      mock_ports(program, entry, args[run]);
      mica_status status = op->infer(args[run]);
      if (status < 0) {
        char cause[600];
        snprintf(cause, sizeof cause, "%s", mica_last_error());
        return micah_fail(program, status, "%s: %s", entry->path, cause);
      }
    }
    for (int d = 1; d < op->n_dims; d++) {
      if (entry->dim_axis[d] >= 0) continue;
      int64_t a = *micak_dim(&op->dims[d], args[0]), b = *micak_dim(&op->dims[d], args[1]);
      if (a == b) {
        *micak_dim(&op->dims[d], entry->args) = a;
        continue;
      }
      for (int32_t k = 0; entry->dim_axis[d] < 0 && k < program->n_axes; k++)
        if (length[k] && length[k] == a && b == a + n) entry->dim_axis[d] = k;
      if (entry->dim_axis[d] < 0)
        return micah_fail(program, MICA_ERR_SHAPE, "%s: size %s of %s would depend on the length of an axis without "
                          "being one; use a fixed number of rows", entry->path, op->dims[d].name, op->name);
    }
    for (int i = 0; i < op->n_operands; i++)  /* infer() may say that it needs no such saved operand */
      if ((op->operands[i].role & MICA_SAVED) && !micak_port(&op->operands[i], args[0])->v.data) absent[i] = 1;
    /* settings that infer() completes */
    for (int i = 0; i < op->n_params; i++)
      memcpy((char *)entry->args + op->params[i].offset, (char *)args[0] + op->params[i].offset, 8);
  }
  for (int d = 1; d < op->n_dims; d++)
    if (entry->dim_axis[d] < 0 && *micak_dim(&op->dims[d], entry->args) < 0)
      return micah_fail(program, MICA_ERR_SHAPE,
                        "%s: size %s of %s is not known; bind an operand that has it or set %s=...", entry->path,
                        op->dims[d].name, op->name, op->dims[d].name);
  return MICA_OK;
}

mica_status micah_unify(mica_program *program, micah_entry *entry) {
  const mica_op *op = entry->op;
  uint8_t *inserted = micah_region_alloc(&program->region, op->n_dims + op->n_operands, 1);
  if (!inserted) return micah_fail_last(program, MICA_ERR_MEMORY);
  for (int i = 0; i < op->n_operands; i++) {
    if (entry->binds[i].value < 0) continue;
    mica_status status = unify_operand(program, entry, i, inserted);
    if (status < 0) return status;
  }
  mica_status status = infer(program, entry, inserted + op->n_dims);
  if (status < 0) return status;
  /* outputs and saved operands: map their dims; -2 marks those that the value drops */
  for (int i = 0; i < op->n_operands; i++) {
    const mica_operand *operand = &op->operands[i];
    if (!(operand->role & (MICA_OUT | MICA_SAVED))) continue;
    micah_bind *bind = &entry->binds[i];
    int32_t dim[MICAH_RANK];
    int64_t literal[MICAH_RANK];
    bind->rank = micah_port_dims(op, operand, dim, literal);
    int next = 0;
    for (int d = 0; d < bind->rank; d++) {
      if (dim[d] >= 0 && entry->dim_axis[dim[d]] >= 0) {
        if (d > 0)
          return micah_fail(program, MICA_ERR_UNSUPPORTED, "%s: %s port %s has the rows of axis %s as its dim %d; only "
                            "the first dim after the task axis may be ragged", entry->path, op->name, operand->name,
                            program->axes[entry->dim_axis[dim[d]]].name, d + 1);
        bind->dim[d] = MICAH_DIM_AXIS;
      } else if (dim[d] >= 0 && inserted[dim[d]] && (operand->role & MICA_OUT)) bind->dim[d] = MICAH_DIM_INSERTED;
      else bind->dim[d] = (int8_t)next++;
    }
    if (inserted[op->n_dims + i]) bind->rank = -1;
  }
  return MICA_OK;
}

mica_value micah_make_outputs(mica_program *program, micah_entry *entry, int32_t index) {
  const mica_op *op = entry->op;
  mica_value first = -1;
  entry->row_dim = -1;
  entry->row_axis = entry->level;
  entry->row_count = 1;
  for (int i = 0; i < op->n_operands; i++) {
    const mica_operand *operand = &op->operands[i];
    if (!(operand->role & (MICA_OUT | MICA_SAVED))) continue;
    micah_bind *bind = &entry->binds[i];
    if (bind->rank < 0) continue;
    int32_t dim[MICAH_RANK];
    int64_t literal[MICAH_RANK];
    micah_port_dims(op, operand, dim, literal);
    micah_value value = { .dtype = operand->role & MICA_INDEX ? MICA_I32 : MICA_F32, .kind = MICA_VALUE_ARENA,
                          .axis = entry->level, .root = -1, .entry = index, .operand = i, .call = -1,
                          .saved = !!(operand->role & MICA_SAVED) };
    for (int d = 0; d < bind->rank; d++) {
      int64_t size = dim[d] < 0 ? literal[d] : *micak_dim(&op->dims[dim[d]], entry->args);
      if (bind->dim[d] == MICAH_DIM_AXIS) value.axis = entry->dim_axis[dim[d]];
      else if (bind->dim[d] >= 0) value.shape[value.rank++] = size;
    }
    value.count = 1;
    for (int d = 0; d < value.rank; d++)
      if (value.shape[d] < 0 || __builtin_mul_overflow(value.count, value.shape[d], &value.count)) value.count = -1;
    if (value.count == 0 && value.saved) continue;  /* infer() gave it no elements: not needed */
    if (value.count < 1)
      return micah_fail(program, MICA_ERR_SHAPE, "%s: output %s of %s has no elements or too many", entry->path,
                        operand->name, op->name);
    char name[256];
    int is_first = first < 0 && !value.saved;
    snprintf(name, sizeof name, "%s%s%s", entry->path, is_first ? "" : ".", is_first ? "" : operand->name);
    value.name = name;
    mica_value made = micah_add_value(program, &value);
    if (made < 0) return made;
    bind->value = made;
    if (!is_first) continue;
    first = made;
    if (bind->rank > 0 && dim[0] >= 0) {
      entry->row_dim = dim[0];
      if (bind->dim[0] == MICAH_DIM_AXIS) entry->row_axis = value.axis;
      else entry->row_count = *micak_dim(&op->dims[dim[0]], entry->args);
    }
  }
  if (first < 0) return micah_fail(program, MICA_ERR_INVALID, "%s: operation %s has no outputs", entry->path, op->name);
  return first;
}
