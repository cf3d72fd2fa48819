#include "host/engine/producer.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "host/device/context.h"

enum { FEEDS = 2 };

struct micah_producer {
  const micah_tasks *tasks;
  int64_t         count, last;
  int64_t         made, taken, released; /* steps; feed of step s is s % FEEDS */
  micah_feed      feed[FEEDS];
  pthread_t       thread;
  pthread_mutex_t mutex;
  pthread_cond_t  changed;
  int             started, stop;
  mica_status     status;
  char            message[1024];         /* of a failure; messages are kept per thread */
};

static void *produce(void *arg) {
  micah_producer *p = arg;
  pthread_mutex_lock(&p->mutex);
  while (!p->stop && p->made < p->last) {
    if (p->made - p->released >= FEEDS) {
      pthread_cond_wait(&p->changed, &p->mutex);
      continue;
    }
    int64_t step = p->made;
    pthread_mutex_unlock(&p->mutex);
    mica_status status = micah_feed_fill(&p->feed[step % FEEDS], step * p->count, p->count);
    pthread_mutex_lock(&p->mutex);
    if (status < 0) {
      p->status = status;
      snprintf(p->message, sizeof p->message, "%s", mica_last_error());
      pthread_cond_broadcast(&p->changed);
      break;
    }
    p->made++;
    pthread_cond_broadcast(&p->changed);
  }
  pthread_mutex_unlock(&p->mutex);
  return NULL;
}

mica_status micah_producer_create(const micah_tasks *tasks, int64_t count, int64_t first, int64_t last,
                                  micah_producer **out) {
  *out = NULL;
  micah_producer *p = micah_alloc(tasks->context, sizeof *p, "the producer of tasks");
  if (!p) return MICA_ERR_MEMORY;
  memset(p, 0, sizeof *p);
  p->tasks = tasks, p->count = count, p->last = last;
  p->made = p->taken = p->released = first;
  pthread_mutex_init(&p->mutex, NULL);
  pthread_cond_init(&p->changed, NULL);
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < FEEDS; i++) status = micah_feed_create(tasks, count, &p->feed[i]);
  if (status >= 0) {
    int failed = pthread_create(&p->thread, NULL, produce, p);
    if (failed) status = mica_error(MICA_ERR_DEVICE, "cannot start the thread that makes tasks: %s", strerror(failed));
    else p->started = 1;
  }
  if (status < 0) {
    micah_producer_destroy(p);
    return status;
  }
  *out = p;
  return MICA_OK;
}

void micah_producer_destroy(micah_producer *p) {
  if (!p) return;
  if (p->started) {
    pthread_mutex_lock(&p->mutex);
    p->stop = 1;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
  }
  for (int i = 0; i < FEEDS; i++) micah_feed_destroy(&p->feed[i]);
  pthread_cond_destroy(&p->changed);
  pthread_mutex_destroy(&p->mutex);
  micah_free(p->tasks->context, p, sizeof *p);
}

mica_status micah_producer_next(micah_producer *p, const micah_feed **feed) {
  pthread_mutex_lock(&p->mutex);
  p->released = p->taken;
  pthread_cond_broadcast(&p->changed);
  while (p->made == p->taken && p->status >= 0 && p->taken < p->last) pthread_cond_wait(&p->changed, &p->mutex);
  mica_status status = MICA_OK;
  if (p->made > p->taken) *feed = &p->feed[p->taken++ % FEEDS];
  else if (p->status < 0) status = mica_error(p->status, "%s", p->message);
  else status = mica_error(MICA_ERR_STATE, "all %lld steps are done", (long long)p->last);
  pthread_mutex_unlock(&p->mutex);
  return status;
}
