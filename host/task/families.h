/* families.h: the built-in task families and what they share. */
#ifndef MICAH_TASK_FAMILIES_H
#define MICAH_TASK_FAMILIES_H

#include "host/device/context.h"
#include "kernels/common/philox.h"
#include "mica/family.h"

/* the n-th built-in family, NULL past the end */
const mica_family *micah_builtin_family(int32_t index);

/* key of a family's draws: seed, name and split all enter, so that a test task never is a training task */
micak_philox_key micah_task_key(const mica_family_env *env, const char *family, int32_t split);

/* checks that every family needs: struct sizes, split, steps. names the family in its message. */
mica_status micah_task_env_check(const mica_family_env *env, const char *family);

/* next whole number in [0, n) of a stream of uniforms; n is far below 2^53 */
int32_t micah_task_below(micak_stream *stream, int64_t n);

#endif
