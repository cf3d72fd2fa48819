/* memory of the virtual devices: one range of addresses each, blocks with a gap behind each, closed to the host while
 * the device does not work; and the settings */
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "runtime.h"

namespace simt {

char *arena_base, *arena_end;
const size_t arena_each = (size_t)8 << 30;

namespace {

constexpr size_t EACH = arena_each, GAP = 512, ALIGN = 512;
size_t next_free[MAX_DEVICES];
std::multimap<size_t, char *> spare[MAX_DEVICES]; /* freed blocks by size */
std::map<const void *, size_t> taken;        /* rounded sizes */
int opened_depth;

long number(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtol(text, nullptr, 10) : otherwise;
}

settings read_settings() {
  settings s = {};
  const char *schedule = getenv("MICA_SIMT_SCHED"), *copies = getenv("MICA_SIMT_ASYNC");
  std::string text = schedule ? schedule : "rotate";
  s.seed = 1;
  if (size_t colon = text.find(':'); colon != std::string::npos) {
    s.seed = strtoull(text.c_str() + colon + 1, nullptr, 10);
    text.resize(colon);
  }
  s.schedule = text == "inorder" ? IN_ORDER : text == "reversed" ? REVERSED : text == "random" ? RANDOM : ROTATE;
  if (s.schedule == ROTATE && text != "rotate") {
    fprintf(stderr, "simt: MICA_SIMT_SCHED is '%s', expected inorder, reversed, random, rotate (:SEED)\n", text.c_str());
    exit(2);
  }
  text = copies ? copies : "both";
  s.copies = text == "eager" ? COPY_EAGER : text == "lazy" ? COPY_LAZY : COPY_BOTH;
  s.race = SIMT_RACE ? (int)number("MICA_SIMT_RACE", 1) : 0;  // without the callbacks every read would look unwritten
  s.uninitialised = (int)number("MICA_SIMT_UNINIT", 1);
  s.lazy_streams = (int)number("MICA_SIMT_LAZY_STREAMS", 0);
  s.devices = (int)number("MICA_SIMT_DEVICES", 4);
  s.protect = (int)number("MICA_SIMT_PROTECT", 1);
  s.memory = (size_t)number("MICA_SIMT_MEMORY", (long)4 << 30);
  s.fail_alloc = number("MICA_SIMT_FAIL_ALLOC", 0);
  s.fail_launch = number("MICA_SIMT_FAIL_LAUNCH", 0);
  s.lose_device = number("MICA_SIMT_LOSE_DEVICE", 0);
  if (s.devices < 0 || s.devices > MAX_DEVICES) s.devices = MAX_DEVICES;
  return s;
}

#if !SIMT_ASAN
/* a bad address in a kernel ends the launch, not the process */
void *bad_address;
void  bad_access() {
  char text[80];
  snprintf(text, sizeof text, "access to %p, which is no memory of the device", bad_address);
  fail_with(cudaErrorIllegalAddress, text);
}
void on_fault(int, siginfo_t *info, void *context) {
  bad_address = info->si_addr;
  if (!self) {
    bool device = info->si_addr >= (void *)arena_base && info->si_addr < (void *)arena_end;
    fprintf(stderr, "simt: the host accessed %s at %p\n", device ? "memory of a device" : "bad memory", info->si_addr);
    signal(SIGSEGV, SIG_DFL);
    return;                                  /* and faults again */
  }
  auto *c = static_cast<ucontext_t *>(context);
  c->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)bad_access;
  c->uc_mcontext.gregs[REG_RSP] = ((c->uc_mcontext.gregs[REG_RSP] - 256) & ~(greg_t)15) - 8;
}
#endif

/* by the processor's protection keys where it has them: cheap, and a matter of this thread alone. else, only where it is
 * asked for, by the page table, for all threads */
int key = -1;
void protect(bool open) {
  if (key >= 0) pkey_set(key, open ? 0 : PKEY_DISABLE_ACCESS);
  else if (option().protect > 1) mprotect(arena_base, (size_t)(arena_end - arena_base), open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

}

const settings &option() {
  static const settings s = read_settings();
  return s;
}

void arena_init() {
  if (arena_base) return;
  size_t bytes = EACH * (size_t)(option().devices ? option().devices : 1);
  void  *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    fprintf(stderr, "simt: no address space for %d devices: set MICA_SIMT_DEVICES\n", option().devices);
    abort();
  }
  arena_base = static_cast<char *>(at);
  arena_end = arena_base + bytes;
  if (option().protect && (key = pkey_alloc(0, 0)) >= 0 && pkey_mprotect(at, bytes, PROT_READ | PROT_WRITE, key)) key = -1;
#if !SIMT_ASAN
  static char      stack[64 * 1024];
  stack_t          alternate = {};
  struct sigaction action = {};
  alternate.ss_sp = stack, alternate.ss_size = sizeof stack;
  sigaltstack(&alternate, nullptr);
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
#endif
}

void *arena_take(int device, size_t bytes) {
  arena_init();
  size_t room = ((bytes ? bytes : 1) + GAP + ALIGN - 1) / ALIGN * ALIGN;
  char  *at;
  auto   it = spare[device].lower_bound(room);
  if (it != spare[device].end() && it->first <= 2 * room) {
    at = it->second, room = it->first;
    spare[device].erase(it);
  } else {
    if (next_free[device] + room > EACH) return nullptr;
    at = arena_base + EACH * (size_t)device + next_free[device];
    next_free[device] += room;
    ASAN_POISON_MEMORY_REGION(at, room);
  }
  taken[at] = room;
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
  return at;
}
void arena_give(void *at) {
  auto it = taken.find(at);
  size_t room = it->second;
  shadow_close(at, room);
  ASAN_POISON_MEMORY_REGION(at, room);
  spare[arena_device(at)].emplace(room, static_cast<char *>(at));
  taken.erase(it);
}
int arena_device(const void *at) {
  if (at < (const void *)arena_base || at >= (const void *)arena_end) return -1;
  return (int)((size_t)((const char *)at - arena_base) / EACH);
}

opened::opened() {
  arena_init();
  if (!opened_depth++) protect(true);
}
opened::~opened() {
  if (!--opened_depth) protect(false);
}

}
