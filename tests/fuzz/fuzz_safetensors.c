/* any bytes are tensors or a clear error; every byte of what was read can be touched. */
#include "fuzz.h"
#include "host/io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  micah_safetensors *file;
  mica_status status = micah_safetensors_parse("f.st", data, (int64_t)size, &file);
  fuzz_check(status, "f.st");
  if (status < 0) return 0;
  unsigned sum = 0;
  for (int64_t i = 0; i < micah_safetensors_count(file); i++) {
    const micah_tensor *t = micah_safetensors_get(file, i);
    const unsigned char *bytes = t->data;
    size_t n = (size_t)micah_tensor_count(t) * mica_dtype_size(t->dtype);
    if ((uintptr_t)bytes % mica_dtype_size(t->dtype)) abort();
    for (size_t k = 0; k < n; k++) sum += bytes[k];
    if (micah_safetensors_find(file, t->name) != t) abort();
  }
  for (int64_t i = 0; i < micah_safetensors_meta_count(file); i++)
    sum += (unsigned)strlen(micah_safetensors_meta_get(file, i)->value);
  micah_safetensors_close(file);
  return sum == 0xFFFFFFFFu ? -1 : 0;
}
