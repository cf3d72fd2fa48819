#include <math.h>

#include "common/ref.h"
#include "elementwise/unary_internal.h"

#define UNARY_EXTERN(name, from, order, e0, e1, e2, w0, w1, w2) extern const mica_op mica_op_##name;
MICAK_UNARY_LIST(UNARY_EXTERN)

#define real double
#define REAL_NAME f64
#define F(x) x##_f64
#define M(x) x
#include "elementwise/unary_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#undef M
#undef GELU_K
#undef GELU_C
#undef UNARY_LD
#undef UNARY_ADD
#undef UNARY_S
#undef UNARY_LOOP
#undef UNARY_REF

#define real float
#define REAL_NAME f32
#define F(x) x##_f32
#define M(x) x##f
#include "elementwise/unary_ref.inc"
