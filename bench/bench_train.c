/* bench_train: training steps on command, so that a runner can interleave them with peers'.
 *
 * usage: bench_train CONFIG [KEY=VALUE ...]; then lines on standard input, one JSON object out for each:
 *   steps N   run N steps: {"seconds": [...], "cpu": [...]}
 *   memory    {"base": before anything was made, "peak": high-water mark since the last reset, "rss": now}  (bytes)
 *   reset     start a new high-water mark
 *   info      sizes of the job
 *   profile   milliseconds by entry and face since the last profile line */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mica/train.h"

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* a line "Name:  123 kB" of /proc/self/status, in bytes; 0 where there is none */
static long long status_bytes(const char *name) {
  FILE     *file = fopen("/proc/self/status", "r");
  char      line[256];
  long long kib = 0;
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, name, strlen(name))) kib = strtoll(line + strlen(name), NULL, 10);
  if (file) fclose(file);
  return 1024 * kib;
}

static int reset_peak(void) {
  FILE *file = fopen("/proc/self/clear_refs", "w");
  if (!file) return 0;
  int done = fputs("5", file) >= 0;
  return fclose(file) == 0 && done;
}

static void print_entry(void *user, const char *path, const char *op, int face, double s, int64_t calls) {
  int *first = user;
  printf("%s{\"path\":\"%s\",\"op\":\"%s\",\"face\":\"%s\",\"ms\":%.4f,\"calls\":%lld}", *first ? "" : ",", path, op,
         mica_face_name(face), 1e3 * s, (long long)calls);
  *first = 0;
}

static mica_status command(mica_trainer *trainer, const char *line, long long base) {
  long long   n;
  mica_status status = MICA_OK;
  if (sscanf(line, "steps %lld", &n) == 1) {
    printf("{\"seconds\":[");
    for (long long i = 0; i < n && status >= 0; i++) {
      double start = seconds(CLOCK_MONOTONIC);
      status = mica_trainer_step(trainer, NULL);
      printf("%s%.6f", i ? "," : "", seconds(CLOCK_MONOTONIC) - start);
    }
    printf("]}\n");
  } else if (!strncmp(line, "memory", 6)) {
    printf("{\"base\":%lld,\"peak\":%lld,\"rss\":%lld}\n", base, status_bytes("VmHWM:"), status_bytes("VmRSS:"));
  } else if (!strncmp(line, "reset", 5)) {
    printf("{\"reset\":%s}\n", reset_peak() ? "true" : "false");
  } else if (!strncmp(line, "info", 4)) {
    mica_trainer_info info;
    status = mica_trainer_get_info(trainer, &info);
    if (status >= 0)
      printf("{\"params\":%lld,\"launch_tasks\":%lld,\"activation_bytes\":%lld,\"gradient_bytes\":%lld,\"state_bytes\":%lld}\n",
             (long long)info.params, (long long)(info.grain * info.grains_per_launch), (long long)info.activation_bytes,
             (long long)info.gradient_bytes, (long long)info.state_bytes);
  } else if (!strncmp(line, "profile", 7)) {
    int first = 1;
    printf("[");
    status = mica_trainer_profile(trainer, 1, print_entry, &first);
    printf("]\n");
  } else {
    status = mica_error(MICA_ERR_INVALID, "unknown command '%s'", line);
  }
  fflush(stdout);
  return status;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: bench_train CONFIG [KEY=VALUE ...]\n");
    return 2;
  }
  long long     base = status_bytes("VmRSS:");
  mica_source   source = MICA_SOURCE_INIT;
  mica_trainer *trainer = NULL;
  char          line[256];
  source.config = argv[1];
  source.overrides = (const char *const *)argv + 2;
  source.n_overrides = argc - 2;
  mica_status status = mica_trainer_create(&source, 0, &trainer);
  if (status >= 0) {
    printf("{\"ready\":true}\n");
    fflush(stdout);
  }
  while (status >= 0 && fgets(line, sizeof line, stdin) && strncmp(line, "quit", 4))
    status = command(trainer, line, base);
  if (status < 0) fprintf(stderr, "bench_train: %s\n", mica_last_error());
  mica_trainer_destroy(trainer);
  return status < 0;
}
