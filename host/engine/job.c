#include "host/engine/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/device/context.h"
#include "host/io/file.h"

static mica_status read_config(const mica_source *source, int fixed, micah_job *job) {
  if (!source || source->size != sizeof *source)
    return mica_error(MICA_ERR_INVALID, "mica_source.size is %zu, expected %zu; start from MICA_SOURCE_INIT",
                      source ? source->size : 0, sizeof *source);
  if (!source->config && !source->run)
    return mica_error(MICA_ERR_INVALID, "no configuration: give a configuration file or a run folder");
  char *path = NULL;
  if (source->run && !(job->run = micah_copy(source->run, strlen(source->run))))
    return mica_error(MICA_ERR_MEMORY, "no memory for a path");
  if (!source->config) {
    path = micah_path_join(source->run, "config.yaml");
    if (!path) return mica_error(MICA_ERR_MEMORY, "no memory for a path");
    if (micah_path_kind(path) != MICAH_PATH_FILE) {
      mica_status status = mica_error(MICA_ERR_IO, "%s: no such file, so '%s' is no run folder; start a run with a "
                                      "configuration file", path, source->run);
      free(path);
      return status;
    }
  }
  mica_status status = micah_config_read(source->config ? source->config : path, &job->config);
  free(path);
  if (status >= 0) status = micah_settings_note_nominal(job->config);
  char before[33], after[33];
  if (status >= 0 && fixed) status = micah_config_hash(job->config, before);
  for (int32_t i = 0; status >= 0 && i < source->n_overrides; i++) {
    status = micah_config_override(job->config, source->overrides[i]);
    if (status >= 0 && fixed) status = micah_config_hash(job->config, after);
    if (status >= 0 && fixed && strcmp(before, after) != 0)
      status = mica_error(MICA_ERR_CONFIG,
                          "%s: '%s' would change the numbers of a run that is under way; start a new run for "
                          "it, or change only threads, devices, launch, memory, log_every, checkpoint_every, "
                          "checkpoints, exact",
                          micah_config_name(job->config), source->overrides[i]);
  }
  if (status >= 0) status = micah_settings_fill(job->config, &job->settings);
  return status;
}

static mica_status make_context(const mica_source *source, micah_job *job) {
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  if (source->context) options = *source->context;
  if (options.threads == 0) options.threads = (int32_t)job->settings.threads;
  mica_status status = mica_context_create(&options, &job->context);
  if (status >= 0 && source->setup) status = source->setup(source->setup_user, job->context);
  if (status < 0) return status;
  job->backend = job->settings.device ? MICA_CUDA : MICA_CPU;
  micah_section *root = micah_config_root(job->config);
  micah_device *device;
  for (int32_t i = 0; i < job->settings.devices; i++) {
    status = micah_context_device(job->context, job->backend, i, &device);
    if (status < 0) return micah_config_blame(root, status == MICA_ERR_NOT_FOUND ? "devices" : "device", status);
  }
  const char *const *plugins;
  int64_t count;
  status = micah_config_get_paths(root, "plugins", &plugins, &count);
  for (int64_t i = 0; status >= 0 && i < count; i++) {
    status = mica_load_plugin(job->context, plugins[i]);
    if (status < 0) status = micah_config_blame(root, "plugins", status);
  }
  return status;
}

/* a section's `name` decides the descriptor, whose key table fills its struct */
static mica_status fill_section(micah_job *job, const char *key, const mica_key *keys, int32_t n_keys, size_t size,
                                void **config) {
  static const char *const other[] = { "name" };
  micah_section *section;
  mica_status status = micah_config_section(micah_config_root(job->config), key, 1, &section);
  if (status < 0) return status;
  *config = calloc(1, size ? size : 1);
  if (!*config) return mica_error(MICA_ERR_MEMORY, "no memory for the settings of %s", key);
  return micah_config_fill(section, keys, n_keys, other, 1, *config);
}

static mica_status find_named(micah_job *job, const char *key, const char *fallback, micah_section **section,
                              const char **name) {
  mica_status status = micah_config_section(micah_config_root(job->config), key, fallback == NULL, section);
  if (status >= 0) status = micah_config_get_string(*section, "name", fallback, name);
  return status;
}

static mica_status find_descriptors(micah_job *job) {
  micah_section *section;
  const char *name;
  mica_status status = find_named(job, "family", NULL, &section, &name);
  if (status < 0) return status;
  status = mica_find_family(job->context, name, &job->family);
  if (status < 0) return micah_config_blame(section, "name", status);
  status = fill_section(job, "family", job->family->keys, job->family->n_keys, job->family->config_size,
                        &job->family_config);
  if (status >= 0) status = find_named(job, "model", NULL, &section, &name);
  if (status < 0) return status;
  status = mica_find_model(job->context, name, &job->model);
  if (status < 0) return micah_config_blame(section, "name", status);
  return fill_section(job, "model", job->model->keys, job->model->n_keys, job->model->config_size, &job->model_config);
}

/* the loss is found once the target is known: cross-entropy for classes and squared error for numbers unless named */
static mica_status find_loss(micah_job *job) {
  micah_tasks tasks;
  mica_status status = micah_job_tasks(job, MICA_SPLIT_TRAIN, &tasks);
  if (status < 0) return status;
  const char *fallback = tasks.fields[tasks.target].dtype == MICA_I32 ? "cross_entropy" : "mse", *name;
  micah_tasks_close(&tasks);
  micah_section *section;
  status = find_named(job, "loss", fallback, &section, &name);
  if (status < 0) return status;
  status = mica_find_loss(job->context, name, &job->loss);
  if (status < 0) return micah_config_blame(section, "name", status);
  return fill_section(job, "loss", job->loss->keys, job->loss->n_keys, job->loss->config_size, &job->loss_config);
}

mica_status micah_job_open(const mica_source *source, int fixed, micah_job **out) {
  *out = NULL;
  micah_job *job = calloc(1, sizeof *job);
  if (!job) return mica_error(MICA_ERR_MEMORY, "no memory for a job");
  mica_status status = read_config(source, fixed, job);
  if (status >= 0) status = make_context(source, job);
  if (status >= 0) status = find_descriptors(job);
  if (status >= 0) status = find_loss(job);
  if (status < 0) {
    if (job->config) status = micah_config_blame(micah_config_root(job->config), NULL, status);
    micah_job_close(job);
    return status;
  }
  *out = job;
  return MICA_OK;
}

void micah_job_close(micah_job *job) {
  if (!job) return;
  free(job->family_config);
  free(job->model_config);
  free(job->loss_config);
  mica_context_destroy(job->context);
  micah_config_destroy(job->config);
  free(job->run);
  free(job);
}

mica_status micah_job_tasks(const micah_job *job, int32_t split, micah_tasks *out) {
  const micah_settings *s = &job->settings;
  mica_status status = micah_tasks_open(job->context, job->family, job->family_config, (uint64_t)s->seed, split,
                                        s->batch, s->steps, out);
  if (status >= 0) status = micah_context_device(job->context, job->backend, 0, &out->device);
  if (status >= 0 && job->model->ahead) status = micah_tasks_put_ahead(out, job->model->ahead(job->model_config));
  if (status >= 0) return status;
  micah_section *section;
  mica_status found = micah_config_section(micah_config_root(job->config), "family", 1, &section);
  return found < 0 ? found : micah_config_blame(section, NULL, status);
}

/* ---- hash ---- */

typedef struct hasher { uint64_t a, b; } hasher;

static void hash_text(hasher *h, const char *text) {
  /* two FNV-1a streams over the text and its end; names a configuration, guards nothing */
  do {
    h->a = (h->a ^ (unsigned char)*text) * 0x100000001b3ull;
    h->b = (h->b ^ ((unsigned char)*text + 0x9eu)) * 0x100000001b3ull;
    h->b ^= h->b >> 29;
  } while (*text++);
}

static mica_status hash_key(void *user, const char *key, const char *value) {
  /* where a plugin lies does not matter, what it registers shows in the other keys */
  if (micah_settings_neutral(key) || strncmp(key, "plugins", 7) == 0) return MICA_OK;
  hash_text(user, key);
  hash_text(user, value);
  return MICA_OK;
}

mica_status micah_config_hash(const micah_config *config, char text[33]) {
  hasher h = { 0xcbf29ce484222325ull, 0x84222325cbf29ce4ull };
  mica_status status = micah_config_each(config, hash_key, &h);
  if (status >= 0) snprintf(text, 33, "%016llx%016llx", (unsigned long long)h.a, (unsigned long long)h.b);
  return status;
}
