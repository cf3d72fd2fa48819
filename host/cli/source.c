#include "cli/source.h"

#include "host/io/file.h"
#include "host/io/text.h"

#include <string.h>

mica_source micac_source(const micac_args *args, const char *path, const mica_context_options *context) {
  mica_source source = MICA_SOURCE_INIT;
  if (micah_path_kind(path) == MICAH_PATH_FOLDER) source.run = path;
  else source.config = path;
  source.overrides = (const char *const *)args->overrides;
  source.n_overrides = args->n_overrides;
  source.context = context;
  return source;
}

int micac_option_int(const micac_args *args, const char *name, int64_t fallback, int64_t *out) {
  const char *text = micac_option(args, name);
  *out = fallback;
  if (!text || micah_parse_int(text, strlen(text), out)) return 0;
  return micac_usage(args, "--%s is '%s', expected a whole number", name, text);
}

int64_t micac_span(int64_t positions) { return positions > 20 ? (positions + 19) / 20 : 1; }

void micac_span_name(int64_t first, int64_t end, char text[48]) {
  if (end - first == 1) snprintf(text, 48, "%lld", (long long)end);
  else snprintf(text, 48, "%lld-%lld", (long long)first + 1, (long long)end);
}
