/* context.h: allocator, threads, log and the open registries. there is no global state; everything hangs on a context. */
#ifndef MICA_CONTEXT_H
#define MICA_CONTEXT_H

#include "mica/keys.h"
#include "mica/op.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_context mica_context;
struct mica_family; struct mica_model; struct mica_loss; /* family.h, model.h */

/* memory: align is a power of two; alloc returns NULL when out of memory. free gets the size that alloc got. */
typedef struct mica_allocator {
  void *(*alloc)(void *user, size_t bytes, size_t align);
  void  (*free)(void *user, void *ptr, size_t bytes);
  void   *user;
} mica_allocator;

/* runs body(arg, i, worker) once for each i in [0, n), in any order, on at most `workers` threads; returns when all are
 * done. worker < workers tells apart calls that run at the same time. */
typedef void (*mica_body)(void *arg, int64_t i, int32_t worker);
typedef struct mica_threads {
  void  (*parallel_for)(void *user, int64_t n, mica_body body, void *arg);
  void   *user;
  int32_t workers;
} mica_threads;

enum { MICA_LOG_ERROR, MICA_LOG_WARN, MICA_LOG_INFO, MICA_LOG_DEBUG };
typedef void (*mica_log_fn)(void *user, int level, const char *message);

typedef struct mica_context_options {
  size_t         size;       /* sizeof(mica_context_options) */
  int32_t        threads;    /* workers of the built-in pool; 0: all cores. unused when `pool` is set */
  int32_t        isa;        /* highest MICA_ISA_* to use; -1: best of this machine */
  mica_allocator allocator;  /* alloc NULL: the C library's */
  mica_threads   pool;       /* parallel_for NULL: the built-in pool */
  mica_log_fn    log;        /* NULL: silent */
  void          *log_user;
} mica_context_options;
#define MICA_CONTEXT_OPTIONS_INIT { sizeof(mica_context_options), 0, -1, { NULL, NULL, NULL }, { NULL, NULL, 0 }, NULL, NULL }

/* options may be NULL. the context must outlive all that is made with it. */
MICA_API mica_status mica_context_create(const mica_context_options *options, mica_context **out);
MICA_API void        mica_context_destroy(mica_context *context);
MICA_API const mica_allocator *mica_context_get_allocator(const mica_context *context);
MICA_API const mica_threads   *mica_context_get_threads(const mica_context *context);
MICA_API int32_t               mica_context_get_isa(const mica_context *context);
MICA_API void mica_log(const mica_context *context, int level, const char *format, ...);

/* registries. descriptors are borrowed and must outlive the context; a name may be registered once. */
MICA_API mica_status mica_register_op(mica_context *context, const mica_op *op);
MICA_API mica_status mica_register_family(mica_context *context, const struct mica_family *family);
MICA_API mica_status mica_register_model(mica_context *context, const struct mica_model *model);
MICA_API mica_status mica_register_loss(mica_context *context, const struct mica_loss *loss);

/* find by name; MICA_ERR_NOT_FOUND names the nearest. list: n-th registered, NULL past the end. */
MICA_API mica_status mica_find_op(const mica_context *context, const char *name, const mica_op **out);
MICA_API mica_status mica_find_family(const mica_context *context, const char *name, const struct mica_family **out);
MICA_API mica_status mica_find_model(const mica_context *context, const char *name, const struct mica_model **out);
MICA_API mica_status mica_find_loss(const mica_context *context, const char *name, const struct mica_loss **out);
MICA_API const mica_op            *mica_get_op(const mica_context *context, int32_t index);
MICA_API const struct mica_family *mica_get_family(const mica_context *context, int32_t index);
MICA_API const struct mica_model  *mica_get_model(const mica_context *context, int32_t index);
MICA_API const struct mica_loss   *mica_get_loss(const mica_context *context, int32_t index);

/* load a shared object that exports `mica_status mica_plugin(mica_context *)` and call it; kept open by the context. */
MICA_API mica_status mica_load_plugin(mica_context *context, const char *path);

/* run one face by operation name: the call that stays while argument structs may change. on the threads of the context;
 * MICA_CUDA: on its first CUDA device, with wires, slots and offsets in device memory, and done when it returns. */
MICA_API mica_status mica_op_run(mica_context *context, const char *op, int backend, int dtype, int face,
                                 const void *args);

#ifdef __cplusplus
}
#endif
#endif
