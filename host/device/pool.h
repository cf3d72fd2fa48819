/* pool.h: the threads behind a context's parallel_for. */
#ifndef MICA_HOST_DEVICE_POOL_H
#define MICA_HOST_DEVICE_POOL_H

#include "mica/context.h"

typedef struct micah_pool micah_pool;

/* cores this process may run on, >= 1. */
int32_t micah_pool_cores(void);

/* a pool of `workers` >= 1 threads, the caller of parallel_for counted as worker 0. MICA_ERR_MEMORY, MICA_ERR_DEVICE
 * when a thread cannot be started. */
mica_status micah_pool_create(const mica_allocator *allocator, int32_t workers, micah_pool **out);
void        micah_pool_destroy(micah_pool *pool);

/* mica_threads.parallel_for with a pool as `user`. indices are handed out one at a time: make each worth >= ~10 us. a
 * call from inside a body, or while another thread's call is running, runs all of [0, n) inline as worker 0. */
void micah_pool_parallel_for(void *pool, int64_t n, mica_body body, void *arg);

#endif
