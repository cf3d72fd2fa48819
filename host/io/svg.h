/* svg.h: line charts as SVG, readable without a legend lookup, safe for colour-blind readers, with hover titles. */
#ifndef MICAH_IO_SVG_H
#define MICAH_IO_SVG_H

#include "host/io/text.h"

/* FAINT: thin and light, for a noisy series behind its average */
enum { MICAH_LINE, MICAH_DASHED, MICAH_POINTS, MICAH_BARS, MICAH_FAINT };

typedef struct micah_series {
  const char   *name;            /* in the legend */
  const double *x, *y;           /* (count); x NULL: 0, 1, 2 ...; points that are not finite break the line */
  int64_t       count;
  int32_t       style;           /* MICAH_LINE ... */
  int32_t       color;           /* index into the palette + 1; 0: its place in the list */
} micah_series;

typedef struct micah_chart {
  const char         *title, *x_label, *y_label;
  const micah_series *series;
  int32_t             n_series;  /* at most 8 */
  int32_t             log_x, log_y;
  int32_t             zero_y;    /* 1: the y axis starts at 0 */
  int32_t             width, height; /* px; 0: 720 x 400 */
  const char *const  *categories; /* (n_categories) names at x = 0, 1, 2 ... in place of numbers; or NULL */
  int32_t             n_categories;
} micah_chart;

/* append one <svg> element. long series are thinned to what pixels can show, keeping extremes. */
mica_status micah_svg_chart(micah_text *out, const micah_chart *chart);

#endif
