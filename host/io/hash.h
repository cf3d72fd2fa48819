/* hash.h: content hashes of 128 bits (XXH3). they find damage, not malice. */
#ifndef MICAH_IO_HASH_H
#define MICAH_IO_HASH_H

#include "mica/status.h"

enum { MICAH_HASH_TEXT = 33 };   /* 32 hex digits and NUL */

/* streaming; create returns NULL when out of memory */
typedef struct micah_hash micah_hash;
micah_hash *micah_hash_create(void);
void        micah_hash_put(micah_hash *hash, const void *data, size_t size);
/* length as 8 little-endian bytes, then the bytes: no two sequences of texts run together */
void        micah_hash_put_text(micah_hash *hash, const char *text);
void        micah_hash_put_int(micah_hash *hash, int64_t value);
void        micah_hash_finish(micah_hash *hash, char text[MICAH_HASH_TEXT]);
void        micah_hash_destroy(micah_hash *hash);

/* of one block of memory */
void micah_hash_of(const void *data, size_t size, char text[MICAH_HASH_TEXT]);

#endif
