/* idx.h: the IDX files of MNIST and its kin: two zero bytes, type, rank, big-endian sizes, data. */
#ifndef MICAH_IO_IDX_H
#define MICAH_IO_IDX_H

#include "host/io/array.h"

/* u1 as U8; i1 and i2 widen to I32; i4, f4, f8 converted to this machine's byte order. array->data is malloc'd. */
mica_status micah_idx_read(const char *path, micah_array *array);
mica_status micah_idx_parse(const char *name, const void *bytes, int64_t size, micah_array *array);

#endif
