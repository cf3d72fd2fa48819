/* argument structs and the tables of all registered operations */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/names.h"
#include "common/op.h"
#include "device/context.h"

typedef struct toy_args {
  size_t    size;
  int64_t   B, R, C;
  int64_t   mode, count;
  double    eps;
  mica_port x, w, i, y;
} toy_args;
#define AT(field) offsetof(toy_args, field)
static const mica_dim dims[] = { { "B", AT(B) }, { "R", AT(R) }, { "C", AT(C) } };
static const mica_param params[] = {
  { "mode", MICA_PARAM_CHOICE, AT(mode), 1, 0, 1, "causal|full", "" },
  { "count", MICA_PARAM_INT, AT(count), 3, 1, 9, NULL, "" },
  { "eps", MICA_PARAM_REAL, AT(eps), 0.5, 0, 1, NULL, "" },
};
static const mica_operand operands[] = {
  { "x", "B R C", AT(x), MICA_IN, { MICA_V, 0, 0, 0 }, { 0, 0, 0, 0 }, MICA_ANY, NULL, "" },
  { "w", "B C 2", AT(w), MICA_IN | MICA_OPTIONAL, { MICA_V, 0, 0, 0 }, { 0, 0, 0, 0 }, MICA_ANY, NULL, "" },
  { "i", "B R", AT(i), MICA_INDEX | MICA_OPTIONAL, { MICA_V, 0, 0, 0 }, { 0, 0, 0, 0 }, MICA_RANGE, "C", "" },
  { "y", "B R C", AT(y), MICA_OUT, { 0, 0, 0, 0 }, { MICA_V, 0, 0, 0 }, MICA_ANY, NULL, "" },
};
static const mica_op toy = {
  .size = sizeof(mica_op), .name = "toy", .doc = "", .args_size = sizeof(toy_args), .dims = dims, .params = params,
  .operands = operands, .n_dims = 3, .n_params = 3, .n_operands = 4, .budget = 2,
};

static void assert_message(const char *part) {
  if (!strstr(mica_last_error(), part)) fail_msg("message is '%s', expected '%s' in it", mica_last_error(), part);
}

static void test_settings(void **state) {
  (void)state;
  toy_args a;
  assert_int_equal(mica_args_init(&toy, &a), MICA_OK);
  assert_int_equal(a.size, sizeof a);
  assert_int_equal(a.R, -1);
  assert_int_equal(a.mode, 1);
  assert_int_equal(a.count, 3);
  assert_true(a.eps == 0.5);
  assert_int_equal(mica_args_set(&toy, &a, "B=2 R=3  C=4 mode=causal count=9 eps=0.25 w=none "), MICA_OK);
  assert_int_equal(a.B, 2);
  assert_int_equal(a.C, 4);
  assert_int_equal(a.mode, 0);
  assert_int_equal(a.count, 9);
  assert_true(a.eps == 0.25);
  assert_int_equal(mica_args_set(&toy, &a, NULL), MICA_OK);
  static const char *const bad[][2] = {
    { "B=-1", "whole number >= 0" }, { "B=2x", "whole number >= 0" },     { "mode=ful", "expected one of causal|full" },
    { "count=10", "in [1, 9]" },     { "count=1.5", "whole number" },     { "eps=nan", "in [0, 1]" },
    { "esp=1", "did you mean 'eps'" }, { "B", "not name=value" },         { "B=", "has no value" },
    { "x=none", "not optional" },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(mica_args_set(&toy, &a, bad[i][0]), MICA_ERR_INVALID);
    assert_message(bad[i][1]);
  }
  assert_int_equal(mica_args_init(NULL, &a), MICA_ERR_INVALID);
}

static void test_layout(void **state) {
  (void)state;
  toy_args a;
  mica_args_init(&toy, &a);
  mica_args_set(&toy, &a, "B=2 R=3 C=4");
  int64_t shape[MICA_MAX_RANK];
  assert_int_equal(mica_operand_shape(&toy, &operands[1], &a, shape), 3);
  assert_int_equal(shape[1], 4);
  assert_int_equal(shape[2], 2);
  float x[24];
  mica_wire_dense(&toy, &operands[0], &a, MICA_F32, 0, x, &a.x.v);
  assert_int_equal(a.x.v.task_stride, 12);
  assert_int_equal(a.x.v.stride[0], 4);
  assert_int_equal(a.x.v.stride[1], 1);
  mica_wire_dense(&toy, &operands[0], &a, MICA_F32, 1, x, &a.x.v);
  assert_int_equal(a.x.v.task_stride, 0);
  /* places: slots, -1, packed rows */
  int32_t slot[] = { 1, -1 }, offsets[] = { 0, 2, 5 };
  a.x.v.task_stride = 12;
  a.x.v.slot = slot;
  assert_ptr_equal(micak_task(&a.x.v, NULL, 0), x + 12);
  assert_null(micak_task(&a.x.v, NULL, 1));
  assert_ptr_equal(micak_task(&a.x.v, offsets, 0), x + 8);
  assert_int_equal(micak_rows(offsets, 1, 7), 3);
  assert_int_equal(micak_rows(NULL, 1, 7), 7);
  int64_t task, row;
  int32_t holes[] = { 0, 2, 2, 2, 5 };
  micak_find_row(holes, 4, 3, 2, &task, &row);
  assert_int_equal(task, 3);
  assert_int_equal(row, 0);
  micak_find_row(NULL, 4, 3, 7, &task, &row);
  assert_int_equal(task, 2);
  assert_int_equal(row, 1);
  int32_t pairs[] = { 0, 0, 1, -1, -1 };
  a.x.v.slot = pairs;
  assert_int_equal(micak_same_slot(&a.x.v, NULL, 1), 1);
  assert_int_equal(micak_same_slot(&a.x.v, NULL, 2), 0);
  assert_int_equal(micak_per_task(&a.x.v, NULL, 5), 0);
  assert_int_equal(micak_per_task(&a.x.v, NULL, 1), 1);
}

static void test_check(void **state) {
  (void)state;
  toy_args a;
  float x[24];
  int32_t index[6] = { 0 };
  mica_args_init(&toy, &a);
  assert_int_equal(mica_args_check(&toy, &a, MICA_FORWARD), MICA_ERR_SHAPE);
  assert_message("size B is not known");
  mica_args_set(&toy, &a, "B=2 R=3 C=4");
  assert_int_equal(mica_args_check(&toy, &a, MICA_FORWARD), MICA_ERR_INVALID);
  assert_message("input x.v is missing");
  assert_int_equal(mica_args_check(&toy, &a, MICA_JVP), MICA_OK); /* reads nothing there */
  mica_wire_dense(&toy, &operands[0], &a, MICA_F32, 0, x, &a.x.v);
  assert_int_equal(mica_args_check(&toy, &a, MICA_FORWARD), MICA_OK);
  a.x.v.dtype = MICA_I32;
  assert_int_equal(mica_args_check(&toy, &a, MICA_FORWARD), MICA_ERR_INVALID);
  a.x.v.dtype = 77;
  assert_int_equal(mica_args_check(&toy, &a, MICA_FORWARD), MICA_ERR_INVALID);
  a.x.v.dtype = MICA_F32;
  mica_wire_dense(&toy, &operands[2], &a, MICA_I32, 0, index, &a.i.v);
  assert_int_equal(mica_args_check(&toy, &a, MICA_FORWARD), MICA_OK);
  mica_wire_dense(&toy, &operands[2], &a, MICA_I32, 0, index, &a.i.d);
  assert_int_equal(mica_args_check(&toy, &a, MICA_FORWARD), MICA_ERR_INVALID);
  assert_message("index port");
  a.i.d.data = NULL;
  a.size = 3;
  assert_int_equal(mica_args_check(&toy, &a, MICA_FORWARD), MICA_ERR_INVALID);
}

static void test_names(void **state) {
  (void)state;
  for (int i = 0; i < MICA_NDTYPE; i++) assert_int_equal(mica_dtype_parse(mica_dtype_name(i)), i);
  assert_int_equal(mica_dtype_parse("F32"), MICA_F32);
  assert_int_equal(mica_dtype_parse("f33"), -1);
  assert_int_equal(mica_dtype_size(-1), 0);
  assert_string_equal(mica_face_name(9), "?");
  assert_string_equal(mica_backend_name(MICA_CUDA), "cuda");
  char text[8];
  micak_choice_name("a|bc|d", 1, text, sizeof text);
  assert_string_equal(text, "bc");
  micak_choice_name("a|bc|d", 3, text, sizeof text);
  assert_string_equal(text, "?");
  assert_int_equal(micak_choice("a|bc|d", "d", 1), 2);
  assert_int_equal(micak_choice("a|bc|d", "b", 1), -1);
  assert_string_equal(mica_status_name(MICA_ERR_SHAPE), "MICA_ERR_SHAPE");
  assert_string_equal(mica_status_name(-999), "unknown");
}

/* rules that every operand table keeps */
static void test_registered_tables(void **state) {
  (void)state;
  static const uint8_t may_read[MICA_NFACE][3] = {
    /* in, out, saved */
    { MICA_V, 0, 0 },
    { MICA_V, MICA_V | MICA_D, MICA_V },
    { MICA_V | MICA_T, MICA_V, MICA_V },
    { MICA_V | MICA_T, 15, MICA_V | MICA_D | MICA_T },
  };
  static const uint8_t may_write[MICA_NFACE][3] = {
    { 0, MICA_V, MICA_V }, { MICA_D, 0, MICA_D }, { 0, MICA_T, MICA_T }, { MICA_TD, 0, MICA_TD },
  };
  mica_context *context;
  assert_int_equal(micah_context_new(NULL, &context), MICA_OK);
  for (int i = 0; mica_get_op(context, i); i++) {
    const mica_op *op = mica_get_op(context, i);
    int outs = 0;
    if (!op->doc || !op->doc[0]) fail_msg("%s has no doc", op->name);
    for (int o = 0; o < op->n_operands; o++) {
      const mica_operand *k = &op->operands[o];
      int kind = k->role & MICA_SAVED ? 2 : k->role & MICA_OUT ? 1 : 0;
      outs += kind == 1;
      if (!k->doc || !k->doc[0]) fail_msg("%s.%s has no doc", op->name, k->name);
      if (strchr(k->name, '.') || strchr(k->name, '=')) fail_msg("%s.%s: a name with . or =", op->name, k->name);
      for (int face = 0; face < MICA_NFACE; face++) {
        if (k->reads[face] & ~may_read[face][kind])
          fail_msg("%s.%s: %s may not read wires %d", op->name, k->name, mica_face_name(face), k->reads[face]);
        if (k->writes[face] & ~((k->role & MICA_INDEX) ? 0 : may_write[face][kind]))
          fail_msg("%s.%s: %s may not write wires %d", op->name, k->name, mica_face_name(face), k->writes[face]);
      }
      if (kind == 1 && (!(k->writes[MICA_FORWARD] & MICA_V) || !(k->writes[MICA_JVP] & MICA_T)))
        fail_msg("%s.%s: an output without v or t", op->name, k->name);
      if (k->domain == MICA_RANGE && !k->range) fail_msg("%s.%s: an index without range", op->name, k->name);
    }
    if (!outs) fail_msg("%s has no output", op->name);
    for (int k = 0; k < op->n_cases; k++) {
      void *args = malloc(op->args_size);
      assert_non_null(args);
      mica_args_init(op, args);
      if (mica_args_set(op, args, op->cases[k].set) < 0 || (op->infer && op->infer(args) < 0))
        fail_msg("%s case %d: %s", op->name, k, mica_last_error());
      for (int face = 0; face < MICA_NFACE && op->cost; face++) {
        double flop = -1, bytes = -1;
        op->cost(args, face, &flop, &bytes);
        if (!(flop >= 0 && bytes > 0)) fail_msg("%s case %d: %s costs %g flop, %g bytes", op->name, k, mica_face_name(face), flop, bytes);
      }
      free(args);
    }
    for (int p = 0; p < op->n_params; p++)
      if (op->params[p].type != MICA_PARAM_CHOICE && !(op->params[p].value >= op->params[p].lo && op->params[p].value <= op->params[p].hi))
        fail_msg("%s: default of %s is outside of its range", op->name, op->params[p].name);
  }
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_settings), cmocka_unit_test(test_layout),           cmocka_unit_test(test_check),
    cmocka_unit_test(test_names),    cmocka_unit_test(test_registered_tables),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
