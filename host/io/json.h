/* json.h: JSON out, one line an object (metrics, --json), and JSON in through cJSON with places in messages. */
#ifndef MICAH_IO_JSON_H
#define MICAH_IO_JSON_H

#include <cjson/cJSON.h>

#include "host/io/text.h"

/* a writer. zero-initialise. key: NULL inside arrays and for the outermost value. numbers are %.9g; NaN and infinities
 * become null. misuse and lack of memory are sticky and reported by finish. */
enum { MICAH_JSON_DEPTH = 16 };
typedef struct micah_json {
  micah_text text;
  int        depth, misused;
  char       close[MICAH_JSON_DEPTH];
  char       some[MICAH_JSON_DEPTH];
} micah_json;

void micah_json_object(micah_json *json, const char *key);
void micah_json_array(micah_json *json, const char *key);
void micah_json_end(micah_json *json);
void micah_json_string(micah_json *json, const char *key, const char *value); /* NULL: null */
void micah_json_real(micah_json *json, const char *key, double value);
void micah_json_exact(micah_json *json, const char *key, double value);       /* %.17g */
void micah_json_int(micah_json *json, const char *key, int64_t value);
void micah_json_bool(micah_json *json, const char *key, int value);
void micah_json_reals(micah_json *json, const char *key, const double *values, int64_t count);
/* *text is borrowed until free or reset, without a newline */
mica_status micah_json_finish(micah_json *json, const char **text);
void        micah_json_reset(micah_json *json); /* empty, keeps the memory */
void        micah_json_free(micah_json *json);

/* parse text (size bytes, no NUL needed) strictly; errors are "name:line:column: ...". line0: number of the first
 * line. */
mica_status micah_json_parse(const char *name, int64_t line0, const char *text, size_t size, cJSON **out);
/* a whole file of at most limit bytes */
mica_status micah_json_read(const char *path, int64_t limit, cJSON **out);

#endif
