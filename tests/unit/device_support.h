/* device_support.h: for tests that run on whichever CUDA the build has */
#ifndef MICA_TESTS_DEVICE_SUPPORT_H
#define MICA_TESTS_DEVICE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/op.h"
#include "device/device.h"

#define assert_status(call, expected)                                                             \
  do {                                                                                            \
    mica_status status_ = (call);                                                                 \
    if (status_ != (expected))                                                                    \
      fail_msg("%s: %s, expected %s: %s", #call, mica_status_name(status_), mica_status_name(expected), \
               status_ < 0 ? mica_last_error() : "");                                             \
  } while (0)
#define assert_ok(call) assert_status(call, MICA_OK)

/* skip unless the build and the machine have so many CUDA devices */
static inline void need_cuda(int32_t devices) {
  int32_t n = 0;
  if (micah_cuda_ops.count(&n) >= 0 && n >= devices) return;
  if (n) print_message("skipped: %d CUDA devices here, %d needed\n", n, devices);
  else print_message("skipped: %s\n", mica_last_error());
  skip();
}

#endif
