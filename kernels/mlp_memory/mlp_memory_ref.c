#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/ref.h"
#include "mlp_memory/mlp_memory_internal.h"

extern const mica_op mica_op_mlp_memory;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "mlp_memory/mlp_memory_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "mlp_memory/mlp_memory_ref.inc"
