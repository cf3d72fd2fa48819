#include "host/task/images.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/io/file.h"
#include "host/io/json.h"
#include "host/io/npy.h"
#include "host/task/images_published.h"

enum { SIDE = MICAH_IMAGES_SIDE, PIXELS = MICAH_IMAGES_PIXELS };
static const char *const arrays[] = { "omniglot28_background_u8.npy", "omniglot28_evaluation_u8.npy" };
static const char *const parts[] = { "images_background", "images_evaluation" };

void micah_images_close(micah_images *m) {
  free(m->pixels[0]);
  free(m->pixels[1]);
  free(m->first);
  free(m->runs);
  free(m->run_label);
  memset(m, 0, sizeof *m);
}

const uint8_t *micah_images_get(const micah_images *m, int64_t image) {
  return image < m->images[0] ? m->pixels[0] + image * PIXELS : m->pixels[1] + (image - m->images[0]) * PIXELS;
}

/* an array of bytes whose trailing sizes are `tail`; shape[0] -1: any */
static mica_status read_bytes(const char *folder, const char *name, int32_t rank, const int64_t *shape, uint8_t **out,
                              int64_t *rows) {
  char *path = micah_path_join(folder, name);
  if (!path) return mica_error(MICA_ERR_MEMORY, "no memory for a path");
  micah_array array = { 0 };
  mica_status status = micah_npy_read(path, &array);
  int fits = status >= 0 && array.dtype == MICA_U8 && array.rank == rank;
  for (int32_t i = 0; fits && i < rank; i++) fits = array.shape[i] == shape[i] || shape[i] < 0;
  if (status >= 0 && !fits) {
    char want[80] = "";
    for (int32_t i = 0; i < rank; i++) {
      size_t at = strlen(want);
      snprintf(want + at, sizeof want - at, shape[i] < 0 ? "%sN" : "%s%lld", i ? ", " : "", (long long)shape[i]);
    }
    status = mica_error(MICA_ERR_FORMAT, "%s: holds %s of rank %d, expected u8 (%s)", path,
                        mica_dtype_name(array.dtype), (int)array.rank, want);
  }
  if (status >= 0) {
    *out = array.data, *rows = array.shape[0];
    array.data = NULL;
  }
  micah_array_free(&array);
  free(path);
  return status;
}

/* does a character of the index belong to the split? -1: the entry is malformed */
static int belongs(const cJSON *character, int64_t split, int32_t test, int *evaluation, int64_t *row) {
  const cJSON *part = cJSON_GetObjectItem(character, "split"), *at = cJSON_GetObjectItem(character, "row");
  const cJSON *vinyals = cJSON_GetObjectItem(character, "vinyals");
  if (!cJSON_IsString(part) || !cJSON_IsNumber(at) || (split == MICAH_IMAGES_SPLIT_VINYALS && !cJSON_IsString(vinyals)))
    return -1;
  *evaluation = !strcmp(part->valuestring, "evaluation");
  *row = (int64_t)at->valuedouble;
  int is_test = split == MICAH_IMAGES_SPLIT_LAKE ? *evaluation : !strcmp(vinyals->valuestring, "test");
  return is_test == (test != 0);
}

static mica_status read_index(const char *folder, int64_t split, int32_t test, micah_images *m) {
  char *path = micah_path_join(folder, "index.json");
  if (!path) return mica_error(MICA_ERR_MEMORY, "no memory for a path");
  cJSON *index = NULL;
  mica_status status = micah_json_read(path, 16 << 20, &index);
  const cJSON *drawers = cJSON_GetObjectItem(index, "drawers"), *list = cJSON_GetObjectItem(index, "characters"), *one;
  if (status >= 0 && (!cJSON_IsNumber(drawers) || !cJSON_IsArray(list)))
    status = mica_error(MICA_ERR_FORMAT, "%s: expected a number 'drawers' and an array 'characters'", path);
  if (status >= 0) {
    m->drawings = (int64_t)drawers->valuedouble;
    m->first = malloc((size_t)(cJSON_GetArraySize(list) + 1) * sizeof *m->first);
    if (!m->first) status = mica_error(MICA_ERR_MEMORY, "no memory for the classes of %s", path);
  }
  for (one = status >= 0 ? list->child : NULL; status >= 0 && one; one = one->next) {
    int evaluation = 0;
    int64_t row = 0;
    int in = belongs(one, split, test, &evaluation, &row);
    if (in < 0 || row < 0 || m->drawings < 1 || row + m->drawings > m->images[evaluation])
      status = mica_error(MICA_ERR_FORMAT, "%s: a character (row %lld) without split, row or vinyals, or whose images "
                          "lie outside of the file", path, (long long)row);
    else if (in) m->first[m->classes++] = row + (evaluation ? m->images[0] : 0);
  }
  if (status >= 0 && m->classes < 1) status = mica_error(MICA_ERR_FORMAT, "%s: no character is of this split", path);
  cJSON_Delete(index);
  free(path);
  return status;
}

static mica_status open_arrays(const char *folder, int64_t split, int32_t test, int runs, micah_images *m) {
  static const int64_t shape[] = { -1, SIDE, SIDE }, run_shape[] = { 20, 2, 20, SIDE, SIDE };
  static const int64_t label_shape[] = { 20, 20 };
  int64_t rows;
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < 2; i++)
    status = read_bytes(folder, arrays[i], 3, shape, &m->pixels[i], &m->images[i]);
  if (status >= 0) status = read_index(folder, split, test, m);
  if (status >= 0 && runs) status = read_bytes(folder, "lake_runs28_u8.npy", 5, run_shape, &m->runs, &rows);
  if (status >= 0 && runs) status = read_bytes(folder, "lake_runs_label_u8.npy", 2, label_shape, &m->run_label, &rows);
  return status;
}

/* Vinyals trains on the first 1,200 characters, background before evaluation, and tests on the other 423 */
enum { CHARACTERS = 1623, VINYALS_TRAIN = 1200 };
static mica_status open_published(const char *folder, int64_t split, int32_t test, int runs, micah_images *m) {
  int64_t drawings[2] = { 0, 0 }, lake = split == MICAH_IMAGES_SPLIT_LAKE;
  mica_status status = MICA_OK;
  if (runs)
    return mica_error(MICA_ERR_UNSUPPORTED, "%s: Lake's runs are read from lake_runs28_u8.npy and lake_runs_label_u8.npy, "
                      "beside the images as 28 x 28 arrays", folder);
  for (int i = 0; status >= 0 && i < 2; i++)
    if (!lake || i == (test != 0))
      status = micah_published_read(folder, parts[i], SIDE, &m->pixels[i], &m->images[i], &drawings[i]);
  if (status < 0) return status;
  m->drawings = drawings[drawings[0] == 0];
  if (!lake && drawings[0] != drawings[1])
    return mica_error(MICA_ERR_FORMAT, "%s: %lld drawings of a background character, %lld of an evaluation one, expected "
                      "the same", folder, (long long)drawings[0], (long long)drawings[1]);
  int64_t all = (m->images[0] + m->images[1]) / m->drawings;
  if (!lake && all != CHARACTERS)
    return mica_error(MICA_ERR_FORMAT, "%s: %lld characters, expected the %d that Vinyals' split is of; with a part of "
                      "them take split: lake", folder, (long long)all, CHARACTERS);
  int64_t first = lake || !test ? 0 : VINYALS_TRAIN, end = lake || test ? all : VINYALS_TRAIN;
  m->first = malloc((size_t)(end - first + 1) * sizeof *m->first);
  if (!m->first) return mica_error(MICA_ERR_MEMORY, "no memory for the classes of %s", folder);
  for (int64_t i = first; i < end; i++) m->first[m->classes++] = i * m->drawings;
  return MICA_OK;
}

mica_status micah_images_open(const char *folder, int64_t split, int32_t test, int runs, micah_images *m) {
  char *path = micah_path_join(folder, arrays[0]);
  int small = path && micah_path_kind(path) == MICAH_PATH_FILE;
  free(path);
  memset(m, 0, sizeof *m);
  mica_status status;
  if (small) status = open_arrays(folder, split, test, runs, m);
  else if (micah_published_has(folder, parts[0]) || micah_published_has(folder, parts[1]))
    status = open_published(folder, split, test, runs, m);
  else
    status = mica_error(MICA_ERR_IO, "%s: holds neither %s (images as 28 x 28 arrays) nor %s or %s.zip (as published)",
                        folder, arrays[0], parts[0], parts[0]);
  if (status < 0) micah_images_close(m);
  return status;
}

/* ---- glyphs ---- */

enum { STROKES = 4, POINTS = 24, DRAW_CLASS = 64, DRAW_DRAWING };

/* ink of one round of the pen at (x, y), pixels */
static void dab(float *pixels, double x, double y, double radius) {
  int left = (int)floor(x - radius - 1), top = (int)floor(y - radius - 1), size = (int)(2 * radius) + 4;
  for (int i = top; i < top + size; i++)
    for (int j = left; j < left + size; j++) {
      if (i < 0 || i >= SIDE || j < 0 || j >= SIDE) continue;
      double dx = j + 0.5 - x, dy = i + 0.5 - y, ink = radius + 0.5 - sqrt(dx * dx + dy * dy);
      ink = ink < 0 ? 0 : ink > 1 ? 1 : ink;
      if ((float)ink > pixels[i * SIDE + j]) pixels[i * SIDE + j] = (float)ink;
    }
}

void micah_images_glyph(micak_philox_key key, uint64_t class_number, uint64_t drawing, float *pixels) {
  micak_stream draw = micak_stream_at(key, class_number, DRAW_CLASS);
  micak_stream jitter = micak_stream_at(key, class_number * 4096 + drawing, DRAW_DRAWING);
  int strokes = 2 + (int)(micak_stream_uniform(&draw) * (STROKES - 1));
  double radius = 0.8 + 0.5 * micak_stream_uniform(&jitter);
  memset(pixels, 0, PIXELS * sizeof *pixels);
  for (int s = 0; s < strokes; s++) {
    double at[6];                /* both ends and the point between that bends the stroke */
    for (int i = 0; i < 6; i++) {
      double where = 3 + (SIDE - 6) * micak_stream_uniform(&draw);
      at[i] = where + 2.2 * (micak_stream_uniform(&jitter) + micak_stream_uniform(&jitter) - 1);
    }
    for (int p = 0; p <= POINTS; p++) {
      double u = p / (double)POINTS, a = (1 - u) * (1 - u), b = 2 * u * (1 - u), c = u * u;
      dab(pixels, a * at[0] + b * at[2] + c * at[4], a * at[1] + b * at[3] + c * at[5], radius);
    }
  }
}
