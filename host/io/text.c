#include "host/io/text.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* room for `more` bytes and the NUL */
static int grow(micah_text *text, size_t more) {
  if (text->failed) return 0;
  if (more > SIZE_MAX / 4 || text->size > SIZE_MAX / 4) {
    text->failed = 1;
    return 0;
  }
  size_t need = text->size + more + 1;
  if (need <= text->capacity) return 1;
  size_t capacity = text->capacity ? text->capacity : 256;
  while (capacity < need) capacity *= 2;
  char *data = realloc(text->data, capacity);
  if (!data) {
    text->failed = 1;
    return 0;
  }
  text->data = data;
  text->capacity = capacity;
  return 1;
}

void micah_text_put(micah_text *text, const char *bytes, size_t size) {
  if (!grow(text, size)) return;
  if (size) memcpy(text->data + text->size, bytes, size);
  text->size += size;
  text->data[text->size] = 0;
}

void micah_text_add(micah_text *text, const char *string) { micah_text_put(text, string, strlen(string)); }

void micah_text_format(micah_text *text, const char *format, ...) {
  va_list list, again;
  va_start(list, format);
  va_copy(again, list);
  int size = vsnprintf(NULL, 0, format, list);
  va_end(list);
  if (size < 0) {
    text->failed = 1;
  } else if (grow(text, (size_t)size)) {
    vsnprintf(text->data + text->size, (size_t)size + 1, format, again);
    text->size += (size_t)size;
  }
  va_end(again);
}

void micah_text_number(micah_text *text, double value, int digits) {
  char number[64];
  if (isnan(value)) {
    micah_text_add(text, "nan");
    return;
  }
  if (isinf(value)) {
    micah_text_add(text, value > 0 ? "inf" : "-inf");
    return;
  }
  snprintf(number, sizeof number, "%.*g", digits, value);
  char point = localeconv()->decimal_point[0];
  if (point != '.') {
    char *p = strchr(number, point);
    if (p) *p = '.';
  }
  micah_text_add(text, number);
}

size_t micah_utf8_length(const char *s, size_t size) {
  const unsigned char *u = (const unsigned char *)s;
  if (!size) return 0;
  if (u[0] < 0x80) return 1;
  size_t length = u[0] >= 0xF0 ? 4 : u[0] >= 0xE0 ? 3 : 2;
  unsigned lead = u[0] & (length == 4 ? 7u : length == 3 ? 15u : 31u);
  if (u[0] < 0xC2 || u[0] > 0xF4 || size < length) return 0;
  unsigned code = lead;
  for (size_t i = 1; i < length; i++) {
    if ((u[i] & 0xC0) != 0x80) return 0;
    code = code << 6 | (u[i] & 0x3Fu);
  }
  /* overlong forms, surrogates, beyond the last plane */
  if ((length == 3 && code < 0x800) || (length == 4 && (code < 0x10000 || code > 0x10FFFF))) return 0;
  if (code >= 0xD800 && code <= 0xDFFF) return 0;
  return length;
}

void micah_text_escape(micah_text *text, const char *string) {
  size_t size = strlen(string);
  for (size_t i = 0; i < size;) {
    char c = string[i];
    size_t n = micah_utf8_length(string + i, size - i);
    if (c == '&') micah_text_add(text, "&amp;");
    else if (c == '<') micah_text_add(text, "&lt;");
    else if (c == '>') micah_text_add(text, "&gt;");
    else if (c == '"') micah_text_add(text, "&quot;");
    else if (c == '\'') micah_text_add(text, "&#39;");
    else if (!n || ((unsigned char)c < 32 && c != '\n' && c != '\t')) micah_text_add(text, "\xEF\xBF\xBD");
    else micah_text_put(text, string + i, n);
    i += n ? n : 1;
  }
}

mica_status micah_text_check(const micah_text *text, const char *what) {
  if (text->failed) return mica_error(MICA_ERR_MEMORY, "%s: out of memory after %zu bytes of text", what, text->size);
  return MICA_OK;
}

void micah_text_free(micah_text *text) {
  free(text->data);
  memset(text, 0, sizeof *text);
}

/* [+-]digits[.digits][e[+-]digits] with at least one digit before the exponent */
static int number_shape(const char *s, size_t n, int *whole) {
  size_t i = 0, digits = 0;
  *whole = 1;
  if (i < n && (s[i] == '+' || s[i] == '-')) i++;
  while (i < n && s[i] >= '0' && s[i] <= '9') i++, digits++;
  if (i < n && s[i] == '.') {
    *whole = 0;
    i++;
    while (i < n && s[i] >= '0' && s[i] <= '9') i++, digits++;
  }
  if (!digits) return 0;
  if (i < n && (s[i] == 'e' || s[i] == 'E')) {
    *whole = 0;
    i++;
    if (i < n && (s[i] == '+' || s[i] == '-')) i++;
    size_t first = i;
    while (i < n && s[i] >= '0' && s[i] <= '9') i++;
    if (i == first) return 0;
  }
  return i == n;
}

int micah_parse_real(const char *text, size_t size, double *out) {
  char buffer[128];
  int whole;
  if (size >= sizeof buffer || !number_shape(text, size, &whole)) return 0;
  memcpy(buffer, text, size);
  buffer[size] = 0;
  /* strtod wants the locale's point */
  char point = localeconv()->decimal_point[0];
  if (point != '.') {
    char *p = strchr(buffer, '.');
    if (p) *p = point;
  }
  *out = strtod(buffer, NULL);
  return 1;
}

int micah_parse_int(const char *text, size_t size, int64_t *out) {
  int whole;
  if (size >= 128 || !number_shape(text, size, &whole)) return 0;
  if (!whole) {
    double value;
    if (!micah_parse_real(text, size, &value)) return 0;
    if (!(fabs(value) <= 9007199254740992.0) || value != floor(value)) return 0;
    *out = (int64_t)value;
    return 1;
  }
  size_t i = text[0] == '-' || text[0] == '+';
  int negative = text[0] == '-';
  uint64_t value = 0, limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
  for (; i < size; i++) {
    uint64_t digit = (uint64_t)(text[i] - '0');
    if (value > (limit - digit) / 10) return 0;
    value = value * 10 + digit;
  }
  *out = negative ? (value ? -(int64_t)(value - 1) - 1 : 0) : (int64_t)value;
  return 1;
}

const char *micah_quote(const char *text, size_t length, char *out, size_t size) {
  size_t at = 0;
  if (size < 8) {
    if (size) out[0] = 0;
    return out;
  }
  for (size_t i = 0; i < length;) {
    size_t n = micah_utf8_length(text + i, length - i);
    int odd = !n || (unsigned char)text[i] < 32 || text[i] == 127;
    if (!n) n = 1;
    if (at + n + 4 > size - 1 && i + n < length) {
      memcpy(out + at, "...", 3);
      at += 3;
      break;
    }
    if (at + n > size - 1) break;
    if (odd) out[at++] = '?';
    else {
      memcpy(out + at, text + i, n);
      at += n;
    }
    i += n;
  }
  out[at] = 0;
  return out;
}

char *micah_copy(const char *text, size_t size) {
  if (size == SIZE_MAX) return NULL;
  char *copy = malloc(size + 1);
  if (!copy) return NULL;
  if (size) memcpy(copy, text, size);
  copy[size] = 0;
  return copy;
}
