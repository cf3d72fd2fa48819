#include "host/io/html.h"

#include <string.h>

#include "host/io/file.h"

static const char style[] =
    ":root{color-scheme:light}*{box-sizing:border-box}"
    "body{margin:0;background:#f4f6f8;color:#1b2430;font:16px/1.55 system-ui,'DejaVu Sans',Arial,sans-serif}"
    "main{max-width:1000px;margin:0 auto;padding:32px 20px 64px}"
    "h1{font-size:28px;line-height:1.2;margin:0 0 4px}h2{font-size:20px;margin:36px 0 10px}"
    ".sub{color:#4a5563;margin:0 0 24px}p{margin:8px 0;max-width:75ch}"
    "figure{margin:14px 0;padding:14px;background:#fff;border:1px solid #dde2e8;border-radius:8px;overflow-x:auto}"
    "figure svg{display:block;max-width:100%;height:auto}figcaption{color:#4a5563;font-size:14px;margin-top:8px}"
    ".figures{display:flex;flex-wrap:wrap;gap:12px;margin:14px 0}"
    ".figures div{flex:1 1 140px;background:#fff;border:1px solid #dde2e8;border-radius:8px;padding:12px 14px}"
    ".figures b{display:block;font-size:22px;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}"
    ".figures span{color:#4a5563;font-size:13px}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;background:#fff;font-size:14px;margin:12px 0}"
    "th,td{padding:6px 12px;border:1px solid #dde2e8;text-align:left;font-variant-numeric:tabular-nums}"
    "th{background:#eef1f4}td.n{text-align:right}"
    "pre{background:#fff;border:1px solid #dde2e8;border-radius:8px;padding:14px;overflow-x:auto;font-size:13px;"
    "line-height:1.45}@media print{body{background:#fff}main{padding:0}}";

static void element(micah_html *page, const char *name, const char *text) {
  micah_text_format(&page->text, "<%s>", name);
  micah_text_escape(&page->text, text);
  micah_text_format(&page->text, "</%s>\n", name);
}

void micah_html_begin(micah_html *page, const char *title, const char *subtitle) {
  micah_text *out = &page->text;
  micah_text_add(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
  element(page, "title", title);
  micah_text_add(out, "<style>");
  micah_text_add(out, style);
  micah_text_add(out, "</style>\n</head>\n<body>\n<main>\n");
  element(page, "h1", title);
  if (subtitle && *subtitle) {
    micah_text_add(out, "<p class=\"sub\">");
    micah_text_escape(out, subtitle);
    micah_text_add(out, "</p>\n");
  }
}

void micah_html_heading(micah_html *page, const char *text) { element(page, "h2", text); }
void micah_html_paragraph(micah_html *page, const char *text) { element(page, "p", text); }
void micah_html_code(micah_html *page, const char *text) { element(page, "pre", text); }

void micah_html_figures(micah_html *page, const char *const *names, const char *const *values, int32_t count) {
  micah_text_add(&page->text, "<div class=\"figures\">\n");
  for (int32_t i = 0; i < count; i++) {
    micah_text_add(&page->text, "<div><b>");
    micah_text_escape(&page->text, values[i]);
    micah_text_add(&page->text, "</b><span>");
    micah_text_escape(&page->text, names[i]);
    micah_text_add(&page->text, "</span></div>\n");
  }
  micah_text_add(&page->text, "</div>\n");
}

void micah_html_table(micah_html *page, const char *const *header, int32_t columns) {
  page->columns = columns;
  micah_text_add(&page->text, "<div class=\"scroll\"><table>\n<thead><tr>");
  for (int32_t i = 0; i < columns; i++) {
    micah_text_add(&page->text, "<th scope=\"col\">");
    micah_text_escape(&page->text, header[i]);
    micah_text_add(&page->text, "</th>");
  }
  micah_text_add(&page->text, "</tr></thead>\n<tbody>\n");
}

/* a number, perhaps with a unit behind a blank or a per cent sign */
static int numeric(const char *text) {
  double value;
  size_t n = strcspn(text, " %x");
  return n && micah_parse_real(text, n, &value) && strlen(text + n) <= 12;
}

void micah_html_row(micah_html *page, const char *const *cells) {
  micah_text_add(&page->text, "<tr>");
  for (int32_t i = 0; i < page->columns; i++) {
    micah_text_add(&page->text, numeric(cells[i]) ? "<td class=\"n\">" : "<td>");
    micah_text_escape(&page->text, cells[i]);
    micah_text_add(&page->text, "</td>");
  }
  micah_text_add(&page->text, "</tr>\n");
}

void micah_html_table_end(micah_html *page) {
  micah_text_add(&page->text, "</tbody></table></div>\n");
  page->columns = 0;
}

mica_status micah_html_chart(micah_html *page, const micah_chart *chart, const char *caption) {
  micah_text_add(&page->text, "<figure>\n");
  mica_status status = micah_svg_chart(&page->text, chart);
  if (caption && *caption) element(page, "figcaption", caption);
  micah_text_add(&page->text, "</figure>\n");
  return status;
}

mica_status micah_html_write(micah_html *page, const char *path) {
  micah_text_add(&page->text, "</main>\n</body>\n</html>\n");
  mica_status status = micah_text_check(&page->text, path);
  return status < 0 ? status : micah_file_write(path, page->text.data, (int64_t)page->text.size);
}

void micah_html_free(micah_html *page) {
  micah_text_free(&page->text);
  memset(page, 0, sizeof *page);
}
