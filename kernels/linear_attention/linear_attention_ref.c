#include <stdlib.h>
#include <string.h>

#include "common/ref.h"
#include "linear_attention/linear_attention_internal.h"

extern const mica_op mica_op_linear_attention;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "common/memory_ref.inc"
#include "linear_attention/linear_attention_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "common/memory_ref.inc"
#include "linear_attention/linear_attention_ref.inc"
