/* an inner loop and the query's loss as one entry: when the adapted weights of a small network go nowhere but into the
 * same network on the query, whose loss of the same kind is an output, a worker does all that there is of a task while its
 * weights are in the cache. made for one executor, in a copy of the program's list. */
#include <string.h>

#include "adapt/fused.h"
#include "common/op.h"
#include "loss/loss.h"
#include "reduce/reduce.h"

enum { NO_READER = -1, SOME = -2 };

/* the one live entry that reads a value, `also`: which may be an output */
static int32_t reader_of(const mica_program *p, int32_t value, int also) {
  int32_t root = p->values[value].root, found = NO_READER;
  for (int32_t i = 0; !also && i < p->n_outputs; i++)
    if (p->values[p->outputs[i].value].root == root) return SOME;
  for (int32_t e = 0; e < p->n_entries; e++)
    for (int i = 0; p->live[e] && i < p->entries[e].op->n_operands; i++) {
      int32_t v = p->entries[e].binds[i].value;
      if (v < 0 || !(p->entries[e].op->operands[i].role & MICA_IN) || p->values[v].root != root) continue;
      if (found != NO_READER && found != e) return SOME;
      found = e;
    }
  return found;
}

int micah_is_read(const mica_program *p, int32_t value) {
  return value >= 0 && reader_of(p, value, 1) != NO_READER;
}

static int operand_named(const micah_entry *e, const char *port) {
  for (int i = 0; i < e->op->n_operands; i++)
    if (!strcmp(e->op->operands[i].name, port)) return i;
  return -1;
}
static int32_t bound_to(const micah_entry *e, const char *port) { return e->binds[operand_named(e, port)].value; }

/* the entry of operation `op` that alone reads a value, at its port `port` and whole */
static int32_t next_of(const mica_program *p, int32_t value, const char *op, const char *port, int32_t level) {
  int32_t e = value < 0 ? SOME : reader_of(p, value, 0);
  if (e < 0 || p->entries[e].inner || p->entries[e].level != level || strcmp(p->entries[e].op->name, op)) return SOME;
  int32_t at = bound_to(&p->entries[e], port);
  return at >= 0 && p->values[at].root == p->values[value].root && p->values[at].count == p->values[value].count ? e
                                                                                                                : SOME;
}

/* rows given from outside that no cotangent is wanted of */
static int is_data(const mica_executor *x, int32_t v, int64_t count) {
  const micah_value *of = &x->program->values[v], *root = &x->program->values[of->root];
  return root->kind == MICA_VALUE_INPUT && !x->active[of->root] && of->axis >= 0 && of->count == count &&
         root->count == count && x->program->axes[of->axis].parent < 0;
}

typedef struct match {
  int32_t     entries[MICAK_MLP_LAYERS + 2], n;
  micah_bind  x, y, loss;
  int32_t     axis;
  int         mean_out, mean_rows;
} match;

/* the value of the last weights of parameter i of the network; -1: none */
static int32_t last_of(const micah_entry *entry, const micah_adapt *a, int32_t param) {
  for (int32_t c = 0; param >= 0 && c < a->n_carry; c++)
    if (a->operands[a->carry[c].in].value == param) return entry->binds[a->carry[c].last].value;
  return -1;
}

static int match_query(const mica_executor *x, const micah_entry *entry, match *out) {
  const mica_program *p = x->program;
  const micah_adapt *a = entry->own;
  const micah_mlp_step *m = a->step->mlp;
  int32_t value = -1;
  for (int l = 0; l < m->layers; l++) {
    int32_t w = last_of(entry, a, m->param[2 * l]), b = last_of(entry, a, m->param[2 * l + 1]);
    int32_t e = next_of(p, w, "linear", "w", entry->level);
    if (e < 0 || (b >= 0 && next_of(p, b, "linear", "b", entry->level) != e)) return 0;
    const micah_entry *linear = &p->entries[e];
    const micah_value *weight = &p->values[bound_to(linear, "w")];
    if (weight->rank != 2 || weight->shape[0] != m->width[l + 1] || weight->shape[1] != m->width[l] ||
        bound_to(linear, "res") >= 0 || (b < 0) != (bound_to(linear, "b") < 0) ||
        ((const mica_linear_args *)linear->args)->act != (l + 1 < m->layers ? m->act : MICA_ACT_NONE))
      return 0;
    out->entries[out->n++] = e;
    if (l == 0) out->x = linear->binds[operand_named(linear, "x")];
    else if (next_of(p, value, "linear", "x", entry->level) != e) return 0;
    value = bound_to(linear, "y");
  }
  const micah_mlp_port *port = &micah_mlp_ports[m->labels];
  int32_t e = next_of(p, value, port->op, port->pred, entry->level);
  if (e < 0 || !is_data(x, out->x.value, m->width[0])) return 0;
  const micah_entry *loss = &p->entries[out->entries[out->n++] = e];
  out->y = loss->binds[operand_named(loss, port->y)];
  out->mean_out = !m->labels && ((const mica_mse_args *)loss->args)->reduction == MICA_MSE_MEAN;
  out->loss = loss->binds[operand_named(loss, "loss")];
  out->axis = p->values[out->x.value].axis;
  if (bound_to(loss, "weight") >= 0 || out->y.value < 0 ||
      !is_data(x, out->y.value, m->labels ? 1 : m->width[m->layers]) || p->values[out->y.value].axis != out->axis)
    return 0;
  e = next_of(p, out->loss.value, "mean", "x", entry->level);
  if (e >= 0 && ((const mica_reduce_args *)p->entries[e].args)->axis == 0) {
    const micah_entry *mean = &p->entries[out->entries[out->n++] = e];
    out->loss = mean->binds[operand_named(mean, "y")];
    out->mean_rows = 1;
  }
  return !micah_is_read(p, out->loss.value);
}

/* operands of the loop, then x and y of the query and its loss. adapted weights are no results any more */
static mica_status make_op(const mica_executor *x, const micah_entry *entry, const match *m, micah_region *region,
                           micah_judged *out) {
  const micah_adapt *a = entry->own;
  const mica_op *op = entry->op;
  const micah_bind *binds[] = { &m->x, &m->y, &m->loss };
  static const char *const names[] = { "query.x", "query.y", "query.loss" };
  mica_operand *operands = micah_region_alloc(region, op->n_operands + 3, sizeof *operands);
  if (!operands) return MICA_ERR_MEMORY;
  *out = (micah_judged){ .op = *op, .mean_out = m->mean_out, .mean_rows = m->mean_rows };
  memcpy(operands, op->operands, sizeof *operands * (size_t)op->n_operands);
  for (int i = 0; i < 3; i++) {
    const micah_value *v = &x->program->values[binds[i]->value];
    mica_operand *o = &operands[op->n_operands + i];
    *o = (mica_operand){ .name = names[i], .role = i == 2 ? MICA_OUT : v->dtype >= MICA_I32 ? MICA_INDEX : MICA_IN };
    o->offset = offsetof(micah_inner_args, ports) + (size_t)(op->n_operands + i) * sizeof(mica_port);
    o->shape = micah_port_shape(region, v->axis < 0 ? NULL : op->dims[op->n_dims].name, v->rank, v->shape);
    if (!o->shape) return MICA_ERR_MEMORY;
    if (i < 2) o->reads[MICA_FORWARD] = o->reads[MICA_BACKWARD] = MICA_V;
    else o->writes[MICA_FORWARD] = MICA_V, o->reads[MICA_BACKWARD] = MICA_D;
  }
  out->op.operands = operands;
  out->op.n_operands = a->op.n_operands + 3;
  out->op.n_dims = op->n_dims + 1;
  out->op.args_size = op->args_size + 3 * sizeof(mica_port);
  return MICA_OK;
}

mica_status micah_adapt_absorb(mica_executor *x, int32_t e) {
  const mica_program *p = x->program;
  const micah_entry *entry = &p->entries[e];
  const micah_adapt *a = entry->own;
  match m = { .n = 0 };
  if (!micah_fused_suits(x, e) || !micah_fused_may_judge(x, e) || entry->op->n_dims >= MICAH_INNER_DIMS ||
      !match_query(x, entry, &m))
    return MICA_OK;
  micah_region *region = &x->region;
  mica_program *copy = micah_region_alloc(region, 1, sizeof *copy);
  micah_entry *entries = micah_region_alloc(region, p->n_entries, sizeof *entries);
  uint8_t *live = micah_region_alloc(region, p->n_entries, 1);
  micah_judged *op = micah_region_alloc(region, 1, sizeof *op);
  if (!copy || !entries || !live || !op) return MICA_ERR_MEMORY;
  mica_status status = make_op(x, entry, &m, region, op);
  if (status < 0) return status;
  memcpy(entries, p->entries, sizeof *entries * (size_t)p->n_entries);
  memcpy(live, p->live, (size_t)p->n_entries);
  micah_entry *to = &entries[e];
  const int n = entry->op->n_operands;
  to->op = &op->op;
  to->args = micah_region_alloc(region, (int64_t)op->op.args_size, 1);
  to->dim_axis = micah_region_alloc(region, op->op.n_dims, sizeof *to->dim_axis);
  to->binds = micah_region_alloc(region, op->op.n_operands, sizeof *to->binds);
  if (!to->args || !to->dim_axis || !to->binds) return MICA_ERR_MEMORY;
  status = mica_args_init(&op->op, to->args);
  if (status < 0) return status;
  memcpy(to->dim_axis, entry->dim_axis, sizeof *to->dim_axis * (size_t)entry->op->n_dims);
  to->dim_axis[entry->op->n_dims] = m.axis;
  memcpy(to->binds, entry->binds, sizeof *to->binds * (size_t)n);
  for (int i = 0; i < n; i++)
    if (a->operands[i].kind == MICAH_ADAPT_LAST || a->operands[i].kind == MICAH_ADAPT_KEPT) to->binds[i].value = -1;
  to->binds[n] = m.x, to->binds[n + 1] = m.y, to->binds[n + 2] = m.loss;
  for (int32_t i = 0; i < m.n; i++) live[m.entries[i]] = 0;
  *copy = *p;
  copy->entries = entries, copy->live = live;
  x->program = copy;
  return MICA_OK;
}
