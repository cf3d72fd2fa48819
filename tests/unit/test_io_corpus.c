/* every malformed file of tests/corpus gives its status and a message that names the file and the place. */
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/io/config.h"
#include "host/io/csv.h"
#include "host/io/file.h"
#include "host/io/jsonl.h"
#include "host/io/npy.h"
#include "host/io/safetensors.h"

/* ---- configurations are read as a training run does ---- */

typedef struct family {
  int64_t dim, points;
  double noise;
} family;
typedef struct model {
  int64_t layers, heads, width;
} model;
typedef struct optimizer {
  double lr;
} optimizer;
typedef struct run {
  int64_t steps, batch, grain, seed, threads;
  const char *device;
} run;

static const mica_key family_keys[] = {
  { "dim", MICA_KEY_INT, offsetof(family, dim), "20", 1, 512, NULL, "inputs" },
  { "points", MICA_KEY_INT, offsetof(family, points), "41", 1, 4096, NULL, "points" },
  { "noise", MICA_KEY_REAL, offsetof(family, noise), "0", 0, 100, NULL, "noise" },
};
static const mica_key model_keys[] = {
  { "layers", MICA_KEY_INT, offsetof(model, layers), "3", 1, 64, NULL, "layers" },
  { "heads", MICA_KEY_INT, offsetof(model, heads), "2", 1, 64, NULL, "heads" },
  { "width", MICA_KEY_INT, offsetof(model, width), "64", 1, 8192, NULL, "width" },
};
static const mica_key optimizer_keys[] = {
  { "lr", MICA_KEY_REAL, offsetof(optimizer, lr), "1e-3", 0, 10, NULL, "rate" },
};
static const mica_key run_keys[] = {
  { "steps", MICA_KEY_INT, offsetof(run, steps), "1000", 1, 1e12, NULL, "steps" },
  { "batch", MICA_KEY_INT, offsetof(run, batch), "64", 1, 1e9, NULL, "tasks a step" },
  { "grain", MICA_KEY_INT, offsetof(run, grain), "16", 1, 1e9, NULL, "tasks a grain" },
  { "seed", MICA_KEY_INT, offsetof(run, seed), "1", 0, 9e15, NULL, "seed" },
  { "threads", MICA_KEY_INT, offsetof(run, threads), "0", 0, 4096, NULL, "threads" },
  { "device", MICA_KEY_STRING, offsetof(run, device), "cpu", 0, 0, NULL, "device" },
};
#define KEYS(table) table, sizeof(table) / sizeof *(table)

static mica_status fill_section(micah_section *root, const char *name, int required, const mica_key *keys, size_t n) {
  static const char *const other[] = { "name" };
  union {
    family f;
    model m;
    optimizer o;
  } settings;
  micah_section *section;
  const char *text;
  mica_status status = micah_config_section(root, name, required, &section);
  if (status == MICA_OK) status = micah_config_get_string(section, "name", required ? NULL : "none", &text);
  return status < 0 ? status : micah_config_fill(section, keys, (int32_t)n, other, 1, &settings);
}

static mica_status read_config(const char *path) {
  static const char *const sections[] = { "family", "model", "loss", "optimizer" };
  micah_config *config;
  run settings;
  mica_status status = micah_config_read(path, &config);
  if (status < 0) return status;
  micah_section *root = micah_config_root(config);
  status = micah_config_fill(root, KEYS(run_keys), sections, 4, &settings);
  if (status == MICA_OK) status = fill_section(root, "family", 1, KEYS(family_keys));
  if (status == MICA_OK) status = fill_section(root, "model", 1, KEYS(model_keys));
  if (status == MICA_OK) status = fill_section(root, "optimizer", 0, KEYS(optimizer_keys));
  if (status == MICA_OK) status = fill_section(root, "loss", 0, NULL, 0);
  micah_config_destroy(config);
  return status;
}

static mica_status read_safetensors(const char *path) {
  micah_safetensors *file;
  mica_status status = micah_safetensors_open(path, &file);
  if (status == MICA_OK) micah_safetensors_close(file);
  return status;
}

static mica_status read_npy(const char *path) {
  micah_array array;
  mica_status status = micah_npy_read(path, &array);
  if (status == MICA_OK) micah_array_free(&array);
  return status;
}

static mica_status read_csv(const char *path) {
  micah_table table;
  mica_status status = micah_csv_read(path, NULL, &table);
  if (status == MICA_OK) micah_table_free(&table);
  return status;
}

static mica_status read_jsonl(const char *path) {
  micah_jsonl reader;
  const cJSON *record;
  const char *text;
  mica_status status = micah_jsonl_open(path, &reader);
  while (status == MICA_OK) {
    if ((status = micah_jsonl_next(&reader, &record)) < 0 || !record) break;
    status = micah_jsonl_string(&reader, "text", &text);
  }
  micah_jsonl_close(&reader);
  return status;
}

static const struct {
  const char *folder;
  mica_status (*read)(const char *path);
} readers[] = {
  { "config/", read_config }, { "safetensors/", read_safetensors }, { "npy/", read_npy }, { "csv/", read_csv },
  { "jsonl/", read_jsonl },
};

static int check(const char *file, const char *wanted_status, const char *wanted, int quiet) {
  char *path = micah_path_join(MICA_TEST_DIR "/corpus", file);
  mica_status status = MICA_OK;
  regex_t expression;
  assert_non_null(path);
  assert_int_equal(regcomp(&expression, wanted, REG_EXTENDED | REG_NOSUB), 0);
  mica_error(MICA_ERR_INTERNAL, "no message was set");
  for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
    if (!strncmp(file, readers[i].folder, strlen(readers[i].folder))) status = readers[i].read(path);
  int right = !strcmp(mica_status_name(status), wanted_status) && strstr(mica_last_error(), path) &&
              !regexec(&expression, mica_last_error(), 0, NULL, 0);
  if (!right && !quiet)
    print_error("%s: %s '%s', expected %s '%s'\n", file, mica_status_name(status), mica_last_error(), wanted_status,
                wanted);
  regfree(&expression);
  free(path);
  return right;
}

static void test_corpus(void **state) {
  (void)state;
  char *text;
  int64_t size;
  int files = 0, wrong = 0, more;
  assert_int_equal(micah_file_read(MICA_TEST_DIR "/corpus/expect.tsv", 1 << 20, &text, &size), MICA_OK);
  micah_records row = { .name = "expect.tsv", .text = text, .size = size, .separator = '\t' };
  while (micah_records_next(&row, &more) == MICA_OK && more) {
    assert_int_equal(row.count, 3);
    wrong += !check(row.field[0], row.field[1], row.field[2], 0);
    files++;
  }
  micah_records_free(&row);
  free(text);
  assert_int_equal(wrong, 0);
  assert_true(files >= 45);
}

/* the test itself can fail */
static void test_can_fail(void **state) {
  (void)state;
  assert_false(check("npy/empty.npy", "MICA_ERR_FORMAT", "some other message", 1) ||
               check("npy/empty.npy", "MICA_ERR_IO", "not a .npy file", 1));
}

int main(void) {
  const struct CMUnitTest tests[] = { cmocka_unit_test(test_corpus), cmocka_unit_test(test_can_fail) };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
