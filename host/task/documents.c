#include "host/task/documents.h"

#include "host/io/csv.h"
#include "host/io/file.h"
#include "host/io/json.h"
#include "host/io/jsonl.h"
#include "host/io/text.h"
#include "mica/family.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* everything is held in memory; more than this is a mistake in the path */
static const int64_t largest = (int64_t)1 << 34;

enum { UNKNOWN = -2, NEITHER = -1 };

static int ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static int32_t split_of(const char *text) {
  if (!text) return UNKNOWN;
  return strcmp(text, "train") == 0 ? MICA_SPLIT_TRAIN : strcmp(text, "test") == 0 ? MICA_SPLIT_TEST : NEITHER;
}

/* append a document; the name is copied */
static mica_status add(micah_documents *d, const char *name, int64_t start, int64_t size, int32_t split) {
  if (size == 0) {
    d->empty++;
    return MICA_OK;
  }
  if (d->count == d->capacity) {
    int64_t capacity = d->capacity ? 2 * d->capacity : 64;
    micah_document *list = realloc(d->list, (size_t)capacity * sizeof *list);
    if (!list) return mica_error(MICA_ERR_MEMORY, "no memory for a list of %lld documents", (long long)capacity);
    d->list = list, d->capacity = capacity;
  }
  char *copy = micah_copy(name, strlen(name));
  if (!copy) return mica_error(MICA_ERR_MEMORY, "no memory for the name of document %lld", (long long)d->count);
  d->list[d->count++] = (micah_document){ copy, start, size, split };
  if (split != UNKNOWN) d->named = 1;
  return MICA_OK;
}

/* ---- files ---- */

static mica_status open_file(const char *path, micah_documents *d) {
  mica_status status = micah_file_read(path, largest, &d->text, &d->text_size);
  return status < 0 ? status : add(d, micah_path_name(path), 0, d->text_size, UNKNOWN);
}

static mica_status open_folder(const char *path, micah_documents *d) {
  char **names;
  int64_t count;
  micah_text text = { 0 };
  mica_status status = micah_path_list(path, &names, &count);
  if (status < 0) return status;
  for (int64_t i = 0; i < count && status >= 0; i++) {
    char *file = micah_path_join(path, names[i]), *data = NULL;
    int64_t size = 0;
    status = file ? micah_file_read(file, largest - (int64_t)text.size, &data, &size)
                  : mica_error(MICA_ERR_MEMORY, "%s: no memory for a path", path);
    if (status >= 0) status = add(d, names[i], (int64_t)text.size, size, UNKNOWN);
    if (status >= 0) micah_text_put(&text, data, (size_t)size), status = micah_text_check(&text, path);
    free(data);
    free(file);
  }
  micah_path_list_free(names, count);
  d->text = text.data, d->text_size = (int64_t)text.size;
  return status;
}

/* ---- index ---- */

/* the first of the members listed in `fields` ("code name") that is a string */
static const char *first_string(const cJSON *object, const char *fields) {
  char key[64];
  for (const char *at = fields; *at;) {
    size_t n = strcspn(at, " ");
    if (n > 0 && n < sizeof key) {
      memcpy(key, at, n);
      key[n] = 0;
      const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
      if (value && *value) return value;
    }
    at += n + (at[n] == ' ');
  }
  return NULL;
}

static mica_status whole_number(const char *path, int64_t entry, const cJSON *object, const char *key, int64_t *out) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
  if (!item) return mica_error(MICA_ERR_FORMAT, "%s: entry %lld has no %s", path, (long long)entry, key);
  double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
  if (!(value >= 0 && value <= 0x1p53 && value == floor(value)))
    return mica_error(MICA_ERR_FORMAT, "%s: entry %lld: %s must be a whole number of bytes, got %s %g", path,
                      (long long)entry, key, cJSON_IsNumber(item) ? "the number" : "no number,", value);
  *out = (int64_t)value;
  return MICA_OK;
}

static mica_status read_entry(const micah_documents_options *o, int64_t entry, const cJSON *object,
                              micah_documents *d) {
  int64_t start = 0, size = 0;
  char number[32];
  if (!cJSON_IsObject(object))
    return mica_error(MICA_ERR_FORMAT, "%s: entry %lld is no object", o->path, (long long)entry);
  mica_status status = whole_number(o->path, entry, object, "offset", &start);
  if (status >= 0) status = whole_number(o->path, entry, object, "bytes", &size);
  if (status < 0) return status;
  if (start > d->text_size || size > d->text_size - start)
    return mica_error(MICA_ERR_FORMAT, "%s: entry %lld: offset %lld + bytes %lld is past the end of the data file "
                      "(%lld bytes)", o->path, (long long)entry, (long long)start, (long long)size,
                      (long long)d->text_size);
  const cJSON *split = cJSON_GetObjectItemCaseSensitive(object, o->split_field);
  if (split && !cJSON_IsString(split))
    return mica_error(MICA_ERR_FORMAT, "%s: entry %lld: %s must be a string, train or test", o->path, (long long)entry,
                      o->split_field);
  const char *label = first_string(object, o->name_fields);
  snprintf(number, sizeof number, "entry %lld", (long long)entry);
  return add(d, label ? label : number, start, size, split_of(cJSON_GetStringValue(split)));
}

static mica_status open_index(const micah_documents_options *o, micah_documents *d) {
  char *folder = micah_path_folder(o->path), *stem = NULL, *data = NULL;
  const char *base = micah_path_name(o->path);
  size_t n = strlen(base), cut = ends_with(base, ".json") ? n - 5 : n;
  mica_status status = MICA_OK;
  cJSON *index = NULL;
  if (o->data[0]) stem = micah_copy(o->data, strlen(o->data));
  else if ((stem = malloc(cut + 5))) memcpy(stem, base, cut), memcpy(stem + cut, ".txt", 5);
  if (folder && stem) data = micah_path_join(folder, stem);
  if (!data) status = mica_error(MICA_ERR_MEMORY, "%s: no memory for a path", o->path);
  if (status >= 0) status = micah_json_read(o->path, largest, &index);
  if (status >= 0 && !cJSON_IsArray(index))
    status = mica_error(MICA_ERR_FORMAT, "%s: an index is an array of objects with offset, bytes and split", o->path);
  if (status >= 0 && micah_path_kind(data) != MICAH_PATH_FILE)
    status = mica_error(MICA_ERR_IO, "%s: its data file %s does not exist; name it by the key data", o->path, data);
  if (status >= 0) status = micah_file_read(data, largest, &d->text, &d->text_size);
  int64_t entry = 0;
  if (status >= 0)
    for (const cJSON *object = index->child; object && status >= 0; object = object->next)
      status = read_entry(o, entry++, object, d);
  cJSON_Delete(index);
  free(data);
  free(stem);
  free(folder);
  return status;
}

/* ---- records ---- */

static mica_status open_jsonl(const micah_documents_options *o, micah_documents *d) {
  micah_jsonl reader = { 0 };
  micah_text text = { 0 };
  const cJSON *record = NULL;
  mica_status status = micah_jsonl_open(o->path, &reader);
  while (status >= 0 && (status = micah_jsonl_next(&reader, &record)) >= 0 && record) {
    const char *value;
    char number[32];
    if ((status = micah_jsonl_string(&reader, o->field, &value)) < 0) break;
    const char *label = first_string(record, o->name_fields);
    const char *split = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, o->split_field));
    snprintf(number, sizeof number, "line %lld", (long long)reader.line);
    size_t size = strlen(value);
    status = add(d, label ? label : number, (int64_t)text.size, (int64_t)size, split_of(split));
    if (status >= 0) micah_text_put(&text, value, size), status = micah_text_check(&text, o->path);
  }
  micah_jsonl_close(&reader);
  d->text = text.data, d->text_size = (int64_t)text.size;
  return status;
}

/* which columns of a table to read; -1: none */
typedef struct columns { int64_t text, split, label; } columns;

static int64_t find_column(const micah_records *header, const char *name, size_t length) {
  for (int64_t i = 0; i < header->count; i++)
    if ((size_t)header->length[i] == length && memcmp(header->field[i], name, length) == 0) return i;
  return -1;
}

static mica_status read_header(const micah_documents_options *o, const micah_records *header, columns *c) {
  c->label = -1;
  for (const char *at = o->name_fields; *at && c->label < 0;) {
    size_t n = strcspn(at, " ");
    c->label = find_column(header, at, n);
    at += n + (at[n] == ' ');
  }
  c->split = find_column(header, o->split_field, strlen(o->split_field));
  return micah_records_column(header, o->field, &c->text);
}

static mica_status open_table(const micah_documents_options *o, micah_documents *d) {
  char *data = NULL;
  int64_t size = 0, number;
  micah_text text = { 0 };
  mica_status status = micah_file_read(o->path, largest, &data, &size);
  micah_records records = { .name = o->path, .text = data, .size = size,
                            .separator = ends_with(o->path, ".csv") ? ',' : '\t',
                            .quote = ends_with(o->path, ".csv") ? '"' : 0 };
  columns c = { -1, -1, -1 };
  int more = 0, header = !micah_parse_int(o->field, strlen(o->field), &number);
  if (!header && number < 1)
    status = mica_error(MICA_ERR_CONFIG, "%s: field is column %lld, expected 1 or more", o->path, (long long)number);
  if (!header) c.text = number - 1;
  if (status >= 0 && header) {
    status = micah_records_next(&records, &more);
    if (status >= 0 && !more) status = mica_error(MICA_ERR_FORMAT, "%s: the file has no lines", o->path);
    if (status >= 0) status = read_header(o, &records, &c);
  }
  while (status >= 0 && (status = micah_records_next(&records, &more)) >= 0 && more) {
    char line[32];
    if (c.text >= records.count) {
      status = mica_error(MICA_ERR_FORMAT, "%s:%lld: %lld columns, expected at least %lld", o->path,
                          (long long)records.line, (long long)records.count, (long long)(c.text + 1));
      break;
    }
    snprintf(line, sizeof line, "line %lld", (long long)records.line);
    int labelled = c.label >= 0 && c.label < records.count && records.length[c.label] > 0;
    const char *split = c.split >= 0 && c.split < records.count ? records.field[c.split] : NULL;
    status = add(d, labelled ? records.field[c.label] : line, (int64_t)text.size, records.length[c.text],
                 split_of(split));
    if (status < 0) break;
    micah_text_put(&text, records.field[c.text], (size_t)records.length[c.text]);
    status = micah_text_check(&text, o->path);
  }
  micah_records_free(&records);
  free(data);
  d->text = text.data, d->text_size = (int64_t)text.size;
  return status;
}

/* ---- splits ---- */

static mica_status assign_splits(const micah_documents_options *o, micah_documents *d) {
  if (d->named) {
    for (int64_t i = 0; i < d->count; i++)
      if (d->list[i].split == UNKNOWN) d->list[i].split = MICA_SPLIT_TRAIN;
    return MICA_OK;
  }
  if (d->count == 1) {
    micah_document *only = d->list;
    int64_t held = only->size / o->holdout;
    if (held < 1)
      return mica_error(MICA_ERR_FORMAT, "%s: %lld bytes cannot be cut into training and test bytes", o->path,
                        (long long)only->size);
    only->size -= held, only->split = MICA_SPLIT_TRAIN;
    return add(d, only->name, only->start + only->size, held, MICA_SPLIT_TEST);
  }
  for (int64_t i = 0; i < d->count; i++) {
    int test = i % o->holdout == o->holdout - 1 || (d->count < o->holdout && i == d->count - 1);
    d->list[i].split = test ? MICA_SPLIT_TEST : MICA_SPLIT_TRAIN;
  }
  return MICA_OK;
}

mica_status micah_documents_open(const micah_documents_options *o, micah_documents *out) {
  int kind = micah_path_kind(o->path);
  int64_t mode = o->mode;
  if (kind != MICAH_PATH_FILE && kind != MICAH_PATH_FOLDER)
    return mica_error(MICA_ERR_IO, "path: %s does not exist or is neither file nor folder", o->path);
  int records = ends_with(o->path, ".jsonl") || ends_with(o->path, ".tsv") || ends_with(o->path, ".csv");
  if (mode == MICAH_DOCUMENTS_AUTO)
    mode = kind == MICAH_PATH_FOLDER        ? MICAH_DOCUMENTS_FILES
           : ends_with(o->path, ".json") ? MICAH_DOCUMENTS_INDEX
           : records                     ? MICAH_DOCUMENTS_RECORDS
                                         : MICAH_DOCUMENTS_FILES;
  mica_status status;
  if (kind == MICAH_PATH_FOLDER && mode != MICAH_DOCUMENTS_FILES)
    status = mica_error(MICA_ERR_CONFIG, "path: %s is a folder; modes records and index need a file", o->path);
  else if (mode == MICAH_DOCUMENTS_RECORDS && !records)
    status = mica_error(MICA_ERR_CONFIG, "path: %s: mode records needs a file ending in .jsonl, .tsv or .csv", o->path);
  else if (mode == MICAH_DOCUMENTS_INDEX) status = open_index(o, out);
  else if (mode == MICAH_DOCUMENTS_RECORDS)
    status = ends_with(o->path, ".jsonl") ? open_jsonl(o, out) : open_table(o, out);
  else status = kind == MICAH_PATH_FOLDER ? open_folder(o->path, out) : open_file(o->path, out);
  if (status >= 0 && !out->count) status = mica_error(MICA_ERR_FORMAT, "%s: no document has any bytes", o->path);
  if (status >= 0) status = assign_splits(o, out);
  if (status < 0) micah_documents_close(out);
  return status;
}

void micah_documents_close(micah_documents *d) {
  for (int64_t i = 0; i < d->count; i++) free(d->list[i].name);
  free(d->list);
  free(d->text);
  memset(d, 0, sizeof *d);
}
