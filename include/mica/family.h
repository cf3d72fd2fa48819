/* family.h: a task family is a counter-based generator with its exact predictor.
 *
 * task number n is the same task on every thread, device and resume. a family declares its fields, which programs bind
 * by name, and fills ranges of tasks into memory of the engine. */
#ifndef MICA_FAMILY_H
#define MICA_FAMILY_H

#include "mica/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* what a field is to a model. INPUT: rows of numbers or tokens; TARGET: what to predict at each row; WEIGHT: loss
 * weight of each row (F32, may be 0); INFO: neither (latent truth, for reports); SUPPORT: support_NAME, what an inner
 * loop adapts to in place of query_NAME (or NAME); PLACE: of the engine, for a model with rows of its own (model.h). */
enum { MICA_FIELD_INPUT, MICA_FIELD_TARGET, MICA_FIELD_WEIGHT, MICA_FIELD_INFO, MICA_FIELD_SUPPORT, MICA_FIELD_PLACE };

typedef struct mica_field {
  const char *name;              /* "tokens", "target", "weight" */
  int32_t     dtype;             /* F32 or I32 */
  int32_t     role;
  const char *axis;              /* name of the ragged axis its rows run over; NULL: one row a task */
  int32_t     rank;              /* of a row: 0 scalar */
  int64_t     shape[3];          /* of a row */
  int64_t     range;             /* I32: values are in [0, range); F32: 0 */
} mica_field;

enum { MICA_SPLIT_TRAIN, MICA_SPLIT_TEST };

/* what the engine tells a family when it opens it */
typedef struct mica_family_env {
  size_t        size;            /* sizeof(mica_family_env) */
  mica_context *context;
  uint64_t      seed;            /* of the run */
  int32_t       split;           /* MICA_SPLIT_*; test tasks are never training tasks */
  int64_t       tasks_per_step;  /* curricula are functions of task number / tasks_per_step */
  int64_t       steps;           /* of the whole run; schedules shrink with it */
} mica_family_env;

/* a batch: tasks [first, first + count); rows of all tasks one after another. */
typedef struct mica_batch {
  size_t          size;          /* sizeof(mica_batch) */
  int64_t         first, count;
  const int32_t **offsets;       /* [axis][count + 1], axes in the order of mica_family.axes */
  void          **data;          /* [field] packed rows, in the order of fields() */
} mica_batch;

typedef struct mica_family {
  size_t          size;          /* sizeof(mica_family) */
  const char     *name, *doc;
  const char     *axes;          /* names of its ragged axes, "token" or "token item" */
  const char     *predictors;    /* exact predictors, best last: "ols ridge bayes" */
  const mica_key *keys;
  int32_t         n_keys;
  size_t          config_size;   /* struct that keys fill */
  /* make an instance; config was checked against keys. fails with a message. */
  mica_status (*open)(const mica_family_env *env, const void *config, void **self);
  void        (*close)(void *self);
  /* fields, borrowed for the life of self */
  mica_status (*fields)(void *self, const mica_field **fields, int32_t *count);
  /* largest number of rows of each axis in any one task */
  mica_status (*longest)(void *self, int64_t *rows);
  /* rows of each axis for tasks [first, first + count): rows[axis * count + i]. thread-safe. */
  mica_status (*sizes)(void *self, int64_t first, int64_t count, int32_t *rows);
  /* write all fields of the batch's tasks. thread-safe. */
  mica_status (*fill)(void *self, const mica_batch *batch);
  /* number of distinct tasks of this split; -1: unbounded. NULL: unbounded */
  int64_t     (*count)(void *self);
  /* loss of exact predictor `which` (index into predictors) at each row of the TARGET's axis, unweighted: nats for
   * classes, squared error against the target for regression; 0 where the weight is 0. reads the batch's fields only
   * where it needs no latent truth. thread-safe. NULL when there is none. */
  mica_status (*exact)(void *self, int32_t which, const mica_batch *batch, double *loss);
  /* write the fields of one task from a user's own data, for predict: `values` (rows, columns), targets last; the last
   * target may be NaN: to predict. sizes: rows of each axis; batch NULL: only these. NULL: no. */
  mica_status (*encode)(void *self, const double *values, int64_t rows, int64_t columns, int32_t *sizes,
                        const mica_batch *batch);
  /* a line on a task for reports ("amh bytes 0 to 255"), cut to size bytes with its NUL. thread-safe. NULL: no. */
  mica_status (*describe)(void *self, int64_t task, char *text, size_t size);
} mica_family;

#ifdef __cplusplus
}
#endif
#endif
