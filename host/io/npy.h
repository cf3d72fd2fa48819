/* npy.h: NumPy arrays (.npy format 1.0 to 3.0), C order, little-endian. */
#ifndef MICAH_IO_NPY_H
#define MICAH_IO_NPY_H

#include "host/io/array.h"

/* f4 f8 i4 i8 u1 as they are; i1 i2 u2 widen to I32, b1 gives U8. array->data is malloc'd. errors name the file. */
mica_status micah_npy_read(const char *path, micah_array *array);
mica_status micah_npy_parse(const char *name, const void *bytes, int64_t size, micah_array *array);
/* F32 F64 I32 I64 U8, atomically */
mica_status micah_npy_write(const char *path, const micah_array *array);

#endif
