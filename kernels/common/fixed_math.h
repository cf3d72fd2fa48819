/* fixed_math.h: log, sin and cos by one fixed formula each: the same bits on every machine and compiler.
 *
 * libm differs in the last bit between versions and between processors, and task n must be task n everywhere. only
 * +, -, *, / and sqrt in double, all correctly rounded by IEEE 754; compile without contraction into fma (gcc's default
 * with -std=c11). polynomials of fdlibm (Sun, 1993; e_log.c, k_sin.c, k_cos.c), error below 1 ulp. */
#ifndef MICAK_FIXED_MATH_H
#define MICAK_FIXED_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* for the host and, in CUDA sources, for the device */
#ifdef __CUDACC__
#define MICAK_BOTH static inline __host__ __device__
#else
#define MICAK_BOTH static inline
#endif

/* natural logarithm of a normal, positive double */
MICAK_BOTH double micak_fixed_log(double x) {
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  /* mantissa in [sqrt(1/2), sqrt(2)): add the distance of sqrt(1/2)'s high word to 1's, as fdlibm does */
  uint64_t shifted = bits + ((uint64_t)(0x3ff00000u - 0x3fe6a09eu) << 32);
  double k = (double)((int64_t)(shifted >> 52) - 1023);
  bits = (shifted & 0x000fffffffffffffull) + ((uint64_t)0x3fe6a09eu << 32);
  double m;
  memcpy(&m, &bits, sizeof m);
  double f = m - 1.0, s = f / (2.0 + f), z = s * s, w = z * z, half = 0.5 * f * f;
  double t1 = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  double t2 = z * (6.666666666666735130e-01 +
                   w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  return k * 6.93147180369123816490e-01 -
         ((half - (s * (half + (t1 + t2)) + k * 1.90821492927058770002e-10)) - f);
}

/* sine and cosine of |x| <= pi/4 */
MICAK_BOTH void micak_fixed_sincos_small(double x, double *sine, double *cosine) {
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
  double z = x * x;
  double rs = 8.33333333332248946124e-03 +
              z * (-1.98412698298579493134e-04 +
                   z * (2.75573137070700676789e-06 +
                        z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)));
  *sine = x + x * z * (-1.66666666666666324348e-01 + z * rs);
  double rc = z * (4.16666666666666019037e-02 +
                   z * (-1.38888888888741095749e-03 +
                        z * (2.48015872894767294178e-05 +
                             z * (-2.75573143513906633035e-07 +
                                  z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)))));
  double half = 0.5 * z, w = 1.0 - half;
  *cosine = w + (((1.0 - w) - half) + z * rc);
}

/* rotate (sin, cos) by `quarter` quarter turns; on bits, as a random quarter is a branch that no predictor learns */
MICAK_BOTH void micak_fixed_quarter(uint32_t quarter, double *sine, double *cosine) {
  uint64_t s, c, swap = 0u - (uint64_t)(quarter & 1u), sign = (uint64_t)(quarter & 2u) << 62;
  memcpy(&s, sine, sizeof s);
  memcpy(&c, cosine, sizeof c);
  uint64_t mixed = (s ^ c) & swap, negate = sign ^ ((uint64_t)(quarter & 1u) << 63);
  s = s ^ mixed ^ sign, c = c ^ mixed ^ negate;
  memcpy(sine, &s, sizeof s);
  memcpy(cosine, &c, sizeof c);
}

/* sine and cosine of x radians, |x| <= 1e5: reduction by pi/2 in three parts (Cody and Waite) */
MICAK_BOTH void micak_fixed_sincos(double x, double *sine, double *cosine) {
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
  double n = floor(x * 6.36619772367581382433e-01 + 0.5);
  double r = x - n * 1.57079632673412561417e+00;
  r = r - n * 6.07710050630396597660e-11;
  r = r - n * 2.02226624879595063154e-21;
  micak_fixed_sincos_small(r, sine, cosine);
  micak_fixed_quarter((uint32_t)((int64_t)n & 3), sine, cosine);
}

#endif
