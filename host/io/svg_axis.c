#include "host/io/svg_axis.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int micah_axis_shows(const micah_axis *axis, double value) {
  return isfinite(value) && fabs(value) < 1e300 && (!axis->logarithmic || value > 0);
}

static double position(const micah_axis *axis, double value) { return axis->logarithmic ? log10(value) : value; }

void micah_axis_see(micah_axis *axis, double value) {
  double p = position(axis, value);
  if (!axis->any || p < axis->lo) axis->lo = p;
  if (!axis->any || p > axis->hi) axis->hi = p;
  axis->any = 1;
}

double micah_axis_pixel(const micah_axis *axis, double value) {
  return axis->from + (position(axis, value) - axis->lo) / (axis->hi - axis->lo) * (axis->to - axis->from);
}

/* append a number with `decimals` places, a point, and commas between thousands */
static void fixed(double value, int decimals, char *out, size_t size) {
  char digits[80];
  snprintf(digits, sizeof digits, "%.*f", decimals, fabs(value));
  size_t whole = strspn(digits, "0123456789"), at = 0;
  if (value < 0 && strspn(digits, "0.,") < strlen(digits) && at + 4 < size) {
    memcpy(out, "\xE2\x88\x92", 3); /* the true minus is as wide as a plus */
    at = 3;
  }
  for (size_t i = 0; digits[i] && at + 2 < size; i++) {
    if (i < whole && i && (whole - i) % 3 == 0) out[at++] = ',';
    out[at++] = i == whole ? '.' : digits[i];
  }
  out[at] = 0;
}

void micah_number_label(double value, double step, double largest, char *out, size_t size) {
  double big = fmax(fabs(value), fabs(largest));
  if (fabs(value) < step * 1e-9) {
    snprintf(out, size, "0");
  } else if (big >= 1e12 || (big < 1e-4 && step < 1e-4)) {
    micah_text text = { 0 };
    micah_text_number(&text, value, 3);
    /* 1e-09 is 1e-9 */
    char *e = text.data ? strchr(text.data, 'e') : NULL;
    if (e && strlen(e) == 4 && e[2] == '0') memmove(e + 2, e + 3, 2);
    snprintf(out, size, "%s", text.data ? text.data : "");
    micah_text_free(&text);
  } else {
    static const struct {
      double unit;
      const char *name;
    } units[] = { { 1e9, "G" }, { 1e6, "M" }, { 1e3, "k" }, { 1, "" } };
    int u = 0;
    /* thousands stay digits below ten thousand */
    while (u < 3 && (big < units[u].unit || (u == 2 && big < 1e4))) u++;
    double scaled = step / units[u].unit;
    int decimals = 0;
    while (decimals < 7 && scaled > 0 && fabs(scaled - round(scaled)) > 1e-6 * scaled) {
      scaled *= 10;
      decimals++;
    }
    char number[64];
    fixed(value / units[u].unit, decimals, number, sizeof number);
    snprintf(out, size, "%.*s%s", (int)size - 2, number, units[u].name);
  }
}

static void add_tick(micah_axis *axis, double p, double value, double step) {
  double slack = (axis->hi - axis->lo) * 1e-9;
  if (axis->n_ticks == MICAH_MAX_TICKS || p < axis->lo - slack || p > axis->hi + slack) return;
  axis->tick[axis->n_ticks] = p;
  double largest = axis->logarithmic ? 0 : fmax(fabs(axis->lo), fabs(axis->hi));
  micah_number_label(value, step, largest, axis->label[axis->n_ticks++], MICAH_TICK_TEXT);
}

/* 1, 2 or 5 times a power of ten, so that about `count` steps make the range */
static double nice_step(double range, int count) {
  double raw = range / count, power = pow(10, floor(log10(raw))), m = raw / power;
  return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

static void linear_ticks(micah_axis *axis, int count) {
  double step = nice_step(axis->hi - axis->lo, count), first = ceil(axis->lo / step - 1e-9);
  for (int i = 0; i < MICAH_MAX_TICKS; i++) add_tick(axis, (first + i) * step, (first + i) * step, step);
}

static void log_ticks(micah_axis *axis, int count) {
  double decades = axis->hi - axis->lo;
  if (decades < 0.7) {
    /* less than a decade or so: round numbers, unevenly spaced */
    double lo = pow(10, axis->lo), hi = pow(10, axis->hi), step = nice_step(hi - lo, count),
           first = ceil(lo / step - 1e-9);
    for (int i = 0; i < MICAH_MAX_TICKS; i++)
      if ((first + i) * step > 0) add_tick(axis, log10((first + i) * step), (first + i) * step, step);
    return;
  }
  static const int few[] = { 1 }, some[] = { 1, 3 }, many[] = { 1, 2, 5 };
  const int *digits = decades * 3 <= count * 1.5 ? many : decades * 2 <= count * 1.5 ? some : few;
  int n = digits == many ? 3 : digits == some ? 2 : 1;
  int stride = n > 1 ? 1 : (int)ceil(decades / count);
  double first = floor(axis->lo / stride) * stride;
  for (int i = 0; i < 400 && first + (double)i * stride <= axis->hi; i++)
    for (int k = 0; k < n; k++) {
      double p = first + (double)i * stride + log10(digits[k]), value = digits[k] * pow(10, first + (double)i * stride);
      add_tick(axis, p, value, value);
    }
}

void micah_axis_finish(micah_axis *axis, double margin, int count) {
  if (!axis->any) {
    axis->lo = 0;
    axis->hi = 1;
  }
  double range = axis->hi - axis->lo;
  if (range <= 1e-12 * fmax(fabs(axis->lo), fabs(axis->hi)) || range == 0) {
    double half = axis->logarithmic ? 0.3 : axis->hi == 0 ? 0.5 : 0.1 * fabs(axis->hi);
    axis->lo -= half;
    axis->hi += half;
    margin = 0;
  }
  range = axis->hi - axis->lo;
  axis->lo -= margin * range;
  axis->hi += margin * range;
  axis->n_ticks = 0;
  if (axis->logarithmic) log_ticks(axis, count);
  else linear_ticks(axis, count);
}
