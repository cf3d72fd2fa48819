/* memory.h: a memory is a matrix S (K,V) that is written by outer products and read by products. what the rooms of
 * linear attention and of the delta rules share: sizes, cuts and scratch. the arithmetic is in memory_chunk.inc.
 *
 *   P_t = diag(a_t) S_(t-1)          decay: none, one factor a head, or one a key channel
 *   e_t = v_t - P_t' k_t             (delta rules; else e_t = v_t)
 *   S_t = P_t + k_t (beta_t e_t)'    (beta absent: 1)
 *   o_t = S_t' q_t
 * with `keys`, S has one more column that sums the keys; with `divide`, out_t = o_t / (its reading + eps).
 * the CUDA kernels also take the rule of gradient_memory.h: momentum, the last change, a period. */
#ifndef MICA_KERNELS_COMMON_MEMORY_H
#define MICA_KERNELS_COMMON_MEMORY_H

#include "common/view.h"

enum { MICAK_MEMORY_AUTO, MICAK_MEMORY_CHUNKED, MICAK_MEMORY_RECURRENT }; /* form; auto: by shape, on the CPU in chunks */
enum { MICAK_DECAY_NONE, MICAK_DECAY_SCALAR, MICAK_DECAY_CHANNEL };

/* one rule on given ports. ports that the rule does not have are NULL */
typedef struct micak_memory {
  const char      *name;
  int64_t          B, T, H, K, V;
  int64_t          form, chunk;              /* chunk: 0 = by shape */
  int              delta, decay;             /* of the rule: delta or additive; kind of decay */
  int              keys, divide;             /* S has one more column, the sum of keys; outputs are divided by it */
  double           eps;
  const mica_port *q, *k, *v, *beta, *a;     /* (B,T,H,K), (B,T,H,K), (B,T,H,V), (B,T,H), (B,T,H) or (B,T,H,K) */
  const mica_port *state_in, *state_out;     /* (B,H,K,V) */
  const mica_port *norm_in, *norm_out;       /* (B,H,K) */
  int              period, held;             /* of a rule with momentum; else 0 */
  const mica_port *m, *moment_in, *moment_out; /* (B,T,H), (B,H,K,V) */
  const mica_port *out;                      /* (B,T,H,V) */
} micak_memory;

enum { MICAK_MEMORY_MOST = 256 };            /* K and V */
enum { MICAK_MEMORY_BLOCK = 16, MICAK_BLOCK_MOST = 64 }; /* tokens of a block, and K and V (memory_block.h) */

enum { MICAK_LANES_TOKENS = 16, MICAK_LANES_CELLS = 1024 }; /* most tokens, and tokens x (K + V), of a pair in a lane */

/* products C = A B: what is known to be zero, or need not be computed */
enum { MICAK_MM_FULL, MICAK_MM_LOWER_C, MICAK_MM_LOWER_A, MICAK_MM_UPPER_A };
/* tokens of a chunk; recurrent: tokens between two kept states */
int64_t micak_memory_chunk(const micak_memory *m);
/* chunks of the longest sequence, at least 1 */
int64_t micak_memory_chunks(const micak_memory *m);

/* scratch: matrices by name, each with a second copy for its tangent where the face has tangents */
enum {
  MICAK_M_S, MICAK_M_Q, MICAK_M_K, MICAK_M_V, MICAK_M_BETA, MICAK_M_A, MICAK_M_E, MICAK_M_U, MICAK_M_KT, MICAK_M_GRAM,
  MICAK_M_M, MICAK_M_TMP, MICAK_M_O, MICAK_M_GAMMA, MICAK_M_KG, MICAK_M_QG, MICAK_M_KD, MICAK_M_W,
  MICAK_M_DO, MICAK_M_DU, MICAK_M_NY, MICAK_M_DBETA, MICAK_M_UT, MICAK_M_DM, MICAK_M_DGRAM, MICAK_M_DQ, MICAK_M_DK,
  MICAK_M_DA, MICAK_M_DKG, MICAK_M_DQG, MICAK_M_DKD, MICAK_M_OMEGA, MICAK_M_ST, MICAK_M_G, MICAK_M_GT, MICAK_M_STEPS,
  MICAK_M_DOT, MICAK_M_YT, MICAK_M_COUNT
};
typedef struct micak_memory_layout {
  int64_t at[MICAK_M_COUNT], size[MICAK_M_COUNT], ld[MICAK_M_COUNT], panel[MICAK_M_COUNT]; /* elements */
  int64_t total;
} micak_memory_layout;
/* rows are padded to whole vectors of `vw` elements; transposed matrices lie in panels of 2 vw columns (1: plain) */
void micak_memory_layout_of(const micak_memory *m, int face, int64_t vw, micak_memory_layout *layout);

/* of a face or a fused slot: has it tangents? does it walk back? */
static inline int micak_memory_dual(int face) { return face != MICA_FORWARD && face != MICA_BACKWARD; }
static inline int micak_memory_back(int face) {
  return face == MICA_BACKWARD || face == MICA_BACKWARD_JVP || face == MICA_BACKWARD_WITH_JVP;
}

/* may this memory go in blocks? then the layout that it needs: rows and columns padded to whole blocks */
int  micak_memory_blocked(const micak_memory *m);
void micak_memory_block_layout(const micak_memory *m, int face, micak_memory_layout *layout);

/* may a pair of T tokens go in a lane beside others (memory_lanes.h), if nothing comes in or goes out by the state? */
int  micak_memory_lanes(const micak_memory *m, int64_t T);

/* does an output of this face sum over tasks? then a unit is a head of all tasks in order, else a (task, head) pair */
int  micak_memory_sums(const micak_memory *m, int face);
void micak_memory_split(const micak_memory *m, int face, mica_split *split);
void micak_memory_cost(const micak_memory *m, int face, double *flop, double *bytes);
/* sizes within range */
mica_status micak_memory_check(const micak_memory *m);

#endif
