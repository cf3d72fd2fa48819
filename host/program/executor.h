/* executor.h (internal): a program with memory. made by executor.c from activity.c (which wires exist), chain.c (steps
 * and groups), plan.c (offsets) and local.c (values of a tile); bind.c fills argument structs, run.c runs. */
#ifndef MICAH_EXECUTOR_H
#define MICAH_EXECUTOR_H

#include "common/op.h"
#include "common/prepare.h"
#include "program/program.h"

enum { MICAH_WIRES = 4 };
static inline int micah_wire_index(int bit) { return bit == MICA_V ? 0 : bit == MICA_D ? 1 : bit == MICA_T ? 2 : 3; }

/* where the wire of a root lies */
enum { MICAH_NOWHERE, MICAH_SCRATCH, MICAH_SAVED_BLOCK, MICAH_OUTSIDE, MICAH_FIXED };
typedef struct micah_store {
  uint8_t where;
  uint8_t zero;                /* clear before the first writer */
  uint8_t seeded;              /* a cotangent that outputs may seed and others add to */
  uint8_t direct;              /* a cotangent that is the caller's seed itself */
  int64_t offset, bytes;
  int32_t first, last;         /* groups that touch it */
  int32_t again, last_again;   /* and of a value that is computed again: those from then on; last_again -1: none */
  int32_t first_segment, last_segment;
  uint8_t local, local_again;  /* that lifetime is within one chain: rows of a tile for each worker, not here */
} micah_store;

/* a wire of a step that lies in the worker's own rows of the tile under way */
typedef struct micah_local {
  int32_t operand, bit;
  int64_t row, at;             /* bytes of a row; where the tile's first row is, in what a worker has */
  int64_t store;               /* whose place in the arena the arguments say */
} micah_local;

/* one phase of one face of one entry */
typedef struct micah_step {
  int32_t            entry;
  int8_t             face, phase, phases;
  uint8_t            rows;     /* row-local when probed */
  uint8_t            late;     /* writes parameter cotangents only: may wait for the end of its chain */
  uint8_t            on;       /* bound: has work now */
  uint8_t            again;    /* computes a value again for the passes back */
  const mica_kernel *kernel;
  const mica_kernel *fused;    /* this face and the next step, its tangent, in one; NULL: there is none */
  mica_split         split;    /* as bound */
  mica_split         both;     /* of `fused` */
  const micak_prepare *prepare;
  micak_need         need;     /* of it, as bound */
  void              *shared;   /* what it fills, while its group runs; NULL: not prepared */
  const micah_local *local;
  int32_t            n_local;
  int64_t            calls;
} micah_step;

/* bytes of what a step's calls share, in whole cache lines */
static inline size_t micah_shared_bytes(const micah_step *step) { return (step->need.bytes + 63) / 64 * 64; }

/* steps that run as one: a chain of row-local phases, tile by tile, or a single phase. one instant for the planner. */
typedef struct micah_group {
  int32_t first, count, segment;
  int64_t tile;                /* rows of a tile */
  int64_t local_rows;          /* most rows of a tile, where values are local to it; else 0 */
} micah_group;

/* rows of an axis as seen from a level */
typedef struct micah_span {
  const int32_t *offsets;      /* [rows(level) + 1], NULL: all of `length` */
  int64_t        length;       /* longest */
  int64_t        bound;        /* at least that: what kernels are given as the longest */
  int64_t        total;        /* rows in all */
  int32_t       *buffer;       /* for composed offsets */
  int64_t        capacity;
} micah_span;

typedef struct micah_axis_size {
  const int32_t *offsets;      /* [parent rows + 1] as given */
  int64_t        length;
} micah_axis_size;

/* slots of a level's tasks in the rows of an axis above it, or in a caller's slot vector */
typedef struct micah_slots {
  int32_t        level, axis;
  const int32_t *user;         /* composed with, NULL: rows of `axis` */
  int32_t       *slot;
  int64_t        capacity;
  int32_t        used;         /* bind number that filled it */
} micah_slots;

typedef struct micah_binding {
  mica_wire wire;
  uint8_t   set;
} micah_binding;

/* bits of mica_executor.probing beside wire bits: only wires that have a place; parameters through slots */
enum { MICAH_PROBE_PLANNED = 16, MICAH_PROBE_SLOTS = 32 };

/* values of mica_executor_options.fused for programs that run others: passes may run apart, but every pass back belongs
 * to the last forward, so entries may keep what that left; micah_forwards(n): to the forward whose number, below n, is in
 * `forward` now and was when that ran */
static inline int32_t micah_forwards(int32_t n) { return -n; }
enum { MICAH_ONE_FORWARD = -1 };
mica_status micah_executor_create(mica_context *context, const mica_program *program,
                                  const mica_executor_options *options, mica_executor **out);

struct mica_executor {
  mica_context       *context;
  const mica_program *program;
  struct micah_device *device;                          /* of the backend; memory.c, graph.c */
  void               *stream;
  struct micah_data  *data;
  int64_t             data_bytes;
  struct micah_upload *upload;
  struct micah_graphs *graphs;
  micah_region        region;
  int32_t             backend, dtype, passes, fused, workers;
  int32_t             forwards, forward;                /* that entries keep for passes back (0: none); which one runs */
  int64_t             kept_bytes;                       /* of one of them, in entries */
  int64_t             tasks, capacity_tasks;
  int64_t            *capacity_rows, *capacity_longest; /* [n_axes] */
  micah_axis_size    *axes;                             /* [n_axes] as set */
  micah_span         *spans;                            /* [(n_axes + 1) * n_axes], level + 1 first */
  micah_slots        *slots;
  int32_t             n_slots, bind_number;
  uint8_t            *wanted, *active;                  /* [n_values], of roots */
  uint8_t            *again;                            /* [n_entries] computed again instead of kept */
  micah_store        *stores;                           /* [n_values * MICAH_WIRES], of roots */
  micah_binding      *bound;                            /* [n_values * MICAH_WIRES], of values */
  mica_wire           params[MICAH_WIRES];
  void              **args;                             /* [n_entries] */
  uint8_t            *adds;                             /* [entry_base + operand]: MICA_D | MICA_TD bits that add */
  int32_t            *operand_base;                     /* [n_entries] */
  micah_step         *steps;
  micah_group        *groups;
  int32_t             n_steps, n_groups, n_segments;
  int32_t            *clears, n_clears;                 /* stores to clear or seed, by first group */
  char               *arena, *saved, *fixed;
  int64_t             arena_bytes, saved_bytes, peak_bytes;
  mica_exec          *exec;                             /* [workers] */
  size_t              kernel_scratch;                   /* of one worker */
  size_t              shared_bytes;                     /* of what the calls of a group share */
  char               *shared;
  int64_t             local_bytes;                      /* of one worker: arguments, then rows of a tile */
  char               *local;
  int32_t             dirty, probing, profile, running; /* running: faces of this run, 1 << face */
  double             *times;                            /* [workers * n_steps] profile */
  micah_step        **list;                             /* [n_steps] of the group that runs */
  void              **inner;                            /* [n_entries] states of entries that run programs */
};

static inline micah_store *micah_store_of(const mica_executor *x, int32_t root, int bit) {
  return &x->stores[(int64_t)root * MICAH_WIRES + micah_wire_index(bit)];
}
static inline micah_binding *micah_bound(const mica_executor *x, int32_t value, int bit) {
  return &x->bound[(int64_t)value * MICAH_WIRES + micah_wire_index(bit)];
}

/* activity.c: wires that a face reads and writes of one operand, absent and inactive ones left out. */
void micah_access(const mica_executor *x, int32_t entry, int face, int operand, int *reads, int *writes);
mica_status micah_activity(mica_executor *x, const mica_value *wants, int32_t n_wants);
int  micah_face_runs(const mica_executor *x, int32_t entry, int face);
/* bytes of one row of a root's wire; dtype of a wire */
int  micah_wire_dtype(const mica_executor *x, int32_t value, int bit);

/* recompute.c: choose the entries that are computed again; args are bound as at capacity. */
mica_status micah_choose_again(mica_executor *x, double budget);

/* chain.c: steps in order, in groups */
mica_status micah_make_steps(mica_executor *x);
void micah_step_split(micah_step *step, const void *args);
/* is what this operand has for row n of the entry's row space its row n alone? */
int micah_aligned(const micah_entry *entry, int operand);
/* scratch of the step alone or fused with the next */
static inline size_t micah_step_scratch(const micah_step *step) {
  size_t alone = step->split.scratch_bytes, both = step->fused ? step->both.scratch_bytes : 0;
  return both > alone ? both : alone;
}
/* plan.c: stores, add flags, offsets */
mica_status micah_plan(mica_executor *x);
/* offsets of n intervals of `bytes` each, alive in [first, last] and [again, last_again] (empty: [INT32_MAX, -1]), so that
 * none that meet in time meet in memory; returns the end, and the exact peak of live bytes. order: 2 n. */
typedef struct micah_interval {
  int64_t bytes, offset;
  int32_t first, last, again, last_again;
} micah_interval;
int64_t micah_pack(micah_interval *intervals, int32_t n, int32_t *order, int64_t *peak);

/* local.c: values that live within one chain and need no more rows than a tile has. between lifetimes and offsets */
mica_status micah_plan_local(mica_executor *x);
/* the arguments of a call that begins at row `first` */
const void *micah_local_args(const mica_executor *x, const micah_step *step, int64_t first, int32_t worker);

/* sizes.c */
mica_status micah_sizes_create(mica_executor *x, const mica_executor_options *options);
mica_status micah_sizes_update(mica_executor *x);      /* spans from axes */
int64_t     micah_rows(const mica_executor *x, int32_t axis);          /* rows of an axis now; NO_AXIS: tasks */
int64_t     micah_capacity(const mica_executor *x, int32_t axis);
const micah_span *micah_span_of(const mica_executor *x, int32_t level, int32_t axis);
/* slots of level's tasks; NULL slot when out of memory is impossible: all are made by create */
mica_status micah_slots_of(mica_executor *x, int32_t level, int32_t axis, const int32_t *user, const int32_t **slot);

/* bind.c: fill all argument structs and splits */
mica_status micah_bind_all(mica_executor *x);
mica_status micah_fill(mica_executor *x, int32_t entry, int operand);
/* the wire of a value as its owner sees it (level of the task, rows dense) */
mica_status micah_value_wire(mica_executor *x, int32_t value, int bit, mica_wire *out);
/* clear the rows of a root's wire, then add the seeds that are bound */
mica_status micah_clear(mica_executor *x, int32_t store);
/* seeds are bound for this root's cotangent */
int micah_seeds_bound(const mica_executor *x, int32_t root, int bit);

#endif
