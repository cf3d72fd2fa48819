#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/names.h"
#include "host/io/file.h"
#include "host/io/json.h"
#include "host/io/safetensors_format.h"

/* one entry of the header */
typedef struct entry {
  micah_tensor tensor;
  int64_t begin, end; /* bytes in the data */
} entry;

struct micah_safetensors {
  char *path;
  char *bytes;           /* the whole file */
  cJSON *header;         /* owns names and metadata */
  micah_tensor *tensors; /* by offset */
  micah_tensor **sorted; /* by name */
  void **copies;         /* data of tensors that are not aligned in the file */
  micah_meta *meta;
  int64_t n_tensors, n_copies, n_meta;
};

void micah_safetensors_close(micah_safetensors *file) {
  if (!file) return;
  for (int64_t i = 0; i < file->n_copies; i++) free(file->copies[i]);
  cJSON_Delete(file->header);
  free(file->path);
  free(file->bytes);
  free(file->tensors);
  free(file->sorted);
  free(file->copies);
  free(file->meta);
  free(file);
}

static mica_status memory_error(const micah_safetensors *file) {
  return mica_error(MICA_ERR_MEMORY, "%s: out of memory", file->path);
}

static int whole(const cJSON *item, int64_t *out) {
  if (!cJSON_IsNumber(item)) return 0;
  double value = item->valuedouble;
  if (!(value >= 0 && value <= 9007199254740992.0) || value != floor(value)) return 0;
  *out = (int64_t)value;
  return 1;
}

static int find_dtype(const char *name) {
  for (int32_t i = 0; i < MICA_NDTYPE; i++) {
    const char *known = micah_safetensors_dtype(i);
    if (known && !strcmp(known, name)) return i;
  }
  return -1;
}

/* one member of a tensor's object; NULL when missing or given twice */
static const cJSON *member(const cJSON *object, const char *key, int *count) {
  const cJSON *found = NULL, *item;
  *count = 0;
  cJSON_ArrayForEach(item, object) {
    if (strcmp(item->string, key)) continue;
    found = item;
    ++*count;
  }
  return *count == 1 ? found : NULL;
}

static mica_status read_entry(const micah_safetensors *file, const cJSON *item, int64_t data_size, entry *e) {
  char name[120];
  const char *path = file->path;
  micah_quote(item->string, strlen(item->string), name, sizeof name);
  if (!cJSON_IsObject(item) || !*item->string)
    return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': expected an object with dtype, shape and data_offsets", path,
                      name);
  static const char *const keys[] = { "dtype", "shape", "data_offsets" };
  const cJSON *value[3];
  for (int i = 0; i < 3; i++) {
    int count;
    value[i] = member(item, keys[i], &count);
    if (!value[i])
      return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': '%s' is %s", path, name, keys[i],
                        count ? "given twice" : "missing");
  }
  if (!cJSON_IsString(value[0])) return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': dtype is not text", path, name);
  e->tensor.name = item->string;
  e->tensor.dtype = find_dtype(value[0]->valuestring);
  if (e->tensor.dtype < 0) {
    char shown[40];
    micah_quote(value[0]->valuestring, strlen(value[0]->valuestring), shown, sizeof shown);
    return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': dtype '%s', expected F32, F64, I32, I64, U8 or BF16", path,
                      name, shown);
  }
  int rank = cJSON_IsArray(value[1]) ? cJSON_GetArraySize(value[1]) : -1;
  if (rank < 0) return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': shape is not a list", path, name);
  if (rank > MICAH_MAX_DIMS)
    return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': %d axes, at most %d are read", path, name, rank,
                      (int)MICAH_MAX_DIMS);
  e->tensor.rank = rank;
  int k = 0;
  const cJSON *size;
  cJSON_ArrayForEach(size, value[1]) {
    if (!whole(size, &e->tensor.shape[k++]))
      return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': shape[%d] is not a whole number >= 0", path, name, k - 1);
  }
  if (!cJSON_IsArray(value[2]) || cJSON_GetArraySize(value[2]) != 2 ||
      !whole(cJSON_GetArrayItem(value[2], 0), &e->begin) || !whole(cJSON_GetArrayItem(value[2], 1), &e->end))
    return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': data_offsets is not [begin, end]", path, name);
  if (e->begin > e->end || e->end > data_size)
    return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': data_offsets [%lld, %lld] outside the %lld bytes of data%s",
                      path, name, (long long)e->begin, (long long)e->end, (long long)data_size,
                      e->end > data_size ? "; the file is truncated" : "");
  int64_t element = (int64_t)mica_dtype_size(e->tensor.dtype), count = micah_tensor_count(&e->tensor);
  if (count < 0) return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': shape overflows", path, name);
  if (count * element != e->end - e->begin)
    return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': shape and dtype need %lld bytes, data_offsets give %lld", path,
                      name, (long long)(count * element), (long long)(e->end - e->begin));
  return MICA_OK;
}

static int by_offset(const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end != y->end ? (x->end < y->end ? -1 : 1) : strcmp(x->tensor.name, y->tensor.name);
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(micah_tensor *const *)a)->name, (*(micah_tensor *const *)b)->name);
}

static int by_key(const void *a, const void *b) {
  return strcmp(((const micah_meta *)a)->key, ((const micah_meta *)b)->key);
}

static mica_status read_meta(micah_safetensors *file, const cJSON *object) {
  if (!cJSON_IsObject(object)) return mica_error(MICA_ERR_FORMAT, "%s: __metadata__ is not an object", file->path);
  int64_t n = cJSON_GetArraySize(object);
  const cJSON *item;
  file->meta = malloc((size_t)(n + 1) * sizeof *file->meta);
  if (!file->meta) return memory_error(file);
  cJSON_ArrayForEach(item, object) {
    char name[120];
    if (!cJSON_IsString(item))
      return mica_error(MICA_ERR_FORMAT, "%s: __metadata__ '%s' is not text", file->path,
                        micah_quote(item->string, strlen(item->string), name, sizeof name));
    file->meta[file->n_meta++] = (micah_meta) { item->string, item->valuestring };
  }
  qsort(file->meta, (size_t)n, sizeof *file->meta, by_key);
  for (int64_t i = 1; i < n; i++) {
    char name[120];
    if (!strcmp(file->meta[i - 1].key, file->meta[i].key))
      return mica_error(MICA_ERR_FORMAT, "%s: __metadata__ '%s' is given twice", file->path,
                        micah_quote(file->meta[i].key, strlen(file->meta[i].key), name, sizeof name));
  }
  return MICA_OK;
}

/* data without gaps or overlaps, from the first byte to the last */
static mica_status check_cover(const micah_safetensors *file, const entry *entries, int64_t n, int64_t data_size) {
  int64_t at = 0;
  char name[120];
  for (int64_t i = 0; i < n; i++) {
    const entry *e = &entries[i];
    micah_quote(e->tensor.name, strlen(e->tensor.name), name, sizeof name);
    if (e->begin != at)
      return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': begins at byte %lld of the data, expected %lld (%s)",
                        file->path, name, (long long)e->begin, (long long)at, e->begin < at ? "overlap" : "gap");
    at = e->end;
  }
  if (at != data_size)
    return mica_error(MICA_ERR_FORMAT, "%s: %lld bytes of data, the tensors take %lld", file->path,
                      (long long)data_size, (long long)at);
  return MICA_OK;
}

/* point the tensors into the file, or to aligned copies of it */
static mica_status place_data(micah_safetensors *file, const entry *entries, int64_t n, char *data) {
  file->tensors = malloc((size_t)(n + 1) * sizeof *file->tensors);
  file->sorted = malloc((size_t)(n + 1) * sizeof *file->sorted);
  file->copies = malloc((size_t)(n + 1) * sizeof *file->copies);
  if (!file->tensors || !file->sorted || !file->copies) return memory_error(file);
  for (int64_t i = 0; i < n; i++) {
    micah_tensor *t = &file->tensors[i];
    char *from = data + entries[i].begin;
    size_t size = (size_t)(entries[i].end - entries[i].begin);
    *t = entries[i].tensor;
    t->data = from;
    if ((uintptr_t)from % mica_dtype_size(t->dtype)) {
      char *copy = malloc(size ? size : 1);
      if (!copy) return memory_error(file);
      if (size) memcpy(copy, from, size);
      file->copies[file->n_copies++] = copy;
      t->data = copy;
    }
    file->sorted[i] = t;
    file->n_tensors++;
  }
  qsort(file->sorted, (size_t)n, sizeof *file->sorted, by_name);
  for (int64_t i = 1; i < n; i++) {
    char name[120];
    if (!strcmp(file->sorted[i - 1]->name, file->sorted[i]->name))
      return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': is given twice", file->path,
                        micah_quote(file->sorted[i]->name, strlen(file->sorted[i]->name), name, sizeof name));
  }
  return MICA_OK;
}

static mica_status check_hash(const micah_safetensors *file) {
  const char *given = micah_safetensors_meta(file, MICAH_HASH_KEY);
  char found[MICAH_HASH_VALUE], shown[80];
  if (!given) return MICA_OK;
  mica_status status = micah_safetensors_hash(file->tensors, file->n_tensors, file->meta, file->n_meta, found);
  if (status < 0 || !strcmp(given, found)) return status;
  return mica_error(
      MICA_ERR_FORMAT,
      "%s: content hash differs: the file says %s, its content has %s; it was damaged or changed after it "
      "was written",
      file->path, micah_quote(given, strlen(given), shown, sizeof shown), found);
}

/* everything but the name: file->bytes is set */
static mica_status load(micah_safetensors *file, int64_t size) {
  const unsigned char *bytes = (const unsigned char *)file->bytes;
  uint64_t length = 0;
  if (size < 8)
    return mica_error(MICA_ERR_FORMAT, "%s: %lld bytes, too short for safetensors (8 bytes of header length first)",
                      file->path, (long long)size);
  for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
  if (length > MICAH_SAFETENSORS_HEADER)
    return mica_error(MICA_ERR_FORMAT, "%s: header of %llu bytes, at most %d are read; not a safetensors file?",
                      file->path, (unsigned long long)length, (int)MICAH_SAFETENSORS_HEADER);
  if ((int64_t)length > size - 8)
    return mica_error(MICA_ERR_FORMAT, "%s: header of %llu bytes, but only %lld follow; the file is truncated",
                      file->path, (unsigned long long)length, (long long)(size - 8));
  if (length == 0 || bytes[8] != '{')
    return mica_error(MICA_ERR_FORMAT, "%s: the header is not a JSON object", file->path);
  char *where = malloc(strlen(file->path) + 16);
  if (!where) return memory_error(file);
  snprintf(where, strlen(file->path) + 16, "%s: header", file->path);
  mica_status status = micah_json_parse(where, 1, file->bytes + 8, (size_t)length, &file->header);
  free(where);
  if (status < 0) return status;
  int64_t n = 0, data_size = size - 8 - (int64_t)length, all = cJSON_GetArraySize(file->header);
  entry *entries = calloc((size_t)all + 1, sizeof *entries);
  const cJSON *item;
  int notes = 0;
  if (!entries) return memory_error(file);
  cJSON_ArrayForEach(item, file->header) {
    if (!strcmp(item->string, "__metadata__")) {
      status =
          notes++ ? mica_error(MICA_ERR_FORMAT, "%s: __metadata__ is given twice", file->path) : read_meta(file, item);
    } else {
      status = read_entry(file, item, data_size, &entries[n++]);
    }
    if (status < 0) break;
  }
  if (status == MICA_OK) {
    qsort(entries, (size_t)n, sizeof *entries, by_offset);
    status = check_cover(file, entries, n, data_size);
  }
  if (status == MICA_OK) status = place_data(file, entries, n, file->bytes + 8 + length);
  if (status == MICA_OK) status = check_hash(file);
  free(entries);
  return status;
}

/* takes over bytes */
static mica_status make(const char *name, char *bytes, int64_t size, micah_safetensors **out) {
  micah_safetensors *file = calloc(1, sizeof *file);
  if (file) file->path = micah_copy(name, strlen(name));
  if (!file || !file->path) {
    free(bytes);
    free(file);
    return mica_error(MICA_ERR_MEMORY, "%s: out of memory", name);
  }
  file->bytes = bytes;
  mica_status status = load(file, size);
  if (status < 0) {
    micah_safetensors_close(file);
    return status;
  }
  *out = file;
  return MICA_OK;
}

mica_status micah_safetensors_open(const char *path, micah_safetensors **out) {
  char *bytes;
  int64_t size;
  mica_status status = micah_file_read(path, INT64_MAX / 4, &bytes, &size);
  *out = NULL;
  return status < 0 ? status : make(path, bytes, size, out);
}

mica_status micah_safetensors_parse(const char *name, const void *bytes, int64_t size, micah_safetensors **out) {
  char *copy = size >= 0 ? micah_copy(bytes, (size_t)size) : NULL;
  *out = NULL;
  if (!copy) return mica_error(MICA_ERR_MEMORY, "%s: out of memory for %lld bytes", name, (long long)size);
  return make(name, copy, size, out);
}

int64_t micah_safetensors_count(const micah_safetensors *file) { return file->n_tensors; }
const micah_tensor *micah_safetensors_get(const micah_safetensors *file, int64_t i) { return &file->tensors[i]; }
int64_t micah_safetensors_meta_count(const micah_safetensors *file) { return file->n_meta; }
const micah_meta *micah_safetensors_meta_get(const micah_safetensors *file, int64_t i) { return &file->meta[i]; }
const char *micah_safetensors_path(const micah_safetensors *file) { return file->path; }

const micah_tensor *micah_safetensors_find(const micah_safetensors *file, const char *name) {
  micah_tensor wanted = { .name = name }, *key = &wanted;
  micah_tensor **found =
      file->n_tensors ? bsearch(&key, file->sorted, (size_t)file->n_tensors, sizeof *file->sorted, by_name) : NULL;
  return found ? *found : NULL;
}

const char *micah_safetensors_meta(const micah_safetensors *file, const char *key) {
  for (int64_t i = 0; i < file->n_meta; i++)
    if (!strcmp(file->meta[i].key, key)) return file->meta[i].value;
  return NULL;
}

static const char *tensor_name(const void *list, int index) {
  const micah_safetensors *file = list;
  return index < file->n_tensors ? file->tensors[index].name : NULL;
}

/* "(2, 3)" */
static void shape_text(int32_t rank, const int64_t *shape, char *out, size_t size) {
  size_t at = (size_t)snprintf(out, size, "(");
  for (int32_t i = 0; i < rank && at < size; i++)
    at += (size_t)snprintf(out + at, size - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
  if (at < size) snprintf(out + at, size - at, ")");
}

mica_status micah_safetensors_need(const micah_safetensors *file, const char *name, int32_t dtype, int32_t rank,
                                   const int64_t *shape, const micah_tensor **out) {
  const micah_tensor *t = micah_safetensors_find(file, name);
  *out = NULL;
  if (!t) {
    const char *near = micak_nearest(name, tensor_name, file);
    char hint[160] = "";
    char shown[120];
    if (near) snprintf(hint, sizeof hint, "; did you mean '%s'?", micah_quote(near, strlen(near), shown, sizeof shown));
    return mica_error(MICA_ERR_NOT_FOUND, "%s: no tensor '%s'%s", file->path, name, hint);
  }
  if (dtype >= 0 && t->dtype != dtype) {
    const char *expected = micah_safetensors_dtype(dtype);
    return mica_error(MICA_ERR_FORMAT, "%s: tensor '%s': expected dtype %s, got %s", file->path, name,
                      expected ? expected : "?", micah_safetensors_dtype(t->dtype));
  }
  int same = rank < 0 || rank == t->rank;
  for (int32_t i = 0; i < rank && same; i++) same = shape[i] == t->shape[i];
  if (!same) {
    char want[200], got[200];
    shape_text(rank, shape, want, sizeof want);
    shape_text(t->rank, t->shape, got, sizeof got);
    return mica_error(MICA_ERR_SHAPE, "%s: tensor '%s': expected shape %s, got %s", file->path, name, want, got);
  }
  *out = t;
  return MICA_OK;
}
