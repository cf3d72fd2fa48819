/* bench_ops.h: probes of the machine and the table of results */
#ifndef MICA_BENCH_OPS_H
#define MICA_BENCH_OPS_H

#include "tests/check_ops.h"

double bench_seconds(void);
double bench_peak_gflops(mica_context *context, int isa);  /* fp32 multiply-adds of all threads, 10^9 flop/s */
double bench_peak_gbytes(mica_context *context);           /* copy of 16 MiB: read plus written, 10^9 bytes/s */

#endif
