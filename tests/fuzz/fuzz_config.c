/* any text is a configuration or a clear error; what was read is written and read again as the same. the first line
 * may be "#=KEY=VALUE", an override. */
#include <stddef.h>

#include "fuzz.h"
#include "host/io/config.h"

typedef struct sample {
  int64_t layers, norm;
  double rate;
  int32_t tied;
  const char *note;
} sample;

static const mica_key keys[] = {
  { "layers", MICA_KEY_INT, offsetof(sample, layers), "3", 1, 64, NULL, "number of layers" },
  { "rate", MICA_KEY_REAL, offsetof(sample, rate), "1e-3", 0, 1, NULL, "learning rate" },
  { "tied", MICA_KEY_BOOL, offsetof(sample, tied), "no", 0, 0, NULL, "tie the weights" },
  { "note", MICA_KEY_STRING, offsetof(sample, note), "", 0, 0, NULL, "free text" },
  { "norm", MICA_KEY_CHOICE, offsetof(sample, norm), "none", 0, 0, "layernorm|rmsnorm|none", "normalisation" },
};

static void use(micah_config *config) {
  micah_section *section;
  sample s;
  const char *const *items;
  int64_t n;
  mica_status status = micah_config_section(micah_config_root(config), "model", 0, &section);
  fuzz_check(status, "f.yaml");
  if (status == MICA_OK) fuzz_check(micah_config_fill(section, keys, 5, NULL, 0, &s), "f.yaml");
  fuzz_check(micah_config_get_list(micah_config_root(config), "plugins", &items, &n), "f.yaml");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  micah_config *config, *again;
  mica_status status = micah_config_parse("f.yaml", (const char *)data, size, &config);
  fuzz_check(status, "f.yaml");
  if (status < 0) return 0;
  const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
  if (end && end - data > 2 && data[0] == '#' && data[1] == '=') {
    char text[256];
    size_t n = (size_t)(end - data) - 2;
    if (n >= sizeof text) n = sizeof text - 1;
    memcpy(text, data + 2, n);
    text[n] = 0;
    fuzz_check(micah_config_override(config, text), "f.yaml");
  }
  use(config);
  micah_text one = { 0 }, two = { 0 };
  if (micah_config_text(config, &one) < 0) abort();
  if (micah_config_parse("f.yaml", one.data, one.size, &again) < 0) abort();
  if (micah_config_text(again, &two) < 0) abort();
  if (one.size != two.size || memcmp(one.data, two.data, one.size)) abort();
  micah_text_free(&one);
  micah_text_free(&two);
  micah_config_destroy(config);
  micah_config_destroy(again);
  return 0;
}
