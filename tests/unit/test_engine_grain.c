/* the fixed summation tree: the same bits whatever a launch carries, and the tree that the design names */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "host/engine/grain.h"

static float leaf(int64_t grain, int64_t i) {
  uint64_t h = (uint64_t)(grain * 1000003 + i) * 0x9e3779b97f4a7c15ull;
  return (float)((double)(h >> 11) * 0x1p-53 - 0.5);
}

/* the sum as the definition has it: a subtree of the largest power of two, and the rest beside it */
static float sum(int64_t first, int64_t n, int64_t i) {
  if (n == 1) return leaf(first, i);
  int64_t half = 1;
  while (2 * half < n) half *= 2;
  volatile float left = sum(first, half, i), right = sum(first + half, n - half, i);
  return left + right;
}

static micah_device *cpu_of(mica_context *context) {
  micah_device *device = NULL;
  assert_int_equal(micah_context_device(context, MICA_CPU, 0, &device), MICA_OK);
  return device;
}

static void any_launch_gives_the_tree(void **state) {
  micah_device *c = cpu_of(*state);
  enum { COUNT = 5000 };
  for (int64_t grains = 1; grains <= 19; grains++)
    for (int64_t launch = 1; launch <= grains; launch++) {
      micah_tree *t;
      assert_int_equal(micah_tree_create(c, NULL, COUNT, grains, launch, &t), MICA_OK);
      for (int again = 0; again < 2; again++) {
        for (int64_t g = 0; g < grains; g += launch) {
          int64_t n = launch < grains - g ? launch : grains - g;
          float *slots = micah_tree_slots(t);
          for (int64_t s = 0; s < n; s++)
            for (int64_t i = 0; i < COUNT; i++) slots[s * micah_tree_stride(t) + i] = leaf(g + s, i);
          assert_int_equal(micah_tree_push(t, n, g + n == grains), MICA_OK);
        }
        float *got;
        assert_int_equal(micah_tree_finish(t, &got), MICA_OK);
        for (int64_t i = 0; i < COUNT; i += 7) {
          float want = sum(0, grains, i);
          assert_memory_equal(&got[i], &want, sizeof want);
        }
      }
      assert_true(micah_tree_bytes(t) >= launch * COUNT * 4);
      micah_tree_destroy(t);
    }
}

static void errors(void **state) {
  micah_device *c = cpu_of(*state);
  micah_tree *t;
  float *got;
  assert_true(micah_tree_create(c, NULL, 10, 2, 3, &t) < 0);
  assert_int_equal(micah_tree_create(c, NULL, 10, 2, 1, &t), MICA_OK);
  assert_int_equal(micah_tree_finish(t, &got), MICA_ERR_STATE);
  assert_int_equal(micah_tree_clear(t, 0), MICA_OK);
  assert_int_equal(micah_tree_push(t, 1, 1), MICA_OK);
  micah_tree_reset(t);
  assert_int_equal(micah_tree_finish(t, &got), MICA_ERR_STATE);
  micah_tree_destroy(t);
}

static int setup(void **state) { return mica_context_create(NULL, (mica_context **)state); }
static int teardown(void **state) {
  mica_context_destroy(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(any_launch_gives_the_tree), cmocka_unit_test(errors) };
  return cmocka_run_group_tests(tests, setup, teardown);
}
