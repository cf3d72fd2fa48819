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

static void print_text(const mica_evaluation *e) {
  printf("%lld test tasks, weights %s", (long long)e->tasks, e->weights ? e->weights : "as initialised");
  if (e->step >= 0) printf(" (step %lld)", (long long)e->step);
  printf("\n\n%-12s loss (%s)\n%-12s %.5f", "", e->unit, "model", e->loss);
  if (isfinite(e->bits)) printf("  = %.4f bits", e->bits);
  if (isfinite(e->accuracy)) printf("  accuracy %.2f %%", 100 * e->accuracy);
  printf("\n");
  for (int i = 0; i < e->n_predictors; i++) printf("%-12s %.5f\n", e->predictors[i].name, e->predictors[i].loss);
  printf("\n%8s %12s", "position", "model");
  for (int i = 0; i < e->n_predictors; i++) printf(" %12s", e->predictors[i].name);
  printf("\n");
  /* about twenty rows: first, last and between */
  int64_t step = e->positions > 20 ? (e->positions + 19) / 20 : 1;
  for (int64_t k = 0; k < e->positions; k++) {
    if (k % step && k != e->positions - 1) continue;
    printf("%8lld %12.5f", (long long)k + 1, e->loss_by_position[k]);
    for (int i = 0; i < e->n_predictors; i++) printf(" %12.5f", e->predictors[i].by_position[k]);
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
