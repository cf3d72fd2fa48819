/* mlp_memory_internal.h: scratch of one (task, head) pair */
#ifndef MICA_KERNELS_MLP_MEMORY_INTERNAL_H
#define MICA_KERNELS_MLP_MEMORY_INTERNAL_H

#include "common/rows.h"
#include "common/view.h"
#include "mlp_memory/mlp_memory.h"

enum { MLP_MEMORY_BLOCK = 16, MLP_MEMORY_MOST = 256 };  /* tokens between two kept states; K, F and V */

/* matrices by name, each with a second copy for its tangent. states: W1, W2, M1, M2 in this order */
enum { MM_W1, MM_W2, MM_M1, MM_M2, MM_STATES };
enum {
  MM_KEPT,                                   /* states before each block of tokens */
  MM_STEP = MM_KEPT + MM_STATES,             /* before each token of one, and after the last */
  MM_UP = MM_STEP + MM_STATES,               /* their cotangents */
  MM_Q = MM_UP + MM_STATES, MM_K, MM_V, MM_OUT, MM_BETA, MM_DECAY, MM_MOMENTUM, /* of a block; out or its cotangent */
  MM_DQ, MM_DK, MM_DV, MM_DBETA, MM_DDECAY, MM_DMOMENTUM,
  MM_Z, MM_H, MM_SLOPE, MM_BEND, MM_G, MM_C, /* of a token: F numbers */
  MM_READ, MM_READ_SLOPE, MM_DH, MM_DZ,
  MM_E, MM_U, MM_DU,                         /* V numbers */
  MM_COUNT
};
typedef struct mm_layout {
  int64_t at[MM_COUNT], ld[MM_COUNT], size[MM_COUNT], total; /* elements */
} mm_layout;

/* rows are padded to whole vectors of `vw` */
static inline void mm_layout_of(const mica_mlp_memory_args *a, int face, int64_t vw, mm_layout *l) {
  int64_t back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  int64_t dual = face == MICA_FORWARD || face == MICA_BACKWARD ? 1 : 2, n = MLP_MEMORY_BLOCK;
  int64_t K = (a->K + vw - 1) / vw * vw, F = (a->F + vw - 1) / vw * vw, V = (a->V + vw - 1) / vw * vw;
  int64_t blocks = back && a->T > n ? (a->T + n - 1) / n : 1;
  l->total = 0;
  for (int i = 0; i < MM_COUNT; i++) {
    int64_t rows = n, ld = 1;
    if (i < MM_Q) {
      int second = (i - MM_KEPT) % MM_STATES % 2;
      ld = second ? V : F;
      rows = (second ? a->F : a->K) * (i < MM_STEP ? blocks : i < MM_UP ? back * (n + 1) : back);
    } else if (i == MM_Q || i == MM_K || i == MM_DQ || i == MM_DK) {
      ld = K;
    } else if (i == MM_V || i == MM_OUT || i == MM_DV) {
      ld = V;
    } else if (i >= MM_Z) {
      ld = i < MM_E ? F : V, rows = 1;
    }
    l->at[i] = l->total, l->ld[i] = ld, l->size[i] = (rows * ld + 15) / 16 * 16;
    l->total += l->size[i] * dual;
  }
}

/* does an output of this face sum over tasks? then a unit is a head of all tasks in order, else a (task, head) pair */
static inline int mm_sums(const mica_mlp_memory_args *a, int face) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  const mica_port *down[] = { &a->out, &a->first_out, &a->second_out, &a->first_moment_out, &a->second_moment_out };
  const mica_port *up[] = { &a->q, &a->k, &a->v, &a->beta, &a->decay, &a->momentum, &a->first_in, &a->second_in,
                            &a->first_moment_in, &a->second_moment_in };
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  return micak_ports_sum(back ? up : down, back ? MICA_COUNT(up) : MICA_COUNT(down), bit[face], a->B);
}

#endif
