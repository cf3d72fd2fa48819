/* jsonl.h: files of one JSON object a line. */
#ifndef MICAH_IO_JSONL_H
#define MICAH_IO_JSONL_H

#include <cjson/cJSON.h>

#include "mica/status.h"

/* zero-initialise; name and text are borrowed by parse, owned after open. */
typedef struct micah_jsonl {
  const char *name, *text;
  int64_t     size, at;
  int64_t     line;              /* of the record last returned, from 1 */
  int64_t     next_line;
  cJSON      *record;            /* last returned, an object; owned */
  char       *owned_name, *owned_text;
} micah_jsonl;

mica_status micah_jsonl_open(const char *path, micah_jsonl *reader);
mica_status micah_jsonl_parse(const char *name, const char *text, int64_t size, micah_jsonl *reader);
/* *record is NULL at the end; borrowed until the next call. empty lines are skipped. errors are
 * "file:line:column: ...". */
mica_status micah_jsonl_next(micah_jsonl *reader, const cJSON **record);
/* field of the present record; errors name file, line and key. */
mica_status micah_jsonl_string(const micah_jsonl *reader, const char *key, const char **out);
mica_status micah_jsonl_real(const micah_jsonl *reader, const char *key, double *out);
void        micah_jsonl_close(micah_jsonl *reader);

#endif
