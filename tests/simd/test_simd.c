/* common/simd.h against libm in double, over dense sweeps of the float range; memory, masks and sums against loops. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/isa.h"
#include "common/simd.h"

/* distance in units of the last place of `want` as a float; `floor` is the least unit that counts */
static double ulp_error(double want, float got, double least) {
  if (isnan(want)) return isnan(got) ? 0 : INFINITY;
  if (isnan(got)) return INFINITY;
  float rounded = (float)want;
  if (isinf(rounded)) return got == rounded ? 0 : fabs((double)got - copysign(0x1p128, want)) / 0x1p104;
  if (isinf(got)) return fabs(want - copysign(0x1p128, (double)got)) / 0x1p104;
  int e;
  frexp(want, &e);
  double unit = ldexp(1, e - 24);
  if (unit < 0x1p-149) unit = 0x1p-149;
  if (unit < least) unit = least;
  return fabs((double)got - want) / unit;
}

typedef struct sweep {
  const char *name;
  vf        (*f)(vf);
  double    (*exact)(double);
  double      lo, hi;  /* |x| is swept from tiny to these, on each side */
  double      ulp;     /* allowed */
  double      least;   /* absolute floor of a unit: results below count as zero */
} sweep;

static double exact_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double exact_cdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
static double exact_pdf(double x) { return exp(-x * x / 2) * 0.39894228040143267794; }
static vf normal_cdf(vf x) {
  vf e;
  return v_normal(x, &e);
}
static vf normal_pdf(vf x) {
  vf e;
  v_normal(x, &e);
  return 0.398942280f * e;
}
static double exact_rsqrt(double x) { return 1 / sqrt(x); }

static const sweep sweeps[] = {
  { "exp", v_exp, exp, -INFINITY, INFINITY, 2, 0 },
  { "exp_low", v_exp_low, exp, -INFINITY, 88, 2, 0x1.1p-126 * 0x1p23 },
  { "expm1", v_expm1, expm1, -INFINITY, INFINITY, 2, 0 },
  { "log", v_log, log, -INFINITY, INFINITY, 2, 0 },
  { "log1p", v_log1p, log1p, -INFINITY, INFINITY, 2, 0 },
  { "sigmoid", v_sigmoid, exact_sigmoid, -88, INFINITY, 2.2, 0x1p-149 },
  { "tanh", v_tanh, tanh, -INFINITY, INFINITY, 2, 0 },
  { "normal", normal_cdf, exact_cdf, -INFINITY, INFINITY, 2, 0x1p-24 },
  { "normal, slope", normal_pdf, exact_pdf, -INFINITY, INFINITY, 2, 0x1p-25 },
  { "sin", v_sin, sin, -INFINITY, INFINITY, 2, 0x1p-53 },
  { "cos", v_cos, cos, -INFINITY, INFINITY, 2, 0x1p-53 },
  { "sqrt", v_sqrt, sqrt, -INFINITY, INFINITY, 0.5, 0 },
  { "rsqrt", v_rsqrt, exact_rsqrt, 0, INFINITY, 1.5, 0 },
};

static void test_functions(void **state) {
  (void)state;
  int bad = 0;
  for (size_t k = 0; k < sizeof sweeps / sizeof sweeps[0]; k++) {
    const sweep *s = &sweeps[k];
    double       worst = 0;
    float        where = 0;
    /* every 997th float of both signs, then the ends; 997 is prime, so all low bits occur */
    for (uint32_t sign = 0; sign < 2; sign++)
      for (uint32_t bits = 0; bits < 0x7f800000u; bits += 997 * VW) {
        vf x;
        for (int i = 0; i < VW; i++) {
          uint32_t u = bits + 997u * (uint32_t)i;
          if (u > 0x7f800000u) u = 0x7f800000u;
          u |= sign << 31;
          float lane;
          memcpy(&lane, &u, 4);
          x[i] = lane < s->lo ? (float)s->lo : lane > s->hi ? (float)s->hi : lane;
        }
        vf y = s->f(x);
        for (int i = 0; i < VW; i++) {
          double e = ulp_error(s->exact((double)x[i]), y[i], s->least);
          if (!(e <= worst)) worst = e, where = x[i];
        }
      }
    printf("  %-10s worst %.3f ulp at %a\n", s->name, worst, (double)where);
    if (!(worst <= s->ulp)) bad++;
    assert_true(isnan(s->f(v_set1(NAN))[VW - 1]));
  }
  assert_int_equal(bad, 0);
}

static void test_special_values(void **state) {
  (void)state;
  assert_true(v_exp(v_set1(-INFINITY))[0] == 0 && isinf(v_exp(v_set1(INFINITY))[0]));
  assert_true(v_exp_low(v_set1(-INFINITY))[0] == 0 && v_exp_low(v_set1(-90))[0] == 0 && v_exp(v_set1(0))[0] == 1);
  assert_true(v_log(v_set1(0))[0] == -INFINITY && isnan(v_log(v_set1(-1))[0]) && v_log(v_set1(1))[0] == 0);
  assert_true(v_log1p(v_set1(-1))[0] == -INFINITY && isnan(v_log1p(v_set1(-2))[0]));
  assert_true(v_tanh(v_set1(INFINITY))[0] == 1 && v_tanh(v_set1(-INFINITY))[0] == -1 && v_tanh(v_set1(0))[0] == 0);
  assert_true(v_sigmoid(v_set1(-INFINITY))[0] == 0 && v_sigmoid(v_set1(INFINITY))[0] == 1);
  assert_true(normal_cdf(v_set1(INFINITY))[0] == 1 && normal_cdf(v_set1(-INFINITY))[0] == 0);
  assert_true(normal_cdf(v_set1(0))[0] == 0.5f && normal_cdf(v_set1(-1000))[0] == 0);
  assert_true(isnan(v_sin(v_set1(INFINITY))[0]) && isnan(v_cos(v_set1(-INFINITY))[0]));
  assert_true(isnan(v_max(v_set1(1), v_set1(NAN))[0]) && v_min(v_set1(NAN), v_set1(1))[0] == 1);
}

/* a lane's bits depend neither on its place nor on its neighbours */
static void test_lanes_are_alone(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof sweeps / sizeof sweeps[0]; k++)
    for (int trial = 0; trial < 200; trial++) {
      vf x;
      for (int i = 0; i < VW; i++) x[i] = (float)(rand() % 20001 - 10000) * (trial % 3 ? 1e-3f : 3.7f);
      vf y = sweeps[k].f(x);
      for (int i = 0; i < VW; i++) {
        float a = y[i], b = sweeps[k].f(v_set1(x[i]))[(i + 1) % VW];
        assert_true(isnan(a) ? isnan(b) : !memcmp(&a, &b, 4));
      }
    }
}

static void test_memory(void **state) {
  (void)state;
  float from[3 * VW], to[3 * VW];
  for (int i = 0; i < 3 * VW; i++) from[i] = (float)(i + 1);
  for (int at = 0; at < VW; at++)
    for (int n = 0; n <= VW; n++) {
      vf x = v_load_n(from + at, n);
      for (int i = 0; i < VW; i++) assert_true(x[i] == (i < n ? from[at + i] : 0));
      for (int i = 0; i < 3 * VW; i++) to[i] = -1;
      v_store_n(to + at, v_load(from), n);
      for (int i = 0; i < 3 * VW; i++) assert_true(to[i] == (i >= at && i < at + n ? from[i - at] : -1));
      x = v_load_strided(from + at, 2, n);
      for (int i = 0; i < VW; i++) assert_true(x[i] == (i < n ? from[at + 2 * i] : 0));
      for (int i = 0; i < 3 * VW; i++) to[i] = -1;
      v_store_strided(to, 3, v_load(from), n < 3 ? n : 3);
      for (int i = 0; i < 3 * VW; i++) assert_true(to[i] == (i % 3 == 0 && i / 3 < n && i < 9 ? from[i / 3] : -1));
    }
  v_store(to + 1, v_load(from + 1));
  assert_memory_equal(to + 1, from + 1, 4 * VW);
  /* the edge of a page of its own: sanitizers and valgrind see a touch beyond n */
  float *tight = malloc(5 * sizeof(float));
  assert_non_null(tight);
  for (int i = 0; i < 5; i++) tight[i] = 1;
  for (int64_t n = 0, i = 0; i < 5; i += n) {
    n = 5 - i < VW ? 5 - i : VW;
    v_store_n(tight + i, v_load_n(tight + i, n) + 1.0f, n);
  }
  for (int i = 0; i < 5; i++) assert_true(tight[i] == 2);
  free(tight);
}

static void test_masks_and_sums(void **state) {
  (void)state;
  vf a, b;
  for (int i = 0; i < VW; i++) a[i] = (float)i, b[i] = (float)(VW - 1 - i);
  vf lt = v_select(v_lt(a, b), v_set1(1), v_zero()), le = v_keep(v_le(a, a), v_set1(1));
  for (int i = 0; i < VW; i++) assert_true(lt[i] == (float)(2 * i < VW - 1) && le[i] == 1);
  assert_true(vm_any(v_eq(a, v_zero())) && !vm_any(v_ne(a, a)) && !vm_any(vm_and(v_lt(a, b), v_gt(a, b))));
  assert_false(vm_any(vm_not(vm_or(v_lt(a, b), v_ge(a, b)))));
  assert_true(vm_any(v_isnan(v_set1(NAN))) && !vm_any(v_isnan(v_set1(INFINITY))));
  assert_true(v_keep(v_ne(a, a), v_set1(NAN))[0] == 0);
  assert_true(v_sum(a) == (float)(VW * (VW - 1) / 2) && v_max_lane(b - 3.0f) == (float)(VW - 4));
  assert_true(v_copysign(v_set1(2), v_set1(-0.0f))[0] == -2 && v_abs(v_set1(-3))[VW - 1] == 3);
  assert_true(vi_select(v_lt(a, b), vi_set1(7), vi_set1(-7))[0] == 7);
  assert_true(v_min(a, b)[0] == 0 && v_max(a, b)[0] == (float)(VW - 1));
}

int main(void) {
  if (micak_best_isa() < TEST_ISA) {
    printf("this machine lacks the instruction set\n");
    return 77;
  }
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_functions), cmocka_unit_test(test_special_values), cmocka_unit_test(test_lanes_are_alone),
    cmocka_unit_test(test_memory), cmocka_unit_test(test_masks_and_sums),
  };
  return cmocka_run_group_tests_name("simd", tests, NULL, NULL);
}
