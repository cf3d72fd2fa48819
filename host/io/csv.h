/* csv.h: tables of text with separators: numeric tables, and records of text fields. */
#ifndef MICAH_IO_CSV_H
#define MICAH_IO_CSV_H

#include "mica/status.h"

/* how to read */
typedef struct micah_csv_options {
  char separator;                /* 0: tab for names ending in .tsv or when the first line has a tab, else comma */
  char quote;                    /* '"': RFC 4180 quotes; 0: quotes are ordinary */
  int  header;                   /* 1 yes, 0 no, -1: when a field of the first record is no number */
  int  missing;                  /* 1: empty fields and nan are NaN; 0: errors */
} micah_csv_options;
#define MICAH_CSV_OPTIONS_INIT { 0, '"', -1, 0 }

typedef struct micah_table {
  int64_t rows, columns;
  double *values;                /* (rows, columns) */
  char  **names;                 /* (columns), or NULL without a header */
} micah_table;

/* numeric table; options NULL: defaults. errors are "file:line:column: ...". empty lines are skipped. */
mica_status micah_csv_read(const char *path, const micah_csv_options *options, micah_table *table);
mica_status micah_csv_parse(const char *name, const char *text, int64_t size, const micah_csv_options *options,
                            micah_table *table);
void        micah_table_free(micah_table *table);

/* text records: zero-initialise, then set name, text and size (borrowed). fields are valid until the next call. */
typedef struct micah_records {
  const char *name, *text;
  int64_t     size, at;          /* bytes, next byte */
  char        separator, quote;  /* separator must be set */
  int64_t     line;              /* of the record last returned, from 1 */
  int64_t     next_line;
  int64_t     count;             /* fields of it */
  const char **field;            /* NUL-terminated */
  int64_t    *length;            /* bytes of each */
  int64_t    *column;            /* of each field's first byte in its line, from 1 */
  char       *store;
  int64_t     capacity, store_capacity;
} micah_records;

/* 1 in *more with the next record, 0 at the end. empty lines are skipped. */
mica_status micah_records_next(micah_records *records, int *more);
void        micah_records_free(micah_records *records);

/* index of a named column in the record last returned; error lists nearest. */
mica_status micah_records_column(const micah_records *header, const char *name, int64_t *index);

#endif
