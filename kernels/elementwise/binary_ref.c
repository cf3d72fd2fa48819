#include "common/ref.h"
#include "elementwise/binary_internal.h"

#define BINARY_EXTERN(name, bits, e, ea, eb, eaa, eab, ebb, w, wa, wb, waa, wab, wbb) \
  extern const mica_op mica_op_##name;
MICAK_BINARY_LIST(BINARY_EXTERN)

#define real double
#define REAL_NAME f64
#define F(x) x##_f64
#include "elementwise/binary_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#undef BINARY_A
#undef BINARY_B
#undef BINARY_Y
#undef BINARY_ADD_A
#undef BINARY_ADD_B
#undef BINARY_ADD_Y
#undef BINARY_VALUES_AT
#undef BINARY_LOOP
#undef BINARY_SUM
#undef BINARY_2
#undef BINARY_EXPR
#undef BINARY_REF

#define real float
#define REAL_NAME f32
#define F(x) x##_f32
#include "elementwise/binary_ref.inc"
