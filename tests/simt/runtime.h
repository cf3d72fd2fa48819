/* runtime.h: what the parts of the SIMT device share. one lock guards the whole device: launches, copies and all calls
 * of the runtime run one at a time, on the thread that makes or waits for them. */
#ifndef MICA_TESTS_SIMT_RUNTIME_H
#define MICA_TESTS_SIMT_RUNTIME_H

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "simt.h"

/* SIMT_ASAN: the kernels are built with the address sanitizer (the device itself is not); SIMT_RACE: with the callbacks
 * of the race detector */
#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#undef ASAN_POISON_MEMORY_REGION
#undef ASAN_UNPOISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(at, bytes) __asan_poison_memory_region(at, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) __asan_unpoison_memory_region(at, bytes)
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

namespace simt {

enum { MAX_THREADS = 1024, MAX_WARPS = 32, MAX_DEVICES = 16 };
enum { IN_ORDER, REVERSED, RANDOM, ROTATE };
enum { COPY_EAGER, COPY_LAZY, COPY_BOTH };

/* the environment, MICA_SIMT_* (README.md) */
struct settings {
  int      schedule, copies, race, lazy_streams, devices, protect, uninitialised;
  uint64_t seed;
  size_t   memory;                           /* bytes of each device */
  long     fail_alloc, fail_launch, lose_device; /* n-th call; 0: never */
};
const settings &option();

/* ---- a block that runs (fiber.cpp) ---- */
enum { NEW, READY, BLOCKED, DONE };
struct waiting {
  const char *name, *file;
  int         line;
};
struct fiber {
  void   *top;                               /* saved stack pointer */
  char   *stack;                             /* NULL: not begun, or ended */
  void   *fake;                              /* address sanitizer's */
  uint3   thread;
  int     linear, lane, warp, state, result;
  waiting at;
};
struct block_job {
  const void *kernel;
  call_fn     call;
  void      **arguments;
  const char *name;
  dim3        grid, threads;
  size_t      dynamic;
  int         device, schedule;
};
/* runs a grid; an empty string, or what went wrong. `code` gets the CUDA error */
std::string run_grid(const block_job &job, cudaError_t *code);
extern fiber *self;                          /* NULL outside of kernels */
int           running_device();
[[noreturn]] void fail_with(cudaError_t code, const std::string &what);
uint64_t random_next(uint64_t *state);

/* cp.async (warp.cpp) */
void copies_begin(int mode, int threads);    /* for a block */
void copies_end(int linear);                 /* of a thread that ends */

/* ---- race detector (race.cpp): ordered are a thread's own accesses and what a barrier or __syncwarp lies between ---- */
void race_grid_begin();
void race_block_begin(int threads);
void race_join(const int *threads, int count, bool whole);  /* lanes of a warp have met; whole: the block has */
void race_access(const void *at, size_t bytes, bool write, const void *pc);
void race_atomic(const void *at, size_t bytes, const void *pc);  /* atomics do not race with each other */
void race_copy_issue(const void *to, size_t bytes);            /* after race_access, the write is under way */
void race_copy_land(const void *to, size_t bytes);
std::string place_of(const void *pc);        /* "file:line" of code */
void shadow_open(const void *at, size_t bytes, bool written);  /* memory that may be accessed from now on */
void shadow_close(const void *at, size_t bytes);

/* ---- memory (memory.cpp): each device has a range of addresses ---- */
struct allocation {
  size_t bytes;
  int    device, kind;
};
enum { ON_DEVICE, PINNED };
void  arena_init();
void *arena_take(int device, size_t bytes);  /* NULL: none left */
void  arena_give(void *at);
int   arena_device(const void *at);          /* -1: not device memory */
extern char *arena_base, *arena_end;
extern const size_t arena_each;              /* addresses of a device */
const allocation *find_allocation(const void *at, size_t bytes);
bool  may_access(int from, int to);          /* devices: itself or an enabled peer */

/* device memory is closed to the host but while the device works on it */
struct opened {
  opened();
  ~opened();
};

}

#endif
