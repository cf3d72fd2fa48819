/* finds accesses of two threads to one place, one of them a write, that no barrier orders; accesses out of bounds of
 * device and dynamic shared memory; accesses to what a cp.async is still writing; reads of shared memory that the block
 * has not written. kernels are compiled with the thread sanitizer's instrumentation and its callbacks are these: none
 * of its runtime is linked, and what orders accesses is CUDA's: __syncthreads in a block, __syncwarp in a warp, never a
 * shuffle, and nothing between blocks (a block that uses atomics is trusted to order itself after others).
 *
 * one cell for every two bytes: the last write and the last reader. a clock ticks for a thread at each barrier it meets;
 * an access is ordered before this thread's if this thread knows of that clock. */
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "runtime.h"

extern "C" {
extern char __data_start, _end;              /* variables of the program: static shared memory is among them */
extern char __start_simt_constant __attribute__((weak)), __stop_simt_constant __attribute__((weak));
}

namespace simt {

namespace {

/* serial (30 bits) of the block's run, thread (10), clock (22), kind (2) */
typedef uint64_t record;
enum { PLAIN, UNDER_WAY, ATOMIC, SEVERAL = 1 }; /* SEVERAL: of a reader, beside one that it was not ordered after */
enum : record { CLOSED, UNWRITTEN, WRITTEN, FIRST_RECORD = (record)1 << 34 };
record   record_of(uint64_t serial, int thread, uint32_t clock, int kind) {
  return serial << 34 | (record)thread << 24 | (record)(clock & 0x3fffff) << 2 | (record)kind;
}
uint64_t serial_of(record r) { return r >> 34; }
int      thread_of(record r) { return (int)(r >> 24 & 1023); }
uint32_t clock_of(record r) { return (uint32_t)(r >> 2 & 0x3fffff); }
int      kind_of(record r) { return (int)(r & 3); }

struct cell {
  record write, read;
};
struct past {                                /* for messages: the last accesses, in order, so that the cache keeps up */
  const void *at, *pc;
  uint16_t    bytes, thread;
  bool        write;
};
constexpr size_t PASTS = 1 << 14;

cell       *arena_cells, *static_cells;
past        pasts[PASTS];
size_t       n_pasts;
uint64_t    serial, grid_first;
uint32_t    own[MAX_THREADS];                /* a thread's clock */
uint32_t    others[MAX_THREADS];             /* what all know of threads of other warps, from the last barrier */
uint32_t    everyones;                       /* what all know of all, from the last barrier */
uint32_t    lanes[MAX_THREADS][32];          /* what a thread knows of its warp */
int         block_threads;
bool        used_atomics;                    /* this block, so far */
bool        race_on, uninitialised;
const char *mine_low, *mine_high;            /* memory of the device that runs */

cell *reserve(size_t bytes) {
  void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    fprintf(stderr, "simt: no address space for the race detector: set MICA_SIMT_RACE=0\n");
    abort();
  }
  return static_cast<cell *>(at);
}

void prepare() {
  if (arena_cells) return;
  arena_init();
  arena_cells = reserve((size_t)(arena_end - arena_base) / 2 * sizeof(cell));
  static_cells = reserve((size_t)(&_end - &__data_start) / 2 * sizeof(cell) + sizeof(cell));
}

bool is_arena(const void *at) { return at >= (const void *)arena_base && at < (const void *)arena_end; }
bool is_static(const void *at) {
  if (at < (const void *)&__data_start || at >= (const void *)&_end) return false;
  return at < (const void *)&__start_simt_constant || at >= (const void *)&__stop_simt_constant;
}
cell *cell_of(const void *at) {
  return is_arena(at) ? arena_cells + (size_t)((const char *)at - arena_base) / 2
                      : static_cells + (size_t)((const char *)at - &__data_start) / 2;
}
/* where a thread last wrote or read some of these bytes, if that is not too long ago */
const void *earlier_place(const void *at, size_t bytes, int thread, bool write) {
  for (size_t n = n_pasts; n > 0 && n + PASTS > n_pasts; n--) {
    const past &p = pasts[(n - 1) % PASTS];
    if (p.thread == thread && p.write == write && (const char *)at < (const char *)p.at + p.bytes &&
        (const char *)p.at < (const char *)at + bytes)
      return p.pc;
  }
  return nullptr;
}

uint32_t known(int thread, int of) { return (thread ^ of) < 32 && thread / 32 == of / 32 ? lanes[thread][of & 31] : others[of]; }

[[noreturn]] void found(const char *what, const void *at, size_t bytes, const void *pc, record other, bool other_write) {
  const void        *place = is_static(at) ? at : find_allocation(at, 1) ? at : nullptr;
  std::string        text = std::string(what) + ": " + std::to_string(bytes) + " bytes of " +
                     (is_static(at) ? "static shared memory" : place ? "device memory" : "dynamic shared or no memory") + " at " +
                     place_of(pc);
  if (other >= FIRST_RECORD) {
    text += "; " + std::string(other_write ? "written" : "read") + " by thread " + std::to_string(thread_of(other));
    if (serial_of(other) != serial) text += " of another block";
    const void *earlier = earlier_place(at, bytes, thread_of(other), other_write);
    if (earlier) text += " at " + place_of(earlier);
  }
  fail_with(other ? cudaErrorLaunchFailure : cudaErrorIllegalAddress, text);
}

/* is the access that a record tells of ordered before this thread's? */
inline bool before(record r, int thread, bool everyone) {
  if (r < FIRST_RECORD) return true;
  uint64_t s = serial_of(r);
  if (s == serial) return clock_of(r) <= everyones || thread_of(r) == thread || clock_of(r) <= known(thread, thread_of(r));
  return s < grid_first || !everyone || used_atomics;
}

void check_cell(const cell &c, const void *at, size_t bytes, bool write, int kind, bool everyone, int thread, const void *pc) {
  if (everyone && c.write == CLOSED) found(write ? "write out of bounds" : "read out of bounds", at, bytes, pc, CLOSED, false);
  if (c.write >= FIRST_RECORD && serial_of(c.write) == serial && kind_of(c.write) == UNDER_WAY)
    found(write ? "write to what a cp.async is still writing" : "read of what a cp.async is still writing", at, bytes, pc,
          c.write, true);
  if (bytes == 1) return;                    /* neighbouring bytes share a cell: single ones are not looked at */
  if (!write && uninitialised && (everyone ? c.write == UNWRITTEN : serial_of(c.write) != serial))
    found(everyone ? "read of memory that nobody has written" : "read of shared memory that the block has not written", at,
          bytes, pc, WRITTEN, true);
  bool both = kind == ATOMIC && kind_of(c.write) == ATOMIC;
  if (!both && !before(c.write, thread, everyone))
    found(write ? "race: write after write" : "race: read after write", at, bytes, pc, c.write, true);
  bool beside = kind_of(c.read) == SEVERAL && c.read >> 2 == record_of(serial, thread, own[thread], PLAIN) >> 2;
  if (write && kind != ATOMIC && (beside || !before(c.read, thread, everyone)))
    found("race: write after read", at, bytes, pc, c.read, false);
}

void access(const void *at, size_t bytes, bool write, int kind, const void *pc) {
  const bool everyone = is_arena(at);        /* seen by all blocks */
  if (!everyone && !is_static(at)) return;
  const int thread = self->linear;
  if (everyone && (at < (const void *)mine_low || at >= (const void *)mine_high) &&
      !may_access(running_device(), arena_device(at)))
    fail_with(cudaErrorIllegalAddress, "memory of another device, without peer access, at " + place_of(pc));
  const record now = record_of(serial, thread, own[thread], kind);
  cell        *c = cell_of(at), *end = cell_of((const char *)at + bytes - 1), seen = { CLOSED, CLOSED };
  record       reader = 0;
  for (; c <= end; c++) {
    if (c->write != seen.write || c->read != seen.read || seen.write == CLOSED) {
      seen = *c;
      /* its own last write, and no other reader since: nothing to look at */
      if (seen.write >> 24 != now >> 24 || (seen.write & 3) || (write && (seen.read >> 24 != now >> 24 || (seen.read & 3))))
        check_cell(seen, at, bytes, write, kind, everyone, thread, pc);
      reader = bytes == 1 || seen.read >> 2 == now >> 2 ? seen.read : before(seen.read, thread, false) ? now : now | SEVERAL;
    }
    if (write) c->write = bytes == 1 ? (record)WRITTEN : now;
    else c->read = reader;
  }
  pasts[n_pasts++ % PASTS] = { at, pc, (uint16_t)bytes, (uint16_t)thread, write };
}

}

void race_grid_begin() {
  prepare();
  race_on = option().race, uninitialised = option().uninitialised;
  grid_first = serial + 1;
  mine_low = arena_base + (size_t)running_device() * arena_each, mine_high = mine_low + arena_each;
}
void race_block_begin(int threads) {
  serial++;
  block_threads = threads;
  used_atomics = false;
  everyones = 0;
  for (int t = 0; t < threads; t++) {
    own[t] = 1;
    others[t] = 0;
    for (int l = 0; l < 32; l++) lanes[t][l] = 0;
  }
}
void race_join(const int *threads, int count, bool whole) {
  if (whole) {
    for (int t = 0; t < block_threads; t++) others[t] = own[t];
    everyones = *std::min_element(others, others + block_threads);
    for (int t = 0; t < block_threads; t++)
      for (int l = 0; l < 32 && (t & ~31) + l < block_threads; l++) lanes[t][l] = own[(t & ~31) + l];
    for (int t = 0; t < block_threads; t++) own[t]++;
    return;
  }
  uint32_t all[32] = { 0 };
  for (int i = 0; i < count; i++)
    for (int l = 0; l < 32; l++) all[l] = std::max(all[l], lanes[threads[i]][l]);
  for (int i = 0; i < count; i++) all[threads[i] & 31] = own[threads[i]];
  for (int i = 0; i < count; i++) {
    std::copy(all, all + 32, lanes[threads[i]]);
    own[threads[i]]++;
  }
}
void race_access(const void *at, size_t bytes, bool write, const void *pc) {
  if (race_on) access(at, bytes, write, PLAIN, pc);
}
void race_atomic(const void *at, size_t bytes, const void *pc) {
  if (!option().race) return;
  used_atomics |= is_arena(at);
  access(at, bytes, true, ATOMIC, pc);
}
void race_copy_issue(const void *to, size_t bytes) {
  if (!option().race || !(is_arena(to) || is_static(to))) return;
  for (cell *c = cell_of(to), *end = cell_of((const char *)to + bytes - 1); c <= end; c++) c->write |= UNDER_WAY;
}
/* it counts as a write of the thread that waited for it */
void race_copy_land(const void *to, size_t bytes) {
  if (!option().race || !(is_arena(to) || is_static(to))) return;
  record now = record_of(serial, self->linear, own[self->linear], PLAIN);
  for (cell *c = cell_of(to), *end = cell_of((const char *)to + bytes - 1); c <= end; c++) c->write = now;
}

void shadow_open(const void *at, size_t bytes, bool written) {
  if (!option().race || !bytes) return;
  prepare();
  for (cell *c = cell_of(at), *end = cell_of((const char *)at + bytes - 1); c <= end; c++)
    c->write = written ? WRITTEN : UNWRITTEN, c->read = 0;
}
void shadow_close(const void *at, size_t bytes) {
  if (!option().race || !bytes) return;
  prepare();
  for (cell *c = cell_of(at), *end = cell_of((const char *)at + bytes - 1); c <= end; c++) c->write = CLOSED, c->read = 0;
}

}

/* ---- what instrumented code calls ---- */

#define SIMT_HOOK(name, bytes, write)                                      \
  extern "C" void name(void *at) {                                         \
    if (simt::self) simt::race_access(at, bytes, write, __builtin_return_address(0)); \
  }
#define SIMT_HOOKS(bytes)                              \
  SIMT_HOOK(__tsan_read##bytes, bytes, false)          \
  SIMT_HOOK(__tsan_write##bytes, bytes, true)          \
  SIMT_HOOK(__tsan_unaligned_read##bytes, bytes, false) \
  SIMT_HOOK(__tsan_unaligned_write##bytes, bytes, true)
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
extern "C" void __tsan_read_range(void *at, size_t bytes) {
  if (simt::self && bytes) simt::race_access(at, bytes, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void *at, size_t bytes) {
  if (simt::self && bytes) simt::race_access(at, bytes, true, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_vptr_update(void *, void *) {}
extern "C" void __tsan_vptr_read(void *) {}
