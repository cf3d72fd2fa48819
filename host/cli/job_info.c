/* `mica info CONFIG`: what a configuration makes, and how its inner loop runs */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/source.h"
#include "host/io/json.h"

const char *micac_inner(const char *path) {
  return !path ? "" : path[0] == 'm' ? "; inner loop in one kernel (mlp)" : "; inner loop step by step";
}

int micac_job_info(micac_args *args) {
  mica_source source = MICA_SOURCE_INIT;
  mica_context_options context = micac_context_options();
  source.context = &context, source.config = args->positional[0];
  source.overrides = (const char *const *)args->overrides, source.n_overrides = args->n_overrides;
  mica_trainer *trainer = NULL;
  mica_trainer_info info;
  mica_status status = mica_trainer_create(&source, 0, &trainer);
  if (status >= 0) status = mica_trainer_get_info(trainer, &info);
  if (status < 0) {
    mica_trainer_destroy(trainer);
    return micac_fail(args, status);
  }
  micah_json json = { 0 };
  const char *text;
  micah_json_object(&json, NULL);
  micah_json_string(&json, "family", info.family);
  micah_json_string(&json, "model", info.model);
  micah_json_string(&json, "loss", info.loss);
  micah_json_string(&json, "inner", info.inner);
  micah_json_int(&json, "params", info.params);
  micah_json_int(&json, "steps", info.steps);
  micah_json_int(&json, "tasks_per_step", info.tasks_per_step);
  micah_json_int(&json, "launch_tasks", info.grain * info.grains_per_launch);
  micah_json_int(&json, "activation_bytes", info.activation_bytes);
  micah_json_int(&json, "peak_bytes", info.peak_bytes);
  micah_json_int(&json, "gradient_bytes", info.gradient_bytes);
  micah_json_int(&json, "state_bytes", info.state_bytes);
  micah_json_end(&json);
  status = micah_json_finish(&json, &text);
  if (status >= 0 && args->json) printf("%s\n", text);
  else if (status >= 0)
    printf("%s on %s, loss %s%s\n  parameters       %lld\n  steps            %lld of %lld tasks, %lld in a launch\n"
           "  memory           %.1f MB of activations (%.1f MB are alive at once), %.1f MB of gradients, %.1f MB of weights\n"
           "                   and moments\n",
           info.model, info.family, info.loss, micac_inner(info.inner), (long long)info.params, (long long)info.steps,
           (long long)info.tasks_per_step, (long long)(info.grain * info.grains_per_launch),
           1e-6 * (double)info.activation_bytes, 1e-6 * (double)info.peak_bytes, 1e-6 * (double)info.gradient_bytes, 1e-6 * (double)info.state_bytes);
  micah_json_free(&json);
  mica_trainer_destroy(trainer);
  return status < 0 ? micac_fail(args, status) : MICAC_OK;
}
