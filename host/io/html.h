/* html.h: one self-contained page: headings, text, tables, charts; no script, no network. */
#ifndef MICAH_IO_HTML_H
#define MICAH_IO_HTML_H

#include "host/io/svg.h"

typedef struct micah_html {
  micah_text text;
  int32_t    columns;            /* of the open table */
} micah_html;

/* zero-initialise, begin, parts, write. all strings are escaped here. */
void micah_html_begin(micah_html *page, const char *title, const char *subtitle);
void micah_html_heading(micah_html *page, const char *text);
void micah_html_paragraph(micah_html *page, const char *text);
void micah_html_code(micah_html *page, const char *text);
/* a row of large figures: names and values as text */
void micah_html_figures(micah_html *page, const char *const *names, const char *const *values, int32_t count);
/* header (columns), then rows; numbers are aligned right */
void micah_html_table(micah_html *page, const char *const *header, int32_t columns);
void micah_html_row(micah_html *page, const char *const *cells);
void micah_html_table_end(micah_html *page);
/* chart with a caption (may be NULL) */
mica_status micah_html_chart(micah_html *page, const micah_chart *chart, const char *caption);
/* close the page and write it atomically; then free. */
mica_status micah_html_write(micah_html *page, const char *path);
void        micah_html_free(micah_html *page);

#endif
