#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/io/file.h"
#include "host/io/hash.h"
#include "host/io/json.h"
#include "host/io/safetensors_format.h"

static const char *const file_dtypes[MICA_NDTYPE] = {
  [MICA_F32] = "F32", [MICA_F64] = "F64", [MICA_BF16] = "BF16",
  [MICA_I32] = "I32", [MICA_I64] = "I64", [MICA_U8] = "U8",
};

const char *micah_safetensors_dtype(int32_t dtype) {
  return dtype >= 0 && dtype < MICA_NDTYPE ? file_dtypes[dtype] : NULL;
}

int64_t micah_tensor_count(const micah_tensor *tensor) {
  return micah_shape_count(tensor->shape, tensor->rank, mica_dtype_size(tensor->dtype));
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const micah_tensor *const *)a)->name, (*(const micah_tensor *const *)b)->name);
}

static int by_key(const void *a, const void *b) {
  return strcmp((*(const micah_meta *const *)a)->key, (*(const micah_meta *const *)b)->key);
}

/* large elements first, so that each tensor is aligned to its element; then by name, so that files are reproducible */
static int by_size_and_name(const void *a, const void *b) {
  const micah_tensor *x = *(const micah_tensor *const *)a, *y = *(const micah_tensor *const *)b;
  size_t m = mica_dtype_size(x->dtype), n = mica_dtype_size(y->dtype);
  return m != n ? (m < n) - (m > n) : strcmp(x->name, y->name);
}

static const micah_tensor **sorted_tensors(const micah_tensor *tensors, int64_t n,
                                           int (*order)(const void *, const void *)) {
  const micah_tensor **list = malloc((size_t)(n + 1) * sizeof *list);
  if (!list) return NULL;
  for (int64_t i = 0; i < n; i++) list[i] = &tensors[i];
  qsort(list, (size_t)n, sizeof *list, order);
  return list;
}

static const micah_meta **sorted_meta(const micah_meta *meta, int64_t n) {
  const micah_meta **list = malloc((size_t)(n + 1) * sizeof *list);
  if (!list) return NULL;
  for (int64_t i = 0; i < n; i++) list[i] = &meta[i];
  qsort(list, (size_t)n, sizeof *list, by_key);
  return list;
}

mica_status micah_safetensors_hash(const micah_tensor *tensors, int64_t n_tensors, const micah_meta *meta,
                                   int64_t n_meta, char value[MICAH_HASH_VALUE]) {
  const micah_tensor **list = sorted_tensors(tensors, n_tensors, by_name);
  const micah_meta **notes = sorted_meta(meta, n_meta);
  micah_hash *hash = micah_hash_create();
  mica_status status = MICA_OK;
  if (!list || !notes || !hash) {
    status =
        mica_error(MICA_ERR_MEMORY, "safetensors: out of memory for a hash over %lld tensors", (long long)n_tensors);
  } else {
    for (int64_t i = 0; i < n_tensors; i++) {
      const micah_tensor *t = list[i];
      micah_hash_put_text(hash, t->name);
      micah_hash_put_text(hash, micah_safetensors_dtype(t->dtype));
      micah_hash_put_int(hash, t->rank);
      for (int32_t k = 0; k < t->rank; k++) micah_hash_put_int(hash, t->shape[k]);
      micah_hash_put(hash, t->data, (size_t)micah_tensor_count(t) * mica_dtype_size(t->dtype));
    }
    for (int64_t i = 0; i < n_meta; i++) {
      if (!strcmp(notes[i]->key, MICAH_HASH_KEY)) continue;
      micah_hash_put_text(hash, notes[i]->key);
      micah_hash_put_text(hash, notes[i]->value);
    }
    char digits[MICAH_HASH_TEXT];
    micah_hash_finish(hash, digits);
    snprintf(value, MICAH_HASH_VALUE, "%s%s", MICAH_HASH_PREFIX, digits);
  }
  micah_hash_destroy(hash);
  free((void *)list);
  free((void *)notes);
  return status;
}

static int valid_name(const char *name) {
  size_t size = name ? strlen(name) : 0;
  for (size_t i = 0; i < size;) {
    size_t n = micah_utf8_length(name + i, size - i);
    if (!n) return 0;
    i += n;
  }
  return size > 0;
}

static mica_status check(const char *path, const micah_tensor *tensors, int64_t n_tensors, const micah_meta *meta,
                         int64_t n_meta) {
  for (int64_t i = 0; i < n_tensors; i++) {
    const micah_tensor *t = &tensors[i];
    if (!valid_name(t->name) || !strcmp(t->name, "__metadata__"))
      return mica_error(MICA_ERR_INVALID, "%s: tensor %lld: the name '%s' is not allowed", path, (long long)i,
                        t->name ? t->name : "");
    if (!micah_safetensors_dtype(t->dtype))
      return mica_error(MICA_ERR_INVALID, "%s: tensor '%s': unknown dtype %d", path, t->name, (int)t->dtype);
    if (t->rank < 0 || t->rank > MICAH_MAX_DIMS)
      return mica_error(MICA_ERR_INVALID, "%s: tensor '%s': rank %d, at most %d are written", path, t->name,
                        (int)t->rank, (int)MICAH_MAX_DIMS);
    int64_t count = micah_tensor_count(t);
    if (count < 0) return mica_error(MICA_ERR_INVALID, "%s: tensor '%s': impossible shape", path, t->name);
    if (count && !t->data) return mica_error(MICA_ERR_INVALID, "%s: tensor '%s': no data", path, t->name);
  }
  for (int64_t i = 0; i < n_meta; i++)
    if (!valid_name(meta[i].key) || !meta[i].value || !strcmp(meta[i].key, MICAH_HASH_KEY) ||
        (meta[i].value[0] && !valid_name(meta[i].value)))
      return mica_error(MICA_ERR_INVALID, "%s: metadata '%s': key or value is not allowed (UTF-8 text, not mica.hash)",
                        path, meta[i].key ? meta[i].key : "");
  return MICA_OK;
}

/* the JSON header, padded with blanks so that the data start at a multiple of 8 */
static mica_status header(const char *path, const micah_tensor *const *list, int64_t n, const micah_meta *const *notes,
                          int64_t n_meta, const char *hash, micah_json *json, const char **out) {
  int64_t offset = 0;
  micah_json_object(json, NULL);
  micah_json_object(json, "__metadata__");
  for (int64_t i = 0; i < n_meta; i++) micah_json_string(json, notes[i]->key, notes[i]->value);
  micah_json_string(json, MICAH_HASH_KEY, hash);
  micah_json_end(json);
  for (int64_t i = 0; i < n; i++) {
    const micah_tensor *t = list[i];
    int64_t bytes = micah_tensor_count(t) * (int64_t)mica_dtype_size(t->dtype);
    if (bytes > INT64_MAX / 2 - offset) return mica_error(MICA_ERR_INVALID, "%s: tensors too large for a file", path);
    micah_json_object(json, t->name);
    micah_json_string(json, "dtype", micah_safetensors_dtype(t->dtype));
    micah_json_array(json, "shape");
    for (int32_t k = 0; k < t->rank; k++) micah_json_int(json, NULL, t->shape[k]);
    micah_json_end(json);
    micah_json_array(json, "data_offsets");
    micah_json_int(json, NULL, offset);
    micah_json_int(json, NULL, offset + bytes);
    micah_json_end(json);
    micah_json_end(json);
    offset += bytes;
  }
  micah_json_end(json);
  mica_status status = micah_json_finish(json, out);
  if (status < 0) return status;
  while (json->text.size % 8) micah_text_add(&json->text, " ");
  if ((status = micah_text_check(&json->text, path)) < 0) return status;
  *out = json->text.data;
  if (json->text.size > MICAH_SAFETENSORS_HEADER)
    return mica_error(MICA_ERR_INVALID, "%s: the names of %lld tensors make a header of %zu bytes, more than %d", path,
                      (long long)n, json->text.size, (int)MICAH_SAFETENSORS_HEADER);
  return MICA_OK;
}

mica_status micah_safetensors_write(const char *path, const micah_tensor *tensors, int64_t n_tensors,
                                    const micah_meta *meta, int64_t n_meta) {
  char hash[MICAH_HASH_VALUE];
  micah_json json = { 0 };
  micah_writer *writer = NULL;
  const char *text;
  mica_status status = check(path, tensors, n_tensors, meta, n_meta);
  if (status < 0) return status;
  const micah_tensor **list = sorted_tensors(tensors, n_tensors, by_name);
  const micah_meta **notes = sorted_meta(meta, n_meta);
  if (!list || !notes) status = mica_error(MICA_ERR_MEMORY, "%s: out of memory", path);
  for (int64_t i = 1; i < n_tensors && status == MICA_OK; i++)
    if (!strcmp(list[i - 1]->name, list[i]->name))
      status = mica_error(MICA_ERR_INVALID, "%s: two tensors have the name '%s'", path, list[i]->name);
  for (int64_t i = 1; i < n_meta && status == MICA_OK; i++)
    if (!strcmp(notes[i - 1]->key, notes[i]->key))
      status = mica_error(MICA_ERR_INVALID, "%s: two metadata entries have the key '%s'", path, notes[i]->key);
  if (status == MICA_OK) status = micah_safetensors_hash(tensors, n_tensors, meta, n_meta, hash);
  if (status == MICA_OK) {
    qsort(list, (size_t)n_tensors, sizeof *list, by_size_and_name);
    status = header(path, list, n_tensors, notes, n_meta, hash, &json, &text);
  }
  if (status == MICA_OK) status = micah_writer_begin(path, &writer);
  if (status == MICA_OK) {
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)json.text.size >> (8 * i));
    status = micah_writer_put(writer, length, 8);
  }
  if (status == MICA_OK) status = micah_writer_put(writer, text, (int64_t)json.text.size);
  for (int64_t i = 0; i < n_tensors && status == MICA_OK; i++)
    status =
        micah_writer_put(writer, list[i]->data, micah_tensor_count(list[i]) * (int64_t)mica_dtype_size(list[i]->dtype));
  if (status == MICA_OK) status = micah_writer_commit(writer);
  else micah_writer_abort(writer);
  micah_json_free(&json);
  free((void *)list);
  free((void *)notes);
  return status;
}
