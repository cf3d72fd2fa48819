/* eval.c: losses of a model and of every exact predictor over the same test tasks, whole and by position. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/device/context.h"
#include "host/engine/runner.h"

enum { MAX_PREDICTORS = 16, NAME = 64, PIECE = 8 };

/* the public struct first: a caller's pointer is ours */
typedef struct evaluation {
  mica_evaluation  public;
  mica_exact_loss  exact[MAX_PREDICTORS];
  char             name[MAX_PREDICTORS][NAME];
  int32_t          which[MAX_PREDICTORS];
  double          *by_position;      /* (n_predictors + 2, positions): model, weight, predictors; sums, then means */
  double          *exact_sum;        /* (n_predictors) */
  double          *task_loss;
  char           **task_name;
  char            *weights;
} evaluation;

typedef struct work {
  micah_job     *job;
  micah_tasks    tasks;
  micah_graph    graph;
  micah_runner  *runner;
  micah_feed     feed;
  const float   *output;             /* probabilities (rows of a chunk, classes), NULL: no classes */
  double        *exact;              /* (predictors, rows of a feed) */
  int64_t        chunk, rows;
  evaluation    *e;
} work;

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void mica_evaluation_destroy(const mica_evaluation *evaluation_) {
  evaluation *e = (evaluation *)(uintptr_t)evaluation_;
  if (!e) return;
  for (int64_t i = 0; e->task_name && i < e->public.tasks; i++) free(e->task_name[i]);
  free(e->task_name);
  free(e->by_position);
  free(e->exact_sum);
  free(e->task_loss);
  free(e->weights);
  free(e);
}

static void close_work(work *w) {
  if (w->job) {
    free(w->exact);
    if (w->feed.tasks) micah_feed_destroy(&w->feed);
    micah_runner_destroy(w->runner);
    if (w->graph.program) micah_graph_destroy(&w->graph);
    micah_tasks_close(&w->tasks);
  }
  micah_job_close(w->job);
}

/* which predictors: all, or those of a comma list */
static mica_status choose_predictors(const micah_tasks *t, const char *list, evaluation *e) {
  int32_t n = 0;
  for (int32_t i = 0; !list && n < MAX_PREDICTORS && micah_tasks_predictor_name(t, i, e->name[n], NAME); i++)
    e->which[n++] = i;
  for (const char *at = list; at && *at;) {
    size_t length = strcspn(at, ",");
    char name[NAME];
    if (length >= sizeof name || n == MAX_PREDICTORS)
      return mica_error(MICA_ERR_INVALID, "exact predictors '%s': too long a list or name", list);
    memcpy(name, at, length), name[length] = 0;
    mica_status status = micah_tasks_predictor(t, name, &e->which[n]);
    if (status < 0) return status;
    if (e->which[n] >= 0) micah_tasks_predictor_name(t, e->which[n], e->name[n], NAME), n++;
    at += length + (at[length] == ',');
  }
  e->public.n_predictors = n;
  return MICA_OK;
}

static mica_status open_work(const mica_evaluate_options *o, work *w) {
  evaluation *e = w->e;
  mica_status status = micah_job_open(&o->source, 0, &w->job);
  if (status >= 0) status = micah_job_tasks(w->job, MICA_SPLIT_TEST, &w->tasks);
  if (status < 0) return status;
  const micah_settings *s = &w->job->settings;
  int64_t n = o->tasks > 0 ? o->tasks : s->eval_tasks;
  if (w->tasks.count >= 0 && n > w->tasks.count) n = w->tasks.count;
  if (n < 1) return mica_error(MICA_ERR_CONFIG, "family %s has no test task", w->job->family->name);
  e->public.tasks = n;
  w->chunk = n < s->batch ? n : s->batch;
  if (w->chunk > 256) w->chunk = 256;
  status = choose_predictors(&w->tasks, o->exact, e);
  int classes = w->tasks.fields[w->tasks.target].dtype == MICA_I32;
  if (status >= 0)
    status = micah_job_graph(w->job, &w->tasks, MICAH_EVALUATE | MICAH_OUT_LOSS | (classes ? MICAH_OUT_PREDICTION : 0),
                             &w->graph);
  if (status >= 0)
    status =
        micah_runner_create(w->job, &w->tasks, &w->graph, w->job->backend, 0, MICA_F32, MICA_PASS_FORWARD, w->chunk,
                            &w->runner);
  if (status >= 0) status = micah_feed_create(&w->tasks, w->chunk, &w->feed);
  if (status < 0) return status;
  int32_t axis = w->tasks.field_axis[w->tasks.target];
  int64_t positions = axis < 0 ? 1 : w->tasks.longest[axis], predictors = e->public.n_predictors;
  w->rows = w->chunk * positions;
  if ((status = micah_runner_hold(w->runner, classes)) < 0) return status;
  w->output = w->runner->output.host;
  w->exact = malloc((size_t)((predictors + 1) * w->rows) * sizeof *w->exact);
  e->by_position = calloc((size_t)((predictors + 2) * positions), sizeof *e->by_position);
  e->exact_sum = calloc((size_t)predictors + 1, sizeof *e->exact_sum);
  e->task_loss = calloc((size_t)n, sizeof *e->task_loss);
  if (!w->exact || !e->by_position || !e->exact_sum || !e->task_loss)
    return mica_error(MICA_ERR_MEMORY, "no memory for an evaluation of %lld tasks", (long long)n);
  if (w->job->family->describe) {
    e->task_name = calloc((size_t)n, sizeof *e->task_name);
    if (!e->task_name) return mica_error(MICA_ERR_MEMORY, "no memory for the names of %lld tasks", (long long)n);
  }
  status = micah_job_weights(w->job, &w->graph, o->weights, MICA_F32, w->runner->params.host, &e->weights,
                             &e->public.step);
  return status < 0 ? status : micah_runner_send_params(w->runner);
}

/* one piece of the chunk's tasks by one predictor */
static mica_status exact_piece(void *arg, int64_t n, int32_t worker) {
  (void)worker;
  work *w = arg;
  int64_t pieces = (w->feed.count + PIECE - 1) / PIECE, first = n % pieces * PIECE, predictor = n / pieces;
  int64_t count = w->feed.count - first < PIECE ? w->feed.count - first : PIECE;
  micah_view view;
  mica_status status = micah_view_create(&w->tasks, count, &view);
  if (status < 0) return status;
  micah_view_set(&view, &w->feed, first, count);
  int32_t axis = w->tasks.field_axis[w->tasks.target];
  int64_t row = axis < 0 ? first : w->feed.offsets[axis][first];
  status = micah_view_exact(&view, w->e->which[predictor], w->exact + predictor * w->rows + row);
  micah_view_destroy(&w->tasks, &view);
  return status;
}

/* is the likeliest class of row r its target? of equal ones the first counts */
static int is_right(const work *w, int64_t r) {
  const float *p = w->output + r * w->tasks.outputs;
  int64_t best = 0;
  for (int64_t c = 1; c < w->tasks.outputs; c++)
    if (p[c] > p[best]) best = c;
  return best == ((const int32_t *)w->runner->view.data[w->tasks.target])[r];
}

/* add the chunk's tasks to the sums, in task order */
static void add_chunk(work *w, double *total, double *weight) {
  evaluation *e = w->e;
  int32_t axis = w->tasks.field_axis[w->tasks.target], n = e->public.n_predictors;
  int64_t stride = axis < 0 ? 1 : w->tasks.longest[axis];
  double *model = e->by_position, *weights = model + stride;
  for (int64_t i = 0; i < w->feed.count; i++) {
    int64_t first, count, position = 0;
    double loss = micah_runner_task_loss(w->runner, i), task_weight = 0;
    micah_view_target(&w->runner->view, i, &first, &count);
    if (!isfinite(loss)) {
      e->public.quarantined++;
      e->task_loss[w->feed.number[i]] = NAN;
      continue;
    }
    for (int64_t r = first; r < first + count; r++) {
      double row = micah_view_weight(&w->runner->view, r);
      if (!(row > 0)) continue;
      model[position] += w->runner->row_loss[r], weights[position] += row;
      if (w->output) e->public.accuracy += row * is_right(w, r);
      for (int32_t p = 0; p < n; p++) {
        double exact = row * w->exact[p * w->rows + r];
        e->by_position[(p + 2) * stride + position] += exact, e->exact_sum[p] += exact;
      }
      task_weight += row, position++;
    }
    if (position > e->public.positions) e->public.positions = position;
    e->task_loss[w->feed.number[i]] = loss / task_weight;
    *total += loss, *weight += task_weight;
  }
}

static mica_status describe_tasks(work *w) {
  evaluation *e = w->e;
  for (int64_t i = 0; e->task_name && i < w->feed.count; i++) {
    char text[256] = "";
    mica_status status = w->job->family->describe(w->tasks.self, w->feed.number[i], text, sizeof text);
    if (status < 0) return status;
    text[sizeof text - 1] = 0;
    if (!(e->task_name[w->feed.number[i]] = micah_copy(text, strlen(text))))
      return mica_error(MICA_ERR_MEMORY, "no memory for the name of a task");
  }
  return MICA_OK;
}

static mica_status run(work *w) {
  evaluation *e = w->e;
  double total = 0, weight = 0;
  mica_status status = MICA_OK;
  for (int64_t at = 0; status >= 0 && at < e->public.tasks; at += w->chunk) {
    int64_t count = e->public.tasks - at < w->chunk ? e->public.tasks - at : w->chunk;
    status = micah_feed_fill(&w->feed, at, count);
    if (status >= 0) status = micah_runner_set(w->runner, &w->feed, 0, count);
    if (status >= 0) status = micah_runner_run(w->runner, MICA_PASS_FORWARD);
    int64_t pieces = (count + PIECE - 1) / PIECE;
    if (status >= 0) status = micah_try_for(w->job->context, pieces * e->public.n_predictors, exact_piece, w);
    if (status >= 0) status = describe_tasks(w);
    if (status >= 0) add_chunk(w, &total, &weight);
  }
  if (status < 0) return status;
  if (!(weight > 0))
    return mica_error(MICA_ERR_NUMERIC, "no test task has a finite loss (%lld tasks)", (long long)e->public.tasks);
  int32_t axis = w->tasks.field_axis[w->tasks.target], n = e->public.n_predictors;
  int64_t stride = axis < 0 ? 1 : w->tasks.longest[axis];
  double *weights = e->by_position + stride;
  for (int32_t row = 0; row < n + 2; row++)
    for (int64_t i = 0; row != 1 && i < e->public.positions; i++) e->by_position[row * stride + i] /= weights[i];
  int classes = w->tasks.fields[w->tasks.target].dtype == MICA_I32;
  e->public.loss = total / weight;
  e->public.accuracy = classes ? e->public.accuracy / weight : NAN;
  e->public.bits = classes ? e->public.loss / M_LN2 : NAN;
  e->public.unit = classes ? "nats" : "squared error";
  e->public.loss_by_position = e->by_position, e->public.weight_by_position = weights;
  for (int32_t p = 0; p < n; p++)
    e->exact[p] = (mica_exact_loss){ e->name[p], e->exact_sum[p] / weight, e->by_position + (p + 2) * stride };
  e->public.predictors = e->exact;
  e->public.exact_loss = n ? e->exact[n - 1].loss : NAN;
  e->public.exact_loss_by_position = n ? e->exact[n - 1].by_position : NULL;
  e->public.exact = n ? e->name[n - 1] : NULL;
  e->public.task_loss = e->task_loss;
  e->public.task_name = (const char *const *)e->task_name;
  e->public.weights = e->weights;
  return MICA_OK;
}

mica_status mica_evaluate(const mica_evaluate_options *options, const mica_evaluation **out) {
  *out = NULL;
  if (!options || options->size != sizeof *options)
    return mica_error(MICA_ERR_INVALID, "mica_evaluate_options.size is %zu, expected %zu", options ? options->size : 0,
                      sizeof *options);
  double start = seconds();
  work w = { 0 };
  w.e = calloc(1, sizeof *w.e);
  if (!w.e) return mica_error(MICA_ERR_MEMORY, "no memory for an evaluation");
  mica_status status = open_work(options, &w);
  if (status >= 0) status = run(&w);
  close_work(&w);
  w.e->public.seconds = seconds() - start;
  if (status < 0) mica_evaluation_destroy(&w.e->public);
  else *out = &w.e->public;
  return status;
}
