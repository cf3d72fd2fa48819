/* simt_math.h: arithmetic that only device code has. approximate functions are computed precisely. */
#ifndef MICA_TESTS_SIMT_SIMT_MATH_H
#define MICA_TESTS_SIMT_SIMT_MATH_H

static inline float  rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float  __frsqrt_rn(float x) { return rsqrtf(x); }
static inline float  __fdividef(float a, float b) { return a / b; }
static inline float  __fdiv_rn(float a, float b) { return a / b; }
static inline float  __frcp_rn(float x) { return 1.0f / x; }
static inline float  __fsqrt_rn(float x) { return sqrtf(x); }
static inline float  __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float  __fadd_rn(float a, float b) { return a + b; }
static inline float  __fsub_rn(float a, float b) { return a - b; }
static inline float  __fmul_rn(float a, float b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float  __saturatef(float x) { return x > 1 ? 1.0f : x > 0 ? x : 0.0f; }

static inline int       __float_as_int(float x) { return simt::of_bits<int>(simt::to_bits(x)); }
static inline unsigned  __float_as_uint(float x) { return simt::of_bits<unsigned>(simt::to_bits(x)); }
static inline float     __int_as_float(int x) { return simt::of_bits<float>(simt::to_bits(x)); }
static inline float     __uint_as_float(unsigned x) { return simt::of_bits<float>(simt::to_bits(x)); }
static inline long long __double_as_longlong(double x) { return simt::of_bits<long long>(simt::to_bits(x)); }
static inline double    __longlong_as_double(long long x) { return simt::of_bits<double>(simt::to_bits(x)); }
static inline int       __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int       __float2int_rz(float x) { return (int)truncf(x); }
static inline int       __float2int_rd(float x) { return (int)floorf(x); }
static inline float     __int2float_rn(int x) { return (float)x; }
static inline float     __double2float_rn(double x) { return (float)x; }

static inline int      __popc(unsigned x) { return __builtin_popcount(x); }
static inline int      __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int      __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int      __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int      __ffs(int x) { return __builtin_ffs(x); }
static inline int      __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline int      __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
  return y;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
  uint64_t both = (uint64_t)b << 32 | a;
  unsigned x = 0;
  for (int i = 0; i < 4; i++) x |= (unsigned)(both >> 8 * (which >> 4 * i & 7) & 255) << 8 * i;
  return x;
}

template <class T>
static inline T __ldg(const T *at) { return *at; }
template <class T>
static inline T __ldca(const T *at) { return *at; }
template <class T>
static inline T __ldcg(const T *at) { return *at; }
template <class T>
static inline T __ldcs(const T *at) { return *at; }
template <class T>
static inline void __stcg(T *at, T x) { *at = x; }
template <class T>
static inline void __stcs(T *at, T x) { *at = x; }

#define SIMT_LESSER(type, lesser, greater)                    \
  static inline type min(type a, type b) { return lesser; }   \
  static inline type max(type a, type b) { return greater; }
SIMT_LESSER(int, b < a ? b : a, a < b ? b : a)
SIMT_LESSER(unsigned, b < a ? b : a, a < b ? b : a)
SIMT_LESSER(long, b < a ? b : a, a < b ? b : a)
SIMT_LESSER(unsigned long, b < a ? b : a, a < b ? b : a)
SIMT_LESSER(long long, b < a ? b : a, a < b ? b : a)
SIMT_LESSER(unsigned long long, b < a ? b : a, a < b ? b : a)
SIMT_LESSER(float, fminf(a, b), fmaxf(a, b))
SIMT_LESSER(double, fmin(a, b), fmax(a, b))

/* the C library declares these names for itself */
static inline float simt_expf(float x) { return (float)exp((double)x); }
static inline float simt_exp10f(float x) { return (float)pow(10.0, (double)x); }
static inline float simt_logf(float x) { return (float)log((double)x); }
static inline float simt_log2f(float x) { return (float)log2((double)x); }
static inline float simt_log10f(float x) { return (float)log10((double)x); }
static inline float simt_sinf(float x) { return (float)sin((double)x); }
static inline float simt_cosf(float x) { return (float)cos((double)x); }
static inline float simt_tanf(float x) { return (float)tan((double)x); }
static inline float simt_powf(float x, float y) { return (float)pow((double)x, (double)y); }
static inline void  simt_sincosf(float x, float *s, float *c) { *s = simt_sinf(x), *c = simt_cosf(x); }
#define __expf simt_expf
#define __exp10f simt_exp10f
#define __logf simt_logf
#define __log2f simt_log2f
#define __log10f simt_log10f
#define __sinf simt_sinf
#define __cosf simt_cosf
#define __tanf simt_tanf
#define __powf simt_powf
#define __sincosf simt_sincosf

#endif
