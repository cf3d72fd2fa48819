/* any bytes are an array or a clear error, as .npy and, from the same bytes, as IDX. */
#include "fuzz.h"
#include "host/io/idx.h"
#include "host/io/npy.h"

/* read every element; the sum keeps the compiler from leaving that out */
static volatile double sum;

static void touch(micah_array *array) {
  for (int64_t i = 0; i < array->count; i++) sum = sum + micah_array_get(array, i);
  micah_array_free(array);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  micah_array array;
  mica_status status = micah_npy_parse("f.npy", data, (int64_t)size, &array);
  fuzz_check(status, "f.npy");
  if (status == MICA_OK) touch(&array);
  status = micah_idx_parse("f.idx", data, (int64_t)size, &array);
  fuzz_check(status, "f.idx");
  if (status == MICA_OK) touch(&array);
  return 0;
}
