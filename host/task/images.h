/* images.h (host/task): classes of small grey images, as Omniglot: read from files, or drawn by strokes. */
#ifndef MICAH_TASK_IMAGES_H
#define MICAH_TASK_IMAGES_H

#include "host/task/families.h"

enum { MICAH_IMAGES_SPLIT_VINYALS, MICAH_IMAGES_SPLIT_LAKE };
#define MICAH_IMAGES_SPLITS "vinyals|lake"
enum { MICAH_IMAGES_SIDE = 28, MICAH_IMAGES_PIXELS = MICAH_IMAGES_SIDE * MICAH_IMAGES_SIDE };

/* images of the classes of one split; ink is 255 on 0 */
typedef struct micah_images {
  uint8_t *pixels[2];            /* background, evaluation: (images, 28, 28) */
  int64_t  images[2];
  int64_t  classes, drawings;    /* drawings of each class */
  int64_t *first;                /* (classes) image of the first drawing, evaluation after background */
  uint8_t *runs;                 /* Lake's: (20, 2, 20, 28, 28), NULL: not asked for */
  uint8_t *run_label;            /* (20, 20) */
} micah_images;

/* Omniglot from a folder: omniglot28_background_u8.npy, omniglot28_evaluation_u8.npy and index.json (runs: with
 * lake_runs28_u8.npy and lake_runs_label_u8.npy), or images_background and images_evaluation as published, zips or
 * folders. vinyals: 1,200 characters train, 423 test; lake: background train, evaluation test. errors name file and
 * reason. */
mica_status    micah_images_open(const char *folder, int64_t split, int32_t test, int runs, micah_images *out);
void           micah_images_close(micah_images *images);
const uint8_t *micah_images_get(const micah_images *images, int64_t image);

/* a glyph of strokes: class and drawing by number; 28 x 28 numbers in [0, 1]. drawings of one class differ in the place
 * of every stroke's ends and bend, and in the pen's width. the same on every machine. */
void micah_images_glyph(micak_philox_key key, uint64_t class_number, uint64_t drawing, float *pixels);

#endif
