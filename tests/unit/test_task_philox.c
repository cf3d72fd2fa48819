/* the random numbers under everything: known answers, moments, no bias, fixed formulas against libm. */
#include "task_support.h"

#include "kernels/common/philox.h"

/* Random123's kat_vectors, philox4x32 10 */
static void known_answers(void **state) {
  (void)state;
  uint32_t w[4];
  micak_philox_key zero = { { 0, 0 } }, ones = { { 0xffffffffu, 0xffffffffu } };
  micak_philox_key digits = { { 0xa4093822u, 0x299f31d0u } };
  const uint32_t want[3][4] = { { 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u },
                                { 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu },
                                { 0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u } };
  micak_philox_words(zero, 0, 0, 0, w);
  assert_memory_equal(w, want[0], sizeof w);
  micak_philox_words(ones, 0xffffffffffffffffull, 0xffffffffu, 0xffffffffu, w);
  assert_memory_equal(w, want[1], sizeof w);
  micak_philox_words(digits, 0x85a308d3243f6a88ull, 0x03707344u, 0x13198a2eu, w);
  assert_memory_equal(w, want[2], sizeof w);
}

static void keys_differ(void **state) {
  (void)state;
  micak_philox_key k[5] = { micak_philox_key_of(1, 2, 3), micak_philox_key_of(2, 2, 3), micak_philox_key_of(1, 3, 3),
                            micak_philox_key_of(1, 2, 4), micak_philox_key_of(1, 2, 1ull << 40) };
  for (int i = 0; i < 5; i++)
    for (int j = 0; j < i; j++) assert_memory_not_equal(&k[i], &k[j], sizeof k[0]);
  assert_true(micak_hash_name("a") == 0xaf63dc4c8601ec8cull); /* FNV-1a's published value */
}

static void fixed_formulas_match_libm(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 200000; i++) {
    double u = micak_uniform32(i * 21474u + 5u), s, c, x = (u - 0.5) * 400;
    assert_true(u > 0 && u < 1);
    close_to(micak_fixed_log(u), log(u), 4e-16 * (fabs(log(u)) + 1), "log", i);
    micak_fixed_sincos(x, &s, &c);
    close_to(s, sin(x), 1e-14, "sin", i);
    close_to(c, cos(x), 1e-14, "cos", i);
  }
  close_to(micak_fixed_log(1e-300), log(1e-300), 1e-12, "log", 0);
  close_to(micak_fixed_log(12345.678), log(12345.678), 1e-14, "log", 1);
}

/* bits that must never change: a changed formula would change every task */
static void normals_are_pinned(void **state) {
  (void)state;
  double z[4];
  micak_philox_normal4(micak_philox_key_of(1, 2, 3), 4, 5, 6, z);
  double pin[4] = { -0x1.dbc54551fa208p-3, -0x1.396a12d89217ap+0, 0x1.26a49d07bf56ep+1, -0x1.6267b1086d2e5p-1 };
  for (int i = 0; i < 4; i++) assert_true(z[i] == pin[i]);
  double edge[2];
  micak_normal2(0, 0, edge);
  close_to(edge[0], sqrt(66 * log(2)), 1e-6, "largest radius", 0);
  micak_normal2(0xffffffffu, 0xffffffffu, edge);
  assert_true(edge[0] > 0 && edge[1] < 0 && edge[0] < 1e-4);
}

static void normals_have_their_moments(void **state) {
  (void)state;
  enum { N = 400000 };
  micak_stream s = micak_stream_at(micak_philox_key_of(9, 9, 9), 1, 1);
  double sum[5] = { 0 }, before = 0, serial = 0;
  int tail = 0;
  for (int i = 0; i < N; i++) {
    double z = micak_stream_normal(&s), p = 1;
    for (int k = 1; k < 5; k++) sum[k] += (p *= z) / N;
    serial += z * before / N, before = z;
    tail += fabs(z) > 3;
  }
  close_to(sum[1], 0, 5 / sqrt(N), "mean", 1);
  close_to(sum[2], 1, 5 * sqrt(2.0 / N), "variance", 2);
  close_to(sum[3], 0, 5 * sqrt(15.0 / N), "third", 3);
  close_to(sum[4], 3, 5 * sqrt(96.0 / N), "fourth", 4);
  close_to(serial, 0, 5 / sqrt(N), "neighbours", 0);
  close_to(tail, N * 0.0026998, 5 * sqrt(N * 0.0027), "beyond 3", 0);
}

static void integers_have_no_bias(void **state) {
  (void)state;
  enum { N = 60000 };
  micak_philox_key key = micak_philox_key_of(1, 1, 1);
  int seen[7] = { 0 };
  for (int i = 0; i < N; i++) {
    uint64_t v = micak_philox_below(key, (uint64_t)i, 3, 0, 7);
    assert_true(v < 7);
    seen[v]++;
  }
  double chi = 0;
  for (int k = 0; k < 7; k++) chi += (seen[k] - N / 7.0) * (seen[k] - N / 7.0) / (N / 7.0);
  assert_true(chi < 6 + 5 * sqrt(12));
  assert_true(micak_philox_below(key, 0, 3, 0, 1) == 0);
  /* a range of 3/4 of 2^64: without rejection a third of the values would come twice as often */
  int third[3] = { 0 };
  for (int i = 0; i < N; i++) third[micak_philox_below(key, (uint64_t)i, 4, 0, 3ull << 62) >> 62]++;
  for (int k = 0; k < 3; k++) close_to(third[k], N / 3.0, 5 * sqrt(N * 2 / 9.0), "third", k);
  uint64_t low, high = micak_mul_high(0xffffffffffffffffull, 0xffffffffffffffffull, &low);
  assert_true(high == 0xfffffffffffffffeull && low == 1);
}

static void uniforms_fill_the_interval(void **state) {
  (void)state;
  assert_true(micak_uniform53(0, 0) == 0 && micak_uniform53(0xffffffffu, 0xffffffffu) == 1 - 0x1p-53);
  micak_stream s = micak_stream_at(micak_philox_key_of(3, 3, 3), 1, 1);
  double sum = 0, square = 0;
  for (int i = 0; i < 100000; i++) {
    double u = micak_stream_uniform(&s);
    sum += u / 1e5, square += u * u / 1e5;
  }
  close_to(sum, 0.5, 5 * sqrt(1 / 12e5), "mean", 0);
  close_to(square, 1 / 3.0, 5 * sqrt(4 / 45e5), "square", 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(known_answers),
    cmocka_unit_test(keys_differ),
    cmocka_unit_test(fixed_formulas_match_libm),
    cmocka_unit_test(normals_are_pinned),
    cmocka_unit_test(normals_have_their_moments),
    cmocka_unit_test(integers_have_no_bias),
    cmocka_unit_test(uniforms_fill_the_interval),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
