#include "host/engine/optimizer.h"

#include <math.h>
#include <string.h>

#include "host/device/context.h"

enum { PIECE = 8 * MICAK_OPTIMIZER_BLOCK };

/* stretches of parameters that decay or do not, cut at multiples of a piece */
static mica_status make_runs(const micah_graph *graph, micak_stretch *runs, int64_t *count) {
  int64_t n = 0, at = 0;
  int32_t params = micah_graph_n_params(graph);
  for (int32_t i = 0; i < params; i++) {
    mica_value_info info;
    mica_status status = micah_graph_param(graph, i, &info);
    if (status < 0) return status;
    if (info.offset < at)
      return mica_error(MICA_ERR_INTERNAL, "parameter '%s' lies before its predecessor in the block", info.name);
    for (at = info.offset; at < info.offset + info.count; n++) {
      int64_t end = (at / PIECE + 1) * PIECE;
      if (end > info.offset + info.count) end = info.offset + info.count;
      if (runs) runs[n] = (micak_stretch){ at, end - at, info.decay };
      at = end;
    }
  }
  *count = n;
  return MICA_OK;
}

/* ---- parameters that follow averages ---- */

static mica_status make_averages(micah_optimizer *o, const micah_graph *graph) {
  const mica_context *c = o->job->context;
  mica_value next, param;
  while (micah_graph_average(graph, (int32_t)o->n_averages, &next) >= 0) o->n_averages++;
  o->averages = micah_alloc(c, (size_t)(o->n_averages + 1) * sizeof *o->averages, "averaged parameters");
  if (!o->averages) return MICA_ERR_MEMORY;
  for (int32_t i = 0; (param = micah_graph_average(graph, i, &next)) >= 0; i++) {
    mica_value_info info;
    mica_status status = mica_program_info(graph->program, param, &info);
    if (status < 0) return status;
    o->averages[i] = (micak_stretch){ info.offset, info.count, 0 };
    o->n_followed += info.count;
  }
  if (!(o->followed = micah_alloc(c, (size_t)(2 * o->n_followed + 1) * sizeof(float), "averages"))) return MICA_ERR_MEMORY;
  memset(o->followed, 0, (size_t)(2 * o->n_followed + 1) * sizeof(float));
  return MICA_OK;
}

/* the next values out of the gradient, which is zero then */
static mica_status take_averages(micah_optimizer *o, float *const *gradient, double scale) {
  mica_status status = MICA_OK;
  float *next = o->followed;
  const float *zero = o->followed + o->n_followed;
  for (int64_t i = 0; status >= 0 && i < o->n_averages; next += o->averages[i++].count) {
    const micak_stretch *s = &o->averages[i];
    size_t bytes = (size_t)s->count * sizeof(float);
    if (!o->n_copies) {
      memcpy(next, gradient[0] + s->first, bytes);
      memset(gradient[0] + s->first, 0, bytes);
    }
    for (int32_t k = 0; status >= 0 && k < o->n_copies; k++) {
      micah_optimizer_copy *c = &o->copies[k];
      if (k == 0) status = c->device->ops->copy(c->device, c->stream, next, gradient[0] + s->first, bytes);
      if (status >= 0) status = c->device->ops->copy(c->device, c->stream, gradient[k] + s->first, zero, bytes);
    }
  }
  if (status >= 0 && o->n_copies && o->n_averages)
    status = o->copies[0].device->ops->stream_sync(o->copies[0].device, o->copies[0].stream);
  for (int64_t i = 0; status >= 0 && i < o->n_followed; i++) {
    o->followed[i] = (float)(scale * (double)o->followed[i]);
    if (!isfinite(o->followed[i]))
      status = mica_error(MICA_ERR_NUMERIC, "a running average is %g though every loss is finite", (double)o->followed[i]);
  }
  return status;
}

static mica_status put_averages(micah_optimizer *o) {
  mica_status status = MICA_OK;
  const float *next = o->followed;
  for (int64_t i = 0; i < o->n_averages; next += o->averages[i++].count) {
    const micak_stretch *s = &o->averages[i];
    size_t bytes = (size_t)s->count * sizeof(float);
    memcpy(o->params + s->first, next, bytes);
    for (int32_t k = 0; status >= 0 && k < o->n_copies; k++) {
      micah_optimizer_copy *c = &o->copies[k];
      status = c->device->ops->copy(c->device, c->stream, c->params + s->first, next, bytes);
    }
  }
  /* `followed` is written again by the next step */
  for (int32_t k = 0; status >= 0 && o->n_averages && k < o->n_copies; k++)
    status = o->copies[k].device->ops->stream_sync(o->copies[k].device, o->copies[k].stream);
  return status;
}

/* ---- GPUs ---- */

static size_t block_bytes(const micah_optimizer *o) { return (size_t)o->count * sizeof(float); }
static size_t sums_bytes(const micah_optimizer *o) { return (size_t)(o->n_sums + 2) * sizeof(double); }
static size_t runs_bytes(const micah_optimizer *o) { return (size_t)o->n_runs * sizeof(micak_stretch); }

static mica_status make_copy(micah_optimizer *o, int32_t place) {
  micah_optimizer_copy *c = &o->copies[place];
  mica_status status = micah_context_device(o->job->context, MICA_CUDA, place, &c->device);
  if (status < 0) return status;
  o->n_copies = place + 1;
  c->stream = c->device->stream;
  void *memory[5] = { NULL };
  const size_t bytes[5] = { block_bytes(o), block_bytes(o), block_bytes(o), sums_bytes(o), runs_bytes(o) };
  for (int i = 0; status >= 0 && i < 5; i++)
    status = c->device->ops->alloc(c->device, bytes[i], "the optimiser", &memory[i]);
  c->params = memory[0], c->m = memory[1], c->v = memory[2], c->sums = memory[3], c->runs = memory[4];
  if (status >= 0) status = c->device->ops->copy(c->device, c->stream, c->runs, o->runs, runs_bytes(o));
  return status;
}

static void free_copy(micah_optimizer *o, micah_optimizer_copy *c) {
  void *memory[5] = { c->params, c->m, c->v, c->sums, c->runs };
  const size_t bytes[5] = { block_bytes(o), block_bytes(o), block_bytes(o), sums_bytes(o), runs_bytes(o) };
  for (int i = 0; i < 5; i++)
    if (memory[i]) c->device->ops->free(c->device, memory[i], bytes[i]);
}

float *micah_optimizer_params(const micah_optimizer *o, int32_t place) {
  return o->n_copies ? o->copies[place].params : o->params;
}

mica_status micah_optimizer_fetch(micah_optimizer *o) {
  if (!o->n_copies) return MICA_OK;
  micah_optimizer_copy *c = &o->copies[0];
  float *to[3] = { o->params, o->m, o->v }, *from[3] = { c->params, c->m, c->v };
  mica_status status = MICA_OK;
  for (int i = 0; status >= 0 && i < 3; i++)
    status = c->device->ops->copy(c->device, c->stream, to[i], from[i], block_bytes(o));
  return status < 0 ? status : c->device->ops->stream_sync(c->device, c->stream);
}

mica_status micah_optimizer_send(micah_optimizer *o) {
  mica_status status = MICA_OK;
  for (int32_t k = 0; k < o->n_copies; k++) {
    micah_optimizer_copy *c = &o->copies[k];
    float *from[3] = { o->params, o->m, o->v }, *to[3] = { c->params, c->m, c->v };
    for (int i = 0; status >= 0 && i < 3; i++)
      status = c->device->ops->copy(c->device, c->stream, to[i], from[i], block_bytes(o));
    if (status >= 0) status = c->device->ops->stream_sync(c->device, c->stream);
  }
  return status;
}

mica_status micah_optimizer_create(const micah_job *job, const micah_graph *graph, micah_optimizer **out) {
  *out = NULL;
  const mica_context *c = job->context;
  micah_optimizer *o = micah_alloc(c, sizeof *o, "the optimiser");
  if (!o) return MICA_ERR_MEMORY;
  memset(o, 0, sizeof *o);
  o->job = job, o->count = graph->params, o->n_sums = micak_norm2_count(graph->params);
  size_t bytes = (size_t)o->count * sizeof(float);
  int64_t runs = 0;
  mica_status status = make_runs(graph, NULL, &runs);
  if (status >= 0) {
    o->params = micah_alloc(c, bytes, "parameters");
    o->m = micah_alloc(c, bytes, "moments of the optimiser");
    o->v = micah_alloc(c, bytes, "moments of the optimiser");
    o->sums = micah_alloc(c, (size_t)o->n_sums * sizeof *o->sums, "sums of squares");
    o->runs = micah_alloc(c, (size_t)runs * sizeof *o->runs, "groups of parameters");
    o->n_runs = runs;
    if (!o->params || !o->m || !o->v || !o->sums || !o->runs) status = MICA_ERR_MEMORY;
  }
  if (status >= 0) {
    memset(o->params, 0, bytes);
    memset(o->m, 0, bytes);
    memset(o->v, 0, bytes);
    status = make_runs(graph, o->runs, &runs);
  }
  if (status >= 0) status = micah_graph_init(job, graph, MICA_F32, o->params);
  if (status >= 0) status = make_averages(o, graph);
  for (int32_t i = 0; status >= 0 && job->backend == MICA_CUDA && i < job->settings.devices; i++)
    status = make_copy(o, i);
  if (status >= 0) status = micah_optimizer_send(o);
  if (status < 0) {
    micah_optimizer_destroy(o);
    return status;
  }
  *out = o;
  return MICA_OK;
}

void micah_optimizer_destroy(micah_optimizer *o) {
  if (!o) return;
  const mica_context *c = o->job->context;
  size_t bytes = block_bytes(o);
  for (int32_t i = 0; i < o->n_copies; i++) free_copy(o, &o->copies[i]);
  micah_free(c, o->params, bytes);
  micah_free(c, o->m, bytes);
  micah_free(c, o->v, bytes);
  micah_free(c, o->sums, (size_t)o->n_sums * sizeof *o->sums);
  micah_free(c, o->runs, (size_t)o->n_runs * sizeof *o->runs);
  micah_free(c, o->averages, (size_t)(o->n_averages + 1) * sizeof *o->averages);
  micah_free(c, o->followed, (size_t)(2 * o->n_followed + 1) * sizeof(float));
  micah_free(c, o, sizeof *o);
}

typedef struct update {
  micah_optimizer *o;
  const float     *gradient;
  micak_adamw      settings;
  double           decay;
  int              isa;
} update;

static void norm_piece(void *arg, int64_t i, int32_t worker) {
  (void)worker;
  const update *u = arg;
  int64_t first = i * PIECE, count = u->o->count - first < PIECE ? u->o->count - first : PIECE;
  micak_norm2_blocks(u->isa, u->gradient + first, count, u->o->sums + first / MICAK_OPTIMIZER_BLOCK);
}

static void step_run(void *arg, int64_t i, int32_t worker) {
  (void)worker;
  const update *u = arg;
  const micak_stretch *r = &u->o->runs[i];
  micak_adamw s = u->settings;
  s.decay = r->decay ? u->decay : 0;
  micak_adamw_step(u->isa, &s, r->count, u->gradient + r->first, u->o->m + r->first, u->o->v + r->first,
                   u->o->params + r->first);
}

static mica_status check_norm(double norm) {
  if (isfinite(norm)) return MICA_OK;
  return mica_error(MICA_ERR_NUMERIC, "the gradient's norm is %g though every loss is finite; lower optimizer.lr",
                    norm);
}

/* every GPU takes the same norm and makes the same step; one of them tells the norm */
static mica_status step_on_cuda(micah_optimizer *o, float *const *gradient, const micak_adamw *settings, double clip,
                                double *norm) {
#ifdef MICA_HAVE_CUDA
  mica_status status = MICA_OK;
  int64_t longest = 0;
  for (int64_t i = 0; i < o->n_runs; i++)
    if (o->runs[i].count > longest) longest = o->runs[i].count;
  for (int32_t i = 0; i < o->n_copies && status >= 0; i++) {
    micah_optimizer_copy *c = &o->copies[i];
    status = c->device->ops->enter(c->device);
    if (status >= 0) status = micak_norm2_blocks_cuda(c->stream, gradient[i], o->count, c->sums);
    if (status >= 0) status = micak_norm2_tree_cuda(c->stream, c->sums, o->n_sums);
    if (status >= 0) status = micak_clip_cuda(c->stream, c->sums, settings->scale, clip, c->sums + o->n_sums);
  }
  micah_optimizer_copy *first = &o->copies[0];
  if (status >= 0)
    status = first->device->ops->copy(first->device, first->stream, norm, first->sums + o->n_sums, sizeof *norm);
  if (status >= 0) status = first->device->ops->stream_sync(first->device, first->stream);
  if (status >= 0) status = check_norm(*norm);
  for (int32_t i = 0; i < o->n_copies && status >= 0; i++) {
    micah_optimizer_copy *c = &o->copies[i];
    status = c->device->ops->enter(c->device);
    if (status >= 0)
      status = micak_adamw_cuda(c->stream, settings, c->runs, o->n_runs, longest, c->sums + o->n_sums + 1, gradient[i],
                                c->m, c->v, c->params);
  }
  return status;
#else
  (void)o, (void)gradient, (void)settings, (void)clip, (void)norm;
  return mica_error(MICA_ERR_INTERNAL, "no CUDA in this build");
#endif
}

mica_status micah_optimizer_step(micah_optimizer *o, float *const *gradient, double scale, int64_t step,
                                 double *norm) {
  const micah_settings *s = &o->job->settings;
  const mica_threads *threads = mica_context_get_threads(o->job->context);
  update u = { o, gradient[0], { micah_learning_rate(s, step), s->beta1, s->beta2, s->eps, 0, scale, step + 1 },
               s->weight_decay, mica_context_get_isa(o->job->context) };
  mica_status status = take_averages(o, gradient, scale);
  if (status < 0) return status;
  if (o->n_copies) {
    u.settings.decay = u.decay;
    status = step_on_cuda(o, gradient, &u.settings, s->clip, norm);
    return status < 0 ? status : put_averages(o);
  }
  threads->parallel_for(threads->user, (o->count + PIECE - 1) / PIECE, norm_piece, &u);
  *norm = scale * sqrt(micak_norm2_tree(o->sums, o->n_sums));
  status = check_norm(*norm);
  if (status < 0) return status;
  if (s->clip > 0 && *norm > s->clip) u.settings.scale *= s->clip / *norm;
  threads->parallel_for(threads->user, o->n_runs, step_run, &u);
  return put_averages(o);
}
