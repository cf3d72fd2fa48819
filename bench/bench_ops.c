/* bench_ops: times the faces of operations on the shapes that their tables mark for it. an operation whose checks are red
 * is not timed: no speed on a red gate. layout as in training: parameters shared, their cotangents summed over tasks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_ops.h"
#include "common/isa.h"

static const char usage[] =
    "bench_ops [options]: times operations, after checking them\n"
    "  --op NAME[,NAME]  only these\n"
    "  --case N          only this case\n"
    "  --face NAME       only this face: forward backward jvp backward_jvp, or forward+jvp backward+backward_jvp, which are\n"
    "                    timed where one kernel does both\n"
    "  --backend NAME    cpu cuda (a GPU; % of its measured peaks)\n"
    "  --isa NAME        instruction set: portable avx2 avx512 (default: the best)\n"
    "  --threads N       default: all cores\n"
    "  --seconds S       least time for each number (default 0.5)\n"
    "  --slow            also slow cases\n"
    "  --json            one JSON object on stdout, messages on stderr\n";

typedef struct bench {
  mica_context *context;
  const char   *op;
  int           only_case, face, isa, threads, json, slow, rows, red, backend;
  double        seconds, gflops, gbytes;
  bench_cuda    cuda;
} bench;

/* a table of memory: every wire of every operand, in float */
typedef struct board {
  void         *args;
  micah_device *device;                      /* where the memory is */
  float        *memory[CK_MAX][CK_WIRES];
  size_t        bytes[CK_MAX][CK_WIRES];
} board;

/* to a device: its memory takes the place of that here */
static mica_status board_send(board *b, micah_device *device, int o, int w) {
  void *there;
  mica_status status = device->ops->alloc(device, b->bytes[o][w], "a wire", &there);
  if (status >= 0) status = device->ops->copy(device, device->stream, there, b->memory[o][w], b->bytes[o][w]);
  if (status >= 0) status = device->ops->stream_sync(device, device->stream);
  if (status < 0) return status;
  free(b->memory[o][w]);
  b->memory[o][w] = there;
  b->device = device;
  return MICA_OK;
}

static int board_make(const mica_op *op, const ck_case *c, micah_device *device, board *b) {
  memset(b, 0, sizeof *b);
  b->args = malloc(op->args_size);
  if (!b->args) return 0;
  memcpy(b->args, c->args, op->args_size);
  for (int o = 0; o < op->n_operands; o++) {
    const mica_operand *operand = &op->operands[o];
    int shared = (operand->role & MICA_PARAM) != 0, index = (operand->role & MICA_INDEX) != 0;
    int64_t n = c->o[o].elems * (shared ? 1 : c->B);
    if (!c->o[o].present) continue;
    for (int w = 0; w < (index ? 1 : CK_WIRES); w++) {
      float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 64) & ~(size_t)63);
      if (!x) return 0;
      b->memory[o][w] = x;
      b->bytes[o][w] = (size_t)n * sizeof *x;
      int64_t range = 2;
      for (int i = 0; operand->range && i < op->n_dims; i++)
        if (!strcmp(op->dims[i].name, operand->range)) range = *micak_dim(&op->dims[i], c->args);
      for (int64_t i = 0; i < n; i++) {
        double u = ck_uniform(ck_hash((uint64_t)(o * 4 + w), (uint64_t)i));
        if (index) ((int32_t *)(void *)x)[i] = (int32_t)(u * (double)range);
        else x[i] = (float)(w == CK_V && operand->domain == MICA_ANY ? 2 * u - 1 : 0.1 + 0.8 * u);
      }
      if (device && board_send(b, device, o, w) < 0) return 0;
      mica_wire_dense(op, operand, b->args, index ? MICA_I32 : MICA_F32, shared, b->memory[o][w],
                      micak_wire(micak_port(operand, b->args), CK_BIT(w)));
    }
  }
  return 1;
}

static void board_free(board *b) {
  for (int o = 0; o < CK_MAX; o++)
    for (int w = 0; w < CK_WIRES; w++) {
      if (!b->memory[o][w]) continue;
      if (b->device) b->device->ops->free(b->device, b->memory[o][w], b->bytes[o][w]);
      else free(b->memory[o][w]);
    }
  free(b->args);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static mica_status time_cpu(bench *h, const mica_op *op, const board *b, int face, double *median, double *least,
                            int *runs) {
  enum { MOST = 200 };
  double taken[MOST], total = 0;
  int n = 0;
  for (int warm = 1; n < MOST && (n < 5 || total < h->seconds); warm = 0) {
    double start = bench_seconds();
    mica_status status = micah_run_face_as(h->context, op, MICA_CPU, MICA_F32, face, b->args, h->isa, 0);
    if (status < 0) return status;
    double t = bench_seconds() - start;
    if (warm) continue;
    taken[n++] = t;
    total += t;
  }
  qsort(taken, (size_t)n, sizeof *taken, ascending);
  *median = taken[n / 2], *least = taken[0], *runs = n;
  return MICA_OK;
}

static int time_face(bench *h, const mica_op *op, const ck_case *c, const board *b, int face) {
  double median, least, flop = 0, bytes = 0;
  int n;
  mica_status status = h->backend == MICA_CUDA
                           ? bench_cuda_time(&h->cuda, op, face, b->args, h->seconds, &median, &least, &n)
                           : time_cpu(h, op, b, face, &median, &least, &n);
  if (status < 0) {
    fprintf(stderr, "bench_ops: %s\n", mica_last_error());
    return 0;
  }
  int faces[2], parts = micak_faces(face, faces);
  for (int i = 0; op->cost && i < parts; i++) {
    double more_flop, more_bytes;
    op->cost(c->args, faces[i], &more_flop, &more_bytes);
    flop += more_flop, bytes += more_bytes;
  }
  double gflops = flop / median * 1e-9, gbytes = bytes / median * 1e-9;
  if (h->json)
    printf("%s\n  {\"op\": \"%s\", \"case\": \"%s\", \"face\": \"%s\", \"backend\": \"%s\", \"dtype\": \"f32\", \"ms\": %.6g, "
           "\"least_ms\": %.6g, \"runs\": %d, \"gflops\": %.5g, \"gbytes\": %.5g}",
           h->rows ? "," : "", op->name, c->text, mica_face_name(face), mica_backend_name(h->backend), 1e3 * median,
           1e3 * least, n, gflops, gbytes);
  else
    printf("%-14s %-44s %-21s %9.3f ms %8.1f GFLOP/s %5.1f %% %8.1f GB/s %5.1f %%\n", op->name, c->text,
           mica_face_name(face), 1e3 * median, gflops, 100 * gflops / h->gflops, gbytes, 100 * gbytes / h->gbytes);
  fflush(stdout);
  h->rows++;
  return 1;
}

static void bench_case(bench *h, const mica_op *op, int index) {
  static const int order[] = { MICA_FORWARD, MICA_JVP, MICA_BACKWARD, MICA_BACKWARD_JVP };
  ck_case c;
  board b;
  if (ck_case_make(op, op->cases[index].set, (ck_sizes){ 0 }, &c) < 0 || !board_make(op, &c, h->cuda.device, &b)) {
    fprintf(stderr, "bench_ops: %s '%s': %s\n", op->name, op->cases[index].set, mica_last_error());
    h->red++;
    ck_case_free(&c);
    return;
  }
  /* all faces run in turn: what one saves, the next reads */
  for (int i = 0; i < MICA_NFACE; i++) {
    int timed = h->face < 0 || h->face == order[i];
    if (timed) h->red += !time_face(h, op, &c, &b, order[i]);
    else if (micah_run_face_as(h->context, op, h->backend, MICA_F32, order[i], b.args, h->isa, 0) < 0) h->red++;
  }
  for (int slot = MICA_NFACE; slot < MICA_NSLOT; slot++) {
    const mica_kernel *kernel;
    int32_t phases;
    if ((h->face >= 0 && h->face != slot) || mica_op_kernels(op, h->backend, MICA_F32, slot, &kernel, &phases) < 0) continue;
    h->red += !time_face(h, op, &c, &b, slot);
  }
  board_free(&b);
  ck_case_free(&c);
}

static int named(const char *list, const char *name) {
  size_t n = strlen(name);
  for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
    if (!strncmp(p, name, n) && (p[n] == 0 || p[n] == ',')) return 1;
  return !list;
}

static int index_of(const char *value, const char *const *names, int n) {
  for (int i = 0; i < n; i++)
    if (!strcmp(value, names[i])) return i;
  return -1;
}

/* 0 goes on, 1 stops with help, 2 stops with an error */
static int parse(int argc, char **argv, bench *h) {
  static const char *const isas[] = { "portable", "avx2", "avx512" },
                    *const faces[] = { "forward", "backward", "jvp", "backward_jvp", "forward+jvp", "backward+backward_jvp" },
                    *const backends[] = { "", "cpu", "cuda" };  /* by MICA_CPU, MICA_CUDA */
  for (int i = 1; i < argc; i++) {
    const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(name, "--json")) h->json = 1;
    else if (!strcmp(name, "--slow")) h->slow = 1;
    else if (!strcmp(name, "--help")) return fputs(usage, stdout), 1;
    else {
      i++;
      if (!strcmp(name, "--op")) h->op = value;
      else if (!strcmp(name, "--case")) h->only_case = atoi(value);
      else if (!strcmp(name, "--threads")) h->threads = atoi(value);
      else if (!strcmp(name, "--seconds")) h->seconds = atof(value);
      else if (!strcmp(name, "--face") && (h->face = index_of(value, faces, MICA_NSLOT)) >= 0) continue;
      else if (!strcmp(name, "--backend") && (h->backend = index_of(value, backends, 3)) > 0) continue;
      else if (!strcmp(name, "--isa") && (h->isa = index_of(value, isas, 3)) >= 0) continue;
      else return fprintf(stderr, "bench_ops: cannot use %s %s\n%s", name, value, usage), 2;
    }
  }
  return 0;
}

int main(int argc, char **argv) {
  static const char *const isas[] = { "portable", "avx2", "avx512" };
  bench h = { .only_case = -1, .face = -1, .isa = micak_best_isa(), .seconds = 0.5, .backend = MICA_CPU };
  int stop = parse(argc, argv, &h);
  if (stop) return stop - 1;
  if (h.isa > micak_best_isa()) return fprintf(stderr, "bench_ops: this machine has no %s\n", isas[h.isa]), 2;
  mica_context_options options = MICA_CONTEXT_OPTIONS_INIT;
  options.threads = h.threads;
  ck_options checks = { .only_case = -1, .backend = h.backend, .isa = h.isa, .face = -1, .seed = 1, .quick = 1,
                        .to_stderr = 1 };
  if (micah_context_new(&options, &h.context) < 0 || ck_start(&checks)) {
    fprintf(stderr, "bench_ops: %s\n", mica_last_error());
    return 2;
  }
  h.threads = mica_context_get_threads(h.context)->workers;
  if (h.backend == MICA_CUDA && bench_cuda_open(h.context, &h.cuda) < 0) {
    fprintf(stderr, "bench_ops: %s\n", mica_last_error());
    return 2;
  }
  h.gflops = h.cuda.device ? h.cuda.gflops : bench_peak_gflops(h.context, h.isa);
  h.gbytes = h.cuda.device ? h.cuda.gbytes : bench_peak_gbytes(h.context);
  if (h.cuda.device && h.json)
    printf("{\"device\": \"%s\", \"peak_gflops\": %.5g, \"peak_gbytes\": %.5g, \"rows\": [", h.cuda.info.name, h.gflops,
           h.gbytes);
  else if (h.cuda.device)
    printf("%s, sm_%d; measured peaks: %.1f GFLOP/s of fp32 multiply-adds, %.1f GB/s of copying\n", h.cuda.info.name,
           h.cuda.info.capability, h.gflops, h.gbytes);
  else if (h.json)
    printf("{\"threads\": %d, \"isa\": \"%s\", \"peak_gflops\": %.5g, \"peak_gbytes\": %.5g, \"rows\": [", h.threads,
           isas[h.isa], h.gflops, h.gbytes);
  else
    printf("%d threads, %s; measured peaks: %.1f GFLOP/s of multiply-adds, %.1f GB/s of copying\n", h.threads, isas[h.isa],
           h.gflops, h.gbytes);
  int ran = 0;
  for (int i = 0; mica_get_op(h.context, i); i++) {
    const mica_op *op = mica_get_op(h.context, i);
    if (!named(h.op, op->name)) continue;
    ran++;
    for (int k = 0; k < op->n_cases; k++) {
      uint32_t flags = op->cases[k].flags;
      if (!(flags & MICA_CASE_BENCH) || (h.only_case >= 0 && h.only_case != k)) continue;
      if ((flags & MICA_CASE_SLOW) && !h.slow && h.only_case < 0) continue;
      if (ck_check_op(op, k)) {
        fprintf(stderr, "bench_ops: %s '%s' is RED (see check_ops --op %s): not timed\n", op->name, op->cases[k].set, op->name);
        h.red++;
        continue;
      }
      bench_case(&h, op, k);
    }
  }
  if (h.json) printf("\n]}\n");
  if (!ran) fprintf(stderr, "bench_ops: no operation '%s'\n", h.op ? h.op : "");
  bench_cuda_close(&h.cuda);
  mica_context_destroy(h.context);
  ck_stop();
  return h.red || !ran;
}
