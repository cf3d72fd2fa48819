#include "host/task/images_published.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/io/file.h"

static char *place(const char *folder, const char *part, const char *end) {
  char name[64];
  snprintf(name, sizeof name, "%s%s", part, end);
  return micah_path_join(folder, name);
}

int micah_published_has(const char *folder, const char *part) {
  char *zip = place(folder, part, ".zip"), *plain = place(folder, part, "");
  int has = zip && plain && (micah_path_kind(zip) == MICAH_PATH_FILE || micah_path_kind(plain) == MICAH_PATH_FOLDER);
  free(zip);
  free(plain);
  return has;
}

#ifndef MICA_HAVE_PNG
mica_status micah_published_read(const char *folder, const char *part, int32_t side, uint8_t **pixels, int64_t *images,
                                 int64_t *drawings) {
  (void)side, (void)pixels, (void)images, (void)drawings;
  return mica_error(MICA_ERR_UNSUPPORTED, "%s/%s: mica was built without libpng and libzip, which read it; install them "
                    "(Debian: libpng-dev libzip-dev) and build again", folder, part);
}
#else
#include <glob.h>
#include <math.h>
#include <png.h>
#include <zip.h>

enum { LARGEST = 4096, FILE_MOST = 1 << 22, BITS = 22 };

/* where drawings come from: an opened zip, or files */
typedef struct source {
  char  *path;
  zip_t *zip;
  char **names;                  /* of the drawings, sorted */
  int64_t n, capacity;
} source;

static void close_source(source *s) {
  if (s->zip) zip_discard(s->zip);
  for (int64_t i = 0; i < s->n; i++) free(s->names[i]);
  free(s->names);
  free(s->path);
}

static mica_status add_name(source *s, const char *name) {
  if (s->n == s->capacity) {
    int64_t more = s->capacity ? 2 * s->capacity : 1024;
    char  **grown = realloc(s->names, (size_t)more * sizeof *grown);
    if (!grown) return mica_error(MICA_ERR_MEMORY, "no memory for the names in %s", s->path);
    s->names = grown, s->capacity = more;
  }
  s->names[s->n] = strdup(name);
  if (!s->names[s->n]) return mica_error(MICA_ERR_MEMORY, "no memory for the names in %s", s->path);
  s->n++;
  return MICA_OK;
}

/* PART/ALPHABET/CHARACTER/DRAWING.png, and nothing that a Mac left beside it */
static int is_drawing(const char *name, const char *part) {
  size_t length = strlen(name), head = strlen(part), slashes = 0;
  for (const char *c = name; *c; c++) slashes += *c == '/';
  return slashes == 3 && !strncmp(name, part, head) && name[head] == '/' && length > 4 &&
         !strcmp(name + length - 4, ".png");
}

static mica_status open_zip(source *s, const char *part) {
  int code = 0;
  mica_status status = MICA_OK;
  s->zip = zip_open(s->path, ZIP_RDONLY, &code);
  if (!s->zip) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    status = mica_error(MICA_ERR_FORMAT, "%s: %s", s->path, zip_error_strerror(&error));
    zip_error_fini(&error);
    return status;
  }
  for (zip_int64_t i = 0; status >= 0 && i < zip_get_num_entries(s->zip, 0); i++) {
    const char *name = zip_get_name(s->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
    if (name && is_drawing(name, part)) status = add_name(s, name);
  }
  return status;
}

static mica_status open_folder(source *s) {
  /* the folder's own name is no pattern */
  size_t n = strlen(s->path), at = 0;
  char  *pattern = malloc(2 * n + 16);
  if (!pattern) return mica_error(MICA_ERR_MEMORY, "no memory for the names in %s", s->path);
  for (size_t i = 0; i < n; i++) {
    if (strchr("*?[]\\", s->path[i])) pattern[at++] = '\\';
    pattern[at++] = s->path[i];
  }
  strcpy(pattern + at, "/*/*/*.png");
  glob_t found = { 0 };
  int    code = glob(pattern, GLOB_NOSORT, NULL, &found);
  mica_status status = MICA_OK;
  if (code == GLOB_NOSPACE) status = mica_error(MICA_ERR_MEMORY, "no memory for the names in %s", s->path);
  else if (code == GLOB_ABORTED) status = mica_error(MICA_ERR_IO, "%s: a folder in it cannot be read", s->path);
  for (size_t i = 0; status >= 0 && i < found.gl_pathc; i++) status = add_name(s, found.gl_pathv[i]);
  globfree(&found);
  free(pattern);
  return status;
}

static int by_bytes(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static mica_status open_source(source *s, const char *folder, const char *part) {
  s->path = place(folder, part, ".zip");
  if (!s->path) return mica_error(MICA_ERR_MEMORY, "no memory for a path");
  mica_status status;
  if (micah_path_kind(s->path) == MICAH_PATH_FILE) {
    status = open_zip(s, part);
  } else {
    free(s->path);
    s->path = place(folder, part, "");
    status = s->path ? open_folder(s) : mica_error(MICA_ERR_MEMORY, "no memory for a path");
  }
  if (status >= 0 && !s->n)
    status = mica_error(MICA_ERR_FORMAT, "%s: holds no drawing, expected ALPHABET/CHARACTER/DRAWING.png", s->path);
  if (status >= 0) qsort(s->names, (size_t)s->n, sizeof *s->names, by_bytes);
  return status;
}

/* the bytes of one drawing; *data is malloc'd */
static mica_status read_entry(const source *s, const char *name, char **data, int64_t *size) {
  if (!s->zip) return micah_file_read(name, FILE_MOST, data, size);
  zip_stat_t stat;
  if (zip_stat(s->zip, name, ZIP_FL_ENC_RAW, &stat) || !(stat.valid & ZIP_STAT_SIZE) || stat.size > FILE_MOST)
    return mica_error(MICA_ERR_FORMAT, "%s: entry %s: no size, or over %d bytes", s->path, name, FILE_MOST);
  zip_file_t *file = zip_fopen(s->zip, name, ZIP_FL_ENC_RAW);
  *data = malloc((size_t)stat.size + 1);
  *size = (int64_t)stat.size;
  mica_status status = MICA_OK;
  if (!*data) status = mica_error(MICA_ERR_MEMORY, "no memory for %s of %s", name, s->path);
  else if (!file || zip_fread(file, *data, stat.size) != (zip_int64_t)stat.size)
    status = mica_error(MICA_ERR_FORMAT, "%s: entry %s: %s", s->path, name,
                        file ? zip_file_strerror(file) : zip_strerror(s->zip));
  if (file) zip_fclose(file);
  if (status < 0) free(*data), *data = NULL;
  return status;
}

/* ---- smaller ---- */

/* weights of `from` pixels for each of `to` */
typedef struct taps { int32_t first, count; int32_t *weight; } taps;

static double lanczos(double x) {
  if (x < -3 || x >= 3) return 0;
  if (x == 0) return 1;
  double a = x * M_PI, b = a / 3;
  return sin(a) / a * (sin(b) / b);
}

static taps taps_of(int32_t from, int32_t to, int32_t i, int32_t *weight) {
  double scale = (double)from / to, wide = scale > 1 ? scale : 1, reach = 3 * wide, center = (i + 0.5) * scale, sum = 0;
  double w[LARGEST];
  int32_t first = (int32_t)(center - reach + 0.5), end = (int32_t)(center + reach + 0.5);
  if (first < 0) first = 0;
  if (end > from) end = from;
  for (int32_t k = first; k < end; k++) sum += w[k - first] = lanczos((k - center + 0.5) / wide);
  for (int32_t k = 0; k < end - first; k++) {
    double part = w[k] / sum * (1 << BITS);
    weight[k] = (int32_t)(part < 0 ? part - 0.5 : part + 0.5);
  }
  return (taps){ first, end - first, weight };
}

/* one pixel of a line whose pixels lie `step` apart */
static uint8_t weighed(const uint8_t *line, int64_t step, const taps *t) {
  int64_t sum = 1 << (BITS - 1);
  for (int32_t k = 0; k < t->count; k++) sum += (int64_t)line[(t->first + k) * step] * t->weight[k];
  sum >>= BITS;
  return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* grey pixels of one size of image to another, kept from image to image of the same size */
typedef struct shrink {
  int32_t  width, height, side;
  taps    *across, *down;
  int32_t *weights;
  uint8_t *grey, *between;
} shrink;

static void shrink_free(shrink *s) {
  free(s->across);
  free(s->weights);
  free(s->grey);
  memset(s, 0, sizeof *s);
}

static mica_status shrink_for(shrink *s, int32_t width, int32_t height, int32_t side) {
  if (s->across && s->width == width && s->height == height) return MICA_OK;
  shrink_free(s);
  int64_t pixels = (int64_t)width * height, half = (int64_t)side * height;
  s->width = width, s->height = height, s->side = side;
  s->across = malloc(2 * (size_t)side * sizeof *s->across);
  s->weights = malloc((size_t)side * ((size_t)width + (size_t)height) * sizeof *s->weights);
  s->grey = malloc((size_t)(pixels + half));
  if (!s->across || !s->weights || !s->grey)
    return mica_error(MICA_ERR_MEMORY, "no memory for an image of %d x %d", (int)width, (int)height);
  s->down = s->across + side;
  s->between = s->grey + pixels;
  for (int32_t i = 0; i < side; i++) {
    s->across[i] = taps_of(width, side, i, s->weights + (int64_t)i * width);
    s->down[i] = taps_of(height, side, i, s->weights + (int64_t)side * width + (int64_t)i * height);
  }
  return MICA_OK;
}

static void shrink_run(const shrink *s, uint8_t *out) {
  for (int64_t r = 0; r < s->height; r++)
    for (int64_t c = 0; c < s->side; c++)
      s->between[r * s->side + c] = weighed(s->grey + r * s->width, 1, &s->across[c]);
  for (int64_t r = 0; r < s->side; r++)
    for (int64_t c = 0; c < s->side; c++)
      out[r * s->side + c] = (uint8_t)(255 - weighed(s->between + c, s->side, &s->down[r]));
}

static mica_status decode(const source *s, const char *name, int32_t side, shrink *how, uint8_t *out) {
  char   *data = NULL;
  int64_t size = 0;
  mica_status status = read_entry(s, name, &data, &size);
  if (status < 0) return status;
  png_image image = { .version = PNG_IMAGE_VERSION };
  if (!png_image_begin_read_from_memory(&image, data, (size_t)size))
    status = mica_error(MICA_ERR_FORMAT, "%s: %s: %s", s->path, name, image.message);
  else if (image.width > LARGEST || image.height > LARGEST)
    status = mica_error(MICA_ERR_FORMAT, "%s: %s: is %u x %u, expected at most %d", s->path, name, image.width,
                        image.height, LARGEST);
  else status = shrink_for(how, (int32_t)image.width, (int32_t)image.height, side);
  if (status >= 0) {
    image.format = PNG_FORMAT_GRAY;
    if (!png_image_finish_read(&image, NULL, how->grey, how->width, NULL))
      status = mica_error(MICA_ERR_FORMAT, "%s: %s: %s", s->path, name, image.message);
    else shrink_run(how, out);
  }
  png_image_free(&image);
  free(data);
  return status;
}

/* drawings of each character, by the folders of the sorted names */
static mica_status count_drawings(const source *s, int64_t *drawings) {
  *drawings = 0;
  for (int64_t first = 0, end; first < s->n; first = end) {
    size_t folder = (size_t)(strrchr(s->names[first], '/') - s->names[first]) + 1;
    for (end = first + 1; end < s->n && !strncmp(s->names[first], s->names[end], folder); end++) continue;
    if (!*drawings) *drawings = end - first;
    if (end - first != *drawings)
      return mica_error(MICA_ERR_FORMAT, "%s: %.*s has %lld drawings, expected %lld as in the first", s->path,
                        (int)folder - 1, s->names[first], (long long)(end - first), (long long)*drawings);
  }
  return MICA_OK;
}

mica_status micah_published_read(const char *folder, const char *part, int32_t side, uint8_t **pixels, int64_t *images,
                                 int64_t *drawings) {
  source s = { 0 };
  shrink how = { 0 };
  mica_status status = open_source(&s, folder, part);
  *pixels = NULL;
  if (status >= 0) status = count_drawings(&s, drawings);
  if (status >= 0 && !(*pixels = malloc((size_t)s.n * (size_t)side * (size_t)side)))
    status = mica_error(MICA_ERR_MEMORY, "no memory for %lld images of %s", (long long)s.n, s.path);
  for (int64_t i = 0; status >= 0 && i < s.n; i++)
    status = decode(&s, s.names[i], side, &how, *pixels + i * side * side);
  *images = s.n;
  if (status < 0) free(*pixels), *pixels = NULL;
  shrink_free(&how);
  close_source(&s);
  return status;
}
#endif
