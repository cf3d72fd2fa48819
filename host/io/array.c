#include "host/io/array.h"

#include <stdlib.h>
#include <string.h>

void micah_array_free(micah_array *array) {
  free(array->data);
  memset(array, 0, sizeof *array);
}

int64_t micah_shape_count(const int64_t *shape, int32_t rank, size_t element) {
  int64_t count = 1, bytes = element ? (int64_t)element : 1;
  int zero = 0;
  for (int32_t i = 0; i < rank; i++) {
    if (shape[i] < 0) return -1;
    if (shape[i] == 0) zero = 1;
    else if (bytes > INT64_MAX / shape[i]) return -1;
    else {
      bytes *= shape[i];
      count *= shape[i];
    }
  }
  return zero ? 0 : count;
}

double micah_array_get(const micah_array *array, int64_t i) {
  switch (array->dtype) {
  case MICA_F32:
    return ((const float *)array->data)[i];
  case MICA_F64:
    return ((const double *)array->data)[i];
  case MICA_I32:
    return ((const int32_t *)array->data)[i];
  case MICA_I64:
    return (double)((const int64_t *)array->data)[i];
  case MICA_U8:
    return ((const uint8_t *)array->data)[i];
  default:
    break;
  }
  /* bf16 is the upper half of a float */
  uint32_t bits = (uint32_t)((const uint16_t *)array->data)[i] << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
