/* cudart.h: what the two halves of the runtime's stand-in share (cudart.cpp, stream.cpp) */
#ifndef MICA_TESTS_SIMT_CUDART_H
#define MICA_TESTS_SIMT_CUDART_H

#include <functional>
#include <mutex>

#include "runtime.h"

namespace simt {

typedef std::lock_guard<std::recursive_mutex> guard;
extern std::recursive_mutex     lock;
extern thread_local int         device_now;
extern thread_local cudaError_t last_error;
extern cudaError_t              sticky[MAX_DEVICES]; /* after a kernel that failed: all that the device ever says */

struct totals {
  long allocations, launches, operations, streams, events, graphs;
};
extern totals counted;

cudaError_t answer(cudaError_t code);        /* also remembered for cudaGetLastError */
cudaError_t alive(int device);
std::string symbol_of(const void *code);     /* a kernel's name in the program's symbol table */

typedef std::function<cudaError_t()> task;
/* enqueue, or put into the graph that the stream is captured for */
cudaError_t put(cudaStream_t stream, task work);
bool        capture_forbids();               /* does a capture of this thread forbid allocation? */
void        finish_all();                    /* all that is on any stream */

}

#endif
