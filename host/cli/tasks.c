/* `mica tasks`: the task families and their keys; `mica info`: what this build and machine can do. */
#include <string.h>

#include "cli/cli.h"
#include "host/device/device.h"
#include "host/io/json.h"
#include "mica/model.h"
#include "mica/version.h"

static const char *const key_types[] = { "int", "real", "bool", "string", "path", "choice" };

static void keys_json(micah_json *json, const mica_key *keys, int n) {
  micah_json_array(json, "keys");
  for (int i = 0; i < n; i++) {
    micah_json_object(json, NULL);
    micah_json_string(json, "name", keys[i].name);
    micah_json_string(json, "type", key_types[keys[i].type]);
    micah_json_string(json, "default", keys[i].value);
    if (keys[i].choices) micah_json_string(json, "choices", keys[i].choices);
    micah_json_string(json, "doc", keys[i].doc);
    micah_json_end(json);
  }
  micah_json_end(json);
}

static void keys_text(const mica_key *keys, int n) {
  for (int i = 0; i < n; i++)
    printf("    %-18s %-7s %-12s %s%s%s%s\n", keys[i].name, key_types[keys[i].type],
           keys[i].value ? keys[i].value : "(required)", keys[i].doc, keys[i].choices ? " (" : "",
           keys[i].choices ? keys[i].choices : "", keys[i].choices ? ")" : "");
}

static int finish(const micac_args *args, micah_json *json) {
  const char *text;
  mica_status status = micah_json_finish(json, &text);
  if (status >= 0) printf("%s\n", text);
  micah_json_free(json);
  return status < 0 ? micac_fail(args, status) : MICAC_OK;
}

static int run_tasks(micac_args *args) {
  mica_context *context = NULL;
  mica_status   status = micac_context(1, &context);
  if (status < 0) return micac_fail(args, status);
  const mica_family *only = NULL, *family;
  int code = MICAC_OK;
  if (args->n_positional > 1) code = micac_usage(args, "expected at most one family, got %d", args->n_positional);
  else if (args->n_positional && (status = mica_find_family(context, args->positional[0], &only)) < 0)
    code = micac_fail(args, status);
  else {
    micah_json json = { 0 };
    micah_json_object(&json, NULL);
    micah_json_array(&json, "families");
    for (int i = 0; (family = mica_get_family(context, i)); i++) {
      if (only && family != only) continue;
      micah_json_object(&json, NULL);
      micah_json_string(&json, "name", family->name);
      micah_json_string(&json, "doc", family->doc);
      micah_json_string(&json, "predictors", family->predictors);
      keys_json(&json, family->keys, family->n_keys);
      micah_json_end(&json);
      if (args->json) continue;
      int exact = family->predictors && *family->predictors;
      printf("%s: %s\n  exact predictors: %s\n", family->name, family->doc, exact ? family->predictors : "none");
      keys_text(family->keys, family->n_keys);
    }
    micah_json_end(&json);
    micah_json_end(&json);
    if (args->json) code = finish(args, &json);
    else micah_json_free(&json);
  }
  mica_context_destroy(context);
  return code;
}

const micac_command micac_tasks = {
  .name = "tasks",
  .summary = "task families, their exact predictors and keys",
  .usage = "[FAMILY] [--json]",
  .help = "examples:\n  mica tasks\n  mica tasks linear_regression\n",
  .options = "json",
  .run = run_tasks,
};

/* "cuda:0  NAME, sm_90, 132 multiprocessors, 80.0 GB (79.2 free)"; text and JSON of all devices */
static void devices(micah_json *json, mica_context *context, int text) {
  int32_t n = 0;
  mica_status status = micah_cuda_ops.count(&n);
  if (text && status < 0) printf("  cuda             none: %s\n", mica_last_error());
  micah_json_array(json, "devices");
  for (int32_t i = 0; i < n; i++) {
    micah_device     *device;
    micah_device_info info;
    status = micah_context_device(context, MICA_CUDA, i, &device);
    if (status >= 0) status = device->ops->info(device, &info);
    if (status < 0) {
      if (text) printf("  cuda:%d           %s\n", i, mica_last_error());
      continue;
    }
    if (text)
      printf("  cuda:%d           %s, sm_%d, %d multiprocessors, %.1f GB (%.1f free)\n", i, info.name, info.capability,
             info.units, 1e-9 * (double)info.memory, 1e-9 * (double)info.free);
    micah_json_object(json, NULL);
    micah_json_string(json, "device", "cuda");
    micah_json_int(json, "index", i);
    micah_json_string(json, "name", info.name);
    micah_json_int(json, "capability", info.capability);
    micah_json_int(json, "multiprocessors", info.units);
    micah_json_int(json, "memory", info.memory);
    micah_json_int(json, "free", info.free);
    micah_json_end(json);
  }
  micah_json_end(json);
}

static int run_info(micac_args *args) {
  static const char *const isas[] = { "portable", "avx2", "avx512" };
  if (args->n_positional == 1) return micac_job_info(args);
  if (args->n_positional) return micac_usage(args, "expected one configuration file at most");
  mica_context *context = NULL;
  mica_status   status = micac_context(0, &context);
  if (status < 0) return micac_fail(args, status);
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", MICA_VERSION_MAJOR, MICA_VERSION_MINOR, MICA_VERSION_PATCH);
  const char *isa = isas[mica_context_get_isa(context)];
  int threads = mica_context_get_threads(context)->workers, ops = 0;
  while (mica_get_op(context, ops)) ops++;
  const mica_model *model;
  const mica_loss  *loss;
  micah_json json = { 0 };
  micah_json_object(&json, NULL);
  micah_json_string(&json, "version", version);
  micah_json_string(&json, "isa", isa);
  micah_json_int(&json, "threads", threads);
  micah_json_int(&json, "operations", ops);
  micah_json_array(&json, "backends");
  micah_json_string(&json, NULL, "ref");
  micah_json_string(&json, NULL, "cpu");
#ifdef MICA_HAVE_CUDA
  micah_json_string(&json, NULL, "cuda");
#endif
  micah_json_end(&json);
  if (!args->json)
    printf("mica %s\n  instruction set  %s\n  threads          %d\n  operations       %d (mica op --list)\n", version, isa,
           threads, ops);
  devices(&json, context, !args->json);
  micah_json_array(&json, "models");
  for (int i = 0; (model = mica_get_model(context, i)); i++) {
    micah_json_object(&json, NULL);
    micah_json_string(&json, "name", model->name);
    micah_json_string(&json, "doc", model->doc);
    keys_json(&json, model->keys, model->n_keys);
    micah_json_end(&json);
  }
  micah_json_end(&json);
  micah_json_array(&json, "losses");
  for (int i = 0; (loss = mica_get_loss(context, i)); i++) {
    micah_json_object(&json, NULL);
    micah_json_string(&json, "name", loss->name);
    micah_json_string(&json, "doc", loss->doc);
    keys_json(&json, loss->keys, loss->n_keys);
    micah_json_end(&json);
  }
  micah_json_end(&json);
  micah_json_end(&json);
  int code = MICAC_OK;
  if (args->json) {
    code = finish(args, &json);
  } else {
    micah_json_free(&json);
    for (int i = 0; (model = mica_get_model(context, i)); i++) {
      printf("\nmodel %s: %s\n", model->name, model->doc);
      keys_text(model->keys, model->n_keys);
    }
    for (int i = 0; (loss = mica_get_loss(context, i)); i++) {
      printf("\nloss %s: %s\n", loss->name, loss->doc);
      keys_text(loss->keys, loss->n_keys);
    }
  }
  mica_context_destroy(context);
  return code;
}

const micac_command micac_info = {
  .name = "info",
  .summary = "version, instruction set, devices, models and losses with their keys; what a configuration makes",
  .usage = "[CONFIG [KEY=VALUE ...]] [--json]",
  .help = "examples:\n  mica info\n  mica info docs/recipes/maml_sinusoid.yaml inner.steps=5\n",
  .options = "json",
  .overrides = 1,
  .run = run_info,
};
