/* models.h: the built-in models and losses. a new one is one file and one line in models.c. */
#ifndef MICAH_MODEL_MODELS_H
#define MICAH_MODEL_MODELS_H

#include "mica/model.h"

mica_status micah_register_models(mica_context *context);
mica_status micah_register_losses(mica_context *context);

/* what the INPUT fields become: rows of `width` numbers over the axis of the inputs, by a linear map of numbers and an
 * embedding of classes; several fields are summed. parameters are `read_in.weight|bias` and `embed.weight`, with the
 * field's name appended where there are several ("read_in.x.weight"). every INPUT field must run over one axis and have
 * rank 0 or 1. */
mica_value micah_model_read_in(mica_program *program, const char *model, const mica_field *fields,
                               const mica_value *inputs, int32_t n, int64_t width, double scale);

/* parameter named by a printf format, shape (rows, columns) or (rows) when columns is 0 */
mica_value micah_model_param(mica_program *program, mica_init init, int64_t rows, int64_t columns, const char *format,
                             ...) __attribute__((format(printf, 5, 6)));

#endif
