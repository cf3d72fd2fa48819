/* `mica predict`: a trained model on a user's own sequences. */
#include <math.h>

#include "cli/source.h"
#include "host/io/json.h"

/* means over the rows whose answer is known; a span without one is left out */
static void print_positions(const mica_prediction *p) {
  double  scale = p->classes ? 1 / log(2) : 1;
  int64_t step = micac_span(p->positions);
  int     shown = 0;
  for (int64_t first = 0, end; first < p->positions; first = end) {
    char    name[48];
    double  sum = 0;
    int64_t count = 0;
    end = first + step < p->positions ? first + step : p->positions;
    for (int64_t r = 0; r < p->rows; r++)
      if (p->position[r] >= first && p->position[r] < end && !isnan(p->loss[r])) sum += p->loss[r], count++;
    if (!count) continue;
    if (!shown++) printf("\n%8s %s\n", "position", p->classes ? "bits" : "loss");
    micac_span_name(first, end, name);
    printf("%8s %.4f\n", name, scale * sum / (double)count);
  }
}

static int run(micac_args *args) {
  if (args->n_positional != 1) return micac_usage(args, "expected one run folder, got %d", args->n_positional);
  const char *out = micac_option(args, "out");
  mica_context_options context = micac_context_options();
  mica_predict_options options = MICA_PREDICT_OPTIONS_INIT;
  options.source = micac_source(args, args->positional[0], &context);
  options.weights = micac_option(args, "weights");
  options.input = micac_option(args, "in");
  if (!options.input || !out) return micac_usage(args, "--in FILE and --out FILE are needed");
  const mica_prediction *p = NULL;
  mica_status status = mica_predict(&options, &p);
  if (status >= 0) status = mica_prediction_save(p, out);
  if (status >= 0 && args->json) {
    micah_json json = { 0 };
    const char *text;
    micah_json_object(&json, NULL);
    micah_json_int(&json, "sequences", p->sequences);
    micah_json_int(&json, "rows", p->rows);
    micah_json_int(&json, "columns", p->columns);
    micah_json_real(&json, "loss", p->mean_loss);
    micah_json_real(&json, "bits", p->bits);
    micah_json_string(&json, "unit", p->unit);
    micah_json_string(&json, "out", out);
    micah_json_reals(&json, "loss_by_position", p->loss_by_position, p->positions);
    if (p->classes) {
      micah_json_array(&json, "bits_by_position");
      for (int64_t i = 0; i < p->positions; i++) micah_json_real(&json, NULL, p->loss_by_position[i] / log(2));
      micah_json_end(&json);
    }
    micah_json_end(&json);
    if ((status = micah_json_finish(&json, &text)) >= 0) printf("%s\n", text);
    micah_json_free(&json);
  } else if (status >= 0) {
    printf("sequences %lld, rows %lld -> %s\n", (long long)p->sequences, (long long)p->rows, out);
    if (isfinite(p->mean_loss)) printf("loss on the rows whose answer is known: %.5f %s\n", p->mean_loss, p->unit);
    if (isfinite(p->bits)) printf("%.4f bits per symbol\n", p->bits);
    print_positions(p);
  }
  mica_prediction_destroy(p);
  return status < 0 ? micac_fail(args, status) : MICAC_OK;
}

const micac_command micac_predict = {
  .name = "predict",
  .summary = "run a trained model on your own sequences",
  .usage = "RUN --in FILE --out FILE [--json]",
  .help =
      "  --in FILE   regression: .npy (rows, columns) or (sequences, rows, columns), .csv or .tsv, inputs first and the\n"
      "              target last; leave the target empty or nan where it is to be predicted.\n"
      "              byte models: any file; it is cut into windows of the context's length\n"
      "  --out FILE  .csv or .tsv: one line a row, sequences and positions counted from 1; .npy: predictions\n"
      "              alone\n"
      "  --json      summary with bits per byte by position for byte models\n"
      "\nexamples:\n"
      "  mica predict runs/linreg --in points.csv --out predictions.csv\n"
      "  mica predict runs/udhr --in letter.txt --out bytes.csv\n",
  .options = "in: out: weights: json",
  .overrides = 1,
  .run = run,
};
