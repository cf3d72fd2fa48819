/* status.h: what every call of mica returns.
 * zero or positive is success, negative is failure; the text of the last failure is kept per thread. */
#ifndef MICA_STATUS_H
#define MICA_STATUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(MICA_STATIC) || !defined(__GNUC__)
#define MICA_API
#else
#define MICA_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* code, value, what it means to the caller */
#define MICA_STATUS_MAP(X)                                                      \
  X(OK, 0, "success")                                                           \
  X(ERR_INVALID, -1, "an argument is wrong")                                    \
  X(ERR_UNSUPPORTED, -2, "no such face, backend, dtype or feature")             \
  X(ERR_MEMORY, -3, "out of memory")                                            \
  X(ERR_IO, -4, "a file could not be read or written")                          \
  X(ERR_FORMAT, -5, "a file's content is malformed")                            \
  X(ERR_CONFIG, -6, "a configuration is wrong")                                 \
  X(ERR_NOT_FOUND, -7, "no such name")                                          \
  X(ERR_SHAPE, -8, "shapes do not fit")                                         \
  X(ERR_NUMERIC, -9, "a value is not finite or a solve failed")                 \
  X(ERR_DEVICE, -10, "a device call failed")                                    \
  X(ERR_INTERRUPTED, -11, "stopped on request")                                 \
  X(ERR_STATE, -12, "call not allowed now")                                     \
  X(ERR_INTERNAL, -13, "a bug in mica")

typedef int32_t mica_status;

enum {
#define MICA_STATUS_ENUM(name, value, text) MICA_##name = value,
  MICA_STATUS_MAP(MICA_STATUS_ENUM)
#undef MICA_STATUS_ENUM
};

/* name of a code, "MICA_ERR_IO"; "unknown" for others. never NULL. */
MICA_API const char *mica_status_name(mica_status status);

/* message of the last failure on this thread, borrowed until the next failure here; "" before the first. */
MICA_API const char *mica_last_error(void);

/* for extensions: set this thread's message (printf format) and return `status`. */
MICA_API mica_status mica_error(mica_status status, const char *format, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 2, 3)))
#endif
    ;

#ifdef __cplusplus
}
#endif
#endif
