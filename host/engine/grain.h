/* grain.h: gradients of grains and their sum in one fixed binary tree.
 *
 * a step's grains 0, 1, 2 ... are the leaves. a launch writes any number of consecutive ones, each into its slot; they
 * enter a binary counter of partial sums: two sums of equally many grains are added at once, left += right. so the
 * additions and their order depend on the number of grains alone, and log2 of it partial sums are kept. */
#ifndef MICAH_ENGINE_GRAIN_H
#define MICAH_ENGINE_GRAIN_H

#include "host/device/device.h"

typedef struct micah_tree micah_tree;

/* for blocks of `count` floats on a device, `grains` a step, at most `launch` of them at once; all work goes to the
 * stream */
mica_status micah_tree_create(micah_device *device, void *stream, int64_t count, int64_t grains, int64_t launch,
                              micah_tree **out);
void        micah_tree_destroy(micah_tree *tree);
int64_t     micah_tree_bytes(const micah_tree *tree);

/* where the next launch's grains go: slot s at base + s x stride (floats) */
float  *micah_tree_slots(micah_tree *tree);
int64_t micah_tree_stride(const micah_tree *tree);
/* set a slot to zero, for a grain without tasks */
mica_status micah_tree_clear(micah_tree *tree, int64_t slot);
/* slots [0, n) are written: add them to the counter. `last`: no launch follows in this step. */
mica_status micah_tree_push(micah_tree *tree, int64_t n, int last);
/* the sum of all grains pushed since the last call, valid until the next push; leaves the counter empty. */
mica_status micah_tree_finish(micah_tree *tree, float **sum);
/* forget what was pushed */
void    micah_tree_reset(micah_tree *tree);

#endif
