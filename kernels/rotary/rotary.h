/* rotary.h: rotary position embedding (Su et al., "RoFormer", 2021): pairs of elements of a head turn by an angle that
 * grows with the position.
 *
 *   (y_p, y_q) = (x_p cos u - x_q sin u, x_q cos u + x_p sin u)     u = position base^(-2k/D), pair k = 0 .. D/2 - 1
 *   pairing half: p = k, q = k + D/2 (GPT-NeoX, Llama);  interleaved: p = 2k, q = 2k + 1 (RoFormer, GPT-J)
 *
 * x, y (B,R,H,D), D even; position (B,R) index, absent: the row within the task. rows may be packed (offsets of x).
 * linear and orthogonal: jvp is forward of x.t, backward turns back. local to a row; angles in double on the CPU;
 * deterministic. outputs must not overlap inputs. cost: 3 B R H D flop, 2 B R H D elements moved.
 * worked example: position 0 leaves x as it is. */
#ifndef MICA_OPS_ROTARY_H
#define MICA_OPS_ROTARY_H

#include "mica/op.h"

enum { MICA_ROTARY_HALF, MICA_ROTARY_INTERLEAVED }; /* pairing */

typedef struct mica_rotary_args {
  size_t    size;
  int64_t   B, R, H, D;
  int64_t   pairing;
  double    base;
  mica_port x, position, y;
} mica_rotary_args;

#endif
