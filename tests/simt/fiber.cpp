/* one block at a time: every CUDA thread is a fiber, switched by hand where it waits. which ready thread and which block
 * come next is the schedule's. */
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "runtime.h"

namespace simt {

place here_storage asm("simt_here");         /* the writable side of simt::here */
fiber *self;

namespace {

#if SIMT_ASAN
constexpr size_t STACK = 512 * 1024;
#else
constexpr size_t STACK = 128 * 1024;
#endif
constexpr size_t STRIDE = STACK + 4096;      /* a guard page below each */

struct collective {
  unsigned    mask, arrived;
  body_fn     body;
  waiting     at;
  void       *arguments[32];
};
struct warp_state {
  unsigned   exist, exited;
  int        open;                           /* collectives under way */
  collective c[32];
};
struct barrier_state {
  int              count, all;
  waiting          at;
  std::vector<int> waiters;
};

fiber         fibers[MAX_THREADS];
warp_state    warps[MAX_WARPS];
barrier_state meeting;
fiber         outside;                       /* the host's own stack */
std::vector<int>    ready;
size_t              ready_head;
std::vector<char *> stacks;                  /* free ones, the warmest last */
char               *slab;
int                 threads_n, live, schedule;
uint64_t            random_state;
const block_job    *job;
std::string         error;
cudaError_t         error_code;
unsigned char      *dynamic_at;
#if SIMT_ASAN
const void *outside_bottom;
size_t      outside_size;
#endif

#if !defined(__x86_64__)
#error "the SIMT device's context switch is written for x86-64"
#endif
extern "C" void simt_switch(void **from, void *to);
asm(".text\n.globl simt_switch\n.hidden simt_switch\n.type simt_switch,@function\nsimt_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n"
    ".size simt_switch,.-simt_switch\n");

void enter_fiber();

std::string describe(const waiting &at) { return std::string(at.name) + " at " + at.file + ":" + std::to_string(at.line); }

void change(fiber *from, fiber *to, bool last) {
  self = to == &outside ? nullptr : to;
  if (self) {
    here_storage.thread = to->thread;
    here_storage.lane = to->lane;
    here_storage.warp = to->warp;
    if (to->state == NEW) {
      to->state = READY;
      to->stack = stacks.back();
      stacks.pop_back();
      void **top = reinterpret_cast<void **>(to->stack + STACK);
      *--top = nullptr;
      *--top = reinterpret_cast<void *>(enter_fiber);
      for (int i = 0; i < 6; i++) *--top = nullptr;
      to->top = top;
    }
  }
#if SIMT_ASAN
  if (self) __sanitizer_start_switch_fiber(last ? nullptr : &from->fake, to->stack, STACK);
  else __sanitizer_start_switch_fiber(last ? nullptr : &from->fake, outside_bottom, outside_size);
#else
  (void)last;
#endif
  simt_switch(&from->top, to->top);
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

fiber *next() {
  size_t n = ready.size() - ready_head;
  if (!n) return &outside;
  size_t pick = schedule == REVERSED ? n - 1 : schedule == RANDOM ? random_next(&random_state) % n : 0;
  std::swap(ready[ready_head + pick], ready[schedule == REVERSED ? ready.size() - 1 : ready_head]);
  if (schedule == REVERSED) {
    int which = ready.back();
    ready.pop_back();
    return &fibers[which];
  }
  return &fibers[ready[ready_head++]];
}
void wake(int which) {
  if (ready_head == ready.size()) ready.clear(), ready_head = 0;
  fibers[which].state = READY;
  ready.push_back(which);
}
void wait_here(const waiting &at) {
  fiber *f = self;
  f->state = BLOCKED;
  f->at = at;
  fiber *to = next();
  if (to != f) change(f, to, false);
  f->state = READY;
}
/* a random schedule may let others go first once all have met */
void maybe_yield(const waiting &at) {
  if (schedule != RANDOM) return;
  wake(self->linear);
  wait_here(at);
}

/* ---- warps ---- */

void meet(warp_state &w, int index, int but) {
  collective &c = w.c[index];
  unsigned    lanes = c.mask & w.exist & ~w.exited;
  int         first = (int)(&w - warps) * 32, together[32], n = 0;
  if (c.body) c.body(c.arguments, lanes);
  for (int lane = 0; lane < 32; lane++) {
    if (!(lanes >> lane & 1)) continue;
    together[n++] = first + lane;
    if (first + lane != but) wake(first + lane);
  }
  if (!c.body && option().race) race_join(together, n, false);  /* a shuffle orders nothing */
  w.c[index] = w.c[--w.open];
}

/* ---- barriers ---- */

void release(int but) {
  for (int t : meeting.waiters) fibers[t].result = meeting.count << 1 | meeting.all;
  for (int t : meeting.waiters)
    if (t != but) wake(t);
  meeting.waiters.clear();
  if (option().race) race_join(nullptr, 0, true);
}

int barrier_any(int vote, const waiting &at) {
  fiber *f = self;
  if (meeting.waiters.empty()) {
    meeting.count = 0, meeting.all = 1, meeting.at = at;
  } else if (meeting.at.line != at.line || std::string(meeting.at.file) != at.file) {
    fail_with(cudaErrorLaunchFailure, std::string("divergent barrier: ") + describe(at) + ", others wait in " + describe(meeting.at));
  }
  meeting.waiters.push_back(f->linear);
  meeting.count += vote != 0, meeting.all &= vote != 0;
  if ((int)meeting.waiters.size() == live) {
    release(f->linear);
    maybe_yield(at);
  } else {
    wait_here(at);
  }
  return f->result;
}

/* ---- life of a thread ---- */

void leave() {
  fiber *f = self;
  f->state = DONE;
  live--;
  copies_end(f->linear);
  warp_state &w = warps[f->warp];
  w.exited |= 1u << f->lane;
  /* collectives wait for those that still run */
  for (int i = w.open - 1; i >= 0; i--)
    if ((w.c[i].mask & w.exist & ~w.exited & ~w.c[i].arrived) == 0) meet(w, i, -1);
  if (live && (int)meeting.waiters.size() == live) release(-1);
  stacks.push_back(f->stack);
  change(f, next(), true);
  abort();
}

void enter_fiber() {
#if SIMT_ASAN
  const void *bottom;
  size_t      size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!outside_bottom) outside_bottom = bottom, outside_size = size;
#endif
  job->call(job->kernel, job->arguments);
  leave();
}

void prepare_stacks() {
  if (!slab) {
    slab = static_cast<char *>(mmap(nullptr, STRIDE * MAX_THREADS, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (slab == MAP_FAILED) abort();
    for (int i = 0; i < MAX_THREADS; i++) mprotect(slab + (size_t)i * STRIDE, 4096, PROT_NONE);
    stacks.reserve(MAX_THREADS);
  }
  if (stacks.size() == MAX_THREADS) return;
  stacks.clear();                            /* the first block, or after one that failed */
  for (int i = MAX_THREADS - 1; i >= 0; i--) stacks.push_back(slab + (size_t)i * STRIDE + 4096);
  for (char *stack : stacks) ASAN_UNPOISON_MEMORY_REGION(stack, STACK);
}

std::string who() {
  char text[200];
  const uint3 &b = here_storage.block, &t = here_storage.thread;
  snprintf(text, sizeof text, "kernel %s, block (%u,%u,%u)", job->name, b.x, b.y, b.z);
  std::string all = text;
  if (self) {
    snprintf(text, sizeof text, ", thread (%u,%u,%u)", t.x, t.y, t.z);
    all += text;
  }
  return all;
}

void run_block(uint64_t number) {
  const dim3 &n = job->threads;
  here_storage.block = uint3{ (unsigned)(number % job->grid.x), (unsigned)(number / job->grid.x % job->grid.y),
                              (unsigned)(number / ((uint64_t)job->grid.x * job->grid.y)) };
  ready.clear();
  ready_head = 0;
  live = threads_n;
  meeting.waiters.clear();
  for (int w = 0; w < (threads_n + 31) / 32; w++) {
    int lanes = std::min(32, threads_n - w * 32);
    warps[w].exist = lanes == 32 ? ~0u : (1u << lanes) - 1;
    warps[w].exited = 0, warps[w].open = 0;
  }
  for (int i = 0; i < threads_n; i++) {
    fiber &f = fibers[i];
    f.linear = i, f.lane = i & 31, f.warp = i >> 5, f.state = NEW, f.fake = nullptr;
    f.thread = uint3{ (unsigned)i % n.x, (unsigned)i / n.x % n.y, (unsigned)i / (n.x * n.y) };
    ready.push_back(i);
  }
  copies_begin(option().copies == COPY_BOTH ? (int)((number + option().seed) % 2 ? COPY_LAZY : COPY_EAGER)
                                            : option().copies, threads_n);
  if (option().race) race_block_begin(threads_n);
  change(&outside, next(), false);
  if (!error.empty() || !live) return;
  std::map<std::string, int> places;
  for (int i = 0; i < threads_n; i++)
    if (fibers[i].state == BLOCKED)
      places[describe(fibers[i].at)]++;
  error = who() + ": deadlock:";
  for (auto &p : places) error += " " + std::to_string(p.second) + " threads wait in " + p.first + ";";
  error_code = cudaErrorLaunchFailure;
}

}

int running_device() { return job->device; }

uint64_t random_next(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void fail_with(cudaError_t code, const std::string &what) {
  error = who() + ": " + what;
  error_code = code;
  change(self, &outside, true);
  abort();
}
void fail(const char *what, const char *file, int line) {
  fail_with(cudaErrorLaunchFailure, std::string(what) + " at " + file + ":" + std::to_string(line));
}

void *dynamic_memory() { return dynamic_at; }

void collect(unsigned mask, body_fn body, void *argument, const char *name, const char *file, int line) {
  fiber      *f = self;
  warp_state &w = warps[f->warp];
  waiting     at = { name, file, line };
  if (!(mask >> f->lane & 1)) fail_with(cudaErrorLaunchFailure, describe(at) + ": the calling lane is not in its mask");
  int i = 0;
  while (i < w.open && !(w.c[i].mask & mask)) i++;
  if (i == w.open) {
    w.open++;
    w.c[i].mask = mask, w.c[i].arrived = 0, w.c[i].body = body, w.c[i].at = at;
  }
  collective &c = w.c[i];
  if (c.mask != mask || c.body != body || c.at.line != line || std::string(c.at.name) != name ||
      std::string(c.at.file) != file)
    fail_with(cudaErrorLaunchFailure, "divergent warp: " + describe(at) + ", other lanes of its mask wait in " + describe(c.at));
  c.arguments[f->lane] = argument;
  c.arrived |= 1u << f->lane;
  if ((mask & w.exist & ~w.exited & ~c.arrived) == 0) {
    meet(w, i, f->linear);
    maybe_yield(at);
  } else {
    wait_here(at);
  }
}
unsigned active() { return warps[self->warp].exist & ~warps[self->warp].exited; }

void barrier(const char *file, int line) { barrier_any(0, waiting{ "__syncthreads", file, line }); }
int barrier_vote(int vote, int kind, const char *name, const char *file, int line) {
  int result = barrier_any(vote, waiting{ name, file, line });
  return kind == BARRIER_COUNT ? result >> 1 : kind == BARRIER_AND ? (result & 1) : result >> 1 > 0;
}

std::string run_grid(const block_job &grid, cudaError_t *code) {
  job = &grid;
  error.clear();
  error_code = cudaSuccess;
  threads_n = (int)(grid.threads.x * grid.threads.y * grid.threads.z);
  schedule = grid.schedule;
  here_storage.threads = uint3{ grid.threads.x, grid.threads.y, grid.threads.z };
  here_storage.blocks = uint3{ grid.grid.x, grid.grid.y, grid.grid.z };
  random_state = option().seed;
  prepare_stacks();
  void *dynamic = nullptr;
  if (grid.dynamic) dynamic = arena_take(grid.device, grid.dynamic);
  dynamic_at = static_cast<unsigned char *>(dynamic);
  if (option().race) race_grid_begin();
  uint64_t blocks = (uint64_t)grid.grid.x * grid.grid.y * grid.grid.z;
  /* a random order: start + i * odd step over the next power of two */
  uint64_t room = 1, start = random_next(&random_state), step = random_next(&random_state) | 1;
  while (room < blocks) room *= 2;
  for (uint64_t i = 0; i < room && error.empty(); i++) {
    uint64_t number = schedule == REVERSED ? blocks - 1 - i : schedule == RANDOM ? (start + i * step) & (room - 1) : i;
    if (number >= blocks) continue;
    if (dynamic) {
      memset(dynamic, 0xff, grid.dynamic);   /* NaN: what was not written is seen */
      if (option().race) shadow_open(dynamic, grid.dynamic, false);
    }
    run_block(number);
  }
  if (dynamic) arena_give(dynamic);
  dynamic_at = nullptr;
  self = nullptr;
  job = nullptr;
  *code = error_code;
  return error;
}

}
