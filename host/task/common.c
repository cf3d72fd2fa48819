#include "host/task/families.h"

micak_philox_key micah_task_key(const mica_family_env *env, const char *family, int32_t split) {
  return micak_philox_key_of(env->seed, micak_hash_name(family), (uint64_t)split);
}

mica_status micah_task_env_check(const mica_family_env *env, const char *family) {
  if (!env || env->size < sizeof(mica_family_env) || !env->context)
    return mica_error(MICA_ERR_INVALID, "family %s: open needs a mica_family_env with its size and context set",
                      family);
  if (env->split != MICA_SPLIT_TRAIN && env->split != MICA_SPLIT_TEST)
    return mica_error(MICA_ERR_INVALID, "family %s: split is %d, expected MICA_SPLIT_TRAIN or MICA_SPLIT_TEST", family,
                      (int)env->split);
  if (env->tasks_per_step < 1 || env->steps < 1)
    return mica_error(MICA_ERR_INVALID, "family %s: tasks_per_step is %lld and steps is %lld, expected at least 1",
                      family, (long long)env->tasks_per_step, (long long)env->steps);
  return MICA_OK;
}

int32_t micah_task_below(micak_stream *stream, int64_t n) {
  int64_t i = (int64_t)(micak_stream_uniform(stream) * (double)n);
  return (int32_t)(i < n ? i : n - 1);
}
