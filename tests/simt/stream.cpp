/* stands in for the CUDA runtime: streams, events, copies, graphs. a stream's work is done when it is put there, or,
 * with MICA_SIMT_LAZY_STREAMS, not before something waits for it: then a missing wait is seen. */
#include <algorithm>
#include <cstring>
#include <ctime>
#include <deque>
#include <memory>
#include <set>
#include <thread>

#include "cudart.h"

using namespace simt;

struct node {
  task             work;
  std::vector<int> after;
};
struct CUgraph_st {
  std::vector<node> nodes;
};
struct CUgraphExec_st {
  std::vector<node> nodes;
  int               device;
};
struct capture {
  std::unique_ptr<CUgraph_st> graph;
  CUstream_st                *origin;
  std::set<CUstream_st *>     streams;
  std::thread::id             thread;
  bool                        broken, ended;
};
struct work_item {
  task          work;
  CUevent_st   *records, *waits;
  unsigned long ticket;
};
struct CUstream_st {
  int                   device;
  bool                  blocking, busy;
  std::deque<work_item> queue;
  capture              *into;
  std::vector<int>      last;                /* nodes that the next one follows */
};
struct CUevent_st {
  int              device;
  unsigned long    wanted, done;
  CUstream_st     *on;
  double           time;
  capture         *into;
  std::vector<int> nodes;
};

namespace {

std::set<CUstream_st *> streams;
CUstream_st            *defaults[MAX_DEVICES];
std::set<capture *>     captures;
std::vector<std::unique_ptr<capture>> ended; /* events may still name them */
unsigned long           tickets;

double now() {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

CUstream_st *stream_of(cudaStream_t s) {
  if (s && s != cudaStreamLegacy && s != cudaStreamPerThread) return s;
  if (!defaults[device_now]) {
    defaults[device_now] = new CUstream_st{ device_now, true, false, {}, nullptr, {} };
    streams.insert(defaults[device_now]);
  }
  return defaults[device_now];
}
bool known(CUstream_st *s) { return streams.count(s) > 0; }

/* do what is on a stream, up to an event's ticket */
cudaError_t drain(CUstream_st *s, CUevent_st *until = nullptr, unsigned long ticket = 0) {
  if (s->busy) return cudaSuccess;
  s->busy = true;
  while (!s->queue.empty() && !(until && until->done >= ticket)) {
    work_item item = std::move(s->queue.front());
    s->queue.pop_front();
    if (item.waits && item.waits->done < item.ticket && item.waits->on) drain(item.waits->on, item.waits, item.ticket);
    if (item.records) item.records->done = std::max(item.records->done, item.ticket), item.records->time = now();
    if (item.work && !sticky[s->device]) {
      opened o;
      counted.operations++;
      if (counted.operations == option().lose_device) sticky[s->device] = cudaErrorECCUncorrectable;
      else sticky[s->device] = item.work();
    }
  }
  s->busy = false;
  return sticky[s->device];
}

cudaError_t enqueue(CUstream_st *s, work_item item) {
  if (sticky[s->device]) return sticky[s->device];
  /* the legacy default stream and blocking streams wait for each other */
  if (s == defaults[s->device]) {
    for (CUstream_st *other : std::vector<CUstream_st *>(streams.begin(), streams.end()))
      if (other != s && other->device == s->device && other->blocking) drain(other);
  } else if (s->blocking && defaults[s->device]) {
    drain(defaults[s->device]);
  }
  s->queue.push_back(std::move(item));
  if (option().lazy_streams) return cudaSuccess;
  drain(s);
  return cudaSuccess;                        /* errors of the work itself come later, as on a GPU */
}

/* calls that might disturb a capture are refused to a thread that captures, unless it says that it knows */
thread_local cudaStreamCaptureMode mode_now = cudaStreamCaptureModeGlobal;

bool thread_captures() {
  for (capture *c : captures)
    if (c->thread == std::this_thread::get_id()) return true;
  return false;
}

cudaError_t put_checked(cudaStream_t stream, task work) {
  CUstream_st *s = stream_of(stream);
  if (!known(s)) return cudaErrorInvalidResourceHandle;
  if (sticky[s->device]) return sticky[s->device];
  if (s == defaults[s->device] && !stream && thread_captures()) {
    for (capture *c : captures)
      if (c->thread == std::this_thread::get_id()) c->broken = true;
    return cudaErrorStreamCaptureImplicit;
  }
  if (s->into) {
    if (s->into->broken) return cudaErrorStreamCaptureInvalidated;
    auto &nodes = s->into->graph->nodes;
    nodes.push_back(node{ std::move(work), s->last });
    s->last.assign(1, (int)nodes.size() - 1);
    return cudaSuccess;
  }
  return enqueue(s, work_item{ std::move(work), nullptr, nullptr, 0 });
}

/* waiting for a stream that is captured breaks the capture */
cudaError_t no_capture(CUstream_st *s) {
  if (!s->into) return cudaSuccess;
  s->into->broken = true;
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t check_copy(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  const int a = arena_device(to), b = arena_device(from);
  if ((a >= 0 && !find_allocation(to, bytes)) || (b >= 0 && !find_allocation(from, bytes))) return cudaErrorInvalidValue;
  if (kind == cudaMemcpyDefault) return cudaSuccess;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return to_device == (a >= 0) && from_device == (b >= 0) ? cudaSuccess : cudaErrorInvalidValue;
}
bool pageable(const void *at) { return arena_device(at) < 0 && !find_allocation(at, 1); }

struct rows_of {
  size_t to_pitch, from_pitch, bytes, rows;
};
cudaError_t copy_rows(void *to, const void *from, rows_of r, cudaMemcpyKind kind, cudaStream_t stream) {
  guard  g(lock);
  if (!r.bytes || !r.rows) return cudaSuccess;
  if ((r.rows > 1 && (r.to_pitch < r.bytes || r.from_pitch < r.bytes))) return answer(cudaErrorInvalidPitchValue);
  size_t span_to = (r.rows - 1) * r.to_pitch + r.bytes, span_from = (r.rows - 1) * r.from_pitch + r.bytes;
  if (cudaError_t code = check_copy(to, from, 1, kind)) return answer(code);
  if (cudaError_t code = check_copy(to, to, span_to, cudaMemcpyDefault)) return answer(code);
  if (cudaError_t code = check_copy(from, from, span_from, cudaMemcpyDefault)) return answer(code);
  std::shared_ptr<std::vector<char>> staged; /* a pageable source is taken at once */
  CUstream_st *s = stream_of(stream);
  if (pageable(from) && option().lazy_streams && known(s) && !s->into)
    staged = std::make_shared<std::vector<char>>(static_cast<const char *>(from), static_cast<const char *>(from) + span_from);
  cudaError_t code = put_checked(stream, [=]() -> cudaError_t {
    const char *source = staged ? staged->data() : static_cast<const char *>(from);
    for (size_t i = 0; i < r.rows; i++) {
      memmove(static_cast<char *>(to) + i * r.to_pitch, source + i * r.from_pitch, r.bytes);
      if (arena_device(to) >= 0) shadow_open(static_cast<char *>(to) + i * r.to_pitch, r.bytes, true);
    }
    return cudaSuccess;
  });
  if (!code && pageable(to) && known(s) && !s->into) code = drain(s);  /* a pageable target is waited for */
  return answer(code);
}

cudaError_t fill_rows(void *to, size_t pitch, int byte, size_t bytes, size_t rows, cudaStream_t stream) {
  guard g(lock);
  if (!bytes || !rows) return cudaSuccess;
  if (arena_device(to) < 0 || !find_allocation(to, (rows - 1) * pitch + bytes)) return answer(cudaErrorInvalidValue);
  return answer(put_checked(stream, [=]() -> cudaError_t {
    for (size_t i = 0; i < rows; i++) {
      memset(static_cast<char *>(to) + i * pitch, byte, bytes);
      shadow_open(static_cast<char *>(to) + i * pitch, bytes, true);
    }
    return cudaSuccess;
  }));
}

}

namespace simt {

cudaError_t put(cudaStream_t stream, task work) {
  CUstream_st *s = stream_of(stream);
  if (known(s) && s->device != device_now) return answer(cudaErrorInvalidResourceHandle);
  return answer(put_checked(stream, std::move(work)));
}
bool capture_forbids() {
  bool any = false;
  for (capture *c : captures)
    if (c->thread == std::this_thread::get_id()) c->broken = any = true;
  return any;
}
void finish_all() {
  for (CUstream_st *s : std::vector<CUstream_st *>(streams.begin(), streams.end())) drain(s);
}

}

extern "C" {

/* ---- copies ---- */

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy_rows(to, from, rows_of{ bytes, bytes, bytes, 1 }, kind, stream);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  guard       g(lock);
  cudaError_t code = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return code ? code : answer(drain(stream_of(nullptr)));
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t bytes, size_t rows,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  return copy_rows(to, from, rows_of{ to_pitch, from_pitch, bytes, rows }, kind, stream);
}
cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes, cudaStream_t stream) {
  guard g(lock);
  if (bytes && (arena_device(to) != to_device || arena_device(from) != from_device)) return answer(cudaErrorInvalidValue);
  return copy_rows(to, from, rows_of{ bytes, bytes, bytes, 1 }, cudaMemcpyDeviceToDevice, stream);
}
cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream) {
  return fill_rows(to, bytes, byte, bytes, 1, stream);
}
cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int byte, size_t bytes, size_t rows, cudaStream_t stream) {
  return fill_rows(to, pitch, byte, bytes, rows, stream);
}
cudaError_t cudaMemset(void *to, int byte, size_t bytes) { return cudaMemsetAsync(to, byte, bytes, nullptr); }

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t run, void *data) {
  guard g(lock);
  return answer(put_checked(stream, [=]() -> cudaError_t {
    run(data);
    return cudaSuccess;
  }));
}

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
  guard g(lock);
  if (alive(device_now)) return answer(alive(device_now));
  *out = new CUstream_st{ device_now, !(flags & cudaStreamNonBlocking), false, {}, nullptr, {} };
  streams.insert(*out);
  counted.streams++;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  guard g(lock);
  if (!s || !known(s)) return answer(cudaErrorInvalidResourceHandle);
  drain(s);
  streams.erase(s);
  counted.streams--;
  delete s;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  guard        g(lock);
  CUstream_st *s = stream_of(stream);
  if (!known(s)) return answer(cudaErrorInvalidResourceHandle);
  if (cudaError_t code = no_capture(s)) return answer(code);
  if (mode_now != cudaStreamCaptureModeRelaxed && thread_captures()) return answer(cudaErrorStreamCaptureUnsupported);
  return answer(drain(s));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  guard        g(lock);
  CUstream_st *s = stream_of(stream);
  if (!known(s)) return answer(cudaErrorInvalidResourceHandle);
  if (cudaError_t code = no_capture(s)) return answer(code);
  if (sticky[s->device]) return answer(sticky[s->device]);
  return s->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
  guard g(lock);
  if (capture_forbids()) return answer(cudaErrorStreamCaptureUnsupported);
  for (CUstream_st *s : std::vector<CUstream_st *>(streams.begin(), streams.end()))
    if (s->device == device_now) drain(s);
  return answer(sticky[device_now]);
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
  guard g(lock);
  if (alive(device_now)) return answer(alive(device_now));
  *out = new CUevent_st{ device_now, 0, 0, nullptr, 0, nullptr, {} };
  counted.events++;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  guard g(lock);
  for (CUstream_st *s : std::vector<CUstream_st *>(streams.begin(), streams.end()))
    for (auto &item : s->queue)
      if (item.records == e || item.waits == e) {
        drain(s);
        break;
      }
  counted.events--;
  delete e;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
  guard        g(lock);
  CUstream_st *s = stream_of(stream);
  if (!known(s) || s->device != e->device) return answer(cudaErrorInvalidResourceHandle);
  e->into = s->into;
  if (s->into) {
    e->nodes = s->last;
    return cudaSuccess;
  }
  e->wanted = ++tickets;
  e->on = s;
  return answer(enqueue(s, work_item{ nullptr, e, nullptr, e->wanted }));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned) {
  guard        g(lock);
  CUstream_st *s = stream_of(stream);
  if (!known(s)) return answer(cudaErrorInvalidResourceHandle);
  if (e->into && e->into->ended) return answer(cudaErrorCapturedEvent);
  if (e->into) {                             /* the stream joins the capture */
    if (s->into && s->into != e->into) return answer(cudaErrorStreamCaptureMerge);
    if (!s->into) s->into = e->into, s->last.clear(), e->into->streams.insert(s);
    for (int n : e->nodes)
      if (std::find(s->last.begin(), s->last.end(), n) == s->last.end()) s->last.push_back(n);
    return cudaSuccess;
  }
  if (s->into) {
    s->into->broken = true;
    return answer(cudaErrorStreamCaptureIsolation);
  }
  if (e->done >= e->wanted) return cudaSuccess;
  return answer(enqueue(s, work_item{ nullptr, nullptr, e, e->wanted }));
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  guard g(lock);
  if (e->into) return answer(cudaErrorCapturedEvent);
  if (mode_now != cudaStreamCaptureModeRelaxed && thread_captures()) return answer(cudaErrorStreamCaptureUnsupported);
  if (e->on && e->done < e->wanted) drain(e->on, e, e->wanted);
  return answer(e->on ? sticky[e->on->device] : cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  guard g(lock);
  if (e->into) return answer(cudaErrorCapturedEvent);
  if (e->on && sticky[e->on->device]) return answer(sticky[e->on->device]);
  return e->done < e->wanted ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
  guard g(lock);
  if (from->done < from->wanted || to->done < to->wanted) return answer(cudaErrorNotReady);
  *ms = (float)(to->time - from->time);
  return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  guard        g(lock);
  CUstream_st *s = stream_of(stream);
  if (!known(s)) return answer(cudaErrorInvalidResourceHandle);
  if (sticky[s->device]) return answer(sticky[s->device]);
  if (s == defaults[s->device] || s->into) return answer(cudaErrorStreamCaptureUnsupported);
  s->into = new capture{ std::make_unique<CUgraph_st>(), s, { s }, std::this_thread::get_id(), false, false };
  s->last.clear();
  captures.insert(s->into);
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  std::swap(*mode, mode_now);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *out) {
  guard        g(lock);
  CUstream_st *s = stream_of(stream);
  if (!known(s)) return answer(cudaErrorInvalidResourceHandle);
  *out = !s->into ? cudaStreamCaptureStatusNone
         : s->into->broken ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  guard        g(lock);
  CUstream_st *s = stream_of(stream);
  *out = nullptr;
  if (!known(s)) return answer(cudaErrorInvalidResourceHandle);
  if (!s->into || s->into->origin != s) return answer(cudaErrorIllegalState);
  capture *c = s->into;
  captures.erase(c);
  c->ended = true;
  ended.emplace_back(c);
  /* every fork must have come back: all nodes are before the last ones */
  std::vector<char> reached(c->graph->nodes.size());
  std::vector<int>  open = s->last;
  while (!open.empty()) {
    int n = open.back();
    open.pop_back();
    if (reached[(size_t)n]) continue;
    reached[(size_t)n] = 1;
    for (int before : c->graph->nodes[(size_t)n].after) open.push_back(before);
  }
  bool joined = std::find(reached.begin(), reached.end(), 0) == reached.end();
  for (CUstream_st *member : c->streams)
    if (known(member)) member->into = nullptr, member->last.clear();
  if (c->broken) return answer(cudaErrorStreamCaptureInvalidated);
  if (!joined) return answer(cudaErrorStreamCaptureUnjoined);
  *out = c->graph.release();
  counted.graphs++;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  guard g(lock);
  counted.graphs--;
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  guard g(lock);
  if (alive(device_now)) return answer(alive(device_now));
  *out = new CUgraphExec_st{ graph->nodes, device_now };
  counted.graphs++;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(out, graph, flags);
}
/* nodes one after another, in an order that their edges allow: among those that may run, the schedule chooses */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  guard g(lock);
  return answer(put_checked(stream, [=]() -> cudaError_t {
    std::vector<node> &nodes = exec->nodes;
    std::vector<char>  done(nodes.size());
    for (size_t left = nodes.size(); left;) {
      std::vector<size_t> may;
      for (size_t n = 0; n < nodes.size(); n++)
        if (!done[n] && std::all_of(nodes[n].after.begin(), nodes[n].after.end(), [&](int b) { return done[(size_t)b]; }))
          may.push_back(n);
      static uint64_t order = option().seed;
      int how = option().schedule == ROTATE ? (int)(random_next(&order) % 3) : option().schedule;
      size_t pick = how == REVERSED ? may.back() : how == RANDOM ? may[random_next(&order) % may.size()] : may.front();
      if (cudaError_t code = nodes[pick].work()) return code;
      done[pick] = 1;
      left--;
    }
    return cudaSuccess;
  }));
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  guard g(lock);
  finish_all();                              /* a launch of it may still be on a stream */
  counted.graphs--;
  delete exec;
  return cudaSuccess;
}

}
