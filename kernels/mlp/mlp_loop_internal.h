/* scratch of mlp_loop's kernels */
#ifndef MICA_KERNELS_MLP_LOOP_INTERNAL_H
#define MICA_KERNELS_MLP_LOOP_INTERNAL_H

#include "common/rows.h"
#include "linear/linear.h"
#include "mlp/mlp_loop.h"

enum { MLP_LANES = 16 }; /* columns are rounded up to this in every instruction set */

static inline int64_t mlp_round(int64_t n) { return (n + MLP_LANES - 1) / MLP_LANES * MLP_LANES; }
/* floats of a row of a layer's weights: inputs, the bias, zeros */
static inline int64_t mlp_row(const micak_mlp_loop *m, int layer) { return mlp_round(m->width[layer] + 1); }
static inline int64_t mlp_weights(const micak_mlp_loop *m) {
  int64_t n = 0;
  for (int l = 0; l < m->layers; l++) n += m->width[l + 1] * mlp_row(m, l);
  return n;
}
/* rows of lanes of all activations: inputs of each layer and the 1 of its bias, and the outputs */
static inline int64_t mlp_activations(const micak_mlp_loop *m) {
  int64_t n = m->width[m->layers];
  for (int l = 0; l < m->layers; l++) n += m->width[l] + 1;
  return n;
}
static inline int64_t mlp_transposed(const micak_mlp_loop *m) {
  int64_t n = 0;
  for (int l = 0; l < m->layers; l++) n += MLP_LANES * mlp_row(m, l);
  return n;
}

/* floats of a call's scratch that begin as zeros; the thetas of a stretch come after them */
static inline int64_t mlp_cleared(const micak_mlp_loop *m) {
  return 6 * mlp_weights(m) + 4 * MLP_LANES * mlp_activations(m) + 2 * mlp_transposed(m) + 8 * MLP_LANES;
}

#endif
