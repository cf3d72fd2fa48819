/* names.h: finding names, and the nearest one for messages. */
#ifndef MICA_KERNELS_COMMON_NAMES_H
#define MICA_KERNELS_COMMON_NAMES_H

#include <stddef.h>

/* the n-th name of a list, NULL past the end */
typedef const char *(*micak_name_fn)(const void *list, int index);

/* the name with the least edit distance to `wanted`, or NULL when none is near (distance over half the length). */
const char *micak_nearest(const char *wanted, micak_name_fn name, const void *list);

/* index of `wanted` in "a|b|c", or -1. */
int micak_choice(const char *choices, const char *wanted, size_t length);

/* copy choice `index` of "a|b|c" into text; "?" when out of range. */
void micak_choice_name(const char *choices, int index, char *text, size_t size);

#endif
