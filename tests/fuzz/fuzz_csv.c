/* any text is a table or a clear error, with every option; and records of text. */
#include "fuzz.h"
#include "host/io/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  /* the readers get exactly these bytes: no NUL behind them */
  const char *text = (const char *)data;
  for (int k = 0; k < 6; k++) {
    micah_csv_options options = MICAH_CSV_OPTIONS_INIT;
    micah_table table;
    options.header = k % 3 - 1;
    options.missing = k / 3;
    mica_status status = micah_csv_parse("f.csv", text, (int64_t)size, k ? &options : NULL, &table);
    fuzz_check(status, "f.csv");
    if (status == MICA_OK) micah_table_free(&table);
  }
  for (int quote = 0; quote < 2; quote++) {
    micah_records records = { .name = "f.csv", .text = text, .size = (int64_t)size, .separator = ',' };
    size_t total = 0;
    int more = 1;
    mica_status status = MICA_OK;
    records.quote = quote ? '"' : 0;
    while (more && (status = micah_records_next(&records, &more)) == MICA_OK) {
      for (int64_t i = 0; i < records.count; i++) {
        if (records.field[i][records.length[i]]) abort();
        total += (size_t)records.length[i];
      }
    }
    fuzz_check(status, "f.csv");
    if (total > size) abort();
    micah_records_free(&records);
  }
  return 0;
}
