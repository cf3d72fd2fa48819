/* safetensors: round trips, the published layout, every check of the reader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/io/file.h"
#include "host/io/hash.h"
#include "host/io/safetensors.h"

static char path[] = "/tmp/mica_st_XXXXXX";

static int setup(void **state) {
  (void)state;
  int fd = mkstemp(path);
  if (fd < 0) return -1;
  close(fd);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  return unlink(path);
}

static void expect_message(const char *part) {
  if (!strstr(mica_last_error(), part)) print_error("message: %s\nwanted:  %s\n", mica_last_error(), part);
  assert_non_null(strstr(mica_last_error(), part));
}

static const float f32[6] = { 1, 2, 3, 4, 5, 6 };
static const double f64[2] = { 0.5, -0.25 };
static const int32_t i32[3] = { 7, 8, 9 };
static const int64_t i64[1] = { INT64_MIN };
static const uint8_t u8[3] = { 1, 2, 255 };
static const uint16_t bf16[5] = { 0x3f80, 0, 0x4000, 1, 2 };

static const micah_tensor tensors[] = {
  { "odd.u8", MICA_U8, 1, { 3 }, u8 },
  { "layers.0.weight", MICA_F32, 2, { 2, 3 }, f32 },
  { "d \"quoted\" \xC3\xA9", MICA_F64, 1, { 2 }, f64 },
  { "i", MICA_I32, 3, { 1, 3, 1 }, i32 },
  { "step", MICA_I64, 0, { 0 }, i64 },
  { "half", MICA_BF16, 1, { 5 }, bf16 },
  { "nothing", MICA_F32, 2, { 0, 4 }, NULL },
};
enum { N = sizeof tensors / sizeof *tensors };

static void test_round_trip(void **state) {
  (void)state;
  static const micah_meta meta[] = { { "seed", "3" }, { "note", "line\nbreak \"x\"" } };
  micah_safetensors *file;
  assert_int_equal(micah_safetensors_write(path, tensors, N, meta, 2), MICA_OK);
  assert_int_equal(micah_safetensors_open(path, &file), MICA_OK);
  assert_int_equal(micah_safetensors_count(file), N);
  for (int i = 0; i < N; i++) {
    const micah_tensor *t;
    assert_int_equal(
        micah_safetensors_need(file, tensors[i].name, tensors[i].dtype, tensors[i].rank, tensors[i].shape, &t),
        MICA_OK);
    assert_int_equal(micah_tensor_count(t), micah_tensor_count(&tensors[i]));
    assert_int_equal((uintptr_t)t->data % mica_dtype_size(t->dtype), 0);
    size_t bytes = (size_t)micah_tensor_count(t) * mica_dtype_size(t->dtype);
    if (bytes) assert_memory_equal(t->data, tensors[i].data, bytes);
  }
  assert_string_equal(micah_safetensors_meta(file, "note"), "line\nbreak \"x\"");
  assert_null(micah_safetensors_meta(file, "none"));
  assert_int_equal(micah_safetensors_meta_count(file), 3);
  assert_int_equal(strncmp(micah_safetensors_meta(file, "mica.hash"), "xxh3-128:", 9), 0);
  const micah_tensor *t;
  assert_int_equal(micah_safetensors_need(file, "layers.0.wieght", -1, -1, NULL, &t), MICA_ERR_NOT_FOUND);
  expect_message("no tensor 'layers.0.wieght'; did you mean 'layers.0.weight'?");
  expect_message(path);
  assert_int_equal(micah_safetensors_need(file, "i", MICA_F32, -1, NULL, &t), MICA_ERR_FORMAT);
  expect_message("expected dtype F32, got I32");
  assert_int_equal(micah_safetensors_need(file, "i", -1, 2, tensors[1].shape, &t), MICA_ERR_SHAPE);
  expect_message("expected shape (2, 3), got (1, 3, 1)");
  micah_safetensors_close(file);
}

/* the same tensors in another order give the same bytes */
static void test_reproducible(void **state) {
  (void)state;
  micah_tensor back[N];
  char *one, *two;
  int64_t n, m;
  for (int i = 0; i < N; i++) back[i] = tensors[N - 1 - i];
  assert_int_equal(micah_safetensors_write(path, tensors, N, NULL, 0), MICA_OK);
  assert_int_equal(micah_file_read(path, 1 << 20, &one, &n), MICA_OK);
  assert_int_equal(micah_safetensors_write(path, back, N, NULL, 0), MICA_OK);
  assert_int_equal(micah_file_read(path, 1 << 20, &two, &m), MICA_OK);
  assert_int_equal(n, m);
  assert_memory_equal(one, two, n);
  free(one);
  free(two);
}

/* every single changed byte of a file is noticed, but for those of the key that names the hash */
static void test_damage(void **state) {
  (void)state;
  static const micah_meta meta[] = { { "step", "12" } };
  char *bytes;
  int64_t size, passed = 0;
  assert_int_equal(micah_safetensors_write(path, tensors, N, meta, 1), MICA_OK);
  assert_int_equal(micah_file_read(path, 1 << 20, &bytes, &size), MICA_OK);
  for (int64_t i = 0; i < size; i++) {
    micah_safetensors *file;
    bytes[i] ^= 1;
    if (micah_safetensors_parse("x", bytes, size, &file) == MICA_OK) {
      passed++;
      micah_safetensors_close(file);
    }
    bytes[i] ^= 1;
  }
  assert_int_equal(passed, strlen("mica.hash"));
  /* every truncation too */
  for (int64_t i = 0; i < size; i++) {
    micah_safetensors *file;
    assert_int_equal(micah_safetensors_parse("x", bytes, i, &file), MICA_ERR_FORMAT);
    assert_null(file);
  }
  free(bytes);
}

/* a file of this header and `data` zero bytes */
static mica_status parse_header(const char *header, size_t data) {
  char bytes[2048] = { 0 };
  size_t n = strlen(header);
  for (int i = 0; i < 8; i++) bytes[i] = (char)(n >> (8 * i));
  memcpy(bytes + 8, header, n);
  micah_safetensors *file;
  mica_status status = micah_safetensors_parse("f.safetensors", bytes, (int64_t)(8 + n + data), &file);
  if (status == MICA_OK) micah_safetensors_close(file);
  return status;
}

static void expect(const char *header, size_t data, const char *part) {
  assert_int_equal(parse_header(header, data), MICA_ERR_FORMAT);
  expect_message("f.safetensors");
  expect_message(part);
}

static void test_header(void **state) {
  (void)state;
  assert_int_equal(parse_header("{}", 0), MICA_OK);
  assert_int_equal(parse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ", 8), MICA_OK);
  /* not aligned: begins at byte 1 of the data */
  assert_int_equal(parse_header("{\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                "\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[1,9]}}",
                                9),
                   MICA_OK);
  expect("[]", 0, "not a JSON object");
  expect("{\"a\":", 0, "f.safetensors: header:1:6: JSON ends too early");
  expect("{\"a\":1}", 0, "tensor 'a': expected an object");
  expect("{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor 'a': 'dtype' is missing");
  expect("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "'dtype' is given twice");
  expect("{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "dtype 'F16', expected F32, F64");
  expect("{\"a\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "dtype is not text");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "shape is not a list");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "shape[0] is not a whole number");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,8]}}", 8, "shape[0] is not a whole number");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "9 axes, at most 8");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", 8, "shape overflows");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "need 12 bytes, data_offsets give 8");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "the file is truncated");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "outside");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "not [begin, end]");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12,
         "12 bytes of data, the tensors take 8");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],"
         "\"data_offsets\":[2,6]}}",
         6, "expected 4 (overlap)");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],"
         "\"data_offsets\":[8,12]}}",
         12, "expected 4 (gap)");
  expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],"
         "\"data_offsets\":[4,8]}}",
         8, "tensor 'a': is given twice");
  expect("{\"__metadata__\":{\"k\":1}}", 0, "__metadata__ 'k' is not text");
  expect("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
  expect("{\"__metadata__\":{\"k\":\"\",\"k\":\"\"}}", 0, "__metadata__ 'k' is given twice");
  expect("{\"__metadata__\":{\"mica.hash\":\"xxh3-128:0\"}}", 0, "content hash differs");
  static const unsigned char huge[] = { 255, 255, 255, 255, 255, 255, 255, 255, '{', '}' };
  micah_safetensors *file;
  assert_int_equal(micah_safetensors_parse("h", huge, sizeof huge, &file), MICA_ERR_FORMAT);
  expect_message("at most 100000000 are read");
}

static void test_refuse(void **state) {
  (void)state;
  micah_tensor two[2] = { tensors[0], tensors[0] };
  assert_int_equal(micah_safetensors_write(path, two, 2, NULL, 0), MICA_ERR_INVALID);
  expect_message("two tensors have the name 'odd.u8'");
  two[0].name = "__metadata__";
  assert_int_equal(micah_safetensors_write(path, two, 1, NULL, 0), MICA_ERR_INVALID);
  two[0].name = "\xff";
  assert_int_equal(micah_safetensors_write(path, two, 1, NULL, 0), MICA_ERR_INVALID);
  two[0].name = "x";
  two[0].shape[0] = -1;
  assert_int_equal(micah_safetensors_write(path, two, 1, NULL, 0), MICA_ERR_INVALID);
  expect_message("impossible shape");
  two[0].shape[0] = 4;
  two[0].data = NULL;
  assert_int_equal(micah_safetensors_write(path, two, 1, NULL, 0), MICA_ERR_INVALID);
  static const micah_meta meta[] = { { "k", "1" }, { "k", "2" } }, taken[] = { { "mica.hash", "1" } };
  assert_int_equal(micah_safetensors_write(path, tensors, N, meta, 2), MICA_ERR_INVALID);
  expect_message("two metadata entries have the key 'k'");
  assert_int_equal(micah_safetensors_write(path, tensors, N, taken, 1), MICA_ERR_INVALID);
  micah_safetensors *file;
  assert_int_equal(micah_safetensors_open("no/such.safetensors", &file), MICA_ERR_IO);
  expect_message("no/such.safetensors");
  assert_int_equal(micah_safetensors_write("no/such.safetensors", tensors, N, NULL, 0), MICA_ERR_IO);
  expect_message("no/such.safetensors");
}

/* XXH3 of 128 bits; the empty value is published with the algorithm */
static void test_hash(void **state) {
  (void)state;
  char text[MICAH_HASH_TEXT], pieces[MICAH_HASH_TEXT];
  char data[1000];
  micah_hash *hash = micah_hash_create();
  for (int i = 0; i < 1000; i++) data[i] = (char)(i * 7);
  micah_hash_of("", 0, text);
  assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
  micah_hash_of(data, 1000, text);
  for (size_t i = 0; i < 1000; i += 100) micah_hash_put(hash, data + i, 100);
  micah_hash_finish(hash, pieces);
  assert_string_equal(text, pieces);
  micah_hash_destroy(hash);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_round_trip), cmocka_unit_test(test_reproducible), cmocka_unit_test(test_damage),
    cmocka_unit_test(test_header),     cmocka_unit_test(test_refuse),       cmocka_unit_test(test_hash),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
