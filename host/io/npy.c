#include "host/io/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/io/file.h"
#include "host/io/text.h"

/* NumPy's type code, its size, and what it becomes here */
static const struct {
  const char *code;
  int size, dtype;
} types[] = {
  { "f4", 4, MICA_F32 }, { "f8", 8, MICA_F64 }, { "i4", 4, MICA_I32 }, { "i8", 8, MICA_I64 }, { "u1", 1, MICA_U8 },
  { "b1", 1, MICA_U8 },  { "i1", 1, MICA_I32 }, { "i2", 2, MICA_I32 }, { "u2", 2, MICA_I32 },
};

/* the header is a Python dictionary of three known keys; this walks its text */
typedef struct cursor {
  const char *name, *p, *end;
} cursor;

static mica_status header_error(const cursor *c, const char *problem) {
  char shown[60];
  return mica_error(MICA_ERR_FORMAT, "%s: header: %s at '%s'", c->name, problem,
                    micah_quote(c->p, (size_t)(c->end - c->p), shown, sizeof shown));
}

static void blanks(cursor *c) {
  while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\t' || *c->p == '\r')) c->p++;
}

static int take(cursor *c, char wanted) {
  blanks(c);
  if (c->p >= c->end || *c->p != wanted) return 0;
  c->p++;
  return 1;
}

static int take_word(cursor *c, const char *word) {
  size_t n = strlen(word);
  blanks(c);
  if ((size_t)(c->end - c->p) < n || memcmp(c->p, word, n)) return 0;
  c->p += n;
  return 1;
}

/* 'text' or "text" into out */
static mica_status take_string(cursor *c, char *out, size_t size) {
  char quote = 0;
  if (take(c, '\'')) quote = '\'';
  else if (take(c, '"')) quote = '"';
  if (!quote) return header_error(c, "expected a quoted text");
  size_t n = 0;
  while (c->p < c->end && *c->p != quote && n + 1 < size) out[n++] = *c->p++;
  out[n] = 0;
  if (c->p >= c->end || *c->p != quote) return header_error(c, "text is too long or does not end");
  c->p++;
  return MICA_OK;
}

static mica_status take_shape(cursor *c, micah_array *array) {
  if (!take(c, '(')) return header_error(c, "expected '(' of the shape");
  array->rank = 0;
  while (!take(c, ')')) {
    blanks(c);
    const char *first = c->p;
    while (c->p < c->end && *c->p >= '0' && *c->p <= '9') c->p++;
    int64_t size;
    if (c->p == first || !micah_parse_int(first, (size_t)(c->p - first), &size)) {
      c->p = first;
      return header_error(c, "expected a size of the shape");
    }
    if (array->rank == MICAH_MAX_DIMS)
      return mica_error(MICA_ERR_FORMAT, "%s: more than %d axes", c->name, (int)MICAH_MAX_DIMS);
    array->shape[array->rank++] = size;
    (void)take(c, 'L'); /* Python 2 wrote long integers so */
    if (!take(c, ',') && (blanks(c), c->p >= c->end || *c->p != ')'))
      return header_error(c, "expected ',' or ')' in the shape");
  }
  return MICA_OK;
}

static mica_status find_type(const cursor *c, const char *descr, size_t *type) {
  size_t n = strlen(descr);
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (n != 3 || strcmp(descr + 1, types[i].code)) continue;
    if (descr[0] == '>' && types[i].size > 1)
      return mica_error(MICA_ERR_FORMAT,
                        "%s: dtype '%s' is big-endian, expected little-endian; save with "
                        "array.astype('<%s')",
                        c->name, descr, types[i].code);
    if (descr[0] != '<' && descr[0] != '|' && descr[0] != '=' && descr[0] != '>') break;
    *type = i;
    return MICA_OK;
  }
  char shown[60];
  return mica_error(MICA_ERR_FORMAT, "%s: dtype '%s', expected one of f4 f8 i1 i2 i4 i8 u1 u2 b1", c->name,
                    micah_quote(descr, n, shown, sizeof shown));
}

static mica_status read_header(cursor *c, micah_array *array, size_t *type) {
  int seen[3] = { 0, 0, 0 };
  static const char *const keys[] = { "descr", "fortran_order", "shape" };
  mica_status status = MICA_OK;
  if (!take(c, '{')) return header_error(c, "expected '{'");
  while (!take(c, '}')) {
    char key[32];
    if ((status = take_string(c, key, sizeof key)) < 0) return status;
    int k = 0;
    while (k < 3 && strcmp(keys[k], key)) k++;
    if (k == 3 || seen[k]) return header_error(c, k == 3 ? "unknown key before" : "key given twice before");
    seen[k] = 1;
    if (!take(c, ':')) return header_error(c, "expected ':'");
    if (k == 0) {
      char descr[32];
      blanks(c);
      if (c->p < c->end && *c->p == '[')
        return mica_error(MICA_ERR_FORMAT, "%s: a structured dtype, expected plain numbers", c->name);
      if ((status = take_string(c, descr, sizeof descr)) < 0) return status;
      status = find_type(c, descr, type);
    } else if (k == 1) {
      if (take_word(c, "True"))
        return mica_error(MICA_ERR_FORMAT, "%s: Fortran order, expected C order; save numpy.ascontiguousarray(array)",
                          c->name);
      if (!take_word(c, "False")) return header_error(c, "expected True or False");
    } else {
      status = take_shape(c, array);
    }
    if (status < 0) return status;
    if (!take(c, ',') && (blanks(c), c->p >= c->end || *c->p != '}')) return header_error(c, "expected ',' or '}'");
  }
  for (int k = 0; k < 3; k++)
    if (!seen[k]) return mica_error(MICA_ERR_FORMAT, "%s: header: '%s' is missing", c->name, keys[k]);
  blanks(c);
  return c->p == c->end ? MICA_OK : header_error(c, "text after '}'");
}

/* little-endian bytes to this machine's numbers; small integers widen */
static void convert(const unsigned char *from, int64_t count, size_t type, void *to) {
  const char *code = types[type].code;
  if (!strcmp(code, "i1")) {
    for (int64_t i = 0; i < count; i++) ((int32_t *)to)[i] = from[i] - (from[i] >= 128 ? 256 : 0);
  } else if (code[0] != 'b' && types[type].size == 2) {
    for (int64_t i = 0; i < count; i++) {
      int32_t value = from[2 * i] | from[2 * i + 1] << 8;
      ((int32_t *)to)[i] = code[0] == 'i' && value >= 32768 ? value - 65536 : value;
    }
  } else if (count) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (int64_t i = 0; i < count; i++)
      for (int k = 0; k < types[type].size; k++)
        ((unsigned char *)to)[i * types[type].size + k] = from[i * types[type].size + types[type].size - 1 - k];
#else
    memcpy(to, from, (size_t)count * (size_t)types[type].size);
#endif
  }
}

mica_status micah_npy_parse(const char *name, const void *bytes, int64_t size, micah_array *array) {
  const unsigned char *b = bytes;
  memset(array, 0, sizeof *array);
  if (size < 10 || memcmp(b, "\x93NUMPY", 6))
    return mica_error(MICA_ERR_FORMAT, "%s: not a .npy file (it does not begin with \\x93NUMPY)%s", name,
                      size >= 2 && !memcmp(b, "PK", 2) ? "; it is a .npz, unpack it" : "");
  int major = b[6];
  if (major < 1 || major > 3)
    return mica_error(MICA_ERR_FORMAT, "%s: .npy version %d.%d, expected 1.0 to 3.0", name, major, b[7]);
  int64_t prefix = major == 1 ? 10 : 12, length = b[8] | b[9] << 8;
  if (major > 1 && size >= 12) length |= (int64_t)b[10] << 16 | (int64_t)b[11] << 24;
  if (size < prefix || length > size - prefix)
    return mica_error(MICA_ERR_FORMAT, "%s: header of %lld bytes, but only %lld follow; the file is truncated", name,
                      (long long)length, (long long)(size < prefix ? 0 : size - prefix));
  cursor c = { name, (const char *)b + prefix, (const char *)b + prefix + length };
  size_t type = 0;
  mica_status status = read_header(&c, array, &type);
  if (status < 0) return status;
  int64_t count = micah_shape_count(array->shape, array->rank, 8), data = size - prefix - length;
  if (count < 0) return mica_error(MICA_ERR_FORMAT, "%s: shape overflows", name);
  if (count * types[type].size != data)
    return mica_error(MICA_ERR_FORMAT, "%s: shape and dtype need %lld bytes of data, the file has %lld%s", name,
                      (long long)(count * types[type].size), (long long)data,
                      count * types[type].size > data ? "; it is truncated" : "");
  array->dtype = types[type].dtype;
  array->count = count;
  size_t room = (size_t)count * mica_dtype_size(array->dtype);
  array->data = malloc(room ? room : 1);
  if (!array->data) return mica_error(MICA_ERR_MEMORY, "%s: out of memory for %zu bytes", name, room);
  convert(b + prefix + length, count, type, array->data);
  return MICA_OK;
}

mica_status micah_npy_read(const char *path, micah_array *array) {
  char *bytes;
  int64_t size;
  memset(array, 0, sizeof *array);
  mica_status status = micah_file_read(path, INT64_MAX / 4, &bytes, &size);
  if (status < 0) return status;
  status = micah_npy_parse(path, bytes, size, array);
  free(bytes);
  return status;
}

mica_status micah_npy_write(const char *path, const micah_array *array) {
  static const char *const descr[MICA_NDTYPE] = {
    [MICA_F32] = "<f4", [MICA_F64] = "<f8", [MICA_I32] = "<i4", [MICA_I64] = "<i8", [MICA_U8] = "|u1",
  };
  const char *code = array->dtype >= 0 && array->dtype < MICA_NDTYPE ? descr[array->dtype] : NULL;
  if (!code)
    return mica_error(MICA_ERR_INVALID, "%s: .npy has no dtype %s; write F32, F64, I32, I64 or U8", path,
                      mica_dtype_name(array->dtype));
  if (array->rank < 0 || array->rank > MICAH_MAX_DIMS)
    return mica_error(MICA_ERR_INVALID, "%s: rank %d, at most %d are written", path, (int)array->rank,
                      (int)MICAH_MAX_DIMS);
  int64_t count = micah_shape_count(array->shape, array->rank, 8);
  if (count < 0 || (count && !array->data))
    return mica_error(MICA_ERR_INVALID, "%s: impossible shape or no data", path);
  micah_text header = { 0 };
  micah_text_put(&header, "\x93NUMPY\x01\0\0\0", 10);
  micah_text_format(&header, "{'descr': '%s', 'fortran_order': False, 'shape': (", code);
  for (int32_t i = 0; i < array->rank; i++)
    micah_text_format(&header, "%lld%s", (long long)array->shape[i],
                      array->rank == 1      ? ","
                      : i + 1 < array->rank ? ", "
                                            : "");
  micah_text_add(&header, "), }");
  while ((header.size + 1) % 64) micah_text_add(&header, " ");
  micah_text_add(&header, "\n");
  mica_status status = micah_text_check(&header, path);
  micah_writer *writer = NULL;
  if (status == MICA_OK) {
    header.data[8] = (char)((header.size - 10) & 255);
    header.data[9] = (char)((header.size - 10) >> 8);
    status = micah_writer_begin(path, &writer);
  }
  if (status == MICA_OK) status = micah_writer_put(writer, header.data, (int64_t)header.size);
  if (status == MICA_OK) status = micah_writer_put(writer, array->data, count * (int64_t)mica_dtype_size(array->dtype));
  if (status == MICA_OK) status = micah_writer_commit(writer);
  else micah_writer_abort(writer);
  micah_text_free(&header);
  return status;
}
