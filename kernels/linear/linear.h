/* linear.h: affine map of rows with activation and residual in one pass.
 *
 *   z = x w^T + b,   y = act(z) + res
 *
 * x (B,R,I), w (B,O,I) as PyTorch keeps it, b (B,O), res, y (B,R,O). w and b are usually shared over tasks. saved: z
 * (B,R,Z), Z = O when there is an activation, else 0 (then z = y - res is needed by no face). b, res may be absent.
 * rows may be packed (offsets on every port with a row axis). outputs must not overlap inputs.
 *
 * saved wires: z.v by forward, z.t by jvp, z.d = dL/dz by backward, z.td by backward_jvp (for its own second phase; not
 * read by any other face; recomputed when NULL).
 * accumulates: w.d, b.d (td) sum rows in task order in blocks of 256 rows; everything else is local to a row. a product
 * over k sums blocks of 256 terms, terms in order within a block, blocks in order: fp32, one fma a term where the
 * machine has it. deterministic: the same bits for any cut into units and any other rows and tasks beside.
 * cost of a forward: 2 B R I O flop.
 * worked example: x (1, 2), w ((1, 1), (0, -1)), b (1, 0), relu -> z (4, -2), y (4, 0). */
#ifndef MICA_OPS_LINEAR_H
#define MICA_OPS_LINEAR_H

#include "mica/op.h"

#define MICA_LINEAR_ACTS "none|relu|gelu|gelu_tanh|silu|tanh|sigmoid"
enum { MICA_ACT_NONE, MICA_ACT_RELU, MICA_ACT_GELU, MICA_ACT_GELU_TANH, MICA_ACT_SILU, MICA_ACT_TANH,
       MICA_ACT_SIGMOID, MICA_NACT };

typedef struct mica_linear_args {
  size_t    size;
  int64_t   B, R, I, O, Z;                   /* Z follows from O and act */
  int64_t   act;                             /* MICA_ACT_* */
  mica_port x, w, b, res, y, z;
} mica_linear_args;

#endif
