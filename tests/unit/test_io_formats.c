/* files, npy, csv, jsonl, idx, json: round trips and messages. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/io/csv.h"
#include "host/io/file.h"
#include "host/io/idx.h"
#include "host/io/json.h"
#include "host/io/jsonl.h"
#include "host/io/npy.h"

static char folder[] = "/tmp/mica_io_XXXXXX";

static int setup(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
  (void)state;
  char command[100];
  snprintf(command, sizeof command, "rm -r %s", folder);
  return system(command);
}

static void expect_message(const char *part) {
  if (!strstr(mica_last_error(), part)) print_error("message: %s\nwanted:  %s\n", mica_last_error(), part);
  assert_non_null(strstr(mica_last_error(), part));
}

static void expect_content(const char *path, const char *content) {
  char *data;
  int64_t size;
  assert_int_equal(micah_file_read(path, 1 << 20, &data, &size), MICA_OK);
  assert_int_equal(size, strlen(content));
  assert_string_equal(data, content);
  free(data);
}

static int64_t files_in(const char *path) {
  char command[200];
  int64_t count = -1;
  snprintf(command, sizeof command, "ls -A %s | wc -l", path);
  FILE *pipe = popen(command, "r");
  long long n;
  if (pipe && fscanf(pipe, "%lld", &n) == 1) count = n;
  if (pipe) pclose(pipe);
  return count;
}

/* ---- files ---- */

static void test_file(void **state) {
  (void)state;
  char *path = micah_path_join(folder, "a.txt");
  assert_int_equal(micah_file_write(path, "one", 3), MICA_OK);
  expect_content(path, "one");
  assert_int_equal(micah_file_write(path, "", 0), MICA_OK);
  expect_content(path, "");
  assert_int_equal(micah_file_append(path, "{\"step\": 1}"), MICA_OK);
  assert_int_equal(micah_file_append(path, ""), MICA_OK);
  expect_content(path, "{\"step\": 1}\n\n");
  char *data;
  int64_t size;
  assert_int_equal(micah_file_read(path, 5, &data, &size), MICA_ERR_FORMAT);
  expect_message("limit of 5");
  assert_null(data);
  assert_int_equal(micah_file_read(folder, 5, &data, &size), MICA_ERR_IO);
  expect_message("is a folder");
  assert_int_equal(micah_file_read("/dev/zero", 100000, &data, &size), MICA_ERR_FORMAT);
  expect_message("longer than the limit");
  assert_int_equal(micah_file_write("no/such/x", "", 0), MICA_ERR_IO);
  expect_message("no/such/x: cannot write: No such file");
  assert_int_equal(micah_file_append("no/such/x", ""), MICA_ERR_IO);
  assert_int_equal(micah_file_write(folder, "", 0), MICA_ERR_IO);
  expect_message("cannot replace");
  assert_int_equal(micah_file_write("", "", 0), MICA_ERR_INVALID);
  assert_int_equal(micah_path_kind(path), MICAH_PATH_FILE);
  assert_int_equal(micah_path_kind(folder), MICAH_PATH_FOLDER);
  assert_int_equal(micah_path_kind("no/such"), MICAH_PATH_NONE);
  assert_int_equal(micah_path_kind("/dev/null"), MICAH_PATH_OTHER);
  char *below = micah_path_join(path, "b/c");
  assert_int_equal(micah_path_mkdirs(below), MICA_ERR_IO);
  expect_message("Not a directory");
  free(below);
  free(path);
}

static void expect_path(char *path, const char *wanted) {
  assert_string_equal(path, wanted);
  free(path);
}

static void test_paths(void **state) {
  (void)state;
  expect_path(micah_path_folder("a"), ".");
  expect_path(micah_path_folder("/a"), "/");
  expect_path(micah_path_folder("a/b//c"), "a/b");
  expect_path(micah_path_join("a", "b"), "a/b");
  expect_path(micah_path_join("a/", "b"), "a/b");
  expect_path(micah_path_join("a", "/b"), "/b");
  expect_path(micah_path_join("", "b"), "b");
  assert_string_equal(micah_path_name("a/b"), "b");
  assert_string_equal(micah_path_name("b"), "b");
  expect_path(micah_path_absolute("/no/such"), "/no/such");
  char *made = micah_path_join(folder, "list/sub");
  assert_int_equal(micah_path_mkdirs(made), MICA_OK);
  assert_int_equal(micah_path_mkdirs(made), MICA_OK);
  char *list = micah_path_join(folder, "list"), **names;
  int64_t n;
  const char *files[] = { "b.txt", "a.txt", ".hidden", "c.tmp-12-0" };
  for (int i = 0; i < 4; i++) {
    char *file = micah_path_join(list, files[i]);
    assert_int_equal(micah_file_write(file, "x", 1), MICA_OK);
    free(file);
  }
  assert_int_equal(micah_path_list(list, &names, &n), MICA_OK);
  assert_int_equal(n, 2);
  assert_string_equal(names[0], "a.txt");
  micah_path_list_free(names, n);
  assert_int_equal(micah_file_sweep(list), MICA_OK);
  assert_int_equal(files_in(list), 4);
  assert_int_equal(micah_path_list("no/such", &names, &n), MICA_ERR_IO);
  assert_int_equal(micah_file_sweep("no/such"), MICA_ERR_IO);
  free(made);
  free(list);
}

/* a write that the system refuses half way leaves the old file and no temporary one */
static void test_atomic_refused(void **state) {
  (void)state;
  char *sub = micah_path_join(folder, "refused");
  assert_int_equal(micah_path_mkdirs(sub), MICA_OK);
  char *path = micah_path_join(sub, "weights");
  assert_int_equal(micah_file_write(path, "good", 4), MICA_OK);
  pid_t child = fork();
  if (child == 0) {
    struct rlimit limit = { 1000, 1000 };
    char data[5000] = { 0 };
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    mica_status status = micah_file_write(path, data, sizeof data);
    _exit(status == MICA_ERR_IO && strstr(mica_last_error(), "weights") ? 0 : 1);
  }
  int result;
  waitpid(child, &result, 0);
  assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  expect_content(path, "good");
  assert_int_equal(files_in(sub), 1);
  free(sub);
  free(path);
}

/* SIGKILL at any moment: the file is always one whole version, and sweep clears what is left */
static void test_atomic_killed(void **state) {
  (void)state;
  enum { SIZE = 200000, KILLS = 12 };
  char *sub = micah_path_join(folder, "killed");
  assert_int_equal(micah_path_mkdirs(sub), MICA_OK);
  char *path = micah_path_join(sub, "weights"), *first = malloc(SIZE);
  memset(first, 'a', SIZE);
  assert_int_equal(micah_file_write(path, first, SIZE), MICA_OK);
  for (int k = 0; k < KILLS; k++) {
    pid_t child = fork();
    if (child == 0) {
      char *data = malloc(SIZE);
      for (int i = 0; data; i++) {
        micah_writer *writer;
        memset(data, 'a' + i % 26, SIZE);
        if (micah_writer_begin(path, &writer) < 0) _exit(1);
        for (int at = 0; at < SIZE; at += SIZE / 20)
          if (micah_writer_put(writer, data + at, SIZE / 20) < 0) _exit(1);
        if (micah_writer_commit(writer) < 0) _exit(1);
      }
      _exit(1);
    }
    usleep(2000 + 1777 * (unsigned)k);
    kill(child, SIGKILL);
    int result;
    waitpid(child, &result, 0);
    assert_true(WIFSIGNALED(result));
    char *data;
    int64_t size;
    assert_int_equal(micah_file_read(path, 1 << 20, &data, &size), MICA_OK);
    assert_int_equal(size, SIZE);
    for (int i = 1; i < SIZE; i++) assert_int_equal(data[i], data[0]);
    free(data);
  }
  assert_int_equal(micah_file_sweep(sub), MICA_OK);
  assert_int_equal(files_in(sub), 1);
  free(first);
  free(path);
  free(sub);
}

/* ---- npy ---- */

static void test_npy(void **state) {
  (void)state;
  char *path = micah_path_join(folder, "x.npy");
  static const double f64[6] = { 1, -2.5, 3, 4, 5, 1e300 };
  static const float f32[2] = { 1, 2 };
  static const int64_t i64[3] = { 1, INT64_MIN, INT64_MAX };
  static const int32_t i32[1] = { -7 };
  static const uint8_t u8[4] = { 0, 1, 254, 255 };
  const micah_array arrays[] = {
    { MICA_F64, 2, { 2, 3 }, 6, (void *)(uintptr_t)f64 },    { MICA_F32, 1, { 2 }, 2, (void *)(uintptr_t)f32 },
    { MICA_I64, 3, { 3, 1, 1 }, 3, (void *)(uintptr_t)i64 }, { MICA_I32, 0, { 0 }, 1, (void *)(uintptr_t)i32 },
    { MICA_U8, 1, { 4 }, 4, (void *)(uintptr_t)u8 },         { MICA_F32, 2, { 0, 3 }, 0, NULL },
  };
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
    micah_array back;
    assert_int_equal(micah_npy_write(path, &arrays[i]), MICA_OK);
    assert_int_equal(micah_npy_read(path, &back), MICA_OK);
    assert_int_equal(back.dtype, arrays[i].dtype);
    assert_int_equal(back.rank, arrays[i].rank);
    assert_int_equal(back.count, arrays[i].count);
    for (int k = 0; k < back.rank; k++) assert_int_equal(back.shape[k], arrays[i].shape[k]);
    for (int64_t k = 0; k < back.count; k++) assert_true(micah_array_get(&back, k) == micah_array_get(&arrays[i], k));
    micah_array_free(&back);
  }
  micah_array bad = { MICA_BF16, 1, { 1 }, 1, (void *)(uintptr_t)u8 }, back;
  assert_int_equal(micah_npy_write(path, &bad), MICA_ERR_INVALID);
  expect_message("bf16");
  assert_int_equal(micah_npy_read("no/such.npy", &back), MICA_ERR_IO);
  /* bf16 is the upper half of a float */
  static const uint16_t half[2] = { 0x3fc0, 0xc000 };
  const micah_array halves = { MICA_BF16, 1, { 2 }, 2, (void *)(uintptr_t)half };
  assert_true(micah_array_get(&halves, 0) == 1.5 && micah_array_get(&halves, 1) == -2);
  const int64_t shape[3] = { 3, 0, 5 }, large[2] = { INT64_MAX / 4, 4 }, negative[1] = { -1 };
  assert_int_equal(micah_shape_count(shape, 3, 1), 0);
  assert_int_equal(micah_shape_count(large, 2, 4), -1);
  assert_int_equal(micah_shape_count(negative, 1, 4), -1);
  free(path);
}

static mica_status npy_text(const char *header, const void *data, size_t size, int major, micah_array *array) {
  char bytes[1024] = "\x93NUMPY";
  size_t n = strlen(header), prefix = major == 1 ? 10 : 12;
  bytes[6] = (char)major;
  bytes[8] = (char)(n & 255);
  bytes[9] = (char)(n >> 8);
  memcpy(bytes + prefix, header, n);
  if (size) memcpy(bytes + prefix + n, data, size);
  return micah_npy_parse("f.npy", bytes, (int64_t)(prefix + n + size), array);
}

static void test_npy_forms(void **state) {
  (void)state;
  micah_array array;
  const struct {
    const char *descr, *bytes;
    size_t size;
    double value[2];
  } forms[] = {
    { "|i1", "\xff\x01", 2, { -1, 1 } },
    { "<i2", "\xff\xff\x01\x01", 4, { -1, 257 } },
    { "<u2", "\xff\xff\x01\x00", 4, { 65535, 1 } },
    { "|b1", "\x01\x00", 2, { 1, 0 } },
    { "|u1", "\x01\xff", 2, { 1, 255 } },
    { "<f4", "\0\0\x80\x3f\0\0\0\xc0", 8, { 1, -2 } },
  };
  for (int major = 1; major <= 3; major++) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
      char header[120];
      snprintf(header, sizeof header, "{\"descr\": '%s', 'fortran_order': False, 'shape': (2L,)}   \n", forms[i].descr);
      assert_int_equal(npy_text(header, forms[i].bytes, forms[i].size, major, &array), MICA_OK);
      assert_true(micah_array_get(&array, 0) == forms[i].value[0] && micah_array_get(&array, 1) == forms[i].value[1]);
      micah_array_free(&array);
    }
  }
  const struct {
    const char *header, *part;
  } bad[] = {
    { "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", "big-endian" },
    { "{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }", "dtype '<c8', expected one of" },
    { "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", "structured" },
    { "{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", "Fortran order" },
    { "{'descr': '<f4', 'fortran_order': 1, 'shape': (2,), }", "True or False" },
    { "{'descr': '<f4', 'fortran_order': False, }", "'shape' is missing" },
    { "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "given twice" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (2 2)}", "expected ',' or ')'" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "expected a size" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2)}", "more than 8 axes" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296,4294967296)}", "shape overflows" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", "expected a size" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
      "need 12 bytes of data, the file has 8; it is truncated" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "need 4 bytes of data, the file has 8" },
    { "{'descr': '<f4', 'x': False, 'shape': (1,), }", "unknown key" },
    { "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", "text after '}'" },
    { "[]", "expected '{'" },
    { "{'descr", "does not end" },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(npy_text(bad[i].header, "\0\0\0\0\0\0\0", 8, 1, &array), MICA_ERR_FORMAT);
    assert_null(array.data);
    expect_message("f.npy: ");
    expect_message(bad[i].part);
  }
  assert_int_equal(micah_npy_parse("f", "PK\3\4xxxxxxxxxx", 14, &array), MICA_ERR_FORMAT);
  expect_message(".npz");
  assert_int_equal(micah_npy_parse("f", "\x93NUMPY\x04\0\0\0\0\0", 12, &array), MICA_ERR_FORMAT);
  expect_message("version 4.0");
  assert_int_equal(micah_npy_parse("f", "\x93NUMPY\x01\0\xff\0", 10, &array), MICA_ERR_FORMAT);
  expect_message("truncated");
}

/* ---- csv ---- */

static mica_status csv(const char *text, const micah_csv_options *options, micah_table *table) {
  return micah_csv_parse("t.csv", text, (int64_t)strlen(text), options, table);
}

static void test_csv(void **state) {
  (void)state;
  micah_table table;
  assert_int_equal(csv("x, y\n1, 2\n\n3,\"4e-1\"\r\n", NULL, &table), MICA_OK);
  assert_int_equal(table.rows, 2);
  assert_int_equal(table.columns, 2);
  assert_string_equal(table.names[1], "y");
  assert_true(table.values[3] == 0.4);
  micah_table_free(&table);
  assert_int_equal(csv("\xEF\xBB\xBF"
                       "1\t2\n3\t4",
                       NULL, &table),
                   MICA_OK);
  assert_null(table.names);
  assert_true(table.values[0] == 1 && table.values[3] == 4);
  micah_table_free(&table);
  micah_csv_options missing = MICAH_CSV_OPTIONS_INIT;
  missing.missing = 1;
  assert_int_equal(csv("1,2\n3,\n4,nan\n", &missing, &table), MICA_OK);
  assert_true(isnan(table.values[3]) && isnan(table.values[5]) && table.values[4] == 4);
  micah_table_free(&table);
  const struct {
    const char *text, *part;
  } bad[] = {
    { "1,2\n3\n", "t.csv:2:1: expected 2 fields, as in the first line, got 1" },
    { "x,y\n1,2\n3,abc\n", "t.csv:3:3: field 2 (y): expected a number, got 'abc'" },
    { "1,2\n3,\n", "t.csv:2:3: field 2: expected a number, got ''" },
    { "1,inf\n", "no rows of numbers below the header" },
    { "1,2\n1,1e999\n", "got '1e999'" },
    { "x\n\"1\n2\n", "t.csv:2:1: quoted field without its closing quote" },
    { "x\n\"1\"2\n", "t.csv:2:4: text after the closing quote" },
    { "x\n1\"2\"\n", "t.csv:2:2: quote inside a field" },
    { "", "no rows of numbers; the file is empty" },
    { "x,y\n", "below the header" },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(csv(bad[i].text, NULL, &table), MICA_ERR_FORMAT);
    assert_null(table.values);
    expect_message("t.csv");
    expect_message(bad[i].part);
  }
  assert_int_equal(micah_csv_read("no/such.csv", NULL, &table), MICA_ERR_IO);
}

static void test_records(void **state) {
  (void)state;
  const char *text = "text,label\n\"a, \"\"b\"\"\nsecond\",x\n,\nlast,\"\"";
  micah_records r = { .name = "t.csv", .text = text, .size = (int64_t)strlen(text), .separator = ',', .quote = '"' };
  int more;
  int64_t column;
  assert_int_equal(micah_records_next(&r, &more), MICA_OK);
  assert_int_equal(micah_records_column(&r, "label", &column), MICA_OK);
  assert_int_equal(column, 1);
  assert_int_equal(micah_records_column(&r, "labels", &column), MICA_ERR_NOT_FOUND);
  expect_message("t.csv:1: no column 'labels'; did you mean 'label'?");
  assert_int_equal(micah_records_next(&r, &more), MICA_OK);
  assert_string_equal(r.field[0], "a, \"b\"\nsecond");
  assert_string_equal(r.field[1], "x");
  assert_int_equal(r.line, 2);
  assert_int_equal(micah_records_next(&r, &more), MICA_OK);
  assert_int_equal(r.line, 4);
  assert_int_equal(r.count, 2);
  assert_string_equal(r.field[0], "");
  assert_int_equal(micah_records_next(&r, &more), MICA_OK);
  assert_string_equal(r.field[0], "last");
  assert_int_equal(r.length[1], 0);
  assert_int_equal(micah_records_next(&r, &more), MICA_OK);
  assert_int_equal(more, 0);
  micah_records_free(&r);
  /* without quotes they are ordinary bytes */
  micah_records plain = { .name = "t.tsv", .text = "say \"hi\"\tx\n", .size = 11, .separator = '\t' };
  assert_int_equal(micah_records_next(&plain, &more), MICA_OK);
  assert_string_equal(plain.field[0], "say \"hi\"");
  micah_records_free(&plain);
}

/* ---- json lines, json ---- */

static void test_jsonl(void **state) {
  (void)state;
  char *path = micah_path_join(folder, "x.jsonl");
  micah_jsonl reader;
  const cJSON *record;
  const char *text;
  double number;
  assert_int_equal(micah_file_append(path, "{\"text\": \"a\\n\\u00e9\", \"n\": 2.5}"), MICA_OK);
  assert_int_equal(micah_file_append(path, "  "), MICA_OK);
  assert_int_equal(micah_file_append(path, "{\"txt\": 1}"), MICA_OK);
  assert_int_equal(micah_file_append(path, "{\"text\": 1"), MICA_OK);
  assert_int_equal(micah_jsonl_open(path, &reader), MICA_OK);
  assert_int_equal(micah_jsonl_string(&reader, "text", &text), MICA_ERR_STATE);
  assert_int_equal(micah_jsonl_next(&reader, &record), MICA_OK);
  assert_int_equal(micah_jsonl_string(&reader, "text", &text), MICA_OK);
  assert_string_equal(text, "a\n\xC3\xA9");
  assert_int_equal(micah_jsonl_real(&reader, "n", &number), MICA_OK);
  assert_true(number == 2.5);
  assert_int_equal(micah_jsonl_real(&reader, "text", &number), MICA_ERR_FORMAT);
  expect_message("'text' is not a number");
  assert_int_equal(micah_jsonl_string(&reader, "n", &text), MICA_ERR_FORMAT);
  assert_int_equal(micah_jsonl_next(&reader, &record), MICA_OK);
  assert_int_equal(reader.line, 3);
  assert_int_equal(micah_jsonl_string(&reader, "text", &text), MICA_ERR_FORMAT);
  expect_message("x.jsonl:3: no key 'text'; did you mean 'txt'?");
  assert_int_equal(micah_jsonl_next(&reader, &record), MICA_ERR_FORMAT);
  expect_message("x.jsonl:4:11: JSON ends too early");
  assert_int_equal(micah_jsonl_next(&reader, &record), MICA_OK);
  assert_null(record);
  micah_jsonl_close(&reader);
  assert_int_equal(micah_jsonl_parse("l", "[1]\n", 4, &reader), MICA_OK);
  assert_int_equal(micah_jsonl_next(&reader, &record), MICA_ERR_FORMAT);
  expect_message("l:1:1: expected a JSON object");
  micah_jsonl_close(&reader);
  assert_int_equal(micah_jsonl_open("no/such.jsonl", &reader), MICA_ERR_IO);
  free(path);
}

static void test_json_read(void **state) {
  (void)state;
  cJSON *tree;
  const struct {
    const char *text, *part;
  } bad[] = {
    { "{\"a\": 1,\n \"b\" 2}", "j:2:6: not valid JSON here" },
    { "{\"a\": 1} x", "not valid JSON" },
    { "\"\\u0000\"", "zero character" },
    { "\"a\nb\"", "j:1:3: control byte in a string" },
    { "\"\xff\"", "not UTF-8" },
    { "[\x01]", "control byte" },
    { "", "ends too early" },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(micah_json_parse("j", 1, bad[i].text, strlen(bad[i].text), &tree), MICA_ERR_FORMAT);
    expect_message(bad[i].part);
  }
  char deep[300];
  memset(deep, '[', sizeof deep);
  assert_int_equal(micah_json_parse("j", 1, deep, sizeof deep, &tree), MICA_ERR_FORMAT);
  expect_message("nested too deep");
  char *path = micah_path_join(folder, "x.json");
  assert_int_equal(micah_file_write(path, "{\"a\": [1, 2]}\n", 14), MICA_OK);
  assert_int_equal(micah_json_read(path, 100, &tree), MICA_OK);
  assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(tree, "a")), 2);
  cJSON_Delete(tree);
  assert_int_equal(micah_json_read(path, 5, &tree), MICA_ERR_FORMAT);
  free(path);
}

static void test_json_write(void **state) {
  (void)state;
  micah_json json = { 0 };
  const char *text;
  static const double values[] = { 1, 0.1, NAN };
  micah_json_object(&json, NULL);
  micah_json_int(&json, "step", -3);
  micah_json_real(&json, "loss", 1.0 / 3);
  micah_json_exact(&json, "exact", 0.1);
  micah_json_real(&json, "inf", INFINITY);
  micah_json_string(&json, "name", "a\"\\\n\x01\xff\xC3\xA9\x7f");
  micah_json_string(&json, "none", NULL);
  micah_json_bool(&json, "ok", 1);
  micah_json_reals(&json, "list", values, 3);
  micah_json_array(&json, "rows");
  micah_json_object(&json, NULL);
  micah_json_end(&json);
  micah_json_end(&json);
  micah_json_end(&json);
  assert_int_equal(micah_json_finish(&json, &text), MICA_OK);
  assert_string_equal(text,
                      "{\"step\": -3, \"loss\": 0.333333333, \"exact\": 0.10000000000000001, \"inf\": null, "
                      "\"name\": \"a\\\"\\\\\\n\\u0001\xEF\xBF\xBD\xC3\xA9\\u007f\", \"none\": null, \"ok\": true, "
                      "\"list\": [1, 0.1, null], \"rows\": [{}]}");
  cJSON *tree;
  assert_int_equal(micah_json_parse("j", 1, text, strlen(text), &tree), MICA_OK);
  cJSON_Delete(tree);
  /* misuse is an error, not wrong JSON */
  micah_json_reset(&json);
  micah_json_object(&json, NULL);
  micah_json_int(&json, NULL, 1);
  micah_json_end(&json);
  assert_int_equal(micah_json_finish(&json, &text), MICA_ERR_INTERNAL);
  micah_json_reset(&json);
  micah_json_array(&json, NULL);
  assert_int_equal(micah_json_finish(&json, &text), MICA_ERR_INTERNAL);
  expect_message("still open");
  micah_json_reset(&json);
  micah_json_end(&json);
  assert_int_equal(micah_json_finish(&json, &text), MICA_ERR_INTERNAL);
  micah_json_reset(&json);
  for (int i = 0; i <= MICAH_JSON_DEPTH; i++) micah_json_array(&json, NULL);
  assert_int_equal(micah_json_finish(&json, &text), MICA_ERR_INTERNAL);
  micah_json_free(&json);
}

/* ---- idx ---- */

static void test_idx(void **state) {
  (void)state;
  micah_array array;
  assert_int_equal(micah_idx_parse("m", "\0\0\x08\x02\0\0\0\2\0\0\0\2\1\2\3\xff", 16, &array), MICA_OK);
  assert_int_equal(array.rank, 2);
  assert_int_equal(array.count, 4);
  assert_true(micah_array_get(&array, 3) == 255);
  micah_array_free(&array);
  const struct {
    const char *bytes;
    int64_t size;
    double value;
  } forms[] = {
    { "\0\0\x09\1\0\0\0\1\xfe", 9, -2 },
    { "\0\0\x0b\1\0\0\0\1\xff\xfe", 10, -2 },
    { "\0\0\x0c\1\0\0\0\1\xff\xff\xff\xfe", 12, -2 },
    { "\0\0\x0d\1\0\0\0\1\xc0\0\0\0", 12, -2 },
    { "\0\0\x0e\1\0\0\0\1\xc0\0\0\0\0\0\0\0", 16, -2 },
  };
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    assert_int_equal(micah_idx_parse("m", forms[i].bytes, forms[i].size, &array), MICA_OK);
    assert_true(micah_array_get(&array, 0) == forms[i].value);
    micah_array_free(&array);
  }
  const struct {
    const char *bytes;
    int64_t size;
    const char *part;
  } bad[] = {
    { "\x1f\x8b\x08\0", 4, "it is gzip" },
    { "\0\0\x07\1\0\0\0\1", 8, "IDX type 0x07" },
    { "\0\0\x08\0", 4, "0 axes" },
    { "\0\0\x08\2\0\0\0\1", 8, "truncated in the sizes" },
    { "\0\0\x08\1\0\0\0\2\1", 9, "need 2 bytes of data, the file has 1" },
    { "\0\0\x08\3\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16, "shape overflows" },
    { "\0", 1, "not an IDX" },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(micah_idx_parse("m", bad[i].bytes, bad[i].size, &array), MICA_ERR_FORMAT);
    expect_message(bad[i].part);
  }
  char *path = micah_path_join(folder, "x.idx");
  assert_int_equal(micah_file_write(path, "\0\0\x08\1\0\0\0\1\7", 9), MICA_OK);
  assert_int_equal(micah_idx_read(path, &array), MICA_OK);
  assert_true(micah_array_get(&array, 0) == 7);
  micah_array_free(&array);
  free(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_file),          cmocka_unit_test(test_paths),      cmocka_unit_test(test_atomic_refused),
    cmocka_unit_test(test_atomic_killed), cmocka_unit_test(test_npy),        cmocka_unit_test(test_npy_forms),
    cmocka_unit_test(test_csv),           cmocka_unit_test(test_records),    cmocka_unit_test(test_jsonl),
    cmocka_unit_test(test_json_read),     cmocka_unit_test(test_json_write), cmocka_unit_test(test_idx),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
