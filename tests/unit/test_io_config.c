/* configurations: reading, overrides, key tables, messages, writing back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/io/config.h"
#include "host/io/file.h"

typedef struct sample {
  int64_t layers;
  double rate;
  int32_t tied;
  const char *note, *path;
  int64_t norm;
} sample;

static const mica_key keys[] = {
  { "layers", MICA_KEY_INT, offsetof(sample, layers), "3", 1, 64, NULL, "number of layers" },
  { "rate", MICA_KEY_REAL, offsetof(sample, rate), "1e-3", 0, 1, NULL, "learning rate" },
  { "tied", MICA_KEY_BOOL, offsetof(sample, tied), "no", 0, 0, NULL, "tie the weights" },
  { "note", MICA_KEY_STRING, offsetof(sample, note), "", 0, 0, NULL, "free text" },
  { "path", MICA_KEY_PATH, offsetof(sample, path), "", 0, 0, NULL, "data" },
  { "norm", MICA_KEY_CHOICE, offsetof(sample, norm), "layernorm", 0, 0, "layernorm|rmsnorm|none", "normalisation" },
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static micah_config *parse(const char *text) {
  micah_config *config = NULL;
  mica_status status = micah_config_parse("conf/x.yaml", text, strlen(text), &config);
  if (status < 0) print_error("%s\n", mica_last_error());
  assert_int_equal(status, MICA_OK);
  return config;
}

static void expect_message(const char *part) {
  if (!strstr(mica_last_error(), part)) print_error("message: %s\nwanted:  %s\n", mica_last_error(), part);
  assert_non_null(strstr(mica_last_error(), part));
}

/* fill the section "m" of a text; the message must have the part */
static void expect_fill_error(const char *text, const char *override, const char *part) {
  micah_config *config = parse(text);
  micah_section *section;
  sample s;
  mica_status status = override ? micah_config_override(config, override) : MICA_OK;
  if (status == MICA_OK) status = micah_config_section(micah_config_root(config), "m", 0, &section);
  if (status == MICA_OK) status = micah_config_fill(section, keys, N_KEYS, NULL, 0, &s);
  assert_int_equal(status, MICA_ERR_CONFIG);
  expect_message(part);
  expect_message("conf/x.yaml");
  micah_config_destroy(config);
}

static void expect_parse_error(const char *text, const char *part) {
  micah_config *config = NULL;
  assert_int_equal(micah_config_parse("conf/x.yaml", text, strlen(text), &config), MICA_ERR_CONFIG);
  assert_null(config);
  expect_message(part);
}

static void test_fill(void **state) {
  (void)state;
  micah_config *config =
      parse("m:\n  layers: 1e1\n  rate: .5\n  tied: Yes\n  note: 'a: b'\n  norm: rmsnorm\nlist: [a, 'b c']\n");
  micah_section *root = micah_config_root(config), *m;
  sample s;
  assert_int_equal(micah_config_section(root, "m", 1, &m), MICA_OK);
  assert_int_equal(micah_config_fill(m, keys, N_KEYS, NULL, 0, &s), MICA_OK);
  assert_int_equal(s.layers, 10);
  assert_true(s.rate == .5);
  assert_int_equal(s.tied, 1);
  assert_string_equal(s.note, "a: b");
  assert_string_equal(s.path, "");
  assert_int_equal(s.norm, 1);
  const char *const *items;
  int64_t n;
  assert_int_equal(micah_config_get_list(root, "list", &items, &n), MICA_OK);
  assert_int_equal(n, 2);
  assert_string_equal(items[1], "b c");
  assert_int_equal(micah_config_get_list(root, "none", &items, &n), MICA_OK);
  assert_int_equal(n, 0);
  assert_true(micah_config_given(m, "layers") && !micah_config_given(m, "path") && micah_config_has(m, "path"));
  micah_config_destroy(config);
}

static void test_defaults(void **state) {
  (void)state;
  sample s;
  assert_int_equal(micah_keys_defaults(keys, N_KEYS, &s), MICA_OK);
  assert_int_equal(s.layers, 3);
  assert_true(s.rate == 1e-3);
  assert_int_equal(s.norm, 0);
  assert_string_equal(s.note, "");
}

static void test_messages(void **state) {
  (void)state;
  expect_fill_error("m:\n  layesr: 3\n", NULL, "conf/x.yaml:2:3: unknown key 'm.layesr'; did you mean 'layers'?");
  expect_fill_error("m: {zzzzzzzzzzzz: 3}\n", NULL, "valid here: layers, rate, tied, note, path, norm");
  expect_fill_error("m:\n  layers: many\n", NULL,
                    "conf/x.yaml:2:11: m.layers: expected an integer from 1 to 64, got 'many'");
  expect_fill_error("m:\n  layers: 65\n", NULL, "from 1 to 64, got '65'");
  expect_fill_error("m:\n  layers: 2.5\n", NULL, "got '2.5'");
  expect_fill_error("m:\n  layers: 99999999999999999999\n", NULL, "got '99999999999999999999'");
  expect_fill_error("m:\n  layers: \"3\"\n", NULL, "got '3' in quotes");
  expect_fill_error("m:\n  layers: 0x10\n", NULL, "got '0x10'");
  expect_fill_error("m:\n  layers:\n", NULL, "expected an integer from 1 to 64, got nothing");
  expect_fill_error("m:\n  layers: [1, 2]\n", NULL, "got a list");
  expect_fill_error("m:\n  layers: {a: 1}\n", NULL, "got a section");
  expect_fill_error("m:\n  rate: .nan\n", NULL, "expected a number from 0 to 1, got '.nan'");
  expect_fill_error("m:\n  rate: 1e999\n", NULL, "too large");
  expect_fill_error("m:\n  tied: maybe\n", NULL, "expected yes or no, got 'maybe'");
  expect_fill_error("m:\n  norm: rmsnrom\n", NULL,
                    "expected one of layernorm, rmsnorm, none, got 'rmsnrom'; did you mean 'rmsnorm'?");
  expect_fill_error("m:\n  path: not/there.txt\n", NULL,
                    "conf/x.yaml:2:9: m.path: no such file or folder 'not/there.txt'");
  expect_fill_error("m:\n  path: not/there.txt\n", NULL, "tried 'conf/not/there.txt'");
  expect_fill_error("m: 3\n", NULL, "expected a section with keys, got a value");
  expect_fill_error("m: {}\n", "m.layers=4x", "conf/x.yaml: command line: m.layers: expected an integer");
  expect_fill_error("m: {}\n", "m.laers=4", "conf/x.yaml: command line: unknown key 'm.laers'; did you mean 'layers'?");
  expect_fill_error("m: {}\n", "m=4", "is a section");
  expect_fill_error("m: {rate: 1}\n", "m.rate.x=4", "'rate' is a value, not a section");
  expect_fill_error("m: {}\n", "m.rate", "expected KEY=VALUE");
  expect_fill_error("m: {}\n", "m..rate=2", "empty name");
  expect_fill_error("m: {}\n", "m.rate=[1", "command line");
}

static void test_syntax(void **state) {
  (void)state;
  expect_parse_error("a: 1\nb: [1, 2\n", "conf/x.yaml:3:1: YAML syntax");
  expect_parse_error("a: 1\na: 2\n", "conf/x.yaml:2:1: duplicate key 'a' (first on line 1)");
  expect_parse_error("a: &x 1\n", "conf/x.yaml:1:4: anchor '&x'");
  expect_parse_error("a: *x\n", "alias '*x'");
  expect_parse_error("a: !!int 1\n", "tag 'tag:yaml.org,2002:int'");
  expect_parse_error("- 1\n", "expected 'key: value' lines, got a list");
  expect_parse_error("hello\n", "got a single value");
  expect_parse_error("a: 1\n---\nb: 1\n", "second document");
  expect_parse_error("a.b: 1\n", "has a point");
  expect_parse_error("? [a]\n: 1\n", "a key must be a name");
  expect_parse_error("a: [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n", "nested too deep");
  expect_parse_error("a: \"\xff\"\n", "YAML syntax");
  expect_parse_error("a: \"x\\0y\"\n", "zero byte");
  expect_parse_error("a:\tb: c\n", "YAML syntax");
}

static void test_required(void **state) {
  (void)state;
  static const mica_key must[] = { { "dim", MICA_KEY_INT, 0, NULL, 1, 9, NULL, "inputs" } };
  micah_config *config = parse("family:\n  name: x\n");
  micah_section *root = micah_config_root(config), *section;
  const char *text;
  static const char *const other[] = { "name" };
  int64_t dim;
  assert_int_equal(micah_config_section(root, "model", 1, &section), MICA_ERR_CONFIG);
  expect_message("conf/x.yaml:1:1: model: missing");
  assert_int_equal(micah_config_section(root, "family", 1, &section), MICA_OK);
  assert_int_equal(micah_config_get_string(section, "name", NULL, &text), MICA_OK);
  assert_string_equal(text, "x");
  assert_int_equal(micah_config_fill(section, must, 1, other, 1, &dim), MICA_ERR_CONFIG);
  expect_message("family.dim: missing; add 'dim: ...', an integer from 1 to 9 (inputs)");
  assert_int_equal(micah_config_error(section, "name", MICA_ERR_NOT_FOUND, "no family '%s'", text), MICA_ERR_NOT_FOUND);
  assert_string_equal(mica_last_error(), "conf/x.yaml:2:9: family.name: no family 'x'");
  mica_error(MICA_ERR_SHAPE, "odd heads");
  assert_int_equal(micah_config_blame(section, NULL, MICA_ERR_SHAPE), MICA_ERR_CONFIG);
  assert_string_equal(mica_last_error(), "conf/x.yaml:2:3: family: odd heads");
  assert_int_equal(micah_config_blame(section, "name", MICA_ERR_SHAPE), MICA_ERR_CONFIG);
  assert_string_equal(mica_last_error(), "conf/x.yaml:2:3: family: odd heads");
  micah_config_destroy(config);
}

static void test_override(void **state) {
  (void)state;
  micah_config *config = parse("steps: 10\nm:\n  layers: 2\n");
  micah_section *root = micah_config_root(config), *m;
  sample s;
  const char *text;
  static const char *const words[] = {
    "--m.layers", "7", "m.note=a=b", "--m.rate=0.25", "plugins=[p.so, \"q r.so\"]", "steps=11", "steps=12"
  };
  char *args[7];
  for (int i = 0; i < 7; i++) args[i] = strdup(words[i]);
  assert_int_equal(micah_config_override_args(config, 7, args), MICA_OK);
  assert_int_equal(micah_config_section(root, "m", 1, &m), MICA_OK);
  assert_int_equal(micah_config_fill(m, keys, N_KEYS, NULL, 0, &s), MICA_OK);
  assert_int_equal(s.layers, 7);
  assert_string_equal(s.note, "a=b");
  assert_true(s.rate == 0.25);
  assert_int_equal(micah_config_get_string(root, "steps", NULL, &text), MICA_OK);
  assert_string_equal(text, "12");
  const char *const *items;
  int64_t n;
  assert_int_equal(micah_config_get_list(root, "plugins", &items, &n), MICA_OK);
  assert_int_equal(n, 2);
  assert_string_equal(items[1], "q r.so");
  assert_int_equal(micah_config_override_args(config, 1, args), MICA_ERR_CONFIG);
  expect_message("no value follows");
  for (int i = 0; i < 7; i++) free(args[i]);
  micah_config_destroy(config);
}

static void test_paths(void **state) {
  (void)state;
  char folder[] = "/tmp/mica_config_XXXXXX";
  assert_non_null(mkdtemp(folder));
  char *sub = micah_path_join(folder, "a/b/c"), *data = micah_path_join(folder, "data/set");
  assert_int_equal(micah_path_mkdirs(sub), MICA_OK);
  assert_int_equal(micah_path_mkdirs(data), MICA_OK);
  char *file = micah_path_join(data, "x.txt"), *conf = micah_path_join(sub, "c.yaml");
  assert_int_equal(micah_file_write(file, "hi", 2), MICA_OK);
  assert_int_equal(micah_file_write(conf, "m: {path: ../../../data/set/x.txt}\n", 35), MICA_OK);
  micah_config *config;
  micah_section *m;
  sample s;
  assert_int_equal(micah_config_read(conf, &config), MICA_OK);
  assert_int_equal(micah_config_section(micah_config_root(config), "m", 1, &m), MICA_OK);
  assert_int_equal(micah_config_fill(m, keys, N_KEYS, NULL, 0, &s), MICA_OK);
  assert_string_equal(s.path, file);
  /* under MICA_DATA */
  char *root = micah_path_join(folder, "data");
  setenv("MICA_DATA", root, 1);
  assert_int_equal(micah_config_override(config, "m.path=data:set/x.txt"), MICA_OK);
  assert_int_equal(micah_config_fill(m, keys, N_KEYS, NULL, 0, &s), MICA_OK);
  assert_string_equal(s.path, file);
  micah_text text = { 0 };
  assert_int_equal(micah_config_text(config, &text), MICA_OK);
  assert_non_null(strstr(text.data, "# data:set/x.txt"));
  assert_non_null(strstr(text.data, file));
  micah_text_free(&text);
  assert_int_equal(micah_config_override(config, "m.path=data:none.txt"), MICA_OK);
  assert_int_equal(micah_config_fill(m, keys, N_KEYS, NULL, 0, &s), MICA_ERR_CONFIG);
  expect_message("data/none.txt");
  expect_message("MICA_DATA");
  unsetenv("MICA_DATA");
  micah_config_destroy(config);
  unlink(file);
  unlink(conf);
  char command[200];
  snprintf(command, sizeof command, "rm -r %s", folder);
  assert_int_equal(system(command), 0);
  free(sub);
  free(data);
  free(file);
  free(conf);
  free(root);
}

static mica_status collect(void *user, const char *key, const char *value) {
  micah_text_format(user, "%s=%s;", key, value);
  return MICA_OK;
}

/* what is written reads back as the same values, for awkward text too */
static void test_round_trip(void **state) {
  (void)state;
  micah_config *config =
      parse("a: 'null'\nb: \"x # y\"\nc: \"tab\\there\\nline \\u2028 \\u0085\"\nd: -5\ne: '-'\nf: ''\n"
            "'odd key': {g: [1, 'two, three', [4]], h: {}, i: ~}\nj: \"\\\"quoted\\\\\"\nk: \xC3\xA9t\xC3\xA9\n"
            "m:\n  layers: 5\n");
  micah_section *m;
  sample s;
  assert_int_equal(micah_config_section(micah_config_root(config), "m", 1, &m), MICA_OK);
  assert_int_equal(micah_config_fill(m, keys, N_KEYS, NULL, 0, &s), MICA_OK);
  micah_text first = { 0 }, second = { 0 }, one = { 0 }, two = { 0 };
  assert_int_equal(micah_config_text(config, &first), MICA_OK);
  assert_non_null(strstr(first.data, "  norm: layernorm\n"));
  assert_int_equal(micah_config_each(config, collect, &one), MICA_OK);
  assert_non_null(strstr(one.data, "m.rate=1e-3;"));
  micah_config *again = parse(first.data);
  assert_int_equal(micah_config_text(again, &second), MICA_OK);
  assert_int_equal(micah_config_each(again, collect, &two), MICA_OK);
  assert_string_equal(first.data, second.data);
  assert_string_equal(one.data, two.data);
  micah_text_free(&first);
  micah_text_free(&second);
  micah_text_free(&one);
  micah_text_free(&two);
  micah_config_destroy(config);
  micah_config_destroy(again);
}

/* lists and strings that are not what was asked for; paths in lists; the file that write leaves */
static void test_lists(void **state) {
  (void)state;
  micah_config *config = parse("a: {b: 1}\nc: [x, [y]]\nd: [x, ~]\ne: []\nf: ~\ng: [none.so]\nh: one\n");
  micah_section *root = micah_config_root(config), *section;
  const char *const *items;
  const char *text;
  int64_t n;
  assert_int_equal(micah_config_get_list(root, "a", &items, &n), MICA_ERR_CONFIG);
  expect_message("conf/x.yaml:1:4: a: expected a list [a, b], got a section");
  assert_int_equal(micah_config_get_list(root, "c", &items, &n), MICA_ERR_CONFIG);
  expect_message("conf/x.yaml:2:8: c.1: expected text in the list, got a list");
  assert_int_equal(micah_config_get_list(root, "d", &items, &n), MICA_ERR_CONFIG);
  expect_message("d.1: expected text in the list, got nothing");
  assert_int_equal(micah_config_get_list(root, "e", &items, &n), MICA_OK);
  assert_int_equal(n, 0);
  assert_int_equal(micah_config_get_list(root, "f", &items, &n), MICA_OK);
  assert_int_equal(n, 0);
  assert_int_equal(micah_config_get_list(root, "h", &items, &n), MICA_OK);
  assert_int_equal(n, 1);
  assert_string_equal(items[0], "one");
  assert_int_equal(micah_config_get_paths(root, "g", &items, &n), MICA_ERR_CONFIG);
  expect_message("conf/x.yaml:6:5: g.0: no such file or folder 'none.so' (tried 'conf/none.so')");
  assert_int_equal(micah_config_override(config, "g=[/, none.so]"), MICA_OK);
  assert_int_equal(micah_config_get_paths(root, "g", &items, &n), MICA_ERR_CONFIG);
  expect_message("conf/x.yaml: command line: g.1: no such file or folder 'none.so' (tried 'none.so', 'conf/none.so')");
  assert_int_equal(micah_config_override(config, "g=/"), MICA_OK);
  assert_int_equal(micah_config_get_paths(root, "g", &items, &n), MICA_OK);
  assert_string_equal(items[0], "/");
  assert_int_equal(micah_config_get_string(root, "a", "x", &text), MICA_ERR_CONFIG);
  expect_message("a: expected text, got a section");
  assert_int_equal(micah_config_get_string(root, "f", "x", &text), MICA_ERR_CONFIG);
  expect_message("f: expected text, got nothing");
  assert_int_equal(micah_config_get_string(root, "new", "x", &text), MICA_OK);
  assert_string_equal(text, "x");
  assert_false(micah_config_given(root, "new"));
  assert_int_equal(micah_config_section(root, "f", 1, &section), MICA_OK);
  assert_int_equal(micah_config_override(config, "f.deep.er=3"), MICA_OK);
  assert_true(micah_config_has(section, "deep"));
  assert_int_equal(micah_config_override(config, "a=\xff"), MICA_ERR_CONFIG);
  expect_message("is not UTF-8");
  assert_int_equal(micah_config_override(config, "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1"), MICA_ERR_CONFIG);
  char path[] = "/tmp/mica_written_XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  micah_config *again;
  micah_text one = { 0 }, two = { 0 };
  assert_int_equal(micah_config_write(config, path), MICA_OK);
  assert_int_equal(micah_config_read(path, &again), MICA_OK);
  assert_string_equal(micah_config_name(again), path);
  assert_int_equal(micah_config_text(config, &one), MICA_OK);
  assert_int_equal(micah_config_text(again, &two), MICA_OK);
  assert_string_equal(one.data, two.data);
  assert_int_equal(micah_config_write(config, "no/such/config.yaml"), MICA_ERR_IO);
  micah_text_free(&one);
  micah_text_free(&two);
  micah_config_destroy(again);
  micah_config_destroy(config);
  unlink(path);
}

static void test_empty(void **state) {
  (void)state;
  static const char *const texts[] = { "", "# nothing\n", "---\n", "~\n", "\xEF\xBB\xBF" };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    micah_config *config = parse(texts[i]);
    assert_false(micah_config_has(micah_config_root(config), "a"));
    micah_config_destroy(config);
  }
  micah_config *config;
  assert_int_equal(micah_config_read("no/such/file.yaml", &config), MICA_ERR_IO);
  expect_message("no/such/file.yaml");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_fill),   cmocka_unit_test(test_defaults),   cmocka_unit_test(test_messages),
    cmocka_unit_test(test_syntax), cmocka_unit_test(test_required),   cmocka_unit_test(test_override),
    cmocka_unit_test(test_paths),  cmocka_unit_test(test_round_trip), cmocka_unit_test(test_lists),
    cmocka_unit_test(test_empty),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
