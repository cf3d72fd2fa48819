#include "host/io/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/io/svg_axis.h"

enum { MAX_SERIES = 8, LABEL_CHARS = 26, HOVERS = 120 };

/* Okabe and Ito's colours, told apart with any kind of colour vision, without the yellow that white swallows */
static const char *const palette[MAX_SERIES] = {
  "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07A00", "#56B4E9", "#4D4D4D", "#7A3E9D",
};

typedef struct plot {
  const micah_chart *chart;
  micah_text *out;
  micah_axis x, y;
  double width, height, left, right, top, bottom; /* px; the last four are margins */
  int bars, lean;                                 /* lean: names of categories would touch upright */
} plot;

/* text is drawn at 12 px, where a letter takes 6.6 px on average */
static double text_width(const char *text) {
  double letters = 0;
  for (const char *p = text; *p; p++) letters += ((unsigned char)*p & 0xC0) != 0x80;
  return letters * 6.6;
}

static void number(micah_text *out, double px) { micah_text_number(out, round(px * 10) / 10, 8); }

/* attr="px" */
static void attribute(micah_text *out, const char *name, double px) {
  micah_text_format(out, " %s=\"", name);
  number(out, px);
  micah_text_add(out, "\"");
}

static void label(plot *p, double x, double y, const char *anchor, const char *more, const char *text) {
  micah_text_add(p->out, "<text");
  attribute(p->out, "x", x);
  attribute(p->out, "y", y);
  micah_text_format(p->out, " text-anchor=\"%s\"%s>", anchor, more);
  micah_text_escape(p->out, text);
  micah_text_add(p->out, "</text>\n");
}

static void line(plot *p, double x1, double y1, double x2, double y2, const char *style) {
  micah_text_add(p->out, "<line");
  attribute(p->out, "x1", x1);
  attribute(p->out, "y1", y1);
  attribute(p->out, "x2", x2);
  attribute(p->out, "y2", y2);
  micah_text_format(p->out, " %s/>\n", style);
}

static double x_of(const micah_series *s, int64_t i) { return s->x ? s->x[i] : (double)i; }

static const char *color_of(const micah_chart *chart, int i) {
  int color = chart->series[i].color;
  return palette[(color > 0 ? color - 1 : i) % MAX_SERIES];
}

static int shown(const plot *p, const micah_series *s, int64_t i) {
  return micah_axis_shows(&p->x, x_of(s, i)) && micah_axis_shows(&p->y, s->y[i]);
}

/* a name cut to the room beside the chart */
static void short_name(const char *name, char *out, size_t size) {
  size_t at = 0, letters = 0, bytes = strlen(name);
  while (at < bytes && letters < LABEL_CHARS && at + 8 < size) {
    size_t n = micah_utf8_length(name + at, bytes - at);
    if (!n) n = 1;
    memcpy(out + at, name + at, n);
    at += n;
    letters++;
  }
  snprintf(out + at, size - at, "%s", at < bytes ? "\xE2\x80\xA6" : "");
}

static void measure(plot *p) {
  const micah_chart *c = p->chart;
  double widest = 0;
  p->width = c->width > 0 ? c->width : 720;
  p->height = c->height > 0 ? c->height : 400;
  p->x.logarithmic = c->log_x && !c->categories;
  p->y.logarithmic = c->log_y != 0;
  for (int s = 0; s < c->n_series; s++) {
    const micah_series *series = &c->series[s];
    char name[160];
    if (series->style == MICAH_BARS) p->bars++;
    for (int64_t i = 0; i < series->count; i++) {
      if (!shown(p, series, i)) continue;
      micah_axis_see(&p->x, x_of(series, i));
      micah_axis_see(&p->y, series->y[i]);
    }
    short_name(series->name ? series->name : "", name, sizeof name);
    widest = fmax(widest, text_width(name) * 1.12); /* they are bold */
  }
  if ((c->zero_y || p->bars) && !p->y.logarithmic) micah_axis_see(&p->y, 0);
  if (c->categories && c->n_categories > 0) {
    micah_axis_see(&p->x, -0.5);
    micah_axis_see(&p->x, c->n_categories - 0.5);
  } else if (p->bars) {
    micah_axis_see(&p->x, p->x.any ? p->x.lo - 0.5 : 0);
    micah_axis_see(&p->x, p->x.hi + 0.5);
  }
  p->top = c->title && *c->title ? 44 : 18;
  p->bottom = c->x_label && *c->x_label ? 52 : 34;
  p->right = widest > 0 ? fmin(widest + 44, p->width * 0.4) : 18;
  double longest = 0;
  for (int i = 0; c->categories && i < c->n_categories; i++) {
    char name[160];
    short_name(c->categories[i], name, sizeof name);
    longest = fmax(longest, text_width(name));
  }
  p->lean = longest + 6 > (p->width - p->right - 60) / fmax(1, c->n_categories);
  if (p->lean) p->bottom += fmin(longest * 0.71, p->height * 0.4) - 4;
  double plot_height = p->height - p->top - p->bottom;
  double lo = p->y.lo;
  int from_zero = !p->y.logarithmic && (c->zero_y || p->bars) && lo == 0;
  micah_axis_finish(&p->y, 0.05, (int)fmax(2, plot_height / 55));
  if (from_zero && p->y.any && p->y.hi > 0) {
    /* the axis stands on zero, without a margin below it */
    double hi = p->y.hi;
    memset(&p->y, 0, sizeof p->y);
    micah_axis_see(&p->y, 0);
    micah_axis_see(&p->y, hi);
    micah_axis_finish(&p->y, 0, (int)fmax(2, plot_height / 55));
  }
  double ticks = 0;
  for (int i = 0; i < p->y.n_ticks; i++) ticks = fmax(ticks, text_width(p->y.label[i]));
  p->left = ticks + 16 + (c->y_label && *c->y_label ? 22 : 0);
  micah_axis_finish(&p->x, c->categories || p->bars ? 0 : 0.02, (int)fmax(2, (p->width - p->left - p->right) / 85));
  p->x.from = p->left;
  p->x.to = p->width - p->right;
  p->y.from = p->height - p->bottom;
  p->y.to = p->top;
}

static void frame(plot *p) {
  const micah_chart *c = p->chart;
  double l = p->x.from, r = p->x.to, b = p->y.from, t = p->y.to, scale;
  for (int i = 0; i < p->y.n_ticks; i++) {
    scale = (p->y.tick[i] - p->y.lo) / (p->y.hi - p->y.lo);
    double y = b + scale * (t - b);
    line(p, l, y, r, y, "class=\"grid\"");
    label(p, l - 8, y + 4, "end", " class=\"tick\"", p->y.label[i]);
  }
  if (c->categories) {
    double room = c->n_categories ? (r - l) / c->n_categories : r - l;
    for (int i = 0; i < c->n_categories; i++) {
      char name[160];
      double x = l + (i + 0.5) * room;
      short_name(c->categories[i], name, sizeof name);
      if (p->lean) {
        micah_text_add(p->out, "<text class=\"tick\" text-anchor=\"end\" transform=\"translate(");
        number(p->out, x + 4);
        micah_text_add(p->out, ",");
        number(p->out, b + 14);
        micah_text_add(p->out, ") rotate(-45)\">");
        micah_text_escape(p->out, name);
        micah_text_add(p->out, "</text>\n");
      } else {
        label(p, x, b + 18, "middle", " class=\"tick\"", name);
      }
    }
  } else {
    double end = -1e9;
    for (int i = 0; i < p->x.n_ticks; i++) {
      scale = (p->x.tick[i] - p->x.lo) / (p->x.hi - p->x.lo);
      double x = l + scale * (r - l), half = text_width(p->x.label[i]) / 2;
      line(p, x, b, x, b + 5, "class=\"axis\"");
      if (x - half < end + 6) continue; /* labels never touch */
      label(p, x, b + 19, "middle", " class=\"tick\"", p->x.label[i]);
      end = x + half;
    }
  }
  line(p, l, b, r, b, "class=\"axis\"");
  if (c->title && *c->title) label(p, 8, 22, "start", " class=\"title\"", c->title);
  if (c->x_label && *c->x_label) label(p, (l + r) / 2, p->height - 10, "middle", " class=\"name\"", c->x_label);
  if (c->y_label && *c->y_label) {
    micah_text_add(p->out, "<text class=\"name\" text-anchor=\"middle\" transform=\"translate(16,");
    number(p->out, (t + b) / 2);
    micah_text_add(p->out, ") rotate(-90)\">");
    micah_text_escape(p->out, c->y_label);
    micah_text_add(p->out, "</text>\n");
  }
}

static void point(plot *p, double x, double y, int *move) {
  micah_text_add(p->out, *move ? "M" : "L");
  number(p->out, x);
  micah_text_add(p->out, ",");
  number(p->out, y);
  *move = 0;
}

/* a column of pixels: first, lowest, highest and last point of a run, in the order they came */
typedef struct column {
  int64_t first, low, high, last;
} column;

static void put_column(plot *p, const micah_series *s, const column *c, int *move) {
  int64_t order[4] = { c->first, c->low < c->high ? c->low : c->high, c->low < c->high ? c->high : c->low, c->last };
  for (int k = 0; k < 4; k++)
    if (!k || order[k] > order[k - 1])
      point(p, micah_axis_pixel(&p->x, x_of(s, order[k])), micah_axis_pixel(&p->y, s->y[order[k]]), move);
}

static void curve(plot *p, const micah_series *s, const char *color) {
  int move = 1, open = 0;
  column c = { 0, 0, 0, 0 };
  long at = 0;
  int thin = s->count > 2 * (int64_t)p->width;
  micah_text_format(p->out, "<path class=\"%s\" stroke=\"%s\"%s d=\"", s->style == MICAH_FAINT ? "faint" : "curve",
                    color, s->style == MICAH_DASHED ? " stroke-dasharray=\"7 5\"" : "");
  for (int64_t i = 0; i < s->count; i++) {
    if (!shown(p, s, i)) {
      if (open) put_column(p, s, &c, &move);
      open = 0;
      move = 1;
      continue;
    }
    double x = micah_axis_pixel(&p->x, x_of(s, i));
    if (!thin) {
      point(p, x, micah_axis_pixel(&p->y, s->y[i]), &move);
      continue;
    }
    if (open && (long)x == at) {
      if (s->y[i] < s->y[c.low]) c.low = i;
      if (s->y[i] > s->y[c.high]) c.high = i;
      c.last = i;
      continue;
    }
    if (open) put_column(p, s, &c, &move);
    c = (column) { i, i, i, i };
    at = (long)x;
    open = 1;
  }
  if (open) put_column(p, s, &c, &move);
  micah_text_add(p->out, "\"/>\n");
}

/* what a pointer that rests there says */
static void hover_text(plot *p, const micah_series *s, int64_t i) {
  const micah_chart *c = p->chart;
  double x = x_of(s, i);
  micah_text_add(p->out, "<title>");
  micah_text_escape(p->out, s->name ? s->name : "");
  micah_text_add(p->out, "\n");
  if (c->categories && x >= 0 && x < c->n_categories) {
    micah_text_escape(p->out, c->categories[(int)x]);
  } else {
    micah_text_escape(p->out, c->x_label && *c->x_label ? c->x_label : "x");
    micah_text_add(p->out, " ");
    micah_text_number(p->out, x, 6);
  }
  micah_text_add(p->out, "\n");
  micah_text_escape(p->out, c->y_label && *c->y_label ? c->y_label : "y");
  micah_text_add(p->out, " ");
  micah_text_number(p->out, s->y[i], 5);
  micah_text_add(p->out, "</title>");
}

static void marks(plot *p, const micah_series *s, const char *color) {
  int visible = s->style == MICAH_POINTS;
  int64_t step = visible || s->count <= HOVERS ? 1 : s->count / HOVERS;
  for (int64_t i = 0; i < s->count; i += step) {
    if (!shown(p, s, i)) continue;
    micah_text_format(p->out, "<circle class=\"%s\" fill=\"%s\"", visible ? "dot" : "hover", color);
    attribute(p->out, "cx", micah_axis_pixel(&p->x, x_of(s, i)));
    attribute(p->out, "cy", micah_axis_pixel(&p->y, s->y[i]));
    micah_text_format(p->out, " r=\"%s\">", visible ? "3.5" : "5");
    hover_text(p, s, i);
    micah_text_add(p->out, "</circle>\n");
  }
}

static void bars(plot *p, const micah_series *s, const char *color, int index) {
  double slot = fabs(p->x.to - p->x.from) / fmax(1, p->x.hi - p->x.lo), wide = fmin(slot * 0.72 / p->bars, 64);
  double floor_px = micah_axis_shows(&p->y, 0) ? micah_axis_pixel(&p->y, 0) : p->y.from;
  for (int64_t i = 0; i < s->count; i++) {
    if (!shown(p, s, i)) continue;
    double x = micah_axis_pixel(&p->x, x_of(s, i)) + (index - p->bars * 0.5) * wide,
           y = micah_axis_pixel(&p->y, s->y[i]);
    micah_text_format(p->out, "<rect fill=\"%s\"", color);
    attribute(p->out, "x", x);
    attribute(p->out, "y", fmin(y, floor_px));
    attribute(p->out, "width", fmax(1, wide - 2));
    attribute(p->out, "height", fabs(floor_px - y));
    micah_text_add(p->out, ">");
    hover_text(p, s, i);
    micah_text_add(p->out, "</rect>\n");
    micah_text value = { 0 };
    micah_text_number(&value, s->y[i], 3);
    if (value.data && text_width(value.data) <= wide + 8)
      label(p, x + wide / 2 - 1, fmin(y, floor_px) - 5, "middle", " class=\"tick\"", value.data);
    micah_text_free(&value);
  }
}

/* names stand beside the ends of their curves, pushed apart where they would touch */
static void names(plot *p) {
  const micah_chart *c = p->chart;
  struct {
    double end, y;
    int series;
  } item[MAX_SERIES];
  int n = 0;
  double gap = 17, low = p->y.to + 6, high = p->y.from - 2;
  for (int s = 0; s < c->n_series; s++) {
    const micah_series *series = &c->series[s];
    double y = p->bars ? low + n * gap : NAN;
    for (int64_t i = series->count - 1; i >= 0 && !p->bars; i--) {
      if (!shown(p, series, i)) continue;
      y = micah_axis_pixel(&p->y, series->y[i]);
      break;
    }
    if (!series->name || !*series->name) continue;
    /* without a point: at the top, so that nothing is hidden */
    if (isnan(y)) y = low;
    int k = n++;
    for (; k > 0 && item[k - 1].y > y; k--) item[k] = item[k - 1];
    item[k].end = item[k].y = y;
    item[k].series = s;
  }
  for (int k = 0; k < n; k++) {
    double least = k ? item[k - 1].y + gap : low;
    if (item[k].y < least) item[k].y = least;
  }
  for (int k = n - 1; k >= 0; k--) {
    double most = k + 1 < n ? item[k + 1].y - gap : high;
    if (item[k].y > most) item[k].y = most;
  }
  for (int k = 0; k < n; k++) {
    int s = item[k].series;
    char name[160], style[120];
    const char *color = color_of(c, s);
    double x = p->x.to + 4;
    if (p->bars && c->series[s].style == MICAH_BARS) {
      micah_text_format(p->out, "<rect fill=\"%s\"", color);
      attribute(p->out, "x", x + 4);
      attribute(p->out, "y", item[k].y - 5);
      micah_text_add(p->out, " width=\"10\" height=\"10\"/>\n");
    } else {
      snprintf(style, sizeof style, "stroke=\"%s\" stroke-width=\"2\"%s", color,
               c->series[s].style == MICAH_DASHED  ? " stroke-dasharray=\"4 3\""
               : c->series[s].style == MICAH_FAINT ? " opacity=\".45\""
                                                   : "");
      line(p, x, item[k].end, x + 14, item[k].y, style);
    }
    short_name(c->series[s].name, name, sizeof name);
    label(p, x + 19, item[k].y + 4, "start", " class=\"series\"", name);
  }
}

mica_status micah_svg_chart(micah_text *out, const micah_chart *chart) {
  if (chart->n_series < 0 || chart->n_series > MAX_SERIES)
    return mica_error(MICA_ERR_INVALID, "chart '%s': %d series, at most %d", chart->title ? chart->title : "",
                      (int)chart->n_series, (int)MAX_SERIES);
  plot p;
  memset(&p, 0, sizeof p);
  p.chart = chart;
  p.out = out;
  measure(&p);
  micah_text_format(out,
                    "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                    "height=\"%d\" class=\"chart\" font-family=\"system-ui, 'DejaVu Sans', Arial, sans-serif\" "
                    "font-size=\"12\">\n",
                    (int)p.width, (int)p.height, (int)p.width, (int)p.height);
  micah_text_add(
      out, "<style>.chart .grid{stroke:#e4e7eb}.chart .axis{stroke:#5f6b7a}.chart .tick{fill:#4a5563}"
           ".chart .title{font-size:15px;font-weight:600;fill:#1b2430}.chart .name{fill:#1b2430}"
           ".chart .curve{fill:none;stroke-width:2;stroke-linejoin:round}"
           ".chart .faint{fill:none;stroke-width:1;opacity:.45}.chart .series{font-weight:600;fill:#1b2430}"
           ".chart .hover{opacity:0}.chart .hover:hover{opacity:1}.chart .dot{fill-opacity:.75}</style>\n<title>");
  micah_text_escape(out, chart->title ? chart->title : "chart");
  micah_text_add(out, "</title>\n<rect fill=\"#ffffff\" width=\"100%\" height=\"100%\"/>\n");
  frame(&p);
  for (int pass = 0; pass < 2; pass++) {
    for (int s = 0, bar = 0; s < chart->n_series; s++) {
      const micah_series *series = &chart->series[s];
      const char *color = color_of(chart, s);
      if (series->style == MICAH_BARS) {
        if (!pass) bars(&p, series, color, bar++);
      } else if (pass) {
        marks(&p, series, color); /* above all curves, so that they can be reached */
      } else if (series->style != MICAH_POINTS) {
        curve(&p, series, color);
      }
    }
  }
  if (!p.y.any || !p.x.any)
    label(&p, (p.x.from + p.x.to) / 2, (p.y.from + p.y.to) / 2, "middle", " class=\"tick\"", "no data to show");
  names(&p);
  micah_text_add(out, "</svg>\n");
  return micah_text_check(out, "chart");
}
