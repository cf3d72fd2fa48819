/* predict.c: a trained model on a user's own sequences. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/names.h"
#include "host/device/context.h"
#include "host/engine/runner.h"
#include "host/io/csv.h"
#include "host/io/file.h"
#include "host/io/npy.h"

typedef struct prediction {
  mica_prediction public;
  float   *values;
  int32_t *sequence, *position, *target;
  double  *loss, *by_position;
  int64_t  capacity;                 /* rows that fit */
} prediction;

/* a user's numbers: `sequences` of (rows, columns) */
typedef struct numbers {
  double  *values;
  int64_t  sequences, rows, columns;
  int64_t  window;                   /* rows are cut into pieces of so many; 0: not cut */
} numbers;

typedef struct work {
  micah_job    *job;
  micah_tasks   tasks;
  micah_graph   graph;
  micah_runner *runner;
  micah_feed    feed;                /* one task */
  numbers       in;
  prediction   *p;
} work;

void mica_prediction_destroy(const mica_prediction *prediction_) {
  prediction *p = (prediction *)(uintptr_t)prediction_;
  if (!p) return;
  free(p->values);
  free(p->sequence);
  free(p->position);
  free(p->target);
  free(p->loss);
  free(p->by_position);
  free(p);
}

/* ---- reading ---- */

static int ends_in(const char *path, const char *suffix) {
  size_t a = strlen(path), b = strlen(suffix);
  return a >= b && strcasecmp(path + a - b, suffix) == 0;
}

static mica_status read_npy(const char *path, numbers *out) {
  micah_array array;
  mica_status status = micah_npy_read(path, &array);
  if (status < 0) return status;
  if (array.rank < 1 || array.rank > 3 || array.count < 1)
    status = mica_error(MICA_ERR_SHAPE,
                        "%s: an array of rank %d with %lld numbers; expected (rows, columns) or (sequences, "
                        "rows, columns)",
                        path, (int)array.rank, (long long)array.count);
  else if (!(out->values = malloc((size_t)array.count * sizeof *out->values)))
    status = mica_error(MICA_ERR_MEMORY, "%s: no memory for %lld numbers", path, (long long)array.count);
  if (status >= 0) {
    out->sequences = array.rank == 3 ? array.shape[0] : 1;
    out->columns = array.rank == 1 ? 1 : array.shape[array.rank - 1];
    out->rows = array.count / out->sequences / out->columns;
    for (int64_t i = 0; i < array.count; i++) out->values[i] = micah_array_get(&array, i);
  }
  micah_array_free(&array);
  return status;
}

static mica_status read_csv(const char *path, numbers *out) {
  micah_csv_options options = MICAH_CSV_OPTIONS_INIT;
  micah_table table;
  options.missing = 1;
  mica_status status = micah_csv_read(path, &options, &table);
  if (status < 0) return status;
  if (table.rows < 1 || table.columns < 1) status = mica_error(MICA_ERR_FORMAT, "%s: no rows of numbers", path);
  else {
    out->sequences = 1, out->rows = table.rows, out->columns = table.columns;
    out->values = table.values, table.values = NULL;
  }
  micah_table_free(&table);
  return status;
}

static mica_status read_bytes(const char *path, int64_t window, numbers *out) {
  char *data;
  int64_t size;
  mica_status status = micah_file_read(path, (int64_t)1 << 30, &data, &size);
  if (status < 0) return status;
  if (!size) status = mica_error(MICA_ERR_FORMAT, "%s: the file is empty, there is nothing to predict", path);
  else if (!(out->values = malloc((size_t)size * sizeof *out->values)))
    status = mica_error(MICA_ERR_MEMORY, "%s: no memory for %lld bytes", path, (long long)size);
  for (int64_t i = 0; status >= 0 && i < size; i++) out->values[i] = (unsigned char)data[i];
  out->sequences = 1, out->rows = size, out->columns = 1, out->window = window;
  free(data);
  return status;
}

static mica_status read_input(work *w, const char *path) {
  const mica_field *target = &w->tasks.fields[w->tasks.target];
  int32_t axis = w->tasks.field_axis[w->tasks.target];
  if (!path) return mica_error(MICA_ERR_INVALID, "predict needs an input file");
  if (target->dtype == MICA_I32 && target->range == 256)
    return read_bytes(path, axis < 0 ? 1 : w->tasks.longest[axis], &w->in);
  if (ends_in(path, ".npy")) return read_npy(path, &w->in);
  if (ends_in(path, ".csv") || ends_in(path, ".tsv") || ends_in(path, ".txt")) return read_csv(path, &w->in);
  return mica_error(MICA_ERR_FORMAT, "%s: expected a file ending in .npy, .csv or .tsv for family %s", path,
                    w->job->family->name);
}

/* ---- running ---- */

static mica_status open_work(const mica_predict_options *o, work *w) {
  mica_status status = micah_job_open(&o->source, 0, &w->job);
  if (status >= 0) status = micah_job_tasks(w->job, MICA_SPLIT_TEST, &w->tasks);
  if (status < 0) return status;
  if (!w->job->family->encode)
    return mica_error(MICA_ERR_UNSUPPORTED, "family %s cannot take a user's own data", w->job->family->name);
  status = read_input(w, o->input);
  const int32_t outputs = MICAH_EVALUATE | MICAH_OUT_LOSS | MICAH_OUT_PREDICTION;
  if (status >= 0) status = micah_job_graph(w->job, &w->tasks, outputs, &w->graph);
  if (status >= 0)
    status = micah_runner_create(w->job, &w->tasks, &w->graph, w->job->backend, 0, MICA_F32, MICA_PASS_FORWARD, 1,
                                 &w->runner);
  if (status >= 0) status = micah_feed_create(&w->tasks, 1, &w->feed);
  if (status >= 0) status = micah_runner_hold(w->runner, 1);
  if (status < 0) return status;
  char *from;
  int64_t step;
  status = micah_job_weights(w->job, &w->graph, o->weights, MICA_F32, w->runner->params.host, &from, &step);
  free(from);
  return status < 0 ? status : micah_runner_send_params(w->runner);
}

static void close_work(work *w) {
  if (w->job) {
    if (w->feed.tasks) micah_feed_destroy(&w->feed);
    micah_runner_destroy(w->runner);
    if (w->graph.program) micah_graph_destroy(&w->graph);
    micah_tasks_close(&w->tasks);
  }
  micah_job_close(w->job);
  free(w->in.values);
}

static mica_status grow(prediction *p, int64_t rows, int64_t columns) {
  if (p->public.rows + rows <= p->capacity) return MICA_OK;
  int64_t capacity = 2 * p->capacity + rows + 1024;
  if (capacity > (int64_t)1 << 40 / (columns + 8)) capacity = p->public.rows + rows;
  void *values = realloc(p->values, (size_t)(capacity * columns) * sizeof *p->values);
  if (values) p->values = values;
  void *sequence = realloc(p->sequence, (size_t)capacity * sizeof *p->sequence);
  if (sequence) p->sequence = sequence;
  void *position = realloc(p->position, (size_t)capacity * sizeof *p->position);
  if (position) p->position = position;
  void *target = realloc(p->target, (size_t)capacity * sizeof *p->target);
  if (target) p->target = target;
  void *loss = realloc(p->loss, (size_t)capacity * sizeof *p->loss);
  if (loss) p->loss = loss;
  if (!values || !sequence || !position || !target || !loss)
    return mica_error(MICA_ERR_MEMORY, "no memory for %lld predictions of %lld numbers", (long long)capacity,
                      (long long)columns);
  p->capacity = capacity;
  return MICA_OK;
}

/* a user's sequence as the feed's one task */
static mica_status encode(work *w, const double *values, int64_t rows) {
  const micah_tasks *t = &w->tasks;
  micah_feed *f = &w->feed;
  int32_t sizes[MICAH_MAX_AXES] = { 0 };
  mica_status status = w->job->family->encode(t->self, values, rows, w->in.columns, sizes, NULL);
  if (status < 0) return status;
  micah_tasks_lengthen(t, 1, sizes);
  f->first = 0, f->count = 1, f->number[0] = 0;
  const int32_t *offsets[MICAH_MAX_AXES];
  for (int32_t a = 0; a < t->n_axes; a++) {
    if (sizes[a] < 0 || sizes[a] > t->longest[a])
      return mica_error(MICA_ERR_SHAPE, "a sequence of %d rows of '%s'; the model takes at most %lld", (int)sizes[a],
                        t->axis_name[a], (long long)t->longest[a]);
    f->offsets[a][0] = 0, f->offsets[a][1] = sizes[a], f->uniform[a] = 1;
    offsets[a] = f->offsets[a];
  }
  mica_batch batch = { sizeof batch, 0, 1, offsets, f->data };
  micah_feed_places(f);
  return w->job->family->encode(t->self, values, rows, w->in.columns, sizes, &batch);
}

static mica_status predict_one(work *w, double *values, int64_t rows, int64_t sequence) {
  prediction *p = w->p;
  const micah_tasks *t = &w->tasks;
  int64_t columns = t->outputs, first, count;
  /* only the last target may be unknown. nothing sees it, so any number does in its place: so its row keeps its weight,
   * which says that a prediction is made there */
  int unknown = isnan(values[rows * w->in.columns - 1]);
  if (unknown) values[rows * w->in.columns - 1] = 0;
  mica_status status = encode(w, values, rows);
  if (status >= 0) status = micah_runner_set(w->runner, &w->feed, 0, 1);
  if (status < 0) return status;
  micah_view_target(&w->runner->view, 0, &first, &count);
  status = micah_runner_run(w->runner, MICA_PASS_FORWARD);
  if (status >= 0) status = grow(p, count, columns);
  if (status < 0) return status;
  int64_t position = 0, last = -1;
  for (int64_t r = 0; r < count; r++) {
    double weight = micah_view_weight(&w->runner->view, r);
    if (!(weight > 0)) continue;
    int64_t n = p->public.rows++;
    const float *out = (const float *)w->runner->output.host + r * columns;
    memcpy(p->values + n * columns, out, (size_t)columns * sizeof *out);
    p->sequence[n] = (int32_t)sequence, p->position[n] = (int32_t)position++;
    p->target[n] = p->public.classes ? ((const int32_t *)w->feed.data[t->target])[r] : 0;
    p->loss[n] = w->runner->row_loss[r] / weight;
    last = n;
  }
  if (unknown && last >= 0) p->loss[last] = NAN, p->target[last] = -1;
  return MICA_OK;
}

static mica_status by_position(work *w) {
  prediction *p = w->p;
  int64_t positions = 0;
  for (int64_t i = 0; i < p->public.rows; i++)
    if (p->position[i] >= positions) positions = p->position[i] + 1;
  p->by_position = calloc((size_t)positions + 1, sizeof *p->by_position);
  int64_t *count = calloc((size_t)positions + 1, sizeof *count), known = 0;
  double sum = 0;
  if (!p->by_position || !count) {
    free(count);
    return mica_error(MICA_ERR_MEMORY, "no memory for losses by position");
  }
  for (int64_t i = 0; i < p->public.rows; i++) {
    if (isnan(p->loss[i])) continue;
    p->by_position[p->position[i]] += p->loss[i], count[p->position[i]]++;
    sum += p->loss[i], known++;
  }
  for (int64_t i = 0; i < positions; i++) p->by_position[i] = count[i] ? p->by_position[i] / (double)count[i] : NAN;
  free(count);
  p->public.positions = positions, p->public.loss_by_position = p->by_position;
  p->public.mean_loss = known ? sum / (double)known : NAN;
  p->public.bits = p->public.classes ? p->public.mean_loss / M_LN2 : NAN;
  return MICA_OK;
}

static mica_status run(work *w) {
  prediction *p = w->p;
  p->public.classes = w->tasks.fields[w->tasks.target].dtype == MICA_I32;
  p->public.unit = p->public.classes ? "nats" : "squared error";
  p->public.columns = w->tasks.outputs;
  mica_status status = MICA_OK;
  const numbers *in = &w->in;
  int64_t window = in->window ? in->window : in->rows, sequence = 0;
  for (int64_t i = 0; status >= 0 && i < in->sequences; i++)
    for (int64_t r = 0; status >= 0 && r < in->rows; r += window) {
      int64_t rows = in->rows - r < window ? in->rows - r : window;
      status = predict_one(w, in->values + (i * in->rows + r) * in->columns, rows, sequence++);
    }
  if (status >= 0) status = by_position(w);
  p->public.sequences = sequence, p->public.values = p->values, p->public.sequence = p->sequence;
  p->public.position = p->position, p->public.loss = p->loss, p->public.target = p->public.classes ? p->target : NULL;
  return status;
}

mica_status mica_predict(const mica_predict_options *options, const mica_prediction **out) {
  *out = NULL;
  if (!options || options->size != sizeof *options)
    return mica_error(MICA_ERR_INVALID, "mica_predict_options.size is %zu, expected %zu", options ? options->size : 0,
                      sizeof *options);
  work w = { 0 };
  w.p = calloc(1, sizeof *w.p);
  if (!w.p) return mica_error(MICA_ERR_MEMORY, "no memory for predictions");
  mica_status status = open_work(options, &w);
  if (status >= 0) status = run(&w);
  close_work(&w);
  if (status < 0) {
    /* the input is named whatever went wrong with it */
    if (options->input && !strstr(mica_last_error(), options->input) && status == MICA_ERR_SHAPE) {
      char message[1024];
      snprintf(message, sizeof message, "%s", mica_last_error());
      status = mica_error(status, "%s: %s", options->input, message);
    }
    mica_prediction_destroy(&w.p->public);
  } else {
    *out = &w.p->public;
  }
  return status;
}

mica_status mica_prediction_save(const mica_prediction *p, const char *path) {
  if (ends_in(path, ".npy")) {
    micah_array array = { .dtype = MICA_F32, .rank = 2, .shape = { p->rows, p->columns }, .count = p->rows * p->columns,
                          .data = (void *)(uintptr_t)p->values };
    return micah_npy_write(path, &array);
  }
  if (!ends_in(path, ".csv") && !ends_in(path, ".tsv"))
    return mica_error(MICA_ERR_INVALID, "%s: predictions are written to .npy, .csv or .tsv", path);
  const char *sep = ends_in(path, ".tsv") ? "\t" : ",";
  micah_text text = { 0 };
  micah_text_format(&text, "sequence%sposition%s%sloss", sep, sep,
                    p->classes ? (*sep == ',' ? "target," : "target\t") : "");
  for (int64_t j = 0; j < p->columns; j++)
    micah_text_format(&text, "%s%s%lld", sep, p->classes ? "p" : "y", (long long)j);
  micah_text_add(&text, "\n");
  for (int64_t i = 0; i < p->rows; i++) {
    micah_text_format(&text, "%d%s%d%s", (int)p->sequence[i] + 1, sep, (int)p->position[i] + 1, sep);
    if (p->classes) micah_text_format(&text, "%d%s", (int)p->target[i], sep);
    if (!isnan(p->loss[i])) micah_text_number(&text, p->loss[i], 9);
    for (int64_t j = 0; j < p->columns; j++) {
      micah_text_add(&text, sep);
      micah_text_number(&text, (double)p->values[i * p->columns + j], 9);
    }
    micah_text_add(&text, "\n");
  }
  mica_status status = micah_text_check(&text, "predictions");
  if (status >= 0) status = micah_file_write(path, text.data, (int64_t)text.size);
  micah_text_free(&text);
  return status;
}
