/* kernel=mma and kernel=wgmma are refused, with the reason, where they do not suit; jvp, which has none of sm_90a, is not */
#define _DEFAULT_SOURCE
#include "device_support.h"

#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"

enum { ROWS = 4, MOST = 264, BYTES = ROWS * MOST * sizeof(float) };

static void refusals(void **state) {
  (void)state;
  need_cuda(1);
  static const struct { const char *settings; int face, dtype, D, shift; const char *why, *or; } cases[] = {
    { "kernel=wgmma", MICA_FORWARD, MICA_BF16, 64, 0, "compute capability 9.0, this one is ", "no kernels for sm_90a" },
    { "kernel=wgmma", MICA_BACKWARD, MICA_BF16, 128, 0, "compute capability 9.0, this one is ", "no kernels for sm_90a" },
    { "kernel=wgmma", MICA_FORWARD, MICA_F32, 64, 0, "takes q, k, v and out in bf16", NULL },
    { "kernel=wgmma", MICA_FORWARD, MICA_BF16, 136, 0, "heads of 8, 16, ... 128 elements", NULL },
    { "kernel=wgmma", MICA_FORWARD, MICA_BF16, 20, 0, "heads of 8, 16, ... 128 elements", NULL },
    { "kernel=wgmma", MICA_FORWARD, MICA_BF16, 64, 2, "rows at multiples of 16 bytes", NULL },
    { "kernel=mma", MICA_FORWARD, MICA_BF16, 136, 0, "got 136", NULL },
    { "kernel=mma", MICA_BACKWARD_JVP, MICA_BF16, 136, 0, "got 136", NULL },
    { "kernel=mma", MICA_BACKWARD, MICA_F32, 72, 0, "got 72", NULL },
  };
  mica_context     *context;
  micah_device     *d;
  micah_device_info info;
  const mica_op    *op;
  void             *memory;
  assert_ok(mica_context_create(NULL, &context));
  assert_ok(mica_find_op(context, "attention", &op));
  assert_ok(micah_context_device(context, MICA_CUDA, 0, &d));
  assert_ok(d->ops->info(d, &info));
  assert_ok(d->ops->alloc(d, BYTES, "rows", &memory));
  assert_ok(d->ops->fill(d, d->stream, memory, 0, BYTES));
  for (int n = 0; n < MICA_COUNT(cases); n++) {
    if (cases[n].or && info.capability == 90) {
      print_message("not looked at: what other devices say, this one has those kernels\n");
      continue;
    }
    mica_attention_args a;
    assert_ok(mica_args_init(op, &a));
    assert_ok(mica_args_set(op, &a, cases[n].settings));
    a.B = a.H = a.G = 1, a.T = a.S = ROWS, a.D = cases[n].D;
    mica_port *ports[] = { &a.q, &a.k, &a.v, &a.out };
    for (int p = 0; p < MICA_COUNT(ports); p++)
      ports[p]->v = ports[p]->d = (mica_wire){ .data = (char *)memory + cases[n].shift, .task_stride = ROWS * a.D,
                                               .stride = { a.D, a.D, 1 }, .dtype = cases[n].dtype };
    a.lse.v = (mica_wire){ .data = memory, .task_stride = ROWS, .stride = { 1, 1 }, .dtype = MICA_F32 };
    assert_ok(op->infer(&a));
    assert_status(mica_op_run(context, "attention", MICA_CUDA, cases[n].dtype, cases[n].face, &a), MICA_ERR_UNSUPPORTED);
    const char *said = mica_last_error();
    if (!strstr(said, "set kernel=auto") || (!strstr(said, cases[n].why) && !(cases[n].or && strstr(said, cases[n].or))))
      fail_msg("case %d says: %s; expected: %s", n, said, cases[n].why);
  }
  d->ops->free(d, memory, BYTES);
  mica_context_destroy(context);
}

int main(void) {
  setenv("PTXSIM_CC", "80", 0);              /* else it is a device of 9.0 */
  const struct CMUnitTest tests[] = { cmocka_unit_test(refusals) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
