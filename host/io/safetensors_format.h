/* what the reader and the writer of safetensors share; private to them. */
#ifndef MICAH_IO_SAFETENSORS_FORMAT_H
#define MICAH_IO_SAFETENSORS_FORMAT_H

#include "host/io/safetensors.h"

enum { MICAH_SAFETENSORS_HEADER = 100000000 };   /* longest header, as in the published format */
#define MICAH_HASH_KEY "mica.hash"
#define MICAH_HASH_PREFIX "xxh3-128:"
enum { MICAH_HASH_VALUE = 64 };

/* name in files ("F32") of a dtype; NULL where files have none */
const char *micah_safetensors_dtype(int32_t dtype);

/* the content hash; tensors and metadata in any order, "mica.hash" itself left out. */
mica_status micah_safetensors_hash(const micah_tensor *tensors, int64_t n_tensors, const micah_meta *meta,
                                   int64_t n_meta, char value[MICAH_HASH_VALUE]);

#endif
