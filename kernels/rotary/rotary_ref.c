#include <math.h>

#include "common/ref.h"
#include "rotary/rotary.h"

extern const mica_op mica_op_rotary;

#define real double
#define REAL_NAME f64
#define F(name) name##_f64
#include "rotary/rotary_ref.inc"
#undef real
#undef REAL_NAME
#undef F
#define real float
#define REAL_NAME f32
#define F(name) name##_f32
#include "rotary/rotary_ref.inc"
