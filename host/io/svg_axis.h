/* axes of a chart: range, ticks, labels; private to host/io/svg*.c. */
#ifndef MICAH_IO_SVG_AXIS_H
#define MICAH_IO_SVG_AXIS_H

#include "host/io/text.h"

enum { MICAH_MAX_TICKS = 24, MICAH_TICK_TEXT = 16 };

typedef struct micah_axis {
  double lo, hi;                 /* of the data, then of the axis; log10 of them on a logarithmic axis */
  int    logarithmic, any;       /* any: a value was seen */
  double from, to;               /* pixels of lo and hi */
  int    n_ticks;
  double tick[MICAH_MAX_TICKS];  /* values, log10 on a logarithmic axis */
  char   label[MICAH_MAX_TICKS][MICAH_TICK_TEXT];
} micah_axis;

/* 1 when the axis can show the value */
int    micah_axis_shows(const micah_axis *axis, double value);
/* widen lo..hi to a value that it shows */
void   micah_axis_see(micah_axis *axis, double value);
/* margins (a part of the range, at each end), about `count` ticks and their labels */
void   micah_axis_finish(micah_axis *axis, double margin, int count);
/* pixel of a value that it shows */
double micah_axis_pixel(const micah_axis *axis, double value);

/* short text of a number in multiples of step: 0.25, 2,000, 20k, 1e-6; its unit is that of `largest` beside it */
void micah_number_label(double value, double step, double largest, char *out, size_t size);

#endif
