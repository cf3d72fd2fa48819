#include <stdlib.h>
#include <string.h>

#include "common/ref.h"
#include "gradient_memory/gradient_memory_internal.h"

extern const mica_op mica_op_gradient_memory;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "gradient_memory/gradient_memory_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "gradient_memory/gradient_memory_ref.inc"
