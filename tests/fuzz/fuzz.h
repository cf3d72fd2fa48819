/* what every fuzzer checks of a reader that fails: a code, and a message that names the file. */
#ifndef MICA_TESTS_FUZZ_H
#define MICA_TESTS_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mica/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void fuzz_check(mica_status status, const char *name) {
  if (status < 0 && status != MICA_ERR_MEMORY && strncmp(mica_last_error(), name, strlen(name))) abort();
}

#endif
