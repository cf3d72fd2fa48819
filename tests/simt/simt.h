/* simt.h: the SIMT device's forced include. with it the C++ compiler takes unmodified .cu files: CUDA's own headers come
 * first, then the keywords are redefined and what only nvcc knows is added. every CUDA thread is a fiber (fiber.cpp). */
#ifndef MICA_TESTS_SIMT_SIMT_H
#define MICA_TESTS_SIMT_SIMT_H

#define MICA_SIMT 1

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __grid_constant__
#undef __cluster_dims__
#define __global__
#define __device__
#define __host__
/* one block runs at a time, so one copy will do */
#define __shared__ static
#define __constant__ __attribute__((section("simt_constant")))
#define __launch_bounds__(...)
#define __grid_constant__
#define __cluster_dims__(...)
#define DYN_SMEM(T, name) T *const name = static_cast<T *>(simt::dynamic_memory())

namespace simt {

/* where a thread is. const here: a thread's own never change, and the compiler may keep them over a switch; the
 * runtime writes them through the same symbol */
struct place {
  uint3 thread, block, threads, blocks;      /* a dim3 has a constructor, and what is constructed is not const */
  int   lane, warp;
};
extern const place here asm("simt_here");

void *dynamic_memory();
[[noreturn]] void fail(const char *what, const char *file, int line);

/* ---- what lanes do together: the last to arrive runs body(arguments of all lanes, lanes) ---- */
typedef void (*body_fn)(void **arguments, unsigned lanes);
void collect(unsigned mask, body_fn body, void *argument, const char *name, const char *file, int line);
void barrier(const char *file, int line);
enum { BARRIER_COUNT, BARRIER_AND, BARRIER_OR };
int      barrier_vote(int vote, int kind, const char *name, const char *file, int line);
unsigned active();
uint64_t shuffle(unsigned mask, uint64_t value, int from, const char *name, const char *file, int line);
enum { VOTE, MATCH, ADD, MIN_U, MAX_U, MIN_S, MAX_S, AND, OR, XOR };
uint64_t reduce(unsigned mask, uint64_t value, int how, const char *name, const char *file, int line);

/* ---- atomics: out of line, so that the race detector knows them ---- */
enum { AT_ADD, AT_MIN, AT_MAX, AT_AND, AT_OR, AT_XOR, AT_SET };
uint32_t atomic_u32(uint32_t *at, uint32_t value, int how, bool is_signed);
uint64_t atomic_u64(uint64_t *at, uint64_t value, int how, bool is_signed);
uint32_t atomic_swap_u32(uint32_t *at, uint32_t old, uint32_t value);
uint64_t atomic_swap_u64(uint64_t *at, uint64_t old, uint64_t value);
float    atomic_float(float *at, float value);
double   atomic_double(double *at, double value);

/* ---- launches: a kernel's parameter types, for cudaLaunchKernel ---- */
typedef void (*call_fn)(const void *kernel, void **arguments);
void know_kernel(const void *kernel, const char *name, call_fn call, const size_t *sizes, int count);
namespace { /* each file its own: structs of two rooms may share a name */
template <class... P>
struct call {
  template <size_t... I>
  static void with(const void *kernel, void **arguments, std::index_sequence<I...>) {
    (void)arguments;
    ((void (*)(P...))(uintptr_t)kernel)(*static_cast<std::remove_reference_t<P> *>(arguments[I])...);
  }
  static void run(const void *kernel, void **arguments) { with(kernel, arguments, std::index_sequence_for<P...>{}); }
};
template <class... P>
inline void know(void (*kernel)(P...), const char *name) {
  static const size_t sizes[] = { sizeof(P)..., 0 };
  know_kernel((const void *)kernel, name, call<P...>::run, sizes, (int)sizeof...(P));
}
}

template <class T>
inline uint64_t to_bits(T x) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &x, sizeof x);
  return bits;
}
template <class T>
inline T of_bits(uint64_t bits) {
  T x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

}

#define threadIdx (simt::here.thread)
#define blockIdx (simt::here.block)
#define blockDim (simt::here.threads)
#define gridDim (simt::here.blocks)
static constexpr int warpSize = 32;

#define SIMT_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(SIMT_AT) { simt::barrier(file, line); }
static inline int __syncthreads_count(int vote, SIMT_AT) {
  return simt::barrier_vote(vote, simt::BARRIER_COUNT, "__syncthreads_count", file, line);
}
static inline int __syncthreads_and(int vote, SIMT_AT) {
  return simt::barrier_vote(vote, simt::BARRIER_AND, "__syncthreads_and", file, line);
}
static inline int __syncthreads_or(int vote, SIMT_AT) {
  return simt::barrier_vote(vote, simt::BARRIER_OR, "__syncthreads_or", file, line);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_AT) {
  simt::collect(mask, nullptr, nullptr, "__syncwarp", file, line);
}
static inline unsigned __activemask() { return simt::active(); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
static inline void __trap(SIMT_AT) { simt::fail("__trap", file, line); }

/* ---- shuffles and votes ---- */
template <class T>
static inline T __shfl_sync(unsigned mask, T x, int from, int width = 32, SIMT_AT) {
  int first = simt::here.lane & ~(width - 1);
  return simt::of_bits<T>(
      simt::shuffle(mask, simt::to_bits(x), first | (from & (width - 1)), "__shfl_sync", file, line));
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T x, int with, int width = 32, SIMT_AT) {
  int lane = simt::here.lane, from = lane ^ with;
  if ((from & ~(width - 1)) > (lane & ~(width - 1))) from = lane;
  return simt::of_bits<T>(simt::shuffle(mask, simt::to_bits(x), from, "__shfl_xor_sync", file, line));
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32, SIMT_AT) {
  int lane = simt::here.lane, from = (lane & (width - 1)) + (int)by < width ? lane + (int)by : lane;
  return simt::of_bits<T>(simt::shuffle(mask, simt::to_bits(x), from, "__shfl_down_sync", file, line));
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32, SIMT_AT) {
  int lane = simt::here.lane, from = (lane & (width - 1)) >= (int)by ? lane - (int)by : lane;
  return simt::of_bits<T>(simt::shuffle(mask, simt::to_bits(x), from, "__shfl_up_sync", file, line));
}
static inline unsigned __ballot_sync(unsigned mask, int vote, SIMT_AT) {
  return (unsigned)simt::reduce(mask, vote != 0, simt::VOTE, "__ballot_sync", file, line);
}
static inline int __any_sync(unsigned mask, int vote, SIMT_AT) {
  return simt::reduce(mask, vote != 0, simt::VOTE, "__any_sync", file, line) != 0;
}
static inline int __all_sync(unsigned mask, int vote, SIMT_AT) {
  return simt::reduce(mask, vote == 0, simt::VOTE, "__all_sync", file, line) == 0;
}
static inline unsigned __match_any_sync(unsigned mask, unsigned x, SIMT_AT) {
  return (unsigned)simt::reduce(mask, x, simt::MATCH, "__match_any_sync", file, line);
}
#define SIMT_REDUCE(name, type, wide, how)                                                    \
  static inline type name(unsigned mask, type x, SIMT_AT) {                                   \
    return (type)simt::reduce(mask, (uint64_t)(wide)x, simt::how, #name, file, line);         \
  }
SIMT_REDUCE(__reduce_add_sync, unsigned, unsigned, ADD)
SIMT_REDUCE(__reduce_add_sync, int, unsigned, ADD)
SIMT_REDUCE(__reduce_min_sync, unsigned, unsigned, MIN_U)
SIMT_REDUCE(__reduce_max_sync, unsigned, unsigned, MAX_U)
SIMT_REDUCE(__reduce_min_sync, int, int64_t, MIN_S)
SIMT_REDUCE(__reduce_max_sync, int, int64_t, MAX_S)
SIMT_REDUCE(__reduce_and_sync, unsigned, unsigned, AND)
SIMT_REDUCE(__reduce_or_sync, unsigned, unsigned, OR)
SIMT_REDUCE(__reduce_xor_sync, unsigned, unsigned, XOR)

/* ---- atomics ---- */
#define SIMT_ATOMIC(name, type, bits, how, is_signed)                                                         \
  static inline type name(type *at, type x) {                                                                 \
    return (type)simt::atomic_u##bits(reinterpret_cast<uint##bits##_t *>(at), (uint##bits##_t)x, simt::how, is_signed); \
  }
#define SIMT_ATOMICS(type, bits, is_signed)                     \
  SIMT_ATOMIC(atomicAdd, type, bits, AT_ADD, is_signed)         \
  SIMT_ATOMIC(atomicMin, type, bits, AT_MIN, is_signed)         \
  SIMT_ATOMIC(atomicMax, type, bits, AT_MAX, is_signed)         \
  SIMT_ATOMIC(atomicAnd, type, bits, AT_AND, is_signed)         \
  SIMT_ATOMIC(atomicOr, type, bits, AT_OR, is_signed)           \
  SIMT_ATOMIC(atomicXor, type, bits, AT_XOR, is_signed)         \
  SIMT_ATOMIC(atomicExch, type, bits, AT_SET, is_signed)        \
  static inline type atomicCAS(type *at, type old, type x) {    \
    return (type)simt::atomic_swap_u##bits(reinterpret_cast<uint##bits##_t *>(at), (uint##bits##_t)old, (uint##bits##_t)x); \
  }
SIMT_ATOMICS(int, 32, true)
SIMT_ATOMICS(unsigned, 32, false)
SIMT_ATOMICS(long long, 64, true)
SIMT_ATOMICS(unsigned long long, 64, false)
static inline float atomicAdd(float *at, float x) { return simt::atomic_float(at, x); }
static inline double atomicAdd(double *at, double x) { return simt::atomic_double(at, x); }

#include "simt_math.h"

#endif
