#include "device/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* one word says all: generation | open | threads inside the job. a thread may join while the job is open; the fields of
 * the job change only when it is closed and nobody is inside. */
#define INSIDE 0xffffffffull
#define OPEN   (1ull << 32)
#define NEXT   (1ull << 33)
enum { SPINS = 4000 };                    /* ~ 20-40 us: passes follow each other closely */

typedef struct pool_thread {
  micah_pool *pool;
  pthread_t   handle;
  int32_t     worker;
} pool_thread;

struct micah_pool {
  mica_allocator allocator;
  int32_t        workers, started, spins;
  pool_thread   *threads;
  mica_body      body;
  void          *arg;
  int64_t        n;
  _Alignas(64) atomic_int_fast64_t next;  /* first index not handed out */
  _Alignas(64) atomic_ullong word;
  atomic_int      busy;                   /* a parallel_for is running */
  atomic_int      sleepers, waiting, stop;
  pthread_mutex_t lock;
  pthread_cond_t  wake, done;
};

static inline void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int32_t micah_pool_cores(void) {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? (int32_t)n : 1;
}

static void work(micah_pool *pool, int32_t worker) {
  for (;;) {
    int64_t i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (i >= pool->n) return;
    pool->body(pool->arg, i, worker);
  }
}

/* is there a job that this thread has not seen? */
static int news(micah_pool *pool, unsigned long long seen, unsigned long long *word) {
  *word = atomic_load(&pool->word);
  return (*word & OPEN) && *word / NEXT != seen;
}

static void *thread_main(void *start) {
  pool_thread *self = start;
  micah_pool *pool = self->pool;
  unsigned long long seen = 0, word;
  for (;;) {
    int found = 0;
    for (int i = 0; i < pool->spins && !found && !atomic_load_explicit(&pool->stop, memory_order_relaxed); i++) {
      found = news(pool, seen, &word);
      if (!found) pause_cpu();
    }
    if (!found) {
      pthread_mutex_lock(&pool->lock);
      atomic_fetch_add(&pool->sleepers, 1);
      while (!(found = news(pool, seen, &word)) && !atomic_load(&pool->stop)) pthread_cond_wait(&pool->wake, &pool->lock);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->lock);
    }
    if (atomic_load(&pool->stop)) return NULL;
    if (!found || !atomic_compare_exchange_strong(&pool->word, &word, word + 1)) continue;
    seen = word / NEXT;
    work(pool, self->worker);
    if (((atomic_fetch_sub(&pool->word, 1) - 1) & (INSIDE | OPEN)) == 0 && atomic_load(&pool->waiting)) {
      pthread_mutex_lock(&pool->lock);
      pthread_cond_signal(&pool->done);
      pthread_mutex_unlock(&pool->lock);
    }
  }
}

void micah_pool_parallel_for(void *user, int64_t n, mica_body body, void *arg) {
  micah_pool *pool = user;
  if (n <= 1 || pool->started == 0 || atomic_exchange_explicit(&pool->busy, 1, memory_order_acquire)) {
    for (int64_t i = 0; i < n; i++) body(arg, i, 0);
    return;
  }
  pool->body = body;
  pool->arg = arg;
  pool->n = n;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  /* open the next generation: publishes the fields above */
  atomic_fetch_add(&pool->word, NEXT + OPEN);
  if (atomic_load(&pool->sleepers)) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
  }
  work(pool, 0);
  atomic_fetch_and(&pool->word, ~OPEN);
  int left = 1;
  for (int i = 0; i < pool->spins && left; i++) {
    left = (atomic_load(&pool->word) & INSIDE) != 0;
    if (left) pause_cpu();
  }
  if (left) {
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->waiting, 1);
    while (atomic_load(&pool->word) & INSIDE) pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->waiting, 0);
    pthread_mutex_unlock(&pool->lock);
  }
  atomic_store_explicit(&pool->busy, 0, memory_order_release);
}

mica_status micah_pool_create(const mica_allocator *allocator, int32_t workers, micah_pool **out) {
  *out = NULL;
  micah_pool *pool = allocator->alloc(allocator->user, sizeof *pool, 64);
  pool_thread *threads = allocator->alloc(allocator->user, (size_t)workers * sizeof *threads, 64);
  if (!pool || !threads) {
    if (pool) allocator->free(allocator->user, pool, sizeof *pool);
    if (threads) allocator->free(allocator->user, threads, (size_t)workers * sizeof *threads);
    return mica_error(MICA_ERR_MEMORY, "thread pool: out of memory for %d workers", (int)workers);
  }
  memset(pool, 0, sizeof *pool);
  pool->allocator = *allocator;
  pool->workers = workers;
  pool->threads = threads;
  pool->spins = workers <= micah_pool_cores() ? SPINS : 1;
  atomic_init(&pool->next, 0);
  atomic_init(&pool->word, 0);
  atomic_init(&pool->busy, 0);
  atomic_init(&pool->sleepers, 0);
  atomic_init(&pool->waiting, 0);
  atomic_init(&pool->stop, 0);
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pthread_cond_init(&pool->done, NULL);
  /* signals belong to the program's own threads */
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int failed = 0;
  for (int32_t i = 0; i + 1 < workers && !failed; i++) {
    threads[i].pool = pool;
    threads[i].worker = i + 1;
    failed = pthread_create(&threads[i].handle, NULL, thread_main, &threads[i]);
    if (!failed) pool->started++;
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (failed) {
    int started = pool->started;
    micah_pool_destroy(pool);
    return mica_error(MICA_ERR_DEVICE, "thread pool: thread %d of %d cannot be started: %s; ask for fewer threads",
                      started + 2, (int)workers, strerror(failed));
  }
  *out = pool;
  return MICA_OK;
}

void micah_pool_destroy(micah_pool *pool) {
  if (!pool) return;
  pthread_mutex_lock(&pool->lock);
  atomic_store(&pool->stop, 1);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->threads[i].handle, NULL);
  pthread_cond_destroy(&pool->done);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->lock);
  mica_allocator allocator = pool->allocator;
  allocator.free(allocator.user, pool->threads, (size_t)pool->workers * sizeof *pool->threads);
  allocator.free(allocator.user, pool, sizeof *pool);
}
