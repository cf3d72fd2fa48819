#include "host/io/csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/names.h"
#include "host/io/file.h"
#include "host/io/text.h"

/* ---- records of text ---- */

static mica_status records_error(const micah_records *r, int64_t line, int64_t column, const char *problem) {
  return mica_error(MICA_ERR_FORMAT, "%s:%lld:%lld: %s", r->name, (long long)line, (long long)column, problem);
}

static mica_status memory_error(const micah_records *r) {
  return mica_error(MICA_ERR_MEMORY, "%s: out of memory", r->name);
}

/* room for one more field */
static mica_status room(micah_records *r) {
  if (r->count < r->capacity) return MICA_OK;
  int64_t more = r->capacity ? r->capacity * 2 : 16;
  const char **field = realloc((void *)r->field, (size_t)more * sizeof *field);
  if (!field) return memory_error(r);
  r->field = field;
  int64_t *length = realloc(r->length, (size_t)more * sizeof *length);
  if (!length) return memory_error(r);
  r->length = length;
  int64_t *column = realloc(r->column, (size_t)more * sizeof *column);
  if (!column) return memory_error(r);
  r->column = column;
  r->capacity = more;
  return MICA_OK;
}

/* bytes of the record at r->at with its line end; quotes may hold line ends */
static int64_t extent(const micah_records *r) {
  int inside = 0;
  for (int64_t i = r->at; i < r->size; i++) {
    char c = r->text[i];
    if (r->quote && c == r->quote) inside = !inside;
    else if (c == '\n' && !inside) return i + 1 - r->at;
  }
  return r->size - r->at;
}

/* one field from *at, unquoted into the store at *to; *at ends behind its separator or at the record's end */
static mica_status take_field(micah_records *r, int64_t *at, int64_t end, int64_t *to, int64_t *line, int64_t *start) {
  const char *s = r->text;
  int64_t i = *at, from = *to, first_line = *line, column = i - *start + 1;
  if (r->quote && i < end && s[i] == r->quote) {
    for (i++;; i++) {
      if (i >= end) return records_error(r, first_line, column, "quoted field without its closing quote");
      if (s[i] == r->quote) {
        if (i + 1 < end && s[i + 1] == r->quote) i++;
        else break;
      }
      if (s[i] == '\n') {
        ++*line;
        *start = i + 1;
      }
      r->store[(*to)++] = s[i];
    }
    i++;
    if (i < end && s[i] != r->separator)
      return records_error(r, *line, i - *start + 1, "text after the closing quote; double the quotes inside a field");
  } else {
    for (; i < end && s[i] != r->separator; i++) {
      if (r->quote && s[i] == r->quote)
        return records_error(r, *line, i - *start + 1, "quote inside a field that does not begin with one");
      r->store[(*to)++] = s[i];
    }
  }
  mica_status status = room(r);
  if (status < 0) return status;
  r->length[r->count] = *to - from;
  r->column[r->count] = column;
  r->field[r->count++] = r->store + from;
  r->store[(*to)++] = 0;
  *at = i;
  return MICA_OK;
}

mica_status micah_records_next(micah_records *r, int *more) {
  *more = 0;
  r->count = 0;
  if (!r->next_line) r->next_line = 1;
  if (r->at == 0 && r->size >= 3 && !memcmp(r->text, "\xEF\xBB\xBF", 3)) r->at = 3;
  /* empty lines are not records */
  while (r->at < r->size &&
         (r->text[r->at] == '\n' || (r->text[r->at] == '\r' && r->at + 1 < r->size && r->text[r->at + 1] == '\n'))) {
    r->at += r->text[r->at] == '\r' ? 2 : 1;
    r->next_line++;
  }
  if (r->at >= r->size) return MICA_OK;
  int64_t bytes = extent(r), end = r->at + bytes, start = r->at, to = 0, at = r->at, line = r->next_line;
  int64_t next = end;
  if (end > at && r->text[end - 1] == '\n') end--;
  if (end > at && r->text[end - 1] == '\r') end--;
  /* a field costs at most its bytes and one NUL for the separator behind it */
  if (bytes + 2 > r->store_capacity) {
    int64_t capacity = r->store_capacity > INT64_MAX / 4 ? bytes + 2 : r->store_capacity * 2;
    if (capacity < bytes + 2) capacity = bytes + 2;
    char *store = realloc(r->store, (size_t)capacity);
    if (!store) return memory_error(r);
    r->store = store;
    r->store_capacity = capacity;
  }
  r->line = line;
  for (;;) {
    mica_status status = take_field(r, &at, end, &to, &line, &start);
    if (status < 0) return status;
    if (at >= end) break;
    at++; /* the separator; one at the very end opens an empty last field */
  }
  r->at = next;
  r->next_line = line + 1;
  *more = 1;
  return MICA_OK;
}

void micah_records_free(micah_records *r) {
  free((void *)r->field);
  free(r->length);
  free(r->column);
  free(r->store);
  memset(r, 0, sizeof *r);
}

static const char *field_name(const void *list, int index) {
  const micah_records *r = list;
  return index < r->count ? r->field[index] : NULL;
}

mica_status micah_records_column(const micah_records *header, const char *name, int64_t *index) {
  for (int64_t i = 0; i < header->count; i++) {
    if (strcmp(header->field[i], name)) continue;
    *index = i;
    return MICA_OK;
  }
  const char *near = micak_nearest(name, field_name, header);
  char shown[80] = "";
  if (near) micah_quote(near, strlen(near), shown, sizeof shown);
  return mica_error(MICA_ERR_NOT_FOUND, "%s:%lld: no column '%s'%s%s%s", header->name, (long long)header->line, name,
                    near ? "; did you mean '" : "", shown, near ? "'?" : "");
}

/* ---- tables of numbers ---- */

void micah_table_free(micah_table *table) {
  for (int64_t i = 0; table->names && i < table->columns; i++) free(table->names[i]);
  free(table->names);
  free(table->values);
  memset(table, 0, sizeof *table);
}

static char find_separator(const char *name, const char *text, int64_t size) {
  size_t n = strlen(name);
  if (n >= 4 && !strcmp(name + n - 4, ".tsv")) return '\t';
  for (int64_t i = 0; i < size && text[i] != '\n'; i++)
    if (text[i] == '\t') return '\t';
  return ',';
}

/* blanks around a number are no part of it */
static void trim(const char **text, int64_t *length) {
  while (*length && (**text == ' ' || **text == '\t')) ++*text, --*length;
  while (*length && ((*text)[*length - 1] == ' ' || (*text)[*length - 1] == '\t')) --*length;
}

static int is_missing(const char *text, int64_t length) {
  static const char *const words[] = { "", "nan", "NaN", "NAN", "NA", "?" };
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if ((size_t)length == strlen(words[i]) && !memcmp(text, words[i], (size_t)length)) return 1;
  return 0;
}

static int is_header(const micah_records *r) {
  for (int64_t i = 0; i < r->count; i++) {
    const char *text = r->field[i];
    int64_t length = r->length[i];
    double value;
    trim(&text, &length);
    if (!is_missing(text, length) && !micah_parse_real(text, (size_t)length, &value)) return 1;
  }
  return 0;
}

static mica_status take_names(const micah_records *r, micah_table *table) {
  table->names = calloc((size_t)r->count, sizeof *table->names);
  if (!table->names) return memory_error(r);
  table->columns = r->count;
  for (int64_t i = 0; i < r->count; i++) {
    const char *text = r->field[i];
    int64_t length = r->length[i];
    trim(&text, &length);
    table->names[i] = micah_copy(text, (size_t)length);
    if (!table->names[i]) return memory_error(r);
  }
  return MICA_OK;
}

static mica_status take_row(const micah_records *r, const micah_csv_options *options, micah_table *table,
                            int64_t *capacity) {
  if (r->count != table->columns) {
    char problem[120];
    micah_text text = { 0 };
    micah_text_format(&text, "expected %lld fields, as in the first line, got %lld", (long long)table->columns,
                      (long long)r->count);
    micah_quote(text.data ? text.data : "", text.size, problem, sizeof problem);
    micah_text_free(&text);
    return records_error(r, r->line, 1, problem);
  }
  if (table->rows == *capacity) {
    int64_t more = *capacity ? *capacity * 2 : 64;
    if (more > INT64_MAX / 16 / table->columns) return memory_error(r);
    double *values = realloc(table->values, (size_t)(more * table->columns) * sizeof *values);
    if (!values) return memory_error(r);
    table->values = values;
    *capacity = more;
  }
  for (int64_t i = 0; i < r->count; i++) {
    const char *text = r->field[i];
    int64_t length = r->length[i];
    double *value = &table->values[table->rows * table->columns + i];
    trim(&text, &length);
    if (is_missing(text, length) && options->missing) {
      *value = NAN;
    } else if (!micah_parse_real(text, (size_t)length, value) || !isfinite(*value)) {
      char shown[60];
      return mica_error(MICA_ERR_FORMAT, "%s:%lld:%lld: field %lld%s%.40s%s: expected a number, got '%s'", r->name,
                        (long long)r->line, (long long)r->column[i], (long long)i + 1, table->names ? " (" : "",
                        table->names ? table->names[i] : "", table->names ? ")" : "",
                        micah_quote(text, (size_t)length, shown, sizeof shown));
    }
  }
  table->rows++;
  return MICA_OK;
}

mica_status micah_csv_parse(const char *name, const char *text, int64_t size, const micah_csv_options *options,
                            micah_table *table) {
  static const micah_csv_options defaults = MICAH_CSV_OPTIONS_INIT;
  if (!options) options = &defaults;
  memset(table, 0, sizeof *table);
  micah_records r = { .name = name, .text = text, .size = size };
  r.separator = options->separator ? options->separator : find_separator(name, text, size);
  r.quote = options->quote;
  int64_t capacity = 0;
  int more, first = 1;
  mica_status status;
  while ((status = micah_records_next(&r, &more)) == MICA_OK && more) {
    if (first) {
      first = 0;
      table->columns = r.count;
      if (options->header > 0 || (options->header < 0 && is_header(&r))) {
        if ((status = take_names(&r, table)) < 0) break;
        continue;
      }
    }
    if ((status = take_row(&r, options, table, &capacity)) < 0) break;
  }
  if (status == MICA_OK && !table->rows)
    status = mica_error(MICA_ERR_FORMAT, "%s: no rows of numbers%s", name,
                        table->names ? " below the header" : "; the file is empty");
  micah_records_free(&r);
  if (status < 0) micah_table_free(table);
  return status;
}

mica_status micah_csv_read(const char *path, const micah_csv_options *options, micah_table *table) {
  char *text;
  int64_t size;
  memset(table, 0, sizeof *table);
  mica_status status = micah_file_read(path, INT64_MAX / 4, &text, &size);
  if (status < 0) return status;
  status = micah_csv_parse(path, text, size, options, table);
  free(text);
  return status;
}
