/* building scan entries */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "program/scan.h"

/* ---- the body: the sub called once, every carry and row output a whole value of its own ---- */

/* an output that no other output shares memory with */
static mica_status body_output(mica_program *body, const char *prefix, const char *name, mica_value value,
                               uint8_t *taken) {
  const micah_value *v = &body->values[value];
  if (taken[v->root] || v->count != body->values[v->root].count) {
    int64_t shape[MICAH_RANK], count = v->count;
    int32_t rank = v->rank;
    memcpy(shape, v->shape, sizeof shape);
    char *path = micah_join(body, prefix, name);
    mica_value flat = mica_program_reshape(body, value, 1, &count);
    mica_bind bind = { "x", flat };
    mica_value copy = path ? mica_program_op(body, path, "scale", NULL, 1, &bind) : MICA_ERR_MEMORY;
    value = mica_program_reshape(body, copy, rank, shape);
    if (value < 0) return value;
  } else taken[v->root] = 1;
  char *full = micah_join(body, prefix, name);
  return full ? mica_program_output(body, full, value) : MICA_ERR_MEMORY;
}

static mica_value output_named(const mica_program *sub, const char *name) {
  for (int32_t i = 0; i < sub->n_outputs; i++)
    if (!strcmp(sub->outputs[i].name, name)) return i;
  return -1;
}

static mica_status make_body(mica_program *program, const char *name, const mica_program *sub, int32_t n_carry,
                             const mica_carry *carry, mica_program **out) {
  mica_program *body;
  mica_status status = mica_program_create(program->context, name, &body);
  if (status < 0) return status;
  *out = body;
  mica_bind *binds = micah_region_alloc(&body->region, sub->n_inputs, sizeof *binds);
  if (!binds) return MICA_ERR_MEMORY;
  for (int32_t i = 0; i < sub->n_inputs; i++) {
    const micah_value *v = &sub->values[sub->inputs[i]];
    binds[i] = (mica_bind){ v->name, mica_program_input(body, v->name, v->dtype, MICA_NO_AXIS, v->rank, v->shape) };
    if (binds[i].value < 0) return binds[i].value;
  }
  mica_value results = mica_program_call(body, "body", sub, sub->n_inputs, binds);
  if (results < 0) return results;
  /* carries first: they are the values themselves, rows that are carries too are copies */
  uint8_t *taken = micah_region_alloc(&body->region, body->n_values + 1, 1);
  if (!taken) return MICA_ERR_MEMORY;
  for (int32_t k = 0; status >= 0 && k < n_carry; k++)
    status = body_output(body, "carry", carry[k].input, mica_program_port(body, results, carry[k].output), taken);
  for (int32_t i = 0; status >= 0 && i < sub->n_outputs; i++)
    status =
        body_output(body, "row", sub->outputs[i].name, mica_program_port(body, results, sub->outputs[i].name), taken);
  return status < 0 ? status : mica_program_seal(body);
}

/* ---- the descriptor ---- */

static const mica_dim scan_dims[] = {
  { "B", offsetof(micah_scan_args, B) }, { "T", offsetof(micah_scan_args, T) },
};

static mica_status describe(micah_scan *scan, mica_program *body, const uint8_t *steps, int32_t n_rows,
                            const mica_carry *carry) {
  int32_t n_in = body->n_inputs + body->n_params, n = n_in + n_rows + 2 * scan->n_carry;
  micah_region *region = &body->region;
  mica_operand *operands = micah_region_alloc(region, n, sizeof *operands);
  scan->operands = micah_region_alloc(region, n, sizeof *scan->operands);
  scan->carry_in = micah_region_alloc(region, scan->n_carry, sizeof *scan->carry_in);
  scan->carry_out = micah_region_alloc(region, scan->n_carry, sizeof *scan->carry_out);
  scan->count = micah_region_alloc(region, scan->n_carry, sizeof *scan->count);
  if (!operands || !scan->operands || !scan->carry_in || !scan->carry_out || !scan->count) return MICA_ERR_MEMORY;
  for (int32_t k = 0; k < scan->n_carry; k++) {
    scan->carry_in[k] = mica_program_find(body, carry[k].input);
    scan->carry_out[k] = body->outputs[k].value;
    scan->count[k] = body->values[scan->carry_in[k]].count;
  }
  for (int32_t i = 0; i < n; i++) {
    mica_operand *o = &operands[i];
    micah_scan_operand *s = &scan->operands[i];
    const micah_value *v;
    if (i < n_in) {
      s->value = i < body->n_inputs ? body->inputs[i] : body->params[i - body->n_inputs];
      v = &body->values[s->value];
      s->kind = i < body->n_inputs && steps[i] ? MICAH_STEP : MICAH_OUTER;
      for (int32_t k = 0; k < scan->n_carry; k++)
        if (scan->carry_in[k] == s->value) s->kind = MICAH_CARRY, s->carry = k;
      *o = (mica_operand) { .name = v->name,
                            .role = MICA_IN,
                            .reads = { MICA_V, MICA_V, MICA_V | MICA_T, MICA_V | MICA_T },
                            .writes = MICA_WRITES_IN };
      if (i >= body->n_inputs) o->name += strlen("body."), o->role |= MICA_PARAM;
      if (v->dtype >= MICA_I32) {
        o->role = MICA_INDEX;
        memset(o->reads, MICA_V, sizeof o->reads);
        memset(o->writes, 0, sizeof o->writes);
      }
    } else if (i < n_in + n_rows + scan->n_carry) {
      int last = i >= n_in + n_rows;
      s->kind = last ? MICAH_LAST : MICAH_ROW;
      s->carry = last ? i - n_in - n_rows : -1;
      s->value = last ? scan->carry_out[s->carry] : body->outputs[scan->n_carry + i - n_in].value;
      v = &body->values[s->value];
      *o = (mica_operand){ .role = MICA_OUT, .reads = { 0, MICA_D, 0, MICA_D | MICA_TD }, .writes = MICA_WRITES_OUT };
      o->name = last ? micah_join(body, "last", carry[s->carry].output) : body->outputs[scan->n_carry + i - n_in].name;
      if (!o->name) return MICA_ERR_MEMORY;
      if (!last) o->name += strlen("row.");
    } else {
      s->kind = MICAH_CHECKPOINT;
      s->carry = i - n_in - n_rows - scan->n_carry;
      s->value = scan->carry_out[s->carry];
      v = &body->values[s->value];
      *o = (mica_operand) { .role = MICA_SAVED,
                            .reads = { 0, MICA_V, 0, MICA_V | MICA_T },
                            .writes = MICA_WRITES_SAVED };
      o->name = micah_join(body, "checkpoint", carry[s->carry].output);
      if (!o->name) return MICA_ERR_MEMORY;
    }
    o->shape = micah_port_shape(region, s->kind == MICAH_STEP || s->kind == MICAH_ROW ? "T" : NULL, v->rank, v->shape);
    o->offset = offsetof(micah_scan_args, ports) + (size_t)i * sizeof(mica_port);
    if (!o->shape) return MICA_ERR_MEMORY;
  }
  scan->op = (mica_op) { .size = sizeof(mica_op),
                         .name = "scan",
                         .doc = "a loop over rows with carried state",
                         .args_size = offsetof(micah_scan_args, ports) + (size_t)n * sizeof(mica_port),
                         .dims = scan_dims,
                         .n_dims = 2,
                         .operands = operands,
                         .n_operands = n,
                         .budget = 2 };
  return MICA_OK;
}

/* ---- entries ---- */

static const micah_inner loop;

static mica_value add_scan(mica_program *program, const char *path, micah_scan *scan, int32_t axis, int32_t n,
                           const mica_bind *binds) {
  mica_value first = micah_add_inner(program, path, &loop, scan, &scan->op, &axis, n, binds);
  if (first < 0) return first;
  const micah_entry *entry = &program->entries[program->n_entries - 1];
  for (int i = 0; i < scan->op.n_operands; i++)
    if (scan->operands[i].kind == MICAH_CHECKPOINT) program->values[entry->binds[i].value].scan_axis = axis;
  atomic_fetch_add(&scan->body->refs, 1);
  return first;
}

mica_value mica_program_scan(mica_program *program, const char *name, const mica_program *sub, int32_t axis, int32_t n,
                             const mica_bind *binds, int32_t n_carry, const mica_carry *carry) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  const char *path = name && *name ? name : "scan";
  if (!sub || !sub->sealed || sub == program)
    return micah_fail(program, MICA_ERR_STATE, "%s: the body is not sealed", path);
  if (axis < 0 || axis >= program->n_axes || !micah_sees_rows(program, program->level, axis))
    return micah_fail(program, MICA_ERR_INVALID, "%s: %d is no axis to scan over here", path, axis);
  if (sub->n_axes)
    return micah_fail(program, MICA_ERR_UNSUPPORTED,
                      "%s: the body %s has an axis '%s' of its own; a step has one row a task", path, sub->name,
                      sub->axes[0].name);
  if (n < 0 || (n && !binds) || n_carry < 0 || (n_carry && !carry))
    return micah_fail(program, MICA_ERR_INVALID, "%s: no binds or no carries", path);
  /* carries: an input and an output of one shape, each used once */
  for (int32_t k = 0; k < n_carry; k++) {
    mica_value in = micah_find_bindable(program, path, sub, carry[k].input);
    if (in < 0) return in;
    int32_t o = output_named(sub, carry[k].output);
    if (o < 0)
      return micah_fail(program, MICA_ERR_NOT_FOUND, "%s: the body %s has no output '%s' to carry", path, sub->name,
                        carry[k].output);
    const micah_value *a = &sub->values[in], *b = &sub->values[sub->outputs[o].value];
    if (a->kind != MICA_VALUE_INPUT || a->dtype != MICA_F32 || a->rank != b->rank ||
        memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank)) {
      char expected[160], got[160];
      micah_shape_text(sub, a, expected, sizeof expected);
      micah_shape_text(sub, b, got, sizeof got);
      return micah_fail(program, MICA_ERR_SHAPE, "%s: carry '%s' expected f32 %s, got %s from output '%s'", path,
                        carry[k].input, expected, got, carry[k].output);
    }
    for (int32_t j = 0; j < k; j++)
      if (!strcmp(carry[j].input, carry[k].input) || !strcmp(carry[j].output, carry[k].output))
        return micah_fail(program, MICA_ERR_INVALID, "%s: carry '%s' <- '%s' shares its input or output with another",
                          path, carry[k].input, carry[k].output);
  }
  /* which inputs enter row by row; every input bound, and parameters made for those that are not */
  mica_bind *all = micah_region_alloc(&program->region, sub->n_inputs + sub->n_params, sizeof *all);
  uint8_t *steps = micah_region_alloc(&program->region, sub->n_inputs, 1);
  if (!all || !steps) return micah_fail_last(program, MICA_ERR_MEMORY);
  int32_t n_all = sub->n_inputs + sub->n_params;
  for (int32_t i = 0; i < n_all; i++) {
    int32_t inner = i < sub->n_inputs ? sub->inputs[i] : sub->params[i - sub->n_inputs];
    all[i] = (mica_bind){ sub->values[inner].name, -1 };
  }
  for (int32_t k = 0; k < n; k++) {
    const char *port = binds[k].port ? binds[k].port : "";
    mica_value inner = micah_find_bindable(program, path, sub, port);
    if (inner < 0) return inner;
    if (!micah_valid(program, binds[k].value))
      return micah_fail(program, MICA_ERR_INVALID, "%s: '%s' is bound to %d, which is no value of this program", path,
                        port, binds[k].value);
    for (int32_t i = 0; i < n_all; i++) {
      if (strcmp(all[i].port, port)) continue;
      if (all[i].value >= 0) return micah_fail(program, MICA_ERR_INVALID, "%s: '%s' is bound twice", path, port);
      all[i].value = binds[k].value;
      const micah_value *v = &program->values[binds[k].value];
      if (i < sub->n_inputs) steps[i] = v->axis == axis;
      if (micah_sees_rows(program, program->level, v->axis) && v->axis != axis)
        return micah_fail(program, MICA_ERR_SHAPE, "%s: '%s' has rows of axis %s, expected rows of %s or none", path,
                          port, program->axes[v->axis].name, program->axes[axis].name);
      if ((v->dtype >= MICA_I32) != (sub->values[inner].dtype >= MICA_I32))
        return micah_fail(program, MICA_ERR_INVALID, "%s: '%s' expected %s, got %s", path, port,
                          mica_dtype_name(sub->values[inner].dtype), mica_dtype_name(v->dtype));
    }
  }
  for (int32_t i = 0; i < n_all; i++) {
    if (all[i].value >= 0) continue;
    if (i < sub->n_inputs)
      return micah_fail(program, MICA_ERR_INVALID, "%s: input '%s' of %s is not bound", path, all[i].port, sub->name);
    const micah_value *v = &sub->values[sub->params[i - sub->n_inputs]];
    char *full = micah_join(program, path, v->name);
    all[i].value = full ? mica_program_param(program, full, v->rank, v->shape, v->init, v->decay) : MICA_ERR_MEMORY;
    if (all[i].value < 0) return all[i].value;
  }
  for (int32_t k = 0; k < n_carry; k++)
    for (int32_t i = 0; i < sub->n_inputs; i++)
      if (!strcmp(all[i].port, carry[k].input) && steps[i])
        return micah_fail(program, MICA_ERR_SHAPE,
                          "%s: carry '%s' starts from '%s', which has rows of the axis; expected "
                          "one row a task",
                          path, carry[k].input, program->values[all[i].value].name);
  mica_program *body = NULL;
  status = make_body(program, path, sub, n_carry, carry, &body);
  micah_scan *scan = status < 0 ? NULL : micah_region_alloc(&body->region, 1, sizeof *scan);
  if (status >= 0 && !scan) status = MICA_ERR_MEMORY;
  if (status >= 0) {
    scan->body = body;
    scan->n_carry = n_carry;
    status = describe(scan, body, steps, sub->n_outputs, carry);
  }
  mica_value first = status < 0 ? micah_fail_last(program, status) : add_scan(program, path, scan, axis, n_all, all);
  mica_program_destroy(body);  /* the entry holds it now */
  return first < 0 ? first : micah_inner_results(program, path);
}

static mica_value scan_again(micah_replay *replay, const micah_entry *entry, const char *path, int32_t n,
                             const mica_bind *binds) {
  return add_scan(replay->program, path, entry->own, micah_replay_axis(replay, entry->dim_axis[1]), n, binds);
}

static void scan_release(void *own) { mica_program_destroy(((micah_scan *)own)->body); }

static const micah_inner loop = { micah_scan_create, micah_scan_destroy, micah_scan_bytes, micah_scan_run, scan_again,
                                  scan_release, NULL, NULL };
