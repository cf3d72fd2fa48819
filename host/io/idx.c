#include "host/io/idx.h"

#include <stdlib.h>
#include <string.h>

#include "host/io/file.h"

/* type byte, size, dtype here */
static const struct {
  int code, size, dtype;
} types[] = {
  { 0x08, 1, MICA_U8 },  { 0x09, 1, MICA_I32 }, { 0x0B, 2, MICA_I32 },
  { 0x0C, 4, MICA_I32 }, { 0x0D, 4, MICA_F32 }, { 0x0E, 8, MICA_F64 },
};

static uint64_t big_endian(const unsigned char *b, int n) {
  uint64_t value = 0;
  for (int i = 0; i < n; i++) value = value << 8 | b[i];
  return value;
}

mica_status micah_idx_parse(const char *name, const void *bytes, int64_t size, micah_array *array) {
  const unsigned char *b = bytes;
  memset(array, 0, sizeof *array);
  if (size < 4 || b[0] || b[1])
    return mica_error(MICA_ERR_FORMAT, "%s: not an IDX file (expected two zero bytes first)%s", name,
                      size >= 2 && b[0] == 0x1f && b[1] == 0x8b ? "; it is gzip, unpack it" : "");
  size_t type = 0;
  while (type < sizeof types / sizeof *types && types[type].code != b[2]) type++;
  if (type == sizeof types / sizeof *types)
    return mica_error(MICA_ERR_FORMAT, "%s: IDX type 0x%02x, expected one of 08 09 0b 0c 0d 0e", name, b[2]);
  int rank = b[3];
  if (rank < 1 || rank > MICAH_MAX_DIMS)
    return mica_error(MICA_ERR_FORMAT, "%s: %d axes, expected 1 to %d", name, rank, (int)MICAH_MAX_DIMS);
  int64_t head = 4 + 4 * (int64_t)rank;
  if (size < head) return mica_error(MICA_ERR_FORMAT, "%s: truncated in the sizes", name);
  array->rank = rank;
  for (int i = 0; i < rank; i++) array->shape[i] = (int64_t)big_endian(b + 4 + 4 * i, 4);
  int64_t count = micah_shape_count(array->shape, rank, 8);
  if (count < 0) return mica_error(MICA_ERR_FORMAT, "%s: shape overflows", name);
  if (count * types[type].size != size - head)
    return mica_error(MICA_ERR_FORMAT, "%s: the sizes need %lld bytes of data, the file has %lld%s", name,
                      (long long)(count * types[type].size), (long long)(size - head),
                      count * types[type].size > size - head ? "; it is truncated" : "");
  array->dtype = types[type].dtype;
  array->count = count;
  size_t room = (size_t)count * mica_dtype_size(array->dtype);
  array->data = malloc(room ? room : 1);
  if (!array->data) return mica_error(MICA_ERR_MEMORY, "%s: out of memory for %zu bytes", name, room);
  const unsigned char *from = b + head;
  for (int64_t i = 0; i < count; i++, from += types[type].size) {
    uint64_t bits = big_endian(from, types[type].size);
    uint32_t low = (uint32_t)bits;
    switch (types[type].code) {
    case 0x08:
      ((uint8_t *)array->data)[i] = (uint8_t)bits;
      break;
    case 0x09:
      ((int32_t *)array->data)[i] = (int32_t)bits - (bits >= 128 ? 256 : 0);
      break;
    case 0x0B:
      ((int32_t *)array->data)[i] = (int32_t)bits - (bits >= 32768 ? 65536 : 0);
      break;
    case 0x0E:
      memcpy((double *)array->data + i, &bits, 8);
      break;
    default:
      memcpy((int32_t *)array->data + i, &low, 4);
      break;
    }
  }
  return MICA_OK;
}

mica_status micah_idx_read(const char *path, micah_array *array) {
  char *bytes;
  int64_t size;
  memset(array, 0, sizeof *array);
  mica_status status = micah_file_read(path, INT64_MAX / 4, &bytes, &size);
  if (status < 0) return status;
  status = micah_idx_parse(path, bytes, size, array);
  free(bytes);
  return status;
}
