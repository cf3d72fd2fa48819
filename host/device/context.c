#include "device/context.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/isa.h"
#include "common/names.h"
#include "device/device.h"
#include "device/pool.h"
#include "mica/model.h"

/* all descriptors begin alike */
typedef struct descriptor {
  size_t      size;
  const char *name, *doc;
} descriptor;

typedef struct registry {
  const descriptor **item;
  int32_t            count, capacity;
} registry;

enum { OPS, FAMILIES, MODELS, LOSSES, N_REGISTRIES };
static const struct { const char *kind; size_t size; } kinds[N_REGISTRIES] = {
  { "operation", sizeof(mica_op) },
  { "family", sizeof(mica_family) },
  { "model", sizeof(mica_model) },
  { "loss", sizeof(mica_loss) },
};

struct mica_context {
  mica_allocator allocator;
  mica_threads   threads;
  micah_pool    *pool;
  mica_log_fn    log;
  void          *log_user;
  int32_t        isa;
  registry       registry[N_REGISTRIES];
  void         **plugin;
  int32_t        n_plugins;
  micah_device_list devices;
};

/* ---- memory ---- */

static void *default_alloc(void *user, size_t bytes, size_t align) {
  (void)user;
  void *ptr = NULL;
  if (align < sizeof(void *)) align = sizeof(void *);
  /* large blocks on huge pages where the system gives them: fewer misses of the address cache, 5-20 % of wide layers */
  size_t huge = (size_t)2 << 20;
  if (bytes >= huge && align < huge) align = huge;
  if (posix_memalign(&ptr, align, bytes ? bytes : 1)) return NULL;
#ifdef MADV_HUGEPAGE
  if (bytes >= huge) madvise(ptr, bytes / huge * huge, MADV_HUGEPAGE);
#endif
  return ptr;
}
static void default_free(void *user, void *ptr, size_t bytes) {
  (void)user;
  (void)bytes;
  free(ptr);
}

void *micah_alloc(const mica_context *context, size_t bytes, const char *what) {
  void *ptr = context->allocator.alloc(context->allocator.user, bytes ? bytes : 1, 64);
  if (!ptr) mica_error(MICA_ERR_MEMORY, "%s: out of memory, %zu bytes asked for", what, bytes);
  return ptr;
}
void micah_free(const mica_context *context, void *ptr, size_t bytes) {
  if (ptr) context->allocator.free(context->allocator.user, ptr, bytes ? bytes : 1);
}

/* ---- life ---- */

mica_status micah_context_new(const mica_context_options *options, mica_context **out) {
  static const mica_context_options defaults = MICA_CONTEXT_OPTIONS_INIT;
  if (!out) return mica_error(MICA_ERR_INVALID, "mica_context_create: no place for the result");
  *out = NULL;
  if (!options) options = &defaults;
  if (options->size != sizeof *options)
    return mica_error(MICA_ERR_INVALID, "context options say %zu bytes, expected %zu; start from MICA_CONTEXT_OPTIONS_INIT",
                      options->size, sizeof *options);
  if (options->threads < 0 || options->threads > 4096)
    return mica_error(MICA_ERR_INVALID, "context options: threads is %d, expected 0 (all cores) to 4096",
                      (int)options->threads);
  if (options->isa < -1 || options->isa > MICA_ISA_AVX512)
    return mica_error(MICA_ERR_INVALID, "context options: isa is %d, expected -1 (best) to %d", (int)options->isa,
                      (int)MICA_ISA_AVX512);
  if (!options->allocator.alloc != !options->allocator.free)
    return mica_error(MICA_ERR_INVALID, "context options: an allocator needs both alloc and free");
  if (options->pool.parallel_for && options->pool.workers < 1)
    return mica_error(MICA_ERR_INVALID, "context options: pool.workers is %d, expected >= 1", (int)options->pool.workers);
  mica_allocator allocator = options->allocator;
  if (!allocator.alloc) {
    allocator.alloc = default_alloc;
    allocator.free = default_free;
  }
  mica_context *context = allocator.alloc(allocator.user, sizeof *context, 64);
  if (!context) return mica_error(MICA_ERR_MEMORY, "context: out of memory");
  memset(context, 0, sizeof *context);
  context->allocator = allocator;
  pthread_mutex_init(&context->devices.lock, NULL);
  context->threads = options->pool;
  context->log = options->log;
  context->log_user = options->log_user;
  int32_t best = micak_best_isa();
  context->isa = options->isa >= 0 && options->isa < best ? options->isa : best;
  mica_status status = MICA_OK;
  if (!context->threads.parallel_for) {
    int32_t workers = options->threads ? options->threads : micah_pool_cores();
    status = micah_pool_create(&context->allocator, workers, &context->pool);
    context->threads = (mica_threads){ micah_pool_parallel_for, context->pool, workers };
  }
  if (status >= 0) status = micah_register_ops(context);
  micah_device *cpu;
  if (status >= 0) status = micah_context_device(context, MICA_CPU, 0, &cpu);
  if (status < 0) {
    mica_context_destroy(context);
    return status;
  }
  *out = context;
  return MICA_OK;
}

void mica_context_destroy(mica_context *context) {
  if (!context) return;
  micah_devices_close(context);
  pthread_mutex_destroy(&context->devices.lock);
  micah_pool_destroy(context->pool);
  for (int i = 0; i < N_REGISTRIES; i++)
    micah_free(context, context->registry[i].item, (size_t)context->registry[i].capacity * sizeof(void *));
  for (int32_t i = context->n_plugins; i-- > 0;) dlclose(context->plugin[i]);
  micah_free(context, context->plugin, (size_t)context->n_plugins * sizeof(void *));
  mica_allocator allocator = context->allocator;
  allocator.free(allocator.user, context, sizeof *context);
}

micah_device_list *micah_context_devices(mica_context *context) { return &context->devices; }
const mica_allocator *mica_context_get_allocator(const mica_context *context) { return &context->allocator; }
const mica_threads *mica_context_get_threads(const mica_context *context) { return &context->threads; }
int32_t mica_context_get_isa(const mica_context *context) { return context->isa; }

void mica_log(const mica_context *context, int level, const char *format, ...) {
  if (!context || !context->log) return;
  char text[1024];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  context->log(context->log_user, level, text);
}

/* ---- registries ---- */

static const char *item_name(const void *list, int index) {
  const registry *r = list;
  return index < r->count ? r->item[index]->name : NULL;
}

static mica_status add(mica_context *context, int which, const void *item) {
  registry *r = &context->registry[which];
  const descriptor *d = item;
  const char *kind = kinds[which].kind;
  if (!d || !d->name) return mica_error(MICA_ERR_INVALID, "register %s: no descriptor or no name", kind);
  if (d->size != kinds[which].size)
    return mica_error(MICA_ERR_INVALID, "register %s '%s': descriptor says %zu bytes, expected %zu; built for another version?",
                      kind, d->name, d->size, kinds[which].size);
  if (!d->name[0] || d->name[strspn(d->name, "abcdefghijklmnopqrstuvwxyz0123456789_")])
    return mica_error(MICA_ERR_INVALID, "register %s '%s': a name has only a-z, 0-9 and _", kind, d->name);
  for (int32_t i = 0; i < r->count; i++)
    if (!strcmp(r->item[i]->name, d->name))
      return mica_error(MICA_ERR_STATE, "register %s '%s': the name is taken", kind, d->name);
  if (r->count == r->capacity) {
    int32_t capacity = r->capacity ? 2 * r->capacity : 64;
    const descriptor **grown = micah_alloc(context, (size_t)capacity * sizeof *grown, "registry");
    if (!grown) return MICA_ERR_MEMORY;
    if (r->count) memcpy(grown, r->item, (size_t)r->count * sizeof *grown);
    micah_free(context, r->item, (size_t)r->capacity * sizeof *grown);
    r->item = grown;
    r->capacity = capacity;
  }
  r->item[r->count++] = d;
  return MICA_OK;
}

static mica_status find(const mica_context *context, int which, const char *name, const void **out) {
  const registry *r = &context->registry[which];
  *out = NULL;
  for (int32_t i = 0; name && i < r->count; i++)
    if (!strcmp(r->item[i]->name, name)) {
      *out = r->item[i];
      return MICA_OK;
    }
  const char *near = name ? micak_nearest(name, item_name, r) : NULL;
  return mica_error(MICA_ERR_NOT_FOUND, "no %s '%s'%s%s%s", kinds[which].kind, name ? name : "(null)",
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static const void *nth(const mica_context *context, int which, int32_t index) {
  const registry *r = &context->registry[which];
  return index >= 0 && index < r->count ? r->item[index] : NULL;
}

/* tables are data: walk them before anything trusts them */
static mica_status check_op(const mica_op *op) {
  if (op->n_dims < 1 || op->n_operands < 1 || op->args_size < sizeof(size_t))
    return mica_error(MICA_ERR_INVALID, "operation '%s' has no sizes, no operands or no argument struct", op->name);
  for (int i = 0; i < op->n_operands; i++) {
    const mica_operand *o = &op->operands[i];
    int rank = 0;
    if (o->offset + sizeof(mica_port) > op->args_size)
      return mica_error(MICA_ERR_INVALID, "operation '%s': operand %s lies outside of the argument struct", op->name, o->name);
    for (const char *p = o->shape; *p; rank++) {
      size_t n = strcspn(p, " ");
      int known = p[0] >= '0' && p[0] <= '9';
      for (int k = 0; k < op->n_dims && !known; k++)
        known = strlen(op->dims[k].name) == n && !memcmp(op->dims[k].name, p, n);
      if (!known)
        return mica_error(MICA_ERR_INVALID, "operation '%s': operand %s has shape '%s' with the unknown size '%.*s'",
                          op->name, o->name, o->shape, (int)n, p);
      p += n + strspn(p + n, " ");
    }
    if (rank < 1 || rank > MICA_MAX_RANK)
      return mica_error(MICA_ERR_INVALID, "operation '%s': operand %s has rank %d, expected 1 to %d", op->name, o->name,
                        rank, (int)MICA_MAX_RANK);
  }
  for (int i = 0; i < op->n_kernels; i++) {
    const mica_kernel *k = &op->kernels[i];
    if (!k->run || k->backend < 0 || k->backend >= MICA_NBACKEND || k->dtype < 0 || k->dtype >= MICA_NDTYPE ||
        k->face < 0 || k->face >= MICA_NSLOT)
      return mica_error(MICA_ERR_INVALID, "operation '%s': row %d of the kernel table is malformed", op->name, i);
  }
  return MICA_OK;
}

mica_status mica_register_op(mica_context *context, const mica_op *op) {
  if (op && op->size == sizeof *op && op->name) {
    mica_status status = check_op(op);
    if (status < 0) return status;
  }
  return add(context, OPS, op);
}
mica_status mica_register_family(mica_context *context, const mica_family *family) { return add(context, FAMILIES, family); }
mica_status mica_register_model(mica_context *context, const mica_model *model) { return add(context, MODELS, model); }
mica_status mica_register_loss(mica_context *context, const mica_loss *loss) { return add(context, LOSSES, loss); }

#define FIND(type, which)                                                                              \
  mica_status mica_find_##type(const mica_context *context, const char *name, const mica_##type **out) { \
    const void *item;                                                                                  \
    mica_status status = find(context, which, name, &item);                                            \
    *out = item;                                                                                       \
    return status;                                                                                     \
  }                                                                                                    \
  const mica_##type *mica_get_##type(const mica_context *context, int32_t index) { return nth(context, which, index); }
FIND(op, OPS)
FIND(family, FAMILIES)
FIND(model, MODELS)
FIND(loss, LOSSES)

#define MICA_OP(name, room) extern const mica_op mica_op_##name;
#include "ops.def"
#undef MICA_OP

mica_status micah_register_ops(mica_context *context) {
  static const mica_op *const ops[] = {
#define MICA_OP(name, room) &mica_op_##name,
#include "ops.def"
#undef MICA_OP
    NULL
  };
  for (int i = 0; ops[i]; i++) {
    mica_status status = mica_register_op(context, ops[i]);
    if (status < 0) return status;
  }
  return MICA_OK;
}

/* ---- plugins ---- */

mica_status mica_load_plugin(mica_context *context, const char *path) {
  if (!path || !*path) return mica_error(MICA_ERR_INVALID, "load plugin: no path");
  /* without a slash dlopen would search the system's library folders */
  char local[4096];
  int length = snprintf(local, sizeof local, "%s%s", strchr(path, '/') ? "" : "./", path);
  if (length < 0 || (size_t)length >= sizeof local) return mica_error(MICA_ERR_INVALID, "load plugin: the path is too long");
  void *handle = dlopen(local, RTLD_NOW | RTLD_LOCAL);
  if (!handle) return mica_error(MICA_ERR_IO, "plugin '%s' cannot be loaded: %s", path, dlerror());
  mica_status (*enter)(mica_context *) = NULL;
  void *symbol = dlsym(handle, "mica_plugin");
  memcpy(&enter, &symbol, sizeof enter);
  if (!enter) {
    dlclose(handle);
    return mica_error(MICA_ERR_FORMAT, "plugin '%s' exports no 'mica_status mica_plugin(mica_context *)'", path);
  }
  size_t n = (size_t)context->n_plugins;
  void **grown = micah_alloc(context, (n + 1) * sizeof *grown, "plugins");
  if (!grown) {
    dlclose(handle);
    return MICA_ERR_MEMORY;
  }
  int32_t before[N_REGISTRIES];
  for (int i = 0; i < N_REGISTRIES; i++) before[i] = context->registry[i].count;
  mica_status status = enter(context);
  if (status < 0) {
    /* its descriptors go with it */
    for (int i = 0; i < N_REGISTRIES; i++) context->registry[i].count = before[i];
    micah_free(context, grown, (n + 1) * sizeof *grown);
    char reason[512];
    snprintf(reason, sizeof reason, "%s", mica_last_error());
    dlclose(handle);
    return mica_error(status, "plugin '%s': %s", path, reason);
  }
  if (n) memcpy(grown, context->plugin, n * sizeof *grown);
  grown[n] = handle;
  micah_free(context, context->plugin, n * sizeof *grown);
  context->plugin = grown;
  context->n_plugins++;
  mica_log(context, MICA_LOG_INFO, "plugin '%s' loaded", path);
  return MICA_OK;
}
