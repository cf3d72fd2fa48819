/* optimizer kernels against the plain double loops, for each instruction set of this machine; cuts keep the bits */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/isa.h"
#include "kernels/optimizer/optimizer.h"

enum { N = 3 * MICAK_OPTIMIZER_BLOCK + 1237, STEPS = 20 };

static double uniform(uint64_t n) {
  uint64_t h = (n + 1) * 0x9e3779b97f4a7c15ull;
  h ^= h >> 29;
  h *= 0xbf58476d1ce4e5b9ull;
  return (double)(h >> 11) * 0x1p-52 - 1;
}
static float *floats(int64_t n, uint64_t salt) {
  float *x = malloc((size_t)n * sizeof *x);
  assert_non_null(x);
  for (int64_t i = 0; i < n; i++) x[i] = (float)uniform((uint64_t)i + salt * 1000003);
  return x;
}

static void adamw_is_the_formula(void **state) {
  (void)state;
  for (int isa = 0; isa <= micak_best_isa(); isa++) {
    float *p = floats(N, 1), *m = calloc(N, sizeof *m), *v = calloc(N, sizeof *v);
    double *pd = malloc(N * sizeof *pd), *md = calloc(N, sizeof *md), *vd = calloc(N, sizeof *vd);
    double *gd = malloc(N * sizeof *gd);
    assert_true(m && v && pd && md && vd && gd);
    for (int64_t i = 0; i < N; i++) pd[i] = p[i];
    micak_adamw s = { 1e-2, 0.9, 0.98, 1e-8, 0.1, 0.25, 0 };
    for (s.step = 1; s.step <= STEPS; s.step++) {
      float *g = floats(N, 10 + (uint64_t)s.step);
      for (int64_t i = 0; i < N; i++) gd[i] = g[i];
      micak_adamw_step(isa, &s, N, g, m, v, p);
      micak_adamw_step_ref(&s, N, gd, md, vd, pd);
      free(g);
    }
    for (int64_t i = 0; i < N; i++) {
      assert_true(fabs(p[i] - pd[i]) < 3e-6);
      assert_true(fabs(m[i] - md[i]) < 1e-6 && fabs(v[i] - vd[i]) < 1e-6);
    }
    free(p), free(m), free(v), free(pd), free(md), free(vd), free(gd);
  }
}

/* by hand: from p = 1, g = 2, first step of rate 1/2 without decay: m / c1 = 2, sqrt(v / c2) = 2, p = 1 - 1/2 */
static void adamw_first_step_by_hand(void **state) {
  (void)state;
  for (int isa = 0; isa <= micak_best_isa(); isa++) {
    float p[1] = { 1 }, g[1] = { 4 }, m[1] = { 0 }, v[1] = { 0 };
    micak_adamw s = { 0.5, 0.5, 0.75, 0, 0, 0.5, 1 };
    micak_adamw_step(isa, &s, 1, g, m, v, p);
    assert_true(p[0] == 0.5f && m[0] == 1 && v[0] == 1);
    /* decay 1/2 at rate 1/2 keeps 3/4 of p; no gradient */
    float q[1] = { 4 }, none[1] = { 0 }, a[1] = { 0 }, b[1] = { 0 };
    micak_adamw t = { 0.5, 0.5, 0.75, 1, 0.5, 1, 1 };
    micak_adamw_step(isa, &t, 1, none, a, b, q);
    assert_true(q[0] == 3);
  }
}

static void cuts_keep_the_bits(void **state) {
  (void)state;
  static const int64_t cuts[] = { 1, 7, MICAK_OPTIMIZER_BLOCK, MICAK_OPTIMIZER_BLOCK + 3, N };
  micak_adamw s = { 1e-3, 0.9, 0.95, 1e-8, 0.01, 0.5, 3 };
  for (int isa = 0; isa <= micak_best_isa(); isa++) {
    float *want = NULL;
    for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
      float *p = floats(N, 1), *g = floats(N, 2), *m = floats(N, 3), *v = floats(N, 4);
      for (int64_t i = 0; i < N; i++) v[i] = v[i] * v[i];
      for (int64_t i = 0; i < N; i += cuts[c]) {
        int64_t n = N - i < cuts[c] ? N - i : cuts[c];
        micak_adamw_step(isa, &s, n, g + i, m + i, v + i, p + i);
        micak_tree_add(isa, g + i, m + i, n);
      }
      for (int64_t i = 0; i < N; i++) v[i] += p[i] + m[i] + g[i];
      if (want) assert_memory_equal(v, want, N * sizeof *v);
      free(p), free(g), free(m);
      if (want) free(v);
      else want = v;
    }
    free(want);
  }
}

static void norms(void **state) {
  (void)state;
  float *x = floats(N, 5);
  int64_t n_sums = micak_norm2_count(N);
  assert_int_equal(n_sums, 4);
  double sums[4], first[4];
  for (int isa = 0; isa <= micak_best_isa(); isa++) {
    micak_norm2_blocks(isa, x, N, sums);
    if (isa == 0) memcpy(first, sums, sizeof sums);
    assert_memory_equal(sums, first, sizeof sums);
    for (int64_t k = 0; k < n_sums; k++) {
      int64_t at = k * MICAK_OPTIMIZER_BLOCK, n = N - at < MICAK_OPTIMIZER_BLOCK ? N - at : MICAK_OPTIMIZER_BLOCK;
      double want = micak_norm2_ref(x + at, n);
      assert_true(fabs(sums[k] - want) <= 1e-13 * want);
      double alone;
      micak_norm2_blocks(isa, x + at, n, &alone);
      assert_true(alone == sums[k]);
    }
  }
  /* a tree of 5: ((0 1) (2 3)) 4; any other order differs in the last bits */
  double t[5] = { 1, 0x1p-53, 0x1p-53, 0x1p-53, 0x1p-53 };
  volatile double low = t[0] + t[1], high = t[2] + t[3], both = low + high, want = both + t[4];
  assert_true(micak_norm2_tree(t, 5) == want);
  assert_true(micak_norm2_tree(t, 0) == 0);
  free(x);
}

static void not_finite(void **state) {
  (void)state;
  static const float bad[] = { NAN, INFINITY, -INFINITY };
  float *x = floats(N, 6);
  x[3] = 3e38f, x[4] = -3e38f;
  for (int isa = 0; isa <= micak_best_isa(); isa++) {
    assert_int_equal(micak_finite(isa, x, N), 1);
    assert_int_equal(micak_finite(isa, x, 0), 1);
    for (size_t b = 0; b < 3; b++)
      for (int64_t at = 0; at < N; at += 1229) {
        float keep = x[at];
        x[at] = bad[b];
        assert_int_equal(micak_finite(isa, x, N), 0);
        x[at] = keep;
      }
  }
  free(x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(adamw_is_the_formula), cmocka_unit_test(adamw_first_step_by_hand),
    cmocka_unit_test(cuts_keep_the_bits), cmocka_unit_test(norms), cmocka_unit_test(not_finite),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
