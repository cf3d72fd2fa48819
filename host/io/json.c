#include "host/io/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/io/file.h"

/* ---- out ---- */

static void json_text(micah_text *out, const char *string) {
  size_t size = strlen(string), from = 0;
  micah_text_add(out, "\"");
  for (size_t i = 0; i < size;) {
    unsigned char c = (unsigned char)string[i];
    size_t n = micah_utf8_length(string + i, size - i);
    if (n && c >= 32 && c != '"' && c != '\\' && c != 127) {
      i += n;
      continue;
    }
    micah_text_put(out, string + from, i - from);
    if (c == '"' || c == '\\') micah_text_format(out, "\\%c", c);
    else if (c == '\n') micah_text_add(out, "\\n");
    else if (c == '\t') micah_text_add(out, "\\t");
    else if (c < 32 || c == 127) micah_text_format(out, "\\u%04x", c);
    else micah_text_add(out, "\xEF\xBF\xBD");
    from = ++i;
  }
  micah_text_put(out, string + from, size - from);
  micah_text_add(out, "\"");
}

/* comma and key before a value; 0 when a value is not allowed here */
static int before(micah_json *json, const char *key) {
  int depth = json->depth;
  if (depth > 0) {
    int in_object = json->close[depth - 1] == '}';
    if (in_object != (key != NULL)) json->misused = 1;
    if (json->some[depth - 1]) micah_text_add(&json->text, ", ");
    json->some[depth - 1] = 1;
  } else if (key || json->text.size) {
    json->misused = 1;
  }
  if (json->misused) return 0;
  if (key) {
    json_text(&json->text, key);
    micah_text_add(&json->text, ": ");
  }
  return 1;
}

static void open_scope(micah_json *json, const char *key, const char *open, char close) {
  if (!before(json, key)) return;
  if (json->depth == MICAH_JSON_DEPTH) {
    json->misused = 1;
    return;
  }
  micah_text_add(&json->text, open);
  json->close[json->depth] = close;
  json->some[json->depth++] = 0;
}

void micah_json_object(micah_json *json, const char *key) { open_scope(json, key, "{", '}'); }
void micah_json_array(micah_json *json, const char *key) { open_scope(json, key, "[", ']'); }

void micah_json_end(micah_json *json) {
  if (json->misused || json->depth == 0) {
    json->misused = 1;
    return;
  }
  micah_text_put(&json->text, &json->close[--json->depth], 1);
}

void micah_json_string(micah_json *json, const char *key, const char *value) {
  if (!before(json, key)) return;
  if (value) json_text(&json->text, value);
  else micah_text_add(&json->text, "null");
}

static void number(micah_json *json, const char *key, double value, int digits) {
  if (!before(json, key)) return;
  if (isfinite(value)) micah_text_number(&json->text, value, digits);
  else micah_text_add(&json->text, "null");
}

void micah_json_real(micah_json *json, const char *key, double value) { number(json, key, value, 9); }
void micah_json_exact(micah_json *json, const char *key, double value) { number(json, key, value, 17); }

void micah_json_int(micah_json *json, const char *key, int64_t value) {
  if (before(json, key)) micah_text_format(&json->text, "%lld", (long long)value);
}

void micah_json_bool(micah_json *json, const char *key, int value) {
  if (before(json, key)) micah_text_add(&json->text, value ? "true" : "false");
}

void micah_json_reals(micah_json *json, const char *key, const double *values, int64_t count) {
  micah_json_array(json, key);
  for (int64_t i = 0; i < count; i++) micah_json_real(json, NULL, values[i]);
  micah_json_end(json);
}

mica_status micah_json_finish(micah_json *json, const char **text) {
  *text = "";
  if (json->misused || json->depth || !json->text.size)
    return mica_error(MICA_ERR_INTERNAL, "json writer: %s",
                      json->misused ? "a key or value where none may be"
                      : json->depth ? "an object or array is still open"
                                    : "nothing was written");
  mica_status status = micah_text_check(&json->text, "json writer");
  if (status == MICA_OK) *text = json->text.data;
  return status;
}

void micah_json_reset(micah_json *json) {
  json->depth = json->misused = 0;
  json->text.size = 0;
  json->text.failed = 0;
}

void micah_json_free(micah_json *json) {
  micah_text_free(&json->text);
  memset(json, 0, sizeof *json);
}

/* ---- in ---- */

enum { DEEPEST = 64 };

/* first fault that cJSON would let pass or recurse into: depth, control bytes in strings, invalid UTF-8 */
static const char *scan(const char *text, size_t size, size_t *at) {
  int depth = 0, inside = 0;
  size_t start = 0;
  for (size_t i = 0; i < size;) {
    unsigned char c = (unsigned char)text[i];
    size_t n = micah_utf8_length(text + i, size - i);
    *at = i;
    if (!n) return "not UTF-8";
    if (inside) {
      if (c < 32) return "control byte in a string";
      if (c == '\\' && i + 1 < size) {
        if (!strncmp(text + i, "\\u0000", size - i < 6 ? size - i : 6)) return "zero character in a string";
        i += 2;
        continue;
      }
      if (c == '"') inside = 0;
    } else if (c == '"') {
      inside = 1;
      start = i;
    } else if (c == '{' || c == '[') {
      if (++depth > DEEPEST) return "nested too deep";
    } else if (c == '}' || c == ']') {
      depth--;
    } else if (c < 32 && c != '\n' && c != '\r' && c != '\t') {
      return "control byte";
    }
    i += n;
  }
  *at = start;
  return inside ? "text without its closing quote" : NULL;
}

static mica_status json_error(const char *name, int64_t line0, const char *text, size_t at, const char *problem) {
  int64_t line = line0;
  size_t start = 0;
  for (size_t i = 0; i < at; i++) {
    if (text[i] == '\n') {
      line++;
      start = i + 1;
    }
  }
  return mica_error(MICA_ERR_FORMAT, "%s:%lld:%zu: %s", name, (long long)line, at - start + 1, problem);
}

mica_status micah_json_parse(const char *name, int64_t line0, const char *text, size_t size, cJSON **out) {
  size_t at = 0;
  const char *problem = scan(text, size, &at);
  *out = NULL;
  if (problem) return json_error(name, line0, text, at, problem);
  /* cJSON reads up to a NUL */
  char *copy = micah_copy(text, size);
  if (!copy) return mica_error(MICA_ERR_MEMORY, "%s: out of memory", name);
  const char *end = copy;
  cJSON *tree = cJSON_ParseWithLengthOpts(copy, size + 1, &end, 1);
  mica_status status = MICA_OK;
  if (!tree) {
    at = end ? (size_t)(end - copy) : 0;
    if (at > size) at = size;
    status = json_error(name, line0, text, at, at >= size ? "JSON ends too early" : "not valid JSON here");
  }
  free(copy);
  *out = tree;
  return status;
}

mica_status micah_json_read(const char *path, int64_t limit, cJSON **out) {
  char *text;
  int64_t size;
  mica_status status = micah_file_read(path, limit, &text, &size);
  *out = NULL;
  if (status < 0) return status;
  status = micah_json_parse(path, 1, text, (size_t)size, out);
  free(text);
  return status;
}
