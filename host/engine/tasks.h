/* tasks.h: an opened task family, its fields, and batches of its tasks in memory. */
#ifndef MICAH_ENGINE_TASKS_H
#define MICAH_ENGINE_TASKS_H

#include "host/device/device.h"
#include "mica/family.h"

enum { MICAH_MAX_AXES = 8, MICAH_MAX_FIELDS = 32 };

/* the family's fields and the engine's own, with names of these */
typedef struct micah_places {
  mica_field field[MICAH_MAX_FIELDS];
  char       name[MICAH_MAX_FIELDS][96], axis[MICAH_MAX_AXES][64];
} micah_places;

typedef struct micah_tasks {
  const mica_context *context;
  micah_device       *device;        /* that fields are made for: their memory here is good for copies to it */
  const mica_family  *family;
  void               *self;          /* the family's instance */
  const mica_field   *fields;
  int32_t             n_fields, n_axes;
  char                axis_name[MICAH_MAX_AXES][64];
  int64_t             longest[MICAH_MAX_AXES];
  int32_t             field_axis[MICAH_MAX_FIELDS];  /* -1: one row a task */
  int64_t             field_count[MICAH_MAX_FIELDS]; /* numbers in a row */
  int32_t             target, weight;                /* fields; weight -1: none */
  int64_t             outputs;       /* classes, or numbers of a target row */
  int64_t             count;         /* tasks of this split, -1: unbounded */
  /* rows that the model puts in front: axes and fields of the engine's own follow the family's */
  int64_t             ahead;
  micah_places       *places;        /* NULL: there are the family's alone */
  int32_t             family_fields, family_axes;
  int32_t             longer_than[MICAH_MAX_AXES]; /* [family_axes, n_axes): the axis that it is longer than */
} micah_tasks;

/* open a family with a filled config struct. checks what it declares: one target, weights on the target's axis. */
mica_status micah_tasks_open(mica_context *context, const mica_family *family, const void *config, uint64_t seed,
                             int32_t split, int64_t tasks_per_step, int64_t steps, micah_tasks *out);
void        micah_tasks_close(micah_tasks *tasks);

/* the support's field that stands for the query's ("support_x" for "query_x" or "x"); -1: none */
int32_t     micah_tasks_support(const micah_tasks *tasks, const char *name);
/* make room for `rows` rows of the model in front of each sequence of inputs (mica_model.ahead) */
mica_status micah_tasks_put_ahead(micah_tasks *tasks, int64_t rows);
/* rows of the axes that the family does not know, after its own: rows[axis * count + i] */
void        micah_tasks_lengthen(const micah_tasks *tasks, int64_t count, int32_t *rows);

/* index of an exact predictor by name, "best" the last; -1 when the family has none or name is "none". unknown names
 * are MICA_ERR_NOT_FOUND. n-th name goes to text (size >= 1); returns 0 past the end. */
mica_status micah_tasks_predictor(const micah_tasks *tasks, const char *name, int32_t *which);
int         micah_tasks_predictor_name(const micah_tasks *tasks, int32_t which, char *text, size_t size);

/* memory for up to `capacity` tasks and what is in it: tasks [first, first + count), rows one after another */
typedef struct micah_feed {
  const micah_tasks *tasks;
  int64_t  capacity, first, count;
  int32_t *offsets[MICAH_MAX_AXES];  /* (count + 1) */
  void    *data[MICAH_MAX_FIELDS];
  int64_t *number;                   /* (count) task numbers */
  int32_t *rows;                     /* scratch of fill: (axes, capacity) */
  int32_t  uniform[MICAH_MAX_AXES];  /* 1: all tasks have equally many rows */
  double   weight;                   /* total of the target rows' weights */
} micah_feed;

mica_status micah_feed_create(const micah_tasks *tasks, int64_t capacity, micah_feed *out);
void        micah_feed_destroy(micah_feed *feed);
/* the fields that the family does not know; offsets are laid out */
void        micah_feed_places(micah_feed *feed);
/* tasks [first, first + count) */
mica_status micah_feed_fill(micah_feed *feed, int64_t first, int64_t count);
/* tasks of another feed where keep[i] is not 0 */
mica_status micah_feed_select(micah_feed *feed, const micah_feed *from, const uint8_t *keep);

/* tasks [first, first + count) of a feed, with offsets from 0; `offsets` are the view's own (count + 1 an axis) */
typedef struct micah_view {
  const micah_feed *feed;
  int64_t  first, count;
  int32_t *offsets[MICAH_MAX_AXES];
  void    *data[MICAH_MAX_FIELDS];
  int64_t  capacity;
} micah_view;
mica_status micah_view_create(const micah_tasks *tasks, int64_t capacity, micah_view *out);
void        micah_view_destroy(const micah_tasks *tasks, micah_view *view);
void        micah_view_set(micah_view *view, const micah_feed *feed, int64_t first, int64_t count);

/* rows of a field in a view */
int64_t micah_view_rows(const micah_view *view, int32_t axis);
/* rows of the target of task i of a view: first, and number */
void    micah_view_target(const micah_view *view, int64_t i, int64_t *first, int64_t *count);
/* weight of a target row of the view */
double  micah_view_weight(const micah_view *view, int64_t row);
/* losses of an exact predictor at every target row of a view, unweighted */
mica_status micah_view_exact(const micah_view *view, int32_t which, double *loss);

#endif
