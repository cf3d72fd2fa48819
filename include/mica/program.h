/* program.h: a model is one static list of operations with four passes.
 *
 * build: create, axes, params, inputs, ops (and call / map / scan), outputs, seal. a sealed program is immutable and may
 * be shared by threads. run: an executor binds memory and runs passes. */
#ifndef MICA_PROGRAM_H
#define MICA_PROGRAM_H

#include "mica/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_program  mica_program;
typedef struct mica_executor mica_executor;
typedef int32_t mica_value;      /* a value of one program; negative: building failed (the status) */

enum { MICA_NO_AXIS = -1 };      /* one row a task */

/* ---- building: calls return a value or axis >= 0, or a negative status. a failed call poisons the program, so that a
 * chain of calls needs one check, at seal, which repeats the first message. ---- */
MICA_API mica_status mica_program_create(mica_context *context, const char *name, mica_program **out);
MICA_API void        mica_program_destroy(mica_program *program);

/* what the program is for. a model may build something else for each: for steps of an inner loop (the default), for the
 * loss that training goes down, for evaluation and prediction */
enum { MICA_PHASE_STEP, MICA_PHASE_TRAIN, MICA_PHASE_EVALUATE };
MICA_API mica_status mica_program_set_phase(mica_program *program, int32_t phase);
MICA_API int32_t     mica_program_get_phase(const mica_program *program);

/* a ragged axis under `parent` (MICA_NO_AXIS: under the task); same name twice gives the same axis. */
MICA_API int32_t mica_program_axis(mica_program *program, const char *name, int32_t parent);

/* how a parameter starts: drawn by Philox keyed by (seed, name, element) */
enum { MICA_INIT_ZERO, MICA_INIT_ONE, MICA_INIT_NORMAL, MICA_INIT_UNIFORM, MICA_INIT_CONSTANT };
typedef struct mica_init { int32_t kind; double scale; } mica_init; /* NORMAL: std; UNIFORM: +- scale; CONSTANT: it */

/* names are paths, "layers.0.attn.qkv.weight", as in PyTorch's state_dict. decay: weight decay applies. */
MICA_API mica_value mica_program_param(mica_program *program, const char *name, int32_t rank, const int64_t *shape,
                                       mica_init init, int32_t decay);
/* rows of shape `shape` over `axis`; dtype MICA_F32 follows the executor's compute type. */
MICA_API mica_value mica_program_input(mica_program *program, const char *name, int32_t dtype, int32_t axis,
                                       int32_t rank, const int64_t *shape);
/* a constant scalar or row, filled with `value`; shared by all tasks. */
MICA_API mica_value mica_program_constant(mica_program *program, double value, int32_t rank, const int64_t *shape);

typedef struct mica_bind { const char *port; mica_value value; } mica_bind;

/* append operation `op` under the path `name` with "key=value ..." settings; sizes are unified from the bound values, what
 * is left comes from settings and infer(). returns the first output. */
MICA_API mica_value mica_program_op(mica_program *program, const char *name, const char *op, const char *settings,
                                    int32_t n, const mica_bind *binds);
/* another output of the entry that made `value`, by port name. */
MICA_API mica_value mica_program_port(mica_program *program, mica_value value, const char *port);

/* a view: same memory, rows re-shaped ("rows (3C) -> (3,H,D)") or a slice of the leading row dim; differentiable. */
MICA_API mica_value mica_program_reshape(mica_program *program, mica_value value, int32_t rank, const int64_t *shape);
MICA_API mica_value mica_program_slice(mica_program *program, mica_value value, int64_t start, int64_t count);

/* subprograms (sealed): binds name the sub's inputs and params; params not bound become params of this program under
 * name.<param>. results are taken by mica_program_port(program, returned value, output name). */
MICA_API mica_value mica_program_call(mica_program *program, const char *name, const mica_program *sub, int32_t n,
                                      const mica_bind *binds);
/* the sub's tasks are the rows of `axis`; values without that axis enter by slot vectors. */
MICA_API mica_value mica_program_map(mica_program *program, const char *name, const mica_program *sub, int32_t axis,
                                     int32_t n, const mica_bind *binds);
/* loop over the rows of `axis` in order. carry pairs name a sub input and the sub output that feeds it at the next row;
 * the bound value is its start. other binds over `axis` enter row by row. outputs: every sub output, one row a step, and
 * last.<carry output>. the backward pass keeps square-root checkpoints of the carry. */
typedef struct mica_carry { const char *input, *output; } mica_carry;
MICA_API mica_value mica_program_scan(mica_program *program, const char *name, const mica_program *sub, int32_t axis,
                                      int32_t n, const mica_bind *binds, int32_t n_carry, const mica_carry *carry);

/* the gradient of a sealed subprogram: F is the sum of the rows of its output `loss`. outputs: grad.<name> for each of
 * the inputs or parameters in `wrt`, with their shape, one for each task; and the subprogram's own outputs. jvp and
 * backward are the sweep of Hessian-vector products; backward_jvp, a third derivative, is MICA_ERR_UNSUPPORTED. binds as
 * in call. second derivatives of a program that uses it in a loss are exact: MAML is a call of the update. */
MICA_API mica_value mica_program_grad(mica_program *program, const char *name, const mica_program *sub,
                                      const char *loss, int32_t n_wrt, const char *const *wrt, int32_t n,
                                      const mica_bind *binds);

MICA_API mica_status mica_program_output(mica_program *program, const char *name, mica_value value);
MICA_API mica_status mica_program_seal(mica_program *program);

/* ---- looking ---- */
typedef struct mica_value_info {
  const char *name;
  int32_t     dtype, axis, rank, kind;       /* MICA_VALUE_* */
  int64_t     shape[MICA_MAX_RANK - 1];      /* of a row; the axis not included */
  int64_t     count;                         /* elements of a row */
  int64_t     offset;                        /* params: elements from the start of the parameter block */
  mica_init   init;
  int32_t     decay;
} mica_value_info;
enum { MICA_VALUE_PARAM, MICA_VALUE_INPUT, MICA_VALUE_CONSTANT, MICA_VALUE_ARENA, MICA_VALUE_VIEW };
MICA_API mica_status mica_program_info(const mica_program *program, mica_value value, mica_value_info *out);
/* n-th parameter / input / output, in order of creation; negative past the end. */
MICA_API mica_value  mica_program_get_param(const mica_program *program, int32_t index);
MICA_API mica_value  mica_program_get_input(const mica_program *program, int32_t index);
MICA_API mica_value  mica_program_get_output(const mica_program *program, int32_t index);
MICA_API mica_value  mica_program_find(const mica_program *program, const char *name); /* param, input or output */
MICA_API const char *mica_program_output_name(const mica_program *program, int32_t index);
MICA_API int32_t     mica_program_n_axes(const mica_program *program);
MICA_API const char *mica_program_axis_name(const mica_program *program, int32_t axis);
MICA_API int64_t     mica_program_param_count(const mica_program *program); /* elements of the parameter block */

/* ---- running ---- */
enum { MICA_PASS_FORWARD = 1, MICA_PASS_BACKWARD = 2, MICA_PASS_JVP = 4, MICA_PASS_BACKWARD_JVP = 8 };

typedef struct mica_executor_options {
  size_t         size;           /* sizeof(mica_executor_options) */
  int32_t        backend, dtype; /* MICA_CPU / MICA_F32 by default */
  int32_t        passes;         /* that will ever run */
  int32_t        fused;          /* 1: the passes always run in one call, and share one arena (a training step); 0: apart */
  int64_t        tasks;          /* capacity class: most tasks, ... */
  const int64_t *rows;           /* ... most rows in all of each axis, ... */
  const int64_t *longest;        /* ... and most rows of one task (or parent row) */
  const mica_value *wants;       /* values outside (params, inputs) whose d / td / t are ever bound; NULL: all params */
  int32_t        n_wants;
  double         recompute;      /* values that the passes back may compute again instead of keeping them: at most this part
                                  * of the forward's flop; cheapest for their memory first. 0: keep all. same bits */
  int32_t        device;         /* MICA_CUDA: which, from 0 */
  void          *stream;         /* MICA_CUDA: where passes go; NULL: the device's own */
} mica_executor_options;
#define MICA_EXECUTOR_OPTIONS_INIT                                                                                    \
  { sizeof(mica_executor_options), MICA_CPU, MICA_F32, MICA_PASS_FORWARD, 1, 1, NULL, NULL, NULL, 0, 0, 0, NULL }

/* one thread at a time; owns its scratch, taken from the context's allocator (MICA_CUDA: the device) here and never
 * later. on MICA_CUDA data of wires and `saved` are device memory; slots and offsets that are bound are host memory on
 * every backend, read by the next run. run only enqueues: wait for the stream before reading results. arguments that
 * come again are replayed as a graph; on a stream that is being captured run becomes plain launches. */
MICA_API mica_status mica_executor_create(mica_context *context, const mica_program *program,
                                          const mica_executor_options *options, mica_executor **out);
MICA_API void        mica_executor_destroy(mica_executor *executor);

/* bytes: saved is the caller's, one for each forward still to be differentiated (0 when fused); scratch is the
 * executor's; peak is the exact lower bound of live bytes that the plan is measured against. */
typedef struct mica_memory { int64_t saved, scratch, peak; } mica_memory;
MICA_API mica_status mica_executor_memory(const mica_executor *executor, mica_memory *out);

/* number of tasks, and each axis's packed offsets (tasks + 1) or NULL with a fixed length. */
MICA_API mica_status mica_executor_set_tasks(mica_executor *executor, int64_t tasks);
MICA_API mica_status mica_executor_set_axis(mica_executor *executor, int32_t axis, const int32_t *offsets,
                                            int64_t length);
/* bind one wire (MICA_V ...) of all parameters: a parameter lies at data + info.offset, tasks at slot x task_stride. */
MICA_API mica_status mica_executor_set_params(mica_executor *executor, int wire, void *data, int64_t task_stride,
                                              const int32_t *slot, uint32_t flags);
/* bind one wire of one input, parameter or output. inputs are dense packed rows unless strides say otherwise: only data,
 * slot, task_stride and flags of `wire` are used. an output's d / td is a seed that the caller binds; its v / t may be
 * bound to have it written there. data NULL unbinds. */
MICA_API mica_status mica_executor_set_value(mica_executor *executor, mica_value value, int wire,
                                             const mica_wire *binding);
/* where an output's wire lies after a run; valid until the next run (saved: as long as `saved`). */
MICA_API mica_status mica_executor_get_value(const mica_executor *executor, mica_value value, int wire,
                                             mica_wire *out);
/* run passes (a mask) in the order forward, jvp, backward, backward_jvp. saved: NULL when fused. */
MICA_API mica_status mica_executor_run(mica_executor *executor, int32_t passes, void *saved);

/* seconds spent in each entry and face since the last call with reset; lines of "path op face seconds calls". a fused slot
 * counts for the first of its faces. */
typedef void (*mica_profile_fn)(void *user, const char *path, const char *op, int face, double seconds, int64_t calls);
MICA_API mica_status mica_executor_profile(mica_executor *executor, int32_t enable, mica_profile_fn fn, void *user);

#ifdef __cplusplus
}
#endif
#endif
