/* train.c: the step loop. a step's tasks come in grains; each device works on an aligned subtree of them, some grains a
 * launch; their gradients meet in one fixed tree, on the devices first and then across them. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "host/device/context.h"
#include "host/engine/grain.h"
#include "host/engine/producer.h"
#include "host/engine/run_folder.h"
#include "host/engine/runner.h"
#include "mica/adapt.h"

/* one device and its grains [first, end) of every step */
typedef struct part {
  int32_t       place;
  micah_runner *runner;
  micah_tree   *tree;
  int32_t      *slot;                /* (tasks of a launch): its grain's slot */
  int64_t       first, end, grain;   /* grain: first of the launch under way */
} part;

struct mica_trainer {
  micah_job        *job;
  micah_tasks       tasks;
  micah_graph       graph;
  part             *parts;           /* (n_parts): devices; beyond a short step's last grain they have none */
  int32_t           n_parts, active; /* active: those with grains */
  micah_exchange   *exchange;
  micah_optimizer  *optimizer;
  micah_producer   *producer;
  micah_run_folder *folder;          /* NULL: nothing is written */
  micah_progress_state state;
  int64_t           grains, launch;  /* a step's grains; grains a launch */
  double           *task_loss;       /* (batch) sums over rows */
  uint8_t          *keep;            /* (batch) 0: quarantined */
  micah_feed        clean;           /* a launch without its quarantined tasks; made when first needed */
  double           *exact_loss;      /* (rows of a step) */
  int32_t           exact;           /* predictor, -1: none */
  char              exact_name[64];
  int64_t           saved_step;      /* of the newest checkpoint, -1 none */
  int32_t           resumed;
  double            rate_time;       /* for tasks/s */
  int64_t           rate_step;
  double            rate;
  int32_t           exposed;         /* parameters were handed out: they are read and written between steps */
  atomic_int        stop;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- creation ---- */

static mica_status make_runner(mica_trainer *t, int32_t place, int64_t tasks, micah_runner **out) {
  return micah_runner_create(t->job, &t->tasks, &t->graph, t->job->backend, place, MICA_F32,
                             MICA_PASS_FORWARD | MICA_PASS_BACKWARD, tasks, out);
}

/* as many grains a launch as `memory` holds of activations and gradients, at least one, at most a device's. activations
 * grow in proportion to the tasks, so two sizes say it: one grain, and the guess itself. */
static mica_status choose_launch(mica_trainer *t) {
  const micah_settings *s = &t->job->settings;
  int64_t most = t->parts[0].end;
  t->launch = s->launch < most ? s->launch : most;
  if (t->launch) return MICA_OK;
  mica_memory memory;
  micah_runner *one_grain;
  mica_status status = make_runner(t, 0, s->grain, &one_grain);
  if (status < 0) return status;
  status = mica_executor_memory(one_grain->executor, &memory);
  micah_runner_destroy(one_grain);
  if (status < 0) return status;
  int64_t one = memory.saved + memory.scratch + t->graph.params * (int64_t)sizeof(float);
  t->launch = s->memory * 1048576 / (one > 0 ? one : 1);
  if (t->launch > most) t->launch = most;
  if (t->launch < 1) t->launch = 1;
  /* as many launches, but of one size: less memory for the same work */
  int64_t launches = (most + t->launch - 1) / t->launch;
  t->launch = (most + launches - 1) / launches;
  return MICA_OK;
}

/* aligned subtrees of the step's grains, one a device */
static mica_status make_parts(mica_trainer *t) {
  const micah_settings *s = &t->job->settings;
  int32_t n = t->n_parts = (int32_t)s->devices;
  t->parts = micah_alloc(t->job->context, (size_t)n * sizeof *t->parts, "the parts of a step");
  if (!t->parts) return MICA_ERR_MEMORY;
  memset(t->parts, 0, (size_t)n * sizeof *t->parts);
  int64_t leaves = 1;
  while (leaves < t->grains) leaves *= 2;
  for (int32_t i = 0; i < n; i++) {
    part *p = &t->parts[i];
    p->place = i;
    p->first = i * (leaves / n) < t->grains ? i * (leaves / n) : t->grains;
    p->end = (i + 1) * (leaves / n) < t->grains ? (i + 1) * (leaves / n) : t->grains;
    t->active += p->end > p->first;
  }
  mica_status status = choose_launch(t);
  int64_t tasks = t->launch * s->grain < s->batch ? t->launch * s->grain : s->batch;
  void *streams[MICAH_MAX_DEVICES];
  micah_device *devices[MICAH_MAX_DEVICES];
  for (int32_t i = 0; status >= 0 && i < n; i++) {
    part *p = &t->parts[i];
    int64_t grains = p->end > p->first ? p->end - p->first : 1;
    status = make_runner(t, i, tasks, &p->runner);
    if (status < 0) break;
    devices[i] = p->runner->device, streams[i] = p->runner->stream;
    status = micah_tree_create(devices[i], streams[i], t->graph.params, grains, t->launch < grains ? t->launch : grains,
                               &p->tree);
    p->slot = micah_alloc(t->job->context, (size_t)tasks * sizeof *p->slot, "slots of a launch");
    if (status >= 0 && !p->slot) status = MICA_ERR_MEMORY;
  }
  return status < 0 ? status : micah_exchange_create(devices, streams, n, t->graph.params, &t->exchange);
}

static mica_status find_exact(mica_trainer *t) {
  mica_status status = micah_tasks_predictor(&t->tasks, t->job->settings.exact, &t->exact);
  if (status < 0) return micah_config_blame(micah_config_root(t->job->config), "exact", status);
  if (!micah_tasks_predictor_name(&t->tasks, t->exact, t->exact_name, sizeof t->exact_name)) t->exact = -1;
  return MICA_OK;
}

static mica_status allocate(mica_trainer *t) {
  const mica_context *c = t->job->context;
  int64_t batch = t->job->settings.batch;
  int32_t axis = t->tasks.field_axis[t->tasks.target];
  int64_t rows = batch * (axis < 0 ? 1 : t->tasks.longest[axis]);
  t->task_loss = micah_alloc(c, (size_t)batch * sizeof *t->task_loss, "losses of a step");
  t->keep = micah_alloc(c, (size_t)batch, "marks of a step's tasks");
  t->exact_loss = micah_alloc(c, (size_t)rows * sizeof *t->exact_loss, "exact losses of a step");
  return t->task_loss && t->keep && t->exact_loss ? MICA_OK : MICA_ERR_MEMORY;
}

mica_status mica_trainer_create(const mica_source *source, int32_t resume, mica_trainer **out) {
  *out = NULL;
  mica_source from = source ? *source : (mica_source)MICA_SOURCE_INIT;
  if (resume && (!from.run || from.config))
    return mica_error(MICA_ERR_INVALID,
                      "a resumed run takes its configuration from its run folder: give source.run only");
  if (!resume && !from.config)
    return mica_error(MICA_ERR_INVALID, "a new run needs a configuration file: source.config");
  micah_job *job;
  mica_status status = micah_job_open(&from, resume, &job);
  if (status < 0) return status;
  mica_trainer *t = micah_alloc(job->context, sizeof *t, "a trainer");
  if (!t) {
    micah_job_close(job);
    return MICA_ERR_MEMORY;
  }
  memset(t, 0, sizeof *t);
  t->job = job, t->saved_step = -1, t->resumed = resume;
  atomic_init(&t->stop, 0);
  const micah_settings *s = &job->settings;
  t->grains = (s->batch + s->grain - 1) / s->grain;
  status = micah_job_tasks(job, MICA_SPLIT_TRAIN, &t->tasks);
  if (status >= 0) status = find_exact(t);
  if (status >= 0) status = micah_job_graph(job, &t->tasks, MICAH_OUT_LOSS | MICAH_AVERAGES, &t->graph);
  if (status >= 0) status = make_parts(t);
  if (status >= 0) status = micah_optimizer_create(job, &t->graph, &t->optimizer);
  if (status >= 0) status = allocate(t);
  /* nothing is written before all is known to fit together */
  if (status >= 0 && job->run) status = micah_run_folder_open(job, resume, &t->folder);
  if (status >= 0 && resume) {
    status = micah_run_folder_load(t->folder, &t->graph, t->optimizer, &t->state);
    if (status >= 0 && t->state.step > s->steps)
      status = mica_error(MICA_ERR_FORMAT, "%s: the checkpoint is at step %lld of %lld", job->run,
                          (long long)t->state.step, (long long)s->steps);
    if (t->state.step > 0) t->saved_step = t->state.step;
    if (status >= 0) status = micah_optimizer_send(t->optimizer);
  }
  if (status >= 0 && t->folder)
    status = micah_run_folder_save_weights(t->folder, &t->graph, t->optimizer, t->state.step);
  if (status >= 0 && t->state.step < s->steps)
    status = micah_producer_create(&t->tasks, s->batch, t->state.step, s->steps, &t->producer);
  if (status < 0) {
    mica_trainer_destroy(t);
    return status;
  }
  t->rate_step = t->state.step;
  *out = t;
  return MICA_OK;
}

/* nothing reads the memory of this step any more; also after a failure */
static void drain(mica_trainer *t) {
  for (int32_t i = 0; t->parts && i < t->n_parts; i++)
    if (t->parts[i].runner)
      (void)t->parts[i].runner->device->ops->stream_sync(t->parts[i].runner->device, t->parts[i].runner->stream);
}

void mica_trainer_destroy(mica_trainer *t) {
  if (!t) return;
  drain(t);
  micah_job *job = t->job;
  const mica_context *c = job->context;
  int64_t batch = job->settings.batch;
  micah_producer_destroy(t->producer);
  micah_run_folder_close(t->folder);
  if (t->clean.tasks) micah_feed_destroy(&t->clean);
  if (t->exact_loss) {
    int32_t axis = t->tasks.field_axis[t->tasks.target];
    micah_free(c, t->exact_loss, (size_t)(batch * (axis < 0 ? 1 : t->tasks.longest[axis])) * sizeof *t->exact_loss);
  }
  micah_free(c, t->keep, (size_t)batch);
  micah_free(c, t->task_loss, (size_t)batch * sizeof *t->task_loss);
  micah_optimizer_destroy(t->optimizer);
  micah_exchange_destroy(t->exchange);
  for (int32_t i = 0; t->parts && i < t->n_parts; i++) {
    part *p = &t->parts[i];
    if (p->slot) micah_free(c, p->slot, (size_t)p->runner->capacity * sizeof *p->slot);
    micah_tree_destroy(p->tree);
    micah_runner_destroy(p->runner);
  }
  micah_free(c, t->parts, (size_t)t->n_parts * sizeof *t->parts);
  micah_graph_destroy(&t->graph);
  micah_tasks_close(&t->tasks);
  micah_free(c, t, sizeof *t);
  micah_job_close(job);
}

/* ---- one step ---- */

/* start on the tasks of a feed's range, whose grain in the launch is slot[i] */
static mica_status start_tasks(mica_trainer *t, part *p, const micah_feed *feed, int64_t first, int64_t count,
                               double seed) {
  micah_runner *r = p->runner;
  mica_status status = micah_runner_set(r, feed, first, count);
  if (status >= 0) status = micah_runner_seed(r, seed);
  if (status >= 0)
    status = mica_executor_set_params(r->executor, MICA_V, micah_optimizer_params(t->optimizer, p->place), 0, NULL, 0);
  if (status >= 0)
    status = mica_executor_set_params(r->executor, MICA_D, micah_tree_slots(p->tree), micah_tree_stride(p->tree),
                                      p->slot, 0);
  return status < 0 ? status : micah_runner_start(r, MICA_PASS_FORWARD | MICA_PASS_BACKWARD);
}

static mica_status finish_tasks(part *p, int64_t count, double *loss) {
  mica_status status = micah_runner_wait(p->runner);
  for (int64_t i = 0; status >= 0 && i < count; i++) loss[i] = micah_runner_task_loss(p->runner, i);
  return status;
}

/* leave out tasks whose loss is not finite and run the rest of the launch again: a task alone gives the bits that it
 * gives among others, so the rest is what it would have been without them. */
static mica_status quarantine(mica_trainer *t, part *p, const micah_feed *feed, int64_t first, int64_t count,
                              int64_t grains, double seed) {
  const micah_settings *s = &t->job->settings;
  mica_status status = MICA_OK;
  if (!t->clean.tasks) status = micah_feed_create(&t->tasks, p->runner->capacity, &t->clean);
  int64_t left = 0;
  for (int64_t i = first; status >= 0 && i < first + count; i++) {
    if (isfinite(t->task_loss[i])) {
      left++;
      continue;
    }
    mica_log(t->job->context, MICA_LOG_WARN, "step %lld: task %lld of family %s, seed %lld, has loss %g: left out",
             (long long)t->state.step + 1, (long long)feed->number[i], t->job->family->name, (long long)s->seed,
             t->task_loss[i]);
    t->keep[i] = 0, t->state.quarantined++;
  }
  /* select works on the whole feed: hide the other launches' tasks for the moment */
  uint8_t *mask = micah_alloc(t->job->context, (size_t)feed->count, "marks of a launch");
  if (!mask) return MICA_ERR_MEMORY;
  memset(mask, 0, (size_t)feed->count);
  memcpy(mask + first, t->keep + first, (size_t)count);
  if (status >= 0) status = micah_feed_select(&t->clean, feed, mask);
  micah_free(t->job->context, mask, (size_t)feed->count);
  for (int64_t g = 0; status >= 0 && g < grains; g++) status = micah_tree_clear(p->tree, g);
  if (status < 0) return status;
  for (int64_t i = first, n = 0; i < first + count; i++)
    if (t->keep[i]) p->slot[n++] = (int32_t)((i - first) / s->grain);
  if (!left) return MICA_OK;
  double *again = micah_alloc(t->job->context, (size_t)left * sizeof *again, "losses of a launch");
  if (!again) return MICA_ERR_MEMORY;
  status = start_tasks(t, p, &t->clean, 0, left, seed);
  if (status >= 0) status = finish_tasks(p, left, again);
  for (int64_t i = first, n = 0; status >= 0 && i < first + count; i++)
    if (t->keep[i]) t->task_loss[i] = again[n++];
  micah_free(t->job->context, again, (size_t)left * sizeof *again);
  return status;
}

/* tasks of the grains [p->grain, p->grain + n) */
static int64_t launch_tasks(const mica_trainer *t, const part *p, const micah_feed *feed, int64_t *first,
                            int64_t *grains) {
  int64_t grain = t->job->settings.grain;
  *grains = t->launch < p->end - p->grain ? t->launch : p->end - p->grain;
  *first = p->grain * grain;
  int64_t count = *grains * grain;
  return count < feed->count - *first ? count : feed->count - *first;
}

/* the next launch of every device that has grains left: all are started before the first is waited for */
static mica_status run_round(mica_trainer *t, const micah_feed *feed, double seed, int *more) {
  const micah_settings *s = &t->job->settings;
  mica_status status = MICA_OK;
  int64_t first, grains;
  *more = 0;
  for (int32_t k = 0; status >= 0 && k < t->active; k++) {
    part *p = &t->parts[k];
    if (p->grain >= p->end) continue;
    int64_t count = launch_tasks(t, p, feed, &first, &grains);
    for (int64_t i = 0; i < count; i++) p->slot[i] = (int32_t)(i / s->grain);
    status = start_tasks(t, p, feed, first, count, seed);
  }
  for (int32_t k = 0; status >= 0 && k < t->active; k++) {
    part *p = &t->parts[k];
    if (p->grain >= p->end) continue;
    int64_t count = launch_tasks(t, p, feed, &first, &grains);
    status = finish_tasks(p, count, t->task_loss + first);
    int finite = 1;
    for (int64_t i = first; i < first + count; i++) finite &= isfinite(t->task_loss[i]) != 0;
    if (status >= 0 && !finite) status = quarantine(t, p, feed, first, count, grains, seed);
    if (status >= 0) status = micah_tree_push(p->tree, grains, p->grain + grains == p->end);
    p->grain += grains;
    *more |= p->grain < p->end;
  }
  return status;
}

/* the gradients of all grains, on every device */
static mica_status run_grains(mica_trainer *t, const micah_feed *feed, double seed, float **gradient) {
  mica_status status = MICA_OK;
  int more = 1;
  for (int32_t k = 0; k < t->n_parts; k++) {
    micah_tree_reset(t->parts[k].tree);
    t->parts[k].grain = t->parts[k].first;
  }
  while (status >= 0 && more) status = run_round(t, feed, seed, &more);
  for (int32_t k = 0; status >= 0 && k < t->n_parts; k++) {
    gradient[k] = micah_tree_slots(t->parts[k].tree);
    if (k < t->active) status = micah_tree_finish(t->parts[k].tree, &gradient[k]);
  }
  return status < 0 ? status : micah_exchange_sum(t->exchange, gradient, t->active);
}

/* sum of losses and weights over the tasks that count, in task order */
static void sum_step(const mica_trainer *t, const micah_feed *feed, double *loss, double *weight, int64_t *tasks) {
  int32_t axis = t->tasks.field_axis[t->tasks.target];
  const float *w = t->tasks.weight < 0 ? NULL : feed->data[t->tasks.weight];
  *loss = *weight = 0, *tasks = 0;
  for (int64_t i = 0; i < feed->count; i++) {
    if (!t->keep[i]) continue;
    int64_t from = axis < 0 ? i : feed->offsets[axis][i], to = axis < 0 ? i + 1 : feed->offsets[axis][i + 1];
    double sum = 0;
    for (int64_t r = from; r < to; r++) sum += w ? (double)w[r] : 1;
    *loss += t->task_loss[i], *weight += sum, *tasks += 1;
  }
}

/* ---- the exact predictor on the step's tasks, a grain a piece ---- */

typedef struct exact_job {
  mica_trainer     *t;
  const micah_feed *feed;
  double           *loss;            /* (grains) sums */
} exact_job;

static mica_status exact_grain(void *arg, int64_t g, int32_t worker) {
  (void)worker;
  exact_job *e = arg;
  mica_trainer *t = e->t;
  const micah_tasks *k = &t->tasks;
  int64_t first = g * t->job->settings.grain, count = t->job->settings.grain;
  if (count > e->feed->count - first) count = e->feed->count - first;
  micah_view view;
  mica_status status = micah_view_create(k, count, &view);
  if (status < 0) return status;
  micah_view_set(&view, e->feed, first, count);
  int32_t axis = k->field_axis[k->target];
  int64_t row = axis < 0 ? first : e->feed->offsets[axis][first];
  status = micah_view_exact(&view, t->exact, t->exact_loss + row);
  double sum = 0;
  for (int64_t i = 0, n = micah_view_rows(&view, axis); status >= 0 && i < n; i++)
    sum += micah_view_weight(&view, i) * t->exact_loss[row + i];
  e->loss[g] = sum;
  micah_view_destroy(k, &view);
  return status;
}

static mica_status exact_step(mica_trainer *t, const micah_feed *feed, double *out) {
  double *sums = micah_alloc(t->job->context, (size_t)t->grains * sizeof *sums, "exact losses");
  if (!sums) return MICA_ERR_MEMORY;
  exact_job e = { t, feed, sums };
  mica_status status = micah_try_for(t->job->context, t->grains, exact_grain, &e);
  double sum = 0;
  for (int64_t g = 0; g < t->grains; g++) sum += sums[g];
  *out = sum / feed->weight;
  micah_free(t->job->context, sums, (size_t)t->grains * sizeof *sums);
  return status;
}

static mica_status compute_step(mica_trainer *t, const micah_feed *feed, mica_progress *p) {
  const micah_settings *s = &t->job->settings;
  memset(t->keep, 1, (size_t)feed->count);
  if (!(feed->weight > 0))
    return mica_error(MICA_ERR_NUMERIC,
                      "step %lld: the weights of the %lld tasks from number %lld on add up to %g, expected a "
                      "positive number",
                      (long long)t->state.step + 1, (long long)feed->count, (long long)feed->first, feed->weight);
  float *gradient[MICAH_MAX_DEVICES];
  mica_status status = MICA_OK;
  if (t->exposed) status = micah_optimizer_send(t->optimizer);
  if (status >= 0) status = run_grains(t, feed, 1 / feed->weight, gradient);
  if (status < 0) return status;
  double loss, weight;
  int64_t tasks;
  sum_step(t, feed, &loss, &weight, &tasks);
  if (!tasks || !(weight > 0))
    return mica_error(MICA_ERR_NUMERIC,
                      "step %lld: no task has a finite loss, so training has diverged; lower optimizer.lr, or "
                      "look at task %lld (seed %lld)",
                      (long long)t->state.step + 1, (long long)feed->first, (long long)s->seed);
  p->loss = loss / weight;
  p->lr = micah_learning_rate(s, t->state.step);
  /* the seeds were divided by the weight of all tasks: 1 unless some were left out */
  status = micah_optimizer_step(t->optimizer, gradient, feed->weight / weight, t->state.step, &p->grad_norm);
  if (status >= 0 && t->exposed) status = micah_optimizer_fetch(t->optimizer);
  if (status < 0) {
    char cause[900];
    snprintf(cause, sizeof cause, "%s", mica_last_error());
    return mica_error(status, "step %lld: %s", (long long)t->state.step + 1, cause);
  }
  p->exact = p->excess = NAN;
  int64_t done = t->state.step + 1;
  if (t->exact >= 0 && tasks == feed->count && (done % s->log_every == 0 || done == 1 || done == s->steps)) {
    status = exact_step(t, feed, &p->exact);
    p->excess = p->loss - p->exact;
  }
  return status;
}

static void measure(mica_trainer *t, double start, mica_progress *p) {
  const micah_settings *s = &t->job->settings;
  double end = now();
  t->state.seconds += end - start;
  /* a rate over at least a quarter of a second, so that it can be read */
  if (t->rate_time == 0) t->rate_time = start, t->rate_step = t->state.step - 1;
  if (end - t->rate_time > 0.25 || t->rate == 0) {
    t->rate =
        (double)((t->state.step - t->rate_step) * s->batch) / (end - t->rate_time > 1e-9 ? end - t->rate_time : 1e-9);
    t->rate_time = end, t->rate_step = t->state.step;
  }
  p->step = t->state.step, p->steps = s->steps;
  p->seconds = t->state.seconds, p->tasks_per_s = t->rate, p->quarantined = t->state.quarantined;
  p->eta = (double)((s->steps - t->state.step) * s->batch) / t->rate;
}

mica_status mica_trainer_step(mica_trainer *t, mica_progress *progress) {
  const micah_settings *s = &t->job->settings;
  if (t->state.step >= s->steps)
    return mica_error(MICA_ERR_STATE, "all %lld steps are done", (long long)s->steps);
  if (!t->producer) return mica_error(MICA_ERR_STATE, "training failed before; resume it from its run folder");
  double start = now();
  const micah_feed *feed;
  mica_progress p = { 0 };
  mica_status status = micah_producer_next(t->producer, &feed);
  if (status >= 0) status = compute_step(t, feed, &p);
  if (status < 0) {
    /* half a step may have been done: no step follows it */
    char message[1024];
    snprintf(message, sizeof message, "%s", mica_last_error());
    drain(t);
    micah_producer_destroy(t->producer);
    t->producer = NULL;
    return mica_error(status, "%s", message);
  }
  t->state.step++;
  measure(t, start, &p);
  if (t->folder) status = micah_run_folder_log(t->folder, &p);
  if (status >= 0 && t->folder &&
      (t->state.step == s->steps || (s->checkpoint_every && t->state.step % s->checkpoint_every == 0)))
    status = mica_trainer_save(t);
  if (progress) *progress = p;
  return status;
}

mica_status mica_trainer_run(mica_trainer *t, mica_progress_fn fn, void *user) {
  mica_status status = MICA_OK;
  while (status >= 0 && t->state.step < t->job->settings.steps) {
    if (atomic_load(&t->stop)) {
      if (t->folder && t->saved_step != t->state.step) status = mica_trainer_save(t);
      if (status < 0) return status;
      return mica_error(MICA_ERR_INTERRUPTED, "stopped after step %lld of %lld", (long long)t->state.step,
                        (long long)t->job->settings.steps);
    }
    mica_progress p;
    status = mica_trainer_step(t, &p);
    if (status >= 0 && fn) fn(user, &p);
  }
  return status;
}

void mica_trainer_stop(mica_trainer *t) { atomic_store(&t->stop, 1); }

mica_status mica_trainer_save(mica_trainer *t) {
  if (!t->folder) return mica_error(MICA_ERR_STATE, "this training has no run folder to save to");
  mica_status status = micah_optimizer_fetch(t->optimizer);
  if (status >= 0) status = micah_run_folder_save(t->folder, &t->graph, t->optimizer, &t->state);
  if (status >= 0) t->saved_step = t->state.step;
  return status;
}

/* ---- looking ---- */

mica_status mica_trainer_get_info(const mica_trainer *t, mica_trainer_info *out) {
  const micah_settings *s = &t->job->settings;
  mica_memory memory;
  mica_status status = mica_executor_memory(t->parts[0].runner->executor, &memory);
  if (status < 0) return status;
  const char *inner = NULL;
  if (s->inner.steps > 0 && (status = mica_adapt_get_path(t->parts[0].runner->executor, 0, &inner)) < 0) return status;
  *out = (mica_trainer_info){
    .step = t->state.step, .steps = s->steps, .tasks_per_step = s->batch, .grain = s->grain,
    .grains_per_launch = t->launch, .params = t->graph.params, .activation_bytes = memory.scratch + memory.saved,
    .peak_bytes = memory.peak,
    .gradient_bytes = micah_tree_bytes(t->parts[0].tree) + micah_exchange_bytes(t->exchange) / t->n_parts,
    .state_bytes = 3 * t->graph.params * (int64_t)sizeof(float),
    .threads = mica_context_get_threads(t->job->context)->workers,
    .finished = t->state.step >= s->steps, .resumed = t->resumed,
    .family = t->job->family->name, .model = t->job->model->name, .loss = t->job->loss->name,
    .exact = t->exact < 0 ? NULL : t->exact_name, .run = t->job->run, .inner = inner };
  return MICA_OK;
}

mica_context       *mica_trainer_get_context(mica_trainer *t) { return t->job->context; }
const mica_program *mica_trainer_get_program(const mica_trainer *t) { return t->graph.program; }
float *mica_trainer_get_params(mica_trainer *t) {
  if (t->optimizer->n_copies && !t->exposed && micah_optimizer_fetch(t->optimizer) >= 0) t->exposed = 1;
  return t->optimizer->params;
}

mica_status mica_trainer_profile(mica_trainer *t, int32_t enable, mica_profile_fn fn, void *user) {
  return mica_executor_profile(t->parts[0].runner->executor, enable, fn, user);
}
