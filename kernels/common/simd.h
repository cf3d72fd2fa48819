/* simd.h: vectors of float for the CPU kernels, one source for every instruction set.
 *
 * included by <op>_cpu.c, which is compiled once per instruction set (common/isa.h): MICAK_ISA_AVX512, MICAK_ISA_AVX2
 * or portable (vectors of 4 by the compiler's own vector types: SSE2, NEON, anything).
 *
 *   vf  VW floats        vi  VW int32        vm  a mask, one truth value a lane: only from comparisons and vm_* calls
 *
 * an element's bits never depend on its place: a tail is a partial load, the same lane arithmetic, a partial store.
 *
 *   for (i = 0; i + VW <= n; i += VW) v_store(y + i, v_exp(v_load(x + i)));
 *   if (i < n) v_store_n(y + i, v_exp(v_load_n(x + i, n - i)), n - i);
 *
 * functions: error at most 2 ulp of the result over the whole range unless said otherwise, NaN in gives NaN out, +-inf
 * as in C's libm (tests/unit/test_simd_math.c). polynomials are minimax fits of our own; the reductions are those of
 * Cephes (Moshier) and of Cody and Waite, "Software manual for the elementary functions" (1980). */
#ifndef MICA_KERNELS_COMMON_SIMD_H
#define MICA_KERNELS_COMMON_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(MICAK_ISA_AVX512)
enum { VW = 16 };
#elif defined(MICAK_ISA_AVX2)
enum { VW = 8 };
#else
enum { VW = 4 };
#endif
#if defined(MICAK_ISA_AVX512) || defined(MICAK_ISA_AVX2)
#include <immintrin.h>
#endif

typedef float   vf __attribute__((vector_size(4 * VW)));
typedef int32_t vi __attribute__((vector_size(4 * VW)));
typedef uint32_t vu __attribute__((vector_size(4 * VW)));
#if defined(MICAK_ISA_AVX512)
typedef __mmask16 vm;
#else
typedef vi vm;
#endif
typedef float vf_loose __attribute__((vector_size(4 * VW), aligned(4), may_alias)); /* in memory, at any float */

/* ---- constants, bits, memory ---- */

static inline vf v_set1(float x) { return x - (vf){ 0 }; }
static inline vi vi_set1(int32_t x) { return x - (vi){ 0 }; }
/* sums and shifts of a number's bits wrap: what they give for a NaN is thrown away */
static inline vi vi_add(vi a, vi b) { return (vi)((vu)a + (vu)b); }
static inline vi vi_shift(vi a, int n) { return (vi)((vu)a << n); }
static inline vf v_zero(void) { return (vf){ 0 }; }
static inline vi v_bits(vf x) { return (vi)x; }
static inline vf v_from_bits(vi x) { return (vf)x; }

/* VW floats; no alignment is asked for, an aligned address is faster */
static inline vf   v_load(const float *p) { return *(const vf_loose *)p; }
static inline void v_store(float *p, vf x) { *(vf_loose *)p = x; }

/* the first n lanes, 0 <= n <= VW: other lanes load as 0 and are not stored; nothing beyond n is touched */
#if defined(MICAK_ISA_AVX512)
static inline __mmask16 v_first(int64_t n) { return (__mmask16)((1u << n) - 1u); }
static inline vf   v_load_n(const float *p, int64_t n) { return (vf)_mm512_maskz_loadu_ps(v_first(n), p); }
static inline void v_store_n(float *p, vf x, int64_t n) { _mm512_mask_storeu_ps(p, v_first(n), (__m512)x); }
#elif defined(MICAK_ISA_AVX2)
static inline __m256i v_first(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf   v_load_n(const float *p, int64_t n) { return (vf)_mm256_maskload_ps(p, v_first(n)); }
static inline void v_store_n(float *p, vf x, int64_t n) { _mm256_maskstore_ps(p, v_first(n), (__m256)x); }
#else
static inline vf v_load_n(const float *p, int64_t n) {
  float lane[VW] = { 0 };
  for (int64_t i = 0; i < n; i++) lane[i] = p[i];
  vf x;
  memcpy(&x, lane, sizeof x);
  return x;
}
static inline void v_store_n(float *p, vf x, int64_t n) {
  float lane[VW];
  memcpy(lane, &x, sizeof x);
  for (int64_t i = 0; i < n; i++) p[i] = lane[i];
}
#endif

/* lanes p[0], p[stride], ... of n <= VW elements (stride 0 repeats one) */
static inline vf v_load_strided(const float *p, int64_t stride, int64_t n) {
  float lane[VW] = { 0 };
  for (int64_t i = 0; i < n; i++) lane[i] = p[i * stride];
  vf x;
  memcpy(&x, lane, sizeof x);
  return x;
}
static inline void v_store_strided(float *p, int64_t stride, vf x, int64_t n) {
  float lane[VW];
  memcpy(lane, &x, sizeof x);
  for (int64_t i = 0; i < n; i++) p[i * stride] = lane[i];
}

/* ---- comparisons and selection ---- */

#if defined(MICAK_ISA_AVX512)
static inline vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
static inline vm v_le(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ); }
static inline vm v_ne(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NEQ_UQ); }
static inline vm vm_and(vm a, vm b) { return (vm)(a & b); }
static inline vm vm_or(vm a, vm b) { return (vm)(a | b); }
static inline vm vm_not(vm a) { return (vm)~a; }
static inline int vm_any(vm a) { return a != 0; }
/* mask ? a : b */
static inline vf v_select(vm mask, vf a, vf b) { return (vf)_mm512_mask_blend_ps(mask, (__m512)b, (__m512)a); }
static inline vi vi_select(vm mask, vi a, vi b) { return (vi)_mm512_mask_blend_epi32(mask, (__m512i)b, (__m512i)a); }
/* lanes of an int vector that are not zero */
static inline vm vi_true(vi a) { return _mm512_test_epi32_mask((__m512i)a, (__m512i)a); }
#else
static inline vm v_lt(vf a, vf b) { return (vm)(a < b); }
static inline vm v_le(vf a, vf b) { return (vm)(a <= b); }
static inline vm v_eq(vf a, vf b) { return (vm)(a == b); }
static inline vm v_ne(vf a, vf b) { return (vm)(a != b); }
static inline vm vm_and(vm a, vm b) { return a & b; }
static inline vm vm_or(vm a, vm b) { return a | b; }
static inline vm vm_not(vm a) { return ~a; }
static inline vm vi_true(vi a) { return (vm)(a != (vi){ 0 }); }
#if defined(MICAK_ISA_AVX2)
static inline int vm_any(vm a) { return _mm256_movemask_ps((__m256)a) != 0; }
static inline vf v_select(vm mask, vf a, vf b) { return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask); }
static inline vi vi_select(vm mask, vi a, vi b) { return (vi)v_select(mask, (vf)a, (vf)b); }
#else
static inline int vm_any(vm a) { return (a[0] | a[1] | a[2] | a[3]) != 0; }
static inline vi vi_select(vm mask, vi a, vi b) { return (mask & a) | (~mask & b); }
static inline vf v_select(vm mask, vf a, vf b) { return (vf)vi_select(mask, (vi)a, (vi)b); }
#endif
#endif
static inline vm v_gt(vf a, vf b) { return v_lt(b, a); }
static inline vm v_ge(vf a, vf b) { return v_le(b, a); }
/* mask ? x : 0, whatever x is (NaN too) */
static inline vf v_keep(vm mask, vf x) { return v_select(mask, x, v_zero()); }
static inline vm v_isnan(vf x) { return v_ne(x, x); }

/* ---- arithmetic: +, -, *, / are the operators. write v_fma in a * b + c * d: the compiler may fuse either product,
 * and not the same one in a loop and in its tail ---- */

/* a b + c, rounded once where the machine can */

#if defined(MICAK_ISA_AVX512)
static inline vf v_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vf v_sqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
/* a < b ? a : b, a > b ? a : b: a NaN on either side gives b (put the data second to keep its NaN) */
static inline vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(MICAK_ISA_AVX2)
static inline vf v_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vf v_sqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
static inline vf v_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vf v_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
#else
static inline vf v_fma(vf a, vf b, vf c) {
#if defined(__FP_FAST_FMAF)
  for (int i = 0; i < VW; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#else
  return a * b + c;
#endif
}
static inline vf v_sqrt(vf x) {
  for (int i = 0; i < VW; i++) x[i] = sqrtf(x[i]);
  return x;
}
static inline vf v_min(vf a, vf b) { return v_select(v_lt(a, b), a, b); }
static inline vf v_max(vf a, vf b) { return v_select(v_gt(a, b), a, b); }
#endif
static inline vf v_abs(vf x) { return (vf)((vi)x & vi_set1(0x7fffffff)); }
static inline vf v_sign_bit(vf x) { return (vf)((vi)x & vi_set1(INT32_MIN)); }
/* magnitude of x, sign of s */
static inline vf v_copysign(vf x, vf s) { return (vf)((vi)v_abs(x) | (vi)v_sign_bit(s)); }
/* 1 / sqrt(x), two correct roundings: no estimate instruction, the same bits on every machine */
static inline vf v_rsqrt(vf x) { return 1.0f / v_sqrt(x); }

/* sum of the lanes, always ((0+h)+(q+3q))... by halves; the order depends on VW alone */
#if defined(MICAK_ISA_AVX512) || defined(MICAK_ISA_AVX2)
static inline float v_sum8(__m256 x) {
  __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  a = _mm_add_ss(a, _mm_shuffle_ps(a, a, 1));
  return _mm_cvtss_f32(a);
}
static inline float v_max8(__m256 x) {
  __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  a = _mm_max_ss(a, _mm_shuffle_ps(a, a, 1));
  return _mm_cvtss_f32(a);
}
#endif
#if defined(MICAK_ISA_AVX512)
static inline __m256 v_high8(vf x) { return _mm512_extractf32x8_ps((__m512)x, 1); }
static inline float v_sum(vf x) { return v_sum8(_mm256_add_ps(_mm512_castps512_ps256((__m512)x), v_high8(x))); }
static inline float v_max_lane(vf x) { return v_max8(_mm256_max_ps(_mm512_castps512_ps256((__m512)x), v_high8(x))); }
#elif defined(MICAK_ISA_AVX2)
static inline float v_sum(vf x) { return v_sum8((__m256)x); }
static inline float v_max_lane(vf x) { return v_max8((__m256)x); }
#else
static inline float v_sum(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
/* the largest lane; what it gives where a lane is NaN is not defined */
static inline float v_max_lane(vf x) {
  float a = x[0] > x[2] ? x[0] : x[2], b = x[1] > x[3] ? x[1] : x[3];
  return a > b ? a : b;
}
#endif

/* nearest integer to x, |x| < 2^22, as float; *n gets it as int. ties to even. */
static inline vf v_round(vf x, vi *n) {
  vf shifted = x + 12582912.0f; /* 1.5 * 2^23: the integer stands in the low bits */
  *n = vi_add((vi)shifted, vi_set1(-0x4b400000));
  return shifted - 12582912.0f;
}
/* 2^n for -126 <= n <= 127 */
static inline vf v_pow2(vi n) { return (vf)vi_shift(vi_add(n, vi_set1(127)), 23); }

/* ---- exp, expm1 ---- */

/* x = n ln 2 + r, |r| <= ln 2 / 2 */
static inline vf v_reduce_exp(vf x, vi *n) {
  vf k = v_round(x * 1.44269504f, n);
  vf r = v_fma(k, v_set1(-0.693359375f), x); /* 9 bits: the product is exact */
  return v_fma(k, v_set1(2.12194440e-4f), r);
}
/* (e^r - 1 - r) / r^2 */
static inline vf v_exp_poly(vf r) {
  vf p = v_set1(1.984604023e-04f);
  p = v_fma(p, r, v_set1(1.394269872e-03f));
  p = v_fma(p, r, v_set1(8.333394304e-03f));
  p = v_fma(p, r, v_set1(4.166633636e-02f));
  p = v_fma(p, r, v_set1(1.666666567e-01f));
  return v_fma(p, r, v_set1(0.5f));
}
/* e^x, with results below the normal range rounded as usual */
static inline vf v_exp(vf x) {
  vi n;
  vf r = v_reduce_exp(v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x)), &n);
  vf p = v_fma(v_exp_poly(r), r * r, r) + 1.0f;
  vi half = n >> 1; /* two factors: 2^128 and 2^-150 have no float */
  return p * v_pow2(half) * v_pow2(n - half);
}
/* e^x for x <= 88, exactly 0 below -87 (-inf too): what a softmax needs, two thirds of the work */
static inline vf v_exp_low(vf x) {
  vi n;
  vf r = v_reduce_exp(v_max(v_set1(-87.0f), x), &n);
  vf p = v_fma(v_exp_poly(r), r * r, r) + 1.0f;
  return v_select(v_lt(x, v_set1(-87.0f)), v_zero(), (vf)vi_add((vi)p, vi_shift(n, 23)));
}
/* e^x - 1 */
static inline vf v_expm1(vf x) {
  vi n;
  vf r = v_reduce_exp(v_min(v_set1(89.0f), v_max(v_set1(-20.0f), x)), &n);
  vf e = v_fma(v_exp_poly(r), r * r, r);
  vf s = v_pow2(vi_add(n, vi_set1(-1))); /* half the factor: 2^128 has no float */
  vf y = v_fma(e, s, s - 0.5f);
  return v_select(v_lt(v_abs(x), v_set1(0.34f)), e, y + y);
}

/* ---- log, log1p ---- */

/* log x; 0 gives -inf, below 0 NaN */
static inline vf v_log(vf x) {
  vm tiny = v_lt(x, v_set1(1.17549435e-38f));
  vf up = v_select(tiny, x * 8388608.0f, x);
  vi bits = vi_add((vi)up, vi_set1(0x3f800000 - 0x3f3504f3)); /* mantissa in [sqrt 1/2, sqrt 2) */
  vf e = __builtin_convertvector((bits >> 23) - 127, vf) - v_keep(tiny, v_set1(23.0f));
  vf f = (vf)((bits & vi_set1(0x007fffff)) + vi_set1(0x3f3504f3)) - 1.0f;
  vf p = v_set1(6.757570803e-02f), z = f * f;
  p = v_fma(p, f, v_set1(-1.169433519e-01f));
  p = v_fma(p, f, v_set1(1.189351231e-01f));
  p = v_fma(p, f, v_set1(-1.240308359e-01f));
  p = v_fma(p, f, v_set1(1.421855390e-01f));
  p = v_fma(p, f, v_set1(-1.666809022e-01f));
  p = v_fma(p, f, v_set1(2.000216693e-01f));
  p = v_fma(p, f, v_set1(-2.500000894e-01f));
  p = v_fma(p, f, v_set1(3.333331048e-01f));
  p = v_fma(p * f, z, e * -2.12194440e-4f);
  p = v_fma(v_set1(-0.5f), z, p);
  vf y = v_fma(e, v_set1(0.693359375f), f + p);
  y = v_select(v_lt(x, v_set1(INFINITY)), y, x); /* inf and NaN as they came */
  y = v_select(v_eq(x, v_zero()), v_set1(-INFINITY), y);
  return v_select(v_lt(x, v_zero()), v_set1(NAN), y);
}
/* log(1 + x), x >= -1; the rounding of 1 + x is made good to first order */
static inline vf v_log1p(vf x) {
  vf w = 1.0f + x;
  vf y = v_log(w) + (x - (w - 1.0f)) / w;
  return v_select(vm_and(v_lt(x, v_set1(INFINITY)), v_gt(w, v_zero())), y, v_log(w));
}

/* ---- sigmoid, tanh, the normal distribution ---- */

/* 1 / (1 + e^-x), error 2.2 ulp; 0 below -88.7 */
static inline vf v_sigmoid(vf x) { return 1.0f / (1.0f + v_exp(-x)); }

static inline vf v_tanh(vf x) {
  vf a = v_abs(x), z = x * x;
  vf p = v_set1(-5.591016263e-03f);
  p = v_fma(p, z, v_set1(2.053881995e-02f));
  p = v_fma(p, z, v_set1(-5.370965600e-02f));
  p = v_fma(p, z, v_set1(1.333109289e-01f));
  p = v_fma(p, z, v_set1(-3.333326876e-01f));
  vf small = v_fma(p * z, x, x);
  /* beyond 10 the result is 1 */
  vf large = 1.0f - 2.0f / (v_exp_low(v_min(v_set1(20.0f), a + a)) + 1.0f);
  return v_select(v_lt(a, v_set1(0.625f)), small, v_copysign(large, x));
}

/* the normal distribution function (1 + erf(x / sqrt 2)) / 2, and e^(-x^2/2) to *e; error 2 ulp of 1, not of the small
 * tail. |x| < sqrt 2: erf by its series in x^2; beyond, half of erfc(|x| / sqrt 2) = e^(-x^2/2) k q(k),
 * k = 1 / (1 + 0.3875 |x| / sqrt 2) (after Hastings; q is our own minimax fit) */
static inline vf v_normal(vf x, vf *e) {
  vf t = x * 0.707106781f, z = t * t;
  vf p = v_set1(7.853857824e-05f);
  p = v_fma(p, z, v_set1(-8.010192541e-04f));
  p = v_fma(p, z, v_set1(5.188327748e-03f));
  p = v_fma(p, z, v_set1(-2.685381100e-02f));
  p = v_fma(p, z, v_set1(1.128358543e-01f));
  p = v_fma(p, z, v_set1(-3.761262596e-01f));
  p = v_fma(p, z, v_set1(1.283791661e-01f));
  vf near = v_fma(v_set1(0.5f), v_fma(p, t, t), v_set1(0.5f));
  *e = v_exp_low(-0.5f * x * x);
  vf k = 1.0f / v_fma(v_set1(0.274003878f), v_abs(x), v_set1(1.0f));
  vf q = v_set1(-0.1162918474f);
  q = v_fma(q, k, v_set1(0.4634780838f));
  q = v_fma(q, k, v_set1(-0.3487805841f));
  q = v_fma(q, k, v_set1(0.3463035090f));
  q = v_fma(q, k, v_set1(0.03725517017f));
  q = v_fma(q, k, v_set1(0.1180356748f));
  vf tail = *e * k * q;
  return v_select(v_lt(z, v_set1(1.0f)), near, v_select(v_lt(x, v_zero()), tail, 1.0f - tail));
}

/* ---- gelu by the tanh formula: x (1 + tanh u) / 2 = x s, s = sigmoid(2 u), 2 u = x (c + 0.044715 c x^2),
 * c = sqrt(8 / pi). one exponential and one division; an error of a few ulp of x, where 1 + tanh u would cancel ---- */

static inline vf v_gelu_tanh_e(vf x) { /* e^-2u */
  vf u = x * v_fma(v_set1(-0.0713548163f), x * x, v_set1(-1.59576912f));
  return v_exp_low(v_min(v_set1(80.0f), u));
}
static inline vf v_gelu_tanh(vf x) { return x / (1.0f + v_gelu_tanh_e(x)); }
/* slope and curvature; s' = s (1 - s) (2 u)', and 1 - s = e s keeps its small values right */
static inline vf v_gelu_tanh_1(vf x) {
  vf e = v_gelu_tanh_e(x), s = 1.0f / (1.0f + e), u1 = v_fma(v_set1(0.214064449f), x * x, v_set1(1.59576912f));
  return v_fma(x * (s * (e * s)), u1, s);
}
static inline vf v_gelu_tanh_2(vf x) {
  vf e = v_gelu_tanh_e(x), s = 1.0f / (1.0f + e), u1 = v_fma(v_set1(0.214064449f), x * x, v_set1(1.59576912f));
  vf bend = v_fma(u1 * u1, v_fma(v_set1(-2.0f), s, v_set1(1.0f)), 0.428128898f * x);
  return s * (e * s) * v_fma(x, bend, u1 + u1);
}

/* ---- sin, cos ---- */

/* x = n pi/2 + r, |r| <= pi/4; good for |x| <= 8192 */
static inline vf v_reduce_turn(vf x, vi *n) {
  vf k = v_round(x * 0.636619772f, n);
  vf r = v_fma(k, v_set1(-0x1.92p+0f), x);
  r = v_fma(k, v_set1(-0x1.fb4p-12f), r);
  r = v_fma(k, v_set1(-0x1.444p-24f), r);
  return v_fma(k, v_set1(-0x1.68cp-39f), r);
}
/* sin(r) and cos(r) by the quarter turn n */
static inline vf v_turn(vf r, vi n) {
  vf z = r * r;
  vf s = v_fma(v_set1(-1.950874139e-04f), z, v_set1(8.332112804e-03f));
  s = v_fma(v_fma(s, z, v_set1(-1.666665375e-01f)) * z, r, r);
  vf c = v_fma(v_set1(2.442568075e-05f), z, v_set1(-1.388725126e-03f));
  c = v_fma(v_fma(c, z, v_set1(4.166664556e-02f)) * z, z, v_fma(v_set1(-0.5f), z, v_set1(1.0f)));
  vf y = v_select(vi_true(n & 1), c, s);
  return (vf)((vi)y ^ vi_shift(n & 2, 30));
}
/* beyond |x| = 8192 (and for NaN) a lane goes to libm. error 2 ulp of the result, or 2^-30 near a zero of large x */
static inline vf v_sin(vf x) {
  vi n;
  vf r = v_reduce_turn(x, &n);
  vf y = v_turn(r, n);
  vm near = v_le(v_abs(x), v_set1(8192.0f));
  if (vm_any(vm_not(near))) {
    for (int i = 0; i < VW; i++)
      if (!(fabsf(x[i]) <= 8192.0f)) y[i] = sinf(x[i]);
  }
  return y;
}
static inline vf v_cos(vf x) {
  vi n;
  vf r = v_reduce_turn(x, &n);
  vf y = v_turn(r, vi_add(n, vi_set1(1)));
  vm near = v_le(v_abs(x), v_set1(8192.0f));
  if (vm_any(vm_not(near))) {
    for (int i = 0; i < VW; i++)
      if (!(fabsf(x[i]) <= 8192.0f)) y[i] = cosf(x[i]);
  }
  return y;
}

#endif
