/* `mica grad`: one batch with everything that is needed to recompute it elsewhere. */
#include <string.h>

#include "cli/source.h"

static int run(micac_args *args) {
  if (args->n_positional != 1) return micac_usage(args, "expected one configuration file, got %d", args->n_positional);
  const char *dtype = micac_option(args, "dtype");
  mica_context_options context = micac_context_options();
  mica_grad_options    options = MICA_GRAD_OPTIONS_INIT;
  options.source = micac_source(args, args->positional[0], &context);
  options.out = micac_option(args, "out");
  options.direction = micac_option(args, "direction");
  options.weights = micac_option(args, "weights");
  options.dtype = dtype ? mica_dtype_parse(dtype) : MICA_F32;
  if (!options.out) return micac_usage(args, "--out FILE is needed");
  if (options.dtype < 0 || options.dtype > MICA_BF16)
    return micac_usage(args, "--dtype is '%s', expected f32, f64 or bf16", dtype);
  int code = micac_option_int(args, "first", 0, &options.first);
  if (code) return code;
  double loss = 0;
  mica_status status = mica_grad(&options, &loss);
  if (status < 0) return micac_fail(args, status);
  if (args->json) printf("{\"loss\":%.17g,\"dtype\":\"%s\",\"hvp\":%s}\n", loss, mica_dtype_name(options.dtype),
                         options.direction ? "true" : "false");
  else printf("loss %.9g -> %s\n", loss, options.out);
  return MICAC_OK;
}

const micac_command micac_grad = {
  .name = "grad",
  .summary = "write one batch with its weights, gradient and Hessian-vector product",
  .usage = "CONFIG --out FILE [--direction FILE] [--dtype f32|f64|bf16] [KEY=VALUE ...]",
  .help =
      "  --out FILE       safetensors: init/NAME, the task data by field name, loss (per task), grad/NAME of the mean\n"
      "                   over tasks; settings as metadata under their configuration keys\n"
      "  --direction FILE safetensors with dir/NAME; adds hvp/NAME\n"
      "  --dtype D        f32 on the kernels of `device`; f64 and bf16 on the reference\n"
      "  --weights FILE   other weights than the initial ones\n"
      "  --first N        number of the first task\n"
      "\nexamples:\n"
      "  mica grad docs/recipes/linear_regression.yaml --out g.safetensors --dtype f64 batch=4\n"
      "  mica grad docs/recipes/linear_regression.yaml --out h.safetensors --direction v.safetensors\n",
  .options = "out: direction: dtype: weights: first: json",
  .overrides = 1,
  .run = run,
};
