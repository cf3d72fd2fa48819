#include <stdlib.h>
#include <string.h>

#include "common/ref.h"
#include "gated_delta/gated_delta_internal.h"

extern const mica_op mica_op_gated_delta;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "common/memory_ref.inc"
#include "gated_delta/gated_delta_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "common/memory_ref.inc"
#include "gated_delta/gated_delta_ref.inc"
