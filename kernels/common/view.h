/* view.h: what the rows of one task and head of a port are: for dual_cpu.h and dual_ref.inc */
#ifndef MICA_KERNELS_COMMON_VIEW_H
#define MICA_KERNELS_COMMON_VIEW_H

#include "common/op.h"

/* what a view shows: rows of (B,T,H,.), the same with one column for all (B,T,H,1), a state (B,H,K,V), its sum of keys
 * (B,H,K) */
enum { MICAK_VIEW_ROWS, MICAK_VIEW_FACTOR, MICAK_VIEW_STATE, MICAK_VIEW_NORM };
/* axes of a wire: of the head, of rows, of columns (-1: stride 0) */
static const int8_t micak_view_axis[4][3] = { { 1, 0, 2 }, { 1, 0, -1 }, { 0, 1, 2 }, { 0, 1, -1 } };

#endif
