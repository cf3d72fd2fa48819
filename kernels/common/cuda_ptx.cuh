/* cuda_ptx.cuh: the PTX instructions of sm_80 that kernels use, one wrapper each: an asm branch, and under MICA_SIMT a
 * call of the emulation in tests/simt. wrappers take pointers, never 32-bit shared addresses.
 *
 * fragments of a warp (PTX ISA, "matrix fragments for mma"), with g = lane / 4, t = lane % 4:
 *   mma_bf16 (m16n8k16)  a[0] (g, 2t..2t+1)  a[1] (g+8, 2t..)  a[2] (g, 2t+8..)  a[3] (g+8, 2t+8..)
 *                        b[0] (2t..2t+1, g)  b[1] (2t+8.., g)      two bf16 a register, the lower index in the low half
 *   mma_tf32 (m16n8k8)   a[0] (g, t)  a[1] (g+8, t)  a[2] (g, t+4)  a[3] (g+8, t+4)   b[0] (t, g)  b[1] (t+4, g)
 *   both                 d[0] (g, 2t)  d[1] (g, 2t+1)  d[2] (g+8, 2t)  d[3] (g+8, 2t+1), fp32
 *   ldmatrix             lanes 8i .. 8i+7 name the rows (8 x 16 bit, 16 bytes, aligned) of matrix i; r[i] gets elements
 *                        (g, 2t..2t+1) of matrix i; trans: (2t..2t+1, g) */
#ifndef MICA_KERNELS_COMMON_CUDA_PTX_CUH
#define MICA_KERNELS_COMMON_CUDA_PTX_CUH

#include "common/cuda_launch.h"

#define PTX_DEVICE static __device__ __forceinline__

/* warp-wide instructions carry their caller's place, so that the emulation can blame a divergent one */
#ifdef MICA_SIMT
#define PTX_AT , const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define PTX_HERE , file, line
namespace simt {
void     mma_bf16(float *d, const uint32_t *a, const uint32_t *b, const char *file, int line);
void     mma_tf32(float *d, const uint32_t *a, const uint32_t *b, const char *file, int line);
void     ldmatrix(uint32_t *r, int matrices, bool trans, const void *row, const char *file, int line);
void     copy_async(void *shared, const void *global, int bytes, bool valid); /* 4, 8 or 16; not valid: zeros */
void     copy_commit();
void     copy_wait(int groups);              /* until at most so many groups are under way */
}
#else
#define PTX_AT
#define PTX_HERE
PTX_DEVICE uint32_t ptx_shared(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }
#endif

/* d += a b, bf16 with fp32 sums */
PTX_DEVICE void ptx_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] PTX_AT) {
#ifdef MICA_SIMT
  simt::mma_bf16(d, a, b PTX_HERE);
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* d += a b, tf32 with fp32 sums; operands from ptx_to_tf32 */
PTX_DEVICE void ptx_mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] PTX_AT) {
#ifdef MICA_SIMT
  simt::mma_tf32(d, a, b PTX_HERE);
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* the nearest tf32 (10 bits of fraction; ties away from zero); the low 13 bits are zero: also a float */
PTX_DEVICE uint32_t ptx_to_tf32(float x) {
#ifdef MICA_SIMT
  uint32_t u = __float_as_uint(x);
  return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & ~0x1fffu;
#else
  uint32_t u;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(x));
  return u;
#endif
}

/* two bf16, round to nearest even; `low` in the low half */
PTX_DEVICE uint32_t ptx_pack_bf16(float low, float high) {
#ifdef MICA_SIMT
  uint32_t half[2];
  float    x[2] = { low, high };
  for (int i = 0; i < 2; i++) {
    uint32_t u = __float_as_uint(x[i]);
    half[i] = x[i] != x[i] ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  }
  return half[0] | half[1] << 16;
#else
  uint32_t u;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low));
  return u;
#endif
}

#ifdef MICA_SIMT
#define PTX_LDMATRIX(name, n, trans_)                                                   \
  PTX_DEVICE void name(uint32_t (&r)[n], const void *row PTX_AT) {                      \
    simt::ldmatrix(r, n, trans_, row PTX_HERE);                                         \
  }
PTX_LDMATRIX(ptx_ldmatrix_x1, 1, false)
PTX_LDMATRIX(ptx_ldmatrix_x2, 2, false)
PTX_LDMATRIX(ptx_ldmatrix_x4, 4, false)
PTX_LDMATRIX(ptx_ldmatrix_x1_trans, 1, true)
PTX_LDMATRIX(ptx_ldmatrix_x2_trans, 2, true)
PTX_LDMATRIX(ptx_ldmatrix_x4_trans, 4, true)
#undef PTX_LDMATRIX
#else
#define PTX_LDMATRIX(name, n, shape, ...)                                               \
  PTX_DEVICE void name(uint32_t (&r)[n], const void *row) {                             \
    asm volatile("ldmatrix.sync.aligned.m8n8." shape ";" : __VA_ARGS__ : "r"(ptx_shared(row)) : "memory"); \
  }
PTX_LDMATRIX(ptx_ldmatrix_x1, 1, "x1.shared.b16 {%0}, [%1]", "=r"(r[0]))
PTX_LDMATRIX(ptx_ldmatrix_x2, 2, "x2.shared.b16 {%0,%1}, [%2]", "=r"(r[0]), "=r"(r[1]))
PTX_LDMATRIX(ptx_ldmatrix_x4, 4, "x4.shared.b16 {%0,%1,%2,%3}, [%4]", "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]))
PTX_LDMATRIX(ptx_ldmatrix_x1_trans, 1, "x1.trans.shared.b16 {%0}, [%1]", "=r"(r[0]))
PTX_LDMATRIX(ptx_ldmatrix_x2_trans, 2, "x2.trans.shared.b16 {%0,%1}, [%2]", "=r"(r[0]), "=r"(r[1]))
PTX_LDMATRIX(ptx_ldmatrix_x4_trans, 4, "x4.trans.shared.b16 {%0,%1,%2,%3}, [%4]", "=r"(r[0]), "=r"(r[1]), "=r"(r[2]),
             "=r"(r[3]))
#undef PTX_LDMATRIX
#endif

/* copy BYTES (4, 8, 16; both sides aligned to it) from global to shared memory; not valid: zeros, and `global` is not
 * read. arrived after commit, wait and a barrier. 16 bytes skip the first cache. */
template <int BYTES>
PTX_DEVICE void ptx_copy_async(void *shared, const void *global, bool valid) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async moves 4, 8 or 16 bytes");
#ifdef MICA_SIMT
  simt::copy_async(shared, global, BYTES, valid);
#else
  int bytes = valid ? BYTES : 0;
  if (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx_shared(shared)), "l"(global), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(ptx_shared(shared)), "l"(global), "n"(BYTES),
                 "r"(bytes)
                 : "memory");
#endif
}
PTX_DEVICE void ptx_copy_commit() {
#ifdef MICA_SIMT
  simt::copy_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* until at most GROUPS of this thread's groups are under way */
template <int GROUPS>
PTX_DEVICE void ptx_copy_wait() {
#ifdef MICA_SIMT
  simt::copy_wait(GROUPS);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}

#endif
