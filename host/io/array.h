/* array.h: a dense row-major array read from or written to a file. */
#ifndef MICAH_IO_ARRAY_H
#define MICAH_IO_ARRAY_H

#include "mica/op.h"

enum { MICAH_MAX_DIMS = 8 };

typedef struct micah_array {
  int32_t dtype;                 /* MICA_F32 ... */
  int32_t rank;
  int64_t shape[MICAH_MAX_DIMS];
  int64_t count;                 /* elements */
  void   *data;                  /* malloc'd by readers; borrowed by writers */
} micah_array;

void micah_array_free(micah_array *array);

/* product of a shape; -1 when a size is negative or the bytes of `count x element` overflow int64. */
int64_t micah_shape_count(const int64_t *shape, int32_t rank, size_t element);

/* element i as a double (int64 beyond 2^53 are rounded) */
double micah_array_get(const micah_array *array, int64_t i);

#endif
