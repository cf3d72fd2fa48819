/* scratch of mlp_loop's kernels */
#ifndef MICA_KERNELS_MLP_LOOP_INTERNAL_H
#define MICA_KERNELS_MLP_LOOP_INTERNAL_H

#include "common/rows.h"
#include "linear/linear.h"
#include "mlp/mlp_loop.h"

enum { MLP_LANES = 16 }; /* columns are rounded up to this in every instruction set */

static inline int64_t mlp_round(int64_t n) { return (n + MLP_LANES - 1) / MLP_LANES * MLP_LANES; }

/* numbers of a parameter, 0 of a bias that there is not */
static inline int64_t mlp_count(const micak_mlp_loop *m, int param) {
  const int l = param / 2;
  if (param % 2) return m->bias[l] ? m->width[l + 1] : 0;
  return m->width[l + 1] * m->width[l];
}
/* numbers of a task's cotangents with tasks in lanes: a square from any of them on is inside */
static inline int64_t mlp_back_row(int64_t params) { return mlp_round(params + MLP_LANES - 1); }
/* run tasks in lanes? a vector's thetas then are in the second cache. of the network alone: bits depend on it */
static inline int mlp_in_lanes(const micak_mlp_loop *m) { return micak_mlp_params(m) <= 4096; }

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
