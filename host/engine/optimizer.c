#include "host/engine/optimizer.h"

#include <math.h>
#include <string.h>

#include "host/device/context.h"
#include "kernels/optimizer/optimizer.h"

enum { PIECE = 8 * MICAK_OPTIMIZER_BLOCK };

/* stretches of parameters that decay or do not, cut at multiples of a piece */
static mica_status make_runs(const micah_graph *graph, micah_optimizer_run *runs, int64_t *count) {
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
      if (runs) runs[n] = (micah_optimizer_run){ at, end - at, info.decay };
      at = end;
    }
  }
  *count = n;
  return MICA_OK;
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
  size_t bytes = (size_t)o->count * sizeof(float);
  micah_free(c, o->params, bytes);
  micah_free(c, o->m, bytes);
  micah_free(c, o->v, bytes);
  micah_free(c, o->sums, (size_t)o->n_sums * sizeof *o->sums);
  micah_free(c, o->runs, (size_t)o->n_runs * sizeof *o->runs);
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
  const micah_optimizer_run *r = &u->o->runs[i];
  micak_adamw s = u->settings;
  s.decay = r->decay ? u->decay : 0;
  micak_adamw_step(u->isa, &s, r->count, u->gradient + r->first, u->o->m + r->first, u->o->v + r->first,
                   u->o->params + r->first);
}

mica_status micah_optimizer_step(micah_optimizer *o, const float *gradient, double scale, int64_t step, double *norm) {
  const micah_settings *s = &o->job->settings;
  const mica_threads *threads = mica_context_get_threads(o->job->context);
  update u = { o, gradient, { micah_learning_rate(s, step), s->beta1, s->beta2, s->eps, 0, scale, step + 1 },
               s->weight_decay, mica_context_get_isa(o->job->context) };
  threads->parallel_for(threads->user, (o->count + PIECE - 1) / PIECE, norm_piece, &u);
  *norm = scale * sqrt(micak_norm2_tree(o->sums, o->n_sums));
  if (!isfinite(*norm))
    return mica_error(MICA_ERR_NUMERIC, "the gradient's norm is %g though every loss is finite; lower optimizer.lr",
                      *norm);
  if (s->clip > 0 && *norm > s->clip) u.settings.scale *= s->clip / *norm;
  threads->parallel_for(threads->user, o->n_runs, step_run, &u);
  return MICA_OK;
}
