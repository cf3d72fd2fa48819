/* bench_worker.h: what the workers of bench/peers/ share: clock, memory of this process, lines in and out. */
#ifndef MICA_BENCH_WORKER_H
#define MICA_BENCH_WORKER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mica/status.h"

static inline double worker_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* a line "Name:  123 kB" of /proc/self/status, in bytes; 0 where there is none */
static inline long long worker_bytes(const char *name) {
  FILE     *file = fopen("/proc/self/status", "r");
  char      line[256];
  long long kib = 0;
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, name, strlen(name))) kib = strtoll(line + strlen(name), NULL, 10);
  if (file) fclose(file);
  return 1024 * kib;
}

/* start a new high-water mark of resident memory */
static inline int worker_reset_peak(void) {
  FILE *file = fopen("/proc/self/clear_refs", "w");
  if (!file) return 0;
  int done = fputs("5", file) >= 0;
  return fclose(file) == 0 && done;
}

typedef mica_status (*worker_step)(void *user);
typedef mica_status (*worker_more)(void *user, const char *line); /* commands of one worker's own */

/* one command a line until "quit" or the end:
 *   steps N   run N steps: {"seconds": [...]}
 *   memory    {"base": ..., "peak": high-water mark since the last reset, "rss": now}  (bytes)
 *   reset     start a new high-water mark */
static inline mica_status worker_serve(void *user, long long base, worker_step step, worker_more more) {
  char        line[1024];
  mica_status status = MICA_OK;
  printf("{\"ready\":true}\n");
  fflush(stdout);
  while (status >= 0 && fgets(line, sizeof line, stdin) && strncmp(line, "quit", 4)) {
    long long n;
    line[strcspn(line, "\r\n")] = 0;
    if (sscanf(line, "steps %lld", &n) == 1) {
      printf("{\"seconds\":[");
      for (long long i = 0; i < n && status >= 0; i++) {
        double start = worker_seconds();
        status = step(user);
        printf("%s%.9f", i ? "," : "", worker_seconds() - start);
      }
      printf("]}\n");
    } else if (!strcmp(line, "memory")) {
      printf("{\"base\":%lld,\"peak\":%lld,\"rss\":%lld}\n", base, worker_bytes("VmHWM:"), worker_bytes("VmRSS:"));
    } else if (!strcmp(line, "reset")) {
      printf("{\"reset\":%s}\n", worker_reset_peak() ? "true" : "false");
    } else {
      status = more(user, line);
    }
    fflush(stdout);
  }
  return status;
}

#endif
