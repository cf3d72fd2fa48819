#include "program/scan.h"

mica_value mica_program_scan(mica_program *program, const char *name, const mica_program *sub, int32_t axis, int32_t n,
                             const mica_bind *binds, int32_t n_carry, const mica_carry *carry) {
  mica_status status = micah_open(program);
  if (status < 0) return status;
  (void)sub; (void)axis; (void)n; (void)binds; (void)n_carry; (void)carry;
  return micah_fail(program, MICA_ERR_UNSUPPORTED, "%s: scan is not available", name ? name : "scan");
}

mica_value micah_scan_again(micah_replay *replay, const micah_entry *entry, const char *path, int32_t n,
                            const mica_bind *binds) {
  (void)entry; (void)n; (void)binds;
  return micah_fail(replay->program, MICA_ERR_UNSUPPORTED, "%s: scan is not available", path);
}

mica_status micah_scan_run(mica_executor *x, int32_t entry, int face) {
  (void)face;
  return mica_error(MICA_ERR_UNSUPPORTED, "%s: scan is not available", x->program->entries[entry].path);
}
