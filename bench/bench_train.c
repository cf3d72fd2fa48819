/* bench_train: training steps on command, so that a runner can interleave them with peers' (commands: bench_worker.h).
 *
 * usage: bench_train CONFIG [KEY=VALUE ...]; more commands than all workers have:
 *   info      sizes of the job
 *   profile   milliseconds by entry and face since the last profile line */
#include "bench_worker.h"
#include "mica/train.h"

static void print_entry(void *user, const char *path, const char *op, int face, double s, int64_t calls) {
  int *first = user;
  printf("%s{\"path\":\"%s\",\"op\":\"%s\",\"face\":\"%s\",\"ms\":%.4f,\"calls\":%lld}", *first ? "" : ",", path, op,
         mica_face_name(face), 1e3 * s, (long long)calls);
  *first = 0;
}

static mica_status step(void *user) { return mica_trainer_step(user, NULL); }

static mica_status command(void *user, const char *line) {
  mica_trainer *trainer = user;
  mica_status   status = MICA_OK;
  if (!strcmp(line, "info")) {
    mica_trainer_info info;
    status = mica_trainer_get_info(trainer, &info);
    if (status >= 0)
      printf("{\"params\":%lld,\"launch_tasks\":%lld,\"activation_bytes\":%lld,\"gradient_bytes\":%lld,\"state_bytes\":%lld}\n",
             (long long)info.params, (long long)(info.grain * info.grains_per_launch), (long long)info.activation_bytes,
             (long long)info.gradient_bytes, (long long)info.state_bytes);
  } else if (!strcmp(line, "profile")) {
    int first = 1;
    printf("[");
    status = mica_trainer_profile(trainer, 1, print_entry, &first);
    printf("]\n");
  } else {
    status = mica_error(MICA_ERR_INVALID, "unknown command '%s'", line);
  }
  return status;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: bench_train CONFIG [KEY=VALUE ...]\n");
    return 2;
  }
  long long     base = worker_bytes("VmRSS:");
  mica_source   source = MICA_SOURCE_INIT;
  mica_trainer *trainer = NULL;
  source.config = argv[1];
  source.overrides = (const char *const *)argv + 2;
  source.n_overrides = argc - 2;
  mica_status status = mica_trainer_create(&source, 0, &trainer);
  if (status >= 0) status = worker_serve(trainer, base, step, command);
  if (status < 0) fprintf(stderr, "bench_train: %s\n", mica_last_error());
  mica_trainer_destroy(trainer);
  return status < 0;
}
