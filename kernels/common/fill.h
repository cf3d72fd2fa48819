/* fill.h: making and converting flat blocks of numbers, for parameters and data; no op logic. */
#ifndef MICA_KERNELS_COMMON_FILL_H
#define MICA_KERNELS_COMMON_FILL_H

#include "mica/program.h"

/* fill data[0, count) of `dtype` (F32, F64, BF16) with a value, rounded to the type. */
void micak_fill(int dtype, void *data, int64_t count, double value);

/* to[i] = from[i]: F32, F64 and BF16 in any combination, integers among themselves; rounds to nearest even.
 * MICA_ERR_INVALID for numbers to integers and back. from and to must not overlap unless the types are equal. */
mica_status micak_convert(int to_dtype, void *to, int from_dtype, const void *from, int64_t count);

/* initial values of a parameter, a pure function of (seed, name, element): ZERO, ONE, NORMAL (standard deviation
 * scale), UNIFORM (in [-scale, scale]). drawn by Philox in double and rounded to float first, so that F64 starts at
 * F32's point. elements [first, first + count) of the parameter go to data[0, count). */
mica_status micak_init_param(int dtype, void *data, int64_t first, int64_t count, mica_init init, uint64_t seed,
                             const char *name);

#endif
