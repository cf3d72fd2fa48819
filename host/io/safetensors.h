/* safetensors.h: named tensors in one file, in the published format: 8 bytes little-endian header length, JSON, data.
 * files carry a content hash in their metadata ("mica.hash", "xxh3-128:" + 32 hex digits) over every tensor (name,
 * dtype, shape, bytes; by name) and every other metadata entry (by key); readers check it where it is present. */
#ifndef MICAH_IO_SAFETENSORS_H
#define MICAH_IO_SAFETENSORS_H

#include "host/io/array.h"

typedef struct micah_tensor {
  const char *name;
  int32_t     dtype;             /* F32 F64 I32 I64 U8 BF16 */
  int32_t     rank;
  int64_t     shape[MICAH_MAX_DIMS];
  const void *data;              /* dense, row-major; aligned to its element when read */
} micah_tensor;

typedef struct micah_meta {
  const char *key, *value;
} micah_meta;

/* write atomically. names and keys must be unique, UTF-8 and not empty; "__metadata__" and "mica.hash" are taken. */
mica_status micah_safetensors_write(const char *path, const micah_tensor *tensors, int64_t n_tensors,
                                    const micah_meta *meta, int64_t n_meta);

typedef struct micah_safetensors micah_safetensors;

/* read and check a whole file. errors name the file and the tensor. */
mica_status micah_safetensors_open(const char *path, micah_safetensors **out);
/* the same from memory; `name` stands for the file in messages. bytes are only read during the call. */
mica_status micah_safetensors_parse(const char *name, const void *bytes, int64_t size, micah_safetensors **out);
void        micah_safetensors_close(micah_safetensors *file);

int64_t             micah_safetensors_count(const micah_safetensors *file);
/* i-th tensor by offset in the file; borrowed */
const micah_tensor *micah_safetensors_get(const micah_safetensors *file, int64_t i);
/* by name; NULL when there is none */
const micah_tensor *micah_safetensors_find(const micah_safetensors *file, const char *name);
/* by name, of this dtype (-1: any) and shape (rank -1: any); errors name file, tensor, nearest name, expected, got */
mica_status micah_safetensors_need(const micah_safetensors *file, const char *name, int32_t dtype, int32_t rank,
                                   const int64_t *shape, const micah_tensor **out);
/* metadata value, borrowed; NULL when there is none. "mica.hash" included. */
const char       *micah_safetensors_meta(const micah_safetensors *file, const char *key);
int64_t           micah_safetensors_meta_count(const micah_safetensors *file);
const micah_meta *micah_safetensors_meta_get(const micah_safetensors *file, int64_t i);
const char       *micah_safetensors_path(const micah_safetensors *file);

/* elements of a tensor */
int64_t micah_tensor_count(const micah_tensor *tensor);

#endif
