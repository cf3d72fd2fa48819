/* bench_op: faces of one operation on command, on given arrays, so that a runner can interleave them with peers'
 * (commands: bench_worker.h). a step is a forward and what the face needs after it.
 *
 * usage: bench_op NAME FACE PORTS.safetensors THREADS [KEY=VALUE ...]; more commands than all workers have:
 *   write FILE   outputs of the last step, as `mica op` writes them */
#include "bench_worker.h"
#include "cli/op_run.h"

typedef struct bench {
  mica_context  *context;
  micac_op_job   job;
  micac_op_work *work;
} bench;

static mica_status step(void *user) {
  bench *b = user;
  return micac_op_faces(b->context, b->work);
}

static mica_status command(void *user, const char *line) {
  bench *b = user;
  if (strncmp(line, "write ", 6)) return mica_error(MICA_ERR_INVALID, "unknown command '%s'", line);
  b->job.out = line + 6;
  mica_status status = micac_op_write(b->work);
  printf("{\"wires\":%d}\n", b->job.written);
  return status;
}

int main(int argc, char **argv) {
  if (argc < 5 || argc - 5 > MICAC_MAX_SETTINGS) {
    fprintf(stderr, "usage: bench_op NAME FACE PORTS.safetensors THREADS [KEY=VALUE ...]\n");
    return 2;
  }
  long long base = worker_bytes("VmRSS:");
  bench b = { .job = { .face = -1, .backend = MICA_CPU, .dtype = MICA_F32, .in = argv[3] } };
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = atoi(argv[4]);
  for (int i = 5; i < argc; i++) b.job.set[b.job.n_set++] = argv[i];
  for (int face = 0; face < MICA_NFACE; face++)
    if (!strcmp(argv[2], mica_face_name(face))) b.job.face = face;
  mica_status status = b.job.face < 0 ? mica_error(MICA_ERR_INVALID, "no face '%s'", argv[2]) : MICA_OK;
  if (status >= 0) status = mica_context_create(&options, &b.context);
  if (status >= 0) status = mica_find_op(b.context, argv[1], &b.job.op);
  if (status >= 0) status = micac_op_open(&b.job, &b.work);
  if (status >= 0) status = worker_serve(&b, base, step, command);
  if (status < 0) fprintf(stderr, "bench_op: %s\n", mica_last_error());
  micac_op_close(b.work);
  mica_context_destroy(b.context);
  return status < 0;
}
