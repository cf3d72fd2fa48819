/* GPUs through the CUDA runtime: plain C over its API. without MICA_HAVE_CUDA every door says so. */
#include "device/device.h"

#ifdef MICA_HAVE_CUDA

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

/* codes after which nothing works any more on the device for this process (CUDA runtime API, "sticky" errors) */
static const cudaError_t deadly[] = {
  cudaErrorIllegalAddress, cudaErrorLaunchTimeout, cudaErrorHardwareStackError, cudaErrorIllegalInstruction,
  cudaErrorMisalignedAddress, cudaErrorInvalidAddressSpace, cudaErrorInvalidPc, cudaErrorLaunchFailure,
  cudaErrorAssert, cudaErrorECCUncorrectable, cudaErrorNvlinkUncorrectable, cudaErrorDevicesUnavailable,
  cudaErrorContextIsDestroyed, cudaErrorMpsClientTerminated, cudaErrorExternalDevice, cudaErrorTensorMemoryLeak,
  cudaErrorDeviceUninitialized, cudaErrorCudartUnloading, cudaErrorUnknown,
};

static mica_status failed(micah_device *device, const char *call, const char *what, cudaError_t code) {
  (void)cudaGetLastError();  /* must not be blamed on the next call */
  mica_status status = code == cudaErrorMemoryAllocation ? MICA_ERR_MEMORY : MICA_ERR_DEVICE;
  mica_error(status, "device cuda:%d: %s%s%s: CUDA error %d (%s): %s", device->index, call, what ? " of " : "",
             what ? what : "", (int)code, cudaGetErrorName(code), cudaGetErrorString(code));
  for (int i = 0; i < MICA_COUNT(deadly); i++)
    if (code == deadly[i]) return micah_device_poison(device);
  return status;
}

/* one CUDA call on a live device */
#define CALL(device, name, what, ...)                                     \
  do {                                                                    \
    mica_status alive_ = micah_device_alive(device);                      \
    if (alive_ < 0) return alive_;                                        \
    cudaError_t code_ = cudaSetDevice((device)->index);                   \
    if (code_ != cudaSuccess) return failed(device, "cudaSetDevice", NULL, code_); \
    code_ = name(__VA_ARGS__);                                            \
    if (code_ != cudaSuccess) return failed(device, #name, what, code_);  \
  } while (0)

static mica_status count(int32_t *out) {
  int         n = 0;
  cudaError_t code = cudaGetDeviceCount(&n);
  *out = 0;
  if (code != cudaSuccess) {
    (void)cudaGetLastError();
    return mica_error(MICA_ERR_UNSUPPORTED, "no CUDA device: cudaGetDeviceCount: CUDA error %d (%s): %s", (int)code,
                      cudaGetErrorName(code), cudaGetErrorString(code));
  }
  if (n < 1) return mica_error(MICA_ERR_UNSUPPORTED, "no CUDA device on this machine");
  *out = n;
  return MICA_OK;
}

static mica_status open_device(micah_device *device) {
  int32_t n;
  mica_status status = count(&n);
  if (status < 0) return status;
  if (device->index >= n)
    return mica_error(MICA_ERR_NOT_FOUND, "no device cuda:%d; this machine has %d: cuda:0 to cuda:%d", device->index, n,
                      n - 1);
  cudaStream_t stream;
  CALL(device, cudaStreamCreateWithFlags, NULL, &stream, cudaStreamNonBlocking);
  device->stream = stream;
  return MICA_OK;
}
static void close_device(micah_device *device) {
  if (device->stream && cudaSetDevice(device->index) == cudaSuccess)
    (void)cudaStreamDestroy((cudaStream_t)device->stream);
  (void)cudaGetLastError();
}

static mica_status info(micah_device *device, micah_device_info *out) {
  struct cudaDeviceProp p;
  size_t spare, total;
  CALL(device, cudaGetDeviceProperties, NULL, &p, device->index);
  CALL(device, cudaMemGetInfo, NULL, &spare, &total);
  *out = (micah_device_info){ .index = device->index, .units = p.multiProcessorCount,
                              .capability = 10 * p.major + p.minor, .memory = (int64_t)total, .free = (int64_t)spare };
  snprintf(out->name, sizeof out->name, "%.127s", p.name);
  return MICA_OK;
}

static mica_status enter(micah_device *device) {
  mica_status status = micah_device_alive(device);
  if (status < 0) return status;
  cudaError_t code = cudaSetDevice(device->index);
  return code == cudaSuccess ? MICA_OK : failed(device, "cudaSetDevice", NULL, code);
}

static mica_status check(micah_device *device) {
  mica_status status = enter(device);
  if (status < 0) return status;
  (void)cudaGetLastError();
  cudaError_t code = cudaStreamQuery((cudaStream_t)device->stream);
  return code == cudaSuccess || code == cudaErrorNotReady ? MICA_OK : failed(device, "cudaStreamQuery", NULL, code);
}

/* ---- memory ---- */

static mica_status alloc(micah_device *device, size_t bytes, const char *what, void **out) {
  *out = NULL;
  CALL(device, cudaMalloc, what, out, bytes ? bytes : 1);
  return MICA_OK;
}
static void release(micah_device *device, void *ptr, size_t bytes) {
  (void)bytes;
  if (ptr && cudaSetDevice(device->index) == cudaSuccess) (void)cudaFree(ptr);
  (void)cudaGetLastError();
}
static mica_status alloc_host(micah_device *device, size_t bytes, const char *what, void **out) {
  *out = NULL;
  CALL(device, cudaMallocHost, what, out, bytes ? bytes : 1);
  return MICA_OK;
}
static void free_host(micah_device *device, void *ptr, size_t bytes) {
  (void)bytes;
  if (ptr && cudaSetDevice(device->index) == cudaSuccess) (void)cudaFreeHost(ptr);
  (void)cudaGetLastError();
}

static mica_status copy(micah_device *device, void *stream, void *to, const void *from, size_t bytes) {
  if (bytes) CALL(device, cudaMemcpyAsync, NULL, to, from, bytes, cudaMemcpyDefault, (cudaStream_t)stream);
  return MICA_OK;
}
static mica_status copy_rows(micah_device *device, void *stream, void *to, size_t to_pitch, const void *from,
                             size_t from_pitch, size_t bytes, size_t rows) {
  if (bytes && rows)
    CALL(device, cudaMemcpy2DAsync, NULL, to, to_pitch, from, from_pitch, bytes, rows, cudaMemcpyDefault,
         (cudaStream_t)stream);
  return MICA_OK;
}
static mica_status copy_peer(micah_device *device, void *stream, void *to, const micah_device *source,
                             const void *from, size_t bytes) {
  if (bytes)
    CALL(device, cudaMemcpyPeerAsync, NULL, to, device->index, from, source->index, bytes, (cudaStream_t)stream);
  return MICA_OK;
}
static mica_status fill(micah_device *device, void *stream, void *to, int byte, size_t bytes) {
  if (bytes) CALL(device, cudaMemsetAsync, NULL, to, byte, bytes, (cudaStream_t)stream);
  return MICA_OK;
}
static mica_status fill_rows(micah_device *device, void *stream, void *to, size_t pitch, int byte, size_t bytes,
                             size_t rows) {
  if (bytes && rows) CALL(device, cudaMemset2DAsync, NULL, to, pitch, byte, bytes, rows, (cudaStream_t)stream);
  return MICA_OK;
}

/* ---- streams and events ---- */

static mica_status stream_create(micah_device *device, void **out) {
  cudaStream_t stream;
  *out = NULL;
  CALL(device, cudaStreamCreateWithFlags, NULL, &stream, cudaStreamNonBlocking);
  *out = stream;
  return MICA_OK;
}
static void stream_destroy(micah_device *device, void *stream) {
  if (stream && cudaSetDevice(device->index) == cudaSuccess) (void)cudaStreamDestroy((cudaStream_t)stream);
  (void)cudaGetLastError();
}
/* a thread that captures one stream may wait for another stream or event, but only in relaxed mode */
#define WAIT(device, name, on)                                             \
  do {                                                                     \
    enum cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;       \
    CALL(device, cudaThreadExchangeStreamCaptureMode, NULL, &mode_);       \
    cudaError_t waited_ = name(on);                                        \
    (void)cudaThreadExchangeStreamCaptureMode(&mode_); /* what is told is how the wait went */ \
    return waited_ == cudaSuccess ? MICA_OK : failed(device, #name, NULL, waited_); \
  } while (0)
static mica_status stream_sync(micah_device *device, void *stream) {
  WAIT(device, cudaStreamSynchronize, (cudaStream_t)stream);
}

static mica_status event_create(micah_device *device, void **out) {
  cudaEvent_t event;
  *out = NULL;
  CALL(device, cudaEventCreateWithFlags, NULL, &event, cudaEventDefault);
  *out = event;
  return MICA_OK;
}
static void event_destroy(micah_device *device, void *event) {
  if (event && cudaSetDevice(device->index) == cudaSuccess) (void)cudaEventDestroy((cudaEvent_t)event);
  (void)cudaGetLastError();
}
static mica_status event_record(micah_device *device, void *event, void *stream) {
  CALL(device, cudaEventRecord, NULL, (cudaEvent_t)event, (cudaStream_t)stream);
  return MICA_OK;
}
static mica_status event_wait(micah_device *device, void *stream, void *event) {
  CALL(device, cudaStreamWaitEvent, NULL, (cudaStream_t)stream, (cudaEvent_t)event, 0);
  return MICA_OK;
}
static mica_status event_query(micah_device *device, void *event, int *done) {
  mica_status status = enter(device);
  if (status < 0) return status;
  cudaError_t code = cudaEventQuery((cudaEvent_t)event);
  *done = code == cudaSuccess;
  if (code == cudaSuccess) return MICA_OK;
  if (code != cudaErrorNotReady) return failed(device, "cudaEventQuery", NULL, code);
  (void)cudaGetLastError();
  return MICA_OK;
}
static mica_status event_sync(micah_device *device, void *event) {
  WAIT(device, cudaEventSynchronize, (cudaEvent_t)event);
}
static mica_status event_elapsed(micah_device *device, void *from, void *to, double *seconds) {
  float ms = 0;
  CALL(device, cudaEventElapsedTime, NULL, &ms, (cudaEvent_t)from, (cudaEvent_t)to);
  *seconds = 1e-3 * (double)ms;
  return MICA_OK;
}

/* ---- graphs ---- */

static mica_status capturing(micah_device *device, void *stream, int *out) {
  enum cudaStreamCaptureStatus now = cudaStreamCaptureStatusNone;
  *out = 0;
  if (stream) CALL(device, cudaStreamIsCapturing, NULL, (cudaStream_t)stream, &now);
  *out = now != cudaStreamCaptureStatusNone;
  return MICA_OK;
}
static mica_status capture_begin(micah_device *device, void *stream) {
  /* other threads may allocate meanwhile */
  CALL(device, cudaStreamBeginCapture, NULL, (cudaStream_t)stream, cudaStreamCaptureModeThreadLocal);
  return MICA_OK;
}
static mica_status capture_end(micah_device *device, void *stream, void **out) {
  cudaGraph_t     graph = NULL;
  cudaGraphExec_t exec = NULL;
  *out = NULL;
  mica_status status = enter(device);
  if (status < 0) return status;
  cudaError_t code = cudaStreamEndCapture((cudaStream_t)stream, &graph);
  if (code != cudaSuccess) {
    if (graph) (void)cudaGraphDestroy(graph);
    return failed(device, "cudaStreamEndCapture", NULL, code);
  }
  code = cudaGraphInstantiateWithFlags(&exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  if (code != cudaSuccess) return failed(device, "cudaGraphInstantiate", NULL, code);
  *out = exec;
  return MICA_OK;
}
static mica_status graph_launch(micah_device *device, void *graph, void *stream) {
  CALL(device, cudaGraphLaunch, NULL, (cudaGraphExec_t)graph, (cudaStream_t)stream);
  return MICA_OK;
}
static void graph_destroy(micah_device *device, void *graph) {
  if (graph && cudaSetDevice(device->index) == cudaSuccess) (void)cudaGraphExecDestroy((cudaGraphExec_t)graph);
  (void)cudaGetLastError();
}

const micah_device_ops micah_cuda_ops = {
  "cuda", MICA_CUDA, count, open_device, close_device, info, enter, check, alloc, release, alloc_host, free_host, copy,
  copy_rows, copy_peer, fill, fill_rows, stream_create, stream_destroy, stream_sync, event_create, event_destroy,
  event_record, event_wait, event_query, event_sync, event_elapsed, capturing, capture_begin, capture_end,
  graph_launch, graph_destroy,
};

#else

static mica_status missing(void) {
  return mica_error(MICA_ERR_UNSUPPORTED, "this build has no CUDA backend: install a CUDA toolkit and configure with "
                    "cmake --preset cuda (MICA_CUDA=ON)");
}
static mica_status count(int32_t *out) {
  *out = 0;
  return missing();
}
static mica_status open_device(micah_device *device) {
  (void)device;
  return missing();
}
static void close_device(micah_device *device) { (void)device; }

/* no device is ever open, so nothing else is ever called */
const micah_device_ops micah_cuda_ops = {
  .name = "cuda", .backend = MICA_CUDA, .count = count, .open = open_device, .close = close_device,
};

#endif
