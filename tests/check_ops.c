/* check_ops: the definition of done of every operation, read from its tables. exits 1 when anything is red. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check_ops.h"
#include "device/device.h"

static const char usage[] =
    "check_ops [options]: checks every registered operation against its tables\n"
    "  --op NAME        only this operation (may be repeated by commas: a,b)\n"
    "  --case N         only its N-th case (see --list)\n"
    "  --face NAME      only this face in the kernel checks: forward backward jvp backward_jvp\n"
    "  --backend NAME   only this backend's kernels: ref cpu cuda\n"
    "  --isa NAME       only this instruction set: portable avx2 avx512\n"
    "  --golden DIR     golden values (default: golden/ of the sources); 'none' leaves them out\n"
    "  --seed N         of all random numbers (default 1); printed at the end\n"
    "  --values         worked examples and golden values only\n"
    "  --quick          fewer layouts\n"
    "  --brief          the fewest: dense, training and adding layouts, nothing about batches (for slow devices)\n"
    "  --slow           also slow cases, and the full shapes of the benchmark\n"
    "  --stop           at the first red\n"
    "  --list           operations, cases and kernels\n"
    "  --verbose        every residual\n";

static int bad(const char *what, const char *value) {
  fprintf(stderr, "check_ops: %s '%s'\n%s", what, value ? value : "", usage);
  return 2;
}

static int index_of(const char *value, const char *const *names, int n) {
  for (int i = 0; i < n; i++)
    if (!strcmp(value, names[i])) return i;
  return -1;
}

static void list_op(const mica_op *op) {
  printf("%s: %s\n", op->name, op->doc);
  for (int i = 0; i < op->n_cases; i++) {
    uint32_t f = op->cases[i].flags;
    printf("  case %d  %s%s%s%s%s\n", i, op->cases[i].set, f & MICA_CASE_PACKED ? "  [packed]" : "",
           f & MICA_CASE_BENCH ? "  [bench]" : "", f & MICA_CASE_HALF ? "  [half]" : "", f & MICA_CASE_SLOW ? "  [slow]" : "");
  }
  for (int i = 0; i < op->n_kernels; i++)
    printf("  kernel  %s %s %s\n", mica_backend_name(op->kernels[i].backend), mica_dtype_name(op->kernels[i].dtype),
           mica_face_name(op->kernels[i].face));
}

static int chosen(const char *list, const char *name) {
  size_t n = strlen(name);
  for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
    if (!strncmp(p, name, n) && (p[n] == 0 || p[n] == ',')) return 1;
  return 0;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
  static const char *const isas[] = { "portable", "avx2", "avx512" }, *const backends[] = { "ref", "cpu", "cuda" },
                    *const faces[] = { "forward", "backward", "jvp", "backward_jvp" };
  ck_options o = { .only_case = -1, .backend = -1, .isa = -1, .face = -1, .seed = 1 };
  int list = 0;
#ifdef MICA_GOLDEN_DIR
  o.golden = MICA_GOLDEN_DIR;
#endif
  for (int i = 1; i < argc; i++) {
    const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (!strcmp(name, "--list")) list = 1;
    else if (!strcmp(name, "--verbose")) o.verbose = 1;
    else if (!strcmp(name, "--stop")) o.stop = 1;
    else if (!strcmp(name, "--values")) o.only_case = -2;
    else if (!strcmp(name, "--quick")) o.quick = 1;
    else if (!strcmp(name, "--brief")) o.brief = o.quick = 1;
    else if (!strcmp(name, "--slow")) o.slow = 1;
    else if (!strcmp(name, "--help")) return fputs(usage, stdout) < 0;
    else if (!value) return bad("unknown option or no value for", name);
    else {
      i++;
      if (!strcmp(name, "--op")) o.op = value;
      else if (!strcmp(name, "--golden")) o.golden = strcmp(value, "none") ? value : NULL;
      else if (!strcmp(name, "--case")) o.only_case = atoi(value);
      else if (!strcmp(name, "--seed")) o.seed = strtoull(value, NULL, 10);
      else if (!strcmp(name, "--face")) {
        if ((o.face = index_of(value, faces, 4)) < 0) return bad("no such face", value);
      } else if (!strcmp(name, "--backend")) {
        if ((o.backend = index_of(value, backends, 3)) < 0) return bad("no such backend", value);
      } else if (!strcmp(name, "--isa")) {
        if ((o.isa = index_of(value, isas, 3)) < 0) return bad("no such instruction set", value);
      } else return bad("unknown option", name);
    }
  }
  if (ck_start(&o)) return 2;
  micah_device *device;
  if (o.backend == MICA_CUDA && !list && micah_context_device(ck_context[0], MICA_CUDA, 0, &device) < 0) {
    printf("skipped: %s\n", mica_last_error());
    ck_stop();
    return 77;
  }
  double begin = seconds();
  int ran = 0;
  for (int i = 0; mica_get_op(ck_context[0], i); i++) {
    const mica_op *op = mica_get_op(ck_context[0], i);
    if (o.op && !chosen(o.op, op->name)) continue;
    ran++;
    if (list) {
      list_op(op);
      continue;
    }
    double start = seconds();
    long passed = ck_passed, red = ck_check_op(op, o.only_case);
    printf("%-20s %7ld passed %6ld failed %7.1f s  %s\n", op->name, ck_passed - passed, red, seconds() - start,
           red ? "RED" : "ok");
    fflush(stdout);
  }
  if (o.op && !ran) {
    const mica_op *none;
    mica_find_op(ck_context[0], o.op, &none);
    fprintf(stderr, "check_ops: %s\n", mica_last_error());
    ck_stop();
    return 2;
  }
  if (!list)
    printf("seed %llu, %.1f s\n%ld passed, %ld failed\n", (unsigned long long)o.seed, seconds() - begin, ck_passed, ck_failed);
  ck_stop();
  return ck_failed ? 1 : 0;
}
