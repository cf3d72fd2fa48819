/* contexts, counting and messages, and the order of all checks of one operation */
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_ops.h"
#include "common/isa.h"

ck_options    ck_option = { .only_case = -1, .backend = -1, .isa = -1, .face = -1, .seed = 1 };
mica_context *ck_context[CK_CONTEXTS];
long          ck_passed, ck_failed;

enum { SHOWN = 12 };
static char where[512];
static long shown;

void ck_where(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(where, sizeof where, format, list);
  va_end(list);
}

int ck_check(int ok, const char *format, ...) {
  if (ok) {
    ck_passed++;
    return 1;
  }
  ck_failed++;
  if (shown++ < SHOWN || ck_option.verbose) {
    FILE *to = ck_option.to_stderr ? stderr : stdout;
    va_list list;
    fprintf(to, "  RED %s: ", where);
    va_start(list, format);
    vfprintf(to, format, list);
    va_end(list);
    fprintf(to, "\n");
    fflush(to);
    if (ck_option.stop) exit(1);
  }
  return 0;
}

void ck_note(const char *format, ...) {
  if (!ck_option.verbose) return;
  va_list list;
  printf("      %s: ", where);
  va_start(list, format);
  vprintf(format, list);
  va_end(list);
  printf("\n");
}

const char *ck_wire_name(const ck_case *c, int o, int w) {
  static const char *const names[CK_WIRES] = { "v", "d", "t", "td" };
  static char text[4][64];
  static int  next;
  char *at = text[next++ % 4];
  snprintf(at, sizeof text[0], "%s.%s", c->op->operands[o].name, names[w]);
  return at;
}

const char *ck_target_name(ck_target t) {
  static const char *const isas[] = { "portable", "avx2", "avx512" };
  static char text[48];
  snprintf(text, sizeof text, "%s%s%s %s", mica_backend_name(t.backend), t.backend == MICA_CPU ? " " : "",
           t.backend == MICA_CPU ? isas[t.isa] : "", mica_dtype_name(t.dtype));
  return text;
}

int ck_targets(const mica_op *op, ck_target *list, int room) {
  int n = 0, best = micak_best_isa();
  for (int i = 0; i < op->n_kernels; i++) {
    const mica_kernel *k = &op->kernels[i];
    /* a device's kernels run only where they are asked for */
    int known = (k->backend == MICA_CUDA && ck_option.backend != MICA_CUDA) || (k->backend == MICA_REF && k->dtype == MICA_F64) ||
                (ck_option.backend >= 0 && k->backend != ck_option.backend) || (ck_option.half && k->dtype != MICA_BF16);
    for (int j = 0; j < n && !known; j++) known = list[j].backend == k->backend && list[j].dtype == k->dtype;
    for (int isa = 0; !known && isa <= (k->backend == MICA_CPU ? best : 0) && n < room; isa++)
      if (k->backend != MICA_CPU || ck_option.isa < 0 || ck_option.isa == isa)
        list[n++] = (ck_target){ k->backend, k->dtype, isa };
  }
  return n;
}

/* every operation has all faces in the reference and in the fast float kernels, those of the device where it is asked for */
static void check_faces(const mica_op *op) {
  static const int needed[][2] = { { MICA_REF, MICA_F64 }, { MICA_REF, MICA_F32 }, { MICA_REF, MICA_BF16 },
                                   { MICA_CPU, MICA_F32 }, { MICA_CUDA, MICA_F32 }, { MICA_CUDA, MICA_BF16 } };
  ck_where("%s", op->name);
  for (int i = 0; i < MICA_COUNT(needed) - (ck_option.backend == MICA_CUDA ? 0 : 2); i++)
    for (int face = 0; face < MICA_NFACE; face++) {
      const mica_kernel *kernel;
      int32_t count;
      ck_check(mica_op_kernels(op, needed[i][0], needed[i][1], face, &kernel, &count) >= 0, "%s", mica_last_error());
    }
  ck_check(op->budget >= 1 && op->budget <= 100, "its error budget is %g, expected 1 to 100", op->budget);
  ck_check(op->n_cases > 0, "it has no cases");
  ck_check(op->cost != NULL, "it has no cost function");
}

/* larger cases are for tails and blocking: they run in fewer layouts */
static int heavy(const ck_case *c) {
  double flop = 0, bytes = 0;
  if (c->op->cost) c->op->cost(c->args, MICA_FORWARD, &flop, &bytes);
  for (int o = 0; o < c->op->n_operands; o++)
    if ((double)(c->B * c->o[o].elems) * 40 > flop) flop = (double)(c->B * c->o[o].elems) * 40;
  return flop > 2e5;
}

static void check_case(const mica_op *op, int index) {
  const mica_case *k = &op->cases[index];
  if ((k->flags & MICA_CASE_SLOW) && !ck_option.slow) return;
  if (k->flags & MICA_CASE_BENCH) {
    ck_where("%s '%s'", op->name, k->set);
    ck_check_bench(op, k->set);
    return;
  }
  if (k->flags & MICA_CASE_LENGTHS) {
    ck_where("%s '%s'", op->name, k->set);
    ck_check_lengths(op, k);
    return;
  }
  if (k->flags & MICA_CASE_HALF) {
    ck_where("%s '%s'", op->name, k->set);
    ck_check_half(op, k);
    return;
  }
  ck_where("%s '%s'", op->name, k->set);
  if ((k->flags & MICA_CASE_SAME) && ck_check(index > 0, "there is no case before")) ck_check_same(op, k[-1].set, k->set);
  ck_check_cut(op, k->set);
  for (int packed = 0; packed <= ((k->flags & MICA_CASE_PACKED) ? 1 : 0); packed++) {
    ck_case c;
    ck_where("%s '%s'%s", op->name, k->set, packed ? " packed" : "");
    if (ck_check(ck_case_make(op, k->set, (ck_sizes){ .tasks = packed ? 7 : 0, .packed = packed }, &c) >= 0, "%s",
                 mica_last_error())) {
      ck_data d = { 0 };
      ck_fill(&c, &d, 1);
      ck_check_identities(&c, &d);
      ck_free(&d);
      /* layouts need a few tasks */
      if (!packed && c.B < 5) {
        ck_case_free(&c);
        ck_check(ck_case_make(op, k->set, (ck_sizes){ .tasks = 5 }, &c) >= 0, "%s", mica_last_error());
      }
      ck_fill(&c, &d, 2);
      int quick = ck_option.quick;
      ck_option.quick |= heavy(&c) && !ck_option.slow;
      ck_check_kernels(&c, &d);
      ck_option.quick = quick;
      ck_free(&d);
    }
    ck_case_free(&c);
    ck_where("%s '%s'", op->name, k->set);
    if (packed) ck_check_packed(op, k->set);
    else if (!ck_option.brief) ck_check_batches(op, k->set);
  }
}

long ck_check_op(const mica_op *op, int only_case) {
  long before = ck_failed;
  shown = 0;
  check_faces(op);
  if (only_case < 0) {
    ck_check_examples(op);
    ck_check_golden(op);
  }
  for (int i = 0; i < op->n_cases; i++)
    if (only_case == -1 || only_case == i) check_case(op, i);
  if (shown > SHOWN && !ck_option.verbose)
    fprintf(ck_option.to_stderr ? stderr : stdout, "  ... and %ld more (--verbose shows all)\n", shown - SHOWN);
  return ck_failed - before;
}

/* ---- contexts ---- */

static void backwards(void *user, int64_t n, mica_body body, void *arg) {
  (void)user;
  while (n-- > 0) body(arg, n, 0);
}

/* memory starts as NaN: scratch must not be trusted */
static void *alloc_nan(void *user, size_t bytes, size_t align) {
  (void)user;
  void *ptr = NULL;
  if (posix_memalign(&ptr, align, bytes)) return NULL;
  return memset(ptr, 0xff, bytes);
}
static void free_nan(void *user, void *ptr, size_t bytes) {
  (void)user;
  (void)bytes;
  free(ptr);
}

int ck_start(const ck_options *options) {
  ck_option = *options;
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30); /* buffers come and go by the thousand: keep their pages */
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
  for (int i = 0; i < CK_CONTEXTS; i++) {
    mica_context_options o = MICA_CONTEXT_OPTIONS_INIT;
    o.threads = i == CK_THREADS ? 3 : 1;
    o.allocator = (mica_allocator){ alloc_nan, free_nan, NULL };
    if (i == CK_BACKWARDS) o.pool = (mica_threads){ backwards, NULL, 1 };
    if (micah_context_new(&o, &ck_context[i]) < 0) {
      fprintf(stderr, "check_ops: %s\n", mica_last_error());
      ck_stop();
      return 2;
    }
  }
  return 0;
}

void ck_stop(void) {
  for (int i = 0; i < CK_CONTEXTS; i++) {
    mica_context_destroy(ck_context[i]);
    ck_context[i] = NULL;
  }
}
