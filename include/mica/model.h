/* model.h: models and losses are builders of programs, registered by name. */
#ifndef MICA_MODEL_H
#define MICA_MODEL_H

#include "mica/family.h"
#include "mica/program.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_model {
  size_t          size;          /* sizeof(mica_model) */
  const char     *name, *doc;
  const mica_key *keys;
  int32_t         n_keys;
  size_t          config_size;
  /* append the model to the program: inputs are made by the caller from the family's fields (one value each, in the
   * family's order); returns the prediction, rows (outputs,) over the target's axis. outputs: classes of the target (its
   * range) or the numbers of a target row. longest: most rows of a task, for learned positions. */
  mica_value (*build)(mica_program *program, const void *config, const mica_field *fields, const mica_value *inputs,
                      int32_t n, int64_t longest, int64_t outputs);
  /* a parameter NAME that follows an average in place of a gradient (running statistics): built for MICA_PHASE_TRAIN, the
   * program has an output average.NAME of NAME's shape, its next value by each task; training takes the mean over
   * the target's rows of all tasks. */
  /* rows of its own that the model puts in front of every sequence; NULL or 0: none. build then finds, with the first
   * input NAME of axis A, fields of role PLACE, indices for `gather`: NAME.row over axis A+, which has so many rows
   * more, the row of A or -1; NAME.ahead over A+, the row of the model's own or -1; NAME.back over A, its row in A+. */
  int64_t   (*ahead)(const void *config);
} mica_model;

typedef struct mica_loss {
  size_t          size;          /* sizeof(mica_loss) */
  const char     *name, *doc;
  const mica_key *keys;
  int32_t         n_keys;
  size_t          config_size;
  /* rows of loss, (1,) or scalar, over the target's axis, already times weight (MICA_NO_AXIS - none: pass -1) */
  mica_value (*build)(mica_program *program, const void *config, mica_value prediction, mica_value target,
                      mica_value weight);
} mica_loss;

#ifdef __cplusplus
}
#endif
#endif
