/* gradient_memory_internal.h: scratch of one (task, head) pair */
#ifndef MICA_KERNELS_GRADIENT_MEMORY_INTERNAL_H
#define MICA_KERNELS_GRADIENT_MEMORY_INTERNAL_H

#include "common/rows.h"
#include "common/view.h"
#include "gradient_memory/gradient_memory.h"

enum { MEMORY_BLOCK = 16, MEMORY_MOST = 256 };   /* tokens between two kept states; K and V */
enum { MEMORY_RUNNING, MEMORY_HELD };            /* read */

/* matrices by name, each with a second copy for its tangent */
enum {
  GM_S, GM_Y, GM_A,                              /* S, Y and S_a before each block of tokens */
  GM_STEP_S, GM_STEP_Y, GM_STEP_A,               /* before each token of one, and after the last */
  GM_DS, GM_DY, GM_DA,                           /* their cotangents */
  GM_Q, GM_K, GM_V, GM_OUT, GM_E, GM_U,          /* rows of a block; out or its cotangent */
  GM_BETA, GM_DECAY, GM_MOMENTUM,                /* numbers of a block, one a row */
  GM_DQ, GM_DK, GM_DV, GM_DBETA, GM_DDECAY, GM_DMOMENTUM, GM_DU, GM_COUNT
};
typedef struct gm_layout {
  int64_t at[GM_COUNT], ld[GM_COUNT], size[GM_COUNT], total; /* elements */
} gm_layout;

/* rows are padded to whole vectors of `vw` */
static inline void gm_layout_of(const mica_gradient_memory_args *a, int face, int64_t vw, gm_layout *l) {
  int64_t back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  int64_t dual = face == MICA_FORWARD || face == MICA_BACKWARD ? 1 : 2, n = MEMORY_BLOCK;
  int64_t K = (a->K + vw - 1) / vw * vw, V = (a->V + vw - 1) / vw * vw;
  int64_t kept = a->K * V * (back && a->T > n ? (a->T + n - 1) / n : 1), steps = back * a->K * V * (n + 1);
  int64_t state = back * a->K * V, anchors = back * a->K * V * n;
  int64_t ld[GM_COUNT] = { V, V, V, V, V, V, V, V, V, K, K, V, V, V, V, 1, 1, 1, K, K, V, 1, 1, 1, V };
  int64_t size[GM_COUNT] = { kept, kept, kept, steps, steps, anchors, state, state, state, n * K, n * K, n * V, n * V,
                             n * V, n * V, n, n, n, n * K, n * K, n * V, n, n, n, V };
  l->total = 0;
  for (int i = 0; i < GM_COUNT; i++) {
    l->at[i] = l->total, l->ld[i] = ld[i], l->size[i] = (size[i] + 15) / 16 * 16;
    l->total += l->size[i] * dual;
  }
}

/* does an output of this face sum over tasks? then a unit is a head of all tasks in order, else a (task, head) pair */
static inline int gm_sums(const mica_gradient_memory_args *a, int face) {
  static const int bit[MICA_NFACE] = { MICA_V, MICA_D, MICA_T, MICA_TD };
  const mica_port *down[] = { &a->out, &a->state_out, &a->moment_out };
  const mica_port *up[] = { &a->q, &a->k, &a->v, &a->beta, &a->decay, &a->momentum, &a->state_in, &a->moment_in };
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  return micak_ports_sum(back ? up : down, back ? MICA_COUNT(up) : MICA_COUNT(down), bit[face], a->B);
}

#endif
