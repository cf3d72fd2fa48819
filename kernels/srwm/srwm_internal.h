/* srwm_internal.h: scratch of one (task, head) pair */
#ifndef MICA_KERNELS_SRWM_INTERNAL_H
#define MICA_KERNELS_SRWM_INTERNAL_H

#include "common/view.h"
#include "srwm/srwm.h"

enum { SRWM_BLOCK = 16, SRWM_RATES = 4, SRWM_MOST = 256 }; /* tokens between two kept states */

/* matrices by name: rows and columns; each with a second copy for its tangent */
enum {
  SRWM_KEPT, SRWM_STEPS, SRWM_G,                          /* states: before each block; before each token of one; back */
  SRWM_X, SRWM_OUT, SRWM_DX,                              /* rows of a block: x, out or its cotangent, x's cotangent */
  SRWM_P, SRWM_A, SRWM_C, SRWM_E, SRWM_RATE, SRWM_Z, SRWM_U, /* of each token: features, a - c, rates, readings */
  SRWM_READ, SRWM_DU, SRWM_DZ, SRWM_PART, SRWM_DF, SRWM_COUNT /* one row each */
};
typedef struct srwm_layout {
  int64_t at[SRWM_COUNT], ld[SRWM_COUNT], size[SRWM_COUNT], total; /* elements */
} srwm_layout;

/* rows are padded to whole vectors of `vw` */
static inline void srwm_layout_of(const mica_srwm_args *a, int face, int64_t vw, srwm_layout *l) {
  int back = face == MICA_BACKWARD || face == MICA_BACKWARD_JVP;
  int64_t dual = face == MICA_FORWARD || face == MICA_BACKWARD ? 1 : 2, n = SRWM_BLOCK;
  int64_t K = (a->K + vw - 1) / vw * vw, V = (a->V + vw - 1) / vw * vw, R = (a->R + vw - 1) / vw * vw;
  int64_t states = a->K * R, blocks = a->T > n ? (a->T + n - 1) / n : 1;
  int64_t ld[SRWM_COUNT] = { R, R, R, K, V, K, K, K, K, K, R, R, R, R, R, R, R, R };
  int64_t size[SRWM_COUNT] = { states * (back ? blocks : 1), back ? states * n : 0, back ? states : 0, n * K, n * V,
                               n * K, n * K, n * K, n * K, n * K, n * R, n * R, n * R, R, R, R, R, R };
  l->total = 0;
  for (int i = 0; i < SRWM_COUNT; i++) {
    l->at[i] = l->total, l->ld[i] = ld[i], l->size[i] = (size[i] + 15) / 16 * 16;
    l->total += l->size[i] * dual;
  }
}

#endif
