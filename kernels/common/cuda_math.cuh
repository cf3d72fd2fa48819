/* cuda_math.cuh: the names of common/simd.h for one element of device code, so that a list of formulas serves both. */
#ifndef MICA_KERNELS_COMMON_CUDA_MATH_CUH
#define MICA_KERNELS_COMMON_CUDA_MATH_CUH

#include <math.h>

#include "common/cuda_launch.h"

#define V_DEVICE static __device__ __forceinline__

V_DEVICE float v_set1(float x) { return x; }
V_DEVICE float v_zero() { return 0.0f; }
V_DEVICE bool  v_lt(float a, float b) { return a < b; }
V_DEVICE bool  v_le(float a, float b) { return a <= b; }
V_DEVICE bool  v_gt(float a, float b) { return a > b; }
V_DEVICE bool  v_ge(float a, float b) { return a >= b; }
V_DEVICE bool  v_eq(float a, float b) { return a == b; }
V_DEVICE bool  v_ne(float a, float b) { return a != b; }
V_DEVICE bool  vm_and(bool a, bool b) { return a && b; }
V_DEVICE float v_select(bool mask, float a, float b) { return mask ? a : b; }
V_DEVICE float v_keep(bool mask, float x) { return mask ? x : 0.0f; }
/* a NaN in the second place passes, as on the CPU */
V_DEVICE float v_min(float a, float b) { return a < b ? a : b; }
V_DEVICE float v_max(float a, float b) { return a > b ? a : b; }
V_DEVICE float v_abs(float x) { return fabsf(x); }
V_DEVICE float v_copysign(float x, float s) { return copysignf(x, s); }
V_DEVICE float v_fma(float a, float b, float c) { return fmaf(a, b, c); }
V_DEVICE float v_sqrt(float x) { return sqrtf(x); }
V_DEVICE float v_exp(float x) { return expf(x); }
V_DEVICE float v_log(float x) { return logf(x); }
V_DEVICE float v_log1p(float x) { return log1pf(x); }
V_DEVICE float v_tanh(float x) { return tanhf(x); }
V_DEVICE float v_sin(float x) { return sinf(x); }
V_DEVICE float v_cos(float x) { return cosf(x); }
V_DEVICE float v_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
V_DEVICE float v_sigmoid_1(float y) { return y * (1.0f - y); }
V_DEVICE float v_silu_1(float x) {
  float g = v_sigmoid(x);
  return g * (1.0f + x * (1.0f - g));
}
V_DEVICE float v_silu_2(float x) {
  float g = v_sigmoid(x);
  return g * (1.0f - g) * (2.0f + x * (1.0f - 2.0f * g));
}
/* the normal distribution: function and density */
V_DEVICE float v_normal_cdf(float x) { return fmaf(0.5f, erff(x * 0.707106781f), 0.5f); }
V_DEVICE float v_normal_pdf(float x) { return 0.398942280f * expf(-0.5f * x * x); }
/* gelu; by the tanh formula: x s, s = sigmoid(2u), 2u = x (c + 0.044715 c x^2), c = sqrt(8 / pi) */
V_DEVICE float v_gelu_e(float x) { return expf(fminf(80.0f, x * fmaf(-0.0713548163f, x * x, -1.59576912f))); }
V_DEVICE float v_gelu(float x, int64_t approx) { return approx ? x / (1.0f + v_gelu_e(x)) : x * v_normal_cdf(x); }
V_DEVICE float v_gelu_1(float x, int64_t approx) {
  if (!approx) return fmaf(x, v_normal_pdf(x), v_normal_cdf(x));
  float e = v_gelu_e(x), s = 1.0f / (1.0f + e), u1 = fmaf(0.214064449f, x * x, 1.59576912f);
  return fmaf(x * (s * (e * s)), u1, s);
}
V_DEVICE float v_gelu_2(float x, int64_t approx) {
  if (!approx) return v_normal_pdf(x) * fmaf(-x, x, 2.0f);
  float e = v_gelu_e(x), s = 1.0f / (1.0f + e), u1 = fmaf(0.214064449f, x * x, 1.59576912f);
  float bend = fmaf(u1 * u1, fmaf(-2.0f, s, 1.0f), 0.428128898f * x);
  return s * (e * s) * fmaf(x, bend, u1 + u1);
}

#endif
