#include <math.h>

#include "common/ref.h"
#include "reduce/reduce.h"

enum { REDUCE_ROW, REDUCE_COLUMN, REDUCE_ALL };
extern const mica_op mica_op_sum, mica_op_mean, mica_op_max, mica_op_logsumexp;

#define real double
#define REAL_NAME f64
#define F(x) x##_f64
#define M(x) x
#include "reduce/reduce_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#undef M
#undef REDUCE_X
#undef REDUCE_Y
#undef REDUCE_CELLS
#undef REDUCE_EACH
#undef REDUCE_LINEAR
#undef REDUCE_P

#define real float
#define REAL_NAME f32
#define F(x) x##_f32
#define M(x) x##f
#include "reduce/reduce_ref.inc"
