/* scan.h (internal): a loop over the rows of an axis, as one entry of a program. */
#ifndef MICAH_PROGRAM_SCAN_H
#define MICAH_PROGRAM_SCAN_H

#include "program/call.h"
#include "program/executor.h"

/* run one face of a scan entry on the executor's context */
mica_status micah_scan_run(mica_executor *x, int32_t entry, int face);

/* append a scan entry of a subprogram to the program that calls it */
mica_value micah_scan_again(micah_replay *replay, const micah_entry *entry, const char *path, int32_t n,
                            const mica_bind *binds);

#endif
