#include "host/engine/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "host/io/file.h"
#include "host/io/json.h"

static const char pattern[] = "step_%08lld.safetensors";

static mica_status no_memory(void) { return mica_error(MICA_ERR_MEMORY, "no memory for the run folder"); }

/* ---- opening ---- */

/* two trainers in one folder would mix their files. the kernel drops the lock with the process, however it ends; the file
 * stays, for one that is deleted could be locked twice. */
static mica_status lock_folder(micah_run_folder *f) {
  char *path = micah_path_join(f->path, "lock");
  if (!path) return no_memory();
  mica_status status = MICA_OK;
  f->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (f->lock < 0) status = mica_error(MICA_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
  else if (flock(f->lock, LOCK_EX | LOCK_NB) != 0)
    status = errno == EWOULDBLOCK
                 ? mica_error(MICA_ERR_STATE,
                              "%s: another process is training in this run folder; stop it (Ctrl-C saves) and go on with "
                              "--resume %s, or choose another folder",
                              f->path, f->path)
                 : mica_error(MICA_ERR_IO, "%s: cannot lock: %s; choose a folder on a file system with locks", path,
                              strerror(errno));
  free(path);
  return status;
}

/* looked at under the lock: of two that start at once, one is told of the other */
static mica_status open_new(micah_run_folder *f, const char *config) {
  if (micah_path_kind(config) != MICAH_PATH_NONE)
    return mica_error(MICA_ERR_STATE, "%s: already holds a run; go on with it (--resume %s) or choose another folder",
                      f->path, f->path);
  return micah_config_write(f->job->config, config);
}

static mica_status open_old(micah_run_folder *f) {
  mica_status status = micah_file_sweep(f->path);
  if (status >= 0) status = micah_file_sweep(f->checkpoints);
  return status;
}

mica_status micah_run_folder_open(const micah_job *job, int resume, micah_run_folder **out) {
  *out = NULL;
  micah_run_folder *f = calloc(1, sizeof *f);
  if (!f) return no_memory();
  f->job = job, f->lock = -1;
  f->path = micah_copy(job->run, strlen(job->run));
  f->metrics = micah_path_join(job->run, "metrics.jsonl");
  f->last = micah_path_join(job->run, "last.safetensors");
  f->checkpoints = micah_path_join(job->run, "checkpoints");
  char *config = micah_path_join(job->run, "config.yaml");
  mica_status status = MICA_OK;
  if (!f->path || !f->metrics || !f->last || !f->checkpoints || !config) status = no_memory();
  if (status >= 0) status = micah_path_mkdirs(f->checkpoints);
  if (status >= 0) status = lock_folder(f);
  if (status >= 0) status = resume ? open_old(f) : open_new(f, config);
  /* hashed as written, so that a resumed run sees the same text */
  micah_config *written = NULL;
  if (status >= 0) status = micah_config_read(config, &written);
  if (status >= 0) status = micah_config_hash(written, f->hash);
  micah_config_destroy(written);
  free(config);
  if (status < 0) {
    micah_run_folder_close(f);
    return status;
  }
  *out = f;
  return MICA_OK;
}

void micah_run_folder_close(micah_run_folder *f) {
  if (!f) return;
  if (f->lock >= 0) close(f->lock);
  free(f->path);
  free(f->metrics);
  free(f->last);
  free(f->checkpoints);
  free(f);
}

/* ---- writing ---- */

mica_status micah_run_folder_save_weights(const micah_run_folder *f, const micah_graph *graph, const micah_optimizer *o,
                                          int64_t step) {
  char text[32];
  snprintf(text, sizeof text, "%lld", (long long)step);
  micah_meta meta[] = { { "mica.kind", "weights" }, { "mica.step", text }, { "mica.config", f->hash },
                        { "mica.family", f->job->family->name }, { "mica.model", f->job->model->name } };
  micah_tensor_list list = { NULL, 0, 0, NULL };
  mica_status status = micah_list_params(&list, graph, "", MICA_F32, o->params);
  if (status >= 0) status = micah_safetensors_write(f->last, list.tensors, list.count, meta, MICA_COUNT(meta));
  micah_list_free(&list);
  return status;
}

/* steps of the checkpoints in the folder, ascending; malloc'd */
static int compare_steps(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static mica_status list_checkpoints(const micah_run_folder *f, int64_t **steps, int64_t *count) {
  char **names;
  int64_t n;
  *steps = NULL, *count = 0;
  mica_status status = micah_path_list(f->checkpoints, &names, &n);
  if (status < 0) return status;
  *steps = malloc((size_t)(n + 1) * sizeof **steps);
  if (!*steps) status = no_memory();
  for (int64_t i = 0; status >= 0 && i < n; i++) {
    long long step;
    char again[64];
    if (sscanf(names[i], "step_%lld.safetensors", &step) != 1 || step < 0) continue;
    snprintf(again, sizeof again, pattern, step);
    if (strcmp(again, names[i]) == 0) (*steps)[(*count)++] = step;
  }
  micah_path_list_free(names, n);
  if (status >= 0) qsort(*steps, (size_t)*count, sizeof **steps, compare_steps);
  return status;
}

static char *checkpoint_path(const micah_run_folder *f, int64_t step) {
  char name[64];
  snprintf(name, sizeof name, pattern, (long long)step);
  return micah_path_join(f->checkpoints, name);
}

static mica_status drop_old(const micah_run_folder *f) {
  int64_t *steps, count;
  mica_status status = list_checkpoints(f, &steps, &count);
  for (int64_t i = 0; status >= 0 && i < count - f->job->settings.checkpoints; i++) {
    char *path = checkpoint_path(f, steps[i]);
    if (!path) status = no_memory();
    else if (unlink(path) != 0 && errno != ENOENT)
      status = mica_error(MICA_ERR_IO, "%s: cannot delete: %s", path, strerror(errno));
    free(path);
  }
  free(steps);
  return status;
}

mica_status micah_run_folder_save(const micah_run_folder *f, const micah_graph *graph, const micah_optimizer *o,
                                  const micah_progress_state *state) {
  char step[32], quarantined[32], seconds[64];
  snprintf(step, sizeof step, "%lld", (long long)state->step);
  snprintf(quarantined, sizeof quarantined, "%lld", (long long)state->quarantined);
  snprintf(seconds, sizeof seconds, "%.6f", state->seconds);
  micah_meta meta[] = { { "mica.kind", "checkpoint" }, { "mica.step", step }, { "mica.config", f->hash },
                        { "mica.quarantined", quarantined }, { "mica.seconds", seconds } };
  micah_tensor_list list = { NULL, 0, 0, NULL };
  char *path = checkpoint_path(f, state->step);
  mica_status status = path ? MICA_OK : no_memory();
  if (status >= 0) status = micah_list_params(&list, graph, "", MICA_F32, o->params);
  if (status >= 0) status = micah_list_params(&list, graph, "adamw.m/", MICA_F32, o->m);
  if (status >= 0) status = micah_list_params(&list, graph, "adamw.v/", MICA_F32, o->v);
  if (status >= 0) status = micah_safetensors_write(path, list.tensors, list.count, meta, MICA_COUNT(meta));
  micah_list_free(&list);
  free(path);
  if (status >= 0) status = micah_run_folder_save_weights(f, graph, o, state->step);
  if (status >= 0) status = drop_old(f);
  return status;
}

/* ---- reading ---- */

/* keep the lines of metrics up to a step: a killed run may have written more than its checkpoint knows */
static mica_status cut_metrics(const micah_run_folder *f, int64_t step) {
  if (micah_path_kind(f->metrics) == MICAH_PATH_NONE) return MICA_OK;
  char *data;
  int64_t size, at = 0;
  mica_status status = micah_file_read(f->metrics, (int64_t)1 << 34, &data, &size);
  if (status < 0) return status;
  while (at < size) {
    const char *end = memchr(data + at, '\n', (size_t)(size - at));
    long long number;
    if (!end || sscanf(data + at, "{\"step\": %lld", &number) != 1 || number > step) break;
    at = end - data + 1;
  }
  if (at < size) status = micah_file_write(f->metrics, data, at);
  free(data);
  return status;
}

static mica_status need_number(const micah_safetensors *file, const char *key, double *out) {
  const char *text = micah_safetensors_meta(file, key);
  if (!text || !micah_parse_real(text, strlen(text), out) || !isfinite(*out) || *out < 0)
    return mica_error(MICA_ERR_FORMAT, "%s: metadata '%s' is %s%s%s, expected a number", micah_safetensors_path(file),
                      key, text ? "'" : "", text ? text : "missing", text ? "'" : "");
  return MICA_OK;
}

static mica_status read_checkpoint(const micah_run_folder *f, const micah_graph *graph, const micah_safetensors *file,
                                   micah_optimizer *o, micah_progress_state *state) {
  const char *hash = micah_safetensors_meta(file, "mica.config");
  if (!hash || strcmp(hash, f->hash) != 0)
    return mica_error(MICA_ERR_STATE,
                      "%s: was written with other settings than %s/config.yaml has now; restore that file, or "
                      "start a new run",
                      micah_safetensors_path(file), f->path);
  double step = 0, quarantined = 0;
  mica_status status = need_number(file, "mica.step", &step);
  if (status >= 0) status = need_number(file, "mica.quarantined", &quarantined);
  if (status >= 0) status = need_number(file, "mica.seconds", &state->seconds);
  if (status >= 0) status = micah_graph_load(graph, file, "", 1, MICA_F32, o->params);
  if (status >= 0) status = micah_graph_load(graph, file, "adamw.m/", 1, MICA_F32, o->m);
  if (status >= 0) status = micah_graph_load(graph, file, "adamw.v/", 1, MICA_F32, o->v);
  state->step = (int64_t)step, state->quarantined = (int64_t)quarantined;
  return status;
}

mica_status micah_run_folder_load(const micah_run_folder *f, const micah_graph *graph, micah_optimizer *o,
                                  micah_progress_state *state) {
  int64_t *steps, count;
  memset(state, 0, sizeof *state);
  mica_status status = list_checkpoints(f, &steps, &count);
  if (status >= 0 && count) {
    char *path = checkpoint_path(f, steps[count - 1]);
    micah_safetensors *file = NULL;
    if (!path) status = no_memory();
    if (status >= 0) status = micah_safetensors_open(path, &file);
    if (status >= 0) status = read_checkpoint(f, graph, file, o, state);
    if (status == MICA_ERR_FORMAT && count > 1) {
      char message[1024];
      snprintf(message, sizeof message, "%s", mica_last_error());
      status = mica_error(status, "%s; delete the file to go on from step %lld", message, (long long)steps[count - 2]);
    }
    micah_safetensors_close(file);
    free(path);
  }
  free(steps);
  if (status >= 0) status = cut_metrics(f, state->step);
  return status;
}

mica_status micah_run_folder_log(const micah_run_folder *f, const mica_progress *p) {
  micah_json json = { 0 };
  const char *line;
  micah_json_object(&json, NULL);
  micah_json_int(&json, "step", p->step);
  micah_json_exact(&json, "loss", p->loss);
  if (!isnan(p->exact)) {
    micah_json_exact(&json, "exact", p->exact);
    micah_json_real(&json, "excess", p->excess);
  }
  micah_json_real(&json, "lr", p->lr);
  micah_json_exact(&json, "grad_norm", p->grad_norm);
  micah_json_real(&json, "tasks_per_s", p->tasks_per_s);
  micah_json_real(&json, "seconds", p->seconds);
  if (p->quarantined) micah_json_int(&json, "quarantined", p->quarantined);
  micah_json_end(&json);
  mica_status status = micah_json_finish(&json, &line);
  if (status >= 0) status = micah_file_append(f->metrics, line);
  micah_json_free(&json);
  return status;
}
