/* keys.h: key tables. a descriptor's table is the one source of config checks, --help, overrides and bindings. */
#ifndef MICA_KEYS_H
#define MICA_KEYS_H

#include "mica/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* type -> C type of the field in the config struct */
enum {
  MICA_KEY_INT,                  /* int64_t */
  MICA_KEY_REAL,                 /* double */
  MICA_KEY_BOOL,                 /* int32_t, yes/no/true/false/on/off */
  MICA_KEY_STRING,               /* const char *, owned by the config */
  MICA_KEY_PATH,                 /* const char *; relative to the config file, or under $MICA_DATA as data:NAME */
  MICA_KEY_CHOICE                /* int64_t index into choices */
};

typedef struct mica_key {
  const char *name;
  int32_t     type;
  size_t      offset;            /* in the config struct */
  const char *value;             /* default as text; NULL: must be given */
  double      lo, hi;            /* allowed range of INT and REAL, inclusive; lo == hi == 0: any */
  const char *choices;           /* "a|b|c" */
  const char *doc;               /* one line, with unit */
} mica_key;

#ifdef __cplusplus
}
#endif
#endif
