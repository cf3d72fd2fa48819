/* running passes: group by group, chains tile by tile, everything through the context's parallel_for */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "program/executor.h"
#include "program/inner.h"
#include "program/memory.h"

typedef struct job {
  mica_executor *x;
  micah_step   **steps;
  int32_t        n;
  int64_t        units, piece;
  atomic_int     failed;
  mica_status    status;
  char           message[512];
} job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* one call of a kernel; 0 when it failed */
static int call(job *j, micah_step *step, mica_kernel_fn run, int64_t first, int64_t count, int32_t worker) {
  mica_executor *x = j->x;
  micak_exec exec = { x->exec[worker], step->shared };
  exec.exec.size = sizeof exec;
  double start = x->profile ? now() : 0;
  const void *args = step->n_local ? micah_local_args(x, step, first, worker) : x->args[step->entry];
  mica_status status = run(&exec.exec, args, first, count);
  if (x->profile && x->backend != MICA_CUDA) x->times[(int64_t)worker * x->n_steps + (step - x->steps)] += now() - start;
  if (status >= 0) return 1;
  if (!atomic_exchange(&j->failed, 1)) {
    j->status = status;
    snprintf(j->message, sizeof j->message, "program %s: %s %s: %s", x->program->name,
             x->program->entries[step->entry].path, mica_face_name(step->face), mica_last_error());
  }
  return 0;
}

static void run_piece(void *arg, int64_t i, int32_t worker) {
  job *j = arg;
  if (atomic_load_explicit(&j->failed, memory_order_relaxed)) return;
  int64_t first = i * j->piece, count = j->units - first < j->piece ? j->units - first : j->piece;
  for (int32_t s = 0; s < j->n; s++) {
    if (j->x->profile && i == 0) j->steps[s]->calls++;
    if (!call(j, j->steps[s], j->steps[s]->kernel->run, first, count, worker)) return;
  }
}

/* units of all steps' prepare in a row */
static void prepare_unit(void *arg, int64_t i, int32_t worker) {
  job *j = arg;
  if (atomic_load_explicit(&j->failed, memory_order_relaxed)) return;
  for (int32_t s = 0; s < j->n; s++) {
    micah_step *step = j->steps[s];
    if (!step->shared) continue;
    if (i < step->need.units) {
      call(j, step, step->prepare->prepare, i, 1, worker);
      return;
    }
    i -= step->need.units;
  }
}

static mica_status run_job(job *j, int64_t pieces, mica_body body) {
  const mica_threads *threads = mica_context_get_threads(j->x->context);
  atomic_init(&j->failed, 0);
  if (pieces == 1 || j->x->workers == 1 || !threads->parallel_for)
    for (int64_t i = 0; i < pieces; i++) body(j, i, 0);
  else threads->parallel_for(threads->user, pieces, body, j);
  return atomic_load(&j->failed) ? mica_error(j->status, "%s", j->message) : MICA_OK;
}

static mica_status run_steps(mica_executor *x, micah_step **steps, int32_t n, int64_t units, int64_t piece) {
  if (units < 1) return MICA_OK;
  job j = { .x = x, .steps = steps, .n = n, .units = units, .piece = piece };
  int64_t pieces = (units + piece - 1) / piece, prepare = 0;
  /* what fits of what was planned; inputs may turn out to be shared that were not when the plan was made */
  size_t used = 0;
  for (int32_t s = 0; s < n; s++) {
    size_t bytes = micah_shared_bytes(steps[s]);
    int there = steps[s]->need.units > 0 && pieces > 1 && used + bytes <= x->shared_bytes;
    steps[s]->shared = there ? x->shared + used : NULL;
    if (!there) continue;
    used += bytes;
    prepare += steps[s]->need.units;
  }
  if (prepare) {
    mica_status status = run_job(&j, prepare, prepare_unit);
    if (status < 0) return status;
  }
  return run_job(&j, pieces, run_piece);
}

/* a piece near `piece` such that no worker is left idle at the end of a short list of them */
static int64_t even_piece(const mica_executor *x, int64_t units, int64_t piece) {
  int64_t pieces = (units + piece - 1) / piece, workers = x->workers;
  if (pieces < 2 || pieces >= 4 * workers) return piece;
  pieces = (pieces + workers - 1) / workers * workers;
  return (units + pieces - 1) / pieces;
}

/* one phase on a device's stream */
static mica_status run_launch(mica_executor *x, micah_step *step) {
  void *events[2] = { NULL, NULL };
  const micah_device_ops *ops = x->device->ops;
  mica_status status = MICA_OK;
  /* a profile is of one launch at a time, each waited for */
  for (int i = 0; x->profile && i < 2 && status >= 0; i++) status = ops->event_create(x->device, &events[i]);
  if (status >= 0 && x->profile) status = ops->event_record(x->device, events[0], x->stream);
  if (status >= 0) status = run_steps(x, &step, 1, step->split.units, step->split.units);
  if (status >= 0 && x->profile) {
    double seconds;
    status = ops->event_record(x->device, events[1], x->stream);
    if (status >= 0) status = ops->event_sync(x->device, events[1]);
    if (status >= 0) status = ops->event_elapsed(x->device, events[0], events[1], &seconds);
    if (status >= 0) x->times[step - x->steps] = x->times[step - x->steps] + seconds;
  }
  for (int i = 0; i < 2; i++)
    if (events[i]) ops->event_destroy(x->device, events[i]);
  return status;
}

/* one phase alone: any cut of its units gives the same bits */
static mica_status run_alone(mica_executor *x, micah_step *step) {
  if (!step->kernel) {
    double start = x->profile ? now() : 0;
    mica_status status = x->program->entries[step->entry].inner->run(x, step->entry, step->face);
    if (x->profile) {
      x->times[step - x->steps] += now() - start;
      step->calls++;
    }
    return status;
  }
  if (x->backend == MICA_CUDA) return run_launch(x, step);
  int64_t grain = step->split.grain, units = step->split.units;
  int64_t pieces = (units + grain - 1) / grain, most = 8 * (int64_t)x->workers;
  int64_t piece = pieces <= most ? grain : ((units + most - 1) / most + grain - 1) / grain * grain;
  return run_steps(x, &step, 1, units, even_piece(x, units, piece > 0 ? piece : 1));
}

/* a face and its tangent by one kernel; a profile counts it for the face */
static mica_status run_fused(mica_executor *x, micah_step *step) {
  const micah_step alone = *step;
  step->kernel = step->fused, step->split = step->both;
  step->prepare = NULL, step->need = (micak_need){ 0, 0 };
  mica_status status = run_alone(x, step);
  step->kernel = alone.kernel, step->split = alone.split;
  step->prepare = alone.prepare, step->need = alone.need;
  return status;
}
/* does the next step run, too, and is there a kernel of both? */
static int is_fused(micah_step *const *list, int32_t i, int32_t n) {
  return list[i]->fused && i + 1 < n && list[i + 1] == list[i] + 1 && list[i]->both.units > 0;
}

/* are this phase's units the rows of its row space, now? */
static int64_t chain_rows(const mica_executor *x, const micah_step *step) {
  const micah_entry *entry = &x->program->entries[step->entry];
  if (!step->kernel || !step->split.rows || !step->rows) return -1;
  int64_t rows = micah_rows(x, entry->row_axis) * entry->row_count;
  return step->split.units == rows ? rows : -1;
}

/* the face that decides whether a step runs */
static int as_part_of(const micah_step *step) {
  return !step->again ? step->face : step->face == MICA_FORWARD ? MICA_BACKWARD : MICA_BACKWARD_JVP;
}

static mica_status run_group(mica_executor *x, const micah_group *group, int32_t faces) {
  micah_step **list = x->list;
  int32_t n = 0;
  for (int32_t s = group->first; s < group->first + group->count; s++)
    if (x->steps[s].on && x->steps[s].split.units > 0 && (faces >> as_part_of(&x->steps[s]) & 1))
      list[n++] = &x->steps[s];
  for (int32_t i = 0; i < n;) {
    int64_t rows = chain_rows(x, list[i]);
    int32_t end = i + 1;
    mica_status status;
    if (is_fused(list, i, n)) status = run_fused(x, list[i]), end++;
    else if (rows < 0 && !group->local_rows) status = run_alone(x, list[i]);
    else {
      int64_t grain = list[i]->split.grain;
      for (; end < n && chain_rows(x, list[end]) == rows; end++)
        if (list[end]->split.grain > grain) grain = list[end]->split.grain;
      /* tiles by shape, not by threads; short passes are cut finer so that every thread gets some */
      int64_t tile = group->tile, fair = (rows / 16 + 15) / 16 * 16;
      if (end == i + 1) tile = tile < grain ? grain : tile / grain * grain;
      if (tile > fair) tile = fair;
      if (tile < grain) tile = grain;
      if (group->local_rows && (rows < 0 || i > 0 || end < n)) /* certain() knew better */
        return mica_error(MICA_ERR_INTERNAL, "program %s: a chain with values of its own is cut at %s", x->program->name,
                          x->program->entries[list[end < n ? end : i]->entry].path);
      if (group->local_rows && tile > group->local_rows) tile = group->local_rows;
      status = run_steps(x, list + i, end - i, rows, even_piece(x, rows, tile > 0 ? tile : 1));
    }
    if (status < 0) return status;
    i = end;
  }
  return MICA_OK;
}

static mica_status run_groups(mica_executor *x, int32_t faces) {
  int32_t clear = 0;
  for (int32_t g = 0; g < x->n_groups; g++) {
    for (; clear < x->n_clears && x->stores[x->clears[clear]].first <= g; clear++) {
      int face = x->clears[clear] % MICAH_WIRES == micah_wire_index(MICA_D) ? MICA_BACKWARD : MICA_BACKWARD_JVP;
      if (!(faces >> face & 1)) continue;
      mica_status status = micah_clear(x, x->clears[clear]);
      if (status < 0) return status;
    }
    mica_status status = run_group(x, &x->groups[g], faces);
    if (status < 0) return status;
  }
  return MICA_OK;
}

/* on a device: replayed where it can be, else launched. an outer capture takes plain launches */
static mica_status run_on_device(mica_executor *x, int32_t faces, int captured) {
  int done = 0;
  mica_status status = captured ? MICA_OK : micah_graph_run(x, faces, run_groups, &done);
  if (status >= 0 && !done) status = run_groups(x, faces);
  if (status == MICA_ERR_DEVICE && !captured) {
    char cause[512];
    snprintf(cause, sizeof cause, "%s", mica_last_error());
    (void)x->device->ops->check(x->device);  /* does the device still live? */
    return mica_error(status, "%s", cause);
  }
  return status;
}

mica_status mica_executor_run(mica_executor *x, int32_t passes, void *saved) {
  if (!x) return mica_error(MICA_ERR_INVALID, "mica_executor_run: no executor");
  const char *name = x->program->name;
  if (!passes || (passes & ~x->passes))
    return mica_error(MICA_ERR_INVALID, "executor of %s: passes %d asked for, it was made for %d", name, passes,
                      x->passes);
  int32_t needs = passes & MICA_PASS_BACKWARD_JVP ? 7 : passes & ~MICA_PASS_FORWARD ? MICA_PASS_FORWARD : 0;
  if (x->fused && (passes & needs) != needs)
    return mica_error(MICA_ERR_STATE, "executor of %s is fused: passes %d need passes %d in the same run", name, passes,
                      needs);
  if (!x->fused && x->saved_bytes && !saved)
    return mica_error(MICA_ERR_INVALID, "executor of %s is not fused: run needs %lld bytes of saved memory", name,
                      (long long)x->saved_bytes);
  if ((uintptr_t)saved % 64)
    return mica_error(MICA_ERR_INVALID, "executor of %s: saved memory must be 64-byte aligned", name);
  int captured = 0;
  mica_status ready = x->device->ops->enter(x->device);
  if (ready >= 0 && x->backend == MICA_CUDA) ready = x->device->ops->capturing(x->device, x->stream, &captured);
  if (ready < 0) return ready;
  if (captured && !x->graphs)
    return mica_error(MICA_ERR_UNSUPPORTED, "executor of %s: its entries that run programs of their own (scan, grad, "
                      "adapt) cannot be captured", name);
  if (x->dirty || x->saved != (char *)saved) {
    x->saved = saved;
    x->dirty = 1;
    mica_status status = micah_bind_all(x);
    if (status >= 0) status = micah_upload_end(x, captured);
    if (status < 0) return status;
    x->dirty = 0;
  }
  int32_t faces = (passes & MICA_PASS_FORWARD ? 1 << MICA_FORWARD : 0) | (passes & MICA_PASS_JVP ? 1 << MICA_JVP : 0) |
                  (passes & MICA_PASS_BACKWARD ? 1 << MICA_BACKWARD : 0) |
                  (passes & MICA_PASS_BACKWARD_JVP ? 1 << MICA_BACKWARD_JVP : 0);
  x->running = faces;
  return x->backend == MICA_CUDA ? run_on_device(x, faces, captured) : run_groups(x, faces);
}

mica_status mica_executor_profile(mica_executor *x, int32_t enable, mica_profile_fn fn, void *user) {
  if (!x) return mica_error(MICA_ERR_INVALID, "mica_executor_profile: no executor");
  int64_t n = (int64_t)x->workers * x->n_steps;
  if (enable && !x->times && !(x->times = micah_region_alloc(&x->region, n, sizeof *x->times))) return MICA_ERR_MEMORY;
  for (int32_t e = 0; fn && x->times && e < x->program->n_entries; e++)
    for (int face = 0; face < MICA_NFACE; face++) {
      double seconds = 0;
      int64_t calls = 0;
      for (int32_t s = 0; s < x->n_steps; s++) {
        if (x->steps[s].entry != e || x->steps[s].face != face) continue;
        for (int32_t w = 0; w < x->workers; w++) seconds += x->times[(int64_t)w * x->n_steps + s];
        if (x->steps[s].calls > calls) calls = x->steps[s].calls;  /* phases of one call */
      }
      if (calls) fn(user, x->program->entries[e].path, x->program->entries[e].op->name, face, seconds, calls);
    }
  if (x->times) memset(x->times, 0, (size_t)n * sizeof *x->times);
  for (int32_t s = 0; s < x->n_steps; s++) x->steps[s].calls = 0;
  x->profile = !!enable;
  return MICA_OK;
}
