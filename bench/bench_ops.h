/* bench_ops.h: probes of the machine and the table of results */
#ifndef MICA_BENCH_OPS_H
#define MICA_BENCH_OPS_H

#include "device/device.h"
#include "tests/check_ops.h"

double bench_seconds(void);
double bench_peak_gflops(mica_context *context, int isa);  /* fp32 multiply-adds of all threads, 10^9 flop/s */
double bench_peak_gbytes(mica_context *context);           /* copy of 16 MiB: read plus written, 10^9 bytes/s */

/* a GPU and its measured peaks: fp32 multiply-adds, and copying of 256 MiB on the device, read plus written */
typedef struct bench_cuda {
  micah_device     *device;
  micah_device_info info;
  void             *from, *to, *memory;
  size_t            bytes;
  double            gflops, gbytes;
} bench_cuda;
/* MICA_ERR_UNSUPPORTED where no GPU runs the kernels */
mica_status bench_cuda_open(mica_context *context, bench_cuda *out);
void        bench_cuda_close(bench_cuda *cuda);
/* seconds of one face, args in device memory, over at least `seconds` */
mica_status bench_cuda_time(bench_cuda *cuda, const mica_op *op, int face, const void *args, double seconds,
                            double *median, double *least, int *runs);

#endif
