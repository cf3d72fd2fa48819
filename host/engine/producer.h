/* producer.h: tasks of the next step are made on another thread while the present one computes. the same bits as
 * without: a feed depends on its task numbers alone. */
#ifndef MICAH_ENGINE_PRODUCER_H
#define MICAH_ENGINE_PRODUCER_H

#include "host/engine/tasks.h"

typedef struct micah_producer micah_producer;

/* makes feeds of `count` tasks for steps [first, last) in order; step s has tasks [s count, (s + 1) count). */
mica_status micah_producer_create(const micah_tasks *tasks, int64_t count, int64_t first, int64_t last,
                                  micah_producer **out);
void        micah_producer_destroy(micah_producer *producer);
/* feed of the next step; valid until the next call, which hands its memory back. waits while it is being made. a
 * failure of the family is returned here, with its message. */
mica_status micah_producer_next(micah_producer *producer, const micah_feed **feed);

#endif
