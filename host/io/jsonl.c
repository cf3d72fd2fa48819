#include "host/io/jsonl.h"

#include <stdlib.h>
#include <string.h>

#include "common/names.h"
#include "host/io/file.h"
#include "host/io/json.h"

mica_status micah_jsonl_parse(const char *name, const char *text, int64_t size, micah_jsonl *reader) {
  memset(reader, 0, sizeof *reader);
  reader->name = name;
  reader->text = text;
  reader->size = size;
  reader->next_line = 1;
  if (size >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) reader->at = 3;
  return MICA_OK;
}

mica_status micah_jsonl_open(const char *path, micah_jsonl *reader) {
  char *text, *name;
  int64_t size;
  memset(reader, 0, sizeof *reader);
  mica_status status = micah_file_read(path, INT64_MAX / 4, &text, &size);
  if (status < 0) return status;
  name = micah_copy(path, strlen(path));
  if (!name) {
    free(text);
    return mica_error(MICA_ERR_MEMORY, "%s: out of memory", path);
  }
  micah_jsonl_parse(name, text, size, reader);
  reader->owned_name = name;
  reader->owned_text = text;
  return MICA_OK;
}

void micah_jsonl_close(micah_jsonl *reader) {
  cJSON_Delete(reader->record);
  free(reader->owned_name);
  free(reader->owned_text);
  memset(reader, 0, sizeof *reader);
}

mica_status micah_jsonl_next(micah_jsonl *reader, const cJSON **record) {
  *record = NULL;
  cJSON_Delete(reader->record);
  reader->record = NULL;
  while (reader->at < reader->size) {
    const char *line = reader->text + reader->at;
    const char *end = memchr(line, '\n', (size_t)(reader->size - reader->at));
    size_t length = end ? (size_t)(end - line) : (size_t)(reader->size - reader->at);
    reader->at += (int64_t)length + (end != NULL);
    reader->line = reader->next_line++;
    size_t blank = 0;
    while (blank < length && (line[blank] == ' ' || line[blank] == '\t' || line[blank] == '\r')) blank++;
    if (blank == length) continue;
    mica_status status = micah_json_parse(reader->name, reader->line, line, length, &reader->record);
    if (status < 0) return status;
    if (!cJSON_IsObject(reader->record))
      return mica_error(MICA_ERR_FORMAT, "%s:%lld:1: expected a JSON object {...} on each line", reader->name,
                        (long long)reader->line);
    *record = reader->record;
    return MICA_OK;
  }
  return MICA_OK;
}

static const char *key_name(const void *list, int index) {
  const cJSON *item = cJSON_GetArrayItem(list, index);
  return item ? item->string : NULL;
}

static mica_status find(const micah_jsonl *reader, const char *key, const cJSON **item) {
  if (!reader->record) return mica_error(MICA_ERR_STATE, "%s: no record was read", reader->name);
  *item = cJSON_GetObjectItemCaseSensitive(reader->record, key);
  if (*item) return MICA_OK;
  const char *near = micak_nearest(key, key_name, reader->record);
  return mica_error(MICA_ERR_FORMAT, "%s:%lld: no key '%s'%s%.60s%s", reader->name, (long long)reader->line, key,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

mica_status micah_jsonl_string(const micah_jsonl *reader, const char *key, const char **out) {
  const cJSON *item = NULL;
  *out = NULL;
  mica_status status = find(reader, key, &item);
  if (status < 0) return status;
  if (!cJSON_IsString(item))
    return mica_error(MICA_ERR_FORMAT, "%s:%lld: '%s' is not text", reader->name, (long long)reader->line, key);
  *out = item->valuestring;
  return MICA_OK;
}

mica_status micah_jsonl_real(const micah_jsonl *reader, const char *key, double *out) {
  const cJSON *item = NULL;
  *out = 0;
  mica_status status = find(reader, key, &item);
  if (status < 0) return status;
  if (!cJSON_IsNumber(item))
    return mica_error(MICA_ERR_FORMAT, "%s:%lld: '%s' is not a number", reader->name, (long long)reader->line, key);
  *out = item->valuedouble;
  return MICA_OK;
}
