/* real bytes: which documents a path gives, which are for testing, and which windows tasks are. */
#include "task_support.h"

#include <unistd.h>

static char folder[64];
static char made[32][96];
static int  n_made;

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/mica_bytes_XXXXXX");
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  for (int i = 0; i < n_made; i++) unlink(made[i]);
  return rmdir(folder);
}

static const char *put(const char *name, const char *text) {
  char *path = made[n_made];
  snprintf(path, sizeof made[0], "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
  assert_int_equal(fclose(file), 0);
  int known = 0;
  for (int i = 0; i < n_made; i++) known |= strcmp(made[i], path) == 0;
  assert_true(n_made < 31);
  return known ? path : made[n_made++];
}

static opened open_path(const char *name, const char *more, int split) {
  char settings[256];
  snprintf(settings, sizeof settings, "path: %s/%s\n%s", folder, name, more);
  return open_family_named("bytes", settings, split, 4);
}

static void refused_path(const char *name, const char *more, const char *text) {
  char settings[256];
  snprintf(settings, sizeof settings, "path: %s/%s\n%s", folder, name, more);
  refused("bytes", settings, text);
}

/* the bytes of one task as text */
static void read_task(opened *o, int64_t task, char *text, size_t size) {
  held h = fill_batch(o, task, 1);
  const int32_t *tokens = h.data[0], *target = h.data[1];
  int n = h.offsets[1];
  assert_true((size_t)n < size);
  for (int i = 0; i < n; i++) {
    text[i] = (char)target[i];
    assert_int_equal(tokens[i], i ? target[i - 1] : 256);
  }
  text[n] = 0;
  drop(&h);
}

/* all test tasks, joined by | */
static void expect_tests(opened *o, const char *want) {
  char all[1024] = "", one[300];
  int64_t count = o->family->count(o->self);
  for (int64_t i = 0; i < count; i++) {
    read_task(o, i, one, sizeof one);
    if (i) strcat(all, "|");
    strcat(all, one);
  }
  assert_string_equal(all, want);
}

/* every training window of many tasks is a window of one of the documents (listed with |), and all documents come up */
static void expect_training(opened *o, const char *documents) {
  int seen[16] = { 0 }, n = 0;
  char one[300];
  assert_int_equal(o->family->count(o->self), -1);
  for (int64_t task = 0; task < 300; task++) {
    int found = 0;
    read_task(o, task, one, sizeof one);
    n = 0;
    for (const char *at = documents; *at; n++) {
      size_t length = strcspn(at, "|");
      char document[300];
      memcpy(document, at, length), document[length] = 0;
      if (strstr(document, one)) seen[n]++, found = 1;
      at += length + (at[length] == '|');
    }
    if (!found) fail_msg("window \"%s\" is from no training document", one);
  }
  for (int i = 0; i < n; i++) assert_true(seen[i] > 0);
}

static void index_gives_ranges_and_splits(void **state) {
  (void)state;
  put("two.txt", "aaaabcdefgCDEFGHIJddEE");
  put("two.json", "[{\"code\":\"a\",\"offset\":0,\"bytes\":4,\"split\":\"train\"},\n"
                  "{\"code\":null,\"name\":\"bee\",\"offset\":4,\"bytes\":6,\"split\":\"test\"},"
                  "{\"offset\":10,\"bytes\":8,\"split\":\"test\"},{\"offset\":18,\"bytes\":2,\"split\":\"valid\"},"
                  "{\"offset\":20,\"bytes\":2},{\"offset\":1,\"bytes\":0,\"split\":\"test\"}]");
  opened o = open_path("two.json", "length: 4\n", MICA_SPLIT_TEST);
  expect_tests(&o, "bcde|CDEF");
  char text[64];
  assert_int_equal(o.family->describe(o.self, 0, text, sizeof text), MICA_OK);
  assert_string_equal(text, "bee bytes 0 to 3");
  assert_int_equal(o.family->describe(o.self, 1, text, sizeof text), MICA_OK);
  assert_string_equal(text, "entry 2 bytes 0 to 3");
  close_opened(&o);
  o = open_path("two.json", "length: 3\ntest_windows: 0\n", MICA_SPLIT_TEST);
  expect_tests(&o, "bcd|efg|CDE|FGH");
  close_opened(&o);
  o = open_path("two.json", "length: 100\n", MICA_SPLIT_TEST);
  int64_t rows;
  assert_int_equal(o.family->longest(o.self, &rows), MICA_OK);
  assert_int_equal(rows, 8);
  expect_tests(&o, "bcdefg|CDEFGHIJ");
  close_opened(&o);
  o = open_path("two.json", "length: 3\n", MICA_SPLIT_TRAIN);
  expect_training(&o, "aaaa|EE");
  close_opened(&o);
  put("other.bin", "xyxyxy");
  put("named.json", "[{\"offset\":0,\"bytes\":3,\"split\":\"train\"},{\"offset\":3,\"bytes\":3,\"split\":\"test\"}]");
  o = open_path("named.json", "data: other.bin\n", MICA_SPLIT_TEST);
  expect_tests(&o, "yxy");
  close_opened(&o);
}

static void files_are_documents(void **state) {
  (void)state;
  put("one.bin", "0123456789abcdefghij");
  opened o = open_path("one.bin", "length: 3\n", MICA_SPLIT_TEST);
  expect_tests(&o, "ghi");
  close_opened(&o);
  o = open_path("one.bin", "length: 3\n", MICA_SPLIT_TRAIN);
  expect_training(&o, "0123456789abcdef");
  close_opened(&o);
  char sub[96], path[128];
  snprintf(sub, sizeof sub, "%s/many", folder);
  const char *const names[] = { "a", "b", "c", "d", "e" };
  char command[128];
  snprintf(command, sizeof command, "mkdir %s", sub);
  assert_int_equal(system(command), 0);
  for (int i = 0; i < 5; i++) {
    snprintf(path, sizeof path, "many/%s", names[i]);
    put(path, i == 2 ? "" : i == 0 ? "aaaa" : i == 1 ? "bbbb" : i == 3 ? "dddd" : "eeee");
  }
  /* c is empty and left out: a b d e */
  o = open_path("many", "holdout: 2\n", MICA_SPLIT_TEST);
  expect_tests(&o, "bbbb|eeee");
  close_opened(&o);
  o = open_path("many", "holdout: 2\nlength: 2\n", MICA_SPLIT_TRAIN);
  expect_training(&o, "aaaa|dddd");
  close_opened(&o);
  /* fewer documents than holdout: the last one */
  o = open_path("many", "holdout: 9\n", MICA_SPLIT_TEST);
  expect_tests(&o, "eeee");
  close_opened(&o);
  for (int i = 0; i < 5; i++) unlink(made[--n_made]);
  assert_int_equal(rmdir(sub), 0);
}

static void records_are_documents(void **state) {
  (void)state;
  put("r.jsonl", "{\"text\":\"one\",\"id\":\"x\"}\n\n{\"text\":\"tw\\u00f6\"}\n{\"text\":\"three\"}\n");
  opened o = open_path("r.jsonl", "holdout: 2\n", MICA_SPLIT_TEST);
  expect_tests(&o, "tw\xc3\xb6");
  char text[64];
  assert_int_equal(o.family->describe(o.self, 0, text, sizeof text), MICA_OK);
  assert_string_equal(text, "line 3 bytes 0 to 3");
  close_opened(&o);
  put("s.jsonl", "{\"q\":\"one\",\"split\":\"test\"}\n{\"q\":\"two\",\"split\":\"train\"}\n"
                 "{\"q\":\"three\",\"split\":\"test\"}\n");
  o = open_path("s.jsonl", "field: q\n", MICA_SPLIT_TEST);
  expect_tests(&o, "one|three");
  close_opened(&o);
  put("t.tsv", "name\tword\tsplit\nA\tfoo\ttrain\nB\tb\"ar\"\ttest\nC\tbaz\ttest\n");
  o = open_path("t.tsv", "field: word\n", MICA_SPLIT_TEST);
  expect_tests(&o, "b\"ar\"|baz");
  assert_int_equal(o.family->describe(o.self, 1, text, sizeof text), MICA_OK);
  assert_string_equal(text, "C bytes 0 to 2");
  close_opened(&o);
  put("t.csv", "1,\"x,y\"\n2,zz\n");
  o = open_path("t.csv", "field: 2\n", MICA_SPLIT_TEST);
  expect_tests(&o, "zz");
  close_opened(&o);
  o = open_path("t.csv", "field: 2\n", MICA_SPLIT_TRAIN);
  expect_training(&o, "x,y");
  close_opened(&o);
}

static void windows_are_uniform(void **state) {
  (void)state;
  put("w.txt", "abcdefghXY");
  put("w.json", "[{\"offset\":0,\"bytes\":8,\"split\":\"train\"},{\"offset\":8,\"bytes\":2,\"split\":\"train\"},"
                "{\"offset\":0,\"bytes\":1,\"split\":\"test\"}]");
  const char *sampling[] = { "documents", "bytes" };
  for (int s = 0; s < 2; s++) {
    char more[64], text[8];
    snprintf(more, sizeof more, "length: 3\nsampling: %s\n", sampling[s]);
    opened o = open_path("w.json", more, MICA_SPLIT_TRAIN);
    int starts[6] = { 0 }, small = 0;
    for (int64_t task = 0; task < 6000; task++) {
      read_task(&o, task, text, sizeof text);
      if (text[0] == 'X') small++;
      else starts[text[0] - 'a']++;
    }
    double share = s ? 0.2 : 0.5;
    close_to(small, 6000 * share, 5 * sqrt(6000 * share * (1 - share)), "small document", s);
    for (int k = 0; k < 6; k++) close_to(starts[k], (6000 - small) / 6.0, 5 * sqrt(6000 / 6.0), "start", k);
    close_opened(&o);
  }
  char settings[128];
  snprintf(settings, sizeof settings, "path: %s/i.txt\nlength: 20\n", folder);
  char lots[401];
  for (int i = 0; i < 400; i++) lots[i] = (char)('!' + (i * i * 7 + i) % 90);
  lots[400] = 0;
  put("i.txt", lots);
  check_identity("bytes", settings, 40);
}

static void order0_is_kt_over_bytes(void **state) {
  (void)state;
  put("k.txt", "abababab");
  opened o = open_path("k.txt", "holdout: 2\n", MICA_SPLIT_TEST);
  held h = fill_batch(&o, 0, 1);
  exact_loss(&o, "order0", &h);
  double want[4] = { log(256), log(129 / 0.5), log(130 / 1.5), log(131 / 1.5) };
  for (int i = 0; i < 4; i++) close_to(h.loss[i], want[i], 1e-12, "order0", i);
  exact_loss(&o, "uniform", &h);
  close_to(h.loss[3], log(256), 1e-12, "uniform", 3);
  drop(&h), close_opened(&o);
}

static void bad_data_are_named(void **state) {
  (void)state;
  refused("bytes", "length: 4\n", "path");
  refused_path("missing.txt", "", "missing.txt");
  refused_path("", "mode: index\n", "folder");
  put("b.txt", "0123456789");
  refused_path("b.txt", "mode: records\n", "mode records");
  refused_path("b.txt", "holdout: 1\n", "holdout");
  refused_path("b.txt", "holdout: 11\n", "cut into");
  put("b.json", "{}");
  refused_path("b.json", "", "array");
  put("b.json", "[{\"offset\":0}]");
  refused_path("b.json", "", "entry 0 has no bytes");
  put("b.json", "[{\"offset\":0,\"bytes\":4},{\"offset\":8,\"bytes\":4}]");
  refused_path("b.json", "", "entry 1: offset 8 + bytes 4 is past the end of the data file (10 bytes)");
  put("b.json", "[{\"offset\":-1,\"bytes\":4}]");
  refused_path("b.json", "", "offset");
  put("b.json", "[{\"offset\":1e300,\"bytes\":4}]");
  refused_path("b.json", "", "offset");
  put("b.json", "[{\"offset\":\"1\",\"bytes\":4}]");
  refused_path("b.json", "", "offset");
  put("b.json", "[3]");
  refused_path("b.json", "", "entry 0 is no object");
  put("b.json", "[{\"offset\":0,\"bytes\":4,\"split\":7}]");
  refused_path("b.json", "", "split");
  put("b.json", "[{\"offset\":0,\"bytes\":4,\"split\":\"test\"}]");
  refused_path("b.json", "", "no document for split train");
  refused_path("b.json", "data: nowhere.txt\n", "nowhere.txt");
  put("b.json", "[{\"offset\":0,");
  refused_path("b.json", "", "b.json:1");
  put("b.jsonl", "{\"text\":\"a\"}\n{\"txt\":\"b\"}\n");
  refused_path("b.jsonl", "", "b.jsonl:2");
  put("b.tsv", "a\tb\n1\t2\n");
  refused_path("b.tsv", "", "text");
  refused_path("b.tsv", "field: 0\n", "field");
  refused_path("b.tsv", "field: 3\n", "b.tsv:1: 2 columns, expected at least 3");
  put("b.bin", "");
  refused_path("b.bin", "", "no document has any bytes");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(index_gives_ranges_and_splits),
    cmocka_unit_test(files_are_documents),
    cmocka_unit_test(records_are_documents),
    cmocka_unit_test(windows_are_uniform),
    cmocka_unit_test(order0_is_kt_over_bytes),
    cmocka_unit_test(bad_data_are_named),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
