/* any text is a list of JSON objects or a clear error. */
#include "fuzz.h"
#include "host/io/json.h"
#include "host/io/jsonl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  micah_jsonl reader;
  const cJSON *record = NULL;
  const char *text;
  double number;
  mica_status status = micah_jsonl_parse("f.jsonl", (const char *)data, (int64_t)size, &reader);
  while (status == MICA_OK && (status = micah_jsonl_next(&reader, &record)) == MICA_OK && record) {
    fuzz_check(micah_jsonl_string(&reader, "text", &text), "f.jsonl");
    fuzz_check(micah_jsonl_real(&reader, "n", &number), "f.jsonl");
  }
  fuzz_check(status, "f.jsonl");
  micah_jsonl_close(&reader);
  cJSON *tree;
  fuzz_check(micah_json_parse("f.json", 1, (const char *)data, size, &tree), "f.json");
  cJSON_Delete(tree);
  return 0;
}
