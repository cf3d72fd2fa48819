#include "common/ref.h"
#include "move/move_internal.h"

extern const mica_op mica_op_concat, mica_op_slice, mica_op_transpose, mica_op_gather, mica_op_scatter_add;

static mica_status move_bad_index(int scatter, int64_t b, int64_t r, int64_t v, int64_t have) {
  return mica_error(MICA_ERR_INVALID, "%s: index of task %lld, row %lld is %lld, expected -1 (none) or 0 to %lld",
                    scatter ? "scatter_add" : "gather", (long long)b, (long long)r, (long long)v, (long long)have - 1);
}

#define real double
#define REAL_NAME f64
#define F(x) x##_f64
#include "move/move_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#undef LD
#undef ADD
#undef LINEAR_FACE
#undef LINEAR_FACES

#define real float
#define REAL_NAME f32
#define F(x) x##_f32
#include "move/move_ref.inc"
