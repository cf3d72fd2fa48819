/* documents.h: real bytes cut into documents: the files of a folder, one file, the records of a jsonl, tsv or csv file,
 * or the byte ranges of an index. */
#ifndef MICAH_TASK_DOCUMENTS_H
#define MICAH_TASK_DOCUMENTS_H

#include "mica/status.h"

enum { MICAH_DOCUMENTS_AUTO, MICAH_DOCUMENTS_FILES, MICAH_DOCUMENTS_RECORDS, MICAH_DOCUMENTS_INDEX };
#define MICAH_DOCUMENTS_MODES "auto|files|records|index"

typedef struct micah_documents_options {
  const char *path, *data;       /* data: of an index, beside it; "": the index's name ending in .txt */
  const char *field, *split_field, *name_fields;
  int64_t     mode, holdout;
} micah_documents_options;

typedef struct micah_document {
  char   *name;                  /* for people; never NULL */
  int64_t start, size;           /* bytes in text; size >= 1 */
  int32_t split;                 /* MICA_SPLIT_*, or -1: neither */
} micah_document;

typedef struct micah_documents {
  char           *text;
  int64_t         text_size;
  micah_document *list;
  int64_t         count, capacity;
  int64_t         empty;         /* documents left out for having no bytes */
  int32_t         named;         /* splits were given by the data */
} micah_documents;

/* read all documents. splits come from the data where they have them ("train", "test", others are left out); else every
 * holdout-th document is a test document (the last one if there are fewer), and of a single document the last 1/holdout
 * of its bytes. zero-initialise *out. errors name path, line or entry, key, expected, got. */
mica_status micah_documents_open(const micah_documents_options *options, micah_documents *out);
void        micah_documents_close(micah_documents *documents);

#endif
