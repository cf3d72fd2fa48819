/* text.h: a growing string and strict numbers, shared by all readers and writers of host/io.
 * numbers are read and written with a point whatever the locale of the embedding program. */
#ifndef MICAH_IO_TEXT_H
#define MICAH_IO_TEXT_H

#include "mica/status.h"

/* a growing string. zero-initialise; appends after a failed allocation do nothing, `failed` stays set. */
typedef struct micah_text {
  char  *data;                   /* NUL-terminated once anything was appended */
  size_t size, capacity;         /* bytes without the NUL */
  int    failed;
} micah_text;

void micah_text_put(micah_text *text, const char *bytes, size_t size);
void micah_text_add(micah_text *text, const char *string);
void micah_text_format(micah_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* append a number as %.*g with a point; NaN and infinities as nan, inf, -inf */
void micah_text_number(micah_text *text, double value, int digits);
/* append with & < > " ' escaped for XML and HTML; invalid UTF-8 and control bytes become U+FFFD */
void micah_text_escape(micah_text *text, const char *string);
/* MICA_OK or MICA_ERR_MEMORY, naming `what` */
mica_status micah_text_check(const micah_text *text, const char *what);
void micah_text_free(micah_text *text);

/* strict decimal number filling all `size` bytes: [+-]digits[.digits][e[+-]digits]. 0: not a number. out may be
 * infinite where the number is too large for a double. */
int micah_parse_real(const char *text, size_t size, double *out);
/* strict integer; forms such as 1e6 and 64.0 count where they are whole and below 2^53. 0: not an integer in int64. */
int micah_parse_int(const char *text, size_t size, int64_t *out);

/* length of the valid UTF-8 sequence at s (1 to 4), 0 if invalid */
size_t micah_utf8_length(const char *s, size_t size);

/* a copy safe to quote in a message: at most size - 1 bytes, control bytes as ?, cut with ... ; returns out */
const char *micah_quote(const char *text, size_t length, char *out, size_t size);

/* malloc'd copy; NULL when out of memory */
char *micah_copy(const char *text, size_t size);

#endif
