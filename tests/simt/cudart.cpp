/* stands in for the CUDA runtime: devices, errors, memory, launches. exactly the calls that mica makes. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <unordered_map>

#include "cudart.h"

using namespace simt;

namespace simt {

std::recursive_mutex lock;
thread_local int         device_now;
thread_local cudaError_t last_error = cudaSuccess;
cudaError_t              sticky[MAX_DEVICES];
totals                   counted;

namespace {

struct kernel {
  call_fn             call;
  std::vector<size_t> sizes;
  std::string         name;
  long                launches;
  int                 dynamic;               /* opted in to so many bytes */
};
std::unordered_map<const void *, kernel> &kernels() {
  static auto *all = new std::unordered_map<const void *, kernel>;
  return *all;
}
std::map<const void *, allocation> allocations;
std::set<std::pair<int, int>>      peers;
size_t                             used[MAX_DEVICES];

/* which kernels ran, for the check that none is left out: "offset in the program, launches" a line */
void write_launches() {
  if (const char *path = getenv("MICA_SIMT_LAUNCHES"))
    if (FILE *file = fopen(path, "a")) {
      for (auto &k : kernels())
        if (k.second.launches) fprintf(file, "%s\t%ld\n", symbol_of(k.first).c_str(), k.second.launches);
      fclose(file);
    }
  if (const char *path = getenv("MICA_SIMT_TOTALS"))
    if (FILE *file = fopen(path, "a")) {
      fprintf(file, "allocations %ld launches %ld operations %ld left: memory %zu streams %ld events %ld graphs %ld\n",
              counted.allocations, counted.launches, counted.operations, allocations.size(), counted.streams, counted.events,
              counted.graphs);
      fclose(file);
    }
}

}

const allocation *find_allocation(const void *at, size_t bytes) {
  auto it = allocations.upper_bound(at);
  if (it == allocations.begin()) return nullptr;
  --it;
  return (const char *)at + bytes <= (const char *)it->first + it->second.bytes ? &it->second : nullptr;
}
bool may_access(int from, int to) { return from == to || peers.count({ from, to }); }

void know_kernel(const void *entry, const char *name, call_fn call, const size_t *sizes, int count) {
  guard g(lock);
  static bool first = true;
  if (first) atexit(write_launches);
  first = false;
  kernel &k = kernels()[entry];
  if (k.call) return;
  k.call = call, k.name = name;
  k.sizes.assign(sizes, sizes + count);
}

cudaError_t answer(cudaError_t code) {
  if (code != cudaSuccess) last_error = code;
  return code;
}
cudaError_t alive(int device) { return sticky[device]; }

namespace {

cudaError_t take(void **out, size_t bytes, int kind) {
  guard g(lock);
  if (alive(device_now)) return answer(alive(device_now));
  if (capture_forbids()) return answer(cudaErrorStreamCaptureUnsupported);
  if (++counted.allocations == option().fail_alloc) return answer(cudaErrorMemoryAllocation);
  void *at = nullptr;
  if (kind == ON_DEVICE) {
    if (used[device_now] + bytes > option().memory || !(at = arena_take(device_now, bytes))) return answer(cudaErrorMemoryAllocation);
    used[device_now] += bytes;
    opened o;
    memset(at, 0xff, bytes);                 /* NaN */
    shadow_open(at, bytes, false);
  } else if (posix_memalign(&at, 512, bytes ? bytes : 1)) {
    return answer(cudaErrorMemoryAllocation);
  } else {
    memset(at, 0xff, bytes);
  }
  allocations[at] = allocation{ bytes, device_now, kind };
  *out = at;
  return cudaSuccess;
}
cudaError_t give(void *at, int kind) {
  guard g(lock);
  if (!at) return cudaSuccess;
  auto it = allocations.find(at);
  if (it == allocations.end() || it->second.kind != kind) return answer(cudaErrorInvalidValue);
  finish_all();                              /* as cudaFree does */
  if (kind == ON_DEVICE) used[it->second.device] -= it->second.bytes, arena_give(at);
  else free(at);
  allocations.erase(it);
  return cudaSuccess;
}

}

}

extern "C" {

/* ---- devices and errors ---- */

cudaError_t cudaGetDeviceCount(int *n) {
  *n = option().devices;
  return *n ? cudaSuccess : answer(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= option().devices) return answer(cudaErrorInvalidDevice);
  device_now = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
  *device = device_now;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  cudaError_t code = alive(device_now) ? alive(device_now) : last_error;
  last_error = cudaSuccess;
  return code;
}
cudaError_t cudaPeekAtLastError() { return alive(device_now) ? alive(device_now) : last_error; }

static const struct {
  cudaError_t code;
  const char *name, *text;
} errors[] = {
#define E(code, text) { code, #code, text }
  E(cudaSuccess, "no error"), E(cudaErrorInvalidValue, "invalid argument"), E(cudaErrorMemoryAllocation, "out of memory"),
  E(cudaErrorInvalidConfiguration, "invalid configuration argument"), E(cudaErrorInvalidDevice, "invalid device ordinal"),
  E(cudaErrorNoDevice, "no CUDA-capable device is detected"), E(cudaErrorInvalidDeviceFunction, "invalid device function"),
  E(cudaErrorInvalidResourceHandle, "invalid resource handle"), E(cudaErrorNotReady, "device not ready"),
  E(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
  E(cudaErrorMisalignedAddress, "misaligned address"), E(cudaErrorLaunchFailure, "unspecified launch failure"),
  E(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
  E(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
  E(cudaErrorPeerAccessAlreadyEnabled, "peer access is already enabled"),
  E(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
  E(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
  E(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream"),
  E(cudaErrorStreamCaptureUnjoined, "capture sequence contains a fork that was not joined to the primary stream"),
  E(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
  E(cudaErrorUnknown, "unknown error"),
#undef E
};
const char *cudaGetErrorName(cudaError_t code) {
  for (auto &e : errors)
    if (e.code == code) return e.name;
  return "cudaError";
}
const char *cudaGetErrorString(cudaError_t code) {
  for (auto &e : errors)
    if (e.code == code) return e.text;
  return "error of the CUDA runtime";
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  if (device < 0 || device >= option().devices) return answer(cudaErrorInvalidDevice);
  if (alive(device_now)) return answer(alive(device_now));
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "SIMT device on the CPU");
  p->major = 8, p->minor = 0, p->multiProcessorCount = 4, p->warpSize = 32;
  p->totalGlobalMem = option().memory;
  p->sharedMemPerBlock = 48 * 1024, p->sharedMemPerBlockOptin = 163 * 1024;
  p->maxThreadsPerBlock = 1024;
  p->regsPerBlock = 65536;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr what, int device) {
  if (device < 0 || device >= option().devices) return answer(cudaErrorInvalidDevice);
  switch (what) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 163 * 1024; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 8; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    default: return answer(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *spare, size_t *total) {
  guard g(lock);
  if (alive(device_now)) return answer(alive(device_now));
  *total = option().memory;
  *spare = *total - used[device_now];
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  if (device < 0 || peer < 0 || device >= option().devices || peer >= option().devices) return answer(cudaErrorInvalidDevice);
  *can = device != peer;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  guard g(lock);
  if (flags || peer < 0 || peer >= option().devices || peer == device_now) return answer(cudaErrorInvalidDevice);
  return peers.insert({ device_now, peer }).second ? cudaSuccess : answer(cudaErrorPeerAccessAlreadyEnabled);
}

/* ---- memory ---- */

cudaError_t cudaMalloc(void **out, size_t bytes) { return take(out, bytes, ON_DEVICE); }
cudaError_t cudaMallocHost(void **out, size_t bytes) { return take(out, bytes, PINNED); }
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) { return take(out, bytes, PINNED); }
cudaError_t cudaFree(void *at) { return give(at, ON_DEVICE); }
cudaError_t cudaFreeHost(void *at) { return give(at, PINNED); }

/* ---- launches ---- */

cudaError_t cudaFuncSetAttribute(const void *entry, cudaFuncAttribute what, int value) {
  guard g(lock);
  auto it = kernels().find(entry);
  if (it == kernels().end()) return answer(cudaErrorInvalidDeviceFunction);
  if (what == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (what != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > 163 * 1024) return answer(cudaErrorInvalidValue);
  it->second.dynamic = value;
  return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *entry, dim3 grid, dim3 block, void **arguments, size_t dynamic, cudaStream_t stream) {
  guard g(lock);
  if (alive(device_now)) return answer(alive(device_now));
  auto it = kernels().find(entry);
  if (it == kernels().end()) return answer(cudaErrorInvalidDeviceFunction);
  uint64_t threads = (uint64_t)block.x * block.y * block.z;
  if (!threads || threads > MAX_THREADS || block.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > 2147483647u ||
      grid.y > 65535 || grid.z > 65535)
    return answer(cudaErrorInvalidConfiguration);
  kernel &k = it->second;
  if (dynamic > (size_t)(k.dynamic > 48 * 1024 ? k.dynamic : 48 * 1024)) return answer(cudaErrorInvalidValue);
  long number = ++counted.launches;
  if (number == option().fail_launch) return answer(cudaErrorLaunchOutOfResources);
  k.launches++;
  std::vector<std::vector<char>> copies;
  for (size_t i = 0; i < k.sizes.size(); i++)
    copies.emplace_back(static_cast<char *>(arguments[i]), static_cast<char *>(arguments[i]) + k.sizes[i]);
  const int device = device_now;
  return put(stream, [=, &k]() mutable -> cudaError_t {
    std::vector<void *> list;
    for (auto &c : copies) list.push_back(c.data());
    block_job job = { entry, k.call, list.data(), k.name.c_str(), grid, block, dynamic, device, option().schedule };
    if (job.schedule == ROTATE) job.schedule = (int)((number + (long)option().seed) % 3);
    cudaError_t code;
    std::string error = run_grid(job, &code);
    if (error.empty()) return cudaSuccess;
    fprintf(stderr, "simt: %s\n", error.c_str());
    return code;
  });
}

}
