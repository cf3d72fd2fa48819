/* what a warp does together, and copies that land late. fragment layouts: PTX ISA 8.5, "Matrix fragments for mma" and
 * "ldmatrix"; test_simt.cu pins them against the published tables. */
#include <cstring>

#include "runtime.h"

namespace simt {

namespace {

std::string at_line(const char *name, const char *file, int line) {
  return std::string(name) + " at " + file + ":" + std::to_string(line);
}

/* ---- shuffles and votes ---- */

struct shuffle_argument {
  uint64_t    value, result;
  int         from;
  const char *name, *file;
  int         line;
};
void shuffle_body(void **arguments, unsigned lanes) {
  for (int i = 0; i < 32; i++) {
    if (!(lanes >> i & 1)) continue;
    auto *a = static_cast<shuffle_argument *>(arguments[i]);
    if (!(lanes >> a->from & 1))
      fail_with(cudaErrorLaunchFailure, at_line(a->name, a->file, a->line) + ": lane " + std::to_string(i) + " takes from lane " +
                                            std::to_string(a->from) + ", which is not there or not in the mask");
    a->result = static_cast<shuffle_argument *>(arguments[a->from])->value;
  }
}

struct reduce_argument {
  uint64_t value, result;
  int      how;
};
uint64_t combine(uint64_t a, uint64_t b, int how) {
  switch (how) {
    case ADD: return (uint32_t)(a + b);
    case MIN_U: return a < b ? a : b;
    case MAX_U: return a > b ? a : b;
    case MIN_S: return (int64_t)a < (int64_t)b ? a : b;
    case MAX_S: return (int64_t)a > (int64_t)b ? a : b;
    case AND: return a & b;
    case OR: return a | b;
    default: return a ^ b;
  }
}
void reduce_body(void **arguments, unsigned lanes) {
  uint64_t all = 0;
  bool     first = true;
  for (int i = 0; i < 32; i++) {
    if (!(lanes >> i & 1)) continue;
    auto *a = static_cast<reduce_argument *>(arguments[i]);
    if (a->how == VOTE) all |= (a->value & 1) << i;
    else all = first ? a->value : combine(all, a->value, a->how);
    first = false;
  }
  for (int i = 0; i < 32; i++) {
    if (!(lanes >> i & 1)) continue;
    auto *a = static_cast<reduce_argument *>(arguments[i]);
    a->result = all;
    if (a->how != MATCH) continue;
    a->result = 0;
    for (int k = 0; k < 32; k++)
      if ((lanes >> k & 1) && static_cast<reduce_argument *>(arguments[k])->value == a->value) a->result |= 1u << k;
  }
}

/* ---- tensor cores: products of a warp's fragments, sums in double and rounded once ---- */

struct mma_argument {
  float          *d;
  const uint32_t *a, *b;
};
float bf16_of(uint32_t pair, int high) { return of_bits<float>(high ? pair & 0xffff0000u : (uint64_t)(pair << 16)); }
/* the hardware ignores the low 13 bits */
float tf32_of(uint32_t u) { return of_bits<float>(u & 0xffffe000u); }

/* A is (16, K), B (K, 8), D (16, 8); lane = 4 g + t */
template <int K>
void multiply(void **arguments, const float (&A)[16][K], const float (&B)[K][8]) {
  for (int lane = 0; lane < 32; lane++) {
    auto *m = static_cast<mma_argument *>(arguments[lane]);
    int   g = lane >> 2, t = lane & 3;
    for (int r = 0; r < 4; r++) {
      int    row = g + 8 * (r >> 1), column = 2 * t + (r & 1);
      double sum = (double)m->d[r];
      for (int k = 0; k < K; k++) sum += (double)A[row][k] * (double)B[k][column];
      m->d[r] = (float)sum;
    }
  }
}
void mma_bf16_body(void **arguments, unsigned) {
  float A[16][16], B[16][8];
  for (int lane = 0; lane < 32; lane++) {
    auto *m = static_cast<mma_argument *>(arguments[lane]);
    int   g = lane >> 2, t = lane & 3;
    for (int high = 0; high < 2; high++) {
      for (int r = 0; r < 4; r++) A[g + 8 * (r & 1)][2 * t + high + 8 * (r >> 1)] = bf16_of(m->a[r], high);
      for (int r = 0; r < 2; r++) B[2 * t + high + 8 * r][g] = bf16_of(m->b[r], high);
    }
  }
  multiply<16>(arguments, A, B);
}
void mma_tf32_body(void **arguments, unsigned) {
  float A[16][8], B[8][8];
  for (int lane = 0; lane < 32; lane++) {
    auto *m = static_cast<mma_argument *>(arguments[lane]);
    int   g = lane >> 2, t = lane & 3;
    for (int r = 0; r < 4; r++) A[g + 8 * (r & 1)][t + 4 * (r >> 1)] = tf32_of(m->a[r]);
    for (int r = 0; r < 2; r++) B[t + 4 * r][g] = tf32_of(m->b[r]);
  }
  multiply<8>(arguments, A, B);
}

struct ldmatrix_argument {
  uint16_t  row[8];                          /* the 16 bytes that this lane names */
  uint32_t *result;
  int       matrices;
  bool      transposed;
};
void ldmatrix_body(void **arguments, unsigned) {
  for (int lane = 0; lane < 32; lane++) {
    auto *to = static_cast<ldmatrix_argument *>(arguments[lane]);
    int   g = lane >> 2, t = lane & 3;
    for (int i = 0; i < to->matrices; i++) {
      uint32_t pair = 0;
      for (int e = 0; e < 2; e++) {
        int   row = to->transposed ? 2 * t + e : g, column = to->transposed ? g : 2 * t + e;
        auto *from = static_cast<ldmatrix_argument *>(arguments[8 * i + row]);
        pair |= (uint32_t)from->row[column] << 16 * e;
      }
      to->result[i] = pair;
    }
  }
}

/* all 32 lanes must be there: these instructions have no mask */
void whole_warp(const char *name, const char *file, int line) {
  if (active() != ~0u) fail_with(cudaErrorLaunchFailure, at_line(name, file, line) + ": not all lanes of the warp are there");
}

/* an access that the sanitizers cannot see for themselves */
void touch(const void *at, size_t bytes, bool write, const void *pc) {
#if SIMT_ASAN
  if (void *bad = __asan_region_is_poisoned(const_cast<void *>(at), bytes))
    __asan_report_error(const_cast<void *>(pc), __builtin_frame_address(0), __builtin_frame_address(0), bad, write, bytes);
#endif
  race_access(at, bytes, write, pc);
}

/* ---- cp.async ---- */

struct late_copy {
  void       *to;
  const void *from;
  int         bytes;
  bool        valid;
};
std::vector<std::vector<late_copy>> pending[MAX_THREADS]; /* groups; the last one is open */
int         mode;

void land(const late_copy &c) {
  if (c.valid) memcpy(c.to, c.from, (size_t)c.bytes);
  else memset(c.to, 0, (size_t)c.bytes);
}

}

uint64_t shuffle(unsigned mask, uint64_t value, int from, const char *name, const char *file, int line) {
  shuffle_argument a = { value, 0, from, name, file, line };
  collect(mask, shuffle_body, &a, name, file, line);
  return a.result;
}
uint64_t reduce(unsigned mask, uint64_t value, int how, const char *name, const char *file, int line) {
  reduce_argument a = { value, 0, how };
  collect(mask, reduce_body, &a, name, file, line);
  return a.result;
}

void mma_bf16(float *d, const uint32_t *a, const uint32_t *b, const char *file, int line) {
  whole_warp("mma.m16n8k16.bf16", file, line);
  mma_argument m = { d, a, b };
  collect(~0u, mma_bf16_body, &m, "mma.m16n8k16.bf16", file, line);
}
void mma_tf32(float *d, const uint32_t *a, const uint32_t *b, const char *file, int line) {
  whole_warp("mma.m16n8k8.tf32", file, line);
  mma_argument m = { d, a, b };
  collect(~0u, mma_tf32_body, &m, "mma.m16n8k8.tf32", file, line);
}
void ldmatrix(uint32_t *r, int matrices, bool transposed, const void *row, const char *file, int line) {
  whole_warp("ldmatrix", file, line);
  ldmatrix_argument a = { {}, r, matrices, transposed };
  if (here.lane < 8 * matrices) {            /* the other lanes' addresses are not looked at */
    if ((uintptr_t)row & 15)
      fail_with(cudaErrorMisalignedAddress, at_line("ldmatrix", file, line) + ": a row's address is not a multiple of 16");
    touch(row, 16, false, __builtin_return_address(0));
    memcpy(a.row, row, 16);
  }
  collect(~0u, ldmatrix_body, &a, "ldmatrix", file, line);
}

void copies_begin(int how, int threads) {
  mode = how;
  for (int t = 0; t < threads; t++)
    if (pending[t].size() != 1 || !pending[t][0].empty()) pending[t].assign(1, {});
}
/* what a thread never waited for lands when it ends, at the latest */
void copies_end(int linear) {
  auto &groups = pending[linear];
  if (groups.size() == 1 && groups[0].empty()) return;
  for (auto &group : groups)
    for (auto &c : group) {
      if (mode == COPY_LAZY) land(c);
      race_copy_land(c.to, (size_t)c.bytes);
    }
  groups.assign(1, {});
}
void copy_async(void *to, const void *from, int bytes, bool valid) {
  if (((uintptr_t)to | (valid ? (uintptr_t)from : 0)) & (uintptr_t)(bytes - 1))
    fail_with(cudaErrorMisalignedAddress, "cp.async of " + std::to_string(bytes) + " bytes at " +
                                              place_of(__builtin_return_address(0)) + ": an address is not a multiple of that");
  touch(to, (size_t)bytes, true, __builtin_return_address(0));
  if (valid) touch(from, (size_t)bytes, false, __builtin_return_address(0));
  late_copy c = { to, from, bytes, valid };
  race_copy_issue(to, (size_t)bytes);
  if (mode == COPY_EAGER) land(c);
  pending[self->linear].back().push_back(c);
}
void copy_commit() { pending[self->linear].emplace_back(); }
void copy_wait(int left) {
  auto &groups = pending[self->linear];
  while ((int)groups.size() - 1 > left) {
    for (auto &c : groups.front()) {
      if (mode == COPY_LAZY) land(c);
      race_copy_land(c.to, (size_t)c.bytes);
    }
    groups.erase(groups.begin());
  }
}

/* ---- atomics: one fiber runs at a time, so plain arithmetic is atomic ---- */

template <class T, class S>
static T apply(T old, T value, int how, bool is_signed) {
  switch (how) {
    case AT_ADD: return old + value;
    case AT_MIN: return (is_signed ? (S)value < (S)old : value < old) ? value : old;
    case AT_MAX: return (is_signed ? (S)value > (S)old : value > old) ? value : old;
    case AT_AND: return old & value;
    case AT_OR: return old | value;
    case AT_XOR: return old ^ value;
    default: return value;
  }
}
uint32_t atomic_u32(uint32_t *at, uint32_t value, int how, bool is_signed) {
  race_atomic(at, 4, __builtin_return_address(0));
  uint32_t old = *at;
  *at = apply<uint32_t, int32_t>(old, value, how, is_signed);
  return old;
}
uint64_t atomic_u64(uint64_t *at, uint64_t value, int how, bool is_signed) {
  race_atomic(at, 8, __builtin_return_address(0));
  uint64_t old = *at;
  *at = apply<uint64_t, int64_t>(old, value, how, is_signed);
  return old;
}
uint32_t atomic_swap_u32(uint32_t *at, uint32_t old, uint32_t value) {
  race_atomic(at, 4, __builtin_return_address(0));
  uint32_t was = *at;
  if (was == old) *at = value;
  return was;
}
uint64_t atomic_swap_u64(uint64_t *at, uint64_t old, uint64_t value) {
  race_atomic(at, 8, __builtin_return_address(0));
  uint64_t was = *at;
  if (was == old) *at = value;
  return was;
}
float atomic_float(float *at, float value) {
  race_atomic(at, 4, __builtin_return_address(0));
  float old = *at;
  *at = old + value;
  return old;
}
double atomic_double(double *at, double value) {
  race_atomic(at, 8, __builtin_return_address(0));
  double old = *at;
  *at = old + value;
  return old;
}

}
