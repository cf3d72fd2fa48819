#include "host/model/models.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

extern const mica_model micah_model_transformer, micah_model_mlp, micah_model_conv_net, micah_model_prototypes,
    micah_model_ridge_head, micah_model_logistic_head;
extern const mica_loss  micah_loss_mse, micah_loss_cross_entropy;

static const mica_model *const models[] = { &micah_model_transformer, &micah_model_mlp, &micah_model_conv_net,
                                            &micah_model_prototypes, &micah_model_ridge_head,
                                            &micah_model_logistic_head };
static const mica_loss *const  losses[] = { &micah_loss_mse, &micah_loss_cross_entropy };

mica_status micah_register_models(mica_context *context) {
  mica_status status = MICA_OK;
  for (int32_t i = 0; status >= 0 && i < MICA_COUNT(models); i++) status = mica_register_model(context, models[i]);
  return status;
}

mica_status micah_register_losses(mica_context *context) {
  mica_status status = MICA_OK;
  for (int32_t i = 0; status >= 0 && i < MICA_COUNT(losses); i++) status = mica_register_loss(context, losses[i]);
  return status;
}

mica_value micah_model_param(mica_program *program, mica_init init, int64_t rows, int64_t columns, const char *format,
                             ...) {
  char    name[256];
  va_list list;
  va_start(list, format);
  int length = vsnprintf(name, sizeof name, format, list);
  va_end(list);
  if (length < 0 || (size_t)length >= sizeof name)
    return mica_error(MICA_ERR_INVALID, "a parameter's name is longer than %zu bytes: '%.40s...'", sizeof name - 1,
                      name);
  int64_t shape[2] = { rows, columns };
  /* as usual in this field: matrices decay, biases and gains do not */
  return mica_program_param(program, name, columns > 0 ? 2 : 1, shape, init, columns > 0);
}

mica_value micah_model_read_in(mica_program *program, const char *model, const mica_field *fields,
                               const mica_value *inputs, int32_t n, int64_t width, double scale) {
  const mica_field *first = NULL;
  int32_t found = 0;
  for (int32_t i = 0; i < n; i++) {
    const mica_field *f = &fields[i];
    if (f->role != MICA_FIELD_INPUT) continue;
    if (f->rank > 1)
      return mica_error(MICA_ERR_SHAPE, "model %s: input field '%s' has rows of rank %d, expected 0 or 1", model,
                        f->name, (int)f->rank);
    if (!first) first = f;
    if ((first->axis == NULL) != (f->axis == NULL) || (f->axis && strcmp(first->axis, f->axis) != 0))
      return mica_error(MICA_ERR_SHAPE, "model %s: input fields '%s' and '%s' run over different axes ('%s', '%s')",
                        model, first->name, f->name, first->axis ? first->axis : "task", f->axis ? f->axis : "task");
    found++;
  }
  if (!found) return mica_error(MICA_ERR_SHAPE, "model %s: the family has no field with role INPUT", model);
  mica_init normal = { MICA_INIT_NORMAL, scale }, zero = { MICA_INIT_ZERO, 0 };
  mica_value sum = -1;
  for (int32_t i = 0; i < n; i++) {
    const mica_field *f = &fields[i];
    if (f->role != MICA_FIELD_INPUT) continue;
    const char *dot = found > 1 ? "." : "", *suffix = found > 1 ? f->name : "";
    mica_value y;
    if (f->dtype == MICA_F32) {
      int64_t columns = f->rank ? f->shape[0] : 1;
      mica_bind binds[] = { { "x", inputs[i] },
                            { "w",
                              micah_model_param(program, normal, width, columns, "read_in%s%s.weight", dot, suffix) },
                            { "b", micah_model_param(program, zero, width, 0, "read_in%s%s.bias", dot, suffix) },
                            { "res", sum } };
      if (!f->rank) {
        int64_t one = 1;
        binds[0].value = mica_program_reshape(program, inputs[i], 1, &one);
      }
      /* the sum over several fields rides on linear's residual */
      y = mica_program_op(program, "read_in", "linear", NULL, sum < 0 ? 3 : 4, binds);
    } else {
      if (f->rank)
        return mica_error(MICA_ERR_SHAPE, "model %s: token field '%s' has rows of rank %d, expected scalars", model,
                          f->name, (int)f->rank);
      mica_bind binds[] = { { "tokens", inputs[i] },
                            { "w",
                              micah_model_param(program, normal, f->range, width, "embed%s%s.weight", dot, suffix) } };
      y = mica_program_op(program, "embed", "embedding", NULL, 2, binds);
      if (sum >= 0) {
        mica_bind both[] = { { "a", sum }, { "b", y } };
        y = mica_program_op(program, "read_in.add", "add", NULL, 2, both);
      }
    }
    if (y < 0) return y;
    sum = y;
  }
  return sum;
}
