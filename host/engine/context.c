#include "device/context.h"

/* the one place that knows all layers: a context with every built-in */
mica_status mica_context_create(const mica_context_options *options, mica_context **out) {
  static mica_status (*const lists[])(mica_context *) = { micah_register_families, micah_register_models,
                                                          micah_register_losses };
  mica_status status = micah_context_new(options, out);
  if (status < 0) return status;
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    status = lists[i](*out);
    if (status < 0) {
      mica_context_destroy(*out);
      *out = NULL;
      return status;
    }
  }
  return MICA_OK;
}
