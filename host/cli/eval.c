/* `mica eval`: loss on test tasks beside the exact predictors. */
#include <math.h>

#include "cli/source.h"
#include "host/io/json.h"

static mica_status print_json(const mica_evaluation *e) {
  micah_json json = { 0 };
  const char *text;
  micah_json_object(&json, NULL);
  micah_json_real(&json, "loss", e->loss);
  micah_json_real(&json, "exact_loss", e->exact_loss);
  micah_json_string(&json, "exact", e->exact);
  micah_json_string(&json, "unit", e->unit);
  micah_json_real(&json, "bits", e->bits);
  micah_json_real(&json, "accuracy", e->accuracy);
  micah_json_int(&json, "tasks", e->tasks);
  micah_json_int(&json, "quarantined", e->quarantined);
  micah_json_int(&json, "step", e->step);
  micah_json_string(&json, "weights", e->weights);
  micah_json_real(&json, "seconds", e->seconds);
  micah_json_reals(&json, "loss_by_position", e->loss_by_position, e->positions);
  if (isfinite(e->bits)) {
    micah_json_array(&json, "bits_by_position");
    for (int64_t i = 0; i < e->positions; i++) micah_json_real(&json, NULL, e->loss_by_position[i] / log(2));
    micah_json_end(&json);
  }
  micah_json_array(&json, "exact_loss_by_position");
  for (int64_t i = 0; e->exact_loss_by_position && i < e->positions; i++)
    micah_json_real(&json, NULL, e->exact_loss_by_position[i]);
  micah_json_end(&json);
  micah_json_object(&json, "predictors");
  for (int i = 0; i < e->n_predictors; i++) {
    micah_json_object(&json, e->predictors[i].name);
    micah_json_real(&json, "loss", e->predictors[i].loss);
    micah_json_reals(&json, "loss_by_position", e->predictors[i].by_position, e->positions);
    micah_json_end(&json);
  }
  micah_json_end(&json);
  micah_json_reals(&json, "task_loss", e->task_loss, e->tasks);
  if (e->task_name) {
    micah_json_array(&json, "task_name");
    for (int64_t i = 0; i < e->tasks; i++) micah_json_string(&json, NULL, e->task_name[i]);
    micah_json_end(&json);
  }
  micah_json_end(&json);
  mica_status status = micah_json_finish(&json, &text);
  if (status >= 0) printf("%s\n", text);
  micah_json_free(&json);
  return status;
}

/* mean over the rows of some positions */
static double span_mean(const mica_evaluation *e, const double *value, int64_t first, int64_t end) {
  double sum = 0, weight = 0;
  for (int64_t k = first; k < end; k++)
    if (e->weight_by_position[k] > 0) sum += value[k] * e->weight_by_position[k], weight += e->weight_by_position[k];
  return sum / weight;
}

static void print_text(const mica_evaluation *e) {
  double scale = isfinite(e->bits) ? 1 / log(2) : 1;  /* classes are shown in bits */
  printf("%lld test tasks, weights %s", (long long)e->tasks, e->weights ? e->weights : "as initialised");
  if (e->step >= 0) printf(" (step %lld)", (long long)e->step);
  printf("\n\n%-12s loss (%s)\n%-12s %.5f", "", e->unit, "model", e->loss);
  if (isfinite(e->bits)) printf("  = %.4f bits", e->bits);
  if (isfinite(e->accuracy)) printf("  accuracy %.2f %%", 100 * e->accuracy);
  printf("\n");
  for (int i = 0; i < e->n_predictors; i++) printf("%-12s %.5f\n", e->predictors[i].name, e->predictors[i].loss);
  printf("\n%s\n%8s %12s", isfinite(e->bits) ? "bits by position" : "loss by position", "position", "model");
  for (int i = 0; i < e->n_predictors; i++) printf(" %12s", e->predictors[i].name);
  printf("\n");
  int64_t step = micac_span(e->positions);
  for (int64_t first = 0, end; first < e->positions; first = end) {
    char name[48];
    end = first + step < e->positions ? first + step : e->positions;
    micac_span_name(first, end, name);
    printf("%8s %12.5f", name, span_mean(e, e->loss_by_position, first, end) * scale);
    for (int i = 0; i < e->n_predictors; i++)
      printf(" %12.5f", span_mean(e, e->predictors[i].by_position, first, end) * scale);
    printf("\n");
  }
}

static int run(micac_args *args) {
  if (args->n_positional != 1) return micac_usage(args, "expected one run folder, got %d", args->n_positional);
  mica_context_options  context = micac_context_options();
  mica_evaluate_options options = MICA_EVALUATE_OPTIONS_INIT;
  options.source = micac_source(args, args->positional[0], &context);
  options.weights = micac_option(args, "weights");
  options.exact = micac_option(args, "exact");
  int code = micac_option_int(args, "tasks", 0, &options.tasks);
  if (code) return code;
  const mica_evaluation *e = NULL;
  mica_status status = mica_evaluate(&options, &e);
  if (status >= 0 && args->json) status = print_json(e);
  else if (status >= 0) print_text(e);
  mica_evaluation_destroy(e);
  return status < 0 ? micac_fail(args, status) : MICAC_OK;
}

const micac_command micac_eval = {
  .name = "eval",
  .summary = "loss on test tasks, by position, beside the exact predictors",
  .usage = "RUN [--tasks N] [--weights FILE] [--json] [KEY=VALUE ...]",
  .help =
      "  RUN            run folder (or a configuration file, with --weights)\n"
      "  --tasks N      test tasks (default: eval_tasks of the configuration)\n"
      "  --weights FILE other weights than RUN/last.safetensors\n"
      "  --exact LIST   exact predictors to run, \"ridge,bayes\" (default: all the family has)\n"
      "  --json         loss, exact_loss, loss_by_position, exact_loss_by_position ... as one object\n"
      "\nexamples:\n"
      "  mica eval runs/linreg\n"
      "  mica eval runs/linreg --tasks 10000 --json\n",
  .options = "tasks: weights: exact: json",
  .overrides = 1,
  .run = run,
};
