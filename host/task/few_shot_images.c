/* N-way K-shot episodes of small images (Lake et al. 2015; Vinyals et al. 2016): `shots` labelled images of each of
 * `ways` classes to learn from, `queries` more of each to be judged by. Omniglot from files, or glyphs of strokes. */
#include "host/task/images.h"

#include <string.h>

static const char name[] = "few_shot_images";

enum { TEST_CLASSES, TEST_LAKE_RUNS };
enum { RUNS = 20, DRAWN_MOST = 1024 };

typedef struct config {
  const char *path;
  int64_t     ways, shots, queries, train_ways, train_queries, split, test;
  int32_t     rotations;
} config;

#define KEY(field, type, value, lo, hi, choices, doc) \
  { #field, type, offsetof(config, field), value, lo, hi, choices, doc }
static const mica_key keys[] = {
  KEY(path, MICA_KEY_PATH, "", 0, 0, NULL,
      "folder of Omniglot, as published (images_background.zip ...) or as 28 x 28 arrays with an index; empty: glyphs of "
      "strokes, new classes in every task"),
  KEY(ways, MICA_KEY_INT, "5", 2, 512, NULL, "classes of a task"),
  KEY(shots, MICA_KEY_INT, "1", 1, 512, NULL, "images of each class to learn from"),
  KEY(queries, MICA_KEY_INT, "15", 1, 512, NULL, "images of each class to be judged by"),
  KEY(train_ways, MICA_KEY_INT, "0", 0, 512, NULL, "classes of a task in training; 0: as ways"),
  KEY(train_queries, MICA_KEY_INT, "0", 0, 512, NULL, "images to be judged by in training; 0: as queries"),
  KEY(split, MICA_KEY_CHOICE, "vinyals", 0, 0, MICAH_IMAGES_SPLITS,
      "classes of training and testing: 1,200 and 423 characters, or the background and evaluation alphabets"),
  KEY(rotations, MICA_KEY_BOOL, "yes", 0, 0, NULL, "a class turned by 90, 180 and 270 degrees is another class"),
  KEY(test, MICA_KEY_CHOICE, "classes", 0, 0, "classes|lake_runs",
      "test tasks: episodes of the test classes, or Lake's 20 runs of 20 characters of one alphabet"),
};

static const mica_field declared[] = {
  { "support_x", MICA_F32, MICA_FIELD_SUPPORT, "support", 3, { MICAH_IMAGES_SIDE, MICAH_IMAGES_SIDE, 1 }, 0 },
  { "support_y", MICA_I32, MICA_FIELD_SUPPORT, "support", 0, { 0 }, 0 },
  { "query_x", MICA_F32, MICA_FIELD_INPUT, "query", 3, { MICAH_IMAGES_SIDE, MICAH_IMAGES_SIDE, 1 }, 0 },
  { "query_y", MICA_I32, MICA_FIELD_TARGET, "query", 0, { 0 }, 0 },
};
enum { FIELDS = MICA_COUNT(declared), DRAW_CLASSES = 0, DRAW_ITEMS = 1 };

typedef struct family {
  const mica_context *context;
  int64_t             ways, shots, queries;
  int32_t             rotations, lake, drawn;
  mica_field          fields[FIELDS];
  micak_philox_key    key;
  micah_images        images;    /* of the split; none where glyphs are drawn */
} family;

static void close_family(void *self) {
  family *f = self;
  if (!f) return;
  micah_images_close(&f->images);
  micah_free(f->context, f, sizeof *f);
}

static mica_status open_family(const mica_family_env *env, const void *settings, void **self) {
  const config *c = settings;
  mica_status status = micah_task_env_check(env, name);
  if (status < 0) return status;
  family *f = micah_alloc(env->context, sizeof *f, name);
  if (!f) return MICA_ERR_MEMORY;
  memset(f, 0, sizeof *f);
  int test = env->split == MICA_SPLIT_TEST;
  f->context = env->context, f->key = micah_task_key(env, name, env->split);
  f->ways = !test && c->train_ways ? c->train_ways : c->ways, f->shots = c->shots;
  f->queries = !test && c->train_queries ? c->train_queries : c->queries;
  f->rotations = c->rotations, f->lake = test && c->test == TEST_LAKE_RUNS, f->drawn = !c->path || !*c->path;
  memcpy(f->fields, declared, sizeof declared);
  f->fields[1].range = f->fields[3].range = f->ways;
  int64_t drawings = DRAWN_MOST, classes = INT64_MAX;
  if (!f->drawn) {
    status = micah_images_open(c->path, c->split, test, f->lake, &f->images);
    drawings = f->images.drawings, classes = f->images.classes * (f->rotations ? 4 : 1);
  }
  if (status >= 0 && f->lake && f->drawn)
    status = mica_error(MICA_ERR_CONFIG, "family %s: test: lake_runs needs path, the folder of Omniglot", name);
  if (status >= 0 && f->lake && (f->ways != 20 || f->shots != 1 || f->queries != 1))
    status = mica_error(MICA_ERR_CONFIG, "family %s: Lake's runs have ways 20, shots 1, queries 1; got %lld, %lld, "
                        "%lld", name, (long long)f->ways, (long long)f->shots, (long long)f->queries);
  if (status >= 0 && f->shots + f->queries > drawings)
    status = mica_error(MICA_ERR_CONFIG, "family %s: shots + queries is %lld, expected at most %lld, the drawings of a "
                        "class", name, (long long)(f->shots + f->queries), (long long)drawings);
  if (status >= 0 && f->ways > classes)
    status = mica_error(MICA_ERR_CONFIG, "family %s: ways is %lld, the split has %lld classes", name,
                        (long long)f->ways, (long long)classes);
  if (status < 0) {
    close_family(f);
    return status;
  }
  *self = f;
  return MICA_OK;
}

static mica_status get_fields(void *self, const mica_field **out, int32_t *count) {
  *out = ((const family *)self)->fields, *count = FIELDS;
  return MICA_OK;
}

static mica_status longest(void *self, int64_t *rows) {
  const family *f = self;
  rows[0] = f->ways * f->shots, rows[1] = f->ways * f->queries;
  return MICA_OK;
}

static mica_status sizes(void *self, int64_t first, int64_t count, int32_t *rows) {
  const family *f = self;
  (void)first;
  for (int64_t i = 0; i < count; i++)
    rows[i] = (int32_t)(f->ways * f->shots), rows[count + i] = (int32_t)(f->ways * f->queries);
  return MICA_OK;
}

static int64_t count_tasks(void *self) { return ((const family *)self)->lake ? RUNS : -1; }

/* turned anticlockwise by `turns` x 90 degrees */
static void put_image(const uint8_t *from, int turns, float *to) {
  enum { N = MICAH_IMAGES_SIDE };
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      int y = turns == 0 ? i : turns == 1 ? j : turns == 2 ? N - 1 - i : N - 1 - j;
      int x = turns == 0 ? j : turns == 1 ? N - 1 - i : turns == 2 ? N - 1 - j : i;
      to[i * N + j] = (float)from[y * N + x] / 255.0f;
    }
}

static int64_t below(micak_stream *draw, int64_t n) {
  int64_t i = (int64_t)(micak_stream_uniform(draw) * (double)n);
  return i < n ? i : n - 1;
}

/* item `which` of the numbers below n that come first in a random order; order: (most) what has been drawn */
static int64_t draw_other(micak_stream *draw, int64_t n, int64_t *order, int64_t drawn) {
  for (;;) {
    int64_t i = below(draw, n), k = 0;
    while (k < drawn && order[k] != i) k++;
    if (k == drawn) return order[drawn] = i;
  }
}

static void fill_task(const family *f, uint64_t task, const mica_batch *batch, int64_t b) {
  float *x[2];
  int32_t *y[2];
  for (int part = 0; part < 2; part++) {
    x[part] = (float *)batch->data[2 * part] + (int64_t)batch->offsets[part][b] * MICAH_IMAGES_PIXELS;
    y[part] = (int32_t *)batch->data[2 * part + 1] + batch->offsets[part][b];
  }
  if (f->lake) {
    for (int64_t i = 0; i < 40; i++) {
      int part = i >= 20;
      put_image(f->images.runs + ((int64_t)task * 40 + i) * MICAH_IMAGES_PIXELS, 0,
                x[part] + i % 20 * MICAH_IMAGES_PIXELS);
      y[part][i % 20] = part ? f->images.run_label[task * 20 + (uint64_t)i % 20] : (int32_t)i;
    }
    return;
  }
  micak_stream draw = micak_stream_at(f->key, task, DRAW_CLASSES);
  int64_t classes[512], items[DRAWN_MOST];
  for (int64_t w = 0; w < f->ways; w++) {
    micak_stream draw_item = micak_stream_at(f->key, task * 512 + (uint64_t)w, DRAW_ITEMS);
    int64_t turns = f->rotations ? 4 : 1, kind = 0;
    if (!f->drawn) kind = draw_other(&draw, f->images.classes * turns, classes, w);
    for (int64_t k = 0; k < f->shots + f->queries; k++) {
      int part = k >= f->shots;
      int64_t row = part ? w * f->queries + k - f->shots : w * f->shots + k;
      float *to = x[part] + row * MICAH_IMAGES_PIXELS;
      y[part][row] = (int32_t)w;
      if (f->drawn) micah_images_glyph(f->key, task * 512 + (uint64_t)w, (uint64_t)k, to);
      else
        put_image(micah_images_get(&f->images, f->images.first[kind / turns] +
                                   draw_other(&draw_item, f->images.drawings, items, k)), (int)(kind % turns), to);
    }
  }
}

static mica_status fill(void *self, const mica_batch *batch) {
  for (int64_t b = 0; b < batch->count; b++) fill_task(self, (uint64_t)(batch->first + b), batch, b);
  return MICA_OK;
}

const mica_family micah_family_few_shot_images = {
  .size = sizeof(mica_family),
  .name = name,
  .doc = "N-way K-shot episodes of small images: Omniglot, or glyphs of strokes",
  .axes = "support query",
  .predictors = "",
  .keys = keys,
  .n_keys = MICA_COUNT(keys),
  .config_size = sizeof(config),
  .open = open_family,
  .close = close_family,
  .fields = get_fields,
  .longest = longest,
  .sizes = sizes,
  .fill = fill,
  .count = count_tasks,
};
