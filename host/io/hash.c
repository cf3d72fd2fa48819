#include "host/io/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* the state wants 64-byte alignment, which malloc does not give */
struct micah_hash {
  XXH3_state_t state;
};

static void hex(XXH128_hash_t value, char text[MICAH_HASH_TEXT]) {
  snprintf(text, MICAH_HASH_TEXT, "%016llx%016llx", (unsigned long long)value.high64, (unsigned long long)value.low64);
}

micah_hash *micah_hash_create(void) {
  size_t size = (sizeof(micah_hash) + 63) / 64 * 64;
  micah_hash *hash = aligned_alloc(64, size);
  if (!hash) return NULL;
  memset(hash, 0, size);
  XXH3_128bits_reset(&hash->state);
  return hash;
}

void micah_hash_put(micah_hash *hash, const void *data, size_t size) {
  if (size) XXH3_128bits_update(&hash->state, data, size);
}

void micah_hash_put_int(micah_hash *hash, int64_t value) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)value >> (8 * i));
  micah_hash_put(hash, bytes, sizeof bytes);
}

void micah_hash_put_text(micah_hash *hash, const char *text) {
  size_t size = strlen(text);
  micah_hash_put_int(hash, (int64_t)size);
  micah_hash_put(hash, text, size);
}

void micah_hash_finish(micah_hash *hash, char text[MICAH_HASH_TEXT]) { hex(XXH3_128bits_digest(&hash->state), text); }

void micah_hash_destroy(micah_hash *hash) { free(hash); }

void micah_hash_of(const void *data, size_t size, char text[MICAH_HASH_TEXT]) {
  hex(XXH3_128bits(size ? data : "", size), text);
}
