/* few-shot images: episodes of labelled classes, from a small folder laid out as Omniglot and from glyphs */
#include "task_support.h"

#include <unistd.h>

#include "host/io/file.h"
#include "host/io/npy.h"
#include "host/task/images.h"

enum { SIDE = MICAH_IMAGES_SIDE, PIXELS = MICAH_IMAGES_PIXELS, DRAWERS = 6, BACKGROUND = 4, EVALUATION = 3 };
static char folder[64];
static const char *const files[] = { "omniglot28_background_u8.npy", "omniglot28_evaluation_u8.npy", "index.json" };

static char *at(const char *name) {
  static char path[160];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

/* image r of a split: a corner pixel says the class, the one beside it the drawer, both apart by turning */
static void write_images(const char *name, int first, int classes) {
  uint8_t *pixels = calloc((size_t)(classes * DRAWERS), PIXELS);
  assert_non_null(pixels);
  for (int i = 0; i < classes * DRAWERS; i++) {
    pixels[i * PIXELS] = (uint8_t)(100 + first + i / DRAWERS);
    pixels[i * PIXELS + 1] = (uint8_t)(10 + i % DRAWERS);
  }
  micah_array array = { .dtype = MICA_U8, .rank = 3, .shape = { classes * DRAWERS, SIDE, SIDE },
                        .count = (int64_t)classes * DRAWERS * PIXELS, .data = pixels };
  assert_int_equal(micah_npy_write(at(name), &array), MICA_OK);
  free(pixels);
}

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/mica_images_XXXXXX");
  if (!mkdtemp(folder)) return -1;
  write_images(files[0], 0, BACKGROUND);
  write_images(files[1], BACKGROUND, EVALUATION);
  FILE *index = fopen(at(files[2]), "w");
  if (!index) return -1;
  fprintf(index, "{\"drawers\": %d, \"characters\": [", DRAWERS);
  /* of the evaluation alphabets' three, Vinyals' split trains on the first */
  for (int c = 0; c < BACKGROUND + EVALUATION; c++)
    fprintf(index, "%s{\"split\": \"%s\", \"row\": %d, \"vinyals\": \"%s\"}", c ? ", " : "",
            c < BACKGROUND ? "background" : "evaluation", (c < BACKGROUND ? c : c - BACKGROUND) * DRAWERS,
            c > BACKGROUND ? "test" : c ? "train" : "val");
  fprintf(index, "]}");
  return fclose(index);
}

static int remove_folder(void **state) {
  (void)state;
  for (int i = 0; i < MICA_COUNT(files); i++) unlink(at(files[i]));
  return rmdir(folder);
}

/* fields of a batch over two axes */
typedef struct episode {
  int32_t support[2], query[2];
  float  *x[2];
  int32_t *y[2];
} episode;

static episode draw(opened *o, int64_t task) {
  episode e = { { 0 }, { 0 }, { NULL }, { NULL } };
  int32_t rows[2];
  assert_int_equal(o->family->sizes(o->self, task, 1, rows), MICA_OK);
  e.support[1] = rows[0], e.query[1] = rows[1];
  for (int i = 0; i < 2; i++) {
    e.x[i] = calloc((size_t)rows[i] * PIXELS, sizeof(float));
    e.y[i] = calloc((size_t)rows[i], sizeof(int32_t));
    assert_true(e.x[i] && e.y[i]);
  }
  const int32_t *offsets[] = { e.support, e.query };
  void *data[] = { e.x[0], e.y[0], e.x[1], e.y[1] };
  mica_batch batch = { sizeof batch, task, 1, offsets, data };
  assert_int_equal(o->family->fill(o->self, &batch), MICA_OK);
  return e;
}
static void drop_episode(episode *e) {
  for (int i = 0; i < 2; i++) free(e->x[i]), free(e->y[i]);
}

/* class, drawer and turn of an image; the marks stand in the corner that the turn took them to */
static void read_marks(const float *x, int *kind, int *drawer, int *turn) {
  static const int place[4][2] = { { 0, 1 }, { (SIDE - 1) * SIDE, (SIDE - 2) * SIDE },
                                   { PIXELS - 1, PIXELS - 2 }, { SIDE - 1, 2 * SIDE - 1 } };
  for (*turn = 0; *turn < 4; ++*turn) {
    double first = 255 * (double)x[place[*turn][0]], second = 255 * (double)x[place[*turn][1]];
    *kind = (int)(first + 0.5) - 100, *drawer = (int)(second + 0.5) - 10;
    if (*kind >= 0) return;
  }
  fail_msg("no marks in any corner");
}

static void check_split(const char *split, int test, unsigned allowed, int rotations) {
  char settings[300];
  snprintf(settings, sizeof settings, "path: %s\nsplit: %s\nways: 2\nshots: 2\nqueries: 3\nrotations: %s\n", folder,
           split, rotations ? "yes" : "no");
  opened o = open_family_named("few_shot_images", settings, test ? MICA_SPLIT_TEST : MICA_SPLIT_TRAIN, 3);
  unsigned seen = 0, turned = 0;
  for (int64_t task = 0; task < 60; task++) {
    episode e = draw(&o, task), again = draw(&o, task);
    int of_class[2] = { -1, -1 };
    unsigned used[2] = { 0, 0 };
    assert_int_equal(e.support[1], 4);
    assert_int_equal(e.query[1], 6);
    for (int part = 0; part < 2; part++)
      for (int r = 0; r < (part ? 6 : 4); r++) {
        int kind, drawer, turn, label = e.y[part][r];
        read_marks(e.x[part] + r * PIXELS, &kind, &drawer, &turn);
        assert_true(label == 0 || label == 1);
        assert_true(allowed >> kind & 1);
        assert_true(!(used[label] >> drawer & 1));  /* no drawing twice: a query is never a support */
        used[label] |= 1u << drawer, seen |= 1u << kind, turned |= 1u << turn;
        if (of_class[label] < 0) of_class[label] = 4 * kind + turn;
        assert_int_equal(of_class[label], 4 * kind + turn);
        assert_memory_equal(e.x[part], again.x[part], (size_t)(part ? 6 : 4) * PIXELS * sizeof(float));
      }
    assert_true(of_class[0] != of_class[1]);
    drop_episode(&e);
    drop_episode(&again);
  }
  assert_int_equal(seen, allowed);
  assert_int_equal(turned, rotations ? 15 : 1);
  close_opened(&o);
}

static void splits_have_their_classes(void **state) {
  (void)state;
  check_split("lake", 0, 0x0f, 0);
  check_split("lake", 1, 0x70, 1);
  check_split("vinyals", 0, 0x1f, 1);
  check_split("vinyals", 1, 0x60, 0);
}

static void glyphs_are_alike_within_a_class(void **state) {
  (void)state;
  opened o = open_family_named("few_shot_images", "ways: 5\nshots: 1\nqueries: 4\n", MICA_SPLIT_TRAIN, 7);
  int right = 0, all = 0;
  for (int64_t task = 0; task < 20; task++) {
    episode e = draw(&o, task);
    for (int q = 0; q < 20; q++, all++) {
      double best = 1e30;
      int label = -1;
      for (int s = 0; s < 5; s++) {
        double distance = 0;
        for (int i = 0; i < PIXELS; i++) {
          double d = (double)(e.x[1][q * PIXELS + i] - e.x[0][s * PIXELS + i]);
          assert_true(e.x[1][q * PIXELS + i] >= 0 && e.x[1][q * PIXELS + i] <= 1);
          distance += d * d;
        }
        if (distance < best) best = distance, label = e.y[0][s];
      }
      right += label == e.y[1][q];
    }
    drop_episode(&e);
  }
  /* nearest neighbour is far above chance (1 in 5) and not perfect */
  assert_true(right > all / 2 && right < all);
  close_opened(&o);
}

static void wrong_settings_are_named(void **state) {
  (void)state;
  char settings[300];
  snprintf(settings, sizeof settings, "path: %s\nways: 2\nshots: 4\nqueries: 3\n", folder);
  refused("few_shot_images", settings, "at most 6");
  snprintf(settings, sizeof settings, "path: %s\nways: 200\nshots: 1\nqueries: 1\n", folder);
  refused("few_shot_images", settings, "20 classes");
}

/* ---- as published: golden/omniglot, made with Pillow (make_omniglot.py) ---- */

static int published(const char *path, int64_t split, int test, micah_images *m) {
  mica_status status = micah_images_open(path, split, test, 0, m);
  if (status == MICA_ERR_UNSUPPORTED && strstr(mica_last_error(), "without libpng")) {
    print_message("skipped: built without libpng and libzip\n");
    skip();
  }
  return status;
}

static void published_images_are_what_pillow_makes(void **state) {
  (void)state;
  for (int test = 0; test < 2; test++) { /* a zip, with leftovers beside the drawings; a folder */
    micah_images m;
    micah_array  want = { 0 };
    assert_int_equal(published(MICA_TEST_DIR "/golden/omniglot", MICAH_IMAGES_SPLIT_LAKE, test, &m), MICA_OK);
    assert_int_equal(micah_npy_read(test ? MICA_TEST_DIR "/golden/omniglot/expected_evaluation.npy"
                                         : MICA_TEST_DIR "/golden/omniglot/expected_background.npy", &want), MICA_OK);
    assert_int_equal(m.drawings, 3);
    assert_int_equal(m.classes * m.drawings, want.shape[0]);
    for (int64_t c = 0; c < m.classes; c++) {
      assert_int_equal(m.first[c], c * m.drawings);
      for (int64_t d = 0; d < m.drawings; d++)
        assert_memory_equal(micah_images_get(&m, m.first[c] + d), (uint8_t *)want.data + (m.first[c] + d) * PIXELS, PIXELS);
    }
    micah_array_free(&want);
    micah_images_close(&m);
  }
  refused("few_shot_images", "path: " MICA_TEST_DIR "/golden/omniglot\n", "5 characters, expected the 1623");
}

/* a character's second drawing in a folder laid out as published */
static void write_drawing(const char *name, const char *bytes, size_t size) {
  char path[300];
  snprintf(path, sizeof path, "%s/images_background/[A]/character01", folder);
  assert_int_equal(micah_path_mkdirs(path), MICA_OK);
  snprintf(path, sizeof path, "%s/images_background/[A]/character01/%s.png", folder, name);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

static void a_published_image_that_is_none_is_named(void **state) {
  (void)state;
  char   *png = NULL, command[300];
  int64_t size = 0;
  micah_images m;
  char   whole[64];
  strcpy(whole, folder);
  strcpy(folder, "/tmp/mica_published_[XXXXXX");
  assert_non_null(mkdtemp(folder));
  assert_int_equal(micah_file_read(MICA_TEST_DIR "/golden/omniglot/images_evaluation/Gamma/character01/0001_01.png",
                                   1 << 20, &png, &size), MICA_OK);
  write_drawing("0001_01", png, (size_t)size);
  assert_int_equal(published(folder, MICAH_IMAGES_SPLIT_LAKE, 0, &m), MICA_OK); /* brackets are no pattern */
  assert_int_equal(m.images[0], 1);
  micah_images_close(&m);
  write_drawing("0001_02", png, (size_t)size / 2);
  assert_int_equal(published(folder, MICAH_IMAGES_SPLIT_LAKE, 0, &m), MICA_ERR_FORMAT);
  assert_non_null(strstr(mica_last_error(), "[A]/character01/0001_02.png: "));
  assert_int_equal(published(folder, MICAH_IMAGES_SPLIT_LAKE, 1, &m), MICA_ERR_FORMAT); /* no evaluation part */
  assert_non_null(strstr(mica_last_error(), "images_evaluation"));
  free(png);
  snprintf(command, sizeof command, "rm -r '%s'", folder);
  assert_int_equal(system(command), 0);
  strcpy(folder, whole);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(splits_have_their_classes), cmocka_unit_test(glyphs_are_alike_within_a_class),
    cmocka_unit_test(wrong_settings_are_named), cmocka_unit_test(published_images_are_what_pillow_makes),
    cmocka_unit_test(a_published_image_that_is_none_is_named),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
