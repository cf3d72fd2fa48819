/* region.h: memory that is freed all at once; programs and executors keep everything that they own in one. */
#ifndef MICAH_PROGRAM_REGION_H
#define MICAH_PROGRAM_REGION_H

#include "mica/context.h"

typedef struct micah_region {
  const mica_allocator *allocator;
  struct micah_block   *first;
  int64_t               bytes;   /* taken from the allocator in all */
} micah_region;

/* count x size bytes, zeroed, 64-byte aligned; never NULL on success. NULL: out of memory, the message is set. */
void *micah_region_alloc(micah_region *region, int64_t count, size_t size);

/* the same without clearing, for arenas */
void *micah_region_raw(micah_region *region, int64_t bytes);

/* a copy of text */
char *micah_region_text(micah_region *region, const char *text);

/* make room for one more element: returns the array, moved when it had to grow. the old copy stays until the end. */
void *micah_region_grow(micah_region *region, void *array, int32_t count, int32_t *capacity, size_t size);

void micah_region_free(micah_region *region);

#endif
