/* images_published.h (host/task): Omniglot as its author publishes it, made into small grey images. */
#ifndef MICAH_TASK_IMAGES_PUBLISHED_H
#define MICAH_TASK_IMAGES_PUBLISHED_H

#include "mica/status.h"

/* what `folder` has of a part: a zip or a folder of that name; 0: neither */
int micah_published_has(const char *folder, const char *part);

/* all drawings of a part ("images_background"), ALPHABET/CHARACTER/DRAWING.png in order of names (bytes): *pixels
 * (images, side, side), malloc'd, ink 255 on 0, each made smaller as Pillow does with LANCZOS (libImaging/Resample.c:
 * across, then down, 8 bits between, coefficients of 22 bits). *drawings: of every character, the same for all.
 * errors name file, entry, expected, got; MICA_ERR_UNSUPPORTED where libpng and libzip were missing at build time. */
mica_status micah_published_read(const char *folder, const char *part, int32_t side, uint8_t **pixels, int64_t *images,
                                 int64_t *drawings);

#endif
