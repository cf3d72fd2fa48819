/* memory.h (internal): an executor's data on its device */
#ifndef MICAH_PROGRAM_MEMORY_H
#define MICAH_PROGRAM_MEMORY_H

#include "device/device.h"
#include "program/executor.h"

/* memory for wires, freed with the executor; never NULL on success. NULL: the message is set */
void *micah_data_alloc(mica_executor *x, int64_t bytes);
void  micah_data_free(mica_executor *x);
/* from host memory, or to it, done when it returns */
mica_status micah_data_put(mica_executor *x, void *to, const void *from, int64_t bytes);

/* rows of `bytes` each, copied or (from NULL) cleared in the order of the calls; those at equal distances go as one */
enum { MICAH_MOST_PITCH = 0x7fffffff };
typedef struct micah_upload micah_upload;
typedef struct micah_graphs micah_graphs;
typedef struct micah_mover {
  mica_executor *x;
  size_t         bytes;
  char          *to;
  const char    *from;
  size_t         to_pitch, from_pitch, rows;
  mica_status    status;
} micah_mover;
void        micah_move(micah_mover *mover, void *to, const void *from);
mica_status micah_move_end(micah_mover *mover);

/* slots and offsets are host memory to who binds them, and device data to kernels: lists are gathered while arguments
 * are bound, and sent in one piece. nothing on the CPU. begin forgets the lists; list gives the place on the device of
 * `count` numbers, which are read at end. `captured`: the stream is being captured, so they are sent around it. */
mica_status    micah_upload_create(mica_executor *x);
void           micah_upload_destroy(mica_executor *x);
void           micah_upload_begin(mica_executor *x);
const int32_t *micah_upload_list(mica_executor *x, const int32_t *host, int64_t count, mica_status *status);
mica_status    micah_upload_end(mica_executor *x, int captured);

/* graph.c: passes that were run before with the same arguments are replayed. *done: this one was. */
mica_status micah_graph_run(mica_executor *x, int32_t faces, mica_status (*run)(mica_executor *x, int32_t faces),
                            int *done);
mica_status micah_graphs_create(mica_executor *x);
void        micah_graphs_destroy(mica_executor *x);
/* the smallest of 1 2 3 4 6 8 12 16 24 ... that holds a length, at most the capacity */
int64_t     micah_length_class(int64_t length, int64_t capacity);

#endif
