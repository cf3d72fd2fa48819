#include "mica/status.h"

#include <stdarg.h>
#include <stdio.h>

/* one message per thread: the only state outside a context */
static _Thread_local char last_error[1024];

const char *mica_status_name(mica_status status) {
  static const struct { mica_status value; const char *name; } names[] = {
#define ROW(name, value, text) { value, "MICA_" #name },
    MICA_STATUS_MAP(ROW)
#undef ROW
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].value == status) return names[i].name;
  return "unknown";
}

const char *mica_last_error(void) { return last_error; }

mica_status mica_error(mica_status status, const char *format, ...) {
  /* the arguments may point into the old message */
  char text[sizeof last_error];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  snprintf(last_error, sizeof last_error, "%s", text);
  return status;
}
