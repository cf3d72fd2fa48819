/* attention in large batches: a task's bits alone and among 999 others, and a thousand runs of the same bits */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/attention.h"
#include "mica/mica.h"

#define OK(call) assert_true((call) >= 0)

enum { T = 41, H = 2, D = 20, WIRES = 20 };

/* dense wires of `tasks` tasks; task b holds the numbers of task `first` + b */
typedef struct batch {
  mica_attention_args args;
  float  *memory[WIRES];
  int64_t size[WIRES];                       /* of one task */
} batch;

static void batch_make(batch *x, const mica_op *op, int64_t tasks, int64_t first, const char *settings) {
  memset(x, 0, sizeof *x);
  OK(mica_args_init(op, &x->args));
  OK(mica_args_set(op, &x->args, settings));
  x->args.B = tasks, x->args.T = x->args.S = T, x->args.H = x->args.G = H, x->args.D = D;
  mica_port *ports[] = { &x->args.q, &x->args.k, &x->args.v, &x->args.out, &x->args.lse };
  for (int i = 0; i < 5; i++) {
    mica_wire *wires[] = { &ports[i]->v, &ports[i]->d, &ports[i]->t, &ports[i]->td };
    int64_t d = i == 4 ? 1 : D, size = T * H * d;
    for (int w = 0; w < 4; w++) {
      float *at = malloc((size_t)(tasks * size) * sizeof *at);
      assert_non_null(at);
      for (int64_t n = 0; n < tasks * size; n++)
        at[n] = (float)(((first * size + n) * 2654435761u + (uint64_t)(4 * i + w) * 40503u) % 4096) / 2048 - 1;
      x->memory[4 * i + w] = at, x->size[4 * i + w] = size;
      *wires[w] = (mica_wire){ .data = at, .task_stride = size, .stride = { H * d, d, 1 }, .dtype = MICA_F32 };
    }
  }
  OK(op->infer(&x->args));
}
static void batch_run(mica_context *context, batch *x) {
  static const int order[] = { MICA_FORWARD, MICA_JVP, MICA_BACKWARD, MICA_BACKWARD_JVP };
  for (int i = 0; i < 4; i++) OK(mica_op_run(context, "attention", MICA_CPU, MICA_F32, order[i], &x->args));
}
static void batch_free(batch *x) {
  for (int i = 0; i < WIRES; i++) free(x->memory[i]);
}

static const char *const forms[] = { "", "mask=window window=9", "mask=context prefix=20", "mask=full" };

static void test_among_others(void **state) {
  (void)state;
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  mica_context *context;
  const mica_op *op;
  OK(mica_context_create(&options, &context));
  OK(mica_find_op(context, "attention", &op));
  for (int f = 0; f < 4; f++) {
    batch many, one;
    batch_make(&many, op, 1000, 0, forms[f]);
    batch_run(context, &many);
    for (int64_t task = 0; task < 1000; task += 333) {
      batch_make(&one, op, 1, task, forms[f]);
      batch_run(context, &one);
      for (int i = 0; i < WIRES; i++)
        assert_memory_equal(one.memory[i], many.memory[i] + task * one.size[i], (size_t)one.size[i] * sizeof(float));
      batch_free(&one);
    }
    batch_free(&many);
  }
  mica_context_destroy(context);
}

static void test_repeats(void **state) {
  (void)state;
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = 3;
  mica_context *context;
  const mica_op *op;
  OK(mica_context_create(&options, &context));
  OK(mica_find_op(context, "attention", &op));
  batch first, again;
  batch_make(&first, op, 5, 0, forms[0]);
  batch_make(&again, op, 5, 0, forms[0]);
  batch_run(context, &first);
  for (int n = 0; n < 1000; n++) {
    batch_run(context, &again);
    for (int i = 0; i < WIRES; i++)
      assert_memory_equal(first.memory[i], again.memory[i], (size_t)(5 * first.size[i]) * sizeof(float));
  }
  batch_free(&first);
  batch_free(&again);
  mica_context_destroy(context);
}

/* queries appended to a cached context (that holds the prefix) have the bits that they have in the whole sequence */
static void test_appended(void **state) {
  (void)state;
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  mica_context *context;
  const mica_op *op;
  OK(mica_context_create(&options, &context));
  OK(mica_find_op(context, "attention", &op));
  for (int f = 0; f < 3; f++) {
    batch whole, part;
    batch_make(&whole, op, 3, 0, forms[f]);
    OK(mica_op_run(context, "attention", MICA_CPU, MICA_F32, MICA_FORWARD, &whole.args));
    for (int64_t from = f == 2 ? 20 : 0, rows = 1; from < T; from += rows, rows = rows % 7 + 1) {
      if (from + rows > T) rows = T - from;
      batch_make(&part, op, 3, 0, forms[f]);
      part.args.T = rows, part.args.S = from + rows; /* keys and values stay where they are */
      part.args.q.v.data = (float *)part.args.q.v.data + from * H * D;
      OK(mica_op_run(context, "attention", MICA_CPU, MICA_F32, MICA_FORWARD, &part.args));
      for (int64_t b = 0; b < 3; b++)
        assert_memory_equal(part.memory[12] + b * part.size[12], whole.memory[12] + b * whole.size[12] + from * H * D,
                            (size_t)(rows * H * D) * sizeof(float));
      batch_free(&part);
    }
    batch_free(&whole);
  }
  mica_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_among_others),
    cmocka_unit_test(test_repeats),
    cmocka_unit_test(test_appended),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
