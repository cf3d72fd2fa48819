#include "program/region.h"

#include <string.h>

struct micah_block {
  struct micah_block *next;
  size_t              bytes;
};
enum { HEADER = 64 };

void *micah_region_raw(micah_region *region, int64_t bytes) {
  if (bytes < 0 || (uint64_t)bytes > SIZE_MAX / 2) {
    mica_error(MICA_ERR_MEMORY, "out of memory: a size of %lld bytes is out of range", (long long)bytes);
    return NULL;
  }
  size_t whole = (size_t)bytes + HEADER;
  struct micah_block *block = region->allocator->alloc(region->allocator->user, whole, HEADER);
  if (!block) {
    mica_error(MICA_ERR_MEMORY, "out of memory: %lld bytes were asked for; use fewer tasks or rows a launch",
               (long long)bytes);
    return NULL;
  }
  block->next = region->first;
  block->bytes = whole;
  region->first = block;
  region->bytes += (int64_t)whole;
  return (char *)block + HEADER;
}

void *micah_region_alloc(micah_region *region, int64_t count, size_t size) {
  if (count < 0 || (size && (uint64_t)count > SIZE_MAX / 2 / size)) {
    mica_error(MICA_ERR_MEMORY, "out of memory: %lld elements of %zu bytes are out of range", (long long)count, size);
    return NULL;
  }
  void *at = micah_region_raw(region, (int64_t)((size_t)count * size));
  if (at) memset(at, 0, (size_t)count * size);
  return at;
}

char *micah_region_text(micah_region *region, const char *text) {
  size_t n = strlen(text) + 1;
  char *copy = micah_region_raw(region, (int64_t)n);
  if (copy) memcpy(copy, text, n);
  return copy;
}

void *micah_region_grow(micah_region *region, void *array, int32_t count, int32_t *capacity, size_t size) {
  if (count < *capacity) return array;
  int32_t wanted = *capacity ? *capacity * 2 : 16;
  void *bigger = micah_region_alloc(region, wanted, size);
  if (!bigger) return NULL;
  if (count) memcpy(bigger, array, (size_t)count * size);
  *capacity = wanted;
  return bigger;
}

void micah_region_free(micah_region *region) {
  for (struct micah_block *block = region->first; block;) {
    struct micah_block *next = block->next;
    region->allocator->free(region->allocator->user, block, block->bytes);
    block = next;
  }
  region->first = NULL;
  region->bytes = 0;
}
